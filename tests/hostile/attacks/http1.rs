//! Against HTTP/1: lengths, pipelines, bodies, and connections themselves.

use std::net::SocketAddr;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::together;
use crate::support::{PATIENCE, exchange, raw};
use crate::wire::{Ws, narrow, reset, tcp, ws_text};

const JSON: (&str, &str) = ("Content-Type", "application/json");

fn code(body: &[u8]) -> String {
    let value: Value = serde_json::from_slice(body).unwrap_or_default();
    value["metadata"]["code"].as_str().unwrap_or_default().to_owned()
}

pub async fn pipelined(at: SocketAddr, _: u64) -> String {
    let mut stream = tcp(at).await;
    let requests = "GET /v1/streams/s HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(100) + "\x01\x02garbage \r\n\r\n";
    stream.write_all(requests.as_bytes()).await.expect("it goes out");
    let mut heard = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut heard)).await.expect("it ends");
    let heard = String::from_utf8_lossy(&heard);
    format!("200: {}, 400: {}", heard.matches("HTTP/1.1 200").count(), heard.matches("HTTP/1.1 400").count())
}

pub async fn lies(at: SocketAddr, _: u64) -> String {
    let post = |rest: &str| format!("POST /v1/streams/s/events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nConnection: close\r\n{rest}");
    let mut heard = Vec::new();
    for rest in [
        "Content-Length: 9223372036854775808\r\n\r\n",
        "Content-Length: 18446744073709551616\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nx",
        "Transfer-Encoding: chunked\r\n\r\n7fffffffffffffff\r\n",
    ] {
        let mut bytes = post(rest).into_bytes();
        if rest.contains("7fff") {
            bytes.resize(bytes.len() + (9 << 20), b' ');
        }
        let answer = raw(tcp(at).await, &bytes).await;
        heard.push(format!("{} {}", answer.status, code(&answer.body)).trim_end().to_owned());
    }
    // Less than was announced, then the end.
    for rest in ["Content-Length: 1000\r\n\r\n{", "Transfer-Encoding: chunked\r\n\r\n3e8\r\n{"] {
        let mut stream = tcp(at).await;
        stream.write_all(post(rest).as_bytes()).await.expect("it goes out");
        stream.shutdown().await.expect("half of it closes");
        let mut answer = Vec::new();
        let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("it ends");
        let good = answer.is_empty() || answer.starts_with(b"HTTP/1.1 400");
        heard.push(if good { "400 or gone".to_owned() } else { String::from_utf8_lossy(&answer[..20.min(answer.len())]).into_owned() });
    }
    heard.join("; ")
}

pub async fn deep(at: SocketAddr, _: u64) -> String {
    let nest = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let mut heard = Vec::new();
    for (path, body) in [
        ("/v1/streams", format!("{{\"name\":{nest}}}")),
        ("/v1/streams/s/events", nest.clone()),
        ("/v1/streams/s/events", format!("{{\"events\":[{{\"data\":1}}],\"producer\":{}}}", "{\"a\":".repeat(100_000))),
        ("/v1/streams/s/trim", nest.clone()),
        ("/v1/streams/s/subscriptions", format!("{{\"name\":\"b\",\"start\":{nest}}}")),
        ("/v1/streams/s/producers", nest.clone()),
        ("/v1/commit", "[".repeat(100_000)),
    ] {
        let answer = exchange(tcp(at).await, "POST", path, &[JSON], body.as_bytes()).await;
        assert_eq!(answer.status, 400, "{path}");
        // Where it is whole JSON, only of the wrong kind, that may be said instead.
        let said = code(&answer.body);
        heard.push(if said == "bad_parameter" { "json_parsing_failed".into() } else { said });
    }
    super::tally(heard)
}

pub async fn fields(at: SocketAddr, _: u64) -> String {
    let body = std::sync::Arc::new(format!("{{{}}}", (0..500_000).map(|n| format!("\"{n}\":1")).collect::<Vec<_>>().join(",")));
    together(4, |_| {
        let body = body.clone();
        async move { code(&exchange(tcp(at).await, "POST", "/v1/streams", &[JSON], body.as_bytes()).await.body) }
    })
    .await
}

/// Blocks of DEFLATE that repeat the last byte, within gzip's head: 64 KiB that would be 64 MiB.
pub async fn bomb(at: SocketAddr, _: u64) -> String {
    let body = [&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3][..], &[0xec, 0xc0, 0x01, 0x01, 0, 0].repeat(10_000)].concat();
    let answer = exchange(tcp(at).await, "POST", "/v1/streams/s/events", &[JSON, ("Content-Encoding", "gzip")], &body).await;
    format!("{} {}", answer.status, code(&answer.body))
}

pub async fn connections(at: SocketAddr, _: u64) -> String {
    let mut count = 0;
    for _ in 0..10 {
        let mut open = Vec::new();
        for _ in 0..100 {
            open.push(tcp(at).await);
        }
        count += open.len();
    }
    count.to_string()
}

pub async fn resets(at: SocketAddr, _: u64) -> String {
    for n in 0..300 {
        match n % 5 {
            0 => reset(tcp(at).await),
            1 => {
                let mut stream = tcp(at).await;
                stream
                    .write_all(b"POST /v1/streams/s/events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n{")
                    .await
                    .expect("it goes out");
                reset(stream);
            }
            2 => {
                let mut stream = tcp(at).await;
                stream
                    .write_all(b"GET /v1/streams/big/events?from=0 HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n")
                    .await
                    .expect("it goes out");
                let _ = stream.read(&mut [0; 100]).await;
                reset(stream);
            }
            3 => {
                let mut ws = Ws::json(at).await;
                ws.send(&ws_text(r#"{"t":"subscribe","sub":1,"stream":"big","from":"earliest"}"#)).await;
                ws.next().await;
                reset(ws.socket);
            }
            _ => {
                let mut stream = tcp(at).await;
                stream.write_all(b"GET /v1/streams/s/events?from=latest&wait=60 HTTP/1.1\r\nHost: localhost\r\n\r\n").await.expect("it goes out");
                reset(stream);
            }
        }
    }
    "300".into()
}

pub async fn slow_readers(at: SocketAddr, _: u64) -> String {
    let mut stuck = Vec::new();
    for _ in 0..100 {
        let mut stream = narrow(at).await;
        stream.write_all(b"GET /v1/streams/big/events?from=0 HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n").await.expect("it goes out");
        // It has begun.
        let mut scrap = [0; 100];
        stream.read_exact(&mut scrap).await.expect("a head");
        stuck.push(stream);
    }
    stuck.len().to_string()
}
