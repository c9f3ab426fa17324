//! Records as they travel: names once, links as indices or, where that is shorter, as the exceptions.
//!
//! A healthy mesh is full, so "everyone but…" is the short way to say links. Everyone must mean the same at
//! both ends: it means exactly the names listed in the same message. The list holds all owners and all links
//! of the message's records, so either form is complete by itself.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::record::{Entry, KNOWN_LIMIT, Record, Said};
use crate::peer::{BootId, Incarnation, PeerName};

/// A receiver expands at most this many links of one message…
const LINKS_LIMIT: usize = 1 << 20;
/// …and a sender begins another message at this many.
const LINKS_PER_MESSAGE: usize = 1 << 18;
/// Entries in one message: with names and endpoints well below the longest message.
const ENTRIES_PER_MESSAGE: usize = 1_000;

/// Some entries of a topology, as bytes carry them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Records {
    /// Everyone: sorted, each once.
    names: Vec<PeerName>,
    entries: Vec<Packed>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Packed {
    owner: u32,
    incarnation: Incarnation,
    /// None: removed.
    body: Option<PackedRecord>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct PackedRecord {
    version: u64,
    boot: BootId,
    nickname: String,
    site: String,
    key: [u8; 32],
    endpoints: Vec<SocketAddr>,
    /// True: `links` lists who of everyone (the owner aside) is *not* linked.
    all_but: bool,
    links: Vec<u32>,
}

impl Records {
    /// Packs entries into as few messages as bounds allow.
    pub(crate) fn pack(entries: impl IntoIterator<Item = (PeerName, Said)>) -> Vec<Self> {
        let mut messages = Vec::new();
        let mut batch = Vec::new();
        let mut links = 0;
        for (name, said) in entries {
            links += said.links.len();
            batch.push((name, said));
            if links >= LINKS_PER_MESSAGE || batch.len() >= ENTRIES_PER_MESSAGE {
                messages.push(Self::pack_batch(&batch));
                batch.clear();
                links = 0;
            }
        }
        if !batch.is_empty() {
            messages.push(Self::pack_batch(&batch));
        }
        messages
    }

    fn pack_batch(batch: &[(PeerName, Said)]) -> Self {
        let mut names: Vec<_> = batch.iter().flat_map(|(_, said)| said.links.iter().copied()).collect();
        names.extend(batch.iter().map(|(name, _)| *name));
        names.sort_unstable();
        names.dedup();
        let entries = batch.iter().map(|(name, said)| Packed::pack(*name, said, &names)).collect();
        Self { names, entries }
    }

    /// Unpacks what arrived; `None` if it cannot have been packed by a router.
    pub(crate) fn unpack(self) -> Option<Vec<(PeerName, Said)>> {
        // A record has up to as many links as peers are known, and a batch's dictionary holds them all.
        if self.names.len() > 2 * KNOWN_LIMIT || !self.names.is_sorted_by(|a, b| a < b) {
            return None;
        }
        let mut budget = LINKS_LIMIT;
        self.entries.into_iter().map(|packed| packed.unpack(&self.names, &mut budget)).collect()
    }
}

fn index(names: &[PeerName], name: PeerName) -> u32 {
    let at = names.binary_search(&name).expect("the dictionary holds every name of its batch");
    u32::try_from(at).expect("a batch holds thousands of names, not billions")
}

impl Packed {
    fn pack(name: PeerName, said: &Said, names: &[PeerName]) -> Self {
        let owner = index(names, name);
        match &said.entry {
            Entry::Removed(incarnation) => Self { owner, incarnation: *incarnation, body: None },
            Entry::Live(record) => {
                let all_but = said.links.len() * 2 > names.len();
                let links = if all_but {
                    let missing =
                        |peer: &&PeerName| **peer != name && said.links.binary_search(peer).is_err();
                    names.iter().filter(missing).map(|peer| index(names, *peer)).collect()
                } else {
                    said.links.iter().map(|link| index(names, *link)).collect()
                };
                let body = PackedRecord {
                    version: record.version,
                    boot: record.boot,
                    nickname: record.nickname.clone(),
                    site: record.site.clone(),
                    key: record.key,
                    endpoints: record.endpoints.clone(),
                    all_but,
                    links,
                };
                Self { owner, incarnation: record.incarnation, body: Some(body) }
            }
        }
    }

    fn unpack(self, names: &[PeerName], budget: &mut usize) -> Option<(PeerName, Said)> {
        let name = *names.get(usize::try_from(self.owner).ok()?)?;
        let Some(body) = self.body else { return Some((name, Said::removal(self.incarnation))) };
        let mut listed = Vec::with_capacity(body.links.len().min(names.len()));
        for link in &body.links {
            listed.push(*names.get(usize::try_from(*link).ok()?)?);
        }
        if !listed.is_sorted_by(|a, b| a < b) {
            return None;
        }
        let links = if body.all_but {
            *budget = budget.checked_sub(names.len())?;
            let linked = |peer: &&PeerName| **peer != name && listed.binary_search(peer).is_err();
            names.iter().filter(linked).copied().collect()
        } else {
            *budget = budget.checked_sub(listed.len())?;
            listed
        };
        let record = Record {
            name,
            incarnation: self.incarnation,
            version: body.version,
            boot: body.boot,
            nickname: body.nickname,
            site: body.site,
            key: body.key,
            endpoints: body.endpoints,
        };
        Some((name, Said { entry: Entry::Live(record), links }))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::codec;

    fn entry(name: u64, links: &[u64]) -> (PeerName, Said) {
        let name = PeerName::from_u64(name);
        let record = Record {
            name,
            incarnation: Incarnation(1),
            version: 2,
            boot: BootId(3),
            nickname: "host".into(),
            site: "default".into(),
            key: [9; 32],
            endpoints: Vec::new(),
        };
        let links = links.iter().copied().map(PeerName::from_u64).collect();
        (name, Said { entry: Entry::Live(record), links })
    }

    fn round_trip(entries: &[(PeerName, Said)]) -> Vec<(PeerName, Said)> {
        let packed = Records::pack(entries.to_vec());
        let read = |records: &Records| codec::decode::<Records, 1_000_000>(&codec::encode(records)).unwrap();
        packed.iter().flat_map(|records| read(records).unpack().unwrap()).collect()
    }

    #[test]
    fn a_full_mesh_of_two_hundred_takes_no_bytes_for_its_links() {
        let all: Vec<u64> = (0..200).collect();
        let links = |me: u64| all.iter().copied().filter(|peer| *peer != me).collect::<Vec<_>>();
        let entries: Vec<_> = all.iter().map(|me| entry(*me, &links(*me))).collect();
        assert_eq!(round_trip(&entries), entries);
        let packed = Records::pack(entries);
        assert!(packed.len() == 1 && codec::encode(&packed[0]).len() < 200 * (8 + 70));
    }

    #[test]
    fn everyone_expanded_beyond_the_budget_is_refused() {
        let names = (0..2_000).map(PeerName::from_u64).collect();
        let (_, Said { entry: Entry::Live(record), .. }) = entry(0, &[]) else { unreachable!() };
        let full = PackedRecord {
            version: 1,
            boot: record.boot,
            nickname: String::new(),
            site: String::new(),
            key: record.key,
            endpoints: Vec::new(),
            all_but: true,
            links: Vec::new(),
        };
        let packed = |owner| Packed { owner, incarnation: Incarnation(1), body: Some(full.clone()) };
        let hostile = Records { names, entries: (0..2_000).map(packed).collect() };
        assert!(hostile.unpack().is_none());
    }

    #[test]
    fn indices_out_of_range_or_order_are_refused() {
        for (owner, links) in [(5, vec![]), (0, vec![7]), (0, vec![1, 1]), (0, vec![2, 1])] {
            let (_, Said { entry: Entry::Live(record), .. }) = entry(0, &[]) else { unreachable!() };
            let body = PackedRecord {
                version: 1,
                boot: record.boot,
                nickname: String::new(),
                site: String::new(),
                key: record.key,
                endpoints: Vec::new(),
                all_but: false,
                links,
            };
            let names = (0..3).map(PeerName::from_u64).collect();
            let entries = vec![Packed { owner, incarnation: Incarnation(1), body: Some(body) }];
            assert!(Records { names, entries }.unpack().is_none());
        }
    }

    proptest! {
        #[test]
        fn whatever_the_links_they_read_back_as_they_were(
            graph in proptest::collection::btree_map(0u64..40, proptest::collection::btree_set(0u64..60, 0..60), 1..30),
            removed in proptest::collection::btree_set(100u64..110, 0..5),
        ) {
            let mut entries: Vec<_> = graph
                .iter()
                .map(|(me, links)| entry(*me, &links.iter().copied().filter(|peer| peer != me).collect::<Vec<_>>()))
                .collect();
            entries.extend(removed.iter().map(|name| (PeerName::from_u64(*name), Said::removal(Incarnation(4)))));
            prop_assert_eq!(round_trip(&entries), entries);
        }
    }
}
