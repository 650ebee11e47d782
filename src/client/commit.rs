//! Acks and appends that happen together or not at all (recipe K-3), repairable after a lost reply.

use crate::types::reply::Committed;
use crate::types::request::{CommitRequest, Expect, OpenProducerRequest, ProducerStamp};
use crate::types::{self, Code, ProducerId, Retry};
use crate::wire::frame::{About, ClientFrame, ServerFrame};

use super::backoff::Backoff;
use super::link::Link;
use super::{Client, Error, Result, producer};

/// A broker-wide producer for commits; made by [`Client::committer`]. One commit at a time.
pub struct Committer {
    client: Client,
    open: OpenProducerRequest,
    epoch: u64,
    lost_opens: u64,
    /// Of the next commit.
    seq: u64,
    /// Taken out while a commit is under way: a commit that is dropped half-way leaves `None` and is looked up next time.
    link: Option<Link>,
}

impl Committer {
    pub(crate) async fn open(client: Client, id: &str) -> Result<Self> {
        let open = OpenProducerRequest { stream: None, stream_id: None, producer: ProducerId::parse(id)?, expect: Expect::Any };
        let (link, opened) = producer::open(&client, &open).await?;
        let open = OpenProducerRequest { expect: Expect::Resume, ..open };
        let seq = opened.last_seq.map_or(0, |last| last + 1);
        Ok(Self { client, open, epoch: opened.epoch, lost_opens: 0, seq, link: Some(link) })
    }

    /// Sequence number of the next commit.
    pub fn next_seq(&self) -> u64 {
        self.seq
    }

    /// Does all of it or nothing, and tells which. While the outcome is unknown the very same commit is sent again, so
    /// the answer is definite however often the broker dies; it waits for the broker as long as that takes. Its producer
    /// stamp is set here. Not cancel-safe in one respect: dropped half-way, whether it happened shows at the next commit.
    ///
    /// # Errors
    /// After a definite refusal (`txn_part_failed` with `details.cause`) nothing happened: read on from the cursor, that
    /// is, open the consumer again (T-4). `producer_fenced`: another process uses this id.
    pub async fn commit(&mut self, mut request: CommitRequest) -> Result<Committed> {
        let mut backoff = Backoff::default();
        let mut unsettled = false;
        loop {
            let mut link = match self.link.take() {
                Some(link) => link,
                None => match self.reopen(&mut unsettled).await {
                    Ok(link) => link,
                    Err(error) if error.is_retryable() => {
                        tracing::info!(producer = %self.open.producer, "{error} Opening the producer of commits again.");
                        backoff.wait(error.retry_after()).await;
                        continue;
                    }
                    Err(error) => return Err(if unsettled { error.unsettled() } else { error }),
                },
            };
            request.producer = Some(ProducerStamp { id: self.open.producer.clone(), epoch: self.epoch, seq: self.seq });
            link.send(&ClientFrame::Commit { req: 1, request: request.clone() });
            match answer(&mut link).await {
                Ok(committed) => {
                    self.seq += 1;
                    self.link = Some(link);
                    return Ok(committed);
                }
                Err(error) => {
                    let again = match error.server() {
                        Some(e) => matches!(e.retry, Retry::Same | Retry::Backoff) || e.code == Code::ProducerUnknown,
                        None => error.is_retryable(),
                    };
                    if !again {
                        self.link = Some(link);
                        return Err(if unsettled { error.unsettled() } else { error });
                    }
                    unsettled |= error.applied() == types::Applied::Unknown;
                    backoff.wait(error.retry_after()).await;
                }
            }
        }
    }

    /// Opens the producer again. An opening is a barrier: afterwards `last_seq` tells for good what happened before.
    async fn reopen(&mut self, unsettled: &mut bool) -> Result<Link> {
        let (link, opened) = match producer::open(&self.client, &self.open).await {
            Ok(opened) => opened,
            Err(error) => {
                self.lost_opens += u64::from(error.applied() == types::Applied::Unknown);
                return Err(error);
            }
        };
        let stored = opened.last_seq.map_or(0, |last| last + 1);
        if opened.epoch > self.epoch + self.lost_opens + 1 || stored > self.seq + 1 {
            let message = format!("Somebody else opened producer {} meanwhile (epoch {}). Use one id per running process.", opened.producer, opened.epoch);
            return Err(types::Error::new(Code::ProducerFenced, message).rule("P-2").detail("epoch", opened.epoch).into());
        }
        if stored < self.seq {
            let message =
                format!("The broker knows producer {} up to commit {stored}, but had answered {}: history was lost or replaced.", opened.producer, self.seq);
            return Err(types::Error::new(Code::ProducerSeqGap, message).rule("P-8").with_retry(Retry::Decide).into());
        }
        if !*unsettled {
            // A commit that was dropped half-way had happened after all; it is not ours any more.
            self.seq = stored;
        }
        *unsettled &= stored > self.seq;
        self.epoch = opened.epoch;
        self.lost_opens = 0;
        Ok(link)
    }
}

/// Waits for the answer to commit number 1 of this link.
pub(crate) async fn answer(link: &mut Link) -> Result<Committed> {
    loop {
        match link.next().await? {
            ServerFrame::Committed { req: 1, reply } => return Ok(reply),
            ServerFrame::Error { about: About::Req(1) | About::Connection, error, request_id } => return Err(Error::Server { error, request_id }),
            _ => {}
        }
    }
}
