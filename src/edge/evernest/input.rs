//! What a request brings beside its path: query and JSON body together, names in any case, the body before the query.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer as _, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::arguments::Argument;
use super::fault::Fault;
use crate::edge::http::query;

/// What was given under one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Given {
    /// A text.
    Text(String),
    /// Something else than a JSON string.
    NoString,
    /// Two values in one place.
    Two,
}

/// The arguments of a request that do not stand in its path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Input(Vec<(Argument, Given)>);

impl Input {
    /// Reads both places.
    ///
    /// # Errors
    /// `BadRequest` for a broken escape, and for a body that is neither blank, nor `null`, nor a JSON object in UTF-8.
    pub fn read(query: Option<&str>, body: &[u8]) -> Result<Self, Fault> {
        let mut from_query = Self::default();
        for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let broken = || Fault::bad_request("The query has a broken % escape, or is not UTF-8; send parameters as in Key=…&Message=….");
            let (name, value) = (query::decode(name).ok_or_else(broken)?, query::decode(value).ok_or_else(broken)?);
            if let Some(argument) = Argument::of_input(&name) {
                from_query.enter(argument, Given::Text(value));
            }
        }
        let mut input = Self::of_body(body)?;
        for (argument, given) in from_query.0 {
            // Two values in one place are a fault, whatever the other place says.
            match input.0.iter_mut().find(|(known, _)| *known == argument) {
                Some((_, known)) if given == Given::Two => *known = given,
                Some(_) => {}
                None => input.0.push((argument, given)),
            }
        }
        Ok(input)
    }

    fn of_body(body: &[u8]) -> Result<Self, Fault> {
        let text = std::str::from_utf8(body).map_err(|_| Fault::bad_request("The body is not UTF-8; send a JSON object, for example {\"Key\":\"…\"}."))?;
        let mut input = Self::default();
        if text.trim().is_empty() || text.trim() == "null" {
            return Ok(input);
        }
        let mut reader = serde_json::Deserializer::from_str(text);
        // The library's words may hold a piece of the text, and the text may hold a key.
        let walked = reader.deserialize_map(Walk(&mut input)).and_then(|()| reader.end());
        walked.map_err(|why| {
            let at = format!("line {}, column {}", why.line(), why.column());
            Fault::bad_request(&format!("The body is no JSON object ({at}); send one, for example {{\"Key\":\"…\"}}, or no body at all."))
        })?;
        Ok(input)
    }

    fn enter(&mut self, argument: Argument, given: Given) {
        match self.0.iter_mut().find(|(known, _)| *known == argument) {
            Some((_, known)) if *known != given => *known = Given::Two,
            Some(_) => {}
            None => self.0.push((argument, given)),
        }
    }

    /// Takes what was given.
    pub fn take(&mut self, argument: Argument) -> Option<Given> {
        let at = self.0.iter().position(|(known, _)| *known == argument)?;
        Some(self.0.swap_remove(at).1)
    }
}

/// Enters the members of an object that have a name of ours, and passes over all others.
struct Walk<'a>(&'a mut Input);

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key_seed(Name)? {
            match Argument::of_input(&name) {
                None => drop(map.next_value::<&'de RawValue>()?),
                Some(argument) => match map.next_value::<&'de RawValue>()?.get() {
                    "null" => {}
                    raw => self.0.enter(argument, serde_json::from_str(raw).map_or(Given::NoString, Given::Text)),
                },
            }
        }
        Ok(())
    }
}

/// The name of a member, borrowed where it has no escapes.
struct Name;

impl<'de> DeserializeSeed<'de> for Name {
    type Value = Cow<'de, str>;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Name {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(text))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(query: &str, body: &str, argument: Argument) -> Option<Given> {
        Input::read(Some(query), body.as_bytes()).unwrap().take(argument)
    }

    fn given(text: &str) -> Option<Given> {
        Some(Given::Text(text.to_owned()))
    }

    #[test]
    fn the_body_beats_the_query_and_null_is_absent() {
        use Argument::{Key, Message};
        assert_eq!(text("key=a", r#"{"KEY":"b"}"#, Key), given("b"));
        assert_eq!(text("key=a", r#"{"Key":null}"#, Key), given("a"));
        assert_eq!(text("key=a", "null", Key), given("a"));
        assert_eq!(text("", " \n", Key), None);
        assert_eq!(text("Message=", "", Message), given(""));
        assert_eq!(text("Message", "", Message), given(""));
        assert_eq!(text("message=a+b%21", "", Message), given("a b!"));
        assert_eq!(text("", r#"{"M\u0065ssage":"\u00e4\n"}"#, Message), given("ä\n"));
        assert_eq!(text("other=1&other=2", r#"{"other":[{}],"other":3}"#, Message), None, "unknown names are passed over");
    }

    #[test]
    fn a_name_given_twice_is_fine_only_when_the_values_are_equal() {
        use Argument::Key;
        assert_eq!(text("key=a&KEY=a", "", Key), given("a"));
        assert_eq!(text("key=a&KEY=b", "", Key), Some(Given::Two));
        assert_eq!(text("", r#"{"key":"a","Key":"b"}"#, Key), Some(Given::Two));
        assert_eq!(text("", r#"{"key":"a","Key":"\u0061"}"#, Key), given("a"));
        assert_eq!(text("", r#"{"key":null,"Key":"b"}"#, Key), given("b"));
        assert_eq!(text("key=a&KEY=b", r#"{"key":"c"}"#, Key), Some(Given::Two));
        assert_eq!(text("", r#"{"key":1}"#, Key), Some(Given::NoString));
        assert_eq!(text("", r#"{"key":"\ud800"}"#, Key), Some(Given::NoString));
    }

    #[test]
    fn what_is_no_object_in_utf8_is_a_bad_request_that_repeats_nothing() {
        for body in [&b"{"[..], b"[]", b"1", b"\"s3cret\"", b"{\"key\":\"s3cret\"", b"{} {}", b"{\"key\":\"s3cret\"\xff}", b"{'key':'s3cret'}"] {
            let fault = Input::read(None, body).unwrap_err();
            assert_eq!(fault.word(), "BadRequest", "{body:?}");
            assert!(!fault.help().contains("s3cret") && !fault.help().is_empty());
        }
        assert_eq!(Input::read(Some("key=%f"), b"").unwrap_err().word(), "BadRequest");
    }

    proptest! {
        #[test]
        fn case_and_place_of_a_name_change_nothing(value in "\\PC{0,20}", upper in proptest::collection::vec(any::<bool>(), 7)) {
            let name: String = "message".chars().zip(upper).map(|(c, up)| if up { c.to_ascii_uppercase() } else { c }).collect();
            let escaped: String = value.bytes().map(|byte| format!("%{byte:02x}")).collect();
            let body = serde_json::json!({ &name: &value }).to_string();
            prop_assert_eq!(text(&format!("{name}={escaped}"), "", Argument::Message), given(&value));
            prop_assert_eq!(text("", &body, Argument::Message), given(&value));
        }
    }
}
