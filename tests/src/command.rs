//! Child processes with a deadline: `ip`, `nft`, `ping` and the `weft` client.

use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::deadline;

/// What a finished command left behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The exit code; 128 + the signal when it was killed.
    pub code: i32,
    /// All it wrote to standard output.
    pub stdout: String,
    /// All it wrote to standard error.
    pub stderr: String,
}

impl Outcome {
    /// Standard output of a command that must have succeeded.
    ///
    /// # Errors
    /// When the exit code is not 0; the message holds both outputs.
    pub fn success(self, what: &str) -> Result<String> {
        if self.code != 0 {
            bail!("{what}: exit {}\n{}{}", self.code, self.stdout, self.stderr);
        }
        Ok(self.stdout)
    }
}

/// Runs a command to its end, or kills it when `limit` passes.
///
/// # Errors
/// When it cannot be started or does not end in time.
pub fn run(command: &mut Command, input: &str, limit: Duration) -> Result<Outcome> {
    let what = describe(command);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    crate::sys::die_with_parent(command);
    let mut child = command.spawn().with_context(|| format!("cannot start: {what}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A command that does not read its input may close it; its exit code is what counts.
        let _ = stdin.write_all(input.as_bytes());
    }
    let stdout = collect(child.stdout.take());
    let stderr = collect(child.stderr.take());
    let ended = deadline::until(&what, limit, || Ok(child.try_wait()?));
    if ended.is_err() {
        end(&mut child);
    }
    let stdout = stdout.join().unwrap_or_default();
    let stderr = stderr.join().unwrap_or_default();
    let (status, _) = ended.with_context(|| format!("it said: {stdout}{stderr}"))?;
    Ok(Outcome { code: exit_code(status), stdout, stderr })
}

/// The exit code as a shell would show it.
pub(crate) fn exit_code(status: std::process::ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

/// Kills a child and reaps it.
pub(crate) fn end(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}

/// Reads a pipe on its own thread, so that a talkative child never blocks.
fn collect(pipe: Option<impl Read + Send + 'static>) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            let _ = pipe.read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// The command line, for messages.
pub(crate) fn describe(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(command.get_args().map(|argument| argument.to_string_lossy().into_owned()));
    words.join(" ")
}
