//! Settings: defaults < TOML file < environment `TIDELOG_<SECTION>__<KEY>` < flags (`design.md` section 7).
//!
//! Only [`Raw`] is full of `Option`; [`Config`] is what was meant. An unknown key refuses to start: a misspelt limit is no limit.

use std::path::{Path, PathBuf};
use std::time::Duration;

use figment::providers::{Format as _, Serialized, Toml};
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};
use serde::{Deserialize, Serialize};

use crate::broker::{Quotas, Rate};
use crate::types::limits;
use crate::types::name::clipped;

/// Where the broker listens unless told otherwise.
pub const DEFAULT_LISTEN: &str = "127.0.0.1:4080";

/// Settings as they are written down.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Raw {
    /// Where things are.
    pub server: RawServer,
    /// Certificates, ours and those of callers.
    pub tls: RawTls,
    /// Who may call over TCP.
    pub http: RawHttp,
    /// The storage engine.
    pub storage: RawStorage,
    /// What the rules keep in memory.
    pub broker: RawBroker,
    /// `/metrics`.
    pub metrics: RawMetrics,
    /// Bounds.
    pub limits: RawLimits,
    /// How fast one user may go.
    pub rates: RawRates,
    /// What is said on stderr.
    pub log: RawLog,
}

/// Section `server`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct RawServer {
    /// `HOST:PORT`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<String>,
    /// The data directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<PathBuf>,
    /// The Unix socket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub socket: Option<PathBuf>,
}

/// Section `tls`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct RawTls {
    /// PEM: our certificate, and those between it and the authority that clients know.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cert: Option<PathBuf>,
    /// PEM: the key of our certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
    /// PEM: the authorities whose certificates callers may show.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_ca: Option<PathBuf>,
    /// `HOST:PORT` of a second listener, at which callers must show one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtls_listen: Option<String>,
}

/// Section `http`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct RawHttp {
    /// Further names this broker answers to.
    pub hosts: Vec<String>,
    /// Further origins whose pages may call.
    pub origins: Vec<String>,
}

/// Section `storage`.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct RawStorage {
    /// Bytes of the block cache.
    pub cache_bytes: usize,
    /// Bytes of all memtables together.
    pub write_buffer_bytes: usize,
    /// Free bytes of the file system below which appends are refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub free_min_bytes: Option<u64>,
    /// Bytes of the file that is given up when the disk is as good as full.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ballast_bytes: Option<u64>,
    /// Flush and compact past the page cache.
    pub direct_io: bool,
}

impl Default for RawStorage {
    fn default() -> Self {
        Self { cache_bytes: 256 << 20, write_buffer_bytes: 256 << 20, free_min_bytes: None, ballast_bytes: None, direct_io: false }
    }
}

/// Section `broker`.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct RawBroker {
    /// Bytes of recent batches kept for followers.
    pub tail_bytes: usize,
    /// Streams, producers and cursors kept, each.
    pub hot_entries: usize,
}

impl Default for RawBroker {
    fn default() -> Self {
        let broker = crate::broker::Settings::default();
        Self { tail_bytes: broker.tail_bytes, hot_entries: broker.hot_entries }
    }
}

/// Section `metrics`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct RawMetrics {
    /// `/metrics` may name streams, and needs the operator.
    pub names: bool,
}

/// Section `limits`.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct RawLimits {
    /// Open TCP connections.
    pub connections: u64,
    /// Of one address, before it has shown who it is.
    pub connections_per_address: u64,
    /// Of these, without a request so far.
    pub connections_per_address_silent: u64,
    /// Largest body or message.
    pub message_bytes: usize,
    /// Of one user, once it has shown a credential. 0 = no limit; also below.
    pub connections_per_user: u64,
    /// Reads and pulls of one user that wait for events.
    pub long_polls_per_user: u64,
    /// That one user owns.
    pub streams_per_user: u64,
    /// That one user made.
    pub subscriptions_per_user: u64,
    /// That one user opened first.
    pub producers_per_user: u64,
}

