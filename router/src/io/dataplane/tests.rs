//! The real thread, sockets and captures, in a network namespace of the test's own.
//!
//! ```text
//!   ca ─ sa [data half A] 127.0.0.1 ── UDP ── 127.0.0.1 [data half B] sb ─ cb
//! ```
//!
//! `ca` and `cb` stand for the bridges: the test writes and reads frames there. It plays the control half of both.

use super::*;
use crate::{
    dataplane::{Carrier, Counters, ForwardingTable},
    io::vnet::VnetCapture,
    switch::offload::VnetHeader,
};
use std::process::Command as Process;
use weft_fastpath::MacAddr;

const PATIENCE: Duration = Duration::from_secs(5);
const A: PeerName = PeerName::from_u64(1);
const B: PeerName = PeerName::from_u64(2);
const MAC_A: MacAddr = MacAddr::new([2, 0, 0, 0, 0, 1]);
const MAC_B: MacAddr = MacAddr::new([2, 0, 0, 0, 0, 2]);
/// An ethertype for experiments, so that nothing else on the interfaces looks like a test frame.
const ETHERTYPE: [u8; 2] = [0x88, 0xb5];

/// Runs the test on a thread in a new network namespace, which ends with the thread.
fn in_namespace(test: fn()) {
    let thread = std::thread::spawn(move || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET)
            .expect("a network namespace needs root, or `unshare -Urnm`");
        std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1").unwrap();
        ip("link set lo up");
        test();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

fn ip(arguments: &str) {
    let status = Process::new("ip").args(arguments.split_whitespace()).status().unwrap();
    assert!(status.success(), "ip {arguments}");
}

fn port(host: &str) {
    ip(&format!("link add s{host} mtu 1450 type veth peer name c{host} mtu 1450"));
    ip(&format!("link set s{host} up"));
    ip(&format!("link set c{host} up"));
}

struct Host {
    me: PeerName,
    handle: DataplaneHandle,
    events: mpsc::Receiver<Event>,
    seen: Vec<Event>,
}

impl Host {
    fn start(me: PeerName, interface: &str, capture: CaptureMode) -> Self {
        let (sender, events) = mpsc::channel(64);
        let config = DataplaneConfig {
            me,
            encrypted: true,
            seed: [u8::try_from(me.as_u64()).unwrap(); 32],
            listen: "127.0.0.1:0".parse().unwrap(),
            interface: interface.into(),
            mtu: 1450,
            capture,
        };
        Self { me, handle: spawn(config, sender).unwrap(), events, seen: Vec::new() }
    }

    fn link(&self, other: &Self) {
        let address = SocketAddr::from(([127, 0, 0, 1], other.handle.port()));
        self.handle.send(Command::AddLink { peer: other.me, session: 1, address }).unwrap();
        let mut table = ForwardingTable::alone(self.me);
        table.next_hop = [(other.me, other.me)].into();
        table.flood = [(self.me, vec![other.me])].into();
        table.upstream = [(other.me, other.me)].into();
        table.carriers = [(other.me, Carrier::Sleeve)].into();
        self.handle.send(Command::Table(Arc::new(table))).unwrap();
    }

    fn counters(&mut self, pair: &mut Self) -> Counters {
        self.handle.send(Command::Counters).unwrap();
        until(|| {
            exchange(self, pair);
            let at = self.seen.iter().position(|event| matches!(event, Event::Counters(_)))?;
            let Event::Counters(counters) = self.seen.remove(at) else { return None };
            Some(*counters)
        })
    }

    fn is_up(&self) -> bool {
        self.seen.iter().any(|event| {
            matches!(event, Event::LinkUp { mtu: 9000, .. } | Event::LinkChanged { mtu: 9000, .. })
        })
    }
}

/// Passes announcements on, as two meshes would, and keeps the other events.
fn exchange(one: &mut Host, two: &mut Host) {
    for _ in 0..2 {
        while let Ok(event) = one.events.try_recv() {
            match event {
                Event::Announce { session, bytes, .. } => {
                    let peer = one.me;
                    two.handle.send(Command::Announced { peer, session, bytes }).unwrap();
                }
                event @ (Event::LinkUp { .. }
                | Event::LinkSuspect { .. }
                | Event::LinkDown { .. }
                | Event::LinkChanged { .. }
                | Event::Behind { .. }
                | Event::Counters(_)) => one.seen.push(event),
            }
        }
        std::mem::swap(one, two);
    }
}

/// Asks again until there is an answer.
fn until<T>(mut ask: impl FnMut() -> Option<T>) -> T {
    let end = now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(now() < end, "it took too long");
        poll(&mut [], 5_u8).unwrap();
    }
}

