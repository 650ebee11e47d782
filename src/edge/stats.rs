//! Counters of the faces. Guards count: what enters leaves by itself (`style.md` 17).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;

use crate::types::TimeUs;

/// Shared counters. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Stats(Arc<Counters>);

#[derive(Debug, Default)]
struct Counters {
    connections: AtomicU64,
    connections_total: AtomicU64,
    refused_total: AtomicU64,
    websockets: AtomicU64,
    websockets_total: AtomicU64,
    requests: AtomicU64,
    requests_total: AtomicU64,
    errors_total: AtomicU64,
    frames_in_total: AtomicU64,
    frames_out_total: AtomicU64,
    slow_consumers_total: AtomicU64,
    event_streams: AtomicU64,
    event_streams_total: AtomicU64,
    event_stream_bytes_total: AtomicU64,
    grpc_calls_total: AtomicU64,
    grpc_refused_total: AtomicU64,
    grpc_streams: AtomicU64,
    tls_handshakes_failed_total: AtomicU64,
    tls_reload_failures_total: AtomicU64,
    tls: Mutex<Option<TlsState>>,
}

/// Our certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsState {
    /// When the one that is in force ends.
    pub not_after: TimeUs,
    /// The alarm: why what is in the files now is not in force.
    pub failed: Option<String>,
}

/// A counted connection.
#[derive(Debug)]
pub struct Slot(Arc<Counters>);

impl Slot {
    /// It is being closed because its peer takes nothing.
    pub fn slow_consumer(&self) {
        self.0.slow_consumers_total.fetch_add(1, Relaxed);
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Relaxed);
    }
}

/// A counted WebSocket.
#[derive(Debug)]
pub struct WebSocketSlot(Arc<Counters>);

impl Drop for WebSocketSlot {
    fn drop(&mut self) {
        self.0.websockets.fetch_sub(1, Relaxed);
    }
}

/// A counted event stream.
#[derive(Debug)]
pub struct EventStreamSlot(Arc<Counters>);

impl Drop for EventStreamSlot {
    fn drop(&mut self) {
        self.0.event_streams.fetch_sub(1, Relaxed);
    }
}

/// A counted request, until it has an answer.
#[derive(Debug)]
pub struct RequestSlot(Arc<Counters>);

impl Drop for RequestSlot {
    fn drop(&mut self) {
        self.0.requests.fetch_sub(1, Relaxed);
    }
}

/// A counted gRPC call that goes on: `Connect`, `Subscribe`, `Read`.
#[derive(Debug)]
pub struct GrpcSlot(Arc<Counters>);

impl Drop for GrpcSlot {
    fn drop(&mut self) {
        self.0.grpc_streams.fetch_sub(1, Relaxed);
    }
}

impl Stats {
    /// A place for one more connection, unless `limit` are open.
    pub fn enter(&self, limit: u64) -> Option<Slot> {
        let before = self.0.connections.fetch_add(1, Relaxed);
        let slot = Slot(self.0.clone());
        if before >= limit {
            self.0.refused_total.fetch_add(1, Relaxed);
            return None; // dropping the slot takes the count back
        }
        self.0.connections_total.fetch_add(1, Relaxed);
        Some(slot)
    }

    /// A connection was turned away before it took a place.
    pub fn refused(&self) {
        self.0.refused_total.fetch_add(1, Relaxed);
    }

    /// One more WebSocket.
    pub fn enter_websocket(&self) -> WebSocketSlot {
        self.0.websockets.fetch_add(1, Relaxed);
        self.0.websockets_total.fetch_add(1, Relaxed);
        WebSocketSlot(self.0.clone())
    }

    /// One more event stream.
    pub fn enter_event_stream(&self) -> EventStreamSlot {
        self.0.event_streams.fetch_add(1, Relaxed);
        self.0.event_streams_total.fetch_add(1, Relaxed);
        EventStreamSlot(self.0.clone())
    }

    /// So many bytes of an event stream were asked for and made.
    pub fn event_stream_bytes(&self, bytes: usize) {
        self.0.event_stream_bytes_total.fetch_add(bytes as u64, Relaxed);
    }

    /// One more HTTP request without an answer.
    pub fn enter_request(&self) -> RequestSlot {
        self.0.requests.fetch_add(1, Relaxed);
        RequestSlot(self.0.clone())
    }

    /// One HTTP request answered.
    pub fn request(&self, failed: bool) {
        self.0.requests_total.fetch_add(1, Relaxed);
        if failed {
            self.0.errors_total.fetch_add(1, Relaxed);
        }
    }

    /// One gRPC call begun; `refused`: it ended at once with a status other than OK.
    pub fn grpc_call(&self, refused: bool) {
        self.0.grpc_calls_total.fetch_add(1, Relaxed);
        if refused {
            self.0.grpc_refused_total.fetch_add(1, Relaxed);
        }
    }

