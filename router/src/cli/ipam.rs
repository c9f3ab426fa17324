//! `weft ipam`: addresses without wiring.

use weft_api::Request;

use super::{Context, args::IpamCommand, error::CliError};
use crate::exit_code::ExitCode;

pub(super) fn run(context: &mut Context<'_>, command: IpamCommand) -> Result<ExitCode, CliError> {
    let request = match command {
        IpamCommand::Allocate { holder, cidr, wait } => Request::IpamAllocate {
            id: holder.id.into(),
            cidr: cidr.map(|cidr| cidr.to_string()),
            timeout_ms: wait.timeout.as_millis(),
        },
        IpamCommand::Claim { holder, cidr, wait } => Request::IpamClaim {
            id: holder.id.into(),
            cidr: cidr.to_string(),
            timeout_ms: wait.timeout.as_millis(),
        },
        IpamCommand::Release { holder, cidr } => {
            Request::IpamRelease { id: holder.id.into(), cidr: cidr.map(|cidr| cidr.to_string()) }
        }
        IpamCommand::Lookup { holder, cidr } => {
            Request::IpamLookup { id: holder.id.into(), cidr: cidr.map(|cidr| cidr.to_string()) }
        }
    };
    let response = context.call(&request)?;
    context.show(response)
}
