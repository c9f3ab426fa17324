//! What arrives where the router captures.
//!
//! ```text
//! c1 eth0 -- weft -- weft-sl <-> weft-io ==[ wire, in this test ]== weft-io <-> weft-sl -- weft -- eth0 c2
//!            host 1                                                             host 2
//! ```

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use ipnet::IpNet;
use rtnetlink::{LinkBridgePort, LinkVeth};
use weft_fastpath::Sleeve;

use crate::packet::{Tap, arp, arp_request, tcp_checksum_is_right};
use crate::world::{MTU, Namespace, attach, fastpath, host, link, wish};

const TICK: Duration = Duration::from_millis(100);

/// What went over the wire in one direction.
#[derive(Debug, Default)]
struct Seen {
    tcp: u32,
    unfinished: u32,
    longest: usize,
}

/// Carries frames one way until told to stop.
fn carry(from: &mut Tap, to: &Tap, stop: &AtomicBool) -> Seen {
    let mut seen = Seen::default();
    while !stop.load(Ordering::Relaxed) {
        let Some(frame) = from.next() else { continue };
        seen.longest = seen.longest.max(frame.len());
        if let Some(right) = tcp_checksum_is_right(frame) {
            seen.tcp += 1;
            seen.unfinished += u32::from(!right);
        }
        // A frame that is too long for the wire is lost on it.
        let _ = to.send(frame);
    }
    seen
}

/// Sends `size` bytes from c1 to c2 over two hosts; says whether they arrived, and what was on the wire.
fn transfer(offloads: bool, size: usize) -> (bool, Seen) {
    let mut desired = wish();
    desired.sleeve = Some(Sleeve { offloads });
    let hosts = [host(&desired), host(&desired)];
    let containers = [Namespace::new(), Namespace::new()];
    attach(&hosts[0], &containers[0], &link("c1", 1)).unwrap();
    attach(&hosts[1], &containers[1], &link("c2", 2)).unwrap();
    let mut taps = hosts.each_ref().map(|host| Tap::open(host, "weft-io", TICK));
    let back = hosts.each_ref().map(|host| Tap::open(host, "weft-io", TICK));
    let listener = containers[1].run(|| TcpListener::bind("10.32.0.2:80").unwrap());
    let stop = AtomicBool::new(false);

    thread::scope(|scope| {
        let [here, there] = &mut taps;
        let there_task = scope.spawn(|| carry(here, &back[1], &stop));
        let here_task = scope.spawn(|| carry(there, &back[0], &stop));
        let arrived = containers[0].run(|| {
            let address = "10.32.0.2:80".parse().unwrap();
            let Ok(mut stream) = TcpStream::connect_timeout(&address, Duration::from_secs(3)) else {
                return false;
            };
            let (mut receiver, _) = listener.accept().unwrap();
            receiver.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            let reader = thread::spawn(move || {
                let mut bytes = Vec::new();
                receiver.read_to_end(&mut bytes).map(|_| bytes.len())
            });
            stream.write_all(&vec![7; size]).unwrap();
            drop(stream);
            reader.join().unwrap().is_ok_and(|arrived| arrived == size)
        });
        stop.store(true, Ordering::Relaxed);
        here_task.join().unwrap();
        (arrived, there_task.join().unwrap())
    })
}

#[test]
fn for_pcap_the_kernel_cuts_and_finishes_every_frame() {
    let (arrived, seen) = transfer(false, 2_000_000);
    assert!(arrived, "{seen:?}");
    assert!(seen.tcp > 1000, "{seen:?}");
    assert_eq!(seen.unfinished, 0, "{seen:?}");
    let limit = usize::try_from(MTU).unwrap() + 14;
    assert!(seen.longest <= limit, "{seen:?}");
}

/// The other half of the proof: with offloads on, frames do arrive unfinished, so the test above can fail.
#[test]
fn for_vnet_frames_arrive_as_the_container_made_them() {
    let (_, seen) = transfer(true, 100_000);
    assert!(seen.tcp > 0 && seen.unfinished == seen.tcp, "{seen:?}");
}

#[test]
fn what_the_router_injects_reaches_containers_but_no_other_isolated_port() {
    let host = host(&wish());
    let container = Namespace::new();
    attach(&host, &container, &link("c1", 1)).unwrap();
    host.block_on(|| async {
        let (connection, handle, _) = rtnetlink::new_connection().unwrap();
        tokio::spawn(connection);
        let bridge = nix::net::if_::if_nametoindex("weft").unwrap();
        let links = handle.link();
        links.add(LinkVeth::new("vx", "vx-far").controller(bridge).up().build()).execute().await.unwrap();
        let index = nix::net::if_::if_nametoindex("vx").unwrap();
        links.set_port(LinkBridgePort::new(index).isolated(true).build()).execute().await.unwrap();
        links.change(rtnetlink::LinkUnspec::new_with_name("vx-far").up().build()).execute().await.unwrap();
    });
    let sender = Tap::open(&host, "weft-io", TICK);
    let mut inside = Tap::open(&container, "eth0", Duration::from_secs(2));
    let mut isolated = Tap::open(&host, "vx-far", Duration::from_millis(500));
    let probe = arp_request([2, 0, 0, 0, 0, 7], [10, 32, 9, 9], [10, 32, 9, 8]);
    sender.send(&probe).unwrap();
    let is_probe = |frame: &[u8]| arp(frame).is_some_and(|arp| arp.sender == [10, 32, 9, 9]);
    let came = std::iter::from_fn(|| inside.next().map(is_probe)).any(|probe| probe);
    assert!(came, "the container did not get it");
    while let Some(frame) = isolated.next() {
        assert!(!is_probe(frame), "bridged from one isolated port to another");
    }
}

#[test]
fn the_host_answers_for_its_address_once_and_with_the_bridges_mac() {
    let mut desired = wish();
    desired.addresses.insert("10.32.0.100/12".parse::<IpNet>().unwrap());
    let host = host(&desired);
    let container = Namespace::new();
    attach(&host, &container, &link("c1", 1)).unwrap();
    let mut inside = Tap::open(&container, "eth0", Duration::from_millis(500));
    let asker = link("c1", 1).mac.octets();
    inside.send(&arp_request(asker, [10, 32, 0, 1], [10, 32, 0, 100])).unwrap();
    let mut answers = Vec::new();
    while let Some(frame) = inside.next() {
        answers.extend(arp(frame).filter(|arp| arp.reply).map(|arp| arp.sender_mac));
    }
    assert_eq!(answers, [desired.mac.octets()]);
    host.block_on(|| async { assert_eq!(fastpath().plan(&desired).await.unwrap(), []) });
}
