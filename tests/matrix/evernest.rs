//! Evernest's calls: each as its table in `docs/access.md` says, with every right of a source and of its owner, and with every credential
//! that is not the one it takes. A call without a row fails, and so does a row for no call.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use serde_json::Value;
use tidelog::broker::PrincipalRef;
use tidelog::types::{Action, Right};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;
use tokio::time::timeout;

use crate::people::{Door, Kind, OPERATOR, Town, user};
use crate::support::PATIENCE;

/// Where its paths are written.
const ROUTES: &str = include_str!("../../src/edge/evernest/route.rs");

const RIGHTS: [Right; 5] = [Right::None, Right::ReadOnly, Right::WriteOnly, Right::ReadWrite, Right::Admin];

/// What a call needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Needs {
    Nothing,
    /// A source's key, and perhaps a right.
    Key(Option<Action>),
    UserKey,
    /// A user's key, and some right on the stream.
    Seeing,
}

/// What was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Told {
    Good,
    /// The word, and the arguments it is about.
    Fault(String, Vec<String>),
}

fn fault(word: &str, arguments: &[&str]) -> Told {
    Told::Fault(word.into(), arguments.iter().map(|&argument| argument.into()).collect())
}

/// What is shown.
#[derive(Clone, Debug, Default)]
struct Shown {
    key: Option<String>,
    user_key: Option<String>,
    /// `Authorization`.
    bearer: Option<String>,
}

fn table() -> Vec<(String, Needs)> {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/access.md")).expect("docs/access.md");
    let section = page.split("### Evernest\n").nth(1).expect("a section about Evernest");
    let section = section.split("\n#").next().expect("its end");
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `/"));
    rows.map(|line| {
        let cells: Vec<&str> = line.trim_end_matches('|').split('|').map(str::trim).collect();
        let needs = match cells[1] {
            "nothing" => Needs::Nothing,
            "Key" => Needs::Key(None),
            "Key, Read" => Needs::Key(Some(Action::Read)),
            "Key, Write" => Needs::Key(Some(Action::Write)),
            "UserKey" => Needs::UserKey,
            "UserKey, any right" => Needs::Seeing,
            other => panic!("docs/access.md: Evernest's {} needs {other:?}, which the page does not explain", cells[0]),
        };
        (format!("/{}", cells[0].trim_end_matches('`')), needs)
    })
    .collect()
}

/// What somebody has to hear who shows the key of a source (`right` is what was set for it), of its owner, or neither.
fn expected(needs: Needs, shown: &Shown, source: Right, owner: Right) -> Told {
    match needs {
        Needs::Nothing => Told::Good,
        Needs::Key(_) if shown.key.is_none() => fault("MissingArgument", &["Key"]),
        Needs::UserKey | Needs::Seeing if shown.user_key.is_none() => fault("MissingArgument", &["UserKey"]),
        Needs::Seeing if owner == Right::None => fault("BadArgument", &["StreamId"]),
        Needs::Key(Some(action)) if !source.and(owner).and(Right::ReadWrite).allows(action) => {
            fault(if action == Action::Read { "ReadAccessDenied" } else { "WriteAccessDenied" }, &[])
        }
        Needs::Key(_) | Needs::UserKey | Needs::Seeing => Told::Good,
    }
}

/// The town, as Evernest's clients see it.
struct Guests {
    town: Town,
    /// Of the source `sensor`, and of its owner.
    key: String,
    user_key: String,
    owner: u64,
}

impl Guests {
    async fn open() -> Self {
        let town = Town::open().await;
        let key = town.person(Kind::SourceKey).token.clone().expect("a key");
        let who = town.broker.certificate("owner").await.expect("the owner");
        let (_, user_key) = town.broker.create_key(&who, "laptop").await.expect("a key");
        Self { owner: who.user_id(), town, key, user_key }
    }

    /// A stream on which the source and its owner have these rights: its id.
    async fn stage(&self, source: Right, owner: Right) -> u64 {
        let name = self.town.stage(Kind::SourceKey, source).await;
        let set = async |who: &str, right| {
            self.town.broker.set_right(&OPERATOR, &name, &PrincipalRef::User(user(who)), right).await.expect("a right is set");
        };
        set("other", Right::Admin).await;
        set("owner", owner).await;
        self.town.broker.stream(&OPERATOR, &name).await.expect("the stream").id.0
    }

