//! `make demo`: a real history goes through a broker that is killed again and again, and nothing is lost or done twice.
//!
//! The history of this machine's software (`demo/source.rs`) is pushed as a producer whose line i has `seq` i. A K-1 subscriber
//! (`k1_sqlite.rs`, as it stands) writes it into SQLite. Meanwhile broker and subscriber are killed 20 times with SIGKILL, and the
//! producer forgets everything just as often and goes on after `last_seq`. Beside them runs the control, a subscriber without a
//! recipe (`plain.rs`), killed along with the other: its effects are repeated. At the end history, log and table are compared byte by
//! byte. Exit code 1 if they differ.
//!
//! `make demo`, or with other chances: `make demo ARGS="--seed 7"`

#[path = "demo/source.rs"]
mod source;

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressStyle};
use rusqlite::Connection;
use tidelog::client::{Client, Endpoint, NewEvent, Producer, Protocol};
use tidelog::types::request::Start;
use xxhash_rust::xxh3::Xxh3;

type Error = Box<dyn std::error::Error + Send + Sync>;

const STREAM: &str = "history";
const KILLS: usize = 20;
/// Events of one append.
const BATCH: usize = 100;
/// Nothing here takes this long.
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    match demo().await {
        Ok(true) => {}
        Ok(false) => std::process::exit(1),
        Err(error) => {
            eprintln!("demo: {error}");
            std::process::exit(1);
        }
    }
}

async fn demo() -> Result<bool, Error> {
    let seed = match std::env::args().skip(1).collect::<Vec<_>>().as_slice() {
        [] => u64::from(std::process::id()),
        [name, seed] if name == "--seed" => seed.parse()?,
        _ => return Err("the one argument there is is --seed NUMBER".into()),
    };
    let source = source::gather();
    if source.events.len() < source::ENOUGH {
        return Err(format!("this machine has a history of {} events only; {} are wanted", source.events.len(), source::ENOUGH).into());
    }
    println!("The history of this machine's software:");
    source.from.iter().for_each(|part| println!("  {part}"));

    let events = Arc::new(source.events);
    let end = events.len() as u64;
    let dir = tempfile::tempdir()?;
    let began = Instant::now();
    let mut world = World::start(dir.path()).await?;
    world.push_and_kill(&events, Chance(seed)).await?;
    let pushed = began.elapsed();
    for who in ["k1", "plain"] {
        world.until(who, |next| next >= end).await?;
    }
    let seconds = began.elapsed().as_secs_f64();
    world.bar.finish_and_clear();
    world.stop()?;

    // What is compared comes from the disk, not from anybody's memory.
    let mut broker = Broker::spawn(dir.path())?;
    broker.ready()?;
    let history: Rows = events.iter().map(|event| row(&event.kind, &event.key, &event.data)).collect();
    let log = read_log(&client(dir.path())?).await?;
    let table = read_table(&dir.path().join("k1.db"))?;
    let [twice, twice_without] = [repeated(&dir.path().join("k1.db"))?, repeated(&dir.path().join("plain.db"))?];
    stop(&mut broker.process, "the broker")?;

    let line = |name: &str, value: String| println!("  {name:<48} {value:>18}");
    let count = |n: usize| HumanCount(n as u64).to_string();
    let bytes: usize = history.iter().map(|(_, _, data)| data.len()).sum();
    println!();
    line("events: history", count(history.len()));
    line("events: log", count(log.len()));
    line("events: table of the K-1 subscriber", count(table.len()));
    line("hash: history", hash(&history));
    line("hash: log", hash(&log));
    line("hash: table", hash(&table));
    line("bytes of data", HumanBytes(bytes as u64).to_string());
    line("kills: broker", count(world.down.len()));
    line("kills: subscriber", count(world.subscriber_kills));
    line("producer forgot everything and went on", count(world.openings - 1));
    line("longest time from a kill to ready again", format!("{:.2} s", world.down.iter().max().copied().unwrap_or_default().as_secs_f64()));
    line("effects done twice: K-1 subscriber", HumanCount(twice).to_string());
    line("effects done twice: the one without a recipe", HumanCount(twice_without).to_string());
    line("seconds until all was stored", format!("{:.1}", pushed.as_secs_f64()));
    line("seconds until all was in the tables", format!("{seconds:.1}"));
    line("events per second, all kills included", count((history.len() as f64 / seconds) as usize));
    println!();
    let right = same("history", &history, "log", &log) & same("log", &log, "table", &table);
    if right {
        println!("History, log and table are equal, byte by byte.");
    }
    Ok(right)
}

