//! The stream `$audit`: each act and what is told of it are one commit, nothing else gets in, and it is a stream like any other.

use serde_json::{Value, json};
use tidelog::log::rows;
use tidelog::types::name::AUDIT;
use tidelog::types::{Right, UserName};

use crate::support::*;

fn user(text: &str) -> UserName {
    UserName::parse(text).expect("a name")
}

async fn new_user(bench: &Bench, text: &str, root: bool) {
    let new = NewUser { name: user(text), password: Some("correct horse".into()), root };
    soon(bench.broker.create_user(&OPERATOR, new)).await.expect("a user");
}

async fn logged_in(bench: &Bench, text: &str) -> Principal {
    let login = soon(bench.broker.log_in(text, "correct horse")).await.expect("a session");
    soon(bench.broker.authenticate(&login.token)).await.expect("it is good")
}

/// All that was told, after a look that offsets are dense and data is JSON.
async fn told(bench: &Bench) -> Vec<Value> {
    bench.texts(AUDIT).await.iter().map(|text| serde_json::from_str(text).expect("JSON")).collect()
}

fn actions(told: &[Value]) -> Vec<&str> {
    told.iter().map(|event| event["action"].as_str().expect("an action")).collect()
}

#[tokio::test]
async fn each_act_is_told_once_with_who_from_where_and_what() {
    let bench = Bench::with_stream("s").await;
    new_user(&bench, "alice", true).await;
    let alice = logged_in(&bench, "alice").await;
    bench.fill("s", 4).await;
    bench.subscribe_new("s", "r").await;
    let (broker, stream) = (&bench.broker, name("s"));
    let (made, source_key) = broker.create_source(&alice, NewSource { name: "x".into(), description: String::new(), owner: None }).await.unwrap();
    broker
        .open_producer(&alice, OpenProducerRequest { stream: Some(stream.clone()), producer: producer("p"), stream_id: None, expect: Expect::Any })
        .await
        .unwrap();
    let begun = told(&bench).await.len();
    let origin = Whence { address: Some("192.0.2.7:4711".parse().unwrap()), request: "r-1".into() };
    let acts = async {
        let changed = SourceChange { name: Some("y\"\u{2028}".into()), disabled: Some(true), ..Default::default() };
        broker.change_source(&alice, made.id, changed).await.unwrap();
        let (_, rotated) = broker.rotate_source(&alice, made.id).await.unwrap();
        let (key, secret) = broker.create_key(&alice, "ci").await.unwrap();
        broker.set_right(&alice, &stream, &PrincipalRef::Source(made.id), Right::ReadOnly).await.unwrap();
        broker.seek(&alice, &stream, &sub("r"), Start::Offset(3)).await.unwrap();
        let rewind = SubscribeRequest { rewind: true, from: Some(Start::Earliest), ..SubscribeRequest::new(stream.clone(), Some(sub("r"))) };
        drop(broker.open_session(&alice, rewind).await.unwrap());
        broker.trim_stream(&alice, &stream, TrimTo::Offset(2)).await.unwrap();
        broker.delete_producer(&alice, Some(&stream), &producer("p")).await.unwrap();
        broker.delete_subscription(&alice, &stream, &sub("r")).await.unwrap();
        broker.close_stream(&alice, &stream).await.unwrap();
        broker.close_stream(&alice, &stream).await.unwrap(); // it was closed: nothing is done
        let deletion = broker.delete_stream(&alice, &stream).await.unwrap();
        broker.delete_source(&alice, made.id).await.unwrap();
        broker.delete_key(&alice, "ci").await.unwrap();
        broker.create_user(&alice, NewUser { name: user("bob"), password: None, root: false }).await.unwrap();
        broker.change_user(&alice, &user("bob"), UserChange { disabled: Some(true), ..Default::default() }).await.unwrap();
        broker.delete_user(&alice, &user("bob")).await.unwrap();
        broker.log_out(&alice).await.unwrap();
        ([source_key.clone(), rotated, secret], key.id, deletion.id.to_string())
    };
    let (secrets, key, deletion) = soon(calling_from(origin, acts)).await;
    let all = told(&bench).await;
    let told = &all[begun..];
    let (on, of) = ("/v1/streams/s", format!("/v1/sources/{}", made.id));
    let sources_keys = |text: &str| text[..16].to_owned();
    let expected = [
        ("source-changed", of.as_str(), json!({"owner_id": 2, "old": {"name": "x", "disabled": false}, "new": {"name": "y\"\u{2028}", "disabled": true}})),
        ("source-key-rotated", of.as_str(), json!({"owner_id": 2, "old": sources_keys(&secrets[0]), "new": sources_keys(&secrets[1])})),
        ("key-created", "/v1/keys/ci", json!({"user_id": 2, "key": key})),
        ("right-set", &format!("{on}/rights/source:{}", made.id), json!({"stream_id": 1, "user_id": 2, "old": "None", "new": "ReadOnly"})),
        ("cursor-moved", "/v1/streams/s/subscriptions/r", json!({"stream_id": 1, "subscription_id": 1, "old": 0, "new": 3, "epoch": 1})),
        ("cursor-moved", "/v1/streams/s/subscriptions/r", json!({"stream_id": 1, "subscription_id": 1, "old": 3, "new": 0, "epoch": 2})),
        ("stream-trimmed", on, json!({"stream_id": 1, "old": 0, "new": 2})),
        ("producer-deleted", "/v1/streams/s/producers/p", json!({"stream_id": 1, "epoch": 1})),
        ("subscription-deleted", "/v1/streams/s/subscriptions/r", json!({"stream_id": 1, "subscription_id": 1, "next": 0, "epoch": 2})),
        ("stream-closed", on, json!({"stream_id": 1, "next_offset": 4})),
        ("stream-deleted", on, json!({"stream_id": 1, "next_offset": 4, "operation": deletion})),
        ("source-deleted", of.as_str(), json!({"name": "y\"\u{2028}", "owner_id": 2, "key": sources_keys(&secrets[1])})),
        ("key-deleted", "/v1/keys/ci", json!({"user_id": 2, "key": key})),
        ("user-created", "/v1/users/bob", json!({"user_id": 3, "root": false, "password": false})),
        (
            "user-changed",
            "/v1/users/bob",
            json!({
                "user_id": 3, "old": {"root": false, "disabled": false}, "new": {"root": false, "disabled": true}, "new_password": false,
            }),
        ),
        ("user-deleted", "/v1/users/bob", json!({"user_id": 3})),
    ];
    assert_eq!(actions(told), expected.iter().map(|(action, ..)| *action).chain(["session-closed"]).collect::<Vec<_>>());
    for (event, (action, source, context)) in told.iter().zip(&expected) {
        assert_eq!((&event["source"], &event["context"]), (&json!(source), context), "{action}");
    }
    for event in told {
        let who = &event["requestor"];
        let known = (&who["kind"], &who["user_id"], &who["user"], &who["source_id"], &who["address"], &event["request_id"]);
        assert_eq!(known, (&json!("console"), &json!(2), &json!("alice"), &Value::Null, &json!("192.0.2.7:4711"), &json!("r-1")), "{event}");
        assert!(who["key"].as_str().is_some_and(|key| key.starts_with("tlc_") && key.len() == 16), "{event}");
    }
    let whole = bench.texts(AUDIT).await.concat();
    for secret in secrets.iter().map(|secret| &secret[16..]).chain(["correct horse", "argon2"]) {
        assert!(!whole.contains(secret), "a secret was told");
    }
    assert!(!whole.contains('\u{2028}'), "what a reader would not see is escaped");
    assert_eq!(actions(&all[..begun]), ["user-created", "session-opened", "source-created"]);
    let opened = &all[1];
    assert_eq!(
        (&opened["requestor"]["user"], &opened["requestor"]["kind"], &opened["requestor"]["address"]),
        (&json!("alice"), &json!("password"), &Value::Null)
    );
}

