//! Connections become sessions, sessions make neighbours, and both end.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::link::{self, Link, Live, Phase};
use super::{Mesh, Neighbour};
use crate::event::{ConnectionId, Output};
use crate::hello::{ENDPOINT_LIMIT, Introduction, RefusalCode};
use crate::liveness::{Liveness, Verdict};
use crate::peer::PeerName;
use crate::session::{Event, Role, Session, SessionError};
use crate::wire::Message;

/// The same source is reported at most this often.
const REPORT_PAUSE: Duration = Duration::from_secs(60);
/// Sources whose last report is remembered.
const REPORT_SOURCES: usize = 1_024;

impl Mesh {
    /// Takes an inbound connection, or none if too many of its source are half open already.
    ///
    /// When too many are half open in all, the oldest of the source with most of them is pushed out: so no
    /// one address can keep others from getting in.
    pub fn accept(
        &mut self,
        remote: SocketAddr,
        local: Option<SocketAddr>,
        now: Instant,
    ) -> Option<ConnectionId> {
        let mut half_open: BTreeMap<IpAddr, Vec<ConnectionId>> = BTreeMap::new();
        for (connection, link) in &self.links {
            if let Some(source) = link.half_open_source() {
                half_open.entry(source).or_default().push(*connection);
            }
        }
        let of_source = half_open.get(&link::source(remote.ip())).map_or(0, Vec::len);
        if of_source >= link::HALF_OPEN_PER_SOURCE {
            self.counters.half_open_refused += 1;
            self.settle(now);
            return None;
        }
        if half_open.values().map(Vec::len).sum::<usize>() >= link::HALF_OPEN_LIMIT {
            let oldest = half_open.into_values().max_by_key(Vec::len).and_then(|most| most.first().copied());
            if let Some(oldest) = oldest {
                self.counters.half_open_refused += 1;
                self.end(oldest, "too many half-open connections", now);
            }
        }
        let session = self.session(Role::Responder);
        let connection = self.next_connection();
        self.insert(connection, Link::inbound(remote, local, session, now));
        self.settle(now);
        Some(connection)
    }

    pub(super) fn dialed(
        &mut self,
        connection: ConnectionId,
        remote: SocketAddr,
        local: Option<SocketAddr>,
        now: Instant,
    ) {
        if !self.has_room_for_dialled(connection) {
            return self.end(connection, "the limit of connections is reached", now);
        }
        let session = self.session(Role::Initiator);
        let Some(link) = self.links.get_mut(&connection) else {
            self.outputs.push_back(Output::Close { connection });
            return;
        };
        if matches!(link.phase, Phase::Dialing { .. }) {
            link.dialed(remote, local, session, now);
            self.wake_for(connection);
            self.flush(connection);
        }
    }

    pub(super) fn insert(&mut self, connection: ConnectionId, link: Link) {
        self.links.insert(connection, link);
        self.wake_for(connection);
    }

    /// Notes that a connection may have something due earlier than before. (What is due later than before needs
    /// no note: the next look finds out.)
    pub(super) fn wake_for(&mut self, connection: ConnectionId) {
        let due = self.links.get(&connection).map(Link::due);
        self.wake = [self.wake, due].into_iter().flatten().min();
    }

    fn session(&mut self, role: Role) -> Session {
        let seed = self.random_bytes();
        Session::new(role, self.credentials.clone(), self.introduction(), seed)
    }

    pub(super) fn received(&mut self, connection: ConnectionId, bytes: &[u8], now: Instant) {
        let Some(link) = self.links.get_mut(&connection) else { return };
        let Some(session) = link.session_mut() else { return };
        let result = session.handle_bytes(bytes);
        if let Some(live) = link.live_mut() {
            live.liveness.heard(now);
        }
        self.drain(connection, result, now);
    }

