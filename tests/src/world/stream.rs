//! TCP between simulated hosts: ordered bytes, latency, resets; on a cut path they stall and are not lost.
//!
//! A process that ends resets its connections. A host that loses power says nothing: whoever sends to it later
//! hears a reset when it is back, and nothing before.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use weft_gossip::{ConnectionId, Input, Target, UNREPORTED};

use super::World;
use super::agenda::{Event, HostId, Life};
use super::host::address;

/// When TCP asks again on a path that is cut; then the shell's deadline of 5 s is over.
const DIAL_WAITS: &[Duration] = &[Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(2)];

/// What a socket takes before bytes wait in the router.
const SEND_BUFFER: usize = 256 << 10;

/// What travels in one direction.
#[derive(Debug)]
enum Parcel {
    Bytes(Vec<u8>),
    End(&'static str),
}

/// One end of a connection.
#[derive(Debug)]
struct End {
    host: HostId,
    /// The process it belongs to; none until accepted, and again once closed.
    owner: Option<(Life, ConnectionId)>,
    inbound: VecDeque<(Duration, Parcel)>,
    /// Bytes on the way to this end.
    waiting: usize,
    /// Nothing arrives before what was sent earlier.
    latest: Duration,
    /// Bytes that have left the far end since it last heard of that.
    unreported: usize,
}

/// One TCP connection: end 0 dialled, end 1 is dialled.
#[derive(Debug)]
struct Connection {
    ends: [End; 2],
    port: u16,
}

/// All TCP connections.
#[derive(Debug, Default)]
pub(super) struct Streams {
    wires: BTreeMap<u64, Connection>,
    by_owner: BTreeMap<(HostId, ConnectionId), (u64, usize)>,
    last: u64,
}

impl Streams {
    pub(super) fn wires_of(&self, host: HostId) -> Vec<(u64, usize)> {
        let all = (host, ConnectionId(0))..=(host, ConnectionId(u64::MAX));
        self.by_owner.range(all).map(|(_, at)| *at).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.wires.len()
    }
}

impl World {
    pub(super) fn dial(&mut self, life: Life, connection: ConnectionId, target: &Target) {
        let hosts = 0..self.hosts.len();
        let to = target.address().and_then(|wanted| hosts.into_iter().find(|to| address(*to) == wanted));
        match to {
            Some(to) => self.connect(life, connection, to, DIAL_WAITS),
            None => self.refuse_dial(life, connection, format!("{target}: no such host"), Duration::ZERO),
        }
    }

    fn refuse_dial(&mut self, life: Life, connection: ConnectionId, error: String, after: Duration) {
        let input = Input::DialFailed { connection, error };
        self.agenda.put(self.now + after, Event::Transport(life, input));
    }

    pub(super) fn connect(
        &mut self,
        life: Life,
        connection: ConnectionId,
        to: HostId,
        waits: &'static [Duration],
    ) {
        let linked = self.network.is_linked(life.host, to) && self.hosts[to].powered;
        if !linked {
            let Some((wait, waits)) = waits.split_first() else {
                return self.refuse_dial(life, connection, "timed out".to_owned(), Duration::ZERO);
            };
            let event = Event::Redial { life, connection, to, waits };
            return self.agenda.put(self.now + *wait, event);
        }
        self.streams.last += 1;
        let id = self.streams.last;
        let end = |host, owner| End {
            host,
            owner,
            inbound: VecDeque::new(),
            waiting: 0,
            latest: Duration::ZERO,
            unreported: 0,
        };
        let port = 32_768 + u16::try_from(id % 28_000).unwrap_or(0);
        let ends = [end(life.host, Some((life, connection))), end(to, None)];
        self.streams.wires.insert(id, Connection { ends, port });
        self.streams.by_owner.insert((life.host, connection), (id, 0));
        let lag = self.network.look(life.host, to).stream(&mut self.rng);
        self.agenda.put(self.now + lag, Event::Arrive(id));
    }

    /// A dial reached its host: the process there takes it, or it is refused.
    pub(super) fn arrive(&mut self, id: u64) {
        let Some(wire) = self.streams.wires.get(&id) else { return };
        let (from, to, port) = (wire.ends[0].host, wire.ends[1].host, wire.port);
        let Some((dialler, connection)) = wire.ends[0].owner else { return };
        let back = self.network.look(to, from).stream(&mut self.rng);
        if self.defer_if_stopped(to, Event::Arrive(id)).is_none() {
            return;
        }
        let remote = SocketAddr::new(address(from).ip(), port);
        let now = self.hosts[to].clock.at(self.now);
        let accepted = self.hosts[to]
            .process
            .as_mut()
            .map(|process| process.node.accept(remote, Some(address(to)), now));
        let Some(accepted) = accepted else {
            self.forget_end(id, 0);
            return self.refuse_dial(dialler, connection, "connection refused".to_owned(), back);
        };
        let dialled = Input::Dialed { connection, remote: address(to), local: Some(remote) };
        self.agenda.put(self.now + back, Event::Transport(dialler, dialled));
        let life = self.hosts[to].life(to);
        if let Some(wire) = self.streams.wires.get_mut(&id) {
            wire.ends[1].owner = accepted.map(|connection| (life, connection));
            wire.ends[0].latest = self.now + back;
        }
        match accepted {
            Some(connection) => {
                self.streams.by_owner.insert((to, connection), (id, 1));
            }
            None => self.put_parcel(id, 0, Parcel::End("connection reset")),
        }
        self.drain_node(to);
    }

