//! What the trait promises, one function per promise, and every engine held to each of them.
//!
//! A new engine writes a [`Subject`] and one line at the end of this file.

use std::sync::Arc;

use async_trait::async_trait;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;

use super::memory::{Fault, Memory};
use super::rocks::{Rocks, RocksOptions};
use super::{DeleteRange, Engine, EngineError, Key, Lane, Position, Pressure, ReadLimits, RowKey, Space, WriteSet, rows};
use crate::types::batch::Stamp;
use crate::types::{Batch, Encoding, EventRef, EventsBuilder, StreamId, SubscriptionId, TimeUs};

/// One engine under test, and what tests may do to it.
#[async_trait]
pub(super) trait Subject: Send + Sized {
    /// The engine.
    fn engine(&self) -> Arc<dyn Engine>;
    /// The next commit fails: before anything is stored, or after all of it is.
    fn fail_next(&self, stored: bool);
    /// No room for appends from now on, after a restart.
    async fn fill(self) -> Self;
    /// Ends this process's use of the data and begins another.
    async fn reopen(self) -> Self;
}

const LANE: Lane = Lane(0);
const S: StreamId = StreamId(7);
/// Everything.
pub(super) const ALL: ReadLimits = ReadLimits { until: u64::MAX, bytes: usize::MAX, batches: usize::MAX, not_below: 0 };

/// A batch of `count` events of `size` bytes at `base`.
pub(super) fn batch(stream: StreamId, base: u64, count: u32, size: usize) -> Arc<Batch> {
    let mut events = EventsBuilder::default();
    // Does not compress, so that blob and block sizes are what they seem.
    let mut state = stream.0 ^ base.rotate_left(17) ^ 0x9e37_79b9_7f4a_7c15;
    for _ in 0..count {
        let data: Vec<u8> = std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        })
        .take(size)
        .collect();
        events.push(&EventRef { data: &data, encoding: Encoding::Binary, ..EventRef::default() }).unwrap();
    }
    let stamp = Stamp { base_offset: base, time: TimeUs(1), log_epoch: 1, author_user: 1, author_source: 0, bytes_before: 0 };
    Arc::new(events.finish().unwrap().stamp(stream, stamp))
}

fn appends(batches: impl IntoIterator<Item = Arc<Batch>>) -> WriteSet {
    WriteSet { appends: batches.into_iter().collect(), ..WriteSet::default() }
}

fn puts<const N: usize>(rows: [(RowKey, &str); N]) -> WriteSet {
    WriteSet { rows: rows.into_iter().map(|(key, value)| (key, Some(value.into()))).collect(), ..WriteSet::default() }
}

fn deletes(range: DeleteRange) -> WriteSet {
    WriteSet { ranges: vec![range], ..WriteSet::default() }
}

fn cursor(sub: u64) -> RowKey {
    Key::Cursor(S, SubscriptionId(sub)).encode()
}

/// Commits at the engine's own position.
pub(super) async fn commit(engine: &Arc<dyn Engine>, set: WriteSet) -> Result<Position, EngineError> {
    let position = engine.position(LANE).await?;
    engine.commit(LANE, position, set).await
}

/// (base, end) of every batch.
pub(super) async fn spans(engine: &Arc<dyn Engine>, stream: StreamId, from: u64, limits: ReadLimits) -> Vec<(u64, u64)> {
    engine.read(stream, from, limits).await.unwrap().iter().map(|b| (b.head.base_offset, b.head.end())).collect()
}

async fn value(engine: &Arc<dyn Engine>, key: RowKey) -> Option<String> {
    engine.get(vec![key]).await.unwrap().remove(0).map(|v| String::from_utf8(v.to_vec()).unwrap())
}

/// Batches [0,2) [2,5) [5,6) [6,10) of stream 7, and one each of its neighbours 6 and 8.
async fn four(engine: &Arc<dyn Engine>) {
    let of = |stream, base, count| batch(stream, base, count, 10);
    commit(engine, appends([of(S, 0, 2), of(S, 2, 3), of(S, 5, 1), of(S, 6, 4), of(StreamId(6), 0, 3), of(StreamId(8), 0, 3)])).await.unwrap();
}

