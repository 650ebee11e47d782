//! Reading JSON objects strictly: no member twice, none unknown, every error with the path of its field.
//!
//! An [`Object`] holds the members as raw text; a reader takes those it knows and calls [`Object::finish`], which refuses the
//! rest. So `data` of an event is never parsed into values, and no error is without its field.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer as _, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::types::limits::JSON_FIELDS;
use crate::types::name::{clipped, short};
use crate::types::request::{ProducerStamp, Start};
use crate::types::{Code, Error, ProducerId, StreamId, StreamName, SubscriptionName};
use crate::wire::convert::{self, MAX_INTEGER};

/// The members of an object, not yet looked at.
pub struct Object<'a> {
    /// Where it stands; empty for the frame itself.
    path: String,
    fields: Vec<(Cow<'a, str>, &'a RawValue)>,
    known: Vec<&'static str>,
}

/// Text that may be borrowed from the input.
struct Text;

impl<'de> DeserializeSeed<'de> for Text {
    type Value = Cow<'de, str>;
    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Text {
    type Value = Cow<'de, str>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }
    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(text))
    }
    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(text.to_owned()))
    }
}

/// Hands each member to a closure, which may stop the walk with an error of ours.
struct Walk<'f, F> {
    each: F,
    error: &'f mut Option<Error>,
}

impl<'de, F: FnMut(Cow<'de, str>, &'de RawValue) -> Result<(), Error>> Visitor<'de> for Walk<'_, F> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }
    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key_seed(Text)? {
            let value = map.next_value::<&'de RawValue>()?;
            if let Err(error) = (self.each)(name, value) {
                *self.error = Some(error);
                return Err(A::Error::custom("stopped"));
            }
        }
        Ok(())
    }
}

/// Hands each item to a closure, which may stop the walk with an error of ours.
struct Items<'f, F> {
    each: F,
    error: &'f mut Option<Error>,
}

impl<'de, F: FnMut(usize, &'de RawValue) -> Result<(), Error>> Visitor<'de> for Items<'_, F> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }
    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<(), A::Error> {
        let mut index = 0;
        while let Some(item) = seq.next_element::<&'de RawValue>()? {
            if let Err(error) = (self.each)(index, item) {
                *self.error = Some(error);
                return Err(A::Error::custom("stopped"));
            }
            index += 1;
        }
        Ok(())
    }
}

/// What is not JSON, and where: `line` and `column` (in bytes), both from 1.
pub fn syntax(e: &serde_json::Error) -> Error {
    Error::new(Code::JsonParsingFailed, format!("This is not JSON: {e}.")).detail("line", e.line()).detail("column", e.column())
}

/// Walks over the members of the object `raw`, in order.
pub fn each_member<'a>(path: &str, raw: &'a str, each: impl FnMut(Cow<'a, str>, &'a RawValue) -> Result<(), Error>) -> Result<(), Error> {
    let mut error = None;
    let mut reader = serde_json::Deserializer::from_str(raw);
    let walked = reader.deserialize_map(Walk { each, error: &mut error }).and_then(|()| reader.end());
    match (walked, error) {
        (_, Some(error)) => Err(error),
        (Ok(()), None) => Ok(()),
        // An object is expected: anything else that is JSON is a wrong value, not a wrong syntax.
        (Err(e), None) if e.is_data() || !path.is_empty() => {
            let at = if path.is_empty() { "The text" } else { path };
            Err(Error::bad(if path.is_empty() { "frame" } else { path }, format!("{at} must be a JSON object.")))
        }
        (Err(e), None) => Err(syntax(&e)),
    }
}

/// Walks over the items of the array `raw`, in order.
pub fn each_item<'a>(path: &str, raw: &'a str, each: impl FnMut(usize, &'a RawValue) -> Result<(), Error>) -> Result<(), Error> {
    let mut error = None;
    let mut reader = serde_json::Deserializer::from_str(raw);
    let walked = reader.deserialize_seq(Items { each, error: &mut error }).and_then(|()| reader.end());
    match (walked, error) {
        (_, Some(error)) => Err(error),
        (Ok(()), None) => Ok(()),
        (Err(e), None) if e.is_data() => Err(Error::bad(path, format!("{path} must be an array."))),
        (Err(e), None) => Err(syntax(&e)),
    }
}

