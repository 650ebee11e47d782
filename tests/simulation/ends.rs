//! Credentials that end by themselves, to the second: half a day goes by in a moment here.

use std::sync::Arc;
use std::time::Duration;

use tidelog::broker::{Broker, Delivery, NewStream, NewUser, Principal, PrincipalRef, ReadFrom, ReadRequest, Right, Settings, Simulated};
use tidelog::log::memory::Memory;
use tidelog::types::request::{Start, SubscribeRequest};
use tidelog::types::{Code, StreamName, TimeUs, UserName, limits};
use tokio::time::{Instant, advance};

const OPERATOR: Principal = Principal::Operator;
const PASSWORD: &str = "correct horse battery";

fn stream() -> StreamName {
    StreamName::parse("s").expect("a name")
}

/// A broker whose wall clock is the one that stands still unless everybody waits; `alice` may read `s`.
async fn broker() -> Broker {
    let began = Instant::now();
    let wall = move || 1_700_000_000_000_000 + began.elapsed().as_micros() as i64;
    let chance = || uuid::Uuid::new_v4().as_u128();
    let simulated = Simulated { wall: Arc::new(wall), chance: Arc::new(chance) };
    let broker = Broker::open_simulated(simulated, Arc::new(Memory::new()), Settings::default()).await.expect("the broker opens");
    let alice = UserName::parse("alice").expect("a name");
    let new = NewUser { name: alice.clone(), password: Some(PASSWORD.into()), root: false };
    broker.create_user(&OPERATOR, new).await.expect("a user");
    broker.create_stream(&OPERATOR, NewStream::named(stream())).await.expect("a stream");
    broker.set_right(&OPERATOR, &stream(), &PrincipalRef::User(alice), Right::ReadOnly).await.expect("a right");
    broker
}

async fn session(broker: &Broker) -> (Principal, Instant) {
    let login = broker.log_in("alice", PASSWORD).await.expect("a session");
    let who = broker.authenticate(&login.token).await.expect("it is good");
    (who, Instant::now() + limits::CONSOLE_SESSION)
}

/// At its end, or within the second in which a sleep may be late.
fn is_now(end: Instant) {
    let late = Instant::now().saturating_duration_since(end);
    assert!(Instant::now() >= end && late < Duration::from_secs(2), "{late:?} late");
}

#[tokio::test(start_paused = true)]
async fn a_session_ends_after_twelve_hours_in_the_middle_of_what_is_open() {
    assert_eq!(limits::CONSOLE_SESSION, Duration::from_secs(12 * 3600));
    let broker = broker().await;
    let (who, end) = session(&broker).await;
    let mut connection = broker.connect(who.clone());
    let mut other = broker.connect(who.clone());
    let from = SubscribeRequest { from: Some(Start::Latest), ..SubscribeRequest::new(stream(), None) };
    let (_, mut reader) = other.subscribe(from).await.await.expect("a reader");
    assert!(matches!(reader.next().await, Ok(Delivery::Live { .. })));
    let read = tokio::spawn(async move { reader.next().await.expect_err("it ends") });
    assert_eq!(connection.revoked().await.code, Code::SessionExpired);
    is_now(end);
    assert_eq!(read.await.expect("no panic").code, Code::SessionExpired);
    is_now(end);
    assert_eq!(broker.may(&who, &stream(), tidelog::types::Action::Read).await.expect_err("it is over").code, Code::SessionExpired);
}

#[tokio::test(start_paused = true)]
async fn a_long_poll_ends_with_the_session_that_waits_in_it() {
    let broker = broker().await;
    let (who, end) = session(&broker).await;
    advance(limits::CONSOLE_SESSION - Duration::from_secs(10)).await;
    let request = ReadRequest { from: ReadFrom::At(Start::Latest), limit: 1, wait: Duration::from_secs(60) };
    assert_eq!(broker.read(&who, &stream(), request).await.expect_err("its session ends").code, Code::SessionExpired);
    is_now(end);
}

#[tokio::test(start_paused = true)]
async fn a_ticket_makes_nobody_last_longer_than_the_certificate_that_asked_for_it() {
    let broker = broker().await;
    let (wall, lasts) = (1_700_000_000_000_000, Duration::from_secs(3600));
    let end = Instant::now() + lasts;
    let who = broker.certificate_until("alice", Some(TimeUs(wall + lasts.as_micros() as i64))).await.expect("alice");
    let (ticket, _) = broker.issue_ticket(&who).await.expect("a ticket");
    let shown = broker.authenticate(&ticket).await.expect("it is good");
    assert_eq!(broker.connect(shown).revoked().await.code, Code::SessionExpired);
    is_now(end);
}

#[tokio::test(start_paused = true)]
async fn a_ticket_is_good_for_half_a_minute_and_once() {
    assert_eq!(limits::TICKET_LIFE, Duration::from_secs(30));
    let broker = broker().await;
    let (who, _) = session(&broker).await;
    for (waits, good) in [(Duration::ZERO, true), (limits::TICKET_LIFE - Duration::from_millis(1), true), (limits::TICKET_LIFE, false)] {
        let (ticket, _) = broker.issue_ticket(&who).await.expect("a ticket");
        advance(waits).await;
        let shown = broker.authenticate(&ticket).await;
        assert_eq!(shown.as_ref().map(Principal::user_id).ok(), good.then(|| who.user_id()), "after {waits:?}");
        assert_eq!(broker.authenticate(&ticket).await.expect_err("it is used up, or over").code, Code::Unauthenticated);
    }
}
