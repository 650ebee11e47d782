//! What honest clients notice of each attack: append to acknowledgement and append to arrival of one producer and one subscriber, alone and
//! beside it, in one run against the real binary. `cargo bench --bench hostile` prints a line for each attack of `tests/hostile`;
//! `-- words` those whose name has the words.
//!
//! An attacker would have a machine of its own; here its work is on the same two cores. It has a thread of its own, which steps back.

#![allow(missing_docs, reason = "a bench has no readers of its API")]

#[allow(dead_code, reason = "shared with the test")]
#[path = "../tests/hostile/attacks/mod.rs"]
mod attacks;
#[allow(dead_code, reason = "shared with the test")]
#[path = "../tests/hostile/broker.rs"]
mod broker;
#[allow(dead_code, reason = "shared with the test")]
#[path = "../tests/hostile/honest.rs"]
mod honest;
#[allow(dead_code, reason = "shared with the test")]
#[path = "../tests/api/support.rs"]
mod support;
#[allow(dead_code, reason = "shared with the test")]
#[path = "../tests/hostile/wire.rs"]
mod wire;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use attacks::{ATTACKS, Attack};
use broker::Broker;
use honest::{Honest, Report};

/// The goal: p99 beside an attack, as a multiple of p99 alone.
const GOAL: f64 = 3.0;

async fn quiet(broker: &Broker, stream: &'static str, time: Duration) -> Report {
    let honest = Honest::begin(broker.at, stream).await;
    tokio::time::sleep(time).await;
    honest.end().await.expect("the honest pair is well")
}

/// The same, with the attack again and again until the time is over, at least once.
async fn beside(broker: &Broker, attack: &'static Attack, time: Duration) -> Report {
    let honest = Honest::begin(broker.at, "honest2").await;
    let over = Arc::new(AtomicBool::new(false));
    let (at, flag) = (broker.at, over.clone());
    let attacker = std::thread::spawn(move || {
        let _ = rustix::process::nice(15);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let mut round = 1;
        while round == 1 || !flag.load(Ordering::Relaxed) {
            runtime.block_on((attack.run)(at, round));
            round += 1;
        }
        round - 1
    });
    tokio::time::sleep(time).await;
    over.store(true, Ordering::Relaxed);
    while !attacker.is_finished() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(attacker.join().expect("the attack ends by itself") > 0);
    honest.end().await.expect("the honest pair is well")
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    // `cargo test --benches` passes a flag of its own; it only shows that the bench works.
    let short = args.iter().any(|arg| arg == "--test");
    let words: Vec<&String> = args.iter().filter(|arg| !arg.starts_with("--")).collect();
    let time = Duration::from_millis(if short { 200 } else { 3000 });
    println!("| Attack | acked p99 alone, ms | beside | × | arrived p99 alone, ms | beside | × |\n|---|---|---|---|---|---|---|");
    let mut over = 0;
    runtime.block_on(async {
        for attack in ATTACKS.iter().filter(|attack| words.iter().all(|word| attack.name.contains(word.as_str()))).take(if short { 2 } else { usize::MAX }) {
            let broker = Broker::start();
            attacks::prepare(&broker).await;
            broker.create("honest2").await;
            let alone = quiet(&broker, "honest", time).await;
            let beside = beside(&broker, attack, time).await;
            let p99 = |histogram: &hdrhistogram::Histogram<u64>| histogram.value_at_quantile(0.99) as f64 / 1000.0;
            let (a, b, c, d) = (p99(&alone.acked), p99(&beside.acked), p99(&alone.arrived), p99(&beside.arrived));
            println!("| {} | {a:.1} | {b:.1} | {:.1} | {c:.1} | {d:.1} | {:.1} |", attack.name, b / a, d / c);
            over += usize::from(b / a > GOAL || d / c > GOAL);
        }
    });
    println!("\n{over} beyond {GOAL} ×");
}
