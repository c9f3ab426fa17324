//! Who is out there and who is linked with whom: one entry per name, the newer one wins.
//!
//! Merging is commutative, associative and idempotent, so it does not matter on which ways and how often an
//! entry arrives. Each change travels as a [`Change`]; whoever lacks its base asks for the record. Two
//! topologies are compared by a 128-bit hash over all stamps that is kept up to date with each merge.

mod change;
mod pack;
mod record;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use blake2::{Blake2s256, Digest};

pub(crate) use change::Change;
use change::{Names, head};
pub(crate) use pack::Records;
pub(crate) use record::{Entry, KNOWN_LIMIT, Record, Said, Stamp};

use crate::codec;
use crate::hello::{ENDPOINT_LIMIT, Introduction};
use crate::peer::{Incarnation, PeerName};
use crate::routes::{Graph, Links};

/// A record of this version has been around for a while: its name is known wherever it is spoken of.
const OLD: u64 = 3;

/// What became of something offered to the topology.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Merge {
    /// It is newer and was taken.
    News,
    /// It is no news.
    Known,
    /// It speaks of ourselves and is newer than what we said: we must say something newer still.
    Ours(Stamp),
    /// It builds on something we do not have: ask for the whole.
    Missing,
    /// It cannot be true, or there is no room for another name.
    Refused,
}

/// All that is known, ourselves included.
pub(crate) struct Topology {
    me: PeerName,
    entries: BTreeMap<PeerName, Entry>,
    links: Links,
    hash: [u8; 16],
}

impl Topology {
    /// Begins with our own record alone.
    pub(crate) fn new(introduction: &Introduction, key: [u8; 32]) -> Self {
        let record = Record {
            name: introduction.name,
            incarnation: introduction.incarnation,
            version: 1,
            boot: introduction.boot,
            nickname: introduction.nickname.clone(),
            site: introduction.site.clone(),
            key,
            endpoints: introduction.endpoints.clone(),
            idle: Vec::new(),
        };
        let (entries, links) = (BTreeMap::new(), Links::default());
        let mut topology = Self { me: record.name, entries, links, hash: [0; 16] };
        topology.put(record.name, Entry::Live(record));
        topology
    }

    /// Our own record.
    pub(crate) fn own(&self) -> &Record {
        match self.entries.get(&self.me) {
            Some(Entry::Live(record)) => record,
            Some(Entry::Removed(_)) | None => unreachable!("our own entry is only ever put as a record"),
        }
    }

    /// How many names are known.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Says whether one peer reports a link to another, or is that other.
    pub(crate) fn are_linked(&self, name: PeerName, other: PeerName) -> bool {
        name == other || self.links.has(name, other)
    }

    /// The links that one peer reports, sorted.
    pub(crate) fn links(&self, name: PeerName) -> impl Iterator<Item = PeerName> {
        self.links.of(name)
    }

    /// The record of a peer that is known and was not removed.
    pub(crate) fn record(&self, name: PeerName) -> Option<&Record> {
        match self.entries.get(&name) {
            Some(Entry::Live(record)) => Some(record),
            Some(Entry::Removed(_)) | None => None,
        }
    }

    /// All records but our own.
    pub(crate) fn others(&self) -> impl Iterator<Item = &Record> {
        self.entries.values().filter_map(|entry| match entry {
            Entry::Live(record) if record.name != self.me => Some(record),
            Entry::Live(_) | Entry::Removed(_) => None,
        })
    }

