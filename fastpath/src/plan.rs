//! From what is to what should be: the shortest list of changes, in an order that is safe to stop in.
//!
//! Pure, so it can be printed before it is run, and tested without a kernel. The bridge comes before its ports; a
//! link that is made gets everything that must hold before frames flow before it is set up; what is right is not
//! touched, and nothing that is not ours ever is.

use std::collections::{BTreeMap, BTreeSet};

use crate::actual::Actual;
use crate::change::Change;
use crate::desired::Desired;
use crate::error::Error;
use crate::link::{Flag, Kind, Link, Owner};
use crate::names::{PortId, Role};
use crate::vxlan::{Entry, Underlay};

/// The changes that make the kernel what is wanted; empty when it is.
///
/// Container links that do not stand are not planned (only an attachment has the descriptor of the container's
/// namespace): see [`missing`]. A VXLAN device whose name somebody else has is left out: see [`obstacles`].
///
/// # Errors
/// Conflict, when something that is not ours has the name of the bridge or of the sleeve: nothing is to be done.
pub fn plan(desired: &Desired, actual: &Actual) -> Result<Vec<Change>, Error> {
    let bridge = &desired.bridge;
    let fixed = [bridge.to_string(), bridge.sleeve_port(), bridge.capture()];
    for (name, link) in desired.frame().iter().filter(|(name, _)| fixed.contains(name)) {
        check(name, link, actual)?;
    }

    let mut planner = Planner { model: actual.clone(), changes: Vec::new() };
    planner.clear_sleeve(desired);
    planner.clear_vxlan(desired);
    for (name, wanted) in desired.links() {
        let stands = planner.model.links.contains_key(&name);
        match &wanted.kind {
            Kind::Bridge if !stands => {
                planner.push(Change::CreateBridge { link: name.clone(), mac: desired.mac })
            }
            Kind::Veth { peer: Some(peer) } if !stands => {
                planner.push(Change::CreatePair { link: name.clone(), peer: peer.clone() });
            }
            Kind::Vxlan(tunnel) if !stands => {
                if let (Some(underlay), Some(mac)) = (bridge.underlay_of(&name), wanted.mac) {
                    planner.push(Change::CreateVxlan { link: name.clone(), underlay, tunnel: *tunnel, mac });
                }
            }
            Kind::Bridge | Kind::Veth { .. } | Kind::Vxlan(_) | Kind::Other(_) => {}
        }
        if check(&name, &wanted, &planner.model).is_ok() {
            planner.refine(&name, &wanted);
        }
    }
    Ok(planner.changes)
}

/// The changes that make what one wish wants what another wants, when both differ in forwarding entries only; None
/// when in more.
pub fn plan_entries(before: &Desired, after: &Desired) -> Option<Vec<Change>> {
    if before.bridge != after.bridge || before.frame() != after.frame() {
        return None;
    }
    let links = before.links().into_iter().filter(|(_, link)| matches!(link.kind, Kind::Vxlan(_))).collect();
    let mut planner = Planner { model: Actual { links }, changes: Vec::new() };
    for (name, wanted) in after.links() {
        planner.enter(&name, &wanted.entries);
    }
    Some(planner.changes)
}

/// What keeps VXLAN out, by underlay: something that is not ours has the name of the device.
pub fn obstacles(desired: &Desired, actual: &Actual) -> BTreeMap<Underlay, Error> {
    let obstacle = |(name, wanted): (String, Link)| {
        Some((desired.bridge.underlay_of(&name)?, check(&name, &wanted, actual).err()?))
    };
    desired.frame().into_iter().filter_map(obstacle).collect()
}

/// The wanted container links that do not stand: their namespace is gone, or the kernel was restarted.
pub fn missing(desired: &Desired, actual: &Actual) -> BTreeSet<PortId> {
    let stands = |id: &PortId| {
        let name = desired.bridge.host_end(id);
        let Some(port) = desired.ports.get(id) else { return false };
        actual.links.contains_key(&name) && check(&name, &port.link(&desired.bridge, id), actual).is_ok()
    };
    desired.ports.keys().filter(|id| !stands(id)).cloned().collect()
}

/// The changes that make one standing link what is wanted; for an attachment, which has made it itself.
pub(crate) fn refine(name: &str, wanted: &Link, actual: &Actual) -> Result<Vec<Change>, Error> {
    check(name, wanted, actual)?;
    let mut planner = Planner { model: actual.clone(), changes: Vec::new() };
    planner.refine(name, wanted);
    Ok(planner.changes)
}

/// Whether the name is free, or what has it is ours and of the wanted kind.
pub(crate) fn check(name: &str, wanted: &Link, actual: &Actual) -> Result<(), Error> {
    let Some(found) = actual.links.get(name) else { return Ok(()) };
    let same_kind = matches!(
        (&found.kind, &wanted.kind),
        (Kind::Bridge, Kind::Bridge)
            | (Kind::Veth { .. }, Kind::Veth { .. })
            | (Kind::Vxlan(_), Kind::Vxlan(_))
    );
    if same_kind && (found.owner == Owner::Unmarked || found.owner == wanted.owner) {
        return Ok(());
    }
    let found = match &found.owner {
        Owner::Ours(mark) => format!("{} with the alias {mark}", found.kind),
        Owner::Foreign | Owner::Unmarked => found.kind.to_string(),
    };
    Err(Error::Conflict { object: format!("interface {name}"), found })
}

