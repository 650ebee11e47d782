//! Names that people and programs choose: streams, subscriptions, producers, idempotency keys.
//!
//! Parsed once at the door; afterwards the type is the proof that the text is well formed.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::error::{Code, Error};
use super::limits;

/// Why a name was refused, as the second half of a sentence.
fn check_name(what: &str, text: &str, system: &[&str]) -> Result<(), Error> {
    let refuse = |why: String| Err(Error::new(Code::BadParameter, format!("{what} {} {why}", quote(text))).detail("field", what.replace(' ', "_")));
    if text.is_empty() {
        return refuse("is empty; give it 1 to 200 characters.".into());
    }
    if text.len() > limits::NAME_BYTES {
        return refuse(format!("is {} bytes long; the limit is {}.", text.len(), limits::NAME_BYTES));
    }
    let rest = match text.strip_prefix('$') {
        Some(rest) if system.iter().any(|own| own.eq_ignore_ascii_case(text)) => rest,
        Some(_) => return refuse("begins with `$`, which is reserved for the broker's own streams.".into()),
        None => text,
    };
    if rest.starts_with(['.', '-']) {
        return refuse("begins with `.` or `-`; begin with a letter, a digit or `_`.".into());
    }
    match rest.bytes().position(|b| !(b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))) {
        Some(at) => refuse(format!("has a character outside A-Z a-z 0-9 . _ - at byte {}.", at + text.len() - rest.len())),
        None => Ok(()),
    }
}

/// A text as it may stand in an error message: quoted, escaped, shortened.
pub fn quote(text: &str) -> String {
    let front = front(text, 64);
    let dots = if front.len() < text.len() { "…" } else { "" };
    format!("\"{}{dots}\"", front.escape_debug())
}

/// A name as it may stand in a sentence without quotes, or in the details of an error: an answer does not grow with what was sent, and no line
/// of a log ends in it.
pub fn short(text: &str) -> Cow<'_, str> {
    let front = clipped(text, 64);
    if front.chars().any(char::is_control) { Cow::Owned(front.replace(char::is_control, "\u{fffd}")) } else { front }
}

/// What stands as it is in a URL: RFC 3986's unreserved characters, and `$`, with which names of system streams begin.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'$');

/// As a part of a path, or a value of a query. `.` and `..` would be taken for a step in the path.
pub fn escaped(text: &str) -> Cow<'_, str> {
    if matches!(text, "." | "..") { Cow::Owned(text.replace('.', "%2E")) } else { utf8_percent_encode(text, PLAIN).into() }
}

/// A sentence of somebody else's, who may repeat what was sent.
pub fn clipped(text: &str, characters: usize) -> Cow<'_, str> {
    let front = front(text, characters);
    if front.len() < text.len() { Cow::Owned(format!("{front}…")) } else { Cow::Borrowed(text) }
}

fn front(text: &str, characters: usize) -> &str {
    text.char_indices().nth(characters).map_or(text, |(end, _)| &text[..end])
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal, $system:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Accepts 1–200 of `A–Z a–z 0–9 . _ -`, not starting with `.` or `-` (`surfaces.md` 5.1).
            ///
            /// # Errors
            /// `bad_parameter`, naming the field and the first offending byte.
            pub fn parse(text: &str) -> Result<Self, Error> {
                check_name($what, text, $system)?;
                Ok(Self(text.into()))
            }

            /// A name that was parsed before it was stored, or received from the broker.
            pub fn stored(text: &str) -> Self {
                Self(text.into())
            }

            /// The name as it was given.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The form under which names collide: ASCII lower case (`limits.md`, one canonical fold).
            pub fn folded(&self) -> Cow<'_, str> {
                if self.0.bytes().any(|b| b.is_ascii_uppercase()) { Cow::Owned(self.0.to_ascii_lowercase()) } else { Cow::Borrowed(&self.0) }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name!(
    /// Name of a stream.
    StreamName, "stream name", &[AUDIT]
);
name!(
    /// Name of a subscription, unique within its stream.
    SubscriptionName, "subscription name", &[]
);
name!(
    /// Name of a user.
    UserName, "user name", &[]
);
name!(
    /// Id of a cluster: what its CA and all its certificates have in common.
    ClusterId, "cluster id", &[]
);
name!(
    /// Name of a user key, unique among its user's.
    KeyName, "key name", &[]
);
name!(
    /// Name that a user of the command line gives to a broker.
    RemoteName, "remote name", &[]
);

/// Name of the stream in which the broker says who changed what. Names of the broker's own streams are the only ones that begin with `$`.
pub const AUDIT: &str = "$audit";

impl StreamName {
    /// Is it one of the broker's own streams? They are there without being created, and nobody else writes to them.
    pub fn is_system(&self) -> bool {
        self.0.starts_with('$')
    }
}

/// Identity of a producer: 1–128 of `A–Z a–z 0–9 . _ : -`, compared byte for byte (`decisions.md` section 3).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProducerId(Arc<str>);

impl ProducerId {
    /// # Errors
    /// `bad_parameter`, naming the first offending byte or the length.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let refuse = |why: String| Err(Error::new(Code::BadParameter, format!("producer id {} {why}", quote(text))).detail("field", "producer"));
        if text.is_empty() || text.len() > limits::PRODUCER_ID_BYTES {
            return refuse(format!("is {} bytes long; give it 1 to {}.", text.len(), limits::PRODUCER_ID_BYTES));
        }
        match text.bytes().position(|b| !(b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b':' | b'-'))) {
            Some(at) => refuse(format!("has a character outside A-Z a-z 0-9 . _ : - at byte {at}.")),
            None => Ok(Self(text.into())),
        }
    }

    /// The id as it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ProducerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a client calls one REST append by, so that it can send it again (P-19): 1–128 visible ASCII characters.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct IdempotencyKey(Arc<str>);

