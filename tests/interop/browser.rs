//! A page of JavaScript in a real Chromium: served by a tiny server, heard by what it writes to its console.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::process::{Child, Stdio};
use std::sync::mpsc::channel;
use std::time::Instant;

use crate::{PATIENCE, tools};

/// Chromium as a program runs it: no window, nothing sent anywhere by itself.
const FLAGS: &[&str] = &[
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-logging=stderr",
];

/// Serves pages on an origin that is known before there is a page.
pub struct Site {
    listener: TcpListener,
    /// `http://127.0.0.1:PORT`
    pub origin: String,
}

impl Site {
    pub fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let origin = format!("http://{}", listener.local_addr().expect("an address"));
        Self { listener, origin }
    }

    /// Shows a page until its console has said everything that was expected. Returns what it said.
    #[track_caller]
    pub fn show(&self, page: &str, complete: impl Fn(&str) -> bool) -> String {
        let (listener, page) = (self.listener.try_clone().expect("a socket"), page.to_owned());
        // Ends with the process: browsers open sockets that they do not use.
        std::thread::spawn(move || {
            for mut socket in listener.incoming().map_while(Result::ok) {
                let _ = socket.set_read_timeout(Some(PATIENCE));
                let _ = socket.read(&mut [0; 4096]);
                let head = format!("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", page.len());
                let _ = socket.write_all(head.as_bytes()).and_then(|()| socket.write_all(page.as_bytes()));
            }
        });
        let profile = tempfile::tempdir().expect("a temporary folder");
        let mut command = tools::tool("chromium");
        command.args(FLAGS).arg(format!("--user-data-dir={}", profile.path().display())).arg(&self.origin);
        let mut chromium = Browser(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("Chromium starts"));
        let stderr = chromium.0.stderr.take().expect("stderr is piped");
        let (sender, lines) = channel();
        std::thread::spawn(move || BufReader::new(stderr).lines().map_while(Result::ok).try_for_each(|line| sender.send(line).ok()));
        let (since, mut said, mut log) = (Instant::now(), String::new(), String::new());
        while !complete(&said) {
            let Ok(line) = lines.recv_timeout(PATIENCE.saturating_sub(since.elapsed())) else {
                panic!("the page did not say what was expected. It said:\n{said}\nChromium's log:\n{log}");
            };
            match console(&line) {
                Some(text) => said += &format!("{text}\n"),
                None => log += &format!("{line}\n"),
            }
        }
        said
    }
}

/// What a page wrote, out of a line of Chromium's log.
fn console(line: &str) -> Option<&str> {
    let (_, rest) = line.split_once(":CONSOLE:").or_else(|| line.split_once(":CONSOLE("))?;
    let (_, rest) = rest.split_once("] \"")?;
    rest.rsplit_once("\", source: ").map(|(text, _)| text)
}

/// Gone when the test is, and the processes it started with it: they end when their parent is gone.
struct Browser(Child);

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_line_of_the_console_is_told_from_the_rest_of_the_log() {
    let line = r#"[7:7:1124/194029.57:INFO:CONSOLE:1] "say "hello"", source: http://127.0.0.1:9911/page.html (1)"#;
    assert_eq!(console(line), Some(r#"say "hello""#));
    assert_eq!(console("[7:7:1124/194028.76:ERROR:dbus/bus.cc:405] Failed to connect to the bus"), None);
}
