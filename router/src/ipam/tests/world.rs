//! A network of allocators in virtual time: latency, loss, doubling, reordering, partitions, crashes.
//!
//! It stands for mesh and disk only as far as the contract goes: a delta reaches everyone or not, a state is
//! exchanged when two peers come within reach, a restart begins with what was last persisted. After every
//! event it checks that no address is in use twice and that nothing acknowledged was forgotten.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use weft_gossip::PeerName;

use crate::ipam::{
    Allocator, AllocatorConfig, Command, InitMode, IpamError, IpamState, Output, PeerKnowledge, Reply,
    RequestId, Snapshot, address::Span,
};

pub(super) fn name(number: usize) -> PeerName {
    format!("{:016x}", number * 0x1111 + 7).parse().unwrap()
}

pub(super) struct Host {
    pub(super) allocator: Option<Allocator>,
    pub(super) disk: Option<Snapshot>,
    pub(super) config: AllocatorConfig,
    pub(super) nickname: String,
    pub(super) incarnation: u64,
    pub(super) group: usize,
    published: Vec<u8>,
    known: BTreeSet<usize>,
    reached: BTreeSet<(usize, u64)>,
    /// What was acknowledged and not released since.
    pub(super) acknowledged: BTreeSet<(String, Ipv4Addr)>,
    pub(super) conflicts: Vec<(String, Ipv4Addr)>,
    pub(super) removed: Vec<PeerName>,
}

enum Event {
    Gossip { from: usize, to: usize, bytes: Vec<u8> },
    Unicast { from: usize, to: usize, bytes: Vec<u8> },
    View(usize),
    Restart(usize),
}

