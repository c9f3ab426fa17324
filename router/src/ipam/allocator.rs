//! The allocator: one per router, owner of ring, space, votes and everything that waits.
//!
//! Every input changes the state, then `settle` takes whatever steps have become possible,
//! then what is to be done is queued in one order: first the disk, then the mesh, then answers. So nothing
//! is visible to anybody that a crash could undo.

mod commands;
mod donation;
mod gossip;
mod membership;
mod ownership;
mod seeding;
mod status;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use ipnet::Ipv4Net;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use weft_gossip::{Incarnation, PeerName, Presence};

use self::{gossip::Repairs, seeding::Election};
use super::{
    address::Span,
    cluster::{Charter, Cluster},
    consensus::Consensus,
    contract::{AllocatorConfig, Command, InitMode, IpamState, Output, PeerKnowledge, RequestId},
    leases::Leases,
    pending::{Ask, Parcel, Pending},
    ring::{Ring, Segment},
    space::Space,
    wire::{self, Body, Goal, Header, SavedRing, Snapshot},
};

/// After a start with an old ring, or after learning that we own addresses of which nothing is known here:
/// how long running containers' claims, and word of what changed meanwhile, may take to arrive.
const QUIET: Duration = Duration::from_secs(2);

/// Why nothing is given out for a moment, and until when.
#[derive(Clone, Copy, Debug)]
enum Quiet {
    /// Others may know better whose our addresses are; ends with their word.
    ForWord(Instant),
    /// Running containers may use addresses that are not written down any more.
    ForClaims(Instant),
    /// After a change of the range: others may use addresses since before, and claim them from us first.
    Moved(Instant),
}

impl Quiet {
    fn until(self) -> Instant {
        match self {
            Self::ForWord(until) | Self::ForClaims(until) | Self::Moved(until) => until,
        }
    }
}

/// How long the published state may lag behind a change that others told us.
const PUBLISH_LAG: Duration = Duration::from_millis(200);

/// How long such a change, which others would tell us again, may stay off the disk.
const PERSIST_LAG: Duration = Duration::from_secs(1);

/// Decides who owns which address and which container gets one.
#[derive(Debug)]
pub struct Allocator {
    config: AllocatorConfig,
    range: Span,
    me: PeerName,
    nickname: String,
    incarnation: u64,
    rng: StdRng,

    // Durable.
    pub(in crate::ipam) cluster: Option<Cluster>,
    leases: Leases,
    /// Addresses our containers used until somebody else turned out to.
    conflicts: BTreeMap<Ipv4Addr, (String, PeerName)>,
    consensus: Consensus,
    /// Every peer that may have a say in the first division; grows until then, whoever goes away.
    electors: BTreeSet<PeerName>,
    /// Peers removed here, with the start of theirs that was known.
    removed: BTreeMap<PeerName, u64>,

    // Derived from the ring and the leases.
    space: Space,
    /// In use here, but owned by another: to be claimed back.
    disputed: BTreeSet<u32>,

    // Volatile.
    discarded: Option<String>,
    /// The range was another one in the last run, and there is no ring for this one yet.
    moved: bool,
    /// Taken over a moment ago; another operator may have done the same.
    settling: Vec<(Span, Instant)>,
    quiet: Option<Quiet>,
    /// The ring we left another one for, until then.
    preferred: Option<(Charter, Instant)>,
    peers: BTreeMap<PeerName, PeerKnowledge>,
    headers: BTreeMap<PeerName, Header>,
    /// Peers with another range: they never vote on ours.
    strangers: BTreeMap<PeerName, Ipv4Net>,
    faults: BTreeMap<PeerName, String>,
    pending: VecDeque<Pending>,
    asks: BTreeMap<Goal, Ask>,
    /// The last wish granted to each peer, so that a repeated one gets the same answer.
    granted: BTreeMap<PeerName, (u64, Span)>,
    parcel: Option<Parcel>,
    left: bool,
    election: Election,
    repairs: Repairs,
    /// Messages written, for the order of headers.
    written: u64,
    told_idle: u64,
    told_state: IpamState,
    told_split: BTreeSet<PeerName>,

    // What the input at hand brought.
    must_persist: bool,
    persist_at: Option<Instant>,
    publish_at: Option<Instant>,
    hint_at: Option<Instant>,
    news: Vec<Segment>,
    gone: Vec<PeerName>,
    broadcasts: Vec<Body>,
    effects: Vec<Effect>,
    outputs: VecDeque<Output>,
}

/// What follows the disk and the broadcasts.
#[derive(Debug)]
enum Effect {
    Letter(PeerName, Body),
    Plain(Output),
}

