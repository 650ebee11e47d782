//! Events across faces: what is pushed here is heard elsewhere, what is appended elsewhere is pulled here; and sizes.

use serde_json::{Value, json};
use tidelog::broker::{Principal, TrimTo};
use tidelog::types::limits;

use crate::support::dev;
use crate::world::{World, body, example, failed, fault, good};

const APPEND: &str = "/v1/streams/Example/events";

#[tokio::test]
async fn what_is_pushed_is_an_ordinary_event_for_a_websocket_and_for_rest() {
    let world = World::on(dev().await).await;
    let mut reader = world.broker.ws("/v1/connect").await.greeted().await;
    assert_eq!(reader.ask(r#"{"t":"subscribe","sub":1,"stream":"Example","from":"earliest"}"#).await["t"], "subscribed");
    let text = "hällo \"Welt\"\n\u{1f30a}";
    assert_eq!(world.push(text).await, 0);
    let events = loop {
        let frame = reader.json().await;
        if frame["t"] == "events" {
            break frame["events"].clone();
        }
    };
    assert_eq!((&events[0]["offset"], &events[0]["data"], &events[0]["encoding"]), (&json!(0), &json!(text), &json!("utf8")), "{events}");
    let author = json!({"user_id": world.user, "source_id": world.source});
    assert_eq!(events[0]["author"], author, "{events}");
    let over_rest = world.broker.get(&format!("{APPEND}/0")).await.metadata();
    assert_eq!((&over_rest["data"], &over_rest["author"]), (&json!(text), &author));
}

#[tokio::test]
async fn what_is_appended_elsewhere_is_pulled_as_text() {
    let world = World::on(dev().await).await;
    let events =
        r#"{"events":[{"data":{"total": 12}},{"data":"a \"string\""},{"data":"text","encoding":"utf8"},{"data":"AP8=","encoding":"base64"},{"data":null}]}"#;
    assert_eq!(world.broker.post(APPEND, events).await.status, 201);
    let range = world.with_key(&format!("/Stream/{}/Pull/0/-1", world.stream)).await;
    let messages: Vec<&Value> = range["Events"].as_array().unwrap().iter().map(|event| &event["Message"]).collect();
    assert_eq!(messages, [&json!("{\"total\": 12}"), &json!("a \"string\""), &json!("text"), &json!("AP8="), &json!("null")]);
    assert_eq!((&range["Events"][0]["AuthorId"], &range["Events"][0]["AuthorName"]), (&json!(1), &json!("operator")));
}

#[tokio::test]
async fn a_range_of_any_size_comes_whole_and_in_order() {
    let world = World::on(dev().await).await;
    let count = 2 * limits::READ_DEFAULT_EVENTS + 345;
    let lines: String = (0..count).map(|n| format!("{n}\n")).collect();
    let appended = world.broker.ask("POST", &format!("{APPEND}?lines=data"), &[("Content-Type", "application/x-ndjson")], lines.as_bytes()).await;
    assert_eq!(appended.status, 201);
    world.push("last").await;
    let answer = world.broker.get(&format!("/Stream/{}/Pull/1/-1?Key={}", world.stream, world.key)).await;
    let events = good(&answer)["Events"].as_array().unwrap().clone();
    assert_eq!(events.len(), count);
    for (event, id) in events.iter().zip(1..) {
        assert_eq!(event["Id"], json!(id));
        assert_eq!(event["Message"], if id == count { json!("last") } else { json!(id.to_string()) });
    }
    assert_eq!(events[count - 1]["AuthorName"], "alice", "each event has its own author");
    assert_eq!(body(&answer)["Success"], true);
}

#[tokio::test]
async fn after_a_trim_counts_and_ends_are_those_of_what_is_kept() {
    let world = World::new().await;
    for n in 0..5 {
        world.push(&n.to_string()).await;
    }
    world.rules().trim_stream(&Principal::Operator, &example(), TrimTo::Offset(3)).await.unwrap();
    let (stream, key) = (world.stream, [("Key", world.key.as_str())]);
    let info = json!({"Stream": {"Id": stream, "Name": "Example", "Count": 2, "LastEventId": 4}});
    assert_eq!(world.with_key(&format!("/Stream/{stream}")).await, info);
    assert_eq!(world.with_key(&format!("/Stream/{stream}/Pull/-2")).await["Event"]["Id"], json!(3));
    for (path, names) in [
        ("Pull/2", &["EventId"][..]),
        ("Pull/-3", &["EventId"]),
        ("Pull/2/4", &["FromEventId"]),
        ("Pull/3/5", &["ToEventId"]),
        ("Pull/0/1", &["FromEventId", "ToEventId"]),
    ] {
        assert_eq!(world.bad(&format!("/Stream/{stream}/{path}"), &key).await, fault(400, "BadArgument", names), "{path}");
    }
    world.rules().trim_stream(&Principal::Operator, &example(), TrimTo::Offset(5)).await.unwrap();
    assert_eq!(world.bad(&format!("/Stream/{stream}/Pull/Random"), &key).await, fault(404, "EmptyStream", &[]));
    assert_eq!(world.with_key(&format!("/Stream/{stream}")).await["Stream"]["LastEventId"], json!(4));
}

#[tokio::test]
async fn a_message_has_the_size_of_an_event_and_not_one_byte_more() {
    let world = World::new().await;
    let path = format!("/Stream/{}/Push", world.stream);
    let push = async |message: String| {
        let body = json!({"Key": world.key, "Message": message}).to_string();
        world.broker.ask("POST", &path, &[], body.as_bytes()).await
    };
    // Escapes make it six times as long on its way.
    good(&push("\u{1}".repeat(limits::EVENT_MAX_BYTES)).await);
    let too_large = fault(400, "BadArgument", &["Message"]);
    assert_eq!(failed(&push("m".repeat(limits::EVENT_MAX_BYTES + 1)).await), too_large);
    assert_eq!(failed(&push("m".repeat(limits::MESSAGE_MAX_BYTES)).await), too_large);
    assert_eq!(world.with_key(&format!("/Stream/{}", world.stream)).await["Stream"]["Count"], json!(1));
}
