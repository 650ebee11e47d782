//! Counts of what a user has: in the commit of what is counted, and looked at before anything is changed.

use tidelog::broker::{NewUser, Quotas};
use tidelog::types::UserName;

use crate::support::*;

/// A broker that creates streams on use, where users may have two streams, one subscription and one producer; and alice.
async fn with_alice() -> (Bench, Principal) {
    let quotas = Quotas { streams: 2, subscriptions: 1, producers: 1, ..Quotas::default() };
    let bench = Bench::with(Settings { create_streams_on_use: true, quotas, ..roomy() }).await;
    let new = NewUser { name: UserName::parse("alice").unwrap(), password: None, root: false };
    soon(bench.broker.create_user(&OPERATOR, new)).await.unwrap();
    let alice = alice(&bench).await;
    (bench, alice)
}

async fn alice(bench: &Bench) -> Principal {
    soon(bench.broker.certificate("alice")).await.unwrap()
}

/// How many streams, subscriptions and producers are counted.
async fn used(bench: &Bench) -> [u64; 3] {
    let (_, usage) = soon(bench.broker.user_and_usage(&OPERATOR, &UserName::parse("alice").unwrap())).await.unwrap();
    [0, 1, 2].map(|index| usage.counts[index].1)
}

fn append(stream: &str) -> CommitAppend {
    CommitAppend { stream: name(stream), stream_id: None, events: events(&["x"]), expected_next_offset: None }
}

#[tokio::test]
async fn t1_a_commit_that_would_make_more_streams_than_its_user_may_have_does_nothing() {
    let (bench, alice) = with_alice().await;
    soon(bench.broker.create_stream(&alice, NewStream::named(name("in")))).await.unwrap();
    soon(bench.broker.append(&alice, plain("in", &["x"]))).await.unwrap();
    let mut c = bench.broker.connect(alice.clone());
    let mut reader = Reader::open(&mut c, SubscribeRequest { create: true, ..attach("in", "x") }).await.unwrap();
    reader.take(1).await;
    let ack = CommitAck { stream: name("in"), subscription: sub("x"), epoch: reader.epoch(), offset: 0 };
    let commit =
        |streams: &[&str]| CommitRequest { acks: vec![ack.clone()], appends: streams.iter().map(|stream| append(stream)).collect(), ..Default::default() };
    let error = soon(bench.broker.commit(&alice, commit(&["in", "one", "two"]))).await.unwrap_err();
    assert_eq!((error.code, &error.details["part"], &error.details["index"]), (Code::TxnPartFailed, &"appends".into(), &1.into()), "{error}");
    assert_eq!(error.details["cause"]["code"], "quota_exceeded");
    assert_eq!((used(&bench).await, bench.subscription("in", "x").await.next, bench.next_offset("in").await), ([1, 1, 0], 0, 1));
    refused(soon(bench.broker.stream(&OPERATOR, &name("one"))).await, Code::NotFound, "");
    soon(bench.broker.commit(&alice, commit(&["in", "one", "one"]))).await.expect("one more is allowed, however often it is named");
    assert_eq!((used(&bench).await, bench.subscription("in", "x").await.next), ([2, 1, 0], 1));
}

#[tokio::test]
async fn whoever_may_have_no_more_leaves_no_stream_behind() {
    let (bench, alice) = with_alice().await;
    let mut c = bench.broker.connect(alice.clone());
    let mine = |stream: &str| SubscribeRequest { create: true, ..attach(stream, "x") };
    drop(Reader::open(&mut c, mine("one")).await.unwrap());
    refused(Reader::open(&mut c, mine("two")).await.map(drop), Code::QuotaExceeded, "");
    let producer = |stream: &str| opening(Some(stream), "p", Expect::Any);
    soon(bench.broker.open_producer(&alice, producer("one"))).await.unwrap();
    refused(soon(bench.broker.open_producer(&alice, producer("two"))).await, Code::QuotaExceeded, "");
    assert_eq!(used(&bench).await, [1, 1, 1]);
    refused(soon(bench.broker.stream(&OPERATOR, &name("two"))).await, Code::NotFound, "");
}

#[tokio::test]
async fn what_is_counted_and_its_count_are_one_commit() {
    let (bench, alice) = with_alice().await;
    soon(bench.broker.create_stream(&alice, NewStream::named(name("one")))).await.unwrap();
    bench.engine.stop();
    let broker = bench.broker.clone();
    let creating = tokio::spawn(async move { broker.create_stream(&alice, NewStream::named(name("two"))).await });
    bench.engine.waiting().await;
    let bench = bench.crash().await;
    creating.abort();
    assert_eq!(used(&bench).await, [1, 0, 0], "it died before the write: neither is there");
    let alice = self::alice(&bench).await;
    soon(bench.broker.create_stream(&alice, NewStream::named(name("two")))).await.unwrap();
    let bench = bench.crash().await;
    assert_eq!(used(&bench).await, [2, 0, 0], "it died after the answer: both are");
    let alice = self::alice(&bench).await;
    refused(soon(bench.broker.create_stream(&alice, NewStream::named(name("three")))).await, Code::QuotaExceeded, "");
    bench.delete("one").await;
    let bench = bench.crash().await;
    assert_eq!(used(&bench).await, [1, 0, 0]);
}
