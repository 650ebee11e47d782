//! Pulling: a subscription's events in answer to a call, for readers that hold no connection (`surfaces.md` 5.11).
//!
//! The session is the same as a pushed one: it has an epoch, a delivered mark and a window, and any carrier may acknowledge for it.
//! Each pull is a contiguous run of its own. It begins at the cursor unless the reader says otherwise, so a lost answer skips nothing.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use super::access::{Watch, rung};
use super::ack_token::Run;
use super::cursor::{self, Mark, Proof};
use super::fields::runs;
use super::intent::{Intent, Opened};
use super::read;
use super::shared::{Bounds, StreamShared};
use super::state::stream_not_found;
use super::{Action, Broker, Principal, Usage, fields};
use crate::types::reply::{Acked, GapReason, Lag, Pulled};
use crate::types::request::{AckLevel, AckRequest, OnGap, PullRequest, Start, SubscribeRequest};
use crate::types::{Error, Filter, Result, Slice, StreamName, SubscriptionName, TimeUs, limits};

/// A call uses its session until it ends, however it ends.
struct Use<'a> {
    mark: &'a Mark,
    began: Instant,
}

impl Drop for Use<'_> {
    fn drop(&mut self) {
        self.mark.used(self.began.elapsed());
    }
}

/// What one pull found.
struct Found {
    gap: Option<(u64, u64, GapReason)>,
    slices: Vec<Slice>,
    next: u64,
    bounds: Bounds,
}

impl Broker {
    /// Events of a subscription, waiting for at most `request.wait` when there is nothing to hand out. Cancelled, it has opened a session
    /// or not; the cursor is where it was.
    ///
    /// # Errors
    /// C-1 … C-8, `cursor_trimmed`, `not_found`, `bad_parameter`.
    pub async fn pull(&self, who: &Principal, request: PullRequest) -> Result<Pulled> {
        let mut watch = self.watch(who);
        self.may(who, &request.stream, Action::Read).await?;
        let (stream, subscription) = (request.stream.clone(), request.subscription.clone());
        let on_gap = request.on_gap.unwrap_or(OnGap::Fail);
        let (events, bytes, wait) = (request.max_events, request.max_bytes, request.wait.min(limits::LONG_POLL));
        // Before a session is opened: whoever is refused has taken nothing over.
        let _seat = if wait.is_zero() { None } else { who.usage().map(Usage::wait).transpose()? };
        let Opened { subscribed, shared, durable, clock } = self.pulling(who, request, on_gap).await?;
        let began = Instant::now();
        let session = durable.ok_or_else(|| Error::internal("a pull opened a session without a cursor"))?;
        // Held until the answer is there: a long poll does not outlive its session.
        let mark = session.attachment.mark();
        mark.pulled.store(true, Ordering::Release);
        self.inner.registry.attached(subscribed.stream_id, session.subscription, mark);
        let _used = Use { mark, began: self.inner.began };
        let filter = fields::of_subscription(&session.filter)?;
        let most = (events.clamp(1, limits::READ_MAX_EVENTS as u64), bytes.clamp(1, limits::READ_MAX_BYTES as u64), session.window.events);
        let found = self.wait_for_run((who, &mut watch), &stream, &shared, mark, subscribed.next, on_gap, filter.as_deref(), most, began + wait).await?;
        let ack_token = (found.next > subscribed.next).then(|| {
            let lives = began.elapsed() + Duration::from_secs(session.ack_timeout_s);
            let expires = TimeUs(clock.0.saturating_add(lives.as_micros() as i64));
            let run = Run { epoch: mark.epoch, from: subscribed.next, to: found.next, log_epoch: subscribed.log_epoch, expires };
            self.inner.ack_tokens.write(&stream, &subscription, &run)
        });
        // Read ahead, for its age and bytes only: events that were trimmed meanwhile cost the reader nothing it was promised.
        let behind = Lag { events: found.bounds.next_offset.saturating_sub(found.next), ..Lag::default() };
        let lag = self.lag_from(shared.id, &found.bounds, found.next).await.unwrap_or(behind);
        Ok(Pulled {
            stream_id: subscribed.stream_id,
            epoch: mark.epoch,
            log_epoch: subscribed.log_epoch,
            ack_token,
            gap: found.gap,
            slices: found.slices,
            next: found.next,
            lag,
        })
    }

    /// The session of a pull: a new one, or a further call of an old one.
    async fn pulling(&self, who: &Principal, request: PullRequest, on_gap: OnGap) -> Result<Opened> {
        let PullRequest { stream, subscription, epoch, from, takeover, log_epoch, .. } = request;
        let Some(epoch) = epoch else {
            let ask = SubscribeRequest {
                stream,
                subscription: Some(subscription),
                create: false,
                stream_id: None,
                rewind: false,
                from,
                filter: None,
                credit: None,
                takeover,
                on_gap: Some(on_gap),
                log_epoch,
            };
            let (intent, _) = self.open_intent(who, ask).await?;
            return self.ask(0, intent).await;
        };
        if log_epoch.is_some() {
            return Err(Error::bad("log_epoch", "log_epoch is checked when a session opens; a pull with an epoch goes on with one. Leave it out."));
        }
        let from = match from {
            None => None,
            Some(Start::Offset(offset)) => Some(offset),
            Some(_) => return Err(Error::bad("from", "A pull with an epoch goes on at an offset; leave from out to go on at the cursor.")),
        };
        self.ask(0, |reply| Intent::Continue { stream, subscription, epoch, from, on_gap, reply }).await
    }

