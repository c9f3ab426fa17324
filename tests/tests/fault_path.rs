//! The underlay's MTU changes under running TCP: D3 of the catalogue (`docs/faults.md`).
//!
//! ```text
//!   silent:  host1 (c1) ──┬── host2 (c2)   fastpath        told:  host1 ── seg0 ── router ── seg1 ── host2, host3
//!                         └── host3 (c3)   sleeve                 the router says "fragmentation needed"
//! ```
//!
//! The cables carry no super-packets (see `fabric.rs`), so a packet of 1300 bytes is one on the wire.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use weft_tests::host::{attach_each, connection, settle};
use weft_tests::traffic::{Torrent, wait_reaches};
use weft_tests::{Container, Fabric, Host, deadline, scenario};

/// What the path takes while it is narrow, bytes of an IP packet.
const NARROW: u16 = 1300;
/// How soon a stream must go on.
const STANDSTILL: Duration = Duration::from_secs(5);
/// How long it stays narrow.
const LASTING: Duration = Duration::from_secs(10);
/// How soon the path must be found to be wide again.
const WIDENS: Duration = Duration::from_secs(60);
/// Between two chunks of 16 KiB: 3 MB/s.
const PACE: Duration = Duration::from_millis(5);

struct Stage {
    hosts: Vec<Host>,
    containers: Vec<Container>,
}

/// Launches the hosts, the third without fastpath, and gives each a container.
fn stage(fabric: &Fabric, mut hosts: Vec<Host>) -> Result<Stage> {
    let addresses: Vec<String> = hosts.iter().map(|host| host.address().to_string()).collect();
    for (number, host) in hosts.iter_mut().enumerate() {
        let mut words: Vec<&str> = addresses.iter().map(String::as_str).collect();
        words.remove(number);
        if number == 2 {
            words.push("--no-fastpath");
        }
        host.launch(&words)?;
    }
    settle(&mut hosts)?;
    let containers = attach_each(fabric, &hosts)?;
    let soon = Duration::from_secs(15);
    hosts[0].wait_carrier(&hosts[1], "fastpath", soon)?;
    hosts[1].wait_carrier(&hosts[0], "fastpath", soon)?;
    for (from, to) in [(0, 1), (0, 2)] {
        wait_reaches(containers[from].netns(), containers[to].address(), Duration::from_secs(5))?;
    }
    Ok(Stage { hosts, containers })
}

/// The largest packet that is sent to a peer, as its host says.
fn path_mtu(from: &Host, to: &Host) -> Result<u64> {
    let status = from.status()?;
    let connection = connection(&status, to.name()).context("no connection")?;
    connection["mtu"].as_u64().with_context(|| format!("no mtu: {connection}"))
}

/// What a narrow path did.
#[derive(Debug)]
struct Felt {
    /// The longest standstill of each stream, by its ends.
    gaps: Vec<(usize, usize, Duration)>,
    /// The ends of the last stream: what the path took from one to the other before, and at the end.
    last: (usize, usize),
    wide: u64,
    narrow: u64,
}

/// Narrows the path under streams.
fn narrowed(stage: &Stage, streams: &[(usize, usize)], narrow: impl FnOnce() -> Result<()>) -> Result<Felt> {
    let Stage { hosts, containers } = stage;
    let last = *streams.last().context("no streams")?;
    let mtu = || path_mtu(&hosts[last.0], &hosts[last.1]);
    deadline::until_true("the path is measured", Duration::from_secs(20), || Ok(mtu()? > 1400))?;
    let wide = mtu()?;
    let start = |(from, to): &(usize, usize)| Torrent::start(&containers[*from], &containers[*to], PACE);
    let running = streams.iter().map(start).collect::<Result<Vec<_>>>()?;
    deadline::pause(Duration::from_secs(2));
    let begin = deadline::now();
    narrow()?;
    deadline::pause(LASTING);
    let end = deadline::now();
    let mut gaps = Vec::new();
    for ((from, to), torrent) in streams.iter().zip(running) {
        let carried = torrent.finish().with_context(|| format!("from c{} to c{}", from + 1, to + 1))?;
        gaps.push((from + 1, to + 1, carried.longest_gap(begin, end)));
    }
    Ok(Felt { gaps, last, wide, narrow: mtu()? })
}

