//! Against the WebSocket itself: lengths, control frames, fragments, and what is no text.

use std::net::SocketAddr;

use super::{tally, together};
use crate::wire::{BINARY, PING, PONG, TEXT, Ws, told, ws_frame, ws_head};

const LIMIT: u64 = 8 << 20;

pub async fn lies(at: SocketAddr, _: u64) -> String {
    let mut heard = Vec::new();
    for (what, len) in [("8 MiB + 1", LIMIT + 1), ("2^63", 1 << 63), ("2^64 - 1", u64::MAX)] {
        let mut ws = Ws::json(at).await;
        ws.send(&ws_head(TEXT, len)).await;
        ws.send(&[b' '; 1000]).await;
        heard.push(format!("{what}: {}", ws.ended().await));
    }
    // What is beyond the length is read as the next frame: an unmasked one.
    let mut ws = Ws::json(at).await;
    ws.send(&[ws_head(TEXT, 5), b"{\"t\":\x81\x02{}".to_vec()].concat()).await;
    heard.push(format!("shorter than it is: {}", &ws.ended().await[..4]));
    let mut ws = Ws::json(at).await;
    ws.send(&[ws_head(TEXT, LIMIT), vec![b' '; 100]].concat()).await;
    tokio::io::AsyncWriteExt::shutdown(&mut ws.socket).await.expect("half of it closes");
    heard.push(format!("cut off: {}", ws.ended().await));
    heard.join("; ").replace("1002:", "1002")
}

pub async fn announced(at: SocketAddr, _: u64) -> String {
    let mut waiting = Vec::new();
    for _ in 0..64 {
        let mut ws = Ws::json(at).await;
        ws.send(&[ws_head(TEXT, LIMIT), vec![b' '; 64 << 10]].concat()).await;
        waiting.push(ws);
    }
    format!("{} wait", waiting.len())
}

pub async fn pings(at: SocketAddr, _: u64) -> String {
    together(50, |_| async move {
        let mut ws = Ws::json(at).await;
        ws.send(&ws_frame(PING, b"x").repeat(200)).await;
        ws.ended().await
    })
    .await
}

pub async fn pongs(at: SocketAddr, _: u64) -> String {
    let mut ws = Ws::json(at).await;
    ws.send(&ws_frame(PONG, b"x").repeat(100_000)).await;
    ws.alive().await;
    "alive".into()
}

pub async fn crumbs(at: SocketAddr, _: u64) -> String {
    together(50, |_| async move {
        let mut ws = Ws::json(at).await;
        ws.send(&[ws_frame(0x01, b""), ws_frame(0x00, b"").repeat(1100)].concat()).await;
        ws.ended().await
    })
    .await
}

pub async fn deep(at: SocketAddr, _: u64) -> String {
    let (open, close) = ("[".repeat(100_000), "]".repeat(100_000));
    let objects = "{\"a\":".repeat(100_000);
    let mut ws = Ws::json(at).await;
    let mut heard = Vec::new();
    for text in [
        format!("{open}{close}"),
        open.clone(),
        objects,
        format!("{{\"t\":\"append\",\"req\":1,\"stream\":\"s\",\"events\":[{{\"data\":{open}{close}}}]}}"),
        format!("{{\"t\":\"append\",\"req\":1,\"stream\":\"s\",\"events\":[{{\"data\":1,\"headers\":{{\"a\":{open}{close}}}}}]}}"),
        format!("{{\"t\":\"subscribe\",\"sub\":1,\"stream\":\"s\",\"from\":{open}{close}}}"),
        format!("{{\"t\":\"commit\",\"req\":1,\"appends\":{open}{close}}}"),
    ] {
        heard.push(told(&ws.ask(&text).await));
    }
    let of = |code: &str| heard.iter().filter(|told| *told == code).count();
    let all = ["bad_parameter", "json_parsing_failed"].map(|code| format!("{code}: {}", of(code))).join(", ");
    ws.alive().await;
    format!("{all}; alive")
}

pub async fn numbers(at: SocketAddr, _: u64) -> String {
    let digits = "9".repeat(100_000);
    let mut ws = Ws::json(at).await;
    let mut heard = Vec::new();
    for number in [digits.as_str(), &format!("-{digits}"), &format!("1e{digits}"), &format!("0.{digits}"), "1e400", "-1", "1.5", "9007199254740992"] {
        for text in [
            format!("{{\"t\":\"append\",\"req\":{number},\"stream\":\"s\",\"events\":[{{\"data\":1}}]}}"),
            format!("{{\"t\":\"ack\",\"sub\":1,\"offset\":{number}}}"),
            format!("{{\"t\":\"subscribe\",\"sub\":1,\"stream\":\"s\",\"from\":{number}}}"),
        ] {
            heard.push(told(&ws.ask(&text).await));
        }
    }
    ws.alive().await;
    let refused = heard.iter().all(|code| code == "bad_parameter" || code == "json_parsing_failed");
    format!("{}; alive", if refused { "all refused".to_owned() } else { tally(heard) })
}

pub async fn utf8(at: SocketAddr, _: u64) -> String {
    let mut ws = Ws::json(at).await;
    ws.send(&ws_frame(TEXT, &[b"{\"t\":\"", &[0xc0, 0x80][..]].concat())).await;
    let text = ws.ended().await;
    let mut ws = Ws::proto(at).await;
    // Append (9) with a stream (2) that is not UTF-8.
    ws.send(&ws_frame(BINARY, &[9 << 3 | 2, 4, 2 << 3 | 2, 2, 0xc0, 0x80])).await;
    let (_, answer) = ws.next().await.expect("an answer");
    let code = String::from_utf8_lossy(&answer).contains("bad_parameter");
    format!("{text}; {}", if code { "bad_parameter" } else { "something else" })
}

/// A kilobyte that would be a megabyte.
pub async fn compressed(at: SocketAddr, _: u64) -> String {
    let mut ws = Ws::json(at).await;
    ws.send(&ws_frame(TEXT | 0x40, &[0xec, 0xc0, 0x01, 0x01, 0, 0].repeat(170))).await;
    ws.ended().await[..4].to_owned()
}
