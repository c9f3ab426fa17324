//! The suites: how a datagram is sealed and opened, behind a trait of two methods.
//!
//! Two implementations of ChaCha20-Poly1305 stand side by side: the `chacha20poly1305` crate ([`Portable`]) and
//! `ring` ([`Fast`]), which is three to four times as fast and is what the data path uses. They are tested
//! against each other, so either can be the other end. AES-256-GCM (`ring` only) is used when both processors
//! have it in hardware: it costs a quarter of ChaCha20.
//!
//! The nonce is the datagram's counter, big-endian, behind four zero bytes; a key is used in one direction by
//! one sender, so a counter that never repeats is a nonce that never repeats (`keys.rs`).

use chacha20poly1305::{AeadInOut, ChaCha20Poly1305, KeyInit};
use ring::aead::{AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};

/// Bytes of the authentication tag.
pub const TAG: usize = 16;

/// The authentication tag of one datagram.
pub type Tag = [u8; TAG];

/// A receive key: 256 bits for every suite.
pub type Key = [u8; 32];

/// The datagram was not sealed with this key, or was changed on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forged;

/// Seals and opens the body of a datagram in place.
pub trait Aead: Send {
    /// Encrypts `body` in place and returns the tag over it and `header`; `None` when the body is too long.
    fn seal(&self, counter: u64, header: &[u8], body: &mut [u8]) -> Option<Tag>;

    /// Checks the tag and decrypts `body` in place.
    ///
    /// # Errors
    /// [`Forged`]; what `body` holds then means nothing.
    fn open(&self, counter: u64, header: &[u8], body: &mut [u8], tag: &Tag) -> Result<(), Forged>;
}

/// How datagrams of one key are sealed; the number is the low half of a datagram's first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum Suite {
    /// Not sealed at all: only between routers that have no secret.
    Clear = 0,
    /// ChaCha20-Poly1305 (RFC 8439).
    #[serde(rename = "chacha20-poly1305")]
    ChaCha = 1,
    /// AES-256-GCM.
    #[serde(rename = "aes-256-gcm")]
    Aes = 2,
}

impl Suite {
    /// The suite with this number.
    pub fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Clear),
            1 => Some(Self::ChaCha),
            2 => Some(Self::Aes),
            _ => None,
        }
    }

    /// Bytes that follow the sealed body.
    pub fn tag_length(self) -> usize {
        match self {
            Self::Clear => 0,
            Self::ChaCha | Self::Aes => TAG,
        }
    }

    /// The implementation the data path uses.
    pub fn with_key(self, key: &Key) -> Box<dyn Aead> {
        match self {
            Self::Clear => Box::new(Clear),
            Self::ChaCha | Self::Aes => Box::new(Fast::new(self, key)),
        }
    }
}

/// The suites one end accepts, as a set of bits (bit *n* is suite number *n*).
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Suites(u8);

impl Suites {
    /// What this router accepts: without a secret only clear frames, with one never.
    pub fn offered(encrypted: bool, hardware_aes: bool) -> Self {
        if !encrypted {
            return Self(1 << Suite::Clear as u8);
        }
        let aes = if hardware_aes { 1 << Suite::Aes as u8 } else { 0 };
        Self(1 << Suite::ChaCha as u8 | aes)
    }

    /// Whether the suite is in the set.
    pub fn contains(self, suite: Suite) -> bool {
        self.0 & (1 << suite as u8) != 0
    }

    /// The suites in the set, the cheapest secure one first.
    pub fn iter(self) -> impl Iterator<Item = Suite> {
        [Suite::Aes, Suite::ChaCha, Suite::Clear].into_iter().filter(move |suite| self.contains(*suite))
    }

    /// The best suite both ends accept.
    pub fn common(self, other: Self) -> Option<Suite> {
        self.iter().find(|suite| other.contains(*suite))
    }
}

fn nonce(counter: u64) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_be_bytes());
    nonce
}

/// ChaCha20-Poly1305 in plain Rust: the portable implementation, and the check on the fast one.
pub struct Portable(ChaCha20Poly1305);

impl Portable {
    /// Takes the key.
    pub fn new(key: &Key) -> Self {
        Self(ChaCha20Poly1305::new(key.into()))
    }
}

impl Aead for Portable {
    fn seal(&self, counter: u64, header: &[u8], body: &mut [u8]) -> Option<Tag> {
        self.0.encrypt_inout_detached(&nonce(counter).into(), header, body.into()).ok().map(Into::into)
    }

