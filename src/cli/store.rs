//! `tidelog store check`: reads a data directory that no broker has, and says whether it agrees with itself.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::failure::{Failure, Outcome};
use super::output::Out;
use super::progress::Progress;
use crate::server::store::{CheckError, DAMAGES_KEPT, Damage, Report, check_store};

/// `tidelog store …`
#[derive(Clone, Debug, Subcommand)]
pub enum Store {
    /// Verify a closed data directory: every CRC, offset chain, receipt, cursor and index. Read-only.
    Check(Check),
}

/// What to check.
#[derive(Args, Clone, Debug)]
pub struct Check {
    /// Data directory of a broker that is stopped, or a copy or checkpoint of one
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Look at one stream only
    #[arg(long, value_name = "NAME")]
    stream: Option<String>,
    /// No bar, no lines about progress
    #[arg(long)]
    no_progress: bool,
}

impl Store {
    /// Exit 0: sound; 1: damaged.
    pub fn run(self, json: bool) -> Outcome {
        let Self::Check(check) = self;
        check.run(json)
    }
}

impl Check {
    fn run(self, json: bool) -> Outcome {
        let mut bar: Option<(&'static str, Progress)> = None;
        let report = check_store(&self.data, self.stream.as_deref(), &mut |part, more| {
            if bar.as_ref().is_none_or(|(of, _)| *of != part)
                && let Some((_, done)) = bar.replace((part, Progress::of(part, "checking", None, self.no_progress)))
            {
                done.finish();
            }
            if let Some((_, progress)) = &mut bar {
                progress.add(more);
            }
        });
        if let Some((_, progress)) = bar {
            progress.finish();
        }
        let report = report.map_err(|error| match error {
            CheckError::NotFound(message) => Failure::Exit { code: 3, message },
            CheckError::Open(error) => Failure::Exit { code: error.exit_code(), message: error.to_string() },
        })?;
        let mut out = Out::new();
        if json {
            out.json(&report)?;
        } else {
            out.raw(text(&report).as_bytes())?;
        }
        match report.damaged {
            0 => Ok(()),
            1 => Err(Failure::failed(format!("{} has a damage; it was not touched.", self.data.display()))),
            n => Err(Failure::failed(format!("{} has {n} damages; it was not touched.", self.data.display()))),
        }
    }
}

/// The report for people.
fn text(report: &Report) -> String {
    let c = &report.counts;
    let mut out = String::new();
    let seconds: Vec<String> = report.parts.iter().map(|part| format!("{} {:.2} s", part.name, part.time.as_secs_f64())).collect();
    out += &format!(
        "{} streams: {} batches, {} events, {:.1} MB, each batch by its CRC and its place in the chain\n",
        c.streams,
        c.batches,
        c.events,
        c.batch_bytes as f64 / 1e6
    );
    out += &format!("{} subscriptions with their cursors\n", c.subscriptions);
    out += &format!(
        "{} producers with {} receipts, {} idempotency keys; {} fingerprints computed again\n",
        c.producers, c.receipts, c.idempotency_keys, c.fingerprints
    );
    out += &format!("{} users, {} sources, {} keys and sessions, {} rights\n", c.users, c.sources, c.keys, c.rights);
    out += &format!("{} operations, {} index rows, {} rows in all\n", c.operations, c.index_rows, c.rows);
    if c.leftover_batches > 0 {
        out += &format!("{} batches of trimmed or deleted events wait for their files to be dropped; nobody reads them\n", c.leftover_batches);
    }
    out += &format!("({})\n", seconds.join(", "));
    for note in &report.notes {
        out += &format!("note: {note}\n");
    }
    for damage in &report.damages {
        out += &format!("DAMAGE: {}\n", line(damage));
    }
    if report.damaged > DAMAGES_KEPT as u64 {
        out += &format!("… and {} more.\n", report.damaged - DAMAGES_KEPT as u64);
    }
    let mut advice: Vec<&str> = report.damages.iter().map(|damage| damage.advice).collect();
    advice.sort_unstable();
    advice.dedup();
    for advice in advice {
        out += &format!("what to do: {advice}\n");
    }
    out += match (report.ok, report.complete) {
        (true, true) => "Sound: everything that was looked at agrees.\n",
        (true, false) => "No damage was found, but not everything could be looked at.\n",
        (false, _) => "DAMAGED.\n",
    };
    out
}

fn line(damage: &Damage) -> String {
    let stream = match (&damage.stream, damage.stream_id) {
        (Some(name), Some(id)) => format!("stream {name} (id {id}): "),
        (None, Some(id)) => format!("stream {id}: "),
        _ => String::new(),
    };
    let offsets = match (damage.from, damage.to) {
        (Some(from), Some(to)) if from == to => format!("offset {from}: "),
        (Some(from), Some(to)) => format!("offsets {from} to {to}: "),
        (Some(from), None) => format!("offsets from {from} on: "),
        _ => String::new(),
    };
    format!("{stream}{offsets}{}", damage.what)
}
