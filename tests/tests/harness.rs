//! Does the harness itself tell the truth? Every fault must really break something, every counter must count.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use weft_tests::kernel::{self, Kernel};
use weft_tests::process::Process;
use weft_tests::sniff::Sniffer;
use weft_tests::traffic::{
    self, Copies, Echo, Flow, Pulse, Stream, Torrent, carry, pattern, ping, reaches, udp_round_trip,
};
use weft_tests::{Container, Fabric, deadline, frames, netns, scenario};

/// Two containers joined by a plain veth cable: an Ethernet that needs no router.
///
/// ```text
///   one 192.0.2.1 ──── eth0 ════ eth0 ──── 192.0.2.2 two
/// ```
fn cabled(fabric: &Fabric) -> Result<(Container, Container)> {
    let (mut one, mut two) = (fabric.container("one")?, fabric.container("two")?);
    one.netns().ip(&format!("link add name eth0 type veth peer name eth0 netns {}", two.netns().name()))?;
    for (container, last) in [(&mut one, 1), (&mut two, 2)] {
        let address = Ipv4Addr::new(192, 0, 2, last);
        container.netns().ip(&format!("addr add {address}/24 dev eth0"))?;
        container.netns().ip("link set dev eth0 up")?;
        container.set_address(address);
    }
    traffic::wait_reaches(one.netns(), two.address(), Duration::from_secs(3))?;
    Ok((one, two))
}

#[test]
fn hosts_reach_each_other_until_the_cable_is_cut_and_again_when_it_is_mended() -> Result<()> {
    scenario(|fabric| {
        let hosts = fabric.hosts(3)?;
        let [one, two, three] = &hosts[..] else { anyhow::bail!("three hosts") };
        ensure!(reaches(one.netns(), two.address())?);
        fabric.cut(one, two)?;
        ensure!(!reaches(one.netns(), two.address())?, "the cut cable still carries");
        ensure!(!reaches(two.netns(), one.address())?, "the cut cable still carries backwards");
        ensure!(reaches(one.netns(), three.address())?, "a cut between two took the third along");
        fabric.mend(two, one)?;
        ensure!(reaches(one.netns(), two.address())?, "mended in vain");
        fabric.partition(&[one], &[two, three])?;
        ensure!(!reaches(one.netns(), three.address())? && reaches(two.netns(), three.address())?);
        fabric.heal()?;
        ensure!(reaches(one.netns(), three.address())?, "healed in vain");
        fabric.silence(three)?;
        ensure!(!reaches(one.netns(), three.address())? && reaches(one.netns(), two.address())?);
        Ok(())
    })
}

#[test]
fn hosts_on_different_segments_meet_only_through_the_one_that_stands_on_both() -> Result<()> {
    scenario(|fabric| {
        let a = fabric.host_on("a", &[0])?;
        let b = fabric.host_on("b", &[0, 1])?;
        let c = fabric.host_on("c", &[1])?;
        ensure!(reaches(a.netns(), b.addresses()[0])?, "a does not reach b");
        ensure!(reaches(c.netns(), b.addresses()[1])?, "c does not reach b");
        ensure!(!reaches(a.netns(), c.address())?, "a reaches c");
        Ok(())
    })
}

