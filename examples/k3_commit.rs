//! Recipe K-3: read stream A, append to stream B, exactly once. Input and output are one commit of the broker.
//!
//! What to copy:
//! 1. A consumer of A that never acks by itself, and a committer: a broker-wide producer under an id of your own.
//! 2. Per batch, one `commit`: the ack of the inputs (with the consumer's `epoch`) and the appends of the outputs.
//!    All of it happens or nothing does. After a lost reply the committer sends the very same commit again.
//! 3. After a commit, tell the consumer (`committed`). After a definite refusal, open the consumer again: it begins at
//!    the cursor, so refused work is done anew and committed work is not.
//!
//! `cargo run --release --example k3_commit -- --url http://127.0.0.1:4080 --from orders --to copies --subscription k3`

mod common;

use common::{Args, Error, stopped};
use tidelog::client::{Client, Committer, Consumer, Delivery, Event, IntoEvents, NewEvent};
use tidelog::types::request::{CommitAck, CommitAppend, CommitRequest};
use tidelog::types::{Code, StreamName, SubscriptionName};

const BATCH: usize = 200;

#[tokio::main]
async fn main() -> Result<(), Error> {
    let args = Args::read()?;
    let client = args.client()?;
    let mut copied = 0u64;
    tokio::select! {
        outcome = run(&client, &args, &mut copied) => outcome?,
        () = stopped() => {}
    }
    println!("committed {copied} events");
    Ok(())
}

async fn run(client: &Client, args: &Args, copied: &mut u64) -> Result<(), Error> {
    let (from, to) = (StreamName::parse(args.get("from", "orders"))?, StreamName::parse(args.get("to", "copies"))?);
    let subscription = SubscriptionName::parse(args.get("subscription", "k3"))?;
    let until = args.number("until")?;
    // One id per running instance; the name of the cursor is a good one, since a cursor has one reader.
    let id = format!("cursor:{from}:{subscription}");
    match client.admin().create_stream(to.as_str(), Default::default()).await {
        Err(error) if error.code() != Some(Code::NameTaken) && !error.is_retryable() => return Err(error.into()),
        _ => {}
    }
    let mut committer = retry(|| client.committer(&id)).await?;
    'attached: loop {
        let mut consumer = retry(|| client.consumer(from.as_str()).subscription(subscription.as_str()).create().open()).await?;
        while until.is_none_or(|until| consumer.position() < until) {
            let Some(events) = batch(&mut consumer).await? else { return Ok(()) };
            if events.is_empty() {
                continue;
            }
            match commit(&mut committer, &consumer, &from, &subscription, &to, &events).await {
                Ok(()) => *copied += events.len() as u64,
                // Only a part about the session is cured by going back to the cursor. Anything else is for a person: another
                // instance of this program (`producer_fenced`), a stream that is gone, an output that is too large.
                Err(error) if !is_about_the_session(&error) => return Err(error.into()),
                Err(error) => {
                    eprintln!("{error} Going back to the cursor.");
                    drop(consumer);
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                    continue 'attached;
                }
            }
        }
        consumer.close().await;
        return Ok(());
    }
}

/// The session this batch was read in has ended, or another one acked it: our outputs were not written.
fn is_about_the_session(error: &tidelog::client::Error) -> bool {
    let cause = error.server().and_then(|e| e.details.get("cause")?.get("code")?.as_str().and_then(Code::parse));
    matches!(cause, Some(Code::SessionFenced | Code::SessionUnknown | Code::AckNotDelivered | Code::AckStale))
}

/// What is at hand, at least one delivery.
async fn batch(consumer: &mut Consumer) -> Result<Option<Vec<Event>>, Error> {
    let Some(first) = consumer.next().await else { return Ok(None) };
    let mut events = Vec::new();
    let mut step = Some(first);
    while let Some(delivery) = step {
        if let Delivery::Event(event) = delivery? {
            events.push(event);
        }
        step = if events.len() < BATCH { consumer.try_next() } else { None };
    }
    Ok(Some(events))
}

async fn commit(
    committer: &mut Committer,
    consumer: &Consumer,
    from: &StreamName,
    subscription: &SubscriptionName,
    to: &StreamName,
    events: &[Event],
) -> Result<(), tidelog::client::Error> {
    let Some(last) = events.last().map(|event| event.offset) else { return Ok(()) };
    // The effect: here a copy that names its source. Any function of the inputs will do.
    let outputs: Vec<NewEvent> = events
        .iter()
        .map(|event| {
            NewEvent { data: event.data.clone(), encoding: event.encoding, ..NewEvent::default() }
                .key(&event.key)
                .header("source-offset", event.offset.to_string())
        })
        .collect();
    let ack = CommitAck { stream: from.clone(), subscription: subscription.clone(), epoch: consumer.epoch().unwrap_or(0), offset: last };
    let append = CommitAppend { stream: to.clone(), stream_id: None, events: outputs.into_events()?, expected_next_offset: None };
    committer.commit(CommitRequest { acks: vec![ack], appends: vec![append], ..CommitRequest::default() }).await?;
    consumer.committed(last);
    Ok(())
}

/// Opening is not retried by the library; a program that shall outlive its broker does it.
async fn retry<T, F: Future<Output = Result<T, tidelog::client::Error>>>(open: impl Fn() -> F) -> Result<T, Error> {
    loop {
        match open().await {
            Ok(opened) => return Ok(opened),
            Err(error) if error.is_retryable() => {
                eprintln!("{error}");
                tokio::time::sleep(std::time::Duration::from_millis(200)).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}
