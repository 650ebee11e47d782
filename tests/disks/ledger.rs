//! What clients sent and were told, and the judgement of what is found after a fault: I-1, I-2, I-3, I-5, I-6, I-10, I-13.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use http::Method;
use parking_lot::Mutex;
use serde_json::Value;
use tidelog::client::{Client, Error};
use tidelog::types::Applied;

/// Written by producers and plain appenders.
pub const INPUT: &str = "input";
/// Both get one event from each commit, the same one.
pub const OUTPUTS: [&str; 2] = ["left", "right"];
/// A subscription of [`INPUT`], acked over its session.
pub const READER: &str = "reader";
/// A subscription of [`INPUT`], acked inside the commits.
pub const MOVER: &str = "mover";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// No answer, or one that leaves it open.
    Open,
    /// Acknowledged, at this offset if it was told.
    Stored(Option<u64>),
    /// It had no effect and never will.
    Refused,
}

/// One batch.
#[derive(Clone, Debug)]
struct Sent {
    stream: &'static str,
    values: Vec<String>,
    outcome: Outcome,
}

/// Everything that was sent to one history of a broker, through all its restarts.
#[derive(Clone, Default)]
pub struct Ledger(Arc<Mutex<Book>>);

#[derive(Clone, Default)]
struct Book {
    sent: Vec<Sent>,
    /// Of [`READER`]: next as confirmed, and as asked for.
    acked: u64,
    asked: u64,
    /// How often each error code was heard, and its `applied`.
    codes: BTreeMap<String, usize>,
}

/// What a batch is known by until its answer comes.
#[derive(Clone, Copy)]
pub struct Ticket(usize);

impl Ledger {
    /// The same history, from here on apart: what the old incarnation still hears changes nothing.
    pub fn fork(&self) -> Self {
        Self(Arc::new(Mutex::new(self.0.lock().clone())))
    }

    /// Before it is sent.
    pub fn sending(&self, stream: &'static str, values: Vec<String>) -> Ticket {
        let mut book = self.0.lock();
        book.sent.push(Sent { stream, values, outcome: Outcome::Open });
        Ticket(book.sent.len() - 1)
    }

    pub fn settle(&self, ticket: Ticket, outcome: Outcome) {
        self.0.lock().sent[ticket.0].outcome = outcome;
    }

    /// Settles it by an error, which is counted.
    pub fn failed(&self, ticket: Ticket, error: &Error) {
        self.heard(error);
        if error.applied() == Applied::No {
            self.settle(ticket, Outcome::Refused);
        }
    }

    /// Counts an error.
    pub fn heard(&self, error: &Error) {
        let code = error.code().map_or("none", |code| code.as_str());
        *self.0.lock().codes.entry(format!("{code} {:?}", error.applied())).or_default() += 1;
    }

    pub fn asking(&self, next: u64) {
        let mut book = self.0.lock();
        book.asked = book.asked.max(next);
    }

    pub fn acked(&self, next: u64) {
        let mut book = self.0.lock();
        book.acked = book.acked.max(next);
    }

    /// Acknowledged batches.
    pub fn stored(&self) -> usize {
        self.0.lock().sent.iter().filter(|sent| matches!(sent.outcome, Outcome::Stored(_))).count()
    }

    /// Batches without a definite answer.
    pub fn open(&self) -> usize {
        self.0.lock().sent.iter().filter(|sent| sent.outcome == Outcome::Open).count()
    }

    /// `code applied` of each error heard, with its count.
    pub fn codes(&self) -> BTreeMap<String, usize> {
        self.0.lock().codes.clone()
    }

