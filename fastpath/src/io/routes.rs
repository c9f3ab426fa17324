//! The host's routes, read only: what our range must not overlap, and how large a packet the underlay takes.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::Ipv4Net;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteMetric, RouteType,
};
use rtnetlink::RouteMessageBuilder;

use super::Fastpath;
use super::kernel::{Kernel, all, first};
use super::observe::{mtu_of, name_of};
use crate::error::Error;

/// What Ethernet carries where nothing better is known, in bytes.
const ETHERNET_MTU: u32 = 1500;

/// A route of the host.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostRoute {
    /// Where it leads.
    pub destination: Ipv4Net,
    /// By which interface; None for one that leads nowhere (blackhole) or by several.
    pub device: Option<String>,
}

impl Fastpath {
    /// The host's IPv4 routes, of every table but `local`, without default routes and those of our own bridge.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub async fn host_routes(&self) -> Result<Vec<HostRoute>, Error> {
        let mut routes = Vec::new();
        for message in dump(&self.kernel, AddressFamily::Inet).await? {
            let Some(destination) = destination(&message) else { continue };
            let device = match interface(&message) {
                Some(index) => self.device(index).await?.map(|(name, _)| name),
                None => None,
            };
            if device.as_deref() != Some(self.bridge.as_str()) {
                routes.push(HostRoute { destination, device });
            }
        }
        routes.sort();
        routes.dedup();
        Ok(routes)
    }

    /// The largest packet that every way towards these addresses takes, in bytes; with none of them reachable or
    /// given, that of the default route's interface; without such a route, Ethernet's 1500.
    ///
    /// # Errors
    /// When the kernel does not answer; an address without a route is passed over.
    pub async fn underlay_mtu(&self, towards: &[IpAddr]) -> Result<u32, Error> {
        let mut smallest = None;
        for address in towards {
            if let Some(mtu) = self.path_mtu(*address).await? {
                smallest = Some(smallest.map_or(mtu, |least: u32| least.min(mtu)));
            }
        }
        if smallest.is_none() {
            smallest = self.default_mtu().await?;
        }
        Ok(smallest.unwrap_or(ETHERNET_MTU))
    }

    async fn path_mtu(&self, towards: IpAddr) -> Result<Option<u32>, Error> {
        let bits = if towards.is_ipv4() { 32 } else { 128 };
        let query = RouteMessageBuilder::<IpAddr>::new().destination_prefix(towards, bits);
        let Ok(query) = query else { return Ok(None) };
        let query = query.build();
        let answer = || self.kernel.handle.route().get(query.clone()).execute();
        match all(&format!("route to {towards}"), "look up", answer).await.map(first) {
            Ok(Some(route)) => self.route_mtu(&route).await,
            Ok(None) | Err(Error::Kernel { errno: Some(_), .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn default_mtu(&self) -> Result<Option<u32>, Error> {
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            for route in dump(&self.kernel, family).await? {
                if is_default(&route)
                    && let Some(mtu) = self.route_mtu(&route).await?
                {
                    return Ok(Some(mtu));
                }
            }
        }
        Ok(None)
    }

    /// The route's own limit, or that of its interface.
    async fn route_mtu(&self, route: &RouteMessage) -> Result<Option<u32>, Error> {
        let own = route.attributes.iter().find_map(|attribute| match attribute {
            RouteAttribute::Metrics(metrics) => metrics.iter().find_map(|metric| match metric {
                RouteMetric::Mtu(mtu) if *mtu > 0 => Some(*mtu),
                _ => None,
            }),
            _ => None,
        });
        let Some(index) = interface(route) else { return Ok(own) };
        let device = self.device(index).await?.and_then(|(_, mtu)| mtu);
        Ok(match (own, device) {
            (Some(own), Some(device)) => Some(own.min(device)),
            (own, device) => own.or(device),
        })
    }

    async fn device(&self, index: u32) -> Result<Option<(String, Option<u32>)>, Error> {
        let answer = || self.kernel.handle.link().get().match_index(index).execute();
        match all(&format!("interface {index}"), "look up", answer).await.map(first) {
            Ok(link) => Ok(link.and_then(|link| Some((name_of(&link)?, mtu_of(&link))))),
            Err(error) if error.is(&[libc::ENODEV]) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// All routes of one family.
pub(super) async fn dump(kernel: &Kernel, family: AddressFamily) -> Result<Vec<RouteMessage>, Error> {
    let mut query = RouteMessageBuilder::<Ipv4Addr>::new().build();
    query.header.address_family = family;
    let routes = all("routes", "list", || kernel.handle.route().get(query.clone()).execute()).await?;
    Ok(routes.into_iter().filter(|route| route.header.address_family == family).collect())
}

/// Whether it is a default route of the main table that leads somewhere.
pub(super) fn is_default(route: &RouteMessage) -> bool {
    route.header.destination_prefix_length == 0
        && route.header.kind == RouteType::Unicast
        && route.header.table == RouteHeader::RT_TABLE_MAIN
}

/// The interface a route leads by.
pub(super) fn interface(route: &RouteMessage) -> Option<u32> {
    route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Oif(index) => Some(*index),
        _ => None,
    })
}

/// The gateway a route leads by.
pub(super) fn gateway(route: &RouteMessage) -> Option<IpAddr> {
    route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Gateway(RouteAddress::Inet(address)) => Some(IpAddr::V4(*address)),
        RouteAttribute::Gateway(RouteAddress::Inet6(address)) => Some(IpAddr::V6(*address)),
        _ => None,
    })
}

/// Where a route leads, unless it is a default route or an address of the host itself.
fn destination(route: &RouteMessage) -> Option<Ipv4Net> {
    /// The table of the host's own addresses.
    const LOCAL: u8 = libc::RT_TABLE_LOCAL;
    if route.header.table == LOCAL || route.header.destination_prefix_length == 0 {
        return None;
    }
    route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(address)) => {
            Ipv4Net::new(*address, route.header.destination_prefix_length).ok()
        }
        _ => None,
    })
}
