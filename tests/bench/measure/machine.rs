//! The machine's own figures: processor time, and whether somebody else uses it.

use std::time::Duration;

use anyhow::{Context, Result};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::{Pid, SysconfVar, sysconf};
use weft_tests::deadline;

/// How long the machine is looked at while nothing of ours runs.
const GLANCE: Duration = Duration::from_millis(100);
/// The share of one core that is no other load: the contender's own timers, and this program's.
const QUIET: f64 = 0.2;

/// Processor time used by everything on the machine since it started: all but idle and waiting for disks.
pub(super) fn busy() -> Result<Duration> {
    let stat = std::fs::read_to_string("/proc/stat").context("no /proc/stat")?;
    let line = stat.lines().next().unwrap_or_default();
    let fields: Vec<f64> = line.split_whitespace().skip(1).filter_map(|word| word.parse().ok()).collect();
    // user, nice, system, idle, iowait, irq, softirq; steal is other machines' time, guest is part of user.
    let used = [0, 1, 2, 5, 6].map(|field| fields.get(field).copied().unwrap_or_default());
    let ticks = sysconf(SysconfVar::CLK_TCK)?.context("no clock ticks")?;
    Ok(Duration::from_secs_f64(used.iter().sum::<f64>() / ticks as f64))
}

/// Looks at the machine between the measurements.
pub(super) struct Watch {
    quiet: bool,
}

impl Watch {
    /// Looks for the first time.
    pub(super) fn begin() -> Result<Self> {
        Ok(Self { quiet: is_quiet()? })
    }

    /// Does `work` and tells whether the machine was quiet before and after it.
    pub(super) fn around<T>(&mut self, work: impl FnOnce() -> Result<T>) -> Result<(T, bool)> {
        let before = self.quiet;
        let found = work();
        self.quiet = is_quiet()?;
        Ok((found?, before && self.quiet))
    }
}

fn is_quiet() -> Result<bool> {
    let (begin, before) = (deadline::now(), busy()?);
    deadline::pause(GLANCE);
    let used = busy()?.saturating_sub(before);
    Ok(used.as_secs_f64() / begin.elapsed().as_secs_f64() < QUIET)
}

/// The first two processors this process may use.
pub(super) fn processors() -> Result<Vec<usize>> {
    let allowed = sched_getaffinity(Pid::from_raw(0))?;
    let all = (0..CpuSet::count()).filter(|&one| allowed.is_set(one).unwrap_or(false));
    Ok(all.take(2).collect())
}

/// Keeps the calling thread on one processor.
pub(super) fn pin(processor: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(processor)?;
    sched_setaffinity(Pid::from_raw(0), &set).context("cannot pin a thread")
}
