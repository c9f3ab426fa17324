//! Pods: what the CNI plugin asks beyond attaching and detaching.
//!
//! ```text
//!  ADD ──► a gateway, if pods are to have one and the host has no address on the bridge yet (once)
//!          └──► attach (see there) ──► the answer names everything a CNI result holds
//!  DEL ──► whatever is under way or stands under that name is given up ──► the kernel task says when it is gone
//!  GC  ──► DEL for whatever of that network is not in use
//! ```
//! The journal says beside each attachment which network it is of. An address without wiring (the IPAM-only plugin)
//! has only that line and its lease.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Serialize};
use weft_api::{ApiError, CniAdd, CniAttached, CniLease, CniName, CniRoute, CniStatus, Response};
use weft_fastpath::{ContainerLink, DefaultRoute, Lock, MacAddr, Masquerade, Policy};

use super::attach::{AttachOrder, EXPOSE_ID};
use super::attachments::{Exposure, LinkKey, Stage};
use super::calls::{self, millis, network};
use super::output::done;
use super::{CallId, Held, KernelJob, Node, Purpose};
use crate::ipam::{self, IpamState};

/// The smallest MTU a link may have, in bytes (IPv4's own, RFC 791).
const SMALLEST_MTU: u32 = 576;

/// How long every peer must have been out of reach before pods are said to be cut off: a router that is started anew is
/// back before, and a runtime takes a node that is cut off out of service.
const CUT_OFF: Duration = Duration::from_secs(5);

/// What the journal keeps of pods.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CniJournal {
    /// The attachments that are pods.
    pub links: BTreeMap<LinkKey, CniLink>,
    /// The networks of the addresses without wiring, by the id they are held under.
    pub leases: BTreeMap<String, String>,
    /// Whether a pod was ever promised to reach the outside by its host's addresses.
    pub outward: bool,
}

/// What is special about a pod's link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CniLink {
    /// The network it is of.
    pub network: String,
    /// Its MTU, when it is not the router's.
    pub mtu: Option<u32>,
    /// Whether a frame may leave by the port it came from.
    pub hairpin: bool,
}

/// What a pod's attachment is to be like; needed only while it is made.
#[derive(Clone, Debug)]
pub(super) struct Wishes {
    pub(super) link: CniLink,
    pub(super) within: Option<Ipv4Net>,
    pub(super) mac: Option<MacAddr>,
    gateway: Option<Ipv4Addr>,
    routes: Option<Vec<(Ipv4Net, Option<Ipv4Addr>)>>,
    outward: bool,
}

/// The pods' part of the node.
#[derive(Debug, Default)]
pub(super) struct Cni {
    pub(super) journal: CniJournal,
    /// Pods that wait for the host's own address.
    waiting: BTreeMap<CallId, AttachOrder>,
    /// Since when there are peers and no way to any of them.
    cut_off: Option<Instant>,
}

impl Cni {
    pub(super) fn new(journal: CniJournal) -> Self {
        Self { journal, ..Self::default() }
    }
}

impl Wishes {
    /// Whether a route is to lead by a gateway that nobody has named.
    fn needs_gateway(&self) -> bool {
        let open = |routes: &Vec<(Ipv4Net, Option<Ipv4Addr>)>| routes.iter().any(|(_, by)| by.is_none());
        self.gateway.is_none() && self.routes.as_ref().is_none_or(open)
    }
}

impl Node {
    /// Connects a pod.
    pub(super) fn cni_add(&mut self, call: CallId, add: CniAdd, now: Instant) {
        let order = match self.cni_order(add) {
            Ok(order) => order,
            Err(error) => return self.reply(call, Err(error), now),
        };
        let needs = order.wishes.as_ref().is_some_and(Wishes::needs_gateway);
        if !needs || self.host_address().is_some() || self.ipam.is_none() {
            return self.attach(call, order, now);
        }
        let deadline = now + order.timeout;
        self.cni.waiting.insert(call, order);
        let command = ipam::Command::Allocate { id: EXPOSE_ID.to_owned(), within: None };
        self.request(Purpose::CniGateway(call), command, deadline, now);
    }

