//! How records spread: changes down the tree of their owner, and by comparison whatever that missed.
//!
//! - Our own change goes to all neighbours as a [`Change`](crate::topology::Change), and down our tree from there.
//!   A lost link is said at once. One more link to somebody who is in reach already can wait, the longer the more
//!   neighbours there are: else a thousand that come within seconds are announced a thousand times by each. A link
//!   to a stranger waits just so long as the news that it is in reach may take, which is seldom far behind.
//! - Where neighbours are limited others send through our links, so one more has to wait until what carries frames
//!   over it has had the time to come up.
//! - A new session with a stranger compares hashes, then stamps, then passes only the entries that differ.
//!   (Whoever was in reach heard what we heard; were something missed, the next comparison finds it.)
//! - What was learned so from a stranger is announced by its stamp alone (`Have`), down the tree of who learned it,
//!   and whoever lacks it asks: so a healed partition costs what the sides did not know, times one. Neighbours of
//!   the record's owner have it from the owner, and those of whoever told us have it from there.
//! - About every ten seconds a random neighbour is compared with, which repairs whatever was lost. What is found so
//!   is announced only if it is somebody unheard of: the rest was told to all, and each repairs for itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::RngExt as _;
use rand::rngs::StdRng;

use super::pace::Pace;
use super::relay::HOPS;
use super::{BURST, Mesh};
use crate::channel::Seen;
use crate::event::ConnectionId;
use crate::peer::{BootId, Incarnation, PeerName};
use crate::topology::{KNOWN_LIMIT, Merge, Records, Said, Stamp};
use crate::wire::{Changed, Have, Message, Origin};

/// The time between comparisons with a random neighbour, give or take a fifth…
const REPAIR: Duration = Duration::from_secs(10);
/// …and after the routes have changed, or something was missed.
const REPAIR_SOON: Duration = Duration::from_secs(1);
/// Peers that became reachable are compared with after about this time.
const GREET: Duration = Duration::from_millis(100);
/// With so many of them.
pub(super) const GREETED: usize = 3;
/// States are compared after a change without a delta at most this often.
const STATES: Duration = Duration::from_millis(200);
/// Somebody who goes on speaking in our name is answered at most this often.
const RAISE: Duration = Duration::from_secs(1);
/// The same record is asked for again after this time.
const ASK_AGAIN: Duration = Duration::from_millis(300);
/// That a peer is in reach is heard within this time, or there is no other way to it.
const RUMOUR: Duration = Duration::from_millis(400);
/// With limited neighbours a link to somebody who is in reach already is not said for so long: others would send through
/// it before anything carries frames there. That takes three round trips, and longer where something is lost.
const SETTLING: Duration = Duration::from_millis(500);
/// By then everybody has heard of whom we met.
const FAMILIAR: Duration = Duration::from_millis(600);
/// A record of an earlier version than this is so young that the far ends of its links may not have told of them.
const YOUNG: u64 = 4;
/// What comes over a connection so long after a repair began there came of it.
const REPAIRING: Duration = Duration::from_secs(2);

/// Something learned by comparison.
struct News {
    /// Whom we have it from; none: from ourselves.
    from: Option<PeerName>,
    /// Who learned it first, and told us down its tree; perhaps ourselves.
    learner: PeerName,
}

/// Something asked for.
struct Wanted {
    stamp: Stamp,
    asked: Instant,
    /// Who learned it, if it was announced.
    learner: Option<PeerName>,
}

/// What the spreading of records has to remember.
pub(super) struct Gossip {
    /// Our own record is to be said anew.
    pub(super) publish: Pace,
    /// States of channels are to be compared with random peers.
    pub(super) states: Pace,
    /// Which changes of records have passed here; their versions are their numbers.
    changes: Seen,
    news: BTreeMap<PeerName, News>,
    spread: Pace,
    /// Neighbours that our record does not tell of yet, and when we met them.
    unsaid: BTreeMap<PeerName, Instant>,
    /// Those of them that were in reach already, until when we keep it so.
    settling: BTreeMap<PeerName, Instant>,
    /// Neighbours that no way seemed to lead to when we met, until when it should show whether one does.
    strangers: BTreeMap<PeerName, Instant>,
    raise: Pace,
    outdone_by: Option<Stamp>,
    last_outdone: Option<BootId>,
    wanted: BTreeMap<PeerName, Wanted>,
    /// Where a repair began, and when.
    repairing: BTreeMap<ConnectionId, Instant>,
    repair_at: Instant,
    fresh: Vec<PeerName>,
    greet_at: Option<Instant>,
}

