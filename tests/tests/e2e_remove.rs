//! Gone for good: a dead owner's space is taken over, and the dead may come back.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use weft_tests::traffic::wait_reaches;
use weft_tests::{deadline, host, scenario};

const RANGE: &str = "10.32.0.0/24";

#[test]
fn removing_a_dead_owner_frees_its_space_everywhere_within_five_seconds() -> Result<()> {
    scenario(|fabric| {
        let mut hosts = fabric.hosts(3)?;
        host::mesh(&mut hosts, &["--range", RANGE, "--init", "seed=host1"])?;
        // Everything belongs to host1, which dies before it has given anything to the others.
        hosts[0].expect(&["prime"])?;
        hosts[1].wait_status("host1 owns it all", Duration::from_secs(5), |status| {
            let owners = status["ipam"]["owners"].as_array().cloned().unwrap_or_default();
            owners.iter().any(|owner| owner["nickname"] == "host1" && owner["addresses"] == 256)
        })?;
        hosts[0].kill()?;
        for host in &hosts[1..] {
            host.wait_status("host1 is unreachable", Duration::from_secs(5), |status| {
                host::peer(status, "host1").is_some_and(|peer| peer["reachable"] == false)
            })?;
        }
        let waiting = hosts[1].allocate("too-early")?;
        ensure!(waiting.code == 4, "with the only owner dead there is nothing to give: {waiting:?}");
        let removed = deadline::now();
        hosts[1].expect(&["peer", "remove", "host1"])?;
        let one = hosts[1].allocated("on-host2")?;
        let two = hosts[2].allocated("on-host3")?;
        let passed = removed.elapsed();
        ensure!(one != two, "{one} twice");
        ensure!(passed < Duration::from_secs(5), "it took {passed:?}");
        for host in &hosts[1..] {
            host.wait_status("host1 owns nothing", Duration::from_secs(5), |status| {
                let owners = status["ipam"]["owners"].as_array().cloned().unwrap_or_default();
                owners.iter().all(|owner| owner["nickname"] != "host1" || owner["addresses"] == 0)
            })?;
        }
        Ok(())
    })
}

#[test]
fn a_removed_peer_that_returns_claims_again_what_is_free_and_reports_what_is_not() -> Result<()> {
    scenario(|fabric| {
        let mut hosts = fabric.hosts(2)?;
        host::mesh(&mut hosts, &["--range", RANGE, "--init", "seed=host1"])?;
        let mut taken = fabric.container("taken")?;
        let mut free = fabric.container("free")?;
        hosts[0].attach(&mut taken)?;
        hosts[0].attach(&mut free)?;
        hosts[1].wait_status("host1's space is known", Duration::from_secs(5), |status| {
            status["ipam"]["owners"].as_array().is_some_and(|owners| !owners.is_empty())
        })?;
        hosts[0].kill()?;
        hosts[1].wait_reaches(&[], Duration::from_secs(5))?;
        hosts[1].expect(&["peer", "remove", "host1"])?;
        // The space is host2's now, and it gives one of the two addresses away.
        let address = format!("{}/24", taken.address());
        let mut usurper = fabric.container("usurper")?;
        hosts[1].attach_with(&mut usurper, &["--address", &address])?;
        ensure!(usurper.address() == taken.address());

        let peer = hosts[1].address().to_string();
        hosts[0].launch(&["--range", RANGE, "--init", "seed=host1", &peer])?;
        hosts[0].wait_ready()?;
        hosts[0].wait_reaches(&["host2"], Duration::from_secs(10))?;
        let state = |status: &serde_json::Value, address: String| -> Option<String> {
            let all = status["attachments"].as_array()?;
            let one =
                all.iter().find(|one| one["addresses"].to_string().contains(&format!("\"{address}/")))?;
            Some(one["state"].as_str()?.to_owned())
        };
        let status =
            hosts[0].wait_status("one is ok, one in conflict", Duration::from_secs(15), |status| {
                state(status, taken.address().to_string()).as_deref() == Some("conflict")
                    && state(status, free.address().to_string()).as_deref() == Some("ok")
            })?;
        ensure!(status["ipam"]["state"] == "ready", "{:#}", status["ipam"]);
        let owned = status["ipam"]["owned"].as_u64().context("ipam.owned")?;
        ensure!(owned < 256, "it still believes it owns everything: {owned}");
        wait_reaches(usurper.netns(), free.address(), Duration::from_secs(10))?;
        // New addresses on both sides are new ones.
        let (one, two) = (hosts[0].allocated("new-on-host1")?, hosts[1].allocated("new-on-host2")?);
        ensure!(
            one != two && ![one, two].contains(&taken.address()) && ![one, two].contains(&free.address())
        );
        Ok(())
    })
}
