//! Who owns which address: a map from every address of the range to a *holding*, kept as sorted tokens.
//!
//! ```text
//! token     10.32.0.0            10.32.0.64                10.32.0.96
//!           v                    v                         v
//!           [ host1, epoch 0.1 ) [ host2, epoch 0.2        ) [ host1, epoch 0.1 ...
//! ```
//!
//! A token holds up to the next one. Each address is one register whose value may only grow: the higher
//! epoch wins, and of equal epochs the lower name. A merge is therefore the maximum, address by address,
//! and so commutative, associative and idempotent whatever is lost, doubled or reordered. Only the owner
//! raises the grant number of what it owns; an operator who removes a dead peer raises the fence, which
//! outweighs any grant the dead peer may have made or will make.

use std::collections::BTreeMap;

use blake2::{Blake2s256, Digest};
use serde::{Deserialize, Serialize};
use weft_gossip::PeerName;

use super::address::Span;

/// Above this an epoch is taken for damage: nobody removes a peer or splits a block that often.
const EPOCH_LIMIT: u32 = 1 << 30;

/// How recent a holding is: first by fence, then by grant.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Epoch {
    /// How often an operator took the address from an owner who was gone.
    pub fence: u32,
    /// How often an owner gave the address away since.
    pub grant: u32,
}

impl Epoch {
    /// The epoch of a freshly divided range.
    pub const FIRST: Self = Self { fence: 0, grant: 1 };

    fn granted(self) -> Self {
        Self { grant: self.grant.saturating_add(1), ..self }
    }

    fn fenced(self) -> Self {
        Self { fence: self.fence.saturating_add(1), grant: 0 }
    }
}

/// Who owns an address, and since when.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Holding {
    /// The only peer that may give the address out or away.
    pub owner: PeerName,
    /// Which of two holdings is the later one.
    pub epoch: Epoch,
}

impl Holding {
    /// Whether this holding replaces the other when both are known.
    pub fn beats(&self, other: &Self) -> bool {
        (self.epoch, other.owner) > (other.epoch, self.owner)
    }
}

/// A run of addresses with one holding: what a delta consists of.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Segment {
    /// The addresses.
    pub span: Span,
    /// What holds for all of them.
    pub holding: Holding,
}

/// Why segments were refused; the ring is then as it was.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadRing {
    /// They do not follow each other.
    #[error("segments overlap or are out of order at {0}")]
    Disordered(Span),
    /// They speak of addresses outside the range.
    #[error("{0} lies outside the range")]
    Outside(Span),
    /// An epoch that no cluster reaches.
    #[error("the epoch of {0} is not believable")]
    Epoch(Span),
    /// A whole ring was expected.
    #[error("the segments do not cover the range")]
    Incomplete,
    /// Somebody else owns it.
    #[error("{0} is not ours to give")]
    NotOwner(Span),
}

/// The ownership of every address of a range.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ring {
    range: Span,
    /// Sorted, the first at the start of the range, no two neighbours equal: one form per content.
    tokens: BTreeMap<u32, Holding>,
}

impl Ring {
    /// Divides the range into equal shares, cut at CIDR boundaries as far as their number allows.
    ///
    /// The granule is the largest power of two that still leaves eight to a share, so shares differ by
    /// at most one granule, and two, four, eight ... peers get one CIDR block each.
    pub fn divided(range: Span, peers: &[PeerName]) -> Option<Self> {
        let count = u64::try_from(peers.len()).ok().filter(|count| *count > 0)?;
        let granule = 1_u64 << (range.size() / (count * 8)).max(1).ilog2();
        let granules = range.size() / granule;
        let mut tokens = BTreeMap::new();
        for (index, owner) in (0_u64..).zip(peers) {
            let start = u64::from(range.first()) + granules * index / count * granule;
            // Of shares without an address the last writer stands at the place of the next one.
            tokens.insert(u32::try_from(start).ok()?, Holding { owner: *owner, epoch: Epoch::FIRST });
        }
        let mut ring = Self { range, tokens };
        ring.join_equal_neighbours();
        Some(ring)
    }

