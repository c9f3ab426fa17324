//! Space changes hands: asking other owners for it, and answering when they ask.
//!
//! ```text
//! pending command                    owner with most idle space
//!   ask {nonce, goal}  ----------->  gives half of it away: ring raised, on disk
//!                      <-----------  grant {nonce, segments}      (and a delta to everyone)
//! merged, on disk, then used
//! ```
//!
//! No answer in time, or a refusal: the next owner. An owner who is away is not asked; the wish waits for
//! it, and only when every owner has refused there is nothing left.

use std::{cmp::Reverse, net::Ipv4Addr, time::Instant};

use weft_gossip::PeerName;

use super::{Allocator, Quiet, gossip::Relation};
use crate::ipam::{
    address::Span,
    cluster::Meeting,
    contract::{Holder, IpamError},
    pending::{ANSWER_TIME, Ask, LATER, REFUSAL_TIME},
    wire::{Body, Denial, Goal, Header},
};

/// Most segments sent along with a refusal; a ring that differs by more is repaired by digest.
const DENIAL_SEGMENTS: usize = 4096;

/// Where a goal stands.
#[derive(Debug)]
pub(super) enum Progress {
    /// Somebody may still give it; in words for people.
    Waiting(String),
    /// Nobody will.
    Failed(IpamError),
}

impl Allocator {
    /// Asks the next owner, if it is time to.
    pub(super) fn pursue(&mut self, goal: Goal, now: Instant) -> Progress {
        let nonce = self.draw();
        let mut ask = self.asks.remove(&goal).unwrap_or_else(|| Ask::new(nonce));
        let progress = self.pursue_ask(goal, &mut ask, now);
        if let Progress::Waiting(_) = progress {
            self.asks.insert(goal, ask);
        }
        progress
    }

    fn pursue_ask(&mut self, goal: Goal, ask: &mut Ask, now: Instant) -> Progress {
        let (here, away) = self.other_owners(goal.span());
        if let Some((peer, due)) = ask.outstanding {
            if here.contains(&peer) && now < due {
                return Progress::Waiting(self.hopes(ask, Some(peer), &away));
            }
            *ask.tries.entry(peer).or_insert(0) += 1;
            ask.outstanding = None;
        }
        ask.refusals.retain(|_, at| now < *at + REFUSAL_TIME);
        let idle = |peer: &PeerName| self.idle_of(*peer);
        let willing = here.iter().filter(|peer| !ask.refusals.contains_key(peer));
        let next =
            willing.min_by_key(|peer| (ask.tries.get(peer).copied(), Reverse(idle(peer)), **peer)).copied();
        if let Some(peer) = next {
            ask.outstanding = Some((peer, now + ANSWER_TIME));
            self.send(peer, Body::Ask { nonce: ask.nonce, goal });
            return Progress::Waiting(self.hopes(ask, Some(peer), &away));
        }
        if !away.is_empty() {
            return Progress::Waiting(self.hopes(ask, None, &away));
        }
        if self.is_settling(goal.span()) {
            return Progress::Waiting("addresses taken over a moment ago".to_owned());
        }
        Progress::Failed(match goal {
            Goal::Within(span) => IpamError::Exhausted { subnet: self.subnet_text(span) },
            Goal::Exactly(address) => self.conflict(address.into(), here.first().copied()),
        })
    }

    /// Who may still help, in words: owners that are away first, who had most when last heard before others;
    /// the one that is asked only if there is hope, or nobody else.
    fn hopes(&self, ask: &Ask, asked: Option<PeerName>, away: &[PeerName]) -> String {
        let mut hopes = Vec::new();
        if !away.is_empty() {
            let verb = if away.len() == 1 { "owns" } else { "own" };
            let mut away = away.to_vec();
            away.sort_by_key(|peer| Reverse(self.idle_of(*peer)));
            let names: Vec<String> = away.into_iter().map(|peer| self.call(peer)).collect();
            let names = names.join(", ");
            hopes.push(format!("{names} (unreachable, {verb} addresses that may be free)"));
        }
        let hopeless = |peer: &PeerName| ask.without.contains(peer) || self.idle_of(*peer) == 0;
        if let Some(peer) = asked.filter(|peer| away.is_empty() || !hopeless(peer)) {
            hopes.push(format!("an answer from {}", self.call(peer)));
        }
        hopes.join(", or ")
    }

