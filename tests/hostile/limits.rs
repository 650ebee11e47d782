//! Every bound of `types/limits.rs`: asked for at its value − 1, its value and its value + 1, or tested elsewhere, or out of reach, with
//! the reason. A bound without a row is a failure.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use prost::Message as _;
use serde_json::{Value, json};
use tidelog::types::limits as bound;
use tidelog::wire::proto::v1;

use crate::support::{Broker, dev, exchange, raw, serve};
use crate::wire::{
    BINARY, DATA, END_HEADERS, END_STREAM, GOAWAY, H2, HEADERS, TEXT, WINDOW, Ws, call, h2_frame, head, message, tcp, told, ws_frame, ws_head, ws_text,
};

type Answer = Pin<Box<dyn Future<Output = String> + Send>>;

enum Row {
    /// Name, carrier, value, how to ask for n, what is said within and beyond.
    Asked(&'static str, &'static str, usize, fn(SocketAddr, usize) -> Answer, &'static str, &'static str),
    /// Name; file and name of the test that has it at the limit and beyond.
    Elsewhere(&'static str, &'static str, &'static str),
    /// Name, and why no client can ask for more.
    Inside(&'static str, &'static str),
}
use Row::{Asked, Elsewhere, Inside};

macro_rules! asked {
    ($name:ident, $carrier:literal, $ask:path, $within:literal, $beyond:literal) => {
        Asked(stringify!($name), $carrier, bound::$name as usize, |at, n| Box::pin($ask(at, n)), $within, $beyond)
    };
}
macro_rules! seconds {
    ($name:ident, $carrier:literal, $ask:path, $within:literal, $beyond:literal) => {
        Asked(stringify!($name), $carrier, bound::$name.as_secs() as usize, |at, n| Box::pin($ask(at, n)), $within, $beyond)
    };
}

const PATIENCE: &str = "tests/hostile/patience.rs";
const SLOW: &str = "slow_and_silent_clients_are_cut_when_they_are_due_and_slow_honest_ones_never";
const ACCESS: &str = "tests/api/access.rs";
const PASSWORDS: &str = "passwords_names_and_descriptions_are_taken_up_to_their_limits";
const QUOTA: &str = "src/broker/access/quota.rs";
const QUOTAS: &str = "tests/api/quotas.rs";
const SEATS: &str = "a_user_has_its_connections_and_not_one_more_and_others_are_left_alone";
const COUNTED: &str = "streams_subscriptions_and_producers_of_a_user_are_counted_across_deletions_and_restarts";
const STORM: &str = "attacks_are_answered_leave_nothing_behind_and_hurt_nobody";
const QUEUE: &str = "a queue inside: its callers wait, and after ADMISSION_WAIT hear `overloaded`, whatever its size";
const SHAPE: &str = "shapes what the broker sends; nothing that a client asks makes it more";
const WINDOWS: &str = "each body is read at once or let go at once, which opens the window again; whoever keeps to it never sees it";
const T6_LISTS: &str = "t6_a_commit_with_a_list_longer_than_any_may_be_is_refused_before_the_list_is_built";
const BUFFER: &str = "a buffer inside; a client sees the message limit before it";

#[allow(clippy::unnecessary_cast, reason = "not all bounds are of this type")]
const ROWS: &[Row] = &[
    asked!(NAME_BYTES, "REST", name, "201", "400 bad_parameter"),
    asked!(NAME_BYTES, "WebSocket", subscribe_to, "not there", "bad_parameter"),
    asked!(PRODUCER_ID_BYTES, "WebSocket", producer_id, "producer_opened", "bad_parameter"),
    asked!(INTEGER_MAX, "WebSocket", integer, "appended", "bad_parameter"),
    asked!(EVENT_MAX_BYTES, "REST", event_over_rest, "201", "413 too_large"),
    asked!(EVENT_MAX_BYTES, "WebSocket, protobuf", event_over_proto, "appended", "too_large"),
    asked!(BATCH_MAX_BYTES, "WebSocket, protobuf", batch_bytes, "appended", "too_large"),
    asked!(BATCH_MAX_BYTES, "gRPC", batch_over_grpc, "status 0", "status 3"),
    asked!(BATCH_MAX_EVENTS, "REST", lines, "201", "413 too_large"),
    asked!(BATCH_MAX_EVENTS, "WebSocket, protobuf", batch_events, "appended", "too_large"),
    asked!(EVENT_TYPE_BYTES, "WebSocket", event_type, "appended", "too_large"),
    asked!(EVENT_KEY_BYTES, "WebSocket", event_key, "appended", "too_large"),
    asked!(EVENT_HEADERS, "WebSocket", event_headers, "appended", "too_large"),
    asked!(EVENT_HEADER_BYTES, "WebSocket", event_header_bytes, "appended", "too_large"),
    asked!(JSON_FIELDS, "REST", fields_of_a_body, "read", "refused"),
    asked!(JSON_FIELDS, "WebSocket", fields_of_a_frame, "read", "refused"),
    asked!(COMMIT_APPENDS, "gRPC", entries, "bad_parameter", "too_large"),
    asked!(JSON_DEPTH, "WebSocket", depth_of_data, "appended", "bad_parameter"),
    asked!(JSON_DEPTH, "REST", depth_of_data_over_rest, "201", "400 bad_parameter"),
    asked!(MESSAGE_MAX_BYTES, "WebSocket", frame_bytes, "json_parsing_failed", "1009 The message is over the limit."),
    asked!(MESSAGE_MAX_BYTES, "gRPC", grpc_bytes, "status 3", "status 11"),
    asked!(MESSAGE_MAX_BYTES, "REST", body_bytes, "400 json_parsing_failed", "413 too_large"),
    Elsewhere("MESSAGE_MAX_BYTES_PRE_AUTH", "tests/hostile/limits.rs", "before_authentication_a_message_has_4_kib"),
    Inside("WS_READ_BUFFER_BYTES", BUFFER),
    Inside("WS_WRITE_BUFFER_BYTES", BUFFER),
    Inside("WS_MAX_WRITE_BUFFER_BYTES", BUFFER),
    Inside("OUTBOX_MAX_BYTES", "beyond it the client is not read, which is no answer; `slow_readers` and the acks of the storm come there"),
    Inside("FRAME_TARGET_BYTES", SHAPE),
    Inside("FRAME_MAX_BYTES", SHAPE),
    Inside("IN_FLIGHT_APPENDS", "beyond it the client is not read, which is no answer; the storm sends 60,000 at once"),
    Inside("IN_FLIGHT_APPEND_BYTES", "beyond it the client is not read, which is no answer"),
    Elsewhere("IN_FLIGHT_OPENINGS", "src/edge/conversation/answers.rs", "beyond_64_openings_nothing_is_read_until_one_is_answered"),
    Elsewhere("TURN", "src/edge/turn.rs", "a_turn_lasts_its_time_from_the_first_look_after_a_rest"),
    Elsewhere("APPEND_SESSIONS", "tests/hostile/storm.rs", STORM),
    asked!(SUBSCRIPTIONS_PER_CONNECTION, "WebSocket", subscriptions, "subscribed", "quota_exceeded"),
    asked!(MAX_IN_FLIGHT_EVENTS, "WebSocket", in_flight_events, "all", "1000, and the rest after an ack"),
    Elsewhere("MAX_IN_FLIGHT_BYTES", "src/broker/window.rs", "c20_one_event_passes_whatever_its_size_when_nothing_is_on_its_way"),
    asked!(IDEMPOTENCY_KEY_BYTES, "REST", idempotency_key, "201", "400 bad_parameter"),
    Elsewhere("IDEMPOTENCY_WINDOW", "tests/rules/keys.rs", "p19_keys_are_forgotten_when_their_time_is_over_and_not_before"),
    asked!(COMMIT_ACKS, "WebSocket", commit_acks, "txn_part_failed", "txn_too_large"),
    Elsewhere("COMMIT_CHECKS", "src/wire/tests.rs", T6_LISTS),
    Elsewhere("LIST_ENTRIES", "src/wire/tests.rs", T6_LISTS),
    asked!(COMMIT_STREAMS, "WebSocket", commit_streams, "committed", "txn_too_large"),
    Elsewhere("RECEIPT_RING", "tests/rules/producers.rs", "p6_a_repeated_batch_older_than_the_receipts_is_a_duplicate_without_offsets"),
    asked!(READ_DEFAULT_EVENTS, "REST", read_by_default, "all", "1000"),
    asked!(READ_MAX_EVENTS, "REST", read_limit, "200", "400 bad_parameter"),
    asked!(READ_MAX_BYTES, "REST", pull_bytes, "200", "400 bad_parameter"),
    asked!(LIST_MAX, "REST", list_limit, "200", "400 bad_parameter"),
    Inside("PROGRESS_EVENTS", SHAPE),
    asked!(FILTER_BYTES, "REST", filter_bytes, "200", "400 bad_filter"),
    asked!(FILTER_COMPARISONS, "REST", filter_comparisons, "200", "400 bad_filter"),
    asked!(FILTER_DEPTH, "REST", filter_depth, "200", "400 bad_filter"),
    seconds!(LONG_POLL, "REST", long_poll, "200", "400 bad_parameter"),
    Inside("OPERATION_WAIT", "a longer wait is cut to it, which takes an hour to see"),
    Inside("COMMIT_QUEUE_BYTES", QUEUE),
    Inside("COMMIT_QUEUE_REQUESTS", QUEUE),
    Inside("GROUP_BYTES", "bounds the work of one sync; a larger backlog is two groups"),
    Inside("GROUP_REQUESTS", "bounds the work of one sync; a larger backlog is two groups"),
    Inside("ADMISSION_WAIT", "needs a disk that stands still for 5 s: tests/faults"),
    asked!(HEADER_BYTES, "HTTP/1", header_bytes, "200", "431"),
    asked!(HEADER_COUNT, "HTTP/1", header_count, "200", "431"),
    asked!(HEADER_COUNT, "HTTP/2", header_count_http2, "read", "431"),
    Elsewhere("HEADER_TIMEOUT", PATIENCE, SLOW),
    Elsewhere("BODY_GRACE", PATIENCE, SLOW),
    Elsewhere("BODY_MIN_RATE", PATIENCE, SLOW),
    Elsewhere("AUTH_DEADLINE", "tests/api/auth.rs", "a_websocket_that_says_nothing_is_closed_after_the_deadline"),
    Elsewhere("TLS_HANDSHAKE", "tests/tls/handshakes.rs", "a_silent_client_is_cut_at_the_handshake_deadline"),
    Inside("TLS_BUFFER_BYTES", BUFFER),
    Elsewhere("TLS_FILE_BYTES", "src/server/tls/files.rs", "a_file_has_a_mebibyte_and_not_one_byte_more"),
    Elsewhere("PING_EVERY", PATIENCE, SLOW),
    Elsewhere("PEER_DEAD", PATIENCE, SLOW),
    Elsewhere("HTTP2_PONG_WAIT", PATIENCE, "http2_that_answers_no_ping_is_cut_in_the_end"),
    Elsewhere("GOODBYE", PATIENCE, SLOW),
    Elsewhere("SOCKET_UNDRAINED", "tests/api/ws_bad.rs", "a_socket_that_takes_nothing_for_thirty_seconds_is_closed_with_4008_and_the_cursor_stays"),
    Elsewhere("SOCKET_FULL_LATELY", "src/edge/socket.rs", "the_kernel_judges_a_peer_unless_bytes_waited_for_it_lately"),
    Inside("SOCKET_UNSENT_BYTES", "what the kernel holds for a reader; `slow_readers` of the storm measure it"),
    asked!(PINGS_PER_10_S, "WebSocket", pings, "pong", "4008 More than 100 pings in 10 s."),
    Elsewhere("CONNECTIONS", "tests/api/limits.rs", "connections_over_the_limit_are_refused_and_the_socket_is_not_counted"),
    Elsewhere("OTHER_FILES", "tests/hostile/storm.rs", "connections_never_take_the_files_that_the_storage_engine_needs"),
    Elsewhere("CONNECTIONS_PER_ADDRESS", "tests/api/strangers.rs", "an_address_has_its_connections_and_not_one_more"),
    Elsewhere("CONNECTIONS_PER_ADDRESS_SILENT", "tests/api/strangers.rs", "few_connections_of_an_address_may_be_silent"),
    asked!(WS_FRAGMENTS, "WebSocket", fragments, "pong", "1009 The message has more than 1024 frames."),
    Inside("PREFLIGHT_KEPT", "told to browsers, who keep to it"),
    Elsewhere("GRPC_TIMEOUT_MAX", "src/edge/grpc/timeout.rs", "timeouts_are_read_in_every_unit_and_cut_to_the_limit"),
    asked!(STREAMS_PER_CONNECTION, "HTTP/2", calls, "answered", "refused"),
    Elsewhere("PENDING_RESETS", "tests/hostile/storm.rs", STORM),
    Elsewhere("LOCAL_RESETS", "tests/hostile/storm.rs", STORM),
    Inside("HTTP2_STREAM_WINDOW", WINDOWS),
    Inside("HTTP2_CONNECTION_WINDOW", WINDOWS),
    Inside("LAST_ANSWERS", "needs a broker that does not answer for a minute"),
    Elsewhere("RECEIVED_ACK_PERSIST", "tests/rules/cursors.rs", "c16_a_received_ack_is_on_disk_within_a_second_even_without_other_traffic"),
    Elsewhere("ACK_TIMEOUT_S", "tests/rules/subscriptions.rs", "the_delivered_mark_of_a_detached_session_is_kept_only_for_the_ack_timeout"),
    Inside("SUBSCRIPTION_EXPIRES_S", "a default of 30 days"),
    Elsewhere("STRANGERS_BODY_BYTES_PER_ADDRESS", "src/edge/evernest/budget.rs", "an_address_has_its_bytes_of_bodies_and_not_one_more_and_gets_them_back"),
    Elsewhere("STRANGERS_BODY_BYTES", "src/edge/evernest/budget.rs", "all_strangers_together_have_their_bytes_and_not_one_more"),
    Elsewhere("PASSWORD_MIN_CHARACTERS", ACCESS, PASSWORDS),
    Elsewhere("PASSWORD_MAX_BYTES", ACCESS, PASSWORDS),
    Inside("PASSWORDS_AT_ONCE", "others wait for their turn, and after ADMISSION_WAIT hear `overloaded`"),
    Elsewhere("SOURCE_NAME_CHARACTERS", ACCESS, PASSWORDS),
    Elsewhere("DESCRIPTION_BYTES", ACCESS, PASSWORDS),
    Inside("CONSOLE_SESSION", "ends twelve hours later"),
    Inside("TICKET_LIFE", "ends half a minute later; that it is good once is in tests/api/access.rs"),
    Inside("CREDENTIALS_REMEMBERED", "a memory of what was looked up; what does not fit is looked up again"),
    Inside("RIGHTS_REMEMBERED", "a memory of what was looked up; what does not fit is looked up again"),
    Elsewhere("AUDITED_REFUSALS_PER_MINUTE", "tests/rules/audit.rs", "refusals_are_told_a_bounded_number_of_times_and_then_as_a_number"),
    Elsewhere("FAILED_CREDENTIALS_PER_ADDRESS", "src/edge/failures.rs", "an_address_has_its_guesses_and_not_one_more_and_others_are_left_alone"),
    Elsewhere("FAILED_CREDENTIALS_PER_KEY", "src/edge/failures.rs", "a_key_has_its_guesses_from_all_addresses_together"),
    Elsewhere("FAILURES_REMEMBERED", "src/edge/failures.rs", "what_is_remembered_of_failures_is_bounded"),
    Elsewhere("CONNECTIONS_PER_USER", QUOTA, SEATS),
    Elsewhere("LONG_POLLS_PER_USER", QUOTA, SEATS),
    Elsewhere("STREAMS_PER_USER", QUOTAS, COUNTED),
    Elsewhere("SUBSCRIPTIONS_PER_USER", QUOTAS, COUNTED),
    Elsewhere("PRODUCERS_PER_USER", QUOTAS, COUNTED),
    Elsewhere("REQUESTS_PER_SECOND", QUOTAS, "requests_beyond_the_rate_are_told_when_to_come_back_and_others_are_served"),
    Elsewhere("REQUESTS_BURST", "src/broker/access/bucket.rs", "a_burst_passes_the_next_is_told_how_long_to_wait_and_is_right_to"),
    Elsewhere("BYTES_PER_SECOND", QUOTAS, "bytes_beyond_the_rate_wait_also_when_nobody_told_how_many_would_come"),
    Elsewhere("USERS_METERED", QUOTA, "what_is_remembered_of_users_is_bounded_and_nobody_in_use_is_forgotten"),
    Elsewhere("OPERATION_KEPT", "tests/rules/streams.rs", "operations_that_ended_before_the_horizon_are_forgotten_and_no_others"),
];

impl Row {
    fn name(&self) -> &'static str {
        match self {
            Asked(name, ..) | Elsewhere(name, ..) | Inside(name, _) => name,
        }
    }
}

