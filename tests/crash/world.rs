//! Every process of a run, in one directory: started, killed, frozen, replaced.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tidelog::client::Client;

use crate::dice::Dice;
use crate::load::{self, INPUT, REPLACED, SUBSCRIBERS};
use crate::process::{self, Broker, PATIENCE, Process, tidelog};
use crate::readback;

/// What K-3 writes.
pub const OUTPUT: &str = "b";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Broker,
    /// Idempotent producers, several per process.
    Producers(usize),
    /// K-1 into SQLite.
    Exact(usize),
    /// K-3 into the output stream.
    Commit,
    /// No recipe.
    Plain,
    /// Readers over WebSocket and gRPC that ack.
    Subscribers,
}

/// Of a hundred kills, whose they are.
pub const KILLS: [(Role, usize); 8] = [
    (Role::Broker, 42),
    (Role::Producers(0), 10),
    (Role::Producers(1), 8),
    (Role::Exact(0), 7),
    (Role::Exact(1), 7),
    (Role::Commit, 11),
    (Role::Plain, 7),
    (Role::Subscribers, 8),
];
/// Who is frozen, replaced, and thawed beside its successor.
pub const FREEZES: [Role; 5] = [Role::Exact(0), Role::Exact(1), Role::Commit, Role::Subscribers, Role::Subscribers];

/// The subscription that a role uses.
fn subscription(role: Role) -> &'static str {
    match role {
        Role::Broker | Role::Producers(_) | Role::Subscribers => "",
        Role::Exact(which) => ["k1-0", "k1-1"][which],
        Role::Commit => "k3",
        Role::Plain => "plain",
    }
}

/// A process that is started again each time it is killed.
pub struct Worker {
    pub role: Role,
    pub process: Process,
    starts: usize,
    /// Rows of its table when this process began.
    rows: u64,
}

/// See the module.
pub struct World {
    pub dir: PathBuf,
    seed: u64,
    examples: PathBuf,
    /// What producers noted, file by file.
    pub notes: Vec<PathBuf>,
    /// What subscribers noted, file by file.
    pub looks: Vec<PathBuf>,
    pub workers: Vec<Worker>,
    pub broker: Broker,
}

impl World {
    pub fn new(dir: PathBuf, seed: u64, examples: PathBuf, broker: Broker) -> Self {
        Self { dir, seed, examples, notes: Vec::new(), looks: Vec::new(), workers: Vec::new(), broker }
    }

    pub fn db(&self, role: Role) -> PathBuf {
        match role {
            Role::Exact(which) => self.dir.join(format!("k1-{which}.db")),
            _ => self.dir.join("plain.db"),
        }
    }

    fn command(&mut self, role: Role, starts: usize) -> Command {
        let socket = Broker::socket_of(&self.dir.join("data"));
        let seed = self.seed.wrapping_add(1000 * starts as u64);
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
                let command = load::producers(&socket, &file, &ids, seed);
                self.notes.push(file);
                command
            }
            Role::Subscribers => {
                let file = self.dir.join(format!("looks-{starts}"));
                let command = load::subscribers(&socket, &file, seed);
                self.looks.push(file);
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

    pub fn start(&mut self, role: Role) {
        let command = &mut self.command(role, 0);
        self.workers.push(Worker { role, process: Process::spawn(command), starts: 1, rows: 0 });
    }

    pub fn worker(&mut self, role: Role) -> &mut Worker {
        self.workers.iter_mut().find(|w| w.role == role).unwrap_or_else(|| panic!("{role:?} is no worker"))
    }

    /// Starts a role anew, in the place of the process that had it; that one comes back.
    fn replace(&mut self, role: Role) -> Process {
        let rows = if role == Role::Plain { readback::progress(&self.db(role)).map_or(0, |(rows, _)| rows) } else { 0 };
        let starts = self.worker(role).starts;
        let command = &mut self.command(role, starts);
        let worker = self.worker(role);
        (worker.starts, worker.rows) = (starts + 1, rows);
        std::mem::replace(&mut worker.process, Process::spawn(command))
    }

    pub fn kill(&mut self, role: Role, dice: &mut Dice) {
        match role {
            Role::Broker => {
                // Now and then it is killed while it recovers from the last time.
                if !dice.one_in(5) {
                    self.broker.ready();
                }
                assert!(self.broker.kill(), "the broker had ended by itself");
                self.broker = Broker::spawn_as(tidelog(), &self.dir.join("data"), self.broker.address.clone());
                return;
            }
            Role::Plain => self.hold_between_acks(),
            _ => {}
        }
        assert!(self.worker(role).process.kill(), "{role:?} had ended by itself:\n{}", self.log(role));
        drop(self.replace(role));
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
    pub async fn freeze(&mut self, role: Role, client: &Client) {
        self.broker.ready();
        if role == Role::Subscribers {
            return self.freeze_subscribers(client).await;
        }
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

    /// The same for the readers that speak for themselves: the successor has opened every session before the old ones wake up.
    async fn freeze_subscribers(&mut self, client: &Client) {
        let role = Role::Subscribers;
        let look = || async {
            let all = client.admin().subscriptions(INPUT).await.map_err(|e| e.to_string())?;
            Ok::<_, String>(all.into_iter().filter(|s| SUBSCRIBERS.iter().any(|(name, _)| s.name == *name)).collect::<Vec<_>>())
        };
        let before = look().await.unwrap_or_default();
        let next_of = |name: &str| before.iter().find(|s| s.name == name).map_or(0, |s| s.next);
        until(PATIENCE, || async {
            let now = look().await?;
            let at_work = now.iter().filter(|s| s.status == "Running" && s.next > next_of(&s.name)).count();
            if at_work == SUBSCRIBERS.len() { Ok(()) } else { Err(format!("{at_work} of the subscribers are at work:\n{}", self.log(role))) }
        })
        .await;
        self.worker(role).process.signal(Signal::STOP);
        let before = look().await.expect("the broker answers");
        let mut old = self.replace(role);
        until(PATIENCE, || async {
            let now = look().await?;
            let taken = now.iter().filter(|s| before.iter().any(|b| b.name == s.name && b.epoch < s.epoch)).count();
            if taken == SUBSCRIBERS.len() { Ok(()) } else { Err(format!("{taken} of the subscribers are replaced:\n{}", self.log(role))) }
        })
        .await;
        old.signal(Signal::CONT);
        assert_eq!(old.wait().code(), Some(REPLACED), "the subscribers were replaced, and did not learn it:\n{}", self.log(role));
    }

    pub fn log(&self, role: Role) -> String {
        process::tail(&std::fs::read_to_string(self.dir.join(format!("{role:?}.log"))).unwrap_or_default())
    }
}

/// Waits for an effect, and says at the deadline what is missing.
pub async fn until<F: Future<Output = Result<(), String>>>(patience: Duration, check: impl Fn() -> F) {
    let since = Instant::now();
    while let Err(why) = check().await {
        assert!(since.elapsed() < patience, "after {} s: {why}", patience.as_secs());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
