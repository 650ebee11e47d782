//! One run from one seed: a machine in trouble, clients of every kind, and everything they saw.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tidelog::broker::{Broken, NewStream, Principal, ReadFrom, ReadRequest};
use tidelog::types::request::Start;
use tidelog::types::{EventRef, Events, EventsBuilder, Slice, StreamName, SubscriptionName};
use tokio::task::JoinHandle;

use crate::checks::{Extra, verdicts};
use crate::dice::Dice;
use crate::history::{History, Log, Position, Seen, Stored, hash};
use crate::machine::Machine;
use crate::net::Net;
use crate::trace::Trace;
use crate::{appender, commits, exact, monitor, producer, pulls, readers, side};

/// The stream everybody works on.
pub const INPUT: &str = "a";
/// What K-3 makes of it.
pub const OUTPUT: &str = "b";
/// How long, on the clock of the simulation, everybody may take to catch up after the last fault (I-19).
const RESUMED: Duration = Duration::from_secs(60);

/// After so long nothing arrives any more that was sent before.
const LATE: Duration = Duration::from_millis(1500);

/// What all clients share.
pub struct World {
    pub seed: u64,
    pub trace: Arc<Trace>,
    pub net: Arc<Net>,
    pub history: Mutex<History>,
    pub extra: Mutex<Extra>,
    /// The wall clock jumps so far that an idempotency key may be forgotten while no broker runs (S-9).
    pub far: bool,
    writing: AtomicBool,
    reading: AtomicBool,
    /// The end of the input, once nobody writes any more.
    end: AtomicU64,
}

impl World {
    /// Chance of somebody's own.
    pub fn dice(&self, who: &str) -> Dice {
        Dice::of(self.seed, who)
    }

    /// Shall writers go on?
    pub fn writing(&self) -> bool {
        self.writing.load(Ordering::SeqCst)
    }

    /// Has a reader that got this far got everything?
    pub fn done(&self, next: u64) -> bool {
        !self.reading.load(Ordering::SeqCst) && next >= self.end.load(Ordering::SeqCst)
    }

    /// Has the time of trouble ended?
    pub fn ending(&self) -> bool {
        !self.reading.load(Ordering::SeqCst)
    }

    pub fn tick(&self) -> u64 {
        self.trace.tick()
    }

    /// A pause of a few milliseconds.
    pub async fn pause(&self, dice: &mut Dice, from: u64, to: u64) {
        tokio::time::sleep(dice.millis(from, to)).await;
    }

    /// Something that may not be.
    pub fn wrong(&self, what: String) {
        self.extra.lock().wrong.push(what);
    }
}

/// How long a client waits for an answer before it takes the line for dead.
pub fn patience(dice: &mut Dice) -> Duration {
    dice.millis(60, 400)
}

pub fn stream(name: &str) -> StreamName {
    StreamName::parse(name).expect("a name")
}

pub fn subscription(name: &str) -> SubscriptionName {
    SubscriptionName::parse(name).expect("a name")
}

/// Events of these texts; `source`: the offset of the first, for images.
pub fn events<'a>(texts: impl IntoIterator<Item = (&'a str, Option<u64>)>) -> Events {
    let mut builder = EventsBuilder::default();
    for (text, source) in texts {
        let source = source.map(|source| source.to_string());
        let headers = source.iter().map(|source| ("source-offset", source.as_str())).collect();
        builder.push(&EventRef { data: text.as_bytes(), headers, encoding: tidelog::types::Encoding::Utf8, ..EventRef::default() }).expect("a small event");
    }
    builder.finish().expect("a small batch")
}

/// Offset, text and source of each event.
pub fn texts(slices: &[Slice]) -> impl Iterator<Item = Stored> + '_ {
    slices.iter().flat_map(Slice::events).map(|(offset, event)| Stored {
        offset,
        data: String::from_utf8_lossy(event.data).into_owned(),
        source: event.headers.iter().find(|(name, _)| *name == "source-offset").and_then(|(_, value)| value.parse().ok()),
    })
}

/// The sight of an event.
pub fn seen(reader: &'static str, stream_id: u64, log_epoch: u64, event: &Stored) -> Seen {
    Seen { reader, stream_id, log_epoch, offset: event.offset, hash: hash(event.data.as_bytes()) }
}

/// How a run ended.
#[derive(Debug)]
pub struct Outcome {
    /// Of everything that happened.
    pub hash: u64,
    pub events: u64,
    pub deaths: u32,
    /// What is wrong.
    pub wrong: Vec<String>,
}

/// Runs a seed.
pub fn run(seed: u64, broken: Broken, loud: bool) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
    let outcome = runtime.block_on(simulate(seed, broken, loud));
    runtime.shutdown_background();
    outcome
}

async fn simulate(seed: u64, broken: Broken, loud: bool) -> Outcome {
    let trace = Arc::new(Trace::new(loud));
    let net = Arc::new(Net::new(trace.clone(), Dice::of(seed, "net")));
    let world = Arc::new(World {
        seed,
        trace: trace.clone(),
        net: net.clone(),
        history: Mutex::default(),
        extra: Mutex::default(),
        far: Dice::of(seed, "far").one_in(4),
        writing: true.into(),
        reading: true.into(),
        end: AtomicU64::new(u64::MAX),
    });
    let mut machine = Machine::new(Dice::of(seed, "machine"), trace.clone(), net.clone(), broken, world.far);
    machine.boot().await;
    let mut wrong = Vec::new();
    if let Err(why) = live(&world, &mut machine).await {
        wrong.push(why);
    } else {
        match read_back(&world).await {
            Ok(()) => wrong.extend(verdicts(&mut world.history.lock(), &world.extra.lock())),
            Err(why) => wrong.push(why),
        }
    }
    wrong.extend(std::mem::take(&mut world.extra.lock().wrong));
    let events = world.history.lock().input.next;
    Outcome { hash: trace.hash(), events, deaths: machine.deaths, wrong }
}

