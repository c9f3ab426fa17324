//! Durable before visible: what depends on a change waits until the change is on disk.
//!
//! A gate between the node and the world. `change` says that the state differs from the disk; whatever is
//! passed through the gate afterwards is held until the shell reports the write. Replies, kernel jobs and
//! address messages go through it; frames, heartbeats and topology do not, so a full disk stops
//! promises and nothing else.
//!
//! ```text
//!   Clean ──change──► Dirty ──poll──► Writing ──persisted──► Clean (held things go out, in order)
//!                       ▲                │ └─change──► Writing, dirty again
//!                       └──── failed ────┘   (retried after RETRY; replies become errors meanwhile)
//! ```
//!
//! A change that a restart would find out by itself need not be waited for: `note` has it written with the next
//! change, or soon, and holds nothing back. `hasten` does the same at once, unless a write was just begun: what a mesh
//! that comes up has to say is written together.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How long after a failed write the next is tried.
const RETRY: Duration = Duration::from_secs(1);

/// How long a change that nobody waits for may stay unwritten: while a mesh comes up there are several a second.
const SOON: Duration = Duration::from_secs(1);

/// The gate; `T` is what can be held.
#[derive(Debug)]
pub(super) struct Durability<T> {
    dirty: bool,
    writing: bool,
    retry_at: Option<Instant>,
    /// When a change that nobody waits for is written at the latest.
    noted: Option<Instant>,
    /// When the last write began.
    begun: Option<Instant>,
    /// What waits for the write under way, then for the one after it.
    held: VecDeque<T>,
    later: VecDeque<T>,
}

impl<T> Default for Durability<T> {
    fn default() -> Self {
        Self {
            dirty: false,
            writing: false,
            retry_at: None,
            noted: None,
            begun: None,
            held: VecDeque::new(),
            later: VecDeque::new(),
        }
    }
}

impl<T> Durability<T> {
    /// The state has changed and is not on disk yet.
    pub(super) fn change(&mut self) {
        self.dirty = true;
    }

    /// The state has changed in a way that need not be on disk before anything else goes on.
    pub(super) fn note(&mut self, now: Instant) {
        self.noted.get_or_insert(now + SOON);
    }

    /// The same, and the sooner it is on disk the better: at once, unless a write began less than `pace` ago.
    pub(super) fn hasten(&mut self, pace: Duration, now: Instant) {
        let at = self.begun.map_or(now, |begun| (begun + pace).max(now));
        self.noted = Some(self.noted.map_or(at, |noted| noted.min(at)));
    }

    /// Passes a thing through: at once when everything is on disk, else after the write it depends on.
    pub(super) fn pass(&mut self, thing: T) -> Option<T> {
        if self.dirty && self.writing {
            self.later.push_back(thing);
            None
        } else if self.dirty || self.writing {
            self.held.push_back(thing);
            None
        } else {
            Some(thing)
        }
    }

    /// Whether a write has to be started now; answers yes once per write.
    pub(super) fn poll_write(&mut self, now: Instant) -> bool {
        let changed = self.dirty || self.noted.is_some_and(|at| at <= now);
        let due = changed && !self.writing && self.retry_at.is_none_or(|at| at <= now);
        if due {
            (self.dirty, self.writing, self.retry_at, self.noted) = (false, true, None, None);
            self.begun = Some(now);
        }
        due
    }

