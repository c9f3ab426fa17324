//! Neighbours to whom nothing has carried frames for a while: all are told, and lead frames around those links.
//!
//! A firewall that lets TCP pass and swallows UDP leaves a session over which no frame travels. Unicast is led around it
//! at once and by us alone (`table.rs`); what is flooded follows trees on which all must agree, so all have to know.
//! Carriers take a moment to come up, the longer the more neighbours come at once, and whoever told of each moment would
//! have everybody compute everything anew; that a link carries again is told at once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use weft_gossip::PeerName;

/// How long nothing has carried frames to a neighbour before all are told…
const PATIENCE: Duration = Duration::from_secs(1);
/// …and so much longer for each neighbour there is.
const CROWDED: Duration = Duration::from_millis(50);

/// Who is without a carrier, and what was told of it.
#[derive(Debug, Default)]
pub(super) struct Idle {
    since: BTreeMap<PeerName, Instant>,
    told: BTreeSet<PeerName>,
    patience: Duration,
}

impl Idle {
    /// Looks at all neighbours, each with whether something carries frames to it.
    pub(super) fn see(&mut self, neighbours: impl Iterator<Item = (PeerName, bool)>, now: Instant) {
        let (mut idle, mut crowd) = (BTreeMap::new(), 0);
        for (peer, carried) in neighbours {
            crowd += 1;
            if !carried {
                idle.insert(peer, self.since.get(&peer).copied().unwrap_or(now));
            }
        }
        (self.since, self.patience) = (idle, PATIENCE + CROWDED * crowd);
    }

    /// All who are to be told of, if that is other than last time.
    pub(super) fn poll(&mut self, now: Instant) -> Option<BTreeSet<PeerName>> {
        let lasting = |(peer, since): (&PeerName, &Instant)| {
            (self.told.contains(peer) || *since + self.patience <= now).then_some(*peer)
        };
        let idle: BTreeSet<PeerName> = self.since.iter().filter_map(lasting).collect();
        if idle == self.told {
            return None;
        }
        self.told.clone_from(&idle);
        Some(idle)
    }

    /// When there may be somebody more to tell of.
    #[must_use]
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let untold = self.since.iter().filter(|(peer, _)| !self.told.contains(peer));
        untold.map(|(_, since)| *since + self.patience).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: PeerName = PeerName::from_u64(1);
    const TWO: PeerName = PeerName::from_u64(2);

    #[test]
    fn a_link_is_told_of_once_nothing_has_carried_for_a_while_and_at_once_when_something_does_again() {
        #[expect(clippy::disallowed_methods, reason = "any instant will do, time is moved by hand")]
        let now = Instant::now();
        let (mut idle, patience) = (Idle::default(), PATIENCE + CROWDED * 2);
        let see = |idle: &mut Idle, carried: [bool; 2], at: Duration| {
            idle.see([(ONE, carried[0]), (TWO, carried[1])].into_iter(), now + at);
        };
        see(&mut idle, [false, true], Duration::ZERO);
        see(&mut idle, [false, true], Duration::from_secs(1));
        assert_eq!(
            (idle.poll(now + Duration::from_secs(1)), idle.poll_timeout()),
            (None, Some(now + patience))
        );
        assert_eq!((idle.poll(now + patience), idle.poll_timeout()), (Some([ONE].into()), None));
        see(&mut idle, [false, false], patience);
        assert_eq!((idle.poll(now + patience), idle.poll_timeout()), (None, Some(now + patience * 2)));
        see(&mut idle, [true, false], patience);
        assert_eq!(idle.poll(now + patience), Some(BTreeSet::new()));
        idle.see(std::iter::empty(), now + patience);
        assert_eq!(
            (idle.poll(now + patience * 3), idle.poll_timeout()),
            (None, None),
            "it is no neighbour any more"
        );
    }
}
