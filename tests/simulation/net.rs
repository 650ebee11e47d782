//! The network: connections that carry the real frames to the broker's own conversation, and calls to the broker as the unary carriers
//! make them. Either may be late, cut or lost, in both directions.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tidelog::broker::{Broker, Principal};
use tidelog::edge::conversation::{Conversation, Heard, Transport};
use tidelog::types::{Error, Result};
use tidelog::wire::frame::{ClientFrame, FrameError, ServerFrame};
use tidelog::wire::{code, json, proto};

use crate::dice::Dice;
use crate::lane::{Alarm, Lane};
use crate::power::Power;
use crate::trace::Trace;

/// Both directions of a connection.
struct Cable {
    number: u64,
    json: bool,
    up: Lane,
    down: Lane,
}

/// The broker's address: whoever runs there now.
#[derive(Clone)]
struct Door {
    broker: Broker,
    power: Arc<Power>,
}

/// See the module.
pub struct Net {
    trace: Arc<Trace>,
    dice: Mutex<Dice>,
    door: Mutex<Option<Door>>,
    cables: Mutex<Vec<Weak<Cable>>>,
    numbers: AtomicU64,
    /// Lines are cut and calls lost now and then.
    rough: std::sync::atomic::AtomicBool,
}

impl Net {
    pub fn new(trace: Arc<Trace>, dice: Dice) -> Self {
        let (door, cables, numbers) = (Mutex::default(), Mutex::default(), AtomicU64::new(0));
        Self { trace, dice: Mutex::new(dice), door, cables, numbers, rough: false.into() }
    }

    /// A broker runs here from now on.
    pub fn serve(&self, broker: Broker, power: Arc<Power>) {
        *self.door.lock() = Some(Door { broker, power });
    }

    /// Faults, or none.
    pub fn rough(&self, rough: bool) {
        self.rough.store(rough, Ordering::SeqCst);
    }

    fn is_rough(&self) -> bool {
        self.rough.load(Ordering::SeqCst)
    }

    fn delay(&self) -> Duration {
        let mut dice = self.dice.lock();
        let late = self.is_rough() && dice.one_in(60);
        Duration::from_millis(if late { dice.between(10, 400) } else { dice.below(3) })
    }

    fn chance(&self, one_in: u64) -> bool {
        self.dice.lock().one_in(one_in)
    }

    /// The process died: nobody answers, and lines end.
    pub fn die(&self) {
        *self.door.lock() = None;
        self.cut(1);
    }

    /// Cuts one in `one_in` of all lines.
    pub fn cut(&self, one_in: u64) {
        let mut cables = self.cables.lock();
        cables.retain(|cable| cable.strong_count() > 0);
        for cable in cables.iter().filter_map(Weak::upgrade) {
            if self.chance(one_in) {
                self.trace.say(format_args!("net: line {} is cut", cable.number));
                let (up, down) = { (self.delay(), self.delay()) };
                cable.up.cut(up);
                cable.down.cut(down);
            }
        }
    }

    /// A connection; `None` when nobody answers.
    pub async fn connect(self: &Arc<Self>, who: &str) -> Option<Line> {
        tokio::time::sleep(self.delay()).await;
        let door = self.door.lock().clone().filter(|door| door.power.is_on())?;
        let (number, json) = (self.numbers.fetch_add(1, Ordering::SeqCst), self.chance(2));
        self.trace.say(format_args!("net: line {number} is {who}'s"));
        let cable = Arc::new(Cable { number, json, up: Lane::default(), down: Lane::default() });
        self.cables.lock().push(Arc::downgrade(&cable));
        let carrier = Carrier { net: self.clone(), cable: cable.clone(), power: door.power.clone(), alarm: Alarm::default() };
        let task = tokio::spawn(async move {
            let mut broker = door.broker.connect(Principal::Operator);
            let mut talk = Conversation::new(carrier, format!("{number}").into());
            talk.greet();
            talk.run(&mut broker).await;
            drop(broker);
            talk.into_transport().cable.down.finish();
        });
        self.door.lock().as_ref()?.power.own(task.abort_handle());
        Some(Line { net: self.clone(), cable, alarm: Alarm::default() })
    }

