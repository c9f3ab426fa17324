//! VXLAN on a real kernel: containers of several hosts reach each other with this crate alone, what others bend
//! comes back, and what cannot be had holds up nothing else.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use rtnetlink::{LinkBridgePort, LinkUnspec, LinkVxlan};
use tokio::time::timeout;
use weft_fastpath::link::Flag;
use weft_fastpath::vxlan::{Destination, Entry};
use weft_fastpath::{Error, Fastpath, MacAddr, Report, Underlay};

use crate::mesh::{Mesh, PORT, VNI, address, device, mesh, remote, stranger, vtep, wants};
use crate::packet::{Tap, arp_request};
use crate::world::{Namespace, attach, fastpath, host, link, wish};

const SHORT: Duration = Duration::from_millis(500);

/// A container `number` with the address 10.32.0.`number` on each host.
pub(crate) fn containers(mesh: &Mesh) -> Vec<Namespace> {
    let make = |(at, host): (usize, &Namespace)| {
        let container = Namespace::new();
        attach(host, &container, &link(&format!("c{at}"), u8::try_from(at + 1).unwrap())).unwrap();
        container
    };
    mesh.hosts.iter().enumerate().map(make).collect()
}

pub(crate) fn udp(container: &Namespace, number: usize) -> UdpSocket {
    container.run(|| {
        let socket = UdpSocket::bind((format!("10.32.0.{number}"), 7000)).unwrap();
        socket.set_read_timeout(Some(SHORT)).unwrap();
        socket
    })
}

fn default_to(to: std::net::IpAddr) -> Entry {
    Entry::Device(MacAddr::ZERO, Destination { address: to, port: PORT, vni: None, interface: None })
}

#[test]
fn containers_of_all_hosts_reach_each_other_over_either_underlay() {
    for (count, underlay) in [(2, Underlay::V4), (3, Underlay::V4), (3, Underlay::V6)] {
        let mesh = mesh(count, underlay);
        let containers = containers(&mesh);
        let sockets: Vec<UdpSocket> =
            containers.iter().enumerate().map(|(at, container)| udp(container, at + 1)).collect();
        let mut buffer = vec![0; 2000];
        for (from, sender) in sockets.iter().enumerate() {
            for (to, receiver) in sockets.iter().enumerate().filter(|(to, _)| *to != from) {
                // As long as a packet of the bridge may be.
                let datagram = vec![u8::try_from(from).unwrap(); 1450 - 28];
                sender.send_to(&datagram, (format!("10.32.0.{}", to + 1), 7000)).unwrap();
                let length =
                    receiver.recv(&mut buffer).unwrap_or_else(|error| panic!("{underlay:?} {error}"));
                assert_eq!(buffer[..length], datagram, "{from} to {to} over {underlay:?}");
            }
        }
        for (at, host) in mesh.hosts.iter().enumerate() {
            host.block_on(|| async {
                let learned = fastpath().macs().await.unwrap();
                for other in (1..=count).filter(|other| *other != at + 1) {
                    let mac =
                        MacAddr::from_ip(std::net::Ipv4Addr::new(10, 32, 0, u8::try_from(other).unwrap()));
                    assert!(learned.contains(&(mac, address(underlay, other))), "{other} not in {learned:?}");
                }
                assert_eq!(fastpath().plan(&wants(at + 1, underlay, 1..=count)).await.unwrap(), []);
            });
        }
    }
}

#[test]
fn what_is_flooded_reaches_each_container_exactly_once() {
    let mesh = mesh(3, Underlay::V4);
    let containers = containers(&mesh);
    let mut taps: Vec<Tap> =
        containers.iter().map(|container| Tap::open(container, "eth0", Duration::from_millis(300))).collect();
    let broadcast = arp_request([2, 0, 0, 0, 0, 1], [10, 32, 0, 200], [10, 32, 0, 201]);
    let mut unknown = broadcast.clone();
    unknown[..6].copy_from_slice(&[2, 0, 0, 0, 0, 99]);
    let mut multicast = broadcast.clone();
    multicast[..6].copy_from_slice(&[0x33, 0x33, 0, 0, 0, 77]);
    for frame in [broadcast, unknown, multicast] {
        for _ in 0..3 {
            assert_eq!(taps[0].send(&frame).unwrap(), frame.len());
        }
        let counts: Vec<usize> = taps
            .iter_mut()
            .map(|tap| {
                let mut count = 0;
                while let Some(seen) = tap.next() {
                    count += usize::from(seen == frame);
                }
                count
            })
            .collect();
        // What a container floods its own port gives back, being a hairpin.
        assert_eq!(counts, [3, 3, 3]);
    }
}

