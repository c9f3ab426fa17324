//! The carrier changes under traffic: out when VXLAN is blocked, back when it gets through again.
//!
//! ```text
//!   c1, d1        c2, d2        c3
//!    │ weft        │ weft        │ weft
//!   host1 ──╳──── host2 ─────── host3       UDP 6784 is dropped on the way between host1 and host2 only
//!      └───────────────────────────┘
//! ```

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use weft_tests::host::{attach_each, connection, mesh, wait_all_on};
use weft_tests::traffic::{Pulse, Stream, Torrent, Trail, wait_reaches};
use weft_tests::{Container, Fabric, Host, deadline, scenario};

const VXLAN: u16 = 6784;
const BEAT: Duration = Duration::from_millis(10);
/// How long sleeve may take to carry on.
const TAKEOVER: Duration = Duration::from_secs(1);
/// How long fastpath may take to be used again.
const RETURN: Duration = Duration::from_secs(15);
/// How many pings of the way back may be lost.
const SPARE: usize = 5;
/// A TCP stream starts again when its next retransmission is due: the third within a second, the fourth after 1.4 s
/// (RFC 6298, least 200 ms on Linux).
const TCP_TAKEOVER: Duration = Duration::from_secs(2);

/// Three hosts on fastpath, each with a container.
struct Stage {
    hosts: Vec<Host>,
    containers: Vec<Container>,
}

fn stage(fabric: &Fabric, secret: Option<&str>) -> Result<Stage> {
    let mut hosts = fabric.hosts(3)?;
    match secret {
        Some(secret) => {
            hosts.iter_mut().for_each(|host| host.set_secret(secret));
            mesh(&mut hosts, &["--trusted-subnets", "10.99.0.0/24"])?;
        }
        None => mesh(&mut hosts, &[])?,
    }
    let containers = attach_each(fabric, &hosts)?;
    wait_all_on(&hosts, "fastpath")?;
    for (from, to) in [(0, 1), (0, 2), (1, 2)] {
        wait_reaches(containers[from].netns(), containers[to].address(), Duration::from_secs(5))?;
    }
    Ok(Stage { hosts, containers })
}

/// All that goes on while carriers change.
struct Traffic {
    ping: Pulse,
    inward: Stream,
    outward: Stream,
    tcp: Torrent,
    others: Vec<Pulse>,
}

impl Traffic {
    fn start(stage: &Stage) -> Result<Self> {
        let [one, two, three] = &stage.containers[..] else { anyhow::bail!("three containers") };
        Ok(Self {
            ping: Pulse::start(one.netns(), two.address(), BEAT)?,
            inward: Stream::start(two, one, BEAT)?,
            outward: Stream::start(one, two, BEAT)?,
            tcp: Torrent::start(one, two, BEAT)?,
            others: vec![
                Pulse::start(one.netns(), three.address(), BEAT)?,
                Pulse::start(three.netns(), two.address(), BEAT)?,
            ],
        })
    }
}

/// Blocks under traffic, waits for sleeve, heals, waits for fastpath, and judges what the traffic felt.
fn there_and_back(secret: Option<&str>, block: impl FnOnce(&Fabric, &[Host]) -> Result<()>) -> Result<()> {
    scenario(|fabric| {
        let stage = stage(fabric, secret)?;
        let (one, two) = (&stage.hosts[0], &stage.hosts[1]);
        let traffic = Traffic::start(&stage)?;
        deadline::pause(Duration::from_secs(1));

        let blocked = deadline::now();
        block(fabric, &stage.hosts)?;
        for (host, peer) in [(one, two), (two, one)] {
            host.wait_carrier(peer, "sleeve", Duration::from_secs(5))?;
        }
        // What came late has come.
        deadline::pause(Duration::from_secs(2));

        let unblocked = deadline::now();
        fabric.heal()?;
        for (host, peer) in [(one, two), (two, one)] {
            host.wait_carrier(peer, "fastpath", RETURN)?;
        }
        let took = unblocked.elapsed();
        ensure!(took < RETURN, "fastpath came back only after {took:?}");
        deadline::pause(Duration::from_secs(2));
        judge(traffic, blocked, unblocked)
    })
}

fn judge(traffic: Traffic, blocked: Instant, unblocked: Instant) -> Result<()> {
    let ping = traffic.ping.finish()?;
    let ways = [("into", traffic.inward.finish()?), ("out of", traffic.outward.finish()?)];
    let others: Vec<Trail> = traffic.others.into_iter().map(Pulse::finish).collect::<Result<_>>()?;
    let tcp = traffic.tcp.finish()?;
    let end = deadline::now();

    ensure!(ping.sent() > 300, "hardly any traffic: {ping}");
    let out = ping.between(blocked, unblocked);
    ensure!(out.longest_gap() < TAKEOVER, "ping, to sleeve: {out}");
    let back = ping.between(unblocked, end);
    ensure!(back.lost() <= SPARE && back.doubled() == 0, "ping, back to fastpath: {back}");
    for (way, trail) in &ways {
        let out = trail.between(blocked, unblocked);
        ensure!(out.longest_gap() < TAKEOVER, "UDP {way} the host, to sleeve: {out}");
        let back = trail.between(unblocked, end);
        ensure!(back.lost() <= SPARE && back.doubled() == 0, "UDP {way} the host, back: {back}");
    }
    let gap = tcp.longest_gap(blocked, unblocked);
    ensure!(gap < TCP_TAKEOVER, "TCP stood still for {gap:?}");
    for other in &others {
        ensure!(other.lost() == 0 && other.doubled() == 0, "between others: {other}");
    }
    Ok(())
}

#[test]
fn vxlan_blocked_in_both_directions_is_replaced_within_a_second_and_used_again_after() -> Result<()> {
    there_and_back(None, |fabric, hosts| {
        fabric.block_udp_way(&hosts[0], &hosts[1], VXLAN)?;
        fabric.block_udp_way(&hosts[1], &hosts[0], VXLAN)
    })
}

#[test]
fn vxlan_blocked_in_one_direction_only_is_replaced_in_both() -> Result<()> {
    there_and_back(None, |fabric, hosts| fabric.block_udp_way(&hosts[1], &hosts[0], VXLAN))
}

#[test]
fn vxlan_blocked_in_one_direction_is_replaced_on_a_trusted_link_with_a_secret_too() -> Result<()> {
    there_and_back(Some("a secret of some length"), |fabric, hosts| {
        fabric.block_udp_way(&hosts[0], &hosts[1], VXLAN)
    })
}

#[test]
fn one_packet_in_fifty_lost_moves_nobody_off_fastpath() -> Result<()> {
    scenario(|fabric| {
        let stage = stage(fabric, None)?;
        fabric.lose(20)?;
        let traffic = Torrent::start(&stage.containers[0], &stage.containers[1], BEAT)?;
        deadline::throughout("all are on fastpath", Duration::from_secs(10), || {
            let (host, peers) = (&stage.hosts[0], &stage.hosts[1..]);
            let status = host.status()?;
            let fast = |peer: &Host| {
                connection(&status, peer.name()).is_some_and(|one| one["carrier"] == "fastpath")
            };
            Ok(peers.iter().all(fast))
        })?;
        traffic.finish()?;
        Ok(())
    })
}
