//! Which carrier serves a peer, and what is said about it.
//!
//! ```text
//!   c1            c2            c3
//!    │ weft        │ weft        │ weft      fastpath: the kernel's VXLAN, UDP 6784
//!   host1 ─────── host2 ─────── host3       sleeve: the router, UDP 6783
//! ```

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use weft_tests::host::{CARRIER_LIMIT, attach_each, connection, mesh, wait_all_on};
use weft_tests::kernel::drop_arriving;
use weft_tests::traffic::{Echo, Torrent, pattern, ping, tcp_round_trip, udp_round_trip, wait_reaches};
use weft_tests::{Container, Host, deadline, scenario};

const SECRET: &str = "a secret of some length";
const UNDERLAY: &str = "10.99.0.0/24";

fn soon(from: &Container, to: &Container) -> Result<()> {
    wait_reaches(from.netns(), to.address(), Duration::from_secs(5)).map(drop)
}

/// Every container speaks with every other, in all the ways that applications do.
fn all_speak(containers: &[Container]) -> Result<()> {
    let _echoes = containers.iter().map(|one| Echo::start(one.netns())).collect::<Result<Vec<_>>>()?;
    for from in containers {
        for to in containers.iter().filter(|to| to.address() != from.address()) {
            let way = || format!("{} → {}", from.name(), to.name());
            soon(from, to).with_context(way)?;
            let pings = ping(from.netns(), to.address(), 3, 56)?;
            ensure!(pings.received == 3, "{}: {pings:?}", way());
            let large = ping(from.netns(), to.address(), 2, 10_000)?;
            ensure!(large.received == 2, "{}: 10,000-byte pings: {large:?}", way());
            ensure!(udp_round_trip(from.netns(), to.address(), &pattern(1200))?, "{}: no UDP", way());
            ensure!(udp_round_trip(from.netns(), to.address(), &pattern(9000))?, "{}: no large UDP", way());
            let sent = pattern(200_000);
            ensure!(tcp_round_trip(from.netns(), to.address(), &sent)? == sent, "{}: TCP garbled", way());
        }
    }
    Ok(())
}

/// Everybody is on fastpath and says why.
fn all_on_fastpath(hosts: &[Host], why: &str) -> Result<()> {
    wait_all_on(hosts, "fastpath")?;
    for host in hosts {
        for peer in hosts.iter().filter(|peer| peer.name() != host.name()) {
            let connection = host.wait_reason(peer, "fastpath", why, CARRIER_LIMIT)?;
            ensure!(connection["encrypted"] == false, "frames on fastpath are in clear: {connection:#}");
            let mtu = connection["mtu"].as_u64();
            ensure!(mtu.is_some_and(|mtu| (1000..=1500).contains(&mtu)), "{connection:#}");
        }
    }
    Ok(())
}

#[test]
fn two_hosts_without_a_secret_are_served_by_the_kernel() -> Result<()> {
    scenario(|fabric| {
        let mut hosts = fabric.hosts(2)?;
        mesh(&mut hosts, &[])?;
        all_on_fastpath(&hosts, "no secret")?;
        all_speak(&attach_each(fabric, &hosts)?)
    })
}

#[test]
fn three_hosts_with_a_secret_that_all_trust_the_underlay_are_served_by_the_kernel() -> Result<()> {
    scenario(|fabric| {
        let mut hosts = fabric.hosts(3)?;
        hosts.iter_mut().for_each(|host| host.set_secret(SECRET));
        mesh(&mut hosts, &["--trusted-subnets", UNDERLAY])?;
        all_on_fastpath(&hosts, "trusted at both ends")?;
        all_speak(&attach_each(fabric, &hosts)?)
    })
}

#[test]
fn the_routers_do_not_work_more_when_gigabytes_pass_by_fastpath() -> Result<()> {
    const TIME: Duration = Duration::from_secs(3);
    scenario(|fabric| {
        let mut hosts = fabric.hosts(2)?;
        mesh(&mut hosts, &[])?;
        wait_all_on(&hosts, "fastpath")?;
        let containers = attach_each(fabric, &hosts)?;
        soon(&containers[0], &containers[1])?;
        let used = || -> Result<Vec<Duration>> {
            hosts.iter().map(|host| host.running()?.processor_time()).collect()
        };
        let rise = |from: Vec<Duration>, to: Vec<Duration>| -> Vec<Duration> {
            from.into_iter().zip(to).map(|(from, to)| to.saturating_sub(from)).collect()
        };
        let begin = used()?;
        deadline::pause(TIME);
        let idle = rise(begin, used()?);
        let begin = used()?;
        let torrent = Torrent::start(&containers[0], &containers[1], Duration::ZERO)?;
        deadline::pause(TIME);
        let busy = rise(begin, used()?);
        let carried = torrent.finish()?;
        // Heartbeats are four times as frequent on a link that carries data; a frame in user space costs far more.
        let allowed = Duration::from_millis(100);
        for (idle, busy) in idle.iter().zip(&busy) {
            ensure!(*busy <= *idle + allowed, "{idle:?} idle, {busy:?} with {} bytes", carried.bytes);
        }
        ensure!(carried.bytes > 100 << 20, "only {} bytes went through", carried.bytes);
        Ok(())
    })
}

