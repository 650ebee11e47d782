//! Certificates that change while the broker runs: on SIGHUP, and when a file has changed.
//!
//! New handshakes see the new ones; connections that are open live on. Files that do not fit leave the old ones in force and raise an alarm.
//! Whoever replaces two files makes them unfit for a moment: a change counts when the files have been the same for one look.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{Gate, Live, Loaded, Wants};
use crate::edge::Stats;
use crate::server::config::Tls;
use crate::types::TimeUs;

/// How often the files are looked at. A new certificate is in use after two looks.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// The files, what is in force of them, and which ones those were.
pub struct Certificates {
    tls: Tls,
    live: Live,
    used: Looks,
}

async fn read(tls: &Tls) -> Result<Loaded, String> {
    let tls = tls.clone();
    tokio::task::spawn_blocking(move || Loaded::read(&tls, TimeUs::now())).await.unwrap_or_else(|error| Err(format!("Reading ended early: {error}.")))
}

/// Which files these are: inode, length, time of the last change; `None` for one that is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Looks(Vec<Option<(u64, u64, i64, i64)>>);

impl Looks {
    fn of(tls: &Tls) -> Self {
        let files = [Some(&tls.cert), Some(&tls.key), tls.clients.as_ref().map(|clients| &clients.ca)];
        let look = |path: &Path| std::fs::metadata(path).ok().map(|file| (file.ino(), file.len(), file.mtime(), file.mtime_nsec()));
        Self(files.into_iter().flatten().map(|path| look(path)).collect())
    }
}

impl Certificates {
    /// Reads the files for the first time.
    ///
    /// # Errors
    /// See [`Loaded::read`].
    pub async fn read(tls: Tls) -> Result<Self, String> {
        // The looks come first: whatever changes while the files are read is found later.
        let used = Looks::of(&tls);
        let live = Arc::new(ArcSwap::from_pointee(read(&tls).await?));
        Ok(Self { tls, live, used })
    }

    /// The way in for connections of one listener.
    pub fn gate(&self, wants: Wants) -> Gate {
        Gate { live: self.live.clone(), wants }
    }

    /// Looks after the files until the broker stops.
    pub fn keep_fresh(self, stats: Stats, stop: CancellationToken) -> impl Future<Output = ()> + Send + 'static {
        stats.tls_loaded(self.live.load().not_after);
        // Here, so that no signal falls between the start and the first turn of the task.
        let hangup = signal(SignalKind::hangup()).ok();
        self.look_after(hangup, stats, stop)
    }

    async fn look_after(mut self, mut hangup: Option<Signal>, stats: Stats, stop: CancellationToken) {
        let mut last = self.used.clone();
        let mut look = tokio::time::interval(LOOK_EVERY);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let told = tokio::select! {
                () = stop.cancelled() => return,
                _ = look.tick() => false,
                Some(()) = async { hangup.as_mut()?.recv().await } => true,
            };
            let now = Looks::of(&self.tls);
            let settled = now == std::mem::replace(&mut last, now.clone());
            if !told && (now == self.used || !settled) {
                continue;
            }
            self.used = now;
            match read(&self.tls).await {
                Ok(loaded) => {
                    let expires = loaded.not_after;
                    self.live.store(Arc::new(loaded));
                    stats.tls_loaded(expires);
                    tracing::info!(%expires, "the certificates were read again; new connections use them");
                }
                Err(why) => {
                    tracing::error!("the certificates could not be read again, and the old ones stay in force: {why}");
                    stats.tls_failed(why);
                }
            }
        }
    }
}
