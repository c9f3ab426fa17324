//! Calls of the local API: each verb checked, carried out or refused with one clear line.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use ipnet::{IpNet, Ipv4Net};
use weft_api::{ApiError, ErrorCode, Request, Response};
use weft_gossip::{PeerName, Target};

use super::attach::{AttachOrder, Attaching, EXPOSE_ID};
use super::attachments::LinkKey;
use super::lookup::{self, Found, Message};
use super::output::done;
use super::status::Counting;
use super::{CallId, Held, Inspection, Node, Output, Purpose};
use crate::ipam::{self, IpamError};
use crate::overlay::Goodbye;

/// How long a call waits for an address when it does not say.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// Milliseconds for what the allocator answers without waiting for anybody.
const AT_ONCE: u64 = 10_000;

/// How long leaving may wait for a peer that takes the addresses.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(10);

/// How the allocator's answer to a call is worded.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wanted {
    /// Addresses with the length of the range.
    Addresses,
    /// Nothing but that it is done.
    Done,
    /// A peer was removed.
    Removal(PeerName),
    /// Everything was handed over: the kernel objects and the state go next. By force also when nobody took it.
    Leaving { force: bool },
}

impl Node {
    /// Carries out one call; the reply comes as an output.
    pub fn handle_call(&mut self, call: CallId, request: Request, now: Instant) {
        self.carry_out(call, request, now);
        self.settle(now);
    }

    fn carry_out(&mut self, call: CallId, request: Request, now: Instant) {
        match request {
            Request::Status => {
                let status = Box::new(self.status(now));
                self.outputs.push_back(Output::Reply(call, Ok(Response::Status(status))));
            }
            Request::Report => self.count_first(call, Counting::Report),
            Request::Metrics => self.count_first(call, Counting::Metrics),
            Request::PeerAdd { peers, replace } => self.peer_add(call, &peers, replace, now),
            Request::PeerForget { peers } => self.peer_forget(call, &peers, now),
            Request::PeerRemove { name, force } => self.peer_remove(call, &name, force, now),
            Request::Attach(attach) => self.attach_call(call, attach, now),
            Request::Detach { id, netns, netns_inode } => {
                let id = id.or_else(|| netns_inode.map(weft_api::attachment_id));
                self.detach(call, id.as_deref(), &netns, now);
            }
            Request::Expose { cidr } => match cidr.as_deref().map(assignable).transpose() {
                Ok(cidr) => self.expose(call, cidr, DEFAULT_TIMEOUT, now),
                Err(error) => self.reply(call, Err(error), now),
            },
            Request::Hide => self.hide(call, now),
            Request::IpamAllocate { id, cidr, timeout_ms } => {
                let within = optional(cidr.as_deref()).map(|net| net.map(|net| net.trunc()));
                let asked = within.map(|within| (ipam::Command::Allocate { id, within }, timeout_ms));
                self.ipam_call(call, Wanted::Addresses, asked, now);
            }
            Request::IpamClaim { id, cidr, timeout_ms } => {
                let asked = assignable(&cidr)
                    .map(|net| (ipam::Command::Claim { id, address: net.addr() }, timeout_ms));
                self.ipam_call(call, Wanted::Addresses, asked, now);
            }
            Request::IpamRelease { id, .. } if self.is_wired(&id) => {
                let text = format!("{id} is attached and uses its addresses: detach it first");
                self.reply(call, Err(ApiError::failed(text)), now);
            }
            Request::IpamRelease { id, cidr } => {
                let address = optional(cidr.as_deref()).map(|net| net.map(|net| net.addr()));
                let asked = address.map(|address| (ipam::Command::Release { id, address }, AT_ONCE));
                self.ipam_call(call, Wanted::Done, asked, now);
            }
            Request::IpamLookup { id, cidr } => match optional(cidr.as_deref()) {
                Ok(within) => self.lookup(call, id, within, now),
                Err(error) => self.reply(call, Err(error), now),
            },
            Request::Prime { timeout_ms } => {
                self.ipam_call(call, Wanted::Done, Ok((ipam::Command::Prime, timeout_ms)), now);
            }
            Request::Doctor => {
                let lines = self.doctor(now);
                self.outputs.push_back(Output::Inspect(call, Inspection::Doctor(lines)));
            }
            Request::Plan => {
                let wish = Box::new(self.local_wish());
                self.outputs.push_back(Output::Inspect(call, Inspection::Plan(wish)));
            }
            Request::CniAdd(add) => self.cni_add(call, *add, now),
            Request::CniDel(name) => self.cni_del(call, name, now),
            Request::CniCheck(name) => self.cni_check(call, name, now),
            Request::CniLease(lease) => self.cni_lease(call, lease, now),
            Request::CniRelease(name) => self.cni_release(call, &name, now),
            Request::CniGc { network, valid } => self.cni_gc(call, &network, valid, now),
            Request::CniStatus { addresses } => {
                let status = self.cni_status(addresses, now);
                self.reply(call, Ok(Response::CniStatus(status)), now);
            }
            Request::Reset { force } => self.reset(call, force, now),
        }
    }