#[tokio::test]
async fn a_broker_wide_producer_that_is_deleted_is_told_of() {
    let bench = Bench::new().await;
    let open = OpenProducerRequest { stream: None, producer: producer("p"), stream_id: None, expect: Expect::Any };
    soon(bench.broker.open_producer(&OPERATOR, open)).await.unwrap();
    soon(bench.broker.delete_producer(&OPERATOR, None, &producer("p"))).await.unwrap();
    let told = told(&bench).await;
    assert_eq!((actions(&told), &told[0]["source"]), (vec!["producer-deleted"], &json!("/v1/producers/p")));
    assert_eq!((&told[0]["requestor"]["user"], &told[0]["requestor"]["kind"]), (&json!("operator"), &json!("operator")));
}

#[tokio::test]
async fn an_act_and_what_is_told_of_it_are_one_commit_and_a_crash_keeps_both_or_neither() {
    let bench = Bench::with_stream("s").await;
    bench.fill("s", 3).await;
    let before = bench.engine.commits();
    bench.engine.take_seen();
    bench.trim("s", 1).await;
    assert_eq!(bench.engine.commits(), before + 1);
    let seen = bench.engine.take_seen();
    assert_eq!((seen.len(), seen[0].appends), (1, 1), "the event is in the commit of the trim: {seen:?}");
    assert_eq!((bench.describe("s").await.first_offset, told(&bench).await.len()), (1, 1));
    // Dead on its way to the disk: neither.
    bench.engine.stop();
    let broker = bench.broker.clone();
    let trimming = tokio::spawn(async move { broker.trim_stream(&OPERATOR, &name("s"), TrimTo::Offset(2)).await });
    bench.engine.waiting().await;
    let bench = bench.crash().await;
    trimming.abort();
    assert_eq!((bench.describe("s").await.first_offset, told(&bench).await.len()), (1, 1));
    // Dead after it: both.
    bench.trim("s", 2).await;
    let bench = bench.crash().await;
    assert_eq!((bench.describe("s").await.first_offset, told(&bench).await.len()), (2, 2));
    // Refused: neither, and the next one follows without a hole.
    bench.engine.refuse_next(EngineError::Full("the test's".into()));
    assert!(soon(bench.broker.trim_stream(&OPERATOR, &name("s"), TrimTo::Offset(3))).await.is_err());
    assert_eq!((bench.describe("s").await.first_offset, told(&bench).await.len()), (2, 2));
    bench.trim("s", 3).await;
    assert_eq!((bench.describe("s").await.first_offset, told(&bench).await.len()), (3, 3));
}