#[test]
fn a_restarted_router_adopts_the_device_and_its_entries() {
    let mesh = mesh(2, Underlay::V4);
    let host = &mesh.hosts[0];
    let before = (host.index("weft-vx"), host.index("weft"));
    host.block_on(|| async {
        assert_eq!(fastpath().converge(&wants(1, Underlay::V4, 1..=2)).await.unwrap(), Report::default());
    });
    assert_eq!((host.index("weft-vx"), host.index("weft")), before);
}

#[test]
fn what_others_bend_comes_back_and_what_was_learned_stays() {
    let mesh = mesh(2, Underlay::V4);
    let desired = wants(1, Underlay::V4, 1..=2);
    mesh.hosts[0].block_on(|| async {
        let stranger = stranger();
        let index = nix::net::if_::if_nametoindex("weft-vx").unwrap();
        let bend = |message| stranger.link().change(message).execute();
        bend(LinkBridgePort::new(index).isolated(false).learning(false).mcast_flood(false).build()).await.unwrap();
        bend(LinkUnspec::new_with_name("weft-vx").mtu(1300).address(vec![2, 0, 0, 0, 0, 9]).build()).await.unwrap();
        bend(LinkVxlan::new("weft-vx", VNI).local([192, 0, 2, 1].into()).learning(false).ttl(3).build())
            .await
            .unwrap();
        let fdb = |mac: [u8; 6]| stranger.neighbours().add_bridge(index, &mac).flags(own());
        let host9 = address(Underlay::V4, 9);
        fdb([2, 0, 0, 0, 0, 7]).destination(host9).execute().await.unwrap();
        let learned = netlink_packet_route::neighbour::NeighbourState::Reachable;
        fdb([2, 0, 0, 0, 0, 8]).destination(host9).state(learned).execute().await.unwrap();
        remove(&stranger, index, device(2)).await;
        let report = fastpath().converge(&desired).await.unwrap();
        let mut lines: Vec<String> = report.changes.iter().map(ToString::to_string).collect();
        lines.sort();
        assert_eq!(
            lines,
            [
                "weft-vx: MAC 02:00:00:00:00:09 -> 06:ab:cd:00:00:01",
                "weft-vx: MTU 1300 -> 1450",
                "weft-vx: VNI 65239 on UDP port 6784 from 192.0.2.1, TTL 3, DF, not learning, no UDP checksums -> \
                 VNI 65239 on UDP port 6784 from any address, TTL 64, DF, learning, no UDP checksums",
                "weft-vx: add entry 06:ab:cd:00:00:02 to 192.0.2.2:6784",
                "weft-vx: flooding on",
                "weft-vx: isolation on",
                "weft-vx: learning on",
                "weft-vx: remove entry 02:00:00:00:00:07 to 192.0.2.9:6784",
            ]
        );
        assert_eq!(fastpath().plan(&desired).await.unwrap(), []);
        let macs = fastpath().macs().await.unwrap();
        assert!(macs.contains(&(MacAddr::new([2, 0, 0, 0, 0, 8]), host9)), "{macs:?}");

        stranger.link().del(index).execute().await.unwrap();
        fastpath().converge(&desired).await.unwrap();
        assert_eq!(fastpath().plan(&desired).await.unwrap(), []);
        stranger.link().del(nix::net::if_::if_nametoindex("weft").unwrap()).execute().await.unwrap();
        fastpath().converge(&desired).await.unwrap();
        assert_eq!(fastpath().plan(&desired).await.unwrap(), []);
    });
    let containers = containers(&mesh);
    let (one, two) = (udp(&containers[0], 1), udp(&containers[1], 2));
    one.send_to(b"hello", "10.32.0.2:7000").unwrap();
    assert_eq!(two.recv(&mut [0; 16]).unwrap(), 5);
}

fn own() -> netlink_packet_route::neighbour::NeighbourFlags {
    netlink_packet_route::neighbour::NeighbourFlags::Own
}

/// Removes what the device knows of an address, as `bridge fdb del` would.
async fn remove(stranger: &rtnetlink::Handle, index: u32, mac: MacAddr) {
    use netlink_packet_route::AddressFamily;
    use netlink_packet_route::neighbour::{NeighbourAttribute, NeighbourMessage};
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Bridge;
    message.header.ifindex = index;
    message.header.flags = own();
    message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.octets().to_vec()));
    stranger.neighbours().del(message).execute().await.unwrap();
}

