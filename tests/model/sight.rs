//! All that can be seen of a broker at rest, and whether it is what the law says.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::calls::{Names, said_of};
use crate::law::{Event, Law, STREAMS, Said, Stream, event, text};
use crate::support::*;

/// One stream, from outside.
struct Seen {
    info: Said,
    events: Vec<Event>,
    /// Epoch and last sequence number.
    producers: BTreeMap<String, (u64, Option<u64>)>,
    cursors: BTreeMap<u8, SubscriptionInfo>,
}

/// The broker, from outside.
pub struct Sight {
    names: Names,
    streams: Vec<Option<Seen>>,
    wide: BTreeMap<u8, (u64, Option<u64>)>,
}

const ALL: ListQuery = ListQuery { after: None, limit: None, filter: None };

fn there<T>(found: Result<T>) -> Result<Option<T>> {
    match found {
        Err(error) if error.code == Code::NotFound => Ok(None),
        found => found.map(Some),
    }
}

impl Sight {
    /// Looks at everything that has one of these names.
    pub async fn of(broker: &Broker, names: Names) -> Result<Self> {
        let mut streams = Vec::new();
        for number in 0..STREAMS {
            let name = names.stream(number);
            streams.push(match there(broker.stream(&OPERATOR, &name).await)? {
                None => None,
                Some(info) => Some(Seen::of(broker, &info).await?),
            });
        }
        let mut wide = BTreeMap::new();
        for id in 0..2 {
            let found = there(broker.producer(&OPERATOR, None, &names.wide(id)).await)?;
            wide.extend(found.map(|found| (id, (found.epoch, found.last_seq))));
        }
        Ok(Self { names, streams, wide })
    }

    /// Is that the law's world? After a crash (`lost`) a cursor may have gone back by acks of level `received`: the law takes that over.
    pub fn fits(&self, law: &mut Law, lost: bool) -> Result<(), String> {
        for number in 0..STREAMS {
            match (&self.streams[number], &mut law.streams[number]) {
                (None, None) => {}
                (Some(seen), Some(stream)) => seen.fits(self.names, stream, lost).map_err(|why| format!("stream {number}: {why}"))?,
                (seen, stream) => return Err(format!("stream {number} is there: {}, should be: {}", seen.is_some(), stream.is_some())),
            }
        }
        let wide = law.wide.iter().map(|(id, producer)| (*id, (producer.epoch, producer.next.checked_sub(1))));
        same("broker-wide producers", &self.wide, &wide.collect())
    }
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, seen: &T, law: &T) -> Result<(), String> {
    if seen == law { Ok(()) } else { Err(format!("{what}: there is {seen:?}, the law says {law:?}")) }
}

impl Seen {
    async fn of(broker: &Broker, info: &StreamInfo) -> Result<Self> {
        let name = &info.name;
        let (mut events, mut from, mut at) = (Vec::new(), ReadFrom::At(Start::Earliest), info.first_offset);
        loop {
            let reply = broker.read(&OPERATOR, name, ReadRequest { from, limit: 1000, wait: Duration::ZERO }).await?;
            for (offset, text) in reply.slices.iter().flat_map(texts_of) {
                assert_eq!(offset, at, "I-5: offsets are dense");
                at += 1;
                events.push(event(&text));
            }
            match reply.after.filter(|_| reply.more) {
                Some(after) => from = ReadFrom::After(after),
                None => break,
            }
        }
        let producers = broker.producers(&OPERATOR, Some(name), ALL).await?.items;
        let cursors = broker.subscriptions(&OPERATOR, name, ALL).await?.items;
        Ok(Self {
            info: said_of(info),
            events,
            producers: producers.into_iter().map(|p| (p.producer.to_string(), (p.epoch, p.last_seq))).collect(),
            cursors: cursors.into_iter().map(|c| (u8::from(c.name.as_str() != "x"), c)).collect(),
        })
    }

    fn fits(&self, names: Names, stream: &mut Stream, lost: bool) -> Result<(), String> {
        same("its bounds", &self.info, &stream.info())?;
        same("its events", &self.events.as_slice(), &stream.kept())?;
        let producers = stream.producers.iter().map(|(id, p)| (names.producer(*id).to_string(), (p.epoch, p.next.checked_sub(1))));
        same("its producers", &self.producers, &producers.collect())?;
        same("its cursors", &self.cursors.keys().collect::<Vec<_>>(), &stream.cursors.keys().collect())?;
        let (first, end) = (stream.first, stream.end());
        for (sub, seen) in &self.cursors {
            let from = seen.next.max(first).min(end);
            let behind = &stream.events[from as usize..];
            let lag = (behind.len() as u64, behind.iter().map(|e| text(*e).len() as u64).sum::<u64>());
            same("a lag", &(seen.lag.events, seen.lag.bytes), &lag)?;
            let cursor = stream.cursors.get_mut(sub).expect("the names are the same");
            same("an epoch of a session", &seen.epoch, &cursor.epoch)?;
            if seen.next < cursor.durable || cursor.next < seen.next {
                return Err(format!("C-16, I-13: cursor {sub} is at {}, should be in {}…{}", seen.next, cursor.durable, cursor.next));
            }
            cursor.durable = seen.next;
            if lost {
                (cursor.next, cursor.settled) = (seen.next, seen.next);
            }
        }
        Ok(())
    }
}
