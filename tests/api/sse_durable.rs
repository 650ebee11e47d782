//! Server-Sent Events on a durable subscription: the cursor says where it begins, acks over REST move it, and a reader that was fenced
//! stays away.

use serde_json::{Value, json};
use tidelog::server::Mode;

use crate::event_source::{EventSource, ask, http1, http2};
use crate::support::{Broker, start};

const EVENTS: &str = "/v1/streams/s/subscriptions/billing/events";

/// A broker with stream `s` of `count` events and subscription `billing`.
async fn with_events(count: u64, subscription: &str) -> Broker {
    let broker = start(Mode::Serve { trust_loopback: true }, |_| {}).await;
    assert_eq!(broker.post("/v1/streams", r#"{"name":"s"}"#).await.status, 201);
    if count > 0 {
        broker.fill("s", 0..count).await;
    }
    assert_eq!(broker.post("/v1/streams/s/subscriptions", subscription).await.status, 201);
    broker
}

async fn cursor(broker: &Broker) -> (u64, u64) {
    let seen = broker.get("/v1/streams/s/subscriptions/billing").await.metadata();
    (seen["next"].as_u64().unwrap(), seen["epoch"].as_u64().unwrap())
}

/// Acknowledges as a page does.
async fn ack(broker: &Broker, epoch: &Value, offset: u64) -> crate::support::Answer {
    broker.post("/v1/streams/s/subscriptions/billing/ack", &json!({"epoch": epoch, "offset": offset}).to_string()).await
}

#[tokio::test]
async fn a_session_begins_at_the_cursor_and_acks_over_rest_move_it() {
    let broker = with_events(5, r#"{"name":"billing"}"#).await;
    let mut reader = broker.events(EVENTS).await;
    let open = reader.named("subscribed").await;
    assert_eq!(
        (&open["stream"], &open["epoch"], &open["next"], &open["first_offset"], &open["next_offset"], &open["log_epoch"]),
        (&json!("s"), &json!(1), &json!(0), &json!(0), &json!(5), &json!(1))
    );
    assert_eq!(open["stream_id"], broker.get("/v1/streams/s").await.metadata()["id"]);
    reader.hears(0..5).await;
    assert_eq!(reader.named("live").await, json!({"next_offset": 5}));
    assert_eq!(reader.parser.retry, Some(1000));
    let acked = ack(&broker, &open["epoch"], 1).await.metadata();
    assert_eq!((&acked["acked_offset"], &acked["next"]), (&json!(1), &json!(2)));
    drop(reader);

    // What was not acknowledged comes again, whatever the page has heard.
    for http in [http1(), http2()] {
        let mut again = EventSource::open(&http, &broker.url(EVENTS), Some("4")).await;
        assert_eq!(again.named("subscribed").await["next"], 2);
        again.hears(2..5).await;
    }
    assert_eq!(cursor(&broker).await, (2, 3));
}

#[tokio::test]
async fn a_page_that_comes_back_to_its_url_does_not_move_the_cursor_again() {
    let broker = with_events(4, r#"{"name":"billing"}"#).await;
    for moving in ["from=latest", "from=earliest&rewind=true", "from=1&rewind=true&log_epoch=1"] {
        let url = format!("{EVENTS}?{moving}");
        let mut first = broker.events(&url).await;
        let next = first.named("subscribed").await["next"].as_u64().unwrap();
        let (before, _) = cursor(&broker).await;
        assert_eq!(before, next, "{moving}: the first time it counts");
        broker.fill("s", 0..2).await;
        // An `EventSource` that lost its connection before the first event, too, has heard an id: the place it began at.
        let heard = (next as i64 - 1).to_string();
        drop(first);
        let mut again = broker.events_after(&url, &heard).await;
        assert_eq!(again.named("subscribed").await["next"], next, "{moving}: the cursor says where it goes on");
        drop(again);
        assert_eq!(cursor(&broker).await.0, next);
    }
}

#[tokio::test]
async fn the_window_is_the_subscriptions_and_acks_refill_it() {
    let broker = with_events(5, r#"{"name":"billing","max_in_flight":2}"#).await;
    let mut reader = broker.events(EVENTS).await;
    let epoch = reader.named("subscribed").await["epoch"].clone();
    reader.hears(0..2).await;
    let early = ack(&broker, &epoch, 2).await;
    assert_eq!((early.status, early.code().as_str()), (409, "ack_not_delivered"), "the third was not sent");
    assert_eq!(ack(&broker, &epoch, 0).await.status, 200);
    reader.hears(2..3).await;
    assert_eq!(ack(&broker, &epoch, 2).await.status, 200);
    reader.hears(3..5).await;
    reader.named("live").await;
}

#[tokio::test]
async fn the_query_is_that_of_the_websocket() {
    let broker = with_events(6, r#"{"name":"billing"}"#).await;
    let mut reader = broker.events(&format!("{EVENTS}?from=3&log_epoch=1&takeover=reject&on_gap=skip")).await;
    assert_eq!(reader.named("subscribed").await["next"], 3, "forward is allowed (C-5)");
    reader.hears(3..6).await;
    for (query, status, code) in [
        ("?takeover=reject", 409, "cursor_busy"),
        ("?from=1", 409, "cursor_ahead"),
        ("?from=7", 409, "position_beyond_end"),
        ("?from=4&log_epoch=9", 409, "log_epoch_changed"),
        ("?takeover=beg", 400, "bad_parameter"),
        ("?after=1", 400, "bad_parameter"),
        ("?key=abc", 400, "key_in_url"),
    ] {
        let answer = ask(&http1(), &broker.url(&format!("{EVENTS}{query}")), None).await;
        let (got, body): (u16, Value) = (answer.status().as_u16(), answer.json().await.unwrap());
        assert_eq!((got, body["metadata"]["code"].as_str()), (status, Some(code)), "{query}");
    }
    assert_eq!(ask(&http1(), &broker.url(EVENTS), Some("nonsense")).await.status(), 400);
    assert_eq!(cursor(&broker).await, (3, 1), "a refusal moves nothing");
    let mut back = broker.events(&format!("{EVENTS}?from=1&rewind=true")).await;
    assert_eq!(back.named("subscribed").await["next"], 1);
    back.hears(1..6).await;
    assert_eq!(reader.ends().await["code"], "session_fenced");
}

#[tokio::test]
async fn without_the_accept_header_the_address_says_what_it_is() {
    let broker = with_events(1, r#"{"name":"billing"}"#).await;
    for headers in [&[][..], &[("Accept", "*/*")], &[("Accept", "application/json")]] {
        let answer = broker.ask("GET", EVENTS, headers, b"").await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "bad_parameter"));
        assert!(answer.json()["error"].as_str().unwrap().contains("Accept: text/event-stream"));
    }
    let answer = broker.ask("POST", EVENTS, &[], b"").await;
    assert_eq!((answer.code().as_str(), answer.header("allow")), ("method_not_found", Some("GET,HEAD")));
    assert_eq!(ask(&http1(), &broker.url("/v1/streams/s/subscriptions/none/events"), None).await.status(), 404);
    assert_eq!(cursor(&broker).await, (0, 0));
}

#[tokio::test]
async fn a_fenced_reader_is_told_stays_away_and_cannot_steal_back_by_coming_back() {
    let broker = with_events(4, r#"{"name":"billing"}"#).await;
    let mut first = broker.events(EVENTS).await;
    let old = first.named("subscribed").await["epoch"].clone();
    first.hears(0..4).await;
    let mut second = broker.events(EVENTS).await;
    let new = second.named("subscribed").await["epoch"].clone();
    second.hears(0..4).await;

    let end = first.ends().await;
    assert_eq!((&end["code"], &end["rule"], &end["retry"], &end["details"]["epoch"]), (&json!("session_fenced"), &json!("C-7"), &json!("decide"), &new));
    assert_eq!(first.parser.retry, Some(86_400_000), "EventSource would come back after a second, and steal");
    let refused = ack(&broker, &old, 3).await;
    assert_eq!((refused.status, refused.code().as_str()), (409, "session_fenced"));

    // A day later, or where `retry` is not understood: 204 ends an EventSource for good, and opens nothing.
    for http in [http1(), http2()] {
        let answer = ask(&http, &broker.url(EVENTS), Some(&first.parser.last_id)).await;
        assert_eq!((answer.status().as_u16(), answer.text().await.unwrap().as_str()), (204, ""));
    }
    assert_eq!(cursor(&broker).await, (0, 2));
    assert_eq!(ack(&broker, &new, 3).await.status, 200, "the other one never noticed");
    broker.fill("s", 4..5).await;
    second.named("live").await;
    second.hears(4..5).await;

    // A page that means it, without the memory of its end, may.
    let mut third = broker.events(EVENTS).await;
    assert_eq!(third.named("subscribed").await["next"], 4);
    assert_eq!(second.ends().await["code"], "session_fenced");
}

#[tokio::test]
async fn a_seek_fences_too_and_a_trim_ends_who_wanted_the_events() {
    let broker = with_events(6, r#"{"name":"billing","max_in_flight":2}"#).await;
    let mut reader = broker.events(EVENTS).await;
    reader.named("subscribed").await;
    reader.hears(0..2).await;
    assert_eq!(broker.put("/v1/streams/s/subscriptions/billing/cursor", r#"{"next":1}"#).await.status, 200);
    let end = reader.ends().await;
    assert_eq!((&end["code"], &end["rule"], reader.parser.last_id.as_str()), (&json!("session_fenced"), &json!("C-14"), "fenced"));

    let mut fails = broker.events(EVENTS).await;
    fails.named("subscribed").await;
    fails.hears(1..3).await;
    assert_eq!(broker.post("/v1/streams/s/trim", r#"{"before_offset":5}"#).await.status, 200);
    assert_eq!(fails.ends().await["code"], "cursor_trimmed");
    assert_eq!((fails.parser.retry, fails.parser.last_id.as_str()), (Some(86_400_000), "2"));
    assert_eq!(ask(&http1(), &broker.url(EVENTS), None).await.status(), 404, "and again, so that EventSource stops");

    let mut skips = broker.events(&format!("{EVENTS}?on_gap=skip")).await;
    let epoch = skips.named("subscribed").await["epoch"].clone();
    assert_eq!(skips.named("gap").await, json!({"from":1,"to":4,"reason":"retention"}));
    assert_eq!(ack(&broker, &epoch, 4).await.metadata()["next"], 5, "a gap is acknowledged like an event");
    skips.hears(5..6).await;
}

#[tokio::test]
async fn one_subscription_is_read_and_acknowledged_over_any_carrier() {
    let broker = with_events(4, r#"{"name":"billing"}"#).await;
    let mut page = broker.events(EVENTS).await;
    let epoch = page.named("subscribed").await["epoch"].clone();
    page.hears(0..4).await;
    assert_eq!(ack(&broker, &epoch, 0).await.metadata()["next"], 1);
    let mut socket = broker.ws("/v1/connect").await.greeted().await;
    let commit = json!({"t":"commit","req":1,"acks":[{"stream":"s","subscription":"billing","epoch":epoch,"offset":1}],"appends":[],"checks":[]});
    assert_eq!(socket.ask(&commit.to_string()).await["acks"][0]["next"], 2, "the epoch is good over a WebSocket");
    let opened = socket.ask(r#"{"t":"subscribe","sub":1,"stream":"s","subscription":"billing"}"#).await;
    assert_eq!((&opened["t"], &opened["next"]), (&json!("subscribed"), &json!(2)));
    assert_eq!(page.ends().await["code"], "session_fenced");
    assert_eq!(socket.json().await["events"][0]["offset"], 2);
    assert_eq!(ack(&broker, &opened["epoch"], 3).await.metadata()["next"], 4);
    let mut page = broker.events(EVENTS).await;
    assert_eq!(page.named("subscribed").await["next"], 4);
}
