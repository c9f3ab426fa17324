//! Where other people's programs are: on the `PATH`, or where `peers.sh` has unpacked them; and why they are not.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, anyhow};

/// The programs at hand.
#[derive(Debug, Clone)]
pub(crate) struct Programs {
    folder: PathBuf,
    crates: bool,
}

/// A program that is there.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    path: PathBuf,
    libraries: Option<OsString>,
}

impl Programs {
    /// Looks on the `PATH` and below this folder; for crates built there only when they are asked for.
    pub(crate) fn new(folder: &Path, crates: bool) -> Self {
        Self { crates, folder: std::path::absolute(folder).unwrap_or_else(|_| folder.to_path_buf()) }
    }

    /// A program of this machine, or the Debian 12 package's.
    pub(crate) fn find(&self, name: &str) -> Result<Program> {
        self.find_for(name, name)
    }

    /// As [`Self::find`]; when it is not there the reason is looked up under the name of the peer it belongs to.
    pub(crate) fn find_for(&self, name: &str, peer: &str) -> Result<Program> {
        let on_path = std::env::var_os("PATH").unwrap_or_default();
        let folders = std::env::split_paths(&on_path).chain(["/usr/sbin".into(), "/sbin".into()]);
        if let Some(path) = folders.map(|folder| folder.join(name)).find(|path| path.is_file()) {
            return Ok(Program { path, libraries: None });
        }
        self.in_suite("bookworm", name).or_else(|| self.in_folder(name)).ok_or_else(|| self.why(name, peer))
    }

    /// The program of one Debian release, whatever this machine has.
    pub(crate) fn find_in(&self, suite: &str, name: &str, peer: &str) -> Result<Program> {
        self.in_suite(suite, name).ok_or_else(|| self.why(name, peer))
    }

    /// Which version of a package was fetched for a peer.
    pub(crate) fn fetched_version(&self, peer: &str) -> Option<String> {
        let text = std::fs::read_to_string(self.folder.join(format!("{peer}.version"))).ok()?;
        Some(text.trim().to_owned())
    }

    fn in_folder(&self, name: &str) -> Option<Program> {
        let path = self.folder.join("bin").join(name);
        (self.crates && path.is_file()).then_some(Program { path, libraries: None })
    }

    fn in_suite(&self, suite: &str, name: &str) -> Option<Program> {
        let root = self.folder.join(suite);
        let places = ["usr/bin", "usr/sbin", "bin", "sbin"].map(|place| root.join(place).join(name));
        let path = places.into_iter().find(|path| path.is_file())?;
        let folders = ["usr/lib", "lib"].map(|place| root.join(place)).into_iter().flat_map(architectures);
        Some(Program { path, libraries: std::env::join_paths(folders).ok() })
    }

    fn why(&self, name: &str, peer: &str) -> anyhow::Error {
        match std::fs::read_to_string(self.folder.join(format!("{peer}.missing"))) {
            Ok(reason) => anyhow!("no {name}: {}", reason.trim()),
            Err(_) => anyhow!("no {name} here, and none was asked for (PEERS=apt or PEERS=all)"),
        }
    }
}

/// `lib/x86_64-linux-gnu` and its like.
fn architectures(lib: PathBuf) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(lib).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.filter(|path| path.to_string_lossy().ends_with("-linux-gnu")).collect()
}

impl Program {
    /// A command that runs it with the libraries that came with it.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.path);
        if let Some(libraries) = &self.libraries {
            command.env("LD_LIBRARY_PATH", libraries);
        }
        command
    }

    /// The first line it prints that holds a digit, when asked for its version.
    pub(crate) fn version(&self) -> Result<String> {
        let output = self.command().arg("--version").output().context("cannot ask for the version")?;
        let said = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&said);
        let line = text.lines().find(|line| line.chars().any(|letter| letter.is_ascii_digit()));
        Ok(line.context("it did not say")?.trim().chars().take(80).collect())
    }
}
