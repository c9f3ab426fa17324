//! One container link from the call to the wired interface, and back.
//!
//! ```text
//!  attach call ──► addresses, one request after the other ──► journal: Begun ──► kernel job
//!       ▲                     │ refused                                            │
//!       └── error ◄───────────┴── given back ◄────────── journal: removed ◄── failed
//!                                      reply ◄────────────────────────────── done
//!                                                        journal: Wired, soon ◄──┘
//! ```

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use ipnet::{IpNet, Ipv4Net};
use weft_api::{ApiError, Response};
use weft_fastpath::{
    ContainerLink, ContainerPort, DefaultRoute, Desired, MacAddr, PortId, Sleeve, StandingLink,
};
use weft_gossip::PeerName;

use super::attachments::{Attachment, Exposure, LinkKey, Stage};
use super::cni::Wishes;
use super::output::done;
use super::{CallId, Held, KernelJob, LocalWish, Node, Purpose};
use crate::ipam;

/// How long a claim at start waits for an owner before it is made anew.
const RECLAIM_PATIENCE: Duration = Duration::from_secs(30);

/// The id under which the host's own address is allocated; no client id can begin with a slash.
pub(super) const EXPOSE_ID: &str = "/expose";

/// An attach call under way.
#[derive(Debug)]
pub(super) struct Attaching {
    key: LinkKey,
    netns: String,
    default_route: bool,
    /// Addresses still to claim; empty from the start when one is to be allocated.
    wanted: VecDeque<Ipv4Net>,
    /// Addresses that are ours already.
    got: Vec<Ipv4Net>,
    deadline: Instant,
    /// What a pod has beyond it; nothing for others.
    wishes: Option<Wishes>,
}

impl Attaching {
    pub(super) fn is_of(&self, key: &LinkKey) -> bool {
        self.key == *key
    }

    pub(super) fn is_pod(&self) -> bool {
        self.wishes.is_some()
    }

    /// The addresses that are ours already.
    pub(super) fn addresses(&self) -> &[Ipv4Net] {
        &self.got
    }
}

/// What an attach call asks for, checked.
#[derive(Debug)]
pub(super) struct AttachOrder {
    pub(super) key: LinkKey,
    pub(super) netns: String,
    pub(super) default_route: bool,
    pub(super) addresses: Vec<Ipv4Net>,
    pub(super) timeout: Duration,
    pub(super) wishes: Option<Wishes>,
}

impl Node {
    /// Begins an attachment, or wires an existing one again.
    pub(super) fn attach(&mut self, call: CallId, order: AttachOrder, now: Instant) {
        if self.attaching.values().any(|other| other.key == order.key) {
            let text = format!("{} is being attached by another call", order.key.id);
            return self.reply(call, Err(ApiError::not_now(text)), now);
        }
        if let Some(known) = self.attachments.get(&order.key) {
            if let Some(address) = known.conflicts.first() {
                let id = &order.key.id;
                let text = format!(
                    "{address} of {id} is used by another peer's container now: detach {id} and attach it again"
                );
                return self.reply(call, Err(ApiError::failed(text)), now);
            }
            let same = order.addresses.is_empty() || order.addresses == known.addresses;
            if !same {
                let has = words(&known.addresses);
                let text = format!("{} is attached with {has} already: detach it first", order.key.id);
                return self.reply(call, Err(ApiError::failed(text)), now);
            }
            let attaching = Attaching {
                key: order.key,
                netns: order.netns,
                default_route: order.default_route,
                wanted: VecDeque::new(),
                got: known.addresses.clone(),
                deadline: now + order.timeout,
                wishes: order.wishes,
            };
            self.attaching.insert(call, attaching);
            return self.wire(call, now);
        }
        if order.addresses.is_empty() && self.ipam.is_none() {
            let text = "no address to give: allocation is off (--range none); name one with --address";
            return self.reply(call, Err(ApiError::failed(text)), now);
        }
        let attaching = Attaching {
            key: order.key,
            netns: order.netns,
            default_route: order.default_route,
            wanted: order.addresses.into(),
            got: Vec::new(),
            deadline: now + order.timeout,
            wishes: order.wishes,
        };
        self.attaching.insert(call, attaching);
        self.next_address(call, now);
    }

