//! Reads what stands: every link of the namespace, and what only ours need (addresses, offloads, entries).

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use netlink_packet_route::address::{AddressAttribute, AddressMessage, AddressProtocol};
use netlink_packet_route::link::{
    AfSpecInet, AfSpecInet6, AfSpecUnspec, BridgeBooleanOptionFlags, BridgePortState, BridgeStpState,
    In6AddrGenMode, InfoBridge, InfoBridgePort, InfoData, InfoKind, InfoPortData, LinkAttribute, LinkFlags,
    LinkInfo, LinkMessage,
};

use super::facts;
use super::fdb;
use super::kernel::{Kernel, all};
use super::offload;
use super::tunnel;
use crate::actual::Actual;
use crate::error::Error;
use crate::link::{Flag, Kind, Link, Owner};
use crate::mac::MacAddr;
use crate::names::{BridgeName, GROUP, Mark};
use crate::vxlan::{Tunnel, Underlay};

/// The mark on addresses of ours (`IFA_PROTO`; the kernel keeps 1 to 3 for itself, routing daemons use more).
pub(super) const ADDRESS_MARK: AddressProtocol = AddressProtocol::Other(b'w');

/// What was seen: the picture, and what does not belong into a plan.
pub(super) struct Observed {
    /// The interfaces in the words of the planner.
    pub(super) actual: Actual,
    /// The rest, by name.
    pub(super) seen: BTreeMap<String, Seen>,
}

/// What only the kernel decides.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    /// The interface index.
    pub(super) index: u32,
    /// The index of the other end of a pair, or of the device below.
    pub(super) below: Option<u32>,
    /// Whether that is in another namespace.
    pub(super) elsewhere: bool,
    /// Whether it could carry frames.
    pub(super) carrier: bool,
}

/// Looks at everything.
pub(super) async fn observe(kernel: &Kernel, bridge: &BridgeName) -> Result<Observed, Error> {
    let mut observed = links(kernel, bridge).await?;
    for name in Underlay::ALL.map(|underlay| bridge.vxlan(underlay)) {
        if let Some(link) = observed.actual.links.get_mut(&name)
            && let (Kind::Vxlan(tunnel), true) = (&link.kind, link.owner.is_of(bridge))
            && let Some(seen) = observed.seen.get(&name)
        {
            link.entries = fdb::written(kernel, &name, seen.index, tunnel.port).await?;
        }
    }
    Ok(observed)
}

/// Looks at everything but forwarding entries, of which there may be thousands.
pub(super) async fn links(kernel: &Kernel, bridge: &BridgeName) -> Result<Observed, Error> {
    let messages = all("interfaces", "list", || kernel.handle.link().get().execute()).await?;
    let mut observed = picture(&messages);
    if let Some(link) = observed.actual.links.get_mut(bridge.as_str())
        && let Some(seen) = observed.seen.get(bridge.as_str())
    {
        link.addresses = marked(kernel, seen.index).await?;
    }
    let port = bridge.sleeve_port();
    if let Some(link) = observed.actual.links.get_mut(&port).filter(|link| link.owner != Owner::Foreign)
        && let Some(on) = offload::read(kernel.socket()?, &port)
    {
        link.flags.insert(Flag::Offloads, on);
    }
    Ok(observed)
}

/// Looks at the bridge and one more link: where hundreds stand, listing all of them takes longer than making one.
pub(super) async fn pair(kernel: &Kernel, bridge: &BridgeName, name: &str) -> Result<Observed, Error> {
    let (bridge, link) = tokio::try_join!(kernel.link(bridge.as_str()), kernel.link(name))?;
    let controller = link.as_ref().and_then(controller_of);
    let other =
        match controller.filter(|index| bridge.as_ref().map(|found| found.header.index) != Some(*index)) {
            Some(index) => kernel.link_at(index).await?,
            None => None,
        };
    let messages: Vec<LinkMessage> = [bridge, other, link].into_iter().flatten().collect();
    Ok(picture(&messages))
}

/// What link messages say.
fn picture(messages: &[LinkMessage]) -> Observed {
    let names: BTreeMap<u32, String> =
        messages.iter().filter_map(|message| Some((message.header.index, name_of(message)?))).collect();

    let mut observed = Observed { actual: Actual::default(), seen: BTreeMap::new() };
    for message in messages {
        let Some(name) = name_of(message) else { continue };
        observed.seen.insert(name.clone(), seen(message));
        observed.actual.links.insert(name, link_of(message, &names));
    }
    observed
}

