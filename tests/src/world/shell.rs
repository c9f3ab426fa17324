//! What the shell of a router does, in the simulated world: carries outputs out in order, and reports.
//!
//! The contract is that of `daemon.rs`, `io/kernel.rs` and `io/dataplane.rs`: outputs in order, one kernel job
//! after the other, two ordered queues between the halves.

use std::collections::BTreeSet;
use std::time::Duration;

use rand::RngExt as _;
use weft_gossip::{Input, PeerName};
use weft_router::dataplane::{self, Command};
use weft_router::node::{KernelJob, KernelReport, Output};

use super::World;
use super::agenda::{Event, HostId, Life};
use super::bridge::{self, Exit, Port};
use super::host::{Host, address, host_at};
use super::kernel::Task;

/// Between the two halves, through a queue and a wake-up.
pub(super) const QUEUE: Duration = Duration::from_micros(20);
/// From the bridge to the capture.
const CAPTURE: Duration = Duration::from_micros(10);
/// The kernel is looked at without a notification.
const QUIET: Duration = Duration::from_secs(30);
/// Datagrams and frames that wait for a process that is stopped; more are lost.
const BACKLOG: usize = 256;
/// How often deadlines may be due at one and the same moment.
const WAKES: u32 = 40;
/// The UDP and IP headers of a datagram.
const HEADERS: usize = 28;
/// What VXLAN adds to a frame, less the frame's own Ethernet header.
const VXLAN_HEADERS: usize = 36;

impl World {
    /// Puts an event off until a stopped process goes on; none when it was put off.
    pub(super) fn defer_if_stopped(&mut self, host: HostId, event: Event) -> Option<Event> {
        let until = self.hosts[host].stopped;
        if until <= self.now {
            return Some(event);
        }
        self.agenda.put(until, event);
        None
    }

    /// Starts a host's router, or tries to.
    pub(super) fn start(&mut self, host: HostId) {
        if self.hosts[host].process.is_some() || !self.hosts[host].powered {
            return;
        }
        let (seed, moment) = (self.rng.random(), self.now);
        let Ok(state) = self.hosts[host].remember() else {
            return self.agenda.put(self.now + Duration::from_secs(1), Event::Start(host));
        };
        let before = self.hosts[host].incarnation;
        if state.incarnation <= before {
            self.break_off(format!("host{host} reuses incarnation {} (I4)", state.incarnation));
        }
        self.hosts[host].next_life();
        self.hosts[host].boot(state, seed, moment);
        self.note(|| format!("host{host} starts"));
        self.first_convergence(host);
        self.drain_node(host);
        self.drain_data(host);
        self.forget_old_wish(host);
        let life = self.hosts[host].life(host);
        self.agenda.put(self.now + QUIET, Event::Look(life));
    }

    /// Without a wish of this life, what the last one had in the kernel goes.
    fn forget_old_wish(&mut self, host: HostId) {
        let stale = !self.hosts[host].kernel.bridge.remotes.is_empty();
        let Some(process) = &mut self.hosts[host].process else { return };
        let wishes = |task: &Task| matches!(task, Task::Job(KernelJob::Fastpath(_)));
        if stale && !process.worker.jobs.iter().any(wishes) {
            process.worker.jobs.push_back(Task::Job(KernelJob::Fastpath(process.worker.wish.clone())));
            self.run_jobs(host);
        }
    }

    /// What the shell does before the loop begins.
    fn first_convergence(&mut self, host: HostId) {
        let state = &mut self.hosts[host];
        let now = state.clock.at(self.now);
        let Some(process) = &mut state.process else { return };
        let ready = if state.launch.vxlan { Ok(()) } else { Err("no VXLAN".to_owned()) };
        process.node.handle_kernel(KernelReport::Fastpath(ready), now);
        let desired = process.node.local_wish().desired;
        state.kernel.bridge.flush_sleeve();
        let served = process.node.kernel_wish().remotes.values();
        let served = served.filter_map(|remote| host_at(remote.address)).collect();
        state.kernel.bridge.flush_vxlan(&served);
        state.kernel.bridge.has_vxlan = state.launch.vxlan && state.launch.fastpath;
        let converged = state.kernel.converge(&desired);
        process.worker.desired = desired;
        process.node.handle_links(&state.kernel.standing(&state.bridge), now);
        if let Err(error) = converged {
            self.break_off(format!("host{host} cannot converge: {error}"));
        }
    }

