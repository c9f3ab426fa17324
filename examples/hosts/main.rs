//! The demo: hosts and containers on this one machine, each a network namespace, from nothing to a healed partition.
//!
//! ```text
//!   c1         c2         c3         c4
//!    │          │          │          │          one Ethernet, made by weft
//!   host1 ──── host2 ──── host3 ──── host4       10.99.0.1 … 10.99.0.4, an ordinary network between them
//! ```
//!
//! Every step checks what it claims; the first one that fails ends the demo with an error. Nothing stays behind.

mod voice;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{SigSet, Signal};
use weft_tests::traffic::{Echo, Flow, carry, pattern, ping, wait_reaches};
use weft_tests::{Container, Fabric, Host, deadline, host, scenario};

use crate::voice::Voice;

/// How long a ping may take to be answered when a link has just come up.
const SOON: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    if let Err(error) = clean_up_when_interrupted() {
        return failed(&error);
    }
    match scenario::perform(|fabric| play(fabric, &mut Voice::new())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

#[expect(clippy::print_stderr, reason = "a program's last word")]
fn failed(error: &anyhow::Error) -> ExitCode {
    eprintln!("\nthe demo failed: {error:#}");
    ExitCode::FAILURE
}

/// An end by signal runs no destructor: a thread waits for it and removes what we made. The routers end with us.
fn clean_up_when_interrupted() -> Result<()> {
    let signals: SigSet = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().collect();
    signals.thread_block()?;
    std::thread::spawn(move || {
        if signals.wait().is_ok() {
            scenario::abandon();
            std::process::exit(130);
        }
    });
    Ok(())
}

fn play(fabric: &Fabric, voice: &mut Voice) -> Result<()> {
    let begin = deadline::now();
    voice.line("Weft: containers on several hosts, one Ethernet, no store anywhere.")?;
    let mut hosts = fabric.hosts(3)?;
    let mut containers = Vec::new();
    launch(&mut hosts, voice)?;
    attach(fabric, &hosts, &mut containers, voice)?;
    reach(&containers, voice)?;
    copy_a_file(fabric, &containers, voice)?;
    show_status(&hosts, voice)?;
    join_a_fourth(fabric, &mut hosts, &mut containers, voice)?;
    kill_and_restart(&mut hosts, &mut containers, voice)?;
    part_and_heal(fabric, &hosts, &containers, voice)?;
    let took = begin.elapsed().as_secs();
    voice.close(&format!(
        "Shown in {took} s: a mesh from nothing, addresses without a store, encrypted frames, a host joined while \
         running, a router killed without its container noticing much, a partition healed with no address given twice."
    ))
}

fn launch(hosts: &mut [Host], voice: &mut Voice) -> Result<()> {
    voice.step("Three hosts, a secret, one command each")?;
    voice.command("host1", "weft secret generate > /etc/weft.secret    # and copy it to the others")?;
    let secret = hosts[0].expect(&["secret", "generate"])?;
    let addresses: Vec<String> = hosts.iter().map(|host| host.address().to_string()).collect();
    let launched = deadline::now();
    for (index, host) in hosts.iter_mut().enumerate() {
        let peers: Vec<&str> = addresses
            .iter()
            .enumerate()
            .filter(|(other, _)| *other != index)
            .map(|(_, one)| one.as_str())
            .collect();
        host.set_secret(secret.trim());
        voice.command(
            host.name(),
            &format!("weft launch --secret-file /etc/weft.secret {}", peers.join(" ")),
        )?;
        host.launch(&peers)?;
    }
    host::settle(hosts)?;
    voice.fact(&format!("the mesh is ready {:.1} s after the first launch", launched.elapsed().as_secs_f64()))
}

fn attach(fabric: &Fabric, hosts: &[Host], containers: &mut Vec<Container>, voice: &mut Voice) -> Result<()> {
    voice.step("A container on each: addresses come from the routers themselves")?;
    for (number, host) in (1..).zip(hosts) {
        containers.push(attach_one(fabric, host, &format!("c{number}"), voice)?);
    }
    let distinct: std::collections::BTreeSet<_> = containers.iter().map(Container::address).collect();
    ensure!(distinct.len() == containers.len(), "an address was given twice");
    voice.fact("three addresses, all different, and nobody was asked but the peers")
}

fn attach_one(fabric: &Fabric, host: &Host, name: &str, voice: &Voice) -> Result<Container> {
    let mut container = fabric.container(name)?;
    voice.command(host.name(), &format!("weft attach {name}"))?;
    let address = host.attach(&mut container)?;
    voice.answer(&format!("{address}/12"))?;
    Ok(container)
}

fn reach(containers: &[Container], voice: &mut Voice) -> Result<()> {
    voice.step("Everybody reaches everybody")?;
    for from in containers {
        for to in containers.iter().filter(|to| to.name() != from.name()) {
            wait_reaches(from.netns(), to.address(), SOON)?;
        }
    }
    let (from, to) = (&containers[0], &containers[2]);
    voice.command("c1", &format!("ping -c 3 -s 10000 {}", to.address()))?;
    let pings = ping(from.netns(), to.address(), 3, 10_000)?;
    ensure!(pings.received == 3, "{pings:?}");
    voice.answer("3 packets transmitted, 3 received")?;
    voice.fact("six ways between three containers, and pings of 10,000 bytes")
}

fn copy_a_file(fabric: &Fabric, containers: &[Container], voice: &mut Voice) -> Result<()> {
    voice.step("A file copied from c1 to c2")?;
    let here = fabric.home().join("original");
    let there = fabric.home().join("copy");
    std::fs::write(&here, pattern(32 << 20))?;
    let begin = deadline::now();
    let arrived = carry(&containers[0], &containers[1], &std::fs::read(&here)?)?;
    let took = begin.elapsed();
    std::fs::write(&there, arrived)?;
    let mut hashes = Vec::new();
    for (name, path) in [("c1", &here), ("c2", &there)] {
        voice.command(name, "sha256sum file")?;
        let printed = Command::new("sha256sum").arg(path).output()?;
        let hash =
            String::from_utf8(printed.stdout)?.split_whitespace().next().context("no hash")?.to_owned();
        voice.answer(&hash)?;
        hashes.push(hash);
    }
    ensure!(hashes[0] == hashes[1], "the copy differs");
    voice.fact(&format!("32 MiB in {:.1} s, encrypted on the wire, the same bytes", took.as_secs_f64()))
}

fn show_status(hosts: &[Host], voice: &mut Voice) -> Result<()> {
    voice.step("What each router says")?;
    for host in hosts {
        voice.command(host.name(), "weft status")?;
        voice.answer(&host.expect(&["status"])?)?;
        let status = host.status()?;
        ensure!(status["encryption"] == true && status["ready"] == true, "{status:#}");
    }
    voice.fact("ready, encrypted, everybody reachable")
}

fn join_a_fourth(
    fabric: &Fabric,
    hosts: &mut Vec<Host>,
    containers: &mut Vec<Container>,
    voice: &mut Voice,
) -> Result<()> {
    voice.step("A fourth host joins while all is running")?;
    let mut fourth = fabric.host("host4")?;
    fourth.set_secret(&hosts[0].secret());
    voice.command("host4", "weft launch --secret-file /etc/weft.secret")?;
    fourth.launch(&[])?;
    fourth.wait_ready()?;
    voice.command("host4", &format!("weft peer add {}", hosts[0].address()))?;
    fourth.peer_add(&hosts[0])?;
    hosts.push(fourth);
    host::settle(hosts)?;
    let fourth = hosts.last().context("it was pushed")?;
    let container = attach_one(fabric, fourth, "c4", voice)?;
    for other in containers.iter() {
        wait_reaches(container.netns(), other.address(), SOON)?;
    }
    containers.push(container);
    voice.fact("told of one peer it found the other two, and c4 reaches all containers")
}

fn kill_and_restart(hosts: &mut [Host], containers: &mut [Container], voice: &mut Voice) -> Result<()> {
    voice.step("One router is killed and started again")?;
    let _echo = Echo::start(containers[1].netns())?;
    let before = containers[1].address();
    let flow = Flow::start(containers[0].netns(), before, Duration::from_millis(10))?;
    deadline::pause(Duration::from_millis(300));
    voice.command("host2", "kill -9 $(pidof weft)")?;
    hosts[1].kill()?;
    deadline::pause(Duration::from_millis(400));
    voice.command("host2", "weft launch --secret-file /etc/weft.secret --resume")?;
    let peers: Vec<String> = hosts.iter().map(|host| host.address().to_string()).collect();
    let launched = deadline::now();
    hosts[1].launch(&["--resume", &peers[0], &peers[2]])?;
    host::settle(hosts)?;
    deadline::pause(Duration::from_millis(1500));
    let report = flow.finish()?;
    let back = report.first_answer_after(launched).context("traffic never came back")? - launched;
    voice.command("host2", "weft attach c2    # again: idempotent")?;
    ensure!(hosts[1].attach(&mut containers[1])? == before, "c2 was given another address");
    voice.answer(&format!("{before}/12"))?;
    voice.fact(&format!("c2 kept {before}; traffic was back {} ms after the launch", back.as_millis()))
}

fn part_and_heal(fabric: &Fabric, hosts: &[Host], containers: &[Container], voice: &mut Voice) -> Result<()> {
    voice.step("The network breaks in two, and both halves go on giving out addresses")?;
    let [one, two, three, four] = hosts else { anyhow::bail!("four hosts were launched") };
    fabric.partition(&[one, two], &[three, four])?;
    one.wait_reaches(&["host2"], SOON)?;
    four.wait_reaches(&["host3"], SOON)?;
    voice.line("   host1 host2  ╳  host3 host4")?;
    let mut given: BTreeMap<Ipv4Addr, String> = BTreeMap::new();
    for container in containers {
        given.insert(container.address(), container.name().to_owned());
    }
    for host in [one, four] {
        for number in 1..=3 {
            let id = format!("{}-{number}", host.name());
            let address = host.allocated(&id)?;
            voice.command(host.name(), &format!("weft ipam allocate --id {id}"))?;
            voice.answer(&address.to_string())?;
            let other = given.insert(address, id);
            ensure!(other.is_none(), "{address} was already given to {other:?}");
        }
    }
    fabric.heal()?;
    one.wait_reaches(&["host2", "host3", "host4"], Duration::from_secs(15))?;
    four.wait_reaches(&["host1", "host2", "host3"], Duration::from_secs(15))?;
    for host in hosts {
        ensure!(host.status()?["ipam"]["state"] == "ready", "{} is not ready after the healing", host.name());
    }
    let (from, to) = (&containers[0], &containers[3]);
    wait_reaches(from.netns(), to.address(), SOON)?;
    voice.fact(&format!("healed: {} addresses, none given twice, c1 reaches c4 again", given.len()))
}
