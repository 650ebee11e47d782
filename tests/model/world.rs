//! Broker and law side by side: calls go to both, answers and everything that can be seen are compared, and the process dies now and then.

use std::sync::Arc;

use crate::calls::{Answer, Extra, Names, make};
use crate::gate::{Fate, Gate};
use crate::law::{CONNECTIONS, Call, Event, Law, Poison, STREAMS, Said};
use crate::order::{Done, Outcome, explain};
use crate::readers::{Seat, Spy, Token};
use crate::sight::Sight;
use crate::store::Store;
use crate::support::*;
use crate::tally;

/// One process of the broker, with its clients' connections.
pub struct Live {
    pub gate: Arc<Gate>,
    pub broker: Broker,
    pub connections: Vec<Connection>,
    pub spies: Vec<Option<Spy>>,
}

/// A call whose answer is to come; none will where it was lost.
struct Flying {
    call: Call,
    answer: Option<Answer>,
}

/// See the module.
pub struct World {
    settings: Settings,
    pub names: Names,
    store: Store,
    pub live: Option<Live>,
    /// Each is a past that fits all that was heard and seen; almost always one.
    pub laws: Vec<Law>,
    /// The law if everything in flight is done in the order it was sent: what clients count on.
    pub ahead: Law,
    flying: Vec<Flying>,
    pub seats: Vec<Seat>,
    pub tokens: Vec<Token>,
    operation: Option<OperationId>,
    /// The fault by which this process ends.
    failing: Option<Fate>,
    /// The last call whose outcome was unknown, to be sent again.
    pub unknown: Option<Call>,
    pub events: u32,
    trace: bool,
}

/// Calls in flight at one time, but for a burst.
const WINDOW: usize = 8;

impl World {
    /// A new world on a store that served others before.
    pub async fn new(mut store: Store, settings: Settings) -> Self {
        store.served += 1;
        let names = Names(store.served);
        let law = Law::new(store.counters);
        let mut world = Self {
            settings,
            names,
            store,
            live: None,
            laws: vec![law.clone()],
            ahead: law,
            flying: Vec::new(),
            seats: Vec::new(),
            tokens: Vec::new(),
            operation: None,
            failing: None,
            unknown: None,
            events: 0,
            trace: std::env::var_os("TRACE").is_some(),
        };
        world.open().await;
        for stream in 0..STREAMS {
            world.create(stream).await;
        }
        // Most histories have use for these.
        world.alone(Call::Open { via: None, stream: None, id: 0, expect: Expect::Any }).await;
        for stream in 0..2 {
            world.alone(Call::Open { via: None, stream: Some(stream), id: 0, expect: Expect::Any }).await;
        }
        world
    }

    /// Ends it, and gives the store back.
    pub async fn end(mut self) -> Store {
        self.settle().await;
        self.look(false).await;
        self.drop_readers().await;
        let Live { broker, .. } = self.live.take().expect("a broker");
        broker.abandon().await;
        self.store.counters = self.laws[0].counters;
        self.store
    }

    pub fn live(&mut self) -> &mut Live {
        self.live.as_mut().expect("a broker runs between two crashes")
    }

    /// Events nobody sent before.
    pub fn fresh(&mut self, count: usize) -> Arc<[Event]> {
        self.events += count as u32;
        (self.events - count as u32..self.events).collect()
    }

    async fn open(&mut self) {
        let gate = Gate::over(self.store.open().await);
        let broker = soon(Broker::open(gate.clone(), self.settings.clone())).await.expect("the broker opens");
        let connections = (0..CONNECTIONS).map(|_| broker.connect(OPERATOR)).collect();
        self.live = Some(Live { gate, broker, connections, spies: (0..STREAMS).map(|_| None).collect() });
    }

    /// A stream with its two subscriptions, and somebody who watches it.
    pub async fn create(&mut self, stream: usize) {
        self.alone(Call::Create { stream }).await;
        for sub in 0..2 {
            self.alone(Call::Subscribe { stream, sub }).await;
        }
        self.watch(stream).await;
    }

