//! Peers come, go, are removed for good, or leave in good order.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use weft_gossip::PeerName;

use super::{Allocator, commands::Step};
use crate::ipam::{
    cluster::Cluster,
    contract::{IpamError, Output, PeerKnowledge, Reply},
    pending::{Parcel, Waiting},
    ring::Segment,
    wire::Body,
};

/// What was taken over rests this long: another operator may be removing the same peer, and containers of a
/// peer that is not so dead may claim their addresses.
const SETTLING: Duration = Duration::from_secs(1);

/// How long an heir has to say thank you before the parcel is sent again.
const THANKS: Duration = Duration::from_millis(500);

/// Most removed peers that are remembered.
const REMOVED_LIMIT: usize = 1024;

/// Most peers that may have a say in the first division.
const ELECTOR_LIMIT: usize = 4096;

impl Allocator {
    pub(super) fn meet_peers(&mut self, peers: BTreeMap<PeerName, PeerKnowledge>) {
        let before = std::mem::replace(&mut self.peers, peers);
        let known = &self.peers;
        self.headers.retain(|name, _| known.contains_key(name));
        self.granted.retain(|name, _| known.contains_key(name));
        self.strangers.retain(|name, _| known.contains_key(name));
        let new = |name: &PeerName, peer: &PeerKnowledge| {
            peer.reachable
                && before.get(name).is_none_or(|old| !old.reachable || old.incarnation != peer.incarnation)
        };
        let greeted: Vec<PeerName> =
            self.peers.iter().filter(|(name, peer)| new(name, peer)).map(|(name, _)| *name).collect();
        for peer in greeted {
            self.removed.remove(&peer); // It is back, and may own again what it is given from now on.
            self.greet(peer);
        }
        let voteless = |name: &PeerName| {
            self.strangers.contains_key(name) || self.headers.get(name).is_some_and(|header| header.observer)
        };
        let removed = |name: &PeerName, peer: &PeerKnowledge| {
            self.removed.get(name).is_some_and(|incarnation| peer.incarnation <= *incarnation)
        };
        let electors = self.peers.iter().filter(|(name, peer)| !voteless(name) && !removed(name, peer));
        let electors: Vec<PeerName> = electors.map(|(name, _)| *name).collect();
        if self.cluster.is_none() && self.electors.len() < ELECTOR_LIMIT {
            let count = self.electors.len();
            self.electors.extend(electors);
            self.must_persist |= self.electors.len() != count;
        }
    }

    /// Takes over what a peer owned, because an operator says that it is gone for good.
    pub(super) fn remove_peer(
        &mut self,
        peer: PeerName,
        force: bool,
        now: Instant,
    ) -> Result<Reply, IpamError> {
        let owns = |cluster: &Cluster| cluster.ring().owners_in(self.range).contains_key(&peer);
        let known = self.peers.get(&peer);
        if peer == self.me {
            let reason = "a peer cannot remove itself; `weft reset` leaves the cluster";
            return Err(IpamError::Refused(reason.to_owned()));
        }
        if known.is_none() && !self.cluster.as_ref().is_some_and(owns) {
            return Err(IpamError::Refused(format!("no peer {peer} is known")));
        }
        if known.is_some_and(|known| known.reachable) && !force {
            let reason = format!(
                "{} is reachable; only a peer that is gone is removed (or use --force)",
                self.call(peer)
            );
            return Err(IpamError::Refused(reason));
        }
        let heard = self.headers.get(&peer).map(|header| header.stamp.0);
        let incarnation = known.map(|known| known.incarnation).max(heard).unwrap_or(0);
        if self.removed.len() < REMOVED_LIMIT {
            self.removed.insert(peer, incarnation);
        }
        self.forget(peer);
        self.must_persist = true;
        self.gone.push(peer);
        Ok(Reply::Removed(self.take_over(peer, now)))
    }

