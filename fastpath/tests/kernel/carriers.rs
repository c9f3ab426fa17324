//! Changing the carrier under traffic.
//!
//! ```text
//! c1 -- weft -- weft-vx ====[ underlay ]==== weft-vx -- weft -- c2
//!         +---- weft-sl <-> weft-io ==[ wire, in this test ]== weft-io <-> weft-sl ----+
//! ```

use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use futures_util::TryStreamExt;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::neighbour::{NeighbourAttribute, NeighbourFlags};
use weft_fastpath::{Desired, MacAddr, Port, Underlay};

use crate::mesh::{Mesh, mesh, stranger, vtep, wants};
use crate::packet::{Tap, arp_request};
use crate::vxlan::{containers, udp};
use crate::world::{Namespace, fastpath, host_end};

/// Between two pings.
const EVERY: Duration = Duration::from_millis(10);

/// How often both ends sweep at most.
const SWEEPS: usize = 20;

/// Carries unicast frames one way until told to stop, and counts them.
fn carry(from: &mut Tap, to: &Tap, carried: &AtomicUsize, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        if let Some(frame) = from.next().filter(|frame| frame[0] & 1 == 0) {
            carried.fetch_add(1, Ordering::Relaxed);
            // A frame that is too long for the wire is lost on it.
            let _ = to.send(frame);
        }
    }
}

/// Pings until told to stop; says how often each ping was answered.
fn ping(socket: &UdpSocket, stop: &AtomicBool) -> Vec<u32> {
    let mut answers: Vec<u32> = Vec::new();
    let mut buffer = [0; 16];
    let mut hear = |until: Instant, answers: &mut Vec<u32>| loop {
        let left = until.saturating_duration_since(now());
        if left.is_zero() {
            return;
        }
        socket.set_read_timeout(Some(left)).unwrap();
        if socket.recv(&mut buffer).is_ok_and(|length| length == 4) {
            let number = u32::from_be_bytes(buffer[..4].try_into().unwrap());
            answers[number as usize] += 1;
        }
    };
    while !stop.load(Ordering::Relaxed) {
        let number = u32::try_from(answers.len()).unwrap();
        answers.push(0);
        socket.send_to(&number.to_be_bytes(), "10.32.0.2:7000").unwrap();
        hear(now() + EVERY, &mut answers);
    }
    hear(now() + Duration::from_millis(300), &mut answers);
    answers
}

