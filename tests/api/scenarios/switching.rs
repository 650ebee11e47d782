//! What was begun over one carrier goes on over another, or after a restart: positions, epochs and bytes belong to none of them.

use super::stage::Stage;
use super::values::{Commit, binary, durable, json, numbers, text, to};

pub async fn an_event_appended_over_one_carrier_is_read_over_another(s: &mut Stage<'_>) {
    s.create("orders").await;
    let events = [
        json("{ \"b\": 1.0,\t\"a\": \"\\u00e9\" }").kind("größe").key("o-1").header("z", "1").header("a", "2"),
        text("Grüße 🦀\n"),
        binary(&[0, 255, 10, 13]),
    ];
    s.append("orders", events).await.is("stored 0..=2").ok();
    let there = s.other().read("orders", 0, 10).await.ok();
    assert_eq!(s.first().read("orders", 0, 10).await.ok(), there);
    s.other().append("orders", numbers(3..4)).await.is("stored 3..=3").ok();
    s.first().read("orders", 3, 10).await.is("3: 3").ok();
}

pub async fn a_cursor_goes_on_over_another_carrier(s: &mut Stage<'_>) {
    s.create("orders").await;
    s.fill("orders", 0..6).await;
    let reader = s.reader(durable("orders", "billing")).await;
    s.hears_offsets(reader, 0..6).await;
    s.ack(reader, 1).await.is("done before 2").ok();
    s.unsubscribe(reader).await;
    let (reader, _) = s.other().subscribe(durable("orders", "billing")).await.is("at 2 of orders 0..6, epoch 2, log epoch 1").unwrap();
    s.hears_offsets(reader, 2..6).await;
    s.ack(reader, 3).await.is("done before 4").ok();
    s.unsubscribe(reader).await;
    let (reader, _) = s.first().subscribe(durable("orders", "billing")).await.is("at 4 of orders 0..6, epoch 3, log epoch 1").unwrap();
    s.hears(reader, &["4: 4", "5: 5", "live at 6"]).await;
}

pub async fn a_takeover_over_another_carrier_fences(s: &mut Stage<'_>) {
    s.create("orders").await;
    s.fill("orders", 0..3).await;
    let old = s.reader(durable("orders", "billing")).await;
    s.hears_offsets(old, 0..3).await;
    s.ack(old, 0).await.ok();
    let (new, _) = s.other().subscribe(durable("orders", "billing")).await.is("at 1 of orders 0..3, epoch 2, log epoch 1").unwrap();
    s.hears_end(old, "session_fenced C-7").await;
    s.hears_offsets(new, 1..3).await;
    let why = s.first().commit(Commit::default().ack("orders", "billing", 1, 1)).await.refused("txn_part_failed T-1");
    assert_eq!(why.details["cause"]["rule"], "C-7");
    s.ack(new, 2).await.is("done before 3").ok();
}

pub async fn a_producer_goes_on_over_another_carrier(s: &mut Stage<'_>) {
    s.create("orders").await;
    s.open("orders", "p1", "any").await.ok();
    s.send("orders", "p1", numbers(0..2)).await.is("stored 0..=1").ok();
    s.other().open("orders", "p1", "resume").await.is("p1 resumed: epoch 2, last_seq 1, next_offset 2, log epoch 1").ok();
    s.send("orders", "p1", numbers(2..3)).await.is("stored 2..=2").ok();
    s.first().send("orders", "p1", numbers(2..3)).await.refused("producer_fenced P-2");
    s.read("orders", 0, 10).await.is("0: 0, 1: 1, 2: 2").ok();
}

pub async fn a_batch_resent_over_another_carrier_is_recognised(s: &mut Stage<'_>) {
    s.create("orders").await;
    s.open("orders", "p1", "any").await.ok();
    let events = [
        json("{ \"b\" : 1,\n\"a\": \"\\u00e9\" }").kind("t").key("k").header("z", "1").header("a", ""),
        text("text \u{0} \"quoted\""),
        binary(&[0, 1, 254, 255]),
        json("null"),
        text(""),
    ];
    let batch = to("orders", events).stamp("p1", 1, 0);
    s.put(batch.clone()).await.is("stored 0..=4").ok();
    s.other().put(batch.clone()).await.is("stored 0..=4 before").ok();
    let mut changed = batch;
    changed.events[0].headers.reverse();
    s.put(changed).await.refused("producer_seq_reused P-5");
    s.first().describe("orders").await.is("Ready 0..5, 45 bytes").ok();
}

