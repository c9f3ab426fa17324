//! Faults at the data ports, on real routers: C5 and D1 of the catalogue (`docs/faults.md`).
//!
//! ```text
//!   c1 ── host1 ────┬──── host2 ── c2       traffic that must go on
//!                   │
//!               stranger                    floods, replays, flips bits
//! ```

use std::net::SocketAddrV4;
use std::time::Duration;

use anyhow::{Result, ensure};
use weft_tests::attack::{Datagram, Wiretap, flood, forge};
use weft_tests::counters::Counters;
use weft_tests::host::{attach_each, mesh, wait_all_on};
use weft_tests::sniff::Sniffer;
use weft_tests::traffic::{Pulse, Torrent, Trail, wait_reaches};
use weft_tests::{Container, Fabric, Host, deadline, scenario};

const SLEEVE: u16 = 6783;
const VXLAN: u16 = 6784;
const BEAT: Duration = Duration::from_millis(10);
/// Datagrams of junk.
const FLOOD: usize = 1_000_000;
/// The most memory they may cost.
const GROWTH: u64 = 4 << 20;
/// The longest TCP may stand still under a flood: beyond that it has not gone on.
const STANDSTILL: Duration = Duration::from_secs(5);
/// Real datagrams that are kept to be misused.
const OVERHEARD: usize = 400;

struct Stage {
    stranger: Host,
    hosts: Vec<Host>,
    containers: Vec<Container>,
}

/// Two hosts, a container each, and a stranger.
fn stage(fabric: &Fabric, secret: Option<&str>, carrier: &str) -> Result<Stage> {
    let stranger = fabric.host("stranger")?;
    let mut hosts = fabric.hosts(2)?;
    if let Some(secret) = secret {
        hosts.iter_mut().for_each(|host| host.set_secret(secret));
    }
    mesh(&mut hosts, &[])?;
    let containers = attach_each(fabric, &hosts)?;
    wait_all_on(&hosts, carrier)?;
    wait_reaches(containers[0].netns(), containers[1].address(), Duration::from_secs(5))?;
    Ok(Stage { stranger, hosts, containers })
}

/// A million datagrams of junk to each port of host1 while a stream runs.
#[expect(clippy::print_stdout, reason = "figures are read by people, with --nocapture")]
fn flooded(fabric: &Fabric, secret: Option<&str>, carrier: &str, ports: &[u16]) -> Result<()> {
    let stage = stage(fabric, secret, carrier)?;
    let Stage { stranger, hosts, containers } = &stage;
    // Once through, so that what is measured is what a flood costs, not what a first datagram does.
    for port in ports {
        flood(stranger.netns(), (hosts[0].address(), *port).into(), 5_000, 1)?;
    }
    deadline::pause(Duration::from_millis(500));
    let resident = hosts[0].running()?.resident_bytes()?;
    let before = Counters::of(&hosts[0])?;
    let torrent = Torrent::start(&containers[0], &containers[1], BEAT)?;
    let begin = deadline::now();
    for port in ports {
        flood(stranger.netns(), (hosts[0].address(), *port).into(), FLOOD, 2)?;
    }
    let took = begin.elapsed();
    deadline::pause(Duration::from_secs(1));
    let grown = hosts[0].running()?.resident_bytes()?.saturating_sub(resident);
    let counters = Counters::of(&hosts[0])?;
    let (arrived, refused) = (
        counters.sum("weft_data_datagrams") - before.sum("weft_data_datagrams"),
        counters.sum("weft_data_refusals") - before.sum("weft_data_refusals"),
    );
    let carried = torrent.finish()?;
    let gap = carried.longest_gap(begin, deadline::now());
    let reasons: Vec<_> =
        counters.since(&before).into_iter().filter(|(name, _)| name.contains("refusals")).collect();
    println!(
        "D1 {carrier}: {FLOOD} datagrams each to {ports:?} in {took:.1?}, {arrived} read, {refused} refused, \
         {grown} bytes more, TCP carried {} bytes, longest gap {gap:.0?}; {reasons:?}",
        carried.bytes
    );
    if ports.contains(&SLEEVE) {
        ensure!(
            refused > FLOOD as f64 / 20.0,
            "{refused} refused: the flood did not arrive, or is not counted"
        );
        ensure!(refused <= arrived, "{refused} refused of {arrived}");
    }
    ensure!(grown < GROWTH, "{grown} bytes more");
    ensure!(gap < STANDSTILL, "TCP stood still for {gap:?}");
    wait_reaches(containers[1].netns(), containers[0].address(), Duration::from_secs(5)).map(drop)
}

#[test]
fn d1_a_million_random_datagrams_at_the_sleeve_port_are_counted_and_cost_nothing() -> Result<()> {
    scenario(|fabric| flooded(fabric, Some("a secret of some length"), "sleeve", &[SLEEVE]))
}

