//! Whom to dial and when: the user's targets, and the peers learned by gossip at the endpoints they advertise.
//!
//! ```text
//!  due ──dial──► trying ──session──► resting (while the peer has a session)
//!   ▲              │ failed                │ lost
//!   └── backoff ◄──┘                       └──► due now
//! ```
//!
//! One attempt at a time per target, and so many in all as the far ends answer quickly (`window.rs`). A target that
//! turns out to be a peer with a session rests as long as any session with that peer lives. Of two peers that learn of
//! each other the lower name dials at once and the higher a little later, so that they seldom meet in the middle.
//!
//! A mesh with as many neighbours as it wants dials strangers alone ([`Room`]): whom no way leads to. Otherwise
//! groups that are full would stay islands for ever, with a path between them and nobody to try it.

mod backoff;
mod window;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand::RngExt as _;
use rand::rngs::StdRng;

use crate::event::ConnectionId;
use crate::hello::ENDPOINT_LIMIT;
use crate::peer::PeerName;
use crate::target::Target;
use crate::topology::KNOWN_LIMIT;
use backoff::Backoff;
use window::Window;

/// A target that is ourselves is tried again this much later: its name may come to mean somebody else.
const OURSELVES_PAUSE: Duration = Duration::from_secs(60);
/// Peers that learned of each other dial within this time.
const SPREAD: Duration = Duration::from_millis(50);
/// The peer with the higher name leaves the first move to the lower one for so long.
const COURTESY: Duration = Duration::from_millis(400);

/// Who may be dialled now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Room {
    /// Whoever is due.
    ForAnybody,
    /// Only whom no way leads to, as far as is known.
    ForStrangers,
}

/// What is dialled.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Key {
    Target(Target),
    Peer(PeerName),
}

/// One thing to dial, as `connections()` shows it.
#[derive(Debug)]
pub(crate) struct Candidate {
    /// Where: one for a target, any number for a peer, tried in turn.
    places: Vec<Target>,
    turn: usize,
    attempt: Option<ConnectionId>,
    due: Option<Instant>,
    backoff: Backoff,
    error: Option<String>,
    /// Who was there last.
    peer: Option<PeerName>,
    ourselves: bool,
}

impl Candidate {
    fn new(places: Vec<Target>, due: Instant) -> Self {
        Self {
            places,
            turn: 0,
            attempt: None,
            due: Some(due),
            backoff: Backoff::default(),
            error: None,
            peer: None,
            ourselves: false,
        }
    }

    pub(crate) fn attempt(&self) -> Option<ConnectionId> {
        self.attempt
    }

    pub(crate) fn due(&self) -> Option<Instant> {
        self.due
    }

    pub(crate) fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }

    pub(crate) fn peer(&self) -> Option<PeerName> {
        self.peer
    }

    pub(crate) fn is_ourselves(&self) -> bool {
        self.ourselves
    }

    /// Whether it leads to nobody that is in reach, as far as is known.
    fn leads_to_stranger(&self, reachable: &BTreeSet<PeerName>) -> bool {
        !self.ourselves && self.peer.is_none_or(|peer| !reachable.contains(&peer))
    }

    /// The place that is tried now or next.
    pub(crate) fn place(&self) -> Option<&Target> {
        self.places.get(self.turn % self.places.len().max(1))
    }
}

/// Decides about all dials of one router.
#[derive(Debug)]
pub(crate) struct Dialer {
    me: PeerName,
    candidates: BTreeMap<Key, Candidate>,
    /// Peers with a session now.
    up: BTreeSet<PeerName>,
    /// How many dials are under way, and when the next is due: kept, because they are asked for all the time.
    trying: usize,
    window: Window,
    soonest: Option<Instant>,
    /// The same of those that lead to strangers.
    soonest_stranger: Option<Instant>,
    /// Whom a way leads to.
    reachable: BTreeSet<PeerName>,
}

impl Dialer {
    pub(crate) fn new(me: PeerName) -> Self {
        Self {
            me,
            candidates: BTreeMap::new(),
            up: BTreeSet::new(),
            trying: 0,
            window: Window::default(),
            soonest: None,
            soonest_stranger: None,
            reachable: BTreeSet::new(),
        }
    }

    /// The user's targets.
    pub(crate) fn targets(&self) -> Vec<Target> {
        self.candidates
            .keys()
            .filter_map(|key| if let Key::Target(target) = key { Some(target.clone()) } else { None })
            .collect()
    }

