//! What only this engine can show: recovery, refusal, damage on disk, files.

use std::path::{Path, PathBuf};

use rocksdb::{BottommostLevelCompaction, CompactOptions};

use super::*;
use crate::log::conformance::{ALL, batch, commit, spans};
use crate::log::rows::{self, FORMAT_VERSION, value};
use crate::log::{Key, Space};
use crate::types::SubscriptionId;

const S: StreamId = StreamId(7);

fn options(dir: &Path) -> RocksOptions {
    let small = 8 * 1024 * 1024;
    RocksOptions { cache_bytes: small, write_buffer_bytes: small, free_min_bytes: Some(0), ballast_bytes: 0, ..RocksOptions::new(dir) }
}

fn open(dir: &Path) -> Result<Arc<dyn Engine>, OpenError> {
    Rocks::open(options(dir)).map(|rocks| Arc::new(rocks) as Arc<dyn Engine>)
}

fn refusal(dir: &Path) -> OpenError {
    Rocks::open(options(dir)).map(drop).expect_err("the directory should have been refused")
}

async fn append(engine: &Arc<dyn Engine>, base: u64, count: u32, size: usize) {
    commit(engine, WriteSet { appends: vec![batch(S, base, count, size)], ..WriteSet::default() }).await.unwrap();
}

/// What a kill at this moment would leave. The side file lags behind by up to a second, so it is left out.
fn copy(from: &Path) -> tempfile::TempDir {
    fn all(from: &Path, to: &Path) {
        std::fs::create_dir_all(to).unwrap();
        for entry in std::fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            let to = to.join(entry.file_name());
            if entry.file_name().to_string_lossy().starts_with(durable::FILE) {
                continue;
            }
            if entry.path().is_dir() {
                all(&entry.path(), &to);
                continue;
            }
            match std::fs::copy(entry.path(), to) {
                // The engine lives: it may have renamed or dropped a file since it was listed.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                copied => drop(copied.unwrap()),
            }
        }
    }
    let to = tempfile::tempdir().unwrap();
    all(from, to.path());
    to
}

fn files(dir: &Path, extension: &str) -> Vec<PathBuf> {
    let db = options::db_dir(dir);
    let mut found: Vec<_> = std::fs::read_dir(db).unwrap().map(|e| e.unwrap().path()).filter(|p| p.extension().is_some_and(|e| e == extension)).collect();
    found.sort();
    found
}

/// The log that holds data.
fn wal(dir: &Path) -> PathBuf {
    files(dir, "log").into_iter().rfind(|path| path.metadata().unwrap().len() > 0).unwrap()
}

fn flip(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at] ^= 0x20;
    std::fs::write(path, bytes).unwrap();
}

/// A directory as a kill leaves it, with batches [0,10) [10,20) [20,30) in the log, and where the log ended before the last one and after it.
async fn three(size: usize) -> (tempfile::TempDir, usize, usize) {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path()).unwrap();
    append(&engine, 0, 10, size).await;
    append(&engine, 10, 10, size).await;
    let before = wal(dir.path()).metadata().unwrap().len() as usize;
    append(&engine, 20, 10, size).await;
    let after = wal(dir.path()).metadata().unwrap().len() as usize;
    (copy(dir.path()), before, after)
}

#[tokio::test]
async fn a_log_cut_anywhere_in_its_last_record_opens_with_all_before_it() {
    for size in [10, 9000] {
        let (dir, before, after) = three(size).await;
        let step = ((after - before) / 7).max(1);
        for len in (before..after).step_by(step).chain([before + 1, before + 6, before + 8, after - 1]) {
            let dir = copy(dir.path());
            std::fs::File::options().write(true).open(wal(dir.path())).unwrap().set_len(len as u64).unwrap();
            let engine = open(dir.path()).unwrap();
            assert_eq!(spans(&engine, S, 0, ALL).await, [(0, 10), (10, 20)], "cut at {len} of {before}..{after}");
            append(&engine, 20, 5, size).await;
            assert_eq!(spans(&engine, S, 0, ALL).await, [(0, 10), (10, 20), (20, 25)]);
        }
    }
}

