//! Routes: a pure function of the links, handed out as an immutable snapshot.
//!
//! All trees are breadth-first with the lower name first, so every peer that sees the same links computes the
//! same trees: a unicast gets nearer with each hop, and what goes down the tree of its source reaches every
//! peer exactly once.
//!
//! The trees of all sources grow at once, as in MS-BFS (Then et al., VLDB 2014): a row of bits per peer says which
//! sources are within so many hops of it, and one more hop is the union of its neighbours' rows. Of each tree only
//! the part at our own feet is looked at. A healthy (full) mesh is done after the first hop.

mod bits;
mod graph;
mod links;

use std::collections::{BTreeMap, BTreeSet};

use bits::ones;
pub use graph::Graph;
pub(crate) use links::Links;

use crate::peer::PeerName;

/// Where things go from here.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Routes {
    unicast: BTreeMap<PeerName, Hop>,
    broadcast: BTreeMap<PeerName, Vec<PeerName>>,
    upstream: BTreeMap<PeerName, PeerName>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Hop {
    next: PeerName,
    hops: u32,
}

impl Routes {
    /// Computes the routes of `me`, through and to allowed peers only.
    pub fn compute(graph: &Graph, me: PeerName, allowed: impl Fn(PeerName) -> bool) -> Self {
        if graph.names.iter().all(|name| *name == me || allowed(*name)) {
            Self::of(graph, me)
        } else {
            Self::of(&graph.only(allowed), me)
        }
    }

    fn of(graph: &Graph, me: PeerName) -> Self {
        let Some(here) = graph.index(me) else { return Self::default() };
        let mut unicast = Vec::new();
        let mut next: Vec<Option<PeerName>> = vec![None; graph.names.len()];
        let own = walk(graph, here, |parent, hops, children| {
            for child in ones(children) {
                let through = next[parent].unwrap_or(graph.names[child]);
                next[child] = Some(through);
                unicast.push((graph.names[child], Hop { next: through, hops }));
            }
        });
        let (flood, mut upstream) = if graph.quiet.is_empty() {
            trees(graph, here, &own)
        } else {
            let told = graph.without_quiet(here);
            trees(&told, here, &walk(&told, here, |_, _, _| {}))
        };
        graph.quiet.iter().for_each(|quiet| upstream[*quiet] = Some(graph.names[*quiet]));
        let flood =
            flood.into_iter().enumerate().filter(|(source, _)| own[source / 64] & 1 << (source % 64) != 0);
        let mut broadcast: BTreeMap<_, _> = flood.map(|(source, next)| (graph.names[source], next)).collect();
        broadcast.insert(me, ones(graph.row(here)).map(|to| graph.names[to]).collect());
        let upstream = graph.names.iter().zip(upstream).zip(next);
        // Whoever is behind a quiet neighbour alone is heard through it, of necessity.
        let upstream = upstream.filter_map(|((source, from), next)| Some((*source, from.or(next)?)));
        Self { unicast: unicast.into_iter().collect(), broadcast, upstream: upstream.collect() }
    }

    /// The neighbour through which each peer is reached without our links to the neighbours in `avoided`, where there is
    /// such a way.
    pub fn around(graph: &Graph, me: PeerName, avoided: &BTreeSet<PeerName>) -> BTreeMap<PeerName, PeerName> {
        let Some(here) = graph.index(me) else { return BTreeMap::new() };
        let graph = graph.without_links(here, avoided.iter().filter_map(|name| graph.index(*name)));
        let mut next: Vec<Option<PeerName>> = vec![None; graph.names.len()];
        walk(&graph, here, |parent, _, children| {
            for child in ones(children) {
                next[child] = next[parent].or(Some(graph.names[child]));
            }
        });
        graph.names.iter().zip(next).filter_map(|(name, next)| Some((*name, next?))).collect()
    }

