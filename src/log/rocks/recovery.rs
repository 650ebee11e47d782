//! Reads write-ahead logs as RocksDB writes them, to judge a damaged one: torn last group, or acknowledged data lost (`storage.md` section 3)?
//!
//! A WAL is blocks of 32 KiB. A physical record never crosses a block: masked CRC-32C (4 bytes, LE), length (2, LE), type (1), then, for
//! recyclable types, the log number (4); then the payload. A logical record is FULL, or FIRST, MIDDLE…, LAST.
//!
//! At most one group is unsynced at any time (S-4). So a bad spot with nothing begun after it, in the last log that holds anything, can only
//! be that group. If a later record has begun, the group at the bad spot had been synced before, and answered.
//!
//! RocksDB alone is not enough: it takes a length that points beyond the end of the file for a truncated tail, so that one flipped bit in the
//! last block would silently drop what follows. And at a record of a recyclable type in a log that is not recycled, which one flipped bit makes
//! of any other, it stays for ever. Hence the logs are read here before each open.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

/// Bytes of a block.
pub(super) const BLOCK: usize = 32 * 1024;
/// Bytes before the payload of a physical record.
pub(super) const HEADER: usize = 7;
const RECYCLABLE_HEADER: usize = 11;
/// Types of records that RocksDB 11.8 never gets past: no torn write makes one, and no log of ours has them.
const TRAPS: [u8; 6] = [5, 6, 7, 8, 11, 131];
/// A type that RocksDB does not know.
const NO_TYPE: u8 = 127;

/// What the logs of a directory say.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// No bad spot: the corruption is elsewhere.
    Sound,
    /// Only the last, unacknowledged group is damaged.
    TornTail { file: PathBuf, offset: u64 },
    /// The end of a log that is not the last is damaged: nothing, if the log is obsolete, else a loss. The engine knows which.
    TornEarlier { file: PathBuf, offset: u64 },
    /// Acknowledged data is damaged.
    Damaged { file: PathBuf, offset: u64 },
}

/// The logs in `dir` that hold anything, in order.
fn logs(dir: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut logs = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        let number = path.extension().filter(|e| *e == "log").and(path.file_stem()).and_then(|stem| stem.to_str()?.parse::<u64>().ok());
        if let Some(number) = number
            && std::fs::metadata(&path)?.len() > 0
        {
            logs.push((number, path));
        }
    }
    logs.sort();
    Ok(logs.into_iter().map(|(_, path)| path).collect())
}

/// Judges the logs in `dir`.
pub(super) fn examine(dir: &Path) -> std::io::Result<Verdict> {
    let logs = logs(dir)?;
    let last = logs.len().saturating_sub(1);
    for (index, file) in logs.into_iter().enumerate() {
        let Some(spot) = scan(File::open(&file)?)? else { continue };
        let offset = spot.offset;
        return Ok(match (spot.followed, index == last) {
            (true, _) => Verdict::Damaged { file, offset },
            (false, true) => Verdict::TornTail { file, offset },
            (false, false) => Verdict::TornEarlier { file, offset },
        });
    }
    Ok(Verdict::Sound)
}

/// A place in a log that is not as it was written.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Spot {
    pub(super) offset: u64,
    /// A logical record begins after it, or it is no torn write.
    pub(super) followed: bool,
}

/// [`scan`] in numbers: where, and whether a record begins after it.
pub(super) fn spot(log: impl std::io::Read) -> std::io::Result<Option<(u64, bool)>> {
    Ok(scan(log)?.map(|spot| (spot.offset, spot.followed)))
}

/// The first bad spot of a log.
pub(super) fn scan(mut log: impl std::io::Read) -> std::io::Result<Option<Spot>> {
    let mut scanner = Scanner::default();
    let mut block = Vec::with_capacity(BLOCK);
    let mut offset = 0;
    loop {
        block.clear();
        log.by_ref().take(BLOCK as u64).read_to_end(&mut block)?;
        if block.is_empty() {
            break;
        }
        scanner.block(offset, &block);
        if scanner.bad.as_ref().is_some_and(|spot| spot.followed) {
            break;
        }
        offset += block.len() as u64;
    }
    Ok(scanner.bad)
}

/// Damaged records in the logs of `dir` at which RocksDB would stay for ever: where their types stand.
pub(super) fn traps(dir: &Path) -> std::io::Result<Vec<(PathBuf, u64)>> {
    let mut traps = Vec::new();
    for path in logs(dir)? {
        let mut log = File::open(&path)?;
        let mut scanner = Scanner::default();
        let mut block = Vec::with_capacity(BLOCK);
        let mut offset = 0;
        loop {
            block.clear();
            if log.by_ref().take(BLOCK as u64).read_to_end(&mut block)? == 0 {
                break;
            }
            scanner.block(offset, &block);
            offset += block.len() as u64;
        }
        traps.extend(scanner.traps.into_iter().map(|at| (path.clone(), at)));
    }
    Ok(traps)
}

