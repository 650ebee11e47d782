//! Who reads: K-1 readers (position and effect together, in memory), plain readers that go by their cursor, and one K-3 reader that commits
//! the image of each event into a second stream. Each of them leaves without a word now and then, or is replaced while it lives.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::task::JoinSet;

use super::dice::Dice;
use super::history::{chain, hash};
use super::round::Round;
use crate::client::{Consumer, Delivery, Error, Event, IntoEvents, NewEvent};
use crate::types::request::{CommitAck, CommitAppend, CommitRequest};
use crate::types::{Code, StreamName, SubscriptionName};

/// What a reader did, all told.
pub struct Effects {
    pub name: String,
    /// One past the last event whose effect happened.
    pub next: u64,
    /// Stands for the effects in their order.
    pub chain: u64,
    pub effects: u64,
    pub twice: u64,
    /// Its cursor must be at the end as well.
    pub cursor_counts: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Recipe {
    /// Opens at its own position: no effect is repeated.
    Exact,
    /// Opens at its cursor: what it had not acked comes again, and is told apart by the offset.
    Plain,
}

/// Starts all of them.
pub fn spawn(round: &Arc<Round>) -> JoinSet<Effects> {
    let mut tasks = JoinSet::new();
    for number in 0..round.plan.subscribers {
        let (recipe, kind) = if number % 2 == 0 { (Recipe::Exact, "exact") } else { (Recipe::Plain, "plain") };
        let name = format!("{kind}-{number}");
        let dice = Dice::of(round.seed, &name);
        tasks.spawn(Reader::new(round.clone(), name, recipe, dice).run());
    }
    tasks.spawn(commit(round.clone(), Dice::of(round.seed, "k3")));
    tasks
}

struct Reader {
    round: Arc<Round>,
    recipe: Recipe,
    dice: Dice,
    log_epoch: Option<u64>,
    effects: Effects,
    /// Confirmed: the cursor is at the end.
    acked: u64,
    moved: Instant,
}

/// Why a session ended.
enum End {
    /// Everything is read and acked.
    Over,
    /// Open another one.
    Again,
    /// It cannot go on; why is noted.
    Lost,
}

impl Reader {
    fn new(round: Arc<Round>, name: String, recipe: Recipe, dice: Dice) -> Self {
        let effects = Effects { name, next: 0, chain: 0, effects: 0, twice: 0, cursor_counts: true };
        Self { round, recipe, dice, log_epoch: None, effects, acked: 0, moved: Instant::now() }
    }

    async fn run(mut self) -> Effects {
        let mut consumer = None;
        while !self.is_stuck() {
            let attached = match consumer.take() {
                Some(consumer) => consumer,
                None => match self.open().await {
                    Some(consumer) => consumer,
                    None => break,
                },
            };
            match self.session(attached, &mut consumer).await {
                End::Again => {}
                End::Over | End::Lost => break,
            }
        }
        self.effects
    }

    /// Nothing comes any more, although the broker is there. Only asked when everything has been written: before, there may be nothing to come.
    fn is_stuck(&mut self) -> bool {
        if !self.round.stopping() || !self.round.health.is_up() {
            self.moved = Instant::now();
        }
        let stuck = self.moved.elapsed() > self.round.patience();
        if stuck {
            let what = format!("nothing came to {} for {} s", self.effects.name, self.moved.elapsed().as_secs());
            self.round.history.lock().finding("I-12", Some(self.effects.next), what);
        }
        stuck
    }

    /// A new session, where it must begin.
    async fn open(&mut self) -> Option<Consumer> {
        let (round, name) = (self.round.clone(), self.effects.name.clone());
        let at = match (self.recipe, self.log_epoch) {
            (Recipe::Exact, Some(log_epoch)) => Some((self.effects.next, log_epoch)),
            _ => None,
        };
        let consumer = round
            .until(&name, || async {
                let builder = round.client.consumer(&round.input).subscription(&name).create();
                match at {
                    Some((next, log_epoch)) => builder.start_at(next, log_epoch).open().await,
                    None => builder.open().await,
                }
            })
            .await?;
        let subscribed = consumer.subscribed();
        self.log_epoch = Some(subscribed.log_epoch);
        let mut history = round.history.lock();
        history.session(&name, subscribed.epoch.unwrap_or(0), subscribed.next, at.map(|(next, _)| next));
        if subscribed.next > self.effects.next {
            let what = format!("{name} had got as far as {}, and its session begins at {}", self.effects.next, subscribed.next);
            history.finding("I-11", Some(subscribed.next), what);
        }
        Some(consumer)
    }

