//! What allocators say to each other: one kind byte, then header and body by the shared codec.
//!
//! | kind | travels | says |
//! |---|---|---|
//! | hello | unicast | who I am, which ring I have; `reply` asks for the same |
//! | state | gossip, unicast | the whole ring; replaces, repairs or founds |
//! | delta | gossip, unicast | changed segments, and peers removed for good |
//! | ask | unicast | give me space in this subnet, or exactly this address |
//! | grant, deny | unicast | the answer to an ask |
//! | vote, demand | gossip, unicast | the election of the first division |
//! | handover, received | unicast | a leaving peer's addresses, and the thanks |
//!
//! A kind that is not known is skipped, so versions can be mixed.

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use weft_gossip::{PeerName, codec};

use super::{
    address::Span,
    cluster::{Charter, Summary},
    consensus::Vote,
    ring::{Epoch, Holding, Segment},
};

/// Most memory a message may claim while it is decoded.
const LIMIT: usize = 16 << 20;

/// Goes before every body.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Header {
    /// Who wrote it, whoever carried it here.
    pub author: PeerName,
    /// Orders the headers of one author: start of the router, then message.
    pub stamp: (u64, u64),
    /// The author's range; another range than ours is no business of ours.
    pub range: Ipv4Net,
    /// Whether the author never votes.
    pub observer: bool,
    /// The author's ring, if it has one.
    pub ring: Option<Summary>,
    /// A hint, not ownership: how many idle addresses the author has.
    pub idle: u64,
}

/// What an ask is for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub enum Goal {
    /// Some space in a subnet.
    Within(Span),
    /// This address and no other.
    Exactly(u32),
}

impl Goal {
    /// The addresses it is about.
    pub fn span(self) -> Span {
        match self {
            Self::Within(span) => span,
            Self::Exactly(address) => Span::single(address),
        }
    }
}

/// Why an ask got nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Denial {
    /// Nothing idle there.
    Empty,
    /// The address is in use here.
    InUse,
    /// Not just now; ask again shortly.
    Later,
    /// It is not mine any more: see the segments.
    NotMine,
}

/// The message proper.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Body {
    /// The header is the message.
    Hello {
        /// Whether a hello is wanted back.
        reply: bool,
    },
    /// The whole ring; empty while there is none.
    State(Vec<Segment>),
    /// What changed.
    Delta {
        /// Changed segments.
        segments: Vec<Segment>,
        /// Peers an operator removed.
        removed: Vec<PeerName>,
    },
    /// A wish.
    Ask {
        /// Marks the wish, so that a repeated one is not granted twice.
        nonce: u64,
        /// What for.
        goal: Goal,
    },
    /// A wish fulfilled.
    Grant {
        /// The wish.
        nonce: u64,
        /// What now belongs to whoever asked.
        segments: Vec<Segment>,
    },
    /// A wish refused.
    Deny {
        /// The wish.
        nonce: u64,
        /// Why.
        denial: Denial,
        /// The ring there, when the two sides saw it differently.
        segments: Vec<Segment>,
    },
    /// The author's vote.
    Vote(Vote),
    /// Somebody needs addresses: electors, please.
    Demand,
    /// Everything a leaving peer owned.
    Handover {
        /// Marks it.
        nonce: u64,
        /// What now belongs to the heir.
        segments: Vec<Segment>,
    },
    /// The handover with this mark is safe.
    Received {
        /// The mark.
        nonce: u64,
    },
}

/// Why a message was dropped.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// Not even a kind.
    #[error("empty message")]
    Empty,
    /// From a later version; skipped.
    #[error("unknown kind {0}")]
    UnknownKind(u8),
    /// The bytes do not decode.
    #[error("malformed: {0}")]
    Malformed(#[from] codec::DecodeError),
    /// The segments do not unpack.
    #[error("malformed segments")]
    Segments,
}

/// Segments as they travel: owners once, then gaps and lengths, about six bytes a segment.
#[derive(Serialize, Deserialize)]
struct Packed {
    owners: Vec<PeerName>,
    /// Gap since the end of the last, addresses beyond the first, owner, fence, grant.
    segments: Vec<(u32, u32, u32, u32, u32)>,
}

fn pack(segments: &[Segment]) -> Packed {
    let mut owners: Vec<PeerName> = segments.iter().map(|segment| segment.holding.owner).collect();
    owners.sort_unstable();
    owners.dedup();
    let mut next = 0_u32;
    let mut packed = Vec::with_capacity(segments.len());
    for Segment { span, holding } in segments {
        let owner = owners.partition_point(|owner| *owner < holding.owner);
        let gap = span.first().wrapping_sub(next);
        let owner = u32::try_from(owner).unwrap_or(u32::MAX);
        packed.push((gap, span.last() - span.first(), owner, holding.epoch.fence, holding.epoch.grant));
        next = span.last().wrapping_add(1);
    }
    Packed { owners, segments: packed }
}