    /// Answers a call once everything it promises is on disk.
    pub(super) fn reply(&mut self, call: CallId, result: Result<Response, ApiError>, now: Instant) {
        self.hold(Held::Reply(call, result), now);
    }

    /// Hands a request to the allocator.
    pub(super) fn request(
        &mut self,
        purpose: Purpose,
        command: ipam::Command,
        deadline: Instant,
        now: Instant,
    ) {
        let Some(ipam) = &mut self.ipam else { return };
        let request = ipam::RequestId(self.next_request);
        self.next_request += 1;
        self.requests.insert(request, purpose);
        ipam.handle_command(request, command, deadline, now);
    }

    /// The allocator has answered a request.
    pub(super) fn answered(
        &mut self,
        request: ipam::RequestId,
        result: Result<ipam::Reply, IpamError>,
        now: Instant,
    ) {
        let Some(purpose) = self.requests.remove(&request) else { return };
        if let Purpose::Reclaim(key, address) = &purpose {
            return self.reclaimed(key, *address, result, now);
        }
        let exhausted = matches!(result, Err(IpamError::Exhausted { .. }));
        let mut result = result.map(addresses).map_err(|error| refusal(&error));
        if let Err(error) = &mut result
            && exhausted
            && self.is_for_pod(&purpose)
        {
            // Another pod's end makes room, and then the runtime's next try succeeds.
            error.code = ErrorCode::NotNow;
        }
        match purpose {
            Purpose::Quiet | Purpose::Reclaim(..) => {}
            Purpose::Attach(call) => self.attach_address(call, result, now),
            Purpose::CniGateway(call) => self.cni_gateway(call, result, now),
            Purpose::CniLease(call, id) => self.cni_leased(call, &id, result, now),
            Purpose::Expose(call, given) => match result {
                Ok(addresses) => {
                    let length = self.range().map_or(32, |range| range.prefix_len());
                    let net = addresses.first().and_then(|address| Ipv4Net::new(*address, length).ok());
                    match given.or(net) {
                        Some(net) => self.exposed_as(call, net, now),
                        None => self.reply(call, Err(ApiError::failed("no address was given")), now),
                    }
                }
                Err(error) => self.reply(call, Err(error), now),
            },
            Purpose::Call(call, wanted) => self.answer_call(call, wanted, result, now),
        }
    }

    fn is_for_pod(&self, purpose: &Purpose) -> bool {
        match purpose {
            Purpose::Attach(call) => self.attaching.get(call).is_some_and(Attaching::is_pod),
            Purpose::CniGateway(_) | Purpose::CniLease(..) => true,
            Purpose::Call(..) | Purpose::Expose(..) | Purpose::Reclaim(..) | Purpose::Quiet => false,
        }
    }

