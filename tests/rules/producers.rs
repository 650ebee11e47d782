//! P-1 … P-18: the decision table of appends, poisoning, receipts, and what survives.

use crate::support::*;

/// A broker with the stream `s` and a connection on which producer `p` was opened with epoch 1.
async fn one() -> (Bench, Connection, u64) {
    let bench = Bench::with_stream("s").await;
    let mut connection = bench.connect();
    let epoch = open(&mut connection, "s", "p").await;
    (bench, connection, epoch)
}

/// Unary: never poisons, so that a table of refusals can be asked one by one.
async fn ask(bench: &Bench, epoch: u64, seq: u64, texts: &[&str]) -> Result<Appended> {
    bench.append(stamped("s", "p", epoch, seq, texts)).await
}

#[tokio::test]
async fn opening_a_producer_tells_epoch_last_seq_and_origin() {
    let bench = Bench::with_stream("s").await;
    let stream = bench.describe("s").await;
    let mut c = bench.connect();
    let first = answer(c.open_producer(opening(Some("s"), "p", Expect::Any))).await.unwrap();
    assert_eq!(
        first,
        ProducerOpened {
            producer: producer("p"),
            epoch: 1,
            last_seq: None,
            next_offset: Some(0),
            stream_id: Some(stream.id),
            log_epoch: 1,
            origin: Origin::Created
        }
    );
    assert_eq!(send(&mut c, stamped("s", "p", 1, 0, &["a", "b", "c"])).await, stored(0, 3));
    let second = answer(c.open_producer(opening(Some("s"), "p", Expect::Resume))).await.unwrap();
    assert_eq!((second.epoch, second.last_seq, second.next_offset, second.origin), (2, Some(2), Some(3), Origin::Resumed));
}

#[tokio::test]
async fn producers_of_different_streams_and_of_commits_do_not_know_each_other() {
    let bench = Bench::with_stream("s").await;
    bench.create("t").await;
    let mut c = bench.connect();
    assert_eq!(open(&mut c, "s", "p").await, 1);
    assert_eq!(open(&mut c, "t", "p").await, 1);
    let wide = answer(c.open_producer(opening(None, "p", Expect::Create))).await.unwrap();
    assert_eq!((wide.last_seq, wide.next_offset, wide.stream_id, wide.origin), (None, None, None, Origin::Created));
    assert_eq!(send(&mut c, stamped("s", "p", 1, 0, &["s0"])).await, stored(0, 1));
    assert_eq!(send(&mut c, stamped("t", "p", 1, 0, &["t0"])).await, stored(0, 1));
    let upper = answer(c.open_producer(opening(Some("s"), "P", Expect::Create))).await.unwrap();
    assert_eq!(upper.origin, Origin::Created, "producer ids are compared byte for byte");
}

#[tokio::test]
async fn opening_a_producer_of_a_missing_or_replaced_stream_is_refused() {
    let bench = Bench::with_stream("s").await;
    let mut c = bench.connect();
    refused(answer(c.open_producer(opening(Some("none"), "p", Expect::Any))).await, Code::NotFound, "");
    let other = OpenProducerRequest { stream_id: Some(StreamId(99)), ..opening(Some("s"), "p", Expect::Any) };
    refused(answer(c.open_producer(other)).await, Code::StreamReplaced, "");
    let fresh = answer(c.open_producer(opening(Some("s"), "p", Expect::Create))).await.unwrap();
    assert_eq!(fresh.epoch, 1, "nothing was stored by the refused openings");
}

#[tokio::test]
async fn p1_an_append_of_an_unknown_producer_is_refused_and_creates_nothing() {
    let bench = Bench::with_stream("s").await;
    refused(ask(&bench, 1, 0, &["a"]).await, Code::ProducerUnknown, "P-1");
    refused(ask(&bench, 0, 0, &["a"]).await, Code::ProducerUnknown, "P-1");
    assert_eq!(bench.next_offset("s").await, 0);
    let mut c = bench.connect();
    let opened = answer(c.open_producer(opening(Some("s"), "p", Expect::Create))).await.unwrap();
    assert_eq!(opened.origin, Origin::Created);
}

#[tokio::test]
async fn p2_an_older_epoch_is_fenced_even_for_a_duplicate() {
    let (bench, mut c, old) = one().await;
    assert_eq!(ask(&bench, old, 0, &["a"]).await, stored(0, 1));
    let new = open(&mut c, "s", "p").await;
    assert_eq!(new, old + 1);
    for seq in [0, 1, 7] {
        let error = refused(ask(&bench, old, seq, &["a"]).await, Code::ProducerFenced, "P-2");
        assert_eq!(detail(&error, "epoch"), new);
    }
    assert_eq!(bench.texts("s").await, ["a"]);
    assert_eq!(ask(&bench, new, 1, &["b"]).await, stored(1, 1));
}

#[tokio::test]
async fn p3_an_epoch_from_the_future_is_unknown() {
    let (bench, _c, epoch) = one().await;
    refused(ask(&bench, epoch + 1, 0, &["a"]).await, Code::ProducerUnknown, "P-3");
    refused(ask(&bench, u64::MAX, 0, &["a"]).await, Code::ProducerUnknown, "P-3");
    assert_eq!(bench.next_offset("s").await, 0);
}