impl Gossip {
    pub(super) fn new(now: Instant, rng: &mut StdRng) -> Self {
        Self {
            publish: Pace::new(BURST),
            states: Pace::new(STATES),
            changes: Seen::default(),
            news: BTreeMap::new(),
            spread: Pace::new(BURST),
            unsaid: BTreeMap::new(),
            settling: BTreeMap::new(),
            strangers: BTreeMap::new(),
            raise: Pace::new(RAISE),
            outdone_by: None,
            last_outdone: None,
            wanted: BTreeMap::new(),
            repairing: BTreeMap::new(),
            repair_at: now + jittered(REPAIR, rng),
            fresh: Vec::new(),
            greet_at: None,
        }
    }

    pub(super) fn due(&self) -> Option<Instant> {
        let paced =
            [self.publish.due(), self.states.due(), self.spread.due(), self.raise.due(), self.greet_at];
        let doubts = self.strangers.values().chain(self.settling.values()).min().copied();
        paced.into_iter().flatten().chain(doubts).chain([self.repair_at]).min()
    }

    /// Something was missed, or may have been.
    fn repair_soon(&mut self, now: Instant, rng: &mut StdRng) {
        self.repair_at = self.repair_at.min(now + jittered(REPAIR_SOON, rng));
    }

    /// Other routes, other trees: something may have been lost in between.
    pub(super) fn routes_changed(&mut self, fresh: Vec<PeerName>, now: Instant, rng: &mut StdRng) {
        self.repair_soon(now, rng);
        self.fresh.extend(fresh);
        if self.fresh.is_empty() {
            return;
        }
        let spare = self.fresh.len().saturating_sub(KNOWN_LIMIT);
        self.fresh.drain(..spare);
        self.greet_at = self.greet_at.or(Some(now + jittered(GREET, rng)));
    }
}

fn jittered(time: Duration, rng: &mut StdRng) -> Duration {
    time.mul_f64(rng.random_range(0.8..1.2))
}

impl Mesh {
    /// Says our own record anew if it changed.
    pub(super) fn publish_own(&mut self, now: Instant) {
        if let Some(stamp) = self.gossip.outdone_by.filter(|_| self.gossip.raise.take(now)) {
            self.gossip.outdone_by = None;
            self.topology.raise_above(stamp);
            self.counters.records_raised += 1;
            self.learned(self.me, News { from: None, learner: self.me });
        }
        self.look_at_strangers(now);
        self.look_at_settling(now);
        if self.gossip.publish.take(now) {
            let Gossip { unsaid, settling, .. } = &mut self.gossip;
            let links = self.neighbours.keys().copied().filter(|peer| !settling.contains_key(peer)).collect();
            let (kept, told): (BTreeMap<_, _>, BTreeMap<_, _>) =
                std::mem::take(unsaid).into_iter().partition(|(peer, _)| settling.contains_key(peer));
            *unsaid = kept;
            let recent = |name| told.get(&name).is_some_and(|met| *met + FAMILIAR > now);
            if let Some(change) = self.topology.publish(&links, &self.idle, &self.endpoints(), recent) {
                self.reroute.want_apart(self.reroute_patience());
                let neighbours: Vec<_> = self.neighbours.keys().copied().collect();
                self.flood(&neighbours, &Message::Changed(Changed { hops: HOPS, change }));
            }
        }
        if self.gossip.states.take(now) {
            let peers = self.routes.reachable().collect();
            self.compare_states(peers);
        }
    }

    /// Says whether this boot of a peer is in reach already: then it heard what we heard.
    pub(super) fn knows_way_to(&self, peer: PeerName, boot: BootId) -> bool {
        let Some(record) = self.topology.record(peer).filter(|record| record.boot == boot) else {
            return false;
        };
        let linked = |one, two| self.topology.are_linked(one, two) && self.topology.are_linked(two, one);
        self.routes.hops(peer).is_some()
            || self.neighbours.keys().any(|neighbour| linked(*neighbour, peer))
            || record.version < YOUNG && self.hears_elsewhere(peer)
    }

