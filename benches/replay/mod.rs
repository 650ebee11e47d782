//! The bytes of an attack without the broker: recorded on their way to one, and sent again to a sink that throws them away. What honest
//! clients notice of that is what an attacker on the same machine costs, whatever the broker does.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// Sent at once.
const CHUNK: usize = 64 * 1024;

/// Opened at once: an attack that opens thousands must not find the sink's queue full.
const OPEN: usize = 64;

/// What one connection has sent so far.
type Sent = Arc<Mutex<Vec<u8>>>;

/// What an attack's connections sent, each in one piece.
#[derive(Clone)]
pub struct Recorded(Arc<Vec<Vec<u8>>>);

/// Lets an attack run once against `to`, through a listener that writes down what it sends.
pub async fn record<F: Future<Output = String>>(to: SocketAddr, attack: impl FnOnce(SocketAddr) -> F) -> Recorded {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let at = listener.local_addr().expect("an address");
    let all: Arc<Mutex<Vec<Sent>>> = Arc::default();
    let kept = all.clone();
    let proxy = tokio::spawn(async move {
        let mut tasks = JoinSet::new();
        while let Ok((theirs, _)) = listener.accept().await {
            let sent = Arc::new(Mutex::new(Vec::new()));
            kept.lock().expect("nobody panicked").push(sent.clone());
            tasks.spawn(pass(theirs, to, sent));
        }
    });
    drop(attack(at).await);
    proxy.abort();
    let _ = proxy.await;
    let all = std::mem::take(&mut *all.lock().expect("nobody panicked"));
    Recorded(Arc::new(all.into_iter().map(|sent| std::mem::take(&mut *sent.lock().expect("nobody panicked"))).collect()))
}

/// One connection, in both directions, until either ends.
async fn pass(theirs: TcpStream, to: SocketAddr, sent: Sent) {
    let Ok(broker) = TcpStream::connect(to).await else { return };
    let _ = broker.set_nodelay(true).and_then(|()| theirs.set_nodelay(true));
    let ((mut from, mut back), (mut answers, mut on)) = (theirs.into_split(), broker.into_split());
    let asking = async {
        let mut buf = vec![0; CHUNK];
        while let Ok(n @ 1..) = from.read(&mut buf).await {
            sent.lock().expect("nobody panicked").extend_from_slice(&buf[..n]);
            if on.write_all(&buf[..n]).await.is_err() {
                break;
            }
        }
        let _ = on.shutdown().await;
    };
    let _ = tokio::join!(asking, tokio::io::copy(&mut answers, &mut back));
}

impl Recorded {
    /// Sends all of it as fast as it is taken: what an attacker does that never waits for an answer.
    pub async fn play(&self, to: SocketAddr) {
        for some in self.0.chunks(OPEN) {
            let mut open = Vec::with_capacity(some.len());
            for _ in some {
                open.push(TcpStream::connect(to).await.expect("the sink listens"));
            }
            for (stream, bytes) in open.iter_mut().zip(some) {
                for chunk in bytes.chunks(CHUNK) {
                    stream.write_all(chunk).await.expect("the sink reads");
                }
            }
        }
    }
}

/// Reads and throws away, on a thread of its own, for as long as the bench lives.
pub struct Sink {
    /// Where.
    pub at: SocketAddr,
}

impl Sink {
    pub fn start() -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.set_nonblocking(true).expect("a socket");
        let at = listener.local_addr().expect("an address");
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let listener = TcpListener::from_std(listener).expect("a listener");
                while let Ok((mut stream, _)) = listener.accept().await {
                    tokio::spawn(async move {
                        let mut buf = vec![0; CHUNK];
                        while matches!(stream.read(&mut buf).await, Ok(1..)) {}
                    });
                }
            });
        });
        Self { at }
    }
}
