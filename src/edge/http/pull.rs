//! Reading a subscription by asking: pulls, and acks by token or by epoch (`surfaces.md` 5.11).
//!
//! Apart from `subscriptions` because this is the data plane: a session that goes on from call to call, without a connection.

use std::time::Duration;

use axum::extract::State;
use serde_json::{Value, json};

use super::body::{JsonBody, JsonOrNothing};
use super::fields::Fields;
use super::{Broker, Caller, NoQuery, Path, Reply, objects, reply, subscriptions};
use crate::types::reply::Pulled;
use crate::types::request::{AckLevel, AckRequest, OnGap, PullRequest, Takeover};
use crate::types::{Error, Result, StreamName, SubscriptionName, limits};
use crate::wire;

/// `POST …/pull`: without `epoch` it opens a session, with it that session goes on. The body may be empty.
pub async fn pull(State(face): Broker, Caller(who): Caller, path: Path, _: NoQuery, JsonOrNothing(bytes): JsonOrNothing) -> reply::Result {
    let stream = path.stream()?;
    let request = pull_request(stream.clone(), path.subscription()?, &bytes)?;
    // A long poll also ends, with nothing, when the broker stops or the client goes away.
    let pulled = face.broker().pull(&who, request).await?;
    Ok(Reply::Sync { metadata: rendered(&stream, &pulled)?, next: None })
}

fn pull_request(stream: StreamName, subscription: SubscriptionName, body: &[u8]) -> Result<PullRequest> {
    let mut fields = Fields::parse_or_empty(body)?;
    let request = PullRequest {
        stream,
        subscription,
        epoch: fields.take("epoch", "the epoch of your session")?,
        from: subscriptions::start_field(&mut fields, "from")?,
        takeover: fields.take_word("takeover", Takeover::parse, "steal or reject")?.unwrap_or_default(),
        on_gap: fields.take_word("on_gap", OnGap::parse, "fail or skip")?,
        log_epoch: fields.take("log_epoch", "the log epoch of your position")?,
        max_events: fields.take_number("max_events", 1, limits::READ_MAX_EVENTS as u64)?.unwrap_or(limits::READ_DEFAULT_EVENTS as u64),
        max_bytes: fields.take_number("max_bytes", 1, limits::READ_MAX_BYTES as u64)?.unwrap_or(limits::READ_MAX_BYTES as u64),
        wait: Duration::from_secs(fields.take_number("wait_s", 0, limits::LONG_POLL.as_secs())?.unwrap_or(0)),
    };
    fields.finish()?;
    Ok(request)
}

