//! One peer of the model: the shipped `Ring` and `Space`, and the rules of the allocator around them.
//!
//! What the allocator does with timers is here a moment that may come at any time: `resting` is what was taken over
//! a moment ago, `quiet` the wait for word after a start. `heard` is no part of the protocol: it is the checker's note
//! of how many removals of an address word has reached this peer of.

use std::collections::{BTreeMap, BTreeSet};

use weft_gossip::PeerName;
use weft_router::ipam::{
    address::Span,
    ring::{Epoch, Holding, Ring, Segment},
    space::Space,
};

use super::rules::Rule;

/// The addresses of the model, a /30: two of them can be given out.
pub(crate) const SIZE: usize = 4;
const FIRST: u32 = 0x0a20_0000;

/// Of each address a number.
pub(crate) type PerAddress = [u8; SIZE];

pub(crate) fn range() -> Span {
    Span::new(FIRST, FIRST + 3).expect("the last address is above the first")
}

pub(crate) fn place(address: u32) -> usize {
    usize::try_from(address - FIRST).expect("a model of four addresses")
}

pub(crate) fn name(peer: usize) -> PeerName {
    PeerName::from_u64(u64::try_from(peer).expect("three peers") + 1)
}

/// A segment that can be put in order and hashed: first, last, owner, fence, grant.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct Piece(u32, u32, PeerName, u32, u32);

impl From<&Segment> for Piece {
    fn from(Segment { span, holding }: &Segment) -> Self {
        Self(span.first(), span.last(), holding.owner, holding.epoch.fence, holding.epoch.grant)
    }
}

impl Piece {
    fn segment(self) -> Segment {
        let Self(first, last, owner, fence, grant) = self;
        let span = Span::new(first, last).expect("it was a segment");
        Segment { span, holding: Holding { owner, epoch: Epoch { fence, grant } } }
    }
}

/// What a peer tells another: some of its ring, and the checker's note beside it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct News {
    pieces: Vec<Piece>,
    heard: PerAddress,
}

/// What survives a crash, and what does not.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Peer {
    me: usize,
    pub(crate) ring: Ring,
    pub(crate) heard: PerAddress,
    /// Whose container uses which address, and how many removals of it this peer had heard of by then.
    pub(crate) leases: BTreeMap<u32, u8>,
    /// Peers an operator removed here.
    removed: BTreeSet<usize>,
    pub(crate) resting: BTreeSet<Span>,
    pub(crate) quiet: bool,
    pub(crate) live: bool,
    /// The ring on disk, where it is older than the one in memory: only with `Rule::DiskFirst` broken.
    stale: Option<Ring>,
}

impl std::hash::Hash for Peer {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        let pieces = |ring: &Ring| ring.segments().iter().map(Piece::from).collect::<Vec<_>>();
        pieces(&self.ring).hash(state);
        self.stale.as_ref().map(pieces).hash(state);
        (self.heard, &self.leases, &self.removed, self.quiet, self.live).hash(state);
        self.resting.iter().for_each(|span| (span.first(), span.last()).hash(state));
    }
}

impl Peer {
    pub(crate) fn new(me: usize, ring: Ring) -> Self {
        Self {
            me,
            ring,
            heard: [0; SIZE],
            leases: BTreeMap::new(),
            removed: BTreeSet::new(),
            resting: BTreeSet::new(),
            quiet: false,
            live: true,
            stale: None,
        }
    }

    pub(crate) fn owns(&self, address: u32) -> bool {
        self.ring.owner_of(address) == Some(name(self.me))
    }

    /// What this peer may give out or away: what it owns, less what is used or rests.
    pub(crate) fn space(&self) -> Space {
        let owned = self.ring.owned_in(name(self.me), range());
        let leased = self.leases.keys().map(|address| Span::single(*address));
        Space::new(&owned, leased.chain(self.resting.iter().copied()))
    }

    /// The next address for a container of this host.
    pub(crate) fn next_address(&self) -> Option<u32> {
        self.space().lowest_in(range()).filter(|_| self.live && !self.quiet)
    }

    pub(crate) fn lease(&mut self, address: u32) {
        self.leases.insert(address, self.heard[place(address)]);
    }

