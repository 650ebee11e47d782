//! The law as a program: streams, producers, append sessions and cursors in plain structs, one call at a time, nothing
//! hidden. The random tests do the same to the broker and compare.

use std::collections::{BTreeMap, BTreeSet};

use crate::support::*;

/// A refusal as the tables have it: code, rule, the numbers in its details.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    pub code: Code,
    pub rule: &'static str,
    pub details: Vec<(&'static str, u64)>,
}

fn refuse<T>(code: Code, rule: &'static str, details: &[(&'static str, u64)]) -> Result<T, Refusal> {
    Err(Refusal { code, rule, details: details.to_vec() })
}

/// One event: its text stands for its bytes.
pub type Text = String;

/// A stored batch of a producer.
#[derive(Clone, Debug)]
pub struct Receipt {
    pub first_seq: u64,
    pub texts: Vec<Text>,
    pub base: u64,
}

/// A producer: epoch E, last sequence number L (as `next` = L + 1), its newest receipts.
#[derive(Clone, Debug, Default)]
pub struct Producer {
    pub epoch: u64,
    pub next: u64,
    pub receipts: Vec<Receipt>,
}

/// A cursor: what is surely on disk, what was answered, the newest epoch, and what that epoch's session was given.
#[derive(Clone, Debug, Default)]
pub struct Cursor {
    pub durable: u64,
    pub next: u64,
    pub epoch: u64,
    /// D of the newest session; `None` when the broker forgot it (restart) or there was none.
    pub delivered: Option<u64>,
    pub attached: bool,
}

/// A stream with all that belongs to it.
#[derive(Clone, Debug, Default)]
pub struct Stream {
    pub events: Vec<Text>,
    pub first: u64,
    pub closed: bool,
    pub producers: BTreeMap<String, Producer>,
    pub cursors: BTreeMap<String, Cursor>,
}

/// Which append sessions of a connection are poisoned (P-12).
#[derive(Clone, Debug, Default)]
pub struct Poison {
    poisoned: BTreeSet<(String, Option<String>)>,
    /// After an unreadable frame: all but these.
    all_but: Option<BTreeSet<(String, Option<String>)>>,
}

impl Poison {
    fn key(stream: &str, producer: Option<&str>) -> (String, Option<String>) {
        (stream.to_owned(), producer.map(str::to_owned))
    }

    pub fn is(&self, stream: &str, producer: Option<&str>) -> bool {
        let key = Self::key(stream, producer);
        self.poisoned.contains(&key) || self.all_but.as_ref().is_some_and(|healed| !healed.contains(&key))
    }

    pub fn poison(&mut self, stream: &str, producer: Option<&str>) {
        self.poisoned.insert(Self::key(stream, producer));
    }

    pub fn poison_all(&mut self) {
        self.all_but = Some(BTreeSet::new());
    }

    fn heal(&mut self, stream: &str, producer: Option<&str>) {
        let key = Self::key(stream, producer);
        self.poisoned.remove(&key);
        if let Some(healed) = &mut self.all_but {
            healed.insert(key);
        }
    }
}

/// An append as the model sees it.
#[derive(Clone, Debug)]
pub struct Append {
    pub producer: Option<(String, u64, u64)>,
    pub texts: Vec<Text>,
    pub expected_next_offset: Option<u64>,
}

impl Stream {
    pub fn next_offset(&self) -> u64 {
        self.events.len() as u64
    }

    pub fn kept(&self) -> Vec<Text> {
        self.events[self.first as usize..].to_vec()
    }

    /// OpenProducer: (epoch, last_seq).
    pub fn open(&mut self, id: &str) -> (u64, Option<u64>) {
        let producer = self.producers.entry(id.to_owned()).or_default();
        producer.epoch += 1;
        (producer.epoch, producer.next.checked_sub(1))
    }

