//! What must survive the process: one document, written whole before anything it holds is made visible.
//!
//! Ring, allocations, attachments and targets are small (a thousand attachments are about 100 kB) and are
//! read only at start, so one atomically replaced, checksummed file is enough and easier to inspect than a
//! database. `io/store.rs` writes the bytes; this file says what they are.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use weft_gossip::PeerName;
use weft_gossip::codec::{self, DecodeError};

use super::attachments::{Attachment, Exposure};
use super::cni::CniJournal;
use crate::ipam;
use crate::overlay::Remembered;

/// The largest state accepted, bytes of decoded size.
const LIMIT: usize = 64 << 20;

/// The durable state of one router.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct State {
    /// How often this router has been started; raised and written before anything is said to anyone.
    pub incarnation: u64,
    /// The peers that the last launch was given: the same again is a restart and keeps `targets`.
    pub launched_with: Vec<String>,
    /// The targets to dial, as typed.
    pub targets: Vec<String>,
    /// Ring, allocations and votes.
    pub ipam: Option<ipam::Snapshot>,
    /// The journal of attachments.
    pub attachments: Vec<Attachment>,
    /// The host's own addresses on the bridge.
    pub exposed: Option<Exposure>,
    /// What people call the peers ever met: a dead owner of addresses must be removable by the name they know.
    pub nicknames: BTreeMap<PeerName, String>,
    /// Who was on fastpath: a restart leaves the kernel as it is for them.
    pub fastpath: Vec<Remembered>,
    /// Which attachments are pods, of which network.
    pub cni: CniJournal,
}

/// The state as it was written before pods were known.
#[derive(Serialize, Deserialize)]
struct BeforePods {
    before: Before,
    fastpath: Vec<Remembered>,
}

impl From<BeforePods> for State {
    fn from(pods: BeforePods) -> Self {
        Self { fastpath: pods.fastpath, ..Self::from(pods.before) }
    }
}

/// The state as it was written before fastpath was remembered.
#[derive(Serialize, Deserialize)]
struct Before {
    incarnation: u64,
    launched_with: Vec<String>,
    targets: Vec<String>,
    ipam: Option<ipam::Snapshot>,
    attachments: Vec<Attachment>,
    exposed: Option<Exposure>,
    nicknames: BTreeMap<PeerName, String>,
}

impl From<Before> for State {
    fn from(before: Before) -> Self {
        let Before { incarnation, launched_with, targets, ipam, attachments, exposed, nicknames } = before;
        Self {
            incarnation,
            launched_with,
            targets,
            ipam,
            attachments,
            exposed,
            nicknames,
            fastpath: Vec::new(),
            cni: CniJournal::default(),
        }
    }
}

impl State {
    /// Encodes the state.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Decodes what [`State::encode`] made.
    ///
    /// # Errors
    /// When the bytes are not exactly one state; the caller decides what to start from.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        codec::decode::<Self, LIMIT>(bytes)
            .or_else(|error| codec::decode::<BeforePods, LIMIT>(bytes).map(Self::from).map_err(|_| error))
            .or_else(|error| codec::decode::<Before, LIMIT>(bytes).map(Self::from).map_err(|_| error))
    }

    /// Merges what the command line gives with what was kept, and says what to dial.
    ///
    /// The same peers again, or none, are a restart: what `peer add` and `peer forget` changed since stays. Other
    /// peers take the place of those given before; what `peer add` added stays all the same, and with `resume`
    /// so do those given before.
    pub fn adopt_targets(&mut self, given: &[String], resume: bool) {
        if given.is_empty() || given == self.launched_with.as_slice() {
            return;
        }
        let before = std::mem::replace(&mut self.launched_with, given.to_vec());
        if !resume {
            self.targets.retain(|target| !before.contains(target));
        }
        let new: Vec<String> =
            given.iter().filter(|target| !self.targets.contains(target)).cloned().collect();
        self.targets.extend(new);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(list: &[&str]) -> Vec<String> {
        list.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_first_launch_takes_the_peers_it_is_given() {
        let mut state = State::default();
        state.adopt_targets(&words(&["b", "c"]), false);
        assert_eq!(state.targets, words(&["b", "c"]));
    }

    #[test]
    fn the_same_launch_again_keeps_what_was_added_and_forgotten() {
        let mut state = State::default();
        state.adopt_targets(&words(&["b", "c"]), false);
        state.targets = words(&["c", "d"]);
        state.adopt_targets(&words(&["b", "c"]), false);
        assert_eq!(state.targets, words(&["c", "d"]));
        state.adopt_targets(&[], false);
        assert_eq!(state.targets, words(&["c", "d"]));
    }

    #[test]
    fn targets_added_to_a_launch_without_peers_survive_a_restart_with_and_without_peers() {
        let mut state = State::default();
        state.adopt_targets(&[], false);
        state.targets = words(&["b"]);
        state.adopt_targets(&[], false);
        assert_eq!(state.targets, words(&["b"]));
        state.adopt_targets(&words(&["x"]), false);
        assert_eq!(state.targets, words(&["b", "x"]));
    }

    #[test]
    fn other_peers_on_the_command_line_take_the_place_of_those_given_before_unless_resumed() {
        let mut state = State::default();
        state.adopt_targets(&words(&["b"]), false);
        state.targets = words(&["b", "d"]);
        let mut resumed = state.clone();
        resumed.adopt_targets(&words(&["x"]), true);
        assert_eq!(resumed.targets, words(&["b", "d", "x"]));
        state.adopt_targets(&words(&["x"]), false);
        assert_eq!(state.targets, words(&["d", "x"]));
    }

    #[test]
    fn a_state_survives_its_encoding_and_a_cut_one_is_an_error() {
        let state = State { incarnation: 3, targets: words(&["b"]), ..State::default() };
        let bytes = state.encode();
        assert_eq!(State::decode(&bytes).unwrap().targets, state.targets);
        // Without the three bytes of an empty journal of pods, and without the empty list before it, it is a state of
        // one of the versions before.
        let older = [bytes.len() - 3, bytes.len() - 4];
        for end in 0..bytes.len() {
            let cut = State::decode(&bytes[..end]);
            assert_eq!(cut.is_ok(), older.contains(&end), "cut at {end} of {}", bytes.len());
            assert!(cut.is_err() || cut.is_ok_and(|cut| cut.targets == state.targets));
        }
    }

    #[test]
    fn a_state_of_the_version_before_is_read() {
        let before = Before {
            incarnation: 4,
            launched_with: words(&["b"]),
            targets: words(&["b", "c"]),
            ipam: None,
            attachments: Vec::new(),
            exposed: None,
            nicknames: BTreeMap::new(),
        };
        let state = State::decode(&codec::encode(&before)).unwrap();
        assert_eq!((state.incarnation, state.targets, state.fastpath), (4, words(&["b", "c"]), Vec::new()));
        let pods = BeforePods { before, fastpath: Vec::new() };
        let state = State::decode(&codec::encode(&pods)).unwrap();
        assert_eq!((state.incarnation, state.cni), (4, CniJournal::default()));
    }
}
