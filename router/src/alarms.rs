//! Who wants to be called when: the deadlines of many, of which only the next and those that are due are looked at.
//!
//! A machine with many parts (neighbours, links) sets a part's alarm whenever it has touched the part. So what a
//! deadline costs does not grow with the parts that have nothing to do.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

/// At most one deadline for each of many.
#[derive(Clone, Debug)]
pub struct Alarms<K> {
    of: BTreeMap<K, Instant>,
    queue: BTreeSet<(Instant, K)>,
}

impl<K> Default for Alarms<K> {
    fn default() -> Self {
        Self { of: BTreeMap::new(), queue: BTreeSet::new() }
    }
}

impl<K: Copy + Ord> Alarms<K> {
    /// From now on this is when `who` wants to be called; `None`: never.
    pub fn set(&mut self, who: K, when: Option<Instant>) {
        let before = match when {
            Some(when) => self.of.insert(who, when),
            None => self.of.remove(&who),
        };
        if before == when {
            return;
        }
        if let Some(before) = before {
            self.queue.remove(&(before, who));
        }
        if let Some(when) = when {
            self.queue.insert((when, who));
        }
    }

    /// The first deadline of all.
    #[must_use]
    pub fn next(&self) -> Option<Instant> {
        self.queue.first().map(|(when, _)| *when)
    }

    /// Whose deadlines have come, in their own order. They stay due until they are set anew.
    #[must_use]
    pub fn due(&self, now: Instant) -> Vec<K> {
        let mut due: Vec<K> =
            self.queue.iter().take_while(|(when, _)| *when <= now).map(|(_, who)| *who).collect();
        due.sort_unstable();
        due
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "virtual time starts somewhere")]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    proptest! {
        #[test]
        fn the_next_and_the_due_are_those_of_a_plain_table(
            steps in proptest::collection::vec((0_u8..6, proptest::option::of(0_u64..20)), 0..60),
            now in 0_u64..20,
        ) {
            let start = Instant::now();
            let at = |seconds| start + Duration::from_secs(seconds);
            let (mut alarms, mut plain) = (Alarms::default(), BTreeMap::new());
            for (who, when) in steps {
                alarms.set(who, when.map(at));
                plain.insert(who, when.map(at));
                prop_assert_eq!(alarms.next(), plain.values().flatten().min().copied());
            }
            let due = plain.iter().filter(|(_, when)| when.is_some_and(|when| when <= at(now)));
            prop_assert_eq!(alarms.due(at(now)), due.map(|(who, _)| *who).collect::<Vec<_>>());
        }
    }
}
