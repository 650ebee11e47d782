//! Each row of the table of routes: what it answers, and what it says when it cannot.

use serde_json::{Value, json};
use tidelog::broker::{NewStream, PrincipalRef, Right};
use tidelog::types::StreamName;

use crate::world::{Put, World, example, failed, fault, good, person};

/// Looks the operation up, as its user: it has ended well. To the user's source and to others it is hidden.
async fn is_operation(world: &World, guid: &Value, command: &str, stream: &str) {
    let path = format!("/v1/operations/{}", guid.as_str().expect("an id"));
    let with = async |key: &str| world.broker.ask("GET", &path, &[("Authorization", &format!("Bearer {key}"))], b"").await;
    let shown = with(&world.user_key).await;
    let body: Value = serde_json::from_slice(&shown.body).expect("JSON");
    let operation = &body["metadata"];
    assert_eq!((shown.status, &operation["id"], &operation["command"]), (200, guid, &json!(command)), "{body}");
    assert_eq!((&operation["status_code"], &operation["err"]), (&json!(200), &json!("")), "{body}");
    let streams = if stream.is_empty() { json!({}) } else { json!({"streams": [stream]}) };
    assert_eq!((&operation["resources"], &operation["requestor"]["username"]), (&streams, &json!("alice")));
    assert_eq!(with(&world.key).await.status, 404);
}

/// Asks by GET and POST, with the arguments in the query and in the body, and wants the same answer each time.
async fn everywhere(world: &World, path: &str, arguments: &[(&str, &str)]) -> Value {
    let mut heard = None;
    for (method, put) in [("GET", Put::Query), ("POST", Put::Query), ("GET", Put::Body), ("POST", Put::Body)] {
        let response = good(&world.ask(method, path, put, arguments).await);
        assert_eq!(*heard.get_or_insert_with(|| response.clone()), response, "{method} {path}, arguments in the {put:?}");
    }
    heard.expect("four answers")
}

#[tokio::test]
async fn reading_calls_answer_as_the_table_says_over_get_and_post() {
    let world = World::new().await;
    let World { user, source, stream, .. } = world;
    world.push("first").await;
    world.push("second").await;
    let (key, user_key) = ([("Key", world.key.as_str())], [("UserKey", world.user_key.as_str())]);

    assert_eq!(everywhere(&world, &format!("/Right/{stream}"), &key).await, json!({"Right": "ReadWrite"}));
    assert_eq!(everywhere(&world, &format!("/Right/{source}/{stream}"), &user_key).await, json!({"Right": "ReadWrite"}));

    let shown = json!({"Source": {
        "Key": world.key, "Name": "thermometer", "Id": source, "User": {"Id": user}, "Streams": [{"Id": stream, "Right": "ReadWrite"}],
    }});
    assert_eq!(everywhere(&world, "/Source", &key).await, shown);
    assert_eq!(everywhere(&world, &format!("/Source/{source}"), &user_key).await, shown);

    let info = json!({"Stream": {"Id": stream, "Name": "Example", "Count": 2, "LastEventId": 1}});
    assert_eq!(everywhere(&world, &format!("/Stream/{stream}"), &key).await, info);

    let one = everywhere(&world, &format!("/Stream/{stream}/Pull/0"), &key).await;
    let date = one["Event"]["Date"].as_str().expect("a date").to_owned();
    assert!(date.len() == 24 && date.ends_with('Z'), "{date}");
    let expected = json!({
        "Id": 0, "Message": "first", "Date": date, "ParentStreamId": stream, "ParentStreamName": "Example", "AuthorId": user, "AuthorName": "alice",
    });
    assert_eq!(one, json!({"Event": expected}));
    assert_eq!(everywhere(&world, &format!("/Stream/{stream}/Pull/-2"), &key).await, one);
    let range = everywhere(&world, &format!("/Stream/{stream}/Pull/0/-1"), &key).await;
    assert_eq!(range["Events"].as_array().map(Vec::len), Some(2));
    assert_eq!(range["Events"][0], one["Event"]);
    let random = world.with_key(&format!("/Stream/{stream}/Pull/Random")).await;
    assert!(["first", "second"].contains(&random["Event"]["Message"].as_str().unwrap()), "{random}");

    let own = json!({"User": {"Id": user, "Name": "alice", "Sources": [{"Id": source}], "Streams": [{"Id": stream}]}});
    assert_eq!(everywhere(&world, "/User", &user_key).await, own);
    assert_eq!(everywhere(&world, &format!("/User/{user}"), &[]).await, json!({"User": {"Id": user, "Name": "alice"}}));
    assert_eq!(everywhere(&world, "/User/1", &[]).await, json!({"User": {"Id": 1, "Name": "operator"}}));
}

