//! A router that may not do everything, or has not enough of something: E2 of the catalogue (`docs/faults.md`).
//!
//! What is taken away is taken by a program that starts the router: `setpriv` takes capabilities, `prlimit` the rest.

use std::time::Duration;

use anyhow::{Result, ensure};
use weft_tests::attack::Crowd;
use weft_tests::host::{attach_each, mesh, settle, wait_all_on};
use weft_tests::traffic::{Pulse, reaches, wait_reaches};
use weft_tests::{Fabric, Host, deadline, kernel, scenario};

const BEAT: Duration = Duration::from_millis(20);
const MESH: u16 = 6783;
/// How soon it must be clear what comes of a launch.
const PROMPT: Duration = Duration::from_secs(10);
/// Descriptors a router may have, and connections of strangers: of six, so that no limit for one address helps.
const DESCRIPTORS: usize = 64;
const STRANGERS: usize = 6;
const EACH: usize = 40;

/// What came of a launch.
#[derive(Debug, PartialEq, Eq)]
enum Came {
    /// It serves.
    Ready,
    /// It has ended, with this code and these last words.
    Ended(i32, String),
}

/// Launches a router by these words and waits for what comes of it.
fn launched(host: &mut Host, under: &[&str], arguments: &[&str]) -> Result<Came> {
    host.set_under(under);
    // A backtrace needs memory, too.
    host.set_environment("RUST_BACKTRACE", "0");
    let said = host.log().map_or(0, |log| log.len());
    host.launch(arguments)?;
    let (came, _) = deadline::until("it is ready, or has ended", PROMPT, || {
        if let Some(code) = host.process()?.ended()? {
            return Ok(Some(Came::Ended(code, host.log()?.split_off(said))));
        }
        Ok((host.status()?["ready"] == true).then_some(Came::Ready))
    })?;
    Ok(came)
}

#[test]
fn e2_a_router_without_a_capability_refuses_names_it_and_leaves_nothing_behind() -> Result<()> {
    for (capability, arguments) in [
        ("net_admin", &[][..]),
        ("net_admin", &["--no-fastpath"]),
        ("net_admin", &["--no-sleeve"]),
        ("net_raw", &[]),
        ("net_raw", &["--no-fastpath"]),
        ("net_raw", &["--capture", "pcap"]),
        ("net_raw", &["--capture", "vnet"]),
    ] {
        scenario(|fabric| {
            let mut host = fabric.host("host1")?;
            let taken = format!("-{capability}");
            let came =
                launched(&mut host, &["setpriv", "--bounding-set", &taken, "--inh-caps", &taken], arguments)?;
            let Came::Ended(1, words) = &came else {
                anyhow::bail!("without {capability} {arguments:?}: {came:?}")
            };
            let last = words.lines().last().unwrap_or_default();
            println!("E2: without {capability} {arguments:?}: {last}");
            let name = format!("CAP_{} is needed", capability.to_uppercase());
            ensure!(last.starts_with("weft: ") && last.contains(&name), "its last words: {last}");
            ensure!(!words.contains("panicked"), "{words}");
            let links = kernel::links(host.netns())?;
            ensure!(!links.keys().any(|name| name.starts_with("weft")), "left behind: {links:?}");
            Ok(())
        })?;
    }
    Ok(())
}

#[test]
fn e2_a_router_that_cannot_prove_fastpath_and_has_no_sleeve_serves_its_containers_and_says_why() -> Result<()>
{
    scenario(|fabric| {
        let mut hosts = fabric.hosts(2)?;
        hosts[0].set_under(&["setpriv", "--bounding-set", "-net_raw", "--inh-caps", "-net_raw"]);
        mesh(&mut hosts, &["--no-sleeve"])?;
        let containers = attach_each(fabric, &hosts)?;
        let mut beside = fabric.container("d1")?;
        hosts[0].attach(&mut beside)?;
        wait_reaches(beside.netns(), containers[0].address(), Duration::from_secs(5))?;
        let why = "CAP_NET_RAW is needed";
        deadline::until_true("its log says so", PROMPT, || Ok(hosts[0].log()?.contains(why)))?;
        let said = hosts[0].log()?.lines().filter(|line| line.contains(why)).count();
        let status = hosts[0].wait_status("no carrier", PROMPT, |status| {
            let one = weft_tests::host::connection(status, "host2");
            one.is_some_and(|one| one["carrier"].is_null() && one["reason"].is_string())
        })?;
        let reason = &status["connections"][0]["reason"];
        println!("E2: without net_raw and sleeve: said {said} times; the status: {reason}");
        ensure!(said == 1, "said {said} times");
        ensure!(!reaches(containers[0].netns(), containers[1].address())?, "by which carrier?");
        Ok(())
    })
}

