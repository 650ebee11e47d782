//! Composition: settings → engine → broker → faces → listeners, and the way back.

use std::fmt;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::broker::{self, Broker};
use crate::edge::callers::Callers;
use crate::edge::{self, Doors, Edge};
use crate::log::Engine;
use crate::log::memory::Memory;
use crate::log::rocks::{Rocks, RocksOptions};
use crate::types::{TimeUs, limits};

pub mod authority;
pub mod config;
mod handles;
mod listen;
pub mod telemetry;
mod tls;

/// Checking a data directory that no broker has.
pub mod store {
    pub use crate::log::check::{CheckError, Counts, DAMAGES_KEPT, Damage, Part, Report, check_store};
}

pub use config::{Config, Flags, Mode, Storage};
use tls::{Certificates, Gate, Wants};

/// How long open connections may take to end once the broker stops.
const DRAIN: Duration = Duration::from_secs(10);

/// Why the broker did not start, and with which code the process ends: 1 anything else, 2 settings, 10 engine failed,
/// 11 data refused, 12 locked, 13 newer format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartError {
    /// A sentence: what is wrong and what to do.
    pub message: String,
    /// Of the process.
    pub exit_code: u8,
}

impl StartError {
    fn failed(message: impl Into<String>) -> Self {
        Self { message: message.into(), exit_code: 1 }
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for StartError {}

/// A broker that serves.
pub struct Server {
    address: SocketAddr,
    mtls_address: Option<SocketAddr>,
    scheme: &'static str,
    sockets: Vec<PathBuf>,
    broker: Broker,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Server {
    /// Opens the data, then the doors. When this resolves, connections are accepted.
    ///
    /// # Errors
    /// See [`StartError`]; nothing is left running.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        // Before the engine asks how many files it may open.
        let connections = handles::connections(config.raw.limits.connections);
        // First the doors, so that a port in use costs no recovery; nobody is let in before the broker is open.
        let certificates = match config.tls.clone() {
            Some(tls) => Some(Certificates::read(tls).await.map_err(|message| StartError { message, exit_code: 2 })?),
            None => None,
        };
        let gate = |wants| certificates.as_ref().map(|certificates| certificates.gate(wants));
        let main = Port::bind(&config.listen, "--listen", gate(Wants::Anybody)).await?;
        let mtls = match config.tls.as_ref().and_then(|tls| tls.clients.as_ref()?.listen.as_ref()) {
            Some(listen) => Some(Port::bind(listen, "--mtls-listen", gate(Wants::Certificates)).await?),
            None => None,
        };
        let broker = open(&config).await?;
        match Self::serve(&config, connections, (main, mtls), certificates, broker.clone()) {
            Ok(server) => Ok(server),
            Err(error) => {
                let _ = broker.close().await;
                Err(error)
            }
        }
    }

    fn serve(
        config: &Config,
        connections: u64,
        (main, mtls): (Port, Option<Port>),
        certificates: Option<Certificates>,
        broker: Broker,
    ) -> Result<Self, StartError> {
        let mut unix = Vec::new();
        for (index, path) in config.sockets.iter().enumerate() {
            match listen::bind_unix(path) {
                Ok(socket) => unix.push((socket, path.clone())),
                Err(why) if index == 0 => return Err(StartError::failed(why)),
                Err(why) => tracing::warn!("{why}"),
            }
        }
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let (address, mtls_address) = (main.address, mtls.as_ref().map(|port| port.address));
        let doors = Doors {
            trust_loopback: config.trust_loopback(),
            listen: Some(address),
            hosts: config.raw.http.hosts.clone(),
            origins: config.raw.http.origins.clone(),
        };
        let settings = edge::Settings {
            doors,
            dev: config.mode == Mode::Dev,
            metrics_for_operator_only: config.raw.metrics.names,
            message_max_bytes: config.raw.limits.message_bytes,
            ping_every: config.ping_every,
        };
        let edge = Edge::new(broker.clone(), settings, stop.clone(), tasks.clone());
        let most = &config.raw.limits;
        let door = listen::Door {
            edge,
            stop: stop.clone(),
            tasks: tasks.clone(),
            connections,
            strangers: Callers::new(most.connections_per_address, most.connections_per_address_silent),
            undrained: config.undrained,
        };
        let sockets = unix.iter().map(|(_, path)| path.clone()).collect();
        tasks.spawn(forget_old_rows(broker.clone(), stop.clone()));
        let scheme = if certificates.is_some() { "https" } else { "http" };
        if let Some(certificates) = certificates {
            tasks.spawn(certificates.keep_fresh(door.edge.stats().clone(), stop.clone()));
        }
        for Port { listener, gate, .. } in [Some(main), mtls].into_iter().flatten() {
            tasks.spawn(listen::tcp(door.clone(), listener, gate));
        }
        for (socket, path) in unix {
            tasks.spawn(listen::unix(door.clone(), socket, path));
        }
        Ok(Self { address, mtls_address, scheme, sockets, broker, stop, tasks })
    }

    /// Where TCP callers reach it.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where those reach it who must show a certificate.
    pub fn mtls_address(&self) -> Option<SocketAddr> {
        self.mtls_address
    }

    /// `http://HOST:PORT`, or `https://` with TLS.
    pub fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }

    /// The first Unix socket.
    pub fn socket(&self) -> &Path {
        self.sockets.first().map_or(Path::new(""), PathBuf::as_path)
    }

    /// All Unix sockets that could be had.
    pub fn sockets(&self) -> &[PathBuf] {
        &self.sockets
    }

    /// The broker behind the doors, for tests.
    pub fn broker(&self) -> &Broker {
        &self.broker
    }

    /// Resolves with the reason when the engine has failed. The server must not go on then (S-5).
    pub async fn failed(&self) -> String {
        self.broker.failed().await
    }

    /// After the engine has failed: callers get the answers that are on their way, for a second at most. Nothing is flushed (S-5).
    pub async fn abandon(self) {
        self.stop.cancel();
        self.broker.drain().await;
        self.tasks.close();
        let _ = tokio::time::timeout(Duration::from_secs(1), self.tasks.wait()).await;
        // The commit thread lets go of the engine: its own threads must not run into the end of the process.
        self.broker.abandon().await;
    }

    /// Not ready → no new connections → open ones end (WebSockets with 1001) → flush.
    ///
    /// # Errors
    /// When the flush failed; what was acknowledged is safe all the same.
    pub async fn stop(self) -> Result<(), String> {
        self.stop.cancel();
        self.broker.drain().await;
        self.tasks.close();
        if tokio::time::timeout(DRAIN, self.tasks.wait()).await.is_err() {
            tracing::warn!("{} connections did not end in {} s and are cut off", self.tasks.len(), DRAIN.as_secs());
        }
        self.broker.close().await.map_err(|e| e.message.clone())
    }
}

/// A bound TCP listener.
struct Port {
    listener: TcpListener,
    address: SocketAddr,
    gate: Option<Gate>,
}

impl Port {
    async fn bind(listen: &str, flag: &str, gate: Option<Gate>) -> Result<Self, StartError> {
        let refuse = |e| StartError::failed(format!("Cannot listen on {listen}: {e}. Choose another address with {flag} HOST:PORT."));
        let listener = TcpListener::bind(listen).await.map_err(refuse)?;
        let address = listener.local_addr().map_err(|e| StartError::failed(format!("The listener has no address: {e}.")))?;
        Ok(Self { listener, address, gate })
    }
}

/// Finished operations and idempotency keys are kept for a day, sessions and tickets until they are over; then their rows go.
async fn forget_old_rows(broker: Broker, stop: CancellationToken) {
    loop {
        let horizon = TimeUs(TimeUs::now().0 - limits::OPERATION_KEPT.as_micros() as i64);
        if let Err(error) = broker.forget_operations(horizon).await {
            tracing::warn!(%error, "old operations could not be forgotten; trying again in an hour");
        }
        if let Err(error) = broker.forget_keys(TimeUs::now()).await {
            tracing::warn!(%error, "old idempotency keys could not be forgotten; trying again in an hour");
        }
        if let Err(error) = broker.forget_tokens(TimeUs::now()).await {
            tracing::warn!(%error, "sessions and tickets that are over could not be forgotten; trying again in an hour");
        }
        if let Err(error) = broker.finish_deletions_of_users().await {
            tracing::warn!(%error, "users that are being deleted are still there; trying again in an hour");
        }
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(3600)) => {}
            () = stop.cancelled() => return,
        }
    }
}