/// An event as it is compared: type, key, data.
type Rows = Vec<(String, String, Vec<u8>)>;

fn row(kind: &str, key: &str, data: &[u8]) -> (String, String, Vec<u8>) {
    (kind.to_owned(), key.to_owned(), data.to_vec())
}

/// Of all parts, each with its length before it, so that no byte can move from one to the next.
fn hash(rows: &Rows) -> String {
    let mut hash = Xxh3::new();
    for (kind, key, data) in rows {
        for part in [kind.as_bytes(), key.as_bytes(), data] {
            hash.update(&(part.len() as u64).to_le_bytes());
            hash.update(part);
        }
    }
    format!("{:016x}", hash.digest())
}

fn same(left: &str, these: &Rows, right: &str, those: &Rows) -> bool {
    let differs = (0..these.len().max(those.len())).find(|at| these.get(*at) != those.get(*at));
    if let Some(at) = differs {
        let text = |rows: &Rows| rows.get(at).map(|(kind, key, data)| format!("{kind} {key} {:?}", String::from_utf8_lossy(data)));
        println!("{left} and {right} differ from event {at} on:\n  {left}: {:?}\n  {right}: {:?}", text(these), text(those));
    }
    differs.is_none()
}

async fn read_log(client: &Client) -> Result<Rows, Error> {
    let state = client.admin().stream(STREAM).await?.state;
    let mut consumer = client.consumer(STREAM).from(Start::Earliest).open().await?;
    let mut rows = Vec::new();
    while consumer.position() < state.next_offset {
        let event = consumer.next_event().await.ok_or("the log ended early")??;
        if event.offset != rows.len() as u64 {
            return Err(format!("offset {} came where {} was due", event.offset, rows.len()).into());
        }
        rows.push(row(&event.kind, &event.key, &event.data));
    }
    consumer.close().await;
    Ok(rows)
}

/// In the order in which the effects happened; their offsets must be those of the log.
fn read_table(path: &Path) -> Result<Rows, Error> {
    let db = Connection::open(path)?;
    let mut query = db.prepare("SELECT log_offset, type, key, data FROM effects ORDER BY position")?;
    let mut found = query.query([])?;
    let mut rows = Vec::new();
    while let Some(effect) = found.next()? {
        if effect.get::<_, i64>(0)? != rows.len() as i64 {
            return Err(format!("the table has the effect of offset {} where {} was due", effect.get::<_, i64>(0)?, rows.len()).into());
        }
        rows.push((effect.get(1)?, effect.get(2)?, effect.get(3)?));
    }
    Ok(rows)
}

/// Effects of events that had one already.
fn repeated(path: &Path) -> Result<u64, Error> {
    let count = "SELECT count(*) - count(DISTINCT log_offset) FROM effects";
    Ok(Connection::open(path)?.query_row(count, [], |row| row.get::<_, i64>(0))? as u64)
}

/// Chance from a seed (xorshift).
struct Chance(u64);

impl Chance {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = (self.0 ^ 0x9e37_79b9_7f4a_7c15).rotate_left(23).wrapping_mul(0x2545_f491_4f6c_dd1d);
        (self.0 >> 20) % n.max(1)
    }
}

