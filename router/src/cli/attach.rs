//! `weft attach` and `weft detach`: the namespace is opened here, the wiring is the router's.

use weft_api::{Namespace, NetnsError, Request};

use super::{
    Context,
    args::{Attach, Detach},
    error::CliError,
};
use crate::exit_code::ExitCode;

pub(super) fn attach(context: &mut Context<'_>, arguments: Attach) -> Result<ExitCode, CliError> {
    let namespace = Namespace::open(&arguments.netns)?;
    let request = Request::Attach(weft_api::Attach {
        id: arguments.id.map(String::from),
        addresses: arguments.addresses.iter().map(ToString::to_string).collect(),
        ifname: arguments.ifname.to_string(),
        default_route: !arguments.no_default_route,
        netns: namespace.path().display().to_string(),
        netns_inode: namespace.inode(),
        timeout_ms: arguments.wait.timeout.as_millis(),
    });
    let descriptors = namespace.into_descriptors()?;
    let response = context.client.call_with(&request, &descriptors)?;
    context.show(response)
}

pub(super) fn detach(context: &mut Context<'_>, arguments: Detach) -> Result<ExitCode, CliError> {
    let path = Namespace::locate(&arguments.netns)?;
    let netns_inode = match Namespace::open(&arguments.netns) {
        Ok(namespace) => Some(namespace.inode()),
        // Containers are gone before they are detached more often than not: then its name finds the attachment.
        Err(NetnsError::Missing(_) | NetnsError::NotOne(_)) => None,
        Err(error) => return Err(error.into()),
    };
    let request = Request::Detach {
        id: arguments.id.map(String::from),
        netns: path.display().to_string(),
        netns_inode,
    };
    let response = context.call(&request)?;
    context.show(response)
}