#[tokio::test]
async fn p4_a_repeated_batch_answers_its_original_offsets() {
    let (bench, mut c, epoch) = one().await;
    bench.put("s", &["before"]).await;
    assert_eq!(ask(&bench, epoch, 0, &["a", "b"]).await, stored(1, 2));
    assert_eq!(ask(&bench, epoch, 2, &["c"]).await, stored(3, 1));
    bench.put("s", &["after"]).await;
    assert_eq!(ask(&bench, epoch, 0, &["a", "b"]).await, repeated(1, 2));
    assert_eq!(ask(&bench, epoch, 2, &["c"]).await, repeated(3, 1));
    let next = open(&mut c, "s", "p").await;
    assert_eq!(ask(&bench, next, 0, &["a", "b"]).await, repeated(1, 2), "receipts outlive epochs");
    assert_eq!(bench.texts("s").await, ["before", "a", "b", "c", "after"]);
}

#[tokio::test]
async fn p4_a_repeated_batch_answers_its_original_offsets_even_on_a_closed_stream() {
    let (bench, _c, epoch) = one().await;
    assert_eq!(ask(&bench, epoch, 0, &["a", "b"]).await, stored(0, 2));
    bench.close("s").await;
    assert_eq!(ask(&bench, epoch, 0, &["a", "b"]).await, repeated(0, 2));
    refused(ask(&bench, epoch, 2, &["c"]).await, Code::StreamClosed, "P-9");
}

#[tokio::test]
async fn p4_a_repeated_batch_answers_even_when_its_condition_no_longer_holds() {
    let (bench, _c, epoch) = one().await;
    let request = || expecting(stamped("s", "p", epoch, 0, &["a"]), 0);
    assert_eq!(bench.append(request()).await, stored(0, 1));
    bench.put("s", &["other"]).await;
    assert_eq!(bench.append(request()).await, repeated(0, 1));
    assert_eq!(bench.append(expecting(stamped("s", "p", epoch, 0, &["a"]), 77)).await, repeated(0, 1), "the condition is no part of the fingerprint");
}

#[tokio::test]
async fn p4_a_repeated_batch_answers_even_when_the_disk_is_full() {
    let (bench, _c, epoch) = one().await;
    assert_eq!(ask(&bench, epoch, 0, &["a"]).await, stored(0, 1));
    bench.memory.fill(Some("a test filled it"));
    assert_eq!(ask(&bench, epoch, 0, &["a"]).await, repeated(0, 1));
}

#[tokio::test]
async fn p4_a_repeated_batch_is_recognised_after_a_crash() {
    let (bench, _c, epoch) = one().await;
    assert_eq!(ask(&bench, epoch, 0, &["a", "b"]).await, stored(0, 2));
    let bench = bench.crash().await;
    assert_eq!(ask(&bench, epoch, 0, &["a", "b"]).await, repeated(0, 2));
    assert_eq!(ask(&bench, epoch, 2, &["c"]).await, stored(2, 1), "the epoch lives on");
    let bench = bench.restart().await;
    assert_eq!(ask(&bench, epoch, 2, &["c"]).await, repeated(2, 1));
}

#[tokio::test]
async fn p5_a_sequence_number_used_for_other_bytes_is_refused() {
    let (bench, _c, epoch) = one().await;
    assert_eq!(ask(&bench, epoch, 0, &["a", "b"]).await, stored(0, 2));
    refused(ask(&bench, epoch, 0, &["a", "B"]).await, Code::ProducerSeqReused, "P-5");
    let with_type = {
        let mut builder = EventsBuilder::default();
        for text in ["a", "b"] {
            builder.push(&EventRef { data: text.as_bytes(), encoding: Encoding::Utf8, kind: "t", ..EventRef::default() }).unwrap();
        }
        AppendRequest { events: builder.finish().unwrap(), ..stamped("s", "p", epoch, 0, &["a", "b"]) }
    };
    refused(bench.append(with_type).await, Code::ProducerSeqReused, "P-5");
    assert_eq!(ask(&bench, epoch, 0, &["a", "b"]).await, repeated(0, 2));
    assert_eq!(bench.texts("s").await, ["a", "b"]);
}

#[tokio::test]
async fn p6_a_repeated_batch_older_than_the_receipts_is_a_duplicate_without_offsets() {
    let (bench, _c, epoch) = one().await;
    let ring = limits::RECEIPT_RING;
    for batch in 0..=ring {
        let texts = [format!("{batch}.0"), format!("{batch}.1")];
        let texts = [texts[0].as_str(), texts[1].as_str()];
        assert_eq!(ask(&bench, epoch, batch * 2, &texts).await, stored(batch * 2, 2));
    }
    let late = ask(&bench, epoch, 0, &["0.0", "0.1"]).await;
    assert_eq!(late, Ok(Appended { first_offset: None, last_offset: None, count: 2, duplicate: true }));
    assert_eq!(ask(&bench, epoch, 1, &["0.1"]).await.map(|a| (a.first_offset, a.duplicate)), Ok((None, true)), "L alone proves it");
    assert_eq!(ask(&bench, epoch, 2, &["1.0", "1.1"]).await, repeated(2, 2), "the oldest kept receipt");
    let error = refused(ask(&bench, epoch, 1, &["0.1", "1.0"]).await, Code::ProducerSeqOverlap, "P-7");
    assert_eq!(detail(&error, "last_seq"), ring * 2 + 1);
    let bench = bench.crash().await;
    assert_eq!(ask(&bench, epoch, 0, &["0.0", "0.1"]).await.map(|a| (a.first_offset, a.duplicate)), Ok((None, true)));
    assert_eq!(ask(&bench, epoch, 2, &["1.0", "1.1"]).await, repeated(2, 2));
}