    /// From an address of its own, so that guesses of one are not counted for another.
    async fn ask(&self, pattern: &str, stream: u64, right: Right, shown: &Shown) -> Told {
        let number = self.town.number();
        let id = |of: u64| of.to_string();
        let path = pattern.replace("{SourceId}", &id(self.town.source)).replace("{StreamId}", &id(stream)).replace("{UserId}", &id(self.owner));
        let path = path.replace("{Right}", right.as_str()).replace("{EventId}", "-1").replace("{FromEventId}", "0").replace("{ToEventId}", "1");
        let mut query = format!("Message=hello&SourceName=source-{number}&StreamName=e-{number}");
        for (name, key) in [("Key", &shown.key), ("UserKey", &shown.user_key)] {
            query.extend(key.iter().map(|key| format!("&{name}={key}")));
        }
        let bearer = shown.bearer.iter().map(|token| format!("Authorization: Bearer {token}\r\n")).collect::<String>();
        let Door::Tcp(door) = self.town.person(Kind::Anonymous).door.clone() else { panic!("strangers come over TCP") };
        let socket = TcpSocket::new_v4().expect("a socket");
        let from = Ipv4Addr::new(127, 1, (number >> 8) as u8, number as u8);
        socket.bind(SocketAddr::new(IpAddr::V4(from), 0)).expect("an address of the loopback network");
        let mut io = socket.connect(door).await.expect("the port is open");
        let request = format!("GET {path}?{query} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{bearer}\r\n");
        io.write_all(request.as_bytes()).await.expect("it is sent");
        let mut all = String::new();
        timeout(PATIENCE, io.read_to_string(&mut all)).await.expect("an answer in time").expect("text");
        let (head, body) = all.split_once("\r\n\r\n").expect("a head and a body");
        if head.starts_with("HTTP/1.1 200 ") && body.contains(r#""Success":true"#) {
            return Told::Good;
        }
        let body: Value = serde_json::from_str(body).unwrap_or_else(|why| panic!("{path}: {why}: {all}"));
        assert!(!head.starts_with("HTTP/1.1 200 ") && body["Success"] == false, "{all}");
        let arguments = body["Error"]["Arguments"].as_array().into_iter().flatten();
        Told::Fault(body["Error"]["Message"].as_str().expect("a word").into(), arguments.map(|argument| argument.as_str().expect("a name").into()).collect())
    }
}

#[test]
fn every_call_of_evernest_has_a_row_and_every_row_is_one() {
    let told: Vec<String> = table().into_iter().map(|(pattern, _)| pattern).collect();
    let before_tests = ROUTES.split("#[cfg(test)]").next().expect("a first part");
    let there: BTreeSet<&str> = before_tests.split('"').filter(|text| text.starts_with('/') && text.len() > 1 && !text.contains(char::is_whitespace)).collect();
    assert_eq!(told.iter().map(String::as_str).collect::<BTreeSet<_>>(), there);
    assert_eq!(told.len(), there.len(), "docs/access.md has a row twice");
    assert_eq!(there.len(), 14);
}

#[tokio::test(flavor = "multi_thread")]
async fn evernests_calls_go_by_the_right_of_the_source_and_of_its_owner_together() {
    let guests = Guests::open().await;
    let of_source = Shown { key: Some(guests.key.clone()), ..Shown::default() };
    let of_user = Shown { user_key: Some(guests.user_key.clone()), ..Shown::default() };
    let mut heard = BTreeSet::new();
    for source in RIGHTS {
        for owner in RIGHTS {
            let stream = guests.stage(source, owner).await;
            for (pattern, needs) in table() {
                for shown in [&of_source, &of_user] {
                    let told = guests.ask(&pattern, stream, source, shown).await;
                    assert_eq!(told, expected(needs, shown, source, owner), "{pattern}, {source} of the source, {owner} of its owner, {shown:?}");
                    heard.insert(format!("{told:?}"));
                }
            }
        }
    }
    assert_eq!(heard.len(), 6, "the walk has met every kind of answer: {heard:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn evernests_calls_take_their_two_keys_and_no_other_credential() {
    let guests = Guests::open().await;
    let Guests { town, key, user_key, .. } = &guests;
    let stream = guests.stage(Right::ReadWrite, Right::Admin).await;
    let token = |kind| town.person(kind).token.clone().expect("a token");
    let who = town.broker.certificate("owner").await.expect("the owner");
    let (ticket, _) = town.broker.issue_ticket(&who).await.expect("a ticket");
    let new = tidelog::broker::NewSource { name: "gone".into(), description: String::new(), owner: None };
    let (gone, old_key) = town.broker.create_source(&who, new).await.expect("a source");
    town.broker.delete_source(&who, gone.id).await.expect("it goes");
    let (_, old_user_key) = town.broker.create_key(&who, "gone").await.expect("a key");
    town.broker.delete_key(&who, "gone").await.expect("it goes");
    let both = |key: &str, user_key: &str| Shown { key: Some(key.into()), user_key: Some(user_key.into()), bearer: None };
    let wrong = [
        ("each other's", both(user_key, key)),
        ("a session of root", both(&token(Kind::Root), &token(Kind::Root))),
        ("a ticket", both(&ticket, &ticket)),
        ("deleted keys", both(&old_key, &old_user_key)),
        ("no keys at all", both("x", "")),
    ];
    for (pattern, needs) in table() {
        let argument = if matches!(needs, Needs::Key(_)) { "Key" } else { "UserKey" };
        for (what, shown) in &wrong {
            let told = guests.ask(&pattern, stream, Right::ReadOnly, shown).await;
            let want = if needs == Needs::Nothing { Told::Good } else { fault("BadArgument", &[argument]) };
            assert_eq!(told, want, "{pattern} with {what}");
        }
        for kind in [Kind::Root, Kind::UserKey, Kind::SourceKey] {
            let shown = Shown { bearer: Some(token(kind)), ..Shown::default() };
            let told = guests.ask(&pattern, stream, Right::ReadOnly, &shown).await;
            assert_eq!(told, expected(needs, &shown, Right::ReadWrite, Right::Admin), "{pattern} with the token of {kind:?} as Bearer");
        }
    }
    town.broker.authenticate(&ticket).await.expect("nobody has used it up");
}