/// The bridge that a link is a port of, by its index.
fn controller_of(message: &LinkMessage) -> Option<u32> {
    message.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Controller(index) => Some(*index),
        _ => None,
    })
}

/// The addresses of ours on one interface: those with our mark, or all global ones where the kernel keeps no marks.
pub(super) async fn marked(kernel: &Kernel, index: u32) -> Result<BTreeSet<IpNet>, Error> {
    let dump = || kernel.handle.address().get().set_link_index_filter(index).execute();
    let messages = all("addresses", "list", dump).await?;
    let unmarked = !facts::release().is_some_and(|release| release.marks_addresses());
    Ok(messages.iter().filter(|message| unmarked || is_marked(message)).filter_map(address_of).collect())
}

fn is_marked(message: &AddressMessage) -> bool {
    message.attributes.contains(&AddressAttribute::Protocol(ADDRESS_MARK))
}

/// The address of a message, without those the kernel makes by itself (link-local IPv6).
fn address_of(message: &AddressMessage) -> Option<IpNet> {
    let local = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    let address = local.or_else(|| {
        message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        })
    })?;
    let own = matches!(address, std::net::IpAddr::V6(v6) if v6.is_unicast_link_local());
    if own { None } else { IpNet::new(address, message.header.prefix_len).ok() }
}

/// The name in a link message.
pub(super) fn name_of(message: &LinkMessage) -> Option<String> {
    message.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.clone()),
        _ => None,
    })
}

/// The Ethernet address in a link message.
pub(super) fn mac_of(message: &LinkMessage) -> Option<MacAddr> {
    message.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Address(octets) => MacAddr::from_slice(octets),
        _ => None,
    })
}

/// The MTU in a link message.
pub(super) fn mtu_of(message: &LinkMessage) -> Option<u32> {
    message.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Mtu(mtu) => Some(*mtu),
        _ => None,
    })
}

/// Whether a link message tells of one end of a pair.
pub(super) fn is_veth(message: &LinkMessage) -> bool {
    matches!(kind_of(message), Some(InfoKind::Veth))
}

/// Whether a link message tells of a bridge port that forwards.
pub(super) fn is_forwarding(message: &LinkMessage) -> bool {
    let forwards = InfoBridgePort::State(BridgePortState::Forwarding);
    info_of(message).iter().any(|info| match info {
        LinkInfo::PortData(InfoPortData::BridgePort(options)) => options.contains(&forwards),
        _ => false,
    })
}

/// Where the other end is and whether frames could flow.
pub(super) fn seen(message: &LinkMessage) -> Seen {
    let carrier = message.header.flags.contains(LinkFlags::LowerUp);
    let mut seen = Seen { index: message.header.index, below: None, elsewhere: false, carrier };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::Link(index) => seen.below = Some(*index),
            LinkAttribute::LinkNetNsId(_) => seen.elsewhere = true,
            _ => {}
        }
    }
    seen
}

fn kind_of(message: &LinkMessage) -> Option<&InfoKind> {
    info_of(message).iter().find_map(|info| match info {
        LinkInfo::Kind(kind) => Some(kind),
        _ => None,
    })
}

fn info_of(message: &LinkMessage) -> &[LinkInfo] {
    let info = message.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::LinkInfo(info) => Some(info.as_slice()),
        _ => None,
    });
    info.unwrap_or_default()
}

fn link_of(message: &LinkMessage, names: &BTreeMap<u32, String>) -> Link {
    let other_end = seen(message);
    let kind = match kind_of(message) {
        Some(InfoKind::Bridge) => Kind::Bridge,
        Some(InfoKind::Veth) => {
            let here = other_end.below.filter(|_| !other_end.elsewhere);
            Kind::Veth { peer: here.and_then(|index| names.get(&index).cloned()) }
        }
        Some(InfoKind::Vxlan) => Kind::Vxlan(tunnel_of(message)),
        Some(other) => Kind::Other(other.to_string()),
        None => Kind::Other(String::new()),
    };
    let mut link = Link::new(kind, owner_of(message));
    link.mac = mac_of(message);
    link.mtu = mtu_of(message).unwrap_or(link.mtu);
    link.flags.insert(Flag::Up, message.header.flags.contains(LinkFlags::Up));
    // Where a family is switched off there is neither an address nor a belief in advertisements.
    link.flags.extend([(Flag::AddressGeneration, false), (Flag::RouterAdvertisements, false)]);
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::Group(group) => {
                link.flags.insert(Flag::Grouped, *group == GROUP);
            }
            LinkAttribute::Controller(index) => link.bridge = names.get(index).cloned(),
            LinkAttribute::AfSpecUnspec(families) => read_families(&mut link, message, families),
            _ => {}
        }
    }
    for info in info_of(message) {
        match info {
            LinkInfo::Data(InfoData::Bridge(options)) => read_bridge(&mut link, options),
            LinkInfo::PortData(InfoPortData::BridgePort(options)) => read_port(&mut link, options),
            _ => {}
        }
    }
    link
}

