//! Server-Sent Events on the events route: where a reader begins, what it hears, and that nothing breaks its lines.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};
use tidelog::server::Mode;

use crate::event_source::{EventSource, ask, http1, http2};
use crate::support::{Broker, dev, serve, start};

const EVENTS: &str = "/v1/streams/s/events";

/// As `tidelog serve` with callers on loopback let in: streams exist only when they were created.
async fn strict() -> Broker {
    start(Mode::Serve { trust_loopback: true }, |_| {}).await
}

#[tokio::test]
async fn a_reader_hears_what_is_there_then_what_comes_and_goes_on_after_its_last_id() {
    let broker = dev().await;
    broker.fill("s", 0..3).await;
    for http in [http1(), http2()] {
        let mut reader = EventSource::open(&http, &broker.url("/v1/streams/s/events?from=earliest"), None).await;
        reader.hears(0..3).await;
        assert_eq!(reader.named("live").await["next_offset"], broker.get("/v1/streams/s").await.metadata()["state"]["next_offset"]);
        assert_eq!(reader.parser.retry, Some(1000), "it comes back after a second");
    }
    let mut reader = broker.events_after(EVENTS, "0").await;
    reader.hears(1..3).await;
    assert_eq!(reader.named("live").await, json!({"next_offset": 3}));
    broker.fill("s", 3..5).await;
    reader.hears(3..5).await;
    let id = reader.parser.last_id.clone();
    drop(reader);
    broker.fill("s", 5..7).await;
    let mut again = broker.events_after(EVENTS, &id).await;
    again.hears(5..7).await;
    assert_eq!(again.named("live").await, json!({"next_offset": 7}), "nothing is lost and nothing comes twice");
}

#[tokio::test]
async fn a_reader_begins_at_the_end_after_an_offset_or_at_a_place() {
    let broker = dev().await;
    broker.fill("s", 0..5).await;
    for (query, first) in [("?after=2", 3), ("?after=-1", 0), ("?from=4", 4), ("?from=earliest", 0), ("?from=2001-01-01T00:00:00Z", 0), ("?after=&from=1", 1)] {
        broker.events(&format!("{EVENTS}{query}")).await.hears(first..5).await;
    }
    for query in ["", "?from=latest", "?after=4", "?from=5"] {
        let mut reader = broker.events(&format!("{EVENTS}{query}")).await;
        assert_eq!(reader.named("live").await, json!({"next_offset": 5}), "{query}");
    }
    // `EventSource` comes back to the same URL, so what it heard wins.
    broker.events_after(&format!("{EVENTS}?from=earliest"), "3").await.hears(4..5).await;
    broker.events_after(&format!("{EVENTS}?after=0"), "-1").await.hears(0..5).await;
}

#[tokio::test]
async fn a_reader_that_heard_nothing_goes_on_where_it_began() {
    let broker = dev().await;
    for (id, fill) in [("-1", 0..2), ("1", 2..3)] {
        let mut reader = broker.events(EVENTS).await;
        reader.named("live").await;
        let last = reader.parser.last_id.clone();
        assert_eq!(last, id);
        drop(reader);
        broker.fill("s", fill.clone()).await;
        broker.events_after(EVENTS, &last).await.hears(fill).await;
    }
}

#[tokio::test]
async fn an_event_stream_goes_to_those_who_name_and_prefer_it() {
    let broker = dev().await;
    broker.fill("s", 0..1).await;
    for (accept, kind) in [
        ("text/event-stream", "text/event-stream"),
        ("text/event-stream, */*", "text/event-stream"),
        ("application/json;q=0.5, text/event-stream", "text/event-stream"),
        ("*/*", "application/json"),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "application/json"),
        ("application/json, text/event-stream;q=0.9", "application/json"),
        ("text/event-stream;q=0", "application/json"),
    ] {
        let response = http1().get(broker.url(EVENTS)).header("accept", accept).send().await.unwrap();
        assert_eq!(response.headers()["content-type"], kind, "{accept}");
    }
}