    pub(super) fn send_bytes(&mut self, host: HostId, connection: ConnectionId, bytes: Vec<u8>) {
        if let Some((wire, end)) = self.streams.by_owner.get(&(host, connection)).copied() {
            let length = bytes.len();
            self.put_parcel(wire, 1 - end, Parcel::Bytes(bytes));
            self.left(wire, 1 - end, length);
        }
    }

    /// Has the sender of what goes to this end hear how much still waits, once enough has left.
    fn left(&mut self, id: u64, end: usize, length: usize) {
        let Some(wire) = self.streams.wires.get_mut(&id) else { return };
        wire.ends[end].unreported += length;
        if wire.ends[end].unreported >= UNREPORTED {
            wire.ends[end].unreported = 0;
            self.agenda.put(self.now + Duration::from_micros(20), Event::Writable(id, end));
        }
    }

    pub(super) fn writable(&mut self, id: u64, end: usize) {
        let Some(wire) = self.streams.wires.get(&id) else { return };
        if self.defer_if_stopped(wire.ends[1 - end].host, Event::Writable(id, end)).is_none() {
            return;
        }
        let Some(wire) = self.streams.wires.get_mut(&id) else { return };
        let queued = wire.ends[end].waiting.saturating_sub(SEND_BUFFER);
        if let Some((life, connection)) = wire.ends[1 - end].owner {
            self.transport(life, Input::Writable { connection, queued });
        }
    }

    /// Closes one end; the other hears of it after what was sent before.
    pub(super) fn close_connection(&mut self, host: HostId, connection: ConnectionId, reason: &'static str) {
        if let Some((wire, end)) = self.streams.by_owner.get(&(host, connection)).copied() {
            self.close_end(wire, end, reason);
        }
    }

    /// The process at this end is gone; with `loud` its kernel says so.
    pub(super) fn close_all(&mut self, host: HostId, loud: bool) {
        for (wire, end) in self.streams.wires_of(host) {
            if loud {
                self.close_end(wire, end, "connection reset");
            } else {
                self.forget_end(wire, end);
            }
        }
    }

    fn close_end(&mut self, wire: u64, end: usize, reason: &'static str) {
        self.forget_end(wire, end);
        self.put_parcel(wire, 1 - end, Parcel::End(reason));
    }

    fn forget_end(&mut self, id: u64, end: usize) {
        let Some(wire) = self.streams.wires.get_mut(&id) else { return };
        let state = &mut wire.ends[end];
        state.inbound.clear();
        state.waiting = 0;
        if let Some((_, connection)) = state.owner.take() {
            self.streams.by_owner.remove(&(state.host, connection));
        }
        if wire.ends.iter().all(|end| end.owner.is_none()) {
            self.streams.wires.remove(&id);
        }
    }

    fn put_parcel(&mut self, id: u64, end: usize, parcel: Parcel) {
        let Some(wire) = self.streams.wires.get_mut(&id) else { return };
        let (from, to) = (wire.ends[1 - end].host, wire.ends[end].host);
        let at = self.now + self.network.look(from, to).stream(&mut self.rng);
        let state = &mut wire.ends[end];
        let at = at.max(state.latest);
        state.latest = at;
        if let Parcel::Bytes(bytes) = &parcel {
            state.waiting += bytes.len();
        }
        state.inbound.push_back((at, parcel));
        self.agenda.put(at, Event::Deliver(id, end));
    }

    /// A path is open again: what stalled is sent again, within a second.
    pub(super) fn wake_streams(&mut self, from: HostId, to: HostId) {
        let stalled = |(id, wire): (&u64, &Connection)| {
            let end = (0..2).find(|end| wire.ends[*end].host == to && wire.ends[1 - end].host == from)?;
            (!wire.ends[end].inbound.is_empty()).then_some((*id, end))
        };
        let stalled: Vec<(u64, usize)> = self.streams.wires.iter().filter_map(stalled).collect();
        for (wire, end) in stalled {
            let lag = Duration::from_millis(rand::RngExt::random_range(&mut self.rng, 1..1000));
            self.agenda.put(self.now + lag, Event::Deliver(wire, end));
        }
    }

    /// Hands over what is due at one end, unless the path to it is cut or its process is stopped.
    pub(super) fn deliver(&mut self, id: u64, end: usize) {
        loop {
            let Some(wire) = self.streams.wires.get_mut(&id) else { return };
            let (from, to) = (wire.ends[1 - end].host, wire.ends[end].host);
            let due = wire.ends[end].inbound.front().is_some_and(|(at, _)| *at <= self.now);
            if !due || self.network.is_cut(from, to) || !self.hosts[to].powered {
                return;
            }
            let Some((life, connection)) = wire.ends[end].owner else {
                // Nobody there knows this connection.
                let unborn = end == 1 && wire.ends[0].latest.is_zero();
                if !unborn {
                    wire.ends[end].inbound.clear();
                    self.put_parcel(id, 1 - end, Parcel::End("connection reset"));
                }
                return;
            };
            if self.defer_if_stopped(to, Event::Deliver(id, end)).is_none() {
                return;
            }
            let Some(wire) = self.streams.wires.get_mut(&id) else { return };
            let Some((_, parcel)) = wire.ends[end].inbound.pop_front() else { return };
            match parcel {
                Parcel::Bytes(bytes) => {
                    let length = bytes.len();
                    wire.ends[end].waiting -= length;
                    let more = wire.ends[end].waiting + length > SEND_BUFFER;
                    self.messages += 1;
                    if more {
                        self.left(id, end, length);
                    }
                    self.transport(life, Input::Received { connection, bytes });
                }
                Parcel::End(reason) => {
                    self.forget_end(id, end);
                    let error = Some(reason.to_owned());
                    self.transport(life, Input::Closed { connection, error });
                }
            }
        }
    }
}
