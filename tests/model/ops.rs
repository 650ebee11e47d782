//! What a random history is made of: small choices, whose meaning depends on what has happened (see [`plan`](crate::plan)), so that a shorter
//! history still means something.

use proptest::prelude::*;

use crate::gate::Fate;
use crate::law::{CONNECTIONS, STREAMS};
use crate::support::{AckLevel, Expect};

/// How an append or a commit relates to what its producer did before.
#[derive(Clone, Copy, Debug)]
pub enum Which {
    Next,
    /// One sent before, this many back.
    Repeat(usize),
    /// Such a one with other content.
    Reused(usize),
    /// Such a batch, cut shorter or longer.
    Cut(usize, bool),
    Gap(u64),
    OldEpoch,
    FutureEpoch,
}

/// A place in a stream.
#[derive(Clone, Copy, Debug)]
pub enum Place {
    Cursor,
    Earliest,
    Latest,
    /// Relative to the cursor.
    Near(i64),
}

/// Which stream id a call names.
#[derive(Clone, Copy, Debug)]
pub enum Named {
    None,
    /// The one that is there.
    Right,
    /// One that is not, or not any more.
    Wrong,
}

/// An opening of a session.
#[derive(Clone, Copy, Debug)]
pub struct Opening {
    pub from: Place,
    pub rewind: bool,
    pub reject: bool,
    pub skip: bool,
    pub log_epoch: Option<u64>,
}

#[derive(Clone, Debug)]
pub enum Op {
    Open {
        via: usize,
        stream: usize,
        id: u8,
        expect: Expect,
        lost: bool,
    },
    OpenWide {
        via: usize,
        id: u8,
    },
    Append {
        via: usize,
        stream: usize,
        named: Named,
        producer: Option<u8>,
        which: Which,
        count: usize,
        condition: Option<i64>,
        lost: bool,
    },
    /// More batches than receipts are kept, one after the other.
    Burst {
        conn: usize,
        stream: usize,
        id: u8,
    },
    Once {
        stream: usize,
        key: u8,
        same: bool,
        condition: Option<i64>,
        lost: bool,
    },
    Resume {
        conn: usize,
        stream: usize,
        producer: Option<u8>,
        wrong: bool,
    },
    Spoil {
        conn: usize,
        stream: usize,
        producer: Option<u8>,
    },
    SpoilAll {
        conn: usize,
    },
    Commit {
        via: usize,
        id: Option<u8>,
        which: Which,
        appends: Vec<(usize, Option<i64>)>,
        acks: Vec<(usize, i64)>,
        check: Option<(usize, bool)>,
        lost: bool,
    },
    Attach {
        conn: usize,
        stream: usize,
        named: Named,
        sub: u8,
        opening: Opening,
    },
    Take(usize),
    Detach(usize),
    Ack {
        conn: usize,
        seat: usize,
        back: i64,
        received: AckLevel,
        by_epoch: bool,
        lost: bool,
    },
    Pull {
        stream: usize,
        sub: u8,
        opening: Opening,
        max: u64,
    },
    PullOn {
        seat: usize,
        token: Option<usize>,
        from: Option<i64>,
        skip: bool,
        max: u64,
    },
    TokenAck {
        token: usize,
        at: Option<i64>,
        level: AckLevel,
    },
    Seek {
        stream: usize,
        sub: u8,
        to: Place,
    },
    Trim {
        stream: usize,
        percent: u64,
    },
    Close(usize),
    /// Deleted if it is there, created if not.
    Replace {
        stream: usize,
        create: bool,
    },
    Resubscribe {
        stream: usize,
        sub: u8,
    },
    Forget {
        stream: usize,
        id: u8,
    },
    Reconnect(usize),
    Settle,
    /// What is in flight from now on waits, and so becomes one group.
    Hold,
    Peek(usize),
    Arm {
        fate: Fate,
        passing: u32,
    },
    /// The last call whose outcome was unknown is sent again, unchanged.
    Again,
    Crash,
    Restart,
}

fn which() -> impl Strategy<Value = Which> {
    prop_oneof![
        12 => Just(Which::Next),
        4 => (0usize..4).prop_map(Which::Repeat),
        1 => (4usize..70).prop_map(Which::Repeat),
        1 => (0usize..3).prop_map(Which::Reused),
        1 => (0usize..3, any::<bool>()).prop_map(|(back, longer)| Which::Cut(back, longer)),
        1 => (1u64..3).prop_map(Which::Gap),
        1 => Just(Which::OldEpoch),
        1 => Just(Which::FutureEpoch),
    ]
}

fn place() -> impl Strategy<Value = Place> {
    prop_oneof![5 => Just(Place::Cursor), 1 => Just(Place::Earliest), 1 => Just(Place::Latest), 3 => (-3i64..6).prop_map(Place::Near)]
}

fn opening() -> impl Strategy<Value = Opening> {
    let log_epoch = prop::option::weighted(0.15, 1u64..3);
    (place(), any::<bool>(), prop::bool::weighted(0.3), any::<bool>(), log_epoch).prop_map(|(from, rewind, reject, skip, log_epoch)| Opening {
        from,
        rewind,
        reject,
        skip,
        log_epoch,
    })
}