/// The processes: a broker, the K-1 subscriber, the control.
struct World {
    dir: PathBuf,
    client: Client,
    broker: Broker,
    /// Name, which is also that of its table, and process.
    subscribers: Vec<(&'static str, Child)>,
    /// How long the broker was away each time it was killed.
    down: Vec<Duration>,
    subscriber_kills: usize,
    openings: usize,
    bar: ProgressBar,
}

impl World {
    async fn start(dir: &Path) -> Result<Self, Error> {
        let mut broker = Broker::spawn(dir)?;
        broker.ready()?;
        let client = client(dir)?;
        client.admin().create_stream(STREAM, serde_json::Map::new()).await?;
        let subscribers = vec![("k1", subscriber(dir, "k1")?), ("plain", subscriber(dir, "plain")?)];
        // Draws on a terminal only.
        let bar = ProgressBar::new(0).with_style(ProgressStyle::with_template("{msg:<28} {wide_bar} {human_pos}/{human_len} {eta}")?);
        Ok(Self { dir: dir.to_owned(), client, broker, subscribers, down: Vec::new(), subscriber_kills: 0, openings: 0, bar })
    }

    /// In as many pieces as there are kills, and one more: a kill falls somewhere into the work on each piece but the last.
    async fn push_and_kill(&mut self, events: &Arc<Vec<NewEvent>>, mut chance: Chance) -> Result<(), Error> {
        self.bar.set_length(events.len() as u64);
        let mut victims: Vec<bool> = (0..KILLS).map(|kill| kill < KILLS / 2).collect();
        (1..victims.len()).rev().for_each(|last| victims.swap(last, chance.below(last as u64 + 1) as usize));
        let stored = Arc::new(AtomicU64::new(0));
        for piece in 0..=KILLS {
            let (from, to) = (events.len() * piece / (KILLS + 1), events.len() * (piece + 1) / (KILLS + 1));
            self.openings += 1;
            let pushing = tokio::spawn(push(self.client.clone(), events.clone(), to, stored.clone()));
            if let Some(broker) = victims.get(piece) {
                let when = from as u64 + chance.below((to - from) as u64 * 3 / 4);
                self.bar.set_message(format!("kill {} of {KILLS}: {}", piece + 1, if *broker { "broker" } else { "subscriber" }));
                if *broker {
                    wait(&format!("the producer did not get to {when}"), || stored.load(Ordering::SeqCst) > when).await?;
                    self.kill_broker()?;
                } else {
                    self.until("k1", |next| next > when).await?;
                    self.kill_subscribers()?;
                }
            }
            pushing.await??;
            self.bar.set_position(to as u64);
        }
        self.bar.set_message("catching up");
        Ok(())
    }

    fn kill_broker(&mut self) -> Result<(), Error> {
        let since = Instant::now();
        kill(&mut self.broker.process, "the broker")?;
        self.broker = Broker::spawn(&self.dir)?;
        self.broker.ready()?;
        self.down.push(since.elapsed());
        Ok(())
    }

    fn kill_subscribers(&mut self) -> Result<(), Error> {
        for (name, process) in &mut self.subscribers {
            kill(process, name).map_err(|why| format!("{why}: {}", std::fs::read_to_string(self.dir.join(format!("{name}.log"))).unwrap_or_default()))?;
            *process = subscriber(&self.dir, name)?;
        }
        self.subscriber_kills += 1;
        Ok(())
    }

    /// Waits until a subscriber's table is far enough; `next` is one past its last effect.
    async fn until(&mut self, name: &str, reached: impl Fn(u64) -> bool) -> Result<(), Error> {
        let path = self.dir.join(format!("{name}.db"));
        let next = || -> rusqlite::Result<u64> {
            let next = Connection::open(&path)?.query_row(
                "SELECT ifnull(max(log_offset) + 1, 0) FROM effects WHERE position = (SELECT max(position) FROM effects)",
                [],
                |row| row.get::<_, i64>(0),
            )?;
            Ok(next as u64)
        };
        // Until there is a table, and while it is busy, there is no answer.
        wait(&format!("subscriber {name} stopped at {:?}", next()), || next().is_ok_and(&reached)).await
    }

