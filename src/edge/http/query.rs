//! The query of a URL, taken apart strictly: no parameter twice, none that the route does not know.

use crate::types::filter::Fields;
use crate::types::name::{quote, short};
use crate::types::{Code, Error, Filter, Result};

/// Most parameters of one query: each is compared with all before it.
const PARAMETERS: usize = 32;

/// Parameters that were given and not yet asked for.
#[derive(Debug)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// # Errors
    /// `bad_parameter` for a parameter given twice or a broken escape.
    pub fn parse(raw: Option<&str>) -> Result<Self> {
        let mut pairs: Vec<(String, String)> = Vec::new();
        for pair in raw.unwrap_or_default().split('&').filter(|p| !p.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = decode(name).ok_or_else(|| broken(pair))?;
            let value = decode(value).ok_or_else(|| broken(pair))?;
            if pairs.len() == PARAMETERS {
                return Err(Error::bad(&short(&name), format!("The query has more than {PARAMETERS} parameters; no address knows so many.")));
            }
            if pairs.iter().any(|(n, _)| *n == name) {
                return Err(Error::bad(&short(&name), format!("Query parameter {} is given twice; give it once.", quote(&name))));
            }
            pairs.push((name, value));
        }
        Ok(Self(pairs))
    }

    /// The value, if the parameter was given. Each is asked for once.
    pub fn take(&mut self, name: &str) -> Option<String> {
        let at = self.0.iter().position(|(n, _)| n == name)?;
        Some(self.0.swap_remove(at).1)
    }

    /// As [`Query::take`], with blank meaning absent.
    pub fn take_filled(&mut self, name: &str) -> Option<String> {
        self.take(name).filter(|v| !v.trim().is_empty())
    }

    /// A whole number within bounds.
    ///
    /// # Errors
    /// `bad_parameter`, naming the bounds.
    pub fn take_number(&mut self, name: &str, min: i64, max: i64) -> Result<Option<i64>> {
        let Some(text) = self.take(name) else { return Ok(None) };
        match text.parse::<i64>() {
            Ok(n) if (min..=max).contains(&n) => Ok(Some(n)),
            _ => Err(Error::bad(name, format!("Query parameter {name} is {}; give a whole number from {min} to {max}.", quote(&text)))),
        }
    }

    /// A yes or no: `0` or `1`.
    ///
    /// # Errors
    /// `bad_parameter`.
    pub fn take_flag(&mut self, name: &str) -> Result<bool> {
        Ok(self.take_number(name, 0, 1)? == Some(1))
    }

    /// The filter over these fields, if one was given. Without fields there is none that could hold yet.
    ///
    /// # Errors
    /// `bad_filter`, `unknown_filter_field`; `not_implemented` without fields.
    pub fn take_filter(&mut self, fields: Fields) -> Result<Option<Filter>> {
        match self.take_filled("filter") {
            Some(_) if fields.is_empty() => {
                let why = "Filters are not built for this address yet; read without `filter` and choose yourself.";
                Err(Error::new(Code::NotImplemented, why).detail("field", "filter"))
            }
            given => Filter::given(given.as_deref(), fields),
        }
    }

    /// Nothing else may be there.
    ///
    /// # Errors
    /// `bad_parameter`, naming the first unknown one.
    pub fn finish(self) -> Result<()> {
        match self.0.into_iter().next() {
            None => Ok(()),
            Some((name, _)) => Err(Error::bad(&short(&name), format!("This address knows no query parameter {}.", quote(&name)))),
        }
    }
}

fn broken(pair: &str) -> Error {
    let name = pair.split('=').next().unwrap_or_default();
    Error::bad(&short(name), format!("Query parameter {} has a broken % escape or is not UTF-8.", quote(name)))
}

/// Decodes `+` and `%XX`. `None` for a broken escape or bytes that are not UTF-8.
pub(in crate::edge) fn decode(text: &str) -> Option<String> {
    if !text.contains(['%', '+']) {
        return Some(text.to_owned());
    }
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'+' => b' ',
            b'%' => {
                let high = (bytes.next()? as char).to_digit(16)?;
                let low = (bytes.next()? as char).to_digit(16)?;
                (high * 16 + low) as u8
            }
            other => other,
        });
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded_and_each_is_taken_once() {
        let mut query = Query::parse(Some("after=7&type=order+created%21&flag&blank=")).unwrap();
        assert_eq!(query.take("type").as_deref(), Some("order created!"));
        assert_eq!(query.take("type"), None);
        assert_eq!(query.take("flag").as_deref(), Some(""));
        assert_eq!(query.take_filled("blank"), None);
        assert_eq!(query.take_number("after", 0, 10), Ok(Some(7)));
        assert_eq!(query.finish(), Ok(()));
    }

    #[test]
    fn parameters_given_twice_unknown_or_broken_are_refused_by_name() {
        for (raw, field) in [("a=1&a=1", "a"), ("a=%zz", "a"), ("a=%ff", "a"), ("a=%f", "a")] {
            let error = Query::parse(Some(raw)).unwrap_err();
            assert_eq!((error.code, error.details["field"].as_str()), (Code::BadParameter, Some(field)), "{raw}");
        }
        assert_eq!(Query::parse(Some("nope=1")).unwrap().finish().unwrap_err().details["field"], "nope");
    }

    #[test]
    fn a_query_of_too_many_parameters_or_a_long_one_is_refused_in_few_words() {
        let many = |count: usize| (0..count).map(|i| format!("p{i}")).collect::<Vec<_>>().join("&");
        assert!(Query::parse(Some(&many(PARAMETERS))).is_ok());
        assert_eq!(Query::parse(Some(&many(PARAMETERS + 1))).unwrap_err().code, Code::BadParameter);
        let long = "n".repeat(10_000);
        let error = Query::parse(Some(&long)).unwrap().finish().unwrap_err();
        assert!(error.message.len() + error.details["field"].as_str().unwrap().len() < 400);
    }

    #[test]
    fn numbers_outside_their_bounds_and_words_are_refused() {
        for bad in ["limit=0", "limit=11", "limit=x", "limit=", "limit=99999999999999999999", "limit=1.5"] {
            assert!(Query::parse(Some(bad)).unwrap().take_number("limit", 1, 10).is_err(), "{bad}");
        }
        assert_eq!(Query::parse(Some("limit=10")).unwrap().take_number("limit", 1, 10), Ok(Some(10)));
        assert!(Query::parse(Some("recursion=2")).unwrap().take_flag("recursion").is_err());
    }
}