    fn answer_call(
        &mut self,
        call: CallId,
        wanted: Wanted,
        result: Result<Vec<Ipv4Addr>, ApiError>,
        now: Instant,
    ) {
        let response = match (wanted, result) {
            (Wanted::Leaving { force: true }, Err(error)) => {
                tracing::warn!(error = error.message, "leaving although nobody takes the addresses");
                return self.leave(call, now);
            }
            (_, Err(error)) => Err(error),
            (Wanted::Addresses, Ok(addresses)) => Ok(Response::Addresses(self.with_length(&addresses))),
            (Wanted::Done, Ok(_)) => Ok(done()),
            (Wanted::Removal(peer), Ok(_)) => {
                self.removed(peer, now);
                Ok(done())
            }
            (Wanted::Leaving { .. }, Ok(_)) => return self.leave(call, now),
        };
        self.reply(call, response, now);
    }

    fn peer_add(&mut self, call: CallId, peers: &[String], replace: bool, now: Instant) {
        let targets: Result<Vec<Target>, ApiError> = peers.iter().map(|peer| self.target(peer)).collect();
        let result = targets.map(|targets| {
            if replace {
                self.mesh.replace_targets(targets, now);
            } else {
                self.mesh.add_targets(targets, now);
            }
            self.durability.change();
            done()
        });
        self.reply(call, result, now);
    }

    fn peer_forget(&mut self, call: CallId, peers: &[String], now: Instant) {
        let targets: Result<Vec<Target>, ApiError> = peers.iter().map(|peer| self.target(peer)).collect();
        let result = targets.and_then(|targets| {
            let known = self.mesh.targets();
            if let Some(unknown) = targets.iter().find(|target| !known.contains(target)) {
                return Err(ApiError::failed(format!("{unknown} is not among the targets")));
            }
            self.mesh.forget_targets(targets, now);
            self.durability.change();
            Ok(done())
        });
        self.reply(call, result, now);
    }

    fn target(&self, text: &str) -> Result<Target, ApiError> {
        text.parse().map_err(|error| ApiError::usage(format!("peer {text}: {error}")))
    }

    fn peer_remove(&mut self, call: CallId, name: &str, force: bool, now: Instant) {
        let peer = match self.resolve(name) {
            Ok(peer) => peer,
            Err(error) => return self.reply(call, Err(error), now),
        };
        let reachable = self.mesh.reaches(peer) == Some(true);
        if reachable && !force {
            let text = format!("{name} is reachable: stop it first, or use --force");
            return self.reply(call, Err(ApiError::failed(text)), now);
        }
        if self.ipam.is_none() {
            self.removed(peer, now);
            return self.reply(call, Ok(done()), now);
        }
        let command = ipam::Command::RemovePeer { peer, force };
        let deadline = now + Duration::from_secs(10);
        self.request(Purpose::Call(call, Wanted::Removal(peer)), command, deadline, now);
    }

    /// Finds a peer by name or nickname, among those known and those that own addresses.
    fn resolve(&self, name: &str) -> Result<PeerName, ApiError> {
        if name == self.config.nickname || name == self.config.me.to_string() {
            let text = format!("{name} is this peer: to leave the cluster use `weft reset`");
            return Err(ApiError::failed(text));
        }
        let owners = self.ipam.iter().flat_map(|ipam| ipam.status().owners).map(|(peer, _)| peer);
        let known: BTreeSet<PeerName> = self.mesh.presences().map(|peer| peer.name).chain(owners).collect();
        let called = |peer: &&PeerName| self.nicknames.get(peer).is_some_and(|nickname| nickname == name);
        let named: Vec<PeerName> = known.iter().filter(called).copied().collect();
        match named.as_slice() {
            [peer] => return Ok(*peer),
            [] => {}
            [_, _, ..] => {
                // A host that was set up anew has its old name's place taken: the dead one is meant.
                let reachable = |name: PeerName| self.mesh.reaches(name) == Some(true);
                let mut dead = named.iter().filter(|name| !reachable(**name));
                if let (Some(peer), None) = (dead.next(), dead.next()) {
                    return Ok(*peer);
                }
                let names = named.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
                return Err(ApiError::failed(format!(
                    "several peers are called {name}: name one of {names}"
                )));
            }
        }
        let parsed = name.parse::<PeerName>().ok();
        parsed
            .filter(|wanted| known.contains(wanted))
            .ok_or_else(|| ApiError::failed(format!("no peer is called {name}")))
    }

