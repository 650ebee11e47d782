//! Where a broker listens: a Unix socket, or an address with or without TLS.

use std::fmt;
use std::path::{Path, PathBuf};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use super::Error;

/// Port of a broker that was not told another.
pub const DEFAULT_PORT: u16 = 4080;

/// Address of a broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// A Unix socket; its callers are the operator.
    Unix(PathBuf),
    /// `host:port`, plain HTTP. An IPv6 host keeps its brackets.
    Http(String),
    /// The same with TLS.
    Https(String),
}

/// A connected byte stream of either kind.
pub(crate) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

impl Endpoint {
    /// Reads `http://host:port`, `https://host:port`, `host:port` (without TLS), `unix:/path` or `/path`.
    ///
    /// # Errors
    /// [`Error::Usage`] with what was expected.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let refuse = |why: &str| {
            Err(Error::Usage(format!("The address {text:?} {why} Write it like http://127.0.0.1:4080, https://broker:4080 or unix:/run/tidelog.sock.")))
        };
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return if path.is_empty() { refuse("names no socket.") } else { Ok(Self::Unix(path.into())) };
        }
        if text.starts_with('/') || text.starts_with("./") {
            return Ok(Self::Unix(text.into()));
        }
        let (tls, authority) = match text.split_once("://") {
            Some(("http" | "ws", rest)) => (false, rest),
            Some(("https" | "wss", rest)) => (true, rest),
            Some(_) => return refuse("has a scheme other than http and https."),
            None => (false, text),
        };
        let authority = authority.strip_suffix('/').unwrap_or(authority);
        if authority.is_empty() || authority.contains(['/', '?', '#', '@', ' ']) {
            return refuse("has more than a host and a port.");
        }
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => match port.parse::<u16>() {
                Ok(port) if port != 0 => (host, port),
                _ => return refuse("has a port that is not 1 to 65535."),
            },
            _ => (authority, DEFAULT_PORT),
        };
        let bracketed = host.starts_with('[') && host.ends_with(']');
        if host.is_empty() || (host.contains(':') && !bracketed) {
            return refuse("has a host that is not a name or an address (IPv6 goes in brackets).");
        }
        let authority = format!("{host}:{port}");
        Ok(if tls { Self::Https(authority) } else { Self::Http(authority) })
    }

    /// Is it behind TLS?
    pub fn is_tls(&self) -> bool {
        matches!(self, Self::Https(_))
    }

    /// Scheme, host and port, as URLs of the API begin.
    pub(crate) fn base(&self) -> String {
        let scheme = if self.is_tls() { "https" } else { "http" };
        format!("{scheme}://{}", self.authority())
    }

    /// The name by which it is known, without brackets.
    pub(crate) fn host(&self) -> &str {
        let host = self.authority().rsplit_once(':').map_or(self.authority(), |(host, _)| host);
        host.trim_start_matches('[').trim_end_matches(']')
    }

    /// Host and port for the `Host` header.
    pub(crate) fn authority(&self) -> &str {
        match self {
            Self::Unix(_) => "localhost",
            Self::Http(authority) | Self::Https(authority) => authority,
        }
    }

    /// The socket, if it is one.
    pub(crate) fn socket(&self) -> Option<&Path> {
        match self {
            Self::Unix(path) => Some(path),
            Self::Http(_) | Self::Https(_) => None,
        }
    }

    /// Opens a byte stream.
    pub(crate) async fn open(&self) -> Result<Box<dyn Io>, Error> {
        let unreachable = |e: std::io::Error| Error::unreachable(format!("No broker answers at {self}: {e}."));
        Ok(match self {
            Self::Unix(path) => Box::new(UnixStream::connect(path).await.map_err(unreachable)?),
            Self::Http(authority) | Self::Https(authority) => {
                let stream = TcpStream::connect(authority.as_str()).await.map_err(unreachable)?;
                // Frames are written whole; waiting for more only adds latency.
                let _ = stream.set_nodelay(true);
                Box::new(stream)
            }
        })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Http(_) | Self::Https(_) => f.write_str(&self.base()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_in_every_usual_form() {
        let http = |a: &str| Endpoint::Http(a.to_owned());
        for (text, wanted) in [
            ("http://127.0.0.1:4080", http("127.0.0.1:4080")),
            ("http://broker/", http("broker:4080")),
            ("https://broker", Endpoint::Https("broker:4080".into())),
            ("wss://[::1]:4523/", Endpoint::Https("[::1]:4523".into())),
            ("broker:9000", http("broker:9000")),
            ("http://[::1]:4081", http("[::1]:4081")),
            ("[::1]", http("[::1]:4080")),
            ("unix:/run/t.sock", Endpoint::Unix("/run/t.sock".into())),
            ("unix:///run/t.sock", Endpoint::Unix("/run/t.sock".into())),
            ("/run/t.sock", Endpoint::Unix("/run/t.sock".into())),
            ("./data/t.sock", Endpoint::Unix("./data/t.sock".into())),
        ] {
            assert_eq!(Endpoint::parse(text).unwrap(), wanted, "{text}");
        }
    }

    #[test]
    fn the_name_for_certificates_has_neither_port_nor_brackets() {
        for (text, host, shown) in [
            ("https://broker.example:4523", "broker.example", "https://broker.example:4523"),
            ("https://[::1]:4523", "::1", "https://[::1]:4523"),
            ("wss://127.0.0.1", "127.0.0.1", "https://127.0.0.1:4080"),
        ] {
            let endpoint = Endpoint::parse(text).unwrap();
            assert_eq!((endpoint.host(), &*endpoint.to_string()), (host, shown));
        }
    }

    #[test]
    fn other_addresses_are_refused_with_an_example() {
        for text in ["", "https://", "https://a/b", "ftp://broker", "http://broker:0", "http://broker:70000", "http://a/b", "::1", "unix:", "http://u@h"] {
            let error = Endpoint::parse(text).unwrap_err().to_string();
            assert!(error.contains("http://127.0.0.1:4080"), "{text}: {error}");
        }
    }
}
