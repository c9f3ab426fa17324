//! The only place that knows bincode: values to bytes and back, within a limit.
//!
//! Without a limit a six-byte message can ask a decoder for gigabytes, and bincode by itself ignores trailing
//! bytes; both are closed here. Standard configuration (little endian, variable-length integers); the golden
//! bytes in the tests keep the format stable should the crate behind it ever change.

use serde::de::{DeserializeOwned, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Says why bytes from outside are no value.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The bytes do not hold such a value, or claim more than the limit.
    #[error("malformed: {0}")]
    Malformed(String),
    /// The value ended before the bytes did.
    #[error("{0} bytes too many")]
    Trailing(usize),
}

/// Encodes a value; the types of this crate cannot fail to be encoded.
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    bincode::serde::encode_to_vec(value, bincode::config::standard())
        .expect("plain data encodes into memory without an error")
}

/// Decodes a value of at most `LIMIT` decoded bytes that fills `bytes` exactly.
///
/// # Errors
/// [`DecodeError`] if the bytes hold anything else.
pub fn decode<T: DeserializeOwned, const LIMIT: usize>(bytes: &[u8]) -> Result<T, DecodeError> {
    let config = bincode::config::standard().with_limit::<LIMIT>();
    let (value, used) = bincode::serde::decode_from_slice(bytes, config)
        .map_err(|error| DecodeError::Malformed(error.to_string()))?;
    if used == bytes.len() { Ok(value) } else { Err(DecodeError::Trailing(bytes.len() - used)) }
}

/// Opaque bytes that are copied as a block instead of element by element.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Blob(pub Vec<u8>);

impl Serialize for Blob {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;
        impl Visitor<'_> for Bytes {
            type Value = Blob;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("bytes")
            }

            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Blob, E> {
                Ok(Blob(bytes.to_vec()))
            }

            fn visit_byte_buf<E>(self, bytes: Vec<u8>) -> Result<Blob, E> {
                Ok(Blob(bytes))
            }
        }
        deserializer.deserialize_byte_buf(Bytes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_bytes_of_a_value_never_change() {
        let value = (7u8, 300u64, "abc".to_owned(), vec![1u32, 70_000], Some(Blob(vec![9, 8])));
        let golden = [7, 251, 44, 1, 3, b'a', b'b', b'c', 2, 1, 252, 0x70, 0x11, 0x01, 0x00, 1, 2, 9, 8];
        assert_eq!(encode(&value), golden);
    }

    #[test]
    fn a_length_that_claims_gigabytes_is_refused_without_asking_for_them() {
        let mut hostile = vec![253];
        hostile.extend_from_slice(&(1u64 << 40).to_le_bytes());
        assert!(decode::<Vec<u64>, 65_536>(&hostile).is_err());
        assert!(decode::<Blob, 65_536>(&hostile).is_err());
        assert!(decode::<String, 65_536>(&hostile).is_err());
    }

    #[test]
    fn trailing_bytes_are_an_error() {
        assert!(matches!(decode::<u8, 16>(&[1, 2]), Err(DecodeError::Trailing(1))));
    }

    proptest! {
        #[test]
        fn any_bytes_decode_or_fail_but_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode::<Vec<(u64, String, Option<Blob>)>, 4096>(&bytes);
        }

        #[test]
        fn a_value_reads_back_as_itself(value in any::<(u64, Vec<u16>, Option<String>)>()) {
            prop_assert_eq!(decode::<(u64, Vec<u16>, Option<String>), 65_536>(&encode(&value)).unwrap(), value);
        }
    }
}
