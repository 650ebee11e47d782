//! Producers over REST: those of a stream, and the broker-wide ones for commits (`surfaces.md` 5.11).
//!
//! Both families have the same routes, below `/v1/streams/{stream}/producers` and `/v1/producers`.

use axum::extract::State;
use axum::http::HeaderMap;

use super::body::JsonBody;
use super::fields::Fields;
use super::{Broker, Caller, NoQuery, Path, Query, Reply, objects, refuse_conditions, reply, streams};
use crate::types::reply::Origin;
use crate::types::request::{Expect, OpenProducerRequest};
use crate::types::{ProducerId, Result, StreamId, StreamName};

/// Fields that only the broker sets.
const READ_ONLY: [&str; 6] = ["epoch", "last_seq", "next_offset", "log_epoch", "origin", "last_used_at"];

/// The stream in the path; none on the addresses of broker-wide producers.
fn stream(path: &Path) -> Result<Option<StreamName>> {
    if path.part("stream").is_empty() { Ok(None) } else { path.stream().map(Some) }
}

/// The producer in the path.
fn producer(path: &Path) -> Result<ProducerId> {
    ProducerId::parse(path.part("producer"))
}

/// `POST …/producers`: a new epoch, which fences older ones. A lost answer is repaired by asking again.
pub async fn open(State(face): Broker, Caller(who): Caller, path: Path, _: NoQuery, JsonBody(bytes): JsonBody) -> reply::Result {
    let stream = stream(&path)?;
    let opened = face.broker().open_producer(&who, open_request(stream.clone(), &bytes)?).await?;
    let metadata = reply::text(&objects::producer_opened(&opened))?;
    Ok(match opened.origin {
        Origin::Resumed => Reply::Sync { metadata, next: None },
        Origin::Created => {
            let location = objects::producer_url(stream.as_ref(), &opened.producer);
            Reply::Created { metadata, location, id: Some(opened.producer.to_string()) }
        }
    })
}

fn open_request(stream: Option<StreamName>, body: &[u8]) -> Result<OpenProducerRequest> {
    let mut fields = Fields::parse(body)?;
    fields.refuse_read_only(&READ_ONLY)?;
    let producer = ProducerId::parse(&fields.need::<String>("producer", "text")?)?;
    let expect = fields.take_word("expect", Expect::parse, "create, resume or any")?.unwrap_or_default();
    // A broker-wide producer has no stream whose id could be another one.
    let stream_id = if stream.is_some() { fields.take("stream_id", "the id of the stream")?.map(StreamId) } else { None };
    fields.finish()?;
    Ok(OpenProducerRequest { stream, stream_id, producer, expect })
}

/// `GET …/producers`
pub async fn list(State(face): Broker, Caller(who): Caller, path: Path, mut query: Query) -> reply::Result {
    let recursion = query.take_flag("recursion")?;
    let asked = streams::list_query(&mut query, &[])?;
    query.finish()?;
    let stream = stream(&path)?;
    let page = face.broker().producers(&who, stream.as_ref(), asked.clone()).await?;
    let base = objects::producers_url(stream.as_ref());
    streams::listed(page, &asked, &base, recursion, |p| p.producer.to_string(), |p| reply::text(&objects::producer(&p)))
}

/// `GET …/producers/{producer}`
pub async fn show(State(face): Broker, Caller(who): Caller, path: Path, _: NoQuery) -> reply::Result {
    Reply::ok(&objects::producer(&face.broker().producer(&who, stream(&path)?.as_ref(), &producer(&path)?).await?))
}

/// `DELETE …/producers/{producer}`: its next append is `producer_unknown`, its next opening begins at 0 again.
pub async fn delete(State(face): Broker, Caller(who): Caller, path: Path, _: NoQuery, headers: HeaderMap) -> reply::Result {
    refuse_conditions(&headers)?;
    face.broker().delete_producer(&who, stream(&path)?.as_ref(), &producer(&path)?).await?;
    Reply::ok(&serde_json::json!({}))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Code;

    #[test]
    fn an_opening_is_read_strictly() {
        let of_stream = |body: &str| open_request(Some(StreamName::parse("s").unwrap()), body.as_bytes());
        let opened = of_stream(r#"{"producer":"p:1","expect":"create","stream_id":7}"#).unwrap();
        assert_eq!((opened.producer.as_str(), opened.expect, opened.stream_id), ("p:1", Expect::Create, Some(StreamId(7))));
        assert_eq!(of_stream(r#"{"producer":"p"}"#).unwrap().expect, Expect::Any);
        for (bad, code) in [
            ("{}", Code::BadParameter),
            (r#"{"producer":7}"#, Code::BadParameter),
            (r#"{"producer":"a b"}"#, Code::BadParameter),
            (r#"{"producer":""}"#, Code::BadParameter),
            (r#"{"producer":"p","expect":"maybe"}"#, Code::BadParameter),
            (r#"{"producer":"p","stream_id":-1}"#, Code::BadParameter),
            (r#"{"producer":"p","epoch":1}"#, Code::ReadOnlyField),
            (r#"{"producer":"p","colour":1}"#, Code::UnknownField),
        ] {
            assert_eq!(of_stream(bad).unwrap_err().code, code, "{bad}");
        }
    }

    #[test]
    fn a_broker_wide_producer_knows_no_stream_id() {
        assert_eq!(open_request(None, br#"{"producer":"tx"}"#).unwrap().stream, None);
        assert_eq!(open_request(None, br#"{"producer":"tx","stream_id":7}"#).unwrap_err().code, Code::UnknownField);
    }
}
