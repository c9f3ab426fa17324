//! What goes wrong: paths, disks, kernels, processes and whole hosts, at random times, for random times.
//!
//! Each fault knows its end. When the calm comes, whatever still holds is undone at once, but for the cuts that
//! belong to the shape of the world.

use std::time::Duration;

use rand::RngExt as _;
use rand::seq::SliceRandom as _;
use weft_router::overlay::Goodbye;

use super::World;
use super::agenda::{Event, HostId};
use super::host::Host;
use super::network::INTERFACE;
use super::workload::Errand;

/// The end of a fault.
#[derive(Debug)]
pub(super) enum Undo {
    /// A path is cut: the first half of a swizzle.
    Cut(HostId, HostId),
    /// A path is open again.
    Heal(HostId, HostId),
    /// Sleeve gets through again.
    Sleeve(HostId, HostId),
    /// VXLAN gets through again.
    Vxlan(HostId, HostId),
    /// A path is as good as it was.
    Quality(HostId, HostId),
    /// The disk has room, and time.
    Disk(HostId),
    /// The kernel has time.
    Kernel(HostId),
    /// The host has power again.
    Power(HostId),
}

/// The kinds of faults, with how often each is drawn.
#[derive(Clone, Copy, Debug)]
enum Kind {
    CutPair,
    CutOneWay,
    Partition,
    Swizzle,
    BadPath,
    SlowPath,
    SmallPath,
    NoVxlan,
    NoSleeve,
    Crash,
    Doom,
    Farewell,
    Reboot,
    Replace,
    DiskFull,
    DiskSlow,
    KernelSlow,
    Stop,
    Create,
    Remove,
}

const KINDS: &[(Kind, u32)] = &[
    (Kind::CutPair, 6),
    (Kind::CutOneWay, 6),
    (Kind::Partition, 4),
    (Kind::Swizzle, 2),
    (Kind::BadPath, 6),
    (Kind::SlowPath, 4),
    (Kind::SmallPath, 3),
    (Kind::NoVxlan, 4),
    (Kind::NoSleeve, 4),
    (Kind::Crash, 6),
    (Kind::Doom, 6),
    (Kind::Farewell, 3),
    (Kind::Reboot, 3),
    (Kind::Replace, 1),
    (Kind::DiskFull, 3),
    (Kind::DiskSlow, 4),
    (Kind::KernelSlow, 3),
    (Kind::Stop, 4),
    (Kind::Create, 12),
    (Kind::Remove, 8),
];

impl World {
    fn any_host(&mut self) -> HostId {
        self.rng.random_range(0..self.hosts.len())
    }

    fn any_pair(&mut self) -> (HostId, HostId) {
        let one = self.any_host();
        let step = self.rng.random_range(1..self.hosts.len());
        (one, (one + step) % self.hosts.len())
    }

    fn a_while(&mut self) -> Duration {
        let most = if self.rng.random_ratio(1, 6) { 25_000 } else { 5_000 };
        Duration::from_millis(self.rng.random_range(50..most))
    }

    /// The next fault, and when the one after it comes.
    pub(super) fn strike(&mut self) {
        if self.now >= self.calm_at {
            return;
        }
        let all: u32 = KINDS.iter().map(|(_, weight)| weight).sum();
        let mut drawn = self.rng.random_range(0..all);
        let kind = KINDS.iter().find(|(_, weight)| {
            let hit = drawn < *weight;
            drawn = drawn.wrapping_sub(*weight);
            hit
        });
        if let Some((kind, _)) = kind {
            self.inflict(*kind);
        }
        let most = u64::try_from(self.fault_gap.as_millis()).unwrap_or(1_000).max(2);
        let gap = Duration::from_millis(self.rng.random_range(1..most));
        self.agenda.put(self.now + gap, Event::Strike);
    }

    fn inflict(&mut self, kind: Kind) {
        let (host, (one, two), time) = (self.any_host(), self.any_pair(), self.a_while());
        self.note(|| format!("fault {kind:?}: host{host}, host{one} to host{two}, {time:?}"));
        match kind {
            Kind::CutPair => self.cut_for(&[(one, two), (two, one)], time),
            Kind::CutOneWay => self.cut_for(&[(one, two)], time),
            Kind::Partition => self.partition(time),
            Kind::Swizzle => self.swizzle(),
            Kind::BadPath => {
                let (loss, twice) = (self.rng.random_range(1..300), self.rng.random_range(0..100));
                let way = self.network.way(one, two);
                (way.loss, way.jitter) = (loss, Duration::from_millis(3));
                way.twice = twice;
                self.undo(time, Undo::Quality(one, two));
            }
            Kind::SlowPath => {
                let jitter = Duration::from_millis(self.rng.random_range(1..800));
                self.network.way(one, two).jitter = jitter;
                self.undo(time, Undo::Quality(one, two));
            }
            Kind::SmallPath => {
                self.network.way(one, two).mtu = self.rng.random_range(600..INTERFACE);
                self.undo(time, Undo::Quality(one, two));
            }
            Kind::NoVxlan => {
                self.network.way(one, two).no_vxlan += 1;
                self.undo(time, Undo::Vxlan(one, two));
            }
            Kind::NoSleeve => {
                self.network.way(one, two).no_sleeve += 1;
                self.undo(time, Undo::Sleeve(one, two));
            }
            Kind::Crash | Kind::Doom | Kind::Farewell | Kind::Reboot | Kind::Replace => {
                self.end(kind, host, time)
            }
            Kind::DiskFull => {
                self.hosts[host].disk.full = true;
                self.undo(time, Undo::Disk(host));
            }
            Kind::DiskSlow => {
                self.hosts[host].disk.slow = Duration::from_millis(self.rng.random_range(1..2_000));
                self.undo(time, Undo::Disk(host));
            }
            Kind::KernelSlow => {
                self.hosts[host].kernel_lag = Duration::from_millis(self.rng.random_range(1..3_000));
                self.undo(time, Undo::Kernel(host));
            }
            Kind::Stop => self.freeze(host, time),
            Kind::Create => self.agenda.put(self.now, Event::Errand(Errand::Create(host))),
            Kind::Remove => self.remove_any(),
        }
    }

