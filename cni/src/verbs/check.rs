//! CHECK: is a pod still connected as the ADD said?
//!
//! What later plugins of the chain added is none of our business; what we made must be there.

use std::net::Ipv4Addr;

use weft_api::{Request, Response};

use super::nonsense;
use crate::{
    call::{Call, Verb},
    error::Error,
    netconf::NetConf,
    result::{Outcome, Route},
    world::{Inside, World},
};

pub(super) fn check(call: &Call, conf: &NetConf, world: &mut impl World) -> Result<(), Error> {
    let missing = || Error::configuration("prevResult is missing");
    let previous = conf.previous()?.ok_or_else(missing)?;
    world.open(&call.netns)?;
    let asked = Request::CniCheck(call.name.clone());
    let Response::Addresses(held) = world.ask(&asked)? else { return Err(nonsense()) };
    let ifname = &call.name.ifname;
    let here = world.host_interfaces()?;
    let on_host = previous.interfaces.iter().filter(|interface| interface.sandbox.is_empty());
    if let Some(gone) = on_host.map(|interface| &interface.name).find(|name| !here.contains(name)) {
        return Err(Error::refused(format!("interface {gone} is gone from the host")));
    }
    let absent = || Error::refused(format!("interface {ifname} is not in {}", call.netns));
    let inside = world.inside(ifname)?.ok_or_else(absent)?;
    let place = previous.interfaces.iter().position(|one| one.name == *ifname && one.sandbox == call.netns);
    let place = place.ok_or_else(|| {
        Error::configuration(format!("prevResult has no interface {ifname} in {}", call.netns))
    })?;
    compare(ifname, &inside, &previous, place, &held)?;
    match conf.delegate() {
        Some(plugin) => world.delegate(plugin, Verb::Check).map(drop),
        None => Ok(()),
    }
}

/// Compares what is inside with what was promised, and with what the router holds.
fn compare(
    ifname: &str,
    inside: &Inside,
    previous: &Outcome,
    place: usize,
    held: &[String],
) -> Result<(), Error> {
    if !inside.up {
        return Err(Error::refused(format!("interface {ifname} is down")));
    }
    let promised = previous.interfaces.get(place).map(|one| one.mac.as_str()).unwrap_or_default();
    if !promised.is_empty() && !promised.eq_ignore_ascii_case(&inside.mac) {
        return Err(Error::refused(format!(
            "interface {ifname} has the MAC address {}, not {promised}",
            inside.mac
        )));
    }
    let ours = previous.ips.iter().filter(|ip| ip.interface.is_none_or(|at| at == place));
    let ours = ours.map(|ip| &ip.address).filter(|address| !address.contains(':'));
    for address in held.iter().chain(ours) {
        if !inside.addresses.contains(address) {
            return Err(Error::refused(format!("interface {ifname} does not have the address {address}")));
        }
    }
    for route in previous.routes.iter().filter(|route| !route.dst.contains(':')) {
        if !stands(route, inside) {
            let by = route.gw.as_ref().map(|gw| format!(" by {gw}")).unwrap_or_default();
            return Err(Error::refused(format!("the route to {}{by} is gone", route.dst)));
        }
    }
    Ok(())
}

/// Whether a route is there. One in another table than the main one is of another plugin, which checks it.
fn stands(route: &Route, inside: &Inside) -> bool {
    if route.more.contains_key("table") {
        return true;
    }
    let Some((net, length)) = route.dst.split_once('/') else { return false };
    let (Ok(net), Ok(length)) = (net.parse::<Ipv4Addr>(), length.parse::<u8>()) else { return false };
    let net = masked(net, length);
    let by: Option<Ipv4Addr> = route.gw.as_ref().and_then(|gw| gw.parse().ok());
    let same = |(to, long, via): &(Ipv4Addr, u8, Ipv4Addr)| {
        *to == net && *long == length && by.is_none_or(|by| by == *via)
    };
    inside.routes.iter().any(same)
}

fn masked(address: Ipv4Addr, length: u8) -> Ipv4Addr {
    let mask = u32::MAX.checked_shl(32 - u32::from(length.min(32))).unwrap_or(0);
    Ipv4Addr::from_bits(address.to_bits() & mask)
}
