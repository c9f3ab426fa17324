//! The forwarding of one host's kernel: the bridge, the VXLAN device with its own table, and the source filter.
//!
//! ```text
//!  containers ──┐         ┌── sleeve port (isolated) ──► capture
//!               ├─ bridge ┤
//!  router's  ───┘  FDB    └── VXLAN port (isolated) ──► device FDB ──► UDP
//!  probe socket                                   ◄── filter ◄──
//! ```
//!
//! As tried on a real kernel: both tables learn, isolated ports never talk to each other, the device learns
//! the sender before the bridge does, and frames are delivered while no router runs.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use weft_fastpath::MacAddr;
use weft_router::overlay::{Accept, RemoteWish};

use super::agenda::HostId;

/// How long a learned entry lives after its last frame.
const AGE: Duration = Duration::from_secs(300);

/// A port of the bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Port {
    Container(usize),
    Sleeve,
    Vxlan,
    /// The host itself: where the router's own socket sends.
    Host,
}

/// Where a frame leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exit {
    Container(usize),
    Capture,
    /// To the VXLAN device of this host.
    Remote(HostId),
    /// To whoever listens on the bridge.
    Host,
}

/// What the wish of the control half says of one peer, by the host it leads to.
pub(super) type Remotes = BTreeMap<HostId, RemoteWish>;

/// The tables of one kernel.
#[derive(Debug, Default)]
pub(super) struct Bridge {
    pub(super) mac: MacAddr,
    /// The VXLAN device's own address.
    pub(super) device: MacAddr,
    /// The ports of containers that are up.
    pub(super) ports: BTreeMap<usize, MacAddr>,
    pub(super) has_sleeve: bool,
    pub(super) has_vxlan: bool,
    fdb: BTreeMap<MacAddr, (Port, Duration)>,
    /// The device's learned entries.
    behind: BTreeMap<MacAddr, (HostId, Duration)>,
    /// The device's permanent entries and the filter.
    pub(super) remotes: Remotes,
}

impl Bridge {
    /// A frame comes in by a port: where does it leave?
    pub(super) fn forward(&mut self, from: Port, frame: &[u8], now: Duration, exits: &mut Vec<Exit>) {
        let (Some(to), Some(source)) = (address(frame, 0), address(frame, 6)) else { return };
        if from != Port::Host && !source.is_multicast() {
            self.fdb.insert(source, (from, now));
        }
        if to == self.mac || to == self.device {
            return exits.push(Exit::Host);
        }
        if !to.is_multicast() {
            if self.permanent(to).is_some() {
                return self.leave(from, Port::Vxlan, to, now, exits);
            }
            let known = self.fdb.get(&to).filter(|(_, seen)| now < *seen + AGE).map(|(port, _)| *port);
            if let Some(port) = known.filter(|port| self.stands(*port)) {
                return self.leave(from, port, to, now, exits);
            }
        }
        let containers = self.ports.keys().map(|at| Port::Container(*at));
        for port in containers.chain([Port::Sleeve, Port::Vxlan]).filter(|port| *port != from) {
            self.leave(from, port, to, now, exits);
        }
        if to.is_multicast() && from != Port::Host {
            exits.push(Exit::Host);
        }
    }

    /// Whose VXLAN device this is the address of, if the device has an entry for it.
    fn permanent(&self, mac: MacAddr) -> Option<HostId> {
        // Containers' addresses are of another kind (`MacAddr::vxlan_of`): no need to look for those.
        let device = mac.octets()[0] == self.device.octets()[0];
        let mut remotes = self.remotes.iter().filter(|_| device);
        remotes.find(|(_, remote)| remote.mac == mac).map(|(host, _)| *host)
    }

    /// A packet came in from a host: whether the filter and the device let its frame in.
    pub(super) fn admit(&mut self, from: HostId, frame: &[u8], now: Duration) -> bool {
        let Some(accept) = self.remotes.get(&from).map(|remote| remote.accept) else { return false };
        let least = if is_probe(frame) { Accept::Probes } else { Accept::Frames };
        if !self.has_vxlan || accept < least {
            return false;
        }
        let learned = |source: &MacAddr| !source.is_multicast() && self.permanent(*source).is_none();
        if let Some(source) = address(frame, 6).filter(learned) {
            self.behind.insert(source, (from, now));
        }
        true
    }

    fn stands(&self, port: Port) -> bool {
        match port {
            Port::Container(at) => self.ports.contains_key(&at),
            Port::Sleeve => self.has_sleeve,
            Port::Vxlan => self.has_vxlan,
            Port::Host => true,
        }
    }