#[tokio::test]
async fn a_torn_last_record_opens_with_all_before_it() {
    for size in [10, 9000] {
        let (dir, before, after) = three(size).await;
        let step = ((after - before) / 7).max(1);
        for at in (before..after).step_by(step).chain([after - 1]) {
            let dir = copy(dir.path());
            flip(&wal(dir.path()), at);
            let engine = open(dir.path()).unwrap();
            assert_eq!(spans(&engine, S, 0, ALL).await, [(0, 10), (10, 20)], "flipped at {at} of {before}..{after}");
        }
        // Power went while pages were on their way: some are there, one is not.
        if after - before > 20_000 {
            let dir = copy(dir.path());
            let mut bytes = std::fs::read(wal(dir.path())).unwrap();
            bytes[before + 8192..before + 12288].fill(0);
            std::fs::write(wal(dir.path()), bytes).unwrap();
            assert_eq!(spans(&open(dir.path()).unwrap(), S, 0, ALL).await, [(0, 10), (10, 20)]);
        }
    }
}

#[tokio::test]
async fn a_flipped_byte_before_acknowledged_data_is_refused() {
    for size in [10, 9000] {
        let (dir, before, _) = three(size).await;
        let copied = copy(dir.path());
        let log = wal(copied.path());
        let step = before / 9;
        for at in (8..before).step_by(step) {
            flip(&log, at);
            let error = refusal(copied.path());
            assert_eq!(error.exit_code(), 11, "{error} at {at} of {before}");
            assert!(error.to_string().contains("accept_loss"), "{error}");
            flip(&log, at);
        }
        assert_eq!(spans(&open(copied.path()).unwrap(), S, 0, ALL).await, [(0, 10), (10, 20), (20, 30)], "a refusal changes nothing");
    }
}

#[tokio::test]
async fn a_flipped_bit_in_the_head_of_any_acknowledged_record_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path()).unwrap();
    let mut begins = vec![wal(dir.path()).metadata().unwrap().len() as usize];
    for base in [0, 10] {
        append(&engine, base, 10, 10).await;
        begins.push(wal(dir.path()).metadata().unwrap().len() as usize);
    }
    // The last record: damage before it hurts what was acknowledged.
    append(&engine, 20, 10, 10).await;
    let dir = copy(dir.path());
    let log = wal(dir.path());
    let whole = std::fs::read(&log).unwrap();
    for begin in &begins[..2] {
        for bit in 0..56 {
            let mut bytes = whole.clone();
            bytes[begin + bit / 8] ^= 1 << (bit % 8);
            std::fs::write(&log, bytes).unwrap();
            assert_eq!(refusal(dir.path()).exit_code(), 11, "bit {bit} of the record at {begin}");
        }
    }
}

#[tokio::test]
async fn a_record_whose_type_rotted_is_refused_and_never_read_for_ever() {
    let (dir, last, _) = three(10).await;
    // The last record, and the very first one.
    for (at, left) in [(last + 6, vec![(0, 10), (10, 20)]), (6, vec![])] {
        let dir = copy(dir.path());
        let mut bytes = std::fs::read(wal(dir.path())).unwrap();
        assert_eq!(bytes[at], 1, "a whole record");
        bytes[at] = 5;
        std::fs::write(wal(dir.path()), bytes).unwrap();
        assert_eq!(refusal(dir.path()).exit_code(), 11);
        let accepted = Rocks::open(RocksOptions { accept_loss: true, ..options(dir.path()) });
        let engine: Arc<dyn Engine> = match accepted {
            Ok(rocks) => Arc::new(rocks),
            // Without its first record the directory has no format.
            Err(error) => {
                assert_eq!((error.exit_code(), left.len()), (11, 0), "{error}");
                continue;
            }
        };
        assert_eq!(spans(&engine, S, 0, ALL).await, left);
    }
}

