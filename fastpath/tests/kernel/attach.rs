//! Container links on a real kernel: made, found again, undone, and reachable.
//!
//! ```text
//! c1: eth0 10.32.0.1/12 <-> wv... -- weft (bridge) -- wv... <-> eth0 10.32.0.2/12 :c2
//!                                host:  weft-sl <-> weft-io
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

use futures_util::TryStreamExt;
use netlink_packet_route::link::{LinkAttribute, LinkMessage};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use rtnetlink::LinkVeth;
use weft_fastpath::link::Flag;
use weft_fastpath::{DefaultRoute, Report};

use crate::mesh::stranger;
use crate::packet::{Tap, arp};
use crate::world::{Namespace, attach, fastpath, host, host_end, link, port, wish, wish_with};

const SHORT: Duration = Duration::from_millis(300);

fn udp(container: &Namespace, address: &str) -> UdpSocket {
    container.run(|| {
        let socket = UdpSocket::bind((address, 7000)).unwrap_or_else(|error| panic!("{address}: {error}"));
        socket.set_read_timeout(Some(SHORT)).expect("a timeout");
        socket
    })
}

/// Whether a datagram gets from one socket to the other.
fn reaches(from: &UdpSocket, to: &UdpSocket, address: &str) -> bool {
    let mut buffer = [0; 16];
    from.send_to(b"hello", (address, 7000)).is_ok()
        && to.recv(&mut buffer).is_ok_and(|n| &buffer[..n] == b"hello")
}

#[test]
fn two_containers_of_one_bridge_talk_and_one_in_conflict_does_not() {
    let host = host(&wish());
    let (one, two) = (Namespace::new(), Namespace::new());
    attach(&host, &one, &link("c1", 1)).unwrap();
    attach(&host, &two, &link("c2", 2)).unwrap();
    let (a, b) = (udp(&one, "10.32.0.1"), udp(&two, "10.32.0.2"));
    assert!(reaches(&a, &b, "10.32.0.2"));
    assert!(reaches(&b, &a, "10.32.0.1"));

    host.block_on(|| async { fastpath().set_port_up("c2", "eth0", false).await }).unwrap();
    assert!(!reaches(&a, &b, "10.32.0.2"));
    let mut desired = wish_with(&["c1", "c2"]);
    desired.ports.get_mut(&port("c2")).unwrap().up = false;
    host.block_on(|| async {
        assert_eq!(fastpath().plan(&desired).await.unwrap(), [], "conflict is what is wanted");
        fastpath().set_port_up("c2", "eth0", true).await.unwrap();
    });
    // The kernel begins to forward from a port in its own time after it is up.
    assert!((0..10).any(|_| reaches(&a, &b, "10.32.0.2")));
}

#[test]
fn inside_there_is_all_that_was_asked_for_and_no_router_advertisement_is_believed() {
    let host = host(&wish());
    let container = Namespace::new();
    let attached = attach(&host, &container, &link("c1", 1)).unwrap();
    assert!(attached.created);
    assert_eq!(attached.unmet, []);
    assert_eq!(attached.host_end, host_end("c1"));
    assert_eq!(attached.ifindex, host.index(&attached.host_end));
    assert_eq!(container.interfaces().len(), 2);
    container.run(|| {
        let routes = std::fs::read_to_string("/proc/thread-self/net/route").unwrap();
        let mut found: Vec<(String, String)> = routes
            .lines()
            .skip(1)
            .map(|line| line.split_whitespace().collect::<Vec<_>>())
            .map(|fields| (format!("{} {}", fields[0], fields[1]), fields[7].to_owned()))
            .collect();
        found.sort();
        let expect =
            [("eth0 00000000", "00000000"), ("eth0 000000E0", "000000F0"), ("eth0 0000200A", "0000F0FF")];
        assert_eq!(found, expect.map(|(to, mask)| (to.to_owned(), mask.to_owned())));
        let setting = |name: &str| std::fs::read_to_string(format!("/proc/sys/net/{name}")).unwrap();
        assert_eq!(setting("ipv6/conf/eth0/accept_ra").trim(), "0");
        let six = std::fs::read_to_string("/proc/thread-self/net/if_inet6").unwrap();
        assert!(
            six.lines().filter(|line| line.ends_with("eth0")).all(|line| line.starts_with("fe80")),
            "{six}"
        );
        UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("lo is up");
    });
}

#[test]
fn attaching_again_changes_nothing_and_a_changed_address_is_changed() {
    let host = host(&wish());
    let container = Namespace::new();
    let first = attach(&host, &container, &link("c1", 1)).unwrap();
    let inside = container.index("eth0");
    let second = attach(&host, &container, &link("c1", 1)).unwrap();
    assert!(!second.created);
    assert_eq!((second.ifindex, container.index("eth0")), (first.ifindex, inside));

    let third = attach(&host, &container, &link("c1", 9)).unwrap();
    assert_eq!((third.ifindex, container.index("eth0")), (first.ifindex, inside));
    container.run(|| {
        UdpSocket::bind(("10.32.0.9", 0)).expect("the new address is there");
        UdpSocket::bind(("10.32.0.1", 0)).expect_err("the old one is not");
    });
}