#[tokio::test]
async fn p7_a_batch_cut_differently_is_an_overlap() {
    let (bench, _c, epoch) = one().await;
    assert_eq!(ask(&bench, epoch, 0, &["a", "b", "c"]).await, stored(0, 3));
    assert_eq!(ask(&bench, epoch, 3, &["d"]).await, stored(3, 1));
    let cuts: [(u64, &[&str]); 6] = [(0, &["a"]), (0, &["a", "b"]), (1, &["b", "c"]), (2, &["c", "d"]), (3, &["d", "e"]), (0, &["a", "b", "c", "d"])];
    for (seq, texts) in cuts {
        let error = refused(ask(&bench, epoch, seq, texts).await, Code::ProducerSeqOverlap, "P-7");
        assert_eq!(detail(&error, "last_seq"), 3, "seq {seq}");
    }
    assert_eq!(bench.texts("s").await, ["a", "b", "c", "d"]);
}

#[tokio::test]
async fn p8_a_gap_is_refused_and_names_the_expected_number() {
    let (bench, _c, epoch) = one().await;
    let error = refused(ask(&bench, epoch, 1, &["b"]).await, Code::ProducerSeqGap, "P-8");
    assert_eq!(detail(&error, "expected"), 0);
    assert_eq!(ask(&bench, epoch, 0, &["a"]).await, stored(0, 1));
    let error = refused(ask(&bench, epoch, 2, &["c"]).await, Code::ProducerSeqGap, "P-8");
    assert_eq!(detail(&error, "expected"), 1);
    assert_eq!(bench.next_offset("s").await, 1, "nothing is buffered");
    assert_eq!(ask(&bench, epoch, 1, &["b"]).await, stored(1, 1));
}

#[tokio::test]
async fn p8_sequence_numbers_at_the_edge_of_the_integers_are_refused_like_any_other() {
    let (bench, _c, epoch) = one().await;
    let error = bench.append(stamped("s", "p", epoch, u64::MAX, &["a", "b"])).await.expect_err("a gap at least");
    assert!(matches!(error.code, Code::ProducerSeqGap | Code::BadParameter), "{error:?}");
    assert_eq!(ask(&bench, epoch, 0, &["a"]).await, stored(0, 1), "the broker lives");
}

#[tokio::test]
async fn p9_a_refused_append_does_not_move_the_sequence() {
    let bench = Bench::new().await;
    let small = NewStream { event_max_bytes: Some(4), ..NewStream::named(name("s")) };
    soon(bench.broker.create_stream(&OPERATOR, small)).await.unwrap();
    let mut c = bench.connect();
    let epoch = open(&mut c, "s", "p").await;
    assert_eq!(ask(&bench, epoch, 0, &["a"]).await, stored(0, 1));

    let error = refused(bench.append(expecting(stamped("s", "p", epoch, 1, &["b"]), 0)).await, Code::ConditionFailed, "P-18");
    assert_eq!(detail(&error, "next_offset"), 1);
    refused(ask(&bench, epoch, 1, &["12345"]).await, Code::TooLarge, "P-9");
    refused(ask(&bench, epoch, 1, &["ok", "12345"]).await, Code::TooLarge, "P-9");
    bench.memory.fill(Some("a test filled it"));
    refused(ask(&bench, epoch, 1, &["b"]).await, Code::StorageFull, "");
    bench.memory.fill(None);
    assert_eq!(bench.texts("s").await, ["a"]);
    assert_eq!(bench.append(expecting(stamped("s", "p", epoch, 1, &["1234"]), 1)).await, stored(1, 1), "the number is still free");

    bench.close("s").await;
    let error = refused(ask(&bench, epoch, 2, &["c"]).await, Code::StreamClosed, "P-9");
    assert_eq!(detail(&error, "next_offset"), 2);
    let opened = answer(c.open_producer(opening(Some("s"), "p", Expect::Resume))).await.unwrap();
    assert_eq!(opened.last_seq, Some(1), "a producer of a closed stream can still learn where it stood");
}

#[tokio::test]
async fn p10_events_and_receipt_are_stored_in_one_commit() {
    let (bench, _c, epoch) = one().await;
    bench.engine.take_seen();
    assert_eq!(ask(&bench, epoch, 0, &["a", "b"]).await, stored(0, 2));
    let seen = bench.engine.take_seen();
    assert_eq!(seen.len(), 1, "one append, one commit: {seen:?}");
    assert_eq!(seen[0].appends, 1);
    assert!(seen[0].state.contains(&3) && seen[0].state.contains(&4), "producer and receipt rows: {seen:?}");
}

#[tokio::test]
async fn p10_sequences_continue_across_epochs_and_count_events() {
    let (bench, mut c, epoch) = one().await;
    assert_eq!(ask(&bench, epoch, 0, &["a", "b", "c"]).await, stored(0, 3));
    let epoch = open(&mut c, "s", "p").await;
    refused(ask(&bench, epoch, 0, &["x"]).await, Code::ProducerSeqOverlap, "P-7");
    assert_eq!(ask(&bench, epoch, 3, &["d", "e"]).await, stored(3, 2));
    let opened = answer(c.open_producer(opening(Some("s"), "p", Expect::Any))).await.unwrap();
    assert_eq!(opened.last_seq, Some(4));
}

