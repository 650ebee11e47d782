//! The test itself: load, fifty kills in an order from the seed, a clean end, and everything read back.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http::Method;
use rustix::process::Signal;
use serde_json::{Map, Value};
use tidelog::client::{Client, Protocol, SubscriptionObject};

use crate::check;
use crate::dice::{self, Dice};
use crate::history::{History, Image, Position, Sample, Seen, hash};
use crate::load::{self, CLOSED, INPUT};
use crate::process::{self, Broker, PATIENCE, Process};
use crate::readback;
use crate::session::Reader;

/// What K-3 writes.
const OUTPUT: &str = "b";
/// How soon after the last kill everybody must be at work again (I-19).
const RESUMED: Duration = Duration::from_secs(30);
/// Who is killed how often; fifty in all.
const KILLS: [(Role, usize); 7] =
    [(Role::Broker, 20), (Role::Producers(0), 5), (Role::Producers(1), 4), (Role::Exact(0), 4), (Role::Exact(1), 4), (Role::Commit, 7), (Role::Plain, 6)];
/// Who is frozen, replaced, and thawed beside its successor.
const FREEZES: [Role; 3] = [Role::Exact(0), Role::Exact(1), Role::Commit];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Broker,
    /// Idempotent producers, several per process.
    Producers(usize),
    /// K-1 into SQLite.
    Exact(usize),
    /// K-3 into the output stream.
    Commit,
    /// No recipe.
    Plain,
}

/// The subscription that a role uses.
fn subscription(role: Role) -> &'static str {
    match role {
        Role::Broker | Role::Producers(_) => "",
        Role::Exact(which) => ["k1-0", "k1-1"][which],
        Role::Commit => "k3",
        Role::Plain => "plain",
    }
}

#[derive(Clone, Copy, Debug)]
enum Act {
    Kill(Role),
    Freeze(Role),
}

/// A process that is started again each time it is killed.
struct Worker {
    role: Role,
    process: Process,
    starts: usize,
    /// Rows of its table when this process began.
    rows: u64,
}

/// Everything in one directory.
struct World {
    dir: PathBuf,
    seed: u64,
    examples: PathBuf,
    notes: Vec<PathBuf>,
    workers: Vec<Worker>,
    broker: Broker,
}

impl World {
    fn db(&self, role: Role) -> PathBuf {
        match role {
            Role::Exact(which) => self.dir.join(format!("k1-{which}.db")),
            _ => self.dir.join("plain.db"),
        }
    }

    fn command(&mut self, role: Role, starts: usize) -> Command {
        let socket = Broker::socket_of(&self.dir.join("data"));
        let example = |name: &str, args: &[(&str, &str)]| {
            let mut command = Command::new(self.examples.join(name));
            command.arg("--socket").arg(&socket);
            for (name, value) in args {
                command.arg(format!("--{name}")).arg(value);
            }
            command
        };
        let mut command = match role {
            Role::Broker => unreachable!("the broker is no worker"),
            Role::Producers(which) => {
                let file = self.dir.join(format!("notes-{which}-{starts}"));
                let ids = [[0, 1], [2, 3]][which];
                let command = load::producers(&socket, &file, &ids, self.seed.wrapping_add(1000 * starts as u64));
                self.notes.push(file);
                command
            }
            Role::Exact(_) => {
                let mut command = example("k1_sqlite", &[("stream", INPUT), ("subscription", subscription(role))]);
                command.arg("--db").arg(self.db(role));
                command
            }
            Role::Commit => example("k3_commit", &[("from", INPUT), ("to", OUTPUT), ("subscription", subscription(role))]),
            Role::Plain => {
                let mut command = example("plain", &[("stream", INPUT), ("subscription", subscription(role))]);
                command.arg("--db").arg(self.db(role));
                command
            }
        };
        let log = File::options().create(true).append(true).open(self.dir.join(format!("{role:?}.log"))).expect("a log file");
        command.stdout(Stdio::null()).stderr(log);
        command
    }

    fn start(&mut self, role: Role) {
        let command = &mut self.command(role, 0);
        self.workers.push(Worker { role, process: Process::spawn(command), starts: 1, rows: 0 });
    }

    fn worker(&mut self, role: Role) -> &mut Worker {
        self.workers.iter_mut().find(|w| w.role == role).unwrap_or_else(|| panic!("{role:?} is no worker"))
    }

    /// Starts a role anew, in the place of the process that had it; that one comes back.
    fn replace(&mut self, role: Role) -> Process {
        let rows = readback::progress(&self.db(role)).map_or(0, |(rows, _)| rows);
        let starts = self.worker(role).starts;
        let command = &mut self.command(role, starts);
        let worker = self.worker(role);
        (worker.starts, worker.rows) = (starts + 1, rows);
        std::mem::replace(&mut worker.process, Process::spawn(command))
    }

