//! Against what a connection remembers: readers, windows, append sessions, and names without end.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::tally;
use crate::wire::{TEXT, Ws, tcp, told, ws_text};

/// Sends the texts and gives the codes, or types, of as many answers.
async fn answers(ws: &mut Ws, texts: &[String], wanted: impl Fn(&Value) -> bool) -> Vec<String> {
    let bytes: Vec<u8> = texts.iter().flat_map(|text| ws_text(text)).collect();
    let mut heard = Vec::with_capacity(texts.len());
    ws.flood(&bytes, |first, payload| {
        if first == TEXT {
            let frame: Value = serde_json::from_slice(payload).expect("JSON");
            if wanted(&frame) {
                heard.push(told(&frame));
            }
        }
        first & 15 != 8 && heard.len() < texts.len()
    })
    .await;
    heard
}

/// In this order, also where there are none.
fn counts(heard: &[String], codes: &[&str]) -> String {
    let known = codes.iter().map(|code| (code.to_string(), heard.iter().filter(|told| told == code).count())).collect::<Vec<_>>();
    if known.iter().map(|(_, n)| n).sum::<usize>() != heard.len() {
        return tally(heard.iter().cloned());
    }
    known.iter().map(|(code, n)| format!("{code}: {n}")).collect::<Vec<_>>().join(", ")
}