    fn leave(&self, from: Port, port: Port, to: MacAddr, now: Duration, exits: &mut Vec<Exit>) {
        let isolated = |port| matches!(port, Port::Sleeve | Port::Vxlan);
        let back = port == from && !matches!(port, Port::Container(_));
        if back || !self.stands(port) || (isolated(port) && isolated(from)) {
            return;
        }
        match port {
            Port::Container(at) => exits.push(Exit::Container(at)),
            Port::Sleeve => exits.push(Exit::Capture),
            Port::Host => exits.push(Exit::Host),
            Port::Vxlan => self.tunnel(to, now, exits),
        }
    }

    /// Where the VXLAN device sends a frame.
    fn tunnel(&self, to: MacAddr, now: Duration, exits: &mut Vec<Exit>) {
        let learned = || self.behind.get(&to).filter(|(_, seen)| now < *seen + AGE).map(|(host, _)| *host);
        if let Some(host) = self.permanent(to).or_else(learned) {
            return exits.push(Exit::Remote(host));
        }
        let defaults = self.remotes.iter().filter(|(_, remote)| remote.default);
        exits.extend(defaults.map(|(host, _)| Exit::Remote(*host)));
    }

    /// Moves everything behind a host from the VXLAN device to the sleeve port; says what that was.
    pub(super) fn move_to_sleeve(&mut self, host: HostId, now: Duration) -> Vec<MacAddr> {
        let macs: Vec<MacAddr> =
            self.behind.iter().filter(|(_, (at, _))| *at == host).map(|(mac, _)| *mac).collect();
        for mac in &macs {
            if let Some(entry) = self.fdb.get_mut(mac).filter(|(port, _)| *port == Port::Vxlan) {
                *entry = (Port::Sleeve, now);
            }
            self.behind.remove(mac);
        }
        macs
    }

    /// Moves those of these addresses that are on the sleeve port to the VXLAN port, and tells the device who has them.
    pub(super) fn move_to_vxlan(
        &mut self,
        host: HostId,
        macs: impl IntoIterator<Item = MacAddr>,
        now: Duration,
    ) {
        for mac in macs {
            if let Some(entry) = self.fdb.get_mut(&mac).filter(|(port, _)| *port == Port::Sleeve) {
                *entry = (Port::Vxlan, now);
                self.behind.insert(mac, (host, now));
            }
        }
    }

    /// Forgets what was learned by the sleeve port: a new router knows nothing of it, so it could not move it.
    pub(super) fn flush_sleeve(&mut self) {
        self.fdb.retain(|_, (port, _)| *port != Port::Sleeve);
    }

    /// Forgets what was learned by VXLAN behind other hosts than these: nobody would move it.
    pub(super) fn flush_vxlan(&mut self, but: &BTreeSet<HostId>) {
        let Self { fdb, behind, .. } = self;
        behind.retain(|mac, (host, _)| {
            let served = but.contains(host);
            if !served && fdb.get(mac).is_some_and(|(port, _)| *port == Port::Vxlan) {
                fdb.remove(mac);
            }
            served
        });
    }

    /// A port goes, and what was learned by it.
    pub(super) fn unplug(&mut self, container: usize) {
        self.ports.remove(&container);
        self.fdb.retain(|_, (port, _)| *port != Port::Container(container));
    }

    /// Who is let in how far, and who gets flooded frames.
    pub(super) fn describe_remotes(&self) -> String {
        let word = |(host, remote): (&HostId, &RemoteWish)| {
            format!("host{host} {:?}{}", remote.accept, if remote.default { " default" } else { "" })
        };
        self.remotes.iter().map(word).collect::<Vec<_>>().join(", ")
    }

    pub(super) fn describe(&self, mac: MacAddr) -> String {
        format!("{mac}: bridge {:?}, device {:?}", self.fdb.get(&mac), self.behind.get(&mac))
    }
}

/// The experimental ethertype that probes travel under (IEEE 802, local experimental).
const PROBES: [u8; 2] = [0x88, 0xb5];

fn address(frame: &[u8], at: usize) -> Option<MacAddr> {
    MacAddr::from_slice(frame.get(at..at + 6)?)
}

/// Whether a frame is a probe of the VXLAN path.
pub(super) fn is_probe(frame: &[u8]) -> bool {
    frame.get(12..14) == Some(&PROBES[..])
}

/// A frame with these addresses and bytes.
pub(super) fn frame(to: MacAddr, from: MacAddr, kind: [u8; 2], bytes: &[u8]) -> Vec<u8> {
    [&to.octets()[..], &from.octets(), &kind, bytes].concat()
}

/// A probe from a host's VXLAN device.
pub(super) fn probe(to: MacAddr, from: MacAddr, bytes: &[u8]) -> Vec<u8> {
    frame(to, from, PROBES, bytes)
}
