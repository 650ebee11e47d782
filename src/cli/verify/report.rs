//! The verdict, in sentences with their counts and as one JSON line.

use std::collections::BTreeMap;

use serde_json::json;

use super::Carrier;
use super::check::INVARIANTS;
use super::history::{Counts, Finding};
use crate::cli::failure::Outcome;
use crate::cli::output::Out;

/// What came out.
pub struct Report {
    pub ok: bool,
    pub seed: u64,
    pub seconds: f64,
    pub streams: u64,
    pub producers: u64,
    pub subscribers: u64,
    pub carrier: Carrier,
    pub counts: Counts,
    pub connections_lost: u64,
    pub restarts: u64,
    pub broken: u64,
    pub findings: Vec<Finding>,
    /// Streams that stay.
    pub kept: Vec<String>,
}

impl Report {
    /// On stdout.
    pub fn print(&self, json: bool) -> Outcome {
        let mut out = Out::new();
        if json {
            let broken: BTreeMap<&str, u64> = self.findings.iter().fold(BTreeMap::new(), |mut all, finding| {
                *all.entry(finding.rule).or_default() += 1;
                all
            });
            return out.json(&json!({
                "verdict": if self.ok { "kept" } else { "broken" }, "ok": self.ok, "seed": self.seed, "seconds": (self.seconds * 10.0).round() / 10.0,
                "streams": self.streams, "producers": self.producers, "subscribers": self.subscribers,
                "carrier": format!("{:?}", self.carrier).to_lowercase(), "counts": self.counts, "connections_lost": self.connections_lost,
                "restarts": self.restarts, "broken": broken, "findings_total": self.broken, "findings": self.findings, "kept": self.kept,
            }));
        }
        out.raw(self.text().as_bytes())
    }

    fn text(&self) -> String {
        let c = &self.counts;
        let mut text = format!(
            "verify: {} streams × {} producers and {} subscribers, {:.1} s, {} rounds, seed {}\n",
            self.streams, self.producers, self.subscribers, self.seconds, c.rounds, self.seed
        );
        text += &format!("  acknowledged {}, found {}; stored {} in all\n", c.acknowledged, c.found, c.stored);
        text += &format!("  unknown {}, of which {} are stored, each once; refused {}, of which none may be stored\n", c.unknown, c.unknown_stored, c.refused);
        text += &format!("  batches sent again on purpose and recognised: {}\n", c.repeats_recognised);
        text += &format!(
            "  {} sessions, {} takeovers (late acks and appends refused: {}), {} durable acks, {} deliveries, {} of them again (at least once)\n",
            c.sessions, c.takeovers, c.stale_refused, c.durable_acks, c.deliveries, c.duplicates
        );
        text += &format!("  {} commits; effects {}, effects twice {}; {} looks from outside\n", c.commits, c.effects, c.effects_twice, c.looks);
        text += &format!("  connection lost {} times, restarts seen {}\n", self.connections_lost, self.restarts);
        let of = |rule: &'static str| self.findings.iter().filter(move |finding| finding.rule == rule);
        for (rule, says) in INVARIANTS {
            let first = of(rule).next();
            let mark = if first.is_none() { "kept" } else { "BROKEN" };
            text += &format!("  {rule:<5} {says:<62} {mark}\n");
            for Finding { stream, offset, what, .. } in of(rule).take(3) {
                let at = offset.map(|offset| format!(", offset {offset}")).unwrap_or_default();
                text += &format!("        stream {stream}{at}: {what}\n");
            }
        }
        for name in &self.kept {
            text += &format!("  stream {name} stays\n");
        }
        text += &match self.broken {
            0 => "Every promise was kept.\n".to_owned(),
            n => format!("A PROMISE WAS BROKEN: {n} findings.\n"),
        };
        text
    }
}
