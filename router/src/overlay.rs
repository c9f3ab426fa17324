//! One peer, one carrier: what both ends offer, what works now, which carrier is used, and why.
//!
//! One entry per direct neighbour, and one per lost neighbour whose kernel may go on forwarding. The overlay
//! hears from the session (established, told, lost), from the data half (link up, suspect, down), from its own
//! probes on the VXLAN path, from the kernel and from the allocator (who was seeded apart), and answers with
//! commands for the data half, a wish for the kernel and messages for the neighbour.
//!
//! ```text
//!             told ┌──────────────────────── overlay ────────────────────────┐ tell
//!  session  ──────►│ carrier.rs    one peer: session.rs, kept without: hold.rs│──────► session
//!                  │   upkeep.rs       what follows from what is known       │
//!  data half ─────►│   probe.rs        does VXLAN get through?               │──────► data half
//!  probes   ──────►│   judge.rs        what is best, and why (reason.rs)     │──────► probes
//!                  │   strand.rs       a dead path between live routers      │
//!  kernel   ──────►│   switchover.rs   the change both ends make together    │──────► kernel: wish, moves
//!                  └ orders.rs    everything that goes out, in one order ────┘
//! ```

mod carrier;
mod hold;
mod judge;
mod orders;
mod probe;
mod reason;
mod session;
mod strand;
mod switchover;
#[cfg(test)]
mod tests;
mod upkeep;
mod wire;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use weft_gossip::PeerName;

pub use carrier::Neighbour;
pub use orders::{Accept, Counters, KernelWish, Output, Remembered, RemoteWish};
pub use reason::Reason;
pub use wire::{Denial, Far, FastpathOffer, Goodbye, Offer, Path, ProbeKey, Say, Stand, Told, View};

use crate::alarms::Alarms;
use crate::dataplane::Event;
use orders::Orders;
use session::Here;

/// What this router offers to every neighbour.
#[derive(Clone, Debug)]
pub struct Config {
    /// This router.
    pub me: PeerName,
    /// The UDP port of our sleeve; `None` with `--no-sleeve`.
    pub sleeve: Option<u16>,
    /// The UDP port of our VXLAN device; `None` with `--no-fastpath`.
    pub fastpath: Option<u16>,
    /// The containers' MTU, bytes: a full-size probe is that large.
    pub mtu: u16,
    /// Whether a cluster secret is set.
    pub encrypted: bool,
    /// Subnets in which frames may travel in clear although a secret is set.
    pub trusted: Vec<ipnet::IpNet>,
    /// Where the keys of the probes come from.
    pub entropy: Entropy,
}

/// 256 bits that all keys of the probes grow from: of the operating system, but in tests and simulations.
#[derive(Clone)]
pub struct Entropy(pub [u8; 32]);

impl fmt::Debug for Entropy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Entropy(..)")
    }
}

/// The machine: one entry per direct neighbour, and per lost one whose kernel may go on forwarding.
#[derive(Debug)]
pub struct Overlay {
    here: Here,
    neighbours: BTreeMap<PeerName, Neighbour>,
    /// When each neighbour wants to be called.
    alarms: Alarms<PeerName>,
    orders: Orders,
    rng: StdRng,
}

impl Overlay {
    /// Makes an overlay that knows only who was on fastpath when the router last ran.
    ///
    /// Whoever must not be any more (a secret was set, a flag changed) is not taken over.
    #[must_use]
    pub fn new(config: Config, remembered: &[Remembered], now: Instant) -> Self {
        let rng = StdRng::from_seed(config.entropy.0);
        let here = Here { config, ready: None, barred: BTreeSet::new(), crowd: 0 };
        let (me, mut orders) = (here.config.me, Orders::default());
        let allowed = |known: &&Remembered| {
            known.peer != me && here.config.fastpath.is_some() && here.may_be_clear(known.address)
        };
        let neighbours = remembered
            .iter()
            .filter(allowed)
            .map(|known| (known.peer, Neighbour::remember(me, *known, &mut orders, now)))
            .collect();
        let mut overlay = Self { here, neighbours, alarms: Alarms::default(), orders, rng };
        overlay.plan_all();
        overlay
    }

    /// A session with `peer` stands: offers what we can carry.
    pub fn handle_established(
        &mut self,
        peer: PeerName,
        nickname: String,
        remote: SocketAddr,
        session: u64,
        now: Instant,
    ) {
        let key = ProbeKey(self.rng.random());
        let me = self.here.config.me;
        let fresh = || Neighbour::new(me, peer, remote.ip().to_canonical());
        let neighbour = self.neighbours.entry(peer).or_insert_with(fresh);
        if neighbour.removed {
            *neighbour = fresh();
        }
        neighbour.established((nickname, remote, session, key), &self.here, &mut self.orders, now);
        self.here.crowd = self.neighbours().count();
        self.plan(peer);
    }