#[test]
fn limits_on_size_ports_and_loss_do_what_they_say() -> Result<()> {
    scenario(|fabric| {
        let hosts = fabric.hosts(2)?;
        let (one, two) = (&hosts[0], &hosts[1]);
        let _echo = Echo::start(two.netns())?;
        let (from, to) = (one.netns(), two.address());
        ensure!(udp_round_trip(from, to, &pattern(1000))?);

        fabric.limit_udp(700)?;
        ensure!(udp_round_trip(from, to, &pattern(700))?, "700 bytes must pass");
        ensure!(!udp_round_trip(from, to, &pattern(701))?, "701 bytes must not pass");
        fabric.heal()?;

        fabric.limit_packet(1300)?;
        // 1300 = 20 (IP) + 8 (ICMP) + 1272.
        ensure!(ping(from, to, 1, 1272)?.received == 1, "1300 bytes must pass");
        ensure!(ping(from, to, 1, 1273)?.received == 0, "1301 bytes must not pass");
        fabric.heal()?;

        fabric.block_udp(&[traffic::ECHO_PORT])?;
        ensure!(!udp_round_trip(from, to, b"blocked")?);
        ensure!(traffic::tcp_round_trip(from, to, b"not blocked")? == b"not blocked");
        fabric.heal()?;

        fabric.block_udp_way(two, one, traffic::ECHO_PORT)?;
        ensure!(udp_round_trip(from, to, b"the other way")?, "blocked on the wrong way");
        fabric.block_udp_way(one, two, traffic::ECHO_PORT)?;
        ensure!(!udp_round_trip(from, to, b"blocked on this way")?);
        fabric.heal()?;

        fabric.lose(1000)?;
        ensure!(ping(from, to, 1, 56)?.received == 0, "everything must be lost");
        fabric.lose(0)?;
        ensure!(ping(from, to, 1, 56)?.received == 1, "nothing must be lost");
        Ok(())
    })
}

#[test]
fn receivers_count_each_copy_of_a_broadcast_and_a_multicast() -> Result<()> {
    scenario(|fabric| {
        let (one, two) = cabled(fabric)?;
        let group = Ipv4Addr::new(239, 1, 2, 3);
        let (shouts, talks) = (Copies::start(&two, 7100, None)?, Copies::start(&two, 7101, Some(group))?);
        traffic::broadcast(&one, 7100, b"to all")?;
        traffic::broadcast(&one, 7100, b"twice")?;
        traffic::broadcast(&one, 7100, b"twice")?;
        traffic::multicast(&one, group, 7101, b"to some")?;
        let counted = || Ok((shouts.of(b"to all"), shouts.of(b"twice"), talks.of(b"to some")) == (1, 2, 1));
        deadline::until_true("all copies are counted", Duration::from_secs(2), counted)?;
        ensure!(shouts.of(b"never sent") == 0);
        Ok(())
    })
}

#[test]
fn the_sniffer_sees_a_marker_in_clear_and_only_that() -> Result<()> {
    scenario(|fabric| {
        let hosts = fabric.hosts(2)?;
        let sniffer = Sniffer::start(fabric.netns(), b"IN-THE-CLEAR")?;
        let other = Sniffer::start(fabric.netns(), b"NEVER-SENT")?;
        let to = SocketAddr::from((hosts[1].address(), 9));
        traffic::udp_send(hosts[0].netns(), to, b"xxxxIN-THE-CLEARxxxx")?;
        traffic::udp_send(hosts[0].netns(), to, b"nothing of interest")?;
        deadline::pause(Duration::from_millis(200));
        let seen = sniffer.finish()?;
        // Each frame passes two ports of the bridge; the refusal by ICMP quotes the marker once more.
        ensure!((2..=4).contains(&seen.marked) && seen.frames > 4, "{seen:?}");
        ensure!(seen.udp.get(&9) == Some(&4), "{seen:?}");
        let other = other.finish()?;
        ensure!(other.marked == 0 && other.frames > 0, "{other:?}");
        Ok(())
    })
}

