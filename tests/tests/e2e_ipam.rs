//! Addresses: reused, claimed, reset, observed, seeded, moved to another range, kept.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Result, ensure};
use weft_tests::traffic::wait_reaches;
use weft_tests::{Host, deadline, host, scenario};

#[test]
fn an_address_is_reachable_at_once_when_another_container_takes_it_over() -> Result<()> {
    scenario(|fabric| {
        let mut hosts = fabric.hosts(2)?;
        host::mesh(&mut hosts, &["--no-fastpath"])?;
        let mut asker = fabric.container("asker")?;
        hosts[0].attach(&mut asker)?;
        let mut old = fabric.container("old")?;
        let address = hosts[1].attach(&mut old)?;
        wait_reaches(asker.netns(), address, Duration::from_secs(5))?;
        hosts[1].expect(&["detach", old.netns().name()])?;
        let mut new = fabric.container("new")?;
        let fixed = format!("{address}/12");
        ensure!(hosts[1].attach_with(&mut new, &["--address", &fixed])? == address);
        let took = wait_reaches(asker.netns(), address, Duration::from_secs(5))?;
        ensure!(took < Duration::from_millis(1500), "it took {took:?}");
        Ok(())
    })
}

#[test]
fn the_lowest_free_address_is_given_and_never_the_network_or_the_broadcast() -> Result<()> {
    scenario(|fabric| {
        let mut host = fabric.host("host1")?;
        host.launch(&["--range", "10.32.5.0/29"])?;
        host.wait_ready()?;
        let last = |n: u8| Ipv4Addr::new(10, 32, 5, n);
        for number in 1..=6 {
            ensure!(host.allocated(&format!("id{number}"))? == last(number));
        }
        ensure!(host.allocated("id3")? == last(3), "the same id, another address");
        let full = host.allocate("one-too-many")?;
        ensure!([1, 4].contains(&full.code) && full.stderr.contains("no free address"), "{full:?}");
        host.expect(&["ipam", "release", "--id", "id2"])?;
        host.expect(&["ipam", "release", "--id", "id2"])?;
        ensure!(host.lookup("id2")?.is_none());
        ensure!(host.allocated("again")? == last(2));
        Ok(())
    })
}

#[test]
fn a_claim_is_kept_or_refused_and_reaches_across_hosts() -> Result<()> {
    scenario(|fabric| {
        let mut hosts = fabric.hosts(2)?;
        host::mesh(&mut hosts, &["--range", "10.32.0.0/24", "--init", "seed=host1"])?;
        let claim = |host: &Host, id: &str, cidr: &str| {
            host.weft(&["ipam", "claim", "--timeout", "3s", "--id", id, cidr])
        };
        hosts[0].expect(&["prime"])?;
        // host1 owns the space: a claim at host2 has to be granted by it.
        ensure!(claim(&hosts[1], "mine", "10.32.0.77/24")?.code == 0);
        ensure!(
            claim(&hosts[1], "mine", "10.32.0.77/24")?.code == 0,
            "claiming again what one has is no error"
        );
        ensure!(claim(&hosts[1], "other", "10.32.0.77/24")?.code == 1, "somebody else has it");
        ensure!(
            claim(&hosts[0], "there", "10.32.0.77/24")?.code == 1,
            "somebody else has it on the other host"
        );
        ensure!(
            claim(&hosts[0], "outside", "192.168.7.1/24")?.code != 4,
            "out of our range: nothing to wait for"
        );
        ensure!(hosts[1].lookup("mine")? == Some(Ipv4Addr::new(10, 32, 0, 77)));

        // The owner away: a claim in its space waits and gives up; back: it is granted.
        hosts[0].freeze()?;
        hosts[1].wait_reaches(&[], Duration::from_secs(5))?;
        ensure!(claim(&hosts[1], "late", "10.32.0.3/24")?.code == 4, "nobody could have granted this");
        hosts[0].thaw()?;
        hosts[1].wait_reaches(&["host1"], Duration::from_secs(15))?;
        ensure!(claim(&hosts[1], "late", "10.32.0.3/24")?.code == 0);
        Ok(())
    })
}

