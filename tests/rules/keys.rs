//! P-19: idempotency keys; and the removal of producers, whose identity ends with them.

use crate::support::*;

fn key(text: &str) -> IdempotencyKey {
    IdempotencyKey::parse(text).expect("a key")
}

async fn once(bench: &Bench, request: AppendRequest, text: &str) -> Result<Appended> {
    soon(bench.broker.append_once(&OPERATOR, request, &key(text))).await.map(|(appended, _)| appended)
}

#[tokio::test]
async fn p19_the_same_key_and_events_are_stored_once_and_answered_again() {
    let bench = Bench::with_stream("s").await;
    let (first, until) = soon(bench.broker.append_once(&OPERATOR, plain("s", &["a", "b"]), &key("k1"))).await.unwrap();
    assert_eq!(Ok(first), stored(0, 2));
    bench.put("s", &["other"]).await;
    let (again, same) = soon(bench.broker.append_once(&OPERATOR, plain("s", &["a", "b"]), &key("k1"))).await.unwrap();
    assert_eq!((Ok(again), same), (repeated(0, 2), until), "the window is not prolonged");
    let day = f64::from(24 * 3600);
    assert!((until.seconds_since(TimeUs::now()) - day).abs() < 60.0, "{until}");
    assert_eq!(once(&bench, plain("s", &["a", "b"]), "k2").await, stored(3, 2), "another key is another request");
    assert_eq!(bench.texts("s").await, ["a", "b", "other", "a", "b"]);
}

#[tokio::test]
async fn p19_other_events_under_the_same_key_are_refused() {
    let bench = Bench::with_stream("s").await;
    once(&bench, plain("s", &["a"]), "k").await.unwrap();
    refused(once(&bench, plain("s", &["b"]), "k").await, Code::IdempotencyKeyReused, "P-19");
    refused(once(&bench, plain("s", &["a", "a"]), "k").await, Code::IdempotencyKeyReused, "P-19");
    assert_eq!(bench.texts("s").await, ["a"]);
}

#[tokio::test]
async fn p19_a_key_belongs_to_its_stream() {
    let bench = Bench::with_stream("s").await;
    bench.create("t").await;
    assert_eq!(once(&bench, plain("s", &["a"]), "k").await, stored(0, 1));
    assert_eq!(once(&bench, plain("t", &["b"]), "k").await, stored(0, 1));
    assert_eq!(once(&bench, plain("S", &["a"]), "k").await, repeated(0, 1), "a name in another case is the same stream");
}

#[tokio::test]
async fn p19_a_key_and_its_events_are_one_commit_and_survive_a_crash() {
    let bench = Bench::with(cramped()).await;
    bench.create("s").await;
    bench.engine.take_seen();
    once(&bench, plain("s", &["a"]), "k").await.unwrap();
    let seen = bench.engine.take_seen();
    assert!(seen.len() == 1 && seen[0].appends == 1 && seen[0].state.contains(&5), "{seen:?}");
    let bench = bench.crash().await;
    assert_eq!(once(&bench, plain("s", &["a"]), "k").await, repeated(0, 1));
    refused(once(&bench, plain("s", &["b"]), "k").await, Code::IdempotencyKeyReused, "P-19");
}

#[tokio::test]
async fn p19_a_repetition_is_held_until_the_first_is_durable() {
    let bench = Bench::with_stream("s").await;
    bench.engine.stop();
    let mut first = Box::pin(once(&bench, plain("s", &["a"]), "k"));
    nothing_yet(&mut first).await;
    bench.engine.waiting().await;
    let mut second = Box::pin(once(&bench, plain("s", &["a"]), "k"));
    nothing_yet(&mut second).await;
    bench.engine.go();
    assert_eq!(soon(first).await, stored(0, 1));
    assert_eq!(soon(second).await, repeated(0, 1));
}

#[tokio::test]
async fn p19_a_refused_append_does_not_use_its_key_and_a_stored_one_outlives_the_conditions() {
    let bench = Bench::with_stream("s").await;
    refused(once(&bench, expecting(plain("s", &["a"]), 7), "k").await, Code::ConditionFailed, "P-18");
    assert_eq!(once(&bench, expecting(plain("s", &["a"]), 0), "k").await, stored(0, 1));
    assert_eq!(once(&bench, expecting(plain("s", &["a"]), 0), "k").await, repeated(0, 1), "the condition no longer holds");
    bench.close("s").await;
    assert_eq!(once(&bench, plain("s", &["a"]), "k").await, repeated(0, 1), "the stream is closed");
    refused(once(&bench, plain("s", &["a"]), "new").await, Code::StreamClosed, "P-9");
}

