//! Faults of the disk under a real router: B8 and B9 of the catalogue (`docs/faults.md`).

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use weft_tests::disk::Disk;
use weft_tests::host::{mesh, wait_all_on};
use weft_tests::traffic::{Pulse, wait_reaches};
use weft_tests::{Container, Fabric, Host, deadline, scenario};

const BEAT: Duration = Duration::from_millis(10);
/// How soon a router works again once its disk does.
const RECOVERY: Duration = Duration::from_secs(5);
/// The id of an address that is asked for in vain.
const REFUSED: &str = "asked-for-in-vain";

/// Nothing may be given away that the disk did not take.
fn nothing_is_acknowledged(host: &Host, container: &Container) -> Result<()> {
    let used = host.status()?["ipam"]["used"].clone();
    let attached = host.weft(&["attach", container.netns().name()])?;
    ensure!(attached.code != 0, "attached without a disk: {}", attached.stdout);
    ensure!(attached.stderr.contains("state.new"), "the refusal does not name the file: {}", attached.stderr);
    ensure!(container.netns().ip("link show dev eth0").is_err(), "an interface came of a refused attach");
    let now = host.status()?["ipam"]["used"].clone();
    ensure!(now == used, "{used} addresses in use before a refused attach, {now} after it");
    let allocated = host.allocate(REFUSED)?;
    ensure!(allocated.code != 0, "allocated without a disk: {}", allocated.stdout);
    Ok(())
}

/// A disk that fails and works again, under running traffic.
#[expect(clippy::print_stdout, reason = "figures are read by people, with --nocapture")]
fn broken(fabric: &Fabric, arguments: &[&str], carrier: &str) -> Result<()> {
    let mut hosts = fabric.hosts(2)?;
    let disk = Disk::mount(&hosts[0].state_dir(), 64)?;
    mesh(&mut hosts, arguments)?;
    wait_all_on(&hosts, carrier)?;
    let mut containers = (0..4).map(|n| fabric.container(&format!("c{n}"))).collect::<Result<Vec<_>>>()?;
    hosts[0].attach(&mut containers[0])?;
    hosts[1].attach(&mut containers[1])?;
    wait_reaches(containers[0].netns(), containers[1].address(), Duration::from_secs(5))?;
    let traffic = Pulse::start(containers[0].netns(), containers[1].address(), BEAT)?;

    for (number, round) in ["full", "read-only"].into_iter().enumerate() {
        if round == "full" {
            disk.fill()?
        } else {
            disk.read_only(true)?
        }
        nothing_is_acknowledged(&hosts[0], &containers[2 + number])?;
        // Longer than the router waits before it tries to write again.
        deadline::pause(Duration::from_secs(2));
        nothing_is_acknowledged(&hosts[0], &containers[2 + number])?;
        if round == "full" {
            disk.free()?
        } else {
            disk.read_only(false)?
        }
        let (host, late) = (&hosts[0], &mut containers[2 + number]);
        let (_, took) = deadline::until("it works again", RECOVERY, || host.attach(late).map(Some))?;
        println!("B8 {carrier} {round}: works again after {took:.0?}");
        // What was asked for in vain is had now, and can be given back.
        host.allocated(REFUSED)?;
        host.expect(&["ipam", "release", "--id", REFUSED])?;
    }
    let trail = traffic.finish()?;
    println!("B8 {carrier}: {trail}");
    ensure!(trail.lost() == 0 && trail.doubled() == 0, "traffic: {trail}");

    // Whatever was acknowledged is on the disk, and nothing else is.
    let attached: Vec<Ipv4Addr> = [0, 2, 3].map(|n| containers[n].address()).to_vec();
    let peer = hosts[1].address().to_string();
    hosts[0].kill()?;
    hosts[0].launch(&[arguments, &[&peer]].concat())?;
    hosts[0].wait_ready()?;
    ensure!(hosts[0].status()?["ipam"]["used"] == attached.len(), "{:#}", hosts[0].status()?["ipam"]);
    for (container, address) in [0, 2, 3].into_iter().zip(attached) {
        ensure!(hosts[0].attach(&mut containers[container])? == address, "{address} was forgotten");
    }
    hosts[0].kill()?;
    drop(disk);
    Ok(())
}

#[test]
fn b8_with_a_disk_that_takes_nothing_nothing_is_acknowledged_and_fastpath_goes_on() -> Result<()> {
    scenario(|fabric| broken(fabric, &[], "fastpath"))
}

#[test]
fn b8_with_a_disk_that_takes_nothing_nothing_is_acknowledged_and_sleeve_goes_on() -> Result<()> {
    scenario(|fabric| broken(fabric, &["--no-fastpath"], "sleeve"))
}

/// One way to damage it.
type Damage = fn(&mut Vec<u8>);

/// Ways in which the newest generation can be wrong, with a word that the log must say of it.
fn damages() -> Vec<(&'static str, Damage, &'static str)> {
    vec![
        ("empty", |state| state.clear(), "empty"),
        ("of a version to come", |state| state[8] = 0xfe, "version"),
        ("with a bit flipped in its head", |state| state[21] ^= 0x10, "damaged"),
        (
            "with a bit flipped in its middle",
            |state| {
                let middle = state.len() / 2;
                state[middle] ^= 0x01;
            },
            "checksum",
        ),
        ("as long as it was, but zeros", |state| state.fill(0), "not a file of weft"),
        ("doubled", |state| state.extend_from_within(..), "too long"),
    ]
}

#[test]
fn b9_a_broken_state_of_any_kind_costs_no_running_container_its_address() -> Result<()> {
    scenario(|fabric| {
        let mut host = fabric.host("host1")?;
        host.launch(&[])?;
        host.wait_ready()?;
        let mut running = Vec::new();
        for (round, (what, damage, word)) in damages().into_iter().enumerate() {
            // The latest container is in the newest generation only.
            let mut container = fabric.container(&format!("running{round}"))?;
            host.attach(&mut container)?;
            running.push(container);
            host.kill()?;
            let path = host.state_dir().join("state");
            let mut state = std::fs::read(&path)?;
            damage(&mut state);
            std::fs::write(&path, state)?;
            let said = host.log()?.len();
            host.launch(&[])?;
            host.wait_ready().with_context(|| format!("the state was {what}"))?;
            let log = host.log()?.split_off(said);
            ensure!(log.contains(word), "the state was {what}, the log does not say {word:?}: {log}");

            let mut fresh = fabric.container("fresh")?;
            let given = host.attach(&mut fresh)?;
            for container in &mut running {
                let address = container.address();
                ensure!(given != address, "the state was {what}: {address} was given twice");
                let kernel = container.addresses_in_kernel()?;
                ensure!(kernel.iter().any(|one| one.starts_with(&format!("{address}/"))), "{kernel:?}");
                let again = host.attach(container)?;
                ensure!(again == address, "the state was {what}: {address} became {again}");
            }
            let Some(oldest) = running.first() else { bail!("no container") };
            wait_reaches(fresh.netns(), oldest.address(), Duration::from_secs(3)).context(what)?;
            host.expect(&["detach", fresh.netns().name()])?;
        }
        let status = host.status()?;
        ensure!(status["ipam"]["used"] == running.len(), "{:#}", status["ipam"]);
        Ok(())
    })
}