impl Allocator {
    /// Starts with what survived the last run; a snapshot that does not fit is left out and reported.
    pub fn new(
        config: AllocatorConfig,
        me: PeerName,
        nickname: String,
        incarnation: u64,
        persisted: Option<Snapshot>,
        seed: u64,
        now: Instant,
    ) -> Self {
        let range = Span::from(config.range);
        let mut rng = StdRng::seed_from_u64(seed);
        let repairs = Repairs::new(now, &mut rng);
        let mut allocator = Self {
            range,
            me,
            nickname,
            incarnation,
            rng,
            cluster: None,
            leases: Leases::default(),
            conflicts: BTreeMap::new(),
            consensus: Consensus::new(me, None),
            electors: BTreeSet::new(),
            removed: BTreeMap::new(),
            space: Space::default(),
            disputed: BTreeSet::new(),
            discarded: None,
            moved: false,
            settling: Vec::new(),
            quiet: None,
            preferred: None,
            peers: BTreeMap::new(),
            headers: BTreeMap::new(),
            strangers: BTreeMap::new(),
            faults: BTreeMap::new(),
            pending: VecDeque::new(),
            asks: BTreeMap::new(),
            granted: BTreeMap::new(),
            parcel: None,
            left: false,
            election: Election::default(),
            repairs,
            written: 0,
            told_idle: 0,
            told_state: IpamState::Waiting(String::new()),
            told_split: BTreeSet::new(),
            must_persist: false,
            persist_at: None,
            publish_at: None,
            hint_at: None,
            news: Vec::new(),
            gone: Vec::new(),
            broadcasts: Vec::new(),
            effects: Vec::new(),
            outputs: VecDeque::new(),
            config,
        };
        allocator.discarded = persisted.and_then(|snapshot| allocator.restore(snapshot, now).err());
        allocator.rebuild();
        allocator.publish_at = Some(now);
        allocator.settle(now);
        allocator
    }

    fn restore(&mut self, snapshot: Snapshot, now: Instant) -> Result<(), String> {
        if snapshot.me != self.me {
            return Err(format!("the state on disk is that of peer {}", snapshot.me));
        }
        if snapshot.range != self.config.range {
            // Containers run on with what they have: inside the new range it is claimed again as soon as there
            // is a ring, outside it is kept for the day when the range is changed back.
            for (address, id) in &snapshot.leases {
                self.leases.insert(id, *address);
            }
            (self.moved, self.must_persist) = (true, true);
            return Err(format!(
                "the ring on disk is for the range {}, not {}; addresses in use were kept",
                snapshot.range, self.config.range
            ));
        }
        if let Some(SavedRing { charter, used, segments }) = snapshot.ring {
            let ring = Ring::from_segments(self.range, &segments)
                .map_err(|error| format!("the ring on disk is damaged: {error}"))?;
            let others = ring.owners_in(self.range).keys().any(|owner| *owner != self.me);
            self.quiet = others.then(|| Quiet::ForWord(now + QUIET));
            self.cluster = Some(Cluster::new(charter, used, ring));
        }
        for (address, id) in &snapshot.leases {
            self.leases.insert(id, *address);
        }
        self.conflicts =
            snapshot.conflicts.into_iter().map(|(address, id, owner)| (address, (id, owner))).collect();
        self.consensus = Consensus::new(self.me, snapshot.vote);
        self.electors = snapshot.electors.into_iter().collect();
        self.removed = snapshot.removed.into_iter().collect();
        Ok(())
    }

    /// Everything that must be durable, as of now.
    pub fn snapshot(&self) -> Snapshot {
        let ring = self.cluster.as_ref().map(|cluster| SavedRing {
            charter: cluster.charter,
            used: cluster.used,
            segments: cluster.ring().segments(),
        });
        let conflicts = self.conflicts.iter();
        Snapshot {
            me: self.me,
            range: self.config.range,
            ring,
            leases: self.leases.iter().map(|(id, address)| (address, id.to_owned())).collect(),
            conflicts: conflicts.map(|(address, (id, owner))| (*address, id.clone(), *owner)).collect(),
            vote: self.consensus.own().cloned(),
            electors: self.electors.iter().copied().collect(),
            removed: self.removed.iter().map(|(peer, incarnation)| (*peer, *incarnation)).collect(),
        }
    }

    /// Takes a command; its reply comes as an output, at the deadline at the latest.
    pub fn handle_command(&mut self, request: RequestId, command: Command, deadline: Instant, now: Instant) {
        self.command(request, command, deadline, now);
        self.settle(now);
    }

    /// Takes what came over the gossip channel, deltas and states alike.
    pub fn handle_gossip(&mut self, source: PeerName, bytes: &[u8], now: Instant) {
        self.receive(source, bytes, false, now);
        self.settle(now);
    }

    /// Takes what a peer sent to us alone.
    pub fn handle_unicast(&mut self, source: PeerName, bytes: &[u8], now: Instant) {
        self.receive(source, bytes, true, now);
        self.settle(now);
    }

