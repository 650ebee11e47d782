//! How each call of the table is asked, well enough that only the caller can be what is wrong with it.

use prost::Message as _;
use tidelog::broker::{NewSource, NewUser, Principal};
use tidelog::types::StreamName;
use tidelog::wire::proto::v1;

use crate::ask::{self, Heard};
use crate::grpc_client::Grpc;
use crate::people::{Kind, OPERATOR, PASSWORD, Person, Town, user};
use crate::table::{Face, Row};

/// Calls that are not asked here, and why.
pub const NOT_ASKED: [(&str, &str); 1] = [("GET /echo", "exists under `tidelog dev` only, where loopback callers are the operator; tests/api asks it")];

/// Some operation that nobody has begun.
const OPERATION: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

impl Town {
    /// Asks one call; `grpc` is the caller's connection. One refusal for each way to ask it.
    pub async fn ask(&self, person: &Person, grpc: &mut Grpc, row: &Row, stream: &StreamName) -> Vec<Heard> {
        match row.face {
            Face::Rest => self.rest(person, row, stream).await,
            Face::Frame => vec![frame(person, &row.call, stream).await],
            Face::Grpc => vec![self.grpc(person, grpc, &row.call, stream).await],
        }
    }

    async fn principal(&self, person: &Person) -> Principal {
        match (&person.token, person.kind) {
            (Some(token), _) => self.broker.authenticate(token).await.expect("a good credential"),
            (None, Kind::Certificate) => self.broker.certificate("alice").await.expect("alice"),
            _ => OPERATOR,
        }
    }