    /// Asks for the next address of an attachment, or wires it when it has all.
    fn next_address(&mut self, call: CallId, now: Instant) {
        let Some(attaching) = self.attaching.get_mut(&call) else { return };
        let (id, deadline) = (attaching.key.allocation_id(), attaching.deadline);
        if self.ipam.is_none() {
            attaching.got.extend(attaching.wanted.drain(..));
            return self.wire(call, now);
        }
        let command = match attaching.wanted.front() {
            Some(net) => ipam::Command::Claim { id, address: net.addr() },
            None if attaching.got.is_empty() => {
                let within = attaching.wishes.as_ref().and_then(|wishes| wishes.within);
                ipam::Command::Allocate { id, within }
            }
            None => return self.wire(call, now),
        };
        self.request(Purpose::Attach(call), command, deadline, now);
    }

    /// The allocator gave, or refused, an address of an attachment.
    pub(super) fn attach_address(
        &mut self,
        call: CallId,
        result: Result<Vec<Ipv4Addr>, ApiError>,
        now: Instant,
    ) {
        let range = self.range();
        let Some(attaching) = self.attaching.get_mut(&call) else { return };
        match result {
            Ok(addresses) => {
                let given = attaching.wanted.pop_front();
                let length = range.map_or(32, |range| range.prefix_len());
                for address in addresses {
                    let net = given.filter(|net| net.addr() == address);
                    let net = net.or_else(|| Ipv4Net::new(address, length).ok());
                    attaching.got.extend(net.filter(|net| !attaching.got.contains(net)));
                }
                self.next_address(call, now);
            }
            Err(error) => {
                if let Some(attaching) = self.attaching.remove(&call) {
                    self.give_back(&attaching.key.allocation_id(), &attaching.got, now);
                }
                self.reply(call, Err(error), now);
            }
        }
    }

    /// Journals the attachment and hands the wiring to the kernel.
    fn wire(&mut self, call: CallId, now: Instant) {
        let Some(attaching) = self.attaching.get(&call) else { return };
        let Some(first) = attaching.got.first() else { return };
        let mac = self
            .attachments
            .get(&attaching.key)
            .map(|known| known.mac)
            .or_else(|| attaching.wishes.as_ref().and_then(|wishes| wishes.mac))
            .unwrap_or_else(|| MacAddr::from_ip(first.addr()));
        let wishes = attaching.wishes.clone();
        let attachment = Attachment {
            key: attaching.key.clone(),
            netns: attaching.netns.clone(),
            mac,
            addresses: attaching.got.clone(),
            default_route: attaching.default_route,
            stage: self.attachments.get(&attaching.key).map_or(Stage::Begun, |known| known.stage),
            conflicts: Vec::new(),
        };
        let mut link = self.container_link(&attachment);
        if let Some(wishes) = wishes {
            link = self.as_pod(link, &wishes);
            self.note_pod(&attachment.key, &wishes);
        }
        let key = attachment.key.clone();
        self.attachments.insert(attachment);
        self.durability.change();
        self.local_macs();
        let lock = self.lock(&key);
        self.hold(Held::Kernel(KernelJob::Attach(call, Box::new(link), lock)), now);
    }

    /// The kernel has wired the link, or has undone what it began.
    pub(super) fn attached(&mut self, call: CallId, result: Result<(), String>, now: Instant) {
        let Some(attaching) = self.attaching.remove(&call) else { return };
        match result {
            Ok(()) => {
                if let Some(attachment) = self.attachments.get_mut(&attaching.key) {
                    attachment.stage = Stage::Wired;
                }
                // A restart that reads "begun" finds the link standing and up: see `handle_links`.
                self.durability.note(now);
                let answer = match &attaching.wishes {
                    Some(wishes) => self.pod_answer(&attaching.key, wishes),
                    None => Ok(Response::Addresses(attaching.got.iter().map(ToString::to_string).collect())),
                };
                self.reply(call, answer, now);
                self.converge(now);
            }
            Err(error) => {
                self.give_up(&attaching.key, now);
                self.reply(call, Err(ApiError::failed(error)), now);
            }
        }
    }

