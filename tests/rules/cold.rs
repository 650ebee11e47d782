//! Rows that are not in memory: an intent that waits for its rows neither overtakes nor is overtaken within its session, and
//! what a slow read brings never replaces what happened meanwhile.

use std::time::Duration;

use crate::support::*;

/// A broker that keeps next to nothing in memory, with stream `s` and others to push it out with.
async fn bench() -> Bench {
    let bench = Bench::with(cramped()).await;
    for stream in ["s", "t0", "t1", "t2", "t3", "t4", "t5"] {
        bench.create(stream).await;
    }
    bench
}

/// Uses everything else until `s` and all of its rows are out of memory.
async fn push_out(bench: &Bench) {
    for stream in ["t0", "t1", "t2", "t3", "t4", "t5"] {
        bench.put(stream, &["x"]).await;
    }
}

#[tokio::test]
async fn p12_an_append_that_waits_for_its_stream_is_not_overtaken_by_the_next_of_its_session() {
    let bench = bench().await;
    let id = bench.describe("s").await.id;
    push_out(&bench).await;
    let mut c = bench.connect();
    bench.engine.hold_row(Key::Stream(id));
    let first = c.append(plain("s", &["first"])).await;
    bench.engine.reads_held(1).await;
    push_out(&bench).await;
    bench.engine.hold_row(Key::StreamName("s"));
    let second = c.append(plain("s", &["second"])).await;
    bench.engine.reads_held(2).await;
    bench.engine.release_row(Key::Stream(id));
    bench.engine.reads_held(1).await;
    bench.engine.release_row(Key::StreamName("s"));
    assert_eq!(soon(first).await, stored(0, 1));
    assert_eq!(soon(second).await, stored(1, 1));
    assert_eq!(bench.texts("s").await, ["first", "second"]);
}

#[tokio::test]
async fn an_attach_that_waits_for_the_audit_is_not_overtaken_by_the_next_of_its_connection() {
    let bench = Bench::with_stream("s").await;
    bench.fill("s", 2).await;
    bench.subscribe_new("s", "x").await;
    bench.engine.hold_row(Key::Stream(id::AUDIT_STREAM));
    let mut c = bench.connect();
    // Moving the cursor is told in the audit, whose end nobody has looked for yet; the other attach is not.
    let first = c.subscribe(SubscribeRequest { rewind: true, from: Some(Start::Offset(0)), ..attach("s", "x") }).await;
    bench.engine.reads_held(1).await;
    let mut second = c.subscribe(attach("s", "x")).await;
    assert!(tokio::time::timeout(Duration::from_millis(40), &mut second).await.is_err(), "it waits for its turn");
    bench.engine.release_row(Key::Stream(id::AUDIT_STREAM));
    let epoch = |opened: Result<(Subscribed, Session)>| opened.unwrap().0.epoch;
    assert_eq!((epoch(soon(first).await), epoch(soon(second).await)), (Some(1), Some(2)));
}

#[tokio::test]
async fn p12_a_pipelined_producer_whose_rows_come_and_go_sees_no_gap() {
    let bench = bench().await;
    let id = bench.describe("s").await.id;
    let mut c = bench.connect();
    let epoch = open(&mut c, "s", "p").await;
    for other in ["q", "r", "u"] {
        open(&mut c, "s", other).await;
    }
    let key = ProducerKey::of_stream(id, producer("p"));
    bench.engine.hold_row(Key::Producer(&key));
    let first = c.append(stamped("s", "p", epoch, 0, &["first"])).await;
    bench.engine.reads_held(1).await;
    push_out(&bench).await;
    bench.engine.hold_row(Key::StreamName("s"));
    let second = c.append(stamped("s", "p", epoch, 1, &["second"])).await;
    bench.engine.reads_held(2).await;
    bench.engine.release_row(Key::Producer(&key));
    bench.engine.reads_held(1).await;
    bench.engine.release_row(Key::StreamName("s"));
    assert_eq!(soon(first).await, stored(0, 1));
    assert_eq!(soon(second).await, stored(1, 1));
}