    pub async fn delete(&mut self, stream: usize) {
        self.settle().await;
        self.live().gate.disarm();
        self.alone(Call::Delete { stream }).await;
        if self.laws[0].streams[stream].as_ref().is_some_and(|stream| stream.gone) {
            self.alone(Call::FinishDelete { stream }).await;
            self.live().spies[stream] = None;
        }
    }

    /// Makes a call; its answer is looked at when the world settles.
    pub async fn call(&mut self, call: Call) {
        self.make_room().await;
        self.send(call, false).await;
    }

    /// At least one more call may fly.
    pub async fn make_room(&mut self) {
        if self.flying.len() >= WINDOW {
            self.settle().await;
        }
    }

    /// The answer is lost, so the caller sends it again.
    pub async fn call_twice(&mut self, call: Call) {
        if self.flying.len() + 1 >= WINDOW {
            self.settle().await;
        }
        self.send(call.clone(), true).await;
        // The same rows are needed again: its answer comes after the first one was decided.
        self.send(call, false).await;
    }

    /// Past the window: calls of one lane, of which there may be many.
    pub async fn burst(&mut self, calls: Vec<Call>) {
        self.settle().await;
        for call in calls {
            self.send(call, false).await;
        }
        self.settle().await;
    }

    /// A call with nothing beside it.
    pub async fn alone(&mut self, call: Call) {
        self.settle().await;
        self.send(call, false).await;
        self.settle().await;
    }

    pub async fn send(&mut self, call: Call, lost: bool) {
        if self.trace {
            eprintln!("→ {call:?}{}", if lost { " (answer lost)" } else { "" });
        }
        let _ = self.ahead.apply(&call);
        let handle = match &call {
            Call::Ack { via: Some((_, seat)), .. } => self.seats[*seat].handle.clone(),
            _ => None,
        };
        let (names, operation) = (self.names, self.operation);
        let Live { broker, connections, .. } = self.live();
        let answer = make(broker, connections, names, handle, operation, &call).await;
        self.flying.push(Flying { call, answer: (!lost).then_some(answer) });
    }

    /// Waits for every answer and asks the law about them; after a failure the process is started anew.
    pub async fn settle(&mut self) {
        self.live().gate.release();
        let mut window: Vec<Done> = Vec::new();
        let mut extras = Vec::new();
        for Flying { call, answer } in std::mem::take(&mut self.flying) {
            let outcome = match answer {
                None => Outcome::Lost,
                Some(answer) => {
                    let (answer, extra) = soon(answer).await;
                    if self.trace {
                        eprintln!("← {answer:?} to {call:?}");
                    }
                    if let Ok(said) = &answer {
                        extras.push((call.clone(), said.clone(), extra));
                    }
                    Outcome::of(answer)
                }
            };
            tally::note_outcome(&outcome);
            window.push((call, outcome));
        }
        let mut fates = self.live().gate.take_met();
        fates.extend(self.failing);
        self.failing = fates.iter().copied().find(|fate| *fate != Fate::Refuse);
        if !window.is_empty() {
            let mut laws = explain(&self.laws, &window, &fates);
            assert!(!laws.is_empty(), "{}", contradiction(&self.laws, &window, &fates));
            laws.iter_mut().for_each(Law::settle);
            self.laws = laws;
            self.unknown = window.iter().rev().find(|(_, outcome)| matches!(outcome, Outcome::Unknown)).map(|(call, _)| call.clone()).or(self.unknown.take());
        }
        for (call, said, extra) in extras {
            self.keep(&call, &said, extra);
        }
        if self.live().gate.has_failed() {
            self.reopen(false).await;
        } else if self.laws.len() > 1 {
            tally::note("several pasts");
            self.look(false).await;
        }
        self.ahead = self.laws[0].clone();
    }

