//! Random histories against the [`model`](crate::model), with everything evicted all the time: an intent whose rows are
//! cold must neither overtake nor be overtaken within its session.

use proptest::prelude::*;

use crate::model::{self, Append, Ask, Poison, same};
use crate::support::*;

const STREAMS: [&str; 3] = ["a", "b", "c"];
const PRODUCERS: [&str; 4] = ["p", "q", "r", "t"];

/// How an append relates to what its producer did before.
#[derive(Clone, Debug)]
enum Which {
    Next,
    /// A batch sent before, this many back.
    Repeat(usize),
    /// Such a batch with other bytes.
    Reused(usize),
    /// Such a batch, cut shorter or longer.
    Cut(usize, bool),
    Gap(u64),
    OldEpoch,
    FutureEpoch,
}

#[derive(Clone, Debug)]
enum Op {
    Open(usize, usize),
    Append { stream: usize, producer: Option<usize>, which: Which, count: usize, condition: Option<bool> },
    Resume { stream: usize, producer: Option<usize>, wrong: bool },
    Spoil(usize, Option<usize>),
    SpoilAll,
    Commit { streams: Vec<usize>, repeat: bool },
    NewConnection,
    Settle,
    Trim(usize, u64),
    Close(usize),
    Crash,
}

fn op() -> impl Strategy<Value = Op> {
    let which = prop_oneof![
        10 => Just(Which::Next),
        3 => (0usize..70).prop_map(Which::Repeat),
        1 => (0usize..3).prop_map(Which::Reused),
        1 => (0usize..3, any::<bool>()).prop_map(|(back, longer)| Which::Cut(back, longer)),
        1 => (1u64..3).prop_map(Which::Gap),
        1 => Just(Which::OldEpoch),
        1 => Just(Which::FutureEpoch),
    ];
    let producer = prop_oneof![4 => (0usize..4).prop_map(Some), 1 => Just(None)];
    let condition = prop_oneof![8 => Just(None), 1 => Just(Some(true)), 1 => Just(Some(false))];
    let append = (0usize..3, producer.clone(), which, 1usize..4, condition)
        .prop_map(|(stream, producer, which, count, condition)| Op::Append { stream, producer, which, count, condition });
    prop_oneof![
        6 => (0usize..3, 0usize..4).prop_map(|(s, p)| Op::Open(s, p)),
        40 => append,
        8 => (0usize..3, producer.clone(), prop::bool::weighted(0.1)).prop_map(|(stream, producer, wrong)| Op::Resume { stream, producer, wrong }),
        1 => (0usize..3, producer).prop_map(|(s, p)| Op::Spoil(s, p)),
        1 => Just(Op::SpoilAll),
        3 => (prop::collection::vec(0usize..3, 1..4), prop::bool::weighted(0.3)).prop_map(|(streams, repeat)| Op::Commit { streams, repeat }),
        2 => Just(Op::NewConnection),
        3 => Just(Op::Settle),
        1 => (0usize..3, 0u64..100).prop_map(|(s, percent)| Op::Trim(s, percent)),
        1 => (0usize..3).prop_map(Op::Close),
        1 => Just(Op::Crash),
    ]
}

/// An answer that is still to come, and what it has to be.
enum Due {
    Append(Pending<Appended>, Result<Appended, model::Refusal>, String),
    Open(Pending<ProducerOpened>, u64, Option<u64>),
    Resume(Pending<()>, bool),
    Commit(Pending<Committed>, Option<(Vec<(usize, u64)>, bool)>),
}

struct World {
    bench: Bench,
    connection: Connection,
    poison: Poison,
    streams: Vec<model::Stream>,
    /// Broker-wide producer `tx`: epoch, and the answer of each commit it did.
    tx: u64,
    commits: Vec<(CommitRequest, Vec<(usize, u64)>)>,
    due: Vec<Due>,
    /// Which append session of each stream has calls in flight. Only within one session is the order of cold and warm calls promised.
    flying: [Option<Option<usize>>; 3],
    counter: u64,
}

impl World {
    async fn new(settings: Settings) -> Self {
        let bench = Bench::with(settings).await;
        for stream in STREAMS {
            bench.create(stream).await;
        }
        let mut connection = bench.connect();
        let tx = open_wide(&mut connection, "tx").await;
        Self { bench, connection, poison: Poison::default(), streams: vec![Default::default(); 3], tx, commits: Vec::new(), due: Vec::new(), flying: [None; 3], counter: 0 }
    }

