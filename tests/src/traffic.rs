//! Traffic as applications make it: plain sockets on threads that stand inside a namespace.
//!
//! Sockets belong to the namespace of the thread that opened them, so each sender and receiver here opens its sockets
//! on a thread that entered first. Receivers stop when dropped.

mod advert;
mod copies;
mod echo;
mod flow;
mod ping;
mod pulse;
mod stream;
mod torrent;
mod trail;
mod transfer;

pub use advert::advertise;
pub use copies::{Copies, broadcast, multicast};
pub use echo::{ECHO_PORT, Echo, tcp_round_trip, udp_round_trip, udp_send};
pub use flow::{Flow, FlowReport};
pub use ping::{Pings, ping, reaches, wait_reaches};
pub use pulse::Pulse;
pub use stream::Stream;
pub use torrent::{Carried, Torrent};
pub use trail::Trail;
pub use transfer::{carry, pattern};

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Result, anyhow};

/// How long a receiver blocks before it looks whether it should stop.
pub(crate) const GLANCE: Duration = Duration::from_millis(50);

/// A background thread that is told to stop, and waited for, when this value goes.
#[derive(Debug)]
pub(crate) struct Background<T> {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<T>>>,
}

impl<T: Send + 'static> Background<T> {
    /// Starts a thread; `work` gets a flag that turns true when it should end.
    pub(crate) fn start(spawn: impl FnOnce(Arc<AtomicBool>) -> JoinHandle<Result<T>>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let thread = Some(spawn(Arc::clone(&stop)));
        Self { stop, thread }
    }

    /// Tells the thread to end and returns what it brings home.
    pub(crate) fn finish(mut self) -> Result<T> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().ok_or_else(|| anyhow!("already finished"))?;
        thread.join().map_err(|_| anyhow!("a traffic thread panicked"))?
    }
}

impl<T> Drop for Background<T> {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Nothing came within the time given: not a failure, just silence.
pub(crate) fn is_silence(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::ConnectionRefused)
}
