//! A broker with certificates, the authority that made them, and clients with certificates of every kind.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, date_time_ymd,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tempfile::TempDir;
use tidelog::broker::{NewStream, NewUser, Principal};
use tidelog::client::{Client, Endpoint, Protocol, Tls};
use tidelog::server::config::{Tls as TlsSettings, TlsClients};
use tidelog::server::{Config, Mode, Server};
use tidelog::types::{StreamName, UserName};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Nothing here takes this long.
pub const PATIENCE: Duration = Duration::from_secs(30);
pub const CLUSTER: &str = "c1";
pub const PASSWORD: &str = "correct horse battery";

pub type Ca = CertifiedIssuer<'static, KeyPair>;

/// A certificate and its key, in PEM.
#[derive(Clone, Debug)]
pub struct Pair {
    pub certificate: String,
    pub key: String,
}

pub fn authority(unit: &str) -> Ca {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationalUnitName, unit);
    params.distinguished_name.push(DnType::CommonName, format!("authority of {unit}"));
    CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority")
}

/// A certificate of this authority, with whatever else it should say.
pub fn signed(ca: &Ca, name: &str, unit: &str, change: impl FnOnce(&mut CertificateParams)) -> Pair {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationalUnitName, unit);
    params.distinguished_name.push(DnType::CommonName, name);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    change(&mut params);
    let key = KeyPair::generate().expect("a key");
    Pair { certificate: params.signed_by(&key, ca).expect("a certificate").pem(), key: key.serialize_pem() }
}

/// What a broker at loopback shows.
pub fn server_pair(ca: &Ca) -> Pair {
    signed(ca, "server", CLUSTER, |params| {
        params.subject_alt_names = CertificateParams::new(vec!["localhost".into(), "127.0.0.1".into()]).expect("names").subject_alt_names;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    })
}

/// Ends so many seconds from now.
pub fn ends_in(params: &mut CertificateParams, seconds: u64) {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock");
    params.not_after = date_time_ymd(1970, 1, 1) + Duration::from_secs(now.as_secs() + seconds);
}

/// The broker, its folder, its authority; users alice and bob.
pub struct World {
    pub server: Server,
    pub ca: Ca,
    pub dir: TempDir,
}

impl World {
    /// As `tidelog serve` with all flags of TLS.
    pub async fn open() -> Self {
        Self::with(Mode::Serve { trust_loopback: false }, |_| {}).await
    }

    pub async fn with(mode: Mode, change: impl FnOnce(&mut Config)) -> Self {
        let (dir, ca) = (tempfile::tempdir().expect("a temporary directory"), authority(CLUSTER));
        let pair = server_pair(&ca);
        let put = |name: &str, text: &str| put(dir.path(), name, text);
        let clients = Some(TlsClients { ca: put("ca.crt", &ca.pem()), listen: Some("127.0.0.1:0".into()) });
        let mut config = Config::for_tests(mode, dir.path());
        config.tls = Some(TlsSettings { cert: put("server.crt", &pair.certificate), key: put("server.key", &pair.key), clients });
        change(&mut config);
        let server = Server::start(config).await.expect("the broker starts");
        for name in ["alice", "bob"] {
            let new = NewUser { name: UserName::parse(name).expect("a name"), password: Some(PASSWORD.into()), root: false };
            server.broker().create_user(&Principal::Operator, new).await.expect("a user");
        }
        Self { server, ca, dir }
    }

    /// A stream that is alice's.
    pub async fn stream(&self, name: &str) {
        let broker = self.server.broker();
        let alice = broker.certificate("alice").await.expect("alice");
        broker.create_stream(&alice, NewStream::named(StreamName::parse(name).expect("a name"))).await.expect("a stream");
    }

    pub fn user(&self, name: &str) -> Pair {
        signed(&self.ca, &format!("user-{name}"), CLUSTER, |_| {})
    }

    /// Writes a pair and gives the paths.
    pub fn put(&self, name: &str, pair: &Pair) -> (PathBuf, PathBuf) {
        (put(self.dir.path(), &format!("{name}.crt"), &pair.certificate), put(self.dir.path(), &format!("{name}.key"), &pair.key))
    }

