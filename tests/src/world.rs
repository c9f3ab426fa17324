//! A whole cluster in one process, in virtual time: hosts with kernels, disks and clocks, and the paths between.
//!
//! Both halves of every router are the types that ship. Everything around them is simulated: TCP and UDP, bridge
//! and VXLAN with their tables and the source filter, disk, clock, containers that come, talk and go. One seed
//! decides everything, so a seed that fails fails again, step by step.
//!
//! ```text
//!  workload ──calls──► Node ──outputs──► shell ──► network, disk, kernel ──► other hosts
//!  faults ──► paths, processes, disks      │            │
//!  reference ◄── after every step ─────────┴────────────┘        assertions ◄── after the faults
//! ```

mod agenda;
mod assertions;
mod bridge;
mod clock;
mod disk;
mod faults;
mod host;
mod kernel;
mod network;
mod reference;
mod scenario;
mod shell;
mod stream;
mod tasks;
mod workload;

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use rand::rngs::StdRng;

use agenda::{Agenda, Event, HostId, Life};
use bridge::Exit;
use host::Host;
use network::Network;
use reference::Reference;
use stream::Streams;
use workload::Container;

pub use scenario::{Failure, Outcome, Shape, run};

/// How many lines of what happened a failure shows.
const JOURNAL: usize = 60;

/// The world.
struct World {
    now: Duration,
    rng: StdRng,
    agenda: Agenda,
    hosts: Vec<Host>,
    network: Network,
    streams: Streams,
    containers: Vec<Container>,
    reference: Reference,
    /// Paths that are cut for good.
    lasting: BTreeSet<(HostId, HostId)>,
    /// Paths on which TCP passes and UDP never does.
    dry: BTreeSet<(HostId, HostId)>,
    /// When the faults end.
    calm_at: Duration,
    /// The longest time between two faults.
    fault_gap: Duration,
    may_retire: bool,
    /// Hosts that are dead for good and wait for a successor.
    retired: Vec<HostId>,
    generation: u64,
    chatting: bool,
    talks: u64,
    /// How often one frame may come to one host.
    most_copies: usize,
    /// Once more so long after the way between two hosts was changed (`Host::rearranged`).
    rearranging: Duration,
    /// Pieces of streams, datagrams and VXLAN packets that arrived.
    messages: u64,
    steps: u64,
    /// What is broken, if something is.
    broken: Option<String>,
    journal: VecDeque<String>,
    verbose: bool,
    /// Datagrams of one drain, kept for its memory.
    sent: Vec<(SocketAddr, Vec<u8>)>,
    /// Where one frame leaves a bridge, kept for its memory.
    exits: Vec<Exit>,
}

impl World {
    /// Something that must never happen has happened; the first is what counts.
    fn break_off(&mut self, what: String) {
        if self.broken.is_none() {
            self.broken = Some(what);
        }
    }

    /// Writes down what happens, for whoever has to understand a failure.
    fn note(&mut self, what: impl FnOnce() -> String) {
        if self.journal.len() == JOURNAL {
            self.journal.pop_front();
        }
        let line = format!("{:>10.6} {}", self.now.as_secs_f64(), what());
        if self.verbose {
            tracing_line(&line);
        }
        self.journal.push_back(line);
    }

    /// Lets time pass.
    fn run_for(&mut self, time: Duration) -> Result<(), String> {
        let until = self.now + time;
        while let Some((at, event)) = self.agenda.next(until) {
            self.now = self.now.max(at);
            self.steps += 1;
            self.happen(event);
            if self.steps.is_multiple_of(1024) {
                self.check_bounds();
            }
            if let Some(broken) = self.broken.take() {
                return Err(broken);
            }
        }
        self.now = until;
        Ok(())
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Arrive(wire) => self.arrive(wire),
            Event::Deliver(wire, end) => self.deliver(wire, end),
            Event::Datagram { to, from, bytes } => self.datagram(to, from, bytes),
            Event::Vxlan { to, from, frame, again } => self.vxlan(to, from, &frame, again),
            Event::Sends { host, container, frame } => self.sends(host, container, &frame),
            Event::Start(host) => self.start(host),
            Event::Errand(errand) => self.errand(errand),
            Event::Strike => self.strike(),
            Event::Undo(undo) => self.end_of(undo),
            Event::Writable(wire, end) => self.writable(wire, end),
            Event::WakeNode(life)
            | Event::WakeData(life)
            | Event::Command(life, _)
            | Event::Report(life, _)
            | Event::Transport(life, _)
            | Event::Redial { life, .. }
            | Event::Captured(life, _)
            | Event::Probe(life, _)
            | Event::Saved(life)
            | Event::Worked(life, _)
            | Event::Told(life, _)
            | Event::Links(life, _)
            | Event::Look(life) => self.happen_to(life, event),
        }
    }

    /// What happens to one process, if it still is the one it was meant for and runs.
    fn happen_to(&mut self, life: Life, event: Event) {
        if !self.hosts[life.host].is_live(life) {
            return;
        }
        if let Event::Captured(life, frame) = event {
            return self.captured(life, frame);
        }
        let Some(event) = self.defer_if_stopped(life.host, event) else { return };
        match event {
            Event::WakeNode(life) => self.wake_node(life),
            Event::WakeData(life) => self.wake_data(life),
            Event::Command(life, command) => self.command(life, command),
            Event::Report(life, report) => self.report(life, report),
            Event::Transport(life, input) => self.transport(life, input),
            Event::Redial { life, connection, to, waits } => self.connect(life, connection, to, waits),
            Event::Probe(life, frame) => self.probed(life, &frame),
            Event::Saved(life) => self.saved(life),
            Event::Worked(life, task) => self.worked(life, task),
            Event::Told(life, report) => self.told(life, report),
            Event::Links(life, links) => self.linked(life, &links),
            Event::Look(life) => self.look(life),
            Event::Arrive(_)
            | Event::Deliver(..)
            | Event::Writable(..)
            | Event::Datagram { .. }
            | Event::Vxlan { .. }
            | Event::Sends { .. }
            | Event::Start(_)
            | Event::Errand(_)
            | Event::Captured(..)
            | Event::Strike
            | Event::Undo(_) => {}
        }
    }
}

#[expect(clippy::print_stderr, reason = "asked for, to follow one seed")]
fn tracing_line(line: &str) {
    eprintln!("{line}");
}
