//! What the pages show is run as it stands, from top to bottom: each section in one shell against one fresh broker.
//!
//! A block `sh` runs. A block directly below it (`json` or `text`) is what it prints, with `…` for what differs from run to run; a
//! block of frames there is a dialogue: `→` is typed, `←` must be heard. A command that goes on for ever is ended by Ctrl-C when it has
//! printed what is shown. A block `html` is shown by Chromium, and the block below it is what its console says, in any order.

use std::os::unix::fs::symlink;

use tempfile::TempDir;

use crate::broker::Broker;
use crate::browser::Site;
use crate::expect::looks_like;
use crate::page::{Block, blocks, read};
use crate::shell::Shell;
use crate::tools;

/// Where the pages say that the broker is.
const WRITTEN: &str = "127.0.0.1:4080";

/// Blocks that are not run, by how they begin, and why.
const NOT_RUN: &[(&str, &str, &str)] = &[
    ("README.md", "make run ", "this is what runs the test"),
    ("README.md", "The history of this machine's software:", "figures of `make demo`, which differ on each machine"),
    ("docs/protocol.md", "GET /v1/connect ", "the form of a request"),
    ("docs/protocol.md", "GET /v1/streams/orders/subscriptions/billing/connect?", "the form of a request"),
    ("docs/protocol.md", "GET /v1/streams/orders/subscriptions/billing/events?", "the form of a request"),
];

#[test]
fn what_the_readme_shows_happens() {
    follow("README.md", &read("README.md"));
}

#[test]
fn what_the_protocol_page_shows_happens() {
    follow("docs/protocol.md", &read("docs/protocol.md"));
}

#[test]
fn what_the_page_of_filters_shows_happens() {
    follow("docs/filters.md", &read("docs/filters.md"));
}

#[test]
#[should_panic(expected = "does not print what is shown")]
fn a_page_that_shows_another_answer_is_a_failure() {
    follow("a page", "```sh\necho 1; echo 3\n```\n```text\n1\n2\n```\n");
}

#[test]
#[should_panic(expected = "failed at `false")]
fn a_page_whose_command_fails_is_a_failure() {
    follow("a page", "```sh\nfalse\ntrue\n```\n");
}

#[test]
#[should_panic(expected = "is answered with an error that is not shown")]
fn a_page_that_hides_an_error_is_a_failure() {
    follow("a page", "```sh\ncurl -s 127.0.0.1:4080/v1/streams/nowhere/events\n```\n");
}

#[test]
#[should_panic(expected = "is neither run nor printed")]
fn a_page_with_a_block_that_nobody_runs_is_a_failure() {
    follow("a page", "```sh\ntrue\n```\nAnd this:\n```python\nprint(1)\n```\n");
}

fn follow(page: &'static str, text: &str) {
    let blocks = blocks(text);
    let sections: Vec<&[Block]> = blocks.chunk_by(|a, b| a.section == b.section).collect();
    let run: usize = sections.into_iter().map(|blocks| follow_section(page, blocks)).sum();
    assert!(run > 0, "{page} has no block that runs");
    for (_, first, _) in NOT_RUN.iter().filter(|(of, ..)| *of == page) {
        assert!(blocks.iter().any(|b| b.text.starts_with(first)), "{page} has no block that begins with `{first}`: take it out of NOT_RUN in {}", file!());
    }
}

/// Returns how many blocks were run.
fn follow_section(page: &'static str, blocks: &[Block]) -> usize {
    let uses: Vec<Use<'_>> = (0..blocks.len()).map(|at| use_of(page, blocks, at)).collect();
    let run = uses.iter().filter(|u| !matches!(u, Use::Nothing)).count();
    if run == 0 {
        return 0;
    }
    let reader = Reader::of(page);
    let runtime = reader.broker.folder().to_string_lossy();
    let mut shell = Shell::start(reader.folder.path(), &[("XDG_RUNTIME_DIR", &*runtime), ("TMPDIR", &*runtime)]);
    for (block, use_) in blocks.iter().zip(uses) {
        match use_ {
            Use::Run(expected) => reader.run(&mut shell, block, expected),
            Use::Dialogue(frames) => reader.talk(&mut shell, block, frames),
            Use::Show(expected) => reader.show(block, expected),
            Use::Nothing => {}
        }
    }
    run
}