    fn attach_call(&mut self, call: CallId, attach: weft_api::Attach, now: Instant) {
        let addresses: Result<Vec<Ipv4Net>, ApiError> =
            attach.addresses.iter().map(|a| assignable(a)).collect();
        match addresses {
            Ok(addresses) => {
                let timeout = millis(attach.timeout_ms);
                let (id, default_route) = (attach.id(), attach.default_route);
                let key = LinkKey { id, ifname: attach.ifname };
                let netns = attach.netns;
                let order = AttachOrder { key, netns, default_route, addresses, timeout, wishes: None };
                self.attach(call, order, now);
            }
            Err(error) => self.reply(call, Err(error), now),
        }
    }

    /// Checks one of the verbs about addresses and hands it to the allocator.
    fn ipam_call(
        &mut self,
        call: CallId,
        wanted: Wanted,
        asked: Result<(ipam::Command, u64), ApiError>,
        now: Instant,
    ) {
        match asked.and_then(|asked| self.ipam.as_ref().map(|_| asked).ok_or_else(off)) {
            Ok((command, timeout)) => {
                self.request(Purpose::Call(call, wanted), command, now + millis(timeout), now);
            }
            Err(error) => self.reply(call, Err(error), now),
        }
    }

    /// Whether an attachment, or the host itself, uses the addresses of an id.
    fn is_wired(&self, id: &str) -> bool {
        let exposed = id == EXPOSE_ID && self.exposed.is_some();
        exposed || self.attachments.iter().any(|attachment| attachment.key.allocation_id() == id)
    }

    /// What is held here for an id, and for the attachments made under it.
    pub(super) fn held(&self, id: &str) -> Vec<Ipv4Addr> {
        let mut addresses: BTreeSet<Ipv4Addr> = self.ipam.iter().flat_map(|ipam| ipam.lookup(id)).collect();
        let attached = self.attachments.iter().filter(|a| a.key.id == id && a.conflicts.is_empty());
        addresses.extend(attached.flat_map(|a| a.addresses.iter().map(Ipv4Net::addr)));
        addresses.into_iter().collect()
    }

    /// Answers from here, or asks around.
    fn lookup(&mut self, call: CallId, id: String, within: Option<Ipv4Net>, now: Instant) {
        if self.ipam.is_none() {
            return self.reply(call, Err(off()), now);
        }
        let addresses = self.held(&id);
        if !addresses.is_empty() {
            return self.found(Found { call, id, within, addresses }, now);
        }
        let barred = self.overlay.barred();
        let peers =
            self.mesh.presences().filter(|p| p.reachable && !barred.contains(&p.name)).map(|p| p.name);
        let peers: BTreeSet<PeerName> = peers.collect();
        match self.lookups.begin(call, id.clone(), within, peers.clone(), now) {
            Some(ticket) => {
                let query = Message::Query { ticket, id }.encode();
                for peer in peers {
                    self.mesh.unicast(lookup::CHANNEL, peer, query.clone(), now);
                }
            }
            None => self.found(Found { call, id, within, addresses: Vec::new() }, now),
        }
    }

    /// A look-up has ended.
    pub(super) fn found(&mut self, found: Found, now: Instant) {
        let Found { call, id, within, mut addresses } = found;
        addresses.retain(|address| within.is_none_or(|net| net.contains(address)));
        let result = match addresses.as_slice() {
            [] => Err(ApiError::failed(format!("no address is held for {id}"))),
            [_, ..] => Ok(Response::Addresses(self.with_length(&addresses))),
        };
        self.reply(call, result, now);
    }

