//! Random frames for property tests: every variant, every optional field there and not there.

use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;

use super::convert::MAX_INTEGER;
use super::frame::{About, ClientFrame, Hello, ServerFrame};
use crate::types::batch::samples::{batch, build, samples, text};
use crate::types::reply::*;
use crate::types::request::*;
use crate::types::*;

fn number() -> impl Strategy<Value = u64> + Clone {
    prop_oneof![Just(0u64), Just(1), Just(MAX_INTEGER), 0..MAX_INTEGER]
}

fn stream() -> impl Strategy<Value = StreamName> {
    "[A-Za-z0-9_][A-Za-z0-9._-]{0,20}".prop_map(|t| StreamName::parse(&t).unwrap())
}

fn subscription() -> impl Strategy<Value = SubscriptionName> {
    "[A-Za-z0-9_][A-Za-z0-9._-]{0,20}".prop_map(|t| SubscriptionName::parse(&t).unwrap())
}

fn producer() -> impl Strategy<Value = ProducerId> {
    "[A-Za-z0-9._:-]{1,20}".prop_map(|t| ProducerId::parse(&t).unwrap())
}

fn stream_id() -> impl Strategy<Value = Option<StreamId>> {
    of(number().prop_map(StreamId))
}

fn stamp() -> impl Strategy<Value = Option<ProducerStamp>> {
    of((producer(), number(), number()).prop_map(|(id, epoch, seq)| ProducerStamp { id, epoch, seq }))
}

fn credit() -> impl Strategy<Value = Credit> {
    (number(), number()).prop_map(|(events, bytes)| Credit { events, bytes })
}

fn events() -> impl Strategy<Value = Events> {
    samples(4).prop_map(|s| build(&s))
}

fn start() -> impl Strategy<Value = Start> {
    prop_oneof![
        number().prop_map(Start::Offset),
        Just(Start::Earliest),
        Just(Start::Latest),
        (-1_000_000_000_000i64..253_402_207_200_000_000).prop_map(|us| Start::Time(TimeUs(us))),
    ]
}

fn subscribe() -> impl Strategy<Value = SubscribeRequest> {
    let first = (stream(), of(subscription()), any::<bool>(), stream_id(), any::<bool>(), of(start()));
    let second = (of(text(20)), of(credit()), any::<bool>(), of(any::<bool>()), of(number()));
    (first, second).prop_map(|((stream, subscription, create, stream_id, rewind, from), (filter, credit, reject, skip, log_epoch))| SubscribeRequest {
        stream,
        subscription,
        create,
        stream_id,
        rewind,
        from,
        filter,
        credit,
        takeover: if reject { Takeover::Reject } else { Takeover::Steal },
        on_gap: skip.map(|skip| if skip { OnGap::Skip } else { OnGap::Fail }),
        log_epoch,
    })
}

fn commit() -> impl Strategy<Value = CommitRequest> {
    let ack =
        (stream(), subscription(), number(), number()).prop_map(|(stream, subscription, epoch, offset)| CommitAck { stream, subscription, epoch, offset });
    let append = (stream(), stream_id(), events(), of(number())).prop_map(|(stream, stream_id, events, expected_next_offset)| CommitAppend {
        stream,
        stream_id,
        events,
        expected_next_offset,
    });
    let check = (stream(), number()).prop_map(|(stream, expected_next_offset)| CommitCheck { stream, expected_next_offset });
    (stamp(), vec(ack, 0..3), vec(append, 0..3), vec(check, 0..3)).prop_map(|(producer, acks, appends, checks)| CommitRequest {
        producer,
        acks,
        appends,
        checks,
    })
}

pub fn client_frame() -> impl Strategy<Value = ClientFrame> {
    let expect = prop_oneof![Just(Expect::Any), Just(Expect::Create), Just(Expect::Resume)];
    let level = prop_oneof![Just(AckLevel::Durable), Just(AckLevel::Received)];
    prop_oneof![
        text(20).prop_map(|key| ClientFrame::Auth { key: Some(key), ticket: None }),
        text(20).prop_map(|ticket| ClientFrame::Auth { key: None, ticket: Some(ticket) }),
        (number(), subscribe()).prop_map(|(sub, request)| ClientFrame::Subscribe { sub, request }),
        (number(), number(), level).prop_map(|(sub, offset, level)| ClientFrame::Ack { sub, offset, level }),
        (number(), credit()).prop_map(|(sub, credit)| ClientFrame::Credit { sub, credit }),
        number().prop_map(|sub| ClientFrame::Unsubscribe { sub }),
        Just(ClientFrame::Ping),
        (number(), of(stream()), stream_id(), producer(), expect).prop_map(|(req, stream, stream_id, producer, expect)| ClientFrame::OpenProducer {
            req,
            request: OpenProducerRequest { stream, stream_id, producer, expect }
        }),
        (number(), stream(), of(producer()), of(number()))
            .prop_map(|(req, stream, producer, seq)| ClientFrame::Resume { req, request: ResumeRequest { stream, producer, seq } }),
        append(),
        (number(), commit()).prop_map(|(req, request)| ClientFrame::Commit { req, request }),
    ]
}

pub fn append() -> impl Strategy<Value = ClientFrame> {
    (number(), stream(), stream_id(), stamp(), of(number()), events()).prop_map(|(req, stream, stream_id, producer, expected_next_offset, events)| {
        ClientFrame::Append { req, request: AppendRequest { stream, stream_id, events, producer, expected_next_offset } }
    })
}

