//! The bridge and its sleeve port.
//!
//! ```text
//! host: weft (bridge) -- weft-sl <-> weft-io
//! ```

use ipnet::IpNet;
use netlink_packet_route::link::{InfoData, InfoVeth};
use rtnetlink::{LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVeth};
use weft_fastpath::link::{Flag, Owner};
use weft_fastpath::names::GROUP;
use weft_fastpath::{Change, Error, Report, Sleeve};

use crate::world::{MTU, Namespace, attach, fastpath, host, host_end, link, wish, wish_with};

/// Netlink as a stranger on the host would use it.
fn stranger() -> rtnetlink::Handle {
    let (connection, handle, _) = rtnetlink::new_connection().unwrap();
    tokio::spawn(connection);
    handle
}

#[test]
fn from_nothing_to_the_wish_and_then_nothing_to_do() {
    let host = Namespace::new();
    host.block_on(|| async {
        let mut fastpath = fastpath();
        let planned = fastpath.plan(&wish()).await.unwrap();
        let report = fastpath.converge(&wish()).await.unwrap();
        assert_eq!(report.changes, planned, "it does what it said");
        assert_eq!(report.unmet, []);
        assert_eq!(fastpath.plan(&wish()).await.unwrap(), []);
        assert_eq!(fastpath.converge(&wish()).await.unwrap(), Report::default());

        let actual = fastpath.observe().await.unwrap();
        let port = &actual.links["weft-sl"];
        assert!(port.flags[&Flag::Isolated]);
        assert!(!port.flags[&Flag::Offloads]);
        assert_eq!(port.bridge.as_deref(), Some("weft"));
        let bridge = &actual.links["weft"];
        assert_eq!((bridge.mac, bridge.mtu), (Some(wish().mac), MTU));
    });
}

#[test]
fn what_others_bend_comes_back_and_only_that() {
    let host = host(&wish());
    host.block_on(|| async {
        let links = stranger().link();
        let name = LinkUnspec::new_with_name;
        for message in [
            name("weft").mtu(1300).address(vec![2, 0, 0, 0, 0, 9]).build(),
            name("weft-sl").nocontroller().build(),
            name("weft-io").down().arp(true).alias("mine").build(),
            LinkMessageBuilder::<LinkBridge>::new("weft")
                .mcast_snooping(true)
                .no_linklocal_learn(false)
                .build(),
        ] {
            links.change(message).execute().await.unwrap();
        }
        // An alias of their own makes it theirs, though it has our name: said, not taken.
        let error = fastpath().converge(&wish()).await.unwrap_err();
        assert!(matches!(error, Error::Conflict { .. }), "{error}");
        links.change(name("weft-io").alias("").build()).execute().await.unwrap();

        let report = fastpath().converge(&wish()).await.unwrap();
        let mut lines: Vec<String> = report.changes.iter().map(ToString::to_string).collect();
        lines.sort();
        assert_eq!(
            lines,
            [
                "weft-io: deafness of the host's IPv4 on",
                "weft-io: set alias weft/weft/capture",
                "weft-io: up",
                "weft-sl: isolation on",
                "weft-sl: join bridge weft",
                "weft: MAC 02:00:00:00:00:09 -> 0e:11:22:33:44:55",
                "weft: MTU 1300 -> 1450",
                "weft: learning from link-local frames off",
                "weft: multicast snooping off",
            ]
        );
        assert_eq!(fastpath().plan(&wish()).await.unwrap(), []);
    });
}

#[test]
fn a_deleted_bridge_comes_back_with_its_ports_and_no_port_is_made_anew() {
    let desired = wish_with(&["c1"]);
    let host = host(&desired);
    let container = Namespace::new();
    attach(&host, &container, &link("c1", 1)).unwrap();
    let before = (host.index(&host_end("c1")), host.index("weft-sl"));
    host.block_on(|| async {
        stranger().link().del(nix::net::if_::if_nametoindex("weft").unwrap()).execute().await.unwrap();
        let report = fastpath().converge(&desired).await.unwrap();
        assert!(report.missing.is_empty());
        assert_eq!(fastpath().plan(&desired).await.unwrap(), []);
        let standing = fastpath().adopt().await.unwrap();
        assert!(standing.iter().all(|link| link.joined && link.up && link.carrier), "{standing:?}");
    });
    assert_eq!((host.index(&host_end("c1")), host.index("weft-sl")), before);
}

#[test]
fn a_foreign_interface_with_a_wanted_name_is_refused_and_nothing_is_touched() {
    for foreign in ["weft", "weft-io", "weft-sl"] {
        let host = Namespace::new();
        host.block_on(|| async {
            stranger()
                .link()
                .add(LinkMessageBuilder::<LinkBridge>::new(foreign).build())
                .execute()
                .await
                .unwrap();
            let before = fastpath().observe().await.unwrap();
            let error = fastpath().converge(&wish()).await.unwrap_err();
            assert_eq!(
                error.to_string(),
                format!(
                    "interface {foreign} exists and is not ours (a bridge); remove it or choose another name"
                )
            );
            assert_eq!(fastpath().observe().await.unwrap(), before);
            let torn = fastpath().teardown().await;
            assert_eq!((torn.removed.len(), torn.errors.len()), (0, 0));
            assert_eq!(fastpath().observe().await.unwrap(), before);
        });
    }
}

