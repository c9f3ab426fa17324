//! How the router's log is written: for people, or as an object a line.

use std::io::{IsTerminal, stderr};

use tracing_subscriber::{EnvFilter, fmt};

use crate::config::{ConfigError, LogFormat};
use crate::io::journal::Journal;

/// Reads a filter.
///
/// # Errors
///
/// When it is none.
pub(super) fn filter(text: &str) -> Result<EnvFilter, ConfigError> {
    EnvFilter::try_new(text)
        .map_err(|error| ConfigError(format!("'{text}' for '--log <FILTER>' is no log filter: {error}")))
}

/// Starts logging; a second start in the same process keeps the first.
pub(super) fn start(filter: EnvFilter, format: LogFormat) {
    let builder = fmt().with_env_filter(filter).with_writer(|| Journal);
    let _ = match format {
        LogFormat::Text => builder.with_ansi(stderr().is_terminal()).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
}