    fn kill(&mut self, role: Role, dice: &mut Dice) {
        match role {
            Role::Broker => {
                // Now and then it is killed while it recovers from the last time.
                if !dice.one_in(5) {
                    self.broker.ready();
                }
                assert!(self.broker.kill(), "the broker had ended by itself");
                self.broker = Broker::spawn(&self.dir.join("data"));
            }
            Role::Plain => {
                self.hold_between_acks();
                assert!(self.worker(role).process.kill(), "{role:?} had ended by itself:\n{}", self.log(role));
                drop(self.replace(role));
            }
            _ => {
                assert!(self.worker(role).process.kill(), "{role:?} had ended by itself:\n{}", self.log(role));
                drop(self.replace(role));
            }
        }
    }

    /// Freezes the plain consumer at a moment when it has effects that it has not acked: the duplicates are certain.
    fn hold_between_acks(&mut self) {
        let since = Instant::now();
        let db = self.db(Role::Plain);
        loop {
            let worker = self.worker(Role::Plain);
            worker.process.signal(Signal::STOP);
            let rows = readback::progress(&db).map_or(0, |(rows, _)| rows.saturating_sub(worker.rows));
            if !rows.is_multiple_of(50) {
                return;
            }
            worker.process.signal(Signal::CONT);
            assert!(since.elapsed() < PATIENCE, "the plain consumer does nothing:\n{}", self.log(Role::Plain));
            self.broker.ready();
            std::thread::sleep(Duration::from_millis(3));
        }
    }

    /// Two processes in one role: the older wakes up beside its successor, like after a pause of its machine. It was at work when it
    /// was frozen: one that was just looking for the broker may take its successor for a lost opening of its own, and go on instead.
    async fn freeze(&mut self, role: Role, client: &Client) {
        self.broker.ready();
        let name = subscription(role);
        let next = || async { client.admin().subscription(INPUT, name).await.map(|s| s.next).map_err(|e| e.to_string()) };
        // At the very beginning it may not be there yet.
        let before = next().await.unwrap_or(0);
        until(PATIENCE, || async { if next().await? > before { Ok(()) } else { Err(format!("{role:?} does nothing:\n{}", self.log(role))) } }).await;
        assert!(self.worker(role).process.ended().is_none(), "{role:?} had ended by itself:\n{}", self.log(role));
        self.worker(role).process.signal(Signal::STOP);
        let mut old = self.replace(role);
        old.signal(Signal::CONT);
        // It learns that it was replaced, and ends by itself.
        assert!(!old.wait().success(), "{role:?} was replaced and ended as if nothing had happened");
    }

    fn log(&self, role: Role) -> String {
        process::tail(&std::fs::read_to_string(self.dir.join(format!("{role:?}.log"))).unwrap_or_default())
    }
}

#[test]
fn killed_fifty_times_nothing_is_lost_repeated_or_reordered() {
    let seed = dice::seed();
    let examples = process::examples();
    let dir = tempfile::tempdir().expect("a temporary directory");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let began = Instant::now();
    // A world that was not judged right is kept, also when something panics on the way.
    let path = dir.keep();
    println!("working in {}", path.display());
    let history = runtime.block_on(run(seed, &path, examples));
    let wrong = check::judge(&history);
    println!("crash test: seed {seed}, {:.0} s", began.elapsed().as_secs_f64());
    assert!(wrong.is_empty(), "seed {seed}, files in {}:\n{}", path.display(), wrong.join("\n"));
    lies_are_found(history);
    let _ = std::fs::remove_dir_all(path);
}

/// The control on the real history: what a broken broker or recipe would have left behind does not pass.
fn lies_are_found(mut history: History) {
    let found = |history: &History, number: usize| (check::ALL[number - 1].1)(history).is_err();
    let exact = std::mem::replace(&mut history.exact, history.plain.iter().cloned().collect());
    assert!(found(&history, 16), "effects that were repeated pass as exact");
    history.exact = exact;
    let lost = history.input.events.remove(history.input.events.len() / 2);
    for number in [1, 5, 7, 16] {
        assert!(found(&history, number), "nobody misses event {}", lost.offset);
    }
}

