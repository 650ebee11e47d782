//! S-1 … S-8: nothing is seen before it is durable, a failed commit ends everything, numbers are never used twice.

use std::time::Duration;

use tidelog::log::rocks::{Rocks, RocksOptions};

use crate::support::*;

async fn read(bench: &Bench, from: ReadFrom) -> Result<ReadReply> {
    soon(bench.broker.read(&OPERATOR, &name("s"), ReadRequest { from, limit: 100, wait: Duration::ZERO })).await
}

#[tokio::test]
async fn s1_a_success_is_answered_only_after_the_commit_returned() {
    let bench = Bench::with_stream("s").await;
    let mut c = bench.connect();
    bench.engine.stop();
    let mut pending = Box::pin(c.append(plain("s", &["a"])).await);
    bench.engine.waiting().await;
    nothing_yet(&mut pending).await;
    let left = bench.memory.reopen();
    bench.engine.go();
    assert_eq!(soon(pending).await, stored(0, 1));
    let before = Bench::on(left, roomy()).await;
    assert_eq!(before.next_offset("s").await, 0, "a crash before the commit had left nothing");
    let bench = bench.crash().await;
    assert_eq!(bench.texts("s").await, ["a"]);
}

#[tokio::test]
async fn s1_acks_appends_and_receipts_of_a_commit_are_one_engine_commit() {
    let bench = Bench::with_stream("s").await;
    bench.create("out").await;
    bench.fill("s", 2).await;
    bench.subscribe_new("s", "x").await;
    let mut c = bench.connect();
    let tx = open_wide(&mut c, "tx").await;
    let mut reader = Reader::durable(&mut c, "s", "x").await;
    reader.take(2).await;
    bench.engine.take_seen();
    let request = CommitRequest {
        producer: Some(stamp("tx", tx, 0)),
        acks: vec![commit_ack("s", "x", reader.epoch(), 1)],
        appends: vec![commit_append("out", &["o"])],
        checks: vec![],
    };
    answer(c.commit(request)).await.unwrap();
    let seen = bench.engine.take_seen();
    assert_eq!(seen.len(), 1, "{seen:?}");
    assert_eq!(seen[0].appends, 1);
    assert_eq!(seen[0].state, [2, 3, 4], "cursor, producer, receipt: {seen:?}");
}

#[tokio::test]
async fn s2_nothing_above_the_durable_end_is_observable() {
    let bench = Bench::with_stream("s").await;
    bench.fill("s", 2).await;
    bench.subscribe_new("s", "x").await;
    let mut c = bench.connect();
    let mut durable = Reader::durable(&mut c, "s", "x").await;
    let mut ephemeral = Reader::open(&mut c, attach_ephemeral("s", Some(Start::Earliest))).await.unwrap();
    durable.take_until_live().await;
    ephemeral.take_until_live().await;
    let before = bench.describe("s").await;
    let lag_before = bench.subscription("s", "x").await.lag;

    bench.engine.stop();
    let pending = c.append(plain("s", &["hidden", "hidden too"])).await;
    bench.engine.waiting().await;
    durable.is_paused().await;
    ephemeral.is_paused().await;
    assert_eq!(bench.describe("s").await, before);
    let lag = bench.subscription("s", "x").await.lag;
    assert_eq!((lag.events, lag.bytes), (lag_before.events, lag_before.bytes));
    let reply = read(&bench, ReadFrom::At(Start::Earliest)).await.unwrap();
    assert_eq!((reply.next_offset, reply.more, reply.after, reply.slices.iter().map(Slice::count).sum::<u64>()), (2, false, Some(1), 2));
    assert_eq!(detail(&refused(read(&bench, ReadFrom::After(2)).await, Code::OffsetBeyondEnd, ""), "next_offset"), 2);
    refused(soon(bench.broker.event(&OPERATOR, &name("s"), Which::Offset(2))).await, Code::NotFound, "");
    assert_eq!(soon(bench.broker.event(&OPERATOR, &name("s"), Which::Last)).await.unwrap().from(), 1);
    let listed = soon(bench.broker.streams(&OPERATOR, ListQuery::default())).await.unwrap();
    assert_eq!(listed.items, [before]);
    // What asks for the end either hears the durable one now or waits.
    let mut latest = Box::pin(c.subscribe(attach_ephemeral("s", Some(Start::Latest))).await);
    let early = tokio::time::timeout(Duration::from_millis(40), &mut latest).await;

    bench.engine.go();
    assert_eq!(soon(pending).await, stored(2, 2));
    let (opened, _) = match early {
        Ok(early) => early.unwrap(),
        Err(_) => soon(latest).await.unwrap(),
    };
    assert!(opened.next == opened.next_offset && [2, 4].contains(&opened.next), "{opened:?}");
    assert_eq!(durable.take(2).await[0].1, "hidden");
    assert_eq!(ephemeral.take(2).await[0].1, "hidden");
    assert_eq!(bench.next_offset("s").await, 4);
}

