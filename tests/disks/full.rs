//! A disk that is full: above the engine by the watermark, and for real. Readers notice nothing, and with space the log goes on.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::Method;
use serde_json::{Map, Value, json};
use tidelog::client::{NewEvent, Protocol};
use tidelog::types::Code;

use crate::broker::{Broker, PATIENCE, Setup};
use crate::chance::Chance;
use crate::image;
use crate::ledger::{Found, INPUT, Ledger};
use crate::load::{Load, append_once, block, prepare, ready, until};

const MIB: u64 = 1 << 20;

/// A data directory on `disk` whose broker writes its log lines elsewhere.
fn data_on(disk: &Path, dir: &Path) -> PathBuf {
    std::fs::create_dir(disk.join("data")).expect("a directory");
    let data = dir.join("data");
    std::os::unix::fs::symlink(disk.join("data"), &data).expect("a link");
    data
}

fn free(dir: &Path) -> u64 {
    let stat = rustix::fs::statvfs(dir).expect("a file system");
    stat.f_bavail * stat.f_frsize
}

/// Leaves `left` bytes free, by a file that somebody else might have written.
fn fill(dir: &Path, left: u64) {
    let mut file = std::fs::File::options().create(true).append(true).open(dir.join("filler")).expect("a file");
    let block = vec![b'x'; 64 << 10];
    while free(dir) > left {
        let part = (free(dir) - left).min(block.len() as u64) as usize;
        // The broker may have been faster.
        if file.write(&block[..part]).is_err() {
            break;
        }
    }
}

fn judge(broker: &Broker, ledger: &Ledger, when: &str) {
    let found = block(Found::read(&broker.client(Protocol::Binary))).expect("everything can be read");
    let wrong = ledger.judge(&found);
    assert!(wrong.is_empty(), "{when}: {}", wrong.join("\n"));
}

/// Acks, trims and reads, while the disk is full.
fn the_rest_works(broker: &Broker, subscription: &'static str, trim: u64) {
    let client = broker.client(Protocol::Binary);
    block(async {
        client.admin().create_subscription(INPUT, subscription, Map::new()).await.expect("a subscription is a small row");
        let mut consumer = client.consumer(INPUT).subscription(subscription).open().await.expect("a reader is attached");
        for offset in 0..20 {
            assert_eq!(consumer.next_event().await.expect("an event").expect("no error").offset, offset);
        }
        assert_eq!(consumer.ack(19).await.expect("an ack is a small row"), 20);
        consumer.close().await;
        client.admin().trim_stream("scrap", json!({"before_offset": trim})).await.expect("a trim is a small row");
        assert_eq!(client.admin().stream("scrap").await.expect("the stream").state.first_offset, trim);
        assert_eq!(client.admin().subscription(INPUT, subscription).await.expect("the reader").next, 20);
    });
}

#[test]
fn below_the_watermark_appends_are_refused_all_else_works_and_with_space_they_go_on_without_a_restart() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let disk = match image::small(dir.path(), 128) {
        Ok(disk) => disk,
        Err(why) => return println!("skipped: nothing can be mounted here: {why}"),
    };
    let chance = Chance::for_test("below_the_watermark");
    let (data, ledger) = (data_on(&disk.at, dir.path()), Ledger::default());
    let setup = Setup::small().storage("FREE_MIN_BYTES", 40 * MIB).storage("BALLAST_BYTES", 8 * MIB);
    let broker = setup.must_start(&data);
    prepare(&broker);
    let client = broker.client(Protocol::Binary);
    block(async {
        client.admin().create_stream("scrap", Map::new()).await.expect("a stream is created");
        client.append("scrap", (0..100).map(|n| NewEvent::text(format!("scrap {n}"))).collect::<Vec<_>>()).await.expect("events");
    });
    let load = Load::start(&broker, &ledger, 0, &chance);
    until("the load gets going", || ledger.stored() > 100);
    assert!(data.join("ballast").exists() && ready(&broker));

    fill(&disk.at, 30 * MIB);
    let mut number = 0;
    let mut refused = |broker: &Broker, ledger: &Ledger| {
        number += 1;
        append_once(broker, ledger, &format!("into a full disk {number}")) == Err(Some(Code::StorageFull))
    };
    until("appends are refused", || refused(&broker, &ledger));
    assert!(!ready(&broker), "a full broker is not ready");
    let refusal = block(broker.client(Protocol::Binary).append(INPUT, NewEvent::text("refused"))).expect_err("it is full");
    assert!(refusal.to_string().contains("free"), "it does not say what is missing: {refusal}");
    the_rest_works(&broker, "full", 10);
    judge(&broker, &ledger, "while the disk is full");

    // Nearly nothing is left: the ballast goes, and what is not an append still works.
    fill(&disk.at, 3 * MIB);
    until("the ballast is thrown off", || {
        let _ = refused(&broker, &ledger);
        !data.join("ballast").exists()
    });
    the_rest_works(&broker, "fuller", 20);
    judge(&broker, &ledger, "while there is only the room of the ballast");

    std::fs::remove_file(disk.at.join("filler")).expect("the filler goes");
    let mut tries = 0;
    until("appends go on", || {
        tries += 1;
        append_once(&broker, &ledger, &format!("again {tries}")).is_ok()
    });
    let before = ledger.stored();
    until("the load goes on", || ledger.stored() > before + 30);
    assert!(ready(&broker));
    load.end(Duration::from_secs(1));
    judge(&broker, &ledger, "with space again");
    println!("watermark: {} batches acknowledged and found; heard {:?}", ledger.stored(), ledger.codes());
    broker.stop();
    let broker = setup.must_start(&data);
    judge(&broker, &ledger, "after a restart");
    assert!(data.join("ballast").exists(), "the ballast is there again");
    broker.stop();
}

