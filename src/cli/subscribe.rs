//! `tidelog sub` and `tidelog tail`: events on stdout, acks after printing.

use std::time::Duration;

use clap::{Args, ValueEnum};
use serde_json::{Map, Value};

use super::failure::Outcome;
use super::output::Out;
use crate::client::{Client, Consumer, ConsumerBuilder, Delivery, Error};
use crate::types::request::{OnGap, Start, Takeover};
use crate::types::{Code, TimeUs};

/// Follow a stream.
#[derive(Debug, Args)]
pub struct Sub {
    /// Stream to follow
    stream: String,
    /// Durable subscription to use; created if it does not exist. Without: an ephemeral reader
    #[arg(long, short, value_name = "NAME")]
    subscription: Option<String>,
    /// Where to begin: earliest, latest, an offset or a time. With --subscription it counts at creation only
    #[arg(long, value_name = "START", value_parser = start, allow_hyphen_values = true)]
    from: Option<Start>,
    /// End after this many events
    #[arg(short = 'n', long = "count", value_name = "COUNT")]
    count: Option<u64>,
    /// Do not ack what is printed; it comes again next time
    #[arg(long)]
    no_ack: bool,
    /// What to do when events that were wanted are gone
    #[arg(long, value_enum)]
    on_gap: Option<OnGapArg>,
    /// Only events for which this holds: 'type eq order.created and headers.region eq eu' (docs/filters.md). A subscription keeps the
    /// one it was created with
    #[arg(long, value_name = "FILTER")]
    filter: Option<String>,
    /// Refuse to take over from another live reader
    #[arg(long)]
    no_takeover: bool,
    /// Give up when the broker has been away for this long. Default: never
    #[arg(long, value_name = "SECONDS")]
    give_up_after: Option<u64>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum OnGapArg {
    /// End with an error
    Fail,
    /// Say so on stderr and go on
    Skip,
}

/// Print the last events of a stream.
#[derive(Debug, Args)]
pub struct Tail {
    /// Stream to look at
    stream: String,
    /// How many of the last events
    #[arg(short = 'n', long = "count", value_name = "COUNT", default_value_t = 10)]
    count: u64,
    /// Go on with new ones
    #[arg(short, long)]
    follow: bool,
}

/// Reads `--from`.
pub fn start(text: &str) -> Result<Start, String> {
    match text {
        "earliest" => Ok(Start::Earliest),
        "latest" => Ok(Start::Latest),
        _ if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) => text.parse().map(Start::Offset).map_err(|_| "the offset is too large".into()),
        _ => TimeUs::parse(text).map(Start::Time).map_err(|_| "use earliest, latest, an offset, or a time such as 2026-01-26T10:00:00Z".into()),
    }
}

/// The JSON form of a start, for the control plane.
pub fn start_value(start: Start) -> Value {
    match start {
        Start::Earliest => "earliest".into(),
        Start::Latest => "latest".into(),
        Start::Offset(offset) => offset.into(),
        Start::Time(time) => time.to_string().into(),
    }
}

/// Events printed before they are flushed and acked, at most.
const PRINT_AT_ONCE: usize = 1000;

impl Sub {
    /// Runs the command.
    pub async fn run(self, client: &Client, json: bool) -> Outcome {
        let mut consumer = self.open(client).await?;
        let acks = self.subscription.is_some() && !self.no_ack;
        let printed = print(&mut consumer, &self.stream, json, self.count, acks).await;
        consumer.close().await;
        printed
    }

    async fn open(&self, client: &Client) -> Outcome<Consumer> {
        let mut builder = client.consumer(&self.stream);
        if let Some(seconds) = self.give_up_after {
            builder = builder.give_up_after(Duration::from_secs(seconds));
        }
        if let Some(on_gap) = self.on_gap {
            builder = builder.on_gap(match on_gap {
                OnGapArg::Fail => OnGap::Fail,
                OnGapArg::Skip => OnGap::Skip,
            });
        }
        if let Some(filter) = &self.filter {
            builder = builder.filter(filter);
        }
        if self.no_takeover {
            builder = builder.takeover(Takeover::Reject);
        }
        match (&self.subscription, self.from) {
            (None, None) => Ok(builder.open().await?),
            (None, Some(from)) => Ok(builder.from(from).open().await?),
            (Some(name), None) => Ok(builder.subscription(name).create().open().await?),
            (Some(name), Some(from)) => self.open_created(client, builder.subscription(name), name, from).await,
        }
    }

