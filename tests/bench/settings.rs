//! What the run is asked to do: `word=value` arguments, because `sudo` does not pass the environment on.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::metric::Metric;

/// Whom to compare with: what was fetched for an earlier run does not count unless it is asked for again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Peers {
    /// Nobody but the kernel.
    None,
    /// Those that Debian packages.
    Packages,
    /// Those that are crates, too.
    Crates,
}

/// How much is measured, and how long each measurement takes.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// How many times everything is measured.
    pub(crate) rounds: usize,
    /// A short run: one round, shorter samples.
    pub(crate) quick: bool,
    /// How long each TCP run lasts; none is the default of each.
    pub(crate) seconds: Option<u64>,
    /// Only these systems; empty is all.
    pub(crate) only: Vec<String>,
    /// Whom to compare with.
    pub(crate) whom: Peers,
    /// Where `peers.sh` left the programs to compare with.
    pub(crate) peers: PathBuf,
    /// Where the figures go.
    pub(crate) json: PathBuf,
}

impl Settings {
    /// Reads `rounds=`, `quick=`, `seconds=`, `only=`, `whom=`, `peers=` and `json=`; an empty value is the default.
    pub(crate) fn from_arguments(arguments: impl Iterator<Item = String>) -> Result<Self> {
        let mut rounds = None;
        let mut settings = Self {
            rounds: 0,
            quick: false,
            seconds: None,
            only: Vec::new(),
            whom: Peers::Packages,
            peers: "target/bench".into(),
            json: "target/bench.json".into(),
        };
        for argument in arguments {
            let (word, value) =
                argument.split_once('=').with_context(|| format!("not WORD=VALUE: {argument}"))?;
            match (word, value) {
                (_, "") => {}
                ("rounds", count) => rounds = Some(count.parse().context("ROUNDS is a number")?),
                ("quick", flag) => settings.quick = flag != "0",
                ("seconds", count) => {
                    settings.seconds = Some(count.parse().context("TCP_SECONDS is a number")?)
                }
                ("only", names) => settings.only = names.split(',').map(str::to_owned).collect(),
                ("whom", "none") => settings.whom = Peers::None,
                ("whom", "apt") => settings.whom = Peers::Packages,
                ("whom", "all") => settings.whom = Peers::Crates,
                ("whom", other) => bail!("PEERS is none, apt or all, not {other}"),
                ("peers", path) => settings.peers = path.into(),
                ("json", path) => settings.json = path.into(),
                _ => bail!("unknown word: {word}"),
            }
        }
        settings.rounds = rounds.unwrap_or(if settings.quick { 1 } else { 3 });
        ensure!((1..=100).contains(&settings.rounds), "ROUNDS is 1 to 100, not {}", settings.rounds);
        ensure!(settings.seconds.is_none_or(|count| (1..=3600).contains(&count)), "TCP_SECONDS is 1 to 3600");
        Ok(settings)
    }

    /// Whether a system is to be measured.
    pub(crate) fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|one| one == name)
    }

    /// How long one TCP run lasts, in whole seconds as iperf3 takes them.
    pub(crate) fn tcp_seconds(&self, metric: Metric) -> u64 {
        // The one that CPU figures and most targets are made of is worth more time.
        let default = if metric == Metric::Tcp1 && !self.quick { 3 } else { 2 };
        self.seconds.unwrap_or(default)
    }

    /// How many rates the search for the highest packet rate tries, after the first blast.
    pub(crate) fn packet_steps(&self) -> usize {
        if self.quick { 5 } else { 6 }
    }

    /// How long each of those rates is offered.
    pub(crate) fn packet_step(&self) -> Duration {
        Duration::from_millis(if self.quick { 250 } else { 300 })
    }

    /// How long one ping-pong lasts.
    pub(crate) fn ping_pong(&self) -> Duration {
        Duration::from_millis(if self.quick { 400 } else { 500 })
    }

    /// How many containers are attached and detached.
    pub(crate) fn attachments(&self) -> usize {
        if self.quick { 30 } else { 60 }
    }

    /// How long addresses are allocated.
    pub(crate) fn allocating(&self) -> Duration {
        Duration::from_secs(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(words: &[&str]) -> Result<Settings> {
        Settings::from_arguments(words.iter().map(|&word| word.to_owned()))
    }

    #[test]
    fn empty_values_are_defaults_and_a_quick_run_has_one_round() {
        let settings = read(&["rounds=", "quick=", "only="]).unwrap();
        assert!(settings.rounds == 3 && !settings.quick && settings.wants("anything"));
        assert_eq!(read(&["quick=1"]).unwrap().rounds, 1);
        assert_eq!(read(&["quick=1", "rounds=2"]).unwrap().rounds, 2);
        let some = read(&["only=raw,vxlan"]).unwrap();
        assert!(some.wants("vxlan") && !some.wants("vnet"));
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for words in ["rounds=0", "rounds=many", "seconds=0", "colour=red", "whom=everybody", "quick"] {
            assert!(read(&[words]).is_err(), "{words}");
        }
    }
}
