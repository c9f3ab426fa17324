//! Everything the data half counts.

use crate::{
    sleeve::{Refusal, link::LinkCounters},
    switch::verdict::DropReason,
};
use std::collections::BTreeMap;
use weft_gossip::PeerName;

/// How many frames, and how many bytes of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct Tally {
    /// Frames.
    pub frames: u64,
    /// Their bytes, with Ethernet headers.
    pub bytes: u64,
}

impl Tally {
    /// Counts one frame.
    pub fn add(&mut self, bytes: usize) {
        self.frames += 1;
        self.bytes += bytes as u64;
    }
}

/// The data half in numbers, since it started.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize)]
pub struct Counters {
    /// Frames this host's bridge handed over.
    pub captured: Tally,
    /// Of those, sent to one peer.
    pub forwarded: Tally,
    /// Of those, sent along the broadcast tree.
    pub flooded: Tally,
    /// Frames handed to this host's bridge.
    pub injected: Tally,
    /// Pieces of frames passed on for other peers.
    pub relayed: Tally,
    /// Datagrams received, authentic or not.
    pub datagrams: u64,
    /// Frames that went nowhere, by reason.
    pub drops: BTreeMap<DropReason, u64>,
    /// Datagrams and announcements that were not taken, by reason.
    pub refusals: BTreeMap<Refusal, u64>,
    /// MAC addresses known to be behind peers.
    pub macs: usize,
    /// How often a MAC address turned up behind another peer.
    pub macs_moved: u64,
    /// How often there was no room to learn a MAC address.
    pub macs_refused: u64,
    /// Each direct neighbour.
    pub links: BTreeMap<PeerName, LinkCounters>,
    /// What happened to the sockets; filled in by whoever owns them.
    pub shell: ShellCounters,
}

impl Counters {
    /// Counts a frame that went nowhere.
    pub fn drop(&mut self, reason: DropReason) {
        *self.drops.entry(reason).or_default() += 1;
    }

    /// Counts what was not taken.
    pub fn refuse(&mut self, refusal: Refusal) {
        *self.refusals.entry(refusal).or_default() += 1;
    }
}

/// What happened at the edge of the data half.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize)]
pub struct ShellCounters {
    /// How frames are captured now; empty while the interface is missing.
    pub capture: String,
    /// How often the capture was opened.
    pub capture_opened: u64,
    /// Frames the kernel dropped because this thread was too slow.
    pub capture_dropped: u64,
    /// Datagrams that found the send buffer full.
    pub send_full: u64,
    /// Sends the kernel refused as too large for the interface.
    pub send_too_large: u64,
    /// Sends that failed otherwise.
    pub send_failed: u64,
    /// Receive calls that failed.
    pub receive_failed: u64,
    /// Reports that could not be delivered because nobody took them.
    pub events_lost: u64,
}
