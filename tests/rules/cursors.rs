//! C-1 … C-16: opening sessions, acks, fences, takeover.

use crate::support::*;

/// The stream `s` with `count` events and the durable subscription `x`.
async fn with(count: u64) -> (Bench, Connection) {
    let bench = Bench::with_stream("s").await;
    bench.fill("s", count).await;
    bench.subscribe_new("s", "x").await;
    let connection = bench.connect();
    (bench, connection)
}

async fn try_attach(c: &mut Connection, request: SubscribeRequest) -> Result<Subscribed> {
    answer(c.subscribe(request)).await.map(|(opened, _session)| opened)
}

fn at(from: Start) -> SubscribeRequest {
    SubscribeRequest { from: Some(from), ..attach("s", "x") }
}

#[tokio::test]
async fn an_opening_tells_epoch_position_and_bounds() {
    let (bench, mut c) = with(5).await;
    bench.trim("s", 2).await;
    let stream = bench.describe("s").await;
    bench.broker.seek(&OPERATOR, &name("s"), &sub("x"), Start::Offset(3)).await.unwrap();
    let before = bench.subscription("s", "x").await.epoch;
    let opened = try_attach(&mut c, attach("s", "x")).await.unwrap();
    assert_eq!(opened, Subscribed { stream: name("s"), stream_id: stream.id, epoch: Some(before + 1), next: 3, first_offset: 2, next_offset: 5, log_epoch: 1 });
}

#[tokio::test]
async fn c1_a_live_session_is_left_alone_by_reject() {
    let (bench, mut c) = with(3).await;
    let mut reader = Reader::durable(&mut c, "s", "x").await;
    let mut other = bench.connect();
    let reject = SubscribeRequest { takeover: Takeover::Reject, ..attach("s", "x") };
    refused(try_attach(&mut other, reject.clone()).await, Code::CursorBusy, "C-1");
    reader.take(3).await;
    assert_eq!(reader.ack(&mut c, 2).await, acked(3), "the live session goes on");
    assert_eq!(bench.subscription("s", "x").await.epoch, reader.epoch(), "the refused opening took no epoch");
    drop(reader);
    let opened = try_attach(&mut other, reject).await.unwrap();
    assert_eq!(opened.next, 3, "a detached session is not live");
}

#[tokio::test]
async fn c2_a_foreign_log_epoch_is_refused_and_moves_nothing() {
    let (bench, mut c) = with(3).await;
    for foreign in [0, 2] {
        let request = SubscribeRequest { log_epoch: Some(foreign), ..at(Start::Offset(2)) };
        let error = refused(try_attach(&mut c, request).await, Code::LogEpochChanged, "C-2");
        assert_eq!((detail(&error, "log_epoch"), detail(&error, "next_offset")), (1, 3));
    }
    let subscription = bench.subscription("s", "x").await;
    assert_eq!((subscription.next, subscription.epoch), (0, 0));
    let right = SubscribeRequest { log_epoch: Some(1), ..at(Start::Offset(2)) };
    assert_eq!(try_attach(&mut c, right).await.unwrap().next, 2);
}

#[tokio::test]
async fn c2_comes_before_c3_and_holds_for_ephemeral_readers() {
    let (_bench, mut c) = with(3).await;
    let request = SubscribeRequest { log_epoch: Some(7), ..at(Start::Offset(99)) };
    refused(try_attach(&mut c, request).await, Code::LogEpochChanged, "C-2");
    let ephemeral = SubscribeRequest { log_epoch: Some(7), ..attach_ephemeral("s", Some(Start::Offset(1))) };
    refused(try_attach(&mut c, ephemeral).await, Code::LogEpochChanged, "C-2");
}

