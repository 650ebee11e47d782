//! Which keys open what: two kinds that are never taken for each other, and nothing beside them.

use serde_json::json;
use tidelog::broker::{NewUser, Principal, Right, SourceChange, UserChange};
use tidelog::types::UserName;

use crate::world::{Put, World, failed, fault, good, person};

#[tokio::test]
async fn the_two_kinds_of_key_are_never_taken_for_each_other() {
    let world = World::new().await;
    let World { source, stream, key, user_key, .. } = &world;
    let bad = |name: &str| fault(400, "BadArgument", &[name]);
    let other = if key.ends_with('A') { 'B' } else { 'A' };
    let typing_error = format!("{}{other}", &key[..key.len() - 1]);
    for wrong in [user_key.as_str(), "", "x", "tls_", typing_error.as_str(), &key.to_ascii_lowercase(), &format!(" {key}"), &"k".repeat(5000)] {
        assert_eq!(failed(&world.ask("POST", &format!("/Stream/{stream}"), Put::Body, &[("Key", wrong)]).await), bad("Key"), "{wrong}");
    }
    for wrong in [key.as_str(), "", "tlu_x"] {
        assert_eq!(failed(&world.ask("POST", &format!("/Source/{source}"), Put::Body, &[("UserKey", wrong)]).await), bad("UserKey"), "{wrong}");
    }
    // The right kind under the wrong name is as good as none.
    assert_eq!(world.bad("/User", &[("Key", key)]).await, fault(400, "MissingArgument", &["UserKey"]));
    assert_eq!(world.bad("/Source", &[("UserKey", user_key)]).await, fault(400, "MissingArgument", &["Key"]));
    // What is malformed, or of another source, is told no better with a key than without.
    assert_eq!(world.bad("/Stream/x", &[("Key", "nonsense")]).await, bad("StreamId"), "malformed values come before the key");
}

#[tokio::test]
async fn sessions_tickets_and_headers_open_nothing_here() {
    let world = World::new().await;
    let stream = world.stream;
    let path = format!("/Stream/{stream}");
    let rules = world.rules();
    let new = NewUser { name: UserName::parse("carol").unwrap(), password: Some("a long password".into()), root: true };
    rules.create_user(&Principal::Operator, new).await.unwrap();
    let session = rules.log_in("carol", "a long password").await.unwrap().token;
    let (ticket, _) = rules.issue_ticket(&world.alice).await.unwrap();
    for token in [&session, &ticket] {
        assert_eq!(failed(&world.ask("GET", &path, Put::Query, &[("Key", token)]).await), fault(400, "BadArgument", &["Key"]));
        assert_eq!(failed(&world.ask("GET", "/User", Put::Query, &[("UserKey", token)]).await), fault(400, "BadArgument", &["UserKey"]));
    }
    rules.authenticate(&ticket).await.expect("the ticket was not used up");
    for key in [&world.key, &world.user_key] {
        let bearer = format!("Bearer {key}");
        let answer = world.broker.ask("GET", &path, &[("Authorization", &bearer)], b"").await;
        assert_eq!(failed(&answer), fault(400, "MissingArgument", &["Key"]), "an Authorization means nothing");
    }
    let locally = world.broker.ask_locally("GET", &path, &[], b"").await;
    assert_eq!(failed(&locally), fault(400, "MissingArgument", &["Key"]), "and the socket does not either");
    let broken = world.broker.ask("GET", &format!("{path}?Key={}", world.key), &[("Authorization", "Bearer nonsense")], b"").await;
    good(&broken);
}

#[tokio::test]
async fn a_disabled_or_rotated_source_and_a_disabled_user_are_unknown() {
    let world = World::new().await;
    let World { source, stream, key, user_key, .. } = &world;
    let path = format!("/Stream/{stream}");
    let bad_key = fault(400, "BadArgument", &["Key"]);
    let rules = world.rules();
    let change = |disabled| SourceChange { disabled: Some(disabled), ..SourceChange::default() };
    rules.change_source(&world.alice, *source, change(true)).await.unwrap();
    assert_eq!(failed(&world.ask("GET", &path, Put::Query, &[("Key", key)]).await), bad_key);
    world.good(&format!("/Source/{source}"), &[("UserKey", user_key)]).await;
    rules.change_source(&world.alice, *source, change(false)).await.unwrap();
    world.with_key(&path).await;

    let alice = UserName::parse("alice").unwrap();
    let change = |disabled| UserChange { disabled: Some(disabled), ..UserChange::default() };
    rules.change_user(&Principal::Operator, &alice, change(true)).await.unwrap();
    assert_eq!(failed(&world.ask("GET", &path, Put::Query, &[("Key", key)]).await), bad_key);
    assert_eq!(failed(&world.ask("GET", "/User", Put::Query, &[("UserKey", user_key)]).await), fault(400, "BadArgument", &["UserKey"]));
    rules.change_user(&Principal::Operator, &alice, change(false)).await.unwrap();

    let (_, new) = rules.rotate_source(&rules.certificate("alice").await.unwrap(), *source).await.unwrap();
    assert_eq!(failed(&world.ask("GET", &path, Put::Query, &[("Key", key)]).await), bad_key);
    assert_eq!(world.good("/Source", &[("Key", &new)]).await["Source"]["Key"], json!(new), "the new one is shown");
}

#[tokio::test]
async fn a_user_key_shows_and_changes_only_what_is_its_own() {
    let world = World::new().await;
    let (_, bob, bobs_key) = person(world.rules(), "bob").await;
    let made = world.good("/Source/New", &[("UserKey", &bobs_key), ("SourceName", "thermometer")]).await;
    assert!(made["Source"]["Id"].is_u64(), "names of sources are each user's own: {made}");
    let own = world.good("/User", &[("UserKey", &bobs_key)]).await;
    assert_eq!(own, json!({"User": {"Id": bob, "Name": "bob", "Sources": [{"Id": made["Source"]["Id"]}], "Streams": []}}));
    world.may(Right::ReadWrite).await;
}

#[tokio::test]
async fn who_guesses_has_few_guesses() {
    let world = World::new().await;
    let path = format!("/Stream/{}", world.stream);
    let mut last = None;
    for _ in 0..=tidelog::types::limits::FAILED_CREDENTIALS_PER_ADDRESS {
        last = Some(world.ask("GET", &path, Put::Query, &[("Key", "guess")]).await);
    }
    let last = last.unwrap();
    assert_eq!(failed(&last), fault(429, "InternalError", &[]));
    assert!(last.header("retry-after").is_some_and(|seconds| seconds.parse::<u64>().is_ok()), "{last:?}");
}
