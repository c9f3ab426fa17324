//! Carries out one change. What is found done already, or gone already, has succeeded.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use netlink_packet_core::{DefaultNla, NLA_F_NESTED};
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use netlink_packet_route::link::{
    AfSpecInet, AfSpecInet6, AfSpecUnspec, BridgeStpState, In6AddrGenMode, InfoData, InfoPortKind, InfoVeth,
    LinkAttribute, LinkMessage,
};
use rtnetlink::{
    AddressMessageBuilder, LinkBridge, LinkBridgePort, LinkMessageBuilder, LinkUnspec, LinkVeth,
};

use super::fdb;
use super::kernel::{Kernel, ask};
use super::observe::ADDRESS_MARK;
use super::offload;
use super::removal;
use super::sys;
use super::tunnel;
use crate::change::Change;
use crate::error::Error;
use crate::link::Flag;
use crate::mac::MacAddr;
use crate::names::GROUP;
use crate::vxlan::LEARNED_LIMIT;

/// `IFLA_INET_CONF`: settable, unlike its IPv6 sister, as a nest of numbers.
const INET_CONF: u16 = 1;
/// `IPV4_DEVCONF_RP_FILTER`.
pub(super) const RP_FILTER: u16 = 8;
/// `IPV4_DEVCONF_ARP_NOTIFY`.
pub(super) const ARP_NOTIFY: u16 = 22;

/// Carries out one change.
pub(super) async fn apply(kernel: &Kernel, change: &Change) -> Result<(), Error> {
    let failed = |error: io::Error| Error::kernel(change.link(), change.operation(), &error);
    let done = if let Change::Set { flag: Flag::Offloads, link, on } = change {
        offload::write(kernel.socket()?, link, *on).map_err(failed)
    } else if let Change::Set { flag: Flag::RouterAdvertisements, link, on } = change {
        believe(link, *on).map_err(failed)
    } else {
        request(kernel, change).await
    };
    match done {
        Err(error) if error.is(already(change)) => Ok(()),
        done => done,
    }
}

/// The error numbers that mean there was nothing to do.
fn already(change: &Change) -> &'static [i32] {
    match change {
        Change::CreateBridge { .. } | Change::CreatePair { .. } | Change::AddAddress { .. } => {
            &[libc::EEXIST]
        }
        Change::Delete { .. } | Change::Leave { .. } => &[libc::ENODEV],
        Change::RemoveAddress { .. } => &[libc::EADDRNOTAVAIL, libc::ENODEV],
        Change::Set { flag: Flag::AddressGeneration, on: false, .. } => &[libc::EAFNOSUPPORT],
        Change::Set { flag: Flag::RouterAdvertisements, on: false, .. } => &[libc::ENOENT],
        // "Exists already" may also mean another device with the same network identifier and port.
        Change::CreateVxlan { .. }
        | Change::Retune { .. }
        | Change::Set { .. }
        | Change::Mark { .. }
        | Change::SetMac { .. }
        | Change::SetMtu { .. }
        | Change::Join { .. }
        | Change::AddEntry { .. }
        | Change::RemoveEntry { .. } => &[],
    }
}

async fn request(kernel: &Kernel, change: &Change) -> Result<(), Error> {
    let (object, operation) = (change.link(), change.operation());
    let links = kernel.handle.link();
    match change {
        Change::CreateBridge { link, mac } => {
            ask(object, operation, links.add(bridge(link, *mac)).execute()).await
        }
        Change::CreatePair { link, peer } => {
            ask(object, operation, links.add(pair(link, named(peer).link_group(GROUP).build())).execute())
                .await
        }
        Change::CreateVxlan { link, underlay, tunnel, mac } => {
            let request = links.add(tunnel::create(link, *underlay, tunnel, *mac)).execute();
            match ask(object, operation, request).await {
                Err(error) if error.is(&[libc::EEXIST]) && kernel.link(link).await?.is_none() => {
                    let found =
                        format!("another VXLAN device with VNI {} on UDP port {}", tunnel.vni, tunnel.port);
                    Err(Error::Conflict { object: "the network".to_owned(), found })
                }
                Err(error) if error.is(&[libc::EEXIST]) => Ok(()),
                done => done,
            }
        }
        Change::AddEntry { link, entry } => fdb::add(kernel, link, number(kernel, change)?, entry).await,
        Change::RemoveEntry { link, entry } => {
            fdb::remove(kernel, link, number(kernel, change)?, entry).await
        }
        Change::Delete { link } => removal::one(kernel, link).await,
        Change::AddAddress { link, address } => {
            add_address(kernel, link, index(kernel, change).await?, *address).await
        }
        Change::RemoveAddress { link, address } => {
            remove_address(kernel, link, index(kernel, change).await?, *address).await
        }
        Change::Join { bridge, .. } => {
            let Some(bridge) = kernel.link(bridge).await? else {
                return Err(Error::kernel(object, operation, &io::Error::from_raw_os_error(libc::ENODEV)));
            };
            let message = named(object).controller(bridge.header.index).build();
            ask(object, operation, links.change(message).execute()).await
        }
        Change::Mark { .. }
        | Change::SetMac { .. }
        | Change::SetMtu { .. }
        | Change::Leave { .. }
        | Change::Retune { .. }
        | Change::Set { .. } => ask(object, operation, links.change(property(change)).execute()).await,
    }
}

