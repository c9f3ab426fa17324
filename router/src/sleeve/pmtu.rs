//! How large an IP packet the path takes, found by padded probes (RFC 8899 is the model).
//!
//! Each end searches its own direction. A *round* sends probes of several sizes at once and repeats those that
//! stay unanswered; the largest answered size becomes usable at once. The first round tries the sizes that paths
//! really have; where the answer lies between two of them, further rounds narrow it down to [`STEP`] bytes.
//!
//! ```text
//!            keys complete                       nothing left between low and high
//!  (at rest) ─────────────▶ Searching (rounds) ──────────────────────────────────▶ Settled
//!                               ▲  the usable size fails five times: black hole      │
//!                               ╰───────────────── Checking ◀────────────────────────╯
//!                                                  every minute: usable size and above;
//!                                                  every 2 s while large datagrams go out
//! ```
//!
//! Sizes are bytes of the whole IP packet, as an interface's MTU is.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

/// Sizes worth trying first: the smallest that IPv4 promises, IPv6's, tunnels, Ethernet, cloud and jumbo frames.
const LADDER: [u16; 9] = [576, 1280, 1400, 1420, 1450, 1492, 1500, 8896, 9000];
/// Used until a probe has come back, and where nothing larger passes.
pub const FLOOR: u16 = 296;
/// Used before the first round has ended.
const START: u16 = 576;
/// How exactly the limit is found.
pub const STEP: u16 = 8;
/// How often a probe is sent before its size counts as too large.
const TRIES: u8 = 3;
/// How often before a size that used to pass counts as a black hole: mere loss must not look like one.
const CHECK_TRIES: u8 = 5;
const FASTEST_TRY: Duration = Duration::from_millis(100);
const CHECK: Duration = Duration::from_secs(60);
const BUSY_CHECK: Duration = Duration::from_secs(2);
/// The most probes of one round.
const WIDTH: usize = LADDER.len() + 1;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Resting,
    Searching,
    Checking,
    Settled,
}

/// The search of one direction of one path.
pub struct PathMtu {
    overhead: u16,
    usable: u16,
    phase: Phase,
    /// Proven in this search, and the smallest that failed in it.
    low: u16,
    high: u16,
    round: u32,
    /// The sizes of this round that are not answered yet, ascending.
    waiting: Vec<u16>,
    tries: u8,
    next: Option<Instant>,
    /// When the whole range is looked at again.
    full: Option<Instant>,
    large_sent: bool,
    shrunk: u64,
}

/// Probes to send now: round and sizes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probes {
    /// The round they belong to.
    pub round: u32,
    /// Bytes of the IP packets.
    pub sizes: Vec<u16>,
}

impl PathMtu {
    /// A path nothing is known about.
    pub fn new(address: SocketAddr) -> Self {
        Self {
            overhead: overhead(address),
            usable: START,
            phase: Phase::Resting,
            low: FLOOR,
            high: u16::MAX,
            round: 0,
            waiting: Vec::with_capacity(WIDTH),
            tries: 0,
            next: None,
            full: None,
            large_sent: false,
            shrunk: 0,
        }
    }

    /// Bytes of the largest IP packet that is known to pass.
    pub fn usable(&self) -> u16 {
        self.usable
    }

    /// Bytes of UDP payload that fit into it.
    pub fn payload(&self) -> usize {
        usize::from(self.usable - self.overhead)
    }

    /// Bytes of UDP payload in an IP packet of this size.
    pub fn payload_of(&self, size: u16) -> usize {
        usize::from(size.saturating_sub(self.overhead))
    }

    /// How often the path was found to take less than before.
    pub fn shrunk(&self) -> u64 {
        self.shrunk
    }

    /// Whether the search has come to an end.
    pub fn is_settled(&self) -> bool {
        matches!(self.phase, Phase::Settled | Phase::Checking)
    }

    /// When the search next wants to be called.
    pub fn deadline(&self) -> Option<Instant> {
        self.next
    }

    /// Begins from nothing: new keys, another address, or a black hole.
    pub fn restart(&mut self, address: SocketAddr, now: Instant) {
        self.overhead = overhead(address);
        self.usable = START;
        self.search(FLOOR, u16::MAX, now);
    }

    /// A datagram of this many bytes of UDP payload went out; large ones are worth checking more often.
    pub fn sent(&mut self, payload: usize, now: Instant) {
        if self.phase != Phase::Settled
            || self.large_sent
            || payload + usize::from(self.overhead) <= START.into()
        {
            return;
        }
        self.large_sent = true;
        self.next = self.next.map(|next| next.min(now + BUSY_CHECK));
    }