#[tokio::test]
async fn s2_a_long_poll_wakes_only_when_the_events_are_durable() {
    let bench = Bench::with_stream("s").await;
    let mut c = bench.connect();
    bench.engine.stop();
    let broker = bench.broker.clone();
    let mut poll = Box::pin(tokio::spawn(async move {
        let request = ReadRequest { from: ReadFrom::At(Start::Earliest), limit: 10, wait: Duration::from_secs(30) };
        broker.read(&OPERATOR, &name("s"), request).await.map(|r| r.slices.iter().flat_map(texts_of).collect::<Vec<_>>())
    }));
    let pending = c.append(plain("s", &["a"])).await;
    bench.engine.waiting().await;
    nothing_yet(&mut poll).await;
    bench.engine.go();
    soon(pending).await.unwrap();
    assert_eq!(soon(poll).await.unwrap().unwrap(), [(0, "a".into())]);
}

/// Two connections; on the first an append of `p` with `seq` 0 is held in its commit.
async fn held() -> (Bench, Connection, u64, Pending<Appended>) {
    let bench = Bench::with_stream("s").await;
    let mut first = bench.connect();
    let epoch = open(&mut first, "s", "p").await;
    bench.engine.stop();
    let original = first.append(stamped("s", "p", epoch, 0, &["a", "b"])).await;
    bench.engine.waiting().await;
    (bench, first, epoch, original)
}

/// Every kind of verdict that rests on the held append.
async fn verdicts(bench: &Bench, epoch: u64) -> Vec<(&'static str, std::pin::Pin<Box<Pending<Appended>>>)> {
    let mut out = Vec::new();
    for (what, request) in [
        ("duplicate", stamped("s", "p", epoch, 0, &["a", "b"])),
        ("reused", stamped("s", "p", epoch, 0, &["a", "c"])),
        ("gap", stamped("s", "p", epoch, 5, &["f"])),
        ("overlap", stamped("s", "p", epoch, 1, &["b", "c"])),
        ("condition", expecting(plain("s", &["x"]), 0)),
    ] {
        out.push((what, Box::pin(bench.connect().append(request).await)));
    }
    out
}

#[tokio::test]
async fn s3_verdicts_that_rest_on_the_group_are_withheld_until_it_is_durable() {
    let (bench, _first, epoch, original) = held().await;
    let mut verdicts = verdicts(&bench, epoch).await;
    for (_, verdict) in &mut verdicts {
        nothing_yet(verdict).await;
    }
    bench.engine.go();
    assert_eq!(soon(original).await, stored(0, 2));
    for (what, verdict) in verdicts {
        let verdict = soon(verdict).await;
        match what {
            "duplicate" => assert_eq!(verdict, repeated(0, 2)),
            "reused" => drop(refused(verdict, Code::ProducerSeqReused, "P-5")),
            "gap" => assert_eq!(detail(&refused(verdict, Code::ProducerSeqGap, "P-8"), "expected"), 2),
            "overlap" => assert_eq!(detail(&refused(verdict, Code::ProducerSeqOverlap, "P-7"), "last_seq"), 1),
            _ => assert_eq!(detail(&refused(verdict, Code::ConditionFailed, ""), "next_offset"), 2),
        }
    }
}

