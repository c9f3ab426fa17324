//! The wrapping that tells a whole file from a torn one: magic, version, length, checksum.

use std::fmt;

use blake2::{Blake2s256, Digest};

const MAGIC: &[u8; 8] = b"weftstor";
const VERSION: u32 = 1;
/// Magic, version, length, checksum.
const HEADER: usize = 8 + 4 + 8 + 32;

/// What is wrong with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// Nothing is in it.
    Empty,
    /// It does not begin as ours do.
    Foreign,
    /// A newer weft wrote it.
    Version(u32),
    /// It is shorter or longer than it says.
    Length,
    /// Its bytes are not those that were written.
    Checksum,
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("empty"),
            Self::Foreign => f.write_str("not a file of weft"),
            Self::Version(version) => write!(f, "of version {version}, this weft knows {VERSION}"),
            Self::Length => f.write_str("cut short or too long"),
            Self::Checksum => f.write_str("wrong checksum"),
        }
    }
}

/// Wraps the bytes.
pub(super) fn seal(bytes: &[u8]) -> Vec<u8> {
    let mut file = Vec::with_capacity(HEADER + bytes.len());
    file.extend_from_slice(MAGIC);
    file.extend_from_slice(&VERSION.to_le_bytes());
    file.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
    file.extend_from_slice(&checksum(&file, bytes));
    file.extend_from_slice(bytes);
    file
}

/// The bytes, if the file is whole.
pub(super) fn unseal(file: &[u8]) -> Result<&[u8], Flaw> {
    if file.is_empty() {
        return Err(Flaw::Empty);
    }
    if !file.starts_with(&MAGIC[..file.len().min(MAGIC.len())]) {
        return Err(Flaw::Foreign);
    }
    let (header, bytes) = file.split_at_checked(HEADER).ok_or(Flaw::Length)?;
    let (head, sum) = header.split_at(HEADER - 32);
    let (version, length) = head[MAGIC.len()..].split_first_chunk().ok_or(Flaw::Length)?;
    match u32::from_le_bytes(*version) {
        VERSION => {}
        version => return Err(Flaw::Version(version)),
    }
    if length != (bytes.len() as u64).to_le_bytes() {
        return Err(Flaw::Length);
    }
    if checksum(head, bytes) != sum { Err(Flaw::Checksum) } else { Ok(bytes) }
}

/// Over the head, too: a flipped bit in it must not pass.
fn checksum(head: &[u8], bytes: &[u8]) -> [u8; 32] {
    Blake2s256::new().chain_update(head).chain_update(bytes).finalize().into()
}