impl Default for RawLimits {
    fn default() -> Self {
        Self {
            connections: limits::CONNECTIONS as u64,
            connections_per_address: limits::CONNECTIONS_PER_ADDRESS as u64,
            connections_per_address_silent: limits::CONNECTIONS_PER_ADDRESS_SILENT as u64,
            message_bytes: limits::MESSAGE_MAX_BYTES,
            connections_per_user: limits::CONNECTIONS_PER_USER,
            long_polls_per_user: limits::LONG_POLLS_PER_USER,
            streams_per_user: limits::STREAMS_PER_USER,
            subscriptions_per_user: limits::SUBSCRIPTIONS_PER_USER,
            producers_per_user: limits::PRODUCERS_PER_USER,
        }
    }
}

/// Section `rates`: of one user, all its keys and sources together.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct RawRates {
    /// Requests per second. 0 = no limit.
    pub requests_per_s: u64,
    /// Requests at once after a pause.
    pub requests_burst: u64,
    /// Bytes of bodies, messages and appends per second, and at once. 0 = no limit.
    pub bytes_per_s: u64,
    /// The calls that move events have these rates too.
    pub data: bool,
}

impl Default for RawRates {
    fn default() -> Self {
        Self { requests_per_s: limits::REQUESTS_PER_SECOND, requests_burst: limits::REQUESTS_BURST, bytes_per_s: limits::BYTES_PER_SECOND, data: false }
    }
}

/// Section `log`.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct RawLog {
    /// Directives such as `info` or `tidelog=debug`; `RUST_LOG` wins.
    pub level: String,
    /// `auto`, `text` or `json`.
    pub format: LogFormat,
}

impl Default for RawLog {
    fn default() -> Self {
        Self { level: "info".into(), format: LogFormat::Auto }
    }
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    #[default]
    Auto,
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// What the command line says; it wins.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Flags {
    /// `--config`
    pub config: Option<PathBuf>,
    /// `--data`
    pub data: Option<PathBuf>,
    /// `--listen`
    pub listen: Option<String>,
    /// `--socket`
    pub socket: Option<PathBuf>,
    /// `--tls-cert`, `--tls-key`, `--client-ca`, `--mtls-listen`
    pub tls: RawTls,
    /// `--accept-data-loss`
    pub accept_data_loss: bool,
}

/// Under which rules the broker runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// `tidelog serve`.
    Serve {
        /// `--insecure-operator-on-loopback`
        trust_loopback: bool,
    },
    /// `tidelog dev`.
    Dev,
}

/// Where events are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storage {
    /// On disk.
    Rocks,
    /// Nowhere: for tests.
    Memory,
}

/// With TLS the TCP listener speaks nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// PEM: our certificate and those above it.
    pub cert: PathBuf,
    /// PEM: its key.
    pub key: PathBuf,
    /// Whether callers may show certificates, and of whom.
    pub clients: Option<TlsClients>,
}

/// Callers may show certificates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsClients {
    /// PEM: the authorities whose certificates count.
    pub ca: PathBuf,
    /// `HOST:PORT` of a second listener, at which callers must show one; port 0 = any.
    pub listen: Option<String>,
}

/// Resolved settings.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Rules of the house.
    pub mode: Mode,
    /// Where events are kept.
    pub storage: Storage,
    /// `HOST:PORT` of the TCP listener; port 0 = any.
    pub listen: String,
    /// TLS, or plain TCP.
    pub tls: Option<Tls>,
    /// The data directory.
    pub data: PathBuf,
    /// Unix sockets. The first must be had; the others are welcome (`dev` also listens where the CLI looks).
    pub sockets: Vec<PathBuf>,
    /// Open although acknowledged events are lost.
    pub accept_data_loss: bool,
    /// How long a socket may take nothing while bytes wait for it. Tests shorten it.
    pub undrained: Duration,
    /// How often a silent event stream says that it is alive. Tests shorten it.
    pub ping_every: Duration,
    /// The rest, as it was written.
    pub raw: Raw,
}

