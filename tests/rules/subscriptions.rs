//! Subscriptions as objects: defaults, lists, lag, deletion.

use std::time::Duration;

use crate::support::*;

async fn list(bench: &Bench, after: Option<&str>, limit: Option<usize>) -> (Vec<String>, bool) {
    let query = ListQuery { after: after.map(str::to_owned), limit, filter: None };
    let page = soon(bench.broker.subscriptions(&OPERATOR, &name("s"), query)).await.unwrap();
    (page.items.into_iter().map(|s| s.name.as_str().to_owned()).collect(), page.more)
}

#[tokio::test]
async fn a_new_subscription_begins_at_the_earliest_event_with_the_defaults() {
    let bench = Bench::with_stream("s").await;
    bench.fill("s", 5).await;
    bench.trim("s", 2).await;
    let x = bench.subscribe_new("s", "x").await;
    assert_eq!((x.name.as_str(), x.stream.as_str()), ("x", "s"));
    assert_eq!((x.ack_timeout_s, x.max_in_flight, x.expires_s), (30, 1000, 2_592_000));
    assert_eq!((x.next, x.acked_offset(), x.epoch, x.attached), (2, Some(1), 0, false));
    assert_eq!((x.lag.events, x.lag.bytes), (3, 6));
    let y = bench.subscribe_new("s", "y").await;
    assert!(y.id > x.id);
    let found = bench.subscription("s", "x").await;
    assert_eq!(SubscriptionInfo { lag: x.lag, ..found }, x);
}

#[tokio::test]
async fn a_subscription_may_begin_anywhere_but_beyond_the_end() {
    let bench = Bench::with_stream("s").await;
    let empty = bench.subscribe_new("s", "empty").await;
    assert_eq!((empty.next, empty.acked_offset()), (0, None), "nothing done yet is null");
    bench.fill("s", 4).await;
    let create = |subscription: &'static str, start| {
        let broker = bench.broker.clone();
        async move { soon(broker.create_subscription(&OPERATOR, &name("s"), NewSubscription { start, ..new_subscription(subscription) })).await }
    };
    for (subscription, start, next) in [
        ("a", Start::Earliest, 0),
        ("b", Start::Latest, 4),
        ("c", Start::Offset(3), 3),
        ("d", Start::Offset(4), 4),
        ("e", Start::Time(TimeUs(0)), 0),
        ("f", Start::Time(TimeUs(i64::MAX)), 4),
    ] {
        assert_eq!(create(subscription, start).await.unwrap().next, next, "{start:?}");
    }
    let error = refused(create("g", Start::Offset(5)).await, Code::PositionBeyondEnd, "C-3");
    assert_eq!(detail(&error, "next_offset"), 4);
    refused(soon(bench.broker.subscription(&OPERATOR, &name("s"), &sub("g"))).await, Code::NotFound, "");
}

#[tokio::test]
async fn what_a_subscription_was_asked_to_be_is_kept() {
    let bench = Bench::with_stream("s").await;
    let new = NewSubscription { ack_timeout_s: Some(7), max_in_flight: Some(3), expires_s: Some(90_000), ..new_subscription("x") };
    soon(bench.broker.create_subscription(&OPERATOR, &name("s"), new)).await.unwrap();
    let bench = bench.crash().await;
    let x = bench.subscription("s", "x").await;
    assert_eq!((x.ack_timeout_s, x.max_in_flight, x.expires_s), (7, 3, 90_000));
}

#[tokio::test]
async fn a_name_in_use_is_taken_also_in_other_letters_but_each_stream_has_its_own() {
    let bench = Bench::with_stream("s").await;
    bench.create("t").await;
    bench.subscribe_new("s", "Billing").await;
    for taken in ["Billing", "billing"] {
        refused(soon(bench.broker.create_subscription(&OPERATOR, &name("s"), new_subscription(taken))).await, Code::NameTaken, "");
    }
    bench.subscribe_new("t", "billing").await;
}

#[tokio::test]
async fn lists_are_sorted_by_name_and_paged() {
    let bench = Bench::with_stream("s").await;
    bench.create("other").await;
    bench.subscribe_new("other", "not-here").await;
    for subscription in ["b", "a", "longer", "aa"] {
        bench.subscribe_new("s", subscription).await;
    }
    assert_eq!(list(&bench, None, None).await, (["a", "aa", "b", "longer"].map(str::to_owned).to_vec(), false));
    assert_eq!(list(&bench, Some("a"), Some(2)).await, (vec!["aa".into(), "b".into()], true));
    assert_eq!(list(&bench, Some("b"), Some(2)).await, (vec!["longer".into()], false));
}