    /// How many idle addresses a peer had when it was last heard; an unknown one may have any number.
    fn idle_of(&self, peer: PeerName) -> u64 {
        self.headers.get(&peer).map_or(u64::MAX, |header| header.idle)
    }

    /// The other owners in a span: those who can be asked now, and those who cannot.
    fn other_owners(&self, span: Span) -> (Vec<PeerName>, Vec<PeerName>) {
        let owners = self.cluster.as_ref().map(|cluster| cluster.ring().owners_in(span)).unwrap_or_default();
        owners.into_keys().filter(|owner| *owner != self.me).partition(|owner| {
            let same_ring = |header: &Header| {
                matches!(self.relation(header.ring), Relation::Both(Meeting::Same) | Relation::OnlyOurs)
            };
            self.peers.get(owner).is_some_and(|peer| peer.reachable)
                && self.headers.get(owner).is_none_or(same_ring)
        })
    }

    pub(super) fn conflict(&self, address: Ipv4Addr, owner: Option<PeerName>) -> IpamError {
        match owner {
            Some(name) => {
                let nickname = self.call(name);
                IpamError::Conflict { address, holder: Holder::Peer { name, nickname } }
            }
            None => IpamError::Refused(format!("{address} cannot be claimed: nobody is known to own it")),
        }
    }

    fn subnet_text(&self, span: Span) -> String {
        if span == self.range { self.config.range.to_string() } else { span.to_string() }
    }

    /// Answers a peer that asks for space.
    pub(super) fn answer(
        &mut self,
        from: PeerName,
        header: &Header,
        relation: Relation,
        nonce: u64,
        goal: Goal,
    ) {
        if relation != Relation::Both(Meeting::Same) {
            if !matches!(relation, Relation::Neither | Relation::Both(Meeting::Split)) {
                self.repairs.enqueue(from);
            }
            return;
        }
        if goal.span().first() > goal.span().last() || !self.range.covers(goal.span()) {
            self.fault(from, format!("asked for {}, outside the range", goal.span()));
            return;
        }
        if let Some((last, span)) = self.granted.get(&from)
            && *last == nonce
        {
            let given = self.cluster.as_ref().map(|cluster| cluster.ring().segments_in(*span));
            self.send(from, Body::Grant { nonce, segments: given.unwrap_or_default() });
            return;
        }
        match self.choose(goal) {
            Ok(span) => {
                let segments = self.give(span, from);
                self.granted.insert(from, (nonce, span));
                self.send(from, Body::Grant { nonce, segments });
            }
            Err(denial) => {
                let ours = self.cluster.as_ref().filter(|ours| Some(ours.summary()) != header.ring);
                let mut segments = ours.map_or_else(Vec::new, |ours| ours.ring().segments_in(goal.span()));
                segments.truncate(DENIAL_SEGMENTS);
                self.send(from, Body::Deny { nonce, denial, segments });
            }
        }
    }

    /// What to give for a goal, or why not.
    fn choose(&self, goal: Goal) -> Result<Span, Denial> {
        match (self.quiet, goal) {
            (None, _) | (Some(Quiet::Moved(_)), Goal::Exactly(_)) => {}
            (Some(_), _) => return Err(Denial::Later),
        }
        match goal {
            Goal::Exactly(address) if !self.owns(address) => Err(Denial::NotMine),
            Goal::Exactly(address) => {
                let edge = address == self.range.first() || address == self.range.last();
                match self.space.contains(address) {
                    true if !edge => Ok(Span::single(address)),
                    false if self.is_settling(Span::single(address)) => Err(Denial::Later),
                    true | false => Err(Denial::InUse),
                }
            }
            Goal::Within(span) => self.space.donation(span).ok_or(if self.is_settling(span) {
                Denial::Later
            } else {
                Denial::Empty
            }),
        }
    }

    pub(super) fn hear_denial(&mut self, from: PeerName, nonce: u64, denial: Denial, now: Instant) {
        let Some(ask) = self.asks.values_mut().find(|ask| ask.nonce == nonce) else { return };
        if ask.outstanding.map(|(peer, _)| peer) != Some(from) {
            return;
        }
        match denial {
            Denial::Empty | Denial::InUse => {
                ask.refusals.insert(from, now);
                ask.without.insert(from);
                ask.outstanding = None;
            }
            // An owner who says it is none is asked again only after a while: its word may lag behind the ring.
            Denial::Later | Denial::NotMine => ask.outstanding = Some((from, now + LATER)),
        }
    }
}
