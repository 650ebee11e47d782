//! Subscriptions of one stream: row, cursor and name belong together, and no cursor is beyond the end.

use super::streams::Subject;
use super::tables::{Tables, owner};
use super::{Check, Limits};
use crate::log::Key;
use crate::log::rocks::Closed;
use crate::log::rows::{self, value};
use crate::types::{SubscriptionId, SubscriptionName};

/// The subscription in a key: eight bytes behind the stream.
fn id_of(key: &[u8]) -> Option<SubscriptionId> {
    Some(SubscriptionId(u64::from_be_bytes(key.get(9..)?.try_into().ok()?)))
}

impl Check<'_> {
    pub(super) fn subscriptions(&mut self, store: &Closed, tables: &mut Tables<'_>, of: &Subject, limits: &Limits) {
        while let Some((key, bytes)) = tables.subscriptions.of_stream(of.id) {
            self.report.counts.subscriptions += 1;
            let Some(id) = id_of(&key) else {
                self.report.of_stream(of.id, of.name.as_deref(), format!("the key {key:02x?} is not one of a subscription"));
                continue;
            };
            self.cursors_of_nobody(tables, of, Some(id));
            let name = match rows::decode::<value::Subscription>(&bytes) {
                Ok(row) => row.name,
                Err(why) => {
                    self.report.of_stream(of.id, of.name.as_deref(), format!("subscription {id}: {why}"));
                    continue;
                }
            };
            if id.0 >= limits.counters.next_subscription_id {
                let what = format!(
                    "subscription {name} has the id {id}, but the next one to be given out is {}: it would be used twice (S-8)",
                    limits.counters.next_subscription_id
                );
                self.report.of_stream(of.id, of.name.as_deref(), what);
            }
            self.subscription_name(store, of, id, &name);
            match tables.cursors.next_if(|key| owner(key) == Some(of.id) && id_of(key) == Some(id)) {
                None => self.report.of_stream(of.id, of.name.as_deref(), format!("subscription {name} has no cursor: it would begin anew")),
                Some((_, bytes)) => match rows::decode::<value::Cursor>(&bytes) {
                    Err(why) => self.report.of_stream(of.id, of.name.as_deref(), format!("the cursor of {name}: {why}")),
                    Ok(cursor) => self.cursor(of, &name, &cursor, limits),
                },
            }
        }
        self.cursors_of_nobody(tables, of, None);
        while let Some((key, bytes)) = tables.names.of_stream(of.id) {
            self.report.counts.index_rows += 1;
            let there = rows::decode_id(&bytes).and_then(|id| store.get(&[Key::Subscription(of.id, SubscriptionId(id)).encode()]));
            match there {
                Ok(found) if found.iter().all(Option::is_some) => {}
                Ok(_) => self.report.of_stream(of.id, of.name.as_deref(), format!("the name {:?} leads to no subscription", text_of(&key, 9))),
                Err(why) => self.report.of_stream(of.id, of.name.as_deref(), format!("the name {:?} leads nowhere: {why}", text_of(&key, 9))),
            }
        }
    }

    fn subscription_name(&mut self, store: &Closed, of: &Subject, id: SubscriptionId, name: &str) {
        let folded = SubscriptionName::stored(name).folded().into_owned();
        if folded.len() > usize::from(u8::MAX) {
            return self.report.of_stream(of.id, of.name.as_deref(), format!("the name of subscription {id} is not one"));
        }
        match store.get(&[Key::SubscriptionName(of.id, &folded).encode()]) {
            Ok(found) if found.iter().flatten().any(|value| rows::decode_id(value) == Ok(id.0)) => {}
            Ok(_) => self.report.of_stream(of.id, of.name.as_deref(), format!("subscription {name} cannot be found by its name")),
            Err(why) => self.unreadable(&why),
        }
    }

    fn cursor(&mut self, of: &Subject, name: &str, cursor: &value::Cursor, limits: &Limits) {
        if let Some(end) = of.next_offset.filter(|end| cursor.next > *end) {
            let what =
                format!("the cursor of {name} is at {}, but the stream ends at {end}: acknowledged events are missing, or the cursor is wrong", cursor.next);
            self.report.of_stream(of.id, of.name.as_deref(), what);
        }
        if cursor.epoch > limits.counters.max_epoch {
            let what = format!("the session epoch of {name} is {}, above the largest that was given out ({})", cursor.epoch, limits.counters.max_epoch);
            self.report.of_stream(of.id, of.name.as_deref(), what);
        }
    }

    fn cursors_of_nobody(&mut self, tables: &mut Tables<'_>, of: &Subject, before: Option<SubscriptionId>) {
        let early = |key: &[u8]| owner(key) == Some(of.id) && before.is_none_or(|before| id_of(key).is_none_or(|id| id < before));
        while let Some((key, _)) = tables.cursors.next_if(early) {
            self.report.of_stream(of.id, of.name.as_deref(), format!("a cursor belongs to no subscription: {key:02x?}"));
        }
    }
}

/// The text in a key whose length stands at `at`.
pub(super) fn text_of(key: &[u8], at: usize) -> String {
    String::from_utf8_lossy(key.get(at + 1..).unwrap_or_default()).into_owned()
}
