//! `tidelog ca`: a certificate authority in a folder, for a cluster that has none yet. It speaks to no broker.

use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::json;
use uuid::Uuid;

use super::failure::{Failure, Outcome, USAGE};
use super::output::Out;
use crate::server::authority::{Authority, For, Pair, is_host, today};
use crate::types::name::quote;
use crate::types::{ClusterId, UserName};

/// Something is there already.
const CONFLICT: u8 = 5;
/// Something is not there.
const NOT_FOUND: u8 = 3;

/// `tidelog ca …`
#[derive(Clone, Debug, Subcommand)]
pub enum Ca {
    /// Make an authority and the broker's certificate: ca.crt, ca.key, server.crt, server.key
    Init(Init),
    /// Make a certificate for a user of the API: user-NAME.crt, user-NAME.key
    CreateApiCertificate(CreateApi),
    /// Make a certificate for a node of the cluster: node-UUID.crt, node-UUID.key
    CreateNodeCertificate(CreateNode),
    /// Make the broker's certificate again: server.crt, server.key
    CreateServerCertificate(CreateServer),
}

/// Where the authority is.
#[derive(Args, Clone, Debug)]
pub struct Folder {
    /// Folder of ca.crt and ca.key, and of what is made
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
}

/// What the broker is reached by.
#[derive(Args, Clone, Debug)]
pub struct Hosts {
    /// A name or address by which clients reach the broker, beside localhost and this machine's name (repeat, or separate by commas)
    #[arg(long = "host", value_name = "NAME", value_delimiter = ',')]
    hosts: Vec<String>,
}

/// Whether a pair that is there gives way.
#[derive(Args, Clone, Debug)]
pub struct Renew {
    /// Put the new pair in the place of the old one, if there is one
    #[arg(long)]
    replace: bool,
}

/// `tidelog ca init`
#[derive(Args, Clone, Debug)]
pub struct Init {
    #[command(flatten)]
    folder: Folder,
    /// Id of the cluster, which all its certificates carry [default: a new one]
    #[arg(long, value_name = "ID")]
    cluster: Option<String>,
    #[command(flatten)]
    hosts: Hosts,
}

/// `tidelog ca create-api-certificate`
#[derive(Args, Clone, Debug)]
pub struct CreateApi {
    /// Name of the user
    name: String,
    #[command(flatten)]
    folder: Folder,
    #[command(flatten)]
    renew: Renew,
}

/// `tidelog ca create-node-certificate`
#[derive(Args, Clone, Debug)]
pub struct CreateNode {
    /// Id of the node
    id: Uuid,
    #[command(flatten)]
    folder: Folder,
    #[command(flatten)]
    renew: Renew,
}

/// `tidelog ca create-server-certificate`
#[derive(Args, Clone, Debug)]
pub struct CreateServer {
    #[command(flatten)]
    folder: Folder,
    #[command(flatten)]
    hosts: Hosts,
    #[command(flatten)]
    renew: Renew,
}

impl Ca {
    /// Exit 0: made; 2: a name that makes no sense; 3: no authority there; 5: the files are there already.
    pub fn run(self, json: bool) -> Outcome {
        match self {
            Self::Init(init) => init.run(json),
            Self::CreateApiCertificate(CreateApi { name, folder, renew }) => {
                let user = UserName::parse(&name)?;
                let file = format!("user-{user}");
                folder.create(&file, &For::User(user), renew.replace, json)
            }
            Self::CreateNodeCertificate(CreateNode { id, folder, renew }) => {
                folder.create(&format!("node-{}", id.hyphenated()), &For::Node(id), renew.replace, json)
            }
            Self::CreateServerCertificate(CreateServer { folder, hosts, renew }) => folder.create("server", &For::Server(hosts.all()?), renew.replace, json),
        }
    }
}

impl Init {
    fn run(self, json: bool) -> Outcome {
        let cluster = match &self.cluster {
            Some(id) => ClusterId::parse(id)?,
            None => ClusterId::parse(&Uuid::new_v4().to_string())?,
        };
        let whom = For::Server(self.hosts.all()?);
        let dir = &self.folder.dir;
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(|e| Failure::failed(format!("The folder {} cannot be made: {e}.", dir.display())))?;
        for name in ["ca.crt", "ca.key", "server.crt", "server.key"] {
            must_be_free(&dir.join(name), "choose another folder")?;
        }
        let (authority, own) = Authority::new(&cluster, today()).map_err(Failure::failed)?;
        let server = authority.sign(&whom, today()).map_err(Failure::failed)?;
        let mut files = put(dir, "ca", &own, false)?;
        files.extend(put(dir, "server", &server, false)?);
        let at = |name: &str| dir.join(name).display().to_string();
        let next = format!(
            "Start the broker with it:\n\n    tidelog serve --listen 0.0.0.0:4080 --tls-cert {} --tls-key {} --client-ca {} --mtls-listen 0.0.0.0:4523\n\n\
             Make certificates for people and programs with `tidelog ca create-api-certificate NAME --dir {}`.\n\
             Give ca.crt to all clients; keep ca.key where nobody else reads it, best on another machine.\n",
            at("server.crt"),
            at("server.key"),
            at("ca.crt"),
            dir.display()
        );
        told(&cluster, &files, &next, json)
    }
}

