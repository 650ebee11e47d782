//! A JSON object in a request body, taken apart strictly: no field twice, none that the route does not know.

use serde::de::{DeserializeOwned, DeserializeSeed, Error as _, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::types::name::{quote, short};
use crate::types::{Code, Error, Result, limits};

/// Most unknown fields that an error lists.
const LISTED: usize = 4;

/// Fields that were given and not yet asked for.
#[derive(Debug)]
pub struct Fields<'a>(Vec<(String, &'a RawValue)>);

/// Why a body is not read to its end.
enum Stop {
    /// The name of the field that is one too many.
    TooMany(String),
    /// A field nests too deep.
    TooDeep,
}

/// Takes the fields of an object, unless there is a reason to stop.
struct Taken<'s>(&'s mut Option<Stop>);

impl<'de> DeserializeSeed<'de> for Taken<'_> {
    type Value = Fields<'de>;
    fn deserialize<D: serde::Deserializer<'de>>(self, from: D) -> std::result::Result<Fields<'de>, D::Error> {
        from.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Taken<'_> {
    type Value = Fields<'de>;
    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a JSON object")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Fields<'de>, A::Error> {
        let mut fields = Vec::new();
        while let Some(name) = map.next_key::<String>()? {
            if fields.len() == limits::JSON_FIELDS {
                *self.0 = Some(Stop::TooMany(name));
                return Err(A::Error::custom("stopped"));
            }
            let value = map.next_value::<&'de RawValue>()?;
            // The object itself is a level.
            if deeper_than(value.get().as_bytes(), limits::JSON_DEPTH - 1) {
                *self.0 = Some(Stop::TooDeep);
                return Err(A::Error::custom("stopped"));
            }
            fields.push((name, value));
        }
        Ok(Fields(fields))
    }
}

impl<'a> Fields<'a> {
    /// # Errors
    /// `json_parsing_failed` when it is not one JSON object within the depth limit; `unknown_field` when it has more fields than any may
    /// have; `bad_parameter` for a field given twice.
    pub fn parse(body: &'a [u8]) -> Result<Self> {
        let failed = |why: String| Error::new(Code::JsonParsingFailed, why);
        let text = std::str::from_utf8(body).map_err(|e| failed(format!("The body is not UTF-8 at byte {}.", e.valid_up_to())))?;
        let mut stop = None;
        let mut reader = serde_json::Deserializer::from_str(text);
        let read = Taken(&mut stop).deserialize(&mut reader).and_then(|fields| reader.end().map(|()| fields));
        match stop {
            None => {}
            Some(Stop::TooMany(name)) => {
                let why = format!("More than {} fields in the body; no request has so many.", limits::JSON_FIELDS);
                return Err(Error::new(Code::UnknownField, why).detail("field", &*short(&name)));
            }
            Some(Stop::TooDeep) => return Err(failed(format!("The body nests deeper than {} levels.", limits::JSON_DEPTH))),
        }
        let Self(pairs) = read.map_err(|e| {
            if text.trim().is_empty() {
                failed("The body is empty; send a JSON object.".into())
            } else {
                // About another value than an object the library repeats that value.
                let why = if e.is_data() { String::new() } else { format!(": {e}") };
                failed(format!("The body is not a JSON object{why}.")).detail("line", e.line()).detail("column", e.column())
            }
        })?;
        for (i, (name, _)) in pairs.iter().enumerate() {
            if pairs[..i].iter().any(|(n, _)| n == name) {
                return Err(Error::bad(&short(name), format!("Field {} is given twice; give it once.", quote(name))));
            }
        }
        Ok(Self(pairs))
    }

    /// As [`Fields::parse`]; a blank body is an empty object.
    ///
    /// # Errors
    /// See there.
    pub fn parse_or_empty(body: &'a [u8]) -> Result<Self> {
        if body.trim_ascii().is_empty() { Ok(Self(Vec::new())) } else { Self::parse(body) }
    }

