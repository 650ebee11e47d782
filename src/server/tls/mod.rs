//! TLS of the listeners: certificates from files, handshakes, and files that change while the broker runs.
//!
//! What the files say is one value that is swapped as a whole ([`Live`]): a handshake sees the old one or the new one, and a connection
//! that is open keeps what it began with.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsAcceptor;

use crate::edge::certificate::{self, Shown};
use crate::edge::socket::Line;
use crate::edge::{Socket, Stats};
use crate::types::limits;

mod files;
mod reload;
mod subjects;

pub use files::Loaded;
pub use reload::Certificates;

/// What Go's server says, which people know how to search for.
const PLAIN_HTTP: &[u8] = b"HTTP/1.0 400 Bad Request\r\nConnection: close\r\n\r\nClient sent an HTTP request to an HTTPS server.\n";

/// How long a peer whose handshake was refused may take to hear why, and the most it may send meanwhile.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: u64 = 64 * 1024;

/// What is in force now.
pub type Live = Arc<ArcSwap<Loaded>>;

/// Which callers a listener wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wants {
    /// All; those who show a certificate are known by it.
    Anybody,
    /// Those with a certificate.
    Certificates,
}

/// How connections of one listener begin.
#[derive(Clone)]
pub struct Gate {
    /// What is in force.
    pub live: Live,
    /// Whom it lets in.
    pub wants: Wants,
}

impl Gate {
    /// Shakes hands, within [`limits::TLS_HANDSHAKE`]. What comes out is a connection, and the certificate that its client has shown.
    ///
    /// # Errors
    /// Why not; the peer has been told, as far as it can be.
    pub async fn shake_hands(&self, line: Line, stats: &Stats) -> io::Result<(Socket, Option<Shown>)> {
        let deadline = Instant::now() + limits::TLS_HANDSHAKE;
        let shaken = timeout_at(deadline, self.shake(line)).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        if shaken.is_err() {
            stats.tls_handshake_failed();
        }
        shaken
    }

    async fn shake(&self, mut line: Line) -> io::Result<(Socket, Option<Shown>)> {
        // Nothing of TLS is in memory for a peer that says nothing.
        match line.first_byte().await? {
            None => return Err(io::ErrorKind::UnexpectedEof.into()),
            // A method of HTTP. The type of a handshake's record is 22.
            Some(b'A'..=b'Z') => {
                line.write_all(PLAIN_HTTP).await?;
                let_go(line).await;
                return Err(io::Error::other("plain HTTP"));
            }
            Some(_) => {}
        }
        let loaded = self.live.load_full();
        let config = match self.wants {
            Wants::Anybody => loaded.main.clone(),
            Wants::Certificates => loaded.mutual.clone().ok_or_else(|| io::Error::other("no authority of clients"))?,
        };
        let accept = TlsAcceptor::from(config).accept_with(line, |connection| connection.set_buffer_limit(Some(limits::TLS_BUFFER_BYTES)));
        let mut tls = match accept.into_fallible().await {
            Ok(tls) => tls,
            Err((error, line)) => {
                let_go(line).await;
                return Err(error);
            }
        };
        let shown = match (tls.get_ref().1.peer_certificates().and_then(<[_]>::first), &loaded.cluster) {
            (Some(certificate), Some(cluster)) => {
                let read = certificate::read(certificate, cluster).map_err(io::Error::other)?;
                Some(Shown::new(read.certificate, Some(read.not_after)))
            }
            _ => None,
        };
        if shown.is_some() {
            tls.get_mut().0.is_known();
        }
        Ok((Socket::Tls(Box::new(tls)), shown))
    }
}

/// Closing a socket with unread bytes resets it, and the peer may lose what it was told: they are read away, as far as they are few.
async fn let_go(mut line: Line) {
    let _ = tokio::time::timeout(LINGER, async {
        line.shutdown().await?;
        tokio::io::copy(&mut line.take(LINGER_BYTES), &mut tokio::io::sink()).await
    })
    .await;
}
