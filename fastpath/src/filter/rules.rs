//! The filter as a table: what is fixed are rules, what moves are elements.
//!
//! ```text
//! table inet weft-<bridge> {
//!   set mesh_tcp  { type inet_service }     TCP 6783
//!   set mesh_udp  { type inet_service }     UDP 6783, 6784, 6785
//!   set sources4  { type ipv4_addr }        peers on fastpath now
//!   set sources6  { type ipv6_addr }
//!   set probes4   { type ipv4_addr }        peers that are being tried
//!   set probes6   { type ipv6_addr }
//!
//!   chain input {                           what this host itself would get
//!     type filter hook input priority -300; policy accept;
//!     udp dport 6784 goto vxlan
//!     iifgroup <ours> tcp dport @mesh_tcp counter drop
//!     iifgroup <ours> udp dport @mesh_udp counter drop
//!   }
//!   chain forward {                         what this host would pass on to another
//!     type filter hook forward priority -300; policy accept;
//!     oifgroup <ours> accept
//!     iifgroup <ours> tcp dport @mesh_tcp counter drop
//!     iifgroup <ours> udp dport @mesh_udp counter drop
//!   }
//!   chain vxlan {
//!     iifgroup <ours> counter drop
//!     ip daddr <destination> ip saddr @sources4 accept
//!     ip6 daddr <destination> ip6 saddr @sources6 accept
//!     ip daddr <destination> ip saddr @probes4 @th,224,16 0x88b5 accept
//!     ip6 daddr <destination> ip6 saddr @probes6 @th,224,16 0x88b5 accept
//!     counter drop
//!   }
//! }
//! ```
//!
//! Why these hooks and not `prerouting`: only after routing is a packet whole (fragments are joined) and its port
//! the one that the socket will see (destination NAT is done), so neither gets a packet past us. And connection
//! tracking keeps a new entry only at the end of `input`, so at -300 a flood of forged sources leaves no trace there.
//!
//! Why the link group ([`GROUP`]) and not names: every VXLAN packet pays for each step before its `accept`, and with
//! `br_netfilter` every bridged frame for those of `forward`. A number is compared; a set of names is hashed, two
//! to five times a packet. That was 15 % of the processor time of a stream in packets of 1,500 bytes, and is 8 % so.
//! All our links are born into the group (see `names`), whatever bridge they belong to.
//!
//! Why `@th,224,16`: behind the headers of UDP and VXLAN, of 8 bytes each, and two addresses of 6 lies the Ethernet type
//! of the frame. The device learns the sender of a probe like that of any frame, but a probe is sent from the address
//! of the peer's VXLAN device, for which a lasting entry stands (see `vxlan`): nothing changes. What a peer in
//! `probes` could still do is move addresses by probes with another sender; it is a member of the mesh, not a stranger.
//!
//! Why `oifgroup <ours> accept`: with `br_netfilter` frames from container to container, or to a peer's container, come
//! through `forward` too, from the bridge to the bridge. Port 6783 of a container is its own.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::Filter;
use crate::names::GROUP;
use crate::table::{Base, Chain, Element, Expression, Header, Key, Meta, Rule, Set, Table};
use crate::vxlan::PROBE_ETHERTYPE;

/// `NF_INET_LOCAL_IN` and `NF_INET_FORWARD`.
const INPUT: u32 = 1;
const FORWARD: u32 = 2;
/// `NF_IP_PRI_RAW`: before everybody's ordinary filters.
const PRIORITY: i32 = -300;

/// `NFPROTO_IPV4` and `NFPROTO_IPV6`.
const IPV4: u8 = 2;
const IPV6: u8 = 10;
/// `IPPROTO_TCP` and `IPPROTO_UDP`.
const TCP: u8 = 6;
const UDP: u8 = 17;

const MESH_TCP: &str = "mesh_tcp";
const MESH_UDP: &str = "mesh_udp";
const SOURCES4: &str = "sources4";
const SOURCES6: &str = "sources6";
const PROBES4: &str = "probes4";
const PROBES6: &str = "probes6";
/// The chain that judges VXLAN.
const VXLAN: &str = "vxlan";

/// What the rule is for that drops what comes from no peer; the others drop what comes from containers.
pub(super) const STRANGER: &str = "not from a stranger";
const NO_CONTAINER: &str = "no container reaches the mesh";

/// Where the Ethernet type of a frame in VXLAN lies, from the UDP header on.
const INNER_TYPE: u32 = 8 + 8 + 12;

/// The table of a filter.
pub(super) fn table(filter: &Filter) -> Table {
    let chains = [("input", input(filter)), ("forward", forward()), (VXLAN, vxlan(filter))];
    let chains = chains.map(|(name, chain)| (name.to_owned(), chain));
    Table { flags: 0, chains: BTreeMap::from(chains), sets: sets(filter) }
}

fn sets(filter: &Filter) -> BTreeMap<String, Set> {
    let ports = |ports: &BTreeSet<u16>| ports.iter().copied().map(Element::Port).collect::<BTreeSet<_>>();
    let [sources4, sources6] = by_family(&filter.sources);
    let [probes4, probes6] = by_family(&filter.probes);
    let mut udp = ports(&filter.mesh_udp);
    udp.extend(filter.vxlan_port.map(Element::Port));
    let sets = [
        (MESH_TCP, Key::Port, ports(&filter.mesh_tcp)),
        (MESH_UDP, Key::Port, udp),
        (SOURCES4, Key::Ipv4, sources4),
        (SOURCES6, Key::Ipv6, sources6),
        (PROBES4, Key::Ipv4, probes4),
        (PROBES6, Key::Ipv6, probes6),
    ];
    sets.into_iter().map(|(name, key, elements)| (name.to_owned(), Set { key, flags: 0, elements })).collect()
}