    /// The neighbour through which a peer is reached; itself, if it is a neighbour.
    pub fn next_hop(&self, peer: PeerName) -> Option<PeerName> {
        self.unicast.get(&peer).map(|hop| hop.next)
    }

    /// How many hops away a peer is.
    pub fn hops(&self, peer: PeerName) -> Option<u32> {
        self.unicast.get(&peer).map(|hop| hop.hops)
    }

    /// To whom we pass on what `source` broadcasts.
    pub fn flood(&self, source: PeerName) -> &[PeerName] {
        self.broadcast.get(&source).map_or(&[], Vec::as_slice)
    }

    /// The neighbour that passes on to us what each other peer broadcasts. What comes from any other neighbour was
    /// sent by somebody who sees other links than we do, and would multiply if it were passed on.
    pub fn upstream(&self) -> &BTreeMap<PeerName, PeerName> {
        &self.upstream
    }

    /// How many peers can be reached.
    pub(crate) fn reach(&self) -> usize {
        self.unicast.len()
    }

    /// All peers that can be reached, in the order of their names.
    pub fn reachable(&self) -> impl Iterator<Item = PeerName> {
        self.unicast.keys().copied()
    }

    /// The whole broadcast table: source to our next hops, ourselves as a source included.
    pub fn broadcast(&self) -> &BTreeMap<PeerName, Vec<PeerName>> {
        &self.broadcast
    }
}

/// Our part in the tree of each source in `own`: to whom we pass on, and from whom we have it.
///
/// A source that is `hops` away from us is at least as near to each neighbour as `hops` less or more one. So "within
/// `hops` - 1" says that a neighbour is one nearer, and "not within `hops`" that it is one farther; of those that are
/// nearer to a peer the lowest is its parent.
fn trees(graph: &Graph, here: usize, own: &[u64]) -> (Vec<Vec<PeerName>>, Vec<Option<PeerName>>) {
    let words = own.len();
    let row = |at: usize| at * words..(at + 1) * words;
    let near: Vec<usize> = ones(graph.row(here)).collect();
    let (mut flood, mut upstream) = (vec![Vec::new(); graph.names.len()], vec![None; graph.names.len()]);
    flood[here] = near.iter().map(|to| graph.names[*to]).collect();
    // Whom each peer has within no hop, which is itself, and within one.
    let mut before = vec![0u64; words * graph.names.len()];
    let mut within = before.clone();
    for at in ones(own) {
        before[at * words + at / 64] |= 1 << (at % 64);
        within[row(at)].copy_from_slice(graph.row(at));
        within[at * words + at / 64] |= 1 << (at % 64);
    }
    let (mut farther, mut left) = (vec![0u64; words * graph.names.len()], vec![0u64; words]);
    loop {
        let sources: Vec<u64> =
            within[row(here)].iter().zip(&before[row(here)]).map(|(now, then)| now & !then).collect();
        left.copy_from_slice(&sources);
        for from in &near {
            for (word, (left, nearer)) in left.iter_mut().zip(&before[row(*from)]).enumerate() {
                let found = *left & nearer;
                *left &= !nearer;
                ones(&[found]).for_each(|bit| upstream[word * 64 + bit] = Some(graph.names[*from]));
            }
        }
        for to in &near {
            left.copy_from_slice(&sources);
            for lower in std::iter::once(*to).chain(ones(graph.row(*to)).take_while(|lower| *lower < here)) {
                let mut any = 0;
                for (left, nearer) in left.iter_mut().zip(&within[row(lower)]) {
                    *left &= !nearer;
                    any |= *left;
                }
                if any == 0 {
                    break;
                }
            }
            ones(&left).for_each(|source| flood[source].push(graph.names[*to]));
        }
        if within[row(here)] == *own {
            return (flood, upstream);
        }
        for at in ones(own) {
            let links = graph.row(at);
            farther[row(at)].copy_from_slice(&within[row(at)]);
            left.iter_mut().zip(own).zip(&within[row(at)]).for_each(|((left, own), now)| *left = own & !now);
            if count(&left) < count(links) {
                // Near is mutual: a source is one hop farther from here if a neighbour of ours is within its row.
                let meets = |source: &usize| {
                    within[row(*source)].iter().zip(links).any(|(now, link)| now & link != 0)
                };
                ones(&left)
                    .filter(meets)
                    .for_each(|source| farther[at * words + source / 64] |= 1 << (source % 64));
            } else {
                for neighbour in ones(links) {
                    let more = &within[row(neighbour)];
                    farther[row(at)].iter_mut().zip(more).for_each(|(word, more)| *word |= more);
                }
            }
        }
        // Now `farther` becomes `within`, `within` becomes `before`, and the oldest is written over.
        std::mem::swap(&mut before, &mut within);
        std::mem::swap(&mut within, &mut farther);
    }
}

