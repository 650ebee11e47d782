//! Pulling and acknowledging by token: C-18, and how a pulled session meets the rules that pushed ones meet.

use std::time::Duration;

use crate::support::*;

/// The stream `s` with `count` events and the durable subscription `x`.
async fn with(count: u64) -> Bench {
    let bench = Bench::with_stream("s").await;
    bench.fill("s", count).await;
    bench.subscribe_new("s", "x").await;
    bench
}

async fn pull(bench: &Bench, request: PullRequest) -> Result<Pulled> {
    soon(bench.broker.pull(&OPERATOR, request)).await
}

async fn ack(bench: &Bench, epoch: u64, offset: u64) -> Result<Acked> {
    let request = AckRequest { stream: name("s"), subscription: sub("x"), epoch, offset, level: AckLevel::Durable };
    soon(bench.broker.ack(&OPERATOR, request)).await
}

async fn ack_token(bench: &Bench, token: &str, offset: Option<u64>) -> Result<Acked> {
    soon(bench.broker.ack_by_token(&OPERATOR, &name("s"), &sub("x"), token, offset, AckLevel::Durable)).await
}

fn offsets(pulled: &Pulled) -> Vec<u64> {
    pulled.slices.iter().flat_map(texts_of).map(|(offset, _)| offset).collect()
}

fn token(pulled: &Pulled) -> &str {
    pulled.ack_token.as_deref().expect("something was handed out")
}

#[tokio::test]
async fn c18_a_pull_hands_out_a_run_and_its_token_acknowledges_it() {
    let bench = with(5).await;
    let pulled = pull(&bench, PullRequest { max_events: 3, ..pulling("s", "x") }).await.unwrap();
    assert_eq!((pulled.epoch, offsets(&pulled), pulled.next), (1, vec![0, 1, 2], 3));
    assert_eq!((pulled.lag.events, pulled.lag.bytes), (2, 4));
    assert_eq!(ack_token(&bench, token(&pulled), None).await, acked(3));
    assert_eq!(bench.subscription("s", "x").await.next, 3);
    let rest = pull(&bench, PullRequest { epoch: Some(1), ..pulling("s", "x") }).await.unwrap();
    assert_eq!((rest.epoch, offsets(&rest), rest.lag.events), (1, vec![3, 4], 0));
    assert_eq!(ack_token(&bench, token(&rest), Some(3)).await, acked(4), "a part of it");
    assert_eq!(ack_token(&bench, token(&rest), None).await, acked(5));
    assert_eq!(ack_token(&bench, token(&rest), Some(3)).await, acked_before(5), "C-13");
}

#[tokio::test]
async fn c18_a_token_is_good_for_its_own_run_only() {
    let bench = with(5).await;
    let first = pull(&bench, PullRequest { max_events: 2, ..pulling("s", "x") }).await.unwrap();
    let second = pull(&bench, PullRequest { epoch: Some(1), from: Some(Start::Offset(2)), ..pulling("s", "x") }).await.unwrap();
    assert_eq!(offsets(&second), [2, 3, 4]);
    for (pulled, outside) in [(&first, 2), (&second, 1), (&second, 5)] {
        refused(ack_token(&bench, token(pulled), Some(outside)).await, Code::BadParameter, "C-18");
    }
    assert_eq!(bench.subscription("s", "x").await.next, 0);
    assert_eq!(ack_token(&bench, token(&second), None).await, acked(5), "an ack covers all earlier offsets");
}

#[tokio::test]
async fn c18_a_forged_or_foreign_token_is_refused() {
    let bench = with(3).await;
    bench.subscribe_new("s", "y").await;
    let pulled = pull(&bench, pulling("s", "y")).await.unwrap();
    refused(ack_token(&bench, token(&pulled), None).await, Code::BadAckToken, "C-18");
    refused(ack_token(&bench, "AAAA", None).await, Code::BadAckToken, "C-18");
    assert_eq!(bench.subscription("s", "x").await.next, 0);
}

