//! Who reads: seats at durable sessions, whose every delivery the law foretells, and spies, who see what they should not.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;

use crate::law::{Batch, Call, Event, Law, STREAMS, WINDOW, event};
use crate::support::*;
use crate::world::World;

/// A durable session; after a crash its epoch is all that is left of it.
pub struct Seat {
    pub stream: usize,
    pub stream_id: u64,
    pub sub: u8,
    /// Of the subscription.
    generation: u64,
    pub epoch: u64,
    /// Where it stands, also after its reader is gone.
    pub at: u64,
    /// Offsets of the events it was given.
    sent: Vec<u64>,
    on_gap: OnGap,
    pub reader: Option<Reader>,
    pub handle: Option<SessionHandle>,
}

/// A run that a pull handed out.
pub struct Token {
    pub stream: usize,
    pub sub: u8,
    pub token: String,
    pub epoch: u64,
    pub from: u64,
    pub to: u64,
}

/// An ephemeral reader of one stream, and what it has seen so far.
pub struct Spy {
    stream_id: u64,
    reader: Reader,
    seen: Vec<(u64, Event)>,
}

/// How often something that should not come is given a chance to come.
const LOOKS: usize = 16;

/// The future's value if it comes within some turns of everybody else.
async fn glance<F: Future>(future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    for _ in 0..LOOKS {
        if let Poll::Ready(value) = poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await {
            return Some(value);
        }
        tokio::task::yield_now().await;
    }
    None
}

impl Seat {
    pub fn new(stream: usize, sub: u8, generation: u64, on_gap: OnGap, reader: Reader) -> Self {
        let (stream_id, epoch, at) = (reader.opened.stream_id.0, reader.epoch(), reader.at);
        Self { stream, stream_id, sub, generation, epoch, at, sent: Vec::new(), on_gap, handle: Some(reader.handle.clone()), reader: Some(reader) }
    }

    /// Its subscription is still the one it was opened on.
    fn is_there(&self, law: &Law) -> bool {
        let stream = law.streams[self.stream].as_ref().filter(|stream| stream.id == self.stream_id);
        stream.and_then(|stream| stream.cursors.get(&self.sub)).is_some_and(|cursor| cursor.generation == self.generation)
    }
}

impl Spy {
    fn saw(&mut self, delivery: &Delivery) {
        if let Delivery::Events { slices, .. } = delivery {
            self.seen.extend(slices.iter().flat_map(texts_of).map(|(offset, text)| (offset, event(&text))));
        }
    }

    /// All it saw is what the law has there (I-4, I-7).
    fn believes(&self, law: &Law) -> bool {
        // What became of a deleted stream nobody can say.
        let Some(stream) = law.streams.iter().flatten().find(|stream| stream.id == self.stream_id) else { return true };
        self.seen.iter().all(|(offset, event)| stream.events.get(*offset as usize) == Some(event))
    }
}

impl World {
    /// Everything one of the newest seats may be given, and no more.
    pub async fn take(&mut self, back: usize) {
        self.settle().await;
        let ([law], Some(index)) = (self.laws.as_slice(), self.seats.len().checked_sub(back + 1)) else { return };
        let mut law = law.clone();
        let seat = &mut self.seats[index];
        let Some(mut reader) = seat.reader.take() else { return };
        if !seat.is_there(&law) {
            let error = reader.end().await;
            assert!(matches!(error.code, Code::NotFound | Code::SessionFenced), "{error:?}");
            return;
        }
        let stream = law.streams[seat.stream].as_mut().expect("it is there");
        let (first, end) = (stream.first, stream.end());
        let cursor = stream.cursors.get_mut(&seat.sub).expect("it is there");
        if seat.epoch < cursor.epoch {
            let error = reader.end().await;
            assert_eq!(error.code, Code::SessionFenced, "{error:?}");
            return;
        }
        if reader.at < first && seat.on_gap == OnGap::Fail {
            let error = reader.end().await;
            assert_eq!((error.code, detail(&error, "first_offset")), (Code::CursorTrimmed, first), "{error:?}");
            // The reader is gone, and with it its hold on the session.
            cursor.attached = false;
            self.laws = vec![law];
            return;
        }
        // The window counts what was delivered and not acknowledged; a gap is not an event.
        let mut texts = Vec::new();
        while reader.at < end && (reader.at < first || seat.sent.iter().filter(|offset| **offset >= cursor.next).count() < WINDOW) {
            let at = reader.at;
            match reader.next().await {
                Ok(Delivery::Events { slices, lag }) => {
                    texts.extend(slices.iter().flat_map(texts_of));
                    seat.sent.extend(at..reader.at);
                    assert_eq!(lag.events, end - reader.at, "lag");
                }
                Ok(Delivery::Gap { from, to, .. }) => assert_eq!((from, to), (at, first - 1), "C-6: a gap"),
                Ok(Delivery::Live { .. }) => {}
                Ok(Delivery::Progress { next }) => panic!("there is no filter, and progress to {next}"),
                // Acks that waited for a timer met the fault: the world settles next.
                Err(_) if self.live.as_ref().is_some_and(|live| live.gate.has_failed()) => return,
                Err(error) => panic!("a delivery of {at} was due: {error:?}"),
            }
        }
        for (offset, text) in texts {
            assert_eq!(stream.events[offset as usize], event(&text), "I-4 at {offset}");
        }
        seat.at = reader.at;
        cursor.delivered = cursor.delivered.max(Some(reader.at));
        seat.reader = Some(reader);
        self.ahead = law.clone();
        self.laws = vec![law];
    }

