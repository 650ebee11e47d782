//! ETag and 304 where data cannot change: single events.

use crate::support::dev;

#[tokio::test]
async fn an_event_has_a_tag_by_which_it_is_not_sent_twice() {
    let broker = dev().await;
    broker.fill("s", 0..3).await;
    let first = broker.get("/v1/streams/s/events/1").await;
    let tag = first.header("etag").expect("a tag").to_owned();
    assert!(tag.starts_with('"') && tag.ends_with('"'), "a strong tag: {tag}");
    assert_eq!(first.header("cache-control"), Some("private, no-cache"));
    for known in [tag.clone(), format!("W/{tag}"), "*".to_owned(), format!("\"a\", {tag}")] {
        for method in ["GET", "HEAD"] {
            let answer = broker.ask(method, "/v1/streams/s/events/1", &[("If-None-Match", &known)], b"").await;
            assert_eq!((answer.status, answer.body.len(), answer.header("etag")), (304, 0, Some(tag.as_str())), "{method} {known}");
            assert_eq!((answer.header("cache-control"), answer.header("content-type")), (Some("private, no-cache"), None));
            assert!(answer.header("x-request-id").is_some() && answer.header("vary").is_some());
        }
    }
    for other in ["\"a\"", "", &tag.replace('"', "")] {
        assert_eq!(broker.ask("GET", "/v1/streams/s/events/1", &[("If-None-Match", other)], b"").await.status, 200, "{other}");
    }
}

#[tokio::test]
async fn a_place_in_words_has_the_tag_of_the_event_it_means() {
    let broker = dev().await;
    broker.fill("s", 0..3).await;
    let mut tags = Vec::new();
    for offset in 0..3 {
        tags.push(broker.get(&format!("/v1/streams/s/events/{offset}")).await.header("etag").expect("a tag").to_owned());
    }
    assert!(tags[0] != tags[1] && tags[1] != tags[2]);
    for (word, offset) in [("first", 0), ("last", 2), ("-1", 2), ("-3", 0)] {
        assert_eq!(broker.get(&format!("/v1/streams/s/events/{word}")).await.header("etag"), Some(tags[offset].as_str()), "{word}");
    }
    let random = broker.get("/v1/streams/s/events/random").await;
    assert_eq!(random.header("etag"), Some(tags[random.metadata()["offset"].as_u64().unwrap() as usize].as_str()));
    // `last` moves on: the old tag is not the new event's.
    broker.fill("s", 3..4).await;
    assert_eq!(broker.ask("GET", "/v1/streams/s/events/last", &[("If-None-Match", &tags[2])], b"").await.status, 200);
}

#[tokio::test]
async fn a_tag_says_nothing_about_events_of_another_stream_or_those_that_are_gone() {
    let broker = dev().await;
    broker.fill("a", 0..2).await;
    broker.fill("b", 0..2).await;
    let tag = broker.get("/v1/streams/a/events/1").await.header("etag").expect("a tag").to_owned();
    assert_eq!(broker.ask("GET", "/v1/streams/b/events/1", &[("If-None-Match", &tag)], b"").await.status, 200);
    assert_eq!(broker.post("/v1/streams/a/trim", r#"{"before_offset":2}"#).await.status, 200);
    assert_eq!(broker.ask("GET", "/v1/streams/a/events/1", &[("If-None-Match", &tag)], b"").await.code(), "offset_trimmed");
}

#[tokio::test]
async fn what_can_change_has_no_tag() {
    let broker = dev().await;
    broker.fill("s", 0..3).await;
    assert_eq!(broker.post("/v1/streams/s/subscriptions", r#"{"name":"billing"}"#).await.status, 201);
    for path in ["/v1", "/v1/streams", "/v1/streams/s/events", "/v1/streams/s/subscriptions/billing", "/livez"] {
        assert_eq!(broker.get(path).await.header("etag"), None, "{path}");
    }
}
