//! What honest clients notice of each attack: append to acknowledgement and append to arrival of one producer and one subscriber, alone and
//! beside it, in one run against the real binary. `cargo bench --bench hostile` prints a line for each attack of `tests/hostile`;
//! `-- words` those whose name has the words, `-- part=2/6` every sixth, `-- seconds=1.5` measures each for so long.
//!
//! An attacker would have a machine of its own; here its work is on the same two cores. It has a thread of its own, which steps back.
//! `-- floor` asks what that alone costs: the same attack beside the honest pair, but on a second broker, and its bytes, recorded once and
//! sent again and again, into a sink that only throws them away. `-- against=PATH` asks another build of the broker the same, by turns.

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
mod replay;
#[allow(dead_code, reason = "shared with the test")]
#[path = "../tests/api/support.rs"]
mod support;
#[allow(dead_code, reason = "shared with the test")]
#[path = "../tests/hostile/wire.rs"]
mod wire;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use attacks::{ATTACKS, Attack};
use broker::Broker;
use honest::{Honest, Report};

/// The goal: p99 beside an attack, as a multiple of p99 alone.
const GOAL: f64 = 3.0;

/// How often each of two builds is measured beside each attack.
const TURNS: usize = 3;

/// Rounds of attacks, and measurements: each makes names of its own.
static ROUND: AtomicU64 = AtomicU64::new(1);

fn next_round() -> u64 {
    ROUND.fetch_add(1, Ordering::Relaxed)
}

/// p99 in ms: append to acknowledgement, append to arrival.
#[derive(Clone, Copy)]
struct P99 {
    acked: f64,
    arrived: f64,
}

impl P99 {
    fn of(report: &Report) -> Self {
        let p99 = |histogram: &hdrhistogram::Histogram<u64>| histogram.value_at_quantile(0.99) as f64 / 1000.0;
        Self { acked: p99(&report.acked), arrived: p99(&report.arrived) }
    }

    /// The greater of the two multiples.
    fn times(self, alone: Self) -> f64 {
        (self.acked / alone.acked).max(self.arrived / alone.arrived)
    }

    /// At most so much more than beside the floor as the goal allows beside nothing.
    fn within(self, floor: Self, alone: Self) -> bool {
        self.acked <= floor.acked + (GOAL - 1.0) * alone.acked && self.arrived <= floor.arrived + (GOAL - 1.0) * alone.arrived
    }
}

/// The honest pair while `meanwhile` goes on, on a stream of its own.
async fn honest<F: Future<Output = ()>>(broker: &Broker, meanwhile: impl FnOnce() -> F) -> P99 {
    let stream: &'static str = Box::leak(format!("honest{}", next_round()).into_boxed_str());
    broker.create(stream).await;
    let honest = Honest::begin(broker.at, stream).await;
    meanwhile().await;
    P99::of(&honest.end().await.expect("the honest pair is well"))
}

async fn quiet(broker: &Broker, time: Duration) -> P99 {
    honest(broker, || tokio::time::sleep(time)).await
}

/// Does something again and again on a thread that steps back, until the time is over, at least once.
async fn again_and_again<F: Future<Output = ()>>(time: Duration, mut what: impl FnMut() -> F + Send + 'static) {
    let over = Arc::new(AtomicBool::new(false));
    let flag = over.clone();
    let attacker = std::thread::spawn(move || {
        let _ = rustix::process::nice(15);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        loop {
            runtime.block_on(what());
            if flag.load(Ordering::Relaxed) {
                return;
            }
        }
    });
    tokio::time::sleep(time).await;
    over.store(true, Ordering::Relaxed);
    while !attacker.is_finished() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    attacker.join().expect("the attack ends by itself");
}

async fn attacked(at: SocketAddr, attack: &'static Attack, time: Duration) {
    again_and_again(time, move || async move { drop((attack.run)(at, next_round()).await) }).await;
}

async fn prepared(broker: Broker) -> Broker {
    attacks::prepare(&broker).await;
    broker
}

