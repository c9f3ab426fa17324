//! One simulated host: what outlives its router (identity, disk, kernel, clock), and the router while it runs.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use weft_fastpath::{BridgeName, MacAddr};
use weft_gossip::{BootId, Identity, Incarnation, MeshConfig, PeerName, Psk, Seed, Target};
use weft_router::dataplane::{Dataplane, Setup};
use weft_router::ipam::{AllocatorConfig, InitMode};
use weft_router::node::{CallId, KernelConfig, Node, NodeConfig, State};
use weft_router::overlay::{Config as OverlayConfig, Entropy};
use weft_router::sleeve::keys::KeyLimits;

use super::agenda::{HostId, Life};
use super::clock::Clock;
use super::disk::Disk;
use super::kernel::{Kernel, Worker};
use super::workload::Asked;

/// The containers' MTU: the underlay's less what VXLAN adds.
pub(super) const MTU: u16 = 1450;
/// The port of mesh and sleeve.
pub(super) const MESH: u16 = 6783;
/// The port of the VXLAN devices.
pub(super) const VXLAN: u16 = 6784;

/// Where a host is on the underlay.
pub(super) fn address(host: HostId) -> SocketAddr {
    let [_, _, high, low] = u32::try_from(host + 1).unwrap_or(u32::MAX).to_be_bytes();
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 99, high, low)), MESH)
}

/// Which host has this underlay address.
pub(super) fn host_at(address: IpAddr) -> Option<HostId> {
    let IpAddr::V4(v4) = address else { return None };
    let [10, 99, high, low] = v4.octets() else { return None };
    usize::from(u16::from_be_bytes([high, low])).checked_sub(1)
}

/// How the routers of a world are launched.
#[derive(Clone, Debug)]
pub(super) struct Launch {
    pub(super) range: ipnet::Ipv4Net,
    pub(super) init: InitMode,
    pub(super) secret: bool,
    /// Frames may travel in clear although a secret is set.
    pub(super) trusted: bool,
    pub(super) targets: Vec<HostId>,
    pub(super) discovery: bool,
    pub(super) fastpath: bool,
    /// The kernel has VXLAN.
    pub(super) vxlan: bool,
    pub(super) limits: KeyLimits,
    /// Most neighbours of a router.
    pub(super) limit: Option<usize>,
    /// Handshakes are computed on the real curve, which is most of the work of a world that has them.
    pub(super) real_curve: bool,
}

/// The router of a host, while it runs.
pub(super) struct Process {
    pub(super) node: Node,
    pub(super) data: Dataplane,
    pub(super) node_wake: Option<Duration>,
    pub(super) data_wake: Option<Duration>,
    pub(super) worker: Worker,
    pub(super) calls: BTreeMap<CallId, Asked>,
    pub(super) next_call: u64,
    /// The last moment at which a deadline was due, and how often at that moment.
    pub(super) woken: (Duration, u32),
    /// A write is under way.
    pub(super) saving: bool,
    /// Datagrams and frames that wait for a process that is stopped.
    pub(super) backlog: usize,
}

/// One host.
pub(super) struct Host {
    pub(super) launch: Launch,
    pub(super) nickname: String,
    pub(super) identity: Identity,
    pub(super) name: PeerName,
    pub(super) clock: Clock,
    pub(super) disk: Disk,
    pub(super) kernel: Kernel,
    pub(super) bridge: BridgeName,
    pub(super) process: Option<Process>,
    lives: u32,
    /// The host has power; without, nothing of it answers.
    pub(super) powered: bool,
    /// Until then its router's process does not run.
    pub(super) stopped: Duration,
    /// After so many more outputs the process dies.
    pub(super) doom: Option<u32>,
    /// How much slower than a millisecond the kernel is.
    pub(super) kernel_lag: Duration,
    /// The highest incarnation its peers may have heard.
    pub(super) incarnation: u64,
    /// When the way to another host was last changed here: a neighbour found or lost, a route, an entry of the kernel.
    pub(super) rearranged: BTreeMap<HostId, Duration>,
    /// Through whom the router reaches, and hears, every other.
    pub(super) ways: BTreeMap<PeerName, (Option<PeerName>, Option<PeerName>)>,
}

impl Host {
    pub(super) fn new(at: HostId, launch: Launch, clock: Clock) -> Self {
        let identity = identity(at, 0, launch.real_curve);
        let mut host = Self {
            launch,
            nickname: format!("host{at}"),
            name: identity.name(),
            identity,
            clock,
            disk: Disk::default(),
            kernel: Kernel::default(),
            bridge: BridgeName::default(),
            process: None,
            lives: 0,
            powered: true,
            stopped: Duration::ZERO,
            doom: None,
            kernel_lag: Duration::ZERO,
            incarnation: 0,
            rearranged: BTreeMap::new(),
            ways: BTreeMap::new(),
        };
        host.kernel.bridge.device = MacAddr::vxlan_of(host.name.as_u64());
        host
    }

    /// The life that runs now, or would.
    pub(super) fn life(&self, host: HostId) -> Life {
        Life { host, number: self.lives }
    }

