//! In which order did it happen? Calls in flight at one time are in no order but that of their append session or cursor; an order is looked for in
//! which the law says of each what the broker said (I-9). Where answers were lost or unknown, several pasts may be possible: all are kept.

use crate::gate::Fate;
use crate::law::{Call, Law, Said, agrees};
use crate::support::*;

/// What became of a call, as far as its caller knows.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// Answered.
    Told(Result<Said>),
    /// The write failed on its way: done or not.
    Unknown,
    /// It came after the failure: not done.
    After,
    /// The engine refused its group: not done.
    TurnedAway,
    /// Nobody waited for the answer.
    Lost,
}

impl Outcome {
    pub fn of(answer: Result<Said>) -> Self {
        match &answer {
            Err(error) if error.code == Code::OutcomeUnknown => Self::Unknown,
            Err(error) if error.code == Code::StorageFailed => Self::After,
            Err(error) if error.code == Code::StorageFull => Self::TurnedAway,
            _ => Self::Told(answer),
        }
    }
}

/// A call and its outcome.
pub type Done = (Call, Outcome);

/// What a call touches; calls that touch nothing in common may be looked at apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Thing {
    Stream(usize),
    Wide(u8),
}

fn touches(call: &Call) -> Vec<Thing> {
    use Call::*;
    match call {
        Open { stream: Some(s), .. } => vec![Thing::Stream(*s)],
        Open { stream: None, id, .. } => vec![Thing::Wide(*id)],
        SpoilAll { .. } => Vec::new(),
        Commit { plan, .. } => {
            let streams = plan.acks.iter().map(|a| a.0).chain(plan.appends.iter().map(|p| p.stream)).chain(plan.checks.iter().map(|c| c.0));
            streams.map(Thing::Stream).chain(plan.producer.map(|p| Thing::Wide(p.0))).collect()
        }
        Append { stream, .. }
        | Once { stream, .. }
        | Resume { stream, .. }
        | Spoil { stream, .. }
        | Ack { stream, .. }
        | Attach { stream, .. }
        | Pull { stream, .. }
        | TokenAck { stream, .. }
        | Seek { stream, .. }
        | Create { stream }
        | Delete { stream }
        | FinishDelete { stream }
        | Trim { stream, .. }
        | Close { stream }
        | Subscribe { stream, .. }
        | Unsubscribe { stream, .. }
        | Forget { stream, .. } => vec![Thing::Stream(*stream)],
    }
}

/// Calls of one lane happen in the order in which they were made: one append session, or one cursor, on one connection.
fn lane(call: &Call) -> Option<(usize, usize, bool, Option<u8>)> {
    match call {
        Call::Open { via: Some(conn), stream: Some(stream), id, .. } => Some((*conn, *stream, false, Some(*id))),
        Call::Append { via: Some(conn), stream, batch, .. } => Some((*conn, *stream, false, batch.producer.map(|p| p.0))),
        Call::Resume { conn, stream, producer, .. } | Call::Spoil { conn, stream, producer } => Some((*conn, *stream, false, *producer)),
        Call::Attach { conn, stream, sub, .. } => Some((*conn, *stream, true, Some(*sub))),
        // One of level `received` may be answered before those that wait for the disk.
        Call::Ack { via: Some((conn, _)), stream, sub, level: AckLevel::Durable, .. } => Some((*conn, *stream, true, Some(*sub))),
        _ => None,
    }
}

/// The pasts that fit what was heard, from each of `laws`; none = the broker broke the law.
pub fn explain(laws: &[Law], window: &[Done], fates: &[Fate]) -> Vec<Law> {
    if let [law] = laws
        && let Some(law) = as_sent(law, window)
    {
        return vec![law];
    }
    let mut laws = laws.to_vec();
    for group in apart(window) {
        let mut next: Vec<Law> = Vec::new();
        for law in &laws {
            for found in orders(law, &group, fates) {
                if !next.contains(&found) {
                    next.push(found);
                }
            }
        }
        laws = next;
    }
    laws
}

/// The order in which they were sent, if all were answered and it fits.
fn as_sent(law: &Law, window: &[Done]) -> Option<Law> {
    let mut law = law.clone();
    let fits = window.iter().all(|(call, outcome)| matches!(outcome, Outcome::Told(answer) if agrees(answer, &law.apply(call))));
    fits.then_some(law)
}