    /// Port of everybody.
    pub fn main(&self) -> u16 {
        self.server.address().port()
    }

    /// Port of those with a certificate.
    pub fn mutual(&self) -> u16 {
        self.server.mtls_address().expect("a second port").port()
    }

    /// The library's client.
    pub fn client(&self, port: u16, protocol: Protocol, pair: Option<&Pair>, key: Option<&str>) -> Client {
        let mut tls = Tls::default().believing(self.ca.pem());
        if let Some(pair) = pair {
            tls = tls.showing(&*pair.certificate, &*pair.key);
        }
        Client::with_tls(Endpoint::Https(format!("localhost:{port}")), protocol, key, &tls).expect("a client")
    }

    /// A connection after the handshake, as far as the client sees it.
    pub async fn connect(&self, port: u16, pair: Option<&Pair>) -> std::io::Result<TlsStream<TcpStream>> {
        connect(port, config(&self.ca, pair, &[])).await
    }

    /// One request on a connection of its own: the status, or why there is no answer.
    pub async fn ask(&self, port: u16, pair: Option<&Pair>, path: &str, headers: &[(&str, &str)]) -> Result<Answer, String> {
        let tls = self.connect(port, pair).await.map_err(|error| error.to_string())?;
        exchange(tls, "GET", path, headers).await
    }

    /// A number of `/metrics`.
    pub async fn metric(&self, name: &str) -> f64 {
        let text = self.ask(self.main(), None, "/metrics", &[]).await.expect("an answer").body;
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).unwrap_or_else(|| panic!("no {name} in {text}"));
        line.parse().expect("a number")
    }

    pub async fn until_metric(&self, name: &str, wanted: impl Fn(f64) -> bool) {
        let found = async {
            while !wanted(self.metric(name).await) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, found).await.unwrap_or_else(|_| panic!("{name} does not get there"));
    }
}

pub fn put(dir: &Path, name: &str, text: &str) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, text).expect("a file");
    path
}

/// A client of TLS that believes `ca`.
pub fn config(ca: &Ca, pair: Option<&Pair>, alpn: &[&str]) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(ca.der().clone()).expect("an authority");
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(rustls::ALL_VERSIONS)
        .expect("versions")
        .with_root_certificates(roots);
    let mut config = match pair {
        None => builder.with_no_client_auth(),
        Some(pair) => {
            let chain = vec![CertificateDer::from_pem_slice(pair.certificate.as_bytes()).expect("PEM")];
            builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).expect("PEM")).expect("a pair")
        }
    };
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    config
}

pub async fn connect(port: u16, config: ClientConfig) -> std::io::Result<TlsStream<TcpStream>> {
    let tcp = TcpStream::connect(("127.0.0.1", port)).await?;
    TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("localhost").expect("a name"), tcp).await
}

/// An HTTP answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    /// The stable code of an error.
    pub fn code(&self) -> String {
        self.json()["metadata"]["code"].as_str().unwrap_or_default().to_owned()
    }
}

/// Asks and reads to the end.
pub async fn exchange(mut tls: TlsStream<TcpStream>, method: &str, path: &str, headers: &[(&str, &str)]) -> Result<Answer, String> {
    let mut request = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n");
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        request += "Host: localhost\r\n";
    }
    headers.iter().for_each(|(name, value)| request += &format!("{name}: {value}\r\n"));
    let mut all = Vec::new();
    let talk = async {
        tls.write_all((request + "\r\n").as_bytes()).await?;
        tls.read_to_end(&mut all).await
    };
    tokio::time::timeout(PATIENCE, talk).await.expect("an answer in time").map_err(|error| error.to_string())?;
    let text = String::from_utf8(all).expect("text");
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(|| format!("no answer: {text:?}"))?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    Ok(Answer { status, head: head.to_owned(), body: body.to_owned() })
}

/// Runs a program; the broker lives on this runtime, so nothing waits on its threads.
pub async fn run(mut command: Command) -> Output {
    tokio::task::spawn_blocking(move || command.stdin(std::process::Stdio::null()).output().expect("it runs")).await.expect("it ends")
}

pub fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// The binary, without settings of whoever runs the test.
pub fn tidelog() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidelog"));
    command.env_clear().env("PATH", "/usr/bin:/bin");
    command
}
