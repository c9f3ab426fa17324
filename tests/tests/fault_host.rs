//! Faults of the host under a real router: B7, E1 and E3 of the catalogue (`docs/faults.md`).
//!
//! The router that stands still does so for 20 seconds, the starved one for 15; `WEFT_LONG=60` makes it 60 both.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use weft_tests::host::{attach_each, mesh, reachable, settle, wait_all_on};
use weft_tests::starve::Starved;
use weft_tests::traffic::{Pulse, wait_reaches};
use weft_tests::{Container, Fabric, Host, deadline, scenario};

const BEAT: Duration = Duration::from_millis(20);
/// Ten years, in seconds.
const DECADE: i64 = 315_360_000;

/// How long a fault lasts: what is named here, or what the environment says.
fn lasting(seconds: u64) -> Result<Duration> {
    let said = std::env::var("WEFT_LONG").map_or(Ok(seconds), |text| text.parse().context("WEFT_LONG"))?;
    Ok(Duration::from_secs(said))
}

fn stage(fabric: &Fabric, count: usize, arguments: &[&str]) -> Result<(Vec<Host>, Vec<Container>)> {
    let mut hosts = fabric.hosts(count)?;
    mesh(&mut hosts, arguments)?;
    let containers = attach_each(fabric, &hosts)?;
    wait_all_on(&hosts, if arguments.contains(&"--no-fastpath") { "sleeve" } else { "fastpath" })?;
    for other in &containers[1..] {
        wait_reaches(containers[0].netns(), other.address(), Duration::from_secs(5))?;
    }
    Ok((hosts, containers))
}

/// Gives out an address on each host; none may be one of those given out before.
fn allocate_anew(hosts: &[&Host], given: &mut BTreeSet<Ipv4Addr>, round: &str) -> Result<()> {
    for host in hosts {
        let address = host.allocated(&format!("{}-{round}", host.name()))?;
        ensure!(given.insert(address), "{address} was given twice, the second time on {}", host.name());
    }
    Ok(())
}

#[test]
fn e1_a_router_that_stands_still_costs_the_others_nothing_and_no_address_is_given_twice() -> Result<()> {
    let lasting = lasting(20)?;
    scenario(|fabric| {
        let (mut hosts, containers) = stage(fabric, 3, &[])?;
        let mut given: BTreeSet<Ipv4Addr> = containers.iter().map(Container::address).collect();
        let others = Pulse::start(containers[0].netns(), containers[1].address(), BEAT)?;
        let frozen = Pulse::start(containers[0].netns(), containers[2].address(), BEAT)?;
        hosts[2].freeze()?;
        allocate_anew(&[&hosts[0], &hosts[1]], &mut given, "frozen")?;
        let healthy = || -> Result<bool> {
            let one = reachable(&hosts[0].status()?).contains(&"host2".to_owned());
            let two = reachable(&hosts[1].status()?).contains(&"host1".to_owned());
            deadline::pause(Duration::from_millis(200));
            Ok(one && two)
        };
        deadline::throughout("the others reach each other", lasting, healthy)?;
        allocate_anew(&[&hosts[0], &hosts[1]], &mut given, "still-frozen")?;
        hosts[2].thaw()?;
        let begin = deadline::now();
        settle(&mut hosts)?;
        let took = begin.elapsed();
        allocate_anew(&[&hosts[2], &hosts[0], &hosts[1]], &mut given, "thawed")?;
        let (others, frozen) = (others.finish()?, frozen.finish()?);
        println!(
            "E1: still for {lasting:?}, whole again after {took:.1?}; others: {others}; to its container: {frozen}"
        );
        ensure!(others.lost() == 0 && others.doubled() == 0, "between the others: {others}");
        // The kernel goes on forwarding for a router that stands still; `e2e_carrier_restart` counts what that loses.
        ensure!(frozen.longest_gap() < Duration::from_secs(1), "by fastpath to its container: {frozen}");
        Ok(())
    })
}

#[test]
fn e3_a_router_that_gets_five_percent_of_a_processor_loses_no_peer_and_is_lost_by_none() -> Result<()> {
    let lasting = lasting(15)?;
    scenario(|fabric| {
        let (hosts, containers) = stage(fabric, 4, &[])?;
        let mut given: BTreeSet<Ipv4Addr> = containers.iter().map(Container::address).collect();
        let lost = |host: &Host| -> Result<usize> {
            Ok(host.log()?.lines().filter(|line| line.contains("session lost")).count())
        };
        let before = hosts.iter().map(lost).collect::<Result<Vec<_>>>()?;
        let traffic = Pulse::start(containers[0].netns(), containers[3].address(), BEAT)?;
        let starved = Starved::start(&hosts[3])?;
        let whole = || -> Result<bool> {
            deadline::pause(Duration::from_millis(200));
            for host in &hosts[..3] {
                let reached = reachable(&host.status()?);
                ensure!(reached.len() == 3, "{} reaches only {reached:?}", host.name());
            }
            Ok(true)
        };
        deadline::throughout("all reach all", lasting, whole)?;
        let all: Vec<&Host> = hosts.iter().collect();
        allocate_anew(&all, &mut given, "starved")?;
        starved.finish()?;
        let reached = reachable(&hosts[3].status()?);
        ensure!(reached.len() == 3, "the starved one reaches only {reached:?}");
        allocate_anew(&all, &mut given, "fed")?;
        let trail = traffic.finish()?;
        let after = hosts.iter().map(lost).collect::<Result<Vec<_>>>()?;
        println!(
            "E3: starved for {lasting:?}; lines of lost peers {before:?} → {after:?}; to its container: {trail}"
        );
        ensure!(before == after, "peers were lost: {before:?} → {after:?} lines");
        ensure!(trail.lost() == 0 && trail.doubled() == 0, "by fastpath to its container: {trail}");
        Ok(())
    })
}

#[test]
fn b7_a_host_whose_clock_jumps_by_ten_years_keeps_its_peers_its_containers_and_its_addresses() -> Result<()> {
    scenario(|fabric| {
        let (mut hosts, mut containers) = stage(fabric, 2, &[])?;
        let mut given: BTreeSet<Ipv4Addr> = containers.iter().map(Container::address).collect();
        let traffic = Pulse::start(containers[0].netns(), containers[1].address(), BEAT)?;
        let peer = hosts[1].address().to_string();
        // Forwards, backwards, forwards again: each start finds what the one before left ten years away.
        for (round, offset) in [("forwards", DECADE), ("back", 0), ("again", DECADE)] {
            hosts[0].kill()?;
            hosts[0].set_clock(offset);
            hosts[0].launch(&[&peer])?;
            settle(&mut hosts)?;
            let again = hosts[0].attach(&mut containers[0])?;
            ensure!(given.contains(&again), "{round}: the container's address became {again}");
            let all: Vec<&Host> = hosts.iter().collect();
            allocate_anew(&all, &mut given, round)?;
            hosts[0].wait_carrier(&hosts[1], "fastpath", Duration::from_secs(15))?;
        }
        let trail = traffic.finish()?;
        println!("B7: {trail}");
        ensure!(trail.lost() == 0 && trail.doubled() == 0, "traffic: {trail}");
        Ok(())
    })
}
