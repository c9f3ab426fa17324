//! What can be typed: the commands, their flags and their environment variables.

use std::{net::IpAddr, path::PathBuf};

use clap::{Args as Group, Parser, Subcommand, ValueEnum};
use ipnet::IpNet;

use super::value::{AddressArgument, Id, Subnet, Timeout, switch};
use crate::config::{
    Capture, Init, InterfaceName, LogFormat, MetricsAddress, Mtu, Nickname, PeerAddress, Range, Vni,
};

/// A container network without a store: routers that know each other by gossip, one on every host.
#[derive(Debug, Parser)]
#[command(name = "weft", version, disable_help_subcommand = true, max_term_width = 100)]
pub(super) struct Args {
    /// The router's API socket
    #[arg(
        long,
        global = true,
        value_name = "PATH",
        env = "WEFT_SOCKET",
        default_value = "/run/weft/weft.sock"
    )]
    pub socket: PathBuf,
    /// How to print
    #[arg(long, short, global = true, value_name = "FORMAT", value_enum, default_value = "text")]
    pub output: OutputFormat,
    #[command(subcommand)]
    pub command: Command,
}

/// For whom the output is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum OutputFormat {
    /// For people
    Text,
    /// For programs
    Json,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run the router in the foreground until SIGTERM or SIGINT
    Launch(Box<Launch>),
    /// What is going on
    Status {
        /// Only this part
        #[arg(value_enum)]
        section: Option<Section>,
    },
    /// Everything, as JSON, for a bug report; never a secret
    Report,
    /// Tell the router whom to dial and who is gone
    #[command(subcommand)]
    Peer(PeerCommand),
    /// As 'peer add'
    Connect(PeerAdd),
    /// As 'peer forget'
    Forget(PeerForget),
    /// As 'peer remove'
    Rmpeer(PeerRemove),
    /// Connect a network namespace and print its addresses
    Attach(Attach),
    /// Undo 'attach'
    Detach(Detach),
    /// Give the host itself an address on the bridge
    Expose {
        /// The address with its prefix length; by default the router picks one
        #[arg(value_name = "CIDR")]
        cidr: Option<AddressArgument>,
    },
    /// Take the host's address back
    Hide,
    /// Addresses without wiring
    #[command(subcommand)]
    Ipam(IpamCommand),
    /// The CNI plugin on this host
    #[command(subcommand)]
    Cni(CniCommand),
    /// Block until addresses can be given out
    Prime(Wait),
    /// Check this host and the path to every peer
    Doctor {
        /// Print what would be changed in the kernel
        #[arg(long)]
        plan: bool,
        #[command(flatten)]
        places: Places,
    },
    /// Leave the cluster and remove all state and every kernel object
    Reset {
        /// Also with the router down, or when no peer takes the addresses
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        places: Places,
    },
    /// The cluster secret
    #[command(subcommand)]
    Secret(SecretCommand),
    /// Print the completions of a shell
    Completions {
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
    /// Print the version
    Version,
}

/// A part of the status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Section {
    Connections,
    Peers,
    Ipam,
    Targets,
    Attachments,
}

#[derive(Debug, Subcommand)]
pub(super) enum PeerCommand {
    /// Add targets and dial them now; kept across restarts
    #[command(visible_alias = "connect")]
    Add(PeerAdd),
    /// Drop targets; a live connection stays until it ends
    Forget(PeerForget),
    /// A peer is gone for good: take over its addresses and fence it off
    Remove(PeerRemove),
    /// As 'status peers'
    List,
}

#[derive(Debug, Group)]
pub(super) struct PeerAdd {
    /// HOST, HOST:PORT, [IPV6]:PORT or quic://HOST[:PORT]
    #[arg(required = true, value_name = "PEER")]
    pub peers: Vec<PeerAddress>,
    /// Make these the whole list
    #[arg(long)]
    pub replace: bool,
}

#[derive(Debug, Group)]
pub(super) struct PeerForget {
    /// As they were added
    #[arg(required = true, value_name = "PEER")]
    pub peers: Vec<PeerAddress>,
}

#[derive(Debug, Group)]
pub(super) struct PeerRemove {
    /// Its peer name or nickname
    #[arg(value_name = "NAME")]
    pub name: Nickname,
    /// Even while it is reachable
    #[arg(long)]
    pub force: bool,
}

