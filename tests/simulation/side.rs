//! A stream whose past and self are not safe: it is trimmed, closed, deleted, made again; its cursor is moved about. One client does
//! all that, so it knows what may have become of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tidelog::broker::{NewStream, NewSubscription, Principal, ReadFrom, ReadRequest, TrimTo};
use tidelog::types::request::{AppendRequest, Start};
use tidelog::types::{Applied, Code, Error, StreamId};

use crate::dice::Dice;
use crate::producer::tolerable;
use crate::world::{World, events, read, stream, subscription, texts};

const NAME: &str = "side";
const CURSOR: &str = "moved";

/// What its client knows of one stream of this name.
#[derive(Default)]
pub struct Known {
    /// Acknowledged, by offset.
    acked: BTreeMap<u64, String>,
    refused: Vec<String>,
    /// No trim asked for more.
    trimmed: u64,
    closing: bool,
    deleting: bool,
    /// Where its cursor may be; none: at the beginning, where it was made.
    cursor: Vec<u64>,
}

/// By id.
pub type Sides = BTreeMap<u64, Known>;

/// Things to do, one after another.
pub async fn work(world: Arc<World>) {
    let mut dice = world.dice(NAME);
    let mut number = 0u64;
    while world.writing() {
        number += 1;
        if let Some(id) = current(&world).await {
            act(&world, id, number, &mut dice).await;
        }
        world.pause(&mut dice, 1, 20).await;
    }
}

/// The stream that has the name now, made if need be, and its cursor with it.
async fn current(world: &Arc<World>) -> Option<u64> {
    let found = world.net.call("side", |broker| async move { broker.stream(&Principal::Operator, &stream(NAME)).await }).await?;
    match found {
        Ok(info) if info.status == tidelog::broker::StreamStatus::Ready => Some(info.id.0),
        Err(error) if error.code == Code::NotFound => {
            let new = NewStream::named(stream(NAME));
            let made = world.net.call("side made", |broker| async move { broker.create_stream(&Principal::Operator, new).await }).await?.ok()?;
            let new =
                NewSubscription { name: subscription(CURSOR), start: Start::Earliest, ack_timeout_s: None, max_in_flight: None, expires_s: None, filter: None };
            world.net.call("cursor made", |broker| async move { broker.create_subscription(&Principal::Operator, &stream(NAME), new).await }).await;
            Some(made.id.0)
        }
        _ => None,
    }
}

async fn act(world: &Arc<World>, id: u64, number: u64, dice: &mut Dice) {
    let known = |change: &dyn Fn(&mut Known)| change(world.extra.lock().sides.entry(id).or_default());
    match dice.below(24) {
        0..12 => append(world, id, format!("s{number}"), dice).await,
        12..15 => {
            let end = world.extra.lock().sides.entry(id).or_default().acked.last_key_value().map_or(0, |(offset, _)| offset + 1);
            let before = dice.below(end + 1);
            known(&|known| known.trimmed = known.trimmed.max(before));
            let done =
                world.net.call("trim", |broker| async move { broker.trim_stream(&Principal::Operator, &stream(NAME), TrimTo::Offset(before)).await }).await;
            expect(world, "trim", done.and_then(Result::err), &[]);
        }
        15..18 => page(world, id, dice).await,
        18..22 => seek(world, id, dice).await,
        22 if dice.one_in(3) => {
            known(&|known| known.closing = true);
            let done = world.net.call("close", |broker| async move { broker.close_stream(&Principal::Operator, &stream(NAME)).await }).await;
            expect(world, "close", done.and_then(Result::err), &[]);
        }
        23 if dice.one_in(2) => {
            known(&|known| known.deleting = true);
            let done = world.net.call("delete", |broker| async move { broker.delete_stream(&Principal::Operator, &stream(NAME)).await }).await;
            expect(world, "delete", done.and_then(Result::err), &[]);
        }
        _ => {}
    }
}

/// What may be said to somebody whose deletion had no answer.
fn expect(world: &World, what: &str, error: Option<Error>, codes: &[Code]) {
    if let Some(error) = error.filter(|e| !tolerable(e.code) && !codes.contains(&e.code) && !matches!(e.code, Code::NotFound | Code::Deleting)) {
        world.wrong(format!("{what} heard {error:?}"));
    }
}

async fn append(world: &Arc<World>, id: u64, value: String, dice: &mut Dice) {
    let twice = dice.one_in(4);
    let texts = [(value.as_str(), None), ("", None)];
    let request = AppendRequest {
        stream: stream(NAME),
        stream_id: Some(StreamId(id)),
        events: events(texts.into_iter().take(1 + usize::from(twice))),
        producer: None,
        expected_next_offset: None,
    };
    let answer = world.net.call("side append", |broker| async move { broker.append(&Principal::Operator, request).await }).await;
    let mut extra = world.extra.lock();
    let known = extra.sides.entry(id).or_default();
    match answer {
        Some(Ok(reply)) => {
            if let Some(before) = known.acked.insert(reply.first_offset.expect("it is no duplicate"), value.clone()) {
                extra.wrong.push(format!("{before} and {value} were acknowledged at one offset of stream {id}"));
            }
        }
        Some(Err(error)) if error.applied == Applied::No => {
            known.refused.push(value);
            let (closing, deleting) = (known.closing, known.deleting);
            let right = match error.code {
                Code::StreamClosed => closing,
                Code::NotFound | Code::Deleting | Code::StreamReplaced => deleting,
                code => tolerable(code),
            };
            if !right {
                extra.wrong.push(format!("an append to stream {id} heard {error:?}"));
            }
        }
        _ => {}
    }
}