fn count(row: &[u64]) -> u32 {
    row.iter().map(|word| word.count_ones()).sum()
}

/// The neighbours of `me` that stay in reach without their link to `me`: each has a way to another of them.
pub(crate) fn spare(graph: &Graph, me: PeerName) -> Vec<PeerName> {
    let Some(here) = graph.index(me) else { return Vec::new() };
    let rest = graph.without(here);
    let mut left = graph.row(here).to_vec();
    let mut spare = Vec::new();
    loop {
        let Some(first) = ones(&left).next() else { break };
        let group = walk(&rest, first, |_, _, _| {});
        let together: Vec<usize> = ones(&left).filter(|at| group[at / 64] & 1 << (at % 64) != 0).collect();
        left.iter_mut().zip(&group).for_each(|(left, group)| *left &= !group);
        if together.len() > 1 {
            spare.extend(together.into_iter().map(|at| graph.names[at]));
        }
    }
    spare.sort_unstable();
    spare
}

/// Walks breadth-first from `source` and tells each parent's children; gives all it has seen.
fn walk(graph: &Graph, source: usize, mut tell: impl FnMut(usize, u32, &[u64])) -> Vec<u64> {
    let words = graph.row(source).len();
    let mut seen = vec![0u64; words];
    seen[source / 64] |= 1 << (source % 64);
    let mut level = seen.clone();
    let mut children = vec![0u64; words];
    for hops in 1.. {
        let mut below = vec![0u64; words];
        for parent in ones(&level) {
            let row = graph.row(parent);
            let mut any = 0;
            for word in 0..words {
                children[word] = row[word] & !seen[word];
                any |= children[word];
                seen[word] |= children[word];
                below[word] |= children[word];
            }
            if any != 0 {
                tell(parent, hops, &children);
            }
        }
        if below.iter().all(|word| *word == 0) {
            break;
        }
        level = below;
    }
    seen
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn name(number: u64) -> PeerName {
        PeerName::from_u64(number)
    }

    /// Routes as peer `me` of these mutual links computes them.
    fn routes(links: &[(u64, u64)], me: u64) -> Routes {
        let mut reported: BTreeMap<PeerName, BTreeSet<PeerName>> = BTreeMap::new();
        for (one, two) in links.iter().filter(|(one, two)| one != two) {
            reported.entry(name(*one)).or_default().insert(name(*two));
            reported.entry(name(*two)).or_default().insert(name(*one));
        }
        let mine = reported.get(&name(me)).cloned().unwrap_or_default();
        let others = reported.into_iter().map(|(peer, links)| (peer, links.into_iter().collect::<Vec<_>>()));
        Routes::compute(&graph(me, &mine, others), name(me), |_| true)
    }

    /// What `me` sees when the others report these links.
    fn graph(
        me: u64,
        mine: &BTreeSet<PeerName>,
        others: impl IntoIterator<Item = (PeerName, Vec<PeerName>)>,
    ) -> Graph {
        let mut links = Links::default();
        others.into_iter().for_each(|(peer, said)| links.replace(peer, &said));
        links.graph(name(me), mine)
    }

    /// The same trees in the plainest way: one walk for each source.
    fn walked(graph: &Graph, me: u64) -> Routes {
        let here = graph.index(name(me)).unwrap();
        let mut routes = Routes::of(graph, name(me));
        routes.broadcast.clear();
        routes.upstream.clear();
        for source in ones(&walk(graph, here, |_, _, _| {})) {
            let mut next = Vec::new();
            walk(graph, source, |parent, _, children| {
                if parent == here {
                    next = ones(children).map(|child| graph.names[child]).collect();
                }
                if ones(children).any(|child| child == here) {
                    routes.upstream.insert(graph.names[source], graph.names[parent]);
                }
            });
            routes.broadcast.insert(graph.names[source], next);
        }
        routes
    }

    #[test]
    fn a_chain_relays_towards_both_its_ends() {
        let chain = [(1, 2), (2, 3), (3, 4)];
        let second = routes(&chain, 2);
        assert_eq!(second.next_hop(name(4)), Some(name(3)));
        assert_eq!(second.hops(name(4)), Some(2));
        assert_eq!(second.flood(name(1)), [name(3)]);
        assert_eq!(second.flood(name(4)), [name(1)]);
        assert_eq!(second.flood(name(2)), [name(1), name(3)]);
        assert_eq!(routes(&chain, 4).flood(name(1)), []);
        let upstream = [(name(1), name(1)), (name(3), name(3)), (name(4), name(3))];
        assert_eq!(*second.upstream(), upstream.into());
    }

    #[test]
    fn the_neighbours_with_another_way_between_them_can_be_spared() {
        let spared = |links: &[(u64, u64)]| {
            let links = links.iter().flat_map(|(one, two)| [(*one, *two), (*two, *one)]);
            let links: BTreeSet<_> = links.map(|(one, two)| (name(one), name(two))).collect();
            let of = |peer| links.iter().filter(move |(from, _)| *from == peer).map(|(_, to)| *to);
            let mine = of(name(1)).collect();
            let others = (2..8).map(|peer| (name(peer), of(name(peer)).collect::<Vec<_>>()));
            spare(&graph(1, &mine, others), name(1))
        };
        let links = [(1, 2), (1, 3), (1, 4), (1, 5), (2, 3), (4, 6), (6, 7)];
        assert_eq!(spared(&links), [name(2), name(3)]);
        let longer = [&links[..], &[(5, 7)]].concat();
        assert_eq!(spared(&longer), [name(2), name(3), name(4), name(5)], "the long way round");
    }

    #[test]
    fn a_way_around_a_neighbour_is_found_where_there_is_one() {
        let others =
            [(name(2), vec![name(1), name(3)]), (name(3), vec![name(1), name(2)]), (name(4), vec![])];
        let graph = graph(1, &[name(2), name(3), name(4)].into(), others);
        let around =
            |avoided: &[PeerName]| Routes::around(&graph, name(1), &avoided.iter().copied().collect());
        assert_eq!(around(&[name(3), name(4)]), [(name(2), name(2)), (name(3), name(2))].into());
        assert_eq!(around(&[name(2), name(3)]), [(name(4), name(4))].into());
    }

    #[test]
    fn a_link_that_one_end_reports_alone_carries_nothing() {
        let others = [(name(2), vec![name(1), name(3)]), (name(3), vec![])];
        let graph = graph(1, &[name(2)].into(), others);
        let routes = Routes::compute(&graph, name(1), |_| true);
        assert_eq!(routes.reachable().collect::<Vec<_>>(), [name(2)]);
    }

    #[test]
    fn a_session_of_ours_counts_before_the_neighbour_has_reported_it() {
        let graph = graph(1, &[name(2)].into(), [(name(3), vec![name(1)])]);
        let routes = Routes::compute(&graph, name(1), |_| true);
        assert_eq!(routes.hops(name(2)), Some(1));
        assert_eq!(
            routes.hops(name(3)),
            None,
            "whom we have no session with is no neighbour, whatever it says"
        );
    }

    #[test]
    fn to_and_from_a_quiet_neighbour_goes_what_is_its_own_or_ours_and_nothing_else() {
        let others = [(name(2), vec![name(1)]), (name(3), vec![name(1)])];
        let graph = graph(1, &[name(2), name(3)].into(), others).quiet(&[name(3)].into());
        let routes = Routes::compute(&graph, name(1), |_| true);
        assert_eq!(routes.flood(name(1)), [name(2), name(3)]);
        assert_eq!(routes.flood(name(3)), []);
        assert_eq!(routes.flood(name(2)), []);
        assert_eq!((routes.hops(name(3)), routes.upstream().get(&name(3))), (Some(1), Some(&name(3))));
    }

    #[test]
    fn barred_peers_are_neither_reached_nor_passed_through() {
        let others = [(name(2), vec![name(1), name(3)]), (name(3), vec![name(2)]), (name(4), vec![name(1)])];
        let graph = graph(1, &[name(2), name(4)].into(), others);
        let routes = Routes::compute(&graph, name(1), |peer| peer != name(2));
        assert_eq!(routes.reachable().collect::<Vec<_>>(), [name(4)]);
        assert_eq!(routes.flood(name(1)), [name(4)]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn a_broadcast_reaches_every_connected_peer_exactly_once(
            links in proptest::collection::vec((0u64..90, 0u64..90), 1..200),
            source in 0u64..90,
        ) {
            let tables: BTreeMap<u64, Routes> = (0..90).map(|me| (me, routes(&links, me))).collect();
            let mut got: BTreeMap<u64, usize> = BTreeMap::new();
            let mut waiting = vec![(source, source)];
            while let Some((at, from)) = waiting.pop() {
                let upstream = tables[&at].upstream().get(&name(source)).map(|peer| peer.as_u64());
                prop_assert_eq!(upstream, (at != source).then_some(from));
                *got.entry(at).or_default() += 1;
                prop_assert!(got[&at] < 2, "{at} got it twice");
                waiting.extend(tables[&at].flood(name(source)).iter().map(|next| (next.as_u64(), at)));
            }
            let connected = tables[&source].reachable().count() + 1;
            prop_assert_eq!(got.len(), connected);
        }

        #[test]
        fn the_trees_that_grow_together_are_those_that_grow_alone(
            links in proptest::collection::vec((0u64..150, 0u64..150), 1..900),
            me in 0u64..150,
        ) {
            let mut said: BTreeMap<u64, BTreeSet<PeerName>> = BTreeMap::new();
            for (one, two) in links.iter().filter(|(one, two)| one != two) {
                said.entry(*one).or_default().insert(name(*two));
                said.entry(*two).or_default().insert(name(*one));
            }
            let mine = said.remove(&me).unwrap_or_default();
            let others = said.into_iter().map(|(peer, links)| (name(peer), links.into_iter().collect()));
            let graph = graph(me, &mine, others);
            prop_assert_eq!(Routes::of(&graph, name(me)), walked(&graph, me));
        }

        #[test]
        fn each_hop_brings_a_unicast_nearer(links in proptest::collection::vec((0u64..30, 0u64..30), 1..60)) {
            let tables: BTreeMap<u64, Routes> = (0..30).map(|me| (me, routes(&links, me))).collect();
            for (from, table) in &tables {
                for to in table.reachable() {
                    let hops = table.hops(to).unwrap();
                    let next = table.next_hop(to).unwrap();
                    prop_assert!(links.contains(&(*from, next.as_u64())) || links.contains(&(next.as_u64(), *from)));
                    let rest = if next == to { 0 } else { tables[&next.as_u64()].hops(to).unwrap() };
                    prop_assert_eq!(rest + 1, hops);
                }
            }
        }
    }
}