/// Gives such records a type that RocksDB calls damaged. Only by an operator's word, because it writes to what is judged here.
pub(super) fn defuse(dir: &Path) -> std::io::Result<()> {
    for (path, at) in traps(dir)? {
        let file = File::options().write(true).open(path)?;
        file.write_all_at(&[NO_TYPE], at)?;
        file.sync_data()?;
    }
    Ok(())
}

#[derive(Default)]
struct Scanner {
    /// Where types stand that RocksDB does not get past.
    traps: Vec<u64>,
    /// Where the logical record began whose end has not come.
    open: Option<u64>,
    bad: Option<Spot>,
}

impl Scanner {
    fn block(&mut self, offset: u64, block: &[u8]) {
        let mut at = 0;
        while block.len() - at >= HEADER {
            match record(&block[at..]) {
                Some(record) => {
                    self.record(record.part, offset + at as u64);
                    at += record.bytes;
                }
                None => {
                    self.spoil(offset + at as u64);
                    if TRAPS.contains(&block[at + HEADER - 1]) {
                        // A record that was whole once: the last of the log, too, may have been acknowledged.
                        self.traps.push(offset + (at + HEADER - 1) as u64);
                        self.follow();
                    }
                    // Lengths cannot be trusted from here on: look for a beginning at every byte of this block. Bytes of an event that look
                    // like one err to the safe side.
                    let begins = |from: &usize| matches!(record(&block[*from..]), Some(Physical { part: Part::Whole | Part::First, .. }));
                    if (at + 1..block.len()).any(|from| begins(&from)) {
                        self.follow();
                    }
                    return;
                }
            }
        }
    }

    fn record(&mut self, part: Part, offset: u64) {
        match part {
            Part::Whole | Part::First => {
                if let Some(begun) = self.open {
                    self.spoil(begun);
                }
                self.follow();
                self.open = (part == Part::First).then_some(offset);
            }
            // Parts of a record whose beginning was lost belong to the bad spot.
            Part::Middle | Part::Last if self.open.is_none() => self.spoil(offset),
            Part::Last => self.open = None,
            Part::Middle | Part::Note => {}
        }
    }

    /// The earliest bad spot counts.
    fn spoil(&mut self, offset: u64) {
        self.bad.get_or_insert(Spot { offset: self.open.unwrap_or(offset).min(offset), followed: false });
    }

