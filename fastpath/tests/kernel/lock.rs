//! What a container may send, and what not, frame by frame.
//!
//! ```text
//!  attacker: eth0 10.32.0.1, 0a:58:0a:20:00:01 -- wv.. \
//!                                                       weft (host)
//!  victim:   eth0 10.32.0.2, 0a:58:0a:20:00:02 -- wv.. /
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use weft_fastpath::{Lock, MacAddr, Policy};

use crate::filter::{ip, run};
use crate::masquerade::converge;
use crate::packet::Tap;
use crate::world::{Namespace, attach, fastpath, host, host_end, link, wish_with};

const SOON: Duration = Duration::from_secs(2);
const NEVER: Duration = Duration::from_millis(150);
const OWN: [u8; 6] = [0x0a, 0x58, 10, 32, 0, 1];
const VICTIM: [u8; 6] = [0x0a, 0x58, 10, 32, 0, 2];
const EVERYBODY: [u8; 6] = [0xff; 6];
const ME: [u8; 4] = [10, 32, 0, 1];
const YOU: [u8; 4] = [10, 32, 0, 2];

fn lock(last: u8, more: &[&str]) -> Lock {
    let address = std::net::Ipv4Addr::new(10, 32, 0, last);
    let addresses: BTreeSet<IpAddr> = more.iter().map(|text| ip(text)).chain([IpAddr::V4(address)]).collect();
    Lock { mac: MacAddr::from_ip(address), addresses }
}

fn policy() -> Policy {
    let locks = [(host_end("c1"), lock(1, &["fd00::1"])), (host_end("c2"), lock(2, &[]))];
    Policy { locks: BTreeMap::from(locks), ..Policy::default() }
}

struct World {
    host: Namespace,
    attacker: Namespace,
    victim: Namespace,
}

impl World {
    fn new() -> Self {
        let host = host(&wish_with(&["c1", "c2"]));
        let (attacker, victim) = (Namespace::new(), Namespace::new());
        attach(&host, &attacker, &link("c1", 1)).unwrap();
        attach(&host, &victim, &link("c2", 2)).unwrap();
        Self { host, attacker, victim }
    }

    /// Whether a frame of the attacker gets to the victim.
    fn passes(&self, frame: &[u8], patience: Duration) -> bool {
        let mut inside = Tap::open(&self.victim, "eth0", patience);
        Tap::open(&self.attacker, "eth0", NEVER).send(frame).unwrap();
        // A packet socket takes a VLAN tag out.
        let untagged =
            if frame[12..14] == [0x81, 0] { [&frame[..12], &frame[16..]].concat() } else { frame.to_vec() };
        std::iter::from_fn(|| inside.next().map(|found| found == untagged)).any(|same| same)
    }

    fn dropped(&self) -> BTreeMap<String, u64> {
        let state = self.host.block_on(|| async { fastpath().observe_policy().await }).unwrap();
        state.dropped().iter().map(|(reason, count)| ((*reason).to_owned(), count.packets)).collect()
    }
}

/// A frame without padding: `br_netfilter` would cut it off.
fn ethernet(to: [u8; 6], from: [u8; 6], ethertype: u16, content: &[u8]) -> Vec<u8> {
    [&to[..], &from, &ethertype.to_be_bytes(), content].concat()
}

fn sum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap()
}

/// A UDP datagram over IPv4, with `options` words of no operation before it.
fn udp4(mac: [u8; 6], from: [u8; 4], to: [u8; 4], ports: (u16, u16), options: u8) -> Vec<u8> {
    let length = 20 + u16::from(options) * 4 + 12;
    let mut header = vec![0x45 + options, 0];
    header.extend(length.to_be_bytes());
    header.extend([0, 0, 0, 0, 64, 17, 0, 0]);
    header.extend(from);
    header.extend(to);
    header.extend(vec![1; usize::from(options) * 4]);
    let check = sum(&header).to_be_bytes();
    header[10..12].copy_from_slice(&check);
    header.extend(ports.0.to_be_bytes());
    header.extend(ports.1.to_be_bytes());
    header.extend([0, 12, 0, 0, 1, 2, 3, 4]);
    ethernet(EVERYBODY, mac, 0x0800, &header)
}

/// An ARP message of that form (kinds and lengths of addresses).
fn arp(mac: [u8; 6], form: [u8; 6], sender: ([u8; 6], [u8; 4]), kind: u8) -> Vec<u8> {
    let content = [&form[..], &[0, kind], &sender.0, &sender.1, &[0; 6], &YOU].concat();
    ethernet(EVERYBODY, mac, 0x0806, &content)
}

