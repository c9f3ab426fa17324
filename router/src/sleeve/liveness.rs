//! Is the other end there? Heartbeats, and what follows when one stays unanswered.
//!
//! ```text
//!             keys complete          echo                nothing within 150..300 ms
//!  Waiting ────────────────▶ Trying ──────▶ Up ──────────────────────────────────────▶ Suspect
//!                              │            ▲ ▲               anything heard             │
//!                              │            │ ╰──────────────────────────────────────────┤
//!                              │            │ echo                                       │ three retries,
//!                              ╰─────────▶ Down ◀────────────────────────────────────────╯ 100 ms apart
//!                               1.5 s
//! ```
//!
//! Waiting for keys, too, ends in Down after 1.5 s; a new session leads from anywhere to Trying.
//!
//! A link that carried data in the last 10 s beats every 250 ms, an idle one every second: a silent link is down
//! after 1.45 s at most (1 s + 150 ms + 3 × 100 ms), 1.6 s where the round trip is long. Anything authentic that
//! arrives is a sign of life, unless the other end says that it does not hear *us*: then only an echo counts, so
//! a path that is broken in one direction is seen at both ends.

use std::time::{Duration, Instant};

/// Between heartbeats while the link carries data.
pub const BUSY_BEAT: Duration = Duration::from_millis(250);
/// Between heartbeats otherwise.
pub const IDLE_BEAT: Duration = Duration::from_secs(1);
/// Between heartbeats of an idle link in a large mesh, which rests on session news.
pub const RARE_BEAT: Duration = Duration::from_secs(10);
/// A link is due so much earlier when its machine is called for another anyway: then a hundred idle links are not a
/// hundred awakenings, but four.
pub const RARE_EARLY: Duration = Duration::from_millis(2500);
/// How long a link counts as carrying data after the last frame.
pub const BUSY_FOR: Duration = Duration::from_secs(10);
/// Between the retries after a first miss.
pub const RETRY_GAP: Duration = Duration::from_millis(100);
/// How many retries before the link is down.
pub const RETRIES: u8 = 3;
const FASTEST_MISS: Duration = Duration::from_millis(150);
const SLOWEST_MISS: Duration = Duration::from_millis(300);
/// How long a new link may try before it is reported as down.
const TRYING: Duration = Duration::from_millis(1500);
/// Heartbeats whose echo can still be timed.
const REMEMBERED: usize = 8;

/// Where a link stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Keys are missing.
    #[default]
    Waiting,
    /// Keys are there, no echo yet.
    Trying,
    /// The other end answers.
    Up,
    /// A heartbeat stayed unanswered; retries are under way.
    Suspect,
    /// No answer; tried once a second.
    Down,
}

/// What changed, to be told to the control half.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// The link works (again).
    Up,
    /// The first heartbeat was missed.
    Suspect,
    /// The link does not work.
    Down,
}

/// What a timeout asks for.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Due {
    /// Send this heartbeat.
    pub beat: Option<u32>,
    /// Tell this.
    pub change: Option<Change>,
}

/// The heartbeat machine of one link.
pub struct Liveness {
    state: State,
    since: Instant,
    next: Option<Instant>,
    /// The oldest unanswered heartbeat: when it was sent.
    unanswered: Option<Instant>,
    sent: [(u32, Option<Instant>); REMEMBERED],
    sequence: u32,
    retries: u8,
    heard: Option<Instant>,
    carried: Option<Instant>,
    /// The other end says it does not hear us.
    deaf: bool,
    /// The next echo is to be reported, though the link is up.
    proving: bool,
    rtt: Option<Duration>,
    misses: u64,
}

impl Liveness {
    /// A link without keys.
    pub fn new(now: Instant) -> Self {
        Self {
            state: State::Waiting,
            since: now,
            next: Some(now + TRYING),
            unanswered: None,
            sent: [(0, None); REMEMBERED],
            sequence: 0,
            retries: 0,
            heard: None,
            carried: None,
            deaf: false,
            proving: false,
            rtt: None,
            misses: 0,
        }
    }

    /// Where the link stands.
    pub fn state(&self) -> State {
        self.state
    }

    /// The smoothed round trip, once there was one.
    pub fn rtt(&self) -> Option<Duration> {
        self.rtt
    }

    /// How many heartbeats stayed unanswered.
    pub fn misses(&self) -> u64 {
        self.misses
    }

    /// Whether we hear the other end; it is told so in every heartbeat.
    pub fn hears(&self, now: Instant) -> bool {
        self.heard.is_some_and(|heard| now < heard + IDLE_BEAT * 2)
    }

    /// When the link next wants to be called.
    pub fn deadline(&self) -> Option<Instant> {
        let miss = self.unanswered.filter(|_| self.state == State::Up).map(|sent| sent + self.patience());
        [self.next, miss].into_iter().flatten().min()
    }

    /// Both keys are there, or new ones are: say so at once.
    pub fn start(&mut self, now: Instant) {
        match self.state {
            State::Waiting | State::Down => self.enter(State::Trying, now),
            State::Trying | State::Up | State::Suspect => {}
        }
        self.next = Some(now);
    }