impl Config {
    /// Reads all sources.
    ///
    /// # Errors
    /// A sentence for the operator: which key, where, and what it may be.
    pub fn load(mode: Mode, flags: Flags) -> Result<Self, String> {
        Self::load_from(mode, flags, std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?))))
    }

    /// [`Config::load`] with another environment than the process's own.
    ///
    /// # Errors
    /// As [`Config::load`].
    #[doc(hidden)]
    pub fn load_from(mode: Mode, flags: Flags, environment: impl Iterator<Item = (String, String)>) -> Result<Self, String> {
        let mut sources = Figment::from(Serialized::defaults(Raw::default()));
        if let Some(file) = &flags.config {
            if !file.is_file() {
                return Err(format!("The settings file {} is not there.", file.display()));
            }
            sources = sources.merge(Toml::file_exact(file));
        }
        for variable in environment.filter_map(Variable::of) {
            sources = sources.merge(variable);
        }
        let raw: Raw = sources.extract().map_err(|error| said(&error))?;
        Self::resolve(mode, raw, flags)
    }

    fn resolve(mode: Mode, raw: Raw, flags: Flags) -> Result<Self, String> {
        let data = match (flags.data.or(raw.server.data.clone()), mode) {
            (Some(data), _) => data,
            (None, Mode::Serve { .. }) => default_data_dir()?,
            (None, Mode::Dev) => return Err("tidelog dev has no data directory; this is a mistake of ours.".into()),
        };
        let mut sockets = vec![flags.socket.or(raw.server.socket.clone()).unwrap_or_else(|| data.join("tidelog.sock"))];
        if mode == Mode::Dev {
            sockets.push(dev_socket());
        }
        if raw.limits.message_bytes == 0 || raw.limits.message_bytes > limits::MESSAGE_MAX_BYTES {
            return Err(format!("Setting limits.message_bytes is {}; it must be from 1 to {}.", raw.limits.message_bytes, limits::MESSAGE_MAX_BYTES));
        }
        let tls = tls(RawTls {
            cert: flags.tls.cert.or(raw.tls.cert.clone()),
            key: flags.tls.key.or(raw.tls.key.clone()),
            client_ca: flags.tls.client_ca.or(raw.tls.client_ca.clone()),
            mtls_listen: flags.tls.mtls_listen.or(raw.tls.mtls_listen.clone()),
        })?;
        Ok(Self {
            mode,
            storage: Storage::Rocks,
            tls,
            listen: flags.listen.or(raw.server.listen.clone()).unwrap_or_else(|| DEFAULT_LISTEN.into()),
            data,
            sockets,
            accept_data_loss: flags.accept_data_loss,
            undrained: limits::SOCKET_UNDRAINED,
            ping_every: limits::PING_EVERY,
            raw,
        })
    }

    /// For tests in one process: memory only, any port, a socket in `dir`.
    pub fn for_tests(mode: Mode, dir: &Path) -> Self {
        Self {
            mode,
            storage: Storage::Memory,
            listen: "127.0.0.1:0".into(),
            tls: None,
            data: dir.to_owned(),
            sockets: vec![dir.join("tidelog.sock")],
            accept_data_loss: false,
            undrained: limits::SOCKET_UNDRAINED,
            ping_every: limits::PING_EVERY,
            raw: Raw::default(),
        }
    }

    /// How much each user may have and do.
    pub fn quotas(&self) -> Quotas {
        let (most, rates) = (&self.raw.limits, &self.raw.rates);
        Quotas {
            connections: most.connections_per_user,
            long_polls: most.long_polls_per_user,
            streams: most.streams_per_user,
            subscriptions: most.subscriptions_per_user,
            producers: most.producers_per_user,
            requests: Rate { per_s: rates.requests_per_s, burst: rates.requests_burst },
            bytes: Rate { per_s: rates.bytes_per_s, burst: rates.bytes_per_s },
            data_rates: rates.data,
        }
    }

    /// Loopback callers are the operator.
    pub fn trust_loopback(&self) -> bool {
        matches!(self.mode, Mode::Dev | Mode::Serve { trust_loopback: true })
    }
}