#[tokio::test]
async fn c14_a_seek_and_what_the_audit_says_of_it_are_one_commit() {
    let bench = Bench::with_stream("s").await;
    bench.fill("s", 3).await;
    bench.subscribe_new("s", "r").await;
    bench.engine.take_seen();
    soon(bench.broker.seek(&OPERATOR, &name("s"), &sub("r"), Start::Offset(2))).await.unwrap();
    let seen = bench.engine.take_seen();
    assert!(seen.len() == 1 && seen[0].appends == 1 && seen[0].state.contains(&2), "{seen:?}");
    let bench = bench.crash().await;
    let told = told(&bench).await;
    assert_eq!((bench.subscription("s", "r").await.next, &told[0]["context"]["old"], &told[0]["context"]["new"]), (2, &json!(0), &json!(2)));
}

#[tokio::test]
async fn many_acts_with_nothing_kept_in_memory_are_told_densely_and_over_restarts() {
    let mut bench = Bench::with(cramped()).await;
    for round in 0..3 {
        for n in 0..10 {
            new_user(&bench, &format!("u{round}-{n}"), false).await;
        }
        bench = if round == 0 { bench.restart().await } else { bench.crash().await };
    }
    let names: Vec<String> = told(&bench).await.iter().map(|event| event["source"].as_str().unwrap().to_owned()).collect();
    let expected: Vec<String> = (0..3).flat_map(|round| (0..10).map(move |n| format!("/v1/users/u{round}-{n}"))).collect();
    assert_eq!(names, expected);
}

