//! The versions of the specification, and what each allows.

use serde::{Deserialize, Serialize};

use crate::{call::Verb, error::Error};

/// A version of the CNI specification.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Version {
    V0_1_0,
    V0_2_0,
    V0_3_0,
    V0_3_1,
    V0_4_0,
    V1_0_0,
    V1_1_0,
}

impl Version {
    /// All, oldest first.
    pub(crate) const ALL: [Self; 7] =
        [Self::V0_1_0, Self::V0_2_0, Self::V0_3_0, Self::V0_3_1, Self::V0_4_0, Self::V1_0_0, Self::V1_1_0];
    /// What is spoken where nothing else is asked for.
    pub(crate) const NEWEST: Self = Self::V1_1_0;

    /// As it is written.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::V0_1_0 => "0.1.0",
            Self::V0_2_0 => "0.2.0",
            Self::V0_3_0 => "0.3.0",
            Self::V0_3_1 => "0.3.1",
            Self::V0_4_0 => "0.4.0",
            Self::V1_0_0 => "1.0.0",
            Self::V1_1_0 => "1.1.0",
        }
    }

    /// The version that a configuration asks for; without one it is the oldest, as everywhere in CNI.
    pub(crate) fn of(input: &[u8]) -> Result<Self, Error> {
        let asked = asked(input)?.unwrap_or_default();
        if asked.is_empty() {
            return Ok(Self::V0_1_0);
        }
        let known = Self::ALL.into_iter().find(|version| version.as_str() == asked);
        known.ok_or_else(|| {
            let shown: String = asked.chars().take(40).collect();
            Error::incompatible(format!(
                "cniVersion {shown:?} is not supported; these are: {}",
                Self::ALL.map(Self::as_str).join(", ")
            ))
        })
    }

    /// Refuses verbs that came into the specification later.
    pub(crate) fn allows(self, verb: Verb) -> Result<(), Error> {
        let since = match verb {
            Verb::Add | Verb::Del | Verb::Version => Self::V0_1_0,
            Verb::Check => Self::V0_4_0,
            Verb::Gc | Verb::Status => Self::V1_1_0,
        };
        if self >= since {
            return Ok(());
        }
        let (verb, own) = (verb.as_str(), self.as_str());
        Err(Error::incompatible(format!("{verb} needs cniVersion {} or later, not {own}", since.as_str())))
    }
}

/// The answer to VERSION.
pub(crate) fn document(input: &[u8]) -> String {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Versions<'a> {
        cni_version: &'a str,
        supported_versions: [&'static str; 7],
    }
    let asked = asked(input).ok().flatten().unwrap_or_default();
    let cni_version = if asked.is_empty() { Version::NEWEST.as_str() } else { &asked };
    let versions = Versions { cni_version, supported_versions: Version::ALL.map(Version::as_str) };
    crate::result::json(&versions)
}

/// What stands under `cniVersion`.
fn asked(input: &[u8]) -> Result<Option<String>, Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Asked {
        cni_version: Option<String>,
    }
    let asked: Asked = serde_json::from_slice(input).map_err(|error| Error::undecodable(&error))?;
    Ok(asked.cni_version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_answers_whatever_it_is_given() {
        let all = r#""supportedVersions":["0.1.0","0.2.0","0.3.0","0.3.1","0.4.0","1.0.0","1.1.0"]}"#;
        for (input, echoed) in [
            (r#"{"cniVersion":"0.4.0"}"#, "0.4.0"),
            (r#"{"cniVersion":"9.9.9"}"#, "9.9.9"),
            (r#"{"cniVersion":7}"#, "1.1.0"),
            ("", "1.1.0"),
            ("rubbish", "1.1.0"),
        ] {
            assert_eq!(document(input.as_bytes()), format!(r#"{{"cniVersion":"{echoed}",{all}"#));
        }
    }

    #[test]
    fn an_unknown_version_is_error_1_and_a_missing_one_the_oldest() {
        assert_eq!(Version::of(br#"{"cniVersion":"2.0.0"}"#).unwrap_err().code, 1);
        assert_eq!(Version::of(b"{}").unwrap(), Version::V0_1_0);
        for version in Version::ALL {
            let input = format!(r#"{{"cniVersion":"{}"}}"#, version.as_str());
            assert_eq!(Version::of(input.as_bytes()).unwrap(), version);
        }
    }

    #[test]
    fn a_verb_is_refused_in_versions_older_than_itself() {
        for version in Version::ALL {
            assert!(version.allows(Verb::Add).is_ok() && version.allows(Verb::Del).is_ok());
            assert_eq!(version.allows(Verb::Check).is_ok(), version >= Version::V0_4_0);
            assert_eq!(version.allows(Verb::Gc).is_ok(), version == Version::V1_1_0);
            assert_eq!(version.allows(Verb::Status).is_ok(), version == Version::V1_1_0);
        }
    }
}
