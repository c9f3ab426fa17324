//! Puts frames together again that were cut to fit the path.
//!
//! One joiner per neighbour, so that one neighbour cannot use up another's room. A frame lost in part is given
//! up after [`PATIENCE`], or when [`FRAMES`] newer ones have begun: under loss at speed the oldest is the one that
//! will never be whole. Parts may come in any order; parts that overlap are refused.

use super::piece::Part;
use crate::switch::offload::VnetHeader;
use std::time::{Duration, Instant};
use weft_gossip::PeerName;

/// How long a frame may wait for its missing parts.
pub const PATIENCE: Duration = Duration::from_millis(1500);
/// How many frames of one neighbour may be incomplete; with 64 KiB each that is 4 MiB.
pub const FRAMES: usize = 64;
/// How many separate stretches of one frame are remembered.
const STRETCHES: usize = 32;

/// What became of a part.
#[derive(Debug, PartialEq, Eq)]
pub enum Joined {
    /// More is missing.
    Waiting,
    /// The frame is whole.
    Whole(Vec<u8>, Option<VnetHeader>),
    /// It contradicts what came before.
    Refused,
}

/// The frames of one neighbour that are not whole yet.
#[derive(Default)]
pub struct Joiner {
    frames: Vec<Frame>,
    /// Memory for the stretches of new frames.
    spare: Vec<Vec<(u32, u32)>>,
    lost: u64,
}

struct Frame {
    source: PeerName,
    id: u32,
    total: u32,
    began: Instant,
    vnet: Option<VnetHeader>,
    bytes: Vec<u8>,
    /// Stretches already here, ordered, neither touching nor overlapping.
    have: Vec<(u32, u32)>,
}

impl Joiner {
    /// How many frames were given up, ever.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// Whether nothing is under way.
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Adds a part; `buffers` lends the memory of new frames and takes back that of lost ones.
    pub fn add(
        &mut self,
        source: PeerName,
        part: Part,
        vnet: Option<VnetHeader>,
        bytes: &[u8],
        buffers: &mut Vec<Vec<u8>>,
        now: Instant,
    ) -> Joined {
        let found = self.frames.iter().rposition(|frame| frame.id == part.id && frame.source == source);
        let at = found.unwrap_or_else(|| self.begin(source, part, buffers, now));
        let frame = &mut self.frames[at];
        if frame.total != part.total || !frame.note(part.offset, part.offset + length(bytes)) {
            return Joined::Refused;
        }
        frame.vnet = frame.vnet.or(vnet);
        frame.write(part.offset as usize, bytes);
        if frame.have != [(0, frame.total)] {
            return Joined::Waiting;
        }
        let frame = self.frames.remove(at);
        self.spare.push(frame.have);
        Joined::Whole(frame.bytes, frame.vnet)
    }

    /// Gives up what has waited too long.
    pub fn expire(&mut self, buffers: &mut Vec<Vec<u8>>, now: Instant) {
        let stale = self.frames.iter().take_while(|frame| now >= frame.began + PATIENCE).count();
        (0..stale).for_each(|_| self.lose(buffers));
    }

    /// Gives up the oldest.
    fn lose(&mut self, buffers: &mut Vec<Vec<u8>>) {
        let frame = self.frames.remove(0);
        self.lost += 1;
        self.spare.push(frame.have);
        buffers.push(frame.bytes);
    }

    fn begin(&mut self, source: PeerName, part: Part, buffers: &mut Vec<Vec<u8>>, now: Instant) -> usize {
        if self.frames.len() >= FRAMES {
            self.lose(buffers);
        }
        let mut bytes = buffers.pop().unwrap_or_default();
        bytes.clear();
        let mut have = self.spare.pop().unwrap_or_default();
        have.clear();
        let Part { id, total, .. } = part;
        self.frames.push(Frame { source, id, total, began: now, vnet: None, bytes, have });
        self.frames.len() - 1
    }
}

