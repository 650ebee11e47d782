//! `tidelog store check`: does a closed data directory agree with itself? Read-only, and in memory that does not grow with the data.
//!
//! Everything that belongs to a stream has the stream's id in front of its key, in every table. So the tables are walked side by side, in
//! the order of ids, with one row of each in memory; what no stream claims on the way is an orphan. The batches of each stream are read as
//! the broker reads them, CRC and chain included.

mod access;
mod batches;
mod catalogue;
mod producers;
mod report;
mod streams;
mod subscriptions;
mod tables;

use std::path::Path;
use std::time::Instant;

pub use report::{Counts, DAMAGES_KEPT, Damage, Part, Report};

use super::rocks::Closed;
use super::rows::{self, value};
use super::{Key, OpenError, Space};
use crate::types::id::AUDIT_STREAM;
use crate::types::name::AUDIT;
use crate::types::{StreamId, StreamName};
use tables::Tables;

/// Hears how far a check is: the part, and how many more of its things are done.
pub type Progress<'a> = &'a mut dyn FnMut(&'static str, u64);

/// Why there is no report.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckError {
    /// The directory cannot be looked at; nothing is said about the data.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// There is no such directory or stream.
    #[error("{0}")]
    NotFound(String),
}

/// Checks the data directory `dir`, or one stream of it. Changes no byte, and refuses while a broker has it.
///
/// # Errors
/// [`CheckError`]. Damage is no error; it is in the report.
pub fn check_store(dir: &Path, only: Option<&str>, progress: Progress<'_>) -> Result<Report, CheckError> {
    if !dir.join("db").join("CURRENT").is_file() {
        return Err(CheckError::NotFound(format!(
            "There is no Tidelog data in {}: it has no db/CURRENT. Name the directory of `tidelog serve --data`.",
            dir.display()
        )));
    }
    let mut check = Check { report: Report { complete: true, ..Report::default() }, progress };
    let began = Instant::now();
    let (store, outside) = Closed::open(dir)?;
    check.report.notes.extend(outside.notes);
    outside.damage.into_iter().for_each(|what| check.report.damage(what));
    check.part("opening", began);
    match &store {
        Some(store) => check.all(store, only)?,
        None => check.report.complete = false,
    }
    let mut report = check.report;
    report.ok = report.damaged == 0;
    Ok(report)
}

/// A check under way.
struct Check<'a> {
    report: Report,
    progress: Progress<'a>,
}

/// What the catalogue says about all streams.
struct Limits {
    counters: value::Counters,
}

impl Check<'_> {
    fn part(&mut self, name: &'static str, began: Instant) {
        self.report.parts.push(Part { name, time: began.elapsed() });
    }

    fn all(&mut self, store: &Closed, only: Option<&str>) -> Result<(), CheckError> {
        let only = match only {
            Some(name) => Some(self.find(store, name)?),
            None => None,
        };
        let began = Instant::now();
        if only.is_none() {
            if let Err(why) = store.blocks() {
                self.report.damage(format!("a block of a table file does not fit its checksum: {why}"));
            }
            self.part("block checksums", began);
        }
        let began = Instant::now();
        let readable = only.is_some() || self.every_row(store);
        self.part("rows", began);
        if !readable {
            self.report.complete = false;
            self.report.notes.push("some rows cannot be read, so rows were not compared with each other; batches were checked by themselves".into());
        }
        let began = Instant::now();
        let limits = Limits { counters: self.fixed_rows(store) };
        if readable && only.is_none() {
            self.indexes(store);
            self.access(store, &limits.counters);
            self.part("catalogue", began);
        }
        let began = Instant::now();
        match Tables::open(store, only) {
            Ok(tables) if readable => self.streams(store, tables, &limits, only),
            Ok(_) => self.bare_streams(store),
            Err(why) => self.unreadable(&why),
        }
        self.part("streams", began);
        Ok(())
    }

    /// Something could not be read, so it could not be checked either.
    fn unreadable(&mut self, why: &str) {
        self.report.complete = false;
        self.report.damage(format!("stored rows cannot be read: {why}"));
    }

    fn find(&mut self, store: &Closed, name: &str) -> Result<StreamId, CheckError> {
        let folded = StreamName::stored(name).folded().into_owned();
        if folded == AUDIT {
            return Ok(AUDIT_STREAM);
        }
        let missing = || CheckError::NotFound(format!("There is no stream {} in this directory.", crate::types::name::quote(name)));
        if folded.len() > usize::from(u8::MAX) {
            return Err(missing());
        }
        let found = store.get(&[Key::StreamName(&folded).encode()]).map_err(OpenError::Failed)?;
        let id = found.into_iter().next().flatten().ok_or_else(missing)?;
        rows::decode_id(&id).map(StreamId).map_err(|why| OpenError::Refused(format!("The name of the stream leads nowhere: {why}.")).into())
    }

    /// Reads all rows once: can they be read at all, and are their kinds known?
    fn every_row(&mut self, store: &Closed) -> bool {
        let mut readable = true;
        for (space, kinds) in [(Space::State, &tables::STATE_KINDS[..]), (Space::Meta, &tables::META_KINDS[..])] {
            let mut last = Vec::new();
            let rows = match store.rows(space, Vec::new(), None) {
                Ok(rows) => rows,
                Err(why) => {
                    self.unreadable(&why);
                    return false;
                }
            };
            for row in rows {
                match row {
                    Ok((key, _)) => {
                        self.report.counts.rows += 1;
                        (self.progress)("rows", 1);
                        if !key.first().is_some_and(|kind| kinds.contains(kind)) {
                            self.report.damage(format!("a row of a kind that this version does not know: {space:?} {key:02x?}"));
                        }
                        last = key;
                    }
                    Err(why) => {
                        readable = false;
                        self.report.damage(format!("rows of {space:?} behind the key {last:02x?} cannot be read: {why}"));
                    }
                }
            }
        }
        match store.strangers().map(|mut rows| rows.next()) {
            Ok(None) => {}
            Ok(Some(Ok((key, _)))) => self.report.damage(format!("a table that must be empty holds the key {key:02x?}")),
            Ok(Some(Err(why))) | Err(why) => self.unreadable(&why),
        }
        readable
    }
}