    /// The next call is of this session.
    async fn fly(&mut self, stream: usize, producer: Option<usize>) {
        if self.flying[stream].is_some_and(|flying| flying != producer) {
            self.settle().await;
        }
        self.flying[stream] = Some(producer);
    }

    /// Awaits every answer and compares it.
    async fn settle(&mut self) {
        self.flying = [None; 3];
        for due in std::mem::take(&mut self.due) {
            match due {
                Due::Append(pending, expected, what) => same(soon(pending).await, expected, &what),
                Due::Open(pending, epoch, last_seq) => {
                    let opened = soon(pending).await.expect("an opening");
                    assert_eq!((opened.epoch, opened.last_seq), (epoch, last_seq), "{opened:?}");
                }
                Due::Resume(pending, right) => assert_eq!(soon(pending).await.is_ok(), right, "resume"),
                Due::Commit(pending, expected) => match (soon(pending).await, expected) {
                    (Ok(done), Some((places, duplicate))) => {
                        let got: Vec<_> = done.appends.iter().map(|a| (a.stream.as_str().to_owned(), a.first_offset)).collect();
                        let expected: Vec<_> = places.iter().map(|(s, offset)| (STREAMS[*s].to_owned(), *offset)).collect();
                        assert_eq!((got, done.duplicate), (expected, duplicate), "commit");
                    }
                    (Err(error), None) => assert_eq!(error.code, Code::TxnPartFailed, "{error:?}"),
                    (got, expected) => panic!("commit: expected {expected:?}, got {got:?}"),
                },
            }
        }
    }

    fn texts(&mut self, count: usize) -> Vec<String> {
        (0..count)
            .map(|_| {
                self.counter += 1;
                format!("n{}", self.counter)
            })
            .collect()
    }

    /// What the append sends, from where its producer stands.
    fn plan(&mut self, stream: usize, producer: Option<usize>, which: &Which, count: usize) -> Append {
        let texts = self.texts(count);
        let Some(producer) = producer else { return Append { producer: None, texts, expected_next_offset: None } };
        let id = PRODUCERS[producer].to_owned();
        let state = self.streams[stream].producers.get(&id).cloned().unwrap_or_default();
        let (mut epoch, mut seq, mut texts) = (state.epoch, state.next, texts);
        let before = |back: usize| state.receipts.iter().rev().nth(back).cloned();
        match which {
            Which::Next => {}
            Which::Repeat(back) => {
                if let Some(receipt) = before(*back) {
                    (seq, texts) = (receipt.first_seq, receipt.texts);
                }
            }
            Which::Reused(back) => {
                if let Some(receipt) = before(*back) {
                    seq = receipt.first_seq;
                    texts = receipt.texts.iter().map(|t| format!("{t}!")).collect();
                }
            }
            Which::Cut(back, longer) => {
                if let Some(receipt) = before(*back) {
                    seq = receipt.first_seq;
                    if *longer {
                        texts = [receipt.texts, texts].concat();
                    } else if receipt.texts.len() > 1 {
                        texts = receipt.texts[1..].to_vec();
                        seq += 1;
                    }
                }
            }
            Which::Gap(by) => seq += by,
            Which::OldEpoch => epoch = epoch.saturating_sub(1),
            Which::FutureEpoch => epoch += 1,
        }
        Append { producer: Some((id, epoch, seq)), texts, expected_next_offset: None }
    }