    /// Time passed: what to send.
    pub fn timeout(&mut self, rtt: Option<Duration>, now: Instant) -> Option<Probes> {
        if self.next.is_none_or(|next| now < next) {
            return None;
        }
        match self.phase {
            Phase::Resting => return None,
            Phase::Settled => self.check(now),
            Phase::Searching if self.tries >= TRIES || self.waiting.is_empty() => self.close(now),
            Phase::Checking if self.tries >= CHECK_TRIES || self.waiting.is_empty() => self.close(now),
            Phase::Searching | Phase::Checking => {}
        }
        if self.phase == Phase::Settled {
            return None;
        }
        self.tries += 1;
        let gap = rtt.map_or(FASTEST_TRY, |rtt| (rtt * 3).max(FASTEST_TRY));
        self.next = Some(now + gap.min(BUSY_CHECK));
        Some(Probes { round: self.round, sizes: self.waiting.clone() })
    }

    /// A probe came back: whether the usable size changed.
    pub fn answered(&mut self, round: u32, size: u16, now: Instant) -> bool {
        if round != self.round || !self.waiting.contains(&size) {
            return false;
        }
        // What is larger goes on being tried; what is smaller is proven with it.
        self.waiting.retain(|waiting| *waiting > size);
        self.low = self.low.max(size);
        if self.waiting.is_empty() {
            self.next = Some(now);
        }
        let grown = size > self.usable;
        self.usable = self.usable.max(size);
        grown
    }

    /// The kernel refused a datagram of this payload as too large for the interface: whether the usable size changed.
    pub fn refused(&mut self, payload: usize, now: Instant) -> bool {
        let size = u16::try_from(payload).unwrap_or(u16::MAX).saturating_add(self.overhead);
        let shrinks = size <= self.usable && self.phase != Phase::Resting;
        if shrinks {
            self.shrink(now);
        }
        self.waiting.retain(|waiting| *waiting < size);
        self.high = self.high.min(size);
        if self.waiting.is_empty() && matches!(self.phase, Phase::Searching | Phase::Checking) {
            self.next = Some(now);
        }
        shrinks
    }

    /// The path was silent for a moment: what was concluded meanwhile may be wrong, so look at it all again.
    pub fn recheck(&mut self, now: Instant) {
        if self.phase != Phase::Resting {
            (self.phase, self.full, self.next) = (Phase::Settled, Some(now), Some(now));
        }
    }

    fn search(&mut self, low: u16, high: u16, now: Instant) {
        (self.phase, self.low, self.high) = (Phase::Searching, low, high);
        self.full = Some(now + CHECK);
        self.open(LADDER.iter().copied().filter(|size| *size > low && *size < high), now);
    }

    fn open(&mut self, sizes: impl Iterator<Item = u16>, now: Instant) {
        self.round = self.round.wrapping_add(1);
        self.waiting.clear();
        self.waiting.extend(sizes);
        self.tries = 0;
        self.next = Some(now);
    }

    /// A look at whether the usable size still passes, and once a minute at whether more does.
    fn check(&mut self, now: Instant) {
        let whole = self.full.is_none_or(|full| now >= full);
        if whole {
            self.full = Some(now + CHECK);
        }
        self.phase = Phase::Checking;
        let usable = self.usable;
        (self.low, self.high) = (FLOOR, if whole { u16::MAX } else { usable + 1 });
        let above = LADDER.iter().copied().filter(move |size| whole && *size > usable);
        self.open(std::iter::once(usable).chain(above), now);
    }

    /// The round has ended, by answers or by patience.
    fn close(&mut self, now: Instant) {
        if self.phase == Phase::Checking && self.low < self.usable {
            self.shrink(now);
            return;
        }
        if let Some(failed) = self.waiting.first() {
            self.high = self.high.min(*failed);
        }
        if self.low == FLOOR && self.phase == Phase::Searching && self.usable > FLOOR {
            self.usable = FLOOR;
        }
        let gap = self.high.saturating_sub(self.low);
        // Between Ethernet and jumbo frames nothing common lies, and a gap of a few bytes is not worth a packet.
        if gap <= STEP || (self.low >= 1500 && self.high >= 8896) || self.high == u16::MAX {
            self.settle(now);
            return;
        }
        self.phase = Phase::Searching;
        let (low, quarter) = (self.low, (gap / 4).max(1));
        self.open((1..4).map(move |part| low + quarter * part), now);
    }

