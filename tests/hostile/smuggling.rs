//! Requests in shapes that two readers could read in two ways. Whatever the broker answers, the request that hides in the body, or behind
//! a length that lies, is never carried out, and the next caller notices nothing.
//!
//! Every shape is sent byte by byte on a connection of its own, with an honest `GET /livez` behind it that asks for the end of the
//! connection: the answers, in their order, say what was taken for a request.

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::{Broker, PATIENCE, dev, serve};
use crate::wire::{DATA, END_HEADERS, END_STREAM, H2, HEADERS, field, h2_frame};

/// What hides: under `dev` anybody on loopback may create a stream.
const HIDDEN: &str = "POST /v1/streams HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 19\r\n\r\n{\"name\":\"smuggled\"}";
/// 23 bytes.
const EVENT: &str = r#"{"events":[{"data":1}]}"#;
const LAST: &str = "GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

async fn with_stream() -> Broker {
    let broker = dev().await;
    assert_eq!(broker.post("/v1/streams", r#"{"name":"s"}"#).await.status, 201);
    broker
}

/// The answers on one connection, in their order, until it ends: status and code.
async fn answers(broker: &Broker, bytes: &[u8]) -> Vec<String> {
    let mut stream = broker.tcp().await;
    let _ = stream.write_all(bytes).await; // it may be cut off
    let mut all = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut all)).await.unwrap_or_else(|_| panic!("no end of {:?}", String::from_utf8_lossy(bytes)));
    split(&all)
}

fn split(mut all: &[u8]) -> Vec<String> {
    let mut heard = Vec::new();
    while let Some(end) = all.windows(4).position(|w| w == b"\r\n\r\n") {
        let head = String::from_utf8_lossy(&all[..end]).into_owned();
        let status = head.split(' ').nth(1).unwrap_or_default().to_owned();
        let field = |name: &str| head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix(name).map(|v| v.trim().to_owned()));
        let length: usize = field("content-length:").and_then(|v| v.parse().ok()).unwrap_or_default();
        let body = all.get(end + 4..end + 4 + length).unwrap_or_default();
        let code = serde_json::from_slice::<Value>(body).ok().and_then(|v| v["metadata"]["code"].as_str().map(str::to_owned)).unwrap_or_default();
        heard.push(format!("{status} {code}").trim_end().to_owned());
        all = all.get(end + 4 + length..).unwrap_or_default();
    }
    heard
}

/// Nothing that hid was done, and an honest caller on another connection is served.
async fn unharmed(broker: &Broker, what: &str) {
    assert_eq!(broker.get("/v1/streams/smuggled").await.status, 404, "{what}: what hid was carried out");
    assert_eq!(broker.post("/v1/streams/s/events", EVENT).await.status, 201, "{what}: an honest caller");
}

fn post(headers: &str, body: &str) -> String {
    format!("POST /v1/streams/s/events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{headers}\r\n{body}")
}

fn get(headers: &str) -> String {
    format!("GET /v1/streams/s HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n")
}

