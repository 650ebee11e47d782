//! Brokers with names: `tidelog remote`, and the file of them in the user's configuration directory.
//!
//! A remote is an address and what belongs to it. A key goes with its remote and to no other broker; the file names the file that holds it.
//! `local` is no entry: it is the broker of this machine, wherever that is found.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Subcommand;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::connect::Connect;
use super::failure::{Failure, Outcome};
use super::kept;
use super::output::{Out, fields, table};
use crate::client::Endpoint;
use crate::types::RemoteName;
use crate::types::name::quote;

/// The broker of this machine, as if there were no remotes.
pub const LOCAL: &str = "local";

/// Exit codes of [`Failure::Exit`], as for what a broker refuses.
const NOT_FOUND: u8 = 3;
const CONFLICT: u8 = 5;

/// Brokers with names.
#[derive(Debug, Subcommand)]
pub enum RemoteCommand {
    /// Give a broker a name; --key-file says which key is for it
    Add {
        /// Its name
        name: String,
        /// Its address, such as http://broker:4080 or unix:/run/tidelog.sock
        address: String,
    },
    /// Speak to this broker from now on; `local` is the one of this machine
    #[command(visible_aliases = ["switch", "select"])]
    Use {
        /// Which
        name: String,
    },
    /// List brokers that have names
    #[command(visible_alias = "list")]
    Ls,
    /// Describe one, or the one in use
    #[command(visible_alias = "info")]
    Show {
        /// Which
        name: Option<String>,
    },
    /// Forget the name of a broker
    #[command(visible_alias = "delete")]
    Rm {
        /// Which
        name: String,
    },
}

/// A broker that has a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remote {
    /// Its name.
    pub name: String,
    /// Where it is.
    pub endpoint: Endpoint,
    /// Holds the key that is for it.
    pub key_file: Option<PathBuf>,
}

/// All of them, as they stand in the file. What this version does not know stays as it is.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Remotes {
    in_use: Option<String>,
    remotes: BTreeMap<String, Value>,
    #[serde(flatten)]
    more: Map<String, Value>,
}

impl Remotes {
    /// Reads the file. Where there is none, there are no remotes.
    ///
    /// # Errors
    /// A sentence when it cannot be read: to go on without it would speak to another broker than the one that was meant.
    pub fn load(env: impl Fn(&str) -> Option<String>) -> Outcome<Self> {
        let Some(path) = path(env) else { return Ok(Self::default()) };
        let broken = |why: String| Failure::Usage(format!("The file of remotes {} {why}; repair or remove it, or give --url or --socket.", path.display()));
        match std::fs::read_to_string(&path) {
            Ok(text) => serde_json::from_str(&text).map_err(|why| broken(format!("is broken: {why}"))),
            Err(why) if why.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(why) => Err(broken(format!("cannot be read: {why}"))),
        }
    }

    fn save(&self, env: impl Fn(&str) -> Option<String>) -> Outcome {
        let path = path(env).ok_or_else(|| Failure::Usage("There is no place to keep remotes: set HOME or XDG_CONFIG_HOME.".into()))?;
        let text = serde_json::to_string_pretty(self).map_err(|e| Failure::failed(format!("The remotes have no JSON form: {e}.")))?;
        kept::keep(&path, &text).map_err(|e| Failure::failed(format!("The remotes cannot be kept in {}: {e}.", path.display())))
    }

    /// The name of the one in use.
    pub fn in_use(&self) -> &str {
        self.in_use.as_deref().unwrap_or(LOCAL)
    }

