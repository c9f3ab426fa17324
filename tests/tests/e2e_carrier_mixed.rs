//! Fastpath, sleeve and relays in one mesh: every flooded frame arrives everywhere once, and containers move between.
//!
//! ```text
//!        ca, da
//!          │
//!          a                   a─b: fastpath
//!        ╱   ╲                 a─c: sleeve, or fastpath
//!   cb─ b ╌╳╌ c ─cc            b─c: no link at all, so their frames are relayed by a
//! ```

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use weft_tests::frames::{self, BROADCAST};
use weft_tests::host::CARRIER_LIMIT;
use weft_tests::sniff::Sniffer;
use weft_tests::traffic::{Pulse, wait_reaches};
use weft_tests::{Container, Fabric, Host, deadline, scenario};

const VXLAN: u16 = 6784;
/// How soon a container must be reached where it has moved.
const MOVED: Duration = Duration::from_secs(1);

struct Mesh {
    a: Host,
    b: Host,
    c: Host,
    /// Of a (two), b and c.
    containers: Vec<Container>,
}

/// What keeps a and c from fastpath.
#[derive(Clone, Copy)]
enum Third {
    /// Nothing.
    Fast,
    /// VXLAN is blocked between them.
    Blocked,
    /// c does not want it.
    Unwilling,
}

fn mesh(fabric: &Fabric, third: Third) -> Result<Mesh> {
    let (mut a, mut b, mut c) = (fabric.host("a")?, fabric.host("b")?, fabric.host("c")?);
    fabric.cut(&b, &c)?;
    if let Third::Blocked = third {
        fabric.block_udp_way(&a, &c, VXLAN)?;
        fabric.block_udp_way(&c, &a, VXLAN)?;
    }
    let peer = a.address().to_string();
    a.launch(&["--no-discovery"])?;
    b.launch(&["--no-discovery", &peer])?;
    match third {
        Third::Fast | Third::Blocked => c.launch(&["--no-discovery", &peer])?,
        Third::Unwilling => c.launch(&["--no-discovery", "--no-fastpath", &peer])?,
    }
    for host in [&mut a, &mut b, &mut c] {
        host.wait_ready()?;
    }
    a.wait_reaches(&["b", "c"], CARRIER_LIMIT)?;
    b.wait_reaches(&["a", "c"], CARRIER_LIMIT)?;
    c.wait_reaches(&["a", "b"], CARRIER_LIMIT)?;
    let carrier = if let Third::Fast = third { "fastpath" } else { "sleeve" };
    for (host, peer, carrier) in
        [(&a, &b, "fastpath"), (&b, &a, "fastpath"), (&a, &c, carrier), (&c, &a, carrier)]
    {
        host.wait_carrier(peer, carrier, CARRIER_LIMIT)?;
    }
    let mut containers = Vec::new();
    for (host, name) in [(&a, "ca"), (&a, "da"), (&b, "cb"), (&c, "cc")] {
        let mut container = fabric.container(name)?;
        host.attach(&mut container)?;
        containers.push(container);
    }
    for from in &containers {
        for to in containers.iter().filter(|to| to.address() != from.address()) {
            wait_reaches(from.netns(), to.address(), Duration::from_secs(5))
                .with_context(|| format!("{} → {}", from.name(), to.name()))?;
        }
    }
    Ok(Mesh { a, b, c, containers })
}

/// Broadcast, multicast, and a unicast address that nobody has.
const KINDS: [(&str, [u8; 6]); 3] = [
    ("broadcast", BROADCAST),
    ("multicast", [0x01, 0x00, 0x5e, 0x01, 0x02, 0x03]),
    ("unknown unicast", [0x0a, 0x58, 0xde, 0xad, 0xbe, 0xef]),
];

