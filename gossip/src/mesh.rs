//! The mesh: owns sessions, topology, routes, channels and dials, and lets them act on one another.
//!
//! How to drive it: feed each [`Input`] (and each inbound connection through [`Mesh::accept`]), call
//! [`Mesh::handle_timeout`] when [`Mesh::poll_timeout`] says so, and after every call drain
//! [`Mesh::poll_output`]. It reads no clock, opens no socket and never calls back.
//!
//! ```text
//!  bytes ─► sessions ─► gossip (records)  ─► topology ─► routes ─► Output::Routes
//!              │     └► relay (channels)  ─► Output::Deliver, and on to the next hops
//!              └► neighbours, dialer      ─► Output::Established, Lost, Dial
//! ```
//!
//! Nothing above a session ends it: only framing, decryption, silence and the rules about duplicates do.

mod config;
mod gossip;
mod link;
mod pace;
mod relay;
mod sessions;
mod verdict;
mod view;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::RngExt as _;
use rand::rngs::StdRng;

pub use config::{Counters, MeshConfig};
pub use view::{ConnectionState, ConnectionView, PeerView, Presence};

use crate::channel::{Channels, Seen};
use crate::dialer::{Dialer, Key, Room};
use crate::event::{ChannelName, ConnectionId, Input, Output};
use crate::hello::{CHANNEL_LIMIT, ENDPOINT_LIMIT, Hello, Introduction, NAME_LIMIT};
use crate::identity::Seed;
use crate::peer::{BootId, Incarnation, PeerName};
use crate::routes::{Graph, Routes};
use crate::session::Credentials;
use crate::target::Target;
use crate::topology::Topology;
use gossip::Gossip;
use link::Link;
use pace::Pace;

/// Records and routes follow changes at once, and bursts of changes at most twenty times a second.
const BURST: Duration = Duration::from_millis(50);
/// In a larger mesh what can wait is said less often: so much later for each neighbour…
const PATIENCE: Duration = Duration::from_millis(20);
/// …but at least so often.
const PATIENCE_LIMIT: Duration = Duration::from_secs(2);
/// Routes follow others' links so much later for each peer…
const REROUTE_PATIENCE: Duration = Duration::from_millis(1);
/// …but at least once a second.
const REROUTE_LIMIT: Duration = Duration::from_secs(1);

/// A router that is late itself gives others longer, but not without end.
const LAG_LIMIT: Duration = Duration::from_secs(1);

/// A peer with at least one session.
struct Neighbour {
    nickname: String,
    boot: BootId,
    channels: Vec<ChannelName>,
    /// The connection whose session was reported as established.
    current: ConnectionId,
    connections: BTreeSet<ConnectionId>,
}

/// The mesh as one router sees it.
pub struct Mesh {
    me: PeerName,
    boot: BootId,
    nickname: String,
    site: String,
    listen_port: u16,
    /// What the configuration advertises; empty: what `observed` holds.
    configured: Vec<SocketAddr>,
    /// Our own addresses as our sessions show them.
    observed: BTreeSet<SocketAddr>,
    discovery: bool,
    connection_limit: Option<usize>,
    credentials: Arc<Credentials>,
    rng: StdRng,
    topology: Topology,
    gossip: Gossip,
    channels: Channels,
    seen: Seen,
    dialer: Dialer,
    links: BTreeMap<ConnectionId, Link>,
    neighbours: BTreeMap<PeerName, Neighbour>,
    routes: Arc<Routes>,
    /// The routes of frames: the same, unless somebody says that nothing carries frames over a link.
    frame_routes: Arc<Routes>,
    /// Neighbours to whom nothing carries frames, as the application says.
    idle: BTreeSet<PeerName>,
    reroute: Pace,
    peers_changed: bool,
    outputs: VecDeque<Output>,
    last_connection: u64,
    last_sequence: u64,
    /// No connection has anything due before this.
    wake: Option<Instant>,
    /// How late this router has lately been called.
    lag: Duration,
    /// Connections whose far side does not read.
    choked: Vec<ConnectionId>,
    /// When a refusal was last reported, per source.
    refusals: BTreeMap<IpAddr, Instant>,
    counters: Counters,
}