    /// The last session with `peer` ended: its link goes with it; what its kernel may still use is kept.
    pub fn handle_lost(&mut self, peer: PeerName, now: Instant) {
        if self.neighbours.get_mut(&peer).is_some_and(|neighbour| !neighbour.lost(&mut self.orders, now)) {
            self.neighbours.remove(&peer);
        }
        self.here.crowd = self.neighbours().count();
        self.plan(peer);
    }

    /// A neighbour told us something over its session.
    pub fn handle_told(&mut self, peer: PeerName, told: Told, now: Instant) {
        if let Some(neighbour) = self.neighbours.get_mut(&peer) {
            neighbour.told(told, &self.here, &mut self.orders, now);
            self.plan(peer);
        }
    }

    /// The data half reports about a link.
    pub fn handle_data(&mut self, event: &Event, now: Instant) {
        let (here, orders) = (&self.here, &mut self.orders);
        match event {
            Event::Announce { peer, session, bytes } => {
                if self.neighbours.get(peer).is_some_and(|neighbour| neighbour.is_session(*session)) {
                    let told = Told::Sleeve { session: *session, announcement: bytes.clone() };
                    orders.push(Output::Tell(*peer, told));
                }
            }
            Event::LinkUp { peer, rtt, mtu } => {
                if let Some(neighbour) = self.neighbours.get_mut(peer).filter(|n| !n.is_held()) {
                    neighbour.link_up(*rtt, *mtu, here, orders, now);
                    self.plan(*peer);
                }
            }
            Event::LinkChanged { peer, rtt, mtu } => {
                if let Some(neighbour) = self.neighbours.get_mut(peer).filter(|n| !n.is_held()) {
                    neighbour.link_changed(*rtt, *mtu, here, orders, now);
                    self.plan(*peer);
                }
            }
            Event::LinkSuspect { peer } => orders.push(Output::Verify(*peer)),
            Event::LinkDown { peer } => {
                if let Some(neighbour) = self.neighbours.get_mut(peer).filter(|n| !n.is_held()) {
                    neighbour.link_down(here, orders, now);
                    self.plan(*peer);
                }
            }
            Event::Counters(_) | Event::Behind { .. } => {}
        }
    }

    /// Whether the kernel here can do fastpath, or why not; may change while the router runs.
    pub fn handle_kernel_ready(&mut self, ready: Result<(), String>, now: Instant) {
        if self.here.ready.as_ref() == Some(&ready) {
            return;
        }
        self.here.ready = Some(ready);
        for neighbour in self.neighbours.values_mut().filter(|neighbour| !neighbour.is_held()) {
            neighbour.offer(&self.here, &mut self.orders);
            neighbour.tend(&self.here, &mut self.orders, now);
        }
        self.plan_all();
    }

    /// The kernel holds the wish with this number, and so everything that was asked before it.
    pub fn handle_applied(&mut self, serial: u64, now: Instant) {
        self.orders.applied(serial);
        for (peer, neighbour) in &mut self.neighbours {
            neighbour.applied(&self.here, &mut self.orders, now);
            self.alarms.set(*peer, neighbour.deadline());
        }
    }

    /// The MAC addresses of [`Output::MoveMacs`] are where they should be, or could not be moved.
    pub fn handle_moved(&mut self, peer: PeerName, job: u64, now: Instant) {
        if let Some(neighbour) = self.neighbours.get_mut(&peer) {
            neighbour.moved(job, &self.here, &mut self.orders, now);
            self.plan(peer);
        }
    }

    /// A probe arrived on the bridge.
    pub fn handle_probe(&mut self, bytes: &[u8], now: Instant) {
        match probe::sender(bytes).and_then(|sender| self.neighbours.get_mut(&sender)) {
            Some(neighbour) => {
                neighbour.probed(bytes, &self.here, &mut self.orders, now);
                self.alarms.set(neighbour.peer, neighbour.deadline());
            }
            None => self.orders.counters.probes_refused += 1,
        }
    }

    /// Frames pass between this host and these over fastpath: a failure should be seen soon.
    pub fn handle_traffic(&mut self, hosts: &BTreeSet<IpAddr>, now: Instant) {
        for (peer, neighbour) in self.neighbours.iter_mut().filter(|(_, n)| hosts.contains(&n.address)) {
            neighbour.traffic(now);
            self.alarms.set(*peer, neighbour.deadline());
        }
    }

    /// Who is known to the mesh, and whether there is a way to them: for peers without a session of ours
    /// that way leads through others.
    pub fn handle_mesh(&mut self, known: impl Fn(PeerName) -> Option<bool>, now: Instant) {
        for (peer, neighbour) in self.neighbours.iter_mut().filter(|(_, neighbour)| neighbour.is_held()) {
            neighbour.rumour(known(*peer), &self.here, &mut self.orders, now);
            self.alarms.set(*peer, neighbour.deadline());
        }
    }

    /// Neighbours that the kernel serves in vain, as both ends say.
    pub fn stranded(&self) -> impl Iterator<Item = PeerName> {
        self.neighbours().filter(|(_, neighbour)| neighbour.is_stranded()).map(|(peer, _)| peer)
    }