#[test]
fn a_lost_entry_is_told_and_learning_is_not() {
    let mesh = mesh(2, Underlay::V4);
    let containers = containers(&mesh);
    mesh.hosts[0].block_on(|| async {
        let mut monitor = Fastpath::monitor().unwrap();
        for _ in 0..100 {
            if timeout(Duration::from_secs(3), monitor.changed()).await.is_err() {
                break;
            }
        }
        let tap = Tap::open(&containers[1], "eth0", SHORT);
        for last in 1..200 {
            tap.send(&arp_request([2, 0, 0, 1, 0, last], [10, 32, 1, last], [10, 32, 1, 0])).unwrap();
        }
        timeout(SHORT, monitor.changed()).await.expect_err("learning is no news");
        assert!(fastpath().macs().await.unwrap().len() > 190, "it did learn");
        remove(&stranger(), nix::net::if_::if_nametoindex("weft-vx").unwrap(), MacAddr::ZERO).await;
        timeout(SHORT, monitor.changed()).await.expect("a lost entry is news").unwrap();
        let report = fastpath().converge(&wants(1, Underlay::V4, 1..=2)).await.unwrap();
        assert_eq!(report.changes.len(), 1);
    });
}

#[test]
fn another_port_or_network_makes_the_device_anew_and_none_removes_it() {
    let host = host(&wants(1, Underlay::V6, 1..=3));
    assert!(host.has("weft-vx") && host.has("weft-v6"));
    host.block_on(|| async {
        let mut desired = wants(1, Underlay::V4, 1..=3);
        fastpath().converge(&desired).await.unwrap();
        assert!(nix::net::if_::if_nametoindex("weft-v6").is_err(), "nobody is there");
        desired.vxlan.as_mut().unwrap().port = 8472;
        let old = nix::net::if_::if_nametoindex("weft-vx").unwrap();
        fastpath().converge(&desired).await.unwrap();
        desired.vxlan.as_mut().unwrap().vni = 42;
        fastpath().converge(&desired).await.unwrap();
        assert_ne!(nix::net::if_::if_nametoindex("weft-vx").unwrap(), old);
        let actual = fastpath().observe().await.unwrap();
        let entries = &actual.links["weft-vx"].entries;
        assert_eq!(*entries, desired.vxlan.as_ref().unwrap().entries(Underlay::V4));
        assert!(entries.contains(&default_to(address(Underlay::V4, 2))), "their port, not ours");

        desired.vxlan.as_mut().unwrap().local = Some(address(Underlay::V4, 1));
        assert_eq!(fastpath().converge(&desired).await.unwrap().changes.len(), 1, "on the standing device");
        fastpath().converge(&wish()).await.unwrap();
        assert_eq!(fastpath().plan(&wish()).await.unwrap(), []);
    });
    assert!(!host.has("weft-vx") && host.has("weft-sl"));
}

#[test]
fn a_thousand_peers_and_one_more() {
    let host = host(&wish());
    host.block_on(|| async {
        let far = |at: u32| {
            let (id, mut peer) = remote(Underlay::V4, 1);
            peer.address = std::net::Ipv4Addr::from(0xc612_0000 + at).into();
            peer.mac = MacAddr::vxlan_of(u64::from(at + 9) << 24);
            (weft_fastpath::RemoteId(id.0 + u64::from(at)), peer)
        };
        let mut desired = wants(1, Underlay::V4, []);
        let mut fastpath = fastpath();
        fastpath.converge(&desired).await.unwrap();
        desired.vxlan.as_mut().unwrap().remotes.extend((0..1000).map(far));
        let start = now();
        let report = fastpath.converge(&desired).await.unwrap();
        let first = start.elapsed();
        assert_eq!((report.changes.len(), report.unmet.len()), (3000, 0));
        let mut more = Vec::new();
        for at in 1000..1020 {
            desired.vxlan.as_mut().unwrap().remotes.extend([far(at)]);
            let start = now();
            let changes = fastpath.converge(&desired).await.unwrap().changes;
            more.push(start.elapsed());
            assert_eq!(changes.len(), 3);
        }
        more.sort();
        println!("1000 peers in {first:?}; one more: best {:?}, median {:?}", more[0], more[10]);
        let mut unseen = Vec::new();
        for at in 1020..1040 {
            let before = desired.clone();
            desired.vxlan.as_mut().unwrap().remotes.extend([far(at)]);
            let start = now();
            let changes = fastpath.converge_entries(&before, &desired).await.unwrap();
            unseen.push(start.elapsed());
            assert_eq!(changes.map(|changes| changes.len()), Some(3));
        }
        unseen.sort();
        println!("without a look: best {:?}, median {:?}", unseen[0], unseen[10]);
        assert!(first < Duration::from_secs(1), "{first:?}");
        assert_eq!(fastpath.plan(&desired).await.unwrap(), []);
    });
}