impl Mesh {
    /// Makes the mesh of one router; it begins to dial its targets with the first output.
    pub fn new(config: MeshConfig, seed: impl Into<Seed>, now: Instant) -> Self {
        let me = config.identity.name();
        let mut channels: Vec<_> = config.channels.into_iter().collect();
        channels.truncate(CHANNEL_LIMIT);
        let mut configured = config.endpoints;
        configured.truncate(ENDPOINT_LIMIT);
        let introduction = Introduction {
            name: me,
            incarnation: config.incarnation,
            boot: config.boot,
            nickname: cut(config.nickname),
            site: cut(config.site),
            listen_port: config.listen_port,
            endpoints: configured.clone(),
            channels: Vec::new(),
        };
        let topology = Topology::new(&introduction, *config.identity.public());
        let credentials = Credentials { identity: config.identity, psk: config.psk, hello: Hello::OURS };
        let mut rng = seed.into().generator();
        let mut mesh = Self {
            me,
            boot: config.boot,
            nickname: introduction.nickname,
            site: introduction.site,
            listen_port: config.listen_port,
            configured,
            observed: BTreeSet::new(),
            discovery: config.discovery,
            connection_limit: config.connection_limit,
            credentials: Arc::new(credentials),
            topology,
            gossip: Gossip::new(now, &mut rng),
            rng,
            channels: Channels::new(channels),
            seen: Seen::default(),
            dialer: Dialer::new(me),
            links: BTreeMap::new(),
            neighbours: BTreeMap::new(),
            routes: Arc::new(Routes::default()),
            frame_routes: Arc::new(Routes::default()),
            idle: BTreeSet::new(),
            reroute: Pace::new(BURST),
            peers_changed: false,
            outputs: VecDeque::new(),
            last_connection: 0,
            last_sequence: 0,
            wake: None,
            lag: Duration::ZERO,
            choked: Vec::new(),
            refusals: BTreeMap::new(),
            counters: Counters::default(),
        };
        mesh.reroute.want();
        mesh.add_targets(config.targets, now);
        mesh
    }

    /// Takes what the shell has to say.
    pub fn handle_input(&mut self, input: Input, now: Instant) {
        match input {
            Input::Dialed { connection, remote, local } => self.dialed(connection, remote, local, now),
            Input::DialFailed { connection, error } => {
                self.dialer.unanswered();
                self.end(connection, &error, now);
            }
            Input::Received { connection, bytes } => self.received(connection, &bytes, now),
            Input::Closed { connection, error } => {
                let reason = error.as_deref().unwrap_or("closed by the far side").to_owned();
                self.end(connection, &reason, now);
            }
            Input::Writable { connection, queued } => {
                if self.links.get_mut(&connection).is_some_and(|link| link.drained_to(queued)) {
                    self.synchronise(connection);
                }
            }
        }
        self.settle(now);
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        let late = self.poll_timeout().map_or(Duration::ZERO, |due| now.saturating_duration_since(due));
        self.lag = late.min(LAG_LIMIT).max(self.lag * 3 / 4);
        self.look_at_links(now);
        self.repair(now);
        self.settle(now);
    }

