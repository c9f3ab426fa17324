//! A router on the way translates addresses, and all at once otherwise: C7 of the catalogue (`docs/faults.md`).
//!
//! ```text
//!   c1 ── host1 ── seg0 ── fabric ── seg1 ── host2 ── c2
//!                          host1 is 10.99.1.101 over there, and then 10.99.1.102
//! ```
//!
//! The fabric translates packet by packet and keeps no record of connections: so the change comes at a moment of choice,
//! as when a real one is restarted, or has forgotten an entry.

use std::time::Duration;

use anyhow::{Result, ensure};
use weft_tests::host::{attach_each, settle, wait_all_on};
use weft_tests::traffic::{Pulse, wait_reaches};
use weft_tests::{Container, Fabric, Host, deadline, kernel, scenario};

const BEAT: Duration = Duration::from_millis(20);
const BEFORE: u8 = 101;
const AFTER: u8 = 102;
/// How soon sleeve must have followed.
const FOLLOWED: Duration = Duration::from_secs(2);
/// How long it is watched: a session that leads nowhere is found out late.
const WATCHED: Duration = Duration::from_secs(8);

/// Shows host1 to the other segment under one address for UDP and one for the rest. Whatever else it was known by leads
/// nowhere.
fn translate(fabric: &Fabric, udp: u8, rest: u8) -> Result<()> {
    let rules = format!(
        "add table ip translation
         delete table ip translation
         table ip translation {{
           chain outward {{
             type filter hook postrouting priority 0
             ip saddr 10.99.0.1 meta l4proto udp ip saddr set 10.99.1.{udp}
             ip saddr 10.99.0.1 ip saddr set 10.99.1.{rest}
           }}
           chain inward {{
             type filter hook prerouting priority -300
             ip daddr 10.99.1.{udp} meta l4proto udp ip daddr set 10.99.0.1 accept
             ip daddr 10.99.1.{rest} meta l4proto != udp ip daddr set 10.99.0.1 accept
             ip daddr {{ 10.99.1.{BEFORE}, 10.99.1.{AFTER} }} drop
           }}
         }}\n"
    );
    kernel::nft(fabric.netns(), &rules).map(drop)
}

/// host1 dials through the fabric; host2 could not dial it by the address it has.
fn stage(fabric: &Fabric) -> Result<(Vec<Host>, Vec<Container>)> {
    let mut hosts = vec![fabric.host_on("host1", &[0])?, fabric.host_on("host2", &[1])?];
    fabric.route(&hosts)?;
    for address in [BEFORE, AFTER] {
        fabric.netns().ip(&format!("addr add 10.99.1.{address}/24 dev seg1"))?;
    }
    translate(fabric, BEFORE, BEFORE)?;
    let peer = hosts[1].address().to_string();
    hosts[1].launch(&["--no-fastpath", "--init", "consensus=2"])?;
    hosts[0].launch(&["--no-fastpath", "--init", "consensus=2", &peer])?;
    settle(&mut hosts)?;
    let containers = attach_each(fabric, &hosts)?;
    wait_all_on(&hosts, "sleeve")?;
    wait_reaches(containers[0].netns(), containers[1].address(), Duration::from_secs(5))?;
    Ok((hosts, containers))
}

#[expect(clippy::print_stdout, reason = "figures are read by people, with --nocapture")]
fn followed(fabric: &Fabric, what: &str, udp: u8, rest: u8) -> Result<()> {
    let (mut hosts, containers) = stage(fabric)?;
    let inward = Pulse::start(containers[1].netns(), containers[0].address(), BEAT)?;
    let outward = Pulse::start(containers[0].netns(), containers[1].address(), BEAT)?;
    deadline::pause(Duration::from_millis(500));
    let begin = deadline::now();
    translate(fabric, udp, rest)?;
    deadline::pause(WATCHED);
    let end = deadline::now();
    let [outward, inward] = [outward.finish()?, inward.finish()?].map(|trail| trail.between(begin, end));
    println!("C7, {what}: out {outward}; in {inward}");
    for trail in [&outward, &inward] {
        ensure!(trail.sent() > 100, "hardly any traffic: {trail}");
        ensure!(trail.longest_gap() < FOLLOWED && trail.doubled() == 0, "not followed: {trail}");
    }
    // The mesh is whole, too.
    settle(&mut hosts)?;
    wait_all_on(&hosts, "sleeve")
}

#[test]
fn c7_sleeve_follows_a_peer_whose_datagrams_come_from_another_address() -> Result<()> {
    scenario(|fabric| followed(fabric, "datagrams only", AFTER, BEFORE))
}

#[test]
fn c7_sleeve_follows_a_peer_that_is_behind_another_address_with_all_it_says() -> Result<()> {
    scenario(|fabric| followed(fabric, "datagrams and session", AFTER, AFTER))
}