    /// When something is to be written, or to be tried again.
    #[must_use]
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        // During a write there is nothing to wait for but its end, which asks again.
        self.retry_at.or(self.noted.filter(|_| !self.writing))
    }

    /// Whether the last write failed.
    #[must_use]
    pub(super) fn is_failing(&self) -> bool {
        self.retry_at.is_some()
    }

    /// The write succeeded: what waited for it goes out, in order.
    pub(super) fn written(&mut self) -> VecDeque<T> {
        self.writing = false;
        std::mem::replace(&mut self.held, std::mem::take(&mut self.later))
    }

    /// The write failed: gives what `takes` matches to the caller (calls that must hear of it), keeps
    /// the rest in order, and tries again later.
    pub(super) fn failed(&mut self, now: Instant, takes: impl Fn(&T) -> bool) -> Vec<T> {
        (self.dirty, self.writing, self.retry_at) = (true, false, Some(now + RETRY));
        self.held.append(&mut self.later);
        let (taken, kept): (Vec<T>, Vec<T>) = self.held.drain(..).partition(takes);
        self.held = kept.into();
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Instant {
        #[expect(clippy::disallowed_methods, reason = "any instant will do, time is moved by hand")]
        Instant::now()
    }

    #[test]
    fn with_nothing_changed_things_pass_at_once() {
        let mut gate = Durability::default();
        assert_eq!(gate.pass(1), Some(1));
    }

    #[test]
    fn what_follows_a_change_waits_for_the_write() {
        let (mut gate, now) = (Durability::default(), now());
        gate.change();
        assert_eq!(gate.pass(1), None);
        assert!(gate.poll_write(now));
        assert!(!gate.poll_write(now), "one write at a time");
        assert_eq!(gate.written(), [1]);
        assert_eq!(gate.pass(2), Some(2));
    }

    #[test]
    fn a_change_during_a_write_holds_only_what_came_after_it() {
        let (mut gate, now) = (Durability::default(), now());
        gate.change();
        gate.pass(1);
        assert!(gate.poll_write(now));
        gate.pass(2);
        gate.change();
        gate.pass(3);
        assert_eq!(gate.written(), [1, 2]);
        assert!(gate.poll_write(now));
        assert_eq!(gate.written(), [3]);
    }

    #[test]
    fn what_is_only_noted_holds_nothing_back_and_is_written_soon_or_with_the_next_change() {
        let (mut gate, now) = (Durability::default(), now());
        gate.note(now);
        assert_eq!(gate.pass(1), Some(1));
        assert!(!gate.poll_write(now));
        assert_eq!(gate.poll_timeout(), Some(now + SOON));
        assert!(gate.poll_write(now + SOON) && gate.poll_timeout().is_none());
        assert!(gate.written().is_empty());
        gate.note(now);
        gate.change();
        assert_eq!(gate.poll_timeout(), Some(now + SOON));
        assert_eq!(gate.pass(2), None);
        assert!(gate.poll_write(now));
        gate.note(now);
        assert_eq!(gate.poll_timeout(), None, "a slow write is not asked for again and again");
        assert_eq!((gate.written(), gate.poll_timeout()), (VecDeque::from([2]), Some(now + SOON)));
        assert!(gate.poll_write(now + SOON));
        assert!(gate.failed(now, |_: &i32| true).is_empty());
        assert_eq!(gate.poll_timeout(), Some(now + RETRY), "nothing is lost");
    }

    #[test]
    fn what_is_hastened_is_written_at_once_and_what_follows_closely_together() {
        let (mut gate, now, pace) = (Durability::default(), now(), Duration::from_millis(100));
        gate.note(now);
        gate.hasten(pace, now);
        assert!(gate.poll_write(now) && gate.pass(1).is_none(), "what comes during the write waits for it");
        for later in [10, 60] {
            gate.hasten(pace, now + Duration::from_millis(later));
        }
        assert_eq!(gate.written(), [1]);
        assert_eq!((gate.pass(2), gate.poll_timeout()), (Some(2), Some(now + pace)));
        assert!(!gate.poll_write(now + pace / 2) && gate.poll_write(now + pace));
        gate.written();
        gate.hasten(pace, now + pace * 3);
        assert!(gate.poll_write(now + pace * 3));
    }

    #[test]
    fn a_failed_write_hands_back_the_replies_keeps_the_rest_and_is_tried_again() {
        let (mut gate, now) = (Durability::default(), now());
        gate.change();
        gate.pass(1);
        gate.pass(2);
        assert!(gate.poll_write(now));
        assert_eq!(gate.failed(now, |thing| *thing == 1), [1]);
        assert!(!gate.poll_write(now));
        assert_eq!(gate.poll_timeout(), Some(now + RETRY));
        assert!(gate.poll_write(now + RETRY));
        assert_eq!(gate.written(), [2]);
    }
}