    /// Another session with the same neighbour: it may have been restarted, so it must answer anew.
    pub fn renew(&mut self, now: Instant) {
        if self.state != State::Waiting {
            self.enter(State::Trying, now);
            self.next = Some(now);
        }
    }

    /// Asks at once; the echo is reported as a rise even of a link that is up.
    pub fn prove(&mut self, now: Instant) {
        if self.state == State::Up {
            (self.proving, self.next) = (true, Some(now));
        }
    }

    /// A frame went out or came in.
    pub fn carried(&mut self, now: Instant) {
        self.carried = Some(now);
    }

    /// Whether frames passed lately.
    pub fn is_busy(&self, now: Instant) -> bool {
        self.carried.is_some_and(|carried| now < carried + BUSY_FOR)
    }

    /// Something authentic arrived.
    pub fn heard(&mut self, now: Instant) -> Option<Change> {
        self.heard = Some(now);
        if self.state == State::Suspect && !self.deaf {
            return Some(self.rise(now));
        }
        None
    }

    /// A heartbeat of the other end arrived; `hears` is what it says about us.
    pub fn beaten(&mut self, hears: bool) {
        self.deaf = !hears;
    }

    /// The echo of a heartbeat arrived.
    pub fn echoed(&mut self, sequence: u32, now: Instant) -> Option<Change> {
        let slot = &mut self.sent[slot(sequence)];
        let (_, sent) = std::mem::replace(slot, (slot.0, slot.1.filter(|_| slot.0 != sequence)));
        let sent = sent.filter(|_| slot.0 == sequence)?;
        let sample = now.saturating_duration_since(sent);
        self.rtt = Some(self.rtt.map_or(sample, |rtt| (rtt * 7 + sample) / 8));
        self.deaf = false;
        self.unanswered = None;
        match self.state {
            State::Waiting => None,
            State::Up => std::mem::take(&mut self.proving).then_some(Change::Up),
            State::Trying | State::Suspect | State::Down => Some(self.rise(now)),
        }
    }

    /// Time passed; `rare` spares heartbeats on idle links of a large mesh.
    pub fn timeout(&mut self, rare: bool, now: Instant) -> Due {
        let mut due = Due::default();
        if self.state == State::Up && self.unanswered.is_some_and(|sent| now >= sent + self.patience()) {
            due.change = self.missed(now);
        }
        let early =
            if rare && self.state == State::Up && !self.is_busy(now) { RARE_EARLY } else { Duration::ZERO };
        if self.next.is_none_or(|next| now + early < next) {
            return due;
        }
        match self.state {
            State::Suspect if self.retries >= RETRIES => due.change = Some(self.fall(now)),
            State::Trying if now >= self.since + TRYING => due.change = Some(self.fall(now)),
            State::Waiting => due.change = Some(self.fall(now)),
            State::Suspect => self.retries += 1,
            State::Trying | State::Up | State::Down => {}
        }
        due.beat = Some(self.beat(rare, now));
        due
    }

    fn missed(&mut self, now: Instant) -> Option<Change> {
        let sent = self.unanswered.take()?;
        if !self.deaf && self.heard.is_some_and(|heard| heard >= sent) {
            return None;
        }
        self.misses += 1;
        self.enter(State::Suspect, now);
        self.next = Some(now);
        Some(Change::Suspect)
    }

    fn beat(&mut self, rare: bool, now: Instant) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        self.sent[slot(self.sequence)] = (self.sequence, Some(now));
        self.unanswered = self.unanswered.or(Some(now));
        let gap = match self.state {
            State::Suspect => RETRY_GAP,
            State::Trying => BUSY_BEAT,
            State::Waiting | State::Down => IDLE_BEAT,
            State::Up if self.is_busy(now) => BUSY_BEAT,
            State::Up if rare => RARE_BEAT,
            State::Up => IDLE_BEAT,
        };
        self.next = Some(now + gap);
        self.sequence
    }

    fn rise(&mut self, now: Instant) -> Change {
        self.enter(State::Up, now);
        Change::Up
    }

    fn fall(&mut self, now: Instant) -> Change {
        self.enter(State::Down, now);
        Change::Down
    }

    fn enter(&mut self, state: State, now: Instant) {
        (self.state, self.since, self.retries, self.unanswered) = (state, now, 0, None);
        self.proving = false;
    }

    /// How long an echo may take: 150 ms or four round trips, at most 300 ms or two round trips.
    fn patience(&self) -> Duration {
        let rtt = self.rtt.unwrap_or_default();
        (rtt * 4).clamp(FASTEST_MISS, SLOWEST_MISS.max(rtt * 2))
    }
}

fn slot(sequence: u32) -> usize {
    sequence as usize % REMEMBERED
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "virtual time starts somewhere")]
mod tests {
    use super::*;

    const RTT: Duration = Duration::from_micros(200);

