//! Why a carrier serves a peer, in words people read in `weft status`.
//!
//! A reason is a value, not a string made up on the way: it is compared to see a change, logged once
//! and shown for as long as it holds.

use std::fmt;

/// Why this carrier and not a better one, or why none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The session is up, the neighbour has not said yet what it can carry.
    AwaitingOffer,
    /// Both ends offer sleeve and no heartbeat has been answered yet.
    AwaitingHeartbeat,
    /// The heartbeats that were answered before are answered no more.
    Silent,
    /// Sleeve was left out by a flag, at this end.
    SleeveOffHere,
    /// Sleeve was left out by a flag, at the other end.
    SleeveOffThere,
    /// The two peers were seeded apart and both gave addresses out: no frame may cross.
    SeededApart,
    /// A secret is set and at least one end does not trust the link: the frames must be sealed.
    MustEncrypt,
    /// Frames may travel in clear, and the kernel's VXLAN is not offered by both ends.
    NoFastpath,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AwaitingOffer => "waiting for the peer's offer",
            Self::AwaitingHeartbeat => "no heartbeat answered yet: is UDP to the peer's port blocked?",
            Self::Silent => "heartbeats are not answered: the path or the router is silent",
            Self::SleeveOffHere => "sleeve is switched off here (--no-sleeve)",
            Self::SleeveOffThere => "sleeve is switched off at the peer (--no-sleeve)",
            Self::SeededApart => "seeded apart: both clusters have given addresses out, no frame may cross",
            Self::MustEncrypt => "secret set and link not trusted",
            Self::NoFastpath => "fastpath is not offered by both ends",
        })
    }
}