async fn run(seed: u64, dir: &Path, examples: PathBuf) -> History {
    let data = dir.join("data");
    let broker = Broker::start(&data);
    let client = broker.client(Protocol::Binary);
    for stream in [INPUT, OUTPUT, CLOSED] {
        client.admin().create_stream(stream, Map::new()).await.expect("a stream is created");
    }
    client.admin().close_stream(CLOSED).await.expect("a stream is closed");
    let mut world = World { dir: dir.to_owned(), seed, examples, notes: Vec::new(), workers: Vec::new(), broker };
    KILLS.iter().filter(|(role, _)| *role != Role::Broker).for_each(|(role, _)| world.start(*role));

    let since = Instant::now();
    let socket = Broker::socket_of(&data);
    let [stop_writers, stop_readers, stop_monitor] = [(); 3].map(|()| Arc::new(AtomicBool::new(false)));
    let appenders: Vec<_> = (0..3)
        .map(|who| {
            let protocol = if who == 0 { Protocol::Json } else { Protocol::Binary };
            tokio::spawn(load::append(process::client(&socket, protocol), who, Dice::of(seed, &format!("u{who}")), since, stop_writers.clone()))
        })
        .collect();
    let reached: [Arc<AtomicU64>; 2] = Default::default();
    let readers: Vec<_> = [("s1", true), ("s2", false)]
        .into_iter()
        .zip(&reached)
        .map(|((name, durable), reached)| tokio::spawn(Reader::new(name, durable, &socket, Dice::of(seed, name), stop_readers.clone(), reached.clone()).run()))
        .collect();
    let monitor = tokio::spawn(watch(client.clone(), since, stop_monitor.clone()));

    let mut dice = Dice::of(seed, "kills");
    let mut acts: Vec<Act> = KILLS.iter().flat_map(|(role, times)| vec![Act::Kill(*role); *times]).chain(FREEZES.map(Act::Freeze)).collect();
    dice.shuffle(&mut acts);
    for act in &acts {
        // Time for work between kills, not for an effect.
        tokio::time::sleep(dice.millis(20, 700)).await;
        match act {
            Act::Kill(role) => world.kill(*role, &mut dice),
            Act::Freeze(role) => world.freeze(*role, &client).await,
        }
    }
    let kills = acts.iter().filter(|act| matches!(act, Act::Kill(_))).count();
    println!("  {kills} kills and {} freezes in {:.1} s", FREEZES.len(), since.elapsed().as_secs_f64());

    // Faults have stopped: everybody is at work again, with no step by hand (I-19).
    let last_kill = Instant::now();
    world.broker.ready();
    let end = client.admin().stream(INPUT).await.expect("the stream is there").state.next_offset;
    let target = end + 100;
    until(RESUMED, || behind(&world, &client, &reached, target)).await;
    println!("  every writer and reader passed offset {target} {:.2} s after the last kill", last_kill.elapsed().as_secs_f64());

    // A clean end: first the writers, …
    stop_writers.store(true, Ordering::SeqCst);
    let mut history = History::default();
    for appender in appenders {
        history.appends.extend(appender.await.expect("an appender does not panic"));
    }
    for which in 0..2 {
        let role = Role::Producers(which);
        let status = world.worker(role).process.stop();
        assert!(status.success(), "{role:?} ended with {status}:\n{}", world.log(role));
    }
    // … then, when they have everything, the readers.
    let end = client.admin().stream(INPUT).await.expect("the stream is there").state.next_offset;
    until(PATIENCE, || behind(&world, &client, &reached, end)).await;
    stop_readers.store(true, Ordering::SeqCst);
    for reader in readers {
        let reader = reader.await.expect("a reader does not panic");
        history.sessions.extend(reader.sessions);
        history.seen.extend(reader.seen);
    }
    until(PATIENCE, || async {
        let cursors = cursors(&client).await?;
        cursors
            .iter()
            .find(|p| p.next != end && p.subscription != "plain")
            .map_or(Ok(()), |p| Err(format!("cursor {} is at {} of {end}", p.subscription, p.next)))
    })
    .await;
    for mut worker in std::mem::take(&mut world.workers).into_iter().filter(|w| !matches!(w.role, Role::Producers(_))) {
        let status = worker.process.stop();
        assert!(status.success(), "{:?} ended with {status}:\n{}", worker.role, world.log(worker.role));
    }
    stop_monitor.store(true, Ordering::SeqCst);
    let watched = monitor.await.expect("the monitor does not panic");
    (history.samples, history.positions, history.images) = (watched.samples, watched.positions, watched.images);
    history.seen.extend(watched.seen);

    // Once more from the disk.
    let status = world.broker.stop();
    assert!(status.success(), "the broker ended with {status}");
    let mut broker = Broker::start(&data);
    let client = broker.client(Protocol::Binary);
    (history.input, history.output) = (readback::log(&client, INPUT).await, readback::log(&client, OUTPUT).await);
    for (reader, protocol) in [("follow-binary", Protocol::Binary), ("follow-json", Protocol::Json)] {
        history.seen.extend(readback::follow(&broker, reader, protocol, INPUT, history.input.next).await);
        history.seen.extend(readback::follow(&broker, reader, protocol, OUTPUT, history.output.next).await);
    }
    history.cursors = cursors(&client).await.expect("the cursors can be read");
    history.cursors.retain(|position| position.subscription != "plain");
    assert!(broker.stop().success(), "the broker did not stop well");
    history.notes = world.notes.iter().flat_map(|file| load::read_notes(file)).collect();
    history.exact = [0, 1].map(|which| readback::table(&world.db(Role::Exact(which)), ["k1-0", "k1-1"][which])).into();
    history.plain = Some(readback::table(&world.db(Role::Plain), "plain"));
    history
}

