//! Taking samples: one system stands, everything is measured of it, it goes.
//!
//! The machine may have other work. Before and after each sample it is looked at while nothing of ours runs; a sample
//! taken beside other load is marked, and left out where enough quiet ones exist (see [`crate::samples`]).

mod attach;
mod machine;
mod packets;
mod pods;
mod round_trip;
mod stream;

use std::time::Duration;

use anyhow::{Context, Result};
use machine::Watch;
use weft_tests::traffic::wait_reaches;
use weft_tests::{Fabric, scenario};

use crate::metric::Metric;
use crate::programs::Program;
use crate::report;
use crate::samples::Samples;
use crate::settings::Settings;
use crate::stage::{Cable, Stage};
use crate::system::{Role, System};

/// The name of the row of what is measured of attaching.
pub(crate) const ATTACH: &str = "attach";

/// The rows of what is measured of CNI plugins: ours, and the reference ones.
pub(crate) const PODS: [&str; 2] = ["cni add", "cni add by bridge + host-local"];

/// How long the two containers may take until they reach each other.
const REACH: Duration = Duration::from_secs(15);

/// What all measurements of a run share.
pub(crate) struct Session<'a> {
    pub(crate) iperf3: &'a Program,
    pub(crate) settings: &'a Settings,
}

impl Session<'_> {
    /// Builds a system up, measures it and takes it down; what fails is recorded with its reason.
    pub(crate) fn play(&self, system: &dyn System, samples: &mut Samples) {
        let name = system.name();
        if let Some(reason) = system.obstacle() {
            samples.set_absent(name, reason);
            return;
        }
        let played = scenario::perform(|fabric| {
            let mut stage = system.up(fabric)?;
            let (from, to) = (&stage.containers[0], &stage.containers[1]);
            wait_reaches(from.netns(), to.address(), REACH)?;
            samples.introduce(name, system.version(), stage.container_mtu()?);
            let mut taken = Vec::new();
            let mut failures = Vec::new();
            self.measure(system, &stage, &mut |what, sample| match sample {
                Ok(found) => taken.extend(found),
                Err(error) => failures.push(format!("{what}: {error:#}")),
            })?;
            for failure in failures {
                samples.fail(name, failure);
            }
            stage.all_alive()?;
            system.verify(&stage).context("after measuring it was no longer so")?;
            for (metric, sample) in taken {
                samples.add(name, metric, sample);
            }
            Ok(())
        });
        if let Err(error) = played {
            let reason = format!("{error:#}");
            report::note(&reason);
            samples.fail(name, reason);
        }
    }

    /// Every measurement of a system that stands, in turn.
    fn measure(
        &self,
        system: &dyn System,
        stage: &Stage,
        take: &mut impl FnMut(&str, Result<Vec<(Metric, Sample)>>),
    ) -> Result<()> {
        let watch = &mut Watch::begin()?;
        stage.cable(Cable::Whole)?;
        take("TCP 1", self.stream(watch, stage, 1, Metric::Tcp1));
        take("TCP 4", self.stream(watch, stage, 4, Metric::Tcp4));
        take("64 B UDP", self.packets(watch, stage));
        take("RTT on two cores", self.round_trip(watch, stage, true));
        take("RTT on one core", self.round_trip(watch, stage, false));
        stage.cable(Cable::Wire)?;
        take("wire TCP 1", self.stream(watch, stage, 1, Metric::WireTcp1));
        if system.description().role != Role::Peer && !self.settings.quick {
            take("wire TCP 4", self.stream(watch, stage, 4, Metric::WireTcp4));
        }
        Ok(())
    }

    fn stream(
        &self,
        watch: &mut Watch,
        stage: &Stage,
        streams: u32,
        metric: Metric,
    ) -> Result<Vec<(Metric, Sample)>> {
        let seconds = self.settings.tcp_seconds(metric);
        let (found, quiet) = watch.around(|| stream::run(self.iperf3, stage, streams, seconds))?;
        let mut taken = vec![(metric, Sample { value: found.gigabits, quiet })];
        if metric == Metric::Tcp1 {
            taken.push((Metric::Cpu, Sample { value: found.machine, quiet }));
            if let Some(daemon) = found.daemon {
                taken.push((Metric::DaemonCpu, Sample { value: daemon, quiet }));
            }
        }
        Ok(taken)
    }

    fn packets(&self, watch: &mut Watch, stage: &Stage) -> Result<Vec<(Metric, Sample)>> {
        let effort =
            packets::Effort { steps: self.settings.packet_steps(), step: self.settings.packet_step() };
        let (rate, quiet) = watch.around(|| packets::highest_rate(stage, effort))?;
        Ok(vec![(Metric::Packets, Sample { value: rate / 1e3, quiet })])
    }

    fn round_trip(&self, watch: &mut Watch, stage: &Stage, two_cores: bool) -> Result<Vec<(Metric, Sample)>> {
        let time = self.settings.ping_pong();
        let (found, quiet) = watch.around(|| round_trip::run(stage, two_cores, time))?;
        let (p50, p99) = if two_cores {
            (Metric::RttTwoP50, Metric::RttTwoP99)
        } else {
            (Metric::RttOneP50, Metric::RttOneP99)
        };
        let sample = |part| Sample { value: found.quantile(part).as_secs_f64() * 1e6, quiet };
        Ok(vec![(p50, sample(0.5)), (p99, sample(0.99))])
    }

    /// Attaching, detaching and allocating, on a mesh of two of this build.
    pub(crate) fn attach(&self, samples: &mut Samples) {
        let measured = scenario::perform(|fabric: &Fabric| {
            let (found, quiet) = Watch::begin()?.around(|| attach::run(fabric, self.settings))?;
            let mut add = |metric, value| samples.add(ATTACH, metric, Sample { value, quiet });
            for (times, p50, p99) in [
                (&found.attach, Metric::AttachP50, Metric::AttachP99),
                (&found.detach, Metric::DetachP50, Metric::DetachP99),
            ] {
                add(p50, times.quantile(0.5).as_secs_f64() * 1e3);
                add(p99, times.quantile(0.99).as_secs_f64() * 1e3);
            }
            add(Metric::Allocations, found.allocations);
            Ok(())
        });
        if let Err(error) = measured {
            report::note(&format!("{error:#}"));
            samples.fail(ATTACH, format!("{error:#}"));
        }
    }
}

