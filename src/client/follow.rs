//! The task behind a consumer: it owns the connection, attaches again when it breaks, and turns what the program wishes
//! (acks, room for more) into frames.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout};

use super::backoff::Backoff;
use super::consumer::Shared;
use super::link::Link;
use super::{Client, Error, Result};
use crate::types::reply::{GapReason, Subscribed};
use crate::types::request::{AckLevel, Credit, Start, SubscribeRequest, Takeover};
use crate::types::{self, Applied, Code, Retry, Slice};
use crate::wire::frame::{About, ClientFrame, ServerFrame};

/// The one reader of a consumer's connection.
const SUB: u64 = 1;
/// How long the broker may take to answer `subscribe`.
const OPEN_TIMEOUT: Duration = Duration::from_secs(30);
/// Acks without an answer; more wishes are joined meanwhile.
const ACKS_UNDER_WAY: u32 = 4;

/// What goes to the program. Its error, if any, is left in [`Shared`].
pub(crate) enum Item {
    /// Events.
    Slice(Slice),
    /// Lost offsets, both inclusive.
    Gap { from: u64, to: u64, reason: GapReason },
    /// Caught up.
    Live { next_offset: u64 },
    /// The position moved without events.
    Progress { next: u64 },
}

/// Attaches on a new connection.
pub(crate) async fn subscribe(client: &Client, request: &SubscribeRequest) -> Result<(Link, Subscribed)> {
    let mut link = Link::open(client).await?;
    link.send(&ClientFrame::Subscribe { sub: SUB, request: request.clone() });
    let answer = async {
        loop {
            match link.next().await? {
                ServerFrame::Subscribed { sub: SUB, reply } => return Ok(reply),
                ServerFrame::Error { about: About::Sub(SUB) | About::Connection, error, request_id } => return Err(Error::Server { error, request_id }),
                _ => {}
            }
        }
    };
    let reply = timeout(OPEN_TIMEOUT, answer)
        .await
        .unwrap_or_else(|_| Err(Error::Timeout(format!("The broker did not attach the reader within {} s.", OPEN_TIMEOUT.as_secs()))))?;
    Ok((link, reply))
}

/// Why following one connection ended.
enum Stop {
    /// The program dropped the consumer.
    Dropped,
    /// Attach again.
    Again(Error),
    /// For good.
    End(Error),
}

/// Position of one attachment: what came, what was acked.
#[derive(Debug, Default)]
struct Attachment {
    /// One past the last offset that arrived (C-10's mark, as the broker sees it).
    delivered: u64,
    /// One past the last ack sent.
    sent: u64,
    /// Acks without an answer.
    under_way: u32,
}

impl Attachment {
    /// The ack to send now: one past its offset. Never beyond what this attachment delivered (C-10, C-15).
    fn due(&self, wished: u64) -> Option<u64> {
        let next = wished.min(self.delivered);
        (next > self.sent && self.under_way < ACKS_UNDER_WAY).then_some(next)
    }
}

pub(crate) struct Follower {
    client: Client,
    /// For attaching again: without the position of the first time.
    request: SubscribeRequest,
    level: AckLevel,
    log_epoch: u64,
    epoch: Option<u64>,
    /// Attachments that were asked for without an answer; each may have raised the epoch.
    lost_opens: u64,
    /// The first offset not handed over.
    next: u64,
    shared: Arc<Shared>,
    items: mpsc::Sender<Item>,
    confirm: watch::Sender<u64>,
    give_up_after: Option<Duration>,
    backoff: Backoff,
}

impl Follower {
    #[expect(clippy::too_many_arguments, reason = "one call, from the builder that has all of it")]
    pub(crate) fn new(
        client: Client,
        request: SubscribeRequest,
        subscribed: &Subscribed,
        level: AckLevel,
        shared: Arc<Shared>,
        items: mpsc::Sender<Item>,
        confirm: watch::Sender<u64>,
        give_up_after: Option<Duration>,
    ) -> Self {
        let request = SubscribeRequest {
            create: false,
            rewind: false,
            from: None,
            log_epoch: None,
            stream_id: Some(subscribed.stream_id),
            takeover: Takeover::Steal,
            ..request
        };
        Self {
            client,
            request,
            level,
            log_epoch: subscribed.log_epoch,
            epoch: subscribed.epoch,
            lost_opens: 0,
            next: subscribed.next,
            shared,
            items,
            confirm,
            give_up_after,
            backoff: Backoff::default(),
        }
    }

