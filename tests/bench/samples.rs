//! From samples to figures: medians with their spread, and nothing where nothing was measured.

use std::collections::BTreeMap;

use crate::measure::{ATTACH, PODS, Sample};
use crate::metric::{Better, Metric};
use crate::system::{Description, Role};

/// All samples of the run, a row per system.
#[derive(Debug)]
pub(crate) struct Samples {
    rows: Vec<Row>,
}

/// One system's samples, or why there are none.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) description: Description,
    pub(crate) version: Option<String>,
    pub(crate) mtu: Option<u32>,
    /// Why it cannot be measured on this machine at all.
    pub(crate) absent: Option<String>,
    /// What went wrong, once for each different reason, and how often.
    pub(crate) failures: BTreeMap<String, usize>,
    samples: BTreeMap<Metric, Vec<Sample>>,
}

/// A median and its spread.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Figure {
    pub(crate) median: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
    /// How many samples it is made of.
    pub(crate) used: usize,
    /// Whether some of those were taken beside other load.
    pub(crate) noisy: bool,
}

impl Samples {
    /// Rows without a sample, and those for what is measured of attaching.
    pub(crate) fn new(mut descriptions: Vec<Description>) -> Self {
        descriptions.push(Description {
            name: ATTACH,
            role: Role::Ours,
            about: "weft attach and detach, a process each; addresses over the API, one after the other",
        });
        let about = "CNI plugins, a process each: ADD and DEL of one pod after the other, turn by turn";
        descriptions.push(Description { name: PODS[0], role: Role::Ours, about });
        descriptions.push(Description { name: PODS[1], role: Role::Kernel, about });
        let row = |description| Row {
            description,
            version: None,
            mtu: None,
            absent: None,
            failures: BTreeMap::new(),
            samples: BTreeMap::new(),
        };
        Self { rows: descriptions.into_iter().map(row).collect() }
    }

    /// The rows of tunnels and limits.
    pub(crate) fn systems(&self) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(|row| row.description.name != ATTACH && !PODS.contains(&row.description.name))
    }

    /// Every row.
    pub(crate) fn rows(&self) -> impl Iterator<Item = &Row> {
        self.rows.iter()
    }

    /// The row of this name.
    pub(crate) fn row(&self, name: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.description.name == name)
    }

    /// Why a system is left out, when it is.
    pub(crate) fn absent(&self, name: &str) -> Option<&str> {
        self.row(name)?.absent.as_deref()
    }

    /// Leaves a system out for good.
    pub(crate) fn set_absent(&mut self, name: &str, reason: String) {
        self.edit(name, |row| row.absent = Some(reason));
    }

    /// Remembers what is known of a system that stands.
    pub(crate) fn introduce(&mut self, name: &str, version: Option<String>, mtu: u32) {
        self.edit(name, |row| {
            row.version = version;
            row.mtu = Some(mtu);
        });
    }

    /// Remembers that something could not be measured.
    pub(crate) fn fail(&mut self, name: &str, reason: String) {
        self.edit(name, |row| *row.failures.entry(reason).or_default() += 1);
    }

    /// Adds a sample.
    pub(crate) fn add(&mut self, name: &str, metric: Metric, sample: Sample) {
        self.edit(name, |row| row.samples.entry(metric).or_default().push(sample));
    }

    /// Whether there is a sample at all.
    pub(crate) fn measured_anything(&self) -> bool {
        self.rows.iter().any(|row| !row.samples.is_empty())
    }

    /// How many samples were taken, and how many of them beside other load.
    pub(crate) fn count(&self) -> (usize, usize) {
        let all = || self.rows.iter().flat_map(|row| row.samples.values().flatten());
        (all().count(), all().filter(|sample| !sample.quiet).count())
    }

    /// The figure of a system, when it was measured.
    pub(crate) fn figure(&self, name: &str, metric: Metric) -> Option<Figure> {
        self.row(name)?.figure(metric)
    }

    /// The peer with the best median, of those that were measured.
    pub(crate) fn best_peer(&self, metric: Metric) -> Option<(&'static str, Figure)> {
        let peers = self.rows.iter().filter(|row| row.description.role == Role::Peer);
        let figures = peers.filter_map(|row| Some((row.description.name, row.figure(metric)?)));
        figures.reduce(|best, other| {
            let wins = match metric.better() {
                Better::Higher => other.1.median > best.1.median,
                Better::Lower => other.1.median < best.1.median,
            };
            if wins { other } else { best }
        })
    }

    fn edit(&mut self, name: &str, edit: impl FnOnce(&mut Row)) {
        if let Some(row) = self.rows.iter_mut().find(|row| row.description.name == name) {
            edit(row);
        }
    }
}

impl Row {
    /// All samples of a metric, in the order they were taken.
    pub(crate) fn samples(&self, metric: Metric) -> &[Sample] {
        self.samples.get(&metric).map(Vec::as_slice).unwrap_or_default()
    }

    /// Median and spread, of the quiet samples where there are at least two, else of all.
    pub(crate) fn figure(&self, metric: Metric) -> Option<Figure> {
        const ENOUGH: usize = 2;
        let all = self.samples(metric);
        let quiet = all.iter().filter(|sample| sample.quiet);
        let enough = quiet.clone().count() >= ENOUGH;
        let mut values: Vec<f64> = if enough {
            quiet.map(|one| one.value).collect()
        } else {
            all.iter().map(|one| one.value).collect()
        };
        values.sort_by(f64::total_cmp);
        let (low, high) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 {
            values[middle]
        } else {
            f64::midpoint(values[middle - 1], values[middle])
        };
        let noisy = !enough && all.iter().any(|sample| !sample.quiet);
        Some(Figure { median, low, high, used: values.len(), noisy })
    }
}

#[cfg(test)]
mod tests;
