//! The keys of one link: whose they are, how long they live, and why no counter is ever used twice.
//!
//! A receive key is drawn at random by the receiver, announced once, and used by one sender only. Its counter lives
//! in the one [`SendKey`] that the sender makes of the announcement; that is not copied, not stored and not made
//! again (`announcement.rs` refuses a generation it has seen). So (key, counter) cannot repeat, whatever restarts.
//!
//! Rotation makes before it breaks: the receiver announces a new key and accepts both until the first packet under
//! the new one has come, plus [`GRACE`] for packets still under way.

use super::{
    Refusal,
    packet::{HEADER, Header},
    replay::ReplayWindow,
    seal::{Aead, Key, Suite, Suites},
};
use std::time::{Duration, Instant};

/// How long packets under an older key are accepted after the first under a newer one.
pub const GRACE: Duration = Duration::from_secs(10);

/// When a receive key is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyLimits {
    /// After this time.
    pub age: Duration,
    /// After this many packets. A sender goes on to eight times as many and then sends nothing more under the key.
    pub packets: u64,
}

impl Default for KeyLimits {
    /// Half an hour, or 2²⁷ packets: AES-GCM with 1,500-byte packets keeps an attacker's advantage below 2⁻⁶⁰ for
    /// about 2²⁸ of them (draft-irtf-cfrg-aead-limits, section 5.1.1); ChaCha20-Poly1305 allows far more.
    fn default() -> Self {
        Self { age: Duration::from_secs(30 * 60), packets: 1 << 27 }
    }
}

/// A key that a neighbour seals with.
pub struct ReceiveKey {
    index: u32,
    openers: Vec<(Suite, Box<dyn Aead>)>,
    replay: ReplayWindow,
    born: Instant,
    used: bool,
    expires: Option<Instant>,
}

/// The key that is sealed with, and its counter.
pub struct SendKey {
    index: u32,
    suite: Suite,
    aead: Box<dyn Aead>,
    counter: u64,
    limit: u64,
}

/// A datagram that was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opened {
    /// Where its pieces end.
    pub end: usize,
    /// Nothing newer has come from this neighbour yet.
    pub newest: bool,
}

impl SendKey {
    /// The key of an announcement; to be called once for each.
    pub fn new(index: u32, key: &Key, suite: Suite, limits: KeyLimits) -> Self {
        let limit = limits.packets.saturating_mul(8);
        Self { index, suite, aead: suite.with_key(key), counter: 0, limit }
    }

    /// How this key seals.
    pub fn suite(&self) -> Suite {
        self.suite
    }

    /// How many datagrams were sealed.
    pub fn sealed(&self) -> u64 {
        self.counter
    }

    /// Seals the datagram that begins at `start` (room for the header, then pieces) and appends the tag. False when
    /// the key is used up; nothing may be sent then.
    pub fn seal(&mut self, buffer: &mut Vec<u8>, start: usize) -> bool {
        if self.counter >= self.limit {
            return false;
        }
        let header = Header { suite: self.suite, index: self.index, counter: self.counter }.bytes();
        self.counter += 1;
        buffer[start..start + HEADER].copy_from_slice(&header);
        let Some(tag) = self.aead.seal(self.counter - 1, &header, &mut buffer[start + HEADER..]) else {
            return false;
        };
        buffer.extend_from_slice(&tag[..self.suite.tag_length()]);
        true
    }
}

/// Both directions of one link.
#[derive(Default)]
pub struct Keys {
    /// Oldest first; the last is the one announced last.
    receive: Vec<ReceiveKey>,
    /// What the neighbour announced last.
    pub send: Option<SendKey>,
}

impl Keys {
    /// A new receive key was drawn. Returns the index of one that was never used and is forgotten for it.
    pub fn announce(&mut self, index: u32, key: &Key, suites: Suites, now: Instant) -> Option<u32> {
        let openers = suites.iter().map(|suite| (suite, suite.with_key(key))).collect();
        let unused =
            self.receive.pop_if(|newest| !newest.used && newest.expires.is_none()).map(|key| key.index);
        let replay = ReplayWindow::default();
        self.receive.push(ReceiveKey { index, openers, replay, born: now, used: false, expires: None });
        unused
    }

    /// The indices of all receive keys.
    pub fn indices(&self) -> impl Iterator<Item = u32> {
        self.receive.iter().map(|key| key.index)
    }

    /// Whether the newest receive key has served long enough.
    pub fn is_worn(&self, limits: KeyLimits, now: Instant) -> bool {
        self.receive
            .last()
            .is_some_and(|key| now >= key.born + limits.age || key.replay.next() >= limits.packets)
    }

    /// When the newest receive key was drawn.
    pub fn born(&self) -> Option<Instant> {
        self.receive.last().map(|key| key.born)
    }

