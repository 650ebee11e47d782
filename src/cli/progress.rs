//! Progress on stderr: a bar on a terminal, a plain line every five seconds elsewhere.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};

const PLAIN_EVERY: Duration = Duration::from_secs(5);

/// Counts events for whoever watches.
pub struct Progress {
    bar: Option<ProgressBar>,
    what: &'static str,
    unit: &'static str,
    total: Option<u64>,
    done: u64,
    since: Instant,
    said: Instant,
    quiet: bool,
}

impl Progress {
    /// Counts events. `total`, if known, makes it a bar with an end. `quiet` shows nothing.
    pub fn new(what: &'static str, total: Option<u64>, quiet: bool) -> Self {
        Self::of("events", what, total, quiet)
    }

    /// Counts something else.
    pub fn of(unit: &'static str, what: &'static str, total: Option<u64>, quiet: bool) -> Self {
        let bar = (!quiet && std::io::stderr().is_terminal()).then(|| {
            let (bar, style) = match total {
                Some(total) => (ProgressBar::new(total), "{msg} {wide_bar} {human_pos}/{human_len} {per_sec} {eta}"),
                None => (ProgressBar::new_spinner(), "{spinner} {msg} {human_pos} {prefix} {per_sec} {elapsed}"),
            };
            bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(8));
            if let Ok(style) = ProgressStyle::with_template(style) {
                bar.set_style(style);
            }
            bar.set_prefix(unit);
            bar.set_message(what);
            bar
        });
        let now = Instant::now();
        Self { bar, what, unit, total, done: 0, since: now, said: now, quiet }
    }

    /// `events` more.
    pub fn add(&mut self, events: u64) {
        self.done += events;
        match &self.bar {
            Some(bar) => bar.set_position(self.done),
            None if !self.quiet && self.said.elapsed() >= PLAIN_EVERY => {
                self.said = Instant::now();
                let of = self.total.map(|t| format!(" of {}", HumanCount(t))).unwrap_or_default();
                let rate = self.done as f64 / self.since.elapsed().as_secs_f64();
                eprintln!("{}: {}{of} {}, {rate:.0}/s", self.what, HumanCount(self.done), self.unit);
            }
            None => {}
        }
    }

    /// How many, and for how long.
    pub fn finish(self) -> (u64, Duration) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        (self.done, self.since.elapsed())
    }
}