    /// Says anew what we are linked with, over which links nothing carries frames, and where we are reachable; `None` if
    /// that is what we said last.
    ///
    /// Peers met `recently` are named in full, unless they have said so much that everybody knows them.
    pub(crate) fn publish(
        &mut self,
        links: &BTreeSet<PeerName>,
        idle: &BTreeSet<PeerName>,
        endpoints: &[SocketAddr],
        recently: impl Fn(PeerName) -> bool,
    ) -> Option<Change> {
        let own = self.own();
        let old: Vec<_> = self.links(self.me).collect();
        let added: Vec<_> = links.iter().filter(|link| old.binary_search(link).is_err()).copied().collect();
        let gone: Vec<_> = old.iter().filter(|link| !links.contains(link)).copied().collect();
        let place = |link| old.binary_search(link).ok().and_then(|place| u32::try_from(place).ok());
        let idle: Vec<_> = idle.intersection(links).copied().collect();
        let change = Change {
            name: self.me,
            incarnation: own.incarnation,
            boot: own.boot,
            version: own.version + 1,
            back: 1,
            added: Names::say(&added, |name| {
                self.find(head(name)).is_some() && (!recently(name) || self.is_old(name))
            }),
            removed: gone.iter().filter_map(place).collect(),
            endpoints: (own.endpoints != endpoints).then(|| endpoints.to_vec()),
            idle: (own.idle != idle).then_some(idle),
        };
        if added.is_empty() && gone.is_empty() && change.endpoints.is_none() && change.idle.is_none() {
            return None;
        }
        self.apply(&change, &added, &gone);
        Some(change)
    }

    fn is_old(&self, name: PeerName) -> bool {
        self.record(name).is_some_and(|record| record.version >= OLD)
    }

    /// The only known name that begins like this, if it is the only one.
    fn find(&self, head: u16) -> Option<PeerName> {
        let first = u64::from(head) << 48;
        let span = PeerName::from_u64(first)..=PeerName::from_u64(first | ((1 << 48) - 1));
        let mut names = self.entries.range(span).map(|(name, _)| *name);
        names.next().filter(|_| names.next().is_none())
    }

    /// Makes our own record newer than `stamp`, which somebody holds for us.
    pub(crate) fn raise_above(&mut self, stamp: Stamp) {
        let mut record = self.own().clone();
        if stamp.removed {
            record.incarnation = Incarnation(stamp.incarnation.0 + 1);
            record.version += 1;
        } else {
            record.incarnation = record.incarnation.max(stamp.incarnation);
            record.version = record.version.max(stamp.version) + 1;
        }
        self.put(self.me, Entry::Live(record));
    }

    /// Takes an entry if it is newer.
    pub(crate) fn merge(&mut self, name: PeerName, said: Said) -> Merge {
        if !said.plausible(name) {
            return Merge::Refused;
        }
        match self.entries.get(&name) {
            Some(known) if said.entry.stamp() < known.stamp() => return Merge::Known,
            Some(known) if said.entry.stamp() == known.stamp() && !said.beats(&self.said(name, known)) => {
                return Merge::Known;
            }
            Some(_) if name == self.me => return Merge::Ours(said.entry.stamp()),
            Some(_) | None => {}
        }
        if !self.entries.contains_key(&name) && self.entries.len() >= KNOWN_LIMIT && !self.make_room() {
            return Merge::Refused;
        }
        self.links.replace(name, &said.links);
        self.put(name, said.entry);
        Merge::News
    }

    /// Takes a change if it is newer and its base is here.
    pub(crate) fn merge_change(&mut self, change: &Change) -> Merge {
        match self.entries.get(&change.name) {
            Some(known) if change.stamp() <= known.stamp() => Merge::Known,
            Some(_) if change.name == self.me => Merge::Ours(change.stamp()),
            Some(_) | None if !self.could_be(change) => Merge::Refused,
            Some(Entry::Live(record))
                if record.incarnation == change.incarnation
                    && record.boot == change.boot
                    && Some(record.version) == change.base() =>
            {
                let links: Vec<_> = self.links(change.name).collect();
                let gone =
                    change.removed.iter().map(|place| links.get(usize::try_from(*place).ok()?).copied());
                let Some(gone) = gone.collect::<Option<Vec<_>>>() else { return Merge::Refused };
                let Some(added) = change.added.understand(|head| self.find(head)) else {
                    return Merge::Missing;
                };
                self.apply(change, &added, &gone);
                Merge::News
            }
            Some(_) | None => Merge::Missing,
        }
    }

    fn could_be(&self, change: &Change) -> bool {
        change.stamp().plausible()
            && change.endpoints.as_ref().is_none_or(|endpoints| endpoints.len() <= ENDPOINT_LIMIT)
            && change.idle.as_ref().is_none_or(|idle| idle.is_sorted_by(|a, b| a < b))
            && self.links.count(change.name) + change.added.len() <= KNOWN_LIMIT
    }

