//! The naive model, and what must hold after every step: who uses which address, who owns it, what was promised.
//!
//! | | checked where it can change |
//! |---|---|
//! | I1 | no address is in use by two containers anywhere: whenever a port appears |
//! | I2 | every address in use lies in a range that its host owns: at every write and every port |
//! | I3 | a ring covers the range once, and no two peers believe to own one address: at every write |
//! | I4 | no start of a router reuses an incarnation: at every start (`shell.rs`) |
//! | I5 | no counter goes out twice under one key, nothing in clear with a secret: at every datagram |
//! | I6 | what waits is bounded: at every step |
//! | I7 | no frame comes to a host twice, or for ever: at every passage |
//! | I8 | no container link stands that nobody explains: at the end (`assertions.rs`) |
//! | I9 | afterwards everybody reaches everybody, and all rings are equal: at the end |
//! | I10 | what was acknowledged is on disk, and a restart still has it: at every answer and every write |

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use weft_gossip::PeerName;
use weft_router::ipam::address::Span;
use weft_router::ipam::cluster::Charter;
use weft_router::ipam::ring::Ring;
use weft_router::node::State;
use weft_router::overlay::Accept;
use weft_router::sleeve::packet::Header;
use weft_router::sleeve::seal::Suite;

use super::World;
use super::agenda::HostId;
use super::bridge::{self, Port};
use super::workload::Talk;

/// How long a frame is watched.
const WATCHED: Duration = Duration::from_secs(20);
/// Events that may wait, per host.
const WAITING: usize = 20_000;

/// A frame under way.
#[derive(Debug)]
struct Flight {
    talk: Talk,
    sent: Duration,
    /// The hosts it came to, once for each time: the question's way and the answer's.
    came: Vec<Passage>,
    heard: bool,
    answered: bool,
}

/// A frame came to a host.
#[derive(Clone, Copy, Debug)]
struct Passage {
    host: HostId,
    question: bool,
    port: Port,
    at: Duration,
}

/// What the world believes.
#[derive(Debug, Default)]
pub(super) struct Reference {
    /// Every address in use, by whose container on which host.
    active: BTreeMap<Ipv4Addr, (HostId, usize)>,
    /// What each peer believes to own, and of which ring.
    owned: BTreeMap<PeerName, (Charter, Vec<Span>)>,
    /// The highest counter under each key, by sender.
    counters: BTreeMap<(HostId, u32), u64>,
    flights: BTreeMap<u64, Flight>,
    /// Frames that came to a host twice.
    pub(super) doubled: u64,
}

impl Reference {
    pub(super) fn sent(&mut self, talk: Talk, now: Duration) {
        let flight = Flight { talk, sent: now, came: Vec::new(), heard: false, answered: false };
        self.flights.insert(talk.number, flight);
        while let Some(oldest) = self.flights.first_entry()
            && oldest.get().sent + WATCHED < now
        {
            oldest.remove();
        }
    }

    /// Whether a question was answered.
    pub(super) fn is_answered(&self, number: u64) -> bool {
        self.flights.get(&number).is_some_and(|flight| flight.answered)
    }

    /// A peer was removed by its operators: what it owned is others' now.
    pub(super) fn expelled(&mut self, peer: PeerName) {
        self.owned.remove(&peer);
    }

    /// The owner of an address, as far as anybody believes to be it.
    fn rival(&self, me: PeerName, charter: Charter, span: Span) -> Option<PeerName> {
        let others = self.owned.iter().filter(|(peer, (of, _))| **peer != me && *of == charter);
        let overlaps = |spans: &[Span]| spans.iter().any(|theirs| theirs.intersection(span).is_some());
        others.filter(|(_, (_, spans))| overlaps(spans)).map(|(peer, _)| *peer).next()
    }
}

