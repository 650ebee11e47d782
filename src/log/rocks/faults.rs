//! Places where a test can make the engine fail or die. Without the feature `faults` this is nothing at all.
//!
//! `TIDELOG_FAULTS="commit.after_write=abort@7,commit.before_write=error@3"`: at the N-th visit of the point, do it once.

#[cfg(any(test, feature = "faults"))]
pub(super) use real::Faults;

#[cfg(not(any(test, feature = "faults")))]
pub(super) use none::Faults;

/// Before the set reaches the WAL.
pub(super) const BEFORE_WRITE: &str = "commit.before_write";
/// After it is on stable storage, before anyone is told.
pub(super) const AFTER_WRITE: &str = "commit.after_write";

#[cfg(not(any(test, feature = "faults")))]
mod none {
    pub(in super::super) struct Faults;

    impl Faults {
        pub(in super::super) fn from_env() -> Result<Self, String> {
            Ok(Self)
        }

        #[inline(always)]
        pub(in super::super) fn skips_sync(&self) -> bool {
            false
        }

        #[inline(always)]
        pub(in super::super) fn visit(&self, _point: &str) -> Result<(), String> {
            Ok(())
        }
    }
}

#[cfg(any(test, feature = "faults"))]
mod real {
    use parking_lot::Mutex;

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Act {
        Error,
        Abort,
    }

    #[derive(Clone, Debug, PartialEq, Eq)]
    struct Rule {
        point: String,
        act: Act,
        /// Visits that still pass; the last one acts.
        left: u64,
    }

    /// The rules, each used up once.
    pub(in super::super) struct Faults {
        rules: Mutex<Vec<Rule>>,
        skip_sync: bool,
    }

    impl Faults {
        /// From `TIDELOG_FAULTS` in binaries built with the feature; tests of the library add theirs by hand.
        pub(in super::super) fn from_env() -> Result<Self, String> {
            #[cfg(feature = "faults")]
            let text = std::env::var("TIDELOG_FAULTS").unwrap_or_default();
            #[cfg(not(feature = "faults"))]
            let text = String::new();
            // The one promise that only the engine can break (`broker/broken.rs` has the others): S-1, seen by a power cut alone.
            let skip_sync = cfg!(feature = "faults") && std::env::var("TIDELOG_BREAK").is_ok_and(|word| word == "skip_sync");
            let faults = Self { rules: Mutex::default(), skip_sync };
            text.split(',').map(str::trim).filter(|rule| !rule.is_empty()).try_for_each(|rule| faults.add(rule))?;
            Ok(faults)
        }

        /// Adds one rule: `point=error@N` or `point=abort@N`, N from 1.
        pub(in super::super) fn add(&self, text: &str) -> Result<(), String> {
            let wrong = || format!("fault {text:?} is not point=error@N or point=abort@N with N from 1");
            let (point, rest) = text.split_once('=').ok_or_else(wrong)?;
            let (act, count) = rest.split_once('@').ok_or_else(wrong)?;
            let act = match act {
                "error" => Act::Error,
                "abort" => Act::Abort,
                _ => return Err(wrong()),
            };
            if point != super::BEFORE_WRITE && point != super::AFTER_WRITE {
                return Err(format!("there is no fault point {point:?}; there are {} and {}", super::BEFORE_WRITE, super::AFTER_WRITE));
            }
            let left = count.parse().ok().filter(|n| *n > 0).ok_or_else(wrong)?;
            self.rules.lock().push(Rule { point: point.to_owned(), act, left });
            Ok(())
        }

        /// Are commits written without a sync?
        pub(in super::super) fn skips_sync(&self) -> bool {
            self.skip_sync
        }

        /// Acts if a rule says so.
        pub(in super::super) fn visit(&self, point: &str) -> Result<(), String> {
            let mut rules = self.rules.lock();
            for rule in rules.iter_mut().filter(|rule| rule.point == point && rule.left > 0) {
                rule.left -= 1;
                match (rule.left, rule.act) {
                    (0, Act::Error) => return Err(format!("fault injected at {point}")),
                    (0, Act::Abort) => std::process::abort(),
                    _ => {}
                }
            }
            Ok(())
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_fault_happens_at_the_nth_visit_and_once() {
            let faults = Faults { rules: Mutex::default(), skip_sync: false };
            faults.add("commit.before_write=error@3").unwrap();
            let visits: Vec<bool> = (0..5).map(|_| faults.visit(super::super::BEFORE_WRITE).is_err()).collect();
            assert_eq!(visits, [false, false, true, false, false]);
            assert!(faults.visit(super::super::AFTER_WRITE).is_ok());
        }

        #[test]
        fn a_malformed_fault_is_refused_with_a_sentence() {
            let faults = Faults { rules: Mutex::default(), skip_sync: false };
            for wrong in ["", "x", "commit.before_write=error", "commit.before_write=error@0", "commit.before_write=sleep@1", "other=error@1"] {
                assert!(faults.add(wrong).is_err(), "{wrong:?}");
            }
        }
    }
}