#[tokio::test]
async fn c3_a_position_beyond_the_end_is_refused_and_never_clamped() {
    let (bench, mut c) = with(3).await;
    for beyond in [4, 1000, u64::MAX] {
        let error = refused(try_attach(&mut c, at(Start::Offset(beyond))).await, Code::PositionBeyondEnd, "C-3");
        assert_eq!(detail(&error, "next_offset"), 3);
        refused(try_attach(&mut c, attach_ephemeral("s", Some(Start::Offset(beyond)))).await, Code::PositionBeyondEnd, "C-3");
    }
    assert_eq!(bench.subscription("s", "x").await.next, 0);
    assert_eq!(try_attach(&mut c, at(Start::Offset(3))).await.unwrap().next, 3, "the end itself is legal");
}

#[tokio::test]
async fn c4_a_position_below_the_cursor_needs_rewind() {
    let (bench, mut c) = with(5).await;
    let mut reader = Reader::durable(&mut c, "s", "x").await;
    reader.take(5).await;
    assert_eq!(reader.ack(&mut c, 3).await, acked(4));
    drop(reader);
    for from in [Start::Offset(0), Start::Offset(3), Start::Earliest] {
        let error = refused(try_attach(&mut c, at(from)).await, Code::CursorAhead, "C-4");
        assert_eq!(detail(&error, "next"), 4);
    }
    let before = bench.subscription("s", "x").await.epoch;
    let rewind = SubscribeRequest { rewind: true, ..at(Start::Offset(1)) };
    let mut reader = Reader::open(&mut c, rewind).await.unwrap();
    assert_eq!((reader.opened.next, reader.epoch()), (1, before + 1));
    assert_eq!(reader.take(4).await[0].0, 1);
    let bench = bench.crash().await;
    assert_eq!(bench.subscription("s", "x").await.next, 1, "the rewound cursor is durable");
}

#[tokio::test]
async fn c5_a_position_at_or_above_the_cursor_moves_it_durably_before_the_reply() {
    let (bench, mut c) = with(5).await;
    assert_eq!(try_attach(&mut c, at(Start::Offset(0))).await.unwrap().next, 0);
    assert_eq!(try_attach(&mut c, at(Start::Offset(3))).await.unwrap().next, 3);
    let bench = bench.crash().await;
    assert_eq!(bench.subscription("s", "x").await.next, 3);
    let mut c = bench.connect();
    assert_eq!(try_attach(&mut c, at(Start::Latest)).await.unwrap().next, 5, "latest moves forward");
    assert_eq!(bench.subscription("s", "x").await.next, 5);
}

#[tokio::test]
async fn c6_a_trimmed_cursor_fails_by_default_and_says_where_the_stream_begins() {
    let (bench, mut c) = with(5).await;
    bench.trim("s", 3).await;
    let error = refused(try_attach(&mut c, attach("s", "x")).await, Code::CursorTrimmed, "C-6");
    assert_eq!((detail(&error, "next"), detail(&error, "first_offset")), (0, 3));
    let explicit = SubscribeRequest { on_gap: Some(OnGap::Fail), ..at(Start::Offset(2)) };
    let error = refused(try_attach(&mut c, explicit).await, Code::CursorTrimmed, "C-6");
    assert_eq!(detail(&error, "first_offset"), 3);
    assert_eq!(bench.subscription("s", "x").await.next, 0, "nothing moved");
}

#[tokio::test]
async fn c6_with_skip_the_first_frame_is_the_gap_and_acking_its_end_is_legal() {
    let (bench, mut c) = with(5).await;
    bench.trim("s", 3).await;
    let skip = SubscribeRequest { on_gap: Some(OnGap::Skip), ..attach("s", "x") };
    let mut reader = Reader::open(&mut c, skip).await.unwrap();
    let first = reader.next().await.unwrap();
    assert!(matches!(first, Delivery::Gap { from: 0, to: 2, reason: GapReason::Retention }), "{first:?}");
    assert_eq!(bench.subscription("s", "x").await.next, 0, "the cursor never moves by itself");
    assert_eq!(reader.ack(&mut c, 2).await, acked(3));
    assert_eq!(reader.take(2).await, [(3, "e3".into()), (4, "e4".into())]);
    assert_eq!(reader.ack(&mut c, 4).await, acked(5));
}

