//! The side file of S-7 is missing, stale, garbage, or newer than the data; and a directory of yesterday.

use std::path::Path;

use serde_json::Map;
use tidelog::client::{NewEvent, Protocol};
use tidelog::types::Code;

use crate::broker::Setup;
use crate::inspect::inspect;
use crate::load::block;
use crate::made::{Shape, make, recorded};

/// A side file that names `sequence`, as the broker writes it: magic, number, CRC-32C of both.
fn side_file(sequence: u64) -> Vec<u8> {
    let mut bytes = b"TLDUR\0\0\x01".to_vec();
    bytes.extend(sequence.to_le_bytes());
    let mut crc = !0u32;
    for byte in &bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 };
        }
    }
    bytes.extend((!crc).to_le_bytes());
    bytes
}

#[test]
fn s7_a_side_file_that_is_missing_stale_or_garbage_stops_nothing_and_a_newer_one_does() {
    let made = make(Shape::Short);
    let known = recorded(made.copy(true).path()).expect("a side file");
    let whole = std::fs::read(made.copy(true).path().join("durable")).expect("a side file");
    assert_eq!(whole, side_file(known), "the side file is not as this test writes it");
    let with = |bytes: Option<&[u8]>| {
        let dir = made.copy(false);
        bytes.into_iter().for_each(|bytes| std::fs::write(dir.path().join("durable"), bytes).expect("a side file"));
        inspect(dir.path(), &made.expected)
    };
    assert!(with(None).is_whole(), "missing");
    for garbage in [&b""[..], b"rubbish", &whole[..19], &[0; 20], &[whole.clone(), vec![0]].concat()] {
        assert!(with(Some(garbage)).is_whole(), "garbage of {} bytes", garbage.len());
    }
    for bit in 0..whole.len() * 8 {
        let mut spoilt = whole.clone();
        spoilt[bit / 8] ^= 1 << (bit % 8);
        // Every eighth is enough for the opening; that no bit is taken for another number is cheap to know.
        if bit % 8 == bit / 8 % 8 {
            assert!(with(Some(&spoilt)).is_whole(), "bit {bit}");
        }
    }
    for stale in [0, 1, known - 1, known] {
        assert!(with(Some(&side_file(stale))).is_whole(), "stale: {stale} of {known}");
    }
    for newer in [known + 1, known + 1_000_000, u64::MAX] {
        match with(Some(&side_file(newer))).refused {
            Some((11, said)) => assert!(said.contains("S-7") && said.contains("accept_loss") && said.contains("copy"), "{said}"),
            other => panic!("{newer} of {known} was not refused: {other:?}"),
        }
    }
}

fn copy(from: &Path, to: &Path) {
    let status = std::process::Command::new("cp").arg("-a").arg(from).arg(to).status().expect("cp runs");
    assert!(status.success(), "{} is not copied", from.display());
}

/// The engine's files of yesterday under the side file of today are refused. A whole directory of yesterday cannot know that it is one; but
/// nobody who saw more is served as if nothing had happened.
#[test]
fn s7_a_directory_of_yesterday_is_refused_or_found_out_by_whoever_saw_more() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (today, yesterday) = (dir.path().join("today"), dir.path().join("yesterday"));
    let broker = Setup::small().must_start(&today);
    let client = broker.client(Protocol::Binary);
    let texts = |from: u64, to: u64| (from..to).map(|n| NewEvent::text(n.to_string())).collect::<Vec<_>>();
    block(async {
        client.admin().create_stream("s", Map::new()).await.expect("a stream is created");
        client.append("s", texts(0, 10)).await.expect("events");
        client.producer("s", "p").open().await.expect("a producer").close().await.expect("it closes");
    });
    broker.stop();
    copy(&today, &yesterday);
    let broker = Setup::small().must_start(&today);
    let client = broker.client(Protocol::Binary);
    block(async {
        client.append("s", texts(10, 20)).await.expect("events");
        client.producer("s", "p").open().await.expect("a producer").close().await.expect("it closes");
    });
    broker.stop();

    let mixed = dir.path().join("mixed");
    copy(&yesterday, &mixed);
    std::fs::copy(today.join("durable"), mixed.join("durable")).expect("the side file of today");
    let (code, said) = Setup::small().start(&mixed).map(drop).expect_err("it is below the known durable position");
    assert_eq!(code, Some(11), "{said}");
    for word in ["S-7", "old copy", "accept_loss", "copy of the directory"] {
        assert!(said.contains(word), "the refusal does not say {word:?}: {said}");
    }
    let broker = Setup::small().argument("--accept-data-loss").must_start(&mixed);
    let log_epoch = block(broker.client(Protocol::Binary).admin().stream("s")).expect("the stream").rest["log_epoch"].clone();
    assert_eq!(log_epoch, 2, "whoever accepts the loss begins a new history");
    broker.stop();

    let broker = Setup::small().must_start(&yesterday);
    let client = broker.client(Protocol::Binary);
    block(async {
        let ahead = client.consumer("s").subscription("r").create().start_at(20, 1).open().await.map(drop).expect_err("nobody is clamped");
        assert_eq!(ahead.code(), Some(Code::PositionBeyondEnd), "{ahead}");
        let beyond = client.append_if("s", texts(20, 21), 20).await.expect_err("the condition does not hold");
        assert_eq!(beyond.code(), Some(Code::ConditionFailed), "{beyond}");
    });
    broker.stop();
}