#[tokio::test]
async fn p11_a_caller_without_a_credential_learns_nothing() {
    let (bench, _c, epoch) = one().await;
    let nobody = Principal::Anonymous;
    let missing = refused(soon(bench.broker.append(&nobody, plain("none", &["a"]))).await, Code::Unauthenticated, "");
    let unknown = refused(soon(bench.broker.append(&nobody, stamped("s", "q", 1, 0, &["a"]))).await, Code::Unauthenticated, "");
    let known = refused(soon(bench.broker.append(&nobody, stamped("s", "p", epoch, 0, &["a"]))).await, Code::Unauthenticated, "");
    assert_eq!(missing, unknown);
    assert_eq!(missing, known);
    let mut c = bench.broker.connect(nobody.clone());
    refused(answer(c.append(plain("s", &["a"]))).await, Code::Unauthenticated, "");
    refused(answer(c.open_producer(opening(Some("s"), "p", Expect::Any))).await, Code::Unauthenticated, "");
    refused(answer(c.open_producer(opening(None, "p", Expect::Any))).await, Code::Unauthenticated, "");
    refused(answer(c.commit(CommitRequest { appends: vec![commit_append("s", &["a"])], ..CommitRequest::default() })).await, Code::Unauthenticated, "");
    refused(answer(c.subscribe(attach("s", "x"))).await.map(|(s, _)| s), Code::Unauthenticated, "");
    refused(soon(bench.broker.stream(&nobody, &name("s"))).await, Code::Unauthenticated, "");
    refused(soon(bench.broker.streams(&nobody, ListQuery::default())).await, Code::Unauthenticated, "");
    refused(soon(bench.broker.delete_stream(&nobody, &name("s"))).await, Code::Unauthenticated, "");
    refused(soon(bench.broker.trim_stream(&nobody, &name("s"), TrimTo::Offset(0))).await, Code::Unauthenticated, "");
    refused(soon(bench.broker.create_stream(&nobody, NewStream::named(name("s")))).await, Code::Unauthenticated, "");
    refused(soon(bench.broker.seek(&nobody, &name("s"), &sub("x"), Start::Earliest)).await, Code::Unauthenticated, "");
    let read = ReadRequest { from: ReadFrom::At(Start::Earliest), limit: 1, wait: std::time::Duration::ZERO };
    refused(soon(bench.broker.read(&nobody, &name("s"), read)).await, Code::Unauthenticated, "");
    assert_eq!(bench.next_offset("s").await, 0);
}

#[tokio::test]
async fn p11_the_stream_is_checked_before_the_producer_and_the_producer_before_the_state_of_the_stream() {
    let (bench, _c, epoch) = one().await;
    let missing = refused(bench.append(stamped("none", "p", epoch, 0, &["a"])).await, Code::NotFound, "");
    assert_eq!(missing.resource.as_deref(), Some("/v1/streams/none"));
    let replaced = AppendRequest { stream_id: Some(StreamId(99)), ..stamped("s", "unknown", 5, 3, &["a"]) };
    refused(bench.append(replaced).await, Code::StreamReplaced, "");
    let right = AppendRequest { stream_id: Some(bench.describe("s").await.id), ..stamped("s", "p", epoch, 0, &["a"]) };
    assert_eq!(bench.append(right).await, stored(0, 1));
    bench.close("s").await;
    refused(bench.append(expecting(stamped("s", "unknown", 1, 0, &["a"]), 9)).await, Code::ProducerUnknown, "P-1");
    refused(bench.append(expecting(stamped("s", "p", epoch, 5, &["a"]), 9)).await, Code::ProducerSeqGap, "P-8");
    refused(bench.append(expecting(stamped("s", "p", epoch, 1, &["a"]), 9)).await, Code::StreamClosed, "P-9");
}

#[tokio::test]
async fn p11_the_condition_is_checked_before_the_size_of_events() {
    let bench = Bench::new().await;
    soon(bench.broker.create_stream(&OPERATOR, NewStream { event_max_bytes: Some(4), ..NewStream::named(name("s")) })).await.unwrap();
    refused(bench.append(expecting(plain("s", &["12345"]), 3)).await, Code::ConditionFailed, "");
    refused(bench.append(expecting(plain("s", &["12345"]), 0)).await, Code::TooLarge, "");
}

#[tokio::test]
async fn p12_after_the_first_refusal_every_later_batch_is_poisoned_until_resume() {
    let (bench, mut c, epoch) = one().await;
    let a = c.append(stamped("s", "p", epoch, 0, &["a"])).await;
    let gap = c.append(stamped("s", "p", epoch, 2, &["c"])).await;
    let b = c.append(stamped("s", "p", epoch, 1, &["b"])).await;
    let duplicate = c.append(stamped("s", "p", epoch, 0, &["a"])).await;
    assert_eq!(soon(a).await, stored(0, 1));
    refused(soon(gap).await, Code::ProducerSeqGap, "P-8");
    refused(soon(b).await, Code::SessionPoisoned, "P-12");
    refused(soon(duplicate).await, Code::SessionPoisoned, "P-12");
    refused(send(&mut c, stamped("s", "p", epoch, 1, &["b"])).await, Code::SessionPoisoned, "P-12");
    answer(c.resume(resuming("s", Some("p"), Some(1)))).await.unwrap();
    assert_eq!(send(&mut c, stamped("s", "p", epoch, 1, &["b"])).await, stored(1, 1));
    assert_eq!(bench.texts("s").await, ["a", "b"]);
}

#[tokio::test]
async fn p12_resume_must_name_the_next_number_or_the_session_stays_poisoned() {
    let (_bench, mut c, epoch) = one().await;
    assert_eq!(send(&mut c, stamped("s", "p", epoch, 0, &["a", "b"])).await, stored(0, 2));
    refused(send(&mut c, stamped("s", "p", epoch, 7, &["x"])).await, Code::ProducerSeqGap, "P-8");
    for wrong in [Some(0), Some(1), Some(3), Some(u64::MAX), None] {
        let error = answer(c.resume(resuming("s", Some("p"), wrong))).await.expect_err("a wrong number");
        assert_eq!(error.applied, Applied::No, "{error:?}");
        refused(send(&mut c, stamped("s", "p", epoch, 2, &["c"])).await, Code::SessionPoisoned, "P-12");
    }
    answer(c.resume(resuming("s", Some("p"), Some(2)))).await.unwrap();
    assert_eq!(send(&mut c, stamped("s", "p", epoch, 2, &["c"])).await, stored(2, 1));
}

