//! A neighbour on fastpath to whom nothing gets through although both routers are alive: left for a way around.
//!
//! A missed probe cannot tell a dead router from a dead path, so fastpath is kept where everything is silent. But when
//! both ends say over their session that nothing of the other comes through, by VXLAN and by sleeve, then it is the path
//! (a firewall that lets TCP pass). Where a way leads there through others, both ends leave fastpath for no carrier at
//! all, and frames go by that way; without one they stay, for nothing would be better.

use std::time::{Duration, Instant};

use super::carrier::Neighbour;
use super::judge::Target;
use super::orders::{Orders, Output};
use super::session::Here;
use super::wire::{Path, Stand};

/// How long it must have been so: a router that is starved misses many probes, but not all for so long.
const PATIENCE: Duration = Duration::from_secs(1);

/// Since when nothing gets through, and whether another way leads to the peer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stranded {
    since: Instant,
    detour: bool,
}

impl Neighbour {
    /// Whether the kernel serves it in vain, as both ends say.
    #[must_use]
    pub fn is_stranded(&self) -> bool {
        self.stranded.is_some()
    }

    /// Looks whether it is so now.
    pub(super) fn strand(&mut self, orders: &mut Orders, now: Instant) {
        let stranded = self.nothing_gets_through();
        if stranded != self.stranded.is_some() {
            self.stranded = stranded.then_some(Stranded { since: now, detour: false });
            orders.push(Output::Changed);
        }
    }

    fn nothing_gets_through(&self) -> bool {
        let Some(theirs) = self.session.as_ref().and_then(|session| session.theirs) else { return false };
        let kernel = [self.stand, theirs.stand] == [Stand::Fastpath; 2];
        let silent = [self.path(), theirs.path].iter().all(|path| matches!(path, Path::Down { .. }));
        kernel && silent && !self.sleeve_works() && !theirs.sleeve
    }

    /// Says whether a way leads to it that avoids the link.
    pub(super) fn detour(&mut self, leads: bool, here: &Here, orders: &mut Orders, now: Instant) {
        let Some(stranded) = &mut self.stranded else { return };
        if std::mem::replace(&mut stranded.detour, leads) != leads {
            self.tend(here, orders, now);
        }
    }

    /// What the leader should propose while fastpath serves and sleeve could not.
    pub(super) fn way_out(&self, now: Instant) -> Target {
        match self.stranded {
            Some(Stranded { since, detour: true }) if now >= since + PATIENCE => Target::Now(Stand::Sleeve),
            Some(Stranded { since, detour: true }) => Target::Later(since + PATIENCE),
            Some(Stranded { detour: false, .. }) | None => Target::Stay,
        }
    }
}
