//! The arguments of a call, in two stages: all that are missing are named at once, then all that are malformed.

use super::fault::Fault;
use super::input::{Given, Input};
use super::route::{Kind, Route};
use crate::types::{Right, StreamName, limits};

/// A parameter that somebody can get wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Argument {
    /// Key of a source.
    Key,
    /// Key of a user.
    UserKey,
    /// Text of an event.
    Message,
    /// Name of a new source.
    SourceName,
    /// Name of a new stream.
    StreamName,
    /// In the path.
    StreamId,
    /// In the path.
    SourceId,
    /// In the path.
    UserId,
    /// In the path.
    EventId,
    /// In the path.
    FromEventId,
    /// In the path.
    ToEventId,
    /// In the path.
    Right,
}

impl Argument {
    /// Those that come in the body or the query.
    const INPUTS: [Self; 5] = [Self::Key, Self::UserKey, Self::Message, Self::SourceName, Self::StreamName];

    /// The name, as answers show it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Key => "Key",
            Self::UserKey => "UserKey",
            Self::Message => "Message",
            Self::SourceName => "SourceName",
            Self::StreamName => "StreamName",
            Self::StreamId => "StreamId",
            Self::SourceId => "SourceId",
            Self::UserId => "UserId",
            Self::EventId => "EventId",
            Self::FromEventId => "FromEventId",
            Self::ToEventId => "ToEventId",
            Self::Right => "Right",
        }
    }

    /// A name in a body or a query, in any ASCII case.
    pub fn of_input(name: &str) -> Option<Self> {
        Self::INPUTS.into_iter().find(|argument| argument.as_str().eq_ignore_ascii_case(name))
    }

    /// Does it come in the body or the query?
    pub fn is_input(self) -> bool {
        Self::INPUTS.contains(&self)
    }
}

/// An event, by its number or counted from the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// From 0.
    At(u64),
    /// 1 = the last.
    FromEnd(u64),
}

impl Place {
    /// Reads `5` or `-1`.
    fn parse(text: &str) -> Option<Self> {
        match text.strip_prefix('-') {
            Some(back) => number(back).filter(|back| *back > 0).map(Self::FromEnd),
            None => number(text).map(Self::At),
        }
    }

    /// Is it behind the other, whatever the stream holds? What only the stream can tell is not said here.
    fn is_behind(self, other: Self) -> bool {
        match (self, other) {
            (Self::At(this), Self::At(other)) => this > other,
            (Self::FromEnd(this), Self::FromEnd(other)) => this < other,
            (Self::At(_), Self::FromEnd(_)) | (Self::FromEnd(_), Self::At(_)) => false,
        }
    }
}

/// A key, unread: `Key` or `UserKey`.
pub type Secret = String;

/// A call with everything it needs, each value well-formed.
#[derive(Clone, PartialEq, Eq)]
pub enum Call {
    /// See [`Kind`].
    OwnRight { key: Secret, stream: u64 },
    /// See [`Kind`].
    RightOf { key: Secret, source: u64, stream: u64 },
    /// See [`Kind`].
    SetRight { key: Secret, source: u64, stream: u64, right: Right },
    /// See [`Kind`].
    ThisSource { key: Secret },
    /// See [`Kind`].
    SourceOf { key: Secret, source: u64 },
    /// See [`Kind`].
    NewSource { key: Secret, name: String },
    /// See [`Kind`].
    NewStream { key: Secret, name: StreamName },
    /// See [`Kind`].
    Stream { key: Secret, stream: u64 },
    /// See [`Kind`].
    Pull { key: Secret, stream: u64, event: Place },
    /// See [`Kind`].
    PullRange { key: Secret, stream: u64, from: Place, to: Place },
    /// See [`Kind`].
    PullRandom { key: Secret, stream: u64 },
    /// See [`Kind`].
    Push { key: Secret, stream: u64, message: String },
    /// See [`Kind`].
    ThisUser { key: Secret },
    /// See [`Kind`].
    UserOf { user: u64 },
}

