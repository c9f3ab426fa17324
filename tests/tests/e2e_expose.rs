//! The host on its own bridge: only when asked, and only as long.

use std::time::Duration;

use anyhow::{Result, ensure};
use weft_tests::traffic::{reaches, wait_reaches};
use weft_tests::{host, scenario};

#[test]
fn a_host_reaches_containers_once_it_is_exposed_and_no_longer_when_hidden() -> Result<()> {
    exposed_and_hidden(&["--no-fastpath"], "sleeve")
}

#[test]
fn a_host_on_fastpath_reaches_containers_once_it_is_exposed_and_no_longer_when_hidden() -> Result<()> {
    exposed_and_hidden(&[], "fastpath")
}

fn exposed_and_hidden(arguments: &[&str], carrier: &str) -> Result<()> {
    scenario(|fabric| {
        let mut hosts = fabric.hosts(2)?;
        host::mesh(&mut hosts, arguments)?;
        host::wait_all_on(&hosts, carrier)?;
        let mut near = fabric.container("near")?;
        let mut far = fabric.container("far")?;
        hosts[0].attach(&mut near)?;
        hosts[1].attach(&mut far)?;
        wait_reaches(near.netns(), far.address(), Duration::from_secs(5))?;
        ensure!(
            !reaches(hosts[0].netns(), near.address())?,
            "a host that is not exposed reaches a container"
        );

        let printed = hosts[0].expect(&["expose"])?;
        let address = host::first_address(&printed)?;
        ensure!(hosts[0].expect(&["expose"])? == printed, "expose is not idempotent");
        ensure!(hosts[0].netns().ip("-o addr show dev weft")?.contains(&format!("{address}/12")));
        wait_reaches(hosts[0].netns(), near.address(), Duration::from_secs(3))?;
        wait_reaches(hosts[0].netns(), far.address(), Duration::from_secs(3))?;
        wait_reaches(far.netns(), address, Duration::from_secs(3))?;

        // Kept across a kill, and not given to a container meanwhile.
        hosts[0].kill()?;
        let peer = hosts[1].address().to_string();
        hosts[0].launch(&[arguments, &[&peer]].concat())?;
        hosts[0].wait_ready()?;
        let mut late = fabric.container("late")?;
        ensure!(hosts[0].attach(&mut late)? != address, "the host's own address was given away");
        wait_reaches(hosts[0].netns(), near.address(), Duration::from_secs(5))?;

        hosts[0].expect(&["hide"])?;
        hosts[0].expect(&["hide"])?;
        ensure!(!hosts[0].netns().ip("-o addr show dev weft")?.contains(&format!("{address}/12")));
        ensure!(!reaches(hosts[0].netns(), near.address())?, "a hidden host reaches a container");
        Ok(())
    })
}

#[test]
fn a_host_can_be_exposed_at_an_address_of_its_choice() -> Result<()> {
    scenario(|fabric| {
        let mut host = fabric.host("host1")?;
        host.launch(&[])?;
        host.wait_ready()?;
        let mut container = fabric.container("c1")?;
        host.attach(&mut container)?;
        let printed = host.expect(&["expose", "10.40.0.7/12"])?;
        ensure!(printed.trim() == "10.40.0.7/12", "{printed}");
        wait_reaches(container.netns(), "10.40.0.7".parse()?, Duration::from_secs(3)).map(drop)
    })
}