fn pair(one: CaptureMode, two: CaptureMode) -> (Host, Host) {
    port("a");
    port("b");
    let (mut one, mut two) = (Host::start(A, "sa", one), Host::start(B, "sb", two));
    one.link(&two);
    two.link(&one);
    until(|| {
        exchange(&mut one, &mut two);
        (one.is_up() && two.is_up()).then_some(())
    });
    (one, two)
}

fn probe(interface: &str) -> VnetCapture {
    VnetCapture::open(nix::net::if_::if_nametoindex(interface).unwrap()).unwrap()
}

fn frame(from: MacAddr, to: MacAddr, length: usize, mark: u8) -> Vec<u8> {
    let mut frame = [to.octets(), from.octets()].concat();
    frame.extend(ETHERTYPE);
    frame.resize(length, mark);
    frame
}

/// Reads test frames from a probe until there are as many as expected.
fn read(probe: &mut VnetCapture, count: usize, wanted: fn(&[u8]) -> bool) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    until(|| {
        probe.receive(&mut |frame, _| frames.extend(wanted(frame).then(|| frame.to_vec()))).unwrap();
        (frames.len() >= count).then_some(())
    });
    frames
}

fn is_test(frame: &[u8]) -> bool {
    frame[12..14] == ETHERTYPE
}

fn frames_cross(one: CaptureMode, two: CaptureMode) {
    let (mut one, mut two) = pair(one, two);
    let (mut bridge_a, mut bridge_b) = (probe("ca"), probe("cb"));
    for (mark, length) in [(1, 60), (2, 590), (3, 1464), (4, 1464), (5, 61)] {
        let there = frame(MAC_A, if mark == 1 { MacAddr::new([255; 6]) } else { MAC_B }, length, mark);
        bridge_a.inject(&there, None).unwrap();
        assert_eq!(read(&mut bridge_b, 1, is_test), [there]);
        let back = frame(MAC_B, MAC_A, length, mark);
        bridge_b.inject(&back, None).unwrap();
        assert_eq!(read(&mut bridge_a, 1, is_test), [back]);
    }
    let (from_a, from_b) = (one.counters(&mut two), two.counters(&mut one));
    for counters in [from_a, from_b] {
        assert_eq!((counters.captured.frames, counters.injected.frames), (5, 5), "no injection is captured");
        assert_eq!((counters.drops, counters.refusals), ([].into(), [].into()));
    }
}

#[test]
fn frames_cross_between_two_pcap_captures() {
    in_namespace(|| frames_cross(CaptureMode::Pcap, CaptureMode::Pcap));
}

#[test]
fn frames_cross_between_two_packet_sockets() {
    in_namespace(|| frames_cross(CaptureMode::Vnet, CaptureMode::Vnet));
}

#[test]
fn frames_cross_between_pcap_and_a_packet_socket() {
    in_namespace(|| frames_cross(CaptureMode::Pcap, CaptureMode::Auto));
}

/// A TCP segment of 40 × 1,000 bytes with an unfinished checksum, as a container's kernel hands it down.
fn super_frame() -> (Vec<u8>, VnetHeader) {
    let mut frame = [MAC_B.octets(), MAC_A.octets()].concat();
    frame.extend([8, 0, 0x45, 0]);
    frame.extend((40 + 40_000_u16).to_be_bytes());
    frame.extend([0, 1, 0x40, 0, 64, 6, 0, 0, 10, 9, 0, 1, 10, 9, 0, 2]);
    frame.extend([0, 80, 0, 81, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 1, 1, 0, 0, 0, 0]);
    frame.resize(54 + 40_000, 7);
    let vnet = VnetHeader {
        flags: 1,
        segmentation: 1,
        header_length: 54,
        segment_size: 1000,
        checksum_start: 34,
        checksum_offset: 16,
    };
    (frame, vnet)
}

