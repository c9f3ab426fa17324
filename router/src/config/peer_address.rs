//! The address of a peer as people type it: `HOST`, `HOST:PORT`, `[IPV6]:PORT`, or `quic://HOST[:PORT]`.

use std::{
    fmt,
    net::{Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use super::ConfigError;

/// What a link to a peer runs over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PeerTransport {
    /// Inside a site.
    Tcp,
    /// To another site.
    Quic,
}

/// Where a peer is; a name is resolved at every dial, never here.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PeerAddress {
    /// What the link runs over.
    pub transport: PeerTransport,
    /// A name, an IPv4 address or an IPv6 address (without brackets).
    pub host: String,
    /// The port; none: the default of the transport.
    pub port: Option<u16>,
}

impl PeerAddress {
    /// The address with its port written out.
    pub fn with_port(mut self, default: u16) -> Self {
        self.port.get_or_insert(default);
        self
    }

    /// Whether this version can link to such a peer; the contract's syntax is wider than what is built.
    ///
    /// # Errors
    ///
    /// A link over QUIC.
    pub fn supported(&self) -> Result<(), LaterTransport> {
        match self.transport {
            PeerTransport::Tcp => Ok(()),
            PeerTransport::Quic => Err(LaterTransport(self.clone())),
        }
    }
}

/// A peer whose address makes sense and whose transport is not built yet.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}: links between sites over QUIC are not in this version")]
pub struct LaterTransport(pub PeerAddress);

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.transport == PeerTransport::Quic {
            f.write_str("quic://")?;
        }
        if self.host.contains(':') { write!(f, "[{}]", self.host) } else { f.write_str(&self.host) }?;
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

impl FromStr for PeerAddress {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let (transport, rest) = match text.split_once("://") {
            None => (PeerTransport::Tcp, text),
            Some(("quic", rest)) => (PeerTransport::Quic, rest),
            Some((scheme, _)) => {
                return Err(ConfigError(format!("'{scheme}://' is unknown: only quic:// is")));
            }
        };
        let (host, port) = match rest.strip_prefix('[') {
            Some(rest) => bracketed(rest)?,
            None => plain(rest)?,
        };
        Ok(Self { transport, host, port })
    }
}

/// `IPV6]` or `IPV6]:PORT`.
fn bracketed(text: &str) -> Result<(String, Option<u16>), ConfigError> {
    let (host, rest) =
        text.split_once(']').ok_or_else(|| ConfigError("the bracket '[' is never closed".to_owned()))?;
    let address: Ipv6Addr =
        host.parse().map_err(|_| ConfigError(format!("'{host}' in brackets is no IPv6 address")))?;
    let port = match rest.strip_prefix(':') {
        Some(digits) => Some(port(digits)?),
        None if rest.is_empty() => None,
        None => return Err(ConfigError(format!("'{rest}' after the bracket is no port"))),
    };
    Ok((address.to_string(), port))
}

/// `HOST` or `HOST:PORT`.
fn plain(text: &str) -> Result<(String, Option<u16>), ConfigError> {
    if text.parse::<Ipv6Addr>().is_ok() {
        return Err(ConfigError(format!("an IPv6 address goes in brackets: [{text}]")));
    }
    let (host, port) = match text.split_once(':') {
        Some((host, digits)) => (host, Some(port(digits)?)),
        None => (text, None),
    };
    if !is_host(host) {
        return Err(ConfigError(format!("'{host}' is neither a host name nor an IPv4 address")));
    }
    Ok((host.to_owned(), port))
}

fn port(digits: &str) -> Result<u16, ConfigError> {
    match digits.parse() {
        Ok(port) if port > 0 && digits.bytes().all(|b| b.is_ascii_digit()) => Ok(port),
        _ => Err(ConfigError(format!("'{digits}' is no port: 1 to 65535"))),
    }
}

/// A name by RFC 1123 (underscores allowed, as resolvers do), or an IPv4 address; what ends in digits is an address.
fn is_host(host: &str) -> bool {
    let name = host.strip_suffix('.').unwrap_or(host);
    let last = name.rsplit('.').next().unwrap_or_default();
    if !last.is_empty() && last.bytes().all(|b| b.is_ascii_digit()) {
        return host.parse::<Ipv4Addr>().is_ok();
    }
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    name.len() <= 253 && name.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_printed_as_they_are_read() {
        for text in [
            "host1",
            "host1.example.org:7000",
            "10.0.0.2",
            "10.0.0.2:6783",
            "[fd00::1]:6783",
            "[::1]",
            "quic://far.example.org",
            "quic://[fd00::1]:6785",
            "node_1",
        ] {
            assert_eq!(text.parse::<PeerAddress>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_missing_port_is_written_out_on_demand() {
        let address: PeerAddress = "host1".parse().unwrap();
        assert_eq!(address.with_port(6783).to_string(), "host1:6783");
        let address: PeerAddress = "[::1]:1".parse().unwrap();
        assert_eq!(address.with_port(6783).to_string(), "[::1]:1");
    }

    #[test]
    fn a_link_over_quic_is_well_formed_and_not_in_this_version() {
        let address: PeerAddress = "quic://q1".parse().unwrap();
        assert_eq!(
            address.supported().unwrap_err().to_string(),
            "quic://q1: links between sites over QUIC are not in this version"
        );
        assert_eq!("q1".parse::<PeerAddress>().unwrap().supported(), Ok(()));
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in [
            "",
            ":6783",
            "host:",
            "host:0",
            "host:65536",
            "host:+1",
            "host:x",
            "a b",
            "10.0.0.300",
            "10.0.0",
            "1",
            "-host",
            "fd00::1",
            "::1",
            "[fd00::1",
            "[fd00::1]6783",
            "[host]:1",
            "[10.0.0.1]:1",
            "http://host",
            "tcp://host",
            "quic://",
            "host..x",
            "a/b",
            "host:1:2",
            &"x".repeat(64),
        ] {
            assert!(text.parse::<PeerAddress>().is_err(), "{text:?}");
        }
    }
}
