//! What this build wants to reach, as data, and whether it does.
//!
//! Absolute figures move with the machine, so a target is a ratio of medians of the same run: against the hand-made
//! kernel VXLAN in clear, or against the best of the peers measured. Only the processor time of our own processes is
//! judged as it is.

use crate::measure::PODS;
use crate::metric::{Better, Metric};
use crate::samples::Samples;

/// What a figure is divided by.
#[derive(Debug, Clone, Copy)]
enum Against {
    /// The kernel's VXLAN.
    Vxlan,
    /// The best peer of the run in this figure.
    BestPeer,
    /// This row, divided by ours: how many times as fast ours is.
    FasterThan(&'static str),
    /// Nothing: the figure itself is judged.
    Itself,
    /// What this program does not measure, and why.
    Unmeasured(&'static str),
}

/// One line of the promise.
#[derive(Debug)]
pub(crate) struct Target {
    /// What it says.
    pub(crate) meaning: &'static str,
    system: &'static str,
    metric: Metric,
    against: Against,
    /// Which way it is better.
    pub(crate) better: Better,
    /// What must be reached first.
    pub(crate) first: f64,
    /// What is wanted.
    pub(crate) goal: f64,
}

/// How a target came out.
#[derive(Debug)]
pub(crate) struct Verdict {
    pub(crate) target: &'static Target,
    /// The figure, or why there is none.
    pub(crate) found: Result<f64, String>,
    /// What it was compared with.
    pub(crate) against: String,
}

use Against::{BestPeer, FasterThan, Itself, Unmeasured, Vxlan};
use Better::{Higher, Lower};

const fn target(
    meaning: &'static str,
    subject: (&'static str, Metric, Against),
    better: Better,
    (first, goal): (f64, f64),
) -> Target {
    let (system, metric, against) = subject;
    Target { meaning, system, metric, against, better, first, goal }
}

const NO_WEAVE: Against = Unmeasured("Weave Net gives no package and is not in this run");
const AT_REST: Against = Unmeasured("the test e2e_idle measures it");

/// The promise, line by line: first reach and goal.
static TARGETS: [Target; 15] = [
    target("fastpath, TCP 1 stream, of kernel VXLAN", ("fastpath", Metric::Tcp1, Vxlan), Higher, (0.97, 1.0)),
    target(
        "fastpath, TCP 4 streams, of kernel VXLAN",
        ("fastpath", Metric::Tcp4, Vxlan),
        Higher,
        (0.97, 1.0),
    ),
    target("fastpath, RTT p50, of kernel VXLAN", ("fastpath", Metric::RttTwoP50, Vxlan), Lower, (1.05, 0.8)),
    target("fastpath, CPU per GB, of kernel VXLAN", ("fastpath", Metric::Cpu, Vxlan), Lower, (1.05, 1.0)),
    target(
        "sleeve encrypted, TCP 1 stream, of kernel VXLAN in clear",
        ("vnet-sealed", Metric::Tcp1, Vxlan),
        Higher,
        (0.35, 0.60),
    ),
    target(
        "sleeve encrypted, wire TCP 1 stream, of kernel VXLAN in clear",
        ("vnet-sealed", Metric::WireTcp1, Vxlan),
        Higher,
        (0.75, 1.0),
    ),
    target(
        "sleeve encrypted, TCP 1 stream, of the best peer",
        ("vnet-sealed", Metric::Tcp1, BestPeer),
        Higher,
        (1.6, 2.8),
    ),
    target(
        "sleeve encrypted, RTT p50, of the best peer",
        ("vnet-sealed", Metric::RttTwoP50, BestPeer),
        Lower,
        (1.1, 0.85),
    ),
    target(
        "sleeve encrypted, RTT p99, of the best peer",
        ("vnet-sealed", Metric::RttTwoP99, BestPeer),
        Lower,
        (1.2, 1.0),
    ),
    target(
        "sleeve encrypted, 64 B UDP at 1 % loss, of kernel VXLAN",
        ("vnet-sealed", Metric::Packets, Vxlan),
        Higher,
        (0.95, 1.25),
    ),
    target(
        "sleeve encrypted, router CPU s/GB, both ends",
        ("vnet-sealed", Metric::DaemonCpu, Itself),
        Lower,
        (2.0, 1.2),
    ),
    target(
        "sleeve by pcap, encrypted, TCP 1 stream, of Weave Net's",
        ("pcap-sealed", Metric::Tcp1, NO_WEAVE),
        Higher,
        (2.0, 5.0),
    ),
    target(
        "CNI ADD, whole process, times faster than bridge + host-local",
        (PODS[0], Metric::AddP50, FasterThan(PODS[1])),
        Higher,
        (2.0, 5.0),
    ),
    target("router at rest, 3 hosts, % of a core", ("attach", Metric::Cpu, AT_REST), Lower, (0.5, 0.1)),
    target(
        "router at rest, MB; the goal at 200 peers",
        ("attach", Metric::Cpu, AT_REST),
        Lower,
        (24.0, 16.0),
    ),
];

/// Holds the run's figures against every target.
pub(crate) fn judge(samples: &Samples) -> Vec<Verdict> {
    TARGETS.iter().map(|target| target.judge(samples)).collect()
}

impl Target {
    fn judge(&'static self, samples: &Samples) -> Verdict {
        let (found, against) = self.find(samples);
        Verdict { target: self, found, against }
    }

    fn find(&self, samples: &Samples) -> (Result<f64, String>, String) {
        let ours = samples.figure(self.system, self.metric).map(|figure| figure.median);
        let ours = ours.ok_or_else(|| format!("{} was not measured", self.system));
        match self.against {
            Unmeasured(reason) => (Err(reason.to_owned()), String::new()),
            Itself => (ours, String::new()),
            Vxlan => {
                let base = samples.figure("vxlan", self.metric).ok_or("vxlan was not measured");
                let ratio = ours.and_then(|ours| Ok(ours / base?.median));
                (ratio, "of vxlan".to_owned())
            }
            FasterThan(name) => {
                let base =
                    samples.figure(name, self.metric).ok_or_else(|| format!("{name} was not measured"));
                (ours.and_then(|ours| Ok(base?.median / ours)), format!("than {name}"))
            }
            BestPeer => match samples.best_peer(self.metric) {
                Some((name, best)) => (ours.map(|ours| ours / best.median), format!("of {name}")),
                None => (Err("no peer was measured".to_owned()), String::new()),
            },
        }
    }
}

impl Verdict {
    /// In a word.
    pub(crate) fn word(&self) -> &'static str {
        let reaches = |bound: f64, found: f64| match self.target.better {
            Higher => found >= bound,
            Lower => found <= bound,
        };
        match self.found {
            Err(_) => "not measured",
            Ok(found) if reaches(self.target.goal, found) => "goal",
            Ok(found) if reaches(self.target.first, found) => "first reach",
            Ok(_) => "missed",
        }
    }
}
