//! Credentials that were not known, counted by address and by key: who guesses has few guesses (`surfaces.md` 5.11, "rates").

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::callers::household;
use crate::types::{Code, Error, Result, limits};

/// See the module.
#[derive(Debug, Default)]
pub struct Failures(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    by_address: HashMap<IpAddr, Count>,
    by_key: HashMap<Box<str>, Count>,
}

/// Failures of the minute that began at `since`.
#[derive(Clone, Copy, Debug)]
struct Count {
    since: Instant,
    failures: u32,
}

const WINDOW: Duration = Duration::from_secs(60);

impl Failures {
    /// May this caller try? A caller without an address comes over the Unix socket, and may.
    ///
    /// # Errors
    /// `rate_limited`, with `retry_after_s`.
    pub fn check(&self, address: Option<IpAddr>, key: Option<&str>) -> Result<()> {
        let Some(address) = address else { return Ok(()) };
        let counts = self.0.lock();
        let now = Instant::now();
        let left = |count: Option<&Count>, most: u32| {
            let count = count.filter(|count| count.failures >= most)?;
            WINDOW.checked_sub(now.duration_since(count.since)).filter(|left| !left.is_zero())
        };
        let by_address = left(counts.by_address.get(&household(address)), limits::FAILED_CREDENTIALS_PER_ADDRESS);
        let by_key = left(key.and_then(|key| counts.by_key.get(key)), limits::FAILED_CREDENTIALS_PER_KEY);
        match by_address.max(by_key) {
            None => Ok(()),
            Some(left) => {
                let seconds = left.as_secs() + 1;
                Err(Error::new(Code::RateLimited, format!("Too many credentials that are not known came from here; try again in {seconds} s."))
                    .detail("retry_after_s", seconds))
            }
        }
    }

    /// One more was not known.
    pub fn note(&self, address: Option<IpAddr>, key: Option<&str>) {
        let Some(address) = address else { return };
        let counts = &mut *self.0.lock();
        let now = Instant::now();
        count(&mut counts.by_address, household(address), now);
        if let Some(key) = key {
            count(&mut counts.by_key, key.into(), now);
        }
    }
}

fn count<K: Hash + Eq>(counts: &mut HashMap<K, Count>, key: K, now: Instant) {
    let fresh = |count: &Count| now.duration_since(count.since) < WINDOW;
    if counts.len() >= limits::FAILURES_REMEMBERED && !counts.contains_key(&key) {
        counts.retain(|_, count| fresh(count));
        if counts.len() >= limits::FAILURES_REMEMBERED {
            counts.clear(); // so many addresses are no single guesser
        }
    }
    let count = counts.entry(key).or_insert(Count { since: now, failures: 0 });
    if !fresh(count) {
        *count = Count { since: now, failures: 0 };
    }
    count.failures += 1;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_its_guesses_and_not_one_more_and_others_are_left_alone() {
        let failures = Failures::default();
        let (here, there) = (Some("192.0.2.1".parse().unwrap()), Some("192.0.2.2".parse().unwrap()));
        for _ in 0..limits::FAILED_CREDENTIALS_PER_ADDRESS {
            failures.check(here, None).unwrap();
            failures.note(here, None);
        }
        let error = failures.check(here, None).unwrap_err();
        assert_eq!(error.code, Code::RateLimited);
        assert!(error.details["retry_after_s"].as_u64().unwrap() <= 61);
        failures.check(there, None).unwrap();
        failures.check(None, None).unwrap();
    }

    #[test]
    fn a_key_has_its_guesses_from_all_addresses_together() {
        let failures = Failures::default();
        let address = |n: u32| Some(IpAddr::from(std::net::Ipv4Addr::from(0x0a00_0000 + n)));
        for n in 0..limits::FAILED_CREDENTIALS_PER_KEY {
            failures.note(address(n), Some("tlu_abc"));
        }
        assert!(failures.check(address(99), Some("tlu_abc")).is_err());
        assert!(failures.check(address(99), Some("tlu_abd")).is_ok());
    }

    #[test]
    fn what_is_remembered_of_failures_is_bounded() {
        let failures = Failures::default();
        for n in 0..2 * limits::FAILURES_REMEMBERED as u32 {
            failures.note(Some(IpAddr::from(std::net::Ipv4Addr::from(n))), None);
        }
        assert!(failures.0.lock().by_address.len() <= limits::FAILURES_REMEMBERED);
    }
}
