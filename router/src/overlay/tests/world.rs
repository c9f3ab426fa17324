//! Hosts with an overlay each, their kernels, sleeve links and sessions, and the paths between them.
//!
//! ```text
//!  Overlay ── wish, moves ──► kernel (in order, a millisecond each) ── applied, moved ──► Overlay
//!     │ probes ──► VXLAN path: cut, shrunk or filtered by the receiver's kernel
//!     │ told   ──► session: in order; cut, or losing every n-th message
//!     ╰ links  ──► sleeve: the data half's heartbeats, simplified to "0.7 s after it is cut"
//!  far    ──► through others, if they relay
//!  pings ──► the way each kernel's bridge has learned: VXLAN or sleeve; counted when they arrive
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use weft_gossip::PeerName;

use super::host::{Did, Host, Job};
use crate::dataplane::{Carrier, Command, Event};
use crate::overlay::*;

const SESSION_LAG: Duration = Duration::from_micros(300);
const PATH_LAG: Duration = Duration::from_micros(100);
const KERNEL_LAG: Duration = Duration::from_millis(1);

/// What is between two hosts, in one direction.
#[derive(Clone, Copy, Debug)]
pub(super) struct Way {
    pub(super) vxlan: bool,
    pub(super) sleeve: bool,
    /// Bytes of the largest IP packet.
    pub(super) mtu: usize,
}

enum Due {
    Told(usize, usize, u64, Told),
    Far(usize, usize, Far),
    Probe(usize, Vec<u8>),
    Kernel(usize, u64),
    Link(usize, usize, u64, bool),
    Ping(usize, usize, Stand, u64),
}

pub(super) struct World {
    pub(super) now: Instant,
    pub(super) start: Instant,
    pub(super) hosts: Vec<Host>,
    ways: BTreeMap<(usize, usize), Way>,
    sessions: BTreeMap<(usize, usize), u64>,
    queue: BTreeMap<(Instant, u64), Due>,
    serial: u64,
    /// One in so many views and steps of a change is lost, at random; 0 loses none.
    pub(super) lose_every: u32,
    /// Others reach all, and carry by sleeve what has no link of its own.
    pub(super) relays: bool,
    chance: StdRng,
    /// Pings that arrived, with how often; those sent.
    pub(super) arrived: BTreeMap<u64, u32>,
    pub(super) sent: BTreeSet<u64>,
    ping: u64,
}

pub(super) fn name(at: usize) -> PeerName {
    PeerName::from_u64((at as u64 + 1) << 32)
}

pub(super) fn address(at: usize) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 99, 0, u8::try_from(at + 1).unwrap()))
}

pub(super) fn config(at: usize) -> Config {
    let mut entropy = [7; 32];
    entropy[0] = u8::try_from(at).unwrap();
    Config {
        me: name(at),
        sleeve: Some(6783),
        fastpath: Some(6784),
        mtu: 1450,
        encrypted: false,
        trusted: Vec::new(),
        entropy: Entropy(entropy),
    }
}

pub(super) const MS: Duration = Duration::from_millis(1);
pub(super) const SECOND: Duration = Duration::from_secs(1);

impl World {
    /// Hosts that know nobody, on paths that take everything.
    pub(super) fn new(configs: Vec<Config>) -> Self {
        #[expect(clippy::disallowed_methods, reason = "virtual time starts somewhere")]
        let now = Instant::now();
        let count = configs.len();
        let open = Way { vxlan: true, sleeve: true, mtu: 1500 };
        let mut world = Self {
            now,
            start: now,
            hosts: configs.into_iter().map(|config| Host::new(config, &[], now)).collect(),
            ways: (0..count).flat_map(|a| (0..count).map(move |b| ((a, b), open))).collect(),
            sessions: BTreeMap::new(),
            queue: BTreeMap::new(),
            serial: 0,
            lose_every: 0,
            relays: false,
            chance: StdRng::seed_from_u64(1),
            arrived: BTreeMap::new(),
            sent: BTreeSet::new(),
            ping: 0,
        };
        for at in 0..count {
            world.hosts[at].overlay.handle_kernel_ready(Ok(()), now);
            world.drain(at);
        }
        world
    }

