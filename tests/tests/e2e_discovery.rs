//! Who finds whom: with discovery two strangers meet through a friend, without it only the friend is dialled.
//!
//! ```text
//!   a ──▶ b ◀── c        a and c are told of b only; all three could reach each other
//! ```

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use weft_tests::traffic::{reaches, wait_reaches};
use weft_tests::{Container, Fabric, Host, deadline, host, scenario};

struct Stage {
    a: Host,
    b: Host,
    c: Host,
    ca: Container,
    cc: Container,
}

fn stage(fabric: &Fabric, arguments: &[&str]) -> Result<Stage> {
    let [mut a, mut b, mut c] = [fabric.host("a")?, fabric.host("b")?, fabric.host("c")?];
    let middle = b.address().to_string();
    b.launch(arguments)?;
    a.launch(&[arguments, &[middle.as_str()]].concat())?;
    c.launch(&[arguments, &[middle.as_str()]].concat())?;
    for host in [&mut a, &mut b, &mut c] {
        host.wait_ready()?;
    }
    a.wait_reaches(&["b", "c"], Duration::from_secs(10))?;
    c.wait_reaches(&["a", "b"], Duration::from_secs(10))?;
    let mut ca = fabric.container("ca")?;
    let mut cc = fabric.container("cc")?;
    a.attach(&mut ca)?;
    c.attach(&mut cc)?;
    Ok(Stage { a, b, c, ca, cc })
}

#[test]
fn with_discovery_strangers_link_up_and_do_without_the_friend() -> Result<()> {
    scenario(|fabric| {
        let mut stage = stage(fabric, &["--no-fastpath"])?;
        stage.a.wait_status("a is linked with c", Duration::from_secs(10), |status| {
            host::connection(status, "c").is_some()
        })?;
        wait_reaches(stage.ca.netns(), stage.cc.address(), Duration::from_secs(5))?;
        stage.b.kill()?;
        stage.a.wait_reaches(&["c"], Duration::from_secs(5))?;
        wait_reaches(stage.ca.netns(), stage.cc.address(), Duration::from_secs(2))?;
        Ok(())
    })
}

#[test]
fn without_discovery_the_friend_carries_everything_and_is_missed() -> Result<()> {
    scenario(|fabric| {
        let mut stage = stage(fabric, &["--no-fastpath", "--no-discovery"])?;
        wait_reaches(stage.ca.netns(), stage.cc.address(), Duration::from_secs(5))?;
        let unlinked = || Ok(host::connection(&stage.a.status()?, "c").is_none());
        deadline::throughout("a does not dial c", Duration::from_secs(4), unlinked)?;
        let status = stage.a.status()?;
        let peer = host::peer(&status, "c").context("c is unknown")?;
        ensure!(peer["hops"] == 2, "{peer:#}");
        stage.b.kill()?;
        stage.a.wait_reaches(&[], Duration::from_secs(5))?;
        stage.c.wait_reaches(&[], Duration::from_secs(5))?;
        ensure!(!reaches(stage.ca.netns(), stage.cc.address())?, "frames still cross, but how?");
        Ok(())
    })
}

#[test]
fn gossip_about_addresses_crosses_a_peer_that_gives_none() -> Result<()> {
    scenario(|fabric| {
        let [mut a, mut b, mut c] = [fabric.host("a")?, fabric.host("b")?, fabric.host("c")?];
        let middle = b.address().to_string();
        let range = ["--no-discovery", "--no-fastpath", "--range", "10.32.0.0/24"];
        b.launch(&["--no-discovery", "--no-fastpath", "--range", "none"])?;
        a.launch(&[&range[..], &["--init", "seed=a", &middle]].concat())?;
        c.launch(&[&range[..], &["--init", "seed=a", &middle]].concat())?;
        c.wait_reaches(&["a", "b"], Duration::from_secs(10))?;
        a.expect(&["prime"])?;
        let (one, two) = (a.allocated("on-a")?, c.allocated("on-c")?);
        ensure!(one != two, "{one} twice");
        Ok(())
    })
}
