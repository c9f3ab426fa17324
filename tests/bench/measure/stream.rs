//! TCP through iperf3, and what it cost: processor seconds for a gigabyte that arrived.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use weft_tests::process::Process;
use weft_tests::{Outcome, deadline};

use super::machine;
use crate::programs::Program;
use crate::stage::Stage;

const GIGA: f64 = 1e9;

/// What one run of iperf3 found.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found {
    /// Gbit/s that arrived.
    pub(super) gigabits: f64,
    /// Processor seconds of the whole machine for a gigabyte, both ends of iperf3 included.
    pub(super) machine: f64,
    /// Processor seconds of the contender's processes for a gigabyte.
    pub(super) daemon: Option<f64>,
}

/// One container sends to the other for this long.
pub(super) fn run(iperf3: &Program, stage: &Stage, streams: u32, seconds: u64) -> Result<Found> {
    let (from, to) = (&stage.containers[0], &stage.containers[1]);
    let mut server = iperf3.command();
    server.args(["--server", "--one-off"]);
    let log = stage.hosts[1].state_dir().with_file_name("iperf3.log");
    let _server = Process::start(to.netns(), server, &log)?;
    let limit = Duration::from_secs(seconds + 10);
    let begin = deadline::now();
    loop {
        let (machine, daemon) = (machine::busy()?, stage.daemon_time()?);
        let mut client = iperf3.command();
        arguments(&mut client, &to.address().to_string(), streams, seconds);
        let outcome = from.netns().execute(&mut client, "", limit)?;
        let used = (machine::busy()?, stage.daemon_time()?);
        // The server needs a moment until it listens.
        if is_refused(&outcome) && begin.elapsed() < Duration::from_secs(2) {
            deadline::pause(Duration::from_millis(20));
            continue;
        }
        let (bytes, gigabits) = read(&outcome)?;
        let cost = |now: Duration, then: Duration| now.saturating_sub(then).as_secs_f64() / (bytes / GIGA);
        let daemon = daemon.zip(used.1).map(|(then, now)| cost(now, then));
        return Ok(Found { gigabits, machine: cost(used.0, machine), daemon });
    }
}

fn arguments(client: &mut Command, address: &str, streams: u32, seconds: u64) {
    client.args(["--client", address, "--json", "--connect-timeout", "3000"]);
    client.args(["--time", &seconds.to_string(), "--parallel", &streams.to_string()]);
}

fn is_refused(outcome: &Outcome) -> bool {
    // With --json an error is no exit code.
    outcome.stdout.contains("Connection refused")
}

/// Bytes that arrived, and Gbit/s.
fn read(outcome: &Outcome) -> Result<(f64, f64)> {
    let said: Value = serde_json::from_str(&outcome.stdout)
        .with_context(|| format!("iperf3 said {}{}", outcome.stdout, outcome.stderr))?;
    if let Some(error) = said["error"].as_str() {
        anyhow::bail!("iperf3: {error}");
    }
    let sum = &said["end"]["sum_received"];
    let bytes = sum["bytes"].as_f64().context("iperf3 tells no bytes")?;
    let rate = sum["bits_per_second"].as_f64().context("iperf3 tells no rate")?;
    ensure!(bytes > 0.0, "nothing arrived");
    Ok((bytes, rate / GIGA))
}
