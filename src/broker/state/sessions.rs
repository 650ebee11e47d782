//! Subscriptions: creating, deleting, seeking, opening sessions, acknowledging.

use std::sync::Arc;

use serde_json::json;

use super::{Effect, State, subscription_not_found};
use crate::broker::access::Bound;
use crate::broker::ack_token;
use crate::broker::audit::{Act, By};
use crate::broker::broken::Promise;
use crate::broker::cursor::{self, Attachment, Cursor, Mark, OpenAsk, Proof, StreamView};
use crate::broker::intent::{Author, Claim, DurableSession, Opened, SubscriptionFields};
use crate::log::Key;
use crate::log::rows::value;
use crate::types::limits;
use crate::types::reply::{Acked, Subscribed};
use crate::types::request::{AckLevel, AckRequest, Credit, OnGap, Start};
use crate::types::{Code, Error, StreamId, StreamName, SubscriptionId, SubscriptionName};

impl Default for SubscriptionFields {
    fn default() -> Self {
        Self {
            ack_timeout_s: limits::ACK_TIMEOUT_S,
            max_in_flight: limits::MAX_IN_FLIGHT_EVENTS,
            expires_s: limits::SUBSCRIPTION_EXPIRES_S,
            filter: String::new(),
        }
    }
}

impl State {
    fn view(&mut self, id: StreamId) -> StreamView {
        let log_epoch = self.counters.log_epoch;
        let bounds = self.stream(id).bounds;
        StreamView { first_offset: bounds.first_offset, next_offset: bounds.next_offset, log_epoch }
    }

    /// What its maker may do to a subscription, others need Admin on the stream for. Those from before there were users are the operator's.
    fn check_claim(&mut self, stream: StreamId, id: SubscriptionId, name: &SubscriptionName, claim: Claim) -> Result<(), Error> {
        let meta = &self.cursor(stream, id).meta;
        let own = (meta.owner_user, meta.owner_source) == (claim.author.user, claim.author.source);
        if own || claim.admin {
            return Ok(());
        }
        let why = format!("Subscription {name} was made by somebody else; moving or deleting it needs the right Admin on the stream.");
        Err(Error::new(Code::AccessDenied, why).detail("required", "Admin"))
    }

    /// A position as it was given.
    fn clamped(&self, from: Start, view: &StreamView) -> Start {
        match from {
            Start::Offset(offset) if self.options.broken.is(Promise::ClampPosition) => Start::Offset(offset.min(view.next_offset)),
            from => from,
        }
    }

    /// A cursor whose session is about to be replaced. Sealed first: what the group remembers, in case it is refused, then holds every ack
    /// of level `received` that was accepted (C-16).
    fn sealed_cursor(&mut self, stream: StreamId, id: SubscriptionId) -> &mut Cursor {
        if let Some(Some(cursor)) = self.cursors.get(&(stream, id)) {
            cursor.seal();
        }
        self.cursor(stream, id)
    }

    pub(super) fn create_subscription(
        &mut self,
        stream: &StreamName,
        name: &SubscriptionName,
        fields: &SubscriptionFields,
        start: Start,
        author: Author,
    ) -> Result<(), Error> {
        let stream_id = self.data_stream(stream, None)?;
        if self.find_cursor(stream_id, name).is_some() {
            return Err(Error::new(Code::NameTaken, format!("Stream {stream} has a subscription named {name}. Names that differ only in case collide."))
                .resource(format!("/v1/streams/{stream}/subscriptions/{name}")));
        }
        let view = self.view(stream_id);
        let next = cursor::resolve_start(self.clamped(start, &view), None, &view)?;
        self.new_subscription(stream_id, name, fields, next, author).map(drop)
    }

    fn new_subscription(
        &mut self,
        stream: StreamId,
        name: &SubscriptionName,
        fields: &SubscriptionFields,
        next: u64,
        author: Author,
    ) -> Result<SubscriptionId, Error> {
        self.count(author.user, Some(stream), Bound::Subscriptions)?;
        self.keep_system_stream(stream);
        let id = SubscriptionId(self.counters.next_subscription_id);
        self.counters.next_subscription_id += 1;
        self.group.counters = true;
        let meta = value::Subscription {
            name: name.as_str().to_owned(),
            created_us: self.now.wall_us,
            ack_timeout_s: fields.ack_timeout_s,
            max_in_flight: fields.max_in_flight,
            expires_s: fields.expires_s,
            owner_user: author.user,
            owner_source: author.source,
            filter: fields.filter.clone(),
        };
        let folded = name.folded().into_owned();
        self.put(Key::Subscription(stream, id), &meta);
        self.put_id(Key::SubscriptionName(stream, &folded), id.0);
        let floor = self.stream(stream).epoch_floor;
        self.sub_names.insert((stream, folded), Some(id));
        self.group.before.insert((stream, id), None);
        self.cursors.insert((stream, id), Some(Cursor::new(meta, next, floor, self.now.wall_us)));
        self.group.cursors.insert((stream, id));
        Ok(id)
    }

