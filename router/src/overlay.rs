//! One peer, one carrier: what both ends offer, what works now, which carrier is used, and why.
//!
//! One entry per direct neighbour, from the start of its session to the end. The overlay hears from the
//! session (established, told, lost), from the data half (link up, suspect, down) and from the
//! allocator (who was seeded apart), and answers with commands for the data half and messages for the
//! neighbour. It keeps no clock: the heartbeats and their deadlines live in the data half's links.
//!
//! ```text
//!  established ──► our offer told; theirs awaited ──► link added, keys announced by the data half
//!  link up     ──► carrier sleeve                    link suspect ──► the session is asked too (verify)
//!  link down   ──► no carrier ("silent")             lost         ──► link removed, entry gone
//! ```

mod reason;
mod wire;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use weft_gossip::PeerName;

pub use reason::Reason;
pub use wire::{Goodbye, Offer, Told};

use crate::dataplane::{Carrier, Command, Event};

/// What this router offers to every neighbour.
#[derive(Clone, Debug)]
pub struct Config {
    /// The UDP port of our sleeve; `None` with `--no-sleeve`.
    pub sleeve: Option<u16>,
    /// Whether a cluster secret is set.
    pub encrypted: bool,
    /// Subnets in which frames may travel in clear although a secret is set.
    pub trusted: Vec<ipnet::IpNet>,
}

/// What the overlay wants done.
#[derive(Clone, Debug)]
pub enum Output {
    /// Tell a neighbour over its session.
    Tell(PeerName, Told),
    /// Command the data half.
    Data(Command),
    /// The neighbour's link fell silent: ask its session whether the router is there at all.
    Verify(PeerName),
    /// A carrier changed: the forwarding table must be made anew.
    Changed,
    /// The peer has said that it leaves the cluster for good.
    Left(PeerName),
}

/// The state of one neighbour's sleeve link, as the data half reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Link {
    Absent,
    Waiting,
    Up,
    Silent,
}

/// One neighbour, as the overlay sees it.
#[derive(Clone, Debug)]
pub struct Neighbour {
    nickname: String,
    session: u64,
    remote: SocketAddr,
    offer: Option<Offer>,
    link: Link,
    carrier: Option<Carrier>,
    reason: Reason,
    rtt: Option<Duration>,
    mtu: Option<u16>,
    changes: u64,
}

impl Neighbour {
    /// The carrier that serves the neighbour now, if any works.
    #[must_use]
    pub fn carrier(&self) -> Option<Carrier> {
        self.carrier
    }

    /// Why this carrier and not a better one.
    #[must_use]
    pub fn reason(&self) -> &Reason {
        &self.reason
    }

    /// The round trip time of the carrier, once measured.
    #[must_use]
    pub fn rtt(&self) -> Option<Duration> {
        self.rtt
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
}

/// The machine: one entry per direct neighbour.
#[derive(Debug)]
pub struct Overlay {
    config: Config,
    neighbours: BTreeMap<PeerName, Neighbour>,
    barred: BTreeSet<PeerName>,
    outputs: VecDeque<Output>,
}

impl Overlay {
    /// Makes an overlay without neighbours.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self { config, neighbours: BTreeMap::new(), barred: BTreeSet::new(), outputs: VecDeque::new() }
    }

    /// A session with `peer` stands: offers what we can carry.
    pub fn handle_established(&mut self, peer: PeerName, nickname: String, remote: SocketAddr, session: u64) {
        let offer = Offer { sleeve: self.config.sleeve, clear: self.may_be_clear(remote) };
        self.outputs.push_back(Output::Tell(peer, Told::Offer(offer)));
        self.neighbours.insert(
            peer,
            Neighbour {
                nickname,
                session,
                remote,
                offer: None,
                link: Link::Absent,
                carrier: None,
                reason: Reason::AwaitingOffer,
                rtt: None,
                mtu: None,
                changes: 0,
            },
        );
        self.choose(peer);
        self.outputs.push_back(Output::Changed);
    }

    /// The last session with `peer` ended: its link goes with it.
    pub fn handle_lost(&mut self, peer: PeerName) {
        if self.neighbours.remove(&peer).is_some() {
            self.outputs.push_back(Output::Data(Command::RemoveLink { peer }));
            self.outputs.push_back(Output::Changed);
        }
    }

    /// A neighbour told us something over its session.
    pub fn handle_told(&mut self, peer: PeerName, told: Told) {
        let Some(neighbour) = self.neighbours.get_mut(&peer) else { return };
        match told {
            Told::Offer(offer) => {
                if let (Some(_), Some(port)) = (self.config.sleeve, offer.sleeve) {
                    let address = SocketAddr::new(neighbour.remote.ip(), port);
                    let session = neighbour.session;
                    neighbour.link = Link::Waiting;
                    self.outputs.push_back(Output::Data(Command::AddLink { peer, session, address }));
                }
                neighbour.offer = Some(offer);
                self.choose(peer);
            }
            Told::Sleeve { session, announcement } if session == neighbour.session => {
                self.outputs.push_back(Output::Data(Command::Announced {
                    peer,
                    session,
                    bytes: announcement,
                }));
            }
            // Keys of a session that has ended open nothing any more.
            Told::Sleeve { .. } => {}
            Told::Goodbye(goodbye) => {
                tracing::info!(%peer, nickname = neighbour.nickname, ?goodbye, "peer says goodbye");
                if goodbye == Goodbye::Leaving {
                    self.outputs.push_back(Output::Left(peer));
                }
            }
        }
    }