/// Seconds as JSON can carry them: whole milliseconds.
fn lag() -> impl Strategy<Value = Lag> {
    (number(), number(), 0u64..1 << 30).prop_map(|(events, bytes, millis)| Lag { events, bytes, seconds: millis as f64 / 1000.0 })
}

/// Runs of consecutive events, whole batches and parts of them.
pub fn slices() -> impl Strategy<Value = Vec<Slice>> {
    let one = (batch(20), any::<proptest::sample::Index>(), any::<proptest::sample::Index>()).prop_map(|((batch, _), a, b)| {
        let head = batch.head;
        let (a, b) = (a.index(head.count as usize) as u64, b.index(head.count as usize) as u64);
        Slice::of(batch, head.base_offset + a.min(b)..head.base_offset + a.max(b) + 1).unwrap()
    });
    vec(one, 0..4)
}

fn error() -> impl Strategy<Value = Error> {
    let code = (0..Code::ALL.len()).prop_map(|i| Code::ALL[i]);
    let retry = of(prop_oneof![Just(Retry::Same), Just(Retry::Decide), Just(Retry::Backoff)]);
    (code, text(30), of("[PCT]-[0-9]{1,2}"), of("/v1/streams/[a-z]{1,9}"), retry, proptest::collection::btree_map("[a-z_]{1,8}", number(), 0..3)).prop_map(
        |(code, message, rule, resource, retry, details)| {
            let mut error = Error::new(code, message);
            error.rule = rule;
            error.resource = resource;
            error.retry = retry.unwrap_or(error.retry);
            error.details = details.into_iter().map(|(n, v)| (n, v.into())).collect();
            error
        },
    )
}

fn committed() -> impl Strategy<Value = Committed> {
    let ack =
        (stream(), subscription(), number(), number()).prop_map(|(stream, subscription, offset, next)| CommittedAck { stream, subscription, offset, next });
    let append = (stream(), number(), number(), any::<u32>()).prop_map(|(stream, first_offset, last_offset, count)| CommittedAppend {
        stream,
        first_offset,
        last_offset,
        count,
    });
    (vec(ack, 0..3), vec(append, 0..3), any::<bool>()).prop_map(|(acks, appends, duplicate)| Committed { acks, appends, duplicate })
}

fn opened() -> impl Strategy<Value = ProducerOpened> {
    (producer(), number(), of(number()), of(number()), stream_id(), number(), any::<bool>()).prop_map(
        |(producer, epoch, last_seq, next_offset, stream_id, log_epoch, created)| ProducerOpened {
            producer,
            epoch,
            last_seq,
            next_offset,
            stream_id,
            log_epoch,
            origin: if created { Origin::Created } else { Origin::Resumed },
        },
    )
}

pub fn server_frame() -> impl Strategy<Value = ServerFrame> {
    let limits = proptest::collection::btree_map("[a-z_]{1,8}", number(), 0..3).prop_map(|m| m.into_iter().collect());
    let hello = (text(9), limits, vec("[a-z.]{1,8}", 0..3)).prop_map(|(version, limits, capabilities)| Hello { version, limits, capabilities });
    let subscribed = (stream(), number(), of(number()), number(), number(), number(), number()).prop_map(
        |(stream, id, epoch, next, first_offset, next_offset, log_epoch)| Subscribed {
            stream,
            stream_id: StreamId(id),
            epoch,
            next,
            first_offset,
            next_offset,
            log_epoch,
        },
    );
    let reason = prop_oneof![Just(GapReason::Retention), Just(GapReason::Expired), Just(GapReason::Redacted), Just(GapReason::Compacted)];
    let appended = (of(number()), of(number()), any::<u32>(), any::<bool>()).prop_map(|(first_offset, last_offset, count, duplicate)| Appended {
        first_offset,
        last_offset,
        count,
        duplicate,
    });
    let about = prop_oneof![Just(About::Connection), number().prop_map(About::Req), number().prop_map(About::Sub)];
    prop_oneof![
        hello.prop_map(ServerFrame::Hello),
        (number(), subscribed).prop_map(|(sub, reply)| ServerFrame::Subscribed { sub, reply }),
        (number(), stream(), slices(), lag()).prop_map(|(sub, stream, slices, lag)| ServerFrame::Events { sub, stream, slices, lag }),
        (number(), number()).prop_map(|(sub, next_offset)| ServerFrame::Live { sub, next_offset }),
        (number(), number()).prop_map(|(sub, next)| ServerFrame::Progress { sub, next }),
        (number(), number(), number(), reason).prop_map(|(sub, from, to, reason)| ServerFrame::Gap { sub, from, to, reason }),
        (number(), of(number()), number(), any::<bool>())
            .prop_map(|(sub, offset, next, stale)| ServerFrame::Acked { sub, reply: Acked { offset, next, stale } }),
        number().prop_map(|sub| ServerFrame::Unsubscribed { sub }),
        Just(ServerFrame::Pong),
        (number(), opened()).prop_map(|(req, reply)| ServerFrame::ProducerOpened { req, reply }),
        number().prop_map(|req| ServerFrame::Resumed { req }),
        (number(), appended).prop_map(|(req, reply)| ServerFrame::Appended { req, reply }),
        (number(), committed()).prop_map(|(req, reply)| ServerFrame::Committed { req, reply }),
        (about, error(), text(12)).prop_map(|(about, error, request_id)| ServerFrame::Error { about, error, request_id }),
    ]
}
