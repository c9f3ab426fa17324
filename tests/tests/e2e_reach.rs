//! Three hosts, three containers: everybody reaches everybody, and nobody on the wire can read it.
//!
//! ```text
//!   c1            c2            c3
//!    │ weft        │ weft        │ weft
//!   host1 ─────── host2 ─────── host3       underlay 10.99.0.0/24, MTU 1500
//! ```

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use weft_tests::host::{attach_each, connection, mesh, settle};
use weft_tests::sniff::Sniffer;
use weft_tests::traffic::{
    self, Copies, Echo, carry, pattern, ping, tcp_round_trip, udp_round_trip, wait_reaches,
};
use weft_tests::{Container, Fabric, deadline, scenario, scenario_alone};

const MARKER: &[u8] = b"WEFT-PAYLOAD-MARKER-5f2c81";

fn pairs(containers: &[Container]) -> impl Iterator<Item = (&Container, &Container)> {
    let all = move |from: &'_ Container| from.address();
    containers.iter().flat_map(move |from| {
        containers.iter().filter(move |to| to.address() != all(from)).map(move |to| (from, to))
    })
}

#[test]
fn three_hosts_with_a_secret_are_ready_and_give_the_first_address_within_five_seconds() -> Result<()> {
    scenario_alone(|fabric| {
        let mut hosts = fabric.hosts(3)?;
        let addresses: Vec<String> = hosts.iter().map(|host| host.address().to_string()).collect();
        for (index, host) in hosts.iter_mut().enumerate() {
            host.set_secret("a secret of some length");
            let peers = addresses.iter().enumerate().filter(|(other, _)| *other != index);
            let peers: Vec<&str> = peers.map(|(_, address)| address.as_str()).collect();
            host.launch(&peers)?;
        }
        let launched = deadline::now();
        settle(&mut hosts)?;
        let mut first = fabric.container("first")?;
        hosts[0].attach(&mut first)?;
        let passed = launched.elapsed();
        ensure!(passed < Duration::from_secs(5), "it took {passed:?}");
        Ok(())
    })
}

#[test]
fn every_container_reaches_every_other_by_icmp_udp_tcp_and_large_pings() -> Result<()> {
    reaches_everywhere(["auto"; 3])
}

#[test]
fn every_container_reaches_every_other_when_frames_are_captured_by_pcap() -> Result<()> {
    reaches_everywhere(["pcap"; 3])
}

#[test]
fn a_host_that_captures_by_pcap_takes_the_super_frames_of_one_that_does_not() -> Result<()> {
    reaches_everywhere(["pcap", "vnet", "vnet"])
}

/// Three hosts with a secret, each capturing in its own way.
fn reaches_everywhere(captures: [&str; 3]) -> Result<()> {
    scenario(|fabric| {
        let mut hosts = fabric.hosts(3)?;
        for (host, capture) in hosts.iter_mut().zip(captures) {
            host.set_secret("a secret of some length");
            host.set_capture(capture);
        }
        mesh(&mut hosts, &[])?;
        let containers = attach_each(fabric, &hosts)?;
        let _echoes = containers.iter().map(|one| Echo::start(one.netns())).collect::<Result<Vec<_>>>()?;
        for (from, to) in pairs(&containers) {
            let way = || format!("{} → {}", from.name(), to.name());
            wait_reaches(from.netns(), to.address(), Duration::from_secs(5)).with_context(way)?;
            let pings = ping(from.netns(), to.address(), 5, 56)?;
            ensure!(pings.received == 5, "{}: {pings:?}", way());
            ensure!(
                ping(from.netns(), to.address(), 3, 10_000)?.received == 3,
                "{}: no 10,000-byte ping",
                way()
            );
            ensure!(udp_round_trip(from.netns(), to.address(), &pattern(1200))?, "{}: no UDP", way());
            ensure!(udp_round_trip(from.netns(), to.address(), &pattern(9000))?, "{}: no large UDP", way());
            let sent = pattern(200_000);
            ensure!(tcp_round_trip(from.netns(), to.address(), &sent)? == sent, "{}: TCP garbled", way());
        }
        let file = pattern(8 << 20);
        ensure!(carry(&containers[0], &containers[2], &file)? == file, "the file arrived garbled");
        for host in &hosts {
            let status = host.status()?;
            ensure!(status["encryption"] == true, "{status:#}");
            for other in hosts.iter().filter(|other| other.name() != host.name()) {
                let connection = connection(&status, other.name()).context("no connection")?;
                ensure!(
                    connection["carrier"] == "sleeve" && connection["encrypted"] == true,
                    "{connection:#}"
                );
                ensure!(
                    connection["reason"].as_str().is_some_and(|reason| !reason.is_empty()),
                    "{connection:#}"
                );
                ensure!(
                    connection["mtu"].as_u64().is_some_and(|mtu| (1000..=1500).contains(&mtu)),
                    "{connection:#}"
                );
            }
        }
        Ok(())
    })
}

#[test]
fn a_broadcast_and_a_multicast_arrive_everywhere_exactly_once() -> Result<()> {
    arrives_once("auto")
}

#[test]
fn a_broadcast_captured_by_pcap_arrives_everywhere_exactly_once() -> Result<()> {
    arrives_once("pcap")
}

