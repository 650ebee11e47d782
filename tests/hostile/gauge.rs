//! What the broker holds: memory, sockets, and everything it counts. After an attack all of it must be as before.

use std::time::{Duration, Instant};

use crate::broker::{Broker, number};

/// Things that are open.
const OPEN: [&str; 7] = [
    "tidelog_connections",
    "tidelog_websockets",
    "tidelog_event_streams",
    "tidelog_grpc_streams",
    "tidelog_http_requests_open",
    "tidelog_sessions",
    "tidelog_tasks",
];

/// How long memory and connections may take to come back. The allocator gives back what it kept after some seconds.
pub const SETTLE: Duration = Duration::from_secs(20);

/// A look at the broker.
#[derive(Clone, Debug)]
pub struct Reading {
    pub rss: f64,
    pub sockets: usize,
    pub open: [f64; OPEN.len()],
}

impl Reading {
    pub async fn of(broker: &Broker) -> Self {
        let text = broker.metrics().await;
        Self { rss: broker.rss(), sockets: broker.sockets(), open: OPEN.map(|name| number(&text, name)) }
    }

    /// What is more than before, in words. Memory may be `margin` MiB more; of everything else nothing may be left.
    pub fn beyond(&self, before: &Self, margin: f64) -> Option<String> {
        let mut more = Vec::new();
        if self.rss > before.rss + margin {
            more.push(format!("{:.1} MiB resident, {:.1} before (margin {margin})", self.rss, before.rss));
        }
        if self.sockets > before.sockets {
            more.push(format!("{} sockets, {} before", self.sockets, before.sockets));
        }
        for (name, (now, then)) in OPEN.iter().zip(self.open.iter().zip(before.open)) {
            if *now > then {
                more.push(format!("{name} is {now}, {then} before"));
            }
        }
        (!more.is_empty()).then(|| more.join("; "))
    }
}

/// The least of some readings: a request that was just answered may still be counted in one.
pub async fn baseline(broker: &Broker) -> Reading {
    let mut least = Reading::of(broker).await;
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let next = Reading::of(broker).await;
        // Of memory the most: what it had is what it may have.
        least.rss = least.rss.max(next.rss);
        least.sockets = least.sockets.min(next.sockets);
        for (least, next) in least.open.iter_mut().zip(next.open) {
            *least = least.min(next);
        }
    }
    least
}

/// Waits until all is as before.
///
/// # Errors
/// What is still more after `patience`.
pub async fn back(broker: &Broker, before: &Reading, margin: f64, patience: Duration) -> Result<Reading, String> {
    let late = Instant::now() + patience;
    loop {
        let now = Reading::of(broker).await;
        match now.beyond(before, margin) {
            None => return Ok(now),
            Some(more) if Instant::now() > late => return Err(more),
            Some(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}
