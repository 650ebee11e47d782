//! A broker with a user, a source and a stream, and a client that sends arguments wherever it is told to.

use serde_json::{Value, json};
use tidelog::broker::{Broker as Rules, NewStream, NewUser, Principal, PrincipalRef, Right};
use tidelog::types::{StreamName, UserName};

use crate::support::{Answer, Broker, serve};

/// As `serve` is: nobody is let in for where they come from.
pub struct World {
    pub broker: Broker,
    /// Alice, over the console.
    pub alice: Principal,
    pub user: u64,
    pub user_key: String,
    pub source: u64,
    pub key: String,
    /// The stream `Example`, on which Alice is Admin and her source may read and write.
    pub stream: u64,
}

/// Where arguments are put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    Query,
    Body,
}

pub fn example() -> StreamName {
    StreamName::parse("Example").unwrap()
}

impl World {
    pub async fn new() -> Self {
        Self::on(serve().await).await
    }

    pub async fn on(broker: Broker) -> Self {
        let rules = broker.server.broker();
        let (alice, user, user_key) = person(rules, "alice").await;
        let stream = rules.create_stream(&alice, NewStream::named(example())).await.unwrap().id.0;
        let mut world = Self { alice, user, user_key, source: 0, key: String::new(), stream, broker };
        let made = world.good("/Source/New", &[("UserKey", &world.user_key.clone()), ("SourceName", "thermometer")]).await;
        world.source = made["Source"]["Id"].as_u64().expect("an id");
        world.key = made["Source"]["Key"].as_str().expect("a key").to_owned();
        world.may(Right::ReadWrite).await;
        world
    }

    pub fn rules(&self) -> &Rules {
        self.broker.server.broker()
    }

    /// Sets the right of the source on the stream.
    pub async fn may(&self, right: Right) {
        self.rules().set_right(&self.alice, &example(), &PrincipalRef::Source(self.source), right).await.unwrap();
    }

    pub async fn ask(&self, method: &str, path: &str, put: Put, arguments: &[(&str, &str)]) -> Answer {
        match put {
            Put::Query => self.broker.ask(method, &format!("{path}?{}", query(arguments)), &[], b"").await,
            Put::Body => {
                let body: serde_json::Map<String, Value> = arguments.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
                self.broker.ask(method, path, &[("Content-Type", "text/plain")], Value::from(body).to_string().as_bytes()).await
            }
        }
    }

    /// The `Response` of a call.
    pub async fn good(&self, path: &str, arguments: &[(&str, &str)]) -> Value {
        good(&self.ask("GET", path, Put::Query, arguments).await)
    }

    /// With the key of the source.
    pub async fn with_key(&self, path: &str) -> Value {
        self.good(path, &[("Key", &self.key)]).await
    }

    /// Pushes, and says the id.
    pub async fn push(&self, message: &str) -> u64 {
        let path = format!("/Stream/{}/Push", self.stream);
        self.good(&path, &[("Key", &self.key), ("Message", message)]).await["EventId"].as_u64().expect("an id")
    }

    /// Status, word and arguments of a call that must fail in every form it can be sent in, with the same words each time.
    pub async fn bad(&self, path: &str, arguments: &[(&str, &str)]) -> (u16, String, Vec<String>) {
        let mut told = None;
        for (method, put) in [("GET", Put::Query), ("POST", Put::Query), ("GET", Put::Body), ("POST", Put::Body)] {
            let failed = failed(&self.ask(method, path, put, arguments).await);
            assert_eq!(*told.get_or_insert_with(|| failed.clone()), failed, "{method} {path}, arguments in the {put:?}");
        }
        told.expect("four answers")
    }
}

/// A user with a key.
pub async fn person(rules: &Rules, name: &str) -> (Principal, u64, String) {
    let new = NewUser { name: UserName::parse(name).unwrap(), password: None, root: false };
    let id = rules.create_user(&Principal::Operator, new).await.unwrap().id;
    let who = rules.certificate(name).await.unwrap();
    let (_, key) = rules.create_key(&who, "laptop").await.unwrap();
    (who, id, key)
}

pub fn query(arguments: &[(&str, &str)]) -> String {
    let escaped = |text: &str| text.bytes().map(|byte| format!("%{byte:02X}")).collect::<String>();
    arguments.iter().map(|(name, value)| format!("{name}={}", escaped(value))).collect::<Vec<_>>().join("&")
}

/// The body, whole: some answers come in pieces.
pub fn body(answer: &Answer) -> Value {
    let mut whole = Vec::new();
    if answer.header("transfer-encoding").is_some() {
        let mut rest = &answer.body[..];
        loop {
            let end = rest.windows(2).position(|pair| pair == b"\r\n").expect("the length of a piece");
            let length = usize::from_str_radix(std::str::from_utf8(&rest[..end]).unwrap(), 16).expect("a length");
            if length == 0 {
                break;
            }
            whole.extend_from_slice(&rest[end + 2..end + 2 + length]);
            rest = &rest[end + 4 + length..];
        }
    } else {
        whole.extend_from_slice(&answer.body);
    }
    serde_json::from_slice(&whole).unwrap_or_else(|why| panic!("{why} in {:?}", String::from_utf8_lossy(&whole)))
}

/// What holds for every answer.
#[track_caller]
fn looked_at(answer: &Answer) -> Value {
    assert_eq!(answer.header("content-type"), Some("application/json; charset=utf-8"), "{answer:?}");
    assert_eq!(answer.header("cache-control"), Some("no-store"), "{answer:?}");
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{answer:?}");
    let body = body(answer);
    let time = body["UtcTime"].as_str().expect("UtcTime");
    assert!(time.len() == 24 && time.ends_with('Z') && time.starts_with("20"), "{time}");
    body
}

/// The `Response` of a success.
#[track_caller]
pub fn good(answer: &Answer) -> Value {
    let body = looked_at(answer);
    assert_eq!((answer.status, &body["Success"]), (200, &json!(true)), "{body}");
    assert_eq!(body.as_object().map(serde_json::Map::len), Some(3), "{body}");
    body["Response"].clone()
}

/// Status, word and arguments of a failure, which helps and names each argument.
#[track_caller]
pub fn failed(answer: &Answer) -> (u16, String, Vec<String>) {
    let body = looked_at(answer);
    assert_eq!(body["Success"], json!(false), "{body}");
    assert!(answer.status >= 400, "a failure is never a 2xx: {answer:?}");
    let error = &body["Error"];
    let help = error["HelpMessage"].as_str().expect("HelpMessage");
    assert!(help.len() > 10 && !help.contains("tls_") && !help.contains("tlu_"), "{help}");
    let arguments: Vec<String> =
        error["Arguments"].as_array().map(|list| list.iter().map(|name| name.as_str().unwrap().to_owned()).collect()).unwrap_or_default();
    arguments.iter().for_each(|name| assert!(help.contains(name.as_str()), "{help} names {name}"));
    (answer.status, error["Message"].as_str().expect("Message").to_owned(), arguments)
}

/// For comparing.
pub fn fault(status: u16, word: &str, arguments: &[&str]) -> (u16, String, Vec<String>) {
    (status, word.to_owned(), arguments.iter().map(|name| (*name).to_owned()).collect())
}