    /// P-1 … P-10, top to bottom.
    pub fn append(&mut self, append: &Append) -> Result<Appended, Refusal> {
        let (n, next) = (append.texts.len() as u64, self.next_offset());
        let done = |base: Option<u64>, duplicate| {
            Ok(Appended { first_offset: base, last_offset: base.map(|b| b + n - 1), count: n as u32, duplicate })
        };
        if let Some((id, epoch, seq)) = &append.producer {
            let (epoch, seq) = (*epoch, *seq);
            let Some(state) = self.producers.get(id) else { return refuse(Code::ProducerUnknown, "P-1", &[]) };
            if epoch < state.epoch {
                return refuse(Code::ProducerFenced, "P-2", &[("epoch", state.epoch)]);
            }
            if epoch > state.epoch {
                return refuse(Code::ProducerUnknown, "P-3", &[]);
            }
            if seq + n <= state.next {
                let kept = &state.receipts[state.receipts.len().saturating_sub(64)..];
                if let Some(receipt) = kept.iter().find(|r| r.first_seq == seq && r.texts.len() as u64 == n) {
                    return if receipt.texts == append.texts { done(Some(receipt.base), true) } else { refuse(Code::ProducerSeqReused, "P-5", &[]) };
                }
                if seq + n <= kept[0].first_seq {
                    return done(None, true);
                }
            }
            if seq < state.next {
                return refuse(Code::ProducerSeqOverlap, "P-7", &[("last_seq", state.next - 1)]);
            }
            if seq > state.next {
                return refuse(Code::ProducerSeqGap, "P-8", &[("expected", state.next)]);
            }
        }
        if self.closed {
            return refuse(Code::StreamClosed, "P-9", &[("next_offset", next)]);
        }
        if append.expected_next_offset.is_some_and(|expected| expected != next) {
            return refuse(Code::ConditionFailed, "P-18", &[("next_offset", next)]);
        }
        self.events.extend(append.texts.iter().cloned());
        if let Some((id, _, seq)) = &append.producer {
            let state = self.producers.get_mut(id).expect("the table found it");
            state.next = seq + n;
            state.receipts.push(Receipt { first_seq: *seq, texts: append.texts.clone(), base: next });
        }
        done(Some(next), false)
    }

    /// The same on a connection: P-12 around it.
    pub fn append_on(&mut self, poison: &mut Poison, stream: &str, append: &Append) -> Result<Appended, Refusal> {
        let id = append.producer.as_ref().map(|(id, ..)| id.as_str());
        if poison.is(stream, id) {
            return refuse(Code::SessionPoisoned, "P-12", &[]);
        }
        let result = self.append(append);
        if result.is_err() {
            poison.poison(stream, id);
        }
        result
    }

    /// `resume`: right when it names L + 1.
    pub fn resume(&self, poison: &mut Poison, stream: &str, producer: Option<&str>, seq: Option<u64>) -> bool {
        let right = match producer {
            None => true,
            Some(id) => self.producers.get(id).is_some_and(|p| seq == Some(p.next)),
        };
        if right {
            poison.heal(stream, producer);
        }
        right
    }

    pub fn trim(&mut self, before: u64) {
        self.first = self.first.max(before);
    }

    /// C-1 … C-6: (epoch, next).
    pub fn attach(&mut self, subscription: &str, ask: &Ask) -> Result<(u64, u64), Refusal> {
        let (first, end) = (self.first, self.next_offset());
        let cursor = self.cursors.get_mut(subscription).expect("the tests create it");
        if cursor.attached && ask.reject {
            return refuse(Code::CursorBusy, "C-1", &[]);
        }
        if ask.log_epoch.is_some_and(|given| given != 1) {
            return refuse(Code::LogEpochChanged, "C-2", &[("log_epoch", 1), ("next_offset", end)]);
        }
        let next = match ask.from {
            None => cursor.next,
            Some(Start::Earliest) => first,
            Some(Start::Offset(offset)) => offset,
            Some(_) => end,
        };
        if next > end {
            return refuse(Code::PositionBeyondEnd, "C-3", &[("next_offset", end)]);
        }
        if next < cursor.next && !ask.rewind {
            return refuse(Code::CursorAhead, "C-4", &[("next", cursor.next)]);
        }
        if next < first && ask.on_gap == OnGap::Fail {
            return refuse(Code::CursorTrimmed, "C-6", &[("next", next), ("first_offset", first)]);
        }
        let epoch = cursor.epoch + 1;
        *cursor = Cursor { durable: next, next, epoch, delivered: Some(next), attached: true };
        Ok((epoch, next))
    }

