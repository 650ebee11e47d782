//! What a user has and does, for whoever may see the user; and what is counted no more when a stream goes.

use super::{AccessChange, Bound, Principal, Quotas, UserInfo};
use crate::broker::Broker;
use crate::broker::audit::By;
use crate::log::Key;
use crate::log::rows::{self, value};
use crate::types::id::OPERATOR_USER;
use crate::types::{Error, Result, StreamId, UserName};

/// Users whose counts are put right by one intent: it needs three rows of each in memory.
const FORGET_AT_ONCE: usize = 64;

/// How much a user has of what is bounded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageInfo {
    /// Of what, how much there is, and how much there may be; `None` = no limit.
    pub counts: Vec<(Bound, u64, Option<u64>)>,
    /// The rates. What is left of them is gone before anybody has read it.
    pub quotas: Quotas,
}

impl Broker {
    /// One user, as [`Broker::user`], and what it has and does.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn user_and_usage(&self, who: &Principal, name: &UserName) -> Result<(UserInfo, UsageInfo)> {
        let user = self.user(who, name).await?;
        let usage = self.usage_of(&user).await?;
        Ok((user, usage))
    }

    /// How much a user has and does. What is stored is counted from the first version on that counted; the operator is not counted.
    pub(super) async fn usage_of(&self, user: &UserInfo) -> Result<UsageInfo> {
        let stored: value::Usage = self.access_row(Key::Usage(user.id)).await?.unwrap_or_default();
        let users = &self.inner.access.users;
        let (quotas, (connections, long_polls)) = (*users.quotas(), users.live(user.id));
        let exempt = user.root || user.id == OPERATOR_USER;
        let counts = [
            (Bound::Streams, stored.streams, exempt),
            (Bound::Subscriptions, stored.subscriptions, exempt),
            (Bound::Producers, stored.producers, exempt),
            (Bound::Connections, connections, false),
            (Bound::LongPolls, long_polls, false),
        ];
        let limited = |(bound, used, exempt): (Bound, u64, bool)| (bound, used, Some(quotas.of(bound)).filter(|most| *most != 0 && !exempt));
        Ok(UsageInfo { counts: counts.into_iter().map(limited).collect(), quotas })
    }

    /// What users have on a stream that is going is counted no more. Interrupted, it goes on where it was.
    pub(in crate::broker) async fn forget_usage_on(&self, stream: StreamId) -> Result<()> {
        let rows = self.all_rows(rows::prefix::usage_on(stream)).await?;
        let users: Result<Vec<u64>> = rows.iter().map(|(key, _)| rows::decode_id(key.get(9..).unwrap_or_default()).map_err(Error::internal)).collect();
        for users in users?.chunks(FORGET_AT_ONCE).map(<[_]>::to_vec) {
            self.change(By::broker(), AccessChange::ForgetUsage { stream, users }).await?;
        }
        Ok(())
    }
}