#[tokio::test]
async fn p19_a_key_and_a_producer_are_one_identity_too_many() {
    let bench = Bench::with_stream("s").await;
    refused(once(&bench, stamped("s", "p", 1, 0, &["a"]), "k").await, Code::BadParameter, "");
}

#[tokio::test]
async fn p19_a_refused_commit_forgets_the_key_with_the_events() {
    let bench = Bench::with_stream("s").await;
    bench.engine.refuse_next(EngineError::Full("a test".into()));
    refused(once(&bench, plain("s", &["a"]), "k").await, Code::StorageFull, "");
    assert_eq!(once(&bench, plain("s", &["b"]), "k").await, stored(0, 1));
}

#[tokio::test]
async fn p19_keys_are_forgotten_when_their_time_is_over_and_not_before() {
    let bench = Bench::with_stream("s").await;
    once(&bench, plain("s", &["a"]), "k").await.unwrap();
    // The sweep asks about everything; the clock of S-9 decides that a day has not passed.
    soon(bench.broker.forget_keys(TimeUs(i64::MAX))).await.unwrap();
    assert_eq!(once(&bench, plain("s", &["a"]), "k").await, repeated(0, 1));
    // A process that starts two days later finds the clock there.
    let later = TimeUs(TimeUs::now().0 + 2 * 24 * 3600 * 1_000_000);
    let bench = bench.crash_and(|memory| set_clock(memory, later)).await;
    soon(bench.broker.forget_keys(later)).await.unwrap();
    assert_eq!(count_keys(&bench).await, 0, "the row is gone");
    assert_eq!(once(&bench, plain("s", &["other"]), "k").await, stored(1, 1), "the key is as good as new");
}

#[tokio::test]
async fn p19_a_key_whose_time_is_over_is_new_without_a_sweep() {
    let bench = Bench::with_stream("s").await;
    once(&bench, plain("s", &["a"]), "k").await.unwrap();
    let later = TimeUs(TimeUs::now().0 + 2 * 24 * 3600 * 1_000_000);
    let bench = bench.crash_and(|memory| set_clock(memory, later)).await;
    assert_eq!(once(&bench, plain("s", &["other"]), "k").await, stored(1, 1));
    assert_eq!(once(&bench, plain("s", &["other"]), "k").await, repeated(1, 1));
}

#[tokio::test]
async fn a_removed_producer_is_unknown_and_begins_a_new_life_above_its_old_epochs() {
    let bench = Bench::with_stream("s").await;
    let mut c = bench.connect();
    let epoch = open(&mut c, "s", "p").await;
    send(&mut c, stamped("s", "p", epoch, 0, &["a"])).await.unwrap();
    let about = soon(bench.broker.producer(&OPERATOR, Some(&name("s")), &producer("p"))).await.unwrap();
    assert_eq!((about.epoch, about.last_seq), (epoch, Some(0)));
    soon(bench.broker.delete_producer(&OPERATOR, Some(&name("s")), &producer("p"))).await.unwrap();
    refused(soon(bench.broker.producer(&OPERATOR, Some(&name("s")), &producer("p"))).await, Code::NotFound, "");
    refused(soon(bench.broker.delete_producer(&OPERATOR, Some(&name("s")), &producer("p"))).await, Code::NotFound, "");
    refused(bench.append(stamped("s", "p", epoch, 1, &["b"])).await, Code::ProducerUnknown, "P-1");
    refused(answer(c.open_producer(opening(Some("s"), "p", Expect::Resume))).await, Code::ProducerStateLost, "P-15");
    let reborn = answer(c.open_producer(opening(Some("s"), "p", Expect::Create))).await.unwrap();
    assert!(reborn.epoch > epoch && reborn.last_seq.is_none() && reborn.origin == Origin::Created, "{reborn:?}");
    refused(bench.append(stamped("s", "p", epoch, 0, &["a"])).await, Code::ProducerFenced, "P-2");
    assert_eq!(bench.append(stamped("s", "p", reborn.epoch, 0, &["a"])).await, stored(1, 1));
}