fn tunnel_of(message: &LinkMessage) -> Tunnel {
    let options = info_of(message).iter().find_map(|info| match info {
        LinkInfo::Data(InfoData::Vxlan(options)) => Some(options.as_slice()),
        _ => None,
    });
    tunnel::read(options.unwrap_or_default())
}

/// The settings of a VXLAN device, if it is one of ours.
pub(super) fn own_vxlan(message: &LinkMessage, bridge: &BridgeName) -> Option<Tunnel> {
    let ours = matches!(kind_of(message), Some(InfoKind::Vxlan)) && owner_of(message).is_of(bridge);
    ours.then(|| tunnel_of(message))
}

/// The alias says it exactly; the group says at least that it was born as ours.
fn owner_of(message: &LinkMessage) -> Owner {
    let mut owner = Owner::Foreign;
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfAlias(alias) => match Mark::parse(alias) {
                Some(mark) => return Owner::Ours(mark),
                None if alias.is_empty() => {}
                None => return Owner::Foreign,
            },
            LinkAttribute::Group(GROUP) => owner = Owner::Unmarked,
            _ => {}
        }
    }
    owner
}

fn read_families(link: &mut Link, message: &LinkMessage, families: &[AfSpecUnspec]) {
    for family in families {
        match family {
            AfSpecUnspec::Inet(options) => {
                let strict = options.iter().any(|option| match option {
                    AfSpecInet::DevConf(conf) => conf.rp_filter == 1,
                    _ => false,
                });
                let silent = message.header.flags.contains(LinkFlags::Noarp);
                link.flags.insert(Flag::Deaf, strict && silent);
            }
            AfSpecUnspec::Inet6(options) => {
                for option in options {
                    match option {
                        AfSpecInet6::AddrGenMode(mode) => {
                            link.flags.insert(Flag::AddressGeneration, *mode != In6AddrGenMode::None);
                        }
                        AfSpecInet6::DevConf(conf) => {
                            let believed = conf.accept_ra != 0 && conf.disable_ipv6 == 0;
                            link.flags.insert(Flag::RouterAdvertisements, believed);
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
}

fn read_bridge(link: &mut Link, options: &[InfoBridge]) {
    for option in options {
        match option {
            InfoBridge::StpState(state) => {
                link.flags.insert(Flag::SpanningTree, *state != BridgeStpState::Disabled);
            }
            InfoBridge::MulticastSnooping(on) => {
                link.flags.insert(Flag::MulticastSnooping, *on);
            }
            InfoBridge::MultiBoolOpt(options) => {
                let refused = options.value.contains(BridgeBooleanOptionFlags::NoLinkLocalLearn);
                link.flags.insert(Flag::LinkLocalLearning, !refused);
            }
            _ => {}
        }
    }
}

fn read_port(link: &mut Link, options: &[InfoBridgePort]) {
    let mut floods = true;
    for option in options {
        match option {
            InfoBridgePort::Isolated(on) => {
                link.flags.insert(Flag::Isolated, *on);
            }
            InfoBridgePort::HairpinMode(on) => {
                link.flags.insert(Flag::Hairpin, *on);
            }
            InfoBridgePort::Learning(on) => {
                link.flags.insert(Flag::Learning, *on);
            }
            InfoBridgePort::UnicastFlood(on)
            | InfoBridgePort::MulticastFlood(on)
            | InfoBridgePort::BroadcastFlood(on) => floods &= *on,
            _ => {}
        }
    }
    link.flags.insert(Flag::Flood, floods);
}