#[tokio::test]
async fn only_root_reads_it_and_for_others_it_is_not_there() {
    let bench = Bench::new().await;
    new_user(&bench, "alice", false).await;
    new_user(&bench, "ruth", true).await;
    let (alice, ruth) = (logged_in(&bench, "alice").await, logged_in(&bench, "ruth").await);
    let source = soon(bench.broker.create_source(&ruth, NewSource { name: "x".into(), description: String::new(), owner: None })).await.unwrap();
    let of_ruth = soon(bench.broker.authenticate(&source.1)).await.unwrap();
    let key = soon(bench.broker.create_key(&ruth, "ci")).await.unwrap();
    let with_key = soon(bench.broker.authenticate(&key.1)).await.unwrap();
    let read = async |who: &Principal, stream: &str| {
        let request = ReadRequest { from: ReadFrom::At(Start::Earliest), limit: 10, wait: std::time::Duration::ZERO };
        soon(bench.broker.read(who, &name(stream), request)).await
    };
    for who in [&OPERATOR, &ruth, &with_key] {
        assert!(read(who, AUDIT).await.unwrap().next_offset > 3);
        read(who, "$Audit").await.unwrap();
    }
    for who in [&alice, &of_ruth] {
        let hidden = read(who, AUDIT).await.unwrap_err();
        let missing = read(who, "absent").await.unwrap_err();
        assert_eq!((hidden.code, hidden.message.replace(AUDIT, "absent")), (Code::NotFound, missing.message.clone()));
        refused(soon(bench.broker.create_subscription(who, &name(AUDIT), new_subscription("r"))).await, Code::NotFound, "");
        refused(soon(bench.broker.open_session(who, SubscribeRequest::new(name(AUDIT), None))).await.map(drop), Code::NotFound, "");
        refused(soon(bench.broker.stream(who, &name(AUDIT))).await, Code::NotFound, "");
        refused(soon(bench.broker.append(who, plain(AUDIT, &["forged"]))).await, Code::NotFound, "");
    }
    // Nobody can be let in.
    for principal in [PrincipalRef::User(user("alice")), PrincipalRef::Source(source.0.id)] {
        refused(soon(bench.broker.set_right(&OPERATOR, &name(AUDIT), &principal, Right::ReadOnly)).await, Code::AccessDenied, "");
    }
    refused(read(&alice, AUDIT).await.map(drop), Code::NotFound, "");
    assert!(soon(bench.broker.streams(&OPERATOR, ListQuery::default())).await.unwrap().items.is_empty(), "lists are of streams that somebody made");
}

#[tokio::test]
async fn nobody_writes_closes_deletes_or_makes_it_and_its_id_is_nobody_elses() {
    let bench = Bench::new().await;
    let audit = name(AUDIT);
    assert_eq!((bench.describe(AUDIT).await.next_offset, bench.create("s").await.id), (0, StreamId(1)), "it is there from the start, and takes no id");
    bench.close("s").await;
    refused(bench.append(plain(AUDIT, &["forged"])).await, Code::AccessDenied, "");
    refused(answer(bench.connect().append(plain(AUDIT, &["forged"]))).await, Code::AccessDenied, "");
    let open = OpenProducerRequest { stream: Some(audit.clone()), producer: producer("p"), stream_id: None, expect: Expect::Any };
    refused(soon(bench.broker.open_producer(&OPERATOR, open)).await, Code::AccessDenied, "");
    let commit = CommitRequest {
        producer: None,
        acks: Vec::new(),
        appends: vec![CommitAppend { stream: audit.clone(), stream_id: None, events: events(&["forged"]), expected_next_offset: None }],
        checks: Vec::new(),
    };
    refused(soon(bench.broker.commit(&OPERATOR, commit)).await, Code::AccessDenied, "");
    refused(soon(bench.broker.close_stream(&OPERATOR, &audit)).await, Code::AccessDenied, "");
    refused(soon(bench.broker.delete_stream(&OPERATOR, &audit)).await, Code::AccessDenied, "");
    refused(soon(bench.broker.create_stream(&OPERATOR, NewStream::named(audit.clone()))).await, Code::BadParameter, "");
    let told = told(&bench).await;
    assert_eq!(actions(&told), ["stream-closed"], "what is refused is not told of as done");
    assert_eq!((bench.describe(AUDIT).await.id.0, bench.describe(AUDIT).await.owner_name), (limits::INTEGER_MAX, "operator".into()));
}

#[tokio::test]
async fn the_operator_trims_it_and_that_is_told_of_too() {
    let bench = Bench::new().await;
    for n in 0..5 {
        new_user(&bench, &format!("u{n}"), false).await;
    }
    assert_eq!(bench.trim(AUDIT, 5).await.first_offset, 5);
    let bench = bench.crash().await;
    let told = told(&bench).await;
    assert_eq!((actions(&told), &told[0]["context"]["old"], &told[0]["context"]["new"]), (vec!["stream-trimmed"], &json!(0), &json!(5)));
    assert_eq!(bench.log(AUDIT).await[0].0, 5, "the event of a trim is behind it");
}