    /// Two hosts with a session, some seconds later.
    pub(super) fn pair() -> Self {
        let mut world = Self::new(vec![config(0), config(1)]);
        world.connect(0, 1);
        world.run(5 * SECOND);
        world
    }

    pub(super) fn way(&mut self, from: usize, to: usize) -> &mut Way {
        self.ways.get_mut(&(from, to)).unwrap()
    }

    /// Lets VXLAN through in both directions, or in neither.
    pub(super) fn vxlan(&mut self, a: usize, b: usize, open: bool) {
        (self.way(a, b).vxlan, self.way(b, a).vxlan) = (open, open);
    }

    pub(super) fn sleeve(&mut self, a: usize, b: usize, open: bool) {
        for (from, to) in [(a, b), (b, a)] {
            let was = self.sleeve_works(from, to);
            self.way(from, to).sleeve = open;
            if was {
                self.watch_links(a, b, 700 * MS);
            } else if self.sleeve_works(from, to) {
                self.watch_links(a, b, 500 * MS);
            }
        }
    }

    fn sleeve_works(&self, a: usize, b: usize) -> bool {
        self.ways[&(a, b)].sleeve && self.ways[&(b, a)].sleeve
    }

    fn watch_links(&mut self, a: usize, b: usize, after: Duration) {
        for (at, other) in [(a, b), (b, a)] {
            if let Some(session) = self.hosts[at].links.get(&name(other)).copied() {
                self.schedule(after, Due::Link(at, other, session, false));
            }
        }
    }

    pub(super) fn connect(&mut self, a: usize, b: usize) {
        self.serial += 1;
        let session = self.serial;
        self.sessions.insert((a.min(b), a.max(b)), session);
        for (at, other) in [(a, b), (b, a)] {
            let remote = SocketAddr::new(address(other), 40_000);
            let now = self.now;
            self.hosts[at].overlay.handle_established(
                name(other),
                format!("host{other}"),
                remote,
                session,
                now,
            );
        }
        self.drain(a);
        self.drain(b);
    }

    pub(super) fn disconnect(&mut self, a: usize, b: usize) {
        if self.sessions.remove(&(a.min(b), a.max(b))).is_none() {
            return;
        }
        for (at, other) in [(a, b), (b, a)] {
            if self.hosts[at].running {
                self.hosts[at].overlay.handle_lost(name(other), self.now);
                self.drain(at);
            }
        }
    }

    pub(super) fn is_connected(&self, a: usize, b: usize) -> bool {
        self.sessions.contains_key(&(a.min(b), a.max(b)))
    }

    /// The router ends as by `kill -9`; its kernel goes on.
    pub(super) fn kill(&mut self, at: usize) -> Vec<Remembered> {
        let memory = self.hosts[at].overlay.remembered();
        self.hosts[at].running = false;
        for other in 0..self.hosts.len() {
            self.disconnect(at, other);
        }
        self.hosts[at].links.clear();
        memory
    }

    /// The router starts again, with or without what it wrote down.
    pub(super) fn start(&mut self, at: usize, config: Config, memory: &[Remembered]) {
        let now = self.now;
        let host = &mut self.hosts[at];
        host.overlay = Overlay::new(config.clone(), memory, now);
        host.config = config;
        host.jobs.clear();
        host.life += 1;
        host.running = true;
        // What the first convergence makes of the kernel: everything that is not wished for goes.
        let first = host.overlay.wish().clone();
        host.carry_out(&first);
        host.ready = host.config.fastpath.is_some();
        let ready = if host.config.fastpath.is_some() { Ok(()) } else { Err("off".to_owned()) };
        host.overlay.handle_kernel_ready(ready, now);
        self.drain(at);
    }

