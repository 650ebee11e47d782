//! The stream as it is at the end, held against what everybody heard: event by event, in memory that does not grow with it.

use std::collections::HashMap;

use super::history::{History, Outcome, chain, hash, parse};

/// What each invariant says, in the order in which the verdict lists them.
pub const INVARIANTS: [(&str, &str); 18] = [
    ("I-1", "acknowledged appends are at their offsets, with their bytes"),
    ("I-2", "refused appends are nowhere"),
    ("I-3", "no append is stored twice; a batch is whole or absent"),
    ("I-4", "one value per offset, whoever reads"),
    ("I-5", "offsets are dense"),
    ("I-6", "each producer's events in order, once, without a hole"),
    ("I-7", "what was observed stays"),
    ("I-8", "ends and epochs never go back"),
    ("I-10", "commits are whole"),
    ("I-11", "sessions begin where they must, and have no hole"),
    ("I-12", "every event reached every reader"),
    ("I-13", "durable acks survive"),
    ("I-14", "cursors only grow"),
    ("I-15", "replaced sessions and producers have no effect"),
    ("I-16", "each effect happened exactly once (K-1, K-3)"),
    ("I-17", "every answer is one that the rules know"),
    ("C-3", "a position beyond the end is refused"),
    ("C-9", "an ack beyond the end is refused"),
];

/// The stream so far.
pub struct Check<'a> {
    history: &'a mut History,
    due: u64,
    chain: u64,
    producers: HashMap<u64, Due>,
    singles: HashMap<u64, Vec<bool>>,
}

/// Where a producer's events have got to.
#[derive(Default)]
struct Due {
    seq: u64,
    /// The batch under way: incarnation, events that must follow, and the offset of the next.
    open: Option<(u64, u64, u64)>,
}

impl<'a> Check<'a> {
    pub fn new(history: &'a mut History) -> Self {
        Self { history, due: 0, chain: 0, producers: HashMap::new(), singles: HashMap::new() }
    }

    /// The next event.
    pub fn event(&mut self, offset: u64, data: &[u8]) {
        if offset != self.due {
            let due = self.due;
            self.history.finding("I-5", Some(due), format!("offset {offset} came where {due} was due"));
        }
        self.due = offset + 1;
        let found = hash(data);
        self.chain = chain(self.chain, offset, found);
        self.history.counts.stored += 1;
        let at = offset as usize;
        match (self.history.values.get(at).copied().unwrap_or(0), self.history.acked.get(at) == Some(&true)) {
            (0, _) => {}
            (heard, true) if heard == found => self.history.counts.found += 1,
            (heard, _) if heard == found => {}
            (_, true) => self.history.finding("I-1", Some(offset), format!("another event was acknowledged there; now it is {:?}", text(data))),
            (_, false) => self.history.finding("I-7", Some(offset), format!("another event was seen there; now it is {:?}", text(data))),
        }
        match parse(&String::from_utf8_lossy(data)) {
            None => self.history.finding("I-4", Some(offset), format!("nobody wrote {:?}", text(data))),
            Some(author) if author.producer => self.of_producer(offset, author),
            Some(author) => self.of_appender(offset, author.who, author.seq),
        }
    }

    fn of_producer(&mut self, offset: u64, author: super::history::Author) {
        let super::history::Author { who, seq, incarnation, index, count, .. } = author;
        let due = self.producers.entry(who).or_default();
        let expected = due.seq;
        let whole = match due.open.take() {
            Some((of, left, next)) => of == incarnation && left == count - index && next == offset,
            None => index == 0,
        };
        due.open = (index + 1 < count).then_some((incarnation, count - index - 1, offset + 1));
        due.seq = due.seq.max(seq + 1);
        if seq < expected {
            self.history.finding("I-3", Some(offset), format!("event {seq} of producer p{who} is stored a second time"));
        } else if seq > expected {
            self.history.finding("I-6", Some(offset), format!("event {seq} of producer p{who} is where its event {expected} was due"));
        } else if !whole {
            self.history.finding("I-3", Some(offset), format!("event {index} of {count} of a batch of producer p{who} does not follow the one before it"));
        }
        let Some(known) = self.history.producers.get(&who) else {
            return self.history.finding("I-4", Some(offset), format!("there was no producer p{who}"));
        };
        let refused = known.refused.iter().any(|run| run.holds(incarnation, seq));
        let unknown = known.unknown.iter().any(|run| run.holds(incarnation, seq));
        let late = known.openings.iter().find(|(epoch, stored)| seq >= *stored && incarnation < *epoch).copied();
        self.history.counts.unknown_stored += u64::from(unknown);
        if refused {
            self.history.finding("I-2", Some(offset), format!("event {seq} of producer p{who} (epoch {incarnation}) was refused and is stored"));
        }
        if let Some((epoch, stored)) = late {
            let what = format!("event {seq} of producer p{who} came from epoch {incarnation}, after epoch {epoch} was opened with {stored} stored");
            self.history.finding("I-15", Some(offset), what);
        }
    }

