//! What is taken away is gone within a second, also from what is open: readers, append sessions, long polls, pulls, event streams and calls.
//! Others, who lost nothing, go on.

use std::time::{Duration, Instant};

use bytes::Bytes;
use prost::Message as _;
use tidelog::broker::{NewSource, NewUser, PrincipalRef, SourceChange, UserChange};
use tidelog::types::request::AppendRequest;
use tidelog::types::{Right, StreamName};
use tidelog::wire::proto::v1;
use tokio::io::AsyncReadExt as _;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tonic::codec::Streaming;

use crate::ask::{Heard, Io, Line};
use crate::grpc_client;
use crate::people::{Kind, OPERATOR, PASSWORD, Person, Town, events, user};

/// A second, and two for a machine that compiles beside the tests.
const SOON: Duration = Duration::from_secs(3);

/// Something open that hears of a stream.
enum Open {
    Reader(Line),
    Appends(Line, StreamName),
    LongPoll(JoinHandle<Heard>),
    Pull(JoinHandle<Heard>),
    EventStream(Box<dyn Io>),
    Call(Streaming<Bytes>),
    Connect(mpsc::UnboundedSender<Bytes>, Streaming<Bytes>),
}

const KINDS: [&str; 8] = ["reader", "append session", "long poll", "pull", "event stream", "Subscribe", "Connect", "Read"];

