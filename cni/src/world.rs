//! What a verb needs of the world: the router, the pod's namespace, other plugins, and a place for notes.
//!
//! The one implementation that touches anything is `io::host::Host`; tests have another.

use std::net::Ipv4Addr;

use weft_api::{ApiError, CniAdd, CniNote, Request, Response};

use crate::{call::Verb, error::Error, result::Outcome};

/// The world as a verb sees it.
pub(crate) trait World {
    /// Asks the router.
    fn ask(&mut self, request: &Request) -> Result<Response, ApiError>;

    /// Opens a pod's namespace and makes sure that it is one, and not the host's.
    fn open(&mut self, netns: &str) -> Result<(), Error>;

    /// Asks the router to connect the namespace that was opened last.
    fn attach(&mut self, add: CniAdd) -> Result<Response, Error>;

    /// Runs another plugin with the same configuration and environment, apart from the verb.
    fn delegate(&mut self, plugin: &str, verb: Verb) -> Result<Option<Outcome>, Error>;

    /// Leaves a note for a router that is away.
    fn leave(&mut self, note: &CniNote) -> Result<(), Error>;

    /// Does what an earlier note says, if it still lies there: what follows is about the same pod.
    fn honour(&mut self, note: &CniNote) -> Result<(), Error>;

    /// Which interfaces stand here, outside of the pod.
    fn host_interfaces(&mut self) -> Result<Vec<String>, Error>;

    /// How an interface looks inside of the namespace that was opened last; none when it is not there.
    fn inside(&mut self, ifname: &str) -> Result<Option<Inside>, Error>;
}

/// An interface as it is found inside of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Inside {
    /// Whether it is administratively up.
    pub(crate) up: bool,
    /// Its MAC address.
    pub(crate) mac: String,
    /// Its IPv4 addresses with their prefix lengths.
    pub(crate) addresses: Vec<String>,
    /// The IPv4 routes of the namespace's main table, by whatever interface.
    pub(crate) routes: Vec<(Ipv4Addr, u8, Ipv4Addr)>,
}