#[tokio::test]
async fn c6_a_trim_under_a_live_session_ends_it_or_sends_a_gap() {
    for (on_gap, expect_gap) in [(None, false), (Some(OnGap::Fail), false), (Some(OnGap::Skip), true)] {
        let bench = Bench::with_stream("s").await;
        bench.fill("s", 6).await;
        bench.subscribe_new_window("s", "x", 2).await;
        let mut c = bench.connect();
        let mut reader = Reader::open(&mut c, SubscribeRequest { on_gap, ..attach("s", "x") }).await.unwrap();
        reader.take(2).await;
        bench.trim("s", 5).await;
        if expect_gap {
            assert_eq!(reader.ack(&mut c, 1).await, acked(2));
            let gap = reader.next_but_live().await.unwrap();
            assert!(matches!(gap, Delivery::Gap { from: 2, to: 4, reason: GapReason::Retention }), "{gap:?}");
            assert_eq!(reader.ack(&mut c, 4).await, acked(5));
            assert_eq!(reader.take(1).await, [(5, "e5".into())]);
        } else {
            let _ = reader.ack(&mut c, 1).await;
            let error = refused(Err::<(), _>(reader.end().await), Code::CursorTrimmed, "C-6");
            assert_eq!(detail(&error, "first_offset"), 5);
        }
    }
}

#[tokio::test]
async fn c6_a_trim_below_what_was_delivered_does_not_disturb_a_session() {
    let (bench, mut c) = with(4).await;
    let mut reader = Reader::durable(&mut c, "s", "x").await;
    reader.take(4).await;
    bench.trim("s", 4).await;
    bench.put("s", &["e4"]).await;
    assert_eq!(reader.take(1).await, [(4, "e4".into())]);
    assert_eq!(reader.ack(&mut c, 4).await, acked(5));
}

#[tokio::test]
async fn c7_an_ack_of_an_older_epoch_is_fenced_and_moves_nothing() {
    let (bench, mut old) = with(3).await;
    let mut first = Reader::durable(&mut old, "s", "x").await;
    first.take(3).await;
    let mut new = bench.connect();
    let second = Reader::durable(&mut new, "s", "x").await;
    assert_eq!(second.epoch(), first.epoch() + 1);
    let error = refused(first.ack(&mut old, 2).await, Code::SessionFenced, "C-7");
    assert_eq!(detail(&error, "epoch"), second.epoch());
    assert_eq!(bench.subscription("s", "x").await.next, 0);
    let end = refused(Err::<(), _>(first.end().await), Code::SessionFenced, "C-7");
    assert_eq!(detail(&end, "epoch"), second.epoch());
}

#[tokio::test]
async fn c7_a_fence_is_checked_before_the_position() {
    let (bench, mut c) = with(3).await;
    let first = Reader::durable(&mut c, "s", "x").await;
    let _second = Reader::durable(&mut c, "s", "x").await;
    for offset in [0, 2, 3, 99, u64::MAX - 1] {
        refused(first.ack(&mut c, offset).await, Code::SessionFenced, "C-7");
    }
    assert_eq!(bench.subscription("s", "x").await.next, 0);
}

#[tokio::test]
async fn c8_an_epoch_the_broker_does_not_know_is_session_unknown() {
    let (bench, mut c) = with(3).await;
    let mut reader = Reader::durable(&mut c, "s", "x").await;
    reader.take(3).await;
    let future = CommitRequest { acks: vec![commit_ack("s", "x", reader.epoch() + 1, 0)], ..CommitRequest::default() };
    part_refused(answer(c.commit(future)).await, "acks", 0, Code::SessionUnknown);
    let own = reader.epoch();
    let bench = bench.crash().await;
    let mut c = bench.connect();
    let lost = CommitRequest { acks: vec![commit_ack("s", "x", own, 0)], ..CommitRequest::default() };
    part_refused(answer(c.commit(lost)).await, "acks", 0, Code::SessionUnknown);
    assert_eq!(bench.subscription("s", "x").await.next, 0);
}

