//! C-17, C-19, C-20 and what a session hands out: order, windows, live, gaps, ephemeral readers, the end.

use std::time::Duration;

use crate::support::*;

#[tokio::test]
async fn c17_history_and_tail_join_without_a_hole_or_a_repeat() {
    let bench = Bench::with_stream("s").await;
    bench.fill("s", 50).await;
    bench.subscribe_new("s", "x").await;
    let bench = bench.crash().await;
    let mut c = bench.connect();
    let mut reader = Reader::durable(&mut c, "s", "x").await;
    let broker = bench.broker.clone();
    let writer = tokio::spawn(async move {
        for i in 50..400 {
            broker.append(&OPERATOR, plain("s", &[&format!("e{i}")])).await.unwrap();
        }
    });
    let mut got = Vec::new();
    while got.len() < 400 {
        if let Delivery::Events { slices, .. } = reader.next().await.unwrap() {
            got.extend(slices.iter().flat_map(texts_of));
        }
    }
    writer.await.unwrap();
    let expected: Vec<_> = (0..400).map(|i| (i, format!("e{i}"))).collect();
    assert_eq!(got, expected);
}

#[tokio::test]
async fn c17_windows_cut_batches_at_event_boundaries() {
    let bench = Bench::with_stream("s").await;
    bench.put("s", &["a", "b", "c", "d", "e"]).await;
    bench.put("s", &["f", "g"]).await;
    bench.subscribe_new_window("s", "x", 3).await;
    let mut c = bench.connect();
    let from = SubscribeRequest { from: Some(Start::Offset(1)), ..attach("s", "x") };
    let mut reader = Reader::open(&mut c, from).await.unwrap();
    assert_eq!(reader.take(3).await, [(1, "b".into()), (2, "c".into()), (3, "d".into())], "a start in mid-batch");
    reader.is_paused().await;
    assert_eq!(reader.ack(&mut c, 1).await, acked(2));
    assert_eq!(reader.take(1).await, [(4, "e".into())]);
    assert_eq!(reader.ack(&mut c, 4).await, acked(5));
    assert_eq!(reader.take(2).await, [(5, "f".into()), (6, "g".into())]);
}

#[tokio::test]
async fn c19_the_server_never_acks_by_itself() {
    let bench = Bench::with_stream("s").await;
    bench.fill("s", 10).await;
    bench.subscribe_new("s", "x").await;
    let mut c = bench.connect();
    let mut reader = Reader::durable(&mut c, "s", "x").await;
    reader.take_until_live().await;
    assert_eq!(bench.subscription("s", "x").await.next, 0);
    drop(reader);
    let mut reader = Reader::durable(&mut c, "s", "x").await;
    assert_eq!(reader.take_until_live().await.len(), 10, "all of it comes again");
    let bench = bench.restart().await;
    assert_eq!(bench.subscription("s", "x").await.next, 0);
}

#[tokio::test]
async fn c20_out_of_window_the_session_pauses_and_acks_refill_it() {
    let bench = Bench::with_stream("s").await;
    bench.fill("s", 10).await;
    bench.subscribe_new_window("s", "x", 4).await;
    let mut c = bench.connect();
    let mut reader = Reader::durable(&mut c, "s", "x").await;
    reader.take(4).await;
    reader.is_paused().await;
    assert_eq!(reader.ack(&mut c, 0).await, acked(1));
    assert_eq!(reader.take(1).await[0].0, 4);
    reader.is_paused().await;
    assert_eq!(reader.ack(&mut c, 0).await, acked(1));
    reader.is_paused().await;
    assert_eq!(answer(c.ack(&reader.handle, 3, AckLevel::Received)).await, acked(4));
    assert_eq!(reader.take(3).await[0].0, 5, "received acks refill too");
    reader.is_paused().await;
}

#[tokio::test]
async fn c20_a_pause_ends_while_next_is_being_awaited() {
    let bench = Bench::with_stream("s").await;
    bench.fill("s", 3).await;
    bench.subscribe_new_window("s", "x", 2).await;
    let mut c = bench.connect();
    let mut reader = Reader::durable(&mut c, "s", "x").await;
    reader.take(2).await;
    let handle = reader.handle.clone();
    let waiting = tokio::spawn(async move {
        let events = reader.take(1).await;
        (reader, events)
    });
    tokio::task::yield_now().await;
    assert_eq!(answer(c.ack(&handle, 0, AckLevel::Durable)).await, acked(1));
    let (_reader, events) = soon(waiting).await.unwrap();
    assert_eq!(events, [(2, "e2".into())]);
}

