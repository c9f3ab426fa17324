//! Coming and going: routers launched alone become one cluster, hosts join and leave under running traffic.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use weft_tests::host::settle;
use weft_tests::traffic::{Echo, Flow, wait_reaches};
use weft_tests::{Fabric, deadline, host, scenario};

/// All orders in which three hosts can be joined one to the next.
const ORDERS: [[usize; 3]; 6] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];

/// Launches three routers alone, lets each do `alone`, joins them in `order` and checks that one cluster came of it.
fn join(fabric: &Fabric, order: [usize; 3], primed: bool, first_in_use: bool) -> Result<()> {
    let mut hosts = fabric.hosts(3)?;
    for host in &mut hosts {
        host.launch(&[])?;
        host.wait_ready()?;
        if primed {
            host.expect(&["prime", "--timeout", "5s"])?;
        }
    }
    let mut containers =
        (1..=3).map(|number| fabric.container(&format!("c{number}"))).collect::<Result<Vec<_>>>()?;
    if first_in_use {
        hosts[order[0]].attach(&mut containers[order[0]])?;
    }
    hosts[order[0]].peer_add(&hosts[order[1]])?;
    hosts[order[1]].peer_add(&hosts[order[2]])?;
    settle(&mut hosts)?;
    for (host, container) in hosts.iter().zip(&mut containers) {
        host.attach(container)?;
    }
    for host in &hosts {
        let status = host.wait_status("ready and not split", Duration::from_secs(5), |status| {
            status["ready"] == true && status["ipam"]["state"] == "ready"
        })?;
        ensure!(status["ipam"]["used"] == 1, "{}: {:#}", host.name(), status["ipam"]);
    }
    for (from, to) in [(0, 1), (1, 2), (2, 0)] {
        let (from, to) = (&containers[from], &containers[to]);
        ensure!(from.address() != to.address(), "{} twice", from.address());
        wait_reaches(from.netns(), to.address(), Duration::from_secs(5))?;
    }
    Ok(())
}

#[test]
fn routers_launched_alone_become_one_cluster_in_any_order() -> Result<()> {
    for order in ORDERS {
        scenario(|fabric| join(fabric, order, false, false)).with_context(|| format!("order {order:?}"))?;
    }
    Ok(())
}

#[test]
fn routers_that_were_primed_alone_become_one_cluster_in_any_order() -> Result<()> {
    for order in ORDERS {
        scenario(|fabric| join(fabric, order, true, false)).with_context(|| format!("order {order:?}"))?;
    }
    Ok(())
}

#[test]
fn a_cluster_in_use_takes_in_routers_that_are_not() -> Result<()> {
    for order in [[0, 1, 2], [2, 0, 1], [1, 2, 0]] {
        scenario(|fabric| join(fabric, order, true, true)).with_context(|| format!("order {order:?}"))?;
    }
    Ok(())
}

#[test]
fn a_host_joins_and_leaves_a_live_mesh_without_a_loss_between_the_others() -> Result<()> {
    scenario(|fabric| {
        let mut hosts = fabric.hosts(4)?;
        let mut fourth = hosts.pop().context("four hosts")?;
        host::mesh(&mut hosts, &[])?;
        // The first change of carrier is not what is measured here.
        host::wait_all_on(&hosts, "fastpath")?;
        let mut c1 = fabric.container("c1")?;
        let mut c2 = fabric.container("c2")?;
        hosts[0].attach(&mut c1)?;
        hosts[1].attach(&mut c2)?;
        let _echo = Echo::start(c2.netns())?;
        wait_reaches(c1.netns(), c2.address(), Duration::from_secs(5))?;
        let flow = Flow::start(c1.netns(), c2.address(), Duration::from_millis(20))?;

        fourth.launch(&[])?;
        fourth.wait_ready()?;
        hosts[2].peer_add(&fourth)?;
        fourth.wait_reaches(&["host1", "host2", "host3"], Duration::from_secs(10))?;
        let mut c4 = fabric.container("c4")?;
        fourth.attach(&mut c4)?;
        wait_reaches(c4.netns(), c1.address(), Duration::from_secs(5))?;

        let target = fourth.address().to_string();
        hosts[2].expect(&["peer", "forget", &target])?;
        let status = hosts[2].status()?;
        ensure!(!status["targets"].to_string().contains(&target), "still a target: {}", status["targets"]);
        let refused = hosts[0].weft(&["peer", "remove", "host4"])?;
        ensure!(refused.code == 1, "a reachable peer was removed: {refused:?}");
        fourth.terminate()?;
        hosts[0].wait_reaches(&["host2", "host3"], Duration::from_secs(5))?;
        hosts[0].expect(&["peer", "remove", "host4"])?;
        for host in &hosts {
            host.wait_status("the fourth is forgotten", Duration::from_secs(5), |status| {
                host::peer(status, "host4").is_none()
            })?;
        }
        let report = flow.finish()?;
        ensure!(
            report.lost() == 0,
            "{} of {} lost, longest {:?}",
            report.lost(),
            report.sent(),
            report.longest_silence()
        );
        Ok(())
    })
}

#[test]
fn targets_survive_a_kill() -> Result<()> {
    scenario(|fabric| {
        let mut hosts = fabric.hosts(2)?;
        for host in &mut hosts {
            host.launch(&["--no-discovery"])?;
            host.wait_ready()?;
        }
        hosts[0].peer_add(&hosts[1])?;
        hosts[0].wait_reaches(&["host2"], Duration::from_secs(5))?;
        hosts[0].kill()?;
        hosts[0].launch(&["--no-discovery", "--resume"])?;
        hosts[0].wait_ready()?;
        let status = hosts[0].wait_reaches(&["host2"], Duration::from_secs(6))?;
        let target = hosts[1].address().to_string();
        ensure!(status["targets"].to_string().contains(&target), "{}", status["targets"]);
        Ok(())
    })
}

#[test]
fn targets_can_be_replaced_and_forgotten_while_running() -> Result<()> {
    scenario(|fabric| {
        let mut hosts = fabric.hosts(2)?;
        for host in &mut hosts {
            host.launch(&["--no-discovery"])?;
            host.wait_ready()?;
        }
        hosts[0].expect(&["peer", "add", "10.99.0.201", "10.99.0.202:7000"])?;
        let status = hosts[0].status()?;
        let bogus = status["targets"].to_string();
        ensure!(bogus.contains("10.99.0.201") && bogus.contains("10.99.0.202:7000"), "{bogus}");
        let good = hosts[1].address().to_string();
        hosts[0].expect(&["peer", "add", "--replace", &good])?;
        let status = hosts[0].wait_reaches(&["host2"], Duration::from_secs(3))?;
        ensure!(!status["targets"].to_string().contains("10.99.0.20"), "{}", status["targets"]);

        // Forgotten: the live connection stays, and is not dialled again once it has ended.
        hosts[0].expect(&["peer", "forget", &good])?;
        let stays = || Ok(host::reachable(&hosts[0].status()?) == ["host2"]);
        deadline::throughout("the connection stays", Duration::from_secs(1), stays)?;
        hosts[1].kill()?;
        hosts[1].launch(&["--no-discovery"])?;
        // Not ready: the ring was never seeded, and the quorum it knew of does not shrink.
        hosts[1].wait_status("it answers", Duration::from_secs(5), |_| true)?;
        hosts[0].wait_reaches(&[], Duration::from_secs(3))?;
        let apart = || Ok(host::reachable(&hosts[0].status()?).is_empty());
        deadline::throughout("nobody dials", Duration::from_secs(6), apart)
    })
}
