//! Readers: where they begin, what their acks do, and how a session ends (C-1 … C-17).

use serde_json::json as value;

use super::stage::Stage;
use super::values::{Commit, From, List, durable, follow, numbers};

pub async fn a_reader_begins_at_the_earliest_the_latest_an_offset_or_a_time(s: &mut Stage<'_>) {
    s.create("orders").await;
    for batch in [0..2, 2..3, 3..6] {
        s.fill("orders", batch).await;
    }
    let List(events) = s.read("orders", 0, 10).await.ok();
    let times: Vec<i64> = events.iter().map(|e| e.time).collect();
    assert!(times[1] < times[2] && times[2] < times[3], "batches that waited for each other have times of their own: {times:?}");
    for (from, next) in [
        (From::Earliest, 0),
        (From::Latest, 6),
        (From::Offset(4), 4),
        (From::Offset(6), 6),
        (From::Time(0), 0),
        (From::Time(times[2]), 2),
        (From::Time(times[2] + 1), 3),
        (From::Time(times[5]), 3),
        (From::Time(times[5] + 1), 6),
    ] {
        for ask in [follow("orders").from(from), durable("orders", &format!("s{next}-{from:?}").replace(['(', ')'], "-")).from(from)] {
            // The name tells the time; the transcript must not.
            let ask = if matches!(from, From::Time(_)) { follow("orders").from(from) } else { ask };
            let (reader, at) = s.subscribe(ask).await.ok();
            assert_eq!(at.next, next, "{from:?}");
            s.hears_offsets(reader, next..6).await;
            s.unsubscribe(reader).await;
        }
    }
    // Who says nothing: a cursor begins at the beginning, others at the end.
    assert_eq!(s.subscribe(durable("orders", "fresh")).await.ok().1.next, 0);
    assert_eq!(s.subscribe(follow("orders")).await.ok().1.next, 6);
}

pub async fn a_cursor_stays_where_it_was_acknowledged(s: &mut Stage<'_>) {
    s.create("orders").await;
    s.fill("orders", 0..5).await;
    let (reader, _) = s.subscribe(durable("orders", "billing")).await.is("at 0 of orders 0..5, epoch 1, log epoch 1").unwrap();
    s.hears(reader, &["0: 0", "1: 1", "2: 2", "3: 3", "4: 4", "live at 5"]).await;
    s.ack(reader, 1).await.is("done before 2").ok();
    s.cursor("orders", "billing").await.is("next 2, epoch 1, behind by 3 events, 3 bytes").ok();
    s.unsubscribe(reader).await;
    let (reader, _) = s.subscribe(durable("orders", "billing")).await.is("at 2 of orders 0..5, epoch 2, log epoch 1").unwrap();
    s.hears(reader, &["2: 2", "3: 3", "4: 4", "live at 5"]).await;
    s.ack(reader, 2).await.is("done before 3").ok();
    s.ack(reader, 4).await.is("done before 5").ok();
    s.cursor("orders", "billing").await.is("next 5, epoch 2, behind by 0 events, 0 bytes").ok();
    s.unsubscribe(reader).await;
    s.fill("orders", 5..6).await;
    let (reader, _) = s.subscribe(durable("orders", "billing")).await.is("at 5 of orders 0..6, epoch 3, log epoch 1").unwrap();
    s.hears(reader, &["5: 5", "live at 6"]).await;
}

pub async fn a_subscription_is_created_only_when_asked_for(s: &mut Stage<'_>) {
    s.create("orders").await;
    let mut ask = durable("orders", "billing");
    ask.create = false;
    s.subscribe(ask.clone()).await.refused("not_found -");
    s.create_subscription("orders", "billing", value!({"start": "latest"})).await.is("next 0, epoch 0, behind by 0 events, 0 bytes").ok();
    s.create_subscription("orders", "Billing", value!({})).await.refused("name_taken -");
    s.fill("orders", 0..2).await;
    let (reader, _) = s.subscribe(ask).await.is("at 0 of orders 0..2, epoch 1, log epoch 1").unwrap();
    s.hears(reader, &["0: 0", "1: 1", "live at 2"]).await;
    s.create_subscription("orders", "new", value!({"start": "latest"})).await.is("next 2, epoch 0, behind by 0 events, 0 bytes").ok();
    s.create_subscription("orders", "middle", value!({"start": 1})).await.is("next 1, epoch 0, behind by 1 events, 1 bytes").ok();
    s.create_subscription("orders", "beyond", value!({"start": 3})).await.refused("position_beyond_end C-3");
    s.delete_subscription("orders", "middle").await.is("done").ok();
    s.delete_subscription("orders", "middle").await.refused("not_found -");
}

