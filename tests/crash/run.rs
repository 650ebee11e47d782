//! The test itself: rounds of load over every carrier, a hundred kills in an order from the seed, freezes, pauses and broken connections,
//! a clean end, and everything read back and judged.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::Map;
use tidelog::client::{Client, Protocol};

use crate::check;
use crate::dice::{self, Dice};
use crate::door::Door;
use crate::frames::Form;
use crate::history::{BY_HAND, History, Resumed};
use crate::line::Carrier;
use crate::load::{self, CLOSED, INPUT, SUBSCRIBERS};
use crate::process::{self, Broker, PATIENCE};
use crate::proxy::Proxy;
use crate::session::{Reader, read_notes};
use crate::watch::{cursors, stranger, watch};
use crate::world::{FREEZES, KILLS, OUTPUT, Role, World, until};
use crate::{people, readback, side, told, writers};

/// Kills of one round: what it left is judged before the next begins, so that a history stays bounded.
const ROUND: usize = 100;
/// How often the broker itself is paused in a round.
const PAUSES: usize = 8;

/// Readers in this process: name, carrier, whether their acks are durable ones, whether their connections go through the proxy.
const READERS: [(&str, Carrier, bool, bool); 7] = [
    ("s1", Carrier::Frames(Form::Json), true, false),
    ("s2", Carrier::Frames(Form::Json), false, true),
    ("s3", Carrier::Frames(Form::Proto), true, true),
    ("g1", Carrier::Frames(Form::Connect), true, true),
    ("g2", Carrier::Calls, false, true),
    ("e1", Carrier::Sse, true, true),
    ("l1", Carrier::Pull, true, true),
];

#[derive(Clone, Copy, Debug)]
enum Act {
    Kill(Role),
    Freeze(Role),
    Pause,
}

#[test]
fn killed_five_hundred_times_nothing_is_lost_repeated_or_reordered() {
    let seed = dice::seed();
    let kills = std::env::var("KILLS").ok().map_or(500, |n| n.parse::<usize>().expect("KILLS is a number"));
    let examples = process::examples();
    let began = Instant::now();
    let rounds = kills.div_ceil(ROUND);
    for round in 0..rounds {
        let kills = ROUND.min(kills - round * ROUND);
        // A round can be played alone: its seed is the seed of a run of one.
        let seed = seed.wrapping_add(round as u64);
        let history = one_round(seed, kills, &examples);
        if round == 0 {
            lies_are_found(history);
        }
    }
    println!("crash test: seed {seed}, {kills} kills in {rounds} rounds, {:.0} s", began.elapsed().as_secs_f64());
}

