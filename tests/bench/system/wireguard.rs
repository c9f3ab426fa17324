//! WireGuard in user space: two releases of wireguard-go, and boringtun. Layer 3: the hosts route through it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use weft_tests::{Fabric, deadline};

use super::{Description, Role, System, ask, found, missing, write};
use crate::programs::{Program, Programs};
use crate::stage::{Layer, Stage};

/// Where these programs put the socket that `wg` speaks to, outside every network namespace.
const SOCKETS: &str = "/var/run/wireguard";
/// What every interface of ours begins with; the pid and a letter follow.
const PREFIX: &str = "wb";
const PORT: u16 = 51820;

/// One implementation.
pub(super) struct Wireguard {
    description: Description,
    program: Result<Program>,
    arguments: &'static [&'static str],
    wg: Result<Program>,
    version: Option<String>,
}

/// Every implementation.
pub(super) fn all(programs: &Programs) -> Vec<Wireguard> {
    let peer = |name, about| Description { name, role: Role::Peer, about };
    let make = |description: Description, program: Result<Program>, arguments| {
        // Debian's wireguard-go tells the version of an older file; the package knows better.
        let version = programs.fetched_version(description.name).filter(|_| program.is_ok());
        let version = version.or_else(|| super::version(&program));
        let wg = programs.find_for("wg", "wireguard-tools");
        Wireguard { description, program, arguments, wg, version }
    };
    vec![
        make(
            peer("wireguard-go", "wireguard-go of Debian 12, no segmentation offload, MTU 1400"),
            programs.find("wireguard-go"),
            &["-f"],
        ),
        make(
            peer("wireguard-go-new", "wireguard-go of Debian 13, segmentation offload, MTU 1400"),
            programs.find_in("trixie", "wireguard-go", "wireguard-go-new"),
            &["-f"],
        ),
        make(
            peer("boringtun", "boringtun-cli, MTU 1400"),
            programs.find_for("boringtun-cli", "boringtun"),
            &["-f", "--disable-drop-privileges"],
        ),
    ]
}

impl System for Wireguard {
    fn description(&self) -> Description {
        self.description.clone()
    }

    fn version(&self) -> Option<String> {
        self.version.clone()
    }

    fn obstacle(&self) -> Option<String> {
        missing(&self.program).or_else(|| missing(&self.wg))
    }

    fn up(&self, fabric: &Fabric) -> Result<Stage> {
        let mut stage = Stage::new(fabric)?;
        stage.connect(Layer::Routed, 1400)?;
        let keys = [self.pair(fabric.home(), 0)?, self.pair(fabric.home(), 1)?];
        for index in [0, 1] {
            let mut daemon = found(&self.program)?.command();
            daemon.args(self.arguments).arg(interface(index)).env("LOG_LEVEL", "error");
            daemon.env("WG_LOG_LEVEL", "error");
            stage.start(index, daemon)?;
            stage.wait_device(index, &interface(index))?;
            self.configure(&stage, index, &keys[index].0, &keys[1 - index].1)?;
        }
        Ok(stage)
    }
}

impl Wireguard {
    fn wg(&self) -> Result<Command> {
        Ok(found(&self.wg)?.command())
    }

    /// A fresh private key in a file, and its public half.
    fn pair(&self, home: &Path, index: usize) -> Result<(PathBuf, String)> {
        let (mut genkey, mut pubkey) = (self.wg()?, self.wg()?);
        genkey.arg("genkey");
        pubkey.arg("pubkey");
        let private = ask(genkey, "")?;
        let path = home.join(format!("wireguard{index}.key"));
        write(&path, &private)?;
        Ok((path, ask(pubkey, &private)?.trim().to_owned()))
    }

    fn configure(&self, stage: &Stage, index: usize, private: &Path, public: &str) -> Result<()> {
        let (name, host, other) = (interface(index), &stage.hosts[index], &stage.hosts[1 - index]);
        let socket = Path::new(SOCKETS).join(format!("{name}.sock"));
        deadline::until_true("its socket is there", Duration::from_secs(5), || Ok(socket.exists()))?;
        let mut set = self.wg()?;
        set.args(["set", &name, "listen-port", &PORT.to_string(), "private-key"]).arg(private);
        set.args(["peer", public, "allowed-ips", "0.0.0.0/0"]);
        set.args(["endpoint", &format!("{}:{PORT}", other.address())]);
        host.netns().execute(&mut set, "", Duration::from_secs(5))?.success("wg set").context("wg")?;
        host.netns().ip(&format!("link set dev {name} mtu 1400 up"))?;
        host.netns().ip(&format!("route add {} dev {name}", Stage::subnet(1 - index)))?;
        Ok(())
    }
}

/// The interface on a host: its name is also a file outside the namespace, so it carries our pid.
fn interface(index: usize) -> String {
    format!("{PREFIX}{}{}", std::process::id(), if index == 0 { 'a' } else { 'b' })
}

/// Removes the sockets of this process and of those that are no more.
pub(super) fn sweep() {
    let Ok(entries) = std::fs::read_dir(SOCKETS) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let stem = name.strip_suffix(".sock").and_then(|stem| stem.strip_prefix(PREFIX));
        let pid = stem.and_then(|stem| stem.strip_suffix(['a', 'b'])?.parse::<u32>().ok());
        let ours = |pid: u32| pid == std::process::id() || !Path::new("/proc").join(pid.to_string()).exists();
        if pid.is_some_and(ours) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}
