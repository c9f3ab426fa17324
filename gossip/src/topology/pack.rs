//! Records as they travel: names once, links as indices, as the exceptions or as bits, whichever is shortest.
//!
//! A healthy mesh is full, so "everyone but…" is the short way to say links. Everyone must mean the same at
//! both ends: it means exactly the names listed in the same message. The list holds all owners and all links
//! of the message's records, so either form is complete by itself.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::record::{Entry, KNOWN_LIMIT, Record, Said};
use crate::codec::Blob;
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
    links: PackedLinks,
    /// Places of those links over which nothing carries frames.
    idle: Vec<u32>,
}

/// Who of everyone is linked with the owner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum PackedLinks {
    Only(Vec<u32>),
    /// All but these and the owner.
    AllBut(Vec<u32>),
    /// One bit for each, the lowest first; what is not there is zero.
    Bits(Blob),
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

/// The names at these places, which ascend; `None` if they do not, or are not there.
fn named(places: &[u32], names: &[PeerName]) -> Option<Vec<PeerName>> {
    let mut listed = Vec::with_capacity(places.len().min(names.len()));
    for place in places {
        listed.push(*names.get(usize::try_from(*place).ok()?)?);
    }
    listed.is_sorted_by(|a, b| a < b).then_some(listed)
}

impl Packed {
    fn pack(name: PeerName, said: &Said, names: &[PeerName]) -> Self {
        let owner = index(names, name);
        match &said.entry {
            Entry::Removed(incarnation) => Self { owner, incarnation: *incarnation, body: None },
            Entry::Live(record) => {
                let body = PackedRecord {
                    version: record.version,
                    boot: record.boot,
                    nickname: record.nickname.clone(),
                    site: record.site.clone(),
                    key: record.key,
                    endpoints: record.endpoints.clone(),
                    links: PackedLinks::pack(owner, &said.links, names),
                    idle: record.idle.iter().map(|link| index(names, *link)).collect(),
                };
                Self { owner, incarnation: record.incarnation, body: Some(body) }
            }
        }
    }

    fn unpack(self, names: &[PeerName], budget: &mut usize) -> Option<(PeerName, Said)> {
        let name = *names.get(usize::try_from(self.owner).ok()?)?;
        let Some(body) = self.body else { return Some((name, Said::removal(self.incarnation))) };
        let links = body.links.unpack(name, names, budget)?;
        let record = Record {
            name,
            incarnation: self.incarnation,
            version: body.version,
            boot: body.boot,
            nickname: body.nickname,
            site: body.site,
            key: body.key,
            endpoints: body.endpoints,
            idle: named(&body.idle, names)?,
        };
        Some((name, Said { entry: Entry::Live(record), links }))
    }
}

impl PackedLinks {
    fn pack(owner: u32, links: &[PeerName], names: &[PeerName]) -> Self {
        let linked: Vec<u32> = links.iter().map(|link| index(names, *link)).collect();
        let few = linked.len().min(names.len() - linked.len());
        let bits = names.len().div_ceil(8);
        // An index takes three bytes where there are more than 250 names.
        if few * if names.len() > 250 { 3 } else { 1 } > bits {
            let mut bytes = vec![0; bits];
            for at in linked.iter().filter_map(|at| usize::try_from(*at).ok()) {
                bytes[at / 8] |= 1 << (at % 8);
            }
            return Self::Bits(Blob(bytes));
        }
        if few == linked.len() {
            return Self::Only(linked);
        }
        let everyone = (0..names.len()).filter_map(|at| u32::try_from(at).ok());
        Self::AllBut(everyone.filter(|at| *at != owner && linked.binary_search(at).is_err()).collect())
    }

    fn unpack(self, owner: PeerName, names: &[PeerName], budget: &mut usize) -> Option<Vec<PeerName>> {
        let links = match self {
            Self::Only(places) => named(&places, names)?,
            Self::AllBut(places) => {
                let listed = named(&places, names)?;
                *budget = budget.checked_sub(names.len())?;
                let linked = |peer: &&PeerName| **peer != owner && listed.binary_search(peer).is_err();
                return Some(names.iter().filter(linked).copied().collect());
            }
            Self::Bits(Blob(bytes)) => {
                let ones = bytes.iter().enumerate().flat_map(|(at, byte)| {
                    (0..8).filter(move |bit| byte & 1 << bit != 0).map(move |bit| at * 8 + bit)
                });
                ones.map(|place| names.get(place).copied()).collect::<Option<_>>()?
            }
        };
        *budget = budget.checked_sub(links.len())?;
        Some(links)
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
            idle: Vec::new(),
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
            links: PackedLinks::AllBut(Vec::new()),
            idle: Vec::new(),
        };
        let packed = |owner| Packed { owner, incarnation: Incarnation(1), body: Some(full.clone()) };
        let hostile = Records { names, entries: (0..2_000).map(packed).collect() };
        assert!(hostile.unpack().is_none());
    }

    #[test]
    fn indices_out_of_range_or_order_are_refused() {
        let lists = [vec![7], vec![1, 1], vec![2, 1]];
        let wrong =
            lists.into_iter().flat_map(|list| [PackedLinks::Only(list.clone()), PackedLinks::AllBut(list)]);
        let wrong = wrong.chain([PackedLinks::Bits(Blob(vec![8])), PackedLinks::Bits(Blob(vec![0, 1]))]);
        let wrong = wrong.map(|links| (0, links)).chain([(5, PackedLinks::Only(Vec::new()))]);
        for (owner, links) in wrong {
            let (_, Said { entry: Entry::Live(record), .. }) = entry(0, &[]) else { unreachable!() };
            let body = PackedRecord {
                version: 1,
                boot: record.boot,
                nickname: String::new(),
                site: String::new(),
                key: record.key,
                endpoints: Vec::new(),
                links,
                idle: Vec::new(),
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