    /// Rebuilds a ring from all of its segments.
    ///
    /// # Errors
    /// The segments do not cover the range exactly, in order and with believable epochs.
    pub fn from_segments(range: Span, segments: &[Segment]) -> Result<Self, BadRing> {
        check(range, segments)?;
        let covered: u64 = segments.iter().map(|segment| segment.span.size()).sum();
        if covered != range.size() {
            return Err(BadRing::Incomplete);
        }
        let tokens = segments.iter().map(|segment| (segment.span.first(), segment.holding)).collect();
        let mut ring = Self { range, tokens };
        ring.join_equal_neighbours();
        Ok(ring)
    }

    fn join_equal_neighbours(&mut self) {
        let mut last = None;
        self.tokens.retain(|_, holding| last.replace(*holding) != Some(*holding));
    }

    /// All segments in order.
    pub fn segments(&self) -> Vec<Segment> {
        self.segments_in(self.range)
    }

    /// The segments inside a span, cut to it.
    pub fn segments_in(&self, span: Span) -> Vec<Segment> {
        let Some(span) = span.intersection(self.range) else { return Vec::new() };
        let start = self.tokens.range(..=span.first()).next_back().map_or(span.first(), |(start, _)| *start);
        let mut tokens = self.tokens.range(start..=span.last()).peekable();
        let mut segments = Vec::new();
        while let Some((first, holding)) = tokens.next() {
            let last = tokens.peek().map_or(span.last(), |(next, _)| **next - 1);
            let cut = Span::new(*first, last).and_then(|whole| whole.intersection(span));
            segments.extend(cut.map(|span| Segment { span, holding: *holding }));
        }
        segments
    }

    /// Who owns the address; `None` outside the range.
    pub fn owner_of(&self, address: u32) -> Option<PeerName> {
        if !self.range.contains(address) {
            return None;
        }
        self.tokens.range(..=address).next_back().map(|(_, holding)| holding.owner)
    }

    /// What a peer owns inside a span.
    pub fn owned_in(&self, owner: PeerName, span: Span) -> Vec<Span> {
        let segments = self.segments_in(span).into_iter();
        segments.filter(|segment| segment.holding.owner == owner).map(|segment| segment.span).collect()
    }

    /// How many addresses each owner has inside a span.
    pub fn owners_in(&self, span: Span) -> BTreeMap<PeerName, u64> {
        let mut owners = BTreeMap::new();
        for segment in self.segments_in(span) {
            *owners.entry(segment.holding.owner).or_insert(0) += segment.span.size();
        }
        owners
    }

    /// Takes over whatever is newer and says what that was.
    ///
    /// # Errors
    /// Malformed segments change nothing.
    pub fn merge(&mut self, segments: &[Segment]) -> Result<Vec<Segment>, BadRing> {
        let news = self.news_in(segments)?;
        self.absorb(&news);
        Ok(news)
    }

    /// What of the given segments is newer than what is known.
    ///
    /// # Errors
    /// The segments are malformed.
    pub fn news_in(&self, segments: &[Segment]) -> Result<Vec<Segment>, BadRing> {
        check(self.range, segments)?;
        let mut news = Vec::new();
        for theirs in segments {
            for mine in self.segments_in(theirs.span) {
                if theirs.holding.beats(&mine.holding) {
                    news.push(Segment { span: mine.span, holding: theirs.holding });
                }
            }
        }
        Ok(news)
    }

    /// Takes over what was found to be news.
    pub fn absorb(&mut self, news: &[Segment]) {
        for segment in news {
            self.assign(*segment);
        }
    }

    /// What this ring knows better than the given segments, within what they cover.
    pub fn newer_than(&self, segments: &[Segment]) -> Vec<Segment> {
        let mut newer = Vec::new();
        for theirs in segments {
            newer.extend(
                self.segments_in(theirs.span).into_iter().filter(|mine| mine.holding.beats(&theirs.holding)),
            );
        }
        newer
    }

    /// Gives away what `from` owns, and says what changed.
    ///
    /// # Errors
    /// Not all of the span belongs to `from`.
    pub fn grant(&mut self, span: Span, from: PeerName, to: PeerName) -> Result<Vec<Segment>, BadRing> {
        let segments = self.segments_in(span);
        let covered: u64 = segments.iter().map(|segment| segment.span.size()).sum();
        if covered != span.size() || segments.iter().any(|segment| segment.holding.owner != from) {
            return Err(BadRing::NotOwner(span));
        }
        Ok(self.reassign(segments, to, Epoch::granted))
    }

