//! Ack tokens (C-18): whatever is not word for word a token that was given out for this subscription is refused.

use tidelog::broker::ack_token::{AckTokens, Run};
use tidelog::types::{StreamName, SubscriptionName, TimeUs};

use crate::engine::{Target, Verdict};
use crate::gauge::{Bound, Gauge};
use crate::mutate::Shape;
use crate::promises::{refused, same, taken};

pub const TOKENS: Target = Target { name: "ack_tokens", shape: Shape::Text, bound: Bound::USUAL, seeds: genuine, check, cases: 25_000 };

pub fn names() -> (StreamName, SubscriptionName) {
    (StreamName::parse("orders").expect("a name"), SubscriptionName::parse("billing").expect("a name"))
}

pub fn runs() -> [Run; 3] {
    [(6, 41, 58), (0, 0, 1), (u64::MAX, u64::MAX - 1, u64::MAX)].map(|(epoch, from, to)| Run { epoch, from, to, log_epoch: 1, expires: TimeUs(1 << 50) })
}

pub fn genuine() -> Vec<Vec<u8>> {
    let (stream, subscription) = names();
    let tokens = AckTokens::new(b"secret");
    runs().iter().map(|run| tokens.write(&stream, &subscription, run).into_bytes()).collect()
}

fn check(input: &[u8], gauge: &mut Gauge) -> Verdict {
    let Ok(token) = std::str::from_utf8(input) else { return Ok(crate::engine::Heard::Refused("not text".into())) };
    let (stream, subscription) = names();
    let tokens = AckTokens::new(b"secret");
    judge(token, gauge.decode(|| tokens.read(&stream, &subscription, token)))
}

/// The verdict about a text that was read as a token.
pub fn judge(token: &str, read: tidelog::types::Result<Run>) -> Verdict {
    let (stream, subscription) = names();
    match read {
        Err(why) => refused(&why),
        Ok(run) => {
            same("a token", token, &AckTokens::new(b"secret").write(&stream, &subscription, &run))?;
            if !runs().contains(&run) {
                return Err(format!("a token that nobody gave out is taken: {run:?}"));
            }
            taken("genuine")
        }
    }
}
