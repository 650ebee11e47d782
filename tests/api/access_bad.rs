//! Bad input where credentials, users, sources, keys and rights are spoken of: the stated error, no secret repeated, and nothing made.

use serde_json::{Value, json};

use crate::access::{As, console, key, operator, source};
use crate::support::{Broker, serve};

/// What is not the key that it looks like.
fn broken(key: &str) -> Vec<String> {
    let with = |at: usize, c: &str| format!("{}{c}{}", &key[..at], &key[at + 1..]);
    let other = |at: usize| if &key[at..=at] == "A" { "B" } else { "A" };
    vec![
        key[..43].to_owned(),
        format!("{key}A"),
        key[..4].to_owned(),
        "x".to_owned(),
        "x".repeat(4000),
        key.to_uppercase(),
        key.replacen("tl", "TL", 1),
        key[4..].to_owned(),
        key.replacen("tlc_", "tlu_", 1),
        key.replacen("tlc_", "tls_", 1),
        with(8, other(8)),   // the public part
        with(20, other(20)), // the secret
        with(43, other(43)), // the checksum
        with(20, "+"),
        with(20, "="),
        with(20, "%41"),
        format!("{key}=="),
        key[..16].to_owned(),
    ]
}

#[tokio::test]
async fn malformed_keys_have_one_answer_over_every_carrier_and_are_never_repeated() {
    let broker = serve().await;
    let alice = console(&broker, "alice").await;
    let good = alice.1.clone().expect("a session");
    let mut told = Vec::new();
    for bad in broken(&good) {
        // Over the socket, where nobody counts the guesses: an explicit credential is taken at its word there too.
        let answer = broker.ask_locally("GET", "/v1/streams", &[("Authorization", &format!("Bearer {bad}"))], b"").await;
        assert_eq!((answer.status, answer.code().as_str()), (401, "unauthenticated"), "{bad}");
        let body = answer.json();
        assert!(bad.len() < 16 || !body.to_string().contains(&bad), "{bad}");
        told.push(body["error"].as_str().expect("a sentence").to_owned());
    }
    told.dedup();
    assert_eq!(told.len(), 1, "nothing is learnt from the answer: {told:?}");
    // Letters that look like others: these cannot even be in a header, but in a frame.
    for bad in [good.replacen('_', "\u{ff3f}", 1), good.replacen('c', "\u{441}", 1), format!("{good}\u{200b}"), format!("\u{feff}{good}"), format!("{good}\0")]
    {
        let mut ws = broker.ws("/v1/connect").await.greeted().await;
        let heard = ws.ask(&json!({"t": "auth", "key": bad}).to_string()).await;
        assert_eq!((&heard["t"], &heard["code"]), (&json!("error"), &json!("unauthenticated")), "{bad:?}");
        assert_eq!(ws.closed().await, 4001);
    }
    for (bad, code) in [
        (json!({"t": "auth", "key": 7}), "unauthenticated"),
        (json!({"t": "auth", "key": ["a"]}), "unauthenticated"),
        (json!({"t": "auth"}), "unauthenticated"),
        (json!({"t": "auth", "key": good, "ticket": good, "colour": 1}), "unauthenticated"),
    ] {
        let mut ws = broker.ws("/v1/connect").await.greeted().await;
        let heard = ws.ask(&bad.to_string()).await;
        assert_eq!((&heard["t"], &heard["code"]), (&json!("error"), &json!(code)), "{bad}");
        assert!(!heard.to_string().contains(&good));
        assert_eq!(ws.closed().await, 4001);
    }
    assert_eq!(alice.get("/v1/streams").await.status, 200, "the key itself is as good as ever");
}

/// Names that are no names, and some that look like `alice`.
fn names() -> Vec<String> {
    let mut names: Vec<String> = [
        "",
        " ",
        "alice ",
        " alice",
        "al ice",
        "alice\n",
        "alice\0",
        "al/ice",
        "al\\ice",
        "..",
        ".alice",
        "-alice",
        "$alice",
        "$audits",
        "alice%00",
        "al\u{131}ce",   // a dotless i
        "\u{430}lice",   // Cyrillic
        "alic\u{435}",   // Cyrillic
        "\u{ff41}lice",  // fullwidth
        "alice\u{200b}", // no width
        "al\u{ad}ice",   // a soft hyphen
        "a\u{301}lice",  // a combining accent
        "alice\u{202e}", // turns the text round
        "\u{1d41a}lice", // mathematical bold
        "ali\u{0441}e",  // Cyrillic es
        "<script>",
        "' or '1'='1",
    ]
    .map(str::to_owned)
    .to_vec();
    names.push("a".repeat(201));
    names.push("a".repeat(100_000));
    names
}

