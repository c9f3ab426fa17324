//! `weft peer`: whom to dial and who is gone.

use weft_api::Request;

use super::{
    Context,
    args::{PeerAdd, PeerCommand, PeerForget, PeerRemove, Section},
    error::CliError,
    status,
};
use crate::{config::PeerAddress, exit_code::ExitCode};

pub(super) fn run(context: &mut Context<'_>, command: PeerCommand) -> Result<ExitCode, CliError> {
    match command {
        PeerCommand::Add(arguments) => add(context, &arguments),
        PeerCommand::Forget(arguments) => forget(context, &arguments),
        PeerCommand::Remove(arguments) => remove(context, &arguments),
        PeerCommand::List => status::run(context, Some(Section::Peers)),
    }
}

pub(super) fn add(context: &mut Context<'_>, arguments: &PeerAdd) -> Result<ExitCode, CliError> {
    let request = Request::PeerAdd { peers: written(&arguments.peers)?, replace: arguments.replace };
    let response = context.call(&request)?;
    context.show(response)
}

pub(super) fn forget(context: &mut Context<'_>, arguments: &PeerForget) -> Result<ExitCode, CliError> {
    let response = context.call(&Request::PeerForget { peers: written(&arguments.peers)? })?;
    context.show(response)
}

pub(super) fn remove(context: &mut Context<'_>, arguments: &PeerRemove) -> Result<ExitCode, CliError> {
    let request = Request::PeerRemove { name: arguments.name.to_string(), force: arguments.force };
    let response = context.call(&request)?;
    context.show(response)
}

/// The addresses as the router takes them, or the first that this version cannot link to.
fn written(peers: &[PeerAddress]) -> Result<Vec<String>, CliError> {
    peers.iter().map(|peer| Ok(peer.supported().map(|()| peer.to_string())?)).collect()
}