/// A page from somewhere: what was acknowledged there is there, or was trimmed.
async fn page(world: &Arc<World>, id: u64, dice: &mut Dice) {
    let end = world.extra.lock().sides.entry(id).or_default().acked.last_key_value().map_or(0, |(offset, _)| offset + 1);
    let from = dice.below(end + 1);
    let request = ReadRequest { from: ReadFrom::At(Start::Offset(from)), limit: 8, wait: Duration::ZERO };
    let page = world.net.call("side page", |broker| async move { broker.read(&Principal::Operator, &stream(NAME), request).await }).await;
    let extra = &mut *world.extra.lock();
    let known = extra.sides.entry(id).or_default();
    match page {
        Some(Ok(page)) if page.stream.0 == id => {
            for (at, event) in texts(&page.slices).enumerate() {
                if event.offset != from + at as u64 || known.acked.get(&event.offset).is_some_and(|value| *value != event.data) {
                    extra.wrong.push(format!("I-4: {event:?} is in a page of stream {id} from {from}"));
                }
            }
        }
        Some(Err(error)) if error.code == Code::OffsetTrimmed && known.trimmed > from => {}
        Some(Err(error)) if error.code == Code::OffsetBeyondEnd && known.deleting => {}
        Some(Err(error)) if !(tolerable(error.code) || error.code == Code::NotFound && known.deleting) => {
            extra.wrong.push(format!("a page of stream {id} from {from}: {error:?}"));
        }
        _ => {}
    }
}

/// Moves the cursor, and looks where it is (C-14).
async fn seek(world: &Arc<World>, id: u64, dice: &mut Dice) {
    let end = world.extra.lock().sides.entry(id).or_default().acked.last_key_value().map_or(0, |(offset, _)| offset + 1);
    let to = dice.below(end + 1);
    let done = world
        .net
        .call("seek", |broker| async move { broker.seek(&Principal::Operator, &stream(NAME), &subscription(CURSOR), Start::Offset(to)).await.map(drop) })
        .await;
    let extra = &mut *world.extra.lock();
    let known = extra.sides.entry(id).or_default();
    match done {
        Some(Ok(())) => known.cursor = vec![to],
        Some(Err(error)) if error.applied == Applied::No => {}
        _ if known.cursor.is_empty() => known.cursor = vec![0, to],
        _ => known.cursor.push(to),
    }
}

/// At the end: what is left is what was promised.
pub async fn read_back(world: &Arc<World>) -> Result<(), String> {
    let found = world.net.call("side", |broker| async move { broker.stream(&Principal::Operator, &stream(NAME)).await }).await.ok_or("no answer")?;
    let id = found.as_ref().map(|info| info.id.0).ok();
    if let Some((gone, _)) = world.extra.lock().sides.iter().find(|(other, known)| Some(**other) != id && !known.deleting) {
        return Err(format!("I-1: stream {gone} is gone, and nobody deleted it"));
    }
    let Ok(info) = found else { return Ok(()) };
    if info.status != tidelog::broker::StreamStatus::Ready {
        return Ok(());
    }
    let log = match read(world, NAME).await {
        Err(_) if world.extra.lock().sides.entry(info.id.0).or_default().deleting => return Ok(()),
        log => log?,
    };
    let cursor = world.net.call("cursor", |broker| async move { broker.subscription(&Principal::Operator, &stream(NAME), &subscription(CURSOR)).await }).await;
    let mut extra = world.extra.lock();
    let known = extra.sides.entry(info.id.0).or_default();
    if log.first > known.trimmed {
        return Err(format!("I-1: stream {} begins at {}, and nobody trimmed it beyond {}", log.id, log.first, known.trimmed));
    }
    if info.closed && !known.closing {
        return Err(format!("stream {} is closed, and nobody closed it", log.id));
    }
    let there: BTreeMap<u64, &str> = log.events.iter().map(|event| (event.offset, event.data.as_str())).collect();
    if !(log.first..log.next).eq(there.keys().copied()) {
        return Err(format!("I-5: stream {} has a hole", log.id));
    }
    if let Some((offset, value)) = known.acked.range(log.first..).find(|(offset, value)| there.get(offset) != Some(&value.as_str())) {
        return Err(format!("I-1: {value} was acknowledged at {offset} of stream {}, where {:?} is", log.id, there.get(offset)));
    }
    if let Some(value) = known.refused.iter().find(|value| there.values().any(|other| other == value)) {
        return Err(format!("I-2: {value} was refused, and is in stream {}", log.id));
    }
    match cursor {
        Some(Ok(cursor)) if known.cursor.contains(&cursor.next) || known.cursor.is_empty() && cursor.next == 0 => Ok(()),
        // It may never have been made, or its stream was made anew.
        Some(Err(error)) if error.code == Code::NotFound => Ok(()),
        other => Err(format!("C-14: the cursor was moved to {:?}, and is {other:?}", known.cursor)),
    }
}
