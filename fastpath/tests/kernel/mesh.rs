//! Several hosts on one underlay, and what a full mesh of fastpath peers wants of each.
//!
//! ```text
//! host 1: u0 192.0.2.1, 2001:db8::1 --+
//! host 2: u0 192.0.2.2, 2001:db8::2 --+-- underlay: a bridge in a namespace of its own
//! ...
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;

use netlink_packet_route::address::{AddressAttribute, AddressFlags};
use rtnetlink::{LinkBridge, LinkUnspec, LinkVeth};
use weft_fastpath::{Desired, MacAddr, Remote, RemoteId, Underlay, Vxlan};

use crate::world::{MTU, Namespace, fastpath, wish};

/// The port and the network of all meshes in these tests.
pub(crate) const PORT: u16 = 6784;
pub(crate) const VNI: u32 = 0xfed7;

/// Room for the longest packet of the bridge with all that VXLAN over IPv6 puts around it.
const UNDERLAY_MTU: u32 = MTU + 70;

/// Hosts, and the wire between them.
pub(crate) struct Mesh {
    pub(crate) hosts: Vec<Namespace>,
    _underlay: Namespace,
}

/// Netlink as a stranger on the host would use it.
pub(crate) fn stranger() -> rtnetlink::Handle {
    let (connection, handle, _) = rtnetlink::new_connection().unwrap();
    tokio::spawn(connection);
    handle
}

/// The name of host `number`, counted from 1.
pub(crate) fn name(number: usize) -> u64 {
    0xabcd_0000_0000_0000 | (number as u64) << 24
}

/// Where host `number` is.
pub(crate) fn address(underlay: Underlay, number: usize) -> IpAddr {
    let low = u16::try_from(number).unwrap();
    match underlay {
        Underlay::V4 => Ipv4Addr::new(192, 0, 2, u8::try_from(low).unwrap()).into(),
        Underlay::V6 => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, low).into(),
    }
}

/// Where the VXLAN device of host `number` listens.
pub(crate) fn vtep(number: usize) -> SocketAddr {
    SocketAddr::new(address(Underlay::V4, number), PORT)
}

/// The VXLAN device's address of host `number`.
pub(crate) fn device(number: usize) -> MacAddr {
    MacAddr::vxlan_of(name(number))
}

/// What is known of host `number` by all others.
pub(crate) fn remote(underlay: Underlay, number: usize) -> (RemoteId, Remote) {
    let address = address(underlay, number);
    (RemoteId(name(number)), Remote { address, port: PORT, mac: device(number), default: true })
}

/// What host `me` wants when all of `others` are on fastpath.
pub(crate) fn wants(me: usize, underlay: Underlay, others: impl IntoIterator<Item = usize>) -> Desired {
    let mut vxlan = Vxlan::new(PORT, VNI, device(me));
    vxlan.remotes = others.into_iter().filter(|other| *other != me).map(|it| remote(underlay, it)).collect();
    let mut desired = wish();
    desired.mac = MacAddr::from_peer(name(me));
    desired.vxlan = Some(vxlan);
    desired
}

/// A full mesh that has converged.
pub(crate) fn mesh(count: usize, underlay: Underlay) -> Mesh {
    let wire = Namespace::new();
    let hosts: Vec<Namespace> = (0..count).map(|_| Namespace::new()).collect();
    wire.block_on(|| async {
        let links = stranger().link();
        links.add(LinkBridge::new("wire").up().build()).execute().await.unwrap();
        let bridge = nix::net::if_::if_nametoindex("wire").unwrap();
        for (at, host) in hosts.iter().enumerate() {
            let far = LinkUnspec::new_with_name("u0")
                .mtu(UNDERLAY_MTU)
                .setns_by_fd(host.descriptor().as_raw_fd())
                .build();
            let port = LinkVeth::new(&format!("p{at}"), "unused")
                .set_info_data(netlink_packet_route::link::InfoData::Veth(
                    netlink_packet_route::link::InfoVeth::Peer(far),
                ))
                .controller(bridge)
                .mtu(UNDERLAY_MTU)
                .up();
            links.add(port.build()).execute().await.unwrap();
        }
    });
    for (at, host) in hosts.iter().enumerate() {
        host.block_on(|| async {
            let index = nix::net::if_::if_nametoindex("u0").unwrap();
            stranger().link().change(LinkUnspec::new_with_name("u0").up().build()).execute().await.unwrap();
            for (underlay, prefix) in [(Underlay::V4, 24), (Underlay::V6, 64)] {
                let mut add = stranger().address().add(index, address(underlay, at + 1), prefix);
                add.message_mut().attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
                add.execute().await.unwrap();
            }
            let report = fastpath().converge(&wants(at + 1, underlay, 1..=count)).await.unwrap();
            assert!(report.no_vxlan.is_empty() && report.unmet.is_empty(), "{report:?}");
        });
    }
    Mesh { hosts, _underlay: wire }
}
