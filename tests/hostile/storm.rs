//! Every attack, one after another, beside an honest pair: it hears what it must, leaves nothing behind, and the pair notices nothing.

use std::time::Instant;

use crate::attacks::{ATTACKS, prepare, rounds};
use crate::broker::Broker;
use crate::gauge::{SETTLE, back, baseline};
use crate::honest::Honest;
use crate::wire::{Ws, tcp};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attacks_are_answered_leave_nothing_behind_and_hurt_nobody() {
    let only = std::env::var("ATTACK").unwrap_or_default();
    let mut wrong = Vec::new();
    for (index, attack) in ATTACKS.iter().enumerate().filter(|(_, attack)| attack.name.contains(&only)) {
        let mut broker = Broker::start();
        prepare(&broker).await;
        let began = Instant::now();
        let honest = Honest::begin(broker.at, "honest").await;
        let mut heard = (attack.run)(broker.at, 0).await;
        // What the first round may have left is not counted, but it must end as well.
        let before = baseline(&broker).await;
        let mut most = before.rss;
        for round in 1..=rounds() {
            let again = (attack.run)(broker.at, round).await;
            most = most.max(broker.rss());
            if heard == attack.hears {
                heard = again;
            }
        }
        let after = back(&broker, &before, attack.margin, SETTLE).await;
        honest.go_on_until(20).await;
        let honest = honest.end().await;
        let (rss, left) = match &after {
            Ok(after) => (after.rss, None),
            Err(left) => (broker.rss(), Some(left)),
        };
        println!(
            "{index:>3} {}: {heard}; {:.0} MiB before, {most:.0} meanwhile, {rss:.0} after; {:.1} s",
            attack.name,
            before.rss,
            began.elapsed().as_secs_f32()
        );
        if heard != attack.hears {
            wrong.push(format!("{}: heard {heard:?}, not {:?}", attack.name, attack.hears));
        }
        if let Some(left) = left {
            wrong.push(format!("{}: it left behind {left}", attack.name));
        }
        match honest {
            Ok(report) if report.events > 20 => {
                let p99 = |times: &hdrhistogram::Histogram<u64>| times.value_at_quantile(0.99) as f64 / 1000.0;
                println!("    {} honest events, p99 acked {:.1} ms, arrived {:.1} ms", report.events, p99(&report.acked), p99(&report.arrived));
            }
            Ok(report) => wrong.push(format!("{}: the honest pair got only {} events through", attack.name, report.events)),
            Err(why) => wrong.push(format!("{}: the honest pair: {why}", attack.name)),
        }
        if !broker.lives() || broker.ask("GET", "/readyz", "").await.status != 200 {
            wrong.push(format!("{}: the broker is not well", attack.name));
        }
    }
    assert!(wrong.is_empty(), "{} things are wrong:\n{}", wrong.len(), wrong.join("\n"));
}

/// A storage engine that cannot open a file fails, and the broker with it. So connections must never take the last one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_never_take_the_files_that_the_storage_engine_needs() {
    let mut broker = Broker::with(&["sh", "-c", "ulimit -n 256; exec \"$@\"", "--"], &[("STORAGE__WRITE_BUFFER_BYTES", "1048576")]);
    prepare(&broker).await;
    let honest = Honest::begin(broker.at, "honest").await;
    let mut writer = Ws::json(broker.at).await;
    let mut flood = Vec::new();
    for _ in 0..400 {
        flood.push(tcp(broker.at).await);
    }
    // Enough to flush and compact many times, which opens files.
    let data = "y".repeat(900 << 10);
    for _ in 0..48 {
        let answer = writer.ask(&format!("{{\"t\":\"append\",\"req\":1,\"stream\":\"s\",\"events\":[{{\"data\":\"{data}\"}}]}}")).await;
        assert_eq!(answer["t"], "appended", "{answer}");
    }
    assert!(broker.metric("tidelog_connections_refused_total").await > 100.0);
    drop(flood);
    honest.end().await.expect("the honest pair was there before");
    assert!(broker.lives());
    let room = async {
        while tokio::time::timeout(std::time::Duration::from_secs(1), tcp(broker.at)).await.is_err() || broker.metric("tidelog_connections").await > 32.0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(crate::support::PATIENCE, room).await.expect("closed connections make room");
}
