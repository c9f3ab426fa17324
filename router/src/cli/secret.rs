//! `weft secret generate`.

use std::fmt::Write;

use anyhow::Context as _;
use rand::{TryRng, rngs::SysRng};

use super::{Context, error::CliError};
use crate::exit_code::ExitCode;

/// Prints 256 bits from the kernel, in hex.
pub(super) fn generate(context: &mut Context<'_>) -> Result<ExitCode, CliError> {
    let mut bytes = [0; 32];
    SysRng.try_fill_bytes(&mut bytes).context("the kernel gives no random bytes")?;
    let secret = bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    });
    if context.json {
        context.output.json(&serde_json::json!({ "secret": secret }))?;
    } else {
        context.output.text(&format!("{secret}\n"))?;
    }
    Ok(ExitCode::Done)
}
