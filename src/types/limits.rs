//! Every bound, with its name and its reason (`limits.md`). Settings may lower most of them.

use std::time::Duration;

/// Longest stream, subscription or user name. Fits a file name and a log line.
pub const NAME_BYTES: usize = 200;
/// Longest producer id. Long enough for `cursor:<stream>:<subscription>` of usual names.
pub const PRODUCER_ID_BYTES: usize = 128;

/// Largest integer that every reader of JSON can hold (`formats.md` section 3).
pub const INTEGER_MAX: u64 = (1 << 53) - 1;

/// Largest `data` of one event unless the stream says less. Bigger payloads belong in an object store.
pub const EVENT_MAX_BYTES: usize = 1024 * 1024;
/// Largest batch (encoded `Events` bytes) of one append, and total of one commit's appends. Four of the largest events; small enough to share a group.
pub const BATCH_MAX_BYTES: usize = 4 * 1024 * 1024;
/// Most events in one append: bounds the walk at the door and the count in an answer.
pub const BATCH_MAX_EVENTS: usize = 10_000;
/// Entries of a list in a request that has no narrower bound: two bytes may be one, which takes thirty times as much in memory.
pub const LIST_ENTRIES: usize = 1024;
/// Longest event `type`. It is a word, not a payload.
pub const EVENT_TYPE_BYTES: usize = 256;
/// Longest event `key`.
pub const EVENT_KEY_BYTES: usize = 4 * 1024;
/// Most headers of one event.
pub const EVENT_HEADERS: usize = 32;
/// Sum of header names and values of one event.
pub const EVENT_HEADER_BYTES: usize = 8 * 1024;
/// Most fields of one JSON object that we read. None has half as many; each costs memory, and a look for one given twice.
pub const JSON_FIELDS: usize = 32;
/// Deepest JSON nesting, counted from `data` inside events. Parsers recurse.
pub const JSON_DEPTH: usize = 32;

/// Largest frame, gRPC message or request body after authentication: one full batch in its JSON form.
pub const MESSAGE_MAX_BYTES: usize = 8 * 1024 * 1024;
/// Largest message before authentication: an `auth` frame and little else.
pub const MESSAGE_MAX_BYTES_PRE_AUTH: usize = 4 * 1024;
/// Read buffer of one WebSocket. The library's default of 128 KiB would be most of an idle connection's memory.
pub const WS_READ_BUFFER_BYTES: usize = 4 * 1024;
/// Frames are flushed at this many bytes.
pub const WS_WRITE_BUFFER_BYTES: usize = 4 * 1024;
/// Frames waiting in the WebSocket library for one socket: two of the largest messages.
pub const WS_MAX_WRITE_BUFFER_BYTES: usize = 16 * 1024 * 1024;
/// Bytes waiting for one client's socket, beyond which the broker reads nothing more from it. One delivery may exceed it.
pub const OUTBOX_MAX_BYTES: usize = 4 * 1024 * 1024;
/// Target size of one `events` frame: large enough to amortise the call, small enough to share the socket.
pub const FRAME_TARGET_BYTES: usize = 64 * 1024;

/// Most event data in one `events` frame, unless a single event is larger. Its JSON form still fits a client's message limit.
pub const FRAME_MAX_BYTES: u64 = 1024 * 1024;

/// Appends of one connection that have no answer yet; beyond it the socket is not read.
pub const IN_FLIGHT_APPENDS: usize = 64;
/// Bytes of such appends.
pub const IN_FLIGHT_APPEND_BYTES: usize = 16 * 1024 * 1024;
/// Openings of readers and producers, and ends of a poisoning, of one connection that have no answer yet; beyond it the socket is not read.
/// Each may write rows, in the same commit as everybody's appends: this many fill a commit well, and delay nobody much.
pub const IN_FLIGHT_OPENINGS: usize = 64;
/// Append sessions of one connection that are remembered although nothing of them is in flight. Beyond it they are forgotten; where many of
/// them are poisoned, those that come back begin poisoned too (P-12).
pub const APPEND_SESSIONS: usize = 4096;
/// Subscriptions on one connection.
pub const SUBSCRIPTIONS_PER_CONNECTION: usize = 256;
/// Delivered but not acknowledged events of a durable subscription, unless it says otherwise.
pub const MAX_IN_FLIGHT_EVENTS: u64 = 1000;
/// The same in bytes, and the first grant of an ephemeral subscription.
pub const MAX_IN_FLIGHT_BYTES: u64 = 4 * 1024 * 1024;