impl World {
    /// I1 and I2 of one host, after its ports changed.
    pub(super) fn check_addresses(&mut self, host: HostId) {
        self.reference.active.retain(|_, (at, _)| *at != host);
        let kernel = &self.hosts[host].kernel;
        let wires = kernel.wires.values().filter(|wire| kernel.bridge.ports.contains_key(&wire.container));
        let used: Vec<(Ipv4Addr, usize)> = wires.map(|wire| (wire.address, wire.container)).collect();
        for (address, container) in used {
            if !self.containers[container].alive {
                continue;
            }
            if let Some((other, who)) = self.reference.active.insert(address, (host, container)) {
                let text =
                    format!("{address} is used by c{who} on host{other} and c{container} on host{host} (I1)");
                self.break_off(text);
            }
        }
    }

    /// I2, I3 and I10 of one host, when it is about to write its state.
    pub(super) fn check_state(&mut self, host: HostId) {
        let Some(process) = &self.hosts[host].process else { return };
        let state = process.node.state();
        if let Err(text) = self.judge_state(host, &state) {
            self.break_off(format!("host{host}: {text}"));
        }
    }

    fn judge_state(&mut self, host: HostId, state: &State) -> Result<(), String> {
        let Some(snapshot) = &state.ipam else { return Ok(()) };
        for (container, address) in self.promises(host) {
            let id = &self.containers[container].id;
            if !snapshot.leases().iter().any(|(held, whose)| *held == address && whose == id) {
                return Err(format!("{address} was promised to {id} and is not held any more (I10)"));
            }
        }
        let Some((charter, segments)) = snapshot.ring() else { return Ok(()) };
        let range = Span::from(self.hosts[host].launch.range);
        let ring = Ring::from_segments(range, segments).map_err(|error| format!("{error} (I3)"))?;
        let me = self.hosts[host].name;
        let spans = ring.owned_in(me, range);
        for span in &spans {
            if let Some(rival) = self.reference.rival(me, charter, *span) {
                return Err(format!("owns {span:?} and so does {rival} (I3)"));
            }
        }
        let owns = |address: Ipv4Addr| spans.iter().any(|span| span.contains(u32::from(address)));
        for (container, address) in self.promises(host) {
            if !owns(address) && !self.is_in_conflict(host, container) {
                return Err(format!(
                    "c{container} uses {address}, which is {:?}'s (I2)",
                    ring.owner_of(u32::from(address))
                ));
            }
        }
        self.reference.owned.insert(me, (charter, spans));
        Ok(())
    }

    fn is_in_conflict(&self, host: HostId, container: usize) -> bool {
        !self.hosts[host].kernel.bridge.ports.contains_key(&container)
    }

    /// What containers of a host were told.
    fn promises(&self, host: HostId) -> Vec<(usize, Ipv4Addr)> {
        let ours = self.containers.iter().enumerate().filter(|(_, container)| container.host == host);
        let live = ours.filter(|(_, container)| container.alive);
        live.filter_map(|(at, container)| Some((at, container.address?))).collect()
    }

    /// I10: what is answered is on disk.
    pub(super) fn check_promise(&mut self, host: HostId, container: usize, address: Ipv4Addr) {
        let id = &self.containers[container].id;
        let state = self.hosts[host].disk.read().map(State::decode);
        let held = match &state {
            Some(Ok(State { ipam: Some(snapshot), .. })) => {
                snapshot.leases().iter().any(|(held, whose)| *held == address && whose == id)
            }
            Some(Ok(State { ipam: None, .. }) | Err(_)) | None => false,
        };
        if !held {
            self.break_off(format!(
                "host{host} told {id} that {address} is its own before it was on disk (I10)"
            ));
        }
    }

    /// I5, at every datagram that leaves.
    pub(super) fn check_datagram(&mut self, from: HostId, bytes: &[u8]) {
        let Ok(header) = Header::parse(bytes) else {
            return self.break_off(format!("host{from} sends a datagram without a header"));
        };
        if self.hosts[from].launch.secret && header.suite == Suite::Clear {
            self.break_off(format!("host{from} sends in clear although there is a secret (I5)"));
        }
        let last = self.reference.counters.insert((from, header.index), header.counter);
        if last.is_some_and(|last| last >= header.counter) {
            self.break_off(format!(
                "host{from} goes from counter {last:?} to {} under one key (I5)",
                header.counter
            ));
        }
    }

