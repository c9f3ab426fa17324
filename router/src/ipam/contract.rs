//! The contract on one screen: what the allocator is told, and what it wants done.

use std::{fmt, net::Ipv4Addr};

use ipnet::Ipv4Net;
use weft_gossip::PeerName;

/// Names a command, so that its reply finds the way back.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RequestId(pub u64);

/// Which peers divide the range at the first demand.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum InitMode {
    /// A quorum agrees; the number of electors may be given and counts this peer.
    Consensus(Option<usize>),
    /// The peers of these nicknames, without asking anybody.
    Seed(Vec<String>),
    /// This peer never votes and gets no share, but may ask for an election.
    Observer,
}

/// What the allocator must know before it starts.
#[derive(Clone, Debug)]
pub struct AllocatorConfig {
    /// The addresses to be divided.
    pub range: Ipv4Net,
    /// How the first division comes about.
    pub init: InitMode,
    /// How many peers were given at launch: a lower bound for the electors.
    pub peers_given: usize,
}

/// What the mesh knows about another peer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeerKnowledge {
    /// What people call it.
    pub nickname: String,
    /// Whether a message would get there now.
    pub reachable: bool,
    /// Which start of its router is known.
    pub incarnation: u64,
}

/// What somebody wants from the allocator.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Command {
    /// An address for an id: the one it has in that subnet, else the lowest free one.
    Allocate {
        /// Whose address.
        id: String,
        /// A subnet of the range; the whole range by default.
        within: Option<Ipv4Net>,
    },
    /// Exactly this address for an id; outside the range it is only written down.
    Claim {
        /// Whose address.
        id: String,
        /// Which.
        address: Ipv4Addr,
    },
    /// Frees one or all addresses of an id; nothing to free is success.
    Release {
        /// Whose address.
        id: String,
        /// Only this one.
        address: Option<Ipv4Addr>,
    },
    /// The addresses of an id.
    Lookup {
        /// Whose addresses.
        id: String,
    },
    /// Waits until addresses can be given out.
    Prime,
    /// Takes over everything of a peer that is gone for good.
    RemovePeer {
        /// Who is gone.
        peer: PeerName,
        /// Even if it is reachable.
        force: bool,
    },
    /// Hands everything we own to a live peer and takes no part any more.
    Leave,
    /// Nobody waits for that request any more.
    Cancel {
        /// Which.
        request: RequestId,
    },
}

/// What a command brought.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reply {
    /// Allocated or claimed.
    Address(Ipv4Addr),
    /// Looked up or released.
    Addresses(Vec<Ipv4Addr>),
    /// The peer is fenced off; so many addresses were taken over.
    Removed(u64),
    /// Done.
    Done,
}

/// Who holds an address somebody else wanted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Holder {
    /// A container here.
    Id(String),
    /// A container behind another peer.
    Peer {
        /// Its name.
        name: PeerName,
        /// What people call it.
        nickname: String,
    },
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => write!(f, "{id:?} on this host"),
            Self::Peer { nickname, .. } => write!(f, "a container on {nickname}"),
        }
    }
}

/// Why a command failed; nothing has changed then.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum IpamError {
    /// The deadline passed; safe to try again.
    #[error("timed out waiting for {waiting_for}")]
    TimedOut {
        /// Whom or what.
        waiting_for: String,
    },
    /// No addresses can be given out yet; safe to try again.
    #[error("no addresses yet: {reason}")]
    NotYet {
        /// What is missing.
        reason: String,
    },
    /// Every owner said so.
    #[error("no free address left in {subnet}")]
    Exhausted {
        /// Where.
        subnet: String,
    },
    /// The address belongs to somebody else.
    #[error("{address} is in use by {holder}")]
    Conflict {
        /// Which.
        address: Ipv4Addr,
        /// By whom.
        holder: Holder,
    },
    /// The subnet is not part of the range.
    #[error("{subnet} is not inside the range {range}")]
    OutOfRange {
        /// What was asked for.
        subnet: Ipv4Net,
        /// What there is.
        range: Ipv4Net,
    },
    /// Nothing is known under this id.
    #[error("no address is known for {id:?}")]
    NotFound {
        /// The id.
        id: String,
    },
    /// The command makes no sense now.
    #[error("{0}")]
    Refused(String),
}

impl IpamError {
    /// Whether the same command may succeed later without anything being changed (exit code 4).
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::TimedOut { .. } | Self::NotYet { .. })
    }
}

/// What the allocator wants done, in this order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Output {
    /// Write `snapshot()` to disk before any later output is carried out.
    Persist,
    /// Answer a command.
    Reply {
        /// Which.
        request: RequestId,
        /// With what.
        result: Result<Reply, IpamError>,
    },
    /// Tell everyone: `delta` now (if any), `state` to whoever comes later.
    Publish {
        /// What changed.
        delta: Option<Vec<u8>>,
        /// All there is to know.
        state: Vec<u8>,
    },
    /// Tell one peer.
    Unicast {
        /// Whom.
        to: PeerName,
        /// What.
        bytes: Vec<u8>,
    },
    /// An address our container uses belongs to another now.
    Conflict {
        /// Our container.
        id: String,
        /// Its address.
        address: Ipv4Addr,
        /// Whose it is.
        owner: PeerName,
    },
    /// `split_peers()` changed.
    SplitChanged,
    /// `status().state` changed.
    StateChanged,
    /// An operator, here or elsewhere, removed that peer for good.
    Removed {
        /// Whom.
        peer: PeerName,
    },
}

/// Whether addresses can be given out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum IpamState {
    /// There is no address management here.
    Off,
    /// Not yet; the text says what for.
    Waiting(String),
    /// Seeded, or a quorum is there to seed at the first demand.
    Ready,
    /// These peers were seeded apart from us.
    Split(Vec<PeerName>),
}

/// What there is to report.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IpamStatus {
    /// Whether addresses can be given out.
    pub state: IpamState,
    /// The range.
    pub range: Ipv4Net,
    /// How many addresses this peer owns.
    pub owned: u64,
    /// How many of the range are in use here.
    pub used: u64,
    /// Who owns how many.
    pub owners: Vec<(PeerName, u64)>,
    /// Containers whose address belongs to somebody else now.
    pub conflicts: Vec<(String, Ipv4Addr, PeerName)>,
    /// The last thing wrong with what a peer said; it was not used.
    pub faults: Vec<(PeerName, String)>,
    /// Peers that use another range, and which; they have no part in ours.
    pub other_ranges: Vec<(PeerName, Ipv4Net)>,
    /// What of the state on disk was not used and why, if not all was; leases survive a change of the range.
    pub discarded: Option<String>,
}
