//! What can be checked without running anything: who may know whom, what a file must begin with, words that must not stand in
//! the code, and that the documents say what they may say and point where they say.
//!
//! Uses the standard library only, so that it links nothing and runs at once. Each failure names the file, the line and what to do.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// For each layer, the layers it may name (`docs/ARCHITECTURE.md`). A new folder in `src` needs a row here.
const ARROWS: &[(&str, &[&str])] = &[
    ("types", &["types"]),
    ("wire", &["types", "wire"]),
    ("log", &["types", "log"]),
    ("broker", &["types", "log", "broker"]),
    ("edge", &["types", "wire", "broker", "edge"]),
    ("server", &["types", "wire", "log", "broker", "edge", "server"]),
    ("client", &["types", "wire", "client"]),
    ("cli", &["types", "wire", "client", "server", "cli"]),
];

/// Files of the broker that may read a clock: they drive the state machines and hand the time in. No rule is decided by it.
const CLOCK_READERS: &[&str] = &[
    "src/broker/mod.rs",             // opens the broker: the moment from which monotonic time counts
    "src/broker/access/identity.rs", // when a credential ends, by the clock that sleeps go by
    "src/broker/access/quota.rs",    // how far the buckets of a user have filled; the buckets are told
    "src/broker/admin.rs",           // lag in seconds
    "src/broker/driver.rs",          // the loop: reads the clock once for each group, and times its commits
    "src/broker/operations.rs",      // how long a wait for an operation still lasts
    "src/broker/pull.rs",            // how long a pull still waits, and when its session was last used
    "src/broker/read.rs",            // how long a long poll still waits
    "src/broker/session.rs",         // lag in seconds, when passed events were told, and the moment of detaching
    "src/broker/world.rs",           // the wall clock itself
];

/// The claims, word for word. Whoever changes one changes what we promise.
const CLAIMS: &[&str] = &[
    "**Append.** For one stream and one producer identity whose state has not been expired, each sequence number is stored at most once, in order, \
     without holes; an acknowledged append survives process crash, OS crash and power loss of the node, provided the disk honours fsync.",
    "**Delivery.** Every durable record at or after a cursor is delivered at least once, in offset order inside a session, and may be delivered again \
     after a reconnect. Nothing is skipped without an explicit `gap` frame.",
    "**Effect.** Exactly-once *effect* if the consumer (a) stores its position in the same transaction as its effect, or (b) keys its effect by \
     (stream_id, log_epoch, offset), or (c) its effect is appends and acks inside one broker `Commit`. Otherwise: at-least-once when it acks after the \
     effect, at-most-once when it acks before.",
    "**Not claimed:** exactly-once delivery over a network; deduplication after producer state expiry or of appends sent without a producer or \
     idempotency key; effects in third systems that take part in none of 3a–c; anything across a `log_epoch` change; disks that lie about fsync; \
     cluster mode whose engine acknowledges before fsync (then: \"survives loss of a minority of processes\", no power-loss claim).",
];

/// Longest comment line. `rustfmt.toml` says the same of code, and leaves comments alone.
const COLUMNS: usize = 160;
/// Longer files are reported, never failed: ask whether a second idea has moved in.
const LONG_FILE: usize = 500;

#[test]
fn each_layer_names_only_the_layers_it_may_know() {
    let mut complaints = Complaints::default();
    for file in sources("src") {
        let parts: Vec<&str> = file.name.trim_start_matches("src/").split('/').collect();
        let named = crate_paths(&file.code, &parts);
        let Some(layer) = layer_of(&parts) else {
            // lib.rs declares the layers; main.rs and other binaries call the command line and nothing else.
            for path in named.iter().filter(|p| parts[0] != "lib.rs" && p.to != "cli") {
                complaints.add(&file, path.line, format!("a binary calls `tidelog::cli` and nothing else, here it names `{}`", path.to));
            }
            continue;
        };
        let Some((_, may)) = ARROWS.iter().find(|(name, _)| *name == layer) else {
            complaints.add(&file, 1, format!("`{layer}` is not a layer yet; give it a row in ARROWS of tests/tidy.rs and a place in docs/ARCHITECTURE.md"));
            continue;
        };
        for path in named.iter().filter(|p| !may.contains(&p.to.as_str())) {
            complaints.add(&file, path.line, format!("`{layer}` may name {may:?} only, here it names `{}`", path.to));
        }
    }
    complaints.check();
}

