//! What is best for a peer now, and how that is said to people.
//!
//! Both ends hold both offers and both views, so both come to the same result. Fastpath is preferred
//! where both ends allow clear frames on the link and full-size probes get through in both directions; it is left
//! only for a sleeve that works at that moment, or for a way through others (`strand.rs`).

use std::time::{Duration, Instant};

use super::carrier::{Link, Neighbour};
use super::reason::Reason;
use super::session::Here;
use super::wire::{Denial, Path, Stand};
use crate::dataplane::Carrier;

/// What VXLAN adds to a container's packet, bytes: the outer Ethernet header does not count.
const OVERHEAD_V4: u16 = 50;
const OVERHEAD_V6: u16 = 70;

/// The wait after fastpath had served for a while.
const FIRST_WAIT: Duration = Duration::from_secs(3);
/// The longest: with the probes' own second, a path that was repaired is in use again within 15 s.
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// What counts as a while.
const LASTED: Duration = Duration::from_secs(30);

/// What the leader should propose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// Nothing.
    Stay,
    /// That both ends use this.
    Now(Stand),
    /// Something, if all is as it is until then.
    Later(Instant),
}

impl Neighbour {
    /// Whether both ends allow fastpath and can do it, or what stands in the way.
    pub(super) fn terms(&self, here: &Here) -> Result<(), Reason> {
        if here.barred.contains(&self.peer) {
            return Err(Reason::SeededApart);
        }
        if self.removed {
            return Err(Reason::Removed);
        }
        let Some(ours) = here.config.fastpath else { return Err(Reason::FastpathOffHere) };
        if !here.may_be_clear(self.address) {
            return Err(Reason::NotTrusted);
        }
        match &here.ready {
            None => return Err(Reason::KernelAwaited),
            Some(Err(why)) => return Err(Reason::FastpathImpossibleHere(why.clone())),
            Some(Ok(())) => {}
        }
        let session = self.session.as_ref().ok_or(Reason::Silent)?;
        let offer = session.offer.as_ref().ok_or(Reason::AwaitingOffer)?;
        let fastpath = session.fastpath.as_ref().ok_or(Reason::FastpathAwaited)?;
        match &fastpath.port {
            Err(Denial::SwitchedOff) => Err(Reason::FastpathOffThere),
            Err(Denial::Impossible(why)) => Err(Reason::FastpathImpossibleThere(why.clone())),
            Ok(_) if !offer.clear => Err(Reason::NotTrustedThere),
            // What a VXLAN device learns has no port: it answers at its own.
            Ok(port) if *port != ours => Err(Reason::PortsDiffer { ours, theirs: *port }),
            Ok(_) => Ok(()),
        }
    }

    /// What both ends should use, as far as this end can tell.
    pub(super) fn target(&self, here: &Here, now: Instant) -> Target {
        let Some(theirs) = self.session.as_ref().and_then(|session| session.theirs) else {
            return Target::Stay;
        };
        let stands = [self.stand, theirs.stand];
        if self.terms(here).is_err() {
            let leaves = stands.contains(&Stand::Fastpath);
            return if leaves { Target::Now(Stand::Sleeve) } else { Target::Stay };
        }
        let paths = [self.path(), theirs.path];
        let proven = paths == [Path::Proven; 2];
        let broken = paths.iter().any(|path| matches!(path, Path::Down { .. } | Path::Small));
        let sleeve = self.sleeve_works() && theirs.sleeve;
        let alive = paths.iter().all(|path| matches!(path, Path::Proven | Path::Small));
        match stands {
            [Stand::Fastpath, Stand::Fastpath] if broken && sleeve => Target::Now(Stand::Sleeve),
            [Stand::Fastpath, Stand::Fastpath] => self.way_out(now),
            [Stand::Sleeve, Stand::Sleeve] if sleeve && !proven => Target::Stay,
            [Stand::Sleeve, Stand::Sleeve] if sleeve => match self.steady() {
                Some(steady) if now < steady + self.wait => Target::Later(steady + self.wait),
                Some(_) => Target::Now(Stand::Fastpath),
                None => Target::Stay,
            },
            // The ends stand apart, so neither direction works as it should, or no other carrier works: then
            // even a path that takes only small packets is better than none.
            _ if proven || (alive && !sleeve) => Target::Now(Stand::Fastpath),
            [Stand::Sleeve, Stand::Sleeve] => Target::Stay,
            _ if sleeve => Target::Now(Stand::Sleeve),
            _ => Target::Stay,
        }
    }

    /// Since when VXLAN has worked at both ends without a miss.
    fn steady(&self) -> Option<Instant> {
        let session = self.session.as_ref()?;
        Some(session.prober()?.steady()?.max(session.theirs_proven?))
    }

