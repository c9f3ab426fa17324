//! Single-decree Paxos: which peers divide the range, decided once.
//!
//! Every elector keeps one durable *vote* {promised ballot, accepted proposal} that only grows, so votes may
//! be lost, doubled and reordered: seeing the newest is enough. A proposer sends its own vote to
//! everyone; an elector that sees it promises (or accepts) and answers the proposer with its own.
//!
//! ```text
//! proposer                          electors
//! promised = (round, me)  ------->  promised = max
//!                         <-------  vote (with what was accepted before)
//! a quorum promised:
//! accepted = (ballot, value) ---->  accepted = the same, unless a higher ballot was promised
//!                         <-------  vote
//! a quorum accepted: decided, and the ring itself is the announcement
//! ```

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use weft_gossip::PeerName;

use super::cluster::Charter;

/// Most electors whose votes are kept; beyond that, votes are not looked at.
const ELECTOR_LIMIT: usize = 4096;

/// A numbered attempt; no two proposers share one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Ballot {
    /// Higher than any round the proposer had seen.
    pub round: u64,
    /// Whose attempt it is.
    pub proposer: PeerName,
}

/// What is decided.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Decree {
    /// The charter of the ring to be.
    pub charter: Charter,
    /// Who gets a share, sorted.
    pub members: Vec<PeerName>,
}

/// What one elector has promised and accepted.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct Vote {
    /// Nothing below this ballot will be accepted any more.
    pub promised: Option<Ballot>,
    /// The last proposal accepted.
    pub accepted: Option<(Ballot, Decree)>,
}

impl Vote {
    fn absorb(&mut self, newer: &Self) {
        self.promised = self.promised.max(newer.promised);
        let ballot = |vote: &Self| vote.accepted.as_ref().map(|(ballot, _)| *ballot);
        if ballot(newer) > ballot(self) {
            self.accepted.clone_from(&newer.accepted);
        }
    }
}

/// The votes as one elector has seen them, its own among them.
#[derive(Clone, Debug)]
pub struct Consensus {
    me: PeerName,
    votes: BTreeMap<PeerName, Vote>,
}

impl Consensus {
    /// Starts with a vote that survived a restart, or with none.
    pub fn new(me: PeerName, own: Option<Vote>) -> Self {
        Self { me, votes: own.map(|vote| (me, vote)).into_iter().collect() }
    }

    /// Our own vote: what must be on disk before anybody sees it.
    pub fn own(&self) -> Option<&Vote> {
        self.votes.get(&self.me)
    }

    /// Opens a ballot higher than any seen.
    pub fn propose(&mut self) {
        let highest = self.votes.values().filter_map(|vote| vote.promised).map(|ballot| ballot.round).max();
        let round = highest.unwrap_or(0).saturating_add(1);
        let promised = Some(Ballot { round, proposer: self.me });
        self.votes.entry(self.me).or_default().promised = promised;
    }

    /// Hears an elector's vote and, as an elector, follows it; says whether our own vote changed.
    pub fn hear(&mut self, elector: PeerName, vote: &Vote) -> bool {
        if elector == self.me || (self.votes.len() >= ELECTOR_LIMIT && !self.votes.contains_key(&elector)) {
            return false;
        }
        self.votes.entry(elector).or_default().absorb(vote);
        let own = self.votes.entry(self.me).or_default();
        let before = own.clone();
        own.promised = own.promised.max(vote.promised);
        if let Some((ballot, decree)) = &vote.accepted
            && ballot.proposer == elector
            && Some(*ballot) >= own.promised
            && own.accepted.as_ref().is_none_or(|(accepted, _)| accepted < ballot)
        {
            own.accepted = Some((*ballot, decree.clone()));
        }
        *own != before
    }

    /// Our own ballot that is still in the race.
    pub fn ballot(&self) -> Option<Ballot> {
        self.own()?.promised.filter(|ballot| ballot.proposer == self.me)
    }

    /// Who has promised our ballot.
    pub fn promised(&self) -> Vec<PeerName> {
        let Some(ballot) = self.ballot() else { return Vec::new() };
        let voters = self.votes.iter().filter(|(_, vote)| vote.promised == Some(ballot));
        voters.map(|(name, _)| *name).collect()
    }

