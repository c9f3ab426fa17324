//! What follows when the ring changes: the space that is ours, and what must be claimed back.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use weft_gossip::PeerName;

use super::{Allocator, QUIET, Quiet};
use crate::ipam::{
    address::Span,
    cluster::{Charter, Cluster, seat},
    consensus::Consensus,
    contract::{InitMode, Output},
    ring::{BadRing, Ring, Segment},
    space::Space,
};

/// More fragments than this are joined by raising them to one epoch.
const FRAGMENT_LIMIT: usize = 64;

/// How long to take no other ring than the one of most peers, after leaving another one for it.
const PREFERENCE: Duration = Duration::from_secs(3);

impl Allocator {
    /// Derives space and disputes anew.
    pub(super) fn rebuild(&mut self) {
        let Some(cluster) = &self.cluster else {
            self.space = Space::default();
            self.disputed.clear();
            return;
        };
        let owned = cluster.ring().owned_in(self.me, self.range);
        let leased = self.leases.addresses_in(self.range);
        let settling = self.settling.iter().map(|(span, _)| *span);
        self.space = Space::new(&owned, settling.chain(leased.map(Span::single)));
        let leased = self.leases.addresses_in(self.range);
        self.disputed = leased.filter(|address| cluster.ring().owner_of(*address) != Some(self.me)).collect();
    }

    pub(super) fn owns(&self, address: u32) -> bool {
        self.cluster.as_ref().is_some_and(|cluster| cluster.ring().owner_of(address) == Some(self.me))
    }

    pub(super) fn is_settling(&self, span: Span) -> bool {
        self.settling.iter().any(|(settling, _)| settling.intersection(span).is_some())
    }

    /// Merges segments of our own cluster; a bad message changes nothing.
    pub(super) fn merge(&mut self, segments: &[Segment], now: Instant) -> Result<(), BadRing> {
        let Some(cluster) = &mut self.cluster else { return Ok(()) };
        let news = cluster.ring().news_in(segments)?;
        if news.is_empty() {
            return Ok(());
        }
        let before = cluster.ring().owned_in(self.me, self.range);
        cluster.change(|ring| ring.absorb(&news));
        self.lazily(now);
        for (goal, ask) in &mut self.asks {
            let touching = news.iter().filter(|segment| segment.span.intersection(goal.span()).is_some());
            for segment in touching {
                ask.refusals.remove(&segment.holding.owner);
                ask.without.remove(&segment.holding.owner);
            }
        }
        let ghosts: Vec<PeerName> = news.iter().map(|segment| segment.holding.owner).collect();
        self.fence_ghosts(ghosts, now);
        let after = self.cluster.as_ref().map(|cluster| cluster.ring().owned_in(self.me, self.range));
        if after.is_some_and(|after| after != before) {
            self.must_persist = true;
            self.join_fragments();
            self.rebuild();
        }
        Ok(())
    }

    /// A peer removed here may have been given something that was not known then.
    fn fence_ghosts(&mut self, mut owners: Vec<PeerName>, now: Instant) {
        owners.sort_unstable();
        owners.dedup();
        for owner in owners {
            let alive = self.peers.get(&owner).is_some_and(|peer| peer.reachable);
            if self.removed.contains_key(&owner) && !alive {
                self.take_over(owner, now);
            }
        }
    }

    fn join_fragments(&mut self) {
        let (me, range) = (self.me, self.range);
        let Some(cluster) = &mut self.cluster else { return };
        if cluster.ring().owned_in(me, range).len() > FRAGMENT_LIMIT {
            self.news.extend(cluster.change(|ring| ring.compact(me)));
        }
    }

    /// Gives a span of ours to another peer: on disk before it is told.
    pub(super) fn give(&mut self, span: Span, to: PeerName) -> Vec<Segment> {
        let me = self.me;
        let Some(cluster) = &mut self.cluster else { return Vec::new() };
        let Ok(changed) = cluster.change(|ring| ring.grant(span, me, to)) else { return Vec::new() };
        cluster.used = true;
        self.must_persist = true;
        self.news.extend(&changed);
        self.space.remove(span);
        changed
    }

