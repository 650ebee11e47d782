//! The audit: who changed what, and from where, as events of the stream `$audit` (`limits.md`).
//!
//! An event is appended in the commit of the act it tells of (`decisions.md` section 5), so a crash keeps both or neither. Its data is JSON
//! made by a serializer, in the form of lifecycle events (`surfaces.md` 5.8), so nothing that somebody sends can look like a second event or
//! another field. It never holds a secret: of keys only the public part, of passwords only that there is a new one.
//!
//! Where a call comes from is no part of any rule, so it does not travel with the principal through all of them: an edge says it once,
//! around the call ([`calling_from`]), and it is looked at where something is audited.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::oneshot;
use tracing::warn;

use super::access::Principal;
use super::intent::{Author, Intent};
use super::state::OPERATOR_NAME;
use super::{Broker, MIN_REQUEST_BYTES};
use crate::log::rows::value;
use crate::types::id::OPERATOR_USER;
use crate::types::name::AUDIT;
use crate::types::{Encoding, EventRef, Events, EventsBuilder, Result, StreamName, SubscriptionName, limits};

/// Where a call came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Whence {
    /// The caller's address; `None` = the Unix socket.
    pub address: Option<SocketAddr>,
    /// Id of the request, or of the one that opened the connection.
    pub request: Arc<str>,
}

tokio::task_local! {
    static ORIGIN: Option<Whence>;
}

/// Makes a call of which the audit says that it came from `origin`. Cancel-safe as `call` is.
pub fn calling_from<F: Future>(origin: Whence, call: F) -> impl Future<Output = F::Output> {
    ORIGIN.scope(Some(origin), call)
}

/// What becomes a task of its own, but goes on with the call in which it begins: a connection. Cancel-safe as `call` is.
pub fn calling_on<F: Future>(call: F) -> impl Future<Output = F::Output> {
    ORIGIN.scope(origin(), call)
}

fn origin() -> Option<Whence> {
    ORIGIN.try_with(Clone::clone).ok().flatten()
}

/// Who does something, for the audit.
#[derive(Clone, Debug)]
pub struct By {
    kind: &'static str,
    /// User id, 0 = nobody: the broker itself, or a credential that was refused.
    user: u64,
    name: Option<String>,
    source: u64,
    key: Option<String>,
    origin: Option<Whence>,
}

impl By {
    /// The broker itself.
    pub fn broker() -> Box<Self> {
        Box::new(Self { kind: "broker", user: 0, name: None, source: 0, key: None, origin: None })
    }

    /// Somebody who shows a name and a password; `known`: the user that it names.
    pub fn password(known: Option<(u64, &str)>) -> Box<Self> {
        Self::unproved("password", known, None)
    }

    /// Somebody who shows a credential that is refused; `key` is its public part.
    fn unproved(kind: &'static str, known: Option<(u64, &str)>, key: Option<String>) -> Box<Self> {
        let (user, name) = known.map_or((0, None), |(id, name)| (id, Some(name.to_owned())));
        Box::new(Self { kind, user, name, source: 0, key, origin: origin() })
    }

    /// Who stands in `author` of the event.
    pub fn author(&self) -> Author {
        Author { user: self.user, source: self.source }
    }

    fn requestor(&self) -> Value {
        let some = |id: u64| Some(id).filter(|id| *id != 0);
        let address = self.origin.as_ref().map(|origin| origin.address.map_or_else(|| "unix".to_owned(), |address| address.to_string()));
        json!({
            "kind": self.kind, "user_id": some(self.user), "user": self.name, "source_id": some(self.source), "key": self.key, "address": address,
        })
    }
}

/// What is done, for the audit.
#[derive(Clone, Debug)]
pub struct Act {
    action: &'static str,
    source: String,
    context: Value,
}

impl Act {
    /// `action` is `<object>-<past verb>`, `source` the address of what it is done to (empty: of nothing that has one), `context` the rest.
    pub fn new(action: &'static str, source: impl Into<String>, context: Value) -> Self {
        Self { action, source: source.into(), context }
    }

    /// Something done to a stream.
    pub fn on_stream(action: &'static str, stream: &StreamName, context: Value) -> Self {
        Self::new(action, format!("/v1/streams/{stream}"), context)
    }

    /// Something done to a subscription.
    pub fn on_subscription(action: &'static str, stream: &StreamName, subscription: &SubscriptionName, context: Value) -> Self {
        Self::new(action, format!("/v1/streams/{stream}/subscriptions/{subscription}"), context)
    }

    /// The event, and its data again as a line for the log.
    ///
    /// # Errors
    /// `too_large` when the context is larger than an event may be.
    pub fn told(&self, by: &By) -> Result<(Events, String)> {
        let data = visible(&json!({
            "action": self.action, "source": Some(&self.source).filter(|source| !source.is_empty()), "requestor": by.requestor(),
            "context": self.context, "request_id": by.origin.as_ref().map(|origin| &*origin.request),
        }));
        let mut events = EventsBuilder::with_capacity(data.len() + 256);
        let event = EventRef { data: data.as_bytes(), encoding: Encoding::Json, kind: self.action, key: &self.source, ..EventRef::default() };
        events.push(&event)?;
        Ok((events.finish()?, data))
    }
}

