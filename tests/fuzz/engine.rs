//! Feeds a target: first what is known, then what mutations make of it. An input that was heard in a new way (another error, another kind
//! of value; with `FUZZ_COVERAGE` builds another line of code) joins the pool. What breaks a promise is made smaller and kept in a file.

use std::cell::RefCell;
use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::corpus;
use crate::coverage;
use crate::dice::Dice;
use crate::gauge::{Bound, Gauge};
use crate::mutate::{Shape, mutate};

/// How an input was heard, in words that are the same for inputs that are heard alike.
pub enum Heard {
    Taken(String),
    Refused(String),
}

/// `Err`: which promise is broken.
pub type Verdict = Result<Heard, String>;

/// A decoder, and what must hold whatever it is fed.
pub struct Target {
    pub name: &'static str,
    pub shape: Shape,
    pub bound: Bound,
    /// Inputs to begin with, besides those in files.
    pub seeds: fn() -> Vec<Vec<u8>>,
    pub check: fn(&[u8], &mut Gauge) -> Verdict,
    /// Cases of a short run.
    pub cases: u64,
}

/// How long, and from which seed.
#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    pub cases: u64,
    pub time: Duration,
}

impl Plan {
    /// Of `SEED` and `FUZZ_SECONDS` (for each target); else a short run.
    pub fn of(target: &Target) -> Self {
        let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
        let seed = number("SEED").unwrap_or(1);
        match number("FUZZ_SECONDS") {
            Some(seconds) => Self { seed, cases: u64::MAX, time: Duration::from_secs(seconds) },
            None => Self { seed, cases: target.cases, time: Duration::from_secs(6) },
        }
    }
}

/// A broken promise.
#[derive(Debug)]
pub struct Found {
    /// Which, in a word: shrinking keeps it.
    pub kind: &'static str,
    pub why: String,
    pub input: Vec<u8>,
}

/// What a search did.
#[derive(Default, Debug)]
pub struct Stats {
    pub cases: u64,
    pub taken: u64,
    pub pool: usize,
    pub most_memory: usize,
    pub most_time: Duration,
}

thread_local! {
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
    static WATCHED: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// Panics of watched threads are kept and not printed.
fn watch_panics() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if WATCHED.try_with(std::cell::Cell::get).unwrap_or(false) {
                PANIC.with(|kept| *kept.borrow_mut() = Some(panic.to_string().replace('\n', " ")));
            } else {
                OTHERS.lock().push(panic.to_string());
                before(panic);
            }
        }));
    });
}

static OTHERS: parking_lot::Mutex<Vec<String>> = parking_lot::Mutex::new(Vec::new());

/// Panics of threads that nobody watched: those of a broker.
pub fn panics_elsewhere() -> Vec<String> {
    watch_panics();
    OTHERS.lock().clone()
}

/// Feeds one input. A slow one is fed again and measured by the processor's time: others use this machine too.
pub fn feed(target: &Target, input: &[u8]) -> Result<(Heard, Gauge), Found> {
    watch_panics();
    let found = |kind, why| Found { kind, why, input: input.to_vec() };
    let once = |exact| {
        let mut gauge = Gauge { exact, ..Gauge::default() };
        WATCHED.set(true);
        let outcome = catch_unwind(AssertUnwindSafe(|| (target.check)(input, &mut gauge)));
        WATCHED.set(false);
        match outcome {
            Err(_) => Err(found("panic", PANIC.take().unwrap_or_default())),
            Ok(Err(why)) => Err(found("promise", why)),
            Ok(Ok(heard)) => Ok((heard, gauge)),
        }
    };
    let (heard, mut gauge) = once(false)?;
    let (memory, time) = (target.bound.memory(input.len()), target.bound.time(input.len()));
    if gauge.memory > memory {
        return Err(found("memory", format!("{} bytes were held at once for an input of {}; {memory} may be", gauge.memory, input.len())));
    }
    if gauge.time > time {
        gauge.time = gauge.time.min(once(true)?.1.time);
    }
    if gauge.time > time {
        return Err(found("time", format!("{:?} went by for an input of {} bytes; {time:?} may", gauge.time, input.len())));
    }
    Ok((heard, gauge))
}

/// Long inputs are made anew each time they are wanted: kept, they would make everything slow.
const LONGEST_KEPT: usize = 4096;
/// Most inputs kept to mutate.
const POOL: usize = 600;