    /// The host has an address on the bridge now, or cannot have one.
    pub(super) fn cni_gateway(
        &mut self,
        call: CallId,
        result: Result<Vec<Ipv4Addr>, ApiError>,
        now: Instant,
    ) {
        let length = self.range().map_or(32, |range| range.prefix_len());
        let order = self.cni.waiting.remove(&call);
        match result {
            Ok(addresses) => {
                let exposure = self.exposed.get_or_insert_with(Exposure::default);
                let new = addresses.iter().filter_map(|address| Ipv4Net::new(*address, length).ok());
                let known = exposure.addresses.clone();
                exposure.addresses.extend(new.filter(|net| !known.contains(net)));
                self.durability.change();
                self.converge(now);
                if let Some(order) = order {
                    self.attach(call, order, now);
                }
            }
            // Who does not wait any more was answered already.
            Err(error) if order.is_some() => self.reply(call, Err(error), now),
            Err(_) => {}
        }
    }

    /// The host's address on the bridge, by which pods leave it.
    fn host_address(&self) -> Option<Ipv4Addr> {
        self.exposed.as_ref().and_then(|exposed| exposed.addresses.first()).map(Ipv4Net::addr)
    }

    /// Checks what a plugin asks for.
    fn cni_order(&self, add: CniAdd) -> Result<AttachOrder, ApiError> {
        let kernel = &self.config.kernel;
        if let Some(bridge) = add.bridge.filter(|bridge| bridge != kernel.bridge.as_str()) {
            let text = format!("bridge {bridge}: this router's bridge is {}", kernel.bridge);
            return Err(ApiError::usage(text));
        }
        if let Some(mtu) = add.mtu.filter(|mtu| !(SMALLEST_MTU..=kernel.mtu).contains(mtu)) {
            let text = format!("mtu {mtu} is not between {SMALLEST_MTU} and {}", kernel.mtu);
            return Err(ApiError::usage(text));
        }
        let mac = add.mac.as_deref().map(station).transpose()?;
        let gateway = add.gateway.as_deref().map(host).transpose()?;
        let routes = add.routes.map(|routes| routes.iter().map(route).collect()).transpose()?;
        let link = CniLink {
            network: add.network,
            mtu: add.mtu.filter(|mtu| *mtu != kernel.mtu),
            hairpin: add.hairpin,
        };
        let within = add.subnet.as_deref().map(network).transpose()?.map(|net| net.trunc());
        let addresses =
            add.addresses.iter().map(|address| self.address(address)).collect::<Result<_, _>>()?;
        Ok(AttachOrder {
            key: key(add.name),
            netns: add.netns,
            default_route: true,
            addresses,
            timeout: millis(add.timeout_ms),
            wishes: Some(Wishes { link, within, mac, gateway, routes, outward: add.outward }),
        })
    }

    /// An address that was asked for; without a prefix length it has the range's.
    fn address(&self, text: &str) -> Result<Ipv4Net, ApiError> {
        let net = calls::assignable(text)?;
        let length = self.range().filter(|range| !text.contains('/') && range.contains(&net.addr()));
        Ok(length.and_then(|range| Ipv4Net::new(net.addr(), range.prefix_len()).ok()).unwrap_or(net))
    }

    /// Journals what is special about a pod's link, together with its attachment.
    pub(super) fn note_pod(&mut self, key: &LinkKey, wishes: &Wishes) {
        self.cni.journal.links.insert(key.clone(), wishes.link.clone());
        self.cni.journal.outward |= wishes.outward;
    }

    /// Gives a container link what a pod has beyond it.
    pub(super) fn as_pod(&self, mut link: ContainerLink, wishes: &Wishes) -> ContainerLink {
        let via = wishes.gateway.or_else(|| self.host_address());
        let nets: Vec<IpNet> = link.addresses.clone();
        let on_link = |address: Ipv4Addr| nets.iter().any(|net| net.contains(&IpAddr::V4(address)));
        let via = via.filter(|gateway| on_link(*gateway));
        let everywhere = (Ipv4Net::default(), None);
        let wanted = wishes.routes.clone().unwrap_or_else(|| vec![everywhere]);
        link.gateway = DefaultRoute::None;
        for (net, by) in wanted {
            let by = by.or(via).map(IpAddr::V4);
            match (net.prefix_len(), by) {
                (0, Some(by)) => link.gateway = DefaultRoute::Via(by),
                (0, None) => link.gateway = DefaultRoute::OnLink,
                (_, by) => link.routes.push((IpNet::V4(net), by)),
            }
        }
        link.mtu = wishes.link.mtu.unwrap_or(link.mtu);
        link.hairpin = wishes.link.hairpin;
        link
    }