/// The plan so far, and what the kernel will look like after it.
struct Planner {
    model: Actual,
    changes: Vec<Change>,
}

impl Planner {
    fn push(&mut self, change: Change) {
        self.model.after(&change);
        self.changes.push(change);
    }

    /// Removes a sleeve that is not wanted, and the half of one whose other half was renamed or moved away.
    fn clear_sleeve(&mut self, desired: &Desired) {
        let (port, capture) = (desired.bridge.sleeve_port(), desired.bridge.capture());
        for (end, other) in [(&port, &capture), (&capture, &port)] {
            let Some(link) = self.model.links.get(end) else { continue };
            let whole = matches!(&link.kind, Kind::Veth { peer: Some(peer) } if peer == other);
            let ours = matches!(link.kind, Kind::Veth { .. }) && link.owner.is_of(&desired.bridge);
            if ours && !(whole && desired.sleeve.is_some()) {
                self.push(Change::Delete { link: end.clone() });
            }
        }
    }

    /// Removes a VXLAN device that is not wanted, or whose settings can only be given at birth.
    fn clear_vxlan(&mut self, desired: &Desired) {
        let wanted: BTreeMap<String, Link> = desired.frame().into_iter().collect();
        for link in Underlay::ALL.map(|underlay| desired.bridge.vxlan(underlay)) {
            let Some(found) = self.model.links.get(&link) else { continue };
            let Kind::Vxlan(stands) = &found.kind else { continue };
            let keep = wanted.get(&link).is_some_and(
                |wanted| matches!(&wanted.kind, Kind::Vxlan(tunnel) if stands.can_become(tunnel)),
            );
            if found.owner.is_of(&desired.bridge) && !keep {
                self.push(Change::Delete { link });
            }
        }
    }

    /// Brings every property of a standing link to what is wanted.
    fn refine(&mut self, name: &str, wanted: &Link) {
        let Some(found) = self.model.links.get(name).cloned() else { return };
        let link = name.to_owned();
        if let (Owner::Ours(mark), true) = (&wanted.owner, found.owner != wanted.owner) {
            self.push(Change::Mark { link: link.clone(), mark: mark.clone() });
        }
        if let (Some(to), true) = (wanted.mac, wanted.mac.is_some() && found.mac != wanted.mac) {
            self.push(Change::SetMac { link: link.clone(), from: found.mac, to });
        }
        if found.mtu != wanted.mtu {
            self.push(Change::SetMtu { link: link.clone(), from: found.mtu, to: wanted.mtu });
        }
        self.retune(name, wanted, &found.kind);
        self.turn(name, wanted, |flag| !flag.is_of_port() && flag != Flag::Up);
        if let (Some(bridge), true) = (&wanted.bridge, found.bridge != wanted.bridge) {
            self.push(Change::Join {
                link: link.clone(),
                bridge: bridge.clone(),
                from: found.bridge.clone(),
            });
        }
        self.turn(name, wanted, Flag::is_of_port);
        for address in found.addresses.difference(&wanted.addresses) {
            self.push(Change::RemoveAddress { link: link.clone(), address: *address });
        }
        for address in wanted.addresses.difference(&found.addresses) {
            self.push(Change::AddAddress { link: link.clone(), address: *address });
        }
        self.enter(name, &wanted.entries);
        self.turn(name, wanted, |flag| flag == Flag::Up);
    }

    /// Gives a VXLAN device the settings that a standing one can be given.
    fn retune(&mut self, name: &str, wanted: &Link, found: &Kind) {
        if let (Kind::Vxlan(from), Kind::Vxlan(to), Owner::Ours(mark)) = (found, &wanted.kind, &wanted.owner)
            && let Role::Vxlan(underlay) = mark.role
            && from != to
        {
            self.push(Change::Retune { link: name.to_owned(), underlay, from: *from, to: *to });
        }
    }

    /// Removes the entries that are wrong and writes the ones that are missing; an overwritten one is not removed.
    fn enter(&mut self, name: &str, wanted: &BTreeSet<Entry>) {
        let Some(link) = self.model.links.get(name) else { return };
        let missing: Vec<Entry> = wanted.difference(&link.entries).copied().collect();
        let overwritten: BTreeSet<Entry> =
            missing.iter().flat_map(|entry| entry.overwrites(&link.entries)).collect();
        let wrong = link.entries.difference(wanted).filter(|entry| !overwritten.contains(entry));
        for entry in wrong.copied().collect::<Vec<_>>() {
            self.push(Change::RemoveEntry { link: name.to_owned(), entry });
        }
        for entry in missing {
            self.push(Change::AddEntry { link: name.to_owned(), entry });
        }
    }

    /// Turns the chosen switches that stand the wrong way, or whose way is not known.
    fn turn(&mut self, name: &str, wanted: &Link, chosen: impl Fn(Flag) -> bool) {
        for (flag, on) in wanted.flags.iter().filter(|(flag, _)| chosen(**flag)) {
            let now = self.model.links.get(name).and_then(|link| link.flags.get(flag));
            if now != Some(on) {
                self.push(Change::Set { link: name.to_owned(), flag: *flag, on: *on });
            }
        }
    }
}

#[cfg(test)]
mod tests;