    /// One more gRPC call that goes on.
    pub fn enter_grpc_stream(&self) -> GrpcSlot {
        self.0.grpc_streams.fetch_add(1, Relaxed);
        GrpcSlot(self.0.clone())
    }

    /// A WebSocket message came in.
    pub fn frame_in(&self) {
        self.0.frames_in_total.fetch_add(1, Relaxed);
    }

    /// A WebSocket message went out.
    pub fn frame_out(&self) {
        self.0.frames_out_total.fetch_add(1, Relaxed);
    }

    /// A socket was closed because it did not drain.
    pub fn slow_consumer(&self) {
        self.0.slow_consumers_total.fetch_add(1, Relaxed);
    }

    /// A handshake of TLS came to nothing.
    pub fn tls_handshake_failed(&self) {
        self.0.tls_handshakes_failed_total.fetch_add(1, Relaxed);
    }

    /// Certificates are in force, ours until `not_after`. An alarm is over.
    pub fn tls_loaded(&self, not_after: TimeUs) {
        *self.0.tls.lock() = Some(TlsState { not_after, failed: None });
    }

    /// The files have changed and cannot be used: an alarm until they can.
    pub fn tls_failed(&self, why: String) {
        self.0.tls_reload_failures_total.fetch_add(1, Relaxed);
        if let Some(tls) = &mut *self.0.tls.lock() {
            tls.failed = Some(why);
        }
    }

    /// Our certificate; `None` without TLS.
    pub fn tls(&self) -> Option<TlsState> {
        self.0.tls.lock().clone()
    }

    /// Open connections, WebSockets included.
    pub fn connections(&self) -> u64 {
        self.0.connections.load(Relaxed)
    }

    /// Name, help, is-counter, value: the form of `Broker::metrics`.
    pub fn metrics(&self) -> Vec<(&'static str, &'static str, bool, f64)> {
        let n = |counter: &AtomicU64| counter.load(Relaxed) as f64;
        let mut metrics = vec![
            ("tidelog_connections", "Open connections", false, n(&self.0.connections)),
            ("tidelog_connections_opened", "Connections accepted", true, n(&self.0.connections_total)),
            ("tidelog_connections_refused", "Connections refused because too many were open", true, n(&self.0.refused_total)),
            ("tidelog_websockets", "Open WebSockets", false, n(&self.0.websockets)),
            ("tidelog_websockets_opened", "WebSockets opened", true, n(&self.0.websockets_total)),
            ("tidelog_http_requests_open", "HTTP requests without an answer so far", false, n(&self.0.requests)),
            ("tidelog_http_requests", "HTTP requests answered", true, n(&self.0.requests_total)),
            ("tidelog_http_errors", "HTTP requests answered with an error", true, n(&self.0.errors_total)),
            ("tidelog_websocket_frames_in", "WebSocket messages received", true, n(&self.0.frames_in_total)),
            ("tidelog_websocket_frames_out", "WebSocket messages sent", true, n(&self.0.frames_out_total)),
            ("tidelog_event_streams", "Open event streams", false, n(&self.0.event_streams)),
            ("tidelog_event_streams_opened", "Event streams opened", true, n(&self.0.event_streams_total)),
            ("tidelog_event_stream_bytes", "Bytes of event streams made", true, n(&self.0.event_stream_bytes_total)),
            ("tidelog_grpc_calls", "gRPC calls begun", true, n(&self.0.grpc_calls_total)),
            ("tidelog_grpc_refused", "gRPC calls that were refused at once", true, n(&self.0.grpc_refused_total)),
            ("tidelog_grpc_streams", "gRPC calls that go on: Connect, Subscribe, Read", false, n(&self.0.grpc_streams)),
            ("tidelog_slow_consumers", "Sockets closed because they did not drain", true, n(&self.0.slow_consumers_total)),
        ];
        if let Some(tls) = self.tls() {
            metrics.extend([
                ("tidelog_tls_handshakes_failed", "Handshakes of TLS that came to nothing", true, n(&self.0.tls_handshakes_failed_total)),
                ("tidelog_tls_reload_failures", "Changes of certificate files that could not be used", true, n(&self.0.tls_reload_failures_total)),
                (
                    "tidelog_tls_reload_failing",
                    "1 while the certificate files cannot be used, and the old ones are in force",
                    false,
                    f64::from(tls.failed.is_some()),
                ),
                ("tidelog_tls_certificate_expires_seconds", "When the certificate in force ends, in seconds since 1970", false, tls.not_after.0 as f64 / 1e6),
            ]);
        }
        metrics
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_over_the_limit_is_refused_and_a_closed_one_makes_room() {
        let stats = Stats::default();
        let first = stats.enter(1).expect("room for one");
        assert!(stats.enter(1).is_none());
        assert_eq!(stats.connections(), 1);
        drop(first);
        assert!(stats.enter(1).is_some());
    }
}
