//! The wires between simulated nodes: ordered bytes, latency, cuts.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::{DIAL_WAITS, Event, NodeId, RESEND, RESEND_SYN, Sim};
use crate::event::{ConnectionId, Input};
use crate::target::Target;

/// What travels in one direction of a wire.
#[derive(Debug)]
enum Parcel {
    Bytes(Vec<u8>),
    /// The far side closed, or its process ended.
    End(&'static str),
}

/// One end of a wire.
#[derive(Debug)]
struct End {
    node: NodeId,
    /// How the node's mesh calls it; none until accepted, and again once closed.
    connection: Option<ConnectionId>,
    /// On the way to this end, in order, each with the time it is due.
    inbound: VecDeque<(Instant, Parcel)>,
    /// Nothing arrives before what was sent earlier.
    latest: Option<Instant>,
}

/// One TCP connection: end 0 dialled, end 1 is dialled.
#[derive(Debug)]
struct Wire {
    ends: [End; 2],
    port: u16,
}

/// All wires and all cuts.
#[derive(Debug, Default)]
pub(super) struct Network {
    wires: BTreeMap<u64, Wire>,
    by_connection: BTreeMap<(NodeId, ConnectionId), (u64, usize)>,
    cut: BTreeSet<(NodeId, NodeId)>,
    last_wire: u64,
}

impl Network {
    pub(super) fn cut(&mut self, from: NodeId, to: NodeId) {
        self.cut.insert((from, to));
    }

    pub(super) fn heal(&mut self, from: NodeId, to: NodeId) {
        self.cut.remove(&(from, to));
    }

    pub(super) fn cuts(&self) -> Vec<(NodeId, NodeId)> {
        self.cut.iter().copied().collect()
    }

    pub(super) fn find(&self, node: NodeId, connection: ConnectionId) -> Option<(u64, usize)> {
        self.by_connection.get(&(node, connection)).copied()
    }

    pub(super) fn wires_of(&self, node: NodeId) -> Vec<(u64, usize)> {
        self.by_connection
            .range((node, ConnectionId(0))..=(node, ConnectionId(u64::MAX)))
            .map(|(_, at)| *at)
            .collect()
    }

    /// The ends between two nodes for which something waits.
    pub(super) fn stalled_between(&self, one: NodeId, two: NodeId) -> Vec<(u64, usize)> {
        let between = |wire: &Wire| {
            let pair = (wire.ends[0].node, wire.ends[1].node);
            pair == (one, two) || pair == (two, one)
        };
        let wires = self.wires.iter().filter(|(_, wire)| between(wire));
        wires
            .flat_map(|(id, wire)| {
                (0..2).filter(|end| !wire.ends[*end].inbound.is_empty()).map(|end| (*id, end))
            })
            .collect()
    }
}

impl Sim {
    pub(super) fn dial(&mut self, node: NodeId, connection: ConnectionId, target: &Target) {
        let now = self.now;
        let to = target.address().and_then(|address| self.at_address(address));
        let Some(to) = to else {
            let error = format!("{target}: no such host");
            return self.schedule_input(now, node, Input::DialFailed { connection, error });
        };
        self.connect(node, connection, to, DIAL_WAITS);
    }

    pub(super) fn connect(
        &mut self,
        node: NodeId,
        connection: ConnectionId,
        to: NodeId,
        waits: &'static [Duration],
    ) {
        let now = self.now;
        if self.network.cut.contains(&(node, to)) || self.network.cut.contains(&(to, node)) {
            let Some((wait, waits)) = waits.split_first() else {
                let error = "timed out".to_owned();
                return self.schedule_input(now, node, Input::DialFailed { connection, error });
            };
            let life = self.nodes[node].life;
            return self.schedule(now + *wait, Event::Redial { node, life, connection, to, waits });
        }
        self.network.last_wire += 1;
        let wire = self.network.last_wire;
        let end = |node, connection| End { node, connection, inbound: VecDeque::new(), latest: None };
        let port = 32_768 + u16::try_from(wire % 28_000).unwrap_or(0);
        self.network.wires.insert(wire, Wire { ends: [end(node, Some(connection)), end(to, None)], port });
        self.network.by_connection.insert((node, connection), (wire, 0));
        let at = now + self.one_way() + self.lost(RESEND_SYN);
        self.schedule(at, Event::Arrive { wire });
    }

