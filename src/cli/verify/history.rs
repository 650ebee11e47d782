//! What everybody heard during one round, in records that stay small: nine bytes per event, a few words per batch that was not acknowledged.
//!
//! An event's bytes follow from who wrote it and when (see [`value`]), so a hash stands for them. What contradicts itself while it is being
//! noted becomes a [`Finding`] at once; the rest is judged when the stream is read back (`check`).

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;

/// Findings that are kept; the others are counted.
const FINDINGS_KEPT: usize = 100;

/// A promise that was broken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The invariant, or the rule where no invariant says it.
    pub rule: &'static str,
    /// In which stream.
    pub stream: String,
    /// Where, if it has a place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
    /// What was seen.
    pub what: String,
}

/// How an attempt ended, as the caller was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Durable; `None`: stored long ago, its offset is not remembered (P-6).
    Acked(Option<u64>),
    /// It had no effect and never will.
    Refused,
    /// Anything may have happened.
    Unknown,
}

/// A run of events of one producer: `count` from `seq` on, first sent by the incarnation that opened with this epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    pub incarnation: u64,
    pub seq: u64,
    pub count: u64,
}

impl Run {
    pub fn holds(&self, incarnation: u64, seq: u64) -> bool {
        incarnation == self.incarnation && (self.seq..self.seq + self.count).contains(&seq)
    }
}

/// What is known of one producer.
#[derive(Clone, Debug, Default)]
pub struct Producer {
    /// Epoch of each opening, and how many events were stored by then. Only openings during which nothing broke.
    pub openings: Vec<(u64, u64)>,
    pub last_epoch: u64,
    /// One past the last acknowledged sequence number.
    pub acked_to: u64,
    pub refused: Vec<Run>,
    pub unknown: Vec<Run>,
}

/// The figures of a round, or of all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "each is the number of what it is called")]
pub struct Counts {
    pub rounds: u64,
    pub acknowledged: u64,
    /// Of the acknowledged ones: there at the end, at their place, with their bytes.
    pub found: u64,
    pub unknown: u64,
    pub unknown_stored: u64,
    pub refused: u64,
    pub stored: u64,
    /// Batches that were sent again and answered from their receipt.
    pub repeats_recognised: u64,
    pub deliveries: u64,
    /// Delivered again by a later session: allowed (at least once).
    pub duplicates: u64,
    pub sessions: u64,
    pub takeovers: u64,
    pub durable_acks: u64,
    /// Late acks and appends of replaced sessions and producers, all refused.
    pub stale_refused: u64,
    pub commits: u64,
    pub effects: u64,
    pub effects_twice: u64,
    pub looks: u64,
}

impl Counts {
    /// All of another round's.
    pub fn add(&mut self, other: &Self) {
        let Self { rounds, acknowledged, found, unknown, unknown_stored, refused, stored, repeats_recognised, deliveries, duplicates, .. } = other;
        let Self { sessions, takeovers, durable_acks, stale_refused, commits, effects, effects_twice, looks, .. } = other;
        for (sum, more) in [
            (&mut self.rounds, rounds),
            (&mut self.acknowledged, acknowledged),
            (&mut self.found, found),
            (&mut self.unknown, unknown),
            (&mut self.unknown_stored, unknown_stored),
            (&mut self.refused, refused),
            (&mut self.stored, stored),
            (&mut self.repeats_recognised, repeats_recognised),
            (&mut self.deliveries, deliveries),
            (&mut self.duplicates, duplicates),
            (&mut self.sessions, sessions),
            (&mut self.takeovers, takeovers),
            (&mut self.durable_acks, durable_acks),
            (&mut self.stale_refused, stale_refused),
            (&mut self.commits, commits),
            (&mut self.effects, effects),
            (&mut self.effects_twice, effects_twice),
            (&mut self.looks, looks),
        ] {
            *sum += more;
        }
    }
}

/// The bytes of an event. They tell who wrote it, and no two are equal. `kind`: `p` a producer, `a` an appender without one.
pub fn value(kind: char, who: u64, seq: u64, incarnation: u64, index: u64, count: u64) -> String {
    let length = (seq.wrapping_mul(2_654_435_761) >> 7) % 90;
    let tide = "tide".repeat(24).chars().take(length as usize).collect::<String>();
    format!("{kind}{who} {seq} e{incarnation} {index}/{count} {tide}")
}

/// Who wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Author {
    pub producer: bool,
    pub who: u64,
    pub seq: u64,
    pub incarnation: u64,
    pub index: u64,
    pub count: u64,
}

