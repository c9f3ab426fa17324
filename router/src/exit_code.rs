//! What the shell is told: five numbers, each with one meaning.

use weft_api::ErrorCode;

/// How a run of `weft` ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitCode {
    /// Done.
    Done = 0,
    /// It was tried or checked, and it does not go.
    Failed = 1,
    /// The command line makes no sense.
    Usage = 2,
    /// No router answers on the socket.
    NoRouter = 3,
    /// Not yet; safe to try again.
    NotNow = 4,
}

impl From<ErrorCode> for ExitCode {
    fn from(code: ErrorCode) -> Self {
        match code {
            ErrorCode::Failed => Self::Failed,
            ErrorCode::Usage => Self::Usage,
            ErrorCode::NoRouter => Self::NoRouter,
            ErrorCode::NotNow => Self::NotNow,
        }
    }
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        Self::from(code as u8)
    }
}
