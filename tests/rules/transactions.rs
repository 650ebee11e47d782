//! T-1 … T-7: acks and appends that happen together or not at all.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::support::*;

/// Streams `in` (with `count` events) and `out`, subscription `x` with everything delivered, broker-wide producer `tx`.
struct Work {
    bench: Bench,
    c: Connection,
    reader: Reader,
    tx: u64,
}

impl Work {
    async fn new(count: u64) -> Self {
        let bench = Bench::with_stream("in").await;
        bench.create("out").await;
        bench.fill("in", count).await;
        bench.subscribe_new("in", "x").await;
        let mut c = bench.connect();
        let tx = open_wide(&mut c, "tx").await;
        let mut reader = Reader::durable(&mut c, "in", "x").await;
        reader.take(count as usize).await;
        Self { bench, c, reader, tx }
    }

    fn ack(&self, offset: u64) -> CommitAck {
        commit_ack("in", "x", self.reader.epoch(), offset)
    }

    fn request(&self, seq: u64, offset: u64, texts: &[&str]) -> CommitRequest {
        CommitRequest { producer: Some(stamp("tx", self.tx, seq)), acks: vec![self.ack(offset)], appends: vec![commit_append("out", texts)], checks: vec![] }
    }

    async fn commit(&mut self, request: CommitRequest) -> Result<Committed> {
        answer(self.c.commit(request)).await
    }

    async fn cursor(&self) -> u64 {
        self.bench.subscription("in", "x").await.next
    }
}

fn committed(next: u64, out: (u64, u32)) -> Committed {
    Committed {
        acks: vec![CommittedAck { stream: name("in"), subscription: sub("x"), offset: next - 1, next }],
        appends: vec![CommittedAppend { stream: name("out"), first_offset: out.0, last_offset: out.0 + u64::from(out.1) - 1, count: out.1 }],
        duplicate: false,
    }
}

#[tokio::test]
async fn a_commit_acks_and_appends_at_once() {
    let mut w = Work::new(4).await;
    assert_eq!(w.commit(w.request(0, 1, &["o0", "o1"])).await, Ok(committed(2, (0, 2))));
    assert_eq!(w.commit(w.request(1, 3, &["o2"])).await, Ok(committed(4, (2, 1))));
    assert_eq!(w.cursor().await, 4);
    assert_eq!(w.bench.texts("out").await, ["o0", "o1", "o2"]);
    let bench = w.bench.crash().await;
    assert_eq!(bench.subscription("in", "x").await.next, 4);
    assert_eq!(bench.texts("out").await, ["o0", "o1", "o2"]);
}

#[tokio::test]
async fn t1_one_failing_part_fails_all_and_the_sequence_is_not_consumed() {
    let mut w = Work::new(4).await;
    w.bench.create("closed").await;
    w.bench.put("closed", &["z"]).await;
    w.bench.close("closed").await;
    let good = || vec![commit_append("out", &["o"])];
    let cases: Vec<(CommitRequest, &str, u64, Code)> = vec![
        (CommitRequest { appends: vec![commit_append("out", &["o"]), commit_append("none", &["o"])], ..w.request(0, 1, &["-"]) }, "appends", 1, Code::NotFound),
        (CommitRequest { appends: vec![commit_append("closed", &["o"])], ..w.request(0, 1, &["-"]) }, "appends", 0, Code::StreamClosed),
        (
            CommitRequest { appends: vec![CommitAppend { stream_id: Some(StreamId(99)), ..commit_append("out", &["o"]) }], ..w.request(0, 1, &["-"]) },
            "appends",
            0,
            Code::StreamReplaced,
        ),
        (
            CommitRequest {
                appends: vec![commit_append("in", &["o"]), CommitAppend { expected_next_offset: Some(5), ..commit_append("out", &["o"]) }],
                ..w.request(0, 1, &["-"])
            },
            "appends",
            1,
            Code::ConditionFailed,
        ),
        (CommitRequest { acks: vec![w.ack(1), commit_ack("in", "none", 1, 0)], appends: good(), ..w.request(0, 1, &["-"]) }, "acks", 1, Code::NotFound),
        (CommitRequest { acks: vec![commit_ack("none", "x", 1, 0)], appends: good(), ..w.request(0, 1, &["-"]) }, "acks", 0, Code::NotFound),
        (CommitRequest { acks: vec![commit_ack("in", "x", 77, 0)], appends: good(), ..w.request(0, 1, &["-"]) }, "acks", 0, Code::SessionUnknown),
        (CommitRequest { acks: vec![w.ack(4)], appends: good(), ..w.request(0, 1, &["-"]) }, "acks", 0, Code::AckBeyondEnd),
        (CommitRequest { checks: vec![commit_check("closed", 1), commit_check("closed", 2)], ..w.request(0, 1, &["o"]) }, "checks", 1, Code::ConditionFailed),
        (CommitRequest { checks: vec![commit_check("none", 0)], ..w.request(0, 1, &["o"]) }, "checks", 0, Code::NotFound),
    ];
    for (request, part, index, cause) in cases {
        part_refused(w.commit(request).await, part, index, cause);
    }
    assert_eq!((w.cursor().await, w.bench.next_offset("out").await, w.bench.next_offset("in").await), (0, 0, 4), "nothing was applied");
    assert_eq!(w.commit(w.request(0, 1, &["o"])).await, Ok(committed(2, (0, 1))), "seq 0 is still free");
}

