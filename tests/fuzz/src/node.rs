//! A whole node driven by bytes: calls, a peer that knows the secret and says anything, strangers, kernel, disk, time.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use weft_api::Request;
use weft_fastpath::{BridgeName, MacAddr};
use weft_gossip::{
    BootId, ChannelName, ConnectionId, Identity, Incarnation, Input, Mesh, MeshConfig, Output as Wants,
    PeerName, Psk, Seed, Target,
};
use weft_router::dataplane::Event;
use weft_router::ipam::{AllocatorConfig, InitMode};
use weft_router::node::{CallId, KernelConfig, KernelJob, KernelReport, Node, NodeConfig, Output, State};
use weft_router::overlay::{Config as OverlayConfig, Entropy};

use super::decoders::parts;

/// Most outputs of one step.
const OUTPUTS: usize = 20_000;

fn identity(number: u8) -> Identity {
    Identity::from_secret([number; 32])
}

fn address(number: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, number], 6783))
}

fn mesh_config(number: u8, targets: Vec<Target>) -> MeshConfig {
    MeshConfig {
        identity: identity(number),
        incarnation: Incarnation(1),
        boot: BootId(u64::from(number)),
        nickname: format!("host{number}"),
        site: "default".into(),
        psk: Psk::open(),
        endpoints: vec![address(number)],
        listen_port: 6783,
        discovery: true,
        connection_limit: None,
        targets,
        channels: ["ipam", "lookup"].into_iter().map(ChannelName::new).collect(),
    }
}

fn config() -> NodeConfig {
    let me = identity(1).name();
    let range = "10.32.0.0/24".parse().expect("a range");
    NodeConfig {
        mesh: mesh_config(1, Vec::new()),
        ipam: Some(AllocatorConfig { range, init: InitMode::Consensus(Some(1)), peers_given: 1 }),
        overlay: OverlayConfig {
            me,
            sleeve: Some(6783),
            fastpath: Some(6784),
            mtu: 1450,
            encrypted: false,
            trusted: Vec::new(),
            entropy: Entropy([6; 32]),
        },
        kernel: KernelConfig { bridge: BridgeName::default(), mtu: 1450, offloads: true, sleeve: true },
        version: "fuzzed".into(),
        described: BTreeMap::new(),
        seed: 7,
        mesh_seed: Seed::from(8),
    }
}

/// A node and the peer beside it.
struct World {
    node: Node,
    peer: Mesh,
    now: Instant,
    calls: u64,
    /// The session with the peer: the node's number for it, and the peer's.
    wire: Option<(ConnectionId, ConnectionId)>,
    stranger: Option<ConnectionId>,
    jobs: VecDeque<KernelJob>,
    kernel_fails: bool,
    disk_fails: bool,
}

impl World {
    fn new() -> Self {
        let now = super::start();
        let mut world = Self {
            node: Node::new(config(), State::default(), now),
            peer: Mesh::new(mesh_config(2, vec![Target::from(address(1))]), 9, now),
            now,
            calls: 0,
            wire: None,
            stranger: None,
            jobs: VecDeque::new(),
            kernel_fails: false,
            disk_fails: false,
        };
        world.node.handle_links(&[], now);
        world.pump();
        world.node.handle_kernel(KernelReport::Fastpath(Ok(())), now);
        world.pump();
        world
    }

    fn name(&self) -> PeerName {
        identity(1).name()
    }

    /// Carries everything out until all are silent.
    fn pump(&mut self) {
        for count in 0.. {
            assert!(count < OUTPUTS, "it never ends");
            if let Some(output) = self.node.poll_output() {
                self.carry_out(output);
            } else if let Some(output) = self.peer.poll_output() {
                self.peer_wants(output);
            } else if let Some(job) = self.jobs.pop_front() {
                self.work(job);
            } else {
                return;
            }
        }
    }

