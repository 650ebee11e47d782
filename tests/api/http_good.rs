//! REST as the surfaces page tells it, when everything is right.

use std::time::Duration;

use serde_json::json;
use tidelog::types::TimeUs;

use crate::support::{PATIENCE, dev, exchange};

#[tokio::test]
async fn a_stream_is_created_described_listed_closed_and_deleted() {
    let broker = dev().await;
    let created = broker.post("/v1/streams", r#"{"name":"Orders","description":"d","metadata":{"team":"pay"}}"#).await;
    assert_eq!((created.status, created.header("location")), (201, Some("/v1/streams/Orders")));
    let stream = created.metadata();
    assert_eq!(created.header("x-created-record-id"), Some(stream["id"].to_string().as_str()));
    assert_eq!(
        (&stream["name"], &stream["status"], &stream["status_code"], &stream["durability"]),
        (&json!("Orders"), &json!("Ready"), &json!(113), &json!("fsync"))
    );
    assert_eq!(stream["state"], json!({"first_offset":0,"next_offset":0,"count":0,"bytes":0,"last_event_at":null}));
    assert_eq!(stream["owner"], "/v1/users/operator");

    assert_eq!(broker.get("/v1/streams/orders").await.metadata()["id"], stream["id"], "names are found in any case");
    assert_eq!(broker.post("/v1/streams", r#"{"name":"ORDERS"}"#).await.code(), "name_taken");
    assert_eq!(broker.get("/v1/streams").await.metadata(), json!(["/v1/streams/Orders"]));
    assert_eq!(broker.get("/v1/streams?recursion=1").await.metadata()[0]["uuid"], stream["uuid"]);

    let closed = broker.post("/v1/streams/Orders/close", "").await;
    assert_eq!((closed.status, &closed.metadata()["closed"]), (200, &json!(true)));
    assert_eq!(broker.post("/v1/streams/Orders/events", r#"{"events":[{"data":1}]}"#).await.code(), "stream_closed");

    let deleted = broker.ask("DELETE", "/v1/streams/Orders", &[], b"").await;
    assert_eq!(deleted.status, 202);
    let body = deleted.json();
    assert_eq!((&body["type"], &body["status"], &body["status_code"]), (&json!("async"), &json!("Operation created"), &json!(100)));
    let operation = body["operation"].as_str().unwrap().to_owned();
    assert_eq!(deleted.header("location"), Some(operation.as_str()));
    let done = broker.get(&format!("{operation}/wait?timeout=20")).await.metadata();
    assert_eq!((&done["status"], &done["status_code"], &done["err"]), (&json!("Success"), &json!(200), &json!("")));
    assert_eq!(broker.get(&operation).await.metadata()["resources"], json!({"streams":["/v1/streams/Orders"]}));
    assert_eq!(broker.get("/v1/streams/Orders").await.code(), "not_found");
    assert_eq!(broker.ask("DELETE", &operation, &[], b"").await.code(), "already_final");
}

#[tokio::test]
async fn lists_come_in_pages_that_say_where_they_go_on() {
    let broker = dev().await;
    for name in ["c", "a", "e", "b", "d"] {
        assert_eq!(broker.post("/v1/streams", &json!({"name": name}).to_string()).await.status, 201);
    }
    let (mut next, mut seen) = (Some("/v1/streams?limit=2".to_owned()), Vec::new());
    while let Some(path) = next {
        let body = broker.get(&path).await.json();
        seen.extend(body["metadata"].as_array().unwrap().iter().map(|v| v.as_str().unwrap().to_owned()));
        next = body["next"].as_str().map(str::to_owned);
    }
    assert_eq!(seen, ["a", "b", "c", "d", "e"].map(|n| format!("/v1/streams/{n}")));
    assert_eq!(broker.get("/v1/streams?after=d").await.metadata(), json!(["/v1/streams/e"]));
}

#[tokio::test]
async fn events_are_appended_and_read_back_byte_for_byte() {
    let broker = dev().await;
    let body = r#"{"events":[{"type":"order.created","key":"o-1","headers":{"trace":"a1"},"data": {"total": 1.20} },{"data":"text","encoding":"utf8"},{"data":"AAEC","encoding":"base64"}],"expected_next_offset":0}"#;
    let appended = broker.post("/v1/streams/orders/events", body).await;
    assert_eq!((appended.status, appended.header("location")), (201, Some("/v1/streams/orders/events/0")));
    assert_eq!(appended.metadata(), json!({"first_offset":0,"last_offset":2,"count":3,"duplicate":false,"durability":"fsync"}));

    let read = broker.get("/v1/streams/orders/events").await;
    assert!(String::from_utf8_lossy(&read.body).contains(r#""data":{"total": 1.20},"#), "JSON data is kept as it was sent");
    let read = read.metadata();
    assert_eq!(
        (&read["stream"], &read["first_offset"], &read["next_offset"], &read["after"], &read["more"]),
        (&json!("orders"), &json!(0), &json!(3), &json!(2), &json!(false))
    );
    let events = read["events"].as_array().unwrap();
    assert_eq!(events[0]["headers"], json!({"trace":"a1"}));
    assert_eq!((&events[1]["data"], &events[1]["encoding"], &events[1]["type"]), (&json!("text"), &json!("utf8"), &json!("")));
    assert_eq!((&events[2]["data"], &events[2]["encoding"], &events[2]["size"]), (&json!("AAEC"), &json!("base64"), &json!(3)));
    assert_eq!(events[0]["author"], json!({"user_id":1,"source_id":null}));

    for (which, offset) in [("0", 0), ("2", 2), ("-1", 2), ("-3", 0), ("first", 0), ("last", 2)] {
        assert_eq!(broker.get(&format!("/v1/streams/orders/events/{which}")).await.metadata(), events[offset], "{which}");
    }
    assert!(broker.get("/v1/streams/orders/events/random").await.metadata()["offset"].as_u64().unwrap() < 3);
}

#[tokio::test]
async fn lines_and_raw_bodies_are_events_too() {
    let broker = dev().await;
    let lines = b"{\"data\":1,\"key\":\"k\"}\n\n{\"data\":[2]}\r\n";
    assert_eq!(broker.ask("POST", "/v1/streams/s/events", &[("Content-Type", "application/x-ndjson")], lines).await.metadata()["count"], 2);
    assert_eq!(
        broker.ask("POST", "/v1/streams/s/events?lines=data", &[("Content-Type", "application/x-ndjson")], b"3\n\"four\"\n").await.metadata()["count"],
        2
    );
    assert_eq!(
        broker.ask("POST", "/v1/streams/s/events?type=t&key=k%20k", &[("Content-Type", "text/plain; charset=utf-8")], "fünf".as_bytes()).await.status,
        201
    );
    assert_eq!(broker.ask("POST", "/v1/streams/s/events", &[("Content-Type", "application/octet-stream")], &[0, 255]).await.status, 201);
    let events = broker.get("/v1/streams/s/events").await.metadata()["events"].clone();
    let data: Vec<_> = events.as_array().unwrap().iter().map(|e| e["data"].clone()).collect();
    assert_eq!(data, [json!(1), json!([2]), json!(3), json!("four"), json!("fünf"), json!("AP8=")]);
    assert_eq!((&events[4]["type"], &events[4]["key"], &events[4]["encoding"]), (&json!("t"), &json!("k k"), &json!("utf8")));
}

#[tokio::test]
async fn reads_begin_where_they_are_told_and_say_how_to_go_on() {
    let broker = dev().await;
    let lines: String = (0..25).map(|n| format!("{n}\n")).collect();
    broker.ask("POST", "/v1/streams/s/events?lines=data", &[("Content-Type", "application/x-ndjson")], lines.as_bytes()).await;
    let (mut after, mut seen) = ("-1".to_owned(), Vec::new());
    loop {
        let read = broker.get(&format!("/v1/streams/s/events?after={after}&limit=10")).await.metadata();
        seen.extend(read["events"].as_array().unwrap().iter().map(|e| e["data"].as_u64().unwrap()));
        after = read["after"].to_string();
        if read["more"] == false {
            break;
        }
    }
    assert_eq!(seen, (0..25).collect::<Vec<u64>>());
    assert_eq!(broker.get("/v1/streams/s/events?from=24").await.metadata()["events"].as_array().unwrap().len(), 1);
    assert_eq!(broker.get("/v1/streams/s/events?from=latest").await.metadata()["events"], json!([]));
    assert_eq!(broker.get("/v1/streams/s/events?from=2001-01-01T00:00:00Z&limit=1").await.metadata()["events"][0]["offset"], 0);

    let trimmed = broker.post("/v1/streams/s/trim", r#"{"before_offset":20}"#).await.metadata();
    assert_eq!((&trimmed["state"]["first_offset"], &trimmed["state"]["count"]), (&json!(20), &json!(5)));
    assert_eq!(broker.get("/v1/streams/s/events?after=19&limit=1").await.metadata()["events"][0]["offset"], 20);
    let gone = broker.get("/v1/streams/s/events?after=18").await;
    assert_eq!((gone.status, gone.code().as_str(), &gone.json()["metadata"]["details"]["first_offset"]), (404, "offset_trimmed", &json!(20)));
    assert_eq!(broker.get("/v1/streams/s/events/3").await.code(), "offset_trimmed");
    assert_eq!(broker.get("/v1/streams/s/events/first").await.metadata()["offset"], 20);
}

#[tokio::test]
async fn a_long_poll_ends_when_something_comes() {
    let broker = dev().await;
    assert_eq!(broker.post("/v1/streams", r#"{"name":"s"}"#).await.status, 201);
    assert_eq!(broker.get("/v1/streams/s/events?wait=0").await.metadata()["events"], json!([]));
    let tcp = broker.tcp().await;
    let poll = tokio::spawn(async move { exchange(tcp, "GET", "/v1/streams/s/events?wait=60", &[], b"").await });
    assert_eq!(broker.post("/v1/streams/s/events", r#"{"events":[{"data":1}]}"#).await.status, 201);
    assert_eq!(tokio::time::timeout(PATIENCE, poll).await.expect("the poll ends").unwrap().metadata()["events"][0]["data"], 1);
}

#[tokio::test]
async fn a_long_poll_whose_client_goes_away_is_given_up() {
    let broker = dev().await;
    assert_eq!(broker.post("/v1/streams", r#"{"name":"s"}"#).await.status, 201);
    let mut tcp = broker.tcp().await;
    tokio::io::AsyncWriteExt::write_all(&mut tcp, b"GET /v1/streams/s/events?wait=60 HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let open = async |n: u32| {
        let wanted = format!("tidelog_connections {n}.0\n");
        while !String::from_utf8(broker.get("/metrics").await.body).unwrap().contains(&wanted) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, open(2)).await.expect("the poll and the one who asks");
    drop(tcp);
    tokio::time::timeout(Duration::from_secs(20), open(1)).await.expect("only the one who asks");
}

#[tokio::test]
async fn a_repeated_producer_sequence_answers_200_with_the_first_offsets() {
    let broker = dev().await;
    assert_eq!(broker.post("/v1/streams", r#"{"name":"s"}"#).await.status, 201);
    let mut peer = broker.ws("/v1/connect").await.greeted().await;
    let opened = peer.ask(r#"{"t":"open_producer","req":1,"stream":"s","producer":"p1"}"#).await;
    let body = json!({"events":[{"data":1}],"producer":{"id":"p1","epoch":opened["epoch"],"seq":0}}).to_string();
    let first = broker.post("/v1/streams/s/events", &body).await;
    assert_eq!((first.status, &first.metadata()["duplicate"]), (201, &json!(false)));
    let again = broker.post("/v1/streams/s/events", &body).await;
    assert_eq!((again.status, again.metadata()), (200, json!({"first_offset":0,"last_offset":0,"count":1,"duplicate":true,"durability":"fsync"})));
}

#[tokio::test]
async fn subscriptions_and_their_cursors_are_objects() {
    let broker = dev().await;
    broker.ask("POST", "/v1/streams/s/events?lines=data", &[("Content-Type", "application/x-ndjson")], b"0\n1\n2\n").await;
    let created = broker.post("/v1/streams/s/subscriptions", r#"{"name":"billing","max_in_flight":10}"#).await;
    assert_eq!((created.status, created.header("location")), (201, Some("/v1/streams/s/subscriptions/billing")));
    let sub = created.metadata();
    assert_eq!(
        (&sub["acked_offset"], &sub["next"], &sub["epoch"], &sub["mode"], &sub["status"]),
        (&json!(null), &json!(0), &json!(0), &json!("exclusive"), &json!("Stopped"))
    );
    assert_eq!(sub["lag"]["events"], 3);
    assert_eq!(broker.post("/v1/streams/s/subscriptions", r#"{"name":"late","start":"latest"}"#).await.metadata()["next"], 3);
    assert_eq!(broker.get("/v1/streams/s/subscriptions").await.metadata(), json!(["/v1/streams/s/subscriptions/billing", "/v1/streams/s/subscriptions/late"]));

    let moved = broker.put("/v1/streams/s/subscriptions/billing/cursor", r#"{"next":2}"#).await.metadata();
    assert_eq!((&moved["acked_offset"], &moved["next"], &moved["epoch"]), (&json!(1), &json!(2), &json!(1)), "a seek bumps the epoch");
    assert_eq!(broker.get("/v1/streams/s/subscriptions/billing/cursor").await.metadata()["next"], 2);
    assert_eq!(broker.put("/v1/streams/s/subscriptions/billing/cursor", r#"{"earliest":true}"#).await.metadata()["next"], 0);

    assert_eq!(broker.ask("DELETE", "/v1/streams/s/subscriptions/late", &[], b"").await.status, 200);
    assert_eq!(broker.get("/v1/streams/s/subscriptions/late").await.code(), "not_found");
}

#[tokio::test]
async fn head_works_where_get_does_and_a_trailing_slash_is_ignored() {
    let broker = dev().await;
    assert_eq!(broker.post("/v1/streams/", r#"{"name":"s"}"#).await.status, 201);
    for path in ["/", "/v1", "/v1/", "/v1/version", "/v1/streams/", "/v1/streams/s", "/v1/streams/s/?recursion=0", "/v1/streams/s/events/", "/livez/"] {
        let (get, head) = (broker.get(path).await, broker.ask("HEAD", path, &[], b"").await);
        assert_eq!((head.status, head.body.len()), (200, 0), "{path}");
        assert_eq!((get.status, get.header("content-type")), (200, head.header("content-type")), "{path}");
    }
    let head = broker.ask("HEAD", "/v1/connect", &[], b"").await;
    assert_eq!((head.status, head.header("allow")), (405, Some("GET")));
}

#[tokio::test]
async fn head_has_the_headers_of_get_and_neither_waits_nor_changes_anything() {
    let broker = dev().await;
    assert_eq!(broker.post("/v1/streams", r#"{"name":"s"}"#).await.status, 201);
    assert_eq!(broker.post("/v1/producers", r#"{"producer":"tx"}"#).await.status, 201);
    let operation = broker.ask("DELETE", "/v1/streams/s", &[], b"").await;
    let operation = operation.header("location").unwrap().to_owned();
    assert_eq!(broker.get(&format!("{operation}/wait")).await.metadata()["status"], "Success");
    assert_eq!(broker.post("/v1/streams/t/events", r#"{"events":[{"data":1}]}"#).await.status, 201);
    assert_eq!(broker.post("/v1/streams/t/subscriptions", r#"{"name":"b","start":"latest"}"#).await.status, 201);
    assert_eq!(broker.post("/v1/streams/t/producers", r#"{"producer":"p"}"#).await.status, 201);
    for path in [
        "/",
        "/v1/version",
        "/v1/streams",
        "/v1/streams?recursion=1",
        "/v1/streams/t",
        "/v1/streams/t?recursion=1",
        "/v1/streams/t/events",
        "/v1/streams/t/events/0",
        "/v1/streams/t/events/last",
        "/v1/streams/t/subscriptions",
        "/v1/streams/t/producers",
        "/v1/streams/t/producers/p",
        "/v1/producers",
        "/v1/producers/tx",
        &operation,
        &format!("{operation}/wait"),
        "/livez",
        "/readyz",
        // Refusals have headers too.
        "/v1/streams/none",
        "/v1/streams/none/events",
        "/v1/streams/t/events/7",
        "/v1/streams/t/producers/none",
        "/v1/nothing",
        "/v1/streams?limit=0",
        "/v1/operations",
    ] {
        let (get, head) = (broker.get(path).await, broker.ask("HEAD", path, &[], b"").await);
        assert_eq!((head.status, head.body.len()), (get.status, 0), "{path}");
        for name in ["content-type", "content-length", "allow", "location"] {
            assert_eq!(head.header(name), get.header(name), "{name} of {path}");
        }
    }
    // Nobody waits for an answer that has no body.
    for path in ["/v1/streams/t/events?after=0&wait=60", "/v1/streams/t/events?from=latest&wait=60"] {
        let head = tokio::time::timeout(PATIENCE, broker.ask("HEAD", path, &[], b"")).await.expect("a HEAD does not wait");
        assert_eq!((head.status, head.body.len()), (200, 0), "{path}");
    }
    for path in ["/v1/streams/t/subscriptions/b/pull", "/v1/streams/t/subscriptions/b/ack", "/v1/commit", "/v1/streams/t/trim"] {
        let head = broker.ask("HEAD", path, &[], b"").await;
        assert_eq!((head.status, head.header("allow"), head.body.len()), (405, Some("POST"), 0), "{path}");
    }
    assert_eq!(broker.get("/v1/streams").await.metadata(), json!(["/v1/streams/t"]), "a HEAD makes no stream");
    assert_eq!(broker.get("/v1/streams/t/subscriptions/b").await.metadata()["epoch"], 0, "nor opens a session");
}

#[tokio::test]
async fn head_is_as_empty_over_http2() {
    let broker = dev().await;
    let http = tidelog::client::http_builder().http2_prior_knowledge().no_proxy().timeout(PATIENCE).build().unwrap();
    for path in ["/v1/version", "/v1/streams", "/v1/streams/none", "/v1/nothing", "/livez"] {
        let url = format!("{}{path}", broker.server.url());
        let (get, head) = (http.get(&url).send().await.unwrap(), http.head(&url).send().await.unwrap());
        assert_eq!((get.status(), get.version()), (head.status(), http::Version::HTTP_2), "{path}");
        let length = head.headers().get("content-length").map(|v| v.to_str().unwrap().parse::<usize>().unwrap());
        assert_eq!((head.bytes().await.unwrap().len(), length), (0, Some(get.bytes().await.unwrap().len())), "{path}");
    }
}

#[tokio::test]
async fn a_stream_shows_its_subscriptions_when_asked() {
    let broker = dev().await;
    assert_eq!(broker.post("/v1/streams/s/events", r#"{"events":[{"data":1}]}"#).await.status, 201);
    assert_eq!(broker.get("/v1/streams/s?recursion=1").await.metadata()["subscriptions"], json!([]));
    for name in ["b", "a"] {
        assert_eq!(broker.post("/v1/streams/s/subscriptions", &json!({"name": name}).to_string()).await.status, 201);
    }
    let mut whole = broker.get("/v1/streams/s?recursion=1").await.metadata();
    // Ages differ from call to call.
    for (of, name) in whole["subscriptions"].as_array_mut().unwrap().iter_mut().zip(["a", "b"]) {
        let mut alone = broker.get(&format!("/v1/streams/s/subscriptions/{name}")).await.metadata();
        of["lag"]["seconds"] = json!(0);
        alone["lag"]["seconds"] = json!(0);
        assert_eq!(*of, alone);
    }
    whole.as_object_mut().unwrap().remove("subscriptions");
    assert_eq!(whole, broker.get("/v1/streams/s").await.metadata(), "the rest is the stream as it is without");
    assert_eq!(broker.get("/v1/streams/s?recursion=0").await.metadata().get("subscriptions"), None);
    assert_eq!(broker.get("/v1/streams/s?recursion=2").await.code(), "bad_parameter");
}

#[tokio::test]
async fn reads_begin_at_times_between_before_and_after_events_also_where_some_are_gone() {
    let broker = dev().await;
    for n in 0..4 {
        assert_eq!(broker.post("/v1/streams/s/events", &json!({"events": [{"data": n}, {"data": n}]}).to_string()).await.status, 201);
    }
    let events = broker.get("/v1/streams/s/events").await.metadata()["events"].as_array().unwrap().clone();
    let time = |offset: usize| TimeUs::parse(events[offset]["time"].as_str().unwrap()).unwrap();
    assert!(time(0) < time(2) && time(2) < time(4) && time(4) < time(6), "batches that waited for each other have times of their own");
    let first = async |at: TimeUs| {
        let read = broker.get(&format!("/v1/streams/s/events?from={at}&limit=1")).await.metadata();
        read["events"][0]["offset"].as_u64()
    };
    let after = |offset: usize| TimeUs(time(offset).0 + 1);
    let before = |offset: usize| TimeUs(time(offset).0 - 1);
    assert_eq!((first(TimeUs(0)).await, first(before(0)).await, first(time(0)).await), (Some(0), Some(0), Some(0)));
    assert_eq!((first(after(1)).await, first(before(2)).await, first(time(3)).await), (Some(2), Some(2), Some(2)), "a batch has one time");
    assert_eq!((first(time(7)).await, first(after(7)).await), (Some(6), None));
    assert_eq!(broker.get(&format!("/v1/streams/s/events?from={}", after(7))).await.metadata()["after"], 7);

    assert_eq!(broker.post("/v1/streams/s/trim", r#"{"before_offset":5}"#).await.status, 200);
    assert_eq!((first(TimeUs(0)).await, first(time(2)).await, first(time(4)).await, first(time(6)).await), (Some(5), Some(5), Some(5), Some(6)));
    for (which, offset) in [("first", 5), ("last", 7), ("-1", 7), ("-3", 5)] {
        assert_eq!(broker.get(&format!("/v1/streams/s/events/{which}")).await.metadata()["offset"], offset, "{which}");
    }
    assert_eq!(broker.get("/v1/streams/s/events/-4").await.code(), "not_found", "it would be one that is gone");
    for _ in 0..50 {
        assert!((5..8).contains(&broker.get("/v1/streams/s/events/random").await.metadata()["offset"].as_u64().unwrap()));
    }
    assert_eq!(broker.post("/v1/streams/s/trim", r#"{"before_offset":8}"#).await.status, 200);
    assert_eq!((first(TimeUs(0)).await, first(after(7)).await), (None, None));
    for which in ["first", "last", "random", "-1"] {
        let answer = broker.get(&format!("/v1/streams/s/events/{which}")).await;
        assert_eq!((answer.status, answer.code().as_str()), (404, "stream_empty"), "{which}");
    }
}

#[tokio::test]
async fn bodies_of_get_head_and_delete_are_ignored() {
    let broker = dev().await;
    assert_eq!(broker.post("/v1/streams", r#"{"name":"s"}"#).await.status, 201);
    assert_eq!(broker.ask("GET", "/v1/streams", &[("Content-Type", "text/html")], b"{nonsense").await.status, 200);
    assert_eq!(broker.ask("DELETE", "/v1/streams/s", &[], b"{nonsense").await.status, 202);
}

#[tokio::test]
async fn the_request_id_is_echoed_or_made() {
    let broker = dev().await;
    assert_eq!(broker.ask("GET", "/v1", &[("X-Request-Id", "abc-1")], b"").await.header("x-request-id"), Some("abc-1"));
    let long = "x".repeat(65);
    for answer in [broker.get("/livez").await, broker.get("/nothing").await, broker.ask("GET", "/v1", &[("X-Request-Id", &long)], b"").await] {
        assert_eq!(answer.header("x-request-id").map(str::len), Some(32));
    }
}

#[tokio::test]
async fn root_and_version_say_what_other_programs_expect() {
    let broker = dev().await;
    assert_eq!(broker.get("/").await.metadata(), json!(["/v1"]));
    assert_eq!(broker.get("/v1/version").await.json(), json!({"tidelog": env!("CARGO_PKG_VERSION")}));
}