    fn of_appender(&mut self, offset: u64, who: u64, number: u64) {
        let outcome = self.history.singles.get(&who).and_then(|appends| appends.get(number as usize)).copied();
        let seen = self.singles.entry(who).or_default();
        if seen.len() <= number as usize {
            seen.resize(number as usize + 1, false);
        }
        if std::mem::replace(&mut seen[number as usize], true) {
            self.history.finding("I-3", Some(offset), format!("append {number} of appender a{who} is stored a second time"));
        }
        match outcome {
            Some(Outcome::Refused) => self.history.finding("I-2", Some(offset), format!("append {number} of appender a{who} was refused and is stored")),
            Some(Outcome::Unknown) => self.history.counts.unknown_stored += 1,
            Some(Outcome::Acked(_)) => {}
            None => self.history.finding("I-4", Some(offset), format!("append {number} of appender a{who} was never sent")),
        }
    }

    /// The end. What stands for all of it comes back.
    pub fn end(self, next_offset: u64) -> u64 {
        let Self { history, due, chain, producers, .. } = self;
        if due != next_offset {
            history.finding("I-5", Some(due), format!("the events end at {due}, the stream says {next_offset}"));
        }
        for at in due..history.known() {
            match (history.values[at as usize], history.acked[at as usize]) {
                (0, _) => {}
                (_, true) => history.finding("I-1", Some(at), format!("an event was acknowledged there, and the stream ends at {due}")),
                (_, false) => history.finding("I-7", Some(at), format!("an event was seen there, and the stream ends at {due}")),
            }
        }
        let missing: Vec<(u64, u64, u64)> = history
            .producers
            .iter()
            .map(|(who, known)| (*who, producers.get(who).map_or(0, |due| due.seq), known.acked_to))
            .filter(|(_, stored, acked)| stored < acked)
            .collect();
        for (who, stored, acked) in missing {
            history.finding("I-1", None, format!("producer p{who} had {acked} events acknowledged, and {stored} are stored"));
        }
        for (who, due) in producers.iter().filter(|(_, due)| due.open.is_some()) {
            history.finding("I-3", None, format!("the last batch of producer p{who} is stored in part, up to its event {}", due.seq));
        }
        chain
    }
}

/// Bytes for a sentence.
fn text(data: &[u8]) -> String {
    String::from_utf8_lossy(data).chars().take(40).collect()
}

#[cfg(test)]
mod tests {
    use super::super::history::{Run, value};
    use super::*;

    /// Two producers' batches and two appends, all acknowledged but the last one.
    fn history() -> History {
        let mut history = History::new("s");
        history.opened(1, 1, None, true);
        history.answered(1, Run { incarnation: 1, seq: 0, count: 2 }, Outcome::Acked(Some(0)));
        history.single(7, Outcome::Acked(Some(2)));
        history.opened(1, 2, Some(1), true);
        history.answered(1, Run { incarnation: 1, seq: 2, count: 1 }, Outcome::Refused);
        history.answered(1, Run { incarnation: 2, seq: 2, count: 2 }, Outcome::Acked(Some(3)));
        history.single(7, Outcome::Refused);
        history.single(7, Outcome::Unknown);
        history
    }

    fn log() -> Vec<String> {
        vec![
            value('p', 1, 0, 1, 0, 2),
            value('p', 1, 1, 1, 1, 2),
            value('a', 7, 0, 0, 0, 1),
            value('p', 1, 2, 2, 0, 2),
            value('p', 1, 3, 2, 1, 2),
            value('a', 7, 2, 0, 0, 1),
        ]
    }

    fn judge(mut history: History, log: &[(u64, String)], next: u64) -> (Vec<&'static str>, History) {
        let mut check = Check::new(&mut history);
        log.iter().for_each(|(offset, data)| check.event(*offset, data.as_bytes()));
        check.end(next);
        (history.findings.iter().map(|finding| finding.rule).collect(), history)
    }

    fn dense(log: Vec<String>) -> Vec<(u64, String)> {
        (0..).zip(log).collect()
    }

