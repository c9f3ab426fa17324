//! The command line as a whole: a table of arguments and how they end.

use std::{
    io::{self, Write},
    sync::{Arc, Mutex},
};

use super::*;

/// Keeps what is printed.
#[derive(Clone, Default)]
struct Printed(Arc<Mutex<Vec<u8>>>);

impl Write for Printed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// How a line ends: the exit code, and what was printed or the message.
fn weft(line: &str) -> (ExitCode, String) {
    let printed = Printed::default();
    let mut output = Output::into(printed.clone());
    match run(std::iter::once("weft").chain(line.split_whitespace()).map(OsString::from), &mut output) {
        Ok(code) => (code, String::from_utf8(printed.0.lock().unwrap().clone()).unwrap()),
        Err(error) => (error.exit_code(), error.to_string()),
    }
}

/// Where no router is.
const NOWHERE: &str = "--socket /no/such/dir/weft.sock";

#[test]
fn malformed_arguments_are_usage_errors_in_one_line() {
    for line in [
        "",
        "frobnicate",
        "status everything",
        "-o yaml status",
        "peer",
        "peer add",
        "peer add host:0",
        "peer add fd00::1",
        "connect a/b",
        "peer forget host:x",
        "forget",
        "peer remove",
        "rmpeer a b",
        "attach",
        "attach pid:x",
        "attach --address 10.32.0.0/99 c1",
        "attach --address nonsense c1",
        "attach --ifname a/b c1",
        "attach --timeout soon c1",
        "attach a b",
        "detach",
        "detach pid:",
        "expose 10.32.0.1/33",
        "hide now",
        "ipam",
        "ipam allocate",
        "ipam allocate --id",
        "ipam allocate --id a 10.32.0.1/24",
        "ipam claim --id a",
        "ipam claim --id a 10.32.0.300/12",
        "ipam release",
        "ipam lookup 10.32.0.1/12",
        "prime --timeout -1",
        "reset --hard",
        "secret",
        "completions tcsh9",
    ] {
        let (code, message) = weft(line);
        assert_eq!(code, ExitCode::Usage, "weft {line}: {message}");
        assert!(!message.is_empty() && !message.contains('\n'), "weft {line}: {message:?}");
    }
}

#[test]
fn well_formed_requests_without_a_router_end_in_three() {
    for line in [
        "status",
        "status peers",
        "-o json status",
        "report",
        "peer add host2 10.0.0.3:7000 [fd00::1]:6783",
        "peer connect host2",
        "connect --replace host2",
        "peer forget host2",
        "forget host2",
        "peer remove --force host2",
        "rmpeer 1111222233334444",
        "peer list",
        "detach no-such-namespace",
        "detach --id x /run/netns/gone",
        "expose",
        "expose 10.32.0.1/12",
        "hide",
        "ipam allocate --id a",
        "ipam allocate --id a 10.32.4.0/24 --timeout 1s",
        "ipam claim --id a 10.32.0.5/12",
        "ipam claim 10.32.0.5 --id a",
        "ipam release --id a",
        "ipam lookup --id a",
        "prime --timeout 100ms",
        "doctor --plan",
        "reset",
    ] {
        for line in [format!("{NOWHERE} {line}"), format!("{line} {NOWHERE}")] {
            let (code, message) = weft(&line);
            assert_eq!(code, ExitCode::NoRouter, "weft {line}: {message}");
            assert!(message.contains("/no/such/dir/weft.sock"), "weft {line}: {message}");
        }
    }
}

#[test]
fn a_peer_over_quic_is_refused_before_any_router_is_asked() {
    for verb in ["peer add", "connect", "peer forget", "forget"] {
        let (code, message) = weft(&format!("{NOWHERE} {verb} host2 quic://q1"));
        assert_eq!(code, ExitCode::Failed, "weft {verb}");
        assert_eq!(message, "quic://q1: links between sites over QUIC are not in this version");
    }
}

#[test]
fn a_namespace_that_is_not_there_fails_before_any_router_is_asked() {
    let (code, message) = weft(&format!("{NOWHERE} attach no-such-namespace"));
    assert_eq!(
        (code, message.as_str()),
        (ExitCode::Failed, "no network namespace at /run/netns/no-such-namespace")
    );
    let (code, message) = weft(&format!("{NOWHERE} attach /proc/self/ns/net"));
    assert_eq!(code, ExitCode::Failed);
    assert!(message.contains("the host's own network namespace"), "{message}");
    let (code, message) = weft(&format!("{NOWHERE} attach /etc/passwd"));
    assert_eq!((code, message.as_str()), (ExitCode::Failed, "/etc/passwd is not a network namespace"));
}

#[test]
fn the_doctor_works_without_a_router_and_says_so() {
    let (code, text) = weft(&format!("{NOWHERE} doctor --state-dir /no/such/state"));
    assert_eq!(code, ExitCode::Failed);
    assert!(text.contains("no router answers on /no/such/dir/weft.sock"), "{text}");
    assert!(text.contains("/no/such/state holds no state"), "{text}");
    assert!(text.contains("UDP 6784"), "{text}");
    let (code, text) = weft(&format!("{NOWHERE} doctor -o json"));
    assert_eq!(code, ExitCode::Failed);
    let lines: Vec<weft_api::DoctorLine> = serde_json::from_str(&text).unwrap();
    assert!(lines.iter().any(|line| line.check == "router" && !line.ok && line.advice.is_some()));
}

#[test]
fn what_needs_no_router_is_done() {
    assert_eq!(weft("version"), (ExitCode::Done, format!("weft {}\n", env!("CARGO_PKG_VERSION"))));
    assert_eq!(
        weft("version -o json").1,
        format!("{{\n  \"version\": \"{}\"\n}}\n", env!("CARGO_PKG_VERSION"))
    );
    assert_eq!(weft("--version"), weft("version"));
    for line in ["--help", "launch --help", "peer --help", "ipam allocate --help"] {
        let (code, text) = weft(line);
        assert_eq!(code, ExitCode::Done, "weft {line}");
        assert!(text.contains("Usage: weft"), "{text}");
    }
    for shell in ["bash", "zsh", "fish"] {
        let (code, script) = weft(&format!("completions {shell}"));
        assert_eq!(code, ExitCode::Done);
        assert!(script.contains("weft"), "{shell}");
    }
}

#[test]
fn a_secret_has_256_bits_and_is_never_the_same() {
    let (code, first) = weft("secret generate");
    let (_, second) = weft("secret generate");
    assert_eq!(code, ExitCode::Done);
    assert_eq!(first.len(), 65);
    assert!(first.trim_end().bytes().all(|byte| byte.is_ascii_hexdigit()));
    assert_ne!(first, second);
}

#[test]
fn a_usage_error_keeps_the_tip_and_nothing_else() {
    let (_, message) = weft("staus");
    assert_eq!(message, "unrecognized subcommand 'staus'; tip: a similar subcommand exists: 'status'");
    let (_, message) = weft("ipam claim --id a 10.32.0.300/12");
    assert_eq!(
        message,
        "invalid value '10.32.0.300/12' for '<CIDR>': it is an IPv4 address with its prefix length, like 10.32.0.5/12"
    );
}

#[test]
fn the_definition_of_the_arguments_holds_together() {
    Args::command().debug_assert();
}
