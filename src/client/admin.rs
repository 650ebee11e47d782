//! The control plane over REST: streams, subscriptions, operations, and any other address of the API.

use std::collections::BTreeMap;
use std::time::Duration;

use http::{Method, StatusCode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{Client, Error, Result};
use crate::types::Applied;
use crate::types::name::escaped;

/// A stream as the broker describes it.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct StreamObject {
    /// Its name.
    pub name: String,
    /// Internal id.
    #[serde(default)]
    pub id: u64,
    /// `Ready`, `Stopping`, …
    #[serde(default)]
    pub status: String,
    /// It takes no more events.
    #[serde(default)]
    pub closed: bool,
    /// What it holds.
    #[serde(default)]
    pub state: StreamState,
    /// Everything else.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// What a stream holds.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct StreamState {
    /// First kept offset.
    pub first_offset: u64,
    /// First offset not assigned.
    pub next_offset: u64,
    /// Everything else: `count`, `bytes`, `last_event_at`.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// A subscription as the broker describes it.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct SubscriptionObject {
    /// Its name.
    pub name: String,
    /// First event not done.
    #[serde(default)]
    pub next: u64,
    /// Of the newest session, 0 = none yet.
    #[serde(default)]
    pub epoch: u64,
    /// `Running` or `Stopped`.
    #[serde(default)]
    pub status: String,
    /// How far behind the cursor is.
    #[serde(default)]
    pub lag: LagObject,
    /// Everything else.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// How far a cursor is behind.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct LagObject {
    /// Events.
    pub events: u64,
    /// Bytes of data.
    pub bytes: u64,
    /// Age of the first of them.
    pub seconds: f64,
}

/// A producer as the broker describes it.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct ProducerObject {
    /// Its id.
    pub producer: String,
    /// Of its newest opening.
    #[serde(default)]
    pub epoch: u64,
    /// The last sequence number stored.
    #[serde(default)]
    pub last_seq: Option<u64>,
    /// When it was last used.
    #[serde(default)]
    pub last_used_at: String,
    /// Everything else.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// Background work.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct OperationObject {
    /// Its id.
    pub id: String,
    /// What it does, for people.
    #[serde(default)]
    pub description: String,
    /// What it does, for programs: `stream.Delete`.
    #[serde(default)]
    pub command: String,
    /// When it began, RFC 3339.
    #[serde(default)]
    pub created_at: String,
    /// `Running`, `Success`, `Failure`, …
    #[serde(default)]
    pub status: String,
    /// The number of that; 200 and above are final.
    #[serde(default)]
    pub status_code: u32,
    /// Why it failed.
    #[serde(default)]
    pub err: String,
    /// Everything else.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

impl OperationObject {
    /// Has it ended?
    pub fn is_final(&self) -> bool {
        self.status_code >= 200
    }
}

/// Answer of any address.
#[derive(Clone, Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: StatusCode,
    /// Its content type.
    pub content_type: String,
    /// Its body.
    pub body: Vec<u8>,
}

/// Calls of the control plane; made by [`Client::admin`].
#[derive(Clone, Debug)]
pub struct Admin {
    client: Client,
}

/// Longest wait for an answer that is not a wait itself.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

