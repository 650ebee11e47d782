//! `Commit`: acks and appends that happen together or not at all (T-1 … T-7).

use super::stage::{Reader, Stage};
use super::values::{Commit, durable, json, numbers, to};

/// Streams `in` with five events and `out` with none, and a reader that was given all five.
async fn prepared(s: &mut Stage<'_>) -> Reader {
    s.create("in").await;
    s.create("out").await;
    s.fill("in", 0..5).await;
    let reader = s.reader(durable("in", "billing")).await;
    s.hears_offsets(reader, 0..5).await;
    reader
}

fn work(offset: u64) -> Commit {
    Commit::default().ack("in", "billing", 1, offset).append(to("out", [json(&format!("{{ \"done\": {offset} }}"))]))
}

pub async fn a_commit_acknowledges_and_appends_at_once(s: &mut Stage<'_>) {
    let reader = prepared(s).await;
    s.commit(work(1)).await.is("committed, billing of in before 2, out 0..=0").ok();
    s.cursor("in", "billing").await.is("next 2, epoch 1, behind by 3 events, 3 bytes").ok();
    let twice = work(3).append(to("out", numbers(8..10))).append(to("in", numbers(5..6)).expecting(5));
    s.commit(twice).await.is("committed, billing of in before 4, out 1..=1, out 2..=3, in 5..=5").ok();
    s.read("out", 0, 10).await.is("0: { \"done\": 1 }, 1: { \"done\": 3 }, 2: 8, 3: 9").ok();
    // The session goes on where the commit left it.
    s.hears_offsets(reader, 5..6).await;
    s.ack(reader, 5).await.is("done before 6").ok();
}

pub async fn a_commit_sent_again_gets_its_first_answer(s: &mut Stage<'_>) {
    prepared(s).await;
    s.open_commits("tx", "any").await.is("tx created: epoch 1, last_seq none, next_offset none, log epoch 1").ok();
    let first = work(1).stamp("tx", 1, 0).check("missing", 0);
    s.commit(first).await.refused("txn_part_failed T-1");
    let first = work(1).stamp("tx", 1, 0);
    s.commit(first.clone()).await.is("committed, billing of in before 2, out 0..=0").ok();
    s.commit(first.clone()).await.is("committed, billing of in before 2, out 0..=0 before").ok();
    s.commit(work(2).stamp("tx", 1, 0)).await.refused("producer_seq_reused P-5");
    s.commit(work(2).stamp("tx", 1, 1)).await.is("committed, billing of in before 3, out 1..=1").ok();
    s.commit(first.clone()).await.is("committed, billing of in before 2, out 0..=0 before").ok();
    // A retry finds its answer although its streams are gone.
    s.delete("out").await.ok();
    s.commit(first).await.is("committed, billing of in before 2, out 0..=0 before").ok();
    s.commit(work(3).stamp("tx", 1, 2)).await.refused("txn_part_failed T-1");
    s.cursor("in", "billing").await.is("next 3, epoch 1, behind by 2 events, 2 bytes").ok();
}

pub async fn one_refused_part_refuses_the_whole_commit(s: &mut Stage<'_>) {
    prepared(s).await;
    s.create("closed").await;
    s.close("closed").await.ok();
    let refusals: Vec<(Commit, &str, u64, &str)> = vec![
        (work(1).append(to("missing", numbers(0..1))), "appends", 1, "not_found"),
        (work(1).append(to("closed", numbers(0..1))), "appends", 1, "stream_closed"),
        (work(1).append(to("out", numbers(0..1)).expecting(0)), "appends", 1, "condition_failed"),
        (work(1).ack("out", "nobody", 1, 0), "acks", 1, "not_found"),
        (work(5), "acks", 0, "ack_beyond_end"),
        (Commit::default().ack("in", "billing", 9, 1).append(to("out", numbers(0..1))), "acks", 0, "session_unknown"),
        (work(1).check("closed", 7), "checks", 0, "condition_failed"),
    ];
    for (commit, part, index, cause) in refusals {
        let why = s.commit(commit).await.refused("txn_part_failed T-1");
        assert_eq!((&why.details["part"], &why.details["index"]), (&part.into(), &index.into()), "{why}");
        assert_eq!((&why.details["cause"]["code"], why.applied.as_str()), (&cause.into(), "no"), "{why}");
    }
    s.commit(Commit::default()).await.refused("bad_parameter -");
    s.cursor("in", "billing").await.is("next 0, epoch 1, behind by 5 events, 5 bytes").ok();
    s.describe("out").await.is("Ready 0..0, 0 bytes").ok();
    s.commit(work(1).append(to("out", numbers(0..1)).expecting(1))).await.is("committed, billing of in before 2, out 0..=0, out 1..=1").ok();
}