    /// Does what a session reported, then ends it if it failed.
    pub(super) fn drain(&mut self, connection: ConnectionId, result: Result<(), SessionError>, now: Instant) {
        self.flush(connection);
        while let Some(event) =
            self.links.get_mut(&connection).and_then(Link::session_mut).and_then(Session::poll_event)
        {
            match event {
                Event::Introduced(introduction) => {
                    self.shook(connection, now);
                    self.judge(connection, introduction, false, now);
                }
                Event::Refused(refusal) => {
                    self.shook(connection, now);
                    if refusal.code == RefusalCode::Clone {
                        self.counters.clones += 1;
                        // It is this router that has to go, and its own log is where that is looked for.
                        let remote = self.links.get(&connection).and_then(|link| link.remote);
                        self.report(remote, refusal.text.clone(), now);
                    }
                    if refusal.code == RefusalCode::Ourselves {
                        self.meet_ourselves(connection, now);
                    }
                    if refusal.code == RefusalCode::Limit {
                        self.note_far_side(connection);
                        self.take_advice(refusal.instead, now);
                    }
                    self.end(connection, &format!("refused: {}", refusal.text), now);
                }
                Event::Message(message) => self.handle_message(connection, message, now),
                Event::Unreadable => self.counters.unreadable += 1,
            }
        }
        if let Err(error) = result {
            self.session_failed(connection, &error, now);
        }
    }

    /// The handshake of a dial has come to its end, or to its deadline: how long that took says how many more may be
    /// under way.
    fn shook(&mut self, connection: ConnectionId, now: Instant) {
        if let Some((handshake, connect)) = self.links.get_mut(&connection).and_then(|link| link.shook(now)) {
            self.dialer.shook(handshake, connect, now);
        }
    }

    /// Notes where a dial led although it came to nothing: with a way to that peer it need not be tried again soon.
    pub(super) fn note_far_side(&mut self, connection: ConnectionId) {
        let Some(link) = self.links.get_mut(&connection) else { return };
        let far = link.session_mut().and_then(|session| session.far_side());
        if let (Some(key), Some(peer)) = (&link.key, far) {
            self.dialer.met(key, peer);
        }
    }

    fn session_failed(&mut self, connection: ConnectionId, error: &SessionError, now: Instant) {
        let Some(link) = self.links.get(&connection) else { return };
        if link.live().is_none() {
            if *error == SessionError::Secret {
                self.counters.secret_mismatches += 1;
            } else {
                self.counters.handshakes_failed += 1;
            }
            if !link.outbound() {
                self.report(link.remote, error.to_string(), now);
            }
        }
        self.end(connection, &error.to_string(), now);
    }

    /// Says that somebody was refused, unless the same source was reported just now.
    pub(super) fn report(&mut self, remote: Option<SocketAddr>, reason: String, now: Instant) {
        let Some(remote) = remote else { return };
        if self.refusals.len() >= REPORT_SOURCES {
            self.refusals.retain(|_, then| now.saturating_duration_since(*then) < REPORT_PAUSE);
        }
        let source = link::source(remote.ip());
        let recent = self
            .refusals
            .get(&source)
            .is_some_and(|then| now.saturating_duration_since(*then) < REPORT_PAUSE);
        if !recent && self.refusals.len() < REPORT_SOURCES {
            self.refusals.insert(source, now);
            self.outputs.push_back(Output::Refused { remote, reason });
        }
    }

    fn handle_message(&mut self, connection: ConnectionId, message: Message, now: Instant) {
        let Some(live) = self.links.get_mut(&connection).and_then(Link::live_mut) else { return };
        let peer = live.peer;
        match message {
            Message::Ping(nonce) => {
                self.send(connection, &Message::Pong(nonce));
            }
            Message::Pong(nonce) => {
                if live.liveness.pong(nonce, now) {
                    self.answered(connection, peer, now);
                }
            }
            Message::Tell(bytes) => {
                if self.neighbours.get(&peer).is_some_and(|neighbour| neighbour.current == connection) {
                    self.outputs.push_back(Output::Told { peer, bytes: bytes.0 });
                } else {
                    live.hold_tell(bytes.0);
                }
            }
            Message::TopologyHash(hash) => self.compare_hash(connection, hash),
            Message::RepairHash(hash) => self.compare_repairing(connection, hash, now),
            Message::Digest(stamps) => self.compare_digest(connection, &stamps, now),
            Message::Have(have) => self.want(connection, &have.stamps, Some(have.learner), now),
            Message::Want(names) => self.give(connection, &names),
            Message::Records(records) => self.take_records(connection, records, now),
            Message::Changed(changed) => self.take_changed(connection, peer, changed, now),
            Message::Broadcast(broadcast) => self.take_broadcast(peer, broadcast),
            Message::Routed(routed) => self.take_routed(routed, now),
            Message::Introduction(_) | Message::Refused(_) => self.counters.unreadable += 1, // out of place
        }
    }