async fn a_commit_at_another_position_is_a_conflict_and_stores_nothing(subject: impl Subject) {
    let engine = subject.engine();
    let position = commit(&engine, puts([(cursor(1), "a")])).await.unwrap();
    for wrong in [position - 1, position + 1] {
        assert_eq!(engine.commit(LANE, wrong, puts([(cursor(1), "b")])).await, Err(EngineError::Conflict { position }));
    }
    assert_eq!(engine.position(LANE).await, Ok(position));
    assert_eq!(value(&engine, cursor(1)).await.as_deref(), Some("a"));
    assert_eq!(engine.commit(LANE, position, puts([(cursor(1), "c")])).await, Ok(position + 1));
}

async fn a_new_store_has_a_secret_of_its_own_and_keeps_it(subject: impl Subject) {
    async fn secret(engine: &Arc<dyn Engine>) -> Vec<u8> {
        let found = engine.get(vec![Key::Format.encode()]).await.unwrap().remove(0).expect("a format row");
        let format: rows::value::Format = rows::decode(&found).unwrap();
        assert_eq!((format.version, format.secret.len()), (rows::FORMAT_VERSION, 32));
        format.secret
    }
    let first = secret(&subject.engine()).await;
    assert!(first.iter().any(|byte| *byte != first[0]), "it is random");
    assert_eq!(secret(&subject.reopen().await.engine()).await, first);
}

async fn the_position_grows_by_one_with_each_commit_and_an_empty_set_is_one(subject: impl Subject) {
    let engine = subject.engine();
    let position = engine.position(LANE).await.unwrap();
    four(&engine).await;
    assert_eq!(engine.position(LANE).await, Ok(position + 1));
    assert_eq!(commit(&engine, WriteSet::default()).await, Ok(position + 2));
}

async fn a_commit_is_visible_when_it_has_returned(subject: impl Subject) {
    let engine = subject.engine();
    let stored = batch(S, 0, 3, 100);
    let set = WriteSet { appends: vec![stored.clone()], ..puts([(cursor(1), "x"), (Key::Counters.encode(), "y")]) };
    commit(&engine, set).await.unwrap();
    let read = engine.read(S, 0, ALL).await.unwrap();
    assert_eq!(read.len(), 1);
    assert_eq!((read[0].value(), read[0].head), (stored.value(), stored.head));
    assert_eq!(value(&engine, cursor(1)).await.as_deref(), Some("x"));
    assert_eq!(value(&engine, Key::Counters.encode()).await.as_deref(), Some("y"));
}

async fn a_commit_happens_as_a_whole_or_not_at_all(subject: impl Subject) {
    let engine = subject.engine();
    commit(&engine, puts([(cursor(1), "old")])).await.unwrap();
    subject.fail_next(false);
    let set = || WriteSet { appends: vec![batch(S, 0, 2, 10)], ..puts([(cursor(1), "new"), (Key::Counters.encode(), "new")]) };
    assert!(matches!(commit(&engine, set()).await, Err(EngineError::Failed(_))));
    drop(engine);
    let subject = subject.reopen().await;
    let engine = subject.engine();
    assert_eq!(spans(&engine, S, 0, ALL).await, []);
    assert_eq!(value(&engine, cursor(1)).await.as_deref(), Some("old"));
    assert_eq!(value(&engine, Key::Counters.encode()).await, None);
    subject.fail_next(true);
    assert!(matches!(commit(&engine, set()).await, Err(EngineError::Failed(_))));
    drop(engine);
    let subject = subject.reopen().await;
    let engine = subject.engine();
    assert_eq!(spans(&engine, S, 0, ALL).await, [(0, 2)]);
    assert_eq!(value(&engine, cursor(1)).await.as_deref(), Some("new"));
    assert_eq!(value(&engine, Key::Counters.encode()).await.as_deref(), Some("new"));
}

