//! Reads the rows an intent lacks, beside the commit loop, so that a cold producer never stalls the lane.
//!
//! No lock is needed: while a need is open, every intent that could change its rows waits for it (see `commit`).

use bytes::Bytes;
use prost::Message as _;

use super::audit;
use super::cursor::Cursor;
use super::producer::{Producer, Receipt};
use super::state::{Loaded, Need, Remembered, Stream};
use crate::log::rows::{self, value};
use crate::log::{Engine, EngineError, Key, ProducerKey};
use crate::types::id::AUDIT_STREAM;
use crate::types::limits::RECEIPT_RING;
use crate::types::name::AUDIT;
use crate::types::{StreamId, SubscriptionId};

fn damaged(what: String) -> EngineError {
    EngineError::Failed(format!("the store is damaged: {what}"))
}

fn decode<M: prost::Message + Default>(bytes: &[u8]) -> Result<M, EngineError> {
    rows::decode(bytes).map_err(damaged)
}

/// Looks one need up.
///
/// # Errors
/// What the engine says; rows that do not decode count as a failed engine.
pub async fn load(engine: &dyn Engine, need: Need) -> Result<Loaded, EngineError> {
    Ok(match need {
        Need::Name(folded) => {
            let id = stream_id(engine, &folded).await?;
            Loaded::Name(folded, id)
        }
        Need::Stream(id) => Loaded::Stream(id, stream(engine, id).await?.map(Box::new)),
        Need::Producer(key) => {
            let producer = producer(engine, &key).await?;
            Loaded::Producer(key, producer.map(Box::new))
        }
        Need::SubName(stream, folded) => {
            let id = get_id(engine, Key::SubscriptionName(stream, &folded)).await?.map(SubscriptionId);
            Loaded::SubName(stream, folded, id)
        }
        Need::Key(row) => {
            let found = engine.get(vec![Key::Idempotency(&row).encode()]).await?;
            let remembered = found.into_iter().next().flatten().map(|bytes| decode(&bytes).and_then(|row| Remembered::from_row(row).map_err(damaged)));
            Loaded::Key(row, remembered.transpose()?)
        }
        Need::Row(key) => {
            let found = engine.get(vec![key.clone()]).await?;
            Loaded::Row(key, found.into_iter().next().flatten().map(|bytes| bytes.to_vec()))
        }
        Need::Cursor(stream, id) => Loaded::Cursor(stream, id, cursor(engine, stream, id).await?.map(Box::new)),
    })
}

async fn get_id(engine: &dyn Engine, key: Key<'_>) -> Result<Option<u64>, EngineError> {
    let found = engine.get(vec![key.encode()]).await?;
    found.into_iter().next().flatten().map(|bytes| rows::decode_id(&bytes).map_err(damaged)).transpose()
}

/// The id a folded stream name means.
pub async fn stream_id(engine: &dyn Engine, folded: &str) -> Result<Option<StreamId>, EngineError> {
    // It has no rows in the indexes: nobody else can have its name, and lists do not show it.
    if folded == AUDIT {
        return Ok(Some(AUDIT_STREAM));
    }
    Ok(get_id(engine, Key::StreamName(folded)).await?.map(StreamId))
}

/// The id a folded subscription name means.
pub async fn subscription_id(engine: &dyn Engine, stream: StreamId, folded: &str) -> Result<Option<SubscriptionId>, EngineError> {
    Ok(get_id(engine, Key::SubscriptionName(stream, folded)).await?.map(SubscriptionId))
}

/// A stream as it is on disk.
pub async fn stream(engine: &dyn Engine, id: StreamId) -> Result<Option<Stream>, EngineError> {
    Ok(streams(engine, &[id]).await?.pop().flatten())
}

/// Streams as they are on disk, in the order asked, in as many looks as one.
pub async fn streams(engine: &dyn Engine, ids: &[StreamId]) -> Result<Vec<Option<Stream>>, EngineError> {
    let mut streams = vec![None; ids.len()];
    let (mut open, mut found): (Vec<usize>, _) = ((0..ids.len()).collect(), rows_of(engine, ids).await?);
    while !open.is_empty() {
        let mut there = Vec::with_capacity(open.len());
        for (place, rows) in open.drain(..).zip(std::mem::take(&mut found)) {
            let row = match &rows[0] {
                Some(row) => decode(row)?,
                None if ids[place] == AUDIT_STREAM => audit::stream_row(),
                None => continue,
            };
            let bounds: value::Bounds = rows[1].as_deref().map_or(Ok(value::Bounds::default()), decode)?;
            there.push((place, rows, row, bounds));
        }
        let asked = there.iter().map(|(place, .., bounds)| (ids[*place], bounds.first_base)).collect();
        let lasts = engine.last_heads(asked).await?;
        // A trim or deletion since the rows were read takes all batches with it and says in the rows where the stream ends: the rows
        // from before would show an end that goes back.
        let empty: Vec<StreamId> = there.iter().zip(&lasts).filter(|(_, last)| last.is_none()).map(|((place, ..), _)| ids[*place]).collect();
        let mut now = rows_of(engine, &empty).await?.into_iter();
        for ((place, rows, row, bounds), last) in there.into_iter().zip(lasts) {
            if last.is_none()
                && let Some(now) = now.next().filter(|now| *now != rows)
            {
                open.push(place);
                found.push(now);
                continue;
            }
            let id = ids[place];
            let stream = Stream::from_rows(id, row, &bounds, last).map_err(|what| damaged(format!("stream {id}: {what}")))?;
            streams[place] = Some(stream);
        }
    }
    Ok(streams)
}

/// Of each stream its row and that of its bounds.
async fn rows_of(engine: &dyn Engine, ids: &[StreamId]) -> Result<Vec<[Option<Bytes>; 2]>, EngineError> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let found = engine.get(ids.iter().flat_map(|id| [Key::Stream(*id).encode(), Key::Bounds(*id).encode()]).collect()).await?;
    Ok(found.as_chunks().0.to_vec())
}

/// A cursor as it is on disk.
pub async fn cursor(engine: &dyn Engine, stream: StreamId, id: SubscriptionId) -> Result<Option<Cursor>, EngineError> {
    let found = engine.get(vec![Key::Subscription(stream, id).encode(), Key::Cursor(stream, id).encode()]).await?;
    let [Some(meta), Some(row)] = found.as_slice() else { return Ok(None) };
    let row: value::Cursor = decode(row)?;
    Ok(Some(Cursor { stable: row, row, meta: decode(meta)?, dirty: false, mark: None }))
}

async fn producer(engine: &dyn Engine, key: &ProducerKey) -> Result<Option<Producer>, EngineError> {
    let row = engine.get(vec![Key::Producer(key).encode()]).await?;
    let Some(row) = row.into_iter().next().flatten() else { return Ok(None) };
    let row: value::Producer = decode(&row)?;
    let slots = row.batches.min(RECEIPT_RING) as u8;
    let receipts = engine.get((0..slots).map(|slot| Key::Receipt(key, slot).encode()).collect()).await?;
    let receipts: Result<Vec<Receipt>, String> = receipts
        .into_iter()
        .flatten()
        .map(|bytes| value::Receipt::decode(bytes).map_err(|e| format!("a receipt does not decode: {e}")).and_then(Receipt::from_row))
        .collect();
    Ok(Some(Producer::from_rows(&row, receipts.map_err(damaged)?)))
}
