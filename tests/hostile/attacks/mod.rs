//! The attacks, one list for the test and for the bench. Each says what it heard; the list says what it must hear.
//!
//! An attack drops all it holds before it returns. It may use the streams `s` (100 small events), `big` (32 MiB) and those it creates.

use std::net::SocketAddr;
use std::pin::Pin;

use tokio::task::JoinSet;

use crate::broker::Broker;
use crate::support::exchange;
use crate::wire::tcp;

pub mod http1;
pub mod http2;
pub mod sessions;
pub mod websocket;

/// What an attack heard, in a few words.
pub type Outcome = Pin<Box<dyn Future<Output = String> + Send>>;

/// One of them.
pub struct Attack {
    /// A sentence.
    pub name: &'static str,
    /// What it must hear.
    pub hears: &'static str,
    /// MiB that memory may have grown by afterwards: what the allocator keeps, and nothing that grows with rounds.
    pub margin: f64,
    /// `round` makes names new.
    pub run: fn(SocketAddr, u64) -> Outcome,
}

/// What most may leave behind.
const USUAL: f64 = 12.0;
/// Where 100 readers hold a chunk of a mebibyte or two each meanwhile: the allocator keeps some of it. Rounds do not add up.
const HEAVY: f64 = 64.0;

macro_rules! attack {
    ($name:literal, $run:path, $hears:expr) => {
        attack!($name, $run, $hears, USUAL)
    };
    ($name:literal, $run:path, $hears:expr, $margin:expr) => {
        Attack { name: $name, hears: $hears, margin: $margin, run: |at, round| Box::pin($run(at, round)) }
    };
}

/// All that need no more time than they take; those that wait for a limit in seconds are in `patience`.
pub const ATTACKS: &[Attack] = &[
    attack!(
        "a WebSocket frame lies about its length",
        websocket::lies,
        "8 MiB + 1: 1009 The message is over the limit.; 2^63: 1009 The message is over the limit.; 2^64 - 1: 1009 The message is over the limit.; \
         shorter than it is: 1002; cut off: gone"
    ),
    attack!("64 WebSockets announce 8 MiB each and bring 64 KiB", websocket::announced, "64 wait"),
    attack!("50 connections send 200 pings each", websocket::pings, "4008 More than 100 pings in 10 s.: 50"),
    attack!("100,000 pongs that nobody asked for", websocket::pongs, "alive"),
    attack!("50 messages in 1,100 empty frames", websocket::crumbs, "1009 The message has more than 1024 frames.: 50"),
    attack!("JSON of 100,000 brackets, wherever a frame has a place for it", websocket::deep, "bad_parameter: 6, json_parsing_failed: 1; alive"),
    attack!("numbers of 100,000 digits", websocket::numbers, "all refused; alive"),
    attack!("text that is not UTF-8", websocket::utf8, "1007 The text is not UTF-8.; bad_parameter"),
    attack!("a compressed frame where nobody agreed on compression", websocket::compressed, "1002"),
    attack!("10,000 subscribes on one connection", sessions::ten_thousand, "subscribed: 256, quota_exceeded: 9744; alive"),
    attack!("credit of 0, of less, of 2^53, and of all there is a thousand times over", sessions::credit, "refused: 4, delivered: 100; alive"),
    attack!("5,000 times subscribe and unsubscribe", sessions::storm, "subscribed: 5000, unsubscribed: 5000; alive"),
    attack!("50,000 acks, of what was delivered and of what was not", sessions::acks, "acked: 40000, ack_beyond_end: 10000; alive"),
    attack!("20,000 frames of garbage on a connection with 4,000 append sessions", sessions::garbage, "json_parsing_failed: 20000; session_poisoned"),
    attack!("append sessions of 30,000 streams that are not there", sessions::strangers, "not_found or session_poisoned: 30000; alive"),
    attack!("100,000 producers are opened on one stream, and some of them removed", sessions::producers, "all opened, removed: 2000", 48.0),
    attack!("30,000 streams are created (100,000 in the long form)", sessions::streams, "all created", 48.0),
    attack!("100 requests behind one another, then garbage", http1::pipelined, "200: 100, 400: 1"),
    attack!("bodies that lie about their length", http1::lies, "413 too_large; 400; 400; 413 too_large; 400 or gone; 400 or gone"),
    attack!("a body of 100,000 brackets, on each route that takes one", http1::deep, "json_parsing_failed: 7"),
    attack!("a body of half a million fields, four at once", http1::fields, "unknown_field: 4"),
    attack!("a body that a decompressor would make 64 MiB of", http1::bomb, "400 json_parsing_failed"),
    attack!("1,000 connections, opened and closed", http1::connections, "1000"),
    attack!("300 connections are reset in the middle of something", http1::resets, "300"),
    attack!("100 readers of an event stream that do not read", http1::slow_readers, "100", HEAVY),
    attack!("10,000 calls are opened and reset at once (CVE-2023-44487)", http2::rapid_reset, "goaway 11 too_many_resets"),
    attack!("headers that never end (CVE-2024-27316)", http2::continuation, "goaway"),
    attack!("100,000 SETTINGS frames", http2::settings, "alive"),
    attack!("100,000 PING frames", http2::pings, "answered: 100000; alive"),
    attack!("100,000 empty DATA frames in one call (CVE-2019-9518)", http2::empty_data, "goaway 11 too_many_data_frames"),
    attack!("10,000 calls at once on one connection", http2::many_calls, "goaway or reset"),
    attack!("a window that opens by one byte, 5,000 times", http2::crumbs, "5000 bytes; alive"),
    attack!("windows that overflow, or do not move", http2::windows, "goaway 3; reset 1 or goaway 1"),
    attack!("HTTP/2 frames that lie about their length", http2::lies, "goaway 6; goaway 1"),
    attack!("headers that are small packed and large unpacked", http2::hpack_bomb, "refused"),
    attack!("100 calls that read nothing of 32 MiB", http2::slow_readers, "100", HEAVY),
    attack!("gRPC messages that lie about their length, or are compressed", http2::messages, "status 11; status 11; status 13; status 13"),
    attack!("a commit of 2,000,000 empty acks", http2::entries, "status 3"),
];

