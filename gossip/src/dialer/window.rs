//! How many dials may be under way: a window that grows by one with each and halves when handshakes become slow
//! (additive increase, multiplicative decrease: Chiu and Jain 1989, as in TCP).
//!
//! A handshake costs both ends processor time. When many routers start together, each of them dialling all others at
//! once, the handshakes queue up at all ends, run into their deadlines and are begun anew: the more time is spent,
//! the less comes of it.

use std::time::{Duration, Instant};

/// Dials under way at first…
const FIRST: usize = 8;
/// …at least…
const LEAST: usize = 2;
/// …and at most: what does not answer at all holds its place for seconds.
const MOST: usize = 64;
/// A handshake takes three round trips. It is slow when it takes twice as long as these and this.
const SLACK: Duration = Duration::from_millis(200);
/// The slow handshakes of so long tell of the same queue.
const ONCE: Duration = Duration::from_millis(500);

/// The window of one router.
#[derive(Debug)]
pub(super) struct Window {
    size: usize,
    halved: Option<Instant>,
}

impl Default for Window {
    fn default() -> Self {
        Self { size: FIRST, halved: None }
    }
}

impl Window {
    /// How many may be under way.
    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// A dial came to an end that cost nobody much: nobody was there.
    pub(super) fn widen(&mut self) {
        self.size = (self.size + 1).min(MOST);
    }

    /// A handshake took so long, over a path that the kernels need `connect` to and fro.
    pub(super) fn shook(&mut self, handshake: Duration, connect: Duration, now: Instant) {
        if handshake <= connect * 6 + SLACK {
            return self.widen();
        }
        if self.halved.is_none_or(|then| now >= then + ONCE) {
            self.size = (self.size / 2).max(LEAST);
            self.halved = Some(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "an origin for virtual time")]
    fn the_window_grows_with_each_and_halves_once_for_a_queue() {
        let (now, connect) = (Instant::now(), Duration::from_millis(1));
        let mut window = Window::default();
        for _ in 0..100 {
            window.shook(SLACK, connect, now);
        }
        assert_eq!(window.size(), MOST);
        for _ in 0..10 {
            window.shook(Duration::from_secs(1), connect, now);
        }
        assert_eq!(window.size(), MOST / 2, "they stood in one queue");
        for round in 1..10 {
            window.shook(Duration::from_secs(1), connect, now + ONCE * round);
        }
        assert_eq!(window.size(), LEAST);
        window.shook(Duration::from_secs(1), Duration::from_millis(300), now + ONCE * 20);
        window.widen();
        assert_eq!(window.size(), LEAST + 2, "far is not slow");
    }
}
