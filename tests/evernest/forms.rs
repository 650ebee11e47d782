//! Placement, case, methods and bodies: the fixed rules, and the examples of the specification.

use std::sync::LazyLock;

use proptest::prelude::*;
use proptest::test_runner::Config;
use serde_json::json;
use tokio::runtime::Runtime;

use crate::support::{dev, exchange, raw};
use crate::world::{Put, World, body, failed, fault, good, query};

#[tokio::test]
async fn the_examples_of_the_specification_are_answered_as_they_stand_there() {
    let world = World::new().await;
    // Its stream has the id 123 and 5678 events; ours has fewer of both.
    let (stream, key) = (world.stream, &world.key);
    let text = "{\"MESSAGE\":\"hello\"}\n";
    let post = format!(
        "POST /stream/{stream}/PUSH?key={key} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n{text}",
        text.len()
    );
    assert_eq!(good(&raw(world.broker.tcp().await, post.as_bytes()).await), json!({"EventId": 0}));
    assert_eq!(world.with_key(&format!("/Stream/{stream}/Pull/0")).await["Event"]["Message"], json!("hello"));

    let answer = world.broker.get(&format!("/Stream/{stream}/Push")).await;
    assert_eq!(failed(&answer), fault(400, "MissingArgument", &["Key", "Message"]));
    assert_eq!(body(&answer)["Error"]["HelpMessage"], "Send Key and Message in the JSON body or as URL parameters.");

    let answer = world.broker.get(&format!("/Stream/{stream}/Pull/9/2?Key={key}")).await;
    assert_eq!(failed(&answer), fault(400, "BadArgument", &["FromEventId", "ToEventId"]));
    assert_eq!(body(&answer)["Error"]["HelpMessage"], "FromEventId must not be greater than ToEventId.");
}

#[tokio::test]
async fn fields_come_in_the_order_of_the_specification() {
    let world = World::new().await;
    world.push("m").await;
    let answer = world.ask("GET", &format!("/Stream/{}/Pull/0", world.stream), Put::Query, &[("Key", &world.key)]).await;
    let text = String::from_utf8(answer.body).unwrap();
    let fields = ["Success", "UtcTime", "Response", "Event", "Id", "Message", "Date", "ParentStreamId", "ParentStreamName", "AuthorId", "AuthorName"];
    let places: Vec<Option<usize>> = fields.iter().map(|field| text.find(&format!("\"{field}\":"))).collect();
    assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{text}");
}

#[tokio::test]
async fn other_methods_are_refused_whatever_the_path_says() {
    let world = World::new().await;
    for path in ["/Stream/1/Push?Key=k&Message=m", "/Stream/1/Foo", "/user"] {
        for method in ["PUT", "PATCH", "DELETE", "OPTIONS", "FOO"] {
            let answer = world.broker.ask(method, path, &[], b"{").await;
            assert_eq!(failed(&answer), fault(405, "BadRequest", &[]), "{method} {path}");
            assert_eq!(answer.header("allow"), Some("GET, POST"));
        }
        let head = world.broker.ask("HEAD", path, &[], b"").await;
        assert_eq!((head.status, head.header("allow"), head.body.len()), (405, Some("GET, POST"), 0));
    }
}

