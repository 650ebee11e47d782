//! Settings of the engine, and the option values of RocksDB with their reasons (`storage.md` sections 1, 5, 7).
//!
//! The values are starting points: when one is measured, it changes in `storage.md` with the figure, and here.

use std::path::{Path, PathBuf};

use rocksdb::{BlockBasedOptions, Cache, ColumnFamilyDescriptor, DBCompressionType, DBRecoveryMode, Options, WriteBufferManager, WriteOptions};

use super::space;

/// Column families, by what they hold.
pub(super) mod family {
    pub(in super::super) const LOG: &str = "log";
    pub(in super::super) const STATE: &str = "state";
    pub(in super::super) const META: &str = "meta";
    /// RocksDB always has it; nothing of ours is in it.
    pub(in super::super) const DEFAULT: &str = "default";
    pub(in super::super) const ALL: [&str; 4] = [LOG, STATE, META, DEFAULT];
}

const MIB: usize = 1024 * 1024;

/// How to open a data directory.
#[derive(Clone, Debug)]
pub struct RocksOptions {
    /// The data directory; made if it is not there.
    pub dir: PathBuf,
    /// Bytes of the block cache.
    pub cache_bytes: usize,
    /// Bytes of all memtables together.
    pub write_buffer_bytes: usize,
    /// Free bytes below which appends are refused. `None`: 2 GiB or 5 % of the file system, whichever is more.
    pub free_min_bytes: Option<u64>,
    /// Bytes of the file that is deleted when the disk is as good as full. 0: no such file.
    pub ballast_bytes: u64,
    /// Flush and compact past the page cache. Needs a file system with `O_DIRECT`.
    pub direct_io: bool,
    /// Open although acknowledged events are lost (S-6, S-7), and raise `log_epoch`. Only ever by an operator's word.
    pub accept_loss: bool,
}

impl RocksOptions {
    /// The usual values for `dir`.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            cache_bytes: 256 * MIB,
            write_buffer_bytes: 256 * MIB,
            free_min_bytes: None,
            ballast_bytes: space::BALLAST_BYTES,
            direct_io: false,
            accept_loss: false,
        }
    }

    /// Where RocksDB's own files are.
    pub(super) fn db_dir(&self) -> PathBuf {
        db_dir(&self.dir)
    }
}

/// RocksDB's directory inside a data directory.
pub(super) fn db_dir(dir: &Path) -> PathBuf {
    dir.join("db")
}

/// What an open handle shares: kept to be measured.
pub(super) struct Shared {
    pub(super) cache: Cache,
    pub(super) write_buffers: WriteBufferManager,
}

impl Shared {
    pub(super) fn new(options: &RocksOptions) -> Self {
        Self {
            cache: Cache::new_hyper_clock_cache(options.cache_bytes.max(MIB), 0),
            // Not charged to the cache: the two settings then add up (decisions.md 5c). No stall of its own: flushes keep it near the bound,
            // and a stall would block the committer where `no_slowdown` cannot refuse.
            write_buffers: WriteBufferManager::new_write_buffer_manager(options.write_buffer_bytes.max(MIB), false),
        }
    }
}

/// Options of the whole database.
pub(super) fn database(options: &RocksOptions, shared: &Shared, recovery: DBRecoveryMode) -> Result<Options, rocksdb::Error> {
    // Options from a string first: the result does not keep caches alive that were set before (storage.md section 5).
    let mut db = Options::default().get_options_from_string("verify_manifest_content_on_close=true")?;
    db.create_if_missing(true);
    db.create_missing_column_families(true);
    // Integrity: fail, never repair or skip.
    db.set_paranoid_checks(true);
    db.set_wal_recovery_mode(recovery);
    db.set_track_and_verify_wals_in_manifest(true);
    db.set_write_dbid_to_manifest(true);
    db.set_recycle_log_file_num(0);
    // Readable implies synced (storage.md section 1).
    db.set_manual_wal_flush(false);
    db.set_enable_pipelined_write(false);
    db.set_unordered_write(false);
    db.set_atomic_flush(false);
    db.set_use_fsync(false);
    // Else the small families pin old WAL files.
    db.set_max_total_wal_size(256 * MIB as u64);
    db.set_bytes_per_sync(MIB as u64);
    db.set_wal_bytes_per_sync(0);
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    db.set_max_background_jobs((cores / 2).clamp(2, 8) as i32);
    db.set_max_subcompactions(1);
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX);
    db.set_max_open_files(open_files(files) as i32);
    db.set_keep_log_file_num(10);
    db.set_max_log_file_size(32 * MIB);
    db.set_max_manifest_file_size(128 * MIB);
    db.set_allow_mmap_reads(false);
    db.set_allow_mmap_writes(false);
    db.set_use_direct_io_for_flush_and_compaction(options.direct_io);
    db.set_avoid_unnecessary_blocking_io(true);
    db.set_write_buffer_manager(&shared.write_buffers);
    Ok(db)
}

