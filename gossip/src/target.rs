//! What a user types to name a router to dial: `HOST`, `HOST:PORT`, `ADDRESS` or `[V6]:PORT`.
//!
//! Kept as text: a name is resolved by the shell at each dial, so a changed record is followed.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The mesh's TCP port where none is given.
pub const DEFAULT_PORT: u16 = 6783;

/// A host (name or address) and a port to dial.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Target {
    host: String,
    port: u16,
}

impl Target {
    /// The name or the bare address (an IPv6 address without brackets).
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The TCP port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The socket address, if the host is an address and not a name.
    pub fn address(&self) -> Option<SocketAddr> {
        self.host.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, self.port))
    }
}

impl From<SocketAddr> for Target {
    fn from(address: SocketAddr) -> Self {
        Self { host: address.ip().to_string(), port: address.port() }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl From<Target> for String {
    fn from(target: Target) -> Self {
        target.to_string()
    }
}

impl TryFrom<String> for Target {
    type Error = TargetError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

/// Says why a text names nothing that could be dialled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// Nothing before the port.
    #[error("{0:?} has no host")]
    NoHost(String),
    /// The port is not a number from 1 to 65535.
    #[error("{0:?} has no port from 1 to 65535 after the colon")]
    Port(String),
    /// Brackets stand around something that is no IPv6 address.
    #[error("{0:?} has no IPv6 address between the brackets")]
    Brackets(String),
    /// A host name holds letters, digits, dots, dashes and underscores, at most 253 of them.
    #[error("{0:?} is no host name (letters, digits, '.', '-', '_', at most 253)")]
    Host(String),
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let shown = || text.chars().take(80).collect::<String>();
        if let Ok(v6) = text.parse::<Ipv6Addr>() {
            return Ok(Self { host: v6.to_string(), port: DEFAULT_PORT });
        }
        if let Some(rest) = text.strip_prefix('[') {
            let (inner, tail) = rest.split_once(']').ok_or_else(|| TargetError::Brackets(shown()))?;
            let v6: Ipv6Addr = inner.parse().map_err(|_| TargetError::Brackets(shown()))?;
            let port = match tail {
                "" => DEFAULT_PORT,
                _ => tail.strip_prefix(':').and_then(port).ok_or_else(|| TargetError::Port(shown()))?,
            };
            return Ok(Self { host: v6.to_string(), port });
        }
        let (host, port) = match text.split_once(':') {
            Some((host, digits)) => (host, port(digits).ok_or_else(|| TargetError::Port(shown()))?),
            None => (text, DEFAULT_PORT),
        };
        if host.is_empty() {
            return Err(TargetError::NoHost(shown()));
        }
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
        if host.len() > 253 || host.starts_with('-') || !host.bytes().all(plain) {
            return Err(TargetError::Host(shown()));
        }
        Ok(Self { host: host.to_ascii_lowercase(), port })
    }
}

fn port(digits: &str) -> Option<u16> {
    let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    if plain { digits.parse().ok().filter(|port| *port != 0) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        text.parse::<Target>().map_or_else(|error| format!("error: {error}"), |target| target.to_string())
    }

    #[test]
    fn a_port_is_filled_in_where_none_is_given() {
        assert_eq!(shown("Host2"), "host2:6783");
        assert_eq!(shown("10.0.0.2"), "10.0.0.2:6783");
        assert_eq!(shown("10.0.0.2:80"), "10.0.0.2:80");
        assert_eq!(shown("fd00::2"), "[fd00::2]:6783");
        assert_eq!(shown("[fd00::2]"), "[fd00::2]:6783");
        assert_eq!(shown("[fd00::2]:80"), "[fd00::2]:80");
    }

    #[test]
    fn what_cannot_be_dialled_is_refused_with_the_text_in_the_message() {
        for text in [
            "",
            ":80",
            "host:",
            "host:0",
            "host:65536",
            "host:+1",
            "[fd00::2",
            "[host]:1",
            "[fd00::2]x",
            "a b",
            "quic://host",
            "-x",
            "host:80:90",
        ] {
            assert!(shown(text).starts_with("error: "), "{text} gave {}", shown(text));
        }
    }

    #[test]
    fn an_address_reads_back_as_an_address() {
        let address: SocketAddr = "[fd00::2]:80".parse().unwrap();
        assert_eq!(Target::from(address).address(), Some(address));
        assert_eq!("host2".parse::<Target>().unwrap().address(), None);
    }
}
