//! Checks on single values that hold in every form of a frame: names, words, numbers. Each names the field it looked at.

use crate::types::request::{CommitCheck, ProducerStamp};
use crate::types::{Code, Error, ProducerId, StreamName, SubscriptionName, TimeUs, name};

/// Largest integer that every reader of JSON can hold (`formats.md` section 3). Both forms refuse larger ones, so that what one
/// client sends every other client can read.
pub const MAX_INTEGER: u64 = crate::types::limits::INTEGER_MAX;

/// A stream's name at `field`.
pub fn stream(field: &str, text: &str) -> Result<StreamName, Error> {
    StreamName::parse(text).map_err(|e| e.detail("field", field))
}

/// A subscription's name at `field`.
pub fn subscription(field: &str, text: &str) -> Result<SubscriptionName, Error> {
    SubscriptionName::parse(text).map_err(|e| e.detail("field", field))
}

/// A producer's id at `field`.
pub fn producer(field: &str, text: &str) -> Result<ProducerId, Error> {
    ProducerId::parse(text).map_err(|e| e.detail("field", field))
}

/// A time at `field`.
pub fn time(field: &str, text: &str) -> Result<TimeUs, Error> {
    TimeUs::parse(text).map_err(|e| e.detail("field", field))
}

/// A producer's stamp at `field`.
pub fn stamp(field: &str, id: &str, epoch: u64, seq: u64) -> Result<ProducerStamp, Error> {
    Ok(ProducerStamp { id: producer(&format!("{field}.id"), id)?, epoch, seq })
}

/// A condition of a commit at `field`.
pub fn check(field: &str, stream_name: &str, expected_next_offset: u64) -> Result<CommitCheck, Error> {
    Ok(CommitCheck { stream: stream(&format!("{field}.stream"), stream_name)?, expected_next_offset })
}

/// A word of a closed list at `field`.
pub fn word<T>(field: &str, text: &str, parse: impl Fn(&str) -> Option<T>, words: &str) -> Result<T, Error> {
    parse(text).ok_or_else(|| Error::bad(field, format!("{field} is {}; it may be {words}.", name::quote(text))))
}

/// A credential: exactly one of key and ticket.
pub fn credential(key: &Option<String>, ticket: &Option<String>) -> Result<(), Error> {
    match (key, ticket) {
        (Some(_), None) | (None, Some(_)) => Ok(()),
        _ => Err(Error::bad("key", "auth needs exactly one of key and ticket.")),
    }
}

/// A list of a commit is longer than any may be: it is refused at its first item too many, before it takes more memory.
pub fn too_many(field: &str, limit: usize) -> Error {
    let message = format!("{field} has more than {limit} entries, which is the limit.");
    Error::new(Code::TxnTooLarge, message).rule("T-6").detail("field", field).detail("limit", limit as u64)
}

/// A field that is not there.
pub fn missing(field: &str) -> Error {
    Error::bad(field, format!("{field} is missing."))
}

/// A field that does not exist.
pub fn unknown(field: &str, known: impl Iterator<Item = &'static str>) -> Error {
    let known: Vec<_> = known.collect();
    Error::new(Code::UnknownField, format!("{} is not a field here; known are: {}.", name::quote(field), known.join(", "))).detail("field", field)
}

/// An error about `events[3].data` becomes one about `appends[1].events[3].data`.
pub fn below(mut error: Error, parent: &str) -> Error {
    if let Some(field) = error.details.get("field").and_then(|f| f.as_str()) {
        let path = format!("{parent}.{field}");
        error.message = if error.message.starts_with(field) { format!("{parent}.{}", error.message) } else { format!("{path}: {}", error.message) };
        error = error.detail("field", path);
    }
    error
}