    fn stop(&mut self) -> Result<(), Error> {
        for (name, process) in &mut self.subscribers {
            stop(process, name)?;
        }
        stop(&mut self.broker.process, "the broker")
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for (_, process) in &mut self.subscribers {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// Opens the producer, asks where it stands, and goes on from there up to `to`: nothing is kept in between (P-16).
async fn push(client: Client, events: Arc<Vec<NewEvent>>, to: usize, stored: Arc<AtomicU64>) -> Result<(), Error> {
    let producer: Producer = loop {
        match client.producer(STREAM, "demo").open().await {
            Ok(producer) => break producer,
            Err(error) if error.is_retryable() => tokio::time::sleep(Duration::from_millis(20)).await,
            Err(error) => return Err(error.into()),
        }
    };
    let from = producer.last_seq().map_or(0, |last| last as usize + 1);
    for batch in events[from..to].chunks(BATCH) {
        let receipt = producer.send(batch.to_vec()).await?;
        let (end, stored) = (receipt.seq() + batch.len() as u64, stored.clone());
        tokio::spawn(async move {
            if receipt.await.is_ok() {
                stored.fetch_max(end, Ordering::SeqCst);
            }
        });
    }
    Ok(producer.close().await?)
}

async fn wait(otherwise: &str, done: impl Fn() -> bool) -> Result<(), Error> {
    let since = Instant::now();
    while !done() {
        if since.elapsed() > PATIENCE {
            return Err(format!("{otherwise}, {} s ago", PATIENCE.as_secs()).into());
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    Ok(())
}

/// `tidelog serve`
struct Broker {
    process: Child,
}

impl Broker {
    fn spawn(dir: &Path) -> Result<Self, Error> {
        let mut command = Command::new(binary("tidelog")?);
        command.arg("serve").arg("--data").arg(dir.join("data")).args(["--listen", "127.0.0.1:0"]);
        let process = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log(dir, "broker")?).spawn()?;
        Ok(Self { process })
    }

    /// Waits for its line `ready http://HOST:PORT`.
    fn ready(&mut self) -> Result<(), Error> {
        let mut line = String::new();
        BufReader::new(self.process.stdout.take().ok_or("the broker has no output")?).read_line(&mut line)?;
        if line.starts_with("ready ") { Ok(()) } else { Err(format!("the broker said {line:?} instead of ready").into()) }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn client(dir: &Path) -> Result<Client, Error> {
    Ok(Client::new(Endpoint::Unix(dir.join("data/tidelog.sock")), Protocol::Binary, None)?)
}

fn subscriber(dir: &Path, name: &str) -> Result<Child, Error> {
    let mut command = Command::new(binary(if name == "k1" { "examples/k1_sqlite" } else { "examples/plain" })?);
    command.arg("--socket").arg(dir.join("data/tidelog.sock")).args(["--stream", STREAM, "--subscription", name]);
    command.arg("--db").arg(dir.join(format!("{name}.db")));
    Ok(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log(dir, name)?).spawn()?)
}

fn log(dir: &Path, name: &str) -> Result<File, Error> {
    Ok(File::options().create(true).append(true).open(dir.join(format!("{name}.log")))?)
}

/// A program that was built beside this one.
fn binary(name: &str) -> Result<PathBuf, Error> {
    let here = std::env::current_exe()?;
    let folder = here.parent().and_then(Path::parent).ok_or("this program is in no folder")?;
    let path = folder.join(name);
    if path.exists() { Ok(path) } else { Err(format!("{} is not built; run `make demo`", path.display()).into()) }
}

/// SIGKILL, of something that runs.
fn kill(process: &mut Child, name: &str) -> Result<(), Error> {
    if let Some(status) = process.try_wait()? {
        return Err(format!("{name} had ended by itself ({status})").into());
    }
    process.kill()?;
    process.wait()?;
    Ok(())
}

/// SIGTERM, and exit 0.
fn stop(process: &mut Child, name: &str) -> Result<(), Error> {
    let pid = rustix::process::Pid::from_raw(process.id() as i32).ok_or("a process has a number")?;
    rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
    let status = process.wait()?;
    if status.success() { Ok(()) } else { Err(format!("{name} ended with {status}").into()) }
}
