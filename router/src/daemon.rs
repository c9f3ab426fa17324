//! The composition root: makes the parts from the configuration, and drives them.
//!
//! One loop on a current-thread runtime drives the control half ([`Node`]); the data half has its own thread.
//! This is the only place where both clocks, all queues and the order of starting and ending are seen.
//!
//! ```text
//!  start:  checks, sockets bound → state directory locked, read, written → kernel converged → data half → mesh
//!  loop:   one event (transport, data half, kernel, call, deadline) → Node → its outputs, in order
//!  end:    goodbye told → sockets closed; bridge, links and state stay (a restart adopts them)
//! ```

mod ground;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::num::NonZero;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use rand::TryRng as _;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use weft_api::{ApiError, Descriptors, Response};
use weft_fastpath::{BridgeName, Fastpath, MacAddr};
use weft_gossip::io::{Transport, TransportEvent};
use weft_gossip::{BootId, Identity, Incarnation, MeshConfig, PeerName, Psk, Seed, Target};

use crate::config::{Capture, Config, Init, InterfaceName};
use crate::dataplane::{Command, Event};
use crate::io::bridge::BridgeClaim;
use crate::io::call::Call;
use crate::io::capture::{CaptureKind, CaptureMode};
use crate::io::dataplane::{DataplaneConfig, DataplaneHandle};
use crate::io::host::Places;
use crate::io::kernel::{self, Brought, Job, Move, News, Way};
use crate::io::probe::Prober;
use crate::io::store::{self, Loaded, Store, Writer};
use crate::io::{clock, dataplane, journal, signals};
use crate::ipam;
use crate::node::{
    CallId, Inspection, KernelConfig, KernelJob, KernelReport, Node, NodeConfig, Output, Picture, State,
    Tunnel,
};
use crate::overlay::{self, Goodbye, Stand};
use ground::Ground;

/// Events of the data half waiting for the control loop; when full, the data half keeps the latest per peer.
const EVENTS: usize = 1024;

/// How long the goodbye may take before the process ends.
const FAREWELL: Duration = Duration::from_millis(300);

/// Runs the router until a signal or a reset ends it.
///
/// # Errors
/// When it cannot start: the message names the thing and the reason, and everything is as
/// it was before.
pub fn run(config: Config) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut daemon = Daemon::start(config).await?;
        daemon.serve().await;
        daemon.end().await;
        Ok(())
    })
}

struct Daemon {
    node: Node,
    /// Taken when the router leaves the cluster and its state is removed.
    store: Option<Writer>,
    /// Given up together with the state.
    claim: Option<BridgeClaim>,
    transport: Transport,
    data: Option<DataplaneHandle>,
    events: mpsc::Receiver<Event>,
    jobs: mpsc::Sender<Job>,
    news: mpsc::Receiver<News>,
    prober: Prober,
    /// Moves to VXLAN that wait for the data half to say what it has learned behind the peer.
    learning: BTreeMap<PeerName, VecDeque<oneshot::Sender<BTreeSet<MacAddr>>>>,
    calls: mpsc::Receiver<Call>,
    signals: signals::Signals,
    /// Callers that wait, by the number their call was given.
    waiting: BTreeMap<CallId, Waiting>,
    next_call: u64,
    /// Set when the router has left the cluster: the call that asked for it is answered last.
    leaving: bool,
    done: bool,
    servers: JoinSet<()>,
}

/// A caller that waits for its reply.
struct Waiting {
    reply: oneshot::Sender<Result<Response, ApiError>>,
    descriptors: Option<Descriptors>,
}

