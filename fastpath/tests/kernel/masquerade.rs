//! Containers reach the world outside under the host's address, and each other under their own.
//!
//! ```text
//!  c1 10.32.0.1 -- weft 10.32.0.254 (host) u0 192.0.2.1/24 ------ p0 192.0.2.2/24 (world, no route back)
//!  c2 10.32.0.2 --/
//! ```

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::Duration;

use weft_fastpath::{DefaultRoute, Fastpath, Masquerade, Policy, PolicyChange, PolicyReport};

use crate::filter::{ip, run};
use crate::world::{Namespace, attach, fastpath, host, link, wish_with};

const SOON: Duration = Duration::from_secs(2);
const NEVER: Duration = Duration::from_millis(200);
const GATEWAY: &str = "10.32.0.254";

pub(crate) struct World {
    pub(crate) host: Namespace,
    pub(crate) world: Namespace,
    pub(crate) one: Namespace,
    pub(crate) two: Namespace,
}

impl World {
    pub(crate) fn new() -> Self {
        let mut desired = wish_with(&["c1", "c2"]);
        desired.addresses.insert(format!("{GATEWAY}/12").parse().unwrap());
        let (host, world) = (host(&desired), Namespace::new());
        let (one, two) = (Namespace::new(), Namespace::new());
        for (id, last, container) in [("c1", 1, &one), ("c2", 2, &two)] {
            let mut link = link(id, last);
            link.gateway = DefaultRoute::Via(GATEWAY.parse().unwrap());
            attach(&host, container, &link).unwrap();
        }
        let namespace = format!("/proc/{}/fd/{}", std::process::id(), world.descriptor().as_raw_fd());
        host.run(|| {
            run("ip", &format!("link add u0 type veth peer name p0 netns {namespace}"));
            run("ip", "link set u0 up");
            run("ip", "address add 192.0.2.1/24 dev u0");
        });
        world.run(|| {
            run("ip", "link set p0 up");
            run("ip", "address add 192.0.2.2/24 dev p0");
        });
        Self { host, world, one, two }
    }
}

pub(crate) fn policy() -> Policy {
    Policy { masquerade: Some(Masquerade { range: "10.32.0.0/12".parse().unwrap() }), ..Policy::default() }
}

/// Converges as a router that has just started would, and expects that all could be had.
pub(crate) fn converge(host: &Namespace, policy: &Policy) -> Vec<String> {
    let report = host.block_on(|| async { fastpath().converge_policy(policy).await });
    assert_eq!(report.unmet, []);
    report.changes.iter().map(ToString::to_string).collect()
}

/// Whom a question comes from, as the receiver sees it, and whether the answer gets back; None: it does not come.
pub(crate) fn asks(
    from: &Namespace,
    to: &Namespace,
    address: &str,
    patience: Duration,
) -> Option<(SocketAddr, bool)> {
    let receiver = to.run(|| UdpSocket::bind(("0.0.0.0", 7000)).unwrap());
    receiver.set_read_timeout(Some(patience)).unwrap();
    let sender = from.run(|| UdpSocket::bind("0.0.0.0:0").unwrap());
    sender.set_read_timeout(Some(patience)).unwrap();
    sender.send_to(b"who am I?", (ip(address), 7000)).unwrap();
    let asker = match receiver.recv_from(&mut [0; 100]) {
        Ok((_, asker)) => asker,
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return None,
        Err(error) => panic!("{error}"),
    };
    let answered = receiver.send_to(b"you", asker).is_ok() && sender.recv(&mut [0; 100]).is_ok();
    Some((asker, answered))
}

