//! Users, sources, keys, sessions, tickets and rights, over REST and WebSocket, each with the credential it belongs to.

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::protocol::Message;

use crate::support::{Answer, Broker, serve};
use tidelog::types::limits;

/// A caller: the operator on the socket, or somebody with a key.
#[derive(Clone)]
pub struct As<'a>(pub &'a Broker, pub Option<String>);

impl As<'_> {
    pub async fn ask(&self, method: &str, path: &str, body: Value) -> Answer {
        let bytes = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let mut headers = vec![("Content-Type".to_owned(), "application/json".to_owned())];
        match &self.1 {
            None => {
                let headers: Vec<(&str, &str)> = headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
                self.0.ask_locally(method, path, &headers, &bytes).await
            }
            Some(key) => {
                headers.push(("Authorization".into(), format!("Bearer {key}")));
                let headers: Vec<(&str, &str)> = headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
                self.0.ask(method, path, &headers, &bytes).await
            }
        }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, Value::Null).await
    }

    /// One that must go well.
    pub async fn made(&self, method: &str, path: &str, body: Value) -> Value {
        let answer = self.ask(method, path, body).await;
        assert!((200..300).contains(&answer.status), "{method} {path}: {} {}", answer.status, answer.json());
        answer.metadata()
    }

    pub async fn refused(&self, method: &str, path: &str, body: Value) -> (u16, String) {
        let answer = self.ask(method, path, body).await;
        (answer.status, answer.code())
    }
}

pub fn operator(broker: &Broker) -> As<'_> {
    As(broker, None)
}

pub fn key(broker: &Broker, key: impl AsRef<str>) -> As<'_> {
    As(broker, Some(key.as_ref().to_owned()))
}

/// A user with a password, logged in.
pub async fn console<'a>(broker: &'a Broker, name: &str) -> As<'a> {
    operator(broker).made("POST", "/v1/users", json!({"name": name, "password": "correct horse"})).await;
    log_in(broker, name).await
}

pub async fn log_in<'a>(broker: &'a Broker, name: &str) -> As<'a> {
    let answer = broker
        .ask("POST", "/v1/sessions", &[("Content-Type", "application/json")], json!({"name": name, "password": "correct horse"}).to_string().as_bytes())
        .await;
    assert_eq!(answer.status, 201, "{}", answer.json());
    key(broker, answer.metadata()["token"].as_str().unwrap())
}

/// A source of somebody, and what its key is.
pub async fn source<'a>(of: &As<'a>, name: &str) -> (u64, As<'a>) {
    let made = of.made("POST", "/v1/sources", json!({"name": name})).await;
    (made["id"].as_u64().unwrap(), key(of.0, made["key"].as_str().unwrap()))
}

const EVENT: &str = r#"{"events":[{"data":1}]}"#;

pub fn event() -> Value {
    serde_json::from_str(EVENT).unwrap()
}