impl Daemon {
    /// Takes everything that another could hold first; only then is anything written, and undone if it was in vain.
    async fn start(config: Config) -> anyhow::Result<Self> {
        let signals = signals::Signals::new()?;
        let mut ground = Ground::take(&config).await?;
        let (store, loaded) = Store::open(&config.state_dir)?;
        let raised = match Raised::new(&config, &mut ground, &store, &loaded).await {
            Ok(raised) => raised,
            Err(error) => {
                ground.clear().await;
                if let Err(undone) = store.abandon(&loaded) {
                    tracing::warn!(error = %undone, "the state directory is not as it was");
                }
                return Err(error);
            }
        };
        let Raised { node, picture, prober, data, events } = raised;
        let Ground { claim, fastpath, transport, doors, listen: _, mtu: _, bare: _ } = ground;
        let places = Places {
            listen: config.listen,
            ports: config.ports,
            sleeve: config.sleeve,
            fastpath: config.fastpath,
        };
        let store = Writer::spawn(store).context("no thread to write the state")?;
        let (jobs, news) = kernel::spawn(fastpath, picture, places);
        let (servers, calls) = doors.open();
        Ok(Self {
            node,
            store: Some(store),
            claim: Some(claim),
            transport,
            data,
            events,
            jobs,
            news,
            prober,
            learning: BTreeMap::new(),
            calls,
            signals,
            waiting: BTreeMap::new(),
            next_call: 0,
            leaving: false,
            done: false,
            servers,
        })
    }

    async fn serve(&mut self) {
        while !self.done {
            self.execute().await;
            if self.done {
                break;
            }
            let deadline = self.node.poll_timeout();
            let data_half = self.data.is_some();
            tokio::select! {
                biased;
                signal = self.signals.next() => {
                    tracing::info!(signal, "router ends; the data path and all state stay");
                    self.say_goodbye(Goodbye::Restarting).await;
                    break;
                }
                event = self.events.recv(), if data_half => self.reported(event),
                saved = written(&mut self.store) => self.node.handle_persisted(saved, clock::now()),
                Some(news) = self.news.recv() => self.hear(news),
                event = self.transport.next() => self.transported(event),
                Some(call) = self.calls.recv() => self.take_all(call),
                bytes = self.prober.recv() => self.node.handle_probe(&bytes, clock::now()),
                () = clock::sleep_until(deadline) => self.node.handle_timeout(clock::now()),
            }
        }
    }

