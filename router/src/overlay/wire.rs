//! What two neighbours say to each other over their session, beside the gossip.
//!
//! One message enum, encoded by the gossip crate's codec. Append only: an unknown variant from a newer
//! peer fails to decode, is counted by the node and otherwise ignored.

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
}

/// What a router can carry, and on which terms.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// The UDP port of its sleeve; `None` when sleeve is left out.
    pub sleeve: Option<u16>,
    /// Whether frames to the receiver may travel in clear, as far as the sender is concerned.
    pub clear: bool,
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
