//! From a call of the law to one of the broker, and from the broker's answer to what the law would say.

use std::future::{Future, poll_fn, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use crate::law::{Ask, Batch, Call, CommitPlan, CommitSaid, Event, Pulling, Said, event, text};
use crate::support::*;

/// What comes with an answer and is no part of the law.
pub enum Extra {
    Nothing,
    Session(Box<Reader>),
    Token(String),
    Operation(OperationId),
}

/// An answer that is still to come.
pub type Answer = Pin<Box<dyn Future<Output = (Result<Said>, Extra)>>>;

/// The names of one sequence: no other on the same store has them.
#[derive(Clone, Copy, Debug)]
pub struct Names(pub u32);

impl Names {
    pub fn stream(self, number: usize) -> StreamName {
        name(&format!("{}{}", ["a", "b", "c"][number], self.0))
    }

    pub fn number(self, stream: &StreamName) -> usize {
        (0..3).find(|number| self.stream(*number) == *stream).unwrap_or_else(|| panic!("{stream} is not a stream of this sequence"))
    }

    pub fn sub(self, number: u8) -> SubscriptionName {
        sub(["x", "y"][usize::from(number)])
    }

    pub fn sub_number(self, sub: &SubscriptionName) -> u8 {
        u8::from(sub.as_str() != "x")
    }

    pub fn producer(self, number: u8) -> ProducerId {
        producer(&format!("p{number}"))
    }

    pub fn wide(self, number: u8) -> ProducerId {
        producer(&format!("tx{}-{number}", self.0))
    }
}

/// Events of these numbers.
pub fn bytes_of(batch: &[Event]) -> Events {
    let texts: Vec<String> = batch.iter().map(|e| text(*e)).collect();
    events(&texts)
}

fn id(stream_id: Option<u64>) -> Option<StreamId> {
    stream_id.map(StreamId)
}

/// Puts a call that has no connection into the commit order, and leaves its answer for later.
async fn begun(future: impl Future<Output = (Result<Said>, Extra)> + 'static) -> Answer {
    let mut future: Answer = Box::pin(future);
    match poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await {
        Poll::Ready(answer) => Box::pin(ready(answer)),
        Poll::Pending => future,
    }
}

fn plainly<T: Unpin + 'static>(pending: Pending<T>, say: impl FnOnce(T) -> Said + 'static) -> Answer {
    Box::pin(async move { (pending.await.map(say), Extra::Nothing) })
}