impl Hosts {
    /// Those that were given, and those by which this machine knows itself.
    fn all(self) -> Outcome<Vec<String>> {
        if let Some(wrong) = self.hosts.iter().find(|host| !is_host(host)) {
            return Err(Failure::Usage(format!("--host {} is no name or address of a server; leave scheme and port out.", quote(wrong))));
        }
        let machine = std::fs::read_to_string("/proc/sys/kernel/hostname").or_else(|_| std::fs::read_to_string("/etc/hostname")).unwrap_or_default();
        let own = ["localhost", "127.0.0.1", "::1", machine.trim()].map(str::to_owned);
        let mut all: Vec<String> = Vec::new();
        for host in own.into_iter().filter(|host| is_host(host)).chain(self.hosts) {
            if !all.contains(&host) {
                all.push(host);
            }
        }
        Ok(all)
    }
}

impl Folder {
    fn create(&self, file: &str, whom: &For, replace: bool, json: bool) -> Outcome {
        let authority = self.authority()?;
        if !replace {
            must_be_free(&self.dir.join(format!("{file}.crt")), "--replace puts a new one there")?;
            must_be_free(&self.dir.join(format!("{file}.key")), "--replace puts a new one there")?;
        }
        let pair = authority.sign(whom, today()).map_err(Failure::failed)?;
        let files = put(&self.dir, file, &pair, replace)?;
        let shown = |name: &str| self.dir.join(name).display().to_string();
        let next = match whom {
            For::User(name) => format!(
                "It stands for the user {name} (`tidelog user create {name}`, if there is none yet) and is shown with\n\n    \
                 tidelog whoami --url https://HOST:4523 --ca-file {} --cert-file {} --cert-key-file {}\n",
                shown("ca.crt"),
                shown(&format!("{file}.crt")),
                shown(&format!("{file}.key"))
            ),
            For::Node(_) => "It is for calls below /v1/cluster.\n".to_owned(),
            For::Server(_) => "A broker that uses these files reads them again within seconds; no connection is dropped.\n".to_owned(),
        };
        told(authority.cluster(), &files, &next, json)
    }

    fn authority(&self) -> Outcome<Authority> {
        let read = |name: &str| {
            let path = self.dir.join(name);
            std::fs::read_to_string(&path).map_err(|e| {
                let message = format!("The authority's file {} cannot be read: {e}. `tidelog ca init --dir {}` makes one.", path.display(), self.dir.display());
                Failure::Exit { code: NOT_FOUND, message }
            })
        };
        Authority::read(&read("ca.crt")?, &read("ca.key")?)
            .map_err(|why| Failure::Exit { code: USAGE, message: format!("The authority in {} cannot sign: {why}.", self.dir.display()) })
    }
}

fn must_be_free(path: &Path, otherwise: &str) -> Outcome {
    match path.symlink_metadata() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        _ => Err(Failure::Exit { code: CONFLICT, message: format!("{} is there already and was left alone; {otherwise}.", path.display()) }),
    }
}

/// Writes a pair; the key is for this user only. The key comes first: whoever looks for a new certificate finds both.
fn put(dir: &Path, name: &str, pair: &Pair, replace: bool) -> Outcome<Vec<PathBuf>> {
    let mut files = Vec::new();
    for (ending, text, mode) in [("key", &pair.key, 0o600), ("crt", &pair.certificate, 0o644)] {
        let path = dir.join(format!("{name}.{ending}"));
        write(&path, text, mode, replace).map_err(|e| Failure::failed(format!("{} cannot be written: {e}.", path.display())))?;
        files.push(path);
    }
    Ok(files)
}

fn write(path: &Path, text: &str, mode: u32, replace: bool) -> std::io::Result<()> {
    let to = if replace { path.with_extension(format!("new-{:08x}", rand::random::<u32>())) } else { path.to_owned() };
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&to)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    if replace { std::fs::rename(to, path) } else { Ok(()) }
}

fn told(cluster: &ClusterId, files: &[PathBuf], next: &str, json: bool) -> Outcome {
    let files: Vec<String> = files.iter().map(|path| path.display().to_string()).collect();
    let mut out = Out::new();
    if json {
        return out.json(&json!({ "cluster": cluster.as_str(), "files": files }));
    }
    out.raw(format!("{}\n", files.join("\n")).as_bytes())?;
    eprint!("\nThe cluster is {cluster}. {next}");
    Ok(())
}