#[test]
fn a_flow_reports_what_was_lost_and_for_how_long() -> Result<()> {
    scenario(|fabric| {
        let hosts = fabric.hosts(2)?;
        let _echo = Echo::start(hosts[1].netns())?;
        let flow = Flow::start(hosts[0].netns(), hosts[1].address(), Duration::from_millis(10))?;
        deadline::pause(Duration::from_millis(300));
        fabric.cut(&hosts[0], &hosts[1])?;
        deadline::pause(Duration::from_millis(500));
        fabric.heal()?;
        let healed = deadline::now();
        deadline::pause(Duration::from_millis(300));
        let report = flow.finish()?;
        ensure!(report.lost() > 20 && report.sent() > 80, "{} of {} lost", report.lost(), report.sent());
        let silence = report.longest_silence();
        ensure!(silence > Duration::from_millis(400) && silence < Duration::from_millis(1500), "{silence:?}");
        let back = report.first_answer_after(healed).map(|moment| moment - healed);
        ensure!(back.is_some_and(|after| after < Duration::from_millis(200)), "{back:?}");

        let flow = Flow::start(hosts[0].netns(), hosts[1].address(), Duration::from_millis(10))?;
        deadline::pause(Duration::from_millis(300));
        let report = flow.finish()?;
        ensure!(report.lost() == 0 && report.sent() > 15, "{} of {} lost", report.lost(), report.sent());
        Ok(())
    })
}

#[test]
fn a_trail_tells_what_was_lost_and_for_how_long() -> Result<()> {
    scenario(|fabric| {
        let (one, two) = cabled(fabric)?;
        let beat = Duration::from_millis(10);
        let pulse = Pulse::start(one.netns(), two.address(), beat)?;
        let stream = Stream::start(&one, &two, beat)?;
        deadline::pause(Duration::from_millis(300));
        let quiet = deadline::now();
        two.netns().ip("link set dev eth0 down")?;
        deadline::pause(Duration::from_millis(500));
        two.netns().ip("link set dev eth0 up")?;
        traffic::wait_reaches(one.netns(), two.address(), Duration::from_secs(3))?;
        let back = deadline::now();
        deadline::pause(Duration::from_millis(300));
        for trail in [pulse.finish()?, stream.finish()?] {
            let (before, after) =
                (trail.between(quiet - Duration::from_secs(1), quiet), trail.between(back, deadline::now()));
            ensure!(before.sent() > 20 && before.lost() <= 1 && before.doubled() == 0, "before: {before}");
            let away = trail.between(quiet, back);
            ensure!(away.lost() > 30 && away.longest_gap() > Duration::from_millis(400), "away: {away}");
            ensure!(after.lost() == 0 && after.first_arrival().is_some(), "after: {after}");
            ensure!(
                trail.lost() >= away.lost() && trail.longest_gap() > Duration::from_millis(400),
                "{trail}"
            );
        }
        Ok(())
    })
}

#[test]
fn a_torrent_brings_every_byte_and_tells_how_long_none_came() -> Result<()> {
    scenario(|fabric| {
        let (one, two) = cabled(fabric)?;
        let begin = deadline::now();
        let torrent = Torrent::start(&one, &two, Duration::from_millis(10))?;
        deadline::pause(Duration::from_millis(200));
        two.netns().ip("link set dev eth0 down")?;
        deadline::pause(Duration::from_millis(300));
        two.netns().ip("link set dev eth0 up")?;
        deadline::pause(Duration::from_millis(1000));
        let carried = torrent.finish()?;
        let gap = carried.longest_gap(begin, deadline::now());
        ensure!(
            carried.bytes > 300_000 && gap > Duration::from_millis(250),
            "{} bytes, {gap:?}",
            carried.bytes
        );
        Ok(())
    })
}

#[test]
fn a_frame_made_by_hand_is_sent_as_it_is_and_counted() -> Result<()> {
    scenario(|fabric| {
        let (one, two) = cabled(fabric)?;
        let sniffer = Sniffer::start(two.netns(), b"")?;
        let frame = frames::frame([0x0a, 0, 0, 0, 0, 9], [0x0a, 0, 0, 0, 0, 1], b"for nobody");
        frames::send_frame(one.netns(), "eth0", &frame)?;
        frames::send_frame(one.netns(), "eth0", &frame)?;
        deadline::pause(Duration::from_millis(200));
        let seen = sniffer.finish()?;
        ensure!(seen.handmade.get(&b"for nobody"[..]) == Some(&2), "{:?}", seen.handmade);
        Ok(())
    })
}