/// Makes the call; it has its place in the order when this returns. `handle` is that of the seat an ack names.
pub async fn make(
    broker: &Broker,
    connections: &mut [Connection],
    names: Names,
    handle: Option<SessionHandle>,
    operation: Option<OperationId>,
    call: &Call,
) -> Answer {
    let broker = broker.clone();
    match call.clone() {
        Call::Open { via, stream, id, expect } => {
            let producer = if stream.is_some() { names.producer(id) } else { names.wide(id) };
            let request = OpenProducerRequest { stream: stream.map(|s| names.stream(s)), stream_id: None, producer, expect };
            match via {
                Some(conn) => plainly(soon(connections[conn].open_producer(request)).await, opened),
                None => begun(async move { (broker.open_producer(&OPERATOR, request).await.map(opened), Extra::Nothing) }).await,
            }
        }
        Call::Append { via, stream, stream_id, batch } => {
            let request = append(names, stream, stream_id, &batch);
            match via {
                Some(conn) => plainly(soon(connections[conn].append(request)).await, Said::Appended),
                None => begun(async move { (broker.append(&OPERATOR, request).await.map(Said::Appended), Extra::Nothing) }).await,
            }
        }
        Call::Once { stream, key, events, expected } => {
            let request = append(names, stream, None, &Batch { producer: None, events, expected });
            let key = IdempotencyKey::parse(&format!("key-{key}")).expect("a key");
            begun(async move { (broker.append_once(&OPERATOR, request, &key).await.map(|(done, _)| Said::Appended(done)), Extra::Nothing) }).await
        }
        Call::Resume { conn, stream, producer, seq } => {
            let request = ResumeRequest { stream: names.stream(stream), producer: producer.map(|p| names.producer(p)), seq };
            plainly(soon(connections[conn].resume(request)).await, |()| Said::Done)
        }
        Call::Spoil { conn, stream, producer } => {
            soon(connections[conn].spoil(Some(names.stream(stream)), producer.map(|p| names.producer(p)))).await;
            Box::pin(ready((Ok(Said::Done), Extra::Nothing)))
        }
        Call::SpoilAll { conn } => {
            soon(connections[conn].spoil(None, None)).await;
            Box::pin(ready((Ok(Said::Done), Extra::Nothing)))
        }
        Call::Commit { via, plan } => {
            let request = commit(names, &plan);
            let say = move |done: Committed| committed(names, &done);
            match via {
                Some(conn) => plainly(soon(connections[conn].commit(request)).await, say),
                None => begun(async move { (broker.commit(&OPERATOR, request).await.map(say), Extra::Nothing) }).await,
            }
        }
        Call::Ack { via, stream, sub, epoch, offset, level } => match (via, handle) {
            (Some((conn, _)), Some(handle)) => plainly(soon(connections[conn].ack(&handle, offset, level)).await, Said::Acked),
            _ => {
                let request = AckRequest { stream: names.stream(stream), subscription: names.sub(sub), epoch, offset, level };
                begun(async move { (broker.ack(&OPERATOR, request).await.map(Said::Acked), Extra::Nothing) }).await
            }
        },
        Call::TokenAck { stream, sub, token, offset, level, .. } => {
            let (stream, sub) = (names.stream(stream), names.sub(sub));
            begun(async move { (broker.ack_by_token(&OPERATOR, &stream, &sub, &token, offset, level).await.map(Said::Acked), Extra::Nothing) }).await
        }
        Call::Attach { conn, stream, stream_id, sub, ask } => {
            let Ask { from, rewind, reject, on_gap, log_epoch } = ask;
            let takeover = if reject { Takeover::Reject } else { Takeover::Steal };
            let new = SubscribeRequest::new(names.stream(stream), Some(names.sub(sub)));
            let request = SubscribeRequest { stream_id: id(stream_id), from, rewind, log_epoch, takeover, on_gap: Some(on_gap), ..new };
            let pending = soon(connections[conn].subscribe(request)).await;
            Box::pin(async move {
                match pending.await {
                    Err(error) => (Err(error), Extra::Nothing),
                    Ok((opened, session)) => {
                        let reader = Reader { handle: session.handle(), session, at: opened.next, opened: opened.clone() };
                        (Ok(attached(&opened)), Extra::Session(Box::new(reader)))
                    }
                }
            })
        }
        Call::Pull { stream, sub, pulling, max } => {
            let request = pull(names, stream, sub, pulling, max);
            begun(async move {
                match broker.pull(&OPERATOR, request).await {
                    Err(error) => (Err(error), Extra::Nothing),
                    Ok(mut found) => {
                        let token = found.ack_token.take();
                        (Ok(pulled(&found, token.is_some())), token.map_or(Extra::Nothing, Extra::Token))
                    }
                }
            })
            .await
        }
        admin => begun(administer(broker, names, operation, admin)).await,
    }
}

/// Calls that change names and bounds.
async fn administer(broker: Broker, names: Names, operation: Option<OperationId>, call: Call) -> (Result<Said>, Extra) {
    let answer = match call {
        Call::Create { stream } => broker.create_stream(&OPERATOR, NewStream::named(names.stream(stream))).await.map(|info| said_of(&info)),
        Call::Trim { stream, before } => broker.trim_stream(&OPERATOR, &names.stream(stream), TrimTo::Offset(before)).await.map(|info| said_of(&info)),
        Call::Close { stream } => broker.close_stream(&OPERATOR, &names.stream(stream)).await.map(|info| said_of(&info)),
        Call::Delete { stream } => match broker.delete_stream(&OPERATOR, &names.stream(stream)).await {
            Ok(begun) => return (Ok(Said::Done), Extra::Operation(begun.id)),
            Err(error) => Err(error),
        },
        Call::FinishDelete { .. } => {
            let ended = broker.wait_operation(&OPERATOR, operation.expect("a deletion was begun"), Duration::from_secs(10)).await;
            ended.map(|end| assert_eq!((end.status_code, end.err.as_str()), (200, ""), "a deletion")).map(|()| Said::Done)
        }
        Call::Seek { stream, sub, to } => broker.seek(&OPERATOR, &names.stream(stream), &names.sub(sub), to).await.map(cursor),
        Call::Subscribe { stream, sub } => {
            let new = NewSubscription {
                name: names.sub(sub),
                start: Start::Earliest,
                // A day: nothing in here shall run out because a machine is busy.
                ack_timeout_s: Some(86_400),
                max_in_flight: Some(crate::law::WINDOW as u64),
                expires_s: None,
                filter: None,
            };
            broker.create_subscription(&OPERATOR, &names.stream(stream), new).await.map(cursor)
        }
        Call::Unsubscribe { stream, sub } => broker.delete_subscription(&OPERATOR, &names.stream(stream), &names.sub(sub)).await.map(|()| Said::Done),
        Call::Forget { stream, id } => broker.delete_producer(&OPERATOR, Some(&names.stream(stream)), &names.producer(id)).await.map(|()| Said::Done),
        other => panic!("{other:?} is made elsewhere"),
    };
    (answer, Extra::Nothing)
}