async fn after_a_failure_every_commit_is_refused_with_the_first_reason(subject: impl Subject) {
    let engine = subject.engine();
    subject.fail_next(false);
    let first = commit(&engine, puts([(cursor(1), "a")])).await.unwrap_err();
    let EngineError::Failed(reason) = first.clone() else { panic!("{first:?}") };
    for set in [puts([(cursor(1), "b")]), appends([batch(S, 0, 1, 1)]), WriteSet::default()] {
        assert_eq!(commit(&engine, set).await.unwrap_err(), first);
    }
    assert_eq!(engine.pressure(), Pressure::Failed(reason));
    assert_eq!(value(&engine, cursor(1)).await, None);
}

async fn commits_fail_after_the_close(subject: impl Subject) {
    let engine = subject.engine();
    engine.close().await.unwrap();
    assert!(matches!(engine.commit(LANE, 0, puts([(cursor(1), "a")])).await, Err(EngineError::Failed(_))));
    engine.close().await.unwrap();
}

async fn committed_sets_survive_a_restart(subject: impl Subject) {
    let engine = subject.engine();
    four(&engine).await;
    commit(&engine, WriteSet { rows: vec![(cursor(1), Some(b"1".to_vec())), (cursor(2), Some(b"2".to_vec()))], ..WriteSet::default() }).await.unwrap();
    commit(&engine, WriteSet { rows: vec![(cursor(1), None)], ..appends([batch(S, 10, 1, 20_000)]) }).await.unwrap();
    drop(engine);
    let subject = subject.reopen().await;
    let engine = subject.engine();
    assert_eq!(spans(&engine, S, 0, ALL).await, [(0, 2), (2, 5), (5, 6), (6, 10), (10, 11)]);
    assert_eq!(value(&engine, cursor(1)).await, None);
    assert_eq!(value(&engine, cursor(2)).await.as_deref(), Some("2"));
    assert_eq!(engine.last(S, 0).await.unwrap().unwrap().head.end(), 11);
    commit(&engine, appends([batch(S, 11, 1, 10)])).await.unwrap();
    assert_eq!(spans(&engine, S, 10, ALL).await, [(10, 11), (11, 12)]);
}

async fn under_the_watermark_appends_are_refused_and_rows_pass(subject: impl Subject) {
    four(&subject.engine()).await;
    let subject = subject.fill().await;
    let engine = subject.engine();
    assert!(matches!(engine.pressure(), Pressure::Full(_)));
    let position = engine.position(LANE).await.unwrap();
    let both = WriteSet { appends: vec![batch(S, 10, 1, 1)], ..puts([(cursor(1), "a")]) };
    assert!(matches!(commit(&engine, both).await, Err(EngineError::Full(_))));
    assert_eq!((engine.position(LANE).await, value(&engine, cursor(1)).await), (Ok(position), None));
    commit(&engine, puts([(cursor(1), "b")])).await.unwrap();
    commit(&engine, deletes(DeleteRange::Batches { stream: S, from: 0, to: Some(5) })).await.unwrap();
    assert_eq!(value(&engine, cursor(1)).await.as_deref(), Some("b"));
}

async fn a_read_from_the_middle_of_a_batch_returns_the_batch_that_contains_it(subject: impl Subject) {
    let engine = subject.engine();
    four(&engine).await;
    let all = [(0, 2), (2, 5), (5, 6), (6, 10)];
    for (from, first) in [(0, 0), (1, 0), (2, 1), (3, 1), (4, 1), (5, 2), (6, 3), (9, 3)] {
        assert_eq!(spans(&engine, S, from, ALL).await, all[first..], "from {from}");
    }
    assert_eq!(spans(&engine, S, 10, ALL).await, []);
    assert_eq!(spans(&engine, S, u64::MAX, ALL).await, []);
    assert_eq!(spans(&engine, StreamId(9), 0, ALL).await, []);
}