/// Bytes as text.
///
/// # Errors
/// `json_parsing_failed` with the first byte that is not UTF-8.
pub fn text(bytes: &[u8]) -> Result<&str, Error> {
    std::str::from_utf8(bytes).map_err(|e| {
        let good = &bytes[..e.valid_up_to()];
        let line = good.iter().filter(|b| **b == b'\n').count() + 1;
        let column = good.iter().rev().take_while(|b| **b != b'\n').count() + 1;
        Error::new(Code::JsonParsingFailed, format!("The text is not valid UTF-8 at byte {}.", good.len())).detail("line", line).detail("column", column)
    })
}

impl<'a> Object<'a> {
    /// Takes the object `raw` apart.
    ///
    /// # Errors
    /// `json_parsing_failed`, or `bad_parameter` for a member given twice and for what is no object.
    pub fn parse(path: impl Into<String>, raw: &'a str) -> Result<Self, Error> {
        let path = path.into();
        let mut fields: Vec<(Cow<'a, str>, &'a RawValue)> = Vec::with_capacity(8);
        each_member(&path, raw, |name, value| {
            let at = join(&path, &name);
            if fields.iter().any(|(other, _)| *other == name) {
                return Err(Error::bad(&at, format!("{} is given twice.", crate::types::name::quote(&at))));
            }
            if fields.len() == JSON_FIELDS {
                return Err(
                    Error::new(Code::UnknownField, format!("More than {JSON_FIELDS} fields in one object; none has so many.")).detail("field", &*short(&at))
                );
            }
            fields.push((name, value));
            Ok(())
        })?;
        Ok(Self { path, fields, known: Vec::with_capacity(12) })
    }

    /// The path of the member `name`.
    pub fn at(&self, name: &str) -> String {
        join(&self.path, name)
    }

    /// Takes a member; `null` counts as absent.
    pub fn take(&mut self, name: &'static str) -> Option<&'a RawValue> {
        self.known.push(name);
        let index = self.fields.iter().position(|(n, _)| n == name)?;
        let value = self.fields.swap_remove(index).1;
        (value.get() != "null").then_some(value)
    }

    /// A member without taking it: for frames that turn out to be broken.
    pub fn peek(&self, name: &str) -> Option<&'a RawValue> {
        self.fields.iter().find(|(n, _)| n == name).map(|(_, v)| *v)
    }

    /// All members have been taken?
    ///
    /// # Errors
    /// `unknown_field`, naming the first that has not and those that exist.
    pub fn finish(self) -> Result<(), Error> {
        match self.fields.first() {
            None => Ok(()),
            Some((name, _)) => Err(convert::unknown(&join(&self.path, name), self.known.into_iter())),
        }
    }

