//! What the flags of `weft launch` mean: every value is checked once, here, and nothing downstream sees a raw flag.
//!
//! A value that can be judged by itself is a type with `FromStr` in `config/`; what only holds between values is checked
//! by [`Ports::new`] and by the command line that puts a [`Config`] together.

mod init;
mod limits;
mod names;
mod peer_address;
mod ports;
mod range;
mod secret;

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use ipnet::{IpNet, Ipv4Net};

pub use init::Init;
pub use limits::{Capture, LogFormat, MetricsAddress, Mtu};
pub use names::{InterfaceName, Nickname};
pub use peer_address::{PeerAddress, PeerTransport};
pub use ports::Ports;
pub use range::Range;
pub use secret::Secret;

/// A value that makes no sense; the message holds the value and what is allowed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(pub String);

/// How a router is launched.
#[derive(Clone, Debug)]
pub struct Config {
    /// The name people read.
    pub nickname: Nickname,
    /// What TCP, sleeve, VXLAN and QUIC bind to and send from; none: all addresses.
    pub listen: Option<IpAddr>,
    /// The ports.
    pub ports: Ports,
    /// The cluster secret; none: an open cluster.
    pub secret: Option<Secret>,
    /// Frames to peers in these may travel unencrypted when both ends say so.
    pub trusted_subnets: Vec<IpNet>,
    /// The universe of addresses; none: IPAM is off.
    pub range: Option<Ipv4Net>,
    /// Who makes the first ring.
    pub init: Init,
    /// Whether the fastpath may be used.
    pub fastpath: bool,
    /// Whether sleeve may be used.
    pub sleeve: bool,
    /// How sleeve reads and writes frames.
    pub capture: Capture,
    /// The containers' MTU; none: measured.
    pub mtu: Option<Mtu>,
    /// Most mesh connections; none: no limit.
    pub connection_limit: Option<usize>,
    /// Whether peers learned by gossip are dialled.
    pub discovery: bool,
    /// Whether the state directory's targets are dialled too.
    pub resume: bool,
    /// The data centre this peer is in.
    pub site: Nickname,
    /// Whether it keeps links to other sites.
    pub gateway: bool,
    /// The bridge's name.
    pub bridge: InterfaceName,
    /// Where the state lives.
    pub state_dir: PathBuf,
    /// The API socket; the attach socket stands beside it.
    pub socket: PathBuf,
    /// Where `/metrics` listens; none: nowhere.
    pub metrics: Option<SocketAddr>,
    /// The log filter, in the words of `tracing`'s `EnvFilter`.
    pub log: String,
    /// How log lines are written.
    pub log_format: LogFormat,
    /// The peers given.
    pub peers: Vec<PeerAddress>,
}