/// Half of it is a mistake: whoever asked for TLS must not be served without.
fn tls(raw: RawTls) -> Result<Option<Tls>, String> {
    const CERT: &str = "--tls-cert FILE (setting tls.cert)";
    const KEY: &str = "--tls-key FILE (setting tls.key)";
    const CA: &str = "--client-ca FILE (setting tls.client_ca)";
    const LISTEN: &str = "--mtls-listen HOST:PORT (setting tls.mtls_listen)";
    let half = |given: &str, missing: &str| Err(format!("TLS is set up by half: {given} is given and {missing} is not. Give both, or neither."));
    match raw {
        RawTls { cert: Some(cert), key: Some(key), client_ca: Some(ca), mtls_listen: listen } => {
            Ok(Some(Tls { cert, key, clients: Some(TlsClients { ca, listen }) }))
        }
        RawTls { client_ca: None, mtls_listen: Some(_), .. } => half(LISTEN, CA),
        RawTls { cert: Some(cert), key: Some(key), client_ca: None, mtls_listen: None } => Ok(Some(Tls { cert, key, clients: None })),
        RawTls { cert: Some(_), key: None, .. } => half(CERT, KEY),
        RawTls { cert: None, key: Some(_), .. } => half(KEY, CERT),
        RawTls { cert: None, key: None, client_ca: Some(_), .. } => half(CA, CERT),
        RawTls { cert: None, key: None, client_ca: None, mtls_listen: None } => Ok(None),
    }
}

/// One setting from the environment. The library's own reader takes the process's variables only, which tests cannot change safely.
struct Variable {
    name: String,
    key: String,
    text: String,
}

/// Deepest nesting of a variable's name or value: no setting is deeper than a list in a section, and the library recurses.
const VARIABLE_DEPTH: usize = 8;

impl Variable {
    /// Variables without a section (`TIDELOG_URL`, `TIDELOG_KEY`, `TIDELOG_SOCKET`) are the client's.
    fn of((name, text): (String, String)) -> Option<Self> {
        let key = name.strip_prefix("TIDELOG_")?;
        if !key.contains("__") {
            return None;
        }
        let key = key.to_ascii_lowercase().replace("__", ".");
        Some(Self { name, key, text })
    }

    fn nested(&self) -> Result<Dict, String> {
        // The library takes an empty part for the end of the name, and would pass over the rest.
        if self.key.split('.').any(str::is_empty) {
            return Err("its name has an empty part; write TIDELOG_<SECTION>__<KEY>".into());
        }
        let brackets = self.text.bytes().filter(|b| matches!(b, b'[' | b'{')).count();
        if brackets > VARIABLE_DEPTH || self.key.split('.').count() > VARIABLE_DEPTH {
            return Err(format!("it nests deeper than {VARIABLE_DEPTH}"));
        }
        let Ok(value) = self.text.parse::<Value>();
        Ok(figment::util::nest(&self.key, value).into_dict().unwrap_or_default())
    }
}

impl Provider for Variable {
    fn metadata(&self) -> Metadata {
        Metadata::named(format!("environment variable {}", clipped(&self.name, 100)))
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        let nested = self.nested().map_err(|why| figment::Error::from(format!("{} cannot be read: {why}", clipped(&self.name, 100))))?;
        Ok(Map::from([(Profile::Default, nested)]))
    }
}

