//! A host that keeps record of connections, and has no room for one more: D6 of the catalogue (`docs/faults.md`).
//!
//! ```text
//!   c1 ── host1 ────┬──── host2 ── c2       traffic that must go on
//!                   │
//!               stranger                    datagrams from many sources, a record each
//! ```
//!
//! How many records there may be is a setting of the machine (`nf_conntrack_max`, which no namespace can change), but each
//! namespace may have so many of its own. So the table is filled, not made small. What fills it are records of datagrams
//! that nobody answered: the kernel gives one of those up for a new connection, where it finds one nearby. A table full
//! of connections that both sides have spoken on is not tried.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use weft_tests::attack::{Datagram, forge};
use weft_tests::host::{attach_each, mesh, wait_all_on};
use weft_tests::traffic::{Echo, Pulse, tcp_round_trip, wait_reaches};
use weft_tests::{Fabric, Netns, deadline, kernel, scenario};

const BEAT: Duration = Duration::from_millis(20);
/// A port on which nobody listens.
const DISCARD: u16 = 9;
/// The largest table that is filled: each record is 300 bytes of the kernel's memory.
const LARGEST: usize = 300_000;
/// New connections between containers while the table is full.
const CONNECTIONS: usize = 30;
/// An administrator who lets in what is new, and so has the kernel keep records.
const KEEPS_RECORDS: &str = "table inet administrator {
  chain input {
    type filter hook input priority 0
    ct state new counter accept
  }
}\n";

/// A number that the kernel tells of its records.
fn setting(host: &Netns, name: &str) -> Result<usize> {
    let path = format!("/proc/sys/net/netfilter/nf_conntrack_{name}");
    let text = host.run(|| std::fs::read_to_string(&path).context("the kernel keeps no records"))?;
    Ok(text.trim().parse()?)
}

/// How often a record was given up for another.
fn given_up(host: &Netns) -> Result<u64> {
    let shown = host.run(|| Ok(std::fs::read_to_string("/proc/thread-self/net/stat/nf_conntrack")?))?;
    let mut lines = shown.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let column = lines.next().and_then(|names| names.iter().position(|name| *name == "early_drop"));
    let column = column.context("no early_drop")?;
    lines.map(|numbers| Ok(u64::from_str_radix(numbers.get(column).context("cut")?, 16)?)).sum()
}

/// A datagram from each of so many sources.
fn from_everywhere(to: Ipv4Addr, count: usize) -> Vec<Datagram> {
    let to = SocketAddrV4::new(to, DISCARD);
    let source = |number: usize| {
        let [_, a, b, c] =
            u32::try_from(number).unwrap_or(u32::MAX).wrapping_mul(2_654_435_761).to_be_bytes();
        SocketAddrV4::new(
            Ipv4Addr::new(11, a, b, c),
            1024 + u16::try_from(number % 60_000).unwrap_or_default(),
        )
    };
    (0..count).map(|number| Datagram { from: source(number), to, payload: Vec::new() }).collect()
}

#[expect(clippy::print_stdout, reason = "figures are read by people, with --nocapture")]
fn full(fabric: &Fabric, carrier: &str) -> Result<()> {
    let stranger = fabric.host("stranger")?;
    let mut hosts = fabric.hosts(2)?;
    let host = hosts[0].netns().clone();
    kernel::nft(&host, KEEPS_RECORDS)?;
    mesh(&mut hosts, if carrier == "sleeve" { &["--no-fastpath"] } else { &[] })?;
    let containers = attach_each(fabric, &hosts)?;
    wait_all_on(&hosts, carrier)?;
    let _echo = Echo::start(containers[1].netns())?;
    wait_reaches(containers[0].netns(), containers[1].address(), Duration::from_secs(5))?;
    let most = setting(&host, "max")?;
    ensure!(most <= LARGEST, "this machine keeps {most} records: lower nf_conntrack_max to run this test");
    let traffic = Pulse::start(containers[0].netns(), containers[1].address(), BEAT)?;

    forge(stranger.netns(), &from_everywhere(hosts[0].address(), most + most / 4))?;
    let (kept, begin) = (setting(&host, "count")?, deadline::now());
    for _ in 0..CONNECTIONS {
        let answer = tcp_round_trip(containers[0].netns(), containers[1].address(), b"is there room?")?;
        ensure!(answer == b"is there room?", "something else answers");
    }
    let took = begin.elapsed();
    wait_all_on(&hosts, carrier)?;
    let (traffic, given_up) = (traffic.finish()?, given_up(&host)?);
    println!(
        "D6, {carrier}: {kept} of {most} records, {given_up} given up; {CONNECTIONS} connections in {took:.1?}; {traffic}"
    );
    ensure!(
        kept + most / 50 > most && given_up > 0,
        "it was not full: {kept} of {most}, {given_up} given up"
    );
    ensure!(traffic.lost() == 0 && traffic.doubled() == 0, "between containers: {traffic}");
    Ok(())
}

#[test]
fn d6_a_table_of_connections_full_of_datagrams_keeps_no_frame_from_its_way_by_fastpath() -> Result<()> {
    scenario(|fabric| full(fabric, "fastpath"))
}

#[test]
fn d6_a_table_of_connections_full_of_datagrams_keeps_no_frame_from_its_way_by_sleeve() -> Result<()> {
    scenario(|fabric| full(fabric, "sleeve"))
}