    async fn session(&mut self, mut consumer: Consumer, successor: &mut Option<Consumer>) -> End {
        let round = self.round.clone();
        let mut due = consumer.subscribed().next;
        let mut until_ack = self.dice.between(1, 100);
        let mut until_end = self.dice.between(200, 4000);
        loop {
            if round.is_over(self.effects.next) && round.is_over(due) {
                return self.leave(consumer, due).await;
            }
            let next = match tokio::time::timeout(Duration::from_millis(100), consumer.next()).await {
                Ok(next) => next,
                Err(_) if round.health.is_given_up() => return End::Lost,
                Err(_) if self.is_stuck() => return End::Lost,
                Err(_) => continue,
            };
            self.known_epoch(&consumer);
            match next {
                None => return End::Again,
                Some(Ok(Delivery::Live { .. })) => continue,
                Some(Ok(Delivery::Gap { from, to, .. })) => {
                    round.history.lock().finding(
                        "I-12",
                        Some(from),
                        format!("{} was told of a gap {from} to {to}, and nothing was trimmed", self.effects.name),
                    );
                    due = to + 1;
                }
                Some(Ok(Delivery::Event(event))) => {
                    self.event(&event, due);
                    due = event.offset + 1;
                }
                Some(Err(error)) => return self.ended(&error).await,
            }
            until_ack -= 1;
            until_end -= 1;
            if until_ack == 0 {
                until_ack = self.dice.between(1, 100);
                self.ack(&consumer, due).await;
            }
            if until_end == 0 {
                if self.dice.one_in(2) {
                    // Without a word, like a process that died.
                    return End::Again;
                }
                *successor = self.replace(&consumer).await;
                return if successor.is_some() { End::Again } else { End::Lost };
            }
        }
    }

    async fn ended(&self, error: &Error) -> End {
        tokio::time::sleep(Duration::from_millis(10)).await;
        if error.is_retryable() || matches!(error.code(), Some(Code::SessionFenced)) {
            return End::Again;
        }
        self.round.surprise(&self.effects.name, error);
        // What the client cannot accept it cannot read past.
        if matches!(error, Error::Protocol(_)) { End::Again } else { End::Lost }
    }

    fn known_epoch(&self, consumer: &Consumer) {
        if let Some(epoch) = consumer.epoch() {
            self.round.history.lock().epoch(&self.effects.name, epoch);
        }
    }

    fn event(&mut self, event: &Event, due: u64) {
        let found = hash(&event.data);
        let mut history = self.round.history.lock();
        history.saw(&self.effects.name, event.offset, found);
        if event.offset != due {
            history.finding("I-11", Some(event.offset), format!("{} got event {} where {due} was due", self.effects.name, event.offset));
        }
        self.moved = Instant::now();
        let effects = &mut self.effects;
        if event.offset < effects.next {
            // K-1 opens at its position, so a repetition would be an effect that happens twice.
            match self.recipe {
                Recipe::Exact => {
                    effects.twice += 1;
                    history.finding("I-16", Some(event.offset), format!("the effect of an event happened to {} a second time", effects.name));
                }
                Recipe::Plain => history.counts.duplicates += 1,
            }
            return;
        }
        if event.offset > effects.next {
            history.finding(
                "I-12",
                Some(effects.next),
                format!("{} got event {} and never {} to {}", effects.name, event.offset, effects.next, event.offset - 1),
            );
        }
        effects.chain = chain(effects.chain, event.offset, found);
        effects.next = event.offset + 1;
        effects.effects += 1;
    }

    /// Acks everything before `due`, and waits a little for the confirmation.
    async fn ack(&mut self, consumer: &Consumer, due: u64) {
        let Some(last) = due.checked_sub(1) else { return };
        if let Ok(Ok(next)) = tokio::time::timeout(Duration::from_secs(5), consumer.ack(last).confirmed()).await {
            self.round.history.lock().acked(&self.effects.name, next.min(due));
            self.acked = self.acked.max(next);
        }
    }

    /// The last ack, until it is confirmed.
    async fn leave(&mut self, consumer: Consumer, due: u64) -> End {
        self.ack(&consumer, due).await;
        if self.acked < due {
            return if self.round.health.is_given_up() || self.is_stuck() { End::Lost } else { End::Again };
        }
        consumer.close().await;
        End::Over
    }

