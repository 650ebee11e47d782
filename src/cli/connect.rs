//! Which broker the command speaks to (`decisions.md` section 5): `--socket`, `--url`, `--remote`, the environment, the remote in use, the
//! socket of the default data directory, the socket of `tidelog dev`, then 127.0.0.1:4080. And with which key: one goes to its broker only.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use super::failure::{Failure, Outcome};
use super::kept;
use super::remote::{LOCAL, Remote, Remotes};
use crate::client::{Client, DEFAULT_PORT, Endpoint, Protocol, Tls};

/// Options of every command that speaks to a broker.
#[derive(Clone, Debug, Default, Args)]
pub struct Connect {
    /// Unix socket of the broker [env: TIDELOG_SOCKET]
    #[arg(long, global = true, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Address of the broker, such as http://127.0.0.1:4080 or https://broker:4080 [env: TIDELOG_URL]
    #[arg(long, global = true, value_name = "URL")]
    pub url: Option<String>,
    /// Broker that has a name, see `tidelog remote` [env: TIDELOG_REMOTE]
    #[arg(long, global = true, value_name = "NAME")]
    pub remote: Option<String>,
    /// File that holds the key [env: TIDELOG_KEY holds the key itself]
    #[arg(long, global = true, value_name = "FILE")]
    pub key_file: Option<PathBuf>,
    /// Believe the authorities in this file (PEM) instead of the system's [env: TIDELOG_CA_FILE]
    #[arg(long, global = true, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
    /// Certificate (PEM) by which the broker knows you [env: TIDELOG_CERT_FILE]
    #[arg(long, global = true, value_name = "FILE")]
    pub cert_file: Option<PathBuf>,
    /// Key of the certificate (PEM) [env: TIDELOG_CERT_KEY_FILE]
    #[arg(long, global = true, value_name = "FILE")]
    pub cert_key_file: Option<PathBuf>,
    /// Print NDJSON on stdout
    #[arg(long, global = true)]
    pub json: bool,
    /// How frames travel
    #[arg(long, global = true, value_enum, default_value_t, hide = true)]
    pub wire: WireArg,
    /// Say more on stderr (twice: everything)
    #[arg(long, short, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

/// [`Protocol`] as a word.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub enum WireArg {
    /// Protobuf.
    #[default]
    Binary,
    /// JSON text.
    Json,
}

/// The broker that was meant, and how to speak to it.
pub struct Meant {
    /// With the address, and the credential if there is one.
    pub client: Client,
    /// The name by which it was found; none where an address was given.
    pub remote: Option<String>,
    /// A credential that is used before a session that `login` leaves, in words.
    pub first: Option<String>,
}

impl Connect {
    /// A client for the broker that was meant. `session_first`: a kept session comes before keys that were not given with this call.
    pub fn meant(&self, session_first: bool) -> Outcome<Meant> {
        let env = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let root = rustix::process::geteuid().is_root();
        let live = |path: &Path| std::os::unix::net::UnixStream::connect(path).is_ok();
        let (endpoint, remote) = self.discover(env, root, live, || Remotes::load(env))?;
        tracing::debug!(remote = remote.as_ref().map(|remote| &*remote.name), "speaking to {endpoint}");
        let read = |path: &Path| -> Outcome<String> {
            let text = std::fs::read_to_string(path).map_err(|e| Failure::Usage(format!("The key file {} cannot be read: {e}.", path.display())))?;
            Ok(text.trim().to_owned())
        };
        let (tls, certified) = self.tls(&endpoint, remote.as_ref(), env)?;
        // A session would beat the certificate, and nobody would know why.
        let session = || if certified { None } else { Some(std::fs::read_to_string(kept::session_file(&endpoint, env)?).ok()?.trim().to_owned()) };
        let key_file = remote.as_ref().and_then(|remote| remote.key_file.as_deref());
        let of_remote = || remote.as_ref().map(|remote| format!("the key of remote {}", remote.name));
        let early = || session().filter(|_| session_first);
        let (key, first) = match (&self.key_file, key_file, env("TIDELOG_KEY")) {
            (Some(path), ..) => (Some(read(path)?), Some("the key of --key-file".to_owned())),
            // The key of a remote is for it; the one in the environment may be for another.
            (None, Some(path), _) => (early().map_or_else(|| read(path), Ok).map(Some)?, of_remote()),
            (None, None, Some(key)) => (early().or(Some(key)), Some("TIDELOG_KEY".to_owned())),
            (None, None, None) => (session(), None),
        };
        let protocol = match self.wire {
            WireArg::Binary => Protocol::Binary,
            WireArg::Json => Protocol::Json,
        };
        let remote = remote.map(|remote| remote.name);
        Ok(Meant { client: Client::with_tls(endpoint, protocol, key.as_deref(), &tls)?, remote, first })
    }

