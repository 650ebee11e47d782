//! Errors as gRPC statuses: the code of the one table, our sentence, and details that programs can read.

use std::collections::BTreeMap;

use prost::Message as _;
use tonic::{Code as Number, Status};

use super::details::{Any, BadRequest, Delay, ErrorInfo, FieldViolation, RetryInfo, RpcStatus};
use crate::types::{Code, Error, Retry};
use crate::wire::code;
use crate::wire::frame::About;
use crate::wire::proto::answer;

/// Whose codes `reason` holds.
const DOMAIN: &str = "tidelog";
/// Details over this size lose the JSON of our own message: clients accept about 8 KiB of trailers.
const DETAILS_BYTES: usize = 4 * 1024;

/// An error on its way out. A fault of ours is logged here, and told without its insides.
pub fn of(mut error: Error, request_id: &str) -> Status {
    if error.code == Code::Internal {
        tracing::error!(incident = request_id, "{}", error.message);
        error.message = format!("The broker made a mistake. It is logged as incident {request_id}.");
        error = error.detail("incident", request_id);
    }
    with_number(Number::from(code::of(&error).grpc), &error, request_id)
}

/// The caller's deadline is over. `may_have_happened`: the call was one that changes something.
pub fn deadline_exceeded(may_have_happened: bool, request_id: &str) -> Status {
    if !may_have_happened {
        return Status::deadline_exceeded("The deadline passed before the broker had an answer.");
    }
    let why = "The deadline passed before the broker answered: the request may or may not have happened. Send it again unchanged.";
    with_number(Number::DeadlineExceeded, &Error::new(Code::OutcomeUnknown, why), request_id)
}

fn with_number(number: Number, error: &Error, request_id: &str) -> Status {
    let mut ours = answer::error(About::Connection, error, request_id);
    if ours.details.len() > DETAILS_BYTES {
        ours.details = String::new();
    }
    let mut details = vec![Any::of("google.rpc.ErrorInfo", &info(error, request_id)), Any::of("tidelog.v1.Error", &ours)];
    if error.retry == Retry::Backoff {
        details.push(Any::of("google.rpc.RetryInfo", &RetryInfo { retry_delay: Some(delay(error)) }));
    }
    if let Some(field) = error.details.get("field").and_then(|f| f.as_str()) {
        let violation = FieldViolation { field: field.to_owned(), description: error.message.clone() };
        details.push(Any::of("google.rpc.BadRequest", &BadRequest { field_violations: vec![violation] }));
    }
    let status = RpcStatus { code: number as i32, message: error.message.clone(), details };
    Status::with_details(number, error.message.clone(), status.encode_to_vec().into())
}

fn info(error: &Error, request_id: &str) -> ErrorInfo {
    let mut metadata = BTreeMap::from([
        ("applied".to_owned(), error.applied.as_str().to_owned()),
        ("retry".to_owned(), error.retry.as_str().to_owned()),
        ("request_id".to_owned(), request_id.to_owned()),
    ]);
    metadata.extend(error.rule.clone().map(|rule| ("rule".to_owned(), rule)));
    metadata.extend(error.resource.clone().map(|resource| ("resource".to_owned(), resource)));
    ErrorInfo { reason: error.code.as_str().to_owned(), domain: DOMAIN.to_owned(), metadata }
}

/// How long to wait: what the error says, else a second.
fn delay(error: &Error) -> Delay {
    let seconds = error.details.get("retry_after_s").and_then(serde_json::Value::as_f64).unwrap_or(1.0).clamp(0.0, 3600.0);
    Delay { seconds: seconds.trunc() as i64, nanos: (seconds.fract() * 1e9) as i32 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn details(status: &Status) -> RpcStatus {
        RpcStatus::decode(status.details()).expect("google.rpc.Status")
    }

    #[test]
    fn a_status_says_the_code_the_rule_and_what_to_do() {
        let error = Error::new(Code::ProducerSeqGap, "Sequence 17 is missing.").rule("P-8").detail("expected", 17).resource("/v1/streams/orders");
        let status = of(error, "r-1");
        assert_eq!((status.code(), status.message()), (Number::FailedPrecondition, "Sequence 17 is missing."));
        let details = details(&status);
        assert_eq!((details.code, details.details.len()), (9, 2));
        let info = ErrorInfo::decode(&details.details[0].value[..]).unwrap();
        assert_eq!((info.reason.as_str(), info.domain.as_str()), ("producer_seq_gap", "tidelog"));
        let words = [("applied", "no"), ("request_id", "r-1"), ("resource", "/v1/streams/orders"), ("retry", "resend"), ("rule", "P-8")];
        assert_eq!(info.metadata, BTreeMap::from(words.map(|(n, v)| (n.to_owned(), v.to_owned()))));
        let ours = crate::wire::proto::v1::Error::decode(&details.details[1].value[..]).unwrap();
        assert_eq!((ours.code.as_str(), ours.details.as_str()), ("producer_seq_gap", r#"{"expected":17}"#));
    }

    #[test]
    fn what_may_be_tried_again_says_when_and_a_bad_field_says_which() {
        let busy = details(&of(Error::new(Code::Unavailable, "Not now.").detail("retry_after_s", 2.5), ""));
        let retry = busy.details.iter().find(|d| d.type_url.ends_with("RetryInfo")).expect("a retry info");
        assert_eq!(RetryInfo::decode(&retry.value[..]).unwrap().retry_delay, Some(Delay { seconds: 2, nanos: 500_000_000 }));
        let bad = details(&of(Error::bad("stream", "stream is missing."), ""));
        let field = bad.details.iter().find(|d| d.type_url.ends_with("BadRequest")).expect("a bad request");
        assert_eq!(BadRequest::decode(&field.value[..]).unwrap().field_violations[0].field, "stream");
    }

    #[test]
    fn an_unknown_outcome_stays_unknown_also_when_the_deadline_was_the_clients() {
        let info = |status: &Status| ErrorInfo::decode(&details(status).details[0].value[..]).unwrap().metadata["applied"].clone();
        assert_eq!(info(&of(Error::new(Code::OutcomeUnknown, "?"), "")), "unknown");
        let late = deadline_exceeded(true, "");
        assert_eq!((late.code(), info(&late).as_str()), (Number::DeadlineExceeded, "unknown"));
        assert!(deadline_exceeded(false, "").details().is_empty());
    }

    #[test]
    fn a_fault_of_ours_tells_its_incident_and_nothing_else() {
        let status = of(Error::internal("the secret table is on fire"), "r-7");
        assert_eq!(status.code(), Number::Internal);
        assert!(status.message().contains("r-7") && !status.message().contains("fire"), "{}", status.message());
    }

    #[test]
    fn details_that_would_not_fit_into_trailers_are_left_out() {
        let status = of(Error::new(Code::UnknownField, "Too much.").detail("errors", "x".repeat(100_000)), "");
        assert!(status.details().len() < 8 * 1024, "{}", status.details().len());
    }
}