    /// `most` = events, bytes, and how many events may be delivered and not acknowledged.
    #[expect(clippy::too_many_arguments, reason = "all of them are what one pull is about, and it is called once")]
    async fn wait_for_run(
        &self,
        (who, watch): (&Principal, &mut Option<Box<Watch>>),
        stream: &StreamName,
        shared: &StreamShared,
        mark: &Mark,
        from: u64,
        on_gap: OnGap,
        filter: Option<&Filter>,
        (events, bytes, window): (u64, u64, u64),
        deadline: Instant,
    ) -> Result<Found> {
        let (mut next, mut gap) = (from, None);
        loop {
            // Bells first, then the state, then the wait: nothing that rings in between is missed.
            let steered = mark.wake.notified();
            tokio::pin!(steered);
            steered.as_mut().enable();
            let changed = shared.changed();
            if let Some(why) = mark.ended() {
                return Err(why);
            }
            if watch.as_deref_mut().is_some_and(Watch::take) {
                self.may(who, stream, Action::Read).await?;
            }
            let bounds = shared.bounds().filter(|bounds| !bounds.gone).ok_or_else(|| stream_not_found(stream))?;
            if next < bounds.first_offset {
                if on_gap == OnGap::Fail {
                    return Err(cursor::trimmed(next, bounds.first_offset));
                }
                gap = Some((from, bounds.first_offset - 1, GapReason::Retention));
                next = bounds.first_offset;
                mark.delivered_to(next);
            }
            let unacknowledged = next.saturating_sub(mark.acked.load(Ordering::Acquire));
            // What a filter has passed over is not on its way to anybody; a pull of a filtered subscription has the window for itself.
            let room = if filter.is_some() { events.min(window) } else { events.min(window.saturating_sub(unacknowledged)) };
            if room > 0 && next < bounds.next_offset {
                let until = if filter.is_some() { bounds.next_offset } else { bounds.next_offset.min(next.saturating_add(room)) };
                let run = self.run(shared, next, until, bytes as usize, &bounds).await?;
                let Some(looked) = run.last().map(Slice::to) else { continue }; // trimmed meanwhile: the bounds say so now
                let (slices, end) = wanted(run, filter, looked, room, bytes);
                mark.delivered_to(end);
                if slices.is_empty() && mark.ended().is_none() {
                    next = end;
                    tokio::task::yield_now().await;
                    continue;
                }
                // Whoever was fenced while it read must not work on what it got.
                return mark.ended().map_or(Ok(Found { gap, slices, next: end, bounds }), Err);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || gap.is_some() || self.is_draining() {
                return Ok(Found { gap, slices: Vec::new(), next, bounds });
            }
            let rung = async {
                tokio::select! { () = steered => {}, () = changed => {}, () = rung(watch) => {} }
            };
            drop(tokio::time::timeout(left, self.or_draining(rung)).await);
        }
    }

    /// C-7 … C-13, C-16, by epoch: over any carrier, whether or not it delivered.
    ///
    /// # Errors
    /// Those of the table; `not_found`.
    pub async fn ack(&self, who: &Principal, request: AckRequest) -> Result<Acked> {
        self.may(who, &request.stream, Action::Read).await?;
        let level = request.level;
        self.ask(0, |reply| Intent::Ack { request, proof: None, level, reply }).await
    }

    /// C-18: an ack by the token of a pull, for its last event unless `offset` names an earlier one.
    ///
    /// # Errors
    /// `bad_ack_token`, `bad_parameter` for an offset outside of the pull, then those of the table.
    pub async fn ack_by_token(
        &self,
        who: &Principal,
        stream: &StreamName,
        subscription: &SubscriptionName,
        token: &str,
        offset: Option<u64>,
        level: AckLevel,
    ) -> Result<Acked> {
        self.may(who, stream, Action::Read).await?;
        let Run { epoch, from, to, log_epoch, expires } = self.inner.ack_tokens.read(stream, subscription, token)?;
        let offset = offset.unwrap_or(to - 1);
        if !(from..to).contains(&offset) {
            let why = format!("The ack_token is for offsets {from} to {}, not for {offset}.", to - 1);
            return Err(Error::bad("offset", why).rule("C-18").detail("from", from).detail("to", to - 1));
        }
        let request = AckRequest { stream: stream.clone(), subscription: subscription.clone(), epoch, offset, level };
        let proof = Some(Proof { to, log_epoch, expires });
        self.ask(0, |reply| Intent::Ack { request, proof, level, reply }).await
    }
}

/// What a pull brings of a run that ends at `looked`, and up to where it is done: without a filter the front of the run.
fn wanted(run: Vec<Slice>, filter: Option<&Filter>, looked: u64, events: u64, bytes: u64) -> (Vec<Slice>, u64) {
    let Some(filter) = filter else {
        let slices = read::cut(run, events, bytes);
        let end = slices.last().map_or(looked, Slice::to);
        return (slices, end);
    };
    let matching: Vec<Slice> = run.iter().flat_map(|slice| runs(slice, filter)).collect();
    let last = matching.last().map(Slice::to);
    let slices = read::cut(matching, events, bytes);
    match slices.last().map(Slice::to) {
        // Something that is wanted was left for the next pull.
        end @ Some(_) if end != last => (slices, end.unwrap_or(looked)),
        _ => (slices, looked),
    }
}