    async fn run(&mut self, op: Op) {
        match op {
            Op::Open(s, p) => {
                self.fly(s, Some(p)).await;
                let (epoch, last_seq) = self.streams[s].open(PRODUCERS[p]);
                let pending = soon(self.connection.open_producer(opening(Some(STREAMS[s]), PRODUCERS[p], Expect::Any))).await;
                self.due.push(Due::Open(pending, epoch, last_seq));
            }
            Op::Append { stream, producer, which, count, condition } => {
                self.fly(stream, producer).await;
                let mut append = self.plan(stream, producer, &which, count);
                let next = self.streams[stream].next_offset();
                append.expected_next_offset = condition.map(|right| if right { next } else { next + 1 });
                let expected = self.streams[stream].append_on(&mut self.poison, STREAMS[stream], &append);
                let request = AppendRequest {
                    stream: name(STREAMS[stream]),
                    stream_id: None,
                    events: events(&append.texts),
                    producer: append.producer.as_ref().map(|(id, epoch, seq)| stamp(id, *epoch, *seq)),
                    expected_next_offset: append.expected_next_offset,
                };
                let pending = soon(self.connection.append(request)).await;
                self.due.push(Due::Append(pending, expected, format!("{which:?} on {}: {append:?}", STREAMS[stream])));
            }
            Op::Resume { stream, producer, wrong } => {
                self.fly(stream, producer).await;
                let id = producer.map(|p| PRODUCERS[p]);
                let state = id.and_then(|id| self.streams[stream].producers.get(id));
                let seq = id.map(|_| state.map_or(0, |p| p.next) + u64::from(wrong));
                let right = self.streams[stream].resume(&mut self.poison, STREAMS[stream], id, seq);
                let pending = soon(self.connection.resume(resuming(STREAMS[stream], id, seq))).await;
                self.due.push(Due::Resume(pending, right));
            }
            Op::Spoil(stream, producer) => {
                self.fly(stream, producer).await;
                let id = producer.map(|p| PRODUCERS[p]);
                self.poison.poison(STREAMS[stream], id);
                soon(self.connection.spoil(Some(name(STREAMS[stream])), id.map(crate::support::producer))).await;
            }
            Op::SpoilAll => {
                self.poison.poison_all();
                soon(self.connection.spoil(None, None)).await;
            }
            Op::Commit { streams, repeat } => {
                self.settle().await;
                let kept = self.commits.len().saturating_sub(64);
                let (request, expected) = if repeat && self.commits.len() > kept {
                    let (request, places) = self.commits[kept + self.counter as usize % (self.commits.len() - kept)].clone();
                    let producer = request.producer.map(|p| ProducerStamp { epoch: self.tx, ..p });
                    (CommitRequest { producer, ..request }, Some((places, true)))
                } else {
                    let mut appends = Vec::new();
                    for s in &streams {
                        let texts = self.texts(1);
                        appends.push((*s, texts));
                    }
                    let request = CommitRequest {
                        producer: Some(stamp("tx", self.tx, self.commits.len() as u64)),
                        appends: appends.iter().map(|(s, texts)| commit_append(STREAMS[*s], &[&texts[0]])).collect(),
                        ..CommitRequest::default()
                    };
                    if streams.iter().any(|s| self.streams[*s].closed) {
                        (request, None)
                    } else {
                        let mut places = Vec::new();
                        for (s, texts) in appends {
                            places.push((s, self.streams[s].next_offset()));
                            self.streams[s].events.extend(texts);
                        }
                        self.commits.push((request.clone(), places.clone()));
                        (request, Some((places, false)))
                    }
                };
                let pending = soon(self.connection.commit(request)).await;
                self.due.push(Due::Commit(pending, expected));
                self.settle().await;
            }
            Op::NewConnection => {
                // Order is promised per connection, so the old one's answers come first.
                self.settle().await;
                self.connection = self.bench.connect();
                self.poison = Poison::default();
            }
            Op::Settle => self.settle().await,
            Op::Trim(s, percent) => {
                self.settle().await;
                let stream = &mut self.streams[s];
                let before = stream.first + (stream.next_offset() - stream.first) * percent / 100;
                stream.trim(before);
                let first = stream.first;
                assert_eq!(self.bench.trim(STREAMS[s], before).await.first_offset, first);
            }
            Op::Close(s) => {
                self.settle().await;
                self.streams[s].closed = true;
                self.bench.close(STREAMS[s]).await;
            }
            Op::Crash => {
                self.settle().await;
                let memory = self.bench.memory.reopen();
                self.bench = Bench::on(memory, self.settings()).await;
                self.connection = self.bench.connect();
                self.poison = Poison::default();
            }
        }
    }

    fn settings(&self) -> Settings {
        cramped()
    }