/// The events stand as they are shared with all JSON readers; around them is what a client sends next.
fn rendered(stream: &StreamName, pulled: &Pulled) -> Result<Vec<u8>> {
    let gap = pulled.gap.map_or(Value::Null, |(from, to, reason)| json!({"from": from, "to": to, "reason": reason.as_str()}));
    let token = Value::from(pulled.ack_token.as_deref());
    let Pulled { stream_id, epoch, log_epoch, next, .. } = pulled;
    let mut out =
        format!(r#"{{"stream":"{stream}","stream_id":{stream_id},"epoch":{epoch},"log_epoch":{log_epoch},"ack_token":{token},"gap":{gap},"events":["#)
            .into_bytes();
    wire::json::events_json(&mut out, &pulled.slices);
    out.extend_from_slice(format!(r#"],"next":{next},"lag":"#).as_bytes());
    out.extend_from_slice(&reply::text(&objects::lag(&pulled.lag))?);
    out.push(b'}');
    Ok(out)
}

/// `POST …/ack` (C-7 … C-13, C-16, C-18)
pub async fn ack(State(face): Broker, Caller(who): Caller, path: Path, _: NoQuery, JsonBody(bytes): JsonBody) -> reply::Result {
    let (stream, subscription, ack) = (path.stream()?, path.subscription()?, Ack::read(&bytes)?);
    let acked = match ack {
        Ack::Token { token, offset, level } => face.broker().ack_by_token(&who, &stream, &subscription, &token, offset, level).await?,
        Ack::Epoch { epoch, offset, level } => face.broker().ack(&who, AckRequest { stream, subscription, epoch, offset, level }).await?,
    };
    Reply::ok(&objects::acked(&acked))
}

/// By what an ack proves that its events were handed out.
#[derive(Debug, PartialEq)]
enum Ack {
    /// The token of a pull; without an offset all of that pull is done.
    Token { token: String, offset: Option<u64>, level: AckLevel },
    /// The session itself, over whatever carrier it was opened.
    Epoch { epoch: u64, offset: u64, level: AckLevel },
}

impl Ack {
    fn read(body: &[u8]) -> Result<Self> {
        let mut fields = Fields::parse(body)?;
        let token = fields.take::<String>("ack_token", "the text that a pull gave you")?;
        let epoch = fields.take::<u64>("epoch", "the epoch of your session")?;
        let offset = fields.take::<u64>("offset", "the offset of the last event done")?;
        let level = fields.take_word("level", AckLevel::parse, "durable or received")?.unwrap_or_default();
        fields.finish()?;
        match (token, epoch, offset) {
            (Some(token), None, offset) => Ok(Self::Token { token, offset, level }),
            (None, Some(epoch), Some(offset)) => Ok(Self::Epoch { epoch, offset, level }),
            (None, Some(_), None) => Err(Error::bad("offset", "Field offset is missing; with epoch, send the offset of the last event done.")),
            _ => Err(Error::bad("ack_token", "Send exactly one of ack_token (from a pull) and epoch (with offset).")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Code;
    use crate::types::request::Start;

    fn asked(body: &str) -> Result<PullRequest> {
        pull_request(StreamName::parse("s").unwrap(), SubscriptionName::parse("b").unwrap(), body.as_bytes())
    }

    #[test]
    fn an_empty_pull_takes_all_defaults() {
        for empty in ["", " \n", "{}", r#"{"epoch":null,"from":null}"#] {
            let pull = asked(empty).unwrap();
            assert_eq!((pull.epoch, pull.from, pull.on_gap, pull.log_epoch, pull.takeover), (None, None, None, None, Takeover::Steal));
            assert_eq!((pull.max_events, pull.max_bytes, pull.wait), (1000, 4 << 20, Duration::ZERO));
        }
    }

    #[test]
    fn a_pull_is_read_strictly_and_within_its_bounds() {
        let pull =
            asked(r#"{"epoch":7,"from":41,"max_events":10000,"max_bytes":4194304,"wait_s":60,"takeover":"reject","on_gap":"skip","log_epoch":2}"#).unwrap();
        assert_eq!((pull.epoch, pull.from, pull.max_events, pull.wait), (Some(7), Some(Start::Offset(41)), 10_000, Duration::from_secs(60)));
        assert_eq!((pull.takeover, pull.on_gap, pull.log_epoch), (Takeover::Reject, Some(OnGap::Skip), Some(2)));
        assert_eq!(asked(r#"{"from":"latest"}"#).unwrap().from, Some(Start::Latest));
        for (bad, field) in [
            (r#"{"max_events":0}"#, "max_events"),
            (r#"{"max_events":10001}"#, "max_events"),
            (r#"{"max_bytes":0}"#, "max_bytes"),
            (r#"{"max_bytes":4194305}"#, "max_bytes"),
            (r#"{"wait_s":61}"#, "wait_s"),
            (r#"{"wait_s":-1}"#, "wait_s"),
            (r#"{"wait_s":1.5}"#, "wait_s"),
            (r#"{"from":-1}"#, "from"),
            (r#"{"from":"soon"}"#, "from"),
            (r#"{"epoch":"1"}"#, "epoch"),
            (r#"{"takeover":"ask"}"#, "takeover"),
            (r#"{"on_gap":true}"#, "on_gap"),
        ] {
            let error = asked(bad).unwrap_err();
            assert_eq!((error.code, error.details["field"].as_str()), (Code::BadParameter, Some(field)), "{bad}");
        }
        assert_eq!(asked(r#"{"rewind":true}"#).unwrap_err().code, Code::UnknownField);
    }

    #[test]
    fn an_ack_has_exactly_one_of_its_two_forms() {
        let level = AckLevel::Durable;
        assert_eq!(Ack::read(br#"{"ack_token":"t"}"#), Ok(Ack::Token { token: "t".into(), offset: None, level }));
        assert_eq!(Ack::read(br#"{"ack_token":"t","offset":4}"#), Ok(Ack::Token { token: "t".into(), offset: Some(4), level }));
        assert_eq!(Ack::read(br#"{"epoch":3,"offset":4,"level":"received"}"#), Ok(Ack::Epoch { epoch: 3, offset: 4, level: AckLevel::Received }));
        for (bad, field) in [
            ("{}", "ack_token"),
            (r#"{"offset":4}"#, "ack_token"),
            (r#"{"ack_token":"t","epoch":3,"offset":4}"#, "ack_token"),
            (r#"{"epoch":3}"#, "offset"),
            (r#"{"epoch":3,"offset":-1}"#, "offset"),
            (r#"{"ack_token":7}"#, "ack_token"),
            (r#"{"ack_token":"t","level":"soon"}"#, "level"),
        ] {
            let error = Ack::read(bad.as_bytes()).unwrap_err();
            assert_eq!((error.code, error.details["field"].as_str()), (Code::BadParameter, Some(field)), "{bad}");
        }
    }
}
