//! One step from what is to what should be: printable, and reversible where it has a reverse.
//!
//! One line for people each (`weft doctor --plan`, the log). A step that finds its work already done, or its
//! object already gone, has succeeded.

use std::fmt;

use ipnet::IpNet;

use crate::link::Flag;
use crate::mac::MacAddr;
use crate::names::Mark;
use crate::vxlan::{Entry, Tunnel, Underlay};

/// A change to one interface of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Makes a bridge, down, without spanning tree, multicast snooping and learning from link-local frames.
    CreateBridge {
        /// Its name.
        link: String,
        /// Its Ethernet address, fixed from the first moment.
        mac: MacAddr,
    },
    /// Makes a pair of interfaces, both down.
    CreatePair {
        /// One end.
        link: String,
        /// The other end.
        peer: String,
    },
    /// Makes a VXLAN device, down, that reaches nobody.
    CreateVxlan {
        /// Its name.
        link: String,
        /// What its packets travel in.
        underlay: Underlay,
        /// Its settings.
        tunnel: Tunnel,
        /// Its Ethernet address.
        mac: MacAddr,
    },
    /// Gives a VXLAN device other settings.
    Retune {
        /// The interface.
        link: String,
        /// What its packets travel in.
        underlay: Underlay,
        /// Its settings so far.
        from: Tunnel,
        /// Its settings from now on.
        to: Tunnel,
    },
    /// Removes an interface, and the other end of a pair with it.
    Delete {
        /// The interface.
        link: String,
    },
    /// Writes the alias that says what it is.
    Mark {
        /// The interface.
        link: String,
        /// What it is.
        mark: Mark,
    },
    /// Gives it another Ethernet address.
    SetMac {
        /// The interface.
        link: String,
        /// Its address so far, if known.
        from: Option<MacAddr>,
        /// Its address from now on.
        to: MacAddr,
    },
    /// Gives it another MTU.
    SetMtu {
        /// The interface.
        link: String,
        /// Its MTU so far.
        from: u32,
        /// Its MTU from now on.
        to: u32,
    },
    /// Makes it a port of a bridge.
    Join {
        /// The interface.
        link: String,
        /// The bridge.
        bridge: String,
        /// The bridge it was a port of.
        from: Option<String>,
    },
    /// Takes it from its bridge.
    Leave {
        /// The interface.
        link: String,
        /// The bridge it was a port of.
        bridge: String,
    },
    /// Turns one of its switches.
    Set {
        /// The interface.
        link: String,
        /// Which switch.
        flag: Flag,
        /// Which way.
        on: bool,
    },
    /// Gives it an address, marked as ours.
    AddAddress {
        /// The interface.
        link: String,
        /// The address and its prefix length.
        address: IpNet,
    },
    /// Takes an address of ours from it.
    RemoveAddress {
        /// The interface.
        link: String,
        /// The address and its prefix length.
        address: IpNet,
    },
    /// Writes a forwarding entry, over an older one for the same address.
    AddEntry {
        /// The interface.
        link: String,
        /// The entry.
        entry: Entry,
    },
    /// Removes a forwarding entry that does not age.
    RemoveEntry {
        /// The interface.
        link: String,
        /// The entry.
        entry: Entry,
    },
}

impl Change {
    /// The interface it is about.
    pub fn link(&self) -> &str {
        match self {
            Self::CreateBridge { link, .. }
            | Self::CreatePair { link, .. }
            | Self::CreateVxlan { link, .. }
            | Self::Retune { link, .. }
            | Self::Delete { link }
            | Self::Mark { link, .. }
            | Self::SetMac { link, .. }
            | Self::SetMtu { link, .. }
            | Self::Join { link, .. }
            | Self::Leave { link, .. }
            | Self::Set { link, .. }
            | Self::AddAddress { link, .. }
            | Self::RemoveAddress { link, .. }
            | Self::AddEntry { link, .. }
            | Self::RemoveEntry { link, .. } => link,
        }
    }

    /// The change that undoes it, where there is one.
    pub fn inverse(&self) -> Option<Self> {
        Some(match self.clone() {
            Self::CreateBridge { link, .. }
            | Self::CreatePair { link, .. }
            | Self::CreateVxlan { link, .. } => Self::Delete { link },
            Self::Retune { link, underlay, from, to } => Self::Retune { link, underlay, from: to, to: from },
            // What an entry has overwritten is not known.
            Self::Delete { .. } | Self::Mark { .. } | Self::AddEntry { .. } => return None,
            Self::SetMac { link, from, to } => Self::SetMac { link, to: from?, from: Some(to) },
            Self::SetMtu { link, from, to } => Self::SetMtu { link, from: to, to: from },
            Self::Join { link, bridge, from: Some(old) } => {
                Self::Join { link, bridge: old, from: Some(bridge) }
            }
            Self::Join { link, bridge, from: None } => Self::Leave { link, bridge },
            Self::Leave { link, bridge } => Self::Join { link, bridge, from: None },
            Self::Set { link, flag, on } => Self::Set { link, flag, on: !on },
            Self::AddAddress { link, address } => Self::RemoveAddress { link, address },
            Self::RemoveAddress { link, address } => Self::AddAddress { link, address },
            Self::RemoveEntry { link, entry } => Self::AddEntry { link, entry },
        })
    }