#[tokio::test]
async fn a_user_logs_in_owns_a_stream_and_nobody_else_knows_of_it() {
    let broker = serve().await;
    let (alice, bob) = (console(&broker, "alice").await, console(&broker, "Bob").await);
    let stream = alice.made("POST", "/v1/streams", json!({"name": "orders"})).await;
    assert_eq!(stream["owner"], "/v1/users/alice");
    alice.made("POST", "/v1/streams/orders/events", event()).await;
    assert_eq!(alice.get("/v1/streams/orders/events").await.metadata()["events"][0]["author"], json!({"user_id": 2, "source_id": null}));
    // For Bob there is no difference between this stream and one that does not exist.
    for (method, rest, body) in [
        ("GET", "", Value::Null),
        ("GET", "/events", Value::Null),
        ("GET", "/events/0", Value::Null),
        ("POST", "/events", event()),
        ("POST", "/trim", json!({"before_offset": 0})),
        ("POST", "/close", Value::Null),
        ("DELETE", "", Value::Null),
        ("GET", "/subscriptions", Value::Null),
        ("POST", "/subscriptions", json!({"name": "s"})),
        ("GET", "/rights", Value::Null),
        ("PUT", "/rights/user:bob", json!({"right": "Admin"})),
        ("GET", "/producers", Value::Null),
    ] {
        let (hidden, missing) =
            (bob.ask(method, &format!("/v1/streams/orders{rest}"), body.clone()).await, bob.ask(method, &format!("/v1/streams/absent{rest}"), body).await);
        assert_eq!((hidden.status, hidden.code()), (404, "not_found".into()), "{method} {rest}");
        let text = |answer: &Answer| answer.json()["error"].to_string().replace("absent", "orders");
        assert_eq!(text(&hidden), text(&missing), "{method} {rest}");
    }
    assert_eq!(bob.get("/v1/streams").await.metadata(), json!([]));
    assert_eq!(alice.get("/v1/streams").await.metadata(), json!(["/v1/streams/orders"]));
    assert_eq!(operator(&broker).get("/v1/streams").await.metadata(), json!(["/v1/streams/orders"]));
}