pub async fn an_ack_that_moves_nothing_refuses_the_commit(s: &mut Stage<'_>) {
    let reader = prepared(s).await;
    s.ack(reader, 2).await.is("done before 3").ok();
    for offset in [2, 1] {
        let why = s.commit(work(offset)).await.refused("txn_part_failed T-1");
        assert_eq!(why.details["cause"]["code"], "ack_stale");
        assert_eq!(why.details["cause"]["rule"], "T-5");
    }
    s.describe("out").await.is("Ready 0..0, 0 bytes").ok();
    s.commit(work(3)).await.is("committed, billing of in before 4, out 0..=0").ok();
    let twice = Commit::default().ack("in", "billing", 1, 4).ack("in", "billing", 1, 4);
    s.commit(twice).await.refused("bad_parameter -");
}

pub async fn a_check_holds_a_commit_back(s: &mut Stage<'_>) {
    prepared(s).await;
    s.create("rules").await;
    s.fill("rules", 0..3).await;
    let why = s.commit(work(1).check("rules", 2)).await.refused("txn_part_failed T-1");
    assert_eq!((&why.details["cause"]["rule"], &why.details["cause"]["details"]["next_offset"]), (&"T-7".into(), &3.into()));
    s.commit(work(1).check("rules", 3)).await.is("committed, billing of in before 2, out 0..=0").ok();
    s.commit(work(2).check("out", 1)).await.refused("bad_parameter T-7");
    s.cursor("in", "billing").await.is("next 2, epoch 1, behind by 3 events, 3 bytes").ok();
}

pub async fn a_fenced_session_commits_nothing(s: &mut Stage<'_>) {
    let first = prepared(s).await;
    let second = s.reader(durable("in", "billing").credit(2)).await;
    s.hears_end(first, "session_fenced C-7").await;
    s.hears_offsets(second, 0..2).await;
    let why = s.commit(work(1)).await.refused("txn_part_failed T-1");
    assert_eq!((&why.details["cause"]["code"], &why.details["cause"]["rule"]), (&"session_fenced".into(), &"C-7".into()));
    let as_second = |offset| Commit::default().ack("in", "billing", 2, offset).append(to("out", numbers(offset..offset + 1)));
    let why = s.commit(as_second(2)).await.refused("txn_part_failed T-1");
    assert_eq!(why.details["cause"]["code"], "ack_not_delivered");
    s.commit(as_second(1)).await.is("committed, billing of in before 2, out 0..=0").ok();
    // A commit refills the window as an ack does.
    s.hears_offsets(second, 2..4).await;
    // A session that was let go may still commit (an epoch is not bound to a connection).
    s.unsubscribe(second).await;
    s.commit(as_second(3)).await.is("committed, billing of in before 4, out 1..=1").ok();
}

pub async fn a_producer_of_commits_follows_the_producer_table(s: &mut Stage<'_>) {
    prepared(s).await;
    let plain = |seq: u64| Commit::default().append(to("out", numbers(seq..seq + 1)));
    s.open_commits("tx", "resume").await.refused("producer_state_lost P-15");
    s.commit(plain(0).stamp("tx", 1, 0)).await.refused("producer_unknown P-1");
    s.open_commits("tx", "create").await.ok();
    s.open_commits("tx", "create").await.refused("name_taken -");
    // A producer of a stream by this name is somebody else.
    s.open("out", "tx", "create").await.ok();
    s.commit(plain(1).stamp("tx", 1, 1)).await.refused("producer_seq_gap P-8");
    s.commit(plain(0).stamp("tx", 1, 0)).await.is("committed, out 0..=0").ok();
    s.open_commits("tx", "any").await.is("tx resumed: epoch 2, last_seq 0, next_offset none, log epoch 1").ok();
    s.commit(plain(1).stamp("tx", 1, 1)).await.refused("producer_fenced P-2");
    s.commit(plain(1).stamp("tx", 3, 1)).await.refused("producer_unknown P-3");
    s.commit(plain(0).stamp("tx", 2, 0)).await.is("committed, out 0..=0 before").ok();
    s.commit(plain(1).stamp("tx", 2, 1)).await.is("committed, out 1..=1").ok();
    s.read("out", 0, 10).await.is("0: 0, 1: 1").ok();
}

pub async fn a_commit_needs_no_producer_and_goes_over_any_carrier(s: &mut Stage<'_>) {
    let reader = prepared(s).await;
    s.other().commit(work(2)).await.is("committed, billing of in before 3, out 0..=0").ok();
    s.other().read("out", 0, 10).await.is("0: { \"done\": 2 }").ok();
    s.first().ack(reader, 4).await.is("done before 5").ok();
    s.other().cursor("in", "billing").await.is("next 5, epoch 1, behind by 0 events, 0 bytes").ok();
}