async fn open(kind: &str, person: &Person, stream: &StreamName) -> Open {
    let name = stream.to_string();
    match kind {
        "reader" => {
            let mut line = person.socket("/v1/connect").await;
            let heard = line.ask(&[format!(r#"{{"t":"subscribe","sub":1,"stream":"{name}","subscription":"sub","from":"latest"}}"#)], "live").await;
            assert_eq!(heard.code, None, "{heard:?}");
            Open::Reader(line)
        }
        "append session" => {
            let mut line = person.socket("/v1/connect").await;
            let heard = line.ask(&[format!(r#"{{"t":"append","req":1,"stream":"{name}","events":[{{"data":1}}]}}"#)], "appended").await;
            assert_eq!(heard.code, None, "{heard:?}");
            Open::Appends(line, stream.clone())
        }
        "long poll" => {
            let person = person.clone();
            Open::LongPoll(tokio::spawn(async move { person.rest("GET", &format!("/v1/streams/{name}/events?from=latest&wait=15"), None, "").await }))
        }
        "pull" => {
            let (person, path) = (person.clone(), format!("/v1/streams/{name}/subscriptions/sub/pull"));
            Open::Pull(tokio::spawn(async move { person.rest("POST", &path, None, r#"{"from":"latest","wait_s":15}"#).await }))
        }
        "event stream" => {
            let (heard, io) = person.begin("GET", &format!("/v1/streams/{name}/events"), Some("text/event-stream"), "").await;
            assert_eq!(heard.code, None, "{heard:?}");
            Open::EventStream(io)
        }
        "Subscribe" => {
            let message = v1::Subscribe { stream: name, ..Default::default() }.encode_to_vec();
            let mut answers = person.grpc().await.streaming("/tidelog.v1.Broker/Subscribe", person.call(message)).await.expect("a call");
            grpc_client::frame(&mut answers).await;
            Open::Call(answers)
        }
        "Read" => {
            let message = v1::ReadRequest { stream: name, follow: true, ..Default::default() }.encode_to_vec();
            let mut answers = person.grpc().await.streaming("/tidelog.v1.Broker/Read", person.call(message)).await.expect("a call");
            grpc_client::next(&mut answers).await.expect("a page");
            Open::Call(answers)
        }
        "Connect" => {
            let (say, mut heard) = person.grpc().await.both("/tidelog.v1.Broker/Connect", person.metadata()).await.expect("a call");
            let subscribe = v1::Subscribe { sub: 1, stream: name, credit: Some(v1::Credit { events: 100, bytes: 10_000 }), ..Default::default() };
            say.send(v1::ClientFrame { frame: Some(v1::client_frame::Frame::Subscribe(subscribe)) }.encode_to_vec().into()).expect("the call goes on");
            while !matches!(grpc_client::frame(&mut heard).await, v1::server_frame::Frame::Live(_)) {}
            Open::Connect(say, heard)
        }
        other => panic!("what is {other}?"),
    }
}

impl Open {
    /// With which code it ends. An append session is asked to append.
    async fn ends(self) -> String {
        let code = |heard: Heard| heard.code.unwrap_or_else(|| panic!("it goes on: {}", heard.text));
        match self {
            Self::Reader(mut line) => loop {
                let frame = line.json().await;
                if frame["t"] == "error" {
                    return code(Heard::refused_frame(&frame));
                }
            },
            Self::Appends(mut line, stream) => {
                // The connection may be gone already, and has said why.
                let text = format!(r#"{{"t":"append","req":2,"stream":"{stream}","events":[{{"data":1}}]}}"#);
                line.try_say(&text).await;
                code(line.hear().await)
            }
            Self::LongPoll(poll) | Self::Pull(poll) => code(poll.await.expect("an answer")),
            Self::EventStream(mut io) => {
                let mut text = Vec::new();
                let _ = io.read_to_end(&mut text).await;
                let text = String::from_utf8_lossy(&text).into_owned();
                let at = text.rfind(r#""code":""#).unwrap_or_else(|| panic!("no reason in {text}"));
                text[at..].split('"').nth(3).expect("a code").to_owned()
            }
            Self::Call(mut answers) => loop {
                if let Err(status) = grpc_client::next(&mut answers).await {
                    return grpc_client::code(&status);
                }
            },
            Self::Connect(_say, mut heard) => loop {
                match grpc_client::next(&mut heard).await {
                    Err(status) => return grpc_client::code(&status),
                    Ok(bytes) => {
                        if let Some(v1::server_frame::Frame::Error(error)) = v1::ServerFrame::decode(bytes.expect("no end yet")).expect("a frame").frame {
                            return error.code;
                        }
                    }
                }
            },
        }
    }

    /// It hears of an event that was appended meanwhile, or may append.
    async fn goes_on(self) {
        match self {
            Self::Reader(mut line) => while line.json().await["t"] != "events" {},
            Self::Appends(mut line, stream) => {
                let heard = line.ask(&[format!(r#"{{"t":"append","req":2,"stream":"{stream}","events":[{{"data":1}}]}}"#)], "appended").await;
                assert_eq!(heard.code, None, "{heard:?}");
            }
            Self::LongPoll(poll) | Self::Pull(poll) => {
                let heard = poll.await.expect("an answer");
                assert!(heard.code.is_none() && heard.text.contains(r#""offset":"#), "{heard:?}");
            }
            Self::EventStream(mut io) => {
                let mut text = Vec::new();
                while !String::from_utf8_lossy(&text).contains("data: {\"offset\"") && !String::from_utf8_lossy(&text).contains("data:{\"offset\"") {
                    assert!(io.read_buf(&mut text).await.expect("the stream goes on") > 0, "it ended: {}", String::from_utf8_lossy(&text));
                }
            }
            Self::Call(mut answers) => drop(grpc_client::next(&mut answers).await.expect("no status").expect("no end")),
            Self::Connect(_say, mut heard) => while !matches!(grpc_client::frame(&mut heard).await, v1::server_frame::Frame::Events(_)) {},
        }
    }
}

/// What is taken away, and from whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Loss {
    Right,
    OwnersRight,
    Key,
    SourceDisabled,
    SourceKeyRotated,
    SourceDeleted,
    UserDisabled,
    OwnerDisabled,
    PasswordChanged,
}

impl Loss {
    const fn code(self) -> &'static str {
        match self {
            Self::Right | Self::OwnersRight => "not_found",
            Self::PasswordChanged => "session_expired",
            _ => "unauthenticated",
        }
    }
}

async fn lose(loss: Loss) -> Duration {
    let town = Town::open().await;
    let (broker, victim) = (&town.broker, user("victim"));
    broker.create_user(&OPERATOR, NewUser { name: victim.clone(), password: Some(PASSWORD.into()), root: false }).await.expect("a user");
    let session = broker.log_in("victim", PASSWORD).await.expect("a session").token;
    let principal = broker.authenticate(&session).await.expect("the victim");
    let (_, key) = broker.create_key(&principal, "program").await.expect("a key");
    let new = NewSource { name: "sensor".into(), description: String::new(), owner: None };
    let (source, source_key) = broker.create_source(&principal, new).await.expect("a source");
    let (kind, token) = match loss {
        Loss::PasswordChanged => (Kind::Console, session),
        Loss::Right | Loss::Key | Loss::UserDisabled => (Kind::UserKey, key),
        _ => (Kind::SourceKey, source_key),
    };
    let person = Person { kind, token: Some(token), ..town.person(Kind::UserKey).clone() };
    let grant = async |stream: &StreamName, right: Right| {
        broker.set_right(&OPERATOR, stream, &PrincipalRef::User(victim.clone()), right).await.expect("a right");
    };
    let (mut theirs, mut others, mut streams) = (Vec::new(), Vec::new(), Vec::new());
    for what in KINDS {
        let stream = town.stage(Kind::Operator, Right::None).await;
        grant(&stream, Right::ReadWrite).await;
        broker.set_right(&OPERATOR, &stream, &PrincipalRef::Source(source.id), Right::ReadWrite).await.expect("a right");
        theirs.push((what, open(what, &person, &stream).await));
        let other = town.stage(Kind::Console, Right::ReadWrite).await;
        others.push((what, open(what, town.person(Kind::Console), &other).await));
        streams.push((stream, other));
    }
    // Polls are on their way. One that has not arrived by then is refused at the door, which is right as well.
    tokio::time::sleep(Duration::from_millis(100)).await;
    let change = |change: UserChange| broker.change_user(&OPERATOR, &victim, change);
    let began = Instant::now();
    match loss {
        Loss::Right | Loss::OwnersRight => {
            for (stream, _) in &streams {
                grant(stream, Right::None).await;
            }
        }
        Loss::Key => broker.delete_key(&principal, "program").await.expect("it goes"),
        Loss::SourceDisabled => {
            drop(broker.change_source(&principal, source.id, SourceChange { disabled: Some(true), ..Default::default() }).await.expect("it is disabled"));
        }
        Loss::SourceKeyRotated => drop(broker.rotate_source(&principal, source.id).await.expect("a new key")),
        Loss::SourceDeleted => broker.delete_source(&principal, source.id).await.expect("it goes"),
        Loss::UserDisabled | Loss::OwnerDisabled => {
            drop(change(UserChange { disabled: Some(true), ..Default::default() }).await.expect("it is disabled"));
        }
        Loss::PasswordChanged => drop(change(UserChange { password: Some("another battery".into()), ..Default::default() }).await.expect("a new password")),
    }
    for (what, open) in theirs {
        let code = timeout(SOON, open.ends()).await.unwrap_or_else(|_| panic!("{loss:?}: the {what} goes on for {SOON:?}"));
        assert_eq!(code, loss.code(), "{loss:?}: {what}");
    }
    let took = began.elapsed();
    for (_, stream) in &streams {
        let append = AppendRequest { stream: stream.clone(), stream_id: None, events: events(1), producer: None, expected_next_offset: None };
        broker.append(&OPERATOR, append).await.expect("an append");
    }
    for (what, open) in others {
        timeout(crate::support::PATIENCE, open.goes_on()).await.unwrap_or_else(|_| panic!("{loss:?}: somebody else's {what} hears nothing any more"));
    }
    eprintln!("{loss:?}: all of {} ended within {took:?}", KINDS.len());
    took
}

#[tokio::test(flavor = "multi_thread")]
async fn a_right_that_is_removed_is_gone_from_what_is_open() {
    lose(Loss::Right).await;
    lose(Loss::OwnersRight).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_deleted_or_rotated_is_gone_from_what_is_open() {
    lose(Loss::Key).await;
    lose(Loss::SourceKeyRotated).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_is_disabled_or_deleted_is_gone_from_what_is_open() {
    lose(Loss::SourceDisabled).await;
    lose(Loss::SourceDeleted).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_that_is_disabled_is_gone_from_what_is_open_and_so_are_its_sources() {
    lose(Loss::UserDisabled).await;
    lose(Loss::OwnerDisabled).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_that_is_changed_ends_the_sessions_that_are_open() {
    lose(Loss::PasswordChanged).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_and_tickets_that_are_over_leave_the_store_and_keys_stay() {
    let town = Town::open().await;
    let key = town.person(Kind::UserKey).token.clone().expect("a key");
    let alice = town.broker.authenticate(&key).await.expect("a good key");
    let session = town.broker.log_in("alice", PASSWORD).await.expect("a session");
    let (ticket, expires) = town.broker.issue_ticket(&alice).await.expect("a ticket");
    town.broker.forget_tokens(expires).await.expect("they are forgotten");
    assert_eq!(town.broker.authenticate(&ticket).await.expect_err("it is gone").code, tidelog::types::Code::Unauthenticated);
    town.broker.authenticate(&session.token).await.expect("it is not over");
    town.broker.forget_tokens(session.expires).await.expect("they are forgotten");
    assert_eq!(town.broker.authenticate(&session.token).await.expect_err("it is gone").code, tidelog::types::Code::Unauthenticated);
    town.broker.authenticate(&key).await.expect("it has no end");
}
