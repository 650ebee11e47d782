//! Users, sources, keys and rights: each row has its entries in the indexes, and each entry leads to such a row.
//!
//! Rights of principals that are gone, and a principal's rights on streams that are gone, are what a crash may leave: they lead nowhere,
//! since ids are never used again.

use super::Check;
use super::subscriptions::text_of;
use super::tables::{API_KEY, KEY_NAME, RIGHT, RIGHT_OF, SOURCE, SOURCE_NAME, SOURCE_OWNER, Table, USER, USER_NAME};
use crate::log::rocks::Closed;
use crate::log::rows::{self, ApiKeyId, name_hash, value};
use crate::log::{Key, Space};
use crate::types::id::OPERATOR_USER;
use crate::types::{PrincipalId, StreamId};

/// Length of the keyed hash of a key.
const HASH_BYTES: usize = 32;

/// A number behind the kind of a key, and nothing else.
fn number(key: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(key.get(1..)?.try_into().ok()?))
}

/// The owner and the rest of a key.
fn owned(key: &[u8]) -> Option<(u64, &[u8])> {
    let (owner, rest) = key.get(1..)?.split_first_chunk::<8>()?;
    Some((u64::from_be_bytes(*owner), rest))
}

impl Check<'_> {
    /// All of it.
    pub(super) fn access(&mut self, store: &Closed, counters: &value::Counters) {
        self.each(store, USER, |check, key, bytes| check.user(store, counters, key, bytes));
        self.each(store, USER_NAME, |check, key, bytes| check.user_name(store, key, bytes));
        self.each(store, SOURCE, |check, key, bytes| check.source(store, counters, key, bytes));
        self.each(store, SOURCE_OWNER, |check, key, _| check.source_owner(store, key));
        self.each(store, SOURCE_NAME, |check, key, bytes| check.source_name(store, key, bytes));
        self.each(store, API_KEY, |check, key, bytes| check.api_key(store, key, bytes));
        self.each(store, KEY_NAME, |check, key, bytes| check.key_name(store, key, bytes));
        self.each(store, RIGHT, |check, key, bytes| check.right(store, key, bytes));
        self.each(store, RIGHT_OF, |check, key, bytes| check.right_of(store, key, bytes));
    }

    fn each(&mut self, store: &Closed, kind: u8, mut look: impl FnMut(&mut Self, &[u8], &[u8]) -> Result<(), String>) {
        let mut table = match Table::of(store, Space::Meta, kind) {
            Ok(table) => table,
            Err(why) => return self.unreadable(&why),
        };
        while let Some((key, bytes)) = table.any() {
            (self.progress)("access rows", 1);
            if let Err(why) = look(self, &key, &bytes) {
                self.report.damage(why);
            }
        }
        if let Some(why) = table.broken {
            self.unreadable(&why);
        }
    }

    /// A row; `None` where there is none.
    fn raw(&mut self, store: &Closed, key: Key<'_>) -> Result<Option<bytes::Bytes>, String> {
        store.get(&[key.encode()]).map(|found| found.into_iter().next().flatten())
    }

    /// The same, decoded. One that cannot be read is told where its own table is walked.
    fn found<M: prost::Message + Default>(&mut self, store: &Closed, key: Key<'_>) -> Result<Option<M>, String> {
        Ok(self.raw(store, key)?.and_then(|bytes| rows::decode(&bytes).ok()))
    }

    /// Does the entry of an index lead to this number?
    fn leads_to(&mut self, store: &Closed, key: Key<'_>, id: u64) -> Result<bool, String> {
        Ok(self.raw(store, key)?.and_then(|bytes| rows::decode_id(&bytes).ok()) == Some(id))
    }

    fn user(&mut self, store: &Closed, counters: &value::Counters, key: &[u8], bytes: &[u8]) -> Result<(), String> {
        self.report.counts.users += 1;
        let id = number(key).ok_or_else(|| format!("the key {key:02x?} is not one of a user"))?;
        let row: value::User = rows::decode(bytes).map_err(|why| format!("user {id}: {why}"))?;
        if id != OPERATOR_USER && id >= counters.next_user_id {
            return Err(format!("user {id} has an id that was not given out yet (the next is {})", counters.next_user_id));
        }
        let folded = row.name.to_ascii_lowercase();
        if id != OPERATOR_USER && !self.leads_to(store, Key::UserName(&folded), id)? {
            return Err(format!("the index of users by name does not lead to user {id}"));
        }
        Ok(())
    }

    fn user_name(&mut self, store: &Closed, key: &[u8], bytes: &[u8]) -> Result<(), String> {
        let id = rows::decode_id(bytes).map_err(|why| format!("the entry {key:02x?} of the index of users by name: {why}"))?;
        match self.found::<value::User>(store, Key::User(id))? {
            Some(row) if row.name.to_ascii_lowercase() == text_of(key, 1) => Ok(()),
            Some(_) => Err(format!("an entry of the index of users by name leads to user {id}, who has another name: {key:02x?}")),
            None => Err(format!("an entry of the index of users by name leads to user {id}, who does not exist")),
        }
    }

    fn source(&mut self, store: &Closed, counters: &value::Counters, key: &[u8], bytes: &[u8]) -> Result<(), String> {
        self.report.counts.sources += 1;
        let id = number(key).ok_or_else(|| format!("the key {key:02x?} is not one of a source"))?;
        let row: value::Source = rows::decode(bytes).map_err(|why| format!("source {id}: {why}"))?;
        if id >= counters.next_source_id {
            return Err(format!("source {id} has an id that was not given out yet (the next is {})", counters.next_source_id));
        }
        if row.owner != OPERATOR_USER && self.raw(store, Key::User(row.owner))?.is_none() {
            return Err(format!("source {id} belongs to user {}, who does not exist", row.owner));
        }
        if self.raw(store, Key::SourceOwner(row.owner, id))?.is_none() {
            return Err(format!("the index of sources by owner does not have source {id}"));
        }
        if !self.leads_to(store, Key::SourceName(row.owner, name_hash(&row.name)), id)? {
            return Err(format!("the index of sources by name does not lead to source {id}"));
        }
        let api_key: Result<ApiKeyId, _> = row.key_id.as_slice().try_into();
        let api_key = api_key.map_err(|_| format!("source {id} names no key"))?;
        match self.found::<value::ApiKey>(store, Key::ApiKey(&api_key))? {
            Some(found) if found.kind() == value::api_key::Kind::SourceKey && (found.source, found.user) == (id, row.owner) => Ok(()),
            Some(_) => Err(format!("the key of source {id} is somebody else's")),
            None => Err(format!("the key of source {id} does not exist")),
        }
    }

    fn source_owner(&mut self, store: &Closed, key: &[u8]) -> Result<(), String> {
        let entry = owned(key).and_then(|(owner, rest)| Some((owner, u64::from_be_bytes(rest.try_into().ok()?))));
        let (owner, id) = entry.ok_or_else(|| format!("the key {key:02x?} is not one of the index of sources by owner"))?;
        match self.found::<value::Source>(store, Key::Source(id))? {
            Some(row) if row.owner == owner => Ok(()),
            _ => Err(format!("the index of sources by owner gives source {id} to user {owner}; there is no such source of theirs")),
        }
    }

    fn source_name(&mut self, store: &Closed, key: &[u8], bytes: &[u8]) -> Result<(), String> {
        let entry = owned(key).and_then(|(owner, rest)| Some((owner, u128::from_be_bytes(rest.try_into().ok()?))));
        let (owner, hash) = entry.ok_or_else(|| format!("the key {key:02x?} is not one of the index of sources by name"))?;
        let id = rows::decode_id(bytes).map_err(|why| format!("the entry {key:02x?} of the index of sources by name: {why}"))?;
        match self.found::<value::Source>(store, Key::Source(id))? {
            Some(row) if (row.owner, name_hash(&row.name)) == (owner, hash) => Ok(()),
            _ => Err(format!("an entry of the index of sources by name leads to source {id}; it has another name or owner, or does not exist")),
        }
    }

    fn api_key(&mut self, store: &Closed, key: &[u8], bytes: &[u8]) -> Result<(), String> {
        use value::api_key::Kind;
        self.report.counts.keys += 1;
        let id: Result<ApiKeyId, _> = key[1..].try_into();
        let id = id.map_err(|_| format!("{key:02x?} is not the public part of a key"))?;
        let row: value::ApiKey = rows::decode(bytes).map_err(|why| format!("key {id:02x?}: {why}"))?;
        if row.hash.len() != HASH_BYTES {
            return Err(format!("the hash of key {id:02x?} has {} bytes, not {HASH_BYTES}", row.hash.len()));
        }
        match row.kind() {
            Kind::Unspecified => Err(format!("key {id:02x?} is of no kind that this version knows")),
            Kind::SourceKey => match self.found::<value::Source>(store, Key::Source(row.source))? {
                Some(source) if source.key_id == id => Ok(()),
                _ => Err(format!("key {id:02x?} is good for source {}, which does not have it", row.source)),
            },
            Kind::UserKey => {
                if row.user != OPERATOR_USER && self.raw(store, Key::User(row.user))?.is_none() {
                    return Err(format!("key {id:02x?} is good for user {}, who does not exist", row.user));
                }
                let named = self.raw(store, Key::KeyName(row.user, &row.name.to_ascii_lowercase()))?;
                if named.is_some_and(|named| named[..] == id) { Ok(()) } else { Err(format!("the index of keys by name does not lead to key {id:02x?}")) }
            }
            // They end by themselves, also those of users who are gone.
            Kind::Session | Kind::Ticket if row.expires_us == 0 => Err(format!("session or ticket {id:02x?} never ends")),
            Kind::Session | Kind::Ticket => Ok(()),
        }
    }

    fn key_name(&mut self, store: &Closed, key: &[u8], bytes: &[u8]) -> Result<(), String> {
        let (user, _) = owned(key).ok_or_else(|| format!("the key {key:02x?} is not one of the index of keys by name"))?;
        let id: Result<ApiKeyId, _> = bytes.try_into();
        let id = id.map_err(|_| format!("an entry of the index of keys by name has no key: {key:02x?}"))?;
        match self.found::<value::ApiKey>(store, Key::ApiKey(&id))? {
            Some(row) if row.user == user && row.kind() == value::api_key::Kind::UserKey && row.name.to_ascii_lowercase() == text_of(key, 9) => Ok(()),
            _ => Err(format!("an entry of the index of keys by name of user {user} leads to key {id:02x?}, which is none of that name, or does not exist")),
        }
    }

    fn right(&mut self, store: &Closed, key: &[u8], bytes: &[u8]) -> Result<(), String> {
        self.report.counts.rights += 1;
        let entry =
            owned(key).and_then(|(stream, rest)| rows::split_principal(rest).filter(|(_, rest)| rest.is_empty()).map(|(who, _)| (StreamId(stream), who)));
        let (stream, who) = entry.ok_or_else(|| format!("the key {key:02x?} is not one of a right"))?;
        if self.raw(store, Key::Stream(stream))?.is_none() {
            return Err(format!("{who:?} has a right on stream {stream}, which does not exist"));
        }
        match self.raw(store, Key::RightOf(who, stream))? {
            Some(other) if other[..] == *bytes => Ok(()),
            _ => Err(format!("the right of {who:?} on stream {stream} does not stand among the rights of {who:?}, or is another there")),
        }
    }

    fn right_of(&mut self, store: &Closed, key: &[u8], bytes: &[u8]) -> Result<(), String> {
        let entry = key.get(1..).and_then(rows::split_principal).and_then(|(who, rest)| Some((who, StreamId(u64::from_be_bytes(rest.try_into().ok()?)))));
        let (who, stream): (PrincipalId, StreamId) = entry.ok_or_else(|| format!("the key {key:02x?} is not one of a principal's right"))?;
        if self.raw(store, Key::Stream(stream))?.is_none() {
            return Ok(()); // of a stream that is gone
        }
        match self.raw(store, Key::Right(stream, who))? {
            Some(other) if other[..] == *bytes => Ok(()),
            _ => Err(format!("{who:?} has a right on stream {stream} that does not stand among the rights on it, or is another there")),
        }
    }
}
