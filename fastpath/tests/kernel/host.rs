//! What is read of the host: news, routes, the underlay, facts.
//!
//! ```text
//! host: u0 (MTU 1400, 192.0.2.1/24, default via 192.0.2.254) <-> u1, and `weft`
//! ```

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use rtnetlink::{LinkUnspec, LinkVeth, RouteMessageBuilder};
use tokio::time::timeout;
use weft_fastpath::{Fastpath, Monitor, Release};

use crate::world::{Namespace, attach, fastpath, host, host_end, link, wish, wish_with};

const SOON: Duration = Duration::from_secs(2);
const QUIET: Duration = Duration::from_millis(500);

fn stranger() -> rtnetlink::Handle {
    let (connection, handle, _) = rtnetlink::new_connection().unwrap();
    tokio::spawn(connection);
    handle
}

async fn underlay(handle: &rtnetlink::Handle) {
    handle.link().add(LinkVeth::new("u0", "u1").mtu(1400).up().build()).execute().await.unwrap();
    handle.link().change(LinkUnspec::new_with_name("u1").up().build()).execute().await.unwrap();
    let index = nix::net::if_::if_nametoindex("u0").unwrap();
    let address = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    handle.address().add(index, address, 24).execute().await.unwrap();
    let default = RouteMessageBuilder::<Ipv4Addr>::new().gateway(Ipv4Addr::new(192, 0, 2, 254)).build();
    handle.route().add(default).execute().await.unwrap();
    let private = RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(Ipv4Addr::new(10, 40, 0, 0), 16)
        .gateway(Ipv4Addr::new(192, 0, 2, 253))
        .build();
    handle.route().add(private).execute().await.unwrap();
}

/// Waits until the kernel has told all it has to tell of the setting up; the last is, after two seconds, that the
/// bridge's own IPv6 address is no longer tentative.
async fn settle(monitor: &mut Monitor) {
    let tentative = || {
        let six = std::fs::read_to_string("/proc/thread-self/net/if_inet6").unwrap_or_default();
        six.lines().any(|line| line.split_whitespace().nth(4) != Some("80"))
    };
    for _ in 0..100 {
        let quiet = timeout(QUIET, monitor.changed()).await.is_err();
        if quiet && !tentative() {
            return;
        }
    }
    panic!("never quiet, though nothing happens");
}

#[test]
fn a_change_is_told_once_and_quiet_is_quiet() {
    let host = host(&wish());
    host.block_on(|| async {
        let mut monitor = Fastpath::monitor().unwrap();
        settle(&mut monitor).await;

        let links = stranger().link();
        for at in 0..50 {
            let pair = LinkVeth::new(&format!("a{at}"), &format!("b{at}")).build();
            links.add(pair).execute().await.unwrap();
        }
        timeout(SOON, monitor.changed()).await.expect("told").unwrap();
        assert!(timeout(QUIET, monitor.changed()).await.is_err(), "told once");

        links.del(nix::net::if_::if_nametoindex("weft").unwrap()).execute().await.unwrap();
        // Dropped in the middle of collecting: the news is not lost.
        assert!(timeout(Duration::from_millis(20), monitor.changed()).await.is_err());
        timeout(SOON, monitor.changed()).await.expect("told after all").unwrap();
        assert!(!fastpath().plan(&wish()).await.unwrap().is_empty());
    });
}

#[test]
fn more_news_than_the_socket_holds_is_still_news() {
    let host = host(&wish());
    host.block_on(|| async {
        let mut monitor = Fastpath::monitor().unwrap();
        settle(&mut monitor).await;
        let links = stranger().link();
        for at in 0..600 {
            let mtu = LinkUnspec::new_with_name("weft").mtu(1400 + at % 2);
            links.change(mtu.build()).execute().await.unwrap();
        }
        timeout(SOON, monitor.changed()).await.expect("told").unwrap();
        assert!(timeout(QUIET, monitor.changed()).await.is_err(), "all of it at once");
    });
}

#[test]
fn routes_of_the_host_are_listed_without_default_and_without_ours() {
    let mut desired = wish();
    desired.addresses.insert("10.32.0.1/12".parse().unwrap());
    let host = host(&desired);
    host.block_on(|| async {
        underlay(&stranger()).await;
        let found: Vec<String> = fastpath()
            .host_routes()
            .await
            .unwrap()
            .iter()
            .map(|route| format!("{} {}", route.destination, route.device.as_deref().unwrap_or("-")))
            .collect();
        assert_eq!(found, ["10.40.0.0/16 u0", "192.0.2.0/24 u0"]);
    });
}

#[test]
fn the_underlay_mtu_is_the_smallest_on_the_way() {
    let host = Namespace::new();
    host.block_on(|| async {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        assert_eq!(fastpath().underlay_mtu(&[]).await.unwrap(), 1500, "nothing is known");
        assert_eq!(fastpath().underlay_mtu(&[ip("192.0.2.9")]).await.unwrap(), 1500, "no route");

        underlay(&stranger()).await;
        assert_eq!(fastpath().underlay_mtu(&[]).await.unwrap(), 1400, "the default route's");
        assert_eq!(fastpath().underlay_mtu(&[ip("192.0.2.9"), ip("2001:db8::1")]).await.unwrap(), 1400);

        let narrow = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(Ipv4Addr::new(192, 0, 2, 7), 32)
            .output_interface(nix::net::if_::if_nametoindex("u0").unwrap());
        let mut narrow = narrow.build();
        let limit = netlink_packet_route::route::RouteMetric::Mtu(1300);
        narrow.attributes.push(netlink_packet_route::route::RouteAttribute::Metrics(vec![limit]));
        stranger().route().add(narrow).execute().await.unwrap();
        assert_eq!(fastpath().underlay_mtu(&[ip("192.0.2.9"), ip("192.0.2.7")]).await.unwrap(), 1300);
    });
}

#[test]
fn facts_tell_what_the_kernel_can_and_what_is_left_over() {
    let desired = wish_with(&["c1"]);
    let host = host(&desired);
    let (one, two) = (Namespace::new(), Namespace::new());
    attach(&host, &one, &link("c1", 1)).unwrap();
    attach(&host, &two, &link("c2", 2)).unwrap();
    let before = host.interfaces();
    host.block_on(|| async {
        let facts = fastpath().facts(Some(&desired)).await.unwrap();
        assert!(facts.bridge && facts.veth, "{facts:?}");
        assert!(facts.release > Some(Release { major: 3, minor: 0 }), "{facts:?}");
        assert_eq!(facts.ip_forward, Some(false), "a new namespace does not forward");
        assert_eq!(facts.leftovers, [host_end("c2")]);
        assert_eq!(fastpath().facts(None).await.unwrap().leftovers.len(), 5);
    });
    assert_eq!(host.interfaces(), before, "asking makes nothing");
}