    /// Says whether a peer reports a link to somebody whom we reach without it.
    fn hears_elsewhere(&self, peer: PeerName) -> bool {
        let apart = |link| link != self.me && self.routes.next_hop(link).is_some_and(|via| via != peer);
        self.topology.links(peer).any(apart)
    }

    /// A peer became a neighbour; `known`: it was in reach already.
    ///
    /// In a mesh that grows a stranger is most likely one that was met before its record came. Only if that does
    /// not come is this link a bridge that all should hear of soon.
    pub(super) fn met(&mut self, peer: PeerName, known: bool, now: Instant) {
        self.reroute.want_apart(if known { self.reroute_patience() } else { BURST });
        self.gossip.unsaid.insert(peer, now);
        if known && self.connection_limit.is_some() {
            self.gossip.settling.insert(peer, now + SETTLING);
            return;
        }
        self.gossip.publish.want_apart(self.patience());
        if !known && self.patience() <= BURST {
            self.gossip.publish.want();
        } else if !known {
            self.gossip.strangers.insert(peer, now + RUMOUR.min(self.patience()));
        }
    }

    /// A neighbour is none any more.
    pub(super) fn parted(&mut self, peer: PeerName) {
        self.gossip.settling.remove(&peer);
        self.gossip.publish.want();
        self.reroute.want();
    }

    fn look_at_settling(&mut self, now: Instant) {
        let waiting = self.gossip.settling.len();
        self.gossip.settling.retain(|_, until| *until > now);
        if self.gossip.settling.len() < waiting {
            self.gossip.publish.want_apart(self.patience());
        }
    }

    fn look_at_strangers(&mut self, now: Instant) {
        while let Some((peer, _)) = self.gossip.strangers.iter().find(|(_, until)| **until <= now) {
            let peer = *peer;
            self.gossip.strangers.remove(&peer);
            if !self.hears_elsewhere(peer) {
                self.gossip.publish.want();
            }
        }
    }

    /// Neighbours with whom nobody counts on us to pass anything on: neither end has told of the link yet, and they
    /// hear from others. Else all neighbours of a newcomer would pass on to it, and from it, at once.
    pub(super) fn quiet(&self) -> BTreeSet<PeerName> {
        let untold = |peer: &&PeerName| {
            !self.topology.are_linked(self.me, **peer) && !self.topology.are_linked(**peer, self.me)
        };
        let unsaid = self.gossip.unsaid.keys().filter(untold).copied();
        unsaid.filter(|peer| self.hears_elsewhere(*peer)).collect()
    }

    /// Announces what was learned by comparison to those it was not learned from.
    pub(super) fn spread_news(&mut self, now: Instant) {
        if !self.gossip.spread.take(now) {
            return;
        }
        let news = std::mem::take(&mut self.gossip.news);
        let learners: BTreeSet<_> = news.values().map(|news| news.learner).collect();
        let neighbours: Vec<_> = self.neighbours.keys().copied().collect();
        for learner in learners {
            let routes = Arc::clone(&self.routes);
            let next = if learner == self.me { &neighbours[..] } else { routes.flood(learner) };
            for neighbour in next.iter().copied() {
                let others = news.iter().filter(|(name, news)| {
                    news.learner == learner
                        && !news.from.is_some_and(|from| self.topology.are_linked(from, neighbour))
                        && !self.topology.are_linked(**name, neighbour)
                });
                let stamps = self.topology.stamps_of(others.map(|(name, _)| *name));
                if !stamps.is_empty() {
                    self.send_bulk(neighbour, &Message::Have(Have { learner, stamps }));
                }
            }
        }
    }

    fn learned(&mut self, name: PeerName, news: News) {
        self.gossip.news.insert(name, news);
        self.gossip.spread.want();
    }

    /// Compares everything with the far side of one connection.
    pub(super) fn synchronise(&mut self, connection: ConnectionId) {
        self.send(connection, &Message::TopologyHash(self.topology.hash()));
        self.compare_states_over(connection);
    }

    pub(super) fn compare_hash(&mut self, connection: ConnectionId, hash: [u8; 16]) {
        if hash != self.topology.hash() {
            self.send(connection, &Message::Digest(self.topology.stamps()));
        }
    }

