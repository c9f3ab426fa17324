//! The far end of a container link, set through the container's own netlink socket.
//!
//! No step here needs `setns`, so `NET_ADMIN` is enough, but one: `accept_ra=0` is a file of that namespace. It is
//! tried by a thread that enters the namespace; where that is not permitted, the attachment says what it could not
//! have.
//!
//! **Gratuitous ARP without a packet socket.** The kernel sends it itself for each IPv4 address of an interface
//! that has `arp_notify` when its MAC address is set; and setting the address it already has counts. Both go over
//! netlink. (A packet socket would have to be opened inside, which needs `setns`
//! and so `SYS_ADMIN`; sending on the host end goes *to* the container, and on the bridge it would teach the bridge
//! a wrong port.) `arp_notify` stays on, so the container announces itself after any later flap of the link.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::thread;
use std::time::Duration;

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_ACK, NLM_F_REQUEST};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::link::{LinkFlags, LinkMessage};
use netlink_packet_route::route::{RouteMessage, RouteScope};
use nix::sched::{CloneFlags, setns};
use rtnetlink::RouteMessageBuilder;
use tokio::sync::oneshot;

use super::apply::{self, ARP_NOTIFY, devconf, named};
use super::kernel::{Kernel, ask};
use super::observe::{mac_of, marked, mtu_of};
use super::routes;
use crate::container::{ContainerLink, DefaultRoute};
use crate::error::Error;

/// When the announcement is repeated, in case the first was lost on the way.
const AGAIN: Duration = Duration::from_secs(1);
/// How long the thread that enters the namespace may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// Gives the far end all it needs; what is right already is not touched (and a link that was just made has nothing yet).
/// Returns what could not be had.
pub(super) async fn configure(
    inside: &Kernel,
    link: &ContainerLink,
    namespace: BorrowedFd<'_>,
    new: bool,
) -> Result<Vec<Error>, Error> {
    let name = link.ifname.as_str();
    let Some(far) = inside.link(name).await? else {
        return Err(Error::kernel(inner(name), "look up", &io::Error::from_raw_os_error(libc::ENODEV)));
    };
    // Both before it is up; neither minds the other.
    let (unmet, quiet) = tokio::join!(disbelieve(name, namespace), quieten(inside, link, &far));
    quiet?;
    let unmet = unmet.err();
    addresses(inside, link, far.header.index, new).await?;
    if !far.header.flags.contains(LinkFlags::Up) {
        change(inside, name, "set up", named(name).up().build()).await?;
    }
    change(inside, "lo", "set up", named("lo").up().build()).await?;
    routes(inside, link, far.header.index).await?;
    Ok(unmet.into_iter().collect())
}

/// What must hold before it is up: MAC, MTU, and that setting the MAC announces. The container's own IPv6 is its
/// own affair: link-local addresses work across the Ethernet as on any other.
async fn quieten(inside: &Kernel, link: &ContainerLink, far: &LinkMessage) -> Result<(), Error> {
    let name = link.ifname.as_str();
    if mac_of(far) != Some(link.mac) {
        change(
            inside,
            name,
            "set the MAC address of",
            named(name).address(link.mac.octets().to_vec()).build(),
        )
        .await?;
    }
    if mtu_of(far) != Some(link.mtu) {
        change(inside, name, "set the MTU of", named(name).mtu(link.mtu).build()).await?;
    }
    let notify = named(name).append_extra_attribute(devconf(ARP_NOTIFY, 1)).build();
    change(inside, name, "set arp_notify of", notify).await
}

/// Adds what is wanted and removes what an earlier attachment left; others' addresses stay.
async fn addresses(inside: &Kernel, link: &ContainerLink, index: u32, new: bool) -> Result<(), Error> {
    let name = inner(&link.ifname);
    let found = if new { BTreeSet::new() } else { marked(inside, index).await? };
    for address in found.iter().filter(|address| !link.addresses.contains(address)) {
        apply::remove_address(inside, &name, index, *address).await?;
    }
    for address in link.addresses.iter().filter(|address| !found.contains(address)) {
        apply::add_address(inside, &name, index, *address).await?;
    }
    Ok(())
}

async fn routes(inside: &Kernel, link: &ContainerLink, index: u32) -> Result<(), Error> {
    if link.addresses.iter().any(|address| address.addr().is_ipv4()) {
        let multicast = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(Ipv4Addr::new(224, 0, 0, 0), 4)
            .output_interface(index)
            .scope(RouteScope::Link)
            .build();
        match add_route(inside, "multicast route", multicast, false).await {
            Err(error) if error.is(&[libc::EEXIST]) => {}
            done => done?,
        }
    }
    for (net, by) in &link.routes {
        add_route(inside, &format!("route to {net}"), named_route(index, *net, *by), true).await?;
    }
    let (family, gateway) = match link.gateway {
        DefaultRoute::None => return Ok(()),
        DefaultRoute::OnLink => (AddressFamily::Inet, None),
        DefaultRoute::Via(gateway @ IpAddr::V4(_)) => (AddressFamily::Inet, Some(gateway)),
        DefaultRoute::Via(gateway @ IpAddr::V6(_)) => (AddressFamily::Inet6, Some(gateway)),
    };
    let found: Vec<RouteMessage> =
        routes::dump(inside, family).await?.into_iter().filter(routes::is_default).collect();
    let by_others = found.iter().any(|route| routes::interface(route) != Some(index));
    let right = found.iter().any(|route| routes::gateway(route) == gateway);
    if by_others || right {
        return Ok(());
    }
    add_route(inside, "default route", default_route(index, gateway), true).await
}

