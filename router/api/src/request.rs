//! What can be asked of the router: one variant per verb of the command line.
//!
//! Peers, addresses and subnets travel as the strings people type; the command line has checked their form, the router
//! parses them again, because others may speak to the socket too.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{CniAdd, CniLease, CniName};

/// Longest any request may wait, whatever it asks for, in milliseconds: one hour.
const LONGEST_MS: u64 = 3_600_000;

/// One request to the router.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "snake_case")]
pub enum Request {
    /// The status document; answered with `Response::Status`.
    Status,
    /// Everything for a bug report, never a secret; answered with `Response::Report`.
    Report,
    /// Status and counters for `/metrics`; answered with `Response::Metrics`.
    Metrics,
    /// Add targets and dial them now; answered with `Response::Done`.
    PeerAdd {
        /// `HOST`, `HOST:PORT`, `[IPV6]:PORT` or `quic://HOST[:PORT]`.
        peers: Vec<String>,
        /// Make these the whole list.
        replace: bool,
    },
    /// Drop targets; live connections stay. Answered with `Response::Done`.
    PeerForget {
        /// As they were given to `PeerAdd`.
        peers: Vec<String>,
    },
    /// A peer is gone for good: take over its addresses and fence it off. Answered with `Response::Done`.
    PeerRemove {
        /// Its peer name or its nickname.
        name: String,
        /// Even while it is reachable.
        force: bool,
    },
    /// Connect a network namespace; comes over the attach socket, with descriptors. Answered with
    /// `Response::Addresses`.
    Attach(Attach),
    /// Undo an attachment; nothing to undo is a success. Answered with `Response::Done`.
    Detach {
        /// The attachment; by default the one of the namespace.
        id: Option<String>,
        /// The namespace as people name it (see `Attach::netns`).
        netns: String,
        /// The namespace's inode; none when it no longer exists, then `netns` finds the attachment.
        netns_inode: Option<u64>,
    },
    /// Give the host an address on the bridge; answered with `Response::Addresses`.
    Expose {
        /// The address with its prefix length; by default the router picks one.
        cidr: Option<String>,
    },
    /// Take the host's address back; answered with `Response::Done`.
    Hide,
    /// Allocate an address without wiring, idempotent per id; answered with `Response::Addresses`.
    IpamAllocate {
        /// Who holds it.
        id: String,
        /// The subnet to take it from; by default the whole range.
        cidr: Option<String>,
        /// How long to wait for space.
        timeout_ms: u64,
    },
    /// Take one very address; answered with `Response::Addresses`.
    IpamClaim {
        /// Who holds it.
        id: String,
        /// The address, with or without its prefix length.
        cidr: String,
        /// How long to wait for its owner.
        timeout_ms: u64,
    },
    /// Give back what an id holds; nothing held is a success. Answered with `Response::Done`.
    IpamRelease {
        /// Who holds it.
        id: String,
        /// Only this address; by default all of the id's.
        cidr: Option<String>,
    },
    /// What an id holds; answered with `Response::Addresses`, or refused as failed when it holds nothing.
    IpamLookup {
        /// Who holds it.
        id: String,
        /// Only what lies in this subnet.
        cidr: Option<String>,
    },
    /// Seed if need be and wait until addresses can be given out; answered with `Response::Done`.
    Prime {
        /// How long to wait.
        timeout_ms: u64,
    },
    /// Check the host and the path to every peer; answered with `Response::Doctor`.
    Doctor,
    /// What would be changed in the kernel now; answered with `Response::Plan`.
    Plan,
    /// Connect a pod; comes over the attach socket, with descriptors. Answered with `Response::CniAttached`.
    CniAdd(Box<CniAdd>),
    /// Take a pod's interface and its addresses back; nothing there is a success. The link is gone when this is
    /// answered, with `Response::Done` or `Response::Plan`.
    CniDel(CniName),
    /// Whether a pod's interface is as it was made; answered with its addresses, or refused with what is wrong.
    CniCheck(CniName),
    /// An address for a pod without wiring; answered with `Response::Addresses`.
    CniLease(CniLease),
    /// Give that address back; nothing held is a success. Answered with `Response::Done`.
    CniRelease(CniName),
    /// Take back whatever this network has here, apart from these; answered with `Response::Done`, a line for each.
    CniGc {
        /// The network's name.
        network: String,
        /// What is in use.
        valid: Vec<CniName>,
    },
    /// Whether a pod could be connected now; answered with `Response::CniStatus`.
    CniStatus {
        /// Whether the router would have to give it an address.
        addresses: bool,
    },
    /// Leave the cluster, remove all state and every kernel object, and end. Answered with `Response::Done`.
    Reset {
        /// Also when no live peer takes the addresses.
        force: bool,
    },
}

/// How to connect a network namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attach {
    /// Names the attachment; by default made from the namespace's inode.
    pub id: Option<String>,
    /// The addresses it must have, each with or without a prefix length; empty: allocate one.
    pub addresses: Vec<String>,
    /// The interface's name inside the namespace.
    pub ifname: String,
    /// Whether its default route points to the bridge.
    pub default_route: bool,
    /// The namespace as people name it: the path it was opened by. For logs and status only; the descriptor counts.
    pub netns: String,
    /// The namespace's inode: which namespace it is while it lives.
    pub netns_inode: u64,
    /// How long to wait for an address.
    pub timeout_ms: u64,
}

impl Attach {
    /// The attachment's id: the given one, else the one made from the namespace.
    pub fn id(&self) -> String {
        self.id.clone().unwrap_or_else(|| attachment_id(self.netns_inode))
    }
}

/// The id of an attachment that was given none: the same namespace, however it is named, has the same id.
pub fn attachment_id(netns_inode: u64) -> String {
    format!("netns-{netns_inode}")
}

impl Request {
    /// How long the router may take for this request; the client waits a little longer.
    pub fn allowance(&self) -> Duration {
        let asked = match self {
            Self::Attach(Attach { timeout_ms, .. })
            | Self::IpamAllocate { timeout_ms, .. }
            | Self::IpamClaim { timeout_ms, .. }
            | Self::CniLease(CniLease { timeout_ms, .. })
            | Self::Prime { timeout_ms } => *timeout_ms,
            Self::CniAdd(add) => add.timeout_ms,
            Self::CniStatus { .. } => 1_000,
            Self::Doctor | Self::Report | Self::Reset { .. } => 30_000,
            Self::Status
            | Self::Metrics
            | Self::PeerAdd { .. }
            | Self::PeerForget { .. }
            | Self::PeerRemove { .. }
            | Self::Detach { .. }
            | Self::Expose { .. }
            | Self::Hide
            | Self::IpamRelease { .. }
            | Self::IpamLookup { .. }
            | Self::CniDel(_)
            | Self::CniCheck(_)
            | Self::CniRelease(_)
            | Self::CniGc { .. }
            | Self::Plan => 10_000,
        };
        Duration::from_millis(asked.min(LONGEST_MS)) + Duration::from_secs(3)
    }
}
