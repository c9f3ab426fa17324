//! ICMP through the `ping` program.

use std::net::Ipv4Addr;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::deadline;
use crate::netns::Netns;

/// How many echo requests went out and how many answers came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pings {
    /// Requests sent.
    pub sent: u32,
    /// Answers received.
    pub received: u32,
}

/// Sends `count` echo requests with `size` bytes of payload.
///
/// # Errors
/// When `ping` cannot run; lost answers are a result, not an error.
pub fn ping(from: &Netns, to: Ipv4Addr, count: u32, size: usize) -> Result<Pings> {
    let mut ping = Command::new("ping");
    ping.args(["-n", "-q", "-i", "0.2", "-W", "1", "-c", &count.to_string(), "-s", &size.to_string()]);
    let outcome = from.execute(ping.arg(to.to_string()), "", Duration::from_secs(u64::from(count) + 10))?;
    let line = outcome.stdout.lines().find(|line| line.contains("packets transmitted"));
    let Some(line) = line else {
        // "Network is unreachable" ends ping before it sends anything.
        return Ok(Pings { sent: count, received: 0 });
    };
    let mut numbers =
        line.split(',').map(|part| part.trim().split(' ').next().and_then(|word| word.parse().ok()));
    let sent = numbers.next().flatten().with_context(|| format!("ping said: {line}"))?;
    let received = numbers.next().flatten().with_context(|| format!("ping said: {line}"))?;
    Ok(Pings { sent, received })
}

/// Whether one ping is answered within a second.
///
/// # Errors
/// When `ping` cannot run.
pub fn reaches(from: &Netns, to: Ipv4Addr) -> Result<bool> {
    Ok(ping(from, to, 1, 56)?.received == 1)
}

/// Pings until it is answered and returns how long that took.
///
/// # Errors
/// When `limit` passes without an answer.
pub fn wait_reaches(from: &Netns, to: Ipv4Addr, limit: Duration) -> Result<Duration> {
    deadline::until_true(&format!("{} reaches {to}", from.name()), limit, || reaches(from, to))
}
