//! One run: a seed becomes a world, the world suffers, and then it must be well again.

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use weft_router::ipam::InitMode;
use weft_router::sleeve::keys::KeyLimits;

use super::World;
use super::agenda::{Agenda, Event, HostId};
use super::clock::Clock;
use super::host::{Host, Launch};
use super::network::Network;
use super::reference::Reference;
use super::stream::Streams;
use super::workload::Errand;

/// After the faults all must be well within this time: a path that was cut is dialled again after at most a minute.
const RECOVERY: Duration = Duration::from_secs(120);

/// How often a frame may come to a host while peers disagree about the topology: each has its own tree then, and
/// a frame may find several ways. More would be a loop.
const LOOPS: usize = 8;

/// How long after a change of neighbours or carriers a frame may come by the old way and the new one. Whoever
/// loses a neighbour goes on flooding to it for two seconds, until all have heard that others must do that now.
const REARRANGING: Duration = Duration::from_millis(2_500);
/// The same where neighbours stay: on the way to fastpath the kernel floods to a peer a moment before the router stops,
/// or frames would be lost; and the path is up to 40 ms long.
const CHANGING: Duration = Duration::from_millis(200);

/// One world of so many has the real curve under its handshakes; the others a stand-in that costs next to nothing.
const REAL_CURVE: u64 = 16;

/// In one world of so many UDP never passes between some hosts, and TCP does.
const DRY: u64 = 8;

/// In one world of so many each router has few neighbours at most, and what goes further is relayed.
const LIMITED: u64 = 8;
/// So few.
const NEIGHBOURS: usize = 4;

/// What worlds to draw.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// The fewest hosts.
    pub least: usize,
    /// The most hosts; small worlds are drawn more often.
    pub most: usize,
    /// The longest time with faults.
    pub troubled: Duration,
    /// Disks say that they have written and have not: then a promise is broken, and that must show.
    pub lying_disks: bool,
    /// Write down what happens while it happens.
    pub verbose: bool,
}

/// What came of a run in which nothing broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// How many hosts there were.
    pub hosts: usize,
    /// How many containers were made.
    pub containers: usize,
    /// Pieces of TCP streams, datagrams and VXLAN packets that arrived.
    pub messages: u64,
    /// Everything that happened.
    pub steps: u64,
    /// Virtual time from the first start to the end.
    pub lasted: Duration,
    /// Virtual time from the last fault until all was well.
    pub recovered: Duration,
    /// Frames that came to a host a second time.
    pub doubled: u64,
}

/// A run in which something broke.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Replays it.
    pub seed: u64,
    /// What broke.
    pub what: String,
    /// When, since the first start.
    pub at: Duration,
    /// What happened before.
    pub journal: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.journal {
            writeln!(f, "{line}")?;
        }
        write!(f, "seed {} after {:?}: {}", self.seed, self.at, self.what)
    }
}

/// Runs one seed.
///
/// # Errors
/// When an invariant breaks or the world does not recover; the same seed and shape fail again in the same way.
pub fn run(seed: u64, shape: Shape) -> Result<Outcome, Box<Failure>> {
    let mut world = World::draw(seed, shape);
    let drawn = world.introduce();
    let result = world.live();
    let failure = |what: String| {
        let journal = std::iter::once(drawn).chain(world.journal.iter().cloned()).collect();
        Box::new(Failure { seed, what, at: world.now, journal })
    };
    let recovered = result.map_err(failure)?;
    Ok(Outcome {
        hosts: world.hosts.len(),
        containers: world.containers.len(),
        messages: world.messages,
        steps: world.steps,
        lasted: world.now,
        recovered,
        doubled: world.reference.doubled,
    })
}

#[expect(clippy::disallowed_methods, reason = "virtual time starts somewhere")]
fn epoch() -> Instant {
    Instant::now()
}