    pub(super) fn delete_subscription(&mut self, stream: &StreamName, name: &SubscriptionName, claim: Claim, by: &By) -> Result<(), Error> {
        let stream_id = self.data_stream(stream, None)?;
        let id = self.find_cursor(stream_id, name).ok_or_else(|| subscription_not_found(stream, name))?;
        self.check_claim(stream_id, id, name, claim)?;
        let cursor = self.cursor(stream_id, id);
        let (next, epoch, mark, maker) = (cursor.row.next, cursor.row.epoch, cursor.mark.take(), cursor.meta.owner_user);
        self.uncount(maker, Some(stream_id), Bound::Subscriptions)?;
        let folded = name.folded().into_owned();
        self.delete(Key::Cursor(stream_id, id));
        self.delete(Key::Subscription(stream_id, id));
        self.delete(Key::SubscriptionName(stream_id, &folded));
        self.group.cursors.remove(&(stream_id, id));
        self.dirty.remove(&(stream_id, id));
        self.cursors.insert((stream_id, id), None);
        self.sub_names.insert((stream_id, folded), None);
        let stream_state = self.stream(stream_id);
        stream_state.epoch_floor = stream_state.epoch_floor.max(epoch);
        self.group.bounds.insert(stream_id);
        if let Some(mark) = mark {
            self.group.effects.push(Effect::End(mark, subscription_not_found(stream, name)));
        }
        let context = json!({ "stream_id": stream_id.0, "subscription_id": id.0, "next": next, "epoch": epoch });
        self.audit(by, Act::on_subscription("subscription-deleted", stream, name, context));
        Ok(())
    }

    /// C-14: moves the cursor either way and fences the session.
    pub(super) fn seek(&mut self, stream: &StreamName, name: &SubscriptionName, to: Start, claim: Claim, by: &By) -> Result<(), Error> {
        let stream_id = self.data_stream(stream, None)?;
        let id = self.find_cursor(stream_id, name).ok_or_else(|| subscription_not_found(stream, name))?;
        self.check_claim(stream_id, id, name, claim)?;
        let view = self.view(stream_id);
        let next = cursor::resolve_start(self.clamped(to, &view), None, &view)?;
        let cursor = self.sealed_cursor(stream_id, id);
        let from = cursor.row.next;
        cursor.row.next = next;
        cursor.row.epoch += 1;
        let (epoch, mark) = (cursor.row.epoch, cursor.mark.take());
        self.group.cursors.insert((stream_id, id));
        self.note_epoch(epoch);
        if let Some(mark) = mark {
            let why = Error::new(Code::SessionFenced, format!("The cursor of subscription {name} was moved to {next}; open it again."));
            self.group.effects.push(Effect::End(mark, why.rule("C-14").detail("epoch", epoch)));
        }
        self.cursor_moved(by, (stream, stream_id), (name, id), (from, next), epoch);
        Ok(())
    }

    fn cursor_moved(&mut self, by: &By, stream: (&StreamName, StreamId), of: (&SubscriptionName, SubscriptionId), (old, new): (u64, u64), epoch: u64) {
        let context = json!({ "stream_id": stream.1.0, "subscription_id": of.1.0, "old": old, "new": new, "epoch": epoch });
        self.audit(by, Act::on_subscription("cursor-moved", stream.0, of.0, context));
    }

    #[expect(clippy::too_many_arguments, reason = "each is one thing of its own, and it is called once")]
    pub(super) fn open_session(
        &mut self,
        stream: &StreamName,
        stream_id: Option<StreamId>,
        subscription: Option<&SubscriptionName>,
        create: bool,
        filter: Option<&str>,
        ask: &OpenAsk,
        claim: Claim,
        by: Option<&By>,
    ) -> Result<Opened, Error> {
        // Whoever is refused for want of a subscription, or of room for one, leaves no stream behind.
        if subscription.is_some() && create && self.find(stream).is_none() {
            self.check_room(claim.author.user, Bound::Subscriptions, 1)?;
        }
        let id = match subscription {
            Some(_) if !create => self.data_stream(stream, stream_id)?,
            _ => self.data_stream_or_new(stream, stream_id, claim.author.user)?,
        };
        let view = self.view(id);
        let ask = &OpenAsk { from: ask.from.map(|from| self.clamped(from, &view)), ..*ask };
        let (next, durable) = match subscription {
            Some(name) => {
                let (next, durable) = self.open_durable(id, stream, name, create, filter, ask, &view, claim, by)?;
                (next, Some(durable))
            }
            None => {
                let next = cursor::resolve_start(ask.from.unwrap_or(Start::Latest), ask.log_epoch, &view)?;
                cursor::check_gap(next, ask.on_gap, &view)?;
                (next, None)
            }
        };
        Ok(self.opened(id, &view, next, durable))
    }