async fn a_read_below_the_first_kept_batch_begins_with_it(subject: impl Subject) {
    let engine = subject.engine();
    four(&engine).await;
    let limits = ReadLimits { not_below: 5, ..ALL };
    for from in [0, 3, 5] {
        assert_eq!(spans(&engine, S, from, limits).await, [(5, 6), (6, 10)]);
    }
    assert_eq!(spans(&engine, S, 7, limits).await, [(6, 10)]);
}

async fn a_read_stops_at_each_of_its_limits_but_returns_at_least_one_batch(subject: impl Subject) {
    let engine = subject.engine();
    four(&engine).await;
    let sizes: Vec<usize> = engine.read(S, 0, ALL).await.unwrap().iter().map(|b| b.value().len()).collect();
    assert_eq!(spans(&engine, S, 0, ReadLimits { until: 5, ..ALL }).await, [(0, 2), (2, 5)]);
    assert_eq!(spans(&engine, S, 0, ReadLimits { until: 6, ..ALL }).await, [(0, 2), (2, 5), (5, 6)]);
    assert_eq!(spans(&engine, S, 5, ReadLimits { until: 5, ..ALL }).await, []);
    assert_eq!(spans(&engine, S, 0, ReadLimits { batches: 2, ..ALL }).await, [(0, 2), (2, 5)]);
    assert_eq!(spans(&engine, S, 3, ReadLimits { batches: 0, ..ALL }).await, [(2, 5)]);
    assert_eq!(spans(&engine, S, 0, ReadLimits { bytes: sizes[0] + sizes[1], ..ALL }).await, [(0, 2), (2, 5)]);
    assert_eq!(spans(&engine, S, 0, ReadLimits { bytes: sizes[0] + sizes[1] - 1, ..ALL }).await, [(0, 2)]);
    assert_eq!(spans(&engine, S, 0, ReadLimits { bytes: 0, ..ALL }).await, [(0, 2)]);
}

async fn a_hole_is_damage_and_the_batches_before_it_come_first(subject: impl Subject) {
    let engine = subject.engine();
    commit(&engine, appends([batch(S, 0, 2, 10), batch(S, 2, 3, 10), batch(S, 9, 3, 10)])).await.unwrap();
    assert_eq!(spans(&engine, S, 0, ALL).await, [(0, 2), (2, 5)]);
    for from in [5, 7] {
        let error = engine.read(S, from, ALL).await.unwrap_err();
        assert!(matches!(error, EngineError::Corrupt { stream: S, from: 5, to: 8, .. }), "{error:?}");
    }
    assert_eq!(spans(&engine, S, 9, ALL).await, [(9, 12)]);
}

async fn an_overlap_is_damage(subject: impl Subject) {
    let engine = subject.engine();
    commit(&engine, appends([batch(S, 0, 100, 10), batch(S, 100, 20, 10), batch(S, 110, 5, 10)])).await.unwrap();
    assert_eq!(spans(&engine, S, 0, ALL).await, [(0, 100)]);
    let error = engine.read(S, 100, ALL).await.unwrap_err();
    assert!(matches!(error, EngineError::Corrupt { stream: S, from: 100, to: 119, .. }), "{error:?}");
}

async fn last_is_the_last_batch_at_or_above_the_first_kept(subject: impl Subject) {
    let engine = subject.engine();
    assert!(engine.last(S, 0).await.unwrap().is_none());
    four(&engine).await;
    for not_below in [0, 5, 6] {
        assert_eq!(engine.last(S, not_below).await.unwrap().unwrap().head.base_offset, 6);
    }
    assert!(engine.last(S, 7).await.unwrap().is_none());
    assert_eq!(engine.last(StreamId(6), 0).await.unwrap().unwrap().head.end(), 3);
    let heads = engine.last_heads(vec![(StreamId(6), 0), (S, 7), (S, 0), (StreamId(99), 0)]).await.unwrap();
    assert_eq!(heads.iter().map(|head| head.map(|head| head.base_offset)).collect::<Vec<_>>(), [Some(0), None, Some(6), None], "many at once");
}

