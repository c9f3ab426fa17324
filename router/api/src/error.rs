//! Why the router (or the way to it) said no; the code is the exit code of the command line.

use serde::{Deserialize, Serialize};

/// What kind of no it is; the number is the exit code of `weft`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// It was tried or checked, and it does not go.
    Failed = 1,
    /// The request itself makes no sense.
    Usage = 2,
    /// No router answers on the socket.
    NoRouter = 3,
    /// Not yet (no addresses, waiting on a peer); the same request may be sent again.
    NotNow = 4,
}

/// A refusal: a code for programs, one line for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// What kind of refusal it is.
    pub code: ErrorCode,
    /// One line that names the thing and the reason.
    pub message: String,
}

impl ApiError {
    /// A refusal for good: trying again without changing something will not help.
    pub fn failed(message: impl Into<String>) -> Self {
        Self { code: ErrorCode::Failed, message: message.into() }
    }

    /// A request that makes no sense.
    pub fn usage(message: impl Into<String>) -> Self {
        Self { code: ErrorCode::Usage, message: message.into() }
    }

    /// Nobody answers on the socket.
    pub fn no_router(message: impl Into<String>) -> Self {
        Self { code: ErrorCode::NoRouter, message: message.into() }
    }

    /// Not now; safe to try again.
    pub fn not_now(message: impl Into<String>) -> Self {
        Self { code: ErrorCode::NotNow, message: message.into() }
    }
}
