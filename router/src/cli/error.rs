//! Whatever went wrong, as one line and one exit code.

use weft_api::{ApiError, NetnsError};

use crate::{
    config::{ConfigError, LaterTransport},
    exit_code::ExitCode,
};

/// Why a command did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub(super) enum CliError {
    /// The command line makes no sense.
    #[error("{0}")]
    Usage(String),
    /// The router refused, or there is none.
    #[error("{0}")]
    Api(#[from] ApiError),
    /// It was tried and it does not go.
    #[error("{0:#}")]
    Failed(#[from] anyhow::Error),
    /// A peer this version cannot link to.
    #[error("{0}")]
    Later(#[from] LaterTransport),
    /// The router answered another question.
    #[error("the router answers in words this version does not know")]
    Unexpected,
}

impl CliError {
    /// Clap's paragraphs as one line: what is wrong, and the tip if there is one.
    pub(super) fn usage(error: &clap::Error) -> Self {
        let text = error.to_string();
        let line = |paragraph: &str| paragraph.split_whitespace().collect::<Vec<_>>().join(" ");
        let mut paragraphs = text.split("\n\n").map(line);
        let first = paragraphs.next().unwrap_or_default();
        let mut message = first.strip_prefix("error: ").unwrap_or(&first).to_owned();
        if let Some(tip) = paragraphs.find(|paragraph| paragraph.starts_with("tip: ")) {
            message.push_str("; ");
            message.push_str(&tip);
        }
        Self::Usage(message)
    }

    pub(super) fn exit_code(&self) -> ExitCode {
        match self {
            Self::Usage(_) => ExitCode::Usage,
            Self::Api(error) => error.code.into(),
            Self::Failed(_) | Self::Later(_) | Self::Unexpected => ExitCode::Failed,
        }
    }
}

impl From<ConfigError> for CliError {
    fn from(error: ConfigError) -> Self {
        Self::Usage(error.to_string())
    }
}

impl From<NetnsError> for CliError {
    fn from(error: NetnsError) -> Self {
        Self::Api(error.into())
    }
}