/// Reads the arguments of a call.
///
/// # Errors
/// `MissingArgument` naming all that are missing, else `BadArgument` naming all that are malformed.
pub fn read(route: Route, input: Input) -> Result<Call, Fault> {
    let kind = route.kind;
    let mut reader = Reader { route, input, missing: Vec::new(), malformed: Vec::new() };
    let call = reader.call(kind);
    if !reader.missing.is_empty() {
        return Err(Fault::missing(&reader.missing, kind.pattern()));
    }
    if !reader.malformed.is_empty() {
        return Err(Fault::bad(reader.malformed));
    }
    call.ok_or_else(|| Fault::internal("an argument was neither missing nor malformed, nor there"))
}

struct Reader {
    route: Route,
    input: Input,
    missing: Vec<Argument>,
    malformed: Vec<(Argument, String)>,
}

impl Reader {
    /// All arguments are looked at before the first `?`, so that each that is wrong is named.
    fn call(&mut self, kind: Kind) -> Option<Call> {
        use Argument::{EventId, FromEventId, Key, Message, SourceId, StreamId, ToEventId, UserId, UserKey};
        match kind {
            Kind::OwnRight => {
                let (key, stream) = (self.text(Key), self.id(StreamId));
                Some(Call::OwnRight { key: key?, stream: stream? })
            }
            Kind::RightOf => {
                let (key, source, stream) = (self.text(UserKey), self.id(SourceId), self.id(StreamId));
                Some(Call::RightOf { key: key?, source: source?, stream: stream? })
            }
            Kind::SetRight => {
                let (key, source, stream, right) = (self.text(UserKey), self.id(SourceId), self.id(StreamId), self.right());
                Some(Call::SetRight { key: key?, source: source?, stream: stream?, right: right? })
            }
            Kind::ThisSource => Some(Call::ThisSource { key: self.text(Key)? }),
            Kind::SourceOf => {
                let (key, source) = (self.text(UserKey), self.id(SourceId));
                Some(Call::SourceOf { key: key?, source: source? })
            }
            Kind::NewSource => {
                let (key, name) = (self.text(UserKey), self.source_name());
                Some(Call::NewSource { key: key?, name: name? })
            }
            Kind::NewStream => {
                let (key, name) = (self.text(UserKey), self.stream_name());
                Some(Call::NewStream { key: key?, name: name? })
            }
            Kind::Stream => {
                let (key, stream) = (self.text(Key), self.id(StreamId));
                Some(Call::Stream { key: key?, stream: stream? })
            }
            Kind::Pull => {
                let (key, stream, event) = (self.text(Key), self.id(StreamId), self.place(EventId));
                Some(Call::Pull { key: key?, stream: stream?, event: event? })
            }
            Kind::PullRange => {
                let (key, stream, from, to) = (self.text(Key), self.id(StreamId), self.place(FromEventId), self.place(ToEventId));
                if let (Some(from), Some(to)) = (from, to)
                    && from.is_behind(to)
                {
                    self.malformed.push((FromEventId, REVERSED.to_owned()));
                    self.malformed.push((ToEventId, String::new()));
                }
                Some(Call::PullRange { key: key?, stream: stream?, from: from?, to: to? })
            }
            Kind::PullRandom => {
                let (key, stream) = (self.text(Key), self.id(StreamId));
                Some(Call::PullRandom { key: key?, stream: stream? })
            }
            Kind::Push => {
                let (key, stream, message) = (self.text(Key), self.id(StreamId), self.text(Message));
                Some(Call::Push { key: key?, stream: stream?, message: message? })
            }
            Kind::ThisUser => Some(Call::ThisUser { key: self.text(UserKey)? }),
            Kind::UserOf => Some(Call::UserOf { user: self.id(UserId)? }),
        }
    }