#[test]
fn one_side_without_fastpath_leaves_both_on_sleeve_and_both_say_which_side() -> Result<()> {
    scenario(|fabric| {
        let mut hosts = fabric.hosts(2)?;
        let addresses: Vec<String> = hosts.iter().map(|host| host.address().to_string()).collect();
        hosts[0].launch(&["--no-fastpath", &addresses[1]])?;
        hosts[1].launch(&[&addresses[0]])?;
        weft_tests::host::settle(&mut hosts)?;
        hosts[0].wait_reason(&hosts[1], "sleeve", "switched off here (--no-fastpath)", CARRIER_LIMIT)?;
        hosts[1].wait_reason(
            &hosts[0],
            "sleeve",
            "switched off at the peer (--no-fastpath)",
            CARRIER_LIMIT,
        )?;
        all_speak(&attach_each(fabric, &hosts)?)
    })
}

#[test]
fn trust_on_one_side_only_leaves_both_on_sleeve_encrypted() -> Result<()> {
    scenario(|fabric| {
        let mut hosts = fabric.hosts(2)?;
        hosts.iter_mut().for_each(|host| host.set_secret(SECRET));
        let addresses: Vec<String> = hosts.iter().map(|host| host.address().to_string()).collect();
        hosts[0].launch(&["--trusted-subnets", UNDERLAY, &addresses[1]])?;
        hosts[1].launch(&[&addresses[0]])?;
        weft_tests::host::settle(&mut hosts)?;
        hosts[0].wait_reason(&hosts[1], "sleeve", "not trusted at the peer", CARRIER_LIMIT)?;
        hosts[1].wait_reason(&hosts[0], "sleeve", "secret set and link not trusted", CARRIER_LIMIT)?;
        for (host, peer) in [(&hosts[0], "host2"), (&hosts[1], "host1")] {
            let status = host.status()?;
            let connection = connection(&status, peer).context("no connection")?;
            ensure!(connection["encrypted"] == true, "{connection:#}");
        }
        all_speak(&attach_each(fabric, &hosts)?)
    })
}

#[test]
fn a_blocked_vxlan_port_leaves_both_on_sleeve_and_the_reason_names_the_port() -> Result<()> {
    scenario(|fabric| {
        let mut hosts = fabric.hosts(2)?;
        for host in &hosts {
            drop_arriving(host.netns(), "udp dport 6784")?;
        }
        mesh(&mut hosts, &[])?;
        for (host, peer) in [(&hosts[0], &hosts[1]), (&hosts[1], &hosts[0])] {
            host.wait_reason(peer, "sleeve", "UDP 6784 blocked", CARRIER_LIMIT)?;
        }
        all_speak(&attach_each(fabric, &hosts)?)
    })
}

#[test]
fn a_vxlan_port_blocked_at_one_host_only_is_named_where_it_is() -> Result<()> {
    scenario(|fabric| {
        let mut hosts = fabric.hosts(2)?;
        drop_arriving(hosts[1].netns(), "udp dport 6784")?;
        mesh(&mut hosts, &[])?;
        hosts[0].wait_reason(&hosts[1], "sleeve", "UDP 6784 blocked there", CARRIER_LIMIT)?;
        hosts[1].wait_reason(&hosts[0], "sleeve", "UDP 6784 blocked here", CARRIER_LIMIT)?;
        all_speak(&attach_each(fabric, &hosts)?)
    })
}

#[test]
fn an_underlay_that_takes_no_packets_of_full_size_leaves_both_on_sleeve_and_says_so() -> Result<()> {
    scenario(|fabric| {
        let mut hosts = fabric.hosts(2)?;
        fabric.limit_packet(1300)?;
        mesh(&mut hosts, &[])?;
        for (host, peer) in [(&hosts[0], &hosts[1]), (&hosts[1], &hosts[0])] {
            let connection = host.wait_reason(peer, "sleeve", "VXLAN needs", CARRIER_LIMIT)?;
            let reason = connection["reason"].as_str().unwrap_or_default();
            ensure!(reason.contains("path"), "{connection:#}");
        }
        all_speak(&attach_each(fabric, &hosts)?)
    })
}

