//! The whole contract of the mesh on one screen: what the shell tells it, and what it wants done.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::peer::PeerName;
use crate::routes::Routes;
use crate::target::Target;

/// One TCP connection or attempt to get one; given out by the mesh, never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// So many bytes may leave a connection before the mesh hears of it: a report for each message would double the work.
pub const UNREPORTED: usize = 32 << 10;

/// What the shell tells the mesh. News about a connection the mesh has closed is ignored.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "the sentence of each variant names its fields")]
pub enum Input {
    /// A dial led to a connection.
    Dialed { connection: ConnectionId, remote: SocketAddr, local: Option<SocketAddr> },
    /// A dial led to nothing.
    DialFailed { connection: ConnectionId, error: String },
    /// Bytes arrived, in order.
    Received { connection: ConnectionId, bytes: Vec<u8> },
    /// The connection ended, by the far side or by an error.
    Closed { connection: ConnectionId, error: Option<String> },
    /// Bytes left; this many are still waiting in the shell. Wanted once [`UNREPORTED`] have left since it was said last.
    Writable { connection: ConnectionId, queued: usize },
}

/// What the mesh wants done (the first three: by the shell) or known (the rest: by the application).
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "the sentence of each variant names its fields")]
pub enum Output {
    /// Connect, resolving the name now, and answer with `Dialed` or `DialFailed` within 5 s.
    Dial { connection: ConnectionId, target: Target },
    /// Write these bytes after those before.
    Send { connection: ConnectionId, bytes: Vec<u8> },
    /// Write what is queued if that is quick, then close; also gives up a dial. No answer is needed.
    Close { connection: ConnectionId },
    /// A neighbour has a session; said again when another session takes the place of the one named before.
    Established {
        peer: PeerName,
        nickname: String,
        remote: SocketAddr,
        local: Option<SocketAddr>,
        outbound: bool,
        session: u64,
    },
    /// The last session with a neighbour ended.
    Lost { peer: PeerName, reason: String },
    /// A neighbour said this to us alone (`Mesh::tell`), over the session last reported as established.
    Told { peer: PeerName, bytes: Vec<u8> },
    /// Something arrived on a channel of ours.
    Deliver { channel: ChannelName, source: PeerName, kind: DeliverKind, bytes: Vec<u8> },
    /// The routes are these now, or those of frames are others (`Mesh::frame_routes`); said only when they differ from the
    /// last ones.
    Routes(Arc<Routes>),
    /// A record appeared, vanished or changed its links, or a peer its reachability: `peers()` reads otherwise.
    PeersChanged,
    /// A connection was refused and somebody should know; at most once a minute per source address.
    Refused { remote: SocketAddr, reason: String },
}

/// What a delivery is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum DeliverKind {
    /// A change that `source` published.
    Delta,
    /// The full state of `source`, of whatever age.
    State,
    /// Bytes that `source` sent to us alone.
    Unicast,
}

/// The name of a gossip channel: at most 12 bytes of ASCII.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ChannelName([u8; 12]);

impl ChannelName {
    /// Names a channel.
    ///
    /// # Panics
    /// If the name is longer than 12 bytes (in a constant: when compiling).
    pub const fn new(name: &'static str) -> Self {
        let from = name.as_bytes();
        assert!(from.len() <= 12, "a channel name has at most 12 bytes");
        let mut bytes = [0; 12];
        let mut at = 0;
        while at < from.len() {
            bytes[at] = from[at];
            at += 1;
        }
        Self(bytes)
    }
}

impl fmt::Display for ChannelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().take_while(|b| **b != 0).try_for_each(|b| write!(f, "{}", b.escape_ascii()))
    }
}

impl fmt::Debug for ChannelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}
