//! A small load over all carriers, which goes on through deaths and restarts of the broker, and the history it leaves.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde_json::Map;
use tidelog::client::{Client, Consumer, Delivery, Event, IntoEvents as _, NewEvent, Protocol};
use tidelog::types::request::{CommitAck, CommitAppend, CommitRequest};
use tidelog::types::{StreamName, SubscriptionName};
use tokio::sync::RwLock;
use tokio::task::JoinHandle;

use crate::dice::Dice;
use crate::door::Door;
use crate::frames::Form;
use crate::history::{Append, BY_HAND, History, Note, Resumed, Run, Side};
use crate::line::Carrier;
use crate::load::{self, CLOSED, INPUT};
use crate::process::{self, Address, Broker, tidelog};
use crate::session::{Reader, read_notes};
use crate::watch::{Watched, cursors, watch};
use crate::{readback, side, writers};

/// What K-3 writes.
pub const OUTPUT: &str = "b";

/// What refusals this process heard is counted in one place: whoever judges them must be alone.
pub static ALONE: RwLock<()> = RwLock::const_new(());

/// Readers: name, carrier, whether their acks are durable ones.
const READERS: [(&str, Carrier, bool); 5] = [
    ("s1", Carrier::Frames(Form::Json), true),
    ("s2", Carrier::Frames(Form::Proto), false),
    ("g1", Carrier::Calls, true),
    ("e1", Carrier::Sse, true),
    ("l1", Carrier::Pull, true),
];

/// The broker with fault points, told what to do by its environment.
pub fn broker(data: &Path, faults: &str, broken: &str) -> Broker {
    Broker::spawn_as(command(faults, broken), data, Address::default())
}

/// Its command.
pub fn command(faults: &str, broken: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidelog-faults"));
    for (name, _) in tidelog().get_envs() {
        command.env_remove(name);
    }
    command.env("TIDELOG_FAULTS", faults).env("TIDELOG_BREAK", broken);
    command
}

/// See the module.
pub struct Small {
    dir: PathBuf,
    client: Client,
    stop: Arc<AtomicBool>,
    stop_readers: Arc<AtomicBool>,
    appenders: Vec<JoinHandle<Vec<Append>>>,
    pipelines: Vec<JoinHandle<(Vec<Append>, Vec<Run>)>>,
    producers: Vec<JoinHandle<Vec<Note>>>,
    churn: JoinHandle<Vec<Side>>,
    readers: Vec<JoinHandle<()>>,
    copier: JoinHandle<()>,
    monitor: JoinHandle<Watched>,
    resumed: Vec<Resumed>,
}

fn looks(dir: &Path, reader: &str) -> PathBuf {
    dir.join(format!("looks-{reader}"))
}

impl Small {
    /// Begins to work on the broker of `dir`, whether it is there or not.
    pub fn start(dir: &Path, seed: u64) -> Self {
        let socket = Broker::socket_of(&dir.join("data"));
        let [stop, stop_readers] = [(); 2].map(|()| Arc::new(AtomicBool::new(false)));
        let (since, door) = (Instant::now(), Door::Unix(socket.clone()));
        let dice = |who: &str| Dice::of(seed, who);
        let appenders = vec![
            tokio::spawn(load::append(process::client(&socket, Protocol::Binary), 0, dice("u0"), since, stop.clone())),
            tokio::spawn(writers::single(door.clone(), 1, dice("u1"), since, stop.clone())),
        ];
        let pipelines = (10..)
            .zip([Form::Json, Form::Connect])
            .map(|(who, form)| tokio::spawn(writers::pipelined(form, door.clone(), who, dice(form.name()), since, stop.clone())))
            .collect();
        let producers = [BY_HAND, BY_HAND + 1].map(|id| tokio::spawn(writers::stamped(door.clone(), id, dice(&format!("p{id}")), stop.clone()))).into();
        let churn = tokio::spawn(side::churn(door.clone(), 0, 2, dice("side"), since, stop.clone()));
        let readers = READERS
            .map(|(name, carrier, durable)| {
                let notes = Some(Arc::new(Mutex::new(File::create_new(looks(dir, name)).expect("a file of its own"))));
                let (door, straight, stop) = (door.clone(), door.clone(), stop_readers.clone());
                let reader = Reader { name, carrier, durable, loyal: false, door, straight, dice: dice(name), stop, notes };
                tokio::spawn(async move { drop(reader.run().await) })
            })
            .into();
        let client = process::client(&socket, Protocol::Binary);
        let copier = tokio::spawn(copy(client.clone(), stop_readers.clone()));
        let monitor = tokio::spawn(watch(client.clone(), OUTPUT, since, stop_readers.clone()));
        let (dir, resumed) = (dir.to_owned(), Vec::new());
        Self { dir, client, stop, stop_readers, appenders, pipelines, producers, churn, readers, copier, monitor, resumed }
    }

    /// Makes what everybody works on. `false`: the broker died meanwhile.
    pub async fn prepare(&self) -> bool {
        let admin = self.client.admin();
        for stream in [INPUT, OUTPUT, CLOSED] {
            if admin.create_stream(stream, Map::new()).await.is_err() && admin.stream(stream).await.is_err() {
                return false;
            }
        }
        for (name, ..) in READERS {
            if admin.create_subscription(INPUT, name, Map::new()).await.is_err() && admin.subscription(INPUT, name).await.is_err() {
                return false;
            }
        }
        admin.close_stream(CLOSED).await.is_ok()
    }

