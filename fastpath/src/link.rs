//! One interface, as wanted and as found: the word that desired and actual state share.
//!
//! Desired state leaves out what it does not care about (no MAC, a flag that is not in the map); actual state
//! leaves out what could not be read. So "is it right?" is one comparison, and a property added here is observed,
//! planned, printed and applied like every other.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use ipnet::IpNet;

use crate::mac::MacAddr;
use crate::names::{BridgeName, Mark};
use crate::vxlan::{Entry, Tunnel};

/// One network interface.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Link {
    /// What kind of device it is.
    pub kind: Kind,
    /// Whose it is.
    pub owner: Owner,
    /// Its Ethernet address; None: any will do.
    pub mac: Option<MacAddr>,
    /// The longest packet it carries, in bytes, without the Ethernet header.
    pub mtu: u32,
    /// The bridge it is a port of; None in desired state: whatever stands.
    pub bridge: Option<String>,
    /// Its switches.
    pub flags: BTreeMap<Flag, bool>,
    /// The addresses on it that carry our mark.
    pub addresses: BTreeSet<IpNet>,
    /// The forwarding entries on it that do not age.
    pub entries: BTreeSet<Entry>,
}

/// Kinds of device this crate knows.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// An Ethernet bridge.
    Bridge,
    /// One end of a pair; the other end by name when it is in the same namespace.
    Veth {
        /// The other end.
        peer: Option<String>,
    },
    /// A VXLAN device.
    Vxlan(Tunnel),
    /// Anything else, by its kernel name (empty for hardware).
    Other(String),
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bridge => f.write_str("a bridge"),
            Self::Veth { .. } => f.write_str("a veth"),
            Self::Vxlan(tunnel) => write!(f, "a VXLAN device with {tunnel}"),
            Self::Other(kind) if kind.is_empty() => f.write_str("a network device"),
            Self::Other(kind) => write!(f, "a {kind} device"),
        }
    }
}

/// Whose an interface is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Owner {
    /// Not ours: never touched.
    Foreign,
    /// Born as ours, but its alias was never written, or was wiped.
    Unmarked,
    /// Ours, for this.
    Ours(Mark),
}

impl Owner {
    /// Whether the router of this bridge made it. An unmarked link is taken for ours by its name, so ask only
    /// for names that we would give.
    pub fn is_of(&self, bridge: &BridgeName) -> bool {
        match self {
            Self::Foreign => false,
            Self::Unmarked => true,
            Self::Ours(mark) => mark.bridge == *bridge,
        }
    }
}

/// A switch of an interface. Changes are planned in this order: what must hold before traffic flows stands before
/// `Up`, what needs a bridge stands after the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Flag {
    /// It is in our link group, by which the source filter knows what comes from containers.
    Grouped,
    /// Bridge: the spanning tree protocol runs.
    SpanningTree,
    /// Bridge: multicast goes only where IGMP asked for it. Its entries would stick to an old carrier's port.
    MulticastSnooping,
    /// Bridge: it learns also from frames that no bridge passes on. Some of these (LLDP) no filter ever sees, so a
    /// container could have its neighbour's frames by sending one in the neighbour's name.
    LinkLocalLearning,
    /// The kernel gives it IPv6 addresses (and so talks on it).
    AddressGeneration,
    /// The host believes IPv6 router advertisements that arrive on it: a container could send one.
    RouterAdvertisements,
    /// The host's own IPv4 stack neither answers ARP nor takes traffic from it. Flooded frames reach the capture
    /// end too; without this the host would answer each ARP request twice, with two addresses. (On hosts that set
    /// `net.ipv4.conf.all.rp_filter` to 2, that weakens the filter: broadcasts of containers then reach the host's
    /// own sockets by both ways.)
    Deaf,
    /// The device takes unfinished checksums and oversized segments. Off: the kernel finishes and cuts every frame
    /// before it hands it to this device, wherever the frame came from.
    Offloads,
    /// Bridge port: the bridge learns from what comes in which addresses are behind it.
    Learning,
    /// Bridge port: broadcasts, multicasts and frames for unknown addresses leave by it.
    Flood,
    /// Bridge port: talks only to ports that are not isolated.
    Isolated,
    /// Bridge port: a frame may leave by the port it came in.
    Hairpin,
    /// Administratively up.
    Up,
}

impl Flag {
    /// Whether it belongs to the membership in a bridge, so that joining one resets it.
    pub fn is_of_port(self) -> bool {
        matches!(self, Self::Learning | Self::Flood | Self::Isolated | Self::Hairpin)
    }
}

impl fmt::Display for Flag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Grouped => "membership in the link group",
            Self::SpanningTree => "spanning tree",
            Self::MulticastSnooping => "multicast snooping",
            Self::LinkLocalLearning => "learning from link-local frames",
            Self::AddressGeneration => "IPv6 address generation",
            Self::RouterAdvertisements => "IPv6 router advertisements",
            Self::Deaf => "deafness of the host's IPv4",
            Self::Offloads => "transmit offloads",
            Self::Learning => "learning",
            Self::Flood => "flooding",
            Self::Isolated => "isolation",
            Self::Hairpin => "hairpin",
            Self::Up => "link",
        })
    }
}

impl Link {
    /// A foreign device without any property: where reading the kernel starts.
    pub(crate) fn new(kind: Kind, owner: Owner) -> Self {
        Self {
            kind,
            owner,
            mac: None,
            mtu: 1500,
            bridge: None,
            flags: BTreeMap::new(),
            addresses: BTreeSet::new(),
            entries: BTreeSet::new(),
        }
    }
}