    pub(super) fn told(&mut self, from: usize, to: usize, told: Told) {
        let session = self.sessions[&(from.min(to), from.max(to))];
        self.schedule(SESSION_LAG, Due::Told(from, to, session, told));
    }

    /// Something is done to one overlay, and what it wants is carried out.
    pub(super) fn with(&mut self, at: usize, change: impl FnOnce(&mut Overlay, Instant)) {
        change(&mut self.hosts[at].overlay, self.now);
        self.drain(at);
    }

    pub(super) fn run(&mut self, time: Duration) {
        let until = self.now + time;
        while self.step(until) {}
        self.now = until;
    }

    /// Runs until it holds; how long that took.
    pub(super) fn until(&mut self, at_most: Duration, holds: impl Fn(&Self) -> bool) -> Duration {
        let (began, until) = (self.now, self.now + at_most);
        while !holds(self) {
            assert!(self.step(until), "not within {at_most:?}: {}", self.describe(0, 1));
        }
        self.now - began
    }

    /// Runs with a ping every `gap` in both directions; how many were lost and doubled.
    pub(super) fn run_pinging(
        &mut self,
        a: usize,
        b: usize,
        gap: Duration,
        time: Duration,
    ) -> (usize, usize) {
        let (until, before) = (self.now + time, self.ping);
        while self.now < until {
            self.send_ping(a, b);
            self.send_ping(b, a);
            self.run(gap);
        }
        let last = self.ping;
        self.run(10 * MS);
        let times: Vec<u32> =
            (before..last).map(|ping| self.arrived.get(&ping).copied().unwrap_or_default()).collect();
        let count = |wanted: fn(u32) -> bool| times.iter().filter(|times| wanted(**times)).count();
        (count(|times| times == 0), count(|times| times > 1))
    }

    fn step(&mut self, until: Instant) -> bool {
        let timer = self.hosts.iter().enumerate().filter(|(_, host)| host.running);
        let timer = timer.filter_map(|(at, host)| Some((host.overlay.poll_timeout()?, at))).min();
        let event = self.queue.first_key_value().map(|((at, _), _)| *at);
        match (timer, event) {
            (Some((at, host)), event) if event.is_none_or(|event| at <= event) && at <= until => {
                self.now = self.now.max(at);
                self.hosts[host].overlay.handle_timeout(self.now);
                let next = self.hosts[host].overlay.poll_timeout();
                assert!(
                    next.is_none_or(|next| next > self.now),
                    "a timer that never ends: {}",
                    self.describe(0, 1)
                );
                self.drain(host);
            }
            (_, Some(at)) if at <= until => {
                self.now = self.now.max(at);
                let (_, due) = self.queue.pop_first().unwrap();
                self.happen(due);
            }
            _ => return false,
        }
        true
    }

    fn happen(&mut self, due: Due) {
        match due {
            Due::Told(from, to, session, told) => {
                let current = self.sessions.get(&(from.min(to), from.max(to)));
                if current == Some(&session) && self.hosts[to].running {
                    self.hosts[to].overlay.handle_told(name(from), told, self.now);
                    self.drain(to);
                }
            }
            Due::Far(from, to, far) => {
                if self.hosts[to].running {
                    self.with(to, |overlay, now| overlay.handle_far(name(from), far, now));
                }
            }
            Due::Probe(to, bytes) => {
                if self.hosts[to].running {
                    self.hosts[to].overlay.handle_probe(&bytes, self.now);
                    self.drain(to);
                }
            }
            Due::Kernel(at, life) => self.kernel_job(at, life),
            Due::Link(at, other, session, proof) => self.link(at, other, session, proof),
            Due::Ping(from, to, way, ping) => {
                let arrives = match way {
                    Stand::Sleeve => true,
                    Stand::Fastpath => self.lets_in(to, from, Accept::Frames),
                };
                if arrives {
                    *self.arrived.entry(ping).or_default() += 1;
                    // The bridge learns from what arrives.
                    self.hosts[to].port.insert(name(from), way);
                }
            }
        }
    }

