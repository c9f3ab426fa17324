//! What waits: commands that cannot be answered yet, and the asks sent to other owners on their behalf.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use weft_gossip::PeerName;

use super::{
    address::Span,
    contract::{IpamError, RequestId},
    ring::Segment,
};

/// Most commands that wait at once; the next one is refused.
pub(super) const PENDING_LIMIT: usize = 4096;

/// How long an owner has for an answer before the next one is asked.
pub(super) const ANSWER_TIME: Duration = Duration::from_millis(600);

/// How long to leave an owner alone that said "later".
pub(super) const LATER: Duration = Duration::from_millis(250);

/// How long a refusal is believed while the wish waits for somebody who is away.
pub(super) const REFUSAL_TIME: Duration = Duration::from_secs(2);

/// A command that waits.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) request: RequestId,
    pub(super) deadline: Instant,
    pub(super) wish: Wish,
    pub(super) waiting: Waiting,
}

/// What the command wants.
#[derive(Clone, Debug)]
pub(super) enum Wish {
    Allocate { id: String, within: Span },
    Claim { id: String, address: Ipv4Addr },
    Prime,
    Leave,
}

/// What it waits for, in words for people.
#[derive(Clone, Debug)]
pub(super) enum Waiting {
    Seeding(String),
    Somebody(String),
}

impl Waiting {
    /// What to answer when the deadline passes.
    pub(super) fn expired(self) -> IpamError {
        match self {
            Self::Seeding(reason) => IpamError::NotYet { reason },
            Self::Somebody(waiting_for) => IpamError::TimedOut { waiting_for },
        }
    }
}

/// A wish as other owners see it; commands with the same goal share one.
#[derive(Debug)]
pub(super) struct Ask {
    pub(super) nonce: u64,
    /// Who is asked now, and until when an answer is waited for.
    pub(super) outstanding: Option<(PeerName, Instant)>,
    /// How often each owner let the time pass.
    pub(super) tries: BTreeMap<PeerName, u32>,
    /// Who refused, and when.
    pub(super) refusals: BTreeMap<PeerName, Instant>,
    /// Who refused last time, though it may be asked again by now.
    pub(super) without: BTreeSet<PeerName>,
}

impl Ask {
    pub(super) fn new(nonce: u64) -> Self {
        Self {
            nonce,
            outstanding: None,
            tries: BTreeMap::new(),
            refusals: BTreeMap::new(),
            without: BTreeSet::new(),
        }
    }

    /// When to look at it again.
    pub(super) fn due(&self) -> Option<Instant> {
        let refusals = self.refusals.values().map(|at| *at + REFUSAL_TIME);
        self.outstanding.map(|(_, due)| due).or_else(|| refusals.min())
    }
}

/// A leaving peer's parcel, until the heir has thanked for it.
#[derive(Debug)]
pub(super) struct Parcel {
    pub(super) heir: PeerName,
    pub(super) nonce: u64,
    pub(super) segments: Vec<Segment>,
    pub(super) resend: Option<Instant>,
    pub(super) received: bool,
}
