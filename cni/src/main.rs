//! The CNI plugin: one pod, one verb, one JSON document, and gone.
//!
//! Reads the environment and the standard input, asks the router, prints what the CNI specification (1.1.0) wants
//! printed, and ends. It holds no state, starts no runtime and changes nothing by itself: the wiring is the router's.
//! Called `weft-net` it connects pods; called `weft-ipam` it only gives out addresses, for other plugins that wire.

mod arguments;
mod call;
mod error;
mod io;
mod ipam;
mod netconf;
mod result;
mod verbs;
mod version;
mod world;

use std::process::ExitCode;

use call::{Call, Verb};
use error::Error;
use io::{environment, stdio};
use netconf::NetConf;
use version::Version;

/// What is printed on success: nothing, or one document.
type Document = Option<String>;

/// Which of the two plugins this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plugin {
    /// Connects pods.
    Net,
    /// Gives out addresses.
    Ipam,
}

fn main() -> ExitCode {
    let mut version = Version::NEWEST;
    match run(&mut version) {
        Ok(document) => stdio::done(document.as_deref()),
        Err(error) => stdio::failed(&error.document(version)),
    }
}

/// Carries out the verb; `version` becomes that of the configuration as soon as it is known.
fn run(version: &mut Version) -> Result<Document, Error> {
    let environment = environment::read();
    let verb = Verb::parse(environment.command.as_deref())?;
    if verb == Verb::Version {
        // It must answer whatever it is given, and a terminal as its input gives nothing.
        return Ok(Some(version::document(&stdio::read().unwrap_or_default())));
    }
    let call = Call::parse(verb, &environment)?;
    let input = stdio::read()?;
    *version = Version::of(&input)?;
    version.allows(verb)?;
    let conf = NetConf::parse(&input)?;
    let mut host = io::host::Host::new(&conf, &environment, input);
    io::fault::reached("parsed");
    let plugin = if environment.name == "weft-ipam" { Plugin::Ipam } else { Plugin::Net };
    let result = match plugin {
        Plugin::Net => verbs::run(&call, &conf, &mut host)?,
        Plugin::Ipam => ipam::run(&call, &conf, &mut host)?,
    };
    io::fault::reached("done");
    Ok(result.map(|result| result.document(*version)))
}
