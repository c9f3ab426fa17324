//! Who is taken in: whether a name is ours, doubled, cloned or one too many.
//!
//! At the limit of connections nobody is taken in but a stranger: a peer that no way leads to. For it goes a
//! neighbour that stays in reach by others. Whoever is turned away is told of others to dial.
//!
//! Two sessions with one boot of one peer are duplicates (both called at once, or two targets lead there). The
//! older one is asked for a sign of life; once it answers, the peer with the lower name closes the others, so
//! both ends keep the same one. An answer also proves that the far end has the kept session, so nobody ever
//! sees the neighbour lost in between. An older one that does not answer is closed instead.
//!
//! A second boot under one name is a quick restart or a cloned machine. The older boot is asked, through its
//! session or, where there is none, along the routes: if it answers, the newcomer is a clone and is refused;
//! if it does not, the newcomer takes its place.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand::RngExt as _;
use rand::seq::IteratorRandom as _;

use super::Mesh;
use super::link::{Link, Phase};
use crate::codec;
use crate::event::ConnectionId;
use crate::hello::{ENDPOINT_LIMIT, INSTEAD_LIMIT, Introduction, Refusal, RefusalCode};
use crate::liveness::VERIFY_DEADLINE;
use crate::peer::{BootId, PeerName};
use crate::routes;
use crate::wire::Purpose;

/// An older boot somewhere in the mesh has this long to answer, over as many hops as there are.
const PROBE_DEADLINE: Duration = Duration::from_secs(1);

impl Mesh {
    /// Decides about a session whose far side is introduced; `waited`: it was held and no answer came.
    pub(super) fn judge(
        &mut self,
        connection: ConnectionId,
        introduction: Introduction,
        waited: bool,
        now: Instant,
    ) {
        let (name, boot) = (introduction.name, introduction.boot);
        if name == self.me {
            return self.refuse_own_name(connection, boot, now);
        }
        if let Some(neighbour) = self.neighbours.get(&name) {
            if neighbour.boot == boot {
                return self.admit(connection, &introduction, now);
            }
            if waited {
                return self.refuse_clone(connection, name, now);
            }
            let sessions = neighbour.connections.clone();
            let lag = self.lag;
            let lives = sessions.iter().filter_map(|session| self.links.get(session)?.live());
            let patience = lives.map(|live| live.liveness.patience(lag)).max().unwrap_or(VERIFY_DEADLINE);
            self.hold(connection, introduction, now + patience + VERIFY_DEADLINE / 2);
            for session in sessions {
                self.ask(session, |liveness| Some(liveness.verify_anew(lag, now)));
            }
            return;
        }
        if self.connection_limit.is_some_and(|limit| self.places_taken(connection) >= limit)
            && !self.make_room_for(name, now)
        {
            self.note_far_side(connection);
            let text = format!("the limit of {} connections is reached", self.neighbours.len());
            return self.refuse(connection, RefusalCode::Limit, text, now);
        }
        let elsewhere = self.topology.record(name).is_some_and(|record| record.boot != boot);
        if elsewhere && !waited && self.routes.hops(name).is_some_and(|hops| hops > 1) {
            self.hold(connection, introduction, now + PROBE_DEADLINE);
            self.route(name, Purpose::Probe, crate::channel::TOPOLOGY, Vec::new());
            return;
        }
        self.admit(connection, &introduction, now);
    }

    /// Neighbours, and those who are about to become some because we called them. Whoever takes us in has the session
    /// before we have it, and would lose it again if we had no room any more.
    fn places_taken(&self, by_others_than: ConnectionId) -> usize {
        let shaking = self.links.iter().filter(|(connection, link)| {
            let shakes = matches!(link.phase, Phase::HalfOpen { .. } | Phase::Held { .. });
            **connection != by_others_than && shakes && link.outbound()
        });
        self.neighbours.len() + shaking.count()
    }

    /// Whether a dial that was answered is still wanted: others may have called meanwhile.
    pub(super) fn has_room_for_dialled(&self, connection: ConnectionId) -> bool {
        let room = self.connection_limit.is_none_or(|limit| self.places_taken(connection) < limit);
        let key = self.links.get(&connection).and_then(|link| link.key.as_ref());
        room || key.is_some_and(|key| self.dialer.is_for_stranger(key))
    }

    /// Lets a neighbour go for the sake of a stranger, whom no way leads to; false if nobody can be spared.
    ///
    /// So the limit never keeps a mesh in parts: whoever goes stays in reach by others, and finds room elsewhere.
    /// Who goes is drawn, so that a mesh that began as a clique mixes with those that come.
    fn make_room_for(&mut self, name: PeerName, now: Instant) -> bool {
        if self.routes.hops(name).is_some() {
            return false;
        }
        let spare = routes::spare(&self.graph(), self.me);
        if spare.is_empty() {
            return false;
        }
        let gone = spare[self.rng.random_range(0..spare.len())];
        let sessions = self.neighbours.get(&gone).map(|neighbour| neighbour.connections.clone());
        for connection in sessions.into_iter().flatten() {
            self.end(connection, "made room for a peer that nobody reached", now);
        }
        true
    }

    fn hold(&mut self, connection: ConnectionId, introduction: Introduction, until: Instant) {
        let Some(link) = self.links.get_mut(&connection) else { return };
        let phase = std::mem::replace(&mut link.phase, Phase::Dialing { since: until });
        link.phase = match phase {
            Phase::HalfOpen { session, .. } | Phase::Held { session, .. } => {
                Phase::Held { session, introduction, until }
            }
            other @ (Phase::Dialing { .. } | Phase::Live(_)) => other,
        };
        self.wake_for(connection);
    }