/// A name in a path, escaped byte by byte.
fn escaped(name: &str) -> String {
    name.bytes().map(|b| format!("%{b:02x}")).collect()
}

#[tokio::test]
async fn names_that_are_none_are_refused_wherever_one_is_asked_for() {
    let broker = serve().await;
    let (socket, alice) = (operator(&broker), console(&broker, "alice").await);
    alice.made("POST", "/v1/streams", json!({"name": "s"})).await;
    for name in names() {
        for (who, path, body) in [
            (&socket, "/v1/users", json!({"name": name})),
            (&alice, "/v1/keys", json!({"name": name})),
            (&alice, "/v1/streams", json!({"name": name})),
            (&socket, "/v1/sources", json!({"name": "till", "owner": name})),
        ] {
            let (status, code) = who.refused("POST", path, body).await;
            assert_eq!((status, code.as_str()), (400, "bad_parameter"), "{path} {}", &name[..name.len().min(40)].escape_debug());
        }
        // Logging in as somebody that cannot be is as wrong as a wrong password; guesses from here would soon be too many.
        let login = socket.ask("POST", "/v1/sessions", json!({"name": name, "password": "correct horse"})).await;
        // Before anybody is known, a body is as short as a first message.
        let expected = if name.len() > 1000 { (413, "too_large") } else { (401, "unauthenticated") };
        assert_eq!((login.status, login.code().as_str()), expected);
        if name.is_empty() || name.len() > 1000 {
            continue; // no part of a path, or more than a line
        }
        let name = escaped(&name);
        for (method, path, body) in [
            ("GET", format!("/v1/users/{name}"), Value::Null),
            ("PATCH", format!("/v1/users/{name}"), json!({"password": "correct horse"})),
            ("DELETE", format!("/v1/users/{name}"), Value::Null),
            ("GET", format!("/v1/streams/{name}/rights"), Value::Null),
            ("GET", format!("/v1/streams/s/rights/user:{name}"), Value::Null),
            ("PUT", format!("/v1/streams/s/rights/user:{name}"), json!({"right": "Admin"})),
            ("DELETE", format!("/v1/streams/s/rights/user:{name}"), Value::Null),
            ("GET", format!("/v1/sources/{name}"), Value::Null),
        ] {
            let answer = socket.ask(method, &path, body).await;
            assert_eq!((answer.status, answer.code().as_str()), (400, "bad_parameter"), "{method} {path}");
        }
        assert_eq!(alice.refused("DELETE", &format!("/v1/keys/{name}"), Value::Null).await, (400, "bad_parameter".into()), "{name}");
    }
    for principal in
        ["alice", "user", "user:", "source:", "source:x", "source:-1", "source:1x", "source:18446744073709551616", "root:alice", "USER:alice", "user:alice:x"]
    {
        let (status, code) = alice.refused("PUT", &format!("/v1/streams/s/rights/{principal}"), json!({"right": "ReadOnly"})).await;
        assert_eq!((status, code.as_str()), (400, "bad_parameter"), "{principal}");
    }
    for id in ["x", "-1", "+1", "1.0", "0x1", "18446744073709551616", "%31%00", "\u{661}"] {
        let answer = alice.get(&format!("/v1/sources/{}", if id.is_ascii() { id.to_owned() } else { escaped(id) })).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "bad_parameter"), "{id}");
    }
    assert_eq!(socket.get("/v1/users").await.metadata(), json!(["/v1/users/alice"]));
    assert_eq!((alice.get("/v1/keys").await.metadata(), alice.get("/v1/sources").await.metadata()), (json!([]), json!([])));
    assert_eq!(alice.get("/v1/streams/s/rights").await.metadata(), json!(["/v1/streams/s/rights/user:alice"]));
}

