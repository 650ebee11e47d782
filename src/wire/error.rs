//! Errors in JSON: the members of an error frame, the body of a REST answer, and both read back by clients.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::code;
use super::json::write;
use crate::types::error::ErrorBody;
use crate::types::{Applied, Code, Error, Retry};

/// Writes `"code":…` to `"resource":…`, the members of an `error` frame after `req` or `sub`. No braces.
pub fn write_frame_members(out: &mut Vec<u8>, error: &Error, request_id: &str) {
    write_code(out, error);
    out.extend_from_slice(b",\"message\":");
    write::string(out, &error.message);
    write_verdict(out, error);
    out.extend_from_slice(b",\"details\":");
    write_details(out, error);
    write_request(out, error, request_id);
}

/// The `metadata` of a REST error (`surfaces.md` 5.11): code, rule, applied, retry, request_id, resource, details.
pub fn write_metadata(out: &mut Vec<u8>, error: &Error, request_id: &str) {
    out.push(b'{');
    write_code(out, error);
    write_verdict(out, error);
    write_request(out, error, request_id);
    out.extend_from_slice(b",\"details\":");
    write_details(out, error);
    out.push(b'}');
}

/// The body of a REST error: `{"type":"error","error":…,"error_code":…,"metadata":{…}}`. Its HTTP status is [`code::of`]`(error).http`.
pub fn rest_body(error: &Error, request_id: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    out.extend_from_slice(b"{\"type\":\"error\",\"error\":");
    write::string(&mut out, &error.message);
    out.extend_from_slice(b",\"error_code\":");
    write::number(&mut out, u64::from(code::of(error).error_code));
    out.extend_from_slice(b",\"metadata\":");
    write_metadata(&mut out, error, request_id);
    out.push(b'}');
    out
}

fn write_code(out: &mut Vec<u8>, error: &Error) {
    out.extend_from_slice(b"\"code\":");
    write::string(out, error.code.as_str());
    if let Some(rule) = &error.rule {
        out.extend_from_slice(b",\"rule\":");
        write::string(out, rule);
    }
}

fn write_verdict(out: &mut Vec<u8>, error: &Error) {
    out.extend_from_slice(b",\"applied\":");
    write::string(out, error.applied.as_str());
    out.extend_from_slice(b",\"retry\":");
    write::string(out, error.retry.as_str());
}

fn write_request(out: &mut Vec<u8>, error: &Error, request_id: &str) {
    out.extend_from_slice(b",\"request_id\":");
    write::string(out, request_id);
    if let Some(resource) = &error.resource {
        out.extend_from_slice(b",\"resource\":");
        write::string(out, resource);
    }
}

fn write_details(out: &mut Vec<u8>, error: &Error) {
    serde_json::to_writer(&mut *out, &error.details).expect("a map of JSON values can be written to memory");
}

/// The members of an error as they were received; unknown ones are ignored.
#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct Members {
    code: String,
    rule: Option<String>,
    message: String,
    applied: String,
    retry: String,
    details: Map<String, Value>,
    pub(super) request_id: String,
    resource: Option<String>,
}

impl Members {
    pub(super) fn into_error(self) -> Error {
        let applied = if self.applied == Applied::No.as_str() { Applied::No } else { Applied::Unknown };
        received(&self.code, self.message, self.rule, applied, &self.retry, self.resource, self.details)
    }
}

/// An error as a client received it. A code this version does not know becomes `internal`, with the word in `details.code`; an
/// unknown advice becomes `never`.
pub(super) fn received(
    code: &str,
    message: String,
    rule: Option<String>,
    applied: Applied,
    retry: &str,
    resource: Option<String>,
    mut details: Map<String, Value>,
) -> Error {
    // Protobuf has no other way to say that there is none.
    let there = |text: Option<String>| text.filter(|t| !t.is_empty());
    let known = Code::parse(code);
    if known.is_none() {
        details.insert("code".into(), code.into());
    }
    Error::from(ErrorBody {
        code: known.unwrap_or(Code::Internal),
        message,
        rule: there(rule),
        applied,
        retry: Retry::parse(retry).unwrap_or(Retry::Never),
        resource: there(resource),
        details,
    })
}

/// Reads the body of a REST error: the error and its request id. `None` when the body is something else.
pub fn read_rest_body(body: &[u8]) -> Option<(Error, String)> {
    #[derive(Deserialize)]
    struct Body {
        error: String,
        metadata: Members,
    }
    let Body { error, mut metadata } = serde_json::from_slice(body).ok()?;
    metadata.message = error;
    let request_id = std::mem::take(&mut metadata.request_id);
    Some((metadata.into_error(), request_id))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Error {
        Error::new(Code::ProducerSeqGap, "Sequence 9 is missing; \"resend\" from it.").rule("P-8").detail("expected", 9).resource("/v1/streams/orders")
    }

    #[test]
    fn a_rest_error_has_the_envelope_of_the_surfaces_page_and_reads_back() {
        let body = rest_body(&sample(), "r-1");
        let expected = r#"{"type":"error","error":"Sequence 9 is missing; \"resend\" from it.","error_code":409,"metadata":{"code":"producer_seq_gap","rule":"P-8","applied":"no","retry":"resend","request_id":"r-1","resource":"/v1/streams/orders","details":{"expected":9}}}"#;
        assert_eq!(String::from_utf8(body.clone()).unwrap(), expected);
        assert_eq!(read_rest_body(&body), Some((sample(), "r-1".to_owned())));
    }

    #[test]
    fn a_code_from_the_future_is_kept_in_the_details_and_never_taken_for_not_applied() {
        let (error, _) = read_rest_body(br#"{"error":"x","metadata":{"code":"brand_new","applied":"maybe","retry":"dance"}}"#).unwrap();
        assert_eq!((error.code, error.applied, error.retry), (Code::Internal, Applied::Unknown, Retry::Never));
        assert_eq!(error.details["code"], "brand_new");
    }

    #[test]
    fn a_size_error_folds_to_400_in_the_body() {
        let body: Value = serde_json::from_slice(&rest_body(&Error::new(Code::TooLarge, "Too large."), "")).unwrap();
        assert_eq!(body["error_code"], 400);
    }
}