#[tokio::test]
async fn p12_resume_and_appends_after_it_may_be_pipelined_behind_the_refusal() {
    let (bench, mut c, epoch) = one().await;
    let gap = c.append(stamped("s", "p", epoch, 5, &["f"])).await;
    let poisoned = c.append(stamped("s", "p", epoch, 6, &["g"])).await;
    let resumed = c.resume(resuming("s", Some("p"), Some(0))).await;
    let a = c.append(stamped("s", "p", epoch, 0, &["a"])).await;
    let b = c.append(stamped("s", "p", epoch, 1, &["b"])).await;
    refused(soon(gap).await, Code::ProducerSeqGap, "P-8");
    refused(soon(poisoned).await, Code::SessionPoisoned, "P-12");
    soon(resumed).await.unwrap();
    assert_eq!(soon(a).await, stored(0, 1));
    assert_eq!(soon(b).await, stored(1, 1));
    assert_eq!(bench.texts("s").await, ["a", "b"]);
}

#[tokio::test]
async fn p12_without_a_producer_poisoning_is_the_protection_against_holes() {
    let bench = Bench::with_stream("s").await;
    let mut c = bench.connect();
    let first = c.append(plain("s", &["a"])).await;
    let failed = c.append(expecting(plain("s", &["b"]), 9)).await;
    let later = c.append(plain("s", &["c"])).await;
    assert_eq!(soon(first).await, stored(0, 1));
    refused(soon(failed).await, Code::ConditionFailed, "");
    refused(soon(later).await, Code::SessionPoisoned, "P-12");
    answer(c.resume(resuming("s", None, None))).await.unwrap();
    assert_eq!(send(&mut c, plain("s", &["b"])).await, stored(1, 1));
    assert_eq!(bench.texts("s").await, ["a", "b"]);
}

#[tokio::test]
async fn p12_poisoning_is_per_connection_stream_and_producer() {
    let (bench, mut c, epoch) = one().await;
    bench.create("t").await;
    let q = open(&mut c, "s", "q").await;
    let t = open(&mut c, "t", "p").await;
    refused(send(&mut c, stamped("s", "p", epoch, 3, &["x"])).await, Code::ProducerSeqGap, "P-8");
    assert_eq!(send(&mut c, stamped("s", "q", q, 0, &["another producer"])).await, stored(0, 1));
    assert_eq!(send(&mut c, stamped("t", "p", t, 0, &["another stream"])).await, stored(0, 1));
    assert_eq!(send(&mut c, plain("s", &["no producer"])).await, stored(1, 1));
    let mut other = bench.connect();
    assert_eq!(send(&mut other, stamped("s", "p", epoch, 0, &["another connection"])).await, stored(2, 1));
    refused(send(&mut c, stamped("s", "p", epoch, 1, &["y"])).await, Code::SessionPoisoned, "P-12");
}

#[tokio::test]
async fn p12_unary_appends_never_poison() {
    let (bench, _c, epoch) = one().await;
    refused(ask(&bench, epoch, 4, &["x"]).await, Code::ProducerSeqGap, "P-8");
    assert_eq!(ask(&bench, epoch, 0, &["a"]).await, stored(0, 1));
    refused(bench.append(expecting(plain("s", &["b"]), 7)).await, Code::ConditionFailed, "");
    assert_eq!(bench.append(plain("s", &["b"])).await, stored(1, 1));
}

#[tokio::test]
async fn p12_any_refusal_poisons_even_one_for_a_missing_stream() {
    let bench = Bench::new().await;
    let mut c = bench.connect();
    refused(send(&mut c, plain("later", &["a"])).await, Code::NotFound, "");
    bench.create("later").await;
    refused(send(&mut c, plain("later", &["b"])).await, Code::SessionPoisoned, "P-12");
    answer(c.resume(resuming("later", None, None))).await.unwrap();
    assert_eq!(send(&mut c, plain("later", &["a"])).await, stored(0, 1));
}

#[tokio::test]
async fn p12_an_undecodable_append_poisons_its_session_in_order() {
    let (bench, mut c, epoch) = one().await;
    let a = c.append(stamped("s", "p", epoch, 0, &["a"])).await;
    soon(c.spoil(Some(name("s")), Some(producer("p")))).await;
    let b = c.append(stamped("s", "p", epoch, 1, &["b"])).await;
    let free = c.append(plain("s", &["free"])).await;
    assert_eq!(soon(a).await, stored(0, 1));
    refused(soon(b).await, Code::SessionPoisoned, "P-12");
    assert_eq!(soon(free).await, stored(1, 1));
    answer(c.resume(resuming("s", Some("p"), Some(1)))).await.unwrap();
    assert_eq!(send(&mut c, stamped("s", "p", epoch, 1, &["b"])).await, stored(2, 1));
    assert_eq!(bench.texts("s").await, ["a", "free", "b"]);
}