#[tokio::test]
async fn an_operator_may_accept_the_loss_and_a_new_history_begins() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path()).unwrap();
    let counters = value::Counters { log_epoch: 4, next_stream_id: 9, ..value::Counters::default() };
    commit(&engine, WriteSet { rows: vec![(Key::Counters.encode(), Some(rows::encode(&counters)))], ..WriteSet::default() }).await.unwrap();
    append(&engine, 0, 10, 10).await;
    let middle = wal(dir.path()).metadata().unwrap().len() as usize;
    append(&engine, 10, 10, 10).await;
    append(&engine, 20, 10, 10).await;
    let dir = copy(dir.path());
    flip(&wal(dir.path()), middle + 30);
    assert_eq!(refusal(dir.path()).exit_code(), 11);
    let engine: Arc<dyn Engine> = Arc::new(Rocks::open(RocksOptions { accept_loss: true, ..options(dir.path()) }).unwrap());
    assert_eq!(spans(&engine, S, 0, ALL).await, [(0, 10)]);
    let row = engine.get(vec![Key::Counters.encode()]).await.unwrap().remove(0).unwrap();
    assert_eq!(rows::decode::<value::Counters>(&row), Ok(value::Counters { log_epoch: 5, ..counters }));
    engine.close().await.unwrap();
    let engine = open(dir.path()).unwrap();
    assert_eq!(spans(&engine, S, 0, ALL).await, [(0, 10)]);
}

#[tokio::test]
async fn s7_an_older_copy_below_the_known_durable_position_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path()).unwrap();
    append(&engine, 0, 10, 10).await;
    let older = copy(dir.path());
    append(&engine, 10, 10, 10).await;
    engine.close().await.unwrap();
    drop(open(older.path()).unwrap());
    std::fs::copy(dir.path().join(durable::FILE), older.path().join(durable::FILE)).unwrap();
    let error = refusal(older.path());
    assert_eq!(error.exit_code(), 11, "{error}");
    assert!(error.to_string().contains("S-7"), "{error}");
    let accepted = Rocks::open(RocksOptions { accept_loss: true, ..options(older.path()) }).unwrap();
    drop(accepted);
    let engine = open(older.path()).unwrap();
    assert_eq!(spans(&engine, S, 0, ALL).await, [(0, 10)]);
}

#[tokio::test]
async fn s7_a_log_cut_below_the_known_durable_position_is_refused() {
    let (dir, before, _) = three(10).await;
    let engine = open(copy(dir.path()).path()).unwrap();
    drop(engine);
    let whole = copy(dir.path());
    drop(open(whole.path()).unwrap());
    std::fs::copy(whole.path().join(durable::FILE), dir.path().join(durable::FILE)).unwrap();
    std::fs::File::options().write(true).open(wal(dir.path())).unwrap().set_len(before as u64 + 3).unwrap();
    assert_eq!(refusal(dir.path()).exit_code(), 11);
}

#[tokio::test]
async fn an_empty_directory_with_a_known_durable_position_is_refused_and_stays_empty() {
    let dir = tempfile::tempdir().unwrap();
    durable::record(dir.path(), 12).unwrap();
    assert_eq!(refusal(dir.path()).exit_code(), 11);
    assert!(!options::db_dir(dir.path()).join("CURRENT").exists());
}

#[tokio::test]
async fn a_missing_old_or_unreadable_side_file_blocks_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path()).unwrap();
    append(&engine, 0, 10, 10).await;
    engine.close().await.unwrap();
    let file = dir.path().join(durable::FILE);
    for write in [None, Some(&b"x"[..]), Some(b"")] {
        match write {
            Some(bytes) => std::fs::write(&file, bytes).unwrap(),
            None => std::fs::remove_file(&file).unwrap(),
        }
        let engine = open(dir.path()).unwrap();
        assert_eq!(spans(&engine, S, 0, ALL).await, [(0, 10)]);
        engine.close().await.unwrap();
    }
    durable::record(dir.path(), 1).unwrap();
    assert_eq!(spans(&open(dir.path()).unwrap(), S, 0, ALL).await, [(0, 10)]);
}

