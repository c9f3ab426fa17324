//! Bad input and bad moments: one clear line, the right exit code, nothing changed.

use std::time::Duration;

use anyhow::{Result, ensure};
use weft_tests::{Fabric, Host, Outcome, deadline, scenario};

/// A host with a router that is ready.
fn ready(fabric: &Fabric) -> Result<Host> {
    let mut host = fabric.host("host1")?;
    host.launch(&[])?;
    host.wait_ready()?;
    Ok(host)
}

/// Exactly one line on stderr, beginning as the contract says and naming what is wrong; nothing on stdout.
fn one_clear_line(outcome: &Outcome, code: i32, names: &str) -> Result<()> {
    ensure!(outcome.code == code, "expected exit {code}: {outcome:?}");
    let lines: Vec<&str> = outcome.stderr.lines().filter(|line| !line.trim().is_empty()).collect();
    ensure!(lines.len() == 1 && lines[0].starts_with("weft: "), "not one clear line: {outcome:?}");
    ensure!(lines[0].contains(names), "the line does not name {names:?}: {outcome:?}");
    ensure!(outcome.stdout.is_empty(), "stdout is for results: {outcome:?}");
    Ok(())
}

#[test]
fn what_is_refused_says_why_in_one_line_and_changes_nothing() -> Result<()> {
    scenario(|fabric| {
        let host = ready(fabric)?;
        let container = fabric.container("c1")?;
        let name = container.netns().name();
        let before = (host.netns().snapshot()?, container.netns().snapshot()?, host.status()?);
        for (arguments, names) in [
            (vec!["peer", "remove", "nobody"], "nobody"),
            (vec!["attach", "no-such-namespace"], "no-such-namespace"),
            (vec!["attach", "pid:4194305"], "4194305"),
            (vec!["attach", "/dev/null"], "/dev/null"),
            (vec!["ipam", "lookup", "--id", "unheard-of"], "unheard-of"),
            (vec!["ipam", "claim", "--id", "x", "10.32.0.0/12"], "10.32.0.0"),
            (vec!["ipam", "claim", "--id", "x", "10.47.255.255/12"], "10.47.255.255"),
        ] {
            one_clear_line(&host.weft(&arguments)?, 1, names)?;
        }
        for arguments in [
            vec!["attach", "--address", "10.32.0.300/12", name],
            vec!["attach", "--address", "10.32.0.1/33", name],
            vec!["ipam", "claim", "--id", "x", "ten/8"],
            vec!["ipam", "allocate"],
            vec!["expose", "10.32.0/12"],
            vec!["peer", "add"],
            vec!["peer", "add", "host:notaport"],
            vec!["no-such-command"],
            vec!["status", "--no-such-flag"],
            vec!["status", "-o", "yaml"],
        ] {
            let outcome = host.weft(&arguments)?;
            ensure!(outcome.code == 2 && !outcome.stderr.is_empty(), "{arguments:?}: {outcome:?}");
        }
        let now = host.netns().snapshot()?;
        ensure!(now == before.0, "the host was changed:\n{}\nto\n{now}", before.0);
        ensure!(container.netns().snapshot()? == before.1, "the container was changed");
        let after = host.status()?;
        ensure!(after["targets"] == before.2["targets"] && after["attachments"] == before.2["attachments"]);
        ensure!(after["ipam"]["used"] == before.2["ipam"]["used"], "{:#}", after["ipam"]);
        Ok(())
    })
}

#[test]
fn without_a_router_every_client_command_exits_3() -> Result<()> {
    scenario(|fabric| {
        let host = fabric.host("host1")?;
        let container = fabric.container("c1")?;
        let name = container.netns().name();
        for arguments in [
            vec!["status"],
            vec!["report"],
            vec!["peer", "add", "10.99.0.2"],
            vec!["peer", "list"],
            vec!["attach", name],
            vec!["ipam", "allocate", "--id", "x"],
            vec!["prime"],
        ] {
            one_clear_line(&host.weft(&arguments)?, 3, "")?;
        }
        Ok(())
    })
}

