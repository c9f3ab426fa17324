//! The cable between the hosts, and the scissors.
//!
//! ```text
//!   host1            host2            host3          hosts: namespaces, eth<S> = 10.99.<S>.<N>/24, MTU 1500
//!     │ eth0           │ eth0           │ eth0
//!   ──┴────────────────┴────────────────┴──────      seg0: a bridge in the fabric's own namespace
//!        every fault is an nftables rule here
//! ```
//!
//! A second segment is a second bridge: a host that stands on both can reach both, the others cannot reach each other.
//! The cable carries no super-packets (`gso_max_segs 1`), so what passes here looks as it would on a real wire, and a
//! rule about the size of a datagram means what it says. Hosts never see a rule: to them a fault is silence.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::container::Container;
use crate::host::Host;
use crate::netns::Netns;

/// What every directory of ours begins with; the pid follows.
const PREFIX: &str = "weftt";

static SERIAL: AtomicU32 = AtomicU32::new(0);

/// An underlay with all that hangs on it: namespaces, faults and the directory that holds state and logs.
#[derive(Debug)]
pub struct Fabric {
    netns: Netns,
    home: PathBuf,
    hosts: AtomicU8,
    faults: Mutex<Faults>,
}

/// All that is broken at the moment; the rules are made from it anew at each change.
#[derive(Debug, Default)]
struct Faults {
    cut: BTreeSet<(String, String)>,
    silent: BTreeSet<String>,
    blocked_udp: BTreeSet<u16>,
    blocked_ways: BTreeSet<(String, String, u16)>,
    largest_udp: Option<u16>,
    largest_packet: Option<u16>,
    lost_per_mille: u16,
    segments: BTreeMap<String, Vec<u8>>,
}

impl Fabric {
    /// Makes an underlay with one segment and no host.
    ///
    /// # Errors
    /// When namespaces, bridges or the directory cannot be made.
    pub fn new() -> Result<Self> {
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let home = std::env::temp_dir().join(format!("{PREFIX}{}-{serial}", std::process::id()));
        let _ = std::fs::remove_dir_all(&home);
        std::fs::create_dir_all(&home).with_context(|| format!("cannot make {}", home.display()))?;
        let netns = Netns::create("fabric")?;
        Ok(Self { netns, home, hosts: AtomicU8::new(0), faults: Mutex::default() })
    }

    /// Where state, sockets and logs of all hosts live.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// The namespace all frames between hosts pass through: the place to listen.
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// Adds a host on segment 0.
    ///
    /// # Errors
    /// When the kernel refuses a link.
    pub fn host(&self, name: &str) -> Result<Host> {
        self.host_on(name, &[0])
    }

    /// Adds `count` hosts, `host1` and so on, on segment 0.
    ///
    /// # Errors
    /// When the kernel refuses a link.
    pub fn hosts(&self, count: usize) -> Result<Vec<Host>> {
        (1..=count).map(|number| self.host(&format!("host{number}"))).collect()
    }

    /// Adds a host that stands on each of the `segments`.
    ///
    /// # Errors
    /// When the kernel refuses a link.
    pub fn host_on(&self, name: &str, segments: &[u8]) -> Result<Host> {
        let number = self.hosts.fetch_add(1, Ordering::Relaxed) + 1;
        let netns = Netns::create(name)?;
        let mut addresses = Vec::new();
        for segment in segments {
            let bridge = format!("seg{segment}");
            if self.netns.ip(&format!("link show dev {bridge}")).is_err() {
                self.netns
                    .ip(&format!("link add name {bridge} type bridge forward_delay 0 mcast_snooping 0"))?;
                self.netns.ip(&format!("link set dev {bridge} up"))?;
            }
            let address = Ipv4Addr::new(10, 99, *segment, number);
            let (port, eth, inside) = (port(name, *segment), format!("eth{segment}"), netns.name());
            self.netns.ip(&format!("link add name {port} type veth peer name {eth} netns {inside}"))?;
            self.netns.ip(&format!("link set dev {port} master {bridge} up"))?;
            netns.ip(&format!("link set dev {eth} gso_max_segs 1 up"))?;
            netns.ip(&format!("addr add {address}/24 dev {eth}"))?;
            addresses.push(address);
        }
        self.faults().segments.insert(name.to_owned(), segments.to_vec());
        Host::new(name, netns, addresses, &self.home)
    }

