//! Who is let in by a certificate, and as whom.

use std::time::Duration;

use rcgen::{DnType, DnValue, ExtendedKeyUsagePurpose, date_time_ymd};
use tidelog::broker::{Principal, UserChange};
use tidelog::client::{Consumer, Error, Protocol};
use tidelog::server::Mode;
use tidelog::types::{Code, UserName};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{Instant, timeout};

use crate::world::{CLUSTER, PASSWORD, PATIENCE, Pair, World, authority, exchange, signed};

const NODE: &str = "node-6f2b1c1e-8a44-4c39-9d7e-0d8b5a0f3f11";

/// The status, or that TLS failed.
async fn status(world: &World, port: u16, pair: Option<&Pair>, path: &str) -> Option<u16> {
    world.ask(port, pair, path, &[]).await.ok().map(|answer| answer.status)
}

#[tokio::test]
async fn only_subjects_of_the_cluster_shake_hands() {
    let world = World::open().await;
    let other = authority("c2");
    let impostor = authority(CLUSTER);
    let ca = &world.ca;
    let extra = |params: &mut rcgen::CertificateParams, number: u64, text: &str| {
        params.distinguished_name.push(DnType::CustomDnType(vec![2, 5, 4, number]), text);
    };
    let longest = format!("user-{}", "a".repeat(201));
    for (what, pair, let_in) in [
        ("a user", world.user("alice"), true),
        ("a node", signed(ca, NODE, CLUSTER, |_| {}), true),
        ("a user that is not there", world.user("nobody"), true),
        ("another cluster's unit", signed(ca, "user-alice", "c2", |_| {}), false),
        ("a unit in other letters", signed(ca, "user-alice", "C1", |_| {}), false),
        ("no unit", signed(ca, "user-alice", CLUSTER, |p| assert!(p.distinguished_name.remove(DnType::OrganizationalUnitName))), false),
        ("two units", signed(ca, "user-alice", CLUSTER, |p| extra(p, 11, CLUSTER)), false),
        ("no name", signed(ca, "user-alice", CLUSTER, |p| assert!(p.distinguished_name.remove(DnType::CommonName))), false),
        ("two names", signed(ca, "user-alice", CLUSTER, |p| extra(p, 3, "user-bob")), false),
        ("a bare name", signed(ca, "alice", CLUSTER, |_| {}), false),
        ("the server's name", signed(ca, "control-service", CLUSTER, |_| {}), false),
        ("a name that looks alike", signed(ca, "user-ali\u{441}e", CLUSTER, |_| {}), false),
        ("a name with a zero", signed(ca, "user-alice\0", CLUSTER, |_| {}), false),
        ("a name that is too long", signed(ca, &longest, CLUSTER, |_| {}), false),
        ("a node without an id", signed(ca, "node-1", CLUSTER, |_| {}), false),
        (
            "an odd encoding",
            signed(ca, "", CLUSTER, |p| {
                let name = rcgen::string::BmpString::try_from("user-alice").expect("text");
                p.distinguished_name.push(DnType::CommonName, DnValue::BmpString(name));
            }),
            false,
        ),
        ("another authority", signed(&other, "user-alice", "c2", |_| {}), false),
        ("an authority that calls itself ours", signed(&impostor, "user-alice", CLUSTER, |_| {}), false),
        ("an expired one", signed(ca, "user-alice", CLUSTER, |p| p.not_after = date_time_ymd(2025, 1, 1)), false),
        ("one whose time has not come", signed(ca, "user-alice", CLUSTER, |p| p.not_before = date_time_ymd(2095, 1, 1)), false),
        ("a server's", signed(ca, "user-alice", CLUSTER, |p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]), false),
    ] {
        for port in [world.main(), world.mutual()] {
            let answer = world.ask(port, Some(&pair), "/livez", &[]).await;
            assert_eq!(answer.as_ref().map(|answer| answer.status).ok(), let_in.then_some(200), "{what}: {answer:?}");
            if let Err(why) = answer {
                assert!(why.contains("alert"), "{what}: a failure of TLS, which the client is told: {why}");
            }
        }
    }
}

