//! Certificates that change while the broker runs: on SIGHUP, and when a file has changed.
//!
//! New handshakes see the new ones; connections that are open live on. Files that do not fit leave the old ones in force and raise an alarm.
//! Whoever replaces two files makes them unfit for a moment: a change counts when the files have been the same for one look.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{Live, Loaded};
use crate::edge::Stats;
use crate::server::config::Tls;
use crate::types::TimeUs;

/// How often the files are looked at. A new certificate is in use after two looks.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Reads the files for the first time.
///
/// # Errors
/// See [`Loaded::read`].
pub async fn start(tls: &Tls) -> Result<Live, String> {
    Ok(Arc::new(ArcSwap::from_pointee(read(tls).await?)))
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

/// Looks after the files until the broker stops.
pub async fn keep_fresh(tls: Tls, live: Live, stats: Stats, stop: CancellationToken) {
    stats.tls_loaded(live.load().not_after);
    let mut hangup = signal(SignalKind::hangup()).ok();
    let mut used = Looks::of(&tls);
    let mut last = used.clone();
    let mut look = tokio::time::interval(LOOK_EVERY);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let told = tokio::select! {
            () = stop.cancelled() => return,
            _ = look.tick() => false,
            Some(()) = async { hangup.as_mut()?.recv().await } => true,
        };
        let now = Looks::of(&tls);
        let settled = now == std::mem::replace(&mut last, now.clone());
        if !told && (now == used || !settled) {
            continue;
        }
        // What was looked at before it was read may have changed since: then the next look finds that.
        used = now;
        match read(&tls).await {
            Ok(loaded) => {
                stats.tls_loaded(loaded.not_after);
                tracing::info!(expires = %loaded.not_after, "the certificates were read again; new connections use them");
                live.store(Arc::new(loaded));
            }
            Err(why) => {
                tracing::error!("the certificates could not be read again, and the old ones stay in force: {why}");
                stats.tls_failed(why);
            }
        }
    }
}
