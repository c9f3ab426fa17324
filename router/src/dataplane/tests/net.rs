//! A network of data halves in virtual time: datagrams and announcements take a while, and a test decides what
//! becomes of each datagram. Whatever the scenario, no (key, counter) pair may leave twice.

use crate::{
    dataplane::{Carrier, Command, Dataplane, Event, ForwardingTable, Output, Setup},
    sleeve::{keys::KeyLimits, packet::Header},
    switch::offload::VnetHeader,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};
use weft_fastpath::MacAddr;
use weft_gossip::PeerName;

pub(super) const LATENCY: Duration = Duration::from_micros(100);
const SESSION_LATENCY: Duration = Duration::from_micros(300);

/// What becomes of a datagram on its way.
#[derive(Debug, Clone)]
pub(super) enum Fate {
    Arrives,
    Late(Duration),
    Twice,
    Lost,
}

enum Arrival {
    Datagram { from: SocketAddr, bytes: Vec<u8> },
    Announcement { from: usize, session: u64, bytes: Vec<u8> },
}

pub(super) type Wire = Box<dyn FnMut(usize, usize, &[u8]) -> Fate>;

pub(super) struct Net {
    pub(super) nodes: Vec<Dataplane>,
    pub(super) addresses: Vec<SocketAddr>,
    pub(super) injected: Vec<Vec<(Vec<u8>, Option<VnetHeader>)>>,
    pub(super) events: Vec<Vec<(Instant, Event)>>,
    pub(super) now: Instant,
    pub(super) wire: Wire,
    pub(super) seen: Vec<Vec<u8>>,
    sessions: BTreeMap<(usize, usize), u64>,
    last_session: u64,
    queue: BTreeMap<(Instant, u64), (usize, Arrival)>,
    order: u64,
    nonces: BTreeSet<(u32, u64)>,
    encrypted: bool,
    limits: KeyLimits,
}

pub(super) fn name(node: usize) -> PeerName {
    PeerName::from_u64(node as u64 + 1)
}

fn address(node: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, u8::try_from(node + 1).unwrap()], 6783))
}

pub(super) fn mac(node: usize) -> MacAddr {
    MacAddr::new([2, 0, 0, 0, 0, u8::try_from(node).unwrap()])
}

pub(super) const EVERYONE: MacAddr = MacAddr::new([255; 6]);

/// A frame of `length` bytes with a payload that depends on `mark`.
pub(super) fn frame(from: MacAddr, to: MacAddr, length: usize, mark: u64) -> Vec<u8> {
    let mut frame = [to.octets(), from.octets()].concat();
    frame.extend([0x08, 0x00]);
    frame.extend(mark.to_be_bytes());
    let mut byte = mark;
    frame.resize_with(length.max(22), || {
        byte = byte.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        byte.to_be_bytes()[0]
    });
    frame
}

#[expect(clippy::disallowed_methods, reason = "virtual time starts somewhere")]
fn epoch() -> Instant {
    Instant::now()
}

impl Net {
    pub(super) fn new(count: usize, encrypted: bool, limits: KeyLimits) -> Self {
        let mut net = Self {
            nodes: Vec::new(),
            addresses: (0..count).map(address).collect(),
            injected: vec![Vec::new(); count],
            events: vec![Vec::new(); count],
            now: epoch(),
            wire: Box::new(|_, _, _| Fate::Arrives),
            seen: Vec::new(),
            sessions: BTreeMap::new(),
            last_session: 0,
            queue: BTreeMap::new(),
            order: 0,
            nonces: BTreeSet::new(),
            encrypted,
            limits,
        };
        net.nodes = (0..count).map(|node| net.machine(node, u8::try_from(node).unwrap())).collect();
        net
    }

    /// Encrypted, everyone linked with everyone, run until the paths are measured.
    pub(super) fn mesh(count: usize) -> Self {
        let mut net = Self::new(count, true, KeyLimits::default());
        for node in 0..count {
            (0..node).for_each(|other| net.connect(node, other));
        }
        net.settle();
        net
    }

