//! Keys and values of the rows (`formats.md` section 2). `docs/on-disk.md` is the table for people.
//!
//! Integers in keys are big-endian. Variable parts are a u8 length and the bytes, so that `p1` is no prefix of `p10`.

use crate::types::{OperationId, PrincipalId, ProducerId, StreamId, SubscriptionId};

/// Generated from `proto/tidelog/store/v1/rows.proto`.
#[allow(missing_docs, clippy::all, reason = "generated; the proto file has the comments")]
pub mod value {
    include!(concat!(env!("OUT_DIR"), "/tidelog.store.v1.rs"));
}

/// Version of everything on disk. A newer one is refused.
pub const FORMAT_VERSION: u32 = 1;

/// Which table a row lives in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Space {
    /// Hot and small: cursors, producers, receipts.
    State,
    /// Cold: streams, subscriptions, operations, counters.
    Meta,
}

/// An encoded key.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RowKey {
    /// In which table.
    pub space: Space,
    /// Kind byte, then the rest.
    pub bytes: Vec<u8>,
}

/// Which producer: `scope` is a stream's id, or 0 for broker-wide ones, which belong to a user.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProducerKey {
    /// Stream id, or 0.
    pub scope: u64,
    /// User id for scope 0, else 0.
    pub user: u64,
    /// Identity.
    pub id: ProducerId,
}

impl ProducerKey {
    /// A producer of a stream.
    pub fn of_stream(stream: StreamId, id: ProducerId) -> Self {
        Self { scope: stream.0, user: 0, id }
    }

    /// A broker-wide producer, for commits.
    pub fn of_user(user: u64, id: ProducerId) -> Self {
        Self { scope: 0, user, id }
    }
}

/// Which idempotency key: one of a principal's, for appends to one stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IdempotencyRow {
    /// The stream it is for.
    pub stream: StreamId,
    /// Who sent it.
    pub principal: PrincipalId,
    /// XXH3-128 of the key.
    pub hash: u128,
}

/// A principal in a key: one byte says which kind, then the id.
fn push_principal(bytes: &mut Vec<u8>, principal: PrincipalId) {
    let (kind, id) = match principal {
        PrincipalId::User(id) => (1, id),
        PrincipalId::Source(id) => (2, id),
    };
    bytes.push(kind);
    bytes.extend_from_slice(&id.to_be_bytes());
}

/// Reads a principal off the front of a part of a key.
pub fn split_principal(bytes: &[u8]) -> Option<(PrincipalId, &[u8])> {
    let (&kind, rest) = bytes.split_first()?;
    let (id, rest) = rest.split_first_chunk::<8>()?;
    let id = u64::from_be_bytes(*id);
    match kind {
        1 => Some((PrincipalId::User(id), rest)),
        2 => Some((PrincipalId::Source(id), rest)),
        _ => None,
    }
}

/// Under what a source's name is found: display text, so of any characters; only ASCII case is folded.
pub fn name_hash(name: &str) -> u128 {
    xxhash_rust::xxh3::xxh3_128(name.to_ascii_lowercase().as_bytes())
}

/// Public part of a key or token.
pub type ApiKeyId = [u8; 9];

impl IdempotencyRow {
    /// From an encoded key, for sweeps.
    pub fn decode(key: &[u8]) -> Option<Self> {
        let (stream, rest) = key.get(1..)?.split_first_chunk::<8>()?;
        let (principal, rest) = split_principal(rest)?;
        let hash = rest.try_into().ok()?;
        Some(Self { stream: StreamId(u64::from_be_bytes(*stream)), principal, hash: u128::from_be_bytes(hash) })
    }
}