    /// The process ends at once. Its kernel resets the connections; without power nobody does.
    pub(super) fn stop(&mut self, host: HostId, loud: bool) {
        let lucky = self.rng.random();
        let half = self.rng.random();
        self.close_all(host, loud);
        let state = &mut self.hosts[host];
        let Some(process) = state.process.take() else { return };
        state.next_life();
        state.stopped = Duration::ZERO;
        state.disk.crash(lucky);
        self.note(|| format!("host{host} ends"));
        if let (true, Some(Task::Job(KernelJob::Attach(call, link, _)))) =
            (process.worker.busy, process.worker.jobs.front())
            && let Some(asked) = process.calls.get(call)
        {
            // The attachment under way got this far.
            let link = link.clone();
            let _ = self.wire(host, asked.container, &link, half); // nobody is left to hear of it
        }
        self.workload_lost(process.calls);
        if self.hosts[host].powered {
            let pause = Duration::from_millis(self.rng.random_range(20..5_000));
            self.agenda.put(self.now + pause, Event::Start(host));
        }
    }

    /// Carries out what the control half wants.
    pub(super) fn drain_node(&mut self, host: HostId) {
        let life = self.hosts[host].life(host);
        loop {
            let Some(process) = &mut self.hosts[host].process else { return };
            let Some(output) = process.node.poll_output() else { break };
            if self.is_doomed(host) {
                return self.stop(host, true);
            }
            self.carry_out(life, output);
        }
        self.run_jobs(host);
        self.plan_wake(host);
    }

    /// Counts an output of a process that is to die at some output.
    fn is_doomed(&mut self, host: HostId) -> bool {
        let Some(left) = &mut self.hosts[host].doom else { return false };
        *left = left.saturating_sub(1);
        *left == 0
    }

    fn carry_out(&mut self, life: Life, output: Output) {
        let host = life.host;
        match output {
            Output::Transport(output) => self.network_output(life, output),
            Output::Data(command) => {
                self.see_command(host, &command);
                self.agenda.put(self.now + QUEUE, Event::Command(life, command));
            }
            Output::Persist => self.persist(life),
            Output::Kernel(job) => {
                if let Some(process) = &mut self.hosts[host].process {
                    process.worker.jobs.push_back(Task::Job(job));
                }
            }
            Output::Probe { mac, bytes } => {
                let frame = bridge::probe(mac, self.hosts[host].kernel.bridge.device, &bytes);
                self.bridge_in(host, Port::Host, &frame);
            }
            Output::Reply(call, result) => self.answered(host, call, result),
            Output::Inspect(..) | Output::Leave(_) => {
                self.break_off(format!("host{host} was never asked for this: {output:?}"));
            }
        }
    }

    /// Notes to whom the way is another now: a neighbour found or lost, or a peer that is reached, or heard, through another
    /// one.
    fn see_command(&mut self, host: HostId, command: &Command) {
        let peers: Vec<PeerName> = match command {
            Command::AddLink { peer, .. } | Command::RemoveLink { peer } => vec![*peer],
            Command::Table(table) => {
                let way =
                    |peer: &PeerName| (table.next_hop.get(peer).copied(), table.upstream.get(peer).copied());
                let ways = table.next_hop.keys().map(|peer| (*peer, way(peer))).collect();
                let before = std::mem::replace(&mut self.hosts[host].ways, ways);
                let ways = &self.hosts[host].ways;
                let peers: BTreeSet<PeerName> = before.keys().chain(ways.keys()).copied().collect();
                peers.into_iter().filter(|peer| before.get(peer) != ways.get(peer)).collect()
            }
            Command::Announced { .. }
            | Command::LocalMacs(_)
            | Command::Forget { .. }
            | Command::Prove { .. }
            | Command::Doubt { .. }
            | Command::Behind { .. }
            | Command::Placed { .. }
            | Command::Counters => return,
        };
        for peer in peers {
            if let Some(other) = self.hosts.iter().position(|host| host.name == peer) {
                self.hosts[host].rearranged.insert(other, self.now);
            }
        }
    }

