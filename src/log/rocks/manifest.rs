//! Judges the engine's list of files (MANIFEST, named by CURRENT) before RocksDB reads it.
//!
//! The list has the form of a log (`recovery`). RocksDB reads it too trustingly: a length that points beyond the end passes for a torn
//! last entry, which is dropped with the files it names; and one flipped bit in the type of an entry makes it read that entry for ever.

use std::fs::File;
use std::io::{ErrorKind, Read as _, Result, Seek as _, SeekFrom};
use std::path::Path;

use super::recovery::{BLOCK, HEADER, crc32c, mask, record, scan};

/// The file that names the list.
const CURRENT: &str = "CURRENT";
/// The list that RocksDB writes first of all, before CURRENT.
const FIRST: &str = "MANIFEST-000001";

/// What is wrong with the list in `dir`: a clause. A last entry that a crash cut short is right, it was never in force.
pub(super) fn judge(dir: &Path) -> Result<Option<String>> {
    let named = match std::fs::read(dir.join(CURRENT)) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return without_list(dir),
        Err(error) => return Err(error),
    };
    let is_list = |name: &&str| name.strip_prefix("MANIFEST-").is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()));
    let Some(name) = std::str::from_utf8(&named).ok().and_then(|text| text.strip_suffix('\n')).filter(is_list) else {
        return Ok(Some("CURRENT does not name a list of files".into()));
    };
    let mut list = match File::open(dir.join(name)) {
        Ok(list) => list,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Some(format!("the list of files {name}, which CURRENT names, is not there"))),
        Err(error) => return Err(error),
    };
    let Some(spot) = scan(&mut list)? else { return Ok(None) };
    if !spot.followed {
        let mut rest = Vec::new();
        list.seek(SeekFrom::Start(spot.offset))?;
        list.read_to_end(&mut rest)?;
        if was_cut_short(&rest, (spot.offset % BLOCK as u64) as usize) {
            return Ok(None);
        }
    }
    Ok(Some(format!("the list of files {name} is damaged at byte {}", spot.offset)))
}

/// RocksDB takes a directory without CURRENT for a new one, and removes what it does not know.
fn without_list(dir: &Path) -> Result<Option<String>> {
    let entries = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        entries => entries?,
    };
    for entry in entries {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let is_data = [".sst", ".blob", ".log"].iter().any(|end| name.ends_with(end));
        if is_data || (name.starts_with("MANIFEST-") && name != FIRST) {
            return Ok(Some(format!("the file CURRENT is missing, although {name} is there")));
        }
    }
    Ok(None)
}

/// `rest` begins with an entry that is not whole, at byte `at` of a block: is it because a write ended early?
fn was_cut_short(rest: &[u8], at: usize) -> bool {
    let (mut rest, mut at) = (rest, at);
    loop {
        if rest.iter().all(|byte| *byte == 0) {
            return true;
        }
        let block = &rest[..rest.len().min(BLOCK - at)];
        if block.len() >= HEADER {
            if let Some(part) = record(block) {
                rest = &rest[part.bytes..];
                at = (at + part.bytes) % BLOCK;
                continue;
            }
            return block.len() == rest.len() && ends_early(block);
        }
        if block.len() == rest.len() {
            return true;
        }
        // Filler before the end of a block.
        rest = &rest[block.len()..];
        at = 0;
    }
}

fn ends_early(part: &[u8]) -> bool {
    let len = usize::from(u16::from_le_bytes([part[4], part[5]]));
    let stored = u32::from_le_bytes([part[0], part[1], part[2], part[3]]);
    // All of it is there when the checksum says so: then it is the length that is wrong.
    HEADER + len > part.len() && mask(crc32c(&[&part[6..]])) != stored
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::rocks::recovery::tests::log_of;

    fn judged(list: &[u8]) -> Option<String> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(CURRENT), "MANIFEST-000005\n").unwrap();
        std::fs::write(dir.path().join("MANIFEST-000005"), list).unwrap();
        judge(dir.path()).unwrap()
    }

    #[test]
    fn a_list_cut_anywhere_in_its_last_entry_is_right_and_one_with_a_flipped_bit_is_not() {
        for sizes in [&[40, 90, 12][..], &[100, 40_000], &[32_730, 60]] {
            let (list, begins) = log_of(sizes);
            assert_eq!(judged(&list), None);
            let last = *begins.last().unwrap();
            for cut in (last..list.len()).filter(|cut| cut - last < 20 || list.len() - cut < 20 || cut % BLOCK < 20 || cut % 499 == 0) {
                assert_eq!(judged(&list[..cut]), None, "cut at {cut} of {sizes:?}");
            }
            let zeros = [&list[..last], &[0; 100]].concat();
            assert_eq!(judged(&zeros), None);
            for at in (0..list.len()).filter(|at| begins.iter().any(|begin| (*begin..begin + 9).contains(at)) || at % 4999 == 0) {
                for bit in 0..8 {
                    let mut spoilt = list.clone();
                    spoilt[at] ^= 1 << bit;
                    let filler = (at / BLOCK + 1) * BLOCK - at < HEADER;
                    assert!(judged(&spoilt).is_some() || filler, "bit {bit} of byte {at} of {sizes:?}");
                }
            }
        }
    }

    #[test]
    fn a_directory_without_current_is_new_only_if_it_holds_nothing() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(judge(dir.path()).unwrap(), None);
        for harmless in ["LOG", "IDENTITY", "LOCK", FIRST, "000001.dbtmp"] {
            std::fs::write(dir.path().join(harmless), b"x").unwrap();
        }
        assert_eq!(judge(dir.path()).unwrap(), None, "the very first start was cut off");
        for data in ["000004.log", "000009.sst", "000010.blob", "MANIFEST-000005"] {
            std::fs::write(dir.path().join(data), b"").unwrap();
            assert!(judge(dir.path()).unwrap().is_some_and(|why| why.contains(data)));
            std::fs::remove_file(dir.path().join(data)).unwrap();
        }
    }

    #[test]
    fn a_current_that_names_no_list_is_damage() {
        for named in ["", "MANIFEST-000005", "MANIFEST-00x005\n", "MANIFEST-\n", "NANIFEST-000005\n", "MANIFEST-000006\n"] {
            let dir = tempfile::tempdir().unwrap();
            std::fs::write(dir.path().join("MANIFEST-000005"), log_of(&[10]).0).unwrap();
            std::fs::write(dir.path().join(CURRENT), named).unwrap();
            assert!(judge(dir.path()).unwrap().is_some(), "{named:?}");
        }
    }
}