#[test]
fn entries_alone_are_changed_without_a_look_and_anything_else_wants_one() {
    let host = host(&wish());
    host.block_on(|| async {
        let mut fastpath = fastpath();
        let three = wants(1, Underlay::V4, 1..=3);
        fastpath.converge(&three).await.unwrap();

        let mut moved = wants(1, Underlay::V4, [3, 4]);
        moved.vxlan.as_mut().unwrap().remotes.values_mut().next().unwrap().default = false;
        let lines = |changes: Vec<weft_fastpath::Change>| -> Vec<String> {
            changes.iter().map(ToString::to_string).collect()
        };
        let looked = lines(fastpath.plan(&moved).await.unwrap());
        assert_eq!(looked.len(), 7, "{looked:?}");
        let changes = fastpath.converge_entries(&three, &moved).await.unwrap().expect("entries only");
        assert_eq!(lines(changes), looked);
        assert_eq!(fastpath.plan(&moved).await.unwrap(), []);
        assert_eq!(fastpath.converge_entries(&moved, &moved).await.unwrap(), Some(vec![]));
        // What was done already, and what is gone already, is done.
        assert!(fastpath.converge_entries(&three, &moved).await.unwrap().is_some());
        assert_eq!(fastpath.plan(&moved).await.unwrap(), []);

        for other in [wish(), wants(1, Underlay::V6, 1..=3)] {
            assert_eq!(
                fastpath.converge_entries(&moved, &other).await.unwrap(),
                None,
                "a device more or less"
            );
        }
        let mut higher = moved.clone();
        higher.mtu -= 50;
        assert_eq!(fastpath.converge_entries(&moved, &higher).await.unwrap(), None);
        assert_eq!(fastpath.plan(&moved).await.unwrap(), [], "and nothing was done");
    });
}

#[test]
fn without_a_look_a_device_of_somebody_else_is_not_touched_and_a_refusal_is_said() {
    let host = host(&wish());
    host.block_on(|| async {
        let mut fastpath = fastpath();
        let (two, three) = (wants(1, Underlay::V4, 1..=2), wants(1, Underlay::V4, 1..=3));
        fastpath.converge(&two).await.unwrap();
        let links = stranger().link();
        let index = || nix::net::if_::if_nametoindex("weft-vx").unwrap();
        links.change(LinkUnspec::new_with_index(index()).nocontroller().build()).execute().await.unwrap();
        let error = fastpath.converge_entries(&two, &three).await.unwrap_err();
        assert!(error.to_string().contains("forwarding entry of weft-vx"), "{error}");
        fastpath.converge(&three).await.unwrap();
        assert_eq!(fastpath.plan(&three).await.unwrap(), []);

        links.del(index()).execute().await.unwrap();
        assert_eq!(fastpath.converge_entries(&three, &two).await.unwrap(), None, "it is gone");
        links.add(LinkVxlan::new("weft-vx", 9).port(9999).build()).execute().await.unwrap();
        let before = crate::filter::run("bridge", "fdb show dev weft-vx");
        assert_eq!(fastpath.converge_entries(&two, &three).await.unwrap(), None, "it is somebody else's");
        assert_eq!(crate::filter::run("bridge", "fdb show dev weft-vx"), before);
    });
}

#[expect(clippy::disallowed_methods, reason = "a stopwatch")]
fn now() -> Instant {
    Instant::now()
}

#[test]
fn a_port_in_use_leaves_vxlan_out_and_all_else_stands_until_it_is_free() {
    let host = Namespace::new();
    let desired = wants(1, Underlay::V4, 1..=3);
    let taken = host.run(|| UdpSocket::bind(("0.0.0.0", PORT)).unwrap());
    host.block_on(|| async {
        for _ in 0..2 {
            let report = fastpath().converge(&desired).await.unwrap();
            assert_eq!(
                report.no_vxlan[&Underlay::V4].to_string(),
                "cannot set up weft-vx: its UDP port is in use on this host"
            );
        }
        let actual = fastpath().observe().await.unwrap();
        assert!(actual.links["weft-sl"].flags[&Flag::Up], "the sleeve stands");
        let left: Vec<String> =
            fastpath().plan(&desired).await.unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(left, ["weft-vx: up"]);
        drop(taken);
        let report = fastpath().converge(&desired).await.unwrap();
        assert_eq!((report.no_vxlan.len(), report.changes.len()), (0, 1));
    });
}