    /// A member that must be there.
    pub fn need(&mut self, name: &'static str) -> Result<&'a RawValue, Error> {
        self.take(name).ok_or_else(|| convert::missing(&self.at(name)))
    }

    /// An integer, if there.
    pub fn number_if(&mut self, name: &'static str) -> Result<Option<u64>, Error> {
        self.take(name).map(|raw| number(&self.at(name), raw.get())).transpose()
    }

    /// An integer.
    pub fn number(&mut self, name: &'static str) -> Result<u64, Error> {
        let raw = self.need(name)?;
        number(&self.at(name), raw.get())
    }

    /// A string, if there.
    pub fn text_if(&mut self, name: &'static str) -> Result<Option<Cow<'a, str>>, Error> {
        self.take(name).map(|raw| string(&self.at(name), raw.get())).transpose()
    }

    /// A string.
    pub fn text(&mut self, name: &'static str) -> Result<Cow<'a, str>, Error> {
        let raw = self.need(name)?;
        string(&self.at(name), raw.get())
    }

    /// A boolean; absent = false.
    pub fn flag(&mut self, name: &'static str) -> Result<bool, Error> {
        match self.take(name).map(RawValue::get) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(Error::bad(&self.at(name), format!("{} must be true or false.", self.at(name)))),
        }
    }

    /// A word of a closed list, if there.
    pub fn word_if<T>(&mut self, name: &'static str, parse: impl Fn(&str) -> Option<T>, words: &str) -> Result<Option<T>, Error> {
        let text = self.text_if(name)?;
        text.map(|t| convert::word(&self.at(name), &t, parse, words)).transpose()
    }

    /// An object, if there.
    pub fn object_if(&mut self, name: &'static str) -> Result<Option<Object<'a>>, Error> {
        self.take(name).map(|raw| Object::parse(self.at(name), raw.get())).transpose()
    }

    /// The items of an array of a commit, at most so many (T-6); absent = none.
    pub fn items(&mut self, name: &'static str, most: usize, mut each: impl FnMut(String, &'a RawValue) -> Result<(), Error>) -> Result<(), Error> {
        let Some(raw) = self.take(name) else { return Ok(()) };
        let path = self.at(name);
        each_item(&path, raw.get(), |i, item| if i < most { each(format!("{path}[{i}]"), item) } else { Err(convert::too_many(&path, most)) })
    }

    /// A stream's name.
    pub fn stream(&mut self) -> Result<StreamName, Error> {
        let text = self.text("stream")?;
        convert::stream(&self.at("stream"), &text)
    }

    /// A stream's name, if there.
    pub fn stream_if(&mut self) -> Result<Option<StreamName>, Error> {
        let text = self.text_if("stream")?;
        text.map(|t| convert::stream(&self.at("stream"), &t)).transpose()
    }

    /// A stream's id, if there.
    pub fn stream_id(&mut self) -> Result<Option<StreamId>, Error> {
        Ok(self.number_if("stream_id")?.map(StreamId))
    }

    /// A subscription's name, if there.
    pub fn subscription_if(&mut self) -> Result<Option<SubscriptionName>, Error> {
        let text = self.text_if("subscription")?;
        text.map(|t| convert::subscription(&self.at("subscription"), &t)).transpose()
    }

    /// A producer's id, if there.
    pub fn producer_id_if(&mut self) -> Result<Option<ProducerId>, Error> {
        let text = self.text_if("producer")?;
        text.map(|t| convert::producer(&self.at("producer"), &t)).transpose()
    }

    /// A producer's stamp, if there.
    pub fn stamp(&mut self) -> Result<Option<ProducerStamp>, Error> {
        let Some(mut o) = self.object_if("producer")? else { return Ok(None) };
        let (id, epoch, seq) = (o.text("id")?, o.number("epoch")?, o.number("seq")?);
        let path = o.path.clone();
        o.finish()?;
        convert::stamp(&path, &id, epoch, seq).map(Some)
    }

    /// A position: a number, `earliest`, `latest`, or a time; if there.
    pub fn start(&mut self, name: &'static str) -> Result<Option<Start>, Error> {
        let Some(raw) = self.take(name) else { return Ok(None) };
        let field = self.at(name);
        if !raw.get().starts_with('"') {
            return number(&field, raw.get()).map(|n| Some(Start::Offset(n)));
        }
        Ok(Some(match &*string(&field, raw.get())? {
            "earliest" => Start::Earliest,
            "latest" => Start::Latest,
            text => Start::Time(convert::time(&field, text).map_err(|_| {
                Error::bad(
                    &field,
                    format!(
                        "{field} is {}; it may be an offset, \"earliest\", \"latest\" or a time like 2026-01-26T10:00:00Z.",
                        crate::types::name::quote(text)
                    ),
                )
            })?),
        }))
    }
}

/// The path of a member. Names may be anything and of any length; a path is said back, so it is short.
pub fn join(path: &str, name: &str) -> String {
    let name = short(name);
    if path.is_empty() { name.into_owned() } else { format!("{path}.{name}") }
}

/// What `serde_json` says about a value, which it may repeat, and that may be long.
pub fn why(e: &serde_json::Error) -> String {
    let (text, end) = (e.to_string(), format!(" at line {} column {}", e.line(), e.column()));
    match text.strip_suffix(&end) {
        Some(what) => clipped(what, 160).into_owned() + &end,
        None => clipped(&text, 160).into_owned(),
    }
}

/// The integer `raw` at `field`.
pub fn number(field: &str, raw: &str) -> Result<u64, Error> {
    let bad = |why: &str| Err(Error::bad(field, format!("{field} {why}")));
    match raw.as_bytes() {
        [b'-', ..] => bad("must not be negative."),
        digits if digits.iter().all(u8::is_ascii_digit) => match raw.parse() {
            Ok(n) if n <= MAX_INTEGER => Ok(n),
            _ => bad(&format!("is larger than {MAX_INTEGER}.")),
        },
        [b'0'..=b'9', ..] => bad("must be a whole number, written without a point or exponent."),
        _ => bad("must be a number."),
    }
}

/// The string `raw` at `field`.
pub fn string<'a>(field: &str, raw: &'a str) -> Result<Cow<'a, str>, Error> {
    Text.deserialize(&mut serde_json::Deserializer::from_str(raw)).map_err(|_| Error::bad(field, format!("{field} must be a string.")))
}
