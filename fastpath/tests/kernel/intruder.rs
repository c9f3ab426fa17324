//! What the source filter keeps out and what it lets through, with real packets.
//!
//! ```text
//!  peer  p0 192.0.2.2/24 ------ u0 192.0.2.1/24 \
//!           2001:db8:1::2/64       2001:db8:1::1 \
//!                                                 host: weft 10.32.0.254 -- c1 10.32.0.1
//!  stranger s0 198.51.100.2/24 - v0 198.51.100.1 /                      \-- c2 10.32.0.2
//!           2001:db8:2::2/64       2001:db8:2::1
//!
//!  the host forwards, and masquerades what its containers send elsewhere
//! ```

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::Duration;

use weft_fastpath::filter::Dropped;
use weft_fastpath::{DefaultRoute, Filter};

use crate::filter::{converge, filter, ip, run};
use crate::world::{Namespace, attach, fastpath, link, wish_with};

/// How long a packet may take that is to come.
const SOON: Duration = Duration::from_secs(2);
/// How long we wait for one that is not to come; packets in these tests take microseconds.
const NEVER: Duration = Duration::from_millis(200);

/// The addresses of the drawing.
const HOST: [&str; 2] = ["192.0.2.1", "2001:db8:1::1"];
const PEER: [&str; 2] = ["192.0.2.2", "2001:db8:1::2"];
const HOST_TO_STRANGER: [&str; 2] = ["198.51.100.1", "2001:db8:2::1"];
const BRIDGE: &str = "10.32.0.254";

struct World {
    host: Namespace,
    peer: Namespace,
    stranger: Namespace,
    one: Namespace,
    two: Namespace,
}

impl World {
    fn new(filter: &Filter) -> Self {
        let mut desired = wish_with(&["c1", "c2"]);
        desired.addresses.insert(format!("{BRIDGE}/12").parse().unwrap());
        let host = crate::world::host(&desired);
        let world = Self {
            host,
            peer: Namespace::new(),
            stranger: Namespace::new(),
            one: Namespace::new(),
            two: Namespace::new(),
        };
        for (id, last, container) in [("c1", 1, &world.one), ("c2", 2, &world.two)] {
            let mut link = link(id, last);
            link.gateway = DefaultRoute::Via(BRIDGE.parse().unwrap());
            attach(&world.host, container, &link).unwrap();
        }
        world.join(&world.peer, "u0", "p0", "192.0.2", "2001:db8:1:");
        world.join(&world.stranger, "v0", "s0", "198.51.100", "2001:db8:2:");
        world.host.run(|| {
            std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
            run("nft", "add table ip nat");
            run("nft", "add chain ip nat out { type nat hook postrouting priority 100 ; }");
            run("nft", "add rule ip nat out ip saddr 10.32.0.0/12 oifname != weft masquerade");
        });
        world.set(filter);
        world
    }

    /// A cable between the host and another.
    fn join(&self, other: &Namespace, here: &str, there: &str, four: &str, six: &str) {
        let namespace = format!("/proc/{}/fd/{}", std::process::id(), other.descriptor().as_raw_fd());
        self.host.run(|| {
            run("ip", &format!("link add {here} type veth peer name {there} netns {namespace}"));
            ends(here, &format!("{four}.1/24"), &format!("{six}:1/64"));
        });
        other.run(|| {
            ends(there, &format!("{four}.2/24"), &format!("{six}:2/64"));
            run("ip", &format!("route add default via {four}.1"));
        });
    }

    /// Makes this the filter; drops are counted from here on.
    fn set(&self, filter: &Filter) {
        self.host.block_on(|| async {
            fastpath().teardown_filter().unwrap();
            converge(Some(filter));
        });
    }

    /// Sends bridged frames through the hooks of IP, as Docker and Kubernetes have it; false where the kernel
    /// has no `br_netfilter`.
    fn bridged_frames_pass_iptables(&self) -> bool {
        self.host.run(|| std::fs::write("/proc/sys/net/bridge/bridge-nf-call-iptables", "1").is_ok())
    }

    fn dropped(&self) -> Dropped {
        self.host.block_on(|| async { fastpath().observe_filter().unwrap().dropped })
    }
}

fn ends(name: &str, four: &str, six: &str) {
    run("ip", &format!("link set {name} up"));
    run("ip", "link set lo up");
    run("ip", &format!("address add {four} dev {name}"));
    run("ip", &format!("address add {six} dev {name} nodad"));
}

/// The filter of the drawing: one peer with two addresses.
fn wanted() -> Filter {
    let mut filter = filter();
    filter.sources = PEER.map(ip).into();
    filter
}

/// Opens a socket; its port may be held a moment longer by a program that another test is starting.
#[expect(clippy::disallowed_methods, reason = "another process is waited for")]
fn opened<S>(open: impl Fn() -> std::io::Result<S>) -> S {
    for _ in 0..200 {
        match open() {
            Err(error) if error.kind() == ErrorKind::AddrInUse => {
                std::thread::sleep(Duration::from_millis(10));
            }
            opened => return opened.unwrap(),
        }
    }
    panic!("the port is never free");
}

