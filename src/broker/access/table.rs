//! The credentials in use, by key and by user: who shows the same one shares what is known of it, and a change finds all it concerns.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::quota::Users;
use super::{Identity, Quotas, Vault};
use crate::log::rows::ApiKeyId;
use crate::types::limits;

/// What a commit changed about who may do what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Changed {
    /// Rows of a user: its own, its sources', their keys and rights.
    User(u64),
    /// A name of a stream means something else, or nothing.
    Names,
}

/// See the module.
pub struct Access {
    /// Hashes and passwords.
    pub vault: Vault,
    /// What users have and do.
    pub users: Users,
    names: AtomicU64,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// With the hash of the whole token, so that the next who shows it needs no look at the store.
    by_key: HashMap<ApiKeyId, (Vec<u8>, Arc<Identity>)>,
    by_user: HashMap<u64, Vec<Weak<Identity>>>,
}

impl Access {
    /// Nobody has shown anything yet.
    pub fn new(secret: &[u8], quotas: Quotas) -> Self {
        Self { vault: Vault::new(secret), users: Users::new(quotas), names: AtomicU64::new(0), known: Mutex::default() }
    }

    /// Grows whenever a name stops meaning the stream it meant.
    pub fn names(&self) -> u64 {
        self.names.load(Ordering::Acquire)
    }

    /// The credential with this public part, and the hash of the whole.
    pub fn find(&self, key: &ApiKeyId) -> Option<(Vec<u8>, Arc<Identity>)> {
        self.known.lock().by_key.get(key).cloned()
    }

    /// Remembers a credential, or finds the one that somebody else has put there.
    pub fn remember(&self, key: ApiKeyId, hash: Vec<u8>, identity: Arc<Identity>) -> Arc<Identity> {
        let mut known = self.known.lock();
        if known.by_key.len() >= limits::CREDENTIALS_REMEMBERED {
            // Those in use are held by their users.
            known.by_key.retain(|_, (_, identity)| Arc::strong_count(identity) > 1);
            if known.by_key.len() >= limits::CREDENTIALS_REMEMBERED {
                known.by_key.clear();
            }
            known.by_user.retain(|_, of_user| of_user.iter().any(|identity| identity.strong_count() > 0));
        }
        let (_, identity) = known.by_key.entry(key).or_insert((hash, identity)).clone();
        let of_user = known.by_user.entry(identity.user()).or_default();
        enter(of_user, &identity);
        identity
    }

    /// Notes a credential that has no key: its changes are told too.
    pub fn note(&self, identity: &Arc<Identity>) {
        enter(self.known.lock().by_user.entry(identity.user()).or_default(), identity);
    }

    /// A change is durable: what it concerns is looked up again, and who waits is woken.
    pub fn changed(&self, changed: Changed) {
        match changed {
            Changed::Names => drop(self.names.fetch_add(1, Ordering::AcqRel)),
            Changed::User(user) => {
                let mut known = self.known.lock();
                let Some(of_user) = known.by_user.get_mut(&user) else { return };
                of_user.retain(|identity| identity.strong_count() > 0);
                of_user.iter().filter_map(Weak::upgrade).for_each(|identity| identity.changed());
                if of_user.is_empty() {
                    known.by_user.remove(&user);
                }
            }
        }
    }

    /// A key is gone.
    pub fn forget(&self, key: &ApiKeyId) {
        self.known.lock().by_key.remove(key);
    }
}

fn enter(of_user: &mut Vec<Weak<Identity>>, identity: &Arc<Identity>) {
    if of_user.iter().any(|weak| std::ptr::eq(weak.as_ptr(), Arc::as_ptr(identity))) {
        return;
    }
    if of_user.len() == of_user.capacity() {
        of_user.retain(|identity| identity.strong_count() > 0);
    }
    of_user.push(Arc::downgrade(identity));
}