/// A figment error as a sentence.
fn said(error: &figment::Error) -> String {
    let key = error.path.join(".");
    let from = error.metadata.as_ref().map_or_else(String::new, |m| match &m.source {
        Some(source) => format!(" in {source}"),
        None => format!(" in {}", m.name),
    });
    let key = if key.is_empty() { String::new() } else { format!(" at `{key}`") };
    format!("The settings{}{from} cannot be used: {}.", clipped(&key, 100), clipped(&error.kind.to_string(), 600))
}

/// Where data lives unless said otherwise (`decisions.md` section 5).
///
/// # Errors
/// When there is no home directory.
pub fn default_data_dir() -> Result<PathBuf, String> {
    if rustix::process::geteuid().is_root() {
        return Ok("/var/lib/tidelog".into());
    }
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    absolute("XDG_STATE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local/state")))
        .map(|state| state.join("tidelog"))
        .ok_or_else(|| "There is no home directory to keep data in; say where with --data DIR.".into())
}

/// Where `dev` also listens, and the CLI looks.
pub fn dev_socket() -> PathBuf {
    let folder = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|p| p.is_absolute()).unwrap_or_else(std::env::temp_dir);
    folder.join("tidelog-dev.sock")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVE: Mode = Mode::Serve { trust_loopback: false };

    fn load(flags: Flags, environment: &[(&str, &str)]) -> Result<Config, String> {
        let environment = environment.iter().map(|(k, v)| (k.to_string(), v.to_string()));
        Config::load_from(SERVE, Flags { data: Some("d".into()), ..flags }, environment)
    }

    fn file(text: &str) -> (tempfile::TempDir, Flags) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.toml");
        std::fs::write(&path, text).unwrap();
        (dir, Flags { config: Some(path), ..Flags::default() })
    }

    #[test]
    fn flags_beat_the_environment_which_beats_the_file_which_beats_the_defaults() {
        let (_dir, flags) = file("[server]\nlisten = \"file:1\"\n[storage]\ncache_bytes = 1\nwrite_buffer_bytes = 1\n[http]\nhosts = [\"a\"]\n");
        let environment = [
            ("TIDELOG_STORAGE__CACHE_BYTES", "2"),
            ("TIDELOG_SERVER__LISTEN", "127.0.0.1:2"),
            ("TIDELOG_HTTP__ORIGINS", "[\"https://a.example\"]"),
            ("TIDELOG_URL", "http://elsewhere"),
            ("PATH", "/bin"),
        ];
        let config = load(flags.clone(), &environment).unwrap();
        assert_eq!((config.listen.as_str(), config.raw.storage.cache_bytes, config.raw.storage.write_buffer_bytes), ("127.0.0.1:2", 2, 1));
        assert_eq!((&config.raw.http.hosts[..], &config.raw.http.origins[..]), (&["a".to_owned()][..], &["https://a.example".to_owned()][..]));
        let config = load(Flags { listen: Some("flag:3".into()), ..flags }, &environment).unwrap();
        assert_eq!(config.listen, "flag:3");
    }

    #[test]
    fn without_any_source_the_defaults_hold() {
        let config = load(Flags::default(), &[]).unwrap();
        assert_eq!(config.listen, "127.0.0.1:4080");
        assert_eq!(config.sockets, [PathBuf::from("d/tidelog.sock")]);
        assert_eq!(config.raw, Raw::default());
    }

    #[test]
    fn an_unknown_key_refuses_to_start_and_says_where_it_is() {
        let (_dir, flags) = file("[limits]\nconections = 5\n");
        let error = load(flags, &[]).unwrap_err();
        assert!(error.contains("conections") && error.contains("t.toml"), "{error}");
        let error = load(Flags::default(), &[("TIDELOG_STORAGE__CASH_BYTES", "2")]).unwrap_err();
        assert!(error.contains("cash_bytes") && error.contains("TIDELOG_STORAGE__CASH_BYTES"), "{error}");
        assert!(load(Flags::default(), &[("TIDELOG_STORE__CACHE_BYTES", "2")]).is_err());
    }

    #[test]
    fn a_variable_with_an_empty_part_or_deep_nesting_refuses_to_start() {
        for (name, text) in [("TIDELOG___STORAGE__CACHE_BYTES", "2"), ("TIDELOG_STORAGE____CACHE_BYTES", "2"), ("TIDELOG_STORAGE__", "2")] {
            let error = load(Flags::default(), &[(name, text)]).unwrap_err();
            assert!(error.contains(name) && error.contains("empty part"), "{error}");
        }
        let deep = ("TIDELOG_HTTP__HOSTS", &*"[".repeat(100_000));
        assert!(load(Flags::default(), &[deep]).unwrap_err().contains("nests deeper"), "and does not overflow the stack");
        let long = format!("TIDELOG_HTTP{}", "__A".repeat(50_000));
        assert!(load(Flags::default(), &[(&long, "1")]).unwrap_err().contains("nests deeper"));
    }

    #[test]
    fn tls_is_whole_or_not_at_all() {
        let with = |cert: Option<&str>, key: Option<&str>, ca: Option<&str>, listen: Option<&str>| {
            let tls = RawTls { cert: cert.map(Into::into), key: key.map(Into::into), client_ca: ca.map(Into::into), mtls_listen: listen.map(Into::into) };
            load(Flags { tls, ..Flags::default() }, &[]).map(|config| config.tls)
        };
        assert_eq!(with(None, None, None, None), Ok(None));
        let (cert, key) = (PathBuf::from("c"), PathBuf::from("k"));
        assert_eq!(with(Some("c"), Some("k"), None, None), Ok(Some(Tls { cert: cert.clone(), key: key.clone(), clients: None })));
        let clients = |listen: Option<&str>| Some(TlsClients { ca: "a".into(), listen: listen.map(Into::into) });
        assert_eq!(with(Some("c"), Some("k"), Some("a"), None), Ok(Some(Tls { cert: cert.clone(), key: key.clone(), clients: clients(None) })));
        assert_eq!(with(Some("c"), Some("k"), Some("a"), Some("h:1")), Ok(Some(Tls { cert, key, clients: clients(Some("h:1")) })));
        for (cert, key, ca, listen, missing) in [
            (Some("c"), None, None, None, "tls.key"),
            (Some("c"), None, Some("a"), Some("h:1"), "tls.key"),
            (None, Some("k"), None, None, "tls.cert"),
            (None, None, Some("a"), None, "tls.cert"),
            (None, None, Some("a"), Some("h:1"), "tls.cert"),
            (None, None, None, Some("h:1"), "tls.client_ca"),
            (Some("c"), Some("k"), None, Some("h:1"), "tls.client_ca"),
        ] {
            let error = with(cert, key, ca, listen).unwrap_err();
            assert!(error.contains("by half") && error.contains(missing), "{error}");
        }
        let environment = [("TIDELOG_TLS__CERT", "e"), ("TIDELOG_TLS__KEY", "k")];
        assert_eq!(load(Flags::default(), &environment).unwrap().tls, Some(Tls { cert: "e".into(), key: "k".into(), clients: None }));
        let flags = Flags { tls: RawTls { cert: Some("f".into()), ..RawTls::default() }, ..Flags::default() };
        assert_eq!(load(flags, &environment).unwrap().tls.unwrap().cert, PathBuf::from("f"), "flags win");
    }

    #[test]
    fn a_wrong_type_a_missing_file_and_a_limit_out_of_range_are_sentences() {
        let error = load(Flags { config: Some("none.toml".into()), ..Flags::default() }, &[]).unwrap_err();
        assert!(error.contains("none.toml"), "{error}");
        let error = load(Flags::default(), &[("TIDELOG_LIMITS__CONNECTIONS", "many")]).unwrap_err();
        assert!(error.contains("limits.connections"), "{error}");
        assert!(load(Flags::default(), &[("TIDELOG_LIMITS__MESSAGE_BYTES", "999999999")]).unwrap_err().contains("limits.message_bytes"));
    }
}
