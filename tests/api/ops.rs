//! Process paths, and how a broker stops.

use crate::support::{dev, start};
use tidelog::server::Mode;

#[tokio::test]
async fn process_paths_are_plain_text() {
    let broker = dev().await;
    for path in ["/livez", "/healthz", "/readyz"] {
        let answer = broker.get(path).await;
        assert_eq!((answer.status, answer.body.as_slice()), (200, &b"ok\n"[..]), "{path}");
        assert!(answer.header("x-request-id").is_some());
    }
    let verbose = broker.get("/readyz?verbose").await;
    assert!(String::from_utf8_lossy(&verbose.body).contains("[+] storage ok"), "{verbose:?}");
}

#[tokio::test]
async fn metrics_are_openmetrics_without_names_of_streams() {
    let broker = dev().await;
    assert_eq!(broker.post("/v1/streams", r#"{"name":"secret-name"}"#).await.status, 201);
    let text = String::from_utf8(broker.get("/metrics").await.body).unwrap();
    assert!(text.contains("# TYPE tidelog_connections gauge") && text.ends_with("# EOF\n"), "{text}");
    assert!(text.contains("tidelog_commits_total"), "{text}");
    assert!(!text.contains("secret-name"));
}

#[tokio::test]
async fn metrics_with_names_need_the_operator() {
    let broker = start(Mode::Serve { trust_loopback: false }, |config| config.raw.metrics.names = true).await;
    assert_eq!(broker.get("/metrics").await.code(), "unauthenticated");
    assert_eq!(broker.ask_locally("GET", "/metrics", &[], b"").await.status, 200);
}

#[tokio::test]
async fn a_stop_closes_websockets_with_1001_ends_long_polls_and_takes_the_socket_away() {
    let broker = dev().await;
    assert_eq!(broker.post("/v1/streams", r#"{"name":"a"}"#).await.status, 201);
    let mut idle = broker.ws("/v1/connect").await.greeted().await;
    let mut reading = broker.ws("/v1/connect").await.greeted().await;
    assert_eq!(reading.ask(r#"{"t":"subscribe","sub":1,"stream":"a"}"#).await["t"], "subscribed");
    assert_eq!(reading.json().await["t"], "live");
    let (tcp, socket) = (broker.tcp().await, broker.server.socket().to_owned());
    let poll = tokio::spawn(async move { crate::support::exchange(tcp, "GET", "/v1/streams/a/events?wait=60", &[], b"").await });
    // The poll must have arrived before the stop.
    while !String::from_utf8(broker.get("/metrics").await.body).unwrap().contains("tidelog_connections 4.0") {
        tokio::task::yield_now().await;
    }
    assert!(socket.exists());
    broker.server.stop().await.expect("a clean stop");
    assert_eq!(idle.closed().await, 1001);
    assert_eq!(reading.closed().await, 1001);
    let answer = poll.await.unwrap();
    assert_eq!(answer.metadata()["events"], serde_json::json!([]), "a poll that ends early brings nothing and loses nothing");
    assert!(!socket.exists());
}

#[tokio::test]
async fn a_second_broker_on_the_same_socket_is_refused_and_the_first_lives_on() {
    let broker = dev().await;
    let dir = broker.server.socket().parent().unwrap().to_owned();
    let second = tidelog::server::Server::start(tidelog::server::Config::for_tests(Mode::Dev, &dir)).await;
    assert!(second.err().unwrap().message.contains("is listening"));
    assert_eq!(broker.ask_locally("GET", "/livez", &[], b"").await.status, 200);
}

#[tokio::test]
async fn a_port_in_use_is_refused_with_a_sentence() {
    let broker = dev().await;
    let dir = tempfile::tempdir().unwrap();
    let mut config = tidelog::server::Config::for_tests(Mode::Dev, dir.path());
    config.listen = broker.server.address().to_string();
    let error = tidelog::server::Server::start(config).await.err().unwrap();
    assert!(error.message.contains("--listen"), "{error}");
    assert_eq!(error.exit_code, 1);
}
