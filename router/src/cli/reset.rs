//! `weft reset`: leave the cluster; with the router down, only by force, and then only what stands on this host.

use std::time::Duration;

use weft_api::{ApiError, ErrorCode, Request};

use super::{Context, args::Places, error::CliError};
use crate::{daemon, exit_code::ExitCode};

/// How long a router that has left may take to end.
const LAST_BREATH: Duration = Duration::from_secs(10);

pub(super) fn run(context: &mut Context<'_>, force: bool, places: &Places) -> Result<ExitCode, CliError> {
    match context.client.call(&Request::Reset { force }) {
        Ok(response) => {
            // Whoever launches again right after must not meet the old one.
            if !context.client.wait_for_end(LAST_BREATH) {
                return Err(anyhow::anyhow!("the router has left the cluster but does not end").into());
            }
            context.show(response)
        }
        Err(error) if error.code == ErrorCode::NoRouter && force => {
            let lines = daemon::offline_reset(&places.state_dir, &places.bridge)?;
            context.show(weft_api::Response::Done(lines))
        }
        Err(error) if error.code == ErrorCode::NoRouter => Err(ApiError::no_router(format!(
            "{}; 'weft reset --force' removes what it left on this host",
            error.message
        ))
        .into()),
        Err(error) => Err(error.into()),
    }
}
