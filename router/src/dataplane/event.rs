//! What the data half reports to the control half.

use super::Counters;
use std::{collections::BTreeSet, time::Duration};
use weft_fastpath::MacAddr;
use weft_gossip::PeerName;

/// One report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Send this to the neighbour over its session; it holds a key, so over nothing else.
    Announce {
        /// The neighbour.
        peer: PeerName,
        /// The session the key belongs to.
        session: u64,
        /// An encoded announcement.
        bytes: Vec<u8>,
    },
    /// Frames get through to the neighbour and back (again, after a suspicion).
    LinkUp {
        /// The neighbour.
        peer: PeerName,
        /// Smoothed round trip.
        rtt: Duration,
        /// Bytes of the largest IP packet that is known to pass.
        mtu: u16,
    },
    /// The first heartbeat was missed, and three quick retries follow; or the neighbour speaks from another address all
    /// at once. Either way its session may be none any more.
    LinkSuspect {
        /// The neighbour.
        peer: PeerName,
    },
    /// Nothing gets through. It goes on being tried once a second.
    LinkDown {
        /// The neighbour.
        peer: PeerName,
    },
    /// Round trip or path MTU of a working link changed.
    LinkChanged {
        /// The neighbour.
        peer: PeerName,
        /// Smoothed round trip.
        rtt: Duration,
        /// Bytes of the largest IP packet that is known to pass.
        mtu: u16,
    },
    /// The answer to [`super::Command::Behind`]: the addresses that sleeve has learned behind a peer.
    Behind {
        /// The peer.
        peer: PeerName,
        /// Their addresses.
        macs: BTreeSet<MacAddr>,
    },
    /// The answer to [`super::Command::Counters`].
    Counters(Box<Counters>),
}