    /// The reader goes away; what it was given stays known.
    pub async fn detach(&mut self, back: usize) {
        self.settle().await;
        let Some(index) = self.seats.len().checked_sub(back + 1) else { return };
        let seat = &mut self.seats[index];
        if seat.reader.take().is_none() {
            return;
        }
        let (stream, sub, epoch, generation) = (seat.stream, seat.sub, seat.epoch, seat.generation);
        self.amend(|law| {
            let cursor = law.streams[stream].as_mut().and_then(|stream| stream.cursors.get_mut(&sub));
            if let Some(cursor) = cursor.filter(|cursor| (cursor.epoch, cursor.generation) == (epoch, generation)) {
                cursor.attached = false;
            }
        });
    }

    /// From now on somebody without a subscription sees what can be seen of the stream.
    pub async fn watch(&mut self, stream: usize) {
        let name = self.names.stream(stream);
        let live = self.live();
        let request = SubscribeRequest { from: Some(Start::Latest), ..SubscribeRequest::new(name, None) };
        let opened = soon(live.broker.open_session(&OPERATOR, request)).await;
        live.spies[stream] = opened.ok().map(|(opened, session)| {
            let reader = Reader { handle: session.handle(), session, at: opened.next, opened: opened.clone() };
            Spy { stream_id: opened.stream_id.0, reader, seen: Vec::new() }
        });
    }

    /// What the spies have seen by now must be in the log. At the `end` of a process they take what they can get.
    pub async fn overhear(&mut self, end: bool) {
        let live = self.live.as_mut().expect("a broker");
        for spy in live.spies.iter_mut().flatten() {
            while end || spy.reader.at < live.gate.durable_end(spy.stream_id) {
                let next = if end { glance(spy.reader.next()).await } else { Some(spy.reader.next().await) };
                match next {
                    Some(Ok(delivery)) => spy.saw(&delivery),
                    Some(Err(_)) | None => break,
                }
            }
        }
        let spies = &live.spies;
        let mut laws = std::mem::take(&mut self.laws);
        laws.retain(|law| spies.iter().flatten().all(|spy| spy.believes(law)));
        assert!(!laws.is_empty(), "I-7: events were seen that are not there");
        self.laws = laws;
    }

    /// A commit is held before the engine has it; nothing of it may be seen meanwhile, by anybody (S-2).
    pub async fn peek(&mut self, stream: usize) {
        let names = self.names;
        // Something to be held, whatever else is in flight.
        let Some(id) = self.ahead.streams[stream].as_ref().filter(|stream| !stream.closed).map(|stream| stream.id) else { return };
        let batch = Batch { producer: None, events: self.fresh(1), expected: None };
        self.make_room().await;
        self.live().gate.hold();
        self.send(Call::Append { via: None, stream, stream_id: Some(id), batch }, false).await;
        let live = self.live.as_mut().expect("a broker");
        live.gate.arrived().await;
        crate::tally::note("held commit looked at");
        for spy in live.spies.iter_mut().flatten() {
            while let Some(delivery) = glance(spy.reader.next()).await {
                if live.gate.has_failed() {
                    break;
                }
                spy.saw(&delivery.expect("S-2: what a reader is told of can be read"));
                let durable = live.gate.durable_end(spy.stream_id);
                assert!(spy.reader.at <= durable, "S-2: offsets before {} were handed out, durable is {durable}", spy.reader.at);
            }
        }
        for number in 0..STREAMS {
            let Ok(info) = soon(live.broker.stream(&OPERATOR, &names.stream(number))).await else { continue };
            let durable = live.gate.durable_end(info.id.0);
            assert!(live.gate.has_failed() || info.next_offset <= durable, "S-2: a stream ends before {}, durable is {durable}", info.next_offset);
        }
        self.settle().await;
    }
}
