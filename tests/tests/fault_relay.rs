//! UDP is blocked between two hosts and TCP is not, as by a firewall that was told half: D4 of the catalogue.
//!
//! ```text
//!   host1 (c1) ──── TCP alone ──── host2 (c2)
//!        └────────── host3 (c3) ────────┘
//! ```

use std::time::Duration;

use anyhow::{Result, ensure};
use weft_tests::host::{attach_each, mesh, peer, wait_all_on};
use weft_tests::traffic::{Copies, Echo, Flow, broadcast, wait_reaches};
use weft_tests::{Container, Fabric, Host, deadline, scenario};

/// The ports of sleeve and VXLAN.
const UDP: [u16; 2] = [6783, 6784];
/// How soon everything must go around, and how soon directly again.
const AROUND: Duration = Duration::from_secs(5);
const DIRECT: Duration = Duration::from_secs(30);
/// Where containers listen for broadcasts.
const PORT: u16 = 4_711;

/// A container forgets who is where: the next packet begins with a broadcast.
fn forget(container: &Container) -> Result<()> {
    container.netns().ip("neigh flush all").map(drop)
}

/// Says something to everybody and waits until it came to the others; each must have it once.
fn everybody_hears_once(from: &Container, ears: &[Copies], word: &str) -> Result<Duration> {
    let mut said = Vec::new();
    let mut say = |number: usize| {
        let payload = format!("{word} {number}").into_bytes();
        broadcast(from, PORT, &payload)?;
        deadline::pause(Duration::from_millis(100));
        let heard = ears.iter().all(|ear| ear.of(&payload) > 0);
        said.push(payload);
        Ok(heard)
    };
    let mut number = 0;
    let took = deadline::until_true("a broadcast comes to everybody", AROUND, || {
        number += 1;
        say(number)
    })?;
    deadline::pause(Duration::from_millis(200));
    let most = said.iter().flat_map(|payload| ears.iter().map(|ear| ear.of(payload))).max();
    ensure!(most == Some(1), "{most:?} copies of one broadcast");
    Ok(took)
}

#[expect(clippy::print_stdout, reason = "figures, with --nocapture")]
fn around(fabric: &Fabric, mut hosts: Vec<Host>, carrier: &str, arguments: &[&str]) -> Result<()> {
    mesh(&mut hosts, arguments)?;
    wait_all_on(&hosts, carrier)?;
    let containers = attach_each(fabric, &hosts)?;
    let (c1, c2) = (&containers[0], &containers[1]);
    wait_reaches(c1.netns(), c2.address(), AROUND)?;
    let _echo = Echo::start(c2.netns())?;
    let flow = Flow::start(c1.netns(), c2.address(), Duration::from_millis(10))?;
    let ears = [Copies::start(c2, PORT, None)?, Copies::start(&containers[2], PORT, None)?];
    for port in UDP {
        fabric.block_udp_way(&hosts[0], &hosts[1], port)?;
        fabric.block_udp_way(&hosts[1], &hosts[0], port)?;
    }
    let flooded = everybody_hears_once(c1, &ears, "blocked")?;
    forget(c1)?;
    forget(c2)?;
    let found = wait_reaches(c1.netns(), c2.address(), AROUND)?;
    hosts[0].wait_status("the way to host2 leads through host3", AROUND, |status| {
        let (two, three) = (peer(status, hosts[1].name()), peer(status, hosts[2].name()));
        two.zip(three).is_some_and(|(two, three)| two["hops"] == 2 && two["via"] == three["name"])
    })?;
    fabric.heal()?;
    let healed = deadline::until_true("all is direct again", DIRECT, || {
        let status = hosts[0].status()?;
        Ok(peer(&status, hosts[1].name()).is_some_and(|two| two["hops"] == 1))
    })?;
    hosts[0].wait_carrier(&hosts[1], carrier, DIRECT)?;
    everybody_hears_once(c1, &ears, "healed")?;
    let report = flow.finish()?;
    println!(
        "{carrier}: a broadcast comes around after {flooded:?}, a question for an address after {found:?}; direct again \
         {healed:?} after the end; pings: {} of {} lost, silent for {:?} at most",
        report.lost(),
        report.sent(),
        report.longest_silence()
    );
    ensure!(report.longest_silence() < AROUND, "{:?} of silence", report.longest_silence());
    Ok(())
}

#[test]
fn d4_where_no_udp_passes_between_two_frames_go_through_a_third_floods_included_sleeve() -> Result<()> {
    scenario(|fabric| {
        let mut hosts = fabric.hosts(3)?;
        hosts.iter_mut().for_each(|host| host.set_secret("a secret of some length"));
        around(fabric, hosts, "sleeve", &[])
    })
}

#[test]
fn d4_where_no_udp_passes_between_two_frames_go_through_a_third_floods_included_fastpath() -> Result<()> {
    scenario(|fabric| around(fabric, fabric.hosts(3)?, "fastpath", &[]))
}
