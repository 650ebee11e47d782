//! Free space: refuse appends before RocksDB meets a full disk, and keep some ballast to throw off.
//!
//! Below the watermark small rows still pass, so that cursors move and trims free space. When even that space is nearly gone the ballast is
//! deleted; the next start with room makes it again.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use crate::log::Pressure;

/// Size of the ballast unless settings say otherwise: rows and trims of minutes.
pub(super) const BALLAST_BYTES: u64 = 64 * 1024 * 1024;
/// Name of the ballast in the data directory.
pub(super) const BALLAST: &str = "ballast";
/// Least watermark by default.
const FREE_MIN_BYTES: u64 = 2 * 1024 * 1024 * 1024;
/// How often the file system is asked.
const POLL_MS: u64 = 1000;

/// Free and total bytes of a file system.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    pub(super) free: u64,
    pub(super) total: u64,
}

/// Asks the file system of `dir`.
pub(super) fn room(dir: &Path) -> std::io::Result<Room> {
    let stat = rustix::fs::statvfs(dir)?;
    Ok(Room { free: stat.f_bavail.saturating_mul(stat.f_frsize), total: stat.f_blocks.saturating_mul(stat.f_frsize) })
}

type Ask = Box<dyn Fn(&Path) -> std::io::Result<Room> + Send + Sync>;

/// The watermark of one data directory.
pub(super) struct Space {
    dir: PathBuf,
    free_min: Option<u64>,
    ballast_bytes: u64,
    /// The ballast was deleted: its bytes are not room for appends.
    thrown_off: AtomicBool,
    started: Instant,
    /// Milliseconds after `started` of the next question.
    next_poll: AtomicU64,
    full: AtomicBool,
    free: AtomicU64,
    ask: Ask,
}

impl Space {
    /// Looks at the disk once, and makes the ballast if there is room for it above the watermark.
    pub(super) fn new(dir: &Path, free_min: Option<u64>, ballast_bytes: u64, ask: impl Fn(&Path) -> std::io::Result<Room> + Send + Sync + 'static) -> Self {
        let space = Self {
            dir: dir.to_owned(),
            free_min,
            ballast_bytes,
            thrown_off: AtomicBool::new(false),
            started: Instant::now(),
            next_poll: AtomicU64::new(0),
            full: AtomicBool::new(false),
            free: AtomicU64::new(u64::MAX),
            ask: Box::new(ask),
        };
        space.make_ballast();
        space.poll();
        space
    }

    /// [`Pressure::Full`] below the watermark. Asks the file system at most once a second.
    pub(super) fn pressure(&self) -> Pressure {
        let now = self.started.elapsed().as_millis() as u64;
        let due = self.next_poll.load(Relaxed);
        if now >= due && self.next_poll.compare_exchange(due, now + POLL_MS, Relaxed, Relaxed).is_ok() {
            self.poll();
        }
        if !self.full.load(Relaxed) {
            return Pressure::None;
        }
        Pressure::Full(format!("{} bytes are free at {}; appends wait until a trim or the operator frees more", self.free.load(Relaxed), self.dir.display()))
    }

    /// Free bytes at the last look.
    pub(super) fn free(&self) -> u64 {
        self.free.load(Relaxed)
    }

    fn watermark(&self, total: u64) -> u64 {
        let thrown_off = if self.thrown_off.load(Relaxed) { self.ballast_bytes } else { 0 };
        self.free_min.unwrap_or_else(|| FREE_MIN_BYTES.max(total / 20)).saturating_add(thrown_off)
    }

    fn poll(&self) {
        let room = match (self.ask)(&self.dir) {
            Ok(room) => room,
            Err(error) => {
                tracing::warn!(%error, dir = %self.dir.display(), "free space is unknown; the watermark stays as it was");
                return;
            }
        };
        self.free.store(room.free, Relaxed);
        let full = room.free < self.watermark(room.total);
        if full != self.full.swap(full, Relaxed) {
            tracing::warn!(free_bytes = room.free, full, dir = %self.dir.display(), "the free-space watermark was crossed");
        }
        if full && room.free < self.ballast_bytes && !self.thrown_off.swap(true, Relaxed) && std::fs::remove_file(self.dir.join(BALLAST)).is_ok() {
            tracing::warn!(bytes = self.ballast_bytes, "the disk is nearly full: the ballast was deleted so that rows and trims still work");
        }
    }

