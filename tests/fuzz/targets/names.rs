//! Words by themselves: names, keys, times, positions.

use tidelog::types::name::quote;
use tidelog::types::{Code, IdempotencyKey, ProducerId, StreamName, SubscriptionName, TimeUs};
use tidelog::wire::sse::{self, LastId};

use crate::engine::{Heard, Target, Verdict};
use crate::gauge::{Bound, Gauge};
use crate::mutate::Shape;
use crate::promises::{refused, taken};

pub const NAMES: Target = Target { name: "names", shape: Shape::Text, bound: Bound::USUAL, seeds, check, cases: 40_000 };

fn seeds() -> Vec<Vec<u8>> {
    [
        "orders",
        "A.b_c-9",
        "cursor:orders:billing",
        "order-7/try~1",
        "2026-01-26T10:00:00.123456Z",
        "2026-01-26T10:00:00+01:00",
        "-1",
        "41",
        "fenced",
        "session_fenced",
    ]
    .iter()
    .map(|text| text.as_bytes().to_vec())
    .collect()
}

fn check(input: &[u8], gauge: &mut Gauge) -> Verdict {
    let Ok(text) = std::str::from_utf8(input) else { return Ok(Heard::Refused("not text".into())) };
    let mut good = Vec::new();
    let mut heard = String::new();
    let mut note = |what: &'static str, outcome: Result<String, tidelog::types::Error>| -> Result<(), String> {
        match outcome {
            Ok(name) if name == text && (1..=200).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_graphic()) => good.push(what),
            Ok(name) => return Err(format!("{what} {text:?} is taken as {name:?}")),
            Err(why) => {
                if let Heard::Refused(why) = refused(&why)? {
                    heard += &why;
                }
            }
        }
        Ok(())
    };
    note("stream", gauge.decode(|| StreamName::parse(text)).map(|n| n.to_string()))?;
    note("subscription", gauge.decode(|| SubscriptionName::parse(text)).map(|n| n.to_string()))?;
    note("producer", gauge.decode(|| ProducerId::parse(text)).map(|n| n.to_string()))?;
    let key = gauge.decode(|| IdempotencyKey::parse(text));
    if let Err(why) = &key
        && text.len() > 20
        && why.message.contains(text)
    {
        return Err("an idempotency key is repeated in an error".into());
    }
    note("key", key.map(|k| k.as_str().to_owned()))?;
    if let Ok(time) = gauge.decode(|| TimeUs::parse(text)) {
        let again = TimeUs::parse(&time.to_string()).map_err(|why| format!("time {text:?} is written as {time}, which is refused: {why}"))?;
        if again != time {
            return Err(format!("time {text:?} is written as another: {time}"));
        }
        good.push("time");
    }
    if let Some(LastId::Next(next)) = gauge.decode(|| LastId::parse(text)) {
        let mut out = Vec::new();
        sse::position(&mut out, next);
        let said = String::from_utf8_lossy(&out);
        if LastId::parse(said.trim().trim_start_matches("id: ")) != Some(LastId::Next(next)) {
            return Err(format!("position {next} is written as {said:?}"));
        }
        good.push("position");
    }
    if quote(text).len() > 64 * 12 {
        return Err(format!("quoted it is {} bytes", quote(text).len()));
    }
    if Code::parse(text).is_some_and(|code| code.as_str() != text) {
        return Err("a code is read as another".into());
    }
    if good.is_empty() { Ok(Heard::Refused(heard)) } else { taken(good.join(" ")) }
}
