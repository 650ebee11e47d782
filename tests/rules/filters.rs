//! Filtered sessions: what is passed over is told (C-17), may be acknowledged once it was (C-10), and takes no room (C-20); nothing that the
//! filter holds for is ever passed over.

use std::time::Duration;

use crate::support::*;

/// A batch: an event of each character's type.
async fn put(bench: &Bench, kinds: &str) {
    let mut events = EventsBuilder::with_capacity(64);
    for kind in kinds.chars() {
        let kind = kind.to_string();
        events.push(&EventRef { data: b"1", kind: &kind, ..EventRef::default() }).unwrap();
    }
    let request = AppendRequest { stream: name("s"), stream_id: None, events: events.finish().unwrap(), producer: None, expected_next_offset: None };
    bench.append(request).await.unwrap();
}

async fn with(batches: &[&str]) -> Bench {
    let bench = Bench::with_stream("s").await;
    for kinds in batches {
        put(&bench, kinds).await;
    }
    bench
}

/// The subscription `x` that delivers events of type `a`.
async fn subscribe(bench: &Bench, max_in_flight: u64) {
    let new = NewSubscription { filter: Some("type eq a".into()), max_in_flight: Some(max_in_flight), ..new_subscription("x") };
    let info = soon(bench.broker.create_subscription(&OPERATOR, &name("s"), new)).await.unwrap();
    assert_eq!(info.filter.as_deref(), Some("type eq a"));
}

fn offsets(slices: &[Slice]) -> Vec<u64> {
    slices.iter().flat_map(|slice| slice.from()..slice.to()).collect()
}

/// Everything up to `live`: the offsets, and where progress was told.
async fn until_live(reader: &mut Reader) -> (Vec<u64>, Vec<u64>) {
    let (mut events, mut told) = (Vec::new(), Vec::new());
    loop {
        match reader.next().await.unwrap() {
            Delivery::Events { slices, .. } => events.extend(offsets(&slices)),
            Delivery::Progress { next } => told.push(next),
            Delivery::Live { .. } => return (events, told),
            gap => panic!("an unexpected {gap:?}"),
        }
    }
}

#[tokio::test]
async fn c17_what_a_filter_passes_over_is_told_before_what_comes_behind_it() {
    let bench = with(&["bba", "aab", "bb", "a", "bab"]).await;
    subscribe(&bench, 100).await;
    let told = (vec![2, 3, 4, 8, 10], vec![2, 8, 10, 12]);
    assert_eq!(until_live(&mut Reader::durable(&mut bench.connect(), "s", "x").await).await, told, "out of the tail");
    let bench = bench.restart().await;
    assert_eq!(until_live(&mut Reader::durable(&mut bench.connect(), "s", "x").await).await, told, "out of the log");
}

/// By chance: kinds, batches, windows, reading from the tail or the log, and readers that are cancelled in the middle of a wait.
#[tokio::test]
async fn c17_nothing_that_the_filter_holds_for_is_passed_over_whoever_cancels_what() {
    for seed in 0..60u64 {
        let mut dice = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let mut throw = |below: u64| {
            dice ^= dice << 13;
            dice ^= dice >> 7;
            dice ^= dice << 17;
            dice % below
        };
        let bench = Bench::with(if seed % 2 == 0 { roomy() } else { cramped() }).await;
        bench.create("s").await;
        subscribe(&bench, 1 + throw(5)).await;
        let mut wanted = Vec::new();
        let mut at = 0;
        let mut batches = Vec::new();
        for _ in 0..40 {
            let rare = 1 + throw(8);
            let kinds: String = (0..1 + throw(6)).map(|_| if throw(rare) == 0 { 'a' } else { 'b' }).collect();
            wanted.extend(kinds.chars().enumerate().filter(|(_, kind)| *kind == 'a').map(|(index, _)| at + index as u64));
            at += kinds.len() as u64;
            batches.push(kinds);
        }
        let (early, late) = batches.split_at(throw(40) as usize);
        for kinds in early {
            put(&bench, kinds).await;
        }
        let mut c = bench.connect();
        let mut reader = Reader::durable(&mut c, "s", "x").await;
        let writing = async {
            for kinds in late {
                put(&bench, kinds).await;
                tokio::task::yield_now().await;
            }
        };
        let reading = async {
            let mut got = Vec::new();
            while reader.at < at || got.len() < wanted.len() {
                // Half of the waits are given up at once, the others when the window may be full; both are begun anew.
                let turns = if throw(2) == 0 { throw(6) } else { 1000 };
                let delivery = tokio::select! {
                    biased;
                    delivery = reader.session.next() => Some(delivery.unwrap()),
                    () = async { for _ in 0..turns { tokio::task::yield_now().await } } => None,
                };
                if let Some(delivery) = &delivery {
                    reader.check(delivery);
                    if let Delivery::Events { slices, .. } = delivery {
                        got.extend(offsets(slices));
                    }
                }
                if let Some(last) = reader.at.checked_sub(1)
                    && (delivery.is_none() || throw(2) == 0)
                {
                    answer(c.ack(&reader.handle, last, AckLevel::Received)).await.unwrap();
                }
            }
            got
        };
        let (got, ()) = soon(async { tokio::join!(reading, writing) }).await;
        assert_eq!(got, wanted, "seed {seed}");
    }
}