    /// A text out of the body or the query.
    fn text(&mut self, argument: Argument) -> Option<String> {
        let name = argument.as_str();
        match self.input.take(argument) {
            Some(Given::Text(text)) => return Some(text),
            Some(Given::NoString) => self.malformed.push((argument, format!("{name} must be a JSON string."))),
            Some(Given::Two) => self.malformed.push((argument, format!("{name} is given twice with different values; give it once."))),
            None => self.missing.push(argument),
        }
        None
    }

    fn checked<T>(&mut self, argument: Argument, read: impl FnOnce(&str) -> Option<T>, expected: impl FnOnce(&str) -> String) -> Option<T> {
        let text = if argument.is_input() { self.text(argument)? } else { self.part(argument)? };
        let value = read(&text);
        if value.is_none() {
            self.malformed.push((argument, expected(argument.as_str())));
        }
        value
    }

    fn part(&mut self, argument: Argument) -> Option<String> {
        let found = self.route.path.iter().find(|(known, _)| *known == argument).map(|(_, text)| text.clone());
        if found.is_none() {
            self.missing.push(argument);
        }
        found
    }

    fn id(&mut self, argument: Argument) -> Option<u64> {
        self.checked(argument, number, |name| format!("{name} must be a decimal number from 0 to {}.", i64::MAX))
    }

    fn place(&mut self, argument: Argument) -> Option<Place> {
        self.checked(argument, Place::parse, |name| {
            format!(
                "{name} must be the id of an event: a decimal number from 0 to {}, or a negative one, which counts from the end (-1 is the last).",
                i64::MAX
            )
        })
    }

    fn right(&mut self) -> Option<Right> {
        // Root is a word of the real server's, and no right on one stream.
        let read = |text: &str| Right::parse(text).filter(|right| *right != Right::Root);
        self.checked(Argument::Right, read, |name| {
            format!("{name} must be None, ReadOnly, WriteOnly, ReadWrite or Admin, in any case. Root is a user's, on all streams, and cannot be set on one.")
        })
    }

    fn source_name(&mut self) -> Option<String> {
        let most = limits::SOURCE_NAME_CHARACTERS;
        let read = |text: &str| {
            let count = text.chars().take(most + 1).count();
            ((1..=most).contains(&count) && !text.chars().any(char::is_control)).then(|| text.to_owned())
        };
        self.checked(Argument::SourceName, read, |name| format!("{name} must have 1 to {most} characters, none of them a control character."))
    }

    fn stream_name(&mut self) -> Option<StreamName> {
        self.checked(
            Argument::StreamName,
            |text| StreamName::parse(text).ok().filter(|name| !name.is_system()),
            |name| format!("{name} must have 1 to {} of the characters A-Z a-z 0-9 . _ - and not begin with . or -", limits::NAME_BYTES),
        )
    }
}

/// Both ends of a range are wrong.
pub const REVERSED: &str = "FromEventId must not be greater than ToEventId.";