    /// Waits until all readers are past what is there now and `more`; how long it took is written down (I-19). `false`: not in time.
    pub async fn progress(&mut self, more: u64, patience: Duration) -> bool {
        let began = Instant::now();
        let mut target = None;
        while began.elapsed() < patience {
            tokio::time::sleep(Duration::from_millis(10)).await;
            let Ok(stream) = self.client.admin().stream(INPUT).await else { continue };
            let target = *target.get_or_insert(stream.state.next_offset + more);
            let Ok(cursors) = cursors(&self.client).await else { continue };
            if cursors.len() > READERS.len() && cursors.iter().all(|p| p.next >= target) {
                self.resumed.push(Resumed { who: "everybody".into(), seconds: began.elapsed().as_secs_f64() });
                return true;
            }
        }
        false
    }

    /// Ends the load, stops the broker in order, and reads everything back. `patience`: for readers to get to the end; a broker that breaks its
    /// promises may never let them.
    pub async fn finish(mut self, mut broker: Broker, broken: &str, patience: Duration) -> History {
        self.stop.store(true, Ordering::SeqCst);
        let mut history = History { resumed: std::mem::take(&mut self.resumed), ..History::default() };
        // Who panicked, since the broker said what no broker says, has left nothing; that is for whoever judges to see.
        for appender in self.appenders {
            history.appends.extend(appender.await.unwrap_or_default());
        }
        for pipeline in self.pipelines {
            let (appends, runs) = pipeline.await.unwrap_or_default();
            history.appends.extend(appends);
            history.runs.extend(runs);
        }
        for producer in self.producers {
            history.notes.extend(producer.await.unwrap_or_default());
        }
        history.sides = self.churn.await.unwrap_or_default();
        let began = Instant::now();
        while began.elapsed() < patience {
            let end = self.client.admin().stream(INPUT).await.map_or(u64::MAX, |s| s.state.next_offset);
            if cursors(&self.client).await.is_ok_and(|all| all.iter().all(|p| p.next >= end)) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.stop_readers.store(true, Ordering::SeqCst);
        for mut reader in self.readers {
            if tokio::time::timeout(patience, &mut reader).await.is_err() {
                reader.abort();
            }
        }
        let _ = self.copier.await;
        let watched = self.monitor.await.expect("the monitor does not panic");
        (history.samples, history.positions, history.images, history.seen) = (watched.samples, watched.positions, watched.images, watched.seen);
        broker.stop();

        let data = self.dir.join("data");
        let mut broker = self::broker(&data, "", broken);
        broker.ready();
        // Connections to the one before are of no use.
        let client = broker.client(Protocol::Binary);
        (history.input, history.output) = (readback::log(&client, INPUT).await, readback::log(&client, OUTPUT).await);
        readback::sides(&client, &mut history.sides).await;
        // What cannot be read, behind damage, is not there: I-12 says so.
        history.cursors = cursors(&client).await.unwrap_or_default();
        assert!(broker.stop().success(), "the broker did not stop well");
        for (name, ..) in READERS {
            history.add_looks(read_notes(&looks(&self.dir, name)));
        }
        history
    }
}

/// K-3: copies the input, with the ack of each batch in the same commit (`examples/k3_commit.rs`).
async fn copy(client: Client, stop: Arc<AtomicBool>) {
    let (from, to) = (StreamName::parse(INPUT).expect("a name"), StreamName::parse(OUTPUT).expect("a name"));
    let subscription = SubscriptionName::parse("k3").expect("a name");
    let stopped = async {
        while !stop.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let work = async {
        let mut committer = loop {
            match client.committer("k3").await {
                Ok(committer) => break committer,
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        };
        loop {
            let opened = client.consumer(INPUT).subscription("k3").create().give_up_after(Duration::from_secs(1)).open().await;
            let Ok(mut consumer) = opened else {
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            };
            while let Some(events) = batch(&mut consumer).await {
                let Some(last) = events.last().map(|event| event.offset) else { continue };
                let image = |event: &Event| NewEvent::text(event.text().unwrap_or_default()).header("source-offset", event.offset.to_string());
                let outputs = events.iter().map(image).collect::<Vec<_>>().into_events().expect("good events");
                let ack = CommitAck { stream: from.clone(), subscription: subscription.clone(), epoch: consumer.epoch().unwrap_or(0), offset: last };
                let append = CommitAppend { stream: to.clone(), stream_id: None, events: outputs, expected_next_offset: None };
                match committer.commit(CommitRequest { acks: vec![ack], appends: vec![append], ..CommitRequest::default() }).await {
                    Ok(_) => consumer.committed(last),
                    Err(_) => break,
                }
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::select! {
        () = work => {}
        () = stopped => {}
    }
}

/// What is at hand; `None` at the end of the session.
async fn batch(consumer: &mut Consumer) -> Option<Vec<Event>> {
    let mut events = Vec::new();
    let mut step = consumer.next().await;
    loop {
        match step? {
            Ok(Delivery::Event(event)) => events.push(event),
            Ok(_) => {}
            Err(_) => return None,
        }
        let next = if events.len() < 100 { consumer.try_next() } else { None };
        let Some(next) = next else { return Some(events) };
        step = Some(next);
    }
}
