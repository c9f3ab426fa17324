//! Many routers on one machine: B14 and T15 (`docs/faults.md`).
//!
//! 25 of them, or as many as `WEFT_ROUTERS` says, at most 250: each its own host on one cable, told of the first two.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use weft_tests::command;
use weft_tests::host::{binary, reachable};
use weft_tests::{Host, deadline, scenario_alone};

/// From the first launch until every router has a session with every other.
const FORMED: Duration = Duration::from_secs(30);
/// From the death of half of them until the others agree about it.
const AGREED: Duration = Duration::from_secs(5);
/// Between two questions.
const ASKED: Duration = Duration::from_millis(500);
/// How long processor time is watched, and what all together may use of one core.
const WATCHED: Duration = Duration::from_secs(10);
const SHARE: f64 = 0.5;

fn routers() -> Result<usize> {
    let count = std::env::var("WEFT_ROUTERS").map_or(Ok(25), |text| text.parse().context("WEFT_ROUTERS"))?;
    ensure!((4..=250).contains(&count), "WEFT_ROUTERS: from 4 to 250, not {count}");
    Ok(count)
}

/// What a router may keep in memory; a debug build is given more, as in `e2e_idle`.
fn largest() -> Result<u64> {
    let debug = binary()?.components().any(|part| part.as_os_str() == "debug");
    Ok(if debug { 48_000_000 } else { 24_000_000 })
}

/// Tells every host the hardware address of every other. The kernel's neighbour table is one for all namespaces of a
/// machine (`gc_thresh3`, 1024 by default), which as many real machines would not share.
fn introduce(hosts: &[Host]) -> Result<()> {
    let mut all = Vec::new();
    for host in hosts {
        let shown = host.netns().ip("-o link show dev eth0")?;
        let mac = shown.split_whitespace().skip_while(|word| *word != "link/ether").nth(1);
        all.push((host.address(), mac.with_context(|| format!("no address: {shown}"))?.to_owned()));
    }
    for host in hosts {
        let others = all.iter().filter(|(address, _)| *address != host.address());
        let words: Vec<String> = others
            .map(|(address, mac)| format!("neigh replace {address} lladdr {mac} dev eth0 nud permanent"))
            .collect();
        let mut ip = std::process::Command::new("ip");
        ip.args(["-n", host.netns().name(), "-batch", "-"]);
        command::run(&mut ip, &words.join("\n"), Duration::from_secs(20))?.success("ip -batch")?;
    }
    Ok(())
}

/// Waits until this holds on all hosts; returns when the last one said so. One is asked at a time, twice a second, until
/// it says so: asking costs a process, and a hundred asked again and again would take half of what they need themselves.
fn wait_all(
    hosts: &[&Host],
    what: &str,
    limit: Duration,
    holds: impl Fn(&serde_json::Value) -> bool,
) -> Result<Instant> {
    let mut left = hosts.to_vec();
    deadline::until(what, limit, || {
        while let Some(host) = left.last() {
            if !host.status().is_ok_and(|status| holds(&status)) {
                deadline::pause(ASKED);
                anyhow::bail!(
                    "not yet on {}, nor looked at on {} of {}",
                    host.name(),
                    left.len() - 1,
                    hosts.len()
                );
            }
            left.pop();
        }
        Ok(Some(deadline::now()))
    })
    .map(|(moment, _)| moment)
}

fn sessions(status: &serde_json::Value) -> usize {
    let all = status["connections"].as_array().into_iter().flatten();
    let established = all.filter(|one| one["state"] == "established");
    established.filter_map(|one| one["peer"].as_str()).collect::<BTreeSet<_>>().len()
}

#[test]
fn t15_many_routers_are_one_mesh_in_half_a_minute_rest_quietly_and_agree_when_half_of_them_die() -> Result<()>
{
    let (count, largest) = (routers()?, largest()?);
    scenario_alone(|fabric| {
        let mut hosts = fabric.hosts(count)?;
        introduce(&hosts)?;
        let first: Vec<String> = hosts[..2].iter().map(|host| host.address().to_string()).collect();
        let begin = deadline::now();
        for host in &mut hosts {
            host.launch(&["--init", "seed=host1", &first[0], &first[1]])?;
        }
        let launched = begin.elapsed();
        let all: Vec<&Host> = hosts.iter().collect();
        let whole = |status: &serde_json::Value| sessions(status) == count - 1;
        let formed = wait_all(&all, "a session with every other", FORMED * 3, whole)? - begin;

        // Joining is work; let it end, and the links go to their quiet pace.
        deadline::pause(Duration::from_secs(12));
        let spent = || hosts.iter().map(|host| host.running()?.processor_time()).sum::<Result<Duration>>();
        let (before, watched) = (spent()?, deadline::now());
        deadline::pause(WATCHED);
        let share = (spent()? - before).as_secs_f64() / watched.elapsed().as_secs_f64();
        let resident =
            hosts.iter().map(|host| host.running()?.resident_bytes()).collect::<Result<Vec<_>>>()?;
        let most = resident.into_iter().max().unwrap_or_default();

        let half = count / 2;
        let killed = deadline::now();
        Host::kill_all(&mut hosts[..half])?;
        let dying = killed.elapsed();
        let left: Vec<&Host> = hosts[half..].iter().collect();
        let names: BTreeSet<String> = left.iter().map(|host| host.name().to_owned()).collect();
        let agree = |status: &serde_json::Value| {
            let reached: BTreeSet<String> = reachable(status).into_iter().collect();
            reached.len() == names.len() - 1 && reached.is_subset(&names)
        };
        let agreed = wait_all(&left, "reaches exactly those that are left", AGREED * 6, agree)? - killed;
        println!(
            "T15: {count} routers launched in {launched:.1?}, one mesh after {formed:.1?}, at most {most} bytes \
             resident, together {:.0} % of a core at rest; {half} killed within {dying:.1?}, agreed after {agreed:.1?}",
            share * 100.0
        );
        ensure!(formed < FORMED, "one mesh only after {formed:.1?}");
        ensure!(most < largest, "{most} bytes resident");
        ensure!(share < SHARE, "{:.0} % of a core at rest", share * 100.0);
        ensure!(agreed < AGREED, "agreed only after {agreed:.1?}");
        Ok(())
    })
}