pub(super) struct World {
    pub(super) now: Instant,
    pub(super) rng: StdRng,
    pub(super) hosts: Vec<Host>,
    pub(super) loss: f64,
    pub(super) doubling: f64,
    pub(super) crashes: f64,
    pub(super) latency: (u64, u64),
    /// After a forced removal two containers may share an address until both sides have met.
    pub(super) lenient: bool,
    pub(super) messages: usize,
    pub(super) largest: usize,
    queue: BTreeMap<(Instant, u64), Event>,
    order: u64,
    requests: BTreeMap<u64, (usize, Option<String>)>,
    pub(super) replies: BTreeMap<u64, Result<Reply, IpamError>>,
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        #[expect(
            clippy::disallowed_methods,
            reason = "an Instant can only be had from the clock; only differences count"
        )]
        let now = Instant::now();
        Self {
            now,
            rng: StdRng::seed_from_u64(seed),
            hosts: Vec::new(),
            loss: 0.0,
            doubling: 0.0,
            crashes: 0.0,
            latency: (1, 5),
            lenient: false,
            messages: 0,
            largest: 0,
            queue: BTreeMap::new(),
            order: 0,
            requests: BTreeMap::new(),
            replies: BTreeMap::new(),
        }
    }

    /// Hosts that know each other from the start, as after a launch with all peers given.
    pub(super) fn mesh(seed: u64, count: usize, range: &str) -> Self {
        let mut world = Self::new(seed);
        for _ in 0..count {
            world.launch(range, InitMode::Consensus(None), count - 1, 0);
        }
        world.run(300);
        world
    }

    pub(super) fn launch(&mut self, range: &str, init: InitMode, peers_given: usize, group: usize) -> usize {
        let config = AllocatorConfig { range: range.parse().unwrap(), init, peers_given };
        let host = Host {
            allocator: None,
            disk: None,
            config,
            nickname: format!("host{}", self.hosts.len()),
            incarnation: 0,
            group,
            published: Vec::new(),
            known: BTreeSet::new(),
            reached: BTreeSet::new(),
            acknowledged: BTreeSet::new(),
            conflicts: Vec::new(),
            removed: Vec::new(),
        };
        self.hosts.push(host);
        self.start(self.hosts.len() - 1);
        self.hosts.len() - 1
    }

    pub(super) fn start(&mut self, at: usize) {
        let seed = self.rng.random();
        let host = &mut self.hosts[at];
        host.incarnation += 1;
        host.reached.clear();
        let (config, nickname) = (host.config.clone(), host.nickname.clone());
        let allocator =
            Allocator::new(config, name(at), nickname, host.incarnation, host.disk.clone(), seed, self.now);
        if allocator.status().discarded.is_some() {
            host.disk = None; // Overwritten only when there is something to write.
        }
        for (id, address) in &host.acknowledged {
            let held = allocator.lookup(id).any(|held| held == *address);
            assert!(held || host.disk.is_none() || self.lenient, "host{at} forgot {address} of {id}");
        }
        host.allocator = Some(allocator);
        self.drain(at);
        self.views();
    }

    pub(super) fn kill(&mut self, at: usize) {
        self.hosts[at].allocator = None;
        self.views();
    }

    pub(super) fn partition(&mut self, groups: &[usize]) {
        for (host, group) in self.hosts.iter_mut().zip(groups) {
            host.group = *group;
        }
        self.views();
    }

    pub(super) fn heal(&mut self) {
        self.partition(&vec![0; self.hosts.len()]);
    }

    fn reaches(&self, from: usize, to: usize) -> bool {
        let (one, two) = (&self.hosts[from], &self.hosts[to]);
        one.group == two.group && one.allocator.is_some() && two.allocator.is_some()
    }

    fn views(&mut self) {
        for at in 0..self.hosts.len() {
            let delay = self.rng.random_range(1..60);
            self.schedule(delay, Event::View(at));
        }
    }

    fn schedule(&mut self, delay: u64, event: Event) {
        self.order += 1;
        self.queue.insert((self.now + Duration::from_millis(delay), self.order), event);
    }

    pub(super) fn command(&mut self, at: usize, command: Command, patience: u64) -> u64 {
        let request = self.requests.len() as u64;
        let id = match &command {
            Command::Allocate { id, .. } | Command::Claim { id, .. } => Some(id.clone()),
            Command::Release { id, address } => {
                let freed =
                    |held: &(String, Ipv4Addr)| held.0 == *id && address.is_none_or(|it| it == held.1);
                self.hosts[at].acknowledged.retain(|held| !freed(held));
                None
            }
            Command::Leave => {
                self.hosts[at].acknowledged.clear();
                None
            }
            Command::Lookup { .. } | Command::Prime | Command::RemovePeer { .. } | Command::Cancel { .. } => {
                None
            }
        };
        self.requests.insert(request, (at, id));
        let (deadline, now) = (self.now + Duration::from_millis(patience), self.now);
        if let Some(allocator) = &mut self.hosts[at].allocator {
            allocator.handle_command(RequestId(request), command, deadline, now);
            self.drain(at);
        }
        request
    }

    pub(super) fn allocate(&mut self, at: usize, id: &str) -> u64 {
        self.command(at, Command::Allocate { id: id.to_owned(), within: None }, 10_000)
    }

    /// Runs until the reply is there.
    pub(super) fn outcome(&mut self, request: u64) -> Result<Reply, IpamError> {
        for _ in 0..2_000 {
            if let Some(result) = self.replies.get(&request) {
                return result.clone();
            }
            self.run(10);
        }
        panic!("no reply to request {request}: {:?}", self.requests.get(&request));
    }

    pub(super) fn get(&mut self, at: usize, id: &str) -> Result<Ipv4Addr, IpamError> {
        let request = self.allocate(at, id);
        self.outcome(request).map(|reply| match reply {
            Reply::Address(address) => address,
            Reply::Addresses(_) | Reply::Removed(_) | Reply::Done => panic!("{reply:?} for an allocation"),
        })
    }

    pub(super) fn ask(&mut self, at: usize, command: Command) -> Result<Reply, IpamError> {
        let request = self.command(at, command, 10_000);
        self.outcome(request)
    }

    pub(super) fn claim(&mut self, at: usize, id: &str, address: &str) -> Result<Reply, IpamError> {
        self.ask(at, Command::Claim { id: id.to_owned(), address: address.parse().unwrap() })
    }

    /// Lets the time pass, event by event.
    pub(super) fn run(&mut self, millis: u64) {
        let end = self.now + Duration::from_millis(millis);
        while let Some(at) = self.next().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.turn();
            self.check();
        }
        self.now = end;
    }

    fn next(&self) -> Option<Instant> {
        let timers = self.hosts.iter().filter_map(|host| host.allocator.as_ref()?.poll_timeout());
        timers.chain(self.queue.keys().next().map(|(at, _)| *at)).min()
    }

    fn turn(&mut self) {
        for at in 0..self.hosts.len() {
            let due = |allocator: &Allocator, now| allocator.poll_timeout().is_some_and(|due| due <= now);
            let now = self.now;
            if let Some(allocator) = self.hosts[at].allocator.as_mut().filter(|allocator| due(allocator, now))
            {
                allocator.handle_timeout(now);
                assert!(!due(allocator, now), "a timer of host{at} does not advance");
                self.drain(at);
            }
        }
        while let Some(entry) = self.queue.first_entry().filter(|entry| entry.key().0 <= self.now) {
            match entry.remove() {
                Event::Gossip { from, to, bytes } if self.reaches(from, to) => {
                    let allocator = self.hosts[to].allocator.as_mut().unwrap();
                    allocator.handle_gossip(name(from), &bytes, self.now);
                    self.drain(to);
                }
                Event::Unicast { from, to, bytes } if self.reaches(from, to) => {
                    let allocator = self.hosts[to].allocator.as_mut().unwrap();
                    allocator.handle_unicast(name(from), &bytes, self.now);
                    self.drain(to);
                }
                Event::Gossip { .. } | Event::Unicast { .. } => {}
                Event::View(at) => self.view(at),
                Event::Restart(at) => {
                    if self.hosts[at].allocator.is_none() {
                        self.start(at);
                    }
                }
            }
        }
    }

    /// A host learns whom it can reach now, and gets the states of those who are new.
    fn view(&mut self, at: usize) {
        if self.hosts[at].allocator.is_none() {
            return;
        }
        let reached: Vec<usize> =
            (0..self.hosts.len()).filter(|other| *other != at && self.reaches(at, *other)).collect();
        for other in &reached {
            let session = (*other, self.hosts[*other].incarnation);
            if !self.hosts[at].reached.contains(&session) {
                let bytes = self.hosts[*other].published.clone();
                self.post(*other, at, bytes, false);
            }
        }
        let sessions = reached.iter().map(|other| (*other, self.hosts[*other].incarnation)).collect();
        self.hosts[at].reached = sessions;
        self.hosts[at].known.extend(&reached);
        let peers = self.hosts[at].known.iter().map(|other| {
            let host = &self.hosts[*other];
            let (nickname, incarnation) = (host.nickname.clone(), host.incarnation);
            (name(*other), PeerKnowledge { nickname, reachable: reached.contains(other), incarnation })
        });
        let peers = peers.collect();
        self.hosts[at].allocator.as_mut().unwrap().handle_peers(peers, self.now);
        self.drain(at);
    }

    fn post(&mut self, from: usize, to: usize, bytes: Vec<u8>, alone: bool) {
        self.messages += 1;
        self.largest = self.largest.max(bytes.len());
        if self.rng.random_bool(self.loss) {
            return;
        }
        let copies = 1 + usize::from(self.rng.random_bool(self.doubling));
        for _ in 0..copies {
            let delay = self.rng.random_range(self.latency.0..self.latency.1);
            let bytes = bytes.clone();
            self.schedule(
                delay,
                if alone { Event::Unicast { from, to, bytes } } else { Event::Gossip { from, to, bytes } },
            );
        }
    }

    fn drain(&mut self, at: usize) {
        while let Some(output) = self.hosts[at].allocator.as_mut().and_then(Allocator::poll_output) {
            if self.rng.random_bool(self.crashes) {
                self.kill(at);
                let delay = self.rng.random_range(20..2_000);
                self.schedule(delay, Event::Restart(at));
                return;
            }
            self.carry_out(at, output);
        }
    }

    /// What others may rely on is on disk before they hear of anything.
    fn assert_durable(&self, at: usize) {
        let host = &self.hosts[at];
        let now = host.allocator.as_ref().map(Allocator::snapshot).expect("a running router");
        let owned = |snapshot: &Snapshot| {
            let ring = snapshot.ring.as_ref();
            ring.map(|ring| {
                let mine = ring.segments.iter().filter(|segment| segment.holding.owner == name(at));
                (ring.charter, mine.copied().collect::<Vec<_>>())
            })
        };
        let nothing = now.ring.is_none() && now.leases.is_empty() && now.vote.is_none();
        let Some(disk) = &host.disk else { return assert!(nothing, "host{at} spoke before it wrote") };
        assert_eq!(owned(disk), owned(&now), "host{at}: what it owns is not on disk");
        assert_eq!(
            (&disk.leases, &disk.vote),
            (&now.leases, &now.vote),
            "host{at}: leases and vote are not on disk"
        );
    }

    fn carry_out(&mut self, at: usize, output: Output) {
        if matches!(output, Output::Reply { .. } | Output::Publish { .. } | Output::Unicast { .. }) {
            self.assert_durable(at);
        }
        match output {
            Output::Persist => {
                let host = &mut self.hosts[at];
                host.disk = host.allocator.as_ref().map(Allocator::snapshot);
            }
            Output::Reply { request, result } => {
                let (_, id) = &self.requests[&request.0];
                if let (Ok(Reply::Address(address)), Some(id)) = (&result, id) {
                    self.hosts[at].acknowledged.insert((id.clone(), *address));
                }
                let before = self.replies.insert(request.0, result);
                assert!(before.is_none(), "two replies to one request");
            }
            Output::Publish { delta, state } => {
                self.hosts[at].published = state;
                let Some(delta) = delta else { return };
                for to in 0..self.hosts.len() {
                    if to != at && self.reaches(at, to) {
                        self.post(at, to, delta.clone(), false);
                    }
                }
            }
            Output::Unicast { to, bytes } => {
                let to = (0..self.hosts.len()).find(|other| name(*other) == to).expect("a host");
                if self.reaches(at, to) {
                    self.post(at, to, bytes, true);
                }
            }
            Output::Conflict { id, address, .. } => {
                self.hosts[at].acknowledged.remove(&(id.clone(), address));
                self.hosts[at].conflicts.push((id, address));
            }
            Output::Removed { peer } => {
                let gone = (0..self.hosts.len()).find(|other| name(*other) == peer);
                self.hosts[at].known.retain(|other| Some(*other) != gone);
                self.hosts[at].removed.push(peer);
                self.schedule(0, Event::View(at));
            }
            Output::SplitChanged | Output::StateChanged => {}
        }
    }

    /// No address twice, dead hosts' disks included; everything acknowledged is still there.
    pub(super) fn check(&self) {
        let mut users: BTreeMap<Ipv4Addr, usize> = BTreeMap::new();
        for (at, host) in self.hosts.iter().enumerate() {
            let range = Span::from(host.config.range);
            let leases = self.leases(at);
            for address in
                leases.iter().map(|(address, _)| *address).filter(|it| range.contains((*it).into()))
            {
                let other = users.insert(address, at);
                assert!(other.is_none() || self.lenient, "{address} is in use on host{at} and host{other:?}");
            }
            for (id, address) in &host.acknowledged {
                let held = leases.iter().any(|(held, holder)| held == address && holder == id);
                assert!(held || self.lenient, "host{at} lost {address} of {id}");
            }
        }
    }

    pub(super) fn leases(&self, at: usize) -> Vec<(Ipv4Addr, String)> {
        let host = &self.hosts[at];
        match (&host.allocator, &host.disk) {
            (Some(allocator), _) => {
                allocator.allocations().map(|(id, address)| (address, id.to_owned())).collect()
            }
            (None, Some(disk)) => disk.leases.clone(),
            (None, None) => Vec::new(),
        }
    }

    pub(super) fn live(&self, at: usize) -> &Allocator {
        self.hosts[at].allocator.as_ref().expect("a running router")
    }

    pub(super) fn state(&self, at: usize) -> IpamState {
        self.live(at).status().state
    }

    pub(super) fn owned(&self, at: usize) -> u64 {
        self.live(at).status().owned
    }

    /// All running hosts have the same ring, and every lease lies in what its host owns.
    pub(super) fn assert_agreement(&self) {
        let running: Vec<usize> =
            (0..self.hosts.len()).filter(|at| self.hosts[*at].allocator.is_some()).collect();
        let first = self.live(running[0]).cluster.as_ref().expect("a ring");
        for at in &running {
            let cluster = self.live(*at).cluster.as_ref().expect("a ring");
            assert_eq!(cluster.charter, first.charter, "host{at} has another ring");
            assert_eq!(cluster.ring(), first.ring(), "host{at} sees the ring otherwise");
            let range = Span::from(self.hosts[*at].config.range);
            for (address, id) in self.leases(*at) {
                let number = u32::from(address);
                let owner = cluster.ring().owner_of(number);
                assert!(
                    !range.contains(number) || owner == Some(name(*at)),
                    "{address} of {id} is not host{at}'s"
                );
            }
        }
    }
}