#[tokio::test]
async fn a_newer_format_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path()).unwrap();
    let key = Key::Format.encode();
    let row = engine.get(vec![key.clone()]).await.unwrap().remove(0).unwrap();
    let mut format: value::Format = rows::decode(&row).unwrap();
    assert_eq!((format.version, format.secret.len()), (FORMAT_VERSION, 32));
    format.version += 1;
    commit(&engine, WriteSet { rows: vec![(key, Some(rows::encode(&format)))], ..WriteSet::default() }).await.unwrap();
    engine.close().await.unwrap();
    let error = refusal(dir.path());
    assert_eq!(error.exit_code(), 13, "{error}");
    assert!(error.to_string().contains("format 2"), "{error}");
}

#[tokio::test]
async fn a_table_of_a_newer_version_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()).unwrap());
    let names = ["default", "log", "state", "meta"];
    let mut db = DB::open_cf(&rocksdb::Options::default(), options::db_dir(dir.path()), names).unwrap();
    db.create_cf("index", &rocksdb::Options::default()).unwrap();
    drop(db);
    assert_eq!(refusal(dir.path()).exit_code(), 13);
}

#[tokio::test]
async fn the_secret_is_made_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut rows = Vec::new();
    for _ in 0..2 {
        let engine = open(dir.path()).unwrap();
        rows.push(engine.get(vec![Key::Format.encode()]).await.unwrap());
        engine.close().await.unwrap();
    }
    assert!(rows[0][0].is_some());
    assert_eq!(rows[0], rows[1]);
}

#[tokio::test]
async fn a_second_broker_on_the_same_directory_is_locked_out_until_the_close() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path()).unwrap();
    let error = refusal(dir.path());
    assert_eq!(error.exit_code(), 12, "{error}");
    assert!(error.to_string().contains(&std::process::id().to_string()), "{error}");
    engine.close().await.unwrap();
    // The first handle still exists, closed.
    open(dir.path()).unwrap();
}

#[tokio::test]
async fn only_the_owner_can_read_the_data() {
    use std::os::unix::fs::PermissionsExt as _;
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("made/by/open");
    let engine = Rocks::open(RocksOptions { ballast_bytes: 4096, ..options(&dir) }).unwrap();
    engine.close().await.unwrap();
    let mode = |path: PathBuf| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(dir.clone()), mode(options::db_dir(&dir))), (0o700, 0o700));
    for file in [durable::FILE, "LOCK.tidelog", space::BALLAST] {
        assert_eq!(mode(dir.join(file)), 0o600, "{file}");
    }
}

/// A directory with flushed batches [0,10) … [90,100), every one in the data part of one file of the kind.
async fn flushed(size: usize) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path()).unwrap();
    for base in (0..100).step_by(10) {
        append(&engine, base, 10, size).await;
    }
    engine.close().await.unwrap();
    dir
}

/// Reads everything there is, going on behind each damaged range. Returns the batches and the damaged ranges.
async fn read_all(engine: &Arc<dyn Engine>, until: u64) -> (Vec<(u64, u64)>, Vec<(u64, u64)>) {
    let (mut found, mut damaged, mut at) = (Vec::new(), Vec::new(), 0);
    while at < until {
        match engine.read(S, at, ReadLimits { until, batches: 3, ..ALL }).await {
            Ok(batches) => {
                assert!(!batches.is_empty(), "silence at {at}");
                found.extend(batches.iter().map(|b| (b.head.base_offset, b.head.end())));
                at = found.last().unwrap().1;
            }
            Err(EngineError::Corrupt { stream: S, from, to, .. }) => {
                assert!(from <= at && to >= at, "{from}..={to} at {at}");
                damaged.push((from, to));
                at = to + 1;
            }
            Err(other) => panic!("{other:?}"),
        }
    }
    (found, damaged)
}