#[tokio::test]
async fn c10_what_was_passed_over_may_be_acknowledged_once_it_was_told_and_the_cursor_moves_by_acks_alone() {
    let bench = with(&["ab", "bbb"]).await;
    subscribe(&bench, 10).await;
    let mut c = bench.connect();
    let mut reader = Reader::durable(&mut c, "s", "x").await;
    assert!(matches!(reader.next().await.unwrap(), Delivery::Events { .. }));
    refused(reader.ack(&mut c, 3).await, Code::AckNotDelivered, "C-10");
    assert!(matches!(reader.next().await.unwrap(), Delivery::Progress { next: 5 }));
    assert_eq!(bench.subscription("s", "x").await.next, 0, "C-19");
    assert_eq!(reader.ack(&mut c, 4).await, acked(5));
    let bench = bench.crash().await;
    assert_eq!(bench.subscription("s", "x").await.next, 5);
}

#[tokio::test]
async fn what_was_not_acknowledged_is_filtered_again_after_a_crash() {
    let bench = with(&["abab"]).await;
    subscribe(&bench, 10).await;
    let mut c = bench.connect();
    let mut reader = Reader::durable(&mut c, "s", "x").await;
    assert_eq!(until_live(&mut reader).await.0, [0, 2]);
    reader.ack(&mut c, 0).await.unwrap();
    let bench = bench.crash().await;
    let mut c = bench.connect();
    let mut reader = Reader::durable(&mut c, "s", "x").await;
    assert_eq!((reader.opened.next, until_live(&mut reader).await), (1, (vec![2], vec![2, 4])));
}

#[tokio::test]
async fn c20_what_is_passed_over_takes_no_room_in_the_window() {
    let bench = with(&["bbbbbbbbbbbbbbba", "bbbbbbbbbbba", "a"]).await;
    subscribe(&bench, 2).await;
    let mut c = bench.connect();
    let mut reader = Reader::durable(&mut c, "s", "x").await;
    let mut got = Vec::new();
    while got.len() < 2 {
        if let Delivery::Events { slices, .. } = reader.next().await.unwrap() {
            got.extend(offsets(&slices));
        }
    }
    assert_eq!(got, [15, 27]);
    reader.is_paused().await;
    reader.ack(&mut c, 15).await.unwrap();
    assert!(matches!(reader.next().await.unwrap(), Delivery::Events { slices, .. } if offsets(&slices) == [28]));
}

#[tokio::test]
async fn a_reader_that_has_everything_hears_of_what_is_passed_over_within_a_second() {
    let bench = with(&["a"]).await;
    let from = SubscribeRequest { filter: Some("type eq a".into()), ..attach_ephemeral("s", Some(Start::Earliest)) };
    let mut c = bench.connect();
    let mut reader = Reader::open(&mut c, from).await.unwrap();
    assert_eq!(until_live(&mut reader).await.0, [0]);
    put(&bench, "bb").await;
    put(&bench, "b").await;
    let mut at = 1;
    while at < 4 {
        let Delivery::Progress { next } = reader.next().await.unwrap() else { panic!("only events that are passed over came") };
        at = next;
    }
    // Many at once are told at once, and an event tells of those before it.
    put(&bench, &"b".repeat(1000)).await;
    assert!(matches!(reader.next().await.unwrap(), Delivery::Progress { next: 1004 }));
    put(&bench, "bba").await;
    assert!(matches!(reader.next().await.unwrap(), Delivery::Progress { next: 1006 }));
    assert!(matches!(reader.next().await.unwrap(), Delivery::Events { slices, .. } if offsets(&slices) == [1006]));
}

