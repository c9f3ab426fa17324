//! Gossip channels: the latest state of each of ours, and what of everybody's broadcasts was already seen.

use std::collections::BTreeMap;

use blake2::{Blake2s256, Digest};

use crate::event::ChannelName;
use crate::peer::{BootId, Incarnation, PeerName};
use crate::topology::KNOWN_LIMIT;
use crate::wire::Origin;

/// The reserved channel on which changes of records travel; no application can open it.
pub(crate) const TOPOLOGY: ChannelName = ChannelName::new("\u{1}topology");

/// The hash by which two states of a channel are compared; empty for "none yet".
pub(crate) fn state_hash(state: Option<&[u8]>) -> Vec<u8> {
    state.map_or_else(Vec::new, |state| Blake2s256::digest(state)[..16].to_vec())
}

/// The channels the application takes part in, each with its latest full state.
#[derive(Debug, Default)]
pub(crate) struct Channels(BTreeMap<ChannelName, State>);

#[derive(Debug, Default)]
struct State {
    bytes: Option<Vec<u8>>,
    hash: Vec<u8>,
}

impl Channels {
    pub(crate) fn new(names: impl IntoIterator<Item = ChannelName>) -> Self {
        Self(
            names.into_iter().filter(|name| *name != TOPOLOGY).map(|name| (name, State::default())).collect(),
        )
    }

    pub(crate) fn names(&self) -> Vec<ChannelName> {
        self.0.keys().copied().collect()
    }

    pub(crate) fn knows(&self, name: ChannelName) -> bool {
        self.0.contains_key(&name)
    }

    /// Keeps the latest state; true if it differs from the one before.
    pub(crate) fn keep(&mut self, name: ChannelName, bytes: Vec<u8>) -> bool {
        let Some(state) = self.0.get_mut(&name) else { return false };
        let hash = state_hash(Some(&bytes));
        let differs = hash != state.hash;
        *state = State { bytes: Some(bytes), hash };
        differs
    }

    pub(crate) fn state(&self, name: ChannelName) -> Option<&[u8]> {
        self.0.get(&name)?.bytes.as_deref()
    }

    pub(crate) fn hash(&self, name: ChannelName) -> &[u8] {
        self.0.get(&name).map_or(&[], |state| &state.hash)
    }
}

/// Which broadcasts have passed here: per source the highest number and the 64 before it.
#[derive(Debug, Default)]
pub(crate) struct Seen(BTreeMap<PeerName, Window>);

#[derive(Debug, Clone, Copy)]
struct Window {
    incarnation: Incarnation,
    boot: BootId,
    highest: u64,
    /// Bit n: `highest - n` was seen.
    bits: u64,
}

impl Seen {
    /// Notes a broadcast; false if it has passed before, or is too old to tell.
    pub(crate) fn first_time(&mut self, origin: Origin) -> bool {
        let Origin { source, incarnation, boot, sequence } = origin;
        let fresh = Window { incarnation, boot, highest: sequence, bits: 1 };
        let Some(window) = self.0.get_mut(&source) else {
            if self.0.len() < KNOWN_LIMIT {
                self.0.insert(source, fresh);
                return true;
            }
            return false; // there are more sources than peers may be known: their full states will do
        };
        if window.boot != boot {
            if incarnation < window.incarnation {
                return false;
            }
            *window = fresh;
            return true;
        }
        window.incarnation = window.incarnation.max(incarnation);
        if sequence > window.highest {
            let ahead = u32::try_from(sequence - window.highest).unwrap_or(u32::MAX);
            window.bits = window.bits.checked_shl(ahead).unwrap_or(0) | 1;
            window.highest = sequence;
            return true;
        }
        let bit = u32::try_from(window.highest - sequence).ok().and_then(|back| 1u64.checked_shl(back));
        match bit {
            Some(bit) if window.bits & bit == 0 => {
                window.bits |= bit;
                true
            }
            Some(_) | None => false,
        }
    }

    pub(crate) fn forget(&mut self, source: PeerName) {
        self.0.remove(&source);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn origin(boot: u64, incarnation: u64, sequence: u64) -> Origin {
        let source = PeerName::from_u64(1);
        Origin { source, incarnation: Incarnation(incarnation), boot: BootId(boot), sequence }
    }

    #[test]
    fn a_restarted_source_begins_anew_and_its_earlier_life_is_over() {
        let mut seen = Seen::default();
        assert!(seen.first_time(origin(7, 1, 500)));
        assert!(seen.first_time(origin(8, 2, 1)));
        assert!(!seen.first_time(origin(7, 1, 501)));
        assert!(seen.first_time(origin(8, 3, 2)), "raising the incarnation is no new life");
        assert!(!seen.first_time(origin(8, 3, 1)));
    }

    #[test]
    fn a_channel_of_the_mesh_itself_cannot_be_opened() {
        let mut channels = Channels::new([TOPOLOGY, ChannelName::new("ipam")]);
        assert_eq!(channels.names(), [ChannelName::new("ipam")]);
        assert!(!channels.keep(TOPOLOGY, vec![1]));
        assert!(
            channels.keep(ChannelName::new("ipam"), vec![1])
                && !channels.keep(ChannelName::new("ipam"), vec![1])
        );
    }

    proptest! {
        #[test]
        fn no_broadcast_passes_twice_and_none_of_the_last_64_is_lost(numbers in proptest::collection::vec(0u64..200, 1..300)) {
            let (mut seen, mut passed, mut highest) = (Seen::default(), BTreeSet::new(), 0);
            for number in numbers {
                let first = seen.first_time(origin(7, 1, number));
                highest = highest.max(number);
                if first {
                    prop_assert!(passed.insert(number));
                } else {
                    prop_assert!(passed.contains(&number) || highest - number > 63);
                }
            }
        }
    }
}
