//! Killed and started again: containers keep their address and hardly notice.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use weft_tests::traffic::{Echo, Flow, wait_reaches};
use weft_tests::{deadline, host, scenario, scenario_alone};

#[test]
fn traffic_is_back_within_two_seconds_of_a_restart_after_a_kill() -> Result<()> {
    scenario_alone(|fabric| {
        let mut hosts = fabric.hosts(2)?;
        for host in &mut hosts {
            host.set_secret("a secret of some length");
        }
        host::mesh(&mut hosts, &[])?;
        let mut c1 = fabric.container("c1")?;
        let mut c2 = fabric.container("c2")?;
        hosts[0].attach(&mut c1)?;
        let before = hosts[1].attach(&mut c2)?;
        let _echo = Echo::start(c2.netns())?;
        wait_reaches(c1.netns(), c2.address(), Duration::from_secs(5))?;
        let flow = Flow::start(c1.netns(), c2.address(), Duration::from_millis(20))?;
        deadline::pause(Duration::from_millis(300));

        hosts[1].kill()?;
        ensure!(c2.addresses_in_kernel()?.len() == 1, "the kill took the address away");
        deadline::pause(Duration::from_millis(500));
        let first = hosts[0].address().to_string();
        let launched = deadline::now();
        hosts[1].launch(&[&first])?;
        hosts[1].wait_ready()?;
        deadline::pause(Duration::from_millis(2500));
        let report = flow.finish()?;
        let back = report.first_answer_after(launched).context("traffic never came back")? - launched;
        ensure!(back < Duration::from_secs(2), "traffic came back only after {back:?}");

        let kernel = c2.addresses_in_kernel()?;
        ensure!(kernel.len() == 1 && kernel[0].starts_with(&format!("{before}/")), "{kernel:?}");
        ensure!(hosts[1].attach(&mut c2)? == before, "attach after the restart gave another address");
        let status = hosts[1].status()?;
        let attachments = status["attachments"].as_array().cloned().unwrap_or_default();
        ensure!(attachments.len() == 1 && attachments[0]["state"] == "ok", "{attachments:#?}");
        Ok(())
    })
}

#[test]
fn every_container_keeps_its_address_and_nobody_else_gets_it() -> Result<()> {
    scenario(|fabric| {
        let mut hosts = fabric.hosts(1)?;
        let host = &mut hosts[0];
        host.launch(&[])?;
        host.wait_ready()?;
        let mut containers =
            (1..=5).map(|n| fabric.container(&format!("c{n}"))).collect::<Result<Vec<_>>>()?;
        let mut given = Vec::new();
        for container in &mut containers {
            given.push(host.attach(container)?);
        }
        given.push(host.allocated("without-wiring")?);
        host.kill()?;
        host.launch(&[])?;
        host.wait_ready()?;
        let status = host.status()?;
        ensure!(status["ipam"]["used"] == given.len(), "{:#}", status["ipam"]);
        ensure!(host.lookup("without-wiring")? == given.last().copied(), "an allocation was lost");
        let mut late = fabric.container("late")?;
        let fresh = host.attach(&mut late)?;
        ensure!(!given.contains(&fresh), "{fresh} was given twice");
        for (container, address) in containers.iter_mut().zip(&given) {
            ensure!(host.attach(container)? == *address, "attach is not idempotent");
            wait_reaches(late.netns(), *address, Duration::from_secs(3))?;
        }
        Ok(())
    })
}

#[test]
fn a_terminated_router_leaves_the_data_path_between_its_own_containers() -> Result<()> {
    scenario(|fabric| {
        let mut hosts = fabric.hosts(1)?;
        let host = &mut hosts[0];
        host.launch(&[])?;
        host.wait_ready()?;
        let mut c1 = fabric.container("c1")?;
        let mut c2 = fabric.container("c2")?;
        host.attach(&mut c1)?;
        host.attach(&mut c2)?;
        let _echo = Echo::start(c2.netns())?;
        wait_reaches(c1.netns(), c2.address(), Duration::from_secs(3))?;
        let flow = Flow::start(c1.netns(), c2.address(), Duration::from_millis(10))?;
        ensure!(host.terminate()? == 0, "SIGTERM must end it with 0");
        deadline::pause(Duration::from_millis(300));
        host.launch(&[])?;
        host.wait_ready()?;
        deadline::pause(Duration::from_millis(300));
        let report = flow.finish()?;
        ensure!(report.lost() == 0, "{} of {} lost", report.lost(), report.sent());
        Ok(())
    })
}

#[test]
fn a_damaged_or_lost_state_costs_no_running_container_its_address() -> Result<()> {
    scenario(|fabric| {
        let mut hosts = fabric.hosts(1)?;
        let host = &mut hosts[0];
        host.launch(&[])?;
        host.wait_ready()?;
        let mut running = fabric.container("running")?;
        let address = host.attach(&mut running)?;
        let (state, previous) = (host.state_dir().join("state"), host.state_dir().join("state.previous"));
        type Damage = Box<dyn Fn() -> std::io::Result<()>>;
        let damages: [(&str, Damage); 3] = [
            ("the newest generation is cut", {
                let state = state.clone();
                Box::new(move || std::fs::write(&state, &std::fs::read(&state)?[..40]))
            }),
            ("both generations are junk", {
                let (state, previous) = (state.clone(), previous.clone());
                Box::new(move || {
                    std::fs::write(&state, b"junk").and_then(|()| std::fs::write(&previous, b"junk"))
                })
            }),
            ("both generations are gone", {
                Box::new(move || std::fs::remove_file(&state).and_then(|()| std::fs::remove_file(&previous)))
            }),
        ];
        for (number, (what, damage)) in damages.iter().enumerate() {
            host.kill()?;
            damage().with_context(|| format!("cannot do the damage: {what}"))?;
            host.launch(&[])?;
            host.wait_ready()?;
            let mut fresh = fabric.container(&format!("fresh{number}"))?;
            ensure!(host.attach(&mut fresh)? != address, "{what}: {address} was given to another");
            ensure!(host.attach(&mut running)? == address, "{what}: the running container lost {address}");
            wait_reaches(fresh.netns(), address, Duration::from_secs(3)).context(*what)?;
        }
        Ok(())
    })
}

#[test]
fn another_range_and_back_gives_no_running_container_s_address_away() -> Result<()> {
    scenario(|fabric| {
        let mut hosts = fabric.hosts(1)?;
        let host = &mut hosts[0];
        host.launch(&["--range", "10.77.0.0/16"])?;
        host.wait_ready()?;
        let mut running = fabric.container("running")?;
        let address = host.attach(&mut running)?;
        for range in ["10.78.0.0/16", "10.77.0.0/16"] {
            host.terminate()?;
            host.launch(&["--range", range])?;
            host.wait_ready()?;
            ensure!(
                host.allocated(&format!("in {range}").replace(['/', ' '], "-"))? != address,
                "given twice"
            );
        }
        ensure!(host.attach(&mut running)? == address, "the running container lost {address}");
        Ok(())
    })
}
