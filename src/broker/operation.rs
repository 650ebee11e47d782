//! Operations: background work one can wait for. Here: the row and its two moments, begin and end.

use super::info::OperationInfo;
use crate::log::rows::value;
use crate::types::{OperationId, StreamId, StreamName, TimeUs};

/// Status code of an operation at work.
pub const RUNNING: u32 = 103;
/// Status code of one that ended well.
pub const SUCCESS: u32 = 200;

/// A change that is its own operation: it has ended when it is answered. Its row is written in the commit of the change, and only with it.
#[derive(Clone, Debug)]
pub struct Note {
    /// Random.
    pub id: OperationId,
    /// For people.
    pub description: &'static str,
    /// For programs: `right.Set`.
    pub command: &'static str,
    /// Name of the stream it is about; empty = none.
    pub stream: String,
}

/// What a noted change leaves.
pub fn done(note: Note, requestor: u64, now: TimeUs) -> OperationInfo {
    OperationInfo {
        id: note.id,
        description: note.description.to_owned(),
        command: note.command.to_owned(),
        created: now,
        updated: now,
        status_code: SUCCESS,
        stream: note.stream,
        err: String::new(),
        err_code: String::new(),
        requestor,
        requestor_name: String::new(),
    }
}

/// A new operation on a stream.
pub fn begin(id: OperationId, description: &str, command: &str, stream: &StreamName, requestor: u64, now: TimeUs) -> OperationInfo {
    OperationInfo {
        id,
        description: description.to_owned(),
        command: command.to_owned(),
        created: now,
        updated: now,
        status_code: RUNNING,
        stream: stream.to_string(),
        err: String::new(),
        err_code: String::new(),
        requestor,
        requestor_name: String::new(),
    }
}

/// The stored row.
pub fn to_row(info: &OperationInfo, stream: StreamId) -> value::Operation {
    value::Operation {
        description: info.description.clone(),
        command: info.command.clone(),
        created_us: info.created.0,
        updated_us: info.updated.0,
        status_code: info.status_code,
        stream: info.stream.clone(),
        stream_id: stream.0,
        err: info.err.clone(),
        err_code: info.err_code.clone(),
        requestor: info.requestor,
    }
}

/// From the stored row.
pub fn from_row(id: OperationId, row: value::Operation) -> OperationInfo {
    OperationInfo {
        id,
        description: row.description,
        command: row.command,
        created: TimeUs(row.created_us),
        updated: TimeUs(row.updated_us),
        status_code: row.status_code,
        stream: row.stream,
        err: row.err,
        err_code: row.err_code,
        requestor: row.requestor,
        requestor_name: String::new(),
    }
}

impl OperationInfo {
    /// Will it change no more?
    pub fn is_final(&self) -> bool {
        self.status_code >= SUCCESS
    }
}