    /// Opens a datagram in place.
    ///
    /// # Errors
    /// Why it is not taken; nothing has changed then.
    pub fn open(&mut self, header: Header, datagram: &mut [u8], now: Instant) -> Result<Opened, Refusal> {
        let at =
            self.receive.iter().position(|key| key.index == header.index).ok_or(Refusal::UnknownIndex)?;
        let last = self.receive.len() - 1;
        let key = &mut self.receive[at];
        if !key.replay.is_fresh(header.counter) {
            return Err(Refusal::Replayed);
        }
        let opener = key.openers.iter().find(|(suite, _)| *suite == header.suite);
        let (suite, aead) = opener.ok_or(Refusal::SuiteRefused)?;
        let end = datagram.len().checked_sub(suite.tag_length()).ok_or(Refusal::Truncated)?;
        let (head, body) = datagram[..].split_at_mut_checked(HEADER).ok_or(Refusal::Truncated)?;
        let (body, tag) = body.split_at_mut_checked(end - HEADER).ok_or(Refusal::Truncated)?;
        let tag = <[u8; 16]>::try_from(&*tag).unwrap_or_default();
        aead.open(header.counter, head, body, &tag).map_err(|_| Refusal::Forged)?;
        let newest = at == last && header.counter >= key.replay.next();
        key.replay.accept(header.counter);
        if at == last && !key.used {
            key.used = true;
            for older in &mut self.receive[..last] {
                older.expires.get_or_insert(now + GRACE);
            }
        }
        Ok(Opened { end, newest })
    }

    /// Forgets receive keys whose grace has ended, and returns their indices.
    pub fn expire(&mut self, now: Instant) -> Vec<u32> {
        let gone = |key: &mut ReceiveKey| key.expires.is_some_and(|expires| now >= expires);
        self.receive.extract_if(.., gone).map(|key| key.index).collect()
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "virtual time starts somewhere")]
mod tests {
    use super::*;

    const SUITES: fn() -> Suites = || Suites::offered(true, true);

    fn sealed(key: &mut SendKey, body: &[u8]) -> Vec<u8> {
        let mut datagram = vec![0; HEADER];
        datagram.extend(body);
        assert!(key.seal(&mut datagram, 0));
        datagram
    }

    fn open(keys: &mut Keys, datagram: &[u8], now: Instant) -> Result<Vec<u8>, Refusal> {
        let mut copy = datagram.to_vec();
        let opened = keys.open(Header::parse(datagram).unwrap(), &mut copy, now)?;
        Ok(copy[HEADER..opened.end].to_vec())
    }

    #[test]
    fn a_datagram_opens_once_and_only_unchanged() {
        let (mut keys, now, limits) = (Keys::default(), Instant::now(), KeyLimits::default());
        keys.announce(9, &[3; 32], SUITES(), now);
        for suite in [Suite::ChaCha, Suite::Aes] {
            let mut send = SendKey::new(9, &[3; 32], suite, limits);
            send.counter = suite as u64;
            let datagram = sealed(&mut send, b"frame");
            let mut changed = datagram.clone();
            changed[HEADER + 2] ^= 1;
            assert_eq!(open(&mut keys, &changed, now), Err(Refusal::Forged));
            assert_eq!(open(&mut keys, &datagram, now).unwrap(), b"frame");
            assert_eq!(open(&mut keys, &datagram, now), Err(Refusal::Replayed));
        }
        let clear = sealed(&mut SendKey::new(9, &[3; 32], Suite::Clear, limits), b"frame");
        assert_eq!(open(&mut keys, &clear, now), Err(Refusal::SuiteRefused));
    }

    #[test]
    fn rotation_accepts_both_keys_until_the_grace_after_the_first_packet_has_passed() {
        let (mut keys, now, limits) = (Keys::default(), Instant::now(), KeyLimits::default());
        keys.announce(1, &[1; 32], SUITES(), now);
        let mut first = SendKey::new(1, &[1; 32], Suite::ChaCha, limits);
        open(&mut keys, &sealed(&mut first, b"a"), now).unwrap();
        assert!(keys.is_worn(limits, now + limits.age));
        assert_eq!(keys.announce(2, &[2; 32], SUITES(), now), None);
        let mut second = SendKey::new(2, &[2; 32], Suite::ChaCha, limits);
        let later = now + limits.age / 2;
        open(&mut keys, &sealed(&mut first, b"b"), later).unwrap();
        open(&mut keys, &sealed(&mut second, b"c"), later).unwrap();
        open(&mut keys, &sealed(&mut first, b"d"), later + GRACE / 2).unwrap();
        assert!(keys.expire(later + GRACE / 2).is_empty());
        assert_eq!(keys.expire(later + GRACE), [1]);
        assert_eq!(open(&mut keys, &sealed(&mut first, b"e"), later + GRACE), Err(Refusal::UnknownIndex));
    }

    #[test]
    fn a_key_that_was_never_used_makes_room_for_the_next_and_the_one_in_use_stays() {
        let (mut keys, now, limits) = (Keys::default(), Instant::now(), KeyLimits::default());
        keys.announce(1, &[1; 32], SUITES(), now);
        let mut first = SendKey::new(1, &[1; 32], Suite::ChaCha, limits);
        open(&mut keys, &sealed(&mut first, b"a"), now).unwrap();
        assert_eq!(keys.announce(2, &[2; 32], SUITES(), now), None);
        assert_eq!(keys.announce(3, &[3; 32], SUITES(), now), Some(2));
        assert_eq!(keys.indices().collect::<Vec<_>>(), [1, 3]);
        open(&mut keys, &sealed(&mut first, b"b"), now).unwrap();
    }

    #[test]
    fn a_used_up_key_seals_nothing() {
        let limits = KeyLimits { packets: 2, ..KeyLimits::default() };
        let mut send = SendKey::new(1, &[1; 32], Suite::ChaCha, limits);
        let counters: Vec<_> =
            (0..16).map(|_| Header::parse(&sealed(&mut send, b"")).unwrap().counter).collect();
        assert_eq!(counters, (0..16).collect::<Vec<_>>());
        assert!(!send.seal(&mut vec![0; HEADER], 0));
    }
}