    /// A peer asks about an id, or answers.
    pub(super) fn hear_lookup(&mut self, from: PeerName, bytes: &[u8], now: Instant) {
        match Message::decode(bytes) {
            Some(Message::Query { ticket, id }) => {
                let answer = Message::answer(ticket, self.held(&id).into_iter());
                self.mesh.unicast(lookup::CHANNEL, from, answer.encode(), now);
            }
            Some(Message::Answer { ticket, addresses }) => {
                if let Some(found) = self.lookups.answered(from, ticket, addresses) {
                    self.found(found, now);
                }
            }
            None => self.undecodable += 1,
        }
    }

    fn reset(&mut self, call: CallId, force: bool, now: Instant) {
        if self.ipam.is_none() {
            return self.leave(call, now);
        }
        let deadline = now + LEAVE_TIMEOUT;
        self.request(Purpose::Call(call, Wanted::Leaving { force }), ipam::Command::Leave, deadline, now);
    }

    fn leave(&mut self, call: CallId, now: Instant) {
        self.overlay.farewell(Goodbye::Leaving);
        self.left = true;
        self.hold(Held::Leave(call), now);
    }

    /// The range addresses are given out from; `None` when allocation is off.
    pub(super) fn range(&self) -> Option<Ipv4Net> {
        self.ipam.as_ref().map(|ipam| ipam.status().range)
    }

    pub(super) fn with_length(&self, addresses: &[Ipv4Addr]) -> Vec<String> {
        let length = self.range().map_or(32, |range| range.prefix_len());
        addresses.iter().map(|address| format!("{address}/{length}")).collect()
    }
}

/// What the allocator's refusal means to a caller: "not now" is safe to try again.
fn refusal(error: &IpamError) -> ApiError {
    let text = error.to_string();
    if error.is_transient() { ApiError::not_now(text) } else { ApiError::failed(text) }
}

pub(super) fn off() -> ApiError {
    ApiError::failed("address allocation is off (--range none)")
}

/// The addresses in a reply, none where it is not about addresses.
fn addresses(reply: ipam::Reply) -> Vec<Ipv4Addr> {
    match reply {
        ipam::Reply::Address(address) => vec![address],
        ipam::Reply::Addresses(addresses) => addresses,
        ipam::Reply::Removed(_) | ipam::Reply::Done => Vec::new(),
    }
}

fn optional(text: Option<&str>) -> Result<Option<Ipv4Net>, ApiError> {
    text.map(network).transpose()
}

pub(super) fn network(text: &str) -> Result<Ipv4Net, ApiError> {
    let parsed = text
        .parse::<Ipv4Net>()
        .or_else(|error| text.parse::<Ipv4Addr>().map(Ipv4Net::from).map_err(|_| error));
    parsed.map_err(|_| {
        if text.parse::<IpNet>().is_ok() || text.parse::<Ipv6Addr>().is_ok() {
            ApiError::usage(format!("{text}: IPv6 is not supported yet, an address is IPv4"))
        } else {
            ApiError::usage(format!("{text} is not an IPv4 address with a length, as 10.32.0.5/12"))
        }
    })
}

/// The address of a host or a container: not one that means something else everywhere (RFC 6890).
pub(super) fn assignable(text: &str) -> Result<Ipv4Net, ApiError> {
    let net = network(text)?;
    let kind = match net.addr() {
        address if address.octets()[0] == 0 => "no address (0.0.0.0/8)",
        address if address.is_loopback() => "a loopback address",
        address if address.is_multicast() => "a multicast address",
        address if address.is_broadcast() => "the broadcast address",
        address if address.octets()[0] >= 240 => "reserved (240.0.0.0/4)",
        _ => return Ok(net),
    };
    Err(ApiError::failed(format!("{text} is {kind}, no container or host can have it")))
}

pub(super) fn millis(timeout: u64) -> Duration {
    Duration::from_millis(timeout.min(3_600_000))
}