#[test]
fn offloads_are_switched_both_ways_on_the_port_only() {
    let host = host(&wish());
    host.block_on(|| async {
        for offloads in [true, false] {
            let mut desired = wish();
            desired.sleeve = Some(Sleeve { offloads });
            let report = fastpath().converge(&desired).await.unwrap();
            let switch = Change::Set { link: "weft-sl".into(), flag: Flag::Offloads, on: offloads };
            assert_eq!(report.changes, [switch]);
            assert_eq!(fastpath().plan(&desired).await.unwrap(), []);
        }
    });
}

#[test]
fn the_hosts_own_addresses_come_and_go_and_others_stay() {
    let net = |text: &str| text.parse::<IpNet>().unwrap();
    let host = host(&wish());
    host.block_on(|| async {
        let index = nix::net::if_::if_nametoindex("weft").unwrap();
        let theirs = net("10.40.0.9/16");
        stranger().address().add(index, theirs.addr(), theirs.prefix_len()).execute().await.unwrap();

        let mut desired = wish();
        desired.addresses.extend([net("10.32.0.1/12"), net("10.32.0.2/12"), net("fd00::1/64")]);
        assert_eq!(fastpath().converge(&desired).await.unwrap().changes.len(), 3);
        assert_eq!(fastpath().plan(&desired).await.unwrap(), []);

        // The first of a subnet is the primary: the kernel may take the second with it.
        desired.addresses.remove(&net("10.32.0.1/12"));
        fastpath().converge(&desired).await.unwrap();
        assert_eq!(fastpath().observe().await.unwrap().links["weft"].addresses, desired.addresses);

        fastpath().converge(&wish()).await.unwrap();
        let error = stranger().address().add(index, theirs.addr(), theirs.prefix_len()).execute().await;
        assert!(error.is_err(), "their address still stands");
    });
}

#[test]
fn a_smaller_foreign_port_does_not_pull_the_bridge_down_for_long() {
    let host = host(&wish());
    host.block_on(|| async {
        let links = stranger().link();
        let bridge = nix::net::if_::if_nametoindex("weft").unwrap();
        links.add(LinkVeth::new("a", "b").mtu(1280).controller(bridge).build()).execute().await.unwrap();
        let report = fastpath().converge(&wish()).await.unwrap();
        assert!(report.changes.len() <= 1, "{report:?}");
        let actual = fastpath().observe().await.unwrap();
        assert_eq!(actual.links["weft"].mtu, MTU);
        assert_eq!(actual.links["a"].bridge.as_deref(), Some("weft"), "their port stays");
    });
}

#[test]
fn what_a_crash_left_between_birth_and_alias_is_finished_not_made_anew() {
    let host = Namespace::new();
    host.block_on(|| async {
        let peer = LinkUnspec::new_with_name("weft-sl").link_group(GROUP).build();
        let pair = LinkVeth::new("weft-io", "unused").set_info_data(InfoData::Veth(InfoVeth::Peer(peer)));
        stranger().link().add(pair.link_group(GROUP).build()).execute().await.unwrap();
        let before = nix::net::if_::if_nametoindex("weft-sl").unwrap();
        assert_eq!(fastpath().observe().await.unwrap().links["weft-sl"].owner, Owner::Unmarked);

        fastpath().converge(&wish()).await.unwrap();
        assert_eq!(fastpath().plan(&wish()).await.unwrap(), []);
        assert_eq!(nix::net::if_::if_nametoindex("weft-sl").unwrap(), before);
    });
}

#[test]
fn a_sleeve_that_is_not_wanted_is_removed() {
    let host = host(&wish());
    host.block_on(|| async {
        let mut desired = wish();
        desired.sleeve = None;
        fastpath().converge(&desired).await.unwrap();
        assert_eq!(fastpath().plan(&desired).await.unwrap(), []);
    });
    assert!(host.has("weft") && !host.has("weft-sl") && !host.has("weft-io"));
}

#[test]
fn reset_leaves_no_interface_of_ours_and_all_of_others() {
    let host = host(&wish());
    let container = Namespace::new();
    attach(&host, &container, &link("c1", 1)).unwrap();
    host.block_on(|| async {
        stranger().link().add(LinkVeth::new("theirs", "other").build()).execute().await.unwrap();
        let done = fastpath().teardown().await;
        assert_eq!(done.errors, []);
        assert_eq!(done.removed.len(), 4, "{done:?}");
        assert_eq!(fastpath().teardown().await.removed, Vec::<String>::new());
    });
    let mut left = host.interfaces();
    left.sort();
    assert_eq!(left, ["lo", "other", "theirs"]);
    assert!(!container.has("eth0"));
}
