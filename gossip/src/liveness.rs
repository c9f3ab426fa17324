//! Whether the far side of a session still answers.
//!
//! A closed stream is news at once; this machine is for silence. `verify` wants a pong within 400 ms: only a pong
//! proves both directions. The backstop costs a ping per 10 idle seconds.
//!
//! Whoever is slow is not gone: a far side that took long to answer before gets a multiple of that, one that says
//! something else meanwhile gets 3 s (where only our direction is cut it hears nothing of us, and hangs up itself), and
//! when this side looks too late itself, the pong may lie unread. Otherwise an overloaded mesh would take its sessions
//! down one after the other, and the handshakes of new ones would keep it overloaded.

use std::time::{Duration, Instant};

/// A suspected session has this long to answer.
pub(crate) const VERIFY_DEADLINE: Duration = Duration::from_millis(400);
/// …or so many times the last round trip, or what this side has lately been late by (as in Lifeguard, Dadgar et al. 2017).
const PATIENCE: u32 = 4;
/// Whoever says something else meanwhile has this long to answer.
const BUSY_DEADLINE: Duration = Duration::from_secs(3);
/// Whoever looks so late after a deadline was kept from looking, and looks again.
const LATE: Duration = Duration::from_millis(100);
/// Nothing heard for so long: ask.
const IDLE: Duration = Duration::from_secs(10);
/// Whoever is being looked at anyway is asked so much earlier: then one look serves many sessions.
const EARLY: Duration = Duration::from_millis(500);
/// Nothing heard for so long: it is gone.
const GONE: Duration = Duration::from_secs(15);

/// What a session's silence calls for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Fine,
    /// Send this ping.
    Ping(u64),
    /// The far side is gone.
    Silent,
}

#[derive(Debug, Clone, Copy)]
struct Ping {
    nonce: u64,
    sent: Instant,
    /// For a verification; the backstop counts from what was heard.
    deadline: Option<Instant>,
}

/// Watches one open session.
#[derive(Debug)]
pub(crate) struct Liveness {
    heard: Instant,
    nonce: u64,
    ping: Option<Ping>,
    rtt: Option<Duration>,
}

impl Liveness {
    pub(crate) fn new(now: Instant) -> Self {
        Self { heard: now, nonce: 0, ping: None, rtt: None }
    }

    /// The last measured round trip.
    pub(crate) fn rtt(&self) -> Option<Duration> {
        self.rtt
    }

    /// Something was heard.
    pub(crate) fn heard(&mut self, now: Instant) {
        self.heard = now;
        if self.ping.is_some_and(|ping| ping.deadline.is_none() && now > ping.sent + IDLE) {
            self.ping = None; // its pong was lost to an error in the far side, not to silence
        }
    }

    /// Asks now, without a deadline of its own: to measure the round trip.
    pub(crate) fn measure(&mut self, now: Instant) -> u64 {
        self.ask(now, None)
    }

    /// Asks now and wants an answer soon; a verification under way goes on with its own deadline. `lag` is how late this
    /// side is itself.
    pub(crate) fn verify(&mut self, lag: Duration, now: Instant) -> Option<u64> {
        if self.ping.is_some_and(|ping| ping.deadline.is_some()) {
            return None;
        }
        Some(self.ask(now, Some(now + self.patience(lag))))
    }

    /// Asks now even if a verification is under way: only an answer to this question counts.
    pub(crate) fn verify_anew(&mut self, lag: Duration, now: Instant) -> u64 {
        let deadline = self.ping.and_then(|ping| ping.deadline).unwrap_or(now + self.patience(lag));
        self.ask(now, Some(deadline))
    }

    /// Takes a pong; true if it answers the last question.
    pub(crate) fn pong(&mut self, nonce: u64, now: Instant) -> bool {
        match self.ping {
            Some(ping) if ping.nonce == nonce => {
                self.rtt = Some(now.saturating_duration_since(ping.sent));
                self.ping = None;
                true
            }
            Some(_) | None => false,
        }
    }

    /// When to look again.
    pub(crate) fn due(&self) -> Instant {
        let backstop = if self.ping.is_some() { GONE } else { IDLE };
        let verification = self.ping.and_then(|ping| ping.deadline);
        verification.map_or(self.heard + backstop, |deadline| deadline.min(self.heard + backstop))
    }

    /// How long an answer may take.
    pub(crate) fn patience(&self, lag: Duration) -> Duration {
        let slowest = self.rtt.unwrap_or_default().max(lag);
        (slowest * PATIENCE).clamp(VERIFY_DEADLINE, GONE)
    }