pub async fn an_ephemeral_reader_has_nothing_to_acknowledge(s: &mut Stage<'_>) {
    s.create("orders").await;
    s.fill("orders", 0..2).await;
    let (reader, _) = s.subscribe(follow("orders").from(From::Earliest)).await.is("at 0 of orders 0..2, epoch none, log epoch 1").unwrap();
    s.hears(reader, &["0: 0", "1: 1", "live at 2"]).await;
    s.ack(reader, 0).await.refused("ack_mode_mismatch G-1");
    s.fill("orders", 2..3).await;
    s.hears(reader, &["2: 2"]).await;
}

pub async fn a_takeover_fences_the_reader_before_it(s: &mut Stage<'_>) {
    s.create("orders").await;
    s.fill("orders", 0..4).await;
    let first = s.reader(durable("orders", "billing")).await;
    s.hears_offsets(first, 0..4).await;
    s.ack(first, 0).await.is("done before 1").ok();
    let (second, _) = s.subscribe(durable("orders", "billing")).await.is("at 1 of orders 0..4, epoch 2, log epoch 1").unwrap();
    s.hears_end(first, "session_fenced C-7").await;
    s.hears(second, &["1: 1", "2: 2", "3: 3", "live at 4"]).await;
    s.ack(second, 2).await.is("done before 3").ok();
    s.cursor("orders", "billing").await.is("next 3, epoch 2, behind by 1 events, 1 bytes").ok();
}

pub async fn a_polite_reader_does_not_take_over(s: &mut Stage<'_>) {
    s.create("orders").await;
    s.fill("orders", 0..2).await;
    let mut polite = durable("orders", "billing");
    polite.reject = true;
    let first = s.reader(durable("orders", "billing")).await;
    s.hears_offsets(first, 0..2).await;
    assert_eq!(s.subscribe(polite.clone()).await.refused("cursor_busy C-1").retry, "backoff");
    s.ack(first, 0).await.is("done before 1").ok();
    assert_eq!(s.cursor("orders", "billing").await.ok().status, "Running");
    s.unsubscribe(first).await;
    assert_eq!(s.cursor("orders", "billing").await.ok().status, "Stopped");
    s.subscribe(polite).await.is("at 1 of orders 0..2, epoch 2, log epoch 1").ok();
}

pub async fn the_ack_table_from_top_to_bottom(s: &mut Stage<'_>) {
    s.create("orders").await;
    s.fill("orders", 0..10).await;
    let reader = s.reader(durable("orders", "billing").credit(4)).await;
    s.hears_offsets(reader, 0..4).await;
    assert_eq!(s.ack(reader, 10).await.refused("ack_beyond_end C-9").details["next_offset"], 10);
    assert_eq!(s.ack(reader, 9).await.refused("ack_not_delivered C-10").details["next_delivered"], 4);
    assert_eq!(s.ack(reader, 4).await.refused("ack_not_delivered C-10").details["next_delivered"], 4);
    s.ack(reader, 2).await.is("done before 3").ok();
    s.ack(reader, 2).await.is("done before 3").ok();
    s.ack(reader, 0).await.is("done before 3, stale").ok();
    s.hears_offsets(reader, 4..7).await;
    assert_eq!(s.ack(reader, 7).await.refused("ack_not_delivered C-10").details["next_delivered"], 7);
    s.ack(reader, 6).await.is("done before 7").ok();
    s.hears_offsets(reader, 7..10).await;
    s.cursor("orders", "billing").await.is("next 7, epoch 1, behind by 3 events, 3 bytes").ok();
    // C-15: what another session was given counts for nothing here.
    let again = s.reader(durable("orders", "billing").credit(1)).await;
    s.hears_offsets(again, 7..8).await;
    assert_eq!(s.ack(again, 8).await.refused("ack_not_delivered C-10").details["next_delivered"], 8);
    s.ack(again, 5).await.is("done before 7, stale").ok();
    s.ack(again, 6).await.is("done before 7").ok();
    s.hears_end(reader, "session_fenced C-7").await;
}

