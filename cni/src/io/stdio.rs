//! The standard streams: a bounded input that must come in time, one document out.

use std::{
    io::{self, IsTerminal, Read, Write},
    os::fd::AsFd,
    process::ExitCode,
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};

use crate::error::Error;

/// The largest configuration: a result of thousands of addresses fits.
const LARGEST: usize = 1 << 20;
/// How long a runtime may pause while it writes, in milliseconds.
const PATIENCE: u16 = 10_000;

/// Reads the configuration.
pub(crate) fn read() -> Result<Vec<u8>, Error> {
    let mut stdin = io::stdin().lock();
    if stdin.is_terminal() {
        return Err(Error::unreadable(
            "the standard input is a terminal: a network configuration is expected",
        ));
    }
    let mut input = Vec::new();
    let mut chunk = [0; 16 << 10];
    loop {
        wait(&stdin)?;
        match stdin.read(&mut chunk) {
            Ok(0) => return Ok(input),
            Ok(read) if input.len() + read > LARGEST => {
                return Err(Error::unreadable("the network configuration is larger than 1 MiB"));
            }
            Ok(read) => input.extend_from_slice(&chunk[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(unreadable(&error)),
        }
    }
}

/// Waits until something can be read.
fn wait(stdin: &impl AsFd) -> Result<(), Error> {
    loop {
        match poll(&mut [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)], PollTimeout::from(PATIENCE)) {
            Ok(0) => return Err(Error::unreadable("no network configuration came within 10 s")),
            Ok(_) => return Ok(()),
            Err(Errno::EINTR) => {}
            Err(error) => return Err(unreadable(&error.into())),
        }
    }
}

fn unreadable(error: &io::Error) -> Error {
    Error::unreadable(format!("the network configuration cannot be read: {error}"))
}

/// Prints a result, if there is one, and says how it went.
pub(crate) fn done(document: Option<&str>) -> ExitCode {
    match document.map(print) {
        None | Some(Ok(())) => ExitCode::SUCCESS,
        // Nobody hears of the pod: the runtime takes it for failed, and deletes it.
        Some(Err(_)) => ExitCode::FAILURE,
    }
}

/// Prints an error.
pub(crate) fn failed(document: &str) -> ExitCode {
    let _ = print(document);
    ExitCode::FAILURE
}

fn print(document: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(document.as_bytes())?;
    stdout.write_all(b"\n")?;
    stdout.flush()
}
