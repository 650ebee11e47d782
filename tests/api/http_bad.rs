//! Bad input over REST: each gets one of the documented codes, names what was wrong, stores nothing.

use serde_json::json;

use crate::support::{Broker, dev, serve};

/// Every route with a name in it filled in, the methods it has, and whether it takes a JSON body.
const ROUTES: &[(&str, &[&str], &[&str])] = &[
    ("/", &["GET"], &[]),
    ("/v1", &["GET", "PUT", "PATCH"], &[]),
    ("/v1/version", &["GET"], &[]),
    ("/v1/streams", &["GET", "POST"], &["POST"]),
    ("/v1/streams/s", &["GET", "DELETE", "PUT", "PATCH", "POST"], &[]),
    ("/v1/streams/s/events", &["GET", "POST"], &["POST"]),
    ("/v1/streams/s/events/0", &["GET"], &[]),
    ("/v1/streams/s/trim", &["POST"], &["POST"]),
    ("/v1/streams/s/close", &["POST"], &["POST"]),
    ("/v1/streams/s/purge", &["POST"], &[]),
    ("/v1/streams/s/producers", &["GET", "POST"], &["POST"]),
    ("/v1/streams/s/producers/p", &["GET", "DELETE"], &[]),
    ("/v1/streams/s/subscriptions", &["GET", "POST"], &["POST"]),
    ("/v1/streams/s/subscriptions/b", &["GET", "DELETE", "PUT", "PATCH"], &[]),
    ("/v1/streams/s/subscriptions/b/cursor", &["GET", "PUT"], &["PUT"]),
    ("/v1/streams/s/subscriptions/b/pull", &["POST"], &["POST"]),
    ("/v1/streams/s/subscriptions/b/ack", &["POST"], &["POST"]),
    ("/v1/streams/s/subscriptions/b/events", &["GET"], &[]),
    ("/v1/streams/s/subscriptions/b/connect", &["GET"], &[]),
    ("/v1/connect", &["GET"], &[]),
    ("/v1/operations", &["GET"], &[]),
    ("/v1/operations/8c3f0000-0000-4000-8000-000000000000", &["GET", "DELETE"], &[]),
    ("/v1/operations/8c3f0000-0000-4000-8000-000000000000/wait", &["GET"], &[]),
    ("/v1/commit", &["POST"], &["POST"]),
    ("/v1/producers", &["GET", "POST"], &["POST"]),
    ("/v1/producers/p", &["GET", "DELETE"], &[]),
    ("/livez", &["GET"], &[]),
    ("/readyz", &["GET"], &[]),
    ("/metrics", &["GET"], &[]),
];