    /// Whether these are the peers as last told, and telling them again would change nothing.
    pub fn knows<'a>(&'a self, peers: impl Iterator<Item = Presence<'a>>) -> bool {
        let known = self.peers.iter().map(|(name, known)| Presence {
            name: *name,
            nickname: &known.nickname,
            incarnation: Incarnation(known.incarnation),
            reachable: known.reachable,
        });
        // Before the first division it counts who has a say in it, which changes with what peers say of themselves.
        self.cluster.is_some() && known.eq(peers)
    }

    /// Takes the mesh's view of all other peers; to be called whenever it changes.
    pub fn handle_peers(&mut self, peers: BTreeMap<PeerName, PeerKnowledge>, now: Instant) {
        self.meet_peers(peers);
        self.settle(now);
    }

    /// Takes the steps that have become due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.settle(now);
    }

    /// When `handle_timeout` wants to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let deadlines = self.pending.iter().map(|pending| pending.deadline);
        let asks = self.asks.values().filter_map(Ask::due);
        let settling = self.settling.iter().map(|(_, until)| *until);
        let parcel = self.parcel.as_ref().filter(|parcel| !parcel.received).and_then(|parcel| parcel.resend);
        let singles = [
            self.quiet.map(Quiet::until),
            self.persist_at,
            self.publish_at,
            self.hint_at,
            parcel,
            self.election_due(),
        ];
        let all = deadlines.chain(asks).chain(settling).chain(singles.into_iter().flatten());
        all.chain(self.repairs.due(!self.peers.is_empty())).min()
    }

    /// The next thing to do, in order.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Takes every step that has become possible, then queues what is to be done.
    fn settle(&mut self, now: Instant) {
        self.end_waiting_times(now);
        self.join_majority(now);
        self.take_seat();
        self.seed(now);
        self.serve(now);
        self.hand_over(now);
        self.expire(now);
        self.repair(now);
        self.flush(now);
    }

    fn end_waiting_times(&mut self, now: Instant) {
        if self.quiet.is_some_and(|quiet| quiet.until() <= now) {
            self.quiet = None;
        }
        let before = self.settling.len();
        self.settling.retain(|(_, until)| *until > now);
        if self.settling.len() != before {
            self.rebuild();
        }
    }

    fn flush(&mut self, now: Instant) {
        self.note_state_changes(now);
        if self.persist_at.is_some_and(|at| at <= now) {
            self.must_persist = true;
        }
        if self.must_persist {
            (self.must_persist, self.persist_at) = (false, None);
            self.outputs.push_back(Output::Persist);
        }
        self.flush_broadcasts(now);
        for effect in std::mem::take(&mut self.effects) {
            match effect {
                Effect::Plain(output) => self.outputs.push_back(output),
                Effect::Letter(to, body) => {
                    let bytes = self.write(&body);
                    self.outputs.push_back(Output::Unicast { to, bytes });
                }
            }
        }
    }

    fn flush_broadcasts(&mut self, now: Instant) {
        let (segments, removed) = (std::mem::take(&mut self.news), std::mem::take(&mut self.gone));
        let mut bodies = std::mem::take(&mut self.broadcasts);
        if !segments.is_empty() || !removed.is_empty() {
            bodies.push(Body::Delta { segments, removed });
        }
        if bodies.is_empty() && self.publish_at.is_none_or(|at| at > now) {
            return;
        }
        self.publish_at = None;
        let whole =
            Body::State(self.cluster.as_ref().map_or_else(Vec::new, |cluster| cluster.ring().segments()));
        let state = self.write(&whole);
        if bodies.is_empty() {
            self.outputs.push_back(Output::Publish { delta: None, state });
            return;
        }
        for body in bodies {
            let delta = Some(self.write(&body));
            self.outputs.push_back(Output::Publish { delta, state: state.clone() });
        }
    }

    fn header(&mut self) -> Header {
        self.written += 1;
        Header {
            author: self.me,
            stamp: (self.incarnation, self.written),
            range: self.config.range,
            observer: self.config.init == InitMode::Observer,
            ring: self.cluster.as_ref().map(Cluster::summary),
            idle: self.space.count_in(self.range),
        }
    }

    fn write(&mut self, body: &Body) -> Vec<u8> {
        let header = self.header();
        wire::encode(&header, body)
    }

    fn send(&mut self, to: PeerName, body: Body) {
        self.effects.push(Effect::Letter(to, body));
    }

    fn emit(&mut self, output: Output) {
        self.effects.push(Effect::Plain(output));
    }

    fn draw(&mut self) -> u64 {
        self.rng.random()
    }

    fn jitter(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(self.rng.random_range(from..to))
    }

    /// Something changed that nobody waits for: to disk and into the published state before long.
    fn lazily(&mut self, now: Instant) {
        self.persist_at.get_or_insert(now + PERSIST_LAG);
        self.publish_at.get_or_insert(now + PUBLISH_LAG);
    }
}