    fn settle(&mut self, now: Instant) {
        self.phase = Phase::Settled;
        self.waiting.clear();
        self.large_sent = false;
        let full = *self.full.get_or_insert(now + CHECK);
        self.next = Some(full.max(now));
    }

    fn shrink(&mut self, now: Instant) {
        self.shrunk += 1;
        // The old size is tried again with the rest: it may have been mere loss.
        let high = self.usable.saturating_add(1);
        self.usable = START.min(self.usable);
        self.search(FLOOR, high, now);
    }
}

/// Bytes of IP and UDP header towards this address.
fn overhead(address: SocketAddr) -> u16 {
    if address.is_ipv4() { 28 } else { 48 }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "virtual time starts somewhere")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RTT: Duration = Duration::from_millis(1);

    struct Path {
        mtu: PathMtu,
        now: Instant,
        sent: usize,
    }

    impl Path {
        fn new() -> Self {
            let (mut mtu, now) = (PathMtu::new("10.0.0.1:1".parse().unwrap()), Instant::now());
            mtu.restart("10.0.0.1:1".parse().unwrap(), now);
            Self { mtu, now, sent: 0 }
        }

        /// Lets virtual time pass on a path that takes packets of `limit` bytes.
        fn run(&mut self, limit: u16, time: Duration) {
            let end = self.now + time;
            while let Some(at) = self.mtu.deadline().filter(|at| *at < end) {
                self.now = self.now.max(at);
                let Some(probes) = self.mtu.timeout(Some(RTT), self.now) else { continue };
                self.sent += probes.sizes.len();
                for size in probes.sizes.into_iter().filter(|size| *size <= limit) {
                    self.mtu.answered(probes.round, size, self.now + RTT);
                }
            }
            self.now = end;
        }
    }

    proptest! {
        #[test]
        fn whatever_the_path_takes_is_found_within_three_seconds(limit in 300_u16..=1500) {
            let mut path = Path::new();
            path.run(limit, Duration::from_secs(3));
            prop_assert!(path.mtu.is_settled());
            prop_assert!(path.mtu.usable() <= limit && path.mtu.usable() + STEP >= limit, "{}", path.mtu.usable());
        }

        #[test]
        fn a_path_that_changes_is_followed_both_ways(first in 300_u16..=1500, second in 300_u16..=1500) {
            let mut path = Path::new();
            path.run(first, Duration::from_secs(3));
            path.run(second, Duration::from_secs(70));
            prop_assert!(path.mtu.usable() <= second && path.mtu.usable() + STEP >= second, "{}", path.mtu.usable());
        }
    }

    #[test]
    fn ethernet_and_jumbo_paths_are_found_within_a_round_trip() {
        for limit in [1500, 9000] {
            let mut path = Path::new();
            path.run(limit, RTT * 3);
            assert_eq!(path.mtu.usable(), limit);
        }
    }

    #[test]
    fn while_large_datagrams_go_out_a_black_hole_is_found_within_three_seconds() {
        let mut path = Path::new();
        path.run(1500, Duration::from_secs(3));
        let from = path.now;
        while path.mtu.usable() > 1300 {
            path.mtu.sent(1472, path.now);
            path.run(1300, Duration::from_millis(100));
            assert!(path.now - from < Duration::from_secs(3));
        }
        path.run(1300, Duration::from_secs(2));
        assert_eq!(path.mtu.shrunk(), 1);
        assert!(path.mtu.usable() > 1300 - STEP);
    }

    #[test]
    fn a_settled_idle_path_costs_a_few_probes_a_minute() {
        let mut path = Path::new();
        path.run(1500, Duration::from_secs(3));
        let before = path.sent;
        path.run(1500, Duration::from_secs(600));
        assert!(path.sent - before <= 10 * 12, "{}", path.sent - before);
    }

    #[test]
    fn what_the_interface_refuses_needs_no_second_try() {
        let mut path = Path::new();
        let probes = path.mtu.timeout(None, path.now).unwrap();
        assert!(!path.mtu.refused(path.mtu.payload_of(8896), path.now));
        assert!(path.mtu.answered(probes.round, 1500, path.now));
        path.run(1500, RTT);
        assert_eq!((path.mtu.usable(), path.mtu.is_settled()), (1500, true));
        assert!(path.mtu.refused(1472, path.now));
        path.run(1400, Duration::from_secs(3));
        assert_eq!(path.mtu.usable(), 1400);
    }
}
