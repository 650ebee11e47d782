//! `tidelog serve` and `tidelog dev`: from flags to a running broker, from a signal to exit 0.

use std::io::Write as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use crate::server::config::RawTls;
use crate::server::{Config, Flags, Mode, Server, StartError, telemetry};

/// Usage or settings that make no sense.
const USAGE: u8 = 2;
/// The storage engine failed while serving (`decisions.md` section 5).
const ENGINE_FAILED: u8 = 10;

/// After so many tasks a busy thread looks at its sockets. Each may work for [`limits::TURN`](crate::types::limits::TURN): four milliseconds in all,
/// and fifteen with the 61 that the runtime would take.
const EVENT_INTERVAL: u32 = 16;

/// Flags of `tidelog serve`.
#[derive(Args, Clone, Debug, Default)]
pub struct ServeArgs {
    /// Settings in TOML; the environment (TIDELOG_<SECTION>__<KEY>) and flags win over it
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Data directory [default: $XDG_STATE_HOME/tidelog, /var/lib/tidelog for root]
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Address to listen on [default: 127.0.0.1:4080]
    #[arg(long, value_name = "HOST:PORT")]
    pub listen: Option<String>,
    /// Unix socket; its callers are the operator [default: <data>/tidelog.sock]
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    #[command(flatten)]
    pub tls: TlsArgs,
    /// Let every program on this machine act as the operator over TCP
    #[arg(long)]
    pub insecure_operator_on_loopback: bool,
    /// Serve what is left of damaged data: acknowledged events may be gone, and every reader is told by a new log epoch
    #[arg(long)]
    pub accept_data_loss: bool,
}

/// Flags about certificates. All files are PEM, and are read again when they change and on SIGHUP.
#[derive(Args, Clone, Debug, Default)]
pub struct TlsArgs {
    /// Speak TLS, and only TLS, with this certificate
    #[arg(long, value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,
    /// Key of the certificate
    #[arg(long, value_name = "FILE")]
    pub tls_key: Option<PathBuf>,
    /// Know callers by certificates of this authority: `user-<name>` is that user
    #[arg(long, value_name = "FILE")]
    pub client_ca: Option<PathBuf>,
    /// Listen here too, for callers with such a certificate only
    #[arg(long, value_name = "HOST:PORT")]
    pub mtls_listen: Option<String>,
}

impl From<TlsArgs> for RawTls {
    fn from(args: TlsArgs) -> Self {
        Self { cert: args.tls_cert, key: args.tls_key, client_ca: args.client_ca, mtls_listen: args.mtls_listen }
    }
}

/// Flags of `tidelog dev`.
#[derive(Args, Clone, Debug, Default)]
pub struct DevArgs {
    /// Settings in TOML; the environment (TIDELOG_<SECTION>__<KEY>) and flags win over it
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Keep the data here; without it the data is temporary
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Address to listen on [default: 127.0.0.1:4080]
    #[arg(long, value_name = "HOST:PORT")]
    pub listen: Option<String>,
    /// Unix socket [default: <data>/tidelog.sock]
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
}

/// Runs `tidelog serve` to its end and returns the exit code of the process.
pub fn run(args: ServeArgs) -> u8 {
    let mode = Mode::Serve { trust_loopback: args.insecure_operator_on_loopback };
    let flags =
        Flags { config: args.config, data: args.data, listen: args.listen, socket: args.socket, tls: args.tls.into(), accept_data_loss: args.accept_data_loss };
    serve(mode, flags, |_| {})
}

/// Runs `tidelog dev` to its end and returns the exit code of the process.
pub fn run_dev(args: DevArgs) -> u8 {
    let temporary = match &args.data {
        Some(_) => None,
        None => match Temporary::make() {
            Ok(dir) => Some(dir),
            Err(error) => return refuse(&StartError { message: format!("No temporary data directory can be made: {error}."), exit_code: 1 }),
        },
    };
    let data = args.data.clone().or_else(|| temporary.as_ref().map(|t| t.0.clone()));
    let flags = Flags { config: args.config, data: data.clone(), listen: args.listen, socket: args.socket, ..Flags::default() };
    let gone = temporary.is_some();
    serve(Mode::Dev, flags, move |server| guide(server, data.as_deref().unwrap_or(Path::new("")), gone))
}