async fn with_stream() -> Broker {
    let broker = dev().await;
    assert_eq!(broker.post("/v1/streams", r#"{"name":"s"}"#).await.status, 201);
    assert_eq!(broker.post("/v1/streams/s/subscriptions", r#"{"name":"b"}"#).await.status, 201);
    broker
}

/// Nothing was stored by whatever was refused.
async fn untouched(broker: &Broker) {
    assert_eq!(broker.get("/v1/streams").await.metadata(), json!(["/v1/streams/s"]));
    let stream = broker.get("/v1/streams/s").await.metadata();
    assert_eq!((&stream["state"]["next_offset"], &stream["closed"], &stream["status"]), (&json!(0), &json!(false), &json!("Ready")));
    assert_eq!(broker.get("/v1/streams/s/subscriptions").await.metadata(), json!(["/v1/streams/s/subscriptions/b"]));
    let subscription = broker.get("/v1/streams/s/subscriptions/b").await.metadata();
    assert_eq!((&subscription["epoch"], &subscription["next"]), (&json!(0), &json!(0)));
    for producers in ["/v1/producers", "/v1/streams/s/producers"] {
        assert_eq!(broker.get(producers).await.metadata(), json!([]), "{producers}");
    }
}

#[tokio::test]
async fn every_route_refuses_methods_it_lacks_and_lists_those_it_has() {
    let broker = with_stream().await;
    for (path, methods, _) in ROUTES {
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"] {
            if methods.contains(&method) {
                continue;
            }
            let answer = broker.ask(method, path, &[], b"").await;
            assert_eq!((answer.status, answer.code().as_str(), &answer.json()["error_code"]), (405, "method_not_found", &json!(404)), "{method} {path}");
            let allow = answer.header("allow").unwrap_or_default();
            let mut allowed: Vec<&str> = allow.split(',').map(str::trim).collect();
            // HEAD works wherever GET does, except for WebSockets.
            if methods.contains(&"GET") && !path.ends_with("/connect") {
                assert!(allowed.contains(&"HEAD"), "{path} allows {allow}");
                allowed.retain(|m| *m != "HEAD");
            }
            let expected: std::collections::BTreeSet<&str> = methods.iter().copied().collect();
            assert_eq!(allowed.into_iter().collect::<std::collections::BTreeSet<_>>(), expected, "{path} allows {allow}");
        }
    }
    untouched(&broker).await;
}

#[tokio::test]
async fn a_caller_without_a_credential_learns_nothing_from_any_route() {
    let broker = serve().await;
    let public = ["/", "/v1", "/v1/version", "/livez", "/readyz", "/metrics"];
    for (path, methods, _) in ROUTES.iter().filter(|(path, ..)| !public.contains(path) && !path.ends_with("/connect")) {
        for method in *methods {
            for (content_type, body) in [("application/json", &b"{}"[..]), ("text/html", b"\xff garbage")] {
                let answer = broker.ask(method, path, &[("Content-Type", content_type)], body).await;
                assert_eq!((answer.status, answer.code().as_str()), (401, "unauthenticated"), "{method} {path}");
                assert_eq!((answer.header("www-authenticate"), &answer.json()["metadata"]["details"]), (Some("Bearer"), &json!({})), "{method} {path}");
            }
        }
    }
}

#[tokio::test]
async fn bodies_that_are_no_json_object_are_refused_on_every_route_that_takes_one() {
    let broker = with_stream().await;
    let deep = format!("{}{}", "[".repeat(5000), "]".repeat(5000));
    let deep_field = format!("{{\"name\":{deep}}}");
    let bad: &[(&[u8], &str)] = &[
        (b"{", "json_parsing_failed"),
        (b"{\"a\":}", "json_parsing_failed"),
        (b"not json", "json_parsing_failed"),
        (b"{\"a\":\"\xff\"}", "json_parsing_failed"),
        (b"{} {}", "json_parsing_failed"),
        (b"\xef\xbb\xbf{}", "json_parsing_failed"),
        (deep.as_bytes(), ""),
        (deep_field.as_bytes(), ""),
        (b"[]", ""),
        (b"null", ""),
        (b"7", ""),
    ];
    for (path, _, with_body) in ROUTES {
        for method in *with_body {
            for (body, code) in bad {
                let answer = broker.ask(method, path, &[("Content-Type", "application/json")], body).await;
                let shown = String::from_utf8_lossy(&body[..body.len().min(40)]).into_owned();
                assert_eq!(answer.status, 400, "{method} {path} {shown}");
                let said = answer.code();
                match *code {
                    "" => assert!(["json_parsing_failed", "bad_parameter", "unknown_field"].contains(&said.as_str()), "{method} {path} {shown}: {said}"),
                    code => assert_eq!(said, code, "{method} {path} {shown}"),
                }
            }
        }
    }
    untouched(&broker).await;
}

#[tokio::test]
async fn unknown_fields_and_fields_given_twice_are_refused_by_name() {
    let broker = with_stream().await;
    for (method, path, body) in [
        ("POST", "/v1/streams", r#"{"name":"x","colour":1}"#),
        ("POST", "/v1/streams/s/events", r#"{"events":[{"data":1}],"colour":1}"#),
        ("POST", "/v1/streams/s/events", r#"{"events":[{"data":1,"colour":1}]}"#),
        ("POST", "/v1/streams/s/events", r#"{"events":[{"data":1}],"producer":{"id":"p","epoch":1,"seq":0,"colour":1}}"#),
        ("POST", "/v1/streams/s/trim", r#"{"before_offset":0,"colour":1}"#),
        ("POST", "/v1/streams/s/close", r#"{"colour":1}"#),
        ("POST", "/v1/streams/s/subscriptions", r#"{"name":"x","colour":1}"#),
        ("PUT", "/v1/streams/s/subscriptions/b/cursor", r#"{"next":0,"colour":1}"#),
        ("POST", "/v1/streams/s/subscriptions/b/pull", r#"{"colour":1}"#),
        ("POST", "/v1/streams/s/subscriptions/b/ack", r#"{"epoch":1,"offset":0,"colour":1}"#),
        ("POST", "/v1/streams/s/subscriptions/b/ack", r#"{"ack_token":"x","colour":1}"#),
        ("POST", "/v1/streams/s/producers", r#"{"producer":"p","colour":1}"#),
        ("POST", "/v1/producers", r#"{"producer":"p","colour":1}"#),
        ("POST", "/v1/commit", r#"{"appends":[{"stream":"s","events":[{"data":1}]}],"colour":1}"#),
        ("POST", "/v1/commit", r#"{"appends":[{"stream":"s","events":[{"data":1}],"colour":1}]}"#),
    ] {
        let answer = broker.ask(method, path, &[("Content-Type", "application/json")], body.as_bytes()).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "unknown_field"), "{body}");
        assert!(answer.json()["metadata"]["details"]["field"].as_str().unwrap().ends_with("colour"), "{body}");
        let twice = body.replace("\"colour\":1", "\"colour\":1,\"colour\":1");
        let answer = broker.ask(method, path, &[("Content-Type", "application/json")], twice.as_bytes()).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "bad_parameter"), "{twice}");
    }
    untouched(&broker).await;
}

#[tokio::test]
async fn wrong_content_types_are_415_with_code_400() {
    let broker = with_stream().await;
    for (path, _, with_body) in ROUTES {
        for method in *with_body {
            for content_type in ["text/html", "application/xml", "application/jsonx", "application/json; charset=latin1", ""] {
                let headers: &[(&str, &str)] = if content_type.is_empty() { &[] } else { &[("Content-Type", content_type)] };
                let answer = broker.ask(method, path, headers, b"{\"name\":\"x\"}").await;
                assert_eq!((answer.status, answer.code().as_str()), (415, "expecting_content_type_json"), "{method} {path} {content_type}");
                assert_eq!(answer.json()["error_code"], 400);
            }
        }
    }
    untouched(&broker).await;
}

#[tokio::test]
async fn names_numbers_and_times_out_of_range_are_refused_by_name() {
    let broker = with_stream().await;
    let long = "n".repeat(201);
    for name in ["", ".a", "-a", "$lifecycle", "a/b", "naïve", "a b", "\u{0}", &long] {
        let answer = broker.post("/v1/streams", &json!({"name": name}).to_string()).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "bad_parameter"), "{name:?}");
        let answer = broker.post("/v1/streams/s/subscriptions", &json!({"name": name}).to_string()).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "bad_parameter"), "{name:?}");
    }
    for path in
        ["/v1/streams/.a", "/v1/streams/%24lifecycle", "/v1/streams/a%2Fb", "/v1/streams/%ff", "/v1/streams/na%C3%AFve/events", &format!("/v1/streams/{long}")]
    {
        assert_eq!(broker.get(path).await.code(), "bad_parameter", "{path}");
    }
    for query in [
        "after=x",
        "after=1&from=1",
        "from=-1",
        "from=soon",
        "limit=0",
        "limit=10001",
        "limit=1e3",
        "wait=61",
        "wait=-1",
        "after=1&after=1",
        "colour=1",
        "a=%zz",
    ] {
        let answer = broker.get(&format!("/v1/streams/s/events?{query}")).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "bad_parameter"), "{query}");
    }
    for query in ["recursion=2", "recursion=x", "limit=0", "limit=1001", "colour=1"] {
        assert_eq!(broker.get(&format!("/v1/streams?{query}")).await.code(), "bad_parameter", "{query}");
    }
    for (method, path, body) in [
        ("POST", "/v1/streams", r#"{"name":"x","event_max_bytes":-1}"#),
        ("POST", "/v1/streams", r#"{"name":"x","event_max_bytes":1.5}"#),
        ("POST", "/v1/streams", r#"{"name":"x","event_max_bytes":99999999999999999999}"#),
        ("POST", "/v1/streams", r#"{"name":"x","metadata":{"a":1}}"#),
        ("POST", "/v1/streams", r#"{"name":"x","durability":"none"}"#),
        ("POST", "/v1/streams/s/trim", r#"{"before_offset":-1}"#),
        ("POST", "/v1/streams/s/trim", r#"{"before_time":"soon"}"#),
        ("POST", "/v1/streams/s/trim", "{}"),
        ("POST", "/v1/streams/s/subscriptions", r#"{"name":"x","mode":"shared"}"#),
        ("POST", "/v1/streams/s/subscriptions", r#"{"name":"x","start":"soon"}"#),
        ("PUT", "/v1/streams/s/subscriptions/b/cursor", r#"{"next":-1}"#),
        ("PUT", "/v1/streams/s/subscriptions/b/cursor", "{}"),
        ("POST", "/v1/streams/s/events", r#"{"events":[]}"#),
        ("POST", "/v1/streams/s/events", r#"{"events":{}}"#),
        ("POST", "/v1/streams/s/events", "{}"),
        ("POST", "/v1/streams/s/events", r#"{"events":[{"data":1,"encoding":"base64"}]}"#),
        ("POST", "/v1/streams/s/events", r#"{"events":[{"data":"!","encoding":"base64"}]}"#),
        ("POST", "/v1/streams/s/events", r#"{"events":[{"data":1,"encoding":"utf9"}]}"#),
        ("POST", "/v1/streams/s/events", r#"{"events":[{"data":1,"headers":{"":"x"}}]}"#),
        ("POST", "/v1/streams/s/events", r#"{"events":[{"type":"no data"}]}"#),
        ("POST", "/v1/streams/s/events", r#"{"events":[{"data":1}],"producer":{"id":"a b","epoch":1,"seq":0}}"#),
        ("POST", "/v1/streams/s/events", r#"{"events":[{"data":1}],"expected_next_offset":-1}"#),
        ("POST", "/v1/streams/s/subscriptions/b/pull", r#"{"max_events":0}"#),
        ("POST", "/v1/streams/s/subscriptions/b/pull", r#"{"max_events":"all"}"#),
        ("POST", "/v1/streams/s/subscriptions/b/pull", r#"{"max_bytes":4194305}"#),
        ("POST", "/v1/streams/s/subscriptions/b/pull", r#"{"wait_s":61}"#),
        ("POST", "/v1/streams/s/subscriptions/b/pull", r#"{"from":-1}"#),
        ("POST", "/v1/streams/s/subscriptions/b/pull", r#"{"from":{"offset":1}}"#),
        ("POST", "/v1/streams/s/subscriptions/b/pull", r#"{"epoch":1.5}"#),
        ("POST", "/v1/streams/s/subscriptions/b/pull", r#"{"takeover":"ask"}"#),
        ("POST", "/v1/streams/s/subscriptions/b/pull", r#"{"on_gap":"stop"}"#),
        ("POST", "/v1/streams/s/subscriptions/b/ack", "{}"),
        ("POST", "/v1/streams/s/subscriptions/b/ack", r#"{"epoch":1}"#),
        ("POST", "/v1/streams/s/subscriptions/b/ack", r#"{"offset":1}"#),
        ("POST", "/v1/streams/s/subscriptions/b/ack", r#"{"ack_token":"x","epoch":1,"offset":1}"#),
        ("POST", "/v1/streams/s/subscriptions/b/ack", r#"{"ack_token":1}"#),
        ("POST", "/v1/streams/s/subscriptions/b/ack", r#"{"epoch":1,"offset":0,"level":"soon"}"#),
        ("POST", "/v1/streams/s/producers", "{}"),
        ("POST", "/v1/streams/s/producers", r#"{"producer":"a b"}"#),
        ("POST", "/v1/producers", r#"{"producer":""}"#),
        ("POST", "/v1/producers", r#"{"producer":"p","expect":"maybe"}"#),
        ("POST", "/v1/commit", "{}"),
        ("POST", "/v1/commit", r#"{"acks":[7]}"#),
        ("POST", "/v1/commit", r#"{"acks":[{"stream":"s","subscription":"b","epoch":-1,"offset":0}]}"#),
    ] {
        let answer = broker.ask(method, path, &[("Content-Type", "application/json")], body.as_bytes()).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "bad_parameter"), "{method} {path} {body}: {}", answer.json());
        assert!(answer.json()["metadata"]["details"]["field"].is_string(), "{body}");
    }
    untouched(&broker).await;
}

#[tokio::test]
async fn lines_that_are_broken_refuse_the_whole_batch() {
    let broker = with_stream().await;
    for (query, body) in [("", "{\"data\":1}\n{\"data\":\n"), ("", "{\"data\":1}\n7\n"), ("?lines=data", "1\n{\n"), ("", "\n\n"), ("?lines=words", "1\n")] {
        let answer = broker.ask("POST", &format!("/v1/streams/s/events{query}"), &[("Content-Type", "application/x-ndjson")], body.as_bytes()).await;
        assert_eq!(answer.status, 400, "{body:?}");
        assert!(["bad_parameter", "json_parsing_failed"].contains(&answer.code().as_str()));
    }
    let answer = broker.ask("POST", "/v1/streams/s/events", &[("Content-Type", "text/plain")], b"\xff").await;
    assert_eq!(answer.code(), "bad_parameter", "text must be UTF-8");
    untouched(&broker).await;
}

#[tokio::test]
async fn what_is_not_there_is_not_found_and_named() {
    let broker = with_stream().await;
    for path in ["/v1/streams/none", "/v1/streams/none/events", "/v1/streams/none/subscriptions", "/v1/streams/s/subscriptions/none", "/v1/streams/s/events/0"]
    {
        let answer = broker.get(path).await;
        assert_eq!(answer.status, 404, "{path}");
        assert!(["not_found", "stream_empty"].contains(&answer.code().as_str()), "{path}");
    }
    for path in
        ["/v1/operations/none", "/v1/operations/8c3f0000-0000-4000-8000-000000000000", "/v1/operations/8c3f0000-0000-4000-8000-000000000000/wait?timeout=0"]
    {
        assert_eq!(broker.get(path).await.code(), "not_found", "{path}");
    }
    assert_eq!(broker.get("/v1/streams/s/events/last").await.code(), "stream_empty");
    assert_eq!(broker.get("/v1/streams/s/events?after=0").await.code(), "offset_beyond_end");
    assert_eq!(broker.get("/v1/operations/8c3f0000-0000-4000-8000-000000000000/wait?timeout=x").await.code(), "bad_parameter");
    for path in ["/v2", "/v1/nothing", "/v1/streams/s/nothing", "/v1//", "/v1/streams//events"] {
        let answer = broker.get(path).await;
        assert!(answer.status == 404 || answer.status == 400, "{path}: {}", answer.status);
        answer.code();
    }
}

#[tokio::test]
async fn what_is_planned_says_so_and_conditions_are_never_ignored() {
    let broker = with_stream().await;
    for (method, path) in [
        ("PUT", "/v1/streams/s"),
        ("PATCH", "/v1/streams/s"),
        ("POST", "/v1/streams/s"),
        ("POST", "/v1/streams/s/purge"),
        ("GET", "/v1/streams/s/producers?filter=producer+eq+x"),
    ] {
        let answer = broker.ask(method, path, &[], b"").await;
        assert_eq!((answer.status, answer.code().as_str()), (500, "not_implemented"), "{method} {path}");
    }
    for header in ["If-Match", "If-None-Match", "X-If-Configuration-Matches", "Idempotency-Key"] {
        let headers = [("Content-Type", "application/json"), (header, "x")];
        for (method, path, body) in [
            ("POST", "/v1/streams/s/events", r#"{"events":[{"data":1}]}"#),
            ("POST", "/v1/streams", r#"{"name":"x"}"#),
            ("POST", "/v1/streams/s/trim", r#"{"before_offset":0}"#),
            ("POST", "/v1/streams/s/close", "{}"),
            ("POST", "/v1/streams/s/subscriptions", r#"{"name":"x"}"#),
            ("PUT", "/v1/streams/s/subscriptions/b/cursor", r#"{"next":0}"#),
            ("POST", "/v1/streams/s/subscriptions/b/pull", "{}"),
            ("POST", "/v1/streams/s/subscriptions/b/ack", r#"{"epoch":1,"offset":0}"#),
            ("POST", "/v1/streams/s/producers", r#"{"producer":"p"}"#),
            ("POST", "/v1/producers", r#"{"producer":"p"}"#),
            ("POST", "/v1/commit", r#"{"appends":[{"stream":"s","events":[{"data":1}]}]}"#),
            ("DELETE", "/v1/streams/s", ""),
            ("DELETE", "/v1/streams/s/subscriptions/b", ""),
            ("DELETE", "/v1/streams/s/producers/p", ""),
            ("DELETE", "/v1/producers/p", ""),
        ] {
            if (header, path) == ("Idempotency-Key", "/v1/streams/s/events") {
                continue; // there it is kept: `http_appends.rs`
            }
            let answer = broker.ask(method, path, &headers, body.as_bytes()).await;
            assert_eq!((answer.status, answer.code().as_str()), (500, "not_implemented"), "{header} on {method} {path}");
            assert_eq!(answer.json()["metadata"]["details"]["field"], header.to_ascii_lowercase());
        }
    }
    untouched(&broker).await;
}

#[tokio::test]
async fn a_key_in_the_query_is_refused_on_every_route_but_where_it_is_the_events_own() {
    let broker = with_stream().await;
    for (path, methods, _) in ROUTES.iter().filter(|(path, ..)| path.starts_with("/v1")) {
        for method in *methods {
            for query in ["token=s3cret", "access_token=s3cret", "key=s3cret"] {
                if (*method, *path, query) == ("POST", "/v1/streams/s/events", "key=s3cret") {
                    continue; // judged by the form of its body, below
                }
                let answer = broker.ask(method, &format!("{path}?{query}"), &[("Content-Type", "application/json")], b"{}").await;
                assert_eq!((answer.status, answer.code().as_str()), (400, "key_in_url"), "{method} {path}?{query}");
                assert!(!String::from_utf8_lossy(&answer.body).contains("s3cret"), "{method} {path}");
            }
        }
    }
    let lines = [("Content-Type", "application/x-ndjson")];
    let answer = broker.ask("POST", "/v1/streams/s/events?key=s3cret", &lines, b"{\"data\":1}").await;
    assert_eq!((answer.status, answer.code().as_str()), (400, "key_in_url"));
    untouched(&broker).await;
}

#[tokio::test]
async fn parameters_that_no_route_knows_are_refused_on_every_route() {
    let broker = with_stream().await;
    for (path, methods, _) in ROUTES.iter().filter(|(path, ..)| path.starts_with("/v1") && !path.ends_with("/connect")) {
        for method in *methods {
            for query in ["colour=1", "limit=1&limit=1", "a=%zz", "a=%ff"] {
                let answer = broker.ask(method, &format!("{path}?{query}"), &[("Content-Type", "application/json")], b"{}").await;
                let code = answer.code();
                // What is not built says so first.
                assert!(["bad_parameter", "not_implemented"].contains(&code.as_str()), "{method} {path}?{query}: {code}");
            }
        }
    }
    untouched(&broker).await;
}

#[tokio::test]
async fn a_condition_that_does_not_hold_is_412_with_the_offset_that_would() {
    let broker = with_stream().await;
    let answer = broker.post("/v1/streams/s/events", r#"{"events":[{"data":1}],"expected_next_offset":7}"#).await;
    assert_eq!((answer.status, answer.code().as_str()), (412, "condition_failed"));
    assert_eq!(answer.json()["metadata"]["details"]["next_offset"], 0);
    untouched(&broker).await;
}
