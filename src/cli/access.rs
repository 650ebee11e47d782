//! `tidelog user`, `source`, `key`, `right`, `login`, `logout`, `whoami`: who may do what.
//!
//! A secret is printed once, when it is made. Passwords are typed unseen, or come from a file or a pipe, never from an argument.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use http::Method;
use serde_json::{Map, Value, json};

use super::connect::Meant;
use super::failure::{Failure, Outcome};
use super::kept;
use super::output::{Out, confirm, fields, table};
use super::password::Password;
use crate::client::{self, Client};
use crate::types::Code;
use crate::types::name::escaped;

/// Users.
#[derive(Debug, Subcommand)]
pub enum User {
    /// Create a user
    Create {
        /// Its name
        name: String,
        /// Admin on every stream; over the console, everything
        #[arg(long)]
        root: bool,
        /// It shall log in by name and password
        #[arg(long)]
        password: bool,
        #[command(flatten)]
        from: Password,
    },
    /// List users
    #[command(visible_alias = "list")]
    Ls {
        /// Only those for which this holds: 'disabled eq true' (docs/filters.md)
        #[arg(long)]
        filter: Option<String>,
    },
    /// Describe a user
    #[command(visible_alias = "info")]
    Show {
        /// Which
        name: String,
    },
    /// Change a user
    Set {
        /// Which
        name: String,
        /// Admin on every stream?
        #[arg(long)]
        root: Option<bool>,
        /// None of its credentials is taken?
        #[arg(long)]
        disabled: Option<bool>,
        /// A new password, which ends its sessions
        #[arg(long)]
        password: bool,
        #[command(flatten)]
        from: Password,
    },
    /// Remove a user with its sources, keys and rights
    #[command(visible_alias = "delete")]
    Rm {
        /// Which
        name: String,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
}

/// Sources.
#[derive(Debug, Subcommand)]
pub enum Source {
    /// Create a source and print its key
    Create {
        /// Its name, for people
        name: String,
        /// For people
        #[arg(long)]
        description: Option<String>,
        /// For another user; the operator only
        #[arg(long, value_name = "USER")]
        owner: Option<String>,
    },
    /// List sources
    #[command(visible_alias = "list")]
    Ls {
        /// Only those for which this holds: 'user eq alice' (docs/filters.md)
        #[arg(long)]
        filter: Option<String>,
    },
    /// Describe a source
    #[command(visible_alias = "info")]
    Show {
        /// Which
        id: u64,
    },
    /// Change a source
    Set {
        /// Which
        id: u64,
        /// A new name
        #[arg(long)]
        name: Option<String>,
        /// For people
        #[arg(long)]
        description: Option<String>,
        /// Its key is not taken?
        #[arg(long)]
        disabled: Option<bool>,
    },
    /// Give a source a new key and print it; the old one is over
    Rotate {
        /// Which
        id: u64,
    },
    /// Remove a source with its key and rights
    #[command(visible_alias = "delete")]
    Rm {
        /// Which
        id: u64,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
}

/// User keys.
#[derive(Debug, Subcommand)]
pub enum Key {
    /// Create a key that acts for you, and print it
    Create {
        /// Its name
        name: String,
    },
    /// List your keys, without their secrets
    #[command(visible_alias = "list")]
    Ls,
    /// Remove a key; whoever uses it is cut off
    #[command(visible_alias = "delete")]
    Rm {
        /// Which
        name: String,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
}

/// Rights.
#[derive(Debug, Subcommand)]
pub enum RightOf {
    /// List the rights on a stream
    #[command(visible_alias = "list")]
    Ls {
        /// Which stream
        stream: String,
    },
    /// Show one right
    Show {
        /// On which stream
        stream: String,
        /// Whose: user:NAME or source:ID
        principal: String,
    },
    /// Set a right: None, ReadOnly, WriteOnly, ReadWrite or Admin
    Set {
        /// On which stream
        stream: String,
        /// Whose: user:NAME or source:ID
        principal: String,
        /// Which
        right: String,
    },
    /// Remove a right
    Rm {
        /// On which stream
        stream: String,
        /// Whose: user:NAME or source:ID
        principal: String,
    },
}

/// Open a console session.
#[derive(Debug, Args)]
pub struct Login {
    /// As which user
    name: String,
    #[command(flatten)]
    from: Password,
    /// Where the session is kept [default: the file that later commands look at]
    #[arg(long, value_name = "FILE")]
    to: Option<PathBuf>,
}

/// Calls, and prints the answer: as fields, or as JSON.
async fn shown(client: &Client, json: bool, method: Method, path: &str, body: Option<Value>) -> Outcome {
    let object: Map<String, Value> = client.admin().call(method, path, body).await?;
    let mut out = Out::new();
    if json { out.json(&object) } else { out.raw(fields(&object).as_bytes()) }
}

/// Lists, as a table of some fields, or as lines of JSON.
async fn listed(client: &Client, json: bool, base: &str, filter: Option<&str>, columns: &[&str]) -> Outcome {
    let mut out = Out::new();
    let mut rows = Vec::new();
    let filter = filter.map_or_else(String::new, |filter| format!("&filter={}", escaped(filter)));
    let mut next = Some(format!("{base}?recursion=1&limit=1000{filter}"));
    while let Some(path) = next.take() {
        let answer = client.admin().request(Method::GET, &path, None, std::time::Duration::from_secs(30)).await?;
        if let Some(error) = answer.error() {
            return Err(error.into());
        }
        let body: Value = serde_json::from_slice(&answer.body).map_err(|e| Failure::failed(format!("The answer is not JSON: {e}.")))?;
        for item in body["metadata"].as_array().into_iter().flatten() {
            if json {
                out.json(item)?;
            } else {
                let text = |name: &&str| item[*name].as_str().map_or_else(|| item[*name].to_string(), str::to_owned);
                rows.push(columns.iter().map(text).collect());
            }
        }
        next = body["next"].as_str().map(str::to_owned);
    }
    if json { Ok(()) } else { out.raw(table(columns, &rows).as_bytes()) }
}

fn given(pairs: impl IntoIterator<Item = (&'static str, Option<Value>)>) -> Value {
    Value::Object(pairs.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect())
}

/// A part of a path, with what may not stand in one written otherwise.
fn part(text: &str) -> Outcome<&str> {
    if text.is_empty() || text.contains(['/', '?', '#', '%']) || text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(Failure::Usage(format!("{text:?} is no name; names have A-Z a-z 0-9 . _ -, principals are user:NAME or source:ID.")));
    }
    Ok(text)
}

impl User {
    /// Runs the command.
    pub async fn run(self, client: &Client, json: bool) -> Outcome {
        match self {
            Self::Create { name, root, password, from } => {
                let password = if password || from.is_given() { Some(from.new_for(name.clone()).await?.into()) } else { None };
                let body = given([("name", Some(name.into())), ("root", Some(root.into())), ("password", password)]);
                shown(client, json, Method::POST, "/v1/users", Some(body)).await
            }
            Self::Ls { filter } => listed(client, json, "/v1/users", filter.as_deref(), &["name", "id", "root", "disabled", "created_at"]).await,
            Self::Show { name } => shown(client, json, Method::GET, &format!("/v1/users/{}", part(&name)?), None).await,
            Self::Set { name, root, disabled, password, from } => {
                let password = if password || from.is_given() { Some(from.new_for(name.clone()).await?.into()) } else { None };
                let body = given([("root", root.map(Into::into)), ("disabled", disabled.map(Into::into)), ("password", password)]);
                shown(client, json, Method::PATCH, &format!("/v1/users/{}", part(&name)?), Some(body)).await
            }
            Self::Rm { name, yes } => {
                confirm(&format!("remove user {name} with its sources, keys and rights"), yes)?;
                shown(client, json, Method::DELETE, &format!("/v1/users/{}", part(&name)?), None).await
            }
        }
    }
}

impl Source {
    /// Runs the command.
    pub async fn run(self, client: &Client, json: bool) -> Outcome {
        match self {
            Self::Create { name, description, owner } => {
                let body = given([("name", Some(name.into())), ("description", description.map(Into::into)), ("owner", owner.map(Into::into))]);
                shown(client, json, Method::POST, "/v1/sources", Some(body)).await
            }
            Self::Ls { filter } => listed(client, json, "/v1/sources", filter.as_deref(), &["id", "name", "owner_id", "disabled", "created_at"]).await,
            Self::Show { id } => shown(client, json, Method::GET, &format!("/v1/sources/{id}"), None).await,
            Self::Set { id, name, description, disabled } => {
                let body = given([("name", name.map(Into::into)), ("description", description.map(Into::into)), ("disabled", disabled.map(Into::into))]);
                shown(client, json, Method::PATCH, &format!("/v1/sources/{id}"), Some(body)).await
            }
            Self::Rotate { id } => shown(client, json, Method::POST, &format!("/v1/sources/{id}/rotate"), Some(json!({}))).await,
            Self::Rm { id, yes } => {
                confirm(&format!("remove source {id} with its key and rights"), yes)?;
                shown(client, json, Method::DELETE, &format!("/v1/sources/{id}"), None).await
            }
        }
    }
}

impl Key {
    /// Runs the command.
    pub async fn run(self, client: &Client, json: bool) -> Outcome {
        match self {
            Self::Create { name } => shown(client, json, Method::POST, "/v1/keys", Some(json!({ "name": name }))).await,
            Self::Ls => listed(client, json, "/v1/keys", None, &["name", "id", "created_at"]).await,
            Self::Rm { name, yes } => {
                confirm(&format!("remove key {name}"), yes)?;
                shown(client, json, Method::DELETE, &format!("/v1/keys/{}", part(&name)?), None).await
            }
        }
    }
}

impl RightOf {
    /// Runs the command.
    pub async fn run(self, client: &Client, json: bool) -> Outcome {
        let path = |stream: &str, principal: &str| Ok::<_, Failure>(format!("/v1/streams/{}/rights/{}", part(stream)?, part(principal)?));
        match self {
            Self::Ls { stream } => listed(client, json, &format!("/v1/streams/{}/rights", part(&stream)?), None, &["principal", "right", "effective"]).await,
            Self::Show { stream, principal } => shown(client, json, Method::GET, &path(&stream, &principal)?, None).await,
            Self::Set { stream, principal, right } => shown(client, json, Method::PUT, &path(&stream, &principal)?, Some(json!({ "right": right }))).await,
            Self::Rm { stream, principal } => shown(client, json, Method::DELETE, &path(&stream, &principal)?, None).await,
        }
    }
}

impl Login {
    /// Runs the command.
    pub async fn run(self, meant: &Meant, json: bool) -> Outcome {
        let client = &meant.client;
        let default = kept::session_file(client.endpoint(), env);
        let to = self
            .to
            .clone()
            .or(default)
            .ok_or_else(|| Failure::Usage("There is no place to keep a session of the socket, or without a HOME; say where with --to FILE.".into()))?;
        let password = self.from.of(self.name.clone()).await?;
        let mut session: Map<String, Value> =
            client.admin().call(Method::POST, "/v1/sessions", Some(json!({ "name": self.name, "password": password }))).await?;
        let token = session.remove("token").and_then(|token| token.as_str().map(str::to_owned)).unwrap_or_default();
        kept::keep(&to, &token).map_err(|e| Failure::failed(format!("The session cannot be kept in {}: {e}.", to.display())))?;
        session.insert("kept_in".into(), to.display().to_string().into());
        session.remove("user");
        if let Some(first) = meant.first.as_deref().filter(|_| self.to.is_none()) {
            eprintln!("tidelog: {first} comes before this session: commands go on with that.");
        }
        let mut out = Out::new();
        if json { out.json(&session) } else { out.raw(fields(&session).as_bytes()) }
    }
}

fn env(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// `tidelog whoami`: who one is, and to which broker.
pub async fn whoami(meant: &Meant, json: bool) -> Outcome {
    let mut who: Map<String, Value> = meant.client.admin().call(Method::GET, "/v1/sessions/current", None).await?;
    who.insert("broker".into(), meant.client.endpoint().to_string().into());
    who.insert("remote".into(), meant.remote.clone().into());
    let mut out = Out::new();
    if json { out.json(&who) } else { out.raw(fields(&who).as_bytes()) }
}

/// `tidelog logout`: the session ends, and if it was the kept one, the file that held it goes.
pub async fn logout(client: &Client, ours: bool, json: bool) -> Outcome {
    let ended = shown(client, json, Method::DELETE, "/v1/sessions/current", None).await;
    let file = kept::session_file(client.endpoint(), env).filter(|_| ours);
    let removed = file.is_some_and(|path| std::fs::remove_file(path).is_ok());
    match ended {
        // It was over already.
        Err(Failure::Client(client::Error::Server { error, .. })) if removed && matches!(error.code, Code::SessionExpired | Code::Unauthenticated) => Ok(()),
        ended => ended,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_no_part_of_a_path_are_refused_here() {
        assert_eq!(part("source:42").unwrap(), "source:42");
        for bad in ["", "a/b", "a?b", "..%2f", "a b", "a\n"] {
            assert!(part(bad).is_err(), "{bad:?}");
        }
    }
}
