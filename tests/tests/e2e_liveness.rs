//! How fast a failure is known everywhere.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use weft_tests::{Host, deadline, host, scenario_alone};

/// Watches from all `observers` at once how long after `failed` they report `nickname` unreachable; `fail` is called
/// when all are watching.
fn noticed(
    observers: &[Host],
    nickname: &str,
    fail: impl FnOnce() -> Result<Instant>,
) -> Result<Vec<Duration>> {
    std::thread::scope(|scope| {
        let watch = |host: &'_ Host| -> Result<Instant> {
            let limit = Duration::from_secs(20);
            deadline::until(&format!("{} notices", host.name()), limit, || {
                let gone =
                    host::peer(&host.status()?, nickname).is_none_or(|peer| peer["reachable"] == false);
                Ok(gone.then(deadline::now))
            })
            .map(|(moment, _)| moment)
        };
        let watching: Vec<_> = observers.iter().map(|host| scope.spawn(move || watch(host))).collect();
        let failed = fail()?;
        let moments =
            watching.into_iter().map(|one| one.join().unwrap_or_else(|e| std::panic::resume_unwind(e)));
        moments.map(|moment| Ok(moment?.saturating_duration_since(failed))).collect()
    })
}

#[test]
fn a_killed_router_is_reported_everywhere_within_250_milliseconds() -> Result<()> {
    scenario_alone(|fabric| {
        let mut hosts = fabric.hosts(3)?;
        host::mesh(&mut hosts, &[])?;
        let Some(mut victim) = hosts.pop() else { anyhow::bail!("three hosts") };
        let took = noticed(&hosts, "host3", || {
            deadline::pause(Duration::from_millis(300));
            let moment = deadline::now();
            victim.kill()?;
            Ok(moment)
        })?;
        ensure!(took.iter().all(|&time| time > Duration::ZERO), "it was gone before it was killed: {took:?}");
        ensure!(took.iter().all(|&time| time < Duration::from_millis(250)), "it took {took:?}");
        Ok(())
    })
}

#[test]
fn a_silent_router_is_reported_everywhere_within_two_seconds() -> Result<()> {
    reported_when_silent(&[], "fastpath")
}

#[test]
fn a_silent_router_on_sleeve_is_reported_everywhere_within_two_seconds() -> Result<()> {
    reported_when_silent(&["--no-fastpath"], "sleeve")
}

fn reported_when_silent(arguments: &[&str], carrier: &str) -> Result<()> {
    scenario_alone(|fabric| {
        let mut hosts = fabric.hosts(3)?;
        host::mesh(&mut hosts, arguments)?;
        host::wait_all_on(&hosts, carrier)?;
        let Some(victim) = hosts.pop() else { anyhow::bail!("three hosts") };
        let took = noticed(&hosts, "host3", || {
            deadline::pause(Duration::from_millis(300));
            let moment = deadline::now();
            fabric.silence(&victim)?;
            Ok(moment)
        })?;
        ensure!(
            took.iter().all(|&time| time > Duration::ZERO),
            "it was gone before it fell silent: {took:?}"
        );
        ensure!(took.iter().all(|&time| time < Duration::from_secs(2)), "it took {took:?}");
        // The silent one itself knows that it is alone, and all meet again afterwards.
        victim.wait_reaches(&[], Duration::from_secs(5))?;
        fabric.heal()?;
        hosts.push(victim);
        host::settle(&mut hosts)
    })
}

#[test]
fn a_frozen_router_is_reported_and_welcomed_back() -> Result<()> {
    scenario_alone(|fabric| {
        let mut hosts = fabric.hosts(3)?;
        host::mesh(&mut hosts, &[])?;
        host::wait_all_on(&hosts, "fastpath")?;
        let Some(mut victim) = hosts.pop() else { anyhow::bail!("three hosts") };
        let took = noticed(&hosts, "host3", || {
            let moment = deadline::now();
            victim.freeze()?;
            Ok(moment)
        })?;
        ensure!(took.iter().all(|&time| time < Duration::from_secs(2)), "it took {took:?}");
        victim.thaw()?;
        hosts.push(victim);
        host::settle(&mut hosts)
    })
}