/// How often each attack runs after its first time, which warms the allocator up.
pub fn rounds() -> u64 {
    std::env::var("ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(1)
}

/// Is there time for what needs minutes?
pub fn long() -> bool {
    rounds() > 1
}

/// The streams that attacks may use, and the one of the honest.
pub async fn prepare(broker: &Broker) {
    for stream in ["s", "big", "honest"] {
        broker.create(stream).await;
    }
    let lines = "1\n".repeat(100);
    let answer = exchange(tcp(broker.at).await, "POST", "/v1/streams/s/events?lines=data", &[("Content-Type", "application/x-ndjson")], lines.as_bytes()).await;
    assert_eq!(answer.status, 201);
    let data = vec![b'x'; 1 << 20];
    for _ in 0..32 {
        let answer = exchange(tcp(broker.at).await, "POST", "/v1/streams/big/events", &[("Content-Type", "application/octet-stream")], &data).await;
        assert_eq!(answer.status, 201);
    }
}

/// Does the same `many` times at once, and says what came of it: `outcome: how often`.
pub async fn together<F: Future<Output = String> + Send + 'static>(many: usize, each: impl Fn(usize) -> F) -> String {
    let mut tasks = JoinSet::new();
    for n in 0..many {
        tasks.spawn(each(n));
    }
    tally(tasks.join_all().await)
}

/// `outcome: how often`, in alphabetic order.
pub fn tally(outcomes: impl IntoIterator<Item = String>) -> String {
    let mut counts = std::collections::BTreeMap::<String, usize>::new();
    for outcome in outcomes {
        *counts.entry(outcome).or_default() += 1;
    }
    counts.iter().map(|(outcome, count)| format!("{outcome}: {count}")).collect::<Vec<_>>().join(", ")
}
