//! Nothing gets into the containers' Ethernet that no peer has sent.
//!
//! ```text
//!   c1 ── host1 ────┬──── host2 ── c2       fastpath between host1 and host2
//!                   │
//!               stranger                    a host on the same wire, without a router
//! ```

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use weft_tests::frames::{self, BROADCAST};
use weft_tests::host::{attach_each, mesh, wait_all_on};
use weft_tests::kernel::{forwarding, nft, vni};
use weft_tests::sniff::Sniffer;
use weft_tests::traffic::{Echo, udp_round_trip, wait_reaches};
use weft_tests::{Container, Fabric, Host, Netns, deadline, scenario};

const VXLAN: u16 = 6784;
/// How long a frame may take that is to come, or that must not.
const SOON: Duration = Duration::from_millis(500);

/// Two hosts on fastpath with a container each.
fn stage(fabric: &Fabric) -> Result<(Vec<Host>, Vec<Container>)> {
    let mut hosts = fabric.hosts(2)?;
    mesh(&mut hosts, &[])?;
    let containers = attach_each(fabric, &hosts)?;
    wait_all_on(&hosts, "fastpath")?;
    wait_reaches(containers[0].netns(), containers[1].address(), Duration::from_secs(5))?;
    Ok((hosts, containers))
}

/// An attack: VXLAN packets from somewhere to hosts, with frames of a source address that nobody has.
struct Attack<'a> {
    from: &'a Netns,
    to: Vec<Ipv4Addr>,
    /// The last byte of the source address.
    last: u8,
}

/// What came of an attack.
struct Harm {
    /// Frames that containers saw.
    seen: u64,
    /// Forwarding entries that name the source.
    learned: Vec<String>,
}

impl Attack<'_> {
    fn source(&self) -> [u8; 6] {
        [0x02, 0x66, 0x66, 0x66, 0x66, self.last]
    }

    /// Carries it out: to everybody, to nobody and to each container, from VXLAN's own port and from another.
    fn run(&self, hosts: &[Host], containers: &[Container]) -> Result<Harm> {
        let network = vni(hosts[0].netns(), "weft-vx")?;
        let sniffers: Vec<Sniffer> =
            containers.iter().map(|it| Sniffer::start(it.netns(), b"")).collect::<Result<_>>()?;
        let mut targets = vec![BROADCAST, [0x0a, 0x58, 0xde, 0xad, 0xbe, 0xef]];
        for container in containers {
            let [a, b, c, d] = container.address().octets();
            targets.push([0x0a, 0x58, a, b, c, d]);
        }
        let payload = format!("of the intruder {}", self.last);
        for target in targets {
            let packet = frames::vxlan(network, &frames::frame(target, self.source(), payload.as_bytes()));
            for host in &self.to {
                for port in [VXLAN + 1000, 0] {
                    let source = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
                    frames::send_datagram(self.from, source, (*host, VXLAN).into(), &packet)?;
                }
            }
        }
        deadline::pause(SOON);
        let mut seen = 0;
        for sniffer in sniffers {
            seen += sniffer.finish()?.handmade.get(payload.as_bytes()).copied().unwrap_or(0);
        }
        let text = self.source().map(|byte| format!("{byte:02x}")).join(":");
        let mut learned = Vec::new();
        for host in hosts {
            let entries = forwarding(host.netns())?;
            learned.extend(entries.into_iter().filter(|entry| entry.starts_with(&text)));
        }
        Ok(Harm { seen, learned })
    }

    fn must_fail(&self, what: &str, hosts: &[Host], containers: &[Container]) -> Result<()> {
        let harm = self.run(hosts, containers)?;
        ensure!(harm.seen == 0, "{what}: {} frames reached containers", harm.seen);
        ensure!(harm.learned.is_empty(), "{what}: learned {:?}", harm.learned);
        Ok(())
    }
}

/// The addresses of hosts.
fn addresses(hosts: &[Host]) -> Vec<Ipv4Addr> {
    hosts.iter().map(Host::address).collect()
}

/// The very same packets from a peer on fastpath do arrive: so it is the filter that keeps the others out.
fn a_peer_is_let_in(hosts: &[Host], containers: &[Container]) -> Result<()> {
    let peer = Attack { from: hosts[1].netns(), to: vec![hosts[0].address()], last: 1 };
    let harm = peer.run(hosts, containers)?;
    ensure!(harm.seen > 0, "a peer's frames did not arrive: this test proves nothing");
    ensure!(!harm.learned.is_empty(), "a peer's frame was not learned from: this test proves nothing");
    Ok(())
}

#[test]
fn a_stranger_on_the_underlay_gets_no_frame_to_a_container_and_no_entry_into_a_table() -> Result<()> {
    scenario(|fabric| {
        let stranger = fabric.host("stranger")?;
        let (hosts, containers) = stage(fabric)?;
        let attack = Attack { from: stranger.netns(), to: addresses(&hosts), last: 2 };
        attack.must_fail("the stranger", &hosts, &containers)?;
        a_peer_is_let_in(&hosts, &containers)
    })
}

#[test]
fn a_container_gets_no_frame_in_through_the_masquerade_of_its_host() -> Result<()> {
    scenario(|fabric| {
        let (hosts, containers) = stage(fabric)?;
        // Every host is the way out of its containers, as hosts of containers are.
        for (host, container) in hosts.iter().zip(&containers) {
            let gateway = host.expect(&["expose"])?;
            let gateway = gateway.trim().split('/').next().context("no address")?.to_owned();
            host.netns().run(|| Ok(std::fs::write("/proc/sys/net/ipv4/ip_forward", "1")?))?;
            let rules = "table ip out {\nchain out {\ntype nat hook postrouting priority 100\n\
                         ip saddr 10.32.0.0/12 oifname \"eth0\" masquerade\n}\n}\n";
            nft(host.netns(), rules)?;
            container.netns().ip(&format!("route replace 10.99.0.0/24 via {gateway}"))?;
        }
        let _echo = Echo::start(hosts[0].netns())?;
        let inside = containers[1].netns();
        let through = || udp_round_trip(inside, hosts[0].address(), b"out and back");
        deadline::until_true("c2 reaches host1 through the masquerade", Duration::from_secs(5), through)?;

        let attack = Attack { from: inside, to: addresses(&hosts), last: 3 };
        attack.must_fail("a container of a peer's host", &hosts, &containers)?;
        let attack = Attack { from: containers[0].netns(), to: addresses(&hosts), last: 4 };
        attack.must_fail("a container of the same host", &hosts, &containers)?;
        a_peer_is_let_in(&hosts, &containers)
    })
}

#[test]
fn a_peer_that_is_served_by_sleeve_gets_no_frame_in_by_vxlan() -> Result<()> {
    scenario(|fabric| {
        let (mut hosts, containers) = stage(fabric)?;
        let mut third = fabric.host("host3")?;
        third.launch(&["--no-fastpath", &hosts[0].address().to_string()])?;
        hosts.push(third);
        weft_tests::host::settle(&mut hosts)?;
        hosts[0].wait_carrier(&hosts[2], "sleeve", Duration::from_secs(15))?;
        let attack = Attack { from: hosts[2].netns(), to: addresses(&hosts[..2]), last: 5 };
        attack.must_fail("a peer on sleeve", &hosts[..2], &containers)?;
        a_peer_is_let_in(&hosts, &containers)
    })
}