/// Looks for a broken promise.
pub fn search(target: &Target, plan: &Plan) -> (Stats, Option<Found>) {
    let (mut stats, mut pool, mut heard_before) = (Stats::default(), Vec::new(), HashSet::new());
    let mut known = (target.seeds)();
    known.extend(corpus::read("corpus", target.name));
    known.extend(corpus::read("regressions", target.name));
    assert!(!known.is_empty(), "target {} has nothing to begin with", target.name);
    let end = Instant::now() + plan.time;
    let trace = std::env::var_os("FUZZ_TRACE");
    let seeds = known.len();
    let mut known = known.into_iter();
    while stats.cases < plan.cases {
        let seed = known.next();
        let is_seed = seed.is_some();
        let input = seed.unwrap_or_else(|| {
            let mut dice = Dice::of(plan.seed, target.name, stats.cases);
            // Half of them straight from what is known, so that refusals of refusals do not take over.
            let from = if dice.one_in(2) { seeds } else { pool.len() };
            let (base, other): (&Vec<u8>, &Vec<u8>) = (&pool[dice.below(from)], &pool[dice.below(pool.len())]);
            mutate(&mut dice, target.shape, base, other)
        });
        if let Some(path) = &trace {
            std::fs::write(path, &input).expect("FUZZ_TRACE names a file that can be written");
        }
        stats.cases += 1;
        coverage::begin();
        match feed(target, &input) {
            Err(found) => return (stats, Some(found)),
            Ok((heard, gauge)) => {
                let new_code = coverage::new();
                let (signature, taken) = match heard {
                    Heard::Taken(what) => (format!("+{what}"), true),
                    Heard::Refused(what) => (format!("-{what}"), false),
                };
                stats.taken += u64::from(taken);
                stats.most_memory = stats.most_memory.max(gauge.memory);
                stats.most_time = stats.most_time.max(gauge.time);
                let new = heard_before.insert(signature) || new_code;
                if is_seed || (new && pool.len() < POOL && input.len() <= LONGEST_KEPT) {
                    keep(target, &input, new_code && !is_seed);
                    pool.push(input);
                }
            }
        }
        if stats.cases.is_multiple_of(64) && Instant::now() > end {
            break;
        }
    }
    stats.pool = pool.len();
    (stats, None)
}

/// With `FUZZ_KEEP=folder` inputs that reached new code are kept there, for the corpus.
fn keep(target: &Target, input: &[u8], new_code: bool) {
    if let Some(folder) = std::env::var_os("FUZZ_KEEP").filter(|_| new_code && input.len() <= 2048) {
        let folder = PathBuf::from(folder).join(target.name);
        std::fs::create_dir_all(&folder).expect("FUZZ_KEEP names a folder");
        std::fs::write(folder.join(format!("{:016x}", xxhash_rust::xxh3::xxh3_64(input))), input).expect("it can be written");
    }
}

/// The same broken promise from as few bytes as are found in some hundred attempts.
pub fn shrink(target: &Target, mut found: Found) -> Found {
    let (end, mut step) = (Instant::now() + Duration::from_secs(5), (found.input.len() / 2).max(1));
    loop {
        let (mut at, mut smaller) = (0, false);
        while at < found.input.len() && Instant::now() < end {
            let mut less = found.input.clone();
            less.drain(at..(at + step).min(less.len()));
            match feed(target, &less) {
                Err(again) if again.kind == found.kind => (found, smaller) = (again, true),
                _ => at += step,
            }
        }
        if (step == 1 && !smaller) || Instant::now() >= end {
            return found;
        }
        step = (step / 2).max(1);
    }
}

/// Runs a target, or one input of it: `FUZZ_INPUT=file`.
pub fn run(target: &Target) {
    if let Some(path) = std::env::var_os("FUZZ_INPUT") {
        let input = std::fs::read(&path).expect("FUZZ_INPUT names a file");
        match feed(target, &input) {
            Ok((_, gauge)) => println!("{}: this input breaks nothing any more ({} bytes, {:?})", target.name, gauge.memory, gauge.time),
            Err(found) => panic!("{} ({}): {}", target.name, found.kind, found.why),
        }
        return;
    }
    let plan = Plan::of(target);
    let began = Instant::now();
    let (stats, found) = search(target, &plan);
    if let Some(found) = found {
        let seed = plan.seed;
        let found = shrink(target, found);
        let file = failures().join(format!("{}-{:016x}", target.name, xxhash_rust::xxh3::xxh3_64(&found.input)));
        std::fs::write(&file, &found.input).expect("the failing input can be kept");
        panic!(
            "{name} ({kind}, case {case} of SEED={seed}): {why}\n  input: {shown}\n  again: FUZZ_INPUT={file} cargo test --release --test fuzz {name}\n  \
             once it is mended: mv {file} tests/fuzz/regressions/{name}/",
            name = target.name,
            kind = found.kind,
            case = stats.cases,
            why = found.why,
            shown = found.input[..found.input.len().min(400)].escape_ascii(),
            file = file.display(),
        );
    }
    let Stats { cases, taken, pool, most_memory, most_time } = stats;
    println!(
        "{}: {cases} inputs in {:.1} s, {taken} taken, {pool} in the pool{}; at most {most_memory} bytes and {most_time:?} for one",
        target.name,
        began.elapsed().as_secs_f64(),
        coverage::said()
    );
    // A fuzzer that is never heard, or never refused, tests nothing.
    assert!(taken * 200 >= cases, "{}: only {taken} of {cases} inputs were taken", target.name);
}

/// Where failing inputs go: into the target folder, which nobody commits.
fn failures() -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("fuzz-failures");
    std::fs::create_dir_all(&folder).expect("the target folder can be written");
    folder
}
