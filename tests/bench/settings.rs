//! What the run is asked to do: `word=value` arguments, because `sudo` does not pass the environment on.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

/// How much is measured, and how long each measurement takes.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// How many times everything is measured.
    pub(crate) rounds: usize,
    /// A short run: one round, shorter samples.
    pub(crate) quick: bool,
    /// Only these systems; empty is all.
    pub(crate) only: Vec<String>,
    /// Where `peers.sh` left the programs to compare with.
    pub(crate) peers: PathBuf,
    /// Where the figures go.
    pub(crate) json: PathBuf,
}

impl Settings {
    /// Reads `rounds=`, `quick=`, `only=`, `peers=` and `json=`; an empty value is the default.
    pub(crate) fn from_arguments(arguments: impl Iterator<Item = String>) -> Result<Self> {
        let mut rounds = None;
        let mut settings = Self {
            rounds: 0,
            quick: false,
            only: Vec::new(),
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
                ("only", names) => settings.only = names.split(',').map(str::to_owned).collect(),
                ("peers", path) => settings.peers = path.into(),
                ("json", path) => settings.json = path.into(),
                _ => bail!("unknown word: {word}"),
            }
        }
        settings.rounds = rounds.unwrap_or(if settings.quick { 1 } else { 3 });
        ensure!((1..=100).contains(&settings.rounds), "ROUNDS is 1 to 100, not {}", settings.rounds);
        Ok(settings)
    }

    /// Whether a system is to be measured.
    pub(crate) fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|one| one == name)
    }

    /// How long one TCP run lasts, in whole seconds as iperf3 takes them.
    pub(crate) fn tcp_seconds(&self) -> u64 {
        if self.quick { 2 } else { 3 }
    }

    /// How many rates the search for the highest packet rate tries, after the first blast.
    pub(crate) fn packet_steps(&self) -> usize {
        if self.quick { 5 } else { 7 }
    }

    /// How long each of those rates is offered.
    pub(crate) fn packet_step(&self) -> Duration {
        Duration::from_millis(if self.quick { 250 } else { 400 })
    }

    /// How long one ping-pong lasts.
    pub(crate) fn ping_pong(&self) -> Duration {
        Duration::from_millis(if self.quick { 400 } else { 700 })
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