    /// A process or a host ends, in one of the ways there are.
    fn end(&mut self, kind: Kind, host: HostId, time: Duration) {
        match kind {
            Kind::Doom => self.hosts[host].doom = Some(self.rng.random_range(1..200)),
            Kind::Farewell => {
                let now = self.hosts[host].clock.at(self.now);
                let stopped = self.hosts[host].stopped > self.now;
                if let Some(process) = self.hosts[host].process.as_mut().filter(|_| !stopped) {
                    process.node.farewell(Goodbye::Restarting, now);
                    self.drain_node(host);
                    self.stop(host, true);
                }
            }
            Kind::Reboot => self.reboot(host, time),
            Kind::Replace => self.retire(host),
            Kind::Crash => self.stop(host, true),
            Kind::CutPair
            | Kind::CutOneWay
            | Kind::Partition
            | Kind::Swizzle
            | Kind::BadPath
            | Kind::SlowPath
            | Kind::SmallPath
            | Kind::NoVxlan
            | Kind::NoSleeve
            | Kind::DiskFull
            | Kind::DiskSlow
            | Kind::KernelSlow
            | Kind::Stop
            | Kind::Create
            | Kind::Remove => {}
        }
    }

    fn undo(&mut self, after: Duration, undo: Undo) {
        self.agenda.put(self.now + after, Event::Undo(undo));
    }

    pub(super) fn cut(&mut self, from: HostId, to: HostId) {
        self.network.way(from, to).cut += 1;
    }

    /// No datagram gets through any more.
    pub(super) fn block(&mut self, from: HostId, to: HostId) {
        let way = self.network.way(from, to);
        (way.no_sleeve, way.no_vxlan) = (way.no_sleeve + 1, way.no_vxlan + 1);
    }

    fn cut_for(&mut self, ways: &[(HostId, HostId)], time: Duration) {
        for (from, to) in ways {
            self.cut(*from, *to);
            self.undo(time, Undo::Heal(*from, *to));
        }
    }

    fn partition(&mut self, time: Duration) {
        let side: Vec<bool> = (0..self.hosts.len()).map(|_| self.rng.random()).collect();
        let ways: Vec<(HostId, HostId)> =
            self.pairs().filter(|(one, two)| side[*one] != side[*two]).collect();
        self.cut_for(&ways, time);
    }

    /// All ordered pairs.
    pub(super) fn pairs(&self) -> impl Iterator<Item = (HostId, HostId)> + use<> {
        let hosts = self.hosts.len();
        (0..hosts).flat_map(move |one| (0..hosts).filter(move |two| *two != one).map(move |two| (one, two)))
    }

    /// Cuts a random set of paths one after the other, and heals them in another order.
    fn swizzle(&mut self) {
        let share = self.rng.random_range(1..8);
        let mut ways: Vec<(HostId, HostId)> = self.pairs().collect();
        ways.retain(|_| self.rng.random_ratio(share, 8));
        ways.shuffle(&mut self.rng);
        let gap = Duration::from_millis(self.rng.random_range(1..200));
        for (at, (from, to)) in (0_u32..).zip(&ways) {
            self.undo(gap * at, Undo::Cut(*from, *to));
        }
        let all = gap * u32::try_from(ways.len()).unwrap_or(u32::MAX) + Duration::from_millis(500);
        ways.shuffle(&mut self.rng);
        for (at, (from, to)) in (0_u32..).zip(&ways) {
            self.undo(all + gap * at, Undo::Heal(*from, *to));
        }
    }

    /// The process stands still, as under SIGSTOP; its kernel does not.
    fn freeze(&mut self, host: HostId, time: Duration) {
        if self.hosts[host].process.is_some() {
            let until = (self.now + time).min(self.calm_at);
            self.hosts[host].stopped = self.hosts[host].stopped.max(until);
        }
    }

    fn remove_any(&mut self) {
        let talkers: Vec<usize> = self.speakers().collect();
        if !talkers.is_empty() {
            let container = talkers[self.rng.random_range(0..talkers.len())];
            let namespace_first = self.rng.random_ratio(2, 3);
            self.errand(Errand::Remove { container, namespace_first });
        }
    }

