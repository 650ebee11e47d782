//! Places where a test can make the engine fail or die. Without the feature `faults` this is nothing at all.
//!
//! `TIDELOG_FAULTS="commit.after_write=abort@7,commit.before_write=error@3"`: at the N-th visit of the point, do it once: fail,
//! die, or `stall` for a moment before what comes next.

#[cfg(any(test, feature = "faults"))]
pub(crate) use real::{Faults, reach};

#[cfg(not(any(test, feature = "faults")))]
pub(crate) use none::{Faults, reach};

macro_rules! points {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $act:ident;)*) => {
        $($(#[$doc])* pub(crate) const $name: &str = $text;)*

        /// Every point, and whether an error can be put there: where nothing can fail, only a death makes sense.
        #[cfg(any(test, feature = "faults"))]
        pub const POINTS: &[(&str, bool)] = &[$(($text, points!($act)),)*];
    };
    (fails) => { true };
    (dies) => { false };
}

points! {
    // open
    /// The directory is locked, nothing of it was read.
    OPEN_LOCKED = "open.locked", fails;
    /// The directory of the database exists, the database perhaps not.
    OPEN_MADE = "open.directory_made", fails;
    /// Before our own reader judges the logs.
    RECOVERY_SCAN = "recovery.before_scan", fails;
    /// It has judged them; the engine has not opened them.
    RECOVERY_SCANNED = "recovery.after_scan", fails;
    /// The engine has replayed the logs; nothing was compared with the side file.
    RECOVERY_OPENED = "recovery.opened", fails;
    /// A torn group is about to be dropped.
    RECOVERY_REPAIR = "recovery.before_repair", fails;
    /// It was.
    RECOVERY_REPAIRED = "recovery.after_repair", fails;
    /// An accepted loss has a new `log_epoch`; the side file still names the old position.
    LOSS_COUNTED = "recovery.loss_counted", fails;
    /// The database is there, its format row is not.
    FORMAT_WRITE = "open.before_format", fails;
    /// The format row is durable, nothing else is.
    FORMAT_WRITTEN = "open.after_format", fails;
    /// Everything is open, nobody is served.
    OPEN_DONE = "open.done", fails;
    // the side file
    /// Before the temporary file is made.
    DURABLE_WRITE = "durable.before_write", fails;
    /// It is written, not synced.
    DURABLE_WRITTEN = "durable.written", fails;
    /// It is synced, not renamed.
    DURABLE_SYNCED = "durable.synced", fails;
    /// It has its name.
    DURABLE_RENAMED = "durable.renamed", fails;
    // commit
    /// Before the set reaches the WAL.
    BEFORE_WRITE = "commit.before_write", fails;
    /// After it is on stable storage, before anyone is told.
    AFTER_WRITE = "commit.after_write", fails;
    /// The engine has told the loop; no reader sees it.
    PUBLISH = "commit.before_publish", dies;
    /// Readers see it, its callers have no answer.
    ANSWER = "commit.before_answer", dies;
    /// Everybody was answered.
    ANSWERED = "commit.after_answer", dies;
    // trim
    /// Before a set with a range tombstone reaches the WAL.
    TRIM_RANGE = "trim.before_range", fails;
    /// The tombstone is durable.
    TRIM_RANGED = "trim.after_range", fails;
    /// Before files are dropped.
    TRIM_DROP = "trim.before_drop", fails;
    /// They are.
    TRIM_DROPPED = "trim.after_drop", fails;
    // deletion
    /// The stream is marked, its rows and batches are there.
    DELETE_BEGUN = "delete.begun", dies;
    /// They are gone, its files are not.
    DELETE_FINISHED = "delete.finished", dies;
    /// A start has found a deletion that was interrupted.
    DELETE_RESUMED = "delete.resumed", dies;
    // close and checkpoint
    /// Everything is in the WAL, nothing was flushed for the end.
    FLUSH = "close.before_flush", fails;
    /// It is flushed; the side file may be older.
    FLUSHED = "close.after_flush", fails;
    /// The database is closed, the process is not at its end.
    CLOSED = "close.done", dies;
    /// The directory of a checkpoint exists, and is empty.
    CHECKPOINT_MADE = "checkpoint.directory_made", fails;
    /// The checkpoint is there, and nobody was told.
    CHECKPOINT_DONE = "checkpoint.done", fails;
}

#[cfg(not(any(test, feature = "faults")))]
mod none {
    pub(crate) struct Faults;

    impl Faults {
        pub(in super::super) fn from_env() -> Result<Self, String> {
            Ok(Self)
        }

        #[inline(always)]
        pub(in super::super) fn visit(&self, _point: &str) -> Result<(), String> {
            Ok(())
        }
    }

    #[inline(always)]
    pub(crate) fn reach(_point: &str) -> Result<(), String> {
        Ok(())
    }
}

#[cfg(any(test, feature = "faults"))]
mod real {
    use std::sync::LazyLock;
    use std::time::Duration;

    use parking_lot::Mutex;

    /// Long enough for a reader to see something and to say so.
    const STALL: Duration = Duration::from_millis(300);

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Act {
        Error,
        Abort,
        /// Takes a while, so that others see what is the case before it.
        Stall,
    }

    #[derive(Clone, Debug, PartialEq, Eq)]
    struct Rule {
        point: String,
        act: Act,
        /// Visits that still pass; the last one acts.
        left: u64,
    }

    /// What `TIDELOG_FAULTS` says, in binaries built with the feature: the same for everybody in the process.
    static OF_THE_PROCESS: LazyLock<Result<Faults, String>> = LazyLock::new(|| {
        let faults = Faults(Mutex::default());
        let text = if cfg!(feature = "faults") { std::env::var("TIDELOG_FAULTS").unwrap_or_default() } else { String::new() };
        text.split(',').map(str::trim).filter(|rule| !rule.is_empty()).try_for_each(|rule| faults.add(rule))?;
        Ok(faults)
    });

    /// A point outside the engine's commits: acts if a rule of the process says so.
    pub(crate) fn reach(point: &str) -> Result<(), String> {
        OF_THE_PROCESS.as_ref().map_or(Ok(()), |faults| faults.act(point))
    }

    /// The rules, each used up once.
    pub(crate) struct Faults(Mutex<Vec<Rule>>);

    impl Faults {
        /// None of its own: tests of the library add theirs by hand. Says what is wrong with those of the process.
        pub(in super::super) fn from_env() -> Result<Self, String> {
            if let Err(why) = &*OF_THE_PROCESS {
                return Err(why.clone());
            }
            Ok(Self(Mutex::default()))
        }

        /// Adds one rule: `point=error@N`, `point=abort@N` or `point=stall@N`, N from 1.
        pub(in super::super) fn add(&self, text: &str) -> Result<(), String> {
            let wrong = || format!("fault {text:?} is not point=error@N, point=abort@N or point=stall@N with N from 1");
            let (point, rest) = text.split_once('=').ok_or_else(wrong)?;
            let (act, count) = rest.split_once('@').ok_or_else(wrong)?;
            let act = match act {
                "error" => Act::Error,
                "abort" => Act::Abort,
                "stall" => Act::Stall,
                _ => return Err(wrong()),
            };
            match super::POINTS.iter().find(|(name, _)| *name == point) {
                None => return Err(format!("there is no fault point {point:?}; `POINTS` in src/log/rocks/faults.rs has them all")),
                Some((_, false)) if act == Act::Error => return Err(format!("nothing can fail at {point}; it takes abort@N only")),
                Some(_) => {}
            }
            let left = count.parse().ok().filter(|n| *n > 0).ok_or_else(wrong)?;
            self.0.lock().push(Rule { point: point.to_owned(), act, left });
            Ok(())
        }

        /// Acts if a rule says so, one of its own or one of the process.
        pub(in super::super) fn visit(&self, point: &str) -> Result<(), String> {
            self.act(point)?;
            reach(point)
        }

        fn act(&self, point: &str) -> Result<(), String> {
            let mut due = Vec::new();
            for rule in self.0.lock().iter_mut().filter(|rule| rule.point == point && rule.left > 0) {
                rule.left -= 1;
                if rule.left == 0 {
                    due.push(rule.act);
                }
            }
            for act in due {
                match act {
                    Act::Error => return Err(format!("fault injected at {point}")),
                    Act::Abort => std::process::abort(),
                    Act::Stall => std::thread::sleep(STALL),
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
            let faults = Faults(Mutex::default());
            faults.add("commit.before_write=error@3").unwrap();
            let visits: Vec<bool> = (0..5).map(|_| faults.visit(super::super::BEFORE_WRITE).is_err()).collect();
            assert_eq!(visits, [false, false, true, false, false]);
            assert!(faults.visit(super::super::AFTER_WRITE).is_ok());
        }

        #[test]
        fn a_malformed_fault_is_refused_with_a_sentence() {
            let faults = Faults(Mutex::default());
            for wrong in
                ["", "x", "commit.before_write=error", "commit.before_write=error@0", "commit.before_write=sleep@1", "other=error@1", "delete.begun=error@1"]
            {
                assert!(faults.add(wrong).is_err(), "{wrong:?}");
            }
        }
    }
}
