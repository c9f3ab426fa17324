//! A container that sends more than anybody wants to hear, or from addresses that nobody has: D7 and D8 of the catalogue
//! (`docs/faults.md`).
//!
//! ```text
//!   evil ─┐
//!   c1 ───┴─ host1 ──┬── host2 ── c2        c1 and c2, c2 and c3 talk meanwhile
//!                    └── host3 ── c3
//! ```

use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use weft_tests::attack::{Raged, Storm};
use weft_tests::cni::{Attachment, addresses, network, runtime};
use weft_tests::counters::Counters;
use weft_tests::host::{attach_each, mesh, wait_all_on};
use weft_tests::traffic::{Pulse, wait_reaches};
use weft_tests::{Container, Fabric, Host, Netns, deadline, frames, kernel, scenario};

const BEAT: Duration = Duration::from_millis(10);
/// How long a storm lasts.
const LASTING: Duration = Duration::from_secs(4);
/// Frames a second, of shouting and of inventing.
const SHOUTS: u32 = 100_000;
const INVENTS: u32 = 50_000;
/// The most memory a storm may cost a router, bytes: full tables of the kernel are long lists, which it reads.
const GROWTH: u64 = 64 << 20;
/// Longer than that others must not be kept from talking; in all of a storm that would be no going on.
const STANDSTILL: Duration = Duration::from_secs(2);
/// The most addresses that a table of the kernel learns from a network, and the router from one peer.
const LEARNED: usize = 65_536;
const OF_ONE_PEER: f64 = 16_384.0;
/// Addresses of containers that there are.
const REAL: f64 = 20.0;
/// Entries that nobody learned: a handful for each link.
const WRITTEN: usize = 200;

struct Stage {
    hosts: Vec<Host>,
    containers: Vec<Container>,
    evil: Container,
    carrier: &'static str,
}

/// Three hosts with a container each. `evil` is a pod, and held to its addresses, or attached by hand, and is not.
fn stage(fabric: &Fabric, carrier: &'static str, pod: bool) -> Result<Stage> {
    let mut hosts = fabric.hosts(3)?;
    mesh(&mut hosts, if carrier == "sleeve" { &["--no-fastpath"] } else { &[] })?;
    let containers = attach_each(fabric, &hosts)?;
    let mut evil = fabric.container("evil")?;
    if pod {
        let added = runtime(fabric, &hosts[0])?
            .add(&network(&hosts[0], "1.1.0")?, &Attachment::new("evil", evil.netns()))?;
        match addresses(&added.result)?.first() {
            Some((IpAddr::V4(address), _)) => evil.set_address(*address),
            other => bail!("no IPv4 address: {other:?}"),
        }
    } else {
        hosts[0].attach(&mut evil)?;
    }
    wait_all_on(&hosts, carrier)?;
    for (from, to) in [(0, 1), (1, 2), (2, 0)] {
        wait_reaches(containers[from].netns(), containers[to].address(), Duration::from_secs(5))?;
    }
    wait_reaches(evil.netns(), containers[2].address(), Duration::from_secs(5))?;
    Ok(Stage { hosts, containers, evil, carrier })
}

/// What a storm left.
struct Passed {
    raged: Raged,
    before: Vec<Counters>,
    after: Vec<Counters>,
}

impl Passed {
    /// By how much what begins with this has grown on a host.
    fn grown(&self, host: usize, prefix: &str) -> f64 {
        self.after[host].sum(prefix) - self.before[host].sum(prefix)
    }
}

