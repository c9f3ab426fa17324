//! What two neighbours say to each other over their session, beside the gossip, and what former neighbours say to each
//! other through others.
//!
//! One message enum, encoded by the gossip crate's codec. Append only: an unknown variant from a newer
//! peer fails to decode, is counted by the node and otherwise ignored. So a router that never heard of
//! fastpath stays a good sleeve neighbour: it simply offers nothing.

use std::fmt;

use serde::{Deserialize, Serialize};
use weft_gossip::codec::{self, DecodeError};

/// The largest message accepted, bytes: an offer or a key announcement is far below it.
const LIMIT: usize = 16 * 1024;

/// One message to a direct neighbour.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Told {
    /// What the sender can carry; sent once at the start of a session.
    Offer(Offer),
    /// Keys of a sleeve link, opaque to the control half.
    Sleeve {
        /// The session the keys belong to.
        session: u64,
        /// A `sleeve` announcement.
        announcement: Vec<u8>,
    },
    /// The sender is about to end.
    Goodbye(Goodbye),
    /// Whether and how the sender's kernel can carry; sent again when that changes.
    Fastpath(FastpathOffer),
    /// What works as the sender sees it, and what it uses; sent whenever that changes.
    View(View),
    /// A step of a change of carrier that both ends make together.
    Change {
        /// The session in which the change was proposed.
        session: u64,
        /// Which change; counts up within a session.
        epoch: u64,
        /// The step.
        say: Say,
    },
}

/// What a router can carry, and on which terms.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// The UDP port of its sleeve; `None` when sleeve is left out.
    pub sleeve: Option<u16>,
    /// Whether frames to the receiver may travel in clear, as far as the sender is concerned.
    pub clear: bool,
}

/// What a router's kernel can carry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FastpathOffer {
    /// The session it is made in.
    pub session: u64,
    /// The UDP port of its VXLAN device, or why there is none.
    pub port: Result<u16, Denial>,
    /// With what the receiver seals the probes it sends; drawn anew for every session.
    pub key: ProbeKey,
}

/// Why a router offers no fastpath.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Denial {
    /// It was left out by a flag.
    SwitchedOff,
    /// Its host cannot: the reason in words.
    Impossible(String),
}

/// A key that probes are sealed with, in one direction; it never shows in a log or a report.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeKey(pub [u8; 32]);

impl fmt::Debug for ProbeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ProbeKey(..)")
    }
}

/// One end's view of the link: sent by both, so that both can judge alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    /// The session it belongs to.
    pub session: u64,
    /// Counts up within a session: an older view never replaces a newer one.
    pub serial: u64,
    /// Whether sleeve works now.
    pub sleeve: bool,
    /// What the probes say about VXLAN.
    pub path: Path,
    /// What the sender uses.
    pub stand: Stand,
}

/// What probes through the VXLAN device say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Path {
    /// Nobody has tried.
    Untried,
    /// Being tried, or not yet tried with the largest frame.
    Trying,
    /// The largest frame gets through.
    Proven,
    /// Small frames get through, the largest does not.
    Small,
    /// Nothing is answered.
    Down {
        /// Whether the other end's probes are heard all the same.
        hears: bool,
    },
}

/// Which carrier an end uses towards the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stand {
    /// The router carries, or nothing does.
    Sleeve,
    /// The kernel carries.
    Fastpath,
}

/// A step of a change of carrier (`switchover.rs` draws the order).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Say {
    /// The leader wants both ends to use this.
    Propose(Stand),
    /// The follower is there and goes along; nothing is changed yet.
    Agree,
    /// The leader has heard that: the follower does its part now.
    Begin,
    /// The follower has done its part.
    Ack,
    /// The leader has done its part.
    Commit,
    /// The follower has finished.
    Done,
    /// The sender does not, or not any more, go along.
    Refuse,
}

/// What a router says, through others, to a peer that was its neighbour on fastpath.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Far {
    /// Others reach both of us: let us stop sending to each other by fastpath.
    Part,
    /// The sender has stopped.
    Parted,
}

/// Why a router ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Goodbye {
    /// It will be back with the same state; what the kernel carries goes on.
    Restarting,
    /// It has left the cluster for good.
    Leaving,
}

impl Told {
    /// Encodes the message.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Decodes a message from a neighbour.
    ///
    /// # Errors
    /// When the bytes are not exactly one message; nothing was changed.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        codec::decode::<Self, LIMIT>(bytes)
    }
}

impl Far {
    /// Encodes the message.
    #[must_use]
    pub fn encode(self) -> Vec<u8> {
        codec::encode(&self)
    }

    /// Decodes a message from a former neighbour.
    ///
    /// # Errors
    /// When the bytes are not exactly one message.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        codec::decode::<Self, LIMIT>(bytes)
    }
}
