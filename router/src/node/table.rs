//! What the control half knows, pressed into the one table the data half looks things up in.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use weft_fastpath::MacAddr;
use weft_gossip::{PeerName, Routes};

use super::{Node, Output};
use crate::dataplane::{Command, ForwardingTable};
use crate::overlay::Neighbour;

/// With more neighbours no way around an idle one is looked for: where a hundred come at once, each of them is idle at
/// first, and the links of all would be walked for each.
const CROWD: usize = 24;

impl Node {
    /// Makes the forwarding table: next hops and flood trees over the peers that may get our frames.
    pub(super) fn table(&self) -> ForwardingTable {
        let barred = self.overlay.barred().clone();
        let routes = if barred.is_empty() {
            self.mesh.frame_routes()
        } else {
            let allowed = |peer| !barred.contains(&peer);
            Arc::new(Routes::compute(&self.mesh.frame_graph(), self.config.me, allowed))
        };
        let mut next_hop: BTreeMap<_, _> =
            routes.reachable().filter_map(|peer| Some((peer, routes.next_hop(peer)?))).collect();
        self.pass_by_idle(&mut next_hop);
        let carriers: BTreeMap<_, _> =
            self.overlay.neighbours().filter_map(|(peer, n)| Some((peer, n.serving()?))).collect();
        let (flood, upstream) = (routes.broadcast().clone(), routes.upstream().clone());
        ForwardingTable { me: self.config.me, next_hop, flood, upstream, carriers, barred }
    }

    /// A neighbour that nothing carries frames to (its session has just begun or just ended, or sleeve is silent) is
    /// passed by where another way leads.
    fn pass_by_idle(&self, next_hop: &mut BTreeMap<PeerName, PeerName>) {
        if self.overlay.neighbours().nth(CROWD).is_some() {
            return;
        }
        let carries = |peer| self.overlay.neighbour(peer).is_some_and(Neighbour::carries);
        let idle: BTreeSet<PeerName> = next_hop.values().copied().filter(|peer| !carries(*peer)).collect();
        if idle.is_empty() {
            return;
        }
        let around = self.around(&idle);
        for (peer, next) in next_hop.iter_mut().filter(|(_, next)| idle.contains(next)) {
            *next = around.get(peer).copied().unwrap_or(*next);
        }
    }

    /// The next hop to each peer that is reached without these, and without any neighbour to whom nothing carries frames.
    fn around(&self, avoided: &BTreeSet<PeerName>) -> BTreeMap<PeerName, PeerName> {
        let idle = self.overlay.neighbours().filter(|(_, neighbour)| !neighbour.carries());
        let avoided = idle.map(|(peer, _)| peer).chain(avoided.iter().copied()).collect();
        let graph = self.mesh.frame_graph().only(|peer| !self.overlay.barred().contains(&peer));
        Routes::around(&graph, self.config.me, &avoided)
    }

    /// Tells the overlay whether others lead to those whom our own link reaches in vain.
    pub(super) fn see_detours(&mut self, now: Instant) {
        if self.overlay.stranded().next().is_some() {
            let around = self.around(&BTreeSet::new());
            self.overlay.handle_detours(|peer| around.contains_key(&peer), now);
        }
    }

    /// Tells the data half which MAC addresses are behind our own bridge.
    pub(super) fn local_macs(&mut self) {
        // A port in conflict is down: the address, and so the MAC made from it, is another peer's container.
        let up = self.attachments.iter().filter(|attachment| attachment.conflicts.is_empty());
        let mut macs: BTreeSet<MacAddr> = up.map(|attachment| attachment.mac).collect();
        macs.insert(self.bridge_mac());
        self.outputs.push_back(Output::Data(Command::LocalMacs(macs)));
    }

    /// The bridge's MAC address: made from the peer name, so a restart does not change it.
    pub(super) fn bridge_mac(&self) -> MacAddr {
        MacAddr::from_peer(self.config.me.as_u64())
    }
}