    /// Power is lost: nobody says anything, and nothing of the kernel is left.
    fn reboot(&mut self, host: HostId, time: Duration) {
        if !std::mem::replace(&mut self.hosts[host].powered, false) {
            return;
        }
        self.power_off(host);
        self.undo(time, Undo::Power(host));
    }

    fn power_off(&mut self, host: HostId) {
        self.stop(host, false);
        self.close_all(host, false);
        for container in 0..self.containers.len() {
            if self.containers[container].host == host && self.containers[container].alive {
                self.containers[container].alive = false;
                self.containers[container].address = None;
            }
        }
        self.hosts[host].lose_power();
        self.check_addresses(host);
    }

    /// A host dies for good; somebody removes it, and another machine takes its place.
    fn retire(&mut self, host: HostId) {
        let divided = |host: &Host| {
            let state = host.process.as_ref().map(|process| process.node.state());
            state.is_some_and(|state| state.ipam.is_some_and(|snapshot| snapshot.ring().is_some()))
        };
        // Before the first division every machine is an elector.
        let all_divided = self.hosts.iter().all(divided);
        // Whoever was launched with that one alone would never find the others again after a restart.
        let needed = self.hosts.iter().any(|other| other.launch.targets == [host]);
        let dead = !self.hosts[host].powered || !self.retired.is_empty();
        if self.hosts.len() < 3 || !self.may_retire || dead || needed || !all_divided {
            return;
        }
        self.hosts[host].powered = false;
        self.power_off(host);
        self.retired.push(host);
    }

    pub(super) fn end_of(&mut self, undo: Undo) {
        if self.now >= self.calm_at {
            return;
        }
        self.end_at_last(undo);
    }

    fn end_at_last(&mut self, undo: Undo) {
        match undo {
            Undo::Cut(from, to) => self.cut(from, to),
            Undo::Heal(from, to) => {
                let way = self.network.way(from, to);
                way.cut = way.cut.saturating_sub(1);
                if way.cut == 0 {
                    self.wake_streams(from, to);
                }
            }
            Undo::Sleeve(from, to) => {
                let way = self.network.way(from, to);
                way.no_sleeve = way.no_sleeve.saturating_sub(1);
            }
            Undo::Vxlan(from, to) => {
                let way = self.network.way(from, to);
                way.no_vxlan = way.no_vxlan.saturating_sub(1);
            }
            Undo::Quality(from, to) => {
                let way = self.network.way(from, to);
                (way.loss, way.twice, way.mtu) = (0, 0, INTERFACE);
                way.jitter = Duration::from_micros(200);
            }
            Undo::Disk(host) => {
                self.hosts[host].disk.full = false;
                self.hosts[host].disk.slow = Duration::ZERO;
            }
            Undo::Kernel(host) => self.hosts[host].kernel_lag = Duration::ZERO,
            Undo::Power(host) => self.power_on(host),
        }
    }

    fn power_on(&mut self, host: HostId) {
        if std::mem::replace(&mut self.hosts[host].powered, true) {
            return;
        }
        for other in (0..self.hosts.len()).filter(|other| *other != host).collect::<Vec<_>>() {
            self.wake_streams(other, host);
        }
        self.start(host);
    }

    /// Somebody removes a dead peer, and another machine comes in its place. An operator does that when all
    /// others are well: whoever removes a peer during a partition takes what it has given to the far side.
    pub(super) fn replace(&mut self, host: HostId) {
        if self.wrong_but_for(Some(host)).is_some() {
            return self.agenda.put(self.now + Duration::from_secs(1), Event::Errand(Errand::Replace(host)));
        }
        let (old, name) = (self.hosts[host].name, self.hosts[host].name.to_string());
        self.generation += 1;
        let generation = self.generation;
        self.hosts[host].replace(host, generation);
        self.reference.expelled(old);
        let by = (host + 1) % self.hosts.len();
        self.errand(Errand::Expel { by, name });
        self.power_on(host);
    }

    /// Every fault ends, but for what belongs to the shape of the world.
    pub(super) fn calm(&mut self) {
        self.note(|| "calm".to_owned());
        for (from, to) in self.pairs() {
            let lasting = u32::from(self.lasting.contains(&(from, to)));
            let way = self.network.way(from, to);
            (way.cut, way.no_sleeve, way.no_vxlan) = (lasting, 0, 0);
            if self.dry.contains(&(from, to)) {
                self.block(from, to);
            }
            self.end_at_last(Undo::Quality(from, to));
            if lasting == 0 {
                self.wake_streams(from, to);
            }
        }
        let retired = std::mem::take(&mut self.retired);
        for host in 0..self.hosts.len() {
            self.hosts[host].doom = None;
            self.end_at_last(Undo::Disk(host));
            self.end_at_last(Undo::Kernel(host));
            if !retired.contains(&host) {
                self.power_on(host);
            }
        }
        // One after the other: the first to die is removed first.
        if let Some(host) = retired.first() {
            self.agenda.put(self.now, Event::Errand(Errand::Replace(*host)));
        }
    }
}