#[tokio::test]
async fn changing_calls_change_over_get_and_post() {
    let world = World::new().await;
    let World { source, stream, .. } = world;
    for (method, put, number) in [("GET", Put::Query, 0), ("POST", Put::Query, 1), ("GET", Put::Body, 2), ("POST", Put::Body, 3)] {
        let how = format!("{method}, {put:?}");
        let arguments = [("Key", world.key.as_str()), ("Message", how.as_str())];
        assert_eq!(good(&world.ask(method, &format!("/Stream/{stream}/Push"), put, &arguments).await), json!({"EventId": number}), "{how}");
        assert_eq!(world.with_key(&format!("/Stream/{stream}/Pull/{number}")).await["Event"]["Message"], json!(how));

        let (word, shown) = [("none", "NoRight"), ("READONLY", "ReadOnly"), ("noRight", "NoRight"), ("Admin", "Admin")][number];
        let user_key = [("UserKey", world.user_key.as_str())];
        let set = good(&world.ask(method, &format!("/Right/{source}/{stream}/Set/{word}"), put, &user_key).await);
        is_operation(&world, &set["Guid"], "right.Set", "/v1/streams/Example").await;
        assert_eq!(world.with_key(&format!("/Right/{stream}")).await, json!({"Right": shown}));
        world.may(Right::ReadWrite).await;

        let name = format!("source {number}");
        let made = good(&world.ask(method, "/Source/New", put, &[user_key[0], ("SourceName", &name)]).await);
        is_operation(&world, &made["Guid"], "source.Create", "").await;
        let shown = world.good("/Source", &[("Key", made["Source"]["Key"].as_str().unwrap())]).await;
        assert_eq!((&shown["Source"]["Name"], &shown["Source"]["Id"]), (&json!(name), &made["Source"]["Id"]), "its key works at once");

        let name = format!("stream-{number}");
        let made = good(&world.ask(method, "/Stream/New", put, &[user_key[0], ("StreamName", &name)]).await);
        is_operation(&world, &made["Guid"], "stream.Create", &format!("/v1/streams/{name}")).await;
        assert_eq!(made["Stream"]["Name"], json!(name));
        let right = world.rules().stream_rights(&world.alice, PrincipalRef::parse("user:alice").unwrap()).await.unwrap();
        let id = made["Stream"]["Id"].as_u64().unwrap();
        assert!(right.iter().any(|(stream, right)| stream.0 == id && *right == Right::Admin), "its creator is Admin");
    }
    assert_eq!(world.with_key(&format!("/Stream/{stream}")).await["Stream"]["Count"], json!(4));
}

