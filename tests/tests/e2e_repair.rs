//! What others delete or bend comes back, and containers only blink.
//!
//! ```text
//!   c1, d1 ── host1 ─────── host2 ── c2      fastpath; all the damage is done on host1
//! ```

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use weft_tests::host::{mesh, wait_all_on};
use weft_tests::kernel::{self, Kernel};
use weft_tests::traffic::{ping, wait_reaches};
use weft_tests::{Netns, deadline, scenario};

/// How soon what the kernel tells of must be repaired.
const REPAIRED: Duration = Duration::from_secs(2);
/// How soon what it tells nobody of must be found and repaired.
const FOUND: Duration = Duration::from_secs(30);
/// Whether the bridge listens to router advertisements: a setting that changes in silence.
const SILENT: &str = "/proc/sys/net/ipv6/conf/weft/accept_ra";

/// All that the router keeps in order in a host: bridge ports with their flags, what is in its link group, the host's own address on the bridge,
/// forwarding entries, the filter.
fn order(host: &Netns) -> Result<String> {
    let run = |program: &str, words: &[&str]| -> Result<String> {
        host.execute(Command::new(program).args(words), "", Duration::from_secs(10))?.success(program)
    };
    let mut ports: Vec<String> = run("bridge", &["-d", "-o", "link", "show"])?
        .lines()
        // The index changes when a device is made anew, and the ends of cables tell their partner's.
        .filter_map(|line| line.split_once(": ").map(|(_, rest)| rest.replace("@if", "@ ")))
        .collect();
    ports.sort();
    let groups = host.ip("-o link show group 0x77656674")?;
    let mut grouped: Vec<&str> = groups.lines().filter_map(|line| line.split([':', '@']).nth(1)).collect();
    grouped.sort_unstable();
    let shown = host.ip("-4 -o addr show dev weft")?;
    let addresses: Vec<&str> = shown.lines().filter_map(|line| line.split_whitespace().nth(3)).collect();
    let settings = host.run(|| Ok(std::fs::read_to_string(SILENT)?))?;
    let written: Vec<String> = Kernel::look(host)?.written.into_iter().collect();
    let table = run("nft", &["list", "table", "inet", "weft-weft"])?;
    let table: Vec<&str> =
        table.lines().map(|line| line.split("counter").next().unwrap_or_default()).collect();
    Ok([
        ports.join("\n"),
        grouped.join("\n"),
        addresses.join("\n"),
        settings,
        written.join("\n"),
        table.join("\n"),
    ]
    .join("\n\n"))
}

/// Waits until everything is in the order it was in.
fn all_as_before(host: &Netns, before: &str, limit: Duration) -> Result<()> {
    let mut last = String::new();
    let same = || {
        last = order(host)?;
        Ok(last == before)
    };
    let repaired = deadline::until_true("all is as before", limit, same);
    repaired.map(drop).with_context(|| format!("it is\n{last}\n\nand was\n{before}"))
}

/// Does damage in the first host and watches everything come back.
fn repaired(damage: impl Fn(&Netns) -> Result<()>) -> Result<()> {
    repaired_within(REPAIRED, damage)
}

fn repaired_within(limit: Duration, damage: impl Fn(&Netns) -> Result<()>) -> Result<()> {
    scenario(|fabric| {
        let mut hosts = fabric.hosts(2)?;
        mesh(&mut hosts, &[])?;
        let mut containers = Vec::new();
        for (host, name) in [(&hosts[0], "c1"), (&hosts[0], "d1"), (&hosts[1], "c2")] {
            let mut container = fabric.container(name)?;
            host.attach(&mut container)?;
            containers.push(container);
        }
        let [c1, d1, c2] = &containers[..] else { anyhow::bail!("three containers") };
        wait_all_on(&hosts, "fastpath")?;
        let pairs = [(c1, c2), (c1, d1), (c2, d1)];
        for (from, to) in pairs {
            wait_reaches(from.netns(), to.address(), Duration::from_secs(5))?;
        }
        hosts[0].expect(&["expose"])?;
        let before = order(hosts[0].netns())?;
        let addresses = |of: &[weft_tests::Container]| {
            of.iter().map(weft_tests::Container::addresses_in_kernel).collect::<Result<Vec<_>>>()
        };
        let had = addresses(&containers)?;

        // First while the router stands still, so that the damage is seen to be one; then under its eyes.
        for frozen in [true, false] {
            if frozen {
                hosts[0].freeze()?;
                damage(hosts[0].netns())?;
                let damaged = order(hosts[0].netns()).ok();
                hosts[0].thaw()?;
                ensure!(
                    damaged.is_none_or(|now| now != before),
                    "no damage was done: this test proves nothing"
                );
            } else {
                damage(hosts[0].netns())?;
            }
            all_as_before(hosts[0].netns(), &before, limit)?;
            for (from, to) in pairs {
                wait_reaches(from.netns(), to.address(), REPAIRED)?;
                let pings = ping(from.netns(), to.address(), 3, 56)?;
                ensure!(pings.received == 3, "repaired, but {} → {}: {pings:?}", from.name(), to.name());
            }
            ensure!(addresses(&containers)? == had, "a container lost its address");
            wait_all_on(&hosts, "fastpath")?;
            all_as_before(hosts[0].netns(), &before, limit)?;
        }
        Ok(())
    })
}

#[test]
fn a_deleted_vxlan_device_comes_back() -> Result<()> {
    repaired(|host| host.ip("link del dev weft-vx").map(drop))
}

#[test]
fn a_deleted_default_entry_comes_back() -> Result<()> {
    repaired(|host| {
        let entry = "fdb del 00:00:00:00:00:00 dev weft-vx dst 10.99.0.2 self";
        kernel::bridge(host, entry)
    })
}

#[test]
fn the_isolation_of_the_tunnel_ports_comes_back() -> Result<()> {
    repaired(|host| {
        kernel::bridge(host, "link set dev weft-vx isolated off")?;
        kernel::bridge(host, "link set dev weft-sl isolated off")
    })
}

#[test]
fn links_taken_from_their_group_are_put_back() -> Result<()> {
    repaired(|host| {
        host.ip("link set dev weft group default")?;
        host.ip("link set dev weft-io group 7").map(drop)
    })
}

#[test]
fn the_deleted_filter_comes_back() -> Result<()> {
    repaired(|host| kernel::nft(host, "delete table inet weft-weft\n").map(drop))
}

#[test]
fn an_emptied_filter_is_filled_again() -> Result<()> {
    repaired(|host| kernel::nft(host, "flush table inet weft-weft\n").map(drop))
}

#[test]
fn the_deleted_bridge_comes_back_with_all_its_ports() -> Result<()> {
    repaired(|host| host.ip("link del dev weft").map(drop))
}

#[test]
fn a_tunnel_that_was_taken_down_and_out_of_the_bridge_comes_back() -> Result<()> {
    repaired(|host| host.ip("link set dev weft-vx nomaster down").map(drop))
}

#[test]
fn what_the_kernel_tells_nobody_of_is_found_within_thirty_seconds() -> Result<()> {
    repaired_within(FOUND, |host| host.run(|| Ok(std::fs::write(SILENT, "1")?)))
}
