//! What is known of one peer, and the order that decides which of two such pieces is newer.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::hello::{COUNTER_LIMIT, ENDPOINT_LIMIT, NAME_LIMIT};
use crate::peer::{BootId, Incarnation, PeerName};

/// Most links a record may have, and most peers a router keeps in mind.
pub(crate) const KNOWN_LIMIT: usize = 10_000;

/// The age of an entry. The greater one wins; the order of the fields is the order of comparison.
///
/// A removal beats every record of its incarnation, and a higher incarnation beats the removal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Stamp {
    pub(crate) incarnation: Incarnation,
    pub(crate) removed: bool,
    pub(crate) version: u64,
    pub(crate) boot: BootId,
}

impl Stamp {
    pub(crate) fn removal(incarnation: Incarnation) -> Self {
        Self { incarnation, removed: true, version: 0, boot: BootId(0) }
    }

    /// Says whether the counters are such as an honest router could have reached.
    pub(crate) fn plausible(&self) -> bool {
        self.incarnation.0 < COUNTER_LIMIT && self.version < COUNTER_LIMIT
    }
}

/// What a router says of itself, but for its links; only its owner writes it. (The derived order settles what stamps cannot: two
/// contents under one stamp, which only a cloned router produces.)
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Record {
    pub(crate) name: PeerName,
    pub(crate) incarnation: Incarnation,
    pub(crate) version: u64,
    pub(crate) boot: BootId,
    pub(crate) nickname: String,
    pub(crate) site: String,
    pub(crate) key: [u8; 32],
    pub(crate) endpoints: Vec<SocketAddr>,
    /// Those it is linked with to whom nothing carries frames, sorted: normally none.
    pub(crate) idle: Vec<PeerName>,
}

impl Record {
    pub(crate) fn stamp(&self) -> Stamp {
        Stamp { incarnation: self.incarnation, removed: false, version: self.version, boot: self.boot }
    }

    /// Says whether the record could have been written by the holder of its key.
    pub(crate) fn plausible(&self) -> bool {
        self.name == PeerName::of_key(&self.key)
            && self.stamp().plausible()
            && self.nickname.len() <= NAME_LIMIT
            && self.site.len() <= NAME_LIMIT
            && self.endpoints.len() <= ENDPOINT_LIMIT
            && self.idle.is_sorted_by(|a, b| a < b)
    }
}

/// What is known of a name: its record, or that it was removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Entry {
    Live(Record),
    Removed(Incarnation),
}

impl Entry {
    pub(crate) fn stamp(&self) -> Stamp {
        match self {
            Self::Live(record) => record.stamp(),
            Self::Removed(incarnation) => Stamp::removal(*incarnation),
        }
    }
}

/// An entry as it travels: with the links that its owner has, which here are kept apart from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) entry: Entry,
    /// Neighbours with a session, sorted; none, if it was removed.
    pub(crate) links: Vec<PeerName>,
}

impl Said {
    pub(crate) fn removal(incarnation: Incarnation) -> Self {
        Self { entry: Entry::Removed(incarnation), links: Vec::new() }
    }

    /// Says whether it could have been said under this name by the holder of its key.
    pub(crate) fn plausible(&self, name: PeerName) -> bool {
        let entry = match &self.entry {
            Entry::Live(record) => {
                let linked = |peer: &PeerName| self.links.binary_search(peer).is_ok();
                record.name == name && record.plausible() && record.idle.iter().all(linked)
            }
            Entry::Removed(incarnation) => Stamp::removal(*incarnation).plausible() && self.links.is_empty(),
        };
        entry && self.links.len() <= KNOWN_LIMIT && self.links.is_sorted_by(|a, b| a < b)
    }

    /// Says whether this takes the place of `other`: a total order, so every peer ends with the same one.
    pub(crate) fn beats(&self, other: &Self) -> bool {
        match (&self.entry, &other.entry) {
            (Entry::Live(mine), Entry::Live(theirs)) if mine.stamp() == theirs.stamp() => {
                (mine, &self.links) > (theirs, &other.links)
            }
            _ => self.entry.stamp() > other.entry.stamp(),
        }
    }
}