/// Whether a datagram gets from one place to an address and port where somebody listens.
fn arrives(from: &Namespace, to: (&Namespace, &str), port: u16) -> bool {
    let target = SocketAddr::new(ip(to.1), port);
    let any: IpAddr = if target.is_ipv4() { ip("0.0.0.0") } else { ip("::") };
    let receiver = to.0.run(|| opened(|| UdpSocket::bind((any, port))));
    let words = format!("to {target}");
    from.run(|| UdpSocket::bind((any, 0)).unwrap().send_to(words.as_bytes(), target).unwrap());
    receiver.set_read_timeout(Some(NEVER)).unwrap();
    let mut buffer = [0; 100];
    match receiver.recv_from(&mut buffer) {
        Ok((length, _)) => {
            assert_eq!(&buffer[..length], words.as_bytes());
            true
        }
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => false,
        Err(error) => panic!("{error}"),
    }
}

/// Whether a TCP connection comes about.
fn connects(from: &Namespace, to: (&Namespace, &str), port: u16, patience: Duration) -> bool {
    let target = SocketAddr::new(ip(to.1), port);
    let _listener = to.0.run(|| opened(|| TcpListener::bind(("0.0.0.0", port))));
    from.run(|| TcpStream::connect_timeout(&target, patience)).is_ok()
}

#[test]
fn vxlan_is_taken_from_peers_and_from_nobody_else() {
    let world = World::new(&wanted());
    for (to_peer, to_stranger) in HOST.into_iter().zip(HOST_TO_STRANGER) {
        assert!(arrives(&world.peer, (&world.host, to_peer), 6784), "{to_peer}");
        assert!(!arrives(&world.stranger, (&world.host, to_stranger), 6784), "{to_stranger}");
        assert!(
            arrives(&world.stranger, (&world.host, to_stranger), 6783),
            "only VXLAN is asked for its source"
        );
    }
    let dropped = world.dropped();
    assert_eq!((dropped.vxlan.packets, dropped.mesh.packets), (2, 0));

    let mut closed = wanted();
    closed.sources.clear();
    world.host.block_on(|| async { converge(Some(&closed)) });
    assert!(!arrives(&world.peer, (&world.host, HOST[0]), 6784), "a peer that left fastpath");
    world.host.block_on(|| async { converge(Some(&wanted())) });
    assert!(arrives(&world.peer, (&world.host, HOST[0]), 6784), "and came back");
}

#[test]
fn with_a_destination_vxlan_is_taken_there_only() {
    let mut filter = wanted();
    filter.destination = Some(ip(HOST[0]));
    let world = World::new(&filter);
    assert!(arrives(&world.peer, (&world.host, HOST[0]), 6784));
    assert!(!arrives(&world.peer, (&world.host, HOST[1]), 6784), "the other family");
    assert!(!arrives(&world.peer, (&world.host, HOST_TO_STRANGER[0]), 6784), "another address of the host");
    filter.destination = Some(ip(HOST[1]));
    world.set(&filter);
    assert!(arrives(&world.peer, (&world.host, HOST[1]), 6784));
    assert!(!arrives(&world.peer, (&world.host, HOST[0]), 6784), "the other family");
    assert_eq!(world.dropped().vxlan.packets, 1);
}

#[test]
fn fragments_do_not_get_past() {
    let world = World::new(&wanted());
    for (from, to, passes) in [
        (&world.stranger, HOST_TO_STRANGER[0], false),
        (&world.peer, HOST[0], true),
        (&world.one, BRIDGE, false),
    ] {
        let receiver = world.host.run(|| UdpSocket::bind("0.0.0.0:6784").unwrap());
        from.run(|| UdpSocket::bind("0.0.0.0:0").unwrap().send_to(&[7; 4000], (ip(to), 6784)).unwrap());
        receiver.set_read_timeout(Some(NEVER)).unwrap();
        assert_eq!(receiver.recv(&mut [0; 5000]).is_ok(), passes, "{to}");
    }
}

#[test]
fn a_container_reaches_no_mesh_port_of_any_host_and_everything_else() {
    let world = World::new(&wanted());
    let mut refused = 0;
    let hosts = [(&world.host, BRIDGE), (&world.host, HOST[0]), (&world.peer, PEER[0])];
    for (at, host) in hosts.into_iter().chain(hosts).enumerate() {
        if at == hosts.len() && !world.bridged_frames_pass_iptables() {
            break;
        }
        for port in [6783, 6784, 6785] {
            assert!(!arrives(&world.one, host, port), "{} {port}", host.1);
            refused += 1;
        }
        assert!(arrives(&world.one, host, 6786), "{} through routing and masquerade", host.1);
        assert!(!connects(&world.one, host, 6783, NEVER), "{}", host.1);
        assert!(connects(&world.one, host, 80, SOON), "{}", host.1);
    }
    world.host.run(|| run("ip", "address add fd00::254/64 dev weft nodad"));
    world.one.run(|| run("ip", "address add fd00::1/64 dev eth0 nodad"));
    assert!(!arrives(&world.one, (&world.host, "fd00::254"), 6784), "IPv6");
    // In one of some ten runs the first to a new address is later than we wait for any.
    let tries = (0..10).any(|_| arrives(&world.one, (&world.host, "fd00::254"), 6786));
    assert!(tries, "IPv6");
    let dropped = world.dropped();
    assert_eq!(dropped.vxlan.packets, 0, "it came from containers");
    assert!(dropped.mesh.packets >= refused + 3, "{dropped:?}");
    // Without the filter all of it would get through: it is the filter that stops it.
    world.host.block_on(|| async { fastpath().teardown_filter().unwrap() });
    for host in [(&world.host, BRIDGE), (&world.peer, PEER[0])] {
        assert!(arrives(&world.one, host, 6784), "{}", host.1);
        assert!(connects(&world.one, host, 6783, SOON), "{}", host.1);
    }
}

