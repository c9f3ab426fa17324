//! What changed in one record since the version before: this, and not the record, is told to everybody.
//!
//! While a mesh grows most of its bytes are the names of new links. Whoever has heard of a peer knows it by the first
//! two bytes of its name, so that is how links to peers that have been there for a while are said; a sum over these
//! names tells a receiver whether it took them for the same. If it did not, it asks for the whole record.
//! Links that are gone are said by their places among those there were, which are known to whoever has the base.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::record::Stamp;
use crate::codec::Blob;
use crate::peer::{BootId, Incarnation, PeerName};

/// A change, as bytes carry it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Change {
    pub(crate) name: PeerName,
    pub(crate) incarnation: Incarnation,
    pub(crate) boot: BootId,
    pub(crate) version: u64,
    /// How many versions ago its base is.
    pub(crate) back: u64,
    pub(crate) added: Names,
    /// Ascending places in the sorted links of the base.
    pub(crate) removed: Vec<u32>,
    pub(crate) endpoints: Option<Vec<SocketAddr>>,
    /// All links over which nothing carries frames now, sorted; none: as in the base.
    pub(crate) idle: Option<Vec<PeerName>>,
}

impl Change {
    pub(crate) fn stamp(&self) -> Stamp {
        Stamp { incarnation: self.incarnation, removed: false, version: self.version, boot: self.boot }
    }

    /// The version it builds on; `None` if there cannot be such a one.
    pub(crate) fn base(&self) -> Option<u64> {
        self.version.checked_sub(self.back)
    }
}

/// Some names, each by itself or by its first two bytes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Names {
    whole: Vec<PeerName>,
    /// Two bytes for each; then four for the sum over all of these names.
    short: Blob,
}

const SHORT: usize = 2;
const SUM: usize = 4;

impl Names {
    /// Says names, those that are `common` in short.
    pub(crate) fn say(names: &[PeerName], common: impl Fn(PeerName) -> bool) -> Self {
        let (common, whole): (Vec<_>, Vec<_>) = names.iter().partition(|name| common(**name));
        let mut short: Vec<u8> = common.iter().flat_map(|name| head(*name).to_be_bytes()).collect();
        if !common.is_empty() {
            short.extend(sum(&common).to_be_bytes());
        }
        Self { whole, short: Blob(short) }
    }

    /// At most so many names.
    pub(crate) fn len(&self) -> usize {
        self.whole.len() + self.short.0.len() / SHORT
    }

    /// Understands what was said; `find` gives the only name with these two bytes. `None`: something else was meant.
    pub(crate) fn understand(&self, find: impl Fn(u16) -> Option<PeerName>) -> Option<Vec<PeerName>> {
        let Some((heads, meant)) = self.short.0.split_last_chunk::<SUM>() else {
            return self.short.0.is_empty().then(|| self.whole.clone());
        };
        let mut names = Vec::with_capacity(self.len());
        for head in heads.chunks(SHORT) {
            names.push(find(u16::from_be_bytes(head.try_into().ok()?))?);
        }
        if sum(&names).to_be_bytes() != *meant {
            return None;
        }
        names.extend(&self.whole);
        Some(names)
    }
}

/// The first two bytes of a name.
pub(super) fn head(name: PeerName) -> u16 {
    u16::try_from(name.as_u64() >> 48).unwrap_or(u16::MAX)
}

/// A sum that tells names apart which begin alike: they are hashes.
fn sum(names: &[PeerName]) -> u32 {
    let sum = names.iter().fold(0u64, |sum, name| sum.wrapping_add(name.as_u64()));
    u32::try_from(sum & u64::from(u32::MAX)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn names_are_understood_as_they_were_meant_or_not_at_all(
            numbers in proptest::collection::btree_map(0u64..0x1_0000, 0u64..0x100, 0..40),
            other in any::<Option<(u8, u64)>>(),
        ) {
            let name = |(head, rest): (&u64, &u64)| PeerName::from_u64(head << 48 | rest);
            let names: Vec<_> = numbers.iter().map(name).collect();
            let said = Names::say(&names, |name| name.as_u64() & 3 != 0);
            let bytes = crate::codec::encode(&said);
            let said: Names = crate::codec::decode::<_, 10_000>(&bytes).unwrap();
            // One of the receiver's names may begin as another one does here.
            let mut known = numbers;
            let swapped = other.and_then(|(which, rest)| {
                let (_, known) = known.iter_mut().nth(usize::from(which))?;
                *known = rest & 0xffff_ffff_ffff;
                Some(())
            });
            let find = |head: u16| known.get(&head.into()).map(|rest| PeerName::from_u64(u64::from(head) << 48 | rest));
            let understood = said.understand(find).map(|names| names.into_iter().collect::<std::collections::BTreeSet<_>>());
            let meant = names.into_iter().collect();
            prop_assert!(understood.is_none() || understood.as_ref() == Some(&meant));
            prop_assert!(understood.is_some() || swapped.is_some());
        }
    }

    #[test]
    fn a_link_to_a_peer_that_all_know_takes_two_bytes() {
        let names: Vec<_> = (0..100).map(|n| PeerName::from_u64(n << 48 | n)).collect();
        let bytes = |names: &[PeerName]| crate::codec::encode(&Names::say(names, |_| true)).len();
        assert_eq!(bytes(&names), bytes(&names[..50]) + 100);
    }

    #[test]
    fn no_bytes_make_it_panic() {
        for length in 0..20 {
            let names = Names { whole: Vec::new(), short: Blob(vec![0; length]) };
            let understood = names.understand(|_| None);
            assert_eq!(understood.is_some(), length == 0 || length == SUM, "{length}");
        }
    }
}