    /// What depended on a state that could not be written is refused, and undone.
    pub(super) fn refuse_undurable(&mut self, held: Held, error: &str, now: Instant) {
        let refusal = ApiError::not_now(format!("the state cannot be written: {error}"));
        match held {
            Held::Reply(call, _) | Held::Kernel(KernelJob::Fence(call)) => {
                self.outputs.push_back(super::Output::Reply(call, Err(refusal)))
            }
            Held::Kernel(KernelJob::Attach(call, _, _)) => {
                if let Some(attaching) = self.attaching.remove(&call) {
                    self.give_up(&attaching.key, now);
                }
                self.outputs.push_back(super::Output::Reply(call, Err(refusal)));
            }
            Held::Kernel(_) | Held::Leave(_) | Held::Publish { .. } | Held::Unicast { .. } => {}
        }
    }

    /// Undoes every link of an id; of a namespace that is gone only its name is known.
    pub(super) fn detach(&mut self, call: CallId, id: Option<&str>, netns: &str, now: Instant) {
        for key in self.attachments.of(id, netns) {
            self.drop_attachment(&key, now);
            self.hold(Held::Kernel(KernelJob::Detach(key)), now);
        }
        self.hold(Held::Kernel(KernelJob::Fence(call)), now);
        self.converge(now);
    }

    /// Which of our links stand in the kernel now: an attachment whose namespace vanished is given up, and
    /// one that was found half-done is undone.
    pub fn handle_links(&mut self, standing: &[StandingLink], now: Instant) {
        self.note_orphans(standing);
        let busy: Vec<LinkKey> = self.attaching.values().map(|attaching| attaching.key.clone()).collect();
        // A link whose far end is down was never finished: bringing that up is the last thing done inside.
        let stands = |a: &Attachment| {
            let is = |s: &&StandingLink| s.port.id == a.key.id && s.port.ifname == a.key.ifname;
            standing.iter().find(is).is_some_and(|s| a.stage == Stage::Wired || s.carrier)
        };
        let settled = self.attachments.iter().filter(|a| !busy.contains(&a.key));
        let (finished, gone): (Vec<&Attachment>, Vec<&Attachment>) = settled.partition(|a| stands(a));
        let finished = finished.into_iter().filter(|a| a.stage == Stage::Begun).map(|a| a.key.clone());
        let (finished, gone): (Vec<_>, Vec<_>) =
            (finished.collect(), gone.into_iter().map(|a| a.key.clone()).collect());
        self.finish(finished);
        for key in gone {
            tracing::info!(id = key.id, ifname = key.ifname, "container link is gone: addresses released");
            self.drop_attachment(&key, now);
            self.hold(Held::Kernel(KernelJob::Detach(key)), now);
            self.converge(now);
        }
        // Last: what was just given up may have been given an address that one of these still has.
        self.readopt(standing, now);
        self.settle(now);
    }

    /// Notes at the first look which links stand that the journal does not know.
    fn note_orphans(&mut self, standing: &[StandingLink]) {
        if self.orphans.is_none() {
            let unknown = standing.iter().map(key_of).filter(|key| self.attachments.get(key).is_none());
            self.orphans = Some(unknown.collect());
        }
    }

    /// Links that the last run made and had no time to write down.
    fn finish(&mut self, keys: Vec<LinkKey>) {
        for key in keys {
            if let Some(attachment) = self.attachments.get_mut(&key) {
                attachment.stage = Stage::Wired;
                self.durability.change();
            }
        }
    }

