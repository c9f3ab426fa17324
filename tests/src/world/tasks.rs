//! The kernel task of a simulated router: one job after the other, each with its answer, and a look at what stands.
//!
//! | job | what it does here | answer |
//! |---|---|---|
//! | converge | fastpath's own plan, run on the picture of the kernel | converged, then what links stand |
//! | attach, detach, port | the picture, and the bridge's ports | attached |
//! | fastpath | the device's permanent entries and the filter are these now | applied |
//! | move to sleeve | bridge entries replaced, then device entries deleted; the data half is told | moved |
//! | move to VXLAN | the data half is asked what is behind the peer; device entries written, bridge entries replaced | moved |
//! | fence | nothing | fenced |

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use weft_fastpath::{ContainerLink, StandingLink};
use weft_gossip::PeerName;
use weft_router::dataplane::Command;
use weft_router::node::attachments::LinkKey;
use weft_router::node::{KernelJob, KernelReport};

use super::World;
use super::agenda::{Event, HostId, Life};
use super::bridge::Remotes;
use super::host::{Host, host_at};
use super::kernel::{Task, Wire, is_lift};
use super::shell::QUEUE;

/// One kernel job.
const KERNEL: Duration = Duration::from_micros(300);

impl World {
    /// Lets the kernel task begin its next job, if it is idle.
    pub(super) fn run_jobs(&mut self, host: HostId) {
        let life = self.hosts[host].life(host);
        let lag = KERNEL + self.hosts[host].kernel_lag;
        let Some(process) = &mut self.hosts[host].process else { return };
        let worker = &mut process.worker;
        if worker.busy || worker.jobs.is_empty() {
            return;
        }
        worker.busy = true;
        if let Some(task) = worker.jobs.front() {
            let task = copy(task);
            self.agenda.put(self.now + lag, Event::Worked(life, task));
        }
    }

    /// A job is done.
    pub(super) fn worked(&mut self, life: Life, task: Task) {
        let host = life.host;
        if let Some(process) = &mut self.hosts[host].process {
            process.worker.jobs.pop_front();
            process.worker.busy = false;
        }
        match task {
            Task::Job(job) => self.job(life, job),
            Task::Lift { peer, job, behind, macs } => {
                let now = self.now;
                self.note(|| format!("host{host} moves to VXLAN what is behind {peer}: {macs:?}"));
                self.hosts[host].kernel.bridge.move_to_vxlan(behind, macs, now);
                self.tell(life, KernelReport::Moved(peer, job));
            }
        }
        self.run_jobs(host);
    }

    fn tell(&mut self, life: Life, report: KernelReport) {
        self.agenda.put(self.now + QUEUE, Event::Told(life, report));
    }

    fn job(&mut self, life: Life, job: KernelJob) {
        let host = life.host;
        let bridge = self.hosts[host].bridge.clone();
        match job {
            KernelJob::Converge(wish) => {
                if let Some(process) = &mut self.hosts[host].process {
                    process.worker.desired = wish.desired;
                }
                self.look(life);
            }
            KernelJob::Attach(call, link, _) => {
                let asked =
                    self.hosts[host].process.as_ref().and_then(|process| process.calls.get(&call).cloned());
                let result = match asked {
                    Some(asked) => self.wire(host, asked.container, &link, true),
                    None => Err("the caller is gone".to_owned()),
                };
                self.tell(life, KernelReport::Attached(call, result));
                self.plan_look(host);
            }
            KernelJob::Detach(key) => {
                self.note(|| format!("host{host} unwires {}", key.id));
                self.hosts[host].kernel.detach(&bridge, &key);
                self.plan_look(host);
            }
            KernelJob::SetPort(key, up) => {
                self.hosts[host].kernel.set_port(&bridge, &key, up);
                self.plan_look(host);
            }
            KernelJob::Fence(call) => self.tell(life, KernelReport::Fenced(call)),
            KernelJob::Fastpath(wish) => {
                let remotes =
                    wish.remotes.values().filter_map(|remote| Some((host_at(remote.address)?, *remote)));
                let before =
                    std::mem::replace(&mut self.hosts[host].kernel.bridge.remotes, remotes.collect());
                self.see_rearranged(host, &before);
                let held = self.hosts[host].kernel.bridge.describe_remotes();
                self.note(|| format!("host{host} holds {held}"));
                if let Some(process) = &mut self.hosts[host].process {
                    process.worker.wish = wish.clone();
                }
                self.tell(life, KernelReport::Applied(wish.serial));
            }
            KernelJob::MoveMacs { peer, address, job, to } => {
                self.move_macs(life, peer, address, job, is_lift(to))
            }
        }
    }