fn one_round(seed: u64, kills: usize, examples: &Path) -> History {
    // A world that was not judged right is kept, also when something panics on the way.
    let path = tempfile::tempdir().expect("a temporary directory").keep();
    println!("round with {kills} kills, seed {seed}, in {}", path.display());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let history = runtime.block_on(run(seed, kills, &path, examples.to_owned()));
    let wrong = check::judge(&history);
    assert!(wrong.is_empty(), "SEED={seed} KILLS={kills}, files in {}:\n{}", path.display(), wrong.join("\n"));
    let _ = std::fs::remove_dir_all(path);
    history
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

/// Everybody's part of `kills`, in an order from the seed.
fn acts(kills: usize, dice: &mut Dice) -> Vec<Act> {
    let mut all: Vec<Act> = KILLS.iter().flat_map(|(role, times)| vec![Act::Kill(*role); *times]).collect();
    dice.shuffle(&mut all);
    all.truncate(kills);
    let share = |of: usize| (of * kills).div_ceil(ROUND);
    all.extend(FREEZES.iter().take(share(FREEZES.len())).map(|role| Act::Freeze(*role)));
    all.extend(vec![Act::Pause; share(PAUSES)]);
    dice.shuffle(&mut all);
    all
}

async fn run(seed: u64, kills: usize, dir: &Path, examples: PathBuf) -> History {
    let data = dir.join("data");
    told::take();
    let broker = Broker::start(&data);
    let client = broker.client(Protocol::Binary);
    for stream in [INPUT, OUTPUT, CLOSED] {
        client.admin().create_stream(stream, Map::new()).await.expect("a stream is created");
    }
    client.admin().close_stream(CLOSED).await.expect("a stream is closed");
    for name in READERS.iter().map(|(name, ..)| *name).chain(SUBSCRIBERS.map(|(name, _)| name)) {
        client.admin().create_subscription(INPUT, name, Map::new()).await.expect("a subscription is created");
    }
    let mut world = World::new(dir.to_owned(), seed, examples, broker);
    KILLS.iter().filter(|(role, _)| *role != Role::Broker).for_each(|(role, _)| world.start(*role));

    let since = Instant::now();
    let socket = Broker::socket_of(&data);
    let proxy = Proxy::start(socket.clone(), Dice::of(seed, "proxy")).await;
    let (straight, broken) = (Door::Unix(socket.clone()), Door::Tcp(proxy.at));
    let [stop_writers, stop_readers, stop_monitor] = [(); 3].map(|()| Arc::new(AtomicBool::new(false)));
    let stop = || stop_writers.clone();
    let dice = |who: &str| Dice::of(seed, who);
    let appenders: Vec<_> = (0..3)
        .map(|who| {
            let protocol = if who == 0 { Protocol::Json } else { Protocol::Binary };
            tokio::spawn(load::append(process::client(&socket, protocol), who, dice(&format!("u{who}")), since, stop()))
        })
        .chain([tokio::spawn(writers::single(broken.clone(), 3, dice("u3"), since, stop()))])
        .chain([tokio::spawn(writers::single(straight.clone(), 4, dice("u4"), since, stop()))])
        .collect();
    let pipelines: Vec<_> =
        (10..).zip(Form::ALL).map(|(who, form)| tokio::spawn(writers::pipelined(form, broken.clone(), who, dice(form.name()), since, stop()))).collect();
    let producers: Vec<_> = [BY_HAND, BY_HAND + 1].map(|id| tokio::spawn(writers::stamped(broken.clone(), id, dice(&format!("p{id}")), stop()))).into();
    let churns: Vec<_> = [&straight, &broken]
        .into_iter()
        .zip(0..)
        .map(|(door, who)| tokio::spawn(side::churn(door.clone(), who, 3, dice(&format!("side {who}")), since, stop())))
        .collect();
    let administrator = tokio::spawn(people::administer(straight.clone(), dice("people"), stop()));
    let readers: Vec<_> = READERS
        .map(|(name, carrier, durable, through_proxy)| {
            let door = if through_proxy { broken.clone() } else { straight.clone() };
            let (straight, stop) = (straight.clone(), stop_readers.clone());
            tokio::spawn(Reader { name, carrier, durable, loyal: false, door, straight, dice: dice(name), stop, notes: None }.run())
        })
        .into();
    let monitor = tokio::spawn(watch(client.clone(), OUTPUT, since, stop_monitor.clone()));
    let outsider = tokio::spawn(stranger(world.broker.address.clone(), stop_monitor.clone()));

    let mut chance = dice("kills");
    let acts = acts(kills, &mut chance);
    for act in &acts {
        // Time for work between kills, not for an effect.
        tokio::time::sleep(chance.millis(20, 420)).await;
        match act {
            Act::Kill(role) => world.kill(*role, &mut chance),
            Act::Freeze(role) => world.freeze(*role, &client).await,
            Act::Pause => {
                assert!(world.broker.ended().is_none(), "the broker had ended by itself");
                tokio::task::block_in_place(|| world.broker.pause(chance.millis(50, 500)));
            }
        }
    }
    println!("  {} faults in {:.1} s; {}", acts.len(), since.elapsed().as_secs_f64(), proxy.figures());

    proxy.calm();
    // Faults have stopped: everybody is at work again, with no step by hand (I-19).
    let mut history = History { resumed: resume(&mut world, &client).await, ..History::default() };

    // A clean end: first the writers, …
    stop_writers.store(true, Ordering::SeqCst);
    for appender in appenders {
        history.appends.extend(appender.await.expect("an appender does not panic"));
    }
    for pipeline in pipelines {
        let (appends, runs) = pipeline.await.expect("an appender does not panic");
        history.appends.extend(appends);
        history.runs.extend(runs);
    }
    for producer in producers {
        history.notes.extend(producer.await.expect("a producer does not panic"));
    }
    for churn in churns {
        history.sides.extend(churn.await.expect("who makes streams does not panic"));
    }
    println!("  {:?}", administrator.await.expect("who administers does not panic"));
    for which in 0..2 {
        let role = Role::Producers(which);
        let status = world.worker(role).process.stop();
        assert!(status.success(), "{role:?} ended with {status}:\n{}", world.log(role));
    }
    // … then, when they have everything, the readers.
    let end = client.admin().stream(INPUT).await.expect("the stream is there").state.next_offset;
    until(PATIENCE, || async { behind(&world, &client, end).await?.into_iter().next().map_or(Ok(()), Err) }).await;
    stop_readers.store(true, Ordering::SeqCst);
    for reader in readers {
        history.add_looks(reader.await.expect("a reader does not panic"));
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
    history.strangers = outsider.await.expect("a stranger does not panic");

    read_back(&mut world, &mut history).await;
    history
}

/// Once more from the disk, and what processes left behind.
async fn read_back(world: &mut World, history: &mut History) {
    let status = world.broker.stop();
    assert!(status.success(), "the broker ended with {status}");
    let mut broker = Broker::start(&world.dir.join("data"));
    let client = broker.client(Protocol::Binary);
    (history.input, history.output) = (readback::log(&client, INPUT).await, readback::log(&client, OUTPUT).await);
    for (reader, protocol) in [("follow-binary", Protocol::Binary), ("follow-json", Protocol::Json)] {
        history.seen.extend(readback::follow(&broker, reader, protocol, INPUT, history.input.next).await);
        history.seen.extend(readback::follow(&broker, reader, protocol, OUTPUT, history.output.next).await);
    }
    readback::sides(&client, &mut history.sides).await;
    history.cursors = cursors(&client).await.expect("the cursors can be read");
    history.cursors.retain(|position| position.subscription != "plain");
    assert!(broker.stop().success(), "the broker did not stop well");
    history.notes.extend(world.notes.iter().flat_map(|file| read_notes(file)));
    for file in &world.looks {
        history.add_looks(read_notes(file));
    }
    history.exact = [0, 1].map(|which| readback::table(&world.db(Role::Exact(which)), ["k1-0", "k1-1"][which])).into();
    history.plain = Some(readback::table(&world.db(Role::Plain), "plain"));
    history.told.extend(told::take());
}

/// How long each took to pass a place that is new since the last fault.
async fn resume(world: &mut World, client: &Client) -> Vec<Resumed> {
    let last = Instant::now();
    world.broker.ready();
    let end = client.admin().stream(INPUT).await.expect("the stream is there").state.next_offset;
    let mut resumed: Vec<Resumed> = Vec::new();
    let mut missing: Option<Vec<String>> = None;
    while missing.as_ref().is_none_or(|missing| !missing.is_empty()) && last.elapsed() < PATIENCE {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let Ok(now) = behind(world, client, end + 100).await else { continue };
        let who = |line: &String| line.split(' ').next().unwrap_or_default().to_owned();
        let back = missing.iter().flatten().filter(|line| !now.iter().any(|n| who(n) == who(line)));
        resumed.extend(back.map(|line| Resumed { who: who(line), seconds: last.elapsed().as_secs_f64() }));
        missing = Some(now);
    }
    resumed.extend(missing.into_iter().flatten().map(|line| Resumed { who: line, seconds: f64::INFINITY }));
    resumed
}

/// Who has not got to `end`: the stream itself, then everybody who follows it.
async fn behind(world: &World, client: &Client, end: u64) -> Result<Vec<String>, String> {
    let mut all: Vec<(String, u64)> = Vec::new();
    for stream in [INPUT, OUTPUT] {
        all.push((format!("stream-{stream}"), client.admin().stream(stream).await.map_err(|e| e.to_string())?.state.next_offset));
    }
    let at = cursors(client).await?;
    // The plain consumer acks every 50th effect; its table tells how far it is.
    all.extend(at.into_iter().filter(|p| p.subscription != "plain").map(|p| (p.subscription, p.next)));
    for role in [Role::Exact(0), Role::Exact(1), Role::Plain] {
        all.push((format!("{role:?}"), readback::progress(&world.db(role)).map_or(0, |(_, next)| next)));
    }
    Ok(all.into_iter().filter(|(_, at)| *at < end).map(|(who, at)| format!("{who} is at {at} of {end}")).collect())
}
