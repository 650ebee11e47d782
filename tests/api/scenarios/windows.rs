//! How much may be on its way (C-20): windows that acks refill, and credit that is used up.

use serde_json::json as value;

use super::stage::Stage;
use super::values::{From, durable, follow, text};

pub async fn a_durable_window_pauses_and_is_refilled_by_acks(s: &mut Stage<'_>) {
    s.create("orders").await;
    s.fill("orders", 0..8).await;
    let reader = s.reader(durable("orders", "billing").credit(3)).await;
    s.hears_offsets(reader, 0..3).await;
    assert_eq!(s.ack(reader, 3).await.refused("ack_not_delivered C-10").details["next_delivered"], 3);
    s.ack(reader, 1).await.is("done before 2").ok();
    s.hears_offsets(reader, 3..5).await;
    assert_eq!(s.ack(reader, 5).await.refused("ack_not_delivered C-10").details["next_delivered"], 5);
    s.ack(reader, 4).await.is("done before 5").ok();
    s.hears(reader, &["5: 5", "6: 6", "7: 7", "live at 8"]).await;
    // The window is full: what is appended now waits for an ack.
    s.fill("orders", 8..9).await;
    assert_eq!(s.ack(reader, 8).await.refused("ack_not_delivered C-10").details["next_delivered"], 8);
    s.ack(reader, 5).await.is("done before 6").ok();
    s.hears_offsets(reader, 8..9).await;
}

pub async fn the_subscription_says_how_large_its_window_is(s: &mut Stage<'_>) {
    s.create("orders").await;
    s.fill("orders", 0..5).await;
    s.create_subscription("orders", "billing", value!({"max_in_flight": 2})).await.ok();
    let reader = s.reader(durable("orders", "billing")).await;
    s.hears_offsets(reader, 0..2).await;
    assert_eq!(s.ack(reader, 2).await.refused("ack_not_delivered C-10").details["next_delivered"], 2);
    s.ack(reader, 1).await.ok();
    s.hears_offsets(reader, 2..4).await;
    assert_eq!(s.ack(reader, 4).await.refused("ack_not_delivered C-10").details["next_delivered"], 4);
    s.create_subscription("orders", "none", value!({"max_in_flight": 0})).await.refused("bad_parameter -");
}

pub async fn a_reader_may_ask_for_a_larger_window(s: &mut Stage<'_>) {
    s.create("orders").await;
    s.fill("orders", 0..5).await;
    s.create_subscription("orders", "billing", value!({"max_in_flight": 2})).await.ok();
    let reader = s.reader(durable("orders", "billing").credit(10)).await;
    s.hears(reader, &["0: 0", "1: 1", "2: 2", "3: 3", "4: 4", "live at 5"]).await;
}

pub async fn credit_widens_a_durable_window(s: &mut Stage<'_>) {
    s.create("orders").await;
    s.fill("orders", 0..8).await;
    let reader = s.reader(durable("orders", "billing").credit(2)).await;
    s.hears_offsets(reader, 0..2).await;
    s.is_quiet(reader).await;
    s.credit(reader, 3).await;
    s.hears_offsets(reader, 2..5).await;
    s.is_quiet(reader).await;
    s.ack(reader, 1).await.is("done before 2").ok();
    s.hears_offsets(reader, 5..7).await;
    s.is_quiet(reader).await;
}

pub async fn an_ephemeral_reader_lives_on_credit(s: &mut Stage<'_>) {
    s.create("orders").await;
    s.fill("orders", 0..6).await;
    let reader = s.reader(follow("orders").from(From::Earliest).credit(2)).await;
    s.hears_offsets(reader, 0..2).await;
    s.is_quiet(reader).await;
    s.credit(reader, 1).await;
    s.hears_offsets(reader, 2..3).await;
    s.is_quiet(reader).await;
    s.credit(reader, 10).await;
    s.hears(reader, &["3: 3", "4: 4", "5: 5", "live at 6"]).await;
}

pub async fn a_window_cuts_a_batch_between_two_events(s: &mut Stage<'_>) {
    s.create("orders").await;
    let batch = ["aaaaaa", "bbbbbb", "cccccccccccccccccccc", "dd"].map(text);
    s.append("orders", batch).await.is("stored 0..=3").ok();
    let mut ask = durable("orders", "billing");
    ask.credit = Some((100, 10));
    let reader = s.reader(ask.clone()).await;
    s.hears_offsets(reader, 0..1).await;
    assert_eq!(s.ack(reader, 1).await.refused("ack_not_delivered C-10").details["next_delivered"], 1);
    s.ack(reader, 0).await.is("done before 1").ok();
    s.hears_offsets(reader, 1..2).await;
    s.ack(reader, 1).await.is("done before 2").ok();
    // Larger than the window, and nothing is on its way: it passes alone.
    s.hears_offsets(reader, 2..3).await;
    assert_eq!(s.ack(reader, 3).await.refused("ack_not_delivered C-10").details["next_delivered"], 3);
    s.ack(reader, 2).await.is("done before 3").ok();
    s.hears(reader, &["3: \"dd\"", "live at 4"]).await;
}