    /// A call without a connection. `None`: no answer came, whatever happened.
    pub async fn call<T, F>(self: &Arc<Self>, what: &str, make: impl FnOnce(Broker) -> F) -> Option<Result<T>>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        tokio::time::sleep(self.delay()).await;
        let door = self.door.lock().clone().filter(|door| door.power.is_on())?;
        if self.is_rough() && self.chance(40) {
            tokio::time::sleep(Duration::from_millis(50)).await;
            return None;
        }
        let task = tokio::spawn(make(door.broker));
        let abort = task.abort_handle();
        door.power.own(abort.clone());
        let patience = Duration::from_millis(if self.is_rough() { 400 } else { 20_000 });
        let Ok(Ok(answer)) = tokio::time::timeout(patience, task).await else {
            // The caller goes: the call may end with it, or go on.
            if self.chance(2) {
                abort.abort();
            }
            return None;
        };
        let (lost, back) = (self.is_rough() && self.chance(30), self.delay());
        tokio::time::sleep(back).await;
        self.trace
            .say(format_args!("net: {what}: {}", if lost { "lost".into() } else { answer.as_ref().err().map_or("done".to_owned(), ToString::to_string) }));
        (!lost).then_some(answer)
    }
}

/// The broker's end: a [`Transport`] of the simulation.
struct Carrier {
    net: Arc<Net>,
    cable: Arc<Cable>,
    power: Arc<Power>,
    alarm: Alarm,
}

impl Transport for Carrier {
    type Message = Bytes;
    type End = ();

    fn poll(&mut self, cx: &mut Context<'_>, reading: bool) -> Poll<Heard<Bytes, ()>> {
        if !reading {
            return Poll::Pending;
        }
        self.cable.up.poll(cx, &mut self.alarm).map(|message| match message {
            Some(message) if self.power.step() => Heard::Message(message),
            _ => Heard::End(()),
        })
    }

    fn waiting(&self) -> usize {
        0
    }

    fn send(&mut self, frame: &ServerFrame) {
        let bytes = if self.cable.json { json::encode_server(frame).into() } else { proto::encode_server(frame) };
        if !self.power.step() {
            return;
        }
        self.net.trace.frame("<", self.cable.number, &bytes, || format!("{frame:?}"));
        self.cable.down.push(bytes, self.net.delay());
    }

    fn decode(&self, message: &Bytes) -> Result<Result<ClientFrame, FrameError>, ()> {
        Ok(if self.cable.json { json::decode_client(message) } else { proto::decode_client(message) })
    }

    fn count_ping(&mut self) -> Option<()> {
        None
    }

    fn farewell(&self, _: bool) {}

    fn after_error(&self, error: &Error, _: &str) -> Option<()> {
        code::of(error).websocket.close(false).map(|_| ())
    }
}

/// A client's end.
pub struct Line {
    net: Arc<Net>,
    cable: Arc<Cable>,
    alarm: Alarm,
}

impl Line {
    /// Says something.
    pub fn say(&self, frame: &ClientFrame) {
        let bytes: Bytes = if self.cable.json { json::encode_client(frame).into() } else { proto::encode_client(frame) };
        self.net.trace.frame(">", self.cable.number, &bytes, || format!("{frame:?}"));
        self.cable.up.push(bytes, self.net.delay());
    }

    /// What comes next; `None` when the line is dead.
    pub async fn hear(&mut self) -> Option<ServerFrame> {
        loop {
            let bytes = std::future::poll_fn(|cx| self.cable.down.poll(cx, &mut self.alarm)).await?;
            let frame = if self.cable.json { json::decode_server(&bytes) } else { proto::decode_server(&bytes) };
            match frame.unwrap_or_else(|e| panic!("the broker sent no frame: {e}")) {
                Some(ServerFrame::Hello(_)) | None => {}
                Some(frame) => return Some(frame),
            }
        }
    }

    /// The same, if it comes in time.
    pub async fn hear_within(&mut self, patience: Duration) -> Option<ServerFrame> {
        tokio::time::timeout(patience, self.hear()).await.ok()?
    }
}

impl Drop for Line {
    /// The client is gone. What it said may still arrive, for a while.
    fn drop(&mut self) {
        let grace = self.net.delay();
        if self.net.chance(2) {
            self.cable.up.finish()
        } else {
            self.cable.up.cut(grace)
        }
        self.cable.down.cut(Duration::ZERO);
    }
}
