//! What must hold of every refusal and of every value, whatever decoder it comes from.

use tidelog::types::{Applied, Code, Error, Events, Retry};
use tidelog::wire::error as error_json;
use tidelog::wire::frame::{ClientFrame, ServerFrame};

use crate::engine::{Heard, Verdict};

/// Most bytes of an error in its JSON form, however long the input: a name of the limit in it, and our own words.
pub const ERROR_BYTES: usize = 1536;
/// Codes that a decoder may give.
const DECODER: &[Code] = &[
    Code::JsonParsingFailed,
    Code::UnknownField,
    Code::BadParameter,
    Code::TooLarge,
    Code::TxnTooLarge,
    Code::NotImplemented,
    Code::BadAckToken,
    Code::BadFilter,
    Code::UnknownFilterField,
];

/// A refusal of a decoder: a code of the table, surely without an effect, a sentence, and not the input back.
pub fn refused(error: &Error) -> Verdict {
    if !DECODER.contains(&error.code) {
        return Err(format!("a decoder says {}: {}", error.code, error.message));
    }
    if (error.applied, error.code.applied(), error.retry) != (Applied::No, Applied::No, Retry::Never) {
        return Err(format!("{} is not surely without an effect, or says to try again", error.code));
    }
    sentence(&error.message)?;
    let mut said = Vec::new();
    error_json::write_frame_members(&mut said, error, "");
    if said.len() > ERROR_BYTES {
        return Err(format!("the error is {} bytes long, {ERROR_BYTES} may be: {}…", said.len(), String::from_utf8_lossy(&said[..200])));
    }
    let field = error.details.get("field").and_then(|f| f.as_str()).unwrap_or_default();
    Ok(Heard::Refused(format!("{} {} {}", error.code, letters(field), letters(&error.message))))
}

/// A refusal that is only a sentence.
pub fn told(why: &str) -> Verdict {
    if why.is_empty() || why.len() > ERROR_BYTES {
        return Err(format!("the sentence is {} bytes long, {ERROR_BYTES} may be: {}…", why.len(), why.chars().take(200).collect::<String>()));
    }
    Ok(Heard::Refused(letters(why)))
}

pub fn taken(what: impl AsRef<str>) -> Verdict {
    Ok(Heard::Taken(letters(what.as_ref())))
}

/// The sentence ends as one, and shows no control characters.
pub fn sentence(text: &str) -> Result<(), String> {
    if text.len() < 8 || !text.ends_with('.') || text.chars().any(char::is_control) {
        return Err(format!("this is not a sentence: {text:?}"));
    }
    Ok(())
}

/// What stays of a text when numbers and quoted words are taken out: inputs that are heard alike look alike.
fn letters(text: &str) -> String {
    let unquoted: String = text.split('"').step_by(2).collect();
    unquoted.chars().filter(|c| c.is_alphabetic() || *c == '.').take(90).collect()
}

/// Two values that must be the same.
pub fn same(what: &str, one: &str, other: &str) -> Result<(), String> {
    if one == other {
        return Ok(());
    }
    let at = one.bytes().zip(other.bytes()).take_while(|(a, b)| a == b).count().saturating_sub(20);
    let near = |text: &str| String::from_utf8_lossy(text.as_bytes().get(at..).unwrap_or_default()).chars().take(120).collect::<String>();
    Err(format!("{what}: …{} became …{}", near(one), near(other)))
}

/// Everything that events say. White space around JSON is not said: the form in JSON has no place for it.
pub fn events(events: &Events) -> String {
    let one = |e: tidelog::types::EventRef<'_>| {
        let data = if e.encoding == tidelog::types::Encoding::Json { json_trimmed(e.data) } else { e.data };
        format!("{:?} {:?} {:?} {:?} {}", e.encoding, e.kind, e.key, e.headers, data.escape_ascii())
    };
    events.iter().map(one).collect::<Vec<_>>().join("; ")
}

fn json_trimmed(mut data: &[u8]) -> &[u8] {
    let space = |b: &u8| matches!(b, b' ' | b'\t' | b'\n' | b'\r');
    while let [first, rest @ ..] = data
        && space(first)
    {
        data = rest;
    }
    while let [rest @ .., last] = data
        && space(last)
    {
        data = rest;
    }
    data
}

/// Everything that a client's frame says. `Events` print their counts only, and those count white space.
pub fn said(frame: &ClientFrame) -> String {
    let (mut frame, mut all) = (frame.clone(), Vec::new());
    let empty = || Events::from_wire(&[0x7a, 3, 0x0a, 1, b'0']).expect("one event");
    match &mut frame {
        ClientFrame::Append { request, .. } => all.push(std::mem::replace(&mut request.events, empty())),
        ClientFrame::Commit { request, .. } => all.extend(request.appends.iter_mut().map(|a| std::mem::replace(&mut a.events, empty()))),
        _ => {}
    }
    format!("{frame:?} {}", all.iter().map(events).collect::<Vec<_>>().join(" | "))
}

/// Everything that a server's frame says; events one by one, since carriers may cut batches differently.
pub fn heard(frame: &ServerFrame) -> String {
    match frame {
        ServerFrame::Events { sub, stream, slices, lag } => {
            let one = |slice: &tidelog::types::Slice| {
                let head = slice.batch().head;
                slice
                    .events()
                    .map(|(offset, mut e)| {
                        if e.encoding == tidelog::types::Encoding::Json {
                            e.data = json_trimmed(e.data);
                        }
                        format!("{offset} {} {} {} {} {e:?}", head.time, head.log_epoch, head.author_user, head.author_source)
                    })
                    .collect::<Vec<_>>()
            };
            format!("{sub} {stream} {} {} {:.3} {:?}", lag.events, lag.bytes, lag.seconds + 0.0, slices.iter().flat_map(one).collect::<Vec<_>>())
        }
        other => format!("{other:?}"),
    }
}

/// The variant of a value that prints as Rust.
pub fn variant(debug: &str) -> &str {
    debug.split([' ', '{', '(']).next().unwrap_or_default()
}
