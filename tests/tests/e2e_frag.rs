//! Paths that swallow large packets without a word: slow to find out, but never broken.

use std::time::Duration;

use anyhow::{Result, ensure};
use weft_tests::traffic::{carry, pattern, ping, wait_reaches};
use weft_tests::{Container, Fabric, Host, deadline, host, scenario};

fn pair(fabric: &Fabric, hosts: &mut [Host]) -> Result<(Container, Container)> {
    host::mesh(hosts, &["--no-fastpath"])?;
    let mut c1 = fabric.container("c1")?;
    let mut c2 = fabric.container("c2")?;
    hosts[0].attach(&mut c1)?;
    hosts[1].attach(&mut c2)?;
    Ok((c1, c2))
}

/// Waits for an answered 10,000-byte ping.
fn large_ping_works(from: &Container, to: &Container, limit: Duration) -> Result<()> {
    let answered = || Ok(ping(from.netns(), to.address(), 1, 10_000)?.received == 1);
    deadline::until_true("a 10,000-byte ping is answered", limit, answered).map(drop)
}

#[test]
fn a_mesh_forms_and_carries_large_pings_where_datagrams_over_700_bytes_vanish() -> Result<()> {
    scenario(|fabric| {
        let mut hosts = fabric.hosts(2)?;
        for host in &mut hosts {
            host.set_secret("a secret of some length");
        }
        fabric.limit_udp(700)?;
        let (c1, c2) = pair(fabric, &mut hosts)?;
        wait_reaches(c1.netns(), c2.address(), Duration::from_secs(10))?;
        large_ping_works(&c1, &c2, Duration::from_secs(35))?;
        let file = pattern(1 << 20);
        ensure!(carry(&c1, &c2, &file)? == file, "TCP garbled");
        Ok(())
    })
}

#[test]
fn a_path_that_shrinks_under_a_running_mesh_is_measured_anew() -> Result<()> {
    scenario(|fabric| {
        let mut hosts = fabric.hosts(2)?;
        for host in &mut hosts {
            host.set_secret("a secret of some length");
        }
        let (c1, c2) = pair(fabric, &mut hosts)?;
        wait_reaches(c1.netns(), c2.address(), Duration::from_secs(5))?;
        large_ping_works(&c1, &c2, Duration::from_secs(5))?;
        fabric.limit_packet(1300)?;
        large_ping_works(&c1, &c2, Duration::from_secs(35))?;
        hosts[0].wait_reaches(&["host2"], Duration::from_secs(5))?;
        let file = pattern(1 << 20);
        ensure!(carry(&c2, &c1, &file)? == file, "TCP garbled");
        Ok(())
    })
}

#[test]
fn one_packet_in_fifty_lost_hurts_but_breaks_nothing() -> Result<()> {
    scenario(|fabric| {
        let mut hosts = fabric.hosts(2)?;
        let (c1, c2) = pair(fabric, &mut hosts)?;
        wait_reaches(c1.netns(), c2.address(), Duration::from_secs(5))?;
        fabric.lose(20)?;
        let file = pattern(1 << 20);
        ensure!(carry(&c1, &c2, &file)? == file, "TCP garbled");
        let stays = || Ok(host::reachable(&hosts[0].status()?) == ["host2"]);
        deadline::throughout("the peer stays reachable", Duration::from_secs(5), stays)
    })
}
