//! Streams: conditions, closing, names, trimming, deleting, and an id that is never used twice.

use serde_json::json as value;

use super::stage::Stage;
use super::values::{From, follow, json, numbers, to};

pub async fn a_condition_holds_or_tells_where_the_stream_stands(s: &mut Stage<'_>) {
    s.create("orders").await;
    s.put(to("orders", numbers(0..2)).expecting(0)).await.is("stored 0..=1").ok();
    let why = s.put(to("orders", numbers(7..8)).expecting(1)).await.refused("condition_failed P-18");
    assert_eq!((&why.details["next_offset"], why.applied.as_str()), (&2.into(), "no"));
    s.put(to("orders", numbers(7..8)).expecting(3)).await.refused("condition_failed P-18");
    s.put(to("orders", numbers(2..3)).expecting(2)).await.is("stored 2..=2").ok();
    s.read("orders", 0, 10).await.is("0: 0, 1: 1, 2: 2").ok();
}

pub async fn a_failed_condition_tells_whether_the_events_are_there_already(s: &mut Stage<'_>) {
    s.create("orders").await;
    let mine = to("orders", [json("{ \"a\": 1 }").kind("t").header("h", "v"), json("2")]).expecting(0);
    s.put(mine.clone()).await.is("stored 0..=1").ok();
    s.append("orders", numbers(2..3)).await.ok();
    // P-18: after a lost answer this is how a client knows its own success.
    assert_eq!(s.put(mine).await.refused("condition_failed P-18").details["already_stored"], true);
    let close = [to("orders", [json("{\"a\":1}").kind("t").header("h", "v"), json("2")]).expecting(0), to("orders", [json("2"), json("3")]).expecting(1)];
    for other in close {
        assert_eq!(s.put(other).await.refused("condition_failed P-18").details["already_stored"], false);
    }
    // In another cut the events are the same.
    assert_eq!(s.put(to("orders", [json("2"), json("2")]).expecting(1)).await.refused("condition_failed P-18").details["already_stored"], true);
    s.put(to("orders", numbers(2..5)).expecting(2)).await.refused("condition_failed P-18");
}

pub async fn a_closed_stream_takes_no_more_and_reads_go_on(s: &mut Stage<'_>) {
    s.create("orders").await;
    s.fill("orders", 0..3).await;
    let reader = s.reader(follow("orders").from(From::Offset(1))).await;
    s.hears(reader, &["1: 1", "2: 2", "live at 3"]).await;
    s.close("orders").await.is("Ready 0..3, 3 bytes, closed").ok();
    let why = s.append("orders", numbers(3..4)).await.refused("stream_closed P-9");
    assert_eq!((why.retry.as_str(), &why.details["next_offset"]), ("never", &3.into()));
    // Closed is told before a condition that fails.
    s.put(to("orders", numbers(3..4)).expecting(9)).await.refused("stream_closed P-9");
    s.close("orders").await.is("Ready 0..3, 3 bytes, closed").ok();
    s.read("orders", 0, 10).await.is("0: 0, 1: 1, 2: 2").ok();
    s.trim("orders", 2).await.is("Ready 2..3, 1 bytes, closed").ok();
}

pub async fn names_are_taken_once_and_differ_in_more_than_case(s: &mut Stage<'_>) {
    s.create("Orders").await;
    s.create_with("Orders", value!({})).await.refused("name_taken -");
    s.create_with("oRDERS", value!({})).await.refused("name_taken -");
    // Found whatever the case, told as it was made.
    s.append("orders", numbers(0..1)).await.is("stored 0..=0").ok();
    s.read("ORDERS", 0, 1).await.is("0: 0").ok();
    for bad in ["a b", "a/b", "é", &"n".repeat(250)] {
        s.create_with(bad, value!({})).await.refused("bad_parameter -");
    }
}

pub async fn a_stream_that_is_not_there_is_not_found(s: &mut Stage<'_>) {
    s.append("nowhere", numbers(0..1)).await.refused("not_found -");
    s.describe("nowhere").await.refused("not_found -");
    s.trim("nowhere", 0).await.refused("not_found -");
    s.close("nowhere").await.refused("not_found -");
    s.delete("nowhere").await.refused("not_found -");
    s.subscribe(follow("nowhere")).await.refused("not_found -");
    s.cursor("nowhere", "billing").await.refused("not_found -");
    s.create_subscription("nowhere", "billing", value!({})).await.refused("not_found -");
}

pub async fn a_trim_moves_the_beginning_and_nothing_else(s: &mut Stage<'_>) {
    s.create("orders").await;
    s.fill("orders", 0..4).await;
    s.fill("orders", 4..10).await;
    s.trim("orders", 0).await.is("Ready 0..10, 10 bytes").ok();
    // In the middle of the second batch.
    s.trim("orders", 6).await.is("Ready 6..10, 4 bytes").ok();
    s.trim("orders", 2).await.is("Ready 6..10, 4 bytes").ok();
    s.trim("orders", 11).await.refused("offset_beyond_end -");
    s.read("orders", 6, 100).await.is("6: 6, 7: 7, 8: 8, 9: 9").ok();
    s.trim("orders", 10).await.is("Ready 10..10, 0 bytes").ok();
    s.append("orders", numbers(10..11)).await.is("stored 10..=10").ok();
    s.read("orders", 10, 100).await.is("10: 10").ok();
    s.describe("orders").await.is("Ready 10..11, 2 bytes").ok();
}

pub async fn a_deleted_stream_is_gone_and_its_name_is_free_again(s: &mut Stage<'_>) {
    let old = s.create("orders").await;
    s.fill("orders", 0..5).await;
    s.open("orders", "p1", "any").await.ok();
    s.create_subscription("orders", "billing", value!({})).await.ok();
    s.delete("orders").await.is("Success").ok();
    s.describe("orders").await.refused("not_found -");
    s.append("orders", numbers(0..1)).await.refused("not_found -");
    s.delete("orders").await.refused("not_found -");
    let new = s.create("orders").await;
    assert!(new.id > old.id, "ids are never used twice");
    s.describe("orders").await.is("Ready 0..0, 0 bytes").ok();
    s.cursor("orders", "billing").await.refused("not_found -");
    s.open("orders", "p1", "resume").await.refused("producer_state_lost P-15");
    s.append("orders", numbers(7..8)).await.is("stored 0..=0").ok();
    s.read("orders", 0, 10).await.is("0: 7").ok();
}

pub async fn an_id_tells_a_new_stream_from_an_old_one_of_its_name(s: &mut Stage<'_>) {
    let old = s.create("orders").await;
    s.put(to("orders", numbers(0..1)).id(old.id)).await.is("stored 0..=0").ok();
    s.delete("orders").await.is("Success").ok();
    let new = s.create("orders").await;
    s.put(to("orders", numbers(0..1)).id(old.id)).await.refused("stream_replaced -");
    let mut ask = follow("orders");
    ask.stream_id = Some(old.id);
    s.subscribe(ask.clone()).await.refused("stream_replaced -");
    ask.stream_id = Some(new.id);
    s.subscribe(ask).await.is("at 0 of orders 0..0, epoch none, log epoch 1").ok();
    s.put(to("orders", numbers(0..1)).id(new.id)).await.is("stored 0..=0").ok();
}