#[tokio::test]
async fn s3_when_the_commit_fails_no_verdict_rests_on_it() {
    let (bench, _first, epoch, original) = held_with_fault(Fault::BeforeWrite).await;
    let verdicts = verdicts(&bench, epoch).await;
    bench.engine.go();
    refused(soon(original).await, Code::OutcomeUnknown, "");
    for (what, verdict) in verdicts {
        let error = soon(verdict).await.expect_err(what);
        // A verdict that was reached is unknown now; a request that was not looked at yet had no effect and hears so.
        assert!(matches!(error.code, Code::OutcomeUnknown | Code::StorageFailed), "{what}: {error:?}");
        assert!(!error.details.contains_key("expected") && !error.details.contains_key("next_offset"), "S-2: {error:?}");
    }
}

async fn held_with_fault(fault: Fault) -> (Bench, Connection, u64, Pending<Appended>) {
    let bench = Bench::with_stream("s").await;
    let mut first = bench.connect();
    let epoch = open(&mut first, "s", "p").await;
    bench.engine.stop();
    bench.memory.fail_commits(fault);
    let original = first.append(stamped("s", "p", epoch, 0, &["a", "b"])).await;
    bench.engine.waiting().await;
    (bench, first, epoch, original)
}

#[tokio::test]
async fn s3_a_closed_verdict_waits_for_the_close_to_be_durable() {
    let bench = Bench::with_stream("s").await;
    bench.engine.stop();
    let broker = bench.broker.clone();
    let closing = tokio::spawn(async move { broker.close_stream(&OPERATOR, &name("s")).await });
    bench.engine.waiting().await;
    let mut refusal = Box::pin(bench.connect().append(plain("s", &["a"])).await);
    nothing_yet(&mut refusal).await;
    assert!(!bench.describe("s").await.closed);
    bench.engine.go();
    assert!(soon(closing).await.unwrap().unwrap().closed);
    refused(soon(refusal).await, Code::StreamClosed, "");
}

#[tokio::test]
async fn s3_a_stale_or_fenced_ack_waits_for_what_it_rests_on() {
    let bench = Bench::with_stream("s").await;
    bench.fill("s", 3).await;
    bench.subscribe_new("s", "x").await;
    let mut c = bench.connect();
    let mut reader = Reader::durable(&mut c, "s", "x").await;
    reader.take(3).await;
    bench.engine.stop();
    let ack = c.ack(&reader.handle, 2, AckLevel::Durable).await;
    bench.engine.waiting().await;
    let mut stale = Box::pin(c.ack(&reader.handle, 0, AckLevel::Durable).await);
    let mut same = Box::pin(c.ack(&reader.handle, 2, AckLevel::Durable).await);
    nothing_yet(&mut stale).await;
    nothing_yet(&mut same).await;
    assert_eq!(bench.subscription("s", "x").await.next, 0, "S-2");
    let opening = bench.connect().subscribe(attach("s", "x")).await;
    let mut fenced = Box::pin(c.ack(&reader.handle, 2, AckLevel::Durable).await);
    nothing_yet(&mut fenced).await;
    bench.engine.go();
    assert_eq!(soon(ack).await, acked(3));
    assert_eq!(soon(stale).await, acked_before(3));
    assert_eq!(soon(same).await, acked(3));
    let (opened, _session) = soon(opening).await.unwrap();
    assert_eq!(opened.next, 3);
    refused(soon(fenced).await, Code::SessionFenced, "C-7");
}

#[tokio::test]
async fn s4_a_group_fills_while_the_one_before_it_is_syncing() {
    let bench = Bench::with_stream("s").await;
    bench.fill("s", 1).await;
    let commits = bench.engine.commits();
    bench.engine.stop();
    let mut c = bench.connect();
    let first = c.append(plain("s", &["first"])).await;
    bench.engine.waiting().await;
    let mut pending = Vec::new();
    for i in 0..50 {
        pending.push(soon(bench.connect().append(plain("s", &[&format!("{i}")]))).await);
    }
    bench.engine.go();
    assert_eq!(soon(first).await, stored(1, 1));
    for (i, pending) in pending.into_iter().enumerate() {
        assert_eq!(soon(pending).await, stored(2 + i as u64, 1), "in the order of admission");
    }
    let used = bench.engine.commits() - commits;
    assert!(used <= 4, "51 appends took {used} commits");
}

