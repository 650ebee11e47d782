//! The law: the tables of `docs/access.md`, and what follows from a row for a caller.

use tidelog::types::{Action, Right};

use crate::people::Kind;

/// Over what a call is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Face {
    Rest,
    Frame,
    Grpc,
}

/// What a call needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    Nothing,
    Credential,
    Account,
    User,
    Console,
    Operator,
    On(Action),
    /// Read, and Admin for a subscription that somebody else made.
    Own,
}

/// One call.
#[derive(Clone, Debug)]
pub struct Row {
    pub face: Face,
    pub call: String,
    pub needs: Needs,
    pub user_key: bool,
    pub source_key: bool,
    pub built: bool,
}

/// The class of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Done, or refused for another reason.
    Passed,
    Unauthenticated,
    Hidden,
    /// With what is missing on the stream.
    TooLittle(Action, Right),
    Denied,
    KeyForbidden,
}

/// Every row of the page.
pub fn rows() -> Vec<Row> {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/access.md")).expect("docs/access.md");
    let (mut face, mut rows) = (None, Vec::new());
    for line in page.lines() {
        match line {
            "### REST" => face = Some(Face::Rest),
            "### Frames" => face = Some(Face::Frame),
            "### gRPC" => face = Some(Face::Grpc),
            _ => {}
        }
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let (Some(face), [call, needs, user_key, source_key, built], Some(_)) = (face, &cells[..], line.strip_prefix("| `")) else { continue };
        let yes = |cell: &str| match cell {
            "yes" => true,
            "no" => false,
            other => panic!("docs/access.md: {other:?} is neither yes nor no, at {call}"),
        };
        let needs = match *needs {
            "nothing" => Needs::Nothing,
            "credential" => Needs::Credential,
            "account" => Needs::Account,
            "user" => Needs::User,
            "console" => Needs::Console,
            "operator" => Needs::Operator,
            "Read" => Needs::On(Action::Read),
            "Write" => Needs::On(Action::Write),
            "Admin" => Needs::On(Action::Admin),
            "Read, own" => Needs::Own,
            other => panic!("docs/access.md: {call} needs {other:?}, which the page does not explain"),
        };
        let call = call.trim_matches('`').to_owned();
        rows.push(Row { face, call, needs, user_key: yes(user_key), source_key: yes(source_key), built: yes(built) });
    }
    rows
}

impl Row {
    /// Is it about one stream?
    pub fn on_a_stream(&self) -> bool {
        matches!(self.needs, Needs::On(_) | Needs::Own)
    }

    /// What a caller has to hear whose right on the stream was set to `right`. Subscriptions are somebody else's.
    pub fn expected(&self, kind: Kind, right: Right) -> Class {
        if self.needs == Needs::Nothing {
            return Class::Passed;
        }
        let denied_unless = |good: bool| if good { Class::Passed } else { Class::Denied };
        match (kind, self.needs) {
            (Kind::Anonymous, _) => Class::Unauthenticated,
            (_, Needs::Nothing | Needs::Credential) => Class::Passed,
            (kind, Needs::Account) => denied_unless(kind != Kind::Node),
            (kind, Needs::User) => denied_unless(!matches!(kind, Kind::Node | Kind::SourceKey)),
            (Kind::UserKey, Needs::Console) => Class::KeyForbidden,
            (kind, Needs::Console) => denied_unless(!matches!(kind, Kind::Node | Kind::SourceKey)),
            (kind, Needs::Operator) => denied_unless(matches!(kind, Kind::Operator | Kind::Root)),
            (kind, Needs::On(action)) => self.on(kind, kind.effective(right), action),
            (kind, Needs::Own) => match (self.on(kind, kind.effective(right), Action::Read), kind.effective(right).allows(Action::Admin)) {
                (Class::Passed, false) => Class::Denied,
                (class, _) => class,
            },
        }
    }

    fn on(&self, kind: Kind, effective: Right, action: Action) -> Class {
        match kind {
            _ if effective == Right::None => Class::Hidden,
            _ if !effective.allows(action) => Class::TooLittle(action, effective),
            Kind::UserKey if !self.user_key => Class::KeyForbidden,
            Kind::SourceKey if !self.source_key => Class::Denied,
            _ => Class::Passed,
        }
    }
}

#[test]
fn the_columns_of_a_row_do_not_contradict_each_other() {
    for row in rows() {
        let Row { call, needs, user_key, source_key, .. } = &row;
        let (user, source) = match needs {
            Needs::Nothing | Needs::Credential | Needs::Account => (true, true),
            Needs::User => (true, false),
            Needs::Console | Needs::Operator => (false, false),
            Needs::On(Action::Admin) => (*user_key, false),
            Needs::On(_) | Needs::Own => (*user_key, *source_key),
        };
        assert_eq!((*user_key, *source_key), (user, source), "{call} needs {needs:?}");
    }
}
