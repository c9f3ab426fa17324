//! What two routers say before they know each other, and what they say of themselves once they do.
//!
//! The clear hello (both ways, 12 bytes, its layout fixed for ever):
//!
//! ```text
//!  0      4         6          8          12
//!  | WEFT | lowest  | highest  | features |      numbers big endian
//! ```
//!
//! Both hellos are the Noise prologue, so nobody can lower a version or strip a feature unseen. The
//! introduction travels sealed: the initiator's in its last handshake message, the responder's in the first
//! sealed message.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::event::ChannelName;
use crate::peer::{BootId, Incarnation, PeerName};

/// The length of a clear hello.
pub(crate) const HELLO_LENGTH: usize = 12;
const MAGIC: [u8; 4] = *b"WEFT";
/// The only version there is so far.
pub(crate) const VERSION: u16 = 1;

/// The clear hello: which versions and features one end has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hello {
    pub(crate) lowest: u16,
    pub(crate) highest: u16,
    pub(crate) features: u32,
}

/// Says why a hello leads nowhere.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HelloError {
    #[error("the far side is no weft router")]
    Magic,
    #[error("no common version: they speak {0} to {1}, we speak {2} to {3}")]
    Version(u16, u16, u16, u16),
}

impl Hello {
    /// What this build speaks.
    pub(crate) const OURS: Self = Self { lowest: VERSION, highest: VERSION, features: 0 };

    pub(crate) fn encode(self) -> [u8; HELLO_LENGTH] {
        let mut bytes = [0; HELLO_LENGTH];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4..6].copy_from_slice(&self.lowest.to_be_bytes());
        bytes[6..8].copy_from_slice(&self.highest.to_be_bytes());
        bytes[8..].copy_from_slice(&self.features.to_be_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8; HELLO_LENGTH]) -> Result<Self, HelloError> {
        let [m0, m1, m2, m3, l0, l1, h0, h1, f0, f1, f2, f3] = *bytes;
        if [m0, m1, m2, m3] != MAGIC {
            return Err(HelloError::Magic);
        }
        Ok(Self {
            lowest: u16::from_be_bytes([l0, l1]),
            highest: u16::from_be_bytes([h0, h1]),
            features: u32::from_be_bytes([f0, f1, f2, f3]),
        })
    }

    /// Says whether the first bytes can still become a hello, so that a port scan is dropped at its first byte.
    pub(crate) fn may_begin(bytes: &[u8]) -> bool {
        bytes.iter().zip(MAGIC).all(|(byte, magic)| *byte == magic)
    }

    /// The highest version both speak.
    pub(crate) fn common(self, theirs: Self) -> Result<u16, HelloError> {
        let version = self.highest.min(theirs.highest);
        if version >= self.lowest.max(theirs.lowest) {
            Ok(version)
        } else {
            Err(HelloError::Version(theirs.lowest, theirs.highest, self.lowest, self.highest))
        }
    }
}

/// Most bytes of a nickname or a site name.
pub(crate) const NAME_LIMIT: usize = 256;
/// Most endpoints a router advertises.
pub(crate) const ENDPOINT_LIMIT: usize = 16;
/// Most channels a router announces.
pub(crate) const CHANNEL_LIMIT: usize = 32;
/// Numbers above this are nobody's honest counter; refusing them keeps room to raise ours above any we take.
pub(crate) const COUNTER_LIMIT: u64 = 1 << 62;

/// What a router says of itself once the words are sealed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Introduction {
    pub(crate) name: PeerName,
    pub(crate) incarnation: Incarnation,
    pub(crate) boot: BootId,
    pub(crate) nickname: String,
    pub(crate) site: String,
    pub(crate) listen_port: u16,
    pub(crate) endpoints: Vec<SocketAddr>,
    pub(crate) channels: Vec<ChannelName>,
}

impl Introduction {
    /// Says whether every part is within its bounds.
    pub(crate) fn plausible(&self) -> bool {
        self.nickname.len() <= NAME_LIMIT
            && self.site.len() <= NAME_LIMIT
            && self.endpoints.len() <= ENDPOINT_LIMIT
            && self.channels.len() <= CHANNEL_LIMIT
            && self.incarnation.0 < COUNTER_LIMIT
    }
}

/// Most peers a refusal names to be dialled instead.
pub(crate) const INSTEAD_LIMIT: usize = 8;

/// Why a router that knows the secret is turned away all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum RefusalCode {
    Ourselves,
    Clone,
    Limit,
}

/// A refusal: the code for the machine, the words for people, and who may have room where we have none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Refusal {
    pub(crate) code: RefusalCode,
    pub(crate) text: String,
    /// Peers in reach, drawn at random, and where they listen: a stranger at the limit may know nobody but us.
    pub(crate) instead: Vec<(PeerName, Vec<SocketAddr>)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hello_is_these_twelve_bytes() {
        let hello = Hello { lowest: 1, highest: 2, features: 0x0102_0304 };
        assert_eq!(hello.encode(), [b'W', b'E', b'F', b'T', 0, 1, 0, 2, 1, 2, 3, 4]);
        assert_eq!(Hello::decode(&hello.encode()), Ok(hello));
    }

    #[test]
    fn mixed_versions_meet_at_the_highest_both_speak() {
        let speaks = |lowest, highest| Hello { lowest, highest, features: 0 };
        assert_eq!(speaks(1, 3).common(speaks(2, 5)), Ok(3));
        assert_eq!(speaks(2, 5).common(speaks(1, 3)), Ok(3));
        assert!(speaks(1, 2).common(speaks(3, 4)).is_err());
    }

    #[test]
    fn what_is_not_weft_is_known_from_its_first_byte() {
        assert!(Hello::may_begin(b"") && Hello::may_begin(b"WE"));
        assert!(!Hello::may_begin(b"G") && !Hello::may_begin(b"WEB"));
        assert_eq!(Hello::decode(b"GET / HTTP/1"), Err(HelloError::Magic));
    }
}