#[tokio::test]
async fn a_certificate_is_optional_on_the_main_port_and_required_on_the_other() {
    let world = World::open().await;
    let alice = world.user("alice");
    assert_eq!(status(&world, world.main(), None, "/livez").await, Some(200));
    assert_eq!(status(&world, world.main(), None, "/v1/streams").await, Some(401));
    assert_eq!(status(&world, world.main(), Some(&alice), "/v1/streams").await, Some(200));
    assert_eq!(status(&world, world.mutual(), Some(&alice), "/v1/streams").await, Some(200));
    let refused = world.ask(world.mutual(), None, "/livez", &[]).await.expect_err("no answer");
    assert!(refused.contains("CertificateRequired"), "{refused}");
}

#[tokio::test]
async fn a_certificate_is_the_console_of_its_user_and_of_no_other() {
    let world = World::open().await;
    for (name, code) in [("alice", None), ("Alice", None), ("nobody", Some("unauthenticated"))] {
        let answer = world.ask(world.mutual(), Some(&world.user(name)), "/v1/sessions/current", &[]).await.expect("an answer");
        match code {
            None => {
                assert_eq!(answer.status, 200, "{answer:?}");
                assert_eq!(answer.json()["metadata"]["user"]["name"], "alice", "{answer:?}");
                assert_eq!(answer.json()["metadata"]["kind"], "console", "{answer:?}");
            }
            Some(code) => assert_eq!((answer.status, &*answer.code()), (401, code), "{answer:?}"),
        }
    }
}

#[tokio::test]
async fn a_node_may_nothing_but_what_nodes_do() {
    let world = World::open().await;
    let node = signed(&world.ca, NODE, CLUSTER, |_| {});
    assert_eq!(status(&world, world.mutual(), Some(&node), "/v1/streams").await, Some(403));
    assert_eq!(status(&world, world.mutual(), Some(&node), "/v1/users").await, Some(403));
    // Nothing is built there so far; what is, is for nodes.
    assert_eq!(status(&world, world.mutual(), Some(&node), "/v1/cluster/x").await, Some(404));
}

#[tokio::test]
async fn an_explicit_bearer_beats_the_certificate() {
    let world = World::open().await;
    let token = world.server.broker().log_in("bob", PASSWORD).await.expect("a session").token;
    let bearer = format!("Bearer {token}");
    let who = async |headers: &[(&str, &str)]| world.ask(world.mutual(), Some(&world.user("alice")), "/v1/sessions/current", headers).await.expect("an answer");
    assert_eq!(who(&[]).await.json()["metadata"]["user"]["name"], "alice");
    assert_eq!(who(&[("Authorization", &bearer)]).await.json()["metadata"]["user"]["name"], "bob");
    let wrong = who(&[("Authorization", "Bearer tlu_wrong")]).await;
    assert_eq!((wrong.status, &*wrong.code()), (401, "unauthenticated"), "it does not fall back");
}

#[tokio::test]
async fn a_disabled_user_is_out_at_once_on_connections_that_are_open() {
    let world = World::open().await;
    world.stream("orders").await;
    let client = world.client(world.mutual(), Protocol::Json, Some(&world.user("alice")), None);
    let mut reader = client.consumer("orders").open().await.expect("a reader");
    let mut http = world.connect(world.mutual(), Some(&world.user("alice"))).await.expect("a handshake");
    let mut ask = async || {
        http.write_all(b"GET /v1/streams/orders HTTP/1.1\r\nHost: localhost\r\n\r\n").await.expect("it takes it");
        let mut piece = vec![0; 4096];
        let n = timeout(PATIENCE, http.read(&mut piece)).await.expect("in time").expect("an answer");
        String::from_utf8_lossy(&piece[..n]).into_owned()
    };
    assert!(ask().await.starts_with("HTTP/1.1 200 "));
    let name = UserName::parse("alice").expect("a name");
    let change = UserChange { disabled: Some(true), ..UserChange::default() };
    world.server.broker().change_user(&Principal::Operator, &name, change).await.expect("a change");
    assert!(ask().await.starts_with("HTTP/1.1 401 "));
    assert_eq!(end_of(&mut reader).await.code(), Some(Code::Unauthenticated));
}