#[derive(Debug, Group)]
pub(super) struct Attach {
    /// Names the attachment; by default made from the namespace
    #[arg(long)]
    pub id: Option<Id>,
    /// An address it must have; may be given more than once
    #[arg(long = "address", value_name = "CIDR")]
    pub addresses: Vec<AddressArgument>,
    /// The interface's name inside the namespace
    #[arg(long, value_name = "NAME", default_value = "eth0")]
    pub ifname: InterfaceName,
    /// Leave the namespace's default route alone
    #[arg(long)]
    pub no_default_route: bool,
    #[command(flatten)]
    pub wait: Wait,
    /// A path, a name under /run/netns, or pid:N
    #[arg(value_name = "NETNS")]
    pub netns: String,
}

#[derive(Debug, Group)]
pub(super) struct Detach {
    /// The attachment; by default the namespace's
    #[arg(long)]
    pub id: Option<Id>,
    /// A path, a name under /run/netns, or pid:N
    #[arg(value_name = "NETNS")]
    pub netns: String,
}

#[derive(Debug, Subcommand)]
pub(super) enum CniCommand {
    /// Put the plugin and its configuration where container runtimes look
    Install(CniInstall),
    /// Remove them, unless they were changed
    Uninstall(CniPlaces),
}

#[derive(Debug, Group)]
pub(super) struct CniInstall {
    /// The plugin to install [default: weft-net beside this program]
    #[arg(long, value_name = "PATH")]
    pub from: Option<PathBuf>,
    #[command(flatten)]
    pub places: CniPlaces,
}

/// Where container runtimes look.
#[derive(Debug, Group)]
pub(super) struct CniPlaces {
    /// Where the plugins live
    #[arg(long, value_name = "DIR", default_value = "/opt/cni/bin")]
    pub bin_dir: PathBuf,
    /// Where the network configurations live
    #[arg(long, value_name = "DIR", default_value = "/etc/cni/net.d")]
    pub conf_dir: PathBuf,
}

#[derive(Debug, Subcommand)]
pub(super) enum IpamCommand {
    /// Allocate an address; the same id gets the same address
    Allocate {
        #[command(flatten)]
        holder: Holder,
        /// The subnet to take it from
        #[arg(value_name = "CIDR")]
        cidr: Option<Subnet>,
        #[command(flatten)]
        wait: Wait,
    },
    /// Take one very address
    Claim {
        #[command(flatten)]
        holder: Holder,
        /// The address
        #[arg(value_name = "CIDR")]
        cidr: AddressArgument,
        #[command(flatten)]
        wait: Wait,
    },
    /// Give addresses back
    Release {
        #[command(flatten)]
        holder: Holder,
        /// Only this address
        #[arg(value_name = "CIDR")]
        cidr: Option<AddressArgument>,
    },
    /// Print what an id holds
    Lookup {
        #[command(flatten)]
        holder: Holder,
        /// Only what lies in this subnet
        #[arg(value_name = "CIDR")]
        cidr: Option<AddressArgument>,
    },
}

#[derive(Debug, Group)]
pub(super) struct Holder {
    /// Who holds the address
    #[arg(long)]
    pub id: Id,
}

#[derive(Debug, Group)]
pub(super) struct Wait {
    /// How long to wait: 500ms, 10s, 2m, or seconds
    #[arg(long, value_name = "TIME", default_value = "10s")]
    pub timeout: Timeout,
}

#[derive(Debug, Subcommand)]
pub(super) enum SecretCommand {
    /// Print a new 256-bit secret
    Generate,
}

/// What a client must know of a router that does not answer.
#[derive(Debug, Group)]
pub(super) struct Places {
    /// Where the router's state lives
    #[arg(long, value_name = "DIR", env = "WEFT_STATE_DIR", default_value = "/var/lib/weft")]
    pub state_dir: PathBuf,
    /// The bridge's name
    #[arg(long, value_name = "NAME", env = "WEFT_BRIDGE", default_value = "weft")]
    pub bridge: InterfaceName,
    /// The mesh port
    #[arg(long, value_name = "N", env = "WEFT_PORT", default_value = "6783", value_parser = clap::value_parser!(u16).range(1..))]
    pub port: u16,
    /// The VXLAN port [default: port + 1]
    #[arg(long, value_name = "N", env = "WEFT_VXLAN_PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub vxlan_port: Option<u16>,
    /// The QUIC port [default: port + 2]
    #[arg(long, value_name = "N", env = "WEFT_QUIC_PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub quic_port: Option<u16>,
}