impl Admin {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }

    /// Creates a stream; `fields` may hold `description`, `metadata`, `event_max_bytes`.
    ///
    /// # Errors
    /// `name_taken`, `bad_parameter`, or the connection.
    pub async fn create_stream(&self, name: &str, mut fields: Map<String, Value>) -> Result<StreamObject> {
        fields.insert("name".into(), name.into());
        self.call(Method::POST, "/v1/streams", Some(Value::Object(fields))).await
    }

    /// All streams, by name.
    ///
    /// # Errors
    /// The broker's, or the connection.
    pub async fn streams(&self) -> Result<Vec<StreamObject>> {
        self.call(Method::GET, "/v1/streams?recursion=1", None).await
    }

    /// The streams for which a filter holds (`docs/filters.md`), by name.
    ///
    /// # Errors
    /// `bad_filter`, `unknown_filter_field`, or the connection.
    pub async fn streams_where(&self, filter: &str) -> Result<Vec<StreamObject>> {
        self.call(Method::GET, &format!("/v1/streams?recursion=1&filter={}", escaped(filter)), None).await
    }

    /// One stream.
    ///
    /// # Errors
    /// `not_found`, or the connection.
    pub async fn stream(&self, name: &str) -> Result<StreamObject> {
        self.call(Method::GET, &format!("/v1/streams/{}", escaped(name)), None).await
    }

    /// Begins to delete a stream.
    ///
    /// # Errors
    /// `not_found`, `deleting`, or the connection.
    pub async fn delete_stream(&self, name: &str) -> Result<OperationObject> {
        self.call(Method::DELETE, &format!("/v1/streams/{}", escaped(name)), None).await
    }

    /// Drops the events before an offset (`{"before_offset": n}`) or a time (`{"before_time": "…"}`).
    ///
    /// # Errors
    /// `not_found`, `offset_beyond_end`, or the connection.
    pub async fn trim_stream(&self, name: &str, before: Value) -> Result<Value> {
        self.call(Method::POST, &format!("/v1/streams/{}/trim", escaped(name)), Some(before)).await
    }

    /// Takes no more events.
    ///
    /// # Errors
    /// `not_found`, or the connection.
    pub async fn close_stream(&self, name: &str) -> Result<Value> {
        self.call(Method::POST, &format!("/v1/streams/{}/close", escaped(name)), Some(json!({}))).await
    }

    /// Creates a subscription; `fields` may hold `start`, `ack_timeout_s`, `max_in_flight`, `expires_s`.
    ///
    /// # Errors
    /// `name_taken`, `not_found`, `bad_parameter`, or the connection.
    pub async fn create_subscription(&self, stream: &str, name: &str, mut fields: Map<String, Value>) -> Result<SubscriptionObject> {
        fields.insert("name".into(), name.into());
        self.call(Method::POST, &format!("/v1/streams/{}/subscriptions", escaped(stream)), Some(Value::Object(fields))).await
    }

    /// The subscriptions of a stream, by name.
    ///
    /// # Errors
    /// `not_found`, or the connection.
    pub async fn subscriptions(&self, stream: &str) -> Result<Vec<SubscriptionObject>> {
        self.call(Method::GET, &format!("/v1/streams/{}/subscriptions?recursion=1", escaped(stream)), None).await
    }

    /// The subscriptions of a stream for which a filter holds (`docs/filters.md`), by name.
    ///
    /// # Errors
    /// `not_found`, `bad_filter`, `unknown_filter_field`, or the connection.
    pub async fn subscriptions_where(&self, stream: &str, filter: &str) -> Result<Vec<SubscriptionObject>> {
        let path = format!("/v1/streams/{}/subscriptions?recursion=1&filter={}", escaped(stream), escaped(filter));
        self.call(Method::GET, &path, None).await
    }

    /// One subscription.
    ///
    /// # Errors
    /// `not_found`, or the connection.
    pub async fn subscription(&self, stream: &str, name: &str) -> Result<SubscriptionObject> {
        self.call(Method::GET, &subscription_path(stream, name), None).await
    }

    /// Removes a subscription and its cursor.
    ///
    /// # Errors
    /// `not_found`, or the connection.
    pub async fn delete_subscription(&self, stream: &str, name: &str) -> Result<()> {
        self.call::<Value>(Method::DELETE, &subscription_path(stream, name), None).await.map(drop)
    }

    /// Moves a cursor (C-14) and ends its session: `{"next": n}`, `{"time": "…"}`, `{"earliest": true}`, `{"latest": true}`.
    ///
    /// # Errors
    /// `not_found`, `position_beyond_end`, `cursor_trimmed`, or the connection.
    pub async fn seek(&self, stream: &str, name: &str, to: Value) -> Result<Value> {
        self.call(Method::PUT, &format!("{}/cursor", subscription_path(stream, name)), Some(to)).await
    }

    /// The producers of a stream, by id; without a stream the caller's broker-wide ones.
    ///
    /// # Errors
    /// `not_found`, or the connection.
    pub async fn producers(&self, stream: Option<&str>) -> Result<Vec<ProducerObject>> {
        self.call(Method::GET, &format!("{}?recursion=1", producers_path(stream)), None).await
    }

    /// One producer.
    ///
    /// # Errors
    /// `not_found`, or the connection.
    pub async fn producer(&self, stream: Option<&str>, id: &str) -> Result<ProducerObject> {
        self.call(Method::GET, &format!("{}/{}", producers_path(stream), escaped(id)), None).await
    }

    /// Forgets a producer: what it stored stays, that it was stored is not known any more.
    ///
    /// # Errors
    /// `not_found`, or the connection.
    pub async fn delete_producer(&self, stream: Option<&str>, id: &str) -> Result<()> {
        self.call::<Value>(Method::DELETE, &format!("{}/{}", producers_path(stream), escaped(id)), None).await.map(drop)
    }

    /// The operations of the last day, by status; only those for which a filter holds, if one is given (`docs/filters.md`).
    ///
    /// # Errors
    /// `bad_filter`, `unknown_filter_field`, or the connection.
    pub async fn operations(&self, filter: Option<&str>) -> Result<Vec<OperationObject>> {
        let filter = filter.map_or_else(String::new, |filter| format!("&filter={}", escaped(filter)));
        let groups: BTreeMap<String, Vec<OperationObject>> = self.call(Method::GET, &format!("/v1/operations?recursion=1{filter}"), None).await?;
        Ok(groups.into_values().flatten().collect())
    }

    /// One operation.
    ///
    /// # Errors
    /// `not_found`, or the connection.
    pub async fn operation(&self, id: &str) -> Result<OperationObject> {
        self.call(Method::GET, &format!("/v1/operations/{}", escaped(id)), None).await
    }

    /// Waits until an operation is final or the time is up; gives what it is then.
    ///
    /// # Errors
    /// `not_found`, or the connection.
    pub async fn wait_operation(&self, id: &str, timeout: Duration) -> Result<OperationObject> {
        let path = format!("/v1/operations/{}/wait?timeout={}", escaped(id), timeout.as_secs());
        let answer = self.request(Method::GET, &path, None, timeout + CALL_TIMEOUT).await?;
        metadata(answer)
    }

    /// Any call with a JSON body, giving the `metadata` of the envelope.
    ///
    /// # Errors
    /// The broker's, the connection, [`Error::Protocol`] for an answer of another shape.
    pub async fn call<T: DeserializeOwned>(&self, method: Method, path: &str, body: Option<Value>) -> Result<T> {
        let body = body.map(|value| ("application/json", value.to_string().into_bytes()));
        metadata(self.request(method, path, body, CALL_TIMEOUT).await?)
    }

    /// Any call, giving the answer as it is, errors of the broker included.
    ///
    /// # Errors
    /// Only the connection: `applied` is `unknown` unless it was never made.
    pub async fn request(&self, method: Method, path: &str, body: Option<(&str, Vec<u8>)>, timeout: Duration) -> Result<Answer> {
        let url = format!("{}{path}", self.client.endpoint().base());
        let safe = method.is_safe();
        let mut request = self.client.http().request(method, url).timeout(timeout);
        if let Some(key) = self.client.authorization() {
            request = request.header(http::header::AUTHORIZATION, key);
        }
        if let Some((content_type, body)) = body {
            request = request.header(http::header::CONTENT_TYPE, content_type).body(body);
        }
        let failed = |e: reqwest::Error| {
            if e.is_timeout() {
                return Error::Timeout(format!("No answer to {path} within {} s.", timeout.as_secs()));
            }
            let applied = if safe || e.is_connect() || e.is_builder() { Applied::No } else { Applied::Unknown };
            Error::Connection { message: format!("No broker answers at {}: {}.", self.client.endpoint(), root_cause(&e)), applied }
        };
        let response = request.send().await.map_err(failed)?;
        let status = response.status();
        let content_type = response.headers().get(http::header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
        let body = response.bytes().await.map_err(failed)?.to_vec();
        Ok(Answer { status, content_type, body })
    }
}

