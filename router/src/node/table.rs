//! What the control half knows, pressed into the one table the data half looks things up in.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

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
            self.mesh.routes()
        } else {
            Arc::new(Routes::compute(&self.mesh.graph(), self.config.me, |peer| !barred.contains(&peer)))
        };
        let mut next_hop: BTreeMap<_, _> =
            routes.reachable().filter_map(|peer| Some((peer, routes.next_hop(peer)?))).collect();
        self.pass_by_idle(&mut next_hop, &barred);
        let carriers: BTreeMap<_, _> =
            self.overlay.neighbours().filter_map(|(peer, n)| Some((peer, n.serving()?))).collect();
        let (flood, upstream) = (routes.broadcast().clone(), routes.upstream().clone());
        ForwardingTable { me: self.config.me, next_hop, flood, upstream, carriers, barred }
    }

    /// A neighbour that nothing carries frames to (its session has just begun or just ended, or sleeve is silent) is
    /// passed by where another way leads.
    fn pass_by_idle(&self, next_hop: &mut BTreeMap<PeerName, PeerName>, barred: &BTreeSet<PeerName>) {
        if self.overlay.neighbours().nth(CROWD).is_some() {
            return;
        }
        let carries = |peer| self.overlay.neighbour(peer).and_then(Neighbour::serving).is_some();
        let nearest: BTreeSet<PeerName> = next_hop.values().copied().collect();
        if nearest.iter().all(|peer| carries(*peer)) {
            return;
        }
        let neighbours = self.overlay.neighbours().map(|(peer, _)| peer);
        let idle: BTreeSet<PeerName> =
            nearest.into_iter().chain(neighbours).filter(|peer| !carries(*peer)).collect();
        let graph = self.mesh.graph().only(|peer| !barred.contains(&peer));
        let around = Routes::around(&graph, self.config.me, &idle);
        for (peer, next) in next_hop.iter_mut().filter(|(_, next)| idle.contains(next)) {
            *next = around.get(peer).copied().unwrap_or(*next);
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
