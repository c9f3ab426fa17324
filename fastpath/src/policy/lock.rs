//! A container sends under its own addresses and no others, and is neither router nor DHCP server.
//!
//! ```text
//! table bridge weft-<bridge> {
//!   set ports      { type ifname }                  host ends of containers
//!   set macs       { type ifname . ether_addr }     what each may be
//!   set addresses4 { type ifname . ipv4_addr }
//!   set addresses6 { type ifname . ipv6_addr }
//!
//!   chain prerouting {
//!     type filter hook prerouting priority -300; policy accept;
//!     iifname @ports goto judge
//!   }
//!   chain input {
//!     type filter hook input priority -300; policy accept;
//!     ether daddr & ff:ff:ff:ff:ff:f0 == 01:80:c2:00:00:00 iifname @ports goto judge
//!   }
//!   chain judge {
//!     iifname . ether saddr != @macs counter drop
//!     ether type ip goto judge_ip
//!     ether type arp goto judge_arp
//!     ether type ip6 goto judge_ip6
//!     counter drop
//!   }
//!   chain judge_ip {
//!     udp sport 67 counter drop
//!     udp dport 68 counter drop
//!     iifname . ip saddr @addresses4 accept
//!     counter drop
//!   }
//!   chain judge_arp {
//!     @nh,0,48 0x000108000604 iifname . arp saddr ether @macs arp saddr ip 0.0.0.0 accept
//!     @nh,0,48 0x000108000604 iifname . arp saddr ether @macs iifname . arp saddr ip @addresses4 accept
//!     counter drop
//!   }
//!   chain judge_ip6 {
//!     icmpv6 type 134 counter drop
//!     icmpv6 type 137 counter drop
//!     udp sport 547 counter drop
//!     udp dport 546 counter drop
//!     ip6 saddr & ffc0:: == fe80:: accept
//!     ip6 saddr :: accept
//!     iifname . ip6 saddr @addresses6 accept
//!     counter drop
//!   }
//! }
//! ```
//!
//! (`nft` shows the fields of IP and ARP by their place, `@nh,96,32`, because their type was asked for one chain before.)
//!
//! A port more is an element in three sets, in one transaction. A frame costs at most four look-ups, one that comes
//! from elsewhere (a peer, the host) one.
//!
//! Why `input` too: frames to the sixteen addresses that no bridge passes on skip `prerouting`, but their sender is
//! learned, so one of them would be enough to take over another's MAC. One is out of reach here: LLDP (the last octet is
//! 0e) passes no hook of a bridge at all and is learned all the same, until the sender whose MAC it is speaks again.
//!
//! A reply of a DHCP server is known by where it goes too: it may come from any port. ARP from 0.0.0.0 asks whether an
//! address is free (RFC 5227) and claims nothing. Inside there is IPv4 only, so of IPv6 there is what the kernel
//! does by itself on a link, and addresses that were given. Link-local addresses are not tied to a port: the kernel
//! inside chooses them. Neighbour discovery in fragments, where the type cannot be seen, is dropped by those who
//! receive it (RFC 6980). A frame with a VLAN tag is neither IP nor ARP.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::mac::MacAddr;
use crate::table::{Base, Chain, Element, Expression, Header, Key, Meta, Rule, Set, Table};

/// `NF_BR_PRE_ROUTING` and `NF_BR_LOCAL_IN`, and `NF_BR_PRI_NAT_DST_BRIDGED`: before all others.
const PREROUTING: u32 = 0;
const INPUT: u32 = 1;
const PRIORITY: i32 = -300;

/// Ethernet types.
const IPV4: u16 = 0x0800;
const ARP: u16 = 0x0806;
const IPV6: u16 = 0x86dd;
/// `IPPROTO_UDP` and `IPPROTO_ICMPV6`.
const UDP: u8 = 17;
const ICMPV6: u8 = 58;
/// ARP for Ethernet and IPv4: kinds and lengths of both addresses (RFC 826).
const ARP_FORM: [u8; 6] = [0, 1, 8, 0, 6, 4];

const PORTS: &str = "ports";
const MACS: &str = "macs";
const ADDRESSES4: &str = "addresses4";
const ADDRESSES6: &str = "addresses6";

/// The longest name an interface can have; a longer one names none.
const NAME_LIMIT: usize = 15;

/// What one container may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lock {
    /// Its Ethernet address.
    pub mac: MacAddr,
    /// Its addresses.
    pub addresses: BTreeSet<IpAddr>,
}

/// The locks as a table.
pub(super) fn table(locks: &BTreeMap<String, Lock>) -> Table {
    let to_port = || vec![Expression::Meta(Meta::InterfaceIn), within(PORTS), goto("judge")];
    let reserved = vec![
        link(0, 6),
        Expression::Masked(vec![0xff, 0xff, 0xff, 0xff, 0xff, 0xf0]),
        is(&[0x01, 0x80, 0xc2, 0, 0, 0]),
    ];
    let base = |hook, conditions: Vec<Expression>| Chain {
        base: Some(Base { kind: "filter".to_owned(), hook, priority: PRIORITY, accepts: true }),
        rules: vec![rule("from a container", [conditions, to_port()].concat())],
    };
    let inner = |rules| Chain { base: None, rules };
    let chains = [
        ("prerouting", base(PREROUTING, Vec::new())),
        ("input", base(INPUT, reserved)),
        ("judge", inner(port())),
        ("judge_ip", inner(ipv4())),
        ("judge_arp", inner(arp())),
        ("judge_ip6", inner(ipv6())),
    ];
    let chains = chains.map(|(name, chain)| (name.to_owned(), chain));
    Table { flags: 0, chains: BTreeMap::from(chains), sets: sets(locks) }
}