    /// Moves everything of a dead peer to us, fenced; it rests for a moment before it is used.
    pub(super) fn take_over(&mut self, peer: PeerName, now: Instant) -> u64 {
        let me = self.me;
        let Some(cluster) = &mut self.cluster else { return 0 };
        let taken: Vec<Segment> = cluster.change(|ring| ring.take_over(peer, me));
        self.settling.extend(taken.iter().map(|segment| (segment.span, now + SETTLING)));
        self.news.extend(&taken);
        self.must_persist = true;
        self.rebuild();
        taken.iter().map(|segment| segment.span.size()).sum()
    }

    fn forget(&mut self, peer: PeerName) {
        self.electors.remove(&peer);
        self.headers.remove(&peer);
        self.granted.remove(&peer);
        self.faults.remove(&peer);
        self.emit(Output::Removed { peer });
    }

    /// An operator elsewhere removed peers; what they owned came as segments.
    pub(super) fn hear_removed(&mut self, author: PeerName, removed: Vec<PeerName>) {
        for peer in removed {
            if peer != self.me && peer != author {
                self.forget(peer);
            }
        }
    }

    pub(super) fn step_leave(&mut self) -> Step {
        if let Some(parcel) = &self.parcel {
            return match parcel.received {
                true => Step::Done(Ok(Reply::Done)),
                false => Step::Wait(Waiting::Somebody(format!(
                    "{} to confirm the addresses",
                    self.call(parcel.heir)
                ))),
            };
        }
        let owned = |cluster: &Cluster| cluster.ring().owners_in(self.range).contains_key(&self.me);
        let split = self.split_peers();
        let relatives: Vec<PeerName> =
            self.peers.keys().filter(|peer| !split.contains(peer)).copied().collect();
        if !self.cluster.as_ref().is_some_and(owned) || relatives.is_empty() {
            self.left = true;
            return Step::Done(Ok(Reply::Done));
        }
        let Some(heir) = self.heir(&relatives) else {
            let names: Vec<String> = relatives.iter().map(|peer| self.call(*peer)).collect();
            return Step::Wait(Waiting::Somebody(format!(
                "a live peer to take the addresses ({})",
                names.join(", ")
            )));
        };
        self.bequeath(heir);
        Step::Wait(Waiting::Somebody(format!("{} to confirm the addresses", self.call(heir))))
    }

    /// A reachable peer with our ring, preferably one that owns part of it already.
    fn heir(&self, relatives: &[PeerName]) -> Option<PeerName> {
        let cluster = self.cluster.as_ref()?;
        let owners = cluster.ring().owners_in(self.range);
        let fit = relatives.iter().filter(|peer| {
            let ring = self.headers.get(peer).and_then(|header| header.ring);
            self.peers.get(peer).is_some_and(|peer| peer.reachable)
                && ring.is_some_and(|ring| ring.charter == cluster.charter)
        });
        fit.max_by_key(|peer| (owners.get(peer), **peer)).copied()
    }

    fn bequeath(&mut self, heir: PeerName) {
        let (me, range) = (self.me, self.range);
        let mut segments = Vec::new();
        if let Some(cluster) = &mut self.cluster {
            for span in cluster.ring().owned_in(me, range) {
                segments.extend(cluster.change(|ring| ring.grant(span, me, heir)).unwrap_or_default());
            }
        }
        self.leases = Default::default();
        self.conflicts.clear();
        self.left = true;
        self.news.extend(&segments);
        self.must_persist = true;
        self.rebuild();
        let nonce = self.draw();
        self.parcel = Some(Parcel { heir, nonce, segments, resend: None, received: false });
    }

    /// Sends the parcel until the heir has thanked for it.
    pub(super) fn hand_over(&mut self, now: Instant) {
        let Some(parcel) = &mut self.parcel else { return };
        if parcel.received || parcel.resend.is_some_and(|at| at > now) {
            return;
        }
        parcel.resend = Some(now + THANKS);
        let (heir, body) =
            (parcel.heir, Body::Handover { nonce: parcel.nonce, segments: parcel.segments.clone() });
        self.send(heir, body);
    }

    pub(super) fn hear_received(&mut self, nonce: u64) {
        if let Some(parcel) = &mut self.parcel
            && parcel.nonce == nonce
        {
            parcel.received = true;
        }
    }
}
