//! One simulated host: what it remembers over restarts, and its mesh while it runs.

use std::time::Instant;

use super::{NodeId, Sim};
use crate::event::ChannelName;
use crate::identity::{Identity, Psk};
use crate::mesh::{Mesh, MeshConfig};
use crate::peer::{BootId, Incarnation};

/// How a simulated node is set up.
#[derive(Debug, Clone)]
pub struct NodeOptions {
    /// The nodes it dials from the start.
    pub targets: Vec<NodeId>,
    /// The key of its cluster.
    pub psk: Psk,
    /// Whether it dials peers learned by gossip.
    pub discovery: bool,
    /// Most neighbours at one time.
    pub connection_limit: Option<usize>,
    /// The channels its application takes part in.
    pub channels: Vec<ChannelName>,
    /// Whose key it has: another node's, to simulate a cloned machine; none: its own.
    pub identity: Option<NodeId>,
    /// Whether its handshakes are computed on the real curve, which costs far more than all else in them.
    pub real_curve: bool,
}

impl Default for NodeOptions {
    fn default() -> Self {
        Self {
            targets: Vec::new(),
            psk: Psk::open(),
            discovery: true,
            connection_limit: None,
            channels: Vec::new(),
            identity: None,
            real_curve: true,
        }
    }
}

pub(super) struct Node {
    pub(super) options: NodeOptions,
    identity: Identity,
    incarnation: u64,
    /// How often it was started: what was meant for an earlier life is not for this one.
    pub(super) life: u32,
    pub(super) mesh: Option<Mesh>,
    /// When its mesh wants to be called.
    pub(super) timer: Option<Instant>,
}

impl Node {
    pub(super) fn new(options: NodeOptions, identity: NodeId) -> Self {
        let mut secret = [0x5a; 32];
        secret[..8].copy_from_slice(&(identity as u64 + 1).to_be_bytes());
        let identity =
            if options.real_curve { Identity::from_secret(secret) } else { Identity::simulated(secret) };
        Self { options, identity, incarnation: 1, life: 0, mesh: None, timer: None }
    }

    pub(super) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// What the next start knows of the one before.
    pub(super) fn remember(&mut self, with_memory: bool) {
        self.incarnation = if with_memory { self.incarnation + 1 } else { 1 };
    }

    pub(super) fn config(&self, node: NodeId, boot: u64) -> MeshConfig {
        let address = Sim::address(node);
        MeshConfig {
            identity: self.identity.clone(),
            incarnation: Incarnation(self.incarnation),
            boot: BootId(boot),
            nickname: format!("node{node}"),
            site: "default".into(),
            psk: self.options.psk.clone(),
            endpoints: vec![address],
            listen_port: address.port(),
            discovery: self.options.discovery,
            connection_limit: self.options.connection_limit,
            targets: Vec::new(),
            channels: self.options.channels.iter().copied().collect(),
        }
    }
}
