//! `grpc-timeout`: how long the caller waits, at most eight digits and a unit.

use std::time::Duration;

use http::HeaderMap;

use crate::types::name::quote;
use crate::types::{Error, Result, limits};

/// What the caller said; longer than [`limits::GRPC_TIMEOUT_MAX`] is cut to it.
///
/// # Errors
/// `bad_parameter` when it is not a timeout, or is given twice.
pub fn of(headers: &HeaderMap) -> Result<Option<Duration>> {
    let mut values = headers.get_all("grpc-timeout").iter();
    let Some(value) = values.next() else { return Ok(None) };
    let text = String::from_utf8_lossy(value.as_bytes());
    let bad = || Error::bad("grpc-timeout", format!("grpc-timeout is {}; give it once, as 1 to 8 digits and one of H M S m u n.", quote(&text)));
    if values.next().is_some() {
        return Err(bad());
    }
    parse(&text).map(|timeout| Some(timeout.min(limits::GRPC_TIMEOUT_MAX))).ok_or_else(bad)
}

fn parse(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let n: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(n * 3600)),
        "M" => Some(Duration::from_secs(n * 60)),
        "S" => Some(Duration::from_secs(n)),
        "m" => Some(Duration::from_millis(n)),
        "u" => Some(Duration::from_micros(n)),
        "n" => Some(Duration::from_nanos(n)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(values: &[&str]) -> Result<Option<Duration>> {
        of(&values.iter().map(|v| (http::HeaderName::from_static("grpc-timeout"), v.parse().unwrap())).collect())
    }

    #[test]
    fn timeouts_are_read_in_every_unit_and_cut_to_the_limit() {
        for (text, expected) in [
            ("2H", Duration::from_secs(7200)),
            ("3M", Duration::from_secs(180)),
            ("10S", Duration::from_secs(10)),
            ("00000250m", Duration::from_millis(250)),
            ("7u", Duration::from_micros(7)),
            ("0n", Duration::ZERO),
            ("99999999H", limits::GRPC_TIMEOUT_MAX),
        ] {
            assert_eq!(asked(&[text]).unwrap(), Some(expected), "{text}");
        }
        assert_eq!(asked(&[]), Ok(None));
    }

    #[test]
    fn anything_else_is_a_bad_parameter() {
        for bad in ["", "S", "10", "10s", "10 S", "-1S", "1.5S", "+1S", "123456789S", "1é", "S10"] {
            assert_eq!(asked(&[bad]).unwrap_err().code, crate::types::Code::BadParameter, "{bad:?}");
        }
        assert!(asked(&["1S", "1S"]).is_err());
    }
}