#[tokio::test]
async fn flipped_bytes_in_tables_and_blobs_are_damage_with_its_range_never_silence() {
    // Small values are in the tables' blocks, large ones in blob files.
    for (size, extension) in [(300, "sst"), (3000, "blob")] {
        let dir = flushed(size).await;
        let mut hits = 0;
        for part in 0..12 {
            let dir = copy(dir.path());
            // The file of the batches is by far the largest.
            let file = files(dir.path(), extension).into_iter().max_by_key(|f| f.metadata().unwrap().len()).unwrap();
            let len = file.metadata().unwrap().len() as usize;
            flip(&file, 40 + part * (len - 1500) / 12);
            let engine = open(dir.path()).unwrap();
            let (found, damaged) = read_all(&engine, 100).await;
            let mut covered: Vec<_> = found.iter().copied().chain(damaged.iter().map(|(from, to)| (*from, to + 1))).collect();
            covered.sort_unstable();
            assert!(covered.windows(2).all(|w| w[0].1 == w[1].0) && covered.first().unwrap().0 == 0 && covered.last().unwrap().1 == 100, "{covered:?}");
            hits += damaged.len();
            if extension == "blob" {
                assert!(damaged.iter().all(|(from, to)| to - from == 9), "one blob is one batch: {damaged:?}");
            }
        }
        assert!(hits >= 10, "only {hits} of 12 flips in {extension} files were seen");
    }
}

#[tokio::test]
async fn a_damaged_end_of_a_stream_is_not_mistaken_for_an_earlier_end() {
    let dir = flushed(3000).await;
    let file = files(dir.path(), "blob").into_iter().max_by_key(|f| f.metadata().unwrap().len()).unwrap();
    flip(&file, file.metadata().unwrap().len() as usize - 3000);
    let engine = open(dir.path()).unwrap();
    let error = engine.last(S, 0).await.unwrap_err();
    assert!(matches!(error, EngineError::Corrupt { stream: S, from: 90, .. }), "{error:?}");
}

#[tokio::test]
async fn s6_damage_of_other_streams_is_none_of_a_stream_that_lies_elsewhere() {
    let dir = flushed(30).await;
    let elsewhere = StreamId(S.0 + 1);
    let engine = open(dir.path()).unwrap();
    commit(&engine, WriteSet { appends: vec![batch(elsewhere, 0, 10, 30)], ..WriteSet::default() }).await.unwrap();
    engine.close().await.unwrap();
    // All of `S` is in one block, the last one of its file: looking backward from the stream behind it meets it.
    let file = files(dir.path(), "sst").into_iter().max_by_key(|f| f.metadata().unwrap().len()).unwrap();
    flip(&file, 100);
    let engine = open(dir.path()).unwrap();
    let damaged = engine.last(S, 0).await;
    assert!(matches!(damaged, Err(EngineError::Corrupt { stream: S, .. })), "{damaged:?}");
    assert_eq!(engine.last(elsewhere, 0).await.unwrap().map(|b| b.head.end()), Some(10));
    assert_eq!(spans(&engine, elsewhere, 0, ALL).await, [(0, 10)]);
    assert_eq!(spans(&engine, elsewhere, 5, ALL).await, [(0, 10)], "from the middle of a batch");
    assert_eq!(engine.last(StreamId(S.0 + 2), 0).await.unwrap().map(|b| b.head.end()), None);
}

#[tokio::test]
async fn s6_a_stream_whose_only_block_is_damaged_is_refused_and_not_searched_for_ever() {
    let dir = flushed(30).await;
    let file = files(dir.path(), "sst").into_iter().max_by_key(|f| f.metadata().unwrap().len()).unwrap();
    flip(&file, 100);
    let engine = open(dir.path()).unwrap();
    let read = engine.read(S, 0, ALL).await;
    assert!(matches!(read, Err(EngineError::Corrupt { stream: S, from: 0, .. })), "{read:?}");
}