fn serve(mode: Mode, flags: Flags, say: impl FnOnce(&Server)) -> u8 {
    let config = match Config::load(mode, flags) {
        Ok(config) => config,
        Err(message) => return refuse(&StartError { message, exit_code: USAGE }),
    };
    if let Err(message) = telemetry::start(&config.raw.log) {
        return refuse(&StartError { message, exit_code: USAGE });
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().event_interval(EVENT_INTERVAL).build() {
        Ok(runtime) => runtime,
        Err(error) => return refuse(&StartError { message: format!("No runtime could be started: {error}."), exit_code: 1 }),
    };
    let code = runtime.block_on(until_signal(config, say));
    // A connection that was cut off must not hold the process.
    runtime.shutdown_background();
    code
}

async fn until_signal(config: Config, say: impl FnOnce(&Server)) -> u8 {
    // Before anything is opened, so that no signal falls between.
    let signals = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
    let (Ok(mut terminate), Ok(mut interrupt)) = signals else {
        return refuse(&StartError { message: "Signals cannot be handled here.".into(), exit_code: 1 });
    };
    let starting = async {
        tokio::select! {
            started = Server::start(config) => Some(started),
            _ = terminate.recv() => None,
            _ = interrupt.recv() => None,
        }
    };
    let server = match starting.await {
        None => return 0,
        Some(Err(error)) => return refuse(&error),
        Some(Ok(server)) => server,
    };
    // The line that scripts wait for; nobody reading it is no reason to stop.
    let _ = writeln!(std::io::stdout(), "ready {}", server.url()).and_then(|()| std::io::stdout().flush());
    say(&server);
    let mtls = server.mtls_address().map(tracing::field::display);
    tracing::info!(url = server.url(), mtls, socket = %server.socket().display(), "serving");
    tokio::select! {
        reason = server.failed() => {
            complain(format_args!("the storage engine failed and the broker stops: {reason}. Start it again; see the log above."));
            server.abandon().await;
            return ENGINE_FAILED;
        }
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("stopping; a second signal ends it at once");
    tokio::select! {
        stopped = server.stop() => match stopped {
            Ok(()) => 0,
            Err(why) => {
                complain(format_args!("the broker stopped, but its last flush failed: {why}. What was acknowledged is in the log."));
                1
            }
        },
        _ = terminate.recv() => 1,
        _ = interrupt.recv() => 1,
    }
}

fn refuse(error: &StartError) -> u8 {
    complain(format_args!("{error}"));
    error.exit_code
}

/// On stderr if it can be written: it may be a file on the disk that is full, and the exit code counts more than the words.
fn complain(what: std::fmt::Arguments<'_>) {
    let _ = writeln!(std::io::stderr(), "tidelog: {what}");
}

/// What to type next.
fn guide(server: &Server, data: &Path, temporary: bool) {
    let binary = std::env::current_exe().map_or_else(|_| "tidelog".to_owned(), |path| path.display().to_string());
    let url = server.url();
    // The other commands look at the dev socket; where another broker has it, they must be told.
    let there = if server.sockets().len() > 1 { String::new() } else { format!(" --url {url}") };
    let kept = if temporary { "gone when it stops" } else { "kept" };
    let text = format!(
        "\nTidelog is running. Data is in {} ({kept}). Callers on this machine may do everything.\n\
         In another terminal, follow a stream:\n\n    {binary} sub orders{there}\n\n\
         In a third, push to it (it is created on first use):\n\n    {binary} pub orders 'hello'{there}\n    \
         curl -H 'Content-Type: text/plain' -d 'hello from curl' {url}/v1/streams/orders/events\n\n\
         Ctrl-C stops the broker.\n\n",
        std::path::absolute(data).unwrap_or_else(|_| data.to_owned()).display()
    );
    let _ = std::io::stdout().write_all(text.as_bytes()).and_then(|()| std::io::stdout().flush());
}

/// A directory for this user only that goes with the process.
struct Temporary(PathBuf);

impl Temporary {
    fn make() -> std::io::Result<Self> {
        let path = std::env::temp_dir().join(format!("tidelog-dev-{:016x}", rand::random::<u64>()));
        std::fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
