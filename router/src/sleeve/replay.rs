//! The replay window: every counter of a key is accepted once, in any order, unless it is too old.
//!
//! The window is a ring of bits that slides with the highest counter seen (RFC 6479). It holds more than the
//! 8,192 packets the design asks for, because parallel paths and workers reorder by thousands.

const WORDS: usize = 256;
const BITS: u64 = 64;

/// How far behind the highest counter a packet may arrive and still be accepted.
pub const WINDOW: u64 = (WORDS as u64 - 1) * BITS;

/// Which counters of one key were seen; 2 KiB.
pub struct ReplayWindow {
    /// One more than the highest counter seen; 0 before the first.
    next: u64,
    seen: Box<[u64; WORDS]>,
}

impl Default for ReplayWindow {
    fn default() -> Self {
        Self { next: 0, seen: Box::new([0; WORDS]) }
    }
}

impl ReplayWindow {
    /// One more than the highest counter accepted so far.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Whether the counter could be accepted: neither seen nor too old. Changes nothing, so it can be asked before
    /// the packet is opened.
    pub fn is_fresh(&self, counter: u64) -> bool {
        if counter == u64::MAX {
            return false;
        }
        if counter >= self.next {
            return true;
        }
        self.next - 1 - counter < WINDOW && self.seen[word(counter)] & bit(counter) == 0
    }

    /// Marks the counter of an authentic packet as seen; false if it was not fresh.
    pub fn accept(&mut self, counter: u64) -> bool {
        if !self.is_fresh(counter) {
            return false;
        }
        if counter >= self.next {
            self.slide(counter);
        }
        self.seen[word(counter)] |= bit(counter);
        true
    }

    fn slide(&mut self, counter: u64) {
        let (new, old) = (counter / BITS, self.next.saturating_sub(1) / BITS);
        let steps = (new - old).min(WORDS as u64);
        for step in 0..steps {
            self.seen[word((new - step) * BITS)] = 0;
        }
        self.next = counter + 1;
    }
}

fn word(counter: u64) -> usize {
    usize::try_from((counter / BITS) % WORDS as u64).expect("below WORDS")
}

fn bit(counter: u64) -> u64 {
    1 << (counter % BITS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    /// The naive model: every counter ever seen, and the highest.
    #[derive(Default)]
    struct Model {
        seen: BTreeSet<u64>,
    }

    impl Model {
        fn accept(&mut self, counter: u64) -> bool {
            let old =
                self.seen.last().is_some_and(|highest| *highest > counter && highest - counter >= WINDOW);
            counter != u64::MAX && !old && self.seen.insert(counter)
        }
    }

    proptest! {
        #[test]
        fn the_window_agrees_with_a_set_of_everything_seen(
            start in prop_oneof![Just(0_u64), 0..1_000_000_u64, Just(u64::MAX - 60_000)],
            steps in proptest::collection::vec(
                prop_oneof![4 => -300_i64..300, 1 => -20_000_i64..20_000, 1 => 16_300_i64..16_340, 1 => -16_340_i64..-16_300],
                1..600),
        ) {
            let (mut window, mut model) = (ReplayWindow::default(), Model::default());
            let mut at = start;
            for step in steps {
                at = at.saturating_add_signed(step);
                prop_assert_eq!(window.is_fresh(at), { let mut seen = Model { seen: model.seen.clone() }; seen.accept(at) });
                prop_assert_eq!(window.accept(at), model.accept(at));
                prop_assert!(!window.accept(at));
            }
        }
    }

    #[test]
    fn eight_thousand_packets_may_arrive_in_reverse_order() {
        assert_ne!(WINDOW, WINDOW.min(8191));
        let mut window = ReplayWindow::default();
        assert!((0..8192).rev().all(|counter| window.accept(counter)));
        assert!(!(0..8192).any(|counter| window.accept(counter)));
    }

    #[test]
    fn the_last_counter_is_refused_so_that_nothing_wraps() {
        let mut window = ReplayWindow::default();
        assert!(window.accept(u64::MAX - 1));
        assert!(!window.accept(u64::MAX));
        assert!(!window.accept(0));
    }
}
