//! Lines that `tidelog pub -` reads, in each of its formats. What `sub --json` would print of them is a line that it takes.

use std::sync::Arc;

use tidelog::cli::input::{Format, Template};
use tidelog::types::batch::Stamp;
use tidelog::types::{EventsBuilder, Slice, StreamId, TimeUs};
use tidelog::wire::json;

use crate::engine::{Heard, Target, Verdict};
use crate::gauge::{Bound, Gauge};
use crate::mutate::Shape;
use crate::promises::{events, same, taken, told};

pub const LINES: Target = Target { name: "cli_lines", shape: Shape::Json, bound: Bound { per_byte: 32, ..Bound::USUAL }, seeds, check, cases: 25_000 };

fn seeds() -> Vec<Vec<u8>> {
    [
        r#"{"key":"own","headers":{"z":"1","a":"2"},"data":{"n": 1},"offset":7,"stream":"s"}"#,
        r#"{"offset":41,"time":"2026-01-26T10:00:00.123456Z","log_epoch":1,"type":"order.created","key":"o-1","headers":{"trace":"a1"},"data":{"total":12},"encoding":"json","size":12,"author":{"user_id":7,"source_id":42}}"#,
        r#"{"data":"AP8=","encoding":"base64"}"#,
        r#"{"data":"text","encoding":"utf8","type":"t"}"#,
        "plain text",
        "[1,2,{\"a\":null}]",
    ]
    .iter()
    .map(|text| text.as_bytes().to_vec())
    .collect()
}

fn check(input: &[u8], gauge: &mut Gauge) -> Verdict {
    let mut good = Vec::new();
    let mut bad = String::new();
    for format in [Format::Text, Format::Json, Format::Event, Format::Bytes] {
        let template = Template { format, kind: "k".into(), key: String::new(), headers: vec![("from".into(), "options".into())] };
        let mut builder = EventsBuilder::default();
        let event = gauge.decode(|| template.event(input));
        let pushed = event.and_then(|event| gauge.decode(|| builder.push(&event.as_ref())).map_err(|why| why.message.clone()));
        match pushed {
            Ok(()) => {
                let read = builder.finish().map_err(|why| why.message.clone())?;
                printed_and_sent_again(&read)?;
                good.push(format!("{format:?}"));
            }
            Err(why) => {
                if let Heard::Refused(why) = told(&why)? {
                    bad += &why;
                }
            }
        }
    }
    if good.is_empty() { Ok(Heard::Refused(bad)) } else { taken(good.join(" ")) }
}

fn printed_and_sent_again(read: &tidelog::types::Events) -> Result<(), String> {
    let stamp = Stamp { base_offset: 41, time: TimeUs(1), log_epoch: 1, author_user: 1, author_source: 0, bytes_before: 0 };
    let slice = Slice::of(Arc::new(read.clone().stamp(StreamId(1), stamp)), 0..100).ok_or("no events")?;
    let mut line = Vec::new();
    json::events_json(&mut line, &[slice]);
    let line = json::single_line(&line);
    let mut again = EventsBuilder::default();
    let event = Template { format: Format::Event, ..Template::default() }.event(&line).map_err(|why| format!("the line that is printed of it {why}"))?;
    again.push(&event.as_ref()).map_err(|why| format!("the line that is printed of it is refused: {why}"))?;
    let again = again.finish().map_err(|why| why.message.clone())?;
    // Line ends inside JSON became blanks.
    let blank = |text: String| text.replace("\\n", " ").replace("\\r", " ");
    same("printed and sent again", &blank(events(read)), &blank(events(&again)))
}
