//! What there is to see from outside.

use std::{
    collections::BTreeSet,
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use weft_gossip::PeerName;

use super::{Allocator, gossip::Relation};
use crate::ipam::{
    cluster::{Meeting, seat},
    contract::{InitMode, IpamState, IpamStatus, Output},
    wire::Body,
};

/// How soon a changed hint is told where no other message carries it.
const HINT: Duration = Duration::from_secs(1);

impl Allocator {
    /// What there is to report.
    pub fn status(&self) -> IpamStatus {
        let owners =
            self.cluster.as_ref().map(|cluster| cluster.ring().owners_in(self.range)).unwrap_or_default();
        let conflicts = self.conflicts.iter();
        IpamStatus {
            state: self.state(),
            range: self.config.range,
            owned: owners.get(&self.me).copied().unwrap_or(0),
            used: self.leases.addresses_in(self.range).map(|_| 1).sum(),
            owners: owners.into_iter().collect(),
            conflicts: conflicts.map(|(address, (id, owner))| (id.clone(), *address, *owner)).collect(),
            faults: self.faults.iter().map(|(peer, reason)| (*peer, reason.clone())).collect(),
            other_ranges: self.strangers.iter().map(|(peer, range)| (*peer, *range)).collect(),
            discarded: self.discarded.clone(),
        }
    }

    /// Whether nobody is known to have an address left to give; who has not said how many counts as having some.
    pub fn is_exhausted(&self) -> bool {
        let seeded = self.cluster.is_some();
        let reachable = self.peers.iter().filter(|(_, known)| known.reachable).map(|(peer, _)| *peer);
        let mut others = reachable.map(|peer| self.headers.get(&peer).map_or(u64::MAX, |header| header.idle));
        seeded && self.space.lowest_in(self.range).is_none() && others.all(|idle| idle == 0)
    }

    fn state(&self) -> IpamState {
        let split = self.split_peers();
        if !split.is_empty() {
            return IpamState::Split(split.into_iter().collect());
        }
        let missing = if self.cluster.is_none() { self.missing_quorum() } else { self.unseen_seeds() };
        missing.map_or(IpamState::Ready, IpamState::Waiting)
    }

    /// Peers that were seeded apart from us while both rings are in use: no frame may go to or come from them.
    pub fn split_peers(&self) -> BTreeSet<PeerName> {
        let headers = self.headers.iter().filter(|(name, _)| self.peers.contains_key(name));
        headers
            .filter(|(_, header)| self.relation(header.ring) == Relation::Both(Meeting::Split))
            .map(|(name, _)| *name)
            .collect()
    }

    /// The addresses in use here, by address.
    pub fn allocations(&self) -> impl Iterator<Item = (&str, Ipv4Addr)> {
        self.leases.iter()
    }

    /// The addresses of an id, lowest first.
    pub fn lookup(&self, id: &str) -> impl Iterator<Item = Ipv4Addr> + '_ {
        self.leases.of(id)
    }

    /// What people call a peer.
    pub(super) fn call(&self, peer: PeerName) -> String {
        if let Some(known) = self.peers.get(&peer) {
            return known.nickname.clone();
        }
        let seats: &[String] = match &self.config.init {
            InitMode::Seed(nicknames) => nicknames,
            InitMode::Consensus(_) | InitMode::Observer => &[],
        };
        let sitter = seats.iter().find(|nickname| seat(nickname) == Some(peer));
        sitter.map_or_else(|| peer.to_string(), |nickname| format!("{nickname} (not seen yet)"))
    }

    /// Reports what changed since the last time, and keeps the hint of our idle space from going stale.
    pub(super) fn note_state_changes(&mut self, now: Instant) {
        let state = self.state();
        if state != self.told_state {
            self.told_state = state;
            self.emit(Output::StateChanged);
        }
        let split = self.split_peers();
        if split != self.told_split {
            self.told_split = split;
            self.emit(Output::SplitChanged);
        }
        let idle = self.space.count_in(self.range);
        let noticeable =
            (idle == 0) != (self.told_idle == 0) || idle / 2 > self.told_idle || idle < self.told_idle / 2;
        if !noticeable {
            self.hint_at = None;
        } else if *self.hint_at.get_or_insert(now + HINT) <= now {
            (self.told_idle, self.hint_at) = (idle, None);
            self.broadcasts.push(Body::Delta { segments: Vec::new(), removed: Vec::new() });
        }
    }
}