fn floods_once(third: Third) -> Result<()> {
    scenario(|fabric| {
        let mesh = mesh(fabric, third)?;
        let sniffers: Vec<Sniffer> = mesh
            .containers
            .iter()
            .map(|container| Sniffer::start(container.netns(), b""))
            .collect::<Result<_>>()?;
        let payload =
            |kind: &str, round: usize, from: &Container| format!("{kind} {round} of {}", from.name());
        for round in 0..5 {
            for from in &mesh.containers {
                let own = frames::mac(&own_mac(from)?)?;
                for (kind, to) in KINDS {
                    let frame = frames::frame(to, own, payload(kind, round, from).as_bytes());
                    frames::send_frame(from.netns(), "eth0", &frame)?;
                }
            }
            deadline::pause(Duration::from_millis(100));
        }
        deadline::pause(Duration::from_secs(1));
        let mut wrong = BTreeMap::new();
        for (sniffer, at) in sniffers.into_iter().zip(&mesh.containers) {
            let seen = sniffer.finish()?;
            for from in mesh.containers.iter().filter(|from| from.name() != at.name()) {
                for (kind, _) in KINDS {
                    for round in 0..5 {
                        let payload = payload(kind, round, from);
                        let copies = seen.handmade.get(payload.as_bytes()).copied().unwrap_or(0);
                        if copies != 1 {
                            wrong.insert(format!("{payload} at {}", at.name()), copies);
                        }
                    }
                }
            }
        }
        ensure!(wrong.is_empty(), "not exactly one copy: {wrong:#?}");
        Ok(())
    })
}

fn own_mac(container: &Container) -> Result<String> {
    let shown = container.netns().ip("-o link show dev eth0")?;
    let mut words = shown.split_whitespace().skip_while(|word| *word != "link/ether");
    words.nth(1).map(str::to_owned).with_context(|| format!("no address: {shown}"))
}

#[test]
fn a_flooded_frame_arrives_everywhere_once_where_a_link_is_on_sleeve_because_vxlan_is_blocked() -> Result<()>
{
    floods_once(Third::Blocked)
}

#[test]
fn a_flooded_frame_arrives_everywhere_once_where_a_peer_does_without_fastpath() -> Result<()> {
    floods_once(Third::Unwilling)
}

#[test]
fn a_flooded_frame_arrives_everywhere_once_where_the_relay_is_on_fastpath_with_both_ends() -> Result<()> {
    floods_once(Third::Fast)
}

#[test]
fn a_container_that_moves_between_carriers_is_reached_within_a_second_from_everywhere() -> Result<()> {
    moves(Third::Blocked)
}

#[test]
fn a_container_that_moves_within_fastpath_and_beyond_a_relay_is_reached_within_a_second() -> Result<()> {
    moves(Third::Fast)
}

fn moves(third: Third) -> Result<()> {
    scenario(|fabric| {
        let mesh = mesh(fabric, third)?;
        let mut mover = fabric.container("mover")?;
        let address = mesh.b.attach(&mut mover)?;
        for from in &mesh.containers {
            wait_reaches(from.netns(), address, Duration::from_secs(5))?;
        }
        for (old, new) in [(&mesh.b, &mesh.c), (&mesh.c, &mesh.a), (&mesh.a, &mesh.b)] {
            let way = format!("from {} to {}", old.name(), new.name());
            let beat = Duration::from_millis(10);
            let pulses: Vec<Pulse> = mesh
                .containers
                .iter()
                .map(|container| Pulse::start(container.netns(), address, beat))
                .collect::<Result<_>>()?;
            deadline::pause(Duration::from_millis(300));
            old.expect(&["detach", mover.netns().name()])?;
            let moved = new.attach_with(&mut mover, &["--address", &format!("{address}/12")])?;
            ensure!(moved == address, "{way}: it got {moved}");
            let attached = deadline::now();
            deadline::pause(Duration::from_secs(2));
            for (pulse, from) in pulses.into_iter().zip(&mesh.containers) {
                let trail = pulse.finish()?.between(attached, deadline::now());
                let reached = trail.first_arrival();
                ensure!(
                    reached.is_some_and(|after| after < MOVED),
                    "moved {way}; reached from {} after {reached:?}: {trail}",
                    from.name()
                );
            }
        }
        Ok(())
    })
}