/// The window in parts that have nothing to do with each other.
fn apart(window: &[Done]) -> Vec<Vec<&Done>> {
    let mut parts: Vec<(Vec<Thing>, Vec<usize>)> = Vec::new();
    for (index, (call, _)) in window.iter().enumerate() {
        let (mut things, mut members) = (touches(call), vec![index]);
        let (with, without): (Vec<_>, Vec<_>) = parts.into_iter().partition(|(others, _)| others.iter().any(|thing| things.contains(thing)));
        for (others, calls) in with {
            things.extend(others);
            members.extend(calls);
        }
        parts = without;
        parts.push((things, members));
    }
    for (_, members) in &mut parts {
        members.sort_unstable();
    }
    parts.sort_by_key(|(_, members)| members[0]);
    parts.into_iter().map(|(_, members)| members.into_iter().map(|index| &window[index]).collect()).collect()
}

/// Which calls must come before each.
fn before(calls: &[&Done]) -> Vec<u128> {
    assert!(calls.len() <= 128, "a window holds up to 128 calls");
    let earlier = |i: usize, j: usize| -> bool {
        // Groups fail one at a time: what was answered was in an earlier one, unless its answer never depended on the disk.
        let rank = |(call, outcome): &Done| match (call, outcome) {
            (Call::Spoil { .. } | Call::Ack { level: AckLevel::Received, .. }, _) => None,
            (_, Outcome::Told(_)) => Some(0),
            (_, Outcome::Unknown) => Some(1),
            _ => None,
        };
        let (a, b) = (calls[i], calls[j]);
        let same_lane = i < j && lane(&a.0).is_some() && lane(&a.0) == lane(&b.0);
        same_lane || matches!((rank(a), rank(b)), (Some(a), Some(b)) if a < b)
    };
    (0..calls.len()).map(|j| (0..calls.len()).filter(|i| earlier(*i, j)).fold(0, |mask, i| mask | 1 << i)).collect()
}

/// What may have become of the law by one call.
fn after(law: &Law, (call, outcome): &Done, fates: &[Fate]) -> Vec<Law> {
    let changed = |change: &mut dyn FnMut(&mut Law) -> bool| {
        let mut law = law.clone();
        change(&mut law).then_some(law)
    };
    let done = || {
        changed(&mut |law| {
            let _ = law.apply(call);
            true
        })
    };
    let turned_away = || {
        changed(&mut |law| {
            law.turned_away(call);
            true
        })
    };
    let nothing = || Some(law.clone());
    let failed_condition = || changed(&mut |law| matches!(law.apply(call), Err(refusal) if refusal.code == Code::ConditionFailed));
    let (stored, unstored, refused) = (fates.contains(&Fate::AfterWrite), fates.contains(&Fate::BeforeWrite), fates.contains(&Fate::Refuse));
    let found = match outcome {
        Outcome::Told(answer) => vec![changed(&mut |law| agrees(answer, &law.apply(call)))],
        Outcome::Unknown if stored => vec![done()],
        Outcome::Unknown if unstored => vec![nothing()],
        // A failed condition is explained out of the log, which nobody may read any more; its session is poisoned all the same.
        Outcome::After if stored || unstored => vec![nothing(), failed_condition()],
        Outcome::TurnedAway if refused => vec![turned_away()],
        Outcome::Lost => vec![done(), nothing().filter(|_| stored || unstored), turned_away().filter(|_| refused)],
        // Nothing failed, and yet the caller was told so.
        Outcome::Unknown | Outcome::After | Outcome::TurnedAway => Vec::new(),
    };
    found.into_iter().flatten().collect()
}

/// All laws that some order leads to; where every call was answered, one is enough, since the answers name the places.
fn orders(law: &Law, calls: &[&Done], fates: &[Fate]) -> Vec<Law> {
    let before = before(calls);
    let all_told = calls.iter().all(|(_, outcome)| matches!(outcome, Outcome::Told(_) | Outcome::After));
    if all_told {
        return first(law, calls, &before, fates, 0).into_iter().collect();
    }
    let mut level: Vec<(u128, Law)> = vec![(0, law.clone())];
    for _ in calls {
        let mut next: Vec<(u128, Law)> = Vec::new();
        for (mask, law) in &level {
            for index in ready(&before, *mask) {
                for law in after(law, calls[index], fates) {
                    let reached = (mask | 1 << index, law);
                    if !next.contains(&reached) {
                        next.push(reached);
                    }
                }
            }
        }
        level = next;
    }
    level.into_iter().map(|(_, law)| law).collect()
}

fn ready(before: &[u128], mask: u128) -> impl Iterator<Item = usize> {
    (0..before.len()).filter(move |i| mask & (1 << i) == 0 && before[*i] & !mask == 0)
}

fn first(law: &Law, calls: &[&Done], before: &[u128], fates: &[Fate], mask: u128) -> Option<Law> {
    if mask.count_ones() as usize == calls.len() {
        return Some(law.clone());
    }
    let mut tries = ready(before, mask).flat_map(|index| after(law, calls[index], fates).into_iter().map(move |law| (index, law)));
    tries.find_map(|(index, law)| first(&law, calls, before, fates, mask | 1 << index))
}