    fn network_output(&mut self, life: Life, output: weft_gossip::Output) {
        use weft_gossip::Output as Wants;
        match output {
            Wants::Dial { connection, target } => self.dial(life, connection, &target),
            Wants::Send { connection, bytes } => self.send_bytes(life.host, connection, bytes),
            Wants::Close { connection } => {
                self.close_connection(life.host, connection, "closed by the far side");
            }
            Wants::Established { .. }
            | Wants::Lost { .. }
            | Wants::Told { .. }
            | Wants::Deliver { .. }
            | Wants::Routes(_)
            | Wants::PeersChanged
            | Wants::Refused { .. } => self.break_off("the node let out what is its own".to_owned()),
        }
    }

    fn persist(&mut self, life: Life) {
        let host = life.host;
        self.check_state(host);
        let state = &mut self.hosts[host];
        let now = state.clock.at(self.now);
        let Some(process) = &mut state.process else { return };
        if std::mem::replace(&mut process.saving, true) {
            return self.break_off(format!("host{host} begins a write during a write"));
        }
        let begun = state.disk.write(process.node.state().encode());
        if begun.is_err() {
            self.journal.push_back(format!("{:>10.6} host{host} cannot write", self.now.as_secs_f64()));
        }
        if begun.is_ok() && !state.disk.slow.is_zero() {
            return self.agenda.put(self.now + state.disk.slow, Event::Saved(life));
        }
        process.saving = false;
        process.node.handle_persisted(begun, now);
    }

    pub(super) fn saved(&mut self, life: Life) {
        let state = &mut self.hosts[life.host];
        let now = state.clock.at(self.now);
        let result = state.disk.finish();
        if result.is_err() {
            self.journal.push_back(format!(
                "{:>10.6} host{} cannot write",
                self.now.as_secs_f64(),
                life.host
            ));
        }
        if let Some(process) = &mut state.process {
            process.saving = false;
            process.node.handle_persisted(result, now);
        }
        self.drain_node(life.host);
    }

    pub(super) fn transport(&mut self, life: Life, input: Input) {
        if !self.hosts[life.host].is_live(life) {
            return;
        }
        let now = self.hosts[life.host].clock.at(self.now);
        if let Some(process) = &mut self.hosts[life.host].process {
            process.node.handle_transport(input, now);
        }
        self.drain_node(life.host);
    }

    pub(super) fn wake_node(&mut self, life: Life) {
        let now = self.hosts[life.host].clock.at(self.now);
        let Some(process) = &mut self.hosts[life.host].process else { return };
        if process.node_wake.is_none_or(|due| due > self.now) {
            return;
        }
        process.node_wake = None;
        if process.node.poll_timeout().is_some_and(|due| due <= now) {
            process.node.handle_timeout(now);
        }
        self.check_wakes(life.host);
        self.drain_node(life.host);
    }

    pub(super) fn wake_data(&mut self, life: Life) {
        let now = self.hosts[life.host].clock.at(self.now);
        let Some(process) = &mut self.hosts[life.host].process else { return };
        if process.data_wake.is_none_or(|due| due > self.now) {
            return;
        }
        process.data_wake = None;
        if process.data.poll_timeout().is_some_and(|due| due <= now) {
            process.data.handle_timeout(now);
        }
        self.check_wakes(life.host);
        self.drain_data(life.host);
    }