/// Carries out what a link that was just made still lacks, in two requests: what it is and whose port, then how it is a
/// port, and up. Each request waits for the lock that every change of any link takes.
pub(super) async fn at_once(
    kernel: &Kernel,
    link: &str,
    changes: &[Change],
    bridge: Option<u32>,
) -> Result<(), Error> {
    let port = LinkMessageBuilder::<LinkBridgePort>::default().name(link).set_port_kind(InfoPortKind::Bridge);
    let (mut own, mut port, mut rest) = (named(link), port, Vec::new());
    for change in changes {
        match (change, bridge) {
            (Change::Mark { mark, .. }, _) => own = own.alias(mark.to_string()),
            (Change::Set { flag: Flag::Grouped, on: true, .. }, _) => own = own.link_group(GROUP),
            (Change::SetMac { to, .. }, _) => own = own.address(to.octets().to_vec()),
            (Change::SetMtu { to, .. }, _) => own = own.mtu(*to),
            (Change::Join { .. }, Some(index)) => own = own.controller(index),
            (Change::Set { flag: Flag::AddressGeneration, on, .. }, _) => {
                own = own.append_extra_attribute(address_generation(*on));
            }
            (Change::Set { flag: Flag::Isolated, on, .. }, _) => port = port.isolated(*on),
            (Change::Set { flag: Flag::Hairpin, on, .. }, _) => port = port.hairpin(*on),
            (Change::Set { flag: Flag::Up, on: true, .. }, _) => port = port.up(),
            (other, _) => rest.push(other),
        }
    }
    let links = kernel.handle.link();
    ask(link, "set up as a port of the bridge", links.change(own.build()).execute()).await?;
    ask(link, "set up", links.change(port.build()).execute()).await?;
    for change in rest {
        apply(kernel, change).await?;
    }
    Ok(())
}

/// The message that changes one property of a link, which it names.
fn property(change: &Change) -> LinkMessage {
    let name = change.link();
    match change {
        Change::Mark { mark, .. } => named(name).alias(mark.to_string()).build(),
        Change::SetMac { to, .. } => named(name).address(to.octets().to_vec()).build(),
        Change::SetMtu { to, .. } => named(name).mtu(*to).build(),
        Change::Leave { .. } => named(name).nocontroller().build(),
        Change::Set { flag, on, .. } => turn(name, *flag, *on),
        Change::Retune { underlay, to, .. } => tunnel::change(name, *underlay, to).build(),
        Change::CreateBridge { .. }
        | Change::CreatePair { .. }
        | Change::CreateVxlan { .. }
        | Change::AddEntry { .. }
        | Change::RemoveEntry { .. }
        | Change::Delete { .. }
        | Change::Join { .. }
        | Change::AddAddress { .. }
        | Change::RemoveAddress { .. } => named(name).build(),
    }
}

/// The message that turns one switch of a link.
fn turn(name: &str, flag: Flag, on: bool) -> LinkMessage {
    let bridge = || LinkMessageBuilder::<LinkBridge>::new(name);
    let port =
        || LinkMessageBuilder::<LinkBridgePort>::default().name(name).set_port_kind(InfoPortKind::Bridge);
    match flag {
        Flag::Grouped => named(name).link_group(if on { GROUP } else { 0 }).build(),
        Flag::SpanningTree if on => bridge().stp_state(BridgeStpState::KernelStp).build(),
        Flag::SpanningTree => bridge().stp_state(BridgeStpState::Disabled).build(),
        Flag::MulticastSnooping => bridge().mcast_snooping(on).build(),
        Flag::LinkLocalLearning => bridge().no_linklocal_learn(!on).build(),
        Flag::AddressGeneration => named(name).append_extra_attribute(address_generation(on)).build(),
        Flag::Deaf => {
            let filter = devconf(RP_FILTER, u32::from(on));
            named(name).arp(!on).append_extra_attribute(filter).build()
        }
        Flag::Learning => port().learning(on).build(),
        Flag::Flood => port().flood(on).mcast_flood(on).bcast_flood(on).build(),
        Flag::Isolated => port().isolated(on).build(),
        Flag::Hairpin => port().hairpin(on).build(),
        Flag::Up if on => named(name).up().build(),
        Flag::Up => named(name).down().build(),
        Flag::Offloads | Flag::RouterAdvertisements => named(name).build(), // by ioctl and by file: see `apply`
    }
}

