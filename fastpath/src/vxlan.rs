//! The kernel's own carrier in plain words: who is reached by VXLAN, through which device and which entries.
//!
//! ```text
//!   weft -- weft-vx ==[ VXLAN in UDP over IPv4 ]==> remotes with an IPv4 address
//!        -- weft-v6 ==[ the same over IPv6     ]==> remotes with an IPv6 address; made when there is one
//! ```
//!
//! A device has a forwarding table of its own beside the bridge's. Ours are the entries that nobody may learn:
//!
//! | entry | table | why |
//! |---|---|---|
//! | all-zero MAC to a remote | device | flooded frames go to every remote that is on fastpath |
//! | a remote's device MAC to its address | device | probes reach that remote whatever carries frames now |
//! | a remote's device MAC | bridge | probes are not flooded into the containers of this host |
//!
//! Where containers are is learned by the kernel and never written down here: a permanent entry would black-hole
//! one that moved.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::link::{Flag, Kind, Link, Owner};
use crate::mac::MacAddr;
use crate::names::{BridgeName, Mark, Role};

/// The Ethernet type of our probes: the first that IEEE 802 leaves to local experiments.
pub const PROBE_ETHERTYPE: u16 = 0x88b5;

/// How far a VXLAN packet may travel.
const TTL: u8 = 64;

/// The most addresses that the kernel may learn, on the bridge and on each device: as many as the router keeps for
/// sleeve. A container that invents addresses would otherwise fill the memory of every host, and their lists, which the
/// router has to read. Given at birth only, as the kernel has it for a device.
pub(crate) const LEARNED_LIMIT: u32 = 65_536;

/// The Internet protocol below the VXLAN packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Underlay {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Underlay {
    /// Both, in order.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// The protocol of an address; an IPv4 address written as IPv6 counts as IPv4.
    pub fn of(address: IpAddr) -> Self {
        if address.to_canonical().is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

/// A VXLAN device's settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tunnel {
    /// The network identifier in every packet.
    pub vni: u32,
    /// The UDP port it listens on, and sends to where an entry names no other.
    pub port: u16,
    /// The source address of its packets; None: whatever routing says.
    pub local: Option<IpAddr>,
    /// How far its packets may travel; 0: as the host's packets do.
    pub ttl: u8,
    /// Routers on the way may not cut its packets.
    pub unfragmented: bool,
    /// It learns from arriving frames which MAC is behind which address.
    pub learning: bool,
    /// Its packets carry a UDP checksum.
    pub checksum: bool,
}

impl Tunnel {
    /// Whether a standing device can be given these settings; the others are given at birth only.
    pub fn can_become(&self, wanted: &Self) -> bool {
        (self.vni, self.port, self.checksum) == (wanted.vni, wanted.port, wanted.checksum)
    }
}

impl fmt::Display for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VNI {} on UDP port {}", self.vni, self.port)?;
        match self.local {
            Some(local) => write!(f, " from {local}")?,
            None => f.write_str(" from any address")?,
        }
        write!(f, ", TTL {}", self.ttl)?;
        for (on, yes, no) in [
            (self.unfragmented, ", DF", ", no DF"),
            (self.learning, ", learning", ", not learning"),
            (self.checksum, ", UDP checksums", ", no UDP checksums"),
        ] {
            f.write_str(if on { yes } else { no })?;
        }
        Ok(())
    }
}

/// A forwarding entry that is written down and does not age: ours, or one that somebody put on our device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Entry {
    /// In the table of the bridge: frames for this address leave by this port.
    Bridge(MacAddr),
    /// In the table of the device: frames for this address go there.
    Device(MacAddr, Destination),
}

/// Where a VXLAN device sends a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Destination {
    /// The host; unspecified in a foreign entry that names none.
    pub address: IpAddr,
    /// Its UDP port.
    pub port: u16,
    /// Another network identifier than the device's; never in ours.
    pub vni: Option<u32>,
    /// The index of the interface to leave by; never in ours.
    pub interface: Option<u32>,
}

impl Entry {
    /// The address the entry is about.
    pub fn mac(&self) -> MacAddr {
        match self {
            Self::Bridge(mac) | Self::Device(mac, _) => *mac,
        }
    }