    /// Whether our ballot has already been filled with a decree.
    pub fn is_filled(&self) -> bool {
        let ballot = self.ballot();
        let accepted = self.own().and_then(|vote| vote.accepted.as_ref());
        ballot.is_some() && accepted.map(|(accepted, _)| *accepted) == ballot
    }

    /// Fills our ballot after a quorum has promised it: with what a promiser accepted before, else with ours.
    pub fn fill(&mut self, ours: Decree) {
        let Some(ballot) = self.ballot() else { return };
        let promised = self.votes.values().filter(|vote| vote.promised == Some(ballot));
        let earlier = promised.filter_map(|vote| vote.accepted.clone()).max_by_key(|(ballot, _)| *ballot);
        let decree = earlier.map_or(ours, |(_, decree)| decree);
        self.votes.entry(self.me).or_default().accepted = Some((ballot, decree));
    }

    /// The decree that a quorum has accepted in one ballot.
    pub fn decided(&self, quorum: usize) -> Option<&Decree> {
        let mut counts: BTreeMap<Ballot, usize> = BTreeMap::new();
        for (ballot, decree) in self.votes.values().filter_map(|vote| vote.accepted.as_ref()) {
            let count = counts.entry(*ballot).or_insert(0);
            *count += 1;
            if *count >= quorum {
                return Some(decree);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(number: u64) -> PeerName {
        format!("{number:016x}").parse().unwrap()
    }

    fn decree(number: u64) -> Decree {
        Decree { charter: Charter::new(1, name(number), number), members: vec![name(number)] }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Propose(usize),
        Deliver { to: usize, letter: usize },
        Fill(usize),
        Restart(usize),
    }

    fn step(peers: usize) -> impl Strategy<Value = Step> {
        prop_oneof![
            1 => (0..peers).prop_map(Step::Propose),
            8 => (0..peers, any::<prop::sample::Index>()).prop_map(|(to, at)| Step::Deliver { to, letter: at.index(64) }),
            2 => (0..peers).prop_map(Step::Fill),
            1 => (0..peers).prop_map(Step::Restart),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(600))]

        /// Letters are never taken out of the box, so they may arrive late, often, or never.
        #[test]
        fn two_decrees_are_never_decided(
            peers in 2_usize..6,
            steps in prop::collection::vec(step(5), 1..200),
        ) {
            let quorum = peers / 2 + 1;
            let mut nodes: Vec<Consensus> = (0..peers).map(|at| Consensus::new(name(at as u64), None)).collect();
            let mut box_: Vec<(PeerName, Vote)> = Vec::new();
            let mut decided: Option<Decree> = None;
            for step in steps {
                let at = match &step {
                    Step::Propose(at) | Step::Fill(at) | Step::Restart(at) | Step::Deliver { to: at, .. } => at % peers,
                };
                let me = name(at as u64);
                match step {
                    Step::Propose(_) => nodes[at].propose(),
                    Step::Deliver { letter, .. } if !box_.is_empty() => {
                        let (from, vote) = box_[box_.len() - 1 - letter % box_.len()].clone();
                        nodes[at].hear(from, &vote);
                    }
                    Step::Deliver { .. } => {}
                    Step::Fill(_) => {
                        if !nodes[at].is_filled() && nodes[at].promised().len() >= quorum {
                            nodes[at].fill(decree(at as u64));
                        }
                    }
                    Step::Restart(_) => nodes[at] = Consensus::new(me, nodes[at].own().cloned()),
                }
                if let Some(vote) = nodes[at].own() && box_.last() != Some(&(me, vote.clone())) {
                    box_.push((me, vote.clone()));
                }
                for node in &nodes {
                    if let Some(found) = node.decided(quorum) {
                        let first = decided.get_or_insert_with(|| found.clone());
                        prop_assert_eq!(first, found);
                    }
                }
            }
        }
    }

    #[test]
    fn a_proposer_and_one_elector_of_three_decide() {
        let (mut one, mut two) = (Consensus::new(name(1), None), Consensus::new(name(2), None));
        one.propose();
        assert!(two.hear(name(1), one.own().unwrap()));
        one.hear(name(2), two.own().unwrap());
        assert_eq!(one.promised(), [name(1), name(2)]);
        one.fill(decree(1));
        assert!(two.hear(name(1), one.own().unwrap()));
        one.hear(name(2), two.own().unwrap());
        assert_eq!(one.decided(2), Some(&decree(1)));
    }
}
