//! One peer: what is known of both ends, what serves it, and what is kept of it without a session.
//!
//! ```text
//!  session established ──► offers told ──► sleeve link, probes ──► views told, whenever they change
//!                                                                    │ both ends judge alike (judge.rs)
//!  carrier changes ◄── agreed by both (switchover.rs) ◄── proposed ◄─┘ by the end with the lower name
//!
//!  session lost:  on sleeve     ──► nothing is kept
//!                 on fastpath   ──► the kernel goes on forwarding; held, until removed or reached otherwise (hold.rs)
//!  restarted:     remembered    ──► held until the mesh has been heard
//! ```

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use weft_fastpath::MacAddr;
use weft_gossip::PeerName;

use super::hold::Hold;
use super::orders::{Orders, Output, Remembered};
use super::probe::{self, Prober};
use super::reason::Reason;
use super::session::{Here, Session};
use super::strand::Stranded;
use super::switchover::{Hands, Switchover};
use super::wire::{FastpathOffer, Offer, Path, ProbeKey, Say, Stand, Told};
use crate::dataplane::{Carrier, Command};

/// How long fastpath is kept in a session whose other end does not take it up.
pub(super) const UNFIT: Duration = Duration::from_secs(10);
/// Up to this many neighbours, heartbeats to those on fastpath come as if they always carried data.
const FEW: usize = 16;

/// The state of one neighbour's sleeve link, as the data half reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Link {
    Absent,
    Waiting,
    Up,
    Silent,
}

/// One neighbour, as the overlay sees it.
#[derive(Debug)]
pub struct Neighbour {
    pub(super) peer: PeerName,
    pub(super) nickname: String,
    pub(super) leads: bool,
    pub(super) address: IpAddr,
    /// The UDP port of its VXLAN device, once known.
    pub(super) port: u16,
    pub(super) session: Option<Session>,
    /// Stays into a session until the other end has spoken: one that it refused was none.
    pub(super) hold: Option<Hold>,
    pub(super) link: Link,
    /// Sleeve has answered since VXLAN was suspected.
    proof: bool,
    sleeve_rtt: Option<Duration>,
    pub(super) sleeve_mtu: Option<u16>,
    pub(super) stand: Stand,
    pub(super) stood: Stand,
    /// Since when it stands on fastpath.
    pub(super) entered: Option<Instant>,
    /// How long fastpath must have worked before it is used (again).
    pub(super) wait: Duration,
    pub(super) wake: Option<Instant>,
    pub(super) unfit: Option<Instant>,
    pub(super) stranded: Option<Stranded>,
    pub(super) change: Switchover,
    pub(super) removed: bool,
    pub(super) carrier: Option<Carrier>,
    pub(super) reason: Reason,
    pub(super) mtu: Option<u16>,
    pub(super) changes: u64,
}

impl Neighbour {
    /// The carrier that serves the neighbour now, if any works.
    #[must_use]
    pub fn carrier(&self) -> Option<Carrier> {
        self.carrier
    }

    /// What the data half must take for the neighbour's carrier: fastpath also while it is silent and no
    /// other has taken over, because the kernel goes on sending there.
    #[must_use]
    pub fn serving(&self) -> Option<Carrier> {
        match self.stand {
            Stand::Fastpath => Some(Carrier::Fastpath),
            Stand::Sleeve => self.carrier,
        }
    }

    /// Whether frames get to the neighbour, as far as both ends can tell.
    #[must_use]
    pub fn carries(&self) -> bool {
        self.serving().is_some() && !self.is_stranded()
    }

    /// Why this carrier and not a better one.
    #[must_use]
    pub fn reason(&self) -> &Reason {
        &self.reason
    }

    /// The round trip time of the carrier, once measured.
    #[must_use]
    pub fn rtt(&self) -> Option<Duration> {
        match self.stand {
            Stand::Sleeve => self.sleeve_rtt,
            Stand::Fastpath => self.session.as_ref()?.prober()?.rtt(),
        }
    }

    /// The path MTU towards the neighbour in bytes of an IP packet, once found.
    #[must_use]
    pub fn mtu(&self) -> Option<u16> {
        self.mtu
    }