    /// Makes the fabric a router between segments 0 and 1, by which these hosts send what is for the other.
    ///
    /// # Errors
    /// When the kernel refuses an address or a route.
    pub fn route(&self, hosts: &[Host]) -> Result<()> {
        for segment in [0, 1] {
            self.netns.ip(&format!("addr add 10.99.{segment}.254/24 dev seg{segment}"))?;
        }
        self.netns.run(|| Ok(std::fs::write("/proc/sys/net/ipv4/ip_forward", "1")?))?;
        for host in hosts {
            let [_, _, segment, _] = host.address().octets();
            host.netns().ip(&format!("route add default via 10.99.{segment}.254"))?;
        }
        Ok(())
    }

    /// A container that is not attached to anything yet: a namespace with only a loopback.
    ///
    /// # Errors
    /// When the namespace cannot be made.
    pub fn container(&self, name: &str) -> Result<Container> {
        Container::new(name)
    }

    /// Cuts the cable between two hosts, both ways.
    ///
    /// # Errors
    /// When `nft` refuses.
    pub fn cut(&self, one: &Host, other: &Host) -> Result<()> {
        self.change(|faults| {
            faults.cut.insert((one.name().to_owned(), other.name().to_owned()));
        })
    }

    /// Mends the cable between two hosts.
    ///
    /// # Errors
    /// When `nft` refuses.
    pub fn mend(&self, one: &Host, other: &Host) -> Result<()> {
        self.change(|faults| {
            faults.cut.remove(&(one.name().to_owned(), other.name().to_owned()));
            faults.cut.remove(&(other.name().to_owned(), one.name().to_owned()));
        })
    }

    /// Parts two groups of hosts from each other.
    ///
    /// # Errors
    /// When `nft` refuses.
    pub fn partition(&self, left: &[&Host], right: &[&Host]) -> Result<()> {
        self.change(|faults| {
            for one in left {
                for other in right {
                    faults.cut.insert((one.name().to_owned(), other.name().to_owned()));
                }
            }
        })
    }

    /// Drops everything a host sends or should get: to the others it falls silent, without a goodbye.
    ///
    /// # Errors
    /// When `nft` refuses.
    pub fn silence(&self, host: &Host) -> Result<()> {
        self.change(|faults| {
            faults.silent.insert(host.name().to_owned());
        })
    }

    /// Drops UDP to these ports.
    ///
    /// # Errors
    /// When `nft` refuses.
    pub fn block_udp(&self, ports: &[u16]) -> Result<()> {
        self.change(|faults| faults.blocked_udp.extend(ports))
    }

    /// Drops UDP to this port on the way from one host to another, and on no other way.
    ///
    /// # Errors
    /// When `nft` refuses.
    pub fn block_udp_way(&self, from: &Host, to: &Host, port: u16) -> Result<()> {
        self.change(|faults| {
            faults.blocked_ways.insert((from.name().to_owned(), to.name().to_owned(), port));
        })
    }

    /// Drops UDP datagrams with more payload than this.
    ///
    /// # Errors
    /// When `nft` refuses.
    pub fn limit_udp(&self, payload: u16) -> Result<()> {
        self.change(|faults| faults.largest_udp = Some(payload))
    }

    /// Drops IP packets longer than this, in silence: a path whose MTU nobody tells.
    ///
    /// # Errors
    /// When `nft` refuses.
    pub fn limit_packet(&self, length: u16) -> Result<()> {
        self.change(|faults| faults.largest_packet = Some(length))
    }

    /// Loses this many packets of a thousand, at random.
    ///
    /// # Errors
    /// When `nft` refuses.
    pub fn lose(&self, per_mille: u16) -> Result<()> {
        self.change(|faults| faults.lost_per_mille = per_mille)
    }

