//! The small closed values: capture mode, log format, MTU, the address of `/metrics`.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

use super::ConfigError;

/// How sleeve reads and writes frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Capture {
    /// The best that works here.
    #[default]
    Auto,
    /// libpcap: works everywhere.
    Pcap,
    /// A packet socket with virtio headers: up to 64 KiB a read.
    Vnet,
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// An object a line.
    Json,
}

/// An MTU in bytes, 576 to 65485.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mtu(u16);

impl Mtu {
    /// The number of bytes.
    pub fn get(self) -> u16 {
        self.0
    }
}

impl fmt::Display for Mtu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Mtu {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        // 576: what every IPv4 host must take (RFC 791); 65485: the largest datagram less the overhead of 50.
        match text.parse() {
            Ok(mtu @ 576..=65485) => Ok(Self(mtu)),
            _ => Err(ConfigError("an MTU is 576 to 65485 bytes".to_owned())),
        }
    }
}

/// A VXLAN network identifier: 24 bits (RFC 7348).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vni(u32);

impl Vni {
    /// The number.
    pub fn get(self) -> u32 {
        self.0
    }
}

impl Default for Vni {
    /// The number of VXLAN's default port, because it must be some number and people have seen this one.
    fn default() -> Self {
        Self(6784)
    }
}

impl fmt::Display for Vni {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Vni {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        match text.parse() {
            Ok(number @ 1..=0x00ff_ffff) => Ok(Self(number)),
            _ => Err(ConfigError("a VXLAN network identifier is 1 to 16777215".to_owned())),
        }
    }
}

/// Where `/metrics` listens, or nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MetricsAddress(pub Option<SocketAddr>);

impl FromStr for MetricsAddress {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        if text == "none" {
            return Ok(Self(None));
        }
        let address = text.parse().or_else(|_| text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 6782)));
        match address {
            Ok(address) => Ok(Self(Some(address))),
            Err(_) => Err(ConfigError("it is ADDRESS:PORT, like 127.0.0.1:6782, or none".to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_listen_at_an_address_or_nowhere() {
        let read =
            |text: &str| text.parse::<MetricsAddress>().map(|address| address.0.map(|a| a.to_string()));
        assert_eq!(read("none"), Ok(None));
        assert_eq!(read("0.0.0.0:9000"), Ok(Some("0.0.0.0:9000".to_owned())));
        assert_eq!(read("[::1]:9000"), Ok(Some("[::1]:9000".to_owned())));
        assert_eq!(read("10.0.0.1"), Ok(Some("10.0.0.1:6782".to_owned())));
        assert!(read("localhost:1").is_err());
        assert!(read(":6782").is_err());
    }

    #[test]
    fn a_network_identifier_has_bounds() {
        assert_eq!("16777215".parse::<Vni>().unwrap().get(), 0x00ff_ffff);
        for text in ["0", "16777216", "-1", "x", ""] {
            assert!(text.parse::<Vni>().is_err(), "{text}");
        }
    }

    #[test]
    fn an_mtu_has_bounds() {
        assert_eq!("1450".parse::<Mtu>().unwrap().get(), 1450);
        for text in ["575", "65486", "-1", "x", ""] {
            assert!(text.parse::<Mtu>().is_err(), "{text}");
        }
    }
}