    /// Runs the machine until `until`; echoes come back while `answered` says so. Returns what changed, and when.
    fn run(
        live: &mut Liveness,
        from: Instant,
        until: Instant,
        answered: impl Fn(Instant) -> bool,
    ) -> Vec<(Duration, Change)> {
        let mut changes = Vec::new();
        while let Some(at) = live.deadline().filter(|at| *at < until) {
            let due = live.timeout(false, at);
            changes.extend(due.change.map(|change| (at - from, change)));
            if let Some(sequence) = due.beat.filter(|_| answered(at)) {
                let back = at + RTT;
                changes.extend(live.heard(back).map(|change| (back - from, change)));
                changes.extend(live.echoed(sequence, back).map(|change| (back - from, change)));
            }
        }
        changes
    }

    #[test]
    fn in_a_large_mesh_an_idle_link_goes_with_another_that_is_due() {
        let start = Instant::now();
        let mut live = Liveness::new(start);
        live.start(start);
        let beat = live.timeout(true, start).beat.unwrap();
        live.echoed(beat, start + RTT);
        let up = live.timeout(true, start + BUSY_BEAT).beat.unwrap();
        live.echoed(up, start + BUSY_BEAT + RTT);
        let due = start + BUSY_BEAT + RARE_BEAT;
        assert_eq!(live.deadline(), Some(due));
        assert_eq!(live.timeout(true, due - RARE_EARLY - RTT).beat, None);
        assert_eq!(live.timeout(false, due - RARE_EARLY).beat, None, "in a small mesh nobody is early");
        let early = live.timeout(true, due - RARE_EARLY).beat.unwrap();
        live.echoed(early, due - RARE_EARLY + RTT);
        assert_eq!(live.deadline(), Some(due - RARE_EARLY + RARE_BEAT), "from now on they are due together");
    }

    #[test]
    fn an_idle_link_that_falls_silent_is_down_within_a_second_and_a_half_and_comes_back() {
        let start = Instant::now();
        let second = Duration::from_secs(1);
        let mut live = Liveness::new(start);
        live.start(start);
        let silent = start + second * 5 + RTT * 2;
        let heals = start + second * 9;
        let changes = run(&mut live, start, start + second * 12, |at| at < silent || at >= heals);
        let [(up, Change::Up), (suspect, Change::Suspect), (down, Change::Down), (again, Change::Up)] =
            changes[..]
        else {
            panic!("{changes:?}")
        };
        assert_eq!(up, RTT);
        let quiet = silent - start;
        assert!(suspect - quiet <= Duration::from_millis(1150), "{:?}", suspect - quiet);
        assert!(down - quiet <= Duration::from_millis(1450), "{:?}", down - quiet);
        assert!(again >= heals - start && again - (heals - start) <= second + RTT);
    }

    #[test]
    fn a_link_that_never_answers_is_reported_down_once() {
        let start = Instant::now();
        let mut live = Liveness::new(start);
        live.start(start);
        let changes = run(&mut live, start, start + Duration::from_secs(20), |_| false);
        assert_eq!(changes, [(Duration::from_millis(1500), Change::Down)]);
    }

    #[test]
    fn a_link_asked_for_proof_answers_at_once_and_reports_it_once() {
        let start = Instant::now();
        let mut live = Liveness::new(start);
        live.start(start);
        let asked = start + Duration::from_millis(400);
        run(&mut live, start, asked, |_| true);
        live.prove(asked);
        let changes = run(&mut live, asked, asked + Duration::from_secs(5), |_| true);
        assert_eq!(changes, [(RTT, Change::Up)]);
        live.prove(asked + Duration::from_secs(5));
        let silent = run(&mut live, asked, asked + Duration::from_secs(9), |_| false);
        assert!(!silent.iter().any(|(_, change)| *change == Change::Up), "{silent:?}");
    }

    #[test]
    fn one_lost_heartbeat_is_a_suspicion_and_no_more() {
        let start = Instant::now();
        let mut live = Liveness::new(start);
        live.start(start);
        let lost = start + Duration::from_secs(3);
        let changes =
            run(&mut live, start, start + Duration::from_secs(8), |at| at < lost || at > lost + SLOWEST_MISS);
        let changes: Vec<_> = changes.into_iter().map(|(_, change)| change).collect();
        assert_eq!(changes, [Change::Up, Change::Suspect, Change::Up]);
    }

    #[test]
    fn traffic_from_the_other_end_counts_as_life_unless_it_says_it_is_deaf() {
        let start = Instant::now();
        let mut live = Liveness::new(start);
        live.start(start);
        run(&mut live, start, start + RTT, |_| true);
        for (hears, expected) in [(true, None), (false, Some(Change::Suspect))] {
            let mut changes = Vec::new();
            for _ in 0..40 {
                let at = live.deadline().unwrap();
                live.heard(at);
                live.beaten(hears);
                changes.extend(live.timeout(false, at).change);
            }
            assert_eq!(changes.first().copied(), expected, "{changes:?}");
        }
    }
}