/// Everything that writes answers one of the two codes for it.
async fn everything_that_writes_is_refused(bench: &Bench) {
    let mut c = bench.connect();
    let mut errors = vec![
        bench.append(plain("s", &["a"])).await.map(drop).expect_err("append"),
        answer(c.append(plain("s", &["a"]))).await.map(drop).expect_err("append on a connection"),
        answer(c.open_producer(opening(Some("s"), "q", Expect::Any))).await.map(drop).expect_err("open_producer"),
        answer(c.open_producer(opening(None, "q", Expect::Any))).await.map(drop).expect_err("open_producer for commits"),
        answer(c.commit(CommitRequest { appends: vec![commit_append("s", &["a"])], ..CommitRequest::default() })).await.map(drop).expect_err("commit"),
        answer(c.subscribe(attach("s", "x"))).await.map(drop).expect_err("subscribe"),
        soon(bench.broker.create_stream(&OPERATOR, NewStream::named(name("t")))).await.map(drop).expect_err("create_stream"),
        soon(bench.broker.close_stream(&OPERATOR, &name("s"))).await.map(drop).expect_err("close_stream"),
        soon(bench.broker.trim_stream(&OPERATOR, &name("s"), TrimTo::Offset(1))).await.map(drop).expect_err("trim_stream"),
        soon(bench.broker.delete_stream(&OPERATOR, &name("s"))).await.map(drop).expect_err("delete_stream"),
        soon(bench.broker.create_subscription(&OPERATOR, &name("s"), new_subscription("y"))).await.map(drop).expect_err("create_subscription"),
        soon(bench.broker.delete_subscription(&OPERATOR, &name("s"), &sub("x"))).await.map(drop).expect_err("delete_subscription"),
        soon(bench.broker.seek(&OPERATOR, &name("s"), &sub("x"), Start::Latest)).await.map(drop).expect_err("seek"),
    ];
    for error in errors.drain(..) {
        assert!(matches!(error.code, Code::StorageFailed | Code::OutcomeUnknown), "{error:?}");
        assert_eq!((error.applied, error.retry), (error.code.applied(), error.code.retry()), "{error:?}");
    }
    soon(bench.broker.failed()).await;
    assert!(!bench.broker.health().ready);
}

#[tokio::test]
async fn s5_after_a_failed_write_the_broker_stops_serving() {
    let bench = Bench::with_stream("s").await;
    bench.put("s", &["kept"]).await;
    bench.subscribe_new("s", "x").await;
    let mut c = bench.connect();
    let epoch = open(&mut c, "s", "p").await;
    assert!(bench.broker.health().ready);
    let broker = bench.broker.clone();
    let failed = tokio::spawn(async move { broker.failed().await });
    tokio::task::yield_now().await;
    assert!(!failed.is_finished());
    bench.memory.fail_commits(Fault::BeforeWrite);
    refused(send(&mut c, stamped("s", "p", epoch, 0, &["a"])).await, Code::OutcomeUnknown, "");
    assert!(!soon(failed).await.unwrap().is_empty());
    everything_that_writes_is_refused(&bench).await;
    assert_eq!(bench.engine.take_seen().iter().map(|s| s.appends).sum::<usize>(), 2, "no write after the failed one");
    let bench = bench.crash().await;
    assert_eq!(bench.texts("s").await, ["kept"]);
    assert_eq!(bench.append(stamped("s", "p", epoch, 0, &["a"])).await, stored(1, 1), "truth is what recovery finds: it was not stored");
}

#[tokio::test]
async fn s5_a_write_that_survived_its_failed_sync_is_found_as_a_duplicate() {
    let bench = Bench::with_stream("s").await;
    bench.subscribe_new("s", "x").await;
    let mut c = bench.connect();
    let epoch = open(&mut c, "s", "p").await;
    bench.memory.fail_commits(Fault::AfterWrite);
    refused(send(&mut c, stamped("s", "p", epoch, 0, &["a", "b"])).await, Code::OutcomeUnknown, "");
    refused(send(&mut c, stamped("s", "p", epoch, 0, &["a", "b"])).await.map_err(as_unknown), Code::OutcomeUnknown, "");
    everything_that_writes_is_refused(&bench).await;
    match soon(bench.broker.stream(&OPERATOR, &name("s"))).await {
        Ok(stream) => assert_eq!(stream.next_offset, 0, "S-2: what failed is never shown"),
        Err(error) => drop(refused(Err::<(), _>(error), Code::StorageFailed, "S-5")),
    }
    if let Ok(reply) = read(&bench, ReadFrom::At(Start::Earliest)).await {
        assert!(reply.slices.is_empty(), "S-2: what failed is never shown");
    }
    let bench = bench.crash().await;
    assert_eq!(bench.append(stamped("s", "p", epoch, 0, &["a", "b"])).await, repeated(0, 2));
    assert_eq!(bench.texts("s").await, ["a", "b"]);
}

