//! Does VXLAN get through to a peer, and frames of full size too? Asked on the real path.
//!
//! A probe leaves by the bridge towards the MAC address of the peer's VXLAN device, so it takes every step a
//! container's frame takes. It is sealed with a key that its receiver announced over the session; the
//! counter is the nonce, is used once per key, and only a higher one than the last is accepted: of
//! heartbeats only the newest counts, so what the path reorders may be dropped like what is replayed.
//!
//! ```text
//! 0         1          9           17                                      length-16
//! ┌─────────┬──────────┬───────────┬────────┬────────────┬────────┬─────────┬─────────┐
//! │ version │ sender   │ counter   │ kind 1 │ sequence 4 │ hears 1│ zeros … │ tag     │
//! └─────────┴──────────┴───────────┴────────┴────────────┴────────┴─────────┴─────────┘
//!  ╰──── clear, authenticated ────╯ ╰──────────────── sealed ──────────────╯
//! ```
//!
//! Heartbeats are sleeve's (`sleeve/liveness.rs`): same deadlines, same one-way rule. Beside them a probe of
//! the size of a container's largest packet is sent at first use, after an interruption, and from time to time: every
//! second while the link carries data, because on a path that has shrunk in silence large frames vanish until it is
//! found out, else once a minute. It is answered by a small one, so each end proves its own direction.

use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, Instant};

use weft_gossip::PeerName;

use super::wire::{Path, ProbeKey};
use crate::sleeve::liveness::{Change, Liveness, State};
use crate::sleeve::seal::{Aead, Suite, TAG};

const VERSION: u8 = 1;
const HEADER: usize = 17;
/// Bytes of a small probe: no link pads it, since Ethernet's least is 46.
const SMALL: usize = 64;
/// Bytes of the fields in the sealed part.
const FIELDS: usize = 6;
/// The largest probe looked at: a jumbo frame, and a little.
const LARGEST: usize = 10_000;
/// How long the answer to a full-size probe may take before it is sent again.
const FULL_PATIENCE: Duration = Duration::from_millis(300);
/// How many full-size probes must stay unanswered, while small ones are answered, to say that they do not fit.
const FULL_TRIES: u8 = 4;
/// Between two proofs that full-size frames get through, of a link that carries nothing.
const FULL_EVERY: Duration = Duration::from_secs(60);
/// The same of a link that carries data: with the tries it takes to be sure, the path is left before TCP's fourth
/// retransmission, which comes 3 s after the loss; the fifth would come after 6 s (RFC 6298, least 200 ms on Linux).
const FULL_BUSY: Duration = Duration::from_secs(1);
/// How long a link counts as one that carries data.
const BUSY: Duration = Duration::from_secs(10);
/// After how long a path that was too small is measured again.
const SMALL_EVERY: Duration = Duration::from_secs(5);

/// The kinds of probes; the number is on the wire.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Kind {
    Beat = 1,
    Echo = 2,
    Full = 3,
    FullEcho = 4,
}

/// Whether full-size frames get through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Full {
    /// Not yet asked since the path came up.
    Unproven,
    /// Asked this often; whether the last answer still holds meanwhile.
    Asked {
        tries: u8,
        proven: bool,
    },
    Proven,
    TooSmall,
}

/// What the prober noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// A heartbeat was missed: ask the other ways too whether anybody is there.
    Suspect,
    /// A full-size probe stays unanswered on a path that took them: have the other ways measured too, so that sleeve
    /// knows what it takes when it is needed.
    Doubt,
    /// What [`Prober::path`] says has changed.
    Path,
}

/// The sender of a probe, read before anything is opened; `None` for what cannot be a probe.
pub(super) fn sender(bytes: &[u8]) -> Option<PeerName> {
    let (version, rest) = bytes.split_first()?;
    let name = rest.first_chunk::<8>()?;
    (*version == VERSION && (HEADER + FIELDS + TAG..=LARGEST).contains(&bytes.len()))
        .then(|| PeerName::from_u64(u64::from_be_bytes(*name)))
}

/// The probes of one peer in one session.
pub(super) struct Prober {
    me: PeerName,
    /// Bytes of a full-size probe: the largest packet a container sends.
    size: usize,
    live: Liveness,
    seal: Box<dyn Aead>,
    counter: u64,
    open: Box<dyn Aead>,
    newest: Option<u64>,
    full: Full,
    full_at: Option<Instant>,
    full_sequence: u32,
    /// Whether anything of the peer's was heard since nothing is answered any more.
    hears: bool,
    /// Since when every heartbeat was answered.
    steady: Option<Instant>,
    /// When frames were last known to pass.
    traffic: Option<Instant>,
    out: VecDeque<Vec<u8>>,
}