    /// Until the program drops the consumer, or an error ends it.
    pub(crate) async fn run(mut self, mut link: Link) {
        let mut start = self.next;
        let end = loop {
            match self.follow(&mut link, start).await {
                Stop::Dropped => {
                    link.send(&ClientFrame::Unsubscribe { sub: SUB });
                    return link.close().await;
                }
                Stop::End(error) => break error,
                Stop::Again(error) => {
                    drop(link);
                    match self.attach_again(error).await {
                        Ok(Some((new, next))) => (link, start) = (new, next),
                        Ok(None) => return,
                        Err(error) => break error,
                    }
                }
            }
        };
        // Before the channels close, so that whoever sees them closed finds the reason.
        self.shared.wish.lock().end = Some(end);
    }

    async fn follow(&mut self, link: &mut Link, start: u64) -> Stop {
        let mut at = Attachment { delivered: start, sent: start, under_way: 0 };
        loop {
            self.say_wishes(link, &mut at);
            tokio::select! {
                () = self.items.closed() => {
                    self.say_last_wishes(link, &mut at);
                    return Stop::Dropped;
                }
                () = self.shared.wake.notified() => {}
                frame = link.next() => match frame {
                    Ok(frame) => if let Some(stop) = self.heard(frame, &mut at).await {
                        if matches!(stop, Stop::Dropped) {
                            self.say_last_wishes(link, &mut at);
                        }
                        return stop;
                    },
                    Err(error @ Error::Protocol(_)) => return Stop::End(error),
                    Err(error) => return Stop::Again(error),
                },
            }
        }
    }

    /// The ack that waits goes out now, however many are under way: there is no later.
    fn say_last_wishes(&self, link: &mut Link, at: &mut Attachment) {
        at.under_way = 0;
        self.say_wishes(link, at);
    }

    fn say_wishes(&self, link: &mut Link, at: &mut Attachment) {
        let mut wish = self.shared.wish.lock();
        at.sent = at.sent.max(wish.committed.min(at.delivered));
        if self.epoch.is_some() {
            if let Some(next) = at.due(wish.acked) {
                link.send(&ClientFrame::Ack { sub: SUB, offset: next - 1, level: self.level });
                (at.sent, at.under_way) = (next, at.under_way + 1);
            }
        } else if wish.taken.events > 0 {
            link.send(&ClientFrame::Credit { sub: SUB, credit: wish.taken });
            wish.taken = Credit { events: 0, bytes: 0 };
        }
    }

    async fn heard(&mut self, frame: ServerFrame, at: &mut Attachment) -> Option<Stop> {
        let item = match frame {
            ServerFrame::Events { sub: SUB, slices, .. } => {
                self.backoff.reset();
                for slice in slices {
                    at.delivered = at.delivered.max(slice.to());
                    // What was handed out before the connection broke is not handed out again.
                    if let Some(slice) = slice.after(self.next) {
                        if slice.from() > self.next {
                            let why = format!("event {} came where {} was due (C-17)", slice.from(), self.next);
                            return Some(Stop::End(Error::Protocol(why)));
                        }
                        self.next = slice.to();
                        if self.items.send(Item::Slice(slice)).await.is_err() {
                            return Some(Stop::Dropped);
                        }
                    }
                }
                return None;
            }
            ServerFrame::Gap { sub: SUB, from, to, reason } => {
                at.delivered = at.delivered.max(to + 1);
                if to < self.next {
                    return None;
                }
                let from = from.max(self.next);
                self.next = to + 1;
                Item::Gap { from, to, reason }
            }
            ServerFrame::Progress { sub: SUB, next } => {
                at.delivered = at.delivered.max(next);
                self.next = self.next.max(next);
                Item::Progress { next }
            }
            ServerFrame::Live { sub: SUB, next_offset } => Item::Live { next_offset },
            ServerFrame::Acked { sub: SUB, reply } => {
                at.under_way = at.under_way.saturating_sub(1);
                self.confirm.send_if_modified(|next| {
                    let moved = reply.next > *next;
                    *next = reply.next.max(*next);
                    moved
                });
                return None;
            }
            ServerFrame::Unsubscribed { sub: SUB } => return Some(Stop::Again(Error::lost("The broker detached the reader."))),
            ServerFrame::Error { about: About::Sub(SUB) | About::Connection, error, request_id } => {
                let again = matches!(error.retry, Retry::Same | Retry::Backoff | Retry::Reopen);
                let error = Error::Server { error, request_id };
                return Some(if again { Stop::Again(error) } else { Stop::End(error) });
            }
            _ => return None,
        };
        self.items.send(item).await.is_err().then_some(Stop::Dropped)
    }

