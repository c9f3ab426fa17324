//! The underlay gives a host another address, or none for a while: E4 of the catalogue (`docs/faults.md`).
//!
//! ```text
//!   c1 ── host1 ────┬──── host2 ── c2       host1's address changes, or its cable is pulled out;
//!                   └──── host3 ── c3       c1 talks with c2, and c2 with c3
//! ```

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use weft_tests::host::{attach_each, connection, mesh, wait_all_on};
use weft_tests::traffic::{Pulse, wait_reaches};
use weft_tests::{Container, Fabric, Host, deadline, scenario};

const BEAT: Duration = Duration::from_millis(20);
/// The address that host1 gets in place of 10.99.0.1.
const NEW: &str = "10.99.0.101";
/// How long the cable is out.
const OUT: Duration = Duration::from_secs(3);
/// How soon the others must have a session with the new address: that the old one is silent is seen after 15 s, unless
/// something else asks.
const ADVERTISED: Duration = Duration::from_secs(25);
/// How soon all that is sent must arrive again.
const FLOWS: Duration = Duration::from_secs(5);

struct Stage {
    hosts: Vec<Host>,
    containers: Vec<Container>,
}

fn stage(fabric: &Fabric, carrier: &str) -> Result<Stage> {
    let mut hosts = fabric.hosts(3)?;
    mesh(&mut hosts, if carrier == "sleeve" { &["--no-fastpath"] } else { &[] })?;
    let containers = attach_each(fabric, &hosts)?;
    wait_all_on(&hosts, carrier)?;
    for (from, to) in [(0, 1), (1, 2), (2, 0)] {
        wait_reaches(containers[from].netns(), containers[to].address(), Duration::from_secs(5))?;
    }
    Ok(Stage { hosts, containers })
}

/// What running traffic felt.
struct Traffic {
    outward: Pulse,
    inward: Pulse,
    others: Pulse,
}

impl Traffic {
    fn start(stage: &Stage) -> Result<Self> {
        let [one, two, three] = &stage.containers[..] else { anyhow::bail!("three containers") };
        let pulse = |from: &Container, to: &Container| Pulse::start(from.netns(), to.address(), BEAT);
        let traffic =
            Self { outward: pulse(one, two)?, inward: pulse(two, one)?, others: pulse(two, three)? };
        // The carriers know that they are busy.
        deadline::pause(Duration::from_millis(500));
        Ok(traffic)
    }

    /// How long after `since` the last packet was lost, out of the host and into it.
    #[expect(clippy::print_stdout, reason = "figures are read by people, with --nocapture")]
    fn judge(self, what: &str, since: Instant) -> Result<()> {
        let end = deadline::now();
        let [outward, inward] =
            [self.outward.finish()?, self.inward.finish()?].map(|all| all.between(since, end));
        let others = self.others.finish()?;
        println!("E4 {what}: out of the host {outward}; into it {inward}; between the others {others}");
        for trail in [&outward, &inward] {
            ensure!(trail.sent() > 50, "hardly any traffic: {trail}");
            let lost = trail.last_loss().unwrap_or_default();
            ensure!(lost < FLOWS, "still lost after {lost:.1?}: {trail}");
        }
        ensure!(others.lost() == 0 && others.doubled() == 0, "between the others: {others}");
        Ok(())
    }
}

/// How long it takes until both others have a session with the new address, since `begin`.
fn advertised(stage: &Stage, begin: Instant) -> Result<Duration> {
    let new = |status: &serde_json::Value| {
        let address =
            connection(status, "host1").map(|one| one["address"].as_str().unwrap_or_default().to_owned());
        address.is_some_and(|address| address.starts_with(NEW))
    };
    for host in &stage.hosts[1..] {
        host.wait_status("a session with the new address", ADVERTISED, new)?;
    }
    Ok(begin.elapsed())
}

#[expect(clippy::print_stdout, reason = "figures are read by people, with --nocapture")]
fn renumbered(fabric: &Fabric, carrier: &str) -> Result<()> {
    let stage = stage(fabric, carrier)?;
    let traffic = Traffic::start(&stage)?;
    let host = stage.hosts[0].netns();
    // As hosts do that are told their addresses: the second does not go with the first.
    host.run(|| Ok(std::fs::write("/proc/sys/net/ipv4/conf/all/promote_secondaries", "1")?))?;
    host.ip(&format!("addr add {NEW}/24 dev eth0"))?;
    let since = deadline::now();
    host.ip("addr del 10.99.0.1/24 dev eth0")?;
    let took = advertised(&stage, since)?;
    wait_all_on(&stage.hosts, carrier)?;
    let settled = since.elapsed();
    // What the change of session costs, too.
    deadline::pause(Duration::from_secs(1));
    println!(
        "E4 another address, {carrier}: sessions with it after {took:.1?}, all on {carrier} after {settled:.1?}"
    );
    traffic.judge(&format!("another address, {carrier}"), since)
}

#[test]
fn e4_a_host_that_gets_another_address_is_reached_again_by_sleeve() -> Result<()> {
    scenario(|fabric| renumbered(fabric, "sleeve"))
}

#[test]
fn e4_a_host_that_gets_another_address_is_reached_again_by_fastpath() -> Result<()> {
    scenario(|fabric| renumbered(fabric, "fastpath"))
}

#[expect(clippy::print_stdout, reason = "figures are read by people, with --nocapture")]
fn unplugged(fabric: &Fabric, carrier: &str) -> Result<()> {
    let stage = stage(fabric, carrier)?;
    let traffic = Traffic::start(&stage)?;
    let host = stage.hosts[0].netns();
    host.ip("link set dev eth0 down")?;
    deadline::pause(OUT);
    let since = deadline::now();
    host.ip("link set dev eth0 up")?;
    for (from, to) in [(0, 1), (0, 2), (1, 0), (2, 0)] {
        stage.hosts[from].wait_carrier(&stage.hosts[to], carrier, ADVERTISED)?;
    }
    println!("E4 cable out for {OUT:?}, {carrier}: all on {carrier} after {:.1?}", since.elapsed());
    // What was lost meanwhile is found out late.
    deadline::pause(OUT);
    wait_all_on(&stage.hosts, carrier)?;
    traffic.judge(&format!("cable out for {OUT:?}, {carrier}"), since)
}

#[test]
fn e4_a_host_whose_cable_was_out_for_three_seconds_is_reached_again_by_sleeve() -> Result<()> {
    scenario(|fabric| unplugged(fabric, "sleeve"))
}

#[test]
fn e4_a_host_whose_cable_was_out_for_three_seconds_is_reached_again_by_fastpath() -> Result<()> {
    scenario(|fabric| unplugged(fabric, "fastpath"))
}
