//! Log lines on stderr: text for people at a terminal, JSON for whoever collects them.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

use super::config::{LogFormat, RawLog};

/// Starts logging. The first call in a process counts; tests call it many times.
///
/// # Errors
/// A sentence when the level does not parse.
pub fn start(settings: &RawLog) -> Result<(), String> {
    let level = std::env::var("RUST_LOG").ok().filter(|v| !v.trim().is_empty()).unwrap_or_else(|| settings.level.clone());
    let filter = EnvFilter::try_new(&level).map_err(|e| format!("The log level \"{level}\" cannot be used: {e}. Write it like info or tidelog=debug."))?;
    let json = match settings.format {
        LogFormat::Auto => !std::io::stderr().is_terminal(),
        LogFormat::Text => false,
        LogFormat::Json => true,
    };
    // A line that cannot be written (stderr is a file on the disk that is full) is lost. Complaining about it on stderr would be a panic.
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).log_internal_errors(false);
    let _ = if json { builder.json().flatten_event(true).try_init() } else { builder.with_target(false).try_init() };
    Ok(())
}
