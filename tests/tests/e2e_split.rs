//! Two clusters seeded apart and both in use: they meet, say so, and keep their frames to themselves.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use weft_tests::host::connection;
use weft_tests::sniff::Sniffer;
use weft_tests::traffic::{self, Copies, reaches};
use weft_tests::{Host, deadline, scenario};

#[test]
fn clusters_seeded_apart_and_in_use_say_split_and_no_frame_crosses() -> Result<()> {
    scenario(|fabric| {
        let mut hosts = fabric.hosts(2)?;
        for host in &mut hosts {
            host.launch(&[])?;
            host.wait_ready()?;
        }
        // Two containers on each side, so that each side has traffic of its own, with the same addresses on both.
        let mut left = [fabric.container("l1")?, fabric.container("l2")?];
        let mut right = [fabric.container("r1")?, fabric.container("r2")?];
        for (host, side) in [(&hosts[0], &mut left), (&hosts[1], &mut right)] {
            for container in side {
                host.attach(container)?;
            }
        }
        ensure!(left[0].address() == right[0].address(), "the sides do not collide: this test tests nothing");
        hosts[0].peer_add(&hosts[1])?;
        let split = |host: &Host| {
            host.wait_status("it says split", Duration::from_secs(10), |status| {
                let other = if host.name() == "host1" { "host2" } else { "host1" };
                status["ipam"]["state"] == "split" && connection(status, other).is_some()
            })
        };
        for (host, other) in [(&hosts[0], "host2"), (&hosts[1], "host1")] {
            let status = split(host)?;
            let connection = connection(&status, other).context("the session must stay")?;
            ensure!(connection["carrier"].is_null(), "{connection:#}");
            let reason = connection["reason"].as_str().unwrap_or_default();
            ensure!(reason.contains("seeded apart"), "{connection:#}");
            let text = host.expect(&["status"])?;
            ensure!(
                text.contains("split") && text.contains("weft reset"),
                "it does not say what to do:\n{text}"
            );
        }

        let sniffer = Sniffer::start(right[0].netns(), b"FROM-THE-LEFT")?;
        let ears = [Copies::start(&right[0], 7100, None)?, Copies::start(&left[1], 7100, None)?];
        for _ in 0..20 {
            traffic::broadcast(&left[0], 7100, b"FROM-THE-LEFT")?;
            deadline::pause(Duration::from_millis(50));
        }
        deadline::pause(Duration::from_millis(300));
        let seen = sniffer.finish()?;
        ensure!(seen.marked == 0 && ears[0].of(b"FROM-THE-LEFT") == 0, "frames crossed: {seen:?}");
        ensure!(ears[1].of(b"FROM-THE-LEFT") == 20, "the left side lost its own frames");

        // Both go on: what stands works, and new addresses are given out.
        ensure!(reaches(left[0].netns(), left[1].address())?, "the left side stopped");
        ensure!(reaches(right[0].netns(), right[1].address())?, "the right side stopped");
        for host in &hosts {
            host.allocated("after-the-split")?;
            split(host)?;
        }
        Ok(())
    })
}
