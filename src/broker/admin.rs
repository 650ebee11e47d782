//! Streams, subscriptions and operations: what is changed through the loop and what is read back from disk.

use std::collections::BTreeMap;

use tracing::{error, info};

use super::commit::engine_failure;
use super::info::*;
use super::intent::{Author, Intent, SubscriptionFields, TrimPoint};
use super::operation::Note;
use super::read::Held;
use super::shared::Bounds;
use super::state::{OPERATOR_NAME, Stream, stream_not_found, subscription_not_found, trim_beyond_end};
use super::{Action, Broker, Kind, Principal, fields, loader};
use crate::log::rows::{self, value};
use crate::log::{IdempotencyRow, Key, RowKey, faults};
use crate::types::id::OPERATOR_USER;
use crate::types::reply::Lag;
use crate::types::request::Start;
use crate::types::{Applied, Code, Error, Filter, OperationId, Result, Slice, StreamId, StreamName, SubscriptionId, SubscriptionName, TimeUs, limits};

/// Most metadata entries of a stream.
const METADATA_ENTRIES: usize = 64;
/// Longest metadata name or value, and description.
const METADATA_BYTES: usize = 4096;
/// Rows of the catalogue that are read at once.
const CATALOGUE_ROWS: usize = 1024;
/// Streams that are looked at together: their rows are in memory meanwhile.
const STREAMS_AT_ONCE: usize = 256;
/// Idempotency keys dropped by one intent: it needs all of their rows in memory at once, which must fit the smallest `hot_entries`.
const FORGET_AT_ONCE: usize = 16;

/// The look at what a change has made. The change is durable: whatever the look meets, nobody may hear that it had no effect.
pub(super) fn shown<T>(look: Result<T>) -> Result<T> {
    look.map_err(|why| match (why.applied, why.code) {
        // Somebody was faster and deleted it.
        (_, Code::NotFound) | (Applied::Unknown, _) => why,
        (Applied::No, _) => Error::new(Code::OutcomeUnknown, format!("It was done, but cannot be shown: {}", why.message)).rule("S-5"),
    })
}

impl Broker {
    /// # Errors
    /// `name_taken`, `deleting`, `bad_parameter`.
    pub async fn create_stream(&self, who: &Principal, new: NewStream) -> Result<StreamInfo> {
        self.noted_stream(who, new, None).await
    }

    /// The same as an operation that can be looked up afterwards, as [`Broker::operation`] shows it.
    ///
    /// # Errors
    /// `name_taken`, `deleting`, `bad_parameter`.
    pub async fn create_stream_as(&self, who: &Principal, new: NewStream, id: OperationId) -> Result<StreamInfo> {
        let note = Note { id, description: "Creating stream", command: "stream.Create", stream: new.name.to_string() };
        self.noted_stream(who, new, Some(note)).await
    }

    async fn noted_stream(&self, who: &Principal, new: NewStream, note: Option<Note>) -> Result<StreamInfo> {
        who.is_user("create streams")?;
        self.still_good(who).await?;
        if new.name.is_system() {
            return Err(Error::bad("stream_name", format!("stream name \"{}\" begins with `$`, which is reserved for the broker's own streams.", new.name)));
        }
        check_texts(&new.description, &new.metadata)?;
        if let Some(bytes) = new.event_max_bytes.filter(|bytes| *bytes == 0 || *bytes > limits::EVENT_MAX_BYTES as u64) {
            return Err(Error::bad("event_max_bytes", format!("event_max_bytes is {bytes}; give 1 to {}.", limits::EVENT_MAX_BYTES)));
        }
        let (owner, name) = (who.user_id(), new.name.clone());
        let id = self.ask(0, |reply| Intent::CreateStream { new, owner, note, reply }).await?;
        let stream = shown(loader::stream(&*self.inner.engine, id).await.map_err(|e| engine_failure(&e)))?;
        shown(self.describe(&stream.ok_or_else(|| stream_not_found(&name))?).await)
    }

