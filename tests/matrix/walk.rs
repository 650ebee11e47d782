//! The walk: every row, as every kind of caller, with every right.

use std::collections::BTreeMap;
use std::sync::Arc;

use tidelog::types::{Action, Right};

use crate::ask::Heard;
use crate::calls::NOT_ASKED;
use crate::people::{Kind, Person, Town};
use crate::table::{Class, Face, Needs, Row, rows};

const RIGHTS: [Right; 5] = [Right::None, Right::ReadOnly, Right::WriteOnly, Right::ReadWrite, Right::Admin];

/// Calls that the operator on the socket has no use for: it is somebody already, and has no session to end.
const WITHOUT_A_GOOD_ANSWER: [&str; 3] = ["auth", "DELETE /v1/sessions/current", "Access/CloseSession"];

/// What an answer to this row says about the caller.
fn class(row: &Row, heard: &Heard) -> Class {
    let right = |text: &Option<String>| text.as_deref().and_then(Right::parse);
    let action = |right| [Action::Read, Action::Write, Action::Admin].into_iter().find(|action| action.right() == right);
    match heard.code.as_deref() {
        Some("unauthenticated") => Class::Unauthenticated,
        Some("user_key_forbidden") => Class::KeyForbidden,
        Some("not_found") if row.on_a_stream() => Class::Hidden,
        Some("access_denied") => match (right(&heard.required).and_then(action), right(&heard.effective)) {
            (Some(action), Some(effective)) => Class::TooLittle(action, effective),
            _ => Class::Denied,
        },
        _ => Class::Passed,
    }
}

/// What is wrong with the answer that the caller got, if something is.
fn judge(row: &Row, person: &Person, right: Right, heard: &Heard) -> Option<String> {
    let found = class(row, heard);
    let told = |why: &str| Some(format!("{} as {:?} with {right}: {why}; heard {heard:?}", row.call, person.kind));
    if !row.built && person.kind != Kind::Anonymous && matches!(heard.code.as_deref(), Some("not_implemented" | "unknown_route" | "method_not_found")) {
        return None;
    }
    // A route that does not exist is said before credentials are asked for.
    if !row.built && matches!(heard.code.as_deref(), Some("unknown_route" | "method_not_found")) {
        return None;
    }
    let expected = row.expected(person.kind, right);
    // A person at the console is asked for first, also where it must be the operator's.
    let for_nobody = row.needs == Needs::Operator && found == Class::KeyForbidden && expected == Class::Denied;
    if found != expected && !for_nobody {
        return told(&format!("expected {expected:?}, not {found:?}"));
    }
    // The operator's calls are good, or the others' refusals would say nothing about them.
    const BAD: [&str; 8] = [
        "bad_parameter",
        "json_parsing_failed",
        "unknown_field",
        "unknown_route",
        "method_not_found",
        "not_implemented",
        "command_validation_failed",
        "expecting_content_type_json",
    ];
    if row.built
        && !WITHOUT_A_GOOD_ANSWER.contains(&row.call.as_str())
        && person.kind == Kind::Operator
        && heard.code.as_deref().is_some_and(|code| BAD.contains(&code))
    {
        return told("the test asks it badly");
    }
    None
}

#[tokio::test(flavor = "multi_thread")]
async fn every_call_is_answered_as_the_table_says_whoever_calls_with_whatever_right() {
    let (town, rows) = (Arc::new(Town::open().await), Arc::new(rows()));
    let mut walks = Vec::new();
    for person in town.people.clone() {
        let (town, rows) = (town.clone(), rows.clone());
        walks.push(tokio::spawn(async move {
            let (mut wrong, mut seen) = (Vec::new(), BTreeMap::new());
            let (mut grpc, mut used) = (person.grpc().await, false);
            for row in rows.iter().filter(|row| NOT_ASKED.iter().all(|(call, _)| row.call != *call) && (row.built || row.face == Face::Rest)) {
                // A connection that asks nothing for long is told to go.
                if row.face == Face::Grpc && !std::mem::replace(&mut used, true) {
                    grpc = person.grpc().await;
                }
                for right in RIGHTS {
                    let stream = town.stage(person.kind, right).await;
                    for heard in town.ask(&person, &mut grpc, row, &stream).await {
                        *seen.entry(format!("{:?}", class(row, &heard)).split('(').next().unwrap_or_default().to_owned()).or_insert(0u32) += 1;
                        wrong.extend(judge(row, &person, right, &heard));
                    }
                }
            }
            (person.kind, seen, wrong)
        }));
    }
    let mut all = Vec::new();
    for walk in walks {
        let (kind, seen, wrong) = walk.await.expect("a walk ends");
        eprintln!("{kind:?}: {seen:?}");
        all.extend(wrong);
    }
    assert!(all.is_empty(), "{} answers are not those of docs/access.md:\n{}", all.len(), all.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn auth_is_how_a_stranger_on_a_websocket_becomes_somebody() {
    let town = Town::open().await;
    let stream = town.stage(Kind::UserKey, Right::ReadOnly).await;
    let key = town.person(Kind::UserKey).token.clone().expect("a key");
    let mut line = town.person(Kind::Anonymous).socket("/v1/connect").await;
    line.say(&format!(r#"{{"t":"auth","key":"{key}"}}"#)).await;
    let heard = line.ask(&[format!(r#"{{"t":"subscribe","sub":1,"stream":"{stream}"}}"#)], "subscribed").await;
    assert_eq!(heard.code, None, "{heard:?}");
    let heard = line.ask(&[format!(r#"{{"t":"append","req":1,"stream":"{stream}","events":[{{"data":1}}]}}"#)], "appended").await;
    assert_eq!((heard.code.as_deref(), heard.required.as_deref(), heard.effective.as_deref()), (Some("access_denied"), Some("WriteOnly"), Some("ReadOnly")));
}

/// A matrix that nothing can violate shows nothing.
#[test]
fn an_answer_that_is_too_kind_or_too_hard_is_noticed() {
    let row = |call: &str| rows().into_iter().find(|row| row.call == call).expect("a row");
    let person = |kind| Person { kind, door: crate::people::Door::Unix(Default::default()), token: None };
    let said = |code: &str| Heard { code: Some(code.into()), ..Heard::default() };
    let read = row("GET /v1/streams/{stream}/events");
    assert!(judge(&read, &person(Kind::Console), Right::None, &Heard::default()).is_some(), "a hidden stream is shown");
    assert!(judge(&read, &person(Kind::Console), Right::None, &said("access_denied")).is_some(), "403 tells that it exists");
    assert!(judge(&read, &person(Kind::Console), Right::ReadOnly, &said("not_found")).is_some());
    assert!(judge(&read, &person(Kind::Anonymous), Right::None, &said("not_found")).is_some());
    assert!(judge(&read, &person(Kind::Operator), Right::None, &said("bad_parameter")).is_some());
    let delete = row("DELETE /v1/streams/{stream}");
    assert!(judge(&delete, &person(Kind::UserKey), Right::Admin, &Heard::default()).is_some());
    assert!(judge(&delete, &person(Kind::UserKey), Right::Admin, &said("user_key_forbidden")).is_none());
}
