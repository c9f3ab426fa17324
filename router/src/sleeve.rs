//! The carrier that is always there: frames sealed into UDP datagrams between neighbours.
//!
//! One [`link::Link`] per direct neighbour. A datagram (`packet.rs`) is sealed (`seal.rs`) with a key the receiver
//! announced over the session (`announcement.rs`, `keys.rs`, `replay.rs`) and carries pieces (`piece.rs`): frames or
//! parts of frames (`pack.rs` cuts, `join.rs` joins), heartbeats (`liveness.rs`) and path probes (`pmtu.rs`).
//!
//! ```text
//! 0        1           5                   13                                     length-16
//! ┌────────┬───────────┬───────────────────┬─────────┬─────────┬───── … ───────────┬──────────┐
//! │1│suite │ receiver  │ counter           │ piece   │ piece   │                   │ tag      │
//! └────────┴───────────┴───────────────────┴─────────┴─────────┴───── … ───────────┴──────────┘
//!  ╰─────── clear, authenticated ─────────╯ ╰───────────── sealed ────────────────╯
//!
//! a frame or part of one:  kind│flags 1 · length 2 · [source 8 · destination 8 · hops 1] ·
//!                          [frame id 4 · total 3 · offset 3] · [virtio header 10] · bytes
//! ```
//!
//! Since every frame can be cut to what the path takes, no ICMP "fragmentation needed" is ever made up here: a
//! container's MTU never depends on the path.

pub mod announcement;
pub mod join;
pub mod keys;
pub mod link;
pub mod liveness;
pub mod pack;
pub mod packet;
pub mod piece;
pub mod pmtu;
pub mod replay;
pub mod seal;

/// Why something a neighbour (or whoever pretends to be one) sent was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Refusal {
    /// Shorter than a header and a tag.
    Truncated,
    /// Another format, or an unknown suite.
    UnknownKind,
    /// No receive key has this index (any more).
    UnknownIndex,
    /// Not sealed, though this router has a secret.
    ClearRefused,
    /// A suite this key does not accept.
    SuiteRefused,
    /// Seen before, or too old to tell.
    Replayed,
    /// Not sealed with the key, or changed on its way.
    Forged,
    /// Authentic, but its pieces cannot be read.
    Malformed,
    /// Parts that contradict one another.
    PartRefused,
    /// An announcement that cannot be read.
    AnnouncementMalformed,
    /// An announcement that came before, or after a newer one.
    AnnouncementStale,
    /// An announcement by a peer without a link.
    AnnouncementUnexpected,
    /// An announcement whose suites this router does not accept: one end has a secret, the other has none.
    NoCommonSuite,
}

impl From<packet::HeaderError> for Refusal {
    fn from(error: packet::HeaderError) -> Self {
        match error {
            packet::HeaderError::Truncated => Self::Truncated,
            packet::HeaderError::Unknown => Self::UnknownKind,
        }
    }
}
