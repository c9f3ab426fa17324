//! A host's monotonic clock: its own zero, its own pace.
//!
//! No machine ever sees the wall clock, so a jump of that cannot even be simulated; what a host can suffer is
//! a clock that runs fast or slow, and a process that is stopped and finds, when it goes on, that time has
//! passed (`faults.rs`).

use std::time::{Duration, Instant};

const MILLION: u64 = 1_000_000;

/// The clock of one host.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    zero: Instant,
    /// How many parts in a million it runs fast.
    fast: u32,
}

impl Clock {
    pub(super) fn new(zero: Instant, fast: u32) -> Self {
        Self { zero, fast }
    }

    /// What the clock shows at a moment of the world.
    pub(super) fn at(&self, moment: Duration) -> Instant {
        let gain = nanos(moment) * u64::from(self.fast) / MILLION;
        self.zero + moment + Duration::from_nanos(gain)
    }

    /// The first moment of the world at which the clock shows this, or more.
    pub(super) fn moment(&self, shown: Instant) -> Duration {
        let local = nanos(shown.saturating_duration_since(self.zero));
        let mut moment = Duration::from_nanos(local * MILLION / (MILLION + u64::from(self.fast)));
        while self.at(moment) < shown {
            moment += Duration::from_nanos(1);
        }
        moment
    }
}

/// So many nanoseconds, and never more than can be multiplied by a million: five hours.
fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).min(u64::MAX / MILLION)
}