#[test]
fn without_any_way_there_is_no_carrier_until_there_is_one_again() -> Result<()> {
    scenario(|fabric| {
        let mut hosts = fabric.hosts(2)?;
        mesh(&mut hosts, &[])?;
        wait_all_on(&hosts, "fastpath")?;
        let containers = attach_each(fabric, &hosts)?;
        soon(&containers[0], &containers[1])?;
        fabric.block_udp(&[6783, 6784])?;
        for (host, peer) in [(&hosts[0], "host2"), (&hosts[1], "host1")] {
            host.wait_status("no carrier, and why", CARRIER_LIMIT, |status| {
                connection(status, peer).is_some_and(|connection| {
                    let reason = connection["reason"].as_str().unwrap_or_default();
                    connection["carrier"].is_null()
                        && reason.contains("heartbeats")
                        && reason.contains("UDP 6784 blocked")
                })
            })?;
        }
        fabric.heal()?;
        all_on_fastpath(&hosts, "no secret")?;
        soon(&containers[0], &containers[1])
    })
}

#[test]
fn hosts_with_an_address_and_ports_of_their_choice_are_served_by_the_kernel_there() -> Result<()> {
    scenario(|fabric| {
        let mut hosts = fabric.hosts(2)?;
        let addresses: Vec<String> = hosts.iter().map(|host| host.address().to_string()).collect();
        for (host, (own, other)) in hosts.iter_mut().zip([(0, 1), (1, 0)]) {
            let peer = format!("{}:7000", addresses[other]);
            host.launch(&["--listen", &addresses[own], "--port", "7000", &peer])?;
        }
        weft_tests::host::settle(&mut hosts)?;
        all_on_fastpath(&hosts, "no secret")?;
        let containers = attach_each(fabric, &hosts)?;
        all_speak(&containers)?;
        fabric.block_udp_way(&hosts[0], &hosts[1], 7001)?;
        hosts[0].wait_reason(&hosts[1], "sleeve", "UDP 7001 blocked there", CARRIER_LIMIT)?;
        hosts[1].wait_reason(&hosts[0], "sleeve", "UDP 7001 blocked here", CARRIER_LIMIT)?;
        soon(&containers[0], &containers[1])
    })
}

/// Gives every host an IPv6 address and makes them a mesh by it.
fn mesh_over_ipv6(hosts: &mut [Host], arguments: &[&str]) -> Result<()> {
    let address = |number: usize| format!("fd99::{}", number + 1);
    let numbers = 0..hosts.len();
    for (number, host) in hosts.iter().enumerate() {
        host.netns().ip(&format!("addr add {}/64 dev eth0 nodad", address(number)))?;
    }
    for (number, host) in hosts.iter_mut().enumerate() {
        let peers = numbers.clone().filter(|other| *other != number);
        let peers: Vec<String> = peers.map(|other| format!("[{}]:6783", address(other))).collect();
        let words: Vec<&str> = arguments.iter().copied().chain(peers.iter().map(String::as_str)).collect();
        host.launch(&words)?;
    }
    weft_tests::host::settle(hosts)
}

#[test]
fn hosts_that_meet_over_ipv6_are_served_by_the_kernel_too() -> Result<()> {
    scenario(|fabric| {
        let mut hosts = fabric.hosts(2)?;
        // VXLAN over IPv6 adds 70 bytes; the default leaves room for 50.
        mesh_over_ipv6(&mut hosts, &["--mtu", "1430"])?;
        all_on_fastpath(&hosts, "no secret")?;
        let links = weft_tests::kernel::links(hosts[0].netns())?;
        ensure!(links.contains_key("weft-v6"), "{links:?}");
        all_speak(&attach_each(fabric, &hosts)?)
    })
}

/// A VXLAN device sends what it has learned about to its own port, whatever port the other one listens on.
#[test]
fn hosts_with_different_vxlan_ports_reach_each_other_all_the_same() -> Result<()> {
    scenario(|fabric| {
        let mut hosts = fabric.hosts(2)?;
        let addresses: Vec<String> = hosts.iter().map(|host| host.address().to_string()).collect();
        hosts[0].launch(&["--vxlan-port", "8472", &addresses[1]])?;
        hosts[1].launch(&[&addresses[0]])?;
        weft_tests::host::settle(&mut hosts)?;
        // Long enough for whatever is preferred to be chosen: the containers come when it is.
        deadline::pause(Duration::from_secs(2));
        all_speak(&attach_each(fabric, &hosts)?)?;
        for (host, peer) in [(&hosts[0], "host2"), (&hosts[1], "host1")] {
            let status = host.status()?;
            let connection = connection(&status, peer).context("no connection")?;
            let reason = connection["reason"].as_str().unwrap_or_default();
            ensure!(connection["carrier"] == "fastpath" || reason.contains("port"), "{connection:#}");
        }
        Ok(())
    })
}
