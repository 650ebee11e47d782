//! `filter=`: only what it holds for is told and counted, page by page, and what cannot be meant is refused with its place.

use serde_json::{Value, json};
use tidelog::client::{Client, Delivery, Endpoint};

use crate::access::{As, console, operator};
use crate::sessions_kept::Home;
use crate::support::{Broker, dev, serve};

fn encoded(filter: &str) -> String {
    filter.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

/// The names or offsets in a list of objects.
fn told(list: &Value, field: &str) -> Vec<Value> {
    list.as_array().expect("a list").iter().map(|item| item[field].clone()).collect()
}

async fn streams(broker: &Broker, filter: &str) -> Vec<Value> {
    told(&broker.get(&format!("/v1/streams?recursion=1&filter={}", encoded(filter))).await.metadata(), "name")
}

async fn with_streams() -> Broker {
    let broker = dev().await;
    for (name, team, events) in [("Audit", "pay", 0), ("bills", "pay", 3), ("cars", "", 1), ("dogs", "pets", 2)] {
        let metadata = if team.is_empty() { json!({}) } else { json!({"team": team}) };
        broker.post("/v1/streams", &json!({"name": name, "description": format!("all {name}"), "metadata": metadata}).to_string()).await.metadata();
        for n in 0..events {
            broker.post(&format!("/v1/streams/{name}/events"), &json!({"events": [{"data": n}]}).to_string()).await.metadata();
        }
    }
    broker
}

#[tokio::test]
async fn a_list_of_streams_shows_those_for_which_the_filter_holds() {
    let broker = with_streams().await;
    for (filter, names) in [
        ("metadata.team eq pay", &["Audit", "bills"][..]),
        ("metadata.team eq null", &["cars"]),
        ("metadata.team ne pay", &["cars", "dogs"]),
        ("state.count gt 0 and not metadata.team eq pets", &["bills", "cars"]),
        ("description eq 'all dogs' or name eq Audit", &["Audit", "dogs"]),
        ("owner eq operator and status eq Ready and closed eq false and created_at gt 2020-01-01T00:00:00Z", &["Audit", "bills", "cars", "dogs"]),
        ("name eq audit", &[]),
        ("state.last_event_at eq null", &["Audit"]),
    ] {
        assert_eq!(streams(&broker, filter).await, names, "{filter}");
    }
}

#[tokio::test]
async fn pages_of_a_filtered_list_count_what_is_shown_and_lead_to_each_other() {
    let broker = with_streams().await;
    let (mut path, mut seen) = (format!("/v1/streams?recursion=1&limit=1&filter={}", encoded("state.count ne 1")), Vec::new());
    loop {
        let answer = broker.get(&path).await;
        let names = told(&answer.metadata(), "name");
        assert_eq!(names.len(), 1, "{path}");
        seen.extend(names);
        match answer.json()["next"].as_str() {
            Some(next) => path = next.to_owned(),
            None => break,
        }
    }
    assert_eq!(seen, ["Audit", "bills", "dogs"]);
}

#[tokio::test]
async fn a_filter_that_cannot_be_meant_is_refused_with_its_place() {
    let broker = with_streams().await;
    for (path, filter, code, position) in [
        ("/v1/streams", "state.count eq many", "bad_filter", 15),
        ("/v1/streams", "name like x", "bad_filter", 5),
        ("/v1/streams", "team eq pay", "unknown_filter_field", 0),
        ("/v1/streams/bills/events", "offset gt 1 and data eq 2", "unknown_filter_field", 16),
        ("/v1/streams/bills/subscriptions", "(lag gt 1", "bad_filter", 0),
        ("/v1/users", "password eq x", "unknown_filter_field", 0),
        ("/v1/sources", "id eq x", "bad_filter", 6),
    ] {
        let answer = broker.get(&format!("{path}?filter={}", encoded(filter))).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, code), "{path}, {filter}");
        assert_eq!(answer.json()["metadata"]["details"]["position"], position, "{path}, {filter}");
    }
    assert_eq!(broker.get("/v1/streams/bills/producers?filter=x").await.code(), "not_implemented");
}