#[test]
fn a_rolling_reset_leaves_a_cluster_that_gives_out_addresses() -> Result<()> {
    scenario(|fabric| {
        let mut hosts = fabric.hosts(2)?;
        host::mesh(&mut hosts, &["--range", "10.32.0.0/25"])?;
        hosts[0].allocated("a")?;
        hosts[1].allocated("b")?;
        for (index, other) in [(0, 1), (1, 0)] {
            hosts[index].expect(&["reset"])?;
            hosts[index].process()?.wait(Duration::from_secs(10))?;
            let peer = hosts[other].address().to_string();
            hosts[index].launch(&["--range", "10.32.0.0/25", &peer])?;
            hosts[index].wait_ready()?;
            host::settle(&mut hosts)?;
            let asked = deadline::now();
            hosts[index].allocated(&format!("after-reset-{index}"))?;
            ensure!(asked.elapsed() < Duration::from_secs(10));
        }
        let status = hosts[0].status()?;
        let owners = status["ipam"]["owners"].as_array().cloned().unwrap_or_default();
        let sum: u64 = owners.iter().filter_map(|owner| owner["addresses"].as_u64()).sum();
        ensure!(sum == 128, "space was lost: {:#}", status["ipam"]);
        Ok(())
    })
}

#[test]
fn observers_do_not_vote_but_can_call_for_the_election() -> Result<()> {
    scenario(|fabric| {
        let mut hosts = fabric.hosts(3)?;
        let addresses: Vec<String> = hosts.iter().map(|host| host.address().to_string()).collect();
        // A quorum of three is two electors: one elector and an observer are none.
        hosts[0].launch(&["--init", "consensus=3", &addresses[1]])?;
        hosts[1].launch(&["--init", "observer", &addresses[0]])?;
        hosts[0].wait_reaches(&["host2"], Duration::from_secs(10))?;
        hosts[1].wait_reaches(&["host1"], Duration::from_secs(10))?;
        ensure!(hosts[0].allocate("no-quorum")?.code == 4, "an observer was counted");
        ensure!(hosts[1].allocate("no-quorum-either")?.code == 4, "an observer was counted");
        hosts[2].launch(&["--init", "consensus=3", &addresses[0]])?;
        hosts[2].wait_reaches(&["host1", "host2"], Duration::from_secs(10))?;
        // Two electors of three are a majority; the observer's demand is what makes them vote.
        let address = hosts[1].allocated("called-by-the-observer")?;
        let other = hosts[0].allocated("on-an-elector")?;
        ensure!(address != other, "{address} twice");
        Ok(())
    })
}

#[test]
fn different_seeds_meet_without_a_crash() -> Result<()> {
    scenario(|fabric| {
        let mut hosts = fabric.hosts(2)?;
        hosts[0].launch(&["--init", "seed=host1"])?;
        hosts[1].launch(&["--init", "seed=host2"])?;
        for host in &mut hosts {
            host.wait_ready()?;
        }
        let (one, two) = (hosts[0].allocated("one")?, hosts[1].allocated("two")?);
        ensure!(one == two, "both seeded the whole range");
        hosts[0].peer_add(&hosts[1])?;
        for host in &hosts {
            host.wait_status("split", Duration::from_secs(10), |status| status["ipam"]["state"] == "split")?;
        }
        let alive = || Ok(hosts[0].status().is_ok() && hosts[1].status().is_ok());
        deadline::throughout("both routers live", Duration::from_secs(2), alive)
    })
}

