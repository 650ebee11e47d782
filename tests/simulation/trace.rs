//! What happened, in order: a hash of all of it, and the lines for whoever replays a seed.

use std::fmt::Arguments;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::time::Instant;
use xxhash_rust::xxh3::Xxh3;

/// One run's log.
pub struct Trace {
    hash: Mutex<(Xxh3, String)>,
    ticks: AtomicU64,
    began: Instant,
    loud: bool,
}

impl Trace {
    /// `loud`: every line is printed.
    pub fn new(loud: bool) -> Self {
        Self { hash: Mutex::new((Xxh3::new(), String::new())), ticks: AtomicU64::new(0), began: Instant::now(), loud }
    }

    /// The next number of all: what has a smaller one happened before.
    pub fn tick(&self) -> u64 {
        self.ticks.fetch_add(1, Ordering::Relaxed)
    }

    /// A line.
    pub fn say(&self, line: Arguments<'_>) {
        use std::fmt::Write as _;
        let (hash, text) = &mut *self.hash.lock();
        text.clear();
        write!(text, "{:>6} {line}", self.began.elapsed().as_millis()).expect("a string takes everything");
        hash.update(text.as_bytes());
        if self.loud {
            println!("{text}");
        }
    }

    /// A frame on its way. Its text is made only if somebody reads it.
    pub fn frame(&self, way: &str, line: u64, bytes: &[u8], text: impl FnOnce() -> String) {
        let at = self.began.elapsed().as_millis() as u64;
        let (hash, _) = &mut *self.hash.lock();
        hash.update(way.as_bytes());
        hash.update(&[at.to_le_bytes(), line.to_le_bytes()].concat());
        hash.update(bytes);
        if self.loud {
            println!("{at:>6} {way} {line} {:.300}", text());
        }
    }

    /// Of everything so far.
    pub fn hash(&self) -> u64 {
        self.hash.lock().0.digest()
    }
}
