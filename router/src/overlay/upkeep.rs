//! What follows from everything known of a peer, brought up to date after every input.
//!
//! Each part looks at the state as it is and does what is missing, so no input has to know what depends on it.

use std::time::Instant;

use weft_fastpath::MacAddr;

use super::carrier::{Neighbour, UNFIT};
use super::judge::{Target, patience};
use super::orders::{Accept, Orders, Output, RemoteWish};
use super::session::Here;
use super::wire::{Stand, Told};

impl Neighbour {
    /// Brings everything that follows from what is known up to date. Called after every input.
    pub(super) fn tend(&mut self, here: &Here, orders: &mut Orders, now: Instant) {
        self.fit(here, orders, now);
        self.gate(self.terms(here).is_ok(), orders);
        self.probe(here, orders, now);
        self.flush(orders);
        self.strand(orders, now);
        self.lead(here, orders, now);
        self.tell_view(orders, now);
        self.conclude(here, orders, now);
    }

    /// Leaves a fastpath that the other end does not take up.
    fn fit(&mut self, here: &Here, orders: &mut Orders, now: Instant) {
        let unfit = self.stand == Stand::Fastpath && self.session.is_some() && self.terms(here).is_err();
        self.unfit = unfit.then(|| self.unfit.unwrap_or(now));
        let forbidden = here.barred.contains(&self.peer) || self.removed;
        if unfit && (forbidden || self.unfit.is_some_and(|since| now >= since + UNFIT)) {
            self.leave(orders, now);
            self.unfit = None;
        }
    }

    /// Probes exactly while both ends allow and can do fastpath, and the kernel knows where to.
    fn probe(&mut self, here: &Here, orders: &Orders, now: Instant) {
        let wanted = self.terms(here).is_ok() && orders.is_known(self.peer);
        if let Some(session) = &mut self.session {
            session.probe(wanted, here, now);
        }
    }

    /// What the kernel must hold while no change is under way.
    pub(super) fn gate(&self, candidate: bool, orders: &mut Orders) {
        if !self.change.is_settled() || self.is_parting() {
            return;
        }
        let remote = |accept, default| RemoteWish {
            address: self.address,
            port: self.port,
            mac: MacAddr::vxlan_of(self.peer.as_u64()),
            accept,
            default,
        };
        let wish = match self.stand {
            Stand::Fastpath => Some(remote(Accept::Frames, !self.is_bypassed())),
            Stand::Sleeve if self.change.lingers() => return,
            Stand::Sleeve => candidate.then(|| remote(Accept::Probes, false)),
        };
        orders.want(self.peer, wish);
    }

    /// The end with the lower name proposes what both should use.
    fn lead(&mut self, here: &Here, orders: &mut Orders, now: Instant) {
        self.wake = None;
        if !self.leads || !self.change.is_settled() || self.change.rests_until().is_some() {
            return;
        }
        match self.target(here, now) {
            Target::Stay => {}
            Target::Later(at) => self.wake = Some(at),
            Target::Now(to) => self.with(orders, |change, hands| change.propose(to, hands, now)),
        }
    }

    fn tell_view(&mut self, orders: &mut Orders, now: Instant) {
        let (sleeve, path, stand) = (self.sleeve_works(), self.path(), self.stand);
        let Some(session) = &mut self.session else { return };
        if let Some(view) = session.view(sleeve, path, stand, now) {
            orders.push(Output::Tell(self.peer, Told::View(view)));
        }
    }

    /// Says which carrier serves and why; a change is logged once and counted.
    fn conclude(&mut self, here: &Here, orders: &mut Orders, now: Instant) {
        if self.stood != self.stand {
            self.stood = self.stand;
            let served = self.entered.map(|entered| now.saturating_duration_since(entered));
            self.entered = (self.stand == Stand::Fastpath).then_some(now);
            if let Some(served) = served {
                self.wait = patience(self.wait, served);
            }
        }
        if self.session.is_none() {
            return;
        }
        let (carrier, reason) = self.judge(here);
        self.mtu = match self.stand {
            Stand::Fastpath => Some(self.needs(here)),
            Stand::Sleeve => self.sleeve_mtu,
        };
        let changed = self.carrier != carrier;
        if changed || self.reason != reason {
            let (peer, nickname) = (self.peer, &self.nickname);
            let carrier = carrier.unwrap_or_default();
            tracing::info!(%peer, nickname, %carrier, %reason, "carrier");
        }
        (self.carrier, self.reason) = (carrier, reason);
        if changed {
            self.changes += 1;
            orders.counters.carrier_changes += 1;
            orders.push(Output::Changed);
        }
    }
}