/// Reads [`value`] back. `None`: nobody here wrote it.
pub fn parse(data: &str) -> Option<Author> {
    let kind = data.chars().next().filter(|kind| matches!(kind, 'p' | 'a'))?;
    let mut words = data[1..].split(' ');
    let who = words.next()?.parse().ok()?;
    let seq = words.next()?.parse().ok()?;
    let incarnation = words.next()?.strip_prefix('e')?.parse().ok()?;
    let (index, count) = words.next()?.split_once('/')?;
    let (index, count) = (index.parse().ok()?, count.parse().ok()?);
    (value(kind, who, seq, incarnation, index, count) == data).then_some(Author { producer: kind == 'p', who, seq, incarnation, index, count })
}

/// Stands for an event's bytes; never 0.
pub fn hash(data: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(data) | 1
}

/// Stands for everything up to an event.
pub fn chain(before: u64, offset: u64, hash: u64) -> u64 {
    let mut bytes = [0; 24];
    bytes[..8].copy_from_slice(&before.to_le_bytes());
    bytes[8..16].copy_from_slice(&offset.to_le_bytes());
    bytes[16..].copy_from_slice(&hash.to_le_bytes());
    xxhash_rust::xxh3::xxh3_64(&bytes)
}

/// One round on one stream.
#[derive(Debug, Default)]
pub struct History {
    /// The stream's name.
    pub stream: String,
    /// By offset: the hash of what was first heard to be there, 0 = nothing was.
    pub values: Vec<u64>,
    /// By offset: was it acknowledged?
    pub acked: Vec<bool>,
    pub producers: BTreeMap<u64, Producer>,
    /// By appender and number of its append.
    pub singles: BTreeMap<u64, Vec<Outcome>>,
    /// Newest epoch of each subscription.
    epochs: HashMap<String, u64>,
    /// Last look at the stream: log epoch, first, next.
    last_look: (u64, u64, u64),
    /// Last look at each cursor.
    cursors: HashMap<String, u64>,
    /// Confirmed durable acks of each subscription.
    confirmed: HashMap<String, u64>,
    pub findings: Vec<Finding>,
    /// How many there were.
    pub broken: u64,
    pub counts: Counts,
}

impl History {
    pub fn new(stream: &str) -> Self {
        Self { stream: stream.to_owned(), counts: Counts { rounds: 1, ..Counts::default() }, ..Self::default() }
    }

    pub fn finding(&mut self, rule: &'static str, offset: Option<u64>, what: impl Into<String>) {
        self.broken += 1;
        if self.findings.len() < FINDINGS_KEPT {
            self.findings.push(Finding { rule, stream: self.stream.clone(), offset, what: what.into() });
        }
    }

    /// One past the last offset that anybody heard of.
    pub fn known(&self) -> u64 {
        self.values.len() as u64
    }

    fn place(&mut self, offset: u64) -> Option<usize> {
        // A broken broker may say any number; the memory is ours.
        let at = usize::try_from(offset).ok().filter(|at| *at < self.values.len() + 1_000_000)?;
        if at >= self.values.len() {
            self.values.resize(at + 1, 0);
            self.acked.resize(at + 1, false);
        }
        Some(at)
    }

    /// A reader was given this event.
    pub fn saw(&mut self, who: &str, offset: u64, hash: u64) {
        self.counts.deliveries += 1;
        let Some(at) = self.place(offset) else { return self.finding("I-4", Some(offset), format!("{who} was given an offset far beyond the end")) };
        match self.values[at] {
            0 => self.values[at] = hash,
            known if known == hash => {}
            _ if self.acked[at] => self.finding("I-1", Some(offset), format!("{who} was given another event than the one acknowledged there")),
            _ => self.finding("I-4", Some(offset), format!("{who} was given another event than others were given there")),
        }
    }

    /// An event was acknowledged at an offset.
    fn acknowledged(&mut self, offset: u64, hash: u64) {
        let Some(at) = self.place(offset) else { return self.finding("I-1", Some(offset), "an append was acknowledged far beyond the end") };
        match self.values[at] {
            0 => self.values[at] = hash,
            known if known == hash => {}
            _ => self.finding("I-1", Some(offset), "an append was acknowledged where another event is"),
        }
        self.acked[at] = true;
    }

    /// A producer was opened. `clean`: nothing broke meanwhile, so whatever older incarnations send afterwards must have no effect.
    pub fn opened(&mut self, who: u64, epoch: u64, last_seq: Option<u64>, clean: bool) {
        let producer = self.producers.entry(who).or_default();
        let (before, acked, stored) = (producer.last_epoch, producer.acked_to, last_seq.map_or(0, |last| last + 1));
        producer.last_epoch = epoch.max(before);
        if clean {
            producer.openings.push((epoch, stored));
        }
        if epoch <= before {
            self.finding("I-8", None, format!("producer p{who} was opened with epoch {epoch} after {before}"));
        }
        if stored < acked {
            self.finding("I-6", None, format!("producer p{who} has {stored} events stored by its opening, but {acked} had been acknowledged"));
        }
    }