    /// The data half reports about a link.
    pub fn handle_data(&mut self, event: &Event) {
        match event {
            Event::Announce { peer, session, bytes } => {
                if self.neighbours.get(peer).is_some_and(|n| n.session == *session) {
                    let told = Told::Sleeve { session: *session, announcement: bytes.clone() };
                    self.outputs.push_back(Output::Tell(*peer, told));
                }
            }
            Event::LinkUp { peer, rtt, mtu } | Event::LinkChanged { peer, rtt, mtu } => {
                let Some(neighbour) = self.neighbours.get_mut(peer) else { return };
                (neighbour.rtt, neighbour.mtu) = (Some(*rtt), Some(*mtu));
                if matches!(event, Event::LinkUp { .. }) {
                    neighbour.link = Link::Up;
                    self.choose(*peer);
                }
            }
            Event::LinkSuspect { peer } => self.outputs.push_back(Output::Verify(*peer)),
            Event::LinkDown { peer } => {
                let Some(neighbour) = self.neighbours.get_mut(peer) else { return };
                neighbour.link = Link::Silent;
                self.outputs.push_back(Output::Verify(*peer));
                self.choose(*peer);
            }
            Event::Counters(_) | Event::Behind { .. } => {}
        }
    }

    /// Sets who was seeded apart from us: no carrier serves them.
    pub fn bar(&mut self, barred: BTreeSet<PeerName>) {
        if barred == self.barred {
            return;
        }
        self.barred = barred;
        let peers: Vec<PeerName> = self.neighbours.keys().copied().collect();
        for peer in peers {
            self.choose(peer);
        }
        self.outputs.push_back(Output::Changed);
    }

    /// Says goodbye to every neighbour.
    pub fn farewell(&mut self, goodbye: Goodbye) {
        for peer in self.neighbours.keys() {
            self.outputs.push_back(Output::Tell(*peer, Told::Goodbye(goodbye)));
        }
    }

    /// Who must get no frame from us and whose frames we drop.
    #[must_use]
    pub fn barred(&self) -> &BTreeSet<PeerName> {
        &self.barred
    }

    /// The entry of a direct neighbour.
    #[must_use]
    pub fn neighbour(&self, peer: PeerName) -> Option<&Neighbour> {
        self.neighbours.get(&peer)
    }

    /// Every direct neighbour with its entry, ordered by name.
    pub fn neighbours(&self) -> impl Iterator<Item = (PeerName, &Neighbour)> {
        self.neighbours.iter().map(|(peer, neighbour)| (*peer, neighbour))
    }

    /// Drains what the overlay wants done.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Whether frames to this address may travel in clear, as far as we are concerned.
    fn may_be_clear(&self, remote: SocketAddr) -> bool {
        !self.config.encrypted || self.config.trusted.iter().any(|subnet| subnet.contains(&remote.ip()))
    }

    /// Picks the best carrier that works and says why; a change is logged once and counted.
    fn choose(&mut self, peer: PeerName) {
        let Some(neighbour) = self.neighbours.get(&peer) else { return };
        let (carrier, reason) = self.judge(peer, neighbour);
        let Some(neighbour) = self.neighbours.get_mut(&peer) else { return };
        let changed = neighbour.carrier != carrier;
        if changed || neighbour.reason != reason {
            let nickname = &neighbour.nickname;
            tracing::info!(%peer, nickname, carrier = ?carrier, %reason, "carrier");
        }
        neighbour.reason = reason;
        if changed {
            neighbour.carrier = carrier;
            neighbour.changes += 1;
            self.outputs.push_back(Output::Changed);
        }
    }

    fn judge(&self, peer: PeerName, neighbour: &Neighbour) -> (Option<Carrier>, Reason) {
        if self.barred.contains(&peer) {
            return (None, Reason::SeededApart);
        }
        if self.config.sleeve.is_none() {
            return (None, Reason::SleeveOffHere);
        }
        let Some(offer) = &neighbour.offer else { return (None, Reason::AwaitingOffer) };
        if offer.sleeve.is_none() {
            return (None, Reason::SleeveOffThere);
        }
        match neighbour.link {
            Link::Absent | Link::Waiting => (None, Reason::AwaitingHeartbeat),
            Link::Silent => (None, Reason::Silent),
            Link::Up if offer.clear && self.may_be_clear(neighbour.remote) => {
                (Some(Carrier::Sleeve), Reason::NoFastpath)
            }
            Link::Up => (Some(Carrier::Sleeve), Reason::MustEncrypt),
        }
    }
}

#[cfg(test)]
mod tests;