fn unpack(packed: &Packed) -> Result<Vec<Segment>, WireError> {
    let mut next = 0_u32;
    let mut segments = Vec::with_capacity(packed.segments.len());
    for (gap, more, owner, fence, grant) in &packed.segments {
        let first = next.wrapping_add(*gap);
        let span = first.checked_add(*more).and_then(|last| Span::new(first, last));
        let owner = usize::try_from(*owner).ok().and_then(|index| packed.owners.get(index));
        let (Some(span), Some(owner)) = (span, owner) else { return Err(WireError::Segments) };
        let epoch = Epoch { fence: *fence, grant: *grant };
        segments.push(Segment { span, holding: Holding { owner: *owner, epoch } });
        next = span.last().wrapping_add(1);
    }
    Ok(segments)
}

fn framed<T: Serialize>(kind: u8, header: &Header, body: &T) -> Vec<u8> {
    let mut bytes = vec![kind];
    bytes.extend(codec::encode(&(header, body)));
    bytes
}

/// Writes a message.
pub fn encode(header: &Header, body: &Body) -> Vec<u8> {
    match body {
        Body::Hello { reply } => framed(1, header, reply),
        Body::State(segments) => framed(2, header, &pack(segments)),
        Body::Delta { segments, removed } => framed(3, header, &(pack(segments), removed)),
        Body::Ask { nonce, goal } => framed(4, header, &(nonce, goal)),
        Body::Grant { nonce, segments } => framed(5, header, &(nonce, pack(segments))),
        Body::Deny { nonce, denial, segments } => framed(6, header, &(nonce, denial, pack(segments))),
        Body::Vote(vote) => framed(7, header, vote),
        Body::Demand => framed(8, header, &()),
        Body::Handover { nonce, segments } => framed(9, header, &(nonce, pack(segments))),
        Body::Received { nonce } => framed(10, header, nonce),
    }
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<(Header, T), WireError> {
    Ok(codec::decode::<(Header, T), LIMIT>(bytes)?)
}

/// Reads a message.
///
/// # Errors
/// It is of an unknown kind or malformed; nothing of it may be used.
pub fn decode(bytes: &[u8]) -> Result<(Header, Body), WireError> {
    let (kind, rest) = bytes.split_first().ok_or(WireError::Empty)?;
    Ok(match kind {
        1 => parse(rest).map(|(header, reply)| (header, Body::Hello { reply }))?,
        2 => {
            let (header, packed) = parse(rest)?;
            (header, Body::State(unpack(&packed)?))
        }
        3 => {
            let (header, (packed, removed)) = parse(rest)?;
            (header, Body::Delta { segments: unpack(&packed)?, removed })
        }
        4 => parse(rest).map(|(header, (nonce, goal))| (header, Body::Ask { nonce, goal }))?,
        5 => {
            let (header, (nonce, packed)) = parse(rest)?;
            (header, Body::Grant { nonce, segments: unpack(&packed)? })
        }
        6 => {
            let (header, (nonce, denial, packed)) = parse(rest)?;
            (header, Body::Deny { nonce, denial, segments: unpack(&packed)? })
        }
        7 => parse(rest).map(|(header, vote)| (header, Body::Vote(vote)))?,
        8 => parse(rest).map(|(header, ())| (header, Body::Demand))?,
        9 => {
            let (header, (nonce, packed)) = parse(rest)?;
            (header, Body::Handover { nonce, segments: unpack(&packed)? })
        }
        10 => parse(rest).map(|(header, nonce)| (header, Body::Received { nonce }))?,
        unknown => return Err(WireError::UnknownKind(*unknown)),
    })
}

/// What must survive a crash; the shell writes it down when told to persist.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Snapshot {
    pub(super) me: PeerName,
    pub(super) range: Ipv4Net,
    pub(super) ring: Option<SavedRing>,
    pub(super) leases: Vec<(std::net::Ipv4Addr, String)>,
    pub(super) conflicts: Vec<(std::net::Ipv4Addr, String, PeerName)>,
    pub(super) vote: Option<Vote>,
    pub(super) electors: Vec<PeerName>,
    pub(super) removed: Vec<(PeerName, u64)>,
}

impl Snapshot {
    /// The ring, with its birth certificate; none before the first division.
    pub fn ring(&self) -> Option<(Charter, &[Segment])> {
        self.ring.as_ref().map(|ring| (ring.charter, ring.segments.as_slice()))
    }

    /// The addresses in use here, and by whom.
    pub fn leases(&self) -> &[(std::net::Ipv4Addr, String)] {
        &self.leases
    }
}

/// A ring on disk.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct SavedRing {
    pub(super) charter: Charter,
    pub(super) used: bool,
    pub(super) segments: Vec<Segment>,
}
