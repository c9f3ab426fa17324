//! Faults at the mesh port, on real routers: C1 to C4 of the catalogue (`docs/faults.md`).
//!
//! ```text
//!   c1 ── host1 ────┬──── host2 ── c2       traffic that must not notice
//!                   │
//!       host3  stranger                     who does not belong here
//! ```

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use weft_tests::attack::{Crowd, Noise, Relay, speak};
use weft_tests::counters::Counters;
use weft_tests::host::{attach_each, connection, mesh, reachable, wait_all_on};
use weft_tests::traffic::{Pulse, wait_reaches};
use weft_tests::{Container, Fabric, Host, deadline, scenario};

const MESH: u16 = 6783;
const SECRET: &str = "the right secret";
const BEAT: Duration = Duration::from_millis(10);
/// Half-open connections of the crowd.
const CROWD: usize = 1_500;
/// The most memory that whatever a stranger does may cost.
const GROWTH: u64 = 4 << 20;

/// Two hosts that know the secret, on sleeve, with a container each.
fn stage(fabric: &Fabric) -> Result<(Vec<Host>, Vec<Container>)> {
    let mut hosts = fabric.hosts(2)?;
    hosts.iter_mut().for_each(|host| host.set_secret(SECRET));
    mesh(&mut hosts, &[])?;
    let containers = attach_each(fabric, &hosts)?;
    wait_all_on(&hosts, "sleeve")?;
    wait_reaches(containers[0].netns(), containers[1].address(), Duration::from_secs(5))?;
    Ok((hosts, containers))
}

fn mesh_port(host: &Host) -> SocketAddr {
    (host.address(), MESH).into()
}

/// Descriptors a router holds.
fn descriptors(host: &Host) -> Result<usize> {
    Ok(std::fs::read_dir(format!("/proc/{}/fd", host.running()?.pid()))?.count())
}

/// Waits until a router holds no more descriptors than it did.
fn wait_descriptors(host: &Host, before: usize) -> Result<()> {
    deadline::until("what strangers opened is closed", Duration::from_secs(10), || {
        let now = descriptors(host)?;
        ensure!(now <= before, "{now} descriptors, {before} before");
        Ok(Some(()))
    })
    .map(drop)
}

/// Lines of a router's log that say somebody at this address was refused.
fn refusals_logged(host: &Host, of: Ipv4Addr) -> Result<usize> {
    let source = format!("{of}:");
    let log = host.log()?;
    Ok(log.lines().filter(|line| line.contains("connection refused") && line.contains(&source)).count())
}

#[test]
fn c1_a_wrong_secret_is_refused_within_a_second_logged_once_a_minute_and_felt_by_nobody() -> Result<()> {
    const ATTEMPTS: f64 = 8.0;
    scenario(|fabric| {
        let mut wrong = fabric.host("wrong")?;
        wrong.set_secret("a wrong secret");
        wrong.launch(&["--no-discovery"])?;
        let (hosts, containers) = stage(fabric)?;
        wrong.wait_status("it answers", Duration::from_secs(15), |_| true)?;
        let traffic = Pulse::start(containers[0].netns(), containers[1].address(), BEAT)?;

        let dialled = deadline::now();
        wrong.peer_add(&hosts[0])?;
        wrong.wait_status("refused", Duration::from_secs(5), |status| {
            let all = status["connections"].as_array().cloned().unwrap_or_default();
            all.iter().any(|one| one["state"] != "established" && one["error"].is_string())
        })?;
        let took = dialled.elapsed();
        // It dials again and again, by itself and because it is told to.
        let refused = || anyhow::Ok(Counters::of(&hosts[0])?.sum("weft_mesh_secret_mismatches"));
        let target = hosts[0].address().to_string();
        deadline::until_true("it was refused again and again", Duration::from_secs(30), || {
            wrong.expect(&["peer", "forget", &target])?;
            wrong.expect(&["peer", "add", &target])?;
            deadline::pause(Duration::from_millis(500));
            Ok(refused()? >= ATTEMPTS)
        })?;
        let traffic = traffic.finish()?;
        let logged = refusals_logged(&hosts[0], wrong.address())?;
        println!("C1: refused after {took:.0?}, {} times, logged {logged} times; {traffic}", refused()?);

        ensure!(took < Duration::from_secs(1), "refused only after {took:?}");
        ensure!(logged == 1, "{logged} lines of log for one source in one minute");
        ensure!(traffic.lost() == 0 && traffic.doubled() == 0, "between the others: {traffic}");
        ensure!(reachable(&hosts[0].status()?) == ["host2"] && reachable(&wrong.status()?).is_empty());
        Ok(())
    })
}

