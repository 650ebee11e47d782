//! Who is let in, over which door.

use crate::support::{Peer, dev, exchange, serve, start};
use tidelog::server::Mode;
use tokio::net::UnixStream;

#[tokio::test]
async fn serve_refuses_tcp_callers_and_lets_the_socket_in() {
    let broker = serve().await;
    for (method, path) in
        [("GET", "/v1/streams"), ("GET", "/v1/streams/a"), ("POST", "/v1/streams"), ("DELETE", "/v1/streams/a"), ("POST", "/v1/streams/a/events")]
    {
        let answer = broker.ask(method, path, &[("Content-Type", "text/html")], b"garbage").await;
        assert_eq!((answer.status, answer.code().as_str()), (401, "unauthenticated"), "{method} {path}");
        assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
    }
    assert_eq!(broker.ask_locally("GET", "/v1/streams", &[], b"").await.status, 200);
}

#[tokio::test]
async fn what_is_public_needs_no_credential_and_tells_little() {
    let broker = serve().await;
    for path in ["/", "/v1", "/v1/version", "/livez", "/readyz", "/metrics"] {
        assert_eq!(broker.get(path).await.status, 200, "{path}");
    }
    let about = broker.get("/v1").await.metadata();
    assert_eq!((about["auth"].as_str(), about.get("environment")), (Some("untrusted"), None));
    let about = exchange(UnixStream::connect(broker.server.socket()).await.unwrap(), "GET", "/v1", &[], b"").await.metadata();
    assert_eq!(about["auth"], "trusted");
    assert!(about["environment"]["log_epoch"].is_u64());
}

#[tokio::test]
async fn a_route_that_does_not_exist_is_said_before_credentials_are_asked_for() {
    let broker = serve().await;
    assert_eq!(broker.get("/v1/nothing").await.code(), "unknown_route");
    assert_eq!(broker.ask("PATCH", "/v1/streams", &[], b"").await.code(), "method_not_found");
}

#[tokio::test]
async fn the_insecure_flag_lets_loopback_in_and_checks_host_and_origin() {
    let broker = start(Mode::Serve { trust_loopback: true }, |_| {}).await;
    assert_eq!(broker.get("/v1/streams").await.status, 200);
    assert_eq!(broker.ask("GET", "/echo", &[], b"").await.code(), "unknown_route", "echo is for dev");
    assert_eq!(broker.ask("GET", "/v1/streams", &[("Host", "evil.example")], b"").await.code(), "access_denied");
}

#[tokio::test]
async fn pages_of_other_origins_cannot_call_loopback() {
    let broker = start(Mode::Dev, |config| {
        config.raw.http.hosts = vec!["broker.test".into()];
        config.raw.http.origins = vec!["https://console.test".into()];
    })
    .await;
    for headers in [
        &[("Host", "evil.example")][..],
        &[("Origin", "http://evil.example")],
        &[("Origin", "null")],
        &[("Origin", "http://localhost:1")],
        &[("Host", "localhost"), ("Host", "localhost")],
    ] {
        for path in ["/v1/streams", "/livez", "/v1/connect"] {
            let answer = broker.ask("GET", path, headers, b"").await;
            assert!(answer.status == 403 || answer.status == 400, "{headers:?} {path}: {}", answer.status);
            if answer.status == 403 {
                assert_eq!(answer.code(), "access_denied");
            }
        }
    }
    for headers in [&[("Host", "broker.test")][..], &[("Origin", "http://localhost")], &[("Origin", "https://console.test")]] {
        assert_eq!(broker.ask("GET", "/v1/streams", headers, b"").await.status, 200, "{headers:?}");
    }
    let headers = [("Host", "evil.example"), ("Origin", "null")];
    assert_eq!(broker.ask_locally("GET", "/v1/streams", &headers, b"").await.status, 200, "the socket's guard is its mode");
}

#[tokio::test]
async fn keys_in_urls_are_refused() {
    let broker = dev().await;
    for path in ["/v1/streams?key=zebra", "/v1?token=zebra", "/v1/connect?access_token=zebra", "/?Key=zebra"] {
        let answer = broker.get(path).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "key_in_url"), "{path}");
        assert!(!String::from_utf8_lossy(&answer.body).contains("zebra"), "what was sent is not repeated");
    }
    let answer = broker.post("/v1/streams/a/events?key=zebra", r#"{"events":[{"data":1}]}"#).await;
    assert_eq!(answer.code(), "key_in_url", "`key` names the event's key on raw bodies only");
}

#[tokio::test]
async fn a_websocket_without_credential_hears_unauthenticated_and_4001() {
    let broker = serve().await;
    for said in [r#"{"t":"auth","key":"tl_abc"}"#, r#"{"t":"ping"}"#, "garbage"] {
        let mut peer = broker.ws("/v1/connect").await.greeted().await;
        let error = peer.ask(said).await;
        assert_eq!((error["t"].as_str(), error["code"].as_str()), (Some("error"), Some("unauthenticated")), "{said}");
        assert_eq!(peer.closed().await, 4001, "{said}");
    }
}

#[tokio::test]
async fn a_websocket_that_says_nothing_is_closed_after_the_deadline() {
    let broker = serve().await;
    let mut peer = broker.ws("/v1/connect").await.greeted().await;
    assert_eq!(peer.json().await["code"], "unauthenticated");
    assert_eq!(peer.closed().await, 4001);
}

#[tokio::test]
async fn before_authentication_a_message_of_4_kib_is_too_big() {
    let broker = serve().await;
    let mut peer = broker.ws("/v1/connect").await.greeted().await;
    peer.text(&"x".repeat(4 * 1024 + 1)).await;
    assert_eq!(peer.closed().await, 1009);
}

#[tokio::test]
async fn a_websocket_on_the_socket_is_the_operator() {
    let broker = serve().await;
    let stream = UnixStream::connect(broker.server.socket()).await.unwrap();
    let mut peer = Peer::open(stream, "/v1/connect", None).await.unwrap().greeted().await;
    peer.alive().await;
}
