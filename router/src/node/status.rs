//! Read-only documents: what is going on, for people and programs.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use weft_api::{
    Attachment, AttachmentState, Carrier, Connection, ConnectionState, Counter, Direction, Ipam, IpamState,
    Metrics, Owner, Peer, Report, Response, Status, ThisPeer, Transport,
};
use weft_gossip::{ConnectionView, PeerName, PeerView};

use super::{CallId, Inspection, Node, Output, counters};
use crate::{dataplane, ipam};

/// What a call wants once the data half has told its counters.
#[derive(Clone, Copy, Debug)]
pub(super) enum Counting {
    Report,
    Metrics,
}

impl Node {
    /// The status document.
    #[must_use]
    pub fn status(&self, now: Instant) -> Status {
        let ipam = self.ipam_status(now);
        let gives = matches!(ipam.state, IpamState::Ready | IpamState::Off);
        let held: BTreeSet<PeerName> = self.overlay.held().collect();
        Status {
            version: self.config.version.clone(),
            ready: gives && matches!(self.bridge, Some(Ok(()))),
            peer: ThisPeer {
                name: self.config.me.to_string(),
                nickname: self.config.nickname.clone(),
                incarnation: self.config.incarnation,
                site: self.config.site.clone(),
            },
            encryption: self.config.encrypted,
            targets: self.mesh.targets().iter().map(ToString::to_string).collect(),
            connections: self.connections(now),
            peers: self.mesh.peers().map(|view| peer(&view, held.contains(&view.name))).collect(),
            ipam,
            attachments: self.attachments.iter().map(attachment).collect(),
            exposed: self.exposed.iter().flat_map(|e| &e.addresses).map(ToString::to_string).collect(),
            drops: self.drops(),
            warnings: self.warnings(),
        }
    }

    /// Dropped frames by reason, in the words of the counters.
    fn drops(&self) -> BTreeMap<String, u64> {
        serde_json::to_value(&self.counters.drops).and_then(serde_json::from_value).unwrap_or_default()
    }

    fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if !self.config.encrypted {
            warnings.push("no secret: the mesh is open and frames travel in clear".to_owned());
        }
        if let Some(Err(error)) = &self.bridge {
            warnings.push(format!("the kernel is not as it should be: {error}"));
        }
        warnings.extend(self.faults());
        if self.durability.is_failing() {
            warnings.push("the state cannot be written: nothing new is promised until it can".to_owned());
        }
        warnings
    }

    /// What was wrong with what peers said about addresses; none of it was used.
    pub(super) fn faults(&self) -> Vec<String> {
        let faults = self.ipam.iter().flat_map(|ipam| ipam.status().faults);
        faults.map(|(peer, reason)| format!("{}: {reason}", self.nickname(peer))).collect()
    }

    /// One entry per live session and per target being dialled.
    pub(super) fn connections(&self, now: Instant) -> Vec<Connection> {
        self.mesh.connections().map(|view| self.connection(view, now)).collect()
    }

    fn connection(&self, view: ConnectionView, now: Instant) -> Connection {
        let state = match view.state {
            weft_gossip::ConnectionState::Connecting => ConnectionState::Connecting,
            weft_gossip::ConnectionState::Established => ConnectionState::Established,
            weft_gossip::ConnectionState::Retrying => ConnectionState::Retrying,
            weft_gossip::ConnectionState::Failed => ConnectionState::Failed,
        };
        let peer = view.peer.as_ref().map(|(name, _)| *name);
        let neighbour = peer
            .filter(|_| state == ConnectionState::Established)
            .and_then(|name| self.overlay.neighbour(name));
        let carrier = neighbour.and_then(|n| n.carrier()).and_then(|carrier| match carrier {
            dataplane::Carrier::Sleeve => Some(Carrier::Sleeve),
            dataplane::Carrier::Fastpath => Some(Carrier::Fastpath),
            dataplane::Carrier::None => None,
        });
        let rtt = neighbour.and_then(|n| n.rtt()).or(view.rtt);
        Connection {
            address: view.address,
            transport: Transport::Tcp,
            direction: if view.outbound { Direction::Outbound } else { Direction::Inbound },
            state,
            peer: peer.map(|name| name.to_string()),
            nickname: view.peer.map(|(_, nickname)| nickname),
            carrier,
            reason: neighbour.map(|n| n.reason().to_string()),
            encrypted: self.config.encrypted && carrier == Some(Carrier::Sleeve),
            mtu: neighbour.and_then(|n| n.mtu()).map(u32::from),
            rtt_us: rtt.map(|rtt| u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX)),
            error: view.error,
            retry_in_ms: view
                .retry_at
                .map(|at| u64::try_from(at.saturating_duration_since(now).as_millis()).unwrap_or(u64::MAX)),
        }
    }

    /// The addresses' part of the status.
    pub(super) fn ipam_status(&self, _now: Instant) -> Ipam {
        let Some(ipam) = &self.ipam else {
            return Ipam {
                state: IpamState::Off,
                reason: None,
                range: None,
                owned: 0,
                used: 0,
                owners: Vec::new(),
            };
        };
        let status = ipam.status();
        let (state, reason) = match status.state {
            ipam::IpamState::Off => (IpamState::Off, None),
            ipam::IpamState::Waiting(reason) => (IpamState::Waiting, Some(reason)),
            ipam::IpamState::Ready => (IpamState::Ready, None),
            ipam::IpamState::Split(peers) => (IpamState::Split, Some(self.split_reason(&peers))),
        };
        let owners = status.owners.iter().map(|(name, addresses)| self.owner(*name, *addresses)).collect();
        Ipam {
            state,
            reason,
            range: Some(status.range.to_string()),
            owned: status.owned,
            used: status.used,
            owners,
        }
    }

    fn split_reason(&self, peers: &[PeerName]) -> String {
        let names: Vec<String> = peers.iter().map(|peer| self.nickname(*peer)).collect();
        format!(
            "seeded apart from {}: no frame crosses; run `weft reset` on every host of the cluster to give up and launch it again",
            names.join(", ")
        )
    }

    pub(super) fn nickname(&self, peer: PeerName) -> String {
        if peer == self.config.me {
            return self.config.nickname.clone();
        }
        self.nicknames.get(&peer).cloned().unwrap_or_else(|| peer.to_string())
    }

    fn owner(&self, name: PeerName, addresses: u64) -> Owner {
        let reachable = name == self.config.me || self.mesh.reaches(name) == Some(true);
        Owner { peer: name.to_string(), nickname: self.nickname(name), addresses, reachable }
    }

    /// Asks the data half for its counters first.
    pub(super) fn count_first(&mut self, call: CallId, counting: Counting) {
        self.counting.push((call, counting));
        self.outputs.push_back(Output::Data(dataplane::Command::Counters));
    }

    /// The counters have come: answers the calls that waited for them.
    pub(super) fn counted(&mut self, now: Instant) {
        for (call, counting) in std::mem::take(&mut self.counting) {
            let (status, counters) = (self.status(now), self.counter_list());
            match counting {
                Counting::Metrics => {
                    let metrics = Box::new(Metrics { status, counters });
                    self.outputs.push_back(Output::Reply(call, Ok(Response::Metrics(metrics))));
                }
                Counting::Report => {
                    let report = Report {
                        status,
                        configuration: self.config.described.clone(),
                        state: self.views(),
                        counters,
                        plan: Vec::new(),
                        doctor: self.doctor(now),
                        log: Vec::new(),
                    };
                    let wish = Box::new(self.local_wish());
                    self.outputs.push_back(Output::Inspect(call, Inspection::Report(Box::new(report), wish)));
                }
            }
        }
    }

    /// Every counter of every part, one list.
    fn counter_list(&self) -> Vec<Counter> {
        let (mut list, none) = (Vec::new(), BTreeMap::new());
        counters::list("data", &serde_json::json!(self.counters), &none, &mut list);
        counters::list("mesh", &serde_json::json!(self.mesh.counters()), &none, &mut list);
        counters::list("overlay", &serde_json::json!(self.overlay.counters()), &none, &mut list);
        counters::list("node", &serde_json::json!({"undecodable": self.undecodable}), &none, &mut list);
        list.sort_by(|a, b| a.name.cmp(&b.name));
        list
    }

    /// The machines' own views, for a bug report.
    fn views(&self) -> BTreeMap<String, serde_json::Value> {
        let neighbours = self.overlay.neighbours().map(|(peer, n)| (peer.to_string(), format!("{n:?}")));
        let mut views = BTreeMap::new();
        views.insert("routes".to_owned(), serde_json::json!(format!("{:?}", self.mesh.routes())));
        views.insert("overlay".to_owned(), serde_json::json!(neighbours.collect::<BTreeMap<_, _>>()));
        if let Some(ipam) = &self.ipam {
            let allocations: Vec<String> =
                ipam.allocations().map(|(id, address)| format!("{address} {id}")).collect();
            views.insert("ipam".to_owned(), serde_json::json!(ipam.snapshot()));
            views.insert("allocations".to_owned(), serde_json::json!(allocations));
        }
        views
    }
}

fn peer(view: &PeerView, held: bool) -> Peer {
    Peer {
        name: view.name.to_string(),
        nickname: view.nickname.clone(),
        site: view.site.clone(),
        reachable: view.reachable,
        hops: view.hops,
        via: view.via.filter(|via| *via != view.name).map(|via| via.to_string()),
        links: view.links.iter().map(ToString::to_string).collect(),
        held,
    }
}

fn attachment(attachment: &super::attachments::Attachment) -> Attachment {
    Attachment {
        id: attachment.key.id.clone(),
        netns: attachment.netns.clone(),
        interface: attachment.key.ifname.clone(),
        mac: attachment.mac.to_string(),
        addresses: attachment.addresses.iter().map(ToString::to_string).collect(),
        state: if attachment.conflicts.is_empty() { AttachmentState::Ok } else { AttachmentState::Conflict },
    }
}
