//! Points in time as the broker stores them.

use std::fmt;

use super::error::{Code, Error};

/// Microseconds since the Unix epoch, UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct TimeUs(pub i64);

impl TimeUs {
    /// The wall clock. Only the edges, the commit loop's driver and the CLI ask; rules take the time as an argument (S-9).
    pub fn now() -> Self {
        Self(jiff::Timestamp::now().as_microsecond())
    }

    /// Reads RFC 3339, for example `2026-01-26T10:00:00.123456Z`.
    ///
    /// # Errors
    /// `bad_parameter` with the text.
    pub fn parse(text: &str) -> Result<Self, Error> {
        text.parse::<jiff::Timestamp>()
            .map(|t| Self(t.as_microsecond()))
            .map_err(|_| Error::new(Code::BadParameter, format!("{} is not a time; write it like 2026-01-26T10:00:00Z.", super::name::quote(text))))
    }

    /// Seconds from `earlier` to this time, never negative.
    pub fn seconds_since(self, earlier: TimeUs) -> f64 {
        (self.0.saturating_sub(earlier.0)).max(0) as f64 / 1e6
    }
}

impl fmt::Display for TimeUs {
    /// RFC 3339 in UTC with microseconds and a trailing `Z`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_microsecond(self.0) {
            Ok(t) => write!(f, "{t:.6}"),
            Err(_) => f.write_str("9999-12-31T23:59:59.999999Z"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_print_with_microseconds_and_read_back() {
        let t = TimeUs(1_769_421_600_123_456);
        assert_eq!(t.to_string(), "2026-01-26T10:00:00.123456Z");
        assert_eq!(TimeUs::parse(&t.to_string()).unwrap(), t);
        assert!(TimeUs::parse("yesterday").is_err());
    }
}
