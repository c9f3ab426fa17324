//! A real container runtime on a host of the fabric: Debian's containerd, started by hand, with all it owns in the
//! test's folder.
//!
//! ```text
//!   host1 (namespace)                     host2
//!   containerd ── CRI ── test ── CRI ── containerd      root, state, socket, images, CNI folders: each its own
//!     pod  pod                             pod          started by runc, connected by what /cni/net.d says
//! ```
//!
//! Two of them in two namespaces are two nodes. All that a containerd leaves behind when it is killed (shims, mounts,
//! cgroups) goes with the [`Containerd`]; what a killed test run leaves is removed by the next.

mod cri;
mod image;
mod leftovers;
mod messages;
mod pod;

pub use cri::Cri;
pub use image::{BOX, import};
pub use pod::{ContainerSpec, Pod, PodSpec};

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Once;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::cni::Conflist;
use crate::fabric::Fabric;
use crate::netns::Netns;
use crate::process::Process;
use crate::{command, deadline};

/// How long containerd may take until it answers.
const START: Duration = Duration::from_secs(20);
/// Where Debian keeps the reference plugins.
const REFERENCE: &str = "/usr/lib/cni";

static SWEPT: Once = Once::new();

/// A running containerd.
#[derive(Debug)]
pub struct Containerd {
    process: Process,
    cri: Cri,
    home: PathBuf,
    cgroup: String,
}

impl Containerd {
    /// Starts one in a host's namespace. Its plugins are the reference ones; there is no network until
    /// [`Self::set_network`].
    ///
    /// # Errors
    /// When a program is missing, or containerd does not come up.
    pub fn start(fabric: &Fabric, name: &str, netns: &Netns) -> Result<Self> {
        stand_on_firm_ground()?;
        SWEPT.call_once(leftovers::sweep);
        let home = fabric.home().join(format!("{name}-cd"));
        for folder in ["cni/bin", "cni/net.d", "root", "state", "pods"] {
            std::fs::create_dir_all(home.join(folder))?;
        }
        for plugin in std::fs::read_dir(REFERENCE).context("no reference plugins")?.flatten() {
            std::os::unix::fs::symlink(plugin.path(), home.join("cni/bin").join(plugin.file_name()))?;
        }
        std::fs::write(home.join("config.toml"), configuration(&home))?;
        let mut containerd = Command::new("containerd");
        containerd.arg("--config").arg(home.join("config.toml"));
        let log = fabric.home().join(format!("{name}-containerd.log"));
        let process = Process::start(netns, containerd, &log)?;
        let socket = home.join("c.sock");
        let connected = deadline::until("containerd answers", START, || {
            let cri = Cri::connect(&socket)?;
            cri.conditions()?;
            Ok(Some(cri))
        });
        let (cri, _) = connected?;
        let run = home.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy();
        let cgroup = format!("/{run}-{name}");
        let this = Self { process, cri, home, cgroup };
        image::import_box(&this)?;
        Ok(this)
    }

    /// The folder all its things are in.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// Where it looks for plugins.
    pub fn plugins(&self) -> PathBuf {
        self.home.join("cni/bin")
    }

    /// Where it looks for network configurations.
    pub fn networks(&self) -> PathBuf {
        self.home.join("cni/net.d")
    }

