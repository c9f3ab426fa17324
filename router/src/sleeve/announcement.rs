//! What a router tells a neighbour over their session so that the neighbour can send it datagrams.
//!
//! One announcement is one receive key. It is made for one session by one boot of the router and is never made
//! twice; generations only rise, so an announcement that comes again, or late, is known as such and cannot start a
//! counter at zero under a key that was already used.

use super::seal::{Key, Suites};
use serde::{Deserialize, Serialize};
use weft_gossip::codec;

/// The most bytes an announcement may take.
pub const LIMIT: usize = 256;
const FORMAT: u8 = 1;

/// A receive key and what may be sealed with it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announcement {
    format: u8,
    /// Random, drawn when the router starts.
    pub boot: u64,
    /// Higher than that of every earlier announcement of this boot.
    pub generation: u64,
    /// The receiver index of datagrams sealed with this key.
    pub index: u32,
    /// The key.
    pub key: Key,
    /// What the receiver accepts.
    pub suites: Suites,
}

impl Announcement {
    /// A new announcement.
    pub fn new(boot: u64, generation: u64, index: u32, key: Key, suites: Suites) -> Self {
        Self { format: FORMAT, boot, generation, index, key, suites }
    }

    /// The bytes for the session.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Reads what a neighbour announced; `None` when it is malformed or of another format.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        codec::decode::<Self, LIMIT>(bytes).ok().filter(|read| read.format == FORMAT)
    }
}

impl std::fmt::Debug for Announcement {
    /// Leaves the key out.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { boot, generation, index, suites, .. } = self;
        write!(f, "Announcement {{ boot: {boot:x}, generation: {generation}, index: {index:x}, {suites:?} }}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_bytes_panic_the_decoder(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Announcement::decode(&bytes);
        }
    }

    #[test]
    fn an_announcement_survives_the_wire_whole_and_only_whole() {
        let sent = Announcement::new(u64::MAX, 2, u32::MAX, [255; 32], Suites::offered(true, true));
        let bytes = sent.encode();
        assert_eq!(Announcement::decode(&bytes), Some(sent));
        assert!((0..bytes.len()).all(|length| Announcement::decode(&bytes[..length]).is_none()));
        assert_eq!(Announcement::decode(&[bytes, vec![0]].concat()), None);
    }
}
