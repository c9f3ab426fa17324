//! How the demo speaks: headings, the commands as one would type them, what they answered, and one line per fact.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use anyhow::Result;
use weft_tests::deadline;

/// Writes to standard output, in colour on a terminal, at a pace one can read.
pub(crate) struct Voice {
    colour: bool,
    steps: u32,
}

impl Voice {
    /// A voice for standard output.
    pub(crate) fn new() -> Self {
        let colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self { colour, steps: 0 }
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// A plain line.
    pub(crate) fn line(&self, text: &str) -> Result<()> {
        let mut out = std::io::stdout().lock();
        writeln!(out, "{text}")?;
        Ok(out.flush()?)
    }

    /// The next step of the story.
    pub(crate) fn step(&mut self, title: &str) -> Result<()> {
        self.steps += 1;
        deadline::pause(Duration::from_millis(600));
        let heading = self.paint("1;36", &format!("{}  {title}", self.steps));
        self.line(&format!("\n{heading}"))?;
        deadline::pause(Duration::from_millis(400));
        Ok(())
    }

    /// A command on a host, as one would type it there.
    pub(crate) fn command(&self, host: &str, command: &str) -> Result<()> {
        let prompt = self.paint("2", &format!("{host} #"));
        self.line(&format!("   {prompt} {command}"))?;
        deadline::pause(Duration::from_millis(120));
        Ok(())
    }

    /// What a command answered.
    pub(crate) fn answer(&self, text: &str) -> Result<()> {
        for line in text.trim_end().lines() {
            self.line(format!("     {line}").trim_end())?;
        }
        Ok(())
    }

    /// A fact that was checked.
    pub(crate) fn fact(&self, text: &str) -> Result<()> {
        let tick = self.paint("1;32", "✓");
        self.line(&format!("   {tick} {text}"))?;
        deadline::pause(Duration::from_millis(120));
        Ok(())
    }

    /// The last line of the story.
    pub(crate) fn close(&self, text: &str) -> Result<()> {
        let text = self.paint("1;32", text);
        self.line(&format!("\n{text}"))
    }
}
