//! `Commit`: acks and appends that happen together or not at all (T-1 … T-7).

use super::State;
use crate::broker::access::Bound;
use crate::broker::info::NewStream;
use crate::broker::intent::Author;
use crate::broker::producer::{Producer, Receipt, Verdict};
use crate::log::ProducerKey;
use crate::log::rows::value::{CommitAnswer, commit_answer};
use crate::types::reply::{Committed, CommittedAck, CommittedAppend};
use crate::types::request::{AckLevel, CommitAppend, CommitRequest};
use crate::types::{Code, Error, StreamId, StreamName, SubscriptionName};

impl State {
    pub(super) fn commit(&mut self, request: CommitRequest, fingerprint: u128, author: Author) -> Result<Committed, Error> {
        let mut record = None;
        if let Some(stamp) = &request.producer {
            let key = ProducerKey::of_user(author.user, stamp.id.clone());
            let state = self.producer(&key);
            // Before any name is resolved: a retry must find its answer even when a stream is gone by now (T-2).
            match Producer::check(state.as_deref(), stamp.id.as_str(), stamp.epoch, stamp.seq, 1, fingerprint)? {
                Verdict::Duplicate(receipt) => return Ok(answer_of(receipt.answer.unwrap_or_default())),
                Verdict::OldDuplicate => return Ok(Committed { duplicate: true, ..Committed::default() }),
                Verdict::Next => record = Some((key, stamp.seq)),
            }
        }

        // T-1: everything is validated before anything changes.
        let mut acks = Vec::with_capacity(request.acks.len());
        for (index, ack) in request.acks.iter().enumerate() {
            let fail = |cause: Error| part_failed("acks", index, cause);
            let (stream, subscription, acked) = self.check_ack(&ack.stream, &ack.subscription, ack.epoch, ack.offset, None).map_err(fail)?;
            let done = self.cursor(stream, subscription).row.next;
            // T-5: inputs consumed before would double the outputs.
            if acked.next <= done || acked.stale {
                let cause = Error::new(
                    Code::AckStale,
                    format!("The cursor of {} is at {done}: offset {} was done before. Read on from the cursor.", ack.subscription, ack.offset),
                );
                return Err(fail(cause.rule("T-5").detail("next", done)));
            }
            if acks.iter().any(|(s, id, _, _)| (*s, *id) == (stream, subscription)) {
                return Err(Error::bad(&format!("acks[{index}]"), format!("acks[{index}] names subscription {} a second time.", ack.subscription)));
            }
            acks.push((stream, subscription, acked.next, ack));
        }
        let mut nexts: Vec<(Target, u64)> = Vec::with_capacity(request.appends.len());
        let mut targets = Vec::with_capacity(request.appends.len());
        for (index, append) in request.appends.iter().enumerate() {
            let fail = |cause: Error| part_failed("appends", index, cause);
            let target = self.target(append).map_err(fail)?;
            let at = match nexts.iter().position(|(t, _)| *t == target) {
                Some(at) => at,
                None => {
                    nexts.push((target.clone(), target.id().map_or(0, |id| self.stream(id).bounds.next_offset)));
                    nexts.len() - 1
                }
            };
            self.check_stream(target.id(), &append.stream, &append.events, append.expected_next_offset, nexts[at].1).map_err(fail)?;
            nexts[at].1 += u64::from(append.events.count());
            targets.push(target);
        }
        for (index, check) in request.checks.iter().enumerate() {
            let fail = |cause: Error| part_failed("checks", index, cause);
            let stream = self.data_stream(&check.stream, None).map_err(fail)?;
            if nexts.iter().any(|(written, _)| written.id() == Some(stream)) {
                return Err(Error::bad(
                    &format!("checks[{index}].stream"),
                    format!("Stream {} is written by this commit: put expected_next_offset into its append.", check.stream),
                )
                .rule("T-7"));
            }
            let next = self.stream(stream).bounds.next_offset;
            if next != check.expected_next_offset {
                let cause = Error::new(Code::ConditionFailed, format!("Stream {} stands at {next}, not at {}.", check.stream, check.expected_next_offset));
                return Err(fail(cause.rule("T-7").detail("next_offset", next).detail("expected_next_offset", check.expected_next_offset)));
            }
        }

        if let Some(index) = targets.iter().position(|target| target.id().is_none()) {
            let new = nexts.iter().filter(|(target, _)| target.id().is_none()).count();
            self.check_room(author.user, Bound::Streams, new as u64).map_err(|cause| part_failed("appends", index, cause))?;
        }

        // From here on nothing can fail.
        let mut answer = CommitAnswer::default();
        for (stream, subscription, next, ack) in acks {
            self.move_cursor(stream, subscription, next, AckLevel::Durable);
            answer.acks.push(commit_answer::Ack { stream: ack.stream.to_string(), subscription: ack.subscription.to_string(), next });
        }
        for (append, target) in request.appends.into_iter().zip(targets) {
            let stream = match target {
                Target::There(id) => id,
                // An earlier part may have created it.
                Target::New(_) => match self.find(&append.stream) {
                    Some(id) => id,
                    None => self.create_stream(&NewStream::named(append.stream.clone()), author.user)?,
                },
            };
            let count = append.events.count();
            let base_offset = self.store(stream, append.events, author);
            answer.appends.push(commit_answer::Append { stream: append.stream.to_string(), base_offset, count });
        }
        if let Some((key, first_seq)) = record {
            let producer = self.producer(&key).expect("the table found it");
            producer.record(Receipt { first_seq, count: 1, base_offset: 0, fingerprint, answer: Some(answer.clone()) });
            self.group.producers.insert(key);
        }
        Ok(Committed { duplicate: false, ..answer_of(answer) })
    }
}