pub async fn a_position_behind_the_cursor_needs_a_rewind(s: &mut Stage<'_>) {
    s.create("orders").await;
    s.fill("orders", 0..5).await;
    let reader = s.reader(durable("orders", "billing")).await;
    s.hears_offsets(reader, 0..5).await;
    s.ack(reader, 3).await.is("done before 4").ok();
    s.unsubscribe(reader).await;
    let at = |from| durable("orders", "billing").from(from);
    assert_eq!(s.subscribe(at(From::Offset(2))).await.refused("cursor_ahead C-4").details["next"], 4);
    s.subscribe(at(From::Earliest)).await.refused("cursor_ahead C-4");
    s.cursor("orders", "billing").await.is("next 4, epoch 1, behind by 1 events, 1 bytes").ok();
    let mut back = at(From::Offset(2));
    back.rewind = true;
    let (reader, _) = s.subscribe(back).await.is("at 2 of orders 0..5, epoch 2, log epoch 1").unwrap();
    s.hears_offsets(reader, 2..5).await;
    s.cursor("orders", "billing").await.is("next 2, epoch 2, behind by 3 events, 3 bytes").ok();
    // Forward is allowed: the client's own store is the authority (C-5).
    s.subscribe(at(From::Offset(4))).await.is("at 4 of orders 0..5, epoch 3, log epoch 1").ok();
    s.hears_end(reader, "session_fenced C-7").await;
    s.subscribe(at(From::Latest)).await.is("at 5 of orders 0..5, epoch 4, log epoch 1").ok();
    s.cursor("orders", "billing").await.is("next 5, epoch 4, behind by 0 events, 0 bytes").ok();
}

pub async fn a_position_of_another_history_or_beyond_the_end_moves_nothing(s: &mut Stage<'_>) {
    s.create("orders").await;
    s.fill("orders", 0..5).await;
    for mut ask in [follow("orders"), durable("orders", "billing")] {
        ask = ask.from(From::Offset(6));
        assert_eq!(s.subscribe(ask.clone()).await.refused("position_beyond_end C-3").details["next_offset"], 5);
        ask = ask.from(From::Offset(2));
        ask.log_epoch = Some(7);
        let why = s.subscribe(ask.clone()).await.refused("log_epoch_changed C-2");
        assert_eq!((&why.details["log_epoch"], why.retry.as_str()), (&1.into(), "decide"));
        ask.log_epoch = Some(1);
        let (reader, _) = s.subscribe(ask).await.ok();
        s.hears(reader, &["2: 2", "3: 3", "4: 4", "live at 5"]).await;
    }
    s.cursor("orders", "billing").await.is("next 2, epoch 1, behind by 3 events, 3 bytes").ok();
}

pub async fn a_reader_below_the_beginning_fails_or_skips_the_gap(s: &mut Stage<'_>) {
    s.create("orders").await;
    s.fill("orders", 0..6).await;
    s.create_subscription("orders", "billing", value!({})).await.ok();
    s.trim("orders", 4).await.ok();
    let why = s.subscribe(durable("orders", "billing")).await.refused("cursor_trimmed C-6");
    assert_eq!((&why.details["next"], &why.details["first_offset"], why.retry.as_str()), (&0.into(), &4.into(), "decide"));
    s.subscribe(follow("orders").from(From::Offset(1)).on_gap("fail")).await.refused("cursor_trimmed C-6");
    let reader = s.reader(follow("orders").from(From::Offset(1))).await;
    s.hears(reader, &["gap 1..=3 retention", "4: 4", "5: 5", "live at 6"]).await;
    let reader = s.reader(durable("orders", "billing").on_gap("skip")).await;
    s.hears(reader, &["gap 0..=3 retention", "4: 4", "5: 5", "live at 6"]).await;
    // The cursor never moves by itself; the gap is acknowledged like an event.
    s.cursor("orders", "billing").await.is("next 0, epoch 1, behind by 2 events, 2 bytes").ok();
    s.ack(reader, 3).await.is("done before 4").ok();
    s.cursor("orders", "billing").await.is("next 4, epoch 1, behind by 2 events, 2 bytes").ok();
}

pub async fn a_trim_under_a_live_reader_ends_it_or_sends_a_gap(s: &mut Stage<'_>) {
    s.create("orders").await;
    s.fill("orders", 0..10).await;
    let fails = s.reader(durable("orders", "fails").credit(2)).await;
    let skips = s.reader(durable("orders", "skips").credit(2).on_gap("skip")).await;
    s.hears_offsets(fails, 0..2).await;
    s.hears_offsets(skips, 0..2).await;
    s.trim("orders", 6).await.is("Ready 6..10, 4 bytes").ok();
    s.hears_end(fails, "cursor_trimmed C-6").await;
    s.hears(skips, &["gap 2..=5 retention"]).await;
    s.ack(skips, 5).await.is("done before 6").ok();
    s.hears(skips, &["6: 6", "7: 7"]).await;
    s.ack(skips, 7).await.is("done before 8").ok();
    s.hears(skips, &["8: 8", "9: 9", "live at 10"]).await;
    s.cursor("orders", "fails").await.is("next 0, epoch 1, behind by 4 events, 4 bytes").ok();
}

