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
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use ipnet::{IpNet, Ipv4Net};

pub use init::Init;
pub use limits::{Capture, LogFormat, MetricsAddress, Mtu, Vni};
pub use names::{InterfaceName, Nickname};
pub use peer_address::{LaterTransport, PeerAddress, PeerTransport};
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
    /// The VXLAN network identifier, the same on every host.
    pub vni: Vni,
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

impl Config {
    /// How the router was launched, in words, for a bug report; of the secret only whether there is one.
    pub fn describe(&self) -> BTreeMap<String, String> {
        let words = [
            ("nickname", self.nickname.to_string()),
            ("listen", self.listen.map_or_else(|| "all addresses".to_owned(), |listen| listen.to_string())),
            ("ports", format!("{:?}", self.ports)),
            ("vni", self.vni.get().to_string()),
            ("secret", if self.secret.is_some() { "set" } else { "none" }.to_owned()),
            ("trusted_subnets", format!("{:?}", self.trusted_subnets)),
            ("range", self.range.map_or_else(|| "none".to_owned(), |range| range.to_string())),
            ("init", format!("{:?}", self.init)),
            ("fastpath", self.fastpath.to_string()),
            ("sleeve", self.sleeve.to_string()),
            ("capture", format!("{:?}", self.capture)),
            ("mtu", self.mtu.map_or_else(|| "measured".to_owned(), |mtu| mtu.get().to_string())),
            ("connection_limit", format!("{:?}", self.connection_limit)),
            ("discovery", self.discovery.to_string()),
            ("resume", self.resume.to_string()),
            ("site", self.site.to_string()),
            ("gateway", self.gateway.to_string()),
            ("bridge", self.bridge.as_str().to_owned()),
            ("state_dir", self.state_dir.display().to_string()),
            ("socket", self.socket.display().to_string()),
            ("peers", self.peers.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")),
        ];
        words.into_iter().map(|(word, value)| (word.to_owned(), value)).collect()
    }
}