#[test]
fn e2_a_router_with_too_little_memory_ends_at_once_and_says_so_or_serves() -> Result<()> {
    let mut served = Vec::new();
    let mut ended = Vec::new();
    for (kind, kilobytes) in [
        ("data", 32 << 10),
        ("data", 8 << 10),
        ("data", 3_000),
        ("data", 2_200),
        ("data", 1_500),
        ("data", 700),
        ("as", 64 << 10),
        ("as", 24 << 10),
        ("as", 20 << 10),
        ("as", 18 << 10),
    ] {
        scenario(|fabric| {
            let mut host = fabric.host("host1")?;
            let limit = format!("--{kind}={}", kilobytes << 10);
            let mut came = launched(&mut host, &["prlimit", &limit], &[])?;
            if came == Came::Ready {
                let mut container = fabric.container("c1")?;
                if host.attach(&mut container).is_ok() {
                    served.push(limit);
                    return Ok(());
                }
                // It was enough to begin with, and not to go on.
                came = Came::Ended(host.process()?.wait(PROMPT)?, host.log()?);
            }
            let Came::Ended(code, words) = came else { anyhow::bail!("{came:?}") };
            let last = words.lines().rfind(|line| !line.starts_with("note: ")).unwrap_or_default();
            // A program that the loader cannot load says nothing of its own.
            let silent = last.is_empty() && code != 139;
            ensure!(code != 0 && !silent, "with {limit}: exit {code}, {words}");
            ensure!(!words.contains("panicked"), "with {limit}: {words}");
            ended.push(format!("{limit}: exit {code}: {last}"));
            Ok(())
        })?;
    }
    println!("E2: served with {served:?}; ended: {ended:#?}");
    ensure!(served.contains(&format!("--data={}", 32 << 20)), "32 MB are not enough");
    ensure!(!ended.is_empty(), "no limit was low enough: this test proves nothing");
    Ok(())
}

/// Descriptors a router holds.
fn descriptors(host: &Host) -> Result<usize> {
    Ok(std::fs::read_dir(format!("/proc/{}/fd", host.running()?.pid()))?.count())
}

#[test]
fn e2_a_router_with_few_descriptors_outlives_more_connections_than_it_can_have_and_keeps_its_neighbours()
-> Result<()> {
    scenario(|fabric: &Fabric| {
        let strangers =
            (1..=STRANGERS).map(|n| fabric.host(&format!("stranger{n}"))).collect::<Result<Vec<_>>>()?;
        let mut hosts = fabric.hosts(3)?;
        hosts[0].set_under(&["prlimit", &format!("--nofile={DESCRIPTORS}")]);
        mesh(&mut hosts[..2], &["--init", "consensus=2"])?;
        let containers = attach_each(fabric, &hosts[..2])?;
        wait_all_on(&hosts[..2], "fastpath")?;
        wait_reaches(containers[0].netns(), containers[1].address(), Duration::from_secs(5))?;
        let held = descriptors(&hosts[0])?;
        let traffic = Pulse::start(containers[0].netns(), containers[1].address(), BEAT)?;

        let spent = hosts[0].running()?.processor_time()?;
        let door = (hosts[0].address(), MESH).into();
        let crowds =
            strangers.iter().map(|it| Crowd::start(it.netns(), door, EACH)).collect::<Result<Vec<_>>>()?;
        let mut most = 0;
        deadline::throughout("the neighbour is there", Duration::from_secs(6), || {
            most = most.max(descriptors(&hosts[0])?);
            Ok(true)
        })?;
        let spent = hosts[0].running()?.processor_time()?.saturating_sub(spent);
        let asked = deadline::now();
        hosts[0].wait_reaches(&["host2"], PROMPT)?;
        let answered = asked.elapsed();
        let asked = deadline::now();
        let mut late = fabric.container("late")?;
        hosts[0].attach(&mut late)?;
        let attached = asked.elapsed();
        let tolls = crowds.into_iter().map(Crowd::finish).collect::<Result<Vec<_>>>()?;
        let opened: u64 = tolls.iter().map(|toll| toll.opened).sum();

        let peer = hosts[0].address().to_string();
        hosts[2].launch(&[&peer])?;
        settle(&mut hosts)?;
        let traffic = traffic.finish()?;
        println!(
            "E2: {DESCRIPTORS} descriptors, {held} held before, {most} at most; {opened} connections of strangers; \
             {spent:.2?} of a processor in 6 s; status after {answered:.1?}, a container after {attached:.1?}; {traffic}"
        );
        ensure!(opened > DESCRIPTORS as u64, "only {opened} connections: this test proves nothing");
        ensure!(spent < Duration::from_secs(3), "it turned in circles: {spent:?} of a processor in 6 s");
        ensure!(traffic.lost() == 0 && traffic.doubled() == 0, "to its neighbour: {traffic}");
        deadline::until("what strangers opened is closed", Duration::from_secs(10), || {
            let now = descriptors(&hosts[0])?;
            // A peer more and a container more.
            ensure!(now <= held + 8, "{now} descriptors, {held} before");
            Ok(Some(()))
        })
        .map(drop)
    })
}