#[tokio::test]
async fn p12_an_append_whose_session_cannot_be_read_poisons_every_session_of_the_connection() {
    let (bench, mut c, epoch) = one().await;
    bench.create("t").await;
    let a = c.append(stamped("s", "p", epoch, 0, &["a"])).await;
    soon(c.spoil(None, None)).await;
    let b = c.append(stamped("s", "p", epoch, 1, &["b"])).await;
    let plain_s = c.append(plain("s", &["c"])).await;
    let never_used = c.append(plain("t", &["d"])).await;
    assert_eq!(soon(a).await, stored(0, 1));
    refused(soon(b).await, Code::SessionPoisoned, "P-12");
    refused(soon(plain_s).await, Code::SessionPoisoned, "P-12");
    refused(soon(never_used).await, Code::SessionPoisoned, "P-12");
    answer(c.resume(resuming("t", None, None))).await.unwrap();
    assert_eq!(send(&mut c, plain("t", &["d"])).await, stored(0, 1), "each session is resumed on its own");
    refused(send(&mut c, plain("s", &["c"])).await, Code::SessionPoisoned, "P-12");
    let mut other = bench.connect();
    assert_eq!(send(&mut other, plain("s", &["c"])).await, stored(1, 1), "other connections are left alone");
}

/// Those at rest are poisoned on the spot, the others in their place in the order: nobody can tell which was which.
#[tokio::test]
async fn p12_sessions_at_rest_and_sessions_on_their_way_are_poisoned_by_the_same_frame() {
    let bench = Bench::with_stream("s").await;
    let mut c = bench.connect();
    let ids: Vec<String> = (0..20).map(|n| format!("p{n}")).collect();
    let mut epochs = Vec::new();
    for id in &ids {
        epochs.push(open(&mut c, "s", id).await);
    }
    for (n, (id, epoch)) in ids.iter().zip(&epochs).enumerate() {
        assert_eq!(send(&mut c, stamped("s", id, *epoch, 0, &["at rest"])).await, stored(n as u64, 1));
    }
    let mut on_their_way = Vec::new();
    for (id, epoch) in ids.iter().zip(&epochs).skip(10) {
        on_their_way.push(c.append(stamped("s", id, *epoch, 1, &["on its way"])).await);
    }
    soon(c.spoil(None, None)).await;
    let mut later = Vec::new();
    for (n, (id, epoch)) in ids.iter().zip(&epochs).enumerate() {
        later.push(c.append(stamped("s", id, *epoch, if n < 10 { 1 } else { 2 }, &["behind it"])).await);
    }
    for (n, before) in on_their_way.into_iter().enumerate() {
        assert_eq!(soon(before).await, stored(20 + n as u64, 1), "what came before the frame is stored");
    }
    for behind in later {
        refused(soon(behind).await, Code::SessionPoisoned, "P-12");
    }
    for (n, (id, epoch)) in ids.iter().zip(&epochs).enumerate() {
        let seq = if n < 10 { 1 } else { 2 };
        answer(c.resume(resuming("s", Some(id), Some(seq)))).await.unwrap();
        assert_eq!(send(&mut c, stamped("s", id, *epoch, seq, &["again"])).await, stored(30 + n as u64, 1));
    }
}

#[tokio::test]
async fn p12_a_session_that_was_resumed_is_poisoned_again_by_the_next_frame_that_cannot_be_read() {
    let bench = Bench::with_stream("s").await;
    let mut c = bench.connect();
    for (offset, which) in [None, Some(name("s")), None, Some(name("s"))].into_iter().enumerate() {
        for _ in 0..3 {
            soon(c.spoil(which.clone(), None)).await;
        }
        refused(send(&mut c, plain("s", &["x"])).await, Code::SessionPoisoned, "P-12");
        answer(c.resume(resuming("s", None, None))).await.unwrap();
        assert_eq!(send(&mut c, plain("s", &["x"])).await, stored(offset as u64, 1));
    }
}

#[tokio::test]
async fn p12_a_poisoned_session_that_was_forgotten_comes_back_poisoned() {
    let bench = Bench::new().await;
    let mut c = bench.connect();
    refused(send(&mut c, plain("later", &["a"])).await, Code::NotFound, "");
    bench.create("later").await;
    for n in 0..3 * tidelog::types::limits::APPEND_SESSIONS {
        assert!(send(&mut c, plain(&format!("none-{n}"), &["x"])).await.is_err());
    }
    refused(send(&mut c, plain("later", &["b"])).await, Code::SessionPoisoned, "P-12");
    answer(c.resume(resuming("later", None, None))).await.unwrap();
    assert_eq!(send(&mut c, plain("later", &["a"])).await, stored(0, 1));
}

#[tokio::test]
async fn p12_opening_the_producer_again_does_not_end_the_poisoning() {
    let (_bench, mut c, epoch) = one().await;
    refused(send(&mut c, stamped("s", "p", epoch, 3, &["x"])).await, Code::ProducerSeqGap, "P-8");
    let epoch = open(&mut c, "s", "p").await;
    refused(send(&mut c, stamped("s", "p", epoch, 0, &["a"])).await, Code::SessionPoisoned, "P-12");
    answer(c.resume(resuming("s", Some("p"), Some(0)))).await.unwrap();
    assert_eq!(send(&mut c, stamped("s", "p", epoch, 0, &["a"])).await, stored(0, 1));
}

#[tokio::test]
async fn p12_many_batches_may_be_in_flight_and_land_in_order() {
    let (bench, mut c, epoch) = one().await;
    let mut pending = Vec::new();
    for seq in 0..300 {
        pending.push(soon(c.append(stamped("s", "p", epoch, seq, &[&format!("{seq}")]))).await);
    }
    for (seq, pending) in pending.into_iter().enumerate() {
        assert_eq!(soon(pending).await, stored(seq as u64, 1));
    }
    assert_eq!(bench.texts("s").await, (0..300).map(|i| i.to_string()).collect::<Vec<_>>());
}

