//! Each invariant finds a lie: a small history that is right, and what a broken broker or client would have left instead.

use std::collections::BTreeMap;

use super::told::RESUMED;
use super::*;
use crate::history::{Ack, Image, Opening, Position, Resumed, Run, Sample, Seen, Session, Side, Stored, Stranger, Told};

/// A small history in which nothing is wrong.
fn right() -> History {
    let data = ["u0".to_owned(), value(1, 0, 1), value(1, 1, 1), "u1".to_owned(), value(1, 2, 3), value(1, 3, 3)];
    let rows: Vec<(u64, u64)> = data.iter().enumerate().map(|(i, d)| (i as u64, hash(d.as_bytes()))).collect();
    let stored = |source: bool| data.iter().enumerate().map(move |(i, d)| Stored { offset: i as u64, data: d.clone(), source: source.then_some(i as u64) });
    let log = |id, source| Log { id, log_epoch: 1, first: 0, next: 6, events: stored(source).collect() };
    let append = |value: &str, began, ended, expected, outcome| Append { value: value.into(), began, ended, expected, outcome };
    let sample = |began, ended, next| Sample { began, ended, stream: "a".into(), id: 7, log_epoch: 1, first: 0, next };
    let position = |name: &str, next, epoch| Position { subscription: name.into(), next, epoch };
    let session = |epoch, next, got: &[u64], acked: &[u64]| Session { reader: "s1", durable: true, epoch, next, got: got.into(), acked: acked.into() };
    let answered = |incarnation, seq, outcome| Note::Answered { producer: 1, incarnation, seq, count: 2, outcome };
    let mut repeated = rows.clone();
    repeated.splice(3..3, rows[1..3].to_vec());
    History {
        input: log(7, false),
        output: log(8, true),
        appends: vec![
            append("u0", 10, 20, None, Outcome::Acked { first: Some(0) }),
            append("u-refused", 30, 40, Some(9), Outcome::Refused { code: "condition_failed".into(), next: Some(3) }),
            append("u1", 50, 60, Some(3), Outcome::Acked { first: Some(3) }),
            append("u-lost", 70, 80, None, Outcome::Unknown),
        ],
        notes: vec![
            Note::Opened { producer: 1, epoch: 1, last_seq: None },
            Note::Sent { producer: 1, incarnation: 1, seq: 0, count: 2 },
            answered(1, 0, Outcome::Acked { first: Some(1) }),
            Note::Sent { producer: 1, incarnation: 1, seq: 2, count: 2 },
            Note::Opened { producer: 1, epoch: 3, last_seq: Some(1) },
            answered(1, 2, Outcome::Refused { code: "producer_fenced".into(), next: None }),
            Note::Sent { producer: 1, incarnation: 3, seq: 2, count: 2 },
            answered(3, 2, Outcome::Acked { first: Some(4) }),
        ],
        seen: rows.iter().map(|(offset, hash)| Seen { reader: "rest", stream_id: 7, log_epoch: 1, offset: *offset, hash: *hash }).collect(),
        samples: vec![sample(0, 5, 0), sample(25, 28, 3), sample(65, 90, 6)],
        positions: vec![position("s1", 0, 1), position("s1", 2, 2)],
        cursors: vec![position("s1", 6, 2), position("k3", 6, 1)],
        images: vec![Image { before: 0, output: 2, after: 2 }, Image { before: 2, output: 2, after: 6 }],
        sessions: vec![session(1, 0, &[0, 1, 2], &[1, 2]), session(2, 2, &[2, 3, 4, 5], &[4, 6])],
        exact: vec![Table { name: "k1", rows: rows.clone() }],
        plain: Some(Table { name: "plain", rows: repeated }),
        told: BTreeMap::from([(told("rest", "condition_failed", Some(412)), 3), (told("grpc", "session_fenced", Some(10)), 1)]),
        openings: [(1, 100), (2, 200)].map(|(epoch, at)| Opening { reader: "s1".into(), epoch, at }).into(),
        acks: [(1, 150, 2), (2, 250, 6)].map(|(epoch, sent, next)| Ack { reader: "s1".into(), epoch, sent, next }).into(),
        fenced: vec![("s1".into(), 1)],
        runs: vec![run(&[("u0", Outcome::Acked { first: Some(0) }), ("u-refused", refused()), ("u-behind", refused())])],
        sides: vec![gone(), side()],
        resumed: vec![Resumed { who: "s1".into(), seconds: 0.4 }],
        strangers: ["/v1/streams/a", "/v1/streams/none"].map(stranger).into(),
    }
}

