//! Sets of small numbers as words of bits.

/// A set of small numbers; words of zeros at the end may be missing.
#[derive(Debug, Clone, Default)]
pub(crate) struct Bits(Vec<u64>);

impl Bits {
    pub(crate) fn words(&self) -> &[u64] {
        &self.0
    }

    pub(crate) fn has(&self, number: usize) -> bool {
        self.0.get(number / 64).is_some_and(|word| word & 1 << (number % 64) != 0)
    }

    /// Takes a number in, or out.
    pub(crate) fn put(&mut self, number: usize, present: bool) {
        let (word, bit) = (number / 64, 1 << (number % 64));
        if present {
            if word >= self.0.len() {
                self.0.resize(word + 1, 0);
            }
            self.0[word] |= bit;
        } else if let Some(word) = self.0.get_mut(word) {
            *word &= !bit;
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    pub(crate) fn ones(&self) -> impl Iterator<Item = usize> {
        ones(&self.0)
    }

    /// The numbers that are in one of two sets alone.
    pub(crate) fn differing(&self, other: &Self) -> Vec<usize> {
        let words = self.0.len().max(other.0.len());
        let word = |bits: &Self, at: usize| bits.0.get(at).copied().unwrap_or(0);
        let differing: Vec<_> = (0..words).map(|at| word(self, at) ^ word(other, at)).collect();
        ones(&differing).collect()
    }

    /// Makes room for a new number: it and all above it become one greater.
    pub(crate) fn make_gap(&mut self, number: usize) {
        let (first, below) = (number / 64, (1 << (number % 64)) - 1);
        let Some(word) = self.0.get_mut(first) else { return };
        let mut carry = *word >> 63;
        *word = *word & below | (*word & !below) << 1;
        for word in &mut self.0[first + 1..] {
            let next = *word >> 63;
            *word = *word << 1 | carry;
            carry = next;
        }
        if carry != 0 {
            self.0.push(carry);
        }
    }
}

/// The positions of the ones in a row of bits, ascending.
pub(super) fn ones(row: &[u64]) -> impl Iterator<Item = usize> {
    row.iter().enumerate().flat_map(|(word, bits)| {
        let mut left = *bits;
        std::iter::from_fn(move || {
            if left == 0 {
                return None;
            }
            let bit = left.trailing_zeros() as usize;
            left &= left - 1;
            Some(word * 64 + bit)
        })
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_gap_moves_what_is_above_it_and_nothing_else(
            numbers in proptest::collection::btree_set(0usize..200, 0..60),
            gap in 0usize..210,
        ) {
            let mut bits = Bits::default();
            numbers.iter().for_each(|number| bits.put(*number, true));
            bits.make_gap(gap);
            let moved: BTreeSet<_> = numbers.iter().map(|number| number + usize::from(*number >= gap)).collect();
            prop_assert_eq!(bits.ones().collect::<BTreeSet<_>>(), moved);
            prop_assert_eq!(bits.len(), numbers.len());
        }

        #[test]
        fn what_differs_is_what_one_of_the_two_has_alone(
            one in proptest::collection::btree_set(0usize..200, 0..60),
            two in proptest::collection::btree_set(0usize..100, 0..60),
        ) {
            let set = |numbers: &BTreeSet<usize>| {
                let mut bits = Bits::default();
                numbers.iter().for_each(|number| bits.put(*number, true));
                bits
            };
            let differing: Vec<_> = one.symmetric_difference(&two).copied().collect();
            prop_assert_eq!(set(&one).differing(&set(&two)), differing);
        }
    }
}