    /// Lets the servers finish the answers under way and take their sockets away.
    async fn end(self) {
        let Self { calls, mut servers, waiting, .. } = self;
        drop((calls, waiting));
        let all = async { while servers.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(FAREWELL, all).await;
    }

    /// Carries the node's outputs out, in order.
    async fn execute(&mut self) {
        while let Some(output) = self.node.poll_output() {
            match output {
                Output::Transport(output) => drop(self.transport.execute(output)),
                Output::Data(command) => self.command(command),
                Output::Persist => self.save(),
                Output::Kernel(job) => self.employ(job).await,
                Output::Inspect(call, mut inspection) => {
                    if let Inspection::Report(report, _) = &mut inspection {
                        report.log = journal::recent();
                    }
                    let peers = addresses(&self.node.state().targets);
                    self.order(Job::Inspect(call, inspection, peers)).await;
                }
                Output::Reply(call, result) => self.answer(call, result),
                Output::Probe { mac, bytes } => self.prober.send(mac, &bytes),
                Output::Leave(call) => {
                    self.leaving = true;
                    self.order(Job::Teardown(call)).await;
                }
            }
        }
    }

    fn command(&self, command: Command) {
        if let Some(Err(error)) = self.data.as_ref().map(|data| data.send(command)) {
            tracing::error!(%error, "a command to the data half is lost");
        }
    }

    fn save(&mut self) {
        match &mut self.store {
            Some(store) => store.write(self.node.state().encode()),
            None => self.node.handle_persisted(Ok(()), clock::now()),
        }
    }

    async fn employ(&mut self, job: KernelJob) {
        let job = match job {
            KernelJob::Converge(wish) => Job::Converge(wish),
            KernelJob::Attach(call, link, lock) => {
                let descriptors = self.waiting.get_mut(&call).and_then(|waiting| waiting.descriptors.take());
                let Some(descriptors) = descriptors else {
                    let result = Err("the call came without the namespace's descriptors".to_owned());
                    let report = KernelReport::Attached(call, result);
                    return self.node.handle_kernel(report, clock::now());
                };
                Job::Attach { call, link, lock, descriptors }
            }
            KernelJob::Detach(key) => Job::Detach(key),
            KernelJob::SetPort(key, up) => Job::SetPort(key, up),
            KernelJob::Fence(call) => Job::Fence(call),
            KernelJob::Fastpath(wish) => Job::Fastpath(wish),
            KernelJob::MoveMacs { peer, address, job, to } => {
                Job::Move(Move { peer, address, job, to: self.way(peer, to) })
            }
        };
        self.order(job).await;
    }

    /// Where addresses move to; on the way to VXLAN the data half is asked which.
    fn way(&mut self, peer: PeerName, to: Stand) -> Way {
        match to {
            Stand::Sleeve => Way::Sleeve,
            Stand::Fastpath => {
                let (learned_in, learned) = oneshot::channel();
                if self.data.is_some() {
                    self.learning.entry(peer).or_default().push_back(learned_in);
                    self.command(Command::Behind { peer });
                }
                Way::Vxlan(learned)
            }
        }
    }

    /// The data half has said what it has learned behind a peer: the oldest question is answered.
    fn learned(&mut self, peer: PeerName, macs: &BTreeSet<MacAddr>) {
        let Some(questions) = self.learning.get_mut(&peer) else { return };
        if let Some(question) = questions.pop_front() {
            // A kernel task that waited too long has gone on without.
            let _ = question.send(macs.clone());
        }
        if questions.is_empty() {
            self.learning.remove(&peer);
        }
    }

    async fn order(&self, job: Job) {
        if self.jobs.send(job).await.is_err() {
            tracing::error!("the kernel task has ended");
        }
    }

    fn answer(&mut self, call: CallId, result: Result<Response, ApiError>) {
        if let Some(waiting) = self.waiting.remove(&call) {
            // A caller that went away is no news.
            let _ = waiting.reply.send(result);
        }
    }

    fn hear(&mut self, news: News) {
        match news {
            News::Report(report) => {
                if matches!(report, KernelReport::Fastpath(Ok(()))) {
                    self.prober.open();
                }
                self.node.handle_kernel(report, clock::now());
            }
            News::Placed(peer, macs) => self.command(Command::Placed { peer, macs }),
            News::Links(links) => self.node.handle_links(&links, clock::now()),
            News::Inspected(call, result) => self.answer(call, result),
            News::TornDown(call, errors) => self.finish_leaving(call, errors),
        }
    }

    /// The last step of a reset: the state goes, the caller hears of it, the router ends.
    fn finish_leaving(&mut self, call: CallId, mut errors: Vec<String>) {
        self.claim = None;
        if let Some(Err(error)) = self.store.take().map(Writer::erase) {
            errors.push(error);
        }
        let result = if errors.is_empty() {
            Ok(Response::Done(vec!["left the cluster; the router has ended".to_owned()]))
        } else {
            Err(ApiError::failed(errors.join("; ")))
        };
        self.answer(call, result);
        self.done = true;
    }

    /// The data half reports, or has ended, which it never does by itself.
    fn reported(&mut self, event: Option<Event>) {
        match event {
            Some(event) => {
                if let Event::Behind { peer, macs } = &event {
                    self.learned(*peer, macs);
                }
                self.node.handle_data(event, clock::now());
            }
            None => {
                tracing::error!(
                    "the data half has ended: sleeve carries nothing until the router is started again"
                );
                self.data = None;
                self.learning.clear();
            }
        }
    }

    fn transported(&mut self, event: TransportEvent) {
        match event {
            TransportEvent::Input(input) => self.node.handle_transport(input, clock::now()),
            TransportEvent::Accepted { remote, local, token } => {
                if let Some(connection) = self.node.accept(remote, local, clock::now()) {
                    self.transport.adopt(token, connection);
                }
            }
        }
    }

    /// Takes a call and all that wait behind it: one write makes durable what they all change.
    fn take_all(&mut self, first: Call) {
        self.take(first);
        for _ in 0..self.calls.len() {
            let Ok(call) = self.calls.try_recv() else { return };
            self.take(call);
        }
    }

    fn take(&mut self, call: Call) {
        if self.leaving {
            let _ = call.reply.send(Err(ApiError::failed("the router is leaving the cluster")));
            return;
        }
        let id = CallId(self.next_call);
        self.next_call += 1;
        self.waiting.insert(id, Waiting { reply: call.reply, descriptors: call.descriptors });
        self.node.handle_call(id, call.request, clock::now());
    }

    /// Tells the neighbours, and gives the bytes a moment to leave.
    async fn say_goodbye(&mut self, goodbye: Goodbye) {
        self.node.farewell(goodbye, clock::now());
        self.execute().await;
        let _ = tokio::time::timeout(FAREWELL, self.transport.flush()).await;
    }
}

/// What came of the write under way.
async fn written(store: &mut Option<Writer>) -> Result<(), String> {
    match store {
        Some(store) => store.written().await,
        None => std::future::pending().await,
    }
}

/// The halves of the router, with the kernel as they want it.
struct Raised {
    node: Node,
    picture: Picture,
    prober: Prober,
    data: Option<DataplaneHandle>,
    events: mpsc::Receiver<Event>,
}

impl Raised {
    async fn new(
        config: &Config,
        ground: &mut Ground,
        store: &Store,
        loaded: &Loaded,
    ) -> anyhow::Result<Self> {
        let capture = capture_mode(config).resolve();
        let kernel = KernelConfig {
            bridge: ground.fastpath.bridge().clone(),
            mtu: ground.mtu,
            offloads: capture == CaptureKind::Vnet,
            sleeve: config.sleeve,
        };
        let state = remember(config, loaded)?;
        let node_config = node_config(config, identity(store)?, &state, kernel)?;
        // A number of this life that was said to anybody is never used again.
        store.save(&state.encode()).context("the state directory cannot be written")?;
        announce(config, &node_config, &state);
        let me = node_config.mesh.identity.name();
        let mut node = Node::new(node_config, state, clock::now());
        let picture = Picture {
            tunnel: tunnel(config, me),
            local: node.local_wish(),
            wish: node.kernel_wish().clone(),
        };
        let Brought { bridge, fastpath, unmet: _ } = kernel::bring(&mut ground.fastpath, &picture).await;
        bridge?;
        if config.sleeve {
            ground.fastpath.flush_sleeve().await?;
        }
        let served = picture.wish.remotes.values().map(|remote| remote.address).collect();
        ground.fastpath.flush_vxlan(&served).await?;
        let mut prober = Prober::new(ground.fastpath.bridge().clone());
        if let Some(ready) = fastpath {
            match &ready {
                Ok(()) => prober.open(),
                Err(reason) => tracing::warn!(reason, "fastpath is left out; it is tried again"),
            }
            node.handle_kernel(KernelReport::Fastpath(ready), clock::now());
        }
        node.handle_links(&ground.fastpath.adopt().await?.into_iter().collect::<Vec<_>>(), clock::now());
        let (events_in, events) = mpsc::channel(EVENTS);
        let data = config.sleeve.then(|| {
            let config = DataplaneConfig {
                me,
                encrypted: config.secret.is_some(),
                seed: random(),
                listen: ground.listen,
                interface: ground.fastpath.bridge().capture(),
                mtu: u16::try_from(ground.mtu).unwrap_or(u16::MAX),
                capture: capture_mode(config),
            };
            dataplane::spawn(config, events_in)
        });
        let data = data.transpose().context("sleeve cannot be started")?;
        Ok(Self { node, picture, prober, data, events })
    }
}

/// What was kept of the last life, made that of the next.
fn remember(config: &Config, loaded: &Loaded) -> anyhow::Result<State> {
    if let Some(note) = &loaded.note {
        tracing::warn!(note, "state");
    }
    let mut state = match &loaded.bytes {
        Some(bytes) => State::decode(bytes).context("the state was written by another version")?,
        None => State::default(),
    };
    state.incarnation += 1;
    let given: Vec<String> = config.peers.iter().map(ToString::to_string).collect();
    state.adopt_targets(&given, config.resume);
    Ok(state)
}

fn announce(config: &Config, node: &NodeConfig, state: &State) {
    let encrypted = config.secret.is_some();
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"), peer = %node.mesh.identity.name(), nickname = %config.nickname,
        incarnation = state.incarnation, encrypted, mtu = node.kernel.mtu, "router starts"
    );
    if !encrypted {
        tracing::warn!(
            "no secret is set: anyone who reaches the mesh port can join, and frames travel in clear"
        );
    }
}