    /// Whom to believe and what to show, and whether that is a certificate.
    fn tls(&self, endpoint: &Endpoint, remote: Option<&Remote>, env: impl Fn(&str) -> Option<String>) -> Outcome<(Tls, bool)> {
        let flags = [(&self.ca_file, "--ca-file"), (&self.cert_file, "--cert-file"), (&self.cert_key_file, "--cert-key-file")];
        if !endpoint.is_tls() {
            return match flags.into_iter().find(|(file, _)| file.is_some()) {
                Some((_, flag)) => Err(Failure::Usage(format!("{flag} is of use with TLS only, and {endpoint} has none; write --url https://HOST:PORT."))),
                None => Ok((Tls::default(), false)),
            };
        }
        // What belongs to a remote comes before the environment, which may be for another broker.
        let of = |file: fn(&Remote) -> &Option<PathBuf>| remote.and_then(|remote| file(remote).clone());
        let given = |flag: &Option<PathBuf>, of: Option<PathBuf>, name: &str| flag.clone().or(of).or_else(|| env(name).map(PathBuf::from));
        let read = |path: PathBuf| std::fs::read(&path).map_err(|e| Failure::Usage(format!("The file {} cannot be read: {e}.", path.display())));
        let mut tls = Tls::default();
        if let Some(path) = given(&self.ca_file, of(|remote| &remote.ca_file), "TIDELOG_CA_FILE") {
            tls = tls.believing(read(path)?);
        }
        let certificate = given(&self.cert_file, of(|remote| &remote.cert_file), "TIDELOG_CERT_FILE");
        let key = given(&self.cert_key_file, of(|remote| &remote.cert_key_file), "TIDELOG_CERT_KEY_FILE");
        match (certificate, key) {
            (Some(certificate), Some(key)) => Ok((tls.showing(read(certificate)?, read(key)?), true)),
            (None, None) => Ok((tls, false)),
            (Some(_), None) => Err(Failure::Usage("A certificate is given without its key; say --cert-key-file FILE too.".into())),
            (None, Some(_)) => Err(Failure::Usage("A certificate's key is given without the certificate; say --cert-file FILE too.".into())),
        }
    }

    fn discover(
        &self,
        env: impl Fn(&str) -> Option<String>,
        root: bool,
        live: impl Fn(&Path) -> bool,
        remotes: impl FnOnce() -> Outcome<Remotes>,
    ) -> Outcome<(Endpoint, Option<Remote>)> {
        if let Some(path) = &self.socket {
            return Ok((Endpoint::Unix(path.clone()), None));
        }
        if let Some(url) = &self.url {
            return Ok((Endpoint::parse(url)?, None));
        }
        if self.remote.is_none() {
            if let Some(path) = env("TIDELOG_SOCKET") {
                return Ok((Endpoint::Unix(path.into()), None));
            }
            if let Some(url) = env("TIDELOG_URL") {
                return Ok((Endpoint::parse(&url)?, None));
            }
        }
        let remotes = remotes()?;
        let named = self.remote.clone().or_else(|| env("TIDELOG_REMOTE")).unwrap_or_else(|| remotes.in_use().to_owned());
        if let Some(remote) = remotes.get(&named)? {
            return Ok((remote.endpoint.clone(), Some(remote)));
        }
        let state = || env("XDG_STATE_HOME").map(PathBuf::from).or_else(|| env("HOME").map(|home| PathBuf::from(home).join(".local/state")));
        let data = if root { Some(PathBuf::from("/var/lib/tidelog")) } else { state().map(|dir| dir.join("tidelog")) };
        let dev = env("XDG_RUNTIME_DIR").map_or_else(std::env::temp_dir, PathBuf::from).join("tidelog-dev.sock");
        let sockets = data.map(|dir| dir.join("tidelog.sock")).into_iter().chain([dev]);
        // A socket file that nobody listens at is what a killed broker leaves behind.
        let found = sockets.into_iter().find(|path| live(path));
        let endpoint = found.map_or_else(|| Endpoint::Http(format!("127.0.0.1:{DEFAULT_PORT}")), Endpoint::Unix);
        let local = Remote { name: LOCAL.into(), endpoint: endpoint.clone(), key_file: None, ca_file: None, cert_file: None, cert_key_file: None };
        Ok((endpoint, Some(local)))
    }