#[tokio::test]
async fn what_is_unknown_taken_or_out_of_range_is_named() {
    let world = World::new().await;
    let World { source, stream, .. } = world;
    let rules = world.rules();
    let (_, _, bobs_key) = person(rules, "bob").await;
    let empty = rules.create_stream(&world.alice, NewStream::named(StreamName::parse("empty").unwrap())).await.unwrap().id.0;
    let set = format!("/Right/{source}/{empty}/Set/ReadOnly");
    world.good(&set, &[("UserKey", &world.user_key)]).await;
    world.push("only").await;
    let (key, user_key, bobs) = ([("Key", world.key.as_str())], [("UserKey", world.user_key.as_str())], [("UserKey", bobs_key.as_str())]);
    let named = |name: &'static str, value: &'static str| [("UserKey", world.user_key.as_str()), (name, value)];
    let bad = |names: &[&str]| fault(400, "BadArgument", names);

    for (path, arguments, expected) in [
        ("/Right/999".to_owned(), &key[..], bad(&["StreamId"])),
        (format!("/Right/999/{stream}"), &user_key, bad(&["SourceId"])),
        (format!("/Right/{source}/{stream}"), &bobs, bad(&["SourceId"])),
        (format!("/Right/{source}/999"), &user_key, bad(&["StreamId"])),
        ("/Right/999/999".to_owned(), &user_key, bad(&["SourceId", "StreamId"])),
        (format!("/Right/{source}/{stream}/Set/Admin"), &bobs, bad(&["SourceId"])),
        (format!("/Right/{source}/999/Set/Admin"), &user_key, bad(&["StreamId"])),
        (format!("/Right/{source}/{stream}/Set/Owner"), &user_key, bad(&["Right"])),
        (format!("/Right/{source}/{stream}/Set"), &user_key, fault(400, "MissingArgument", &["Right"])),
        (format!("/Source/{source}"), &bobs, bad(&["SourceId"])),
        ("/Source/999".to_owned(), &user_key, bad(&["SourceId"])),
        ("/Source/New".to_owned(), &named("SourceName", "thermometer"), bad(&["SourceName"])),
        ("/Source/New".to_owned(), &named("SourceName", ""), bad(&["SourceName"])),
        ("/Stream/New".to_owned(), &named("StreamName", "eXaMpLe"), bad(&["StreamName"])),
        ("/Stream/New".to_owned(), &named("StreamName", "$audit"), bad(&["StreamName"])),
        ("/Stream/New".to_owned(), &named("StreamName", "\u{430}pple"), bad(&["StreamName"])),
        ("/Stream/999".to_owned(), &key, bad(&["StreamId"])),
        ("/Stream/999/Pull/0".to_owned(), &key, bad(&["StreamId"])),
        ("/Stream/999/Pull/Random".to_owned(), &key, bad(&["StreamId"])),
        ("/Stream/999/Push".to_owned(), &[key[0], ("Message", "m")], bad(&["StreamId"])),
        (format!("/Stream/{stream}/Pull/1"), &key, bad(&["EventId"])),
        (format!("/Stream/{stream}/Pull/-2"), &key, bad(&["EventId"])),
        (format!("/Stream/{stream}/Pull/x"), &key, bad(&["EventId"])),
        (format!("/Stream/{stream}/Pull/0/1"), &key, bad(&["ToEventId"])),
        (format!("/Stream/{stream}/Pull/-2/0"), &key, bad(&["FromEventId"])),
        (format!("/Stream/{stream}/Pull/5/-7"), &key, bad(&["FromEventId", "ToEventId"])),
        (format!("/Stream/{stream}/Pull/9/2"), &key, bad(&["FromEventId", "ToEventId"])),
        (format!("/Stream/{empty}/Pull/0"), &key, bad(&["EventId"])),
        (format!("/Stream/{empty}/Pull/0/0"), &key, bad(&["FromEventId", "ToEventId"])),
        (format!("/Stream/{empty}/Pull/Random"), &key, fault(404, "EmptyStream", &[])),
        ("/User/999".to_owned(), &[], bad(&["UserId"])),
        (format!("/Stream/{stream}/Foo"), &key, fault(501, "NotImplemented", &[])),
        ("/Source/New/More".to_owned(), &[], fault(501, "NotImplemented", &[])),
        ("/Stream".to_owned(), &[], fault(400, "MissingArgument", &["Key", "StreamId"])),
        (format!("/Stream/{stream}/Pull"), &[], fault(400, "MissingArgument", &["Key", "EventId"])),
        ("/Right".to_owned(), &key, fault(400, "MissingArgument", &["StreamId"])),
        ("/Source/New".to_owned(), &[], fault(400, "MissingArgument", &["UserKey", "SourceName"])),
    ] {
        assert_eq!(world.bad(&path, arguments).await, expected, "{path}");
    }
    assert_eq!(world.with_key(&format!("/Stream/{empty}")).await["Stream"]["LastEventId"], json!(-1));
}

