//! The messages of an established session, and the only place that knows their bytes.
//!
//! A message is one or more sealed records, each `flag ‖ chunk` in clear (flag 1: the last chunk of its
//! message). The joined chunks are an envelope and a body:
//!
//! ```text
//!  0         1      2        6
//!  | version | kind | length | body (bincode) … |
//! ```
//!
//! An unknown kind is skipped, so versions can be mixed; new kinds are appended, never renumbered.

use serde::{Deserialize, Serialize};

use crate::codec::{self, Blob, DecodeError};
use crate::event::ChannelName;
use crate::hello::{Introduction, Refusal};
use crate::peer::{BootId, Incarnation, PeerName};
use crate::topology::{Change, Records, Stamp};

/// Most bytes of one message with its envelope; a sender keeps below it, a receiver closes at more.
pub(crate) const MESSAGE_LIMIT: usize = 8 << 20;
/// Most bytes a decoded body may claim: records of ten thousand peers are far below.
const BODY_LIMIT: usize = 32 << 20;
/// The length of an envelope.
pub(crate) const ENVELOPE: usize = 6;
const ENVELOPE_VERSION: u8 = 1;

/// Who first sent a broadcast, and which one of theirs it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Origin {
    pub(crate) source: PeerName,
    pub(crate) incarnation: Incarnation,
    pub(crate) boot: BootId,
    pub(crate) sequence: u64,
}

/// Something that goes down its source's broadcast tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Broadcast {
    pub(crate) origin: Origin,
    pub(crate) hops: u8,
    pub(crate) channel: ChannelName,
    pub(crate) body: Blob,
}

/// Somebody's record changed; goes down the owner's broadcast tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Changed {
    pub(crate) hops: u8,
    pub(crate) change: Change,
}

/// Somebody learned these stamps by comparison: want what is newer there. Goes down the tree of `learner`, at
/// each hop once the entries are there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Have {
    pub(crate) learner: PeerName,
    pub(crate) stamps: Vec<(PeerName, Stamp)>,
}

/// What a routed message is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Purpose {
    /// The application's bytes.
    Application,
    /// The hash of the sender's state (empty: it has none): answer with yours if it differs.
    StateHash,
    /// The sender's full state: take it, and answer with yours if it differs.
    StateAsk,
    /// The sender's full state: take it.
    StateTell,
    /// Are you alive, and in which boot?
    Probe,
    /// The boot id of the sender.
    ProbeAnswer,
}

/// Something that goes hop by hop to one peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Routed {
    pub(crate) source: PeerName,
    pub(crate) destination: PeerName,
    pub(crate) hops: u8,
    pub(crate) purpose: Purpose,
    pub(crate) channel: ChannelName,
    pub(crate) body: Blob,
}

/// Everything one end can say to the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Message {
    Introduction(Introduction),
    Refused(Refusal),
    Ping(u64),
    Pong(u64),
    /// The hash over all stamps of the sender: answer with a digest if yours differs.
    TopologyHash([u8; 16]),
    /// All stamps of the sender: send what is newer with you, want what is newer there.
    Digest(Vec<(PeerName, Stamp)>),
    Have(Have),
    Want(Vec<PeerName>),
    Records(Records),
    Broadcast(Broadcast),
    Routed(Routed),
    Tell(Blob),
    Changed(Changed),
    /// As `TopologyHash`, between two that were in reach of each other all the time: what differs was told to all,
    /// and is on its way to them or will be repaired there too.
    RepairHash([u8; 16]),
}

impl Message {
    fn kind(&self) -> u8 {
        match self {
            Self::Introduction(_) => 1,
            Self::Refused(_) => 2,
            Self::Ping(_) => 3,
            Self::Pong(_) => 4,
            Self::TopologyHash(_) => 5,
            Self::Digest(_) => 6,
            Self::Have(_) => 7,
            Self::Want(_) => 8,
            Self::Records(_) => 9,
            Self::Broadcast(_) => 10,
            Self::Routed(_) => 11,
            Self::Tell(_) => 12,
            Self::Changed(_) => 13,
            Self::RepairHash(_) => 14,
        }
    }

    fn body(&self) -> Vec<u8> {
        match self {
            Self::Introduction(body) => codec::encode(body),
            Self::Refused(body) => codec::encode(body),
            Self::Ping(body) | Self::Pong(body) => codec::encode(body),
            Self::TopologyHash(body) | Self::RepairHash(body) => codec::encode(body),
            Self::Digest(body) => codec::encode(body),
            Self::Have(body) => codec::encode(body),
            Self::Want(body) => codec::encode(body),
            Self::Records(body) => codec::encode(body),
            Self::Broadcast(body) => codec::encode(body),
            Self::Routed(body) => codec::encode(body),
            Self::Tell(body) => codec::encode(body),
            Self::Changed(body) => codec::encode(body),
        }
    }

