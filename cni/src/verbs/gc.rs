//! GC: take back whatever this network has here and nobody uses.

use weft_api::Request;

use crate::{call::Verb, error::Error, netconf::NetConf, world::World};

pub(super) fn gc(conf: &NetConf, world: &mut impl World) -> Result<(), Error> {
    collect(conf, world)?;
    match conf.delegate() {
        Some(plugin) => world.delegate(plugin, Verb::Gc).map(drop),
        None => Ok(()),
    }
}

/// The router's part.
pub(crate) fn collect(conf: &NetConf, world: &mut impl World) -> Result<(), Error> {
    let request = Request::CniGc { network: conf.name.clone(), valid: conf.valid()? };
    Ok(world.ask(&request).map(drop)?)
}
