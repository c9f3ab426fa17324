//! The router goes and comes back, and the kernel's carrier does not notice.
//!
//! ```text
//!   c1 ── host1 ─────── host2 ── c2      fastpath: the kernels forward; only the routers are killed, frozen, replaced
//! ```

use std::time::Duration;

use anyhow::{Result, ensure};
use weft_tests::host::{CARRIER_LIMIT, mesh, wait_all_on};
use weft_tests::kernel::{self, Kernel};
use weft_tests::traffic::{Pulse, Torrent, wait_reaches};
use weft_tests::{Container, Fabric, Host, deadline, scenario};

const BEAT: Duration = Duration::from_millis(10);

/// Plays `absence` under a ping and a TCP stream: nothing may be lost and nothing in either kernel made anew.
fn unnoticed(absence: impl FnOnce(&mut [Host]) -> Result<()>) -> Result<()> {
    scenario(|fabric| {
        let mut hosts = fabric.hosts(2)?;
        mesh(&mut hosts, &[])?;
        let mut c1 = fabric.container("c1")?;
        let mut c2 = fabric.container("c2")?;
        hosts[0].attach(&mut c1)?;
        hosts[1].attach(&mut c2)?;
        wait_all_on(&hosts, "fastpath")?;
        wait_reaches(c1.netns(), c2.address(), Duration::from_secs(5))?;
        let look =
            |hosts: &[Host]| hosts.iter().map(|host| Kernel::look(host.netns())).collect::<Result<Vec<_>>>();
        let before = look(&hosts)?;
        ensure!(
            before.iter().all(|kernel| kernel.links.contains_key("weft-vx") && !kernel.written.is_empty()),
            "{before:#?}"
        );
        let there = Pulse::start(c1.netns(), c2.address(), BEAT)?;
        let back = Pulse::start(c2.netns(), c1.address(), BEAT)?;
        let tcp = Torrent::start(&c1, &c2, BEAT)?;
        deadline::pause(Duration::from_millis(500));

        absence(&mut hosts)?;
        ensure!(look(&hosts)? == before, "while it was away: {:#?}, before: {before:#?}", look(&hosts)?);
        wait_all_on(&hosts, "fastpath")?;
        deadline::pause(Duration::from_secs(3));
        let after = look(&hosts)?;
        ensure!(after == before, "after its return: {after:#?}, before: {before:#?}");
        wait_all_on(&hosts, "fastpath")?;

        for (way, pulse) in [("c1 → c2", there), ("c2 → c1", back)] {
            let trail = pulse.finish()?;
            ensure!(trail.sent() > 300 && trail.lost() == 0 && trail.doubled() == 0, "{way}: {trail}");
        }
        tcp.finish()?;
        Ok(())
    })
}

/// Starts the router of the second host again, with the first as its peer.
fn again(hosts: &mut [Host]) -> Result<()> {
    let peer = hosts[0].address().to_string();
    hosts[1].launch(&[&peer])?;
    hosts[1].wait_ready()?;
    Ok(())
}

#[test]
fn a_router_killed_and_started_again_ten_seconds_later_costs_fastpath_no_packet() -> Result<()> {
    unnoticed(|hosts| {
        hosts[1].kill()?;
        deadline::pause(Duration::from_secs(10));
        again(hosts)
    })
}

#[test]
fn a_router_that_stands_still_for_thirty_seconds_costs_fastpath_no_packet() -> Result<()> {
    unnoticed(|hosts| {
        hosts[1].freeze()?;
        deadline::pause(Duration::from_secs(30));
        hosts[1].thaw()
    })
}

#[test]
fn a_router_that_is_replaced_costs_fastpath_no_packet() -> Result<()> {
    unnoticed(|hosts| {
        ensure!(hosts[1].terminate()? == 0, "SIGTERM must end it with 0");
        again(hosts)
    })
}