#[tokio::test]
async fn c20_a_commit_refills_the_window_like_an_ack() {
    let bench = Bench::with_stream("s").await;
    bench.fill("s", 4).await;
    bench.subscribe_new_window("s", "x", 2).await;
    let mut c = bench.connect();
    let mut reader = Reader::durable(&mut c, "s", "x").await;
    reader.take(2).await;
    reader.is_paused().await;
    let commit = CommitRequest { acks: vec![commit_ack("s", "x", reader.epoch(), 1)], ..CommitRequest::default() };
    answer(c.commit(commit)).await.unwrap();
    assert_eq!(reader.take(2).await[0].0, 2);
}

#[tokio::test]
async fn c20_credit_widens_the_window_of_a_durable_session() {
    let bench = Bench::with_stream("s").await;
    bench.fill("s", 10).await;
    bench.subscribe_new_window("s", "x", 2).await;
    let mut c = bench.connect();
    let mut reader = Reader::durable(&mut c, "s", "x").await;
    reader.take(2).await;
    reader.is_paused().await;
    reader.handle.credit(Credit { events: 3, bytes: 1000 });
    reader.take(3).await;
    reader.is_paused().await;
    assert_eq!(reader.ack(&mut c, 4).await, acked(5));
    reader.take(5).await;
}

#[tokio::test]
async fn c20_the_first_grant_may_be_chosen_at_the_opening() {
    let bench = Bench::with_stream("s").await;
    bench.fill("s", 10).await;
    bench.subscribe_new("s", "x").await;
    let mut c = bench.connect();
    let request = SubscribeRequest { credit: Some(Credit { events: 2, bytes: 1_000_000 }), ..attach("s", "x") };
    let mut reader = Reader::open(&mut c, request).await.unwrap();
    reader.take(2).await;
    reader.is_paused().await;
}

#[tokio::test]
async fn c20_bytes_bound_the_window_and_one_event_passes_whatever_its_size_when_nothing_is_in_flight() {
    let bench = Bench::with_stream("s").await;
    let long = "x".repeat(5000);
    for text in ["ab", "cd", "ef", &long, "gh", &long] {
        bench.put("s", &[text]).await;
    }
    bench.subscribe_new("s", "x").await;
    let mut c = bench.connect();
    let request = SubscribeRequest { credit: Some(Credit { events: 100, bytes: 5 }), ..attach("s", "x") };
    let mut reader = Reader::open(&mut c, request).await.unwrap();
    assert_eq!(reader.take(2).await[1].1, "cd", "2 + 2 bytes fit into 5, the next 2 do not");
    reader.is_paused().await;
    assert_eq!(reader.ack(&mut c, 1).await, acked(2));
    assert_eq!(reader.take(1).await, [(2, "ef".into())]);
    reader.is_paused().await;
    assert_eq!(reader.ack(&mut c, 2).await, acked(3));
    assert_eq!(reader.take(1).await[0].1.len(), 5000, "nothing in flight: it passes alone");
    reader.is_paused().await;
    assert_eq!(reader.ack(&mut c, 3).await, acked(4));
    assert_eq!(reader.take(1).await, [(4, "gh".into())]);
    reader.is_paused().await;
}

#[tokio::test]
async fn c20_a_full_batch_of_large_events_is_cut_to_the_byte_window() {
    let bench = Bench::with_stream("s").await;
    let request = AppendRequest { events: big(6, 1000), ..plain("s", &["-"]) };
    bench.append(request).await.unwrap();
    bench.subscribe_new("s", "x").await;
    let mut c = bench.connect();
    let request = SubscribeRequest { credit: Some(Credit { events: 100, bytes: 2500 }), ..attach("s", "x") };
    let mut reader = Reader::open(&mut c, request).await.unwrap();
    reader.take(2).await;
    reader.is_paused().await;
    assert_eq!(reader.ack(&mut c, 1).await, acked(2));
    reader.take(2).await;
}

