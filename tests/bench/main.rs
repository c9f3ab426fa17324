//! `make bench`: what this build reaches, beside the kernel and other people's tunnels, in one run.
//!
//! ```text
//!   round 1: raw, vxlan, fastpath, …, openvpn        every system stands alone on a fresh stage, is measured, and goes
//!   round 2: the same, begun at another place        so that a slow minute of the machine hits all of them alike
//!   …
//!   medians and spreads → ratios → targets → a table and a JSON file
//! ```
//!
//! The files in the order a figure travels: [`settings`] says what is wanted, [`system`] builds each contender on a
//! [`stage`], [`measure`] takes samples, [`samples`] makes figures of them, [`targets`] judges, [`report`] prints.

mod measure;
mod metric;
mod programs;
mod report;
mod samples;
mod settings;
mod stage;
mod system;
mod targets;

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{SigSet, Signal};
use weft_tests::{deadline, scenario};

use crate::measure::Session;
use crate::programs::Programs;
use crate::samples::Samples;
use crate::settings::{Peers, Settings};
use crate::system::{Role, System};

fn main() -> ExitCode {
    match clean_up_when_interrupted().and_then(|()| run()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report::complain(&error);
            ExitCode::FAILURE
        }
    }
}

/// An end by signal runs no destructor: a thread waits for it and removes what we made. Children end with us.
fn clean_up_when_interrupted() -> Result<()> {
    let signals: SigSet = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().collect();
    signals.thread_block()?;
    std::thread::spawn(move || {
        if signals.wait().is_ok() {
            scenario::abandon();
            system::sweep();
            std::process::exit(130);
        }
    });
    Ok(())
}

fn run() -> Result<()> {
    let settings = Settings::from_arguments(std::env::args().skip(1))?;
    let programs = Programs::new(&settings.peers, settings.whom == Peers::Crates);
    let iperf3 = programs.find("iperf3").context("iperf3 measures TCP and cannot be had")?;
    system::sweep();
    let begin = deadline::now();
    let asked = |one: &dyn System| {
        settings.wants(one.name()) && (settings.whom != Peers::None || one.description().role != Role::Peer)
    };
    let mut systems = system::all(&programs);
    systems.retain(|one| asked(one.as_ref()));
    ensure!(
        !systems.is_empty() || settings.wants(measure::ATTACH) || settings.wants(measure::PODS[0]),
        "there is no row of the name {}",
        settings.only.join(", ")
    );
    let mut samples = Samples::new(systems.iter().map(|one| one.description()).collect());
    let session = Session { iperf3: &iperf3, settings: &settings };
    for round in 0..settings.rounds {
        play(round, &systems, &session, &mut samples, begin);
    }
    let verdicts = targets::judge(&samples);
    report::print(&samples, &verdicts, &settings, begin.elapsed());
    report::write(&samples, &verdicts, &settings, begin.elapsed())?;
    ensure!(samples.measured_anything(), "nothing could be measured");
    Ok(())
}

/// One round: every system once.
fn play(
    round: usize,
    systems: &[Box<dyn System>],
    session: &Session<'_>,
    samples: &mut Samples,
    begin: Instant,
) {
    let rounds = session.settings.rounds;
    let announce = |name| report::progress(&format!("round {}/{rounds}  {name}", round + 1), begin.elapsed());
    let mut order: Vec<&dyn System> = systems.iter().map(AsRef::as_ref).collect();
    // Who comes first changes from round to round, who follows whom does not.
    order.rotate_left(round * systems.len() / rounds);
    for system in order {
        if samples.absent(system.name()).is_none() {
            announce(system.name());
            session.play(system, samples);
        }
    }
    if session.settings.wants(measure::ATTACH) {
        announce(measure::ATTACH);
        session.attach(samples);
    }
    if session.settings.wants(measure::PODS[0]) {
        announce(measure::PODS[0]);
        session.pods(samples);
    }
}