    fn kernel_job(&mut self, at: usize, life: u64) {
        let host = &mut self.hosts[at];
        if host.life != life || host.kernel_dead {
            return;
        }
        let Some(job) = host.jobs.pop_front() else { return };
        match job {
            Job::Wish(wish) => {
                host.carry_out(&wish);
                if host.running {
                    host.overlay.handle_applied(wish.serial, self.now);
                }
            }
            Job::Move(peer, number, to) => {
                host.port.insert(peer, to);
                host.did.push(Did::Moved(peer, to));
                if host.running {
                    host.overlay.handle_moved(peer, number, self.now);
                }
            }
        }
        self.drain(at);
    }

    /// The data half's link notices how things are.
    fn link(&mut self, at: usize, other: usize, session: u64, proof: bool) {
        let peer = name(other);
        let both = self.hosts[other].links.get(&name(at)) == Some(&session);
        if !self.hosts[at].running || self.hosts[at].links.get(&peer) != Some(&session) {
            return;
        }
        let works = both && self.hosts[other].running && self.sleeve_works(at, other);
        let mtu = u16::try_from(self.ways[&(at, other)].mtu).unwrap();
        let event = match works {
            true => Event::LinkUp { peer, rtt: 2 * PATH_LAG, mtu },
            false if proof => return,
            false => Event::LinkDown { peer },
        };
        self.hosts[at].overlay.handle_data(&event, self.now);
        if !works {
            self.schedule(SECOND, Due::Link(at, other, session, true));
        }
        self.drain(at);
    }

    fn lets_in(&self, at: usize, from: usize, least: Accept) -> bool {
        self.hosts[at].kernel.get(&name(from)).is_some_and(|remote| remote.accept >= least)
    }

    fn drain(&mut self, at: usize) {
        while let Some(output) = self.hosts[at].overlay.poll_output() {
            self.carry_out(at, output);
        }
    }

    fn carry_out(&mut self, at: usize, output: Output) {
        let me = name(at);
        match output {
            Output::Tell(peer, told) => {
                let to = index(peer);
                let lossy = matches!(told, Told::View(_) | Told::Change { .. }) && self.lose_every > 0;
                let lost = lossy && self.chance.random_ratio(1, self.lose_every);
                if let Some(session) = self.sessions.get(&(at.min(to), at.max(to))).copied().filter(|_| !lost)
                {
                    let bytes = told.encode();
                    self.schedule(SESSION_LAG, Due::Told(at, to, session, Told::decode(&bytes).unwrap()));
                }
            }
            Output::Far(peer, far) if self.relays => {
                self.schedule(
                    2 * SESSION_LAG,
                    Due::Far(at, index(peer), Far::decode(&far.encode()).unwrap()),
                );
            }
            Output::Far(..) => {}
            Output::Data(Command::AddLink { peer, session, .. }) => {
                self.hosts[at].links.insert(peer, session);
                let other = index(peer);
                self.schedule(5 * MS, Due::Link(at, other, session, true));
                if self.hosts[other].links.get(&me) == Some(&session) {
                    self.schedule(5 * MS, Due::Link(other, at, session, true));
                }
            }
            Output::Data(Command::RemoveLink { peer }) => {
                self.hosts[at].links.remove(&peer);
            }
            Output::Data(Command::Prove { peer }) => {
                if let Some(session) = self.hosts[at].links.get(&peer).copied() {
                    self.schedule(2 * PATH_LAG, Due::Link(at, index(peer), session, true));
                }
            }
            Output::Data(Command::Doubt { .. }) => self.hosts[at].doubted += 1,
            Output::Data(_) | Output::Remember | Output::Left(_) => {}
            Output::Verify(_) => self.hosts[at].verified += 1,
            Output::Changed => self.hosts[at].table(),
            Output::Kernel(wish) => self.kernel(at, Job::Wish(wish)),
            Output::MoveMacs { peer, job, to, address: where_to } => {
                assert_eq!(where_to, address(index(peer)));
                self.kernel(at, Job::Move(peer, job, to));
            }
            Output::Probe { mac, bytes } => {
                let remote = self.hosts[at].kernel.iter().find(|(_, remote)| remote.mac == mac);
                let Some((peer, _)) = remote else { return };
                let to = index(*peer);
                let way = self.ways[&(at, to)];
                if way.vxlan && bytes.len() + 50 <= way.mtu && self.lets_in(to, at, Accept::Probes) {
                    self.schedule(PATH_LAG, Due::Probe(to, bytes));
                }
            }
        }
    }

