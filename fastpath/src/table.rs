//! An nftables table in our words: as much of the kernel's language as ours are written in.
//!
//! The wish and what the kernel shows are the same types, so they can be compared. What stands in the table and is
//! not in our language becomes `Other`, which is never wanted. Every expression works on the kernel's register 1, but for
//! [`Expression::Beside`]: an interface name fills that one, and what makes a key together with it goes into the next.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use crate::mac::MacAddr;

mod change;

pub use change::TableChange;

/// Which table it is, and what we call it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// What it sees.
    pub family: Family,
    /// Its name in that family.
    pub name: String,
    /// What it is to people: "source filter".
    pub what: &'static str,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "nftables table {} {}", self.family, self.name)
    }
}

/// What a table sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// IPv4 and IPv6.
    Inet,
    /// IPv4.
    Ipv4,
    /// The frames of bridges.
    Bridge,
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Inet => "inet",
            Self::Ipv4 => "ip",
            Self::Bridge => "bridge",
        })
    }
}

/// What stands of one table, and what it has counted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TableState {
    /// The table; None: there is none.
    pub table: Option<Table>,
    /// What was counted since it was last written as a whole, by chain and comment.
    pub counts: BTreeMap<(String, String), Count>,
}

/// Packets and the bytes in them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Count {
    /// Packets.
    pub packets: u64,
    /// Bytes, from the network header on.
    pub bytes: u64,
}

impl Count {
    /// Both together.
    pub fn plus(self, other: Self) -> Self {
        Self {
            packets: self.packets.saturating_add(other.packets),
            bytes: self.bytes.saturating_add(other.bytes),
        }
    }
}

/// A table.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Table {
    /// The kernel's flags; 1 is "dormant": it stands and does nothing.
    pub flags: u32,
    /// The chains, by name.
    pub chains: BTreeMap<String, Chain>,
    /// The sets, by name.
    pub sets: BTreeMap<String, Set>,
}

/// A chain of rules.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Chain {
    /// Where packets enter it; None: only from another chain.
    pub base: Option<Base>,
    /// The rules, in order.
    pub rules: Vec<Rule>,
}

/// Where a chain stands in a packet's way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Base {
    /// The kind of chain: `filter` or `nat`.
    pub kind: String,
    /// The kernel's number of the hook.
    pub hook: u32,
    /// Its place among the chains of the hook; lower comes first.
    pub priority: i32,
    /// Whether what passes all rules goes on; otherwise it is dropped.
    pub accepts: bool,
}

/// A rule: expressions from left to right, until one does not hold.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rule {
    /// The expressions.
    pub expressions: Vec<Expression>,
    /// What it is for, shown by `nft list table`.
    pub comment: String,
}

/// One part of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expression {
    /// Takes a fact about the packet.
    Meta(Meta),
    /// Takes bytes of the packet.
    Payload {
        /// From the start of which header.
        header: Header,
        /// The first byte.
        offset: u32,
        /// How many.
        length: u32,
    },
    /// Takes bytes of the packet beside an interface name; the two are one key.
    Beside {
        /// From the start of which header.
        header: Header,
        /// The first byte.
        offset: u32,
        /// How many.
        length: u32,
    },
    /// Keeps of what was taken the bits that are set here.
    Masked(Vec<u8>),
    /// Holds when what was taken are these bytes.
    Is(Vec<u8>),
    /// Holds when what was taken are not these bytes.
    IsNot(Vec<u8>),
    /// Holds when what was taken is in the set.
    In(String),
    /// Holds when what was taken is not in the set.
    NotIn(String),
    /// Counts the packet.
    Counter,
    /// Drops the packet for good.
    Drop,
    /// Ends this table's say in the matter; other tables still have theirs.
    Accept,
    /// Goes on in another chain and does not come back.
    Goto(String),
    /// Gives the packet the address of the interface it leaves by, and a port that nobody can guess.
    Masquerade,
    /// Holds for what belongs to a connection that was let through; written as `iptables` writes it.
    Established,
    /// Something we never write.
    Other(String),
}

/// A fact about a packet that is not in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meta {
    /// The name of the interface it came in by.
    InterfaceIn,
    /// The name of the interface it will leave by.
    InterfaceOut,
    /// The link group of the interface it came in by.
    GroupIn,
    /// The link group of the interface it will leave by.
    GroupOut,
    /// IPv4 or IPv6.
    Family,
    /// The protocol in it, such as UDP.
    Protocol,
}

/// A header of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Header {
    /// Ethernet.
    Link,
    /// IPv4, IPv6 or ARP.
    Network,
    /// TCP or UDP.
    Transport,
}

/// A set that rules ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set {
    /// What its elements are.
    pub key: Key,
    /// The kernel's flags; 0: a plain set whose elements may change.
    pub flags: u32,
    /// The elements.
    pub elements: BTreeSet<Element>,
}