    /// The envelope and the body; none if that is more than a message may be.
    pub(crate) fn encode(&self) -> Option<Vec<u8>> {
        let body = self.body();
        let length = u32::try_from(body.len()).ok()?;
        if body.len() + ENVELOPE > MESSAGE_LIMIT {
            return None;
        }
        let mut bytes = Vec::with_capacity(ENVELOPE + body.len());
        bytes.extend_from_slice(&[ENVELOPE_VERSION, self.kind()]);
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(&body);
        Some(bytes)
    }

    /// Reads the body of a message of this kind; `None`: this build does not know the kind.
    pub(crate) fn decode(kind: u8, body: &[u8]) -> Result<Option<Self>, DecodeError> {
        fn of<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, DecodeError> {
            codec::decode::<T, BODY_LIMIT>(body)
        }
        Ok(Some(match kind {
            1 => Self::Introduction(of(body)?),
            2 => Self::Refused(of(body)?),
            3 => Self::Ping(of(body)?),
            4 => Self::Pong(of(body)?),
            5 => Self::TopologyHash(of(body)?),
            6 => Self::Digest(of(body)?),
            7 => Self::Have(of(body)?),
            8 => Self::Want(of(body)?),
            9 => Self::Records(of(body)?),
            10 => Self::Broadcast(of(body)?),
            11 => Self::Routed(of(body)?),
            12 => Self::Tell(of(body)?),
            13 => Self::Changed(of(body)?),
            14 => Self::RepairHash(of(body)?),
            _ => return Ok(None),
        }))
    }
}

/// What an envelope announces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Envelope {
    pub(crate) version: u8,
    pub(crate) kind: u8,
    pub(crate) length: usize,
}

impl Envelope {
    /// Reads an envelope; `None` while its bytes are not all there.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let [version, kind, l0, l1, l2, l3] = *bytes.first_chunk::<ENVELOPE>()?;
        let length = usize::try_from(u32::from_be_bytes([l0, l1, l2, l3])).ok()?;
        Some(Self { version, kind, length })
    }

    /// Says whether this build knows how the body of this version is to be read.
    pub(crate) fn readable(self) -> bool {
        self.version == ENVELOPE_VERSION
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_message_has_these_bytes() {
        assert_eq!(Message::Ping(5).encode().unwrap(), [1, 3, 0, 0, 0, 1, 5]);
        let tell = Message::Tell(Blob(b"ab".to_vec())).encode().unwrap();
        assert_eq!(tell, [1, 12, 0, 0, 0, 3, 2, b'a', b'b']);
        let origin = Origin {
            source: PeerName::from_u64(1),
            incarnation: Incarnation(2),
            boot: BootId(3),
            sequence: 4,
        };
        let channel = ChannelName::new("ipam");
        let bytes =
            Message::Broadcast(Broadcast { origin, hops: 9, channel, body: Blob(vec![7]) }).encode().unwrap();
        let body = [0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 9, b'i', b'p', b'a', b'm', 0, 0, 0, 0, 0, 0, 0, 0, 1, 7];
        assert_eq!(bytes[6..], body);
    }

    #[test]
    fn an_unknown_kind_is_no_error() {
        assert!(matches!(Message::decode(200, b"whatever"), Ok(None)));
    }

    #[test]
    fn what_is_longer_than_a_message_may_be_is_not_encoded() {
        assert!(Message::Tell(Blob(vec![0; MESSAGE_LIMIT])).encode().is_none());
    }

    proptest! {
        #[test]
        fn no_body_of_any_kind_makes_the_decoder_panic(
            kind in 0u8..18,
            body in proptest::collection::vec(any::<u8>(), 0..300),
        ) {
            if let Ok(Some(message)) = Message::decode(kind, &body) {
                prop_assert_eq!(message.kind(), kind);
            }
        }

        #[test]
        fn a_hostile_length_in_any_place_is_refused(kind in 5u8..15, prefix in 0usize..40, claim in any::<u64>()) {
            let mut body = vec![1; prefix];
            body.push(253); // "eight bytes of length follow"
            body.extend_from_slice(&(claim | 1 << 40).to_le_bytes());
            let _ = Message::decode(kind, &body);
        }
    }
}