/// Work and trouble, then work without trouble, then everybody catches up.
async fn live(world: &Arc<World>, machine: &mut Machine) -> Result<(), String> {
    for name in [INPUT, OUTPUT] {
        let new = NewStream::named(stream(name));
        world
            .net
            .call("create", |broker| async move { broker.create_stream(&Principal::Operator, new).await })
            .await
            .ok_or("no answer")?
            .map_err(|e| e.to_string())?;
    }
    let mut dice = world.dice("life");
    let writers = vec![
        tokio::spawn(producer::produce(world.clone(), 0)),
        tokio::spawn(producer::produce(world.clone(), 1)),
        tokio::spawn(appender::append(world.clone(), 0)),
        tokio::spawn(appender::append(world.clone(), 1)),
        tokio::spawn(side::work(world.clone())),
    ];
    let readers = vec![
        tokio::spawn(readers::attach(world.clone(), readers::DURABLE)),
        tokio::spawn(readers::attach(world.clone(), readers::LOOSE)),
        tokio::spawn(readers::follow(world.clone())),
        tokio::spawn(exact::consume(world.clone(), exact::EXACT)),
        tokio::spawn(exact::consume(world.clone(), exact::PLAIN)),
        tokio::spawn(commits::consume(world.clone())),
        tokio::spawn(pulls::pull(world.clone())),
    ];
    let monitor = tokio::spawn(monitor::watch(world.clone()));
    world.net.rough(true);
    for _ in 0..dice.between(2, 5) {
        machine.pass(dice.millis(5, 80)).await;
        machine.trouble().await;
    }
    machine.pass(dice.millis(5, 80)).await;
    machine.calm().await;
    world.trace.say(format_args!("world: no trouble from here on"));
    machine.pass(dice.millis(20, 60)).await;
    world.writing.store(false, Ordering::SeqCst);
    all(machine, writers, "writers").await?;
    // Former selves of writers, and what is still on its way on lines that nobody holds.
    machine.pass(LATE).await;
    let name = stream(INPUT);
    let end =
        world.net.call("end", |broker| async move { broker.stream(&Principal::Operator, &name).await }).await.ok_or("no answer")?.map_err(|e| e.to_string())?;
    world.end.store(end.next_offset, Ordering::SeqCst);
    world.reading.store(false, Ordering::SeqCst);
    all(machine, readers, "readers").await?;
    all(machine, vec![monitor], "monitor").await?;
    machine.restart("once more from the disk").await;
    Ok(())
}

async fn all(machine: &mut Machine, tasks: Vec<JoinHandle<()>>, who: &str) -> Result<(), String> {
    let everybody = async {
        for task in tasks {
            if let Err(error) = task.await {
                let why = error.try_into_panic().map_or("it was cancelled".to_owned(), |panic| {
                    panic.downcast_ref::<String>().cloned().or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_default()
                });
                return Err(format!("one of the {who} panicked: {why}"));
            }
        }
        Ok(())
    };
    tokio::select! {
        biased;
        ended = tokio::time::timeout(RESUMED, everybody) => ended.map_err(|_| format!("the {who} do not come to an end within {RESUMED:?} (I-19)"))?,
        () = machine.pass(2 * RESUMED) => Err("time stands still".into()),
    }
}

/// Everything, from a broker that has just started.
async fn read_back(world: &Arc<World>) -> Result<(), String> {
    let input = read(world, INPUT).await?;
    let output = read(world, OUTPUT).await?;
    let mut cursors = Vec::new();
    for name in [readers::DURABLE.name, readers::LOOSE.name, exact::EXACT.name, "k3", "pull"] {
        cursors.push(position(world, name).await.ok_or("no answer about a cursor")?);
    }
    side::read_back(world).await?;
    let mut history = world.history.lock();
    (history.input, history.output, history.cursors) = (input, output, cursors);
    Ok(())
}

/// Where a cursor is.
pub async fn position(world: &Arc<World>, name: &str) -> Option<Position> {
    let (of, who) = (stream(INPUT), subscription(name));
    let found = world.net.call(name, |broker| async move { broker.subscription(&Principal::Operator, &of, &who).await }).await?.ok()?;
    Some(Position { subscription: name.to_owned(), next: found.next, epoch: found.epoch })
}

/// A whole stream.
pub async fn read(world: &Arc<World>, name: &str) -> Result<Log, String> {
    let of = stream(name);
    let info =
        world.net.call("read", |broker| async move { broker.stream(&Principal::Operator, &of).await }).await.ok_or("no answer")?.map_err(|e| e.to_string())?;
    let mut log = Log { id: info.id.0, log_epoch: info.log_epoch, first: info.first_offset, next: info.next_offset, events: Vec::new() };
    let mut from = log.first;
    while from < log.next {
        let of = stream(name);
        let request = ReadRequest { from: ReadFrom::At(Start::Offset(from)), limit: 10_000, wait: Duration::ZERO };
        let page = world.net.call("page", |broker| async move { broker.read(&Principal::Operator, &of, request).await }).await.ok_or("no answer")?;
        let page = page.map_err(|e| format!("{name} cannot be read from {from}: {e}"))?;
        log.events.extend(texts(&page.slices));
        from = page.slices.last().map_or(u64::MAX, Slice::to);
    }
    Ok(log)
}