#[tokio::test]
async fn a_right_allows_what_it_says_and_not_more() {
    let broker = serve().await;
    let (alice, bob) = (console(&broker, "alice").await, console(&broker, "bob").await);
    alice.made("POST", "/v1/streams", json!({"name": "s"})).await;
    for (right, read, write, admin) in
        [("ReadOnly", 200, 403, 403), ("writeonly", 403, 201, 403), ("ReadWrite", 200, 201, 403), ("ADMIN", 200, 201, 200), ("None", 404, 404, 404)]
    {
        // An Admin is lowered by root, or by itself.
        operator(&broker).made("PUT", "/v1/streams/s/rights/user:bob", json!({"right": right})).await;
        let got = (
            bob.get("/v1/streams/s/events").await.status,
            bob.ask("POST", "/v1/streams/s/events", event()).await.status,
            bob.get("/v1/streams/s/rights").await.status,
        );
        assert_eq!(got, (read, write, admin), "{right}");
    }
    alice.made("PUT", "/v1/streams/s/rights/user:bob", json!({"right": "ReadOnly"})).await;
    let answer = bob.ask("POST", "/v1/streams/s/events", event()).await;
    assert_eq!((answer.status, answer.code().as_str()), (403, "access_denied"));
    assert_eq!(
        (&answer.json()["metadata"]["details"]["required"], &answer.json()["metadata"]["details"]["effective"]),
        (&json!("WriteOnly"), &json!("ReadOnly"))
    );
    assert_eq!(alice.get("/v1/streams/s/rights?recursion=1").await.metadata().as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_source_has_what_both_it_and_its_owner_have() {
    let broker = serve().await;
    let (alice, bob) = (console(&broker, "alice").await, console(&broker, "bob").await);
    alice.made("POST", "/v1/streams", json!({"name": "s"})).await;
    let (id, feed) = source(&bob, "feed").await;
    let status = async |what: &As<'_>| (what.get("/v1/streams/s/events").await.status, what.ask("POST", "/v1/streams/s/events", event()).await.status);
    assert_eq!(status(&feed).await, (404, 404));
    // To Bob the stream is hidden, so he cannot speak of it.
    let right = format!("/v1/streams/s/rights/source:{id}");
    assert_eq!(bob.refused("PUT", &right, json!({"right": "ReadWrite"})).await, (404, "not_found".into()));
    alice.made("PUT", "/v1/streams/s/rights/user:bob", json!({"right": "ReadOnly"})).await;
    // Bob gives his source everything; it counts only as far as Bob's own right goes.
    let set = bob.made("PUT", &right, json!({"right": "ReadWrite"})).await;
    assert_eq!((&set["right"], &set["effective"]), (&json!("ReadWrite"), &json!("ReadOnly")));
    assert_eq!(status(&feed).await, (200, 403));
    alice.made("PUT", "/v1/streams/s/rights/user:bob", json!({"right": "WriteOnly"})).await;
    assert_eq!(status(&feed).await, (403, 201));
    alice.made("DELETE", "/v1/streams/s/rights/user:bob", Value::Null).await;
    assert_eq!(status(&feed).await, (404, 404));
    alice.made("PUT", "/v1/streams/s/rights/user:bob", json!({"right": "Admin"})).await;
    assert_eq!(status(&feed).await, (200, 201));
    assert_eq!(feed.made("GET", &right, Value::Null).await["effective"], "ReadWrite");
}

#[tokio::test]
async fn the_last_admin_of_a_stream_stays() {
    let broker = serve().await;
    let (alice, bob) = (console(&broker, "alice").await, console(&broker, "bob").await);
    alice.made("POST", "/v1/streams", json!({"name": "s"})).await;
    let down = |user: &str| format!("/v1/streams/s/rights/user:{user}");
    assert_eq!(alice.refused("PUT", &down("alice"), json!({"right": "ReadOnly"})).await, (409, "in_use".into()));
    assert_eq!(operator(&broker).refused("DELETE", &down("alice"), Value::Null).await, (409, "in_use".into()));
    alice.made("PUT", &down("bob"), json!({"right": "Admin"})).await;
    assert_eq!(bob.refused("PUT", &down("alice"), json!({"right": "ReadOnly"})).await, (403, "access_denied".into()), "only root or alice lowers alice");
    alice.made("PUT", &down("alice"), json!({"right": "ReadOnly"})).await;
    assert_eq!(bob.refused("DELETE", &down("bob"), Value::Null).await, (409, "in_use".into()));
    assert_eq!(bob.refused("PUT", &down("alice"), json!({"right": "Root"})).await, (400, "bad_parameter".into()));
    assert_eq!(bob.refused("PUT", &down("alice"), json!({"right": "Everything"})).await, (400, "bad_parameter".into()));
    assert_eq!(bob.refused("PUT", &down("nobody"), json!({"right": "ReadOnly"})).await, (404, "not_found".into()));
}

#[tokio::test]
async fn a_user_key_acts_for_its_user_but_destroys_nothing() {
    let broker = serve().await;
    let alice = console(&broker, "alice").await;
    let made = alice.made("POST", "/v1/keys", json!({"name": "ci"})).await;
    let secret = made["key"].as_str().unwrap().to_owned();
    assert!(secret.starts_with(made["id"].as_str().unwrap()));
    let ci = key(&broker, &secret);
    ci.made("POST", "/v1/streams", json!({"name": "s"})).await;
    ci.made("POST", "/v1/streams/s/events", event()).await;
    let (id, _) = source(&ci, "feed").await;
    ci.made("PUT", &format!("/v1/streams/s/rights/source:{id}"), json!({"right": "ReadOnly"})).await;
    ci.made("DELETE", &format!("/v1/streams/s/rights/source:{id}"), Value::Null).await;
    for (method, path, body) in [
        ("DELETE", "/v1/streams/s".to_owned(), Value::Null),
        ("POST", "/v1/streams/s/trim".into(), json!({"before_offset": 1})),
        ("DELETE", format!("/v1/sources/{id}"), Value::Null),
        ("POST", "/v1/keys".into(), json!({"name": "more"})),
        ("GET", "/v1/keys".into(), Value::Null),
        ("DELETE", "/v1/keys/ci".into(), Value::Null),
        ("PATCH", "/v1/users/alice".into(), json!({"password": "another horse"})),
    ] {
        assert_eq!(ci.refused(method, &path, body).await, (403, "user_key_forbidden".into()), "{method} {path}");
    }
    assert_eq!(ci.refused("POST", "/v1/users", json!({"name": "eve"})).await, (403, "access_denied".into()));
    // A secret is in one answer only.
    for answer in [alice.get("/v1/keys?recursion=1").await, alice.get("/v1/sessions/current").await, ci.get("/v1/sessions/current").await] {
        assert!(!answer.json().to_string().contains(&secret[20..]), "{}", answer.json());
    }
    alice.made("DELETE", "/v1/keys/ci", Value::Null).await;
    assert_eq!(ci.refused("GET", "/v1/streams", Value::Null).await, (401, "unauthenticated".into()));
}

#[tokio::test]
async fn a_source_key_is_for_data_only_and_is_changed_without_a_gap() {
    let broker = serve().await;
    let alice = console(&broker, "alice").await;
    alice.made("POST", "/v1/streams", json!({"name": "s"})).await;
    let (id, feed) = source(&alice, "feed").await;
    alice.made("PUT", &format!("/v1/streams/s/rights/source:{id}"), json!({"right": "Admin"})).await;
    feed.made("POST", "/v1/streams/s/events", event()).await;
    feed.made("POST", "/v1/streams/s/subscriptions", json!({"name": "mine"})).await;
    alice.made("POST", "/v1/streams/s/subscriptions", json!({"name": "hers"})).await;
    assert_eq!(alice.get("/v1/streams/s/events").await.metadata()["events"][0]["author"], json!({"user_id": 2, "source_id": id}));
    for (method, path, body) in [
        ("POST", "/v1/streams", json!({"name": "more"})),
        ("DELETE", "/v1/streams/s", Value::Null),
        ("POST", "/v1/streams/s/close", Value::Null),
        ("POST", "/v1/sources", json!({"name": "more"})),
        ("PUT", "/v1/streams/s/rights/user:alice", json!({"right": "None"})),
        ("GET", "/v1/keys", Value::Null),
        ("GET", "/v1/users", Value::Null),
        ("DELETE", "/v1/streams/s/subscriptions/hers", Value::Null),
        ("PUT", "/v1/streams/s/subscriptions/hers/cursor", json!({"next": 1})),
    ] {
        assert_eq!(feed.refused(method, path, body).await, (403, "access_denied".into()), "{method} {path}");
    }
    feed.made("PUT", "/v1/streams/s/subscriptions/mine/cursor", json!({"next": 1})).await;
    feed.made("DELETE", "/v1/streams/s/subscriptions/mine", Value::Null).await;
    assert_eq!(feed.get("/v1/sources").await.metadata(), json!([format!("/v1/sources/{id}")]));
    let rotated = alice.made("POST", &format!("/v1/sources/{id}/rotate"), Value::Null).await;
    assert_eq!(feed.refused("GET", "/v1/streams", Value::Null).await, (401, "unauthenticated".into()));
    key(&broker, rotated["key"].as_str().unwrap()).made("POST", "/v1/streams/s/events", event()).await;
}

#[tokio::test]
async fn what_is_disabled_or_deleted_is_unknown_at_once() {
    let broker = serve().await;
    let alice = console(&broker, "alice").await;
    let (id, feed) = source(&alice, "feed").await;
    let whoami = "/v1/sessions/current";
    alice.made("PATCH", &format!("/v1/sources/{id}"), json!({"disabled": true})).await;
    assert_eq!(feed.refused("GET", whoami, Value::Null).await, (401, "unauthenticated".into()));
    alice.made("PATCH", &format!("/v1/sources/{id}"), json!({"disabled": false})).await;
    assert_eq!(feed.made("GET", whoami, Value::Null).await["kind"], "source_key");
    operator(&broker).made("PATCH", "/v1/users/alice", json!({"disabled": true})).await;
    for caller in [&alice, &feed] {
        assert_eq!(caller.refused("GET", whoami, Value::Null).await, (401, "unauthenticated".into()));
    }
    operator(&broker).made("PATCH", "/v1/users/alice", json!({"disabled": false})).await;
    assert_eq!(alice.made("GET", whoami, Value::Null).await["kind"], "console");
    // A new password ends the sessions of the old one.
    operator(&broker).made("PATCH", "/v1/users/alice", json!({"password": "battery staple"})).await;
    assert_eq!(alice.refused("GET", whoami, Value::Null).await, (401, "session_expired".into()));
    assert_eq!(feed.made("GET", whoami, Value::Null).await["source"]["name"], "feed");
    operator(&broker).made("DELETE", "/v1/users/alice", Value::Null).await;
    assert_eq!(feed.refused("GET", whoami, Value::Null).await, (401, "unauthenticated".into()));
    assert_eq!(operator(&broker).get("/v1/sources").await.metadata(), json!([]));
}

#[tokio::test]
async fn a_user_with_streams_is_not_deleted_and_the_operator_never() {
    let broker = serve().await;
    let alice = console(&broker, "alice").await;
    alice.made("POST", "/v1/streams", json!({"name": "s"})).await;
    assert_eq!(operator(&broker).refused("DELETE", "/v1/users/alice", Value::Null).await, (409, "in_use".into()));
    for (method, body) in [("DELETE", Value::Null), ("PATCH", json!({"disabled": true})), ("PATCH", json!({"root": false}))] {
        assert_eq!(operator(&broker).refused(method, "/v1/users/operator", body).await, (409, "in_use".into()));
    }
    assert_eq!(operator(&broker).refused("POST", "/v1/users", json!({"name": "Operator"})).await, (409, "name_taken".into()));
    assert_eq!(operator(&broker).refused("POST", "/v1/users", json!({"name": "ALICE"})).await, (409, "name_taken".into()));
    assert_eq!(alice.refused("GET", "/v1/users/operator", Value::Null).await, (404, "not_found".into()));
    assert_eq!(alice.get("/v1/users").await.metadata(), json!(["/v1/users/alice"]));
}

#[tokio::test]
async fn a_root_user_is_the_operator_over_the_console_and_admin_with_a_key() {
    let broker = serve().await;
    let alice = console(&broker, "alice").await;
    operator(&broker).made("POST", "/v1/streams", json!({"name": "s"})).await;
    assert_eq!(alice.refused("GET", "/v1/streams/s", Value::Null).await, (404, "not_found".into()));
    operator(&broker).made("PATCH", "/v1/users/alice", json!({"root": true})).await;
    alice.made("GET", "/v1/streams/s/rights", Value::Null).await;
    alice.made("POST", "/v1/users", json!({"name": "carol"})).await;
    let ci = key(&broker, alice.made("POST", "/v1/keys", json!({"name": "ci"})).await["key"].as_str().unwrap());
    ci.made("POST", "/v1/streams/s/events", event()).await;
    assert_eq!(ci.refused("POST", "/v1/users", json!({"name": "dave"})).await, (403, "access_denied".into()));
}

#[tokio::test]
async fn unknown_credentials_get_one_answer_and_few_guesses() {
    let broker = serve().await;
    let alice = console(&broker, "alice").await;
    let mut answers = Vec::new();
    for wrong in ["nonsense", "tlu_short", "tlu_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"] {
        let answer = key(&broker, wrong).get("/v1/streams").await;
        assert_eq!(answer.status, 401);
        answers.push(answer.json()["error"].clone());
    }
    for (name, password) in [("alice", "wrong horse"), ("nobody", "correct horse"), ("a b", "x")] {
        let answer = broker
            .ask("POST", "/v1/sessions", &[("Content-Type", "application/json")], json!({"name": name, "password": password}).to_string().as_bytes())
            .await;
        assert_eq!(answer.status, 401, "{name}");
        answers.push(answer.json()["error"].clone());
    }
    assert!(answers[..3].iter().all(|answer| *answer == answers[0]) && answers[3..].iter().all(|answer| *answer == answers[3]), "{answers:?}");
    for _ in answers.len()..20 {
        assert_eq!(key(&broker, "nonsense").get("/v1/streams").await.status, 401);
    }
    let answer = key(&broker, "nonsense").get("/v1/streams").await;
    assert_eq!((answer.status, answer.code().as_str()), (429, "rate_limited"));
    assert!(answer.header("retry-after").is_some());
    // The address has had its guesses; the socket is nobody's address.
    operator(&broker).made("GET", "/v1/users", Value::Null).await;
    drop(alice);
}

#[tokio::test]
async fn a_websocket_says_who_it_is_with_its_first_frame_or_by_a_ticket_that_is_good_once() {
    let broker = serve().await;
    let alice = console(&broker, "alice").await;
    alice.made("POST", "/v1/streams", json!({"name": "s"})).await;
    let (id, feed) = source(&alice, "feed").await;
    alice.made("PUT", &format!("/v1/streams/s/rights/source:{id}"), json!({"right": "ReadWrite"})).await;
    let token = feed.1.clone().unwrap();
    let mut ws = broker.ws("/v1/connect").await.greeted().await;
    ws.text(&json!({"t": "auth", "key": token}).to_string()).await;
    assert_eq!(ws.ask(r#"{"t":"append","req":1,"stream":"s","events":[{"data":1}]}"#).await["t"], "appended");
    let ticket = feed.made("POST", "/v1/tickets", Value::Null).await["ticket"].as_str().unwrap().to_owned();
    let mut ws = broker.ws(&format!("/v1/connect?ticket={ticket}")).await.greeted().await;
    assert_eq!(ws.ask(r#"{"t":"append","req":1,"stream":"s","events":[{"data":1}]}"#).await["t"], "appended");
    assert!(broker.ws_as(&format!("/v1/connect?ticket={ticket}"), None).await.is_err(), "it was used");
    for elsewhere in ["/v1/streams?ticket=x", "/v1/streams/s/subscriptions?ticket=x"] {
        assert_eq!(feed.refused("GET", elsewhere, Value::Null).await, (400, "key_in_url".into()));
    }
    // What is too large before anybody has said who it is, is too large.
    let mut ws = broker.ws("/v1/connect").await.greeted().await;
    ws.text(&json!({"t": "auth", "key": "x".repeat(20_000)}).to_string()).await;
    assert_eq!(ws.closed().await, 1009);
}

#[tokio::test]
async fn a_key_that_goes_ends_its_connections_and_a_right_that_goes_its_readers() {
    let broker = serve().await;
    let alice = console(&broker, "alice").await;
    alice.made("POST", "/v1/streams", json!({"name": "s"})).await;
    let (id, feed) = source(&alice, "feed").await;
    let right = format!("/v1/streams/s/rights/source:{id}");
    alice.made("PUT", &right, json!({"right": "ReadOnly"})).await;
    let mut ws = broker.ws("/v1/connect").await.greeted().await;
    ws.text(&json!({"t": "auth", "key": feed.1.clone().unwrap()}).to_string()).await;
    assert_eq!(ws.ask(r#"{"t":"subscribe","sub":1,"stream":"s"}"#).await["t"], "subscribed");
    assert_eq!(ws.json().await["t"], "live");
    // A long poll waits meanwhile.
    let poll = feed.get("/v1/streams/s/events?from=latest&wait=30");
    let change = async {
        let answer = ws.json().await;
        assert_eq!((&answer["t"], &answer["code"]), (&json!("error"), &json!("not_found")), "{answer}");
    };
    let taken = async {
        tokio::task::yield_now().await;
        alice.made("DELETE", &right, Value::Null).await
    };
    let (poll, (), _) = tokio::join!(poll, change, taken);
    assert_eq!(poll.code(), "not_found");
    alice.made("PUT", &right, json!({"right": "ReadOnly"})).await;
    assert_eq!(ws.ask(r#"{"t":"subscribe","sub":2,"stream":"s"}"#).await["t"], "subscribed");
    assert_eq!(ws.json().await["t"], "live");
    alice.made("DELETE", &format!("/v1/sources/{id}"), Value::Null).await;
    loop {
        match ws.message().await {
            Message::Close(Some(frame)) => break assert_eq!(u16::from(frame.code), 4001),
            Message::Text(text) => assert!(text.contains("unauthenticated"), "{text}"),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn what_was_set_is_there_after_a_restart_and_secrets_are_not_in_the_files() {
    let data = tempfile::tempdir().unwrap();
    let broker = async || Broker { server: crate::support::on_disk(data.path()).await, dir: tempfile::tempdir().unwrap() };
    let first = broker().await;
    let alice = console(&first, "alice").await;
    alice.made("POST", "/v1/streams", json!({"name": "s"})).await;
    let (id, feed) = source(&alice, "feed").await;
    alice.made("PUT", &format!("/v1/streams/s/rights/source:{id}"), json!({"right": "ReadOnly"})).await;
    let (session, token) = (alice.1.clone().unwrap(), feed.1.clone().unwrap());
    first.server.stop().await.unwrap();
    let mut folders = vec![data.path().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let bytes = std::fs::read(&path).unwrap();
            for secret in [&session[16..40], &token[16..40], "correct horse"] {
                assert!(!bytes.windows(secret.len()).any(|w| w == secret.as_bytes()), "{}", path.display());
            }
        }
    }
    let broker = broker().await;
    assert_eq!(key(&broker, &token).get("/v1/streams/s/events").await.status, 200);
    assert_eq!(key(&broker, &token).ask("POST", "/v1/streams/s/events", event()).await.status, 403);
    assert_eq!(key(&broker, &session).get("/v1/sessions/current").await.metadata()["user"]["name"], "alice");
}

#[tokio::test]
async fn passwords_names_and_descriptions_are_taken_up_to_their_limits() {
    let broker = serve().await;
    let root = operator(&broker);
    for (length, status) in [
        (limits::PASSWORD_MIN_CHARACTERS - 1, 400),
        (limits::PASSWORD_MIN_CHARACTERS, 200),
        (limits::PASSWORD_MAX_BYTES, 200),
        (limits::PASSWORD_MAX_BYTES + 1, 400),
    ] {
        let answer = root.ask("PATCH", "/v1/users/operator", json!({"password": "x".repeat(length)})).await;
        assert_eq!(answer.status, status, "a password of {length}");
        assert!(!answer.json().to_string().contains("xxx"));
    }
    for (length, status) in [(0, 400), (1, 201), (limits::SOURCE_NAME_CHARACTERS, 201), (limits::SOURCE_NAME_CHARACTERS + 1, 400)] {
        assert_eq!(root.ask("POST", "/v1/sources", json!({"name": "é".repeat(length)})).await.status, status, "a name of {length}");
    }
    for (length, status) in [(limits::DESCRIPTION_BYTES, 201), (limits::DESCRIPTION_BYTES + 1, 400)] {
        let body = json!({"name": length.to_string(), "description": "x".repeat(length)});
        assert_eq!(root.ask("POST", "/v1/sources", body).await.status, status, "a description of {length}");
    }
    assert_eq!(root.refused("POST", "/v1/sources", json!({"name": "a\nb"})).await, (400, "bad_parameter".into()));
}

#[tokio::test]
async fn a_page_of_a_foreign_origin_opens_no_websocket_even_where_nobody_is_trusted() {
    let broker = serve().await;
    let upgrade = [("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13"), ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")];
    for (origin, status) in [("http://evil.example", 403), ("null", 403), ("http://localhost", 101)] {
        let answer = broker.ask("GET", "/v1/connect", &[&upgrade[..], &[("Origin", origin)]].concat(), b"").await;
        assert_eq!(answer.status, status, "{origin}");
    }
}