/// Lets a storm rage while others talk, and judges what they and the routers felt.
#[expect(clippy::print_stdout, reason = "figures are read by people, with --nocapture")]
fn weathered(
    what: &str,
    stage: &Stage,
    rate: u32,
    frame: impl FnMut(u64) -> Vec<u8> + Send + 'static,
) -> Result<Passed> {
    let Stage { hosts, containers, evil, carrier } = stage;
    let resident = |host: &Host| host.running()?.resident_bytes();
    let lost = |host: &Host| Ok(host.log()?.lines().filter(|line| line.contains("session lost")).count());
    let memory = hosts.iter().map(resident).collect::<Result<Vec<_>>>()?;
    let sessions = hosts.iter().map(lost).collect::<Result<Vec<_>>>()?;
    let before = hosts.iter().map(Counters::of).collect::<Result<Vec<_>>>()?;
    let near = Pulse::start(containers[0].netns(), containers[1].address(), BEAT)?;
    let far = Pulse::start(containers[1].netns(), containers[2].address(), BEAT)?;
    let storm = Storm::start(evil.netns(), "eth0", rate, frame)?;
    deadline::pause(LASTING);
    let raged = storm.finish()?;
    // What is under way arrives.
    deadline::pause(Duration::from_secs(1));
    let [near, far] = [near.finish()?, far.finish()?].map(|trail| trail.between(raged.begin, raged.end));
    let after = hosts.iter().map(Counters::of).collect::<Result<Vec<_>>>()?;
    let mut grown = 0;
    for (host, memory) in hosts.iter().zip(&memory) {
        grown = grown.max(resident(host)?.saturating_sub(*memory));
    }
    let took = raged.end - raged.begin;
    println!(
        "{what}, {carrier}: {} frames in {took:.1?}; from its host: {near}; between others: {far}; {grown} bytes more",
        raged.sent
    );
    ensure!(raged.sent > u64::from(rate), "hardly a storm: {raged:?}");
    for trail in [&near, &far] {
        ensure!(trail.longest_gap() < STANDSTILL && trail.doubled() == 0, "others: {trail}");
    }
    ensure!(grown < GROWTH, "{grown} bytes more");
    ensure!(hosts.iter().map(lost).collect::<Result<Vec<_>>>()? == sessions, "a session was lost");
    wait_all_on(hosts, carrier)?;
    Ok(Passed { raged, before, after })
}

/// Broadcasts and multicasts in turn, under the sender's own name.
fn shouting(evil: &Container) -> Result<impl FnMut(u64) -> Vec<u8> + Send + 'static + use<>> {
    let from = frames::mac_of(evil.netns(), "eth0")?;
    let source = SocketAddrV4::new(evil.address(), 9);
    let group = ([0x01, 0x00, 0x5e, 1, 1, 1], Ipv4Addr::new(224, 1, 1, 1));
    Ok(move |number: u64| {
        let (mac, to) =
            if number.is_multiple_of(2) { (frames::BROADCAST, Ipv4Addr::BROADCAST) } else { group };
        frames::datagram(mac, from, source, SocketAddrV4::new(to, 9), &[0x5a; 200])
    })
}

/// Broadcasts, each from another address that nobody has.
fn inventing(evil: &Container) -> impl FnMut(u64) -> Vec<u8> + Send + 'static + use<> {
    let source = SocketAddrV4::new(evil.address(), 9);
    move |number: u64| {
        // Times an odd number: another one for each, without an order.
        let [.., a, b, c, d] = number.wrapping_mul(2_654_435_761).to_be_bytes();
        let to = SocketAddrV4::new(Ipv4Addr::BROADCAST, 9);
        frames::datagram(frames::BROADCAST, [0x02, 0x99, a, b, c, d], source, to, &[0x5a; 32])
    }
}

#[expect(clippy::print_stdout, reason = "figures are read by people, with --nocapture")]
fn shouted(fabric: &Fabric, carrier: &'static str) -> Result<()> {
    let stage = stage(fabric, carrier, false)?;
    let passed = weathered("D8", &stage, SHOUTS, shouting(&stage.evil)?)?;
    let sent = passed.raged.sent as f64;
    let flooded = passed.grown(0, "weft_data_flooded_frames");
    let missed = passed.grown(0, "weft_data_shell_capture_dropped");
    let dropped: f64 = (0..3).map(|host| passed.grown(host, "weft_data_drops")).sum();
    println!("D8, {carrier}: {flooded} passed on, {missed} not captured, {dropped} dropped elsewhere");
    // What the router did not get it counts, or the frames of the storm went nowhere without a trace.
    ensure!(flooded + missed > sent * 0.9, "{flooded} passed on and {missed} missed of {sent}");
    Ok(())
}

