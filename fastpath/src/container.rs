//! What an attachment asks for, and what it leaves behind.
//!
//! ```text
//! container's namespace                      host's namespace
//! [lo up]  eth0  0a:58:...  addresses        wvXXXXXXXXXXX  no address, hairpin port of the bridge
//!            routes: the range, 224.0.0.0/4, perhaps default
//! ```

use ipnet::IpNet;
use std::net::{IpAddr, Ipv4Addr};

use crate::error::Error;
use crate::mac::MacAddr;
use crate::names::PortId;

/// A link between a container and the bridge, as it is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerLink {
    /// The id the attachment is made under.
    pub id: String,
    /// What the interface is called inside the container.
    pub ifname: String,
    /// Its Ethernet address.
    pub mac: MacAddr,
    /// Its addresses; the prefix lengths make the connected routes.
    pub addresses: Vec<IpNet>,
    /// Whether the container's default route is to lead here.
    pub gateway: DefaultRoute,
    /// The longest packet it carries, in bytes, without the Ethernet header.
    pub mtu: u32,
    /// Further routes inside, and by whom; without a gateway they are on the link.
    pub routes: Vec<(IpNet, Option<IpAddr>)>,
    /// Whether a frame may leave by the port of the bridge it came from.
    pub hairpin: bool,
}

/// The container's default route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DefaultRoute {
    /// None from us.
    None,
    /// By this gateway, when the container has no default route by another interface.
    Via(IpAddr),
    /// Everything counts as being on the link, when the container has no default route by another interface.
    OnLink,
}

/// An attachment that stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attached {
    /// The host end of the link.
    pub host_end: String,
    /// Its interface index.
    pub ifindex: u32,
    /// Whether this call made it; false: it stood already.
    pub created: bool,
    /// What could not be had but is not worth failing for (router advertisements inside the container).
    pub unmet: Vec<Error>,
}

/// A container link that was found standing.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct StandingLink {
    /// Whose it is.
    pub port: PortId,
    /// The host end of the link.
    pub host_end: String,
    /// Its interface index.
    pub ifindex: u32,
    /// Whether it is a port of our bridge.
    pub joined: bool,
    /// Whether it is administratively up.
    pub up: bool,
    /// Whether the far end is up too. (A pair goes together: a far end that is gone has taken this end with it.)
    pub carrier: bool,
    /// Its MTU.
    pub mtu: u32,
    /// The container's first IPv4 address, as it was when the link was made.
    pub address: Option<Ipv4Addr>,
}

impl ContainerLink {
    /// Checks what can be checked without the kernel, and names the port.
    ///
    /// # Errors
    /// Refused, with the value and what is allowed.
    pub(crate) fn port(&self) -> Result<PortId, Error> {
        let port = PortId::new(&self.id, &self.ifname)?;
        let object = || format!("attachment of {port}");
        if self.mac.is_multicast() {
            return Err(Error::refused(object(), format!("{} is a multicast MAC address", self.mac)));
        }
        if self.addresses.len() > 16 {
            return Err(Error::refused(object(), "at most 16 addresses are possible"));
        }
        if !(576..=65_535).contains(&self.mtu) {
            return Err(Error::refused(object(), format!("MTU {} is not between 576 and 65535", self.mtu)));
        }
        if let Some(bad) =
            self.addresses.iter().find(|net| net.addr().is_multicast() || net.addr().is_unspecified())
        {
            return Err(Error::refused(object(), format!("{bad} is not an address of a host")));
        }
        Ok(port)
    }
}