/// IPv4 and IPv6 addresses as elements; one of IPv4 that is written as IPv6 counts as IPv4.
fn by_family(addresses: &BTreeSet<IpAddr>) -> [BTreeSet<Element>; 2] {
    let canonical = addresses.iter().map(IpAddr::to_canonical);
    let (four, six): (BTreeSet<IpAddr>, BTreeSet<IpAddr>) = canonical.partition(IpAddr::is_ipv4);
    [four, six].map(|some| some.into_iter().map(Element::Address).collect())
}

fn input(filter: &Filter) -> Chain {
    let vxlan = filter.vxlan_port.map(|number| Rule {
        expressions: [port(UDP), is(&number.to_be_bytes()), vec![Expression::Goto(VXLAN.to_owned())]]
            .concat(),
        comment: "VXLAN".to_owned(),
    });
    let mesh = [
        drop(NO_CONTAINER, [from_ours(), port(TCP), within(MESH_TCP)]),
        drop(NO_CONTAINER, [from_ours(), port(UDP), within(MESH_UDP)]),
    ];
    let rules = vxlan.into_iter().chain(mesh).collect();
    Chain { base: Some(base(INPUT)), rules }
}

fn forward() -> Chain {
    let to_ours = [vec![Expression::Meta(Meta::GroupOut)], is(&GROUP.to_ne_bytes())].concat();
    let why = "no container reaches the mesh of another host";
    let rules = vec![
        accept("to a container", to_ours),
        drop(why, [from_ours(), port(TCP), within(MESH_TCP)]),
        drop(why, [from_ours(), port(UDP), within(MESH_UDP)]),
    ];
    Chain { base: Some(base(FORWARD)), rules }
}

fn vxlan(filter: &Filter) -> Chain {
    let destination = filter.destination.map(|address| address.to_canonical());
    let destination = destination.filter(|address| !address.is_unspecified());
    let mut rules = vec![drop(NO_CONTAINER, [from_ours()])];
    // A destination of one family leaves no way in for the other.
    let four = destination.is_none_or(|address| address.is_ipv4());
    let six = destination.is_none_or(|address| address.is_ipv6());
    for (sources4, sources6, content, comment) in
        [(SOURCES4, SOURCES6, vec![], "from a peer"), (PROBES4, PROBES6, probe(), "a probe from a peer")]
    {
        let from = |addresses| [from(addresses, destination), content.clone()].concat();
        rules.extend(four.then(|| accept(comment, from(Addresses::of_ipv4(sources4)))));
        rules.extend(six.then(|| accept(comment, from(Addresses::of_ipv6(sources6)))));
    }
    rules.push(drop::<0>(STRANGER, []));
    Chain { base: None, rules }
}

/// A set of addresses, and where a header has such ones.
struct Addresses {
    set: &'static str,
    family: u8,
    source: u32,
    target: u32,
    length: u32,
}

impl Addresses {
    fn of_ipv4(set: &'static str) -> Self {
        Self { set, family: IPV4, source: 12, target: 16, length: 4 }
    }

    fn of_ipv6(set: &'static str) -> Self {
        Self { set, family: IPV6, source: 8, target: 24, length: 16 }
    }
}

/// Holds for what comes from one of these addresses, and to the destination if there is one.
fn from(addresses: Addresses, destination: Option<IpAddr>) -> Vec<Expression> {
    let Addresses { set, family, source, target, length } = addresses;
    let network = |offset| Expression::Payload { header: Header::Network, offset, length };
    let mut expressions = vec![Expression::Meta(Meta::Family), Expression::Is(vec![family])];
    if let Some(address) = destination {
        expressions.push(network(target));
        expressions.extend(is(&octets(address)));
    }
    expressions.extend([network(source), Expression::In(set.to_owned())]);
    expressions
}

/// Holds for a VXLAN packet with a probe in it.
fn probe() -> Vec<Expression> {
    let inner = Expression::Payload { header: Header::Transport, offset: INNER_TYPE, length: 2 };
    [vec![inner], is(&PROBE_ETHERTYPE.to_be_bytes())].concat()
}

fn accept(why: &str, conditions: Vec<Expression>) -> Rule {
    let expressions = [conditions, vec![Expression::Accept]].concat();
    Rule { expressions, comment: why.to_owned() }
}

/// The bytes of an address as a packet has them.
fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(four) => four.octets().to_vec(),
        IpAddr::V6(six) => six.octets().to_vec(),
    }
}

fn base(hook: u32) -> Base {
    Base { kind: "filter".to_owned(), hook, priority: PRIORITY, accepts: true }
}

fn from_ours() -> Vec<Expression> {
    [vec![Expression::Meta(Meta::GroupIn)], is(&GROUP.to_ne_bytes())].concat()
}

/// Takes the destination port of a protocol that has ports.
fn port(protocol: u8) -> Vec<Expression> {
    vec![
        Expression::Meta(Meta::Protocol),
        Expression::Is(vec![protocol]),
        Expression::Payload { header: Header::Transport, offset: 2, length: 2 },
    ]
}

fn is(bytes: &[u8]) -> Vec<Expression> {
    vec![Expression::Is(bytes.to_vec())]
}

fn within(set: &str) -> Vec<Expression> {
    vec![Expression::In(set.to_owned())]
}

/// A rule that counts and drops what all of this holds for.
fn drop<const N: usize>(why: &str, conditions: [Vec<Expression>; N]) -> Rule {
    let mut expressions = conditions.concat();
    expressions.extend([Expression::Counter, Expression::Drop]);
    Rule { expressions, comment: why.to_owned() }
}