    /// Whether a way leads to each of those that avoids our own link.
    pub fn handle_detours(&mut self, leads: impl Fn(PeerName) -> bool, now: Instant) {
        for (peer, neighbour) in self.neighbours.iter_mut().filter(|(_, neighbour)| neighbour.is_stranded()) {
            neighbour.detour(leads(*peer), &self.here, &mut self.orders, now);
            self.alarms.set(*peer, neighbour.deadline());
        }
    }

    /// A peer without a session said something through others.
    pub fn handle_far(&mut self, peer: PeerName, far: Far, now: Instant) {
        let neighbour = self.neighbours.get_mut(&peer);
        if neighbour.as_ref().is_some_and(|neighbour| !neighbour.is_held()) {
            return; // what is said over the session counts
        }
        if let Some(neighbour) = neighbour {
            neighbour.part(&mut self.orders, now);
            self.plan(peer);
        }
        if far == Far::Part {
            self.orders.push(Output::Far(peer, Far::Parted));
        }
    }

    /// The peer is gone for good: nothing of it is kept in the kernel.
    pub fn remove(&mut self, peer: PeerName, now: Instant) {
        let Some(neighbour) = self.neighbours.get_mut(&peer) else { return };
        neighbour.removed = true;
        if neighbour.is_held() {
            neighbour.forget(&mut self.orders, now);
            self.neighbours.remove(&peer);
        } else {
            neighbour.leave(&mut self.orders, now);
            neighbour.tend(&self.here, &mut self.orders, now);
        }
        self.plan(peer);
    }

    /// Sets who was seeded apart from us: no carrier serves them.
    pub fn bar(&mut self, barred: BTreeSet<PeerName>, now: Instant) {
        if barred == self.here.barred {
            return;
        }
        self.here.barred = barred;
        for (peer, neighbour) in &mut self.neighbours {
            if self.here.barred.contains(peer) {
                neighbour.leave(&mut self.orders, now);
            }
            neighbour.tend(&self.here, &mut self.orders, now);
        }
        self.neighbours.retain(|_, neighbour| {
            let kept = !neighbour.is_held() || neighbour.memory().is_some();
            if !kept {
                neighbour.forget(&mut self.orders, now);
            }
            kept
        });
        self.plan_all();
        self.orders.push(Output::Changed);
    }

    /// Says goodbye to every neighbour.
    pub fn farewell(&mut self, goodbye: Goodbye) {
        for (peer, _) in self.neighbours.iter().filter(|(_, neighbour)| !neighbour.is_held()) {
            self.orders.push(Output::Tell(*peer, Told::Goodbye(goodbye)));
        }
    }

    /// When the overlay wants to be called again.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.alarms.next()
    }

    /// Time passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        for peer in self.alarms.due(now + self.here.early()) {
            let Some(neighbour) = self.neighbours.get_mut(&peer) else { continue };
            if !neighbour.timeout(&self.here, &mut self.orders, now) {
                self.neighbours.remove(&peer);
            }
            self.plan(peer);
        }
    }

    /// The neighbour was touched: it may want to be called at another time.
    fn plan(&mut self, peer: PeerName) {
        self.alarms.set(peer, self.neighbours.get(&peer).and_then(Neighbour::deadline));
    }

    fn plan_all(&mut self) {
        self.alarms = Alarms::default();
        for (peer, neighbour) in &self.neighbours {
            self.alarms.set(*peer, neighbour.deadline());
        }
    }

    /// Drains what the overlay wants done; it must be done in this order.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.orders.pop()
    }

    /// What the kernel must hold for fastpath as things stand.
    #[must_use]
    pub fn wish(&self) -> &KernelWish {
        self.orders.wish()
    }

    /// Who is on fastpath: what the next start must know to leave the kernel as it is.
    #[must_use]
    pub fn remembered(&self) -> Vec<Remembered> {
        self.neighbours.values().filter_map(Neighbour::memory).collect()
    }

    /// Everything counted so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.orders.counters
    }

    /// Who must get no frame from us and whose frames we drop.
    #[must_use]
    pub fn barred(&self) -> &BTreeSet<PeerName> {
        &self.here.barred
    }

    /// The entry of a direct neighbour.
    #[must_use]
    pub fn neighbour(&self, peer: PeerName) -> Option<&Neighbour> {
        self.neighbours.get(&peer).filter(|neighbour| !neighbour.is_held())
    }

    /// Every direct neighbour with its entry, ordered by name.
    pub fn neighbours(&self) -> impl Iterator<Item = (PeerName, &Neighbour)> {
        let direct = self.neighbours.iter().filter(|(_, neighbour)| !neighbour.is_held());
        direct.map(|(peer, neighbour)| (*peer, neighbour))
    }

    /// Every lost neighbour whose kernel may go on forwarding, ordered by name.
    pub fn held(&self) -> impl Iterator<Item = PeerName> {
        let held = |neighbour: &Neighbour| neighbour.is_held() && neighbour.memory().is_some();
        self.neighbours.iter().filter(move |(_, neighbour)| held(neighbour)).map(|(peer, _)| *peer)
    }
}
