//! The release binary on a disk of its own, and what the system says of its process.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tokio::net::{TcpStream, UnixStream};

use crate::support::{Answer, exchange};

/// See the module.
pub struct Broker {
    child: Child,
    pub at: SocketAddr,
    dir: tempfile::TempDir,
}

impl Broker {
    /// With small caches, so that what attacks cost is not hidden by what a database may have.
    pub fn start() -> Self {
        Self::with(&[], &[])
    }

    /// `before`: a command line that runs the broker, such as `sh -c 'ulimit …; exec "$@"' --`.
    pub fn with(before: &[&str], settings: &[(&str, &str)]) -> Self {
        Self::of(env!("CARGO_BIN_EXE_tidelog"), before, settings)
    }

    /// Another build of it.
    pub fn of(binary: &str, before: &[&str], settings: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut line: Vec<&str> = before.to_vec();
        line.extend([binary, "serve", "--insecure-operator-on-loopback", "--listen", "127.0.0.1:0", "--data"]);
        let mut command = Command::new(line[0]);
        command.args(&line[1..]).arg(dir.path().join("data"));
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("TIDELOG_")) {
            command.env_remove(name);
        }
        for (name, value) in [
            ("STORAGE__FREE_MIN_BYTES", "0"),
            ("STORAGE__BALLAST_BYTES", "0"),
            ("STORAGE__CACHE_BYTES", "8388608"),
            ("STORAGE__WRITE_BUFFER_BYTES", "8388608"),
            ("BROKER__HOT_ENTRIES", "1000"),
            ("BROKER__TAIL_BYTES", "8388608"),
            ("LOG__LEVEL", "error"),
        ]
        .iter()
        .chain(settings)
        {
            command.env(format!("TIDELOG_{name}"), value);
        }
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().expect("the broker starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("its output")).read_line(&mut line).expect("a line");
        let at = line.trim().strip_prefix("ready http://").and_then(|at| at.parse().ok()).unwrap_or_else(|| panic!("no address in {line:?}"));
        Self { child, at, dir }
    }

    /// Its directory.
    pub fn data(&self) -> std::path::PathBuf {
        self.dir.path().join("data")
    }

    /// A request over TCP.
    pub async fn ask(&self, method: &str, path: &str, body: &str) -> Answer {
        let stream = TcpStream::connect(self.at).await.expect("the port is open");
        exchange(stream, method, path, &[("Content-Type", "application/json")], body.as_bytes()).await
    }

    /// A request over the Unix socket.
    pub async fn ask_locally(&self, method: &str, path: &str, body: &str) -> Answer {
        let stream = UnixStream::connect(self.data().join("tidelog.sock")).await.expect("the socket is there");
        exchange(stream, method, path, &[("Content-Type", "application/json")], body.as_bytes()).await
    }

    pub async fn create(&self, stream: &str) {
        let answer = self.ask("POST", "/v1/streams", &format!("{{\"name\":\"{stream}\"}}")).await;
        assert_eq!(answer.status, 201, "{:?}", String::from_utf8_lossy(&answer.body));
    }

    /// What `/metrics` says, as text, over the Unix socket: the same connection each time.
    pub async fn metrics(&self) -> String {
        String::from_utf8(self.ask_locally("GET", "/metrics", "").await.body).expect("text")
    }

    /// One of its numbers.
    pub async fn metric(&self, name: &str) -> f64 {
        number(&self.metrics().await, name)
    }

    /// The number of the process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Resident memory in MiB.
    pub fn rss(&self) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("the process lives");
        let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).expect("a size");
        line.trim().trim_end_matches(" kB").parse::<f64>().expect("a number") / 1024.0
    }

    /// Open sockets. Files of the storage engine come and go by themselves.
    pub fn sockets(&self) -> usize {
        let dir = std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).expect("the process lives");
        let is_socket = |path: &Path| std::fs::read_link(path).is_ok_and(|to| to.to_string_lossy().starts_with("socket:"));
        dir.filter_map(Result::ok).filter(|entry| is_socket(&entry.path())).count()
    }

    /// Still running?
    pub fn lives(&mut self) -> bool {
        self.child.try_wait().expect("a child can be asked").is_none()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A number of `/metrics`.
pub fn number(text: &str, name: &str) -> f64 {
    let line = text.lines().find(|line| line.split(' ').next() == Some(name)).unwrap_or_else(|| panic!("no {name} in {text}"));
    line.rsplit(' ').next().and_then(|n| n.parse().ok()).expect("a number")
}
