//! The control machine: who is there, who owns what, which carrier, which container.
//!
//! One per router. `Node` owns the mesh, the allocator, the overlay and the journal of attachments, feeds
//! them what the shell hears, and drains them in one stack frame: what the mesh delivers goes to the
//! allocator or the overlay, what those want goes back to the mesh, to the data half or out to the shell.
//! No machine calls another; everything that crosses passes through here.
//!
//! ```text
//!            ┌───────────────────────────── Node ─────────────────────────────┐
//!  TCP  ───► │ Mesh ──told──► Overlay ──commands──────────────────────────────┼──► data half
//!            │  ▲ └──delivered──► Allocator ──persist, publish──► Durability ─┼──► disk, replies
//!  calls ──► │  └───────────────────┘        Attachments ──jobs──► Durability ┼──► kernel
//!            └────────────────────────────────────────────────────────────────┘
//! ```

mod attach;
pub mod attachments;
mod calls;
pub mod cni;
mod counters;
mod doctor;
mod durability;
mod idle;
mod lookup;
mod output;
mod picture;
mod state;
mod status;
mod table;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use weft_api::{ApiError, Response};
use weft_fastpath::BridgeName;
use weft_gossip::{
    ChannelName, ConnectionId, DeliverKind, Input, Mesh, MeshConfig, PeerName, Presence, Seed,
};

pub use output::{CallId, Inspection, KernelJob, KernelReport, Output};
pub use picture::{LocalWish, Picture, Tunnel};
pub use state::State;

use crate::dataplane::{Command, Counters, Event};
use crate::ipam::{self, Allocator, AllocatorConfig};
use crate::overlay::{self, Far, Overlay, Told};
use attach::Attaching;
use attachments::{Attachments, Exposure};
use durability::Durability;
use idle::Idle;
use lookup::Lookups;

/// The channel that address ownership travels on.
const CHANNEL: ChannelName = ChannelName::new("ipam");
/// The channel on which former neighbours part.
const CARRIERS: ChannelName = ChannelName::new("carriers");

/// Who is on fastpath is written at once, and again no sooner than so long after for each neighbour there is: while a
/// hundred come, each would be a write of its own.
const REMEMBERING: Duration = Duration::from_millis(10);

/// Nicknames kept, as many as the mesh keeps records.
const NICKNAMES: usize = 10_000;

/// What the control half must know at start.
#[derive(Debug)]
pub struct NodeConfig {
    /// The mesh's own configuration.
    pub mesh: MeshConfig,
    /// The allocator's own configuration; `None` with `--range none`.
    pub ipam: Option<AllocatorConfig>,
    /// The overlay's own configuration.
    pub overlay: overlay::Config,
    /// What the kernel must look like, apart from the attachments.
    pub kernel: KernelConfig,
    /// The version that `status` reports.
    pub version: String,
    /// How the router was launched, in words; never a secret.
    pub described: BTreeMap<String, String>,
    /// The seed of every random choice the allocator makes.
    pub seed: u64,
    /// The seed of every random choice the mesh makes, ephemeral keys among them.
    pub mesh_seed: Seed,
}

/// The parts of the kernel's desired state that do not change while the router runs.
#[derive(Clone, Debug)]
pub struct KernelConfig {
    /// The bridge's name.
    pub bridge: BridgeName,
    /// The MTU of containers, bridge and sleeve port, bytes.
    pub mtu: u32,
    /// Whether sleeve's capture takes frames with unfinished checksums and super-frames.
    pub offloads: bool,
    /// Whether there is a sleeve port at all.
    pub sleeve: bool,
}

/// Why an allocator request was made, so that its reply finds its way.
#[derive(Debug)]
enum Purpose {
    /// A call that only wants the allocator's answer.
    Call(CallId, calls::Wanted),
    /// The next address of an attachment being made.
    Attach(CallId),
    /// The host's own address.
    Expose(CallId, Option<ipnet::Ipv4Net>),
    /// The host's own address, because a pod needs a gateway.
    CniGateway(CallId),
    /// A pod's address without wiring, under this id.
    CniLease(CallId, String),
    /// The address of a container that runs already.
    Reclaim(attachments::LinkKey, std::net::Ipv4Addr),
    /// Bookkeeping nobody waits for.
    Quiet,
}