impl Session<'_> {
    /// ADD and DEL by our plugin and by the reference ones, interleaved.
    pub(crate) fn pods(&self, samples: &mut Samples) {
        let measured = scenario::perform(|fabric: &Fabric| {
            let (found, quiet) = Watch::begin()?.around(|| pods::run(fabric, self.settings))?;
            for (name, found) in PODS.into_iter().zip(found) {
                for (times, p50, p99) in [
                    (&found.add, Metric::AddP50, Metric::AddP99),
                    (&found.del, Metric::DelP50, Metric::DelP99),
                ] {
                    for (metric, part) in [(p50, 0.5), (p99, 0.99)] {
                        let value = times.quantile(part).as_secs_f64() * 1e3;
                        samples.add(name, metric, Sample { value, quiet });
                    }
                }
            }
            Ok(())
        });
        if let Err(error) = measured {
            report::note(&format!("{error:#}"));
            samples.fail(PODS[0], format!("{error:#}"));
        }
    }
}

/// One value, and whether the machine was ours alone when it was taken.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    pub(crate) value: f64,
    pub(crate) quiet: bool,
}

/// Times, ordered.
#[derive(Debug, Clone, Default)]
pub(crate) struct Times(Vec<Duration>);

impl Times {
    fn new(mut times: Vec<Duration>) -> Self {
        times.sort();
        Self(times)
    }

    /// The time that this part of all stays under, by nearest rank; zero of nothing.
    fn quantile(&self, part: f64) -> Duration {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index, clamped")]
        let rank = (part * self.0.len() as f64).ceil() as usize;
        self.0.get(rank.clamp(1, self.0.len().max(1)) - 1).copied().unwrap_or_default()
    }
}
