//! How many streams, subscriptions and producers each user has, and whether it may have one more.
//!
//! Counted in rows beside what is counted, in the same commits: a look costs one row, a start nothing. What stands on a stream is counted by
//! stream too, so that it is given back when the stream goes, whose rows nobody looks at one by one. The operator is not counted.

use super::{Need, State};
use crate::broker::access::Bound;
use crate::broker::intent::Intent;
use crate::log::Key;
use crate::log::rows::value;
use crate::types::id::OPERATOR_USER;
use crate::types::{Result, StreamId};

/// Things from before there were users have none.
fn is_counted(user: u64) -> bool {
    user != 0 && user != OPERATOR_USER
}

fn count_of(usage: &mut value::Usage, bound: Bound) -> Option<&mut u64> {
    match bound {
        Bound::Streams => Some(&mut usage.streams),
        Bound::Subscriptions => Some(&mut usage.subscriptions),
        Bound::Producers => Some(&mut usage.producers),
        Bound::Requests | Bound::Bytes | Bound::Connections | Bound::LongPolls => None, // never stored
    }
}

impl State {
    /// The rows that count what a user has, and of that what is on a stream.
    pub(super) fn lacks_usage(&mut self, user: u64, stream: Option<StreamId>, needs: &mut Vec<Need>) {
        if is_counted(user) {
            self.lacks_access_row(Key::User(user), needs);
            self.lacks_access_row(Key::Usage(user), needs);
            if let Some(stream) = stream {
                self.lacks_access_row(Key::UsageOn(stream, user), needs);
            }
        }
    }

    /// The same for whoever may create a stream by using it.
    pub(super) fn lacks_usage_of_caller(&mut self, intent: &Intent, needs: &mut Vec<Need>) {
        let user = match intent {
            Intent::Append(append, _) | Intent::AppendOnce { append, .. } => append.author.user,
            Intent::Open { claim, .. } => claim.author.user,
            Intent::OpenProducer { user, .. } => *user,
            Intent::Commit { author, .. } => author.user,
            _ => return,
        };
        self.lacks_usage(user, None, needs);
    }

    /// May the user have so many more? Asked before anything is changed by an intent that does more than count.
    ///
    /// # Errors
    /// `quota_exceeded`, for all but root users.
    pub(super) fn check_room(&mut self, user: u64, bound: Bound, more: u64) -> Result<()> {
        let most = self.options.quotas.of(bound);
        if !is_counted(user) || more == 0 || most == 0 {
            return Ok(());
        }
        let mut usage = self.row::<value::Usage>(Key::Usage(user))?.unwrap_or_default();
        let has = count_of(&mut usage, bound).map_or(0, |count| *count);
        if has.saturating_add(more) <= most || self.row::<value::User>(Key::User(user))?.is_some_and(|user| user.root) {
            return Ok(());
        }
        self.options.refusals.note(bound);
        Err(bound.exceeded(most))
    }

    /// One more of a user's, on this stream where it stands on one.
    ///
    /// # Errors
    /// `quota_exceeded`, for all but root users.
    pub(super) fn count(&mut self, user: u64, stream: Option<StreamId>, bound: Bound) -> Result<()> {
        if !is_counted(user) {
            return Ok(());
        }
        self.check_room(user, bound, 1)?;
        let mut usage = self.row::<value::Usage>(Key::Usage(user))?.unwrap_or_default();
        if let Some(count) = count_of(&mut usage, bound) {
            *count += 1;
        }
        self.put_row(Key::Usage(user), &usage);
        if let Some(stream) = stream {
            let mut here = self.row::<value::Usage>(Key::UsageOn(stream, user))?.unwrap_or_default();
            if let Some(count) = count_of(&mut here, bound) {
                *count += 1;
            }
            self.put_row(Key::UsageOn(stream, user), &here);
        }
        Ok(())
    }

    /// One less. What was made before anybody counted was not counted, so it takes nothing from what was.
    pub(super) fn uncount(&mut self, user: u64, stream: Option<StreamId>, bound: Bound) -> Result<()> {
        if !is_counted(user) {
            return Ok(());
        }
        let Some(stream) = stream else { return self.give_back(user, 1, bound) };
        let Some(mut here) = self.row::<value::Usage>(Key::UsageOn(stream, user))? else { return Ok(()) };
        let Some(count) = count_of(&mut here, bound).filter(|count| **count > 0) else { return Ok(()) };
        *count -= 1;
        if here == value::Usage::default() {
            self.delete_row(Key::UsageOn(stream, user));
        } else {
            self.put_row(Key::UsageOn(stream, user), &here);
        }
        self.give_back(user, 1, bound)
    }

    fn give_back(&mut self, user: u64, n: u64, bound: Bound) -> Result<()> {
        // A user that is gone has no row.
        let Some(mut usage) = self.row::<value::Usage>(Key::Usage(user))? else { return Ok(()) };
        if let Some(count) = count_of(&mut usage, bound) {
            *count = count.saturating_sub(n);
        }
        self.put_row(Key::Usage(user), &usage);
        Ok(())
    }

    /// A stream goes, and with it what these users have on it.
    pub(super) fn forget_usage(&mut self, stream: StreamId, users: &[u64]) -> Result<()> {
        for user in users {
            let Some(here) = self.row::<value::Usage>(Key::UsageOn(stream, *user))? else { continue };
            self.delete_row(Key::UsageOn(stream, *user));
            self.give_back(*user, here.subscriptions, Bound::Subscriptions)?;
            self.give_back(*user, here.producers, Bound::Producers)?;
        }
        Ok(())
    }
}
