//! Who may do what, over gRPC: the same as REST says, to the letter, and each face's credentials are good at the other.

use bytes::Bytes;
use prost::Message;
use serde_json::{Value, json};
use tidelog::types::{TimeUs, limits};
use tidelog::wire::proto::v1;
use tonic::{Code, Request, Status};

use crate::access::{As, console, key, operator};
use crate::grpc_client::{Grpc, code, error};
use crate::support::{Broker, serve};

/// The name of a method, in full.
macro_rules! at {
    ($method:literal) => {
        concat!("/tidelog.v1.Access/", $method)
    };
}

const PASSWORD: &str = "correct horse";

/// A caller: the operator on the socket, or somebody with a credential, or nobody.
struct By {
    grpc: Grpc,
    token: Option<String>,
}

impl By {
    async fn operator(broker: &Broker) -> Self {
        Self { grpc: Grpc::unix(broker.server.socket()).await, token: None }
    }

    async fn nobody(broker: &Broker) -> Self {
        Self { grpc: Grpc::tcp(broker.server.address()).await, token: None }
    }

    async fn key(broker: &Broker, token: impl Into<String>) -> Self {
        Self { token: Some(token.into()), ..Self::nobody(broker).await }
    }

    /// The same caller as one over REST.
    async fn of(who: &As<'_>) -> Self {
        match &who.1 {
            Some(token) => Self::key(who.0, token).await,
            None => Self::operator(who.0).await,
        }
    }

    /// The answer as bytes.
    async fn raw(&mut self, path: &'static str, question: &impl Message) -> Result<Bytes, Status> {
        let mut request = Request::new(Bytes::from(question.encode_to_vec()));
        if let Some(token) = &self.token {
            request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().expect("metadata"));
        }
        self.grpc.ask(path, request).await.map(tonic::Response::into_inner)
    }

    async fn ask<A: Message + Default>(&mut self, path: &'static str, question: &impl Message) -> Result<A, Status> {
        self.raw(path, question).await.map(|bytes| A::decode(bytes).expect("a good message"))
    }

    async fn good<A: Message + Default>(&mut self, path: &'static str, question: &impl Message) -> A {
        self.ask(path, question).await.unwrap_or_else(|status| panic!("{path}: {status:?}"))
    }
}

// What REST shows of what gRPC told.

fn time(us: Option<i64>) -> Value {
    us.map_or(Value::Null, |us| TimeUs(us).to_string().into())
}

fn user(m: &v1::User) -> Value {
    json!({"name": m.name, "root": m.root, "disabled": m.disabled, "id": m.id, "has_password": m.has_password, "created_at": time(m.created_us)})
}

fn source(m: &v1::Source) -> Value {
    json!({
        "name": m.name, "description": m.description, "disabled": m.disabled, "id": m.id, "owner_id": m.owner_id, "created_at": time(m.created_us),
    })
}

fn user_key(m: &v1::Key) -> Value {
    json!({"name": m.name, "id": m.id, "user_id": m.user_id, "created_at": time(m.created_us), "expires_at": time(m.expires_us)})
}

fn right(m: &v1::Right) -> Value {
    json!({"principal": m.principal, "right": m.right, "effective": m.effective})
}

fn caller(m: &v1::Caller) -> Value {
    json!({
        "kind": m.kind, "user": m.user.as_ref().map(user), "source": m.source.as_ref().map(source), "key": m.key, "expires_at": time(m.expires_us),
    })
}

fn session(name: &str, password: &str) -> v1::OpenSessionRequest {
    v1::OpenSessionRequest { name: name.into(), password: password.into() }
}

fn new_user(name: &str) -> v1::CreateUserRequest {
    v1::CreateUserRequest { name: name.into(), password: Some(PASSWORD.into()), root: false }
}

/// What REST shows, without the use of what is bounded, which gRPC does not show.
fn without_usage(mut object: Value) -> Value {
    object.as_object_mut().expect("an object").remove("usage");
    object
}

