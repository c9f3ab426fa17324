//! What a datagram carries once it is opened: one or more pieces, one behind the other.
//!
//! ```text
//!  frame piece
//! ┌───────────┬────────┬──────────────────────────┬──────────────────────┬──────────┬───────────┐
//! │ kind│flags│ length │ source, destination, hops│ id, total, offset    │ virtio   │ bytes of  │
//! │ 1 byte    │ u16    │ u64     u64          u8  │ u32 u24    u24       │ 10 bytes │ the frame │
//! └───────────┴────────┴──────────────────────────┴──────────────────────┴──────────┴───────────┘
//!               of the   ROUTED; a flooded frame     PART                   VNET
//!               bytes    has it always, without
//!                        the destination
//! ```
//!
//! Kind (high half): 0 padding to the end of the datagram, 1 heartbeat, 2 its echo, 3 path probe, 4 its echo,
//! 5 frame for one peer, 6 frame for everyone along the source's broadcast tree. Flags (low half): 1 PART,
//! 2 ROUTED, 4 VNET, 8 DELIVER (a flooded frame is also for the receiving host itself).
//!
//! A flooded frame is a PART even when it is whole: its id is by what it is known if it comes by two ways.
//!
//! A part says *where* it belongs (`offset` of `total`) rather than its index, so a relay whose next hop takes
//! less can cut it again without joining the frame first. Without ROUTED the source is the neighbour that sealed
//! the datagram and the destination is whoever opened it.

use crate::switch::offload::{VNET_HEADER, VnetHeader};
use weft_gossip::PeerName;

/// The largest frame that is carried: a 64 KiB segment with Ethernet and VLAN headers.
pub const MAX_FRAME: usize = 65_600;

const PART: u8 = 1;
const ROUTED: u8 = 2;
const VNET: u8 = 4;
const DELIVER: u8 = 8;
const LEAD: usize = 3;

/// One piece of an opened datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece<'a> {
    /// Are you there? `hears` says whether the sender hears the receiver.
    Beat {
        /// Comes back in the echo.
        sequence: u32,
        /// Whether the sender has heard from the receiver lately.
        hears: bool,
    },
    /// The answer to a heartbeat.
    Echo {
        /// From the heartbeat.
        sequence: u32,
    },
    /// This datagram is padded to `size` bytes of IP packet; say so if it arrives.
    Probe {
        /// The search round it belongs to.
        round: u32,
        /// Bytes of the whole IP packet.
        size: u16,
    },
    /// The answer to a probe.
    ProbeEcho {
        /// From the probe.
        round: u32,
        /// From the probe.
        size: u16,
    },
    /// A frame, or a part of one.
    Frame(FrameHead, &'a [u8]),
}

/// What stands before the bytes of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHead {
    /// For everyone along the source's broadcast tree, rather than for one peer.
    pub flood: bool,
    /// The receiving host takes the frame too (flooded frames only).
    pub deliver: bool,
    /// From and to whom, when that is not the two ends of the link.
    pub route: Option<Route>,
    /// Which part of which frame, when it is flooded or not whole.
    pub part: Option<Part>,
    /// What the kernel left undone (first part only).
    pub vnet: Option<VnetHeader>,
}

/// From whom, to whom, and how much further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// The peer whose host the frame came from.
    pub source: PeerName,
    /// The peer it is for; meaningless for a flooded frame.
    pub destination: PeerName,
    /// How many more links it may cross after this one.
    pub hops: u8,
}

/// Where bytes belong in a frame that was cut, or that has a number for another reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Chosen by the source peer; unique among its frames for far longer than a frame is under way.
    pub id: u32,
    /// Bytes of the whole frame.
    pub total: u32,
    /// Where these bytes start.
    pub offset: u32,
}

impl Part {
    /// A frame that is not cut (yet).
    pub fn whole(id: u32, frame: &[u8]) -> Self {
        Self { id, total: u32::try_from(frame.len()).unwrap_or(u32::MAX), offset: 0 }
    }

    /// Whether these bytes are the whole frame.
    pub fn is_whole(&self, bytes: &[u8]) -> bool {
        self.offset == 0 && self.total as usize == bytes.len()
    }
}

/// The rest of the datagram is not readable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

impl FrameHead {
    /// A whole frame straight to the neighbour.
    pub fn direct(vnet: Option<VnetHeader>) -> Self {
        Self { flood: false, deliver: false, route: None, part: None, vnet }
    }