    /// The bytes of a field's value as they were sent; `null` counts as absent.
    pub fn take_raw(&mut self, name: &str) -> Option<&'a RawValue> {
        let at = self.0.iter().position(|(n, _)| n == name)?;
        Some(self.0.swap_remove(at).1).filter(|raw| raw.get() != "null")
    }

    /// A field's value; `expected` says in words what it should be.
    ///
    /// # Errors
    /// `bad_parameter` when it is something else.
    pub fn take<T: DeserializeOwned>(&mut self, name: &str, expected: &str) -> Result<Option<T>> {
        let Some(raw) = self.take_raw(name) else { return Ok(None) };
        serde_json::from_str(raw.get()).map(Some).map_err(|_| Error::bad(name, format!("Field {name} is {}; it must be {expected}.", quote(raw.get()))))
    }

    /// As [`Fields::take`], and it must be there.
    ///
    /// # Errors
    /// `bad_parameter`.
    pub fn need<T: DeserializeOwned>(&mut self, name: &str, expected: &str) -> Result<T> {
        self.take(name, expected)?.ok_or_else(|| Error::bad(name, format!("Field {name} is missing; it must be {expected}.")))
    }

    /// A whole number within bounds.
    ///
    /// # Errors
    /// `bad_parameter`, naming the bounds.
    pub fn take_number(&mut self, name: &str, min: u64, max: u64) -> Result<Option<u64>> {
        let expected = format!("a whole number from {min} to {max}");
        match self.take::<u64>(name, &expected)? {
            Some(n) if !(min..=max).contains(&n) => Err(Error::bad(name, format!("Field {name} is {n}; it must be {expected}."))),
            within => Ok(within),
        }
    }

    /// A word of a closed list; `words` says which.
    ///
    /// # Errors
    /// `bad_parameter`.
    pub fn take_word<T>(&mut self, name: &str, parse: impl Fn(&str) -> Option<T>, words: &str) -> Result<Option<T>> {
        let Some(text) = self.take::<String>(name, words)? else { return Ok(None) };
        parse(&text).map(Some).ok_or_else(|| Error::bad(name, format!("Field {name} is {}; it must be {words}.", quote(&text))))
    }

    /// A text that no error repeats.
    ///
    /// # Errors
    /// `bad_parameter`.
    pub fn take_secret(&mut self, name: &str) -> Result<Option<String>> {
        let Some(raw) = self.take_raw(name) else { return Ok(None) };
        serde_json::from_str(raw.get()).map(Some).map_err(|_| Error::bad(name, format!("Field {name} must be text.")))
    }

    /// A field that may be there, but says what the address says already.
    ///
    /// # Errors
    /// `bad_parameter` when it says something else.
    pub fn take_same(&mut self, name: &str, expected: &str) -> Result<()> {
        match self.take::<String>(name, "text")? {
            Some(text) if text != expected => Err(Error::bad(name, format!("Field {name} is {}, the address says {}.", quote(&text), quote(expected)))),
            _ => Ok(()),
        }
    }

    /// Read-only fields: a whole object that comes back has them too (PUT), a change of some fields must not (`surfaces.md` 5.9).
    ///
    /// # Errors
    /// `read_only_field`, naming the first.
    pub fn read_only(&mut self, names: &[&str], replace: bool) -> Result<()> {
        if replace {
            self.ignore(names);
            return Ok(());
        }
        self.refuse_read_only(names)
    }

    /// Fields that mean nothing here.
    pub fn ignore(&mut self, names: &[&str]) {
        self.0.retain(|(name, _)| !names.contains(&name.as_str()));
    }

    /// These exist on the object but only the server sets them.
    ///
    /// # Errors
    /// `read_only_field`, naming the first.
    pub fn refuse_read_only(&self, names: &[&str]) -> Result<()> {
        match self.0.iter().find(|(n, _)| names.contains(&n.as_str())) {
            None => Ok(()),
            Some((name, _)) => Err(Error::new(Code::ReadOnlyField, format!("Field {name} is set by the broker; leave it out.")).detail("field", name.as_str())),
        }
    }

    /// These are planned; a value for them would have to hold.
    ///
    /// # Errors
    /// `not_implemented`, naming the first that is given and not `null`.
    pub fn refuse_unbuilt(&mut self, names: &[&str]) -> Result<()> {
        for name in names {
            if self.take_raw(name).is_some() {
                return Err(Error::new(Code::NotImplemented, format!("Field {name} is not built yet; leave it out.")).detail("field", *name));
            }
        }
        Ok(())
    }

    /// Nothing else may be there.
    ///
    /// # Errors
    /// `unknown_field`, listing the offenders, at most [`LISTED`] of them.
    pub fn finish(self) -> Result<()> {
        if self.0.is_empty() {
            return Ok(());
        }
        let all: Vec<_> = self.0.iter().take(LISTED).map(|(n, _)| short(n)).collect();
        let errors: Vec<serde_json::Value> = all.iter().map(|n| serde_json::json!({"field": n, "problem": "unknown"})).collect();
        Err(Error::new(Code::UnknownField, format!("Unknown field {}.", all.iter().map(|n| quote(n)).collect::<Vec<_>>().join(", ")))
            .detail("field", &*all[0])
            .detail("errors", errors))
    }
}