#[tokio::test]
async fn users_sources_keys_and_rights_are_the_same_over_both_faces() {
    let broker = serve().await;
    let (rest, mut grpc) = (operator(&broker), By::operator(&broker).await);

    let alice: v1::User = grpc.good(at!("CreateUser"), &new_user("alice")).await;
    assert_eq!((user(&alice), alice.has_password), (without_usage(rest.get("/v1/users/alice").await.metadata()), true));
    rest.made("POST", "/v1/users", json!({"name": "bob", "root": true})).await;
    let bob: v1::User = grpc.good(at!("GetUser"), &v1::GetUserRequest { name: "BOB".into() }).await;
    assert_eq!((user(&bob), bob.root), (without_usage(rest.get("/v1/users/bob").await.metadata()), true));
    let change = v1::ChangeUserRequest { name: "bob".into(), root: Some(false), disabled: Some(true), ..Default::default() };
    let bob: v1::User = grpc.good(at!("ChangeUser"), &change).await;
    assert_eq!((user(&bob), bob.root, bob.disabled), (without_usage(rest.get("/v1/users/bob").await.metadata()), false, true));
    let change = v1::ChangeUserRequest { name: "bob".into(), ..Default::default() };
    assert_eq!(grpc.good::<v1::User>(at!("ChangeUser"), &change).await, bob, "what is absent stays");
    let all: v1::ListUsersResponse = grpc.good(at!("ListUsers"), &v1::ListUsersRequest::default()).await;
    assert_eq!(Value::from(all.users.iter().map(user).collect::<Vec<_>>()), rest.get("/v1/users?recursion=1").await.metadata());
    assert_eq!(all.users.len(), 2);

    let new = v1::CreateSourceRequest { name: "till".into(), description: "in the shop".into(), owner: Some("alice".into()) };
    let made: v1::SourceWithKey = grpc.good(at!("CreateSource"), &new).await;
    let till = made.source.expect("a source");
    let path = format!("/v1/sources/{}", till.id);
    assert_eq!((source(&till), till.owner_id), (rest.get(&path).await.metadata(), alice.id));
    let change = v1::ChangeSourceRequest { id: till.id, description: Some(String::new()), disabled: Some(true), ..Default::default() };
    let changed: v1::Source = grpc.good(at!("ChangeSource"), &change).await;
    assert_eq!((source(&changed), changed.name.as_str(), changed.description.as_str()), (rest.get(&path).await.metadata(), "till", ""));
    rest.made("PATCH", &path, json!({"disabled": false, "name": "till 2"})).await;
    let looked: v1::Source = grpc.good(at!("GetSource"), &v1::GetSourceRequest { id: till.id }).await;
    assert_eq!(source(&looked), rest.get(&path).await.metadata());
    let all: v1::ListSourcesResponse = grpc.good(at!("ListSources"), &v1::ListSourcesRequest::default()).await;
    assert_eq!(Value::from(all.sources.iter().map(source).collect::<Vec<_>>()), rest.get("/v1/sources?recursion=1").await.metadata());

    let opened: v1::Session = By::nobody(&broker).await.good(at!("OpenSession"), &session("alice", PASSWORD)).await;
    let (rest, mut grpc) = (key(&broker, &opened.token), By::key(&broker, &opened.token).await);
    let made: v1::KeyWithSecret = grpc.good(at!("CreateKey"), &v1::CreateKeyRequest { name: "ci".into() }).await;
    rest.made("POST", "/v1/keys", json!({"name": "by-rest"})).await;
    let all: v1::ListKeysResponse = grpc.good(at!("ListKeys"), &v1::ListKeysRequest::default()).await;
    assert_eq!(Value::from(all.keys.iter().map(user_key).collect::<Vec<_>>()), rest.get("/v1/keys?recursion=1").await.metadata());
    assert_eq!(made.info.as_ref(), all.keys.iter().find(|key| key.name == "ci"));
    let _: v1::DeleteKeyResponse = grpc.good(at!("DeleteKey"), &v1::DeleteKeyRequest { name: "by-rest".into() }).await;
    assert_eq!(rest.get("/v1/keys").await.metadata(), json!(["/v1/keys/ci"]));

    rest.made("POST", "/v1/streams", json!({"name": "orders"})).await;
    let principal = format!("source:{}", till.id);
    let path = format!("/v1/streams/orders/rights/{principal}");
    let set = |right: &str| v1::SetRightRequest { stream: "orders".into(), principal: principal.clone(), right: right.into() };
    let given: v1::Right = grpc.good(at!("SetRight"), &set("writeonly")).await;
    assert_eq!((right(&given), given.right.as_str()), (rest.get(&path).await.metadata(), "WriteOnly"));
    rest.made("PUT", &path, json!({"right": "ReadOnly"})).await;
    let looked: v1::Right = grpc.good(at!("GetRight"), &v1::GetRightRequest { stream: "orders".into(), principal: principal.clone() }).await;
    assert_eq!((right(&looked), looked.effective.as_str()), (rest.get(&path).await.metadata(), "ReadOnly"));
    let all: v1::ListRightsResponse = grpc.good(at!("ListRights"), &v1::ListRightsRequest { stream: "orders".into(), ..Default::default() }).await;
    assert_eq!(Value::from(all.rights.iter().map(right).collect::<Vec<_>>()), rest.get("/v1/streams/orders/rights?recursion=1").await.metadata());
    let gone: v1::Right = grpc.good(at!("SetRight"), &set("None")).await;
    assert_eq!((right(&gone), gone.right.as_str()), (rest.get(&path).await.metadata(), "None"));

    let _: v1::DeleteSourceResponse = grpc.good(at!("DeleteSource"), &v1::DeleteSourceRequest { id: till.id }).await;
    assert_eq!(rest.get(&format!("/v1/sources/{}", till.id)).await.status, 404);
    let (rest, mut grpc) = (operator(&broker), By::operator(&broker).await);
    let _: v1::DeleteUserResponse = grpc.good(at!("DeleteUser"), &v1::DeleteUserRequest { name: "bob".into() }).await;
    assert_eq!(rest.get("/v1/users/bob").await.status, 404);
}