    /// Whether the rest may go on without it. Router advertisements are a file under `/proc/sys`, and some
    /// containers have that read-only; one peer whose entry the kernel does not take is no reason to drop all.
    pub fn is_best_effort(&self) -> bool {
        self.is_of_entry() || matches!(self, Self::Set { flag: Flag::RouterAdvertisements, .. })
    }

    /// Whether it is about a forwarding entry; of these there are many.
    pub fn is_of_entry(&self) -> bool {
        matches!(self, Self::AddEntry { .. } | Self::RemoveEntry { .. })
    }

    /// What is done, as a verb for an error message.
    pub(crate) fn operation(&self) -> &'static str {
        match self {
            Self::CreateBridge { .. } | Self::CreatePair { .. } | Self::CreateVxlan { .. } => "create",
            Self::Retune { .. } => "change the settings of",
            Self::Delete { .. } => "delete",
            Self::Mark { .. } => "set the alias of",
            Self::SetMac { .. } => "set the MAC address of",
            Self::SetMtu { .. } => "set the MTU of",
            Self::Join { .. } => "put into the bridge",
            Self::Leave { .. } => "take from the bridge",
            Self::Set { flag: Flag::Up, on: true, .. } => "set up",
            Self::Set { flag: Flag::Up, on: false, .. } => "set down",
            Self::Set { flag: Flag::Grouped, .. } => "set the link group of",
            Self::Set { flag: Flag::SpanningTree, .. } => "set the spanning tree of",
            Self::Set { flag: Flag::MulticastSnooping, .. } => "set multicast snooping of",
            Self::Set { flag: Flag::LinkLocalLearning, .. } => "set learning from link-local frames of",
            Self::Set { flag: Flag::AddressGeneration, .. } => "set IPv6 address generation of",
            Self::Set { flag: Flag::RouterAdvertisements, .. } => "set IPv6 router advertisements of",
            Self::Set { flag: Flag::Deaf, .. } => "set ARP and reverse path filter of",
            Self::Set { flag: Flag::Offloads, .. } => "set transmit offloads of",
            Self::Set { flag: Flag::Learning, .. } => "set learning of",
            Self::Set { flag: Flag::Flood, .. } => "set flooding of",
            Self::Set { flag: Flag::Isolated, .. } => "set isolation of",
            Self::Set { flag: Flag::Hairpin, .. } => "set hairpin of",
            Self::AddAddress { .. } => "add an address to",
            Self::RemoveAddress { .. } => "remove an address from",
            Self::AddEntry { .. } => "add a forwarding entry to",
            Self::RemoveEntry { .. } => "remove a forwarding entry from",
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CreateBridge { link, mac } => write!(f, "create bridge {link} with MAC {mac}"),
            Self::CreatePair { link, peer } => write!(f, "create pair {link} and {peer}"),
            Self::CreateVxlan { link, tunnel, mac, .. } => {
                write!(f, "create VXLAN device {link} with MAC {mac}, {tunnel}")
            }
            Self::Retune { link, from, to, .. } => write!(f, "{link}: {from} -> {to}"),
            Self::Delete { link } => write!(f, "delete {link}"),
            Self::Mark { link, mark } => write!(f, "{link}: set alias {mark}"),
            Self::SetMac { link, from: Some(from), to } => write!(f, "{link}: MAC {from} -> {to}"),
            Self::SetMac { link, from: None, to } => write!(f, "{link}: MAC -> {to}"),
            Self::SetMtu { link, from, to } => write!(f, "{link}: MTU {from} -> {to}"),
            Self::Join { link, bridge, from: None } => write!(f, "{link}: join bridge {bridge}"),
            Self::Join { link, bridge, from: Some(old) } => {
                write!(f, "{link}: move from {old} to bridge {bridge}")
            }
            Self::Leave { link, bridge } => write!(f, "{link}: leave bridge {bridge}"),
            Self::Set { link, flag: Flag::Up, on } => {
                write!(f, "{link}: {}", if *on { "up" } else { "down" })
            }
            Self::Set { link, flag, on } => write!(f, "{link}: {flag} {}", if *on { "on" } else { "off" }),
            Self::AddAddress { link, address } => write!(f, "{link}: add address {address}"),
            Self::RemoveAddress { link, address } => write!(f, "{link}: remove address {address}"),
            Self::AddEntry { link, entry } => write!(f, "{link}: add entry {entry}"),
            Self::RemoveEntry { link, entry } => write!(f, "{link}: remove entry {entry}"),
        }
    }
}