#[tokio::test]
async fn bodies_are_json_whatever_they_say_they_are() {
    let world = World::new().await;
    let (stream, key) = (world.stream, world.key.clone());
    let path = format!("/Stream/{stream}/Push?Key={key}");
    for content_type in ["application/json", "text/plain", "application/x-www-form-urlencoded", "application/grpc", "nonsense"] {
        for method in ["GET", "POST"] {
            let answer = world.broker.ask(method, &path, &[("Content-Type", content_type), ("Accept", "text/html")], br#"{"Message":"m"}"#).await;
            assert_eq!(answer.status, 200, "{method} {content_type}: {answer:?}");
        }
    }
    for empty in ["", " \r\n", "null", "{}"] {
        let answer = world.broker.ask("POST", &format!("{path}&Message=m"), &[], empty.as_bytes()).await;
        assert_eq!(answer.status, 200, "{empty:?}");
    }
    for bad in [&b"{"[..], b"[]", b"\"m\"", b"1", b"Message=m", b"{\"Message\":\"\xff\"}", b"{} {}", b"\xef\xbb\xbf{}"] {
        let answer = world.broker.ask("POST", &format!("{path}&Message=m"), &[], bad).await;
        assert_eq!(failed(&answer), fault(400, "BadRequest", &[]), "{bad:?}");
    }
    // What cannot be parsed comes before what is missing, and behind what does not exist.
    assert_eq!(failed(&world.broker.ask("POST", "/Stream", &[], b"{").await).1, "BadRequest");
    assert_eq!(failed(&world.broker.ask("POST", "/Stream/1/Foo", &[], b"{").await).1, "NotImplemented");
    for broken in ["Message=%f", "Message=%ff", "%zz=1"] {
        assert_eq!(failed(&world.broker.get(&format!("{path}&{broken}")).await), fault(400, "BadRequest", &[]), "{broken}");
    }
}

#[tokio::test]
async fn a_name_given_twice_counts_when_the_values_are_equal() {
    let world = World::new().await;
    let (stream, key) = (world.stream, world.key.clone());
    let push = |query: String, body: &'static str| {
        let path = format!("/Stream/{stream}/Push?{query}");
        let broker = &world.broker;
        async move { broker.ask("POST", &path, &[], body.as_bytes()).await }
    };
    let bad = |name: &str| fault(400, "BadArgument", &[name]);
    assert_eq!(push(format!("Key={key}&KEY={key}&message=m"), "").await.status, 200);
    assert_eq!(push(format!("Key={key}"), r#"{"message":"m","MESSAGE":"m"}"#).await.status, 200);
    assert_eq!(failed(&push(format!("Key={key}&message=a&Message=b"), "").await), bad("Message"));
    assert_eq!(failed(&push(format!("Key={key}&key=other&message=a"), "").await), bad("Key"));
    assert_eq!(failed(&push(format!("Key={key}"), r#"{"message":"m","MESSAGE":"n"}"#).await), bad("Message"));
    for wrong in [r#"{"Message":1}"#, r#"{"Message":{}}"#, r#"{"Message":["m"]}"#, r#"{"Message":true}"#, r#"{"Message":"\ud800"}"#] {
        assert_eq!(failed(&push(format!("Key={key}&Message=m"), wrong).await), bad("Message"), "{wrong}");
    }
    // The body beats the query, and `null` is nothing.
    good(&push(format!("Key={key}&Message=query"), r#"{"mEssage":"body"}"#).await);
    assert_eq!(world.with_key(&format!("/Stream/{stream}/Pull/-1")).await["Event"]["Message"], json!("body"));
    good(&push(format!("Key={key}&Message=query"), r#"{"Message":null,"Other":[1]}"#).await);
    assert_eq!(world.with_key(&format!("/Stream/{stream}/Pull/-1")).await["Event"]["Message"], json!("query"));
    good(&push(format!("Key={key}&Message="), "").await);
    assert_eq!(world.with_key(&format!("/Stream/{stream}/Pull/-1")).await["Event"]["Message"], json!(""));
    assert_eq!(failed(&push(format!("Key={key}"), r#"{"Message":null}"#).await), fault(400, "MissingArgument", &["Message"]));
}

#[tokio::test]
async fn leading_zeros_escapes_and_slashes_in_a_path_change_nothing() {
    let world = World::new().await;
    let (stream, key) = (world.stream, world.key.clone());
    world.push("m").await;
    for path in
        [format!("/Stream/000{stream}/Pull/00"), format!("/Stream/{stream}/Pull/0/"), format!("/%53tream/{stream}"), format!("/Stream/{stream}/P%75ll/-01")]
    {
        let answer = world.broker.get(&format!("{path}?Key={key}")).await;
        if path.starts_with("/%53") {
            assert_eq!(answer.code(), "unknown_route", "root words choose the face as they are written");
        } else {
            good(&answer);
        }
    }
}

#[tokio::test]
async fn a_page_of_a_foreign_origin_hears_no_and_in_these_words() {
    let broker = dev().await;
    let headers = [("Origin", "http://evil.example"), ("Content-Type", "text/plain")];
    let answer = exchange(broker.tcp().await, "POST", "/Stream/1/Push", &headers, b"{}").await;
    assert_eq!(failed(&answer), fault(400, "BadRequest", &[]));
}

#[tokio::test]
async fn bodies_on_their_way_from_one_address_have_their_bytes_and_give_them_back() {
    use tokio::io::AsyncWriteExt as _;
    let world = World::new().await;
    let path = format!("/Stream/{}/Push", world.stream);
    let small = json!({"Key": world.key, "Message": "m"}).to_string();
    let ask = async || world.broker.ask("POST", &path, &[], small.as_bytes()).await;
    let most = tidelog::types::limits::MESSAGE_MAX_BYTES;
    let mut held = Vec::new();
    for _ in 0..tidelog::types::limits::STRANGERS_BODY_BYTES_PER_ADDRESS / most {
        let mut tcp = world.broker.tcp().await;
        tcp.write_all(format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {most}\r\n\r\n").as_bytes()).await.unwrap();
        tcp.write_all(&vec![b' '; most - 1]).await.unwrap();
        held.push(tcp);
    }
    let until = async |status: u16| {
        for _ in 0..300 {
            let answer = ask().await;
            if answer.status == status {
                return answer;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        panic!("never {status}")
    };
    let refused = until(429).await;
    assert_eq!(failed(&refused), fault(429, "InternalError", &[]));
    assert_eq!(refused.header("retry-after"), Some("1"));
    good(&world.broker.ask_locally("POST", &path, &[], small.as_bytes()).await);
    drop(held);
    good(&until(200).await);
}

/// One broker for all cases.
static WORLD: LazyLock<(Runtime, World)> = LazyLock::new(|| {
    let runtime = Runtime::new().expect("a runtime");
    let world = runtime.block_on(async {
        let world = World::new().await;
        world.push("m").await;
        world
    });
    (runtime, world)
});

/// The words of `text` in other cases; braces are not touched.
fn cased(text: &str, upper: &[bool]) -> String {
    text.chars().zip(upper.iter().cycle()).map(|(c, up)| if *up { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() }).collect()
}

proptest! {
    #![proptest_config(Config { cases: 48, failure_persistence: None, ..Config::default() })]

    #[test]
    fn case_place_and_method_change_no_answer(index in 0usize..10, upper in proptest::collection::vec(any::<bool>(), 1..30), post: bool, in_body: bool, slash: bool) {
        let (runtime, world) = &*WORLD;
        let World { user, source, stream, key, user_key, .. } = world;
        let (kind, path) = [
            ("Key", format!("/Right/{stream}")),
            ("UserKey", format!("/Right/{source}/{stream}")),
            ("Key", "/Source".into()),
            ("UserKey", format!("/Source/{source}")),
            ("Key", format!("/Stream/{stream}")),
            ("Key", format!("/Stream/{stream}/Pull/0")),
            ("Key", format!("/Stream/{stream}/Pull/0/-1")),
            ("Key", format!("/Stream/{stream}/Pull/Random")),
            ("UserKey", "/User".into()),
            ("Key", format!("/User/{user}")),
        ][index].clone();
        let value = if kind == "Key" { key } else { user_key };
        let name = cased(kind, &upper);
        let (method, put) = (if post { "POST" } else { "GET" }, if in_body { Put::Body } else { Put::Query });
        let other = format!("{}{}", cased(&path, &upper), if slash { "/" } else { "" });
        runtime.block_on(async {
            let plain = good(&world.ask("GET", &path, Put::Query, &[(kind, value)]).await);
            let changed = good(&world.ask(method, &other, put, &[(&name, value)]).await);
            prop_assert_eq!(plain, changed, "{} {} with {} in the {:?}", method, other, name, put);
            // And so is every failure: the same call without its key.
            let plain = world.broker.get(&path).await;
            let changed = world.broker.ask(method, &format!("{other}?{}", query(&[("x", "y")])), &[], b"").await;
            if plain.status >= 400 {
                prop_assert_eq!(failed(&plain), failed(&changed));
            }
            Ok(())
        })?;
    }
}
