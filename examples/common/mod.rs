//! What the examples share: reading `--name value` arguments, and ending on SIGTERM or Ctrl-C.

use std::collections::HashMap;

use tidelog::client::{Client, Endpoint, Protocol};

pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// Arguments of the form `--name value`.
pub struct Args(HashMap<String, String>);

impl Args {
    pub fn read() -> Result<Self, Error> {
        let mut args = std::env::args().skip(1);
        let mut map = HashMap::new();
        while let Some(name) = args.next() {
            let name = name.strip_prefix("--").ok_or_else(|| format!("{name} is not of the form --name value"))?.to_owned();
            let value = args.next().ok_or_else(|| format!("--{name} has no value"))?;
            map.insert(name, value);
        }
        Ok(Self(map))
    }

    pub fn get<'a>(&'a self, name: &str, default: &'a str) -> &'a str {
        self.0.get(name).map_or(default, String::as_str)
    }

    pub fn number(&self, name: &str) -> Result<Option<u64>, Error> {
        Ok(self.0.get(name).map(|n| n.parse()).transpose()?)
    }

    /// `--socket PATH` or `--url URL`.
    pub fn client(&self) -> Result<Client, Error> {
        let endpoint = match self.0.get("socket") {
            Some(path) => Endpoint::Unix(path.into()),
            None => Endpoint::parse(self.get("url", "http://127.0.0.1:4080"))?,
        };
        Ok(Client::new(endpoint, Protocol::Binary, std::env::var("TIDELOG_KEY").ok().as_deref())?)
    }
}

/// Resolves on SIGTERM or Ctrl-C.
pub async fn stopped() {
    use tokio::signal::unix::{SignalKind, signal};
    let mut term = signal(SignalKind::terminate()).expect("SIGTERM can be listened to");
    tokio::select! {
        _ = term.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}
