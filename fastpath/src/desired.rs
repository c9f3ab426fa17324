//! What the kernel must look like: the router's wish, in the router's words.
//!
//! ```text
//!   container links          bridge `weft`             sleeve pair
//!   eth0 <-> wv... ----port--[ mac, mtu, ]--isolated-- weft-sl <-> weft-io   the router captures
//!   eth0 <-> wv... ----port--[ addresses ]  ports                            and injects here
//!                                         --isolated-- weft-vx, weft-v6      the kernel carries (see `vxlan`)
//! ```
//!
//! [`Desired::links`] spells the wish out as interfaces, in the order in which they are to be made. Per carrier
//! one field: `sleeve` and `vxlan`.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use crate::link::{Flag, Kind, Link, Owner};
use crate::mac::MacAddr;
use crate::names::{BridgeName, Mark, PortId, Role};
use crate::vxlan::Vxlan;

/// Everything the router wants of the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Desired {
    /// The bridge; the names of everything else follow from it.
    pub bridge: BridgeName,
    /// The bridge's Ethernet address.
    pub mac: MacAddr,
    /// The bridge's MTU, and the sleeve's.
    pub mtu: u32,
    /// The host's own addresses on the bridge (`weft expose`).
    pub addresses: BTreeSet<IpNet>,
    /// The port to the sleeve; None: there is to be none.
    pub sleeve: Option<Sleeve>,
    /// The kernel's own carrier; None: there is to be none.
    pub vxlan: Option<Vxlan>,
    /// The container links that were made (journaled): they are held on the bridge, never made or removed here.
    pub ports: BTreeMap<PortId, ContainerPort>,
}

/// The port that leads to the router.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sleeve {
    /// Whether frames may arrive as the containers made them: oversized, with unfinished checksums (`vnet`), or
    /// must be cut and finished by the kernel first (`pcap`).
    pub offloads: bool,
}

/// The host end of one container link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContainerPort {
    /// The MTU the link was made with.
    pub mtu: u32,
    /// Down while its address is in conflict.
    pub up: bool,
    /// Whether a frame may leave by this port if it came from it.
    pub hairpin: bool,
}

impl Desired {
    /// A bridge and nothing else.
    pub fn new(bridge: BridgeName, mac: MacAddr, mtu: u32) -> Self {
        Self {
            bridge,
            mac,
            mtu,
            addresses: BTreeSet::new(),
            sleeve: None,
            vxlan: None,
            ports: BTreeMap::new(),
        }
    }

    /// The wish as interfaces, in the order in which they are to be made.
    pub fn links(&self) -> Vec<(String, Link)> {
        let mut links = self.frame();
        if let Some(vxlan) = &self.vxlan {
            for (name, link) in &mut links {
                if let Some(underlay) = self.bridge.underlay_of(name) {
                    link.entries = vxlan.entries(underlay);
                }
            }
        }
        links
    }

    /// The same without forwarding entries, of which there may be thousands.
    pub(crate) fn frame(&self) -> Vec<(String, Link)> {
        let mut links = vec![(self.bridge.to_string(), self.bridge_link())];
        if let Some(sleeve) = self.sleeve {
            links.push((self.bridge.capture(), self.capture_link()));
            links.push((self.bridge.sleeve_port(), self.sleeve_link(sleeve)));
        }
        if let Some(vxlan) = &self.vxlan {
            for underlay in vxlan.underlays() {
                let link = vxlan.link(&self.bridge, underlay, self.mtu);
                links.push((self.bridge.vxlan(underlay), link));
            }
        }
        for (id, port) in &self.ports {
            links.push((self.bridge.host_end(id), port.link(&self.bridge, id)));
        }
        links
    }

    fn ours(&self, kind: Kind, role: Role) -> Link {
        Link { mtu: self.mtu, ..Link::new(kind, Owner::Ours(Mark { bridge: self.bridge.clone(), role })) }
    }

    fn bridge_link(&self) -> Link {
        Link {
            mac: Some(self.mac),
            flags: BTreeMap::from([
                (Flag::Grouped, true),
                (Flag::SpanningTree, false),
                (Flag::MulticastSnooping, false),
                (Flag::LinkLocalLearning, false),
                (Flag::AddressGeneration, false),
                (Flag::RouterAdvertisements, false),
                (Flag::Up, true),
            ]),
            addresses: self.addresses.clone(),
            ..self.ours(Kind::Bridge, Role::Bridge)
        }
    }

    fn capture_link(&self) -> Link {
        let kind = Kind::Veth { peer: Some(self.bridge.sleeve_port()) };
        Link {
            flags: BTreeMap::from([
                (Flag::Grouped, true),
                (Flag::AddressGeneration, false),
                (Flag::RouterAdvertisements, false),
                (Flag::Deaf, true),
                (Flag::Up, true),
            ]),
            ..self.ours(kind, Role::Capture)
        }
    }

    fn sleeve_link(&self, sleeve: Sleeve) -> Link {
        let kind = Kind::Veth { peer: Some(self.bridge.capture()) };
        Link {
            bridge: Some(self.bridge.to_string()),
            flags: BTreeMap::from([
                (Flag::Grouped, true),
                (Flag::AddressGeneration, false),
                (Flag::Offloads, sleeve.offloads),
                (Flag::Isolated, true),
                (Flag::Hairpin, false),
                (Flag::Up, true),
            ]),
            ..self.ours(kind, Role::SleevePort)
        }
    }
}

impl ContainerPort {
    /// The host end as it must be.
    pub(crate) fn link(self, bridge: &BridgeName, id: &PortId) -> Link {
        let mark = Mark { bridge: bridge.clone(), role: Role::Container(id.clone()) };
        Link {
            mtu: self.mtu,
            bridge: Some(bridge.to_string()),
            flags: BTreeMap::from([
                (Flag::Grouped, true),
                (Flag::AddressGeneration, false),
                (Flag::Isolated, false),
                (Flag::Hairpin, self.hairpin),
                (Flag::Up, self.up),
            ]),
            ..Link::new(Kind::Veth { peer: None }, Owner::Ours(mark))
        }
    }
}
