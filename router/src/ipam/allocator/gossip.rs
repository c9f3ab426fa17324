//! What comes from other allocators: whose ring it is, what of it counts, and who must be told more.
//!
//! Deltas keep rings equal as long as nothing is lost. What was lost is found by digests: each peer greets
//! newly reachable peers, and now and then a random one; where the digests differ, one side sends its whole
//! ring and gets back what the other knew better.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use rand::{RngExt, rngs::StdRng};
use weft_gossip::PeerName;

use super::{Allocator, Quiet};
use crate::ipam::{
    cluster::{Meeting, Summary},
    ring::{Ring, Segment},
    wire::{self, Body, Header, WireError},
};

/// Most peers whose headers and faults are kept.
const PEER_LIMIT: usize = 4096;

/// Whole rings go out no faster than this, however many peers appear at once: the first exchange usually
/// makes the others needless.
const REPAIR_PACE: Duration = Duration::from_millis(20);

/// How our ring relates to a peer's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Relation {
    /// Neither has one.
    Neither,
    /// Only we have one.
    OnlyOurs,
    /// Only they have one.
    OnlyTheirs,
    /// Both have one.
    Both(Meeting),
}

/// Peers whose ring may differ from ours, and the next greeting.
#[derive(Debug)]
pub(super) struct Repairs {
    queue: BTreeSet<PeerName>,
    not_before: Instant,
    greeting: Instant,
}

impl Repairs {
    pub(super) fn new(now: Instant, rng: &mut StdRng) -> Self {
        let greeting = now + Duration::from_millis(rng.random_range(3_000..7_000));
        Self { queue: BTreeSet::new(), not_before: now, greeting }
    }

    pub(super) fn enqueue(&mut self, peer: PeerName) {
        if self.queue.len() < PEER_LIMIT {
            self.queue.insert(peer);
        }
    }

    pub(super) fn due(&self, has_peers: bool) -> Option<Instant> {
        let repair = (!self.queue.is_empty()).then_some(self.not_before);
        repair.into_iter().chain(has_peers.then_some(self.greeting)).min()
    }
}

impl Allocator {
    pub(super) fn receive(&mut self, source: PeerName, bytes: &[u8], alone: bool, now: Instant) {
        let (header, body) = match wire::decode(bytes) {
            Ok(message) => message,
            Err(WireError::UnknownKind(_)) => return,
            Err(error @ (WireError::Empty | WireError::Malformed(_) | WireError::Segments)) => {
                self.fault(source, error.to_string());
                return;
            }
        };
        let author = header.author;
        if author == self.me || (alone && author != source) {
            return;
        }
        if header.range != self.config.range {
            self.electors.remove(&author);
            if self.strangers.len() < PEER_LIMIT || self.strangers.contains_key(&author) {
                self.strangers.insert(author, header.range);
            }
            self.fault(author, format!("uses the range {}, we use {}", header.range, self.config.range));
            return;
        }
        if self.strangers.remove(&author).is_some() {
            self.faults.remove(&author);
        }
        self.note(&header, now);
        let relation = self.relation(header.ring);
        match body {
            Body::Hello { reply } => self.hear_hello(author, &header, relation, reply),
            Body::State(segments) => self.hear_state(&header, &segments, relation, alone, now),
            Body::Delta { segments, removed } => {
                self.hear_segments(author, &segments, relation, now);
                if alone && relation == Relation::Both(Meeting::Same) {
                    self.heard_word(); // The answer to our whole ring: nothing better is known.
                }
                self.hear_removed(author, removed);
            }
            Body::Ask { nonce, goal } => self.answer(author, &header, relation, nonce, goal),
            Body::Grant { nonce, segments } => {
                if self.hear_segments(author, &segments, relation, now) {
                    self.asks.retain(|_, ask| ask.nonce != nonce);
                }
            }
            Body::Deny { nonce, denial, segments } => {
                self.hear_segments(author, &segments, relation, now);
                self.hear_denial(author, nonce, denial, now);
            }
            Body::Vote(vote) => self.hear_vote(author, &vote, now),
            Body::Demand => self.hear_demand(author, now),
            Body::Handover { nonce, segments } => {
                if self.hear_segments(author, &segments, relation, now) {
                    self.must_persist = true;
                    self.send(author, Body::Received { nonce });
                }
            }
            Body::Received { nonce } => self.hear_received(nonce),
        }
    }

    pub(super) fn fault(&mut self, peer: PeerName, reason: String) {
        if self.faults.len() < PEER_LIMIT || self.faults.contains_key(&peer) {
            self.faults.insert(peer, reason);
        }
    }

    /// Keeps the newest header of every peer.
    fn note(&mut self, header: &Header, now: Instant) {
        let author = header.author;
        if header.observer {
            self.electors.remove(&author);
        }
        if self.removed.get(&author).is_some_and(|removed| header.stamp.0 > *removed) {
            self.removed.remove(&author);
            self.lazily(now);
        }
        if let Some(cluster) = &mut self.cluster
            && let Some(theirs) = header.ring
            && theirs.charter == cluster.charter
            && theirs.used
            && !cluster.used
        {
            cluster.used = true;
            self.lazily(now);
        }
        let known = self.headers.get(&author);
        let newer = known.is_none_or(|known| header.stamp > known.stamp);
        if newer && (known.is_some() || self.headers.len() < PEER_LIMIT) {
            self.headers.insert(author, header.clone());
        }
    }

    pub(super) fn relation(&self, theirs: Option<Summary>) -> Relation {
        match (&self.cluster, theirs) {
            (None, None) => Relation::Neither,
            (Some(_), None) => Relation::OnlyOurs,
            (None, Some(_)) => Relation::OnlyTheirs,
            (Some(ours), Some(theirs)) => Relation::Both(ours.summary().meet(&theirs)),
        }
    }

