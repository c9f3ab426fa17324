//! What the router answers.

use serde::{Deserialize, Serialize};

use crate::{ApiError, CniAttached, CniStatus, DoctorLine, Metrics, Report, Status};

/// A request that was done; which variant answers which request stands at [`crate::Request`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", content = "body", rename_all = "snake_case")]
pub enum Response {
    /// Done; what there is to say about it, a line each, or nothing.
    Done(Vec<String>),
    /// Addresses with their prefix lengths.
    Addresses(Vec<String>),
    /// The status document.
    Status(Box<Status>),
    /// The report.
    Report(Box<Report>),
    /// Status and counters.
    Metrics(Box<Metrics>),
    /// What was checked.
    Doctor(Vec<DoctorLine>),
    /// The changes, a line each, in the order they would be made.
    Plan(Vec<String>),
    /// A pod was connected.
    CniAttached(Box<CniAttached>),
    /// Whether a pod could be.
    CniStatus(CniStatus),
}

/// What travels back over either socket.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// It was done.
    Done(Response),
    /// It was refused.
    Refused(ApiError),
}

impl From<Result<Response, ApiError>> for Answer {
    fn from(result: Result<Response, ApiError>) -> Self {
        match result {
            Ok(response) => Self::Done(response),
            Err(error) => Self::Refused(error),
        }
    }
}

impl From<Answer> for Result<Response, ApiError> {
    fn from(answer: Answer) -> Self {
        match answer {
            Answer::Done(response) => Ok(response),
            Answer::Refused(error) => Err(error),
        }
    }
}