/// `storage_failed` and `session_poisoned` say of this attempt that it had no effect; both are fine once the engine is gone.
fn as_unknown(error: Error) -> Error {
    match error.code {
        Code::StorageFailed | Code::SessionPoisoned => Error::new(Code::OutcomeUnknown, "the engine is gone, so nobody knows"),
        _ => error,
    }
}

#[tokio::test]
async fn s5_a_failed_ack_or_opening_is_outcome_unknown_too() {
    for what in ["ack", "open", "commit", "close"] {
        let bench = Bench::with_stream("s").await;
        bench.fill("s", 2).await;
        bench.subscribe_new("s", "x").await;
        let mut c = bench.connect();
        let mut reader = Reader::durable(&mut c, "s", "x").await;
        reader.take(2).await;
        bench.memory.fail_commits(Fault::AfterWrite);
        let error = match what {
            "ack" => reader.ack(&mut c, 1).await.map(drop),
            "open" => answer(c.open_producer(opening(Some("s"), "p", Expect::Any))).await.map(drop),
            "commit" => {
                let acks = vec![commit_ack("s", "x", reader.epoch(), 1)];
                answer(c.commit(CommitRequest { acks, ..CommitRequest::default() })).await.map(drop)
            }
            _ => soon(bench.broker.close_stream(&OPERATOR, &name("s"))).await.map(drop),
        };
        refused(error, Code::OutcomeUnknown, "");
        soon(bench.broker.failed()).await;
    }
}

#[tokio::test]
async fn s5_all_groups_behind_the_failed_one_fail_and_leave_nothing() {
    let (bench, mut first, epoch, original) = held_with_fault(Fault::BeforeWrite).await;
    let mut behind = Vec::new();
    for seq in 1..20u64 {
        behind.push(first.append(stamped("s", "p", epoch, seq * 2, &["c", "d"])).await);
        behind.push(bench.connect().append(plain("s", &["x"])).await);
    }
    bench.engine.go();
    refused(soon(original).await, Code::OutcomeUnknown, "");
    for pending in behind {
        let error = soon(pending).await.expect_err("nothing can succeed");
        assert!(matches!(error.code, Code::OutcomeUnknown | Code::StorageFailed | Code::SessionPoisoned), "{error:?}");
    }
    let bench = bench.crash().await;
    assert_eq!(bench.texts("s").await, Vec::<String>::new(), "no write after the failed one");
}

#[tokio::test]
async fn s5_a_refusal_before_the_log_write_ends_nothing() {
    let bench = Bench::with_stream("s").await;
    let mut c = bench.connect();
    let epoch = open(&mut c, "s", "p").await;
    bench.memory.fail_commits(Fault::Refuse);
    let first = send(&mut c, stamped("s", "p", epoch, 0, &["a"])).await;
    match first {
        Ok(_) => assert_eq!(first, stored(0, 1), "tried again"),
        Err(error) => {
            assert_eq!((error.code, error.applied), (Code::Overloaded, Applied::No), "{error:?}");
            answer(c.resume(resuming("s", Some("p"), Some(0)))).await.unwrap();
            assert_eq!(send(&mut c, stamped("s", "p", epoch, 0, &["a"])).await, stored(0, 1));
        }
    }
    assert!(bench.broker.health().ready);
    assert_eq!(bench.texts("s").await, ["a"]);
}

