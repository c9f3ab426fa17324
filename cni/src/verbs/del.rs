//! DEL: take a pod's interface and its addresses back, whatever is left of them.
//!
//! A runtime must be able to forget a pod while the router is away: then a note stays beside the socket.

use weft_api::{CniNote, ErrorCode};

use crate::{
    call::{Call, Verb},
    error::Error,
    io::fault,
    netconf::NetConf,
    world::World,
};

pub(super) fn del(call: &Call, conf: &NetConf, world: &mut impl World) -> Result<(), Error> {
    take_back(world, &CniNote::Del(call.name.clone()))?;
    // After the interface: nobody else may get an address that is still in use.
    match conf.delegate() {
        Some(plugin) => world.delegate(plugin, Verb::Del).map(drop),
        None => Ok(()),
    }
}

/// Asks the router, or leaves it a note.
pub(crate) fn take_back(world: &mut impl World, note: &CniNote) -> Result<(), Error> {
    fault::reached("asking");
    let asked = world.ask(&note.request());
    fault::reached("asked");
    match asked {
        Ok(_) => Ok(()),
        Err(error) if error.code == ErrorCode::Usage => Err(error.into()),
        Err(error) => world.leave(note).map_err(|left| {
            // Neither done nor written down: the runtime must come again.
            Error::later(error.message).with_details(left.msg)
        }),
    }
}