/// Waits for an effect, and says at the deadline what is missing.
async fn until<F: Future<Output = Result<(), String>>>(patience: Duration, check: impl Fn() -> F) {
    let since = Instant::now();
    while let Err(why) = check().await {
        assert!(since.elapsed() < patience, "after {} s: {why}", patience.as_secs());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Who has not got to `end`: the stream itself, then everybody who follows it.
async fn behind(world: &World, client: &Client, reached: &[Arc<AtomicU64>; 2], end: u64) -> Result<(), String> {
    let said = |who: &str, at: u64| if at < end { Err(format!("{who} is at {at} of {end}")) } else { Ok(()) };
    let state = |stream: &'static str| async move { client.admin().stream(stream).await.map(|s| s.state.next_offset).map_err(|e| e.to_string()) };
    said("the stream", state(INPUT).await?)?;
    said("the output", state(OUTPUT).await?)?;
    said("s1", reached[0].load(Ordering::SeqCst))?;
    said("s2", reached[1].load(Ordering::SeqCst))?;
    for role in [Role::Exact(0), Role::Exact(1), Role::Plain] {
        let at = readback::progress(&world.db(role)).map_or(0, |(_, next)| next);
        said(&format!("{role:?}"), at).map_err(|why| format!("{why}; its log:\n{}", world.log(role)))?;
    }
    Ok(())
}

async fn subscriptions(client: &Client) -> Result<Vec<SubscriptionObject>, tidelog::client::Error> {
    client.admin().subscriptions(INPUT).await
}

async fn cursors(client: &Client) -> Result<Vec<Position>, String> {
    let list = subscriptions(client).await.map_err(|e| e.to_string())?;
    Ok(list.into_iter().map(|s| Position { subscription: s.name, next: s.next, epoch: s.epoch }).collect())
}

/// What the monitor saw.
#[derive(Default)]
struct Watched {
    samples: Vec<Sample>,
    positions: Vec<Position>,
    images: Vec<Image>,
    seen: Vec<Seen>,
}

/// Looks at everything from outside, all the time. A look that fails shows nothing.
async fn watch(client: Client, since: Instant, stop: Arc<AtomicBool>) -> Watched {
    let mut watched = Watched::default();
    while !stop.load(Ordering::SeqCst) {
        let began = since.elapsed().as_micros() as u64;
        if let Ok(streams) = client.admin().streams().await {
            let ended = since.elapsed().as_micros() as u64;
            for s in streams {
                let log_epoch = s.rest.get("log_epoch").and_then(Value::as_u64).expect("a stream has a log epoch");
                watched.samples.push(Sample { began, ended, stream: s.name, id: s.id, log_epoch, first: s.state.first_offset, next: s.state.next_offset });
            }
        }
        for stream in [INPUT, OUTPUT] {
            if let Ok(events) = client.admin().call::<Value>(Method::GET, &format!("/v1/streams/{stream}/events/last"), None).await {
                // One event, or a list of one.
                let event = events.get(0).unwrap_or(&events);
                let id = watched.samples.iter().rev().find(|s| s.stream == stream).map(|s| s.id);
                if let (Some(stream_id), Some(data)) = (id, event["data"].as_str()) {
                    let number = |name: &str| event[name].as_u64().unwrap_or_else(|| panic!("no {name} in {event}"));
                    watched.seen.push(Seen {
                        reader: "monitor",
                        stream_id,
                        log_epoch: number("log_epoch"),
                        offset: number("offset"),
                        hash: hash(data.as_bytes()),
                    });
                }
            }
        }
        if let Some(image) = look_at_image(&client).await {
            watched.images.push(image);
        }
        if let Ok(positions) = cursors(&client).await {
            watched.positions.extend(positions);
        }
        tokio::time::sleep(Duration::from_millis(15)).await;
    }
    watched
}

async fn look_at_image(client: &Client) -> Option<Image> {
    let cursor = || async { client.admin().subscription(INPUT, "k3").await.ok().map(|s| s.next) };
    let before = cursor().await?;
    let output = client.admin().stream(OUTPUT).await.ok()?.state.next_offset;
    Some(Image { before, output, after: cursor().await? })
}