    fn see_rearranged(&mut self, host: HostId, before: &Remotes) {
        let Host { rearranged, kernel, .. } = &mut self.hosts[host];
        let after = &kernel.bridge.remotes;
        let touched = before.keys().chain(after.keys()).filter(|other| before.get(other) != after.get(other));
        rearranged.extend(touched.map(|other| (*other, self.now)));
    }

    fn move_macs(&mut self, life: Life, peer: PeerName, address: IpAddr, job: u64, lift: bool) {
        let now = self.now;
        let Some(behind) = host_at(address) else { return self.tell(life, KernelReport::Moved(peer, job)) };
        let state = &mut self.hosts[life.host];
        if lift {
            if let Some(process) = &mut state.process {
                process.worker.lifts.push((peer, job, behind));
                process.worker.busy = true;
            }
            return self.agenda.put(self.now + QUEUE, Event::Command(life, Command::Behind { peer }));
        }
        let macs: BTreeSet<_> = state.kernel.bridge.move_to_sleeve(behind, now).into_iter().collect();
        let line = format!("host{} moves to sleeve what is behind host{behind}: {macs:?}", life.host);
        self.note(|| line);
        self.agenda.put(self.now + QUEUE, Event::Command(life, Command::Placed { peer, macs }));
        self.tell(life, KernelReport::Moved(peer, job));
    }

    /// Makes a container link for a container that still lives.
    pub(super) fn wire(
        &mut self,
        host: HostId,
        container: usize,
        link: &ContainerLink,
        whole: bool,
    ) -> Result<(), String> {
        if !self.containers[container].alive {
            return Err("the namespace is gone".to_owned());
        }
        let Some(IpAddr::V4(address)) = link.addresses.first().map(|net| net.addr()) else {
            return Err("no address".to_owned());
        };
        let wire = Wire { container, mac: link.mac, address, carrier: whole };
        let key = LinkKey { id: link.id.clone(), ifname: link.ifname.clone() };
        let bridge = self.hosts[host].bridge.clone();
        self.note(|| format!("host{host} wires c{container} with {address}, whole: {whole}"));
        self.hosts[host].kernel.attach(&bridge, &key, wire, link.mtu)?;
        self.check_addresses(host);
        Ok(())
    }

    /// A notification came: the kernel task will look.
    pub(super) fn plan_look(&mut self, host: HostId) {
        let life = self.hosts[host].life(host);
        if let Some(process) = &mut self.hosts[host].process
            && !std::mem::replace(&mut process.worker.look_planned, true)
        {
            self.agenda.put(self.now + KERNEL, Event::Look(life));
        }
    }

    /// Brings the kernel to the wish, and tells what stands.
    pub(super) fn look(&mut self, life: Life) {
        let state = &mut self.hosts[life.host];
        let Some(process) = &mut state.process else { return };
        process.worker.look_planned = false;
        let result = state.kernel.converge(&process.worker.desired).map(|_| ());
        if let Err(error) = &result {
            let text = format!("host{} cannot converge: {error}", life.host);
            return self.break_off(text);
        }
        let links = state.kernel.standing(&state.bridge);
        self.tell(life, KernelReport::Converged(result));
        self.agenda.put(self.now + QUEUE, Event::Links(life, links));
        self.check_addresses(life.host);
    }

    pub(super) fn linked(&mut self, life: Life, links: &[StandingLink]) {
        let now = self.hosts[life.host].clock.at(self.now);
        if let Some(process) = &mut self.hosts[life.host].process {
            process.node.handle_links(links, now);
        }
        self.drain_node(life.host);
    }

    pub(super) fn told(&mut self, life: Life, report: KernelReport) {
        let now = self.hosts[life.host].clock.at(self.now);
        if let Some(process) = &mut self.hosts[life.host].process {
            process.node.handle_kernel(report, now);
        }
        self.drain_node(life.host);
    }
}

fn copy(task: &Task) -> Task {
    match task {
        Task::Job(job) => Task::Job(job.clone()),
        Task::Lift { peer, job, behind, macs } => {
            Task::Lift { peer: *peer, job: *job, behind: *behind, macs: macs.clone() }
        }
    }
}
