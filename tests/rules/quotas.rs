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

#[tokio::test]
async fn whoever_may_have_no_more_leaves_nothing_behind() {
    let (bench, alice) = with_alice().await;
    soon(bench.broker.create_stream(&alice, NewStream::named(name("one")))).await.unwrap();
    let mut c = bench.broker.connect(alice.clone());
    let reading = |subscription: &str| SubscribeRequest { create: true, ..attach("one", subscription) };
    drop(Reader::open(&mut c, reading("x")).await.unwrap());
    refused(Reader::open(&mut c, reading("y")).await.map(drop), Code::QuotaExceeded, "");
    refused(soon(bench.broker.subscription(&alice, &name("one"), &sub("y"))).await, Code::NotFound, "");
    soon(bench.broker.open_producer(&alice, opening(Some("one"), "p", Expect::Any))).await.unwrap();
    refused(soon(bench.broker.open_producer(&alice, opening(Some("one"), "q", Expect::Any))).await, Code::QuotaExceeded, "");
    refused(soon(bench.broker.producer(&alice, Some(&name("one")), &producer("q"))).await, Code::NotFound, "");
    assert_eq!(used(&bench).await, [1, 1, 1]);
}

#[tokio::test]
async fn only_who_may_do_everything_creates_streams_by_using_them() {
    let (bench, alice) = with_alice().await;
    refused(soon(bench.broker.append(&alice, plain("one", &["x"]))).await, Code::NotFound, "");
    refused(soon(bench.broker.open_producer(&alice, opening(Some("one"), "p", Expect::Any))).await, Code::NotFound, "");
    let commit = CommitRequest { appends: vec![commit_append("one", &["x"])], ..Default::default() };
    refused(soon(bench.broker.commit(&alice, commit)).await, Code::NotFound, "");
    refused(soon(bench.broker.stream(&OPERATOR, &name("one"))).await, Code::NotFound, "");
    assert_eq!(used(&bench).await, [0, 0, 0]);
    bench.put("one", &["x"]).await;
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