    pub(crate) fn candidates(&self) -> impl Iterator<Item = (&Key, &Candidate)> {
        self.candidates.iter()
    }

    /// Adds a target, to be dialled now; one that is there already is dialled now instead of later.
    pub(crate) fn add_target(&mut self, target: Target, now: Instant) {
        let fresh = || Candidate::new(vec![target.clone()], now);
        let candidate = self.candidates.entry(Key::Target(target.clone())).or_insert_with(fresh);
        candidate.backoff.reset();
        candidate.ourselves = false;
        if candidate.attempt.is_none() && !candidate.peer.is_some_and(|peer| self.up.contains(&peer)) {
            candidate.due = Some(now);
        }
        self.changed();
    }

    /// Drops a target; gives the dial to be given up.
    pub(crate) fn drop_target(&mut self, target: &Target) -> Option<ConnectionId> {
        self.drop_key(&Key::Target(target.clone()))
    }

    fn drop_key(&mut self, key: &Key) -> Option<ConnectionId> {
        let attempt = self.candidates.remove(key)?.attempt;
        self.changed();
        attempt
    }

    /// Learns where a peer listens; news of it (another life, another place) cuts a long wait short.
    pub(crate) fn learn(
        &mut self,
        peer: PeerName,
        endpoints: &[SocketAddr],
        restarted: bool,
        rng: &mut StdRng,
        now: Instant,
    ) {
        if endpoints.is_empty() || peer == self.me {
            return;
        }
        let due = now + self.first_move(peer, rng);
        let room = self.candidates.len() < 2 * KNOWN_LIMIT;
        let key = Key::Peer(peer);
        if !room && !self.candidates.contains_key(&key) {
            return;
        }
        let up = self.up.contains(&peer);
        let candidate = self.candidates.entry(key).or_insert_with(|| {
            let due = (!up).then_some(due);
            Candidate { peer: Some(peer), due, ..Candidate::new(Vec::new(), now) }
        });
        let mut news = restarted;
        for endpoint in endpoints.iter().rev() {
            let place = Target::from(*endpoint);
            if !candidate.places.contains(&place) {
                candidate.places.insert(0, place);
                news = true;
            }
        }
        candidate.places.truncate(ENDPOINT_LIMIT);
        if news && candidate.due.is_some() {
            candidate.backoff.reset();
            candidate.due = candidate.due.min(Some(due));
        }
        self.changed();
    }

    /// Forgets where a peer was; gives the dial to be given up.
    pub(crate) fn forget_peer(&mut self, peer: PeerName) -> Option<ConnectionId> {
        self.drop_key(&Key::Peer(peer))
    }

    /// Notes whom a way leads to now; only a mesh with a limit need say.
    pub(crate) fn rerouted(&mut self, reachable: BTreeSet<PeerName>) {
        self.reachable = reachable;
        self.changed();
    }

    /// The next dial that is due, if any; to be confirmed with `started`.
    ///
    /// It is the one that has waited longest: by name, all would begin with the same few and fill them up.
    pub(crate) fn next_dial(&self, room: Room, now: Instant) -> Option<(Key, Target)> {
        if self.due(room).is_none_or(|due| due > now) {
            return None;
        }
        let due = self.candidates.iter().filter(|(_, candidate)| {
            candidate.attempt.is_none()
                && candidate.due.is_some_and(|due| due <= now)
                && (room == Room::ForAnybody || candidate.leads_to_stranger(&self.reachable))
        });
        let (key, candidate) = due.min_by_key(|(_, candidate)| candidate.due)?;
        Some((key.clone(), candidate.place()?.clone()))
    }

    /// Says whether this candidate would be dialled with so much room, were it due.
    pub(crate) fn is_allowed(&self, candidate: &Candidate, room: Option<Room>) -> bool {
        match room {
            Some(Room::ForAnybody) => true,
            Some(Room::ForStrangers) => candidate.leads_to_stranger(&self.reachable),
            None => false,
        }
    }

    /// Says whether this leads to nobody that is in reach, as far as is known.
    pub(crate) fn is_for_stranger(&self, key: &Key) -> bool {
        self.candidates.get(key).is_some_and(|candidate| candidate.leads_to_stranger(&self.reachable))
    }