#[tokio::test]
async fn s8_no_receipt_and_no_epoch_of_a_removed_producer_comes_back_after_a_crash() {
    let bench = Bench::with(cramped()).await;
    bench.create("s").await;
    let mut c = bench.connect();
    let epoch = open(&mut c, "s", "p").await;
    for seq in 0..70 {
        send(&mut c, stamped("s", "p", epoch, seq, &["a"])).await.unwrap();
    }
    soon(bench.broker.delete_producer(&OPERATOR, Some(&name("s")), &producer("p"))).await.unwrap();
    let bench = bench.crash().await;
    let mut c = bench.connect();
    let reborn = open(&mut c, "s", "p").await;
    assert!(reborn > epoch);
    for seq in 0..70 {
        assert_eq!(send(&mut c, stamped("s", "p", reborn, seq, &["b"])).await, stored(70 + seq, 1), "not a duplicate of the first life");
    }
}

#[tokio::test]
async fn s8_a_producer_of_commits_can_be_removed_too() {
    let bench = Bench::with_stream("s").await;
    let mut c = bench.connect();
    let epoch = open_wide(&mut c, "tx").await;
    let commit = |epoch, seq| CommitRequest { producer: Some(stamp("tx", epoch, seq)), appends: vec![commit_append("s", &["a"])], ..CommitRequest::default() };
    soon(bench.broker.commit(&OPERATOR, commit(epoch, 0))).await.unwrap();
    soon(bench.broker.delete_producer(&OPERATOR, None, &producer("tx"))).await.unwrap();
    refused(soon(bench.broker.commit(&OPERATOR, commit(epoch, 0))).await, Code::ProducerUnknown, "P-1");
    let bench = bench.crash().await;
    let reborn = soon(bench.broker.open_producer(&OPERATOR, opening(None, "tx", Expect::Any))).await.unwrap();
    assert!(reborn.epoch > epoch);
    assert!(!soon(bench.broker.commit(&OPERATOR, commit(reborn.epoch, 0))).await.unwrap().duplicate);
}

#[tokio::test]
async fn producers_are_listed_in_the_order_of_their_ids_and_in_pages() {
    let bench = Bench::with_stream("s").await;
    bench.create("t").await;
    let mut c = bench.connect();
    for id in ["b", "aaa", "cc", "a"] {
        open(&mut c, "s", id).await;
    }
    open(&mut c, "t", "other").await;
    open_wide(&mut c, "wide").await;
    let list = async |stream: Option<&str>, after: Option<&str>, limit| {
        let query = ListQuery { after: after.map(str::to_owned), limit, filter: None };
        let page = soon(bench.broker.producers(&OPERATOR, stream.map(name).as_ref(), query)).await.unwrap();
        (page.items.iter().map(|p| p.producer.to_string()).collect::<Vec<_>>(), page.more)
    };
    let ids = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>();
    assert_eq!(list(Some("s"), None, None).await, (ids(&["a", "aaa", "b", "cc"]), false));
    assert_eq!(list(Some("s"), None, Some(2)).await, (ids(&["a", "aaa"]), true));
    assert_eq!(list(Some("s"), Some("aaa"), Some(2)).await, (ids(&["b", "cc"]), false));
    assert_eq!(list(None, None, None).await, (ids(&["wide"]), false));
}

#[tokio::test]
async fn a_commit_creates_the_streams_it_appends_to_where_dev_does_and_none_when_it_fails() {
    let bench = Bench::with(Settings { create_streams_on_use: true, ..roomy() }).await;
    let with_check = |expected| CommitRequest {
        appends: vec![commit_append("new", &["a"]), commit_append("NEW", &["b"])],
        checks: vec![commit_check("there", expected)],
        ..CommitRequest::default()
    };
    bench.create("there").await;
    part_refused(soon(bench.broker.commit(&OPERATOR, with_check(7))).await, "checks", 0, Code::ConditionFailed);
    refused(soon(bench.broker.stream(&OPERATOR, &name("new"))).await, Code::NotFound, "");
    let done = soon(bench.broker.commit(&OPERATOR, with_check(0))).await.unwrap();
    assert_eq!(done.appends.iter().map(|a| (a.first_offset, a.count)).collect::<Vec<_>>(), [(0, 1), (1, 1)]);
    assert_eq!(bench.texts("new").await, ["a", "b"]);
}

/// Moves the persisted clock of a store.
fn set_clock(memory: &Memory, to: TimeUs) {
    memory.change_row(Key::Counters, |bytes| {
        let mut counters: tidelog::log::rows::value::Counters = tidelog::log::rows::decode(bytes).expect("the counters");
        counters.clock_us = to.0;
        tidelog::log::rows::encode(&counters)
    });
}

async fn count_keys(bench: &Bench) -> usize {
    use tidelog::log::Engine as _;
    bench.engine.scan(tidelog::log::rows::prefix::idempotency(), None, 100).await.expect("the scan works").len()
}