    /// C-7 … C-13.
    pub fn check_ack(&self, subscription: &str, epoch: u64, next: u64) -> Result<Acked, Refusal> {
        let end = self.next_offset();
        let cursor = &self.cursors[subscription];
        if epoch < cursor.epoch {
            return refuse(Code::SessionFenced, "C-7", &[("epoch", cursor.epoch)]);
        }
        if epoch > cursor.epoch {
            return refuse(Code::SessionUnknown, "C-8", &[]);
        }
        if next > end {
            return refuse(Code::AckBeyondEnd, "C-9", &[("next_offset", end)]);
        }
        if next <= cursor.next {
            return Ok(Acked { offset: cursor.next.checked_sub(1), next: cursor.next, stale: next < cursor.next });
        }
        match cursor.delivered {
            None => refuse(Code::SessionUnknown, "C-8", &[]),
            Some(delivered) if next > delivered => refuse(Code::AckNotDelivered, "C-10", &[("next_delivered", delivered)]),
            Some(_) => Ok(Acked { offset: next.checked_sub(1), next, stale: false }),
        }
    }

    pub fn ack(&mut self, subscription: &str, epoch: u64, next: u64, level: AckLevel) -> Result<Acked, Refusal> {
        let acked = self.check_ack(subscription, epoch, next)?;
        let cursor = self.cursors.get_mut(subscription).expect("the check found it");
        cursor.next = acked.next;
        if level == AckLevel::Durable {
            cursor.durable = acked.next;
        }
        Ok(acked)
    }

    /// C-14: (epoch, next).
    pub fn seek(&mut self, subscription: &str, to: Start) -> Result<(u64, u64), Refusal> {
        let (first, end) = (self.first, self.next_offset());
        let next = match to {
            Start::Earliest => first,
            Start::Offset(offset) => offset,
            _ => end,
        };
        if next > end {
            return refuse(Code::PositionBeyondEnd, "C-3", &[("next_offset", end)]);
        }
        let cursor = self.cursors.get_mut(subscription).expect("the tests create it");
        *cursor = Cursor { durable: next, next, epoch: cursor.epoch + 1, delivered: None, attached: false };
        Ok((cursor.epoch, next))
    }

    /// The process died: sessions are gone.
    pub fn crash(&mut self) {
        for cursor in self.cursors.values_mut() {
            cursor.delivered = None;
            cursor.attached = false;
        }
    }
}

/// What an opening asks for.
#[derive(Clone, Debug)]
pub struct Ask {
    pub from: Option<Start>,
    pub rewind: bool,
    pub reject: bool,
    pub on_gap: OnGap,
    pub log_epoch: Option<u64>,
}

/// The broker said what the model says.
pub fn same<T: PartialEq + std::fmt::Debug>(got: Result<T>, expected: Result<T, Refusal>, what: &str) {
    match (got, expected) {
        (Ok(got), Ok(expected)) => assert_eq!(got, expected, "{what}"),
        (Err(error), Err(expected)) => {
            assert_eq!(error.code, expected.code, "{what}: {error:?}");
            assert_eq!(error.rule.as_deref(), Some(expected.rule), "{what}: {error:?}");
            for (name, value) in expected.details {
                assert_eq!(detail(&error, name), value, "{what}: {error:?}");
            }
            assert_eq!(error.applied, Applied::No, "{what}");
        }
        (got, expected) => panic!("{what}: expected {expected:?}, got {got:?}"),
    }
}

#[test]
fn the_model_itself_follows_the_table() {
    let mut stream = Stream::default();
    let batch = |epoch, seq, texts: &[&str]| Append {
        producer: Some(("p".into(), epoch, seq)),
        texts: texts.iter().map(|t| (*t).to_owned()).collect(),
        expected_next_offset: None,
    };
    let rule = |result: Result<Appended, Refusal>| result.err().map(|r| r.rule);
    assert_eq!(rule(stream.append(&batch(1, 0, &["a"]))), Some("P-1"));
    assert_eq!(stream.open("p"), (1, None));
    assert_eq!(stream.append(&batch(1, 0, &["a", "b"])).ok().and_then(|a| a.first_offset), Some(0));
    assert_eq!(stream.append(&batch(1, 0, &["a", "b"])).ok().map(|a| a.duplicate), Some(true));
    assert_eq!(rule(stream.append(&batch(1, 0, &["a", "c"]))), Some("P-5"));
    assert_eq!(rule(stream.append(&batch(1, 1, &["b"]))), Some("P-7"));
    assert_eq!(rule(stream.append(&batch(1, 1, &["b", "c"]))), Some("P-7"));
    assert_eq!(rule(stream.append(&batch(1, 3, &["d"]))), Some("P-8"));
    assert_eq!(stream.open("p"), (2, Some(1)));
    assert_eq!(rule(stream.append(&batch(1, 2, &["c"]))), Some("P-2"));
    assert_eq!(rule(stream.append(&batch(3, 2, &["c"]))), Some("P-3"));
}