    /// A stream, also while it is being deleted.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn stream(&self, who: &Principal, name: &StreamName) -> Result<StreamInfo> {
        self.may(who, name, Action::Read).await?;
        let stream = self.stream_on_disk(name).await?.ok_or_else(|| stream_not_found(name))?;
        self.describe(&stream).await
    }

    /// The name of a user; of one that is gone, what is left of it.
    pub(super) async fn name_of_user(&self, id: u64) -> Result<String> {
        Ok(match id {
            OPERATOR_USER => OPERATOR_NAME.to_owned(),
            id => self.user_by_id(id).await?.map_or_else(|| format!("user-{id}"), |user| user.name.to_string()),
        })
    }

    async fn describe(&self, stream: &Stream) -> Result<StreamInfo> {
        Ok(self.described(stream, self.name_of_user(stream.row.owner).await?))
    }

    fn described(&self, stream: &Stream, owner_name: String) -> StreamInfo {
        let bounds = &stream.bounds;
        StreamInfo {
            owner_name,
            id: stream.id,
            uuid: stream.row.uuid.clone(),
            name: stream.name.clone(),
            owner: stream.row.owner,
            created: TimeUs(stream.row.created_us),
            description: stream.row.description.clone(),
            metadata: stream.row.metadata.clone(),
            event_max_bytes: if stream.row.event_max_bytes == 0 { limits::EVENT_MAX_BYTES as u64 } else { stream.row.event_max_bytes },
            status: if stream.row.deleting { StreamStatus::Stopping } else { StreamStatus::Ready },
            closed: bounds.closed,
            first_offset: bounds.first_offset,
            next_offset: bounds.next_offset,
            bytes: bounds.bytes_end.saturating_sub(bounds.bytes_before_first),
            last_event_at: (bounds.next_offset > 0).then_some(bounds.last_time),
            log_epoch: self.log_epoch(),
        }
    }

    /// All streams the caller may see, sorted by name; folded, since names collide so.
    ///
    /// # Errors
    /// `unauthenticated`.
    pub async fn streams(&self, who: &Principal, query: ListQuery) -> Result<Page<StreamInfo>> {
        self.still_good(who).await?;
        if !self.sees_all(who).await? {
            return self.own_streams(who, query).await;
        }
        let ids = match &query.filter {
            None => self.index(rows::prefix::stream_names(), |folded| Key::StreamName(folded).encode(), &query).await?,
            Some(filter) => self.streams_that_may(filter, &query).await?,
        };
        self.page_of_streams(ids.into_iter().map(StreamId).collect(), &query).await
    }

    /// The ids of streams behind `query.after`, by name, for which the filter may hold as far as the catalogue tells: only these are looked
    /// at one by one.
    async fn streams_that_may(&self, filter: &Filter, query: &ListQuery) -> Result<Vec<u64>> {
        self.check_serving()?;
        let behind = query.after.as_ref().map(|name| name.to_ascii_lowercase());
        let (mut found, mut owners, mut after) = (Vec::new(), BTreeMap::new(), None);
        loop {
            let page = self.inner.engine.scan(rows::prefix::streams(), after.take(), CATALOGUE_ROWS).await.map_err(|e| engine_failure(&e))?;
            let Some((last, _)) = page.last() else { break };
            after = Some(last.to_vec());
            for (key, bytes) in page {
                let id = rows::decode_id(key.get(1..).unwrap_or_default()).map_err(Error::internal)?;
                let row: value::Stream = rows::decode(&bytes).map_err(Error::internal)?;
                let owner = self.name_among(&mut owners, row.owner).await?;
                let stream = Stream::from_rows(StreamId(id), row, &value::Bounds::default(), None).map_err(Error::internal)?;
                let folded = stream.name.folded().into_owned();
                if behind.as_ref().is_none_or(|behind| folded > *behind) && filter.may_hold(&self.described(&stream, owner), fields::is_in_catalogue) {
                    found.push((folded, id));
                }
            }
        }
        found.sort_unstable();
        Ok(found.into_iter().map(|(_, id)| id).collect())
    }

    async fn page_of_streams(&self, ids: Vec<StreamId>, query: &ListQuery) -> Result<Page<StreamInfo>> {
        let (mut page, mut owners) = (Page { items: Vec::new(), more: false }, BTreeMap::new());
        let mut rest = &ids[..];
        while !rest.is_empty() {
            // Without a filter no more than the page holds, and the one that tells that more follow.
            let wanted = match (&query.filter, query.limit) {
                (None, Some(limit)) => limit - page.items.len() + 1,
                _ => usize::MAX,
            };
            let (now, later) = rest.split_at(wanted.min(STREAMS_AT_ONCE).min(rest.len()));
            rest = later;
            for stream in loader::streams(&*self.inner.engine, now).await.map_err(|e| engine_failure(&e))?.into_iter().flatten() {
                let owner = self.name_among(&mut owners, stream.row.owner).await?;
                if query.take(&mut page, Some(self.described(&stream, owner))).is_break() {
                    return Ok(page);
                }
            }
        }
        Ok(page)
    }

    /// The name of a user, looked up once for many streams.
    async fn name_among(&self, known: &mut BTreeMap<u64, String>, id: u64) -> Result<String> {
        if let Some(name) = known.get(&id) {
            return Ok(name.clone());
        }
        let name = self.name_of_user(id).await?;
        known.insert(id, name.clone());
        Ok(name)
    }

    /// Does the caller see every stream: the operator, and root users?
    async fn sees_all(&self, who: &Principal) -> Result<bool> {
        Ok(match who {
            Principal::Operator => true,
            _ if who.source_id() != 0 => false,
            _ => self.user_by_id(who.user_id()).await?.is_some_and(|user| user.root),
        })
    }

    /// The streams on which a caller has a right, by way of its own rights: others are not looked at.
    async fn own_streams(&self, who: &Principal, query: ListQuery) -> Result<Page<StreamInfo>> {
        let after = query.after.as_ref().map(|name| name.to_ascii_lowercase());
        let mut names = Vec::new();
        for (id, _) in self.rights_of(who.id()).await? {
            let Some(name) = self.stream_name(id).await? else { continue };
            let folded = name.folded().into_owned();
            if after.as_ref().is_none_or(|after| folded > *after) && self.may_anything(who, &name).await? {
                names.push((folded, id));
            }
        }
        names.sort_unstable();
        self.page_of_streams(names.into_iter().map(|(_, id)| id).collect(), &query).await
    }

    /// Has the caller any right on the stream?
    async fn may_anything(&self, who: &Principal, name: &StreamName) -> Result<bool> {
        match self.may(who, name, Action::Admin).await {
            Err(error) if error.code == Code::NotFound => Ok(false),
            Err(error) if error.code != Code::AccessDenied => Err(error),
            _ => Ok(true),
        }
    }

    /// Ids of a name index behind `query.after`, in the order of the folded names.
    pub(super) async fn index(&self, prefix: RowKey, key: impl Fn(&str) -> RowKey, query: &ListQuery) -> Result<Vec<u64>> {
        self.check_serving()?;
        let mut after: Option<Vec<u8>> = None;
        let mut found: Vec<(Vec<u8>, u64)> = Vec::new();
        // Keys are ordered by length first (their length stands before them), names are not.
        let from = query.after.as_deref().map(|name| key(&name.to_ascii_lowercase()).bytes);
        loop {
            let page = self.inner.engine.scan(prefix.clone(), after.clone(), 4096).await.map_err(|e| engine_failure(&e))?;
            let Some((last, _)) = page.last() else { break };
            after = Some(last.to_vec());
            for (key, value) in page {
                let name_of = |key: &[u8]| key.get(prefix.bytes.len() + 1..).unwrap_or_default().to_vec();
                if from.as_deref().is_none_or(|from| name_of(&key) > name_of(from)) {
                    found.push((name_of(&key), rows::decode_id(&value).map_err(Error::internal)?));
                }
            }
        }
        found.sort_unstable();
        Ok(found.into_iter().map(|(_, id)| id).collect())
    }

    /// Begins a deletion. From the answer on nobody can use the stream; the name is free when the operation has ended.
    ///
    /// # Errors
    /// `not_found`, `deleting`.
    pub async fn delete_stream(&self, who: &Principal, name: &StreamName) -> Result<OperationInfo> {
        self.may(who, name, Action::Admin).await?;
        who.may_destroy("delete a stream")?;
        not_system(name, "deleted")?;
        let (stream, by, operation) = (name.clone(), self.by(who).await, self.operation_id());
        let (id, info) = self.ask(0, |reply| Intent::DeleteStream { stream, operation, by, reply }).await?;
        self.spawn_delete(id, info.clone());
        shown(self.named(info).await)
    }

    fn spawn_delete(&self, stream: StreamId, operation: OperationInfo) {
        let broker = self.clone();
        tokio::spawn(async move {
            let name = operation.stream.clone();
            let _ = faults::reach(faults::DELETE_BEGUN);
            if let Err(error) = broker.forget_usage_on(stream).await {
                error!(%error, "deleting stream {name} was interrupted");
                return;
            }
            if let Err(error) = broker.forget_rights_on(stream).await {
                error!(%error, "deleting stream {name} was interrupted");
                return;
            }
            let finished = broker.ask(0, |reply| Intent::FinishDelete { stream, operation: Box::new(operation), reply }).await;
            if let Err(error) = finished {
                // It goes on at the next start: the row says that it runs.
                error!(%error, "deleting stream {name} was interrupted");
                return;
            }
            let _ = faults::reach(faults::DELETE_FINISHED);
            if let Err(error) = broker.inner.engine.trim(stream, None).await {
                error!(%error, "files of deleted stream {name} stay until compaction");
            }
        });
    }

    /// At the start: goes on with deletions that a stop interrupted.
    pub(super) async fn resume_operations(&self) -> Result<()> {
        for (stream, info) in self.operations_on_disk().await? {
            if !info.is_final() && info.command == "stream.Delete" {
                info!(stream = %info.stream, "going on with the deletion of a stream");
                let _ = faults::reach(faults::DELETE_RESUMED);
                self.spawn_delete(stream, info);
            }
        }
        Ok(())
    }

    /// Forgets idempotency keys whose time is over. The server calls it now and then; `now` only chooses whom to ask about, the
    /// clock of S-9 decides.
    ///
    /// # Errors
    /// When the engine cannot be read or written.
    pub async fn forget_keys(&self, now: TimeUs) -> Result<()> {
        let mut after = None;
        loop {
            let page = self.inner.engine.scan(rows::prefix::idempotency(), after, 1024).await.map_err(|e| engine_failure(&e))?;
            let Some((last, _)) = page.last() else { return Ok(()) };
            after = Some(last.to_vec());
            let mut keys = Vec::new();
            for (key, bytes) in &page {
                let row: value::Idempotency = rows::decode(bytes).map_err(Error::internal)?;
                keys.extend(IdempotencyRow::decode(key).filter(|_| row.dedup_until_us <= now.0));
            }
            for keys in keys.chunks(FORGET_AT_ONCE).map(<[_]>::to_vec) {
                self.ask(0, |reply| Intent::ForgetKeys { keys, reply }).await?;
            }
        }
    }

    /// Drops the events before a position. Cursors are not looked at; readers that wanted the events see a gap.
    ///
    /// # Errors
    /// `not_found`, `offset_beyond_end`.
    pub async fn trim_stream(&self, who: &Principal, name: &StreamName, to: TrimTo) -> Result<StreamInfo> {
        let known_as = self.allowed(who, name, Action::Admin).await?;
        who.may_destroy("trim a stream")?;
        let found = self.find_stream(name).await?;
        let bounds = found.bounds;
        let before = match to {
            TrimTo::Offset(offset) => offset,
            TrimTo::Time(time) => self.offset_of_time(found.id, &bounds, time).await?,
        };
        if before > bounds.next_offset {
            // Also when it grows past it meanwhile: where the batches end there is not known here.
            return Err(trim_beyond_end(name, before, bounds.next_offset));
        }
        let whole = TrimPoint { before, base: bounds.next_offset, bytes_before: bounds.bytes_end };
        let to = if before <= bounds.first_offset || before == bounds.next_offset {
            whole
        } else {
            match self.batch_of(found.id, before, &bounds).await? {
                Held::Batch(batch) => {
                    let base = batch.head.base_offset;
                    let bytes_before = Slice::of(batch, before..before + 1).map_or(bounds.bytes_before_first, |slice| slice.bytes_before());
                    TrimPoint { before, base, bytes_before }
                }
                // Nothing is left to do, which the commit says, or that the stream is gone.
                Held::Trimmed { .. } => whole,
            }
        };
        // What was allowed is that stream, not another one that has its name a moment later.
        let (stream, stream_id, by) = (name.clone(), known_as.unwrap_or(found.id), self.by(who).await);
        let (id, first_base) = self.ask(0, |reply| Intent::Trim { stream, stream_id, to, by, reply }).await?;
        if let Err(error) = self.inner.engine.trim(id, Some(first_base)).await {
            // The trim is durable, so the caller must not hear that it had no effect.
            error!(%error, "files of trimmed events of stream {name} stay until compaction");
        }
        shown(self.stream(who, name).await)
    }

    /// No more appends, for ever; duplicates of earlier ones are still answered (P-4). Closing twice is fine.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn close_stream(&self, who: &Principal, name: &StreamName) -> Result<StreamInfo> {
        self.may(who, name, Action::Admin).await?;
        not_system(name, "closed")?;
        let (stream, by) = (name.clone(), self.by(who).await);
        self.ask(0, |reply| Intent::CloseStream { stream, by, reply }).await?;
        shown(self.stream(who, name).await)
    }

    /// # Errors
    /// `not_found`, `name_taken`, `bad_parameter`.
    pub async fn create_subscription(&self, who: &Principal, stream: &StreamName, new: NewSubscription) -> Result<SubscriptionInfo> {
        self.may(who, stream, Action::Read).await?;
        let bounded = |field: &str, value: Option<u64>, default: u64, max: u64| match value.unwrap_or(default) {
            value if (1..=max).contains(&value) => Ok(value),
            value => Err(Error::bad(field, format!("{field} is {value}; give 1 to {max}."))),
        };
        let fields = SubscriptionFields {
            ack_timeout_s: bounded("ack_timeout_s", new.ack_timeout_s, limits::ACK_TIMEOUT_S, 86_400)?,
            max_in_flight: bounded("max_in_flight", new.max_in_flight, limits::MAX_IN_FLIGHT_EVENTS, 100_000)?,
            expires_s: bounded("expires_s", new.expires_s, limits::SUBSCRIPTION_EXPIRES_S, 10 * 365 * 86_400)?,
            filter: Filter::given(new.filter.as_deref(), fields::EVENTS)?.map_or_else(String::new, |filter| filter.as_str().to_owned()),
        };
        let start = self.untimed(stream, new.start).await?;
        let (of, name, author) = (stream.clone(), new.name.clone(), Author::from(who));
        self.ask(0, |reply| Intent::CreateSubscription { stream: of, name, fields, start, author, reply }).await?;
        shown(self.subscription(who, stream, &new.name).await)
    }

    /// # Errors
    /// `not_found`.
    pub async fn subscription(&self, who: &Principal, stream: &StreamName, name: &SubscriptionName) -> Result<SubscriptionInfo> {
        self.may(who, stream, Action::Read).await?;
        let found = self.find_stream(stream).await?;
        let id = loader::subscription_id(&*self.inner.engine, found.id, &name.folded()).await.map_err(|e| engine_failure(&e))?;
        let info = match id {
            Some(id) => self.describe_subscription(&found, id).await?,
            None => None,
        };
        info.ok_or_else(|| subscription_not_found(stream, name))
    }

    async fn describe_subscription(&self, stream: &Stream, id: SubscriptionId) -> Result<Option<SubscriptionInfo>> {
        let cursor = loader::cursor(&*self.inner.engine, stream.id, id).await.map_err(|e| engine_failure(&e))?;
        let Some(cursor) = cursor else { return Ok(None) };
        Ok(Some(SubscriptionInfo {
            id,
            name: SubscriptionName::stored(&cursor.meta.name),
            stream: stream.name.clone(),
            created: TimeUs(cursor.meta.created_us),
            ack_timeout_s: cursor.meta.ack_timeout_s,
            max_in_flight: cursor.meta.max_in_flight,
            expires_s: cursor.meta.expires_s,
            filter: Some(cursor.meta.filter.clone()).filter(|filter| !filter.is_empty()),
            next: cursor.row.next,
            epoch: cursor.row.epoch,
            lag: self.lag_from(stream.id, &stream.bounds, cursor.row.next).await?,
            attached: self.inner.registry.is_attached(stream.id, id, cursor.row.epoch, cursor.meta.ack_timeout_s, self.inner.began.elapsed()),
        }))
    }

    /// Events, bytes and seconds from `next` to the end, by subtraction (`design.md` section 1 "lag").
    pub(super) async fn lag_from(&self, stream: StreamId, bounds: &Bounds, next: u64) -> Result<Lag> {
        let mut from = next.max(bounds.first_offset);
        let batch = loop {
            if from >= bounds.next_offset {
                return Ok(Lag::default());
            }
            match self.batch_of(stream, from, bounds).await? {
                Held::Batch(batch) => break batch,
                Held::Trimmed { first_offset } => from = first_offset,
            }
        };
        let seconds = self.inner.world.now().seconds_since(batch.head.time);
        let bytes_before = Slice::of(batch, from..from + 1).map_or(bounds.bytes_end, |slice| slice.bytes_before());
        Ok(Lag { events: bounds.next_offset - from, bytes: bounds.bytes_end.saturating_sub(bytes_before), seconds })
    }

    /// Sorted by name.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn subscriptions(&self, who: &Principal, stream: &StreamName, query: ListQuery) -> Result<Page<SubscriptionInfo>> {
        self.may(who, stream, Action::Read).await?;
        let found = self.find_stream(stream).await?;
        let ids = self.index(rows::prefix::subscription_names(found.id), |folded| Key::SubscriptionName(found.id, folded).encode(), &query).await?;
        let mut page = Page { items: Vec::new(), more: false };
        for id in ids {
            if query.take(&mut page, self.describe_subscription(&found, SubscriptionId(id)).await?).is_break() {
                break;
            }
        }
        Ok(page)
    }

    /// # Errors
    /// `not_found`.
    pub async fn delete_subscription(&self, who: &Principal, stream: &StreamName, name: &SubscriptionName) -> Result<()> {
        self.may(who, stream, Action::Read).await?;
        if who.kind() != Kind::SourceKey {
            who.may_destroy("delete a subscription")?;
        }
        let claim = self.claim(who, stream).await;
        let (stream, name, by) = (stream.clone(), name.clone(), self.by(who).await);
        self.ask(0, |reply| Intent::DeleteSubscription { stream, name, claim, by, reply }).await
    }

    /// C-14: moves the cursor either way, fences its session, tells the audit.
    ///
    /// # Errors
    /// `not_found`, `position_beyond_end`.
    pub async fn seek(&self, who: &Principal, stream: &StreamName, name: &SubscriptionName, to: Start) -> Result<SubscriptionInfo> {
        self.may(who, stream, Action::Read).await?;
        let claim = self.claim(who, stream).await;
        let to = self.untimed(stream, to).await?;
        let (of, which, by) = (stream.clone(), name.clone(), self.by(who).await);
        self.ask(0, |reply| Intent::Seek { stream: of, name: which, to, claim, by, reply }).await?;
        shown(self.subscription(who, stream, name).await)
    }
}

