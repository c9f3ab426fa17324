//! Packs pieces for one neighbour into datagrams, and datagrams into one send.
//!
//! Within one batch of input, small frames share a datagram, and parts of large ones fill it up: a stream of
//! 1,464-byte frames over a path that takes 1,443 bytes then costs hardly more datagrams than frames. Sealed
//! datagrams of one size line up in one buffer, which leaves in one `UDP_SEGMENT` call (all of one size, the last
//! may be shorter).

use super::{keys::SendKey, packet::HEADER, piece::Piece};
use std::{collections::VecDeque, net::SocketAddr};

/// Bytes of one send; the kernel's limit is 65,507.
const BATCH_BYTES: usize = 64_000;
/// Datagrams of one send; the kernel's limit is 64.
const BATCH_DATAGRAMS: usize = 60;
/// Spare buffers that are kept.
const SPARE: usize = 128;

/// Sealed datagrams for one address, to be sent in one call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// Where to.
    pub to: SocketAddr,
    /// Bytes of each datagram; the last may be shorter.
    pub segment: usize,
    /// The datagrams, one behind the other.
    pub bytes: Vec<u8>,
}

/// What is ready to be sent, and the buffers everything is made in.
#[derive(Default)]
pub struct Outbox {
    ready: VecDeque<Batch>,
    buffers: Vec<Vec<u8>>,
}

impl Outbox {
    /// The next send.
    pub fn pop(&mut self) -> Option<Batch> {
        self.ready.pop_front()
    }

    /// An empty buffer.
    pub fn buffer(&mut self) -> Vec<u8> {
        let mut buffer = self.buffers.pop().unwrap_or_default();
        buffer.clear();
        buffer
    }

    /// Takes a buffer back.
    pub fn recycle(&mut self, buffer: Vec<u8>) {
        if self.buffers.len() < SPARE && buffer.capacity() > 0 {
            self.buffers.push(buffer);
        }
    }

    /// The spare buffers, for who needs several.
    pub fn buffers(&mut self) -> &mut Vec<Vec<u8>> {
        &mut self.buffers
    }
}

/// The datagrams under construction for one neighbour.
#[derive(Default)]
pub struct Packer {
    bytes: Vec<u8>,
    segment: usize,
    datagrams: usize,
    /// Where the datagram begins that is not sealed yet.
    open: Option<usize>,
}

impl Packer {
    /// Bytes that still fit into the open datagram, if `limit` bytes of pieces fit into one.
    pub fn room(&self, limit: usize) -> usize {
        self.open.map_or(limit, |start| limit.saturating_sub(self.bytes.len() - start - HEADER))
    }

    /// Whether a datagram is open that holds something.
    pub fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Appends a piece to the open datagram.
    pub fn push(&mut self, piece: &Piece<'_>, out: &mut Outbox) {
        if self.open.is_none() {
            if self.bytes.capacity() == 0 {
                self.bytes = out.buffer();
            }
            self.open = Some(self.bytes.len());
            self.bytes.extend_from_slice(&[0; HEADER]);
        }
        piece.write(&mut self.bytes);
    }

    /// Pads the open datagram until its pieces take `length` bytes.
    pub fn pad(&mut self, length: usize) {
        if let Some(start) = self.open {
            self.bytes.resize((start + HEADER + length).max(self.bytes.len()), 0);
        }
    }

    /// Seals the open datagram. Returns its bytes, or `None` when the key is used up and it was dropped.
    pub fn close(&mut self, key: &mut SendKey, to: SocketAddr, out: &mut Outbox) -> Option<usize> {
        let start = self.open.take()?;
        if !key.seal(&mut self.bytes, start) {
            self.bytes.truncate(start);
            return None;
        }
        let length = self.bytes.len() - start;
        if self.datagrams > 0 && length > self.segment {
            let mut larger = out.buffer();
            larger.extend_from_slice(&self.bytes[start..]);
            self.bytes.truncate(start);
            self.flush(to, out);
            self.bytes = larger;
        }
        self.segment = self.segment.max(length);
        self.datagrams += 1;
        let full = self.datagrams >= BATCH_DATAGRAMS || self.bytes.len() + self.segment > BATCH_BYTES;
        if length < self.segment || full {
            self.flush(to, out);
        }
        Some(length)
    }

    /// Hands over everything that is sealed.
    pub fn flush(&mut self, to: SocketAddr, out: &mut Outbox) {
        if self.datagrams > 0 {
            let bytes = std::mem::take(&mut self.bytes);
            out.ready.push_back(Batch { to, segment: self.segment, bytes });
        } else {
            out.recycle(std::mem::take(&mut self.bytes));
        }
        (self.segment, self.datagrams) = (0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sleeve::{keys::KeyLimits, piece::FrameHead, seal::Suite};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn batches_hold_the_datagrams_in_order_and_only_the_last_is_shorter(
            sizes in proptest::collection::vec(prop_oneof![1_usize..1400, Just(1400), Just(9000)], 1..300),
        ) {
            let mut key = SendKey::new(1, &[0; 32], Suite::Clear, KeyLimits::default());
            let to = "10.0.0.1:1".parse().unwrap();
            let (mut packer, mut out) = (Packer::default(), Outbox::default());
            let mut expected = Vec::new();
            for (number, size) in sizes.iter().enumerate() {
                let frame = vec![u8::try_from(number % 251).unwrap(); *size];
                packer.push(&Piece::Frame(FrameHead::direct(None), &frame), &mut out);
                expected.push(packer.close(&mut key, to, &mut out).unwrap());
            }
            packer.flush(to, &mut out);
            let mut lengths = Vec::new();
            let mut counter = 0;
            while let Some(batch) = out.pop() {
                prop_assert!(batch.bytes.len() <= 65_507);
                let datagrams: Vec<_> = batch.bytes.chunks(batch.segment).collect();
                prop_assert!(datagrams.len() <= 64);
                for datagram in datagrams {
                    prop_assert_eq!(u64::from_be_bytes(datagram[5..13].try_into().unwrap()), counter);
                    counter += 1;
                    lengths.push(datagram.len());
                }
                out.recycle(batch.bytes);
            }
            prop_assert_eq!(lengths, expected);
        }
    }
}