    fn kernel(&mut self, at: usize, job: Job) {
        self.hosts[at].jobs.push_back(job);
        let (waiting, life) = (self.hosts[at].jobs.len(), self.hosts[at].life);
        self.schedule(KERNEL_LAG * u32::try_from(waiting).unwrap(), Due::Kernel(at, life));
    }

    fn send_ping(&mut self, from: usize, to: usize) {
        let ping = self.ping;
        self.ping += 1;
        self.sent.insert(ping);
        let (peer, way) = (name(to), self.ways[&(from, to)]);
        let host = &self.hosts[from];
        let port = host.port.get(&peer).copied().unwrap_or(Stand::Sleeve);
        let goes = match port {
            Stand::Fastpath => way.vxlan && host.kernel.contains_key(&peer),
            Stand::Sleeve => {
                let carried = host.carriers.get(&peer) == Some(&Carrier::Sleeve) && way.sleeve;
                (carried || self.relays) && host.running && self.hosts[to].running
            }
        };
        if goes {
            self.schedule(PATH_LAG, Due::Ping(from, to, port, ping));
        }
    }

    fn schedule(&mut self, after: Duration, due: Due) {
        self.serial += 1;
        self.queue.insert((self.now + after, self.serial), due);
    }

    pub(super) fn carrier(&self, at: usize, other: usize) -> Option<Carrier> {
        self.hosts[at].overlay.neighbour(name(other)).and_then(Neighbour::carrier)
    }

    pub(super) fn reason(&self, at: usize, other: usize) -> Reason {
        self.hosts[at].overlay.neighbour(name(other)).unwrap().reason().clone()
    }

    /// Both ends use this carrier, and their kernels are as that wants it.
    pub(super) fn both(&self, a: usize, b: usize, carrier: Carrier) -> bool {
        let on_fastpath = carrier == Carrier::Fastpath;
        [(a, b), (b, a)].into_iter().all(|(at, other)| {
            let remote = self.hosts[at].kernel.get(&name(other));
            self.carrier(at, other) == Some(carrier)
                && remote.is_some_and(|remote| remote.default) == on_fastpath
                && remote.is_some_and(|remote| remote.accept == Accept::Frames) == on_fastpath
        })
    }

    pub(super) fn forget_deeds(&mut self) {
        self.hosts.iter_mut().for_each(|host| host.did.clear());
    }

    pub(super) fn remote(&self, at: usize, other: usize) -> Option<RemoteWish> {
        self.hosts[at].kernel.get(&name(other)).copied()
    }

    /// No kernel sends to, or takes from, the other.
    pub(super) fn neither_stands(&self, a: usize, b: usize) -> bool {
        [self.remote(a, b), self.remote(b, a)]
            .into_iter()
            .flatten()
            .all(|remote| !remote.default && remote.accept != Accept::Frames)
    }

    pub(super) fn describe(&self, a: usize, b: usize) -> String {
        let ends = [(a, b), (b, a)].map(|(at, other)| {
            let overlay = &self.hosts[at].overlay;
            let entry = overlay.neighbour(name(other));
            format!("host{at} at {:?}: {entry:?} {:?}", self.now - self.start, overlay.counters())
        });
        ends.join("\n")
    }
}

fn index(peer: PeerName) -> usize {
    usize::try_from((peer.as_u64() >> 32) - 1).unwrap()
}
