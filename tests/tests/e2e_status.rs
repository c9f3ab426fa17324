//! The documents people and programs read: every field the contract names, of the right kind, and never a secret.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use weft_tests::{Host, host, scenario};

const SECRET: &str = "do-not-print-this-secret-8841";

/// What kind of value a field must hold.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Text,
    Number,
    Truth,
    List,
    Object,
    TextOrNull,
    NumberOrNull,
}

fn check(document: &Value, fields: &[(&str, Kind)]) -> Result<()> {
    for (name, kind) in fields {
        let value = document.get(name).with_context(|| format!("no field {name} in {document:#}"))?;
        let fits = match kind {
            Kind::Text => value.is_string(),
            Kind::Number => value.is_u64(),
            Kind::Truth => value.is_boolean(),
            Kind::List => value.is_array(),
            Kind::Object => value.is_object(),
            Kind::TextOrNull => value.is_string() || value.is_null(),
            Kind::NumberOrNull => value.is_u64() || value.is_null(),
        };
        ensure!(fits, "{name} is not {kind:?}: {value}");
    }
    Ok(())
}

fn first<'a>(document: &'a Value, list: &str) -> Result<&'a Value> {
    document[list].get(0).with_context(|| format!("{list} is empty: {document:#}"))
}

#[test]
fn status_has_every_field_of_the_contract() -> Result<()> {
    scenario(|fabric| {
        let mut hosts = fabric.hosts(2)?;
        for host in &mut hosts {
            host.set_secret(SECRET);
        }
        host::mesh(&mut hosts, &[])?;
        let mut container = fabric.container("c1")?;
        let address = hosts[0].attach_with(&mut container, &["--id", "my-container"])?;
        let status = hosts[0].wait_status("a carrier works", Duration::from_secs(5), |status| {
            host::connection(status, "host2")
                .is_some_and(|one| one["carrier"].is_string() && one["rtt_us"].is_u64())
        })?;
        check(
            &status,
            &[
                ("version", Kind::Text),
                ("ready", Kind::Truth),
                ("peer", Kind::Object),
                ("encryption", Kind::Truth),
                ("targets", Kind::List),
                ("connections", Kind::List),
                ("peers", Kind::List),
                ("ipam", Kind::Object),
                ("attachments", Kind::List),
            ],
        )?;
        let me = &status["peer"];
        check(
            me,
            &[
                ("name", Kind::Text),
                ("nickname", Kind::Text),
                ("incarnation", Kind::Number),
                ("site", Kind::Text),
            ],
        )?;
        let name = me["name"].as_str().unwrap_or_default();
        ensure!(name.len() == 16 && name.bytes().all(|byte| byte.is_ascii_hexdigit()), "{name}");
        ensure!(me["nickname"] == "host1" && me["site"] == "default", "{me:#}");
        ensure!(status["version"] == env!("CARGO_PKG_VERSION"));

        let connection = host::connection(&status, "host2").context("no connection")?;
        check(
            connection,
            &[
                ("address", Kind::Text),
                ("transport", Kind::Text),
                ("direction", Kind::Text),
                ("state", Kind::Text),
                ("peer", Kind::Text),
                ("nickname", Kind::Text),
                ("carrier", Kind::TextOrNull),
                ("reason", Kind::Text),
                ("encrypted", Kind::Truth),
                ("mtu", Kind::Number),
                ("rtt_us", Kind::Number),
                ("error", Kind::TextOrNull),
                ("retry_in_ms", Kind::NumberOrNull),
            ],
        )?;
        ensure!(connection["transport"] == "tcp" && connection["peer"] == hosts[1].peer_name()?.as_str());
        ensure!(
            ["inbound", "outbound"].map(Value::from).contains(&connection["direction"]),
            "{connection:#}"
        );
        let established = status["connections"].as_array().into_iter().flatten();
        let established =
            established.filter(|one| one["state"] == "established" && one["nickname"] == "host2");
        ensure!(established.count() == 1, "not one session: {:#}", status["connections"]);

        let peer = host::peer(&status, "host2").context("no peer")?;
        check(
            peer,
            &[
                ("name", Kind::Text),
                ("nickname", Kind::Text),
                ("site", Kind::Text),
                ("reachable", Kind::Truth),
                ("hops", Kind::Number),
                ("via", Kind::TextOrNull),
                ("links", Kind::List),
            ],
        )?;
        ensure!(peer["hops"] == 1, "{peer:#}");
        ensure!(host::peer(&status, "host1").is_none(), "peers lists this peer itself");

        let ipam = &status["ipam"];
        check(
            ipam,
            &[
                ("state", Kind::Text),
                ("range", Kind::Text),
                ("owned", Kind::Number),
                ("used", Kind::Number),
                ("owners", Kind::List),
            ],
        )?;
        ensure!(ipam["range"] == "10.32.0.0/12" && ipam["used"] == 1, "{ipam:#}");
        let owner = first(ipam, "owners")?;
        check(
            owner,
            &[
                ("peer", Kind::Text),
                ("nickname", Kind::Text),
                ("addresses", Kind::Number),
                ("reachable", Kind::Truth),
            ],
        )?;

        let attachment = first(&status, "attachments")?;
        check(
            attachment,
            &[
                ("id", Kind::Text),
                ("netns", Kind::Text),
                ("interface", Kind::Text),
                ("mac", Kind::Text),
                ("addresses", Kind::List),
                ("state", Kind::Text),
            ],
        )?;
        ensure!(attachment["id"] == "my-container" && attachment["interface"] == "eth0", "{attachment:#}");
        ensure!(attachment["addresses"][0] == format!("{address}/12"), "{attachment:#}");
        ensure!(attachment["netns"].as_str().is_some_and(|path| path.contains(container.netns().name())));
        ensure!(attachment["state"] == "ok", "{attachment:#}");
        Ok(())
    })
}

