//! The figures of a measurement, for people and as one JSON line.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};

use super::super::output::Out;
use super::Outcome;
use super::load::Load;

/// Times, in a histogram of three digits from 1 µs to an hour.
pub struct Latencies(Histogram<u64>);

impl Latencies {
    /// Empty.
    pub fn new() -> Self {
        Self(Histogram::new_with_bounds(1, 3_600_000_000, 3).expect("the bounds are in order and 3 is a number of digits"))
    }

    /// One time.
    pub fn record(&mut self, nanoseconds: u64) {
        self.0.saturating_record((nanoseconds / 1000).max(1));
    }

    /// All of another reader's.
    pub fn add(&mut self, other: &Self) {
        // Same bounds, so it cannot fail; a report without a part would be worse than none.
        self.0.add(&other.0).expect("histograms of one shape add up");
    }

    fn points(&self) -> [(&'static str, f64); 7] {
        let at = |quantile: f64| self.0.value_at_quantile(quantile) as f64 / 1000.0;
        [
            ("min", self.0.min() as f64 / 1000.0),
            ("mean", (self.0.mean() / 10.0).round() / 100.0),
            ("p50", at(0.5)),
            ("p90", at(0.9)),
            ("p99", at(0.99)),
            ("p999", at(0.999)),
            ("max", self.0.max() as f64 / 1000.0),
        ]
    }

    fn json(&self) -> Value {
        self.points().into_iter().map(|(name, ms)| (format!("{name}_ms"), json!(ms))).collect::<Map<_, _>>().into()
    }

    fn text(&self) -> String {
        self.points().iter().map(|(name, ms)| format!("{name} {ms:.3}")).collect::<Vec<_>>().join("  ")
    }
}

/// What came out.
pub struct Report {
    pub kind: &'static str,
    pub load: Load,
    pub readers: u32,
    /// Appended, or delivered to all readers together.
    pub events: u64,
    /// Of their data.
    pub bytes: u64,
    pub elapsed: Duration,
    pub appends: Option<Latencies>,
    pub deliveries: Option<Latencies>,
    /// What the check found.
    pub wrong: Option<String>,
}

impl Report {
    /// On stdout.
    pub fn print(&self, json: bool) -> Outcome {
        let seconds = self.elapsed.as_secs_f64().max(1e-6);
        let (rate, megabytes) = (self.events as f64 / seconds, self.bytes as f64 / seconds / 1e6);
        let mut out = Out::new();
        if json {
            return out.json(&json!({
                "bench": self.kind, "clients": self.load.clients, "subscribers": self.readers, "batch": self.load.batch, "size": self.load.size,
                "outstanding": self.load.outstanding, "rate": self.load.rate, "events": self.events, "bytes": self.bytes, "seconds": seconds,
                "events_per_s": rate.round(), "mb_per_s": (megabytes * 100.0).round() / 100.0,
                "append": self.appends.as_ref().map(Latencies::json), "delivery": self.deliveries.as_ref().map(Latencies::json),
                "ok": self.wrong.is_none(), "wrong": self.wrong,
            }));
        }
        let readers = if self.readers > 0 { format!(", {} readers", self.readers) } else { String::new() };
        let mut text = format!(
            "{}: {} clients × batches of {} × {} bytes{readers}\n  {} events in {seconds:.2} s: {rate:.0} events/s, {megabytes:.1} MB/s\n",
            self.kind, self.load.clients, self.load.batch, self.load.size, self.events
        );
        for (name, latencies) in [("append, ms:  ", &self.appends), ("delivery, ms:", &self.deliveries)] {
            if let Some(latencies) = latencies {
                text += &format!("  {name} {}\n", latencies.text());
            }
        }
        text += if self.wrong.is_none() { "  check: every event once, in order\n" } else { "  check: FAILED\n" };
        out.raw(text.as_bytes())
    }
}