fn use_of<'a>(page: &str, blocks: &'a [Block], at: usize) -> Use<'a> {
    let block = &blocks[at];
    if NOT_RUN.iter().any(|(of, first, _)| *of == page && block.text.starts_with(first)) {
        return Use::Nothing;
    }
    let below = blocks.get(at + 1).filter(|b| b.follows && ["", "json", "text"].contains(&b.language.as_str()));
    let above = at.checked_sub(1).map(|i| blocks[i].language.as_str()).filter(|_| block.follows);
    match (block.language.as_str(), below) {
        ("sh", Some(frames)) if frames.is_frames() => Use::Dialogue(frames),
        ("sh", expected) => Use::Run(expected),
        ("html", Some(expected)) => Use::Show(expected),
        ("html", None) => complain(page, block, "shows nothing: put what its console says into a `text` block directly below it"),
        ("" | "json" | "text", _) if matches!(above, Some("sh" | "html")) => Use::Nothing,
        // `src/wire/tests.rs` reads them.
        _ if block.is_frames() && page == "docs/protocol.md" => Use::Nothing,
        _ => complain(page, block, "is neither run nor printed: make it runnable, or list it in NOT_RUN of tests/interop/snippets.rs with a reason"),
    }
}

fn complain(page: &str, block: &Block, what: &str) -> ! {
    panic!("{page}:{}: the block\n{}{what}", block.line, block.text)
}

/// What becomes of a block.
enum Use<'a> {
    Run(Option<&'a Block>),
    Dialogue(&'a Block),
    Show(&'a Block),
    /// It belongs to the block above, is read by a test of `wire`, or is declared.
    Nothing,
}

/// Somebody who reads a section and does what it says.
struct Reader {
    page: &'static str,
    broker: Broker,
    site: Site,
    folder: TempDir,
}

impl Reader {
    fn of(page: &'static str) -> Self {
        for tool in ["curl", "grpcurl", "jq", "python3", "websocat"] {
            tools::require(tool);
        }
        let site = Site::open();
        // A page of another origin may call only where the operator says so.
        let broker = Broker::start_with(&[], &[("TIDELOG_HTTP__ORIGINS", &format!("[\"{}\"]", site.origin))]);
        // What the pages name is there, and what they write lands in a folder that goes.
        let folder = tempfile::tempdir().expect("a temporary folder");
        for name in ["README.md", "docs", "proto"] {
            symlink(tools::checkout(name), folder.path().join(name)).expect("a link");
        }
        std::fs::create_dir_all(folder.path().join("target/release")).expect("a folder");
        symlink(env!("CARGO_BIN_EXE_tidelog"), folder.path().join("target/release/tidelog")).expect("a link");
        Self { page, broker, site, folder }
    }

    fn run(&self, shell: &mut Shell, block: &Block, expected: Option<&Block>) {
        let complete = |printed: &str| expected.is_some_and(|e| looks_like(&e.text, &self.as_written(printed)));
        eprintln!("{}:{}: {}", self.page, block.line, block.first_line());
        let ended = shell.run(&self.as_it_is(&block.text)).ends(complete);
        let printed = self.as_written(&ended.printed);
        match expected {
            Some(expected) if !complete(&ended.printed) => {
                self.complain(block, &format!("does not print what is shown:\n{}It printed:\n{printed}It failed at: {}", expected.text, ended.failed))
            }
            Some(_) => {}
            None if !ended.failed.is_empty() => self.complain(block, &format!("failed at `{}`, and printed:\n{printed}", ended.failed)),
            None if printed.contains(r#""type":"error""#) => self.complain(block, &format!("is answered with an error that is not shown:\n{printed}")),
            None => {}
        }
    }

    fn talk(&self, shell: &mut Shell, block: &Block, frames: &Block) {
        eprintln!("{}:{}: {}", self.page, block.line, block.first_line());
        let mut client = shell.run(&self.as_it_is(&block.text));
        for line in frames.text.lines() {
            if let Some(said) = line.strip_prefix("→ ") {
                client.types(&self.as_it_is(said));
            } else if let Some(heard) = line.strip_prefix("← ") {
                client.hears(|line| looks_like(heard, &self.as_written(line)));
            }
        }
        // Everything was heard: the end of input ends it, or Ctrl-C.
        client.ends(|_| true);
    }

    fn show(&self, block: &Block, expected: &Block) {
        eprintln!("{}:{}: {}", self.page, block.line, block.first_line());
        self.site.show(&self.as_it_is(&block.text), |said| {
            let said = self.as_written(said);
            expected.text.lines().all(|shown| said.lines().any(|line| looks_like(shown, line)))
        });
    }

    /// What the page says, with the address of the broker that really runs.
    fn as_it_is(&self, text: &str) -> String {
        text.replace(WRITTEN, &self.broker.address)
    }

    /// What was printed, with the address that the page names.
    fn as_written(&self, text: &str) -> String {
        text.replace(&self.broker.address, WRITTEN)
    }

    fn complain(&self, block: &Block, what: &str) -> ! {
        complain(self.page, block, what)
    }
}