    fn carry_out(&mut self, output: Output) {
        match output {
            Output::Transport(Wants::Send { connection, bytes }) => {
                if let Some((_, theirs)) = self.wire.filter(|(ours, _)| *ours == connection) {
                    self.peer.handle_input(Input::Received { connection: theirs, bytes }, self.now);
                }
                self.node.handle_transport(Input::Writable { connection, queued: 0 }, self.now);
            }
            Output::Transport(Wants::Close { connection }) => {
                if let Some((_, theirs)) = self.wire.take_if(|(ours, _)| *ours == connection) {
                    self.peer.handle_input(Input::Closed { connection: theirs, error: None }, self.now);
                }
                self.stranger.take_if(|stranger| *stranger == connection);
            }
            Output::Transport(Wants::Dial { connection, .. }) => {
                let error = "refused".to_owned();
                self.node.handle_transport(Input::DialFailed { connection, error }, self.now);
            }
            Output::Persist => {
                let bytes = self.node.state().encode();
                assert!(State::decode(&bytes).is_ok(), "a state that cannot be read again");
                let result = if self.disk_fails { Err("no space left".to_owned()) } else { Ok(()) };
                self.node.handle_persisted(result, self.now);
            }
            Output::Kernel(job) => self.jobs.push_back(job),
            Output::Transport(_)
            | Output::Data(_)
            | Output::Probe { .. }
            | Output::Inspect(..)
            | Output::Reply(..)
            | Output::Leave(_) => {}
        }
    }

    fn work(&mut self, job: KernelJob) {
        let result = if self.kernel_fails { Err("no such device".to_owned()) } else { Ok(()) };
        let report = match job {
            KernelJob::Converge(_) => KernelReport::Converged(result),
            KernelJob::Attach(call, ..) => KernelReport::Attached(call, result),
            KernelJob::Fence(call) => KernelReport::Fenced(call),
            KernelJob::Fastpath(wish) => KernelReport::Applied(wish.serial),
            KernelJob::MoveMacs { peer, job, .. } => KernelReport::Moved(peer, job),
            KernelJob::Detach(_) | KernelJob::SetPort(..) => return,
        };
        self.node.handle_kernel(report, self.now);
    }

    fn peer_wants(&mut self, output: Wants) {
        match output {
            Wants::Dial { connection, target }
                if target == Target::from(address(1)) && self.wire.is_none() =>
            {
                let remote = SocketAddr::from(([10, 0, 0, 2], 40_000));
                let Some(ours) = self.node.accept(remote, Some(address(1)), self.now) else { return };
                self.wire = Some((ours, connection));
                let dialed = Input::Dialed { connection, remote: address(1), local: Some(remote) };
                self.peer.handle_input(dialed, self.now);
            }
            Wants::Dial { connection, .. } => {
                let error = "refused".to_owned();
                self.peer.handle_input(Input::DialFailed { connection, error }, self.now);
            }
            Wants::Send { connection, bytes } => {
                if let Some((ours, _)) = self.wire.filter(|(_, theirs)| *theirs == connection) {
                    self.node.handle_transport(Input::Received { connection: ours, bytes }, self.now);
                }
                self.peer.handle_input(Input::Writable { connection, queued: 0 }, self.now);
            }
            Wants::Close { connection } => {
                if let Some((ours, _)) = self.wire.take_if(|(_, theirs)| *theirs == connection) {
                    self.node.handle_transport(Input::Closed { connection: ours, error: None }, self.now);
                }
            }
            Wants::Established { .. }
            | Wants::Lost { .. }
            | Wants::Told { .. }
            | Wants::Deliver { .. }
            | Wants::Routes(_)
            | Wants::PeersChanged
            | Wants::Refused { .. } => {}
        }
    }

    fn wait(&mut self, time: Duration) {
        let until = self.now + time;
        for count in 0.. {
            assert!(count < OUTPUTS, "timers without end");
            let due = self.node.poll_timeout().into_iter().chain(self.peer.poll_timeout()).min();
            let Some(due) = due.filter(|due| *due <= until) else { break };
            self.now = self.now.max(due);
            if self.node.poll_timeout().is_some_and(|due| due <= self.now) {
                self.node.handle_timeout(self.now);
                let next = self.node.poll_timeout();
                assert!(next.is_none_or(|next| next > self.now), "a timer of the node does not advance");
            }
            self.peer.handle_timeout(self.now);
            self.pump();
        }
        self.now = until;
    }

    fn step(&mut self, kind: u8, rest: &[u8]) {
        let (now, me) = (self.now, self.name());
        let first = rest.first().copied().unwrap_or(0);
        match kind % 16 {
            0 | 1 => {
                if let Ok(request) = serde_json::from_slice::<Request>(rest) {
                    self.calls += 1;
                    self.node.handle_call(CallId(self.calls), request, now);
                }
            }
            2 | 3 => self.peer.tell(me, rest.to_vec(), now),
            4 => self.peer.publish(ChannelName::new("ipam"), Some(rest.to_vec()), rest.to_vec(), now),
            5 => self.peer.unicast(ChannelName::new("ipam"), me, rest.to_vec(), now),
            6 => self.peer.unicast(ChannelName::new("lookup"), me, rest.to_vec(), now),
            7 => self.node.handle_probe(rest, now),
            8 => self.data(first, rest),
            9 => self.kernel(first, rest),
            10 => self.stranger(rest),
            11 => self.kernel_fails = !self.kernel_fails,
            12 => self.disk_fails = !self.disk_fails,
            13 => self.cut(),
            _ => self.wait(Duration::from_millis(u64::from(first) * 20)),
        }
        self.pump();
    }