#[test]
fn d1_a_million_random_datagrams_at_both_ports_of_a_mesh_on_fastpath_cost_nothing() -> Result<()> {
    scenario(|fabric| flooded(fabric, None, "fastpath", &[VXLAN, SLEEVE]))
}

/// Real datagrams made into what they must not be.
fn misuses(real: &[Datagram], stranger: &Host, hosts: &[Host]) -> Vec<(&'static str, Vec<Datagram>)> {
    let each = |change: &dyn Fn(usize, &Datagram) -> Datagram| -> Vec<Datagram> {
        real.iter().enumerate().map(|(number, one)| change(number, one)).collect()
    };
    let elsewhere = SocketAddrV4::new(stranger.address(), SLEEVE);
    let other = |to: &SocketAddrV4| {
        let host = hosts.iter().find(|host| host.address() != *to.ip());
        SocketAddrV4::new(host.map_or(*to.ip(), Host::address), to.port())
    };
    vec![
        ("replayed", real.to_vec()),
        ("replayed with another source", each(&|_, one| Datagram { from: elsewhere, ..one.clone() })),
        ("sent back", each(&|_, one| Datagram { from: one.to, to: other(&one.to), ..one.clone() })),
        (
            "with a bit flipped",
            each(&|number, one| {
                let mut payload = one.payload.clone();
                let bit = number * 7919 % (payload.len() * 8).max(1);
                payload[bit / 8] ^= 1 << (bit % 8);
                Datagram { payload, ..one.clone() }
            }),
        ),
        (
            "cut",
            each(&|number, one| {
                let payload = one.payload[..number * 104_729 % one.payload.len()].to_vec();
                Datagram { payload, ..one.clone() }
            }),
        ),
        (
            "with a later counter",
            each(&|_, one| {
                let mut payload = one.payload.clone();
                if let Some(counter) = payload.get_mut(5..13) {
                    counter.copy_from_slice(&u64::MAX.to_be_bytes());
                }
                Datagram { payload, ..one.clone() }
            }),
        ),
    ]
}

#[test]
fn d1_real_datagrams_replayed_flipped_cut_or_sent_back_reach_no_container_and_are_counted() -> Result<()> {
    scenario(|fabric| {
        let stage = stage(fabric, Some("a secret of some length"), "sleeve")?;
        let Stage { stranger, hosts, containers } = &stage;
        let wiretap = Wiretap::start(fabric.netns(), SLEEVE, OVERHEARD)?;
        let traffic = Pulse::start(containers[0].netns(), containers[1].address(), BEAT)?;
        deadline::pause(Duration::from_secs(3));
        let real = wiretap.finish()?;
        ensure!(real.len() > 100, "only {} datagrams overheard", real.len());

        let resident = hosts[0].running()?.resident_bytes()?;
        let attacked = deadline::now();
        for (what, misused) in misuses(&real, stranger, hosts) {
            let before = hosts.iter().map(Counters::of).collect::<Result<Vec<_>>>()?;
            forge(stranger.netns(), &misused)?;
            let sum = |name: &str| -> Result<f64> {
                hosts.iter().zip(&before).try_fold(0.0, |sum, (host, before)| {
                    Ok(sum + Counters::of(host)?.sum(name) - before.sum(name))
                })
            };
            let counted = deadline::until(what, Duration::from_secs(5), || {
                let refused = sum("weft_data_refusals")?;
                ensure!(refused >= misused.len() as f64, "{refused} of {} refused", misused.len());
                Ok(Some(refused))
            });
            println!("D1: {} datagrams {what}: {counted:?}", misused.len());
            counted?;
            deadline::pause(Duration::from_millis(200));
        }
        let trail = traffic.finish()?;
        let during: Trail = trail.between(attacked, deadline::now());
        println!("D1: under attack: {during}");
        ensure!(during.sent() > 50, "hardly any traffic: {during}");
        ensure!(during.lost() == 0 && during.doubled() == 0, "under attack: {during}");
        let grown = hosts[0].running()?.resident_bytes()?.saturating_sub(resident);
        ensure!(grown < GROWTH, "{grown} bytes more");
        quiet_containers_stay_quiet(&stage, &real)
    })
}

/// With no traffic of their own, containers hear nothing of what is replayed.
fn quiet_containers_stay_quiet(stage: &Stage, real: &[Datagram]) -> Result<()> {
    let Stage { stranger, containers, .. } = stage;
    // Pings in flight and neighbour look-ups have come to rest.
    deadline::pause(Duration::from_secs(1));
    let listeners: Vec<Sniffer> =
        containers.iter().map(|it| Sniffer::start(it.netns(), b"")).collect::<Result<_>>()?;
    forge(stranger.netns(), real)?;
    deadline::pause(Duration::from_millis(500));
    for (container, listener) in containers.iter().zip(listeners) {
        let frames = listener.finish()?.frames;
        // A neighbour that is looked up again is two frames.
        ensure!(frames < 10, "{} heard {frames} frames of {} replayed", container.name(), real.len());
    }
    Ok(())
}
