//! `tidelog stream`, `subscription`, `producer`, `operation`: the control plane.

use std::time::Duration;

use clap::Subcommand;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::failure::{Failure, Outcome};
use super::output::{Out, confirm, fields, table};
use super::subscribe::{start, start_value};
use crate::client::{Client, Error, OperationObject};
use crate::types::request::Start;
use crate::types::{self, Code};

/// Streams.
#[derive(Debug, Subcommand)]
pub enum Stream {
    /// Create a stream
    Create {
        /// Its name
        name: String,
        /// For people
        #[arg(long)]
        description: Option<String>,
        /// For programs, may be repeated
        #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
        metadata: Vec<(String, String)>,
        /// Largest data of one event
        #[arg(long, value_name = "BYTES")]
        event_max_bytes: Option<u64>,
    },
    /// List streams
    #[command(visible_alias = "list")]
    Ls {
        /// Only those for which this holds: 'name ge a and state.count gt 0' (docs/filters.md)
        #[arg(long)]
        filter: Option<String>,
    },
    /// Describe a stream
    #[command(visible_alias = "info")]
    Show {
        /// Which
        name: String,
    },
    /// Change a stream's configuration (not in this version)
    Set {
        /// Which
        name: String,
        /// What
        #[arg(value_name = "FIELD=VALUE")]
        changes: Vec<String>,
    },
    /// Remove a stream and all its events
    #[command(visible_alias = "delete")]
    Rm {
        /// Which
        name: String,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
        /// Do not wait until it is gone
        #[arg(long)]
        no_wait: bool,
    },
    /// Drop the oldest events
    Trim {
        /// Which
        name: String,
        /// Drop the events before this offset or time
        #[arg(long, value_name = "OFFSET|TIME", value_parser = start)]
        before: Start,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
    /// Drop all events (not in this version)
    Purge {
        /// Which
        name: String,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
    /// Take no more events
    Close {
        /// Which
        name: String,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
}

/// Subscriptions.
#[derive(Debug, Subcommand)]
pub enum Subscription {
    /// Create a subscription
    Create {
        /// Its stream
        stream: String,
        /// Its name
        name: String,
        /// Where its cursor begins: earliest, latest, an offset or a time
        #[arg(long, default_value = "earliest", value_parser = start)]
        start: Start,
        /// Most events delivered but not acked
        #[arg(long, value_name = "EVENTS")]
        max_in_flight: Option<u64>,
        /// How long a detached session may still ack
        #[arg(long, value_name = "SECONDS")]
        ack_timeout_s: Option<u64>,
        /// It goes after this long without use
        #[arg(long, value_name = "SECONDS")]
        expires_s: Option<u64>,
        /// Deliver only events for which this holds: 'type eq order.created' (docs/filters.md)
        #[arg(long)]
        filter: Option<String>,
    },
    /// List the subscriptions of a stream
    #[command(visible_alias = "list")]
    Ls {
        /// Its stream
        stream: String,
        /// Only those for which this holds: 'lag gt 1000' (docs/filters.md)
        #[arg(long)]
        filter: Option<String>,
    },
    /// Describe a subscription: cursor, epoch, lag
    #[command(visible_alias = "info")]
    Show {
        /// Its stream
        stream: String,
        /// Which
        name: String,
    },
    /// Move the cursor and end the live session
    Seek {
        /// Its stream
        stream: String,
        /// Which
        name: String,
        /// Where to: earliest, latest, an offset (the next event) or a time
        #[arg(value_parser = start)]
        to: Start,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
    /// Remove a subscription and its cursor
    #[command(visible_alias = "delete")]
    Rm {
        /// Its stream
        stream: String,
        /// Which
        name: String,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
}

/// Producers of a stream.
#[derive(Debug, Subcommand)]
pub enum Producer {
    /// List the producers of a stream
    #[command(visible_alias = "list")]
    Ls {
        /// Its stream
        stream: String,
    },
    /// Describe a producer: epoch, last sequence number
    #[command(visible_alias = "info")]
    Show {
        /// Its stream
        stream: String,
        /// Which
        id: String,
    },
    /// Forget a producer: what it stored stays, and is not recognised any more when it is sent again
    #[command(visible_alias = "delete")]
    Rm {
        /// Its stream
        stream: String,
        /// Which
        id: String,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
}

/// Operations.
#[derive(Debug, Subcommand)]
pub enum Operation {
    /// List the operations of the last day
    #[command(visible_alias = "list")]
    Ls {
        /// Only those for which this holds: 'status_code lt 200' (docs/filters.md)
        #[arg(long)]
        filter: Option<String>,
    },
    /// Describe an operation
    Show {
        /// Its id
        id: String,
    },
    /// Wait until an operation has ended
    Wait {
        /// Its id
        id: String,
        /// Longest wait
        #[arg(long, value_name = "SECONDS", default_value_t = 3600)]
        timeout: u64,
    },
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write it like team=pay".into()),
    }
}

impl Stream {
    /// Runs the command.
    pub async fn run(self, client: &Client, json: bool) -> Outcome {
        let admin = client.admin();
        match self {
            Self::Create { name, description, metadata, event_max_bytes } => {
                let mut body = Map::new();
                body.extend(description.map(|text| ("description".to_owned(), text.into())));
                body.extend(event_max_bytes.map(|bytes| ("event_max_bytes".to_owned(), bytes.into())));
                if !metadata.is_empty() {
                    let metadata: Map<String, Value> = metadata.into_iter().map(|(name, value)| (name, value.into())).collect();
                    body.insert("metadata".into(), metadata.into());
                }
                let stream = admin.create_stream(&name, body).await?;
                said(json, &stream, &format!("Created stream {name}."))
            }
            Self::Ls { filter } => {
                let streams = match &filter {
                    None => admin.streams().await?,
                    Some(filter) => admin.streams_where(filter).await?,
                };
                list(json, &streams, &["NAME", "EVENTS", "FIRST", "NEXT", "STATUS"], |s| {
                    let kept = s.state.next_offset - s.state.first_offset;
                    let status = if s.closed { "Closed".to_owned() } else { s.status.clone() };
                    vec![s.name.clone(), kept.to_string(), s.state.first_offset.to_string(), s.state.next_offset.to_string(), status]
                })
            }
            Self::Show { name } => show(json, &admin.stream(&name).await?),
            Self::Set { .. } => not_implemented("Changing a stream's configuration"),
            Self::Purge { name, .. } => not_implemented(&format!("Purge (`tidelog stream trim {name} --before OFFSET` drops a prefix)")),
            Self::Rm { name, yes, no_wait } => {
                confirm(&format!("Remove stream {name} and all its events?"), yes)?;
                let operation = admin.delete_stream(&name).await?;
                if no_wait || operation.is_final() {
                    return ended(json, &operation, &format!("Removing stream {name}: operation {}.", operation.id));
                }
                let operation = admin.wait_operation(&operation.id, types::limits::OPERATION_WAIT).await?;
                ended(json, &operation, &format!("Removed stream {name}."))
            }
            Self::Trim { name, before, yes } => {
                let body = match before {
                    Start::Offset(offset) => json!({ "before_offset": offset }),
                    Start::Time(time) => json!({ "before_time": time.to_string() }),
                    Start::Earliest | Start::Latest => return Err(Failure::Usage("--before takes an offset or a time.".into())),
                };
                confirm(&format!("Drop the events of {name} before {}?", start_value(before)), yes)?;
                let stream = admin.trim_stream(&name, body).await?;
                said(json, &stream, &format!("Trimmed {name}."))
            }
            Self::Close { name, yes } => {
                confirm(&format!("Close stream {name} for ever?"), yes)?;
                let stream = admin.close_stream(&name).await?;
                said(json, &stream, &format!("Closed {name}."))
            }
        }
    }
}

impl Subscription {
    /// Runs the command.
    pub async fn run(self, client: &Client, json: bool) -> Outcome {
        let admin = client.admin();
        match self {
            Self::Create { stream, name, start, max_in_flight, ack_timeout_s, expires_s, filter } => {
                let mut body = Map::from_iter([("start".to_owned(), start_value(start))]);
                let numbers = [("max_in_flight", max_in_flight), ("ack_timeout_s", ack_timeout_s), ("expires_s", expires_s)];
                body.extend(numbers.into_iter().filter_map(|(field, number)| Some((field.to_owned(), number?.into()))));
                body.extend(filter.map(|filter| ("filter".to_owned(), filter.into())));
                let made = admin.create_subscription(&stream, &name, body).await?;
                said(json, &made, &format!("Created subscription {name} of {stream}; its next event is {}.", made.next))
            }
            Self::Ls { stream, filter } => {
                let all = match &filter {
                    None => admin.subscriptions(&stream).await?,
                    Some(filter) => admin.subscriptions_where(&stream, filter).await?,
                };
                list(json, &all, &["NAME", "NEXT", "LAG", "EPOCH", "STATUS"], |s| {
                    vec![s.name.clone(), s.next.to_string(), s.lag.events.to_string(), s.epoch.to_string(), s.status.clone()]
                })
            }
            Self::Show { stream, name } => show(json, &admin.subscription(&stream, &name).await?),
            Self::Seek { stream, name, to, yes } => {
                confirm(&format!("Move the cursor of {name} to {} and end its session?", start_value(to)), yes)?;
                let body = match to {
                    Start::Earliest => json!({ "earliest": true }),
                    Start::Latest => json!({ "latest": true }),
                    Start::Offset(next) => json!({ "next": next }),
                    Start::Time(time) => json!({ "time": time.to_string() }),
                };
                let moved = admin.seek(&stream, &name, body).await?;
                said(json, &moved, &format!("Moved the cursor of {name}; its next event is {}.", moved["next"]))
            }
            Self::Rm { stream, name, yes } => {
                confirm(&format!("Remove subscription {name} of {stream} and its cursor?"), yes)?;
                admin.delete_subscription(&stream, &name).await?;
                said(json, &json!({ "stream": stream, "name": name }), &format!("Removed subscription {name} of {stream}."))
            }
        }
    }
}

impl Producer {
    /// Runs the command.
    pub async fn run(self, client: &Client, json: bool) -> Outcome {
        let admin = client.admin();
        match self {
            Self::Ls { stream } => {
                let all = admin.producers(Some(&stream)).await?;
                list(json, &all, &["PRODUCER", "EPOCH", "LAST SEQ", "LAST USED"], |p| {
                    let last_seq = p.last_seq.map_or_else(|| "-".to_owned(), |seq| seq.to_string());
                    vec![p.producer.clone(), p.epoch.to_string(), last_seq, p.last_used_at.clone()]
                })
            }
            Self::Show { stream, id } => show(json, &admin.producer(Some(&stream), &id).await?),
            Self::Rm { stream, id, yes } => {
                confirm(&format!("Forget producer {id} of {stream}?"), yes)?;
                admin.delete_producer(Some(&stream), &id).await?;
                said(json, &json!({ "stream": stream, "producer": id }), &format!("Forgot producer {id} of {stream}."))
            }
        }
    }
}

impl Operation {
    /// Runs the command.
    pub async fn run(self, client: &Client, json: bool) -> Outcome {
        let admin = client.admin();
        match self {
            Self::Ls { filter } => {
                let mut all = admin.operations(filter.as_deref()).await?;
                all.sort_by(|a, b| a.created_at.cmp(&b.created_at));
                list(json, &all, &["ID", "COMMAND", "STATUS", "CREATED", "DESCRIPTION"], |o| {
                    vec![o.id.clone(), o.command.clone(), o.status.clone(), o.created_at.clone(), o.description.clone()]
                })
            }
            Self::Show { id } => show(json, &admin.operation(&id).await?),
            Self::Wait { id, timeout } => {
                let operation = admin.wait_operation(&id, Duration::from_secs(timeout)).await?;
                if !operation.is_final() {
                    return Err(Error::Timeout(format!("Operation {id} is still {} after {timeout} s.", operation.status)).into());
                }
                ended(json, &operation, &format!("Operation {id} ended with {}.", operation.status))
            }
        }
    }
}

fn not_implemented(what: &str) -> Outcome {
    let error = types::Error::new(Code::NotImplemented, format!("{what} is not implemented in this version."));
    Err(error.into())
}

/// An operation that failed is a command that failed.
fn ended(json: bool, operation: &OperationObject, sentence: &str) -> Outcome {
    if operation.status_code >= 400 {
        return Err(Failure::failed(format!("Operation {} ended with {}: {}", operation.id, operation.status, operation.err)));
    }
    said(json, operation, sentence)
}

fn said(json: bool, object: &impl Serialize, sentence: &str) -> Outcome {
    if json {
        return Out::new().json(object);
    }
    eprintln!("{sentence}");
    Ok(())
}

fn show(json: bool, object: &impl Serialize) -> Outcome {
    let mut out = Out::new();
    match serde_json::to_value(object) {
        Ok(Value::Object(map)) if !json => out.raw(fields(&map).as_bytes()),
        _ => out.json(object),
    }
}

fn list<T: Serialize>(json: bool, items: &[T], head: &[&str], row: impl Fn(&T) -> Vec<String>) -> Outcome {
    let mut out = Out::new();
    if json {
        return items.iter().try_for_each(|item| out.json(item));
    }
    let rows: Vec<Vec<String>> = items.iter().map(row).collect();
    out.raw(table(head, &rows).as_bytes())
}