    /// What pods need of the host's firewall, and what they may not do. Only pods are held to their addresses: whoever
    /// attaches a namespace by hand may have a bridge or a second address in it.
    pub(super) fn policy(&self) -> Policy {
        let bridge = &self.config.kernel.bridge;
        let locks = self.attachments.iter().filter_map(|attachment| {
            let port = super::attach::port_id(&attachment.key)?;
            Some((bridge.host_end(&port), self.lock(&attachment.key)?))
        });
        let range = self.range().filter(|_| self.cni.journal.outward);
        Policy { masquerade: range.map(|range| Masquerade { range }), locks: locks.collect(), forward: true }
    }

    /// What a pod's port lets through; None for what is no pod.
    pub(super) fn lock(&self, key: &LinkKey) -> Option<Lock> {
        self.cni.journal.links.get(key)?;
        let attachment = self.attachments.get(key)?;
        let addresses = attachment.addresses.iter().map(|net| IpAddr::V4(net.addr())).collect();
        Some(Lock { mac: attachment.mac, addresses })
    }

    /// What a CNI result says about a pod that stands.
    pub(super) fn pod_answer(&self, key: &LinkKey, wishes: &Wishes) -> Result<Response, ApiError> {
        let gone = || ApiError::not_now(format!("{} was taken back meanwhile", key.id));
        let attachment = self.attachments.get(key).ok_or_else(gone)?;
        let port = super::attach::port_id(key).ok_or_else(gone)?;
        let first = attachment.addresses.first().ok_or_else(gone)?;
        let link = self.as_pod(self.container_link(attachment), wishes);
        let default = match link.gateway {
            DefaultRoute::None => None,
            DefaultRoute::Via(by) => Some(("0.0.0.0/0".to_owned(), Some(by))),
            DefaultRoute::OnLink => Some(("0.0.0.0/0".to_owned(), None)),
        };
        let others = link.routes.iter().map(|(net, by)| (net.to_string(), *by));
        let routes = default.into_iter().chain(others);
        let gateway = wishes.gateway.map(IpAddr::V4).or(match link.gateway {
            DefaultRoute::Via(by) => Some(by),
            DefaultRoute::None | DefaultRoute::OnLink => None,
        });
        Ok(Response::CniAttached(Box::new(CniAttached {
            bridge: self.config.kernel.bridge.to_string(),
            bridge_mac: self.bridge_mac().to_string(),
            host_interface: self.config.kernel.bridge.host_end(&port),
            host_mac: MacAddr::facing(first.addr()).to_string(),
            mac: attachment.mac.to_string(),
            mtu: link.mtu,
            addresses: attachment.addresses.iter().map(ToString::to_string).collect(),
            gateway: gateway.map(|gateway| gateway.to_string()),
            routes: routes.map(|(dst, by)| CniRoute { dst, gw: by.map(|by| by.to_string()) }).collect(),
        })))
    }

    /// Takes a pod's interface back, whatever it has come to; answered when the kernel task is past it.
    pub(super) fn cni_del(&mut self, call: CallId, name: CniName, now: Instant) {
        let key = key(name);
        if self.take_back(&key, now) {
            // The answer does not wait for the look that follows: all it says is that the link is gone.
            self.hold(Held::Kernel(KernelJob::Fence(call)), now);
            self.converge(now);
        } else {
            self.reply(call, Ok(done()), now);
        }
    }

    /// Gives up what stands or is under way under a name; says whether there was anything. The caller converges.
    fn take_back(&mut self, key: &LinkKey, now: Instant) -> bool {
        let begun = self.abandon(key, now);
        let stood = self.attachments.get(key).is_some();
        if stood {
            self.drop_attachment(key, now);
            self.hold(Held::Kernel(KernelJob::Detach(key.clone())), now);
        }
        begun || stood
    }

    /// Ends the call that is making this link, so that nothing of it comes true later; says whether there was one.
    fn abandon(&mut self, key: &LinkKey, now: Instant) -> bool {
        let waiting = self.cni.waiting.iter().filter(|(_, order)| order.key == *key).map(|(call, _)| *call);
        let making =
            self.attaching.iter().filter(|(_, attaching)| attaching.is_of(key)).map(|(call, _)| *call);
        let calls: BTreeSet<CallId> = waiting.chain(making).collect();
        for call in &calls {
            self.cni.waiting.remove(call);
            if let Some(attaching) = self.attaching.remove(call) {
                self.cancel(*call, now);
                self.give_back(&key.allocation_id(), attaching.addresses(), now);
            }
            let text = format!("{} is deleted while it is being added", key.id);
            self.reply(*call, Err(ApiError::not_now(text)), now);
        }
        !calls.is_empty()
    }

