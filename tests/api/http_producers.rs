//! Producers and commits over REST alone.

use serde_json::{Value, json};

use crate::support::{Answer, Broker, dev};

async fn with_stream() -> Broker {
    let broker = dev().await;
    assert_eq!(broker.post("/v1/streams", r#"{"name":"s"}"#).await.status, 201);
    broker
}

async fn append(broker: &Broker, epoch: u64, seq: u64, data: u64) -> Answer {
    let body = json!({"events": [{"data": data}], "producer": {"id": "p1", "epoch": epoch, "seq": seq}});
    broker.post("/v1/streams/s/events", &body.to_string()).await
}

#[tokio::test]
async fn a_producer_is_created_resumed_shown_and_fenced() {
    let broker = with_stream().await;
    let created = broker.post("/v1/streams/s/producers", r#"{"producer":"p1"}"#).await;
    assert_eq!((created.status, created.header("location")), (201, Some("/v1/streams/s/producers/p1")));
    let stream_id = broker.get("/v1/streams/s").await.metadata()["id"].clone();
    assert_eq!(created.metadata(), json!({"producer":"p1","epoch":1,"last_seq":null,"next_offset":0,"stream_id":stream_id,"log_epoch":1,"origin":"created"}));
    assert_eq!(append(&broker, 1, 0, 7).await.status, 201);
    let resumed = broker.post("/v1/streams/s/producers", r#"{"producer":"p1","expect":"resume"}"#).await;
    assert_eq!((resumed.status, resumed.header("location")), (200, None));
    let resumed = resumed.metadata();
    assert_eq!((&resumed["epoch"], &resumed["last_seq"], &resumed["next_offset"], &resumed["origin"]), (&json!(2), &json!(0), &json!(1), &json!("resumed")));
    let fenced = append(&broker, 1, 1, 8).await;
    assert_eq!((fenced.status, fenced.code().as_str()), (409, "producer_fenced"));
    assert_eq!(append(&broker, 2, 1, 8).await.status, 201);

    let shown = broker.get("/v1/streams/s/producers/p1").await.metadata();
    assert_eq!((&shown["producer"], &shown["stream"], &shown["epoch"], &shown["last_seq"]), (&json!("p1"), &json!("s"), &json!(2), &json!(1)));
    assert!(shown["last_used_at"].as_str().unwrap().ends_with('Z'), "{shown}");
    assert_eq!(broker.get("/v1/streams/s/producers").await.metadata(), json!(["/v1/streams/s/producers/p1"]));
    assert_eq!(broker.get("/v1/streams/s/producers?recursion=1").await.metadata(), json!([shown]));

    let taken = broker.post("/v1/streams/s/producers", r#"{"producer":"p1","expect":"create"}"#).await;
    assert_eq!((taken.status, taken.code().as_str()), (409, "name_taken"));
    let lost = broker.post("/v1/streams/s/producers", r#"{"producer":"p2","expect":"resume"}"#).await;
    assert_eq!((lost.status, lost.code().as_str()), (409, "producer_state_lost"));
    let replaced = broker.post("/v1/streams/s/producers", r#"{"producer":"p1","stream_id":999}"#).await;
    assert_eq!((replaced.status, replaced.code().as_str()), (409, "stream_replaced"));
}

#[tokio::test]
async fn a_deleted_producer_is_unknown_and_begins_a_new_life_above_its_old_epochs() {
    let broker = with_stream().await;
    for _ in 0..3 {
        broker.post("/v1/streams/s/producers", r#"{"producer":"p1"}"#).await;
    }
    assert_eq!(append(&broker, 3, 0, 7).await.status, 201);
    let deleted = broker.ask("DELETE", "/v1/streams/s/producers/p1", &[], b"").await;
    assert_eq!((deleted.status, deleted.metadata()), (200, json!({})));
    for answer in [broker.get("/v1/streams/s/producers/p1").await, broker.ask("DELETE", "/v1/streams/s/producers/p1", &[], b"").await] {
        assert_eq!((answer.status, answer.code().as_str()), (404, "not_found"));
        assert_eq!(answer.json()["metadata"]["resource"], "/v1/streams/s/producers/p1");
    }
    assert_eq!(append(&broker, 3, 1, 8).await.code(), "producer_unknown");
    let anew = broker.post("/v1/streams/s/producers", r#"{"producer":"p1"}"#).await;
    let (status, anew) = (anew.status, anew.metadata());
    assert_eq!((status, &anew["origin"], &anew["last_seq"]), (201, &json!("created"), &json!(null)));
    assert!(anew["epoch"].as_u64() > Some(3), "no zombie of the old one has this epoch: {anew}");
    assert_eq!(broker.get("/v1/streams/s").await.metadata()["state"]["next_offset"], 1, "what it stored stays");
}

#[tokio::test]
async fn lists_of_producers_come_in_pages_sorted_by_id() {
    let broker = with_stream().await;
    for base in ["/v1/streams/s/producers", "/v1/producers"] {
        for id in ["cursor:a:b", "long-long-long", "b", "a", "B"] {
            assert_eq!(broker.post(base, &json!({"producer": id}).to_string()).await.status, 201, "{base} {id}");
        }
        let (mut next, mut seen, mut pages) = (Some(format!("{base}?limit=2")), Vec::new(), 0);
        while let Some(path) = next {
            let body = broker.get(&path).await.json();
            seen.extend(body["metadata"].as_array().unwrap().iter().map(|v| v.as_str().unwrap().to_owned()));
            next = body["next"].as_str().map(str::to_owned);
            pages += 1;
        }
        assert_eq!(seen, ["B", "a", "b", "cursor:a:b", "long-long-long"].map(|id| format!("{base}/{id}")));
        assert_eq!(pages, 3);
        for path in &seen {
            assert_eq!(broker.get(path).await.status, 200, "an address in a list leads somewhere: {path}");
        }
    }
}

#[tokio::test]
async fn broker_wide_producers_are_other_producers() {
    let broker = with_stream().await;
    let opened = broker.post("/v1/producers", r#"{"producer":"tx"}"#).await;
    assert_eq!((opened.status, opened.header("location")), (201, Some("/v1/producers/tx")));
    assert_eq!(opened.metadata(), json!({"producer":"tx","epoch":1,"last_seq":null,"next_offset":null,"stream_id":null,"log_epoch":1,"origin":"created"}));
    assert_eq!(broker.post("/v1/producers", r#"{"producer":"tx","stream_id":1}"#).await.code(), "unknown_field");
    assert_eq!(broker.get("/v1/streams/s/producers/tx").await.code(), "not_found");
    assert_eq!(broker.get("/v1/producers/tx").await.metadata()["stream"], json!(null));
    let mut peer = broker.ws("/v1/connect").await.greeted().await;
    let again = peer.ask(r#"{"t":"open_producer","req":1,"producer":"tx"}"#).await;
    assert_eq!((&again["epoch"], &again["origin"]), (&json!(2), &json!("resumed")), "over another carrier it is the same one");
    assert_eq!(broker.ask("DELETE", "/v1/producers/tx", &[], b"").await.status, 200);
    assert_eq!(broker.get("/v1/producers/tx").await.code(), "not_found");
}

/// Stream `in` with three events that reader `b` was given in epoch 1, and stream `out`.
async fn with_reader() -> Broker {
    let broker = dev().await;
    for name in ["in", "out"] {
        assert_eq!(broker.post("/v1/streams", &json!({"name": name}).to_string()).await.status, 201);
    }
    assert_eq!(broker.post("/v1/streams/in/events", r#"{"events":[{"data":0},{"data":1},{"data":2}]}"#).await.status, 201);
    assert_eq!(broker.post("/v1/streams/in/subscriptions", r#"{"name":"b"}"#).await.status, 201);
    assert_eq!(broker.post("/v1/streams/in/subscriptions/b/pull", "").await.metadata()["epoch"], 1);
    broker
}

fn work(offset: u64) -> Value {
    json!({"acks": [{"stream":"in","subscription":"b","epoch":1,"offset":offset}], "appends": [{"stream":"out","events":[{"data":{"done":offset}}]}]})
}

#[tokio::test]
async fn a_commit_acknowledges_and_appends_and_its_retry_gets_the_first_answer() {
    let broker = with_reader().await;
    assert_eq!(broker.post("/v1/producers", r#"{"producer":"tx"}"#).await.status, 201);
    let mut body = work(1);
    body["producer"] = json!({"id":"tx","epoch":1,"seq":0});
    let answer = broker.post("/v1/commit", &body.to_string()).await;
    let mut committed = json!({
        "acks": [{"stream":"in","subscription":"b","offset":1,"next":2}],
        "appends": [{"stream":"out","first_offset":0,"last_offset":0,"count":1}], "duplicate": false,
    });
    assert_eq!((answer.status, answer.metadata()), (200, committed.clone()));
    committed["duplicate"] = true.into();
    let again = broker.post("/v1/commit", &body.to_string()).await;
    assert_eq!((again.status, again.metadata()), (200, committed));
    assert_eq!(broker.get("/v1/producers/tx").await.metadata()["last_seq"], 0, "its numbers count commits");
    assert_eq!(broker.get("/v1/streams/in/subscriptions/b").await.metadata()["next"], 2);
    body["appends"] = json!([]);
    let reused = broker.post("/v1/commit", &body.to_string()).await;
    assert_eq!((reused.status, reused.code().as_str()), (409, "producer_seq_reused"));
    let empty = broker.post("/v1/commit", "{}").await;
    assert_eq!((empty.status, empty.code().as_str()), (400, "bad_parameter"));
}

#[tokio::test]
async fn a_refused_part_of_a_commit_has_the_status_of_its_cause_and_nothing_is_done() {
    let broker = with_reader().await;
    assert_eq!(broker.post("/v1/streams", r#"{"name":"closed"}"#).await.status, 201);
    assert_eq!(broker.post("/v1/streams/closed/close", "").await.status, 200);
    assert_eq!(broker.post("/v1/streams", r#"{"name":"small","event_max_bytes":2}"#).await.status, 201);
    let with = |part: &str, item: Value| {
        let mut body = work(1);
        if body[part].is_null() {
            body[part] = json!([]);
        }
        body[part].as_array_mut().unwrap().push(item);
        body
    };
    let ack = |subscription: &str, epoch: u64, offset: u64| json!({"acks": [{"stream":"in","subscription":subscription,"epoch":epoch,"offset":offset}]});
    for (body, status, part, index, cause) in [
        (with("appends", json!({"stream":"closed","events":[{"data":1}]})), 409, "appends", 1, "stream_closed"),
        (with("appends", json!({"stream":"small","events":[{"data":1},{"data":123}]})), 413, "appends", 1, "too_large"),
        (with("appends", json!({"stream":"out","events":[{"data":1}],"expected_next_offset":7})), 412, "appends", 1, "condition_failed"),
        (with("checks", json!({"stream":"closed","expected_next_offset":7})), 412, "checks", 0, "condition_failed"),
        (with("checks", json!({"stream":"none","expected_next_offset":0})), 404, "checks", 0, "not_found"),
        (ack("none", 1, 0), 404, "acks", 0, "not_found"),
        (ack("b", 0, 0), 409, "acks", 0, "session_fenced"),
        (ack("b", 9, 0), 409, "acks", 0, "session_unknown"),
        (ack("b", 1, 9), 409, "acks", 0, "ack_beyond_end"),
    ] {
        let answer = broker.post("/v1/commit", &body.to_string()).await;
        assert_eq!((answer.status, answer.code().as_str()), (status, "txn_part_failed"), "{body}: {}", answer.json());
        let metadata = answer.json()["metadata"].clone();
        let details = &metadata["details"];
        assert_eq!((&details["part"], &details["index"], &details["cause"]["code"]), (&json!(part), &json!(index), &json!(cause)), "{body}");
        assert_eq!((&metadata["rule"], &metadata["applied"]), (&json!("T-1"), &json!("no")));
    }
    assert_eq!(broker.get("/v1/streams/in/subscriptions/b").await.metadata()["next"], 0);
    assert_eq!(broker.get("/v1/streams/out").await.metadata()["state"]["next_offset"], 0);
}

#[tokio::test]
async fn a_commit_is_read_like_its_frame() {
    let broker = with_reader().await;
    for (body, code, field) in [
        (json!({"acks":[{"stream":"in","subscription":"b","epoch":1}]}), "bad_parameter", "acks[0].offset"),
        (json!({"acks":[{"stream":"in","subscription":"b","epoch":1,"offset":0,"ack_token":"x"}]}), "unknown_field", "acks[0].ack_token"),
        (json!({"acks":{}}), "bad_parameter", "acks"),
        (json!({"appends":[{"stream":"out","events":[]}]}), "bad_parameter", "appends[0].events"),
        (json!({"appends":[{"stream":"out","events":[{"data":1},{"key":"k"}]}]}), "bad_parameter", "appends[0].events[1].data"),
        (json!({"appends":[{"stream":"a/b","events":[{"data":1}]}]}), "bad_parameter", "appends[0].stream"),
        (json!({"checks":[{"stream":"out"}]}), "bad_parameter", "checks[0].expected_next_offset"),
        (json!({"producer":{"id":"tx","epoch":1}}), "bad_parameter", "producer.seq"),
        (json!({"t":"commit"}), "unknown_field", "t"),
    ] {
        let answer = broker.post("/v1/commit", &body.to_string()).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, code), "{body}");
        assert_eq!(answer.json()["metadata"]["details"]["field"], field, "{body}");
    }
    assert_eq!(broker.get("/v1/streams/out").await.metadata()["state"]["next_offset"], 0);
}

#[tokio::test]
async fn a_dev_broker_makes_the_streams_that_producers_and_commits_name() {
    let broker = dev().await;
    assert_eq!(broker.post("/v1/streams/a/producers", r#"{"producer":"p1"}"#).await.status, 201);
    assert_eq!(broker.post("/v1/commit", r#"{"appends":[{"stream":"b","events":[{"data":1}]}]}"#).await.status, 200);
    assert_eq!(broker.get("/v1/streams").await.metadata(), json!(["/v1/streams/a", "/v1/streams/b"]));
}
