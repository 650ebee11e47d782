//! Appends over REST in all their forms: keys against repetition, and errors that name line, field and byte.

use serde_json::{Value, json};
use tidelog::server::Server;

use crate::support::{Answer, Broker, dev, on_disk, post_to};

const EVENTS: &str = "/v1/streams/s/events";

async fn with_stream() -> Broker {
    let broker = dev().await;
    assert_eq!(broker.post("/v1/streams", r#"{"name":"s"}"#).await.status, 201);
    broker
}

async fn keyed(broker: &Broker, path: &str, content_type: &str, key: &str, body: &[u8]) -> Answer {
    broker.ask("POST", path, &[("Content-Type", content_type), ("Idempotency-Key", key)], body).await
}

async fn stored(broker: &Broker) -> u64 {
    broker.get("/v1/streams/s").await.metadata()["state"]["next_offset"].as_u64().unwrap()
}

#[tokio::test]
async fn an_append_with_a_key_is_stored_once_in_every_form_of_body() {
    let broker = with_stream().await;
    for (index, (path, content_type, body)) in [
        (EVENTS, "application/json", &br#"{"events":[{"data":1},{"data":2}]}"#[..]),
        (EVENTS, "application/x-ndjson", b"{\"data\":1}\n{\"data\":2}\n"),
        ("/v1/streams/s/events?lines=data", "application/x-ndjson", b"1\n2\n"),
        (EVENTS, "text/plain", b"text"),
        ("/v1/streams/s/events?type=t&key=k", "application/octet-stream", b"\x00\xff"),
    ]
    .into_iter()
    .enumerate()
    {
        let (key, before) = (format!("key-{index}"), stored(&broker).await);
        let first = keyed(&broker, path, content_type, &key, body).await;
        assert_eq!((first.status, first.header("idempotency-replayed")), (201, None), "{content_type}");
        let mut first = first.metadata();
        assert_eq!((&first["first_offset"], &first["duplicate"]), (&json!(before), &json!(false)), "{content_type}");
        assert!(first["dedup_until"].as_str().unwrap().ends_with('Z'), "{first}");
        let again = keyed(&broker, path, content_type, &key, body).await;
        assert_eq!((again.status, again.header("idempotency-replayed"), again.header("location")), (200, Some("true"), None), "{content_type}");
        first["duplicate"] = true.into();
        assert_eq!(again.metadata(), first, "the first answer, whole");
        assert_eq!(stored(&broker).await, first["last_offset"].as_u64().unwrap() + 1, "{content_type}");
    }
}

#[tokio::test]
async fn a_key_stands_for_its_events_whatever_form_they_come_in() {
    let broker = with_stream().await;
    assert_eq!(keyed(&broker, EVENTS, "application/json", "k", br#"{"events":[{"data":1},{"data":"two"}]}"#).await.status, 201);
    let as_lines = keyed(&broker, EVENTS, "application/x-ndjson", "k", b"{\"data\": 1 }\n{\"data\":\"two\"}\n").await;
    assert_eq!((as_lines.status, &as_lines.metadata()["duplicate"]), (200, &json!(true)));
    for other in [&br#"{"events":[{"data":1},{"data":"2"}]}"#[..], br#"{"events":[{"data":1}]}"#, br#"{"events":[{"data":1,"key":"k"},{"data":"two"}]}"#] {
        let answer = keyed(&broker, EVENTS, "application/json", "k", other).await;
        assert_eq!((answer.status, answer.code().as_str()), (409, "idempotency_key_reused"));
        let metadata = &answer.json()["metadata"];
        assert_eq!((&metadata["rule"], &metadata["applied"], &metadata["retry"]), (&json!("P-19"), &json!("no"), &json!("never")));
    }
    assert_eq!(stored(&broker).await, 2);
}

#[tokio::test]
async fn a_key_belongs_to_one_stream_and_outlasts_what_would_refuse_the_append_now() {
    let broker = with_stream().await;
    let body = br#"{"events":[{"data":1}],"expected_next_offset":0}"#;
    assert_eq!(keyed(&broker, EVENTS, "application/json", "k", body).await.status, 201);
    assert_eq!(keyed(&broker, "/v1/streams/t/events", "application/json", "k", body).await.status, 201, "another stream, another key");
    assert_eq!(keyed(&broker, EVENTS, "application/json", "k", body).await.status, 200, "the condition held when it was stored");
    assert_eq!(broker.post("/v1/streams/s/close", "").await.status, 200);
    assert_eq!(keyed(&broker, EVENTS, "application/json", "k", body).await.status, 200, "and the stream was open");
    assert_eq!(keyed(&broker, EVENTS, "application/json", "new", body).await.code(), "stream_closed");
    assert_eq!(broker.ask("POST", EVENTS, &[("Content-Type", "application/json")], body).await.code(), "stream_closed", "without a key it is another append");
}

#[tokio::test]
async fn a_refused_append_does_not_use_its_key_up() {
    let broker = with_stream().await;
    let refused = keyed(&broker, EVENTS, "application/json", "k", br#"{"events":[{"data":1}],"expected_next_offset":7}"#).await;
    assert_eq!((refused.status, refused.code().as_str()), (412, "condition_failed"));
    assert_eq!(keyed(&broker, EVENTS, "application/json", "k", b"{\"events\":[{").await.code(), "json_parsing_failed");
    let stored = keyed(&broker, EVENTS, "application/json", "k", br#"{"events":[{"data":2}]}"#).await;
    assert_eq!((stored.status, &stored.metadata()["duplicate"]), (201, &json!(false)));
}

#[tokio::test]
async fn a_header_that_is_no_key_is_refused_and_a_key_has_128_characters_at_most() {
    let broker = with_stream().await;
    let body = br#"{"events":[{"data":1}]}"#;
    let longest = "k".repeat(128);
    for good in ["k", "order-17/try~1", &longest[..127], &longest] {
        assert_eq!(keyed(&broker, EVENTS, "application/json", good, body).await.status, 201, "{good}");
    }
    let before = stored(&broker).await;
    for bad in ["", "two words", "k\u{e9}", &format!("{longest}k")] {
        let answer = keyed(&broker, EVENTS, "application/json", bad, body).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "bad_parameter"), "{bad:?}");
        assert_eq!(answer.json()["metadata"]["details"]["field"], "idempotency-key");
    }
    let twice = [("Content-Type", "application/json"), ("Idempotency-Key", "a"), ("Idempotency-Key", "a")];
    assert_eq!(broker.ask("POST", EVENTS, &twice, body).await.code(), "bad_parameter");
    let both = keyed(&broker, EVENTS, "application/json", "p", br#"{"events":[{"data":1}],"producer":{"id":"p","epoch":1,"seq":0}}"#).await;
    assert_eq!((both.status, both.code().as_str(), &both.json()["metadata"]["details"]["field"]), (400, "bad_parameter", &json!("producer")));
    assert_eq!(stored(&broker).await, before);
}

#[tokio::test]
async fn many_at_once_with_one_key_store_it_once() {
    let broker = with_stream().await;
    let body = br#"{"events":[{"data":1}]}"#;
    let answers = futures_util::future::join_all((0..32).map(|_| keyed(&broker, EVENTS, "application/json", "k", body))).await;
    let statuses: Vec<u16> = answers.iter().map(|a| a.status).collect();
    assert_eq!(statuses.iter().filter(|s| **s == 201).count(), 1, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|s| **s == 200).count(), 31, "{statuses:?}");
    assert!(answers.iter().all(|a| a.metadata()["first_offset"] == 0));
    assert_eq!(stored(&broker).await, 1);
}

#[tokio::test]
async fn a_key_outlives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let keyed = async |server: &Server, body: &str| post_to(server, EVENTS, &[("Idempotency-Key", "k")], body).await;
    let server = on_disk(dir.path()).await;
    assert_eq!(post_to(&server, "/v1/streams", &[], r#"{"name":"s"}"#).await.status, 201);
    let mut first = keyed(&server, r#"{"events":[{"data":1}]}"#).await.metadata();
    server.stop().await.expect("a clean stop");
    let server = on_disk(dir.path()).await;
    let again = keyed(&server, r#"{"events":[{"data":1}]}"#).await;
    first["duplicate"] = true.into();
    assert_eq!((again.status, again.metadata()), (200, first));
    assert_eq!(keyed(&server, r#"{"events":[{"data":2}]}"#).await.code(), "idempotency_key_reused");
    server.stop().await.expect("a clean stop");
}

#[tokio::test]
async fn an_error_in_a_line_names_the_line_the_field_and_the_byte() {
    let broker = with_stream().await;
    assert_eq!(broker.post("/v1/streams", r#"{"name":"small","event_max_bytes":4}"#).await.status, 201);
    let big = format!("{{\"data\":1}}\n\n{{\"data\":\"{}\"}}\n", "x".repeat(1024 * 1024));
    let rows: [(&str, &[u8], u16, &str, Value); 10] = [
        ("s/events", b"{\"data\":1}\n{\"data\":\n", 400, "json_parsing_failed", json!({"line":2,"field":"events[1]","column":8})),
        ("s/events", b"{\"data\":1}\r\n\r\n  {\"data\":nul}\r\n", 400, "json_parsing_failed", json!({"line":3,"field":"events[1]","column":14})),
        ("s/events", b"\n\n7\n", 400, "bad_parameter", json!({"line":3,"field":"events[0]"})),
        ("s/events", b"{\"data\":1,\"key\":7}", 400, "bad_parameter", json!({"line":1,"field":"events[0].key"})),
        ("s/events", b"{\"data\":1}\n{\"data\":1,\"colour\":1}", 400, "unknown_field", json!({"line":2,"field":"events[1].colour"})),
        ("s/events", b"{\"data\":1}\n{\"data\":\"\xff\"}\n", 400, "json_parsing_failed", json!({"line":2,"field":"events[1]","column":10})),
        ("s/events", big.as_bytes(), 413, "too_large", json!({"line":3,"field":"events[1].data","limit":1048576})),
        ("s/events?lines=data", b"1\n\n[1,]\n", 400, "json_parsing_failed", json!({"line":3,"field":"events[1].data","column":4})),
        ("s/events?lines=data", b"1 2", 400, "json_parsing_failed", json!({"line":1,"field":"events[0].data","column":3})),
        ("small/events?lines=data", b"1\n\n\n1234\n12345\n123456\n", 413, "too_large", json!({"line":5,"field":"events[2].data","limit":4})),
    ];
    for (path, body, status, code, details) in rows {
        let answer = broker.ask("POST", &format!("/v1/streams/{path}"), &[("Content-Type", "application/x-ndjson")], body).await;
        let shown = String::from_utf8_lossy(&body[..body.len().min(60)]).into_owned();
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{shown}");
        assert_eq!(answer.json()["metadata"]["details"], details, "{shown}");
        let sentence = answer.json()["error"].as_str().unwrap().to_owned();
        assert!(sentence.starts_with(&format!("Line {}: ", details["line"])), "{sentence}");
    }
    assert_eq!(stored(&broker).await, 0, "a batch is stored whole or not at all");
    assert_eq!(broker.get("/v1/streams/small").await.metadata()["state"]["next_offset"], 0);
}

#[tokio::test]
async fn an_error_in_one_of_several_events_names_it() {
    let broker = with_stream().await;
    let too_many_headers: serde_json::Map<String, Value> = (0..33).map(|n| (n.to_string(), json!("v"))).collect();
    for (event, code, field) in [
        (json!(7), "bad_parameter", "events[2]"),
        (json!({}), "bad_parameter", "events[2].data"),
        (json!({"data":1,"type":7}), "bad_parameter", "events[2].type"),
        (json!({"data":1,"type":"t".repeat(257)}), "too_large", "events[2].type"),
        (json!({"data":1,"key":"k".repeat(4097)}), "too_large", "events[2].key"),
        (json!({"data":1,"headers":too_many_headers}), "too_large", "events[2].headers"),
        (json!({"data":1,"headers":{"a":"v".repeat(8192)}}), "too_large", "events[2].headers"),
        (json!({"data":1,"headers":{"a":1}}), "bad_parameter", "events[2].headers.a"),
        (json!({"data":1,"headers":[]}), "bad_parameter", "events[2].headers"),
        (json!({"data":1,"encoding":"xml"}), "bad_parameter", "events[2].encoding"),
        (json!({"data":1,"encoding":"utf8"}), "bad_parameter", "events[2].data"),
        (json!({"data":"?","encoding":"base64"}), "bad_parameter", "events[2].data"),
        (json!({"data":1,"offset":1}), "unknown_field", "events[2].offset"),
    ] {
        let body = json!({"events": [{"data":0}, {"data":1}, event, {"data":3}]}).to_string();
        let answer = broker.post(EVENTS, &body).await;
        assert_eq!(answer.code(), code, "{field}: {}", answer.json());
        assert_eq!(answer.json()["metadata"]["details"]["field"], field);
    }
    let cut = broker.post(EVENTS, "{\"events\":[\n{\"data\":1},\n{\"data\":tru}]}").await;
    assert_eq!((cut.code().as_str(), &cut.json()["metadata"]["details"]), ("json_parsing_failed", &json!({"line":3,"column":12})));
    assert_eq!(stored(&broker).await, 0);
}