#[tokio::test]
async fn c9_an_ack_beyond_the_end_is_refused() {
    let (bench, mut c) = with(3).await;
    let mut reader = Reader::durable(&mut c, "s", "x").await;
    reader.take(3).await;
    for offset in [3, 1000, u64::MAX - 1] {
        let error = refused(reader.ack(&mut c, offset).await, Code::AckBeyondEnd, "C-9");
        assert_eq!(detail(&error, "next_offset"), 3);
    }
    let error = reader.ack(&mut c, u64::MAX).await.expect_err("no event can have this offset");
    assert!(matches!(error.code, Code::AckBeyondEnd | Code::BadParameter), "{error:?}");
    assert_eq!(reader.ack(&mut c, 2).await, acked(3), "the session lives on");
    assert_eq!(bench.subscription("s", "x").await.next, 3);
}

#[tokio::test]
async fn c10_an_ack_of_what_was_never_delivered_here_is_refused_and_the_session_lives_on() {
    let bench = Bench::with_stream("s").await;
    bench.fill("s", 5).await;
    bench.subscribe_new_window("s", "x", 2).await;
    let mut c = bench.connect();
    let mut reader = Reader::durable(&mut c, "s", "x").await;
    let error = refused(reader.ack(&mut c, 0).await, Code::AckNotDelivered, "C-10");
    assert_eq!(detail(&error, "next_delivered"), 0);
    reader.take(2).await;
    for offset in [2, 4] {
        let error = refused(reader.ack(&mut c, offset).await, Code::AckNotDelivered, "C-10");
        assert_eq!(detail(&error, "next_delivered"), 2);
    }
    assert_eq!(reader.ack(&mut c, 1).await, acked(2));
    assert_eq!(reader.take(2).await[0].0, 2);
}

#[tokio::test]
async fn c11_an_ack_of_something_delivered_moves_the_cursor_durably() {
    let (bench, mut c) = with(3).await;
    let mut reader = Reader::durable(&mut c, "s", "x").await;
    reader.take(3).await;
    assert_eq!(reader.ack(&mut c, 0).await, acked(1));
    assert_eq!(reader.ack(&mut c, 2).await, acked(3), "an ack covers everything before it");
    assert_eq!(bench.subscription("s", "x").await.acked_offset(), Some(2));
    let bench = bench.crash().await;
    assert_eq!(bench.subscription("s", "x").await.next, 3);
}

#[tokio::test]
async fn c12_repeating_an_ack_is_fine() {
    let (_bench, mut c) = with(3).await;
    let mut reader = Reader::durable(&mut c, "s", "x").await;
    reader.take(3).await;
    assert_eq!(reader.ack(&mut c, 1).await, acked(2));
    assert_eq!(reader.ack(&mut c, 1).await, acked(2));
    assert_eq!(answer(c.ack(&reader.handle, 1, AckLevel::Received)).await, acked(2));
}

#[tokio::test]
async fn c13_a_late_ack_is_stale_and_never_moves_the_cursor_back() {
    let (bench, mut c) = with(4).await;
    let mut reader = Reader::durable(&mut c, "s", "x").await;
    reader.take(4).await;
    assert_eq!(reader.ack(&mut c, 2).await, acked(3));
    assert_eq!(reader.ack(&mut c, 0).await, acked_before(3));
    assert_eq!(reader.ack(&mut c, 1).await, acked_before(3));
    assert_eq!(answer(c.ack(&reader.handle, 0, AckLevel::Received)).await, acked_before(3));
    assert_eq!(bench.subscription("s", "x").await.next, 3);
    let bench = bench.crash().await;
    assert_eq!(bench.subscription("s", "x").await.next, 3);
}

