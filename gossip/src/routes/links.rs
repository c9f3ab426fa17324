//! Who says it is linked with whom: all names in order, and rows of bits over them.
//!
//! A thousand lists of a thousand names would be eight megabytes and a millisecond's walk each time routes are
//! computed; as bits they are 125 kB, and which links both ends report is kept up to date with each change.

use std::collections::BTreeSet;

use super::bits::Bits;
use super::graph::Graph;
use crate::peer::PeerName;

/// The links that everybody reports, and those of them that both ends report.
#[derive(Debug, Clone, Default)]
pub(crate) struct Links {
    /// Sorted, so that the order of indices is the order of names.
    names: Vec<PeerName>,
    said: Vec<Bits>,
    mutual: Vec<Bits>,
}

impl Links {
    /// Most names that are kept, those included that only others speak of.
    const LIMIT: usize = 20_000;

    fn index(&self, name: PeerName) -> Option<usize> {
        self.names.binary_search(&name).ok()
    }

    /// Says whether `name` reports a link to `other`.
    pub(crate) fn has(&self, name: PeerName, other: PeerName) -> bool {
        let (Some(from), Some(to)) = (self.index(name), self.index(other)) else { return false };
        self.said[from].has(to)
    }

    /// How many links `name` reports.
    pub(crate) fn count(&self, name: PeerName) -> usize {
        self.index(name).map_or(0, |from| self.said[from].len())
    }

    /// The links that `name` reports, sorted.
    pub(crate) fn of(&self, name: PeerName) -> impl Iterator<Item = PeerName> {
        let row = self.index(name).map(|from| &self.said[from]);
        row.into_iter().flat_map(Bits::ones).map(|to| self.names[to])
    }

    /// Makes these, sorted, the links that `name` reports. At the limit names that nobody else spoke of are left out.
    pub(crate) fn replace(&mut self, name: PeerName, links: &[PeerName]) {
        self.make_known(name);
        links.iter().for_each(|link| self.make_known(*link));
        let Some(from) = self.index(name) else { return };
        let mut row = Bits::default();
        let mut behind = 0;
        for link in links {
            match self.names[behind..].binary_search(link) {
                Ok(at) => {
                    row.put(behind + at, true);
                    behind += at + 1;
                }
                Err(at) => behind += at,
            }
        }
        for to in self.said[from].differing(&row) {
            self.put(from, to, row.has(to));
        }
    }

    /// Adds links to those that `name` reports, and takes others away.
    pub(crate) fn change(&mut self, name: PeerName, added: &[PeerName], removed: &[PeerName]) {
        self.make_known(name);
        added.iter().for_each(|link| self.make_known(*link));
        let Some(from) = self.index(name) else { return };
        for (links, present) in [(removed, false), (added, true)] {
            for link in links {
                if let Some(to) = self.index(*link) {
                    self.put(from, to, present);
                }
            }
        }
    }

    /// The links that both ends report, and all of ours to `neighbours`.
    pub(crate) fn graph(&self, me: PeerName, neighbours: &BTreeSet<PeerName>) -> Graph {
        let mut unknown =
            neighbours.iter().chain([&me]).filter(|name| self.index(**name).is_none()).peekable();
        if unknown.peek().is_none() {
            return Graph::new(me, &self.names, &self.mutual, neighbours);
        }
        let mut more = self.clone();
        unknown.for_each(|name| more.insert(*name));
        Graph::new(me, &more.names, &more.mutual, neighbours)
    }

    fn put(&mut self, from: usize, to: usize, present: bool) {
        self.said[from].put(to, present);
        let both = present && from != to && self.said[to].has(from);
        self.mutual[from].put(to, both);
        self.mutual[to].put(from, both);
    }

    fn make_known(&mut self, name: PeerName) {
        if self.names.len() < Self::LIMIT {
            self.insert(name);
        }
    }

    fn insert(&mut self, name: PeerName) {
        let Err(at) = self.names.binary_search(&name) else { return };
        self.said.iter_mut().chain(&mut self.mutual).for_each(|row| row.make_gap(at));
        self.names.insert(at, name);
        self.said.insert(at, Bits::default());
        self.mutual.insert(at, Bits::default());
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn whatever_comes_in_whatever_order_the_links_are_those_said_last(
            says in proptest::collection::vec((0u64..90, proptest::collection::btree_set(0u64..90, 0..20), any::<bool>()), 1..60),
        ) {
            let (mut links, mut model) = (Links::default(), BTreeMap::<u64, BTreeSet<u64>>::new());
            for (name, said, whole) in says {
                let row = model.entry(name).or_default();
                let names: Vec<_> = said.iter().copied().map(PeerName::from_u64).collect();
                if whole {
                    links.replace(PeerName::from_u64(name), &names);
                    *row = said;
                } else {
                    let (added, removed) = names.split_at(names.len() / 2);
                    links.change(PeerName::from_u64(name), added, removed);
                    row.extend(added.iter().map(|name| name.as_u64()));
                    removed.iter().for_each(|name| { row.remove(&name.as_u64()); });
                }
            }
            for (name, said) in &model {
                let got: Vec<_> = links.of(PeerName::from_u64(*name)).map(PeerName::as_u64).collect();
                prop_assert_eq!(links.count(PeerName::from_u64(*name)), got.len());
                prop_assert_eq!(&got.into_iter().collect::<BTreeSet<_>>(), said);
            }
            for (from, one) in links.names.iter().enumerate() {
                for (to, two) in links.names.iter().enumerate() {
                    let both = from != to && links.has(*one, *two) && links.has(*two, *one);
                    prop_assert_eq!(links.mutual[from].has(to), both);
                }
            }
        }
    }
}