#[test]
fn the_storage_engine_is_named_in_its_own_folder_only() {
    let mut complaints = Complaints::default();
    for file in sources("src").iter().filter(|f| !f.name.starts_with("src/log/rocks")) {
        // Comments too: whoever reads the broker need not know what stores its rows.
        for (line, text) in lines(&file.text).filter(|(_, text)| text.to_ascii_lowercase().contains("rocksdb")) {
            complaints.add(file, line, format!("RocksDB is named outside src/log/rocks: {}", text.trim()));
        }
    }
    complaints.check();
}

#[test]
fn the_rules_are_told_the_time_and_never_ask_for_it() {
    let mut complaints = Complaints::default();
    let files = sources("src/broker");
    let test_files = test_files(&files);
    for file in files.iter().filter(|f| !CLOCK_READERS.contains(&f.name.as_str())) {
        for (line, text) in lines(before_tests(file, &test_files)) {
            for call in ["Instant::now(", "SystemTime::now(", "TimeUs::now(", "Timestamp::now(", ".elapsed("] {
                if text.contains(call) {
                    complaints.add(file, line, format!("`{call}…)`: take `now` as an argument, or list the file in CLOCK_READERS with a reason"));
                }
            }
        }
    }
    complaints.check();
}

#[test]
fn each_file_begins_with_its_idea() {
    let mut complaints = Complaints::default();
    for file in ["src", "tests", "benches", "examples"].iter().flat_map(|folder| sources(folder)) {
        if !file.text.starts_with("//! ") {
            complaints.add(&file, 1, "begin with `//! ` and a sentence: what lives here, and why apart".into());
        }
    }
    complaints.check();
}

#[test]
fn nothing_is_left_for_later_in_the_code() {
    // Put together here, so that this file does not find itself.
    let words = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];
    let calls = [concat!("todo", "!("), concat!("unimplemented", "!("), concat!("dbg", "!("), concat!("#[", "ignore")];
    let mut complaints = Complaints::default();
    for file in ["src", "tests", "benches", "examples"].iter().flat_map(|folder| sources(folder)) {
        for (line, text) in lines(&file.text) {
            for word in words.iter().filter(|word| has_word(text, word)) {
                complaints.add(&file, line, format!("`{word}`: do it now, or write an issue"));
            }
        }
        for (line, text) in lines(&file.code) {
            for call in calls.iter().filter(|call| text.contains(**call)) {
                complaints.add(&file, line, format!("`{call}` must not stay"));
            }
        }
    }
    complaints.check();
}

#[test]
fn no_unwrap_outside_tests() {
    let mut complaints = Complaints::default();
    let files = sources("src");
    let test_files = test_files(&files);
    for file in &files {
        for (line, text) in lines(before_tests(file, &test_files)) {
            if text.contains(".unwrap()") {
                complaints.add(file, line, "handle it, or say why it cannot fail with `expect(\"…\")`".into());
            }
        }
    }
    complaints.check();
}

#[test]
fn comments_fit_the_page() {
    let mut complaints = Complaints::default();
    for file in ["src", "tests", "benches", "examples"].iter().flat_map(|folder| sources(folder)) {
        for (line, text) in lines(&file.text).filter(|(_, text)| text.trim_start().starts_with("//") && text.chars().count() > COLUMNS) {
            complaints.add(&file, line, format!("{} columns, {COLUMNS} fit", text.chars().count()));
        }
        let count = file.text.lines().count();
        if count > LONG_FILE {
            eprintln!("long: {} has {count} lines; has a second idea moved in?", file.name);
        }
    }
    complaints.check();
}

