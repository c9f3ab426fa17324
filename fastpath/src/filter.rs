//! Who may speak VXLAN to this host, and which ports a container may never reach.
//!
//! VXLAN asks nobody for a name: the kernel takes any UDP packet on its port for a frame and learns from it. So
//! only the peers that are served by it are let through, of those that are only being tried just the probes, and nothing that comes from our own bridge may go to a
//! port of the mesh, on this host or through it on another, or a container could inject frames through its host's
//! masquerade. The filter is one nftables table of ours (drawn in `filter/rules.rs`). What we drop stays dropped, whatever
//! iptables, Docker or kube-proxy say; what we let through still has to pass all of theirs.
//!
//! As with links: the wish ([`Filter`]), the picture ([`FilterState`]), and the way between them as a pure
//! function ([`plan_filter`]). Whatever changes often is an element of a set; the rest is replaced as a whole, in
//! one transaction, so there is no moment without a filter.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::names::BridgeName;

mod change;
mod rules;
mod table;

pub use change::FilterChange;
pub(crate) use rules::VXLAN;
pub use table::{
    Base, Chain, Count, Dropped, Element, Expression, FilterState, Header, Key, Meta, Rule, Set, Table,
};

/// What the source filter must let through and what not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// TCP ports of the mesh that nothing from our bridge may reach, here or elsewhere.
    pub mesh_tcp: BTreeSet<u16>,
    /// UDP ports of the mesh that nothing from our bridge may reach, here or elsewhere; `vxlan_port` always is one.
    pub mesh_udp: BTreeSet<u16>,
    /// The UDP port of our VXLAN devices.
    pub vxlan_port: u16,
    /// The interfaces that belong to containers: the bridge and its ports. VXLAN is never accepted on them.
    pub ours: BTreeSet<String>,
    /// VXLAN is accepted from these addresses, whatever is in it.
    pub sources: BTreeSet<IpAddr>,
    /// From these only VXLAN with one of our probes in it, so that a peer's way can be tried before it is trusted.
    pub probes: BTreeSet<IpAddr>,
    /// The only address of this host that VXLAN is accepted on; None, or an unspecified address: all of them.
    pub destination: Option<IpAddr>,
}

impl Filter {
    /// A filter that lets no VXLAN in yet and knows of no mesh port but VXLAN's own; the bridge and its sleeve are
    /// ours.
    pub fn new(bridge: &BridgeName, vxlan_port: u16) -> Self {
        Self {
            mesh_tcp: BTreeSet::new(),
            mesh_udp: BTreeSet::from([vxlan_port]),
            vxlan_port,
            ours: BTreeSet::from([bridge.to_string(), bridge.sleeve_port(), bridge.capture()]),
            sources: BTreeSet::new(),
            probes: BTreeSet::new(),
            destination: None,
        }
    }

    /// The wish as a table.
    pub fn table(&self) -> Table {
        rules::table(self)
    }
}

/// The name of the nftables table (family `inet`) that holds the filter of a bridge.
pub fn table_name(bridge: &BridgeName) -> String {
    format!("weft-{bridge}")
}

/// The changes that make the filter what is wanted (None: that there is none); empty when it is.
pub fn plan_filter(desired: Option<&Filter>, actual: &FilterState) -> Vec<FilterChange> {
    match (desired, &actual.table) {
        (None, None) => Vec::new(),
        (None, Some(_)) => vec![FilterChange::Delete],
        (Some(filter), None) => vec![FilterChange::Create { filter: filter.clone() }],
        (Some(filter), Some(found)) => refine(filter, found),
    }
}

fn refine(filter: &Filter, found: &Table) -> Vec<FilterChange> {
    let wanted = filter.table();
    if let Some(why) = found.difference(&wanted) {
        return vec![FilterChange::Replace { filter: filter.clone(), why }];
    }
    let mut changes = Vec::new();
    for (name, wanted) in &wanted.sets {
        let Some(found) = found.sets.get(name) else { continue };
        let set = name.clone();
        let elements: BTreeSet<Element> = found.elements.difference(&wanted.elements).cloned().collect();
        if !elements.is_empty() {
            changes.push(FilterChange::Remove { set: set.clone(), elements });
        }
        let elements: BTreeSet<Element> = wanted.elements.difference(&found.elements).cloned().collect();
        if !elements.is_empty() {
            changes.push(FilterChange::Add { set, elements });
        }
    }
    changes
}

#[cfg(test)]
mod tests;