/// JSON whose text holds nothing that a terminal obeys or a reader does not see. Such characters stand in strings only, and are escaped there.
fn visible(value: &Value) -> String {
    let unseen = |c: char| c.is_control() || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
    let text = value.to_string();
    if !text.contains(unseen) {
        return text;
    }
    text.chars().fold(String::with_capacity(text.len() + 16), |mut out, c| {
        if unseen(c) {
            out.push_str(&format!("\\u{:04x}", u32::from(c)))
        } else {
            out.push(c)
        }
        out
    })
}

/// The row of `$audit` before anything was written to it.
pub fn stream_row() -> value::Stream {
    value::Stream {
        name: AUDIT.to_owned(),
        // Ours alone, and the same at every broker, as the name is.
        uuid: "5449444c-4f47-8000-8000-000000617564".to_owned(),
        owner: OPERATOR_USER,
        description: "Who changed what, and from where.".to_owned(),
        ..Default::default()
    }
}

/// The share of refused credentials that `$audit` tells of one by one.
#[derive(Debug, Default)]
pub struct Refusals {
    /// When the minute began, on the monotonic clock.
    since: Duration,
    told: u32,
    left_out: u64,
}

const MINUTE: Duration = Duration::from_secs(60);

impl Refusals {
    /// One more. Is it told of, and how many were left out of a minute that is over by now?
    fn note(&mut self, now: Duration) -> (bool, Option<u64>) {
        let over = self.over(now);
        if self.is_over(now) {
            *self = Self { since: now, ..Self::default() };
        }
        let tell = self.told < limits::AUDITED_REFUSALS_PER_MINUTE;
        self.told += u32::from(tell);
        (tell, over)
    }

    fn is_over(&self, now: Duration) -> bool {
        now.saturating_sub(self.since) >= MINUTE
    }

    /// How many were left out of a minute that is over.
    fn over(&mut self, now: Duration) -> Option<u64> {
        if self.is_over(now) { self.take() } else { None }
    }

    fn take(&mut self) -> Option<u64> {
        Some(std::mem::take(&mut self.left_out)).filter(|left_out| *left_out > 0)
    }
}

impl Broker {
    /// Tells `$audit` of something the broker does by itself or is told outside of its calls: a reload of its configuration. Resolves when it
    /// is durable. `action` is `<object>-<past verb>`, `context` holds no secret.
    ///
    /// # Errors
    /// `too_large`, `overloaded`, or what the store says. Cancelled, it is told of or not.
    pub async fn audit(&self, action: &'static str, context: Value) -> Result<()> {
        let (by, act) = (By::broker(), Act::new(action, "", context));
        act.told(&by)?;
        self.ask(0, |reply| Intent::Audit { by, act: Box::new(act), if_room: false, reply }).await
    }

    /// Who `who` is, for the audit, and where the call comes from.
    pub(super) async fn by(&self, who: &Principal) -> Box<By> {
        let name = match who {
            Principal::Operator => Some(OPERATOR_NAME.to_owned()),
            Principal::Anonymous => None,
            // The id says who it is, should the name not be found.
            Principal::Known(identity) => self.user_by_id(identity.user()).await.ok().flatten().map(|user| user.name.to_string()),
        };
        let key = match who {
            Principal::Known(identity) => identity.public_key(),
            Principal::Operator | Principal::Anonymous => None,
        };
        Box::new(By { kind: who.kind().as_str(), user: who.user_id(), name, source: who.source_id(), key, origin: origin() })
    }

    /// A name and password were refused. What was given as a name is told only where a user has it: people type passwords there.
    pub(super) fn login_failed(&self, known: Option<(u64, &str)>) {
        self.refused(By::password(known), Act::new("login-failed", "/v1/sessions", json!({})));
    }

    /// A key, token or certificate was refused. `key` is the public part of what was shown, which finds it and proves nothing.
    pub(super) fn credential_refused(&self, kind: &'static str, key: Option<String>) {
        self.refused(By::unproved(kind, None, key), Act::new("credential-refused", "", json!({})));
    }

    /// Nobody waits for it: whoever guesses hears the same whether or not it is told of.
    fn refused(&self, by: Box<By>, act: Act) {
        let now = self.inner.world.since(self.inner.began);
        let (tell, over) = self.inner.refusals.lock().note(now);
        if let Some(left_out) = over {
            self.tell_left_out(left_out);
        }
        if tell && self.tell(by, act) {
            return;
        }
        let left_out = {
            let mut refusals = self.inner.refusals.lock();
            refusals.left_out += 1;
            refusals.left_out
        };
        // The first that is left out sees to it that their number is told, also when nothing more comes.
        if left_out == 1 {
            let broker = Arc::downgrade(&self.inner);
            tokio::spawn(async move {
                tokio::time::sleep(MINUTE).await;
                if let Some(inner) = broker.upgrade() {
                    Self { inner }.tell_refusals(false);
                }
            });
        }
    }

