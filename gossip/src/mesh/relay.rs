//! Channels on their way: broadcasts down the source's tree, routed messages hop by hop, states by comparison.
//!
//! A peer that does not take part in a channel relays it all the same. Nothing here can end a session.

use std::time::Instant;

use rand::RngExt as _;

use super::Mesh;
use super::gossip::GREETED;
use super::link::Link;
use crate::channel::state_hash;
use crate::codec::Blob;
use crate::event::{ChannelName, ConnectionId, DeliverKind, Output};
use crate::peer::PeerName;
use crate::wire::{Broadcast, MESSAGE_LIMIT, Message, Origin, Purpose, Routed};

/// A message goes no further after this many hops: longer than any sane chain, short for a loop.
pub(super) const HOPS: u8 = 128;
/// What an application may send at once: a message's limit, with room for its headers.
const BODY_LIMIT: usize = MESSAGE_LIMIT - 1_024;

impl Mesh {
    /// Spreads a change on a channel and keeps the full state it led to.
    ///
    /// The delta goes down the broadcast tree at once. The state is for new sessions, slow neighbours and
    /// repair; without a delta it spreads by comparison. Both are at most about 8 MiB; more is counted and lost.
    pub fn publish(&mut self, channel: ChannelName, delta: Option<Vec<u8>>, state: Vec<u8>, now: Instant) {
        if !self.channels.knows(channel) || !self.fits(&state) {
            return;
        }
        let differs = self.channels.keep(channel, state);
        match delta {
            Some(delta) if self.fits(&delta) => self.broadcast(channel, delta),
            Some(_) | None if differs => self.gossip.states.want(),
            Some(_) | None => {}
        }
        self.settle(now);
    }

    /// Sends bytes to one peer over as many hops as it takes; lost if there is no way.
    pub fn unicast(&mut self, channel: ChannelName, to: PeerName, bytes: Vec<u8>, now: Instant) {
        if !self.fits(&bytes) {
            return;
        }
        if to == self.me {
            let kind = DeliverKind::Unicast;
            self.outputs.push_back(Output::Deliver { channel, source: self.me, kind, bytes });
        } else {
            self.route(to, Purpose::Application, channel, bytes);
        }
        self.settle(now);
    }

    /// Says something to a direct neighbour, over its session; lost if there is none.
    pub fn tell(&mut self, neighbour: PeerName, bytes: Vec<u8>, now: Instant) {
        let current = self.neighbours.get(&neighbour).map(|neighbour| neighbour.current);
        if let Some(current) = current.filter(|_| self.fits(&bytes)) {
            self.send(current, &Message::Tell(Blob(bytes)));
        }
        self.settle(now);
    }

    fn fits(&mut self, bytes: &[u8]) -> bool {
        let fits = bytes.len() <= BODY_LIMIT;
        if !fits {
            self.counters.oversized += 1;
        }
        fits
    }

    /// Sends a broadcast of our own to all neighbours: the first level of our tree is all of them.
    pub(super) fn broadcast(&mut self, channel: ChannelName, body: Vec<u8>) {
        self.last_sequence += 1;
        let origin = Origin {
            source: self.me,
            incarnation: self.topology.own().incarnation,
            boot: self.boot,
            sequence: self.last_sequence,
        };
        let neighbours: Vec<_> = self.neighbours.keys().copied().collect();
        self.flood(
            &neighbours,
            &Message::Broadcast(Broadcast { origin, hops: HOPS, channel, body: Blob(body) }),
        );
    }

    pub(super) fn flood(&mut self, neighbours: &[PeerName], message: &Message) {
        for neighbour in neighbours {
            self.send_bulk(*neighbour, message);
        }
    }

    /// Sends what a slow neighbour can do without: it gets the whole state when it has caught up.
    pub(super) fn send_bulk(&mut self, neighbour: PeerName, message: &Message) {
        let Some(current) = self.neighbours.get(&neighbour).map(|neighbour| neighbour.current) else {
            return;
        };
        if self.links.get_mut(&current).is_some_and(Link::takes_deltas) {
            self.send(current, message);
        } else {
            self.counters.slow_neighbour_drops += 1;
        }
    }

    pub(super) fn take_broadcast(&mut self, from: PeerName, broadcast: Broadcast) {
        let Origin { source, .. } = broadcast.origin;
        if source == self.me || !self.seen.first_time(broadcast.origin) {
            self.counters.broadcasts_repeated += 1;
            return;
        }
        if let Some(hops) = broadcast.hops.checked_sub(1) {
            let next: Vec<_> =
                self.routes.flood(source).iter().copied().filter(|next| *next != from).collect();
            if !next.is_empty() {
                self.flood(&next, &Message::Broadcast(Broadcast { hops, ..broadcast.clone() }));
            }
        }
        if self.channels.knows(broadcast.channel) {
            let (channel, bytes) = (broadcast.channel, broadcast.body.0);
            self.outputs.push_back(Output::Deliver { channel, source, kind: DeliverKind::Delta, bytes });
        }
    }

