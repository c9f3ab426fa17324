//! The forwarding table: what the control half learned about the mesh, ready to be looked up.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use weft_gossip::PeerName;

/// What carries frames to a direct neighbour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Carrier {
    /// Nothing works.
    #[default]
    None,
    /// The router, by sealed datagrams.
    Sleeve,
    /// The kernel, by VXLAN.
    Fastpath,
}

impl fmt::Display for Carrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Sleeve => "sleeve",
            Self::Fastpath => "fastpath",
        })
    }
}

/// Made by the control half, replaced as a whole, never changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForwardingTable {
    /// This router.
    pub me: PeerName,
    /// The neighbour through which each reachable peer is reached.
    pub next_hop: BTreeMap<PeerName, PeerName>,
    /// To which neighbours a flooded frame of this source goes on from here.
    pub flood: BTreeMap<PeerName, Vec<PeerName>>,
    /// From which neighbour a flooded frame of each other source comes here.
    pub upstream: BTreeMap<PeerName, PeerName>,
    /// What carries frames to each direct neighbour.
    pub carriers: BTreeMap<PeerName, Carrier>,
    /// Peers seeded apart: no frame to or from them.
    pub barred: BTreeSet<PeerName>,
}

impl ForwardingTable {
    /// A router that knows nobody.
    pub fn alone(me: PeerName) -> Self {
        Self {
            me,
            next_hop: BTreeMap::new(),
            flood: BTreeMap::new(),
            upstream: BTreeMap::new(),
            carriers: BTreeMap::new(),
            barred: BTreeSet::new(),
        }
    }

    /// Whether the kernel carries frames to this neighbour.
    pub fn is_on_fastpath(&self, neighbour: PeerName) -> bool {
        self.carriers.get(&neighbour) == Some(&Carrier::Fastpath)
    }

    /// Whether every reachable peer is a direct neighbour, so that nobody has to pass anything on.
    pub fn is_full_mesh(&self) -> bool {
        self.next_hop.iter().all(|(peer, next)| peer == next)
    }

    /// The neighbours a flooded frame of `source` goes on to, and whether each delivers it.
    ///
    /// Only frames of our own containers are flooded by our kernel too: then neighbours on fastpath have it already
    /// and merely pass it on, and where there is nobody to pass it on to they need not even get it.
    pub fn flood_hops(&self, source: PeerName) -> impl Iterator<Item = (PeerName, bool)> {
        let hops = self.flood.get(&source).map(Vec::as_slice).unwrap_or_default();
        let ours = source == self.me;
        let leaves = ours && self.is_full_mesh();
        hops.iter()
            .filter(|hop| !self.barred.contains(hop))
            .map(move |hop| (*hop, !(ours && self.is_on_fastpath(*hop))))
            .filter(move |(_, deliver)| *deliver || !leaves)
    }
}
