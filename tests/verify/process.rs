//! The broker with fault points as a process, and its command line.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::Value;
use tidelog::client::{Client, Endpoint, Protocol};

/// Nothing here takes this long, not even on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The binary, without settings of whoever runs the test.
pub fn tidelog() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidelog-faults"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("TIDELOG_") {
            command.env_remove(name);
        }
    }
    command
}

/// `tidelog serve` on a directory; killed when dropped.
pub struct Broker {
    child: Child,
    data: PathBuf,
    lines: Receiver<String>,
}

impl Broker {
    /// Starts it and waits until it accepts. `broken`: what it does wrong, as environment.
    pub fn start(data: &Path, broken: &[(&str, &str)]) -> Self {
        let log = std::fs::File::options().create(true).append(true).open(data.with_extension("log")).expect("a log file");
        let mut command = tidelog();
        command.arg("serve").arg("--data").arg(data).args(["--listen", "127.0.0.1:0"]).envs(broken.iter().copied());
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).spawn().expect("the binary starts");
        let stdout = child.stdout.take().expect("stdout is piped");
        let (sender, lines) = channel();
        std::thread::spawn(move || BufReader::new(stdout).lines().map_while(Result::ok).try_for_each(|line| sender.send(line).ok()));
        let broker = Self { child, data: data.to_owned(), lines };
        let line = broker.lines.recv_timeout(PATIENCE);
        assert!(line.is_ok_and(|line| line.starts_with("ready ")), "the broker did not get ready:\n{}", broker.log());
        broker
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.data.with_extension("log")).unwrap_or_default()
    }

    pub fn socket(data: &Path) -> PathBuf {
        data.join("tidelog.sock")
    }

    pub fn client(&self) -> Client {
        Client::new(Endpoint::Unix(Self::socket(&self.data)), Protocol::Binary, None).expect("a client without a key")
    }

    /// Has it not ended by itself?
    pub fn is_alive(&mut self) -> bool {
        self.child.try_wait().expect("a child can be asked").is_none()
    }

    /// SIGKILL, and it is gone.
    pub fn kill(mut self) {
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it is waited for");
    }

    /// SIGTERM, and a clean end.
    pub fn stop(self) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), rustix::process::Signal::TERM).expect("it can be told");
        assert!(self.ended().success(), "a clean stop exits 0");
    }

    fn ended(mut self) -> ExitStatus {
        let since = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("a child can be asked") {
                return status;
            }
            assert!(since.elapsed() < PATIENCE, "the broker did not end within {} s", PATIENCE.as_secs());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a command said: exit code, its JSON line, stderr.
pub struct Said {
    pub code: Option<i32>,
    pub json: Value,
    pub stderr: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        let json = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
        Self { code: output.status.code(), json, stderr: String::from_utf8_lossy(&output.stderr).into_owned() }
    }
}

/// `tidelog store check --json` on a directory.
pub fn store_check(data: &Path, more: &[&str]) -> Said {
    tidelog().args(["store", "check", "--json", "--no-progress", "--data"]).arg(data).args(more).output().expect("it runs").into()
}
