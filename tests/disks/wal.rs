//! The write-ahead log: its last record cut at every byte, bits flipped in all the others, several logs at once.
//!
//! A last record that is not whole may be a group that nobody was told of, and vanishes whole; unless the side file knows better. Anything
//! before it was acknowledged: the directory is refused.

use std::path::Path;

use crate::chance::{Chance, rounds};
use crate::inspect::{Verdict, inspect};
use crate::made::{Made, Shape, make};

fn log(dir: &Path, made: &Made) -> std::path::PathBuf {
    dir.join("db").join(made.wal)
}

/// What came of a log that is `bytes`.
fn with_log(made: &Made, side: bool, bytes: &[u8]) -> (tempfile::TempDir, Verdict) {
    let dir = made.copy(side);
    std::fs::write(log(dir.path(), made), bytes).expect("a log");
    let verdict = inspect(dir.path(), &made.before);
    (dir, verdict)
}

fn whole(made: &Made) -> Vec<u8> {
    let dir = made.copy(true);
    assert!(inspect(dir.path(), &made.expected).is_whole(), "the directory that all copies are made of is not whole");
    std::fs::read(log(made.copy(true).path(), made)).expect("a log")
}

/// Refused with 11 and advice.
fn refused(verdict: &Verdict, what: &str) {
    match &verdict.refused {
        Some((11, said)) => assert!(said.contains("accept_loss") && said.contains("copy"), "{what}: {said}"),
        other => panic!("{what} was not refused but {other:?}: {verdict:?}"),
    }
}

#[test]
fn a_log_cut_at_any_byte_of_its_last_record_is_everything_before_it_or_refused() {
    let mut chance = Chance::for_test("a_log_cut_at_any_byte");
    for shape in [Shape::Short, Shape::Long] {
        let made = make(shape);
        let bytes = whole(&made);
        let len = made.last.len();
        // Each byte of a small record; of one over several blocks the heads and tails of its parts, and places between.
        let near = |at: &usize| (made.last.start + at) % 32_768 < 9 || (made.last.start + at) % 32_768 > 32_760;
        let places: Vec<usize> = if shape == Shape::Long {
            let mut places: Vec<usize> = (0..len).filter(near).step_by(3).chain(chance.places(30 * rounds(), len)).chain([0, 1, 6, 7, 8, len - 1]).collect();
            places.sort_unstable();
            places.dedup();
            places
        } else {
            (0..len).collect()
        };
        for at in &places {
            let cut = made.last.start + at;
            let (_dir, verdict) = with_log(&made, false, &bytes[..cut]);
            assert!(verdict.is_whole(), "cut {at} bytes into the last record of {len}: {verdict:?}");
        }
        // The side file was written after that record was durable.
        for at in [0, 1, len / 2, len - 1] {
            let (_dir, verdict) = with_log(&made, true, &bytes[..made.last.start + at]);
            refused(&verdict, &format!("S-7: a log cut {at} bytes into a record that is known to be durable"));
        }
        println!("cut at {} places of a record of {len} bytes", places.len());
    }
}

#[test]
fn a_bit_that_flips_in_the_last_record_drops_it_whole_and_one_that_flips_earlier_is_refused() {
    let mut chance = Chance::for_test("a_bit_that_flips");
    let made = make(Shape::Long);
    let bytes = whole(&made);
    let mut flipped = |at: usize| {
        let mut bytes = bytes.clone();
        bytes[at] ^= 1 << chance.below(8);
        bytes
    };
    let mut places = Chance::for_test("a_bit_that_flips");
    let dropped = |bytes: &[u8], what: &str| {
        let (_dir, verdict) = with_log(&made, false, bytes);
        // A type that RocksDB reads for ever comes of no torn write: that is refused.
        assert!(verdict.is_whole() || matches!(verdict.refused, Some((11, _))), "{what} of the last record: {verdict:?}");
        usize::from(verdict.refused.is_some())
    };
    for at in places.places(40 * rounds(), made.last.len()) {
        dropped(&flipped(made.last.start + at), &format!("a bit of byte {at}"));
    }
    // Each bit of its head: of its length, which then points elsewhere, and of its type, which then means something else.
    let heads: usize = (0..56)
        .map(|bit| {
            let mut spoilt = bytes.clone();
            spoilt[made.last.start + bit / 8] ^= 1 << (bit % 8);
            dropped(&spoilt, &format!("bit {bit}"))
        })
        .sum();
    assert!(heads < 4, "{heads} flips in the head of a last record were refused");
    let (_dir, verdict) = with_log(&made, true, &flipped(made.last.start + 20));
    refused(&verdict, "S-7: a damaged record that is known to be durable");
    // Each byte of the heads of some records, and places everywhere.
    let heads = made.begins.iter().filter(|begin| **begin < made.last.start).flat_map(|begin| *begin..begin + 7);
    let mut passed = 0;
    for at in heads.chain(places.places(60 * rounds(), made.last.start)) {
        let side = at % 2 == 0;
        let dir = made.copy(side);
        std::fs::write(log(dir.path(), &made), flipped(at)).expect("a log");
        let verdict = inspect(dir.path(), &made.expected);
        // At the end of a block up to six bytes are filler, which means nothing.
        if at % 32_768 > 32_761 && verdict.is_whole() {
            passed += 1;
            continue;
        }
        refused(&verdict, &format!("a bit flipped at {at}, the last record begins at {}", made.last.start));
    }
    println!("{passed} flips hit nothing but filler");
}

