//! Whole clusters in virtual time under every fault at once (`src/world.rs`): seeds that must hold.
//!
//! | variable | what it does |
//! |---|---|
//! | `WEFT_SEEDS=10000` | runs so many seeds of each kind of world |
//! | `WEFT_FIRST=500` | begins with this seed |
//! | `WEFT_STEP=8` | and takes every eighth: from 5 on, worlds with few neighbours alone |
//! | `WEFT_SEED=7` | runs this seed alone, with every step written down |

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use weft_tests::world::{Shape, run};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A few hosts.
const SMALL: Shape =
    Shape { least: 3, most: 8, troubled: Duration::from_secs(40), lying_disks: false, verbose: false };
/// From a few to fifty hosts; few are more frequent than many.
const MIXED: Shape = Shape { most: 50, ..SMALL };

/// Seeds of small worlds that once broke something, and what that was.
const ONCE: &[(u64, &str)] = &[
    (18, "a broadcast was multiplied while peers saw different links (I7)"),
    (65, "the same, until 160,000 datagrams waited (I6)"),
    (76, "the same (I6)"),
    (
        186,
        "frames relayed while a session was lost left both bridges on sleeve's port, and fastpath drops those (I9)",
    ),
    (236, "the same (I9)"),
    (298, "the same (I9)"),
    (616, "the same, found only by a question without any fault (I9)"),
    (20477, "strangers knew a full contact point alone, which could spare nobody (I9)"),
    (79, "attaching again on a full disk released the address of a container that stood (I1)"),
];

/// The same of mixed worlds.
const ONCE_MIXED: &[(u64, &str)] = &[
    (
        31069,
        "a flooded frame came by VXLAN from a former neighbour and by sleeve through the present ones (I7)",
    ),
    (31157, "the same (I7)"),
    (31181, "the same (I7)"),
    (
        40645,
        "fastpath to a former neighbour was left at one end 5 s before the other, whose frames were lost (I9)",
    ),
    (80021, "strangers knew a full contact point alone, which could spare nobody (I9)"),
    (80461, "the same, and one container got no address (I9)"),
    (80061, "one end of a lost fastpath stopped long before the other, whose frames were lost (I9)"),
    (
        110_605,
        "what was relayed went to a new neighbour before anything carried there, or none ever did (I9)",
    ),
    (130_677, "others sent through a new link before anything carried there, and it came back to them (I9)"),
    (200_950, "a flood came by sleeve and by VXLAN while a carrier was changed (I7, which allows that)"),
    (120_485, "routes led to a neighbour that was just lost until they were made anew (I9)"),
    (
        50181,
        "a bridge that forgot floods what its VXLAN device sends to a former neighbour (I7, which allows that)",
    ),
    (
        410_765,
        "a relay passed a flood on as it came by the old tree and by the new one, and who is behind took both (I7)",
    ),
];

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// The seeds to run: what was asked for, or so many from the first.
fn seeds(count: u64) -> impl Iterator<Item = u64> {
    let alone = number("WEFT_SEED");
    let first = alone.or(number("WEFT_FIRST")).unwrap_or(0);
    let step = number("WEFT_STEP").unwrap_or(1).max(1);
    let count = if alone.is_some() { 1 } else { number("WEFT_SEEDS").unwrap_or(count) };
    (0..count).map(move |at| first + at * step)
}

#[expect(clippy::disallowed_methods, reason = "how fast the simulation is")]
fn clock() -> Instant {
    Instant::now()
}

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "a seed that fails, and how fast it went")]
fn hold(seeds: impl Iterator<Item = u64>, shape: Shape) -> Result<()> {
    let (began, mut failures, mut outcomes) = (clock(), Vec::new(), Vec::new());
    let shape = Shape { verbose: number("WEFT_SEED").is_some(), ..shape };
    for seed in seeds {
        match run(seed, shape) {
            Ok(outcome) => outcomes.push(outcome),
            Err(failure) => {
                eprintln!("{failure}");
                failures.push(seed);
            }
        }
    }
    let (messages, took) = (outcomes.iter().map(|outcome| outcome.messages).sum::<u64>(), began.elapsed());
    println!(
        "{} worlds held, {} failed; {} hosts, {messages} messages, {} events in {took:?}: {:.0} messages a second; \
         recovery {:?} in the middle, {:?} at most; {} frames came twice",
        outcomes.len(),
        failures.len(),
        outcomes.iter().map(|outcome| outcome.hosts).sum::<usize>(),
        outcomes.iter().map(|outcome| outcome.steps).sum::<u64>(),
        messages as f64 / took.as_secs_f64(),
        middle(outcomes.iter().map(|outcome| outcome.recovered).collect()),
        outcomes.iter().map(|outcome| outcome.recovered).max().unwrap_or_default(),
        outcomes.iter().map(|outcome| outcome.doubled).sum::<u64>(),
    );
    ensure!(failures.is_empty(), "these seeds fail: {failures:?}; WEFT_SEED=N replays one");
    Ok(())
}

fn middle(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

#[test]
fn small_clusters_survive_every_fault_and_are_whole_again() -> Result<()> {
    hold(seeds(40), SMALL)
}

#[test]
fn clusters_of_up_to_fifty_hosts_survive_every_fault_and_are_whole_again() -> Result<()> {
    hold(seeds(1), MIXED)
}

#[test]
fn seeds_that_once_broke_something_hold() -> Result<()> {
    hold(ONCE.iter().map(|(seed, _)| *seed), SMALL)?;
    hold(ONCE_MIXED.iter().map(|(seed, _)| *seed), MIXED)
}

#[test]
fn a_seed_replays_exactly() -> Result<()> {
    let twice = [run(3, SMALL), run(3, SMALL)].map(|result| result.map_err(|failure| failure.to_string()));
    ensure!(twice[0] == twice[1], "{twice:?}");
    Ok(())
}

#[test]
fn a_disk_that_lies_is_found_out() -> Result<()> {
    let failure = run(3, Shape { lying_disks: true, ..SMALL }).err();
    // An allocation that is gone, or a life that is lived again: whichever is seen first.
    let found = |what: &str| what.contains("I10") || what.contains("I4");
    ensure!(failure.as_ref().is_some_and(|failure| found(&failure.what)), "{failure:?}");
    Ok(())
}