#[test]
fn each_error_code_is_explained() {
    let codes: Vec<String> =
        read("src/types/error.rs").lines().filter_map(|line| line.trim().split_once(" = \"")?.1.split_once("\", ").map(|(code, _)| code.to_owned())).collect();
    assert!(codes.len() > 60, "src/types/error.rs is not read as it should be: {} codes found", codes.len());
    let page = read("docs/errors.md");
    let missing: Vec<&String> = codes.iter().filter(|code| !page.contains(&format!("`{code}`"))).collect();
    assert!(missing.is_empty(), "docs/errors.md does not explain {missing:?}");
}

#[test]
fn the_guarantees_are_claimed_in_their_exact_words() {
    for page in ["README.md", "docs/guarantees.md"] {
        let text = one_line(&read(page));
        for (claim, number) in CLAIMS.iter().zip(1..) {
            assert!(text.contains(&one_line(claim)), "{page} does not hold claim {number} word for word:\n{claim}");
        }
    }
}

#[test]
fn no_page_claims_more_than_the_guarantees() {
    let mut complaints = Complaints::default();
    for page in pages() {
        let mut text = one_line(&page.text);
        for claim in CLAIMS {
            text = text.replace(&one_line(claim), "");
        }
        let text = text.to_lowercase();
        for (at, word) in text.match_indices("exactly-once") {
            let rest = text[at + word.len()..].trim_start_matches(['*', '_', ' ']);
            if !rest.starts_with("effect") {
                let near: String = rest.chars().take(40).collect();
                complaints.add(&page, 0, format!("only an effect can be exactly-once; here it is: exactly-once {near}"));
            }
        }
    }
    complaints.check();
}

/// The last column of the tables in `docs/guarantees.md` follows from the names of tests: those of rule `P-8` begin with `p8_`.
/// `BLESS=1 cargo test --release --test tidy` writes it. A rule without such a test needs words of its own there.
#[test]
fn each_rule_names_the_tests_that_show_it() {
    let code: Vec<Source> = ["tests", "src"].iter().flat_map(|folder| sources(folder)).collect();
    let names: Vec<&str> = code.iter().flat_map(|file| function_names(&file.code)).collect();
    let page = Source { name: "docs/guarantees.md".into(), text: read("docs/guarantees.md"), code: String::new() };
    let (mut complaints, mut right) = (Complaints::default(), String::new());
    for (line, text) in lines(&page.text) {
        let row = rule_of(text).and_then(|rule| Some((rule, text.strip_suffix('|')?.rsplit_once('|')?)));
        let Some((rule, (before, cell))) = row else {
            right += &format!("{text}\n");
            continue;
        };
        let shown_by: Vec<&&str> = names.iter().filter(|name| name.strip_prefix(&rule).is_some_and(|rest| rest.starts_with('_'))).collect();
        let cell = match shown_by.as_slice() {
            [] => cell.trim().to_owned(),
            [only] => format!("`{only}`"),
            [first, more @ ..] => format!("`{first}` and {} more", more.len()),
        };
        if cell.is_empty() {
            complaints.add(&page, line, format!("no test begins with `{rule}_`; write one, or say here what shows the rule"));
        }
        for name in cell.split('`').skip(1).step_by(2).filter(|name| !names.contains(name)) {
            complaints.add(&page, line, format!("there is no test `{name}`"));
        }
        right += &format!("{before}| {cell} |\n").replace("|  |", "| |");
    }
    if std::env::var_os("BLESS").is_some() {
        fs::write(root().join(&page.name), &right).expect("the page can be written");
    } else if right != page.text {
        complaints.add(&page, 0, "the last column does not fit the tests; `BLESS=1 cargo test --release --test tidy` writes it".into());
    }
    complaints.check();
}

