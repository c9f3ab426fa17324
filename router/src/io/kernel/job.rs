//! What the kernel task is asked, and what it answers.

use std::collections::BTreeSet;
use std::net::IpAddr;

use tokio::sync::oneshot;
use weft_api::{ApiError, Descriptors, Response};
use weft_fastpath::{ContainerLink, Lock, MacAddr, StandingLink};
use weft_gossip::PeerName;

use crate::node::attachments::LinkKey;
use crate::node::{CallId, Inspection, KernelReport, LocalWish};
use crate::overlay::KernelWish;

/// One job.
#[derive(Debug)]
pub enum Job {
    /// Bring bridge, ports, addresses and the host's firewall to this state, and keep them there.
    Converge(Box<LocalWish>),
    /// Bring forwarding entries and source filter to this state, and keep them there.
    Fastpath(KernelWish),
    /// Move the addresses behind a peer to the other port.
    Move(Move),
    /// Make a container link.
    Attach {
        /// The call that asks for it.
        call: CallId,
        /// The link.
        link: Box<ContainerLink>,
        /// What its port lets through, from the first frame; none: anything.
        lock: Option<Lock>,
        /// The namespace, and netlink in it.
        descriptors: Descriptors,
    },
    /// Remove a container link.
    Detach(LinkKey),
    /// Take the port of a container link down, or up again.
    SetPort(LinkKey, bool),
    /// Say that the links asked for before it are made or removed.
    Fence(CallId),
    /// Add what only the host can tell and answer the call.
    /// The addresses are the peers': towards them the underlay is measured.
    Inspect(CallId, Inspection, Vec<IpAddr>),
    /// Remove every object of ours.
    Teardown(CallId),
}

/// The addresses behind a peer, and the port they move to.
#[derive(Debug)]
pub struct Move {
    /// The peer.
    pub peer: PeerName,
    /// Its underlay address.
    pub address: IpAddr,
    /// The number to answer with.
    pub job: u64,
    /// Where to.
    pub to: Way,
}

/// Where addresses move to.
#[derive(Debug)]
pub enum Way {
    /// To the sleeve: those that the kernel has learned behind the peer.
    Sleeve,
    /// To VXLAN: those that sleeve has learned, as soon as the data half has said which.
    Vxlan(oneshot::Receiver<BTreeSet<MacAddr>>),
}

/// What the kernel task has to say.
#[derive(Debug)]
pub enum News {
    /// A job is done.
    Report(KernelReport),
    /// These addresses, learned by the kernel behind the peer, are sleeve's from now on.
    Placed(PeerName, BTreeSet<MacAddr>),
    /// These container links stand.
    Links(Vec<StandingLink>),
    /// A call is answered.
    Inspected(CallId, Result<Response, ApiError>),
    /// Everything of ours is gone, or what could not be removed.
    TornDown(CallId, Vec<String>),
}