#[tokio::test]
async fn lost_offsets_are_a_gap_that_is_heard_once() {
    let broker = dev().await;
    broker.fill("s", 0..6).await;
    assert_eq!(broker.post("/v1/streams/s/trim", r#"{"before_offset":4}"#).await.status, 200);
    let mut reader = broker.events_after(EVENTS, "0").await;
    let gap = reader.next().await;
    assert_eq!((gap.kind.as_str(), gap.id.as_str(), gap.json()), ("gap", "3", json!({"from":1,"to":3,"reason":"retention"})));
    drop(reader);
    broker.events_after(EVENTS, &gap.id).await.hears(4..6).await;

    let refused = ask(&http1(), &broker.url("/v1/streams/s/events?after=0&on_gap=fail"), None).await;
    let (status, body): (u16, Value) = (refused.status().as_u16(), refused.json().await.unwrap());
    assert_eq!((status, &body["metadata"]["code"], &body["metadata"]["details"]["first_offset"]), (404, &json!("cursor_trimmed"), &json!(4)));
}

#[tokio::test]
async fn a_deletion_ends_a_reader_which_is_told_why() {
    let broker = strict().await;
    assert_eq!(broker.post("/v1/streams", r#"{"name":"s"}"#).await.status, 201);
    broker.fill("s", 0..2).await;
    let mut reader = broker.events(&format!("{EVENTS}?from=earliest")).await;
    reader.hears(0..2).await;
    reader.named("live").await;
    assert_eq!(broker.ask("DELETE", "/v1/streams/s", &[], b"").await.status, 202);
    let end = reader.ends().await;
    assert_eq!((&end["code"], &end["applied"], &end["retry"]), (&json!("not_found"), &json!("no"), &json!("never")));
    assert!(end["message"].as_str().is_some_and(|m| m.ends_with('.')) && end["request_id"].is_string() && end["details"].is_object(), "{end}");
    assert_eq!((reader.parser.retry, reader.parser.last_id.as_str()), (Some(86_400_000), "1"), "coming back would only repeat it");
    broker.until_metric("tidelog_event_streams", |n| n == 0.0).await;
}

#[tokio::test]
async fn what_is_refused_before_the_stream_begins_is_an_ordinary_error() {
    let broker = strict().await;
    assert_eq!(broker.post("/v1/streams", r#"{"name":"s"}"#).await.status, 201);
    broker.fill("s", 0..3).await;
    for (path, id, status, code) in [
        ("/v1/streams/none/events", None, 404, "not_found"),
        ("/v1/streams/s/events?limit=5", None, 400, "bad_parameter"),
        ("/v1/streams/s/events?wait=5", None, 400, "bad_parameter"),
        ("/v1/streams/s/events?after=1&from=1", None, 400, "bad_parameter"),
        ("/v1/streams/s/events?after=x", None, 400, "bad_parameter"),
        ("/v1/streams/s/events?after=18446744073709551615", None, 400, "bad_parameter"),
        ("/v1/streams/s/events?colour=red", None, 400, "bad_parameter"),
        ("/v1/streams/s/events?on_gap=jump", None, 400, "bad_parameter"),
        ("/v1/streams/s/events?filter=type+like+x", None, 400, "bad_filter"),
        ("/v1/streams/s/events?token=abc", None, 400, "key_in_url"),
        ("/v1/streams/s/events?from=4", None, 409, "position_beyond_end"),
        ("/v1/streams/s/events?from=1&log_epoch=7", None, 409, "log_epoch_changed"),
        ("/v1/streams/s/events?stream_id=77", None, 409, "stream_replaced"),
        ("/v1/streams/s/events", Some("3"), 409, "position_beyond_end"),
        ("/v1/streams/s/events", Some("x"), 400, "bad_parameter"),
        ("/v1/streams/s/events", Some("fenced"), 400, "bad_parameter"),
    ] {
        let answer = ask(&http1(), &broker.url(path), id).await;
        assert_eq!(answer.headers()["content-type"], "application/json", "{path}");
        let (got, body): (u16, Value) = (answer.status().as_u16(), answer.json().await.unwrap());
        assert_eq!((got, body["metadata"]["code"].as_str()), (status, Some(code)), "{path} {id:?}: {body}");
    }
    let twice = [("Accept", "text/event-stream"), ("Last-Event-ID", "1"), ("Last-Event-ID", "1")];
    assert_eq!(broker.ask("GET", EVENTS, &twice, b"").await.code(), "bad_parameter");
    assert_eq!(serve().await.ask("GET", EVENTS, &[("Accept", "text/event-stream")], b"").await.code(), "unauthenticated");
    assert_eq!(broker.metric("tidelog_event_streams_opened_total").await, 0.0);
}

#[tokio::test]
async fn head_opens_nothing() {
    let broker = strict().await;
    assert_eq!(broker.post("/v1/streams", r#"{"name":"s"}"#).await.status, 201);
    assert_eq!(broker.post("/v1/streams/s/subscriptions", r#"{"name":"billing"}"#).await.status, 201);
    for path in [EVENTS, "/v1/streams/s/subscriptions/billing/events"] {
        let head = broker.ask("HEAD", path, &[("Accept", "text/event-stream")], b"").await;
        assert_eq!((head.status, head.header("content-type"), head.body.len()), (200, Some("text/event-stream"), 0), "{path}");
    }
    for path in ["/v1/streams/none/events", "/v1/streams/s/subscriptions/none/events"] {
        assert_eq!(broker.ask("HEAD", path, &[("Accept", "text/event-stream")], b"").await.status, 404, "{path}");
    }
    assert_eq!(broker.metric("tidelog_event_streams_opened_total").await, 0.0);
    assert_eq!(broker.get("/v1/streams/s/subscriptions/billing").await.metadata()["epoch"], 0);
}

#[tokio::test]
async fn a_silent_stream_is_kept_alive_by_comments() {
    let broker = start(Mode::Dev, |config| config.ping_every = Duration::from_millis(20)).await;
    let mut reader = broker.events(EVENTS).await;
    reader.named("live").await;
    while reader.parser.comments < 3 {
        reader.more().await.expect("the stream goes on");
    }
    broker.fill("s", 0..1).await;
    reader.hears(0..1).await;
}

#[tokio::test]
async fn a_reader_that_goes_away_is_let_go() {
    let broker = dev().await;
    for http in [http1(), http2()] {
        let mut reader = EventSource::open(&http, &broker.url(EVENTS), None).await;
        reader.named("live").await;
        broker.until_metric("tidelog_event_streams", |n| n == 1.0).await;
        drop(reader);
        broker.until_metric("tidelog_event_streams", |n| n == 0.0).await;
    }
    broker.until_metric("tidelog_sessions", |n| n == 0.0).await;
}

/// Text of the kind that breaks lines, fields and parsers.
fn nasty(dice: &mut StdRng) -> String {
    const PARTS: [&str; 22] = [
        "\n",
        "\r",
        "\r\n",
        "\n\n",
        "\0",
        "\u{2028}",
        "\u{2029}",
        "\u{85}",
        "\u{b}",
        "\u{c}",
        "\u{feff}",
        "data: ",
        "id: 9\n",
        "event: end\n",
        ":",
        " ",
        "retry: 1\n",
        "\"",
        "\\",
        "\\ud800",
        "é🦀",
        "x",
    ];
    (0..dice.random_range(0..8)).map(|_| PARTS[dice.random_range(0..PARTS.len())]).collect()
}

/// JSON with line ends wherever JSON may have them, and escapes that are half a character.
fn nasty_json(dice: &mut StdRng) -> String {
    let space = |dice: &mut StdRng| ["", " ", "\n", "\r", "\r\n", "\t", "\n\n"][dice.random_range(0..7)];
    let text = format!("{}\\ud800\\n\\ndata: {{}}\\u0000\\u2028", nasty(dice).replace(['\\', '"'], "").replace(|c: char| c.is_control(), " "));
    let gap: Vec<&str> = (0..8).map(|_| space(dice)).collect();
    format!("{{{}\"a\"{}:{}[1,{}\"{text}\"{}],{}\"b\"{}:{}null}}", gap[0], gap[1], gap[2], gap[3], gap[4], gap[5], gap[6], gap[7])
}

#[tokio::test]
async fn whatever_is_appended_comes_back_equal_and_nothing_breaks_its_lines() {
    let seed: u64 = std::env::var("SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(rand::random);
    println!("SEED={seed}");
    let mut dice = StdRng::seed_from_u64(seed);
    let broker = dev().await;
    for _ in 0..20 {
        let events: Vec<String> = (0..dice.random_range(1..20))
            .map(|_| {
                let mut kind = nasty(&mut dice);
                kind.truncate(kind.char_indices().nth(40).map_or(kind.len(), |(at, _)| at));
                let head = format!(
                    r#""type":{},"key":{},"headers":{{{}:{}}}"#,
                    json!(kind),
                    json!(nasty(&mut dice)),
                    json!(nasty(&mut dice) + "n"),
                    json!(nasty(&mut dice))
                );
                match dice.random_range(0..3) {
                    0 => format!("{{{head},\"data\":{}}}", nasty_json(&mut dice)),
                    1 => format!("{{{head},\"encoding\":\"utf8\",\"data\":{}}}", json!(nasty(&mut dice))),
                    _ => format!("{{{head},\"encoding\":\"base64\",\"data\":\"CmRhdGE6IHgKCg==\"}}"),
                }
            })
            .collect();
        let body = format!("{{\"events\":[{}]}}", events.join(","));
        let answer = broker.post("/v1/streams/s/events", &body).await;
        assert_eq!(answer.status, 201, "{answer:?} {body}");
    }
    let page = broker.get("/v1/streams/s/events?limit=10000").await;
    let text = String::from_utf8(page.body).unwrap();
    #[derive(serde::Deserialize)]
    struct Page<'a> {
        #[serde(borrow)]
        events: Vec<&'a serde_json::value::RawValue>,
    }
    #[derive(serde::Deserialize)]
    struct Envelope<'a> {
        #[serde(borrow)]
        metadata: Page<'a>,
    }
    let Envelope { metadata: Page { events } } = serde_json::from_str(&text).unwrap();
    assert!(events.len() >= 20);
    for from in [0, events.len() as u64 / 2] {
        let mut reader = broker.events(&format!("{EVENTS}?from={from}")).await;
        for (offset, event) in events.iter().enumerate().skip(from as usize) {
            let heard = reader.next().await;
            assert_eq!((heard.kind.as_str(), heard.id.as_str()), ("message", offset.to_string().as_str()));
            assert_eq!(heard.data, event.get().replace(['\r', '\n'], " "), "offset {offset}");
        }
        reader.named("live").await;
        assert_eq!(reader.parser.retry, Some(1000));
    }
}

#[tokio::test]
async fn an_event_of_the_largest_size_and_many_small_ones_go_through() {
    let broker = dev().await;
    let large = vec![b'x'; 1024 * 1024];
    assert_eq!(broker.ask("POST", EVENTS, &[("Content-Type", "application/octet-stream")], &large).await.status, 201);
    broker.fill("s", 0..10_000).await;
    for http in [http1(), http2()] {
        let mut reader = EventSource::open(&http, &broker.url(&format!("{EVENTS}?from=0")), None).await;
        assert_eq!(reader.next().await.json()["size"], 1024 * 1024);
        reader.hears(1..10_001).await;
        reader.named("live").await;
    }
}