    /// Takes back the request for an address that a call waits for.
    fn cancel(&mut self, call: CallId, now: Instant) {
        let of = |purpose: &Purpose| matches!(purpose, Purpose::Attach(other) if *other == call);
        let request = self.requests.iter().find(|(_, purpose)| of(purpose)).map(|(request, _)| *request);
        if let Some(request) = request {
            self.requests.remove(&request);
            self.request(Purpose::Quiet, ipam::Command::Cancel { request }, now, now);
        }
    }

    /// Says whether a pod's interface is as it was made, as far as the journal knows.
    pub(super) fn cni_check(&mut self, call: CallId, name: CniName, now: Instant) {
        let key = key(name);
        let result = match self.attachments.get(&key) {
            None => Err(ApiError::failed(format!("{} of {} is not attached", key.ifname, key.id))),
            Some(attachment) => match (attachment.conflicts.first(), attachment.stage) {
                (Some(address), _) => Err(ApiError::failed(format!(
                    "{address} of {} is used by another peer's container now",
                    key.id
                ))),
                (None, Stage::Begun) => Err(ApiError::not_now(format!("{} is being attached", key.id))),
                (None, Stage::Wired) => {
                    let words = attachment.addresses.iter().map(ToString::to_string);
                    Ok(Response::Addresses(words.collect()))
                }
            },
        };
        self.reply(call, result, now);
    }

    /// Gives a pod an address without wiring.
    pub(super) fn cni_lease(&mut self, call: CallId, lease: CniLease, now: Instant) {
        let id = lease.name.lease_id();
        if self.ipam.is_none() {
            return self.reply(call, Err(calls::off()), now);
        }
        let within = lease.subnet.as_deref().map(network).transpose();
        let address = lease.address.as_deref().map(calls::assignable).transpose();
        let command = match (within, address) {
            (Err(error), _) | (_, Err(error)) => return self.reply(call, Err(error), now),
            (_, Ok(Some(net))) => ipam::Command::Claim { id: id.clone(), address: net.addr() },
            (Ok(within), Ok(None)) => {
                let within = within.map(|net| net.trunc());
                ipam::Command::Allocate { id: id.clone(), within }
            }
        };
        self.cni.journal.leases.insert(id.clone(), lease.network);
        self.durability.change();
        let deadline = now + millis(lease.timeout_ms);
        self.request(Purpose::CniLease(call, id), command, deadline, now);
    }

    /// The address without wiring is ours, or cannot be.
    pub(super) fn cni_leased(
        &mut self,
        call: CallId,
        id: &str,
        result: Result<Vec<Ipv4Addr>, ApiError>,
        now: Instant,
    ) {
        let result = match result {
            Ok(addresses) => Ok(Response::Addresses(self.with_length(&addresses))),
            Err(error) => {
                if self.held(id).is_empty() {
                    self.cni.journal.leases.remove(id);
                    self.durability.change();
                }
                Err(error)
            }
        };
        self.reply(call, result, now);
    }

    /// Takes an address without wiring back.
    pub(super) fn cni_release(&mut self, call: CallId, name: &CniName, now: Instant) {
        self.end_lease(&name.lease_id(), now);
        self.reply(call, Ok(done()), now);
    }

    fn end_lease(&mut self, id: &str, now: Instant) {
        let waits = |purpose: &Purpose| matches!(purpose, Purpose::CniLease(_, other) if other == id);
        let waiting: Vec<_> =
            self.requests.iter().filter(|(_, purpose)| waits(purpose)).map(|(request, _)| *request).collect();
        for request in waiting {
            if let Some(Purpose::CniLease(call, _)) = self.requests.remove(&request) {
                self.request(Purpose::Quiet, ipam::Command::Cancel { request }, now, now);
                let text = format!("{id} is released while it is being allocated");
                self.reply(call, Err(ApiError::not_now(text)), now);
            }
        }
        if self.cni.journal.leases.remove(id).is_some() {
            self.durability.change();
            let command = ipam::Command::Release { id: id.to_owned(), address: None };
            self.request(Purpose::Quiet, command, now + millis(10_000), now);
        }
    }