    /// Takes a ring in place of none or of a provisional one.
    pub(super) fn adopt(&mut self, charter: Charter, used: bool, ring: Ring, now: Instant) {
        let mine = !ring.owned_in(self.me, self.range).is_empty();
        // A share that we were not voting on is one that we had before our state was lost.
        if mine && self.cluster.is_none() && !self.has_voted_for(charter) {
            self.quiet = Some(Quiet::ForClaims(now + QUIET));
        }
        if std::mem::take(&mut self.moved) {
            self.quiet = Some(Quiet::Moved(now + QUIET));
        }
        self.cluster = Some(Cluster::new(charter, used, ring));
        self.preferred = None;
        self.consensus = Consensus::new(self.me, None);
        self.asks.clear();
        self.granted.clear();
        self.settling.clear();
        self.must_persist = true;
        self.lazily(now);
        self.rebuild();
        self.announce_ring();
        let removed = self.removed.keys().copied().collect();
        self.fence_ghosts(removed, now);
    }

    /// Of a split only those are part who own or use something. A peer without, such as one that was just
    /// reset, goes over to the ring of most peers, so that a split ends when one side has been reset.
    pub(super) fn join_majority(&mut self, now: Instant) {
        let Some(cluster) = &self.cluster else { return };
        let idle = self.pending.is_empty() && self.asks.is_empty() && self.parcel.is_none() && !self.left;
        let bare = || {
            self.leases.addresses_in(self.range).next().is_none()
                && cluster.ring().owned_in(self.me, self.range).is_empty()
        };
        let split = self.split_peers();
        if split.is_empty() || !idle || !bare() {
            return;
        }
        let mut sides: BTreeMap<Charter, usize> = BTreeMap::from([(cluster.charter, 0)]);
        for (name, header) in &self.headers {
            if self.peers.get(name).is_some_and(|peer| peer.reachable)
                && let Some(ring) = header.ring
            {
                *sides.entry(ring.charter).or_insert(0) += 1;
            }
        }
        let ours = sides.get(&cluster.charter).copied();
        let largest = sides.iter().max_by_key(|(_, count)| **count);
        if let Some((largest, count)) = largest
            && Some(*count) > ours
        {
            let largest = *largest;
            let member = |peer: &&PeerName| {
                self.headers.get(*peer).and_then(|header| header.ring).map(|ring| ring.charter)
                    == Some(largest)
            };
            let Some(peer) = split.iter().find(member).copied() else { return };
            self.cluster = None;
            self.preferred = Some((largest, now + PREFERENCE));
            self.must_persist = true;
            self.rebuild();
            self.repairs.enqueue(peer);
        }
    }

    fn has_voted_for(&self, charter: Charter) -> bool {
        self.consensus.own().is_some_and(|vote| {
            let promised = vote.promised.is_some_and(|ballot| ballot.proposer == charter.founder);
            let accepted = vote.accepted.as_ref().is_some_and(|(_, decree)| decree.charter == charter);
            accepted || (promised && charter.founder != self.me)
        })
    }

    /// In a ring seeded by nicknames, the seat of our nickname is ours.
    pub(super) fn take_seat(&mut self) {
        let InitMode::Seed(nicknames) = &self.config.init else { return };
        if !nicknames.contains(&self.nickname) || self.left {
            return;
        }
        let (Some(seat), Some(cluster)) = (seat(&self.nickname), &mut self.cluster) else { return };
        let spans = cluster.ring().owned_in(seat, self.range);
        if spans.is_empty() {
            return;
        }
        let me = self.me;
        for span in spans {
            let changed = cluster.change(|ring| ring.grant(span, seat, me));
            self.news.extend(changed.unwrap_or_default());
        }
        self.must_persist = true;
        self.rebuild();
    }

    /// An address of ours stays with its new owner.
    pub(super) fn give_up(&mut self, address: u32, owner: PeerName) {
        let address = address.into();
        self.disputed.remove(&u32::from(address));
        let Some(id) = self.leases.remove(address) else { return };
        self.conflicts.insert(address, (id.clone(), owner));
        self.must_persist = true;
        self.emit(Output::Conflict { id, address, owner });
    }
}
