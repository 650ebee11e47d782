//! Bytes that rot in tables, blob files and the engine's lists; files that are cut, swapped or gone.
//!
//! Refuse, or name the damaged range, or be right: never wrong bytes, a shorter stream, an older cursor, or a panic.

use std::collections::BTreeMap;
use std::path::Path;

use crate::chance::{Chance, rounds};
use crate::inspect::{Verdict, inspect};
use crate::made::{Made, Shape, make};

/// Everything that RocksDB keeps and that could matter.
const ALL: [&str; 7] = [".sst", ".blob", "MANIFEST-", "CURRENT", "OPTIONS-", "IDENTITY", ".log"];

fn kind(file: &str) -> &'static str {
    ALL.into_iter().find(|like| file.starts_with(like) || file.ends_with(like)).unwrap_or("other")
}

/// Counts of what came of each kind of file.
#[derive(Default)]
struct Tally(BTreeMap<(&'static str, &'static str), usize>);

impl Tally {
    fn note(&mut self, file: &str, verdict: &Verdict, what: &str) {
        assert!(verdict.wrong.is_empty(), "{what} of {file}: {}", verdict.wrong.join("\n"));
        let word = match (&verdict.refused, verdict.damaged.is_empty() && verdict.unreadable.is_empty()) {
            (Some((code, said)), _) => {
                assert!(matches!(code, 10..=13) && said.len() > 20, "{what} of {file}: refused with {code}: {said}");
                if *code == 11 { "refused" } else { "failed to open" }
            }
            (None, true) => "all right",
            (None, false) => "damage named",
        };
        *self.0.entry((kind(file), word)).or_default() += 1;
    }

    fn count(&self, kind: &'static str, word: &'static str) -> usize {
        self.0.get(&(kind, word)).copied().unwrap_or(0)
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|((kind, word), count)| write!(f, "{kind} {word}: {count}; "))
    }
}

/// Changes a file of a copy and looks.
fn spoil(made: &Made, file: &str, side: bool, change: impl FnOnce(&mut Vec<u8>)) -> Verdict {
    let dir = made.copy(side);
    let path = dir.path().join("db").join(file);
    let mut bytes = std::fs::read(&path).expect("a file");
    change(&mut bytes);
    std::fs::write(&path, bytes).expect("a file");
    inspect(dir.path(), &made.expected)
}

#[test]
fn s6_a_bit_that_flips_anywhere_is_refused_or_named_or_harmless() {
    let mut chance = Chance::for_test("s6_a_bit_that_flips");
    let made = make(Shape::Short);
    let mut tally = Tally::default();
    for file in made.files(&ALL) {
        let places = match kind(&file) {
            ".sst" => 24,
            ".blob" => 30,
            "MANIFEST-" => 60,
            "CURRENT" => 16,
            ".log" => 10,
            _ => 6,
        };
        for (index, at) in chance.places(places * rounds(), made.len(&file)).into_iter().enumerate() {
            let bit = chance.below(8);
            // Without the side file the engine's own checks have to do; but it alone tells a damaged last record from a torn one (`wal.rs`).
            let side = index % 2 == 0 || (kind(&file) == ".log" && at >= made.last.start);
            let verdict = spoil(&made, &file, side, |bytes| bytes[at] ^= 1 << bit);
            let what = format!("bit {bit} of byte {at}");
            tally.note(&file, &verdict, &what);
            if kind(&file) == ".blob" {
                // Each of its values is a batch of one event.
                let hurt: u64 = verdict.damaged.values().flatten().map(|(from, to)| to - from + 1).sum();
                assert!(verdict.refused.is_none() && hurt <= 2, "{what} of {file} hurts more than its batch: {verdict:?}");
            }
            // No table ends in or behind these streams: damage of others is none of theirs.
            assert!(!verdict.hurt.contains("left") && !verdict.hurt.contains("right"), "{what} of {file}: {verdict:?}");
        }
    }
    println!("bits flipped: {tally}");
    let (named, refused) = (tally.count(".blob", "damage named"), tally.count("MANIFEST-", "refused"));
    assert!(named > 10 && refused > 30 && tally.count(".sst", "all right") < tally.0.values().sum(), "the flips hit nothing: {tally}");
}