    /// When `handle_timeout` wants to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let dial = self.room_to_dial().and_then(|room| self.dialer.due(room));
        [self.wake, self.reroute.due(), dial, self.gossip.due()].into_iter().flatten().min()
    }

    /// The next thing the mesh wants done or known.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Adds targets and dials them now; those that are there already are dialled now instead of later.
    pub fn add_targets(&mut self, targets: Vec<Target>, now: Instant) {
        for target in targets {
            self.dialer.add_target(target, now);
        }
        self.settle(now);
    }

    /// Makes these the whole list of targets; live sessions stay.
    pub fn replace_targets(&mut self, targets: Vec<Target>, now: Instant) {
        let gone = self.dialer.targets().into_iter().filter(|target| !targets.contains(target)).collect();
        self.forget_targets(gone, now);
        self.add_targets(targets, now);
    }

    /// Drops targets; live sessions stay until they end.
    pub fn forget_targets(&mut self, targets: Vec<Target>, now: Instant) {
        for target in targets {
            if let Some(attempt) = self.dialer.drop_target(&target) {
                self.end(attempt, "forgotten", now);
            }
        }
        self.settle(now);
    }

    /// The list of targets.
    pub fn targets(&self) -> Vec<Target> {
        self.dialer.targets()
    }

    /// Asks whether a neighbour is still there: without an answer within 400 ms its sessions are closed.
    pub fn verify(&mut self, peer: PeerName, now: Instant) {
        let connections = self.neighbours.get(&peer).map(|neighbour| neighbour.connections.clone());
        let lag = self.lag;
        for connection in connections.into_iter().flatten() {
            self.ask(connection, |liveness| liveness.verify(lag, now));
        }
        self.settle(now);
    }

    /// Forgets a peer everywhere; it is taken in again only with a higher incarnation. Idempotent.
    pub fn remove(&mut self, peer: PeerName, now: Instant) {
        if peer != self.me {
            self.remove_record(peer, now);
        }
        self.settle(now);
    }

    /// The routes as last handed out.
    pub fn routes(&self) -> Arc<Routes> {
        Arc::clone(&self.routes)
    }

    /// The routes of frames as last handed out: they pass by links over which nothing carries frames.
    pub fn frame_routes(&self) -> Arc<Routes> {
        Arc::clone(&self.frame_routes)
    }

    /// The links that frames may take, for routes of one's own ([`Routes::compute`]).
    pub fn frame_graph(&self) -> Graph {
        self.graph().without_pairs(self.topology.idle())
    }

    /// Says to whom of our neighbours nothing carries frames: all lead theirs around those links from now on, while gossip
    /// goes on over them.
    pub fn set_idle(&mut self, idle: BTreeSet<PeerName>, now: Instant) {
        if idle != self.idle {
            self.idle = idle;
            self.gossip.publish.want();
        }
        self.settle(now);
    }

    fn graph(&self) -> Graph {
        self.topology.graph(&self.neighbours.keys().copied().collect(), &self.quiet())
    }

    /// Our own name.
    pub fn name(&self) -> PeerName {
        self.me
    }

    /// Our own incarnation: that of the configuration, or a higher one if somebody remembered a higher one
    /// (after lost state or a removal), and then worth persisting.
    pub fn incarnation(&self) -> Incarnation {
        self.topology.own().incarnation
    }

    /// What happened so far.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Lets every part act on what has changed; ends each call from outside.
    fn settle(&mut self, now: Instant) {
        self.close_choked(now);
        self.publish_own(now);
        self.spread_news(now);
        self.recompute_routes(now);
        while let Some(room) = self.room_to_dial() {
            let Some((key, target)) = self.dialer.next_dial(room, now) else { break };
            self.dial(key, target, now);
        }
    }

    fn recompute_routes(&mut self, now: Instant) {
        if !self.reroute.take(now) {
            return;
        }
        self.counters.routes_computed += 1;
        let graph = self.graph();
        let routes = Routes::compute(&graph, self.me, |_| true);
        let changed = routes != *self.routes;
        if changed {
            let fresh = routes.reachable().filter(|peer| self.routes.hops(*peer).is_none()).collect();
            self.routes = Arc::new(routes);
            if self.connection_limit.is_some() {
                self.dialer.rerouted(self.routes.reachable().collect());
            }
            self.gossip.routes_changed(fresh, now, &mut self.rng);
            self.peers_changed = true;
        }
        let around = self.topology.idle().next().is_some().then(|| {
            Arc::new(Routes::compute(&graph.without_pairs(self.topology.idle()), self.me, |_| true))
        });
        let frames = around.unwrap_or_else(|| self.routes());
        if changed || frames != self.frame_routes {
            self.frame_routes = frames;
            self.outputs.push_back(Output::Routes(self.routes()));
        }
        if std::mem::take(&mut self.peers_changed) {
            self.outputs.push_back(Output::PeersChanged);
        }
    }

    /// Whom there is room to dial.
    ///
    /// In a mesh larger than the limit a quarter of it is left to those who call: so the next to come find room.
    /// With enough neighbours there is still room for strangers, one after the other (`verdict.rs` makes it).
    fn room_to_dial(&self) -> Option<Room> {
        let Some(limit) = self.connection_limit else { return Some(Room::ForAnybody) };
        let dialling = self.links.values().filter(|link| link.outbound() && link.live().is_none()).count();
        let enough = if self.routes.reach() > limit { limit - limit / 4 } else { limit };
        if self.neighbours.len() + dialling < enough {
            Some(Room::ForAnybody)
        } else if dialling == 0 {
            Some(Room::ForStrangers)
        } else {
            None
        }
    }

    fn dial(&mut self, key: Key, target: Target, now: Instant) {
        let connection = self.next_connection();
        self.dialer.started(&key, connection);
        self.insert(connection, Link::dialing(key, now));
        self.outputs.push_back(Output::Dial { connection, target });
    }

    fn next_connection(&mut self) -> ConnectionId {
        self.last_connection += 1;
        ConnectionId(self.last_connection)
    }

    /// What we say of ourselves in the next handshake.
    fn introduction(&self) -> Introduction {
        Introduction {
            name: self.me,
            incarnation: self.topology.own().incarnation,
            boot: self.boot,
            nickname: self.nickname.clone(),
            site: self.site.clone(),
            listen_port: self.listen_port,
            endpoints: self.endpoints(),
            channels: self.channels.names(),
        }
    }

    /// Where others may dial us.
    fn endpoints(&self) -> Vec<SocketAddr> {
        if self.configured.is_empty() {
            self.observed.iter().copied().collect()
        } else {
            self.configured.clone()
        }
    }

    /// How long after the last one a change is said that nobody waits for.
    fn patience(&self) -> Duration {
        let neighbours = u32::try_from(self.neighbours.len()).unwrap_or(u32::MAX);
        PATIENCE.saturating_mul(neighbours).clamp(BURST, PATIENCE_LIMIT)
    }

    /// How long after the last time routes are computed for the sake of others' links.
    fn reroute_patience(&self) -> Duration {
        let peers = u32::try_from(self.topology.len()).unwrap_or(u32::MAX);
        REROUTE_PATIENCE.saturating_mul(peers).clamp(BURST, REROUTE_LIMIT)
    }

    fn random_bytes(&mut self) -> [u8; 32] {
        self.rng.random()
    }
}

fn cut(mut text: String) -> String {
    let end = (0..=NAME_LIMIT.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    text.truncate(end);
    text
}

#[cfg(test)]
mod tests;
