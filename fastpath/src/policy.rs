//! What containers need of the host's firewall, and what they may not do: masquerade, port lock, FORWARD.
//!
//! The same four words as for the filter: the wish ([`Policy`]), the picture ([`PolicyState`]), one step
//! ([`PolicyChange`]), the way between them ([`plan_policy`]). Each part stands for itself, so that a kernel that lacks
//! what one of them needs does not cost the others, and least of all the source filter:
//!
//! ```text
//! table inet   weft-<bridge>   the source filter (see `filter`)
//! table ip     weft-<bridge>   masquerade: nat for `inet` came with Linux 5.2 only, and needs conntrack
//! table bridge weft-<bridge>   port lock: only this family sees frames, whatever is in them
//! chain FORWARD of the host    two marked rules, the only ones we put where others write
//! ```

use std::collections::BTreeMap;
use std::fmt;

use crate::filter::table_name;
use crate::names::BridgeName;
use crate::table::{Count, Family, Place, Table, TableChange, TableState};

mod forward;
mod lock;
mod masquerade;

pub use forward::{Accept, Backend, ForwardChain, ForwardChange, Locator, Marked};
pub(crate) use forward::{mark, plan_forward};
pub use lock::Lock;
pub use masquerade::Masquerade;

const MASQUERADE: &str = "masquerade";
const LOCK: &str = "port lock";

/// What is wanted of the host's firewall for one bridge; the default is nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Policy {
    /// What containers send to the world outside goes out under the host's address; None: as it is.
    pub masquerade: Option<Masquerade>,
    /// What may come in from container ports, by host end. Ports that are not named may send anything.
    pub locks: BTreeMap<String, Lock>,
    /// What our bridge forwards gets past the host's FORWARD chain.
    pub forward: bool,
}

/// What stands of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PolicyState {
    /// The masquerade.
    pub masquerade: TableState,
    /// The port lock.
    pub lock: TableState,
    /// The FORWARD chains of this host.
    pub forward: BTreeMap<Backend, ForwardChain>,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PolicyChange {
    /// A change to a table of ours.
    Table(TableChange),
    /// A change to a FORWARD chain.
    Forward(ForwardChange),
}

impl fmt::Display for PolicyChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Table(change) => change.fmt(f),
            Self::Forward(change) => change.fmt(f),
        }
    }
}

impl Policy {
    /// The changes to the masquerade.
    pub(crate) fn plan_masquerade(&self, bridge: &BridgeName, found: Option<&Table>) -> Vec<TableChange> {
        let wanted = self.masquerade.as_ref().map(|wish| (wish.table(bridge), wish.to_string()));
        Table::plan(wanted.as_ref().map(|(table, summary)| (table, summary.as_str())), found, MASQUERADE)
    }

    /// The changes to the port lock. It is made for the first port and stays when the last has gone, empty: where one pod
    /// was there will be another, and an element costs the kernel less than a table with its hooks.
    pub(crate) fn plan_lock(&self, found: Option<&Table>) -> Vec<TableChange> {
        let stays = found.is_some() && *self != Self::default();
        let wanted = (stays || !self.locks.is_empty())
            .then(|| (lock::table(&self.locks), format!("{} ports", self.locks.len())));
        Table::plan(wanted.as_ref().map(|(table, summary)| (table, summary.as_str())), found, LOCK)
    }
}

impl PolicyState {
    /// What the port lock has dropped since it was last written as a whole, by reason.
    pub fn dropped(&self) -> BTreeMap<&str, Count> {
        let mut dropped: BTreeMap<&str, Count> = BTreeMap::new();
        for ((_, reason), count) in &self.lock.counts {
            let sum = dropped.entry(reason).or_default();
            *sum = sum.plus(*count);
        }
        dropped
    }
}

/// Where the masquerade of a bridge stands.
pub(crate) fn masquerade_place(bridge: &BridgeName) -> Place {
    Place { family: Family::Ipv4, name: table_name(bridge), what: MASQUERADE }
}

/// Where the port lock of a bridge stands.
pub(crate) fn lock_place(bridge: &BridgeName) -> Place {
    Place { family: Family::Bridge, name: table_name(bridge), what: LOCK }
}

/// The changes that make the host's firewall what is wanted for this bridge; empty when it is.
pub fn plan_policy(bridge: &BridgeName, desired: &Policy, actual: &PolicyState) -> Vec<PolicyChange> {
    let masquerade = desired.plan_masquerade(bridge, actual.masquerade.table.as_ref());
    let lock = desired.plan_lock(actual.lock.table.as_ref());
    let forward = plan_forward(desired.forward, &actual.forward);
    let tables = masquerade.into_iter().chain(lock).map(PolicyChange::Table);
    tables.chain(forward.into_iter().map(PolicyChange::Forward)).collect()
}

#[cfg(test)]
mod tests;