    /// Encrypted, each linked with the next.
    pub(super) fn chain(count: usize) -> Self {
        let mut net = Self::new(count, true, KeyLimits::default());
        (1..count).for_each(|node| net.connect(node - 1, node));
        net.settle();
        net
    }

    fn machine(&self, node: usize, seed: u8) -> Dataplane {
        let (me, encrypted, limits) = (name(node), self.encrypted, self.limits);
        let mut machine = Dataplane::new(
            Setup { me, encrypted, hardware_aes: node != 2, seed: [seed; 32], limits },
            self.now,
        );
        machine.handle_command(Command::LocalMacs([mac(node)].into()), self.now);
        machine
    }

    /// A new session between two nodes.
    pub(super) fn connect(&mut self, one: usize, two: usize) {
        self.last_session += 1;
        self.sessions.insert((one.min(two), one.max(two)), self.last_session);
        for (node, other) in [(one, two), (two, one)] {
            let (session, address) = (self.last_session, self.addresses[other]);
            self.command(node, Command::AddLink { peer: name(other), session, address });
        }
        self.route();
    }

    /// A router dies and another takes its place: nothing of the old one is left.
    pub(super) fn restart(&mut self, node: usize, seed: u8) {
        self.nodes[node] = self.machine(node, seed);
        let neighbours: Vec<_> = self.neighbours(node).collect();
        neighbours.into_iter().for_each(|other| self.connect(node, other));
    }

    fn neighbours(&self, node: usize) -> impl Iterator<Item = usize> {
        self.sessions.keys().filter_map(move |(one, two)| match node {
            _ if *one == node => Some(*two),
            _ if *two == node => Some(*one),
            _ => None,
        })
    }

    /// The parents of every node in the shortest tree that grows from `root`.
    fn tree(&self, root: usize) -> BTreeMap<usize, usize> {
        let (mut parents, mut edge) = (BTreeMap::from([(root, root)]), vec![root]);
        while !edge.is_empty() {
            let mut next = Vec::new();
            for node in edge {
                for other in self.neighbours(node) {
                    parents.entry(other).or_insert_with(|| {
                        next.push(other);
                        node
                    });
                }
            }
            edge = next;
        }
        parents
    }

    pub(super) fn table(&self, node: usize) -> ForwardingTable {
        let mut table = ForwardingTable::alone(name(node));
        for root in 0..self.nodes.len() {
            let tree = self.tree(root);
            let children = tree.iter().filter(|(child, parent)| **parent == node && **child != node);
            table.flood.insert(name(root), children.map(|(child, _)| name(*child)).collect());
            if root != node
                && let Some(next) = tree.get(&node)
            {
                table.next_hop.insert(name(root), name(*next));
                table.upstream.insert(name(root), name(*next));
            }
        }
        table.carriers = self.neighbours(node).map(|other| (name(other), Carrier::Sleeve)).collect();
        table
    }

    fn route(&mut self) {
        for node in 0..self.nodes.len() {
            let table = Arc::new(self.table(node));
            self.command(node, Command::Table(table));
        }
    }

    pub(super) fn command(&mut self, node: usize, command: Command) {
        self.nodes[node].handle_command(command, self.now);
        self.drain(node);
    }

    pub(super) fn capture(&mut self, node: usize, frame: &[u8]) {
        self.nodes[node].handle_captured(frame, None, self.now);
        self.drain(node);
    }

    /// Several frames in one batch of input.
    pub(super) fn capture_all(&mut self, node: usize, frames: &[Vec<u8>]) {
        for frame in frames {
            self.nodes[node].handle_captured(frame, None, self.now);
        }
        self.drain(node);
    }

    pub(super) fn datagram(&mut self, node: usize, from: SocketAddr, bytes: &[u8]) {
        self.nodes[node].handle_datagram(from, &mut bytes.to_vec(), self.now);
        self.drain(node);
    }