#[test]
fn all_routers_killed_and_started_again_cost_fastpath_no_packet() -> Result<()> {
    unnoticed(|hosts| {
        hosts.iter_mut().try_for_each(Host::kill)?;
        deadline::pause(Duration::from_secs(5));
        let peer = hosts[1].address().to_string();
        hosts[0].launch(&[&peer])?;
        again(hosts)
    })
}

/// Two hosts on fastpath with a container each.
fn pair(fabric: &Fabric) -> Result<(Vec<Host>, Container, Container)> {
    let mut hosts = fabric.hosts(2)?;
    mesh(&mut hosts, &[])?;
    let (mut c1, mut c2) = (fabric.container("c1")?, fabric.container("c2")?);
    hosts[0].attach(&mut c1)?;
    hosts[1].attach(&mut c2)?;
    wait_all_on(&hosts, "fastpath")?;
    wait_reaches(c1.netns(), c2.address(), Duration::from_secs(5))?;
    ensure!(rules_name_peers(&hosts[0])?, "the filter names no peer: what follows would prove nothing");
    Ok((hosts, c1, c2))
}

/// Waits until no forwarding entry of a host leads to another, and its filter lets nothing of it in.
fn nothing_left_of(gone: &Host, host: &Host) -> Result<()> {
    let address = gone.address().to_string();
    let names =
        |text: &str| text.split(|c: char| !c.is_ascii_digit() && c != '.').any(|word| word == address);
    let nothing = || {
        let rules = kernel::nft(host.netns(), "list table inet weft-weft\n")?;
        Ok(!names(&rules) && !kernel::forwarding(host.netns())?.iter().any(|entry| names(entry)))
    };
    deadline::until_true("the kernel forgets the peer", Duration::from_secs(5), nothing).map(drop)
}

fn rules_name_peers(host: &Host) -> Result<bool> {
    Ok(kernel::nft(host.netns(), "list set inet weft-weft sources4\n")?.contains("10.99."))
}

#[test]
fn a_router_that_comes_back_without_fastpath_leaves_both_on_sleeve_and_nothing_in_the_kernels() -> Result<()>
{
    scenario(|fabric| {
        let (mut hosts, c1, c2) = pair(fabric)?;
        hosts[1].terminate()?;
        let peer = hosts[0].address().to_string();
        hosts[1].launch(&["--no-fastpath", &peer])?;
        hosts[1].wait_ready()?;
        hosts[0].wait_reason(&hosts[1], "sleeve", "--no-fastpath", CARRIER_LIMIT)?;
        hosts[1].wait_reason(&hosts[0], "sleeve", "--no-fastpath", CARRIER_LIMIT)?;
        wait_reaches(c1.netns(), c2.address(), Duration::from_secs(2))?;
        wait_reaches(c2.netns(), c1.address(), Duration::from_secs(2))?;
        nothing_left_of(&hosts[1], &hosts[0])?;
        let links = kernel::links(hosts[1].netns())?;
        ensure!(!links.contains_key("weft-vx"), "the device stands although nobody wants it: {links:?}");
        Ok(())
    })
}

#[test]
fn nothing_is_left_in_the_kernel_of_a_peer_that_was_removed() -> Result<()> {
    scenario(|fabric| {
        let (mut hosts, ..) = pair(fabric)?;
        hosts[1].kill()?;
        hosts[0].wait_reaches(&[], Duration::from_secs(5))?;
        deadline::pause(Duration::from_secs(1));
        ensure!(rules_name_peers(&hosts[0])?, "the kernel forgot a peer that may come back");
        hosts[0].expect(&["peer", "remove", "host2"])?;
        nothing_left_of(&hosts[1], &hosts[0])
    })
}

#[test]
fn nothing_is_left_in_the_kernel_of_a_peer_that_left() -> Result<()> {
    scenario(|fabric| {
        let (hosts, ..) = pair(fabric)?;
        hosts[1].expect(&["reset"])?;
        nothing_left_of(&hosts[1], &hosts[0])
    })
}