/// What the elements of a set are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// IPv4 addresses.
    Ipv4,
    /// IPv6 addresses.
    Ipv6,
    /// Interface names.
    Interface,
    /// TCP or UDP ports.
    Port,
    /// Interface names with a MAC address each.
    InterfaceMac,
    /// Interface names with an IPv4 address each.
    InterfaceIpv4,
    /// Interface names with an IPv6 address each.
    InterfaceIpv6,
    /// Something else.
    Other,
}

/// An element of a set.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Element {
    /// An address.
    Address(IpAddr),
    /// An interface name.
    Interface(String),
    /// A port.
    Port(u16),
    /// An interface name and a MAC address.
    InterfaceMac(String, MacAddr),
    /// An interface name and an address.
    InterfaceAddress(String, IpAddr),
    /// Bytes that are none of these.
    Other(Vec<u8>),
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => write!(f, "{address}"),
            Self::Interface(name) => f.write_str(name),
            Self::Port(port) => write!(f, "{port}"),
            Self::InterfaceMac(name, mac) => write!(f, "{name} with {mac}"),
            Self::InterfaceAddress(name, address) => write!(f, "{name} with {address}"),
            Self::Other(bytes) => write!(f, "{bytes:02x?}"),
        }
    }
}

impl Table {
    /// What is not as wanted apart from the elements of sets, in words; None when all is.
    pub fn difference(&self, wanted: &Self) -> Option<String> {
        if self.flags != wanted.flags {
            let cause = if self.flags & 1 == 1 { "it is dormant" } else { "its flags differ" };
            return Some(cause.to_owned());
        }
        let sets = compare("set", &self.sets, &wanted.sets, |found, wanted| {
            (found.key, found.flags) == (wanted.key, wanted.flags)
        });
        sets.or_else(|| compare("chain", &self.chains, &wanted.chains, |found, wanted| found == wanted))
    }
}

/// The first entry that is missing, different or too many.
fn compare<T>(
    what: &str,
    found: &BTreeMap<String, T>,
    wanted: &BTreeMap<String, T>,
    same: impl Fn(&T, &T) -> bool,
) -> Option<String> {
    for (name, wanted) in wanted {
        match found.get(name) {
            None => return Some(format!("{what} {name} is missing")),
            Some(found) if !same(found, wanted) => return Some(format!("{what} {name} differs")),
            Some(_) => {}
        }
    }
    let strange = found.keys().find(|name| !wanted.contains_key(*name))?;
    Some(format!("{what} {strange} is not ours"))
}

impl Table {
    /// The changes that make what stands in a place this table (None: that there is none); empty when it is.
    /// `summary` is what is in it, for people.
    pub fn plan(wanted: Option<(&Self, &str)>, found: Option<&Self>, what: &'static str) -> Vec<TableChange> {
        match (wanted, found) {
            (None, None) => Vec::new(),
            (None, Some(_)) => vec![TableChange::Delete { what }],
            (Some((table, summary)), None) => {
                vec![TableChange::Create { what, table: table.clone(), summary: summary.to_owned() }]
            }
            (Some((table, _)), Some(found)) => match found.difference(table) {
                Some(why) => vec![TableChange::Replace { what, table: table.clone(), why }],
                None => found.refine(table, what),
            },
        }
    }

    /// The changes to elements, when all else is as wanted.
    fn refine(&self, wanted: &Self, what: &'static str) -> Vec<TableChange> {
        let mut changes = Vec::new();
        for (name, wanted) in &wanted.sets {
            let Some(found) = self.sets.get(name) else { continue };
            let set = name.clone();
            let elements: BTreeSet<Element> = found.elements.difference(&wanted.elements).cloned().collect();
            if !elements.is_empty() {
                changes.push(TableChange::Remove { what, set: set.clone(), elements });
            }
            let elements: BTreeSet<Element> = wanted.elements.difference(&found.elements).cloned().collect();
            if !elements.is_empty() {
                changes.push(TableChange::Add { what, set, elements });
            }
        }
        changes
    }
}

impl TableState {
    /// Changes the picture as the kernel would be changed.
    pub fn after(&mut self, change: &TableChange) {
        match change {
            TableChange::Create { table, .. } | TableChange::Replace { table, .. } => {
                *self = Self { table: Some(table.clone()), counts: BTreeMap::new() };
            }
            TableChange::Add { set, elements, .. } => {
                if let Some(set) = self.set(set) {
                    set.elements.extend(elements.iter().cloned());
                }
            }
            TableChange::Remove { set, elements, .. } => {
                if let Some(set) = self.set(set) {
                    set.elements.retain(|element| !elements.contains(element));
                }
            }
            TableChange::Delete { .. } => *self = Self::default(),
        }
    }

    fn set(&mut self, name: &str) -> Option<&mut Set> {
        self.table.as_mut()?.sets.get_mut(name)
    }
}