/// Bounds of the source that have no row, and rows that have no bound.
fn differences(source: &str, rows: &[Row]) -> Vec<String> {
    let bounds: BTreeSet<&str> = source.lines().filter_map(|line| line.strip_prefix("pub const ")?.split(':').next()).collect();
    let rows: BTreeSet<&str> = rows.iter().map(Row::name).collect();
    bounds.symmetric_difference(&rows).map(|name| name.to_string()).collect()
}

#[test]
fn every_bound_has_a_row() {
    let source = include_str!("../../src/types/limits.rs");
    assert_eq!(differences(source, ROWS), Vec::<String>::new());
    assert_eq!(differences(&format!("{source}\npub const NEW: usize = 1;\n"), ROWS), ["NEW"], "a new one is found");
    for row in ROWS {
        match row {
            Elsewhere(name, file, test) => {
                let text = std::fs::read_to_string(format!("{}/{file}", env!("CARGO_MANIFEST_DIR"))).unwrap_or_else(|e| panic!("{name}: {file}: {e}"));
                assert!(text.contains(&format!("fn {test}(")), "{name}: there is no test {test} in {file}");
            }
            Inside(name, why) => assert!(why.len() > 15, "{name}: a reason"),
            Asked(..) => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_bound_holds_at_its_value_less_one_itself_and_one_more() {
    let broker = prepared().await;
    let at = broker.server.address();
    let mut wrong = Vec::new();
    for row in ROWS {
        let Asked(name, carrier, value, ask, within, beyond) = row else { continue };
        for (n, expected) in [(value - 1, within), (*value, within), (value + 1, beyond)] {
            let heard = tokio::time::timeout(Duration::from_secs(20), ask(at, n)).await.unwrap_or_else(|_| "nothing".into());
            if heard != *expected {
                wrong.push(format!("{name} over {carrier} at {n}: {heard:?}, not {expected:?}"));
            }
        }
    }
    assert_eq!(broker.get("/livez").await.status, 200);
    assert!(wrong.is_empty(), "{} are wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[tokio::test]
async fn before_authentication_a_message_has_4_kib() {
    let broker = serve().await;
    let limit = bound::MESSAGE_MAX_BYTES_PRE_AUTH;
    for n in [limit - 1, limit, limit + 1] {
        let mut ws = Ws::json(broker.server.address()).await;
        ws.send(&ws_frame(TEXT, &vec![b' '; n])).await;
        let end = ws.ended().await;
        assert_eq!(end.starts_with("1009"), n > limit, "{n}: {end}");
        assert!(n > limit || end.starts_with("4001"), "{n}: {end}");
    }
}

// --------------------------------------------------------------------------------------------------------------- how to ask

async fn prepared() -> Broker {
    let broker = dev().await;
    assert_eq!(broker.post("/v1/streams/s/events", r#"{"events":[{"data":1}]}"#).await.status, 201);
    assert_eq!(broker.post("/v1/streams/s/subscriptions", r#"{"name":"pulled"}"#).await.status, 201);
    broker
}

async fn ask(at: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> String {
    let answer = exchange(tcp(at).await, method, path, headers, body).await;
    let value: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    format!("{} {}", answer.status, value["metadata"]["code"].as_str().unwrap_or_default()).trim_end().to_owned()
}

async fn post(at: SocketAddr, path: &str, body: &str) -> String {
    ask(at, "POST", path, &[("Content-Type", "application/json")], body.as_bytes()).await
}

async fn say(at: SocketAddr, text: &str) -> String {
    told(&Ws::json(at).await.ask(text).await)
}

async fn append(at: SocketAddr, event: &Value) -> String {
    say(at, &json!({"t":"append","req":1,"stream":"s","events":[event]}).to_string()).await
}

/// The answer to a protobuf frame with this append in it.
async fn append_proto(at: SocketAddr, append: &v1::Append) -> String {
    let frame = v1::ClientFrame { frame: Some(v1::client_frame::Frame::Append(append.clone())) }.encode_to_vec();
    let mut ws = Ws::proto(at).await;
    let mut heard = String::new();
    ws.flood(&ws_frame(BINARY, &frame), |_, payload| {
        heard = match tidelog::wire::proto::decode_server(payload) {
            Ok(Some(tidelog::wire::frame::ServerFrame::Appended { .. })) => "appended".into(),
            Ok(Some(tidelog::wire::frame::ServerFrame::Error { error, .. })) => error.code.as_str().into(),
            other => format!("{other:?}"),
        };
        false
    })
    .await;
    heard
}

/// One message in a call; the broker's window is waited for.
async fn grpc(at: SocketAddr, method: &str, bytes: &[u8]) -> String {
    let mut h2 = H2::open(at).await;
    let body = message(bytes);
    h2.send(&h2_frame(HEADERS, END_HEADERS, 1, &call(method))).await;
    let mut window = bound::HTTP2_STREAM_WINDOW as usize;
    let chunks: Vec<&[u8]> = body.chunks(16_384).collect();
    for (n, chunk) in chunks.iter().enumerate() {
        while window < chunk.len() {
            let Some(frame) = h2.next().await else { return "gone".into() };
            if frame.kind == WINDOW && frame.stream == 1 {
                window += crate::wire::number(&frame.payload) as usize;
            } else if frame.stream == 1 && frame.flags & END_STREAM != 0 {
                return crate::wire::said_in(&frame.payload);
            }
        }
        window -= chunk.len();
        h2.send(&h2_frame(DATA, if n + 1 == chunks.len() { END_STREAM } else { 0 }, 1, chunk)).await;
    }
    h2.status(1).await
}

fn event(data: Vec<u8>) -> v1::Event {
    v1::Event { data: data.into(), encoding: v1::Encoding::Utf8.into(), ..Default::default() }
}

fn append_of(events: Vec<v1::Event>) -> v1::Append {
    v1::Append { req: 1, stream: "s".into(), events: Some(v1::Events { events }), ..Default::default() }
}

/// Events of n bytes in all, encoded.
fn batch_of(n: usize) -> Vec<v1::Event> {
    let mut events: Vec<v1::Event> = (0..5).map(|_| event(vec![b'x'; 800_000])).collect();
    let rest = n - v1::Events { events: events.clone() }.encoded_len();
    let overhead = v1::Events { events: vec![event(vec![b'x'; rest - 20])] }.encoded_len() - (rest - 20);
    events.push(event(vec![b'x'; rest - overhead]));
    assert_eq!(v1::Events { events: events.clone() }.encoded_len(), n);
    events
}

async fn name(at: SocketAddr, n: usize) -> String {
    post(at, "/v1/streams", &json!({"name":"n".repeat(n)}).to_string()).await
}

async fn subscribe_to(at: SocketAddr, n: usize) -> String {
    let heard = say(at, &json!({"t":"subscribe","sub":1,"stream":"m".repeat(n)}).to_string()).await;
    if heard == "subscribed" || heard == "not_found" { "not there".into() } else { heard }
}

async fn producer_id(at: SocketAddr, n: usize) -> String {
    say(at, &json!({"t":"open_producer","req":1,"stream":"s","producer":"p".repeat(n)}).to_string()).await
}

async fn integer(at: SocketAddr, n: usize) -> String {
    say(at, &format!("{{\"t\":\"append\",\"req\":{n},\"stream\":\"s\",\"events\":[{{\"data\":1}}]}}")).await
}

async fn event_over_rest(at: SocketAddr, n: usize) -> String {
    ask(at, "POST", "/v1/streams/s/events", &[("Content-Type", "application/octet-stream")], &vec![b'x'; n]).await
}

async fn event_over_proto(at: SocketAddr, n: usize) -> String {
    append_proto(at, &append_of(vec![event(vec![b'x'; n])])).await
}

async fn batch_bytes(at: SocketAddr, n: usize) -> String {
    append_proto(at, &append_of(batch_of(n))).await
}

async fn batch_over_grpc(at: SocketAddr, n: usize) -> String {
    grpc(at, "Append", &append_of(batch_of(n)).encode_to_vec()).await
}

async fn lines(at: SocketAddr, n: usize) -> String {
    ask(at, "POST", "/v1/streams/lines/events?lines=data", &[("Content-Type", "application/x-ndjson")], "1\n".repeat(n).as_bytes()).await
}

async fn batch_events(at: SocketAddr, n: usize) -> String {
    append_proto(at, &append_of(vec![event(vec![b'x']); n])).await
}

async fn event_type(at: SocketAddr, n: usize) -> String {
    append(at, &json!({"data":1,"type":"t".repeat(n)})).await
}

async fn event_key(at: SocketAddr, n: usize) -> String {
    append(at, &json!({"data":1,"key":"k".repeat(n)})).await
}

async fn event_headers(at: SocketAddr, n: usize) -> String {
    let headers: serde_json::Map<String, Value> = (0..n).map(|i| (format!("h{i}"), json!("x"))).collect();
    append(at, &json!({"data":1,"headers":headers})).await
}

async fn event_header_bytes(at: SocketAddr, n: usize) -> String {
    append(at, &json!({"data":1,"headers":{"name":"v".repeat(n - 4)}})).await
}

/// Is it the number that is refused?
fn of_fields(body: &Value) -> String {
    let said = body["error"].as_str().or(body["message"].as_str()).unwrap_or_default();
    if said.starts_with("More than 32 fields") { "refused".into() } else { "read".into() }
}

fn so_many_fields(n: usize) -> String {
    (0..n).map(|i| format!("\"f{i}\":1")).collect::<Vec<_>>().join(",")
}

async fn fields_of_a_body(at: SocketAddr, n: usize) -> String {
    let body = format!("{{{}}}", so_many_fields(n));
    of_fields(&exchange(tcp(at).await, "POST", "/v1/streams", &[("Content-Type", "application/json")], body.as_bytes()).await.json())
}

async fn fields_of_a_frame(at: SocketAddr, n: usize) -> String {
    of_fields(&Ws::json(at).await.ask(&format!("{{\"t\":\"ping\",{}}}", so_many_fields(n - 1))).await)
}

/// As the words of the status say it: both codes are INVALID_ARGUMENT.
async fn entries(at: SocketAddr, n: usize) -> String {
    let body = [10 << 3 | 2].iter().copied().chain(varint(2 * n)).chain([4 << 3 | 2, 0].repeat(n)).collect::<Vec<u8>>();
    let mut ws = Ws::proto(at).await;
    ws.send(&ws_frame(BINARY, &body)).await;
    let (_, answer) = ws.next().await.expect("an answer");
    let text = String::from_utf8_lossy(&answer).into_owned();
    ["bad_parameter", "too_large"].into_iter().find(|code| text.contains(code)).unwrap_or("something else").to_owned()
}

fn varint(mut n: usize) -> Vec<u8> {
    let mut out = Vec::new();
    while n >= 128 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
    out
}

fn nested(depth: usize) -> String {
    format!("{}{}", "[".repeat(depth), "]".repeat(depth))
}

async fn depth_of_data(at: SocketAddr, n: usize) -> String {
    say(at, &format!("{{\"t\":\"append\",\"req\":1,\"stream\":\"s\",\"events\":[{{\"data\":{}}}]}}", nested(n))).await
}

async fn depth_of_data_over_rest(at: SocketAddr, n: usize) -> String {
    post(at, "/v1/streams/s/events", &format!("{{\"events\":[{{\"data\":{}}}]}}", nested(n))).await
}

async fn frame_bytes(at: SocketAddr, n: usize) -> String {
    let mut ws = Ws::json(at).await;
    let mut heard = String::new();
    ws.flood(&ws_frame(TEXT, &vec![b'x'; n]), |first, payload| {
        heard = if first == TEXT {
            told(&serde_json::from_slice(payload).expect("JSON"))
        } else {
            format!("{} {}", u16::from_be_bytes([payload[0], payload[1]]), String::from_utf8_lossy(&payload[2..]))
        };
        false
    })
    .await;
    heard
}

async fn grpc_bytes(at: SocketAddr, n: usize) -> String {
    grpc(at, "Append", &vec![0; n]).await
}

async fn body_bytes(at: SocketAddr, n: usize) -> String {
    ask(at, "POST", "/v1/streams", &[("Content-Type", "application/json")], &vec![b'x'; n]).await
}

async fn subscriptions(at: SocketAddr, n: usize) -> String {
    let mut ws = Ws::json(at).await;
    let all: Vec<u8> = (0..n).flat_map(|sub| ws_text(&json!({"t":"subscribe","sub":sub,"stream":"s"}).to_string())).collect();
    let (mut last, mut answers) = (String::new(), 0);
    ws.flood(&all, |_, payload| {
        let frame: Value = serde_json::from_slice(payload).expect("JSON");
        if frame["t"] != "live" {
            answers += 1;
            if frame["sub"] == n - 1 {
                last = told(&frame);
            }
        }
        answers < n
    })
    .await;
    last
}

async fn in_flight_events(at: SocketAddr, n: usize) -> String {
    let stream = format!("flight{n}");
    assert_eq!(
        ask(at, "POST", &format!("/v1/streams/{stream}/events?lines=data"), &[("Content-Type", "application/x-ndjson")], "1\n".repeat(n).as_bytes()).await,
        "201"
    );
    let mut ws = Ws::json(at).await;
    let subscribe = json!({"t":"subscribe","sub":1,"stream":stream,"subscription":"b","create":true,"from":"earliest"});
    ws.send(&ws_text(&subscribe.to_string())).await;
    let mut heard = 0;
    while heard < n.min(1000) {
        heard += ws.said().await["events"].as_array().map_or(0, Vec::len);
    }
    // What is sent without an ack comes before the answer to a ping that is asked for now.
    ws.send(&ws_text(r#"{"t":"ping"}"#)).await;
    loop {
        let frame = ws.said().await;
        heard += frame["events"].as_array().map_or(0, Vec::len);
        if frame["t"] == "pong" {
            break;
        }
    }
    if heard == n {
        return "all".into();
    }
    let before = heard;
    ws.send(&ws_text(r#"{"t":"ack","sub":1,"offset":0}"#)).await;
    while heard < n {
        heard += ws.said().await["events"].as_array().map_or(0, Vec::len);
    }
    format!("{before}, and the rest after an ack")
}

async fn idempotency_key(at: SocketAddr, n: usize) -> String {
    let key = "k".repeat(n);
    ask(at, "POST", "/v1/streams/s/events", &[("Content-Type", "application/json"), ("Idempotency-Key", &key)], br#"{"events":[{"data":1}]}"#).await
}

async fn commit_acks(at: SocketAddr, n: usize) -> String {
    let ack = |i: usize| json!({"stream":"s","subscription":format!("none{i}"),"epoch":1,"offset":0});
    say(at, &json!({"t":"commit","req":1,"acks":(0..n).map(ack).collect::<Vec<_>>()}).to_string()).await
}

async fn commit_streams(at: SocketAddr, n: usize) -> String {
    let append = |i: usize| json!({"stream":format!("c{i}"),"events":[{"data":1}]});
    say(at, &json!({"t":"commit","req":1,"appends":(0..n).map(append).collect::<Vec<_>>()}).to_string()).await
}

async fn read_by_default(at: SocketAddr, n: usize) -> String {
    let stream = format!("read{n}");
    let path = format!("/v1/streams/{stream}/events");
    assert_eq!(ask(at, "POST", &format!("{path}?lines=data"), &[("Content-Type", "application/x-ndjson")], "1\n".repeat(n).as_bytes()).await, "201");
    let answer = exchange(tcp(at).await, "GET", &path, &[], b"").await.metadata();
    let count = answer["events"].as_array().expect("events").len();
    if count == n { "all".into() } else { count.to_string() }
}

async fn read_limit(at: SocketAddr, n: usize) -> String {
    ask(at, "GET", &format!("/v1/streams/s/events?limit={n}"), &[], b"").await
}

async fn pull_bytes(at: SocketAddr, n: usize) -> String {
    post(at, "/v1/streams/s/subscriptions/pulled/pull", &json!({"max_bytes":n}).to_string()).await
}

async fn filtered(at: SocketAddr, filter: &str) -> String {
    ask(at, "GET", &format!("/v1/streams?filter={}", filter.replace(' ', "+")), &[], b"").await
}

async fn filter_bytes(at: SocketAddr, n: usize) -> String {
    filtered(at, &format!("name eq {}", "x".repeat(n - "name eq ".len()))).await
}

async fn filter_comparisons(at: SocketAddr, n: usize) -> String {
    filtered(at, &vec!["id eq 1"; n].join(" or ")).await
}

async fn filter_depth(at: SocketAddr, n: usize) -> String {
    filtered(at, &format!("{}id eq 1{}", "(".repeat(n), ")".repeat(n))).await
}

async fn list_limit(at: SocketAddr, n: usize) -> String {
    ask(at, "GET", &format!("/v1/streams?limit={n}"), &[], b"").await
}

/// There are events, so the answer does not wait.
async fn long_poll(at: SocketAddr, n: usize) -> String {
    ask(at, "GET", &format!("/v1/streams/s/events?from=0&limit=1&wait={n}"), &[], b"").await
}

async fn header_bytes(at: SocketAddr, n: usize) -> String {
    let (before, after) = ("GET /v1 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nX-Long: ", "\r\n\r\n");
    let text = format!("{before}{}{after}", "x".repeat(n - before.len() - after.len()));
    raw(tcp(at).await, text.as_bytes()).await.status.to_string()
}

async fn header_count(at: SocketAddr, n: usize) -> String {
    let more: String = (2..n).map(|i| format!("X-{i}: 1\r\n")).collect();
    raw(tcp(at).await, format!("GET /v1 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{more}\r\n").as_bytes()).await.status.to_string()
}

/// The authority is one of them when it has become `host`; here it is not.
async fn header_count_http2(at: SocketAddr, n: usize) -> String {
    let names: Vec<String> = (0..n).map(|i| format!("x-{i}")).collect();
    let fields: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "1")).collect();
    let mut h2 = H2::open(at).await;
    h2.send(&h2_frame(HEADERS, END_STREAM | END_HEADERS, 1, &head("GET", "/v1", &fields))).await;
    loop {
        let Some(frame) = h2.next().await else { return "gone".into() };
        if frame.kind == HEADERS {
            // 200 is one byte of the static table; 431 is a literal behind the name `:status`.
            return if frame.payload[0] == 0x88 { "read".into() } else { "431".into() };
        }
    }
}

async fn pings(at: SocketAddr, n: usize) -> String {
    let mut ws = Ws::json(at).await;
    let (mut last, mut heard) = (String::new(), 0);
    ws.flood(&ws_text(r#"{"t":"ping"}"#).repeat(n), |first, payload| {
        heard += 1;
        last = if first == TEXT {
            told(&serde_json::from_slice(payload).expect("JSON"))
        } else {
            format!("{} {}", u16::from_be_bytes([payload[0], payload[1]]), String::from_utf8_lossy(&payload[2..]))
        };
        first == TEXT && heard < n
    })
    .await;
    last
}

async fn fragments(at: SocketAddr, n: usize) -> String {
    let mut ws = Ws::json(at).await;
    let text = br#"{"t":"ping"}"#;
    let middle = ws_head(0x00, 0).repeat(n - 2);
    ws.send(&[ws_frame(0x01, &text[..3]), middle, ws_frame(0x80, &text[3..])].concat()).await;
    match ws.next().await {
        Some((TEXT, payload)) => told(&serde_json::from_slice(&payload).expect("JSON")),
        Some((_, payload)) => format!("{} {}", u16::from_be_bytes([payload[0], payload[1]]), String::from_utf8_lossy(&payload[2..])),
        None => "gone".into(),
    }
}

/// The n-th call at once.
async fn calls(at: SocketAddr, n: usize) -> String {
    let mut h2 = H2::open(at).await;
    let block = call("Connect");
    let last = 2 * n as u32 - 1;
    let all: Vec<u8> = (0..n as u32).flat_map(|i| h2_frame(HEADERS, END_HEADERS, 2 * i + 1, &block)).collect();
    let (mut heard, mut answers) = ("neither".to_owned(), 0);
    h2.flood(&all, |frame| {
        if frame.kind == HEADERS || frame.kind == crate::wire::RESET {
            answers += 1;
        }
        match frame.kind {
            HEADERS if frame.stream == last => heard = "answered".into(),
            crate::wire::RESET if frame.stream == last => heard = "refused".into(),
            _ => {}
        }
        answers < n && frame.kind != GOAWAY
    })
    .await;
    heard
}