    /// Takes back whatever a network has here and does not use any more.
    pub(super) fn cni_gc(&mut self, call: CallId, network: &str, valid: Vec<CniName>, now: Instant) {
        let leased: BTreeSet<String> = valid.iter().map(CniName::lease_id).collect();
        let used: BTreeSet<LinkKey> = valid.into_iter().map(key).collect();
        let journal = &self.cni.journal;
        let links = journal.links.iter().filter(|(key, link)| link.network == network && !used.contains(key));
        let leases = journal.leases.iter().filter(|(id, of)| *of == network && !leased.contains(*id));
        let links: Vec<LinkKey> = links.map(|(key, _)| key.clone()).collect();
        let leases: Vec<String> = leases.map(|(id, _)| id.clone()).collect();
        let mut lines = Vec::new();
        for key in links {
            tracing::info!(id = key.id, ifname = key.ifname, network, "pod is not in use any more");
            lines.push(format!("removed {} of {}", key.ifname, key.id));
            self.take_back(&key, now);
        }
        self.converge(now);
        for id in leases {
            lines.push(format!("released the addresses of {id}"));
            self.end_lease(&id, now);
        }
        self.reply(call, Ok(Response::Done(lines)), now);
    }

    /// Notes since when no peer can be reached. Who never had one is alone by design, and so is who removed them all.
    pub(super) fn see_who_is_cut_off(&mut self, now: Instant) {
        let mut others = self.mesh.presences().filter(|peer| peer.name != self.config.me).peekable();
        let cut_off = others.peek().is_some() && !others.any(|peer| peer.reachable);
        self.cni.cut_off = cut_off.then(|| self.cni.cut_off.unwrap_or(now));
    }

    /// Whether a pod could be connected now.
    pub(super) fn cni_status(&self, addresses: bool, now: Instant) -> CniStatus {
        let mut status = CniStatus::default();
        if self.cni.cut_off.is_some_and(|since| now.saturating_duration_since(since) >= CUT_OFF) {
            let text = "no peer can be reached: pods on this host reach each other only";
            status.degraded = Some(text.to_owned());
        }
        match &self.bridge {
            Some(Ok(())) => {}
            Some(Err(error)) => status.unavailable = Some(error.clone()),
            None => status.unavailable = Some("the bridge does not stand yet".to_owned()),
        }
        if self.durability.is_failing() {
            status.unavailable = Some("the state cannot be written".to_owned());
        }
        let Some(ipam) = &self.ipam else {
            if addresses {
                status.unavailable = Some("address allocation is off (--range none)".to_owned());
            }
            return status;
        };
        match ipam.status().state {
            IpamState::Off | IpamState::Ready => {}
            IpamState::Waiting(reason) if addresses => {
                status.unavailable = Some(format!("no addresses yet: {reason}"));
            }
            IpamState::Waiting(_) => {}
            IpamState::Split(peers) => {
                let names: Vec<String> = peers.into_iter().map(|peer| self.nickname(peer)).collect();
                status.degraded = Some(format!("seeded apart from {}", names.join(", ")));
            }
        }
        if addresses && status.unavailable.is_none() && ipam.is_exhausted() {
            status.unavailable = Some("no free address is left".to_owned());
        }
        status
    }
}

fn key(name: CniName) -> LinkKey {
    LinkKey { id: name.container, ifname: name.ifname }
}

fn host(text: &str) -> Result<Ipv4Addr, ApiError> {
    text.parse().map_err(|_| ApiError::usage(format!("gateway {text} is not an IPv4 address")))
}

fn station(text: &str) -> Result<MacAddr, ApiError> {
    let mac = text.parse::<MacAddr>().map_err(|error| ApiError::usage(error.to_string()))?;
    if mac.is_multicast() || mac == MacAddr::ZERO {
        return Err(ApiError::usage(format!("{text} is no MAC address of a station")));
    }
    Ok(mac)
}

fn route(route: &CniRoute) -> Result<(Ipv4Net, Option<Ipv4Addr>), ApiError> {
    let dst = route.dst.parse::<Ipv4Net>();
    let dst = dst.map_err(|_| ApiError::usage(format!("route {} is not an IPv4 network", route.dst)))?;
    Ok((dst.trunc(), route.gw.as_deref().map(host).transpose()?))
}