    /// Makes an introduced session a live one.
    pub(super) fn admit(&mut self, connection: ConnectionId, introduction: &Introduction, now: Instant) {
        let Some(link) = self.links.get_mut(&connection) else { return };
        let mut session = match std::mem::replace(&mut link.phase, Phase::Dialing { since: now }) {
            Phase::HalfOpen { session, .. } | Phase::Held { session, .. } => session,
            other @ (Phase::Dialing { .. } | Phase::Live(_)) => {
                link.phase = other;
                return;
            }
        };
        let result = session.accept();
        link.phase = Phase::Live(Box::new(Live::new(session, introduction.name, now)));
        self.counters.sessions += 1;
        self.meet(connection, introduction, now);
        self.ask(connection, |liveness| Some(liveness.measure(now)));
        self.drain(connection, result, now);
    }

    /// Notes who is at the other end of a connection.
    fn meet(&mut self, connection: ConnectionId, introduction: &Introduction, now: Instant) {
        let peer = introduction.name;
        let Some(link) = self.links.get(&connection) else { return };
        let (remote, local, key) = (link.remote, link.local, link.key.clone());
        match &key {
            Some(key) => self.dialer.connected(key, peer, now),
            None => self.dialer.peer_up(peer, now),
        }
        if self.discovery {
            let caller = remote.filter(|_| introduction.listen_port != 0);
            let caller =
                caller.map(|remote| SocketAddr::new(remote.ip().to_canonical(), introduction.listen_port));
            let places: Vec<_> =
                introduction.endpoints.iter().copied().chain(caller).take(ENDPOINT_LIMIT).collect();
            self.dialer.learn(peer, &places, false, &mut self.rng, now);
        }
        let local = local.filter(|local| !local.ip().is_unspecified() && self.listen_port != 0);
        if let Some(local) = local.filter(|_| self.observed.len() < ENDPOINT_LIMIT) {
            self.observed.insert(SocketAddr::new(local.ip().to_canonical(), self.listen_port));
        }
        match self.neighbours.get_mut(&peer) {
            Some(neighbour) => {
                neighbour.connections.insert(connection);
                let current = neighbour.current;
                let lag = self.lag;
                self.ask(current, |liveness| Some(liveness.verify_anew(lag, now)));
            }
            None => {
                let known = self.knows_way_to(peer, introduction.boot);
                let neighbour = Neighbour {
                    nickname: introduction.nickname.clone(),
                    boot: introduction.boot,
                    channels: introduction.channels.clone(),
                    current: connection,
                    connections: [connection].into(),
                };
                self.neighbours.insert(peer, neighbour);
                self.met(peer, known, now);
                self.report_established(connection, peer);
                if key.is_some() && known {
                    self.compare_states_over(connection);
                } else if key.is_some() {
                    self.synchronise(connection);
                }
            }
        }
    }

    fn report_established(&mut self, connection: ConnectionId, peer: PeerName) {
        let (Some(link), Some(neighbour)) = (self.links.get_mut(&connection), self.neighbours.get(&peer))
        else {
            return;
        };
        let (remote, local, outbound) = (link.remote, link.local, link.outbound());
        let (Some(remote), Some(live)) = (remote, link.live_mut()) else { return };
        let session = live.session.id();
        let told = live.take_tells();
        let nickname = neighbour.nickname.clone();
        self.outputs.push_back(Output::Established { peer, nickname, remote, local, outbound, session });
        self.outputs.extend(told.into_iter().map(|bytes| Output::Told { peer, bytes }));
    }