#[tokio::test]
async fn on_a_full_disk_appends_are_refused_and_acks_trims_and_openings_still_work() {
    let bench = Bench::with_stream("s").await;
    bench.fill("s", 3).await;
    bench.subscribe_new("s", "x").await;
    let mut c = bench.connect();
    let mut reader = Reader::durable(&mut c, "s", "x").await;
    reader.take(3).await;
    bench.memory.fill(Some("a test filled it"));
    refused(bench.append(plain("s", &["a"])).await, Code::StorageFull, "");
    let commit = CommitRequest { appends: vec![commit_append("s", &["a"])], ..CommitRequest::default() };
    part_refused(answer(c.commit(commit)).await, "appends", 0, Code::StorageFull);
    assert_eq!(reader.ack(&mut c, 1).await, acked(2));
    assert_eq!(bench.trim("s", 1).await.first_offset, 1);
    open(&mut c, "s", "p").await;
    bench.memory.fill(None);
    assert_eq!(bench.append(plain("s", &["a"])).await, stored(3, 1), "the refused appends took no offsets");
}

#[tokio::test]
async fn s6_damage_is_reported_never_skipped() {
    let bench = Bench::with_stream("s").await;
    for batch in [&["a", "b"][..], &["c", "d"], &["e"]] {
        bench.put("s", batch).await;
    }
    bench.subscribe_new("s", "x").await;
    let id = bench.describe("s").await.id;
    let bench = bench.crash_and(|memory| memory.damage(id, 2)).await;
    let mut c = bench.connect();
    let mut reader = Reader::durable(&mut c, "s", "x").await;
    assert_eq!(reader.take(2).await[1].1, "b", "what is sound comes first");
    let error = refused(Err::<(), _>(reader.end().await), Code::DataCorrupt, "S-6");
    assert_eq!((detail(&error, "from"), detail(&error, "to")), (2, 3));
    assert_eq!(reader.at, 2, "nothing was delivered beyond the damage");
    let error = refused(read(&bench, ReadFrom::After(1)).await.map(drop), Code::DataCorrupt, "S-6");
    assert_eq!((detail(&error, "from"), detail(&error, "to")), (2, 3));
    refused(soon(bench.broker.event(&OPERATOR, &name("s"), Which::Offset(3))).await.map(drop), Code::DataCorrupt, "S-6");
    assert_eq!(soon(bench.broker.event(&OPERATOR, &name("s"), Which::Offset(4))).await.unwrap().from(), 4, "beyond it, on demand");
    assert_eq!(bench.put("s", &["f"]).await, (5, 5));
}

#[tokio::test]
async fn s8_stream_ids_are_never_reused() {
    let mut bench = Bench::new().await;
    let mut seen = std::collections::BTreeSet::new();
    for round in 0..6 {
        let stream = bench.create("s").await;
        assert!(seen.last().is_none_or(|last| *last < stream.id.0), "{} after {seen:?}", stream.id);
        seen.insert(stream.id.0);
        assert_eq!((stream.first_offset, stream.next_offset), (0, 0));
        bench.put("s", &["a", "b"]).await;
        bench.delete("s").await;
        if round % 2 == 1 {
            bench = bench.crash().await;
        }
    }
}

#[tokio::test]
async fn s8_offsets_are_never_reused_even_when_everything_was_trimmed() {
    let bench = Bench::with_stream("s").await;
    bench.fill("s", 5).await;
    bench.trim("s", 5).await;
    let info = bench.describe("s").await;
    assert_eq!((info.first_offset, info.next_offset, info.bytes), (5, 5, 0));
    let bench = bench.crash().await;
    let info = bench.describe("s").await;
    assert_eq!((info.first_offset, info.next_offset), (5, 5));
    assert_eq!(bench.put("s", &["a"]).await, (5, 5));
    bench.trim("s", 6).await;
    let bench = bench.restart().await;
    assert_eq!(bench.put("s", &["b"]).await, (6, 6));
}

#[tokio::test]
async fn s8_session_epochs_only_grow_also_over_deletion_and_restarts() {
    let mut bench = Bench::with_stream("s").await;
    let mut last = 0;
    for round in 0..8 {
        let mut c = bench.connect();
        let create = SubscribeRequest { create: true, ..attach("s", "x") };
        let reader = Reader::open(&mut c, create).await.unwrap();
        assert!(reader.epoch() > last, "{} after {last} in round {round}", reader.epoch());
        last = reader.epoch();
        drop(reader);
        if round % 2 == 1 {
            soon(bench.broker.delete_subscription(&OPERATOR, &name("s"), &sub("x"))).await.unwrap();
        }
        if round % 3 == 2 {
            bench = bench.crash().await;
        }
    }
}

