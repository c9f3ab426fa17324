//! How records spread: changes down the broadcast tree, and by comparison whatever that missed.
//!
//! - Our own change goes to all neighbours as a [`Change`], and down the tree from there. A lost link and a link to
//!   a stranger are said at once. One more link to somebody who is in reach already can wait, the longer the more
//!   neighbours there are: else a thousand that come within seconds are announced a thousand times by each.
//! - A new session with a stranger compares hashes, then stamps, then passes only the entries that differ.
//!   (Whoever was in reach heard what we heard; were something missed, the next comparison finds it.)
//! - What was learned by comparison is announced to the other neighbours by its stamp alone (`Have`), and
//!   whoever lacks it asks: so a healed partition costs what the sides did not know, times one. Neighbours of the
//!   record's owner have it from the owner.
//! - About every ten seconds a random neighbour is compared with, which repairs whatever was lost.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rand::RngExt as _;
use rand::rngs::StdRng;

use super::pace::Pace;
use super::{BURST, Mesh};
use crate::channel::TOPOLOGY;
use crate::codec;
use crate::event::ConnectionId;
use crate::peer::{BootId, Incarnation, PeerName};
use crate::topology::{Change, KNOWN_LIMIT, Merge, Records, Said, Stamp};
use crate::wire::Message;

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
/// A change claims at most this many decoded bytes.
const CHANGE_LIMIT: usize = 4 << 20;

/// What the spreading of records has to remember.
pub(super) struct Gossip {
    /// Our own record is to be said anew.
    pub(super) publish: Pace,
    /// States of channels are to be compared with random peers.
    pub(super) states: Pace,
    /// What was learned by comparison, and from whom.
    news: BTreeMap<PeerName, Option<PeerName>>,
    spread: Pace,
    raise: Pace,
    outdone_by: Option<Stamp>,
    last_outdone: Option<BootId>,
    wanted: BTreeMap<PeerName, (Stamp, Instant)>,
    repair_at: Instant,
    fresh: Vec<PeerName>,
    greet_at: Option<Instant>,
}

impl Gossip {
    pub(super) fn new(now: Instant, rng: &mut StdRng) -> Self {
        Self {
            publish: Pace::new(BURST),
            states: Pace::new(STATES),
            news: BTreeMap::new(),
            spread: Pace::new(BURST),
            raise: Pace::new(RAISE),
            outdone_by: None,
            last_outdone: None,
            wanted: BTreeMap::new(),
            repair_at: now + jittered(REPAIR, rng),
            fresh: Vec::new(),
            greet_at: None,
        }
    }

    pub(super) fn due(&self) -> Option<Instant> {
        let paced =
            [self.publish.due(), self.states.due(), self.spread.due(), self.raise.due(), self.greet_at];
        paced.into_iter().flatten().chain([self.repair_at]).min()
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
            self.learned(self.me, None);
        }
        if self.gossip.publish.take(now) {
            let links = self.neighbours.keys().copied().collect();
            if let Some(change) = self.topology.publish(&links, &self.endpoints()) {
                self.broadcast(TOPOLOGY, codec::encode(&change));
            }
        }
        if self.gossip.states.take(now) {
            let peers = self.routes.reachable().collect();
            self.compare_states(peers);
        }
    }

    /// Announces what was learned by comparison to those it was not learned from.
    pub(super) fn spread_news(&mut self, now: Instant) {
        if !self.gossip.spread.take(now) {
            return;
        }
        let news = std::mem::take(&mut self.gossip.news);
        let neighbours: Vec<_> = self.neighbours.keys().copied().collect();
        for neighbour in neighbours {
            let others = news.iter().filter(|(name, from)| {
                **from != Some(neighbour) && !self.topology.are_linked(**name, neighbour)
            });
            let others = others.map(|(name, _)| *name);
            let stamps = self.topology.stamps_of(others);
            if !stamps.is_empty() {
                self.send_bulk(neighbour, &Message::Have(stamps));
            }
        }
    }

    fn learned(&mut self, name: PeerName, from: Option<PeerName>) {
        self.gossip.news.insert(name, from);
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

    pub(super) fn compare_digest(
        &mut self,
        connection: ConnectionId,
        stamps: &[(PeerName, Stamp)],
        now: Instant,
    ) {
        let newer = self.topology.newer_than(stamps);
        self.give(connection, &newer);
        self.want(connection, stamps, now);
    }

    /// Asks for what is newer there, unless it was just asked for elsewhere.
    pub(super) fn want(&mut self, connection: ConnectionId, stamps: &[(PeerName, Stamp)], now: Instant) {
        let mut names = Vec::new();
        for (name, stamp) in stamps.iter().copied() {
            if !self.topology.lacks(name, stamp) {
                continue;
            }
            if name == self.me {
                self.outdone(stamp);
                continue;
            }
            let asked = self.gossip.wanted.get(&name).is_some_and(|(asked, then)| {
                *asked >= stamp && now.saturating_duration_since(*then) < ASK_AGAIN
            });
            if !asked && names.len() < KNOWN_LIMIT {
                self.gossip.wanted.insert(name, (stamp, now));
                names.push(name);
            }
        }
        if self.gossip.wanted.len() > KNOWN_LIMIT {
            self.gossip.wanted.retain(|_, (_, then)| now.saturating_duration_since(*then) < ASK_AGAIN);
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
        for (name, entry) in entries {
            self.gossip.wanted.remove(&name);
            let before = self.life(name);
            match self.topology.merge(name, entry) {
                Merge::News => {
                    self.learned(name, from);
                    self.noted(name, before, now);
                }
                Merge::Ours(stamp) => self.outdone(stamp),
                Merge::Refused => self.counters.records_refused += 1,
                Merge::Known | Merge::Missing => {}
            }
        }
    }

    /// Takes a change that came down a broadcast tree.
    pub(super) fn take_change(&mut self, connection: ConnectionId, body: &[u8], now: Instant) {
        let Ok(change) = codec::decode::<Change, CHANGE_LIMIT>(body) else {
            self.counters.unreadable += 1;
            return;
        };
        let before = self.life(change.name);
        match self.topology.merge_change(&change) {
            Merge::News => {
                if change.endpoints.is_some() {
                    self.noted(change.name, before, now);
                } else {
                    self.links_noted();
                }
            }
            Merge::Missing => {
                // Whoever passed it on may lack the same: so this is no question that others' offers wait for.
                self.send(connection, &Message::Want(vec![change.name]));
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
        self.learned(peer, None);
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
            self.send(connection, &Message::TopologyHash(self.topology.hash()));
        }
        let peers: Vec<_> = self.routes.reachable().collect();
        if !peers.is_empty() {
            let peer = peers[self.rng.random_range(0..peers.len())];
            self.compare_states(vec![peer]);
        }
    }
}
