//! Address arithmetic that cannot overflow: spans of IPv4 addresses with both ends included, so that
//! the whole of 0.0.0.0/0 fits into two `u32`.

use std::{fmt, net::Ipv4Addr};

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

/// A run of addresses, both ends included and never empty.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Span {
    first: u32,
    last: u32,
}

impl Span {
    /// Makes the span `first..=last`; `None` if that would be empty.
    pub fn new(first: u32, last: u32) -> Option<Self> {
        (first <= last).then_some(Self { first, last })
    }

    /// Makes the span of one address.
    pub fn single(address: u32) -> Self {
        Self { first: address, last: address }
    }

    /// The lowest address.
    pub fn first(self) -> u32 {
        self.first
    }

    /// The highest address.
    pub fn last(self) -> u32 {
        self.last
    }

    /// How many addresses it holds.
    pub fn size(self) -> u64 {
        u64::from(self.last - self.first) + 1
    }

    /// Whether the address lies in it.
    pub fn contains(self, address: u32) -> bool {
        self.first <= address && address <= self.last
    }

    /// Whether all of the other span lies in it.
    pub fn covers(self, other: Self) -> bool {
        self.first <= other.first && other.last <= self.last
    }

    /// The addresses both spans hold.
    pub fn intersection(self, other: Self) -> Option<Self> {
        Self::new(self.first.max(other.first), self.last.min(other.last))
    }

    /// Everything but the first and the last address: what may be handed out of a subnet.
    pub fn interior(self) -> Option<Self> {
        Self::new(self.first.checked_add(1)?, self.last.checked_sub(1)?)
    }

    /// The largest CIDR block inside the span; of several the highest, so that a donor keeps the low end.
    pub fn largest_block(self) -> Self {
        let mut bits = self.size().ilog2();
        loop {
            let step = 1_u64 << bits;
            let end = (u64::from(self.last) + 1) / step * step;
            if end >= u64::from(self.first) + step {
                let block = (u32::try_from(end - step), u32::try_from(end - 1));
                if let (Ok(first), Ok(last)) = block {
                    return Self { first, last };
                }
            }
            bits -= 1; // Ends at the latest with blocks of one address, which always fit.
        }
    }

    /// The lower and the upper half; `None` if there is only one address.
    pub fn halves(self) -> Option<(Self, Self)> {
        let middle = self.first + (self.last - self.first) / 2;
        Some((Self::new(self.first, middle)?, Self::new(middle.checked_add(1)?, self.last)?))
    }
}

impl From<Ipv4Net> for Span {
    fn from(net: Ipv4Net) -> Self {
        Self { first: net.network().into(), last: net.broadcast().into() }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            return write!(f, "{}", Ipv4Addr::from(self.first));
        }
        write!(f, "{}-{}", Ipv4Addr::from(self.first), Ipv4Addr::from(self.last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(first: u32, last: u32) -> Span {
        Span::new(first, last).unwrap()
    }

    #[test]
    fn the_largest_block_is_aligned_and_the_highest_of_its_size() {
        assert_eq!(span(0, 63).largest_block(), span(0, 63));
        assert_eq!(span(1, 62).largest_block(), span(32, 47));
        assert_eq!(span(5, 5).largest_block(), span(5, 5));
        assert_eq!(span(0, u32::MAX).largest_block(), span(0, u32::MAX));
        assert_eq!(span(1, u32::MAX).largest_block(), span(1 << 31, u32::MAX));
        assert_eq!(span(7, 8).largest_block(), span(8, 8));
    }

    #[test]
    fn halving_ends_at_one_address() {
        assert_eq!(span(4, 7).halves(), Some((span(4, 5), span(6, 7))));
        assert_eq!(span(u32::MAX, u32::MAX).halves(), None);
        assert_eq!(span(9, 9).halves(), None);
    }

    #[test]
    fn the_interior_of_a_small_subnet_is_empty() {
        assert_eq!(span(0, 1).interior(), None);
        assert_eq!(span(0, 3).interior(), Some(span(1, 2)));
    }
}