fn sets(locks: &BTreeMap<String, Lock>) -> BTreeMap<String, Set> {
    let fits = |name: &str| (1..=NAME_LIMIT).contains(&name.len()) && !name.contains('\0');
    let locks = || locks.iter().filter(|(name, _)| fits(name));
    let addresses = |four: bool| {
        let of = move |(name, lock): (&String, &Lock)| {
            let canonical: Vec<IpAddr> = lock.addresses.iter().map(IpAddr::to_canonical).collect();
            let name = name.clone();
            let ours = canonical.into_iter().filter(move |address| address.is_ipv4() == four);
            ours.map(move |address| Element::InterfaceAddress(name.clone(), address))
        };
        locks().flat_map(of).collect()
    };
    let sets = [
        (PORTS, Key::Interface, locks().map(|(name, _)| Element::Interface(name.clone())).collect()),
        (
            MACS,
            Key::InterfaceMac,
            locks().map(|(name, lock)| Element::InterfaceMac(name.clone(), lock.mac)).collect(),
        ),
        (ADDRESSES4, Key::InterfaceIpv4, addresses(true)),
        (ADDRESSES6, Key::InterfaceIpv6, addresses(false)),
    ];
    sets.into_iter().map(|(name, key, elements)| (name.to_owned(), Set { key, flags: 0, elements })).collect()
}

fn port() -> Vec<Rule> {
    let of_type = |ethertype: u16, chain| {
        rule("what it carries", vec![link(12, 2), is(&ethertype.to_be_bytes()), goto(chain)])
    };
    vec![
        drop("another's MAC address", own(Header::Link, 6, 6, Expression::NotIn(MACS.to_owned()))),
        of_type(IPV4, "judge_ip"),
        of_type(ARP, "judge_arp"),
        of_type(IPV6, "judge_ip6"),
        drop("neither IP nor ARP", Vec::new()),
    ]
}

fn ipv4() -> Vec<Rule> {
    vec![
        drop("a DHCP server", transport(UDP, 0, &67_u16.to_be_bytes())),
        drop("a DHCP server", transport(UDP, 2, &68_u16.to_be_bytes())),
        accept("its address", own(Header::Network, 12, 4, within(ADDRESSES4))),
        drop("another's IPv4 address", Vec::new()),
    ]
}

fn arp() -> Vec<Rule> {
    let sender = || {
        let form = vec![network(0, 6), is(&ARP_FORM)];
        [form, own(Header::Network, 8, 6, within(MACS))].concat()
    };
    vec![
        accept("asks for a free address", [sender(), vec![network(14, 4), is(&[0; 4])]].concat()),
        accept("its address", [sender(), own(Header::Network, 14, 4, within(ADDRESSES4))].concat()),
        drop("ARP in another's name", Vec::new()),
    ]
}

fn ipv6() -> Vec<Rule> {
    vec![
        drop("a router advertisement", transport(ICMPV6, 0, &[134])),
        drop("a redirect", transport(ICMPV6, 0, &[137])),
        drop("a DHCPv6 server", transport(UDP, 0, &547_u16.to_be_bytes())),
        drop("a DHCPv6 server", transport(UDP, 2, &546_u16.to_be_bytes())),
        accept("on the link", vec![network(8, 2), Expression::Masked(vec![0xff, 0xc0]), is(&[0xfe, 0x80])]),
        accept("asks for a free address", vec![network(8, 16), is(&[0; 16])]),
        accept("its address", own(Header::Network, 8, 16, within(ADDRESSES6))),
        drop("another's IPv6 address", Vec::new()),
    ]
}

/// Holds when the port with these bytes is in a set, or is not.
fn own(header: Header, offset: u32, length: u32, judge: Expression) -> Vec<Expression> {
    vec![Expression::Meta(Meta::InterfaceIn), Expression::Beside { header, offset, length }, judge]
}

/// Holds when the header of this protocol has these bytes there.
fn transport(protocol: u8, offset: u32, bytes: &[u8]) -> Vec<Expression> {
    let length = u32::try_from(bytes.len()).expect("one byte or two");
    let taken = Expression::Payload { header: Header::Transport, offset, length };
    vec![Expression::Meta(Meta::Protocol), is(&[protocol]), taken, is(bytes)]
}

fn link(offset: u32, length: u32) -> Expression {
    Expression::Payload { header: Header::Link, offset, length }
}

fn network(offset: u32, length: u32) -> Expression {
    Expression::Payload { header: Header::Network, offset, length }
}

fn is(bytes: &[u8]) -> Expression {
    Expression::Is(bytes.to_vec())
}

fn within(set: &str) -> Expression {
    Expression::In(set.to_owned())
}

fn goto(chain: &str) -> Expression {
    Expression::Goto(chain.to_owned())
}

fn rule(comment: &str, expressions: Vec<Expression>) -> Rule {
    Rule { expressions, comment: comment.to_owned() }
}

fn accept(why: &str, conditions: Vec<Expression>) -> Rule {
    rule(why, [conditions, vec![Expression::Accept]].concat())
}

fn drop(why: &str, conditions: Vec<Expression>) -> Rule {
    rule(why, [conditions, vec![Expression::Counter, Expression::Drop]].concat())
}