/// The flags of `weft launch`, as typed; what they mean is a `Config`.
#[derive(Debug, Group)]
pub(super) struct Launch {
    /// The name people read [default: the host name]
    #[arg(long, value_name = "NAME", env = "WEFT_NICKNAME")]
    pub nickname: Option<Nickname>,
    /// Address to bind to and send from [default: all addresses]
    #[arg(long, value_name = "ADDR", env = "WEFT_LISTEN")]
    pub listen: Option<IpAddr>,
    #[command(flatten)]
    pub places: Places,
    /// File with the cluster secret; WEFT_SECRET is the secret itself
    #[arg(long, value_name = "PATH", env = "WEFT_SECRET_FILE")]
    pub secret_file: Option<PathBuf>,
    /// Frames to peers in these may travel unencrypted when both ends say so
    #[arg(long, value_name = "CIDR,...", env = "WEFT_TRUSTED_SUBNETS", value_delimiter = ',')]
    pub trusted_subnets: Vec<IpNet>,
    /// The universe of addresses, or 'none'
    #[arg(long, value_name = "CIDR", env = "WEFT_RANGE", default_value = "10.32.0.0/12")]
    pub range: Range,
    /// Who makes the first ring: consensus[=N], seed=NICKNAME,... or observer
    #[arg(long, value_name = "MODE", env = "WEFT_INIT", default_value = "consensus")]
    pub init: Init,
    /// VXLAN network identifier, the same on every host
    #[arg(long, value_name = "N", env = "WEFT_VNI", default_value_t)]
    pub vni: Vni,
    /// Leave the kernel's VXLAN out
    #[arg(long, env = "WEFT_NO_FASTPATH", value_parser = switch)]
    pub no_fastpath: bool,
    /// Leave the router's own UDP carrier out
    #[arg(long, env = "WEFT_NO_SLEEVE", value_parser = switch)]
    pub no_sleeve: bool,
    /// How sleeve reads and writes frames
    #[arg(long, value_name = "MODE", env = "WEFT_CAPTURE", value_enum, default_value = "auto")]
    pub capture: Capture,
    /// MTU of attached containers [default: measured]
    #[arg(long, value_name = "N", env = "WEFT_MTU")]
    pub mtu: Option<Mtu>,
    /// Most mesh connections; 0 is no limit
    #[arg(long, value_name = "N", env = "WEFT_CONN_LIMIT", default_value = "0")]
    pub conn_limit: usize,
    /// Dial only the given targets
    #[arg(long, env = "WEFT_NO_DISCOVERY", value_parser = switch)]
    pub no_discovery: bool,
    /// Take the targets from the state directory
    #[arg(long, env = "WEFT_RESUME", value_parser = switch)]
    pub resume: bool,
    /// The data centre this peer is in
    #[arg(long, value_name = "NAME", env = "WEFT_SITE", default_value = "default")]
    pub site: Nickname,
    /// Keep links to other sites
    #[arg(long, env = "WEFT_GATEWAY", value_parser = switch)]
    pub gateway: bool,
    /// Where /metrics, /healthz and /readyz listen, or 'none'
    #[arg(long, value_name = "ADDR", env = "WEFT_METRICS", default_value = "127.0.0.1:6782")]
    pub metrics: MetricsAddress,
    /// What to log: a level, or TARGET=LEVEL,...
    #[arg(long, value_name = "FILTER", env = "WEFT_LOG", default_value = "info")]
    pub log: String,
    /// How to write log lines
    #[arg(long, value_name = "FORMAT", env = "WEFT_LOG_FORMAT", value_enum, default_value = "text")]
    pub log_format: LogFormat,
    /// HOST, HOST:PORT, [IPV6]:PORT or quic://HOST[:PORT]
    #[arg(value_name = "PEER", env = "WEFT_PEERS", value_delimiter = ',')]
    pub peers: Vec<PeerAddress>,
}
