//! System calls that fail at random: a little library that is compiled once and preloaded into routers.
//!
//! Preloaded and not traced: a tracer would stop the router at every call of every thread, and cannot tell the netlink
//! sockets from those of the mesh, where an error ends a connection, as it should.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use crate::{Fabric, Host, command};

const SOURCE: &str = include_str!("flaky/flaky.c");

/// The compiled library.
#[derive(Debug)]
pub struct Flaky {
    library: PathBuf,
}

impl Flaky {
    /// Compiles it into the fabric's directory.
    ///
    /// # Errors
    /// When there is no C compiler.
    pub fn compile(fabric: &Fabric) -> Result<Self> {
        let library = fabric.home().join("flaky.so");
        let mut gcc = Command::new("gcc");
        gcc.args(["-O2", "-Wall", "-Werror", "-shared", "-fPIC", "-x", "c", "-", "-ldl", "-o"]).arg(&library);
        command::run(&mut gcc, SOURCE, Duration::from_secs(30))?.success("gcc flaky.c")?;
        Ok(Self { library })
    }

    /// Makes one netlink call in so many fail, in later launches on a host.
    pub fn afflict(&self, host: &mut Host, one_in: u32, seed: u64) {
        let tally = tally(host);
        let words = [
            ("LD_PRELOAD", self.library.display().to_string()),
            ("FLAKY_ONE_IN", one_in.to_string()),
            ("FLAKY_SEED", seed.to_string()),
            ("FLAKY_TALLY", tally.display().to_string()),
        ];
        words.iter().for_each(|(name, value)| host.set_environment(name, value));
    }

    /// How many calls have failed on a host.
    pub fn failures(host: &Host) -> u64 {
        std::fs::metadata(tally(host)).map_or(0, |file| file.len())
    }
}

/// Where failures are counted: a byte each.
fn tally(host: &Host) -> PathBuf {
    host.state_dir().with_extension("failures")
}
