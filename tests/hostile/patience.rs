//! Slow and silent clients, all at once, since each needs the seconds of its limit: who is cut, after how long, and who is not.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::attacks::{long, prepare};
use crate::broker::Broker;
use crate::gauge::{back, baseline};
use crate::honest::Honest;
use crate::vanished;
use crate::wire::{
    ACK, DATA, END_HEADERS, END_STREAM, GOAWAY, H2, HEADERS, PING2, TEXT, WIDEST, Ws, call, h2_frame, head, narrow, number, tcp, ws_head, ws_text,
};

/// One byte at a time.
const DRIP: Duration = Duration::from_millis(500);
/// Longer than any peer may be silent, and than two pings with 20 s each would allow.
const LONG: Duration = Duration::from_secs(52);

/// What a client heard in the end, and when.
type End = (&'static str, String, Duration);

async fn timed(name: &'static str, what: impl Future<Output = String>) -> End {
    let began = Instant::now();
    (name, what.await, began.elapsed())
}

/// Writes `text`, then drips bytes until the peer closes; what it said.
async fn dripping(at: SocketAddr, text: &[u8]) -> String {
    let mut stream = tcp(at).await;
    stream.write_all(text).await.expect("it goes out");
    let mut heard = Vec::new();
    let (mut read, mut write) = stream.split();
    let drip = async {
        loop {
            tokio::time::sleep(DRIP).await;
            if write.write_all(b"x").await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    };
    tokio::select! { _ = read.read_to_end(&mut heard) => {}, () = drip => {} }
    let heard = String::from_utf8_lossy(&heard);
    heard.split("\r\n").next().unwrap_or_default().to_owned()
}

async fn silent_websocket(at: SocketAddr) -> String {
    let mut ws = Ws::json(at).await;
    let (mut pings, mut end) = (0, "gone".to_owned());
    while let Some((first, payload)) = ws.next().await {
        match first {
            0x89 => pings += 1,
            0x88 => end = format!("close {payload:?}"),
            _ => {}
        }
    }
    format!("{pings} pings, {end}")
}

async fn dripping_websocket(at: SocketAddr) -> String {
    let mut ws = Ws::json(at).await;
    ws.send(&ws_head(TEXT, 1000)).await;
    loop {
        ws.send(b" ").await;
        tokio::select! {
            frame = ws.next() => if frame.is_none() { return "gone".into() },
            () = tokio::time::sleep(DRIP) => {}
        }
    }
}

/// A long message over a slow line, from somebody who answers nothing meanwhile.
async fn slow_writer(at: SocketAddr) -> String {
    let mut ws = Ws::json(at).await;
    let text = r#"{"t":"append","req":1,"stream":"s","events":[{"data":""#.to_owned() + &"y".repeat(200 << 10) + r#""}]}"#;
    ws.send(&ws_head(TEXT, text.len() as u64)).await;
    let pause = LONG / (text.len() / 1024) as u32;
    for chunk in text.as_bytes().chunks(1024) {
        ws.send(chunk).await;
        tokio::time::sleep(pause).await;
    }
    ws.said().await["t"].to_string()
}

/// A library that connects ahead of its first call is told to connect again, and a call that crosses that is answered.
async fn ahead_of_its_call(at: SocketAddr) -> String {
    let mut h2 = H2::open(at).await;
    let mut heard = Vec::new();
    while let Some(frame) = h2.next().await {
        if frame.kind == GOAWAY {
            if heard.is_empty() {
                h2.send(&h2_frame(HEADERS, END_STREAM | END_HEADERS, 1, &head("GET", "/livez", &[]))).await;
            }
            heard.push(format!("goaway {}", number(&frame.payload[4..])));
        }
        if frame.stream == 1 && frame.kind == HEADERS {
            heard.push("answered".into());
        }
    }
    heard.push("gone".into());
    heard.dedup();
    heard.join(", ")
}

async fn silent_http2(at: SocketAddr) -> String {
    let mut h2 = H2::open(at).await;
    let mut heard = Vec::new();
    while let Some(frame) = h2.next().await {
        if frame.kind == GOAWAY {
            heard.push(format!("goaway {}", number(&frame.payload[4..])));
        }
    }
    heard.push("gone".into());
    heard.dedup();
    heard.join(", ")
}

async fn dripping_message(at: SocketAddr) -> String {
    let mut h2 = H2::open(at).await;
    h2.send(&[h2_frame(HEADERS, END_HEADERS, 1, &call("Append")), h2_frame(DATA, 0, 1, &[0, 0, 0, 4, 0])].concat()).await;
    let dripper = async {
        for _ in 0..120 {
            tokio::time::sleep(DRIP).await;
        }
    };
    // The prefix is all that comes: that is as slow as it gets.
    tokio::select! { status = h2.status(1) => status, () = dripper => "it waits on".into() }
}

/// About 4 KiB/s, less than half of what is borne for a whole socket. `http2`: pings are answered when they arrive, behind all the data.
async fn slow_reader(at: SocketAddr, http2: bool) -> String {
    const CHUNK: usize = 1024;
    let (mut stream, mut heard) = (narrow(at).await, bytes::BytesMut::new());
    if http2 {
        let mut h2 = H2::on(stream, WIDEST).await;
        h2.send(&h2_frame(HEADERS, END_STREAM | END_HEADERS, 1, &head("GET", "/v1/streams/big/events?from=0", &[("accept", "text/event-stream")]))).await;
        (stream, heard) = h2.into_parts();
    } else {
        stream.write_all(b"GET /v1/streams/big/events?from=0 HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n").await.expect("it goes out");
    }
    // In the long form it is asked and answers, which takes 52 s to come through.
    let time = if long() { 2 * LONG } else { LONG };
    let (began, mut done, mut pongs) = (Instant::now(), 0, 0);
    while began.elapsed() < time {
        tokio::time::sleep(Duration::from_millis(250)).await;
        let mut scrap = [0; CHUNK];
        match stream.read(&mut scrap).await {
            Ok(n) if n > 0 => heard.extend_from_slice(&scrap[..n]),
            _ => return format!("cut after {:.0} s", began.elapsed().as_secs_f32()),
        }
        // Whole frames of HTTP/2.
        while http2 && heard.len() >= 9 {
            let len = u32::from_be_bytes([0, heard[0], heard[1], heard[2]]) as usize;
            if heard.len() < 9 + len {
                break;
            }
            let frame = heard.split_to(9 + len);
            done += len;
            if frame[3] == PING2 && frame[4] & ACK == 0 {
                pongs += 1;
                stream.write_all(&h2_frame(PING2, ACK, 0, &frame[9..])).await.expect("it goes out");
            }
        }
    }
    assert!(!http2 || done > 0);
    if http2 && long() && pongs == 0 { "no ping came".into() } else { "still there".into() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_and_silent_clients_are_cut_when_they_are_due_and_slow_honest_ones_never() {
    let broker = Broker::start();
    prepare(&broker).await;
    let honest = Honest::begin(broker.at, "honest").await;
    let before = baseline(&broker).await;
    let at = broker.at;
    let post = b"POST /v1/streams/s/events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 4000\r\n\r\n{";
    let (vanished, ends) = tokio::join!(vanished::vanished(), async {
        tokio::join!(
            timed("headers, byte by byte", dripping(at, b"GET /v1 HTTP/1.1\r\nHost: local")),
            timed("a request line, byte by byte", dripping(at, b"GE")),
            timed("a body, byte by byte", dripping(at, post)),
            timed("a gRPC message that does not come", dripping_message(at)),
            timed("HTTP/2 without a call", silent_http2(at)),
            timed("HTTP/2 whose call crosses the goodbye", ahead_of_its_call(at)),
            timed("nothing at all", dripping(at, b"")),
            timed("a WebSocket that answers no ping", silent_websocket(at)),
            timed("a WebSocket message, byte by byte", dripping_websocket(at)),
            timed("a WebSocket message at 4 KiB/s", slow_writer(at)),
            timed("an event stream read at 4 KiB/s over HTTP/1", slow_reader(at, false)),
            timed("an event stream read at 4 KiB/s over HTTP/2", slow_reader(at, true)),
        )
    });
    let (a, b, c, d, e, f, g, h, i, j, k, l) = ends;
    let expected: [(&str, u64, u64); 12] = [
        ("", 9, 14),
        ("", 9, 14),
        ("HTTP/1.1 408 Request Timeout", 9, 14),
        ("status 4", 9, 14),
        ("goaway 0, gone", 9, 14),
        ("goaway 0, answered, gone", 9, 14),
        ("", 9, 14),
        ("2 pings, gone", 44, 50),
        ("gone", 44, 50),
        ("\"appended\"", 50, 70),
        ("still there", 50, 120),
        ("still there", 50, 120),
    ];
    let mut wrong = Vec::new();
    for ((name, heard, took), (hears, least, most)) in [a, b, c, d, e, f, g, h, i, j, k, l].into_iter().zip(expected) {
        // The goodbye comes in two frames, before and after what was still on its way; the second may meet the end of the connection.
        let heard = heard.replace("answered, goaway 0, gone", "answered, gone");
        println!("{name}: {heard:?} after {:.1} s", took.as_secs_f32());
        if heard != hears || took < Duration::from_secs(least) || took > Duration::from_secs(most) {
            wrong.push(format!("{name}: {heard:?} after {:.1} s, not {hears:?} after {least} to {most} s", took.as_secs_f32()));
        }
    }
    if let Err(left) = back(&broker, &before, 12.0, crate::gauge::SETTLE).await {
        wrong.push(left);
    }
    match honest.end().await {
        Ok(report) => println!("{} honest events meanwhile", report.events),
        Err(why) => wrong.push(format!("the honest pair: {why}")),
    }
    wrong.extend(vanished.err());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Needs a minute and a half: `ROUNDS=2` and more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http2_that_answers_no_ping_is_cut_in_the_end() {
    if !long() {
        println!("skipped: it takes 95 s; set ROUNDS=2");
        return;
    }
    let broker = Broker::start();
    prepare(&broker).await;
    let mut stream = tcp(broker.at).await;
    let request = h2_frame(HEADERS, END_STREAM | END_HEADERS, 1, &head("GET", "/v1/streams/s/events?from=0", &[("accept", "text/event-stream")]));
    stream.write_all(&[crate::wire::PREFACE, &crate::wire::h2_settings(&[]), &request].concat()).await.expect("it goes out");
    let began = Instant::now();
    let mut heard = Vec::new();
    tokio::time::timeout(Duration::from_secs(110), stream.read_to_end(&mut heard)).await.expect("it is cut").ok();
    assert!(began.elapsed() > Duration::from_secs(85), "{:?}", began.elapsed());
}

/// What the slow writer sends in pieces is a frame.
#[test]
fn a_frame_is_its_head_and_its_payload() {
    assert_eq!(ws_text("{}"), [&ws_head(TEXT, 2)[..], b"{}"].concat());
}