#[test]
fn a_default_route_of_another_interface_stays() {
    let host = host(&wish());
    let container = Namespace::new();
    let mut first = link("c1", 1);
    first.gateway = DefaultRoute::Via("10.32.0.254".parse().unwrap());
    attach(&host, &container, &first).unwrap();
    let mut second = link("c1", 2);
    second.ifname = "eth1".to_owned();
    attach(&host, &container, &second).unwrap();
    container.run(|| {
        let routes = std::fs::read_to_string("/proc/thread-self/net/route").unwrap();
        let defaults: Vec<&str> =
            routes.lines().filter(|line| line.split_whitespace().nth(1) == Some("00000000")).collect();
        assert_eq!(defaults.len(), 1, "{routes}");
        assert!(defaults[0].starts_with("eth0\t00000000\tFE00200A"), "{routes}");
    });
}

#[test]
fn a_new_container_under_an_old_id_takes_its_place() {
    let host = host(&wish());
    let (old, new) = (Namespace::new(), Namespace::new());
    let before = attach(&host, &old, &link("c1", 1)).unwrap();
    let after = attach(&host, &new, &link("c1", 1)).unwrap();
    assert!(after.created);
    assert_ne!(before.ifindex, after.ifindex);
    assert!(new.has("eth0") && !old.has("eth0"));
}

#[test]
fn a_restarted_router_finds_its_links_and_touches_nothing() {
    let desired = wish_with(&["c1", "c2"]);
    let host = host(&desired);
    let (one, two) = (Namespace::new(), Namespace::new());
    let attached = attach(&host, &one, &link("c1", 1)).unwrap();
    attach(&host, &two, &link("c2", 2)).unwrap();
    host.block_on(|| async {
        let report = fastpath().converge(&desired).await.unwrap();
        assert_eq!(report, Report::default());
        let standing = fastpath().adopt().await.unwrap();
        let ports: Vec<_> = standing.iter().map(|link| link.port.clone()).collect();
        assert_eq!(ports, [port("c1"), port("c2")]);
        assert_eq!(standing.first().unwrap().ifindex, attached.ifindex);
        assert!(standing.iter().all(|link| link.joined && link.up && link.carrier));
    });

    drop(two);
    host.wait_without(&host_end("c2"));
    host.block_on(|| async {
        let report = fastpath().converge(&desired).await.unwrap();
        assert_eq!(report.changes, []);
        assert_eq!(report.missing.into_iter().collect::<Vec<_>>(), [port("c2")]);
    });
}

#[test]
fn detach_removes_both_ends_and_is_content_when_there_is_nothing() {
    let host = host(&wish());
    let container = Namespace::new();
    attach(&host, &container, &link("c1", 1)).unwrap();
    host.block_on(|| async {
        let mut fastpath = fastpath();
        fastpath.detach("c1", "eth0").await.unwrap();
        fastpath.detach("c1", "eth0").await.unwrap();
        fastpath.detach("never", "eth0").await.unwrap();
        assert!(fastpath.adopt().await.unwrap().is_empty());
        assert_eq!(fastpath.plan(&wish()).await.unwrap(), []);
        let error = fastpath.set_port_up("c1", "eth0", true).await.unwrap_err();
        assert_eq!(error.to_string(), "container link eth0 of c1: it does not stand");
    });
    assert!(!container.has("eth0"));
}

#[test]
fn many_links_go_at_once_and_no_others_with_them() {
    let host = host(&wish());
    let containers = [Namespace::new(), Namespace::new(), Namespace::new()];
    for (last, container) in (1..).zip(&containers) {
        attach(&host, container, &link(&format!("c{last}"), last)).unwrap();
    }
    host.block_on(|| async {
        let stranger = stranger();
        stranger.link().add(LinkVeth::new("stranger", "other").build()).execute().await.unwrap();
        let mut fastpath = fastpath();
        let ports = BTreeSet::from(["never", "c1", "c2"].map(port));
        assert_eq!(fastpath.detach_all(&ports).await, BTreeMap::new());
        let standing = fastpath.adopt().await.unwrap();
        assert_eq!(standing.iter().map(|link| link.port.clone()).collect::<Vec<_>>(), [port("c3")]);
        assert_eq!(fastpath.detach_all(&ports).await, BTreeMap::new(), "they are gone already");
    });
    let gone = containers.each_ref().map(|container| !container.has("eth0"));
    assert_eq!(gone, [true, true, false]);
    assert!(host.has("stranger") && !host.has(&host_end("c1")));
}