#[test]
fn links_between_documents_lead_somewhere() {
    let mut complaints = Complaints::default();
    for page in pages() {
        let folder = root().join(&page.name).parent().expect("a file has a folder").to_owned();
        for (line, text) in lines(&page.text) {
            for target in text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target) {
                if target.contains("://") || target.starts_with("mailto:") {
                    continue;
                }
                let (path, heading) = target.split_once('#').unwrap_or((target, ""));
                let to = if path.is_empty() { root().join(&page.name) } else { folder.join(path) };
                if !to.exists() {
                    complaints.add(&page, line, format!("`{target}` does not exist"));
                } else if !heading.is_empty() && !anchors(&to).iter().any(|anchor| anchor == heading) {
                    complaints.add(&page, line, format!("`{target}`: that page has no such heading"));
                }
            }
        }
    }
    complaints.check();
}

#[test]
fn the_reader_of_sources_sees_paths_and_not_comments() {
    let text = concat!(
        "// crate::broker\nuse crate::types::{A, b::C};\nuse crate::{wire::X, log};\nlet s = \"crate::edge\"; let c = '\"'; fn f<'a>() {}\n",
        "/* /* crate::cli */ */ r#\"crate::client\"#;\nlet x = crate::server::y;"
    );
    let named = crate_paths(&code_of(text), &["types", "a.rs"]);
    let named: Vec<(&str, usize)> = named.iter().map(|p| (p.to.as_str(), p.line)).collect();
    assert_eq!(named, [("types", 2), ("wire", 3), ("log", 3), ("server", 6)]);
    let up = crate_paths("use super::super::broker::X;\nuse super::other;", &["log", "rocks", "mod.rs"]);
    assert_eq!(up.iter().map(|p| p.to.as_str()).collect::<Vec<_>>(), ["broker"]);
    let file = |code: &str| Source { name: "src/log/mod.rs".into(), text: String::new(), code: code.into() };
    let module = file("#[cfg(test)]\nmod suite;\nfn a() {}\n#[cfg(test)]\nfn b() {}\n#[cfg(test)]\nmod tests {\n}");
    let tests = test_files(std::slice::from_ref(&module));
    assert_eq!(tests.iter().map(String::as_str).collect::<Vec<_>>(), ["src/log/suite"]);
    assert!(before_tests(&module, &tests).ends_with("fn b() {}\n"));
    let nested = crate_paths("use crate::{\n    types::{a, b},\n    broker::c,\n};", &["wire", "mod.rs"]);
    assert_eq!(nested.iter().map(|p| (p.to.as_str(), p.line)).collect::<Vec<_>>(), [("types", 2), ("broker", 3)]);
}

/// One file, and its text without comments and the insides of strings (same lines).
struct Source {
    name: String,
    text: String,
    code: String,
}

/// A layer that a file names.
struct Named {
    to: String,
    line: usize,
}

/// Everything that is wrong, told at once.
#[derive(Default)]
struct Complaints(String);

impl Complaints {
    fn add(&mut self, file: &Source, line: usize, what: String) {
        writeln!(self.0, "  {}:{line}: {what}", file.name).expect("a string takes all");
    }

    #[track_caller]
    fn check(self) {
        assert!(self.0.is_empty(), "\n{}", self.0);
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn files(folder: &Path, ending: &str, into: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for path in entries.map(|entry| entry.expect("the folder can be read").path()) {
        if path.is_dir() {
            files(&path, ending, into);
        } else if path.extension().is_some_and(|e| e == ending) {
            into.push(path);
        }
    }
}

fn load(paths: Vec<PathBuf>) -> Vec<Source> {
    let mut loaded: Vec<Source> = paths
        .iter()
        .map(|path| {
            let name = path.strip_prefix(root()).expect("below the root").to_string_lossy().into_owned();
            let text = read(&name);
            Source { code: code_of(&text), name, text }
        })
        .collect();
    loaded.sort_by(|a, b| a.name.cmp(&b.name));
    loaded
}

/// Every Rust file below a folder of the crate; none if the folder does not exist.
fn sources(folder: &str) -> Vec<Source> {
    let mut found = Vec::new();
    files(&root().join(folder), "rs", &mut found);
    load(found)
}

/// Every document.
fn pages() -> Vec<Source> {
    let mut found: Vec<PathBuf> = ["README.md", "CHANGELOG.md"].iter().map(|name| root().join(name)).collect();
    for folder in ["docs", "benches", "examples"] {
        files(&root().join(folder), "md", &mut found);
    }
    load(found)
}

/// What headings of a page are called in links.
fn anchors(page: &Path) -> Vec<String> {
    let text = fs::read_to_string(page).unwrap_or_default();
    let name = |heading: &str| heading.to_lowercase().replace(' ', "-").chars().filter(|c| c.is_alphanumeric() || "-_".contains(*c)).collect();
    text.lines().filter(|line| line.starts_with('#')).map(|line| name(line.trim_start_matches('#').trim())).collect()
}

fn layer_of<'a>(parts: &[&'a str]) -> Option<&'a str> {
    match parts {
        ["lib.rs" | "main.rs"] | ["bin", ..] => None,
        [file] => Some(file.trim_end_matches(".rs")),
        [folder, ..] => Some(folder),
        [] => None,
    }
}

fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    (1..).zip(text.lines())
}

/// White space and quotation marks of Markdown do not count.
fn one_line(text: &str) -> String {
    text.lines().map(|line| line.trim_start_matches('>')).flat_map(str::split_whitespace).collect::<Vec<_>>().join(" ")
}

/// How tests of a rule begin, if a row of a table begins with a rule: `p8` for `| P-8 | …`.
fn rule_of(row: &str) -> Option<String> {
    let (kind, number) = row.strip_prefix("| ")?.split(' ').next()?.split_once('-')?;
    (kind.len() == 1 && number.parse::<u32>().is_ok()).then(|| format!("{}{number}", kind.to_lowercase()))
}

/// Names of all functions, in the order of the file.
fn function_names(code: &str) -> impl Iterator<Item = &str> {
    code.match_indices("fn ").filter(|(at, _)| !code[..*at].ends_with(|c: char| c.is_alphanumeric() || c == '_')).map(|(at, mark)| {
        let rest = &code[at + mark.len()..];
        &rest[..rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len())]
    })
}

fn has_word(text: &str, word: &str) -> bool {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').any(|w| w == word)
}

/// The code of a file without its unit tests, which stand at its end or in files of their own.
fn before_tests<'a>(file: &'a Source, test_files: &BTreeSet<String>) -> &'a str {
    if test_files.iter().any(|test| file.name == format!("{test}.rs") || file.name.starts_with(&format!("{test}/"))) {
        return "";
    }
    &file.code[..test_modules(&file.code).find(|(_, head)| !head.contains(';')).map_or(file.code.len(), |(at, _)| at)]
}

/// Files (without their ending) that are compiled for tests only.
fn test_files(files: &[Source]) -> BTreeSet<String> {
    let declared = |file: &Source| {
        let folder = file.name.trim_end_matches(".rs").trim_end_matches("/mod").trim_end_matches("/lib").to_owned();
        let names: Vec<String> =
            test_modules(&file.code).filter_map(|(_, head)| head.split_once(';')?.0.rsplit(' ').next().map(|name| format!("{folder}/{name}"))).collect();
        names
    };
    files.iter().flat_map(declared).collect()
}

/// Where `#[cfg(test)]` stands before a module, and the text up to the module's `{` or just behind its `;`.
fn test_modules(code: &str) -> impl Iterator<Item = (usize, &str)> {
    code.match_indices("#[cfg(test)]").filter_map(|(at, mark)| {
        let rest = &code[at + mark.len()..];
        let head = &rest[..rest.find(['{', ';']).map_or(rest.len(), |end| end + usize::from(rest[end..].starts_with(';')))];
        head.contains("mod ").then_some((at, head))
    })
}

