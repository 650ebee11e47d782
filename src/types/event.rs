//! One event, borrowed from the bytes it lives in.

/// How `data` is to be read (`formats.md` section 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Hash)]
#[repr(u8)]
pub enum Encoding {
    /// `data` is the text of one JSON value.
    #[default]
    Json = 0,
    /// `data` is UTF-8 text.
    Utf8 = 1,
    /// `data` is any bytes; JSON forms show it in base64.
    Binary = 2,
}

impl Encoding {
    /// From the number on the wire.
    pub fn from_number(number: u64) -> Option<Self> {
        [Self::Json, Self::Utf8, Self::Binary].into_iter().find(|e| *e as u64 == number)
    }

    /// The word in the JSON form of an event.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Utf8 => "utf8",
            Self::Binary => "base64",
        }
    }

    /// Reads [`Encoding::as_str`] back.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Json, Self::Utf8, Self::Binary].into_iter().find(|e| e.as_str() == text)
    }
}

/// Why an event's content is gone while its offset stays (`decisions.md` section 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Hash)]
#[repr(u8)]
pub enum Removed {
    /// It is there.
    #[default]
    No = 0,
    /// Its time to live ended.
    Expired = 1,
    /// An operator redacted it.
    Redacted = 2,
    /// A newer event of its key replaced it.
    Compacted = 3,
}

/// One event, borrowed.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct EventRef<'a> {
    /// The payload.
    pub data: &'a [u8],
    /// How to read the payload.
    pub encoding: Encoding,
    /// What happened, may be empty.
    pub kind: &'a str,
    /// What it happened to, may be empty.
    pub key: &'a str,
    /// Name and value pairs; names unique, order kept.
    pub headers: Vec<(&'a str, &'a str)>,
    /// Set by the server only.
    pub removed: Removed,
}