    async fn rest(&self, person: &Person, row: &Row, stream: &StreamName) -> Vec<Heard> {
        let (method, template) = row.call.split_once(' ').expect("a method and a path");
        let number = self.number();
        let mut path = template.replace("{stream}", stream.as_str()).replace("{subscription}", "sub").replace("{producer}", "p");
        path = path.replace("{offset}", "0").replace("{operation}", OPERATION).replace("{principal}", "user:other");
        if path.contains("{user}") {
            path = path.replace("{user}", &self.user_for(method, number).await);
        }
        if path.contains("{source}") {
            path = path.replace("{source}", &self.source_for(person, method, number).await.to_string());
        }
        if path.contains("{name}") {
            path = path.replace("{name}", &self.key_for(person, number).await);
        }
        let named = |what: &str| format!(r#"{{"name":"{what}-{number}"}}"#);
        let body = match (method, template.rsplit('/').next().unwrap_or_default()) {
            ("POST", "streams") => named("new"),
            ("POST", "users") => named("user"),
            ("POST", "sources") => named("source"),
            ("POST", "keys") => named("made"),
            ("POST", "subscriptions") => r#"{"name":"another"}"#.into(),
            ("POST", "producers") => r#"{"producer":"q"}"#.into(),
            ("POST", "events") => r#"{"events":[{"data":1}]}"#.into(),
            ("POST", "trim") => r#"{"before_offset":1}"#.into(),
            ("POST", "ack") => r#"{"epoch":1,"offset":0}"#.into(),
            ("POST", "commit") => format!(r#"{{"appends":[{{"stream":"{stream}","events":[{{"data":1}}]}}]}}"#),
            ("POST", "sessions") => format!(r#"{{"name":"alice","password":"{PASSWORD}"}}"#),
            ("PUT", "cursor") => r#"{"earliest":true}"#.into(),
            ("PUT", "{principal}") => r#"{"right":"ReadOnly"}"#.into(),
            ("POST" | "PUT" | "PATCH", _) => "{}".into(),
            _ => String::new(),
        };
        if template.ends_with("/connect") {
            return vec![self.upgrade(person, &path).await];
        }
        if template == "/v1/sessions/current" && method == "DELETE" {
            return vec![self.with_a_session(person).await.rest(method, &path, None, &body).await];
        }
        let mut heard = Vec::new();
        if !template.ends_with("{subscription}/events") {
            heard.push(person.rest(method, &path, None, &body).await);
        }
        if method == "GET" && template.ends_with("/events") {
            heard.push(person.rest(method, &path, Some("text/event-stream"), &body).await);
        }
        heard
    }

    /// Somebody to look at, or to delete.
    async fn user_for(&self, method: &str, number: u64) -> String {
        if method != "DELETE" {
            return "alice".into();
        }
        let name = format!("guest-{number}");
        self.broker.create_user(&OPERATOR, NewUser { name: user(&name), password: None, root: false }).await.expect("a user");
        name
    }

    /// A source that the caller may see: itself, or one of alice's.
    async fn source_for(&self, person: &Person, method: &str, number: u64) -> u64 {
        match person.kind {
            Kind::SourceKey => self.source,
            _ => {
                let name = format!("{method}-{number}");
                let new = NewSource { name, description: String::new(), owner: Some(user("alice")) };
                self.broker.create_source(&OPERATOR, new).await.expect("a source").0.id
            }
        }
    }

    /// `/v1/connect` answers a ping, that of a subscription opens its reader.
    async fn upgrade(&self, person: &Person, path: &str) -> Heard {
        let mut line = person.socket(path).await;
        if path == "/v1/connect" || person.kind == Kind::Anonymous {
            line.say(r#"{"t":"ping"}"#).await;
        }
        line.hear().await
    }

    async fn grpc(&self, person: &Person, grpc: &mut Grpc, call: &str, stream: &StreamName) -> Heard {
        if call == "Broker/Connect" {
            return ask::connect(grpc, person).await;
        }
        let number = self.number();
        if let Some((path, message)) = self.access(person, call, stream.as_str(), number).await {
            let person = if call == "Access/CloseSession" { self.with_a_session(person).await } else { person.clone() };
            return ask::call(grpc, &person, path, false, message).await;
        }
        let (path, many, message) = message(call, stream.as_str(), number).unwrap_or_else(|| panic!("say in calls.rs how {call} is asked"));
        ask::call(grpc, person, path, many, message).await
    }

    /// Somebody with a session of its own to end, where such a caller has sessions.
    async fn with_a_session(&self, person: &Person) -> Person {
        let name = match person.kind {
            Kind::Root => "admin",
            Kind::Console => "alice",
            _ => return person.clone(),
        };
        let token = self.broker.log_in(name, PASSWORD).await.expect("a session").token;
        Person { token: Some(token), ..person.clone() }
    }

    /// A user key of the caller's, where it has any.
    async fn key_for(&self, person: &Person, number: u64) -> String {
        let name = format!("key-{number}");
        if matches!(person.kind, Kind::Operator | Kind::Root | Kind::Console | Kind::Certificate) {
            self.broker.create_key(&self.principal(person).await, &name).await.expect("a key");
        }
        name
    }

    /// A call of service `Access`.
    async fn access(&self, person: &Person, call: &str, stream: &str, number: u64) -> Option<(&'static str, Vec<u8>)> {
        let (stream, principal) = (stream.to_owned(), "user:other".to_owned());
        let named = |what: &str| format!("{what}-{number}");
        Some(match call {
            "Access/ListUsers" => ("/tidelog.v1.Access/ListUsers", v1::ListUsersRequest::default().encode_to_vec()),
            "Access/CreateUser" => ("/tidelog.v1.Access/CreateUser", v1::CreateUserRequest { name: named("user"), ..Default::default() }.encode_to_vec()),
            "Access/GetUser" => ("/tidelog.v1.Access/GetUser", v1::GetUserRequest { name: "alice".into() }.encode_to_vec()),
            "Access/ChangeUser" => ("/tidelog.v1.Access/ChangeUser", v1::ChangeUserRequest { name: "alice".into(), ..Default::default() }.encode_to_vec()),
            "Access/DeleteUser" => {
                let name = self.user_for("DELETE", number).await;
                ("/tidelog.v1.Access/DeleteUser", v1::DeleteUserRequest { name }.encode_to_vec())
            }
            "Access/ListSources" => ("/tidelog.v1.Access/ListSources", v1::ListSourcesRequest::default().encode_to_vec()),
            "Access/CreateSource" => {
                ("/tidelog.v1.Access/CreateSource", v1::CreateSourceRequest { name: named("source"), ..Default::default() }.encode_to_vec())
            }
            "Access/GetSource" => {
                let id = self.source_for(person, "Get", number).await;
                ("/tidelog.v1.Access/GetSource", v1::GetSourceRequest { id }.encode_to_vec())
            }
            "Access/ChangeSource" => {
                let id = self.source_for(person, "Change", number).await;
                ("/tidelog.v1.Access/ChangeSource", v1::ChangeSourceRequest { id, ..Default::default() }.encode_to_vec())
            }
            "Access/RotateSource" => {
                let id = self.source_for(person, "Rotate", number).await;
                ("/tidelog.v1.Access/RotateSource", v1::RotateSourceRequest { id }.encode_to_vec())
            }
            "Access/DeleteSource" => {
                let id = self.source_for(person, "Delete", number).await;
                ("/tidelog.v1.Access/DeleteSource", v1::DeleteSourceRequest { id }.encode_to_vec())
            }
            "Access/ListKeys" => ("/tidelog.v1.Access/ListKeys", v1::ListKeysRequest::default().encode_to_vec()),
            "Access/CreateKey" => ("/tidelog.v1.Access/CreateKey", v1::CreateKeyRequest { name: named("made") }.encode_to_vec()),
            "Access/DeleteKey" => {
                let name = self.key_for(person, number).await;
                ("/tidelog.v1.Access/DeleteKey", v1::DeleteKeyRequest { name }.encode_to_vec())
            }
            "Access/ListRights" => ("/tidelog.v1.Access/ListRights", v1::ListRightsRequest { stream, ..Default::default() }.encode_to_vec()),
            "Access/GetRight" => ("/tidelog.v1.Access/GetRight", v1::GetRightRequest { stream, principal }.encode_to_vec()),
            "Access/SetRight" => ("/tidelog.v1.Access/SetRight", v1::SetRightRequest { stream, principal, right: "ReadOnly".into() }.encode_to_vec()),
            "Access/OpenSession" => {
                let message = v1::OpenSessionRequest { name: "alice".into(), password: PASSWORD.into() };
                ("/tidelog.v1.Access/OpenSession", message.encode_to_vec())
            }
            "Access/GetSession" => ("/tidelog.v1.Access/GetSession", v1::GetSessionRequest {}.encode_to_vec()),
            "Access/CloseSession" => ("/tidelog.v1.Access/CloseSession", v1::CloseSessionRequest {}.encode_to_vec()),
            "Access/CreateTicket" => ("/tidelog.v1.Access/CreateTicket", v1::CreateTicketRequest {}.encode_to_vec()),
            _ => return None,
        })
    }
}

/// A frame, and what has to come before it.
async fn frame(person: &Person, call: &str, stream: &StreamName) -> Heard {
    let event = r#""events":[{"data":1}]"#;
    let subscribe = format!(r#"{{"t":"subscribe","sub":1,"stream":"{stream}","subscription":"sub","credit":{{"events":10,"bytes":1000}}}}"#);
    let one = |text: String, answer: &'static str| (vec![text], answer);
    let (said, answer) = match call {
        "auth" if person.kind == Kind::Anonymous => return Heard::default(), // `auth_is_how_a_stranger_on_a_websocket_becomes_somebody`
        "auth" => one(r#"{"t":"auth","key":"tlu_x"}"#.into(), "error"),
        "ping" => one(r#"{"t":"ping"}"#.into(), "pong"),
        "subscribe" => one(subscribe, "subscribed"),
        "ack" => (vec![subscribe, r#"{"t":"ack","sub":1,"offset":0}"#.into()], "acked"),
        "credit" => (vec![subscribe, r#"{"t":"credit","sub":1,"events":1,"bytes":1}"#.into(), r#"{"t":"ping"}"#.into()], "pong"),
        "unsubscribe" => (vec![subscribe, r#"{"t":"unsubscribe","sub":1}"#.into()], "unsubscribed"),
        "open_producer" => one(format!(r#"{{"t":"open_producer","req":1,"stream":"{stream}","producer":"p"}}"#), "producer_opened"),
        "resume" => one(format!(r#"{{"t":"resume","req":1,"stream":"{stream}"}}"#), "resumed"),
        "append" => one(format!(r#"{{"t":"append","req":1,"stream":"{stream}",{event}}}"#), "appended"),
        "commit" => one(format!(r#"{{"t":"commit","req":1,"appends":[{{"stream":"{stream}",{event}}}]}}"#), "committed"),
        other => panic!("say in calls.rs how frame {other} is said"),
    };
    let mut line = person.socket("/v1/connect").await;
    if call == "ack" {
        // Nothing may be acknowledged that was not delivered.
        line.say(&said[0]).await;
        loop {
            let frame = line.json().await;
            match frame["t"].as_str() {
                Some("error") => return Heard::refused_frame(&frame),
                Some("events") => break,
                _ => {}
            }
        }
        return line.ask(&said[1..], answer).await;
    }
    line.ask(&said, answer).await
}

/// A call that is not `Connect`: path, many answers or one, the question.
fn message(call: &str, stream: &str, number: u64) -> Option<(&'static str, bool, Vec<u8>)> {
    let (name, id) = (stream.to_owned(), || Some(stream.to_owned()));
    let (sub, p) = (|| "sub".to_owned(), || "p".to_owned());
    let events = || Some(v1::Events { events: vec![v1::Event { data: b"1".to_vec().into(), ..Default::default() }] });
    let unary = |path, message| Some((path, false, message));
    match call {
        "Broker/Subscribe" => {
            Some(("/tidelog.v1.Broker/Subscribe", true, v1::Subscribe { stream: name, subscription: Some(sub()), ..Default::default() }.encode_to_vec()))
        }
        "Broker/Read" => Some(("/tidelog.v1.Broker/Read", true, v1::ReadRequest { stream: name, ..Default::default() }.encode_to_vec())),
        "Broker/Append" => unary("/tidelog.v1.Broker/Append", v1::Append { stream: name, events: events(), ..Default::default() }.encode_to_vec()),
        "Broker/Ack" => unary(
            "/tidelog.v1.Broker/Ack",
            v1::AckRequest { stream: name, subscription: sub(), epoch: Some(1), offset: Some(0), ..Default::default() }.encode_to_vec(),
        ),
        "Broker/OpenProducer" => {
            unary("/tidelog.v1.Broker/OpenProducer", v1::OpenProducer { stream: id(), producer: p(), ..Default::default() }.encode_to_vec())
        }
        "Broker/Commit" => {
            let append = v1::CommitAppend { stream: name, events: events(), ..Default::default() };
            unary("/tidelog.v1.Broker/Commit", v1::Commit { appends: vec![append], ..Default::default() }.encode_to_vec())
        }
        "Broker/Pull" => unary("/tidelog.v1.Broker/Pull", v1::PullRequest { stream: name, subscription: sub(), ..Default::default() }.encode_to_vec()),
        "Admin/CreateStream" => {
            unary("/tidelog.v1.Admin/CreateStream", v1::CreateStreamRequest { name: format!("new-{number}"), ..Default::default() }.encode_to_vec())
        }
        "Admin/GetStream" => unary("/tidelog.v1.Admin/GetStream", v1::GetStreamRequest { name }.encode_to_vec()),
        "Admin/ListStreams" => unary("/tidelog.v1.Admin/ListStreams", v1::ListStreamsRequest::default().encode_to_vec()),
        "Admin/TrimStream" => {
            let before = Some(v1::trim_stream_request::Before::BeforeOffset(1));
            unary("/tidelog.v1.Admin/TrimStream", v1::TrimStreamRequest { name, before }.encode_to_vec())
        }
        "Admin/CloseStream" => unary("/tidelog.v1.Admin/CloseStream", v1::CloseStreamRequest { name }.encode_to_vec()),
        "Admin/DeleteStream" => unary("/tidelog.v1.Admin/DeleteStream", v1::DeleteStreamRequest { name }.encode_to_vec()),
        "Admin/CreateSubscription" => unary(
            "/tidelog.v1.Admin/CreateSubscription",
            v1::CreateSubscriptionRequest { stream: name, name: "another".into(), ..Default::default() }.encode_to_vec(),
        ),
        "Admin/GetSubscription" => unary("/tidelog.v1.Admin/GetSubscription", v1::GetSubscriptionRequest { stream: name, name: sub() }.encode_to_vec()),
        "Admin/ListSubscriptions" => {
            unary("/tidelog.v1.Admin/ListSubscriptions", v1::ListSubscriptionsRequest { stream: name, ..Default::default() }.encode_to_vec())
        }
        "Admin/DeleteSubscription" => {
            unary("/tidelog.v1.Admin/DeleteSubscription", v1::DeleteSubscriptionRequest { stream: name, name: sub() }.encode_to_vec())
        }
        "Admin/SeekSubscription" => {
            let to = Some(v1::Start { start: Some(v1::start::Start::Place(v1::Place::Earliest as i32)) });
            unary("/tidelog.v1.Admin/SeekSubscription", v1::SeekSubscriptionRequest { stream: name, name: sub(), to }.encode_to_vec())
        }
        "Admin/GetProducer" => unary("/tidelog.v1.Admin/GetProducer", v1::GetProducerRequest { stream: id(), id: p() }.encode_to_vec()),
        "Admin/ListProducers" => unary("/tidelog.v1.Admin/ListProducers", v1::ListProducersRequest { stream: id(), ..Default::default() }.encode_to_vec()),
        "Admin/DeleteProducer" => unary("/tidelog.v1.Admin/DeleteProducer", v1::DeleteProducerRequest { stream: id(), id: p() }.encode_to_vec()),
        "Admin/GetOperation" => unary("/tidelog.v1.Admin/GetOperation", v1::GetOperationRequest { id: OPERATION.into() }.encode_to_vec()),
        "Admin/WaitOperation" => {
            unary("/tidelog.v1.Admin/WaitOperation", v1::WaitOperationRequest { id: OPERATION.into(), timeout_s: Some(0) }.encode_to_vec())
        }
        _ => None,
    }
}