/// Every shape, and the answers it may get. No answer at all is a connection that was closed.
async fn try_all(shapes: &[(&str, String, &[&str])]) {
    let broker = with_stream().await;
    let mut wrong = Vec::new();
    for (what, bytes, expected) in shapes {
        let heard = answers(&broker, format!("{bytes}{LAST}").as_bytes()).await;
        if heard != *expected {
            wrong.push(format!("{what}: {heard:?}, not {expected:?}"));
        }
        unharmed(&broker, what).await;
    }
    assert!(wrong.is_empty(), "{} are wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[tokio::test]
async fn a_body_has_one_length_or_the_connection_ends() {
    let chunked = format!("17\r\n{EVENT}\r\n0\r\n\r\n");
    let n = chunked.len() + HIDDEN.len();
    let hidden = format!("{EVENT}{HIDDEN}");
    try_all(&[
        // By RFC 9112 section 6.3 the chunks count, and nothing behind them is read.
        ("a length, then chunks", post(&format!("Content-Length: {n}\r\nTransfer-Encoding: chunked\r\n"), &format!("{chunked}{HIDDEN}")), &["201"]),
        ("chunks, then a length", post(&format!("Transfer-Encoding: chunked\r\nContent-Length: {n}\r\n"), &format!("{chunked}{HIDDEN}")), &["201"]),
        ("chunks, and a short length", post("Content-Length: 4\r\nTransfer-Encoding: chunked\r\n", &format!("{chunked}{HIDDEN}")), &["201"]),
        ("two lengths", post(&format!("Content-Length: 23\r\nContent-Length: {}\r\n", hidden.len()), &hidden), &["400"]),
        ("two lengths, the other way", post(&format!("Content-Length: {}\r\nContent-Length: 23\r\n", hidden.len()), &hidden), &["400"]),
        ("the same length twice", post("Content-Length: 23\r\nContent-Length: 23\r\n", EVENT), &["201", "200"]),
        ("a list of lengths", post("Content-Length: 23, 23\r\n", EVENT), &["400"]),
        ("a negative length", post("Content-Length: -1\r\n", &hidden), &["400"]),
        ("a length with a plus", post("Content-Length: +23\r\n", EVENT), &["400"]),
        ("a hexadecimal length", post("Content-Length: 0x17\r\n", EVENT), &["400"]),
        ("an empty length", post("Content-Length: \r\n", EVENT), &["400"]),
        ("a length beyond 64 bits", post("Content-Length: 18446744073709551616\r\n", EVENT), &["400"]),
        ("a body of GET is not a request", get(&format!("Content-Length: {}\r\n", HIDDEN.len())) + HIDDEN, &["200", "200"]),
        (
            "a body of DELETE that nobody reads",
            format!("DELETE /v1/streams/none HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{HIDDEN}", HIDDEN.len()),
            &["404 not_found", "200"],
        ),
    ])
    .await;
}

#[tokio::test]
async fn chunked_is_the_one_coding_and_its_chunks_are_what_they_say() {
    let chunked = format!("17\r\n{EVENT}\r\n0\r\n\r\n");
    let te = |value: &str, body: &str| post(&format!("Transfer-Encoding:{value}\r\n"), body);
    let broken = "400";
    try_all(&[
        ("chunked", te(" chunked", &chunked), &["201", "200"]),
        ("in capitals", te(" CHUNKED", &chunked), &["201", "200"]),
        ("with blanks and a tab around", te(" \t chunked \t", &chunked), &["201", "200"]),
        ("an extension", te(" chunked", &format!("17;a=b\r\n{EVENT}\r\n0\r\n\r\n")), &["201", "200"]),
        ("trailers", te(" chunked", &format!("17\r\n{EVENT}\r\n0\r\nX-A: b\r\n\r\n")), &["201", "200"]),
        ("then identity", te(" chunked, identity", &format!("{chunked}{HIDDEN}")), &["400"]),
        ("after identity", te(" identity, chunked", &format!("{chunked}{HIDDEN}")), &["400 bad_parameter"]),
        ("twice", post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", &chunked), &["400 bad_parameter"]),
        ("identity", te(" identity", HIDDEN), &["400"]),
        ("another word", te(" xchunked", &chunked), &["400"]),
        ("a vertical tab", te(" \u{b}chunked", &chunked), &["400"]),
        ("a blank before the colon", post("Transfer-Encoding : chunked\r\n", &format!("{chunked}{HIDDEN}")), &["400"]),
        ("a size with a plus", te(" chunked", &format!("+17\r\n{EVENT}\r\n0\r\n\r\n{HIDDEN}")), &[broken]),
        ("a size with a minus", te(" chunked", &format!("-17\r\n{EVENT}\r\n0\r\n\r\n{HIDDEN}")), &[broken]),
        ("a size with 0x", te(" chunked", &format!("0x17\r\n{EVENT}\r\n0\r\n\r\n{HIDDEN}")), &[broken]),
        ("a size beyond 64 bits", te(" chunked", &format!("10000000000000017\r\n{EVENT}\r\n0\r\n\r\n{HIDDEN}")), &[broken]),
        ("no size", te(" chunked", &format!("\r\n{EVENT}\r\n0\r\n\r\n{HIDDEN}")), &[broken]),
        ("a chunk longer than it says", te(" chunked", &format!("16\r\n{EVENT}\r\n0\r\n\r\n{HIDDEN}")), &[broken]),
        ("a bare line feed behind a size", te(" chunked", &format!("17\n{EVENT}\r\n0\r\n\r\n{HIDDEN}")), &[broken]),
        ("a bare line feed in an extension", te(" chunked", &format!("17;a\n{EVENT}\r\n0\r\n\r\n{HIDDEN}")), &[broken]),
        ("a flood of extensions", te(" chunked", &format!("17;{}\r\n{EVENT}\r\n0\r\n\r\n", "a".repeat(40_000))), &[broken]),
        ("a flood of trailers", te(" chunked", &format!("17\r\n{EVENT}\r\n0\r\n{}\r\n", "X-A: b\r\n".repeat(10_000))), &[broken]),
    ])
    .await;
}

#[tokio::test]
async fn a_head_is_lines_of_names_and_values_and_nothing_else() {
    let with = |line: &str| get(&format!("{line}\r\n"));
    try_all(&[
        ("a line that is folded", with("X-A: b\r\n c"), &["400"]),
        ("a bare carriage return in a value", with("X-A: b\rContent-Length: 100"), &["400"]),
        ("a zero byte in a value", with("X-A: b\0c"), &["400"]),
        ("a zero byte in a name", with("X-\0A: b"), &["400"]),
        ("a blank in a name", with("X A: b"), &["400"]),
        ("a parenthesis in a name", with("X(A): b"), &["400"]),
        ("letters with accents in a name", with("X-Ä: b"), &["400"]),
        ("no name", with(": b"), &["400"]),
        ("no colon", with("X-A"), &["400"]),
        ("two hosts", with("Host: localhost"), &["400 bad_parameter"]),
        ("two other hosts", with("Host: evil.example"), &["400 bad_parameter"]),
        ("no host", "GET /v1/streams/s HTTP/1.1\r\n\r\n".into(), &["400 bad_parameter"]),
        ("no host on a path of Evernest", "GET /Stream/1 HTTP/1.1\r\n\r\n".into(), &["400"]),
        ("two types of content", with("Content-Type: a/b\r\nContent-Type: c/d"), &["400 bad_parameter"]),
        ("two credentials", with("Authorization: Bearer a\r\nAuthorization: Bearer b"), &["400 bad_parameter", "200"]),
        ("lines that end with a line feed only", "GET /v1/streams/s HTTP/1.1\nHost: localhost\n\n".into(), &["200", "200"]),
        ("empty lines before a request", format!("\r\n\r\n{}", get("")), &["200", "200"]),
        ("a blank before the first header", "GET /v1/streams/s HTTP/1.1\r\n X-A: b\r\nHost: localhost\r\n\r\n".into(), &["400"]),
    ])
    .await;
}

#[tokio::test]
async fn versions_targets_and_upgrades_are_those_that_are_spoken_here() {
    let line = |line: &str| format!("{line}\r\nHost: localhost\r\n\r\n");
    try_all(&[
        ("HTTP/0.9", "GET /v1/streams/s\r\n\r\n".into(), &["400"]),
        ("HTTP/1.2", line("GET /v1/streams/s HTTP/1.2"), &["400"]),
        ("HTTP/3.0", line("GET /v1/streams/s HTTP/3.0"), &["400"]),
        ("HTTP/1.0 ends the connection", line("GET /v1/streams/s HTTP/1.0"), &["200"]),
        ("HTTP/1.0 that would go on", "GET /v1/streams/s HTTP/1.0\r\nHost: localhost\r\nConnection: keep-alive\r\n\r\n".into(), &["200", "200"]),
        (
            "chunks over HTTP/1.0",
            format!("POST /v1/streams/s/events HTTP/1.0\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{HIDDEN}"),
            &["400"],
        ),
        ("the preface of HTTP/2 in the middle", format!("{}PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", get("")), &["200"]),
        ("an upgrade to h2c is not taken", get("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"), &["200", "200"]),
        ("an upgrade to anything", get("Connection: Upgrade\r\nUpgrade: websocket, h2c\r\n"), &["200", "200"]),
        ("a target with its host", line("GET http://localhost/v1/streams/s HTTP/1.1"), &["200", "200"]),
        ("the target's host counts", line("GET http://evil.example/v1/streams/s HTTP/1.1"), &["403 access_denied", "200"]),
        ("and no other", "GET http://localhost/v1/streams/s HTTP/1.1\r\nHost: evil.example\r\n\r\n".into(), &["200", "200"]),
        ("a connection to somewhere", line("CONNECT evil.example:80 HTTP/1.1"), &["403 access_denied", "200"]),
        ("a star", line("OPTIONS * HTTP/1.1"), &["404 unknown_route", "200"]),
        ("a target without a slash", line("GET v1/streams/s HTTP/1.1"), &["400"]),
        ("a continuation that is asked for", post("Expect: 100-continue\r\nContent-Length: 23\r\n", EVENT), &["100", "201", "200"]),
        ("a continuation without a body", get("Expect: 100-continue\r\n"), &["200", "200"]),
    ])
    .await;
}

#[tokio::test]
async fn what_a_proxy_might_add_changes_nothing() {
    let broker = serve().await;
    // Nobody becomes somebody by saying so, and a request is the one its first line names.
    for lie in [
        "X-Forwarded-For: 127.0.0.1",
        "Forwarded: for=127.0.0.1;proto=https",
        "X-Real-IP: 127.0.0.1",
        "X-Forwarded-Host: localhost",
        "X-Forwarded-User: operator",
        "X-Remote-User: operator",
        "X-Client-Cert: CN=user-operator",
        "X-SSL-Client-S-DN: CN=user-operator,OU=tidelog",
        "X-Original-URL: /livez",
        "X-Rewrite-URL: /livez",
        "X-HTTP-Method-Override: GET",
        "Cookie: session=tlc_abc; Authorization=Bearer",
        "Proxy-Authorization: Bearer tlu_abc",
    ] {
        let heard = answers(&broker, format!("POST /v1/streams HTTP/1.1\r\nHost: localhost\r\n{lie}\r\nConnection: close\r\n\r\n").as_bytes()).await;
        assert_eq!(heard, ["401 unauthenticated"], "{lie}");
        let heard = answers(&broker, format!("GET /livez HTTP/1.1\r\nHost: localhost\r\n{lie}\r\nConnection: close\r\n\r\n").as_bytes()).await;
        assert_eq!(heard, ["200"], "{lie}");
    }
}

#[tokio::test]
async fn credentials_have_one_form_and_one_place() {
    let broker = serve().await;
    let key = {
        let made = broker.ask_locally("POST", "/v1/users", &[("Content-Type", "application/json")], br#"{"name":"alice","password":"correct horse"}"#).await;
        assert_eq!(made.status, 201);
        let session = broker.post("/v1/sessions", r#"{"name":"alice","password":"correct horse"}"#).await;
        session.metadata()["token"].as_str().expect("a token").to_owned()
    };
    let ask = async |line: String| answers(&broker, format!("GET /v1/sessions/current{line}\r\nConnection: close\r\n\r\n").as_bytes()).await.join(", ");
    let http = " HTTP/1.1\r\nHost: localhost\r\nAuthorization:";
    for good in [format!(" Bearer {key}"), format!(" bEARER   {key}  "), format!("Bearer {key}")] {
        assert_eq!(ask(format!("{http}{good}")).await, "200");
    }
    for (bad, expected) in [
        (format!(" Basic {key}"), "401 unauthenticated"),
        (format!(" {key}"), "401 unauthenticated"),
        (format!(" Bearer, {key}"), "401 unauthenticated"),
        (format!(" Bearer\t{key}"), "401 unauthenticated"),
        (format!(" Bearer {key}, Bearer {key}"), "401 unauthenticated"),
        (format!(" Bearer \"{key}\""), "401 unauthenticated"),
        (format!(" Bearer {key}\u{e9}"), "401 unauthenticated"),
        (" Bearer".to_owned(), "401 unauthenticated"),
        (" ".to_owned(), "401 unauthenticated"),
        (format!(" Bearer {key}\r\nAuthorization: Bearer {key}"), "400 bad_parameter"),
    ] {
        assert_eq!(ask(format!("{http}{bad}")).await, expected, "{}", bad.replace(&key, "KEY"));
    }
    for place in ["key", "Key", "USERKEY", "token", "access_token", "ticket", "authorization"] {
        assert_eq!(ask(format!("?{place}={key}{http} Bearer {key}")).await, "400 key_in_url", "{place}");
    }
    // A ticket in the URL of an upgrade beside a credential: the credential counts, and the ticket is not used up.
    let ticket =
        broker.ask("POST", "/v1/tickets", &[("Authorization", &format!("Bearer {key}"))], b"").await.metadata()["ticket"].as_str().expect("one").to_owned();
    let twice = format!("GET /v1/streams/none/events?ticket={ticket}&ticket={ticket} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    assert_eq!(answers(&broker, twice.as_bytes()).await, ["400 key_in_url"], "two tickets");
    let both = format!("GET /v1/streams/none/events?ticket={ticket} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\nConnection: close\r\n\r\n");
    assert_eq!(answers(&broker, both.as_bytes()).await, ["404 not_found"], "known by the key");
    let alone = format!("GET /v1/streams/none/events?ticket={ticket} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    assert_eq!(answers(&broker, alone.as_bytes()).await, ["404 not_found"], "known by the ticket");
    assert_eq!(answers(&broker, alone.as_bytes()).await, ["401 unauthenticated"], "once");
}

#[tokio::test]
async fn paths_are_taken_as_they_are_written() {
    let broker = with_stream().await;
    for (path, expected) in [
        ("/v1/streams/s", "200"),
        ("/v1/streams/%73", "200"),
        ("/v1/streams/S", "200"),
        ("/v1/streams/s/", "200"),
        ("/v1/streams/s%2Fevents", "400 bad_parameter"),
        ("/v1/streams/%2e%2e", "400 bad_parameter"),
        ("/v1/streams/..", "400 bad_parameter"),
        ("/v1/streams/../streams/s", "404 unknown_route"),
        ("/v1/./streams/s", "404 unknown_route"),
        ("/v1//streams/s", "404 unknown_route"),
        ("//v1/streams/s", "404 unknown_route"),
        ("/v1/streams/s//", "404 unknown_route"),
        ("/V1/streams/s", "404 unknown_route"),
        ("/v1/streams/%00", "400 bad_parameter"),
        ("/v1/streams/s%00", "400 bad_parameter"),
        ("/v1/streams/%c0%af", "400 bad_parameter"),
        ("/v1/streams/%c1%b3", "400 bad_parameter"),
        ("/v1/streams/%ff", "400 bad_parameter"),
        ("/v1/streams/%2573", "400 bad_parameter"),
        ("/v1/streams/s%0d%0aX-A:%20b", "400 bad_parameter"),
        ("/v1/streams/%u0073", "400 bad_parameter"),
        ("/v1/streams/%d1%95", "400 bad_parameter"),
        ("/v1/streams/%ef%bd%93", "400 bad_parameter"),
        ("/v1/streams/s;a=b", "400 bad_parameter"),
        ("/v1%2Fstreams/s", "404 unknown_route"),
        ("/v1/streams?limit=1&limit=2", "400 bad_parameter"),
        ("/v1/streams?limit=1&Limit=2", "400 bad_parameter"),
        ("/v1/streams?lim%69t=1&limit=1", "400 bad_parameter"),
        ("/v1/streams?limit=1;recursion=1", "400 bad_parameter"),
    ] {
        let bytes = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        assert_eq!(answers(&broker, bytes.as_bytes()).await, [expected], "{path}");
    }
    unharmed(&broker, "paths").await;
}

/// One request over HTTP/2 with these fields, and how its stream ends.
async fn over_http2(broker: &Broker, pseudo: &[(&str, &str)], fields: &[(&str, &str)], body: Option<&[u8]>) -> String {
    let mut h2 = H2::open(broker.server.address()).await;
    let head: Vec<u8> = pseudo.iter().chain(fields).flat_map(|(name, value)| field(name, value)).collect();
    let flags = if body.is_some() { END_HEADERS } else { END_HEADERS | END_STREAM };
    h2.send(&h2_frame(HEADERS, flags, 1, &head)).await;
    if let Some(body) = body {
        h2.send(&h2_frame(DATA, END_STREAM, 1, body)).await;
    }
    h2.status(1).await
}

#[tokio::test]
async fn http2_has_no_second_length_no_connection_and_one_host() {
    let broker = with_stream().await;
    let of = |method: &'static str, path: &'static str| [(":method", method), (":scheme", "http"), (":path", path), (":authority", "localhost")];
    let json = ("content-type", "application/json");
    let get = of("GET", "/v1/streams/s");
    let append = of("POST", "/v1/streams/s/events");
    assert_eq!(over_http2(&broker, &get, &[], None).await, "ended");
    assert_eq!(over_http2(&broker, &append, &[json, ("content-length", "23")], Some(EVENT.as_bytes())).await, "ended");
    let protocol_error = "reset 1";
    for (what, fields) in [
        ("a connection", ("connection", "close")),
        ("chunks", ("transfer-encoding", "chunked")),
        ("keep-alive", ("keep-alive", "timeout=5")),
        ("an upgrade", ("upgrade", "websocket")),
        ("a proxy's connection", ("proxy-connection", "close")),
        ("te", ("te", "chunked")),
        ("a name in capitals", ("X-A", "b")),
        ("a value with a line end", ("x-a", "b\r\nhost: evil")),
    ] {
        let end = over_http2(&broker, &get, &[fields], None).await;
        assert!(end == protocol_error || end.starts_with("goaway 1"), "{what}: {end}");
    }
    for (what, told, body) in
        [("less than was told", "24", EVENT), ("more than was told", "22", EVENT), ("a hidden request", "23", "{\"events\":[{\"data\":1}]}POST /v1/streams")]
    {
        let end = over_http2(&broker, &append, &[json, ("content-length", told)], Some(body.as_bytes())).await;
        assert!(end == protocol_error || end.starts_with("goaway 1"), "{what}: {end}");
    }
    unharmed(&broker, "HTTP/2").await;
    let stream = broker.get("/v1/streams/s").await.metadata();
    assert_eq!(stream["state"]["next_offset"], 2, "the two honest events, and none of the others");
    // The answer is compressed; what it says is read over HTTP/1 in the unit tests of `framing`, and that it is one is seen in the counters.
    let errors = async || crate::broker::number(&String::from_utf8(broker.get("/metrics").await.body).expect("text"), "tidelog_http_errors_total");
    for (authority, host, refused) in [("localhost", "localhost", false), ("localhost", "evil.example", true), ("evil.example", "localhost", true)] {
        let before = errors().await;
        let pseudo = [(":method", "GET"), (":scheme", "http"), (":path", "/v1/streams/s"), (":authority", authority)];
        assert_eq!(over_http2(&broker, &pseudo, &[("host", host)], None).await, "ended");
        assert_eq!(errors().await > before, refused, "{authority} and {host}");
    }
}

/// Control: a server that reads such a body twice would be noticed.
#[tokio::test]
async fn a_request_that_does_not_hide_is_carried_out_and_is_seen() {
    let broker = with_stream().await;
    let bytes = format!("{}{HIDDEN}{LAST}", get(""));
    assert_eq!(answers(&broker, bytes.as_bytes()).await, ["200", "201", "200"]);
    assert_eq!(broker.get("/v1/streams/smuggled").await.status, 200);
}
