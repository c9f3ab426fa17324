//! A host's monotonic clock: its own zero, its own pace.
//!
//! No machine ever sees the wall clock, so a jump of that cannot even be simulated; what a host can suffer is
//! a clock that runs fast or slow, and a process that is stopped and finds, when it goes on, that time has
//! passed (`faults.rs`).

use std::time::{Duration, Instant};

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
        self.zero + moment + Duration::from_nanos(self.gain(moment.as_nanos()))
    }

    fn gain(&self, nanos: u128) -> u64 {
        u64::try_from(nanos * u128::from(self.fast) / 1_000_000).unwrap_or(u64::MAX)
    }

    /// The first moment of the world at which the clock shows this, or more.
    pub(super) fn moment(&self, shown: Instant) -> Duration {
        let local = shown.saturating_duration_since(self.zero).as_nanos();
        let world = local * 1_000_000 / (1_000_000 + u128::from(self.fast));
        let mut moment = Duration::from_nanos(u64::try_from(world).unwrap_or(u64::MAX));
        while self.at(moment) < shown {
            moment += Duration::from_nanos(1);
        }
        moment
    }
}
