//! Many meshes in one process, in virtual time: the very types that ship, real Noise included.
//!
//! A discrete-event network of nodes with one address each. Connections are TCP as far as a mesh can tell:
//! ordered bytes with latency, refused and reset when the far process is gone, stalled (not lost) where the
//! path is cut. One seed decides every latency and every key, so a run replays exactly.
//!
//! The owner of a [`Sim`] is the application of every node: [`Sim::step`] hands out what a mesh reports, and
//! [`Sim::act`] lets the application act on a mesh.
//!
//! ```text
//!  act(node, |mesh, now| …)      step(until) ─► (node, Output::Deliver …)
//!        └──────────► Mesh ──outputs──► events by time ──inputs──► Mesh
//! ```

mod network;
mod node;

use std::cmp::Ordering;
use std::collections::{BTreeSet, BinaryHeap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::event::{ConnectionId, Input, Output};
use crate::mesh::{Mesh, MeshConfig};
use crate::peer::PeerName;
use crate::target::{DEFAULT_PORT, Target};
use network::Network;
use node::Node;
pub use node::NodeOptions;

/// A node of the simulation, by the order in which they were added.
pub type NodeId = usize;

/// How long Linux waits at least for an acknowledgement before it sends again.
const RESEND: Duration = Duration::from_millis(200);
/// The same for the first packet of a connection (RFC 6298).
const RESEND_SYN: Duration = Duration::from_secs(1);

/// When TCP asks again on a path that is cut; then the shell's deadline of 5 s is over.
const DIAL_WAITS: &[Duration] = &[Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(2)];

/// Something that happens.
#[derive(Debug)]
enum Event {
    /// A node takes an input; `life` tells whether it is still the one it was meant for.
    Input { node: NodeId, life: u32, input: Input },
    /// A dial on a cut path is tried again, as TCP does, after the waits that are left.
    Redial { node: NodeId, life: u32, connection: ConnectionId, to: NodeId, waits: &'static [Duration] },
    /// A dial arrives where it leads.
    Arrive { wire: u64 },
    /// Bytes arrive at one end of a wire.
    Deliver { wire: u64, end: usize },
}

/// An event with its time; of one time the first that was put down is first.
#[derive(Debug)]
struct Entry {
    at: Instant,
    number: u64,
    event: Event,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

/// The simulation.
pub struct Sim {
    now: Instant,
    rng: StdRng,
    latency: RangeInclusive<Duration>,
    nodes: Vec<Node>,
    network: Network,
    queue: BinaryHeap<Entry>,
    last_event: u64,
    /// What meshes reported and nobody has taken yet.
    reports: VecDeque<(NodeId, Output)>,
    delivered: u64,
    delivered_bytes: u64,
    /// How often a piece of bytes is lost on its way and comes after a retransmission.
    loss: f64,
    /// Connections of the node being drained on which it sent.
    written: Vec<ConnectionId>,
    /// When each mesh wants to be called.
    timers: BTreeSet<(Instant, NodeId)>,
}

impl Sim {
    /// Begins an empty simulation; one-way latencies are drawn from 0.5 to 2 ms. `start` is any instant.
    pub fn new(seed: u64, start: Instant) -> Self {
        Self {
            now: start,
            rng: StdRng::seed_from_u64(seed),
            latency: Duration::from_micros(500)..=Duration::from_millis(2),
            nodes: Vec::new(),
            network: Network::default(),
            queue: BinaryHeap::new(),
            last_event: 0,
            reports: VecDeque::new(),
            delivered: 0,
            delivered_bytes: 0,
            loss: 0.0,
            written: Vec::new(),
            timers: BTreeSet::new(),
        }
    }

    /// Draws one-way latencies from this range from now on.
    pub fn set_latency(&mut self, latency: RangeInclusive<Duration>) {
        self.latency = latency;
    }

    /// Loses this share of all pieces from now on: TCP sends them again 200 ms later, and a dial after a second.
    pub fn set_loss(&mut self, loss: f64) {
        self.loss = loss;
    }

    /// Adds a node and starts it.
    pub fn add(&mut self, options: NodeOptions) -> NodeId {
        let node = self.nodes.len();
        let identity = options.identity.unwrap_or(node);
        self.nodes.push(Node::new(options, identity));
        self.boot(node);
        node
    }

    /// Adds nodes of which each has the one before it as its target.
    pub fn add_chain(&mut self, count: usize, options: &NodeOptions) -> Vec<NodeId> {
        (0..count)
            .map(|_| {
                let mut options = options.clone();
                options.targets.extend(self.nodes.len().checked_sub(1));
                self.add(options)
            })
            .collect()
    }

    /// The address of a node: 10.x.y.z, with the default port.
    pub fn address(node: NodeId) -> SocketAddr {
        let [_, a, b, c] = u32::try_from(node + 1).unwrap_or(u32::MAX).to_be_bytes();
        SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, a, b, c)), DEFAULT_PORT)
    }

    /// Which node has this address.
    fn at_address(&self, address: SocketAddr) -> Option<NodeId> {
        let IpAddr::V4(v4) = address.ip() else { return None };
        let [_, a, b, c] = v4.octets();
        let node = usize::try_from(u32::from_be_bytes([0, a, b, c])).ok()?.checked_sub(1)?;
        (node < self.nodes.len() && Self::address(node) == address).then_some(node)
    }

    /// The present time.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// How many pieces of bytes have arrived so far.
    pub fn delivered(&self) -> u64 {
        self.delivered
    }

    /// How many bytes have arrived so far, without what TCP and IP put around them.
    pub fn delivered_bytes(&self) -> u64 {
        self.delivered_bytes
    }

    /// The number of nodes, running or not.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Says whether there are no nodes.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// The name of a node.
    pub fn name(&self, node: NodeId) -> PeerName {
        self.nodes[node].identity().name()
    }

    /// The node that runs under a name, if there is one.
    pub fn node(&self, name: PeerName) -> Option<NodeId> {
        (0..self.nodes.len()).find(|node| self.is_running(*node) && self.name(*node) == name)
    }

    /// Says whether a node's process runs.
    pub fn is_running(&self, node: NodeId) -> bool {
        self.nodes[node].mesh.is_some()
    }

    /// The mesh of a running node, to look at.
    ///
    /// # Panics
    /// If the node does not run.
    pub fn mesh(&self, node: NodeId) -> &Mesh {
        self.nodes[node].mesh.as_ref().expect("the node runs")
    }

    /// Lets the application of a running node act on its mesh, and takes what comes of it.
    ///
    /// # Panics
    /// If the node does not run.
    pub fn act<T>(&mut self, node: NodeId, act: impl FnOnce(&mut Mesh, Instant) -> T) -> T {
        let now = self.now;
        let result = act(self.nodes[node].mesh.as_mut().expect("the node runs"), now);
        self.drain(node);
        result
    }

    /// Ends a node's process as `kill -9` does: its connections are reset.
    pub fn kill(&mut self, node: NodeId) {
        self.nodes[node].mesh = None;
        self.plan(node);
        for (wire, end) in self.network.wires_of(node) {
            self.close_wire(wire, end, "connection reset");
        }
    }

    /// Starts a killed node again, with a higher incarnation if it kept its memory.
    pub fn restart(&mut self, node: NodeId, with_memory: bool) {
        if self.is_running(node) {
            self.kill(node);
        }
        self.nodes[node].remember(with_memory);
        self.boot(node);
    }

    /// Cuts the path between two nodes, both ways; what is on the way stalls.
    pub fn cut(&mut self, one: NodeId, two: NodeId) {
        self.cut_one_way(one, two);
        self.cut_one_way(two, one);
    }

    /// Cuts the path from one node to another, that way only.
    pub fn cut_one_way(&mut self, from: NodeId, to: NodeId) {
        self.network.cut(from, to);
    }

    /// Heals the path between two nodes, both ways; what stalled arrives.
    pub fn heal(&mut self, one: NodeId, two: NodeId) {
        for (from, to) in [(one, two), (two, one)] {
            self.network.heal(from, to);
        }
        for (wire, end) in self.network.stalled_between(one, two) {
            self.schedule_delivery(wire, end);
        }
    }

    /// Cuts all paths between nodes of different groups; nodes in no group are left alone.
    pub fn partition(&mut self, groups: &[&[NodeId]]) {
        for (at, group) in groups.iter().enumerate() {
            for (one, two) in
                group.iter().flat_map(|one| groups[at + 1..].concat().into_iter().map(move |two| (*one, two)))
            {
                self.cut(one, two);
            }
        }
    }

    /// Heals all paths.
    pub fn heal_all(&mut self) {
        for (one, two) in self.network.cuts() {
            self.heal(one, two);
        }
    }

    /// Goes on until a mesh has something for its application, or until this time.
    pub fn step(&mut self, until: Instant) -> Option<(NodeId, Output)> {
        loop {
            if let Some(report) = self.reports.pop_front() {
                return Some(report);
            }
            let timer = self.timers.first().copied();
            let event = self.queue.peek().map(|entry| entry.at);
            match (event, timer) {
                (event, Some((due, node))) if due <= until && event.is_none_or(|at| due < at) => {
                    self.now = self.now.max(due);
                    let now = self.now;
                    if let Some(mesh) = &mut self.nodes[node].mesh {
                        mesh.handle_timeout(now);
                    }
                    self.drain(node);
                }
                (Some(at), _) if at <= until => self.next_event(),
                _ => {
                    self.now = self.now.max(until);
                    return None;
                }
            }
        }
    }

    /// Goes on for so long and gives all that the meshes had for their applications.
    pub fn run_for(&mut self, time: Duration) -> Vec<(NodeId, Output)> {
        let until = self.now + time;
        std::iter::from_fn(|| self.step(until)).collect()
    }

    /// Goes on, dropping reports, until something holds; gives the time that took, or none within `limit`.
    ///
    /// It is looked at once a millisecond: what holds may be costly to find out.
    pub fn run_until(&mut self, limit: Duration, holds: impl Fn(&Self) -> bool) -> Option<Duration> {
        let start = self.now;
        while !holds(self) {
            if self.now >= start + limit {
                return None;
            }
            let look = (self.now + Duration::from_millis(1)).min(start + limit);
            while self.step(look).is_some() {}
        }
        Some(self.now - start)
    }

    fn next_event(&mut self) {
        let Some(Entry { at, event, .. }) = self.queue.pop() else { return };
        self.now = self.now.max(at);
        match event {
            Event::Input { node, life, input } if self.nodes[node].life == life => self.input(node, input),
            Event::Redial { node, life, connection, to, waits } if self.nodes[node].life == life => {
                self.connect(node, connection, to, waits);
            }
            Event::Input { .. } | Event::Redial { .. } => {}
            Event::Arrive { wire } => self.arrive(wire),
            Event::Deliver { wire, end } => self.deliver(wire, end),
        }
    }

    /// Notes when a mesh wants to be called next.
    fn plan(&mut self, node: NodeId) {
        let next = self.nodes[node].mesh.as_ref().and_then(Mesh::poll_timeout);
        if let Some(last) = std::mem::replace(&mut self.nodes[node].timer, next) {
            self.timers.remove(&(last, node));
        }
        self.timers.extend(next.map(|due| (due, node)));
    }

    fn schedule(&mut self, at: Instant, event: Event) {
        self.last_event += 1;
        self.queue.push(Entry { at, number: self.last_event, event });
    }

    fn schedule_input(&mut self, at: Instant, node: NodeId, input: Input) {
        let life = self.nodes[node].life;
        self.schedule(at, Event::Input { node, life, input });
    }

    fn one_way(&mut self) -> Duration {
        self.rng.random_range(self.latency.clone())
    }

    /// What a loss adds to a way; drawn only where there is any, so that a seed means what it meant without.
    fn lost(&mut self, again: Duration) -> Duration {
        if self.loss > 0.0 && self.rng.random_bool(self.loss) { again } else { Duration::ZERO }
    }

    fn boot(&mut self, node: NodeId) {
        let seed: u64 = self.rng.random();
        let boot: u64 = self.rng.random();
        let targets =
            self.nodes[node].options.targets.iter().map(|node| Target::from(Self::address(*node))).collect();
        let config = MeshConfig { targets, ..self.nodes[node].config(node, boot) };
        self.nodes[node].life += 1;
        self.nodes[node].mesh = Some(Mesh::new(config, seed, self.now));
        self.drain(node);
    }

    fn input(&mut self, node: NodeId, input: Input) {
        let now = self.now;
        if let Some(mesh) = &mut self.nodes[node].mesh {
            mesh.handle_input(input, now);
        }
        self.drain(node);
    }

    /// Does what a mesh wants done and keeps what it reports; what it sends is written at once.
    fn drain(&mut self, node: NodeId) {
        self.carry_out(node);
        while let Some(connection) = self.written.pop() {
            let now = self.now;
            if let Some(mesh) = &mut self.nodes[node].mesh {
                mesh.handle_input(Input::Writable { connection, queued: 0 }, now);
            }
            self.carry_out(node);
        }
        self.plan(node);
    }

    fn carry_out(&mut self, node: NodeId) {
        while let Some(output) = self.nodes[node].mesh.as_mut().and_then(Mesh::poll_output) {
            match output {
                Output::Dial { connection, target } => self.dial(node, connection, &target),
                Output::Send { connection, bytes } => self.send(node, connection, bytes),
                Output::Close { connection } => {
                    if let Some((wire, end)) = self.network.find(node, connection) {
                        self.close_wire(wire, end, "closed by the far side");
                    }
                }
                report @ (Output::Established { .. }
                | Output::Lost { .. }
                | Output::Told { .. }
                | Output::Deliver { .. }
                | Output::Routes(_)
                | Output::PeersChanged
                | Output::Refused { .. }) => self.reports.push_back((node, report)),
            }
        }
    }
}

#[cfg(test)]
mod tests;