    /// Ends a connection in whatever phase it is; what depends on it follows.
    pub(super) fn end(&mut self, connection: ConnectionId, reason: &str, now: Instant) {
        let Some(link) = self.links.remove(&connection) else { return };
        self.outputs.push_back(Output::Close { connection });
        match link.phase {
            Phase::Live(live) => self.session_ended(connection, live.peer, reason, now),
            Phase::Dialing { .. } | Phase::HalfOpen { .. } | Phase::Held { .. } => {
                if let Some(key) = link.key {
                    self.dialer.failed(&key, reason.to_owned(), &mut self.rng, now);
                }
            }
        }
    }

    fn session_ended(&mut self, connection: ConnectionId, peer: PeerName, reason: &str, now: Instant) {
        self.counters.sessions_lost += 1;
        let Some(neighbour) = self.neighbours.get_mut(&peer) else { return };
        neighbour.connections.remove(&connection);
        if neighbour.current != connection {
            return;
        }
        if let Some(next) = neighbour.connections.first().copied() {
            neighbour.current = next;
            self.report_established(next, peer);
            self.synchronise(next);
            return;
        }
        self.neighbours.remove(&peer);
        self.outputs.push_back(Output::Lost { peer, reason: reason.to_owned() });
        self.dialer.peer_down(peer, &mut self.rng, now);
        self.parted(peer);
        self.judge_held(peer, now);
    }

    /// Sends on one connection; false if there is no session on it or the message is too long.
    pub(super) fn send(&mut self, connection: ConnectionId, message: &Message) -> bool {
        let sent = self.links.get_mut(&connection).is_some_and(|link| link.send(message));
        self.flush(connection);
        sent
    }

    pub(super) fn flush(&mut self, connection: ConnectionId) {
        let Some(link) = self.links.get_mut(&connection) else { return };
        if let Some(bytes) = link.take_output() {
            if link.choked() {
                self.choked.push(connection);
            }
            self.outputs.push_back(Output::Send { connection, bytes });
        }
    }

    /// Puts a question of the liveness machine to the far side.
    pub(super) fn ask(&mut self, connection: ConnectionId, ask: impl FnOnce(&mut Liveness) -> Option<u64>) {
        let live = self.links.get_mut(&connection).and_then(Link::live_mut);
        if let Some(nonce) = live.and_then(|live| ask(&mut live.liveness)) {
            self.wake_for(connection);
            self.send(connection, &Message::Ping(nonce));
        }
    }

    pub(super) fn look_at_links(&mut self, now: Instant) {
        if self.wake.is_none_or(|wake| wake > now) {
            return;
        }
        let connections: Vec<_> = self.links.keys().copied().collect();
        for connection in connections {
            let Some(link) = self.links.get_mut(&connection) else { continue };
            match &mut link.phase {
                Phase::Dialing { since } if *since + link::DIAL_BACKSTOP <= now => {
                    self.end(connection, "the dial was not answered", now);
                }
                Phase::HalfOpen { deadline, .. } if *deadline <= now => {
                    self.counters.handshakes_failed += 1;
                    self.shook(connection, now);
                    self.end(connection, "the handshake took more than 5 s", now);
                }
                Phase::Held { introduction, until, .. } if *until <= now => {
                    let introduction = introduction.clone();
                    self.judge(connection, introduction, true, now);
                }
                Phase::Live(live) => match live.liveness.handle_timeout(now) {
                    Verdict::Fine => {}
                    Verdict::Ping(nonce) => {
                        self.send(connection, &Message::Ping(nonce));
                    }
                    Verdict::Silent => {
                        self.counters.sessions_silent += 1;
                        self.end(connection, "silent", now);
                    }
                },
                Phase::Dialing { .. } | Phase::HalfOpen { .. } | Phase::Held { .. } => {}
            }
        }
        self.wake = self.links.values().map(Link::due).min();
    }

    pub(super) fn close_choked(&mut self, now: Instant) {
        while let Some(connection) = self.choked.pop() {
            self.end(connection, "the far side does not read", now);
        }
    }
}