#[tokio::test]
async fn s8_a_zombie_of_a_deleted_and_recreated_subscription_never_matches() {
    let bench = Bench::with_stream("s").await;
    bench.fill("s", 3).await;
    let mut c = bench.connect();
    let create = SubscribeRequest { create: true, ..attach("s", "x") };
    let mut zombie = Reader::open(&mut c, create.clone()).await.unwrap();
    zombie.take(3).await;
    soon(bench.broker.delete_subscription(&OPERATOR, &name("s"), &sub("x"))).await.unwrap();
    let mut fresh = Reader::open(&mut c, create).await.unwrap();
    fresh.take(3).await;
    let commit = CommitRequest { acks: vec![commit_ack("s", "x", zombie.epoch(), 2)], ..CommitRequest::default() };
    answer(c.commit(commit)).await.expect_err("the old epoch");
    zombie.ack(&mut c, 2).await.expect_err("the old session");
    assert_eq!(bench.subscription("s", "x").await.next, 0);
    assert_eq!(fresh.ack(&mut c, 2).await, acked(3));
}

#[tokio::test]
async fn s8_a_zombie_of_a_deleted_and_recreated_stream_never_matches() {
    let bench = Bench::with_stream("s").await;
    bench.fill("s", 3).await;
    let mut c = bench.connect();
    let old = bench.describe("s").await.id;
    let epoch = open(&mut c, "s", "p").await;
    let create = SubscribeRequest { create: true, ..attach("s", "x") };
    let mut zombie = Reader::open(&mut c, create.clone()).await.unwrap();
    zombie.take(3).await;
    bench.delete("s").await;
    refused(Err::<(), _>(zombie.end().await), Code::NotFound, "");
    bench.create("s").await;
    bench.fill("s", 3).await;
    let mut fresh = Reader::open(&mut c, create).await.unwrap();
    fresh.take(3).await;
    let commit = CommitRequest { acks: vec![commit_ack("s", "x", zombie.epoch(), 2)], ..CommitRequest::default() };
    answer(c.commit(commit)).await.expect_err("the old epoch");
    zombie.ack(&mut c, 2).await.expect_err("the old session");
    let with_id = AppendRequest { stream_id: Some(old), ..stamped("s", "p", epoch, 0, &["z"]) };
    refused(bench.append(with_id).await, Code::StreamReplaced, "");
    refused(bench.append(stamped("s", "p", epoch, 0, &["z"])).await, Code::ProducerUnknown, "P-1");
    let reopened = open(&mut c, "s", "p").await;
    assert!(reopened > epoch, "a producer's zombie would match epoch {reopened}");
    let error = bench.append(stamped("s", "p", epoch, 0, &["z"])).await.expect_err("the old epoch");
    assert_eq!(error.code, Code::ProducerFenced);
    assert_eq!(bench.subscription("s", "x").await.next, 0);
    assert_eq!(bench.next_offset("s").await, 3);
}

#[tokio::test]
async fn s8_producer_epochs_only_grow_over_restarts() {
    let mut bench = Bench::with_stream("s").await;
    let (mut last, mut last_wide) = (0, 0);
    for _ in 0..4 {
        let mut c = bench.connect();
        let (epoch, wide) = (open(&mut c, "s", "p").await, open_wide(&mut c, "tx").await);
        assert!(epoch > last && wide > last_wide);
        (last, last_wide) = (epoch, wide);
        bench = bench.crash().await;
    }
}

