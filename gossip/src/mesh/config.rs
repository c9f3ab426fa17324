//! What a mesh is made from, and what it counts.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use crate::event::ChannelName;
use crate::identity::{Identity, Psk};
use crate::peer::{BootId, Incarnation};
use crate::target::Target;

/// What a router tells its mesh at the start.
#[derive(Debug, Clone)]
pub struct MeshConfig {
    /// The static key, from which the peer name follows.
    pub identity: Identity,
    /// Raised at each start, and persisted.
    pub incarnation: Incarnation,
    /// Drawn anew at each start.
    pub boot: BootId,
    /// The name people read; cut at 256 bytes.
    pub nickname: String,
    /// The data centre this router is in; cut at 256 bytes.
    pub site: String,
    /// The key of the cluster.
    pub psk: Psk,
    /// TCP endpoints to advertise. None: the local addresses of the sessions, with `listen_port`.
    pub endpoints: Vec<SocketAddr>,
    /// The TCP port this router listens on.
    pub listen_port: u16,
    /// Whether peers learned by gossip are dialled.
    pub discovery: bool,
    /// Most neighbours at one time.
    pub connection_limit: Option<usize>,
    /// What to dial from the start.
    pub targets: Vec<Target>,
    /// The gossip channels the application takes part in.
    pub channels: BTreeSet<ChannelName>,
}

/// What happened so far, each as a number since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct Counters {
    /// Sessions established.
    pub sessions: u64,
    /// Sessions that ended.
    pub sessions_lost: u64,
    /// Sessions closed because nothing was heard.
    pub sessions_silent: u64,
    /// Connections turned away at the door or pushed out half open, because too many were half open.
    pub half_open_refused: u64,
    /// Handshakes that ended because the secret differs or a message was corrupt.
    pub secret_mismatches: u64,
    /// Handshakes that failed in any other way, the deadline included.
    pub handshakes_failed: u64,
    /// Connections to ourselves.
    pub ourselves: u64,
    /// Sessions refused, here or there, because a machine uses a live router's identity; and records of such.
    pub clones: u64,
    /// Messages skipped because their kind or body is not readable here.
    pub unreadable: u64,
    /// Records and changes that cannot be true, or for which there is no room.
    pub records_refused: u64,
    /// Times our own record had to be raised above one that somebody held for us.
    pub records_raised: u64,
    /// Broadcasts that had passed before.
    pub broadcasts_repeated: u64,
    /// Broadcasts and states not sent to a neighbour whose queue was full; it gets the state when it drains.
    pub slow_neighbour_drops: u64,
    /// Routed messages without a way to their destination, or that ran out of hops.
    pub unroutable: u64,
    /// Messages of ours longer than a message may be.
    pub oversized: u64,
    /// Times the routes were computed.
    pub routes_computed: u64,
}
