//! A VXLAN device's settings, to and from netlink.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_packet_route::link::{InfoVxlan, LinkMessage, VxlanDf};
use rtnetlink::{LinkMessageBuilder, LinkVxlan};

use crate::mac::MacAddr;
use crate::names::GROUP;
use crate::vxlan::{LEARNED_LIMIT, Tunnel, Underlay};

/// A device, down. No MTU in it, as with the bridge. Over IPv4 it leaves the switches for IPv6 alone: the kernel lets
/// devices share a port (each with its own network) only when these are alike.
pub(super) fn create(name: &str, underlay: Underlay, tunnel: &Tunnel, mac: MacAddr) -> LinkMessage {
    let device = change(name, underlay, tunnel)
        .link_group(GROUP)
        .address(mac.octets().to_vec())
        .port(tunnel.port)
        .limit(LEARNED_LIMIT)
        .udp_csum(tunnel.checksum);
    match underlay {
        Underlay::V4 => device.build(),
        Underlay::V6 => {
            device.udp_zero_csum6_tx(!tunnel.checksum).udp_zero_csum6_rx(!tunnel.checksum).build()
        }
    }
}

/// What a standing device can be given. It keeps to the protocol of the source address it was born with, so that
/// is always told, if only as "any".
pub(super) fn change(name: &str, underlay: Underlay, tunnel: &Tunnel) -> LinkMessageBuilder<LinkVxlan> {
    let df = if tunnel.unfragmented { VxlanDf::Set } else { VxlanDf::Unset };
    let message = LinkVxlan::new(name, tunnel.vni).ttl(tunnel.ttl).learning(tunnel.learning).df(df);
    match (underlay, tunnel.local) {
        (Underlay::V4, Some(IpAddr::V4(local))) => message.local(local),
        (Underlay::V4, _) => message.local(Ipv4Addr::UNSPECIFIED),
        (Underlay::V6, Some(IpAddr::V6(local))) => message.local6(local),
        (Underlay::V6, _) => message.local6(Ipv6Addr::UNSPECIFIED),
    }
}

/// Reads a device's settings. One that takes its settings from each packet has network identifier 0.
pub(super) fn read(options: &[InfoVxlan]) -> Tunnel {
    let mut tunnel = Tunnel {
        vni: 0,
        port: 0,
        local: None,
        ttl: 0,
        unfragmented: false,
        learning: false,
        checksum: false,
    };
    for option in options {
        match option {
            InfoVxlan::Id(vni) => tunnel.vni = *vni,
            InfoVxlan::Port(port) => tunnel.port = *port,
            InfoVxlan::Local(local) => tunnel.local = Some(IpAddr::V4(*local)),
            InfoVxlan::Local6(local) => tunnel.local = Some(IpAddr::V6(*local)),
            InfoVxlan::Ttl(ttl) => tunnel.ttl = *ttl,
            InfoVxlan::Df(df) => tunnel.unfragmented = *df == VxlanDf::Set,
            InfoVxlan::Learning(on) => tunnel.learning = *on,
            InfoVxlan::UDPCsum(on) => tunnel.checksum = *on,
            _ => {}
        }
    }
    tunnel
}