#[test]
fn c2_fifteen_hundred_half_open_connections_keep_no_peer_from_joining_within_two_seconds() -> Result<()> {
    scenario(|fabric| {
        let stranger = fabric.host("stranger")?;
        let mut hosts = fabric.hosts(2)?;
        for host in &mut hosts {
            host.launch(&["--no-discovery", "--init", "consensus=2"])?;
            host.wait_status("it answers", Duration::from_secs(15), |_| true)?;
        }
        let (resident, held) = (hosts[0].running()?.resident_bytes()?, descriptors(&hosts[0])?);
        let crowd = Crowd::start(stranger.netns(), mesh_port(&hosts[0]), CROWD)?;
        deadline::pause(Duration::from_secs(3));
        let during = descriptors(&hosts[0])?;

        let begin = deadline::now();
        hosts[1].peer_add(&hosts[0])?;
        hosts[1].wait_reaches(&["host1"], Duration::from_secs(10))?;
        let took = begin.elapsed();
        // Past the deadline of a handshake: the first of the crowd have been sent away.
        deadline::pause(Duration::from_secs(3));
        let grown = hosts[0].running()?.resident_bytes()?.saturating_sub(resident);
        let refused = Counters::of(&hosts[0])?.sum("weft_mesh_half_open_refused");
        let toll = crowd.finish()?;
        println!(
            "C2: joined after {took:.0?}; {toll:?}; {during} descriptors, {grown} bytes more; {refused} refused"
        );

        ensure!(toll.opened >= CROWD as u64, "the crowd never stood at the door: {toll:?}");
        ensure!(refused > 0.0, "nobody was refused");
        ensure!(during < held + 64, "{during} descriptors, {held} before");
        ensure!(took < Duration::from_secs(2), "joined only after {took:?}");
        ensure!(grown < GROWTH, "{grown} bytes more");
        wait_descriptors(&hosts[0], held + 4)
    })
}

