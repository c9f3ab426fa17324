//! The Noise handshake (`XXpsk3_25519_ChaChaPoly_BLAKE2s`) and the sealed records after it.
//!
//! A record is `u16 length (big endian) ‖ ciphertext`. Each key is used in one direction of one TCP stream
//! with a counting nonce, so replayed, reordered or reflected records do not open.

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use snow::params::{CipherChoice, DHChoice, HashChoice};
use snow::resolvers::{CryptoResolver, DefaultResolver, RingResolver};
use snow::types::{Cipher, Dh, Hash, Random};
use snow::{Builder, HandshakeState, TransportState};

use crate::curve::Curve;
use crate::identity::{Identity, Psk};

const PATTERN: &str = "Noise_XXpsk3_25519_ChaChaPoly_BLAKE2s";
/// The longest Noise message.
pub(crate) const NOISE_LIMIT: usize = 65_535;
/// What sealing adds.
pub(crate) const TAG: usize = 16;

/// A message did not open: it was altered, or the two ends hold different secrets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unopened;

/// Randomness for snow out of a seed, so that a simulation replays, and the curve of the identity.
struct Seeded {
    seed: [u8; 32],
    curve: Curve,
}

struct SeededRandom(StdRng);

impl Random for SeededRandom {
    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), snow::Error> {
        self.0.fill_bytes(bytes);
        Ok(())
    }
}

impl CryptoResolver for Seeded {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(SeededRandom(StdRng::from_seed(self.seed))))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        (*choice == DHChoice::Curve25519).then(|| self.curve.pair())
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        DefaultResolver.resolve_hash(choice)
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        RingResolver.resolve_cipher(choice) // quicker with short records, and gossip is short records
    }
}

/// A handshake under way: three messages, the initiator's first.
pub(crate) struct Handshake(HandshakeState);

impl Handshake {
    /// Begins a handshake; `seed` must never be used for another one.
    pub(crate) fn new(
        identity: &Identity,
        psk: &Psk,
        prologue: &[u8],
        initiator: bool,
        seed: [u8; 32],
    ) -> Self {
        let build = || {
            let params = PATTERN.parse()?;
            let builder = Builder::with_resolver(params, Box::new(Seeded { seed, curve: identity.curve() }))
                .local_private_key(identity.secret())?
                .psk(3, psk.bytes())?
                .prologue(prologue)?;
            if initiator { builder.build_initiator() } else { builder.build_responder() }
        };
        Self(build().expect("pattern, key and secret are all there, of fixed lengths"))
    }

    pub(crate) fn write(&mut self, payload: &[u8]) -> Vec<u8> {
        let mut message = vec![0; payload.len() + 128];
        let length =
            self.0.write_message(payload, &mut message).expect("it is our turn and the payload is short");
        message.truncate(length);
        message
    }

    pub(crate) fn read(&mut self, message: &[u8]) -> Result<Vec<u8>, Unopened> {
        let mut payload = vec![0; message.len()];
        let length = self.0.read_message(message, &mut payload).map_err(|_| Unopened)?;
        payload.truncate(length);
        Ok(payload)
    }

    /// The far side's static key, once it has been read.
    pub(crate) fn remote_key(&self) -> Option<[u8; 32]> {
        self.0.get_remote_static().and_then(|key| key.try_into().ok())
    }

    /// Ends the handshake after its third message; the number is the same at both ends and no other session's.
    pub(crate) fn finish(self) -> (Sealer, u64) {
        let mut head = [0; 8];
        head.copy_from_slice(&self.0.get_handshake_hash()[..8]);
        let transport = self.0.into_transport_mode().expect("all three messages have passed");
        (Sealer(transport), u64::from_be_bytes(head))
    }
}

/// Seals and opens the records of one session.
pub(crate) struct Sealer(TransportState);

impl Sealer {
    /// Appends one record to `out`; `plain` is at most [`NOISE_LIMIT`] − [`TAG`] bytes.
    pub(crate) fn seal(&mut self, plain: &[u8], out: &mut Vec<u8>) {
        let sealed = plain.len() + TAG;
        let length = u16::try_from(sealed).expect("the caller cuts what is longer than a Noise message");
        let start = out.len() + 2;
        out.extend_from_slice(&length.to_be_bytes());
        out.resize(start + sealed, 0);
        self.0
            .write_message(plain, &mut out[start..])
            .expect("the buffer fits and 2^64 records are never reached");
    }

    pub(crate) fn open(&mut self, record: &[u8]) -> Result<Vec<u8>, Unopened> {
        let mut plain = vec![0; record.len()];
        let length = self.0.read_message(record, &mut plain).map_err(|_| Unopened)?;
        plain.truncate(length);
        Ok(plain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(left: &Psk, right: &Psk) -> (Handshake, Handshake) {
        let one = Handshake::new(&Identity::from_secret([1; 32]), left, b"hellos", true, [3; 32]);
        let two = Handshake::new(&Identity::from_secret([2; 32]), right, b"hellos", false, [4; 32]);
        (one, two)
    }

    #[test]
    fn both_ends_learn_the_other_key_and_one_session_number() {
        let (mut one, mut two) = pair(&Psk::open(), &Psk::open());
        two.read(&one.write(b"")).unwrap();
        one.read(&two.write(b"")).unwrap();
        assert_eq!(two.read(&one.write(b"I am one")).unwrap(), b"I am one");
        assert_eq!(two.remote_key(), Some(*Identity::from_secret([1; 32]).public()));
        assert_eq!(one.remote_key(), Some(*Identity::from_secret([2; 32]).public()));
        let ((mut one, left), (mut two, right)) = (one.finish(), two.finish());
        assert_eq!(left, right);
        let mut record = Vec::new();
        one.seal(b"sealed", &mut record);
        assert_eq!(two.open(&record[2..]).unwrap(), b"sealed");
        assert_eq!(two.open(&record[2..]), Err(Unopened), "a replayed record does not open");
        one.seal(b"back to sender", &mut record);
        assert_eq!(one.open(&record[24..]), Err(Unopened), "a reflected record does not open");
    }

    #[test]
    fn a_simulated_identity_speaks_only_with_its_like() {
        let begin = |identity: Identity, initiator| {
            Handshake::new(&identity, &Psk::open(), b"hellos", initiator, [u8::from(initiator); 32])
        };
        let mut one = begin(Identity::simulated([1; 32]), true);
        let mut like = begin(Identity::simulated([2; 32]), false);
        let mut unlike = begin(Identity::from_secret([2; 32]), false);
        let first = one.write(b"");
        unlike.read(&first).unwrap();
        like.read(&first).unwrap();
        assert_eq!(one.read(&unlike.write(b"")), Err(Unopened));
        one.read(&like.write(b"")).unwrap();
        assert_eq!(like.read(&one.write(b"I am one")).unwrap(), b"I am one");
    }

    #[test]
    fn different_secrets_fail_at_the_last_message() {
        let (mut one, mut two) = pair(&Psk::open(), &Psk::derive("other"));
        two.read(&one.write(b"")).unwrap();
        one.read(&two.write(b"")).unwrap();
        assert_eq!(two.read(&one.write(b"I am one")), Err(Unopened));
    }
}