fn refused() -> Outcome {
    Outcome::Refused { code: "session_poisoned".into(), next: None }
}

fn run(appends: &[(&str, Outcome)]) -> Run {
    Run { carrier: "ws-json", appends: appends.iter().map(|(value, outcome)| ((*value).to_owned(), outcome.clone())).collect() }
}

fn told(carrier: &str, code: &str, number: Option<i64>) -> Told {
    let retry = if code == "session_fenced" { "decide" } else { "never" };
    Told { carrier: carrier.into(), code: code.into(), applied: "no".into(), retry: retry.into(), number }
}

fn stranger(path: &str) -> Stranger {
    Stranger { path: path.into(), status: 401, said: "unauthenticated: Who are you?".into() }
}

/// A stream that was trimmed to 1 and has three events left.
fn side() -> Side {
    let data = ["x1", "x2", "x3"];
    let append =
        |(value, first): (&str, u64)| Append { value: value.into(), began: 0, ended: 1, expected: None, outcome: Outcome::Acked { first: Some(first) } };
    let mut appends: Vec<Append> = [("x0", 0), ("x1", 1), ("x2", 2)].map(append).into();
    appends.push(Append { value: "x-refused".into(), began: 0, ended: 1, expected: None, outcome: refused() });
    appends.push(Append { value: "x3".into(), began: 0, ended: 1, expected: None, outcome: Outcome::Unknown });
    let events = data.iter().zip(1..).map(|(data, offset)| Stored { offset, data: (*data).into(), source: None }).collect();
    let log = Some(Log { id: 12, log_epoch: 1, first: 1, next: 4, events });
    let opened = vec![("q".into(), 1, None), ("q".into(), 2, Some(0))];
    Side { name: "side".into(), id: 12, appends, opened, trimmed: 1, trimmed_at_most: 1, log, ..Side::default() }
}

/// The life before.
fn gone() -> Side {
    Side { id: 11, deleting: true, deleted: true, log: None, ..side() }
}

/// The lie must be found by this invariant.
#[track_caller]
fn found(number: usize, lie: impl FnOnce(&mut History)) {
    let mut history = right();
    lie(&mut history);
    let (name, invariant) = ALL[number - 1];
    assert!(name.starts_with(&format!("I-{number} ")), "{name}");
    assert!(invariant(&history).is_err(), "{name} believes a lie: {:?}", invariant(&history));
}

#[test]
fn a_right_history_passes_every_invariant() {
    let history = right();
    for (name, invariant) in ALL {
        assert_eq!(invariant(&history).err(), None, "{name}");
    }
}

#[test]
fn i1_finds_an_acknowledged_append_that_is_lost_or_changed_or_elsewhere() {
    found(1, |h| h.input.events.truncate(5));
    found(1, |h| h.input.events[3].data = "other".into());
    found(1, |h| h.input.events.swap(1, 2));
    found(1, |h| h.notes.push(Note::Answered { producer: 1, incarnation: 1, seq: 90, count: 1, outcome: Outcome::Acked { first: None } }));
}

#[test]
fn i2_finds_a_refused_append_that_is_stored() {
    found(2, |h| h.input.events[3].data = "u-refused".into());
    found(2, |h| h.input.events[5].data = value(1, 3, 1));
}