    /// Sends a routed message of our own.
    pub(super) fn route(&mut self, to: PeerName, purpose: Purpose, channel: ChannelName, body: Vec<u8>) {
        self.pass_on(Routed {
            source: self.me,
            destination: to,
            hops: HOPS,
            purpose,
            channel,
            body: Blob(body),
        });
    }

    fn pass_on(&mut self, routed: Routed) {
        let direct = self.neighbours.contains_key(&routed.destination);
        let next = if direct { Some(routed.destination) } else { self.routes.next_hop(routed.destination) };
        let current = next.and_then(|next| self.neighbours.get(&next)).map(|neighbour| neighbour.current);
        let open = current.filter(|current| self.links.get(current).is_some_and(Link::takes_routed));
        match open {
            Some(connection) => {
                self.send(connection, &Message::Routed(routed));
            }
            None => self.counters.unroutable += 1,
        }
    }

    pub(super) fn take_routed(&mut self, routed: Routed, now: Instant) {
        if routed.destination != self.me {
            match routed.hops.checked_sub(1) {
                Some(hops) => self.pass_on(Routed { hops, ..routed }),
                None => self.counters.unroutable += 1,
            }
            return;
        }
        let Routed { source, purpose, channel, body: Blob(bytes), .. } = routed;
        match purpose {
            Purpose::Probe => return self.answer_probe(source),
            Purpose::ProbeAnswer => return self.probe_answered(source, &bytes, now),
            Purpose::Application | Purpose::StateHash | Purpose::StateAsk | Purpose::StateTell => {}
        }
        if !self.channels.knows(channel) {
            return;
        }
        match purpose {
            Purpose::StateHash => self.compare_state(source, channel, &bytes),
            Purpose::StateAsk | Purpose::StateTell => {
                if purpose == Purpose::StateAsk && state_hash(Some(&bytes)) != self.channels.hash(channel) {
                    self.give_state(source, channel, Purpose::StateTell);
                }
                self.outputs.push_back(Output::Deliver { channel, source, kind: DeliverKind::State, bytes });
            }
            Purpose::Application => {
                self.outputs.push_back(Output::Deliver {
                    channel,
                    source,
                    kind: DeliverKind::Unicast,
                    bytes,
                });
            }
            Purpose::Probe | Purpose::ProbeAnswer => {}
        }
    }

    /// Compares one channel's state with the hash of another peer's.
    fn compare_state(&mut self, source: PeerName, channel: ChannelName, theirs: &[u8]) {
        if theirs == self.channels.hash(channel) {
            return;
        }
        if !self.give_state(source, channel, Purpose::StateAsk) {
            self.route(source, Purpose::StateHash, channel, Vec::new()); // we have none: ask for theirs
        }
    }

    fn give_state(&mut self, to: PeerName, channel: ChannelName, purpose: Purpose) -> bool {
        let Some(state) = self.channels.state(channel).map(<[u8]>::to_vec) else { return false };
        self.route(to, purpose, channel, state);
        true
    }

    /// Begins comparing the states of all channels with a few of these peers, chosen at random.
    pub(super) fn compare_states(&mut self, mut peers: Vec<PeerName>) {
        for _ in 0..GREETED.min(peers.len()) {
            let peer = peers.swap_remove(self.rng.random_range(0..peers.len()));
            for channel in self.channels.names() {
                let hash = self.channels.hash(channel).to_vec();
                self.route(peer, Purpose::StateHash, channel, hash);
            }
        }
    }

    /// Begins comparing the states of all channels that the far side of a connection knows too.
    pub(super) fn compare_states_over(&mut self, connection: ConnectionId) {
        let Some(peer) = self.links.get(&connection).and_then(Link::live).map(|live| live.peer) else {
            return;
        };
        let Some(neighbour) = self.neighbours.get(&peer) else { return };
        let common: Vec<_> = self
            .channels
            .names()
            .into_iter()
            .filter(|channel| neighbour.channels.contains(channel))
            .collect();
        for channel in common {
            let body = Blob(self.channels.hash(channel).to_vec());
            let purpose = Purpose::StateHash;
            let routed = Routed { source: self.me, destination: peer, hops: HOPS, purpose, channel, body };
            self.send(connection, &Message::Routed(routed));
        }
    }
}
