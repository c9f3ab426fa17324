//! What the kernel looks like: every interface of our namespace, ours and foreign, in the same words as the wish.
//!
//! [`Actual::after`] is what a change does, as a pure function. The planner runs on it, so a plan never assumes
//! what an earlier step of the same plan has undone; the tests with a real kernel prove that it tells the truth.

use std::collections::{BTreeMap, BTreeSet};

use crate::change::Change;
use crate::link::{Flag, Kind, Link, Owner};
use crate::names::{BridgeName, Role};
use crate::vxlan::{Entry, Underlay};

/// The interfaces that stand, by name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Actual {
    /// Every interface in the namespace.
    pub links: BTreeMap<String, Link>,
}

impl Actual {
    /// The names of what the router of this bridge made: what `reset` removes, ports first, the bridge last.
    pub fn ours(&self, bridge: &BridgeName) -> Vec<String> {
        let [vxlan, vxlan6] = Underlay::ALL.map(|underlay| bridge.vxlan(underlay));
        let fixed = [bridge.capture(), bridge.sleeve_port(), vxlan, vxlan6, bridge.to_string()];
        let ours = |name: &String, link: &Link| match &link.owner {
            Owner::Ours(mark) => mark.bridge == *bridge,
            Owner::Unmarked => {
                let near = link.bridge.as_deref().is_none_or(|joined| joined == bridge.as_str());
                fixed.contains(name) || near && name.starts_with("wv")
            }
            Owner::Foreign => false,
        };
        let mut names: Vec<String> =
            self.links.iter().filter(|(name, link)| ours(name, link)).map(|(name, _)| name.clone()).collect();
        names.sort_by_key(|name| fixed.iter().position(|fixed| fixed == name).map_or(0, |at| at + 1));
        names
    }

    /// The names of what carries a mark of ours but is not among the wanted: left from a crash or an older wish.
    pub fn leftovers(&self, bridge: &BridgeName, wanted: &BTreeSet<String>) -> Vec<String> {
        let stray = |link: &Link| match &link.owner {
            Owner::Ours(mark) => {
                mark.bridge == *bridge || mark.role != Role::Bridge && self.orphan(&mark.bridge)
            }
            Owner::Unmarked => true,
            Owner::Foreign => false,
        };
        self.links
            .iter()
            .filter(|(name, link)| !wanted.contains(*name) && stray(link))
            .map(|(name, _)| name.clone())
            .collect()
    }

    /// Whether a bridge of ours that others name in their marks does not stand (any more).
    fn orphan(&self, bridge: &BridgeName) -> bool {
        !self.links.get(bridge.as_str()).is_some_and(|link| matches!(link.owner, Owner::Ours(_)))
    }

    /// Changes the picture as the kernel would be changed.
    pub fn after(&mut self, change: &Change) {
        match change {
            Change::CreateBridge { link, mac } => {
                let mut bridge = born(
                    Kind::Bridge,
                    &[Flag::SpanningTree, Flag::MulticastSnooping, Flag::LinkLocalLearning],
                );
                bridge.mac = Some(*mac);
                self.links.insert(link.clone(), bridge);
            }
            Change::CreatePair { link, peer } => {
                for (end, other) in [(link, peer), (peer, link)] {
                    self.links
                        .insert(end.clone(), born(Kind::Veth { peer: Some(other.clone()) }, &[Flag::Deaf]));
                }
            }
            Change::CreateVxlan { link, tunnel, mac, .. } => {
                let mut device = born(Kind::Vxlan(*tunnel), &[]);
                device.mac = Some(*mac);
                self.links.insert(link.clone(), device);
            }
            Change::Delete { link } => self.remove(link),
            Change::Mark { .. }
            | Change::SetMac { .. }
            | Change::SetMtu { .. }
            | Change::Join { .. }
            | Change::Leave { .. }
            | Change::Set { .. }
            | Change::AddAddress { .. }
            | Change::RemoveAddress { .. }
            | Change::Retune { .. }
            | Change::AddEntry { .. }
            | Change::RemoveEntry { .. } => {
                if let Some(found) = self.links.get_mut(change.link()) {
                    alter(found, change);
                }
            }
        }
    }

    /// A pair goes together, and the ports of a bridge are on their own when it goes.
    fn remove(&mut self, name: &str) {
        if let Some(Link { kind: Kind::Veth { peer: Some(peer) }, .. }) = self.links.remove(name) {
            self.links.remove(&peer);
        }
        for link in self.links.values_mut().filter(|link| link.bridge.as_deref() == Some(name)) {
            leave(link);
        }
    }
}

/// What a membership gave goes with it.
fn leave(link: &mut Link) {
    link.bridge = None;
    link.flags.retain(|flag, _| !flag.is_of_port());
    link.entries.retain(|entry| !matches!(entry, Entry::Bridge(_)));
}

/// A link as the kernel has just made it: down, in our group, with these flags off and the rest yet to be seen.
fn born(kind: Kind, off: &[Flag]) -> Link {
    let mut link = Link::new(kind, Owner::Unmarked);
    link.flags.extend([(Flag::Grouped, true), (Flag::Up, false)]);
    link.flags.extend(off.iter().map(|flag| (*flag, false)));
    link
}

/// What a change of one property does.
fn alter(link: &mut Link, change: &Change) {
    match change {
        Change::Mark { mark, .. } => link.owner = Owner::Ours(mark.clone()),
        Change::SetMac { to, .. } => link.mac = Some(*to),
        Change::SetMtu { to, .. } => link.mtu = *to,
        Change::Join { bridge, .. } => {
            leave(link);
            link.bridge = Some(bridge.clone());
            let on = [(Flag::Learning, true), (Flag::Flood, true)];
            link.flags.extend(on.into_iter().chain([(Flag::Isolated, false), (Flag::Hairpin, false)]));
        }
        Change::Leave { .. } => leave(link),
        Change::Set { flag, on, .. } => {
            link.flags.insert(*flag, *on);
        }
        Change::AddAddress { address, .. } => {
            link.addresses.insert(*address);
        }
        Change::RemoveAddress { address, .. } => {
            link.addresses.remove(address);
        }
        Change::Retune { to, .. } => link.kind = Kind::Vxlan(*to),
        Change::AddEntry { entry, .. } => {
            for old in entry.overwrites(&link.entries) {
                link.entries.remove(&old);
            }
            link.entries.insert(*entry);
        }
        Change::RemoveEntry { entry, .. } => {
            link.entries.remove(entry);
        }
        Change::CreateBridge { .. }
        | Change::CreatePair { .. }
        | Change::CreateVxlan { .. }
        | Change::Delete { .. } => {}
    }
}