    /// Tells how many refusals were left out of the minute that is over, or (`at_once`) of this one.
    pub(super) fn tell_refusals(&self, at_once: bool) {
        let now = self.inner.world.since(self.inner.began);
        let left_out = {
            let mut refusals = self.inner.refusals.lock();
            if at_once { refusals.take() } else { refusals.over(now) }
        };
        if let Some(left_out) = left_out {
            self.tell_left_out(left_out);
        }
    }

    fn tell_left_out(&self, left_out: u64) {
        let act = Act::new("refusals-omitted", "", json!({ "count": left_out, "per_minute": limits::AUDITED_REFUSALS_PER_MINUTE }));
        if !self.tell(By::broker(), act) {
            warn!(left_out, "refused credentials that were left out of the audit could not be told of either");
        }
    }

    /// Puts an event in the commit order without waiting. False: there is no room.
    fn tell(&self, by: Box<By>, act: Act) -> bool {
        let Ok(permit) = self.inner.room.clone().try_acquire_many_owned(MIN_REQUEST_BYTES as u32) else { return false };
        let (reply, _) = oneshot::channel();
        self.submit(Intent::Audit { by, act: Box::new(act), if_room: true, reply }, Some(permit), false);
        true
    }

    /// At the start: tells of a log epoch that was raised at a recovery, or at one before that ended before it was told.
    pub(super) async fn tell_log_epoch(&self) {
        if let Err(error) = self.ask(0, |reply| Intent::AuditLogEpoch { reply }).await {
            warn!(%error, "the raised log epoch could not be told to the audit; trying again at the next start");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by() -> Box<By> {
        let origin = Some(Whence { address: Some("192.0.2.1:5000".parse().unwrap()), request: "r-1".into() });
        Box::new(By { kind: "console", user: 2, name: Some("alice".into()), source: 0, key: Some("tlc_abc".into()), origin })
    }

    #[test]
    fn an_event_says_who_from_where_and_what() {
        let act = Act::new("right-set", "/v1/streams/s/rights/user:bob", json!({ "old": "None", "new": "ReadOnly" }));
        let (events, line) = act.told(&by()).unwrap();
        let event = events.iter().next().unwrap();
        assert_eq!((event.kind, event.key, event.encoding, event.data), ("right-set", "/v1/streams/s/rights/user:bob", Encoding::Json, line.as_bytes()));
        let expected = json!({
            "action": "right-set", "source": "/v1/streams/s/rights/user:bob", "context": {"old": "None", "new": "ReadOnly"}, "request_id": "r-1",
            "requestor": {"kind": "console", "user_id": 2, "user": "alice", "source_id": null, "key": "tlc_abc", "address": "192.0.2.1:5000"},
        });
        assert_eq!(serde_json::from_str::<Value>(&line).unwrap(), expected);
        assert_eq!(by().author(), Author { user: 2, source: 0 });
    }

    #[test]
    fn no_text_can_look_like_a_second_event_or_another_field() {
        let text = "x\"},\"requestor\":{\"user\":\"root\"}}\r\n{\"action\":\"\u{1b}[2J\u{9b}\u{202e}\u{2028}\u{feff}";
        let (_, line) = Act::new("source-created", "", json!({ "name": text })).told(&by()).unwrap();
        assert!(line.chars().all(|c| !c.is_control()) && !line.contains(['\u{202e}', '\u{2028}', '\u{feff}']), "{line:?}");
        let read: Value = serde_json::from_str(&line).unwrap();
        assert_eq!((read["context"]["name"].as_str(), &read["requestor"]["user"], &read["action"]), (Some(text), &json!("alice"), &json!("source-created")));
        assert_eq!(line.matches("\"requestor\":{").count(), 1, "{line}");
    }

    #[test]
    fn refusals_are_told_up_to_the_limit_and_then_as_a_number() {
        let (mut refusals, second) = (Refusals::default(), Duration::from_secs);
        for n in 0..limits::AUDITED_REFUSALS_PER_MINUTE {
            assert_eq!(refusals.note(second(5)), (true, None), "{n}");
        }
        assert_eq!(refusals.note(second(59)), (false, None));
        refusals.left_out = 2;
        assert_eq!(refusals.note(second(61)), (true, Some(2)), "the minute is over");
        assert_eq!(refusals.over(second(200)), None, "they were told of");
        refusals.left_out = 1;
        assert_eq!((refusals.over(second(100)), refusals.over(second(121)), refusals.over(second(122))), (None, Some(1), None));
    }
}