#[test]
fn what_leaves_the_range_has_the_hosts_address_and_finds_back() {
    let world = World::new();
    assert_eq!(converge(&world.host, &policy()), ["create the masquerade: what leaves 10.32.0.0/12"]);
    assert_eq!(converge(&world.host, &policy()), Vec::<String>::new(), "a restart finds it right");
    assert_eq!(asks(&world.one, &world.world, "192.0.2.2", NEVER), None, "the host does not forward yet");
    assert!(world.host.run(|| Fastpath::enable_forwarding().unwrap()));
    assert!(!world.host.run(|| Fastpath::enable_forwarding().unwrap()), "it does already");

    let (asker, answered) = asks(&world.one, &world.world, "192.0.2.2", SOON).expect("it arrives");
    assert_eq!((asker.ip(), answered), (ip("192.0.2.1"), true));
    let (asker, answered) = asks(&world.one, &world.two, "10.32.0.2", SOON).expect("it arrives");
    assert_eq!((asker.ip(), answered), (ip("10.32.0.1"), true), "bridged");
    let (asker, _) = asks(&world.one, &world.host, GATEWAY, SOON).expect("it arrives");
    assert_eq!(asker.ip(), ip("10.32.0.1"), "to the host itself");

    // Without the rule the world sees the container's address: it is the rule that does it.
    assert_eq!(converge(&world.host, &Policy::default()), ["delete the masquerade"]);
    let (asker, answered) = asks(&world.two, &world.world, "192.0.2.2", NEVER).expect("it arrives");
    assert_eq!((asker.ip(), answered), (ip("10.32.0.2"), false));
}

#[test]
fn within_the_range_and_to_other_networks_on_the_bridge_addresses_are_kept() {
    let world = World::new();
    converge(&world.host, &policy());
    world.host.run(|| {
        Fastpath::enable_forwarding().unwrap();
        // A part of the range behind another interface, and a network outside of the range on the bridge.
        run("ip", "route add 10.40.0.0/16 via 192.0.2.2");
        run("ip", "address add 172.30.0.1/24 dev weft");
    });
    world.world.run(|| {
        run("ip", "address add 10.40.0.9/32 dev p0");
        run("ip", "route add 10.32.0.0/16 via 192.0.2.1");
    });
    world.one.run(|| run("ip", &format!("route add 10.40.0.9 via {GATEWAY}")));
    world.two.run(|| run("ip", "address add 172.30.0.2/24 dev eth0"));
    let (asker, _) = asks(&world.one, &world.world, "10.40.0.9", SOON).expect("it arrives");
    assert_eq!(asker.ip(), ip("10.32.0.1"));
    let (asker, _) = asks(&world.one, &world.two, "172.30.0.2", SOON).expect("it arrives");
    assert_eq!(asker.ip(), ip("10.32.0.1"));
}

#[test]
fn nft_shows_the_masquerade_as_it_is_drawn_and_what_others_bend_comes_back() {
    let host = host(&wish_with(&[]));
    converge(&host, &policy());
    let shown = host.run(|| run("nft", "list table ip weft-weft"));
    for line in [
        "type nat hook postrouting priority srcnat; policy accept;",
        "ip saddr 10.32.0.0/12 ip daddr != 10.32.0.0/12 ip daddr != 224.0.0.0/4 oifname != \"weft\" \
         masquerade fully-random comment \"containers to the world\"",
    ] {
        assert!(shown.contains(line), "{shown}");
    }
    for (deed, said) in [
        ("flush ruleset", "create the masquerade: what leaves 10.32.0.0/12"),
        ("flush table ip weft-weft", "replace the masquerade: chain postrouting differs"),
        (
            "insert rule ip weft-weft postrouting masquerade",
            "replace the masquerade: chain postrouting differs",
        ),
    ] {
        host.run(|| run("nft", deed));
        assert_eq!(converge(&host, &policy()), [said], "{deed}");
    }
    host.block_on(|| async {
        let mut fastpath = fastpath();
        let plan = fastpath.plan_policy(&Policy::default()).await.unwrap();
        assert_eq!(plan.iter().map(PolicyChange::to_string).collect::<Vec<_>>(), ["delete the masquerade"]);
        let done = fastpath.teardown().await;
        assert!(done.removed.contains(&"nftables table ip weft-weft".to_owned()), "{done:?}");
        assert_eq!(fastpath.converge_policy(&Policy::default()).await, PolicyReport::default());
    });
    assert_eq!(host.run(|| run("nft", "list ruleset")), "");
}