    /// A deadline that stays due would keep a processor busy for ever (I6).
    fn check_wakes(&mut self, host: HostId) {
        let now = self.now;
        let Some(process) = &mut self.hosts[host].process else { return };
        let (last, times) = process.woken;
        process.woken = if last == now { (now, times + 1) } else { (now, 0) };
        if process.woken.1 > WAKES {
            self.break_off(format!("host{host}: a deadline stays due (I6)"));
        }
    }

    fn plan_wake(&mut self, host: HostId) {
        let life = self.hosts[host].life(host);
        let Host { process: Some(process), clock, .. } = &mut self.hosts[host] else { return };
        if let Some(due) = process.node.poll_timeout() {
            let at = clock.moment(due).max(self.now);
            if process.node_wake.is_none_or(|planned| at < planned) {
                process.node_wake = Some(at);
                self.agenda.put(at, Event::WakeNode(life));
            }
        }
    }

    /// The data half is told something.
    pub(super) fn command(&mut self, life: Life, command: Command) {
        let now = self.hosts[life.host].clock.at(self.now);
        if let Some(process) = &mut self.hosts[life.host].process {
            process.data.handle_command(command, now);
        }
        self.drain_data(life.host);
    }

    /// The data half reports; what a move to VXLAN waits for goes to the kernel task too.
    pub(super) fn report(&mut self, life: Life, event: dataplane::Event) {
        let now = self.hosts[life.host].clock.at(self.now);
        let Some(process) = &mut self.hosts[life.host].process else { return };
        if let dataplane::Event::Behind { peer, macs } = &event
            && let Some(at) = process.worker.lifts.iter().position(|(waits, ..)| waits == peer)
        {
            let (peer, job, behind) = process.worker.lifts.remove(at);
            process.worker.jobs.push_front(Task::Lift {
                peer,
                job,
                behind,
                macs: macs.iter().copied().collect(),
            });
            process.worker.busy = false;
        }
        process.node.handle_data(event, now);
        self.drain_node(life.host);
    }

    pub(super) fn drain_data(&mut self, host: HostId) {
        let life = self.hosts[host].life(host);
        let (mut sent, mut injected) = (std::mem::take(&mut self.sent), Vec::new());
        let Some(process) = &mut self.hosts[host].process else { return };
        while let Some(output) = process.data.poll_output() {
            match output {
                dataplane::Output::Transmit { to, segment, bytes } => {
                    sent.extend(bytes.chunks(segment).map(|datagram| (to, datagram.to_vec())));
                }
                dataplane::Output::Inject { frame, .. } => injected.push(frame.to_vec()),
                dataplane::Output::Event(event) => {
                    self.agenda.put(self.now + QUEUE, Event::Report(life, event));
                }
            }
        }
        for (to, datagram) in sent.drain(..) {
            self.transmit(host, to, datagram);
        }
        self.sent = sent;
        for frame in injected {
            self.check_passage(host, Port::Sleeve, &frame);
            self.bridge_in(host, Port::Sleeve, &frame);
        }
        let Host { process: Some(process), clock, .. } = &mut self.hosts[host] else { return };
        if let Some(due) = process.data.poll_timeout() {
            let at = clock.moment(due).max(self.now);
            if process.data_wake.is_none_or(|planned| at < planned) {
                process.data_wake = Some(at);
                self.agenda.put(at, Event::WakeData(life));
            }
        }
    }

    /// A datagram of the sleeve leaves a host.
    fn transmit(&mut self, from: HostId, to: std::net::SocketAddr, bytes: Vec<u8>) {
        self.check_datagram(from, &bytes);
        let size = bytes.len() + HEADERS;
        if size > super::network::INTERFACE {
            let now = self.hosts[from].clock.at(self.now);
            if let Some(process) = &mut self.hosts[from].process {
                process.data.handle_too_large(to, bytes.len(), now);
            }
            return;
        }
        let Some(host) = host_at(to.ip()).filter(|host| *host < self.hosts.len()) else { return };
        let way = *self.network.look(from, host);
        if way.no_sleeve > 0 {
            return;
        }
        let from = address(from);
        let [first, second] = way.datagram(size, &mut self.rng);
        if let Some(lag) = second {
            self.agenda.put(self.now + lag, Event::Datagram { to: host, from, bytes: bytes.clone() });
        }
        if let Some(lag) = first {
            self.agenda.put(self.now + lag, Event::Datagram { to: host, from, bytes });
        }
    }

