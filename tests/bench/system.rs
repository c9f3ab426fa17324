//! The contenders: how each connects the two containers of a stage.
//!
//! All that stands in a row of the table is built here, each by the means its own users have: `weft` by its command
//! line, the kernel by `ip` and `bridge`, the others by their configuration files.

mod kernel;
mod taps;
mod weft;
mod wireguard;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use weft_tests::{Fabric, command, deadline};

use crate::programs::{Program, Programs};
use crate::stage::Stage;

/// What a contender is to the comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// What the machine gives: a limit, not a network for containers.
    Limit,
    /// The hand-made kernel VXLAN that ratios are taken against.
    Kernel,
    /// This build.
    Ours,
    /// Somebody else's tunnel through user space.
    Peer,
}

/// What a row says of itself.
#[derive(Debug, Clone)]
pub(crate) struct Description {
    pub(crate) name: &'static str,
    pub(crate) role: Role,
    pub(crate) about: &'static str,
}

/// A way to connect containers on two hosts.
pub(crate) trait System {
    /// The name of the row.
    fn name(&self) -> &'static str {
        self.description().name
    }

    /// What it is.
    fn description(&self) -> Description;

    /// Which version runs, when its program says.
    fn version(&self) -> Option<String> {
        None
    }

    /// Why it can never be measured here: a program that is not there. Asked once before the first round.
    fn obstacle(&self) -> Option<String> {
        None
    }

    /// Builds it up on a fresh stage until the two containers can reach each other; dropping the stage takes it down.
    fn up(&self, fabric: &Fabric) -> Result<Stage>;

    /// Fails when it is no longer what the row says it is: asked again after measuring.
    fn verify(&self, _stage: &Stage) -> Result<()> {
        Ok(())
    }
}

/// Every contender, in the order of the table.
pub(crate) fn all(programs: &Programs) -> Vec<Box<dyn System>> {
    let mut all: Vec<Box<dyn System>> = vec![Box::new(kernel::Raw), Box::new(kernel::Vxlan)];
    all.extend(weft::ALL.iter().map(|one| Box::new(one.clone()) as Box<dyn System>));
    all.extend(wireguard::all(programs).into_iter().map(|one| Box::new(one) as Box<dyn System>));
    all.push(Box::new(taps::Tinc(programs.find_for("tincd", "tinc"))));
    all.push(Box::new(taps::Fastd(programs.find("fastd"))));
    all.push(Box::new(taps::Openvpn(programs.find("openvpn"), programs.find("openssl"))));
    all.push(Box::new(taps::Vpncloud(programs.find("vpncloud"))));
    all
}

/// Removes what killed runs of some contenders leave outside namespaces.
pub(crate) fn sweep() {
    wireguard::sweep();
}

/// A program, or why there is none, as a reason.
fn missing(program: &Result<Program>) -> Option<String> {
    program.as_ref().err().map(|error| format!("{error:#}"))
}

/// A program that was found to be there.
fn found(program: &Result<Program>) -> Result<&Program> {
    program.as_ref().map_err(|error| anyhow::anyhow!("{error:#}"))
}

/// The version a found program tells.
fn version(program: &Result<Program>) -> Option<String> {
    program.as_ref().ok()?.version().ok()
}

/// Runs a helper program to its end and returns what it printed.
fn ask(mut program: Command, input: &str) -> Result<String> {
    let what = program.get_program().to_string_lossy().into_owned();
    command::run(&mut program, input, Duration::from_secs(20))?.success(&what)
}

/// Writes a configuration file.
fn write(path: &Path, text: &str) -> Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// Both ends started in the same instant miss each other's first packet and wait for their own timeouts.
fn stagger() {
    deadline::pause(Duration::from_millis(300));
}