async fn get_answers_in_the_order_asked(subject: impl Subject) {
    let engine = subject.engine();
    commit(&engine, puts([(cursor(1), "1"), (cursor(2), "2"), (Key::Counters.encode(), "c"), (Key::Stream(S).encode(), "s")])).await.unwrap();
    let keys = vec![Key::Stream(S).encode(), cursor(2), cursor(3), Key::Counters.encode(), cursor(1), cursor(2)];
    let found = engine.get(keys).await.unwrap();
    let found: Vec<Option<&[u8]>> = found.iter().map(Option::as_deref).collect();
    assert_eq!(found, [Some(&b"s"[..]), Some(b"2"), None, Some(b"c"), Some(b"1"), Some(b"2")]);
    assert_eq!(engine.get(Vec::new()).await.unwrap().len(), 0);
}

async fn scan_gives_the_keys_of_a_prefix_in_order_and_in_pages(subject: impl Subject) {
    let engine = subject.engine();
    let names = ["a", "aa", "b", "ba", "z"];
    let mut rows: Vec<_> = names.iter().rev().map(|name| (Key::StreamName(name).encode(), Some(name.as_bytes().to_vec()))).collect();
    rows.push((Key::Stream(S).encode(), Some(b"other kind".to_vec())));
    rows.push((RowKey { space: Space::State, bytes: Key::StreamName("b").encode().bytes }, Some(b"other space".to_vec())));
    commit(&engine, WriteSet { rows, ..WriteSet::default() }).await.unwrap();
    // A name's length comes before it: short names first.
    let order = ["a", "b", "z", "aa", "ba"];
    let prefix = rows::prefix::stream_names();
    let mut after = None;
    let mut found = Vec::new();
    loop {
        let page = engine.scan(prefix.clone(), after.take(), 2).await.unwrap();
        assert!(page.len() <= 2);
        let Some((key, _)) = page.last() else { break };
        after = Some(key.to_vec());
        found.extend(page);
    }
    assert_eq!(found.iter().map(|(_, value)| std::str::from_utf8(value).unwrap()).collect::<Vec<_>>(), order);
    assert_eq!(found[3].0, Key::StreamName("aa").encode().bytes);
    assert_eq!(engine.scan(prefix.clone(), None, 100).await.unwrap(), found);
    assert_eq!(engine.scan(prefix, None, 0).await.unwrap(), []);
    let everything = RowKey { space: Space::State, bytes: vec![255] };
    assert_eq!(engine.scan(everything, None, 5).await.unwrap(), []);
}

async fn the_end_of_a_deleted_range_stays(subject: impl Subject) {
    let engine = subject.engine();
    four(&engine).await;
    commit(&engine, puts([(cursor(1), "1"), (cursor(2), "2"), (cursor(3), "3")])).await.unwrap();
    commit(&engine, deletes(DeleteRange::Batches { stream: S, from: 2, to: Some(6) })).await.unwrap();
    assert_eq!(spans(&engine, S, 6, ReadLimits { not_below: 6, ..ALL }).await, [(6, 10)]);
    assert_eq!(spans(&engine, S, 0, ReadLimits { until: 2, ..ALL }).await, [(0, 2)]);
    commit(&engine, deletes(DeleteRange::Rows { space: Space::State, from: cursor(1).bytes, to: cursor(3).bytes })).await.unwrap();
    let left = engine.get(vec![cursor(1), cursor(2), cursor(3)]).await.unwrap();
    assert_eq!(left.iter().map(Option::is_some).collect::<Vec<_>>(), [false, false, true]);
}