#[tokio::test]
async fn a_read_brings_the_events_that_were_asked_for_and_says_how_far_it_looked() {
    let broker = dev().await;
    broker.post("/v1/streams", r#"{"name":"s"}"#).await.metadata();
    for batch in 0..10 {
        let events: Vec<Value> =
            (0..3).map(|n| json!({"type": (["a", "b", ""][n]), "key": format!("k{batch}"), "headers": {"n": n.to_string()}, "data": batch * 3 + n})).collect();
        broker.post("/v1/streams/s/events", &json!({"events": events}).to_string()).await.metadata();
    }
    let read = async |more: &str, filter: &str| broker.get(&format!("/v1/streams/s/events?{more}filter={}", encoded(filter))).await.metadata();
    let page = read("", "type eq b").await;
    assert_eq!(told(&page["events"], "offset"), (0..10).map(|batch| batch * 3 + 1).collect::<Vec<u64>>());
    assert_eq!((&page["after"], &page["more"]), (&json!(29), &json!(false)));
    let page = read("limit=2&after=3&", "headers.n eq 0 or key eq k2").await;
    assert_eq!((told(&page["events"], "offset"), &page["after"], &page["more"]), (vec![json!(6), json!(7)], &json!(7), &json!(true)));
    let page = read("after=7&", "key eq k2 and type eq null and encoding eq json and author.user_id eq 1").await;
    assert_eq!((told(&page["events"], "offset"), &page["after"]), (vec![json!(8)], &json!(29)));
    let page = read("", "size gt 100").await;
    assert_eq!((told(&page["events"], "offset").len(), &page["after"], &page["more"]), (0, &json!(29), &json!(false)));
}

#[tokio::test]
async fn what_a_filter_passes_over_does_not_end_a_wait() {
    let broker = dev().await;
    broker.post("/v1/streams", r#"{"name":"s"}"#).await.metadata();
    let path = format!("/v1/streams/s/events?wait=30&filter={}", encoded("type eq b"));
    let append = async |kind: &str| {
        broker.post("/v1/streams/s/events", &json!({"events": [{"type": kind, "data": 1}]}).to_string()).await.metadata();
    };
    let (page, ()) = tokio::join!(broker.get(&path), async {
        append("a").await;
        append("a").await;
        append("b").await;
    });
    assert_eq!(told(&page.metadata()["events"], "offset"), [json!(2)]);
}

#[tokio::test]
async fn operations_are_listed_by_status_to_those_who_asked_for_them() {
    let broker = serve().await;
    let (root, alice) = (operator(&broker), console(&broker, "alice").await);
    for name in ["a", "b", "c"] {
        alice.made("POST", "/v1/streams", json!({"name": name})).await;
        let id = alice.ask("DELETE", &format!("/v1/streams/{name}"), Value::Null).await.json()["metadata"]["id"].as_str().expect("an operation").to_owned();
        alice.made("GET", &format!("/v1/operations/{id}/wait"), Value::Null).await;
    }
    let listed = alice.get("/v1/operations").await.metadata();
    assert_eq!(listed["success"].as_array().map(Vec::len), Some(3), "{listed}");
    let address = listed["success"][0].as_str().expect("an address").to_owned();
    let shown = alice.get(&address).await.metadata();
    let (mut path, mut seen) = ("/v1/operations?recursion=1&limit=2".to_owned(), Vec::new());
    loop {
        let page = alice.get(&path).await.json();
        seen.extend(page["metadata"]["success"].as_array().expect("a group").clone());
        match page["next"].as_str() {
            Some(next) => path = next.to_owned(),
            None => break,
        }
    }
    assert_eq!(seen.len(), 3);
    assert!(seen.contains(&shown), "the same object as by itself");
    assert_eq!(operations(&root, "command eq stream.Delete and status eq Success and may_cancel eq false").await, 3);
    assert_eq!(operations(&root, "status_code lt 200").await, 0);
    assert_eq!(operations(&root, &format!("id eq {}", shown["id"].as_str().expect("an id"))).await, 1);
    assert_eq!(operations(&console(&broker, "bob").await, "").await, 0, "those of others are hidden");
    assert_eq!(alice.refused("GET", "/v1/operations?after=x", Value::Null).await, (400, "bad_parameter".into()));
}

async fn operations(who: &As<'_>, filter: &str) -> usize {
    let listed = who.get(&format!("/v1/operations?filter={}", encoded(filter))).await.metadata();
    listed.as_object().expect("groups").values().map(|group| group.as_array().map_or(0, Vec::len)).sum()
}

/// Events of these types, in one batch.
async fn append(broker: &Broker, kinds: &str) {
    let events: Vec<Value> = kinds.chars().map(|kind| json!({"type": kind.to_string(), "data": 1})).collect();
    broker.post("/v1/streams/s/events", &json!({"events": events}).to_string()).await.metadata();
}

#[tokio::test]
async fn an_event_stream_that_passes_events_over_comes_back_behind_them() {
    let broker = dev().await;
    append(&broker, "aabaa").await;
    let path = format!("/v1/streams/s/events?from=earliest&filter={}", encoded("type eq b"));
    let mut reader = broker.events(&path).await;
    reader.hears(2..3).await;
    assert_eq!(reader.named("live").await, json!({"next_offset": 5}));
    let id = reader.parser.last_id.clone();
    drop(reader);
    append(&broker, "ab").await;
    broker.events_after(&path, &id).await.hears(6..7).await;
    assert_eq!(id, "4", "it has been told how far it was looked");
}

#[tokio::test]
async fn a_websocket_is_told_of_what_is_passed_over_and_may_acknowledge_it() {
    let broker = dev().await;
    append(&broker, "aba").await;
    let mut peer = broker.ws("/v1/connect").await.greeted().await;
    peer.text(r#"{"t":"subscribe","sub":1,"stream":"s","subscription":"x","create":true,"filter":"type eq b"}"#).await;
    let mut heard = Vec::new();
    while heard.last().is_none_or(|frame: &Value| frame["t"] != "live") {
        heard.push(peer.json().await);
    }
    let told: Vec<(&str, &Value)> = heard.iter().map(|frame| (frame["t"].as_str().expect("a name"), &frame["next"])).collect();
    assert_eq!(told[1..], [("progress", &json!(1)), ("events", &Value::Null), ("progress", &json!(3)), ("live", &Value::Null)], "{heard:?}");
    assert_eq!(peer.ask(r#"{"t":"ack","sub":1,"offset":2}"#).await["next"], 3);
}

#[tokio::test]
async fn the_client_acknowledges_what_was_passed_over_with_the_event_before_it() {
    let broker = dev().await;
    append(&broker, "abb").await;
    let client = Client::connect(Endpoint::parse(&broker.url("")).expect("an address")).await.expect("the broker answers");
    let mut reader = client.consumer("s").subscription("x").create().filter("type eq a").open().await.expect("it opens");
    let event = reader.next_event().await.expect("an event").expect("no error");
    assert!(matches!(reader.next().await, Some(Ok(Delivery::Live { next_offset: 3 }))), "the rest is passed over");
    reader.ack(event.offset).confirmed().await.expect("it counts");
    let cursor = async || broker.get("/v1/streams/s/subscriptions/x").await.metadata()["next"].clone();
    assert_eq!((event.offset, cursor().await), (0, json!(3)));
    // And of what comes later, once it is told, without a word of the program.
    append(&broker, "bb").await;
    tokio::select! {
        heard = reader.next() => panic!("nothing is wanted: {heard:?}"),
        () = async { while cursor().await != json!(5) { tokio::task::yield_now().await } } => {}
    }
    reader.close().await;
    let other = client.consumer("s").subscription("x").filter("type eq b").open().await.map(drop).expect_err("it keeps its filter");
    assert!(other.to_string().contains("another filter"), "{other}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_speaks_the_same_language() {
    let (broker, home) = (serve().await, Home::new());
    let socket = broker.server.socket().to_str().expect("text").to_owned();
    let run = async |arguments: &[&str]| home.lines(&[arguments, &["--socket", socket.as_str()]].concat()).await;
    for name in ["a", "b"] {
        run(&["stream", "create", name, "--metadata", &format!("team={name}")]).await;
        run(&["user", "create", name]).await;
        run(&["source", "create", name, "--owner", name]).await;
    }
    run(&["pub", "a", "1"]).await;
    run(&["subscription", "create", "a", "x", "--filter", "type eq none"]).await;
    let names = |rows: Vec<Value>| rows.iter().map(|row| row["name"].as_str().expect("a name").to_owned()).collect::<Vec<_>>();
    assert_eq!(names(run(&["stream", "ls", "--filter", "metadata.team eq b"]).await), ["b"]);
    assert_eq!(names(run(&["user", "ls", "--filter", "name ne a"]).await), ["b"]);
    assert_eq!(names(run(&["source", "ls", "--filter", "user eq a"]).await), ["a"]);
    assert_eq!(names(run(&["subscription", "ls", "a", "--filter", "lag gt 0"]).await), ["x"]);
    run(&["stream", "rm", "b", "--yes"]).await;
    assert_eq!(run(&["operation", "ls", "--filter", "command eq stream.Delete"]).await.len(), 1);
    let (code, said) = home.bad(&["stream", "ls", "--filter", "team eq b", "--socket", &socket]).await;
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("metadata.*"), "it says which fields there are: {said}");
}