/// What waits until the state it depends on is on disk.
#[derive(Debug)]
enum Held {
    Reply(CallId, Result<Response, ApiError>),
    Kernel(KernelJob),
    Leave(CallId),
    Publish { delta: Option<Vec<u8>>, state: Vec<u8> },
    Unicast { to: PeerName, bytes: Vec<u8> },
}

/// The control machine.
pub struct Node {
    config: Settings,
    mesh: Mesh,
    ipam: Option<Allocator>,
    overlay: Overlay,
    attachments: Attachments,
    cni: cni::Cni,
    /// Links that stood at the first look and that the journal did not know; `None` before that look.
    orphans: Option<BTreeSet<attachments::LinkKey>>,
    exposed: Option<Exposure>,
    nicknames: BTreeMap<PeerName, String>,
    targets: Targets,
    durability: Durability<Held>,
    requests: BTreeMap<ipam::RequestId, Purpose>,
    next_request: u64,
    attaching: BTreeMap<CallId, Attaching>,
    lookups: Lookups,
    /// Calls that wait for the data half's counters.
    counting: Vec<(CallId, status::Counting)>,
    counters: Counters,
    undecodable: u64,
    /// Whether the bridge stands, or why not; `None` before the first convergence.
    bridge: Option<Result<(), String>>,
    table_stale: bool,
    idle: Idle,
    /// It has said goodbye for good: whoever still dials it would keep entries of a peer that is gone.
    left: bool,
    outputs: VecDeque<Output>,
}

/// What stays of the configuration once the parts have taken theirs.
#[derive(Debug)]
struct Settings {
    kernel: KernelConfig,
    version: String,
    described: BTreeMap<String, String>,
    me: PeerName,
    nickname: String,
    site: String,
    incarnation: u64,
    encrypted: bool,
}

/// The durable part of dialling.
#[derive(Debug)]
struct Targets {
    launched_with: Vec<String>,
}

impl Node {
    /// Makes the control half from its configuration and what the last run left.
    #[must_use]
    pub fn new(config: NodeConfig, state: State, now: Instant) -> Self {
        let me = config.mesh.identity.name();
        let nickname = config.mesh.nickname.clone();
        let incarnation = config.mesh.incarnation.0;
        let mut mesh = config.mesh;
        mesh.channels.insert(CARRIERS);
        if config.ipam.is_some() {
            mesh.channels.extend([CHANNEL, lookup::CHANNEL]);
        }
        let ipam = config.ipam.map(|settings| {
            Allocator::new(settings, me, nickname.clone(), incarnation, state.ipam, config.seed, now)
        });
        if let Some(reason) = ipam.as_ref().and_then(|ipam| ipam.status().discarded) {
            tracing::warn!(reason, "not all of the last run's state is used");
        }
        let settings = Settings {
            kernel: config.kernel,
            version: config.version,
            described: config.described,
            me,
            nickname,
            site: mesh.site.clone(),
            incarnation,
            encrypted: config.overlay.encrypted,
        };
        let mut node = Self {
            mesh: Mesh::new(mesh, config.mesh_seed, now),
            config: settings,
            ipam,
            overlay: Overlay::new(config.overlay, &state.fastpath, now),
            attachments: Attachments::new(state.attachments),
            cni: cni::Cni::new(state.cni),
            orphans: None,
            exposed: state.exposed,
            nicknames: state.nicknames,
            targets: Targets { launched_with: state.launched_with },
            durability: Durability::default(),
            requests: BTreeMap::new(),
            next_request: 0,
            attaching: BTreeMap::new(),
            lookups: Lookups::default(),
            counting: Vec::new(),
            counters: Counters::default(),
            undecodable: 0,
            bridge: None,
            table_stale: true,
            idle: Idle::default(),
            left: false,
            outputs: VecDeque::new(),
        };
        node.durability.change();
        node.local_macs();
        node.reclaim_all(now);
        node.settle(now);
        node
    }

    /// What runs must be ours before anything is given out: the allocator's part of the state may be of another
    /// range, or older than the journal. A claim of what is held already changes nothing.
    fn reclaim_all(&mut self, now: Instant) {
        let held = self.attachments.iter().filter(|a| a.conflicts.is_empty());
        let held = held.flat_map(|a| a.addresses.iter().map(|net| (a.key.clone(), net.addr())));
        for (key, address) in held.collect::<Vec<_>>() {
            self.reclaim(&key, address, now);
        }
    }