/// Longest `Idempotency-Key` (P-19): room for two UUIDs and a word. Only its hash is stored.
pub const IDEMPOTENCY_KEY_BYTES: usize = 128;
/// How long an idempotency key is remembered (P-19). Longer than the retries of any queue that gives up within a day.
pub const IDEMPOTENCY_WINDOW: Duration = Duration::from_secs(24 * 3600);

/// Acks in one commit (T-6).
pub const COMMIT_ACKS: usize = 256;
/// Conditions in one commit: more than its streams, since one may be named twice, and not a list without end.
pub const COMMIT_CHECKS: usize = 256;
/// Appends in one commit: each has at least one event, and no commit has more events than this.
pub const COMMIT_APPENDS: usize = BATCH_MAX_EVENTS;
/// Streams in one commit (T-6).
pub const COMMIT_STREAMS: usize = 64;
/// Receipts kept per producer (P-14). Fixed: the slot is part of the stored key.
pub const RECEIPT_RING: u64 = 64;
/// Events of one REST read unless asked otherwise.
pub const READ_DEFAULT_EVENTS: usize = 1000;
/// Most events of one REST read.
pub const READ_MAX_EVENTS: usize = 10_000;
/// Bytes of one REST read.
pub const READ_MAX_BYTES: usize = 4 * 1024 * 1024;
/// Items of one page of a list that asked for pages.
pub const LIST_MAX: usize = 1000;
/// Longest long poll.
pub const LONG_POLL: Duration = Duration::from_secs(60);
/// Longest wait for an operation in one request.
pub const OPERATION_WAIT: Duration = Duration::from_secs(3600);

/// Bytes of accepted requests waiting for the commit loop. Beyond it callers wait, then hear `overloaded`.
pub const COMMIT_QUEUE_BYTES: usize = 64 * 1024 * 1024;
/// Requests waiting for the commit loop.
pub const COMMIT_QUEUE_REQUESTS: usize = 16 * 1024;
/// Bytes of one commit group: bounds the time one fdatasync may take.
pub const GROUP_BYTES: usize = 8 * 1024 * 1024;
/// Requests in one commit group.
pub const GROUP_REQUESTS: usize = 4096;
/// How long a caller waits for room in the queue before `overloaded`.
pub const ADMISSION_WAIT: Duration = Duration::from_secs(5);