#[tokio::test]
async fn t1_an_event_over_the_streams_limit_fails_the_commit() {
    let mut w = Work::new(2).await;
    soon(w.bench.broker.create_stream(&OPERATOR, NewStream { event_max_bytes: Some(3), ..NewStream::named(name("small")) })).await.unwrap();
    let request = CommitRequest { appends: vec![commit_append("out", &["o"]), commit_append("small", &["1234"])], ..w.request(0, 1, &["-"]) };
    part_refused(w.commit(request).await, "appends", 1, Code::TooLarge);
    assert_eq!((w.cursor().await, w.bench.next_offset("out").await), (0, 0));
}

#[tokio::test]
async fn t1_the_cause_carries_its_own_details() {
    let mut w = Work::new(2).await;
    w.bench.put("out", &["a"]).await;
    let request = CommitRequest { checks: vec![commit_check("out", 7)], appends: vec![], ..w.request(0, 1, &["-"]) };
    let error = part_refused(w.commit(request).await, "checks", 0, Code::ConditionFailed);
    assert_eq!(error.details["cause"]["details"]["next_offset"], 1, "{error:?}");
}

#[tokio::test]
async fn t2_resending_a_commit_answers_the_original_result() {
    let mut w = Work::new(4).await;
    let first = w.commit(w.request(0, 1, &["o"])).await.unwrap();
    assert_eq!(w.commit(w.request(1, 2, &["p"])).await, Ok(committed(3, (1, 1))));
    let again = w.commit(w.request(0, 1, &["o"])).await.unwrap();
    assert_eq!(again, Committed { duplicate: true, ..first });
    assert_eq!(w.bench.texts("out").await, ["o", "p"]);
    assert_eq!(w.cursor().await, 3);
}

#[tokio::test]
async fn t2_a_sequence_used_for_another_commit_is_refused() {
    let mut w = Work::new(4).await;
    let request = CommitRequest { checks: vec![commit_check("in", 4)], ..w.request(0, 1, &["o"]) };
    w.commit(request.clone()).await.unwrap();
    let others = [
        w.request(0, 1, &["o"]),
        CommitRequest { appends: vec![commit_append("out", &["O"])], ..request.clone() },
        CommitRequest { appends: vec![commit_append("in", &["o"])], ..request.clone() },
        CommitRequest { acks: vec![w.ack(2)], ..request.clone() },
        CommitRequest { acks: vec![], ..request.clone() },
        CommitRequest { appends: vec![CommitAppend { expected_next_offset: Some(0), ..commit_append("out", &["o"]) }], ..request.clone() },
    ];
    for other in others {
        refused(w.commit(other).await, Code::ProducerSeqReused, "P-5");
    }
    assert!(w.commit(request).await.unwrap().duplicate);
    assert_eq!(w.bench.texts("out").await, ["o"]);
}

#[tokio::test]
async fn t2_a_result_that_is_no_longer_kept_answers_duplicate_without_its_lists() {
    let mut w = Work::new(1).await;
    let append_only = |w: &Work, seq: u64| CommitRequest { acks: vec![], ..w.request(seq, 0, &["o"]) };
    for seq in 0..=limits::RECEIPT_RING {
        assert_eq!(w.commit(append_only(&w, seq)).await.unwrap().appends[0].first_offset, seq);
    }
    let evicted = w.commit(append_only(&w, 0)).await.unwrap();
    assert_eq!(evicted, Committed { acks: vec![], appends: vec![], duplicate: true });
    let kept = w.commit(append_only(&w, 1)).await.unwrap();
    assert_eq!((kept.duplicate, kept.appends[0].first_offset), (true, 1));
}