/// A message about the link of that name.
pub(super) fn named(name: &str) -> LinkMessageBuilder<LinkUnspec> {
    LinkUnspec::new_with_name(name)
}

/// A bridge, down. No MTU in it: one that is given at birth does not count as given, and would follow the ports.
fn bridge(name: &str, mac: MacAddr) -> LinkMessage {
    LinkMessageBuilder::<LinkBridge>::new(name)
        .link_group(GROUP)
        .address(mac.octets().to_vec())
        .stp_state(BridgeStpState::Disabled)
        .mcast_snooping(false)
        .no_linklocal_learn(true)
        .fdb_max_learned(LEARNED_LIMIT) // since Linux 6.7; ignored before
        .build()
}

/// A pair, down; the second end as described.
pub(super) fn pair(name: &str, peer: LinkMessage) -> LinkMessage {
    LinkMessageBuilder::<LinkVeth>::new_with_info_kind(netlink_packet_route::link::InfoKind::Veth)
        .name(name)
        .link_group(GROUP)
        .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
        .build()
}

/// The attribute that has the kernel give a link IPv6 addresses, or not.
pub(super) fn address_generation(on: bool) -> LinkAttribute {
    let mode = if on { In6AddrGenMode::Eui64 } else { In6AddrGenMode::None };
    LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(mode)])])
}

/// The attribute that sets one of a link's IPv4 settings, which needs no file and no `setns`.
pub(super) fn devconf(setting: u16, value: u32) -> LinkAttribute {
    let mut nest = 8u16.to_ne_bytes().to_vec();
    nest.extend(setting.to_ne_bytes());
    nest.extend(value.to_ne_bytes());
    let conf = AfSpecInet::Other(DefaultNla::new(INET_CONF | NLA_F_NESTED, nest));
    LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet(vec![conf])])
}

/// Adds an address with our mark; one that stands without it gets it.
pub(super) async fn add_address(
    kernel: &Kernel,
    link: &str,
    index: u32,
    address: IpNet,
) -> Result<(), Error> {
    let mut request = kernel.handle.address().add(index, address.addr(), address.prefix_len()).replace();
    let attributes = &mut request.message_mut().attributes;
    attributes.push(AddressAttribute::Protocol(ADDRESS_MARK));
    if address.addr().is_ipv6() {
        // Our addresses are unique by construction; waiting for the kernel to ask around would only delay.
        attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
    }
    ask(&format!("address {address} on {link}"), "add", request.execute()).await
}

/// Removes an address.
pub(super) async fn remove_address(
    kernel: &Kernel,
    link: &str,
    index: u32,
    address: IpNet,
) -> Result<(), Error> {
    let message: AddressMessage = match address.addr() {
        IpAddr::V4(v4) => {
            AddressMessageBuilder::<Ipv4Addr>::new().index(index).address(v4, address.prefix_len()).build()
        }
        IpAddr::V6(v6) => {
            AddressMessageBuilder::<Ipv6Addr>::new().index(index).address(v6, address.prefix_len()).build()
        }
    };
    let request = kernel.handle.address().del(message).execute();
    ask(&format!("address {address} on {link}"), "remove", request).await
}

async fn index(kernel: &Kernel, change: &Change) -> Result<u32, Error> {
    let gone =
        || Error::kernel(change.link(), change.operation(), &io::Error::from_raw_os_error(libc::ENODEV));
    kernel.link(change.link()).await?.map(|link| link.header.index).ok_or_else(gone)
}

/// The index by the quickest way: a thousand entries ask for it.
fn number(kernel: &Kernel, change: &Change) -> Result<u32, Error> {
    sys::index(kernel.socket()?, change.link())
        .map_err(|error| Error::kernel(change.link(), change.operation(), &error))
}

/// Whether the host believes router advertisements that come in by this link: only a file says so.
fn believe(link: &str, on: bool) -> io::Result<()> {
    std::fs::write(format!("/proc/sys/net/ipv6/conf/{link}/accept_ra"), if on { "1" } else { "0" })
}
