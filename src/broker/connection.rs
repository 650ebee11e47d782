//! One ordered client connection. Calls of one append session (stream and producer) take effect in the order they are made;
//! so do calls on one cursor. Between different streams there is no order: a stream whose rows have to be read from disk
//! does not hold up the others.
//!
//! Each call has two stages. Awaiting the method is admission: it resolves when the request has its place in the commit
//! order, and a caller that awaits it before reading the next frame feels the back-pressure. The [`Pending`] it returns is
//! the answer.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};

use tokio::sync::oneshot;

use super::access::{Principal, Watch, rung};
use super::intent::{AppendIntent, Author, Intent, Pipe, Reply};
use super::session::{Session, SessionHandle};
use super::{Broker, appending};
use crate::types::reply::{Acked, Appended, Committed, ProducerOpened, Subscribed};
use crate::types::request::{AckLevel, AckRequest, AppendRequest, CommitRequest, OpenProducerRequest, ResumeRequest, SubscribeRequest};
use crate::types::{Action, Code, Error, ProducerId, Result, StreamId, StreamName, limits};

/// An answer that is still to come. Dropping it does not take the request back (P-13).
pub struct Pending<T>(Stage<T>);

enum Stage<T> {
    Known(Option<Result<T>>),
    Waiting(oneshot::Receiver<Result<T>>, Outstanding),
    Derived(Pin<Box<dyn Future<Output = Result<T>> + Send>>),
}

impl<T> Pending<T> {
    /// It is known already.
    pub fn known(result: Result<T>) -> Self {
        Self(Stage::Known(Some(result)))
    }

    pub(super) fn derived(future: impl Future<Output = Result<T>> + Send + 'static) -> Self {
        Self(Stage::Derived(Box::pin(future)))
    }
}

impl<T: Unpin> Future for Pending<T> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<T>> {
        match &mut self.0 {
            Stage::Known(result) => Poll::Ready(result.take().unwrap_or_else(|| Err(Error::internal("an answer was asked for twice")))),
            Stage::Waiting(receiver, outstanding) => {
                let answer = Pin::new(receiver).poll(cx).map(|r| r.unwrap_or_else(|_| Err(lost())));
                if answer.is_ready() {
                    outstanding.end();
                }
                answer
            }
            Stage::Derived(future) => future.as_mut().poll(cx),
        }
    }
}

/// The commit loop ended without an answer.
pub(super) fn lost() -> Error {
    Error::new(Code::OutcomeUnknown, "The broker stopped before it answered: the request may or may not have happened. Send it again unchanged.")
}

/// An append session, and of what stream and producer it is.
type LastPipe = (StreamName, Option<ProducerId>, Arc<Pipe>);

/// An append session as the connection knows it.
struct Known {
    pipe: Arc<Pipe>,
    /// Poisoned from here, and not resumed since. To poison it again would change nothing, and the queue has no bound for that.
    spoilt: bool,
}

/// See the module.
pub struct Connection {
    broker: Broker,
    who: Principal,
    /// Rings when the credential may be over.
    watch: Option<Box<Watch>>,
    pipes: HashMap<(String, Option<ProducerId>), Known>,
    /// The append session used last: a connection mostly goes on with it. Behind a box, since most connections only read.
    last_pipe: Option<Box<LastPipe>>,
    /// A frame was so broken that it may have been of any session: those that are used for the first time later are poisoned too.
    spoiled: bool,
    /// Since then no session was resumed: another such frame changes nothing.
    all_spoilt: bool,
    /// At so many append sessions those at rest are forgotten.
    pipes_prune_at: usize,
    outstanding: Arc<AtomicUsize>,
    /// So many more requests one at a time, and it counts as a caller that always has one outstanding.
    pipelining: AtomicUsize,
}

/// After a request beside another one, so many must come alone before a connection counts as one that waits for each answer.
const ALONE_AGAIN: usize = 16;

/// Counts a request until its answer is there, or nobody waits for it.
struct Outstanding(Option<Arc<AtomicUsize>>);