    /// Best effort: without ballast everything works but the last 64 MiB of a full disk.
    fn make_ballast(&self) {
        let path = self.dir.join(BALLAST);
        if self.ballast_bytes == 0 || std::fs::metadata(&path).is_ok_and(|m| m.len() >= self.ballast_bytes) {
            return;
        }
        let Ok(room) = (self.ask)(&self.dir) else { return };
        if room.free < self.watermark(room.total).saturating_add(self.ballast_bytes) {
            return;
        }
        if let Err(error) = allocate(&path, self.ballast_bytes) {
            tracing::warn!(%error, path = %path.display(), "no ballast was made");
            let _ = std::fs::remove_file(&path);
        }
    }
}

/// Makes a file that really takes up `bytes`.
fn allocate(path: &Path, bytes: u64) -> std::io::Result<()> {
    let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    if rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, bytes).is_ok() {
        return Ok(());
    }
    let block = vec![0xA5; 1024 * 1024];
    let mut left = bytes;
    while left > 0 {
        let part = left.min(block.len() as u64);
        file.write_all(&block[..part as usize])?;
        left -= part;
    }
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn space(dir: &Path, free_min: Option<u64>, ballast: u64, free: &Arc<AtomicU64>, total: u64) -> Space {
        let free = free.clone();
        Space::new(dir, free_min, ballast, move |_| Ok(Room { free: free.load(Relaxed), total }))
    }

    #[test]
    fn the_default_watermark_is_two_gib_or_a_twentieth() {
        let dir = tempfile::tempdir().unwrap();
        let free = Arc::new(AtomicU64::new(u64::MAX));
        assert_eq!(space(dir.path(), None, 0, &free, 1 << 30).watermark(1 << 30), 2 << 30);
        assert_eq!(space(dir.path(), None, 0, &free, 1 << 40).watermark(1 << 40), (1 << 40) / 20);
    }

    #[test]
    fn below_the_watermark_it_is_full_and_above_it_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let free = Arc::new(AtomicU64::new(1000));
        let space = space(dir.path(), Some(500), 0, &free, 10_000);
        assert_eq!(space.pressure(), Pressure::None);
        free.store(499, Relaxed);
        space.poll();
        assert!(matches!(space.pressure(), Pressure::Full(text) if text.contains("499")));
        free.store(500, Relaxed);
        space.poll();
        assert_eq!(space.pressure(), Pressure::None);
    }

    #[test]
    fn the_ballast_is_thrown_off_when_the_disk_is_nearly_full_and_its_bytes_are_no_room_for_appends() {
        let dir = tempfile::tempdir().unwrap();
        let free = Arc::new(AtomicU64::new(1 << 20));
        let space = space(dir.path(), Some(8192), 4096, &free, 1 << 30);
        let ballast = dir.path().join(BALLAST);
        assert_eq!(std::fs::metadata(&ballast).unwrap().len(), 4096);
        free.store(5000, Relaxed);
        space.poll();
        assert!(ballast.exists(), "full, but not nearly out of space");
        free.store(4095, Relaxed);
        space.poll();
        assert!(!ballast.exists());
        free.store(8192 + 4095, Relaxed);
        space.poll();
        assert!(matches!(space.pressure(), Pressure::Full(_)));
        free.store(8192 + 4096, Relaxed);
        space.poll();
        assert_eq!(space.pressure(), Pressure::None);
    }

    #[test]
    fn no_ballast_is_made_where_it_would_reach_the_watermark() {
        let dir = tempfile::tempdir().unwrap();
        let free = Arc::new(AtomicU64::new(10_000));
        space(dir.path(), Some(8192), 4096, &free, 1 << 30);
        assert!(!dir.path().join(BALLAST).exists());
    }
}
