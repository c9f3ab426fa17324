//! What the mesh shows of itself: peers and connections as plain values.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::Mesh;
use super::link::{Link, Phase};
use crate::dialer::{Candidate, Key};
use crate::event::ConnectionId;
use crate::peer::{Incarnation, PeerName};
use crate::target::Target;

/// Why a target is not dialled and has no time at which it will be.
const AT_LIMIT: &str = "the limit of connections is reached";

/// What is known of another router.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerView {
    /// Its name.
    pub name: PeerName,
    /// The name people read.
    pub nickname: String,
    /// The data centre it is in.
    pub site: String,
    /// Which of its lives this is.
    pub incarnation: Incarnation,
    /// Whether a way leads to it now.
    pub reachable: bool,
    /// The length of the way frames take, 1 for a neighbour; of the way gossip takes where there is none for frames.
    pub hops: Option<u32>,
    /// The neighbour that way leads through, if it is another one.
    pub via: Option<PeerName>,
    /// Whom it says it has sessions with.
    pub links: Vec<PeerName>,
    /// Where it says it listens.
    pub endpoints: Vec<SocketAddr>,
}

/// Whether another router is there: what is asked for often, with nothing copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Presence<'a> {
    /// Its name.
    pub name: PeerName,
    /// The name people read.
    pub nickname: &'a str,
    /// Which of its lives this is.
    pub incarnation: Incarnation,
    /// Whether a way leads to it now.
    pub reachable: bool,
}

/// How far a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionState {
    /// Dialling, or in the handshake.
    Connecting,
    /// A session is established.
    Established,
    /// Waiting for the next attempt.
    Retrying,
    /// Nothing will come of it as things stand (the target is this router itself).
    Failed,
}

/// One live session, or one target that has none now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionView {
    /// The connection or attempt, if there is one now.
    pub connection: Option<ConnectionId>,
    /// The target as it was given, or the remote address.
    pub address: String,
    /// What carries it.
    pub transport: &'static str,
    /// Whether we called.
    pub outbound: bool,
    /// How far it is.
    pub state: ConnectionState,
    /// Who is there, as far as that is known.
    pub peer: Option<(PeerName, String)>,
    /// The last measured round trip.
    pub rtt: Option<Duration>,
    /// What went wrong last.
    pub error: Option<String>,
    /// When the next attempt is due; none while none can be made.
    pub retry_at: Option<Instant>,
    /// The session, by the number both ends know.
    pub session: Option<u64>,
    /// Whether the user gave this as a target.
    pub target: bool,
}

impl Mesh {
    /// All other routers that are known, reachable or not.
    pub fn peers(&self) -> impl Iterator<Item = PeerView> {
        self.topology.others().map(|record| {
            let frames = self.frame_routes.hops(record.name);
            let routes = if frames.is_some() { &self.frame_routes } else { &self.routes };
            PeerView {
                name: record.name,
                nickname: record.nickname.clone(),
                site: record.site.clone(),
                incarnation: record.incarnation,
                reachable: self.routes.hops(record.name).is_some(),
                hops: routes.hops(record.name),
                via: routes.next_hop(record.name).filter(|next| *next != record.name),
                links: self.topology.links(record.name).collect(),
                endpoints: record.endpoints.clone(),
            }
        })
    }

    /// All other routers that are known, by name, and whether they are in reach.
    pub fn presences(&self) -> impl Iterator<Item = Presence<'_>> {
        self.topology.others().map(|record| Presence {
            name: record.name,
            nickname: &record.nickname,
            incarnation: record.incarnation,
            reachable: self.routes.hops(record.name).is_some(),
        })
    }

    /// Whether a peer is in reach; none if it is not known.
    pub fn reaches(&self, peer: PeerName) -> Option<bool> {
        self.topology.record(peer).map(|_| self.routes.hops(peer).is_some())
    }

    /// All live sessions, and all that is being dialled or waits to be dialled.
    pub fn connections(&self) -> impl Iterator<Item = ConnectionView> {
        let live = self.links.iter().filter_map(|(connection, link)| self.view_session(*connection, link));
        let owners = self.target_owners();
        // Where a user's target leads is shown once: as the target.
        let is_shown =
            |candidate: &Candidate| candidate.place().is_some_and(|place| owners.contains_key(place));
        let waiting: Vec<ConnectionView> = self
            .dialer
            .candidates()
            .filter(|(key, candidate)| matches!(key, Key::Target(_)) || !is_shown(candidate))
            .filter_map(|(key, candidate)| self.view_candidate(key, candidate, &owners))
            .collect();
        live.chain(waiting)
    }

    /// The targets at which a known peer says it listens, and that peer.
    fn target_owners(&self) -> BTreeMap<Target, PeerName> {
        let targets: BTreeSet<Target> = self.dialer.targets().into_iter().collect();
        let places = self.topology.others().flat_map(|record| {
            record.endpoints.iter().map(|endpoint| (Target::from(*endpoint), record.name))
        });
        places.filter(|(place, _)| targets.contains(place)).collect()
    }

    fn view_session(&self, connection: ConnectionId, link: &Link) -> Option<ConnectionView> {
        let Phase::Live(live) = &link.phase else { return None };
        let target = if let Some(Key::Target(target)) = &link.key { Some(target.to_string()) } else { None };
        let nickname = self.neighbours.get(&live.peer).map(|neighbour| neighbour.nickname.clone());
        Some(ConnectionView {
            connection: Some(connection),
            target: target.is_some(),
            address: target.or_else(|| link.remote.map(|remote| remote.to_string())).unwrap_or_default(),
            transport: "tcp",
            outbound: link.outbound(),
            state: ConnectionState::Established,
            peer: Some((live.peer, nickname.unwrap_or_default())),
            rtt: live.liveness.rtt(),
            error: None,
            retry_at: None,
            session: Some(live.session.id()),
        })
    }

    fn view_candidate(
        &self,
        key: &Key,
        candidate: &Candidate,
        owners: &BTreeMap<Target, PeerName>,
    ) -> Option<ConnectionView> {
        let (attempt, due) = (candidate.attempt(), candidate.due());
        if attempt.is_none() && due.is_none() {
            return None; // it rests: its peer has a session, which is shown
        }
        let place = candidate.place()?;
        let peer = candidate.peer().or_else(|| owners.get(place).copied());
        // As when the dialler decides: without room nothing is due, whatever the time says.
        let allowed = self.dialer.is_allowed(candidate, self.room_to_dial());
        let rests = attempt.is_none() && !candidate.is_ourselves() && !allowed;
        if rests && peer.is_some_and(|peer| self.neighbours.contains_key(&peer)) {
            return None;
        }
        let nickname =
            |peer| self.topology.record(peer).map_or_else(String::new, |record| record.nickname.clone());
        let address = match key {
            Key::Target(target) => target.to_string(),
            Key::Peer(_) => place.to_string(),
        };
        let state = match attempt {
            Some(_) => ConnectionState::Connecting,
            None if candidate.is_ourselves() => ConnectionState::Failed,
            None => ConnectionState::Retrying,
        };
        Some(ConnectionView {
            connection: attempt,
            address,
            transport: "tcp",
            outbound: true,
            state,
            peer: peer.map(|peer| (peer, nickname(peer))),
            rtt: None,
            error: if rests { Some(AT_LIMIT) } else { candidate.error() }.map(str::to_owned),
            retry_at: due.filter(|_| !rests),
            session: None,
            target: matches!(key, Key::Target(_)),
        })
    }
}
