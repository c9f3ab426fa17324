//! Whole clusters in virtual time under every fault at once (`src/world.rs`): seeds that must hold.
//!
//! `WEFT_SEEDS=10000` runs so many seeds, `WEFT_SEED=7` one of them, with every step written down.

use std::time::Duration;

use anyhow::{Result, ensure};
use weft_tests::world::{Shape, run};

const SMALL: Shape = Shape { least: 3, most: 8, troubled: Duration::from_secs(40), verbose: false };

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn hold(seeds: impl Iterator<Item = u64>, shape: Shape) -> Result<()> {
    let mut failures = Vec::new();
    for seed in seeds {
        match run(seed, shape) {
            Ok(outcome) => println!("seed {seed}: {outcome:?}"),
            Err(failure) => {
                eprintln!("{failure}");
                failures.push(seed);
            }
        }
    }
    ensure!(failures.is_empty(), "these seeds fail: {failures:?}");
    Ok(())
}

#[test]
fn small_clusters_survive_every_fault_and_are_whole_again() -> Result<()> {
    if let Some(seed) = number("WEFT_SEED") {
        return hold(std::iter::once(seed), Shape { verbose: true, ..SMALL });
    }
    let first = number("WEFT_FIRST").unwrap_or(0);
    hold(first..first + number("WEFT_SEEDS").unwrap_or(20), SMALL)
}
