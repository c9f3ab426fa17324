//! The addresses that are ours and idle, as runs: what can be given out or given away.

use std::collections::BTreeMap;

use super::address::Span;

/// Idle addresses of the ranges we own, as disjoint runs that do not touch.
#[derive(Clone, Default, Debug)]
pub struct Space {
    runs: BTreeMap<u32, u32>,
}

impl Space {
    /// Builds the space from what is owned, less what is taken (sorted or not).
    pub fn new(owned: &[Span], taken: impl Iterator<Item = Span>) -> Self {
        let mut space = Self::default();
        for span in owned {
            space.insert(*span);
        }
        for span in taken {
            space.remove(span);
        }
        space
    }

    /// Makes addresses idle.
    pub fn insert(&mut self, span: Span) {
        self.remove(span);
        let (mut first, mut last) = (span.first(), span.last());
        let before = self.runs.range(..first).next_back().map(|(start, end)| (*start, *end));
        if let Some((start, end)) = before
            && end.checked_add(1) == Some(first)
        {
            self.runs.remove(&start);
            first = start;
        }
        if let Some(end) = last.checked_add(1).and_then(|next| self.runs.remove(&next)) {
            last = end;
        }
        self.runs.insert(first, last);
    }

    /// Takes addresses out, whether or not they were idle.
    pub fn remove(&mut self, span: Span) {
        for run in self.runs_in(span) {
            let start = self.runs.range(..=run.first()).next_back().map(|(start, _)| *start);
            let Some(start) = start else { continue };
            let Some(end) = self.runs.remove(&start) else { continue };
            if let Some(left) = run.first().checked_sub(1).and_then(|last| Span::new(start, last)) {
                self.runs.insert(left.first(), left.last());
            }
            if let Some(right) = run.last().checked_add(1).and_then(|first| Span::new(first, end)) {
                self.runs.insert(right.first(), right.last());
            }
        }
    }

    /// The runs inside a span, cut to it.
    pub fn runs_in(&self, span: Span) -> Vec<Span> {
        let start = self.runs.range(..=span.first()).next_back().map_or(span.first(), |(start, _)| *start);
        let runs = self.runs.range(start..=span.last());
        runs.filter_map(|(first, last)| Span::new(*first, *last)?.intersection(span)).collect()
    }

    /// Whether the address is idle.
    pub fn contains(&self, address: u32) -> bool {
        self.runs.range(..=address).next_back().is_some_and(|(_, last)| address <= *last)
    }

    /// How many addresses of a span are idle.
    pub fn count_in(&self, span: Span) -> u64 {
        self.runs_in(span).iter().map(|run| run.size()).sum()
    }

    /// The lowest idle address that may be handed out of a subnet: never its first or last.
    pub fn lowest_in(&self, subnet: Span) -> Option<u32> {
        let interior = subnet.interior()?;
        let start = self.runs.range(..=interior.first()).next_back();
        let inside = start.filter(|(_, last)| **last >= interior.first()).map(|_| interior.first());
        inside.or_else(|| self.runs.range(interior.first()..=interior.last()).next().map(|(first, _)| *first))
    }

    /// What to give to somebody who asks for space in a subnet: a CIDR block, at most half of what is idle
    /// there, with something in it that can be handed out. The last single address is given as well.
    pub fn donation(&self, subnet: Span) -> Option<Span> {
        let interior = subnet.interior()?;
        let runs = self.runs_in(subnet);
        let idle: u64 = runs.iter().map(|run| run.size()).sum();
        let useful = |block: Span| block.intersection(interior).is_some();
        let blocks = runs.into_iter().filter_map(|run| {
            let block = run.largest_block();
            if useful(block) { Some(block) } else { run.intersection(interior).map(Span::largest_block) }
        });
        let mut block = blocks.max_by_key(|block| (block.size(), block.first()))?;
        while block.size() * 2 > idle {
            let Some((lower, upper)) = block.halves() else { break };
            block = if useful(upper) { upper } else { lower };
        }
        Some(block)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn span(first: u32, last: u32) -> Span {
        Span::new(first, last).unwrap()
    }

    #[test]
    fn a_donor_of_everything_gives_the_upper_half() {
        let space = Space::new(&[span(0, 63)], std::iter::empty());
        assert_eq!(space.donation(span(0, 63)), Some(span(32, 63)));
    }

    #[test]
    fn the_last_address_is_given_but_never_a_useless_one() {
        assert_eq!(Space::new(&[span(5, 5)], std::iter::empty()).donation(span(0, 63)), Some(span(5, 5)));
        assert_eq!(Space::new(&[span(0, 0)], std::iter::empty()).donation(span(0, 63)), None);
        assert_eq!(Space::new(&[span(62, 63)], std::iter::empty()).donation(span(0, 63)), Some(span(62, 62)));
    }

    #[test]
    fn network_and_broadcast_addresses_are_never_handed_out() {
        let mut space = Space::new(&[span(0, 7)], std::iter::empty());
        let mut given = Vec::new();
        while let Some(address) = space.lowest_in(span(0, 7)) {
            given.push(address);
            space.remove(Span::single(address));
        }
        assert_eq!(given, [1, 2, 3, 4, 5, 6]);
    }

    proptest! {
        #[test]
        fn runs_behave_like_a_set_of_addresses(
            steps in prop::collection::vec((any::<bool>(), 0_u32..64, 0_u32..16), 0..60),
            subnet in (0_u32..60, 3_u32..40),
        ) {
            let mut space = Space::default();
            let mut model = BTreeSet::new();
            for (insert, first, extra) in steps {
                let run = span(first, first + extra);
                for address in first..=first + extra {
                    if insert { model.insert(address); } else { model.remove(&address); }
                }
                if insert { space.insert(run) } else { space.remove(run) }
            }
            let subnet = span(subnet.0, subnet.0 + subnet.1);
            for address in 0..100 {
                prop_assert_eq!(space.contains(address), model.contains(&address));
            }
            let interior = subnet.interior().unwrap();
            let lowest = model.range(interior.first()..=interior.last()).next().copied();
            prop_assert_eq!(space.lowest_in(subnet), lowest);
            let idle = model.range(subnet.first()..=subnet.last()).count() as u64;
            prop_assert_eq!(space.count_in(subnet), idle);
            match space.donation(subnet) {
                None => prop_assert_eq!(lowest, None),
                Some(block) => {
                    prop_assert!(block.size() == 1 || block.size() * 2 <= idle);
                    prop_assert_eq!(block.first() % u32::try_from(block.size()).unwrap(), 0);
                    prop_assert!((block.first()..=block.last()).all(|address| model.contains(&address)));
                    prop_assert!(block.intersection(interior).is_some());
                }
            }
        }
    }
}
