//! Waiting: always for something, never for ever.
//!
//! The only place of the harness that reads the clock or sleeps, because the real kernel gives no event for "another
//! process has now done what I hope for".

use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

/// How often a condition is looked at again.
const POLL: Duration = Duration::from_millis(20);

/// The time, for measuring real processes.
#[expect(clippy::disallowed_methods, reason = "the harness times real processes")]
pub fn now() -> Instant {
    Instant::now()
}

/// Lets `duration` pass: for pacing traffic and demos, not for waiting on a condition.
#[expect(clippy::disallowed_methods, reason = "the harness paces real traffic")]
pub fn pause(duration: Duration) {
    std::thread::sleep(duration);
}

/// Polls until `look` finds something and returns it together with how long that took.
///
/// # Errors
/// When `limit` passes first; the message names `what` was awaited and the last reason given by `look`.
pub fn until<T>(
    what: &str,
    limit: Duration,
    mut look: impl FnMut() -> Result<Option<T>>,
) -> Result<(T, Duration)> {
    let begin = now();
    loop {
        let found = look();
        let passed = begin.elapsed();
        match found {
            Ok(Some(value)) => return Ok((value, passed)),
            Ok(None) if passed >= limit => return Err(anyhow!("waited {passed:.1?} in vain: {what}")),
            Err(error) if passed >= limit => {
                return Err(error.context(format!("waited {passed:.1?} in vain: {what}")));
            }
            Ok(None) | Err(_) => pause(POLL),
        }
    }
}

/// As [`until`], for a condition that is simply true or false.
///
/// # Errors
/// When `limit` passes first.
pub fn until_true(what: &str, limit: Duration, mut holds: impl FnMut() -> Result<bool>) -> Result<Duration> {
    until(what, limit, || Ok(holds()?.then_some(()))).map(|((), passed)| passed)
}

/// Watches that something stays true for the whole of `duration`.
///
/// # Errors
/// The moment it does not hold.
pub fn throughout(what: &str, duration: Duration, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    let begin = now();
    while begin.elapsed() < duration {
        if !holds()? {
            return Err(anyhow!("after {:.1?} it no longer held: {what}", begin.elapsed()));
        }
        pause(POLL);
    }
    Ok(())
}