#[tokio::test]
async fn a_damaged_row_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path()).unwrap();
    let keys: Vec<_> = (0..200).map(|n| Key::Cursor(S, SubscriptionId(n)).encode()).collect();
    let value: Vec<u8> = (0..64u8).map(|n| n.wrapping_mul(151)).collect();
    let rows = keys.iter().map(|key| (key.clone(), Some(value.clone()))).collect();
    commit(&engine, WriteSet { rows, ..WriteSet::default() }).await.unwrap();
    engine.close().await.unwrap();
    let file = files(dir.path(), "sst").into_iter().max_by_key(|f| f.metadata().unwrap().len()).unwrap();
    flip(&file, 100);
    let engine = open(dir.path()).unwrap();
    assert!(matches!(engine.get(keys.clone()).await, Err(EngineError::Failed(_))));
    let prefix = RowKey { space: Space::State, bytes: vec![2] };
    assert!(matches!(engine.scan(prefix, None, 1000).await, Err(EngineError::Failed(_))));
}

#[tokio::test]
async fn a_value_that_is_no_batch_is_damage() {
    let dir = tempfile::tempdir().unwrap();
    let rocks = Rocks::open(options(dir.path())).unwrap();
    let store = rocks.store().unwrap();
    let log = store.db.cf_handle(family::LOG).unwrap();
    let good = batch(S, 10, 5, 10);
    let mut bad = good.value().to_vec();
    *bad.last_mut().unwrap() ^= 1;
    for (base, value) in [(0, batch(S, 0, 10, 10).value().to_vec()), (10, bad), (15, batch(S, 15, 5, 10).value().to_vec()), (20, b"short".to_vec())] {
        store.db.put_cf(log, log_key(S, base), value).unwrap();
    }
    drop(store);
    let engine: Arc<dyn Engine> = Arc::new(rocks);
    let (found, damaged) = read_all(&engine, 23).await;
    assert_eq!((found, damaged), (vec![(0, 10), (15, 20)], vec![(10, 14), (20, 22)]));
    assert!(matches!(engine.last(S, 0).await, Err(EngineError::Corrupt { from: 20, .. })));
}

#[tokio::test]
async fn dropping_files_keeps_a_head_that_is_the_last_key_of_its_file() {
    let dir = tempfile::tempdir().unwrap();
    let rocks = Arc::new(Rocks::open(options(dir.path())).unwrap());
    let engine: Arc<dyn Engine> = rocks.clone();
    for base in (0..100).step_by(10) {
        append(&engine, base, 10, 2000).await;
    }
    // Files below level 0, two batches in each.
    let layout = || {
        let store = rocks.store().unwrap();
        let files = store.db.live_files().unwrap().into_iter().filter(|f| f.column_family_name == family::LOG);
        let mut files: Vec<_> = files.map(|f| (f.level, keys::parse(&f.start_key.unwrap()).unwrap().1, keys::parse(&f.end_key.unwrap()).unwrap().1)).collect();
        files.sort_unstable();
        files
    };
    {
        let store = rocks.store().unwrap();
        let log = store.db.cf_handle(family::LOG).unwrap();
        store.db.set_options_cf(log, &[("enable_blob_files", "false"), ("target_file_size_base", "1"), ("disable_auto_compactions", "true")]).unwrap();
        store.db.flush_cf(log).unwrap();
        let mut how = CompactOptions::default();
        how.set_bottommost_level_compaction(BottommostLevelCompaction::Force);
        store.db.compact_range_cf_opt(log, None::<&[u8]>, None::<&[u8]>, &how);
    }
    let files = layout();
    assert_eq!(files, (0..5).map(|n| (6, n * 20, n * 20 + 10)).collect::<Vec<_>>());
    for (head, left) in [(10, 5), (20, 4), (50, 3), (60, 2)] {
        let range = DeleteRange::Batches { stream: S, from: 0, to: Some(head) };
        commit(&engine, WriteSet { ranges: vec![range], ..WriteSet::default() }).await.unwrap();
        engine.trim(S, Some(head)).await.unwrap();
        assert_eq!(layout().len(), left, "the files below {head} are gone, the one that ends with it is not");
        let kept: Vec<_> = (head..100).step_by(10).map(|base| (base, base + 10)).collect();
        assert_eq!(spans(&engine, S, head, ReadLimits { not_below: head, ..ALL }).await, kept);
    }
    // Nothing is below the first offset.
    engine.trim(S, Some(0)).await.unwrap();
    assert_eq!(layout().len(), 2);
}

