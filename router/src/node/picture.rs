//! What the kernel must look like, whole: the node's part and the overlay's, put together.
//!
//! The two parts change at different times and by different rules: bridge, ports and addresses wait for the disk,
//! the carriers do not. So each is handed over by itself, and only here do they become one wish for links and
//! forwarding entries ([`Picture::desired`]) and one for the source filter ([`Picture::filter`]).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use weft_fastpath::{Desired, Filter, MacAddr, Policy, Remote, RemoteId, Vxlan};
use weft_gossip::PeerName;

use crate::config::Ports;
use crate::overlay::{Accept, KernelWish};

/// What does not change while the router runs.
#[derive(Clone, Copy, Debug)]
pub struct Tunnel {
    /// This router.
    pub me: PeerName,
    /// The ports of the mesh: no container may reach them.
    pub ports: Ports,
    /// The only address to send from and to be reached at; none: all.
    pub listen: Option<IpAddr>,
    /// The network identifier, the same on every host; none: no VXLAN (`--no-fastpath`).
    pub vni: Option<u32>,
}

/// The node's part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalWish {
    /// Bridge, sleeve port, container ports and addresses.
    pub desired: Desired,
    /// What containers need of the host's firewall, and what they may not do.
    pub policy: Policy,
}

/// Both parts, and what is fixed.
#[derive(Clone, Debug)]
pub struct Picture {
    /// What is fixed.
    pub tunnel: Tunnel,
    /// The node's part.
    pub local: LocalWish,
    /// Which peers VXLAN reaches, and what is let in from them.
    pub wish: KernelWish,
}

impl Picture {
    /// Links and forwarding entries; without VXLAN where the source filter cannot be had, because an open VXLAN
    /// port takes frames from everybody.
    #[must_use]
    pub fn desired(&self, guarded: bool) -> Desired {
        let vxlan = self.tunnel.vni.filter(|_| guarded).map(|vni| Vxlan {
            local: self.tunnel.listen,
            remotes: self.remotes(),
            ..Vxlan::new(self.tunnel.ports.vxlan, vni, MacAddr::vxlan_of(self.tunnel.me.as_u64()))
        });
        Desired { vxlan, ..self.local.desired.clone() }
    }

    fn remotes(&self) -> BTreeMap<RemoteId, Remote> {
        let remotes = self.wish.remotes.iter();
        let remote = |(peer, wish): (&PeerName, &crate::overlay::RemoteWish)| {
            let remote =
                Remote { address: wish.address, port: wish.port, mac: wish.mac, default: wish.default };
            (RemoteId(peer.as_u64()), remote)
        };
        remotes.map(remote).collect()
    }

    /// The source filter.
    #[must_use]
    pub fn filter(&self) -> Filter {
        let Tunnel { ports, listen, vni, .. } = self.tunnel;
        let mut filter = Filter::new(ports.vxlan);
        filter.mesh_tcp.insert(ports.mesh);
        filter.mesh_udp.extend([ports.mesh, ports.vxlan, ports.quic]);
        filter.sources = self.accepted(Accept::Frames);
        filter.probes = self.accepted(Accept::Probes);
        filter.destination = listen;
        filter.vxlan_port = filter.vxlan_port.filter(|_| vni.is_some());
        filter
    }

    fn accepted(&self, accept: Accept) -> BTreeSet<IpAddr> {
        let remotes = self.wish.remotes.values();
        remotes.filter(|remote| remote.accept == accept).map(|remote| remote.address).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::overlay::RemoteWish;

    fn picture(vni: Option<u32>) -> Picture {
        let remote = |last, accept, default| RemoteWish {
            address: IpAddr::from([192, 0, 2, last]),
            port: 6784,
            mac: MacAddr::vxlan_of(u64::from(last) << 32),
            accept,
            default,
        };
        let remotes = [
            (PeerName::from_u64(1), remote(1, Accept::Frames, true)),
            (PeerName::from_u64(2), remote(2, Accept::Probes, false)),
        ];
        let bridge = weft_fastpath::BridgeName::default();
        Picture {
            tunnel: Tunnel { me: PeerName::from_u64(9), ports: Ports::default(), listen: None, vni },
            local: LocalWish {
                desired: Desired::new(bridge, MacAddr::new([2, 0, 0, 0, 0, 9]), 1450),
                policy: Policy::default(),
            },
            wish: KernelWish { serial: 7, remotes: remotes.into() },
        }
    }

    #[test]
    fn frames_are_let_in_from_peers_on_fastpath_and_probes_from_those_on_trial() {
        let filter = picture(Some(6784)).filter();
        assert_eq!(filter.sources, BTreeSet::from(["192.0.2.1".parse().unwrap()]));
        assert_eq!(filter.probes, BTreeSet::from(["192.0.2.2".parse().unwrap()]));
        assert_eq!(filter.mesh_udp, BTreeSet::from([6783, 6784, 6785]));
    }

    #[test]
    fn every_peer_of_the_wish_is_reached_by_probes_and_only_those_on_fastpath_by_floods() {
        let vxlan = picture(Some(6784)).desired(true).vxlan.unwrap();
        let floods: Vec<bool> = vxlan.remotes.values().map(|remote| remote.default).collect();
        assert_eq!(floods, [true, false]);
    }

    #[test]
    fn there_is_no_vxlan_without_a_filter_or_when_it_is_switched_off() {
        assert_eq!(picture(Some(6784)).desired(false).vxlan, None);
        assert_eq!(picture(None).desired(true).vxlan, None);
        assert_eq!(picture(None).filter().vxlan_port, None);
    }
}
