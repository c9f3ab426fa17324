//! Ethernet addresses, and how ours are made.
//!
//! A container's address is a function of its IPv4 address, so an address given out again comes back with the
//! same MAC and no stale ARP entry can point elsewhere. The bridge's is a function of the peer's name, so it
//! survives the bridge being deleted and made again. All are locally administered and unicast:
//!
//! ```text
//! 0a:58:AA:BB:CC:DD    container with address AA.BB.CC.DD (hex)
//! 0e:NN:NN:NN:NN:NN    bridge of the peer whose name begins with NN:NN:NN:NN:NN
//! 06:NN:NN:NN:NN:NN    VXLAN device of the same peer
//! ```

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::de::{Deserialize, Deserializer, Error as _};
use serde::ser::{Serialize, Serializer};

/// An Ethernet address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct MacAddr([u8; 6]);

/// A text that is not six hex octets separated by colons.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a MAC address: six hex octets separated by colons are wanted")]
pub struct InvalidMac(pub String);

impl MacAddr {
    /// The address every station listens to.
    pub const BROADCAST: Self = Self([0xff; 6]);

    /// The address no station has; a VXLAN device keeps under it where frames go that it must flood.
    pub const ZERO: Self = Self([0; 6]);

    /// Makes an address from its six octets.
    pub const fn new(octets: [u8; 6]) -> Self {
        Self(octets)
    }

    /// The address of the container that has this IPv4 address: `0a:58` and its four octets.
    pub const fn from_ip(address: Ipv4Addr) -> Self {
        let [a, b, c, d] = address.octets();
        Self([0x0a, 0x58, a, b, c, d])
    }

    /// The address of the host end of the container link that has this IPv4 address: `02:58` and its four octets.
    /// Nobody sends to it; it is where a router that has lost its state reads whose the link is.
    pub const fn facing(address: Ipv4Addr) -> Self {
        let [a, b, c, d] = address.octets();
        Self([0x02, 0x58, a, b, c, d])
    }

    /// The IPv4 address in an address made by [`MacAddr::facing`].
    pub const fn faced(self) -> Option<Ipv4Addr> {
        match self.0 {
            [0x02, 0x58, a, b, c, d] => Some(Ipv4Addr::new(a, b, c, d)),
            _ => None,
        }
    }

    /// The bridge address of the peer with this name: `0e` and the first five octets of the name.
    pub const fn from_peer(name: u64) -> Self {
        let [a, b, c, d, e, _, _, _] = name.to_be_bytes();
        Self([0x0e, a, b, c, d, e])
    }

    /// The address of the VXLAN devices of the peer with this name: `06` and the first five octets of the name.
    pub const fn vxlan_of(name: u64) -> Self {
        let [a, b, c, d, e, _, _, _] = name.to_be_bytes();
        Self([0x06, a, b, c, d, e])
    }

    /// Reads an address out of exactly six octets.
    pub fn from_slice(octets: &[u8]) -> Option<Self> {
        octets.try_into().ok().map(Self)
    }

    /// Its six octets in the order they stand on the wire.
    pub const fn octets(self) -> [u8; 6] {
        self.0
    }

    /// Whether more than one station may listen to it (multicast, and broadcast too).
    pub const fn is_multicast(self) -> bool {
        self.0[0] & 1 == 1
    }

    /// Whether a VXLAN device may have several destinations for it.
    pub(crate) fn may_be_many(self) -> bool {
        self.is_multicast() || self == Self::ZERO
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for MacAddr {
    type Err = InvalidMac;

    fn from_str(text: &str) -> Result<Self, InvalidMac> {
        let invalid = || InvalidMac(text.chars().take(40).collect());
        let mut octets = [0; 6];
        let mut parts = text.split(':');
        for octet in &mut octets {
            let part = parts.next().ok_or_else(invalid)?;
            if part.len() != 2 || !part.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                return Err(invalid());
            }
            *octet = u8::from_str_radix(part, 16).map_err(|_| invalid())?;
        }
        if parts.next().is_some() { Err(invalid()) } else { Ok(Self(octets)) }
    }
}

/// Text for people (JSON), six bare octets for the wire.
impl Serialize for MacAddr {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            self.0.serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for MacAddr {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
        } else {
            <[u8; 6]>::deserialize(deserializer).map(Self)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_container_address_is_written_into_its_mac() {
        let mac = MacAddr::from_ip(Ipv4Addr::new(10, 32, 0, 255));
        assert_eq!(mac.to_string(), "0a:58:0a:20:00:ff");
        assert!(!mac.is_multicast());
    }

    #[test]
    fn a_bridge_mac_is_local_and_unicast_and_follows_the_name() {
        let mac = MacAddr::from_peer(0xff1f_0a3b_e27d_9954);
        assert_eq!(mac.to_string(), "0e:ff:1f:0a:3b:e2");
        assert_eq!(mac.octets()[0] & 3, 2, "locally administered, not multicast");
        let device = MacAddr::vxlan_of(0xff1f_0a3b_e27d_9954);
        assert_eq!(device.to_string(), "06:ff:1f:0a:3b:e2");
        assert_eq!(device.octets()[0] & 3, 2, "locally administered, not multicast");
        assert!(MacAddr::BROADCAST.is_multicast());
    }

    #[test]
    fn what_is_not_a_mac_is_refused() {
        for text in
            ["", "0a:58", "0a:58:00:00:00:00:00", "0a-58-00-00-00-00", "+a:58:00:00:00:00", "é:00:00:00:00"]
        {
            assert!(text.parse::<MacAddr>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn text_is_read_back(octets: [u8; 6]) {
            let mac = MacAddr::new(octets);
            prop_assert_eq!(mac.to_string().parse::<MacAddr>(), Ok(mac));
            prop_assert_eq!(mac.to_string().to_uppercase().parse::<MacAddr>(), Ok(mac));
        }
    }
}
