//! What became of numbered packets: when each was sent, and when each of its copies arrived.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

/// Every packet of a numbered stream, and every arrival.
#[derive(Debug, Clone, Default)]
pub struct Trail {
    sent: BTreeMap<u64, Instant>,
    arrived: BTreeMap<u64, Vec<Instant>>,
}

impl Trail {
    /// Packet `number` leaves now.
    pub(crate) fn leaves(&mut self, number: u64, moment: Instant) {
        self.sent.insert(number, moment);
    }

    /// A copy of packet `number` arrives.
    pub(crate) fn arrives(&mut self, number: u64, moment: Instant) {
        self.arrived.entry(number).or_default().push(moment);
    }

    /// Takes over the arrivals that another has written down.
    pub(crate) fn with_arrivals_of(self, other: Self) -> Self {
        Self { sent: self.sent, arrived: other.arrived }
    }

    /// The packets that were sent at or after `from` and before `to`, with their arrivals.
    #[must_use]
    pub fn between(&self, from: Instant, to: Instant) -> Self {
        let sent: BTreeMap<u64, Instant> = (self.sent.iter())
            .filter(|(_, moment)| (from..to).contains(*moment))
            .map(|(number, moment)| (*number, *moment))
            .collect();
        let arrived = self.arrived.iter().filter(|(number, _)| sent.contains_key(number));
        let arrived = arrived.map(|(number, moments)| (*number, moments.clone())).collect();
        Self { sent, arrived }
    }

    /// Packets sent.
    pub fn sent(&self) -> usize {
        self.sent.len()
    }

    /// Packets of which no copy arrived.
    pub fn lost(&self) -> usize {
        self.sent.keys().filter(|number| !self.arrived.contains_key(number)).count()
    }

    /// Copies that arrived beside the first.
    pub fn doubled(&self) -> usize {
        self.arrived.values().map(|moments| moments.len() - 1).sum()
    }

    /// The longest time between two arrivals, the first and the last sending counting as arrivals.
    pub fn longest_gap(&self) -> Duration {
        let ends = self.sent.values().next().into_iter().chain(self.sent.values().next_back());
        let mut moments: Vec<Instant> = self.arrived.values().flatten().chain(ends).copied().collect();
        moments.sort();
        moments.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
    }

    /// How long after the first packet left any packet arrived; none when nothing did.
    pub fn first_arrival(&self) -> Option<Duration> {
        let begin = self.sent.values().next()?;
        self.arrived.values().flatten().min().map(|moment| *moment - *begin)
    }

    /// How long after the first packet left the last lost one did; none when nothing was lost. From then on all arrived.
    pub fn last_loss(&self) -> Option<Duration> {
        let begin = self.sent.values().next()?;
        let lost = self.sent.iter().rfind(|(number, _)| !self.arrived.contains_key(number));
        lost.map(|(_, moment)| *moment - *begin)
    }

    /// When the lost packets were sent, as milliseconds after the first packet: runs of neighbours as one.
    fn losses(&self) -> Vec<(u128, u128)> {
        let Some(begin) = self.sent.values().next() else { return Vec::new() };
        let mut runs: Vec<(u64, u128, u128)> = Vec::new();
        for (number, moment) in self.sent.iter().filter(|(number, _)| !self.arrived.contains_key(number)) {
            let at = (*moment - *begin).as_millis();
            match runs.last_mut() {
                Some((last, _, to)) if *last + 1 == *number => (*last, *to) = (*number, at),
                _ => runs.push((*number, at, at)),
            }
        }
        runs.into_iter().map(|(_, from, to)| (from, to)).collect()
    }
}

impl fmt::Display for Trail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sent, lost, doubled, gap) = (self.sent(), self.lost(), self.doubled(), self.longest_gap());
        write!(f, "{sent} sent, {lost} lost, {doubled} doubled, longest gap {gap:.0?}")?;
        for (from, to) in self.losses().iter().take(20) {
            write!(f, "; lost {from}-{to} ms")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_copies_and_gaps_are_told_of_the_whole_and_of_a_part() {
        let begin = crate::deadline::now();
        let at = |milliseconds: u64| begin + Duration::from_millis(milliseconds);
        let mut trail = Trail::default();
        for number in 0..10 {
            trail.leaves(number, at(number * 10));
        }
        for (number, moment) in [(0, 1), (1, 11), (1, 12), (5, 51), (6, 61), (7, 71), (7, 72), (7, 73)] {
            trail.arrives(number, at(moment));
        }
        assert_eq!((trail.sent(), trail.lost(), trail.doubled()), (10, 5, 3));
        assert_eq!(trail.longest_gap(), Duration::from_millis(39));
        assert_eq!(trail.losses(), [(20, 40), (80, 90)]);
        assert_eq!(trail.first_arrival(), Some(Duration::from_millis(1)));
        assert_eq!(trail.last_loss(), Some(Duration::from_millis(90)));

        let part = trail.between(at(20), at(60));
        assert_eq!((part.sent(), part.lost(), part.doubled()), (4, 3, 0));
        assert_eq!(part.longest_gap(), Duration::from_millis(30), "the last sending counts");
        assert_eq!(part.first_arrival(), Some(Duration::from_millis(31)));
        assert_eq!(trail.between(at(200), at(300)).first_arrival(), None);
        assert_eq!(trail.between(at(50), at(80)).last_loss(), None);
    }
}