/// What is fixed of the kernel's VXLAN and of the source filter.
fn tunnel(config: &Config, me: PeerName) -> Tunnel {
    Tunnel {
        me,
        ports: config.ports,
        listen: config.listen,
        vni: config.fastpath.then_some(config.vni.get()),
    }
}

/// The targets that are addresses; where a name leads is only known when it is dialled.
fn addresses(targets: &[String]) -> Vec<IpAddr> {
    let target = |text: &String| text.parse::<Target>().ok()?.address().map(|address| address.ip());
    targets.iter().filter_map(target).collect()
}

/// 256 bits from the operating system.
fn random() -> [u8; 32] {
    let mut bytes = [0; 32];
    rand::rngs::SysRng.try_fill_bytes(&mut bytes).expect("the operating system gives random bytes");
    bytes
}

/// The identity kept in the state directory, made at the first start.
fn identity(store: &Store) -> anyhow::Result<Identity> {
    if let Some(key) = store.identity()? {
        return Ok(Identity::from_secret(key));
    }
    let key = random();
    store.save_identity(&key)?;
    Ok(Identity::from_secret(key))
}

/// Removes what a router that does not run left on this host: its state and its kernel objects.
///
/// # Errors
/// When a router uses the state directory, or something could not be removed; the rest is removed all the same.
pub fn offline_reset(state_dir: &Path, bridge: &InterfaceName) -> anyhow::Result<Vec<String>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let bridge: BridgeName = bridge.as_str().parse()?;
    let _claim = BridgeClaim::take(bridge.as_str())?;
    let mut lines = Vec::new();
    if store::erase(state_dir)? {
        lines.push(format!("removed the state in {}", state_dir.display()));
    }
    let torn_down = runtime.block_on(async { anyhow::Ok(Fastpath::new(bridge)?.teardown().await) })?;
    lines.extend(torn_down.removed.iter().map(|object| format!("removed {object}")));
    let errors: Vec<String> = torn_down.errors.iter().map(ToString::to_string).collect();
    if errors.is_empty() { Ok(lines) } else { bail!(errors.join("; ")) }
}

