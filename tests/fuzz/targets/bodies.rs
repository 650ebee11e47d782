//! REST bodies by their readers: appends, commits, NDJSON, and the error body that clients read.

use tidelog::types::{Error, Events};
use tidelog::wire::error::{read_rest_body, rest_body};
use tidelog::wire::json::{self, Lines};

use crate::engine::{Heard, Target, Verdict};
use crate::gauge::{Bound, Gauge};
use crate::mutate::Shape;
use crate::promises::{events, refused, same, taken};

pub const BODIES: Target = Target { name: "rest_bodies", shape: Shape::Json, bound: Bound::USUAL, seeds, check, cases: 20_000 };

fn seeds() -> Vec<Vec<u8>> {
    [
        r#"{"events":[{"type":"order.created","key":"o-1","headers":{"trace":"a1"},"data":{"total":12}},{"data":"AP8=","encoding":"base64"}],"expected_next_offset":61,"producer":{"id":"p1","epoch":3,"seq":17},"stream_id":7}"#,
        r#"{"acks":[{"stream":"orders","subscription":"billing","epoch":6,"offset":57}],"appends":[{"stream":"invoices","events":[{"data":{"n":1}}]}],"checks":[{"stream":"x","expected_next_offset":0}]}"#,
        r#"[{"data":1},{"data":"text","encoding":"utf8"}]"#,
        r#"{"data":{"n":[1,2,3]}}"#,
        "{\"data\":1}\n\n{\"data\":[2]}\n {\"data\":\"x\",\"encoding\":\"utf8\",\"key\":\"k\"} \r\n",
        "1\n\"two\"\n{\"three\":3}",
        r#"{"type":"error","error":"Sequence 9 is missing.","error_code":409,"metadata":{"code":"producer_seq_gap","rule":"P-8","applied":"no","retry":"resend","request_id":"r-1","details":{"expected":9}}}"#,
    ]
    .iter()
    .map(|text| text.as_bytes().to_vec())
    .collect()
}

fn check(input: &[u8], gauge: &mut Gauge) -> Verdict {
    let append = gauge.decode(|| json::parse_append_body(input));
    let without_id = gauge.decode(|| json::parse_append_json(input));
    if let (Ok(body), Ok((events_of, ..))) = (&append, &without_id) {
        same("two readers of an append", &events(&body.events), &events(events_of))?;
    }
    let commit = gauge.decode(|| json::parse_commit_json(input));
    let list = gauge.decode(|| json::parse_events_json(input));
    let lines = gauge.decode(|| json::parse_ndjson(input, Lines::Events));
    let data = gauge.decode(|| json::parse_ndjson(input, Lines::Data));
    for (what, found) in [("a list", &list), ("lines", &lines)] {
        if let Ok(read) = found {
            let again = Events::from_wire(read.encoded()).map_err(|why| format!("{what} of events is refused at the door: {why}"))?;
            same(what, &events(read), &events(&again))?;
        }
    }
    if let Err(why) = &lines {
        // Where an event stands in its body is told by its line.
        json::in_its_line(why.clone(), input);
    }
    if let Some((error, request_id)) = gauge.decode(|| read_rest_body(input)) {
        let written = rest_body(&error, &request_id);
        let again = read_rest_body(&written).ok_or("an error body that was written is not read")?;
        same("an error body", &format!("{error:?} {request_id}"), &format!("{:?} {}", again.0, again.1))?;
        return taken("error body");
    }
    let outcomes: [(&str, Option<Error>); 6] = [
        ("append", append.err()),
        ("append without id", without_id.err()),
        ("commit", commit.err()),
        ("list", list.err()),
        ("lines", lines.err()),
        ("data", data.err()),
    ];
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    for (what, why) in outcomes {
        match why.map(|why| refused(&why)).transpose()? {
            None => good.push(what),
            Some(Heard::Refused(why) | Heard::Taken(why)) => bad.push(why),
        }
    }
    if good.is_empty() { Ok(Heard::Refused(bad.join(" "))) } else { taken(good.join(" ")) }
}
