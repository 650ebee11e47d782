//! A proxy that breaks connections in the middle of whatever is on its way: after some number of bytes, in one direction, it closes, resets,
//! or stands still for a while.
//!
//! It listens on TCP and knocks at the broker's Unix socket, which is the same after each restart.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::task::JoinHandle;

use crate::dice::Dice;

/// What it did.
#[derive(Default)]
pub struct Done {
    pub connections: AtomicU64,
    /// In requests, in answers.
    pub cut: [AtomicU64; 2],
    pub reset: AtomicU64,
    pub stalled: AtomicU64,
}

/// What happens to one direction of one connection.
#[derive(Clone, Copy, Debug)]
enum Harm {
    None,
    Cut {
        after: u64,
    },
    Reset {
        after: u64,
    },
    /// Stands still, then goes on.
    Stall {
        after: u64,
        pause: Duration,
    },
    /// Stands still, then closes.
    StallAndCut {
        after: u64,
        pause: Duration,
    },
}

/// See the module. It ends when this is dropped.
pub struct Proxy {
    pub at: SocketAddr,
    pub done: Arc<Done>,
    calm: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Proxy {
    pub async fn start(socket: PathBuf, mut dice: Dice) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let at = listener.local_addr().expect("an address");
        let done = Arc::new(Done::default());
        let calm = Arc::new(AtomicBool::new(false));
        let task = tokio::spawn({
            let (done, calm) = (done.clone(), calm.clone());
            async move {
                loop {
                    let Ok((client, _)) = listener.accept().await else { continue };
                    done.connections.fetch_add(1, Ordering::Relaxed);
                    let harms = if calm.load(Ordering::Relaxed) { [Harm::None; 2] } else { plan(&mut dice) };
                    tokio::spawn(carry(client, socket.clone(), harms, done.clone()));
                }
            }
        });
        Self { at, done, calm, task }
    }

    /// From now on connections are left alone.
    pub fn calm(&self) {
        self.calm.store(true, Ordering::Relaxed);
    }

    pub fn figures(&self) -> String {
        let of = |n: &AtomicU64| n.load(Ordering::Relaxed);
        let d = &self.done;
        format!(
            "{} connections through the proxy, {} cut in a request, {} in an answer, {} reset, {} stalled",
            of(&d.connections),
            of(&d.cut[0]),
            of(&d.cut[1]),
            of(&d.reset),
            of(&d.stalled)
        )
    }
}

/// For requests and for answers. One connection in three is left alone.
fn plan(dice: &mut Dice) -> [Harm; 2] {
    let mut harms = [Harm::None; 2];
    if dice.one_in(3) {
        return harms;
    }
    // As often a few bytes as many.
    let scale = dice.between(1, 17);
    let after = dice.below(1 << scale);
    let pause = dice.millis(20, 900);
    harms[dice.below(2) as usize] = match dice.below(6) {
        0..=1 => Harm::Cut { after },
        2..=3 => Harm::Reset { after },
        4 => Harm::Stall { after, pause },
        _ => Harm::StallAndCut { after, pause },
    };
    harms
}

/// How a direction ended.
enum End {
    Closed,
    Reset,
}

async fn carry(mut client: TcpStream, socket: PathBuf, [up, down]: [Harm; 2], done: Arc<Done>) {
    let _ = client.set_nodelay(true);
    let Ok(broker) = UnixStream::connect(socket).await else { return };
    let (from_broker, to_broker) = tokio::io::split(broker);
    let end = {
        let (from_client, to_client) = client.split();
        tokio::select! {
            end = copy(from_client, to_broker, up, &done, 0) => end,
            end = copy(from_broker, to_client, down, &done, 1) => end,
        }
    };
    if matches!(end, End::Reset) {
        // Unsent and unread bytes are thrown away, and the other side is told so.
        let _ = socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO));
    }
}

async fn copy(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, harm: Harm, done: &Done, direction: usize) -> End {
    let (Harm::Cut { mut after } | Harm::Reset { mut after } | Harm::Stall { mut after, .. } | Harm::StallAndCut { mut after, .. }) = harm else {
        let _ = tokio::io::copy(&mut from, &mut to).await;
        return End::Closed;
    };
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let room = buffer.len().min(after as usize);
        if room == 0 {
            break;
        }
        match from.read(&mut buffer[..room]).await {
            Ok(count) if count > 0 && to.write_all(&buffer[..count]).await.is_ok() => after -= count as u64,
            _ => return End::Closed,
        }
    }
    let count = |n: &AtomicU64| n.fetch_add(1, Ordering::Relaxed);
    // The harm is done when there is something to harm.
    let Ok(first) = from.read(&mut buffer[..1]).await else { return End::Closed };
    if first == 0 {
        return End::Closed;
    }
    match harm {
        Harm::None => unreachable!("it has a number of bytes"),
        Harm::Cut { .. } => {
            count(&done.cut[direction]);
            End::Closed
        }
        Harm::Reset { .. } => {
            count(&done.reset);
            End::Reset
        }
        Harm::StallAndCut { pause, .. } => {
            count(&done.stalled);
            tokio::time::sleep(pause).await;
            End::Closed
        }
        Harm::Stall { pause, .. } => {
            count(&done.stalled);
            tokio::time::sleep(pause).await;
            if to.write_all(&buffer[..1]).await.is_ok() {
                let _ = tokio::io::copy(&mut from, &mut to).await;
            }
            End::Closed
        }
    }
}