/// Tables that may be open, where the process may open `limit` files: half of it, at most 4096. The rest is for sockets.
pub fn open_files(limit: u64) -> u64 {
    (limit / 2).clamp(64, 4096)
}

/// All column families with their options.
pub(super) fn families(options: &RocksOptions, shared: &Shared) -> Result<Vec<ColumnFamilyDescriptor>, rocksdb::Error> {
    Ok(vec![
        ColumnFamilyDescriptor::new(family::LOG, log(options, shared)?),
        ColumnFamilyDescriptor::new(family::STATE, state(options, shared)?),
        ColumnFamilyDescriptor::new(family::META, meta(shared)?),
        ColumnFamilyDescriptor::new(family::DEFAULT, meta(shared)?),
    ])
}

/// What all families share. `rows`: small, precious, read often, hence checked once more when written.
fn base(rows: bool) -> Result<Options, rocksdb::Error> {
    let strict = format!("memtable_protection_bytes_per_key=8;memtable_max_range_deletions=1000;paranoid_file_checks={rows}");
    Options::default().get_options_from_string(strict)
}

/// Batches: written once, read in order, deleted from the head. Values of 4 KiB and more go to blob files, which compaction does not rewrite.
fn log(options: &RocksOptions, shared: &Shared) -> Result<Options, rocksdb::Error> {
    let mut cf = base(false)?;
    cf.set_write_buffer_size((options.write_buffer_bytes / 2).clamp(MIB, 128 * MIB));
    cf.set_max_write_buffer_number(4);
    cf.set_min_write_buffer_number_to_merge(1);
    cf.set_level_compaction_dynamic_level_bytes(true);
    cf.set_level_zero_file_num_compaction_trigger(4);
    cf.set_level_zero_slowdown_writes_trigger(20);
    cf.set_level_zero_stop_writes_trigger(36);
    cf.set_target_file_size_base(128 * MIB as u64);
    cf.set_max_bytes_for_level_base(1024 * MIB as u64);
    cf.set_compression_type(DBCompressionType::Lz4);
    cf.set_bottommost_compression_type(DBCompressionType::Zstd);
    cf.set_enable_blob_files(true);
    cf.set_min_blob_size(4096);
    cf.set_blob_file_size(256 * MIB as u64);
    cf.set_blob_compression_type(DBCompressionType::Lz4);
    cf.set_enable_blob_gc(true);
    cf.set_blob_gc_age_cutoff(0.5);
    cf.set_blob_gc_force_threshold(0.6);
    // Purges tombstones of trimmed heads and checks cold blocks again.
    cf.set_periodic_compaction_seconds(30 * 24 * 3600);
    let mut table = table(shared);
    table.set_block_size(16 * 1024);
    cf.set_block_based_table_factory(&table);
    Ok(cf)
}

/// Cursors, producers, receipts: overwritten all the time, read by key.
fn state(options: &RocksOptions, shared: &Shared) -> Result<Options, rocksdb::Error> {
    let mut cf = base(true)?;
    cf.set_write_buffer_size((options.write_buffer_bytes / 8).clamp(MIB, 32 * MIB));
    cf.set_max_write_buffer_number(4);
    cf.set_level_compaction_dynamic_level_bytes(true);
    cf.set_target_file_size_base(16 * MIB as u64);
    cf.set_max_bytes_for_level_base(128 * MIB as u64);
    cf.set_compression_type(DBCompressionType::Lz4);
    let mut table = table(shared);
    table.set_block_size(4 * 1024);
    table.set_bloom_filter(10.0, false);
    table.set_whole_key_filtering(true);
    cf.set_block_based_table_factory(&table);
    Ok(cf)
}

/// The catalogue: many cold rows.
fn meta(shared: &Shared) -> Result<Options, rocksdb::Error> {
    let mut cf = base(true)?;
    cf.set_write_buffer_size(8 * MIB);
    cf.set_max_write_buffer_number(2);
    cf.set_level_compaction_dynamic_level_bytes(true);
    cf.set_compression_type(DBCompressionType::Lz4);
    cf.set_block_based_table_factory(&table(shared));
    Ok(cf)
}

fn table(shared: &Shared) -> BlockBasedOptions {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(&shared.cache);
    // Indexes and filters of a million streams live within the cache's bound.
    table.set_cache_index_and_filter_blocks(true);
    table.set_pin_l0_filter_and_index_blocks_in_cache(true);
    table
}

/// How every commit is written: on stable storage before it returns; refused rather than delayed.
pub(super) fn commit() -> WriteOptions {
    let mut options = WriteOptions::default();
    options.set_sync(true);
    options.disable_wal(false);
    options.set_no_slowdown(true);
    options
}