    /// By what a flooded frame is known, with its source, if it comes more than once.
    pub fn number(&self) -> Option<u32> {
        self.part.filter(|_| self.flood).map(|part| part.id)
    }

    /// Bytes this head takes on the wire.
    pub fn length(&self) -> usize {
        let route = match (self.flood, self.route) {
            (true, _) => 9,
            (false, Some(_)) => 17,
            (false, None) => 0,
        };
        let part = if self.part.is_some() { 10 } else { 0 };
        let vnet = if self.vnet.is_some() { VNET_HEADER } else { 0 };
        LEAD + route + part + vnet
    }
}

impl Piece<'_> {
    /// Appends the piece to a datagram under construction.
    pub fn write(&self, out: &mut Vec<u8>) {
        match *self {
            Self::Beat { sequence, hears } => {
                out.push(1 << 4 | u8::from(hears));
                out.extend(sequence.to_be_bytes());
            }
            Self::Echo { sequence } => {
                out.push(2 << 4);
                out.extend(sequence.to_be_bytes());
            }
            Self::Probe { round, size } => write_probe(3, round, size, out),
            Self::ProbeEcho { round, size } => write_probe(4, round, size, out),
            Self::Frame(ref head, bytes) => write_frame(head, bytes, out),
        }
    }
}

fn write_probe(kind: u8, round: u32, size: u16, out: &mut Vec<u8>) {
    out.push(kind << 4);
    out.extend(round.to_be_bytes());
    out.extend(size.to_be_bytes());
}

fn write_frame(head: &FrameHead, bytes: &[u8], out: &mut Vec<u8>) {
    let kind = if head.flood { 6 } else { 5 };
    let flag = |set: bool, flag: u8| if set { flag } else { 0 };
    let flags = flag(head.part.is_some(), PART)
        | flag(head.route.is_some(), ROUTED)
        | flag(head.vnet.is_some(), VNET)
        | flag(head.deliver, DELIVER);
    let length = u16::try_from(bytes.len()).expect("a datagram is shorter than 64 KiB");
    out.push(kind << 4 | flags);
    out.extend(length.to_be_bytes());
    if let Some(route) = head.route {
        out.extend(route.source.as_u64().to_be_bytes());
        if !head.flood {
            out.extend(route.destination.as_u64().to_be_bytes());
        }
        out.push(route.hops);
    }
    if let Some(part) = head.part {
        out.extend(part.id.to_be_bytes());
        out.extend(&part.total.to_be_bytes()[1..]);
        out.extend(&part.offset.to_be_bytes()[1..]);
    }
    if let Some(vnet) = head.vnet {
        out.extend(vnet.to_wire());
    }
    out.extend(bytes);
}

/// Reads the pieces of an opened datagram one after the other; stops at padding, at the end, and at the first
/// malformed piece.
pub struct Pieces<'a>(&'a [u8]);

impl<'a> Pieces<'a> {
    /// Reads `opened`, the datagram without header and tag.
    pub fn new(opened: &'a [u8]) -> Self {
        Self(opened)
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (bytes, rest) = self.0.split_first_chunk().ok_or(Malformed)?;
        self.0 = rest;
        Ok(*bytes)
    }

    fn number<const N: usize>(&mut self) -> Result<u64, Malformed> {
        let bytes: [u8; N] = self.take()?;
        Ok(bytes.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
    }

    fn u32<const N: usize>(&mut self) -> Result<u32, Malformed> {
        u32::try_from(self.number::<N>()?).map_err(|_| Malformed)
    }

    fn u16(&mut self) -> Result<u16, Malformed> {
        Ok(u16::from_be_bytes(self.take()?))
    }

    fn piece(&mut self) -> Result<Option<Piece<'a>>, Malformed> {
        let [lead] = self.take()?;
        let (kind, flags) = (lead >> 4, lead & 0x0f);
        match kind {
            0 => {
                self.0 = &[];
                Ok(None)
            }
            1 => Ok(Some(Piece::Beat { sequence: self.u32::<4>()?, hears: flags & 1 != 0 })),
            2 => Ok(Some(Piece::Echo { sequence: self.u32::<4>()? })),
            3 => Ok(Some(Piece::Probe { round: self.u32::<4>()?, size: self.u16()? })),
            4 => Ok(Some(Piece::ProbeEcho { round: self.u32::<4>()?, size: self.u16()? })),
            5 | 6 => self.frame(kind == 6, flags).map(Some),
            _ => Err(Malformed),
        }
    }