impl Answer {
    /// The broker's error, if this is one.
    pub fn error(&self) -> Option<Error> {
        (!self.status.is_success()).then(|| parse_error(self.status, &self.body))
    }
}

fn metadata<T: DeserializeOwned>(answer: Answer) -> Result<T> {
    #[derive(Deserialize)]
    struct Envelope<T> {
        metadata: T,
    }
    if let Some(error) = answer.error() {
        return Err(error);
    }
    let envelope: Envelope<T> = serde_json::from_slice(&answer.body).map_err(|e| Error::Protocol(format!("an answer of another shape ({e})")))?;
    Ok(envelope.metadata)
}

/// Reads the error envelope; answers of others are reported as such.
pub(crate) fn parse_error(status: StatusCode, body: &[u8]) -> Error {
    match crate::wire::error::read_rest_body(body) {
        Some((error, request_id)) => Error::Server { error, request_id },
        None => Error::Protocol(format!("HTTP status {status} without an error of ours")),
    }
}

/// reqwest's own sentence names the URL only; the last cause says what happened.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

fn subscription_path(stream: &str, name: &str) -> String {
    format!("/v1/streams/{}/subscriptions/{}", escaped(stream), escaped(name))
}

fn producers_path(stream: Option<&str>) -> String {
    stream.map_or_else(|| "/v1/producers".to_owned(), |stream| format!("/v1/streams/{}/producers", escaped(stream)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Code;

    #[test]
    fn an_error_envelope_keeps_code_rule_and_details() {
        let body = br#"{"type":"error","error":"Stream \"x\" was not found.","error_code":404,"metadata":{"code":"not_found","rule":"P-11","applied":"no","retry":"never","request_id":"r-1","resource":"/v1/streams/x","details":{"a":1}}}"#;
        let Error::Server { error, request_id } = parse_error(StatusCode::NOT_FOUND, body) else { panic!("not a server error") };
        assert_eq!((error.code, request_id.as_str()), (Code::NotFound, "r-1"));
        assert_eq!(error.resource.as_deref(), Some("/v1/streams/x"));
        assert_eq!(error.details["a"], 1);
    }

    #[test]
    fn other_bodies_are_reported_as_unexpected() {
        assert!(matches!(parse_error(StatusCode::BAD_GATEWAY, b"<html>"), Error::Protocol(_)));
    }
}
