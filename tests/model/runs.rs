//! Many histories against both engines, from one seed.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use proptest::prelude::*;
use proptest::test_runner::{FileFailurePersistence, RngAlgorithm, TestError, TestRng, TestRunner};

use crate::ops::{Op, op};
use crate::store::{Kind, Store};
use crate::support::*;
use crate::tally;
use crate::world::World;

/// Sequences that one store of the durable engine serves: opening the next is dear.
const SERVES: u32 = 100;
/// Steps of a history at most.
const STEPS: usize = 60;

/// Whether everything is evicted (if the run leaves that open), and the steps.
type History = (bool, Vec<Op>);

fn histories() -> impl Strategy<Value = History> {
    (any::<bool>(), prop::collection::vec(op(), 1..STEPS))
}

/// What a run is about.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    pub kind: Kind,
    /// Everything is evicted all the time, or nothing ever; `None`: the history says.
    pub cramped: Option<bool>,
    pub broken: Broken,
}

impl Run {
    fn settings(&self, cramped_by_choice: bool) -> Settings {
        let settings = if self.cramped.unwrap_or(cramped_by_choice) { cramped() } else { roomy() };
        Settings { broken: self.broken, ..settings }
    }

    fn one(&self, store: &RefCell<Option<Store>>, (choice, ops): History) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            // One that failed is not put back.
            let fit = store.take().filter(|store| self.kind == Kind::Rocks && store.served < SERVES);
            let mut world = World::new(fit.unwrap_or_else(|| Store::new(self.kind)), self.settings(choice)).await;
            for op in ops {
                world.step(op).await;
            }
            let done = world.end().await;
            store.replace(Some(done));
        });
    }
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text} is not a number")))
}

/// `SEED`, or a new one.
fn seed() -> u64 {
    number("SEED").unwrap_or_else(|| u64::from(rand::random::<u32>()))
}

fn rng(seed: u64) -> TestRng {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    TestRng::from_seed(RngAlgorithm::ChaCha, &bytes)
}

/// Runs so many histories, or `CASES`; a failing one is made small, kept in `proptest-regressions/`, and printed with the command that runs it again.
pub fn follow(test: &str, run: Run, cases: u32, keep: &'static str) {
    let cases = number("CASES").map_or(cases, |cases| cases as u32);
    let seed = seed();
    let config = ProptestConfig {
        cases,
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(keep))),
        max_shrink_iters: 4000,
        max_shrink_time: 120_000,
        ..ProptestConfig::default()
    };
    let began = Instant::now();
    let store = RefCell::new(None);
    let result = TestRunner::new_with_rng(config, rng(seed)).run(&histories(), |history| {
        run.one(&store, history);
        Ok(())
    });
    let seen = tally::take();
    println!("{test}: {cases} histories from seed {seed} in {:.1} s", began.elapsed().as_secs_f64());
    println!("  {}", seen.iter().map(|(what, count)| format!("{count} {what}")).collect::<Vec<_>>().join(", "));
    if let Err(failure) = result {
        panic!("{failure}\nreplay with: SEED={seed} CASES={cases} cargo test --release --features faults --test model -- {test}");
    }
    let missing: Vec<_> = tally::EXPECTED.iter().filter(|what| !seen.contains_key(*what)).collect();
    assert!(cases < 2000 || missing.is_empty(), "{cases} histories came never across: {missing:?}");
}

/// After how many histories the law sees that a promise is broken, and what it says then.
pub fn caught(promise: Promise, most: u32) -> Option<(u32, String)> {
    let config = ProptestConfig { cases: most, failure_persistence: None, max_shrink_iters: 0, ..ProptestConfig::default() };
    let count = std::cell::Cell::new(0);
    let why = RefCell::new(String::new());
    // The seed is always the same: a control shows that the check can fail, not that it fails today.
    let result = TestRunner::new_with_rng(config, rng(7)).run(&histories(), |history| {
        let run = Run { kind: Kind::Memory, cramped: None, broken: Broken::promise(promise) };
        count.set(count.get() + 1);
        catch_unwind(AssertUnwindSafe(|| run.one(&RefCell::new(None), history))).map_err(|panic| {
            let text = panic.downcast_ref::<String>().cloned().or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
            why.replace(text.unwrap_or_default());
            TestCaseError::fail("caught")
        })
    });
    match result {
        Ok(()) => None,
        Err(TestError::Fail(..)) => Some((count.get(), why.take())),
        Err(other) => panic!("{other}"),
    }
}
