//! Forwarding entries: of the bridge about its ports, and of a VXLAN device about its remotes.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use netlink_packet_core::{DefaultNla, NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_DUMP, NLM_F_REPLACE};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::Fastpath;
use super::kernel::{Kernel, ask, patiently};
use super::observe;
use super::sys;
use crate::error::Error;
use crate::mac::MacAddr;
use crate::vxlan::{Destination, Entry, Underlay};

/// A port of the bridge that leads to other hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Port {
    /// To the router.
    Sleeve,
    /// To the VXLAN device, and by it to the remote with this address and port.
    Vxlan(SocketAddr),
}

/// One line of a table.
struct Row {
    entry: Entry,
    lifetime: Lifetime,
    /// How long ago a frame was last sent by it, or learned to be from there.
    idle: Option<Duration>,
}

/// The unit of the kernel's ages: `USER_HZ` is 100 on every architecture that Rust's Linux targets know.
const TICK: Duration = Duration::from_millis(10);

/// How an entry came and how it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lifetime {
    /// It was learned, or is to be treated as if: it ages, and follows the station.
    Dynamic,
    /// It stays until it is removed.
    Static,
    /// An address of the host itself.
    Local,
}

/// The entries of a VXLAN device that do not age, in both tables; `port` is the device's own.
pub(super) async fn written(
    kernel: &Kernel,
    name: &str,
    index: u32,
    port: u16,
) -> Result<BTreeSet<Entry>, Error> {
    let rows = dump(kernel, name, index, port).await?;
    Ok(rows.into_iter().filter(|row| row.lifetime == Lifetime::Static).map(|row| row.entry).collect())
}

/// Writes an entry, over an older one for the same address.
pub(super) async fn add(kernel: &Kernel, name: &str, index: u32, entry: &Entry) -> Result<(), Error> {
    let state = match entry {
        // In the table of a bridge "permanent" means an address of the host itself.
        Entry::Bridge(_) => NeighbourState::Noarp,
        Entry::Device(..) => NeighbourState::Permanent,
    };
    write(kernel, name, index, entry, state).await
}

async fn write(
    kernel: &Kernel,
    name: &str,
    index: u32,
    entry: &Entry,
    state: NeighbourState,
) -> Result<(), Error> {
    let how = if entry.mac().may_be_many() { NLM_F_APPEND } else { NLM_F_REPLACE };
    let mut message = message(index, entry);
    message.header.state = state;
    let request = RouteNetlinkMessage::NewNeighbour(message);
    let sent = kernel.send(request, NLM_F_ACK | NLM_F_CREATE | how);
    ask(&object(name, entry), "write", sent).await.map(drop)
}

/// Removes an entry; fine when there is none.
pub(super) async fn remove(kernel: &Kernel, name: &str, index: u32, entry: &Entry) -> Result<(), Error> {
    let request = RouteNetlinkMessage::DelNeighbour(message(index, entry));
    match ask(&object(name, entry), "remove", kernel.send(request, NLM_F_ACK)).await {
        Err(error) if error.is(&[libc::ENOENT]) => Ok(()),
        done => done.map(drop),
    }
}

fn object(name: &str, entry: &Entry) -> String {
    format!("forwarding entry of {name}, {entry}")
}

fn message(index: u32, entry: &Entry) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Bridge;
    message.header.ifindex = index;
    message.attributes.push(NeighbourAttribute::LinkLayerAddress(entry.mac().octets().to_vec()));
    match entry {
        Entry::Bridge(_) => message.header.flags = NeighbourFlags::Controller,
        Entry::Device(_, to) => {
            message.header.flags = NeighbourFlags::Own;
            if !to.address.is_unspecified() {
                message.attributes.push(NeighbourAttribute::Destination(to.address.into()));
            }
            message.attributes.push(NeighbourAttribute::Port(to.port));
            message.attributes.extend(to.vni.map(NeighbourAttribute::Vni));
            message.attributes.extend(to.interface.map(NeighbourAttribute::IfIndex));
        }
    }
    message
}

/// All that both tables say of one port of a bridge.
async fn dump(kernel: &Kernel, name: &str, index: u32, port: u16) -> Result<Vec<Row>, Error> {
    let mut filter = NeighbourMessage::default();
    filter.header.family = AddressFamily::Bridge;
    filter.header.ifindex = index;
    // The kernel takes a request of this length for the older form (`ifinfomsg`, with the index at the same place),
    // the only one in which kernels of all ages list one port instead of everything.
    filter.attributes.push(NeighbourAttribute::Other(DefaultNla::new(0, Vec::new())));
    let question = || kernel.send(RouteNetlinkMessage::GetNeighbour(filter.clone()), NLM_F_DUMP);
    let answers = patiently(&format!("forwarding entries of {name}"), "list", question).await?;
    let row = |answer| match answer {
        RouteNetlinkMessage::NewNeighbour(message) if message.header.ifindex == index => row(&message, port),
        _ => None,
    };
    Ok(answers.into_iter().filter_map(row).collect())
}