#[tokio::test]
async fn c20_the_default_window_is_a_thousand_events() {
    let bench = Bench::with_stream("s").await;
    let texts: Vec<String> = (0..1200).map(|i| format!("e{i}")).collect();
    bench.append(AppendRequest { events: events(&texts), ..plain("s", &["-"]) }).await.unwrap();
    bench.subscribe_new("s", "x").await;
    let mut c = bench.connect();
    let mut reader = Reader::durable(&mut c, "s", "x").await;
    reader.take(1000).await;
    reader.is_paused().await;
    let mut ephemeral = Reader::open(&mut c, attach_ephemeral("s", Some(Start::Earliest))).await.unwrap();
    ephemeral.take(1000).await;
    ephemeral.is_paused().await;
}

#[tokio::test]
async fn live_is_said_when_everything_has_been_handed_out() {
    let bench = Bench::with_stream("s").await;
    bench.subscribe_new("s", "x").await;
    let mut c = bench.connect();
    let mut empty = Reader::durable(&mut c, "s", "x").await;
    assert!(matches!(empty.next().await.unwrap(), Delivery::Live { next_offset: 0 }));
    bench.put("s", &["a", "b"]).await;
    assert_eq!(empty.take(2).await, [(0, "a".into()), (1, "b".into())]);
    let mut second = Reader::open(&mut c, attach_ephemeral("s", Some(Start::Earliest))).await.unwrap();
    assert_eq!(second.take_until_live().await.len(), 2);
    let mut at_end = Reader::open(&mut c, attach_ephemeral("s", Some(Start::Latest))).await.unwrap();
    assert!(matches!(at_end.next().await.unwrap(), Delivery::Live { next_offset: 2 }));
}

#[tokio::test]
async fn live_is_not_said_while_the_window_holds_events_back() {
    let bench = Bench::with_stream("s").await;
    bench.fill("s", 3).await;
    bench.subscribe_new_window("s", "x", 2).await;
    let mut c = bench.connect();
    let mut reader = Reader::durable(&mut c, "s", "x").await;
    reader.take(2).await;
    if let Ok(early) = tokio::time::timeout(Duration::from_millis(40), reader.session.next()).await {
        panic!("one event is still to come, but {early:?}");
    }
    reader.ack(&mut c, 1).await.unwrap();
    assert_eq!(reader.take_until_live().await, [(2, "e2".into())]);
}

#[tokio::test]
async fn lag_in_a_delivery_counts_from_the_event_after_its_last() {
    let bench = Bench::with_stream("s").await;
    for _ in 0..5 {
        bench.put("s", &["12345", "12345"]).await;
    }
    bench.subscribe_new_window("s", "x", 3).await;
    let mut c = bench.connect();
    let mut reader = Reader::durable(&mut c, "s", "x").await;
    let mut taken = 0;
    while taken < 3 {
        let Delivery::Events { slices, lag } = reader.next().await.unwrap() else { panic!("events come first") };
        taken += slices.iter().map(Slice::count).sum::<u64>();
        let now = TimeUs::now();
        assert_eq!((lag.events, lag.bytes), (10 - taken, (10 - taken) * 5));
        let first_counted = bench.broker.event(&OPERATOR, &name("s"), Which::Offset(taken)).await.unwrap().batch().head.time;
        assert!(lag.seconds <= now.seconds_since(first_counted) && lag.seconds >= 0.0, "{lag:?}");
    }
    reader.ack(&mut c, 2).await.unwrap();
    reader.take(3).await;
    reader.ack(&mut c, 5).await.unwrap();
    reader.take(3).await;
    reader.ack(&mut c, 8).await.unwrap();
    let Delivery::Events { lag, .. } = reader.next_but_live().await.unwrap() else { panic!("the last event") };
    assert_eq!(lag, Lag { events: 0, bytes: 0, seconds: 0.0 });
}