fn capture_mode(config: &Config) -> CaptureMode {
    match config.capture {
        Capture::Auto => CaptureMode::Auto,
        Capture::Vnet => CaptureMode::Vnet,
        Capture::Pcap => CaptureMode::Pcap,
    }
}

/// What the control half must know at start.
fn node_config(
    config: &Config,
    identity: Identity,
    state: &State,
    kernel: KernelConfig,
) -> anyhow::Result<NodeConfig> {
    let mut targets = Vec::new();
    for target in &state.targets {
        targets.push(target.parse::<Target>().with_context(|| format!("target {target}"))?);
    }
    let mesh = MeshConfig {
        identity,
        incarnation: Incarnation(state.incarnation),
        boot: BootId(u64::from_le_bytes(first(random()))),
        nickname: config.nickname.to_string(),
        site: config.site.to_string(),
        psk: config.secret.as_ref().map_or_else(Psk::open, |secret| Psk::derive(secret.reveal())),
        endpoints: Vec::new(),
        listen_port: config.ports.mesh,
        discovery: config.discovery,
        connection_limit: config.connection_limit,
        targets,
        channels: BTreeSet::new(),
    };
    let ipam = config.range.map(|range| ipam::AllocatorConfig {
        range,
        init: match &config.init {
            Init::Consensus(electors) => ipam::InitMode::Consensus(electors.map(NonZero::get)),
            Init::Seed(nicknames) => {
                ipam::InitMode::Seed(nicknames.iter().map(ToString::to_string).collect())
            }
            Init::Observer => ipam::InitMode::Observer,
        },
        peers_given: config.peers.len(),
    });
    let overlay = overlay::Config {
        me: mesh.identity.name(),
        sleeve: config.sleeve.then_some(config.ports.mesh),
        fastpath: config.fastpath.then_some(config.ports.vxlan),
        mtu: u16::try_from(kernel.mtu).unwrap_or(u16::MAX),
        entropy: overlay::Entropy(random()),
        encrypted: config.secret.is_some(),
        trusted: config.trusted_subnets.clone(),
    };
    let version = env!("CARGO_PKG_VERSION").to_owned();
    let (seed, mesh_seed) = (u64::from_le_bytes(first(random())), Seed::from(random()));
    Ok(NodeConfig { mesh, ipam, overlay, kernel, version, described: config.describe(), seed, mesh_seed })
}

fn first(bytes: [u8; 32]) -> [u8; 8] {
    let [a, b, c, d, e, f, g, h, ..] = bytes;
    [a, b, c, d, e, f, g, h]
}
