//! Events as programs handle them: [`NewEvent`] before the append, [`Event`] as it arrives.

use std::sync::Arc;

use bytes::Bytes;

use super::Error;
use crate::types::{Batch, Encoding, EventRef, Events, EventsBuilder, Removed, StreamId, TimeUs};

/// An event to append.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewEvent {
    /// The payload.
    pub data: Bytes,
    /// How to read the payload.
    pub encoding: Encoding,
    /// What happened, may be empty.
    pub kind: String,
    /// What it happened to, may be empty.
    pub key: String,
    /// Name and value pairs; names unique, order kept.
    pub headers: Vec<(String, String)>,
}

impl NewEvent {
    /// Text.
    pub fn text(data: impl Into<String>) -> Self {
        Self { data: Bytes::from(data.into()), encoding: Encoding::Utf8, ..Self::default() }
    }

    /// Any bytes.
    pub fn binary(data: impl Into<Bytes>) -> Self {
        Self { data: data.into(), encoding: Encoding::Binary, ..Self::default() }
    }

    /// The JSON form of a value.
    ///
    /// # Errors
    /// [`Error::Usage`] when the value has no JSON form.
    pub fn json(value: &impl serde::Serialize) -> Result<Self, Error> {
        let data = serde_json::to_vec(value).map_err(|e| Error::Usage(format!("The value has no JSON form: {e}.")))?;
        Ok(Self { data: data.into(), encoding: Encoding::Json, ..Self::default() })
    }

    /// Sets the type.
    pub fn kind(mut self, kind: impl Into<String>) -> Self {
        self.kind = kind.into();
        self
    }

    /// Sets the key.
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.key = key.into();
        self
    }

    /// Adds a header.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Borrowed, for the batch codec.
    pub fn as_ref(&self) -> EventRef<'_> {
        EventRef {
            data: &self.data,
            encoding: self.encoding,
            kind: &self.kind,
            key: &self.key,
            headers: self.headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect(),
            removed: Removed::No,
        }
    }
}

/// What can be appended: one event, several, or a batch that is encoded already.
pub trait IntoEvents {
    /// Checks and encodes.
    ///
    /// # Errors
    /// `bad_parameter` or `too_large`, naming the event and the field.
    fn into_events(self) -> Result<Events, Error>;
}

impl IntoEvents for Events {
    fn into_events(self) -> Result<Events, Error> {
        Ok(self)
    }
}

impl IntoEvents for NewEvent {
    fn into_events(self) -> Result<Events, Error> {
        vec![self].into_events()
    }
}

impl IntoEvents for Vec<NewEvent> {
    fn into_events(self) -> Result<Events, Error> {
        let mut builder = EventsBuilder::with_capacity(self.iter().map(|e| e.data.len() + 64).sum());
        for event in &self {
            builder.push(&event.as_ref())?;
        }
        Ok(builder.finish()?)
    }
}

/// An event as it arrives. Keyed effects (recipe K-2) use (`stream_id`, `log_epoch`, `offset`): no two events share it.
#[derive(Clone, Debug)]
pub struct Event {
    /// The stream's id; a re-created name has another.
    pub stream_id: StreamId,
    /// Of which history the offset is.
    pub log_epoch: u64,
    /// Position in the stream.
    pub offset: u64,
    /// When it was stored.
    pub time: TimeUs,
    /// What happened, may be empty.
    pub kind: String,
    /// What it happened to, may be empty.
    pub key: String,
    /// Name and value pairs.
    pub headers: Vec<(String, String)>,
    /// The payload; shares the memory of the frame it came in.
    pub data: Bytes,
    /// How to read the payload.
    pub encoding: Encoding,
    batch: Arc<Batch>,
}

impl Event {
    /// Takes one event of a batch.
    pub(crate) fn of(batch: &Arc<Batch>, offset: u64, event: EventRef<'_>) -> Self {
        Self {
            stream_id: batch.stream,
            log_epoch: batch.head.log_epoch,
            offset,
            time: batch.head.time,
            kind: event.kind.to_owned(),
            key: event.key.to_owned(),
            headers: event.headers.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect(),
            data: if event.data.is_empty() { Bytes::new() } else { batch.value().slice_ref(event.data) },
            encoding: event.encoding,
            batch: batch.clone(),
        }
    }

    /// The batch it came in: author and other things an application rarely needs.
    pub fn batch(&self) -> &Arc<Batch> {
        &self.batch
    }

    /// Borrowed, for the codecs.
    pub fn as_ref(&self) -> EventRef<'_> {
        EventRef {
            data: &self.data,
            encoding: self.encoding,
            kind: &self.kind,
            key: &self.key,
            headers: self.headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect(),
            removed: Removed::No,
        }
    }

    /// Reads the payload as JSON.
    ///
    /// # Errors
    /// serde's, when it is not JSON or has another shape.
    pub fn json<T: serde::de::DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_slice(&self.data)
    }

    /// The payload as text, if it is.
    pub fn text(&self) -> Option<&str> {
        std::str::from_utf8(&self.data).ok()
    }
}
