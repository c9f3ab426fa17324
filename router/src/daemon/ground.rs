//! What a launch takes before it changes anything: every refusal that can be known in advance happens here.
//!
//! All of it goes by itself when dropped, so a refused launch leaves no trace.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{Context as _, bail};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use weft_fastpath::{BridgeName, Fastpath};
use weft_gossip::io::Transport;

use crate::config::Config;
use crate::io::attach::AttachSocket;
use crate::io::bridge::BridgeClaim;
use crate::io::call::Call;
use crate::io::host::OVERHEAD;
use crate::io::http::{Api, MetricsServer};
use crate::io::store::{self, Condition, StoreError};
use crate::io::udp::Sockets;

/// Calls waiting for the control loop; the servers bound their connections, so this is rarely more than one.
const CALLS: usize = 64;

/// The places of a router, taken, and what was measured of the host.
pub(super) struct Ground {
    pub(super) claim: BridgeClaim,
    pub(super) fastpath: Fastpath,
    pub(super) transport: Transport,
    pub(super) doors: Doors,
    pub(super) listen: SocketAddr,
    /// The containers' MTU.
    pub(super) mtu: u32,
    /// Nothing of ours stood in the kernel.
    pub(super) bare: bool,
}

impl Ground {
    /// Takes it all, or says what is in the way.
    pub(super) async fn take(config: &Config) -> anyhow::Result<Self> {
        if let Condition::InUse(pid) = store::inspect(&config.state_dir)? {
            return Err(StoreError::InUse { dir: config.state_dir.clone(), pid }.into());
        }
        let doors = Doors::bind(config).await?;
        let claim = BridgeClaim::take(config.bridge.as_str())?;
        let bridge: BridgeName = config.bridge.as_str().parse()?;
        let fastpath = Fastpath::new(bridge.clone())?;
        refuse_overlap(&fastpath, config).await?;
        let mtu = container_mtu(&fastpath, config).await?;
        let bare = fastpath.observe().await?.ours(&bridge).is_empty();
        let listen =
            SocketAddr::new(config.listen.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)), config.ports.mesh);
        let transport = listen_on(listen).await.with_context(|| format!("TCP {listen} cannot be bound"))?;
        if config.sleeve {
            // The data half binds it for itself, when the bridge stands.
            Sockets::bind(listen).map(drop).with_context(|| format!("UDP {listen} cannot be bound"))?;
        }
        Ok(Self { claim, fastpath, transport, doors, listen, mtu, bare })
    }

    /// The launch failed after all: takes back what it made in the kernel, unless a router before left it.
    pub(super) async fn clear(&mut self) {
        if self.bare {
            for error in self.fastpath.teardown().await.errors {
                tracing::warn!(%error, "the kernel is not as it was");
            }
        }
    }
}

/// The local sockets, bound and not served yet.
pub(super) struct Doors {
    metrics: Option<MetricsServer>,
    attach: AttachSocket,
    /// Bound first and dropped last: the directory it made is empty then.
    api: Api,
}

impl Doors {
    async fn bind(config: &Config) -> anyhow::Result<Self> {
        let api = Api::bind(&config.socket)?;
        let attach = AttachSocket::bind(&config.socket)?;
        let metrics = match config.metrics {
            Some(address) => Some(MetricsServer::bind(address).await?),
            None => None,
        };
        Ok(Self { metrics, attach, api })
    }

    /// Serves; what callers ask comes out of the queue.
    pub(super) fn open(self) -> (JoinSet<()>, mpsc::Receiver<Call>) {
        let (calls_in, calls) = mpsc::channel(CALLS);
        let mut servers = JoinSet::new();
        servers.spawn(self.api.serve(calls_in.clone()));
        servers.spawn(self.attach.serve(calls_in.clone()));
        if let Some(metrics) = self.metrics {
            servers.spawn(metrics.serve(calls_in));
        }
        (servers, calls)
    }
}

/// Listens for the mesh: on every address of both families where the host has both.
async fn listen_on(listen: SocketAddr) -> std::io::Result<Transport> {
    if listen.ip().is_unspecified() {
        let both = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), listen.port());
        if let Ok(transport) = Transport::bind(both).await {
            return Ok(transport);
        }
    }
    Transport::bind(listen).await
}

/// Refuses a range that a route of the host overlaps: packets of one of the two would go astray.
async fn refuse_overlap(fastpath: &Fastpath, config: &Config) -> anyhow::Result<()> {
    let Some(range) = config.range else { return Ok(()) };
    for route in fastpath.host_routes().await? {
        let net = route.destination;
        if net.contains(&range.network()) || range.contains(&net.network()) {
            let device = route.device.as_deref().unwrap_or("nowhere");
            bail!("range {range} overlaps the host's route {net} (by {device}): choose another with --range");
        }
    }
    Ok(())
}

/// The containers' MTU: given, or the underlay's towards the peers less the overhead.
async fn container_mtu(fastpath: &Fastpath, config: &Config) -> anyhow::Result<u32> {
    if let Some(mtu) = config.mtu {
        return Ok(u32::from(mtu.get()));
    }
    let towards: Vec<IpAddr> = config.peers.iter().filter_map(|peer| peer.host.parse().ok()).collect();
    Ok(fastpath.underlay_mtu(&towards).await?.saturating_sub(OVERHEAD).max(576))
}