impl World {
    /// Draws a world; small ones more often.
    fn draw(seed: u64, shape: Shape) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let spread = shape.most.saturating_sub(shape.least);
        let share: f64 = rng.random();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a share of a small number"
        )]
        #[expect(clippy::cast_precision_loss, reason = "a small number")]
        let hosts = shape.least + (share.powi(3) * (spread + 1) as f64) as usize;
        let hosts = hosts.clamp(2, shape.most);
        let far = Duration::from_micros([300, 2_000, 40_000][rng.random_range(0..3_usize)]);
        let network = Network::new(hosts, far, &mut rng);
        let launch = Launch {
            limit: (seed % LIMITED == LIMITED - 3).then_some(NEIGHBOURS),
            real_curve: seed.is_multiple_of(REAL_CURVE),
            ..launch(hosts, &mut rng)
        };
        let most = u64::try_from(shape.troubled.as_millis()).unwrap_or(u64::MAX).max(2_001);
        let mut world = Self {
            now: Duration::ZERO,
            agenda: Agenda::default(),
            hosts: Vec::new(),
            network,
            streams: Streams::default(),
            containers: Vec::new(),
            reference: Reference::default(),
            lasting: BTreeSet::new(),
            dry: BTreeSet::new(),
            calm_at: Duration::from_millis(rng.random_range(2_000..most)),
            fault_gap: Duration::from_millis([200, 1_000, 4_000][rng.random_range(0..3_usize)]),
            may_retire: matches!(launch.init, InitMode::Consensus(_)),
            retired: Vec::new(),
            generation: 0,
            chatting: true,
            talks: 0,
            most_copies: LOOPS,
            rearranging: Duration::ZERO,
            messages: 0,
            steps: 0,
            broken: None,
            journal: VecDeque::new(),
            verbose: shape.verbose,
            sent: Vec::new(),
            exits: Vec::new(),
            rng,
        };
        world.settle_hosts(&launch, shape.lying_disks);
        world.cut_for_good();
        if seed % DRY == DRY - 5 {
            world.dry_up(seed);
        }
        world
    }

    /// The world in one line.
    fn introduce(&self) -> String {
        let launch = &self.hosts[0].launch;
        let once = |pairs: &BTreeSet<(HostId, HostId)>| -> Vec<_> {
            pairs.iter().copied().filter(|(one, two)| one < two).collect()
        };
        let (apart, dry) = (once(&self.lasting), once(&self.dry));
        let Launch { range, init, secret, trusted, fastpath, targets, .. } = launch;
        format!(
            "{} hosts, {range}, {init:?}, secret {secret}, trusted {trusted}, fastpath {fastpath}, {} targets, \
             never linked {apart:?}, never a datagram between {dry:?}, faults until {:?}",
            self.hosts.len(),
            targets.len(),
            self.calm_at
        )
    }

    fn settle_hosts(&mut self, launch: &Launch, lying_disks: bool) {
        let zero = epoch();
        let hosts = self.network.hosts();
        let lone_kernel = self.rng.random_ratio(1, 4).then(|| self.rng.random_range(0..hosts));
        for host in 0..hosts {
            let ahead = Duration::from_millis(self.rng.random_range(0..10_000_000));
            let clock = Clock::new(zero + ahead, self.rng.random_range(0..2_000));
            let mut launch = launch.clone();
            launch.vxlan = lone_kernel != Some(host);
            launch.targets.retain(|target| *target != host);
            self.hosts.push(Host::new(host, launch, clock));
            self.hosts[host].disk.lies = lying_disks;
            let start = Duration::from_millis(self.rng.random_range(0..3_000));
            self.agenda.put(start, Event::Start(host));
            for _ in 0..self.rng.random_range(1..4) {
                let born = start + Duration::from_millis(self.rng.random_range(0..5_000));
                self.agenda.put(born, Event::Errand(Errand::Create(host)));
            }
        }
        self.agenda.put(Duration::from_secs(1), Event::Errand(Errand::Chatter));
        self.agenda.put(Duration::from_millis(500), Event::Strike);
    }

    /// In some worlds a few pairs never reach each other, but over a third.
    fn cut_for_good(&mut self) {
        if self.hosts.len() < 3 || !self.rng.random_ratio(1, 4) {
            return;
        }
        // Whoever keeps the path to one host keeps a way to all.
        let drawn = self.rng.random_range(0..self.hosts.len());
        let hub = if self.hosts[drawn].launch.targets.len() > 1 { drawn } else { 0 };
        let share = self.rng.random_range(1..6);
        let pairs: Vec<(HostId, HostId)> =
            self.pairs().filter(|(one, two)| one < two && *one != hub && *two != hub).collect();
        for (one, two) in pairs {
            if self.rng.random_ratio(share, 6) {
                self.lasting.extend([(one, two), (two, one)]);
                self.cut(one, two);
                self.cut(two, one);
                // Without the hub the others would be apart, and nobody removes a peer then.
                self.may_retire = false;
            }
        }
        // Whoever holds parts together needs a neighbour in each: fewer could not be one mesh.
        let parts = self.parts_without(hub);
        self.hosts[hub].launch.limit = self.hosts[hub].launch.limit.map(|limit| limit.max(parts));
    }

    /// Blocks UDP between some pairs, but for those with the first host; drawn apart from all else.
    fn dry_up(&mut self, seed: u64) {
        if !self.lasting.is_empty() {
            return;
        }
        let mut rng = StdRng::seed_from_u64(!seed);
        let pairs = self.pairs().filter(|(one, two)| 0 < *one && one < two);
        let share = rng.random_range(1..5);
        self.dry = pairs
            .filter(|_| rng.random_ratio(share, 5))
            .flat_map(|(one, two)| [(one, two), (two, one)])
            .collect();
        for (from, to) in self.dry.clone() {
            self.block(from, to);
        }
    }

    /// How many trees with few enough branches span the hosts without this one, as far as paths are cut for good. One
    /// branch less than there may be: where all are full nobody can let a neighbour go for a better one.
    fn parts_without(&self, hub: HostId) -> usize {
        let mut left: BTreeSet<HostId> = (0..self.hosts.len()).filter(|host| *host != hub).collect();
        let mut parts = 0;
        while let Some(first) = left.pop_first() {
            parts += 1;
            let mut border = vec![(first, 1)];
            while let Some((at, branches)) = border.pop() {
                let near = left.iter().copied().find(|host| !self.lasting.contains(&(at, *host)));
                let Some(near) = near.filter(|_| branches < NEIGHBOURS - 1) else { continue };
                left.remove(&near);
                border.extend([(at, branches + 1), (near, 1)]);
            }
        }
        parts
    }

    /// Whether routers have few neighbours, who come and go even when nothing is wrong.
    pub(super) fn is_bounded(&self) -> bool {
        self.hosts[0].launch.limit.is_some()
    }

    /// Suffers, then recovers; says how long the recovery took.
    fn live(&mut self) -> Result<Duration, String> {
        self.run_for(self.calm_at)?;
        self.calm();
        let recovered = self.recover(RECOVERY)?;
        // From here on nothing is wrong, so nothing may be lost, whatever carrier is changed for a better one.
        self.most_copies = 1;
        self.rearranging = if self.is_bounded() { REARRANGING } else { CHANGING };
        self.run_for(Duration::from_secs(15))?;
        match self.ask_around(Duration::from_secs(1))? {
            None => Ok(recovered),
            Some(lost) => Err(format!("without any fault: {lost}")),
        }
    }
}

/// How the routers of this world are launched.
fn launch(hosts: usize, rng: &mut StdRng) -> Launch {
    let range = ["10.32.0.0/16", "10.32.0.0/22", "10.32.0.0/24"][rng.random_range(0..3_usize)];
    let init = if rng.random_ratio(1, 3) {
        InitMode::Seed((0..hosts).map(|host| format!("host{host}")).collect())
    } else {
        InitMode::Consensus(Some(hosts))
    };
    let secret = rng.random();
    let rare = rng.random_ratio(1, 4);
    let limits = KeyLimits { age: Duration::from_secs(20), packets: 500 };
    Launch {
        range: range.parse().expect("a network"),
        init,
        secret,
        trusted: rng.random(),
        targets: if rng.random_ratio(1, 3) { vec![0] } else { (0..hosts).collect() },
        discovery: true,
        fastpath: rng.random_ratio(3, 4),
        vxlan: true,
        limits: if rare { limits } else { KeyLimits::default() },
        limit: None,
        real_curve: false,
    }
}
