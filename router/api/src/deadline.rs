//! The one place of this crate that reads the clock: a point in time after which nothing is waited for.

use std::{
    io,
    time::{Duration, Instant},
};

/// When to stop waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Deadline(Instant);

impl Deadline {
    /// The point `patience` from now.
    #[expect(clippy::disallowed_methods, reason = "a blocking client has nobody who hands it the time")]
    pub(crate) fn after(patience: Duration) -> Self {
        Self(Instant::now() + patience)
    }

    /// What is left, for the next socket timeout: never zero, which a socket takes for "for ever".
    #[expect(clippy::disallowed_methods, reason = "a blocking client has nobody who hands it the time")]
    pub(crate) fn left(self) -> io::Result<Duration> {
        match self.0.checked_duration_since(Instant::now()) {
            Some(left) if left > Duration::from_millis(1) => Ok(left),
            _ => Err(io::ErrorKind::TimedOut.into()),
        }
    }
}
