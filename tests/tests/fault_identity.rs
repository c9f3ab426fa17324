//! Two with one identity, and two that meet in the doorway: B6 and C6 of the catalogue (`docs/faults.md`).

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use weft_tests::host::{attach_each, connection, mesh, reachable, wait_all_on};
use weft_tests::traffic::{Pulse, wait_reaches};
use weft_tests::{Host, deadline, scenario};

const BEAT: Duration = Duration::from_millis(20);
/// How soon a clone must be refused, and what it is told.
const REFUSED: Duration = Duration::from_secs(10);
const CLONED: &str = "cloned machine";
/// Meetings in the doorway.
const ROUNDS: usize = 5;
/// How soon one of two sessions must be left, and for how long nothing may change then.
const ONE_LEFT: Duration = Duration::from_secs(5);
const STAYS: Duration = Duration::from_secs(1);

/// Copies what a router has on disk, as a cloned disk would hold it.
fn clone(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        std::fs::copy(entry.path(), to.join(entry.file_name()))?;
    }
    Ok(())
}

#[test]
fn b6_a_cloned_state_directory_is_refused_by_all_says_so_and_the_first_does_not_notice() -> Result<()> {
    scenario(|fabric| {
        let mut hosts = fabric.hosts(3)?;
        let mut twin = fabric.host("twin")?;
        mesh(&mut hosts, &[])?;
        let containers = attach_each(fabric, &hosts)?;
        wait_all_on(&hosts, "fastpath")?;
        wait_reaches(containers[0].netns(), containers[1].address(), Duration::from_secs(5))?;
        let traffic = Pulse::start(containers[0].netns(), containers[1].address(), BEAT)?;
        let back = Pulse::start(containers[2].netns(), containers[0].address(), BEAT)?;

        clone(&hosts[0].state_dir(), &twin.state_dir())?;
        let peers: Vec<String> = hosts.iter().map(|host| host.address().to_string()).collect();
        let begin = deadline::now();
        twin.launch(&peers.iter().map(String::as_str).collect::<Vec<_>>())?;
        let refused_by_all = |status: &serde_json::Value| {
            let all = status["connections"].as_array().cloned().unwrap_or_default();
            all.len() == peers.len()
                && all.iter().all(|one| one["error"].as_str().is_some_and(|error| error.contains(CLONED)))
        };
        twin.wait_status("refused by all as a clone", REFUSED, refused_by_all)?;
        let took = begin.elapsed();
        // It dials again, and again.
        deadline::throughout(
            "the first keeps its peers, the second has none",
            Duration::from_secs(5),
            || {
                let [first, second] = [hosts[0].status()?, twin.status()?];
                Ok(reachable(&first).len() == 2 && reachable(&second).is_empty())
            },
        )?;
        let (traffic, back) = (traffic.finish()?, back.finish()?);
        println!("B6: refused by all after {took:.0?}; the first: {traffic}; {back}");
        ensure!(traffic.lost() == 0 && traffic.doubled() == 0, "from the first: {traffic}");
        ensure!(back.lost() == 0 && back.doubled() == 0, "to the first: {back}");
        for host in [&twin, &hosts[0], &hosts[1], &hosts[2]] {
            ensure!(host.log()?.contains(CLONED), "the log of {} does not say so", host.name());
        }

        // With a state directory of its own it is as welcome as any.
        twin.kill()?;
        std::fs::remove_dir_all(twin.state_dir())?;
        twin.launch(&[&peers[0]])?;
        twin.wait_reaches(&["host1", "host2", "host3"], REFUSED).map(drop)
    })
}

/// The TCP connections of the mesh that stand, as the kernel of a host sees them: both ends of each, in order.
fn sessions(host: &Host) -> Result<Vec<[String; 2]>> {
    let mut ss = Command::new("ss");
    ss.args(["-Htn", "state", "established", "( sport = :6783 or dport = :6783 )"]);
    let shown = host.netns().execute(&mut ss, "", Duration::from_secs(5))?.success("ss")?;
    let ends = |line: &str| -> Option<[String; 2]> {
        let plain = line.replace("[::ffff:", "").replace(']', "");
        let mut ends = plain.split_whitespace().skip(2).take(2).map(str::to_owned).collect::<Vec<_>>();
        ends.sort();
        ends.try_into().ok()
    };
    shown.lines().map(|line| ends(line).with_context(|| format!("ss said: {line}"))).collect()
}

#[test]
fn c6_two_that_dial_each_other_at_once_keep_one_session_the_same_at_both_ends() -> Result<()> {
    scenario(|fabric| {
        let mut hosts = fabric.hosts(2)?;
        let (mut met, mut dialled) = (Duration::ZERO, [0, 0]);
        for round in 0..ROUNDS {
            let begin = deadline::now();
            mesh(&mut hosts, &["--no-discovery"])?;
            let mut kept = Vec::new();
            deadline::until_true("one session, the same at both ends", ONE_LEFT, || {
                let [one, other] = [sessions(&hosts[0])?, sessions(&hosts[1])?];
                kept = one;
                Ok(kept.len() == 1 && kept == other)
            })?;
            met = met.max(begin.elapsed());
            deadline::throughout("it is that session that stays", STAYS, || {
                Ok(sessions(&hosts[0])? == kept && sessions(&hosts[1])? == kept)
            })?;
            for (number, (host, other)) in [(&hosts[0], &hosts[1]), (&hosts[1], &hosts[0])].iter().enumerate()
            {
                let status = host.status()?;
                let one = connection(&status, other.name()).context("no connection")?;
                dialled[number] += usize::from(one["direction"] == "outbound");
            }
            ensure!(dialled.iter().sum::<usize>() == round + 1, "one end has dialled it: {dialled:?}");
            let containers = attach_each(fabric, &hosts)?;
            wait_reaches(containers[0].netns(), containers[1].address(), Duration::from_secs(5))?;
            Host::kill_all(&mut hosts)?;
        }
        // Each router writes one log through all its lives.
        let begun =
            |host: &Host| Ok(host.log()?.lines().filter(|line| line.contains("session established")).count());
        let begun = hosts.iter().map(begun).collect::<Result<Vec<_>>>()?;
        println!(
            "C6: {ROUNDS} meetings, one session after {met:.1?} at most; begun {begun:?}, dialled by {dialled:?}"
        );
        Ok(())
    })
}