    /// A dial reached its host: the process there takes it, or it is refused.
    pub(super) fn arrive(&mut self, id: u64) {
        let Some(wire) = self.network.wires.get(&id) else { return };
        let (from, to) = (wire.ends[0].node, wire.ends[1].node);
        let Some(dialler) = wire.ends[0].connection else { return };
        let (remote, now) = (SocketAddr::new(Self::address(from).ip(), wire.port), self.now);
        let back = now + self.one_way();
        let local = Some(Self::address(to));
        let accepted = self.nodes[to].mesh.as_mut().map(|mesh| mesh.accept(remote, local, now));
        match accepted {
            None => {
                self.forget_end(id, 0);
                let error = "connection refused".to_owned();
                self.schedule_input(back, from, Input::DialFailed { connection: dialler, error });
            }
            Some(connection) => {
                let input =
                    Input::Dialed { connection: dialler, remote: Self::address(to), local: Some(remote) };
                self.schedule_input(back, from, input);
                if let Some(wire) = self.network.wires.get_mut(&id) {
                    wire.ends[1].connection = connection;
                    wire.ends[0].latest = Some(back);
                }
                match connection {
                    Some(connection) => {
                        self.network.by_connection.insert((to, connection), (id, 1));
                    }
                    None => self.put(id, 0, Parcel::End("connection reset")),
                }
                self.drain(to);
            }
        }
    }

    pub(super) fn send(&mut self, node: NodeId, connection: ConnectionId, bytes: Vec<u8>) {
        if let Some((wire, end)) = self.network.find(node, connection) {
            self.put(wire, 1 - end, Parcel::Bytes(bytes));
        }
        if self.written.last() != Some(&connection) {
            self.written.push(connection);
        }
    }

    /// Closes one end of a wire; the other hears of it after what was sent before.
    pub(super) fn close_wire(&mut self, wire: u64, end: usize, reason: &'static str) {
        self.forget_end(wire, end);
        self.put(wire, 1 - end, Parcel::End(reason));
    }

    fn forget_end(&mut self, id: u64, end: usize) {
        let Some(wire) = self.network.wires.get_mut(&id) else { return };
        let end = &mut wire.ends[end];
        end.inbound.clear();
        if let Some(connection) = end.connection.take() {
            self.network.by_connection.remove(&(end.node, connection));
        }
        if wire.ends.iter().all(|end| end.connection.is_none()) {
            self.network.wires.remove(&id);
        }
    }

    fn put(&mut self, id: u64, end: usize, parcel: Parcel) {
        let at = self.now + self.one_way() + self.lost(RESEND);
        let Some(wire) = self.network.wires.get_mut(&id) else { return };
        let end_state = &mut wire.ends[end];
        let at = end_state.latest.map_or(at, |latest| latest.max(at));
        end_state.latest = Some(at);
        end_state.inbound.push_back((at, parcel));
        self.schedule(at, Event::Deliver { wire: id, end });
    }

    pub(super) fn schedule_delivery(&mut self, wire: u64, end: usize) {
        let at = self.now + self.one_way();
        self.schedule(at, Event::Deliver { wire, end });
    }

    /// Hands over what is due at one end, unless the path to it is cut.
    pub(super) fn deliver(&mut self, id: u64, end: usize) {
        loop {
            let Some(wire) = self.network.wires.get_mut(&id) else { return };
            let (from, to) = (wire.ends[1 - end].node, wire.ends[end].node);
            let due = wire.ends[end].inbound.front().is_some_and(|(at, _)| *at <= self.now);
            if !due || self.network.cut.contains(&(from, to)) {
                return;
            }
            let Some(connection) = wire.ends[end].connection else { return };
            let Some((_, parcel)) = wire.ends[end].inbound.pop_front() else { return };
            match parcel {
                Parcel::Bytes(bytes) => {
                    self.delivered += 1;
                    self.delivered_bytes += bytes.len() as u64;
                    self.input(to, Input::Received { connection, bytes });
                }
                Parcel::End(reason) => {
                    self.forget_end(id, end);
                    self.input(to, Input::Closed { connection, error: Some(reason.to_owned()) });
                }
            }
        }
    }
}
