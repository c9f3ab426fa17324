//! SIGTERM and SIGINT: both say "end, and leave the data path standing".

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that end the router.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Takes the signals over; from now on they end nothing by themselves.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn new() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for the next of them and says its name. Nothing is lost when the future is dropped.
    pub async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