    async fn check(&mut self) {
        self.settle().await;
        for (s, stream) in self.streams.iter().enumerate() {
            let found = self.bench.describe(STREAMS[s]).await;
            assert_eq!((found.first_offset, found.next_offset, found.closed), (stream.first, stream.next_offset(), stream.closed));
            assert_eq!(found.bytes, stream.kept().iter().map(|t| t.len() as u64).sum::<u64>());
            assert_eq!(self.bench.texts(STREAMS[s]).await, stream.kept());
        }
    }
}

fn block_on(future: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(future);
}

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, max_shrink_iters: 300, max_shrink_time: 60_000, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config(256))]

    #[test]
    fn pipelined_appends_of_cold_producers_follow_the_model(ops in prop::collection::vec(op(), 1..120)) {
        block_on(async move {
            let mut world = World::new(cramped()).await;
            for op in ops {
                world.run(op).await;
            }
            world.check().await;
        });
    }
}

// --------------------------------------------------------------------------------------------------------------- cursors

const SUBSCRIPTIONS: [&str; 2] = ["x", "y"];
/// Small, so that windows matter.
const WINDOW: usize = 4;

#[derive(Clone, Debug)]
enum Step {
    Put(usize),
    Trim(u64),
    Attach { sub: usize, from: Option<From>, rewind: bool, reject: bool, skip: bool, log_epoch: Option<u64> },
    /// Take everything one of the sessions may be given.
    Take(usize),
    Ack { session: usize, back: i64, level: AckLevel },
    Commit { session: usize, back: i64 },
    Seek(usize, From),
    Detach(usize),
    Crash,
}

#[derive(Clone, Copy, Debug)]
enum From {
    Earliest,
    Latest,
    /// Relative to the cursor.
    Near(i64),
}

fn step() -> impl Strategy<Value = Step> {
    let from = || prop_oneof![Just(From::Earliest), Just(From::Latest), (-3i64..6).prop_map(From::Near)];
    let level = prop_oneof![2 => Just(AckLevel::Durable), 1 => Just(AckLevel::Received)];
    prop_oneof![
        8 => (1usize..5).prop_map(Step::Put),
        1 => (0u64..100).prop_map(Step::Trim),
        5 => (0usize..2, prop::option::weighted(0.4, from()), any::<bool>(), prop::bool::weighted(0.3), any::<bool>(), prop::option::weighted(0.2, 1u64..3))
            .prop_map(|(sub, from, rewind, reject, skip, log_epoch)| Step::Attach { sub, from, rewind, reject, skip, log_epoch }),
        10 => (0usize..4).prop_map(Step::Take),
        10 => (0usize..4, -2i64..6, level).prop_map(|(session, back, level)| Step::Ack { session, back, level }),
        5 => (0usize..4, -2i64..6).prop_map(|(session, back)| Step::Commit { session, back }),
        1 => (0usize..2, from()).prop_map(|(sub, from)| Step::Seek(sub, from)),
        2 => (0usize..4).prop_map(Step::Detach),
        1 => Just(Step::Crash),
    ]
}

struct Seat {
    sub: usize,
    reader: Option<Reader>,
    handle: SessionHandle,
    epoch: u64,
    /// Where it stands, also after its reader is gone.
    at: u64,
    /// Offsets of the events it was given.
    sent: Vec<u64>,
    on_gap: OnGap,
    over: bool,
}

struct Readers {
    bench: Bench,
    c: Connection,
    model: model::Stream,
    out: u64,
    seats: Vec<Seat>,
    counter: u64,
}

impl Readers {
    async fn new() -> Self {
        let bench = Bench::with(cramped()).await;
        bench.create("s").await;
        bench.create("out").await;
        let mut model = model::Stream::default();
        for subscription in SUBSCRIPTIONS {
            bench.subscribe_new_window("s", subscription, WINDOW as u64).await;
            model.cursors.insert(subscription.to_owned(), model::Cursor::default());
        }
        let c = bench.connect();
        Self { bench, c, model, out: 0, seats: Vec::new(), counter: 0 }
    }

    fn start(&self, sub: usize, from: From) -> Start {
        match from {
            From::Earliest => Start::Earliest,
            From::Latest => Start::Latest,
            From::Near(by) => Start::Offset(self.model.cursors[SUBSCRIPTIONS[sub]].next.saturating_add_signed(by)),
        }
    }

    /// One of the newest seats.
    fn seat(&self, which: usize) -> Option<usize> {
        self.seats.len().checked_sub(which + 1)
    }