    /// A folder of this host's own, as its `/run` or `/var/lib` would be.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn folder(&self, name: &str) -> Result<PathBuf> {
        let folder = self.home.join(name);
        std::fs::create_dir_all(&folder)?;
        Ok(folder)
    }

    /// The interface to it.
    pub fn cri(&self) -> &Cri {
        &self.cri
    }

    /// The parent of all its pods' cgroups.
    pub(crate) fn cgroup(&self) -> String {
        self.cgroup.clone()
    }

    /// Connects later pods by this list, and waits until containerd has read it.
    ///
    /// # Errors
    /// When containerd does not take it.
    pub fn set_network(&self, list: &Conflist) -> Result<()> {
        list.write(&self.networks().join("10-test.conflist"))?;
        self.wait_network(Duration::from_secs(10))
    }

    /// Waits until containerd says that its network is ready.
    ///
    /// # Errors
    /// When it does not in time.
    pub fn wait_network(&self, limit: Duration) -> Result<()> {
        let mut last = Vec::new();
        let waited = deadline::until_true("NetworkReady", limit, || {
            last = self.cri.conditions()?;
            Ok(last.iter().any(|(name, holds, _)| name == "NetworkReady" && *holds))
        });
        waited.map(drop).with_context(|| format!("{last:?}"))
    }

    /// Runs a pod's sandbox, which runs ADD.
    ///
    /// # Errors
    /// When containerd refuses, for instance because ADD failed.
    pub fn pod(&self, spec: &PodSpec) -> Result<Pod<'_>> {
        Pod::run(self, spec)
    }

    /// Runs a pod with one container of the harness' own image that runs this script.
    ///
    /// # Errors
    /// As [`Self::pod`].
    pub fn shell(&self, spec: &PodSpec, script: &str) -> Result<(Pod<'_>, String)> {
        let pod = self.pod(spec)?;
        let container = pod.start(&ContainerSpec::shell(script))?;
        Ok((pod, container))
    }

    /// Runs `ctr` against it.
    pub(crate) fn ctr(&self, words: &[&str]) -> Result<String> {
        let mut ctr = Command::new("ctr");
        ctr.arg("--address").arg(self.home.join("c.sock")).args(["-n", "k8s.io"]).args(words);
        command::run(&mut ctr, "", Duration::from_secs(60))?.success(&format!("ctr {}", words.join(" ")))
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        for pod in self.cri.pods().unwrap_or_default() {
            let _ = self.cri.remove_pod(&pod);
        }
        self.process.kill();
        leftovers::remove(&self.home, &self.cgroup);
    }
}

/// Names what is missing before anything fails for a reason nobody understands.
fn stand_on_firm_ground() -> Result<()> {
    for tool in ["containerd", "ctr", "runc", "busybox", "iptables", "tar", "sha256sum"] {
        let folders = ["/usr/local/bin", "/usr/local/sbin", "/usr/bin", "/usr/sbin", "/bin", "/sbin"];
        let found = folders.iter().any(|folder| Path::new(folder).join(tool).exists());
        ensure!(found, "no {tool}: tests/setup.sh installs what the tests need");
    }
    ensure!(Path::new(REFERENCE).join("portmap").exists(), "no {REFERENCE}/portmap: run tests/setup.sh");
    let map = std::fs::read_to_string("/proc/self/uid_map")?;
    ensure!(
        map.split_whitespace().eq(["0", "0", "4294967295"]),
        "containerd needs the machine's own root, not that of a user namespace"
    );
    Ok(())
}

/// All paths below the test's folder, no listener but the socket, snapshots as plain copies: an overlay cannot stand on
/// an overlay.
fn configuration(home: &Path) -> String {
    let home = home.display();
    let cri = "plugins.\"io.containerd.grpc.v1.cri\"";
    format!(
        "version = 2\nroot = \"{home}/root\"\nstate = \"{home}/state\"\noom_score = 0\n\
         [grpc]\naddress = \"{home}/c.sock\"\n\
         [plugins.\"io.containerd.internal.v1.opt\"]\npath = \"{home}/opt\"\n\
         [{cri}]\nsandbox_image = \"{BOX}\"\nrestrict_oom_score_adj = true\ndisable_tcp_service = true\n\
         netns_mounts_under_state_dir = true\n\
         [{cri}.cni]\nbin_dir = \"{home}/cni/bin\"\nconf_dir = \"{home}/cni/net.d\"\nmax_conf_num = 1\n\
         [{cri}.containerd]\nsnapshotter = \"native\"\ndefault_runtime_name = \"runc\"\n\
         [{cri}.containerd.runtimes.runc]\nruntime_type = \"io.containerd.runc.v2\"\n"
    )
}
