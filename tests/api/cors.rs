//! Pages in browsers: which of them may read our answers, and what a preflight says.

use tidelog::server::Mode;

use crate::support::{Answer, Broker, start};

const PAGE: &str = "https://console.test";

async fn trusting() -> Broker {
    start(Mode::Dev, |config| config.raw.http.origins = vec![PAGE.into()]).await
}

/// Every header of CORS in an answer.
fn said(answer: &Answer) -> Vec<&str> {
    answer.headers.iter().map(|(name, _)| name.as_str()).filter(|name| name.to_ascii_lowercase().starts_with("access-control-")).collect()
}

fn list(answer: &Answer, name: &str) -> Vec<String> {
    answer.header(name).unwrap_or_default().split(',').map(|item| item.trim().to_ascii_lowercase()).collect()
}

#[tokio::test]
async fn a_preflight_of_a_known_page_is_answered_for_every_method_and_header_we_use() {
    let broker = trusting().await;
    for path in ["/v1/streams", "/v1/streams/s/events", "/v1/nothing", "/livez"] {
        for (origin, host) in [(PAGE, "localhost"), ("http://localhost:4080", "localhost:4080")] {
            let asked = [("Host", host), ("Origin", origin), ("Access-Control-Request-Method", "POST"), ("Access-Control-Request-Headers", "content-type")];
            let answer = broker.ask("OPTIONS", path, &asked, b"").await;
            assert_eq!((answer.status, answer.header("access-control-allow-origin")), (200, Some(origin)), "{path}");
            assert_eq!((answer.header("vary"), answer.header("access-control-allow-credentials")), (Some("origin"), None));
            assert_eq!((answer.body.len(), answer.header("access-control-max-age")), (0, Some("7200")));
            let methods = list(&answer, "access-control-allow-methods");
            for method in ["get", "head", "post", "put", "patch", "delete"] {
                assert!(methods.iter().any(|m| m == method), "{method}");
            }
            let headers = list(&answer, "access-control-allow-headers");
            for header in
                ["content-type", "authorization", "idempotency-key", "last-event-id", "if-match", "if-none-match", "x-request-id", "x-grpc-web", "grpc-timeout"]
            {
                assert!(headers.iter().any(|h| h == header), "{header}");
            }
        }
    }
}

#[tokio::test]
async fn a_known_page_may_read_answers_and_errors_and_the_headers_that_matter() {
    let broker = trusting().await;
    for (path, status) in [("/v1", 200), ("/v1/streams/none", 404), ("/v1/streams?limit=x", 400), ("/v1/streams?key=x", 400), ("/v1/nothing", 404)] {
        let answer = broker.ask("GET", path, &[("Origin", PAGE)], b"").await;
        assert_eq!((answer.status, answer.header("access-control-allow-origin"), answer.header("vary")), (status, Some(PAGE), Some("origin")), "{path}");
        let shown = list(&answer, "access-control-expose-headers");
        for header in [
            "location",
            "etag",
            "retry-after",
            "x-request-id",
            "x-created-record-id",
            "idempotency-replayed",
            "grpc-status",
            "grpc-message",
            "grpc-status-details-bin",
        ] {
            assert!(shown.iter().any(|h| h == header), "{header}");
        }
    }
    let created = broker.ask("POST", "/v1/streams", &[("Origin", PAGE), ("Content-Type", "application/json")], br#"{"name":"s"}"#).await;
    assert_eq!((created.status, created.header("location"), created.header("access-control-allow-origin")), (201, Some("/v1/streams/s"), Some(PAGE)));
    let events = crate::event_source::http1().get(broker.url("/v1/streams/s/events")).header("accept", "text/event-stream").header("origin", PAGE).send();
    assert_eq!(events.await.unwrap().headers()["access-control-allow-origin"], PAGE);
}

#[tokio::test]
async fn a_known_page_may_read_the_answers_of_grpc_web() {
    let broker = trusting().await;
    let path = "/grpc.health.v1.Health/Check";
    let asked = [("Origin", PAGE), ("Access-Control-Request-Method", "POST"), ("Access-Control-Request-Headers", "content-type,x-grpc-web,x-user-agent")];
    assert_eq!(broker.ask("OPTIONS", path, &asked, b"").await.header("access-control-allow-origin"), Some(PAGE));
    let call = |origin| [("Origin", origin), ("Content-Type", "application/grpc-web+proto"), ("X-Grpc-Web", "1")];
    let answer = broker.ask("POST", path, &call(PAGE), &[0; 5]).await;
    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (200, Some(PAGE)));
    assert!(list(&answer, "access-control-expose-headers").iter().any(|h| h == "grpc-status"));
    assert!(String::from_utf8_lossy(&answer.body).contains("grpc-status:0"), "{answer:?}");
    let open = start(Mode::Serve { trust_loopback: false }, |config| config.raw.http.origins = vec![PAGE.into()]).await;
    assert!(said(&open.ask("POST", path, &call("https://evil.test"), &[0; 5]).await).is_empty());
}

#[tokio::test]
async fn a_strange_page_hears_nothing_of_cors() {
    // Nobody is trusted by address here: the request is judged by its credential, and the browser keeps the answer from the page.
    let open = start(Mode::Serve { trust_loopback: false }, |config| config.raw.http.origins = vec![PAGE.into()]).await;
    let trusting = trusting().await;
    for origin in ["https://evil.test", "null", "http://console.test", "https://console.test:444", "https://console.test.evil.test", "https://xconsole.test"] {
        for (broker, status) in [(&open, 200), (&trusting, 403)] {
            let answer = broker.ask("GET", "/v1", &[("Origin", origin)], b"").await;
            assert_eq!((answer.status, said(&answer).len(), answer.header("vary")), (status, 0, Some("origin")), "{origin}");
        }
        let question = [("Origin", origin), ("Access-Control-Request-Method", "DELETE")];
        let answer = open.ask("OPTIONS", "/v1/streams", &question, b"").await;
        assert_eq!((answer.status, said(&answer).len()), (405, 0), "{origin}");
        assert_eq!(trusting.ask("OPTIONS", "/v1/streams", &question, b"").await.status, 403, "{origin}");
    }
    let twice = open.ask("GET", "/v1", &[("Origin", PAGE), ("Origin", PAGE)], b"").await;
    assert!(said(&twice).is_empty(), "two origins are none");
}

#[tokio::test]
async fn options_without_the_question_of_a_preflight_is_a_method_that_does_not_exist() {
    let broker = trusting().await;
    for headers in [&[][..], &[("Origin", PAGE)]] {
        let answer = broker.ask("OPTIONS", "/v1/streams", headers, b"").await;
        assert_eq!((answer.status, answer.code().as_str(), answer.header("allow")), (405, "method_not_found", Some("GET,HEAD,POST")));
    }
}

#[tokio::test]
async fn every_answer_says_that_its_type_is_meant_and_that_it_depends_on_the_origin() {
    let broker = trusting().await;
    for path in ["/", "/v1", "/v1/streams/none", "/livez", "/metrics", "/v1/connect"] {
        let answer = broker.get(path).await;
        assert_eq!((answer.header("x-content-type-options"), answer.header("vary")), (Some("nosniff"), Some("origin")), "{path}");
        assert_eq!(answer.header("content-security-policy"), Some("default-src 'none'; frame-ancestors 'none'"), "{path}");
        assert_eq!(answer.header("referrer-policy"), Some("no-referrer"), "{path}");
        assert!(said(&answer).is_empty(), "{path}");
    }
}
