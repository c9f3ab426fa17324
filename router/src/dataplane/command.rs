//! What the control half tells the data half.

use crate::switch::table::ForwardingTable;
use std::{collections::BTreeSet, net::SocketAddr, sync::Arc};
use weft_fastpath::MacAddr;
use weft_gossip::PeerName;

/// One instruction; the data half never answers, it only reports (`event.rs`).
#[derive(Debug, Clone)]
pub enum Command {
    /// The immutable forwarding table: replaces the last.
    Table(Arc<ForwardingTable>),
    /// A direct neighbour has a session: make its link, or refresh it. Another session brings another key.
    AddLink {
        /// The neighbour.
        peer: PeerName,
        /// Unique per session, the same at both ends.
        session: u64,
        /// Its UDP address, until a datagram shows a better one.
        address: SocketAddr,
    },
    /// The neighbour is none any more: drop its link and keys.
    RemoveLink {
        /// The neighbour.
        peer: PeerName,
    },
    /// What the neighbour announced over the session (the bytes of its [`super::Event::Announce`]).
    Announced {
        /// The neighbour.
        peer: PeerName,
        /// The session it came over. Only for the log: which of two announcements is newer, they say themselves.
        session: u64,
        /// An encoded announcement.
        bytes: Vec<u8>,
    },
    /// The MAC addresses of this host's containers and its bridge: never learned as remote.
    LocalMacs(BTreeSet<MacAddr>),
    /// Forget which addresses are behind a peer.
    Forget {
        /// The peer.
        peer: PeerName,
    },
    /// Ask the neighbour at once whether it is there; the answer is another [`super::Event::LinkUp`].
    Prove {
        /// The neighbour.
        peer: PeerName,
    },
    /// The path to the neighbour may take less than it did: measure it now.
    Doubt {
        /// The neighbour.
        peer: PeerName,
    },
    /// Ask for [`super::Event::Behind`].
    Behind {
        /// The peer.
        peer: PeerName,
    },
    /// The kernel had these addresses behind the peer and hands them to sleeve.
    Placed {
        /// The peer.
        peer: PeerName,
        /// Their addresses.
        macs: BTreeSet<MacAddr>,
    },
    /// Ask for [`super::Event::Counters`].
    Counters,
}