    /// One by name; `None` is the broker of this machine. Case means nothing, as for all names.
    ///
    /// # Errors
    /// Exit code 3 for a name that nothing has; a sentence for an entry that is broken, which is in the way of no other.
    pub fn get(&self, name: &str) -> Outcome<Option<Remote>> {
        if name.eq_ignore_ascii_case(LOCAL) {
            return Ok(None);
        }
        let (name, entry) = self.remotes.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).ok_or_else(|| missing(name))?;
        let broken = |why: &str| Failure::Usage(format!("Remote {name} is broken: {why} Remove it (`tidelog remote rm {name}`) and add it again."));
        let url = entry["url"].as_str().ok_or_else(|| broken("it has no url."))?;
        let endpoint = Endpoint::parse(url).map_err(|why| broken(&why.to_string()))?;
        let key_file = match &entry["key_file"] {
            Value::Null => None,
            Value::String(path) => Some(PathBuf::from(path)),
            _ => return Err(broken("its key_file is no path.")),
        };
        Ok(Some(Remote { name: name.clone(), endpoint, key_file }))
    }

    /// As in `remote ls`.
    fn describe(&self, name: &str, in_use: &str) -> Map<String, Value> {
        let entry = self.remotes.get(name).unwrap_or(&Value::Null);
        let row = json!({"name": name, "url": entry["url"], "key_file": entry["key_file"], "in_use": name.eq_ignore_ascii_case(in_use)});
        if let Value::Object(row) = row { row } else { Map::new() }
    }

    fn known(&self, name: &str) -> Outcome<&str> {
        if name.eq_ignore_ascii_case(LOCAL) {
            return Ok(LOCAL);
        }
        self.remotes.keys().find(|known| known.eq_ignore_ascii_case(name)).map(String::as_str).ok_or_else(|| missing(name))
    }

    fn add(&mut self, name: &str, address: &str, key_file: Option<&Path>) -> Outcome {
        let name = RemoteName::parse(name).map_err(|error| Failure::Usage(error.message.clone()))?;
        if name.as_str().eq_ignore_ascii_case(LOCAL) {
            return Err(Failure::Usage("Remote local is the broker of this machine; choose another name.".into()));
        }
        if let Ok(known) = self.known(name.as_str()) {
            let message = format!("There is a remote {known} already; remove it first (`tidelog remote rm {known}`), or choose another name.");
            return Err(Failure::Exit { code: CONFLICT, message });
        }
        let absolute = |path: &Path| std::path::absolute(path).map_err(|e| Failure::Usage(format!("The path {} means nothing here: {e}.", path.display())));
        let endpoint = match Endpoint::parse(address)? {
            // It is to mean the same from every folder.
            Endpoint::Unix(path) => Endpoint::Unix(absolute(&path)?),
            other => other,
        };
        let mut entry = json!({ "url": endpoint.to_string() });
        if let Some(path) = key_file {
            std::fs::File::open(path).map_err(|e| Failure::Usage(format!("The key file {} cannot be read: {e}.", path.display())))?;
            let path = absolute(path)?;
            entry["key_file"] = path.to_str().ok_or_else(|| Failure::Usage(format!("The path {} is not UTF-8.", path.display())))?.into();
        }
        self.remotes.insert(name.as_str().to_owned(), entry);
        Ok(())
    }

    fn select(&mut self, name: &str) -> Outcome {
        let name = self.get(name)?.map(|remote| remote.name);
        self.in_use = name;
        Ok(())
    }

    fn remove(&mut self, name: &str) -> Outcome {
        let name = self.known(name)?.to_owned();
        if name == LOCAL {
            return Err(Failure::Usage("Remote local is the broker of this machine; it cannot be removed.".into()));
        }
        if self.in_use().eq_ignore_ascii_case(&name) {
            // Commands would go to another broker, and nobody would have said so.
            let message = format!("Remote {name} is in use; use another one first (`tidelog remote use local`).");
            return Err(Failure::Exit { code: CONFLICT, message });
        }
        self.remotes.remove(&name);
        Ok(())
    }
}

fn path(env: impl Fn(&str) -> Option<String>) -> Option<PathBuf> {
    kept::file("remotes.json", env)
}

fn missing(name: &str) -> Failure {
    let message = format!("There is no remote {}; `tidelog remote ls` lists those there are, `tidelog remote add NAME URL` makes one.", quote(name));
    Failure::Exit { code: NOT_FOUND, message }
}

impl RemoteCommand {
    /// Runs the command. No broker is asked.
    pub fn run(self, connect: &Connect) -> Outcome {
        let env = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let mut remotes = Remotes::load(env)?;
        let in_use = connect.remote.clone().or_else(|| env("TIDELOG_REMOTE")).unwrap_or_else(|| remotes.in_use().to_owned());
        let mut out = Out::new();
        match self {
            Self::Add { name, address } => {
                remotes.add(&name, &address, connect.key_file.as_deref())?;
                remotes.save(env)
            }
            Self::Use { name } => {
                remotes.select(&name)?;
                remotes.save(env)?;
                hint(env);
                Ok(())
            }
            Self::Rm { name } => {
                remotes.remove(&name)?;
                remotes.save(env)
            }
            Self::Show { name } => {
                let row = remotes.describe(remotes.known(name.as_deref().unwrap_or(&in_use))?, &in_use);
                if connect.json { out.json(&row) } else { out.raw(fields(&row).as_bytes()) }
            }
            Self::Ls => {
                let rows = [LOCAL].into_iter().chain(remotes.remotes.keys().map(String::as_str)).map(|name| remotes.describe(name, &in_use));
                if connect.json {
                    for row in rows {
                        out.json(&row)?;
                    }
                } else {
                    const COLUMNS: [&str; 4] = ["name", "url", "key_file", "in_use"];
                    let cell = |value: &Value| match value {
                        Value::Null | Value::Bool(false) => String::new(),
                        Value::Bool(true) => "yes".into(),
                        Value::String(text) => text.escape_debug().to_string(),
                        other => other.to_string(),
                    };
                    let rows: Vec<Vec<String>> = rows.map(|row| COLUMNS.iter().map(|name| cell(&row[*name])).collect()).collect();
                    out.raw(table(&COLUMNS, &rows).as_bytes())?;
                }
                hint(env);
                Ok(())
            }
        }
    }
}