#[test]
fn a_disk_that_is_really_full_ends_the_process_and_with_space_a_restart_finds_everything() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let disk = match image::small(dir.path(), 96) {
        Ok(disk) => disk,
        Err(why) => return println!("skipped: nothing can be mounted here: {why}"),
    };
    let chance = Chance::for_test("a_disk_that_is_really_full");
    let ledger = Ledger::default();
    let data = data_on(&disk.at, dir.path());
    let mut broker = Setup::small().must_start(&data);
    prepare(&broker);
    for round in 0..3 {
        let load = Load::start(&broker, &ledger, round, &chance);
        let before = ledger.stored();
        until("the load gets going", || ledger.stored() > before + 30);
        fill(&disk.at, chance.of(&format!("left {round}")).below(3 * MIB));
        let status = broker.wait();
        assert_eq!(status.code(), Some(10), "{}", broker.said());
        assert!(broker.said().contains("No space left"), "{}", broker.said());
        load.end(Duration::from_millis(100));
        // On a full disk it may start or not; it must say why not, and lose nothing.
        if let Err((code, said)) = Setup::small().start(&data).map(Broker::kill) {
            assert_eq!(code, Some(10), "{said}");
            assert!(said.contains("tidelog: ") && !said.contains("panicked"), "{said}");
        }
        std::fs::remove_file(disk.at.join("filler")).expect("the filler goes");
        broker = Setup::small().must_start(&data);
        judge(&broker, &ledger, "with space again");
        println!("full {round}: {} batches acknowledged and found, {} open; heard {:?}", ledger.stored(), ledger.open(), ledger.codes());
    }
    append_once(&broker, &ledger, "afterwards").expect("the log goes on");
    let page: Value =
        block(broker.client(Protocol::Binary).admin().call(Method::GET, &format!("/v1/streams/{INPUT}/events?from=0&limit=1"), None)).expect("a page");
    assert_eq!(page["events"][0]["offset"], json!(0), "within {} s", PATIENCE.as_secs());
    broker.stop();
}

/// Its log lines cannot be written either, because they go to the same disk: that is no reason to panic, and the exit code is the same.
#[test]
fn a_full_disk_that_takes_the_log_lines_too_is_no_panic() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let disk = match image::small(dir.path(), 64) {
        Ok(disk) => disk,
        Err(why) => return println!("skipped: nothing can be mounted here: {why}"),
    };
    let chance = Chance::for_test("a_full_disk_that_takes_the_log_lines_too");
    let (data, ledger) = (disk.at.join("data"), Ledger::default());
    let mut broker = Setup::small().must_start(&data);
    prepare(&broker);
    let load = Load::start(&broker, &ledger, 0, &chance);
    until("the load gets going", || ledger.stored() > 30);
    fill(&disk.at, 0);
    assert_eq!(broker.wait().code(), Some(10), "{}", broker.said());
    load.end(Duration::from_millis(100));
    if let Err((code, _)) = Setup::small().start(&data).map(Broker::kill) {
        assert_eq!(code, Some(10));
    }
    std::fs::remove_file(disk.at.join("filler")).expect("the filler goes");
    let broker = Setup::small().must_start(&data);
    judge(&broker, &ledger, "with space again");
    broker.stop();
}