/// Where one append of a commit goes.
#[derive(Clone, PartialEq, Eq)]
enum Target {
    There(StreamId),
    /// `dev` creates the stream of this folded name, if the whole commit is valid.
    New(String),
}

impl Target {
    fn id(&self) -> Option<StreamId> {
        match self {
            Self::There(id) => Some(*id),
            Self::New(_) => None,
        }
    }
}

impl State {
    fn target(&mut self, append: &CommitAppend) -> Result<Target, Error> {
        if self.options.create_on_use && append.stream_id.is_none() && self.find(&append.stream).is_none() {
            return Ok(Target::New(append.stream.folded().into_owned()));
        }
        self.data_stream(&append.stream, append.stream_id).map(Target::There)
    }
}

fn answer_of(answer: CommitAnswer) -> Committed {
    Committed {
        acks: answer
            .acks
            .into_iter()
            .map(|ack| CommittedAck {
                stream: StreamName::stored(&ack.stream),
                subscription: SubscriptionName::stored(&ack.subscription),
                offset: ack.next - 1,
                next: ack.next,
            })
            .collect(),
        appends: answer
            .appends
            .into_iter()
            .map(|append| CommittedAppend {
                stream: StreamName::stored(&append.stream),
                first_offset: append.base_offset,
                last_offset: append.base_offset + u64::from(append.count) - 1,
                count: append.count,
            })
            .collect(),
        duplicate: true,
    }
}

/// T-1: names the part and carries its cause; the advice is the cause's.
fn part_failed(part: &str, index: usize, cause: Error) -> Error {
    let mut told = serde_json::Map::new();
    told.insert("code".into(), cause.code.as_str().into());
    told.insert("message".into(), cause.message.clone().into());
    told.insert("rule".into(), cause.rule.clone().into());
    told.insert("details".into(), cause.details.clone().into());
    Error::new(Code::TxnPartFailed, format!("{part}[{index}] was refused, so nothing of the commit happened: {}", cause.message))
        .rule("T-1")
        .with_retry(cause.retry)
        .detail("part", part)
        .detail("index", index as u64)
        .detail("cause", told)
}
