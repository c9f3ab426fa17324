//! The only clock of the router: machines get the time as an argument, this is where it comes from.

use std::{
    future::pending,
    time::{Instant, SystemTime},
};

/// The monotonic time now.
#[expect(clippy::disallowed_methods, reason = "the shell is where the clock is read")]
pub fn now() -> Instant {
    Instant::now()
}

/// The time of day, for people and for what outlives the process.
#[expect(clippy::disallowed_methods, reason = "the shell is where the clock is read")]
pub fn time_of_day() -> SystemTime {
    SystemTime::now()
}

/// Returns at the deadline a machine asked for; without one, never.
pub async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => pending().await,
    }
}