    /// `--from` counts at creation only, so the subscription is made first and then opened at its cursor.
    async fn open_created(&self, client: &Client, builder: ConsumerBuilder, name: &str, from: Start) -> Outcome<Consumer> {
        let mut fields = Map::from_iter([("start".to_owned(), start_value(from))]);
        fields.extend(self.filter.iter().map(|filter| ("filter".to_owned(), filter.as_str().into())));
        match client.admin().create_subscription(&self.stream, name, fields).await {
            Ok(_) => {}
            Err(error) if error.code() == Some(Code::NameTaken) => {}
            // `tidelog dev` creates the stream when it is subscribed to; then the subscription is new as well.
            Err(Error::Server { error, .. }) if error.code == Code::NotFound => return Ok(builder.create().from(from).open().await?),
            Err(error) => return Err(error.into()),
        }
        Ok(builder.open().await?)
    }
}

/// Prints until the count is reached, the stream of deliveries ends, or stdout is closed.
async fn print(consumer: &mut Consumer, stream: &str, json: bool, count: Option<u64>, acks: bool) -> Outcome {
    let mut left = count.unwrap_or(u64::MAX);
    let mut out = Out::new();
    let mut unconfirmed = None;
    while left > 0 {
        let Some(first) = consumer.next().await else { break };
        let (mut last, mut printed) = (None, 0);
        let mut ended: Outcome = Ok(());
        let mut delivery = Some(first);
        while let Some(step) = delivery {
            match step {
                Ok(Delivery::Event(event)) => {
                    out.event(stream, &event, json)?;
                    last = Some(event.offset);
                    (left, printed) = (left - 1, printed + 1);
                }
                Ok(Delivery::Gap { from, to, reason }) => {
                    eprintln!("Events {from} to {to} are gone ({}).", reason.as_str());
                    last = Some(to);
                }
                Ok(Delivery::Live { .. }) => {}
                Err(error) => ended = Err(error.into()),
            }
            // Whatever is taken is printed: nothing is asked for that this round would drop.
            delivery = if left > 0 && printed < PRINT_AT_ONCE && ended.is_ok() { consumer.try_next() } else { None };
        }
        out.flush()?;
        if let (true, Some(offset)) = (acks, last) {
            unconfirmed = Some(consumer.ack(offset));
        }
        ended?;
    }
    // The last ack counts before we say that it went well.
    if let Some(ack) = unconfirmed {
        ack.confirmed().await?;
    }
    Ok(())
}

impl Tail {
    /// Runs the command.
    pub async fn run(self, client: &Client, json: bool) -> Outcome {
        let state = client.admin().stream(&self.stream).await?.state;
        let from = state.next_offset.saturating_sub(self.count).max(state.first_offset);
        let mut consumer = client.consumer(&self.stream).from(Start::Offset(from)).on_gap(OnGap::Skip).open().await?;
        let printed = if self.follow {
            print(&mut consumer, &self.stream, json, None, false).await
        } else {
            print(&mut consumer, &self.stream, json, Some(state.next_offset - from), false).await
        };
        consumer.close().await;
        printed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_are_words_numbers_or_times() {
        assert_eq!(start("earliest"), Ok(Start::Earliest));
        assert_eq!(start("17"), Ok(Start::Offset(17)));
        assert!(matches!(start("2026-01-26T10:00:00Z"), Ok(Start::Time(_))));
        for bad in ["", "-1", "yesterday", "99999999999999999999"] {
            assert!(start(bad).is_err(), "{bad}");
        }
        assert_eq!(start_value(Start::Offset(3)), 3);
    }
}