impl Prober {
    /// Starts probing: ours is the key that the peer seals with, theirs the one that we seal with.
    pub(super) fn new(me: PeerName, ours: ProbeKey, theirs: ProbeKey, size: u16, now: Instant) -> Self {
        let mut live = Liveness::new(now);
        live.start(now);
        Self {
            me,
            size: usize::from(size).clamp(SMALL, LARGEST),
            live,
            seal: Suite::ChaCha.with_key(&theirs.0),
            counter: 0,
            open: Suite::ChaCha.with_key(&ours.0),
            newest: None,
            full: Full::Unproven,
            full_at: None,
            full_sequence: 0,
            hears: false,
            steady: None,
            traffic: None,
            out: VecDeque::new(),
        }
    }

    /// Begins anew after a pause; the counters go on, because the keys are the same.
    pub(super) fn restart(&mut self, now: Instant) {
        self.live = Liveness::new(now);
        self.live.start(now);
        (self.full, self.full_at, self.steady) = (Full::Unproven, None, None);
        self.out.clear();
    }

    /// The path may have shrunk: measures it now.
    pub(super) fn doubt(&mut self, now: Instant) {
        if self.full == Full::Proven {
            self.full_at = Some(now);
        }
    }

    /// What the probes say so far.
    pub(super) fn path(&self) -> Path {
        match (self.live.state(), self.full) {
            (State::Down, _) => Path::Down { hears: self.hears },
            (State::Waiting | State::Trying, _) => Path::Trying,
            (State::Up | State::Suspect, Full::Proven | Full::Asked { proven: true, .. }) => Path::Proven,
            (State::Up | State::Suspect, Full::TooSmall) => Path::Small,
            (State::Up | State::Suspect, Full::Unproven | Full::Asked { proven: false, .. }) => Path::Trying,
        }
    }

    /// Since when every heartbeat has been answered; `None` while one is missing.
    pub(super) fn steady(&self) -> Option<Instant> {
        self.steady
    }

    pub(super) fn rtt(&self) -> Option<Duration> {
        self.live.rtt()
    }

    /// The link is watched as one that carries data: heartbeats come faster for a while.
    pub(super) fn carried(&mut self, now: Instant) {
        self.live.carried(now);
    }

    /// Frames do pass: full-size probes come more often too.
    pub(super) fn traffic(&mut self, now: Instant) {
        self.traffic = Some(now);
        self.live.carried(now);
        if self.full == Full::Proven {
            self.full_at = self.full_at.map(|at| at.min(now + FULL_BUSY));
        }
    }

    /// The next probe to send.
    pub(super) fn poll(&mut self) -> Option<Vec<u8>> {
        self.out.pop_front()
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        let full = self.full_at.filter(|_| self.live.state() == State::Up);
        [self.live.deadline(), full].into_iter().flatten().min()
    }

    /// Time passed; `rare` spares heartbeats of idle links in a large mesh.
    pub(super) fn timeout(&mut self, rare: bool, now: Instant) -> Option<News> {
        let before = self.path();
        let due = self.live.timeout(rare, now);
        if let Some(sequence) = due.beat {
            let hears = self.live.hears(now);
            self.send(Kind::Beat, sequence, hears, SMALL);
        }
        let suspect = self.changed(due.change, now);
        let doubt = self.ask_if_due(now);
        let path = (self.path() != before).then_some(News::Path);
        suspect.or(doubt).or(path)
    }

    /// Takes a probe that names this peer as its sender.
    ///
    /// # Errors
    /// When it was not sealed by the peer in this session, or is no newer than the last; nothing was changed.
    pub(super) fn receive(&mut self, bytes: &[u8], now: Instant) -> Result<Option<News>, Refused> {
        let (kind, sequence, hears) = self.unseal(bytes)?;
        let before = self.path();
        self.hears = true;
        let mut change = self.live.heard(now);
        match kind {
            Kind::Beat => {
                self.live.beaten(hears);
                self.send(Kind::Echo, sequence, true, SMALL);
            }
            Kind::Full => self.send(Kind::FullEcho, sequence, true, SMALL),
            Kind::Echo => change = self.live.echoed(sequence, now).or(change),
            Kind::FullEcho if sequence == self.full_sequence && self.full_at.is_some() => {
                let busy = self.traffic.is_some_and(|at| now < at + BUSY);
                let again = if busy { FULL_BUSY } else { FULL_EVERY };
                (self.full, self.full_at) = (Full::Proven, Some(now + again));
            }
            Kind::FullEcho => {}
        }
        let suspect = self.changed(change, now);
        let doubt = self.ask_if_due(now);
        let path = (self.path() != before).then_some(News::Path);
        Ok(suspect.or(doubt).or(path))
    }

