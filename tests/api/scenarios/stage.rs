//! Where a scenario plays: the carrier under test, another one, and two helpers for the steps these lack. Everything that is said
//! is written down, so that the histories of all carriers can be laid side by side.

use std::collections::BTreeMap;
use std::fmt::Debug;

use serde_json::Value;
use tempfile::TempDir;
use tidelog::server::{Config, Mode, Server, Storage};

use super::carrier::{Address, Answer, Carrier, Kind, ReaderNumber, Step};
use super::values::{
    Acked, Append, Commit, Committed, Delivery, Event, List, New, Opened, Refusal, Stored, StreamSeen, Subscribe, Subscribed, SubscriptionSeen, numbers, to,
};

/// A broker on a disk of its own, which can be stopped and started again.
pub struct Broker {
    dir: TempDir,
    server: Option<Server>,
}

impl Broker {
    pub async fn start() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let server = Some(Self::serve(&dir).await);
        Self { dir, server }
    }

    async fn serve(dir: &TempDir) -> Server {
        let mut config = Config::for_tests(Mode::Serve { trust_loopback: true }, dir.path());
        config.storage = Storage::Rocks;
        config.raw.storage.cache_bytes = 8 << 20;
        config.raw.storage.write_buffer_bytes = 16 << 20;
        config.raw.storage.ballast_bytes = Some(0);
        config.raw.storage.free_min_bytes = Some(0);
        Server::start(config).await.expect("the broker starts")
    }

    pub fn address(&self) -> Address {
        let server = self.server.as_ref().expect("it runs");
        Address { tcp: server.address(), unix: server.socket().to_owned() }
    }

    pub async fn stop(&mut self) {
        self.server.take().expect("it runs").stop().await.expect("a clean stop");
    }

    pub async fn start_again(&mut self) {
        self.server = Some(Self::serve(&self.dir).await);
    }
}

/// Who plays: two carriers and two helpers.
const PLAYERS: usize = 4;
/// Does what carriers without a control plane cannot.
const REST: usize = 2;
/// Does the rest.
const FRAMES: usize = 3;

/// A reader, and whose it is.
#[derive(Clone, Copy, Debug)]
pub struct Reader {
    player: usize,
    number: ReaderNumber,
}

/// A producer, numbering its events.
#[derive(Clone, Debug)]
struct Numbering {
    epoch: u64,
    next_seq: u64,
}

/// See the module.
pub struct Stage<'a> {
    broker: &'a mut Broker,
    kinds: [Kind; PLAYERS],
    players: Vec<Box<dyn Carrier>>,
    /// Whose turn it is: 0 or 1.
    turn: usize,
    /// Before every name, so that all carriers can play on one broker; not written down.
    prefix: String,
    numbering: BTreeMap<(usize, String, String), Numbering>,
    transcript: Vec<String>,
    deleted: bool,
}

/// What a step answered, and its text.
#[must_use = "say what you expect: is(…), ok() or refused()"]
pub struct Said<T> {
    pub answer: Answer<T>,
    pub text: String,
    step: String,
}

impl<T: Debug> Said<T> {
    /// The answer, after its text was compared.
    #[track_caller]
    pub fn is(self, text: &str) -> Answer<T> {
        assert_eq!(self.text, text, "{}", self.step);
        self.answer
    }

    /// The good answer, whatever it says: the transcripts are compared anyway.
    #[track_caller]
    pub fn ok(self) -> T {
        self.answer.unwrap_or_else(|why| panic!("{}: {why}", self.step))
    }

    /// A refusal that begins like this: code and rule.
    #[track_caller]
    pub fn refused(self, begin: &str) -> Refusal {
        let why = self.answer.expect_err(&self.step);
        assert!(self.text.starts_with(&format!("{begin}, ")), "{}: {}", self.step, self.text);
        why
    }
}

impl<'a> Stage<'a> {
    pub fn new(broker: &'a mut Broker, main: Kind, other: Kind, prefix: &str) -> Self {
        let kinds = [main, other, Kind::Rest, Kind::WsJson];
        let at = broker.address();
        let players = kinds.iter().map(|kind| kind.open(&at)).collect();
        Self { broker, kinds, players, turn: 0, prefix: prefix.to_owned(), numbering: BTreeMap::new(), transcript: Vec::new(), deleted: false }
    }

    /// What was heard, and whether a stream was deleted: from then on the epochs of new streams begin higher (S-8), so that the
    /// next carrier needs a broker of its own to hear the same.
    pub fn finish(self) -> (Vec<String>, bool) {
        (self.transcript, self.deleted)
    }