    /// Brings a record from the base of a change to what is after it.
    fn apply(&mut self, change: &Change, added: &[PeerName], gone: &[PeerName]) {
        let Some(Entry::Live(record)) = self.entries.get_mut(&change.name) else { return };
        let (before, after) = (record.stamp(), change.stamp());
        record.version = change.version;
        if let Some(endpoints) = &change.endpoints {
            record.endpoints.clone_from(endpoints);
        }
        if let Some(idle) = &change.idle {
            record.idle.clone_from(idle);
        }
        self.links.change(change.name, added, gone);
        record.idle.retain(|peer| self.links.has(change.name, *peer));
        self.mix(change.name, before);
        self.mix(change.name, after);
    }

    fn said(&self, name: PeerName, entry: &Entry) -> Said {
        Said { entry: entry.clone(), links: self.links(name).collect() }
    }

    /// Says whether `stamp` is newer than what is known under this name.
    pub(crate) fn lacks(&self, name: PeerName, stamp: Stamp) -> bool {
        stamp.plausible() && self.entries.get(&name).is_none_or(|known| stamp > known.stamp())
    }

    /// The hash over all stamps: equal at two peers exactly when they know the same.
    pub(crate) fn hash(&self) -> [u8; 16] {
        self.hash
    }

    /// All stamps.
    pub(crate) fn stamps(&self) -> Vec<(PeerName, Stamp)> {
        self.entries.iter().map(|(name, entry)| (*name, entry.stamp())).collect()
    }

    /// The stamps of these names, as far as they are known.
    pub(crate) fn stamps_of(&self, names: impl IntoIterator<Item = PeerName>) -> Vec<(PeerName, Stamp)> {
        names
            .into_iter()
            .filter_map(|name| self.entries.get(&name).map(|entry| (name, entry.stamp())))
            .collect()
    }

    /// What the sender of these stamps, all it has, lacks.
    pub(crate) fn newer_than(&self, stamps: &[(PeerName, Stamp)]) -> Vec<PeerName> {
        let theirs: BTreeMap<_, _> = stamps.iter().copied().collect();
        let newer = |(name, entry): (&PeerName, &Entry)| {
            theirs.get(name).is_none_or(|stamp| entry.stamp() > *stamp).then_some(*name)
        };
        self.entries.iter().filter_map(newer).collect()
    }

    /// Packs the entries of these names, as far as they are known.
    pub(crate) fn pack(&self, names: &[PeerName]) -> Vec<Records> {
        let known = |name: &PeerName| self.entries.get(name).map(|entry| (*name, self.said(*name, entry)));
        Records::pack(names.iter().filter_map(known))
    }

    /// Who can reach whom: links that both ends report, and ours with whom we have a session now. To `quiet` ones
    /// and from them we pass on nothing.
    pub(crate) fn graph(&self, neighbours: &BTreeSet<PeerName>, quiet: &BTreeSet<PeerName>) -> Graph {
        self.links.graph(self.me, neighbours).quiet(quiet)
    }

    /// The links over which one end or the other says that nothing carries frames.
    pub(crate) fn idle(&self) -> impl Iterator<Item = (PeerName, PeerName)> {
        let records = self.entries.keys().filter_map(|name| self.record(*name));
        records.flat_map(|record| record.idle.iter().map(|peer| (record.name, *peer)))
    }

    /// At the limit the oldest knowledge to go is that somebody was removed.
    fn make_room(&mut self) -> bool {
        let removed = self.entries.iter().find(|(_, entry)| matches!(entry, Entry::Removed(_)));
        let Some(name) = removed.map(|(name, _)| *name) else { return false };
        if let Some(entry) = self.entries.remove(&name) {
            self.mix(name, entry.stamp());
            self.links.replace(name, &[]);
        }
        true
    }

    fn put(&mut self, name: PeerName, entry: Entry) {
        self.mix(name, entry.stamp());
        if let Some(old) = self.entries.insert(name, entry) {
            self.mix(name, old.stamp());
        }
    }

    /// Adds a stamp to the hash, or takes it out again.
    fn mix(&mut self, name: PeerName, stamp: Stamp) {
        let digest = Blake2s256::digest(codec::encode(&(name, stamp)));
        self.hash.iter_mut().zip(digest).for_each(|(byte, mixed)| *byte ^= mixed);
    }
}

#[cfg(test)]
mod tests;