#[test]
fn what_needs_no_router_works_without_one() -> Result<()> {
    scenario(|fabric| {
        let host = fabric.host("host1")?;
        let first = host.expect(&["secret", "generate"])?;
        let second = host.expect(&["secret", "generate"])?;
        ensure!(first.trim().len() >= 43 && first != second, "no 256-bit secret: {first:?} {second:?}");
        ensure!(host.expect(&["version"])?.contains(env!("CARGO_PKG_VERSION")));
        ensure!(host.expect(&["completions", "bash"])?.contains("weft"));
        ensure!(host.expect(&["--help"])?.contains("launch"));
        Ok(())
    })
}

#[test]
fn a_second_launch_on_the_same_state_or_socket_is_refused() -> Result<()> {
    scenario(|fabric| {
        let host = ready(fabric)?;
        let before = host.netns().snapshot()?;
        let (state, socket) = (host.state_dir(), host.socket());
        let elsewhere = fabric.home().join("elsewhere");
        let (state, elsewhere) = (state.to_string_lossy(), elsewhere.to_string_lossy());
        let other_socket = format!("{}.other", socket.display());
        let spare = ["--port", "7783", "--bridge", "weft2", "--metrics", "none"];
        let same_state = [&["--state-dir", &state, "--socket", &other_socket][..], &spare].concat();
        let outcome = host.launch_refused(&same_state)?;
        ensure!(outcome.code == 1 && outcome.stderr.contains(&*state), "{outcome:?}");
        let socket = socket.to_string_lossy();
        let same_socket = [&["--state-dir", &elsewhere, "--socket", &socket][..], &spare].concat();
        let outcome = host.launch_refused(&same_socket)?;
        ensure!(outcome.code == 1 && outcome.stderr.contains(&*socket), "{outcome:?}");
        ensure!(host.netns().snapshot()? == before, "a refused launch changed the host");
        ensure!(host.status()?["ready"] == true, "the first router was disturbed");
        Ok(())
    })
}

#[test]
fn a_range_that_overlaps_a_route_of_the_host_is_refused() -> Result<()> {
    scenario(|fabric| {
        let host = fabric.host("host1")?;
        let before = host.netns().snapshot()?;
        let state = host.state_dir();
        let state = state.to_string_lossy();
        let outcome = host.launch_refused(&["--state-dir", &state, "--range", "10.99.0.0/16"])?;
        ensure!(outcome.code == 1, "{outcome:?}");
        ensure!(
            outcome.stderr.contains("10.99.0.0/16") && outcome.stderr.contains("10.99.0.0/24"),
            "{outcome:?}"
        );
        ensure!(host.netns().snapshot()? == before, "a refused launch changed the host");
        // A default route overlaps everything and counts for nothing.
        host.netns().ip("route add default via 10.99.0.254")?;
        let mut host = host;
        host.launch(&[])?;
        host.wait_ready()?;
        Ok(())
    })
}

#[test]
fn a_malformed_launch_exits_2_and_touches_nothing() -> Result<()> {
    scenario(|fabric| {
        let host = fabric.host("host1")?;
        let before = host.netns().snapshot()?;
        for arguments in [
            vec!["--range", "10.32.0.0/40"],
            vec!["--range", "fish"],
            vec!["--init", "sometimes"],
            vec!["--init", "consensus=0"],
            vec!["--port", "70000"],
            vec!["--capture", "magic"],
            vec!["peer:with:colons"],
        ] {
            let outcome = host.launch_refused(&arguments)?;
            ensure!(outcome.code == 2, "{arguments:?}: {outcome:?}");
        }
        ensure!(host.netns().snapshot()? == before, "a refused launch changed the host");
        ensure!(!host.state_dir().exists(), "a refused launch wrote state");
        Ok(())
    })
}

#[test]
fn waiting_ends_with_exit_4_at_its_deadline() -> Result<()> {
    scenario(|fabric| {
        let mut host = fabric.host("host1")?;
        // A quorum of two that never comes together.
        host.launch(&["--init", "consensus=3"])?;
        let status = host.wait_status("it waits and says for what", Duration::from_secs(5), |status| {
            status["ipam"]["state"] == "waiting" && status["ipam"]["reason"].is_string()
        })?;
        ensure!(status["ready"] == false, "{status:#}");
        let asked = deadline::now();
        one_clear_line(&host.allocate("x")?, 4, "")?;
        let passed = asked.elapsed();
        ensure!(passed > Duration::from_secs(2) && passed < Duration::from_secs(5), "it waited {passed:?}");
        let container = fabric.container("c1")?;
        let before = container.netns().snapshot()?;
        one_clear_line(&host.weft(&["attach", "--timeout", "1s", container.netns().name()])?, 4, "")?;
        ensure!(container.netns().snapshot()? == before, "the container was changed");
        Ok(())
    })
}