fn default_route(index: u32, gateway: Option<IpAddr>) -> RouteMessage {
    let four = RouteMessageBuilder::<Ipv4Addr>::new().output_interface(index);
    match gateway {
        None => four.scope(RouteScope::Link).build(),
        Some(IpAddr::V4(gateway)) => four.gateway(gateway).build(),
        Some(IpAddr::V6(gateway)) => {
            RouteMessageBuilder::<Ipv6Addr>::new().output_interface(index).gateway(gateway).build()
        }
    }
}

/// A route to a network of either family; one whose gateway is of the other family leads on the link.
fn named_route(index: u32, net: IpNet, by: Option<IpAddr>) -> RouteMessage {
    match (net, by) {
        (IpNet::V4(net), Some(IpAddr::V4(by))) => RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(net.network(), net.prefix_len())
            .output_interface(index)
            .gateway(by)
            .build(),
        (IpNet::V4(net), None | Some(IpAddr::V6(_))) => RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(net.network(), net.prefix_len())
            .output_interface(index)
            .scope(RouteScope::Link)
            .build(),
        (IpNet::V6(net), Some(IpAddr::V6(by))) => RouteMessageBuilder::<Ipv6Addr>::new()
            .destination_prefix(net.network(), net.prefix_len())
            .output_interface(index)
            .gateway(by)
            .build(),
        (IpNet::V6(net), None | Some(IpAddr::V4(_))) => RouteMessageBuilder::<Ipv6Addr>::new()
            .destination_prefix(net.network(), net.prefix_len())
            .output_interface(index)
            .build(),
    }
}

async fn add_route(inside: &Kernel, what: &str, route: RouteMessage, replace: bool) -> Result<(), Error> {
    let request = inside.handle.route().add(route);
    let request = if replace { request.replace() } else { request };
    ask(&format!("{what} in the container"), "add", request.execute()).await
}

/// Has the kernel send gratuitous ARP, now and once more after a second. The repetition runs by itself, and a
/// container that is gone by then is no news.
pub(super) async fn announce(inside: &Kernel, link: &ContainerLink) -> Result<(), Error> {
    announce_once(inside, link).await?;
    let (inside, link) = (inside.clone(), link.clone());
    tokio::spawn(async move {
        tokio::time::sleep(AGAIN).await;
        // Whoever has given the container another address meanwhile is not to lose it again.
        if !matches!(inside.link(&link.ifname).await, Ok(Some(found)) if mac_of(&found) == Some(link.mac)) {
            return;
        }
        if let Err(error) = announce_once(&inside, &link).await {
            tracing::debug!(id = link.id, %error, "not announced again");
        }
    });
    Ok(())
}

/// Sets the address it has.
async fn announce_once(inside: &Kernel, link: &ContainerLink) -> Result<(), Error> {
    let same = named(&link.ifname).address(link.mac.octets().to_vec()).build();
    change(inside, &link.ifname, "announce", same).await
}

/// Has the container ignore router advertisements: any other container could send one.
async fn disbelieve(ifname: &str, namespace: BorrowedFd<'_>) -> Result<(), Error> {
    let operation = "set IPv6 router advertisements of";
    let failed = |error: &io::Error| Error::kernel(inner(ifname), operation, error);
    let namespace = namespace.try_clone_to_owned().map_err(|error| failed(&error))?;
    let file = format!("/proc/sys/net/ipv6/conf/{ifname}/accept_ra");
    let (tell, told) = oneshot::channel();
    thread::Builder::new()
        .name("weft-inside".to_owned())
        .spawn(move || {
            // Nobody listens any more: the caller has given up on us.
            let _ = tell.send(write_inside(&namespace, &file));
        })
        .map_err(|error| failed(&error))?;
    match tokio::time::timeout(PATIENCE, told).await {
        Ok(Ok(Ok(()))) => Ok(()),
        Ok(Ok(Err(error))) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()), // no IPv6 in there at all
        Ok(Ok(Err(error))) => Err(failed(&error)),
        Ok(Err(_)) => Err(failed(&io::Error::other("the helper thread ended early"))),
        Err(_) => Err(Error::Timeout { object: inner(ifname), operation, seconds: PATIENCE.as_secs() }),
    }
}

/// Runs on its own thread, which ends in the namespace it entered.
fn write_inside(namespace: &OwnedFd, file: &str) -> io::Result<()> {
    setns(namespace, CloneFlags::CLONE_NEWNET)?;
    std::fs::write(file, "0")
}

async fn change(
    inside: &Kernel,
    name: &str,
    operation: &'static str,
    message: LinkMessage,
) -> Result<(), Error> {
    let request = inside.handle.link().add(message).set_flags(NLM_F_REQUEST | NLM_F_ACK);
    ask(&inner(name), operation, request.execute()).await
}

fn inner(ifname: &str) -> String {
    format!("{ifname} in the container")
}