async fn a_range_is_deleted_before_the_appends_and_rows_of_its_set(subject: impl Subject) {
    let engine = subject.engine();
    four(&engine).await;
    commit(&engine, puts([(cursor(1), "1"), (cursor(2), "2")])).await.unwrap();
    let set = WriteSet {
        ranges: vec![
            DeleteRange::Batches { stream: S, from: 0, to: None },
            DeleteRange::Rows { space: Space::State, from: cursor(0).bytes, to: cursor(9).bytes },
        ],
        rows: vec![(cursor(2), Some(b"new".to_vec()))],
        appends: vec![batch(S, 10, 2, 10)],
    };
    commit(&engine, set).await.unwrap();
    assert_eq!(spans(&engine, S, 0, ReadLimits { not_below: 10, ..ALL }).await, [(10, 12)]);
    assert_eq!((value(&engine, cursor(1)).await, value(&engine, cursor(2)).await.as_deref()), (None, Some("new")));
}

async fn everything_of_a_stream_can_be_deleted_without_touching_its_neighbours(subject: impl Subject) {
    let engine = subject.engine();
    four(&engine).await;
    let other = Key::Cursor(StreamId(8), SubscriptionId(1)).encode();
    commit(&engine, puts([(cursor(1), "1"), (other.clone(), "2")])).await.unwrap();
    commit(&engine, WriteSet { ranges: rows::ranges_of(S), ..WriteSet::default() }).await.unwrap();
    engine.trim(S, None).await.unwrap();
    assert_eq!(spans(&engine, S, 0, ALL).await, []);
    assert!(engine.last(S, 0).await.unwrap().is_none());
    assert_eq!((value(&engine, cursor(1)).await, value(&engine, other).await.as_deref()), (None, Some("2")));
    for stream in [StreamId(6), StreamId(8)] {
        assert_eq!(spans(&engine, stream, 0, ALL).await, [(0, 3)]);
    }
}

async fn a_trim_keeps_the_batch_at_the_new_head(subject: impl Subject) {
    let mut subject = subject;
    // Restarts flush: each batch becomes the last key of a file of its own.
    for base in 0..6 {
        commit(&subject.engine(), appends([batch(S, base * 10, 10, 600)])).await.unwrap();
        subject = subject.reopen().await;
    }
    let engine = subject.engine();
    for head in [0, 10, 40] {
        commit(&engine, deletes(DeleteRange::Batches { stream: S, from: 0, to: Some(head) })).await.unwrap();
        engine.trim(S, Some(head)).await.unwrap();
        let kept: Vec<_> = (head..60).step_by(10).map(|base| (base, base + 10)).collect();
        assert_eq!(spans(&engine, S, head, ReadLimits { not_below: head, ..ALL }).await, kept);
    }
}

async fn any_sequence_of_appends_and_trims_reads_like_a_list(subject: impl Subject) {
    let engine = subject.engine();
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let steps = proptest::collection::vec((1u32..20, 1usize..3000, 0u8..4, any::<prop::sample::Index>()), 40);
    let steps = steps.new_tree(&mut runner).unwrap().current();
    let (mut head, mut next, mut model) = (0, 0, Vec::new());
    for (count, size, act, at) in steps {
        if act == 0 && !model.is_empty() {
            let cut = at.index(model.len());
            model.drain(..cut);
            let (new, _) = model[0];
            commit(&engine, deletes(DeleteRange::Batches { stream: S, from: head, to: Some(new) })).await.unwrap();
            engine.trim(S, Some(new)).await.unwrap();
            head = new;
        } else {
            commit(&engine, appends([batch(S, next, count, size)])).await.unwrap();
            model.push((next, next + u64::from(count)));
            next += u64::from(count);
        }
        let from = head + at.index((next - head) as usize + 1) as u64;
        let expected: Vec<_> = model.iter().copied().filter(|(_, end)| *end > from).collect();
        assert_eq!(spans(&engine, S, from, ReadLimits { not_below: head, ..ALL }).await, expected);
        assert_eq!(engine.last(S, head).await.unwrap().map(|b| b.head.end()), model.last().map(|(_, end)| *end));
    }
}

