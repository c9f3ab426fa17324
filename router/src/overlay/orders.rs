//! What the overlay asks of the world: one ordered queue, and the whole wish for the kernel.
//!
//! The outputs are carried out in the order in which they stand here, each before the next: that is what
//! makes a change of carrier safe. The wish for the kernel is always the whole of it, so carrying out only
//! the latest of several is fine, as long as none is carried past a [`Output::MoveMacs`].

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use weft_fastpath::MacAddr;
use weft_gossip::PeerName;

use super::wire::{Far, Stand, Told};
use crate::dataplane::Command;

/// What the overlay wants done.
#[derive(Clone, Debug)]
pub enum Output {
    /// Tell a neighbour over its session.
    Tell(PeerName, Told),
    /// Tell a peer without a session, through the others; it may be lost.
    Far(PeerName, Far),
    /// Command the data half.
    Data(Command),
    /// The neighbour's link fell silent: ask its session whether the router is there at all.
    Verify(PeerName),
    /// A carrier changed: the forwarding table must be made anew.
    Changed,
    /// The peer has said that it leaves the cluster for good.
    Left(PeerName),
    /// What the kernel must hold for fastpath; answered with [`super::Overlay::handle_applied`].
    Kernel(KernelWish),
    /// Move every MAC address behind a peer to the other bridge port, and when leaving VXLAN delete its
    /// entry there afterwards; answered with [`super::Overlay::handle_moved`].
    MoveMacs {
        /// The peer.
        peer: PeerName,
        /// The peer's underlay address: which entries of the VXLAN device are meant.
        address: IpAddr,
        /// The number to answer with.
        job: u64,
        /// The port they move to: sleeve's or the VXLAN device.
        to: Stand,
    },
    /// Send these bytes out of the bridge to this MAC address, under the probes' ethertype.
    Probe {
        /// The peer's VXLAN device.
        mac: MacAddr,
        /// The sealed probe.
        bytes: Vec<u8>,
    },
    /// The peers that a restart must remember have changed ([`super::Overlay::remembered`]).
    Remember,
}

/// What the kernel must hold for fastpath: the whole of it, every time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KernelWish {
    /// The number to answer with.
    pub serial: u64,
    /// Every peer that fastpath serves or may serve.
    pub remotes: BTreeMap<PeerName, RemoteWish>,
}

/// One peer, as the kernel must know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemoteWish {
    /// Its underlay address.
    pub address: IpAddr,
    /// The UDP port of its VXLAN device.
    pub port: u16,
    /// The MAC address of its VXLAN device: a permanent entry, so that probes take the real path.
    pub mac: MacAddr,
    /// What the source filter lets in from it.
    pub accept: Accept,
    /// Whether flooded frames go there: it is on fastpath, or coming back to it.
    pub default: bool,
}

/// What the source filter lets in from a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Accept {
    /// Probes: the peer may be on fastpath one day, or is leaving it, and a late frame would turn both ends' tables back.
    Probes,
    /// Everything: the peer is on fastpath, or coming back to it.
    Frames,
}

/// A peer on fastpath, as a restarted router remembers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remembered {
    /// The peer.
    pub peer: PeerName,
    /// Its underlay address.
    pub address: IpAddr,
    /// The UDP port of its VXLAN device.
    pub port: u16,
}

/// The queue, and what the kernel has been asked for so far.
#[derive(Debug, Default)]
pub(super) struct Orders {
    queue: VecDeque<Output>,
    wish: KernelWish,
    /// In which wish the kernel was first asked for a peer at its address.
    asked: BTreeMap<PeerName, u64>,
    applied: u64,
    job: u64,
    pub(super) counters: Counters,
}

/// What the overlay counts, over all peers, since the router started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// How often a peer got another carrier, or lost its last.
    pub carrier_changes: u64,
    /// Changes of carrier that were given up, refused or undone.
    pub changes_failed: u64,
    /// Steps of a change for which the kernel took too long.
    pub kernel_late: u64,
    /// Probes that were not sealed by the peer they name, came twice, or were not asked for.
    pub probes_refused: u64,
    /// Peers whose kernel entries were kept although their session was lost.
    pub held: u64,
}

impl Orders {
    pub(super) fn push(&mut self, output: Output) {
        self.queue.push_back(output);
    }

    pub(super) fn pop(&mut self) -> Option<Output> {
        self.queue.pop_front()
    }

    pub(super) fn wish(&self) -> &KernelWish {
        &self.wish
    }

    pub(super) fn remote(&self, peer: PeerName) -> Option<&RemoteWish> {
        self.wish.remotes.get(&peer)
    }

    /// Asks the kernel for this; the number is that of the wish that has it.
    pub(super) fn want(&mut self, peer: PeerName, remote: Option<RemoteWish>) -> u64 {
        let before = match remote {
            Some(remote) => self.wish.remotes.insert(peer, remote),
            None => self.wish.remotes.remove(&peer),
        };
        if before != remote {
            self.wish.serial += 1;
            let place = |remote: RemoteWish| (remote.address, remote.port);
            match remote {
                Some(remote) if before.map(place) == Some(place(remote)) => {}
                Some(_) => drop(self.asked.insert(peer, self.wish.serial)),
                None => drop(self.asked.remove(&peer)),
            }
            self.queue.push_back(Output::Kernel(self.wish.clone()));
        }
        self.wish.serial
    }

    /// Has the MAC addresses behind a peer moved; the number is that of the job.
    pub(super) fn move_macs(&mut self, peer: PeerName, address: IpAddr, to: Stand) -> u64 {
        self.job += 1;
        let job = self.job;
        self.queue.push_back(Output::MoveMacs { peer, address, job, to });
        job
    }

    /// The kernel holds this wish, and so all before it.
    pub(super) fn applied(&mut self, serial: u64) {
        self.applied = self.applied.max(serial.min(self.wish.serial));
    }

    /// Whether the kernel knows the peer: before that a probe would be flooded, to containers too, and reach nobody.
    pub(super) fn is_known(&self, peer: PeerName) -> bool {
        self.asked.get(&peer).is_some_and(|serial| self.is_applied(*serial))
    }

    pub(super) fn is_applied(&self, serial: u64) -> bool {
        self.applied >= serial
    }
}
