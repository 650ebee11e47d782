//! What `tidelog login` leaves behind, and to whom later commands show it: the real binary against a broker, with a home of its own.

use std::io::Read as _;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::support::{Broker, serve};

/// Somebody's machine.
pub struct Home(tempfile::TempDir);

impl Home {
    pub fn new() -> Self {
        let home = Self(tempfile::tempdir().expect("a temporary folder"));
        std::fs::write(home.password(), "correct horse\n").expect("a file");
        home
    }

    /// A file of the person's, beside the configuration.
    pub fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn password(&self) -> PathBuf {
        self.file("password")
    }

    pub fn sessions(&self) -> Vec<PathBuf> {
        let files = std::fs::read_dir(self.file("config/tidelog/sessions")).into_iter().flatten();
        files.map(|file| file.expect("an entry").path()).collect()
    }

    /// A command of this machine, whose environment is otherwise empty.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env_clear().env("HOME", self.0.path()).env("XDG_CONFIG_HOME", self.file("config"));
        command
    }

    /// Runs a command; the broker lives on this runtime, so nothing waits on its threads.
    pub async fn run(&self, arguments: &[&str]) -> Output {
        self.run_with(&[], arguments).await
    }

    pub async fn run_with(&self, env: &[(&str, &str)], arguments: &[&str]) -> Output {
        let mut command = self.command(env!("CARGO_BIN_EXE_tidelog"));
        command.args(arguments).envs(env.iter().copied());
        tokio::task::spawn_blocking(move || command.output().expect("the binary runs")).await.expect("it ends")
    }

    /// One that must go well.
    pub async fn good(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments).await;
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    }

    /// One that must not: its exit code, and what it said.
    pub async fn bad(&self, arguments: &[&str]) -> (i32, String) {
        let output = self.run(arguments).await;
        assert!(!output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stdout));
        (output.status.code().expect("an exit code"), String::from_utf8(output.stderr).expect("text"))
    }

    /// The lines of JSON that one prints.
    pub async fn lines(&self, arguments: &[&str]) -> Vec<serde_json::Value> {
        let printed = self.good(&[arguments, &["--json"]].concat()).await;
        printed.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
    }

    pub async fn log_in(&self, url: &str) -> String {
        self.good(&["login", "alice", "--url", url, "--password-file", self.password().to_str().expect("text")]).await
    }
}

/// Who may read it.
pub fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).expect("it is there").permissions().mode() & 0o777
}

/// Somebody else's address, and the head of the first request that comes there. The caller gets no answer.
pub fn stranger() -> (String, tokio::task::JoinHandle<String>) {
    let stranger = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = format!("http://{}", stranger.local_addr().expect("an address"));
    let heard = tokio::task::spawn_blocking(move || {
        let (mut socket, _) = stranger.accept().expect("a caller");
        let mut heard = Vec::new();
        let mut piece = [0; 1024];
        while !heard.windows(4).any(|end| end == b"\r\n\r\n") {
            match socket.read(&mut piece).expect("bytes") {
                0 => break,
                n => heard.extend_from_slice(&piece[..n]),
            }
        }
        String::from_utf8(heard).expect("text")
    });
    (address, heard)
}

pub fn url(broker: &Broker) -> String {
    format!("http://{}", broker.server.address())
}

/// Makes alice, or gives her the same password again, which ends her sessions.
pub async fn alice(broker: &Broker, home: &Home, command: &str) {
    let (socket, file) = (broker.server.socket().to_str().expect("text").to_owned(), home.password());
    home.good(&["user", command, "alice", "--socket", &socket, "--password-file", file.to_str().expect("text")]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_shown_to_the_broker_that_gave_it_and_to_nobody_else() {
    let (broker, home) = (serve().await, Home::new());
    alice(&broker, &home, "create").await;
    let said = home.log_in(&url(&broker)).await;
    let [file] = &home.sessions()[..] else { panic!("one session: {:?}", home.sessions()) };
    assert_eq!((mode(file), mode(file.parent().expect("a folder"))), (0o600, 0o700));
    let token = std::fs::read_to_string(file).expect("a session").trim().to_owned();
    assert!(token.starts_with("tlc_") && !said.contains(&token), "{said}");
    assert!(home.good(&["whoami", "--json", "--url", &url(&broker)]).await.contains("console"));

    let (address, heard) = stranger();
    assert!(!home.run(&["whoami", "--url", &address]).await.status.success());
    let heard = heard.await.expect("it heard");
    assert!(heard.starts_with("GET /v1/sessions/current"), "{heard}");
    assert!(!heard.to_ascii_lowercase().contains("authorization") && !heard.contains(&token[..8]), "{heard}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_is_over_is_in_the_way_of_neither_login_nor_logout() {
    let (broker, home) = (serve().await, Home::new());
    alice(&broker, &home, "create").await;
    home.log_in(&url(&broker)).await;
    alice(&broker, &home, "set").await;
    assert_eq!(home.run(&["whoami", "--url", &url(&broker)]).await.status.code(), Some(4), "the old session is over");
    home.log_in(&url(&broker)).await;
    home.good(&["whoami", "--url", &url(&broker)]).await;
    home.good(&["logout", "--url", &url(&broker)]).await;
    assert_eq!(home.sessions(), Vec::<PathBuf>::new());
    home.log_in(&url(&broker)).await;
    alice(&broker, &home, "set").await;
    home.good(&["logout", "--url", &url(&broker)]).await;
    assert_eq!(home.sessions(), Vec::<PathBuf>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn on_the_socket_a_session_needs_a_place_that_is_said() {
    let (broker, home) = (serve().await, Home::new());
    alice(&broker, &home, "create").await;
    let (socket, password) = (broker.server.socket().to_str().expect("text").to_owned(), home.password());
    let arguments = ["login", "alice", "--socket", &socket, "--password-file", password.to_str().expect("text")];
    let output = home.run(&arguments).await;
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--to FILE"));
    let to = home.file("kept");
    home.good(&[&arguments[..], &["--to", to.to_str().expect("text")]].concat()).await;
    home.good(&["whoami", "--url", &url(&broker), "--key-file", to.to_str().expect("text")]).await;
}