    /// A link that stands at the first look and that the journal does not know belonged to a state that was lost: its
    /// container still runs, so its address is claimed back. One that turns up later was detached after the kernel was
    /// looked at: it is about to go.
    fn readopt(&mut self, standing: &[StandingLink], now: Instant) {
        let length = self.range().map_or(32, |range| range.prefix_len());
        for link in standing.iter().filter(|link| link.carrier) {
            let key = key_of(link);
            if !self.orphans.as_mut().is_some_and(|orphans| orphans.remove(&key)) {
                continue;
            }
            let being_made = self.attaching.values().any(|attaching| attaching.key == key);
            let Some(address) = link.address.filter(|_| !being_made && self.attachments.get(&key).is_none())
            else {
                continue;
            };
            let Ok(net) = Ipv4Net::new(address, length) else { continue };
            tracing::warn!(id = key.id, %address, "container link not in the journal: its address is claimed back");
            self.attachments.insert(Attachment {
                key: key.clone(),
                netns: String::new(),
                mac: MacAddr::from_ip(address),
                addresses: vec![net],
                default_route: true,
                stage: Stage::Wired,
                conflicts: Vec::new(),
            });
            self.durability.change();
            self.local_macs();
            self.reclaim(&key, address, now);
        }
    }

    /// Claims the address of a running container: at start, since the allocator may have lost it.
    pub(super) fn reclaim(&mut self, key: &LinkKey, address: Ipv4Addr, now: Instant) {
        let command = ipam::Command::Claim { id: key.allocation_id(), address };
        self.request(Purpose::Reclaim(key.clone(), address), command, now + RECLAIM_PATIENCE, now);
    }

    /// The claim of a running container's address was answered.
    pub(super) fn reclaimed(
        &mut self,
        key: &LinkKey,
        address: Ipv4Addr,
        result: Result<ipam::Reply, ipam::IpamError>,
        now: Instant,
    ) {
        match result {
            Ok(_) => {}
            Err(_) if self.attachments.get(key).is_none() => {}
            Err(ipam::IpamError::Conflict { holder: ipam::Holder::Peer { name, .. }, .. }) => {
                self.conflict(&key.id, address, name, now);
            }
            Err(error) if error.is_transient() => self.reclaim(key, address, now),
            Err(error) => {
                tracing::warn!(id = key.id, %address, %error, "a running container's address is not ours")
            }
        }
    }

    /// An address that a container of ours uses belongs to another peer now: its port goes down.
    pub(super) fn conflict(&mut self, id: &str, address: Ipv4Addr, owner: PeerName, now: Instant) {
        tracing::warn!(id, %address, %owner, "address in use here belongs to another peer: port taken down");
        for key in self.attachments.using(address) {
            if let Some(attachment) = self.attachments.get_mut(&key)
                && !attachment.conflicts.contains(&address)
            {
                attachment.conflicts.push(address);
            }
            self.durability.change();
            self.hold(Held::Kernel(KernelJob::SetPort(key, false)), now);
        }
        self.local_macs();
        self.converge(now);
    }

    /// A call to attach came to nothing; what stood before it was made stays.
    fn give_up(&mut self, key: &LinkKey, now: Instant) {
        if self.attachments.get(key).is_some_and(|attachment| attachment.stage == Stage::Begun) {
            self.drop_attachment(key, now);
            self.converge(now);
        }
    }

    pub(super) fn drop_attachment(&mut self, key: &LinkKey, now: Instant) {
        self.cni.journal.links.remove(key);
        if let Some(attachment) = self.attachments.remove(key) {
            self.durability.change();
            self.give_back(&key.allocation_id(), &attachment.addresses, now);
            self.local_macs();
        }
    }

    pub(super) fn give_back(&mut self, id: &str, addresses: &[Ipv4Net], now: Instant) {
        for net in addresses {
            let command = ipam::Command::Release { id: id.to_owned(), address: Some(net.addr()) };
            self.request(Purpose::Quiet, command, now + Duration::from_secs(10), now);
        }
    }

    /// The kernel's view of an attachment.
    pub(super) fn container_link(&self, attachment: &Attachment) -> ContainerLink {
        let gateway = self.exposed.as_ref().and_then(|e| e.addresses.first()).map(|net| net.addr());
        ContainerLink {
            id: attachment.key.id.clone(),
            ifname: attachment.key.ifname.clone(),
            mac: attachment.mac,
            addresses: attachment.addresses.iter().map(|net| IpNet::V4(*net)).collect(),
            gateway: match (attachment.default_route, gateway) {
                (false, _) => DefaultRoute::None,
                (true, Some(gateway)) => DefaultRoute::Via(IpAddr::V4(gateway)),
                (true, None) => DefaultRoute::OnLink,
            },
            mtu: self.config.kernel.mtu,
            routes: Vec::new(),
            hairpin: true,
        }
    }