    fn open(&self, counter: u64, header: &[u8], body: &mut [u8], tag: &Tag) -> Result<(), Forged> {
        self.0
            .decrypt_inout_detached(&nonce(counter).into(), header, body.into(), tag.into())
            .map_err(|_| Forged)
    }
}

/// `ring`'s ChaCha20-Poly1305 or AES-256-GCM.
pub struct Fast(LessSafeKey);

impl Fast {
    /// Takes the key; anything but AES means ChaCha20-Poly1305.
    pub fn new(suite: Suite, key: &Key) -> Self {
        let algorithm = if suite == Suite::Aes { &AES_256_GCM } else { &CHACHA20_POLY1305 };
        Self(LessSafeKey::new(UnboundKey::new(algorithm, key).expect("both algorithms take 32 bytes")))
    }
}

impl Aead for Fast {
    fn seal(&self, counter: u64, header: &[u8], body: &mut [u8]) -> Option<Tag> {
        let nonce = Nonce::assume_unique_for_key(nonce(counter));
        let tag = self.0.seal_in_place_separate_tag(nonce, Aad::from(header), body).ok()?;
        tag.as_ref().try_into().ok()
    }

    fn open(&self, counter: u64, header: &[u8], body: &mut [u8], tag: &Tag) -> Result<(), Forged> {
        let nonce = Nonce::assume_unique_for_key(nonce(counter));
        let tag = ring::aead::Tag::from(*tag);
        self.0.open_in_place_separate_tag(nonce, Aad::from(header), tag, body, 0..).map_err(|_| Forged)?;
        Ok(())
    }
}

/// No sealing: the bytes travel as they are, without a tag.
pub struct Clear;

impl Aead for Clear {
    fn seal(&self, _counter: u64, _header: &[u8], _body: &mut [u8]) -> Option<Tag> {
        Some([0; TAG])
    }

    fn open(&self, _counter: u64, _header: &[u8], _body: &mut [u8], _tag: &Tag) -> Result<(), Forged> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn portable_and_fast_chacha_are_the_same(
            key: [u8; 32], counter: u64, header: [u8; 13], body in proptest::collection::vec(any::<u8>(), 0..2000),
        ) {
            let (portable, fast) = (Portable::new(&key), Fast::new(Suite::ChaCha, &key));
            let (mut one, mut two) = (body.clone(), body.clone());
            let tag = portable.seal(counter, &header, &mut one).unwrap();
            prop_assert_eq!(fast.seal(counter, &header, &mut two).unwrap(), tag);
            prop_assert_eq!(&one, &two);
            prop_assert_eq!(fast.open(counter, &header, &mut one, &tag), Ok(()));
            prop_assert_eq!(portable.open(counter, &header, &mut two, &tag), Ok(()));
            prop_assert_eq!(&one, &body);
            prop_assert_eq!(&two, &body);
        }

        #[test]
        fn any_flipped_bit_is_seen(
            key: [u8; 32], counter: u64, body in proptest::collection::vec(any::<u8>(), 1..200),
            at: prop::sample::Index, bit in 0_u8..8, aes: bool,
        ) {
            let suite = if aes { Suite::Aes } else { Suite::ChaCha };
            let aead = suite.with_key(&key);
            let mut packet = vec![7; 13];
            packet.extend(&body);
            let (header, sealed) = packet.split_at_mut(13);
            let tag = aead.seal(counter, header, sealed).unwrap();
            packet.extend(tag);
            let at = at.index(packet.len());
            packet[at] ^= 1 << bit;
            let tag: Tag = packet.split_off(packet.len() - TAG).try_into().unwrap();
            let (header, sealed) = packet.split_at_mut(13);
            prop_assert_eq!(aead.open(counter, header, sealed, &tag), Err(Forged));
        }
    }

    #[test]
    fn the_best_common_suite_is_chosen_and_clear_never_meets_sealed() {
        let (aes, plain) = (Suites::offered(true, true), Suites::offered(true, false));
        let clear = Suites::offered(false, true);
        assert_eq!(aes.common(aes), Some(Suite::Aes));
        assert_eq!(aes.common(plain), Some(Suite::ChaCha));
        assert_eq!(plain.common(aes), Some(Suite::ChaCha));
        assert_eq!(clear.common(clear), Some(Suite::Clear));
        assert_eq!(clear.common(aes), None);
        assert_eq!(aes.common(clear), None);
    }
}