#[tokio::test]
async fn c11_acks_that_wait_for_their_cursor_keep_their_order() {
    let bench = bench().await;
    bench.fill("s", 4).await;
    bench.subscribe_new("s", "x").await;
    let mut c = bench.connect();
    let mut reader = Reader::durable(&mut c, "s", "x").await;
    reader.take(4).await;
    push_out(&bench).await;
    bench.engine.hold_row(Key::StreamName("s"));
    let first = c.ack(&reader.handle, 1, AckLevel::Durable).await;
    let second = c.ack(&reader.handle, 3, AckLevel::Durable).await;
    bench.engine.reads_held(1).await;
    bench.engine.release_row(Key::StreamName("s"));
    assert_eq!(soon(first).await, acked(2));
    assert_eq!(soon(second).await, acked(4));
}

#[tokio::test]
async fn a_slow_read_of_a_name_does_not_bring_a_deleted_stream_back() {
    let bench = bench().await;
    let old = bench.describe("s").await.id;
    let broker = bench.broker.clone();
    let mut deleting = Box::pin(async move { broker.delete_stream(&OPERATOR, &name("s")).await.unwrap() });
    bench.engine.stop();
    nothing_yet(&mut deleting).await;
    bench.engine.step(1).await;
    bench.engine.go();
    // The deletion is durable, its second half has not begun: nobody has polled it.
    push_out(&bench).await;
    bench.engine.hold_row(Key::StreamName("s"));
    let slow = bench.connect().append(plain("s", &["too late"])).await;
    bench.engine.reads_held(1).await;
    let broker = bench.broker.clone();
    let operation = {
        // Its own look at the name is held too; the commit loop's answer was sent before.
        bench.engine.reads_held(1).await;
        soon(deleting).await
    };
    let early = soon(broker.wait_operation(&OPERATOR, operation.id, Duration::from_millis(60))).await.unwrap();
    let create = || {
        let broker = broker.clone();
        tokio::spawn(async move { broker.create_stream(&OPERATOR, NewStream::named(name("s"))).await })
    };
    let created = if early.status_code == 200 { Some(soon(create()).await.unwrap().unwrap()) } else { None };
    bench.engine.release_row(Key::StreamName("s"));
    refused(soon(slow).await, Code::NotFound, "");
    let created = match created {
        Some(created) => created,
        None => {
            soon(broker.wait_operation(&OPERATOR, operation.id, Duration::from_secs(10))).await.unwrap();
            soon(create()).await.unwrap().unwrap()
        }
    };
    assert!(created.id > old);
    assert_eq!(bench.put("s", &["new"]).await, (0, 0));
    assert_eq!(bench.describe("s").await.id, created.id);
    refused(soon(broker.create_stream(&OPERATOR, NewStream::named(name("s")))).await, Code::NameTaken, "");
}

#[tokio::test]
async fn c16_a_refused_commit_takes_no_received_ack_back() {
    let bench = Bench::with_stream("s").await;
    bench.fill("s", 4).await;
    bench.subscribe_new("s", "x").await;
    let mut c = bench.connect();
    let mut reader = Reader::durable(&mut c, "s", "x").await;
    reader.take(4).await;
    assert_eq!(answer(c.ack(&reader.handle, 2, AckLevel::Received)).await, acked(3));
    bench.engine.refuse_next(EngineError::Full("a test filled it".into()));
    refused(bench.append(plain("s", &["a"])).await, Code::StorageFull, "");
    assert_eq!(answer(c.ack(&reader.handle, 2, AckLevel::Durable)).await, acked(3), "it stands");
    assert_eq!(answer(c.ack(&reader.handle, 3, AckLevel::Received)).await, acked(4));
    bench.engine.refuse_next(EngineError::Full("a test filled it".into()));
    refused(bench.append(plain("s", &["a"])).await, Code::StorageFull, "");
    let next = Reader::durable(&mut bench.connect(), "s", "x").await;
    assert_eq!(next.opened.next, 4, "a takeover never steps back");
}