fn row(message: &NeighbourMessage, port: u16) -> Option<Row> {
    let (mut mac, mut idle) = (None, None);
    let mut to = Destination { address: Ipv4Addr::UNSPECIFIED.into(), port, vni: None, interface: None };
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::LinkLayerAddress(octets) => mac = MacAddr::from_slice(octets),
            NeighbourAttribute::Destination(address) => to.address = address_of(address)?,
            NeighbourAttribute::Port(other) => to.port = *other,
            NeighbourAttribute::Vni(vni) => to.vni = Some(*vni),
            NeighbourAttribute::CacheInfo(ages) => idle = Some(TICK * ages.used),
            NeighbourAttribute::IfIndex(interface) => to.interface = Some(*interface),
            // Only means anything on bridges that filter VLANs, which ours does not.
            NeighbourAttribute::Vlan(_) => return None,
            _ => {}
        }
    }
    let of_device = message.header.flags.contains(NeighbourFlags::Own);
    let state = u16::from(message.header.state);
    let lifetime = if state & u16::from(NeighbourState::Permanent) != 0 {
        if of_device { Lifetime::Static } else { Lifetime::Local }
    } else if state & u16::from(NeighbourState::Noarp) != 0 {
        Lifetime::Static
    } else {
        Lifetime::Dynamic
    };
    let entry = if of_device { Entry::Device(mac?, to) } else { Entry::Bridge(mac?) };
    Some(Row { entry, lifetime, idle })
}

/// The library leaves the address of a bridge's message unread: its length tells what it is.
fn address_of(address: &NeighbourAddress) -> Option<IpAddr> {
    match address {
        NeighbourAddress::Inet(v4) => Some(IpAddr::V4(*v4)),
        NeighbourAddress::Inet6(v6) => Some(IpAddr::V6(*v6)),
        NeighbourAddress::Other(octets) => match octets.len() {
            4 => <[u8; 4]>::try_from(octets.as_slice()).ok().map(|octets| Ipv4Addr::from(octets).into()),
            _ => <[u8; 16]>::try_from(octets.as_slice()).ok().map(|octets| Ipv6Addr::from(octets).into()),
        },
        _ => None,
    }
}

/// A VXLAN device of ours that stands.
pub(super) struct Device {
    name: String,
    index: u32,
    port: u16,
}

