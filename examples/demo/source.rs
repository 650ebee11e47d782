//! A real history of at least 100,000 events that every Debian machine has: how its software came onto it.
//!
//! First what dpkg did (`/var/log/dpkg.log`, in its order), then each file of each package (`/var/lib/dpkg/info/*.list`, in the order
//! in which the packages were installed last). A machine with few packages goes on with what Cargo downloaded for this build: each
//! file of each crate, and if that is not enough, each line of their sources.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use tidelog::client::NewEvent;
use tidelog::types::Encoding;

/// A history is long enough with this many events.
pub const ENOUGH: usize = 100_000;

/// Events and where they come from.
pub struct Source {
    pub events: Vec<NewEvent>,
    pub from: Vec<String>,
}

/// The same events in the same order each time, as long as nobody installs anything: line i of the history has `seq` i (P-16).
pub fn gather() -> Source {
    let mut source = Source { events: Vec::new(), from: Vec::new() };
    source.add("what dpkg did, from /var/log/dpkg.log", dpkg_log);
    source.add("the files of each package, from /var/lib/dpkg/info/*.list", package_files);
    if source.events.len() < ENOUGH {
        source.add("the files of each crate that Cargo downloaded", |events| crates(events, false));
    }
    if source.events.len() < ENOUGH {
        source.add("the lines of their sources", |events| crates(events, true));
    }
    source
}

impl Source {
    fn add(&mut self, what: &str, part: impl FnOnce(&mut Vec<NewEvent>)) {
        let before = self.events.len();
        part(&mut self.events);
        if self.events.len() > before {
            self.from.push(format!("{} events: {what}", self.events.len() - before));
        }
    }
}

fn event(kind: &str, key: &str, line: &[u8]) -> NewEvent {
    let encoding = if std::str::from_utf8(line).is_ok() { Encoding::Utf8 } else { Encoding::Binary };
    NewEvent { data: line.to_vec().into(), encoding, ..NewEvent::default() }.kind(kind).key(key)
}

fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty() && line.len() < 64 * 1024)
}

/// `2026-01-31 12:00:00 install name:amd64 <none> 1.2-3`
fn dpkg_log(events: &mut Vec<NewEvent>) {
    for file in ["/var/log/dpkg.log.1", "/var/log/dpkg.log"] {
        for line in lines(&std::fs::read(file).unwrap_or_default()) {
            let text = String::from_utf8_lossy(line);
            let mut words = text.split(' ').skip(2);
            let action = words.next().unwrap_or_default();
            // The name follows the action; a status comes between for `status`.
            let name = if action == "status" { words.nth(1) } else { words.next() }.unwrap_or_default();
            events.push(event(&format!("dpkg.{action}"), name, line));
        }
    }
}

fn package_files(events: &mut Vec<NewEvent>) {
    let mut lists: Vec<(SystemTime, PathBuf)> = entries(Path::new("/var/lib/dpkg/info"))
        .into_iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "list"))
        .filter_map(|path| Some((path.metadata().ok()?.modified().ok()?, path)))
        .collect();
    lists.sort();
    for (_, path) in lists {
        let package = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        lines(&std::fs::read(&path).unwrap_or_default()).for_each(|file| events.push(event("package.file", &package, file)));
    }
}

fn crates(events: &mut Vec<NewEvent>, whole: bool) {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| Some(Path::new(&std::env::var_os("HOME")?).join(".cargo")));
    let registries = entries(&home.unwrap_or_default().join("registry/src"));
    for name in registries.iter().flat_map(|registry| entries(registry)) {
        let key = name.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut waiting = vec![name];
        while let Some(path) = waiting.pop() {
            if path.is_dir() {
                waiting.extend(entries(&path).into_iter().rev());
            } else if !whole {
                let size = path.metadata().map_or(0, |m| m.len());
                events.push(event("crate.file", &key, format!("{size} {}", path.display()).as_bytes()));
            } else if path.extension().is_some_and(|extension| extension == "rs") && events.len() < 2 * ENOUGH {
                lines(&std::fs::read(&path).unwrap_or_default()).for_each(|line| events.push(event("crate.line", &key, line)));
            }
        }
    }
}

/// What a folder holds, by name; nothing if it cannot be read.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    paths.sort();
    paths
}