#[tokio::test]
async fn c14_seek_moves_the_cursor_either_way_bumps_the_epoch_and_fences_the_session() {
    let (bench, mut c) = with(5).await;
    let mut reader = Reader::durable(&mut c, "s", "x").await;
    reader.take(5).await;
    assert_eq!(reader.ack(&mut c, 3).await, acked(4));
    let mut epoch = reader.epoch();
    for (to, next) in [(Start::Offset(1), 1), (Start::Latest, 5), (Start::Earliest, 0), (Start::Offset(5), 5), (Start::Offset(2), 2)] {
        let after = soon(bench.broker.seek(&OPERATOR, &name("s"), &sub("x"), to)).await.unwrap();
        assert_eq!((after.next, after.epoch), (next, epoch + 1), "{to:?}");
        epoch += 1;
    }
    let error = refused(reader.ack(&mut c, 4).await, Code::SessionFenced, "C-7");
    assert_eq!(detail(&error, "epoch"), epoch);
    refused(Err::<(), _>(reader.end().await), Code::SessionFenced, "C-14");
    refused(soon(bench.broker.seek(&OPERATOR, &name("s"), &sub("x"), Start::Offset(6))).await, Code::PositionBeyondEnd, "C-3");
    refused(soon(bench.broker.seek(&OPERATOR, &name("s"), &sub("none"), Start::Earliest)).await, Code::NotFound, "");
    let bench = bench.crash().await;
    let found = bench.subscription("s", "x").await;
    assert_eq!((found.next, found.epoch), (2, epoch));
    let mut c = bench.connect();
    let mut reader = Reader::durable(&mut c, "s", "x").await;
    assert_eq!(reader.take(3).await[0].0, 2);
}

#[tokio::test]
async fn c14_seek_to_a_time_finds_the_first_event_of_that_time_or_later() {
    let (bench, _c) = with(3).await;
    let time = |offset| {
        let broker = bench.broker.clone();
        async move { broker.event(&OPERATOR, &name("s"), Which::Offset(offset)).await.unwrap().batch().head.time }
    };
    let (first, last) = (time(0).await, time(2).await);
    let seek = |to| {
        let broker = bench.broker.clone();
        async move { broker.seek(&OPERATOR, &name("s"), &sub("x"), Start::Time(to)).await.unwrap().next }
    };
    assert_eq!(seek(TimeUs(last.0 + 1)).await, 3, "after the last: the end");
    assert_eq!(seek(TimeUs(0)).await, 0);
    assert_eq!(seek(first).await, 0);
    let mut expected = 2;
    while expected > 0 && time(expected - 1).await == last {
        expected -= 1;
    }
    assert_eq!(seek(last).await, expected);
}

#[tokio::test]
async fn c15_a_new_session_begins_with_nothing_delivered() {
    let (bench, mut c) = with(5).await;
    let mut first = Reader::durable(&mut c, "s", "x").await;
    first.take(5).await;
    assert_eq!(first.ack(&mut c, 1).await, acked(2));
    let mut again = bench.connect();
    let mut second = Reader::durable(&mut again, "s", "x").await;
    assert_eq!(second.opened.next, 2);
    let error = refused(second.ack(&mut again, 4).await, Code::AckNotDelivered, "C-10");
    assert_eq!(detail(&error, "next_delivered"), 2);
    drop(second);
    second = Reader::open(&mut again, SubscribeRequest { log_epoch: Some(1), ..at(Start::Offset(5)) }).await.unwrap();
    assert_eq!(second.opened.next, 5, "a client that went further opens at its own position");
    second.is_paused().await;
}

#[tokio::test]
async fn c16_a_received_ack_answers_before_any_sync_and_a_durable_one_after() {
    let (bench, mut c) = with(4).await;
    let mut reader = Reader::durable(&mut c, "s", "x").await;
    reader.take(4).await;
    bench.engine.stop();
    assert_eq!(answer(c.ack(&reader.handle, 1, AckLevel::Received)).await, acked(2), "only the memory is asked");
    let mut durable = Box::pin(c.ack(&reader.handle, 1, AckLevel::Durable).await);
    bench.engine.waiting().await;
    nothing_yet(&mut durable).await;
    bench.engine.go();
    assert_eq!(soon(durable).await, acked(2), "a durable ack of the same event waits for the disk");
    let bench = bench.crash().await;
    assert_eq!(bench.subscription("s", "x").await.next, 2);
}