async fn open(config: &Config) -> Result<Broker, StartError> {
    let engine: Arc<dyn Engine> = match config.storage {
        Storage::Memory => Arc::new(Memory::new()),
        Storage::Rocks => {
            make_dir(&config.data)?;
            let storage = &config.raw.storage;
            let mut options = RocksOptions::new(&config.data);
            options.cache_bytes = storage.cache_bytes;
            options.write_buffer_bytes = storage.write_buffer_bytes;
            options.free_min_bytes = storage.free_min_bytes;
            options.ballast_bytes = storage.ballast_bytes.unwrap_or(options.ballast_bytes);
            options.direct_io = storage.direct_io;
            options.accept_loss = config.accept_data_loss;
            let opened = tokio::task::spawn_blocking(move || Rocks::open(options)).await;
            let opened = opened.map_err(|e| StartError { message: format!("The storage engine did not open: {e}."), exit_code: 10 })?;
            Arc::new(opened.map_err(|e| StartError { message: e.to_string(), exit_code: e.exit_code() })?)
        }
    };
    let settings = broker::Settings {
        create_streams_on_use: config.mode == Mode::Dev,
        tail_bytes: config.raw.broker.tail_bytes,
        hot_entries: config.raw.broker.hot_entries,
        quotas: config.quotas(),
        broken: broker::Broken::from_env().map_err(|message| StartError { message, exit_code: 2 })?,
    };
    Broker::open(engine, settings).await.map_err(|e| StartError { message: e.message.clone(), exit_code: 10 })
}

/// The data directory, for this user only.
fn make_dir(path: &Path) -> Result<(), StartError> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|e| StartError::failed(format!("The data directory {} cannot be made: {e}. Choose another with --data DIR.", path.display())))
}