impl Fastpath {
    /// Which addresses were learned by VXLAN, and behind which host each of them is.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub async fn macs(&self) -> Result<Vec<(MacAddr, IpAddr)>, Error> {
        let mut macs = Vec::new();
        for underlay in Underlay::ALL {
            let Some(device) = self.vxlan_device(underlay).await? else { continue };
            for row in dump(&self.kernel, &device.name, device.index, device.port).await? {
                if let (Entry::Device(mac, to), Lifetime::Dynamic) = (row.entry, row.lifetime) {
                    macs.push((mac, to.address));
                }
            }
        }
        Ok(macs)
    }

    /// The hosts that frames were sent to, or came from, by VXLAN within this time.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub async fn carried(&self, within: Duration) -> Result<BTreeSet<IpAddr>, Error> {
        let mut hosts = BTreeSet::new();
        for underlay in Underlay::ALL {
            let Some(device) = self.vxlan_device(underlay).await? else { continue };
            for row in dump(&self.kernel, &device.name, device.index, device.port).await? {
                let recent = row.idle.is_some_and(|idle| idle <= within);
                // Of the lasting entries only probes make use.
                if let (Entry::Device(_, to), Lifetime::Dynamic, true) = (row.entry, row.lifetime, recent) {
                    hosts.insert(to.address);
                }
            }
        }
        Ok(hosts)
    }

    /// Sends frames for these addresses another way from now on, without a moment in which they would go nowhere.
    ///
    /// To the sleeve: each is moved in the table of the bridge, and then forgotten by the VXLAN device. To VXLAN:
    /// the device is told the host of each, and then each is moved in the table of the bridge; both entries are as
    /// if learned. An address that has meanwhile been learned elsewhere (its container has moved) stays where it is.
    /// All are tried, whatever happens to one.
    ///
    /// A frame that still arrives by the old carrier is learned, and takes its sender back there. So close the old
    /// carrier to the peer first where that can be done, and repeat the call once the other end has changed too.
    ///
    /// # Errors
    /// Refused when the port does not stand; otherwise the first thing the kernel refused.
    pub async fn move_macs(&mut self, macs: &[MacAddr], to: Port) -> Result<(), Error> {
        if macs.is_empty() {
            return Ok(()); // so it is between hosts that have not met in containers: the most of a large mesh
        }
        let macs: BTreeSet<MacAddr> = macs.iter().copied().collect();
        match to {
            Port::Sleeve => self.to_sleeve(&macs).await,
            Port::Vxlan(remote) => self.to_vxlan(&macs, remote).await,
        }
    }

    /// Forgets what the bridge has learned by the port to the sleeve. A router that has just started knows none of it
    /// and could not have it moved; what still speaks is learned again with its next frame.
    ///
    /// # Errors
    /// Refused when the port does not stand; otherwise what the kernel said.
    pub async fn flush_sleeve(&mut self) -> Result<(), Error> {
        let (sleeve, index) = self.sleeve()?;
        for row in dump(&self.kernel, &sleeve, index, 0).await? {
            if let (Entry::Bridge(_), Lifetime::Dynamic) = (row.entry, row.lifetime) {
                remove(&self.kernel, &sleeve, index, &row.entry).await?;
            }
        }
        Ok(())
    }

    /// Forgets what was learned by VXLAN behind other hosts than these. A router that has just started does not serve them
    /// by VXLAN, so nobody would move it, and what is sent there would be dropped.
    ///
    /// # Errors
    /// The first thing the kernel refused; all are tried.
    pub async fn flush_vxlan(&mut self, but: &BTreeSet<IpAddr>) -> Result<(), Error> {
        let mut done = Ok(());
        for underlay in Underlay::ALL {
            let Some(device) = self.vxlan_device(underlay).await? else { continue };
            let mut rows = dump(&self.kernel, &device.name, device.index, device.port).await?;
            rows.retain(|row| row.lifetime == Lifetime::Dynamic);
            let strange =
                |row: &&Row| matches!(row.entry, Entry::Device(_, to) if !but.contains(&to.address));
            let macs: BTreeSet<MacAddr> = rows.iter().filter(strange).map(|row| row.entry.mac()).collect();
            for row in rows.iter().filter(|row| macs.contains(&row.entry.mac())) {
                done = done.and(remove(&self.kernel, &device.name, device.index, &row.entry).await);
            }
        }
        done
    }

    async fn to_sleeve(&self, macs: &BTreeSet<MacAddr>) -> Result<(), Error> {
        let (sleeve, index) = self.sleeve()?;
        let mut done = Ok(());
        for underlay in Underlay::ALL {
            let Some(device) = self.vxlan_device(underlay).await? else { continue };
            let mut rows = dump(&self.kernel, &device.name, device.index, device.port).await?;
            rows.retain(|row| row.lifetime == Lifetime::Dynamic && macs.contains(&row.entry.mac()));
            for row in rows.iter().filter(|row| matches!(row.entry, Entry::Bridge(_))) {
                done = done.and(self.learn(&sleeve, index, &row.entry).await);
            }
            for row in rows.iter().filter(|row| matches!(row.entry, Entry::Device(..))) {
                done = done.and(remove(&self.kernel, &device.name, device.index, &row.entry).await);
            }
        }
        done
    }

    async fn to_vxlan(&self, macs: &BTreeSet<MacAddr>, remote: SocketAddr) -> Result<(), Error> {
        let (sleeve, index) = self.sleeve()?;
        let address = remote.ip().to_canonical();
        let underlay = Underlay::of(address);
        let to = Destination { address, port: remote.port(), vni: None, interface: None };
        let Some(device) = self.vxlan_device(underlay).await? else {
            let name = self.bridge.vxlan(underlay);
            return Err(Error::refused(format!("VXLAN device {name}"), "it does not stand"));
        };
        let mut done = Ok(());
        for row in dump(&self.kernel, &sleeve, index, 0).await? {
            if row.lifetime == Lifetime::Dynamic && macs.contains(&row.entry.mac()) {
                // Without it the address would be on this port and behind nobody: sent to everyone on VXLAN, and
                // not found when its peer leaves VXLAN before a frame of its own has come by it.
                let told = Entry::Device(row.entry.mac(), to);
                done = done.and(self.learn(&device.name, device.index, &told).await);
                done = done.and(self.learn(&device.name, device.index, &row.entry).await);
            }
        }
        done
    }

    /// Has the bridge, or the VXLAN device, believe that it has just learned an address behind a port, or a host.
    async fn learn(&self, port: &str, index: u32, entry: &Entry) -> Result<(), Error> {
        write(&self.kernel, port, index, entry, NeighbourState::Reachable).await
    }

    fn sleeve(&self) -> Result<(String, u32), Error> {
        let name = self.bridge.sleeve_port();
        let index = sys::index(self.kernel.socket()?, &name)
            .map_err(|error| Error::kernel(name.as_str(), "look up", &error))?;
        Ok((name, index))
    }

    pub(super) async fn vxlan_device(&self, underlay: Underlay) -> Result<Option<Device>, Error> {
        let name = self.bridge.vxlan(underlay);
        let Some(message) = self.kernel.link(&name).await? else { return Ok(None) };
        let port = observe::own_vxlan(&message, &self.bridge).map(|tunnel| tunnel.port);
        Ok(port.map(|port| Device { name, index: message.header.index, port }))
    }
}
