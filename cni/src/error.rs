//! Why a verb failed, in the numbers of the specification ("Error" in its section 5).

use serde::{Deserialize, Serialize};
use weft_api::{ApiError, ErrorCode};

use crate::version::Version;

/// A failure: a number for the runtime, words for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Error {
    /// The specification's number, or one of our own from 100.
    pub(crate) code: u32,
    /// What failed and why, in one line.
    pub(crate) msg: String,
    /// More, where there is more.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) details: String,
}

/// A failure that the specification has no number for: the router or the kernel refused.
const REFUSED: u32 = 100;

impl Error {
    fn new(code: u32, msg: impl Into<String>) -> Self {
        Self { code, msg: msg.into(), details: String::new() }
    }

    /// 1: a version of the specification that is not spoken here.
    pub(crate) fn incompatible(msg: impl Into<String>) -> Self {
        Self::new(1, msg)
    }

    /// 4: an environment variable; the message names it.
    pub(crate) fn environment(msg: impl Into<String>) -> Self {
        Self::new(4, msg)
    }

    /// 5: the configuration could not be read.
    pub(crate) fn unreadable(msg: impl Into<String>) -> Self {
        Self::new(5, msg)
    }

    /// 6: the configuration is not the JSON it should be.
    pub(crate) fn undecodable(error: &serde_json::Error) -> Self {
        Self::new(6, format!("the network configuration cannot be decoded: {error}"))
    }

    /// 7: the configuration makes no sense.
    pub(crate) fn configuration(msg: impl Into<String>) -> Self {
        Self::new(7, msg)
    }

    /// 11: not now; the runtime is to try again.
    pub(crate) fn later(msg: impl Into<String>) -> Self {
        Self::new(11, msg)
    }

    /// 50: the plugin cannot connect pods.
    pub(crate) fn unavailable(msg: impl Into<String>) -> Self {
        Self::new(50, msg)
    }

    /// 51: the plugin cannot connect pods, and those that are connected may not reach everything.
    pub(crate) fn degraded(msg: impl Into<String>) -> Self {
        Self::new(51, msg)
    }

    /// What the router or the kernel refused.
    pub(crate) fn refused(msg: impl Into<String>) -> Self {
        Self::new(REFUSED, msg)
    }

    /// Says more.
    pub(crate) fn with_details(self, details: impl Into<String>) -> Self {
        Self { details: details.into(), ..self }
    }

    /// As it is printed.
    pub(crate) fn document(&self, version: Version) -> String {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Document<'a> {
            cni_version: &'a str,
            #[serde(flatten)]
            error: &'a Error,
        }
        crate::result::json(&Document { cni_version: version.as_str(), error: self })
    }
}

impl From<ApiError> for Error {
    fn from(error: ApiError) -> Self {
        match error.code {
            ErrorCode::Failed => Self::refused(error.message),
            ErrorCode::Usage => Self::configuration(error.message),
            // A router that is being updated is back in a moment.
            ErrorCode::NoRouter | ErrorCode::NotNow => Self::later(error.message),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_one_document_of_the_asked_version() {
        let error = Error::later("no addresses yet");
        assert_eq!(
            error.document(Version::V0_4_0),
            r#"{"cniVersion":"0.4.0","code":11,"msg":"no addresses yet"}"#
        );
        let error = error.with_details("more");
        assert_eq!(
            error.document(Version::V1_1_0),
            r#"{"cniVersion":"1.1.0","code":11,"msg":"no addresses yet","details":"more"}"#
        );
    }

    #[test]
    fn a_router_that_is_away_or_not_ready_means_try_again() {
        assert_eq!(Error::from(ApiError::no_router("x")).code, 11);
        assert_eq!(Error::from(ApiError::not_now("x")).code, 11);
        assert_eq!(Error::from(ApiError::usage("x")).code, 7);
        assert_eq!(Error::from(ApiError::failed("x")).code, 100);
    }
}