#[tokio::test]
async fn each_call_needs_its_right_and_loses_it_at_once() {
    let world = World::new().await;
    let stream = world.stream;
    world.push("only").await;
    let key = [("Key", world.key.as_str())];
    let push = [key[0], ("Message", "m")];
    let reads =
        [format!("/Stream/{stream}"), format!("/Stream/{stream}/Pull/0"), format!("/Stream/{stream}/Pull/0/0"), format!("/Stream/{stream}/Pull/Random")];
    for (right, may_read, may_write) in [
        (Right::None, false, false),
        (Right::ReadOnly, true, false),
        (Right::WriteOnly, false, true),
        (Right::ReadWrite, true, true),
        (Right::Admin, true, true),
    ] {
        world.may(right).await;
        for path in &reads {
            let answer = world.ask("GET", path, Put::Query, &key).await;
            match may_read {
                true => drop(good(&answer)),
                false => assert_eq!(failed(&answer), fault(403, "ReadAccessDenied", &[]), "{right} {path}"),
            }
        }
        let answer = world.ask("POST", &format!("/Stream/{stream}/Push"), Put::Body, &push).await;
        match may_write {
            true => drop(good(&answer)),
            false => assert_eq!(failed(&answer), fault(403, "WriteAccessDenied", &[]), "{right}"),
        }
        // The existence comes first, and the right before the state.
        assert_eq!(world.bad("/Stream/999/Pull/77", &key).await, fault(400, "BadArgument", &["StreamId"]));
        if !may_read {
            assert_eq!(world.bad(&format!("/Stream/{stream}/Pull/77"), &key).await, fault(403, "ReadAccessDenied", &[]));
        }
    }
    // What its owner has not, a source has not either.
    let rules = world.rules();
    let (_, _, bobs_key) = person(rules, "bob").await;
    let made = world.good("/Source/New", &[("UserKey", &bobs_key), ("SourceName", "spy")]).await;
    let (spy, spys_key) = (made["Source"]["Id"].as_u64().unwrap(), made["Source"]["Key"].as_str().unwrap().to_owned());
    let (set, show) = (format!("/Right/{spy}/{stream}/Set/Admin"), format!("/Stream/{stream}"));
    let (bobs, spys) = ([("UserKey", bobs_key.as_str())], [("Key", spys_key.as_str())]);
    assert_eq!(world.bad(&set, &bobs).await, fault(400, "BadArgument", &["StreamId"]), "a stream that is hidden from him");
    let give = async |right| rules.set_right(&world.alice, &example(), &PrincipalRef::parse("user:bob").unwrap(), right).await.map(drop).unwrap();
    give(Right::ReadOnly).await;
    world.good(&set, &bobs).await;
    world.good(&show, &spys).await;
    let push = [spys[0], ("Message", "m")];
    assert_eq!(world.bad(&format!("{show}/Push"), &push).await, fault(403, "WriteAccessDenied", &[]), "no more than its owner has");
    give(Right::None).await;
    assert_eq!(world.bad(&show, &spys).await, fault(403, "ReadAccessDenied", &[]));
    assert_eq!(world.good(&format!("/Right/{stream}"), &spys).await, json!({"Right": "Admin"}), "its own setting stays");
    assert_eq!(world.good(&format!("/Right/{spy}/{stream}"), &bobs).await, json!({"Right": "Admin"}));
}

#[tokio::test]
async fn a_closed_stream_takes_nothing_and_a_deleted_one_is_not_there() {
    let world = World::new().await;
    let stream = world.stream;
    world.push("only").await;
    world.rules().close_stream(&world.alice, &example()).await.unwrap();
    let push = [("Key", world.key.as_str()), ("Message", "m")];
    assert_eq!(world.bad(&format!("/Stream/{stream}/Push"), &push).await, fault(403, "WriteAccessDenied", &[]));
    assert_eq!(world.with_key(&format!("/Stream/{stream}/Pull/-1")).await["Event"]["Message"], json!("only"));
    world.rules().delete_stream(&world.alice, &example()).await.unwrap();
    for path in [format!("/Stream/{stream}"), format!("/Stream/{stream}/Push"), format!("/Stream/{stream}/Pull/0"), format!("/Right/{stream}")] {
        assert_eq!(world.bad(&path, &push).await, fault(400, "BadArgument", &["StreamId"]), "{path}");
    }
}