fn echo(socket: &UdpSocket, stop: &AtomicBool) {
    let mut buffer = [0; 16];
    while !stop.load(Ordering::Relaxed) {
        if let Ok((length, from)) = socket.recv_from(&mut buffer) {
            socket.send_to(&buffer[..length], from).unwrap();
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "a stopwatch")]
fn now() -> Instant {
    Instant::now()
}

fn container(last: u8) -> MacAddr {
    MacAddr::from_ip([10, 32, 0, last].into())
}

/// What each of the two hosts wants while the other is on fastpath, or not.
fn pair(on_fastpath: bool) -> [Desired; 2] {
    [1, 2].map(|me| {
        let mut desired = wants(me, Underlay::V4, 1..=2);
        for remote in desired.vxlan.as_mut().unwrap().remotes.values_mut() {
            remote.default = on_fastpath;
        }
        desired
    })
}

/// Both ends leave VXLAN, or come back to it. A frame that is on its way while only one end has changed is learned by
/// the old carrier, and takes its sender with it; so both sweep until the pings go the new way, and only there.
fn change(mesh: &Mesh, carried: &AtomicUsize, leave: bool) {
    let wishes = pair(!leave);
    let other = [container(2), container(1)];
    let to = |at: usize| if leave { Port::Sleeve } else { Port::Vxlan(vtep(2 - at)) };
    let each = |work: &dyn Fn(usize)| (0..2).for_each(work);
    let sweep = |at: usize| {
        mesh.hosts[at].block_on(|| async { fastpath().move_macs(&[other[at]], to(at)).await.unwrap() });
    };
    let converge = |at: usize| {
        mesh.hosts[at].block_on(|| async { drop(fastpath().converge(&wishes[at]).await.unwrap()) });
    };
    // The way back must lead somewhere before it is taken, the way out may lead nowhere only once it is left.
    if !leave {
        each(&converge);
    }
    let settled = (0..SWEEPS).any(|_| {
        each(&sweep);
        pause(&mesh.hosts[0], EVERY * 3);
        let before = carried.load(Ordering::Relaxed);
        pause(&mesh.hosts[0], EVERY * 5);
        let by_sleeve = carried.load(Ordering::Relaxed) > before;
        let by_vxlan = |at: usize| {
            let macs = mesh.hosts[at].block_on(|| async { fastpath().macs().await.unwrap() });
            macs.iter().any(|(mac, _)| *mac == other[at])
        };
        (by_sleeve, by_vxlan(0), by_vxlan(1)) == (leave, !leave, !leave)
    });
    assert!(settled, "leave: {leave}");
    if leave {
        each(&converge);
    }
}

#[test]
fn addresses_move_out_and_back_under_a_ping_and_none_is_lost_or_doubled() {
    let mesh = mesh(2, Underlay::V4);
    let containers = containers(&mesh);
    let sockets = [udp(&containers[0], 1), udp(&containers[1], 2)];
    let tick = Duration::from_millis(50);
    let mut taps: Vec<Tap> = mesh.hosts.iter().map(|host| Tap::open(host, "weft-io", tick)).collect();
    let back: Vec<Tap> = mesh.hosts.iter().map(|host| Tap::open(host, "weft-io", tick)).collect();
    let (stop, done) = (AtomicBool::new(false), AtomicBool::new(false));
    let carried = AtomicUsize::new(0);
    // Until both have announced themselves for the second time: that goes to all, and this wire carries no such thing.
    pause(&mesh.hosts[0], Duration::from_millis(1300));

    let answers = thread::scope(|scope| {
        let [here, there] = taps.as_mut_slice() else { panic!("two hosts") };
        let (carried, stop, done) = (&carried, &stop, &done);
        let (to_here, to_there) = (&back[0], &back[1]);
        let _stop = Finally(stop);
        scope.spawn(move || carry(here, to_there, carried, stop));
        scope.spawn(move || carry(there, to_here, carried, stop));
        scope.spawn(|| echo(&sockets[1], stop));
        let pinging = scope.spawn(|| ping(&sockets[0], done));
        let all_sent = Finally(done);
        // The first ping asks for addresses, which is flooded; by then both ends are learned.
        pause(&mesh.hosts[0], Duration::from_millis(300));
        for _ in 0..15 {
            change(&mesh, carried, true);
            change(&mesh, carried, false);
        }
        drop(all_sent);
        pinging.join().unwrap()
    });
    let lost = answers.iter().filter(|count| **count == 0).count();
    let doubled = answers.iter().filter(|count| **count > 1).count();
    println!(
        "{} pings, {lost} lost, {doubled} doubled, {} frames by sleeve",
        answers.len(),
        carried.into_inner()
    );
    assert!(answers.len() > 100);
    assert_eq!((lost, doubled), (0, 0));
}

/// Tells threads to end, also when this one panics.
struct Finally<'a>(&'a AtomicBool);

