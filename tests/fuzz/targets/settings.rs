//! Settings: a file, lines `NAME=value` of the environment, words of the command line, in this order with `---` between.

use std::cell::RefCell;

use tidelog::server::config::{Config, Flags, Mode};

use crate::engine::{Heard, Target, Verdict};
use crate::gauge::{Bound, Gauge};
use crate::mutate::Shape;
use crate::promises::told;

/// TOML and clap keep much about little, and this is read once in the life of a process.
pub const SETTINGS: Target = Target {
    name: "settings",
    shape: Shape::Text,
    bound: Bound { base: 1 << 20, per_byte: 400, time: std::time::Duration::from_millis(150) },
    seeds,
    check,
    cases: 3_000,
};

const BETWEEN: &[u8] = b"\n---\n";

fn seeds() -> Vec<Vec<u8>> {
    [
        "[server]\nlisten = \"127.0.0.1:0\"\n[storage]\ncache_bytes = 1024\n[limits]\nconnections = 5\nmessage_bytes = 4096\n---\nTIDELOG_HTTP__HOSTS=[\"a\",\"b\"]\nTIDELOG_STORAGE__CACHE_BYTES=2\n---\nserve\n--data\nd\n--listen\n127.0.0.1:0",
        "\n---\nTIDELOG_LOG__FORMAT=json\nTIDELOG_METRICS__NAMES=true\nTIDELOG_BROKER__TAIL_BYTES=7\n---\npub\norders\nhello\n--type\nt\n--header\na=b",
        "[http]\nhosts = [\"a.example\"]\norigins = []\n[log]\nlevel = \"info\"\nformat = \"text\"\n---\n\n---\nsub\norders\n--from\n2026-01-26T10:00:00Z\n-n\n10",
        "storage = { direct_io = true, free_min_bytes = 1 }\n---\nTIDELOG_LIMITS__CONNECTIONS=9\n---\nbench\npub\n--msgs\n10\n--size\n100",
        "[metrics]\nnames = true\n---\nTIDELOG_URL=http://x\nTIDELOG_SERVER__DATA={a=1}\n---\nstream\ntrim\norders\n--before\n10",
    ]
    .iter()
    .map(|text| text.as_bytes().to_vec())
    .collect()
}

thread_local! {
    static FOLDER: RefCell<Option<tempfile::TempDir>> = const { RefCell::new(None) };
}

fn parts(input: &[u8]) -> [&[u8]; 3] {
    let cut = |bytes| -> (&[u8], &[u8]) {
        let at = <[u8]>::windows(bytes, BETWEEN.len()).position(|w| w == BETWEEN);
        at.map_or((bytes, b""), |at| (&bytes[..at], &bytes[at + BETWEEN.len()..]))
    };
    let (file, rest) = cut(input);
    let (environment, words) = cut(rest);
    [file, environment, words]
}

fn check(input: &[u8], gauge: &mut Gauge) -> Verdict {
    let [file, environment, words] = parts(input);
    let path = FOLDER.with_borrow_mut(|folder| {
        folder.get_or_insert_with(|| tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a folder")).path().join("t.toml")
    });
    std::fs::write(&path, file).map_err(|why| why.to_string())?;
    let text = String::from_utf8_lossy(environment).into_owned();
    let variables: Vec<(String, String)> = text.lines().filter_map(|line| line.split_once('=')).map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
    let flags = Flags { config: Some(path), data: Some("d".into()), ..Flags::default() };
    let (mode, sent) = (Mode::Serve { trust_loopback: false }, variables.clone());
    let loaded = gauge.decode(|| Config::load_from(mode, flags, sent.into_iter()));
    let words = String::from_utf8_lossy(words);
    let arguments = std::iter::once("tidelog".to_owned()).chain(words.lines().map(str::to_owned));
    let usage = gauge.decode(|| tidelog::cli::parses(arguments));
    if let Err(why) = &usage
        && why.is_empty()
    {
        return Err("a usage error says nothing".into());
    }
    let said = match &loaded {
        Ok(config) => {
            // A setting that does not exist is a limit that does not hold.
            let ours = |name: &str| name.strip_prefix("TIDELOG_").is_some_and(|rest| rest.contains("__"));
            if let Some((name, _)) = variables.iter().find(|(name, _)| ours(name) && !is_known(name)) {
                return Err(format!("the variable {name} is passed over in silence"));
            }
            if config.raw.limits.message_bytes == 0 {
                return Err("a limit of 0 is taken".into());
            }
            "good".to_owned()
        }
        // An operator's own words are said back, a line of them at most.
        Err(why) => match told(&why.chars().take(400).collect::<String>())? {
            Heard::Refused(said) | Heard::Taken(said) => said,
        },
    };
    let usage = usage.is_ok();
    if loaded.is_ok() || usage { Ok(Heard::Taken(format!("{said} {usage}"))) } else { Ok(Heard::Refused(said)) }
}

/// `TIDELOG_<SECTION>__<KEY>` of a section and key that exist. A section as a whole is a table.
fn is_known(name: &str) -> bool {
    let all = serde_json::to_value(tidelog::server::config::Raw::default()).expect("settings have a JSON form");
    let path: Vec<String> =
        name.trim_start_matches("TIDELOG_").to_ascii_lowercase().split("__").flat_map(|part| part.split('.').map(str::to_owned).collect::<Vec<_>>()).collect();
    let hidden = ["server.listen", "server.data", "server.socket", "storage.free_min_bytes", "storage.ballast_bytes"];
    let mut at = &all;
    for part in &path {
        match at.get(part) {
            Some(inner) => at = inner,
            None => return hidden.contains(&path.join(".").as_str()),
        }
    }
    true
}
