//! What a broker stands on, and what is left when its process is gone: one of the two engines, kept over many sequences where opening is dear.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tidelog::log::rocks::{Rocks, RocksOptions};
use tidelog::log::{Engine, OpenError};

use crate::law::Counters;
use crate::support::*;

/// Which engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Memory,
    Rocks,
}

enum Disk {
    Memory(Arc<Memory>),
    Rocks(TempDir),
}

/// A store, what its broker has counted, and how many sequences it has served: their names differ, so that each begins with nothing.
pub struct Store {
    disk: Disk,
    pub counters: Counters,
    pub served: u32,
}

impl Store {
    pub fn new(kind: Kind) -> Self {
        let disk = match kind {
            Kind::Memory => Disk::Memory(Arc::new(Memory::new())),
            Kind::Rocks => Disk::Rocks(directory()),
        };
        Self { disk, counters: Counters::default(), served: 0 }
    }

    /// What a new process finds. Nobody may hold the engine of the one before, but for tasks that are about to end.
    pub async fn open(&mut self) -> Arc<dyn Engine> {
        match &mut self.disk {
            Disk::Memory(memory) => {
                *memory = Arc::new(memory.reopen());
                memory.clone()
            }
            Disk::Rocks(dir) => Arc::new(open_rocks(dir.path()).await),
        }
    }
}

/// In memory, if the machine offers it: what the power would take is not asked here.
fn directory() -> TempDir {
    let shm = Path::new("/dev/shm");
    let made = if shm.is_dir() { tempfile::tempdir_in(shm) } else { tempfile::tempdir() };
    made.expect("a directory for the store")
}

async fn open_rocks(dir: &Path) -> Rocks {
    let small = RocksOptions { cache_bytes: 8 << 20, write_buffer_bytes: 8 << 20, free_min_bytes: Some(0), ballast_bytes: 0, ..RocksOptions::new(dir) };
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        match Rocks::open(small.clone()) {
            Ok(rocks) => return rocks,
            // Reads that were under way still hold the old one.
            Err(OpenError::Locked(_)) if Instant::now() < deadline => tokio::time::sleep(Duration::from_millis(1)).await,
            Err(why) => panic!("the store does not open: {why}"),
        }
    }
}
