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
use std::fmt;
use std::net::IpAddr;

use crate::names::BridgeName;
use crate::table::{Family, Place};

mod rules;

/// What changes of the filter are: those of its table.
pub use crate::table::TableChange as FilterChange;
pub use crate::table::{
    Base, Chain, Count, Element, Expression, Header, Key, Meta, Rule, Set, Table, TableState,
};

/// What the filter is to people.
const WHAT: &str = "source filter";

/// What stands of the filter, and what it has done.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FilterState {
    /// The table; None: there is none.
    pub table: Option<Table>,
    /// What it has dropped since it was last written as a whole.
    pub dropped: Dropped,
}

/// How much was dropped, by reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Dropped {
    /// VXLAN that came from no peer, or to another address than ours.
    pub vxlan: Count,
    /// What came from our bridge and wanted to a port of the mesh.
    pub mesh: Count,
}

impl From<TableState> for FilterState {
    fn from(state: TableState) -> Self {
        let mut dropped = Dropped::default();
        for ((_, why), count) in &state.counts {
            let sum = if why == rules::STRANGER { &mut dropped.vxlan } else { &mut dropped.mesh };
            *sum = sum.plus(*count);
        }
        Self { table: state.table, dropped }
    }
}

/// What the source filter must let through and what not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// TCP ports of the mesh that nothing from our bridge may reach, here or elsewhere.
    pub mesh_tcp: BTreeSet<u16>,
    /// UDP ports of the mesh that nothing from our bridge may reach, here or elsewhere; `vxlan_port` always is one.
    pub mesh_udp: BTreeSet<u16>,
    /// The UDP port of our VXLAN devices.
    /// None: we have none, and whoever else has that port is not our business.
    pub vxlan_port: Option<u16>,
    /// VXLAN is accepted from these addresses, whatever is in it.
    pub sources: BTreeSet<IpAddr>,
    /// From these only VXLAN with one of our probes in it, so that a peer's way can be tried before it is trusted.
    pub probes: BTreeSet<IpAddr>,
    /// The only address of this host that VXLAN is accepted on; None, or an unspecified address: all of them.
    pub destination: Option<IpAddr>,
}

impl Filter {
    /// A filter that lets no VXLAN in yet and knows of no mesh port but VXLAN's own.
    pub fn new(vxlan_port: u16) -> Self {
        Self {
            mesh_tcp: BTreeSet::new(),
            mesh_udp: BTreeSet::from([vxlan_port]),
            vxlan_port: Some(vxlan_port),
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

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(port) = self.vxlan_port else { return f.write_str("no VXLAN") };
        write!(f, "VXLAN on port {port} from {} peers", self.sources.len())?;
        match self.probes.len() {
            0 => Ok(()),
            probes => write!(f, ", probes from {probes} more"),
        }
    }
}

/// Where the filter of a bridge stands.
pub fn place(bridge: &BridgeName) -> Place {
    Place { family: Family::Inet, name: table_name(bridge), what: WHAT }
}

/// What our nftables tables for a bridge are called, whatever they see.
pub fn table_name(bridge: &BridgeName) -> String {
    format!("weft-{bridge}")
}

/// The changes that make the filter what is wanted (None: that there is none); empty when it is.
pub fn plan_filter(desired: Option<&Filter>, actual: &FilterState) -> Vec<FilterChange> {
    plan_table(desired, actual.table.as_ref())
}

pub(crate) fn plan_table(desired: Option<&Filter>, found: Option<&Table>) -> Vec<FilterChange> {
    let wanted = desired.map(|filter| (filter.table(), filter.to_string()));
    Table::plan(wanted.as_ref().map(|(table, summary)| (table, summary.as_str())), found, WHAT)
}

#[cfg(test)]
mod tests;