    /// I5, at every VXLAN packet that leaves.
    pub(super) fn check_tunnel(&mut self, from: HostId, to: HostId, frame: &[u8]) {
        let launch = &self.hosts[from].launch;
        if launch.secret && !launch.trusted && !bridge::is_probe(frame) {
            self.break_off(format!(
                "host{from} sends host{to} a frame by VXLAN although there is a secret (I5)"
            ));
        }
    }

    /// I7, at every frame that comes into a bridge from another host. Two may bring it while a way changes, the kernel and
    /// the router; the router alone never brings it twice.
    pub(super) fn check_passage(&mut self, host: HostId, port: Port, frame: &[u8]) {
        let Some(talk) = Talk::read(frame) else { return };
        let (now, mut most) = (self.now, self.most_copies);
        let from = self.containers[talk.from].host;
        let former = talk.to.is_some() && self.is_bounded() && self.is_former(from, host);
        if !self.rearranging.is_zero() && (former || self.is_rearranged(from, host)) {
            most += 1;
        }
        let Some(flight) = self.reference.flights.get_mut(&talk.number) else { return };
        flight.came.push(Passage { host, question: talk.question, port, at: now });
        let here = |passage: &&Passage| passage.host == host && passage.question == talk.question;
        let times = flight.came.iter().filter(here).count();
        let by_sleeve =
            flight.came.iter().filter(here).filter(|passage| passage.port == Port::Sleeve).count();
        if times > 1 {
            self.reference.doubled += 1;
        }
        if times > most || by_sleeve > self.most_copies {
            let came: Vec<_> =
                flight.came.iter().filter(here).map(|passage| (passage.port, passage.at)).collect();
            let text = format!("frame {talk:?} came to host{host} again: {came:?} (I7)");
            self.break_off(text);
        }
    }

    /// Whether the way between two hosts was changed lately at either end. A new one is opened before the old one is
    /// closed, or frames would be lost, so what is flooded may come by both.
    fn is_rearranged(&self, from: HostId, to: HostId) -> bool {
        let at = |host: HostId, other| self.hosts[host].rearranged.get(&other);
        [at(from, to), at(to, from)].into_iter().flatten().any(|at| self.now < *at + self.rearranging)
    }

    /// Whether a kernel serves a former neighbour that others reach: what its VXLAN device has learned it sends there. A
    /// bridge that has forgotten the address, as it does of sleeve's port when a router starts, floods the same frame to
    /// the router too, which cannot see what the device knew.
    fn is_former(&self, from: HostId, to: HostId) -> bool {
        let remote = self.hosts[from].kernel.bridge.remotes.get(&to);
        remote.is_some_and(|remote| remote.accept == Accept::Frames && !remote.default)
    }

    /// A frame reached a container that it is for, or that listens; says whether it is a question not heard before.
    pub(super) fn received(&mut self, host: HostId, container: usize, talk: Talk) -> bool {
        if let Some(to) = talk.to.filter(|to| *to != container)
            && self.containers[to].alive
        {
            self.break_off(format!("frame {talk:?} for another came to c{container} on host{host} (I1)"));
        }
        let Some(flight) = self.reference.flights.get_mut(&talk.number) else { return false };
        if !talk.question && talk.to == Some(flight.talk.from) {
            flight.answered = true;
        }
        talk.question && !std::mem::replace(&mut flight.heard, talk.to.is_some())
    }

    /// I6, at every step.
    pub(super) fn check_bounds(&mut self) {
        if self.agenda.len() > WAITING * self.hosts.len() {
            self.break_off(format!("{} events wait (I6)", self.agenda.len()));
        }
        if self.streams.len() > self.hosts.len() * self.hosts.len() * 4 {
            self.break_off(format!("{} connections stand (I6)", self.streams.len()));
        }
    }
}