pub async fn a_deletion_ends_live_readers(s: &mut Stage<'_>) {
    s.create("orders").await;
    s.fill("orders", 0..1).await;
    let lasting = s.reader(durable("orders", "billing")).await;
    let passing = s.reader(follow("orders").from(From::Earliest)).await;
    s.hears(lasting, &["0: 0", "live at 1"]).await;
    s.hears(passing, &["0: 0", "live at 1"]).await;
    s.delete("orders").await.is("Success").ok();
    s.hears_end(lasting, "not_found -").await;
    s.hears_end(passing, "not_found -").await;
    s.create("orders").await;
    s.fill("orders", 0..1).await;
    // At an epoch that no zombie of the old stream has (S-8).
    let (reader, _) = s.subscribe(durable("orders", "billing")).await.is("at 0 of orders 0..1, epoch 2, log epoch 1").unwrap();
    s.hears(reader, &["0: 0", "live at 1"]).await;
    let why = s.commit(Commit::default().ack("orders", "billing", 1, 0)).await.refused("txn_part_failed T-1");
    assert_eq!(why.details["cause"]["rule"], "C-7");
}

pub async fn a_deleted_subscription_ends_its_reader(s: &mut Stage<'_>) {
    s.create("orders").await;
    s.fill("orders", 0..2).await;
    let reader = s.reader(durable("orders", "billing")).await;
    s.hears_offsets(reader, 0..2).await;
    s.ack(reader, 0).await.ok();
    s.delete_subscription("orders", "billing").await.is("done").ok();
    s.hears_end(reader, "not_found -").await;
    s.cursor("orders", "billing").await.refused("not_found -");
    // The new one begins anew, at an epoch that no zombie of the old one has.
    s.subscribe(durable("orders", "billing")).await.is("at 0 of orders 0..2, epoch 2, log epoch 1").ok();
}

pub async fn a_seek_ends_the_session_and_moves_the_cursor_either_way(s: &mut Stage<'_>) {
    s.create("orders").await;
    s.fill("orders", 0..5).await;
    let reader = s.reader(durable("orders", "billing")).await;
    s.hears_offsets(reader, 0..5).await;
    s.ack(reader, 3).await.is("done before 4").ok();
    s.seek("orders", "billing", value!({"next": 1})).await.is("next 1, epoch 2, behind by 4 events, 4 bytes").ok();
    s.hears_end(reader, "session_fenced C-14").await;
    let (reader, _) = s.subscribe(durable("orders", "billing")).await.is("at 1 of orders 0..5, epoch 3, log epoch 1").unwrap();
    s.hears_offsets(reader, 1..5).await;
    s.seek("orders", "billing", value!({"latest": true})).await.is("next 5, epoch 4, behind by 0 events, 0 bytes").ok();
    s.hears_end(reader, "session_fenced C-14").await;
    s.seek("orders", "billing", value!({"earliest": true})).await.is("next 0, epoch 5, behind by 5 events, 5 bytes").ok();
    s.seek("orders", "billing", value!({"next": 6})).await.refused("position_beyond_end C-3");
    s.seek("orders", "nobody", value!({"next": 0})).await.refused("not_found -");
    s.subscribe(durable("orders", "billing")).await.is("at 0 of orders 0..5, epoch 6, log epoch 1").ok();
}

pub async fn a_received_ack_counts_for_a_takeover(s: &mut Stage<'_>) {
    s.create("orders").await;
    s.fill("orders", 0..4).await;
    let mut ask = durable("orders", "billing");
    ask.received = true;
    let reader = s.reader(ask.clone()).await;
    s.hears_offsets(reader, 0..4).await;
    s.ack(reader, 1).await.is("done before 2").ok();
    s.ack(reader, 2).await.is("done before 3").ok();
    let (second, _) = s.subscribe(ask).await.is("at 3 of orders 0..4, epoch 2, log epoch 1").unwrap();
    s.hears_end(reader, "session_fenced C-7").await;
    s.hears_offsets(second, 3..4).await;
    s.cursor("orders", "billing").await.is("next 3, epoch 2, behind by 1 events, 1 bytes").ok();
}

pub async fn a_reader_is_told_once_that_it_is_live(s: &mut Stage<'_>) {
    s.create("orders").await;
    let empty = s.reader(follow("orders")).await;
    s.hears(empty, &["live at 0"]).await;
    s.append("orders", numbers(0..2)).await.ok();
    s.hears(empty, &["0: 0", "1: 1"]).await;
    let full = s.reader(follow("orders").from(From::Earliest)).await;
    s.hears(full, &["0: 0", "1: 1", "live at 2"]).await;
    for n in 2..5 {
        s.append("orders", numbers(n..n + 1)).await.ok();
        s.hears(empty, &[&format!("{n}: {n}")]).await;
        s.hears(full, &[&format!("{n}: {n}")]).await;
    }
}
