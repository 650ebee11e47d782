//! `tidelog pub`: one event from the command line, or the lines of stdin, each stored exactly once.

use std::collections::VecDeque;
use std::io::IsTerminal;
use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::failure::{Failure, Outcome};
use super::input::{self, Format, Template};
use super::output::Out;
use super::progress::Progress;
use crate::client::{Client, Receipt};
use crate::types::reply::Appended;

/// Append events.
#[derive(Debug, Args)]
pub struct Pub {
    /// Stream to append to
    stream: String,
    /// The event's data; `-` (or nothing, in a pipe) reads one event per line from stdin
    body: Option<String>,
    /// How the body or each line becomes an event
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Type of the events
    #[arg(long = "type", value_name = "TYPE", default_value = "", hide_default_value = true)]
    kind: String,
    /// Key of the events
    #[arg(long, default_value = "", hide_default_value = true)]
    key: String,
    /// Header of the events, may be repeated
    #[arg(long = "header", value_name = "NAME=VALUE", value_parser = header)]
    headers: Vec<(String, String)>,
    /// Producer id. From stdin, line i is sequence number i and lines that are stored already are skipped: run the same
    /// command on the same input again after any failure
    #[arg(long, value_name = "ID")]
    producer: Option<String>,
    /// Give up when the broker has been away for this long
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    give_up_after: u64,
    /// Show no progress
    #[arg(long)]
    no_progress: bool,
}

fn header(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write it like trace=a1".into()),
    }
}

impl Pub {
    /// Runs the command.
    pub async fn run(self, client: &Client, json: bool) -> Outcome {
        match self.body.as_deref() {
            Some("-") => self.stdin(client, json).await,
            None if !std::io::stdin().is_terminal() => self.stdin(client, json).await,
            None => Err(Failure::Usage("What should be sent? Give a BODY, or `-` to read lines from stdin.".into())),
            Some(body) => self.one(body, client, json).await,
        }
    }

    fn template(&self) -> Template {
        Template { format: self.format, kind: self.kind.clone(), key: self.key.clone(), headers: self.headers.clone() }
    }

    /// Without a producer it is sent once: an answer that got lost is reported, not guessed at (P-17).
    async fn one(&self, body: &str, client: &Client, json: bool) -> Outcome {
        let event = self.template().event(body.as_bytes()).map_err(|why| Failure::Usage(format!("The body {why}")))?;
        let appended = match &self.producer {
            None => client.append(&self.stream, event).await?,
            Some(id) => {
                let producer = client.producer(&self.stream, id).give_up_after(Duration::from_secs(self.give_up_after)).open().await?;
                let receipt = producer.send(event).await?.await?;
                producer.close().await?;
                receipt
            }
        };
        if json {
            return Out::new().json(&json!({
                "stream": self.stream, "first_offset": appended.first_offset, "last_offset": appended.last_offset,
                "count": appended.count, "duplicate": appended.duplicate,
            }));
        }
        match appended.first_offset {
            Some(offset) => eprintln!("Stored as event {offset} of {}.", self.stream),
            None => eprintln!("It had been stored in {} before.", self.stream),
        }
        Ok(())
    }

    async fn stdin(&self, client: &Client, json: bool) -> Outcome {
        let named = self.producer.is_some();
        let id = self.producer.clone().unwrap_or_else(|| format!("pub-{}", uuid::Uuid::now_v7()));
        let producer = client.producer(&self.stream, &id).give_up_after(Duration::from_secs(self.give_up_after)).open().await?;
        // Line i of the source is sequence number i (P-16); a new id begins at 0 and skips nothing.
        let skip = producer.next_seq();
        if skip > 0 {
            eprintln!("Producer {id} has stored {skip} lines; they are skipped.");
        }
        let mut progress = Progress::new("sent", None, self.no_progress);
        let mut chunks = input::lines(std::io::stdin(), self.template(), skip);
        let mut tally = Tally::default();
        let mut under_way: VecDeque<Receipt> = VecDeque::new();
        let mut bad_input = None;
        loop {
            tokio::select! {
                // A refusal is heard before the next lines are sent.
                biased;
                Some(answer) = first(&mut under_way) => {
                    under_way.pop_front();
                    let appended = answer?;
                    progress.add(u64::from(appended.count));
                    tally.add(&appended);
                }
                chunk = chunks.recv(), if bad_input.is_none() => match chunk {
                    Some(Ok(chunk)) => {
                        tally.lines = chunk.lines_done;
                        under_way.push_back(producer.send(chunk.events).await?);
                    }
                    Some(Err(failure)) => bad_input = Some(failure),
                    None => break,
                },
                else => break,
            }
        }
        while let Some(receipt) = under_way.pop_front() {
            let appended = receipt.await?;
            progress.add(u64::from(appended.count));
            tally.add(&appended);
        }
        producer.close().await?;
        if !named {
            // Everything has its answer, and nobody else knows this id.
            if let Err(why) = client.admin().delete_producer(Some(&self.stream), &id).await {
                eprintln!("Producer {id} could not be removed; it costs one row: {why}");
            }
        }
        let (count, elapsed) = progress.finish();
        if json {
            Out::new().json(&json!({
                "stream": self.stream, "producer": named.then_some(&id), "count": count, "skipped": skip.min(tally.lines),
                "first_offset": tally.first, "last_offset": tally.last, "duplicates": tally.duplicates,
            }))?;
        }
        if let Some(failure) = bad_input {
            return Err(failure);
        }
        let range = match (tally.first, tally.last) {
            (Some(first), Some(last)) => format!(", offsets {first} to {last}"),
            _ => String::new(),
        };
        let seconds = elapsed.as_secs_f64().max(1e-3);
        eprintln!("Stored {count} events in {}{range}: {seconds:.2} s, {:.0}/s.", self.stream, count as f64 / seconds);
        Ok(())
    }
}

/// The answer to the oldest batch under way, if there is one.
async fn first(under_way: &mut VecDeque<Receipt>) -> Option<crate::client::Result<Appended>> {
    match under_way.front_mut() {
        Some(receipt) => Some(receipt.await),
        None => None,
    }
}

/// What the answers add up to.
#[derive(Default)]
struct Tally {
    first: Option<u64>,
    last: Option<u64>,
    duplicates: u64,
    lines: u64,
}

impl Tally {
    fn add(&mut self, appended: &Appended) {
        self.first = self.first.or(appended.first_offset);
        self.last = appended.last_offset.or(self.last);
        self.duplicates += if appended.duplicate { u64::from(appended.count) } else { 0 };
    }
}
