//! What one plugin process left behind, and what that means.

use std::time::Duration;

use serde_json::Value;

/// The end of one plugin process.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The plugin's name, for messages.
    pub plugin: String,
    /// The exit code; 128 + the signal when it was killed.
    pub code: i32,
    /// All it wrote to standard output.
    pub stdout: Vec<u8>,
    /// All it wrote to standard error.
    pub stderr: String,
    /// From just before the process was made until it was gone.
    pub took: Duration,
}

/// Why a call did not do what was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Failure {
    /// The plugin said so itself, in the form the specification fixes.
    #[error("{plugin}: code {code}: {msg} {details}")]
    Refused {
        /// Who said it.
        plugin: String,
        /// The error code: below 100 the specification's, else the plugin's own.
        code: u64,
        /// The short text.
        msg: String,
        /// The long text; may be empty.
        details: String,
    },
    /// It ended without saying anything a runtime understands.
    #[error("{plugin}: exit {exit}: {why}: stdout {stdout:?}, stderr {stderr:?}")]
    Garbled {
        /// Who it was.
        plugin: String,
        /// How it ended.
        exit: i32,
        /// What is wrong with the answer.
        why: String,
        /// The answer.
        stdout: String,
        /// The other one.
        stderr: String,
    },
    /// It was killed at its deadline.
    #[error("{plugin}: still running after {limit:?}")]
    Late {
        /// Who it was.
        plugin: String,
        /// The time it had.
        limit: Duration,
    },
    /// It never ran.
    #[error("{plugin}: cannot be started: {reason}")]
    NotStarted {
        /// Who should have.
        plugin: String,
        /// What was in the way.
        reason: String,
    },
    /// The list of plugins says something no runtime can follow.
    #[error("the network configuration: {0}")]
    Configuration(String),
}

impl Failure {
    /// The plugin's own error code, when it gave one.
    pub fn code(&self) -> Option<u64> {
        match self {
            Self::Refused { code, .. } => Some(*code),
            Self::Garbled { .. } | Self::Late { .. } | Self::NotStarted { .. } | Self::Configuration(_) => {
                None
            }
        }
    }
}

impl Answer {
    /// Standard output as text, for messages.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// The result of a call that must print one.
    ///
    /// # Errors
    /// When the plugin refused, or did not print exactly one JSON object.
    pub fn result(&self) -> Result<Value, Failure> {
        self.accepted()?;
        match serde_json::from_slice::<Value>(&self.stdout) {
            Ok(value) if value.is_object() => Ok(value),
            Ok(_) => Err(self.garbled("not a JSON object")),
            Err(error) => Err(self.garbled(&format!("not JSON: {error}"))),
        }
    }

    /// Success of a call that prints nothing (DEL, CHECK, GC, STATUS).
    ///
    /// # Errors
    /// When the plugin refused or printed something.
    pub fn silence(&self) -> Result<(), Failure> {
        self.accepted()?;
        if self.stdout.iter().all(u8::is_ascii_whitespace) { Ok(()) } else { Err(self.garbled("it printed")) }
    }

    /// Success, whatever it printed: old reference plugins print on DEL.
    ///
    /// # Errors
    /// When the plugin refused.
    pub fn accepted(&self) -> Result<(), Failure> {
        if self.code == 0 { Ok(()) } else { Err(self.refusal()) }
    }

    /// The error object of a call that must fail.
    ///
    /// # Errors
    /// When it succeeded, or did not print exactly one error object.
    pub fn refused(&self) -> Result<(u64, String), Failure> {
        if self.code == 0 {
            return Err(self.garbled("it succeeded where it must fail"));
        }
        match self.refusal() {
            Failure::Refused { code, msg, details, .. } => Ok((code, format!("{msg} {details}"))),
            other @ (Failure::Garbled { .. }
            | Failure::Late { .. }
            | Failure::NotStarted { .. }
            | Failure::Configuration(_)) => Err(other),
        }
    }

    fn refusal(&self) -> Failure {
        let error: Value = match serde_json::from_slice(&self.stdout) {
            Ok(error) => error,
            Err(error) => return self.garbled(&format!("failed without an error object: {error}")),
        };
        let text = |key: &str| error[key].as_str().unwrap_or_default().to_owned();
        match error["code"].as_u64() {
            Some(code) if error["msg"].is_string() => Failure::Refused {
                plugin: self.plugin.clone(),
                code,
                msg: text("msg"),
                details: text("details"),
            },
            _ => self.garbled("an error object needs a numeric code and a msg"),
        }
    }

    fn garbled(&self, why: &str) -> Failure {
        let shorten = |text: &str| text.chars().take(2000).collect();
        Failure::Garbled {
            plugin: self.plugin.clone(),
            exit: self.code,
            why: why.to_owned(),
            stdout: shorten(&self.text()),
            stderr: shorten(&self.stderr),
        }
    }
}