#[tokio::test]
async fn an_ephemeral_reader_begins_at_the_latest_event_and_has_no_epoch() {
    let bench = Bench::with_stream("s").await;
    bench.fill("s", 3).await;
    let mut c = bench.connect();
    let mut reader = Reader::open(&mut c, attach_ephemeral("s", None)).await.unwrap();
    assert_eq!((reader.opened.next, reader.opened.epoch, reader.handle.epoch()), (3, None, None));
    bench.put("s", &["new"]).await;
    assert_eq!(reader.take(1).await, [(3, "new".into())]);
    let from_one = Reader::open(&mut c, attach_ephemeral("s", Some(Start::Offset(1)))).await.unwrap();
    assert_eq!(from_one.opened.next, 1);
    let mut both = from_one;
    assert_eq!(both.take(3).await[0].0, 1);
    assert!(bench.broker.subscriptions(&OPERATOR, &name("s"), ListQuery::default()).await.unwrap().items.is_empty(), "nothing is stored");
}

#[tokio::test]
async fn an_ack_on_an_ephemeral_reader_does_not_fit() {
    let bench = Bench::with_stream("s").await;
    bench.fill("s", 1).await;
    let mut c = bench.connect();
    let mut reader = Reader::open(&mut c, attach_ephemeral("s", Some(Start::Earliest))).await.unwrap();
    reader.take(1).await;
    refused(reader.ack(&mut c, 0).await, Code::AckModeMismatch, "");
    bench.put("s", &["next"]).await;
    assert_eq!(reader.take(1).await, [(1, "next".into())], "the session lives on");
}

#[tokio::test]
async fn an_ephemeral_reader_lives_on_credit_alone() {
    let bench = Bench::with_stream("s").await;
    bench.fill("s", 10).await;
    let mut c = bench.connect();
    let request = SubscribeRequest { credit: Some(Credit { events: 3, bytes: 1_000_000 }), ..attach_ephemeral("s", Some(Start::Earliest)) };
    let mut reader = Reader::open(&mut c, request).await.unwrap();
    reader.take(3).await;
    reader.is_paused().await;
    reader.handle.credit(Credit { events: 2, bytes: 0 });
    reader.take(2).await;
    reader.is_paused().await;
}

#[tokio::test]
async fn an_ephemeral_reader_of_trimmed_events_gets_a_gap_by_default_and_fails_on_demand() {
    let bench = Bench::with_stream("s").await;
    bench.fill("s", 5).await;
    bench.trim("s", 3).await;
    let mut c = bench.connect();
    let mut reader = Reader::open(&mut c, attach_ephemeral("s", Some(Start::Offset(1)))).await.unwrap();
    let gap = reader.next().await.unwrap();
    assert!(matches!(gap, Delivery::Gap { from: 1, to: 2, reason: GapReason::Retention }), "{gap:?}");
    assert_eq!(reader.take(2).await[0].0, 3);
    let fail = SubscribeRequest { on_gap: Some(OnGap::Fail), ..attach_ephemeral("s", Some(Start::Offset(1))) };
    let error = refused(answer(c.subscribe(fail)).await.map(|(s, _)| s), Code::CursorTrimmed, "C-6");
    assert_eq!(detail(&error, "first_offset"), 3);
    let earliest = Reader::open(&mut c, attach_ephemeral("s", Some(Start::Earliest))).await.unwrap();
    assert_eq!(earliest.opened.next, 3, "earliest is the first kept event: no gap");
}

#[tokio::test]
async fn a_gap_over_everything_leads_to_live_at_the_end() {
    let bench = Bench::with_stream("s").await;
    bench.fill("s", 5).await;
    bench.subscribe_new("s", "x").await;
    bench.trim("s", 5).await;
    let mut c = bench.connect();
    let skip = SubscribeRequest { on_gap: Some(OnGap::Skip), ..attach("s", "x") };
    let mut reader = Reader::open(&mut c, skip).await.unwrap();
    assert!(matches!(reader.next().await.unwrap(), Delivery::Gap { from: 0, to: 4, .. }));
    assert!(matches!(reader.next().await.unwrap(), Delivery::Live { next_offset: 5 }));
    assert_eq!(reader.ack(&mut c, 4).await, acked(5));
}