    fn opened(&mut self, id: StreamId, view: &StreamView, next: u64, durable: Option<DurableSession>) -> Opened {
        let name = self.stream(id).name.clone();
        // The session's view of the stream begins with this group's news.
        self.group.touched.insert(id);
        Opened {
            subscribed: Subscribed {
                stream: name,
                stream_id: id,
                epoch: durable.as_ref().map(|d| d.attachment.mark().epoch),
                next,
                first_offset: view.first_offset,
                next_offset: view.next_offset,
                log_epoch: view.log_epoch,
            },
            shared: self.registry.open(id),
            durable,
            clock: self.clock(),
        }
    }

    /// A further call of a session that exists: nothing changes but when it was last used.
    pub(super) fn continue_session(
        &mut self,
        stream: &StreamName,
        name: &SubscriptionName,
        epoch: u64,
        from: Option<u64>,
        on_gap: OnGap,
    ) -> Result<Opened, Error> {
        let stream_id = self.data_stream(stream, None)?;
        let id = self.find_cursor(stream_id, name).ok_or_else(|| subscription_not_found(stream, name))?;
        let view = self.view(stream_id);
        let now = self.now.mono;
        let cursor = self.cursor(stream_id, id);
        cursor.expire(now);
        let (next, mark) = cursor.check_continue(name, epoch, from)?;
        cursor::check_gap(next, on_gap, &view)?;
        mark.used(now);
        let durable = cursor_session(cursor, id, mark);
        Ok(self.opened(stream_id, &view, next, Some(durable)))
    }

    #[expect(clippy::too_many_arguments, reason = "each is one thing of its own, and it is called once")]
    fn open_durable(
        &mut self,
        stream_id: StreamId,
        stream: &StreamName,
        name: &SubscriptionName,
        create: bool,
        filter: Option<&str>,
        ask: &OpenAsk,
        view: &StreamView,
        claim: Claim,
        by: Option<&By>,
    ) -> Result<(u64, DurableSession), Error> {
        let (id, next) = match self.find_cursor(stream_id, name) {
            Some(id) => {
                if ask.rewind {
                    // Moving back is a seek (`decisions.md` section 2).
                    self.check_claim(stream_id, id, name, claim)?;
                }
                let now = self.now.mono;
                check_same_filter(name, &self.cursor(stream_id, id).meta, filter)?;
                let cursor = self.sealed_cursor(stream_id, id);
                cursor.expire(now);
                let checked = cursor.check_open(name, ask, view);
                if checked.is_err() {
                    cursor.unseal();
                }
                (id, checked?)
            }
            None if create => {
                let next = cursor::resolve_start(ask.from.unwrap_or(Start::Earliest), ask.log_epoch, view)?;
                cursor::check_gap(next, ask.on_gap, view)?;
                let fields = SubscriptionFields { filter: filter.unwrap_or_default().to_owned(), ..SubscriptionFields::default() };
                (self.new_subscription(stream_id, name, &fields, next, claim.author)?, next)
            }
            None => return Err(subscription_not_found(stream, name).detail("hint", "create the subscription first, or subscribe with create")),
        };
        let now = self.now.mono;
        let broken = self.options.broken;
        let cursor = self.cursor(stream_id, id);
        let before = cursor.row.next;
        cursor.row.epoch += u64::from(!broken.is(Promise::ReuseEpoch) || cursor.row.epoch == 0);
        cursor.row.next = next;
        let epoch = cursor.row.epoch;
        let mark = Mark::new(epoch, next, now);
        let old = cursor.mark.replace(mark.clone());
        let durable = cursor_session(cursor, id, mark);
        let name = durable.name.clone();
        self.group.cursors.insert((stream_id, id));
        self.note_epoch(epoch);
        if let Some(old) = old.filter(|_| !broken.is(Promise::StaleSession)) {
            self.group.effects.push(Effect::End(old, cursor::fenced(&name, epoch)));
        }
        if next < before
            && let Some(by) = by
        {
            self.cursor_moved(by, (stream, stream_id), (&name, id), (before, next), epoch);
        }
        Ok((next, durable))
    }

