//! Each checker can go red: for memory, for what is left open, for what the honest pair hears.

use std::time::Duration;

use serde_json::json;

use crate::attacks::prepare;
use crate::broker::Broker;
use crate::gauge::{back, baseline};
use crate::honest::{Heard, Honest};
use crate::wire::{Ws, ws_head};

const SOON: Duration = Duration::from_millis(300);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_is_kept_is_found_by_its_socket_its_task_and_its_session() {
    let broker = Broker::start();
    prepare(&broker).await;
    let before = baseline(&broker).await;
    let mut kept = Ws::json(broker.at).await;
    assert_eq!(kept.ask(r#"{"t":"subscribe","sub":1,"stream":"s"}"#).await["t"], "subscribed");
    let left = back(&broker, &before, 100.0, SOON).await.expect_err("it is open");
    for word in ["sockets", "tidelog_connections", "tidelog_websockets", "tidelog_sessions", "tidelog_tasks"] {
        assert!(left.contains(word), "{word} is not in {left:?}");
    }
    drop(kept);
    back(&broker, &before, 100.0, Duration::from_secs(10)).await.expect("nothing is left");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_that_is_held_is_found() {
    let broker = Broker::start();
    prepare(&broker).await;
    let before = baseline(&broker).await;
    // Messages that are whole but for one byte: the broker keeps what it has of them.
    let mut kept = Vec::new();
    for _ in 0..8 {
        let mut ws = Ws::json(broker.at).await;
        ws.send(&[ws_head(0x81, 8 << 20), vec![b' '; (8 << 20) - 1]].concat()).await;
        kept.push(ws);
    }
    let found = async {
        loop {
            match back(&broker, &before, 12.0, SOON).await {
                Err(left) if left.contains("MiB resident") => return,
                _ => {}
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), found).await.expect("64 MiB are more than the margin");
    assert!(before.beyond(&before, -1.0).is_some(), "a margin that is too small is not kept");
    drop(kept);
    back(&broker, &before, 24.0, Duration::from_secs(20)).await.expect("it is given back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_of_somebody_else_is_found_by_the_honest_pair() {
    let broker = Broker::start();
    prepare(&broker).await;
    let honest = Honest::begin(broker.at, "honest").await;
    let alien = broker.ask("POST", "/v1/streams/honest/events", r#"{"events":[{"data":1}]}"#).await;
    assert_eq!(alien.status, 201);
    let why = honest.end().await.map(|report| report.events).expect_err("the stream holds what the producer did not send");
    assert!(why.contains("honest producer") || why.contains("was answered"), "{why}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_that_are_lost_are_found_by_the_honest_pair() {
    let broker = Broker::start();
    prepare(&broker).await;
    let honest = Honest::begin(broker.at, "honest").await;
    // Somebody moves the cursor over events that the reader has not had, and the reader must notice.
    let moved = async {
        loop {
            let body = json!({"before_offset": 1_000_000}).to_string();
            broker.ask("POST", "/v1/streams/honest/trim", &body).await;
            let answer = broker.ask("DELETE", "/v1/streams/honest/subscriptions/honest", "").await;
            if answer.status == 200 {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), moved).await.expect("the subscription is removed");
    assert!(honest.end().await.is_err());
}

#[test]
fn a_repeat_a_hole_a_swap_and_a_changed_event_are_found() {
    for bad in [&[(0, 0), (0, 0)][..], &[(0, 0), (2, 2)], &[(1, 1), (0, 0)], &[(0, 0), (1, 0)]] {
        let mut heard = Heard::default();
        assert!(bad.iter().map(|(offset, number)| heard.event(*offset, *number)).any(|result| result.is_err()), "{bad:?}");
    }
    let mut heard = Heard::default();
    assert!((0..3).all(|n| heard.event(n, n).is_ok()));
}
