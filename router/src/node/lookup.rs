//! Who holds this address for that id, anywhere: asked of every reachable peer when nobody here knows.
//!
//! Allocations are each host's own business and are not gossiped, so a look-up that finds nothing here asks
//! around, and the first who knows answers it. Everybody saying no, or [`PATIENCE`], ends it.
//!
//! ```text
//!   lookup ──► here? ──yes──► reply
//!                └──no──► Query{ticket, id} to every reachable peer ──► Answer{ticket, addresses} … ──► reply
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use weft_gossip::{ChannelName, PeerName, codec};

use super::CallId;

/// The channel that questions and answers travel on.
pub(super) const CHANNEL: ChannelName = ChannelName::new("lookup");

/// How long peers may take to answer: a round trip and a busy moment.
const PATIENCE: Duration = Duration::from_secs(2);

/// Largest message, bytes of decoded size: an id has at most 200 bytes, an id's addresses are few.
const LIMIT: usize = 16 << 10;

/// How many addresses of one id are told.
const TOLD: usize = 256;

/// What peers say to each other about ids.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Message {
    /// Which addresses do you hold for this id?
    Query {
        /// Comes back in the answer.
        ticket: u64,
        /// The id.
        id: String,
    },
    /// These; none when the id is not known.
    Answer {
        /// That of the query.
        ticket: u64,
        /// The addresses, lowest first.
        addresses: Vec<Ipv4Addr>,
    },
}

impl Message {
    pub(super) fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        codec::decode::<Self, LIMIT>(bytes).ok()
    }

    /// An answer that is not longer than a message may be.
    pub(super) fn answer(ticket: u64, addresses: impl Iterator<Item = Ipv4Addr>) -> Self {
        Self::Answer { ticket, addresses: addresses.take(TOLD).collect() }
    }
}

/// A look-up that ended: the call, what it was restricted to, and what was found.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) call: CallId,
    pub(super) id: String,
    pub(super) within: Option<Ipv4Net>,
    pub(super) addresses: Vec<Ipv4Addr>,
}

#[derive(Debug)]
struct Search {
    call: CallId,
    id: String,
    within: Option<Ipv4Net>,
    silent: BTreeSet<PeerName>,
    until: Instant,
}

/// The look-ups that wait for other peers.
#[derive(Debug, Default)]
pub(super) struct Lookups {
    searches: BTreeMap<u64, Search>,
    last: u64,
}

impl Lookups {
    /// Begins to ask these peers and says under which ticket; `None` when there is nobody to ask.
    pub(super) fn begin(
        &mut self,
        call: CallId,
        id: String,
        within: Option<Ipv4Net>,
        peers: BTreeSet<PeerName>,
        now: Instant,
    ) -> Option<u64> {
        if peers.is_empty() {
            return None;
        }
        self.last += 1;
        self.searches.insert(self.last, Search { call, id, within, silent: peers, until: now + PATIENCE });
        Some(self.last)
    }

    /// A peer has answered; the search ends with the first that knows, or with the last that does not.
    pub(super) fn answered(
        &mut self,
        from: PeerName,
        ticket: u64,
        addresses: Vec<Ipv4Addr>,
    ) -> Option<Found> {
        let search = self.searches.get_mut(&ticket)?;
        if !search.silent.remove(&from) || (addresses.is_empty() && !search.silent.is_empty()) {
            return None;
        }
        let Search { call, id, within, .. } = self.searches.remove(&ticket)?;
        Some(Found { call, id, within, addresses })
    }

    /// Ends the searches whose time is up.
    pub(super) fn expired(&mut self, now: Instant) -> Vec<Found> {
        let late = |(ticket, search): (&u64, &Search)| (search.until <= now).then_some(*ticket);
        let tickets: Vec<u64> = self.searches.iter().filter_map(late).collect();
        let ended = tickets.into_iter().filter_map(|ticket| self.searches.remove(&ticket));
        let nothing = |Search { call, id, within, .. }| Found { call, id, within, addresses: Vec::new() };
        ended.map(nothing).collect()
    }

    /// When the next search ends by itself.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.searches.values().map(|search| search.until).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Instant {
        #[expect(clippy::disallowed_methods, reason = "any instant will do, time is moved by hand")]
        Instant::now()
    }

    fn peers() -> BTreeSet<PeerName> {
        BTreeSet::from([PeerName::from_u64(1), PeerName::from_u64(2)])
    }

    const THERE: Ipv4Addr = Ipv4Addr::new(10, 32, 0, 5);

    #[test]
    fn the_first_who_knows_ends_the_search() {
        let mut lookups = Lookups::default();
        let ticket = lookups.begin(CallId(7), "x".into(), None, peers(), now()).unwrap();
        let found = lookups.answered(PeerName::from_u64(2), ticket, vec![THERE]).unwrap();
        assert_eq!((found.call, found.addresses), (CallId(7), vec![THERE]));
        assert_eq!(lookups.answered(PeerName::from_u64(1), ticket, vec![THERE]), None, "it is over");
    }

    #[test]
    fn nobody_knowing_ends_it_with_the_last_answer_and_a_stranger_is_not_counted() {
        let mut lookups = Lookups::default();
        let ticket = lookups.begin(CallId(7), "x".into(), None, peers(), now()).unwrap();
        assert_eq!(lookups.answered(PeerName::from_u64(1), ticket, Vec::new()), None);
        assert_eq!(lookups.answered(PeerName::from_u64(9), ticket, vec![THERE]), None);
        assert_eq!(lookups.answered(PeerName::from_u64(1), ticket, Vec::new()), None, "answers once");
        assert!(lookups.answered(PeerName::from_u64(2), ticket, Vec::new()).unwrap().addresses.is_empty());
    }

    #[test]
    fn silence_ends_it_after_its_patience() {
        let (mut lookups, now) = (Lookups::default(), now());
        lookups.begin(CallId(7), "x".into(), None, peers(), now).unwrap();
        assert_eq!(lookups.poll_timeout(), Some(now + PATIENCE));
        assert!(lookups.expired(now).is_empty());
        assert_eq!(lookups.expired(now + PATIENCE).len(), 1);
        assert_eq!(lookups.poll_timeout(), None);
    }

    #[test]
    fn alone_there_is_nobody_to_ask() {
        assert_eq!(Lookups::default().begin(CallId(7), "x".into(), None, BTreeSet::new(), now()), None);
    }

    #[test]
    fn a_message_survives_its_encoding_and_a_hostile_length_does_not() {
        let message = Message::answer(3, [THERE].into_iter());
        assert_eq!(Message::decode(&message.encode()), Some(message));
        assert_eq!(Message::decode(&[1, 3, 0xfd, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]), None);
    }
}