    #[test]
    fn a_right_history_breaks_nothing_and_is_counted() {
        let (broken, history) = judge(history(), &dense(log()), 6);
        assert!(broken.is_empty(), "{:?}", history.findings);
        let counts = &history.counts;
        assert_eq!((counts.acknowledged, counts.found, counts.refused, counts.unknown, counts.unknown_stored, counts.stored), (5, 5, 2, 1, 1, 6));
    }

    /// The lie must be found by this invariant.
    #[track_caller]
    fn found(rule: &str, lie: impl FnOnce(&mut History, &mut Vec<(u64, String)>, &mut u64)) {
        let (mut history, mut log, mut next) = (history(), dense(log()), 6);
        lie(&mut history, &mut log, &mut next);
        let (broken, history) = judge(history, &log, next);
        assert!(broken.contains(&rule), "{rule} believes a lie: {:?}", history.findings);
    }

    #[test]
    fn i1_finds_an_acknowledged_event_that_is_lost_changed_or_elsewhere() {
        found("I-1", |_, log, next| {
            log.truncate(4);
            *next = 4;
        });
        found("I-1", |_, log, _| log[2].1 = value('a', 7, 2, 0, 0, 1));
        found("I-1", |_, log, _| {
            log.swap(2, 5);
            (log[2].0, log[5].0) = (2, 5);
        });
        found("I-1", |history, _, _| history.answered(1, Run { incarnation: 2, seq: 4, count: 1 }, Outcome::Acked(None)));
        found("I-1", |history, _, _| history.saw("r", 1, 5));
    }

    #[test]
    fn i2_finds_a_refused_append_that_is_stored() {
        found("I-2", |_, log, _| log[5].1 = value('a', 7, 1, 0, 0, 1));
        found("I-2", |history, _, _| history.answered(1, Run { incarnation: 2, seq: 3, count: 1 }, Outcome::Refused));
    }

    #[test]
    fn i3_finds_what_is_stored_twice_or_in_part() {
        found("I-3", |_, log, next| {
            log.push((6, log[5].1.clone()));
            *next = 7;
        });
        found("I-3", |_, log, next| {
            log.push((6, log[0].1.clone()));
            *next = 7;
        });
        found("I-3", |_, log, next| {
            log.push((6, value('p', 1, 4, 2, 0, 2)));
            *next = 7;
        });
        found("I-3", |_, log, _| log[1].1 = value('p', 1, 1, 1, 1, 3));
    }

    #[test]
    fn i4_finds_two_values_at_one_offset_and_an_event_of_nobody() {
        found("I-4", |history, _, _| [2, 3].iter().for_each(|hash| history.saw("r", 5, *hash)));
        found("I-4", |_, log, _| log[5].1 = "who is this".into());
    }

    #[test]
    fn i5_finds_a_hole_an_overlap_and_a_false_end() {
        found("I-5", |_, log, _| drop(log.remove(2)));
        found("I-5", |_, log, _| log[3].0 = 2);
        found("I-5", |_, _, next| *next = 7);
    }

    #[test]
    fn i6_finds_a_hole_and_a_producer_that_was_forgotten() {
        found("I-6", |_, log, _| log[4].1 = value('p', 1, 4, 2, 1, 2));
        found("I-6", |history, _, _| history.opened(1, 3, None, true));
    }

    #[test]
    fn i7_finds_what_was_seen_and_is_gone() {
        found("I-7", |history, _, _| history.saw("r", 5, 1));
        found("I-7", |history, _, _| history.saw("r", 6, 1));
        found("I-7", |history, _, _| history.look(1, 0, 4, 5));
    }

    #[test]
    fn i8_finds_ends_and_epochs_that_go_back() {
        found("I-8", |history, _, _| [5, 4].iter().for_each(|next| history.look(1, 0, *next, 0)));
        found("I-8", |history, _, _| history.opened(1, 2, Some(3), true));
        found("I-8", |history, _, _| [4, 4].iter().for_each(|epoch| history.session("r", *epoch, 0, None)));
    }

    #[test]
    fn i10_to_i15_find_their_lies_as_they_are_told() {
        found("I-10", |history, _, _| history.image(0, 3, 2));
        found("I-10", |history, _, _| history.image(4, 3, 5));
        found("I-11", |history, _, _| history.session("r", 1, 3, Some(4)));
        found("I-13", |history, _, _| {
            history.acked("r", 4);
            history.session("r", 1, 3, None);
        });
        found("I-14", |history, _, _| [4, 3].iter().for_each(|next| history.cursor("r", *next, 0)));
        found("I-13", |history, _, _| history.cursor("r", 3, 4));
        found("I-15", |_, log, _| log[3].1 = value('p', 1, 2, 1, 0, 2));
    }
}