    /// How often the carrier has changed since the session began.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.changes
    }

    pub(super) fn is_held(&self) -> bool {
        self.session.is_none()
    }

    /// What a restart must know of it; nothing of a peer that is not on fastpath.
    pub(super) fn memory(&self) -> Option<Remembered> {
        (self.stand == Stand::Fastpath).then_some(Remembered {
            peer: self.peer,
            address: self.address,
            port: self.port,
        })
    }

    /// A peer that is met for the first time.
    pub(super) fn new(me: PeerName, peer: PeerName, address: IpAddr) -> Self {
        Self {
            peer,
            nickname: peer.to_string(),
            leads: me < peer,
            address,
            port: 0,
            session: None,
            hold: None,
            link: Link::Absent,
            proof: false,
            sleeve_rtt: None,
            sleeve_mtu: None,
            stand: Stand::Sleeve,
            stood: Stand::Sleeve,
            entered: None,
            wait: Duration::ZERO,
            wake: None,
            unfit: None,
            stranded: None,
            change: Switchover::default(),
            removed: false,
            carrier: None,
            reason: Reason::AwaitingOffer,
            mtu: None,
            changes: 0,
        }
    }

    /// A peer that was on fastpath when the router last ran: its kernel may still be.
    pub(super) fn remember(me: PeerName, known: Remembered, orders: &mut Orders, now: Instant) -> Self {
        let mut neighbour = Self::new(me, known.peer, known.address);
        (neighbour.stand, neighbour.stood) = (Stand::Fastpath, Stand::Fastpath);
        (neighbour.entered, neighbour.port) = (Some(now), known.port);
        neighbour.hold = Some(Hold::remembered(now));
        neighbour.gate(false, orders);
        neighbour
    }

    /// A session stands: offers what we can carry. Whatever another session was about is over.
    pub(super) fn established(
        &mut self,
        (nickname, remote, id, key): (String, SocketAddr, u64, ProbeKey),
        here: &Here,
        orders: &mut Orders,
        now: Instant,
    ) {
        let address = remote.ip().to_canonical();
        self.with(orders, |change, hands| change.abort(hands));
        if address != self.address {
            if self.stand == Stand::Fastpath {
                self.with(orders, |change, hands| change.leave_alone(hands, now));
            }
            orders.want(self.peer, None);
            self.address = address;
        }
        self.change.renew();
        if self.hold.is_none() {
            self.with(orders, |change, hands| change.resume(hands, now));
        }
        (self.nickname, self.unfit) = (nickname, None);
        (self.link, self.sleeve_rtt, self.sleeve_mtu, self.changes) = (Link::Absent, None, None, 0);
        self.session = Some(Session::new(id, remote, key));
        let offer = Offer { sleeve: here.config.sleeve, clear: here.may_be_clear(address) };
        orders.push(Output::Tell(self.peer, Told::Offer(offer)));
        self.offer(here, orders);
        orders.push(Output::Changed);
        self.tend(here, orders, now);
    }

    /// Tells what the kernel can carry.
    pub(super) fn offer(&self, here: &Here, orders: &mut Orders) {
        if let (Some(session), Some(port)) = (&self.session, here.port()) {
            let offer = FastpathOffer { session: session.id, port, key: session.key };
            orders.push(Output::Tell(self.peer, Told::Fastpath(offer)));
        }
    }

    /// The last session ended; whether anything of the peer is kept.
    pub(super) fn lost(&mut self, orders: &mut Orders, now: Instant) -> bool {
        if self.session.is_none() {
            return true;
        }
        self.with(orders, |change, hands| change.abort(hands));
        (self.session, self.link, self.carrier, self.mtu) = (None, Link::Absent, None, None);
        (self.wake, self.unfit, self.stranded) = (None, None, None);
        orders.push(Output::Data(Command::RemoveLink { peer: self.peer }));
        orders.push(Output::Changed);
        if self.stand == Stand::Sleeve || self.removed {
            orders.want(self.peer, None);
            return false;
        }
        if self.hold.is_none() {
            orders.counters.held += 1;
            tracing::info!(peer = %self.peer, nickname = self.nickname, "session lost: fastpath is kept as it is");
            self.hold = Some(Hold::lost(now));
        }
        true
    }

    /// Whether what is flooded reaches the peer through others.
    pub(super) fn is_bypassed(&self) -> bool {
        self.hold.is_some_and(|hold| hold.is_bypassed())
    }

    /// The peer is gone for good, or must not be served any more: fastpath is left here and now.
    pub(super) fn leave(&mut self, orders: &mut Orders, now: Instant) {
        if self.stand == Stand::Fastpath || !self.change.is_settled() {
            self.with(orders, |change, hands| change.leave_alone(hands, now));
        }
    }

    /// The neighbour told us something over its session.
    pub(super) fn told(&mut self, told: Told, here: &Here, orders: &mut Orders, now: Instant) {
        let Some(session) = &mut self.session else { return };
        match told {
            Told::Offer(offer) => {
                if let (Some(_), Some(port)) = (here.config.sleeve, offer.sleeve) {
                    let address = SocketAddr::new(session.remote.ip(), port);
                    let (peer, session) = (self.peer, session.id);
                    self.link = Link::Waiting;
                    orders.push(Output::Data(Command::AddLink { peer, session, address }));
                }
                session.offer = Some(offer);
                if self.hold.take().is_some() {
                    self.with(orders, |change, hands| change.resume(hands, now));
                }
            }
            Told::Sleeve { session: id, announcement } => {
                // Keys of a session that has ended open nothing any more.
                if id == session.id {
                    let (peer, session) = (self.peer, id);
                    let command = Command::Announced { peer, session, bytes: announcement };
                    orders.push(Output::Data(command));
                }
                return;
            }
            Told::Goodbye(goodbye) => {
                tracing::info!(peer = %self.peer, nickname = self.nickname, ?goodbye, "peer says goodbye");
                if goodbye == super::Goodbye::Leaving {
                    orders.push(Output::Left(self.peer));
                }
            }
            Told::Fastpath(offer) if offer.session == session.id => {
                self.port = session.offered(offer).unwrap_or(self.port);
            }
            Told::View(view) if view.session == session.id => session.heard(view, now),
            Told::Change { session: id, epoch, say } if id == session.id => {
                self.changing(epoch, say, here, orders, now);
            }
            Told::Fastpath(_) | Told::View(_) | Told::Change { .. } => return,
        }
        self.tend(here, orders, now);
    }

    fn changing(&mut self, epoch: u64, say: Say, here: &Here, orders: &mut Orders, now: Instant) {
        if !self.leads {
            let willing = self.terms(here).is_ok() && matches!(self.path(), Path::Proven | Path::Small);
            return self.with(orders, |change, hands| change.follow(epoch, say, willing, hands, now));
        }
        let was_settled = self.change.is_settled();
        self.with(orders, |change, hands| change.lead(epoch, say, hands, now));
        // Its view of that comes a moment later.
        if say == Say::Done && !was_settled && self.change.is_settled() {
            let theirs = self.session.as_mut().and_then(|session| session.theirs.as_mut());
            theirs.into_iter().for_each(|theirs| theirs.stand = self.stand);
        }
    }

    /// The sleeve link works.
    pub(super) fn link_up(
        &mut self,
        rtt: Duration,
        mtu: u16,
        here: &Here,
        orders: &mut Orders,
        now: Instant,
    ) {
        (self.link, self.proof) = (Link::Up, true);
        self.link_changed(rtt, mtu, here, orders, now);
    }

    /// Sleeve has measured: a path that shrank is news for VXLAN too.
    pub(super) fn link_changed(
        &mut self,
        rtt: Duration,
        mtu: u16,
        here: &Here,
        orders: &mut Orders,
        now: Instant,
    ) {
        let shrank = self.sleeve_mtu.is_some_and(|before| mtu < before) && mtu < self.needs(here);
        (self.sleeve_rtt, self.sleeve_mtu) = (Some(rtt), Some(mtu));
        if let Some(prober) = self.session.as_mut().and_then(Session::prober_mut)
            && shrank
        {
            prober.doubt(now);
        }
        self.tend(here, orders, now);
    }

    /// The sleeve link is silent.
    pub(super) fn link_down(&mut self, here: &Here, orders: &mut Orders, now: Instant) {
        (self.link, self.proof) = (Link::Silent, false);
        orders.push(Output::Verify(self.peer));
        self.tend(here, orders, now);
    }

    pub(super) fn is_session(&self, id: u64) -> bool {
        self.session.as_ref().is_some_and(|session| session.id == id)
    }

    /// The kernel holds another wish.
    pub(super) fn applied(&mut self, here: &Here, orders: &mut Orders, now: Instant) {
        let waits = !self.change.is_settled();
        if waits {
            self.with(orders, |change, hands| change.applied(hands, now));
        }
        let unprobed = self.session.as_ref().is_some_and(|session| session.prober().is_none());
        if waits || (unprobed && orders.is_known(self.peer)) {
            self.tend(here, orders, now);
        }
    }

    /// The kernel has moved the MAC addresses behind the peer.
    pub(super) fn moved(&mut self, job: u64, here: &Here, orders: &mut Orders, now: Instant) {
        self.with(orders, |change, hands| change.moved(job, hands, now));
        self.tend(here, orders, now);
    }

    /// A probe that names the peer arrived.
    pub(super) fn probed(&mut self, bytes: &[u8], here: &Here, orders: &mut Orders, now: Instant) {
        let prober = self.session.as_mut().and_then(Session::prober_mut);
        let Some(Ok(news)) = prober.map(|prober| prober.receive(bytes, now)) else {
            orders.counters.probes_refused += 1;
            return;
        };
        self.flush(orders);
        if news.is_some() {
            self.noticed(news, orders);
            self.tend(here, orders, now);
        }
    }

    /// Frames pass over fastpath.
    pub(super) fn traffic(&mut self, now: Instant) {
        if let Some(prober) = self.session.as_mut().and_then(Session::prober_mut) {
            prober.traffic(now);
        }
    }

    /// When the neighbour wants to be called again.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let session = self.session.as_ref().and_then(Session::deadline);
        let hold = self.hold.filter(|_| self.is_held()).map(|hold| hold.deadline());
        let unfit = self.unfit.map(|since| since + UNFIT);
        [session, hold, unfit, self.wake, self.change.deadline()].into_iter().flatten().min()
    }

    /// Time passed; whether anything of the peer is kept.
    pub(super) fn timeout(&mut self, here: &Here, orders: &mut Orders, now: Instant) -> bool {
        if self.deadline().is_none_or(|deadline| now + here.early() < deadline) {
            return true;
        }
        self.with(orders, |change, hands| change.timeout(hands, now));
        if !self.hold_on(orders, now) {
            return false;
        }
        let busy = here.crowd <= FEW && self.stand == Stand::Fastpath;
        if let Some(prober) = self.session.as_mut().and_then(Session::prober_mut) {
            if busy {
                prober.carried(now);
            }
            let news = prober.timeout(here.is_crowded(), now);
            self.flush(orders);
            self.noticed(news, orders);
        }
        self.tend(here, orders, now);
        true
    }

    /// Whether sleeve can take over: it works, and has said so since VXLAN was suspected.
    pub(super) fn sleeve_works(&self) -> bool {
        let silent = self.stand == Stand::Fastpath && matches!(self.path(), Path::Down { .. });
        self.link == Link::Up && (!silent || self.proof)
    }

    /// What our probes say.
    pub(super) fn path(&self) -> Path {
        self.session.as_ref().and_then(Session::prober).map_or(Path::Untried, Prober::path)
    }

    pub(super) fn flush(&mut self, orders: &mut Orders) {
        let mac = MacAddr::vxlan_of(self.peer.as_u64());
        if let Some(prober) = self.session.as_mut().and_then(Session::prober_mut) {
            while let Some(bytes) = prober.poll() {
                orders.push(Output::Probe { mac, bytes });
            }
        }
    }

    fn noticed(&mut self, news: Option<probe::News>, orders: &mut Orders) {
        let peer = self.peer;
        match news.filter(|_| self.stand == Stand::Fastpath) {
            Some(probe::News::Suspect) => {
                self.proof = false;
                // A sleeve that works is asked first, and says it when it is silent too: probes, like the session, are
                // answered by the far control half, and one that is only slow must not lose its session for it.
                if self.link != Link::Up {
                    orders.push(Output::Verify(peer));
                }
                orders.push(Output::Data(Command::Prove { peer }));
            }
            Some(probe::News::Doubt) => orders.push(Output::Data(Command::Doubt { peer })),
            Some(probe::News::Path) | None => {}
        }
    }

    pub(super) fn with<R>(
        &mut self,
        orders: &mut Orders,
        step: impl FnOnce(&mut Switchover, &mut Hands<'_>) -> R,
    ) -> R {
        let mut hands = Hands {
            orders,
            peer: self.peer,
            session: self.session.as_ref().map_or(0, |session| session.id),
            address: self.address,
            port: self.port,
            stand: &mut self.stand,
        };
        step(&mut self.change, &mut hands)
    }
}
