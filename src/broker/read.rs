//! Stateless reads: pages of events, one event, the offset of a time.

use std::sync::Arc;

use tokio::time::Instant;

use super::access::{Watch, rung};
use super::commit::engine_failure;
use super::fields::runs;
use super::info::{ReadFrom, ReadReply, ReadRequest, Which};
use super::shared::{Bounds, StreamShared};
use super::state::stream_not_found;
use super::{Action, Broker, Principal, Usage, loader};
use crate::log::ReadLimits;
use crate::types::request::Start;
use crate::types::{Batch, Code, Error, Filter, Result, Slice, StreamId, StreamName, TimeUs, limits};

impl Broker {
    /// A page of events, waiting at the end for at most `request.wait` (long poll).
    ///
    /// # Errors
    /// `not_found`, `offset_trimmed`, `offset_beyond_end`, `data_corrupt`. Cancel-safe.
    pub async fn read(&self, who: &Principal, stream: &StreamName, request: ReadRequest) -> Result<ReadReply> {
        self.read_those(who, stream, request, None).await
    }

    /// The same, of the events for which `filter` holds. A call looks at no more than [`limits::READ_MAX_EVENTS`] and
    /// [`limits::READ_MAX_BYTES`]: it may find nothing though more follow, and `after` says how far it looked.
    ///
    /// # Errors
    /// As [`Broker::read`]. Cancel-safe.
    pub async fn read_those(&self, who: &Principal, stream: &StreamName, request: ReadRequest, filter: Option<&Filter>) -> Result<ReadReply> {
        let mut watch = self.watch(who);
        self.may(who, stream, Action::Read).await?;
        let found = self.find_stream(stream).await?;
        let shared = self.shared(found.id).await?;
        let bounds = shared.bounds().ok_or_else(|| stream_not_found(stream))?;
        let mut from = self.read_start(stream, found.id, &bounds, request.from).await?;
        let deadline = Instant::now() + request.wait.min(limits::LONG_POLL);
        let mut seat = None;
        loop {
            let changed = shared.changed();
            if watch.as_deref_mut().is_some_and(Watch::take) {
                self.may(who, stream, Action::Read).await?;
            }
            let bounds = shared.bounds().ok_or_else(|| stream_not_found(stream))?;
            if bounds.gone {
                return Err(stream_not_found(stream));
            }
            if from < bounds.first_offset {
                return Err(trimmed(stream, from, &bounds));
            }
            if from < bounds.next_offset {
                let page = match filter {
                    None => self.page(&shared, from, &bounds, request.limit).await?,
                    Some(filter) => self.page(&shared, from, &bounds, limits::READ_MAX_EVENTS).await?.map(|page| those(page, filter, request.limit)),
                };
                match page {
                    // It was looked at to the end, and is not what was waited for.
                    Some(page) if page.slices.is_empty() && !page.more => from = page.after.map_or(from, |after| after + 1),
                    Some(page) => return Ok(page),
                    None => continue, // trimmed meanwhile: the bounds say so now
                }
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if !left.is_zero() && seat.is_none() {
                seat = who.usage().map(Usage::wait).transpose()?;
            }
            if left.is_zero() || self.is_draining() || tokio::time::timeout(left, self.or_draining(either(changed, rung(&mut watch)))).await.is_err() {
                return Ok(ReadReply {
                    stream: found.id,
                    slices: Vec::new(),
                    first_offset: bounds.first_offset,
                    next_offset: bounds.next_offset,
                    after: from.checked_sub(1),
                    more: false,
                });
            }
        }
    }

    async fn page(&self, shared: &StreamShared, from: u64, bounds: &Bounds, limit: usize) -> Result<Option<ReadReply>> {
        let limit = limit.clamp(1, limits::READ_MAX_EVENTS) as u64;
        let until = bounds.next_offset.min(from.saturating_add(limit));
        let slices = cut(self.run(shared, from, until, limits::READ_MAX_BYTES, bounds).await?, limit, limits::READ_MAX_BYTES as u64);
        let Bounds { first_offset, next_offset, .. } = *bounds;
        let end = slices.last().map(Slice::to);
        Ok(end.map(|end| ReadReply { stream: shared.id, slices, first_offset, next_offset, after: end.checked_sub(1), more: end < next_offset }))
    }

    /// What there is from `from` (which is kept) to `until`, without a hole, in steps of about `bytes`: out of the tail where that
    /// reaches back far enough, else out of the log. Empty when the events were trimmed meanwhile.
    ///
    /// # Errors
    /// `data_corrupt` when events are missing that were not trimmed (S-6).
    pub(super) async fn run(&self, shared: &StreamShared, from: u64, until: u64, bytes: usize, bounds: &Bounds) -> Result<Vec<Slice>> {
        let mut batches = shared.tail_from(from, bytes);
        if batches.is_empty() {
            let wanted = ReadLimits { until, bytes, batches: limits::READ_MAX_EVENTS, not_below: bounds.first_base };
            batches = self.read_log(shared.id, from, wanted).await?;
        }
        let trimmed = |from: u64| shared.bounds().is_none_or(|b| b.first_offset > from || b.gone);
        let (mut expected, mut slices) = (from, Vec::new());
        for batch in batches {
            let Some(slice) = Slice::of(batch, expected..until) else { continue };
            if slice.from() != expected {
                if trimmed(expected) || self.trimmed_on_disk(shared.id, expected).await? {
                    break;
                }
                return Err(missing(shared.id, expected, slice.from() - 1));
            }
            expected = slice.to();
            slices.push(slice);
        }
        if slices.is_empty() && !trimmed(from) && !self.trimmed_on_disk(shared.id, from).await? {
            return Err(missing(shared.id, from, from));
        }
        Ok(slices)
    }

    /// A trim is on disk a moment before its readers hear of it.
    async fn trimmed_on_disk(&self, stream: StreamId, from: u64) -> Result<bool> {
        Ok(self.begins_on_disk(stream).await?.is_none_or(|first| first > from))
    }

    /// The first offset that is kept, as it is on disk; none when the stream is gone.
    async fn begins_on_disk(&self, stream: StreamId) -> Result<Option<u64>> {
        let stream = loader::stream(&*self.inner.engine, stream).await.map_err(|e| engine_failure(&e))?;
        Ok(stream.filter(|stream| !stream.bounds.gone).map(|stream| stream.bounds.first_offset))
    }

    async fn read_start(&self, stream: &StreamName, id: StreamId, bounds: &Bounds, from: ReadFrom) -> Result<u64> {
        let beyond = |offset: u64| {
            Error::new(Code::OffsetBeyondEnd, format!("Offset {offset} does not exist in stream {stream}; it ends before {}.", bounds.next_offset))
                .detail("next_offset", bounds.next_offset)
                .detail("first_offset", bounds.first_offset)
        };
        match from {
            ReadFrom::After(after) => match after.checked_add(1) {
                Some(next) if after < bounds.next_offset => {
                    if next < bounds.first_offset {
                        Err(trimmed(stream, next, bounds))
                    } else {
                        Ok(next)
                    }
                }
                // A cursor of a stream whose events are all trimmed stands right before the first to come.
                Some(next) if next == bounds.first_offset => Ok(next),
                _ => Err(beyond(after)),
            },
            ReadFrom::At(Start::Earliest) => Ok(bounds.first_offset),
            ReadFrom::At(Start::Latest) => Ok(bounds.next_offset),
            ReadFrom::At(Start::Offset(offset)) if offset > bounds.next_offset => Err(beyond(offset)),
            ReadFrom::At(Start::Offset(offset)) if offset < bounds.first_offset => Err(trimmed(stream, offset, bounds)),
            ReadFrom::At(Start::Offset(offset)) => Ok(offset),
            ReadFrom::At(Start::Time(time)) => self.offset_of_time(id, bounds, time).await,
        }
    }

    /// One event. The slice holds exactly that.
    ///
    /// # Errors
    /// `not_found`, `offset_trimmed` with `first_offset`, `stream_empty`.
    pub async fn event(&self, who: &Principal, stream: &StreamName, which: Which) -> Result<Slice> {
        self.may(who, stream, Action::Read).await?;
        loop {
            let found = self.find_stream(stream).await?;
            let offset = chosen(stream, which, &found.bounds)?;
            if let Held::Batch(batch) = self.batch_of(found.id, offset, &found.bounds).await? {
                return Slice::of(batch, offset..offset + 1).ok_or_else(|| missing(found.id, offset, offset));
            }
            // Trimmed meanwhile, or a new stream of this name: looked up again, it says so.
        }
    }

    /// The batch that holds `offset`, which `bounds` say is kept; or where the stream begins now, if it was trimmed past it meanwhile.
    ///
    /// # Errors
    /// `data_corrupt` when it is missing and was not trimmed (S-6).
    pub(super) async fn batch_of(&self, stream: StreamId, offset: u64, bounds: &Bounds) -> Result<Held> {
        let wanted = ReadLimits { until: offset + 1, bytes: 1, batches: 1, not_below: bounds.first_base };
        let batch = self.read_log(stream, offset, wanted).await?.into_iter().next();
        if let Some(batch) = batch.filter(|b| b.head.base_offset <= offset && offset < b.head.end()) {
            return Ok(Held::Batch(batch));
        }
        let begins = self.begins_on_disk(stream).await?.unwrap_or(bounds.next_offset);
        if begins > offset { Ok(Held::Trimmed { first_offset: begins }) } else { Err(missing(stream, offset, offset)) }
    }

    /// First kept offset whose time is `time` or later: a binary search over batch keys, since time never falls.
    pub(super) async fn offset_of_time(&self, stream: StreamId, bounds: &Bounds, time: TimeUs) -> Result<u64> {
        let (mut low, mut high) = (bounds.first_offset, bounds.next_offset);
        while low < high {
            match self.batch_of(stream, low + (high - low) / 2, bounds).await? {
                Held::Batch(batch) if batch.head.time < time => low = batch.head.end(),
                Held::Batch(batch) => high = batch.head.base_offset,
                Held::Trimmed { first_offset } => low = first_offset,
            }
        }
        Ok(low.max(bounds.first_offset))
    }
}

/// What the log has of an offset that was kept a moment ago.
pub(super) enum Held {
    /// The batch it is in.
    Batch(Arc<Batch>),
    /// A trim was faster, or the deletion of the stream, of which nothing is kept.
    Trimmed { first_offset: u64 },
}

/// Resolves when the first of two does.
pub(super) async fn either(one: impl Future<Output = ()>, other: impl Future<Output = ()>) {
    tokio::select! { () = one => {}, () = other => {} }
}

/// S-6: events that were never trimmed are not there.
fn missing(stream: StreamId, from: u64, to: u64) -> Error {
    Error::new(Code::DataCorrupt, format!("Offsets {from} to {to} of stream id {stream} are missing from the log."))
        .rule("S-6")
        .detail("from", from)
        .detail("to", to)
}

/// What of a page the filter holds for, at most `limit` events of it.
fn those(page: ReadReply, filter: &Filter, limit: usize) -> ReadReply {
    let (mut room, mut kept) = (limit.max(1) as u64, Vec::new());
    for run in page.slices.iter().flat_map(|slice| runs(slice, filter)) {
        let run = run.front(room, u64::MAX);
        room -= run.count();
        kept.push(run);
        if room == 0 {
            break;
        }
    }
    let after = if room == 0 { kept.last().and_then(|last| last.to().checked_sub(1)) } else { page.after };
    let more = after.map_or(0, |after| after + 1) < page.next_offset;
    ReadReply { slices: kept, after, more, ..page }
}

/// The front part with at most `events` events and `bytes` data bytes, but never less than one event.
pub(super) fn cut(run: Vec<Slice>, mut events: u64, mut bytes: u64) -> Vec<Slice> {
    let mut slices = Vec::new();
    for slice in run {
        if events == 0 || (bytes == 0 && !slices.is_empty()) {
            break;
        }
        let front = slice.front(events, bytes);
        let whole = front.to() == slice.to();
        // One event passes whatever its size, but only as the first.
        if !slices.is_empty() && front.data_bytes() > bytes {
            break;
        }
        events = events.saturating_sub(front.count());
        bytes = bytes.saturating_sub(front.data_bytes());
        slices.push(front);
        if !whole {
            break;
        }
    }
    slices
}

/// The offset that is meant.
fn chosen(stream: &StreamName, which: Which, bounds: &Bounds) -> Result<u64> {
    let (first, next) = (bounds.first_offset, bounds.next_offset);
    let not_there = |offset: String| {
        Error::new(Code::NotFound, format!("Event {offset} of stream {stream} was not found; it holds {first} to {}.", next.saturating_sub(1)))
            .resource(format!("/v1/streams/{stream}/events/{offset}"))
            .detail("first_offset", first)
            .detail("next_offset", next)
    };
    match which {
        Which::Offset(offset) if offset >= next => Err(not_there(offset.to_string())),
        Which::Offset(offset) if offset < first => Err(trimmed(stream, offset, bounds)),
        Which::Offset(offset) => Ok(offset),
        _ if first == next => {
            Err(Error::new(Code::StreamEmpty, format!("Stream {stream} has no event.")).detail("next_offset", next).resource(format!("/v1/streams/{stream}")))
        }
        Which::First => Ok(first),
        Which::Last => Ok(next - 1),
        Which::FromEnd(back) => next.checked_sub(back).filter(|offset| back > 0 && *offset >= first).ok_or_else(|| not_there(format!("-{back}"))),
        Which::Random => Ok(rand::random_range(first..next)),
    }
}

fn trimmed(stream: &StreamName, offset: u64, bounds: &Bounds) -> Error {
    Error::new(Code::OffsetTrimmed, format!("Offset {offset} of stream {stream} is gone; the stream begins at {}.", bounds.first_offset))
        .detail("first_offset", bounds.first_offset)
        .detail("next_offset", bounds.next_offset)
        .resource(format!("/v1/streams/{stream}"))
}