#[tokio::test]
async fn a_session_or_ticket_of_one_face_is_good_at_the_other_and_ends_for_both() {
    let broker = serve().await;
    operator(&broker).made("POST", "/v1/users", json!({"name": "alice", "password": PASSWORD})).await;
    // What came along as a credential means nothing to somebody who logs in.
    let mut stale = By::key(&broker, "tlc_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA").await;
    let opened: v1::Session = stale.good(at!("OpenSession"), &session("alice", PASSWORD)).await;
    let rest = key(&broker, &opened.token);
    let here = without_usage(rest.get("/v1/sessions/current").await.metadata());
    assert_eq!((&here["kind"], &here["user"]), (&json!("console"), &user(&opened.user.expect("a user"))));
    assert_eq!(here["expires_at"], time(Some(opened.expires_us)));
    let mut grpc = By::key(&broker, &opened.token).await;
    assert_eq!(caller(&grpc.good(at!("GetSession"), &v1::GetSessionRequest {}).await), here);

    let ticket: v1::Ticket = grpc.good(at!("CreateTicket"), &v1::CreateTicketRequest {}).await;
    let mut ws = broker.ws("/v1/connect").await.greeted().await;
    ws.text(&json!({"t": "auth", "ticket": ticket.ticket}).to_string()).await;
    assert_eq!(ws.ask(r#"{"t":"ping"}"#).await["t"], "pong");
    assert!(ticket.expires_us > TimeUs::now().0 && ticket.expires_us <= TimeUs::now().0 + limits::TICKET_LIFE.as_micros() as i64);

    let _: v1::CloseSessionResponse = grpc.good(at!("CloseSession"), &v1::CloseSessionRequest {}).await;
    assert_eq!(rest.get("/v1/sessions/current").await.status, 401);
    let again = crate::access::log_in(&broker, "alice").await;
    let mut grpc = By::of(&again).await;
    let _: v1::Caller = grpc.good(at!("GetSession"), &v1::GetSessionRequest {}).await;
    again.made("DELETE", "/v1/sessions/current", Value::Null).await;
    let over = grpc.ask::<v1::Caller>(at!("GetSession"), &v1::GetSessionRequest {}).await.unwrap_err();
    assert_eq!((over.code(), code(&over).as_str()), (Code::Unauthenticated, "unauthenticated"));

    let mut grpc = By::operator(&broker).await;
    assert_eq!(
        caller(&grpc.good(at!("GetSession"), &v1::GetSessionRequest {}).await),
        without_usage(operator(&broker).get("/v1/sessions/current").await.metadata())
    );
}

#[tokio::test]
async fn secrets_are_told_once_and_stand_in_no_other_answer() {
    let broker = serve().await;
    let mut grpc = By::of(&console(&broker, "alice").await).await;
    let made: v1::SourceWithKey = grpc.good(at!("CreateSource"), &v1::CreateSourceRequest { name: "till".into(), ..Default::default() }).await;
    let id = made.source.expect("a source").id;
    let rotated: v1::SourceWithKey = grpc.good(at!("RotateSource"), &v1::RotateSourceRequest { id }).await;
    assert_eq!(key(&broker, &made.key).get("/v1/streams").await.status, 401, "the old key is over");
    let who = key(&broker, &rotated.key).get("/v1/sessions/current").await.metadata();
    assert_eq!((&who["kind"], &who["source"]["id"]), (&json!("source_key"), &json!(id)));
    let personal: v1::KeyWithSecret = grpc.good(at!("CreateKey"), &v1::CreateKeyRequest { name: "ci".into() }).await;
    let who = caller(&By::key(&broker, &personal.key).await.good(at!("GetSession"), &v1::GetSessionRequest {}).await);
    assert_eq!((&who["kind"], who["key"].as_str()), (&json!("user_key"), personal.info.as_ref().map(|info| info.id.as_str())));
    let session = grpc.token.clone().expect("a session");
    let answers = [
        grpc.raw(at!("ListSources"), &v1::ListSourcesRequest::default()).await.unwrap(),
        grpc.raw(at!("GetSource"), &v1::GetSourceRequest { id }).await.unwrap(),
        grpc.raw(at!("ChangeSource"), &v1::ChangeSourceRequest { id, ..Default::default() }).await.unwrap(),
        grpc.raw(at!("ListKeys"), &v1::ListKeysRequest::default()).await.unwrap(),
        grpc.raw(at!("GetSession"), &v1::GetSessionRequest {}).await.unwrap(),
        grpc.raw(at!("ListUsers"), &v1::ListUsersRequest::default()).await.unwrap(),
    ];
    for secret in [&made.key, &rotated.key, &personal.key, &session] {
        // Behind the part that finds it.
        let secret = &secret.as_bytes()[16..40];
        assert!(answers.iter().all(|answer| !answer.windows(secret.len()).any(|window| window == secret)));
    }
}

#[tokio::test]
async fn refusals_are_those_of_rest_to_the_letter() {
    let broker = serve().await;
    let root = operator(&broker);
    let alice = console(&broker, "alice").await;
    alice.made("POST", "/v1/streams", json!({"name": "orders"})).await;
    let program = key(&broker, alice.made("POST", "/v1/keys", json!({"name": "ci"})).await["key"].as_str().unwrap());
    let (id, till) = crate::access::source(&alice, "till").await;
    let nobody = key(&broker, "tlu_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA");

    let users = |name: &str| v1::GetUserRequest { name: name.into() }.encode_to_vec();
    let sources = |id: u64| v1::GetSourceRequest { id }.encode_to_vec();
    let rights =
        |principal: &str, right: &str| v1::SetRightRequest { stream: "orders".into(), principal: principal.into(), right: right.into() }.encode_to_vec();
    let new = |name: &str, password: &str| v1::CreateUserRequest { name: name.into(), password: Some(password.into()), root: false }.encode_to_vec();
    let shop = |name: &str| v1::CreateSourceRequest { name: name.into(), ..Default::default() }.encode_to_vec();
    let change = |root: Option<bool>| v1::ChangeUserRequest { name: "operator".into(), root, ..Default::default() }.encode_to_vec();
    let lower = v1::ChangeUserRequest { name: "alice".into(), root: Some(true), ..Default::default() }.encode_to_vec();
    let key_named = |name: &str| v1::CreateKeyRequest { name: name.into() }.encode_to_vec();
    let on = |stream: &str| v1::ListRightsRequest { stream: stream.into(), ..Default::default() }.encode_to_vec();
    let right_on = |stream: &str, principal: &str| v1::GetRightRequest { stream: stream.into(), principal: principal.into() }.encode_to_vec();
    let (hers, of_source) = (format!("/v1/sources/{id}"), format!("source:{id}"));
    let rotate = format!("{hers}/rotate");
    let rights_of = |principal: &str| format!("/v1/streams/orders/rights/{principal}");
    let owner = v1::CreateSourceRequest { name: "x".into(), description: String::new(), owner: Some("absent".into()) }.encode_to_vec();

    type Asked<'a> = (&'a As<'a>, &'a str, String, Value, &'static str, Vec<u8>);
    let both: Vec<Asked> = vec![
        (&root, "GET", "/v1/users/absent".into(), Value::Null, at!("GetUser"), users("absent")),
        (&root, "GET", "/v1/users/a%20b".into(), Value::Null, at!("GetUser"), users("a b")),
        (&alice, "GET", "/v1/users/operator".into(), Value::Null, at!("GetUser"), users("operator")),
        (&till, "GET", "/v1/users/alice".into(), Value::Null, at!("GetUser"), users("alice")),
        (&till, "GET", "/v1/users".into(), Value::Null, at!("ListUsers"), vec![]),
        (&root, "POST", "/v1/users".into(), json!({"name": "Alice", "password": PASSWORD}), at!("CreateUser"), new("Alice", PASSWORD)),
        (&root, "POST", "/v1/users".into(), json!({"name": "x", "password": "short"}), at!("CreateUser"), new("x", "short")),
        (&alice, "POST", "/v1/users".into(), json!({"name": "x", "password": PASSWORD}), at!("CreateUser"), new("x", PASSWORD)),
        (&root, "PATCH", "/v1/users/operator".into(), json!({"root": false}), at!("ChangeUser"), change(Some(false))),
        (&alice, "PATCH", "/v1/users/alice".into(), json!({"root": true}), at!("ChangeUser"), lower.clone()),
        (&program, "PATCH", "/v1/users/alice".into(), json!({"root": true}), at!("ChangeUser"), lower),
        (&root, "DELETE", "/v1/users/operator".into(), Value::Null, at!("DeleteUser"), users("operator")),
        (&root, "DELETE", "/v1/users/alice".into(), Value::Null, at!("DeleteUser"), users("alice")),
        (&root, "DELETE", "/v1/users/absent".into(), Value::Null, at!("DeleteUser"), users("absent")),
        (&root, "GET", "/v1/sources/99".into(), Value::Null, at!("GetSource"), sources(99)),
        (&alice, "POST", "/v1/sources".into(), json!({"name": "till"}), at!("CreateSource"), shop("till")),
        (&alice, "POST", "/v1/sources".into(), json!({"name": ""}), at!("CreateSource"), shop("")),
        (&alice, "POST", "/v1/sources".into(), json!({"name": "a\nb"}), at!("CreateSource"), shop("a\nb")),
        (&till, "POST", "/v1/sources".into(), json!({"name": "x"}), at!("CreateSource"), shop("x")),
        (&root, "POST", "/v1/sources".into(), json!({"name": "x", "owner": "absent"}), at!("CreateSource"), owner.clone()),
        (&alice, "POST", "/v1/sources".into(), json!({"name": "x", "owner": "absent"}), at!("CreateSource"), owner),
        (&till, "POST", rotate, json!({}), at!("RotateSource"), sources(id)),
        (&program, "DELETE", hers.clone(), Value::Null, at!("DeleteSource"), sources(id)),
        (&till, "DELETE", hers, Value::Null, at!("DeleteSource"), sources(id)),
        (&program, "POST", "/v1/keys".into(), json!({"name": "x"}), at!("CreateKey"), key_named("x")),
        (&till, "GET", "/v1/keys".into(), Value::Null, at!("ListKeys"), vec![]),
        (&alice, "POST", "/v1/keys".into(), json!({"name": "ci"}), at!("CreateKey"), key_named("ci")),
        (&alice, "POST", "/v1/keys".into(), json!({"name": "a b"}), at!("CreateKey"), key_named("a b")),
        (&alice, "DELETE", "/v1/keys/absent".into(), Value::Null, at!("DeleteKey"), key_named("absent")),
        (&alice, "GET", "/v1/streams/absent/rights".into(), Value::Null, at!("ListRights"), on("absent")),
        (&till, "GET", "/v1/streams/orders/rights".into(), Value::Null, at!("ListRights"), on("orders")),
        (&root, "GET", "/v1/streams/absent/rights/user:alice".into(), Value::Null, at!("GetRight"), right_on("absent", "user:alice")),
        (&alice, "GET", rights_of("user:absent"), Value::Null, at!("GetRight"), right_on("orders", "user:absent")),
        (&alice, "PUT", rights_of("user:alice"), json!({"right": "ReadOnly"}), at!("SetRight"), rights("user:alice", "ReadOnly")),
        (&alice, "PUT", rights_of(&of_source), json!({"right": "Root"}), at!("SetRight"), rights(&of_source, "Root")),
        (&alice, "PUT", rights_of(&of_source), json!({"right": "all"}), at!("SetRight"), rights(&of_source, "all")),
        (&alice, "PUT", rights_of("nobody"), json!({"right": "None"}), at!("SetRight"), rights("nobody", "None")),
        (&root, "PUT", rights_of("user:operator"), json!({"right": "None"}), at!("SetRight"), rights("user:operator", "None")),
        (&till, "PUT", rights_of(&of_source), json!({"right": "Admin"}), at!("SetRight"), rights(&of_source, "Admin")),
        (&root, "DELETE", "/v1/sessions/current".into(), Value::Null, at!("CloseSession"), vec![]),
        (&program, "DELETE", "/v1/sessions/current".into(), Value::Null, at!("CloseSession"), vec![]),
        (&nobody, "GET", "/v1/users".into(), Value::Null, at!("ListUsers"), vec![]),
        (&nobody, "POST", "/v1/tickets".into(), json!({}), at!("CreateTicket"), vec![]),
    ];
    for (who, method, path, body, call, message) in both {
        let answer = who.ask(method, &path, body).await;
        let (told, body) = (answer.code(), answer.json());
        let mut request = Request::new(Bytes::from(message));
        let mut by = By::of(who).await;
        if let Some(token) = &by.token {
            request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        }
        let Err(status) = by.grpc.ask(call, request).await else { panic!("{call} is not refused, {method} {path} is: {body}") };
        let refused = error(&status);
        let details: Value = serde_json::from_str(&refused.details).unwrap_or_else(|_| json!({}));
        assert_eq!(
            (refused.code, json!(refused.message), details),
            (told, body["error"].clone(), body["metadata"]["details"].clone()),
            "{call}, {method} {path}"
        );
        assert_eq!(json!(refused.resource), body["metadata"].get("resource").cloned().unwrap_or_else(|| json!("")), "{call}, {method} {path}");
    }
}

#[tokio::test]
async fn what_is_promised_nowhere_is_refused_and_nobody_is_let_in_without_a_credential() {
    let broker = serve().await;
    let mut request = Request::new(Bytes::from(new_user("alice").encode_to_vec()));
    request.metadata_mut().insert("idempotency-key", "once".parse().unwrap());
    let refused = By::operator(&broker).await.grpc.ask(at!("CreateUser"), request).await.unwrap_err();
    assert_eq!((refused.code(), code(&refused).as_str()), (Code::Unimplemented, "not_implemented"));
    for path in [at!("ListUsers"), at!("CreateUser"), at!("GetSession"), at!("CloseSession"), at!("CreateTicket"), at!("ListRights")] {
        let refused = By::nobody(&broker).await.raw(path, &v1::GetSessionRequest {}).await.unwrap_err();
        assert_eq!((refused.code(), code(&refused).as_str()), (Code::Unauthenticated, "unauthenticated"), "{path}");
    }
}

#[tokio::test]
async fn lists_come_in_pages() {
    let broker = serve().await;
    let mut grpc = By::operator(&broker).await;
    for name in ["a", "B", "c"] {
        let _: v1::User = grpc.good(at!("CreateUser"), &v1::CreateUserRequest { name: name.into(), ..Default::default() }).await;
        let _: v1::SourceWithKey = grpc.good(at!("CreateSource"), &v1::CreateSourceRequest { name: name.into(), ..Default::default() }).await;
    }
    let (mut names, mut after) = (Vec::new(), String::new());
    loop {
        let page: v1::ListUsersResponse = grpc.good(at!("ListUsers"), &v1::ListUsersRequest { after, limit: 2, ..Default::default() }).await;
        names.extend(page.users.into_iter().map(|user| user.name));
        if !page.more {
            break;
        }
        after = names.last().cloned().expect("a name");
    }
    assert_eq!(names, ["a", "B", "c"]);
    let first: v1::ListSourcesResponse = grpc.good(at!("ListSources"), &v1::ListSourcesRequest { after: 0, limit: 2, ..Default::default() }).await;
    let after = first.sources[1].id;
    let second: v1::ListSourcesResponse = grpc.good(at!("ListSources"), &v1::ListSourcesRequest { after, limit: 2, ..Default::default() }).await;
    assert_eq!((first.sources.len(), first.more, second.sources.len(), second.more), (2, true, 1, false));
    let filter = "name gt a".to_owned();
    let users: v1::ListUsersResponse = grpc.good(at!("ListUsers"), &v1::ListUsersRequest { filter: filter.clone(), ..Default::default() }).await;
    let sources: v1::ListSourcesResponse = grpc.good(at!("ListSources"), &v1::ListSourcesRequest { filter, ..Default::default() }).await;
    assert_eq!((users.users.len(), sources.sources.len()), (1, 1), "capitals stand before small letters");
}

#[tokio::test]
async fn guesses_over_grpc_count_with_those_over_rest() {
    let broker = serve().await;
    operator(&broker).made("POST", "/v1/users", json!({"name": "alice", "password": PASSWORD})).await;
    let mut grpc = By::nobody(&broker).await;
    let body = json!({"name": "alice", "password": "wrong horse"}).to_string();
    let rest = async || broker.ask("POST", "/v1/sessions", &[("Content-Type", "application/json")], body.as_bytes()).await;
    for guess in 0..limits::FAILED_CREDENTIALS_PER_ADDRESS {
        if guess % 2 == 0 {
            let wrong = grpc.ask::<v1::Session>(at!("OpenSession"), &session("alice", "wrong horse")).await.unwrap_err();
            assert_eq!((wrong.code(), code(&wrong).as_str()), (Code::Unauthenticated, "unauthenticated"), "{guess}");
        } else {
            assert_eq!(rest().await.status, 401, "{guess}");
        }
    }
    // Not even the right one is looked at any more.
    let refused = grpc.ask::<v1::Session>(at!("OpenSession"), &session("alice", PASSWORD)).await.unwrap_err();
    assert_eq!((refused.code(), code(&refused).as_str()), (Code::ResourceExhausted, "rate_limited"));
    assert_eq!((rest().await.status, rest().await.code().as_str()), (429, "rate_limited"));
    let _: v1::Session = By::operator(&broker).await.good(at!("OpenSession"), &session("alice", PASSWORD)).await;
}

#[tokio::test]
async fn who_logs_in_may_send_four_kib_over_either_face_and_the_longest_password_fits() {
    let broker = serve().await;
    let longest = "x".repeat(limits::PASSWORD_MAX_BYTES);
    operator(&broker).made("POST", "/v1/users", json!({"name": "alice", "password": longest})).await;
    let mut grpc = By::nobody(&broker).await;
    let _: v1::Session = grpc.good(at!("OpenSession"), &session("alice", &longest)).await;
    let most = limits::MESSAGE_MAX_BYTES_PRE_AUTH;
    for size in [most - 1, most, most + 1] {
        // Two fields have four bytes before their content, or five.
        let mut asked = session("a", "");
        asked.password = "x".repeat(size - asked.encoded_len() - 3);
        assert_eq!(asked.encoded_len(), size);
        let refused = grpc.ask::<v1::Session>(at!("OpenSession"), &asked).await.unwrap_err();
        assert_eq!(refused.code(), if size > most { Code::OutOfRange } else { Code::Unauthenticated }, "{size}: {refused:?}");
        let empty = json!({"name": "a", "password": ""}).to_string().len();
        let body = json!({"name": "a", "password": "x".repeat(size - empty)}).to_string();
        assert_eq!(body.len(), size);
        let answer = broker.ask("POST", "/v1/sessions", &[("Content-Type", "application/json")], body.as_bytes()).await;
        assert_eq!((answer.status, answer.code().as_str()), if size > most { (413, "too_large") } else { (401, "unauthenticated") }, "{size}");
    }
}
