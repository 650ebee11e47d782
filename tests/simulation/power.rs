//! The life of one process of the broker: it may end between any two steps, and nothing of it has an effect afterwards.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

/// Held by everything that belongs to the process.
#[derive(Default)]
pub struct Power {
    dead: AtomicBool,
    died: Notify,
    /// So many more steps, and it dies. 0: as long as it likes.
    fuse: AtomicU64,
    tasks: Mutex<Vec<AbortHandle>>,
}

impl Power {
    /// Does the process still run?
    pub fn is_on(&self) -> bool {
        !self.dead.load(Ordering::SeqCst)
    }

    /// It dies here and now.
    pub fn cut(&self) {
        if !self.dead.swap(true, Ordering::SeqCst) {
            self.died.notify_waiters();
            self.tasks.lock().drain(..).for_each(|task| task.abort());
        }
    }

    /// It dies after so many more steps.
    pub fn light(&self, steps: u64) {
        self.fuse.store(steps, Ordering::SeqCst);
    }

    /// One step of the process: a frame that came or goes. False: it died before.
    pub fn step(&self) -> bool {
        let left = self.fuse.load(Ordering::SeqCst);
        if left > 0 {
            self.fuse.store(left - 1, Ordering::SeqCst);
            if left == 1 {
                self.cut();
            }
        }
        self.is_on()
    }

    /// A task of the process.
    pub fn own(&self, task: AbortHandle) {
        let mut tasks = self.tasks.lock();
        if tasks.len() > 64 {
            tasks.retain(|task| !task.is_finished());
        }
        tasks.push(task);
    }

    /// Resolves when it is dead.
    pub async fn down(&self) {
        let died = self.died.notified();
        tokio::pin!(died);
        died.as_mut().enable();
        if self.is_on() {
            died.await;
        }
    }
}