    /// Which carrier works, in the eyes of people, and why it and no better one.
    pub(super) fn judge(&self, here: &Here) -> (Option<Carrier>, Reason) {
        if here.barred.contains(&self.peer) {
            return (None, Reason::SeededApart);
        }
        match (self.stand, self.sleeve(here)) {
            (Stand::Fastpath, sleeve) => match (self.fastpath(here), sleeve) {
                (Ok(reason), _) => (Some(Carrier::Fastpath), reason),
                // The change to sleeve is under way, or about to be.
                (Err(reason), Ok(())) => (Some(Carrier::Fastpath), reason),
                (Err(fastpath), Err(sleeve)) => (None, Reason::Neither(Box::new(sleeve), Box::new(fastpath))),
            },
            (Stand::Sleeve, Ok(())) => (Some(Carrier::Sleeve), self.why_not_fastpath(here)),
            (Stand::Sleeve, Err(Reason::AwaitingOffer)) => (None, Reason::AwaitingOffer),
            (Stand::Sleeve, Err(sleeve)) => {
                let fastpath = self.why_not_fastpath(here);
                (None, Reason::Neither(Box::new(sleeve), Box::new(fastpath)))
            }
        }
    }

    /// Whether sleeve works, or why not.
    fn sleeve(&self, here: &Here) -> Result<(), Reason> {
        if here.config.sleeve.is_none() {
            return Err(Reason::SleeveOffHere);
        }
        let offer = self.session.as_ref().and_then(|session| session.offer.as_ref());
        if offer.ok_or(Reason::AwaitingOffer)?.sleeve.is_none() {
            return Err(Reason::SleeveOffThere);
        }
        match self.link {
            Link::Absent | Link::Waiting => Err(Reason::AwaitingHeartbeat),
            Link::Silent => Err(Reason::Silent),
            Link::Up => Ok(()),
        }
    }

    /// Whether the fastpath in use works, and how it may be; else what is wrong with it.
    fn fastpath(&self, here: &Here) -> Result<Reason, Reason> {
        match self.terms(here) {
            Err(Reason::AwaitingOffer | Reason::FastpathAwaited | Reason::KernelAwaited) => {
                return Ok(Reason::Kept);
            }
            Err(reason) => return Err(reason),
            Ok(()) => {}
        }
        match (self.path(), self.their_path()) {
            (Path::Proven, Path::Proven) if here.config.encrypted => Ok(Reason::Trusted),
            (Path::Proven, Path::Proven) => Ok(Reason::Clear),
            (Path::Down { .. }, _) | (_, Path::Down { .. }) => Err(self.why_not_fastpath(here)),
            (Path::Small, _) | (_, Path::Small) => Ok(self.why_not_fastpath(here)),
            (Path::Untried | Path::Trying, _) | (_, Path::Untried | Path::Trying) => Ok(Reason::Kept),
        }
    }

    /// What keeps the peer from fastpath.
    fn why_not_fastpath(&self, here: &Here) -> Reason {
        if let Err(reason) = self.terms(here) {
            return reason;
        }
        let (mine, theirs) = (self.path(), self.their_path());
        let (there, ours) = (self.port, here.config.fastpath.unwrap_or_default());
        match (mine, theirs) {
            (Path::Down { hears: true }, Path::Down { hears: false }) => Reason::BlockedThere { port: there },
            (Path::Down { hears: false }, Path::Down { hears: true }) => Reason::BlockedHere { port: ours },
            (Path::Down { .. }, _) | (_, Path::Down { .. }) => Reason::Blocked { port: there },
            (Path::Small, _) | (_, Path::Small) => {
                let needs = self.needs(here);
                Reason::PathTooSmall { takes: self.sleeve_mtu.filter(|mtu| *mtu < needs), needs }
            }
            (Path::Proven, Path::Proven) => Reason::Steadying,
            (Path::Untried | Path::Trying, _) | (_, Path::Untried | Path::Trying) => Reason::Trying,
        }
    }

    /// Bytes of the largest IP packet that VXLAN makes of a container's.
    pub(super) fn needs(&self, here: &Here) -> u16 {
        let overhead = if self.address.is_ipv4() { OVERHEAD_V4 } else { OVERHEAD_V6 };
        here.config.mtu.saturating_add(overhead)
    }

    fn their_path(&self) -> Path {
        let theirs = self.session.as_ref().and_then(|session| session.theirs);
        theirs.map_or(Path::Untried, |theirs| theirs.path)
    }
}

/// How long fastpath must have worked before it is used again, when after the last such wait it served for so
/// long and failed: longer each time it did not last.
pub(super) fn patience(wait: Duration, served: Duration) -> Duration {
    if served >= LASTED { FIRST_WAIT } else { (wait * 2).clamp(FIRST_WAIT, LONGEST_WAIT) }
}