    /// Attaches until it works; gives the position it was attached at. `None`: the program is gone.
    async fn attach_again(&mut self, mut why: Error) -> Result<Option<(Link, u64)>> {
        let since = Instant::now();
        loop {
            tracing::info!(stream = %self.request.stream, "{why} Attaching again.");
            tokio::select! {
                () = self.items.closed() => return Ok(None),
                () = self.backoff.wait(why.retry_after()) => {}
            }
            match self.attach_once().await {
                Ok(attached) => return Ok(Some(attached)),
                Err(error) if !error.is_retryable() => return Err(error),
                Err(error) => why = error,
            }
            if self.give_up_after.is_some_and(|limit| since.elapsed() >= limit) {
                return Err(why);
            }
        }
    }

    async fn attach_once(&mut self) -> Result<(Link, u64)> {
        if let (Some(epoch), Some(subscription)) = (self.epoch, &self.request.subscription) {
            // Somebody may have taken over while we were away: then it is theirs, and attaching would take it back.
            let seen = self.client.admin().subscription(self.request.stream.as_str(), subscription.as_str()).await?;
            if seen.epoch > epoch + self.lost_opens {
                let message = format!("Another reader took over subscription {subscription} (epoch {}).", seen.epoch);
                return Err(types::Error::new(Code::SessionFenced, message).rule("C-7").detail("epoch", seen.epoch).into());
            }
        } else {
            self.request.from = Some(Start::Offset(self.next));
            self.request.log_epoch = Some(self.log_epoch);
        }
        let attached = subscribe(&self.client, &self.request).await;
        if attached.as_ref().is_err_and(|e| e.applied() == Applied::Unknown) {
            self.lost_opens += 1;
        }
        let (link, subscribed) = attached?;
        if subscribed.log_epoch != self.log_epoch {
            let message = format!("The history of stream {} was replaced (log epoch {}, before {}).", subscribed.stream, subscribed.log_epoch, self.log_epoch);
            return Err(types::Error::new(Code::LogEpochChanged, message).rule("C-2").detail("log_epoch", subscribed.log_epoch).into());
        }
        if subscribed.next > self.next {
            // The cursor is beyond what we handed out, so nobody but another reader or an operator moved it.
            let message = format!("The cursor moved to {} while this reader was at {}.", subscribed.next, self.next);
            return Err(types::Error::new(Code::SessionFenced, message).rule("C-7").detail("next", subscribed.next).into());
        }
        self.lost_opens = 0;
        self.epoch = subscribed.epoch;
        self.shared.wish.lock().epoch = subscribed.epoch;
        if subscribed.epoch.is_some() {
            self.confirm.send_if_modified(|next| {
                let moved = subscribed.next > *next;
                *next = subscribed.next.max(*next);
                moved
            });
        }
        Ok((link, subscribed.next))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ack_never_runs_ahead_of_what_this_attachment_delivered() {
        let mut at = Attachment { delivered: 10, sent: 10, under_way: 0 };
        assert_eq!(at.due(15), None, "the events came over an earlier connection and have not come again yet");
        at.delivered = 12;
        assert_eq!(at.due(15), Some(12));
        at.delivered = 20;
        assert_eq!(at.due(15), Some(15));
        at.sent = 15;
        assert_eq!(at.due(15), None, "an ack is not repeated");
    }

    #[test]
    fn wishes_are_joined_while_acks_are_under_way() {
        let at = Attachment { delivered: 100, sent: 50, under_way: ACKS_UNDER_WAY };
        assert_eq!(at.due(80), None);
        assert_eq!(Attachment { under_way: ACKS_UNDER_WAY - 1, ..at }.due(80), Some(80));
    }
}