fn is_tcp(frame: &[u8]) -> bool {
    frame[12..14] == [8, 0] && frame[23] == 6
}

#[test]
fn a_super_frame_arrives_whole_at_a_packet_socket() {
    in_namespace(|| {
        let (_one, _two) = pair(CaptureMode::Vnet, CaptureMode::Vnet);
        let (mut bridge_a, mut bridge_b) = (probe("ca"), probe("cb"));
        let (sent, vnet) = super_frame();
        bridge_a.inject(&sent, Some(vnet)).unwrap();
        assert_eq!(read(&mut bridge_b, 1, is_tcp)[0][54..], sent[54..]);
    });
}

#[test]
fn a_super_frame_arrives_in_segments_behind_pcap() {
    in_namespace(|| {
        let (_one, _two) = pair(CaptureMode::Vnet, CaptureMode::Pcap);
        let (mut bridge_a, mut bridge_b) = (probe("ca"), probe("cb"));
        let (sent, vnet) = super_frame();
        bridge_a.inject(&sent, Some(vnet)).unwrap();
        let segments = read(&mut bridge_b, 40, is_tcp);
        assert!(segments.iter().all(|segment| segment.len() == 1054));
        assert_eq!(segments.len(), 40);
    });
}

#[test]
fn a_tagged_frame_keeps_its_tag() {
    in_namespace(|| {
        let (_one, _two) = pair(CaptureMode::Vnet, CaptureMode::Pcap);
        let (mut bridge_a, mut bridge_b) = (probe("ca"), probe("cb"));
        let mut sent = frame(MAC_A, MacAddr::new([255; 6]), 100, 3);
        sent.splice(12..12, [0x81, 0, 0, 9]);
        for (from, to) in [(0, 1), (1, 0)] {
            let bridges = [&mut bridge_a, &mut bridge_b];
            bridges[from].inject(&sent, None).unwrap();
            let is_tagged = |frame: &[u8]| frame[12..18] == [0x81, 0, 0, 9, 0x88, 0xb5];
            assert_eq!(read(bridges[to], 1, is_tagged), [sent.clone()]);
        }
    });
}

#[test]
fn an_interface_that_is_deleted_and_made_again_is_captured_again() {
    in_namespace(|| {
        for mode in [CaptureMode::Pcap, CaptureMode::Vnet] {
            let (mut one, mut two) = pair(mode, mode);
            ip("link del sa");
            until(|| one.counters(&mut two).shell.capture.is_empty().then_some(()));
            port("a");
            until(|| (!one.counters(&mut two).shell.capture.is_empty()).then_some(()));
            let (mut bridge_a, mut bridge_b) = (probe("ca"), probe("cb"));
            let sent = frame(MAC_A, MacAddr::new([255; 6]), 100, 3);
            until(|| {
                bridge_a.inject(&sent, None).unwrap();
                let mut arrived = false;
                bridge_b.receive(&mut |frame, _| arrived |= frame == sent).unwrap();
                arrived.then_some(())
            });
            assert!(one.counters(&mut two).shell.capture_opened >= 2);
            let down = |event: &Event| matches!(event, Event::LinkDown { .. });
            assert!(!one.seen.iter().any(down), "the link lives on");
            drop((one, two));
            ip("link del sa");
            ip("link del sb");
        }
    });
}

#[test]
fn the_port_is_free_again_when_the_handle_is_dropped_and_not_before() {
    in_namespace(|| {
        port("a");
        let host = Host::start(A, "sa", CaptureMode::Pcap);
        let listen = SocketAddr::from(([127, 0, 0, 1], host.handle.port()));
        let config = host.me;
        let again = |interface: &str| {
            let (sender, _events) = mpsc::channel(1);
            let interface = interface.to_owned();
            let capture = CaptureMode::Auto;
            let seed = [0; 32];
            spawn(
                DataplaneConfig { me: config, encrypted: false, seed, listen, interface, mtu: 1450, capture },
                sender,
            )
        };
        assert_eq!(again("sa").err().map(|error| error.kind()), Some(io::ErrorKind::AddrInUse));
        drop(host);
        let handle = again("not-there-yet").unwrap();
        assert_eq!(handle.port(), listen.port());
    });
}
