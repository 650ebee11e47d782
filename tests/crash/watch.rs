//! Who looks on from outside, all the time: at ends, cursors and last events, at both ends of K-3, and as a stranger without a credential.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use http::Method;
use serde_json::Value;
use tidelog::client::Client;

use crate::door::{self, Door};
use crate::history::{Image, Position, Sample, Seen, Stranger, hash};
use crate::load::INPUT;
use crate::process::Address;

/// What the monitor saw.
#[derive(Default)]
pub struct Watched {
    pub samples: Vec<Sample>,
    pub positions: Vec<Position>,
    pub images: Vec<Image>,
    pub seen: Vec<Seen>,
}

/// Looks at everything from outside, all the time. A look that fails shows nothing.
pub async fn watch(client: Client, output: &str, since: Instant, stop: Arc<AtomicBool>) -> Watched {
    let mut watched = Watched::default();
    while !stop.load(Ordering::SeqCst) {
        let began = since.elapsed().as_micros() as u64;
        if let Ok(streams) = client.admin().streams().await {
            let ended = since.elapsed().as_micros() as u64;
            for s in streams {
                let log_epoch = s.rest.get("log_epoch").and_then(Value::as_u64).expect("a stream has a log epoch");
                watched.samples.push(Sample { began, ended, stream: s.name, id: s.id, log_epoch, first: s.state.first_offset, next: s.state.next_offset });
            }
        }
        for stream in [INPUT, output] {
            if let Ok(events) = client.admin().call::<Value>(Method::GET, &format!("/v1/streams/{stream}/events/last"), None).await {
                // One event, or a list of one.
                let event = events.get(0).unwrap_or(&events);
                let id = watched.samples.iter().rev().find(|s| s.stream == stream).map(|s| s.id);
                if let (Some(stream_id), Some(data)) = (id, event["data"].as_str()) {
                    let number = |name: &str| event[name].as_u64().unwrap_or_else(|| panic!("no {name} in {event}"));
                    watched.seen.push(Seen {
                        reader: "monitor",
                        stream_id,
                        log_epoch: number("log_epoch"),
                        offset: number("offset"),
                        hash: hash(data.as_bytes()),
                    });
                }
            }
        }
        if let Some(image) = look_at_image(&client, output).await {
            watched.images.push(image);
        }
        if let Ok(positions) = cursors(&client).await {
            watched.positions.extend(positions);
        }
        tokio::time::sleep(Duration::from_millis(15)).await;
    }
    watched
}

async fn look_at_image(client: &Client, output: &str) -> Option<Image> {
    let cursor = || async { client.admin().subscription(INPUT, "k3").await.ok().map(|s| s.next) };
    let before = cursor().await?;
    let end = client.admin().stream(output).await.ok()?.state.next_offset;
    Some(Image { before, output: end, after: cursor().await? })
}

/// All cursors on the input.
pub async fn cursors(client: &Client) -> Result<Vec<Position>, String> {
    let list = client.admin().subscriptions(INPUT).await.map_err(|e| e.to_string())?;
    Ok(list.into_iter().map(|s| Position { subscription: s.name, next: s.next, epoch: s.epoch }).collect())
}

/// Asks over TCP, without a credential, about things that exist and things that do not; each different answer once.
pub async fn stranger(address: Address, stop: Arc<AtomicBool>) -> Vec<Stranger> {
    let paths = ["/v1/streams/a", "/v1/streams/none", "/v1/streams/a/events?from=0", "/v1/streams/a/subscriptions/s1", "/v1/streams/none/producers/p0"];
    let mut heard = Vec::new();
    while !stop.load(Ordering::SeqCst) {
        let at = *address.lock();
        for path in paths {
            let Some(at) = at else { break };
            let Some((status, mut body)) = door::raw(&Door::Tcp(at), "GET", path).await else { continue };
            body["metadata"].as_object_mut().map(|metadata| metadata.remove("request_id"));
            // While it starts or goes down it says so to everybody.
            let said = Stranger { path: path.to_owned(), status, said: body.to_string() };
            if status != 503 && !heard.contains(&said) {
                heard.push(said);
            }
        }
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
    heard
}