#[tokio::test]
async fn a_subscription_to_it_is_durable_even_before_anything_was_told() {
    let bench = Bench::new().await;
    bench.subscribe_new(AUDIT, "watch").await;
    let bench = bench.crash().await;
    new_user(&bench, "u", false).await;
    let (_, mut session) =
        soon(bench.broker.open_session(&OPERATOR, SubscribeRequest::new(name(AUDIT), Some(sub("watch"))))).await.expect("the subscription is there");
    let Delivery::Events { slices, .. } = soon(session.next()).await.expect("a delivery") else { panic!("events") };
    assert!(texts_of(&slices[0])[0].1.contains("user-created"));
}

#[tokio::test]
async fn what_is_refused_at_the_door_is_told_without_what_was_typed() {
    let bench = Bench::new().await;
    new_user(&bench, "alice", false).await;
    for (name, password) in [("alice", "hunter2hunter2"), ("hunter2hunter2", "alice")] {
        refused(soon(bench.broker.log_in(name, password)).await.map(drop), Code::Unauthenticated, "");
    }
    let alice = logged_in(&bench, "alice").await;
    let (key, secret) = soon(bench.broker.create_key(&alice, "ci")).await.unwrap();
    soon(bench.broker.delete_key(&alice, "ci")).await.unwrap();
    for shown in [secret.as_str(), "hunter2hunter2", "tlu_hunter2hunter2hunter2hunter2hunter2hunter2h"] {
        refused(soon(bench.broker.authenticate(shown)).await.map(drop), Code::Unauthenticated, "");
    }
    refused(soon(bench.broker.certificate("nobody")).await.map(drop), Code::Unauthenticated, "");
    // They are told beside the answer; what is asked after them comes after them.
    new_user(&bench, "bob", false).await;
    let all = told(&bench).await;
    let refusals: Vec<Value> = all
        .iter()
        .filter(|event| ["login-failed", "credential-refused"].contains(&event["action"].as_str().unwrap()))
        .map(|event| json!([event["action"], event["requestor"]["kind"], event["requestor"]["user"], event["requestor"]["key"]]))
        .collect();
    let expected = [
        json!(["login-failed", "password", "alice", null]),
        json!(["login-failed", "password", null, null]),
        json!(["credential-refused", "credential", null, key.id]),
        json!(["credential-refused", "credential", null, null]),
        json!(["credential-refused", "credential", null, null]),
        json!(["credential-refused", "certificate", null, null]),
    ];
    assert_eq!(refusals, expected);
    assert!(!bench.texts(AUDIT).await.concat().contains("hunter2"));
}

#[tokio::test]
async fn refusals_are_told_a_bounded_number_of_times_and_then_as_a_number() {
    let bench = Bench::new().await;
    let most = u64::from(limits::AUDITED_REFUSALS_PER_MINUTE);
    for _ in 0..most + 40 {
        assert!(soon(bench.broker.authenticate("tlu_x")).await.is_err());
    }
    let bench = bench.restart().await;
    let all = told(&bench).await;
    let last = all.last().expect("something was told");
    assert_eq!((all.len() as u64, &last["action"], &last["context"]["count"]), (most + 1, &json!("refusals-omitted"), &json!(40)));
    assert_eq!(last["requestor"]["kind"], "broker");
}

#[tokio::test]
async fn a_raised_log_epoch_is_told_of_once() {
    let bench = Bench::with_stream("s").await;
    let raise = |row: &[u8]| {
        let counters: rows::value::Counters = rows::decode(row).expect("counters");
        rows::encode(&rows::value::Counters { log_epoch: counters.log_epoch + 1, ..counters })
    };
    let bench = bench.crash_and(|memory| memory.change_row(Key::Counters, raise)).await;
    let bench = bench.restart().await;
    let bench = bench.crash().await;
    let told = told(&bench).await;
    assert_eq!((actions(&told), &told[0]["context"]), (vec!["log-epoch-raised"], &json!({"old": 1, "new": 2})));
}

#[tokio::test]
async fn a_reload_is_told_of_from_outside() {
    let bench = Bench::new().await;
    soon(bench.broker.audit("configuration-reloaded", json!({"files": ["cert.pem"]}))).await.unwrap();
    let told = told(&bench).await;
    assert_eq!(
        (actions(&told), &told[0]["context"], &told[0]["requestor"]["kind"]),
        (vec!["configuration-reloaded"], &json!({"files": ["cert.pem"]}), &json!("broker"))
    );
    let huge = json!({"text": "x".repeat(limits::EVENT_MAX_BYTES)});
    refused(soon(bench.broker.audit("configuration-reloaded", huge)).await, Code::TooLarge, "");
}
