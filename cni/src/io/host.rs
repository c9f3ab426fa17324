//! The world as it is.

use std::{path::PathBuf, time::Duration};

use weft_api::{ApiError, Client, CniAdd, CniNote, Namespace, NetnsError, Request, Response, netns};

use super::{delegate, inside, notes::Notes};
use crate::{
    call::{Environment, Verb},
    error::Error,
    netconf::NetConf,
    result::Outcome,
    world::{Inside, World},
};

/// How long the router may take for all that one verb asks of it: runtimes give up, and count the seconds of a pod's
/// start. It is longer than the router takes for an answer of its own.
const BUDGET: Duration = Duration::from_secs(9);

/// The host this plugin runs on.
pub(crate) struct Host {
    router: Client,
    socket: PathBuf,
    path: Option<String>,
    input: Vec<u8>,
    namespace: Option<Namespace>,
}

impl Host {
    /// A host with the router that the configuration names; `input` is what other plugins are given.
    pub(crate) fn new(conf: &NetConf, environment: &Environment, input: Vec<u8>) -> Self {
        let socket = PathBuf::from(conf.socket());
        let path = environment.path.clone();
        Self { router: Client::new(&socket).within(BUDGET), socket, path, input, namespace: None }
    }

    fn opened(&mut self) -> Result<Namespace, Error> {
        self.namespace.take().ok_or_else(|| Error::refused("no namespace is open"))
    }
}

impl World for Host {
    fn ask(&mut self, request: &Request) -> Result<Response, ApiError> {
        self.router.call(request)
    }

    fn open(&mut self, path: &str) -> Result<(), Error> {
        let namespace = Namespace::open(path).map_err(|error| refused(&error))?;
        match netns::is_own(&namespace) {
            Ok(false) => {}
            Ok(true) => return Err(refused(&NetnsError::Own(path.into()))),
            Err(reason) => return Err(refused(&NetnsError::Refused { path: path.into(), reason })),
        }
        self.namespace = Some(namespace);
        Ok(())
    }

    fn attach(&mut self, add: CniAdd) -> Result<Response, Error> {
        let descriptors = self.opened()?.into_descriptors().map_err(|error| refused(&error))?;
        Ok(self.router.call_with(&Request::CniAdd(Box::new(add)), &descriptors)?)
    }

    fn delegate(&mut self, plugin: &str, verb: Verb) -> Result<Option<Outcome>, Error> {
        delegate::run(plugin, self.path.as_deref(), verb, &self.input)
    }

    fn leave(&mut self, note: &CniNote) -> Result<(), Error> {
        let failed =
            |error| Error::later(format!("no note can be left beside {}: {error}", self.socket.display()));
        Notes::of(&self.socket).leave(note).map_err(failed)
    }

    fn honour(&mut self, note: &CniNote) -> Result<(), Error> {
        Ok(Notes::of(&self.socket).honour(note, &self.router)?)
    }

    fn host_interfaces(&mut self) -> Result<Vec<String>, Error> {
        inside::interfaces()
            .map_err(|error| Error::refused(format!("cannot list the host's interfaces: {error}")))
    }

    fn inside(&mut self, ifname: &str) -> Result<Option<Inside>, Error> {
        let namespace = self.opened()?;
        let shown = namespace.path().display().to_string();
        inside::enter(&namespace, ifname)
            .map_err(|error| Error::refused(format!("cannot look into {shown}: {error}")))
    }
}

/// A namespace that cannot be had is the fault of the variable that names it.
fn refused(error: &NetnsError) -> Error {
    Error::environment(format!("CNI_NETNS: {error}"))
}
