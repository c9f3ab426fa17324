//! The verbs of `weft-net`, a file each.

mod add;
mod check;
mod del;
mod gc;
mod status;

pub(crate) use del::take_back;
pub(crate) use gc::collect;
pub(crate) use status::status;

use crate::{
    call::{Call, Verb},
    error::Error,
    netconf::NetConf,
    result::Outcome,
    world::World,
};

/// How long the router may take to find an address, in milliseconds. It is allowed three seconds more for the rest,
/// which is still within what a verb has.
pub(crate) const PATIENCE: u64 = 5_000;

/// Carries out one verb.
pub(crate) fn run(call: &Call, conf: &NetConf, world: &mut impl World) -> Result<Option<Outcome>, Error> {
    match call.verb {
        Verb::Add => add::add(call, conf, world).map(Some),
        Verb::Del => del::del(call, conf, world).map(|()| None),
        Verb::Check => check::check(call, conf, world).map(|()| None),
        Verb::Gc => gc::gc(conf, world).map(|()| None),
        Verb::Status => status(world, conf.delegate()).map(|()| None),
        // Answered before there is a configuration.
        Verb::Version => Ok(None),
    }
}

/// The router answered another question.
pub(crate) fn nonsense() -> Error {
    Error::refused("the router answers in words this version does not know")
}

#[cfg(test)]
mod tests;
