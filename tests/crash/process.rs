//! Processes that are started, killed, frozen, asked to stop, and gone when the test is.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::process::{Pid, Signal};
use tidelog::client::{Client, Endpoint, Protocol};

/// Nothing here takes this long, not even on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A child that does not outlive its owner.
pub struct Process {
    child: Child,
}

impl Process {
    pub fn spawn(command: &mut Command) -> Self {
        let child = command.stdin(Stdio::null()).spawn().unwrap_or_else(|e| panic!("{command:?} does not start: {e}"));
        Self { child }
    }

    pub fn signal(&self, signal: Signal) {
        // The child is not reaped yet, so the number is still its own.
        let pid = Pid::from_raw(self.child.id() as i32).expect("a child has a number");
        let _ = rustix::process::kill_process(pid, signal);
    }

    /// SIGKILL. `false`: it had ended by itself.
    pub fn kill(&mut self) -> bool {
        let alive = self.ended().is_none();
        let _ = self.child.kill();
        let _ = self.child.wait();
        alive
    }

    /// Its exit, if it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child can be asked")
    }

    /// SIGTERM, and its exit.
    pub fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait()
    }

    /// Its exit.
    pub fn wait(&mut self) -> ExitStatus {
        let since = Instant::now();
        loop {
            if let Some(status) = self.ended() {
                return status;
            }
            assert!(since.elapsed() < PATIENCE, "process {} did not end within {} s", self.child.id(), PATIENCE.as_secs());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The release binary, without settings of whoever runs the test.
pub fn tidelog() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidelog"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("TIDELOG_") {
            command.env_remove(name);
        }
    }
    command
}

/// Where the newest broker of a run listens on TCP, for whoever asks from outside.
pub type Address = Arc<Mutex<Option<SocketAddr>>>;

/// `tidelog serve` on a directory.
pub struct Broker {
    data: PathBuf,
    process: Process,
    lines: Receiver<String>,
    is_ready: bool,
    pub address: Address,
}

impl Broker {
    pub fn socket_of(data: &Path) -> PathBuf {
        data.join("tidelog.sock")
    }

    /// Starts it; [`Broker::ready`] waits for it.
    pub fn spawn(data: &Path) -> Self {
        Self::spawn_as(tidelog(), data, Address::default())
    }

    /// The same with a binary and an environment of the caller's choice. `address` is told where it listens.
    pub fn spawn_as(mut command: Command, data: &Path, address: Address) -> Self {
        command.arg("serve");
        Self::spawn_with(command, data, address)
    }

    /// The same with a command that serves already.
    pub fn spawn_with(mut command: Command, data: &Path, address: Address) -> Self {
        let log = File::options().create(true).append(true).open(data.with_extension("log")).expect("a log file");
        command.arg("--data").arg(data).args(["--listen", "127.0.0.1:0"]);
        let mut process = Process::spawn(command.stdout(Stdio::piped()).stderr(log));
        let stdout = process.child.stdout.take().expect("stdout is piped");
        let (sender, lines) = channel();
        let here = address.clone();
        // Ends with the process: then its stdout is closed.
        std::thread::spawn(move || {
            BufReader::new(stdout).lines().map_while(Result::ok).try_for_each(|line| {
                if let Some(at) = line.strip_prefix("ready http://") {
                    *here.lock() = at.trim().parse().ok();
                }
                sender.send(line).ok()
            })
        });
        Self { data: data.to_owned(), process, lines, is_ready: false, address }
    }

    /// Starts it and waits until it accepts.
    pub fn start(data: &Path) -> Self {
        let mut broker = Self::spawn(data);
        broker.ready();
        broker
    }

    /// Waits for the line `ready http://HOST:PORT`.
    pub fn ready(&mut self) {
        if let Err(why) = self.try_ready() {
            let log = std::fs::read_to_string(self.data.with_extension("log")).unwrap_or_default();
            panic!("the broker did not get ready ({why}); its log ends:\n{}", tail(&log));
        }
    }

    /// The same, for one that may end instead: then with what.
    pub fn try_ready(&mut self) -> Result<(), String> {
        if !self.is_ready {
            let line = self.lines.recv_timeout(PATIENCE).map_err(|_| format!("{:?}", self.process.ended()))?;
            assert!(line.starts_with("ready "), "the first line is {line:?}");
            self.is_ready = true;
        }
        Ok(())
    }

    /// Freezes it for a while, like a machine that pauses.
    pub fn pause(&self, pause: Duration) {
        self.process.signal(Signal::STOP);
        std::thread::sleep(pause);
        self.process.signal(Signal::CONT);
    }

    /// Its exit, if it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.process.ended()
    }

    /// SIGKILL, and it is gone. `false`: it had ended by itself.
    pub fn kill(&mut self) -> bool {
        self.process.kill()
    }

    /// SIGTERM, and its exit.
    pub fn stop(&mut self) -> ExitStatus {
        self.process.stop()
    }

    /// SIGTERM only.
    pub fn ask_to_stop(&self) {
        self.process.signal(Signal::TERM);
    }

    /// Waits for its exit.
    pub fn wait(&mut self) -> ExitStatus {
        self.process.wait()
    }

    /// A client on the socket, whose path is the same after a restart.
    pub fn client(&self, protocol: Protocol) -> Client {
        client(&Self::socket_of(&self.data), protocol)
    }
}

/// A client of the broker on this socket.
pub fn client(socket: &Path, protocol: Protocol) -> Client {
    Client::new(Endpoint::Unix(socket.to_owned()), protocol, None).expect("a client without a key")
}

/// The last lines of a text.
pub fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(12)..].join("\n")
}

/// Where the examples are, built: they are the consumers that get killed. `cargo test --test crash` alone does not build them.
pub fn examples() -> PathBuf {
    let status = Command::new(env!("CARGO"))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(["build", "--release", "--quiet", "--example", "k1_sqlite", "--example", "k3_commit", "--example", "plain"])
        .status();
    assert!(status.expect("cargo runs").success(), "the examples do not build");
    Path::new(env!("CARGO_BIN_EXE_tidelog")).parent().expect("a binary is in a folder").join("examples")
}
