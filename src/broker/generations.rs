//! A bounded map of what is in use: two generations, the older of which is dropped when the younger is full.
//!
//! Every access moves an entry into the young generation, so an entry survives as long as it is used once per turn.
//! Entries say themselves whether they may go (a cursor with a live session may not).

use std::hash::Hash;

/// Hash maps of the commit loop, which looks a dozen things up for each append. The seed is new in every process, so nobody outside can
/// choose names that collide; and what a map holds is bounded.
pub type HashMap<K, V> = std::collections::HashMap<K, V, Seeds>;
/// The same for sets.
pub type HashSet<K> = std::collections::HashSet<K, Seeds>;

#[cfg(not(feature = "faults"))]
type Seeds = foldhash::quality::RandomState;
/// In a simulation the same names take the same ways twice.
#[cfg(feature = "faults")]
type Seeds = foldhash::quality::FixedState;

/// May this entry be dropped from memory?
pub trait Evictable {
    /// Something besides the stored row depends on it.
    fn pinned(&self) -> bool {
        false
    }
}

impl<T: Evictable> Evictable for Option<T> {
    fn pinned(&self) -> bool {
        self.as_ref().is_some_and(Evictable::pinned)
    }
}

/// Between `capacity` and twice as many entries, not counting pinned ones.
pub struct Generations<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
    capacity: usize,
}

impl<K: Hash + Eq + Clone, V: Evictable> Generations<K, V> {
    /// `capacity` counts one generation.
    pub fn new(capacity: usize) -> Self {
        Self { young: HashMap::default(), old: HashMap::default(), capacity: capacity.max(1) }
    }

    /// The entry, which counts as used.
    pub fn get<Q>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: std::borrow::Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        if !self.young.contains_key(key) {
            let (key, value) = self.old.remove_entry(key)?;
            self.young.insert(key, value);
        }
        self.young.get_mut(key)
    }

    /// The entry, which does not count as used.
    pub fn peek<Q>(&self, key: &Q) -> Option<&V>
    where
        K: std::borrow::Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.young.get(key).or_else(|| self.old.get(key))
    }

    /// Puts an entry, replacing what was there.
    pub fn insert(&mut self, key: K, value: V) {
        self.old.remove(&key);
        self.young.insert(key, value);
    }

    /// Drops the older generation if the younger is full. Call it only when every entry equals its stored row.
    pub fn turn(&mut self) {
        if self.young.len() <= self.capacity {
            return;
        }
        let old = std::mem::replace(&mut self.old, std::mem::take(&mut self.young));
        self.young.extend(old.into_iter().filter(|(_, value)| value.pinned()));
        if self.old.capacity() > 4 * self.capacity {
            self.old.shrink_to_fit();
        }
    }

    /// Forgets everything `keep` does not want; `keep` may put entries right.
    pub fn retain(&mut self, mut keep: impl FnMut(&K, &mut V) -> bool) {
        self.young.retain(&mut keep);
        self.old.retain(keep);
    }

    /// Entries held.
    pub fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }

    /// All entries.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.young.values_mut().chain(self.old.values_mut())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Evictable for u32 {
        fn pinned(&self) -> bool {
            *self == 7
        }
    }

    #[test]
    fn what_is_used_stays_what_is_not_goes_and_pinned_entries_never_go() {
        let mut map = Generations::new(4);
        map.insert(0, 7);
        for turn in 1..100u32 {
            map.insert(turn * 10, 0);
            assert!(turn < 2 || map.get(&10).is_some(), "used every turn");
            map.turn();
        }
        assert!(map.peek(&20).is_none());
        assert_eq!(map.peek(&0), Some(&7));
        assert!(map.len() <= 11, "{}", map.len());
    }
}
