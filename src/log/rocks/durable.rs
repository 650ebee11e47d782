//! The known-durable side file (S-7): what a recovery must at least bring back.
//!
//! It names the engine's sequence number after a commit, is written after that commit and never before, at most once a second by a thread
//! of its own, and at the end. A missing or old file says nothing; a number above what recovery found says that acknowledged data is gone.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::faults;

/// Name in the data directory.
pub(super) const FILE: &str = "durable";
/// First bytes: what this is, and its version.
const MAGIC: [u8; 8] = *b"TLDUR\0\0\x01";
/// Magic, sequence number u64 LE, CRC-32C u32 LE of both.
const BYTES: usize = 20;
/// Shortest time between two writes.
const EVERY: Duration = Duration::from_secs(1);

pub(super) fn encode(sequence: u64) -> [u8; BYTES] {
    let mut out = [0; BYTES];
    out[..8].copy_from_slice(&MAGIC);
    out[8..16].copy_from_slice(&sequence.to_le_bytes());
    let crc = super::recovery::crc32c(&[&out[..16]]);
    out[16..].copy_from_slice(&crc.to_le_bytes());
    out
}

pub(super) fn decode(bytes: &[u8]) -> Option<u64> {
    let bytes: &[u8; BYTES] = bytes.try_into().ok()?;
    let sequence = u64::from_le_bytes(bytes[8..16].try_into().ok()?);
    (*bytes == encode(sequence)).then_some(sequence)
}

/// The recorded sequence number. A file that cannot be read is reported and counts as missing.
pub(super) fn recorded(dir: &Path) -> Option<u64> {
    examine(dir).unwrap_or_else(|why| {
        tracing::warn!(path = %dir.join(FILE).display(), "the known-durable file {why}; this start is not checked against it (S-7)");
        None
    })
}

/// The recorded sequence number; `None` without a file, an error with half a sentence for one that cannot be read.
pub(super) fn examine(dir: &Path) -> Result<Option<u64>, String> {
    match std::fs::read(dir.join(FILE)) {
        Ok(bytes) => decode(&bytes).map(Some).ok_or_else(|| "is unreadable".to_owned()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("cannot be read ({error})")),
    }
}

/// Writes the file: a temporary one, synced, then renamed over it.
pub(super) fn record(dir: &Path, sequence: u64) -> std::io::Result<()> {
    let reach = |point| faults::reach(point).map_err(std::io::Error::other);
    let (path, temporary) = (dir.join(FILE), dir.join("durable.new"));
    reach(faults::DURABLE_WRITE)?;
    let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(&encode(sequence))?;
    reach(faults::DURABLE_WRITTEN)?;
    file.sync_data()?;
    reach(faults::DURABLE_SYNCED)?;
    std::fs::rename(&temporary, &path)?;
    reach(faults::DURABLE_RENAMED)
}

/// Keeps the file up to date behind the commits.
pub(super) struct Keeper {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    dir: PathBuf,
    sequence: AtomicU64,
    /// The thread is asleep until someone wakes it.
    asleep: AtomicBool,
    stop: AtomicBool,
}

impl Keeper {
    /// `sequence` is what recovery found.
    pub(super) fn start(dir: &Path, sequence: u64) -> std::io::Result<Self> {
        let shared = Arc::new(Shared { dir: dir.to_owned(), sequence: AtomicU64::new(sequence), asleep: AtomicBool::new(false), stop: AtomicBool::new(false) });
        let thread = std::thread::Builder::new().name("tidelog-durable".into()).spawn({
            let shared = shared.clone();
            move || shared.run()
        })?;
        Ok(Self { shared, thread: Mutex::new(Some(thread)) })
    }

    /// A commit that ends at `sequence` is on stable storage.
    pub(super) fn committed(&self, sequence: u64) {
        self.shared.sequence.store(sequence, SeqCst);
        if self.shared.asleep.swap(false, SeqCst) {
            self.wake();
        }
    }

    /// Writes what is outstanding and ends the thread.
    pub(super) fn stop(&self) {
        self.shared.stop.store(true, SeqCst);
        self.wake();
        if let Some(thread) = self.thread.lock().take() {
            // A panic of that thread was printed; nothing rests on it.
            let _ = thread.join();
        }
    }

    fn wake(&self) {
        if let Some(thread) = &*self.thread.lock() {
            thread.thread().unpark();
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn run(&self) {
        let mut written = None;
        loop {
            let stop = self.stop.load(SeqCst);
            let sequence = self.sequence.load(SeqCst);
            if written != Some(sequence) {
                if let Err(error) = record(&self.dir, sequence) {
                    tracing::warn!(%error, "the known-durable file was not written; a loss after this moment may go unnoticed (S-7)");
                }
                written = Some(sequence);
            }
            if stop {
                return;
            }
            let next = Instant::now() + EVERY;
            while !self.stop.load(SeqCst) {
                let Some(left) = next.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) else { break };
                std::thread::park_timeout(left);
            }
            self.asleep.store(true, SeqCst);
            while self.asleep.load(SeqCst) && !self.stop.load(SeqCst) && written == Some(self.sequence.load(SeqCst)) {
                std::thread::park();
            }
            self.asleep.store(false, SeqCst);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_side_file_round_trips_and_a_flipped_bit_is_noticed(sequence: u64, bit in 0..BYTES * 8) {
            let mut bytes = encode(sequence);
            prop_assert_eq!(decode(&bytes), Some(sequence));
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(decode(&bytes), None);
        }
    }

    #[test]
    fn the_last_commit_is_recorded_when_the_keeper_stops() {
        let dir = tempfile::tempdir().unwrap();
        let keeper = Keeper::start(dir.path(), 3).unwrap();
        keeper.committed(9);
        keeper.stop();
        assert_eq!(recorded(dir.path()), Some(9));
    }

    #[test]
    fn a_missing_or_unreadable_side_file_says_nothing() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(recorded(dir.path()), None);
        std::fs::write(dir.path().join(FILE), b"rubbish").unwrap();
        assert_eq!(recorded(dir.path()), None);
    }
}