#[test]
fn d8_a_container_that_shouts_a_hundred_thousand_times_a_second_keeps_nobody_from_talking_by_sleeve()
-> Result<()> {
    scenario(|fabric| shouted(fabric, "sleeve"))
}

#[test]
fn d8_a_container_that_shouts_a_hundred_thousand_times_a_second_keeps_nobody_from_talking_by_fastpath()
-> Result<()> {
    scenario(|fabric| shouted(fabric, "fastpath"))
}

/// How many addresses the bridge of a host knows, and its VXLAN device.
fn known(host: &Netns) -> Result<(usize, usize)> {
    let all = kernel::forwarding(host)?;
    let device = all.iter().filter(|entry| entry.contains("dev weft-vx") && entry.ends_with("self")).count();
    let bridge = all.iter().filter(|entry| entry.contains("master weft")).count();
    Ok((bridge, device))
}

#[expect(clippy::print_stdout, reason = "figures are read by people, with --nocapture")]
fn invented(fabric: &Fabric, carrier: &'static str) -> Result<()> {
    let stage = stage(fabric, carrier, false)?;
    let passed = weathered("D7", &stage, INVENTS, inventing(&stage.evil))?;
    ensure!(passed.raged.sent > LEARNED as u64, "too few to fill a table: {:?}", passed.raged);
    for (number, host) in stage.hosts.iter().enumerate() {
        let (bridge, device) = known(host.netns())?;
        let macs = passed.after[number].sum("weft_data_macs_total");
        let refused = passed.grown(number, "weft_data_macs_refused");
        println!(
            "D7, {carrier}: {} knows {bridge} addresses on its bridge, {device} on its VXLAN device; its router \
             {macs} and {refused} refused",
            host.name()
        );
        ensure!(bridge < LEARNED + WRITTEN && device < LEARNED + WRITTEN, "{bridge} and {device} entries");
        ensure!(macs <= OF_ONE_PEER + REAL, "{macs} addresses");
    }
    // Full tables keep no newcomer from being heard.
    let mut late = fabric.container("late")?;
    stage.hosts[1].attach(&mut late)?;
    wait_reaches(late.netns(), stage.containers[2].address(), Duration::from_secs(5))?;
    wait_reaches(stage.containers[0].netns(), late.address(), Duration::from_secs(5)).map(drop)
}

#[test]
fn d7_a_container_that_invents_addresses_fills_no_table_and_keeps_nobody_from_talking_by_sleeve() -> Result<()>
{
    scenario(|fabric| invented(fabric, "sleeve"))
}

#[test]
fn d7_a_container_that_invents_addresses_fills_no_table_and_keeps_nobody_from_talking_by_fastpath()
-> Result<()> {
    scenario(|fabric| invented(fabric, "fastpath"))
}

#[test]
fn d7_a_pod_that_invents_addresses_is_heard_by_nobody() -> Result<()> {
    scenario(|fabric| {
        let stage = stage(fabric, "fastpath", true)?;
        let before = stage.hosts.iter().map(|host| known(host.netns())).collect::<Result<Vec<_>>>()?;
        let passed = weathered("D7, a pod", &stage, INVENTS, inventing(&stage.evil))?;
        let after = stage.hosts.iter().map(|host| known(host.netns())).collect::<Result<Vec<_>>>()?;
        let lock = kernel::nft(stage.hosts[0].netns(), "list table bridge weft-weft\n")?;
        let reason = lock.lines().find(|line| line.contains("another's MAC address")).unwrap_or_default();
        let counted = reason.split("packets ").nth(1).and_then(|rest| rest.split(' ').next());
        let counted: u64 = counted.unwrap_or_default().parse()?;
        println!(
            "D7, a pod: {counted} of {} dropped at its port; tables {before:?} → {after:?}",
            passed.raged.sent
        );
        ensure!(counted >= passed.raged.sent, "{counted} of {} dropped", passed.raged.sent);
        for ((bridge, device), (bridge_then, device_then)) in after.iter().zip(&before) {
            ensure!(
                bridge - bridge_then.min(bridge) < 20 && device - device_then.min(device) < 20,
                "{after:?}"
            );
        }
        Ok(())
    })
}