    fn data(&mut self, first: u8, rest: &[u8]) {
        let peer = identity(2 + (first >> 7)).name();
        let (rtt, mtu) = (Duration::from_millis(1), 1500);
        let event = match first & 7 {
            0 | 1 => Event::LinkUp { peer, rtt, mtu },
            2 => Event::LinkSuspect { peer },
            3 => Event::LinkDown { peer },
            4 => Event::LinkChanged { peer, rtt, mtu: u16::from(first) * 8 },
            5 => Event::Behind { peer, macs: [MacAddr::new([2, 0, 0, 0, 0, first])].into() },
            _ => Event::Announce { peer, session: u64::from(first), bytes: rest.to_vec() },
        };
        self.node.handle_data(event, self.now);
    }

    fn kernel(&mut self, first: u8, rest: &[u8]) {
        let number = rest.iter().skip(1).take(8).fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        let report = match first & 7 {
            0 => KernelReport::Converged(Err("gone".into())),
            1 => KernelReport::Applied(number),
            2 => KernelReport::Moved(identity(2).name(), number),
            3 => KernelReport::Carried([address(2).ip(), address(9).ip()].into()),
            4 => KernelReport::Fastpath(Err("no vxlan".into())),
            5 => KernelReport::Attached(CallId(number), Ok(())),
            _ => KernelReport::Fastpath(Ok(())),
        };
        self.node.handle_kernel(report, self.now);
    }

    fn stranger(&mut self, rest: &[u8]) {
        if self.stranger.is_none() {
            self.stranger = self.node.accept(SocketAddr::from(([10, 0, 0, 9], 999)), None, self.now);
        }
        if let Some(connection) = self.stranger {
            self.node.handle_transport(Input::Received { connection, bytes: rest.to_vec() }, self.now);
        }
    }

    fn cut(&mut self) {
        if let Some((ours, theirs)) = self.wire.take() {
            let closed = |connection| Input::Closed { connection, error: Some("reset".into()) };
            self.node.handle_transport(closed(ours), self.now);
            self.peer.handle_input(closed(theirs), self.now);
        }
    }
}

/// One life of a node; the first byte of each part says what happens.
pub(super) fn drive(bytes: &[u8]) {
    let mut world = World::new();
    for part in parts(bytes).into_iter().take(200) {
        let Some((kind, rest)) = part.split_first() else { continue };
        world.step(*kind, rest);
    }
    world.wait(Duration::from_secs(3));
    let status = world.node.status(world.now);
    assert!(serde_json::to_string(&status).is_ok(), "a status that cannot be told");
}

/// The state of a node that was used a little.
pub(super) fn state() -> State {
    let mut world = World::new();
    for request in super::decoders::requests() {
        if !request.starts_with(b"{\"verb\":\"reset") {
            world.step(0, &request);
        }
        world.wait(Duration::from_millis(300));
    }
    world.node.state()
}

pub(super) fn lives() -> Vec<Vec<u8>> {
    let say = |kind: u8, bytes: &[u8]| [&[kind][..], bytes].concat();
    let calls: Vec<Vec<u8>> = super::decoders::requests().iter().map(|request| say(0, request)).collect();
    let mut lives: Vec<Vec<u8>> =
        calls.iter().map(|call| super::join([call.clone(), say(14, &[50]), call.clone()])).collect();
    lives.push(super::join(calls.iter().flat_map(|call| [call.clone(), say(14, &[20])])));
    let letters = super::allocator::messages().into_iter().take(20);
    lives.push(super::join(letters.map(|letter| say(5, &letter))));
    let told = super::decoders::tellings().into_iter().flat_map(|told| [say(2, &told), say(14, &[9])]);
    lives.push(super::join(told));
    let data = (0..8).flat_map(|event| [say(8, &[event]), say(9, &[event]), say(14, &[40])]);
    lives.push(super::join(data.chain([
        say(12, &[]),
        say(13, &[]),
        say(14, &[250]),
        say(11, &[]),
        say(10, b"WEFT"),
    ])));
    lives
}
