//! Operations: one, all of them, waiting for one, forgetting old ones.

use std::time::Duration;

use tokio::time::Instant;

use super::commit::engine_failure;
use super::fields::OperationAs;
use super::info::{ListQuery, OperationInfo, Page};
use super::intent::Intent;
use super::{Broker, Principal, operation};
use crate::log::Key;
use crate::log::rows::{self, value};
use crate::types::{Code, Error, OperationId, Result, StreamId, TimeUs, limits};

/// Rows of one look at the disk.
const ROWS_AT_ONCE: usize = 256;

impl Broker {
    /// The id of an operation that will be.
    pub fn operation_id(&self) -> OperationId {
        OperationId(self.inner.world.random_uuid())
    }

    /// The caller's operations, those of everybody for operators, by id: those at work, and of the others those that ended within a day. A
    /// source has none.
    ///
    /// # Errors
    /// `bad_parameter` for an `after` that is no id.
    pub async fn operations(&self, who: &Principal, query: ListQuery) -> Result<Page<OperationInfo>> {
        self.still_good(who).await?;
        self.check_serving()?;
        let after = query.after.as_deref().map(|text| uuid::Uuid::try_parse(text).map(OperationId)).transpose();
        let after = after.map_err(|_| Error::bad("after", "after is the id of an operation: the last one of the page before."))?;
        let mut page = Page { items: Vec::new(), more: false };
        let all = self.is_operator(who).await?;
        if who.source_id() != 0 && !all {
            return Ok(page);
        }
        let mut after = after.map(|id| Key::Operation(id).encode().bytes.to_vec());
        loop {
            let found = self.operations_after(&mut after).await?;
            if found.is_empty() {
                return Ok(page);
            }
            for (_, info) in found {
                let id = info.id.to_string();
                if !(all || info.requestor == who.user_id()) || !query.holds(&OperationAs { id: &id, info: &info }) {
                    continue;
                }
                if query.put(&mut page, self.named(info).await?).is_break() {
                    return Ok(page);
                }
            }
        }
    }

    /// # Errors
    /// `not_found`.
    pub async fn operation(&self, who: &Principal, id: OperationId) -> Result<OperationInfo> {
        self.still_good(who).await?;
        let missing =
            || Error::new(Code::NotFound, format!("Operation {id} was not found; finished ones are kept for a day.")).resource(format!("/v1/operations/{id}"));
        let row = self.access_row::<value::Operation>(Key::Operation(id)).await?.ok_or_else(missing)?;
        // Those of others are hidden; a source has none.
        if (row.requestor != who.user_id() || who.source_id() != 0) && !self.is_operator(who).await? {
            return Err(missing());
        }
        self.named(operation::from_row(id, row)).await
    }

    /// With the name of who asked for it.
    pub(super) async fn named(&self, mut info: OperationInfo) -> Result<OperationInfo> {
        info.requestor_name = self.name_of_user(info.requestor).await?;
        Ok(info)
    }

    /// Waits until it is final or the time is up; returns what it is then. Cancel-safe.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn wait_operation(&self, who: &Principal, id: OperationId, timeout: Duration) -> Result<OperationInfo> {
        let deadline = Instant::now() + timeout.min(limits::OPERATION_WAIT);
        loop {
            let changed = self.inner.commits.operations.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let info = self.operation(who, id).await?;
            let left = deadline.saturating_duration_since(Instant::now());
            if info.is_final() || left.is_zero() || self.is_draining() {
                return Ok(info);
            }
            drop(tokio::time::timeout(left, self.or_draining(changed)).await);
        }
    }

    pub(super) async fn operations_on_disk(&self) -> Result<Vec<(StreamId, OperationInfo)>> {
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let page = self.operations_after(&mut after).await?;
            if page.is_empty() {
                return Ok(found);
            }
            found.extend(page);
        }
    }

    /// The operations of the next rows, and the streams they are about; none at the end. `after` moves on.
    async fn operations_after(&self, after: &mut Option<Vec<u8>>) -> Result<Vec<(StreamId, OperationInfo)>> {
        let rows = self.inner.engine.scan(rows::prefix::operations(), after.take(), ROWS_AT_ONCE).await.map_err(|e| engine_failure(&e))?;
        *after = rows.last().map(|(key, _)| key.to_vec());
        let read = |(key, bytes): (bytes::Bytes, bytes::Bytes)| {
            let row: value::Operation = rows::decode(&bytes).map_err(Error::internal)?;
            let id = uuid::Uuid::from_slice(key.get(1..).unwrap_or_default()).map_err(|e| Error::internal(e.to_string()))?;
            Ok((StreamId(row.stream_id), operation::from_row(OperationId(id), row)))
        };
        rows.into_iter().map(read).collect()
    }

    /// Forgets operations that ended before `horizon`. The server calls it now and then with [`limits::OPERATION_KEPT`] ago.
    ///
    /// # Errors
    /// When the engine cannot be read or written.
    pub async fn forget_operations(&self, horizon: TimeUs) -> Result<()> {
        let old = self.operations_on_disk().await?.into_iter().map(|(_, info)| info);
        let operations: Vec<OperationId> = old.filter(|info| info.is_final() && info.updated < horizon).map(|info| info.id).collect();
        if operations.is_empty() {
            return Ok(());
        }
        self.ask(0, |reply| Intent::ForgetOperations { operations, reply }).await
    }
}
