//! The command line: what was typed becomes one request to the router, or a [`crate::config::Config`] to launch one.
//!
//! The client half starts no runtime and opens one connection; every verb is a file in `cli/`. Output goes to stdout,
//! an error is one line on stderr that begins with `weft: `, and how it ended is an [`ExitCode`].

#[allow(rustdoc::broken_intra_doc_links, reason = "the help shows optional parts in brackets")]
mod args;
mod attach;
mod cni;
mod doctor;
mod error;
mod ipam;
mod launch;
mod log;
mod output;
mod peer;
mod reset;
mod secret;
mod status;
mod table;
mod value;

use std::{ffi::OsString, path::PathBuf};

use clap::{CommandFactory, Parser};
use weft_api::{Client, Request, Response};

use crate::exit_code::ExitCode;
use args::{Args, Command, OutputFormat};
use error::CliError;
use output::Output;

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let mut output = Output::new();
    match run(std::env::args_os(), &mut output) {
        Ok(code) => code,
        Err(error) => {
            output.error(&error.to_string());
            error.exit_code()
        }
    }
}

/// Where a client verb finds the router and how it prints what it got.
struct Context<'a> {
    client: Client,
    socket: PathBuf,
    json: bool,
    output: &'a mut Output,
}

impl Context<'_> {
    /// Asks the router one thing.
    fn call(&self, request: &Request) -> Result<Response, CliError> {
        Ok(self.client.call(request)?)
    }

    /// Prints what came back, in the form that was asked for.
    fn show(&mut self, response: Response) -> Result<ExitCode, CliError> {
        match response {
            Response::Done(lines) if self.json => self.output.json(&serde_json::json!({ "messages": lines })),
            Response::Addresses(addresses) if self.json => {
                self.output.json(&serde_json::json!({ "addresses": addresses }))
            }
            Response::Plan(lines) if self.json => self.output.json(&lines),
            Response::Done(lines) | Response::Addresses(lines) | Response::Plan(lines) => {
                self.output.lines(&lines)
            }
            Response::Report(report) => self.output.json(&report),
            Response::Status(_)
            | Response::Metrics(_)
            | Response::Doctor(_)
            | Response::CniAttached(_)
            | Response::CniStatus(_) => Err(CliError::Unexpected),
        }?;
        Ok(ExitCode::Done)
    }
}

/// Parses the arguments and does what they say.
fn run(arguments: impl IntoIterator<Item = OsString>, output: &mut Output) -> Result<ExitCode, CliError> {
    let args = match Args::try_parse_from(arguments) {
        Ok(args) => args,
        Err(error) if !error.use_stderr() => return output.text(&error.to_string()).map(|()| ExitCode::Done),
        Err(error) => return Err(CliError::usage(&error)),
    };
    let json = args.output == OutputFormat::Json;
    let mut context = Context { client: Client::new(&args.socket), socket: args.socket, json, output };
    match args.command {
        Command::Launch(launch) => launch::run(launch, context.socket),
        Command::Status { section } => status::run(&mut context, section),
        Command::Report => {
            let report = context.call(&Request::Report)?;
            context.show(report)
        }
        Command::Peer(command) => peer::run(&mut context, command),
        Command::Connect(add) => peer::add(&mut context, &add),
        Command::Forget(forget) => peer::forget(&mut context, &forget),
        Command::Rmpeer(remove) => peer::remove(&mut context, &remove),
        Command::Attach(attach) => attach::attach(&mut context, attach),
        Command::Detach(detach) => attach::detach(&mut context, detach),
        Command::Expose { cidr } => {
            let response = context.call(&Request::Expose { cidr: cidr.map(|cidr| cidr.to_string()) })?;
            context.show(response)
        }
        Command::Hide => {
            let response = context.call(&Request::Hide)?;
            context.show(response)
        }
        Command::Ipam(command) => ipam::run(&mut context, command),
        Command::Cni(command) => cni::run(&mut context, command),
        Command::Prime(wait) => {
            let response = context.call(&Request::Prime { timeout_ms: wait.timeout.as_millis() })?;
            context.show(response)
        }
        Command::Doctor { plan: true, .. } => {
            let response = context.call(&Request::Plan)?;
            context.show(response)
        }
        Command::Doctor { plan: false, places } => doctor::run(&mut context, &places),
        Command::Reset { force, places } => reset::run(&mut context, force, &places),
        Command::Secret(args::SecretCommand::Generate) => secret::generate(&mut context),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Args::command(), "weft", &mut script);
            context.output.text(&String::from_utf8_lossy(&script)).map(|()| ExitCode::Done)
        }
        Command::Version => {
            let version = env!("CARGO_PKG_VERSION");
            if json {
                context.output.json(&serde_json::json!({ "version": version }))?;
            } else {
                context.output.text(&format!("weft {version}\n"))?;
            }
            Ok(ExitCode::Done)
        }
    }
}

#[cfg(test)]
mod tests;
