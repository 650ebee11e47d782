//! The invariants I-1 to I-19 of the rules, each as one function over a history: figures, or the first thing that is wrong.
//!
//! Nothing here knows of processes or sockets. `check_controls` proves that each can fail: a small history that is right, and one lie for
//! each invariant (at least). Streams that come and go are looked at in `check_sides`, what was told and when in `check_told`.

#[path = "check_controls.rs"]
mod controls;
#[path = "check_sides.rs"]
mod sides;
#[path = "check_told.rs"]
mod told;

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::history::{Append, BY_HAND, History, Log, Note, Outcome, Table, hash, parse, value};

/// What was counted, or what is wrong.
pub type Verdict = Result<String, String>;

/// An invariant and its function.
pub type Invariant = (&'static str, fn(&History) -> Verdict);

pub const ALL: [Invariant; 19] = [
    ("I-1  acknowledged appends are at their offsets", i1_acknowledged_appends_are_at_their_offsets),
    ("I-2  refused appends are nowhere", i2_refused_appends_are_nowhere),
    ("I-3  unknown appends are there once or not", i3_unknown_appends_are_there_once_or_not),
    ("I-4  one value per offset, whoever reads", i4_one_value_per_offset),
    ("I-5  offsets are dense", i5_offsets_are_dense),
    ("I-6  each producer's events in order, once, no hole", i6_producers_are_in_order_without_holes),
    ("I-7  what was observed stays", i7_what_was_observed_stays),
    ("I-8  ends and epochs never go back", i8_ends_and_epochs_never_go_back),
    ("I-9  appends and ends are linearizable", i9_appends_and_ends_are_linearizable),
    ("I-10 commits are atomic", i10_commits_are_atomic),
    ("I-11 sessions begin at next and have no hole", i11_sessions_are_contiguous),
    ("I-12 every event reached every cursor", i12_every_event_reached_every_cursor),
    ("I-13 durable acks survive", i13_durable_acks_survive),
    ("I-14 cursors only grow", i14_cursors_only_grow),
    ("I-15 fenced incarnations have no effect", i15_fenced_incarnations_have_no_effect),
    ("I-16 effects: K-1 and K-3 exact, plain repeated", i16_effects_happen_once),
    ("I-17 each refusal is in the table, as the table says", told::i17_refusals_are_in_the_table),
    ("I-18 a stranger learns nothing", told::i18_a_stranger_learns_nothing),
    ("I-19 work resumes after the last fault", told::i19_work_resumes),
];

fn at(log: &Log, offset: u64) -> Option<&str> {
    log.events.get(offset.checked_sub(log.first)? as usize).filter(|e| e.offset == offset).map(|e| e.data.as_str())
}

/// Offsets of each value.
fn places(log: &Log) -> HashMap<&str, Vec<u64>> {
    let mut places: HashMap<&str, Vec<u64>> = HashMap::with_capacity(log.events.len());
    for event in &log.events {
        places.entry(&event.data).or_default().push(event.offset);
    }
    places
}

fn batch(producer: u64, incarnation: u64, seq: u64, count: u64) -> impl Iterator<Item = String> {
    (seq..seq + count).map(move |seq| value(producer, seq, incarnation))
}

/// An acknowledged append is found at its offset with its bytes.
fn i1_acknowledged_appends_are_at_their_offsets(history: &History) -> Verdict {
    let log = &history.input;
    let (mut events, mut old) = (0u64, 0u64);
    let mut expect = |value: &str, offset: u64| {
        events += 1;
        match at(log, offset) {
            Some(found) if found == value => Ok(()),
            Some(found) => Err(format!("{value:?} was acknowledged at {offset}, where {found:?} is")),
            None => Err(format!("{value:?} was acknowledged at {offset}, where nothing is")),
        }
    };
    for append in &history.appends {
        if let Outcome::Acked { first: Some(first) } = append.outcome {
            expect(&append.value, first)?;
        }
    }
    let places = places(log);
    for note in &history.notes {
        let Note::Answered { producer, incarnation, seq, count, outcome: Outcome::Acked { first } } = note else { continue };
        for (i, value) in batch(*producer, *incarnation, *seq, *count).enumerate() {
            match first {
                Some(first) => expect(&value, first + i as u64)?,
                None if places.contains_key(value.as_str()) => old += 1,
                None => return Err(format!("{value:?} was acknowledged and is nowhere")),
            }
        }
    }
    let beside = sides::acknowledged(&history.sides)?;
    Ok(format!("{events} events ({old} more without an offset), {beside} beside"))
}

/// An append all of whose attempts were refused is found nowhere.
fn i2_refused_appends_are_nowhere(history: &History) -> Verdict {
    let places = places(&history.input);
    let (mut single, mut batches) = (0u64, 0u64);
    let absent = |value: &str, code: &str| match places.get(value) {
        None => Ok(()),
        Some(places) => Err(format!("{value:?} was refused ({code}) and is at {places:?}")),
    };
    for append in &history.appends {
        if let Outcome::Refused { code, .. } = &append.outcome {
            absent(&append.value, code)?;
            single += 1;
        }
    }
    for note in &history.notes {
        if let Note::Answered { producer, incarnation, seq, count, outcome: Outcome::Refused { code, .. } } = note {
            batch(*producer, *incarnation, *seq, *count).try_for_each(|value| absent(&value, code))?;
            batches += 1;
        }
    }
    let beside = sides::refused(&history.sides)?;
    Ok(format!("{single} appends, {batches} batches, {beside} beside"))
}

/// An append with unknown outcome is there once or not at all; so is every other.
fn i3_unknown_appends_are_there_once_or_not(history: &History) -> Verdict {
    let places = places(&history.input);
    if let Some((value, places)) = places.iter().find(|(_, places)| places.len() > 1) {
        return Err(format!("{value:?} is stored {} times, at {places:?}", places.len()));
    }
    sides::stored_once(&history.sides)?;
    let unknown: Vec<bool> = history.appends.iter().filter(|a| a.outcome == Outcome::Unknown).map(|a| places.contains_key(a.value.as_str())).collect();
    let stored = unknown.iter().filter(|stored| **stored).count();
    let answered: HashSet<(u64, u64, u64)> = history.notes.iter().filter_map(settled).collect();
    let mut open = 0u64;
    for note in &history.notes {
        let Note::Sent { producer, incarnation, seq, count } = note else { continue };
        if answered.contains(&(*producer, *incarnation, *seq)) {
            continue;
        }
        open += 1;
        let there = batch(*producer, *incarnation, *seq, *count).filter(|value| places.contains_key(value.as_str())).count() as u64;
        if there != 0 && there != *count {
            return Err(format!("of the batch {seq}+{count} of producer {producer} (epoch {incarnation}) {there} events are stored: a part"));
        }
    }
    Ok(format!("{} appends, {stored} of them stored; {open} batches whole or absent", unknown.len()))
}

fn settled(note: &Note) -> Option<(u64, u64, u64)> {
    match note {
        Note::Answered { outcome: Outcome::Unknown, .. } | Note::Opened { .. } | Note::Sent { .. } => None,
        Note::Answered { producer, incarnation, seq, .. } => Some((*producer, *incarnation, *seq)),
    }
}

/// One value per (stream_id, log_epoch, offset), over all readers, carriers and restarts.
fn i4_one_value_per_offset(history: &History) -> Verdict {
    let mut values: HashMap<(u64, u64, u64), u64> = HashMap::new();
    for log in [&history.input, &history.output] {
        values.extend(log.events.iter().map(|e| ((log.id, log.log_epoch, e.offset), hash(e.data.as_bytes()))));
    }
    let mut readers: BTreeMap<&str, u64> = BTreeMap::new();
    for seen in &history.seen {
        *readers.entry(seen.reader).or_default() += 1;
        let first = values.entry((seen.stream_id, seen.log_epoch, seen.offset)).or_insert(seen.hash);
        if *first != seen.hash {
            return Err(format!("{} saw another value at {} of stream {} (log epoch {})", seen.reader, seen.offset, seen.stream_id, seen.log_epoch));
        }
    }
    Ok(format!("{} sights by {} readers", history.seen.len(), readers.len()))
}

/// Offsets are dense: no overlap, no hole.
fn i5_offsets_are_dense(history: &History) -> Verdict {
    dense("the input", &history.input)?;
    dense("the output", &history.output)?;
    let beside = sides::dense(&history.sides)?;
    Ok(format!("{} and {} events, {beside} streams beside", history.input.events.len(), history.output.events.len()))
}

fn dense(name: &str, log: &Log) -> Result<(), String> {
    let offsets = log.events.iter().map(|e| e.offset);
    if let Some((due, found)) = (log.first..).zip(offsets).find(|(due, found)| due != found) {
        return Err(format!("in {name} offset {found} came where {due} was due"));
    }
    if log.first + log.events.len() as u64 != log.next {
        return Err(format!("{name} holds {} events from {} but says it ends at {}", log.events.len(), log.first, log.next));
    }
    Ok(())
}

/// Per producer: sequence numbers appear in order, each at most once, without a hole. Of appends that did not wait for each other a first part
/// is stored (P-12): without a producer this is the only protection against holes.
fn i6_producers_are_in_order_without_holes(history: &History) -> Verdict {
    let mut due: BTreeMap<u64, u64> = BTreeMap::new();
    for event in &history.input.events {
        let Some((producer, seq, _)) = parse(&event.data) else { continue };
        let due = due.entry(producer).or_default();
        if seq != *due {
            return Err(format!("event {seq} of producer {producer} is at {} where its event {due} was due", event.offset));
        }
        *due += 1;
    }
    let runs = told::runs_have_no_hole(&history.runs, &history.input)?;
    Ok(format!("{} producers, {} events; {runs} runs of appends", due.len(), due.values().sum::<u64>()))
}

/// An end or event that was observed does not disappear: nothing is visible before it is durable.
fn i7_what_was_observed_stays(history: &History) -> Verdict {
    let (mut ends, mut sights) = (0u64, 0u64);
    for log in [&history.input, &history.output].into_iter().chain(history.sides.iter().filter_map(|side| side.log.as_ref())) {
        for sample in history.samples.iter().filter(|s| s.id == log.id && s.log_epoch == log.log_epoch) {
            ends += 1;
            if sample.next > log.next {
                return Err(format!("stream {} was seen to end at {} and ends at {} now", sample.stream, sample.next, log.next));
            }
        }
        for seen in history.seen.iter().filter(|s| s.stream_id == log.id && s.log_epoch == log.log_epoch) {
            sights += 1;
            if at(log, seen.offset).map(|data| hash(data.as_bytes())) != Some(seen.hash) {
                return Err(format!("{} saw an event at {} of stream {} that is not there any more", seen.reader, seen.offset, seen.stream_id));
            }
        }
    }
    Ok(format!("{ends} ends, {sights} events"))
}

/// `next_offset`, `first_offset` and epochs never decrease.
fn i8_ends_and_epochs_never_go_back(history: &History) -> Verdict {
    let mut last: HashMap<u64, (u64, u64, u64)> = HashMap::new();
    for s in &history.samples {
        let (log_epoch, first, next) = last.insert(s.id, (s.log_epoch, s.first, s.next)).unwrap_or_default();
        if s.log_epoch < log_epoch || (s.log_epoch == log_epoch && (s.first < first || s.next < next)) {
            return Err(format!("stream {} went from {first}..{next} (log epoch {log_epoch}) to {}..{} ({})", s.stream, s.first, s.next, s.log_epoch));
        }
    }
    let mut epochs: HashMap<String, u64> = HashMap::new();
    let mut opened = 0u64;
    let mut grow = |who: String, epoch: u64| {
        opened += 1;
        match epochs.insert(who.clone(), epoch) {
            Some(before) if before >= epoch => Err(format!("{who} was opened with epoch {epoch} after {before}")),
            _ => Ok(()),
        }
    };
    for note in &history.notes {
        if let Note::Opened { producer, epoch, .. } = note {
            grow(format!("producer {producer}"), *epoch)?;
        }
    }
    history.sessions.iter().try_for_each(|session| grow(format!("session {}", session.reader), session.epoch))?;
    let mut cursors: HashMap<&str, u64> = HashMap::new();
    for position in &history.positions {
        let before = cursors.insert(&position.subscription, position.epoch).unwrap_or_default();
        if position.epoch < before {
            return Err(format!("the epoch of subscription {} went from {before} to {}", position.subscription, position.epoch));
        }
    }
    let lives = sides::never_back(&history.sides)?;
    Ok(format!("{} looks at streams, {} at cursors, {opened} openings, {lives} lives beside", history.samples.len(), history.positions.len()))
}

/// What happens in time, on the input stream: an append takes effect at its offset, a look at the end shows one.
struct Span {
    began: u64,
    ended: u64,
    /// The end of the stream was at least this before it …
    at_least: u64,
    /// … and is at least this after it.
    then: u64,
}

/// Append, read-end and conditional append are linearizable per stream. Offsets give the total order; what is left to check
/// is that it agrees with real time, and that each condition held or failed at the end it names.
fn i9_appends_and_ends_are_linearizable(history: &History) -> Verdict {
    let mut spans = Vec::new();
    let (mut held, mut failed) = (0u64, 0u64);
    for Append { value, began, ended, expected, outcome } in &history.appends {
        let (began, ended) = (*began, *ended);
        match outcome {
            Outcome::Acked { first: Some(first) } => {
                held += u64::from(expected.is_some());
                if expected.is_some_and(|expected| expected != *first) {
                    return Err(format!("{value:?} was to be appended at {expected:?} only and is at {first}"));
                }
                spans.push(Span { began, ended, at_least: *first, then: first + 1 });
            }
            Outcome::Refused { next: Some(next), .. } => {
                failed += 1;
                if expected.is_some_and(|expected| expected == *next) {
                    return Err(format!("{value:?} was refused because the end was {next}, which was its condition"));
                }
                spans.push(Span { began, ended, at_least: *next, then: *next });
            }
            _ => {}
        }
    }
    for s in history.samples.iter().filter(|s| s.id == history.input.id) {
        spans.push(Span { began: s.began, ended: s.ended, at_least: s.next, then: s.next });
    }
    // Whoever began after another had ended finds at least what the other left.
    let mut begins: Vec<&Span> = spans.iter().collect();
    let mut ends = begins.clone();
    begins.sort_by_key(|s| s.began);
    ends.sort_by_key(|s| s.ended);
    let (mut left, mut ended) = (0, ends.into_iter().peekable());
    for span in begins {
        while let Some(before) = ended.next_if(|e| e.ended < span.began) {
            left = left.max(before.then);
        }
        if span.at_least < left {
            return Err(format!(
                "at {} µs the stream ended at {left}, and a call that began at {} µs found its end at {}",
                span.began, span.began, span.at_least
            ));
        }
    }
    Ok(format!("{} calls; {held} conditions held, {failed} failed", spans.len()))
}

/// Commits are atomic, in every state that anybody saw: the output is the image of the input up to the cursor.
fn i10_commits_are_atomic(history: &History) -> Verdict {
    for image in &history.images {
        if image.output < image.before || image.output > image.after {
            return Err(format!("the output ended at {} while the cursor went from {} to {}", image.output, image.before, image.after));
        }
    }
    let cursor = history.cursors.iter().find(|p| p.subscription == "k3").ok_or("there is no cursor k3")?.next;
    if cursor != history.output.next {
        return Err(format!("the cursor is at {cursor} and the output ends at {}", history.output.next));
    }
    Ok(format!("{} looks while it worked, and the end at {cursor}", history.images.len()))
}

/// Deliveries of a session: contiguous, growing, from the `next` it was opened with.
fn i11_sessions_are_contiguous(history: &History) -> Verdict {
    let mut events = 0u64;
    for session in &history.sessions {
        if let Some((due, got)) = (session.next..).zip(&session.got).find(|(due, got)| due != *got) {
            return Err(format!("session {} of {} got {got} where {due} was due", session.epoch, session.reader));
        }
        events += session.got.len() as u64;
    }
    Ok(format!("{} sessions, {events} deliveries", history.sessions.len()))
}

/// Every durable event reached each live cursor.
fn i12_every_event_reached_every_cursor(history: &History) -> Verdict {
    let end = history.input.next;
    let whole = |name: &str, offsets: &mut dyn Iterator<Item = u64>| {
        let got: HashSet<u64> = offsets.collect();
        match (history.input.first..end).find(|offset| !got.contains(offset)) {
            Some(missing) => Err(format!("{name} never got event {missing} of {end}")),
            None => Ok(()),
        }
    };
    let readers: HashSet<&str> = history.sessions.iter().map(|s| s.reader).collect();
    for reader in &readers {
        whole(reader, &mut history.sessions.iter().filter(|s| s.reader == *reader).flat_map(|s| s.got.iter().copied()))?;
    }
    let tables = history.exact.iter().chain(&history.plain);
    let count = tables.clone().count();
    tables.into_iter().try_for_each(|table| whole(table.name, &mut table.rows.iter().map(|(offset, _)| *offset)))?;
    match history.cursors.iter().find(|p| p.next != end) {
        Some(behind) => Err(format!("cursor {} is at {} of {end}", behind.subscription, behind.next)),
        None => Ok(format!("{} sessions' readers, {count} tables, {} cursors", readers.len(), history.cursors.len())),
    }
}

/// A confirmed durable ack is never forgotten: every later opening begins at it or after.
fn i13_durable_acks_survive(history: &History) -> Verdict {
    let mut acked: HashMap<&str, u64> = HashMap::new();
    let mut acks = 0u64;
    for session in history.sessions.iter().filter(|s| s.durable) {
        let known = acked.entry(session.reader).or_default();
        if session.next < *known {
            return Err(format!("{} had acked up to {known} and was opened at {}", session.reader, session.next));
        }
        acks += session.acked.len() as u64;
        *known = session.acked.iter().copied().max().unwrap_or(0).max(*known);
    }
    for (reader, known) in &acked {
        match history.cursors.iter().find(|p| p.subscription == *reader) {
            Some(cursor) if cursor.next >= *known => {}
            other => return Err(format!("{reader} had acked up to {known}; its cursor is {other:?}")),
        }
    }
    Ok(format!("{acks} durable acks"))
}

/// A durable cursor only grows. (Acks of level `received` may be forgotten for up to a second, C-16: those readers are left out.)
fn i14_cursors_only_grow(history: &History) -> Verdict {
    let loose: HashSet<&str> = history.sessions.iter().filter(|s| !s.durable).map(|s| s.reader).collect();
    let mut last: HashMap<&str, u64> = HashMap::new();
    let mut looks = 0u64;
    for position in history.positions.iter().chain(&history.cursors).filter(|p| !loose.contains(p.subscription.as_str())) {
        looks += 1;
        let before = last.insert(&position.subscription, position.next).unwrap_or_default();
        if position.next < before {
            return Err(format!("cursor {} went from {before} back to {}", position.subscription, position.next));
        }
    }
    for session in history.sessions.iter().filter(|s| s.durable) {
        if let Some(pair) = session.acked.windows(2).find(|pair| pair[1] < pair[0]) {
            return Err(format!("session {} of {} was told {} after {}", session.epoch, session.reader, pair[1], pair[0]));
        }
    }
    Ok(format!("{looks} looks at {} cursors", last.len()))
}

/// After a producer was opened anew, nothing of an older incarnation is stored beyond the `last_seq` that the opening told. After a session was
/// opened anew, no ack of an older one that is sent then is confirmed.
fn i15_fenced_incarnations_have_no_effect(history: &History) -> Verdict {
    let mut openings: HashMap<u64, Vec<(u64, u64)>> = HashMap::new();
    for note in &history.notes {
        if let Note::Opened { producer, epoch, last_seq } = note {
            openings.entry(*producer).or_default().push((*epoch, last_seq.map_or(0, |last| last + 1)));
        }
    }
    let mut late = 0u64;
    for event in &history.input.events {
        let Some((producer, seq, incarnation)) = parse(&event.data) else { continue };
        for (epoch, stored) in openings.get(&producer).into_iter().flatten() {
            if seq >= *stored && incarnation < *epoch && (producer >= BY_HAND || !taken_back(&openings[&producer], *epoch)) {
                return Err(format!("event {seq} of producer {producer} came from epoch {incarnation}, after epoch {epoch} was opened with {stored} stored"));
            }
            late += u64::from(seq >= *stored);
        }
    }
    let acks = told::no_ack_of_a_fenced_session(history)?;
    Ok(format!("{} openings, {late} comparisons; {acks}", openings.values().map(Vec::len).sum::<usize>()))
}

/// Was an epoch opened after this one that nobody noted? Then the client library did: an older self that was looking for the broker, and whose
/// openings had lost their answers, took its successor's for one of them and went on under a newer epoch. Its values still name the first.
fn taken_back(openings: &[(u64, u64)], epoch: u64) -> bool {
    let last = openings.iter().map(|(epoch, _)| *epoch).max().unwrap_or_default();
    (epoch + 1..last).any(|other| openings.iter().all(|(noted, _)| *noted != other))
}

/// Effects: K-1 tables and the K-3 output equal the log exactly; the plain consumer has everything and some of it twice.
fn i16_effects_happen_once(history: &History) -> Verdict {
    let log: Vec<(u64, u64)> = history.input.events.iter().map(|e| (e.offset, hash(e.data.as_bytes()))).collect();
    for table in &history.exact {
        if let Some(at) = (0..log.len().max(table.rows.len())).find(|at| log.get(*at) != table.rows.get(*at)) {
            return Err(format!("row {at} of {} is {:?}, the log has {:?}", table.name, table.rows.get(at), log.get(at)));
        }
    }
    for (at, image) in history.output.events.iter().enumerate() {
        let original = history.input.events.get(at).ok_or_else(|| format!("event {at} of the output is the image of nothing"))?;
        if image.source != Some(original.offset) || image.data != original.data {
            return Err(format!("event {at} of the output is {image:?}, the input has {original:?}"));
        }
    }
    if history.output.events.len() != log.len() {
        return Err(format!("the output has {} events, the input {}", history.output.events.len(), log.len()));
    }
    let plain = history.plain.as_ref().ok_or("there is no plain table")?;
    let repeated = repeated(plain, &log)?;
    if repeated == 0 {
        return Err("the plain consumer repeated nothing: then the kills hit nothing, and this test shows nothing".into());
    }
    Ok(format!("{} tables of {} rows, {} images; plain repeated {repeated}", history.exact.len(), log.len(), history.output.events.len()))
}

/// How many rows of a table are repetitions; an error if one is wrong or an event has none.
pub fn repeated(table: &Table, log: &[(u64, u64)]) -> Result<u64, String> {
    let right: HashMap<u64, u64> = log.iter().copied().collect();
    let mut rows: HashMap<u64, u64> = HashMap::new();
    for (offset, hash) in &table.rows {
        if right.get(offset) != Some(hash) {
            return Err(format!("{} has an effect of {offset} that is not in the log", table.name));
        }
        *rows.entry(*offset).or_default() += 1;
    }
    match log.iter().find(|(offset, _)| !rows.contains_key(offset)) {
        Some((missing, _)) => Err(format!("{} has no effect of {missing}", table.name)),
        None => Ok(table.rows.len() as u64 - log.len() as u64),
    }
}

/// Prints all verdicts; the ones that are wrong come back.
pub fn judge(history: &History) -> Vec<String> {
    let mut wrong = Vec::new();
    for (name, invariant) in ALL {
        match invariant(history) {
            Ok(figures) => println!("  {name:<54} {figures}"),
            Err(why) => {
                println!("  {name:<54} VIOLATED: {why}");
                wrong.push(format!("{name}: {why}"));
            }
        }
    }
    wrong
}
