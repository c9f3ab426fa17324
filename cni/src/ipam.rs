//! The verbs of `weft-ipam`: addresses for plugins that wire by themselves.
//!
//! An address is held under the id `container/interface`, apart from those of attachments.

use weft_api::{CniLease, CniNote, Request, Response};

use crate::{
    call::{Call, Verb},
    error::Error,
    io::fault,
    netconf::NetConf,
    result::{Ip, Outcome},
    verbs::{PATIENCE, collect, nonsense, status, take_back},
    world::World,
};

/// Carries out one verb.
pub(crate) fn run(call: &Call, conf: &NetConf, world: &mut impl World) -> Result<Option<Outcome>, Error> {
    match call.verb {
        Verb::Add => add(call, conf, world).map(Some),
        Verb::Del => take_back(world, &CniNote::Release(call.name.clone())).map(|()| None),
        Verb::Check => check(call, conf, world).map(|()| None),
        Verb::Gc => collect(conf, world).map(|()| None),
        Verb::Status => status(world, None).map(|()| None),
        // Answered before there is a configuration.
        Verb::Version => Ok(None),
    }
}

fn add(call: &Call, conf: &NetConf, world: &mut impl World) -> Result<Outcome, Error> {
    let note = CniNote::Release(call.name.clone());
    world.honour(&note)?;
    let asked = conf.addresses(&call.arguments.addresses);
    let each: Vec<Option<String>> =
        if asked.is_empty() { vec![None] } else { asked.into_iter().map(Some).collect() };
    let mut outcome = Outcome { dns: conf.dns.clone().unwrap_or_default(), ..Outcome::default() };
    for address in each {
        let lease = CniLease {
            name: call.name.clone(),
            network: conf.name.clone(),
            address,
            subnet: conf.ipam.subnet.clone(),
            timeout_ms: PATIENCE,
        };
        fault::reached("asking");
        let leased = world.ask(&Request::CniLease(lease));
        fault::reached("asked");
        match leased {
            Ok(Response::Addresses(addresses)) => {
                let ip = |address| Ip::new(address, conf.ipam.gateway.clone(), None);
                outcome.ips.extend(addresses.into_iter().map(ip));
            }
            Ok(_) => return Err(nonsense()),
            Err(error) => {
                // One of several was refused, or nobody knows: none is kept.
                let _ = take_back(world, &note);
                return Err(error.into());
            }
        }
    }
    outcome.routes = conf.ipam.routes.clone().unwrap_or_default();
    Ok(outcome)
}

fn check(call: &Call, conf: &NetConf, world: &mut impl World) -> Result<(), Error> {
    let asked = Request::IpamLookup { id: call.name.lease_id(), cidr: None };
    let Response::Addresses(held) = world.ask(&asked)? else { return Err(nonsense()) };
    let bare = |address: &str| address.split('/').next().unwrap_or_default().to_owned();
    let held: Vec<String> = held.iter().map(|address| bare(address)).collect();
    let previous = conf.previous()?.unwrap_or_default();
    // The main plugin's result may hold addresses of others, too: one of ours must be among them.
    let promised: Vec<String> = previous.ips.iter().map(|ip| bare(&ip.address)).collect();
    if promised.is_empty() || promised.iter().any(|address| held.contains(address)) {
        return Ok(());
    }
    let (id, promised, held) = (call.name.lease_id(), promised.join(", "), held.join(", "));
    Err(Error::refused(format!("{id} holds {held}, none of {promised}")))
}
