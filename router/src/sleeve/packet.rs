//! The outermost 13 bytes of a sleeve datagram, the only ones that always travel in clear.
//!
//! ```text
//!  0        1           5                   13
//! ┌────────┬───────────┬───────────────────┬──────────────────────────────┬─────────────┐
//! │ type   │ receiver  │ counter           │ pieces, sealed               │ tag         │
//! │ 1│suite│ index  u32│ u64               │ (piece.rs)                   │ 16 bytes    │
//! └────────┴───────────┴───────────────────┴──────────────────────────────┴─────────────┘
//!  ╰───────── authenticated ─────────────╯
//! ```
//!
//! High half of the first byte: 1, the version of this format. Low half: the suite. The receiver index is random
//! and names the receive key, so neither names nor addresses show and a changed source address does not matter.
//! With the suite `clear` (routers without a secret) the pieces are not sealed and there is no tag.

use super::seal::Suite;

/// Bytes before the pieces.
pub const HEADER: usize = 13;
const VERSION: u8 = 1;

/// The header of one datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// How the pieces are sealed.
    pub suite: Suite,
    /// Names the receiver's key.
    pub index: u32,
    /// Never the same twice under one key.
    pub counter: u64,
}

/// Why a datagram has no readable header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeaderError {
    /// Shorter than a header and a tag.
    Truncated,
    /// A version or suite this router does not know.
    Unknown,
}

impl Header {
    /// Reads the header of a whole datagram.
    ///
    /// # Errors
    /// When the datagram is too short for its suite, or of an unknown kind.
    pub fn parse(datagram: &[u8]) -> Result<Self, HeaderError> {
        let Some((first, rest)) = datagram.split_first() else { return Err(HeaderError::Truncated) };
        if first >> 4 != VERSION {
            return Err(HeaderError::Unknown);
        }
        let suite = Suite::from_number(first & 0x0f).ok_or(HeaderError::Unknown)?;
        if datagram.len() < HEADER + suite.tag_length() {
            return Err(HeaderError::Truncated);
        }
        let (index, rest) = rest.split_first_chunk().ok_or(HeaderError::Truncated)?;
        let (counter, _) = rest.split_first_chunk().ok_or(HeaderError::Truncated)?;
        Ok(Self { suite, index: u32::from_be_bytes(*index), counter: u64::from_be_bytes(*counter) })
    }

    /// The header as it travels.
    pub fn bytes(&self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[0] = VERSION << 4 | self.suite as u8;
        bytes[1..5].copy_from_slice(&self.index.to_be_bytes());
        bytes[5..].copy_from_slice(&self.counter.to_be_bytes());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_header_survives_the_wire(suite in 0_u8..3, index: u32, counter: u64) {
            let header = Header { suite: Suite::from_number(suite).unwrap(), index, counter };
            let mut datagram = header.bytes().to_vec();
            datagram.extend([0; 16]);
            prop_assert_eq!(Header::parse(&datagram), Ok(header));
        }

        #[test]
        fn no_bytes_panic_the_parser(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = Header::parse(&bytes);
        }
    }

    #[test]
    fn the_header_is_laid_out_as_drawn() {
        let header = Header { suite: Suite::Aes, index: 0x0102_0304, counter: 5 };
        assert_eq!(header.bytes(), [0x12, 1, 2, 3, 4, 0, 0, 0, 0, 0, 0, 0, 5]);
        assert_eq!(Header::parse(&[0x12; 28]), Err(HeaderError::Truncated));
        assert_eq!(Header::parse(&[0x22; 40]), Err(HeaderError::Unknown));
        assert_eq!(Header::parse(&[0x13; 40]), Err(HeaderError::Unknown));
    }
}
