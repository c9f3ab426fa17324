//! What may become of a frame: one value, and one counter per reason.

use weft_gossip::PeerName;

/// What the switch decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// For this peer's host.
    Forward(PeerName),
    /// For everyone, along the broadcast tree.
    Flood,
    /// For this host.
    Inject,
    /// For nobody.
    Drop(DropReason),
}

/// Why a frame went nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum DropReason {
    /// No Ethernet header.
    Malformed,
    /// Larger than anything that is carried.
    Oversized,
    /// Its source is a group address, or zero.
    BadSource,
    /// Spanning tree, pause frames and the like stay on their link.
    LinkLocal,
    /// One that asks of its host whether VXLAN gets through, which no other carrier can answer.
    VxlanProbe,
    /// For a container of this host; the bridge delivers it.
    Local,
    /// The kernel carries frames for that peer.
    OnFastpath,
    /// That peer, or its cluster, was seeded apart.
    Barred,
    /// No way to that peer.
    NoRoute,
    /// The next hop has not announced a key.
    NoKey,
    /// Crossed too many links.
    HopLimit,
    /// Came back to where it started.
    Loop,
    /// Flooded, and not come by its source's tree: peers disagree about the topology for a moment.
    OffTree,
    /// Flooded, and handed to the bridge before: it came by its source's tree, which then was another one.
    Repeated,
    /// A peer sent it from an address of one of our own containers.
    SourceIsLocal,
    /// Parts of it were lost.
    Incomplete,
    /// The capture interface did not take it.
    InjectFailed,
}