    /// Everything that is wrong with `found`, a rule at the beginning of each. Empty: nothing.
    pub fn judge(&self, found: &Found) -> Vec<String> {
        let book = self.0.lock();
        let mut wrong = Vec::new();
        for stream in [INPUT, OUTPUTS[0], OUTPUTS[1]] {
            let events = found.streams.get(stream).map_or(&[][..], Vec::as_slice);
            let mut places: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
            for (offset, value) in events.iter().enumerate() {
                places.entry(value).or_default().push(offset as u64);
            }
            let mut known = BTreeSet::new();
            for sent in book.sent.iter().filter(|sent| sent.stream == stream) {
                let at: Vec<&[u64]> = sent.values.iter().map(|value| places.get(value.as_str()).map_or(&[][..], Vec::as_slice)).collect();
                known.extend(sent.values.iter().map(String::as_str));
                let first = &sent.values[0];
                match sent.outcome {
                    Outcome::Refused if at.iter().any(|at| !at.is_empty()) => wrong.push(format!("I-2: {first:?} was refused and is in {stream} at {at:?}")),
                    Outcome::Stored(_) if at.iter().any(|at| at.len() != 1) => {
                        wrong.push(format!("I-1: {first:?} was acknowledged and is in {stream} at {at:?}"))
                    }
                    Outcome::Stored(Some(offset)) if at[0][0] != offset => {
                        wrong.push(format!("I-1: {first:?} was acknowledged at {offset} of {stream} and is at {}", at[0][0]));
                    }
                    _ => {}
                }
                if at.iter().any(|at| at.len() > 1) {
                    wrong.push(format!("I-3: {first:?} is in {stream} at {at:?}"));
                }
                let there = at.iter().filter(|at| !at.is_empty()).count();
                if there != 0 && there != at.len() {
                    wrong.push(format!("P-13: of the batch of {first:?} {there} of {} events are in {stream}", at.len()));
                }
                if at.windows(2).any(|pair| matches!((pair[0], pair[1]), ([a], [b]) if a + 1 != *b)) {
                    wrong.push(format!("I-5: the batch of {first:?} is not in one piece in {stream}: {at:?}"));
                }
            }
            wrong.extend(places.keys().filter(|value| !known.contains(**value)).map(|value| format!("I-5: {value:?} is in {stream} and nobody sent it")));
        }
        let of = |stream: &str| found.streams.get(stream).map_or(&[][..], Vec::as_slice);
        if of(OUTPUTS[0]) != of(OUTPUTS[1]) {
            wrong.push(format!(
                "I-10: commits were cut in two: {} holds {} events and {} {}",
                OUTPUTS[0],
                of(OUTPUTS[0]).len(),
                OUTPUTS[1],
                of(OUTPUTS[1]).len()
            ));
        }
        // Each commit's event says up to where it acks.
        let moved = of(OUTPUTS[0]).last().and_then(|value| value.rsplit(' ').next()?.parse::<u64>().ok()).unwrap_or(0);
        match found.cursors.get(MOVER) {
            Some(next) if *next == moved => {}
            other => wrong.push(format!("I-10: the last commit acked up to {moved}, and the cursor is {other:?}")),
        }
        match found.cursors.get(READER) {
            Some(next) if (book.acked..=book.asked).contains(next) => {}
            other => wrong.push(format!("I-13: {} was acknowledged as durable, {} asked for, and the cursor is {other:?}", book.acked, book.asked)),
        }
        wrong.extend(producers(of(INPUT), &found.producers));
        wrong
    }
}

/// I-6: the values of producers are `p ID SEQ …`; each producer's numbers are in order, each once, without a hole, and its state says the last.
fn producers(events: &[String], states: &BTreeMap<String, Option<u64>>) -> Vec<String> {
    let mut last: BTreeMap<&str, u64> = BTreeMap::new();
    let mut wrong = Vec::new();
    for value in events {
        let mut words = value.split(' ');
        let (Some("p"), Some(id), Some(seq)) = (words.next(), words.next(), words.next().and_then(|seq| seq.parse::<u64>().ok())) else { continue };
        let expected = last.get(id).map_or(0, |last| last + 1);
        if seq != expected {
            wrong.push(format!("I-6: producer {id} has {seq} where {expected} should be"));
        }
        last.insert(id, seq);
    }
    for (id, state) in states {
        if *state != last.get(id.as_str()).copied() {
            wrong.push(format!("I-6: the state of producer {id} ends at {state:?}, its events at {:?}", last.get(id.as_str())));
        }
    }
    wrong
}

/// What a broker has.
#[derive(Clone, Debug, Default)]
pub struct Found {
    pub streams: BTreeMap<&'static str, Vec<String>>,
    pub cursors: BTreeMap<&'static str, u64>,
    pub producers: BTreeMap<String, Option<u64>>,
}

