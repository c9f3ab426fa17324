//! What the CNI plugin asks of the router, and what it hears: one pod's interface, or one pod's address.
//!
//! Addresses, routes and MAC addresses travel as text, as everywhere in this API; the router parses them.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::Request;

/// What names a pod's interface: the two together are unique on a host.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CniName {
    /// `CNI_CONTAINERID`.
    pub container: String,
    /// `CNI_IFNAME`: the interface's name inside.
    pub ifname: String,
}

/// How to connect a pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CniAdd {
    /// Which interface of which pod.
    pub name: CniName,
    /// The network's name, by which a garbage collection finds its own.
    pub network: String,
    /// The namespace's path, for logs and status only; the descriptor counts.
    pub netns: String,
    /// The bridge that the configuration names; refused when the router has another.
    pub bridge: Option<String>,
    /// The interface's MTU in bytes; by default the router's, and never more than that.
    pub mtu: Option<u32>,
    /// The interface's MAC address; by default it is made from the first address.
    pub mac: Option<String>,
    /// Whether a frame may leave by the port it came from.
    pub hairpin: bool,
    /// The addresses it must have, each with or without a prefix length; empty: allocate one.
    pub addresses: Vec<String>,
    /// Where an allocated address is to be taken from; by default the whole range.
    pub subnet: Option<String>,
    /// Where routes without a gateway lead; by default the host's own address on the bridge, made if there is none.
    pub gateway: Option<String>,
    /// The routes inside; by default the default route.
    pub routes: Option<Vec<CniRoute>>,
    /// Whether the pod is to reach what is outside of the network by its host's addresses.
    pub outward: bool,
    /// How long to wait for an address.
    pub timeout_ms: u64,
}

/// A route inside a pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CniRoute {
    /// Where it leads, with its prefix length.
    pub dst: String,
    /// By whom; none is on the link itself (in a request: by the default gateway, when there is one on the link).
    pub gw: Option<String>,
}

/// A pod that is connected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CniAttached {
    /// The bridge.
    pub bridge: String,
    /// Its MAC address.
    pub bridge_mac: String,
    /// The host end of the link.
    pub host_interface: String,
    /// Its MAC address.
    pub host_mac: String,
    /// The MAC address inside.
    pub mac: String,
    /// The MTU inside, in bytes.
    pub mtu: u32,
    /// The addresses with their prefix lengths.
    pub addresses: Vec<String>,
    /// The gateway, if there is one on the link.
    pub gateway: Option<String>,
    /// The routes that were asked for, with the gateways they got.
    pub routes: Vec<CniRoute>,
}

/// An address for a pod without wiring (the IPAM-only plugin); idempotent per name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CniLease {
    /// Whose address; it is held under the id `container/ifname`.
    pub name: CniName,
    /// The network's name, by which a garbage collection finds its own.
    pub network: String,
    /// This very address; by default the lowest free one.
    pub address: Option<String>,
    /// Where it is to be taken from; by default the whole range.
    pub subnet: Option<String>,
    /// How long to wait for it.
    pub timeout_ms: u64,
}

/// Whether a pod could be connected now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CniStatus {
    /// Why not; none when it could.
    pub unavailable: Option<String>,
    /// Why those that are connected may not reach everything now; none when they do.
    pub degraded: Option<String>,
}

impl CniName {
    /// The id under which an address without wiring is held.
    pub fn lease_id(&self) -> String {
        format!("{}/{}", self.container, self.ifname)
    }
}

/// What a DEL asks of a router that is away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "snake_case")]
pub enum CniNote {
    /// Take a pod's interface back.
    Del(CniName),
    /// Take back an address without wiring.
    Release(CniName),
}

impl CniNote {
    /// What it asks.
    pub fn request(&self) -> Request {
        match self {
            Self::Del(name) => Request::CniDel(name.clone()),
            Self::Release(name) => Request::CniRelease(name.clone()),
        }
    }

    /// The name of its file: one for each thing that can be asked.
    pub fn file(&self) -> String {
        let (prefix, name) = match self {
            Self::Del(name) => ("link", name),
            Self::Release(name) => ("lease", name),
        };
        format!("{prefix}-{}%2F{}", name.container, escaped(&name.ifname))
    }
}

/// A name as part of a file's name. A container's id needs no escaping: it has only letters that may stand there.
fn escaped(name: &str) -> String {
    let letter = |byte: u8| {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-') {
            char::from(byte).to_string()
        } else {
            format!("%{byte:02X}")
        }
    };
    name.bytes().map(letter).collect()
}

/// Where notes for a router that is away lie: a directory beside its API socket. Whoever reads or does what they say
/// holds an exclusive lock on it (flock), so that nothing is undone that has been made anew meanwhile.
pub fn notes_directory(socket: &Path) -> PathBuf {
    socket.with_file_name("pending-del")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_has_one_file_that_stays_in_its_folder() {
        let name = |ifname: &str| CniName { container: "c1".into(), ifname: ifname.into() };
        assert_eq!(CniNote::Del(name("eth0")).file(), "link-c1%2Feth0");
        assert_eq!(CniNote::Release(name("eth0")).file(), "lease-c1%2Feth0");
        assert_eq!(CniNote::Del(name("a.é")).file(), "link-c1%2Fa%2E%C3%A9");
        let longest = CniName { container: "x".repeat(180), ifname: "é".repeat(7) };
        assert!(CniNote::Release(longest).file().len() <= 250);
    }
}
