//! How long to wait before the next dial: 1 s, then half as much again, with jitter, up to a bound.

use std::time::{Duration, Instant};

use rand::RngExt as _;
use rand::rngs::StdRng;

const FIRST: Duration = Duration::from_secs(1);
const GROWTH: f64 = 1.5;
/// Towards a peer that was here within the last day.
const KNOWN_LIMIT: Duration = Duration::from_secs(5);
/// Towards what was never reached.
const UNKNOWN_LIMIT: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The waits towards one target.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    last: Option<Duration>,
    succeeded: Option<Instant>,
}

impl Backoff {
    /// The wait after one more failure: within a quarter of the nominal one, never above the bound.
    pub(super) fn next(&mut self, now: Instant, rng: &mut StdRng) -> Duration {
        let known = self.succeeded.is_some_and(|then| now.saturating_duration_since(then) < DAY);
        let limit = if known { KNOWN_LIMIT } else { UNKNOWN_LIMIT };
        let nominal = self.last.map_or(FIRST, |last| last.mul_f64(GROWTH)).min(limit);
        self.last = Some(nominal);
        nominal.mul_f64(rng.random_range(0.75..1.25)).min(limit)
    }

    /// The next wait is a first one again.
    pub(super) fn reset(&mut self) {
        self.last = None;
    }

    pub(super) fn succeeded(&mut self, now: Instant) {
        self.last = None;
        self.succeeded = Some(now);
    }
}