impl Found {
    /// Reads all of it.
    pub async fn read(client: &Client) -> Result<Self, Error> {
        let admin = client.admin();
        let mut found = Self::default();
        for stream in [INPUT, OUTPUTS[0], OUTPUTS[1]] {
            let next = admin.stream(stream).await?.state.next_offset;
            let mut values = Vec::new();
            while (values.len() as u64) < next {
                let from = values.len() as u64;
                let page: Value = admin.call(Method::GET, &format!("/v1/streams/{stream}/events?from={from}&limit=10000"), None).await?;
                let events = page["events"].as_array().expect("a page has events");
                assert!(!events.is_empty(), "silence: the page from {from} of {stream} is empty, the stream ends at {next}");
                for event in events {
                    assert_eq!(event["offset"].as_u64(), Some(values.len() as u64), "I-5: offsets of {stream} are dense");
                    values.push(event["data"].as_str().expect("text").to_owned());
                }
            }
            found.streams.insert(stream, values);
        }
        for subscription in [READER, MOVER] {
            found.cursors.insert(subscription, admin.subscription(INPUT, subscription).await?.next);
        }
        for producer in admin.producers(Some(INPUT)).await? {
            found.producers.insert(producer.producer, producer.last_seq);
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A history with one batch of a producer, a commit and an ack, and what a sound broker shows of it.
    fn sound() -> (Ledger, Found) {
        let ledger = Ledger::default();
        ledger.settle(ledger.sending(INPUT, vec!["p a 0".into(), "p a 1".into()]), Outcome::Stored(Some(0)));
        for output in OUTPUTS {
            ledger.settle(ledger.sending(output, vec!["c 2".into()]), Outcome::Stored(Some(0)));
        }
        ledger.settle(ledger.sending(INPUT, vec!["refused".into()]), Outcome::Refused);
        ledger.sending(INPUT, vec!["open".into()]);
        ledger.asking(2);
        ledger.acked(2);
        let outputs = OUTPUTS.into_iter().map(|stream| (stream, vec!["c 2".to_owned()]));
        let streams = outputs.chain([(INPUT, vec!["p a 0".into(), "p a 1".into(), "open".into()])]).collect();
        (ledger, Found { streams, cursors: [(READER, 2), (MOVER, 2)].into(), producers: [("a".to_owned(), Some(1))].into() })
    }

    #[test]
    fn the_judge_finds_nothing_in_a_sound_history_and_each_lie_in_a_false_one() {
        let (ledger, found) = sound();
        assert_eq!(ledger.judge(&found), [""; 0]);
        let lie = |rule: &str, change: &dyn Fn(&mut Found)| {
            let mut found = found.clone();
            change(&mut found);
            let wrong = ledger.judge(&found);
            assert!(wrong.iter().any(|line| line.starts_with(rule)), "{rule} is not among {wrong:?}");
        };
        let input = |found: &mut Found| found.streams.get_mut(INPUT).expect("the stream").clone();
        lie("I-1", &|found| found.streams.get_mut(INPUT).expect("it").clear());
        lie("I-1", &|found| found.streams.get_mut(INPUT).expect("it").insert(0, "open".into()));
        lie("I-2", &|found| found.streams.get_mut(INPUT).expect("it").push("refused".into()));
        lie("I-3", &|found| found.streams.get_mut(INPUT).expect("it").push("open".into()));
        lie("P-13", &|found| drop(found.streams.get_mut(INPUT).expect("it").remove(1)));
        lie("I-5", &|found| found.streams.get_mut(INPUT).expect("it").push("stranger".into()));
        lie("I-5", &|found| *found.streams.get_mut(INPUT).expect("it") = [&input(found)[..1], &["open".into()], &["p a 1".into()]].concat());
        lie("I-6", &|found| {
            found.producers.insert("a".into(), Some(0));
        });
        lie("I-6", &|found| found.streams.get_mut(INPUT).expect("it").swap(0, 1));
        lie("I-10", &|found| found.streams.get_mut(OUTPUTS[1]).expect("it").clear());
        lie("I-10", &|found| {
            found.cursors.insert(MOVER, 1);
        });
        lie("I-13", &|found| {
            found.cursors.insert(READER, 1);
        });
        lie("I-13", &|found| {
            found.cursors.insert(READER, 3);
        });
    }
}