#[tokio::test]
async fn a_subscription_keeps_its_filter_and_takes_no_other() {
    let bench = with(&["ab"]).await;
    subscribe(&bench, 10).await;
    let bench = bench.crash().await;
    let mut c = bench.connect();
    let with = |filter: &str| SubscribeRequest { filter: Some(filter.into()), ..attach("s", "x") };
    refused(Reader::open(&mut c, with("type eq b")).await.map(drop), Code::BadParameter, "");
    refused(Reader::open(&mut c, with("type is b")).await.map(drop), Code::BadFilter, "");
    refused(Reader::open(&mut c, with("data eq b")).await.map(drop), Code::UnknownFilterField, "");
    assert_eq!(bench.subscription("s", "x").await.epoch, 0, "nobody was attached");
    let mut reader = Reader::open(&mut c, with("type eq a")).await.unwrap();
    assert_eq!(until_live(&mut reader).await.0, [0]);
    // One that is made by its first reader has the reader's.
    let new = SubscribeRequest { create: true, filter: Some("type eq b".into()), ..attach("s", "y") };
    assert_eq!(until_live(&mut Reader::open(&mut c, new).await.unwrap()).await.0, [1]);
    assert_eq!(bench.subscription("s", "y").await.filter.as_deref(), Some("type eq b"));
    bench.subscribe_new("s", "all").await;
    refused(Reader::open(&mut c, SubscribeRequest { filter: Some("type eq a".into()), ..attach("s", "all") }).await.map(drop), Code::BadParameter, "");
    refused(
        soon(bench.broker.create_subscription(&OPERATOR, &name("s"), NewSubscription { filter: Some("(".into()), ..new_subscription("z") })).await,
        Code::BadFilter,
        "",
    );
}

#[tokio::test]
async fn a_pull_of_a_filtered_subscription_passes_over_the_rest_and_its_token_acknowledges_that_too() {
    let bench = with(&["bbab", "aabb", "bbbb"]).await;
    subscribe(&bench, 10).await;
    let pull = async |epoch, from: Option<u64>, max_events| {
        let request = PullRequest { epoch, from: from.map(Start::Offset), max_events, wait: Duration::ZERO, ..pulling("s", "x") };
        soon(bench.broker.pull(&OPERATOR, request)).await.unwrap()
    };
    let first = pull(None, None, 2).await;
    assert_eq!((offsets(&first.slices), first.next), (vec![2, 4], 5));
    let second = pull(Some(first.epoch), Some(5), 10).await;
    assert_eq!((offsets(&second.slices), second.next), (vec![5], 12));
    let token = second.ack_token.expect("something was handed out");
    assert_eq!(soon(bench.broker.ack_by_token(&OPERATOR, &name("s"), &sub("x"), &token, None, AckLevel::Durable)).await, acked(12));
    let third = pull(Some(first.epoch), None, 10).await;
    assert_eq!((offsets(&third.slices), third.next, third.ack_token), (vec![], 12, None));
}

#[tokio::test]
async fn what_a_filter_has_passed_over_is_no_gap_when_it_is_trimmed() {
    let bench = with(&["a"]).await;
    subscribe(&bench, 10).await;
    let mut c = bench.connect();
    let mut reader = Reader::durable(&mut c, "s", "x").await;
    assert_eq!(until_live(&mut reader).await.0, [0]);
    put(&bench, "bbb").await;
    // It looks at them, and waits before it tells.
    reader.is_paused_but_for_progress().await;
    bench.trim("s", 4).await;
    put(&bench, "a").await;
    loop {
        match reader.next().await.unwrap() {
            Delivery::Progress { .. } => {}
            Delivery::Events { slices, .. } => break assert_eq!(offsets(&slices), [4]),
            other => panic!("{other:?}"),
        }
    }
}