/// Header bytes of one HTTP request.
pub const HEADER_BYTES: usize = 16 * 1024;
/// Header count of one HTTP request.
pub const HEADER_COUNT: usize = 64;
/// Time for the request's headers to arrive.
pub const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Grace before a body must bring [`BODY_MIN_RATE`].
pub const BODY_GRACE: Duration = Duration::from_secs(10);
/// Bytes per second a body must bring after its grace, and a WebSocket message that takes longer than [`PEER_DEAD`].
pub const BODY_MIN_RATE: u64 = 1024;
/// Time for a connection without a credential to send `auth`.
pub const AUTH_DEADLINE: Duration = Duration::from_secs(5);
/// Time for the handshake of TLS, from the first byte to the last. Over a bad line it is four round trips and a few hundredths of a second of work.
pub const TLS_HANDSHAKE: Duration = Duration::from_secs(5);
/// Bytes that TLS holds for one socket that takes nothing, beside what the kernel holds: two of its largest records.
pub const TLS_BUFFER_BYTES: usize = 32 * 1024;
/// Largest file of certificates or a key: several hundred authorities. More is not what was meant.
pub const TLS_FILE_BYTES: usize = 1024 * 1024;
/// How often an idle connection is pinged.
pub const PING_EVERY: Duration = Duration::from_secs(20);
/// A peer silent for this long is gone: a WebSocket that answers no ping, and any TCP connection whose peer acknowledges nothing. The kernel
/// alone would go on for a quarter of an hour, and a reader that vanished would stay attached.
pub const PEER_DEAD: Duration = Duration::from_secs(45);
/// How long an answer to a ping of HTTP/2 may take. It waits behind what the kernel holds ([`SOCKET_UNSENT_BYTES`]), and a reader of 2 KiB/s,
/// which is borne elsewhere, needs 64 s for that. A peer that vanished is found by the kernel after [`PEER_DEAD`].
pub const HTTP2_PONG_WAIT: Duration = Duration::from_secs(75);
/// How long a peer that is told to connect again may take to say goodbye.
pub const GOODBYE: Duration = Duration::from_secs(2);
/// A socket that drained nothing for this long is `slow_consumer`.
pub const SOCKET_UNDRAINED: Duration = Duration::from_secs(30);
/// A reader for whom bytes waited within this time is slow: what the kernel holds for it (128 KiB, and as much on its own side) may take it
/// this long at 2 KiB/s, in windows so small that the kernel would call it gone.
pub const SOCKET_FULL_LATELY: Duration = Duration::from_secs(120);
/// Bytes the kernel takes for one socket beyond what is on its way. More would be memory for slow readers, and a slow reader would look like
/// a dead one: the kernel tells us of room only when half of this is gone, so 2 KiB/s must get through to count as taking something.
pub const SOCKET_UNSENT_BYTES: u32 = 128 * 1024;
/// More pings than this in ten seconds close the connection (4008).
pub const PINGS_PER_10_S: u32 = 100;
/// Open connections in all. Fewer where the process may not open so many files.
pub const CONNECTIONS: usize = 10_000;
/// Files that the broker opens besides sockets and tables: logs, outputs of compactions, side files, the runtime's own.
pub const OTHER_FILES: u64 = 64;
/// Open connections of one address that has not shown who it is. Room for an office behind one address, and no more than a fortieth of all.
pub const CONNECTIONS_PER_ADDRESS: usize = 256;
/// Of these, connections that have sent no request yet: a browser opens six at once.
pub const CONNECTIONS_PER_ADDRESS_SILENT: usize = 64;
/// Frames of one WebSocket message: each costs a header and a turn, so a message in crumbs is an attack.
pub const WS_FRAGMENTS: u32 = 1024;
/// How long a connection's task works before it lets others have the thread. Half of the fastest sync, for which every append waits anyway, and
/// a hundred times what a change of tasks costs.
pub const TURN: Duration = Duration::from_micros(250);
/// How long a browser may remember what a preflight said: the most that Chromium does.
pub const PREFLIGHT_KEPT: Duration = Duration::from_secs(7200);

/// Longest `grpc-timeout` that is kept to; a longer one is cut to it. A timer has to have an end, and no call but a reader lasts a day.
pub const GRPC_TIMEOUT_MAX: Duration = Duration::from_secs(24 * 3600);
/// Calls on one HTTP/2 connection. Each costs a task and its buffers; more readers share one `Connect` or open another connection.
pub const STREAMS_PER_CONNECTION: u32 = 128;
/// Streams a client may open and reset before the broker has looked at them, per connection (CVE-2023-44487).
pub const PENDING_RESETS: usize = 20;
/// Streams the broker may have to reset because of a client's mistakes, per connection, before it closes it.
pub const LOCAL_RESETS: usize = 1024;
/// What one HTTP/2 call may have on its way to the broker unread: an append of usual size, so that its sender need not pause.
pub const HTTP2_STREAM_WINDOW: u32 = 1024 * 1024;
/// What all calls of a connection may have: an append of the largest size and those behind it.
pub const HTTP2_CONNECTION_WINDOW: u32 = 8 * 1024 * 1024;
/// Answers of a client that has closed its side of a `Connect` call may take this long.
pub const LAST_ANSWERS: Duration = Duration::from_secs(60);

/// How long a level `received` ack may stay in memory only (C-16).
pub const RECEIVED_ACK_PERSIST: Duration = Duration::from_secs(1);
/// How long a detached session keeps its delivered mark, unless the subscription says otherwise.
pub const ACK_TIMEOUT_S: u64 = 30;
/// How long a subscription without use lives, unless it says otherwise.
pub const SUBSCRIPTION_EXPIRES_S: u64 = 2_592_000;
/// How long a finished operation can be looked up.
pub const OPERATION_KEPT: Duration = Duration::from_secs(24 * 3600);

