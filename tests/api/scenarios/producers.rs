//! Producers: the decision table P-1 … P-10, poisoning (P-12), receipts (P-14) and going on after a break (P-16).

use super::stage::Stage;
use super::values::{json, numbers, to};

pub async fn each_opening_of_a_producer_is_a_new_epoch(s: &mut Stage<'_>) {
    s.create("orders").await;
    s.open("orders", "p1", "resume").await.refused("producer_state_lost P-15");
    s.open("orders", "p1", "create").await.is("p1 created: epoch 1, last_seq none, next_offset 0, log epoch 1").ok();
    s.open("orders", "p1", "create").await.refused("name_taken -");
    s.open("orders", "p1", "any").await.is("p1 resumed: epoch 2, last_seq none, next_offset 0, log epoch 1").ok();
    s.put(to("orders", numbers(0..3)).stamp("p1", 2, 0)).await.is("stored 0..=2").ok();
    s.open("orders", "p1", "resume").await.is("p1 resumed: epoch 3, last_seq 2, next_offset 3, log epoch 1").ok();
    s.open("orders", "other", "any").await.is("other created: epoch 1, last_seq none, next_offset 3, log epoch 1").ok();
    s.open("nowhere", "p1", "any").await.refused("not_found -");
    // Letters matter in producer ids.
    s.open("orders", "P1", "any").await.is("P1 created: epoch 1, last_seq none, next_offset 3, log epoch 1").ok();
}

pub async fn a_producer_that_comes_back_goes_on_after_its_last_event(s: &mut Stage<'_>) {
    s.create("orders").await;
    s.open("orders", "p1", "any").await.ok();
    s.send("orders", "p1", numbers(0..2)).await.is("stored 0..=1").ok();
    s.append("orders", [json("\"somebody else\"")]).await.ok();
    s.send("orders", "p1", numbers(2..5)).await.is("stored 3..=5").ok();
    s.open("orders", "p1", "resume").await.is("p1 resumed: epoch 2, last_seq 4, next_offset 6, log epoch 1").ok();
    s.send("orders", "p1", numbers(5..6)).await.is("stored 6..=6").ok();
    s.read("orders", 0, 100).await.is("0: 0, 1: 1, 2: \"somebody else\", 3: 2, 4: 3, 5: 4, 6: 5").ok();
}

pub async fn a_producer_opened_elsewhere_is_fenced(s: &mut Stage<'_>) {
    s.create("orders").await;
    s.open("orders", "p1", "any").await.ok();
    s.send("orders", "p1", numbers(0..1)).await.is("stored 0..=0").ok();
    s.other().open("orders", "p1", "any").await.is("p1 resumed: epoch 2, last_seq 0, next_offset 1, log epoch 1").ok();
    let why = s.first().send("orders", "p1", numbers(1..2)).await.refused("producer_fenced P-2");
    assert_eq!(why.details["epoch"], 2);
    s.other().send("orders", "p1", numbers(1..2)).await.is("stored 1..=1").ok();
    s.first().read("orders", 0, 10).await.is("0: 0, 1: 1").ok();
}

pub async fn a_batch_sent_again_is_answered_with_its_first_offsets(s: &mut Stage<'_>) {
    s.create("orders").await;
    s.open("orders", "p1", "any").await.ok();
    let first = to("orders", [json("{ \"a\": 1 }").kind("t").key("k").header("z", "1").header("a", "2"), json("2")]).stamp("p1", 1, 0);
    let second = to("orders", numbers(2..5)).stamp("p1", 1, 2).expecting(2);
    s.put(first.clone()).await.is("stored 0..=1").ok();
    s.put(second.clone()).await.is("stored 2..=4").ok();
    s.append("orders", numbers(9..10)).await.ok();
    s.put(first.clone()).await.is("stored 0..=1 before").ok();
    // P-4 holds although the condition does not any more, and when the stream is closed.
    s.put(second.clone()).await.is("stored 2..=4 before").ok();
    s.close("orders").await.ok();
    s.put(second).await.is("stored 2..=4 before").ok();
    s.put(first).await.is("stored 0..=1 before").ok();
    s.put(to("orders", numbers(0..1)).stamp("p1", 1, 5)).await.refused("stream_closed P-9");
    s.describe("orders").await.is("Ready 0..6, 15 bytes, closed").ok();
}

pub async fn what_does_not_fit_the_sequence_is_refused_by_its_rule(s: &mut Stage<'_>) {
    s.create("orders").await;
    let batch = |seq, range| to("orders", numbers(range)).stamp("p1", 2, seq);
    s.put(batch(0, 0..1)).await.refused("producer_unknown P-1");
    s.open("orders", "p1", "any").await.ok();
    s.open("orders", "p1", "any").await.ok();
    s.put(batch(0, 0..3)).await.is("stored 0..=2").ok();
    s.put(batch(3, 3..5)).await.is("stored 3..=4").ok();
    s.put(to("orders", numbers(5..6)).stamp("p1", 1, 5)).await.refused("producer_fenced P-2");
    s.put(to("orders", numbers(5..6)).stamp("p1", 3, 5)).await.refused("producer_unknown P-3");
    s.put(batch(3, 7..9)).await.refused("producer_seq_reused P-5");
    for (seq, range) in [(3, 3..4), (4, 4..5), (2, 2..5), (4, 4..6), (0, 0..2)] {
        s.put(batch(seq, range)).await.refused("producer_seq_overlap P-7");
    }
    let why = s.put(batch(6, 6..7)).await.refused("producer_seq_gap P-8");
    assert_eq!((why.retry.as_str(), &why.details["expected"]), ("resend", &5.into()));
    s.put(batch(5, 5..6)).await.is("stored 5..=5").ok();
    s.read("orders", 0, 100).await.is("0: 0, 1: 1, 2: 2, 3: 3, 4: 4, 5: 5").ok();
}

