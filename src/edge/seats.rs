//! Whose connection this is: counted for its user once it has shown a credential, and until its socket ends (`limits.md`).
//!
//! A proxy may carry many users over one connection; each of them has it.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;

use crate::broker::{Seat, Usage};
use crate::types::Result;

/// The places of one connection. The socket holds them, each request finds them among its extensions. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Seats(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// Who was seated or found seated last: mostly the only one. 0 = nobody.
    last: AtomicU64,
    by_user: Mutex<HashMap<u64, Seat>>,
}

impl Seats {
    /// Counts the connection for this user, unless it is counted already.
    ///
    /// # Errors
    /// `quota_exceeded`.
    pub fn take(&self, usage: &Arc<Usage>) -> Result<()> {
        let user = usage.user();
        if self.0.last.load(Relaxed) == user {
            return Ok(());
        }
        let mut by_user = self.0.by_user.lock();
        if let Entry::Vacant(place) = by_user.entry(user) {
            place.insert(usage.connect()?);
        }
        self.0.last.store(user, Relaxed);
        Ok(())
    }
}