impl Outstanding {
    fn end(&mut self) {
        if let Some(count) = self.0.take() {
            count.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Outstanding {
    fn drop(&mut self) {
        self.end();
    }
}

impl Connection {
    pub(super) fn new(broker: Broker, who: Principal) -> Self {
        Self {
            watch: broker.watch(&who),
            broker,
            who,
            pipes: HashMap::new(),
            last_pipe: None,
            spoiled: false,
            all_spoilt: false,
            pipes_prune_at: limits::APPEND_SESSIONS,
            outstanding: Arc::default(),
            pipelining: AtomicUsize::new(0),
        }
    }

    /// For whom.
    pub fn principal(&self) -> &Principal {
        &self.who
    }

    /// Resolves when the credential that this connection was opened with is good no more. Cancel-safe.
    pub async fn revoked(&mut self) -> Error {
        loop {
            if self.watch.as_deref_mut().is_some_and(Watch::take)
                && let Err(error) = Box::pin(self.broker.still_good(&self.who)).await
            {
                return error;
            }
            rung(&mut self.watch).await;
        }
    }

    fn pipe(&mut self, stream: &StreamName, producer: Option<&ProducerId>) -> Arc<Pipe> {
        if let Some((last_stream, last_producer, pipe)) = self.last_pipe.as_deref()
            && last_stream == stream
            && last_producer.as_ref() == producer
        {
            return pipe.clone();
        }
        let pipe = self.find_pipe(stream, producer);
        self.last_pipe = Some(Box::new((stream.clone(), producer.cloned(), pipe.clone())));
        pipe
    }

    fn find_pipe(&mut self, stream: &StreamName, producer: Option<&ProducerId>) -> Arc<Pipe> {
        if self.pipes.len() >= self.pipes_prune_at {
            self.prune();
        }
        let spoiled = self.spoiled;
        let new = || Known { pipe: Arc::new(Pipe { poisoned: AtomicBool::new(spoiled) }), spoilt: spoiled };
        self.pipes.entry((stream.folded().into_owned(), producer.cloned())).or_insert_with(new).pipe.clone()
    }

    /// Forgets sessions at rest that are like one that never was. Where that leaves many, it forgets all at rest, and from now on a session
    /// begins poisoned: that may be one refusal too many, but never a hole (P-12).
    fn prune(&mut self) {
        let at_rest = |known: &Known| Arc::strong_count(&known.pipe) == 1;
        let spoiled = self.spoiled;
        self.pipes.retain(|_, known| !at_rest(known) || known.pipe.poisoned.load(Ordering::Relaxed) != spoiled);
        if self.pipes.len() > limits::APPEND_SESSIONS / 2 {
            self.spoiled = true;
            self.pipes.retain(|_, known| !at_rest(known));
        }
        self.pipes_prune_at = limits::APPEND_SESSIONS.max(2 * self.pipes.len());
    }

    /// Notes that a session is poisoned from here, or goes on. What it was before.
    fn note(&mut self, stream: &StreamName, producer: Option<&ProducerId>, spoilt: bool) -> bool {
        match self.pipes.get_mut(&(stream.folded().into_owned(), producer.cloned())) {
            Some(known) => std::mem::replace(&mut known.spoilt, spoilt),
            None => false,
        }
    }

    /// Will this caller come back only when it is answered? One that pipelines has nothing outstanding when a whole group answers it, and
    /// must not be waited for: its burst would fall in step with the syncs, and nothing would happen during either (`decisions.md` section 4).
    fn is_solo(&self, alone: bool) -> bool {
        if !alone {
            self.pipelining.store(ALONE_AGAIN, Ordering::Relaxed);
            return false;
        }
        let left = self.pipelining.load(Ordering::Relaxed);
        self.pipelining.store(left.saturating_sub(1), Ordering::Relaxed);
        left == 0
    }

    async fn submit<T: Unpin + Send + 'static>(&self, bytes: usize, make: impl FnOnce(oneshot::Sender<Result<T>>) -> Intent) -> Pending<T> {
        let permit = match self.broker.admit(bytes).await {
            Ok(permit) => permit,
            Err(error) => return Pending::known(Err(error)),
        };
        let (reply, answer) = oneshot::channel();
        let solo = self.is_solo(self.outstanding.fetch_add(1, Ordering::Relaxed) == 0);
        let outstanding = Outstanding(Some(self.outstanding.clone()));
        self.broker.submit(make(reply), Some(permit), solo);
        Pending(Stage::Waiting(answer, outstanding))
    }

    /// P-1 … P-18.
    pub async fn append(&mut self, request: AppendRequest) -> Pending<Appended> {
        match self.broker.allowed_at_once(&self.who, &request.stream, Action::Write) {
            Some(allowed) => match self.append_intent(allowed, request) {
                Ok(intent) => self.append_intended(intent).await,
                Err(error) => Pending::known(Err(error)),
            },
            // Rare, and behind a box it does not make every connection larger.
            None => Box::pin(self.append_after_a_look(request)).await,
        }
    }

    async fn append_after_a_look(&mut self, request: AppendRequest) -> Pending<Appended> {
        let allowed = self.broker.allowed(&self.who, &request.stream, Action::Write).await;
        match self.append_intent(allowed, request) {
            Ok(intent) => self.append_intended(intent).await,
            Err(error) => Pending::known(Err(error)),
        }
    }

    /// What a refused one leaves behind is a poisoned session (P-12).
    fn append_intent(&mut self, allowed: Result<Option<StreamId>>, mut request: AppendRequest) -> Result<Box<AppendIntent>> {
        let pipe = self.pipe(&request.stream, request.producer.as_ref().map(|p| &p.id));
        match allowed {
            // What was allowed is that stream, not another one that has its name a moment later.
            Ok(known_as) => request.stream_id = request.stream_id.or(known_as),
            Err(error) => {
                let AppendRequest { stream, producer, .. } = request;
                let producer = producer.map(|p| p.id);
                if !self.note(&stream, producer.as_ref(), true) {
                    self.broker.submit(Intent::Spoil { stream, producer, pipe }, None, false);
                }
                return Err(error);
            }
        }
        Ok(Box::new(appending::intent(request, Author::from(&self.who), Some(pipe))))
    }

    async fn append_intended(&self, intent: Box<AppendIntent>) -> Pending<Appended> {
        let bytes = intent.events.encoded().len();
        let conditional = appending::Conditional::of(&intent);
        let pending = self.submit(bytes, |reply| Intent::Append(intent, reply)).await;
        match conditional {
            None => pending,
            Some(conditional) => {
                let broker = self.broker.clone();
                Pending::derived(async move { conditional.explain(&broker, pending.await).await })
            }
        }
    }

    /// An append frame that did not decode: poisons its session in order; every session when the stream is not readable (P-12).
    pub async fn spoil(&mut self, stream: Option<StreamName>, producer: Option<ProducerId>) {
        match stream {
            Some(stream) => {
                let pipe = self.pipe(&stream, producer.as_ref());
                if !self.note(&stream, producer.as_ref(), true) {
                    // It takes its place also where there is no room: what follows in its session must find it.
                    let permit = self.broker.admit(0).await.ok();
                    self.broker.submit(Intent::Spoil { stream, producer, pipe }, permit, false);
                }
            }
            None => {
                self.spoiled = true;
                if std::mem::replace(&mut self.all_spoilt, true) {
                    return;
                }
                // It would look as if something of that session were on its way.
                self.last_pipe = None;
                for ((stream, producer), known) in &mut self.pipes {
                    if std::mem::replace(&mut known.spoilt, true) {
                        continue;
                    }
                    match Arc::get_mut(&mut known.pipe) {
                        // Nothing of it is on its way that this could overtake, and there may be thousands of these.
                        Some(at_rest) => *at_rest.poisoned.get_mut() = true,
                        None => {
                            let (stream, producer) = (StreamName::stored(stream), producer.clone());
                            self.broker.submit(Intent::Spoil { stream, producer, pipe: known.pipe.clone() }, None, false);
                        }
                    }
                }
            }
        }
    }

    /// Ends the poisoning of one append session (P-12).
    pub async fn resume(&mut self, request: ResumeRequest) -> Pending<()> {
        if let Err(error) = self.broker.may(&self.who, &request.stream, Action::Write).await {
            return Pending::known(Err(error));
        }
        let pipe = self.pipe(&request.stream, request.producer.as_ref());
        self.note(&request.stream, request.producer.as_ref(), false);
        self.all_spoilt = false;
        let ResumeRequest { stream, producer, seq } = request;
        self.submit(0, |reply| Intent::Resume { stream, producer, seq, pipe, reply }).await
    }

    /// A new epoch of a producer.
    pub async fn open_producer(&mut self, request: OpenProducerRequest) -> Pending<ProducerOpened> {
        match self.broker.open_producer_intent(&self.who, request).await {
            Ok(intent) => self.submit(0, intent).await,
            Err(error) => Pending::known(Err(error)),
        }
    }

    /// T-1 … T-7.
    pub async fn commit(&mut self, request: CommitRequest) -> Pending<Committed> {
        match self.broker.commit_intent(&self.who, request).await {
            Ok((bytes, intent)) => self.submit(bytes, intent).await,
            Err(error) => Pending::known(Err(error)),
        }
    }

    /// Attaches a reader (C-1 … C-6). Times are looked up in the log before the request takes its place in the order.
    pub async fn subscribe(&mut self, request: SubscribeRequest) -> Pending<(Subscribed, Session)> {
        let (intent_of, reader) = match self.broker.open_intent(&self.who, request).await {
            Ok(ready) => ready,
            Err(error) => return Pending::known(Err(error)),
        };
        let pending = self.submit(0, intent_of).await;
        let broker = self.broker.clone();
        Pending::derived(async move { broker.attach(pending.await?, reader) })
    }

    /// C-7 … C-13, C-16. An ephemeral session keeps its own position: `ack_mode_mismatch`.
    pub async fn ack(&mut self, session: &SessionHandle, offset: u64, level: AckLevel) -> Pending<Acked> {
        let (Some(subscription), Some(epoch)) = (session.subscription(), session.epoch()) else {
            return Pending::known(Err(Error::new(
                Code::AckModeMismatch,
                "This session has no subscription, so there is no cursor to move. Subscribe with a subscription name to acknowledge.",
            )
            .rule("G-1")));
        };
        let allowed = match self.broker.allowed_at_once(&self.who, session.stream(), Action::Read) {
            Some(allowed) => allowed,
            None => Box::pin(self.broker.allowed(&self.who, session.stream(), Action::Read)).await,
        };
        if let Err(error) = allowed {
            return Pending::known(Err(error));
        }
        if level == AckLevel::Received
            && let Some(acked) = offset.checked_add(1).and_then(|next| session.receive(&self.broker, next))
        {
            return Pending::known(Ok(acked));
        }
        let request = AckRequest { stream: session.stream().clone(), subscription: subscription.clone(), epoch, offset, level };
        self.submit(0, |reply| Intent::Ack { request, proof: None, level, reply }).await
    }
}

impl Broker {
    /// Checks of a commit that need no state, and its share of the queue; shared with the unary call.
    pub(super) async fn commit_intent(&self, who: &Principal, request: CommitRequest) -> Result<(usize, impl FnOnce(Reply<Committed>) -> Intent + use<>)> {
        who.known()?;
        for append in &request.appends {
            self.may(who, &append.stream, Action::Write).await?;
        }
        for stream in request.acks.iter().map(|ack| &ack.stream).chain(request.checks.iter().map(|check| &check.stream)) {
            self.may(who, stream, Action::Read).await?;
        }
        appending::check_commit(&request)?;
        let fingerprint = appending::commit_fingerprint(&request);
        let bytes = request.appends.iter().map(|a| a.events.encoded().len()).sum();
        let author = Author::from(who);
        Ok((bytes, move |reply| Intent::Commit { request: Box::new(request), fingerprint, author, reply }))
    }

    /// Shared with the unary call. A producer for commits is its user's, whatever it writes to.
    pub(super) async fn open_producer_intent(
        &self,
        who: &Principal,
        request: OpenProducerRequest,
    ) -> Result<impl FnOnce(Reply<ProducerOpened>) -> Intent + use<>> {
        let OpenProducerRequest { stream, stream_id, producer, expect } = request;
        let stream_id = match &stream {
            Some(name) => stream_id.or(self.allowed(who, name, Action::Write).await?),
            None => self.still_good(who).await.map(|()| None)?,
        };
        let user = who.user_id();
        Ok(move |reply| Intent::OpenProducer { stream, stream_id, producer, expect, user, reply })
    }

    /// Checks of one append that need no state, shared with the unary calls.
    pub(super) async fn unary(&self, mut request: AppendRequest, who: &Principal) -> Result<AppendIntent> {
        let known_as = self.allowed(who, &request.stream, Action::Write).await?;
        request.stream_id = request.stream_id.or(known_as);
        Ok(appending::intent(request, Author::from(who), None))
    }
}