/// An IPv6 packet; with `behind`, an extension header (destination options) before what it carries.
fn ipv6(from: &str, next: u8, content: &[u8], behind: bool) -> Vec<u8> {
    let IpAddr::V6(from) = ip(from) else { panic!("not IPv6") };
    let IpAddr::V6(to) = ip("ff02::1") else { panic!("not IPv6") };
    let extension: &[u8] = if behind { &[next, 0, 1, 4, 0, 0, 0, 0] } else { &[] };
    let length = u16::try_from(extension.len() + content.len()).unwrap();
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(length.to_be_bytes());
    packet.extend([if behind { 60 } else { next }, 255]);
    packet.extend(from.octets());
    packet.extend(to.octets());
    packet.extend(extension);
    packet.extend(content);
    ethernet([0x33, 0x33, 0, 0, 0, 1], OWN, 0x86dd, &packet)
}

const ARP_FORM: [u8; 6] = [0, 1, 8, 0, 6, 4];
const UDP6_TO_CLIENT: [u8; 12] = [9, 9, 2, 34, 0, 12, 0, 0, 1, 2, 3, 4];
const UDP6_FROM_SERVER: [u8; 12] = [2, 35, 9, 9, 0, 12, 0, 0, 1, 2, 3, 4];

/// What a container has every right to send.
fn honest() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("UDP", udp4(OWN, ME, YOU, (5000, 5000), 0)),
        ("UDP with options", udp4(OWN, ME, YOU, (5000, 5000), 1)),
        ("ARP request", arp(OWN, ARP_FORM, (OWN, ME), 1)),
        ("ARP reply", arp(OWN, ARP_FORM, (OWN, ME), 2)),
        ("ARP probe", arp(OWN, ARP_FORM, (OWN, [0; 4]), 1)),
        ("neighbour solicitation", ipv6("fe80::1", 58, &[135; 24], false)),
        ("duplicate address detection", ipv6("::", 58, &[135; 24], false)),
        ("its IPv6 address", ipv6("fd00::1", 58, &[128; 24], false)),
    ]
}

/// What it has not, and why.
fn attacks() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("another's MAC address", udp4(VICTIM, ME, YOU, (5000, 5000), 0)),
        ("another's MAC address", arp(VICTIM, ARP_FORM, (OWN, ME), 1)),
        ("another's IPv4 address", udp4(OWN, YOU, ME, (5000, 5000), 0)),
        ("another's IPv4 address", udp4(OWN, [0; 4], [255; 4], (68, 67), 0)),
        ("a DHCP server", udp4(OWN, ME, [255; 4], (67, 68), 0)),
        ("a DHCP server", udp4(OWN, ME, [255; 4], (4000, 68), 1)),
        ("ARP in another's name", arp(OWN, ARP_FORM, (OWN, YOU), 2)),
        ("ARP in another's name", arp(OWN, ARP_FORM, (VICTIM, ME), 2)),
        ("ARP in another's name", arp(OWN, ARP_FORM, (VICTIM, [0; 4]), 1)),
        ("ARP in another's name", arp(OWN, [0, 6, 8, 0, 6, 4], (OWN, ME), 1)),
        ("neither IP nor ARP", ethernet(EVERYBODY, OWN, 0x88b5, b"a probe of weft")),
        ("neither IP nor ARP", ethernet(EVERYBODY, OWN, 0x8100, &[&[0, 5, 8, 0][..], &[0; 40]].concat())),
        ("a router advertisement", ipv6("fe80::1", 58, &[134; 16], false)),
        ("a router advertisement", ipv6("fe80::1", 58, &[134; 16], true)),
        ("a redirect", ipv6("fe80::1", 58, &[137; 40], false)),
        ("a DHCPv6 server", ipv6("fe80::1", 17, &UDP6_TO_CLIENT, false)),
        ("a DHCPv6 server", ipv6("fe80::1", 17, &UDP6_FROM_SERVER, false)),
        ("another's IPv6 address", ipv6("fd00::2", 58, &[128; 24], false)),
    ]
}

#[test]
fn what_is_honest_passes_and_each_attack_is_dropped_and_counted_by_its_reason() {
    let world = World::new();
    for (what, frame) in attacks().into_iter().chain(honest()) {
        assert!(world.passes(&frame, SOON), "without a lock everything passes: {what}");
    }
    assert_eq!(converge(&world.host, &policy()), ["create the port lock: 2 ports"]);
    for (what, frame) in honest() {
        assert!(world.passes(&frame, SOON), "{what}");
    }
    for (reason, frame) in attacks() {
        let before = world.dropped();
        assert!(!world.passes(&frame, NEVER), "{reason}: {frame:02x?}");
        let (before, after) = (before[reason], world.dropped()[reason]);
        assert!(after > before, "not counted as {reason}: {frame:02x?}");
    }
}