#[test]
fn i3_finds_an_append_that_is_stored_twice_and_half_a_batch() {
    found(3, |h| {
        h.input.events[3].data = "u-lost".into();
        h.input.events[4].data = "u-lost".into();
    });
    found(3, |h| h.notes.extend([Note::Sent { producer: 1, incarnation: 3, seq: 3, count: 2 }]));
}

#[test]
fn i4_finds_two_values_at_one_offset() {
    found(4, |h| h.seen[2].hash ^= 1);
    found(4, |h| h.seen.extend([0, 1].map(|hash| Seen { reader: "x", stream_id: 9, log_epoch: 1, offset: 0, hash })));
}

#[test]
fn i5_finds_a_hole_an_overlap_and_a_false_end() {
    found(5, |h| drop(h.input.events.remove(2)));
    found(5, |h| h.output.events[2].offset = 1);
    found(5, |h| h.input.next = 7);
}

#[test]
fn i6_finds_a_producers_event_that_is_missing_repeated_or_out_of_order() {
    found(6, |h| h.input.events[2].data = "u9".into());
    found(6, |h| h.input.events[3].data = value(1, 1, 1));
    found(6, |h| h.input.events.swap(4, 5));
}

#[test]
fn i7_finds_an_end_or_event_that_disappeared() {
    found(7, |h| h.samples[1].next = 8);
    found(7, |h| h.seen.push(Seen { reader: "monitor", stream_id: 7, log_epoch: 1, offset: 6, hash: 1 }));
}

#[test]
fn i8_finds_ends_and_epochs_that_go_back() {
    found(8, |h| h.samples[2].next = 2);
    found(8, |h| h.samples[0].first = 1);
    found(8, |h| h.samples[2].log_epoch = 0);
    found(8, |h| h.notes.push(Note::Opened { producer: 1, epoch: 3, last_seq: Some(3) }));
    found(8, |h| h.sessions[1].epoch = 1);
    found(8, |h| h.positions[1].epoch = 0);
}

#[test]
fn i9_finds_an_order_that_contradicts_time_and_conditions_that_were_not_kept() {
    found(9, |h| h.samples[0].next = 1);
    found(9, |h| h.samples[1].next = 0);
    found(9, |h| h.appends[2].expected = Some(2));
    found(9, |h| h.appends[1].expected = Some(3));
    found(9, |h| (h.appends[0].began, h.appends[0].ended) = (61, 64));
}

#[test]
fn i10_finds_a_part_of_a_commit() {
    found(10, |h| h.images[0].output = 3);
    found(10, |h| h.images[1].output = 1);
    found(10, |h| h.cursors[1].next = 5);
    found(10, |h| drop(h.cursors.pop()));
}

#[test]
fn i11_finds_a_hole_a_repetition_and_a_false_beginning() {
    found(11, |h| h.sessions[0].got = vec![0, 2]);
    found(11, |h| h.sessions[0].got = vec![0, 0, 1]);
    found(11, |h| h.sessions[1].next = 1);
}

#[test]
fn i12_finds_an_event_that_never_came() {
    found(12, |h| h.sessions[1].got.retain(|offset| *offset != 4));
    found(12, |h| h.exact[0].rows.truncate(5));
    found(12, |h| h.plain.iter_mut().for_each(|table| table.rows.retain(|(offset, _)| *offset != 0)));
    found(12, |h| h.cursors[0].next = 5);
}

#[test]
fn i13_finds_a_durable_ack_that_was_forgotten() {
    found(13, |h| h.sessions[0].acked.push(3));
    found(13, |h| h.cursors[0].next = 5);
}

#[test]
fn i14_finds_a_cursor_that_went_back() {
    found(14, |h| h.positions[0].next = 3);
    found(14, |h| h.cursors[0].next = 1);
    found(14, |h| h.sessions[1].acked.reverse());
}

#[test]
fn i15_finds_a_late_effect_of_a_fenced_incarnation() {
    found(15, |h| h.input.events[4].data = value(1, 2, 1));
}