#[test]
fn a_foreign_device_with_the_name_or_the_network_leaves_vxlan_out_and_is_not_touched() {
    for (theirs, words) in [
        (
            "weft-vx",
            "interface weft-vx exists and is not ours (a VXLAN device with VNI 65239 on UDP port 6784",
        ),
        (
            "theirs",
            "the network exists and is not ours (another VXLAN device with VNI 65239 on UDP port 6784)",
        ),
    ] {
        let host = Namespace::new();
        let desired = wants(1, Underlay::V4, 1..=3);
        host.block_on(|| async {
            stranger().link().add(LinkVxlan::new(theirs, VNI).port(PORT).build()).execute().await.unwrap();
            let before = fastpath().observe().await.unwrap().links[theirs].clone();
            for _ in 0..2 {
                let report = fastpath().converge(&desired).await.unwrap();
                let error = report.no_vxlan[&Underlay::V4].to_string();
                assert!(error.starts_with(words), "{error}");
            }
            let actual = fastpath().observe().await.unwrap();
            assert_eq!(actual.links[theirs], before);
            assert!(actual.links["weft-sl"].flags[&Flag::Up], "the sleeve stands");
            assert_eq!(fastpath().macs().await.unwrap(), []);
            stranger().link().del(nix::net::if_::if_nametoindex(theirs).unwrap()).execute().await.unwrap();
            assert!(fastpath().converge(&desired).await.unwrap().no_vxlan.is_empty());
        });
    }
}

#[test]
fn probes_go_to_the_peer_and_into_no_container() {
    let mesh = mesh(3, Underlay::V4);
    let containers = containers(&mesh);
    let mut taps: Vec<Tap> = containers.iter().map(|container| Tap::open(container, "eth0", SHORT)).collect();
    mesh.hosts[1].block_on(|| async {
        let bridge = fastpath().bridge().clone();
        let mut receiver = Fastpath::probe_socket(&bridge).unwrap();
        mesh.hosts[0].block_on(|| async {
            let sender = Fastpath::probe_socket(&bridge).unwrap();
            sender.send(device(3), b"not for you").unwrap();
            sender.send(device(2), b"probe").unwrap();
            sender.send(device(2), &[7; 1450]).unwrap();
            let error = sender.send(device(2), &[7; 1451]).unwrap_err();
            assert_eq!(error.errno(), Some(libc::EMSGSIZE));
        });
        for payload in [b"probe".to_vec(), vec![7; 1450]] {
            let probe = timeout(SHORT, receiver.recv()).await.expect("a probe").unwrap();
            assert_eq!((probe.from, probe.payload), (device(1), payload));
        }
        timeout(Duration::from_millis(100), receiver.recv()).await.expect_err("no more");
    });
    for tap in &mut taps {
        while let Some(frame) = tap.next() {
            assert_ne!(frame.get(12..14), Some([0x88, 0xb5].as_slice()), "a probe in a container");
        }
    }
}

#[test]
fn without_devices_there_is_no_probe_socket_and_moving_is_refused() {
    let host = host(&wish());
    host.block_on(|| async {
        let mut fastpath = fastpath();
        let error = Fastpath::probe_socket(fastpath.bridge()).map(drop).unwrap_err();
        assert_eq!(error.to_string(), "interface weft-vx: it does not stand (yet)");
        let macs = [MacAddr::new([2, 0, 0, 0, 0, 1])];
        let error = fastpath.move_macs(&macs, weft_fastpath::Port::Vxlan(vtep(2))).await.unwrap_err();
        assert!(matches!(error, Error::Refused { .. }), "{error}");
        fastpath.move_macs(&macs, weft_fastpath::Port::Sleeve).await.unwrap();
    });
}

#[test]
fn reset_removes_the_devices() {
    let host = host(&wants(1, Underlay::V6, 1..=3));
    host.block_on(|| async {
        let done = fastpath().teardown().await;
        assert_eq!((done.errors.len(), done.removed.len()), (0, 5), "{done:?}");
    });
    assert_eq!(host.interfaces().len(), 1);
}