/// Blanks comments and the insides of strings; keeps lines.
fn code_of(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let at = |i: usize| chars.get(i).copied().unwrap_or('\0');
    let mut out = String::with_capacity(text.len());
    let mut i = 0;
    // Passes over what does not count, keeping its line ends.
    let skip = |from: usize, to: usize, out: &mut String| out.extend(chars[from..to.min(chars.len())].iter().filter(|c| **c == '\n'));
    while i < chars.len() {
        let start = i;
        let after_word = i > 0 && (at(i - 1).is_alphanumeric() || at(i - 1) == '_');
        let hashes = chars[i + 1..].iter().take_while(|c| **c == '#').count();
        match at(i) {
            '/' if at(i + 1) == '/' => {
                while i < chars.len() && at(i) != '\n' {
                    i += 1;
                }
            }
            '/' if at(i + 1) == '*' => {
                let mut depth = 0;
                while i < chars.len() {
                    match (at(i), at(i + 1)) {
                        ('/', '*') => (depth, i) = (depth + 1, i + 2),
                        ('*', '/') => (depth, i) = (depth - 1, i + 2),
                        _ => i += 1,
                    }
                    if depth == 0 {
                        break;
                    }
                }
                skip(start, i, &mut out);
            }
            // `r"…"`, `r#"…"#`, `br"…"`
            'r' if at(i + 1 + hashes) == '"' && (!after_word || at(i - 1) == 'b') => {
                i += hashes + 2;
                while i < chars.len() && !(at(i) == '"' && (1..=hashes).all(|n| at(i + n) == '#')) {
                    i += 1;
                }
                i += hashes + 1;
                skip(start, i, &mut out);
                out.push_str("\"\"");
            }
            '"' => {
                i += 1;
                while i < chars.len() && at(i) != '"' {
                    i += if at(i) == '\\' { 2 } else { 1 };
                }
                i += 1;
                skip(start, i, &mut out);
                out.push_str("\"\"");
            }
            // A character, not a lifetime.
            '\'' if at(i + 1) == '\\' || at(i + 2) == '\'' => {
                i += if at(i + 1) == '\\' { 3 } else { 2 };
                while i < chars.len() && at(i) != '\'' {
                    i += 1;
                }
                i += 1;
                out.push_str("' '");
            }
            c => {
                out.push(c);
                i += 1;
            }
        }
    }
    out
}

/// The layers named by `crate::…`, `tidelog::…` and by `super::` chains that leave the layer. `parts` is the file's path below `src`.
fn crate_paths(code: &str, parts: &[&str]) -> Vec<Named> {
    let layers: BTreeSet<&str> = ARROWS.iter().map(|(name, _)| *name).collect();
    // How many `super` lead from the file to the root of the crate.
    let depth = parts.len() - usize::from(matches!(parts.last(), Some(&"mod.rs" | &"lib.rs" | &"main.rs")));
    let mut found: Vec<(usize, String)> = Vec::new();
    for start in ["crate::", "tidelog::"] {
        for (at, _) in code.match_indices(start) {
            if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$' || c == ':') {
                continue;
            }
            heads(code, at + start.len(), &mut found);
        }
    }
    for (at, _) in code.match_indices("super::") {
        if code[..at].ends_with("::") || code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let chain = code[at..].split("::").take_while(|part| *part == "super").count();
        let mut up = Vec::new();
        heads(code, at + chain * "super::".len(), &mut up);
        // An inner module needs one more `super`; then only names of other layers can be meant.
        found.extend(up.into_iter().filter(|(_, to)| chain >= depth && layers.contains(to.as_str())));
    }
    found.sort();
    found.into_iter().map(|(at, to)| Named { to, line: code[..at].matches('\n').count() + 1 }).collect()
}

/// The first names of the path or of the `{…}` group at `at`.
fn heads(code: &str, at: usize, into: &mut Vec<(usize, String)>) {
    let name = |at: usize| -> String { code[at..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect() };
    if !code[at..].starts_with('{') {
        let head = name(at);
        if !head.is_empty() {
            into.push((at, head));
        }
        return;
    }
    let (mut depth, mut fresh) = (0, false);
    for (i, c) in code[at..].char_indices() {
        match c {
            '{' => (depth, fresh) = (depth + 1, depth == 0),
            '}' if depth == 1 => break,
            '}' => depth -= 1,
            ',' => fresh = depth == 1,
            c if fresh && (c.is_alphanumeric() || c == '_') => {
                into.push((at + i, name(at + i)));
                fresh = false;
            }
            _ => {}
        }
    }
}