impl Frame {
    /// Notes the stretch; false when it overlaps another or there are too many.
    fn note(&mut self, start: u32, end: u32) -> bool {
        let at = self.have.partition_point(|(_, there)| *there <= start);
        let before = at.checked_sub(1).map(|before| self.have[before].1);
        if before.is_some_and(|end| end > start) {
            return false;
        }
        let follows = before == Some(start);
        match self.have.get(at).copied() {
            Some((next, _)) if next < end => return false,
            Some((next, last)) if next == end => {
                self.have[at].0 = start;
                if follows {
                    self.have[at - 1].1 = last;
                    self.have.remove(at);
                }
            }
            _ if follows => self.have[at - 1].1 = end,
            _ if self.have.len() >= STRETCHES => return false,
            _ => self.have.insert(at, (start, end)),
        }
        true
    }

    /// Parts mostly come in order, so this mostly appends.
    fn write(&mut self, start: usize, bytes: &[u8]) {
        if start == self.bytes.len() {
            self.bytes.extend_from_slice(bytes);
            return;
        }
        let end = start + bytes.len();
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        self.bytes[start..end].copy_from_slice(bytes);
    }
}

fn length(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "virtual time starts somewhere")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SOURCE: PeerName = PeerName::from_u64(7);

    fn parts(frame: &[u8], cuts: &[usize]) -> Vec<(u32, Vec<u8>)> {
        let mut edges: Vec<usize> = cuts.iter().map(|cut| cut % frame.len()).collect();
        edges.extend([0, frame.len()]);
        edges.sort_unstable();
        edges.dedup();
        edges
            .windows(2)
            .map(|pair| (u32::try_from(pair[0]).unwrap(), frame[pair[0]..pair[1]].to_vec()))
            .collect()
    }

    proptest! {
        #[test]
        fn a_frame_is_whole_when_its_last_part_comes_in_any_order(
            frame in proptest::collection::vec(any::<u8>(), 1..5000),
            cuts in proptest::collection::vec(any::<usize>(), 0..20),
            order in any::<u64>(),
        ) {
            let (mut joiner, mut buffers, now) = (Joiner::default(), Vec::new(), Instant::now());
            let total = u32::try_from(frame.len()).unwrap();
            let mut parts = parts(&frame, &cuts);
            parts.sort_by_key(|(offset, _)| (u64::from(*offset) + 1).wrapping_mul(order | 1));
            let last = parts.pop().unwrap();
            for (offset, bytes) in &parts {
                let part = Part { id: 1, total, offset: *offset };
                prop_assert_eq!(joiner.add(SOURCE, part, None, bytes, &mut buffers, now), Joined::Waiting);
                prop_assert_eq!(joiner.add(SOURCE, part, None, bytes, &mut buffers, now), Joined::Refused);
            }
            let part = Part { id: 1, total, offset: last.0 };
            let whole = joiner.add(SOURCE, part, None, &last.1, &mut buffers, now);
            prop_assert_eq!(whole, Joined::Whole(frame, None));
            prop_assert!(joiner.is_empty());
        }
    }

    #[test]
    fn incomplete_frames_are_bounded_in_number_and_in_time() {
        let (mut joiner, mut buffers, now) = (Joiner::default(), Vec::new(), Instant::now());
        for id in 0..1000 {
            let part = Part { id, total: 60_000, offset: 1000 };
            assert_eq!(joiner.add(SOURCE, part, None, &[1; 100], &mut buffers, now), Joined::Waiting);
        }
        assert_eq!((joiner.frames.len(), joiner.lost()), (FRAMES, 1000 - FRAMES as u64));
        joiner.expire(&mut buffers, now + PATIENCE);
        assert_eq!((joiner.frames.len(), joiner.lost()), (0, 1000));
    }

    #[test]
    fn a_frame_in_a_thousand_crumbs_is_refused_rather_than_remembered() {
        let (mut joiner, mut buffers, now) = (Joiner::default(), Vec::new(), Instant::now());
        let refused = (0..100).filter(|crumb| {
            let part = Part { id: 1, total: 1000, offset: crumb * 4 };
            joiner.add(SOURCE, part, None, &[0], &mut buffers, now) == Joined::Refused
        });
        assert_eq!(refused.count(), 100 - STRETCHES);
    }
}
