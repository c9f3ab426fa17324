//! Every effect the control half can ask for.

use std::collections::BTreeSet;
use std::net::IpAddr;

use weft_api::{ApiError, DoctorLine, Report, Response};

use weft_fastpath::{ContainerLink, Lock, MacAddr};
use weft_gossip::PeerName;

use super::attachments::LinkKey;
use super::picture::LocalWish;
use crate::dataplane::Command;
use crate::overlay::{KernelWish, Stand};

/// A call of the local API that waits for its reply; given out by the shell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CallId(pub u64);

/// What the control half wants done; the shell executes outputs in order.
#[derive(Debug)]
pub enum Output {
    /// Dial, send or close: what the mesh wants of its connections.
    Transport(weft_gossip::Output),
    /// Command the data half.
    Data(Command),
    /// Write the state to disk and report with [`super::Node::handle_persisted`].
    Persist,
    /// Change the kernel and report with [`super::Node::handle_kernel`].
    Kernel(KernelJob),
    /// Send a probe out of the bridge, under the probes' ethertype.
    Probe {
        /// The VXLAN device it is for.
        mac: MacAddr,
        /// What follows the Ethernet header.
        bytes: Vec<u8>,
    },
    /// Look at the host for a call and answer it.
    Inspect(CallId, Inspection),
    /// Answer a call.
    Reply(CallId, Result<Response, ApiError>),
    /// Everything of ours is handed over: tear the kernel objects down, remove the state and end.
    Leave(CallId),
}

/// What a call wants to know that only the host can tell; the node has filled in its own part.
#[derive(Clone, Debug)]
pub enum Inspection {
    /// Add the host's lines to these.
    Doctor(Vec<DoctorLine>),
    /// Say what would be changed to reach this.
    Plan(Box<LocalWish>),
    /// Add the host's lines and the plan to this.
    Report(Box<Report>, Box<LocalWish>),
}

/// One job for the kernel, executed in order.
#[derive(Clone, Debug)]
pub enum KernelJob {
    /// Bring the bridge, its ports and the host's firewall to this state.
    Converge(Box<LocalWish>),
    /// Make a container link, with the descriptors that came with the call. With a lock its port lets through only what is the container's own from the first frame.
    Attach(CallId, Box<ContainerLink>, Option<Lock>),
    /// Remove a container link.
    Detach(LinkKey),
    /// Take the port of an attachment in conflict down, or up again.
    SetPort(LinkKey, bool),
    /// Nothing by itself: the links asked for before it have been made or removed, or tried; answered with [`KernelReport::Fenced`].
    Fence(CallId),
    /// Bring VXLAN's entries and the source filter to this state; answered with [`KernelReport::Applied`].
    Fastpath(KernelWish),
    /// Move the MAC addresses behind a peer to the other port; answered with [`KernelReport::Moved`].
    MoveMacs {
        /// The peer.
        peer: PeerName,
        /// Its underlay address.
        address: IpAddr,
        /// The number to answer with.
        job: u64,
        /// The port they move to.
        to: Stand,
    },
}

/// What came of a [`KernelJob`].
#[derive(Clone, Debug)]
pub enum KernelReport {
    /// The kernel is as desired, or why not.
    Converged(Result<(), String>),
    /// The container link stands, or why not; nothing of it is left in that case.
    Attached(CallId, Result<(), String>),
    /// What was asked for before the fence of this call has been done.
    Fenced(CallId),
    /// Fastpath is possible on this host, or why not.
    Fastpath(Result<(), String>),
    /// The fastpath wish with this number, and so all before it, is in force.
    Applied(u64),
    /// The MAC addresses of this job were moved, or could not be.
    Moved(PeerName, u64),
    /// The kernel has lately carried frames to or from these hosts.
    Carried(BTreeSet<IpAddr>),
}

/// Done, and nothing more to say.
pub(super) fn done() -> Response {
    Response::Done(Vec::new())
}