    fn follow(&mut self) {
        if let Some(spot) = &mut self.bad {
            spot.followed = true;
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Whole,
    First,
    Middle,
    Last,
    /// Not data: compression, time stamps, the log before.
    Note,
}

/// A part of a logical record, within one block.
pub(super) struct Physical {
    part: Part,
    pub(super) bytes: usize,
}

/// The physical record at the beginning of `bytes`, if its CRC is right.
pub(super) fn record(bytes: &[u8]) -> Option<Physical> {
    let header = bytes.first_chunk::<HEADER>()?;
    let stored = u32::from_le_bytes([header[0], header[1], header[2], header[3]]);
    let len = usize::from(u16::from_le_bytes([header[4], header[5]]));
    let (part, start) = match header[6] {
        1 => (Part::Whole, HEADER),
        2 => (Part::First, HEADER),
        3 => (Part::Middle, HEADER),
        4 => (Part::Last, HEADER),
        5 => (Part::Whole, RECYCLABLE_HEADER),
        6 => (Part::First, RECYCLABLE_HEADER),
        7 => (Part::Middle, RECYCLABLE_HEADER),
        8 => (Part::Last, RECYCLABLE_HEADER),
        9 | 10 | 130 => (Part::Note, HEADER),
        11 | 131 => (Part::Note, RECYCLABLE_HEADER),
        _ => return None,
    };
    let payload = bytes.get(start..start + len)?;
    let crc = crc32c(&[&bytes[6..start], payload]);
    (mask(crc) == stored).then_some(Physical { part, bytes: start + len })
}

/// RocksDB stores CRCs of bytes that may hold CRCs: rotated, plus a constant.
pub(super) fn mask(crc: u32) -> u32 {
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}

/// CRC-32C (Castagnoli) over the parts in order.
pub(super) fn crc32c(parts: &[&[u8]]) -> u32 {
    let mut digest = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi);
    parts.iter().for_each(|part| digest.update(part));
    digest.finalize() as u32
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Appends logical records the way RocksDB does.
    fn write(log: &mut Vec<u8>, payload: &[u8]) -> usize {
        let begin = log.len();
        let mut rest = payload;
        let mut first = true;
        loop {
            let left = BLOCK - log.len() % BLOCK;
            if left < HEADER {
                log.resize(log.len() + left, 0);
                continue;
            }
            let part = rest.len().min(left - HEADER);
            let last = part == rest.len();
            let kind = match (first, last) {
                (true, true) => 1,
                (true, false) => 2,
                (false, false) => 3,
                (false, true) => 4,
            };
            log.extend(mask(crc32c(&[&[kind], &rest[..part]])).to_le_bytes());
            log.extend((part as u16).to_le_bytes());
            log.push(kind);
            log.extend(&rest[..part]);
            rest = &rest[part..];
            first = false;
            if last {
                return begin;
            }
        }
    }

    /// Payloads of one value repeated hold nothing that looks like a record.
    pub(in super::super) fn log_of(sizes: &[usize]) -> (Vec<u8>, Vec<usize>) {
        let mut log = Vec::new();
        let begins = sizes.iter().enumerate().map(|(i, size)| write(&mut log, &vec![0x40 + i as u8; *size])).collect();
        (log, begins)
    }

    fn verdict(log: &[u8]) -> Option<Spot> {
        scan(log).unwrap()
    }

    fn sizes() -> impl Strategy<Value = Vec<usize>> {
        proptest::collection::vec(prop_oneof![1usize..200, 30_000usize..34_000, 60_000usize..150_000], 2..6)
    }

    proptest! {
        #[test]
        fn a_sound_log_has_no_bad_spot(sizes in sizes()) {
            prop_assert_eq!(verdict(&log_of(&sizes).0), None);
        }

        #[test]
        fn damage_of_the_last_record_is_a_torn_tail(sizes in sizes(), at: prop::sample::Index, zeros in 1usize..5000) {
            let (mut log, begins) = log_of(&sizes);
            let last = *begins.last().unwrap();
            let at = last + at.index(log.len() - last);
            let end = (at + zeros).min(log.len());
            let before = log.clone();
            log[at..end].fill(0);
            prop_assume!(log != before);
            let spot = verdict(&log);
            // Fewer than seven bytes before a block's end are filler: zeros there change nothing.
            if let Some(spot) = spot {
                prop_assert!(!spot.followed);
                prop_assert!(spot.offset >= last as u64);
            }
        }

        #[test]
        fn damage_of_an_earlier_record_is_followed_by_others(sizes in sizes(), which: prop::sample::Index, at: prop::sample::Index) {
            let (mut log, mut begins) = log_of(&sizes);
            begins.push(log.len());
            let which = which.index(sizes.len() - 1);
            let (from, to) = (begins[which], begins[which + 1]);
            let at = from + at.index(to - from);
            log[at] ^= 0x10;
            if let Some(spot) = verdict(&log) {
                prop_assert!(spot.followed, "{:?} {} {}", spot, at, from);
            }
        }
    }

    #[test]
    fn a_torn_page_inside_the_last_group_is_a_torn_tail_although_later_parts_are_whole() {
        let (mut log, begins) = log_of(&[100, 200_000]);
        log[BLOCK + 4096..BLOCK + 8192].fill(0);
        assert_eq!(verdict(&log), Some(Spot { offset: begins[1] as u64, followed: false }));
    }

    #[test]
    fn the_last_log_is_the_last_one_that_is_not_empty() {
        let dir = tempfile::tempdir().unwrap();
        let (mut log, begins) = log_of(&[100, 100]);
        std::fs::write(dir.path().join("000009.log"), log_of(&[50]).0).unwrap();
        log[begins[1] + 20] ^= 1;
        std::fs::write(dir.path().join("000004.log"), &log).unwrap();
        assert_eq!(examine(dir.path()).unwrap(), Verdict::TornEarlier { file: dir.path().join("000004.log"), offset: begins[1] as u64 });
        std::fs::write(dir.path().join("000009.log"), b"").unwrap();
        assert_eq!(examine(dir.path()).unwrap(), Verdict::TornTail { file: dir.path().join("000004.log"), offset: begins[1] as u64 });
    }

    #[test]
    fn s7_a_death_between_two_defused_records_leaves_a_log_that_is_refused_and_can_be_defused_again() {
        let (log, begins) = log_of(&[40, 50, 60, 70]);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("000004.log");
        let mut spoilt = log.clone();
        spoilt[begins[1] + HEADER - 1] = TRAPS[0];
        std::fs::write(&path, &spoilt).unwrap();
        let [(_, first)] = traps(dir.path()).unwrap()[..] else { panic!("one trap at a time can be told in a block") };
        assert_eq!(first, (begins[1] + HEADER - 1) as u64);
        // The byte is written and not yet synced, or synced: both are damage, and neither is a trap.
        for kept in [TRAPS[0], NO_TYPE] {
            spoilt[begins[1] + HEADER - 1] = kept;
            std::fs::write(&path, &spoilt).unwrap();
            assert!(matches!(examine(dir.path()).unwrap(), Verdict::Damaged { offset, .. } if offset == begins[1] as u64));
            defuse(dir.path()).unwrap();
            assert_eq!(traps(dir.path()).unwrap(), []);
            assert!(matches!(examine(dir.path()).unwrap(), Verdict::Damaged { offset, .. } if offset == begins[1] as u64));
        }
    }
}
