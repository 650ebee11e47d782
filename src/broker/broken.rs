//! Promises that a test-only build breaks on purpose, so that each checker can be seen to go red (docs/testing.md, "Controls").
//! Without the feature `faults` this is nothing at all.

/// What may be broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Promise {
    /// S-1: answers and news go out before the commit.
    AckBeforeSync,
    /// S-2: news goes out before the commit.
    DirtyRead,
    /// S-1: the events of a group are a commit of their own, after its rows.
    SplitCommit,
    /// P-10, P-19: producers, receipts and idempotency keys stay in memory.
    DropReceipt,
    /// P-4: what is recognised as a repetition is stored again.
    RepeatAppend,
    /// I-5: now and then an offset is left out.
    SkipOffset,
    /// C-7, P-2: a fenced session may go on.
    StaleSession,
    /// C-16: an ack of level `durable` stays in memory.
    DropAck,
    /// C-3, C-9: a position beyond the end is taken for the end.
    ClampPosition,
    /// C-17: now and then a session passes over an event.
    SkipDelivery,
    /// P-12: an append after a refused one is accepted.
    ForgetPoison,
    /// S-8: opening a producer or a session again leaves its epoch as it is.
    ReuseEpoch,
}

#[cfg(feature = "faults")]
impl Promise {
    /// All of them, with their words for `TIDELOG_BREAK`.
    pub const ALL: [(&'static str, Self); 12] = [
        ("ack_before_sync", Self::AckBeforeSync),
        ("dirty_read", Self::DirtyRead),
        ("split_commit", Self::SplitCommit),
        ("drop_receipt", Self::DropReceipt),
        ("repeat_append", Self::RepeatAppend),
        ("skip_offset", Self::SkipOffset),
        ("stale_session", Self::StaleSession),
        ("drop_ack", Self::DropAck),
        ("clamp_position", Self::ClampPosition),
        ("skip_delivery", Self::SkipDelivery),
        ("forget_poison", Self::ForgetPoison),
        ("reuse_epoch", Self::ReuseEpoch),
    ];
}

/// Which promise is broken; none in a release.
#[cfg(feature = "faults")]
#[derive(Clone, Copy, Debug, Default)]
pub struct Broken(Option<Promise>);

/// Which promise is broken: none.
#[cfg(not(feature = "faults"))]
#[derive(Clone, Copy, Debug, Default)]
pub struct Broken(());

#[cfg(feature = "faults")]
impl Broken {
    /// This one.
    pub fn promise(promise: Promise) -> Self {
        Self(Some(promise))
    }

    /// The one that `TIDELOG_BREAK` names.
    ///
    /// # Errors
    /// A sentence when there is no such word.
    pub fn from_env() -> Result<Self, String> {
        let word = std::env::var("TIDELOG_BREAK").unwrap_or_default();
        if word.is_empty() {
            return Ok(Self(None));
        }
        let known = Promise::ALL.iter().find(|(name, _)| *name == word);
        known.map(|(_, promise)| Self(Some(*promise))).ok_or_else(|| format!("TIDELOG_BREAK={word}: there is no such promise to break"))
    }

    /// Is it this one?
    #[inline]
    pub fn is(self, promise: Promise) -> bool {
        self.0 == Some(promise)
    }
}

#[cfg(not(feature = "faults"))]
impl Broken {
    /// None.
    ///
    /// # Errors
    /// Never.
    pub fn from_env() -> Result<Self, String> {
        Ok(Self(()))
    }

    /// It is not.
    #[inline(always)]
    pub fn is(self, _promise: Promise) -> bool {
        false
    }
}