#[tokio::test]
async fn c16_a_received_ack_does_not_wait_for_a_sync_that_is_running() {
    let (bench, mut c) = with(4).await;
    let mut reader = Reader::durable(&mut c, "s", "x").await;
    reader.take(4).await;
    bench.engine.stop();
    let mut append = Box::pin(bench.append(plain("s", &["e4"])));
    nothing_yet(&mut append).await;
    bench.engine.waiting().await;
    assert_eq!(answer(c.ack(&reader.handle, 1, AckLevel::Received)).await, acked(2));
    assert_eq!(answer(c.ack(&reader.handle, 2, AckLevel::Received)).await, acked(3), "nor does the one after it");
    bench.engine.go();
    assert_eq!(soon(append).await, stored(4, 1));
    assert_eq!(answer(c.ack(&reader.handle, 0, AckLevel::Durable)).await, acked_before(3), "C-13 counts from there");
    let bench = bench.crash().await;
    assert_eq!(bench.subscription("s", "x").await.next, 3);
}

#[tokio::test]
async fn c16_what_was_received_beside_a_running_sync_is_counted_by_a_takeover_and_refused_after_it() {
    let (bench, mut c) = with(4).await;
    let mut reader = Reader::durable(&mut c, "s", "x").await;
    reader.take(4).await;
    bench.engine.stop();
    let mut append = Box::pin(bench.append(plain("s", &["e4"])));
    nothing_yet(&mut append).await;
    bench.engine.waiting().await;
    assert_eq!(answer(c.ack(&reader.handle, 1, AckLevel::Received)).await, acked(2));
    let mut other = bench.connect();
    let opening = other.subscribe(attach("s", "x")).await;
    bench.engine.step(1).await;
    // The opening waits for its own sync now; it has counted the ack, and the old session's acks follow it in the order.
    bench.engine.waiting().await;
    let mut late = Box::pin(c.ack(&reader.handle, 2, AckLevel::Received).await);
    nothing_yet(&mut late).await;
    bench.engine.go();
    let (opened, _session) = soon(opening).await.unwrap();
    assert_eq!(opened.next, 2);
    refused(soon(late).await, Code::SessionFenced, "C-7");
}

#[tokio::test]
async fn c16_a_refused_opening_leaves_received_acks_as_they_were() {
    let (bench, mut c) = with(4).await;
    let mut reader = Reader::durable(&mut c, "s", "x").await;
    reader.take(4).await;
    let mut other = bench.connect();
    refused(try_attach(&mut other, at(Start::Offset(99))).await, Code::PositionBeyondEnd, "C-3");
    bench.engine.stop();
    let mut append = Box::pin(bench.append(plain("s", &["e4"])));
    nothing_yet(&mut append).await;
    bench.engine.waiting().await;
    assert_eq!(answer(c.ack(&reader.handle, 1, AckLevel::Received)).await, acked(2), "still from memory");
    bench.engine.refuse_next(EngineError::Full("a test".into()));
    bench.engine.go();
    refused(soon(append).await, Code::StorageFull, "");
    assert_eq!(answer(c.ack(&reader.handle, 0, AckLevel::Durable)).await, acked_before(2), "no refused commit takes it back");
}