    /// A TCP connection was accepted; `None` when it must be closed at once.
    pub fn accept(
        &mut self,
        remote: SocketAddr,
        local: Option<SocketAddr>,
        now: Instant,
    ) -> Option<ConnectionId> {
        let connection = (!self.left).then(|| self.mesh.accept(remote, local, now)).flatten();
        self.settle(now);
        connection
    }

    /// Something happened on a connection.
    pub fn handle_transport(&mut self, input: Input, now: Instant) {
        self.mesh.handle_input(input, now);
        self.settle(now);
    }

    /// The data half reports.
    pub fn handle_data(&mut self, event: Event, now: Instant) {
        self.overlay.handle_data(&event, now);
        if let Event::Counters(counters) = event {
            self.counters = *counters;
            self.counted(now);
        }
        self.settle(now);
    }

    /// A probe of the VXLAN path arrived on the bridge.
    pub fn handle_probe(&mut self, bytes: &[u8], now: Instant) {
        self.overlay.handle_probe(bytes, now);
        self.settle(now);
    }

    /// The kernel did, or failed to do, what was asked.
    pub fn handle_kernel(&mut self, report: KernelReport, now: Instant) {
        match report {
            KernelReport::Converged(result) => self.bridge = Some(result),
            KernelReport::Attached(call, result) => self.attached(call, result, now),
            KernelReport::Fenced(call) => self.outputs.push_back(Output::Reply(call, Ok(output::done()))),
            KernelReport::Fastpath(ready) => self.overlay.handle_kernel_ready(ready, now),
            KernelReport::Applied(serial) => self.overlay.handle_applied(serial, now),
            KernelReport::Moved(peer, job) => self.overlay.handle_moved(peer, job, now),
            KernelReport::Carried(hosts) => self.overlay.handle_traffic(&hosts, now),
        }
        self.settle(now);
    }

    /// The state was written, or could not be.
    pub fn handle_persisted(&mut self, result: Result<(), String>, now: Instant) {
        match result {
            Ok(()) => {
                for held in self.durability.written() {
                    self.release(held, now);
                }
            }
            Err(error) => {
                tracing::error!(%error, "the state cannot be written; nothing is promised until it can");
                let waits = |held: &Held| {
                    let answers = matches!(held, Held::Kernel(KernelJob::Attach(..) | KernelJob::Fence(_)));
                    answers || matches!(held, Held::Reply(..))
                };
                for held in self.durability.failed(now, waits) {
                    self.refuse_undurable(held, &error, now);
                }
            }
        }
        self.settle(now);
    }