#[test]
fn a_sector_of_zeros_or_of_something_else_in_the_log_is_refused_or_a_torn_last_record() {
    let mut places = Chance::for_test("a_sector_of_zeros");
    let made = make(Shape::Long);
    let bytes = whole(&made);
    for (index, at) in places.places(24 * rounds(), bytes.len()).into_iter().enumerate() {
        let at = at / 512 * 512;
        let end = (at + 512).min(bytes.len());
        let mut spoilt = bytes.clone();
        if index % 2 == 0 {
            spoilt[at..end].fill(0);
        } else {
            // What another sector holds: a write that went astray.
            let from = (at + 4096) % (bytes.len() - 512);
            spoilt[at..end].copy_from_slice(&bytes[from..from + (end - at)]);
        }
        if spoilt == bytes {
            continue;
        }
        let (_dir, verdict) = with_log(&made, false, &spoilt);
        if at >= made.last.start {
            assert!(verdict.is_whole() || verdict.refused.is_some(), "a sector at {at} of the last record: {verdict:?}");
        } else if end > made.last.start {
            // The last record's head is gone with what stood before it: from there on this is what a torn write leaves. Only the side file,
            // which names the commit before, knows better.
            let (_dir, verdict) = with_log(&made, true, &spoilt);
            refused(&verdict, &format!("S-7: a sector at {at}, into the last record at {}", made.last.start));
        } else {
            refused(&verdict, &format!("a sector at {at}"));
        }
    }
}

#[test]
fn a_log_that_is_gone_or_empty_is_refused_by_the_side_file() {
    let made = make(Shape::Short);
    for empty in [false, true] {
        let dir = made.copy(true);
        let log = log(dir.path(), &made);
        if empty { std::fs::write(log, b"") } else { std::fs::remove_file(log) }.expect("a log");
        refused(&inspect(dir.path(), &made.expected), "S-7: a log that is not there");
    }
}

/// The rows of an earlier log are as acknowledged as those of the last one, and its end was whole when the next log began.
#[test]
fn a_log_before_the_last_is_refused_when_its_end_is_damaged_as_well() {
    let mut chance = Chance::for_test("a_log_before_the_last");
    let made = make(Shape::TwoLogs);
    assert!(inspect(made.copy(true).path(), &made.expected).is_whole(), "the directory that all copies are made of is not whole");
    let (file, last) = made.earlier.clone().expect("an earlier log");
    let bytes = std::fs::read(made.copy(true).path().join("db").join(&file)).expect("a log");
    let with = |side: bool, bytes: Option<&[u8]>, what: &str| {
        let dir = made.copy(side);
        let path = dir.path().join("db").join(&file);
        match bytes {
            Some(bytes) => std::fs::write(path, bytes).expect("a log"),
            None => std::fs::remove_file(path).expect("a log"),
        }
        let verdict = inspect(dir.path(), &made.expected);
        assert!(matches!(verdict.refused, Some((11, _))), "{what} of the earlier log, side file {side}, was not refused: {verdict:?}");
    };
    // The head of its last record, and that of the last part of it, behind which there is nothing.
    let part = bytes.len() / 32_768 * 32_768;
    assert!(part > last, "the last record is of several blocks");
    for (index, (begin, bit)) in [last, part].into_iter().flat_map(|begin| (0..56).map(move |bit| (begin, bit))).enumerate() {
        let mut spoilt = bytes.clone();
        spoilt[begin + bit / 8] ^= 1 << (bit % 8);
        with(index % 2 == 0, Some(&spoilt), &format!("bit {bit} at {begin}"));
    }
    for (index, at) in chance.places(20 * rounds(), bytes.len() - last).into_iter().enumerate() {
        with(index % 2 == 0, Some(&bytes[..last + at]), &format!("a cut {at} bytes into the last record"));
        let mut spoilt = bytes.clone();
        spoilt[last + at] ^= 0x10;
        if (last + at) % 32_768 <= 32_761 {
            with(index % 2 == 1, Some(&spoilt), &format!("a bit flipped {at} bytes into the last record"));
        }
    }
    with(false, None, "the absence");
    with(true, None, "the absence");
}
