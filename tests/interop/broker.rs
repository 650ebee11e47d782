//! `tidelog dev` as a process, with a folder of its own.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::{PATIENCE, tools};

/// A fresh broker; it is gone when this is.
pub struct Broker {
    child: Child,
    folder: TempDir,
    /// `127.0.0.1:PORT`.
    pub address: String,
}

impl Broker {
    /// With temporary data.
    pub fn start() -> Self {
        Self::start_with(&[], &[])
    }

    /// With further flags and settings.
    pub fn start_with(flags: &[&str], settings: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidelog"));
        tools::without_settings(&mut command);
        // Its socket of convenience lies in this folder, so that brokers beside it do not meet.
        command.args(["dev", "--listen", "127.0.0.1:0"]).args(flags).env("XDG_RUNTIME_DIR", folder.path()).env("TMPDIR", folder.path());
        command.envs(settings.iter().copied()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("the broker starts");
        let stdout = child.stdout.take().expect("stdout is piped");
        let (sender, lines) = channel();
        // Reads to the end, so that the broker never waits for a reader.
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        let line = lines.recv_timeout(PATIENCE).expect("the broker gets ready");
        let address = line.strip_prefix("ready http://").unwrap_or_else(|| panic!("the first line is {line:?}")).to_owned();
        Self { child, folder, address }
    }

    /// Where the command line finds its socket.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// SIGTERM, without waiting.
    pub fn ask_to_stop(&self) {
        // The child is not reaped yet, so the number is still its own.
        let _ = kill_process(Pid::from_raw(self.child.id() as i32).expect("a child has a number"), Signal::TERM);
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
