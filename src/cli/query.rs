//! `tidelog query`: any call of the API, as it is.

use std::io::Read;
use std::time::Duration;

use clap::Args;

use super::failure::{Failure, Outcome};
use super::output::Out;
use crate::client::Client;
use crate::types::limits;

/// Call any address of the API.
#[derive(Debug, Args)]
pub struct Query {
    /// HTTP method; GET, or POST when there is a body
    #[arg(short = 'X', long = "request", value_name = "METHOD")]
    method: Option<String>,
    /// Body; @FILE reads it from a file, @- from stdin
    #[arg(short = 'd', long = "data", value_name = "BODY")]
    body: Option<String>,
    /// Content type of the body
    #[arg(long, default_value = "application/json")]
    content_type: String,
    /// Print status and content type on stderr
    #[arg(short, long)]
    include: bool,
    /// Path and query, such as /v1/streams?recursion=1
    path: String,
}

impl Query {
    /// Runs the command.
    pub async fn run(self, client: &Client) -> Outcome {
        if !self.path.starts_with('/') {
            return Err(Failure::Usage(format!("The path {:?} does not begin with /; write it like /v1/streams.", self.path)));
        }
        let body = self.body.as_deref().map(body).transpose()?;
        let method = self.method.as_deref().unwrap_or(if body.is_some() { "POST" } else { "GET" }).to_ascii_uppercase();
        let method = http::Method::from_bytes(method.as_bytes()).map_err(|_| Failure::Usage(format!("{method:?} is no HTTP method.")))?;
        let body = body.map(|bytes| (self.content_type.as_str(), bytes));
        let answer = client.admin().request(method, &self.path, body, limits::OPERATION_WAIT + Duration::from_secs(30)).await?;
        if self.include {
            eprintln!("{} {}", answer.status, answer.content_type);
        }
        let mut out = Out::new();
        out.raw(&answer.body)?;
        if !answer.body.is_empty() && !answer.body.ends_with(b"\n") {
            out.raw(b"\n")?;
        }
        answer.error().map_or(Ok(()), |error| Err(error.into()))
    }
}

fn body(text: &str) -> Outcome<Vec<u8>> {
    let mut bytes = Vec::new();
    match text.strip_prefix('@') {
        None => bytes.extend_from_slice(text.as_bytes()),
        Some("-") => {
            std::io::stdin().read_to_end(&mut bytes)?;
        }
        Some(path) => bytes = std::fs::read(path).map_err(|e| Failure::Usage(format!("The file {path} cannot be read: {e}.")))?,
    }
    Ok(bytes)
}