#[tokio::test]
async fn next_may_be_cancelled_at_any_time() {
    let bench = Bench::with_stream("s").await;
    bench.subscribe_new("s", "x").await;
    let mut c = bench.connect();
    let mut reader = Reader::durable(&mut c, "s", "x").await;
    let broker = bench.broker.clone();
    let writer = tokio::spawn(async move {
        for i in 0..200 {
            broker.append(&OPERATOR, plain("s", &[&format!("e{i}")])).await.unwrap();
        }
    });
    let mut got = 0u64;
    let mut patience = 0;
    while got < 200 {
        tokio::select! {
            biased;
            delivery = reader.session.next() => {
                let delivery = delivery.unwrap();
                reader.check(&delivery);
                got = reader.at;
            }
            () = tokio::task::yield_now() => {
                patience += 1;
                assert!(patience < 10_000_000, "only {got} events came");
            }
        }
    }
    soon(writer).await.unwrap();
}

#[tokio::test]
async fn draining_ends_sessions_with_a_hint_and_refuses_new_work() {
    let bench = Bench::with_stream("s").await;
    bench.fill("s", 1).await;
    bench.subscribe_new("s", "x").await;
    let mut c = bench.connect();
    let mut reader = Reader::durable(&mut c, "s", "x").await;
    reader.take_until_live().await;
    let in_flight = c.append(plain("s", &["last"])).await;
    soon(bench.broker.drain()).await;
    assert_eq!(soon(in_flight).await, stored(1, 1), "what was accepted is finished");
    let error = refused(Err::<(), _>(reader.end().await), Code::Unavailable, "");
    assert!(error.details.contains_key("retry_after_s"), "{error:?}");
    refused(bench.append(plain("s", &["late"])).await, Code::Unavailable, "");
    refused(answer(c.append(plain("s", &["late"]))).await, Code::Unavailable, "");
    assert!(!bench.broker.health().ready);
}

#[tokio::test]
async fn many_readers_of_one_stream_see_the_same_history() {
    let bench = Bench::with_stream("s").await;
    let mut readers = Vec::new();
    for i in 0..20 {
        let mut c = bench.connect();
        let subscription = format!("r{i}");
        bench.subscribe_new("s", &subscription).await;
        readers.push((Reader::durable(&mut c, "s", &subscription).await, c));
    }
    bench.fill("s", 30).await;
    let expected: Vec<_> = (0..30).map(|i| (i, format!("e{i}"))).collect();
    for (mut reader, mut c) in readers {
        assert_eq!(reader.take(30).await, expected);
        assert_eq!(reader.ack(&mut c, 29).await, acked(30));
    }
}

#[tokio::test]
async fn redelivered_events_keep_the_log_epoch_of_their_writing() {
    use tidelog::log::{Engine as _, Key, Lane, WriteSet, rows};
    let bench = Bench::with_stream("s").await;
    bench.put("s", &["old"]).await;
    let memory = bench.memory.reopen();
    let key = Key::Counters.encode();
    let row = memory.get(vec![key.clone()]).await.unwrap().remove(0).expect("counters are stored");
    let mut counters: rows::value::Counters = rows::decode(&row).unwrap();
    counters.log_epoch += 1;
    let position = memory.position(Lane(0)).await.unwrap();
    memory.commit(Lane(0), position, WriteSet { rows: vec![(key, Some(rows::encode(&counters)))], ..WriteSet::default() }).await.unwrap();
    let bench = Bench::on(memory, roomy()).await;
    assert_eq!((bench.broker.log_epoch(), bench.describe("s").await.log_epoch), (2, 2));
    assert_eq!(bench.create("t").await.log_epoch, 2, "one number per broker");
    bench.put("s", &["new"]).await;
    let mut c = bench.connect();
    let stale = SubscribeRequest { log_epoch: Some(1), ..attach_ephemeral("s", Some(Start::Offset(0))) };
    let error = refused(answer(c.subscribe(stale)).await.map(|(s, _)| s), Code::LogEpochChanged, "C-2");
    assert_eq!((detail(&error, "log_epoch"), detail(&error, "next_offset")), (2, 2));
    let mut reader = Reader::open(&mut c, attach_ephemeral("s", Some(Start::Offset(0)))).await.unwrap();
    assert_eq!(reader.opened.log_epoch, 2);
    let mut epochs = Vec::new();
    while epochs.len() < 2 {
        if let Delivery::Events { slices, .. } = reader.next().await.unwrap() {
            epochs.extend(slices.iter().map(|s| s.batch().head.log_epoch));
        }
    }
    assert_eq!(epochs, [1, 2]);
}