async fn usual(attacks: &[&'static Attack], time: Duration) {
    println!("| Attack | acked p99 alone, ms | beside | × | arrived p99 alone, ms | beside | × |\n|---|---|---|---|---|---|---|");
    let mut over = 0;
    for &attack in attacks {
        let broker = prepared(Broker::start()).await;
        let alone = quiet(&broker, time).await;
        let beside = honest(&broker, || attacked(broker.at, attack, time)).await;
        let (a, b, c, d) = (alone.acked, beside.acked, alone.arrived, beside.arrived);
        println!("| {} | {a:.1} | {b:.1} | {:.1} | {c:.1} | {d:.1} | {:.1} |", attack.name, b / a, d / c);
        over += usize::from(beside.times(alone) > GOAL);
    }
    println!("\n{over} of {} beyond {GOAL} ×", attacks.len());
}

async fn floor(attacks: &[&'static Attack], time: Duration) {
    println!("p99 in ms, acked / arrived; × is the greater multiple of p99 alone\n");
    println!(
        "| Attack | alone | beside | × | beside it on another broker | × | beside its bytes into a sink | × | keeps to |\n|---|---|---|---|---|---|---|---|---|"
    );
    let mut counts = [0; 3];
    for &attack in attacks {
        let (broker, other) = (prepared(Broker::start()).await, prepared(Broker::start()).await);
        let recorded = replay::record(other.at, |at| (attack.run)(at, next_round())).await;
        let sink = replay::Sink::start();
        let alone = quiet(&broker, time).await;
        let elsewhere = honest(&broker, || attacked(other.at, attack, time)).await;
        let at = sink.at;
        let into_sink = honest(&broker, || {
            again_and_again(time, move || {
                let recorded = recorded.clone();
                async move { recorded.play(at).await }
            })
        })
        .await;
        let beside = honest(&broker, || attacked(broker.at, attack, time)).await;
        let kept = [beside.times(alone) <= GOAL, beside.within(elsewhere, alone), beside.within(into_sink, alone)];
        let words =
            ["3 ×", "the other broker's + 2 ×", "the sink's + 2 ×"].iter().zip(kept).filter_map(|(word, kept)| kept.then_some(*word)).collect::<Vec<_>>();
        let show = |p: P99| format!("{:.1} / {:.1}", p.acked, p.arrived);
        println!(
            "| {} | {} | {} | {:.1} | {} | {:.1} | {} | {:.1} | {} |",
            attack.name,
            show(alone),
            show(beside),
            beside.times(alone),
            show(elsewhere),
            elsewhere.times(alone),
            show(into_sink),
            into_sink.times(alone),
            words.join(", ")
        );
        counts.iter_mut().zip(kept).for_each(|(count, kept)| *count += usize::from(kept));
    }
    let [goal, elsewhere, sink] = counts;
    println!("\nof {}: {goal} within {GOAL} ×, {elsewhere} within the other broker's + 2 ×, {sink} within the sink's + 2 ×", attacks.len());
}

async fn against(path: &str, attacks: &[&'static Attack], time: Duration) {
    println!("p99 acked in ms, medians of {TURNS} by turns; the other build is {path}\n");
    println!("| Attack | this alone | this beside | × | other alone | other beside | × | this / other |\n|---|---|---|---|---|---|---|---|");
    for &attack in attacks {
        let brokers = [prepared(Broker::start()).await, prepared(Broker::of(path, &[], &[])).await];
        let (mut alone, mut beside) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
        for _ in 0..TURNS {
            for (n, broker) in brokers.iter().enumerate() {
                alone[n].push(quiet(broker, time / 2).await.acked);
                beside[n].push(honest(broker, || attacked(broker.at, attack, time)).await.acked);
            }
        }
        let median = |of: &mut Vec<f64>| {
            of.sort_by(f64::total_cmp);
            of[of.len() / 2]
        };
        let [(a, b), (c, d)] = [0, 1].map(|n| (median(&mut alone[n]), median(&mut beside[n])));
        println!("| {} | {a:.1} | {b:.1} | {:.1} | {c:.1} | {d:.1} | {:.1} | {:.2} |", attack.name, b / a, d / c, b / d);
    }
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    // `cargo test --benches` passes a flag of its own; it only shows that the bench works.
    let short = args.iter().any(|arg| arg == "--test");
    let of = |name: &str| args.iter().find_map(|arg| arg.strip_prefix(name));
    let seconds = of("seconds=").map_or(3.0, |text| text.parse().expect("seconds=NUMBER"));
    let (part, parts) = of("part=").map_or((0, 1), |text| {
        let (part, parts) = text.split_once('/').expect("part=N/M");
        (part.parse().expect("part=N/M"), parts.parse::<usize>().expect("part=N/M"))
    });
    let words: Vec<&String> = args.iter().filter(|arg| !arg.starts_with("--") && !arg.contains('=') && *arg != "floor").collect();
    let named = ATTACKS.iter().filter(|attack| words.iter().all(|word| attack.name.contains(word.as_str())));
    let chosen = named.enumerate().filter(|(n, _)| n % parts == part % parts).map(|(_, attack)| attack);
    let chosen: Vec<&'static Attack> = chosen.take(if short { 2 } else { usize::MAX }).collect();
    let time = Duration::from_secs_f64(if short { 0.2 } else { seconds });
    runtime.block_on(async {
        match of("against=") {
            Some(path) => against(path, &chosen, time).await,
            None if args.iter().any(|arg| arg == "floor") => floor(&chosen, time).await,
            None => usual(&chosen, time).await,
        }
    });
}