    /// Answers a comparison that repairs: what comes of it was told to all and is not told again.
    pub(super) fn compare_repairing(&mut self, connection: ConnectionId, hash: [u8; 16], now: Instant) {
        self.note_repair(connection, now);
        self.compare_hash(connection, hash);
    }

    fn note_repair(&mut self, connection: ConnectionId, now: Instant) {
        self.gossip.repairing.retain(|_, began| now.saturating_duration_since(*began) < REPAIRING);
        self.gossip.repairing.insert(connection, now);
    }

    pub(super) fn compare_digest(
        &mut self,
        connection: ConnectionId,
        stamps: &[(PeerName, Stamp)],
        now: Instant,
    ) {
        let newer = self.topology.newer_than(stamps);
        self.give(connection, &newer);
        self.want(connection, stamps, None, now);
    }

    /// Asks for what is newer there, unless it was just asked for elsewhere; `learner`: who announces it.
    pub(super) fn want(
        &mut self,
        connection: ConnectionId,
        stamps: &[(PeerName, Stamp)],
        learner: Option<PeerName>,
        now: Instant,
    ) {
        let mut names = Vec::new();
        for (name, stamp) in stamps.iter().copied() {
            if !self.topology.lacks(name, stamp) {
                continue;
            }
            if name == self.me {
                self.outdone(stamp);
                continue;
            }
            let asked = self.gossip.wanted.get(&name).is_some_and(|wanted| {
                wanted.stamp >= stamp && now.saturating_duration_since(wanted.asked) < ASK_AGAIN
            });
            if !asked && names.len() < KNOWN_LIMIT {
                self.gossip.wanted.insert(name, Wanted { stamp, asked: now, learner });
                names.push(name);
            }
        }
        if self.gossip.wanted.len() > KNOWN_LIMIT {
            self.gossip.wanted.retain(|_, wanted| now.saturating_duration_since(wanted.asked) < ASK_AGAIN);
        }
        if !names.is_empty() {
            self.send(connection, &Message::Want(names));
        }
    }

    /// Passes entries to the far side of one connection, unless it is slow: it will be compared with later.
    pub(super) fn give(&mut self, connection: ConnectionId, names: &[PeerName]) {
        for records in self.topology.pack(names) {
            if !self.links.get_mut(&connection).is_some_and(super::link::Link::takes_deltas) {
                self.counters.slow_neighbour_drops += 1;
                return;
            }
            self.send(connection, &Message::Records(records));
        }
    }

    pub(super) fn take_records(&mut self, connection: ConnectionId, records: Records, now: Instant) {
        let from = self.links.get(&connection).and_then(|link| link.live()).map(|live| live.peer);
        let Some(entries) = records.unpack() else {
            self.counters.records_refused += 1;
            return;
        };
        let repairing = self.gossip.repairing.get(&connection);
        let repairing = repairing.is_some_and(|began| now.saturating_duration_since(*began) < REPAIRING);
        for (name, said) in entries {
            let learner = self.gossip.wanted.remove(&name).and_then(|wanted| wanted.learner);
            let (before, removed) = (self.life(name), said.entry.stamp().removed);
            match self.topology.merge(name, said) {
                Merge::News => {
                    let unheard_of = removed || !repairing || before != self.life(name);
                    if learner.is_some() || unheard_of {
                        self.learned(name, News { from, learner: learner.unwrap_or(self.me) });
                    }
                    self.noted(name, before, now);
                }
                Merge::Ours(stamp) => self.outdone(stamp),
                Merge::Refused => self.counters.records_refused += 1,
                Merge::Known | Merge::Missing => {}
            }
        }
    }