fn arrives_once(capture: &str) -> Result<()> {
    scenario(|fabric| {
        let mut hosts = fabric.hosts(3)?;
        hosts.iter_mut().for_each(|host| host.set_capture(capture));
        mesh(&mut hosts, &["--no-fastpath"])?;
        let mut containers = attach_each(fabric, &hosts)?;
        // A second one on the first host: the same Ethernet without a tunnel.
        let mut near = fabric.container("near")?;
        hosts[0].attach(&mut near)?;
        containers.push(near);
        for (from, to) in pairs(&containers) {
            wait_reaches(from.netns(), to.address(), Duration::from_secs(5))?;
        }
        let group = Ipv4Addr::new(239, 192, 7, 1);
        for (number, from) in containers.iter().enumerate() {
            let others = || containers.iter().filter(|to| to.address() != from.address());
            let shouts = others().map(|to| Copies::start(to, 7100, None)).collect::<Result<Vec<_>>>()?;
            let talks =
                others().map(|to| Copies::start(to, 7101, Some(group))).collect::<Result<Vec<_>>>()?;
            let (shout, talk) = (format!("broadcast {number}"), format!("multicast {number}"));
            traffic::broadcast(from, 7100, shout.as_bytes())?;
            traffic::multicast(from, group, 7101, talk.as_bytes())?;
            let arrived = || {
                let all = |ears: &[Copies], what: &str| ears.iter().all(|ear| ear.of(what.as_bytes()) > 0);
                Ok(all(&shouts, &shout) && all(&talks, &talk))
            };
            deadline::until_true("both arrive everywhere", Duration::from_secs(3), arrived)?;
            // Time for a second copy that must not come.
            deadline::pause(Duration::from_millis(300));
            let copies = |ears: &[Copies], what: &str| {
                ears.iter().map(|ear| ear.of(what.as_bytes())).collect::<Vec<_>>()
            };
            ensure!(copies(&shouts, &shout).iter().all(|&count| count == 1), "{:?}", copies(&shouts, &shout));
            ensure!(copies(&talks, &talk).iter().all(|&count| count == 1), "{:?}", copies(&talks, &talk));
        }
        Ok(())
    })
}

/// Sends the marker both ways in UDP and TCP and tells how often it was seen in clear on the underlay.
fn marker_on_the_wire(fabric: &Fabric, secret: Option<&str>) -> Result<u64> {
    let mut hosts = fabric.hosts(2)?;
    if let Some(secret) = secret {
        hosts.iter_mut().for_each(|host| host.set_secret(secret));
    }
    let sniffer = Sniffer::start(fabric.netns(), MARKER)?;
    mesh(&mut hosts, &["--no-fastpath"])?;
    let containers = attach_each(fabric, &hosts)?;
    let (one, two) = (&containers[0], &containers[1]);
    let _echo = Echo::start(two.netns())?;
    wait_reaches(one.netns(), two.address(), Duration::from_secs(5))?;
    for _ in 0..10 {
        ensure!(udp_round_trip(one.netns(), two.address(), MARKER)?, "the marker did not arrive by UDP");
    }
    let stream = MARKER.repeat(20_000);
    ensure!(
        tcp_round_trip(one.netns(), two.address(), &stream)? == stream,
        "the marker did not arrive by TCP"
    );
    traffic::broadcast(one, 7100, MARKER)?;
    deadline::pause(Duration::from_millis(200));
    let seen = sniffer.finish()?;
    ensure!(seen.frames > 100, "the sniffer saw almost nothing: {seen:?}");
    Ok(seen.marked)
}

#[test]
fn with_a_secret_no_byte_of_a_payload_is_seen_on_the_underlay() -> Result<()> {
    scenario(|fabric| {
        let marked = marker_on_the_wire(fabric, Some("a secret of some length"))?;
        ensure!(marked == 0, "{marked} frames showed the marker");
        Ok(())
    })
}

#[test]
fn without_a_secret_the_payload_is_seen_on_the_underlay() -> Result<()> {
    scenario(|fabric| {
        let marked = marker_on_the_wire(fabric, None)?;
        ensure!(marked > 20, "the marker was seen {marked} times: this test cannot tell clear from sealed");
        Ok(())
    })
}

#[test]
fn a_peer_with_another_secret_is_refused() -> Result<()> {
    scenario(|fabric| {
        let mut hosts = fabric.hosts(2)?;
        hosts[0].set_secret("the right secret");
        hosts[1].set_secret("a wrong secret");
        let first = hosts[0].address().to_string();
        hosts[0].launch(&[])?;
        hosts[1].launch(&[&first])?;
        hosts[1].wait_status(
            "the connection is refused with a reason",
            Duration::from_secs(10),
            |status| {
                let connections = status["connections"].as_array().cloned().unwrap_or_default();
                connections.iter().any(|one| one["state"] != "established" && one["error"].is_string())
            },
        )?;
        let never = || {
            Ok(hosts.iter().all(|host| {
                host.status().is_ok_and(|status| weft_tests::host::reachable(&status).is_empty())
            }))
        };
        deadline::throughout("neither reaches the other", Duration::from_secs(2), never)
    })
}
