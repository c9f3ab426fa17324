//! A kernel that refuses a call now and then: E7 of the catalogue (`docs/faults.md`).

use std::time::Duration;

use anyhow::{Result, ensure};
use weft_tests::flaky::Flaky;
use weft_tests::host::{attach_each, mesh, wait_all_on};
use weft_tests::traffic::{Pulse, wait_reaches};
use weft_tests::{Netns, deadline, kernel, scenario};

const BEAT: Duration = Duration::from_millis(20);
/// One netlink call in so many fails.
const ONE_IN: u32 = 100;
/// How soon what others delete must be back: a question that got no answer is asked again after 5 s, and what failed
/// after 2 s more.
const BACK: Duration = Duration::from_secs(20);
/// How often something is deleted.
const ROUNDS: usize = 30;

/// What is deleted, and how it is seen that it is back.
type Damage = (&'static str, fn(&Netns) -> Result<()>, fn(&Netns) -> Result<bool>);

fn damages() -> [Damage; 3] {
    [
        (
            "a default entry",
            |host| kernel::bridge(host, "fdb del 00:00:00:00:00:00 dev weft-vx dst 10.99.0.2 self"),
            |host| {
                let all = kernel::forwarding(host)?;
                Ok(all.iter().any(|one| one.starts_with("00:00:00:00:00:00") && one.contains("10.99.0.2")))
            },
        ),
        (
            "the isolation of a port",
            |host| kernel::bridge(host, "link set dev weft-sl isolated off"),
            |host| Ok(host.ip("-d link show dev weft-sl")?.contains("isolated on")),
        ),
        (
            "the filter",
            |host| kernel::nft(host, "delete table inet weft-weft\n").map(drop),
            |host| {
                Ok(kernel::nft(host, "list table inet weft-weft\n").is_ok_and(|it| it.contains("10.99.0.2")))
            },
        ),
    ]
}

#[test]
fn e7_a_router_whose_netlink_calls_fail_now_and_then_converges_and_what_others_delete_comes_back()
-> Result<()> {
    scenario(|fabric| {
        let mut hosts = fabric.hosts(2)?;
        let flaky = Flaky::compile(fabric)?;
        let seed = std::env::var("WEFT_SEED").map_or(Ok(7), |text| text.parse())?;
        flaky.afflict(&mut hosts[0], ONE_IN, seed);
        mesh(&mut hosts, &[])?;
        let containers = attach_each(fabric, &hosts)?;
        wait_all_on(&hosts, "fastpath")?;
        wait_reaches(containers[0].netns(), containers[1].address(), Duration::from_secs(5))?;
        let traffic = Pulse::start(containers[1].netns(), containers[0].address(), BEAT)?;
        let mut slowest = Duration::ZERO;
        for round in 0..ROUNDS {
            let (what, damage, is_back) = &damages()[round % 3];
            damage(hosts[0].netns())?;
            let took = deadline::until_true(&format!("{what} is back"), BACK, || is_back(hosts[0].netns()))?;
            slowest = slowest.max(took);
        }
        // Containers come and go, too.
        for round in 0..5 {
            let mut container = fabric.container(&format!("d{round}"))?;
            hosts[0].attach(&mut container)?;
            wait_reaches(container.netns(), containers[1].address(), Duration::from_secs(5))?;
            hosts[0].expect(&["detach", container.netns().name()])?;
        }
        let traffic = traffic.finish()?;
        let failures = Flaky::failures(&hosts[0]);
        println!("E7: {failures} netlink calls failed; back after {slowest:.1?} at most; {traffic}");
        ensure!(failures > 10, "only {failures} calls failed: this test proves nothing");
        ensure!(hosts[0].process()?.ended()?.is_none(), "the router has ended");
        ensure!(traffic.lost() == 0 && traffic.doubled() == 0, "to its container: {traffic}");
        Ok(())
    })
}