impl Felt {
    /// Streams went on, and what the path takes was noticed.
    fn judge(&self) -> Result<()> {
        for (from, to, gap) in &self.gaps {
            ensure!(*gap < STANDSTILL, "from c{from} to c{to} TCP stood still for {gap:.1?}: {self:?}");
        }
        ensure!(self.narrow <= u64::from(NARROW), "nobody noticed: {self:?}");
        Ok(())
    }

    /// How soon as much is sent as before, once the path is wide again.
    fn widened(&self, stage: &Stage) -> Result<Duration> {
        let hosts = &stage.hosts;
        let wide =
            || Ok(path_mtu(&hosts[self.last.0], &hosts[self.last.1]).is_ok_and(|mtu| mtu >= self.wide));
        deadline::until_true("the path is wide again", WIDENS, wide)
    }
}

#[test]
fn d3_a_path_that_swallows_large_packets_without_a_word_holds_no_sleeve_stream_for_five_seconds() -> Result<()>
{
    scenario(|fabric| {
        let stage = stage(fabric, fabric.hosts(3)?)?;
        let felt = narrowed(&stage, &[(0, 2), (2, 0)], || fabric.limit_packet(NARROW))?;
        felt.judge()?;
        fabric.heal()?;
        let wide = felt.widened(&stage)?;
        println!("D3 silent: {felt:.1?}, wide again after {wide:.1?}");
        stage.hosts[0].wait_carrier(&stage.hosts[1], "fastpath", WIDENS.saturating_sub(wide)).map(drop)
    })
}

#[test]
fn d3_a_path_that_swallows_large_packets_without_a_word_holds_no_fastpath_stream_for_five_seconds()
-> Result<()> {
    scenario(|fabric| {
        let stage = stage(fabric, fabric.hosts(3)?)?;
        let felt = narrowed(&stage, &[(0, 1)], || fabric.limit_packet(NARROW))?;
        println!("D3 silent, fastpath: {felt:.1?}");
        felt.judge()
    })
}

#[test]
fn d3_a_router_that_says_fragmentation_needed_holds_no_stream_for_five_seconds() -> Result<()> {
    scenario(|fabric| {
        let hosts = vec![
            fabric.host_on("host1", &[0])?,
            fabric.host_on("host2", &[1])?,
            fabric.host_on("host3", &[1])?,
        ];
        fabric.route(&hosts)?;
        let stage = stage(fabric, hosts)?;
        let mtu = |mtu: u16| -> Result<()> {
            for segment in [0, 1] {
                fabric.netns().ip(&format!("link set dev seg{segment} mtu {mtu}"))?;
            }
            Ok(())
        };
        let felt = narrowed(&stage, &[(0, 1), (0, 2), (2, 0)], || mtu(NARROW))?;
        felt.judge()?;
        mtu(1500)?;
        let wide = felt.widened(&stage)?;
        println!("D3 told: {felt:.1?}, wide again after {wide:.1?}");
        Ok(())
    })
}

#[test]
fn d3_hosts_whose_own_interfaces_get_a_smaller_mtu_hold_no_stream_for_five_seconds() -> Result<()> {
    scenario(|fabric| {
        let stage = stage(fabric, fabric.hosts(3)?)?;
        let felt = narrowed(&stage, &[(0, 1), (0, 2), (2, 0)], || {
            let mut all = stage.hosts.iter();
            all.try_for_each(|host| host.netns().ip(&format!("link set dev eth0 mtu {NARROW}")).map(drop))
        })?;
        println!("D3 own interfaces: {felt:.1?}");
        felt.judge()
    })
}
