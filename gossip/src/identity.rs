//! The secrets of a router: its static key, the cluster's pre-shared key, and the seed of its chance.
//!
//! None of them prints itself; the pure code gets them as values and never looks for entropy of its own.

use std::fmt;

use argon2::{Algorithm, Argon2, Params, Version};
use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::curve::Curve;
use crate::peer::PeerName;

/// The static X25519 key of a router, from which its name follows.
#[derive(Clone)]
pub struct Identity {
    secret: [u8; 32],
    public: [u8; 32],
    curve: Curve,
}

impl Identity {
    /// Derives the public half from 32 secret bytes.
    pub fn from_secret(secret: [u8; 32]) -> Self {
        Self::on(Curve::X25519, secret)
    }

    /// A key for simulated clusters, whose handshakes cost next to nothing and keep nothing secret.
    ///
    /// It speaks only with its like.
    #[cfg(feature = "sim")]
    pub fn simulated(secret: [u8; 32]) -> Self {
        Self::on(Curve::Symbolic, secret)
    }

    fn on(curve: Curve, secret: [u8; 32]) -> Self {
        Self { secret, public: curve.public(&secret), curve }
    }

    pub(crate) fn curve(&self) -> Curve {
        self.curve
    }

    /// The secret half, for storing it.
    pub fn secret(&self) -> &[u8; 32] {
        &self.secret
    }

    /// The public half, which peers see.
    pub fn public(&self) -> &[u8; 32] {
        &self.public
    }

    /// The name that follows from the public half.
    pub fn name(&self) -> PeerName {
        PeerName::of_key(&self.public)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.name())
    }
}

/// The pre-shared key all routers of one cluster hold.
#[derive(Clone, PartialEq, Eq)]
pub struct Psk([u8; 32]);

impl Psk {
    /// Derives the key from the cluster secret: Argon2id, 19 MiB, two passes (the OWASP minimum).
    ///
    /// The salt is fixed, because all routers must get the same key from the secret alone.
    pub fn derive(secret: &str) -> Self {
        let params =
            Params::new(19 * 1024, 2, 1, Some(32)).expect("these parameters are within Argon2's range");
        let mut key = [0; 32];
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into(secret.as_bytes(), b"weft cluster secret v1", &mut key)
            .expect("salt and output have lengths Argon2 takes");
        Self(key)
    }

    /// The key of a cluster without a secret: sessions are sealed, but anybody may join.
    pub const fn open() -> Self {
        Self([0; 32])
    }

    /// Says whether this is the key of a cluster without a secret.
    pub fn is_open(&self) -> bool {
        *self == Self::open()
    }

    pub(crate) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for Psk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_open() { "Psk(open)" } else { "Psk(secret)" })
    }
}

/// What all randomness of a machine grows from.
///
/// The handshakes' ephemeral keys come from it: the daemon gives 32 bytes of the operating system's entropy;
/// a plain number is for simulations and tests.
#[derive(Clone)]
pub struct Seed([u8; 32]);

impl Seed {
    pub(crate) fn generator(&self) -> StdRng {
        StdRng::from_seed(self.0)
    }
}

impl From<[u8; 32]> for Seed {
    fn from(entropy: [u8; 32]) -> Self {
        Self(entropy)
    }
}

impl From<u64> for Seed {
    fn from(number: u64) -> Self {
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&number.to_be_bytes());
        Self(seed)
    }
}

impl fmt::Debug for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seed(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_public_key_is_that_of_rfc_7748() {
        // RFC 7748, section 6.1: Alice's keys.
        let secret = [
            0x77, 0x07, 0x6d, 0x0a, 0x73, 0x18, 0xa5, 0x7d, 0x3c, 0x16, 0xc1, 0x72, 0x51, 0xb2, 0x66, 0x45,
            0xdf, 0x4c, 0x2f, 0x87, 0xeb, 0xc0, 0x99, 0x2a, 0xb1, 0x77, 0xfb, 0xa5, 0x1d, 0xb9, 0x2c, 0x2a,
        ];
        let public = Identity::from_secret(secret).public;
        assert_eq!(public[..4], [0x85, 0x20, 0xf0, 0x09]);
        assert_eq!(public[28..], [0xaa, 0x9b, 0x4e, 0x6a]);
    }

    #[test]
    fn one_secret_gives_one_key_and_no_key_prints_itself() {
        let key = Psk::derive("a secret");
        assert_eq!(key, Psk::derive("a secret"));
        assert_ne!(key, Psk::derive("another secret"));
        assert!(!key.is_open() && Psk::open().is_open());
        assert_eq!(format!("{key:?}"), "Psk(secret)");
        assert!(!format!("{:?}", Identity::from_secret([7; 32])).contains("7, 7"));
    }
}