/// What port scanners and lost clients say.
fn nonsense() -> Vec<(&'static str, Vec<u8>)> {
    let mut client_hello = vec![0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3];
    client_hello.resize(517, 0x5a);
    vec![
        ("nothing", Vec::new()),
        ("HTTP", b"GET / HTTP/1.1\r\nHost: weft\r\n\r\n".to_vec()),
        ("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec()),
        ("a TLS ClientHello", client_hello),
        ("SSH", b"SSH-2.0-OpenSSH_9.2p1\r\n".to_vec()),
        ("the largest length there is", vec![0xff; 64]),
        ("zeros", vec![0; 4096]),
    ]
}

#[test]
fn c3_scans_http_tls_and_junk_at_the_mesh_port_cost_nothing_and_leave_nothing() -> Result<()> {
    scenario(|fabric| {
        let stranger = fabric.host("stranger")?;
        let (hosts, containers) = stage(fabric)?;
        let port = mesh_port(&hosts[0]);
        let from = stranger.netns();
        // What allocators keep after the first is not what each costs.
        speak(from, port, b"GET / HTTP/1.1\r\n\r\n", usize::MAX)?;
        let (resident, held) = (hosts[0].running()?.resident_bytes()?, descriptors(&hosts[0])?);
        let before = Counters::of(&hosts[0])?;
        let traffic = Pulse::start(containers[0].netns(), containers[1].address(), BEAT)?;
        let (mut said, mut slowest) = (0_u32, Duration::ZERO);
        for (what, words) in nonsense() {
            for piece in [usize::MAX, 1] {
                let (heard, took) = speak(from, port, &words, piece).context(what)?;
                ensure!(heard.len() < 256, "{what} was answered with {} bytes", heard.len());
                (said, slowest) = (said + 1, slowest.max(took));
            }
        }
        let mut noise = Noise::new(3);
        for _ in 0..300 {
            let words = noise.bytes(2_000).to_vec();
            let (_, took) = speak(from, port, &words, 1 + noise.below(2_000))?;
            (said, slowest) = (said + 1, slowest.max(took));
        }
        let traffic = traffic.finish()?;
        let grown = hosts[0].running()?.resident_bytes()?.saturating_sub(resident);
        let counted = Counters::of(&hosts[0])?.since(&before);
        let logged = refusals_logged(&hosts[0], stranger.address())?;
        println!(
            "C3: {said} connections, the slowest ended after {slowest:.0?}, {grown} bytes more, logged {logged} times; {traffic}; {counted:?}"
        );

        ensure!(counted.keys().any(|name| name.contains("handshakes_failed")), "not counted: {counted:?}");
        ensure!(grown < GROWTH, "{grown} bytes more");
        ensure!(logged <= 1, "{logged} lines of log for one source in one minute");
        ensure!(traffic.lost() == 0 && traffic.doubled() == 0, "between the others: {traffic}");
        wait_descriptors(&hosts[0], held)
    })
}

#[test]
fn c4_a_handshake_replayed_reflected_cut_or_flipped_makes_no_session() -> Result<()> {
    scenario(|fabric| {
        let stranger = fabric.host("stranger")?;
        let mut hosts = fabric.hosts(2)?;
        for host in &mut hosts {
            host.set_secret(SECRET);
            host.launch(&["--no-discovery", "--init", "consensus=2"])?;
            host.wait_status("it answers", Duration::from_secs(15), |_| true)?;
        }
        let port = mesh_port(&hosts[0]);
        let relay = Relay::start(stranger.netns(), MESH, port)?;
        hosts[1].expect(&["peer", "add", &stranger.address().to_string()])?;
        hosts[1].wait_reaches(&["host1"], Duration::from_secs(5))?;
        let said = relay.said();
        let said = said.iter().find(|said| said.asked.len() > 200).context("nothing was overheard")?.clone();
        drop(relay);
        hosts[0].wait_reaches(&[], Duration::from_secs(10))?;

        let before = Counters::of(&hosts[0])?;
        let from = stranger.netns();
        let mut attacks: Vec<Vec<u8>> = vec![said.asked.clone(), said.answered.clone()];
        let handshake = said.asked.len().min(400);
        attacks.extend((0..handshake).step_by(3).map(|cut| said.asked[..cut].to_vec()));
        for bit in (0..handshake * 8).step_by(29) {
            let mut flipped = said.asked.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            attacks.push(flipped);
        }
        for words in &attacks {
            speak(from, port, words, usize::MAX)?;
            // What it answers is said back to it.
            let (answer, _) = speak(from, port, &words[..words.len().min(40)], usize::MAX)?;
            speak(from, port, &answer, usize::MAX)?;
        }
        let counted = Counters::of(&hosts[0])?.since(&before);
        println!("C4: {} attacks; {counted:?}", attacks.len());

        ensure!(!counted.contains_key("weft_mesh_sessions_total"), "a session came of it: {counted:?}");
        let failed: f64 = counted.iter().filter(|(name, _)| name.contains("mesh_")).map(|(_, by)| by).sum();
        ensure!(failed >= attacks.len() as f64 / 2.0, "hardly any was counted: {counted:?}");
        let status = hosts[0].status()?;
        ensure!(reachable(&status).is_empty() && connection(&status, "host2").is_none(), "{status:#}");
        // The one who was overheard is still welcome.
        hosts[1].peer_add(&hosts[0])?;
        hosts[1].wait_reaches(&["host1"], Duration::from_secs(5))?;
        Ok(())
    })
}
