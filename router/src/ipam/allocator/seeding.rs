//! The first division of the range: when somebody needs it, and by the way that was configured.

use std::time::{Duration, Instant};

use weft_gossip::PeerName;

use super::{Allocator, Quiet};
use crate::ipam::{
    cluster::{Charter, seat, seeded},
    consensus::{Decree, Vote},
    contract::{InitMode, PeerKnowledge},
    pending::{Waiting, Wish},
    ring::Ring,
    wire::Body,
};

/// How long a proposer with a quorum waits for the promises of the others, so that they get a share too.
const GATHERING: Duration = Duration::from_millis(300);

/// How long a wish of a peer that does not vote keeps us trying.
const FOREIGN_DEMAND: Duration = Duration::from_secs(5);

/// A ballot that brings nothing after so many announcements is given up for a higher one.
const ANNOUNCEMENTS: u32 = 3;

/// Most peers of other ranges that a reason names.
const STRANGERS_NAMED: usize = 3;

/// Timers of the election; what was voted is in `Consensus`.
#[derive(Default, Debug)]
pub(super) struct Election {
    /// Another peer needs addresses, until then.
    foreign: Option<Instant>,
    /// When to announce, propose or call again.
    next: Option<Instant>,
    /// When the proposer stops waiting for promises beyond the quorum.
    gathered: Option<Instant>,
    announced: u32,
}

impl Allocator {
    pub(super) fn seed(&mut self, now: Instant) {
        if self.election.foreign.is_some_and(|until| until <= now) {
            self.election.foreign = None;
        }
        if self.cluster.is_some() || !self.is_demanded() {
            self.election = Election { foreign: self.election.foreign, ..Election::default() };
            return;
        }
        if self.ask_for_a_ring(now) {
            return;
        }
        match &self.config.init {
            InitMode::Seed(nicknames) => {
                if let Some(cluster) = seeded(self.range, nicknames) {
                    let ring = cluster.ring().clone();
                    self.found(cluster.charter, ring, now);
                    self.take_seat();
                }
            }
            InitMode::Consensus(_) => self.elect(now),
            InitMode::Observer => {
                if self.is_due(now, 800, 1200) {
                    self.broadcasts.push(Body::Demand);
                }
            }
        }
    }

    fn is_demanded(&self) -> bool {
        self.election.foreign.is_some()
            || self.pending.iter().any(|pending| !matches!(pending.wish, Wish::Leave))
    }

    pub(super) fn election_due(&self) -> Option<Instant> {
        if self.cluster.is_some() {
            return self.election.foreign;
        }
        let times = [self.election.foreign, self.election.next, self.election.gathered];
        times.into_iter().flatten().min()
    }

    fn is_due(&mut self, now: Instant, from: u64, to: u64) -> bool {
        let due = self.election.next.is_none_or(|next| next <= now);
        if due {
            self.election.next = Some(now + self.jitter(from, to));
        }
        due
    }

    /// Where a ring exists nobody seeds: it is on its way, or asked for again.
    fn ask_for_a_ring(&mut self, now: Instant) -> bool {
        let seeded = |peer: &&PeerName| self.headers.get(*peer).is_some_and(|header| header.ring.is_some());
        let reachable = self.peers.iter().filter(|(_, peer)| peer.reachable).map(|(name, _)| name);
        let Some(peer) = reachable.into_iter().find(seeded).copied() else { return false };
        if self.is_due(now, 400, 800) {
            self.send(peer, Body::Hello { reply: false });
        }
        self.election.gathered = None;
        true
    }

    /// How many electors there are, and how many of them are here now, this peer included if it votes.
    pub(super) fn electorate(&self) -> (usize, usize) {
        let me = usize::from(self.config.init != InitMode::Observer);
        let here = |name: &&PeerName| self.peers.get(*name).is_some_and(|peer| peer.reachable);
        let present = self.electors.iter().filter(here).count() + me;
        let guessed = (self.config.peers_given + me).max(self.electors.len() + me);
        match self.config.init {
            InitMode::Consensus(Some(given)) => (given.max(1), present),
            InitMode::Consensus(None) | InitMode::Seed(_) | InitMode::Observer => (guessed, present),
        }
    }

    fn quorum(&self) -> usize {
        self.electorate().0 / 2 + 1
    }

    /// Why the range cannot be divided now, if it cannot.
    pub(super) fn missing_quorum(&self) -> Option<String> {
        if let InitMode::Seed(nicknames) = &self.config.init {
            let empty = nicknames.is_empty().then(|| "a seed list with nicknames in it".to_owned());
            return empty.or_else(|| self.unseen_seeds());
        }
        if self.config.init == InitMode::Observer && self.electors.is_empty() {
            let reason = "an observer waits for a peer that seeds the range, and none has been seen";
            return Some(format!("{reason}{}", self.uncounted()));
        }
        let (electors, present) = self.electorate();
        let quorum = electors / 2 + 1;
        (present < quorum).then(|| {
            let uncounted = self.uncounted();
            format!(
                "{present} of {electors} peers are here, {quorum} are needed to divide the range{uncounted}"
            )
        })
    }

