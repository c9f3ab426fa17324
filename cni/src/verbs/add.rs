//! ADD: connect a pod and say how.
//!
//! ```text
//! namespace opened ─► addresses, if another plugin gives them ─► router: address, link, routes ─► result
//!                          └───────────── given back ◄──────────────── refused
//! ```

use weft_api::{CniAdd, CniAttached, CniNote, CniRoute, Response};

use super::{PATIENCE, nonsense};
use crate::{
    call::{Call, Verb},
    error::Error,
    io::fault,
    netconf::NetConf,
    result::{Interface, Ip, Outcome, Route},
    world::World,
};

pub(super) fn add(call: &Call, conf: &NetConf, world: &mut impl World) -> Result<Outcome, Error> {
    let previous = conf.previous()?;
    // Nothing is asked of anybody for a pod that cannot be.
    world.open(&call.netns)?;
    fault::reached("opened");
    world.honour(&CniNote::Del(call.name.clone()))?;
    let Some(plugin) = conf.delegate() else {
        let attached = attach(world, order(call, conf))?;
        return Ok(outcome(call, conf, previous, &attached, None));
    };
    let given = world.delegate(plugin, Verb::Add)?.unwrap_or_default();
    fault::reached("delegated");
    match delegated(call, conf, &given).and_then(|order| attach(world, order)) {
        Ok(attached) => Ok(outcome(call, conf, previous, &attached, Some(given))),
        Err(error) => {
            // What it says matters less than why the pod could not be connected.
            let undone = world.delegate(plugin, Verb::Del);
            Err(match undone {
                Ok(_) => error,
                Err(undone) => error.with_details(format!("and {plugin} kept its address: {}", undone.msg)),
            })
        }
    }
}

/// Has the router connect it. If nobody knows whether it did, a note has it undone: no address may leak.
fn attach(world: &mut impl World, add: CniAdd) -> Result<CniAttached, Error> {
    let note = CniNote::Del(add.name.clone());
    fault::reached("asking");
    let attached = world.attach(add);
    fault::reached("asked");
    match attached {
        Ok(Response::CniAttached(attached)) => Ok(*attached),
        Ok(_) => Err(nonsense()),
        Err(error) => {
            if error.code == Error::later("").code {
                let _ = world.leave(&note);
            }
            Err(error)
        }
    }
}

/// What the router is asked for when it gives out the addresses itself.
fn order(call: &Call, conf: &NetConf) -> CniAdd {
    let routes = conf.ipam.routes.as_ref();
    CniAdd {
        name: call.name.clone(),
        network: conf.name.clone(),
        netns: call.netns.clone(),
        bridge: conf.bridge.clone(),
        mtu: conf.mtu(),
        mac: conf.mac(call.arguments.mac.as_deref()),
        hairpin: conf.hairpin_mode.unwrap_or(true),
        addresses: conf.addresses(&call.arguments.addresses),
        subnet: conf.ipam.subnet.clone(),
        gateway: conf.ipam.gateway.clone(),
        routes: routes.map(|routes| routes.iter().map(wanted).collect()),
        outward: conf.ip_masq.unwrap_or(true),
        timeout_ms: PATIENCE,
    }
}

/// What the router is asked for when another plugin has given the addresses.
fn delegated(call: &Call, conf: &NetConf, given: &Outcome) -> Result<CniAdd, Error> {
    if given.ips.is_empty() {
        return Err(Error::configuration("the IPAM plugin gave no address"));
    }
    if let Some(six) = given.ips.iter().find(|ip| ip.address.contains(':')) {
        return Err(Error::configuration(format!(
            "the IPAM plugin gave {}: IPv6 addresses cannot be attached",
            six.address
        )));
    }
    let four = given.routes.iter().filter(|route| !route.dst.contains(':'));
    Ok(CniAdd {
        addresses: given.ips.iter().map(|ip| ip.address.clone()).collect(),
        subnet: None,
        gateway: given.ips.iter().find_map(|ip| ip.gateway.clone()),
        routes: Some(four.map(wanted).collect()),
        ..order(call, conf)
    })
}

fn wanted(route: &Route) -> CniRoute {
    CniRoute { dst: route.dst.clone(), gw: route.gw.clone() }
}

/// The result: what was there before, then what we made.
fn outcome(
    call: &Call,
    conf: &NetConf,
    previous: Option<Outcome>,
    attached: &CniAttached,
    given: Option<Outcome>,
) -> Outcome {
    let mut outcome = previous.unwrap_or_default();
    let inside = outcome.interfaces.len() + 2;
    outcome.interfaces.extend([
        Interface::on_host(attached.bridge.clone(), attached.bridge_mac.clone()),
        Interface::on_host(attached.host_interface.clone(), attached.host_mac.clone()),
        Interface {
            name: call.name.ifname.clone(),
            mac: attached.mac.clone(),
            sandbox: call.netns.clone(),
            more: [("mtu".to_owned(), attached.mtu.into())].into_iter().collect(),
        },
    ]);
    let (ips, routes, dns) = match given {
        Some(given) => (given.ips, given.routes, given.dns),
        None => {
            let ip = |address: &String| Ip::new(address.clone(), attached.gateway.clone(), None);
            let route =
                |route: &CniRoute| Route { dst: route.dst.clone(), gw: route.gw.clone(), ..Route::default() };
            let ips = attached.addresses.iter().map(ip).collect();
            (ips, attached.routes.iter().map(route).collect(), Default::default())
        }
    };
    outcome.ips.extend(ips.into_iter().map(|ip: Ip| Ip { interface: Some(inside), ..ip }));
    outcome.routes.extend(routes);
    match &conf.dns {
        Some(dns) if !dns.is_empty() => outcome.dns = dns.clone(),
        Some(_) | None if !dns.is_empty() => outcome.dns = dns,
        Some(_) | None => {}
    }
    outcome
}
