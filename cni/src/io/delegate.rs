//! Another plugin, run as a runtime would run it: same environment, same input, another verb.
//!
//! The specification has main plugins start IPAM plugins ("Delegated plugins"); this is the one child process that
//! Weft ever starts. Its name is a plain file name, looked up only in the folders of `CNI_PATH`; no shell is involved.

use std::{
    io::{self, Read, Seek, Write},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::{call::Verb, error::Error, result::Outcome};

/// The largest answer.
const LARGEST: u64 = 1 << 20;
/// How long it may take: DHCP needs a while.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long it may take to end after its answer.
const LAST_BREATH: Duration = Duration::from_secs(2);

/// Runs a plugin.
pub(super) fn run(
    plugin: &str,
    folders: Option<&str>,
    verb: Verb,
    input: &[u8],
) -> Result<Option<Outcome>, Error> {
    let program = find(plugin, folders.unwrap_or_default())?;
    let failed = |error: io::Error| Error::refused(format!("IPAM plugin {}: {error}", program.display()));
    let mut command = Command::new(&program);
    command.env("CNI_COMMAND", verb.as_str());
    let child = command
        .stdin(Stdio::from(file_of(input).map_err(failed)?))
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .map_err(failed)?;
    let (status, output) = Running(child).finish().map_err(failed)?;
    if !status.success() {
        return Err(refusal(plugin, status, &output));
    }
    if verb != Verb::Add {
        return Ok(None);
    }
    let read = serde_json::from_slice(&output).and_then(|value| Outcome::parse(&value));
    read.map(Some)
        .map_err(|error| Error::refused(format!("IPAM plugin {plugin}: its result is none: {error}")))
}

/// Looks a plugin up in the folders.
fn find(plugin: &str, folders: &str) -> Result<PathBuf, Error> {
    if folders.is_empty() {
        return Err(Error::environment(format!(
            "CNI_PATH is missing: IPAM plugin {plugin} is looked up there"
        )));
    }
    let paths = folders.split(':').filter(|folder| folder.starts_with('/'));
    let mut paths = paths.map(|folder| Path::new(folder).join(plugin));
    paths
        .find(|path| path.is_file())
        .ok_or_else(|| Error::environment(format!("IPAM plugin {plugin} is in no folder of CNI_PATH")))
}

/// The input as a file without a name: whoever writes into a pipe may have to wait.
fn file_of(input: &[u8]) -> io::Result<OwnedFd> {
    let mut file = std::fs::File::from(memfd_create(c"netconf", MFdFlags::MFD_CLOEXEC)?);
    file.write_all(input)?;
    file.rewind()?;
    Ok(file.into())
}

/// A running plugin, which does not outlive its caller's interest.
struct Running(Child);

impl Running {
    /// Takes its answer and waits for its end.
    fn finish(mut self) -> io::Result<(ExitStatus, Vec<u8>)> {
        let stdout = self.0.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let (tell, told) = mpsc::channel();
        thread::Builder::new().name("plugin".to_owned()).spawn(move || {
            let mut output = Vec::new();
            let read = stdout.take(LARGEST).read_to_end(&mut output);
            // Nobody listens any more: it took too long.
            let _ = tell.send(read.map(|_| output));
        })?;
        let output = told.recv_timeout(PATIENCE).map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        let mut left = LAST_BREATH;
        loop {
            if let Some(status) = self.0.try_wait()? {
                return Ok((status, output));
            }
            let step = Duration::from_millis(2).min(left);
            if step.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            #[expect(
                clippy::disallowed_methods,
                reason = "a child's end is no event that could be waited for"
            )]
            thread::sleep(step);
            left -= step;
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a plugin that failed had to say; its number is handed on.
fn refusal(plugin: &str, status: ExitStatus, output: &[u8]) -> Error {
    match serde_json::from_slice::<Error>(output) {
        Ok(error) if error.code != 0 => {
            Error { msg: format!("IPAM plugin {plugin}: {}", error.msg), ..error }
        }
        Ok(_) | Err(_) => {
            Error::refused(format!("IPAM plugin {plugin} failed ({status}) and gave no reason"))
        }
    }
}
