//! Attaching and detaching as a runtime does it, a whole `weft` process each, and addresses allocated over the API.

use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use weft_api::{Client, Request};
use weft_tests::host::{binary, mesh};
use weft_tests::{Container, Fabric, Host, deadline};

use super::Times;
use crate::settings::Settings;
use crate::stage::Stage;

/// What was found.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) attach: Times,
    pub(super) detach: Times,
    /// A second, one after the other, each durable before it is answered.
    pub(super) allocations: f64,
}

/// On a mesh of two hosts that is ready: containers attached one by one and detached again, then addresses.
pub(super) fn run(fabric: &Fabric, settings: &Settings) -> Result<Found> {
    let mut stage = Stage::new(fabric)?;
    mesh(&mut stage.hosts, &[])?;
    let host = &stage.hosts[0];
    let names = (0..settings.attachments()).map(|number| fabric.container(&format!("n{number}")));
    let containers = names.collect::<Result<Vec<Container>>>()?;
    // The first one pays for what all later ones find done.
    verb(host, "attach", &stage.containers[0])?;
    let each = |what| containers.iter().map(|one| verb(host, what, one)).collect::<Result<Vec<Duration>>>();
    let (attach, detach) = (Times::new(each("attach")?), Times::new(each("detach")?));
    Ok(Found { attach, detach, allocations: allocate(host, settings.allocating())? })
}

/// Runs one command and returns how long the process took, from its start to its end.
fn verb(host: &Host, verb: &str, container: &Container) -> Result<Duration> {
    let mut weft = Command::new(binary()?);
    weft.args([verb, container.netns().name()]).env("WEFT_SOCKET", host.socket());
    weft.stdin(Stdio::null());
    // The command has a deadline of its own.
    let begin = deadline::now();
    let output = weft.output().context("cannot start weft")?;
    let took = begin.elapsed();
    ensure!(output.status.success(), "weft {verb}: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(took)
}

/// Allocates for this long and returns how many a second; gives them back.
fn allocate(host: &Host, time: Duration) -> Result<f64> {
    let client = Client::new(host.socket());
    let call = |request: &Request| client.call(request).map_err(|error| anyhow!("{}", error.message));
    let id = |number: u32| format!("bench-{number}");
    let begin = deadline::now();
    let mut count = 0;
    while begin.elapsed() < time {
        call(&Request::IpamAllocate { id: id(count), cidr: None, timeout_ms: 3000 })?;
        count += 1;
    }
    let rate = f64::from(count) / begin.elapsed().as_secs_f64();
    (0..count).try_for_each(|number| call(&Request::IpamRelease { id: id(number), cidr: None }).map(drop))?;
    Ok(rate)
}