#[test]
fn each_part_of_the_status_can_be_asked_for_alone_and_before_or_after_the_flags() -> Result<()> {
    scenario(|fabric| {
        let mut hosts = fabric.hosts(2)?;
        host::mesh(&mut hosts, &[])?;
        let whole = hosts[0].status()?;
        let json = |words: &[&str]| -> Result<Value> { Ok(serde_json::from_str(&hosts[0].expect(words)?)?) };
        ensure!(json(&["-o", "json", "status", "targets"])? == whole["targets"]);
        ensure!(json(&["status", "targets", "--output", "json"])? == whole["targets"]);
        ensure!(json(&["status", "attachments", "-o", "json"])? == whole["attachments"]);
        let owner = |ipam: &Value| (ipam["state"].clone(), ipam["range"].clone());
        ensure!(owner(&json(&["status", "ipam", "-o", "json"])?) == owner(&whole["ipam"]));
        let names = |peers: &Value| -> Vec<Value> {
            peers.as_array().into_iter().flatten().map(|peer| peer["name"].clone()).collect()
        };
        ensure!(names(&json(&["status", "peers", "-o", "json"])?) == names(&whole["peers"]));
        ensure!(names(&json(&["peer", "list", "-o", "json"])?) == names(&whole["peers"]));
        let connections = json(&["status", "connections", "-o", "json"])?;
        ensure!(connections.as_array().is_some_and(|all| !all.is_empty()), "{connections}");
        for part in ["", "connections", "peers", "ipam"] {
            let words: Vec<&str> = ["status", part].into_iter().filter(|word| !word.is_empty()).collect();
            let text = hosts[0].expect(&words)?;
            let expected = if part == "ipam" { "10.32.0.0/12" } else { "host2" };
            ensure!(text.contains(expected), "status {part} does not tell {expected}:\n{text}");
        }
        Ok(())
    })
}

#[test]
fn neither_the_report_nor_the_log_nor_the_state_holds_the_secret() -> Result<()> {
    scenario(|fabric| {
        let mut host = fabric.host("host1")?;
        host.set_secret(SECRET);
        host.launch(&[])?;
        host.wait_ready()?;
        let report = host.expect(&["report"])?;
        let document: Value = serde_json::from_str(&report).context("the report is not JSON")?;
        ensure!(document.is_object() && report.contains("host1"), "the report says nothing: {report}");
        ensure!(!report.contains(SECRET), "the report holds the secret");
        ensure!(!host.expect(&["status"])?.contains(SECRET) && !host.log()?.contains(SECRET));
        for entry in std::fs::read_dir(host.state_dir())?.flatten() {
            if entry.path().is_file() {
                let bytes = std::fs::read(entry.path())?;
                let held = bytes.windows(SECRET.len()).any(|window| window == SECRET.as_bytes());
                ensure!(!held, "{} holds the secret", entry.path().display());
                use std::os::unix::fs::PermissionsExt;
                let mode = entry.metadata()?.permissions().mode() & 0o077;
                ensure!(mode == 0, "{} can be read by others", entry.path().display());
            }
        }
        Ok(())
    })
}

#[test]
fn without_a_secret_status_and_log_say_loudly_that_the_mesh_is_open() -> Result<()> {
    scenario(|fabric| {
        let mut host = fabric.host("host1")?;
        host.launch(&[])?;
        host.wait_ready()?;
        ensure!(host.status()?["encryption"] == false);
        ensure!(host.expect(&["status"])?.to_lowercase().contains("secret"), "{}", host.expect(&["status"])?);
        ensure!(host.log()?.to_lowercase().contains("secret"), "the log is silent about it");
        Ok(())
    })
}

/// A plain HTTP GET inside the host.
fn get(host: &Host, path: &str) -> Result<String> {
    host.netns().run(|| {
        let mut stream = TcpStream::connect(("127.0.0.1", 6782))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    })
}

#[test]
fn health_readiness_and_metrics_answer_on_loopback() -> Result<()> {
    scenario(|fabric| {
        let mut host = fabric.host("host1")?;
        host.launch(&["--init", "consensus=2"])?;
        host.wait_status("it answers", Duration::from_secs(5), |_| true)?;
        ensure!(get(&host, "/healthz")?.starts_with("HTTP/1.1 200"));
        ensure!(!get(&host, "/readyz")?.starts_with("HTTP/1.1 200"), "ready without a quorum");
        host.terminate()?;
        host.launch(&["--init", "consensus=1"])?;
        host.wait_ready()?;
        ensure!(get(&host, "/readyz")?.starts_with("HTTP/1.1 200"));
        let metrics = get(&host, "/metrics")?;
        ensure!(metrics.starts_with("HTTP/1.1 200") && metrics.contains("weft_"), "{metrics}");
        ensure!(get(&host, "/status").map_or(true, |answer| !answer.starts_with("HTTP/1.1 200")));
        Ok(())
    })
}