    /// Any write to the disk takes what was only received along (C-16).
    fn flushed(&mut self) {
        for cursor in self.model.cursors.values_mut() {
            cursor.durable = cursor.next;
        }
    }

    async fn take(&mut self, index: usize) {
        let (first, end) = (self.model.first, self.model.next_offset());
        let seat = &mut self.seats[index];
        let cursor = self.model.cursors.get_mut(SUBSCRIPTIONS[seat.sub]).expect("it was created");
        let Some(reader) = seat.reader.as_mut().filter(|_| !seat.over) else { return };
        if seat.epoch < cursor.epoch {
            let error = reader.end().await;
            assert_eq!(error.code, Code::SessionFenced, "{error:?}");
            seat.over = true;
            return;
        }
        if reader.at < first && seat.on_gap == OnGap::Fail {
            let error = reader.end().await;
            assert_eq!((error.code, detail(&error, "first_offset")), (Code::CursorTrimmed, first), "{error:?}");
            seat.over = true;
            return;
        }
        // The window counts what was delivered and not acknowledged; a gap is not an event.
        let mut texts = Vec::new();
        while reader.at < end && (reader.at < first || seat.sent.iter().filter(|offset| **offset >= cursor.next).count() < WINDOW) {
            let at = reader.at;
            match reader.next().await.expect("a delivery") {
                Delivery::Events { slices, lag } => {
                    texts.extend(slices.iter().flat_map(texts_of));
                    seat.sent.extend(at..reader.at);
                    assert_eq!(lag.events, end - reader.at, "lag");
                }
                Delivery::Gap { from, to, .. } => assert_eq!((from, to), (at, first - 1)),
                Delivery::Live { .. } => {}
            }
        }
        for (offset, text) in texts {
            assert_eq!(text, self.model.events[offset as usize], "I-4 at {offset}");
        }
        seat.at = reader.at;
        cursor.delivered = Some(reader.at);
    }

