//! Producers without a connection: opened, looked at and removed by calls of their own.

use super::commit::engine_failure;
use super::info::{ListQuery, Page, ProducerInfo};
use super::intent::Intent;
use super::state::producer_not_found;
use super::{Action, Broker, Principal};
use crate::log::rows::{self, value};
use crate::log::{Key, ProducerKey};
use crate::types::reply::ProducerOpened;
use crate::types::request::OpenProducerRequest;
use crate::types::{Error, ProducerId, Result, StreamName, TimeUs};

impl Broker {
    /// A new epoch of a producer; older ones are fenced. A lost answer is repaired by opening again.
    ///
    /// # Errors
    /// `producer_state_lost`, `name_taken`, `not_found`, rights.
    pub async fn open_producer(&self, who: &Principal, request: OpenProducerRequest) -> Result<ProducerOpened> {
        self.ask(0, self.open_producer_intent(who, request).await?).await
    }

    /// Those of a stream are its writers', broker-wide ones their user's.
    async fn may_producer(&self, who: &Principal, stream: Option<&StreamName>, action: Action) -> Result<()> {
        match stream {
            Some(stream) => self.may(who, stream, action).await,
            None => self.still_good(who).await,
        }
    }

    /// The key of a producer of `stream`, or of one of the caller's broker-wide ones.
    async fn producer_key(&self, who: &Principal, stream: Option<&StreamName>, id: &ProducerId) -> Result<ProducerKey> {
        Ok(match stream {
            Some(name) => ProducerKey::of_stream(self.find_stream(name).await?.id, id.clone()),
            None => ProducerKey::of_user(who.user_id(), id.clone()),
        })
    }

    /// One producer of a stream, or (`None`) one of the caller's broker-wide ones.
    ///
    /// # Errors
    /// `not_found`, rights.
    pub async fn producer(&self, who: &Principal, stream: Option<&StreamName>, id: &ProducerId) -> Result<ProducerInfo> {
        self.may_producer(who, stream, Action::Read).await?;
        self.check_serving()?;
        let key = self.producer_key(who, stream, id).await?;
        let found = self.inner.engine.get(vec![Key::Producer(&key).encode()]).await.map_err(|e| engine_failure(&e))?;
        let row = found.into_iter().next().flatten().ok_or_else(|| producer_not_found(stream, id))?;
        Ok(describe(id.clone(), stream, &rows::decode(&row).map_err(Error::internal)?))
    }

    /// The producers of a stream, or (`None`) the caller's broker-wide ones, sorted by id.
    ///
    /// # Errors
    /// `not_found`, rights.
    pub async fn producers(&self, who: &Principal, stream: Option<&StreamName>, query: ListQuery) -> Result<Page<ProducerInfo>> {
        self.may_producer(who, stream, Action::Read).await?;
        self.check_serving()?;
        let prefix = match stream {
            Some(name) => rows::prefix::producers(self.find_stream(name).await?.id),
            None => rows::prefix::producers_of_user(who.user_id()),
        };
        let limit = query.limit.unwrap_or(usize::MAX);
        // Keys are ordered by the length of the id first, lists are not; so all of them are looked at, and the first ones kept.
        let (mut items, mut seen): (Vec<ProducerInfo>, Option<Vec<u8>>) = (Vec::new(), None);
        loop {
            let page = self.inner.engine.scan(prefix.clone(), seen.take(), 1024).await.map_err(|e| engine_failure(&e))?;
            let Some((last, _)) = page.last() else { break };
            seen = Some(last.to_vec());
            for (key, bytes) in &page {
                let id = rows::producer_id(key).map_err(Error::internal)?;
                if query.after.as_deref().is_none_or(|after| id.as_str() > after) {
                    items.push(describe(id, stream, &rows::decode(bytes).map_err(Error::internal)?));
                }
            }
            // No more than a page and what the next scan brings is held.
            items.sort_unstable_by(|a, b| a.producer.cmp(&b.producer));
            items.truncate(limit.saturating_add(1));
        }
        let more = items.len() > limit;
        items.truncate(limit);
        Ok(Page { items, more })
    }

    /// Removes a producer and its receipts: its next append is `producer_unknown`, its next opening a new life above every epoch of this one.
    ///
    /// # Errors
    /// `not_found`, rights.
    pub async fn delete_producer(&self, who: &Principal, stream: Option<&StreamName>, id: &ProducerId) -> Result<()> {
        self.may_producer(who, stream, Action::Write).await?;
        let (stream, producer, by) = (stream.cloned(), id.clone(), self.by(who).await);
        self.ask(0, |reply| Intent::DeleteProducer { stream, producer, by, reply }).await
    }
}

fn describe(producer: ProducerId, stream: Option<&StreamName>, row: &value::Producer) -> ProducerInfo {
    let value::Producer { epoch, last_seq, last_use_us, .. } = *row;
    ProducerInfo { producer, stream: stream.cloned(), epoch, last_seq, last_used: TimeUs(last_use_us) }
}