    fn hear_hello(&mut self, author: PeerName, header: &Header, relation: Relation, reply: bool) {
        let equal = header.ring.map(|ring| (ring.digest, ring.used))
            == self.cluster.as_ref().map(|cluster| (cluster.summary().digest, cluster.used));
        match relation {
            Relation::Both(Meeting::Same) if equal => self.heard_word(),
            Relation::Neither | Relation::Both(Meeting::Split) => {}
            Relation::OnlyOurs | Relation::OnlyTheirs | Relation::Both(_) => self.repairs.enqueue(author),
        }
        if reply {
            self.send(author, Body::Hello { reply: false });
        }
    }

    fn heard_word(&mut self) {
        self.quiet = self.quiet.filter(|quiet| !matches!(quiet, Quiet::ForWord(_)));
    }

    fn hear_state(
        &mut self,
        header: &Header,
        segments: &[Segment],
        relation: Relation,
        alone: bool,
        now: Instant,
    ) {
        let author = header.author;
        let unwanted =
            |charter| self.preferred.is_some_and(|(wanted, until)| now < until && wanted != charter);
        match (relation, header.ring) {
            (Relation::OnlyTheirs, Some(theirs)) if unwanted(theirs.charter) => {}
            (Relation::OnlyTheirs | Relation::Both(Meeting::TheirsStays), Some(theirs)) => {
                match Ring::from_segments(self.range, segments) {
                    Ok(ring) => self.adopt(theirs.charter, theirs.used, ring, now),
                    Err(error) => self.fault(author, error.to_string()),
                }
            }
            (Relation::Both(Meeting::Same), _) => {
                let merged = self.hear_segments(author, segments, relation, now);
                if merged {
                    self.heard_word();
                }
                if merged && alone {
                    let cluster = self.cluster.as_ref();
                    let better = cluster.map_or_else(Vec::new, |ours| ours.ring().newer_than(segments));
                    self.send(author, Body::Delta { segments: better, removed: Vec::new() });
                }
            }
            (Relation::OnlyOurs | Relation::Both(Meeting::OursStays), _) => self.repairs.enqueue(author),
            (Relation::Neither | Relation::OnlyTheirs | Relation::Both(_), _) => {}
        }
    }

    /// Merges what a peer of our own cluster says; says whether it was sound.
    fn hear_segments(
        &mut self,
        author: PeerName,
        segments: &[Segment],
        relation: Relation,
        now: Instant,
    ) -> bool {
        match relation {
            Relation::Both(Meeting::Same) => match self.merge(segments, now) {
                Ok(()) => true,
                Err(error) => {
                    self.fault(author, error.to_string());
                    false
                }
            },
            Relation::Neither | Relation::Both(Meeting::Split) => false,
            Relation::OnlyOurs | Relation::OnlyTheirs | Relation::Both(_) => {
                self.repairs.enqueue(author);
                false
            }
        }
    }

    /// Sends a peer our ring, or greets it so that it sends us its own; one peer at a time.
    pub(super) fn repair(&mut self, now: Instant) {
        if self.repairs.greeting <= now {
            self.repairs.greeting = now + self.jitter(3_000, 7_000);
            if let Some(peer) = self.choose_greeted() {
                self.send(peer, Body::Hello { reply: true });
            }
        }
        while self.repairs.not_before <= now {
            let Some(peer) = self.repairs.queue.pop_first() else { return };
            let theirs = self.headers.get(&peer).and_then(|header| header.ring);
            let body = match self.relation(theirs) {
                Relation::Neither | Relation::Both(Meeting::Split) => continue,
                Relation::Both(Meeting::Same)
                    if theirs == self.cluster.as_ref().map(|ours| ours.summary()) =>
                {
                    continue;
                }
                Relation::OnlyTheirs | Relation::Both(Meeting::TheirsStays) => Body::Hello { reply: false },
                Relation::OnlyOurs | Relation::Both(Meeting::Same | Meeting::OursStays) => {
                    let cluster = self.cluster.as_ref();
                    Body::State(cluster.map_or_else(Vec::new, |ours| ours.ring().segments()))
                }
            };
            self.send(peer, body);
            self.repairs.not_before = now + REPAIR_PACE;
        }
    }

    /// Says to everyone which ring is ours now: whether frames may pass depends on it.
    pub(super) fn announce_ring(&mut self) {
        self.broadcasts.push(Body::Delta { segments: Vec::new(), removed: Vec::new() });
    }

    /// Whom to greet next: anybody, but every other time one who seems to have another ring or none.
    fn choose_greeted(&mut self) -> Option<PeerName> {
        let ours = self.cluster.as_ref().map(|cluster| cluster.charter);
        let strange = |name: &PeerName| {
            let theirs = self.headers.get(name).and_then(|header| header.ring);
            theirs.map(|ring| ring.charter) != ours
        };
        let reachable = self.peers.iter().filter(|(_, peer)| peer.reachable).map(|(name, _)| *name);
        let (strangers, others): (Vec<_>, Vec<_>) = reachable.partition(strange);
        let all = strangers.len() + others.len();
        let from = if self.rng.random_bool(0.5) && !strangers.is_empty() { strangers.len() } else { all };
        let index = (from > 0).then(|| self.rng.random_range(0..from))?;
        strangers.into_iter().chain(others).nth(index)
    }

    /// Says who we are, and asks back where we do not know.
    pub(super) fn greet(&mut self, peer: PeerName) {
        let reply = !self.headers.contains_key(&peer);
        self.send(peer, Body::Hello { reply });
    }
}