/// Every row there is. Numbers of retired kinds are not used again.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Key<'a> {
    /// state 1: bounds of a stream.
    Bounds(StreamId),
    /// state 2: a cursor.
    Cursor(StreamId, SubscriptionId),
    /// state 3: a producer.
    Producer(&'a ProducerKey),
    /// state 4: one slot of a producer's ring of receipts.
    Receipt(&'a ProducerKey, u8),
    /// state 5: what an idempotency key stands for.
    Idempotency(&'a IdempotencyRow),
    /// meta 1: format and secrets.
    Format,
    /// meta 2: counters.
    Counters,
    /// meta 3: a stream.
    Stream(StreamId),
    /// meta 4: folded name of a stream → its id (u64 BE).
    StreamName(&'a str),
    /// meta 5: UUID of a stream → its id.
    StreamUuid(uuid::Uuid),
    /// meta 6: owner ‖ stream → nothing.
    StreamOwner(u64, StreamId),
    /// meta 7: a subscription.
    Subscription(StreamId, SubscriptionId),
    /// meta 8: folded name of a subscription → its id.
    SubscriptionName(StreamId, &'a str),
    /// meta 9: a user.
    User(u64),
    /// meta 10: folded name of a user → its id.
    UserName(&'a str),
    /// meta 11: a source.
    Source(u64),
    /// meta 12: owner ‖ source → nothing.
    SourceOwner(u64, u64),
    /// meta 13: public part of a key or token → whose it is, and the hash of the whole.
    ApiKey(&'a ApiKeyId),
    /// meta 14: stream ‖ principal → right.
    Right(StreamId, PrincipalId),
    /// meta 15: principal ‖ stream → right.
    RightOf(PrincipalId, StreamId),
    /// meta 16: an operation.
    Operation(OperationId),
    /// meta 19: owner ‖ XXH3-128 of a source's folded name → its id.
    SourceName(u64, u128),
    /// meta 20: owner ‖ folded name of a user key → its public part.
    KeyName(u64, &'a str),
    /// meta 21: how much a user has.
    Usage(u64),
    /// meta 22: how much of that is on a stream.
    UsageOn(StreamId, u64),
}

impl Key<'_> {
    /// The bytes.
    pub fn encode(&self) -> RowKey {
        let (space, kind) = self.place();
        let mut bytes = Vec::with_capacity(32);
        bytes.push(kind);
        let text = |bytes: &mut Vec<u8>, t: &str| {
            bytes.push(t.len() as u8);
            bytes.extend_from_slice(t.as_bytes());
        };
        let producer = |bytes: &mut Vec<u8>, p: &ProducerKey| {
            bytes.extend_from_slice(&p.scope.to_be_bytes());
            bytes.extend_from_slice(&p.user.to_be_bytes());
            text(bytes, p.id.as_str());
        };
        match self {
            Self::Format | Self::Counters => {}
            Self::Bounds(stream) | Self::Stream(stream) => bytes.extend_from_slice(&stream.0.to_be_bytes()),
            Self::Cursor(stream, sub) | Self::Subscription(stream, sub) => {
                bytes.extend_from_slice(&stream.0.to_be_bytes());
                bytes.extend_from_slice(&sub.0.to_be_bytes());
            }
            Self::Producer(p) => producer(&mut bytes, p),
            Self::Receipt(p, slot) => {
                producer(&mut bytes, p);
                bytes.push(*slot);
            }
            Self::Idempotency(row) => {
                bytes.extend_from_slice(&row.stream.0.to_be_bytes());
                push_principal(&mut bytes, row.principal);
                bytes.extend_from_slice(&row.hash.to_be_bytes());
            }
            Self::StreamName(folded) | Self::UserName(folded) => text(&mut bytes, folded),
            Self::User(id) | Self::Source(id) | Self::Usage(id) => bytes.extend_from_slice(&id.to_be_bytes()),
            Self::UsageOn(stream, user) => {
                bytes.extend_from_slice(&stream.0.to_be_bytes());
                bytes.extend_from_slice(&user.to_be_bytes());
            }
            Self::SourceOwner(owner, source) => {
                bytes.extend_from_slice(&owner.to_be_bytes());
                bytes.extend_from_slice(&source.to_be_bytes());
            }
            Self::SourceName(owner, hash) => {
                bytes.extend_from_slice(&owner.to_be_bytes());
                bytes.extend_from_slice(&hash.to_be_bytes());
            }
            Self::KeyName(owner, folded) => {
                bytes.extend_from_slice(&owner.to_be_bytes());
                text(&mut bytes, folded);
            }
            Self::ApiKey(id) => bytes.extend_from_slice(*id),
            Self::Right(stream, principal) => {
                bytes.extend_from_slice(&stream.0.to_be_bytes());
                push_principal(&mut bytes, *principal);
            }
            Self::RightOf(principal, stream) => {
                push_principal(&mut bytes, *principal);
                bytes.extend_from_slice(&stream.0.to_be_bytes());
            }
            Self::StreamUuid(uuid) => bytes.extend_from_slice(uuid.as_bytes()),
            Self::StreamOwner(owner, stream) => {
                bytes.extend_from_slice(&owner.to_be_bytes());
                bytes.extend_from_slice(&stream.0.to_be_bytes());
            }
            Self::SubscriptionName(stream, folded) => {
                bytes.extend_from_slice(&stream.0.to_be_bytes());
                text(&mut bytes, folded);
            }
            Self::Operation(id) => bytes.extend_from_slice(id.0.as_bytes()),
        }
        RowKey { space, bytes }
    }

    fn place(&self) -> (Space, u8) {
        match self {
            Self::Bounds(_) => (Space::State, 1),
            Self::Cursor(..) => (Space::State, 2),
            Self::Producer(_) => (Space::State, 3),
            Self::Receipt(..) => (Space::State, 4),
            Self::Idempotency(_) => (Space::State, 5),
            Self::Format => (Space::Meta, 1),
            Self::Counters => (Space::Meta, 2),
            Self::Stream(_) => (Space::Meta, 3),
            Self::StreamName(_) => (Space::Meta, 4),
            Self::StreamUuid(_) => (Space::Meta, 5),
            Self::StreamOwner(..) => (Space::Meta, 6),
            Self::Subscription(..) => (Space::Meta, 7),
            Self::SubscriptionName(..) => (Space::Meta, 8),
            Self::User(_) => (Space::Meta, 9),
            Self::UserName(_) => (Space::Meta, 10),
            Self::Source(_) => (Space::Meta, 11),
            Self::SourceOwner(..) => (Space::Meta, 12),
            Self::ApiKey(_) => (Space::Meta, 13),
            Self::Right(..) => (Space::Meta, 14),
            Self::RightOf(..) => (Space::Meta, 15),
            Self::Operation(_) => (Space::Meta, 16),
            Self::SourceName(..) => (Space::Meta, 19),
            Self::KeyName(..) => (Space::Meta, 20),
            Self::Usage(_) => (Space::Meta, 21),
            Self::UsageOn(..) => (Space::Meta, 22),
        }
    }
}

/// Key prefixes, for scans.
pub mod prefix {
    use super::{PrincipalId, RowKey, Space, StreamId, push_principal};

    fn of(space: Space, kind: u8, stream: Option<StreamId>) -> RowKey {
        let mut bytes = vec![kind];
        if let Some(stream) = stream {
            bytes.extend_from_slice(&stream.0.to_be_bytes());
        }
        RowKey { space, bytes }
    }

    /// All streams by id.
    pub fn streams() -> RowKey {
        of(Space::Meta, 3, None)
    }

    /// All streams by folded name.
    pub fn stream_names() -> RowKey {
        of(Space::Meta, 4, None)
    }

    /// All subscriptions of a stream by folded name.
    pub fn subscription_names(stream: StreamId) -> RowKey {
        of(Space::Meta, 8, Some(stream))
    }

    /// All users.
    pub fn users() -> RowKey {
        of(Space::Meta, 9, None)
    }

    /// All users by folded name.
    pub fn user_names() -> RowKey {
        of(Space::Meta, 10, None)
    }

    /// All sources.
    pub fn sources() -> RowKey {
        of(Space::Meta, 11, None)
    }

    /// The sources of a user.
    pub fn sources_of(owner: u64) -> RowKey {
        of(Space::Meta, 12, Some(StreamId(owner)))
    }

    /// All keys and tokens.
    pub fn api_keys() -> RowKey {
        of(Space::Meta, 13, None)
    }

    /// The rights on a stream.
    pub fn rights(stream: StreamId) -> RowKey {
        of(Space::Meta, 14, Some(stream))
    }

    /// The rights of a principal.
    pub fn rights_of(principal: PrincipalId) -> RowKey {
        let mut key = of(Space::Meta, 15, None);
        push_principal(&mut key.bytes, principal);
        key
    }

    /// The names of a user's keys.
    pub fn key_names(owner: u64) -> RowKey {
        of(Space::Meta, 20, Some(StreamId(owner)))
    }

    /// How much users have on a stream.
    pub fn usage_on(stream: StreamId) -> RowKey {
        of(Space::Meta, 22, Some(stream))
    }

    /// The streams that a user owns.
    pub fn streams_of(owner: u64) -> RowKey {
        of(Space::Meta, 6, Some(StreamId(owner)))
    }

    /// All operations.
    pub fn operations() -> RowKey {
        of(Space::Meta, 16, None)
    }

    /// All producers of a stream.
    pub fn producers(stream: StreamId) -> RowKey {
        of(Space::State, 3, Some(stream))
    }

    /// All broker-wide producers of a user.
    pub fn producers_of_user(user: u64) -> RowKey {
        let mut key = of(Space::State, 3, Some(StreamId(0)));
        key.bytes.extend_from_slice(&user.to_be_bytes());
        key
    }

    /// All idempotency keys.
    pub fn idempotency() -> RowKey {
        of(Space::State, 5, None)
    }
}

/// The ranges that hold everything of one stream besides its catalogue rows: kinds 1–5 of `state`, subscriptions, rights and counts in `meta`.
/// (A right stands under its principal too; that row leads nowhere then, since ids are never reused, and goes with the principal.)
pub fn ranges_of(stream: StreamId) -> Vec<super::DeleteRange> {
    let range = |space, kind: u8| {
        let key = |id: u64| {
            let mut bytes = vec![kind];
            bytes.extend_from_slice(&id.to_be_bytes());
            bytes
        };
        super::DeleteRange::Rows { space, from: key(stream.0), to: key(stream.0 + 1) }
    };
    let mut ranges: Vec<_> = (1..=5).map(|kind| range(Space::State, kind)).collect();
    ranges.extend([range(Space::Meta, 7), range(Space::Meta, 8), range(Space::Meta, 14), range(Space::Meta, 22)]);
    ranges.push(super::DeleteRange::Batches { stream, from: 0, to: None });
    ranges
}

/// The range that holds all receipts of one producer.
pub fn receipts_of(producer: &ProducerKey) -> super::DeleteRange {
    let mut from = Key::Receipt(producer, 0).encode().bytes;
    from.pop(); // the slot
    let to = end_of(&from).expect("a key that begins with a small kind has an end");
    super::DeleteRange::Rows { space: Space::State, from, to }
}

/// The producer's id in the key of its row.
///
/// # Errors
/// A sentence when the key is not one: the store is damaged.
pub fn producer_id(key: &[u8]) -> Result<ProducerId, String> {
    // kind, scope, user, length
    let text = key.get(1 + 8 + 8 + 1..).and_then(|id| std::str::from_utf8(id).ok()).ok_or("a producer's key has no id")?;
    ProducerId::parse(text).map_err(|e| e.message.clone())
}

/// The first key after all keys that begin with `prefix`.
pub fn end_of(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 255 {
            end.push(last + 1);
            return Some(end);
        }
    }
    None
}

/// Reads a row's value.
///
/// # Errors
/// A sentence when the bytes are not the message: the store is damaged.
pub fn decode<M: prost::Message + Default>(bytes: &[u8]) -> Result<M, String> {
    M::decode(bytes).map_err(|e| format!("a row of kind {} does not decode: {e}", std::any::type_name::<M>()))
}

/// Writes a row's value.
pub fn encode(message: &impl prost::Message) -> Vec<u8> {
    message.encode_to_vec()
}

/// Reads the value of an index row: an id.
pub fn decode_id(bytes: &[u8]) -> Result<u64, String> {
    bytes.try_into().map(u64::from_be_bytes).map_err(|_| "an index row is not eight bytes".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn producer() -> impl Strategy<Value = ProducerKey> {
        (any::<u64>(), any::<u64>(), "[a-z0-9:._-]{1,128}").prop_map(|(scope, user, id)| ProducerKey { scope, user, id: ProducerId::parse(&id).unwrap() })
    }

    proptest! {
        #[test]
        fn no_producers_key_is_a_prefix_of_anothers(a in producer(), b in producer()) {
            let (ka, kb) = (Key::Producer(&a).encode(), Key::Producer(&b).encode());
            prop_assert_eq!(a == b, kb.bytes.starts_with(&ka.bytes));
        }

        #[test]
        fn a_producers_receipts_are_one_range_and_nobody_elses_are_in_it(a in producer(), b in producer(), slot in 0u8..64) {
            let super::super::DeleteRange::Rows { from, to, .. } = receipts_of(&a) else { panic!("rows") };
            let key = Key::Receipt(&b, slot).encode().bytes;
            prop_assert_eq!(a == b, from <= key && key < to);
            prop_assert_eq!(producer_id(&Key::Producer(&a).encode().bytes).unwrap(), a.id);
        }

        #[test]
        fn an_idempotency_key_reads_back_from_its_row(stream: u64, id: u64, source: bool, hash: u128) {
            let principal = if source { PrincipalId::Source(id) } else { PrincipalId::User(id) };
            let row = IdempotencyRow { stream: StreamId(stream), principal, hash };
            prop_assert_eq!(IdempotencyRow::decode(&Key::Idempotency(&row).encode().bytes), Some(row));
        }

        #[test]
        fn the_end_of_a_prefix_lies_after_every_key_with_it(prefix in proptest::collection::vec(any::<u8>(), 1..8), rest: Vec<u8>) {
            let mut key = prefix.clone();
            key.extend(rest);
            if let Some(end) = end_of(&prefix) {
                prop_assert!(key < end);
                prop_assert!(end > prefix);
            }
        }

        #[test]
        fn a_streams_ranges_hold_its_rows_and_no_others(stream in 1u64..1 << 40, other in 1u64..1 << 40, p in producer()) {
            let own = ProducerKey { scope: stream, ..p.clone() };
            let foreign = ProducerKey { scope: other, ..p };
            let ranges = ranges_of(StreamId(stream));
            let held = |key: RowKey| ranges.iter().any(|r| matches!(r, super::super::DeleteRange::Rows { space, from, to } if *space == key.space && *from <= key.bytes && key.bytes < *to));
            for slot in [0, 63] {
                prop_assert!(held(Key::Receipt(&own, slot).encode()));
                prop_assert_eq!(held(Key::Receipt(&foreign, slot).encode()), stream == other);
            }
            prop_assert!(held(Key::Cursor(StreamId(stream), SubscriptionId(3)).encode()));
            prop_assert!(!held(Key::Stream(StreamId(stream)).encode()));
        }
    }
}