    /// A deadline has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.mesh.handle_timeout(now);
        self.overlay.handle_timeout(now);
        if let Some(ipam) =
            self.ipam.as_mut().filter(|ipam| ipam.poll_timeout().is_some_and(|due| due <= now))
        {
            ipam.handle_timeout(now);
        }
        for found in self.lookups.expired(now) {
            self.found(found, now);
        }
        self.settle(now);
    }

    /// When the node wants to be called again.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let ipam = self.ipam.as_ref().and_then(Allocator::poll_timeout);
        let own = [self.durability.poll_timeout(), self.lookups.poll_timeout(), self.idle.poll_timeout()];
        let parts = [self.mesh.poll_timeout(), self.overlay.poll_timeout(), ipam];
        own.into_iter().chain(parts).flatten().min()
    }

    /// Drains what the node wants done, in order.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// The state to write when [`Output::Persist`] asks for it.
    #[must_use]
    pub fn state(&self) -> State {
        State {
            incarnation: self.config.incarnation,
            launched_with: self.targets.launched_with.clone(),
            targets: self.mesh.targets().iter().map(ToString::to_string).collect(),
            ipam: self.ipam.as_ref().map(Allocator::snapshot),
            attachments: self.attachments.iter().cloned().collect(),
            exposed: self.exposed.clone(),
            nicknames: self.nicknames.clone(),
            fastpath: self.overlay.remembered(),
            cni: self.cni.journal.clone(),
        }
    }

    /// What the kernel must hold for fastpath.
    #[must_use]
    pub fn kernel_wish(&self) -> &overlay::KernelWish {
        self.overlay.wish()
    }

    /// Says goodbye before a restart; the data path and all state stay as they are.
    pub fn farewell(&mut self, goodbye: overlay::Goodbye, now: Instant) {
        self.overlay.farewell(goodbye);
        self.settle(now);
    }

    /// Drains the parts into each other until all are quiet.
    fn settle(&mut self, now: Instant) {
        loop {
            if let Some(output) = self.mesh.poll_output() {
                self.take_from_mesh(output, now);
            } else if let Some(output) = self.overlay.poll_output() {
                self.take_from_overlay(output, now);
            } else if let Some(output) = self.ipam.as_mut().and_then(Allocator::poll_output) {
                self.take_from_ipam(output, now);
            } else if let Some(idle) = self.idle.poll(now) {
                self.mesh.set_idle(idle, now);
            } else if std::mem::take(&mut self.table_stale) {
                let table = self.table();
                self.outputs.push_back(Output::Data(Command::Table(std::sync::Arc::new(table))));
                self.see_detours(now);
            } else {
                break;
            }
        }
        if self.durability.poll_write(now) {
            self.outputs.push_back(Output::Persist);
        }
    }

    fn take_from_mesh(&mut self, output: weft_gossip::Output, now: Instant) {
        use weft_gossip::Output as Mesh;
        match output {
            Mesh::Dial { .. } | Mesh::Send { .. } | Mesh::Close { .. } => {
                self.outputs.push_back(Output::Transport(output));
            }
            Mesh::Established { peer, nickname, remote, session, .. } => {
                tracing::info!(%peer, nickname, %remote, "session established");
                self.overlay.handle_established(peer, nickname, remote, session, now);
            }
            Mesh::Lost { peer, reason } => {
                tracing::info!(%peer, reason, "session lost");
                self.overlay.handle_lost(peer, now);
            }
            Mesh::Told { peer, bytes } => match Told::decode(&bytes) {
                Ok(told) => self.overlay.handle_told(peer, told, now),
                Err(error) => {
                    self.undecodable += 1;
                    tracing::debug!(%peer, %error, "message from a neighbour not understood");
                }
            },
            Mesh::Deliver { channel, source, bytes, .. } if channel == lookup::CHANNEL => {
                self.hear_lookup(source, &bytes, now);
            }
            Mesh::Deliver { channel, source, bytes, .. } if channel == CARRIERS => {
                match Far::decode(&bytes) {
                    Ok(far) => self.overlay.handle_far(source, far, now),
                    Err(error) => {
                        self.undecodable += 1;
                        tracing::debug!(%source, %error, "message from a former neighbour not understood");
                    }
                }
            }
            Mesh::Deliver { source, kind, bytes, .. } => {
                let Some(ipam) = &mut self.ipam else { return };
                match kind {
                    DeliverKind::Delta | DeliverKind::State => ipam.handle_gossip(source, &bytes, now),
                    DeliverKind::Unicast => ipam.handle_unicast(source, &bytes, now),
                }
            }
            Mesh::Routes(_) => {
                self.table_stale = true;
                self.tell_overlay_who_is_there(now);
                self.see_who_is_cut_off(now);
            }
            Mesh::Refused { remote, reason } => tracing::warn!(%remote, reason, "connection refused"),
            Mesh::PeersChanged => self.peers_changed(now),
        }
    }

    fn take_from_overlay(&mut self, output: overlay::Output, now: Instant) {
        match output {
            overlay::Output::Tell(peer, told) => self.mesh.tell(peer, told.encode(), now),
            overlay::Output::Far(peer, far) => self.mesh.unicast(CARRIERS, peer, far.encode(), now),
            overlay::Output::Data(command) => self.outputs.push_back(Output::Data(command)),
            overlay::Output::Verify(peer) => self.mesh.verify(peer, now),
            overlay::Output::Changed => self.carriers_changed(now),
            overlay::Output::Left(peer) => self.removed(peer, now),
            // Not held for the disk: a full one must not keep a peer on a path that is dead.
            overlay::Output::Kernel(wish) => {
                self.outputs.push_back(Output::Kernel(KernelJob::Fastpath(wish)))
            }
            overlay::Output::MoveMacs { peer, address, job, to } => {
                let job = KernelJob::MoveMacs { peer, address, job, to };
                self.outputs.push_back(Output::Kernel(job));
            }
            overlay::Output::Probe { mac, bytes } => self.outputs.push_back(Output::Probe { mac, bytes }),
            // Soon: whoever is killed before loses what the kernel would have gone on carrying.
            overlay::Output::Remember => {
                let crowd = u32::try_from(self.overlay.neighbours().count()).unwrap_or(u32::MAX);
                self.durability.hasten(REMEMBERING * crowd, now);
            }
        }
    }

    fn take_from_ipam(&mut self, output: ipam::Output, now: Instant) {
        match output {
            ipam::Output::Persist => self.durability.change(),
            ipam::Output::Reply { request, result } => self.answered(request, result, now),
            ipam::Output::Publish { delta, state } => self.hold(Held::Publish { delta, state }, now),
            ipam::Output::Unicast { to, bytes } => self.hold(Held::Unicast { to, bytes }, now),
            ipam::Output::Conflict { id, address, owner } => self.conflict(&id, address, owner, now),
            ipam::Output::SplitChanged => {
                let barred = self.ipam.as_ref().map_or_else(BTreeSet::new, Allocator::split_peers);
                self.overlay.bar(barred, now);
                self.table_stale = true;
            }
            ipam::Output::StateChanged => {}
            ipam::Output::Removed { peer } => self.removed(peer, now),
        }
    }

    fn carriers_changed(&mut self, now: Instant) {
        self.table_stale = true;
        let barred = self.overlay.barred();
        let served = self.overlay.neighbours().filter(|(peer, _)| !barred.contains(peer));
        self.idle.see(served.map(|(peer, neighbour)| (peer, neighbour.carries())), now);
    }

    /// Passes what depends on the state through the gate.
    fn hold(&mut self, held: Held, now: Instant) {
        if let Some(held) = self.durability.pass(held) {
            self.release(held, now);
        }
    }

    fn release(&mut self, held: Held, now: Instant) {
        match held {
            Held::Reply(call, result) => self.outputs.push_back(Output::Reply(call, result)),
            Held::Kernel(job) => self.outputs.push_back(Output::Kernel(job)),
            Held::Leave(call) => self.outputs.push_back(Output::Leave(call)),
            Held::Publish { delta, state } => {
                self.mesh.publish(CHANNEL, delta, state, now);
            }
            Held::Unicast { to, bytes } => self.mesh.unicast(CHANNEL, to, bytes, now),
        }
    }

    /// Tells the allocator who is there, whenever that changes.
    fn peers_changed(&mut self, now: Instant) {
        // The mesh raises it when somebody remembers a higher one: after lost state, or a removal.
        let incarnation = self.mesh.incarnation().0;
        if incarnation != self.config.incarnation {
            self.config.incarnation = incarnation;
            self.durability.change();
        }
        for Presence { name, nickname, .. } in self.mesh.presences() {
            let noted = self.nicknames.get(&name).is_some_and(|noted| noted == nickname);
            if !noted && self.nicknames.len() < NICKNAMES {
                self.nicknames.insert(name, nickname.to_owned());
                self.durability.note(now);
            }
        }
        self.tell_overlay_who_is_there(now);
        self.see_who_is_cut_off(now);
        // Most of what changes in the mesh are links, and the allocator does not ask for those.
        if let Some(ipam) = self.ipam.as_mut().filter(|ipam| !ipam.knows(self.mesh.presences())) {
            let knowledge = |peer: Presence<'_>| ipam::PeerKnowledge {
                nickname: peer.nickname.to_owned(),
                reachable: peer.reachable,
                incarnation: peer.incarnation.0,
            };
            let peers = self.mesh.presences().map(|peer| (peer.name, knowledge(peer))).collect();
            ipam.handle_peers(peers, now);
        }
    }

    /// A lost neighbour that is reached through others, or not known to the mesh at all, is not kept for long.
    fn tell_overlay_who_is_there(&mut self, now: Instant) {
        if self.overlay.held().next().is_some() {
            let Self { overlay, mesh, .. } = self;
            overlay.handle_mesh(|peer| mesh.reaches(peer), now);
        }
    }

    /// A peer is gone for good: nothing of it is kept.
    fn removed(&mut self, peer: PeerName, now: Instant) {
        tracing::info!(%peer, "peer removed");
        self.mesh.remove(peer, now);
        if self.nicknames.remove(&peer).is_some() {
            self.durability.change();
        }
        self.overlay.remove(peer, now);
        self.see_who_is_cut_off(now);
        self.outputs.push_back(Output::Data(Command::Forget { peer }));
    }
}

#[cfg(test)]
mod tests;
