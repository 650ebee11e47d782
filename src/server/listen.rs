//! Listeners: TCP and Unix sockets, and what every connection is held to before it speaks of streams.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::body::Body;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::tls::Gate;
use crate::edge::callers::{Caller, Callers};
use crate::edge::certificate::Shown;
use crate::edge::socket::Line;
use crate::edge::{Edge, Peer, Seats, Socket, Turn};
use crate::types::limits;

/// Pause after an accept that failed: out of file handles, most likely.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What listeners share.
#[derive(Clone)]
pub struct Door {
    /// The faces.
    pub edge: Edge,
    /// No more connections, and those that are open finish what they do.
    pub stop: CancellationToken,
    /// Every connection.
    pub tasks: TaskTracker,
    /// Most open TCP connections.
    pub connections: u64,
    /// Those of callers that nobody knows yet, by address.
    pub strangers: Callers,
    /// How long a socket may take nothing while bytes wait for it.
    pub undrained: Duration,
}

/// Accepts TCP connections until told to stop. With a gate all of them speak TLS.
pub async fn tcp(door: Door, listener: TcpListener, gate: Option<Gate>) {
    let mut turn = Turn::default();
    loop {
        turn.breathe().await;
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = door.stop.cancelled() => return,
        };
        match accepted {
            Ok((stream, address)) => {
                prepare(&stream);
                door.admit(stream, address, gate.as_ref());
            }
            Err(error) => pause(&error).await,
        }
    }
}

/// A kernel that does not know one of these options serves as well, only less so.
fn prepare(stream: &TcpStream) {
    let socket = SockRef::from(stream);
    // Small answers must not wait for the peer's acknowledgement of the one before.
    let _ = socket.set_tcp_nodelay(true);
    // More would be memory for slow readers.
    let _ = socket.set_tcp_notsent_lowat(limits::SOCKET_UNSENT_BYTES);
    // A peer that vanished while nothing is on its way to it is found by a probe; otherwise by its socket.
    let _ = socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(limits::PING_EVERY).with_interval(limits::PING_EVERY / 2));
}

/// Accepts connections of the operator until told to stop, then removes the socket. They are not counted against the limit.
pub async fn unix(door: Door, listener: UnixListener, path: PathBuf) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = door.stop.cancelled() => break,
        };
        match accepted {
            Ok((stream, _)) => {
                if let Some(slot) = door.edge.stats().enter(u64::MAX) {
                    door.spawn(Socket::unix(stream, slot, door.undrained), Peer::Local, None, None);
                }
            }
            Err(error) => pause(&error).await,
        }
    }
    let _ = std::fs::remove_file(&path);
}

async fn pause(error: &io::Error) {
    tracing::warn!(%error, "a connection could not be accepted; trying again");
    tokio::time::sleep(ACCEPT_PAUSE).await;
}

impl Door {
    /// Serves a TCP connection, unless too many are open. Who is over a limit of its own address is not told in the log: strangers
    /// must not be able to fill it.
    fn admit(&self, stream: TcpStream, address: SocketAddr, gate: Option<&Gate>) {
        let (stats, peer) = (self.edge.stats(), Peer::Tcp(address));
        let known = !self.edge.settings().doors.principal(peer).is_anonymous();
        let caller = if known { None } else { self.strangers.enter(address.ip()) };
        if !known && caller.is_none() {
            stats.refused();
            return tracing::debug!(%address, "refused a connection: its address has enough (limits.connections_per_address)");
        }
        let Some(slot) = stats.enter(self.connections) else {
            return tracing::warn!(%address, "refused a connection: {} are open (limits.connections)", self.connections);
        };
        let line = Line::tcp(stream, slot, caller.clone(), self.undrained);
        match gate {
            None => self.spawn(Socket::Plain(line), peer, caller, None),
            Some(gate) => drop(self.tasks.spawn(self.clone().greet(gate.clone(), line, peer, caller))),
        }
    }

    /// Shakes hands in a task of its own, which leaves nothing behind in that of the connection.
    async fn greet(self, gate: Gate, line: Line, peer: Peer, caller: Option<Caller>) {
        let shaken = tokio::select! {
            shaken = gate.shake_hands(line, self.edge.stats()) => shaken,
            () = self.stop.cancelled() => return,
        };
        match shaken {
            // Who has shown a certificate is no stranger, and not counted as one.
            Ok((socket, Some(shown))) => self.spawn(socket, peer, None, Some(shown)),
            Ok((socket, None)) => self.spawn(socket, peer, caller, None),
            // Strangers must not be able to fill the log.
            Err(error) => tracing::debug!(?peer, %error, "a handshake failed"),
        }
    }

    fn spawn(&self, socket: Socket, peer: Peer, caller: Option<Caller>, shown: Option<Shown>) {
        self.tasks.spawn(serve(self.edge.clone(), socket, peer, caller, shown, self.stop.clone()));
    }
}