/// The environment comes before what is in use: say so where somebody asks what is.
fn hint(env: impl Fn(&str) -> Option<String>) {
    if let Some(name) = ["TIDELOG_SOCKET", "TIDELOG_URL", "TIDELOG_REMOTE"].into_iter().find(|name| env(name).is_some()) {
        eprintln!("tidelog: {name} is set, and comes before the remote in use.");
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn home(dir: &Path) -> impl Fn(&str) -> Option<String> + '_ {
        |name| (name == "HOME").then(|| dir.display().to_string())
    }

    #[test]
    fn remotes_are_kept_for_their_user_and_what_is_not_known_stays() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(".config/tidelog/remotes.json");
        assert_eq!(Remotes::load(home(dir.path())).unwrap().in_use(), LOCAL);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, r#"{"colour":"blue","remotes":{"old":{"url":"http://old:1","ca_file":"/ca"}}}"#).unwrap();
        let mut remotes = Remotes::load(home(dir.path())).unwrap();
        remotes.add("prod", "broker", None).unwrap();
        remotes.select("PROD").unwrap();
        remotes.save(home(dir.path())).unwrap();
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        let kept: Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
        let expected = json!({
            "colour": "blue", "in_use": "prod",
            "remotes": {"old": {"url": "http://old:1", "ca_file": "/ca"}, "prod": {"url": "http://broker:4080"}},
        });
        assert_eq!(kept, expected);
        assert_eq!(Remotes::load(home(dir.path())).unwrap().get("prod").unwrap().unwrap().endpoint, Endpoint::Http("broker:4080".into()));
    }

    #[test]
    fn a_broken_file_is_a_sentence_and_a_broken_entry_is_in_the_way_of_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(".config/tidelog/remotes.json");
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        for bad in ["", "[]", "{\"remotes\":[]}", "{\"in_use\":7}", "{"] {
            std::fs::write(&file, bad).unwrap();
            let Err(Failure::Usage(sentence)) = Remotes::load(home(dir.path())) else { panic!("{bad:?} is read") };
            assert!(sentence.contains("remotes.json") && sentence.contains("repair or remove it"), "{sentence}");
        }
        std::fs::write(&file, r#"{"remotes":{"a":7,"b":{"url":"ftp://x"},"c":{"url":"http://c","key_file":7},"d":{"url":"http://d"}}}"#).unwrap();
        let mut remotes = Remotes::load(home(dir.path())).unwrap();
        for name in ["a", "b", "c"] {
            let Err(Failure::Usage(sentence)) = remotes.get(name) else { panic!("{name} is read") };
            assert!(sentence.contains(&format!("remote rm {name}")), "{sentence}");
            remotes.remove(name).unwrap();
        }
        assert!(remotes.get("d").unwrap().is_some());
    }

    #[test]
    fn names_are_held_to_their_rules() {
        let mut remotes = Remotes::default();
        let code = |outcome: Outcome| outcome.map_or_else(|failure| failure.exit_code(), |()| 0);
        for (name, expected) in [("", 2), ("a b", 2), ("-x", 2), ("a/b", 2), ("аlpha", 2), ("$x", 2), ("Local", 2), ("prod", 0), ("PROD", 5)] {
            assert_eq!(code(remotes.add(name, "http://broker:1", None)), expected, "{name:?}");
        }
        assert_eq!(code(remotes.add("x".repeat(201).as_str(), "http://broker:1", None)), 2);
        assert_eq!(code(remotes.add("other", "https//broker", None)), 2);
        assert_eq!(code(remotes.add("other", "http://broker", Some(Path::new("/nowhere/key")))), 2);
        assert_eq!((code(remotes.select("other")), code(remotes.remove("other")), code(remotes.remove("local"))), (3, 3, 2));
        remotes.select("prod").unwrap();
        assert_eq!(code(remotes.remove("prod")), 5, "it is in use");
        remotes.select("local").unwrap();
        assert_eq!((code(remotes.remove("prod")), remotes.in_use()), (0, LOCAL));
    }

    #[test]
    fn a_socket_means_the_same_from_every_folder() {
        let mut remotes = Remotes::default();
        remotes.add("here", "unix:./t.sock", None).unwrap();
        let Endpoint::Unix(path) = remotes.get("here").unwrap().unwrap().endpoint else { panic!("a socket") };
        assert!(path.is_absolute(), "{}", path.display());
    }
}
