//! Which cluster a ring belongs to, and what happens when two rings meet.
//!
//! Rings that were seeded apart have different charters and never merge. As long as nothing was given out
//! of one, it is *provisional* and gives way; when both are in use, the clusters are split for good.

use std::cmp::Reverse;

use blake2::{Blake2s256, Digest};
use serde::{Deserialize, Serialize};
use weft_gossip::PeerName;

use super::{address::Span, ring::Ring};

/// The birth certificate of a ring; equal charters mean equal first divisions.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Charter {
    /// How many peers divided the range: of two provisional rings the wider one stays.
    pub shares: Reverse<u32>,
    /// Who proposed the division: of two as wide, the one of the lower name stays.
    pub founder: PeerName,
    /// Drawn at random when the ring was founded, or derived from the seed list.
    pub id: u64,
}

impl Charter {
    /// The charter of a ring divided among so many peers.
    pub fn new(shares: usize, founder: PeerName, id: u64) -> Self {
        Self { shares: Reverse(u32::try_from(shares).unwrap_or(u32::MAX)), founder, id }
    }
}

/// What a peer says about its ring in every message.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Summary {
    /// Which ring it is.
    pub charter: Charter,
    /// Whether anything was ever given out of it; never goes back.
    pub used: bool,
    /// Differs when the ring's content does.
    pub digest: u64,
}

/// What follows when a ring meets another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Meeting {
    /// They are versions of one ring: merge.
    Same,
    /// Ours stays, theirs is dropped over there.
    OursStays,
    /// Theirs stays, ours is dropped.
    TheirsStays,
    /// Both are in use: neither can be dropped.
    Split,
}

/// A seeded ring with its charter.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// Which ring it is.
    pub charter: Charter,
    /// Whether anything was given out of it, as far as this peer knows.
    pub used: bool,
    ring: Ring,
    digest: u64,
}

impl Cluster {
    /// Joins a ring and its charter.
    pub fn new(charter: Charter, used: bool, ring: Ring) -> Self {
        let digest = ring.digest();
        Self { charter, used, ring, digest }
    }

    /// The ring to read.
    pub fn ring(&self) -> &Ring {
        &self.ring
    }

    /// Changes the ring and keeps the digest true.
    pub fn change<R>(&mut self, change: impl FnOnce(&mut Ring) -> R) -> R {
        let result = change(&mut self.ring);
        self.digest = self.ring.digest();
        result
    }

    /// What to say about it in messages.
    pub fn summary(&self) -> Summary {
        Summary { charter: self.charter, used: self.used, digest: self.digest }
    }
}

impl Summary {
    /// Decides what happens when this ring (ours) meets another; both ends come to matching answers.
    pub fn meet(&self, theirs: &Self) -> Meeting {
        if self.charter == theirs.charter {
            return Meeting::Same;
        }
        match (self.used, theirs.used) {
            (true, true) => Meeting::Split,
            (true, false) => Meeting::OursStays,
            (false, true) => Meeting::TheirsStays,
            (false, false) if self.charter < theirs.charter => Meeting::OursStays,
            (false, false) => Meeting::TheirsStays,
        }
    }
}

/// The place in a seeded ring that waits for the peer of that nickname.
///
/// `seed=` names peers by nickname before their names are known. The ring is divided among such seats, and
/// the peer whose nickname it is takes its seat as soon as it has the ring, so a seeded peer can give out
/// addresses without ever having met the others.
pub fn seat(nickname: &str) -> Option<PeerName> {
    format!("{:016x}", digest(&["seat", nickname])).parse().ok()
}

/// The ring that a seed list stands for: the same wherever the same list was given.
pub fn seeded(range: Span, nicknames: &[String]) -> Option<Cluster> {
    let mut sorted: Vec<&str> = nicknames.iter().map(String::as_str).collect();
    sorted.sort_unstable();
    sorted.dedup();
    let seats: Vec<PeerName> = sorted.iter().filter_map(|nickname| seat(nickname)).collect();
    let ring = Ring::divided(range, &seats)?;
    let text = range.to_string();
    let words: Vec<&str> = std::iter::once(text.as_str()).chain(sorted.iter().copied()).collect();
    let charter = Charter::new(seats.len(), *seats.iter().min()?, digest(&words));
    Some(Cluster::new(charter, false, ring))
}

fn digest(words: &[&str]) -> u64 {
    let mut hash = Blake2s256::new();
    for word in words {
        hash.update(word.as_bytes());
        hash.update([0]);
    }
    hash.finalize().iter().take(8).fold(0, |value, byte| value << 8 | u64::from(*byte))
}