/// One step of a history.
pub fn op() -> impl Strategy<Value = Op> {
    // The last place is "without a connection".
    let via = || 0..=CONNECTIONS;
    let conn = || 0..CONNECTIONS;
    let stream = || prop_oneof![4 => Just(0usize), 2 => Just(1), 1 => 2..STREAMS];
    let producer = || prop_oneof![4 => (0u8..3).prop_map(Some), 1 => Just(None)];
    let condition = || prop_oneof![8 => Just(None), 2 => Just(Some(0i64)), 1 => (-3i64..3).prop_map(Some)];
    let lost = || prop::bool::weighted(0.12);
    let level = || prop_oneof![2 => Just(AckLevel::Durable), 1 => Just(AckLevel::Received)];
    let named = || prop_oneof![6 => Just(Named::None), 1 => Just(Named::Right), 1 => Just(Named::Wrong)];
    let expect = prop_oneof![6 => Just(Expect::Any), 1 => Just(Expect::Create), 1 => Just(Expect::Resume)];
    let fate = prop_oneof![Just(Fate::BeforeWrite), Just(Fate::AfterWrite), Just(Fate::Refuse)];
    let sub = || 0u8..2;
    let seat = || prop_oneof![4 => Just(0usize), 2 => Just(1), 1 => 2..5usize];
    let data = prop_oneof![
        6 => (via(), stream(), 0u8..3, expect, lost()).prop_map(|(via, stream, id, expect, lost)| Op::Open { via, stream, id, expect, lost }),
        1 => (via(), 0u8..2).prop_map(|(via, id)| Op::OpenWide { via, id }),
        26 => (via(), stream(), named(), producer(), which(), 1usize..4, condition(), lost()).prop_map(
            |(via, stream, named, producer, which, count, condition, lost)| Op::Append { via, stream, named, producer, which, count, condition, lost }
        ),
        2 => (stream(), 0u8..4, any::<bool>(), condition(), lost()).prop_map(|(stream, key, same, condition, lost)| Op::Once { stream, key, same, condition, lost }),
        4 => (conn(), stream(), producer(), prop::bool::weighted(0.1)).prop_map(|(conn, stream, producer, wrong)| Op::Resume { conn, stream, producer, wrong }),
        1 => (conn(), stream(), producer()).prop_map(|(conn, stream, producer)| Op::Spoil { conn, stream, producer }),
        4 => (
            via(),
            prop::option::weighted(0.8, 0u8..2),
            which(),
            prop::collection::vec((stream(), condition()), 0..3),
            prop::collection::vec((seat(), -2i64..4), 0..2),
            prop::option::weighted(0.2, (stream(), prop::bool::weighted(0.7))),
            lost(),
        )
            .prop_map(|(via, id, which, appends, acks, check, lost)| Op::Commit { via, id, which, appends, acks, check, lost }),
    ];
    let reading = prop_oneof![
        5 => (conn(), stream(), named(), sub(), opening()).prop_map(|(conn, stream, named, sub, opening)| Op::Attach { conn, stream, named, sub, opening }),
        9 => seat().prop_map(Op::Take),
        1 => seat().prop_map(Op::Detach),
        9 => (conn(), seat(), -2i64..5, level(), prop::bool::weighted(0.3), lost())
            .prop_map(|(conn, seat, back, received, by_epoch, lost)| Op::Ack { conn, seat, back, received, by_epoch, lost }),
        2 => (stream(), sub(), opening(), 1u64..6).prop_map(|(stream, sub, opening, max)| Op::Pull { stream, sub, opening, max }),
        1 => (seat(), prop::option::of(0usize..3), prop::option::of(-1i64..4), any::<bool>(), 1u64..6)
            .prop_map(|(seat, token, from, skip, max)| Op::PullOn { seat, token, from, skip, max }),
        2 => (0usize..3, prop::option::of(-1i64..5), level()).prop_map(|(token, at, level)| Op::TokenAck { token, at, level }),
        1 => (stream(), sub(), place()).prop_map(|(stream, sub, to)| Op::Seek { stream, sub, to }),
    ];
    let rare = prop_oneof![
        6 => Just(Op::Settle),
        4 => Just(Op::Hold),
        2 => (0..STREAMS).prop_map(Op::Peek),
        3 => (fate, 0u32..3).prop_map(|(fate, passing)| Op::Arm { fate, passing }),
        2 => Just(Op::Again),
        2 => Just(Op::Crash),
        1 => Just(Op::Restart),
        2 => conn().prop_map(Op::Reconnect),
        1 => conn().prop_map(|conn| Op::SpoilAll { conn }),
        3 => (stream(), 0u64..110).prop_map(|(stream, percent)| Op::Trim { stream, percent }),
        1 => stream().prop_map(Op::Close),
        2 => (stream(), prop::bool::weighted(0.2)).prop_map(|(stream, create)| Op::Replace { stream, create }),
        1 => (stream(), sub()).prop_map(|(stream, sub)| Op::Resubscribe { stream, sub }),
        1 => (stream(), 0u8..3).prop_map(|(stream, id)| Op::Forget { stream, id }),
        1 => (conn(), stream(), 0u8..3).prop_map(|(conn, stream, id)| Op::Burst { conn, stream, id }),
    ];
    prop_oneof![45 => data, 30 => reading, 14 => rare]
}