    pub(super) fn drain(&mut self, node: usize) {
        let mut sent = Vec::new();
        let mut announced = Vec::new();
        while let Some(output) = self.nodes[node].poll_output() {
            match output {
                Output::Transmit { to, segment, bytes } => {
                    sent.extend(bytes.chunks(segment).map(|datagram| (to, datagram.to_vec())));
                }
                Output::Inject { frame, vnet } => self.injected[node].push((frame.to_vec(), vnet)),
                Output::Event(Event::Announce { peer, session, bytes }) => {
                    announced.push((peer, session, bytes))
                }
                Output::Event(event) => self.events[node].push((self.now, event)),
            }
        }
        for (to, datagram) in sent {
            self.transmit(node, to, datagram);
        }
        for (peer, session, bytes) in announced {
            let to = usize::try_from(peer.as_u64()).unwrap() - 1;
            self.queue(SESSION_LATENCY, to, Arrival::Announcement { from: node, session, bytes });
        }
    }

    fn transmit(&mut self, node: usize, to: SocketAddr, bytes: Vec<u8>) {
        let header = Header::parse(&bytes).unwrap();
        assert!(self.nonces.insert((header.index, header.counter)), "a nonce was used twice: {header:?}");
        let Some(target) = self.addresses.iter().position(|address| *address == to) else { return };
        let from = self.addresses[node];
        let fate = (self.wire)(node, target, &bytes);
        self.seen.push(bytes.clone());
        let datagram = |bytes| Arrival::Datagram { from, bytes };
        match fate {
            Fate::Arrives => self.queue(LATENCY, target, datagram(bytes)),
            Fate::Late(delay) => self.queue(LATENCY + delay, target, datagram(bytes)),
            Fate::Twice => {
                self.queue(LATENCY, target, datagram(bytes.clone()));
                self.queue(LATENCY * 2, target, datagram(bytes));
            }
            Fate::Lost => {}
        }
    }

    fn queue(&mut self, delay: Duration, node: usize, arrival: Arrival) {
        self.order += 1;
        self.queue.insert((self.now + delay, self.order), (node, arrival));
    }

    /// Lets virtual time pass.
    pub(super) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let timer = (0..self.nodes.len())
                .filter_map(|node| self.nodes[node].poll_timeout().map(|at| (at.max(self.now), node)))
                .min();
            let arrival = self.queue.first_key_value().map(|((at, _), _)| *at);
            let Some(next) = [timer.map(|(at, _)| at), arrival].into_iter().flatten().min() else { break };
            if next >= end {
                break;
            }
            self.now = next;
            match timer.filter(|(at, _)| *at == next) {
                Some((_, node)) => {
                    self.nodes[node].handle_timeout(next);
                    let again = self.nodes[node].poll_timeout();
                    assert!(again.is_none_or(|again| again > next), "a timer that stays due");
                    self.drain(node);
                }
                None => self.arrive(),
            }
        }
        self.now = end;
    }

    fn arrive(&mut self) {
        let Some((_, (node, arrival))) = self.queue.pop_first() else { return };
        match arrival {
            Arrival::Datagram { from, bytes } => self.datagram(node, from, &bytes),
            Arrival::Announcement { from, session, bytes } => {
                self.command(node, Command::Announced { peer: name(from), session, bytes });
            }
        }
    }

    /// Until the paths are measured and every node has heard of every container.
    pub(super) fn settle(&mut self) {
        self.run(Duration::from_secs(2));
        for node in 0..self.nodes.len() {
            self.capture(node, &frame(mac(node), EVERYONE, 60, 0));
            self.run(Duration::from_millis(10));
        }
        self.injected.iter_mut().for_each(Vec::clear);
        self.seen.clear();
    }

    pub(super) fn frames(&self, node: usize) -> Vec<Vec<u8>> {
        self.injected[node].iter().map(|(frame, _)| frame.clone()).collect()
    }
}
