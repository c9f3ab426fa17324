//! Our own plugin on a host whose router runs: where its binary is, how a network names it, what pods leave behind.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{Conflist, Runtime};
use crate::fabric::Fabric;
use crate::host::{self, Host};
use crate::{command, deadline};

/// The `weft-net` binary: `WEFT_NET_BIN`, or the one beside `weft`.
///
/// # Errors
/// When there is none.
pub fn binary() -> Result<PathBuf> {
    if let Some(named) = std::env::var_os("WEFT_NET_BIN") {
        return std::fs::canonicalize(&named).with_context(|| format!("WEFT_NET_BIN: {}", named.display()));
    }
    let beside = host::binary()?.with_file_name("weft-net");
    ensure!(beside.is_file(), "no weft-net binary: set WEFT_NET_BIN, or build it: `cargo build -p weft-cni`");
    Ok(beside)
}

/// The plugin that kills itself at the step `WEFT_CNI_FAULT` names: `WEFT_NET_FAULTS`, or built now, apart from the
/// product.
///
/// # Errors
/// When it cannot be built.
pub fn faulty_binary() -> Result<PathBuf> {
    if let Some(named) = std::env::var_os("WEFT_NET_FAULTS") {
        return std::fs::canonicalize(&named)
            .with_context(|| format!("WEFT_NET_FAULTS: {}", named.display()));
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the crate stands in the workspace")?;
    let folder = root.join("target/faults");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "--locked", "--offline", "-p", "weft-cni", "--features", "faults"]);
    cargo.arg("--target-dir").arg(&folder).current_dir(root);
    command::run(&mut cargo, "", Duration::from_secs(180))?
        .success("cargo build of the plugin with faults")?;
    Ok(folder.join("debug/weft-net"))
}

/// A folder with the plugin under both its names, as an installation has it.
///
/// # Errors
/// When there is no binary.
pub fn plugins(fabric: &Fabric) -> Result<PathBuf> {
    let folder = fabric.home().join("cni-bin");
    if !folder.exists() {
        link(&folder, &binary()?)?;
    }
    Ok(folder)
}

/// Makes a folder in which both names of the plugin are this binary.
///
/// # Errors
/// When the file system refuses.
pub fn link(folder: &Path, binary: &Path) -> Result<()> {
    std::fs::create_dir_all(folder)?;
    for name in ["weft-net", "weft-ipam"] {
        std::os::unix::fs::symlink(binary, folder.join(name))
            .with_context(|| format!("{}", folder.display()))?;
    }
    Ok(())
}

/// A runtime on a host that finds our plugin first.
///
/// # Errors
/// When there is no binary.
pub fn runtime(fabric: &Fabric, host: &Host) -> Result<Runtime> {
    Ok(Runtime::new(host.netns(), &[&plugins(fabric)?]))
}

/// A host whose router can serve, and a runtime on it.
///
/// # Errors
/// When the router does not come up, or there is no binary.
pub fn serving(fabric: &Fabric) -> Result<(Host, Runtime)> {
    let mut host = fabric.host("host1")?;
    host.launch(&[])?;
    host.wait_ready()?;
    let runtime = runtime(fabric, &host)?;
    Ok((host, runtime))
}

/// The network of a host's router, with nothing but where the router is.
///
/// # Errors
/// Never for a version that is a word.
pub fn network(host: &Host, version: &str) -> Result<Conflist> {
    network_with(host, version, json!({}))
}

/// As [`network`], with further keys for the plugin.
///
/// # Errors
/// When they are not an object.
pub fn network_with(host: &Host, version: &str, further: Value) -> Result<Conflist> {
    let mut plugin = json!({"type": "weft-net", "socket": host.socket()});
    let keys = plugin.as_object_mut().context("it is an object")?;
    keys.extend(further.as_object().context("further keys are an object")?.clone());
    Ok(Conflist::of(version, "weft", json!([plugin]))?)
}

/// All that pods hold on a host: two of these are equal when nothing has leaked between them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holdings {
    /// Addresses in use.
    pub used: u64,
    /// Attachments, by id.
    pub attachments: BTreeSet<String>,
    /// Links in the host's namespace, by name.
    pub links: BTreeSet<String>,
    /// Notes for the router that nobody has read.
    pub notes: usize,
}

impl Holdings {
    /// What is held now.
    ///
    /// # Errors
    /// When no router answers.
    pub fn of(host: &Host) -> Result<Self> {
        let status = host.status()?;
        let attachments = status["attachments"].as_array().into_iter().flatten();
        let links = host.netns().ip("-o link")?;
        let names = links.lines().filter_map(|line| line.split_whitespace().nth(1));
        Ok(Self {
            used: status["ipam"]["used"].as_u64().context("no ipam.used")?,
            attachments: attachments.filter_map(|one| one["id"].as_str().map(str::to_owned)).collect(),
            links: names.map(|name| name.trim_end_matches(':').to_owned()).collect(),
            notes: std::fs::read_dir(weft_api::notes_directory(&host.socket())).map_or(0, Iterator::count),
        })
    }

    /// Waits until exactly this is held again.
    ///
    /// # Errors
    /// When it is not in time; the message shows both.
    pub fn wait_again(&self, host: &Host, limit: Duration) -> Result<Duration> {
        let mut last = None;
        let waited = deadline::until_true("nothing has leaked", limit, || {
            let now = Self::of(host)?;
            let same = now == *self;
            last = Some(now);
            Ok(same)
        });
        waited.with_context(|| format!("before: {self:?}\nnow: {last:?}"))
    }
}