pub async fn an_old_batch_without_its_receipt_is_a_duplicate_without_offsets(s: &mut Stage<'_>) {
    s.create("orders").await;
    s.open("orders", "p1", "any").await.ok();
    let batch = |seq: u64| to("orders", numbers(2 * seq..2 * seq + 2)).stamp("p1", 1, 2 * seq);
    for said in s.put_all((0..66).map(batch).collect()).await {
        said.ok();
    }
    s.put(batch(0)).await.is("stored 2 somewhere before").ok();
    s.put(batch(1)).await.is("stored 2 somewhere before").ok();
    s.put(batch(2)).await.is("stored 4..=5 before").ok();
    s.put(batch(65)).await.is("stored 130..=131 before").ok();
    // Cut through the oldest receipt.
    s.put(to("orders", numbers(3..5)).stamp("p1", 1, 3)).await.refused("producer_seq_overlap P-7");
    s.describe("orders").await.is("Ready 0..132, 296 bytes").ok();
}

pub async fn a_refused_batch_does_not_use_its_number(s: &mut Stage<'_>) {
    s.create_with("small", serde_json::json!({"event_max_bytes": 4})).await.ok();
    s.open("small", "p1", "any").await.ok();
    s.put(to("small", numbers(0..1)).stamp("p1", 1, 0)).await.is("stored 0..=0").ok();
    s.put(to("small", [json("12345")]).stamp("p1", 1, 1)).await.refused("too_large P-9");
    s.put(to("small", numbers(1..2)).stamp("p1", 1, 1).expecting(7)).await.refused("condition_failed P-18");
    s.put(to("small", numbers(1..2)).stamp("p1", 1, 1).expecting(1)).await.is("stored 1..=1").ok();
    s.open("small", "p1", "any").await.is("p1 resumed: epoch 2, last_seq 1, next_offset 2, log epoch 1").ok();
}

pub async fn a_refused_append_poisons_those_behind_it_until_resume(s: &mut Stage<'_>) {
    s.create("orders").await;
    s.create("elsewhere").await;
    s.open("orders", "p1", "any").await.ok();
    let batch = |seq: u64| to("orders", numbers(seq..seq + 1)).stamp("p1", 1, seq);
    let pipeline = vec![batch(0), batch(1), batch(3), batch(2), batch(3), to("orders", [json("\"plain\"")]), to("elsewhere", [json("\"other\"")])];
    let mut answers = s.put_all(pipeline).await.into_iter();
    let mut next = || answers.next().expect("one for each");
    next().is("stored 0..=0").ok();
    next().is("stored 1..=1").ok();
    next().refused("producer_seq_gap P-8");
    // Had these been stored, the order of the source would be lost.
    assert_eq!(next().refused("session_poisoned P-12").retry, "resume");
    next().refused("session_poisoned P-12");
    // Other sessions of the connection go on.
    next().is("stored 2..=2").ok();
    next().is("stored 0..=0").ok();
    s.resume("orders", Some("p1"), Some(3)).await.refused("bad_parameter P-12");
    s.resume("orders", Some("p1"), None).await.refused("bad_parameter P-12");
    s.resume("orders", Some("nobody"), Some(0)).await.refused("producer_unknown P-1");
    for said in s.put_all(vec![batch(2)]).await {
        said.refused("session_poisoned P-12");
    }
    s.resume("orders", Some("p1"), Some(2)).await.is("resumed").ok();
    for said in s.put_all(vec![batch(2), batch(3)]).await {
        said.ok();
    }
    s.read("orders", 0, 100).await.is("0: 0, 1: 1, 2: \"plain\", 3: 2, 4: 3").ok();
}

pub async fn appends_without_a_producer_are_poisoned_too(s: &mut Stage<'_>) {
    s.create("orders").await;
    s.open("orders", "p1", "any").await.ok();
    let pipeline = vec![
        to("orders", numbers(0..1)),
        to("orders", numbers(1..2)).expecting(5),
        to("orders", numbers(2..3)),
        to("orders", numbers(3..4)).stamp("p1", 1, 0),
    ];
    let mut answers = s.put_all(pipeline).await.into_iter();
    let mut next = || answers.next().expect("one for each");
    next().is("stored 0..=0").ok();
    next().refused("condition_failed P-18");
    next().refused("session_poisoned P-12");
    next().is("stored 1..=1").ok();
    s.resume("orders", None, Some(1)).await.refused("bad_parameter P-12");
    s.resume("orders", None, None).await.is("resumed").ok();
    s.append("orders", numbers(2..3)).await.is("stored 2..=2").ok();
}

pub async fn an_append_that_stands_alone_poisons_nothing(s: &mut Stage<'_>) {
    s.create("orders").await;
    s.put(to("orders", numbers(0..1)).expecting(5)).await.refused("condition_failed P-18");
    s.append("orders", numbers(0..1)).await.is("stored 0..=0").ok();
    s.put(to("orders", numbers(1..2)).expecting(1)).await.is("stored 1..=1").ok();
}