    /// A second session while the first one lives: from then on the first has no say (C-7).
    async fn replace(&mut self, old: &Consumer) -> Option<Consumer> {
        let (epoch, delivered) = (old.epoch().unwrap_or(0), old.position());
        let new = self.open().await?;
        self.round.history.lock().counts.takeovers += 1;
        if delivered == 0 {
            return Some(new);
        }
        let path = self.round.path(&format!("subscriptions/{}/ack", self.effects.name));
        match self.round.post(&path, json!({"epoch": epoch, "offset": delivered - 1})).await {
            Ok(_) => {
                let what = format!("an ack of {} by epoch {epoch} was accepted after epoch {:?} was opened", self.effects.name, new.subscribed().epoch);
                self.round.history.lock().finding("I-15", Some(delivered - 1), what);
            }
            Err(error) => self.round.history.lock().counts.stale_refused += u64::from(error.code().is_some()),
        }
        Some(new)
    }
}

/// K-3: ack and image in one commit.
async fn commit(round: Arc<Round>, mut dice: Dice) -> Effects {
    let name = "k3";
    let mut effects = Effects { name: name.into(), next: 0, chain: 0, effects: 0, twice: 0, cursor_counts: true };
    let (Ok(from), Ok(to), Ok(subscription)) = (StreamName::parse(&round.input), StreamName::parse(&round.output), SubscriptionName::parse(name)) else {
        return effects;
    };
    let Some(mut committer) = round.until(name, || async { round.client.committer(&round.committer).await }).await else { return effects };
    let mut moved = Instant::now();
    'attached: loop {
        if moved.elapsed() > round.patience() + Duration::from_secs(1) && round.stopping() && round.health.is_up() {
            round.history.lock().finding("I-12", Some(effects.next), format!("{name} gets nowhere"));
            return effects;
        }
        let opened = round.until(name, || async { round.client.consumer(&round.input).subscription(name).create().open().await }).await;
        let Some(mut consumer) = opened else { return effects };
        let mut due = consumer.subscribed().next;
        round.history.lock().session(name, consumer.subscribed().epoch.unwrap_or(0), due, None);
        if due < effects.next {
            let what = format!("commits up to {} were answered, and the cursor is at {due}", effects.next);
            round.history.lock().finding("I-10", Some(due), what);
        }
        loop {
            if round.is_over(due) {
                consumer.close().await;
                effects.next = due;
                // What became of the effects is seen in the output, which is read back.
                effects.chain = image(&round, due);
                return effects;
            }
            if !round.stopping() || !round.health.is_up() {
                moved = Instant::now();
            }
            if round.health.is_given_up() || moved.elapsed() > round.patience() {
                round.history.lock().finding("I-12", Some(due), format!("{name} got nothing for {} s", moved.elapsed().as_secs()));
                return effects;
            }
            let batch = match take(&mut consumer, dice.between(1, 200)).await {
                Ok(batch) => batch,
                Err(error) if error.is_retryable() || error.code() == Some(Code::SessionFenced) => continue 'attached,
                Err(error @ Error::Protocol(_)) => {
                    round.surprise(name, &error);
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    continue 'attached;
                }
                Err(error) => {
                    round.surprise(name, &error);
                    return effects;
                }
            };
            round.history.lock().epoch(name, consumer.epoch().unwrap_or(0));
            let Some(last) = batch.last().map(|event| event.offset) else { continue };
            for event in &batch {
                let mut history = round.history.lock();
                history.saw(name, event.offset, hash(&event.data));
                if event.offset != due {
                    history.finding("I-11", Some(event.offset), format!("{name} got event {} where {due} was due", event.offset));
                }
                due = event.offset + 1;
            }
            moved = Instant::now();
            let outputs: Vec<NewEvent> =
                batch.iter().map(|event| NewEvent { data: event.data.clone(), encoding: event.encoding, ..NewEvent::default() }).collect();
            let Ok(events) = outputs.into_events() else { return effects };
            let request = CommitRequest {
                acks: vec![CommitAck { stream: from.clone(), subscription: subscription.clone(), epoch: consumer.epoch().unwrap_or(0), offset: last }],
                appends: vec![CommitAppend { stream: to.clone(), stream_id: None, events, expected_next_offset: None }],
                ..CommitRequest::default()
            };
            match committer.commit(request).await {
                Ok(_) => {
                    consumer.committed(last);
                    effects.next = due;
                    effects.effects += batch.len() as u64;
                    let mut history = round.history.lock();
                    history.counts.commits += 1;
                    history.acked(name, due);
                }
                Err(error) if about_the_session(&error) => continue 'attached,
                Err(error) => {
                    round.surprise(name, &error);
                    return effects;
                }
            }
            if dice.one_in(60) {
                continue 'attached;
            }
        }
    }
}

/// The chain of what was heard up to `end`: what the effects of a reader that heard it all amount to.
fn image(round: &Round, end: u64) -> u64 {
    let history = round.history.lock();
    (0..end).zip(&history.values).fold(0, |before, (offset, hash)| chain(before, offset, *hash))
}

/// The session this batch was read in is over: nothing was written.
fn about_the_session(error: &Error) -> bool {
    let cause = error.server().and_then(|e| e.details.get("cause")?.get("code")?.as_str().and_then(Code::parse));
    matches!(cause, Some(Code::SessionFenced | Code::SessionUnknown | Code::AckNotDelivered | Code::AckStale))
}

/// What is at hand, nothing after a short while.
async fn take(consumer: &mut Consumer, most: u64) -> Result<Vec<Event>, Error> {
    let Ok(first) = tokio::time::timeout(Duration::from_millis(100), consumer.next()).await else { return Ok(Vec::new()) };
    let mut step = Some(first.ok_or(Error::lost("The reader has ended."))?);
    let mut events = Vec::new();
    while let Some(delivery) = step {
        if let Delivery::Event(event) = delivery? {
            events.push(event);
        }
        step = if (events.len() as u64) < most { consumer.try_next() } else { None };
    }
    Ok(events)
}