#[tokio::test]
async fn p13_a_dropped_answer_leaves_the_batch_whole() {
    let (bench, mut c, epoch) = one().await;
    bench.engine.stop();
    let dropped = c.append(stamped("s", "p", epoch, 0, &["a", "b", "c"])).await;
    drop(dropped);
    let next = c.append(stamped("s", "p", epoch, 3, &["d"])).await;
    bench.engine.waiting().await;
    bench.engine.go();
    assert_eq!(soon(next).await, stored(3, 1));
    assert_eq!(bench.texts("s").await, ["a", "b", "c", "d"]);
}

#[tokio::test]
async fn p13_a_cancelled_unary_append_is_there_whole_or_not_at_all() {
    let (bench, mut c, epoch) = one().await;
    bench.engine.stop();
    let first = c.append(plain("s", &["first"])).await;
    bench.engine.waiting().await;
    let broker = bench.broker.clone();
    let task = tokio::spawn(async move { broker.append(&OPERATOR, stamped("s", "p", epoch, 0, &["a", "b"])).await });
    tokio::task::yield_now().await;
    task.abort();
    let _ = task.await;
    bench.engine.go();
    assert_eq!(soon(first).await, stored(0, 1));
    bench.put("s", &["last"]).await;
    let texts = bench.texts("s").await;
    assert!(texts == ["first", "a", "b", "last"] || texts == ["first", "last"], "{texts:?}");
    let retry = ask(&bench, epoch, 0, &["a", "b"]).await.unwrap();
    assert_eq!(retry.duplicate, texts.len() == 4, "the resend settles it");
}

#[tokio::test]
async fn p13_a_batch_over_a_limit_is_refused_whole() {
    let bench = Bench::new().await;
    soon(bench.broker.create_stream(&OPERATOR, NewStream { event_max_bytes: Some(4), ..NewStream::named(name("s")) })).await.unwrap();
    refused(bench.append(plain("s", &["1234", "12345", "1"])).await, Code::TooLarge, "");
    assert_eq!(bench.next_offset("s").await, 0);
    assert_eq!(bench.append(plain("s", &["1234", "1"])).await, stored(0, 2));
}

#[tokio::test]
async fn p14_receipts_answer_after_the_events_were_trimmed_away() {
    let (bench, _c, epoch) = one().await;
    for seq in 0..limits::RECEIPT_RING {
        assert_eq!(ask(&bench, epoch, seq, &["x"]).await, stored(seq, 1));
    }
    bench.trim("s", limits::RECEIPT_RING).await;
    for seq in 0..limits::RECEIPT_RING {
        assert_eq!(ask(&bench, epoch, seq, &["x"]).await, repeated(seq, 1), "all {} receipts are kept", limits::RECEIPT_RING);
    }
    let bench = bench.crash().await;
    for seq in 0..limits::RECEIPT_RING {
        assert_eq!(ask(&bench, epoch, seq, &["x"]).await, repeated(seq, 1));
    }
    refused(ask(&bench, epoch, 3, &["y"]).await, Code::ProducerSeqReused, "P-5");
}

#[tokio::test]
async fn p15_the_state_of_a_producer_survives_trim_close_and_restarts() {
    let (bench, _c, epoch) = one().await;
    assert_eq!(ask(&bench, epoch, 0, &["a", "b"]).await, stored(0, 2));
    bench.trim("s", 2).await;
    bench.close("s").await;
    let mut bench = bench.restart().await.crash().await;
    for expected in [epoch + 1, epoch + 2] {
        let opened = answer(bench.connect().open_producer(opening(Some("s"), "p", Expect::Resume))).await.unwrap();
        assert_eq!((opened.epoch, opened.last_seq, opened.next_offset, opened.origin), (expected, Some(1), Some(2), Origin::Resumed));
        bench = bench.crash().await;
    }
    assert_eq!(ask(&bench, epoch + 2, 0, &["a", "b"]).await, repeated(0, 2));
}

#[tokio::test]
async fn p15_an_opening_that_expects_state_where_there_is_none_fails_and_creates_none() {
    let bench = Bench::with_stream("s").await;
    let mut c = bench.connect();
    refused(answer(c.open_producer(opening(Some("s"), "p", Expect::Resume))).await, Code::ProducerStateLost, "P-15");
    refused(answer(c.open_producer(opening(None, "p", Expect::Resume))).await, Code::ProducerStateLost, "P-15");
    refused(bench.append(stamped("s", "p", 1, 0, &["a"])).await, Code::ProducerUnknown, "P-1");
}

#[tokio::test]
async fn an_opening_that_expects_nothing_where_there_is_state_is_name_taken_and_fences_nobody() {
    let (bench, mut c, epoch) = one().await;
    refused(answer(c.open_producer(opening(Some("s"), "p", Expect::Create))).await, Code::NameTaken, "");
    assert_eq!(ask(&bench, epoch, 0, &["a"]).await, stored(0, 1));
    open_wide(&mut c, "tx").await;
    refused(answer(c.open_producer(opening(None, "tx", Expect::Create))).await, Code::NameTaken, "");
}

