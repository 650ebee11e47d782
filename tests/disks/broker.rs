//! The release binary as a process, on a directory and with the settings of a test: small memtables, so that files come soon.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tidelog::client::{Client, Endpoint, Protocol};

use crate::shim::Shim;

/// Nothing here takes this long, not even on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// How to start a broker.
#[derive(Clone, Default)]
pub struct Setup {
    settings: Vec<(&'static str, String)>,
    arguments: Vec<&'static str>,
    shim: Option<Shim>,
}

impl Setup {
    /// Tables of a mebibyte, no watermark, no ballast.
    pub fn small() -> Self {
        let all = [("WRITE_BUFFER_BYTES", 1 << 20), ("CACHE_BYTES", 8 << 20), ("FREE_MIN_BYTES", 0), ("BALLAST_BYTES", 0)];
        all.into_iter().fold(Self::default(), |setup, (name, value): (_, u64)| setup.storage(name, value))
    }

    /// A setting of the section `storage`; the last one counts.
    pub fn storage(mut self, name: &'static str, value: u64) -> Self {
        self.settings.retain(|(other, _)| *other != name);
        self.settings.push((name, value.to_string()));
        self
    }

    pub fn argument(mut self, argument: &'static str) -> Self {
        self.arguments.push(argument);
        self
    }

    pub fn shim(mut self, shim: &Shim) -> Self {
        self.shim = Some(shim.clone());
        self
    }

    fn command(&self, data: &Path) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidelog"));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("TIDELOG_") {
                command.env_remove(name);
            }
        }
        command.arg("serve").arg("--data").arg(data).arg("--socket").arg(socket(data));
        command.args(["--listen", "127.0.0.1:0", "--insecure-operator-on-loopback"]).args(&self.arguments);
        command.envs(self.settings.iter().map(|(name, value)| (format!("TIDELOG_STORAGE__{name}"), value)));
        if let Some(shim) = &self.shim {
            command.envs(shim.environment());
        }
        command
    }

    /// Starts it and waits until it accepts; `Err` is the exit code and what it said on stderr.
    pub fn start(&self, data: &Path) -> Result<Broker, (Option<i32>, String)> {
        let log = data.with_extension("log");
        let begins = log.metadata().map_or(0, |m| m.len()) as usize;
        let stderr = File::options().create(true).append(true).open(&log).expect("a log file");
        let mut child = self.command(data).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(stderr).spawn().expect("the binary starts");
        let stdout = child.stdout.take().expect("stdout is piped");
        let (sender, lines): (_, Receiver<String>) = channel();
        // Ends with the process: then its stdout is closed.
        std::thread::spawn(move || BufReader::new(stdout).lines().map_while(Result::ok).try_for_each(|line| sender.send(line).ok()));
        let mut broker = Broker { child, socket: socket(data), log, begins };
        match lines.recv_timeout(PATIENCE) {
            Ok(line) => {
                assert!(line.starts_with("ready "), "the first line is {line:?}");
                Ok(broker)
            }
            Err(_) => {
                let status = broker.wait();
                Err((status.code(), broker.said()))
            }
        }
    }

    /// Starts it; it must.
    pub fn must_start(&self, data: &Path) -> Broker {
        self.start(data).unwrap_or_else(|(code, said)| panic!("the broker on {} ended with {code:?}: {said}", data.display()))
    }
}

/// Outside of the data directory: an image that is mounted may have a longer path than a socket's address holds.
fn socket(data: &Path) -> PathBuf {
    let sum = data.as_os_str().as_encoded_bytes().iter().fold(0u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(*byte)));
    std::env::temp_dir().join(format!("tidelog-disks-{}-{sum:016x}.sock", std::process::id()))
}

/// A running broker; killed when it is dropped.
pub struct Broker {
    child: Child,
    socket: PathBuf,
    log: PathBuf,
    /// Where its own lines begin in the log.
    begins: usize,
}

impl Broker {
    pub fn client(&self, protocol: Protocol) -> Client {
        Client::new(Endpoint::Unix(self.socket.clone()), protocol, None).expect("a client without a key")
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id() as i32).expect("a child has a number");
        let _ = kill_process(pid, signal);
    }

    /// Its exit, if it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child can be asked")
    }

    /// Its exit.
    pub fn wait(&mut self) -> ExitStatus {
        let since = Instant::now();
        loop {
            if let Some(status) = self.ended() {
                return status;
            }
            assert!(since.elapsed() < PATIENCE, "process {} did not end within {} s:\n{}", self.child.id(), PATIENCE.as_secs(), self.said());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn kill(mut self) {
        let _ = self.child.kill();
        self.wait();
    }

    /// SIGTERM, and its exit.
    pub fn stop(mut self) {
        self.signal(Signal::TERM);
        let status = self.wait();
        assert_eq!(status.code(), Some(0), "a clean stop ends with {status}: {}", self.said());
    }

    /// What this process said on stderr.
    pub fn said(&self) -> String {
        let log = std::fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(log.get(self.begins..).unwrap_or_default()).into_owned()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let said = self.said();
        assert!(std::thread::panicking() || !said.contains("panicked at"), "the broker panicked:\n{said}");
    }
}