/// A decimal number from 0 to 2^63 - 1; leading zeros are fine.
fn number(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let digits = text.trim_start_matches('0');
    if digits.is_empty() { Some(0) } else { digits.parse().ok().filter(|n| i64::try_from(*n).is_ok()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edge::evernest::route;

    fn refused(path: &str, query: &str) -> (&'static str, Vec<&'static str>, String) {
        match read(route::find(path).unwrap(), Input::read(Some(query), b"").unwrap()) {
            Err(fault) => (fault.word(), fault.arguments().to_vec(), fault.help().to_owned()),
            Ok(_) => panic!("{path}?{query} was read"),
        }
    }

    #[test]
    fn all_that_is_missing_is_named_before_anything_malformed() {
        for (path, query, missing) in [
            ("/Stream/123/Push", "", &["Key", "Message"][..]),
            ("/Stream/x/Push", "Message=m", &["Key"]),
            ("/Stream", "", &["Key", "StreamId"]),
            ("/Stream/1/Pull", "", &["Key", "EventId"]),
            ("/Stream//Pull/1/", "UserKey=u", &["Key", "StreamId"]),
            ("/Right", "Key=k", &["StreamId"]),
            ("/Right/1/2/Set", "", &["UserKey", "Right"]),
            ("/Source/New", "", &["UserKey", "SourceName"]),
            ("/Source/New", "Key=k", &["UserKey", "SourceName"]),
            ("/User", "Key=k", &["UserKey"]),
        ] {
            let (word, arguments, help) = refused(path, query);
            assert_eq!((word, arguments.as_slice()), ("MissingArgument", missing), "{path}");
            missing.iter().for_each(|name| assert!(help.contains(name), "{help} names {name}"));
        }
        let (_, _, help) = refused("/Stream/123/Push", "");
        assert_eq!(help, "Send Key and Message in the JSON body or as URL parameters.");
    }

    #[test]
    fn all_that_is_malformed_is_named_at_once() {
        for (path, query, bad) in [
            ("/Right/x/-1", "UserKey=u", &["SourceId", "StreamId"][..]),
            ("/Right/x/1/Set/Owner", "UserKey=u", &["SourceId", "Right"]),
            ("/Right/1/1/Set/Root", "UserKey=u", &["Right"]),
            ("/Stream/9223372036854775808", "Key=k", &["StreamId"]),
            ("/Stream/+1", "Key=k", &["StreamId"]),
            ("/Stream/1/Pull/-0", "Key=k", &["EventId"]),
            ("/Stream/1/Pull/1.0", "Key=k", &["EventId"]),
            ("/Stream/1/Pull/x/y", "Key=k", &["FromEventId", "ToEventId"]),
            ("/Stream/1/Pull/9/2", "Key=k", &["FromEventId", "ToEventId"]),
            ("/Stream/1/Pull/-1/-2", "Key=k", &["FromEventId", "ToEventId"]),
            ("/Stream/1/Pull/Random/2", "Key=k", &["FromEventId"]),
            ("/Source/New", "UserKey=u&SourceName=", &["SourceName"]),
            ("/Source/New", "UserKey=a&userkey=b&SourceName=", &["UserKey", "SourceName"]),
            ("/Stream/New", "UserKey=u&StreamName=$x", &["StreamName"]),
            ("/User/0x1", "", &["UserId"]),
        ] {
            let (word, arguments, help) = refused(path, query);
            assert_eq!((word, arguments.as_slice()), ("BadArgument", bad), "{path}");
            bad.iter().for_each(|name| assert!(help.contains(name), "{help} names {name}"));
        }
        assert_eq!(refused("/Stream/123/Pull/9/2", "Key=k").2, REVERSED);
    }

    #[test]
    fn ids_have_leading_zeros_and_nothing_else_in_front() {
        assert_eq!(number("0000000000000000000000000007"), Some(7));
        assert_eq!(number("9223372036854775807"), Some(i64::MAX as u64));
        for bad in ["", "9223372036854775808", "+1", "-1", " 1", "1 ", "0x1", "١", "99999999999999999999999999"] {
            assert_eq!(number(bad), None, "{bad}");
        }
        assert_eq!(Place::parse("-01"), Some(Place::FromEnd(1)));
    }

    #[test]
    fn a_source_name_has_its_characters_and_not_one_more() {
        let named = |name: &str| read(route::find("/Source/New").unwrap(), Input::read(Some(&format!("UserKey=u&SourceName={name}")), b"").unwrap());
        assert!(named(&"ä".repeat(limits::SOURCE_NAME_CHARACTERS)).is_ok());
        assert!(named(&"ä".repeat(limits::SOURCE_NAME_CHARACTERS + 1)).is_err());
        assert!(named("a%0Ab").is_err());
    }
}