    /// Sends what the client says about its connections to stderr.
    pub fn log(&self) {
        let filter = match self.verbose {
            0 => "warn,tidelog::client=info",
            1 => "info,tidelog=debug",
            _ => "debug",
        };
        let terminal = std::io::stderr().is_terminal();
        let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(terminal).with_target(false).try_init();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found_with(connect: Connect, env: &[(&str, &str)], root: bool, live: &[&str], remotes: &str) -> Outcome<String> {
        let env = |name: &str| env.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
        let remotes = || serde_json::from_str(remotes).map_err(|_| Failure::Usage("The file of remotes is broken.".into()));
        connect.discover(env, root, |path| live.iter().any(|l| Path::new(l) == path), remotes).map(|(endpoint, _)| endpoint.to_string())
    }

    fn found(connect: Connect, env: &[(&str, &str)], root: bool, live: &[&str]) -> String {
        found_with(connect, env, root, live, "{}").unwrap()
    }

    #[test]
    fn a_remote_is_looked_for_behind_addresses_that_are_given_and_before_those_of_this_machine() {
        let file = r#"{"in_use":"used","remotes":{"used":{"url":"http://used:1"},"env":{"url":"http://env:1"},"flag":{"url":"unix:/flag.sock"}}}"#;
        let remote = |name: &str| Connect { remote: Some(name.into()), ..Connect::default() };
        let with_url = Connect { url: Some("http://f:1".into()), ..remote("flag") };
        let env = [("TIDELOG_URL", "http://e:1"), ("TIDELOG_REMOTE", "env"), ("XDG_STATE_HOME", "/state")];
        let live = ["/state/tidelog/tidelog.sock"];
        let found = |connect: Connect, env: &[(&str, &str)]| found_with(connect, env, false, &live, file).unwrap();
        assert_eq!(found(with_url.clone(), &env), "http://f:1");
        assert_eq!(found(remote("flag"), &env), "unix:/flag.sock");
        assert_eq!(found(Connect::default(), &env), "http://e:1");
        assert_eq!(found(Connect::default(), &env[1..]), "http://env:1");
        assert_eq!(found(Connect::default(), &env[2..]), "http://used:1");
        assert_eq!(found(remote("local"), &env), "unix:/state/tidelog/tidelog.sock");
        // Who says where is not held up by a file that is broken; who does not is not sent elsewhere.
        assert_eq!(found_with(with_url, &env, false, &live, "{").unwrap(), "http://f:1");
        assert_eq!(found_with(Connect::default(), &env[2..], false, &live, "{").unwrap_err().exit_code(), 2);
        assert_eq!(found_with(remote("absent"), &env, false, &live, file).unwrap_err().exit_code(), 3);
    }

    #[test]
    fn certificates_are_whole_and_for_tls_only() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str| {
            std::fs::write(dir.path().join(name), name).unwrap();
            Some(dir.path().join(name))
        };
        let tls = |connect: Connect, endpoint: &str, env: &[(&str, &str)]| {
            let env = |name: &str| env.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
            connect.tls(&Endpoint::parse(endpoint).unwrap(), None, env).map(|(_, certified)| certified)
        };
        let pair = || Connect { ca_file: file("ca"), cert_file: file("crt"), cert_key_file: file("key"), ..Connect::default() };
        assert!(tls(pair(), "https://h", &[]).unwrap());
        assert!(!tls(Connect { ca_file: file("ca"), ..Connect::default() }, "https://h", &[]).unwrap());
        let cert = file("crt").unwrap().display().to_string();
        let environment = [("TIDELOG_CERT_FILE", &*cert), ("TIDELOG_CERT_KEY_FILE", &*cert)];
        assert!(tls(Connect::default(), "https://h", &environment).unwrap());
        assert!(!tls(Connect::default(), "http://h", &environment).unwrap(), "the environment is for all brokers");
        for (connect, endpoint, word) in [
            (pair(), "http://h", "of use with TLS only"),
            (pair(), "unix:/x", "of use with TLS only"),
            (Connect { cert_file: file("crt"), ..Connect::default() }, "https://h", "--cert-key-file"),
            (Connect { cert_key_file: file("key"), ..Connect::default() }, "https://h", "--cert-file"),
            (Connect { ca_file: Some("/nowhere".into()), ..Connect::default() }, "https://h", "/nowhere"),
        ] {
            assert!(matches!(tls(connect, endpoint, &[]), Err(Failure::Usage(message)) if message.contains(word)), "{word}");
        }
    }

    #[test]
    fn the_broker_is_looked_for_in_the_documented_order() {
        let flags = |socket: Option<&str>, url: Option<&str>| Connect { socket: socket.map(Into::into), url: url.map(Into::into), ..Connect::default() };
        let env = [("TIDELOG_SOCKET", "/e.sock"), ("TIDELOG_URL", "http://e:1"), ("XDG_STATE_HOME", "/state"), ("XDG_RUNTIME_DIR", "/run/user/1")];
        let all = ["/state/tidelog/tidelog.sock", "/run/user/1/tidelog-dev.sock", "/var/lib/tidelog/tidelog.sock"];
        assert_eq!(found(flags(Some("/f.sock"), Some("http://f:1")), &env, false, &all), "unix:/f.sock");
        assert_eq!(found(flags(None, Some("http://f:1")), &env, false, &all), "http://f:1");
        assert_eq!(found(flags(None, None), &env, false, &all), "unix:/e.sock");
        assert_eq!(found(flags(None, None), &env[1..], false, &all), "http://e:1");
        assert_eq!(found(flags(None, None), &env[2..], false, &all), "unix:/state/tidelog/tidelog.sock");
        assert_eq!(found(flags(None, None), &env[2..], true, &all), "unix:/var/lib/tidelog/tidelog.sock");
        assert_eq!(found(flags(None, None), &env[2..], false, &all[1..2]), "unix:/run/user/1/tidelog-dev.sock");
        assert_eq!(found(flags(None, None), &env[2..], false, &[]), "http://127.0.0.1:4080");
    }
}