impl IdempotencyKey {
    /// # Errors
    /// `bad_parameter`, naming the header and the first offending byte or the length. The key itself is not repeated: it may be a secret.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let refuse = |why: String| Err(Error::bad("idempotency-key", format!("The Idempotency-Key {why}")));
        if text.is_empty() || text.len() > limits::IDEMPOTENCY_KEY_BYTES {
            return refuse(format!("is {} bytes long; give it 1 to {}.", text.len(), limits::IDEMPOTENCY_KEY_BYTES));
        }
        match text.bytes().position(|b| !b.is_ascii_graphic()) {
            Some(at) => refuse(format!("has a character at byte {at} that is not visible ASCII.")),
            None => Ok(Self(text.into())),
        }
    }

    /// The key as it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_names_stay_inside_their_path_escaped() {
        for (text, there) in [("a/b?c", "a%2Fb%3Fc"), ("..", "%2E%2E"), ("orders-1.x_y~$", "orders-1.x_y~$"), ("name eq é", "name%20eq%20%C3%A9")] {
            assert_eq!(escaped(text), there);
        }
    }

    #[test]
    fn names_of_the_grammar_are_accepted_and_others_say_where_they_fail() {
        for good in ["a", "orders", "A.b_c-9", "_x", "0", &"n".repeat(200)] {
            assert_eq!(StreamName::parse(good).unwrap().as_str(), good);
        }
        for (bad, at) in [("", "empty"), (".a", "begins"), ("-a", "begins"), ("$lifecycle", "reserved"), ("a/b", "byte 1"), ("naïve", "byte 2")] {
            let error = StreamName::parse(bad).unwrap_err();
            assert!(error.message.contains(at), "{bad:?}: {}", error.message);
            assert_eq!(error.code, Code::BadParameter);
        }
        assert!(StreamName::parse(&"n".repeat(201)).is_err());
    }

    #[test]
    fn the_brokers_own_streams_can_be_named_as_streams_and_as_nothing_else() {
        for good in ["$audit", "$Audit"] {
            let name = StreamName::parse(good).unwrap();
            assert_eq!((name.folded().as_ref(), name.is_system()), (AUDIT, true));
            assert!(SubscriptionName::parse(good).is_err() && UserName::parse(good).is_err() && KeyName::parse(good).is_err());
        }
        assert!(!StreamName::parse("audit").unwrap().is_system());
        for bad in ["$", "$audit2", "$audits", "$$audit", "$lifecycle", "$.audit"] {
            assert!(StreamName::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn idempotency_keys_are_visible_ascii_and_are_not_repeated_in_errors() {
        assert_eq!(IdempotencyKey::parse("order-7/try~1").unwrap().as_str(), "order-7/try~1");
        assert!(IdempotencyKey::parse(&"k".repeat(128)).is_ok());
        for bad in ["", "s3cret key", "s3cret\n", "s3crét", &"s3cret".repeat(22)] {
            let error = IdempotencyKey::parse(bad).unwrap_err();
            assert_eq!((error.code, error.details["field"].as_str()), (Code::BadParameter, Some("idempotency-key")), "{bad:?}");
            assert!(!error.message.contains("s3cr"), "{}", error.message);
        }
    }

    #[test]
    fn producer_ids_may_hold_colons_but_no_blanks() {
        assert!(ProducerId::parse("cursor:orders:billing").is_ok());
        assert!(ProducerId::parse("a b").is_err());
        assert!(ProducerId::parse(&"p".repeat(129)).is_err());
        assert!(ProducerId::parse(&"p".repeat(128)).is_ok());
    }
}