#[test]
fn s6_the_last_entry_of_the_list_of_files_cannot_be_lost_silently() {
    let mut chance = Chance::for_test("s6_the_last_entry");
    let made = make(Shape::Short);
    let mut tally = Tally::default();
    let file = made.files(&["MANIFEST-"]).pop().expect("a list of files");
    let len = made.len(&file);
    for at in (0..60 * rounds().min(4)).map(|back| len - 1 - back) {
        for (side, bit) in [(true, chance.below(8)), (false, chance.below(8))] {
            tally.note(&file, &spoil(&made, &file, side, |bytes| bytes[at] ^= 1 << bit), &format!("bit {bit} of byte {at} of {len}, side file {side}"));
        }
    }
    // Another type of the last entry: RocksDB reads some of them for ever.
    for bit in 0..8 {
        let last = entries(&std::fs::read(made.copy(true).path().join("db").join(&file)).expect("the list")).pop().expect("an entry");
        let verdict = spoil(&made, &file, bit % 2 == 0, |bytes| bytes[last + 6] ^= 1 << bit);
        assert!(matches!(verdict.refused, Some((11, _))), "bit {bit} of the type of the last entry: {verdict:?}");
    }
    for cut in (1..120).step_by(2) {
        for side in [true, false] {
            tally.note(&file, &spoil(&made, &file, side, |bytes| bytes.truncate(len - cut)), &format!("the last {cut} bytes cut, side file {side}"));
        }
    }
    println!("the end of the list of files: {tally}");
}

#[test]
fn s6_a_file_that_is_cut_zeroed_or_swapped_is_refused_or_named() {
    let mut chance = Chance::for_test("s6_a_file_that_is_cut");
    let made = make(Shape::Short);
    let mut tally = Tally::default();
    let files = made.files(&[".sst", ".blob", "MANIFEST-", "CURRENT"]);
    for (index, file) in files.iter().enumerate() {
        let len = made.len(file);
        for round in 0..2 * rounds() {
            let at = chance.below(len as u64) as usize;
            tally.note(file, &spoil(&made, file, round % 2 == 0, |bytes| bytes.truncate(at)), &format!("cut at {at} of {len}"));
            let sector = at / 512 * 512;
            let zeroed = spoil(&made, file, round % 2 == 0, |bytes| bytes[sector..(sector + 512).min(len)].fill(0));
            tally.note(file, &zeroed, &format!("a sector of zeros at {sector}"));
            tally.note(file, &spoil(&made, file, round % 2 == 0, |bytes| bytes.extend([0xA5; 700])), "garbage at the end");
        }
        // The bytes of a neighbour: right checksums in the wrong place.
        if let Some(other) = files.get(index + 1).filter(|other| kind(other) == kind(file)) {
            let foreign = std::fs::read(made.copy(true).path().join("db").join(other)).expect("a file");
            tally.note(file, &spoil(&made, file, false, |bytes| *bytes = foreign), &format!("the bytes of {other} instead"));
        }
    }
    println!("cut, zeroed, swapped: {tally}");
}

#[test]
fn s6_a_file_that_is_gone_is_refused_or_named() {
    let made = make(Shape::Short);
    let mut tally = Tally::default();
    for file in made.files(&ALL) {
        for side in [true, false] {
            // Without log and side file nobody can know that there was a log: a loss of both is a loss.
            if file == made.wal && !side {
                continue;
            }
            let dir = made.copy(side);
            std::fs::remove_file(dir.path().join("db").join(&file)).expect("a file");
            let verdict = inspect(dir.path(), &made.expected);
            tally.note(&file, &verdict, &format!("gone, side file {side}"));
            let harmless = matches!(kind(&file), "OPTIONS-" | "IDENTITY");
            assert!(harmless || !verdict.is_whole(), "{file} is gone and nobody noticed");
            if kind(&file) == "CURRENT" {
                refused_and_untouched(&verdict, dir.path(), &made);
                // Nor does the second start take what the first one made for a directory.
                refused_and_untouched(&inspect(dir.path(), &made.expected), dir.path(), &made);
            }
        }
    }
    println!("gone: {tally}");
}