    /// Takes a change that came down the tree of its owner, and passes it on.
    pub(super) fn take_changed(
        &mut self,
        connection: ConnectionId,
        from: PeerName,
        changed: Changed,
        now: Instant,
    ) {
        let Changed { hops, change } = changed;
        let (name, incarnation, boot) = (change.name, change.incarnation, change.boot);
        let origin = Origin { source: name, incarnation, boot, sequence: change.version };
        if name == self.me || !self.gossip.changes.first_time(origin) {
            self.counters.broadcasts_repeated += 1;
            return;
        }
        let (before, moved) = (self.life(name), change.endpoints.is_some());
        let merge = self.topology.merge_change(&change);
        // Of whom we know nothing we know no tree.
        let passes = merge != Merge::Refused && self.topology.record(name).is_some();
        if let Some(hops) = hops.checked_sub(1).filter(|_| passes) {
            // With whom the owner is linked now it has told itself, whatever the routes say as yet.
            let current = matches!(merge, Merge::News | Merge::Known);
            let told = |next: PeerName| next == from || current && self.topology.are_linked(name, next);
            let next: Vec<_> = self.routes.flood(name).iter().copied().filter(|next| !told(*next)).collect();
            if !next.is_empty() {
                self.flood(&next, &Message::Changed(Changed { hops, change }));
            }
        }
        match merge {
            Merge::News if moved => self.noted(name, before, now),
            Merge::News => self.links_noted(),
            Merge::Missing => {
                // Whoever passed it on may lack the same: so this is no question that others' offers wait for.
                self.send(connection, &Message::Want(vec![name]));
                self.gossip.repair_soon(now, &mut self.rng);
            }
            Merge::Ours(stamp) => self.outdone(stamp),
            Merge::Refused => self.counters.records_refused += 1,
            Merge::Known => {}
        }
    }

    fn life(&self, name: PeerName) -> Option<(Incarnation, BootId)> {
        self.topology.record(name).map(|record| (record.incarnation, record.boot))
    }

    /// Links changed: the routes follow.
    fn links_noted(&mut self) {
        self.reroute.want_apart(self.reroute_patience());
        self.peers_changed = true;
    }

    /// An entry changed: routes, dials and memories follow.
    fn noted(&mut self, name: PeerName, before: Option<(Incarnation, BootId)>, now: Instant) {
        self.links_noted();
        match self.topology.record(name) {
            Some(record) if self.discovery => {
                let restarted = before.is_some_and(|before| before != (record.incarnation, record.boot));
                self.dialer.learn(name, &record.endpoints, restarted, &mut self.rng, now);
            }
            Some(_) => {}
            None => self.forget(name, now),
        }
    }

    fn forget(&mut self, name: PeerName, now: Instant) {
        self.seen.forget(name);
        self.gossip.changes.forget(name);
        if let Some(attempt) = self.dialer.forget_peer(name) {
            self.end(attempt, "removed", now);
        }
    }

    /// Removes a peer on behalf of the user.
    pub(super) fn remove_record(&mut self, peer: PeerName, now: Instant) {
        let Some(incarnation) = self.topology.record(peer).map(|record| record.incarnation) else { return };
        if self.topology.merge(peer, Said::removal(incarnation)) != Merge::News {
            return;
        }
        let sessions = self.neighbours.get(&peer).map(|neighbour| neighbour.connections.clone());
        for connection in sessions.into_iter().flatten() {
            self.end(connection, "removed", now);
        }
        self.learned(peer, News { from: None, learner: self.me });
        self.noted(peer, None, now);
    }

    /// Somebody holds a newer record in our name: from an earlier life, a removal, or a clone of ours.
    fn outdone(&mut self, stamp: Stamp) {
        if !stamp.removed && stamp.boot != self.boot && self.gossip.last_outdone == Some(stamp.boot) {
            self.counters.clones += 1; // outdone before, and still publishing
        }
        if !stamp.removed {
            self.gossip.last_outdone = Some(stamp.boot);
        }
        self.gossip.outdone_by = self.gossip.outdone_by.max(Some(stamp));
        self.gossip.raise.want();
    }

    /// Compares with a random neighbour and a random peer now and then, and with those that just came in reach.
    pub(super) fn repair(&mut self, now: Instant) {
        if self.gossip.greet_at.is_some_and(|at| at <= now) {
            self.gossip.greet_at = None;
            let fresh = std::mem::take(&mut self.gossip.fresh);
            self.compare_states(fresh);
        }
        if self.gossip.repair_at > now {
            return;
        }
        self.gossip.repair_at = now + jittered(REPAIR, &mut self.rng);
        let connections: Vec<_> = self.neighbours.values().map(|neighbour| neighbour.current).collect();
        if !connections.is_empty() {
            let connection = connections[self.rng.random_range(0..connections.len())];
            self.note_repair(connection, now);
            self.send(connection, &Message::RepairHash(self.topology.hash()));
        }
        let peers: Vec<_> = self.routes.reachable().collect();
        if !peers.is_empty() {
            let peer = peers[self.rng.random_range(0..peers.len())];
            self.compare_states(vec![peer]);
        }
    }
}