#[tokio::test]
async fn t2_a_resend_is_recognised_after_a_crash_although_its_session_is_gone() {
    let mut w = Work::new(4).await;
    let first = w.commit(w.request(0, 1, &["o"])).await.unwrap();
    let (resend, redo) = (w.request(0, 1, &["o"]), w.request(1, 2, &["p"]));
    let bench = w.bench.crash().await;
    let mut c = bench.connect();
    assert_eq!(answer(c.commit(resend)).await.unwrap(), Committed { duplicate: true, ..first });
    part_refused(answer(c.commit(redo)).await, "acks", 0, Code::SessionUnknown);
    let mut reader = Reader::durable(&mut c, "in", "x").await;
    assert_eq!(reader.opened.next, 2, "reopen, go back to the cursor, work again");
    reader.take(2).await;
    let again = CommitRequest {
        producer: Some(stamp("tx", w.tx, 1)),
        acks: vec![commit_ack("in", "x", reader.epoch(), 2)],
        appends: vec![commit_append("out", &["p"])],
        checks: vec![],
    };
    assert_eq!(answer(c.commit(again)).await, Ok(committed(3, (1, 1))));
}

#[tokio::test]
async fn t2_a_resend_matches_after_its_stream_is_gone() {
    let mut w = Work::new(2).await;
    let first = w.commit(w.request(0, 1, &["o"])).await.unwrap();
    w.bench.delete("out").await;
    w.bench.delete("in").await;
    let again = w.commit(w.request(0, 1, &["o"])).await.unwrap();
    assert_eq!(again, Committed { duplicate: true, ..first }, "it is looked up before names are resolved");
}

#[tokio::test]
async fn t2_a_resend_is_found_even_when_the_session_is_fenced_the_stream_closed_or_the_condition_false() {
    let mut w = Work::new(4).await;
    let request = CommitRequest { checks: vec![commit_check("in", 4)], ..w.request(0, 1, &["o"]) };
    let first = w.commit(request.clone()).await.unwrap();
    w.bench.close("out").await;
    w.bench.put("in", &["more"]).await;
    let _taken_over = Reader::durable(&mut w.c, "in", "x").await;
    assert_eq!(w.commit(request).await.unwrap(), Committed { duplicate: true, ..first });
}

#[tokio::test]
async fn the_producer_table_holds_for_commits() {
    let mut w = Work::new(4).await;
    let unknown = CommitRequest { producer: Some(stamp("nobody", 1, 0)), ..w.request(0, 1, &["o"]) };
    refused(w.commit(unknown).await, Code::ProducerUnknown, "P-1");
    let future = CommitRequest { producer: Some(stamp("tx", w.tx + 1, 0)), ..w.request(0, 1, &["o"]) };
    refused(w.commit(future).await, Code::ProducerUnknown, "P-3");
    let error = refused(w.commit(w.request(3, 1, &["o"])).await, Code::ProducerSeqGap, "P-8");
    assert_eq!(detail(&error, "expected"), 0);
    assert_eq!(w.commit(w.request(0, 1, &["o"])).await, Ok(committed(2, (0, 1))));
    let error = refused(w.commit(w.request(2, 2, &["o"])).await, Code::ProducerSeqGap, "P-8");
    assert_eq!(detail(&error, "expected"), 1);
    let newer = open_wide(&mut w.c, "tx").await;
    let error = refused(w.commit(w.request(1, 2, &["o"])).await, Code::ProducerFenced, "P-2");
    assert_eq!(detail(&error, "epoch"), newer);
    assert_eq!((w.cursor().await, w.bench.next_offset("out").await), (2, 1));
}

#[tokio::test]
async fn opening_a_commit_producer_tells_how_many_commits_were_done() {
    let mut w = Work::new(4).await;
    w.commit(w.request(0, 1, &["a", "b", "c"])).await.unwrap();
    w.commit(w.request(1, 2, &["d"])).await.unwrap();
    let opened = answer(w.c.open_producer(opening(None, "tx", Expect::Resume))).await.unwrap();
    assert_eq!((opened.last_seq, opened.origin, opened.epoch), (Some(1), Origin::Resumed, w.tx + 1), "its seq counts commits");
}