    /// Takes everything from a peer that is gone, fenced against whatever it may still say.
    pub fn take_over(&mut self, from: PeerName, to: PeerName) -> Vec<Segment> {
        let segments = self.segments().into_iter();
        let lost = segments.filter(|segment| segment.holding.owner == from).collect();
        self.reassign(lost, to, Epoch::fenced)
    }

    /// Raises neighbouring segments of one owner to a common epoch, so that they become one again.
    ///
    /// Only the owner may do this, and only below one fence: raising a fence would undo a removal.
    pub fn compact(&mut self, owner: PeerName) -> Vec<Segment> {
        let mut changed = Vec::new();
        let mut run: Vec<Segment> = Vec::new();
        for segment in self.segments() {
            let joins =
                run.last().is_some_and(|last| last.holding.epoch.fence == segment.holding.epoch.fence);
            if segment.holding.owner != owner || !joins {
                changed.extend(raised(&run));
                run.clear();
            }
            if segment.holding.owner == owner {
                run.push(segment);
            }
        }
        changed.extend(raised(&run));
        for segment in &changed {
            self.assign(*segment);
        }
        changed
    }

    fn reassign(&mut self, segments: Vec<Segment>, to: PeerName, raise: fn(Epoch) -> Epoch) -> Vec<Segment> {
        let mut changed = segments;
        for segment in &mut changed {
            segment.holding = Holding { owner: to, epoch: raise(segment.holding.epoch) };
            self.assign(*segment);
        }
        changed
    }

    fn assign(&mut self, Segment { span, holding }: Segment) {
        if let Some(next) = span.last().checked_add(1).filter(|next| self.range.contains(*next))
            && let Some((_, after)) = self.tokens.range(..=next).next_back()
        {
            let after = *after;
            self.tokens.insert(next, after);
            if after == holding {
                self.tokens.remove(&next);
            }
        }
        let inside: Vec<u32> =
            self.tokens.range(span.first()..=span.last()).map(|(start, _)| *start).collect();
        for start in inside {
            self.tokens.remove(&start);
        }
        let before = self.tokens.range(..span.first()).next_back().map(|(_, holding)| *holding);
        if before != Some(holding) {
            self.tokens.insert(span.first(), holding);
        }
    }

    /// How many tokens it takes.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Never true: a ring covers its range.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// Eight bytes that differ when the content does.
    pub fn digest(&self) -> u64 {
        let mut hash = Blake2s256::new();
        let mut names: BTreeMap<PeerName, String> = BTreeMap::new();
        for (start, Holding { owner, epoch }) in &self.tokens {
            hash.update(start.to_be_bytes());
            hash.update(names.entry(*owner).or_insert_with(|| owner.to_string()));
            hash.update(epoch.fence.to_be_bytes());
            hash.update(epoch.grant.to_be_bytes());
        }
        hash.finalize().iter().take(8).fold(0, |value, byte| value << 8 | u64::from(*byte))
    }
}

/// One segment in place of several neighbours, at the highest of their epochs.
fn raised(run: &[Segment]) -> Option<Segment> {
    let (first, last) = (run.first()?, run.last()?);
    let epoch = run.iter().map(|segment| segment.holding.epoch).max()?;
    let span = Span::new(first.span.first(), last.span.last())?;
    (run.len() > 1).then_some(Segment { span, holding: Holding { owner: first.holding.owner, epoch } })
}

/// Segments from outside must be sorted, disjoint, inside the range and of believable epochs.
fn check(range: Span, segments: &[Segment]) -> Result<(), BadRing> {
    let mut last: Option<u32> = None;
    for Segment { span, holding } in segments {
        if span.first() > span.last() || last.is_some_and(|last| span.first() <= last) {
            return Err(BadRing::Disordered(*span));
        }
        if !range.covers(*span) {
            return Err(BadRing::Outside(*span));
        }
        if holding.epoch.fence >= EPOCH_LIMIT || holding.epoch.grant >= EPOCH_LIMIT {
            return Err(BadRing::Epoch(*span));
        }
        last = Some(span.last());
    }
    Ok(())
}
