//! Filters, as they stand in URLs.

use tidelog::broker::fields;
use tidelog::types::Filter;

use crate::engine::{Heard, Target, Verdict};
use crate::gauge::{Bound, Gauge};
use crate::mutate::Shape;
use crate::promises::refused;

pub const FILTERS: Target = Target { name: "filters", shape: Shape::Text, bound: Bound::USUAL, seeds, check, cases: 40_000 };

fn seeds() -> Vec<Vec<u8>> {
    [
        "name eq orders",
        "not (state.count gt 10 or state.count lt 5) and closed ne true",
        "metadata.team eq 'it''s' or metadata.team eq \"say \\\"hi\\\" \\\\ \"",
        "created_at ge 2026-01-26T10:00:00Z and owner ne null",
        "((((((((id eq 1))))))))",
        "type eq order.created and headers.trace eq a1 and size le 4096 and author.source_id eq 42",
    ]
    .iter()
    .map(|text| text.as_bytes().to_vec())
    .collect()
}

/// Over the fields of streams or of events: it says where it is wrong, or means the same when it is written with more blanks.
fn check(input: &[u8], gauge: &mut Gauge) -> Verdict {
    let Ok(text) = std::str::from_utf8(input) else { return Ok(Heard::Refused("not text".into())) };
    let mut heard = Heard::Refused(String::new());
    for of in [fields::STREAMS, fields::EVENTS] {
        match gauge.decode(|| Filter::parse(text, of)) {
            Ok(filter) => {
                if filter.as_str() != text {
                    return Err(format!("{text:?} is kept as {:?}", filter.as_str()));
                }
                heard = Heard::Taken("a filter".into());
            }
            Err(why) => {
                let position = why.details["position"].as_u64().ok_or("an error without a position")?;
                if position > text.chars().count() as u64 && text.len() <= tidelog::types::limits::FILTER_BYTES {
                    return Err(format!("position {position} is behind {text:?}"));
                }
                if let (Heard::Refused(more), Heard::Refused(said)) = (refused(&why)?, &mut heard) {
                    said.push_str(&more);
                }
            }
        }
    }
    Ok(heard)
}
