//! `weft doctor`: the router looks at the host and the paths; with the router down, what can be seen from outside.

use std::{fs, io::ErrorKind, os::unix::fs::MetadataExt, path::Path};

use weft_api::{ApiError, DoctorLine, ErrorCode, Request, Response, Severity};

use super::{
    Context,
    args::Places,
    error::CliError,
    table::{Side, Table},
};
use crate::{
    config::Ports,
    exit_code::ExitCode,
    io::{host, store},
};

pub(super) fn run(context: &mut Context<'_>, places: &Places) -> Result<ExitCode, CliError> {
    let lines = match context.client.call(&Request::Doctor) {
        Ok(Response::Doctor(lines)) => lines,
        Ok(_) => return Err(CliError::Unexpected),
        Err(error) if error.code == ErrorCode::NoRouter => without_router(&error, &context.socket, places)?,
        Err(error) => return Err(error.into()),
    };
    if context.json {
        context.output.json(&lines)?;
    } else {
        context.output.text(&text(&lines))?;
    }
    Ok(if lines.iter().all(|line| line.ok) { ExitCode::Done } else { ExitCode::Failed })
}

/// A line a check; the advice stands under it.
fn text(lines: &[DoctorLine]) -> String {
    let mut table = Table::new([("", Side::Left), ("CHECK", Side::Left), ("FOUND", Side::Left)]);
    for line in lines {
        let mark = match (line.ok, line.severity) {
            (false, _) | (true, Severity::Error) => "wrong",
            (true, Severity::Warning) => "mind",
            (true, Severity::Info) => "ok",
        };
        let advice = line.advice.as_ref().map(|advice| format!("→ {advice}"));
        table.row([mark.to_owned(), line.check.clone(), line.message.clone()], advice);
    }
    table.render()
}

/// What can be checked when nobody answers.
fn without_router(error: &ApiError, socket: &Path, places: &Places) -> Result<Vec<DoctorLine>, CliError> {
    let ports = Ports::new(places.port, places.vxlan_port, places.quic_port)?;
    let mut lines = vec![
        DoctorLine::error(
            "router",
            &error.message,
            "start it with 'weft launch', or name its socket with --socket",
        ),
        socket_file(socket),
        permission(),
        state(&places.state_dir),
    ];
    lines.extend(host::Places { listen: None, ports, sleeve: true, fastpath: false }.free_lines());
    lines.push(host::clock_line());
    Ok(lines)
}

fn socket_file(socket: &Path) -> DoctorLine {
    let shown = socket.display();
    match fs::symlink_metadata(socket) {
        Ok(_) => DoctorLine::warning(
            "socket",
            format!("{shown} is left of a router that ended"),
            "nothing to do: the next launch replaces it",
        ),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            DoctorLine::fine("socket", format!("{shown} is free"))
        }
        Err(error) => {
            DoctorLine::error("socket", format!("{shown}: {error}"), "choose another with --socket")
        }
    }
}

fn permission() -> DoctorLine {
    // The owner of /proc/self is the effective user.
    match fs::metadata("/proc/self").map(|metadata| metadata.uid()) {
        Ok(0) => DoctorLine::fine("permission", "running as root"),
        Ok(user) => DoctorLine::warning(
            "permission",
            format!("running as user {user}"),
            "a router needs root, or CAP_NET_ADMIN and CAP_NET_RAW",
        ),
        Err(error) => DoctorLine::error("permission", format!("/proc/self: {error}"), "mount /proc"),
    }
}

fn state(dir: &Path) -> DoctorLine {
    let shown = dir.display();
    match store::inspect(dir) {
        Ok(store::Condition::Empty) => {
            DoctorLine::fine("state", format!("{shown} holds no state: the first launch makes it"))
        }
        Ok(store::Condition::Sound) => DoctorLine::fine("state", format!("{shown} is sound")),
        Ok(store::Condition::Damaged(note)) => DoctorLine::warning(
            "state",
            format!("{shown}: {note}"),
            "the next launch uses the previous generation; see its log",
        ),
        Ok(store::Condition::InUse(pid)) => DoctorLine::error(
            "state",
            format!("{shown} is in use by a router (pid {pid}) that does not answer here"),
            "name its socket with --socket, or end it",
        ),
        Err(error) => {
            DoctorLine::error("state", error.to_string(), "make it readable, or name another --state-dir")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_was_found_and_under_it_what_to_do() {
        let lines = [
            DoctorLine::fine("clock", "in step with 2 peers"),
            DoctorLine::warning("mtu", "1400 on eth0", "nothing, unless you expected more"),
            DoctorLine::error("port", "UDP 6784 is taken", "free it"),
        ];
        assert_eq!(
            text(&lines),
            "         CHECK  FOUND\n  ok     clock  in step with 2 peers\n  mind   mtu    1400 on eth0\n      → nothing, \
             unless you expected more\n  wrong  port   UDP 6784 is taken\n      → free it\n"
        );
    }
}