    /// Looks whether anything is due.
    pub(crate) fn handle_timeout(&mut self, now: Instant) -> Verdict {
        let early = if self.ping.is_none() { EARLY } else { Duration::ZERO };
        if now + early < self.due() {
            return Verdict::Fine;
        }
        if let Some(Ping { deadline: Some(deadline), sent, .. }) = &mut self.ping {
            let looked_late = now > *deadline + LATE && now < self.heard + GONE;
            let busy = self.heard > *sent && now < *sent + BUSY_DEADLINE;
            if looked_late || busy {
                *deadline = now + VERIFY_DEADLINE;
                return Verdict::Fine;
            }
        }
        if self.ping.is_some() { Verdict::Silent } else { Verdict::Ping(self.ask(now, None)) }
    }

    fn ask(&mut self, now: Instant, deadline: Option<Instant>) -> u64 {
        self.nonce += 1;
        self.ping = Some(Ping { nonce: self.nonce, sent: now, deadline });
        self.nonce
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::disallowed_methods, reason = "an origin for virtual time")]
    fn origin() -> Instant {
        Instant::now()
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn whoever_is_slow_gets_longer_and_whoever_looks_late_looks_again() {
        let start = origin();
        let mut liveness = Liveness::new(start);
        let nonce = liveness.measure(start);
        assert!(liveness.pong(nonce, start + SECOND));
        let asked = start + 2 * SECOND;
        liveness.verify(Duration::ZERO, asked).unwrap();
        assert_eq!(liveness.handle_timeout(asked + 3 * SECOND), Verdict::Fine);
        assert_eq!(liveness.handle_timeout(asked + 4 * SECOND), Verdict::Silent);

        let mut liveness = Liveness::new(start);
        liveness.verify(Duration::ZERO, start).unwrap();
        assert_eq!(liveness.due(), start + VERIFY_DEADLINE);
        let mut of_late = Liveness::new(start);
        of_late.verify(SECOND / 4, start).unwrap();
        assert_eq!(of_late.due(), start + SECOND, "whoever is late itself waits longer");
        let late = start + VERIFY_DEADLINE + 2 * LATE;
        assert_eq!(liveness.handle_timeout(late), Verdict::Fine, "the pong may lie unread");
        assert_eq!(liveness.due(), late + VERIFY_DEADLINE);
        assert_eq!(liveness.handle_timeout(late + VERIFY_DEADLINE), Verdict::Silent);
        let mut liveness = Liveness::new(start);
        liveness.verify(Duration::ZERO, start).unwrap();
        assert_eq!(liveness.handle_timeout(start + GONE), Verdict::Silent, "not for ever");
    }

    #[test]
    fn an_idle_session_is_asked_after_ten_seconds_and_given_up_after_fifteen() {
        let start = origin();
        let mut liveness = Liveness::new(start);
        assert_eq!(liveness.handle_timeout(start + 9 * SECOND), Verdict::Fine);
        assert_eq!(liveness.handle_timeout(start + 10 * SECOND), Verdict::Ping(1));
        assert_eq!(liveness.handle_timeout(start + 14 * SECOND), Verdict::Fine);
        assert_eq!(liveness.handle_timeout(start + 15 * SECOND), Verdict::Silent);
    }

    #[test]
    fn a_verification_wants_a_pong_whatever_else_is_heard() {
        let start = origin();
        let mut liveness = Liveness::new(start);
        let nonce = liveness.verify(Duration::ZERO, start).unwrap();
        assert_eq!(liveness.verify(Duration::ZERO, start), None, "one verification at a time");
        assert_eq!(liveness.due(), start + VERIFY_DEADLINE);
        let mut silent = Liveness { ping: liveness.ping, ..Liveness::new(start) };
        assert_eq!(silent.handle_timeout(start + VERIFY_DEADLINE), Verdict::Silent);

        // Whoever speaks is there, and only slow; but not for ever.
        let mut now = start;
        while now < start + BUSY_DEADLINE {
            assert_eq!(liveness.handle_timeout(now), Verdict::Fine);
            liveness.heard(now + VERIFY_DEADLINE / 2);
            now = liveness.due();
        }
        assert_eq!(liveness.handle_timeout(now), Verdict::Silent);
        assert!(liveness.pong(nonce, now));
        assert_eq!(liveness.handle_timeout(now), Verdict::Fine);
    }

    #[test]
    fn only_the_answer_to_the_last_question_counts() {
        let start = origin();
        let mut liveness = Liveness::new(start);
        let old = liveness.measure(start);
        let new = liveness.verify(Duration::ZERO, start).unwrap();
        assert!(!liveness.pong(old, start));
        assert!(liveness.pong(new, start + SECOND / 10));
        assert_eq!(liveness.rtt(), Some(SECOND / 10));
    }
}