    /// An ack by epoch or, with `proof`, by token (C-18).
    pub(super) fn ack(&mut self, request: &AckRequest, proof: Option<Proof>, level: AckLevel) -> Result<Acked, Error> {
        if let Some(proof) = proof {
            if self.clock() >= proof.expires {
                return Err(ack_token::refused("has expired"));
            }
            let log_epoch = self.counters.log_epoch;
            if proof.log_epoch != log_epoch {
                let next_offset = self.data_stream(&request.stream, None).map(|id| self.view(id).next_offset)?;
                return Err(cursor::log_epoch_changed(proof.log_epoch, log_epoch, next_offset));
            }
        }
        let proved = proof.map(|proof| proof.to);
        let (stream_id, id, acked) = self.check_ack(&request.stream, &request.subscription, request.epoch, request.offset, proved)?;
        self.move_cursor(stream_id, id, acked.next, level);
        Ok(acked)
    }

    /// C-7 … C-13; also tells where the cursor is, for commits.
    pub(super) fn check_ack(
        &mut self,
        stream: &StreamName,
        name: &SubscriptionName,
        epoch: u64,
        offset: u64,
        proved: Option<u64>,
    ) -> Result<(StreamId, SubscriptionId, Acked), Error> {
        let stream_id = self.data_stream(stream, None)?;
        let id = self.find_cursor(stream_id, name).ok_or_else(|| subscription_not_found(stream, name))?;
        let end = self.view(stream_id).next_offset;
        let now = self.now.mono;
        let mut next = offset.checked_add(1).ok_or_else(|| Error::bad("offset", "The offset is too large."))?;
        let broken = self.options.broken;
        let cursor = self.cursor(stream_id, id);
        cursor.expire(now);
        let (mut epoch, mut proved) = (epoch, proved);
        if broken.is(Promise::ClampPosition) {
            (next, proved) = (next.min(end), Some(end));
        }
        if broken.is(Promise::StaleSession) && epoch < cursor.row.epoch {
            (epoch, proved) = (cursor.row.epoch, Some(end));
        }
        if let Some(mark) = cursor.mark.as_ref().filter(|mark| mark.epoch == epoch) {
            mark.used(now);
        }
        let acked = cursor.check_ack(name, epoch, next, end, proved)?;
        Ok((stream_id, id, acked))
    }

    /// C-11, C-16. Never moves back.
    pub(super) fn move_cursor(&mut self, stream: StreamId, id: SubscriptionId, next: u64, level: AckLevel) {
        let now = self.now.mono;
        let drop_ack = self.options.broken.is(Promise::DropAck);
        let cursor = self.cursor(stream, id);
        if next > cursor.row.next {
            cursor.row.next = next;
            let mark = cursor.mark.clone();
            match level {
                AckLevel::Durable if drop_ack => {}
                AckLevel::Durable => {
                    self.group.cursors.insert((stream, id));
                }
                AckLevel::Received => {
                    cursor.dirty = true;
                    self.dirty.insert((stream, id));
                    self.dirty_since.get_or_insert(now);
                }
            }
            if let Some(mark) = mark {
                self.group.effects.push(Effect::Acked(mark, next));
            }
        } else if level == AckLevel::Durable && cursor.dirty {
            // What is acknowledged as durable must be: an earlier `received` ack may have got here first.
            self.group.cursors.insert((stream, id));
        }
    }
}

/// The session of a cursor's `mark`, held for whoever the answer reaches.
fn cursor_session(cursor: &Cursor, id: SubscriptionId, mark: Arc<Mark>) -> DurableSession {
    DurableSession {
        attachment: Attachment::new(mark),
        subscription: id,
        name: SubscriptionName::stored(&cursor.meta.name),
        window: Credit { events: cursor.meta.max_in_flight, bytes: limits::MAX_IN_FLIGHT_BYTES },
        ack_timeout_s: cursor.meta.ack_timeout_s,
        filter: cursor.meta.filter.clone(),
    }
}

/// A reader that names a filter must mean the subscription's: acks by another one would pass over events that were never shown.
fn check_same_filter(name: &SubscriptionName, meta: &value::Subscription, asked: Option<&str>) -> Result<(), Error> {
    match asked {
        Some(asked) if asked != meta.filter => {
            let why = format!("Subscription {name} has another filter; leave filter out, or create a subscription with this one.");
            Err(Error::bad("filter", why).detail("filter", meta.filter.clone()))
        }
        _ => Ok(()),
    }
}