#[tokio::test]
async fn c16_a_received_ack_is_on_disk_within_a_second_even_without_other_traffic() {
    let (bench, mut c) = with(4).await;
    let mut reader = Reader::durable(&mut c, "s", "x").await;
    reader.take(4).await;
    let before = tokio::time::Instant::now();
    assert_eq!(answer(c.ack(&reader.handle, 2, AckLevel::Received)).await, acked(3));
    loop {
        // What a crash at this moment would leave.
        let left = Bench::on(bench.memory.reopen(), roomy()).await;
        if left.subscription("s", "x").await.next == 3 {
            break;
        }
        assert!(before.elapsed() < std::time::Duration::from_secs(3), "not persisted after {:?}", before.elapsed());
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn c16_a_received_ack_is_persisted_with_the_next_commit() {
    let (bench, mut c) = with(4).await;
    let mut reader = Reader::durable(&mut c, "s", "x").await;
    reader.take(4).await;
    assert_eq!(answer(c.ack(&reader.handle, 1, AckLevel::Received)).await, acked(2));
    bench.put("s", &["e4"]).await;
    let bench = bench.crash().await;
    assert_eq!(bench.subscription("s", "x").await.next, 2);
}

#[tokio::test]
async fn c16_a_takeover_persists_received_acks_first_and_never_steps_back() {
    let (bench, mut c) = with(4).await;
    let mut reader = Reader::durable(&mut c, "s", "x").await;
    reader.take(4).await;
    assert_eq!(answer(c.ack(&reader.handle, 2, AckLevel::Received)).await, acked(3));
    let mut other = bench.connect();
    let next = Reader::durable(&mut other, "s", "x").await;
    assert_eq!(next.opened.next, 3);
    let bench = bench.crash().await;
    assert_eq!(bench.subscription("s", "x").await.next, 3, "durable with the opening");
}

#[tokio::test]
async fn c16_a_clean_stop_keeps_received_acks() {
    let (bench, mut c) = with(4).await;
    let mut reader = Reader::durable(&mut c, "s", "x").await;
    reader.take(4).await;
    assert_eq!(answer(c.ack(&reader.handle, 3, AckLevel::Received)).await, acked(4));
    let bench = bench.restart().await;
    assert_eq!(bench.subscription("s", "x").await.next, 4);
}

#[tokio::test]
async fn c16_after_a_crash_a_received_ack_may_be_lost_but_never_more_than_it() {
    let (bench, mut c) = with(4).await;
    let mut reader = Reader::durable(&mut c, "s", "x").await;
    reader.take(4).await;
    assert_eq!(reader.ack(&mut c, 0).await, acked(1));
    bench.engine.stop();
    assert_eq!(answer(c.ack(&reader.handle, 2, AckLevel::Received)).await, acked(3));
    let bench = bench.crash().await;
    assert_eq!(bench.subscription("s", "x").await.next, 1, "older, never beyond");
    let mut c = bench.connect();
    let mut reader = Reader::durable(&mut c, "s", "x").await;
    assert_eq!(reader.take(3).await[0].0, 1, "delivered again");
}

#[tokio::test]
async fn an_opening_is_a_barrier_for_acks_in_flight() {
    let (bench, mut old) = with(4).await;
    let mut first = Reader::durable(&mut old, "s", "x").await;
    first.take(4).await;
    let mut new = bench.connect();
    bench.engine.stop();
    let before = old.ack(&first.handle, 1, AckLevel::Durable).await;
    let opening = new.subscribe(attach("s", "x")).await;
    let after = old.ack(&first.handle, 3, AckLevel::Durable).await;
    bench.engine.waiting().await;
    let (mut before, mut opening) = (Box::pin(before), Box::pin(async move { soon(opening).await.map(|(opened, _)| opened) }));
    nothing_yet(&mut before).await;
    nothing_yet(&mut opening).await;
    bench.engine.go();
    assert_eq!(soon(before).await, acked(2));
    let opened = soon(opening).await.unwrap();
    assert_eq!((opened.next, opened.epoch), (2, Some(first.epoch() + 1)), "the ack accepted before is counted");
    let error = refused(soon(after).await, Code::SessionFenced, "C-7");
    assert_eq!(detail(&error, "epoch"), first.epoch() + 1);
    let bench = bench.crash().await;
    assert_eq!(bench.subscription("s", "x").await.next, 2);
}

#[tokio::test]
async fn an_opening_is_a_barrier_for_commits_in_flight() {
    let (bench, mut old) = with(4).await;
    bench.create("out").await;
    let tx = open_wide(&mut old, "tx").await;
    let mut first = Reader::durable(&mut old, "s", "x").await;
    first.take(4).await;
    let mut new = bench.connect();
    bench.engine.stop();
    let work = |seq, offset| CommitRequest {
        producer: Some(stamp("tx", tx, seq)),
        acks: vec![commit_ack("s", "x", first.epoch(), offset)],
        appends: vec![commit_append("out", &["effect"])],
        checks: vec![],
    };
    let before = old.commit(work(0, 1)).await;
    let opening = new.subscribe(attach("s", "x")).await;
    let after = old.commit(work(1, 3)).await;
    bench.engine.waiting().await;
    bench.engine.go();
    assert_eq!(soon(before).await.unwrap().acks[0].next, 2);
    let (opened, session) = soon(opening).await.unwrap();
    assert_eq!(opened.next, 2, "or the work would be done twice");
    part_refused(soon(after).await, "acks", 0, Code::SessionFenced);
    assert_eq!(bench.texts("out").await, ["effect"]);
    drop(session);
}

#[tokio::test]
async fn a_frozen_reader_finds_itself_fenced_on_its_first_ack() {
    let (bench, mut frozen) = with(3).await;
    let mut old = Reader::durable(&mut frozen, "s", "x").await;
    old.take(2 + 1).await;
    let mut c = bench.connect();
    let mut new = Reader::durable(&mut c, "s", "x").await;
    new.take(3).await;
    assert_eq!(new.ack(&mut c, 2).await, acked(3));
    drop(new);
    refused(old.ack(&mut frozen, 0).await, Code::SessionFenced, "C-7");
    refused(old.ack(&mut frozen, 2).await, Code::SessionFenced, "C-7");
    assert_eq!(bench.subscription("s", "x").await.next, 3);
}

#[tokio::test]
async fn a_detached_epoch_may_still_ack_and_commit() {
    let (bench, mut c) = with(4).await;
    bench.create("out").await;
    let mut reader = Reader::durable(&mut c, "s", "x").await;
    reader.take(4).await;
    let (handle, epoch) = (reader.handle.clone(), reader.epoch());
    drop(reader);
    assert_eq!(answer(c.ack(&handle, 1, AckLevel::Durable)).await, acked(2));
    let commit = CommitRequest { acks: vec![commit_ack("s", "x", epoch, 3)], appends: vec![commit_append("out", &["o"])], ..CommitRequest::default() };
    let done = answer(bench.connect().commit(commit)).await.unwrap();
    assert_eq!(done.acks[0].next, 4, "over another connection too: fencing is by epoch");
    assert!(!bench.subscription("s", "x").await.attached);
}

#[tokio::test]
async fn opening_a_subscription_that_does_not_exist_needs_create_and_create_is_idempotent() {
    let bench = Bench::with_stream("s").await;
    bench.fill("s", 2).await;
    let mut c = bench.connect();
    refused(try_attach(&mut c, attach("s", "x")).await, Code::NotFound, "");
    let create = SubscribeRequest { create: true, ..attach("s", "x") };
    let first = try_attach(&mut c, create.clone()).await.unwrap();
    assert_eq!(first.next, 0, "a durable subscription begins at earliest");
    let second = try_attach(&mut c, create.clone()).await.unwrap();
    assert_eq!(second.epoch, first.epoch.map(|e| e + 1));
    let latest = SubscribeRequest { create: true, from: Some(Start::Latest), ..attach("s", "y") };
    assert_eq!(try_attach(&mut c, latest).await.unwrap().next, 2);
    refused(try_attach(&mut c, SubscribeRequest { create: true, ..attach("none", "x") }).await, Code::NotFound, "");
    let replaced = SubscribeRequest { stream_id: Some(StreamId(77)), ..attach("s", "x") };
    refused(try_attach(&mut c, replaced).await, Code::StreamReplaced, "");
}