/// Has the bridge learn from frames that no bridge passes on, or not.
fn learn_from_link_local(world: &World, on: bool) {
    let word = if on { "0" } else { "1" };
    world.host.run(|| run("ip", &format!("link set weft type bridge no_linklocal_learn {word}")));
}

#[test]
fn a_frame_that_no_bridge_passes_on_does_not_take_over_another_mac() {
    let world = World::new();
    // In the victim's name: 802.1X, which the lock sees, and LLDP, which no filter of a bridge ever sees.
    let frames = [(3, 0x888e), (0x0e, 0x88cc)]
        .map(|(last, ethertype)| ethernet([0x01, 0x80, 0xc2, 0, 0, last], VICTIM, ethertype, &[0; 46]));
    let behind = || {
        let shown = world.host.run(|| run("bridge", "fdb show br weft"));
        let line = shown.lines().find(|line| line.starts_with("0a:58:0a:20:00:02") && !line.contains("self"));
        line.and_then(|line| line.split(' ').nth(2)).map(str::to_owned)
    };
    let say_hello = || {
        let hello =
            ethernet(EVERYBODY, VICTIM, 0x0806, &[&ARP_FORM[..], &[0, 1], &VICTIM, &YOU, &[0; 10]].concat());
        let mut inside = Tap::open(&world.attacker, "eth0", SOON);
        Tap::open(&world.victim, "eth0", NEVER).send(&hello).unwrap();
        assert!(std::iter::from_fn(|| inside.next().map(|found| found == hello)).any(|same| same));
    };
    // Where the victim is, for the bridge, after an attack.
    let attacked = |frame: &[u8]| {
        say_hello();
        Tap::open(&world.attacker, "eth0", NEVER).send(frame).unwrap();
        // Nobody answers that one, with a MAC address of its own; behind it, the attack has been seen.
        assert!(world.passes(&honest()[5].1, SOON));
        behind()
    };
    learn_from_link_local(&world, true);
    for frame in &frames {
        // The victim's own kernel may say something in between.
        let taken = (0..20).any(|_| attacked(frame) == Some(host_end("c1")));
        assert!(taken, "a bridge as the kernel makes it is taken in: {frame:02x?}");
    }
    assert_eq!(
        world
            .host
            .block_on(|| async { fastpath().converge(&wish_with(&["c1", "c2"])).await.unwrap().changes })
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>(),
        ["weft: learning from link-local frames off"]
    );
    for frame in frames.iter().cycle().take(6) {
        assert_eq!(attacked(frame), Some(host_end("c2")), "without a lock: {frame:02x?}");
    }
    converge(&world.host, &policy());
    for frame in frames.iter().cycle().take(6) {
        assert_eq!(attacked(frame), Some(host_end("c2")), "with a lock: {frame:02x?}");
    }
    assert_eq!(world.dropped()["another's MAC address"], 3);
}

#[test]
fn a_port_more_is_elements_only_and_ports_without_a_lock_are_free() {
    let world = World::new();
    let mut one = policy();
    one.locks.remove(&host_end("c1"));
    converge(&world.host, &one);
    let forged = udp4(OWN, YOU, ME, (5000, 5000), 0);
    assert!(world.passes(&forged, SOON), "its port has no lock");
    let rules = || world.host.run(|| run("nft", "-a -s list chain bridge weft-weft judge_ip"));
    let before = rules();
    let changes = converge(&world.host, &policy());
    assert_eq!(changes.len(), 4, "{changes:?}");
    assert_eq!(rules(), before);
    assert!(!world.passes(&forged, NEVER));
    assert_eq!(converge(&world.host, &policy()), Vec::<String>::new());
    assert_eq!(converge(&world.host, &one).len(), 4);
    assert!(world.passes(&forged, SOON));
}

#[test]
fn nft_can_show_the_lock_and_tearing_down_takes_it() {
    let world = World::new();
    converge(&world.host, &policy());
    let shown = world.host.run(|| run("nft", "list table bridge weft-weft"));
    for line in [
        "iifname . ether saddr != @macs counter packets",
        "type ifname . ether_addr",
        "iifname . @nh,96,32 @addresses4 accept comment \"its address\"",
        "iifname @ports goto judge comment \"from a container\"",
        "udp sport 67 counter packets",
    ] {
        assert!(shown.contains(line), "{line} is not in {shown}");
    }
    world.host.run(|| run("nft", "flush chain bridge weft-weft judge_arp"));
    assert_eq!(converge(&world.host, &policy()), ["replace the port lock: chain judge_arp differs"]);
    let done = world.host.block_on(|| async { fastpath().teardown().await });
    assert!(done.removed.contains(&"nftables table bridge weft-weft".to_owned()), "{done:?}");
    assert_eq!(world.host.run(|| run("nft", "list ruleset")), "");
}