/// A field, and its right type.
type Field = (&'static str, Value);

/// Every route here that takes a body: as whom, which, a body that is right but for what is tried, and its fields.
fn bodies(source: u64) -> Vec<(bool, &'static str, String, Value, Vec<Field>)> {
    let (text, flag) = (json!("text"), json!(true));
    vec![
        (true, "POST", "/v1/users".into(), json!({"name": "bob"}), vec![("name", text.clone()), ("password", text.clone()), ("root", flag.clone())]),
        (true, "PUT", "/v1/users/alice".into(), json!({}), vec![("password", text.clone()), ("root", flag.clone()), ("disabled", flag.clone())]),
        (true, "PATCH", "/v1/users/alice".into(), json!({}), vec![("password", text.clone()), ("root", flag.clone()), ("disabled", flag.clone())]),
        (false, "POST", "/v1/sources".into(), json!({"name": "till-2"}), vec![("name", text.clone()), ("description", text.clone()), ("owner", text.clone())]),
        (false, "PUT", format!("/v1/sources/{source}"), json!({}), vec![("name", text.clone()), ("description", text.clone()), ("disabled", flag.clone())]),
        (false, "PATCH", format!("/v1/sources/{source}"), json!({}), vec![("name", text.clone()), ("description", text.clone()), ("disabled", flag)]),
        (false, "POST", "/v1/keys".into(), json!({"name": "laptop"}), vec![("name", text.clone())]),
        (false, "POST", "/v1/sessions".into(), json!({"name": "alice", "password": "wrong"}), vec![("name", text.clone()), ("password", text.clone())]),
        (false, "PUT", "/v1/streams/s/rights/user:alice".into(), json!({"right": "Admin"}), vec![("right", text)]),
        (false, "POST", "/v1/tickets".into(), json!({}), vec![]),
        (false, "POST", format!("/v1/sources/{source}/rotate"), json!({}), vec![]),
    ]
}

async fn raw_json(who: &As<'_>, method: &str, path: &str, body: &str) -> (u16, String) {
    let mut headers = vec![("Content-Type", "application/json")];
    let bearer = who.1.as_ref().map(|key| format!("Bearer {key}"));
    headers.extend(bearer.as_deref().map(|bearer| ("Authorization", bearer)));
    let answer = who.0.ask_locally(method, path, &headers, body.as_bytes()).await;
    assert!(!String::from_utf8_lossy(&answer.body).contains("hunter2"), "{method} {path}: a secret is repeated");
    (answer.status, answer.code())
}

#[tokio::test]
async fn every_field_of_every_body_has_its_type_is_given_once_and_no_other_is_there() {
    let broker: Broker = serve().await;
    let (socket, alice) = (operator(&broker), console(&broker, "alice").await);
    alice.made("POST", "/v1/streams", json!({"name": "s"})).await;
    let (till, _) = source(&alice, "till").await;
    let before = (socket.get("/v1/users?recursion=1").await.metadata(), alice.get("/v1/sources?recursion=1").await.metadata());
    for (as_operator, method, path, body, fields) in bodies(till) {
        let who = if as_operator { &socket } else { &key(&broker, alice.1.clone().expect("a session")) };
        let bad = async |body: String, code: &str| assert_eq!(raw_json(who, method, &path, &body).await, (400, code.to_owned()), "{method} {path} {body}");
        let set = |name: &str, value: &Value| {
            let mut body = body.clone();
            body[name] = value.clone();
            body.to_string()
        };
        for (name, right) in &fields {
            // What stands for a password is never repeated; other values may be, so that whoever sent them finds them.
            let word = if *name == "password" { "hunter2" } else { "something" };
            for wrong in [json!(7), json!(7.5), json!([word]), json!({ word: 1 }), json!(word), json!(true)] {
                let fits = wrong.is_string() && right.is_string() || wrong.is_boolean() && right.is_boolean();
                if !fits {
                    bad(set(name, &wrong), "bad_parameter").await;
                }
            }
            let value = if *name == "password" { &json!("hunter2 hunter2") } else { right };
            let twice = format!("{{\"{name}\":{value},{}", &set(name, value)[1..]);
            bad(twice, "bad_parameter").await;
        }
        bad(set("colour", &json!("red")), "unknown_field").await;
        bad(set("Name", &json!("red")), "unknown_field").await;
        for garbage in ["[]", "7", "\"hunter2\"", "null", "{", "{\"name\":\"a\"}}", "{'name':'a'}", "\u{feff}{}"] {
            bad(garbage.to_owned(), "json_parsing_failed").await;
        }
        bad(format!("{{\"name\":{}1{}}}", "[".repeat(40), "]".repeat(40)), "json_parsing_failed").await;
    }
    let after = (socket.get("/v1/users?recursion=1").await.metadata(), alice.get("/v1/sources?recursion=1").await.metadata());
    assert_eq!(after, before, "nothing was made or changed");
    assert_eq!(alice.get("/v1/keys").await.metadata(), json!([]));
}