fn opened(done: ProducerOpened) -> Said {
    let ProducerOpened { epoch, last_seq, next_offset, stream_id, log_epoch, origin, .. } = done;
    assert_eq!(log_epoch, 1, "nothing was lost here");
    Said::Opened { epoch, last_seq, next: next_offset, stream_id: stream_id.map(|id| id.0), created: origin == Origin::Created }
}

fn append(names: Names, stream: usize, stream_id: Option<u64>, batch: &Batch) -> AppendRequest {
    let Batch { producer, events, expected } = batch;
    let producer = producer.map(|(id, epoch, seq)| ProducerStamp { id: names.producer(id), epoch, seq });
    AppendRequest { stream: names.stream(stream), stream_id: id(stream_id), events: bytes_of(events), producer, expected_next_offset: *expected }
}

fn commit(names: Names, plan: &Arc<CommitPlan>) -> CommitRequest {
    let acks = plan.acks.iter().map(|(stream, sub, epoch, offset)| CommitAck {
        stream: names.stream(*stream),
        subscription: names.sub(*sub),
        epoch: *epoch,
        offset: *offset,
    });
    let appends = plan.appends.iter().map(|part| CommitAppend {
        stream: names.stream(part.stream),
        stream_id: id(part.stream_id),
        events: bytes_of(&part.events),
        expected_next_offset: part.expected,
    });
    let checks = plan.checks.iter().map(|(stream, expected)| CommitCheck { stream: names.stream(*stream), expected_next_offset: *expected });
    CommitRequest {
        producer: plan.producer.map(|(id, epoch, seq)| ProducerStamp { id: names.wide(id), epoch, seq }),
        acks: acks.collect(),
        appends: appends.collect(),
        checks: checks.collect(),
    }
}

fn committed(names: Names, done: &Committed) -> Said {
    let acks = done.acks.iter().map(|ack| {
        assert_eq!(ack.offset + 1, ack.next, "{ack:?}");
        (names.number(&ack.stream), names.sub_number(&ack.subscription), ack.next)
    });
    let appends = done.appends.iter().map(|append| {
        assert_eq!(append.first_offset + u64::from(append.count), append.last_offset + 1, "{append:?}");
        (names.number(&append.stream), append.first_offset, u64::from(append.count))
    });
    Said::Committed(CommitSaid { acks: acks.collect(), appends: appends.collect(), duplicate: done.duplicate })
}

fn attached(opened: &Subscribed) -> Said {
    let Subscribed { stream_id, epoch, next, first_offset, next_offset, .. } = opened;
    Said::Attached { epoch: epoch.expect("a durable session"), next: *next, first: *first_offset, end: *next_offset, stream_id: stream_id.0 }
}

fn pull(names: Names, stream: usize, sub: u8, pulling: Pulling, max: u64) -> PullRequest {
    let plain = PullRequest { max_events: max, stream: names.stream(stream), subscription: names.sub(sub), ..pulling_at_all() };
    match pulling {
        Pulling::Open(Ask { from, reject, on_gap, log_epoch, .. }) => {
            let takeover = if reject { Takeover::Reject } else { Takeover::Steal };
            PullRequest { from, takeover, on_gap: Some(on_gap), log_epoch, ..plain }
        }
        Pulling::Continue { epoch, from, on_gap } => PullRequest { epoch: Some(epoch), from: from.map(Start::Offset), on_gap: Some(on_gap), ..plain },
    }
}

fn pulling_at_all() -> PullRequest {
    crate::support::pulling("a", "x")
}

fn pulled(found: &Pulled, token: bool) -> Said {
    let from = found.slices.first().map_or(found.next, Slice::from);
    let mut at = from;
    let mut events = Vec::new();
    for (offset, text) in found.slices.iter().flat_map(texts_of) {
        assert_eq!(offset, at, "C-17: a pull is one run");
        at += 1;
        events.push(event(&text));
    }
    assert_eq!(at, found.next, "a pull ends where its events end");
    let gap = found.gap.map(|(from, to, _)| (from, to));
    Said::Pulled { epoch: found.epoch, gap, from, events, lag: found.lag.events, stream_id: found.stream_id.0, token }
}

pub fn said_of(info: &StreamInfo) -> Said {
    Said::Stream { id: info.id.0, first: info.first_offset, next: info.next_offset, closed: info.closed, bytes: info.bytes }
}

fn cursor(info: SubscriptionInfo) -> Said {
    Said::Cursor { next: info.next, epoch: info.epoch }
}