    fn frame(&mut self, flood: bool, flags: u8) -> Result<Piece<'a>, Malformed> {
        let length = usize::from(self.u16()?);
        let route = if flags & ROUTED != 0 { Some(self.route(flood)?) } else { None };
        let part = if flags & PART != 0 { Some(self.part(length)?) } else { None };
        let vnet = if flags & VNET != 0 { Some(VnetHeader::from_wire(self.take()?)) } else { None };
        if flood && route.is_none() {
            return Err(Malformed);
        }
        let (bytes, rest) = self.0.split_at_checked(length).ok_or(Malformed)?;
        self.0 = rest;
        Ok(Piece::Frame(FrameHead { flood, deliver: flags & DELIVER != 0, route, part, vnet }, bytes))
    }

    fn route(&mut self, flood: bool) -> Result<Route, Malformed> {
        let source = PeerName::from_u64(self.number::<8>()?);
        let destination = if flood { source } else { PeerName::from_u64(self.number::<8>()?) };
        let [hops] = self.take()?;
        Ok(Route { source, destination, hops })
    }

    fn part(&mut self, length: usize) -> Result<Part, Malformed> {
        let part = Part { id: self.u32::<4>()?, total: self.u32::<3>()?, offset: self.u32::<3>()? };
        let end = part.offset as usize + length;
        if length == 0 || end > part.total as usize || part.total as usize > MAX_FRAME {
            return Err(Malformed);
        }
        Ok(part)
    }
}

impl<'a> Iterator for Pieces<'a> {
    type Item = Result<Piece<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let piece = self.piece();
        if piece.is_err() {
            self.0 = &[];
        }
        piece.transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn head() -> impl Strategy<Value = FrameHead> {
        let route = (any::<u64>(), any::<u64>(), any::<u8>());
        let part = (any::<u32>(), 0_u32..50_000);
        let parts = (any::<bool>(), any::<bool>(), proptest::option::of(route), proptest::option::of(part));
        (parts, proptest::option::of(any::<[u8; 10]>())).prop_map(|((flood, deliver, route, part), vnet)| {
            let route = route.or(flood.then_some((1, 1, 1))).map(|(source, destination, hops)| Route {
                source: PeerName::from_u64(source),
                destination: PeerName::from_u64(if flood { source } else { destination }),
                hops,
            });
            let part = part.map(|(id, offset)| Part { id, offset, total: 65_000 });
            FrameHead { flood, deliver, route, part, vnet: vnet.map(VnetHeader::from_wire) }
        })
    }

    proptest! {
        #[test]
        fn pieces_survive_the_wire(
            head in head(), bytes in proptest::collection::vec(any::<u8>(), 1..100), number: u32, hears: bool, size: u16,
        ) {
            let pieces = [
                Piece::Frame(head, &bytes),
                Piece::Beat { sequence: number, hears },
                Piece::Echo { sequence: number },
                Piece::Probe { round: number, size },
                Piece::ProbeEcho { round: number, size },
                Piece::Frame(head, &bytes),
            ];
            let mut wire = Vec::new();
            for piece in &pieces {
                piece.write(&mut wire);
            }
            wire.extend([0; 7]);
            let read: Result<Vec<_>, _> = Pieces::new(&wire).collect();
            prop_assert_eq!(read.unwrap(), pieces);
            let mut alone = Vec::new();
            pieces[0].write(&mut alone);
            prop_assert_eq!(alone.len(), head.length() + bytes.len());
        }

        #[test]
        fn no_bytes_panic_the_reader_and_it_ends(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(Pieces::new(&bytes).count() <= bytes.len());
        }
    }

    #[test]
    fn a_part_beyond_its_frame_is_malformed() {
        let part = Part { id: 1, total: 10, offset: 8 };
        let head = FrameHead { part: Some(part), ..FrameHead::direct(None) };
        let mut wire = Vec::new();
        Piece::Frame(head, &[0; 3]).write(&mut wire);
        assert_eq!(Pieces::new(&wire).collect::<Vec<_>>(), [Err(Malformed)]);
    }
}
