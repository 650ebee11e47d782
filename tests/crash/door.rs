//! Where a client knocks, and one request over HTTP/1.1. Nothing here panics because the other side is gone: that is what the test is about.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;
use tidelog::types::Applied;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use crate::history::{Outcome, Told};
use crate::told;

/// A call that is not answered by then never will be: longer than any stall and pause that the test makes.
pub const ANSWERED: Duration = Duration::from_secs(15);

pub trait Io: AsyncRead + AsyncWrite + Send + Sync + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Io for T {}

/// The broker itself, or the proxy before it.
#[derive(Clone, Debug)]
pub enum Door {
    Unix(PathBuf),
    Tcp(SocketAddr),
}

impl Door {
    /// `None`: nobody is there.
    pub async fn open(&self) -> Option<Box<dyn Io>> {
        Some(match self {
            Self::Unix(path) => Box::new(UnixStream::connect(path).await.ok()?),
            Self::Tcp(at) => Box::new(TcpStream::connect(at).await.ok()?),
        })
    }
}

/// Why a call has no good answer.
#[derive(Clone, Debug)]
pub struct Failure {
    pub applied: Applied,
    /// The broker's; `not_sent` and `no_answer` are the client's own.
    pub code: String,
    pub details: Value,
}

impl Failure {
    /// Nobody was there.
    pub fn not_sent() -> Self {
        Self { applied: Applied::No, code: "not_sent".into(), details: Value::Null }
    }

    /// It was sent, wholly or in part.
    pub fn no_answer() -> Self {
        Self { applied: Applied::Unknown, code: "no_answer".into(), details: Value::Null }
    }

    /// What the broker said, which is written down for I-17.
    pub fn told(told: Told, details: Value) -> Self {
        let applied = if told.applied == "no" { Applied::No } else { Applied::Unknown };
        let code = told.code.clone();
        told::note(told);
        Self { applied, code, details }
    }

    /// As the history keeps it.
    pub fn outcome(self) -> Outcome {
        match self.applied {
            Applied::No => Outcome::Refused { next: self.details["next_offset"].as_u64(), code: self.code },
            Applied::Unknown => Outcome::Unknown,
        }
    }
}

/// One request on a connection of its own; the `metadata` of a good answer.
pub async fn ask(door: &Door, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Result<Value, Failure> {
    let Some(io) = door.open().await else { return Err(Failure::not_sent()) };
    let answer = timeout(ANSWERED, exchange(io, method, path, headers, body)).await.ok().flatten();
    let Some((status, body)) = answer else { return Err(Failure::no_answer()) };
    refused("rest", status, &body).map_or_else(|| Ok(body["metadata"].clone()), Err)
}

/// The same with a JSON body.
pub async fn ask_json(door: &Door, method: &str, path: &str, body: &Value) -> Result<Value, Failure> {
    ask(door, method, path, &[("Content-Type", "application/json")], body.to_string().as_bytes()).await
}

/// What an HTTP error says; `None` if it is none.
pub fn refused(carrier: &str, status: u16, body: &Value) -> Option<Failure> {
    let metadata = &body["metadata"];
    let text = |name: &str| metadata[name].as_str().unwrap_or_else(|| panic!("{carrier}: status {status} without {name}: {body}")).to_owned();
    (status >= 300).then(|| {
        let told = Told { carrier: carrier.to_owned(), code: text("code"), applied: text("applied"), retry: text("retry"), number: Some(i64::from(status)) };
        Failure::told(told, metadata["details"].clone())
    })
}

/// One request, and its answer as it is. `None`: there is none.
pub async fn raw(door: &Door, method: &str, path: &str) -> Option<(u16, Value)> {
    timeout(ANSWERED, exchange(door.open().await?, method, path, &[], b"")).await.ok().flatten()
}

/// Writes a request and reads one whole answer; `None` if there is none, or only a part.
async fn exchange(mut io: Box<dyn Io>, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Option<(u16, Value)> {
    // The broker may answer and close before it has read everything.
    let _ = io.write_all(&request(method, path, headers, body)).await;
    let mut all = Vec::new();
    let _ = io.read_to_end(&mut all).await;
    let (status, length, begin) = head(&all)?;
    let body = all.get(begin..begin + length?)?;
    Some((status, serde_json::from_slice(body).unwrap_or_else(|e| panic!("{method} {path}: {e} in {:?}", String::from_utf8_lossy(body)))))
}

/// The bytes of a request.
pub fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut text = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n", body.len());
    headers.iter().for_each(|(name, value)| text.push_str(&format!("{name}: {value}\r\n")));
    text.push_str("\r\n");
    [text.as_bytes(), body].concat()
}

/// Status, length of the body if it is said, and where the body begins; `None` until the head is whole.
pub fn head(bytes: &[u8]) -> Option<(u16, Option<usize>, usize)> {
    let end = bytes.windows(4).position(|w| w == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&bytes[..end]).expect("a head in ASCII");
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or_else(|| panic!("no status in {head:?}"));
    let length = head.lines().filter_map(|line| line.split_once(": ")).find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    Some((status, length.map(|(_, n)| n.parse().expect("a length")), end + 4))
}