#[test]
fn another_range_at_restart_starts_a_new_ring_says_so_and_keeps_what_is_in_use_on_record() -> Result<()> {
    scenario(|fabric| {
        let mut host = fabric.host("host1")?;
        host.launch(&["--range", "10.32.0.0/24"])?;
        host.wait_ready()?;
        let old = host.allocated("old")?;
        host.terminate()?;
        host.launch(&["--range", "10.50.0.0/24"])?;
        let status = host.wait_ready()?;
        ensure!(status["ipam"]["range"] == "10.50.0.0/24", "{:#}", status["ipam"]);
        ensure!(status["ipam"]["used"] == 0, "{:#}", status["ipam"]);
        ensure!(host.lookup("old")? == Some(old), "whoever uses {old} would not be found any more");
        ensure!(host.allocated("new")? == Ipv4Addr::new(10, 50, 0, 1));
        ensure!(host.log()?.contains("10.32.0.0/24"), "the log does not say which range was given up");
        Ok(())
    })
}

#[test]
fn ring_and_allocations_survive_the_end_of_the_whole_cluster() -> Result<()> {
    scenario(|fabric| {
        let mut hosts = fabric.hosts(2)?;
        host::mesh(&mut hosts, &["--range", "10.32.0.0/24"])?;
        let mut given = BTreeSet::new();
        for number in 0..5 {
            for host in &hosts {
                given.insert((
                    host.name().to_owned(),
                    format!("id{number}"),
                    host.allocated(&format!("id{number}"))?,
                ));
            }
        }
        let addresses: BTreeSet<Ipv4Addr> = given.iter().map(|(_, _, address)| *address).collect();
        ensure!(addresses.len() == 10, "an address was given twice: {given:?}");
        for host in &mut hosts {
            host.kill()?;
        }
        host::mesh(&mut hosts, &["--range", "10.32.0.0/24"])?;
        for (name, id, address) in &given {
            let host = hosts.iter().find(|host| host.name() == name);
            ensure!(
                host.is_some_and(|host| host.lookup(id).is_ok_and(|found| found == Some(*address))),
                "{name} {id}"
            );
        }
        for host in &hosts {
            ensure!(!addresses.contains(&host.allocated("fresh")?), "a kept address was given again");
        }
        Ok(())
    })
}

#[test]
fn a_container_that_vanished_while_the_router_was_down_gives_its_address_back() -> Result<()> {
    scenario(|fabric| {
        let mut host = fabric.host("host1")?;
        host.launch(&["--range", "10.32.0.0/24"])?;
        host.wait_ready()?;
        let mut stays = fabric.container("stays")?;
        let mut goes = fabric.container("goes")?;
        host.attach(&mut stays)?;
        host.attach(&mut goes)?;
        host.kill()?;
        drop(goes);
        host.launch(&["--range", "10.32.0.0/24"])?;
        host.wait_status("one address is used", Duration::from_secs(10), |status| {
            status["ready"] == true && status["ipam"]["used"] == 1
        })?;
        ensure!(host.attach(&mut stays)? == stays.address());
        Ok(())
    })
}

#[test]
fn without_a_range_there_are_no_addresses_but_given_ones_work() -> Result<()> {
    scenario(|fabric| {
        let mut hosts = fabric.hosts(2)?;
        host::mesh(&mut hosts, &["--range", "none", "--no-fastpath"])?;
        let status = hosts[0].status()?;
        ensure!(status["ipam"]["state"] == "off" && status["ready"] == true, "{:#}", status["ipam"]);
        ensure!(hosts[0].allocate("x")?.code == 1, "there is nothing to wait for");
        let mut c1 = fabric.container("c1")?;
        let mut c2 = fabric.container("c2")?;
        hosts[0].attach_with(&mut c1, &["--address", "192.168.50.1/24"])?;
        hosts[1].attach_with(&mut c2, &["--address", "192.168.50.2/24"])?;
        wait_reaches(c1.netns(), c2.address(), Duration::from_secs(5)).map(drop)
    })
}
