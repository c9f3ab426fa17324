//! A process that gets next to no processor: stopped and let go again, many times a second, as a quota would do it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::deadline;
use crate::host::Host;
use crate::traffic::Background;

/// One turn: 95 % of it the process stands still.
const TURN: Duration = Duration::from_millis(200);
const STILL: Duration = Duration::from_millis(190);

/// Starves a host's router until dropped; it runs freely again then.
#[derive(Debug)]
pub struct Starved(Background<()>);

impl Starved {
    /// Begins. The router must not be killed meanwhile.
    ///
    /// # Errors
    /// When none runs.
    pub fn start(host: &Host) -> Result<Self> {
        let pid = Pid::from_raw(i32::try_from(host.running()?.pid())?);
        let work = move |stop: &AtomicBool| -> Result<()> {
            while !stop.load(Ordering::Relaxed) {
                kill(pid, Signal::SIGSTOP).context("cannot stop it")?;
                deadline::pause(STILL);
                kill(pid, Signal::SIGCONT).context("cannot let it go on")?;
                deadline::pause(TURN.saturating_sub(STILL));
            }
            Ok(())
        };
        Ok(Self(Background::start(|stop| std::thread::spawn(move || work(&stop)))))
    }

    /// Ends it.
    ///
    /// # Errors
    /// When the router ended meanwhile.
    pub fn finish(self) -> Result<()> {
        self.0.finish()
    }
}