    /// Gives to whoever asks for space; the changed segments go to it.
    pub(crate) fn give(&mut self, to: usize, broken: Option<Rule>) -> Option<News> {
        if self.quiet {
            return None;
        }
        match broken {
            Some(Rule::OnlyTheOwnerGives) => {
                // Whatever is not the asker's and not in use here, whoever the ring says owns it.
                let others = self.ring.segments().into_iter().filter(|one| one.holding.owner != name(to));
                let spans: Vec<Span> = others.map(|one| one.span).collect();
                let used = self.leases.keys().map(|address| Span::single(*address));
                let span = Space::new(&spans, used).donation(range())?;
                let owner = self.ring.owner_of(span.first())?;
                self.grant(span, owner, to, broken)
            }
            _ => self.grant(self.space().donation(range())?, name(self.me), to, broken),
        }
    }

    /// Gives exactly one address back to a peer whose container uses it, if it is free here.
    pub(crate) fn give_exactly(&mut self, address: u32, to: usize, broken: Option<Rule>) -> Option<News> {
        let free = self.space().contains(address);
        let span = Span::single(address);
        if free { self.grant(span, name(self.me), to, broken) } else { None }
    }

    fn grant(&mut self, span: Span, from: PeerName, to: usize, broken: Option<Rule>) -> Option<News> {
        let before = self.ring.clone();
        let changed = self.ring.grant(span, from, name(to)).ok()?;
        if broken == Some(Rule::DiskFirst) {
            self.stale.get_or_insert(before);
        }
        Some(self.news(&changed))
    }

    pub(crate) fn whole(&self) -> News {
        self.news(&self.ring.segments())
    }

    fn news(&self, segments: &[Segment]) -> News {
        News { pieces: segments.iter().map(Piece::from).collect(), heard: self.heard }
    }

    /// Takes over all that a peer owned, as far as is known here.
    pub(crate) fn remove(&mut self, gone: usize, broken: Option<Rule>) -> News {
        self.removed.insert(gone);
        let changed = self.take_over(gone, broken);
        self.news(&changed)
    }

    fn take_over(&mut self, gone: usize, broken: Option<Rule>) -> Vec<Segment> {
        let me = name(self.me);
        let changed = if broken == Some(Rule::Fences) {
            let spans = self.ring.owned_in(name(gone), range());
            let grants = spans.into_iter().filter_map(|span| self.ring.grant(span, name(gone), me).ok());
            grants.flatten().collect()
        } else {
            self.ring.take_over(name(gone), me)
        };
        for segment in &changed {
            for address in segment.span.first()..=segment.span.last() {
                self.heard[place(address)] += 1;
            }
            if broken != Some(Rule::Rests) {
                self.resting.insert(segment.span);
            }
        }
        changed
    }

    /// Merges what another peer says; `live` tells who could be met now.
    pub(crate) fn hear(&mut self, news: &News, live: &[bool], broken: Option<Rule>) {
        let segments: Vec<Segment> = news.pieces.iter().map(|piece| piece.segment()).collect();
        let taken = self.ring.merge(&segments).expect("what a peer's ring says is well formed");
        for Segment { span, .. } in &segments {
            for address in span.first()..=span.last() {
                let heard = &mut self.heard[place(address)];
                *heard = (*heard).max(news.heard[place(address)]);
            }
        }
        self.quiet = false;
        self.resting.retain(|span| self.ring.owner_of(span.first()) == Some(name(self.me)));
        self.stale = None;
        let ghosts: BTreeSet<usize> = (0..live.len())
            .filter(|peer| taken.iter().any(|one| one.holding.owner == name(*peer)))
            .filter(|peer| self.removed.contains(peer) && !live[*peer])
            .collect();
        for ghost in ghosts {
            self.take_over(ghost, broken);
        }
    }

    /// The process ends; memory is lost.
    pub(crate) fn crash(&mut self) {
        self.live = false;
        self.resting.clear();
        if let Some(stale) = self.stale.take() {
            self.ring = stale;
        }
    }

    /// It starts with what is on disk, and waits for word where others own something too.
    pub(crate) fn start(&mut self) {
        self.live = true;
        self.quiet = true;
    }

    /// A peer that is back is removed no more.
    pub(crate) fn meet(&mut self, other: usize) {
        self.removed.remove(&other);
    }
}
