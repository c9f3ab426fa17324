//! STATUS: could a pod be connected now?

use weft_api::{ErrorCode, Request, Response};

use super::nonsense;
use crate::{call::Verb, error::Error, world::World};

/// Asks the router, and the plugin that gives out addresses in its place.
pub(crate) fn status(world: &mut impl World, delegate: Option<&str>) -> Result<(), Error> {
    let status = match world.ask(&Request::CniStatus { addresses: delegate.is_none() }) {
        Ok(Response::CniStatus(status)) => status,
        Ok(_) => return Err(nonsense()),
        Err(error) if error.code == ErrorCode::Usage => return Err(error.into()),
        Err(error) => return Err(Error::unavailable(error.message)),
    };
    if let Some(reason) = status.degraded {
        return Err(Error::degraded(reason));
    }
    if let Some(reason) = status.unavailable {
        return Err(Error::unavailable(reason));
    }
    match delegate {
        Some(plugin) => world.delegate(plugin, Verb::Status).map(drop),
        None => Ok(()),
    }
}
