//! A peer without a session whose kernel may go on forwarding: how long its entries are kept, and how both ends part.
//!
//! ```text
//!  lost on fastpath ──► held ──► others reach it, for RELAYED ──► asks it, through them ──► parting (LINGER) ──► gone
//!                        │                                 asked by it ──────────────────────►┘
//!                        └──► nothing heard for HOLD ──► gone
//! ```
//!
//! Each end hears in its own time that others reach the other one. If it stopped by itself, its filter would drop what
//! the other goes on sending by VXLAN, and nobody would tell that one. So one asks, both stop sending, and both let in
//! what is still under way.

use std::time::{Duration, Instant};

use super::carrier::Neighbour;
use super::orders::{Orders, Output};
use super::session::Here;
use super::switchover::LINGER;
use super::wire::{Far, Stand};

/// How long the kernel's entries of a peer are kept after its session was lost: its router may be restarting
/// while its kernel goes on forwarding.
const HOLD: Duration = Duration::from_secs(600);
/// How long a restarted router keeps them when nobody tells it about the peer.
const REMEMBERED: Duration = Duration::from_secs(60);
/// How long a peer whose router is alive, but reached only through others, may take to come back by itself;
/// dialling takes at most 5 s.
const RELAYED: Duration = Duration::from_secs(15);
/// How long until all have heard that such a peer is no neighbour any more: a large mesh looks at its routes once a
/// second. Before, those between may believe that floods go straight there; afterwards they bring them, and whoever
/// went on sending them straight would send them twice.
const HEARD: Duration = Duration::from_secs(2);
/// How often a peer is asked to part.
const AGAIN: Duration = Duration::from_secs(1);

/// Why entries are kept without a session, and for how long.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hold {
    until: Instant,
    /// Only the last run's memory speaks for the peer.
    remembered: bool,
    /// The peer is reached through others.
    relayed: bool,
    /// When all have heard of that.
    heard: Option<Instant>,
    /// All have: the others bring it what is flooded, and the kernel must not.
    bypassed: bool,
    /// When the peer is asked to part, or asked again.
    asks: Option<Instant>,
    /// Nothing is sent by fastpath any more.
    parting: bool,
}

impl Hold {
    fn new(until: Instant, remembered: bool) -> Self {
        Self { until, remembered, relayed: false, heard: None, bypassed: false, asks: None, parting: false }
    }

    /// Of a peer whose session was lost now.
    pub(super) fn lost(now: Instant) -> Self {
        Self::new(now + HOLD, false)
    }

    /// Of a peer that was on fastpath when the router last ran.
    pub(super) fn remembered(now: Instant) -> Self {
        Self::new(now + REMEMBERED, true)
    }

    pub(super) fn is_bypassed(&self) -> bool {
        self.bypassed
    }

    pub(super) fn deadline(&self) -> Instant {
        [self.heard, self.asks].into_iter().flatten().fold(self.until, Instant::min)
    }
}

impl Neighbour {
    /// What the mesh knows of a peer without a session: whether it is there at all, and reached through others.
    pub(super) fn rumour(&mut self, known: Option<bool>, here: &Here, orders: &mut Orders, now: Instant) {
        let Some(hold) = self.hold.as_mut().filter(|hold| !hold.parting) else { return };
        if known.is_some() && hold.remembered {
            (hold.remembered, hold.until) = (false, now + HOLD);
        }
        let relayed = known == Some(true);
        if relayed == std::mem::replace(&mut hold.relayed, relayed) {
            return;
        }
        // Without a sleeve nobody could bring it anything from here.
        let brought = relayed && here.config.sleeve.is_some();
        hold.heard = brought.then(|| now + HEARD);
        hold.asks = brought.then(|| now + RELAYED);
        if !relayed && std::mem::take(&mut hold.bypassed) {
            self.gate(false, orders);
        }
    }

    /// Time passed for a peer without a session; whether anything of it is kept.
    pub(super) fn hold_on(&mut self, orders: &mut Orders, now: Instant) -> bool {
        let Some(hold) = self.hold.as_mut().filter(|_| self.session.is_none()) else { return true };
        if now >= hold.until {
            tracing::info!(peer = %self.peer, nickname = self.nickname, "fastpath to a lost peer is given up");
            self.forget(orders, now);
            return false;
        }
        if hold.asks.is_some_and(|asks| now >= asks) {
            hold.asks = Some(now + AGAIN);
            orders.push(Output::Far(self.peer, Far::Part));
        }
        if hold.heard.is_some_and(|heard| now >= heard) {
            (hold.heard, hold.bypassed) = (None, true);
            self.gate(false, orders);
        }
        true
    }

    /// Both ends stop sending by fastpath; what is under way is still let in.
    pub(super) fn part(&mut self, orders: &mut Orders, now: Instant) {
        let Some(hold) = self.hold.as_mut().filter(|hold| !hold.parting) else { return };
        *hold = Hold { parting: true, ..Hold::new(now + LINGER, false) };
        self.with(orders, |_, hands| hands.part());
    }

    /// Whether what is still under way is let in from a peer to which nothing is sent any more.
    pub(super) fn is_parting(&self) -> bool {
        self.hold.is_some_and(|hold| hold.parting)
    }

    /// Nothing of a peer without a session is left in the kernel; what late frames turned to fastpath is turned back.
    pub(super) fn forget(&mut self, orders: &mut Orders, now: Instant) {
        if self.is_parting() {
            orders.move_macs(self.peer, self.address, Stand::Sleeve);
        }
        self.leave(orders, now);
        orders.want(self.peer, None);
    }
}
