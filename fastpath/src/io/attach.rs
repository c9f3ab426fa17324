//! Makes a container link, step by step, each with its way back.
//!
//! ```text
//! 1  the descriptors are what they should be, and both of the same namespace, which is not ours
//! 2  our bridge stands; the host end's name is free or ours
//! 3  one request makes the pair, the far end already inside with its final name, MAC and MTU
//! 4  host end: alias, no IPv6 addresses, port of the bridge, hairpin, up
//! 5  inside: addresses, up, routes (see `inside`)
//! 6  once the bridge forwards, the announcement
//! ```
//!
//! A failure at 4 to 6 deletes what 3 made, and with the host end goes all that was inside. So does abandoning the
//! call. A link that stood before is never deleted by a failure; what was changed on its host end is changed back.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use std::time::Duration;

use ipnet::IpNet;
use netlink_packet_route::link::LinkAttribute;
use nix::sys::stat::fstat;
use rtnetlink::LinkUnspec;

use super::apply::{self, apply};
use super::inside;
use super::kernel::{Kernel, ask};
use super::observe::{self, Observed};
use super::sys;
use crate::change::Change;
use crate::container::{Attached, ContainerLink};
use crate::desired::ContainerPort;
use crate::error::Error;
use crate::link::{Kind, Link};
use crate::mac::MacAddr;
use crate::names::BridgeName;
use crate::plan;

/// The longest pause between two looks at a port that does not forward yet; about a second in all.
const FORWARDING: Duration = Duration::from_millis(600);

/// What every end of a pair gets in the end. Unless it is asked for, the kernel makes a queue per processor first and takes
/// all but one away again, which costs more than all the rest (`veth_init_queues`: a grace period for each end).
const ONE_QUEUE: [LinkAttribute; 2] = [LinkAttribute::NumTxQueues(1), LinkAttribute::NumRxQueues(1)];

/// Makes the link, or completes the one that stands.
pub(super) async fn attach(
    kernel: &Kernel,
    bridge: &BridgeName,
    link: &ContainerLink,
    namespace: BorrowedFd<'_>,
    netlink: OwnedFd,
) -> Result<Attached, Error> {
    let port = link.port()?;
    verify(kernel, namespace, netlink.as_fd())?;
    let inside = Kernel::through(netlink)?;

    let host_end = bridge.host_end(&port);
    let wanted = ContainerPort { mtu: link.mtu, up: true, hairpin: link.hairpin }.link(bridge, &port);
    let observed = observe::pair(kernel, bridge, &host_end).await?;
    bridge_stands(&observed, bridge)?;
    plan::check(&host_end, &wanted, &observed.actual)?;

    let mut undo = Undo { kernel, done: Vec::new() };
    let made = make(kernel, &inside, link, namespace, &host_end, &observed, &mut undo).await;
    let wired = match made {
        Ok(created) => {
            wire(kernel, &inside, bridge, link, namespace, (&host_end, &wanted), created, &mut undo).await
        }
        Err(error) => Err(error),
    };
    match wired {
        Ok(attached) => {
            undo.keep();
            Ok(attached)
        }
        Err(error) => {
            undo.now().await;
            Err(error)
        }
    }
}

/// Refuses descriptors that are not what they should be, before anything is changed.
fn verify(kernel: &Kernel, namespace: BorrowedFd<'_>, netlink: BorrowedFd<'_>) -> Result<(), Error> {
    if !sys::is_network_namespace(namespace) {
        return Err(Error::refused("container's namespace", "the descriptor is not a network namespace"));
    }
    if !sys::is_route_netlink(netlink) {
        return Err(Error::refused("container's netlink", "the descriptor is not a route netlink socket"));
    }
    let failed = |error: io::Error| Error::kernel("container's namespace", "look up", &error);
    let identity = |descriptor: BorrowedFd<'_>| {
        fstat(descriptor).map(|stat| (stat.st_dev, stat.st_ino)).map_err(|errno| failed(errno.into()))
    };
    let theirs = identity(namespace)?;
    if identity(sys::namespace_of(netlink).map_err(failed)?.as_fd())? != theirs {
        let cause = "it was not opened in the namespace that came with it";
        return Err(Error::refused("container's netlink", cause));
    }
    if identity(sys::namespace_of(kernel.socket()?).map_err(failed)?.as_fd())? == theirs {
        return Err(Error::refused("container's namespace", "it is the host's own network namespace"));
    }
    Ok(())
}

fn bridge_stands(observed: &Observed, bridge: &BridgeName) -> Result<(), Error> {
    match observed.actual.links.get(bridge.as_str()) {
        Some(link) if link.kind == Kind::Bridge && link.owner.is_of(bridge) => Ok(()),
        Some(link) => {
            Err(Error::Conflict { object: format!("interface {bridge}"), found: link.kind.to_string() })
        }
        None => Err(Error::refused(format!("bridge {bridge}"), "it does not stand (yet)")),
    }
}

