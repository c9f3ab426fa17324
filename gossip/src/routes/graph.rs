//! Who can reach whom, as rows of bits: what routes are computed from.

use std::collections::BTreeSet;

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
}

impl Graph {
    /// Takes links that both ends report, each one's sorted, and all of ours to `neighbours`.
    pub fn new<Links: AsRef<[PeerName]>>(
        me: PeerName,
        neighbours: &BTreeSet<PeerName>,
        others: impl IntoIterator<Item = (PeerName, Links)>,
    ) -> Self {
        let reported: Vec<_> = others.into_iter().filter(|(name, _)| *name != me).collect();
        let mut names: Vec<_> =
            reported.iter().map(|(name, _)| *name).chain(neighbours.iter().copied()).collect();
        names.push(me);
        names.sort_unstable();
        names.dedup();
        let words = names.len().div_ceil(64);
        let mut graph = Self { me, rows: vec![0; words * names.len()], words, names };
        for (name, links) in &reported {
            let Some(from) = graph.index(*name) else { continue };
            // Links are sorted as names are, so each is looked for only behind the one before.
            let mut behind = 0;
            for link in links.as_ref() {
                behind += graph.names[behind..].iter().take_while(|name| *name < link).count();
                if graph.names.get(behind) == Some(link) {
                    graph.set(from, behind);
                }
            }
        }
        graph.keep_mutual();
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

    fn has(&self, from: usize, to: usize) -> bool {
        self.rows[from * self.words + to / 64] & (1 << (to % 64)) != 0
    }

    fn keep_mutual(&mut self) {
        for from in 0..self.names.len() {
            self.clear(from, from);
            for to in ones(self.row(from)).collect::<Vec<_>>() {
                if !self.has(to, from) {
                    self.clear(from, to);
                }
            }
        }
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

/// The positions of the ones in a row of bits, ascending.
pub(super) fn ones(row: &[u64]) -> impl Iterator<Item = usize> {
    row.iter().enumerate().flat_map(|(word, bits)| {
        let mut left = *bits;
        std::iter::from_fn(move || {
            if left == 0 {
                return None;
            }
            let bit = left.trailing_zeros() as usize;
            left &= left - 1;
            Some(word * 64 + bit)
        })
    })
}