    /// Something broke while a producer was replaced: the replaced one may have taken it back in good faith, so its effects prove nothing.
    pub fn unclean(&mut self, who: u64, epoch: u64) {
        if let Some(producer) = self.producers.get_mut(&who) {
            producer.openings.retain(|(opened, _)| *opened != epoch);
        }
    }

    /// A batch of a producer has its answer.
    pub fn answered(&mut self, who: u64, run: Run, outcome: Outcome) {
        let producer = self.producers.entry(who).or_default();
        match outcome {
            Outcome::Acked(first) => {
                producer.acked_to = producer.acked_to.max(run.seq + run.count);
                self.counts.acknowledged += run.count;
                for index in 0..run.count {
                    if let Some(first) = first {
                        self.acknowledged(first + index, hash(value('p', who, run.seq + index, run.incarnation, index, run.count).as_bytes()));
                    }
                }
            }
            Outcome::Refused => {
                producer.refused.push(run);
                self.counts.refused += run.count;
            }
            Outcome::Unknown => {
                producer.unknown.push(run);
                self.counts.unknown += run.count;
            }
        }
    }

    /// The next append of an appender without a producer has its answer.
    pub fn single(&mut self, who: u64, outcome: Outcome) {
        let appends = self.singles.entry(who).or_default();
        let number = appends.len() as u64;
        appends.push(outcome);
        match outcome {
            Outcome::Acked(first) => {
                self.counts.acknowledged += 1;
                if let Some(first) = first {
                    self.acknowledged(first, hash(value('a', who, number, 0, 0, 1).as_bytes()));
                }
            }
            Outcome::Refused => self.counts.refused += 1,
            Outcome::Unknown => self.counts.unknown += 1,
        }
    }

    /// A session was opened at `next`; `due` is where it had to begin, if that is known.
    pub fn session(&mut self, subscription: &str, epoch: u64, next: u64, due: Option<u64>) {
        self.counts.sessions += 1;
        let before = self.epochs.insert(subscription.to_owned(), epoch).unwrap_or_default();
        if epoch <= before {
            self.finding("I-8", None, format!("a session of {subscription} was opened with epoch {epoch} after {before}"));
        }
        let confirmed = self.confirmed.get(subscription).copied().unwrap_or_default();
        if next < confirmed {
            self.finding("I-13", Some(next), format!("{subscription} had durable acks up to {confirmed}, and was opened at {next}"));
        }
        if let Some(due) = due.filter(|due| *due != next) {
            self.finding("I-11", Some(next), format!("a session of {subscription} was opened for {due} and begins at {next}"));
        }
    }

    /// The consumer attached again by itself.
    pub fn epoch(&mut self, subscription: &str, epoch: u64) {
        let known = self.epochs.entry(subscription.to_owned()).or_default();
        *known = epoch.max(*known);
    }

    /// A durable ack was confirmed.
    pub fn acked(&mut self, subscription: &str, next: u64) {
        self.counts.durable_acks += 1;
        let known = self.confirmed.entry(subscription.to_owned()).or_default();
        *known = next.max(*known);
    }

    /// A look at the stream from outside. `known` is what [`History::known`] said before the look.
    pub fn look(&mut self, log_epoch: u64, first: u64, next: u64, known: u64) {
        self.counts.looks += 1;
        let before = std::mem::replace(&mut self.last_look, (log_epoch, first, next));
        if log_epoch < before.0 || (log_epoch == before.0 && (first < before.1 || next < before.2)) {
            self.finding(
                "I-8",
                Some(next),
                format!("the stream went from {}..{} (log epoch {}) to {first}..{next} ({log_epoch})", before.1, before.2, before.0),
            );
        } else if next < known {
            self.finding("I-7", Some(next), format!("an event at {} had been seen or acknowledged, and the stream ends at {next}", known - 1));
        }
    }

    /// Up to where durable acks of a subscription were confirmed.
    pub fn confirmed(&self, subscription: &str) -> u64 {
        self.confirmed.get(subscription).copied().unwrap_or_default()
    }

    /// A look at a durable cursor from outside. `confirmed` is what [`History::confirmed`] said before the look.
    pub fn cursor(&mut self, subscription: &str, next: u64, confirmed: u64) {
        self.counts.looks += 1;
        let before = self.cursors.insert(subscription.to_owned(), next).unwrap_or_default();
        if next < before {
            self.finding("I-14", Some(next), format!("the cursor of {subscription} went from {before} back to {next}"));
        }
        if next < confirmed {
            self.finding("I-13", Some(next), format!("{subscription} had durable acks up to {confirmed}, and its cursor is at {next}"));
        }
    }

    /// A look at both ends of the K-3 reader: its cursor, the end of its output, its cursor again.
    pub fn image(&mut self, before: u64, output: u64, after: u64) {
        self.counts.looks += 1;
        if output < before || output > after {
            self.finding("I-10", Some(output), format!("the output of commits ended at {output} while their cursor went from {before} to {after}"));
        }
    }
}
