//! Attachments that fail, or are abandoned, at every step: nothing stays behind.

use std::future::Future;
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use weft_fastpath::{ContainerLink, DefaultRoute, Error};

use crate::world::{Namespace, again, attach, fastpath, host, host_end, link, wish};

/// Attaches with these descriptors and expects a refusal that leaves everything as it was.
fn fails(host: &Namespace, container: &Namespace, link: &ContainerLink, fds: (OwnedFd, OwnedFd)) -> Error {
    let before = (host.interfaces(), container.interfaces());
    let (namespace, netlink) = fds;
    let error = host.block_on(|| async {
        let seen = fastpath().observe().await.unwrap();
        let namespace = std::os::fd::AsFd::as_fd(&namespace);
        let error = fastpath().attach(link, namespace, netlink).await.unwrap_err();
        assert_eq!(fastpath().observe().await.unwrap(), seen);
        error
    });
    assert_eq!((host.interfaces(), container.interfaces()), before);
    error
}

/// What every link of ours is born with.
fn group() -> netlink_packet_route::link::LinkAttribute {
    netlink_packet_route::link::LinkAttribute::Group(weft_fastpath::names::GROUP)
}

fn descriptors(namespace: &Namespace) -> (OwnedFd, OwnedFd) {
    (namespace.descriptor().try_clone_to_owned().unwrap(), namespace.netlink())
}

