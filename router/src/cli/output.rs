//! The two streams: stdout for what was asked for, stderr for the one line that says why not.

use std::io::{self, ErrorKind, Write};

use anyhow::Context as _;
use serde::Serialize;

use super::error::CliError;

/// Where a command prints to; tests read it back.
pub(super) struct Output {
    out: Box<dyn Write>,
    err: Box<dyn Write>,
}

impl Output {
    pub(super) fn new() -> Self {
        Self { out: Box::new(io::stdout()), err: Box::new(io::stderr()) }
    }

    #[cfg(test)]
    pub(super) fn into(out: impl Write + 'static) -> Self {
        Self { out: Box::new(out), err: Box::new(io::sink()) }
    }

    /// Prints text as it is.
    pub(super) fn text(&mut self, text: &str) -> Result<(), CliError> {
        let written = self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush());
        match written {
            // Whoever reads has seen enough (`weft status | head`).
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
            other => Ok(other.context("cannot write the output")?),
        }
    }

    /// Prints lines.
    pub(super) fn lines(&mut self, lines: &[String]) -> Result<(), CliError> {
        let mut text = lines.join("\n");
        if !text.is_empty() {
            text.push('\n');
        }
        self.text(&text)
    }

    /// Prints a document.
    pub(super) fn json(&mut self, document: &impl Serialize) -> Result<(), CliError> {
        let mut text = serde_json::to_string_pretty(document).context("cannot write the document")?;
        text.push('\n');
        self.text(&text)
    }

    /// Says on stderr why not; one line, whatever the message holds.
    pub(super) fn error(&mut self, message: &str) {
        let line = message.split_whitespace().collect::<Vec<_>>().join(" ");
        // A closed stderr is no reason to do anything else.
        let _ = writeln!(self.err, "weft: {line}");
    }
}
