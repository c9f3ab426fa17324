//! The document of `weft status -o json`: names, order and nulls are a contract.
//!
//! Fields marked "addition" are not in the contract's first print; they default when an older router leaves them out.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

/// What is going on, as this router knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The router's version.
    pub version: String,
    /// It can serve: the bridge stands and addresses can be given out (or IPAM is off).
    pub ready: bool,
    /// This router.
    pub peer: ThisPeer,
    /// A secret is set.
    pub encryption: bool,
    /// What it is told to dial, `HOST:PORT`.
    pub targets: Vec<String>,
    /// One entry per live session and per target being dialled.
    pub connections: Vec<Connection>,
    /// Every other known peer.
    pub peers: Vec<Peer>,
    /// The addresses.
    pub ipam: Ipam,
    /// The namespaces connected here.
    pub attachments: Vec<Attachment>,
    /// Addition: the host's own addresses on the bridge.
    #[serde(default)]
    pub exposed: Vec<String>,
    /// Addition: frames dropped since the start, by reason.
    #[serde(default)]
    pub drops: BTreeMap<String, u64>,
    /// Addition: what somebody should look at, and what to do about it, a line each.
    #[serde(default)]
    pub warnings: Vec<String>,
}

/// The router that answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThisPeer {
    /// Its peer name, 16 hex digits.
    pub name: String,
    /// The name people read.
    pub nickname: String,
    /// How many times it was started.
    pub incarnation: u64,
    /// The data centre it is in.
    pub site: String,
}

/// A session, or the attempt at one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connection {
    /// The far end, `HOST:PORT`.
    pub address: String,
    /// What carries the session.
    pub transport: Transport,
    /// Who dialled.
    pub direction: Direction,
    /// How far it is.
    pub state: ConnectionState,
    /// The far end's peer name, once known.
    pub peer: Option<String>,
    /// The far end's nickname, once known.
    pub nickname: Option<String>,
    /// What carries the frames; none while nothing works.
    pub carrier: Option<Carrier>,
    /// Why this carrier and not a better one.
    pub reason: Option<String>,
    /// Whether frames travel encrypted.
    pub encrypted: bool,
    /// The largest frame the carrier takes whole, in bytes, once known.
    pub mtu: Option<u32>,
    /// Round trip of the carrier's heartbeat, in microseconds, once known.
    pub rtt_us: Option<u64>,
    /// Why the last attempt or carrier failed.
    pub error: Option<String>,
    /// When it is dialled again, in milliseconds from now.
    pub retry_in_ms: Option<u64>,
}

/// Another peer of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// Its peer name.
    pub name: String,
    /// Its nickname.
    pub nickname: String,
    /// Its data centre.
    pub site: String,
    /// Whether there is a way to it now.
    pub reachable: bool,
    /// Links on that way; 1 for a neighbour.
    pub hops: Option<u32>,
    /// The peer name of the neighbour through which a relayed peer is reached.
    pub via: Option<String>,
    /// The peer names it is linked with.
    pub links: Vec<String>,
    /// Its session is lost, and the kernel goes on as if it were there: its router may only be restarting.
    #[serde(default)]
    pub held: bool,
}

/// The addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ipam {
    /// Whether addresses can be given out.
    pub state: IpamState,
    /// What it waits for, or what to do when split.
    pub reason: Option<String>,
    /// The universe of addresses; none when off.
    pub range: Option<String>,
    /// How many addresses this peer owns.
    pub owned: u64,
    /// How many of them are given out.
    pub used: u64,
    /// Who owns how many, as this peer knows it.
    pub owners: Vec<Owner>,
}

/// One owner of addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// Its peer name.
    pub peer: String,
    /// Its nickname, empty when unknown.
    pub nickname: String,
    /// How many addresses.
    pub addresses: u64,
    /// Whether there is a way to it now.
    pub reachable: bool,
}

/// A namespace connected here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// Its id.
    pub id: String,
    /// The namespace as it was named.
    pub netns: String,
    /// The interface's name inside it.
    pub interface: String,
    /// That interface's MAC address.
    pub mac: String,
    /// Its addresses with their prefix lengths.
    pub addresses: Vec<String>,
    /// Whether it may use them.
    pub state: AttachmentState,
}

/// Words of a closed set: written in JSON and printed alike.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum $name {
            $($(#[$variant_doc])* #[serde(rename = $word)] $variant),+
        }

        impl $name {
            /// The word it is written as.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }
    };
}

words! {
    /// What carries a session.
    Transport {
        /// TCP, inside a site.
        Tcp = "tcp",
        /// QUIC, between sites.
        Quic = "quic",
    }
}

words! {
    /// Who dialled.
    Direction {
        /// The far end.
        Inbound = "inbound",
        /// We.
        Outbound = "outbound",
    }
}

words! {
    /// How far a connection is.
    ConnectionState {
        /// Being dialled, or in the handshake.
        Connecting = "connecting",
        /// The session stands.
        Established = "established",
        /// It failed and is dialled again.
        Retrying = "retrying",
        /// It was refused for good (wrong secret, cloned identity).
        Failed = "failed",
    }
}

words! {
    /// What carries frames.
    Carrier {
        /// The kernel's VXLAN device.
        Fastpath = "fastpath",
        /// The router itself, over UDP.
        Sleeve = "sleeve",
        /// QUIC datagrams.
        Quic = "quic",
    }
}

words! {
    /// Whether addresses can be given out.
    IpamState {
        /// Switched off.
        Off = "off",
        /// Not yet.
        Waiting = "waiting",
        /// Yes.
        Ready = "ready",
        /// This peer and another were seeded apart.
        Split = "split",
    }
}

words! {
    /// Whether an attachment may use its addresses.
    AttachmentState {
        /// It may.
        Ok = "ok",
        /// Somebody else holds one of them; its port is down.
        Conflict = "conflict",
    }
}