    async fn run(&mut self, step: Step) {
        match step {
            Step::Put(count) => {
                let texts: Vec<String> = (0..count).map(|i| format!("e{}.{i}", self.counter)).collect();
                self.counter += 1;
                let refs: Vec<&str> = texts.iter().map(String::as_str).collect();
                assert_eq!(self.bench.put("s", &refs).await.0, self.model.next_offset());
                self.model.events.extend(texts);
                self.flushed();
            }
            Step::Trim(percent) => {
                let before = self.model.first + (self.model.next_offset() - self.model.first) * percent / 100;
                self.model.trim(before);
                self.bench.trim("s", before).await;
            }
            Step::Attach { sub, from, rewind, reject, skip, log_epoch } => {
                let from = from.map(|from| self.start(sub, from));
                let on_gap = if skip { OnGap::Skip } else { OnGap::Fail };
                let ask = Ask { from, rewind, reject, on_gap, log_epoch };
                let expected = self.model.attach(SUBSCRIPTIONS[sub], &ask);
                let request = SubscribeRequest {
                    from,
                    rewind,
                    log_epoch,
                    takeover: if reject { Takeover::Reject } else { Takeover::Steal },
                    on_gap: Some(on_gap),
                    ..attach("s", SUBSCRIPTIONS[sub])
                };
                let opened = Reader::open(&mut self.c, request).await;
                let reader = match (opened, &expected) {
                    (Ok(reader), Ok(_)) => reader,
                    (got, _) => return same(got.map(|r| (r.epoch(), r.opened.next)), expected, &format!("{ask:?}")),
                };
                self.flushed();
                same(Ok((reader.epoch(), reader.opened.next)), expected, &format!("{ask:?}"));
                let seat = Seat { sub, handle: reader.handle.clone(), epoch: reader.epoch(), at: reader.at, sent: Vec::new(), on_gap, over: false, reader: Some(reader) };
                self.seats.push(seat);
            }
            Step::Take(which) => {
                if let Some(index) = self.seat(which) {
                    self.take(index).await;
                }
            }
            Step::Ack { session, back, level } => {
                let Some(index) = self.seat(session) else { return };
                let seat = &self.seats[index];
                let Some(offset) = seat.at.checked_add_signed(-1 - back) else { return };
                let expected = self.model.ack(SUBSCRIPTIONS[seat.sub], seat.epoch, offset + 1, level);
                let got = answer(self.c.ack(&seat.handle, offset, level)).await;
                same(got, expected, &format!("ack {offset} by session {} of {}", seat.epoch, SUBSCRIPTIONS[seat.sub]));
            }
            Step::Commit { session, back } => {
                let Some(index) = self.seat(session) else { return };
                let seat = &self.seats[index];
                let subscription = SUBSCRIPTIONS[seat.sub];
                let Some(offset) = seat.at.checked_add_signed(-1 - back) else { return };
                let before = self.model.cursors[subscription].next;
                let expected = match self.model.check_ack(subscription, seat.epoch, offset + 1) {
                    Ok(acked) if acked.next == before => Err(Code::AckStale),
                    Ok(acked) => Ok(acked),
                    Err(refusal) => Err(refusal.code),
                };
                let request = CommitRequest {
                    acks: vec![commit_ack("s", subscription, seat.epoch, offset)],
                    appends: vec![commit_append("out", &["effect"])],
                    ..CommitRequest::default()
                };
                let got = answer(self.c.commit(request)).await;
                match expected {
                    Err(cause) => drop(part_refused(got, "acks", 0, cause)),
                    Ok(acked) => {
                        let done = got.unwrap_or_else(|e| panic!("{e:?}"));
                        assert_eq!((done.acks[0].next, done.appends[0].first_offset), (acked.next, self.out));
                        self.out += 1;
                        self.model.ack(subscription, seat.epoch, offset + 1, AckLevel::Durable).expect("it was checked");
                        self.flushed();
                    }
                }
            }
            Step::Seek(sub, from) => {
                let to = self.start(sub, from);
                let expected = self.model.seek(SUBSCRIPTIONS[sub], to);
                let got = soon(self.bench.broker.seek(&OPERATOR, &name("s"), &crate::support::sub(SUBSCRIPTIONS[sub]), to)).await;
                if expected.is_ok() {
                    self.flushed();
                }
                same(got.map(|s| (s.epoch, s.next)), expected, &format!("seek to {to:?}"));
            }
            Step::Detach(which) => {
                let Some(index) = self.seat(which) else { return };
                let seat = &mut self.seats[index];
                seat.reader = None;
                let cursor = self.model.cursors.get_mut(SUBSCRIPTIONS[seat.sub]).expect("it was created");
                if seat.epoch == cursor.epoch {
                    cursor.attached = false;
                }
            }
            Step::Crash => {
                let memory = self.bench.memory.reopen();
                self.seats.clear();
                self.bench = Bench::on(memory, cramped()).await;
                self.c = self.bench.connect();
                self.model.crash();
                for subscription in SUBSCRIPTIONS {
                    let found = self.bench.subscription("s", subscription).await;
                    let cursor = self.model.cursors.get_mut(subscription).expect("it was created");
                    assert!(cursor.durable <= found.next && found.next <= cursor.next, "C-16: {} not in {}…{}", found.next, cursor.durable, cursor.next);
                    assert_eq!(found.epoch, cursor.epoch, "S-8");
                    (cursor.next, cursor.durable) = (found.next, found.next);
                }
            }
        }
    }

    async fn check(&mut self) {
        for subscription in SUBSCRIPTIONS {
            let found = self.bench.subscription("s", subscription).await;
            let cursor = &self.model.cursors[subscription];
            assert!(cursor.durable <= found.next && found.next <= cursor.next, "{} not in {}…{}", found.next, cursor.durable, cursor.next);
            assert_eq!(found.epoch, cursor.epoch);
            let from = found.next.max(self.model.first);
            assert_eq!(found.lag.events, self.model.next_offset() - from);
            assert_eq!(found.lag.bytes, self.model.events[from as usize..].iter().map(|t| t.len() as u64).sum::<u64>());
        }
        assert_eq!(self.bench.next_offset("out").await, self.out);
        assert_eq!(self.bench.texts("s").await, self.model.kept());
    }
}

proptest! {
    #![proptest_config(config(256))]

    #[test]
    fn sessions_acks_and_commits_follow_the_model(steps in prop::collection::vec(step(), 1..80)) {
        block_on(async move {
            let mut readers = Readers::new().await;
            for step in steps {
                readers.run(step).await;
            }
            readers.check().await;
        });
    }
}
