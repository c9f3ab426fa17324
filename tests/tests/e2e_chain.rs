//! Through the one in the middle: hosts that cannot reach each other are joined by one that reaches both.
//!
//! ```text
//!   ca            cb             cc
//!    │             │              │
//!    a ── seg0 ──  b  ── seg1 ──  c        a and c share no segment and no route
//! ```

use std::time::Duration;

use anyhow::{Result, ensure};
use weft_tests::traffic::{self, Copies, Echo, carry, pattern, ping, reaches, wait_reaches};
use weft_tests::{deadline, host, scenario};

#[test]
fn the_ends_of_a_chain_reach_each_other_through_the_middle() -> Result<()> {
    scenario(|fabric| {
        let mut a = fabric.host_on("a", &[0])?;
        let mut b = fabric.host_on("b", &[0, 1])?;
        let mut c = fabric.host_on("c", &[1])?;
        for end in [&mut a, &mut b, &mut c] {
            end.set_secret("a secret of some length");
        }
        b.launch(&[])?;
        a.launch(&[&b.addresses()[0].to_string()])?;
        c.launch(&[&b.addresses()[1].to_string()])?;
        for end in [&mut a, &mut b, &mut c] {
            end.wait_ready()?;
        }
        let seen_by_a = a.wait_reaches(&["b", "c"], Duration::from_secs(10))?;
        c.wait_reaches(&["a", "b"], Duration::from_secs(10))?;
        ensure!(!reaches(a.netns(), c.address())?, "the ends reach each other: this is no chain");
        let far = host::peer(&seen_by_a, "c").cloned().unwrap_or_default();
        let middle = b.peer_name()?;
        ensure!(far["hops"] == 2, "{far:#}");
        ensure!(far["via"] == middle.as_str() || far["via"] == "b", "{far:#}");

        let mut ca = fabric.container("ca")?;
        let mut cb = fabric.container("cb")?;
        let mut cc = fabric.container("cc")?;
        a.attach(&mut ca)?;
        b.attach(&mut cb)?;
        c.attach(&mut cc)?;
        wait_reaches(ca.netns(), cc.address(), Duration::from_secs(5))?;
        wait_reaches(cc.netns(), cb.address(), Duration::from_secs(5))?;
        ensure!(ping(ca.netns(), cc.address(), 5, 56)?.received == 5, "pings are lost");
        ensure!(ping(cc.netns(), ca.address(), 3, 10_000)?.received == 3, "large pings are lost");
        let _echo = Echo::start(cc.netns())?;
        let sent = pattern(500_000);
        ensure!(traffic::tcp_round_trip(ca.netns(), cc.address(), &sent)? == sent, "TCP garbled");
        let file = pattern(4 << 20);
        ensure!(carry(&cc, &ca, &file)? == file, "the file arrived garbled");

        let ears = [Copies::start(&cb, 7100, None)?, Copies::start(&cc, 7100, None)?];
        traffic::broadcast(&ca, 7100, b"along the chain")?;
        let arrived = || Ok(ears.iter().all(|ear| ear.of(b"along the chain") > 0));
        deadline::until_true("the broadcast arrives at both", Duration::from_secs(3), arrived)?;
        deadline::pause(Duration::from_millis(300));
        ensure!(ears.iter().all(|ear| ear.of(b"along the chain") == 1), "a broadcast was doubled");
        Ok(())
    })
}

#[test]
fn a_link_that_breaks_is_bypassed_and_used_again_when_it_heals() -> Result<()> {
    scenario(|fabric| {
        let mut hosts = fabric.hosts(3)?;
        host::mesh(&mut hosts, &["--no-fastpath"])?;
        let mut c1 = fabric.container("c1")?;
        let mut c3 = fabric.container("c3")?;
        hosts[0].attach(&mut c1)?;
        hosts[2].attach(&mut c3)?;
        wait_reaches(c1.netns(), c3.address(), Duration::from_secs(5))?;
        fabric.cut(&hosts[0], &hosts[2])?;
        hosts[0].wait_status("host3 is two hops away", Duration::from_secs(5), |status| {
            host::peer(status, "host3").is_some_and(|peer| peer["hops"] == 2 && peer["reachable"] == true)
        })?;
        wait_reaches(c1.netns(), c3.address(), Duration::from_secs(5))?;
        fabric.heal()?;
        hosts[0].wait_status("host3 is a neighbour again", Duration::from_secs(20), |status| {
            host::peer(status, "host3").is_some_and(|peer| peer["hops"] == 1)
        })?;
        wait_reaches(c1.netns(), c3.address(), Duration::from_secs(5)).map(drop)
    })
}