#[test]
fn attach_and_detach_are_idempotent_and_leave_the_namespace_as_it_was() -> Result<()> {
    scenario(|fabric| {
        let host = ready(fabric)?;
        let mut container = fabric.container("c1")?;
        let before = (host.netns().snapshot()?, container.netns().snapshot()?);
        let address = host.attach(&mut container)?;
        ensure!(host.attach(&mut container)? == address);
        let kernel = container.addresses_in_kernel()?;
        ensure!(kernel == [format!("{address}/12")], "{kernel:?}");
        let link = container.netns().ip("-o link show dev eth0")?;
        let mac = address.octets().map(|byte| format!("{byte:02x}")).join(":");
        ensure!(link.contains(&format!("0a:58:{mac}")), "the MAC does not follow from the address: {link}");
        ensure!(link.contains("mtu 1450"), "{link}");
        let name = container.netns().name().to_owned();
        host.expect(&["detach", &name])?;
        host.expect(&["detach", &name])?;
        ensure!(container.netns().snapshot()? == before.1, "the container was not left as it was");
        // The filter's list of ports follows in a moment.
        let as_before = || Ok(host.netns().snapshot()? == before.0);
        deadline::until_true("the host is as it was", Duration::from_secs(2), as_before)?;
        let status = host.status()?;
        ensure!(status["ipam"]["used"] == 0 && status["attachments"].as_array().is_some_and(Vec::is_empty));
        Ok(())
    })
}

#[test]
fn reset_leaves_the_host_as_it_was_before_weft() -> Result<()> {
    scenario(|fabric| {
        let mut host = fabric.host("host1")?;
        let before = host.netns().snapshot()?;
        host.launch(&[])?;
        host.wait_ready()?;
        let mut container = fabric.container("c1")?;
        host.attach(&mut container)?;
        host.expect(&["expose"])?;
        host.expect(&["reset"])?;
        host.process()?.wait(Duration::from_secs(10))?;
        let clean = || Ok(host.netns().snapshot()? == before);
        deadline::until_true("the kernel is as it was", Duration::from_secs(5), clean)?;
        ensure!(!host.socket().exists(), "the socket is still there");
        ensure!(host.weft(&["status"])?.code == 3);
        Ok(())
    })
}

#[test]
fn a_killed_router_can_be_reset_by_force() -> Result<()> {
    scenario(|fabric| {
        let mut host = fabric.host("host1")?;
        let before = host.netns().snapshot()?;
        host.launch(&[])?;
        host.wait_ready()?;
        let mut container = fabric.container("c1")?;
        host.attach(&mut container)?;
        host.kill()?;
        ensure!(host.weft(&["reset"])?.code == 3, "with the router down it takes --force");
        let state = host.state_dir();
        host.expect(&["reset", "--force", "--state-dir", &state.to_string_lossy()])?;
        let clean = || Ok(host.netns().snapshot()? == before);
        deadline::until_true("the kernel is as it was", Duration::from_secs(5), clean).map(drop)
    })
}

#[test]
fn doctor_finds_a_healthy_mesh_healthy_and_names_what_is_blocked() -> Result<()> {
    scenario(|fabric| {
        let mut hosts = fabric.hosts(2)?;
        for host in &mut hosts {
            host.set_secret("a secret of some length");
        }
        weft_tests::host::mesh(&mut hosts, &["--no-fastpath"])?;
        // The session stands at once, the carrier a heartbeat later.
        deadline::until("doctor finds nothing", Duration::from_secs(5), || {
            let outcome = hosts[0].weft(&["doctor"])?;
            ensure!(outcome.code == 0, "{}{}", outcome.stdout, outcome.stderr);
            Ok(Some(()))
        })?;
        fabric.block_udp(&[6783, 6784])?;
        let found = || {
            let outcome = hosts[0].weft(&["doctor"])?;
            Ok(outcome.code == 1 && outcome.stdout.contains("host2"))
        };
        deadline::until_true("doctor names the peer it cannot reach", Duration::from_secs(20), found)
            .map(drop)
    })
}