#[tokio::test]
async fn c18_a_token_survives_a_restart_and_an_epoch_alone_does_not() {
    let bench = with(5).await;
    let pulled = pull(&bench, PullRequest { max_events: 3, ..pulling("s", "x") }).await.unwrap();
    let bench = bench.crash().await;
    refused(ack(&bench, 1, 2).await, Code::SessionUnknown, "C-8");
    refused(pull(&bench, PullRequest { epoch: Some(1), ..pulling("s", "x") }).await, Code::SessionUnknown, "C-8");
    assert_eq!(ack_token(&bench, token(&pulled), None).await, acked(3));
    assert_eq!(offsets(&pull(&bench, pulling("s", "x")).await.unwrap()), [3, 4], "a new session goes on at the cursor");
    refused(ack_token(&bench, token(&pulled), None).await, Code::SessionFenced, "C-7");
}

#[tokio::test]
async fn c18_a_token_expires_after_the_ack_timeout() {
    let bench = with(3).await;
    let brief = NewSubscription { ack_timeout_s: Some(1), ..new_subscription("brief") };
    soon(bench.broker.create_subscription(&OPERATOR, &name("s"), brief)).await.unwrap();
    let pulled = pull(&bench, pulling("s", "brief")).await.unwrap();
    let attempt = async || soon(bench.broker.ack_by_token(&OPERATOR, &name("s"), &sub("brief"), token(&pulled), Some(0), AckLevel::Durable)).await;
    assert_eq!(attempt().await, acked(1));
    // The clock of S-9 cannot be moved from outside: the test waits for the effect, which has to come.
    let late = soon(async {
        loop {
            if let Err(error) = attempt().await {
                return error;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    refused::<()>(Err(late.await), Code::BadAckToken, "C-18");
}

#[tokio::test]
async fn a_lost_answer_skips_nothing() {
    let bench = with(4).await;
    let first = pull(&bench, PullRequest { max_events: 2, ..pulling("s", "x") }).await.unwrap();
    assert_eq!(offsets(&first), [0, 1]);
    let again = pull(&bench, PullRequest { epoch: Some(1), ..pulling("s", "x") }).await.unwrap();
    assert_eq!(offsets(&again), [0, 1, 2, 3], "each pull begins at the cursor");
}

#[tokio::test]
async fn a_pull_goes_on_between_the_cursor_and_what_was_delivered() {
    let bench = with(6).await;
    let first = pull(&bench, PullRequest { max_events: 4, ..pulling("s", "x") }).await.unwrap();
    ack(&bench, first.epoch, 1).await.unwrap();
    let at = |from| PullRequest { epoch: Some(1), from: Some(Start::Offset(from)), max_events: 1, ..pulling("s", "x") };
    assert_eq!(offsets(&pull(&bench, at(2)).await.unwrap()), [2]);
    assert_eq!(offsets(&pull(&bench, at(4)).await.unwrap()), [4]);
    for outside in [1, 6] {
        let error = refused(pull(&bench, at(outside)).await, Code::BadParameter, "");
        assert_eq!((detail(&error, "next"), detail(&error, "next_delivered")), (2, 5));
    }
    let words = PullRequest { epoch: Some(1), from: Some(Start::Earliest), ..pulling("s", "x") };
    refused(pull(&bench, words).await, Code::BadParameter, "");
}

#[tokio::test]
async fn c7_a_pull_fences_a_pushed_session_and_the_other_way_round() {
    let bench = with(3).await;
    let mut c = bench.connect();
    let mut pushed = Reader::durable(&mut c, "s", "x").await;
    pushed.take(3).await;
    let pulled = pull(&bench, pulling("s", "x")).await.unwrap();
    assert_eq!(pulled.epoch, 2);
    refused::<()>(Err(pushed.end().await), Code::SessionFenced, "C-7");
    refused(ack(&bench, 1, 2).await, Code::SessionFenced, "C-7");
    let _next = Reader::durable(&mut c, "s", "x").await;
    refused(ack_token(&bench, token(&pulled), None).await, Code::SessionFenced, "C-7");
    refused(pull(&bench, PullRequest { epoch: Some(2), ..pulling("s", "x") }).await, Code::SessionFenced, "C-7");
}

#[tokio::test]
async fn c1_a_pulled_session_is_left_alone_by_reject_between_two_calls() {
    let bench = with(3).await;
    assert!(!bench.subscription("s", "x").await.attached);
    pull(&bench, pulling("s", "x")).await.unwrap();
    assert!(bench.subscription("s", "x").await.attached, "and it is shown as what it is");
    let polite = PullRequest { takeover: Takeover::Reject, ..pulling("s", "x") };
    refused(pull(&bench, polite).await, Code::CursorBusy, "C-1");
    assert_eq!(pull(&bench, PullRequest { epoch: Some(1), ..pulling("s", "x") }).await.unwrap().epoch, 1);
}

#[tokio::test]
async fn c10_an_epoch_acknowledges_over_any_carrier_what_any_carrier_delivered() {
    let bench = with(6).await;
    let mut c = bench.connect();
    let mut pushed = Reader::open(&mut c, SubscribeRequest { credit: Some(Credit { events: 2, bytes: 1000 }), ..attach("s", "x") }).await.unwrap();
    pushed.take(2).await;
    refused(ack(&bench, 1, 2).await, Code::AckNotDelivered, "C-10");
    let pulled = pull(&bench, PullRequest { epoch: Some(1), max_events: 4, ..pulling("s", "x") }).await.unwrap();
    assert_eq!(offsets(&pulled), [0, 1, 2, 3]);
    assert_eq!(ack(&bench, 1, 3).await, acked(4), "the pull delivered it to this session");
    pushed.take(2).await;
    assert_eq!(ack(&bench, 1, 2).await, acked_before(4));
}

#[tokio::test]
async fn c20_a_pull_hands_out_no_more_than_the_window_and_an_ack_lets_more_through() {
    let bench = Bench::with_stream("s").await;
    bench.fill("s", 10).await;
    bench.subscribe_new_window("s", "x", 3).await;
    assert_eq!(offsets(&pull(&bench, pulling("s", "x")).await.unwrap()), [0, 1, 2]);
    let on = |from| PullRequest { epoch: Some(1), from: Some(Start::Offset(from)), ..pulling("s", "x") };
    let full = pull(&bench, on(3)).await.unwrap();
    assert_eq!((offsets(&full), full.next, full.ack_token.clone(), full.lag.events), (vec![], 3, None, 7));
    let waiting = pull(&bench, PullRequest { wait: Duration::from_secs(10), ..on(3) });
    tokio::pin!(waiting);
    nothing_yet(&mut waiting).await;
    ack(&bench, 1, 1).await.unwrap();
    assert_eq!(offsets(&waiting.await.unwrap()), [3, 4]);
}

#[tokio::test]
async fn a_pull_keeps_to_its_bytes_but_for_its_first_event() {
    let bench = Bench::with_stream("s").await;
    for _ in 0..3 {
        bench.append(AppendRequest { events: big(1, 600), ..plain("s", &["-"]) }).await.unwrap();
    }
    bench.subscribe_new("s", "x").await;
    let within = |max_bytes| PullRequest { max_bytes, ..pulling("s", "x") };
    assert_eq!(offsets(&pull(&bench, within(1000)).await.unwrap()), [0], "a second one would be over");
    assert_eq!(offsets(&pull(&bench, within(1400)).await.unwrap()), [0, 1]);
    assert_eq!(offsets(&pull(&bench, within(1)).await.unwrap()), [0], "one passes whatever its size");
}

#[tokio::test]
async fn a_pull_waits_for_the_first_event_and_no_longer_than_asked() {
    let bench = with(0).await;
    let empty = pull(&bench, pulling("s", "x")).await.unwrap();
    assert_eq!((offsets(&empty), empty.next, empty.ack_token), (vec![], 0, None));
    let waiting = pull(&bench, PullRequest { epoch: Some(1), wait: Duration::from_secs(10), ..pulling("s", "x") });
    tokio::pin!(waiting);
    nothing_yet(&mut waiting).await;
    bench.put("s", &["a"]).await;
    assert_eq!(offsets(&waiting.await.unwrap()), [0]);
}

#[tokio::test]
async fn a_waiting_pull_hears_that_it_was_fenced_that_its_stream_is_gone_or_that_the_broker_stops() {
    let bench = with(0).await;
    let long = || PullRequest { wait: Duration::from_secs(10), ..pulling("s", "x") };
    let first = pull(&bench, long());
    tokio::pin!(first);
    nothing_yet(&mut first).await;
    let second = pull(&bench, long());
    tokio::pin!(second);
    nothing_yet(&mut second).await;
    refused(first.await, Code::SessionFenced, "C-7");
    bench.delete("s").await;
    refused(second.await, Code::NotFound, "");

    let bench = with(0).await;
    let waiting = pull(&bench, long());
    tokio::pin!(waiting);
    nothing_yet(&mut waiting).await;
    bench.broker.drain().await;
    assert_eq!(offsets(&waiting.await.unwrap()), [0; 0]);
}

#[tokio::test]
async fn c6_a_pull_below_the_beginning_fails_or_tells_the_gap() {
    let bench = with(5).await;
    bench.trim("s", 3).await;
    let error = refused(pull(&bench, pulling("s", "x")).await, Code::CursorTrimmed, "C-6");
    assert_eq!((detail(&error, "next"), detail(&error, "first_offset")), (0, 3));
    let pulled = pull(&bench, PullRequest { on_gap: Some(OnGap::Skip), max_events: 1, ..pulling("s", "x") }).await.unwrap();
    assert_eq!((pulled.gap, offsets(&pulled), pulled.next), (Some((0, 2, GapReason::Retention)), vec![3], 4));
    assert_eq!(ack_token(&bench, token(&pulled), Some(2)).await, acked(3), "the end of a gap may be acknowledged");
    assert_eq!(ack_token(&bench, token(&pulled), None).await, acked(4));
}

#[tokio::test]
async fn c4_c5_a_pull_may_open_ahead_of_the_cursor_and_not_behind_it() {
    let bench = with(5).await;
    let ahead = pull(&bench, PullRequest { from: Some(Start::Offset(2)), ..pulling("s", "x") }).await.unwrap();
    assert_eq!(offsets(&ahead), [2, 3, 4]);
    refused(pull(&bench, PullRequest { from: Some(Start::Offset(1)), ..pulling("s", "x") }).await, Code::CursorAhead, "C-4");
    refused(pull(&bench, PullRequest { from: Some(Start::Offset(6)), ..pulling("s", "x") }).await, Code::PositionBeyondEnd, "C-3");
    refused(pull(&bench, PullRequest { log_epoch: Some(9), ..pulling("s", "x") }).await, Code::LogEpochChanged, "C-2");
    let missing = pull(&bench, pulling("s", "missing")).await.unwrap_err();
    assert_eq!(
        (missing.code, &missing.details["hint"]),
        (Code::NotFound, &"create the subscription first, or subscribe with create".into()),
        "a pull has no `create` to set"
    );
}

#[tokio::test]
async fn a_pull_of_nothing_creates_nothing_where_streams_are_created_on_use() {
    let bench = Bench::with(Settings { create_streams_on_use: true, ..roomy() }).await;
    refused(pull(&bench, pulling("s", "x")).await, Code::NotFound, "");
    refused(soon(bench.broker.stream(&OPERATOR, &name("s"))).await, Code::NotFound, "");
}

#[tokio::test]
async fn a_caller_that_leaves_while_its_session_opens_leaves_nobody_attached() {
    let bench = with(3).await;
    bench.engine.stop();
    let opening = async { bench.broker.open_session(&OPERATOR, attach("s", "x")).await.map(|(opened, _)| opened) };
    let mut opening = Box::pin(opening);
    nothing_yet(&mut opening).await;
    drop(opening);
    bench.engine.go();
    let mut c = bench.connect();
    let polite = SubscribeRequest { takeover: Takeover::Reject, ..attach("s", "x") };
    let opened = Reader::open(&mut c, polite).await.expect("nobody holds the session that nobody came for");
    assert_eq!(opened.epoch(), 2);
}