/// Where the entries of a list of files begin; it is shorter than a block.
fn entries(list: &[u8]) -> Vec<usize> {
    let mut begins = Vec::new();
    let mut at = 0;
    while at + 7 <= list.len() {
        begins.push(at);
        at += 7 + usize::from(u16::from_le_bytes([list[at + 4], list[at + 5]]));
    }
    begins
}

/// A directory without CURRENT looks new to the engine, which would begin a new log in it and remove the old one.
fn refused_and_untouched(verdict: &Verdict, dir: &Path, made: &Made) {
    assert!(matches!(&verdict.refused, Some((11, said)) if said.contains("copy")), "{verdict:?}");
    for file in made.files(&[".sst", ".blob", ".log"]) {
        assert_eq!(dir.join("db").join(&file).metadata().map(|m| m.len() as usize).ok(), Some(made.len(&file)), "{file} was touched");
    }
}

/// `tidelog store check` on a directory: its exit code, and what it said. It must not take for ever.
fn store_check(dir: &Path) -> (Option<i32>, String) {
    let mut command = std::process::Command::new("timeout");
    command.arg("60").arg(env!("CARGO_BIN_EXE_tidelog")).args(["store", "check", "--data"]).arg(dir);
    let output = command.output().expect("it runs");
    (output.status.code(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

#[test]
fn s6_store_check_finds_what_matters_in_every_kind_of_file() {
    let made = make(Shape::Short);
    let (code, said) = store_check(made.copy(true).path());
    assert_eq!(code, Some(0), "a sound directory: {said}");
    let damaged = |file: &str, at: usize, bits: u8| {
        let dir = made.copy(true);
        let path = dir.path().join("db").join(file);
        let mut bytes = std::fs::read(&path).expect("a file");
        bytes[at] ^= bits;
        std::fs::write(&path, bytes).expect("a file");
        let (code, said) = store_check(dir.path());
        assert_eq!(code, Some(1), "byte {at} of {file}: {said}");
    };
    for file in made.files(&[".sst", ".blob"]) {
        damaged(&file, 20, 1);
    }
    let list = made.files(&["MANIFEST-"]).pop().expect("a list of files");
    let entries = entries(&std::fs::read(made.copy(true).path().join("db").join(&list)).expect("the list"));
    for entry in [entries[2], entries[entries.len() - 1]] {
        damaged(&list, entry + 6, 4);
        damaged(&list, entry + 2, 4);
    }
    damaged("CURRENT", 3, 1);
    for begin in [made.begins[2], made.last.start] {
        // 1 becomes 5, which RocksDB reads for ever.
        damaged(made.wal, begin + 6, 4);
    }
    damaged(made.wal, made.begins[2] + 20, 4);
}

/// The control: the inspection finds a stream that is shorter, other bytes, an older cursor, and a producer that forgot.
#[test]
fn control_the_inspection_sees_what_is_not_as_it_was_acknowledged() {
    let made = make(Shape::Short);
    let lie = |change: &dyn Fn(&mut crate::made::Expected)| {
        let mut expected = made.expected.clone();
        change(&mut expected);
        inspect(made.copy(true).path(), &expected).wrong
    };
    assert_eq!(lie(&|_| {}), [""; 0]);
    assert!(!lie(&|expected| drop(expected.streams.get_mut("big").map(Vec::pop))).is_empty());
    assert!(!lie(&|expected| expected.streams.get_mut("big").into_iter().for_each(|events| events[3].push('x'))).is_empty());
    assert!(!lie(&|expected| expected.streams.get_mut("late").into_iter().for_each(|events| events.swap(0, 1))).is_empty());
    assert!(!lie(&|expected| drop(expected.streams.insert("lost", vec!["event".into()]))).is_empty());
    assert!(
        !lie(&|expected| {
            expected.cursors.insert(("early", "reader"), 131);
        })
        .is_empty()
    );
    assert!(
        !lie(&|expected| {
            expected.producers.insert(("early", "p"), 7);
        })
        .is_empty()
    );
    assert!(
        !lie(&|expected| {
            expected.producers.insert(("early", "nobody"), 7);
        })
        .is_empty()
    );
}