    /// From here on the other carrier does what it can.
    pub fn other(&mut self) -> &mut Self {
        self.turn = 1;
        self
    }

    /// From here on the first carrier does what it can.
    pub fn first(&mut self) -> &mut Self {
        self.turn = 0;
        self
    }

    /// A clean stop, and a start on the same directory. Everybody connects anew.
    pub async fn restart(&mut self) {
        self.broker.stop().await;
        self.broker.start_again().await;
        let at = self.broker.address();
        self.players = self.kinds.iter().map(|kind| kind.open(&at)).collect();
        self.transcript.push("— the broker was restarted —".to_owned());
    }

    /// Who does a step: whose turn it is, if they can.
    fn player(&self, steps: &[Step]) -> usize {
        [self.turn, REST, FRAMES].into_iter().find(|player| self.kinds[*player].can(steps)).unwrap_or_else(|| panic!("nobody can {steps:?}"))
    }

    fn doing(&mut self, step: Step) -> &mut dyn Carrier {
        let player = self.player(&[step]);
        &mut *self.players[player]
    }

    /// A name as the broker knows it.
    fn full(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    fn said<T>(&mut self, step: String, answer: Answer<T>, text: impl FnOnce(&T) -> String) -> Said<T> {
        let all = match &answer {
            Ok(value) => text(value),
            Err(why) => why.to_string(),
        };
        let text = all.replace(&self.prefix, "");
        let step = step.replace(&self.prefix, "");
        self.transcript.push(format!("{step} → {text}"));
        Said { answer, text, step }
    }

    fn full_append(&self, append: &Append) -> Append {
        Append { stream: self.full(&append.stream), ..append.clone() }
    }

    // The control plane.

    /// A stream with nothing special.
    pub async fn create(&mut self, name: &str) -> StreamSeen {
        self.create_with(name, serde_json::json!({})).await.ok()
    }

    pub async fn create_with(&mut self, name: &str, fields: Value) -> Said<StreamSeen> {
        let (step, name) = (format!("create {name} {fields}"), self.full(name));
        let answer = self.doing(Step::Administer).create_stream(&name, fields).await;
        self.said(step, answer, StreamSeen::to_string)
    }

    pub async fn describe(&mut self, stream: &str) -> Said<StreamSeen> {
        let name = self.full(stream);
        let answer = self.doing(Step::Administer).describe(&name).await;
        self.said(format!("describe {stream}"), answer, StreamSeen::to_string)
    }

    pub async fn trim(&mut self, stream: &str, before: u64) -> Said<StreamSeen> {
        let name = self.full(stream);
        let answer = self.doing(Step::Administer).trim(&name, before).await;
        self.said(format!("trim {stream} before {before}"), answer, StreamSeen::to_string)
    }

    pub async fn close(&mut self, stream: &str) -> Said<StreamSeen> {
        let name = self.full(stream);
        let answer = self.doing(Step::Administer).close_stream(&name).await;
        self.said(format!("close {stream}"), answer, StreamSeen::to_string)
    }

    pub async fn delete(&mut self, stream: &str) -> Said<String> {
        let name = self.full(stream);
        self.deleted = true;
        let answer = self.doing(Step::Administer).delete_stream(&name).await;
        self.said(format!("delete {stream}"), answer, String::clone)
    }

    pub async fn create_subscription(&mut self, stream: &str, name: &str, fields: Value) -> Said<SubscriptionSeen> {
        let (step, stream) = (format!("create subscription {name} of {stream} {fields}"), self.full(stream));
        let answer = self.doing(Step::Administer).create_subscription(&stream, name, fields).await;
        self.said(step, answer, SubscriptionSeen::to_string)
    }

    pub async fn cursor(&mut self, stream: &str, name: &str) -> Said<SubscriptionSeen> {
        let (step, stream) = (format!("describe subscription {name} of {stream}"), self.full(stream));
        let answer = self.doing(Step::Administer).describe_subscription(&stream, name).await;
        self.said(step, answer, SubscriptionSeen::to_string)
    }

    pub async fn delete_subscription(&mut self, stream: &str, name: &str) -> Said<()> {
        let (step, stream) = (format!("delete subscription {name} of {stream}"), self.full(stream));
        let answer = self.doing(Step::Administer).delete_subscription(&stream, name).await;
        self.said(step, answer, |()| "done".to_owned())
    }

    pub async fn seek(&mut self, stream: &str, name: &str, to: Value) -> Said<SubscriptionSeen> {
        let (step, stream) = (format!("seek {name} of {stream} to {to}"), self.full(stream));
        let answer = self.doing(Step::Administer).seek(&stream, name, to).await;
        self.said(step, answer, SubscriptionSeen::to_string)
    }

    // Appending and reading.

    /// One append, as it is.
    pub async fn put(&mut self, append: Append) -> Said<Stored> {
        let mut player = self.turn;
        for (needed, step) in [(append.stamp.is_some(), Step::AppendStamped), (append.stream_id.is_some(), Step::AppendToId)] {
            if needed && !self.kinds[player].can(&[step]) {
                player = FRAMES;
            }
        }
        let full = self.full_append(&append);
        let answer = self.players[player].append(&full).await;
        self.said(append.to_string(), answer, Stored::to_string)
    }

    pub async fn append(&mut self, stream: &str, events: impl Into<Vec<New>>) -> Said<Stored> {
        self.put(to(stream, events)).await
    }

    /// Appends the JSON numbers of a range, in one batch.
    pub async fn fill(&mut self, stream: &str, range: std::ops::Range<u64>) {
        self.append(stream, numbers(range)).await.ok();
    }

    /// Many appends without waiting in between, where the carrier can.
    pub async fn put_all(&mut self, appends: Vec<Append>) -> Vec<Said<Stored>> {
        let full: Vec<_> = appends.iter().map(|append| self.full_append(append)).collect();
        let answers = if self.kinds[self.turn].can(&[Step::Pipeline]) {
            self.players[self.turn].append_all(&full).await
        } else {
            let mut answers = Vec::new();
            for append in &full {
                answers.push(self.players[self.turn].append(append).await);
            }
            answers
        };
        appends.iter().zip(answers).map(|(append, answer)| self.said(append.to_string(), answer, Stored::to_string)).collect()
    }

    pub async fn resume(&mut self, stream: &str, producer: Option<&str>, seq: Option<u64>) -> Said<()> {
        let name = self.full(stream);
        let answer = self.doing(Step::Pipeline).resume(&name, producer, seq).await;
        self.said(format!("resume {stream} {producer:?} {seq:?}"), answer, |()| "resumed".to_owned())
    }

    /// Events from an offset that is kept.
    pub async fn read(&mut self, stream: &str, from: u64, limit: u64) -> Said<List<Event>> {
        let name = self.full(stream);
        let answer = self.players[self.turn].read(&name, from, limit).await.map(List);
        if let Ok(List(events)) = &answer {
            let offsets: Vec<_> = events.iter().map(|e| e.offset).collect();
            assert_eq!(offsets, (from..from + events.len() as u64).collect::<Vec<_>>(), "offsets are dense");
            assert!(events.is_sorted_by_key(|e| e.time), "time never falls");
        }
        self.said(format!("read {stream} from {from}, {limit} at most"), answer, List::<Event>::to_string)
    }

    pub async fn read_one(&mut self, stream: &str, which: &str) -> Said<Event> {
        let name = self.full(stream);
        let answer = self.doing(Step::ReadOne).read_one(&name, which).await;
        self.said(format!("read event {which} of {stream}"), answer, Event::to_string)
    }

    // Producers.

    pub async fn open(&mut self, stream: &str, id: &str, expect: &str) -> Said<Opened> {
        let (player, name) = (self.player(&[Step::OpenProducer]), self.full(stream));
        let answer = self.players[player].open_producer(Some(&name), id, expect).await;
        if let Ok(opened) = &answer {
            let numbering = Numbering { epoch: opened.epoch, next_seq: opened.last_seq.map_or(0, |last| last + 1) };
            self.numbering.insert((self.turn, stream.to_owned(), id.to_owned()), numbering);
        }
        self.said(format!("open producer {id} of {stream}, {expect}"), answer, Opened::to_string)
    }

    /// A producer of commits. Its id is the user's, so it carries the prefix.
    pub async fn open_commits(&mut self, id: &str, expect: &str) -> Said<Opened> {
        let full = self.full(id);
        let answer = self.doing(Step::OpenCommitProducer).open_producer(None, &full, expect).await;
        self.said(format!("open producer {id} of commits, {expect}"), answer, Opened::to_string)
    }

    /// The next events of a producer opened in this turn.
    pub async fn send(&mut self, stream: &str, id: &str, events: impl Into<Vec<New>>) -> Said<Stored> {
        let key = (self.turn, stream.to_owned(), id.to_owned());
        let Numbering { epoch, next_seq } = self.numbering[&key];
        let append = to(stream, events).stamp(id, epoch, next_seq);
        let full = self.full_append(&append);
        let player = &mut self.players[self.turn];
        let answer = if self.kinds[self.turn].can(&[Step::AppendStamped]) { player.append(&full).await } else { player.send(&full).await };
        if answer.is_ok() {
            self.numbering.get_mut(&key).expect("it was there").next_seq += append.events.len() as u64;
        }
        self.said(append.to_string(), answer, Stored::to_string)
    }

    // Readers.

    pub async fn subscribe(&mut self, ask: Subscribe) -> Said<(Reader, Subscribed)> {
        let mut steps = vec![if ask.subscription.is_some() { Step::Subscribe } else { Step::Follow }];
        steps.extend(ask.rewind.then_some(Step::Rewind));
        let player = self.player(&steps);
        let full = Subscribe { stream: self.full(&ask.stream), ..ask.clone() };
        let answer = self.players[player].subscribe(&full).await.map(|(number, subscribed)| (Reader { player, number }, subscribed));
        self.said(ask.to_string(), answer, |(_, subscribed)| subscribed.to_string())
    }

    /// Attaches; the answer is in the transcript.
    pub async fn reader(&mut self, ask: Subscribe) -> Reader {
        self.subscribe(ask).await.ok().0
    }

    /// The next delivery.
    pub async fn next(&mut self, reader: Reader) -> Said<Delivery> {
        let delivery = self.players[reader.player].next(reader.number).await;
        self.said("next".to_owned(), Ok(delivery), Delivery::to_string)
    }

    /// The next deliveries must be these.
    pub async fn hears(&mut self, reader: Reader, texts: &[&str]) {
        for text in texts {
            let said = self.next(reader).await;
            assert_eq!(said.text, *text, "of {texts:?}");
        }
    }

    /// The next event; being told that it is live is passed over, since that depends on when an append came.
    pub async fn next_event(&mut self, reader: Reader) -> Event {
        loop {
            match self.players[reader.player].next(reader.number).await {
                Delivery::Event(event) => {
                    return self.said("next event".to_owned(), Ok(event), Event::to_string).ok();
                }
                Delivery::Live { .. } => {}
                other => panic!("{other} instead of an event"),
            }
        }
    }

    /// The next events must have these offsets.
    pub async fn hears_offsets(&mut self, reader: Reader, range: std::ops::Range<u64>) {
        for offset in range {
            assert_eq!(self.next_event(reader).await.offset, offset);
        }
    }

    /// The session must end like this.
    pub async fn hears_end(&mut self, reader: Reader, begin: &str) {
        loop {
            match self.players[reader.player].next(reader.number).await {
                Delivery::Live { .. } => {}
                end => {
                    let said = self.said("the end".to_owned(), Ok(end), Delivery::to_string);
                    assert!(said.text.starts_with(&format!("end: {begin}, ")), "{} instead of {begin}", said.text);
                    return;
                }
            }
        }
    }

    pub async fn ack(&mut self, reader: Reader, offset: u64) -> Said<Acked> {
        let answer = self.players[reader.player].ack(reader.number, offset).await;
        self.said(format!("ack {offset}"), answer, Acked::to_string)
    }

    pub async fn credit(&mut self, reader: Reader, events: u64) {
        self.players[reader.player].credit(reader.number, events).await;
        self.transcript.push(format!("credit {events}"));
    }

    /// Nothing is on its way to this reader.
    pub async fn is_quiet(&mut self, reader: Reader) {
        assert!(self.players[reader.player].is_quiet(reader.number).await, "something came");
        self.transcript.push("nothing came".to_owned());
    }

    pub async fn unsubscribe(&mut self, reader: Reader) {
        let answer = self.players[reader.player].unsubscribe(reader.number).await;
        self.said("unsubscribe".to_owned(), answer, |()| "detached".to_owned()).ok();
    }

    pub async fn commit(&mut self, commit: Commit) -> Said<Committed> {
        let mut full = commit.clone();
        let prefix = self.prefix.clone();
        let add = |name: &mut String| name.insert_str(0, &prefix);
        full.producer.iter_mut().for_each(|p| add(&mut p.id));
        full.acks.iter_mut().for_each(|a| add(&mut a.stream));
        full.appends.iter_mut().for_each(|a| add(&mut a.stream));
        full.checks.iter_mut().for_each(|(stream, _)| add(stream));
        let answer = self.doing(Step::Commit).commit(&full).await;
        self.said(commit.to_string(), answer, Committed::to_string)
    }
}