#[test]
fn wrong_descriptors_are_told_apart() {
    let host = host(&wish());
    let (container, other) = (Namespace::new(), Namespace::new());
    let (namespace, netlink) = descriptors(&container);
    let file: OwnedFd = std::fs::File::open("/dev/null").unwrap().into();
    let udp: OwnedFd = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().into();
    for (fds, words) in [
        ((again(&file), again(&netlink)), "is not a network namespace"),
        ((again(&namespace), again(&file)), "is not a route netlink socket"),
        ((again(&namespace), udp), "is not a route netlink socket"),
        ((again(&namespace), other.netlink()), "was not opened in the namespace that came with it"),
        (descriptors(&host), "is the host's own network namespace"),
    ] {
        let error = fails(&host, &container, &link("c1", 1), fds).to_string();
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn an_interface_of_that_name_inside_is_said_and_left() {
    let host = host(&wish());
    let container = Namespace::new();
    attach(&host, &container, &link("first", 1)).unwrap();
    let error = fails(&host, &container, &link("second", 2), descriptors(&container));
    assert_eq!(error.to_string(), "interface `eth0`: the container has an interface of that name already");
}

#[test]
fn a_foreign_interface_with_the_host_ends_name_is_said_and_left() {
    let host = host(&wish());
    let container = Namespace::new();
    host.block_on(|| async {
        let (connection, handle, _) = rtnetlink::new_connection().unwrap();
        tokio::spawn(connection);
        handle.link().add(rtnetlink::LinkVeth::new(&host_end("c1"), "x").build()).execute().await.unwrap();
    });
    let error = fails(&host, &container, &link("c1", 1), descriptors(&container));
    assert!(matches!(error, Error::Conflict { .. }), "{error}");
    host.block_on(|| async { fastpath().detach("c1", "eth0").await }).unwrap();
    assert!(host.has(&host_end("c1")), "detaching ours does not take theirs");
}

#[test]
fn a_link_whose_maker_died_before_it_could_mark_it_is_detached() {
    let (host, container) = (host(&wish()), Namespace::new());
    host.block_on(|| async {
        let (connection, handle, _) = rtnetlink::new_connection().unwrap();
        tokio::spawn(connection);
        let born = rtnetlink::LinkVeth::new(&host_end("c1"), "x").append_extra_attribute(group());
        handle.link().add(born.build()).execute().await.unwrap();
        fastpath().detach("c2", "eth0").await.unwrap();
    });
    assert!(host.has(&host_end("c1")), "detaching another does not take it");
    host.block_on(|| async { fastpath().detach("c1", "eth0").await }).unwrap();
    assert!(!host.has(&host_end("c1")));
    attach(&host, &container, &link("c1", 1)).unwrap();
}

#[test]
fn a_gateway_that_cannot_be_reached_fails_at_the_last_step_and_takes_all_back() {
    let host = host(&wish());
    let container = Namespace::new();
    let mut link = link("c1", 1);
    link.gateway = DefaultRoute::Via("192.0.2.1".parse().unwrap());
    let error = fails(&host, &container, &link, descriptors(&container));
    assert_eq!(
        error.to_string(),
        "cannot add default route in the container: the gateway cannot be reached through this interface"
    );
}

#[test]
fn without_a_bridge_nothing_is_made() {
    let host = Namespace::new();
    let container = Namespace::new();
    let error = fails(&host, &container, &link("c1", 1), descriptors(&container));
    assert_eq!(error.to_string(), "bridge weft: it does not stand (yet)");
}

#[test]
fn a_failure_does_not_take_away_a_link_that_stood() {
    let host = host(&wish());
    let container = Namespace::new();
    let mut good = link("c1", 1);
    good.gateway = DefaultRoute::None;
    let first = attach(&host, &container, &good).unwrap();
    let mut bad = good;
    bad.gateway = DefaultRoute::Via("192.0.2.1".parse().unwrap());
    bad.mtu = 1300;
    let error = fails(&host, &container, &bad, descriptors(&container));
    assert_eq!(error.errno(), Some(libc::ENETUNREACH), "{error}");
    assert_eq!(host.index(&host_end("c1")), first.ifindex);
}

#[test]
fn bad_arguments_are_refused_in_words() {
    let host = host(&wish());
    let container = Namespace::new();
    let good = link("c1", 1);
    for (bad, words) in [
        (ContainerLink { ifname: "much-too-long-name".into(), ..good.clone() }, "at most 15 bytes"),
        (ContainerLink { id: String::new(), ..good.clone() }, "1 to 200 printable bytes"),
        (ContainerLink { mtu: 100, ..good.clone() }, "MTU 100 is not between 576 and 65535"),
        (ContainerLink { mac: "ff:ff:ff:ff:ff:ff".parse().unwrap(), ..good.clone() }, "multicast MAC"),
        (
            ContainerLink { addresses: vec!["224.0.0.1/4".parse().unwrap()], ..good },
            "not an address of a host",
        ),
    ] {
        let error = fails(&host, &container, &bad, descriptors(&container)).to_string();
        assert!(error.contains(words), "{error}");
    }
}

/// The call is dropped after one poll, after two, and so on, until one of them finishes.
#[test]
fn abandoned_at_any_moment_it_is_undone() {
    let host = host(&wish());
    let container = Namespace::new();
    let mut finished = false;
    let mut undone = 0;
    for polls in 1..500 {
        let netlink = container.netlink();
        let link = link("c1", 1);
        let done = host.block_on(|| async {
            let mut fastpath = fastpath();
            let done = {
                let mut attaching = pin!(fastpath.attach(&link, container.descriptor(), netlink));
                let mut left = polls;
                std::future::poll_fn(move |context| match attaching.as_mut().poll(context) {
                    Poll::Ready(result) => Poll::Ready(Some(result)),
                    Poll::Pending => {
                        left -= 1;
                        if left == 0 { Poll::Ready(None) } else { Poll::Pending }
                    }
                })
                .await
            };
            if done.is_none() {
                for _ in 0..200 {
                    if !container.has("eth0") {
                        break;
                    }
                    undone += 1;
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
            done
        });
        match done {
            Some(result) => {
                result.unwrap();
                finished = true;
                break;
            }
            None => {
                assert!(!container.has("eth0") && !host.has(&host_end("c1")), "left after {polls} polls");
            }
        }
    }
    assert!(finished, "never came to an end");
    assert!(undone > 0, "never abandoned with something to undo");
}