    pub(super) fn datagram(&mut self, to: HostId, from: std::net::SocketAddr, mut bytes: Vec<u8>) {
        if !self.hosts[to].powered || self.hosts[to].process.is_none() {
            return;
        }
        if self.hosts[to].stopped > self.now {
            return self.wait_for(to, Event::Datagram { to, from, bytes });
        }
        self.messages += 1;
        let now = self.hosts[to].clock.at(self.now);
        if let Some(process) = &mut self.hosts[to].process {
            process.backlog = 0;
            process.data.handle_datagram(from, &mut bytes, now);
        }
        self.drain_data(to);
    }

    /// A socket's buffer holds what its process does not read, up to a point.
    fn wait_for(&mut self, host: HostId, event: Event) {
        let until = self.hosts[host].stopped;
        if let Some(process) = &mut self.hosts[host].process
            && process.backlog < BACKLOG
        {
            process.backlog += 1;
            self.agenda.put(until, event);
        }
    }

    pub(super) fn captured(&mut self, life: Life, frame: Vec<u8>) {
        if self.hosts[life.host].stopped > self.now {
            return self.wait_for(life.host, Event::Captured(life, frame));
        }
        let now = self.hosts[life.host].clock.at(self.now);
        if let Some(process) = &mut self.hosts[life.host].process {
            process.data.handle_captured(&frame, None, now);
        }
        self.drain_data(life.host);
    }

    pub(super) fn probed(&mut self, life: Life, frame: &[u8]) {
        let now = self.hosts[life.host].clock.at(self.now);
        if let Some(process) = &mut self.hosts[life.host].process {
            process.node.handle_probe(frame.get(14..).unwrap_or_default(), now);
        }
        self.drain_node(life.host);
    }

    /// A frame comes into a host's bridge.
    pub(super) fn bridge_in(&mut self, host: HostId, port: Port, frame: &[u8]) {
        let life = self.hosts[host].life(host);
        let mut exits = std::mem::take(&mut self.exits);
        self.hosts[host].kernel.bridge.forward(port, frame, self.now, &mut exits);
        for exit in exits.drain(..) {
            match exit {
                Exit::Container(container) => self.receive(host, container, frame),
                Exit::Capture => {
                    if self.hosts[host].process.is_some() {
                        self.agenda.put(self.now + CAPTURE, Event::Captured(life, frame.to_vec()));
                    }
                }
                Exit::Remote(to) => self.tunnel(host, to, frame),
                Exit::Host => {
                    if bridge::is_probe(frame) && self.hosts[host].process.is_some() {
                        self.agenda.put(self.now + CAPTURE, Event::Probe(life, frame.to_vec()));
                    }
                }
            }
        }
        self.exits = exits;
    }

    fn tunnel(&mut self, from: HostId, to: HostId, frame: &[u8]) {
        self.check_tunnel(from, to, frame);
        let way = *self.network.look(from, to);
        if way.no_vxlan > 0 || to >= self.hosts.len() {
            return;
        }
        let copies = way.datagram(frame.len() + VXLAN_HEADERS, &mut self.rng);
        for (at, lag) in copies.into_iter().flatten().enumerate() {
            let event = Event::Vxlan { to, from, frame: frame.to_vec(), again: at > 0 };
            self.agenda.put(self.now + lag, event);
        }
    }

    pub(super) fn vxlan(&mut self, to: HostId, from: HostId, frame: &[u8], again: bool) {
        if self.hosts[to].powered && self.hosts[to].kernel.bridge.admit(from, frame, self.now) {
            self.messages += 1;
            if !again {
                self.check_passage(to, Port::Vxlan, frame);
            }
            self.bridge_in(to, Port::Vxlan, frame);
        }
    }
}