/// Why a reader ends that only listens.
async fn end_of(reader: &mut Consumer) -> Error {
    let ended = async {
        loop {
            match reader.next().await {
                Some(Err(error)) => return error,
                Some(Ok(_)) => {}
                None => panic!("it ends without a word"),
            }
        }
    };
    timeout(PATIENCE, ended).await.expect("the reader ends")
}

#[tokio::test]
async fn a_certificate_that_expires_is_over_on_a_connection_that_is_open() {
    let world = World::open().await;
    let brief = signed(&world.ca, "user-alice", CLUSTER, |params| crate::world::ends_in(params, 3));
    world.stream("orders").await;
    let client = world.client(world.mutual(), Protocol::Json, Some(&brief), None);
    let mut reader = client.consumer("orders").open().await.expect("a reader");
    let mut http = world.connect(world.mutual(), Some(&brief)).await.expect("a handshake");
    let since = Instant::now();
    let mut good = 0;
    loop {
        http.write_all(b"GET /v1/sessions/current HTTP/1.1\r\nHost: localhost\r\n\r\n").await.expect("it takes it");
        let mut piece = vec![0; 4096];
        let n = timeout(PATIENCE, http.read(&mut piece)).await.expect("in time").expect("an answer");
        let said = String::from_utf8_lossy(&piece[..n]).into_owned();
        if said.starts_with("HTTP/1.1 401 ") {
            assert!(said.contains("session_expired") && said.contains("This certificate has expired"), "{said}");
            break;
        }
        assert!(said.starts_with("HTTP/1.1 200 "), "{said}");
        good += 1;
        assert!(since.elapsed() < Duration::from_secs(10), "it is over after three seconds");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(good > 0, "it was good before");
    assert_eq!(end_of(&mut reader).await.code(), Some(Code::SessionExpired), "it only listened");
    // A handshake counts in whole seconds, and the last of them is a good one.
    let refused = async {
        loop {
            if let Err(why) = world.ask(world.mutual(), Some(&brief), "/livez", &[]).await {
                return why;
            }
        }
    };
    let why = timeout(Duration::from_secs(2), refused).await.expect("no handshake any more");
    assert!(why.contains("CertificateExpired"), "{why}");
}

#[tokio::test]
async fn a_page_of_another_origin_may_not_use_the_browsers_certificate() {
    let world = World::with(Mode::Serve { trust_loopback: false }, |config| config.raw.http.origins = vec!["https://console.example".into()]).await;
    let alice = world.user("alice");
    let port = world.mutual();
    let home = format!("https://localhost:{port}");
    let host = format!("localhost:{port}");
    for (origin, wanted) in [(&*home, 200), ("https://console.example", 200), ("https://evil.example", 403), ("null", 403), ("https://localhost", 403)] {
        let answer = world.ask(port, Some(&alice), "/v1/streams", &[("Host", &host), ("Origin", origin)]).await.expect("an answer");
        assert_eq!(answer.status, wanted, "{origin}: {answer:?}");
        let tls = world.connect(port, Some(&alice)).await.expect("a handshake");
        let posted = exchange(tls, "POST", "/v1/streams", &[("Host", &host), ("Origin", origin), ("Content-Type", "text/plain")]).await.expect("an answer");
        assert_eq!(posted.status == 403, wanted == 403, "{origin}: {posted:?}");
        let shared = answer.head.to_ascii_lowercase().contains("access-control-allow-origin");
        assert_eq!(shared, wanted == 200, "{origin}: {answer:?}");
    }
    let asks = &[("Host", &*host), ("Origin", "https://evil.example")];
    assert_eq!(world.ask(world.main(), None, "/livez", asks).await.expect("an answer").status, 200, "without one the page has nothing to use");
}