/// Shortest password: below it a list of guesses finds most (NIST SP 800-63B).
pub const PASSWORD_MIN_CHARACTERS: usize = 8;

/// Longest password: hashing more is work for nothing.
pub const PASSWORD_MAX_BYTES: usize = 1024;

/// Passwords hashed at once: each takes 19 MiB and tens of milliseconds of a processor, and anybody may ask.
pub const PASSWORDS_AT_ONCE: usize = 2;

/// Longest name of a source (`surfaces.md` 3.3).
pub const SOURCE_NAME_CHARACTERS: usize = 128;

/// Longest description of a source.
pub const DESCRIPTION_BYTES: usize = 4096;

/// A console session ends after it (`surfaces.md` 5.2).
pub const CONSOLE_SESSION: Duration = Duration::from_secs(12 * 3600);

/// A ticket is good for it (`decisions.md` section 5).
pub const TICKET_LIFE: Duration = Duration::from_secs(30);

/// Credentials remembered after their last use, so that not each request looks at the store: about 1 KiB each.
pub const CREDENTIALS_REMEMBERED: usize = 16_384;

/// Rights remembered beside one credential; more are looked up again.
pub const RIGHTS_REMEMBERED: usize = 1024;

/// Credentials that are not known, per minute and address (`surfaces.md` 5.11).
pub const FAILED_CREDENTIALS_PER_ADDRESS: u32 = 20;

/// The same, per key (`surfaces.md` 5.11).
pub const FAILED_CREDENTIALS_PER_KEY: u32 = 10;

/// Refused credentials that `$audit` tells of one by one, per minute and broker; of more it tells their number. Anybody can cause them, so they
/// may not fill a disk: at this many it is less than 30 MiB a day.
pub const AUDITED_REFUSALS_PER_MINUTE: u32 = 60;

/// Addresses and keys whose failures are remembered: about 100 bytes each.
pub const FAILURES_REMEMBERED: usize = 10_000;

/// Bytes of bodies in memory that are read before anybody knows whose they are, per address: on Evernest's paths the key comes in the body.
/// Two of the largest.
pub const STRANGERS_BODY_BYTES_PER_ADDRESS: usize = 2 * MESSAGE_MAX_BYTES;

/// The same of all addresses together.
pub const STRANGERS_BODY_BYTES: usize = 64 * 1024 * 1024;

/// Open connections of one user, all its keys and sources together (`limits.md`).
pub const CONNECTIONS_PER_USER: u64 = 1024;

/// Reads and pulls of one user that wait for events (`limits.md`): each holds a task; a WebSocket follows 256 streams with one.
pub const LONG_POLLS_PER_USER: u64 = 1000;

/// Streams that one user owns (`limits.md`).
pub const STREAMS_PER_USER: u64 = 10_000;

/// Subscriptions that one user has made: as many as `limits.md` gives one stream.
pub const SUBSCRIPTIONS_PER_USER: u64 = 10_000;

/// Producers that one user has opened first: as many as `limits.md` gives one stream.
pub const PRODUCERS_PER_USER: u64 = 100_000;

/// HTTP requests and unary calls of one user per second (`surfaces.md` 5.11, "rates").
pub const REQUESTS_PER_SECOND: u64 = 5000;

/// Of these, so many at once after a pause.
pub const REQUESTS_BURST: u64 = 10_000;

/// Bytes of bodies, messages and appends of one user per second, and at once (`surfaces.md` 5.11, "rates").
pub const BYTES_PER_SECOND: u64 = 64 * 1024 * 1024;

/// Users whose use is remembered although they have nothing open: about 200 bytes each. Who is forgotten begins with a full burst.
pub const USERS_METERED: usize = 16_384;

/// Longest filter (`surfaces.md` 5.7): it stands in a URL.
pub const FILTER_BYTES: usize = 4096;

/// Comparisons of one filter: each is looked at for each item.
pub const FILTER_COMPARISONS: usize = 32;

/// How deep the brackets of a filter may be: as deep as it is parsed and evaluated by recursion.
pub const FILTER_DEPTH: usize = 8;

/// So many events that a filter passes over are told of at once; fewer of them within a second.
pub const PROGRESS_EVENTS: u64 = 1000;
