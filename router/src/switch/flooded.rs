//! Which flooded frames were handed to the bridge.
//!
//! A flooded frame comes down its source's tree, and once, while all see the same links. When the tree changes, a relay
//! may get it by the old tree and then, from another neighbour, by the new one. Whoever is behind that relay gets it
//! twice from where it always comes from, and nothing but the frame itself says that it is the same: by its source and
//! its number there. (Passed on it is twice too: with the new tree may come somebody who had it from nobody yet.)

use weft_gossip::PeerName;

/// So many frames are remembered, in 96 KiB: those of more than a second, unless somebody floods thousands in one.
const SLOTS: usize = 4096;

/// The latest flooded frames, by source and number.
pub struct Flooded(Box<[Option<(PeerName, u32)>]>);

impl Default for Flooded {
    fn default() -> Self {
        Self(vec![None; SLOTS].into())
    }
}

impl Flooded {
    /// Notes a frame; false if it was noted before.
    pub fn is_first(&mut self, source: PeerName, id: u32) -> bool {
        let frame = Some((source, id));
        self.0[slot(source, id)].replace((source, id)) != frame
    }
}

/// Names are hashes, which spreads the sources; the frames of one source take one slot after the other.
fn slot(source: PeerName, id: u32) -> usize {
    let place = source.as_u64().wrapping_add(id.into()) % SLOTS as u64;
    usize::try_from(place).expect("below SLOTS")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_known_by_its_source_and_its_number_until_many_came_after_it() {
        let mut flooded = Flooded::default();
        let [one, other] = [1, 1 + SLOTS as u64 / 2].map(PeerName::from_u64);
        let lap = u32::try_from(SLOTS).unwrap();
        let first = u32::MAX - lap / 4;
        assert!(flooded.is_first(one, first) && flooded.is_first(other, first));
        assert!((1..lap / 2).all(|more| flooded.is_first(one, first.wrapping_add(more))));
        assert!(!flooded.is_first(one, first) && !flooded.is_first(other, first));
        assert!(flooded.is_first(one, first.wrapping_add(lap)));
        assert!(flooded.is_first(one, first), "forgotten for the sake of a later one");
    }
}
