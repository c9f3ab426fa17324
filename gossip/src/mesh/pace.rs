//! Something that should happen at once, but not again before some time has passed: bursts become one.

use std::time::{Duration, Instant};

/// At most one run per interval, the first at once, the last never lost.
#[derive(Debug)]
pub(super) struct Pace {
    interval: Duration,
    /// The time there has to be since the last run.
    wanted: Option<Duration>,
    last: Option<Instant>,
}

impl Pace {
    pub(super) fn new(interval: Duration) -> Self {
        Self { interval, wanted: None, last: None }
    }

    /// Asks for a run.
    pub(super) fn want(&mut self) {
        self.want_apart(self.interval);
    }

    /// Asks for a run so long after the last one; whoever asks for a shorter time gets that.
    pub(super) fn want_apart(&mut self, interval: Duration) {
        self.wanted = Some(self.wanted.map_or(interval, |wanted| wanted.min(interval)));
    }

    /// True if the run is to be done now; it is taken as done.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        let due = self.wanted.is_some_and(|apart| self.last.is_none_or(|last| now >= last + apart));
        if due {
            self.wanted = None;
            self.last = Some(now);
        }
        due
    }

    /// When a wanted run becomes due.
    pub(super) fn due(&self) -> Option<Instant> {
        self.wanted.and_then(|apart| Some(self.last? + apart))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[expect(clippy::disallowed_methods, reason = "an origin for virtual time")]
    fn origin() -> Instant {
        Instant::now()
    }

    #[test]
    fn the_first_run_is_at_once_and_the_next_after_the_shortest_time_asked_for() {
        let (mut pace, now) = (Pace::new(SECOND), origin());
        assert!(!pace.take(now) && pace.due().is_none());
        pace.want_apart(5 * SECOND);
        assert!(pace.take(now));
        pace.want_apart(5 * SECOND);
        assert_eq!(pace.due(), Some(now + 5 * SECOND));
        pace.want();
        assert!(pace.due() == Some(now + SECOND) && !pace.take(now) && pace.take(now + SECOND));
        assert_eq!(pace.due(), None);
    }
}