#[tokio::test]
async fn p16_a_source_with_its_own_positions_is_ingested_exactly_once_through_crashes() {
    let source: Vec<String> = (0..100).map(|i| format!("line {i}")).collect();
    let mut bench = Bench::with_stream("s").await;
    let mut crashes = 0;
    loop {
        let mut c = bench.connect();
        let opened = answer(c.open_producer(opening(Some("s"), "src", Expect::Any))).await.unwrap();
        let next = opened.last_seq.map_or(0, |l| l as usize + 1);
        if next == source.len() {
            break;
        }
        let mut pending = Vec::new();
        for (batch, lines) in source[next..].chunks(3).enumerate().take(7) {
            let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
            pending.push(soon(c.append(stamped("s", "src", opened.epoch, (next + batch * 3) as u64, &lines))).await);
        }
        // Some answers are lost, and the process dies wherever it is.
        for answer in pending.into_iter().take(2) {
            soon(answer).await.unwrap();
        }
        crashes += 1;
        bench = bench.crash().await;
    }
    assert!(crashes > 3, "{crashes}");
    assert_eq!(bench.texts("s").await, source);
}

#[tokio::test]
async fn p17_appends_without_a_producer_are_never_deduplicated() {
    let bench = Bench::with_stream("s").await;
    let mut c = bench.connect();
    assert_eq!(send(&mut c, plain("s", &["same"])).await, stored(0, 1));
    assert_eq!(send(&mut c, plain("s", &["same"])).await, stored(1, 1));
    assert_eq!(bench.append(plain("s", &["same"])).await, stored(2, 1));
}

#[tokio::test]
async fn p18_a_failed_condition_says_whether_the_events_are_there_already() {
    let bench = Bench::with_stream("s").await;
    bench.put("s", &["zero"]).await;
    let attempt = |texts: &[&str]| expecting(plain("s", texts), 1);
    assert_eq!(bench.append(attempt(&["a", "b"])).await, stored(1, 2));
    let own = refused(bench.append(attempt(&["a", "b"])).await, Code::ConditionFailed, "P-18");
    assert!(detail_bool(&own, "already_stored"));
    assert_eq!(detail(&own, "next_offset"), 3);
    for others in [&["a", "c"][..], &["a", "b", "c"], &["zero"], &["b"]] {
        let error = refused(bench.append(attempt(others)).await, Code::ConditionFailed, "P-18");
        assert!(!detail_bool(&error, "already_stored"), "{others:?}");
    }
    let prefix = refused(bench.append(attempt(&["a"])).await, Code::ConditionFailed, "P-18");
    assert!(detail_bool(&prefix, "already_stored"), "[N, N + n) holds these very events, in whatever batch");
    let ahead = refused(bench.append(expecting(plain("s", &["a"]), 9)).await, Code::ConditionFailed, "P-18");
    assert!(!detail_bool(&ahead, "already_stored"));
    assert_eq!(bench.texts("s").await, ["zero", "a", "b"]);
}

#[tokio::test]
async fn p18_a_failed_condition_whose_place_cannot_be_read_is_not_answered_with_a_guess() {
    let bench = Bench::with_stream("s").await;
    let id = bench.describe("s").await.id;
    let attempt = expecting(plain("s", &["a"]), 0);
    assert_eq!(bench.append(attempt.clone()).await, stored(0, 1));
    // Of the resend the broker cannot tell any more whether it is its own success: `already_stored: false` would be a lie.
    bench.memory.damage(id, 0);
    refused(bench.append(attempt).await, Code::DataCorrupt, "S-6");
}

#[tokio::test]
async fn p18_the_answer_is_computed_from_the_log_over_several_batches_and_after_a_crash() {
    let bench = Bench::with_stream("s").await;
    bench.put("s", &["a"]).await;
    bench.put("s", &["b", "c"]).await;
    let bench = bench.crash().await;
    let error = refused(bench.append(expecting(plain("s", &["a", "b"]), 0)).await, Code::ConditionFailed, "P-18");
    assert!(detail_bool(&error, "already_stored"));
    bench.trim("s", 1).await;
    let error = refused(bench.append(expecting(plain("s", &["a", "b"]), 0)).await, Code::ConditionFailed, "P-18");
    assert!(!detail_bool(&error, "already_stored"), "what is trimmed cannot be compared");
}

#[tokio::test]
async fn an_opening_is_a_barrier_older_epochs_are_counted_before_and_fenced_after() {
    let (bench, mut zombie, old) = one().await;
    let mut fresh = bench.connect();
    bench.engine.stop();
    let before = zombie.append(stamped("s", "p", old, 0, &["a", "b"])).await;
    let opening = fresh.open_producer(opening(Some("s"), "p", Expect::Any)).await;
    let after = zombie.append(stamped("s", "p", old, 2, &["c"])).await;
    bench.engine.waiting().await;
    bench.engine.go();
    assert_eq!(soon(before).await, stored(0, 2));
    let opened = soon(opening).await.unwrap();
    assert_eq!((opened.epoch, opened.last_seq, opened.next_offset), (old + 1, Some(1), Some(2)));
    let error = refused(soon(after).await, Code::ProducerFenced, "P-2");
    assert_eq!(detail(&error, "epoch"), old + 1);
    assert_eq!(send(&mut fresh, stamped("s", "p", old + 1, 2, &["d"])).await, stored(2, 1));
    assert_eq!(bench.texts("s").await, ["a", "b", "d"]);
}

#[tokio::test]
async fn the_new_epoch_is_durable_before_the_reply() {
    let (bench, mut c, epoch) = one().await;
    bench.engine.stop();
    let mut pending = Box::pin(c.open_producer(opening(Some("s"), "p", Expect::Any)).await);
    bench.engine.waiting().await;
    nothing_yet(&mut pending).await;
    bench.engine.go();
    assert_eq!(soon(pending).await.unwrap().epoch, epoch + 1);
    let bench = bench.crash().await;
    let error = refused(ask(&bench, epoch, 0, &["a"]).await, Code::ProducerFenced, "P-2");
    assert_eq!(detail(&error, "epoch"), epoch + 1);
}
