//! A credential that was shown, and what is known of it: remembered until its user's rows change.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use super::{Family, Kind, Principal, Usage, public_key};
use crate::log::rows::ApiKeyId;
use crate::types::{Error, Right, StreamId, StreamName, TimeUs, limits};

/// See the module. Shared by everybody who shows the same credential.
#[derive(Debug)]
pub struct Identity {
    kind: Kind,
    user: u64,
    source: u64,
    /// Its row must stay; `None` = a certificate.
    key: Option<ApiKeyId>,
    /// It is good until then.
    expires: Option<TimeUs>,
    /// What all credentials of its user do together.
    usage: Arc<Usage>,
    /// Grows with each change of its user's rows. What was found under an earlier number is looked up again.
    generation: AtomicU64,
    news: watch::Sender<u64>,
    seen: Mutex<Seen>,
}

/// What was found in the store, and under which generation.
#[derive(Debug, Default)]
struct Seen {
    standing: Option<(u64, Result<Standing, Error>)>,
    rights: HashMap<Box<str>, Found>,
}

/// What a good credential is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Its user is root.
    pub root: bool,
}

/// A right that was found.
#[derive(Clone, Copy, Debug)]
struct Found {
    generation: u64,
    /// Of all names: a deleted stream's name may mean another one later.
    names: u64,
    stream: StreamId,
    right: Right,
}

impl Identity {
    /// One about which nothing is known yet.
    pub fn new(kind: Kind, usage: Arc<Usage>, source: u64, key: Option<ApiKeyId>, expires: Option<TimeUs>) -> Arc<Self> {
        let (user, news) = (usage.user(), watch::Sender::new(0));
        Arc::new(Self { kind, user, source, key, expires, usage, generation: AtomicU64::new(0), news, seen: Mutex::default() })
    }

    /// What kind of credential it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Whose.
    pub fn user(&self) -> u64 {
        self.user
    }

    /// Which source, 0 = none.
    pub fn source(&self) -> u64 {
        self.source
    }

    /// Public part of its key.
    pub fn key(&self) -> Option<&ApiKeyId> {
        self.key.as_ref()
    }

    /// The same as people see it.
    pub fn public_key(&self) -> Option<String> {
        let family = match self.kind {
            Kind::UserKey => Family::UserKey,
            Kind::SourceKey => Family::SourceKey,
            Kind::Operator | Kind::Console | Kind::Node | Kind::Anonymous => Family::Session,
        };
        self.key.as_ref().map(|id| public_key(family, id))
    }

    /// When it ends by itself.
    pub fn expires(&self) -> Option<TimeUs> {
        self.expires
    }

    /// What its user has and does.
    pub fn usage(&self) -> &Arc<Usage> {
        &self.usage
    }

    /// Under which number something is to be looked up now. Read it before the look.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Rows of its user have changed: what is known is forgotten, and who waits is woken.
    pub fn changed(&self) {
        let next = self.generation.fetch_add(1, Ordering::AcqRel) + 1;
        self.news.send_replace(next);
    }

    /// Is it good? `None`: look it up.
    pub fn standing(&self) -> Option<Result<Standing, Error>> {
        let seen = self.seen.lock();
        seen.standing.as_ref().filter(|(generation, _)| *generation == self.generation()).map(|(_, found)| found.clone())
    }

    /// Remembers what a look found that began at `generation`.
    pub fn stands(&self, generation: u64, found: Result<Standing, Error>) {
        self.seen.lock().standing = Some((generation, found));
    }

    /// The right on the stream of this folded name. `None`: look it up.
    pub fn right(&self, folded: &str, names: u64) -> Option<(StreamId, Right)> {
        let seen = self.seen.lock();
        let found = seen.rights.get(folded)?;
        (found.generation == self.generation() && found.names == names).then_some((found.stream, found.right))
    }

    /// The right on a stream, where all that it rests on is known. `None`: look it up.
    pub fn quick(&self, stream: &StreamName, names: u64, now: impl Fn() -> TimeUs) -> Option<(Option<StreamId>, Right)> {
        if self.expires.is_some_and(|at| at <= now()) {
            return None;
        }
        let generation = self.generation();
        let seen = self.seen.lock();
        match &seen.standing {
            Some((at, Ok(standing))) if *at == generation => {
                if standing.root && self.source == 0 {
                    return Some((None, Right::Root));
                }
            }
            _ => return None,
        }
        let found = seen.rights.get(&*stream.folded())?;
        (found.generation == generation && found.names == names).then_some((Some(found.stream), found.right))
    }

    /// Remembers a right that a look found which began at `generation`.
    pub fn has(&self, folded: &str, (generation, names): (u64, u64), stream: StreamId, right: Right) {
        let mut seen = self.seen.lock();
        if seen.rights.len() >= limits::RIGHTS_REMEMBERED && !seen.rights.contains_key(folded) {
            seen.rights.clear();
        }
        seen.rights.insert(folded.into(), Found { generation, names, stream, right });
    }
}

/// Rings when something about a credential may have changed, and when it ends.
#[derive(Debug)]
pub struct Watch {
    identity: Arc<Identity>,
    news: watch::Receiver<u64>,
    /// When it ends, by the clock that sleeps go by; `None` = it does not.
    ends: Option<Instant>,
    /// It rang, and nobody has looked yet.
    rang: bool,
}

/// The clock that judges an end may be behind the one that woke us for it: look again then.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

impl Watch {
    pub(super) fn new(identity: &Arc<Identity>, now: TimeUs) -> Self {
        let left = |at: TimeUs| Duration::from_micros(u64::try_from(at.0.saturating_sub(now.0)).unwrap_or_default());
        let ends = identity.expires.and_then(|at| Instant::now().checked_add(left(at)));
        Self { identity: identity.clone(), news: identity.news.subscribe(), ends, rang: false }
    }

    /// Who it is about.
    pub fn principal(&self) -> Principal {
        Principal::Known(self.identity.clone())
    }

    /// Has it rung since it was last asked?
    pub fn take(&mut self) -> bool {
        let rang = self.news.has_changed().unwrap_or(false);
        if rang {
            self.news.mark_unchanged();
        }
        std::mem::take(&mut self.rang) | rang | self.is_over()
    }

    fn is_over(&mut self) -> bool {
        let now = self.ends.map(|at| (at, Instant::now())).filter(|(at, now)| at <= now);
        self.ends = now.map(|(_, now)| now + LOOK_AGAIN).or(self.ends);
        now.is_some()
    }

    /// Resolves when it rings. Cancel-safe.
    pub async fn rung(&mut self) {
        // The identity holds the sender, and this holds the identity.
        let changed = self.news.changed();
        match self.ends {
            None => drop(changed.await),
            // In a box, since idle connections wait here and most of their credentials have no end.
            Some(at) => drop(Box::pin(tokio::time::timeout_at(at, changed)).await),
        }
        self.rang = true;
    }
}

/// The same where there may be nothing to wait on: the operator's rights never change.
pub async fn rung(watch: &mut Option<Box<Watch>>) {
    match watch {
        Some(watch) => watch.rung().await,
        None => std::future::pending().await,
    }
}
