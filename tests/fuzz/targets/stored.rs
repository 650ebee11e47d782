//! Bytes on disk besides batches: keys, rows, the write-ahead log as recovery judges it, the side file.

use prost::Message;
use tidelog::log::rocks::seams;
use tidelog::log::rows::{self, value};
use tidelog::log::{IdempotencyRow, Key, ProducerKey};
use tidelog::types::{PrincipalId, ProducerId, StreamId, SubscriptionId};

use crate::engine::{Target, Verdict};
use crate::gauge::{Bound, Gauge};
use crate::mutate::Shape;
use crate::promises::{taken, told};

pub const KEYS: Target = Target { name: "keys", shape: Shape::Bytes, bound: Bound::USUAL, seeds: key_seeds, check: keys, cases: 40_000 };
pub const ROWS: Target =
    Target { name: "rows", shape: Shape::Proto, bound: Bound { per_byte: 160, ..Bound::USUAL }, seeds: row_seeds, check: a_row, cases: 25_000 };
/// A block is read as a whole, and a bad one is looked through at each byte.
pub const WAL: Target = Target {
    name: "wal",
    shape: Shape::Bytes,
    bound: Bound { base: 128 * 1024, per_byte: 0, time: std::time::Duration::from_millis(400) },
    seeds: wal_seeds,
    check: wal,
    cases: 500,
};
pub const SIDE_FILE: Target = Target {
    name: "side_file",
    shape: Shape::Bytes,
    bound: Bound::USUAL,
    seeds: || [0, 1, 1 << 40, u64::MAX].iter().map(|n| seams::side_file(*n).to_vec()).collect(),
    check: side_file,
    cases: 20_000,
};

fn producer(scope: u64, user: u64, id: &str) -> ProducerKey {
    ProducerKey { scope, user, id: ProducerId::parse(id).expect("an id") }
}

fn key_seeds() -> Vec<Vec<u8>> {
    let row = IdempotencyRow { stream: StreamId(7), principal: PrincipalId::User(1), hash: u128::MAX / 3 };
    let p = producer(7, 0, "p1");
    let mut all: Vec<Vec<u8>> =
        [Key::Producer(&p), Key::Receipt(&p, 3), Key::Idempotency(&row), Key::Cursor(StreamId(7), SubscriptionId(2)), Key::StreamName("orders")]
            .iter()
            .map(|key| key.encode().bytes)
            .collect();
    all.push(seams::log_key(7, 41).to_vec());
    all.push([seams::log_key(7, 41), seams::log_key(7, 42)].concat());
    all
}

fn keys(input: &[u8], gauge: &mut Gauge) -> Verdict {
    let mut good = Vec::new();
    if let Some((stream, base)) = gauge.decode(|| seams::parse_log_key(input)) {
        if seams::log_key(stream, base) != input {
            return Err("a key of the log is read as another".into());
        }
        good.push("log");
    }
    if let Some(row) = gauge.decode(|| IdempotencyRow::decode(input)) {
        // The kind byte is the table's, not the key's.
        if Key::Idempotency(&row).encode().bytes[1..] != input[1..] {
            return Err("an idempotency key is read as another".into());
        }
        good.push("idempotency");
    }
    match gauge.decode(|| rows::producer_id(input)) {
        Ok(id) => {
            if !input.ends_with(id.as_str().as_bytes()) {
                return Err("a producer's id is read as another".into());
            }
            good.push("producer");
        }
        Err(why) => drop(told(&why)?),
    }
    if rows::decode_id(input).is_ok() != (input.len() == 8) {
        return Err("an index row of another length is taken".into());
    }
    if let Some(end) = rows::end_of(input)
        && !(input < &end[..] && [input, b"\xff"].concat() < end)
    {
        return Err("the end of a prefix does not lie behind it".into());
    }
    order(input, |(stream, base)| seams::log_key(stream, base))?;
    if good.is_empty() { told("no key") } else { taken(good.join(" ")) }
}

/// Keys sort as their meanings do: numbers before and after each other, and no producer within another.
pub fn order(input: &[u8], log: fn((u64, u64)) -> [u8; 16]) -> Result<(), String> {
    let number = |at: usize| input.get(at..at + 8).map_or(0, |bytes| u64::from_be_bytes(std::array::from_fn(|i| bytes[i])));
    let (a, b) = ((number(0), number(8)), (number(16), number(1)));
    let meant = a.cmp(&b);
    let cursor = |(stream, sub): (u64, u64)| Key::Cursor(StreamId(stream), SubscriptionId(sub)).encode();
    let owner = |(owner, stream): (u64, u64)| Key::StreamOwner(owner, StreamId(stream)).encode();
    let id = |n: u64| producer(a.0, 0, &format!("p{}", n % 300));
    if [log(a).cmp(&log(b)), cursor(a).cmp(&cursor(b)), owner(a).cmp(&owner(b))] != [meant; 3] {
        return Err(format!("keys of {a:?} and {b:?} do not sort as these"));
    }
    let (one, other) = (Key::Producer(&id(a.1)).encode().bytes, Key::Producer(&id(b.1)).encode().bytes);
    if one.starts_with(&other) && one != other {
        return Err("a producer's key begins with another's".into());
    }
    Ok(())
}

