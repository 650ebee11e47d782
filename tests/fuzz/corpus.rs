//! Known inputs on disk: `corpus/<target>` to begin with, `regressions/<target>` for each that ever failed. Files hold bytes as they are,
//! but for `*.lines`, of which each line is an input of its own, and `*.hex`, of which each line is one in hexadecimal: what reached new
//! code in a long run, many small ones.

use std::fs;
use std::path::{Path, PathBuf};

pub fn folder(kind: &str, target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz").join(kind).join(target)
}

/// All inputs of a folder in the order of their names; none if it does not exist.
pub fn read(kind: &str, target: &str) -> Vec<Vec<u8>> {
    let Ok(entries) = fs::read_dir(folder(kind, target)) else { return Vec::new() };
    let mut files: Vec<_> = entries.map(|entry| entry.expect("the folder can be read").path()).collect();
    files.sort();
    let one = |path: PathBuf| {
        let bytes = fs::read(&path).unwrap_or_else(|why| panic!("{}: {why}", path.display()));
        let lines = || bytes.split(|b| *b == b'\n').filter(|line| !line.is_empty());
        match path.extension().and_then(|e| e.to_str()) {
            Some("lines") => lines().map(<[u8]>::to_vec).collect(),
            Some("hex") => lines().map(unhex).collect(),
            _ => vec![bytes],
        }
    };
    files.into_iter().flat_map(one).collect()
}

fn unhex(line: &[u8]) -> Vec<u8> {
    let digit = |b: u8| (b as char).to_digit(16).expect("a hexadecimal digit") as u8;
    line.chunks_exact(2).map(|two| digit(two[0]) << 4 | digit(two[1])).collect()
}

/// Lines of the page of frames that the codecs are tested against (`src/wire/golden/frames.txt`): `→` or `←`.
pub fn golden(arrow: &str) -> Vec<Vec<u8>> {
    let page = include_str!("../../src/wire/golden/frames.txt");
    page.lines().filter_map(|line| line.strip_prefix(arrow)?.strip_prefix(' ')).map(|frame| frame.as_bytes().to_vec()).collect()
}