pub async fn a_restart_forgets_nothing_but_what_readers_were_given(s: &mut Stage<'_>) {
    s.create("orders").await;
    s.create_with("small", serde_json::json!({"event_max_bytes": 3})).await.ok();
    s.append("orders", [json("{ \"a\": 1 }").kind("t").header("z", "1").header("a", "2"), text("é"), binary(&[255])]).await.ok();
    s.fill("orders", 3..6).await;
    s.trim("orders", 1).await.ok();
    let mut lazy = durable("orders", "lazy");
    lazy.received = true;
    lazy = lazy.on_gap("skip");
    let reader = s.reader(durable("orders", "billing").on_gap("skip")).await;
    s.hears_offsets(reader, 1..6).await;
    s.ack(reader, 2).await.is("done before 3").ok();
    let other = s.reader(lazy.clone()).await;
    s.hears_offsets(other, 1..6).await;
    s.ack(other, 4).await.is("done before 5").ok();
    let before = s.read("orders", 1, 10).await.ok();

    s.restart().await;
    assert_eq!(s.read("orders", 1, 10).await.ok(), before, "times and all");
    s.describe("orders").await.is("Ready 1..6, 6 bytes").ok();
    s.append("small", [text("four")]).await.refused("too_large P-9");
    s.cursor("orders", "billing").await.is("next 3, epoch 1, behind by 3 events, 3 bytes").ok();
    // A clean stop loses no ack, of whatever level.
    s.cursor("orders", "lazy").await.is("next 5, epoch 1, behind by 1 events, 1 bytes").ok();
    let why = s.commit(Commit::default().ack("orders", "billing", 1, 3)).await.refused("txn_part_failed T-1");
    assert_eq!((&why.details["cause"]["code"], &why.details["cause"]["rule"]), (&"session_unknown".into(), &"C-8".into()));
    let (reader, _) = s.subscribe(durable("orders", "billing")).await.is("at 3 of orders 1..6, epoch 2, log epoch 1").unwrap();
    s.hears(reader, &["3: 3", "4: 4", "5: 5", "live at 6"]).await;
    s.append("orders", numbers(6..7)).await.is("stored 6..=6").ok();
    s.hears(reader, &["6: 6"]).await;
    s.create("new").await;
}

pub async fn a_restart_keeps_producers_and_receipts(s: &mut Stage<'_>) {
    s.create("orders").await;
    s.open("orders", "p1", "any").await.ok();
    let batch = |seq: u64| to("orders", numbers(seq..seq + 2)).stamp("p1", 1, seq);
    s.put(batch(0)).await.is("stored 0..=1").ok();
    s.put(batch(2)).await.is("stored 2..=3").ok();
    s.open_commits("tx", "any").await.ok();
    let commit = Commit::default().append(to("orders", numbers(9..10))).stamp("tx", 1, 0);
    s.commit(commit.clone()).await.is("committed, orders 4..=4").ok();
    s.restart().await;
    s.put(batch(0)).await.is("stored 0..=1 before").ok();
    s.put(batch(2)).await.is("stored 2..=3 before").ok();
    s.put(to("orders", numbers(7..9)).stamp("p1", 1, 2)).await.refused("producer_seq_reused P-5");
    s.put(batch(6)).await.refused("producer_seq_gap P-8");
    s.commit(commit).await.is("committed, orders 4..=4 before").ok();
    s.put(batch(4)).await.is("stored 5..=6").ok();
    s.open("orders", "p1", "resume").await.is("p1 resumed: epoch 2, last_seq 5, next_offset 7, log epoch 1").ok();
    s.open_commits("tx", "any").await.is("tx resumed: epoch 2, last_seq 0, next_offset none, log epoch 1").ok();
}