struct InMemory(Arc<Memory>);

#[async_trait]
impl Subject for InMemory {
    fn engine(&self) -> Arc<dyn Engine> {
        self.0.clone()
    }

    fn fail_next(&self, stored: bool) {
        self.0.fail_commits(if stored { Fault::AfterWrite } else { Fault::BeforeWrite });
    }

    async fn fill(self) -> Self {
        self.0.fill(Some("a test says so"));
        self
    }

    async fn reopen(self) -> Self {
        Self(Arc::new(self.0.reopen()))
    }
}

struct OnDisk {
    dir: tempfile::TempDir,
    engine: Arc<Rocks>,
    /// A clean stop flushes, a kill leaves all to the log.
    clean: bool,
}

impl OnDisk {
    fn options(dir: &tempfile::TempDir, free_min: u64) -> RocksOptions {
        let small = 8 * 1024 * 1024;
        RocksOptions { cache_bytes: small, write_buffer_bytes: small, free_min_bytes: Some(free_min), ballast_bytes: 0, ..RocksOptions::new(dir.path()) }
    }

    fn new(clean: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let engine = Arc::new(Rocks::open(Self::options(&dir, 0)).unwrap());
        Self { dir, engine, clean }
    }

    async fn again(self, free_min: u64) -> Self {
        if self.clean {
            self.engine.close().await.unwrap();
        }
        assert_eq!(Arc::strong_count(&self.engine), 1, "the test still holds the engine");
        drop(self.engine);
        let engine = Arc::new(Rocks::open(Self::options(&self.dir, free_min)).unwrap());
        Self { engine, ..self }
    }
}

#[async_trait]
impl Subject for OnDisk {
    fn engine(&self) -> Arc<dyn Engine> {
        self.engine.clone()
    }

    fn fail_next(&self, stored: bool) {
        self.engine.fail_next(stored);
    }

    async fn fill(self) -> Self {
        self.again(u64::MAX).await
    }

    async fn reopen(self) -> Self {
        self.again(0).await
    }
}

/// Every promise for one engine.
macro_rules! engine {
    ($name:ident, $subject:expr) => {
        engine!($name, $subject;
            a_commit_at_another_position_is_a_conflict_and_stores_nothing
            a_new_store_has_a_secret_of_its_own_and_keeps_it
            the_position_grows_by_one_with_each_commit_and_an_empty_set_is_one
            a_commit_is_visible_when_it_has_returned
            a_commit_happens_as_a_whole_or_not_at_all
            after_a_failure_every_commit_is_refused_with_the_first_reason
            commits_fail_after_the_close
            committed_sets_survive_a_restart
            under_the_watermark_appends_are_refused_and_rows_pass
            a_read_from_the_middle_of_a_batch_returns_the_batch_that_contains_it
            a_read_below_the_first_kept_batch_begins_with_it
            a_read_stops_at_each_of_its_limits_but_returns_at_least_one_batch
            a_hole_is_damage_and_the_batches_before_it_come_first
            an_overlap_is_damage
            last_is_the_last_batch_at_or_above_the_first_kept
            get_answers_in_the_order_asked
            scan_gives_the_keys_of_a_prefix_in_order_and_in_pages
            the_end_of_a_deleted_range_stays
            a_range_is_deleted_before_the_appends_and_rows_of_its_set
            everything_of_a_stream_can_be_deleted_without_touching_its_neighbours
            a_trim_keeps_the_batch_at_the_new_head
            any_sequence_of_appends_and_trims_reads_like_a_list
        );
    };
    ($name:ident, $subject:expr; $($promise:ident)+) => {
        mod $name {
            $(
                #[tokio::test]
                async fn $promise() {
                    super::$promise($subject).await;
                }
            )+
        }
    };
}

engine!(memory, super::InMemory(super::Arc::new(super::Memory::new())));
engine!(rocks, super::OnDisk::new(true));
engine!(rocks_after_a_kill, super::OnDisk::new(false));