    /// Gives the host itself an address on the bridge.
    pub(super) fn expose(&mut self, call: CallId, cidr: Option<Ipv4Net>, timeout: Duration, now: Instant) {
        let has = self.exposed.as_ref().filter(|e| cidr.is_none_or(|net| e.addresses.contains(&net)));
        if let Some(exposed) = has {
            let addresses = exposed.addresses.iter().map(ToString::to_string).collect();
            return self.reply(call, Ok(Response::Addresses(addresses)), now);
        }
        let id = EXPOSE_ID.to_owned();
        let command = match (cidr, &self.ipam) {
            (Some(net), Some(_)) => ipam::Command::Claim { id, address: net.addr() },
            (None, Some(_)) => ipam::Command::Allocate { id, within: None },
            (Some(net), None) => return self.exposed_as(call, net, now),
            (None, None) => {
                let text = "no address to give: allocation is off (--range none); name one";
                return self.reply(call, Err(ApiError::failed(text)), now);
            }
        };
        self.request(Purpose::Expose(call, cidr), command, now + timeout, now);
    }

    /// The host's address is ours: journal it, converge, reply.
    pub(super) fn exposed_as(&mut self, call: CallId, net: Ipv4Net, now: Instant) {
        let exposure = self.exposed.get_or_insert_with(Exposure::default);
        if !exposure.addresses.contains(&net) {
            exposure.addresses.push(net);
        }
        let addresses = exposure.addresses.iter().map(ToString::to_string).collect();
        self.durability.change();
        self.converge(now);
        self.reply(call, Ok(Response::Addresses(addresses)), now);
    }

    /// Takes the host's addresses back.
    pub(super) fn hide(&mut self, call: CallId, now: Instant) {
        if let Some(exposed) = self.exposed.take() {
            self.durability.change();
            self.give_back(EXPOSE_ID, &exposed.addresses, now);
            self.converge(now);
        }
        self.reply(call, Ok(done()), now);
    }

    /// Asks the shell to bring the kernel to what we want now.
    pub(super) fn converge(&mut self, now: Instant) {
        let wish = Box::new(self.local_wish());
        self.hold(Held::Kernel(KernelJob::Converge(wish)), now);
    }

    /// The node's part of what this host's kernel must look like.
    #[must_use]
    pub fn local_wish(&self) -> LocalWish {
        LocalWish { desired: self.desired(), policy: self.policy() }
    }

    fn desired(&self) -> Desired {
        let kernel = &self.config.kernel;
        let exposed = self.exposed.iter().flat_map(|e| &e.addresses);
        // A link that is still being made is the attach job's; held here it would be reported as missing.
        let wired = self.attachments.iter().filter(|a| a.stage == Stage::Wired);
        Desired {
            addresses: exposed.map(|net| IpNet::V4(*net)).collect(),
            sleeve: kernel.sleeve.then_some(Sleeve { offloads: kernel.offloads }),
            ports: wired.filter_map(|a| Some((port_id(&a.key)?, self.port(a)))).collect(),
            ..Desired::new(kernel.bridge.clone(), self.bridge_mac(), kernel.mtu)
        }
    }

    fn port(&self, attachment: &Attachment) -> ContainerPort {
        let pod = self.cni.journal.links.get(&attachment.key);
        ContainerPort {
            mtu: pod.and_then(|pod| pod.mtu).unwrap_or(self.config.kernel.mtu),
            up: attachment.conflicts.is_empty(),
            hairpin: pod.is_none_or(|pod| pod.hairpin),
        }
    }
}

/// The kernel's name for an attachment; `None` for one the kernel cannot hold, which was never wired.
pub(super) fn port_id(key: &LinkKey) -> Option<PortId> {
    PortId::new(&key.id, &key.ifname).ok()
}

fn key_of(link: &StandingLink) -> LinkKey {
    LinkKey { id: link.port.id.clone(), ifname: link.port.ifname.clone() }
}

fn words(addresses: &[Ipv4Net]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