    /// A session answered a question: what waited for that is decided.
    pub(super) fn answered(&mut self, connection: ConnectionId, peer: PeerName, now: Instant) {
        let Some(neighbour) = self.neighbours.get(&peer) else { return };
        let (boot, current) = (neighbour.boot, neighbour.current);
        let others: Vec<_> =
            neighbour.connections.iter().copied().filter(|other| *other != current).collect();
        self.refuse_clones(peer, boot, now);
        if connection == current && self.me < peer {
            for other in others {
                self.end(other, "another session with the same peer is kept", now);
            }
        }
    }

    /// An older boot somewhere in the mesh answered a probe.
    pub(super) fn probe_answered(&mut self, peer: PeerName, body: &[u8], now: Instant) {
        match codec::decode::<BootId, 64>(body) {
            Ok(boot) => self.refuse_clones(peer, boot, now),
            Err(_) => self.counters.unreadable += 1,
        }
    }

    /// Answers a probe.
    pub(super) fn answer_probe(&mut self, from: PeerName) {
        let boot = codec::encode(&self.boot);
        self.route(from, Purpose::ProbeAnswer, crate::channel::TOPOLOGY, boot);
    }

    /// Refuses all that were held under this name but are another boot than the one that lives.
    fn refuse_clones(&mut self, name: PeerName, living: BootId, now: Instant) {
        for connection in self.held(name, |boot| boot != living) {
            self.refuse_clone(connection, name, now);
        }
    }

    /// Decides anew about all that were held under this name: the older boot is gone.
    pub(super) fn judge_held(&mut self, name: PeerName, now: Instant) {
        for connection in self.held(name, |_| true) {
            let phase = self.links.get(&connection).map(|link| &link.phase);
            if let Some(Phase::Held { introduction, .. }) = phase {
                let introduction = introduction.clone();
                // Its session is over; that others may not have heard yet must not send a probe after it.
                let waited = !self.neighbours.contains_key(&name);
                self.judge(connection, introduction, waited, now);
            }
        }
    }

    fn held(&self, name: PeerName, boot: impl Fn(BootId) -> bool) -> Vec<ConnectionId> {
        let held = |link: &Link| match &link.phase {
            Phase::Held { introduction, .. } => introduction.name == name && boot(introduction.boot),
            Phase::Dialing { .. } | Phase::HalfOpen { .. } | Phase::Live(_) => false,
        };
        self.links.iter().filter(|(_, link)| held(link)).map(|(connection, _)| *connection).collect()
    }

    fn refuse_own_name(&mut self, connection: ConnectionId, boot: BootId, now: Instant) {
        if boot == self.boot {
            self.refuse(connection, RefusalCode::Ourselves, "connected to ourselves".into(), now);
        } else {
            self.refuse_clone(connection, self.me, now);
        }
    }

    fn refuse_clone(&mut self, connection: ConnectionId, name: PeerName, now: Instant) {
        let nickname = self.topology.record(name).map_or("?", |record| &record.nickname);
        let text = format!(
            "cloned machine: the identity {name} is in use by a router that is alive ({nickname}); \
             give one of them a new state directory"
        );
        self.refuse(connection, RefusalCode::Clone, text, now);
    }

    fn refuse(&mut self, connection: ConnectionId, code: RefusalCode, text: String, now: Instant) {
        let Some(link) = self.links.get(&connection) else { return };
        let (remote, outbound) = (link.remote, link.outbound());
        let instead = if code == RefusalCode::Limit { self.others_to_try() } else { Vec::new() };
        if let Some(session) = self.links.get_mut(&connection).and_then(Link::session_mut) {
            session.refuse(Refusal { code, text: text.clone(), instead });
        }
        self.flush(connection);
        match code {
            RefusalCode::Ourselves => self.meet_ourselves(connection, now),
            RefusalCode::Clone => self.counters.clones += 1,
            RefusalCode::Limit => {}
        }
        if !outbound && code != RefusalCode::Ourselves {
            self.report(remote, text.clone(), now);
        }
        self.end(connection, &text, now);
    }

    /// Some peers that a stranger may dial in our place.
    fn others_to_try(&mut self) -> Vec<(PeerName, Vec<SocketAddr>)> {
        let in_reach = self.topology.others().filter(|record| self.routes.hops(record.name).is_some());
        let listening = in_reach.filter(|record| !record.endpoints.is_empty());
        let drawn = listening.sample(&mut self.rng, INSTEAD_LIMIT);
        drawn.into_iter().map(|record| (record.name, record.endpoints.clone())).collect()
    }

    /// A router that has no room for us names others.
    pub(super) fn take_advice(&mut self, instead: Vec<(PeerName, Vec<SocketAddr>)>, now: Instant) {
        for (peer, places) in instead.into_iter().take(INSTEAD_LIMIT).filter(|_| self.discovery) {
            let places: Vec<_> = places.into_iter().take(ENDPOINT_LIMIT).collect();
            self.dialer.learn(peer, &places, false, &mut self.rng, now);
        }
    }

    /// A dial led to ourselves: its target is not tried again soon.
    pub(super) fn meet_ourselves(&mut self, connection: ConnectionId, now: Instant) {
        self.counters.ourselves += 1;
        if let Some(key) = self.links.get_mut(&connection).and_then(|link| link.key.take()) {
            self.dialer.ourselves(&key, now);
        }
    }
}
