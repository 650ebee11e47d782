//! Mutations that know nothing of what the bytes mean, and those that know words and numbers.

use super::{EDGES, LARGEST, NUMBERS, WORDS};
use crate::dice::Dice;

/// Not UTF-8, each in its own way: a lone lead, a lone continuation, overlong, a surrogate, beyond the last scalar, a byte that never occurs.
const BROKEN: &[&[u8]] = &[b"\xc3", b"\x80", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xff", b"\0", b"\xef\xbb\xbf", "\u{2028}".as_bytes()];

pub fn mutate(dice: &mut Dice, base: &[u8], other: &[u8]) -> Vec<u8> {
    let mut out = base.to_vec();
    match dice.below(14) {
        0 if !out.is_empty() => {
            let at = dice.below(out.len());
            out[at] ^= 1 << dice.below(8);
        }
        1 if !out.is_empty() => {
            let at = dice.below(out.len());
            out[at] = dice.throw() as u8;
        }
        2 => {
            let cut = dice.below(out.len() + 1);
            out.truncate(cut);
        }
        3 => {
            out.drain(dice.piece(base.len()));
        }
        4 => {
            let (at, piece) = (dice.below(out.len() + 1), dice.piece(other.len()));
            out.splice(at..at, other[piece].iter().copied());
        }
        5 => {
            let (from, to) = (dice.piece(base.len()), dice.piece(other.len()));
            out.splice(from, other[to].iter().copied());
        }
        6 => {
            // The front of one and the back of another.
            out.truncate(dice.below(base.len() + 1));
            out.extend_from_slice(&other[dice.below(other.len() + 1)..]);
        }
        7 => {
            let at = dice.below(out.len() + 1);
            let broken = dice.pick(BROKEN);
            out.splice(at..at, broken.iter().copied());
        }
        8 => length(dice, &mut out),
        9 => return repeat(dice, base),
        10 => {
            let at = dice.below(out.len() + 1);
            let random: Vec<u8> = (0..dice.small(64)).map(|_| dice.throw() as u8).collect();
            out.splice(at..at, random);
        }
        11 => return nest(dice, base),
        12 => {
            let (from, to) = (dice.piece(base.len()), dice.below(base.len() + 1));
            let piece = base[from].to_vec();
            out.splice(to..to, piece);
        }
        _ => return words(dice, base, other),
    }
    out
}

/// A length or number in the bytes says something else.
fn length(dice: &mut Dice, out: &mut [u8]) {
    if out.is_empty() {
        return;
    }
    let at = dice.below(out.len());
    let number = if dice.one_in(2) { NUMBERS[dice.below(NUMBERS.len())] } else { (out.len() as u64).wrapping_add(dice.below(9) as u64).wrapping_sub(4) };
    let width = [1, 2, 4, 8][dice.below(4)].min(out.len() - at);
    let (little, big) = (number.to_le_bytes(), number.to_be_bytes());
    if dice.one_in(2) { out[at..at + width].copy_from_slice(&little[..width]) } else { out[at..at + width].copy_from_slice(&big[8 - width..]) }
}

/// A piece many times over: what grows with the square of something shows here.
fn repeat(dice: &mut Dice, base: &[u8]) -> Vec<u8> {
    let piece = dice.piece(base.len());
    if piece.is_empty() {
        return base.to_vec();
    }
    let times = if dice.one_in(32) { LARGEST / piece.len() } else { 1 + dice.small(64) };
    [&base[..piece.start], &base[piece.clone()].repeat(times.min(LARGEST / piece.len().max(1)).max(1)), &base[piece.end..]].concat()
}

/// Deep in the way of JSON, or of anything with brackets.
fn nest(dice: &mut Dice, base: &[u8]) -> Vec<u8> {
    let depth = match dice.below(6) {
        0 => 10_000,
        1 => 127 + dice.below(4),
        2 => 30 + dice.below(5),
        _ => 1 + dice.below(8),
    };
    let at = dice.piece(base.len());
    let (open, close): (&[u8], &[u8]) = if dice.one_in(2) { (b"[", b"]") } else { (b"{\"a\":", b"}") };
    let close = if dice.one_in(3) { Vec::new() } else { close.repeat(depth) };
    [&base[..at.start], &open.repeat(depth), &base[at.clone()], &close, &base[at.end..]].concat()
}

/// A number becomes another, a word takes the place of another or comes between.
pub fn words(dice: &mut Dice, base: &[u8], other: &[u8]) -> Vec<u8> {
    let class = |b: &u8| {
        if b.is_ascii_digit() {
            1
        } else if b.is_ascii_alphanumeric() || *b == b'_' {
            2
        } else {
            0
        }
    };
    let mut ends = 0;
    let runs: Vec<_> = base
        .chunk_by(|a, b| class(a) == class(b))
        .map(|run| {
            ends += run.len();
            (ends - run.len(), ends)
        })
        .collect();
    if runs.is_empty() {
        return dice.pick(WORDS).as_bytes().to_vec();
    }
    let (from, to) = runs[dice.below(runs.len())];
    let number = base[from].is_ascii_digit();
    let new: Vec<u8> = match dice.below(8) {
        0..=3 if number => dice.pick(EDGES).into(),
        0 | 1 => dice.pick(WORDS).into(),
        2 => dice.pick(EDGES).into(),
        3 => [&base[from..to], dice.pick(WORDS).as_bytes()].concat(),
        4 => base[from..to].to_ascii_uppercase(),
        5 => base[from..to].repeat(1 + dice.small(400)),
        6 => other[dice.piece(other.len())].to_vec(),
        _ => Vec::new(),
    };
    [&base[..from], &new, &base[to..]].concat()
}
