//! Something that should happen at once, but not again before some time has passed: bursts become one.

use std::time::{Duration, Instant};

/// At most one run per interval, the first at once, the last never lost.
#[derive(Debug)]
pub(super) struct Pace {
    interval: Duration,
    wanted: bool,
    next: Option<Instant>,
}

impl Pace {
    pub(super) fn new(interval: Duration) -> Self {
        Self { interval, wanted: false, next: None }
    }

    /// Asks for a run.
    pub(super) fn want(&mut self) {
        self.wanted = true;
    }

    /// Asks for a run now, whenever the last one was.
    pub(super) fn want_now(&mut self) {
        self.wanted = true;
        self.next = None;
    }

    /// True if the run is to be done now; it is taken as done.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        let due = self.wanted && self.next.is_none_or(|next| now >= next);
        if due {
            self.wanted = false;
            self.next = Some(now + self.interval);
        }
        due
    }

    /// When a wanted run becomes due.
    pub(super) fn due(&self) -> Option<Instant> {
        if self.wanted { self.next } else { None }
    }
}
