//! Other people's clients against the real binary: what the pages show is run as it stands, and grpcurl, Python's grpcio, websocat,
//! curl and Chromium behave as their owners would.
//!
//! Nothing here knows a frame or a row from the inside. `make tools` installs what strangers have; a tool that is missing is a failure.

mod broker;
mod browser;
mod expect;
mod grpcurl;
mod page;
mod python;
mod schema;
mod shell;
mod snippets;
mod tools;

/// Nothing here takes this long, not even on a busy machine.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);
