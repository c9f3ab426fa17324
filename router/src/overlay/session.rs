//! What is known of this router, and what lives and ends with one session.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use weft_gossip::PeerName;

use super::Config;
use super::probe::Prober;
use super::wire::{Denial, FastpathOffer, Offer, Path, ProbeKey, Stand, View};
use crate::sleeve::liveness::RARE_EARLY;

/// From so many neighbours on, idle ones are asked for a sign of life less often.
const MANY: usize = 50;
/// The longest text of a peer that is shown, characters.
const WORDS: usize = 200;

/// A view is told again even if nothing changed, soon at first and then this often: between two sessions with the
/// same peer a message can be lost.
const REFRESH: Duration = Duration::from_secs(30);
const FIRST_REFRESH: Duration = Duration::from_secs(1);

/// What every neighbour's machine needs to know of this router.
#[derive(Debug)]
pub(super) struct Here {
    pub(super) config: Config,
    /// Whether the kernel can do fastpath, or why not; `None` before that was tried.
    pub(super) ready: Option<Result<(), String>>,
    pub(super) barred: BTreeSet<PeerName>,
    /// How many neighbours there are.
    pub(super) crowd: usize,
}

impl Here {
    /// Whether frames to this address may travel in clear, as far as we are concerned.
    pub(super) fn may_be_clear(&self, address: IpAddr) -> bool {
        !self.config.encrypted || self.config.trusted.iter().any(|subnet| subnet.contains(&address))
    }

    /// Whether heartbeats to idle neighbours are spared.
    pub(super) fn is_crowded(&self) -> bool {
        self.crowd > MANY
    }

    /// How much earlier a neighbour may be called together with others.
    pub(super) fn early(&self) -> Duration {
        if self.is_crowded() { RARE_EARLY } else { Duration::ZERO }
    }

    /// What is offered: nothing before the kernel was tried.
    pub(super) fn port(&self) -> Option<Result<u16, Denial>> {
        match (self.config.fastpath, &self.ready) {
            (None, _) => Some(Err(Denial::SwitchedOff)),
            (Some(_), None) => None,
            (Some(port), Some(Ok(()))) => Some(Ok(port)),
            (Some(_), Some(Err(why))) => Some(Err(Denial::Impossible(why.clone()))),
        }
    }
}

/// What lives and ends with one session.
#[derive(Debug)]
pub(super) struct Session {
    /// The same at both ends.
    pub(super) id: u64,
    pub(super) remote: SocketAddr,
    /// With what the peer seals its probes.
    pub(super) key: ProbeKey,
    pub(super) offer: Option<Offer>,
    pub(super) fastpath: Option<FastpathOffer>,
    pub(super) theirs: Option<View>,
    /// Since when the other end has said that full-size probes get through.
    pub(super) theirs_proven: Option<Instant>,
    told: Option<View>,
    tell_again: Option<(Instant, Duration)>,
    serial: u64,
    /// Kept once it is there: its counters must not begin anew with the same keys.
    prober: Option<Prober>,
    probes: bool,
}

impl Session {
    pub(super) fn new(id: u64, remote: SocketAddr, key: ProbeKey) -> Self {
        Self {
            id,
            remote,
            key,
            offer: None,
            fastpath: None,
            theirs: None,
            theirs_proven: None,
            told: None,
            tell_again: None,
            serial: 0,
            prober: None,
            probes: false,
        }
    }

    /// The other end says what its kernel can do; its VXLAN port, if it has one.
    pub(super) fn offered(&mut self, mut offer: FastpathOffer) -> Option<u16> {
        if let Err(Denial::Impossible(why)) = &mut offer.port {
            *why = why.chars().filter(|letter| !letter.is_control()).take(WORDS).collect();
        }
        // A key lasts as long as its session: the counters that go with it do.
        offer.key = self.fastpath.as_ref().map_or(offer.key, |known| known.key);
        self.fastpath.insert(offer).port.as_ref().ok().copied()
    }

    /// The other end says how it sees the link.
    pub(super) fn heard(&mut self, view: View, now: Instant) {
        if self.theirs.is_some_and(|known| view.serial <= known.serial) {
            return;
        }
        let proven = view.path == Path::Proven;
        self.theirs_proven = proven.then(|| self.theirs_proven.unwrap_or(now));
        self.theirs = Some(view);
    }

    /// How we see the link, if that is to be told (again) now.
    pub(super) fn view(&mut self, sleeve: bool, path: Path, stand: Stand, now: Instant) -> Option<View> {
        let view = View { session: self.id, serial: self.serial, sleeve, path, stand };
        let changed = self.told != Some(view);
        let gap = match self.tell_again {
            Some((at, _)) if !changed && now < at => return None,
            Some((_, gap)) if !changed => (gap * 2).min(REFRESH),
            _ => FIRST_REFRESH,
        };
        self.serial += 1;
        self.tell_again = Some((now + gap, gap));
        self.told = Some(View { serial: self.serial, ..view });
        self.told
    }

    /// Probes, or pauses.
    pub(super) fn probe(&mut self, wanted: bool, here: &Here, now: Instant) {
        if wanted == self.probes {
            return;
        }
        self.probes = wanted;
        match (&mut self.prober, &self.fastpath) {
            (Some(prober), _) if wanted => prober.restart(now),
            (None, Some(offer)) if wanted => {
                let prober = Prober::new(here.config.me, self.key, offer.key, here.config.mtu, now);
                self.prober = Some(prober);
            }
            _ => {}
        }
    }

    /// The probes, unless they pause.
    pub(super) fn prober(&self) -> Option<&Prober> {
        self.prober.as_ref().filter(|_| self.probes)
    }

    pub(super) fn prober_mut(&mut self) -> Option<&mut Prober> {
        self.prober.as_mut().filter(|_| self.probes)
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        let probe = self.prober().and_then(Prober::deadline);
        [probe, self.tell_again.map(|(at, _)| at)].into_iter().flatten().min()
    }
}
