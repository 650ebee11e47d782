//! The envelopes of every answer: `Success`, `UtcTime`, and `Response` or `Error`.

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;

use super::fault::Fault;
use crate::types::TimeUs;

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Good<'a, R> {
    success: bool,
    utc_time: String,
    response: &'a R,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Bad<'a> {
    success: bool,
    utc_time: String,
    error: Told<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Told<'a> {
    message: &'a str,
    help_message: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    arguments: &'a [&'static str],
}

/// A time as Evernest prints it: in milliseconds.
pub fn date(time: TimeUs) -> String {
    let text = time.to_string();
    text.get(..23).map_or(text.clone(), |millis| format!("{millis}Z"))
}

/// Around an answer that is written piece by piece: what stands before the response, and behind it.
pub fn around() -> (String, &'static str) {
    (format!(r#"{{"Success":true,"UtcTime":"{}","Response":"#, date(TimeUs::now())), "}")
}

/// A success.
pub fn good(response: &impl Serialize) -> Response {
    match serde_json::to_vec(&Good { success: true, utc_time: date(TimeUs::now()), response }) {
        Ok(body) => json(StatusCode::OK, body),
        Err(why) => bad(&Fault::internal(&format!("an answer could not be written as JSON: {why}"))),
    }
}

/// A failure.
pub fn bad(fault: &Fault) -> Response {
    let error = Told { message: fault.word(), help_message: fault.help(), arguments: fault.arguments() };
    let body = serde_json::to_vec(&Bad { success: false, utc_time: date(TimeUs::now()), error }).unwrap_or_default();
    let mut response = json(fault.status(), body);
    if fault.status() == StatusCode::METHOD_NOT_ALLOWED {
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, POST"));
    }
    if let Some(seconds) = fault.retry_after() {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// The headers of every answer here.
pub fn json(status: StatusCode, body: impl Into<Body>) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json; charset=utf-8"), (header::CACHE_CONTROL, "no-store")], body.into()).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_printed_in_milliseconds() {
        assert_eq!(date(TimeUs(1_769_421_600_123_999)), "2026-01-26T10:00:00.123Z");
        assert_eq!(date(TimeUs(1_769_421_600_000_000)), "2026-01-26T10:00:00.000Z");
    }

    #[test]
    fn envelopes_have_their_fields_in_the_order_of_the_specification() {
        let (before, after) = around();
        let whole = format!("{before}null{after}");
        let fields: Vec<usize> = ["{\"Success\":true,", "\"UtcTime\":\"20", "\"Response\":null}"].iter().map(|field| whole.find(field).unwrap()).collect();
        assert!(fields.is_sorted() && fields[0] == 0, "{whole}");
        let told = Told { message: "BadRequest", help_message: "Send it.", arguments: &[] };
        assert_eq!(serde_json::to_string(&told).unwrap(), r#"{"Message":"BadRequest","HelpMessage":"Send it."}"#);
    }
}