/// Makes the pair unless it stands between this bridge and this container; says whether it did. One that leads to
/// another namespace belonged to an earlier container with the same id, and goes.
async fn make(
    kernel: &Kernel,
    inside: &Kernel,
    link: &ContainerLink,
    namespace: BorrowedFd<'_>,
    host_end: &str,
    observed: &Observed,
    undo: &mut Undo<'_>,
) -> Result<bool, Error> {
    if let Some(near) = observed.seen.get(host_end) {
        let far = inside.link(&link.ifname).await?.filter(observe::is_veth).map(|far| observe::seen(&far));
        let paired = |far: observe::Seen| {
            near.elsewhere && far.elsewhere && near.below == Some(far.index) && far.below == Some(near.index)
        };
        if far.is_some_and(paired) {
            return Ok(false);
        }
        apply(kernel, &Change::Delete { link: host_end.to_owned() }).await?;
    }
    let mut far = LinkUnspec::new_with_name(&link.ifname)
        .address(link.mac.octets().to_vec())
        .mtu(link.mtu)
        .setns_by_fd(namespace.as_raw_fd())
        .build();
    far.attributes.extend(ONE_QUEUE);
    let mut near = apply::pair(host_end, far);
    near.attributes.extend(ONE_QUEUE);
    near.attributes.push(LinkAttribute::Mtu(link.mtu));
    if let Some(IpAddr::V4(address)) = link.addresses.first().map(IpNet::addr) {
        near.attributes.push(LinkAttribute::Address(MacAddr::facing(address).octets().to_vec()));
    }
    // Promised before it is asked for: if the call is abandoned while the kernel works, it is undone all the same.
    undo.done.push(Change::CreatePair { link: host_end.to_owned(), peer: link.ifname.clone() });
    let object = format!("container link {} and {} inside", host_end, link.ifname);
    match ask(&object, "create", kernel.handle.link().add(near).execute()).await {
        Ok(()) => Ok(true),
        Err(error @ Error::Timeout { .. }) => Err(error), // it may yet happen
        Err(error) => {
            undo.done.pop();
            Err(taken(error, &link.ifname))
        }
    }
}

/// "Exists already" can only be the name inside, since the one on the host was free.
fn taken(error: Error, ifname: &str) -> Error {
    if error.is(&[libc::EEXIST]) {
        let cause = "the container has an interface of that name already";
        return Error::refused(format!("interface `{ifname}`"), cause);
    }
    error
}

#[expect(clippy::too_many_arguments, reason = "one step of one function, cut out for its length")]
async fn wire(
    kernel: &Kernel,
    inside: &Kernel,
    bridge: &BridgeName,
    link: &ContainerLink,
    namespace: BorrowedFd<'_>,
    (host_end, wanted): (&str, &Link),
    created: bool,
    undo: &mut Undo<'_>,
) -> Result<Attached, Error> {
    let observed = observe::pair(kernel, bridge, host_end).await?;
    let changes = plan::refine(host_end, wanted, &observed.actual)?;
    if created {
        // Whatever fails, the link goes, and all that was changed with it.
        let index = observed.seen.get(bridge.as_str()).map(|seen| seen.index);
        apply::at_once(kernel, host_end, &changes, index).await?;
    } else {
        for change in changes {
            apply(kernel, &change).await?;
            undo.done.push(change);
        }
    }
    let gone = || Error::kernel(host_end, "look up", &io::Error::from_raw_os_error(libc::ENODEV));
    let ifindex = observed.seen.get(host_end).ok_or_else(gone)?.index;
    let unmet = inside::configure(inside, link, namespace, created).await?;
    forwarding(kernel, host_end).await?;
    inside::announce(inside, link).await?;
    tracing::debug!(host_end, ifindex, created, "attached");
    Ok(Attached { host_end: host_end.to_owned(), ifindex, created, unmet })
}

/// Waits until the bridge forwards what comes in by this port. It begins only when the kernel has noticed, in its
/// own time (mostly within a millisecond), that both ends are up; earlier frames, and so the announcement, are lost.
async fn forwarding(kernel: &Kernel, host_end: &str) -> Result<(), Error> {
    let mut pause = Duration::from_millis(1);
    while pause < FORWARDING {
        if kernel.link(host_end).await?.is_none_or(|link| observe::is_forwarding(&link)) {
            return Ok(());
        }
        tokio::time::sleep(pause).await;
        pause *= 2;
    }
    tracing::debug!(host_end, "the bridge does not forward from this port yet");
    Ok(())
}

/// What has been done on the host so far, to be taken back in reverse order.
struct Undo<'a> {
    kernel: &'a Kernel,
    done: Vec<Change>,
}

impl Undo<'_> {
    /// All went well.
    fn keep(mut self) {
        self.done.clear();
    }

    /// Takes everything back, going on past errors.
    async fn now(mut self) {
        take_back(self.kernel.clone(), std::mem::take(&mut self.done)).await;
    }
}

/// Abandoned halfway: somebody else must finish taking back.
impl Drop for Undo<'_> {
    fn drop(&mut self) {
        if let (false, Ok(runtime)) = (self.done.is_empty(), tokio::runtime::Handle::try_current()) {
            runtime.spawn(take_back(self.kernel.clone(), std::mem::take(&mut self.done)));
        }
    }
}

async fn take_back(kernel: Kernel, mut done: Vec<Change>) {
    // With the link itself all its properties go.
    if let Some(at) = done.iter().position(|change| matches!(change, Change::CreatePair { .. })) {
        done.truncate(at + 1);
        done.drain(..at);
    }
    for change in done.iter().rev().filter_map(Change::inverse) {
        if let Err(error) = apply(&kernel, &change).await {
            tracing::warn!(%change, %error, "cannot take back");
        }
    }
}