    fn changed(&mut self, change: Option<Change>, now: Instant) -> Option<News> {
        match change? {
            Change::Up => {
                self.steady = Some(now);
                if matches!(self.full, Full::Unproven) {
                    self.full_at = Some(now);
                }
                None
            }
            Change::Suspect => {
                self.steady = None;
                Some(News::Suspect)
            }
            Change::Down => {
                self.hears = false;
                (self.steady, self.full, self.full_at) = (None, Full::Unproven, None);
                None
            }
        }
    }

    fn ask_if_due(&mut self, now: Instant) -> Option<News> {
        let due = self.live.state() == State::Up && self.full_at.is_some_and(|at| now >= at);
        let doubt = due && self.full == (Full::Asked { tries: 1, proven: true });
        if due {
            self.ask(now);
        }
        doubt.then_some(News::Doubt)
    }

    /// Sends the full-size probe, or gives up asking.
    fn ask(&mut self, now: Instant) {
        let patience = FULL_PATIENCE.max(self.live.rtt().unwrap_or_default() * 2);
        let (full, again) = match self.full {
            Full::Asked { tries: FULL_TRIES.., .. } => (Full::TooSmall, SMALL_EVERY),
            Full::Asked { tries, proven } => (Full::Asked { tries: tries + 1, proven }, patience),
            Full::Unproven => (Full::Asked { tries: 1, proven: false }, patience),
            Full::Proven => (Full::Asked { tries: 1, proven: true }, patience),
            // A path that was too small stays so until a probe comes back.
            Full::TooSmall => (Full::TooSmall, SMALL_EVERY),
        };
        let gives_up = full == Full::TooSmall && self.full != full;
        (self.full, self.full_at) = (full, Some(now + again));
        if !gives_up {
            self.full_sequence = self.full_sequence.wrapping_add(1);
            self.send(Kind::Full, self.full_sequence, true, self.size);
        }
    }

    fn send(&mut self, kind: Kind, sequence: u32, hears: bool, size: usize) {
        let mut packet = vec![0; size - TAG];
        packet[0] = VERSION;
        packet[1..9].copy_from_slice(&self.me.as_u64().to_be_bytes());
        packet[9..HEADER].copy_from_slice(&self.counter.to_be_bytes());
        let (header, body) = packet.split_at_mut(HEADER);
        body[0] = kind as u8;
        body[1..5].copy_from_slice(&sequence.to_be_bytes());
        body[5] = u8::from(hears);
        let Some(tag) = self.seal.seal(self.counter, header, body) else { return };
        packet.extend_from_slice(&tag);
        // 2^64 probes are not sent in the life of a session.
        self.counter += 1;
        self.out.push_back(packet);
    }

    fn unseal(&mut self, bytes: &[u8]) -> Result<(Kind, u32, bool), Refused> {
        let (header, rest) = bytes.split_at_checked(HEADER).ok_or(Refused)?;
        let counter = u64::from_be_bytes(*header.last_chunk::<8>().ok_or(Refused)?);
        if self.newest.is_some_and(|newest| counter <= newest) {
            return Err(Refused);
        }
        let (body, tag) = rest.split_last_chunk::<TAG>().ok_or(Refused)?;
        let mut body = body.to_vec();
        self.open.open(counter, header, &mut body, tag).map_err(|_| Refused)?;
        self.newest = Some(counter);
        let [kind, a, b, c, d, hears] = *body.first_chunk::<FIELDS>().ok_or(Refused)?;
        let kind = [Kind::Beat, Kind::Echo, Kind::Full, Kind::FullEcho]
            .into_iter()
            .find(|known| *known as u8 == kind)
            .ok_or(Refused)?;
        Ok((kind, u32::from_be_bytes([a, b, c, d]), hears != 0))
    }
}

/// Not sealed by the peer in this session, no newer than the last, or of an unknown kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refused;

impl fmt::Debug for Prober {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prober")
            .field("state", &self.live.state())
            .field("full", &self.full)
            .field("rtt", &self.live.rtt())
            .field("misses", &self.live.misses())
            .field("sent", &self.counter)
            .finish_non_exhaustive()
    }
}
