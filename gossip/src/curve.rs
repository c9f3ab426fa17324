//! The Diffie-Hellman function under the handshakes: X25519, or its stand-in where whole clusters are simulated.
//!
//! The stand-in ([`Curve::Symbolic`]) takes a hash of both public halves for what the two ends share. That keeps
//! all that a mesh relies on (both ends get the same key, other pairs and other ephemeral keys get others) and
//! none of the secrecy: whoever sees both public halves knows the key. It costs two hashes. Only
//! `Identity::simulated` chooses it, which no shell can call, and it does not speak with X25519.

#[cfg(feature = "sim")]
use blake2::{Blake2s256, Digest as _};
use snow::params::DHChoice;
use snow::resolvers::{CryptoResolver, DefaultResolver};
use snow::types::Dh;
#[cfg(feature = "sim")]
use snow::types::Random;

/// Which function it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Curve {
    X25519,
    #[cfg(feature = "sim")]
    Symbolic,
}

impl Curve {
    /// One key pair's worth of it, without a key yet.
    pub(crate) fn pair(self) -> Box<dyn Dh> {
        match self {
            Self::X25519 => DefaultResolver
                .resolve_dh(&DHChoice::Curve25519)
                .expect("the default resolver is built with curve25519"),
            #[cfg(feature = "sim")]
            Self::Symbolic => Box::new(Symbolic::default()),
        }
    }

    /// The public half of a secret one.
    pub(crate) fn public(self, secret: &[u8; 32]) -> [u8; 32] {
        let mut pair = self.pair();
        pair.set(secret);
        let mut public = [0; 32];
        public.copy_from_slice(pair.pubkey());
        public
    }
}

#[cfg(feature = "sim")]
#[derive(Default)]
struct Symbolic {
    secret: [u8; 32],
    public: [u8; 32],
}

#[cfg(feature = "sim")]
impl Dh for Symbolic {
    fn name(&self) -> &'static str {
        "25519"
    }

    fn pub_len(&self) -> usize {
        32
    }

    fn priv_len(&self) -> usize {
        32
    }

    fn set(&mut self, secret: &[u8]) {
        self.secret.copy_from_slice(secret);
        self.public = Blake2s256::digest(self.secret).into();
    }

    fn generate(&mut self, rng: &mut dyn Random) -> Result<(), snow::Error> {
        let mut secret = [0; 32];
        rng.try_fill_bytes(&mut secret)?;
        self.set(&secret);
        Ok(())
    }

    fn pubkey(&self) -> &[u8] {
        &self.public
    }

    fn privkey(&self) -> &[u8] {
        &self.secret
    }

    fn dh(&self, theirs: &[u8], out: &mut [u8]) -> Result<(), snow::Error> {
        let theirs = theirs.get(..32).ok_or(snow::Error::Dh)?;
        let (low, high) =
            if theirs < &self.public[..] { (theirs, &self.public[..]) } else { (&self.public[..], theirs) };
        let shared = Blake2s256::new().chain_update(low).chain_update(high).finalize();
        out.get_mut(..32).ok_or(snow::Error::Dh)?.copy_from_slice(&shared);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shared(curve: Curve, mine: u8, theirs: u8) -> [u8; 32] {
        let mut pair = curve.pair();
        pair.set(&[mine; 32]);
        let mut out = [0; 32];
        pair.dh(&curve.public(&[theirs; 32]), &mut out).unwrap();
        out
    }

    #[test]
    fn the_stand_in_agrees_as_the_curve_does_and_tells_pairs_apart() {
        for curve in [Curve::X25519, Curve::Symbolic] {
            assert_eq!(shared(curve, 1, 2), shared(curve, 2, 1));
            assert_ne!(shared(curve, 1, 2), shared(curve, 1, 3));
            assert_ne!(shared(curve, 1, 2), curve.public(&[1; 32]));
        }
        assert_ne!(shared(Curve::X25519, 1, 2), shared(Curve::Symbolic, 1, 2));
    }
}
