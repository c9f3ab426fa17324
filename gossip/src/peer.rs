//! Who a router is: its name, its incarnation and its boot.
//!
//! A name outlives restarts (it is the hash of a key kept on disk), an incarnation orders the lives of one
//! router, and a boot id tells two lives apart even when the incarnation was lost or cloned.

use std::fmt;
use std::str::FromStr;

use blake2::{Blake2s256, Digest};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The name of a router: the first 8 bytes of BLAKE2s-256 of its static public key, written as 16 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerName(u64);

impl PeerName {
    /// Names the holder of this static public key.
    pub fn of_key(public: &[u8; 32]) -> Self {
        let digest = Blake2s256::digest(public);
        let mut head = [0; 8];
        head.copy_from_slice(&digest[..8]);
        Self(u64::from_be_bytes(head))
    }

    /// Makes a name from its number, for tests and for what was stored.
    pub const fn from_u64(number: u64) -> Self {
        Self(number)
    }

    /// The number behind the hex digits.
    pub const fn as_u64(self) -> u64 {
        self.0
    }
}

impl fmt::Display for PeerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for PeerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Says why a text is not a peer name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a peer name is 16 hex digits, not {0:?}")]
pub struct PeerNameError(String);

impl FromStr for PeerName {
    type Err = PeerNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let hex = text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit());
        let number = if hex { u64::from_str_radix(text, 16).ok() } else { None };
        number.map(Self).ok_or_else(|| PeerNameError(text.chars().take(64).collect()))
    }
}

impl Serialize for PeerName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            self.0.to_be_bytes().serialize(serializer) // a hash has no small values: 8 bytes beat a varint's 9
        }
    }
}

impl<'de> Deserialize<'de> for PeerName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
            text.parse().map_err(serde::de::Error::custom)
        } else {
            <[u8; 8]>::deserialize(deserializer).map(|bytes| Self(u64::from_be_bytes(bytes)))
        }
    }
}

/// Orders the lives of one router: each start raises it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Incarnation(pub u64);

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A random number drawn at each start; two of them under one name are two machines or two lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BootId(pub u64);

impl fmt::Display for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_reads_back_from_its_sixteen_digits() {
        let name = PeerName::from_u64(0x008c_1f0a_3be2_7d99);
        assert_eq!(name.to_string(), "008c1f0a3be27d99");
        assert_eq!(name.to_string().parse(), Ok(name));
    }

    #[test]
    fn what_is_not_sixteen_hex_digits_is_no_name() {
        for text in ["", "8c1f", "+08c1f0a3be27d99", "008c1f0a3be27d990", "zz8c1f0a3be27d99"] {
            assert!(text.parse::<PeerName>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_name_travels_as_eight_bytes() {
        let name = PeerName::from_u64(u64::MAX - 1);
        let bytes = crate::codec::encode(&name);
        assert_eq!(bytes.len(), 8);
        assert_eq!(crate::codec::decode::<PeerName, 64>(&bytes).unwrap(), name);
    }
}