    /// Whom a peer without a seat waits for: as long as nobody has sat down there is nothing to get.
    pub(super) fn unseen_seeds(&self) -> Option<String> {
        let InitMode::Seed(nicknames) = &self.config.init else { return None };
        let met = |(name, peer): (&PeerName, &PeerKnowledge)| {
            nicknames.contains(&peer.nickname) && !self.strangers.contains_key(name)
        };
        if nicknames.contains(&self.nickname) || self.peers.iter().any(met) {
            return None;
        }
        let is_seat = |owner: &PeerName| nicknames.iter().any(|nickname| seat(nickname) == Some(*owner));
        let owners = self.cluster.as_ref().map(|cluster| cluster.ring().owners_in(self.range));
        if owners.is_some_and(|owners| !owners.keys().all(is_seat)) {
            return None;
        }
        let reason = match nicknames.as_slice() {
            [one] => format!("host {one}, which seeds the range, has not been seen"),
            many => format!("hosts {}, which seed the range, have not been seen", many.join(", ")),
        };
        Some(reason + &self.uncounted())
    }

    /// Who is here and does not count, in words to be appended.
    fn uncounted(&self) -> String {
        let present = self.strangers.iter().filter(|(name, _)| self.peers.contains_key(name));
        let named = present.take(STRANGERS_NAMED).map(|(name, range)| {
            let (peer, ours) = (self.call(*name), self.config.range);
            format!("; {peer} does not count, it uses the range {range}, we use {ours}")
        });
        named.collect()
    }

    fn elect(&mut self, now: Instant) {
        if self.missing_quorum().is_some() {
            (self.election.next, self.election.gathered) = (None, None);
            return;
        }
        if self.is_due(now, 500, 1000) {
            self.election.announced += 1;
            if self.consensus.ballot().is_none() || self.election.announced > ANNOUNCEMENTS {
                self.consensus.propose();
                self.election.announced = 1;
                self.election.gathered = None;
                self.must_persist = true;
            }
            self.announce();
        }
        self.fill_ballot(now);
        if let Some(decree) = self.consensus.decided(self.quorum()).cloned()
            && let Some(ring) = Ring::divided(self.range, &decree.members)
        {
            self.found(decree.charter, ring, now);
        }
    }

    fn announce(&mut self) {
        let vote = self.consensus.own().cloned().unwrap_or_default();
        self.broadcasts.push(Body::Vote(vote));
    }

    fn fill_ballot(&mut self, now: Instant) {
        let mut members = self.consensus.promised();
        if self.consensus.is_filled() || members.len() < self.quorum() {
            self.election.gathered = None;
            return;
        }
        let until = *self.election.gathered.get_or_insert(now + GATHERING);
        let here = |name: &&PeerName| self.peers.get(*name).is_some_and(|peer| peer.reachable);
        let complete = self.electors.iter().filter(here).all(|name| members.contains(name));
        if !complete && now < until {
            return;
        }
        self.election.gathered = None;
        members.sort_unstable();
        let charter = Charter::new(members.len(), self.me, self.draw());
        self.consensus.fill(Decree { charter, members });
        self.must_persist = true;
        self.announce();
    }

    fn found(&mut self, charter: Charter, ring: Ring, now: Instant) {
        let segments = ring.segments();
        self.adopt(charter, false, ring, now);
        self.quiet = self.quiet.filter(|quiet| matches!(quiet, Quiet::Moved(_)));
        self.broadcasts.push(Body::State(segments));
    }

    pub(super) fn hear_vote(&mut self, elector: PeerName, vote: &Vote, now: Instant) {
        if self.cluster.is_some() {
            self.repairs.enqueue(elector);
            return;
        }
        if !matches!(self.config.init, InitMode::Consensus(_)) {
            return;
        }
        if self.consensus.hear(elector, vote) {
            self.must_persist = true;
        }
        let is_proposal = vote.promised.is_some_and(|ballot| ballot.proposer == elector);
        if is_proposal {
            let own = self.consensus.own().cloned().unwrap_or_default();
            self.send(elector, Body::Vote(own));
            if self.consensus.ballot().is_none() {
                // Two who propose at once would go on outbidding each other.
                self.election.next = Some(now + self.jitter(700, 1400));
            }
        }
    }

    pub(super) fn hear_demand(&mut self, from: PeerName, now: Instant) {
        if self.cluster.is_some() {
            self.repairs.enqueue(from);
        } else if self.config.init != InitMode::Observer {
            if !self.is_demanded() {
                self.election.next = Some(now + self.jitter(0, 150));
            }
            self.election.foreign = Some(now + FOREIGN_DEMAND);
        }
    }

    pub(super) fn seeding_reason(&self) -> Waiting {
        let missing = self.missing_quorum();
        Waiting::Seeding(
            missing.unwrap_or_else(|| "the peers have not agreed on a division of the range".to_owned()),
        )
    }
}