pub async fn ten_thousand(at: SocketAddr, _: u64) -> String {
    let mut ws = Ws::json(at).await;
    let texts: Vec<String> = (0..10_000).map(|sub| json!({"t":"subscribe","sub":sub,"stream":"s"}).to_string()).collect();
    let heard = answers(&mut ws, &texts, |frame| frame["t"] != "live").await;
    let count = counts(&heard, &["subscribed", "quota_exceeded"]);
    ws.flood(&ws_text(r#"{"t":"ping"}"#), |_, payload| !payload.windows(4).any(|w| w == b"pong")).await;
    format!("{count}; alive")
}

pub async fn credit(at: SocketAddr, _: u64) -> String {
    let mut ws = Ws::json(at).await;
    assert_eq!(ws.ask(r#"{"t":"subscribe","sub":1,"stream":"s","from":0,"credit":{"events":1,"bytes":1}}"#).await["t"], "subscribed");
    // One comes by this grant.
    while ws.said().await["t"] != "events" {}
    let mut bad = Vec::new();
    for credit in [r#""events":-1"#, r#""bytes":-1"#, r#""events":9007199254740992"#, r#""events":1e3,"bytes":1e99"#] {
        bad.push(format!("{{\"t\":\"credit\",\"sub\":1,{credit}}}"));
    }
    let refused = answers(&mut ws, &bad, |frame| frame["t"] == "error").await;
    let most = (1u64 << 53) - 1;
    let mut good = ws_text(r#"{"t":"credit","sub":1,"events":0,"bytes":0}"#);
    good.extend(ws_text(&format!("{{\"t\":\"credit\",\"sub\":1,\"events\":{most},\"bytes\":{most}}}")).repeat(5000));
    good.extend(ws_text(r#"{"t":"ping"}"#));
    let (mut events, mut pong) = (1, false);
    ws.flood(&good, |first, payload| {
        let frame: Value = if first == TEXT { serde_json::from_slice(payload).expect("JSON") } else { Value::Null };
        events += frame["events"].as_array().map_or(0, Vec::len);
        pong |= frame["t"] == "pong";
        !(pong && events >= 100) && first & 15 != 8
    })
    .await;
    format!("refused: {}, delivered: {events}; alive", refused.len())
}

/// A hundred at a time: a number that is in use, and one reader too many, are refused.
pub async fn storm(at: SocketAddr, _: u64) -> String {
    let mut ws = Ws::json(at).await;
    let texts: Vec<String> = (0..100)
        .flat_map(|sub| [json!({"t":"subscribe","sub":sub,"stream":"s","from":"earliest"}), json!({"t":"unsubscribe","sub":sub})])
        .map(|frame| frame.to_string())
        .collect();
    let mut heard = Vec::new();
    for _ in 0..50 {
        heard.extend(answers(&mut ws, &texts, |frame| frame["t"] != "live" && frame["t"] != "events").await);
    }
    let count = counts(&heard, &["subscribed", "unsubscribed"]);
    ws.alive().await;
    format!("{count}; alive")
}

pub async fn acks(at: SocketAddr, round: u64) -> String {
    let mut ws = Ws::json(at).await;
    let subscribe = json!({"t":"subscribe","sub":1,"stream":"s","subscription":format!("acks{round}"),"create":true,"from":"earliest"});
    assert_eq!(ws.ask(&subscribe.to_string()).await["t"], "subscribed");
    let mut delivered = 0;
    while delivered < 100 {
        delivered += ws.said().await["events"].as_array().map_or(0, Vec::len);
    }
    let texts: Vec<String> = (0..50_000u64)
        .map(|n| match n % 5 {
            0 => json!({"t":"ack","sub":1,"offset":(1u64 << 53) - 1 - n}),
            1 | 2 => json!({"t":"ack","sub":1,"offset":n * 100 / 50_000,"level":"received"}),
            _ => json!({"t":"ack","sub":1,"offset":n * 100 / 50_000}),
        })
        .map(|frame| frame.to_string())
        .collect();
    let heard = answers(&mut ws, &texts, |frame| frame["t"] != "live").await;
    let count = counts(&heard, &["acked", "ack_beyond_end"]);
    ws.alive().await;
    format!("{count}; alive")
}

/// Each frame that is no frame poisons all sessions. It must not cost as much as there are sessions.
pub async fn garbage(at: SocketAddr, round: u64) -> String {
    let mut ws = Ws::json(at).await;
    let texts: Vec<String> = (0..4000)
        .map(|n| json!({"t":"append","req":n,"stream":"s","producer":{"id":format!("g{round}-{n}"),"epoch":1,"seq":0},"events":[{"data":1}]}).to_string())
        .collect();
    answers(&mut ws, &texts, |_| true).await;
    let garbage = vec!["{".to_owned(); 20_000];
    let heard = answers(&mut ws, &garbage, |_| true).await;
    let after = ws.ask(&json!({"t":"append","req":1,"stream":"s","events":[{"data":1}]}).to_string()).await;
    format!("{}; {}", counts(&heard, &["json_parsing_failed"]), told(&after))
}

pub async fn strangers(at: SocketAddr, _: u64) -> String {
    let mut ws = Ws::json(at).await;
    let long = "x".repeat(180);
    let texts: Vec<String> = (0..30_000).map(|n| json!({"t":"append","req":n,"stream":format!("{long}{n}"),"events":[{"data":1}]}).to_string()).collect();
    let heard = answers(&mut ws, &texts, |_| true).await;
    let refused = heard.iter().filter(|code| *code == "not_found" || *code == "session_poisoned").count();
    ws.alive().await;
    format!("not_found or session_poisoned: {refused}; alive")
}

/// The first round is a small one: it only warms up.
fn so_many(round: u64, all: u64) -> u64 {
    if round == 0 { all / 5 } else { all }
}

pub async fn producers(at: SocketAddr, round: u64) -> String {
    let mut ws = Ws::json(at).await;
    let (mut opened, all) = (0, so_many(round, 100_000));
    for chunk in 0..all / 10_000 {
        let texts: Vec<String> = (chunk * 10_000..(chunk + 1) * 10_000)
            .map(|n| json!({"t":"open_producer","req":n,"stream":"s","producer":format!("p{round}-{n}")}).to_string())
            .collect();
        opened += answers(&mut ws, &texts, |_| true).await.iter().filter(|told| *told == "producer_opened").count();
    }
    let opened = if opened as u64 == all { "all".to_owned() } else { opened.to_string() };
    let requests: Vec<String> = (0..2000).map(|n| format!("DELETE /v1/streams/s/producers/p{round}-{n} HTTP/1.1\r\nHost: localhost\r\n\r\n")).collect();
    format!("{opened} opened, removed: {}", pipelined(at, &requests, "HTTP/1.1 200").await - 1) // one is of `/livez`
}

pub async fn streams(at: SocketAddr, round: u64) -> String {
    let each = so_many(round, if super::long() { 1000 } else { 300 });
    let created = super::together(100, |task| async move {
        let requests: Vec<String> = (0..each)
            .map(|n| {
                let body = format!("{{\"name\":\"n{round}-{task}-{n}\"}}");
                format!("POST /v1/streams HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len())
            })
            .collect();
        pipelined(at, &requests, "HTTP/1.1 201").await.to_string()
    })
    .await;
    if created == format!("{each}: 100") { "all created".into() } else { created }
}

/// Sends requests behind one another and counts the answers that begin so.
async fn pipelined(at: SocketAddr, requests: &[String], good: &str) -> usize {
    let mut all = requests.concat().into_bytes();
    all.extend_from_slice(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    let mut stream = tcp(at).await;
    let (mut read, mut write) = stream.split();
    let mut heard = Vec::new();
    let (wrote, got) = tokio::join!(tokio::io::AsyncWriteExt::write_all(&mut write, &all), tokio::io::AsyncReadExt::read_to_end(&mut read, &mut heard));
    wrote.and(got.map(drop)).expect("the connection lives");
    String::from_utf8_lossy(&heard).matches(good).count()
}