#[tokio::test]
async fn a_commit_without_a_producer_is_done_each_time() {
    let mut w = Work::new(4).await;
    let request = |offset| CommitRequest { producer: None, ..w.request(0, offset, &["o"]) };
    let (one, two, repeat) = (request(0), request(1), request(1));
    assert_eq!(w.commit(one).await, Ok(committed(1, (0, 1))));
    assert_eq!(w.commit(two).await, Ok(committed(2, (1, 1))));
    part_refused(w.commit(repeat).await, "acks", 0, Code::AckStale);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t3_who_sees_one_part_of_a_commit_finds_the_others() {
    let bench = Bench::with_stream("a").await;
    bench.create("b").await;
    let done = Arc::new(AtomicBool::new(false));
    let mut watchers = Vec::new();
    for (first, then) in [("a", "b"), ("b", "a")] {
        let (broker, done) = (bench.broker.clone(), done.clone());
        watchers.push(tokio::spawn(async move {
            let mut looks = 0;
            while !done.load(Ordering::SeqCst) {
                let seen = broker.stream(&OPERATOR, &name(first)).await.unwrap().next_offset;
                let other = broker.stream(&OPERATOR, &name(then)).await.unwrap().next_offset;
                assert!(other >= seen, "{first} was at {seen}, then {then} at {other}");
                looks += 1;
                tokio::task::yield_now().await;
            }
            looks
        }));
    }
    let mut c = bench.connect();
    for i in 0..300 {
        let text = format!("{i}");
        let request = CommitRequest { appends: vec![commit_append("a", &[&text]), commit_append("b", &[&text])], ..CommitRequest::default() };
        answer(c.commit(request)).await.unwrap();
    }
    done.store(true, Ordering::SeqCst);
    for watcher in watchers {
        assert!(soon(watcher).await.unwrap() > 0);
    }
    assert_eq!(bench.texts("a").await, bench.texts("b").await);
}

#[tokio::test]
async fn t3_nothing_of_a_commit_is_seen_before_it_is_durable() {
    let mut w = Work::new(4).await;
    w.bench.engine.stop();
    let mut pending = Box::pin(w.c.commit(w.request(0, 3, &["o"])).await);
    w.bench.engine.waiting().await;
    nothing_yet(&mut pending).await;
    assert_eq!((w.cursor().await, w.bench.next_offset("out").await), (0, 0));
    w.bench.engine.go();
    assert_eq!(soon(pending).await, Ok(committed(4, (0, 1))));
}

#[tokio::test]
async fn t4_after_an_unknown_outcome_the_same_commit_settles_it_either_way() {
    for (fault, duplicate) in [(Fault::BeforeWrite, false), (Fault::AfterWrite, true)] {
        let mut w = Work::new(4).await;
        w.bench.memory.fail_commits(fault);
        refused(w.commit(w.request(0, 1, &["o"])).await, Code::OutcomeUnknown, "");
        let resend = w.request(0, 1, &["o"]);
        let bench = w.bench.crash().await;
        let mut c = bench.connect();
        let settled = answer(c.commit(resend)).await;
        if duplicate {
            assert_eq!(settled, Ok(Committed { duplicate: true, ..committed(2, (0, 1)) }));
        } else {
            part_refused(settled, "acks", 0, Code::SessionUnknown);
        }
        let cursor = bench.subscription("in", "x").await.next;
        assert_eq!((cursor, bench.next_offset("out").await), if duplicate { (2, 1) } else { (0, 0) }, "all or none ({fault:?})");
    }
}

#[tokio::test]
async fn t5_an_ack_without_progress_fails_the_commit() {
    let mut w = Work::new(4).await;
    w.commit(w.request(0, 2, &["o"])).await.unwrap();
    for offset in [0, 1, 2] {
        part_refused(w.commit(w.request(1, offset, &["twice"])).await, "acks", 0, Code::AckStale);
    }
    assert_eq!(w.bench.texts("out").await, ["o"], "the inputs were consumed before");
    assert_eq!(w.commit(w.request(1, 3, &["p"])).await, Ok(committed(4, (1, 1))));
}

#[tokio::test]
async fn t5_acks_inside_a_commit_obey_the_table() {
    let bench = Bench::with_stream("in").await;
    bench.create("out").await;
    bench.fill("in", 5).await;
    bench.subscribe_new_window("in", "x", 2).await;
    let mut c = bench.connect();
    let mut old = Reader::durable(&mut c, "in", "x").await;
    old.take(2).await;
    let with = |epoch, offset| CommitRequest {
        acks: vec![commit_ack("in", "x", epoch, offset)],
        appends: vec![commit_append("out", &["o"])],
        ..CommitRequest::default()
    };
    let error = part_refused(answer(c.commit(with(old.epoch(), 3))).await, "acks", 0, Code::AckNotDelivered);
    assert_eq!(error.details["cause"]["details"]["next_delivered"], 2, "{error:?}");
    part_refused(answer(c.commit(with(old.epoch(), 5))).await, "acks", 0, Code::AckBeyondEnd);
    part_refused(answer(c.commit(with(old.epoch(), u64::MAX - 1))).await, "acks", 0, Code::AckBeyondEnd);
    let new = Reader::durable(&mut c, "in", "x").await;
    let error = part_refused(answer(c.commit(with(old.epoch(), 1))).await, "acks", 0, Code::SessionFenced);
    assert_eq!(error.details["cause"]["details"]["epoch"], new.epoch(), "{error:?}");
    part_refused(answer(c.commit(with(new.epoch(), 1))).await, "acks", 0, Code::AckNotDelivered);
    assert_eq!(bench.next_offset("out").await, 0);
}

#[tokio::test]
async fn t6_a_commit_over_its_limits_is_refused_whole() {
    let mut w = Work::new(2).await;
    let plenty: Vec<_> = (0..=limits::COMMIT_ACKS).map(|i| commit_ack("in", &format!("x{i}"), 1, 0)).collect();
    refused(w.commit(CommitRequest { acks: plenty, ..CommitRequest::default() }).await, Code::TxnTooLarge, "T-6");
    for i in 0..=limits::COMMIT_STREAMS {
        w.bench.create(&format!("s{i}")).await;
    }
    let appends = |count: usize| (0..count).map(|i| commit_append(&format!("s{i}"), &["o"])).collect::<Vec<_>>();
    refused(w.commit(CommitRequest { appends: appends(limits::COMMIT_STREAMS + 1), ..CommitRequest::default() }).await, Code::TxnTooLarge, "T-6");
    let done = w.commit(CommitRequest { appends: appends(limits::COMMIT_STREAMS), ..CommitRequest::default() }).await.unwrap();
    assert_eq!(done.appends.len(), limits::COMMIT_STREAMS, "the limit itself is allowed");
    assert_eq!(w.bench.next_offset("s0").await, 1);
}

#[tokio::test]
async fn t6_the_bytes_of_all_parts_are_counted_together() {
    let mut w = Work::new(2).await;
    let part = |bytes: usize| CommitAppend { events: big(1, bytes), ..commit_append("out", &["-"]) };
    let mib = 1024 * 1024;
    let over = CommitRequest { appends: vec![part(mib), part(mib), part(mib), part(mib)], ..w.request(0, 1, &["-"]) };
    refused(w.commit(over).await, Code::TxnTooLarge, "T-6");
    assert_eq!((w.cursor().await, w.bench.next_offset("out").await), (0, 0));
    let under = CommitRequest { appends: vec![part(mib), part(mib), part(mib), part(mib - 100)], ..w.request(0, 1, &["-"]) };
    w.commit(under).await.unwrap();
    assert_eq!(w.bench.next_offset("out").await, 4);
}

#[tokio::test]
async fn t7_checks_are_conditions_on_streams_that_are_not_written() {
    let mut w = Work::new(4).await;
    w.bench.create("config").await;
    w.bench.put("config", &["v1"]).await;
    let checked = |w: &Work, seq, offset, next| CommitRequest { checks: vec![commit_check("config", next)], ..w.request(seq, offset, &["o"]) };
    assert_eq!(w.commit(checked(&w, 0, 0, 1)).await, Ok(committed(1, (0, 1))));
    w.bench.put("config", &["v2"]).await;
    part_refused(w.commit(checked(&w, 1, 1, 1)).await, "checks", 0, Code::ConditionFailed);
    assert_eq!(w.cursor().await, 1);
    assert_eq!(w.commit(checked(&w, 1, 1, 2)).await, Ok(committed(2, (1, 1))));
}

#[tokio::test]
async fn a_commit_may_append_to_one_stream_several_times_and_to_its_own_input() {
    let mut w = Work::new(2).await;
    let request = CommitRequest {
        appends: vec![commit_append("out", &["a", "b"]), commit_append("in", &["again"]), commit_append("out", &["c"])],
        ..w.request(0, 1, &["-"])
    };
    let done = w.commit(request).await.unwrap();
    let places: Vec<_> = done.appends.iter().map(|a| (a.stream.as_str(), a.first_offset, a.last_offset, a.count)).collect();
    assert_eq!(places, [("out", 0, 1, 2), ("in", 2, 2, 1), ("out", 2, 2, 1)]);
    assert_eq!(w.bench.texts("out").await, ["a", "b", "c"]);
    assert_eq!(w.reader.take(1).await, [(2, "again".into())]);
}

#[tokio::test]
async fn a_commit_may_ack_several_subscriptions() {
    let mut w = Work::new(3).await;
    w.bench.create("in2").await;
    w.bench.fill("in2", 2).await;
    w.bench.subscribe_new("in2", "y").await;
    let mut second = Reader::durable(&mut w.c, "in2", "y").await;
    second.take(2).await;
    let request = CommitRequest { acks: vec![w.ack(2), commit_ack("in2", "y", second.epoch(), 0)], ..CommitRequest::default() };
    let done = w.commit(request).await.unwrap();
    assert_eq!(done.acks.iter().map(|a| a.next).collect::<Vec<_>>(), [3, 1]);
    assert_eq!((w.cursor().await, w.bench.subscription("in2", "y").await.next), (3, 1));
}

#[tokio::test]
async fn commits_and_appends_of_one_connection_take_effect_in_order() {
    let mut w = Work::new(4).await;
    let mut pending = Vec::new();
    for i in 0..20u64 {
        let commit = CommitRequest { acks: vec![], ..w.request(i, 0, &[&format!("c{i}")]) };
        pending.push(soon(w.c.commit(commit)).await);
        drop(soon(w.c.append(plain("out", &[&format!("a{i}")]))).await);
    }
    for (i, pending) in pending.into_iter().enumerate() {
        assert_eq!(soon(pending).await.unwrap().appends[0].first_offset, i as u64 * 2);
    }
    w.bench.put("out", &["end"]).await;
    let texts = w.bench.texts("out").await;
    let expected: Vec<_> = (0..20).flat_map(|i| [format!("c{i}"), format!("a{i}")]).chain(["end".into()]).collect();
    assert_eq!(texts, expected);
}

#[tokio::test]
async fn k3_read_work_write_through_crashes_leaves_every_effect_exactly_once() {
    let inputs = 60u64;
    let mut bench = Bench::with_stream("in").await;
    bench.create("out").await;
    bench.fill("in", inputs).await;
    bench.subscribe_new("in", "x").await;
    let mut crashes = 0;
    loop {
        let mut c = bench.connect();
        let opened = answer(c.open_producer(opening(None, "tx", Expect::Any))).await.unwrap();
        let mut seq = opened.last_seq.map_or(0, |l| l + 1);
        let mut reader = Reader::durable(&mut c, "in", "x").await;
        if reader.opened.next == inputs {
            break;
        }
        let mut lost = Vec::new();
        for _ in 0..5 {
            if reader.at == inputs {
                break;
            }
            let Delivery::Events { slices, .. } = reader.next_but_live().await.unwrap() else { panic!("events") };
            for (offset, text) in slices.iter().flat_map(texts_of).take(4) {
                let request = CommitRequest {
                    producer: Some(stamp("tx", opened.epoch, seq)),
                    acks: vec![commit_ack("in", "x", reader.epoch(), offset)],
                    appends: vec![commit_append("out", &[&format!("done {text}")])],
                    checks: vec![],
                };
                lost.push(soon(c.commit(request)).await);
                seq += 1;
            }
            break;
        }
        // Half of the answers are never seen, then the process dies.
        let half = lost.len() / 2;
        for pending in lost.into_iter().take(half) {
            soon(pending).await.unwrap();
        }
        crashes += 1;
        bench = bench.crash().await;
    }
    assert!(crashes > 3, "{crashes}");
    assert_eq!(bench.texts("out").await, (0..inputs).map(|i| format!("done e{i}")).collect::<Vec<_>>());
}