    /// Which of these it overwrites when it is written: a device keeps one destination for an address, but any
    /// number for flooded frames. One without a destination (a next hop) does not give way.
    pub(crate) fn overwrites(&self, entries: &BTreeSet<Self>) -> Vec<Self> {
        let &Self::Device(mac, _) = self else { return Vec::new() };
        let lowest =
            Destination { address: Ipv4Addr::UNSPECIFIED.into(), port: 0, vni: None, interface: None };
        let same = entries.range(Self::Device(mac, lowest)..).take_while(|entry| entry.mac() == mac);
        let gives_way = |entry: &&Self| match entry {
            Self::Device(_, to) => *entry != self && !mac.may_be_many() && !to.address.is_unspecified(),
            Self::Bridge(_) => false,
        };
        same.filter(gives_way).copied().collect()
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bridge(mac) => write!(f, "{mac} behind this port"),
            Self::Device(MacAddr::ZERO, to) => write!(f, "flooded frames to {to}"),
            Self::Device(mac, to) => write!(f, "{mac} to {to}"),
        }
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", SocketAddr::new(self.address, self.port))?;
        if let Some(vni) = self.vni {
            write!(f, " with VNI {vni}")?;
        }
        if let Some(interface) = self.interface {
            write!(f, " by interface {interface}")?;
        }
        Ok(())
    }
}

/// What the router wants of VXLAN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vxlan {
    /// The UDP port of our device.
    pub port: u16,
    /// The network identifier, the same on every host.
    pub vni: u32,
    /// The Ethernet address of our device ([`MacAddr::vxlan_of`]).
    pub mac: MacAddr,
    /// The source address of our packets; None: whatever routing says.
    pub local: Option<IpAddr>,
    /// The peers that VXLAN may reach.
    pub remotes: BTreeMap<RemoteId, Remote>,
}

/// A peer, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RemoteId(pub u64);

/// How a peer is reached by VXLAN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Remote {
    /// Its address on the underlay.
    pub address: IpAddr,
    /// The UDP port of its VXLAN device.
    pub port: u16,
    /// The Ethernet address of its VXLAN device: what probes are sent to.
    pub mac: MacAddr,
    /// Whether flooded frames go there: it is on fastpath, or coming back to it.
    pub default: bool,
}

impl Vxlan {
    /// A device that reaches nobody yet.
    pub fn new(port: u16, vni: u32, mac: MacAddr) -> Self {
        Self { port, vni, mac, local: None, remotes: BTreeMap::new() }
    }

    /// The underlays there is to be a device for: IPv4 always, IPv6 when somebody is there.
    pub fn underlays(&self) -> BTreeSet<Underlay> {
        self.reachable().map(|(_, address)| Underlay::of(address)).chain([Underlay::V4]).collect()
    }

    /// Who can be sent to at all, with the address in its plain form. What others tell of themselves is not
    /// trusted to be an address of a host, and IPv6 link-local ones mean nothing without an interface.
    fn reachable(&self) -> impl Iterator<Item = (&Remote, IpAddr)> {
        self.remotes.values().filter_map(|remote| {
            let address = remote.address.to_canonical();
            let of_a_host = match address {
                IpAddr::V4(v4) => !v4.is_broadcast(),
                IpAddr::V6(v6) => !v6.is_unicast_link_local(),
            };
            let host = of_a_host && !address.is_unspecified() && !address.is_multicast();
            (host && remote.port != 0).then_some((remote, address))
        })
    }

    /// The entries of the device for one underlay. Of two peers with one MAC the first has it.
    pub fn entries(&self, underlay: Underlay) -> BTreeSet<Entry> {
        let mut entries = Vec::new();
        let mut taken = BTreeSet::from([self.mac]);
        for (remote, address) in self.reachable() {
            let first = !remote.mac.may_be_many() && taken.insert(remote.mac);
            if Underlay::of(address) != underlay {
                continue;
            }
            let to = Destination { address, port: remote.port, vni: None, interface: None };
            if remote.default {
                entries.push(Entry::Device(MacAddr::ZERO, to));
            }
            if first {
                entries.extend([Entry::Device(remote.mac, to), Entry::Bridge(remote.mac)]);
            }
        }
        entries.into_iter().collect()
    }

    /// The device for one underlay as it must be, but for its entries.
    pub(crate) fn link(&self, bridge: &BridgeName, underlay: Underlay, mtu: u32) -> Link {
        let tunnel = Tunnel {
            vni: self.vni,
            port: self.port,
            local: self
                .local
                .map(|local| local.to_canonical())
                .filter(|local| Underlay::of(*local) == underlay),
            ttl: TTL,
            unfragmented: true,
            learning: true,
            checksum: false,
        };
        let mark = Mark { bridge: bridge.clone(), role: Role::Vxlan(underlay) };
        Link {
            mac: Some(self.mac),
            mtu,
            bridge: Some(bridge.to_string()),
            flags: BTreeMap::from([
                (Flag::Grouped, true),
                (Flag::AddressGeneration, false),
                (Flag::Learning, true),
                (Flag::Flood, true),
                (Flag::Isolated, true),
                (Flag::Hairpin, false),
                (Flag::Up, true),
            ]),
            ..Link::new(Kind::Vxlan(tunnel), Owner::Ours(mark))
        }
    }
}