/// The broker on RocksDB in `dir`.
async fn durable(dir: &std::path::Path) -> Broker {
    let small = RocksOptions { write_buffer_bytes: 8 << 20, cache_bytes: 8 << 20, free_min_bytes: Some(0), ballast_bytes: 0, ..RocksOptions::new(dir) };
    let engine = Rocks::open(small).unwrap_or_else(|e| panic!("{e:?}"));
    soon(Broker::open(std::sync::Arc::new(engine), roomy())).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_durable_survives_a_restart_on_rocksdb() {
    let dir = tempfile::tempdir().unwrap();
    let (stream, cursor_epoch, epoch, tx) = {
        let broker = durable(dir.path()).await;
        let info = soon(broker.create_stream(&OPERATOR, NewStream::named(name("s")))).await.unwrap();
        soon(broker.create_stream(&OPERATOR, NewStream::named(name("out")))).await.unwrap();
        let mut c = broker.connect(OPERATOR);
        let epoch = open(&mut c, "s", "p").await;
        let tx = open_wide(&mut c, "tx").await;
        for seq in 0..100 {
            assert_eq!(send(&mut c, stamped("s", "p", epoch, seq, &[&format!("e{seq}")])).await, stored(seq, 1));
        }
        let mut reader = Reader::open(&mut c, SubscribeRequest { create: true, ..attach("s", "x") }).await.unwrap();
        reader.take(100).await;
        assert_eq!(reader.ack(&mut c, 40).await, acked(41));
        let request = CommitRequest {
            producer: Some(stamp("tx", tx, 0)),
            acks: vec![commit_ack("s", "x", reader.epoch(), 50)],
            appends: vec![commit_append("out", &["o"])],
            checks: vec![],
        };
        answer(c.commit(request)).await.unwrap();
        soon(broker.trim_stream(&OPERATOR, &name("s"), TrimTo::Offset(10))).await.unwrap();
        let cursor_epoch = reader.epoch();
        drop(reader);
        soon(broker.drain()).await;
        soon(broker.close()).await.unwrap();
        (info, cursor_epoch, epoch, tx)
    };
    let broker = durable(dir.path()).await;
    let found = soon(broker.stream(&OPERATOR, &name("s"))).await.unwrap();
    assert_eq!((found.id, &found.uuid, found.first_offset, found.next_offset), (stream.id, &stream.uuid, 10, 100));
    let subscription = soon(broker.subscription(&OPERATOR, &name("s"), &sub("x"))).await.unwrap();
    assert_eq!((subscription.next, subscription.epoch, subscription.lag.events), (51, cursor_epoch, 49));
    let mut c = broker.connect(OPERATOR);
    assert_eq!(send(&mut c, stamped("s", "p", epoch, 99, &["e99"])).await, repeated(99, 1));
    let again = CommitRequest {
        producer: Some(stamp("tx", tx, 0)),
        acks: vec![commit_ack("s", "x", cursor_epoch, 50)],
        appends: vec![commit_append("out", &["o"])],
        checks: vec![],
    };
    let again = answer(c.commit(again)).await.unwrap();
    assert_eq!((again.duplicate, again.acks[0].next, again.appends[0].first_offset), (true, 51, 0));
    let lost = CommitRequest { acks: vec![commit_ack("s", "x", cursor_epoch, 60)], ..CommitRequest::default() };
    part_refused(answer(c.commit(lost)).await, "acks", 0, Code::SessionUnknown);
    let mut reader = Reader::durable(&mut c, "s", "x").await;
    assert_eq!(reader.epoch(), cursor_epoch + 1);
    let rest = reader.take(49).await;
    assert_eq!(rest, (51..100).map(|i| (i, format!("e{i}"))).collect::<Vec<_>>());
    soon(broker.drain()).await;
    soon(broker.close()).await.unwrap();
}

#[tokio::test]
async fn memory_stays_within_settings_whatever_is_touched() {
    let bench = Bench::with(cramped()).await;
    for i in 0..60 {
        let stream = format!("s{i}");
        bench.create(&stream).await;
        let mut c = bench.connect();
        let epoch = open(&mut c, &stream, "p").await;
        assert_eq!(send(&mut c, stamped(&stream, "p", epoch, 0, &["a"])).await, stored(0, 1));
    }
    for i in (0..60).rev() {
        let stream = format!("s{i}");
        assert_eq!(bench.append(stamped(&stream, "p", 1, 0, &["a"])).await, repeated(0, 1));
        assert_eq!(bench.append(stamped(&stream, "p", 1, 1, &["b"])).await, stored(1, 1));
        assert_eq!(bench.texts(&stream).await, ["a", "b"]);
    }
}