    pub(super) fn is_live(&self, life: Life) -> bool {
        self.process.is_some() && self.lives == life.number
    }

    /// Begins another life: what was meant for the last does not reach it.
    pub(super) fn next_life(&mut self) {
        self.lives += 1;
        self.doom = None;
    }

    /// Raises the incarnation on disk before anybody hears of it, as the shell does.
    pub(super) fn remember(&mut self) -> Result<State, String> {
        let mut state = match self.disk.read() {
            Some(bytes) => State::decode(bytes).map_err(|error| format!("the state on disk: {error}"))?,
            None => State::default(),
        };
        state.incarnation += 1;
        let given: Vec<String> = self.launch.targets.iter().map(|host| address(*host).to_string()).collect();
        state.adopt_targets(&given, false);
        let slow = std::mem::take(&mut self.disk.slow);
        let saved = self.disk.write(state.encode());
        self.disk.slow = slow;
        saved.map(|()| state)
    }

    /// Makes both halves from what was remembered.
    pub(super) fn boot(&mut self, state: State, seed: u64, moment: Duration) {
        let now = self.clock.at(moment);
        let incarnation = state.incarnation;
        let node = Node::new(self.node_config(&state, seed), state, now);
        let setup = Setup {
            me: self.name,
            encrypted: self.launch.secret,
            hardware_aes: seed.is_multiple_of(3),
            seed: bytes(seed, 2),
            limits: self.launch.limits,
        };
        let data = Dataplane::new(setup, now);
        self.incarnation = incarnation;
        let worker = Worker::new(node.local_wish().desired);
        self.process = Some(Process {
            node,
            data,
            node_wake: None,
            data_wake: None,
            worker,
            calls: BTreeMap::new(),
            next_call: 0,
            woken: (Duration::ZERO, 0),
            saving: false,
            backlog: 0,
        });
    }

    fn node_config(&self, state: &State, seed: u64) -> NodeConfig {
        let launch = &self.launch;
        let targets = state.targets.iter().filter_map(|target| target.parse::<Target>().ok()).collect();
        let mesh = MeshConfig {
            identity: self.identity.clone(),
            incarnation: Incarnation(state.incarnation),
            boot: BootId(seed),
            nickname: self.nickname.clone(),
            site: "default".into(),
            psk: if launch.secret { secret() } else { Psk::open() },
            endpoints: Vec::new(),
            listen_port: MESH,
            discovery: launch.discovery,
            connection_limit: launch.limit,
            targets,
            channels: Default::default(),
        };
        let trusted =
            if launch.trusted { vec!["10.99.0.0/16".parse().expect("a network")] } else { Vec::new() };
        let overlay = OverlayConfig {
            me: self.name,
            sleeve: Some(MESH),
            fastpath: launch.fastpath.then_some(VXLAN),
            mtu: MTU,
            encrypted: launch.secret,
            trusted,
            entropy: Entropy(bytes(seed, 1)),
        };
        let ipam = AllocatorConfig {
            range: launch.range,
            init: launch.init.clone(),
            peers_given: launch.targets.len(),
        };
        let kernel =
            KernelConfig { bridge: self.bridge.clone(), mtu: u32::from(MTU), offloads: true, sleeve: true };
        NodeConfig {
            mesh,
            ipam: Some(ipam),
            overlay,
            kernel,
            version: "simulated".into(),
            described: BTreeMap::new(),
            seed,
            mesh_seed: Seed::from(bytes(seed, 3)),
        }
    }

    /// Another machine takes this one's place: new identity, empty disk, nothing in the kernel.
    pub(super) fn replace(&mut self, at: HostId, generation: u64) {
        self.identity = identity(at, generation, self.launch.real_curve);
        self.name = self.identity.name();
        self.nickname = format!("host{at}g{generation}");
        self.disk.erase();
        self.incarnation = 0;
        self.lose_power();
    }

    /// What the kernel held is gone.
    pub(super) fn lose_power(&mut self) {
        self.kernel = Kernel::default();
        self.kernel.bridge.device = MacAddr::vxlan_of(self.name.as_u64());
    }
}

fn identity(at: HostId, generation: u64, real_curve: bool) -> Identity {
    let mut key = [0x5a; 32];
    key[..8].copy_from_slice(&(at as u64 + 1).to_be_bytes());
    key[8..16].copy_from_slice(&generation.to_be_bytes());
    if real_curve { Identity::from_secret(key) } else { Identity::simulated(key) }
}

/// The secret of the simulated cluster; deriving it costs tens of milliseconds by design, so it is done once.
fn secret() -> Psk {
    static SECRET: std::sync::OnceLock<Psk> = std::sync::OnceLock::new();
    SECRET.get_or_init(|| Psk::derive("simulated")).clone()
}

fn bytes(seed: u64, use_for: u8) -> [u8; 32] {
    let mut bytes = [use_for; 32];
    bytes[..8].copy_from_slice(&seed.to_be_bytes());
    bytes
}