#[test]
fn destination_nat_leads_no_container_to_a_mesh_port() {
    let world = World::new(&wanted());
    world.host.run(|| {
        run("nft", "add chain ip nat in { type nat hook prerouting priority -100 ; }");
        run("nft", "add rule ip nat in udp dport 5000 dnat to 192.0.2.2:6784");
        run("nft", "add rule ip nat in udp dport 5001 redirect to :6784");
        run("nft", "add rule ip nat in udp dport 6783 redirect to :7000");
    });
    let through = |socket: (&Namespace, u16), port: u16| {
        let receiver = socket.0.run(|| UdpSocket::bind(("0.0.0.0", socket.1)).unwrap());
        world.one.run(|| UdpSocket::bind("0.0.0.0:0").unwrap().send_to(b"x", (ip(BRIDGE), port)).unwrap());
        receiver.set_read_timeout(Some(NEVER)).unwrap();
        receiver.recv(&mut [0; 10]).is_ok()
    };
    assert!(!through((&world.peer, 6784), 5000));
    assert!(!through((&world.host, 6784), 5001));
    assert!(through((&world.host, 7000), 6783), "where it ends is what counts");
}

#[test]
fn between_containers_all_ports_are_their_own_even_through_br_netfilter() {
    let world = World::new(&wanted());
    let filtered = world.bridged_frames_pass_iptables();
    assert!(arrives(&world.one, (&world.two, "10.32.0.2"), 6784), "br_netfilter: {filtered}");
    assert!(connects(&world.one, (&world.two, "10.32.0.2"), 6783, SOON), "br_netfilter: {filtered}");
    assert_eq!(world.dropped(), Dropped::default());
}

#[test]
fn what_we_let_through_others_may_still_drop_and_what_they_let_through_we_still_drop() {
    let world = World::new(&wanted());
    world.host.run(|| {
        run("nft", "add table ip filter");
        run("nft", "add chain ip filter INPUT { type filter hook input priority -400 ; policy accept ; }");
        run("nft", "add rule ip filter INPUT udp dport 6784 accept");
    });
    assert!(!arrives(&world.stranger, (&world.host, HOST_TO_STRANGER[0]), 6784), "their accept is not final");
    assert!(arrives(&world.peer, (&world.host, HOST[0]), 6784));
    world.host.run(|| {
        run("nft", "add chain ip filter late { type filter hook input priority 0 ; policy drop ; }");
    });
    assert!(!arrives(&world.peer, (&world.host, HOST[0]), 6784), "neither is ours");
}

/// A VXLAN packet: VNI 1, an ARP request from a MAC nobody has.
fn vxlan_packet(mac: [u8; 6]) -> Vec<u8> {
    let mut packet = vec![0x08, 0, 0, 0, 0, 0, 1, 0];
    packet.extend(crate::packet::arp_request(mac, [10, 32, 0, 66], [10, 32, 0, 1]));
    packet
}

#[test]
fn a_vxlan_device_learns_and_takes_nothing_from_a_stranger_or_a_container() {
    let world = World::new(&wanted());
    world.host.run(|| {
        run("ip", "link add vx type vxlan id 1 dstport 6784 learning");
        run("ip", "link set vx up");
    });
    let send = |from: &Namespace, to: &str, last: u8| {
        let packet = vxlan_packet([2, 0, 0, 0, 0, last]);
        from.run(|| UdpSocket::bind("0.0.0.0:0").unwrap().send_to(&packet, (ip(to), 6784)).unwrap());
    };
    let learned = || -> BTreeSet<String> {
        let shown = world.host.run(|| run("bridge", "fdb show dev vx"));
        shown.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
    };
    let nobody = learned();
    send(&world.stranger, HOST_TO_STRANGER[0], 1);
    send(&world.one, HOST[0], 2);
    send(&world.one, BRIDGE, 3);
    send(&world.peer, HOST[0], 4);
    let mut expected = nobody;
    expected.insert("02:00:00:00:00:04".to_owned());
    world.host.block_on(|| async {
        for _ in 0..100 {
            if learned() == expected {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(learned(), expected, "the peer's and no other");
    });
    assert_eq!(learned(), expected);
    assert_eq!((world.dropped().vxlan.packets, world.dropped().mesh.packets), (1, 2));
}
