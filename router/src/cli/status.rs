//! `weft status`: the document of the router, for programs as it is, for people as text.

mod text;

use weft_api::{Request, Response};

use super::{Context, args::Section, error::CliError};
use crate::exit_code::ExitCode;

/// Prints the status or a part of it.
pub(super) fn run(context: &mut Context<'_>, section: Option<Section>) -> Result<ExitCode, CliError> {
    let Response::Status(status) = context.call(&Request::Status)? else { return Err(CliError::Unexpected) };
    let output = &mut context.output;
    if context.json {
        match section {
            None => output.json(&status),
            Some(Section::Connections) => output.json(&status.connections),
            Some(Section::Peers) => output.json(&status.peers),
            Some(Section::Ipam) => output.json(&status.ipam),
            Some(Section::Targets) => output.json(&status.targets),
            Some(Section::Attachments) => output.json(&status.attachments),
        }?;
    } else {
        output.text(&match section {
            None => text::everything(&status),
            Some(Section::Connections) => text::connections(&status),
            Some(Section::Peers) => text::peers(&status),
            Some(Section::Ipam) => text::ipam(&status),
            Some(Section::Targets) => text::targets(&status),
            Some(Section::Attachments) => text::attachments(&status),
        })?;
    }
    Ok(ExitCode::Done)
}