    /// A dial is under way.
    pub(crate) fn started(&mut self, key: &Key, connection: ConnectionId) {
        if let Some(candidate) = self.candidates.get_mut(key) {
            candidate.attempt = Some(connection);
            candidate.due = None;
        }
        self.changed();
    }

    /// Nobody answered a dial.
    pub(crate) fn unanswered(&mut self) {
        self.window.widen();
    }

    /// A handshake came to its end, or to its deadline, after so long; the way to the far side and back takes `connect`.
    pub(crate) fn shook(&mut self, handshake: Duration, connect: Duration, now: Instant) {
        self.window.shook(handshake, connect, now);
    }

    /// A dial, or the handshake on it, came to nothing.
    pub(crate) fn failed(&mut self, key: &Key, error: String, rng: &mut StdRng, now: Instant) {
        let Some(candidate) = self.candidates.get_mut(key) else { return };
        candidate.attempt = None;
        candidate.error = Some(error);
        candidate.turn = candidate.turn.wrapping_add(1);
        let up = candidate.peer.is_some_and(|peer| self.up.contains(&peer));
        candidate.due = (!up).then(|| now + candidate.backoff.next(now, rng));
        self.changed();
    }

    /// A dial led to this peer, which turned us away: it proved who it is.
    pub(crate) fn met(&mut self, key: &Key, peer: PeerName) {
        if let Some(candidate) = self.candidates.get_mut(key) {
            candidate.peer = Some(peer);
        }
    }

    /// A dial led to ourselves.
    pub(crate) fn ourselves(&mut self, key: &Key, now: Instant) {
        let Some(candidate) = self.candidates.get_mut(key) else { return };
        candidate.attempt = None;
        candidate.ourselves = true;
        candidate.error = Some("connected to ourselves".into());
        candidate.due = Some(now + OURSELVES_PAUSE);
        self.changed();
    }

    /// A dial led to this peer, which has a session now (this one or another).
    pub(crate) fn connected(&mut self, key: &Key, peer: PeerName, now: Instant) {
        if let Some(candidate) = self.candidates.get_mut(key) {
            candidate.attempt = None;
            candidate.due = None;
            candidate.error = None;
            candidate.ourselves = false;
            candidate.peer = Some(peer);
        }
        self.peer_up(peer, now);
    }

    /// A peer got a session, on whichever way: nothing that leads to it need be dialled.
    pub(crate) fn peer_up(&mut self, peer: PeerName, now: Instant) {
        self.up.insert(peer);
        for candidate in self.candidates.values_mut().filter(|candidate| candidate.peer == Some(peer)) {
            if candidate.attempt.is_none() {
                candidate.due = None;
            }
            candidate.error = None;
            candidate.backoff.succeeded(now);
        }
        self.changed();
    }

    /// A peer lost its last session: all that led to it is tried again.
    pub(crate) fn peer_down(&mut self, peer: PeerName, rng: &mut StdRng, now: Instant) {
        self.up.remove(&peer);
        let due = now + self.first_move(peer, rng);
        for candidate in self.candidates.values_mut().filter(|candidate| candidate.peer == Some(peer)) {
            candidate.backoff.reset();
            if candidate.attempt.is_none() {
                candidate.due = Some(due);
            }
        }
        self.changed();
    }

    /// When the next dial is due; none while as many as may be are under way.
    pub(crate) fn due(&self, room: Room) -> Option<Instant> {
        let soonest = match room {
            Room::ForAnybody => self.soonest,
            Room::ForStrangers => self.soonest_stranger,
        };
        soonest.filter(|_| self.trying < self.window.size())
    }

    fn changed(&mut self) {
        (self.trying, self.soonest, self.soonest_stranger) = (0, None, None);
        for candidate in self.candidates.values() {
            if candidate.attempt.is_some() {
                self.trying += 1;
                continue;
            }
            let Some(due) = candidate.due else { continue };
            self.soonest = Some(self.soonest.map_or(due, |soonest| soonest.min(due)));
            if self.soonest_stranger.is_none_or(|soonest| due < soonest)
                && candidate.leads_to_stranger(&self.reachable)
            {
                self.soonest_stranger = Some(due);
            }
        }
    }

    fn first_move(&self, peer: PeerName, rng: &mut StdRng) -> Duration {
        let jitter = SPREAD.mul_f64(rng.random_range(0.0..1.0));
        if self.me < peer { jitter } else { COURTESY + 4 * jitter }
    }
}

#[cfg(test)]
mod tests;