#[tokio::test]
async fn a_checkpoint_is_a_directory_that_opens() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path()).unwrap();
    append(&engine, 0, 10, 600).await;
    let dest = dir.path().join("copy");
    engine.checkpoint(&dest).await.unwrap();
    assert!(matches!(engine.checkpoint(&dest).await, Err(EngineError::Refused(_))), "it must not exist");
    append(&engine, 10, 10, 600).await;
    let copy = open(&dest).unwrap();
    assert_eq!(spans(&copy, S, 0, ALL).await, [(0, 10)]);
    append(&copy, 10, 5, 10).await;
    assert_eq!(spans(&engine, S, 0, ALL).await, [(0, 10), (10, 20)]);
}

#[tokio::test]
async fn metrics_are_numbers_with_distinct_names() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path()).unwrap();
    append(&engine, 0, 10, 600).await;
    let metrics = engine.metrics();
    let names: std::collections::BTreeSet<_> = metrics.iter().map(|(name, _)| name).collect();
    assert_eq!(names.len(), metrics.len());
    let of = |wanted: &str| metrics.iter().find(|(name, _)| *name == wanted).unwrap().1;
    assert!(of("tidelog_rocksdb_keys") >= 2.0 && of("tidelog_rocksdb_memtable_bytes") > 6000.0 && of("tidelog_rocksdb_write_stopped") == 0.0, "{metrics:?}");
    engine.close().await.unwrap();
    assert_eq!(engine.metrics(), []);
}

#[test]
fn the_yardstick_writes_what_it_is_given() {
    for receipts in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let spent = raw_write(dir.path(), (0..10).map(|n| vec![n; 100]), 4, receipts).unwrap();
        assert!(spent > std::time::Duration::ZERO);
    }
}

#[tokio::test]
async fn a_stall_refuses_the_commit_and_the_same_set_passes_when_it_is_over() {
    let dir = tempfile::tempdir().unwrap();
    let rocks = Arc::new(Rocks::open(options(dir.path())).unwrap());
    let engine: Arc<dyn Engine> = rocks.clone();
    let stop_at = |files: &str| {
        let store = rocks.store().unwrap();
        let log = store.db.cf_handle(family::LOG).unwrap();
        let never = ("level0_file_num_compaction_trigger", "1000");
        store.db.set_options_cf(log, &[never, ("level0_slowdown_writes_trigger", files), ("level0_stop_writes_trigger", files)]).unwrap();
        store.db.flush_cf(log).unwrap();
    };
    append(&engine, 0, 10, 10).await;
    stop_at("1000");
    append(&engine, 10, 10, 10).await;
    stop_at("2");
    let position = engine.position(Lane(0)).await.unwrap();
    let set = || WriteSet { appends: vec![batch(S, 20, 10, 10)], ..WriteSet::default() };
    assert!(matches!(commit(&engine, set()).await, Err(EngineError::Refused(_))));
    assert_eq!(engine.position(Lane(0)).await, Ok(position));
    assert_eq!(engine.pressure(), Pressure::None);
    assert_eq!(spans(&engine, S, 0, ALL).await, [(0, 10), (10, 20)]);
    stop_at("1000");
    assert_eq!(commit(&engine, set()).await, Ok(position + 1));
    assert_eq!(spans(&engine, S, 0, ALL).await, [(0, 10), (10, 20), (20, 30)]);
}

#[tokio::test]
async fn the_last_reader_closes_the_database_and_the_close_waits_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let rocks = Arc::new(Rocks::open(options(dir.path())).unwrap());
    let reader = rocks.store().unwrap();
    let close = tokio::spawn({
        let rocks = rocks.clone();
        async move { rocks.close().await }
    });
    while rocks.store().is_ok() {
        tokio::task::yield_now().await;
    }
    assert_eq!(refusal(dir.path()).exit_code(), 12, "a read is still under way");
    assert!(!close.is_finished());
    drop(reader);
    close.await.unwrap().unwrap();
    open(dir.path()).unwrap();
}