fn row_seeds() -> Vec<Vec<u8>> {
    let answer = value::CommitAnswer {
        acks: vec![value::commit_answer::Ack { stream: "orders".into(), subscription: "billing".into(), next: 58 }],
        appends: vec![value::commit_answer::Append { stream: "invoices".into(), base_offset: 3, count: 1 }],
    };
    let metadata = [("team".to_owned(), "pay".to_owned())].into();
    vec![
        value::Bounds { first_offset: 3, first_base: 1, next_offset: 9, closed: true, ..Default::default() }.encode_to_vec(),
        value::Cursor { next: 42, epoch: 6, since_us: 1 << 50 }.encode_to_vec(),
        value::Producer { epoch: 3, last_seq: Some(16), batches: 4, last_use_us: 1 << 50, owner: 7 }.encode_to_vec(),
        value::Receipt { first_seq: 16, count: 1, base_offset: 60, fingerprint: vec![5; 16], answer: Some(answer) }.encode_to_vec(),
        value::Format { version: 1, created_us: 1, secret: vec![9; 32] }.encode_to_vec(),
        value::Stream { name: "orders".into(), uuid: "u".into(), metadata, ..Default::default() }.encode_to_vec(),
        value::Operation { command: "stream.Delete".into(), status_code: 200, ..Default::default() }.encode_to_vec(),
    ]
}

fn round_trip<M: Message + Default + PartialEq>(input: &[u8], gauge: &mut Gauge, good: &mut String) -> Result<(), String> {
    match gauge.decode(|| rows::decode::<M>(input)) {
        Ok(row) => {
            let again = rows::decode::<M>(&rows::encode(&row)).map_err(|why| format!("a row that was written is not read: {why}"))?;
            if again != row {
                return Err(format!("a row is read as another: {}", std::any::type_name::<M>()));
            }
            good.push('y');
        }
        Err(why) => {
            told(&why)?;
            good.push('n');
        }
    }
    Ok(())
}

fn a_row(input: &[u8], gauge: &mut Gauge) -> Verdict {
    let mut good = String::new();
    round_trip::<value::Bounds>(input, gauge, &mut good)?;
    round_trip::<value::Cursor>(input, gauge, &mut good)?;
    round_trip::<value::Producer>(input, gauge, &mut good)?;
    round_trip::<value::Receipt>(input, gauge, &mut good)?;
    round_trip::<value::Idempotency>(input, gauge, &mut good)?;
    round_trip::<value::Format>(input, gauge, &mut good)?;
    round_trip::<value::Counters>(input, gauge, &mut good)?;
    round_trip::<value::Stream>(input, gauge, &mut good)?;
    round_trip::<value::Subscription>(input, gauge, &mut good)?;
    round_trip::<value::Operation>(input, gauge, &mut good)?;
    if good.contains('y') { taken(good) } else { told("no row") }
}

fn crc(parts: &[&[u8]]) -> u32 {
    let mut digest = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi);
    parts.iter().for_each(|part| digest.update(part));
    (digest.finalize() as u32).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// Records as RocksDB writes them, of kinds 1 to 4.
fn log_of(sizes: &[usize]) -> Vec<u8> {
    const BLOCK: usize = 32 * 1024;
    let mut log = Vec::new();
    for (i, size) in sizes.iter().enumerate() {
        let payload = vec![0x40 + i as u8; *size];
        let (mut rest, mut first) = (&payload[..], true);
        loop {
            let left = BLOCK - log.len() % BLOCK;
            if left < 7 {
                log.resize(log.len() + left, 0);
                continue;
            }
            let (part, after) = rest.split_at(rest.len().min(left - 7));
            let kind = match (first, after.is_empty()) {
                (true, true) => 1,
                (true, false) => 2,
                (false, false) => 3,
                (false, true) => 4,
            };
            log.extend(crc(&[&[kind], part]).to_le_bytes());
            log.extend((part.len() as u16).to_le_bytes());
            log.push(kind);
            log.extend(part);
            (rest, first) = (after, false);
            if rest.is_empty() {
                break;
            }
        }
    }
    log
}

fn wal_seeds() -> Vec<Vec<u8>> {
    // The last holds what looks like the beginning of a record at each byte, and takes longest.
    vec![Vec::new(), log_of(&[50]), log_of(&[100, 200, 3]), log_of(&[40_000, 100]), log_of(&[32_754, 10]), vec![0; 5000], vec![9; 70_000], vec![0x0b; 33_000]]
}

fn wal(input: &[u8], gauge: &mut Gauge) -> Verdict {
    match gauge.decode(|| seams::scan_wal(input)).map_err(|why| why.to_string())? {
        None => taken("sound"),
        Some((offset, followed)) if offset < input.len() as u64 => told(if followed { "damaged" } else { "torn" }),
        Some((offset, _)) => Err(format!("the bad spot {offset} lies behind the end")),
    }
}

fn side_file(input: &[u8], gauge: &mut Gauge) -> Verdict {
    match gauge.decode(|| seams::parse_side_file(input)) {
        Some(sequence) if seams::side_file(sequence) == input => {
            for at in 0..input.len() {
                let mut other = input.to_vec();
                other[at] ^= 0x11;
                if seams::parse_side_file(&other).is_some() {
                    return Err(format!("another byte {at} is not noticed"));
                }
            }
            taken("a position")
        }
        Some(_) => Err("a side file is read as another".into()),
        None => told("none"),
    }
}