#[tokio::test]
async fn lag_counts_events_bytes_and_seconds_from_the_cursor() {
    let bench = Bench::with_stream("s").await;
    bench.put("s", &["1", "22", "333"]).await;
    bench.put("s", &["4444"]).await;
    bench.put("s", &["55555", "666666"]).await;
    bench.subscribe_new("s", "x").await;
    let mut c = bench.connect();
    let mut reader = Reader::durable(&mut c, "s", "x").await;
    reader.take(6).await;
    let expected = [(6, 21), (5, 20), (4, 18), (3, 15), (2, 11), (1, 6), (0, 0)];
    for (next, (events, bytes)) in expected.into_iter().enumerate() {
        if next > 0 {
            assert_eq!(reader.ack(&mut c, next as u64 - 1).await, acked(next as u64));
        }
        let before = TimeUs::now();
        let lag = bench.subscription("s", "x").await.lag;
        let after = TimeUs::now();
        assert_eq!((lag.events, lag.bytes), (events, bytes), "at {next}");
        if events == 0 {
            assert_eq!(lag.seconds, 0.0);
        } else {
            let first = soon(bench.broker.event(&OPERATOR, &name("s"), Which::Offset(next as u64))).await.unwrap().batch().head.time;
            assert!(lag.seconds >= before.seconds_since(first) && lag.seconds <= after.seconds_since(first), "{lag:?}");
        }
    }
    bench.put("s", &["7777777"]).await;
    let lag = bench.subscription("s", "x").await.lag;
    assert_eq!((lag.events, lag.bytes), (1, 7));
}

#[tokio::test]
async fn attached_says_whether_a_session_is() {
    let bench = Bench::with_stream("s").await;
    bench.subscribe_new("s", "x").await;
    let mut c = bench.connect();
    let first = Reader::durable(&mut c, "s", "x").await;
    assert!(bench.subscription("s", "x").await.attached);
    let second = Reader::durable(&mut c, "s", "x").await;
    drop(first);
    assert!(bench.subscription("s", "x").await.attached, "the newer session is there");
    drop(second);
    assert!(!bench.subscription("s", "x").await.attached);
    let bench = bench.crash().await;
    assert!(!bench.subscription("s", "x").await.attached);
}

#[tokio::test]
async fn a_deleted_subscription_ends_its_session_and_leaves_the_stream_alone() {
    let bench = Bench::with_stream("s").await;
    bench.fill("s", 2).await;
    bench.subscribe_new("s", "x").await;
    bench.subscribe_new("s", "y").await;
    let mut c = bench.connect();
    let mut reader = Reader::durable(&mut c, "s", "x").await;
    reader.take_until_live().await;
    soon(bench.broker.delete_subscription(&OPERATOR, &name("s"), &sub("x"))).await.unwrap();
    refused(Err::<(), _>(reader.end().await), Code::NotFound, "");
    refused(reader.ack(&mut c, 0).await, Code::NotFound, "");
    refused(soon(bench.broker.subscription(&OPERATOR, &name("s"), &sub("x"))).await, Code::NotFound, "");
    refused(soon(bench.broker.delete_subscription(&OPERATOR, &name("s"), &sub("x"))).await, Code::NotFound, "");
    assert_eq!(list(&bench, None, None).await.0, ["y"]);
    let bench = bench.crash().await;
    assert_eq!(list(&bench, None, None).await.0, ["y"]);
    assert_eq!(bench.texts("s").await, ["e0", "e1"]);
    let again = bench.subscribe_new("s", "x").await;
    assert_eq!(again.next, 0, "a new cursor, not the old one");
}

#[tokio::test]
async fn the_delivered_mark_of_a_detached_session_is_kept_only_for_the_ack_timeout() {
    let bench = Bench::with_stream("s").await;
    bench.fill("s", 3).await;
    soon(bench.broker.create_subscription(&OPERATOR, &name("s"), NewSubscription { ack_timeout_s: Some(1), ..new_subscription("x") })).await.unwrap();
    let mut c = bench.connect();
    let mut reader = Reader::durable(&mut c, "s", "x").await;
    reader.take(3).await;
    assert_eq!(reader.ack(&mut c, 0).await, acked(1));
    let handle = reader.handle.clone();
    drop(reader);
    assert_eq!(answer(c.ack(&handle, 1, AckLevel::Durable)).await, acked(2), "at once it still counts");
    // Each call renews it, so only silence can be the test: one more than the timeout.
    tokio::time::sleep(Duration::from_millis(1300)).await;
    refused(answer(c.ack(&handle, 2, AckLevel::Durable)).await, Code::SessionUnknown, "C-8");
    assert_eq!(bench.subscription("s", "x").await.next, 2);
}

#[tokio::test]
async fn subscriptions_of_one_stream_do_not_disturb_each_other() {
    let bench = Bench::with_stream("s").await;
    bench.fill("s", 4).await;
    bench.subscribe_new("s", "x").await;
    bench.subscribe_new("s", "y").await;
    let mut c = bench.connect();
    let (mut x, mut y) = (Reader::durable(&mut c, "s", "x").await, Reader::durable(&mut c, "s", "y").await);
    x.take(4).await;
    y.take(4).await;
    assert_eq!(x.ack(&mut c, 3).await, acked(4));
    assert_eq!(bench.subscription("s", "y").await.next, 0);
    let _takeover = Reader::durable(&mut c, "s", "x").await;
    assert_eq!(y.ack(&mut c, 1).await, acked(2), "a takeover of x fences nobody of y");
}
