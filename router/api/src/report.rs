//! What is told beyond the status: the bug report, the counters, the doctor's lines.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::Status;

/// Everything for a bug report; never a secret.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The status document.
    pub status: Status,
    /// How the router was launched; whether there is a secret, never which.
    pub configuration: BTreeMap<String, String>,
    /// The machines' own views by name (topology, routes, ring, links …), in whatever shape tells most.
    pub state: BTreeMap<String, serde_json::Value>,
    /// Every counter.
    pub counters: Vec<Counter>,
    /// What would be changed in the kernel now.
    pub plan: Vec<String>,
    /// What was checked.
    pub doctor: Vec<DoctorLine>,
    /// The latest changes of state, oldest first.
    pub log: Vec<String>,
}

/// Status and counters: what `/metrics` is made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metrics {
    /// The status document.
    pub status: Status,
    /// Every counter; those of one name stand together and have the same labels.
    pub counters: Vec<Counter>,
}

/// A number that only grows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counter {
    /// In snake case, without the `weft_` before and the `_total` behind it.
    pub name: String,
    /// One sentence for people.
    pub help: String,
    /// What tells it from others of its name.
    pub labels: BTreeMap<String, String>,
    /// How many so far.
    pub value: u64,
}

/// How much a doctor's line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Good to know.
    Info,
    /// It works, but less well than it could.
    Warning,
    /// Something does not work.
    Error,
}

/// One thing the doctor looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DoctorLine {
    /// What was looked at, in a word or two.
    pub check: String,
    /// Whether it works; `weft doctor` exits 1 when anything does not.
    pub ok: bool,
    /// How much it matters.
    pub severity: Severity,
    /// What was found.
    pub message: String,
    /// What to do about it.
    pub advice: Option<String>,
}

impl DoctorLine {
    /// A thing that is as it should be.
    pub fn fine(check: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            check: check.into(),
            ok: true,
            severity: Severity::Info,
            message: message.into(),
            advice: None,
        }
    }

    /// A thing that works less well than it could.
    pub fn warning(check: impl Into<String>, message: impl Into<String>, advice: impl Into<String>) -> Self {
        Self {
            check: check.into(),
            ok: true,
            severity: Severity::Warning,
            message: message.into(),
            advice: Some(advice.into()),
        }
    }

    /// A thing that does not work.
    pub fn error(check: impl Into<String>, message: impl Into<String>, advice: impl Into<String>) -> Self {
        Self {
            check: check.into(),
            ok: false,
            severity: Severity::Error,
            message: message.into(),
            advice: Some(advice.into()),
        }
    }
}
