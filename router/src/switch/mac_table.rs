//! Which MAC address is behind which peer, learned from the frames that arrive.
//!
//! Bounded, in all and per peer, so that a container that invents addresses can fill neither the table nor more
//! than its host's share of it. A full table learns nothing new; frames for unknown addresses are flooded.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};
use weft_fastpath::MacAddr;
use weft_gossip::PeerName;

/// How long an address is remembered after its last frame; a Linux bridge's default.
pub const AGE: Duration = Duration::from_secs(300);
/// The most addresses.
pub const CAPACITY: usize = 65_536;
/// The most addresses behind one peer.
pub const PER_PEER: usize = 16_384;
const SWEEP: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, Copy)]
struct Entry {
    peer: PeerName,
    seen: Instant,
    /// The bridge got a frame of it from sleeve since the kernel last took over what is behind the peer.
    fresh: bool,
}

/// Addresses of containers on other hosts.
#[derive(Default)]
pub struct MacTable {
    entries: BTreeMap<MacAddr, Entry>,
    per_peer: BTreeMap<PeerName, usize>,
    swept: Option<Instant>,
    moved: u64,
    refused: u64,
}

impl MacTable {
    /// The peer behind an address.
    pub fn find(&self, mac: MacAddr, now: Instant) -> Option<PeerName> {
        self.entries.get(&mac).filter(|entry| now < entry.seen + AGE).map(|entry| entry.peer)
    }

    /// Whether the bridge got a frame from this address by sleeve since the kernel last took over what is behind its peer:
    /// then it believes that sleeve is the way.
    pub fn is_fresh(&self, mac: MacAddr) -> bool {
        self.entries.get(&mac).is_some_and(|entry| entry.fresh)
    }

    /// The kernel takes over what is behind a peer.
    pub fn hand_over(&mut self, peer: PeerName, now: Instant) -> BTreeSet<MacAddr> {
        self.entries.values_mut().filter(|entry| entry.peer == peer).for_each(|entry| entry.fresh = false);
        self.behind(peer, now).collect()
    }

    /// A frame from this address came from that peer, and the bridge gets it. The last sighting wins at once.
    pub fn learn(&mut self, mac: MacAddr, peer: PeerName, now: Instant) {
        self.see(mac, peer, now);
        if let Some(entry) = self.entries.get_mut(&mac) {
            entry.fresh = true;
        }
    }

    /// A frame from this address came from that peer, and the kernel brings it to the bridge.
    pub fn see(&mut self, mac: MacAddr, peer: PeerName, now: Instant) {
        if let Some(entry) = self.entries.get_mut(&mac)
            && entry.peer == peer
        {
            entry.seen = now;
            return;
        }
        if self.forget(mac) {
            self.moved += 1;
        }
        self.sweep(now);
        let held = self.per_peer.entry(peer).or_default();
        if *held >= PER_PEER || self.entries.len() >= CAPACITY {
            self.refused += 1;
            return;
        }
        *held += 1;
        self.entries.insert(mac, Entry { peer, seen: now, fresh: false });
    }

    /// The address is not behind any peer (any more); whether it was.
    pub fn forget(&mut self, mac: MacAddr) -> bool {
        let Some(entry) = self.entries.remove(&mac) else { return false };
        release(&mut self.per_peer, entry.peer);
        true
    }

    /// Forgets everything behind a peer.
    pub fn forget_peer(&mut self, peer: PeerName) {
        self.entries.retain(|_, entry| entry.peer != peer);
        self.per_peer.remove(&peer);
    }

    /// The addresses and the peers behind them.
    pub fn iter(&self) -> impl Iterator<Item = (MacAddr, PeerName)> {
        self.entries.iter().map(|(mac, entry)| (*mac, entry.peer))
    }

    /// The addresses behind one peer.
    pub fn behind(&self, peer: PeerName, now: Instant) -> impl Iterator<Item = MacAddr> {
        let young = move |entry: &Entry| entry.peer == peer && now < entry.seen + AGE;
        self.entries.iter().filter(move |(_, entry)| young(entry)).map(|(mac, _)| *mac)
    }

    /// How many addresses are known.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How often an address turned up somewhere else.
    pub fn moved(&self) -> u64 {
        self.moved
    }

    /// How often there was no room to learn.
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// Drops what is too old, at most every half minute; called when there is something new to learn.
    fn sweep(&mut self, now: Instant) {
        if self.swept.is_some_and(|swept| now < swept + SWEEP) {
            return;
        }
        self.swept = Some(now);
        let Self { entries, per_peer, .. } = self;
        entries.retain(|_, entry| {
            let young = now < entry.seen + AGE;
            if !young {
                release(per_peer, entry.peer);
            }
            young
        });
    }
}

fn release(per_peer: &mut BTreeMap<PeerName, usize>, peer: PeerName) {
    if let Some(held) = per_peer.get_mut(&peer) {
        *held -= 1;
        if *held == 0 {
            per_peer.remove(&peer);
        }
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "virtual time starts somewhere")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn mac(number: u64) -> MacAddr {
        let [.., a, b, c, d] = number.to_be_bytes();
        MacAddr::new([2, 0, a, b, c, d])
    }

    #[derive(Debug, Clone)]
    enum Step {
        Learn(u64, u64),
        Forget(u64),
        ForgetPeer(u64),
        Wait(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..20_u64, 0..4_u64).prop_map(|(mac, peer)| Step::Learn(mac, peer)),
            1 => (0..20_u64).prop_map(Step::Forget),
            1 => (0..4_u64).prop_map(Step::ForgetPeer),
            2 => (0..200_u64).prop_map(Step::Wait),
        ]
    }

    proptest! {
        #[test]
        fn the_table_agrees_with_a_list_of_sightings(steps in proptest::collection::vec(step(), 1..100)) {
            let (mut table, mut now) = (MacTable::default(), Instant::now());
            let mut model: Vec<(u64, u64, Instant)> = Vec::new();
            for step in steps {
                match step {
                    Step::Learn(address, peer) => {
                        table.learn(mac(address), PeerName::from_u64(peer), now);
                        model.retain(|(known, ..)| *known != address);
                        model.push((address, peer, now));
                    }
                    Step::Forget(address) => {
                        table.forget(mac(address));
                        model.retain(|(known, ..)| *known != address);
                    }
                    Step::ForgetPeer(peer) => {
                        table.forget_peer(PeerName::from_u64(peer));
                        model.retain(|(_, known, _)| *known != peer);
                    }
                    Step::Wait(seconds) => now += Duration::from_secs(seconds),
                }
                for address in 0..20 {
                    let known = model.iter().find(|(known, _, seen)| *known == address && now < *seen + AGE);
                    let known = known.map(|(_, peer, _)| PeerName::from_u64(*peer));
                    prop_assert_eq!(table.find(mac(address), now), known);
                }
                let held: usize = table.per_peer.values().sum();
                prop_assert_eq!(held, table.len());
            }
        }
    }

    #[test]
    fn one_peer_cannot_fill_the_table_and_all_together_cannot_overfill_it() {
        let (mut table, now) = (MacTable::default(), Instant::now());
        for address in 0..20_000 {
            table.learn(mac(address), PeerName::from_u64(1), now);
        }
        assert_eq!((table.len(), table.refused()), (PER_PEER, 20_000 - PER_PEER as u64));
        for address in 20_000..120_000 {
            table.learn(mac(address), PeerName::from_u64(2 + address % 10), now);
        }
        assert_eq!(table.len(), CAPACITY);
        table.learn(mac(1), PeerName::from_u64(9), now + AGE);
        assert_eq!(table.len(), 1);
    }
}