impl Drop for Finally<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn an_address_that_has_moved_here_is_not_sent_away() {
    let mesh = mesh(2, Underlay::V4);
    let containers = containers(&mesh);
    let frame = |from: &Namespace| {
        let request = arp_request([2, 0, 0, 0, 0, 5], [10, 32, 0, 5], [10, 32, 0, 6]);
        Tap::open(from, "eth0", EVERY).send(&request).unwrap();
    };
    let moved = MacAddr::new([2, 0, 0, 0, 0, 5]);
    // First it was there, now it is here; the VXLAN device has not forgotten.
    frame(&containers[1]);
    pause(&mesh.hosts[0], Duration::from_millis(100));
    frame(&containers[0]);
    let port = mesh.hosts[0].index(&host_end("c0"));
    mesh.hosts[0].block_on(|| async {
        let mut fastpath = fastpath();
        assert!(fastpath.macs().await.unwrap().iter().any(|(mac, _)| *mac == moved));
        fastpath.move_macs(&[moved], Port::Sleeve).await.unwrap();
        assert!(fastpath.macs().await.unwrap().iter().all(|(mac, _)| *mac != moved));
        fastpath.move_macs(&[moved], Port::Vxlan(vtep(2))).await.unwrap();
        assert_eq!(behind(moved).await, Some(port));
    });
}

#[test]
fn an_address_moved_to_vxlan_can_be_moved_back_before_a_frame_of_its_own_has_come() {
    let mesh = mesh(2, Underlay::V4);
    let station = MacAddr::new([2, 0, 0, 0, 0, 7]);
    let request = arp_request(station.octets(), [10, 32, 0, 7], [10, 32, 0, 6]);
    Tap::open(&mesh.hosts[0], "weft-io", EVERY).send(&request).unwrap();
    let sleeve = mesh.hosts[0].index("weft-sl");
    mesh.hosts[0].block_on(|| async {
        let mut fastpath = fastpath();
        assert_eq!(behind(station).await, Some(sleeve));
        fastpath.move_macs(&[station], Port::Vxlan(vtep(2))).await.unwrap();
        assert_ne!(behind(station).await, Some(sleeve));
        assert_eq!(fastpath.macs().await.unwrap(), [(station, vtep(2).ip())]);
        fastpath.move_macs(&[station], Port::Sleeve).await.unwrap();
        assert_eq!(behind(station).await, Some(sleeve));
        assert_eq!(fastpath.macs().await.unwrap(), []);
        fastpath.flush_sleeve().await.unwrap();
        assert_eq!(behind(station).await, None);
    });
}

#[test]
fn what_was_learned_behind_a_host_that_is_not_served_any_more_can_be_forgotten() {
    let mesh = mesh(2, Underlay::V4);
    let station = MacAddr::new([2, 0, 0, 0, 0, 7]);
    let request = arp_request(station.octets(), [10, 32, 0, 7], [10, 32, 0, 6]);
    Tap::open(&mesh.hosts[0], "weft-io", EVERY).send(&request).unwrap();
    mesh.hosts[0].block_on(|| async {
        let mut fastpath = fastpath();
        fastpath.move_macs(&[station], Port::Vxlan(vtep(2))).await.unwrap();
        let port = behind(station).await;
        fastpath.flush_vxlan(&[vtep(2).ip()].into()).await.unwrap();
        assert_eq!(fastpath.macs().await.unwrap(), [(station, vtep(2).ip())]);
        assert!(port.is_some() && behind(station).await == port);
        fastpath.flush_vxlan(&[vtep(1).ip()].into()).await.unwrap();
        assert_eq!(fastpath.macs().await.unwrap(), []);
        assert_eq!(behind(station).await, None);
    });
}

/// The index of the bridge port that leads to an address.
async fn behind(wanted: MacAddr) -> Option<u32> {
    let stranger = stranger();
    let dump = stranger.neighbours().get().set_address_family(AddressFamily::Bridge);
    let all: Vec<_> = dump.execute().try_collect().await.unwrap();
    let mac = NeighbourAttribute::LinkLayerAddress(wanted.octets().to_vec());
    let of_bridge = all.iter().filter(|entry| !entry.header.flags.contains(NeighbourFlags::Own));
    of_bridge.filter(|entry| entry.attributes.contains(&mac)).map(|entry| entry.header.ifindex).next()
}

fn pause(host: &Namespace, time: Duration) {
    host.block_on(|| async { tokio::time::sleep(time).await });
}
