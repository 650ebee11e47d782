//! What was told, and when: refusals by the table, fences by the clock, runs of appends, strangers, and how soon work went on.

use std::collections::HashMap;
use std::time::Duration;

use tidelog::types::{Applied, Code, Retry};
use tidelog::wire::code::numbers;

use super::{Verdict, places};
use crate::history::{Ack, History, Log, Note, Outcome, Run, Told};

/// How soon after the last fault everybody must be at work again, with no step by hand (I-19).
pub(super) const RESUMED: Duration = Duration::from_secs(30);

/// Codes that tell of data that was lost or spoiled, or of a fault of ours: no crash, cut or pause may lead to one.
const NEVER: [Code; 9] = [
    Code::Internal,
    Code::DataCorrupt,
    Code::PositionBeyondEnd,
    Code::AckBeyondEnd,
    Code::OffsetBeyondEnd,
    Code::LogEpochChanged,
    Code::ProducerStateLost,
    Code::ProducerSeqReused,
    Code::StorageFull,
];

/// Each refusal has a code of the table, with the table's `applied` and status.
pub(super) fn i17_refusals_are_in_the_table(history: &History) -> Verdict {
    history.told.keys().try_for_each(in_the_table)?;
    let outcomes = history.appends.iter().map(|append| &append.outcome).chain(history.notes.iter().filter_map(|note| match note {
        Note::Answered { outcome, .. } => Some(outcome),
        Note::Opened { .. } | Note::Sent { .. } => None,
    }));
    for outcome in outcomes {
        let Outcome::Refused { code, .. } = outcome else { continue };
        // The client's own word: it never left.
        if code != "not_sent" && Code::parse(code).is_none_or(|code| code.applied() == Applied::Unknown) {
            return Err(format!("an append was told {code}, and took it for a refusal"));
        }
    }
    let codes: std::collections::BTreeSet<&str> = history.told.keys().map(|told| told.code.as_str()).collect();
    Ok(format!("{} refusals, codes {}", history.told.values().sum::<u64>(), codes.into_iter().collect::<Vec<_>>().join(" ")))
}

fn in_the_table(told: &Told) -> Result<(), String> {
    let code = Code::parse(&told.code).ok_or_else(|| format!("no such code: {told:?}"))?;
    if code.applied().as_str() != told.applied {
        return Err(format!("the table says applied: {}: {told:?}", code.applied().as_str()));
    }
    if Retry::parse(&told.retry).is_none() {
        return Err(format!("no such advice: {told:?}"));
    }
    if NEVER.contains(&code) {
        return Err(format!("no fault of this test may lead to this: {told:?}"));
    }
    let right = if told.carrier.starts_with("grpc") { i64::from(numbers(code).grpc) } else { i64::from(numbers(code).http) };
    match told.number {
        // The parts of a commit have the numbers of their causes.
        Some(number) if number != right && code != Code::TxnPartFailed => Err(format!("the table says {right}: {told:?}")),
        _ => Ok(()),
    }
}

/// Whoever has no credential hears the same about everything, whether it exists or not.
pub(super) fn i18_a_stranger_learns_nothing(history: &History) -> Verdict {
    let Some(first) = history.strangers.first() else { return Ok("nobody asked".into()) };
    match history.strangers.iter().find(|other| other.status != 401 || other.said != first.said) {
        Some(other) => Err(format!("a stranger was told {other:?}, and {first:?}")),
        None => Ok(format!("{} questions, one answer", history.strangers.len())),
    }
}

/// Everybody was at work again in time.
pub(super) fn i19_work_resumes(history: &History) -> Verdict {
    let slowest = history.resumed.iter().max_by(|a, b| a.seconds.total_cmp(&b.seconds)).ok_or("nobody looked whether work resumes")?;
    if slowest.seconds > RESUMED.as_secs_f64() {
        return Err(format!("{} was at work again after {:.1} s, which must be {} s at most", slowest.who, slowest.seconds, RESUMED.as_secs()));
    }
    Ok(format!("{} writers and readers, the slowest ({}) after {:.2} s", history.resumed.len(), slowest.who, slowest.seconds))
}

/// I-15, for sessions: an ack that was sent after the opening of a newer session was answered is not confirmed.
pub(super) fn no_ack_of_a_fenced_session(history: &History) -> Verdict {
    let mut openings: HashMap<&str, Vec<(u64, u64)>> = HashMap::new();
    for opening in &history.openings {
        openings.entry(&opening.reader).or_default().push((opening.epoch, opening.at));
    }
    openings.values_mut().for_each(|of| of.sort_unstable());
    for ack in &history.acks {
        let of = openings.get(ack.reader.as_str()).map(Vec::as_slice).unwrap_or_default();
        let newer = of.get(of.partition_point(|(epoch, _)| *epoch <= ack.epoch));
        if let Some((epoch, at)) = newer.filter(|(_, at)| *at < ack.sent) {
            let Ack { reader, epoch: old, sent, next } = ack;
            return Err(format!("session {old} of {reader} was told that {next} is acked, which it sent {} µs after session {epoch} was open", sent - at));
        }
    }
    Ok(format!("{} acks, {} sessions heard of their fence", history.acks.len(), history.fenced.len()))
}

/// I-6, P-12: of appends sent behind each other on one connection, a first part is stored.
pub(super) fn runs_have_no_hole(runs: &[Run], log: &Log) -> Result<usize, String> {
    let places = places(log);
    for run in runs {
        let stored: Vec<bool> = run.appends.iter().map(|(value, _)| places.contains_key(value.as_str())).collect();
        if let Some(hole) = stored.windows(2).position(|pair| pair == [false, true]) {
            let (behind, _) = &run.appends[hole + 1];
            return Err(format!("{behind:?} is stored over {}, and what was sent before it is not: {:?}", run.carrier, run.appends[hole]));
        }
    }
    Ok(runs.len())
}
