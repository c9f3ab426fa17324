//! One connection as the mesh sees it: where it goes, how far its session is, how much it still has to write.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use crate::dialer::Key;
use crate::hello::Introduction;
use crate::liveness::Liveness;
use crate::peer::PeerName;
use crate::session::Session;
use crate::wire::Message;

/// A handshake must be over by then.
pub(super) const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(5);
/// The shell answers a dial within 5 s; should it ever not, nothing waits for it longer than this.
pub(super) const DIAL_BACKSTOP: Duration = Duration::from_secs(10);
/// Inbound connections that may be half open at one time, about 1 KB each…
pub(super) const HALF_OPEN_LIMIT: usize = 128;
/// …and from one source address.
pub(super) const HALF_OPEN_PER_SOURCE: usize = 16;
/// With more than this waiting to be written a neighbour is slow: it gets no more deltas…
const SLOW_AT: usize = 1 << 20;
/// …until less than this is waiting, and then the state. (More than the shell keeps to itself:
/// [`UNREPORTED`](crate::event::UNREPORTED).)
const DRAINED_AT: usize = 64 << 10;
/// With more than this waiting nothing is routed through it.
const FULL_AT: usize = 8 << 20;
/// With more than this waiting the far side does not read at all.
const CHOKED_AT: usize = 24 << 20;
/// What is told over a session that is not (yet) the current one waits, up to so many and so much.
const HELD_TELLS: usize = 64;
const HELD_BYTES: usize = 256 << 10;

/// How far a connection is.
pub(super) enum Phase {
    /// The shell is dialling.
    Dialing { since: Instant },
    /// The handshake is under way.
    HalfOpen { session: Session, deadline: Instant },
    /// The far side is introduced, and it is being found out whether its name is used by another machine.
    Held { session: Session, introduction: Introduction, until: Instant },
    /// The session is established.
    Live(Box<Live>),
}

pub(super) struct Live {
    pub(super) session: Session,
    pub(super) peer: PeerName,
    pub(super) liveness: Liveness,
    pub(super) slow: bool,
    held_tells: Vec<Vec<u8>>,
}

impl Live {
    pub(super) fn new(session: Session, peer: PeerName, now: Instant) -> Self {
        Self { session, peer, liveness: Liveness::new(now), slow: false, held_tells: Vec::new() }
    }

    /// Keeps a tell until the session becomes the current one, if it ever does.
    pub(super) fn hold_tell(&mut self, bytes: Vec<u8>) {
        let held: usize = self.held_tells.iter().map(Vec::len).sum();
        if self.held_tells.len() < HELD_TELLS && held + bytes.len() <= HELD_BYTES {
            self.held_tells.push(bytes);
        }
    }

    pub(super) fn take_tells(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.held_tells)
    }
}

/// One connection.
pub(super) struct Link {
    pub(super) remote: Option<SocketAddr>,
    pub(super) local: Option<SocketAddr>,
    /// What was dialled; none: inbound.
    pub(super) key: Option<Key>,
    pub(super) phase: Phase,
    /// Of a dial whose handshake is under way: when it began, and how long the connection took before.
    shaking: Option<(Instant, Duration)>,
    queued: usize,
}

impl Link {
    pub(super) fn dialing(key: Key, now: Instant) -> Self {
        let phase = Phase::Dialing { since: now };
        Self { remote: None, local: None, key: Some(key), phase, shaking: None, queued: 0 }
    }

    pub(super) fn inbound(
        remote: SocketAddr,
        local: Option<SocketAddr>,
        session: Session,
        now: Instant,
    ) -> Self {
        let phase = Phase::HalfOpen { session, deadline: now + HANDSHAKE_DEADLINE };
        Self { remote: Some(remote), local, key: None, phase, shaking: None, queued: 0 }
    }

    /// The far side of a dial answered: the handshake begins.
    pub(super) fn dialed(
        &mut self,
        remote: SocketAddr,
        local: Option<SocketAddr>,
        session: Session,
        now: Instant,
    ) {
        let Phase::Dialing { since } = self.phase else { return };
        (self.remote, self.local) = (Some(remote), local);
        self.phase = Phase::HalfOpen { session, deadline: now + HANDSHAKE_DEADLINE };
        self.shaking = Some((now, now.saturating_duration_since(since)));
    }

    /// The handshake of a dial has come to its end, or to its deadline: how long it took, and the connection before it.
    pub(super) fn shook(&mut self, now: Instant) -> Option<(Duration, Duration)> {
        self.shaking.take().map(|(began, connect)| (now.saturating_duration_since(began), connect))
    }

    /// When something about this connection is due.
    pub(super) fn due(&self) -> Instant {
        match &self.phase {
            Phase::Dialing { since } => *since + DIAL_BACKSTOP,
            Phase::HalfOpen { deadline, .. } => *deadline,
            Phase::Held { until, .. } => *until,
            Phase::Live(live) => live.liveness.due(),
        }
    }

    pub(super) fn outbound(&self) -> bool {
        self.key.is_some()
    }

    /// The source whose share of half-open connections this one takes; none if it takes none.
    pub(super) fn half_open_source(&self) -> Option<IpAddr> {
        let half_open = matches!(self.phase, Phase::HalfOpen { .. } | Phase::Held { .. });
        if half_open && !self.outbound() { self.remote.map(|remote| source(remote.ip())) } else { None }
    }

    pub(super) fn live(&self) -> Option<&Live> {
        if let Phase::Live(live) = &self.phase { Some(live) } else { None }
    }

    pub(super) fn live_mut(&mut self) -> Option<&mut Live> {
        if let Phase::Live(live) = &mut self.phase { Some(live) } else { None }
    }

    pub(super) fn session_mut(&mut self) -> Option<&mut Session> {
        match &mut self.phase {
            Phase::Dialing { .. } => None,
            Phase::HalfOpen { session, .. } | Phase::Held { session, .. } => Some(session),
            Phase::Live(live) => Some(&mut live.session),
        }
    }

    /// The bytes to be written; they count as queued until the shell says otherwise.
    pub(super) fn take_output(&mut self) -> Option<Vec<u8>> {
        let bytes = self.session_mut()?.take_output()?;
        self.queued += bytes.len();
        Some(bytes)
    }

    /// Seals a message of an established session.
    pub(super) fn send(&mut self, message: &Message) -> bool {
        self.live_mut().is_some_and(|live| live.session.send(message))
    }

    /// Says whether deltas may be sent now; once they may not, the state must be sent when the queue drains.
    pub(super) fn takes_deltas(&mut self) -> bool {
        let full = self.queued > SLOW_AT;
        self.live_mut().is_some_and(|live| {
            live.slow |= full;
            !live.slow
        })
    }

    /// Notes how much is still to be written; true if a slow neighbour has caught up.
    pub(super) fn drained_to(&mut self, queued: usize) -> bool {
        self.queued = queued;
        let drained = queued < DRAINED_AT;
        self.live_mut().is_some_and(|live| drained && std::mem::take(&mut live.slow))
    }

    /// Says whether there is room for a message that goes to one peer alone.
    pub(super) fn takes_routed(&self) -> bool {
        self.queued < FULL_AT
    }

    pub(super) fn choked(&self) -> bool {
        self.queued > CHOKED_AT
    }
}

/// The address that stands for a source: an IPv6 host has a whole /64 to call from.
pub(super) fn source(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}