#[test]
fn i16_finds_effects_that_are_missing_repeated_or_changed_and_a_control_without_repetition() {
    found(16, |h| h.exact[0].rows.retain(|(offset, _)| *offset != 3));
    found(16, |h| {
        let again = h.exact[0].rows[2];
        h.exact[0].rows.insert(3, again);
    });
    found(16, |h| h.exact[0].rows[1].1 ^= 1);
    found(16, |h| drop(h.output.events.pop()));
    found(16, |h| h.output.events[2].source = Some(1));
    found(16, |h| h.output.events[2].data = "other".into());
    found(16, |h| h.plain.iter_mut().for_each(|table| table.rows.truncate(0)));
    found(16, |h| h.plain = Some(Table { name: "plain", rows: h.exact[0].rows.clone() }));
}

#[test]
fn i1_finds_a_stream_that_is_gone_and_an_event_of_it_that_is() {
    found(1, |h| h.sides[1].log = None);
    found(1, |h| h.sides[1].log.iter_mut().for_each(|log| log.events[1].data = "other".into()));
    found(1, |h| h.sides[0].log = h.sides[1].log.clone());
}

#[test]
fn i2_i3_and_i5_look_at_streams_that_come_and_go_too() {
    let with = |h: &mut History, change: fn(&mut Log)| h.sides[1].log.iter_mut().for_each(change);
    found(2, |h| with(h, |log| log.events[2].data = "x-refused".into()));
    found(3, |h| with(h, |log| log.events[2].data = "x1".into()));
    found(5, |h| with(h, |log| drop(log.events.remove(1))));
    found(7, |h| h.samples.push(Sample { began: 0, ended: 1, stream: "side".into(), id: 12, log_epoch: 1, first: 1, next: 5 }));
}

#[test]
fn i6_finds_an_append_that_was_stored_behind_a_refused_one() {
    found(6, |h| h.runs[0].appends.push(("u1".into(), Outcome::Acked { first: Some(3) })));
}

#[test]
fn i8_finds_a_trim_that_was_forgotten_one_that_nobody_asked_for_and_an_id_or_epoch_that_came_back() {
    found(8, |h| h.sides[1].trimmed = 2);
    found(8, |h| h.sides[1].trimmed_at_most = 0);
    found(8, |h| h.sides[1].id = 11);
    found(8, |h| h.sides[1].opened.push(("q".into(), 2, Some(0))));
}

#[test]
fn i15_finds_an_ack_that_a_fenced_session_sent_and_was_confirmed() {
    found(15, |h| h.acks[0].sent = 210);
}

#[test]
fn i17_finds_a_refusal_that_is_not_in_the_table_or_differs_from_it_or_tells_of_lost_data() {
    let lie = |carrier: &str, code: &str, number, applied: &str| {
        let told = Told { applied: applied.into(), ..told(carrier, code, number) };
        found(17, |h| assert_eq!(h.told.insert(told, 1), None));
    };
    lie("rest", "no_such_code", Some(400), "no");
    lie("rest", "condition_failed", Some(412), "unknown");
    lie("rest", "condition_failed", Some(409), "no");
    lie("grpc", "session_fenced", Some(9), "no");
    lie("frames", "position_beyond_end", None, "no");
    lie("frames", "internal", None, "no");
    found(17, |h| h.appends[1].outcome = Outcome::Refused { code: "outcome_unknown".into(), next: None });
}

#[test]
fn i18_finds_an_answer_that_differs_by_what_exists() {
    found(18, |h| h.strangers[1].said = "not_found: There is no stream.".into());
    found(18, |h| h.strangers[0].status = 200);
}

#[test]
fn i19_finds_somebody_who_did_not_come_back() {
    found(19, |h| h.resumed[0].seconds = RESUMED.as_secs_f64() + 1.0);
    found(19, |h| h.resumed.clear());
}