/// What the broker itself writes to is not taken away by anybody.
fn not_system(name: &StreamName, what: &str) -> Result<()> {
    if name.is_system() {
        let why = format!("Stream {name} is the broker's own and cannot be {what}. The operator may trim it.");
        return Err(Error::new(Code::AccessDenied, why).resource(format!("/v1/streams/{name}")));
    }
    Ok(())
}

fn check_texts(description: &str, metadata: &BTreeMap<String, String>) -> Result<()> {
    if description.len() > METADATA_BYTES {
        return Err(Error::bad("description", format!("description is {} bytes; the limit is {METADATA_BYTES}.", description.len())));
    }
    if metadata.len() > METADATA_ENTRIES {
        return Err(Error::bad("metadata", format!("metadata has {} entries; the limit is {METADATA_ENTRIES}.", metadata.len())));
    }
    match metadata.iter().find(|(name, value)| name.is_empty() || name.len() > 256 || value.len() > METADATA_BYTES) {
        Some((name, _)) => Err(Error::bad(
            "metadata",
            format!("metadata entry {} is too long (name 1 to 256 bytes, value up to {METADATA_BYTES}).", crate::types::name::quote(name)),
        )),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s5_what_was_done_and_cannot_be_shown_is_not_answered_with_applied_no() {
        let failed = || Error::new(Code::StorageFailed, "The storage engine has failed.");
        assert_eq!(failed().applied, Applied::No);
        let told = shown::<()>(Err(failed())).unwrap_err();
        assert_eq!((told.code, told.applied), (Code::OutcomeUnknown, Applied::Unknown));
        assert_eq!(shown::<()>(Err(Error::new(Code::NotFound, "It is gone."))).unwrap_err().code, Code::NotFound);
    }
}