    /// What came with an answer.
    fn keep(&mut self, call: &Call, said: &Said, extra: Extra) {
        match (call, said, extra) {
            (Call::Attach { stream, sub, ask, .. }, _, Extra::Session(reader)) => {
                let generation = self.laws[0].streams[*stream].as_ref().and_then(|s| s.cursors.get(sub)).map_or(0, |cursor| cursor.generation);
                self.seats.push(Seat::new(*stream, *sub, generation, ask.on_gap, *reader));
            }
            (Call::Pull { stream, sub, .. }, Said::Pulled { epoch, gap, from, events, .. }, Extra::Token(token)) => {
                let (begin, to) = (gap.map_or(*from, |gap| gap.0), from + events.len() as u64);
                self.tokens.push(Token { stream: *stream, sub: *sub, token, epoch: *epoch, from: begin, to });
            }
            (Call::Delete { .. }, _, Extra::Operation(id)) => self.operation = Some(id),
            _ => {}
        }
    }

    /// The process ends, in order or at once; a new one finds what is on the disk.
    pub async fn reopen(&mut self, clean: bool) {
        assert!(self.flying.is_empty(), "the world is settled first");
        tally::note(if clean { "clean restart" } else { "crash" });
        self.overhear(true).await;
        self.drop_readers().await;
        let Live { gate, broker, connections, spies } = self.live.take().expect("a broker");
        drop((connections, spies));
        if clean {
            soon(broker.drain()).await;
            soon(broker.close()).await.expect("a clean stop");
            self.laws.iter_mut().for_each(Law::flushed);
        } else {
            gate.kill();
            gate.release();
            soon(broker.abandon()).await;
        }
        drop((gate, broker));
        self.failing = None;
        self.laws.iter_mut().for_each(Law::crash);
        self.open().await;
        self.look(true).await;
        for stream in 0..STREAMS {
            self.watch(stream).await;
        }
        self.ahead = self.laws[0].clone();
    }

    async fn drop_readers(&mut self) {
        for seat in &mut self.seats {
            (seat.reader, seat.handle) = (None, None);
        }
    }

    /// Everything there is must be what one of the laws says. After a crash acks of level `received` may be gone.
    pub async fn look(&mut self, lost: bool) {
        if !lost {
            self.overhear(false).await;
        }
        let names = self.names;
        let live = self.live();
        let sight = match soon(Sight::of(&live.broker, names)).await {
            Ok(sight) => sight,
            // Acks that waited for a timer met the fault: the world settles next.
            Err(_) if live.gate.has_failed() => return,
            Err(error) => panic!("the broker cannot be looked at: {error:?}"),
        };
        let mut why = Vec::new();
        let mut laws: Vec<Law> = Vec::new();
        for mut law in std::mem::take(&mut self.laws) {
            match sight.fits(&mut law, lost) {
                Ok(()) if laws.contains(&law) => {}
                Ok(()) => laws.push(law),
                Err(reason) => why.push(reason),
            }
        }
        assert!(!laws.is_empty(), "what is there is not what was promised: {}", why.join("; or: "));
        self.laws = laws;
        if lost {
            for state in self.laws[0].streams.clone().iter().flatten() {
                self.live().gate.knows(state.id, state.end());
            }
        }
    }

    /// Changes what every possible past agrees on.
    pub fn amend(&mut self, mut change: impl FnMut(&mut Law)) {
        self.laws.iter_mut().for_each(&mut change);
        change(&mut self.ahead);
    }

    pub async fn reconnect(&mut self, conn: usize) {
        self.settle().await;
        let connection = self.live().broker.connect(OPERATOR);
        self.live().connections[conn] = connection;
        self.amend(|law| law.poison[conn] = Poison::default());
    }
}

/// Says what was heard, and what the law had said in the order of sending.
fn contradiction(laws: &[Law], window: &[Done], fates: &[Fate]) -> String {
    let mut law = laws[0].clone();
    let lines = window.iter().map(|(call, outcome)| {
        let verdict = law.apply(call);
        format!("\n  {call:?}\n    heard: {outcome:?}\n    law:   {verdict:?}")
    });
    let lines: String = lines.collect();
    format!("no order of these calls is lawful (faults: {fates:?}, {} pasts):{lines}", laws.len())
}