/// Does the text nest objects and arrays deeper than `limit`? Strings are skipped; whether it is JSON at all is not asked.
fn deeper_than(text: &[u8], limit: usize) -> bool {
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    for &byte in text {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'{' | b'[' => {
                depth += 1;
                if depth > limit {
                    return true;
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_taken_once_and_null_is_absent() {
        let mut fields = Fields::parse(br#" {"name":"orders","limit":7,"none":null} "#).unwrap();
        assert_eq!(fields.need::<String>("name", "text").unwrap(), "orders");
        assert_eq!(fields.take::<u64>("limit", "a number").unwrap(), Some(7));
        assert_eq!(fields.take::<u64>("none", "a number").unwrap(), None);
        assert_eq!(fields.take::<u64>("absent", "a number").unwrap(), None);
        assert_eq!(fields.finish(), Ok(()));
    }

    #[test]
    fn whatever_is_not_one_json_object_is_json_parsing_failed() {
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(40), "]".repeat(40));
        for bad in ["", "[]", "null", "7", "{", "{} {}", "{\"a\":}", "\u{feff}{}", deep.as_str()] {
            assert_eq!(Fields::parse(bad.as_bytes()).unwrap_err().code, Code::JsonParsingFailed, "{bad}");
        }
        assert_eq!(Fields::parse(b"{\"a\":\"\xff\"}").unwrap_err().code, Code::JsonParsingFailed);
    }

    #[test]
    fn fields_given_twice_mistyped_missing_or_unknown_are_named() {
        let field = |e: Error| (e.code, e.details["field"].as_str().unwrap().to_owned());
        assert_eq!(field(Fields::parse(br#"{"a":1,"a":1}"#).unwrap_err()), (Code::BadParameter, "a".into()));
        assert_eq!(field(Fields::parse(br#"{"a":"x"}"#).unwrap().take::<u64>("a", "a number").unwrap_err()), (Code::BadParameter, "a".into()));
        assert_eq!(field(Fields::parse(b"{}").unwrap().need::<u64>("a", "a number").unwrap_err()), (Code::BadParameter, "a".into()));
        assert_eq!(field(Fields::parse(br#"{"b":1}"#).unwrap().finish().unwrap_err()), (Code::UnknownField, "b".into()));
        assert_eq!(field(Fields::parse(br#"{"id":1}"#).unwrap().refuse_read_only(&["id"]).unwrap_err()), (Code::ReadOnlyField, "id".into()));
    }

    #[test]
    fn a_body_of_half_a_million_fields_is_refused_at_the_field_that_is_too_many() {
        let body = |n: usize| format!("{{{}}}", (0..n).map(|i| format!("\"{i}\":1")).collect::<Vec<_>>().join(","));
        assert!(Fields::parse(body(limits::JSON_FIELDS - 1).as_bytes()).is_ok() && Fields::parse(body(limits::JSON_FIELDS).as_bytes()).is_ok());
        for n in [limits::JSON_FIELDS + 1, 500_000] {
            let error = Fields::parse(body(n).as_bytes()).unwrap_err();
            assert_eq!((error.code, error.details["field"].as_str()), (Code::UnknownField, Some("32")), "{n}");
        }
        // Nobody looks at what comes behind it, not even whether it is JSON.
        let broken = body(limits::JSON_FIELDS + 1).replace("\"32\":1}", "\"32\":][");
        assert_eq!(Fields::parse(broken.as_bytes()).unwrap_err().code, Code::UnknownField);
        let sooner = body(limits::JSON_FIELDS + 1).replace("\"31\":1", "\"31\":]");
        assert_eq!(Fields::parse(sooner.as_bytes()).unwrap_err().code, Code::JsonParsingFailed);
    }

    #[test]
    fn a_field_may_nest_so_deep_that_the_body_has_32_levels() {
        let body = |depth: usize| format!("{{\"a\":{}{}}}", "[".repeat(depth - 1), "]".repeat(depth - 1));
        assert!(Fields::parse(body(limits::JSON_DEPTH).as_bytes()).is_ok());
        let error = Fields::parse(body(limits::JSON_DEPTH + 1).as_bytes()).unwrap_err();
        assert_eq!((error.code, error.message.as_str()), (Code::JsonParsingFailed, "The body nests deeper than 32 levels."));
    }

    #[test]
    fn numbers_and_words_are_held_to_their_lists() {
        let number = |body: &str| Fields::parse(body.as_bytes()).unwrap().take_number("n", 1, 10);
        assert_eq!((number(r#"{"n":1}"#), number(r#"{"n":10}"#), number("{}")), (Ok(Some(1)), Ok(Some(10)), Ok(None)));
        for bad in [r#"{"n":0}"#, r#"{"n":11}"#, r#"{"n":-1}"#, r#"{"n":"1"}"#, r#"{"n":1.0}"#, r#"{"n":99999999999999999999}"#] {
            assert!(number(bad).unwrap_err().message.contains("from 1 to 10"), "{bad}");
        }
        let word = |body: &str| Fields::parse(body.as_bytes()).unwrap().take_word("w", |w| (w == "yes").then_some(true), "yes");
        assert_eq!((word(r#"{"w":"yes"}"#), word("{}")), (Ok(Some(true)), Ok(None)));
        assert!(word(r#"{"w":"no"}"#).is_err() && word(r#"{"w":true}"#).is_err());
    }

    #[test]
    fn an_object_of_thousands_of_fields_is_refused_at_once_and_nothing_is_said_back_at_length() {
        let many: Vec<_> = (0..200_000).map(|i| format!("\"m{i}\":0")).collect();
        let error = Fields::parse(format!("{{{}}}", many.join(",")).as_bytes()).unwrap_err();
        assert_eq!((error.code, error.details["field"].as_str()), (Code::UnknownField, Some("m32")));
        let long = "n".repeat(1 << 20);
        for body in [format!("\"{long}\""), format!("{{\"{long}\":1,\"{long}\":1}}")] {
            let error = Fields::parse(body.as_bytes()).unwrap_err();
            assert!(error.message.len() + error.details.values().map(|v| v.to_string().len()).sum::<usize>() < 500, "{:?}", error.code);
        }
        let error = Fields::parse(format!("{{\"{long}\":1,\"b\":2,\"c\":3,\"d\":4,\"e\":5}}").as_bytes()).unwrap().finish().unwrap_err();
        assert_eq!(error.details["errors"].as_array().unwrap().len(), LISTED);
        assert!(error.message.len() < 500);
    }

    #[test]
    fn brackets_inside_strings_do_not_nest() {
        assert!(!deeper_than(br#"{"a":"[[[[\"[[["}"#, 1));
        assert!(deeper_than(b"[[", 1));
    }
}