/// Serves one connection, HTTP/1.1 or HTTP/2, by what the client begins with: over TLS that is what was agreed on (ALPN).
async fn serve(edge: Edge, socket: Socket, peer: Peer, caller: Option<Caller>, shown: Option<Shown>, stop: CancellationToken) {
    let spoken = Arc::new(AtomicBool::new(false));
    // The operator's socket has no bounds (`decisions.md` section 5).
    let seats = matches!(peer, Peer::Tcp(_)).then(Seats::default);
    let socket = match &seats {
        Some(seats) => socket.seated(seats.clone()),
        None => socket,
    };
    let service = {
        let spoken = spoken.clone();
        hyper::service::service_fn(move |mut request: hyper::Request<Incoming>| {
            if let Some(shown) = &shown {
                request.extensions_mut().insert(shown.clone());
            }
            if !spoken.swap(true, Ordering::Relaxed)
                && let Some(caller) = &caller
            {
                caller.spoke();
            }
            let (edge, mut request) = (edge.clone(), request.map(Body::new));
            if let Some(seats) = &seats {
                request.extensions_mut().insert(seats.clone());
            }
            async move { Ok::<_, std::convert::Infallible>(edge.handle(peer, request).await) }
        })
    };
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(limits::HEADER_TIMEOUT).max_headers(limits::HEADER_COUNT).max_buf_size(limits::HEADER_BYTES);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(limits::HEADER_BYTES as u32)
        .max_concurrent_streams(limits::STREAMS_PER_CONNECTION)
        .max_pending_accept_reset_streams(limits::PENDING_RESETS)
        .max_local_error_reset_streams(limits::LOCAL_RESETS)
        .initial_stream_window_size(limits::HTTP2_STREAM_WINDOW)
        .initial_connection_window_size(limits::HTTP2_CONNECTION_WINDOW)
        .keep_alive_interval(limits::PING_EVERY)
        .keep_alive_timeout(limits::HTTP2_PONG_WAIT);
    // No connection has a greatest age: nothing here needs calls to move to another broker, and a reader that is cut now and then to no end
    // reads later for it. A cluster that rebalances will want one.
    let mut connection = pin!(builder.serve_connection_with_upgrades(TokioIo::new(socket), service));
    let mut stopping = pin!(stop.cancelled());
    // The library's own timer begins when it knows which HTTP it speaks; a peer that says nothing never gets there. One that has shaken
    // hands over HTTP/2 ahead of its first call is told to connect again (GOAWAY), which its library does by itself.
    let mut silent = pin!(tokio::time::sleep(limits::HEADER_TIMEOUT));
    let (mut asked_to_stop, mut watched, mut goodbye) = (false, true, false);
    loop {
        tokio::select! {
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(?peer, %error, "a connection ended early");
                }
                return;
            }
            () = stopping.as_mut(), if !asked_to_stop => {
                asked_to_stop = true;
                connection.as_mut().graceful_shutdown();
            }
            () = silent.as_mut(), if watched => {
                // A call that came with the goodbye is answered.
                watched = !spoken.load(Ordering::Relaxed);
                if watched && goodbye {
                    return;
                }
                if watched {
                    goodbye = true;
                    connection.as_mut().graceful_shutdown();
                    silent.as_mut().reset(tokio::time::Instant::now() + limits::GOODBYE);
                }
            }
        }
    }
}

/// Listens on a Unix socket that only this user can open. A stale socket left by a crash is replaced.
///
/// # Errors
/// A sentence: another broker lives there, the place is taken by something else, or the path cannot be used.
pub fn bind_unix(path: &Path) -> Result<UnixListener, String> {
    let shown = path.display();
    match std::fs::symlink_metadata(path) {
        Err(_) => {}
        Ok(found) if !found.file_type().is_socket() => {
            return Err(format!("{shown} is there and is no socket; remove it, or choose another place with --socket."));
        }
        Ok(_) => {
            if std::os::unix::net::UnixStream::connect(path).is_ok() {
                return Err(format!("A broker is listening on {shown}; stop it, or choose another place with --socket."));
            }
        }
    }
    // Bound under another name, made private, then moved into place: at no moment can anybody else open it.
    let hidden = path.with_file_name(format!(".t{:x}", rand::random::<u32>()));
    let bound = UnixListener::bind(&hidden).and_then(|listener| {
        std::fs::set_permissions(&hidden, std::fs::Permissions::from_mode(0o600))?;
        std::fs::rename(&hidden, path)?;
        Ok(listener)
    });
    bound.map_err(|error| {
        let _ = std::fs::remove_file(&hidden);
        format!("No socket can be made at {shown}: {error}. Its path may have 107 bytes; choose another place with --socket.")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_live_one_refuses() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.sock");
        let first = bind_unix(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(bind_unix(&path).unwrap_err().contains("is listening"));
        drop(first); // the file stays, as after a crash
        assert!(path.exists());
        let _second = bind_unix(&path).unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left over");
    }

    #[tokio::test]
    async fn a_file_that_is_no_socket_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.sock");
        std::fs::write(&path, "precious").unwrap();
        assert!(bind_unix(&path).unwrap_err().contains("no socket"));
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    }
}
