//! Who can reach whom, as rows of bits: what routes are computed from.

use std::collections::BTreeSet;

use super::bits::{Bits, ones};
use crate::peer::PeerName;

/// The links that can carry something now, seen from one router.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Graph {
    pub(super) me: PeerName,
    /// Sorted, so that the order of indices is the order of names.
    pub(super) names: Vec<PeerName>,
    /// One row per name, one bit per name.
    rows: Vec<u64>,
    words: usize,
    /// Our neighbours to whom and from whom we pass nothing on.
    pub(super) quiet: BTreeSet<usize>,
}

impl Graph {
    /// Takes rows of links that both ends report, and all of ours to `neighbours`; `names` holds them all.
    pub(super) fn new(
        me: PeerName,
        names: &[PeerName],
        mutual: &[Bits],
        neighbours: &BTreeSet<PeerName>,
    ) -> Self {
        let words = names.len().div_ceil(64);
        let mut graph = Self {
            me,
            names: names.to_vec(),
            rows: vec![0; words * names.len()],
            words,
            quiet: BTreeSet::new(),
        };
        for (row, bits) in graph.rows.chunks_exact_mut(words.max(1)).zip(mutual) {
            let bits = bits.words();
            let length = bits.len().min(words);
            row[..length].copy_from_slice(&bits[..length]);
        }
        if let Some(here) = graph.index(me) {
            graph.isolate(here);
            for neighbour in neighbours.iter().filter(|neighbour| **neighbour != me) {
                if let Some(there) = graph.index(*neighbour) {
                    graph.set(here, there);
                    graph.set(there, here);
                }
            }
        }
        graph
    }

    /// The same graph, with neighbours of ours to whom and from whom we pass nothing on.
    pub(crate) fn quiet(mut self, quiet: &BTreeSet<PeerName>) -> Self {
        self.quiet = quiet.iter().filter_map(|name| self.index(*name)).collect();
        self
    }

    /// The same graph without the peers that `allowed` turns down (never ourselves).
    pub fn only(&self, allowed: impl Fn(PeerName) -> bool) -> Self {
        let mut graph = self.clone();
        for (index, name) in self.names.iter().enumerate() {
            if *name != self.me && !allowed(*name) {
                graph.isolate(index);
            }
        }
        graph
    }

    /// The same graph without some links.
    pub(crate) fn without_pairs(mut self, pairs: impl Iterator<Item = (PeerName, PeerName)>) -> Self {
        for (one, two) in pairs {
            if let (Some(here), Some(there)) = (self.index(one), self.index(two)) {
                self.clear(here, there);
                self.clear(there, here);
            }
        }
        self
    }

    /// The same graph without our links to the quiet ones.
    pub(super) fn without_quiet(&self, here: usize) -> Self {
        self.without_links(here, self.quiet.iter().copied())
    }

    /// The same graph without the links of one to these others.
    pub(super) fn without_links(&self, here: usize, others: impl Iterator<Item = usize>) -> Self {
        let mut graph = self.clone();
        for there in others {
            graph.clear(here, there);
            graph.clear(there, here);
        }
        graph
    }

    /// The same graph without the links of one.
    pub(super) fn without(&self, index: usize) -> Self {
        let mut graph = self.clone();
        graph.isolate(index);
        graph
    }

    pub(super) fn index(&self, name: PeerName) -> Option<usize> {
        self.names.binary_search(&name).ok()
    }

    pub(super) fn row(&self, index: usize) -> &[u64] {
        &self.rows[index * self.words..(index + 1) * self.words]
    }

    fn set(&mut self, from: usize, to: usize) {
        self.rows[from * self.words + to / 64] |= 1 << (to % 64);
    }

    fn clear(&mut self, from: usize, to: usize) {
        self.rows[from * self.words + to / 64] &= !(1 << (to % 64));
    }

    fn isolate(&mut self, index: usize) {
        for to in ones(self.row(index)).collect::<Vec<_>>() {
            self.clear(index, to);
        }
        for from in 0..self.names.len() {
            self.clear(from, index);
        }
    }
}