#[test]
fn whoever_is_in_the_group_of_links_about_to_go_stays() {
    let host = host(&wish());
    let (one, two) = (Namespace::new(), Namespace::new());
    attach(&host, &one, &link("c1", 1)).unwrap();
    attach(&host, &two, &link("c2", 2)).unwrap();
    // The number that this removal will take, already taken by somebody else.
    let group = 1 << 31 | host.index(&host_end("c1"));
    host.block_on(|| async {
        let taken = LinkVeth::new("stranger", "other").link_group(group).build();
        stranger().link().add(taken).execute().await.unwrap();
        assert_eq!(fastpath().detach_all(&BTreeSet::from(["c1", "c2"].map(port))).await, BTreeMap::new());
    });
    assert!(host.has("stranger"));
    assert!(!one.has("eth0") && !two.has("eth0"));
}

#[test]
fn a_container_link_has_one_queue() {
    let host = host(&wish());
    let container = Namespace::new();
    let made = attach(&host, &container, &link("c1", 1)).unwrap();
    host.block_on(|| async {
        let ends = stranger().link().get().match_index(made.ifindex).execute().try_next().await.unwrap();
        let queues = |link: LinkMessage| {
            let mut kinds = link.attributes.into_iter();
            kinds.find_map(
                |kind| if let LinkAttribute::NumTxQueues(number) = kind { Some(number) } else { None },
            )
        };
        assert_eq!(ends.and_then(queues), Some(1), "each further one costs a grace period twice");
    });
}

#[test]
fn a_container_announces_itself_at_once_and_again_after_a_second() {
    let host = host(&wish());
    let container = Namespace::new();
    let mut tap = Tap::open(&host, "weft-io", Duration::from_millis(100));
    let netlink = container.netlink();
    let heard = |tap: &mut Tap| {
        let mut count = 0;
        while let Some(frame) = tap.next() {
            let own = [10, 32, 0, 1];
            let gratuitous = arp(frame).is_some_and(|arp| arp.sender == own && arp.target == own);
            count += u32::from(gratuitous && frame.starts_with(&[0xff; 6]));
        }
        count
    };
    host.block_on(|| async {
        fastpath().attach(&link("c1", 1), container.descriptor(), netlink).await.unwrap();
        assert!(heard(&mut tap) >= 1, "not announced at attach");
        tokio::time::sleep(Duration::from_millis(1200)).await;
        assert!(heard(&mut tap) >= 1, "not announced again");
    });
}

#[test]
fn the_port_is_a_hairpin_and_not_isolated() {
    let host = host(&wish());
    let container = Namespace::new();
    attach(&host, &container, &link("c1", 1)).unwrap();
    host.block_on(|| async {
        let flags = fastpath().observe().await.unwrap().links[&host_end("c1")].flags.clone();
        assert_eq!((flags[&Flag::Hairpin], flags[&Flag::Isolated]), (true, false));
    });
}

#[test]
fn an_attachment_does_not_keep_its_container_alive() {
    let host = host(&wish());
    let container = Namespace::new();
    let netlink = container.netlink();
    host.block_on(|| async {
        let mut fastpath = fastpath();
        fastpath.attach(&link("c1", 1), container.descriptor(), netlink).await.unwrap();
        drop(container);
        for _ in 0..100 {
            if fastpath.adopt().await.unwrap().is_empty() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("something of ours still holds the namespace");
    });
}

#[test]
fn many_may_look_at_once() {
    let host = host(&wish());
    host.block_on(|| async {
        let (connection, handle, _) = rtnetlink::new_connection().unwrap();
        tokio::spawn(connection);
        for at in 0..100 {
            handle
                .link()
                .add(LinkVeth::new(&format!("a{at}"), &format!("b{at}")).build())
                .execute()
                .await
                .unwrap();
        }
        let fastpath = fastpath();
        let looks = std::iter::repeat_with(|| fastpath.observe()).take(16);
        for look in futures_util::future::join_all(looks).await {
            assert_eq!(look.unwrap().links.len(), 204);
        }
    });
}

/// As in an unprivileged pod: no settings by file, only by netlink.
#[test]
fn with_read_only_settings_all_else_stands_and_what_is_missing_is_said() {
    let (host, container) = (Namespace::new(), Namespace::new());
    let netlink = container.netlink();
    host.run(|| {
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        let bind = |flags| mount(Some("/proc/sys"), "/proc/sys", None::<&str>, flags, None::<&str>).unwrap();
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
        bind(MsFlags::MS_BIND);
        bind(MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let report = fastpath().converge(&wish()).await.unwrap();
            let unmet: Vec<String> = report.unmet.iter().map(ToString::to_string).collect();
            assert_eq!(
                unmet,
                ["weft", "weft-io"].map(|link| {
                    format!("cannot set IPv6 router advertisements of {link}: the file system is read-only")
                })
            );
            let attached = fastpath().attach(&link("c1", 1), container.descriptor(), netlink).await.unwrap();
            assert_eq!(attached.unmet.len(), 1);
            assert_eq!(fastpath().plan(&wish()).await.unwrap().len(), 2, "it is still wanted");
        });
    });
    container.run(|| UdpSocket::bind(("10.32.0.1", 0)).expect("attached all the same"));
}