#[tokio::test]
async fn a_refused_commit_leaves_everything_as_it_was() {
    let bench = Bench::with_stream("s").await;
    bench.fill("s", 2).await;
    bench.subscribe_new("s", "x").await;
    let mut c = bench.connect();
    let epoch = open(&mut c, "s", "p").await;
    let mut reader = Reader::durable(&mut c, "s", "x").await;
    reader.take(2).await;
    for round in 0..2 {
        bench.engine.refuse_next(EngineError::Full("a test filled it".into()));
        refused(bench.append(stamped("s", "p", epoch, 0, &["a", "b"])).await, Code::StorageFull, "");
        bench.engine.refuse_next(EngineError::Full("a test filled it".into()));
        refused(answer(c.open_producer(opening(Some("s"), "p", Expect::Any))).await, Code::StorageFull, "");
        bench.engine.refuse_next(EngineError::Full("a test filled it".into()));
        refused(answer(bench.connect().subscribe(attach("s", "x"))).await.map(drop), Code::StorageFull, "");
        bench.engine.refuse_next(EngineError::Full("a test filled it".into()));
        refused(reader.ack(&mut c, 1).await, Code::StorageFull, "");
        assert_eq!(bench.next_offset("s").await, 2, "round {round}");
    }
    assert_eq!(bench.append(stamped("s", "p", epoch, 0, &["a", "b"])).await, stored(2, 2), "neither offsets nor numbers were used up");
    assert_eq!(reader.ack(&mut c, 1).await, acked(2), "the session that nobody fenced lives on");
    assert_eq!(reader.take(2).await, [(2, "a".into()), (3, "b".into())]);
}

#[tokio::test]
async fn p12_a_resume_whose_group_is_refused_leaves_the_session_poisoned() {
    let bench = Bench::with_stream("s").await;
    bench.create("t").await;
    let (mut poisoned, mut other) = (bench.connect(), bench.connect());
    refused(send(&mut poisoned, expecting(plain("s", &["a"]), 9)).await, Code::ConditionFailed, "P-18");
    bench.engine.stop();
    let first = soon(other.append(plain("t", &["x"]))).await;
    bench.engine.waiting().await;
    // These two become one group, behind the first.
    let resumed = soon(poisoned.resume(resuming("s", None, None))).await;
    let second = soon(other.append(plain("t", &["y"]))).await;
    bench.engine.step(1).await;
    bench.engine.waiting().await;
    bench.engine.refuse_next(EngineError::Full("a test".into()));
    bench.engine.go();
    assert_eq!(soon(first).await, stored(0, 1));
    refused(soon(resumed).await, Code::StorageFull, "");
    refused(soon(second).await, Code::StorageFull, "");
    // It had no effect, as it was told.
    refused(send(&mut poisoned, plain("s", &["b"])).await, Code::SessionPoisoned, "P-12");
    assert_eq!(bench.texts("s").await, Vec::<String>::new());
}

#[tokio::test]
async fn p12_a_refused_commit_poisons_the_sessions_whose_appends_were_in_it() {
    let bench = Bench::with_stream("s").await;
    let mut c = bench.connect();
    bench.engine.stop();
    let refused_one = c.append(plain("s", &["a"])).await;
    bench.engine.waiting().await;
    let behind = c.append(plain("s", &["b"])).await;
    bench.engine.refuse_next(EngineError::Full("a test filled it".into()));
    bench.engine.go();
    refused(soon(refused_one).await, Code::StorageFull, "");
    refused(soon(behind).await, Code::SessionPoisoned, "P-12");
    answer(c.resume(resuming("s", None, None))).await.unwrap();
    assert_eq!(send(&mut c, plain("s", &["a"])).await, stored(0, 1));
}
