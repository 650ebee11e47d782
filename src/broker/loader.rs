//! Reads the rows an intent lacks, beside the commit loop, so that a cold producer never stalls the lane.
//!
//! No lock is needed: while a need is open, every intent that could change its rows waits for it (see `commit`).

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
    let rows = || engine.get(vec![Key::Stream(id).encode(), Key::Bounds(id).encode()]);
    let mut found = rows().await?;
    loop {
        let [row, bounds] = found.as_slice() else { return Ok(None) };
        let row = match row {
            Some(row) => decode(row)?,
            None if id == AUDIT_STREAM => audit::stream_row(),
            None => return Ok(None),
        };
        let bounds: value::Bounds = bounds.as_deref().map_or(Ok(value::Bounds::default()), decode)?;
        let last = engine.last(id, bounds.first_base).await?;
        if last.is_none() {
            // A trim or deletion since the rows were read takes all batches with it and says in the rows where the stream ends: the rows
            // from before would show an end that goes back.
            let now = rows().await?;
            if now != found {
                found = now;
                continue;
            }
        }
        return Stream::from_rows(id, row, &bounds, last.as_deref()).map(Some).map_err(|what| damaged(format!("stream {id}: {what}")));
    }
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