    /// Heals everything.
    ///
    /// # Errors
    /// When `nft` refuses.
    pub fn heal(&self) -> Result<()> {
        self.change(|faults| {
            *faults = Faults { segments: std::mem::take(&mut faults.segments), ..Faults::default() };
        })
    }

    fn faults(&self) -> std::sync::MutexGuard<'_, Faults> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, edit: impl FnOnce(&mut Faults)) -> Result<()> {
        let rules = {
            let mut faults = self.faults();
            edit(&mut faults);
            faults.rules()
        };
        let mut nft = Command::new("nft");
        self.netns.execute(nft.args(["-f", "-"]), &rules, Duration::from_secs(10))?.success("nft")?;
        Ok(())
    }

    /// The end of every log, for a test that failed.
    pub fn logs(&self) -> String {
        const LINES: usize = 60;
        let mut all = String::new();
        let Ok(entries) = std::fs::read_dir(&self.home) else { return all };
        let mut logs: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        logs.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
        logs.sort();
        for log in logs {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            let tail = lines.get(lines.len().saturating_sub(LINES)..).unwrap_or_default();
            let name = log.file_name().unwrap_or_default().to_string_lossy();
            let _ = writeln!(all, "--- the end of {name} ({} lines)\n{}", lines.len(), tail.join("\n"));
        }
        all
    }
}

impl Drop for Fabric {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.home);
    }
}

/// Removes the directories of test processes that are no more.
pub(crate) fn sweep() {
    remove_homes(|pid| !Path::new("/proc").join(pid.to_string()).exists());
}

/// Removes the directories of this very process.
pub(crate) fn sweep_own() {
    remove_homes(|pid| pid == std::process::id());
}

fn remove_homes(of: impl Fn(u32) -> bool) {
    let Ok(entries) = std::fs::read_dir(std::env::temp_dir()) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next()?.parse().ok());
        if pid.is_some_and(&of) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// The fabric's end of a host's cable.
fn port(host: &str, segment: u8) -> String {
    format!("{host}s{segment}")
}

impl Faults {
    fn ports(&self, host: &str) -> Vec<String> {
        self.segments.get(host).into_iter().flatten().map(|segment| port(host, *segment)).collect()
    }

    /// The whole ruleset as one transaction.
    fn rules(&self) -> String {
        const UDP_HEADER: u16 = 8;
        let mut rules = String::from(
            "add table bridge fabric\ndelete table bridge fabric\ntable bridge fabric {\nchain between {\n\
             type filter hook forward priority 0; policy accept;\n",
        );
        let mut rule = |text: String| {
            let _ = writeln!(rules, "{text} drop");
        };
        for (one, other) in &self.cut {
            for left in self.ports(one) {
                for right in self.ports(other) {
                    rule(format!("iifname \"{left}\" oifname \"{right}\""));
                    rule(format!("iifname \"{right}\" oifname \"{left}\""));
                }
            }
        }
        for port in self.silent.iter().flat_map(|host| self.ports(host)) {
            rule(format!("iifname \"{port}\""));
            rule(format!("oifname \"{port}\""));
        }
        for port in &self.blocked_udp {
            rule(format!("udp dport {port}"));
        }
        for (from, to, udp) in &self.blocked_ways {
            for left in self.ports(from) {
                for right in self.ports(to) {
                    rule(format!("iifname \"{left}\" oifname \"{right}\" udp dport {udp}"));
                }
            }
        }
        if let Some(payload) = self.largest_udp {
            rule(format!("udp length > {}", payload + UDP_HEADER));
        }
        if let Some(length) = self.largest_packet {
            rule(format!("meta length > {length}"));
        }
        match self.lost_per_mille {
            0 => {}
            part @ 1..1000 => rule(format!("numgen random mod 1000 < {part}")),
            _ => rule(String::new()),
        }
        rules.push_str("}\n}\n");
        rules
    }
}