#[test]
fn a_look_at_the_kernel_finds_links_and_entries_and_the_network_of_a_tunnel() -> Result<()> {
    scenario(|fabric| {
        let host = fabric.host("host1")?;
        let inside = host.netns();
        inside.ip("link add name vx type vxlan id 77 dstport 4000")?;
        inside.ip("link set dev vx up")?;
        let before = Kernel::look(inside)?;
        ensure!(kernel::vni(inside, "vx")? == 77 && before.links.contains_key("vx"), "{before:?}");
        kernel::bridge(inside, "fdb append 00:00:00:00:00:00 dev vx dst 10.99.0.9")?;
        let after = Kernel::look(inside)?;
        ensure!(after != before && after.links == before.links, "{after:?}");
        ensure!(after.written.iter().any(|entry| entry.contains("10.99.0.9")), "{after:?}");
        inside.ip("link del dev vx")?;
        inside.ip("link add name vx type vxlan id 77 dstport 4000")?;
        ensure!(Kernel::look(inside)?.links != before.links, "made anew, and not seen");
        Ok(())
    })
}

#[test]
fn a_file_arrives_as_it_was_sent_and_a_large_ping_is_answered() -> Result<()> {
    scenario(|fabric| {
        let (one, two) = cabled(fabric)?;
        let file = pattern(3_000_001);
        ensure!(carry(&one, &two, &file)? == file);
        ensure!(ping(one.netns(), two.address(), 2, 10_000)?.received == 2);
        Ok(())
    })
}

#[test]
fn a_process_can_be_stopped_continued_measured_and_killed() -> Result<()> {
    scenario(|fabric| {
        let host = fabric.host("host1")?;
        let mut sleep = Command::new("sleep");
        sleep.arg("60");
        let mut process = Process::start(host.netns(), sleep, &fabric.home().join("sleep.log"))?;
        let inside = std::fs::read_link(format!("/proc/{}/ns/net", process.pid()))?;
        let expected = host.netns().run(|| Ok(std::fs::read_link("/proc/thread-self/ns/net")?))?;
        ensure!(inside == expected, "it runs in {inside:?}, not {expected:?}");
        process.signal(Signal::SIGSTOP)?;
        let stat = format!("/proc/{}/stat", process.pid());
        let stopped = || Ok(std::fs::read_to_string(&stat)?.contains(") T "));
        deadline::until_true("it is stopped", Duration::from_secs(1), stopped)?;
        process.signal(Signal::SIGCONT)?;
        ensure!(process.resident_bytes()? > 0);
        ensure!(process.processor_time()? < Duration::from_secs(1));
        process.signal(Signal::SIGTERM)?;
        ensure!(process.wait(Duration::from_secs(2))? == 128 + 15);
        Ok(())
    })
}

#[test]
fn a_snapshot_changes_with_the_namespace_and_only_then() -> Result<()> {
    scenario(|fabric| {
        let host = fabric.host("host1")?;
        let before = host.netns().snapshot()?;
        ensure!(host.netns().snapshot()? == before);
        host.netns().ip("link add name extra type bridge")?;
        ensure!(host.netns().snapshot()? != before);
        Ok(())
    })
}

#[test]
fn namespaces_of_the_dead_are_swept_and_those_of_the_living_are_not() -> Result<()> {
    scenario(|fabric| {
        let mine = fabric.container("mine")?;
        // No process has pid 4194305: the kernel's largest is 4194304.
        let stale = std::path::Path::new("/run/netns/weftt4194305-0-stale");
        std::fs::File::create(stale)?;
        netns::sweep();
        ensure!(!stale.exists(), "the stale one is still there");
        ensure!(mine.netns().path().exists(), "a living one was swept");
        let path = mine.netns().path();
        drop(mine);
        ensure!(!path.exists(), "a dropped one is still there");
        Ok(())
    })
}
