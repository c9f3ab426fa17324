//! One host of the overlay's world: the machine, its kernel, and what was done to it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Instant;

use weft_gossip::PeerName;

use crate::dataplane::Carrier;
use crate::overlay::*;

/// One order a kernel carried out, for the tests that look at their sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Did {
    Accept(PeerName, Option<Accept>),
    Default(PeerName, bool),
    Moved(PeerName, Stand),
    Carrier(PeerName, Option<Carrier>),
}

pub(super) enum Job {
    Wish(KernelWish),
    Move(PeerName, u64, Stand),
}

pub(super) struct Host {
    pub(super) overlay: Overlay,
    pub(super) config: Config,
    pub(super) kernel: BTreeMap<PeerName, RemoteWish>,
    pub(super) jobs: VecDeque<Job>,
    pub(super) life: u64,
    pub(super) did: Vec<Did>,
    /// Where the bridge sends frames for a peer's container.
    pub(super) port: BTreeMap<PeerName, Stand>,
    /// What the data half was told.
    pub(super) carriers: BTreeMap<PeerName, Carrier>,
    pub(super) running: bool,
    pub(super) verified: u32,
    /// How often sleeve was asked to measure its path.
    pub(super) doubted: u32,
    pub(super) kernel_dead: bool,
    pub(super) ready: bool,
    pub(super) links: BTreeMap<PeerName, u64>,
}

impl Host {
    pub(super) fn new(config: Config, memory: &[Remembered], now: Instant) -> Self {
        Self {
            overlay: Overlay::new(config.clone(), memory, now),
            config,
            kernel: BTreeMap::new(),
            jobs: VecDeque::new(),
            life: 0,
            did: Vec::new(),
            port: BTreeMap::new(),
            carriers: BTreeMap::new(),
            running: true,
            verified: 0,
            doubted: 0,
            kernel_dead: false,
            ready: true,
            links: BTreeMap::new(),
        }
    }

    pub(super) fn carry_out(&mut self, wish: &KernelWish) {
        for (peer, new) in &wish.remotes {
            let old = self.kernel.get(peer);
            if old.is_none_or(|old| old.accept != new.accept) {
                self.did.push(Did::Accept(*peer, Some(new.accept)));
            }
            if old.is_some_and(|old| old.default) != new.default {
                self.did.push(Did::Default(*peer, new.default));
            }
        }
        for (peer, old) in self.kernel.iter().filter(|(peer, _)| !wish.remotes.contains_key(peer)) {
            self.did.push(Did::Accept(*peer, None));
            if old.default {
                self.did.push(Did::Default(*peer, false));
            }
        }
        self.kernel.clone_from(&wish.remotes);
    }

    pub(super) fn table(&mut self) {
        let neighbours = self.overlay.neighbours();
        let carriers: BTreeMap<_, _> =
            neighbours.filter_map(|(peer, neighbour)| Some((peer, neighbour.serving()?))).collect();
        for peer in carriers.keys().chain(self.carriers.keys()).collect::<BTreeSet<_>>() {
            if carriers.get(peer) != self.carriers.get(peer) {
                self.did.push(Did::Carrier(*peer, carriers.get(peer).copied()));
            }
        }
        self.carriers = carriers;
    }
}
