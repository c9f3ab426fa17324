//! One direct neighbour: its keys, its path, its liveness, and the datagrams under construction for it.
//!
//! Sending goes down this file: [`Link::carry`] cuts a frame to what the path takes, the packer fills datagrams,
//! [`Link::finish`] seals the last and hands the batch over. Receiving goes through [`Link::open`].

use super::{
    Refusal,
    join::{Joined, Joiner},
    keys::{Keys, SendKey},
    liveness::{Change, Liveness, State},
    pack::{Outbox, Packer},
    packet::{HEADER, Header},
    piece::{FrameHead, Part, Piece},
    pmtu::PathMtu,
    seal::Suite,
};
use crate::switch::{offload::VnetHeader, verdict::DropReason};
use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};
use weft_gossip::PeerName;

/// Fewer bytes of a frame than this are not worth a part of their own at the end of a datagram.
const SMALLEST_PART: usize = 64;
/// That a neighbour speaks from elsewhere is told at most this often.
const DOUBT_PAUSE: Duration = Duration::from_secs(1);
/// A changed round trip is told at most this often.
const RTT_NEWS: Duration = Duration::from_secs(10);

/// What the control half should hear of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    /// It works (again).
    Up,
    /// The first heartbeat was missed.
    Suspect,
    /// It does not work.
    Down,
    /// Round trip or path MTU changed.
    Changed,
}

/// What one link did, since it was made.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct LinkCounters {
    /// Where datagrams go.
    pub address: SocketAddr,
    /// Where the link stands.
    pub state: State,
    /// How datagrams to this neighbour are sealed; `None` while keys are missing.
    pub suite: Option<Suite>,
    /// Smoothed round trip.
    pub rtt: Duration,
    /// Bytes of the largest IP packet that passes.
    pub mtu: u16,
    /// Datagrams sent.
    pub sent_datagrams: u64,
    /// Bytes of UDP payload sent.
    pub sent_bytes: u64,
    /// Frames sent, whole or in parts.
    pub sent_frames: u64,
    /// Authentic datagrams received.
    pub received_datagrams: u64,
    /// Bytes of authentic UDP payload received.
    pub received_bytes: u64,
    /// Whole frames received for this host or for relaying.
    pub received_frames: u64,
    /// Frames given up because a part of them was lost.
    pub frames_lost: u64,
    /// Heartbeats that stayed unanswered.
    pub misses: u64,
    /// How often the path turned out to take less than before.
    pub shrunk: u64,
    /// How often the neighbour's address changed.
    pub roamed: u64,
    /// Keys announced to this neighbour.
    pub keys: u64,
}

/// One direct neighbour.
pub struct Link {
    session: u64,
    address: SocketAddr,
    configured: SocketAddr,
    /// The keys of both directions.
    pub keys: Keys,
    /// Heartbeats.
    pub live: Liveness,
    /// The search for the path's MTU.
    pub path: PathMtu,
    /// What the link did.
    pub counters: LinkCounters,
    packer: Packer,
    joiner: Joiner,
    told: Option<(Duration, u16, Instant)>,
    /// When it was last said that the neighbour speaks from elsewhere.
    doubted: Option<Instant>,
}

impl Link {
    /// A neighbour whose key is not known yet.
    pub fn new(session: u64, address: SocketAddr, now: Instant) -> Self {
        Self {
            session,
            address,
            configured: address,
            keys: Keys::default(),
            live: Liveness::new(now),
            path: PathMtu::new(address),
            counters: counters(address),
            packer: Packer::default(),
            joiner: Joiner::default(),
            told: None,
            doubted: None,
        }
    }

    /// The session its keys were announced over.
    pub fn session(&self) -> u64 {
        self.session
    }

    /// Where datagrams go now.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The neighbour has a session (again); true if it is a new one, which needs a new receive key.
    ///
    /// The old keys stay until the first packet under the new ones, and ten seconds more: frames that are under
    /// way while one session replaces another are not lost.
    pub fn refresh(&mut self, session: u64, address: SocketAddr, now: Instant) -> bool {
        if address != self.configured || self.live.state() != State::Up {
            self.configured = address;
            self.readdress(address, now);
        }
        let renewed = std::mem::replace(&mut self.session, session) != session;
        if renewed {
            self.live.renew(now);
        }
        renewed
    }

    /// The neighbour announced a key.
    pub fn install(&mut self, key: SendKey, out: &mut Outbox, now: Instant) {
        self.finish(out, now);
        self.keys.send = Some(key);
        if self.live.state() != State::Up {
            self.path.restart(self.address, now);
        }
        self.live.start(now);
    }

    /// Opens a datagram; returns where its pieces end.
    ///
    /// # Errors
    /// Why it is not taken.
    pub fn open(
        &mut self,
        header: Header,
        datagram: &mut [u8],
        from: SocketAddr,
        now: Instant,
    ) -> Result<(usize, Option<News>), Refusal> {
        let opened = self.keys.open(header, datagram, now)?;
        self.counters.received_datagrams += 1;
        self.counters.received_bytes += datagram.len() as u64;
        // Only the newest packet moves the address: an old one may have been held back and sent from elsewhere.
        let moved = opened.newest && from != self.address;
        if moved {
            self.counters.roamed += 1;
            self.readdress(from, now);
        }
        let change = self.live.heard(now);
        let news = self.news(change, now);
        // Its session may lead to where it was, and only a change of carrier that needs it would find that out.
        let lost = moved && self.doubted.is_none_or(|doubted| now >= doubted + DOUBT_PAUSE);
        if lost {
            self.doubted = Some(now);
        }
        Ok((opened.end, news.or(lost.then_some(News::Suspect))))
    }

    /// The echo of a heartbeat.
    pub fn echoed(&mut self, sequence: u32, now: Instant) -> Option<News> {
        let change = self.live.echoed(sequence, now);
        self.news(change, now)
    }

    /// Adds a part of a frame.
    pub fn join(
        &mut self,
        source: PeerName,
        part: Part,
        vnet: Option<VnetHeader>,
        bytes: &[u8],
        out: &mut Outbox,
        now: Instant,
    ) -> Joined {
        self.joiner.add(source, part, vnet, bytes, out.buffers(), now)
    }

    /// Sends a frame, or a part that is being relayed, in as many parts as the path asks for.
    ///
    /// # Errors
    /// Why it cannot be sent; nothing of it was.
    pub fn carry(
        &mut self,
        head: FrameHead,
        bytes: &[u8],
        next_id: &mut u32,
        out: &mut Outbox,
        now: Instant,
    ) -> Result<(), DropReason> {
        let Some(limit) = self.limit() else { return Err(DropReason::NoKey) };
        self.live.carried(now);
        self.counters.sent_frames += 1;
        let whole = head.length() + bytes.len();
        if whole > limit {
            self.cut(head, bytes, next_id, limit, out, now);
            return Ok(());
        }
        if whole > self.packer.room(limit) {
            self.close(out, now);
        }
        self.packer.push(&Piece::Frame(head, bytes), out);
        Ok(())
    }

    fn cut(
        &mut self,
        head: FrameHead,
        bytes: &[u8],
        next_id: &mut u32,
        limit: usize,
        out: &mut Outbox,
        now: Instant,
    ) {
        let whole = head.part.unwrap_or_else(|| {
            *next_id = next_id.wrapping_add(1);
            Part::whole(*next_id, bytes)
        });
        let mut done = 0;
        while done < bytes.len() {
            let part = Part { offset: whole.offset + number(done), ..whole };
            let vnet = head.vnet.filter(|_| done == 0);
            let head = FrameHead { part: Some(part), vnet, ..head };
            let room = self.packer.room(limit).saturating_sub(head.length());
            if room < SMALLEST_PART.min(bytes.len() - done) {
                self.close(out, now);
                continue;
            }
            let end = bytes.len().min(done + room);
            self.packer.push(&Piece::Frame(head, &bytes[done..end]), out);
            done = end;
        }
    }

    /// Sends a small piece of our own.
    pub fn control(&mut self, piece: &Piece<'_>, out: &mut Outbox, now: Instant) {
        let Some(limit) = self.limit() else { return };
        if self.packer.room(limit) < 16 {
            self.close(out, now);
        }
        self.packer.push(piece, out);
    }

    /// Seals what is open and hands everything over to be sent.
    pub fn finish(&mut self, out: &mut Outbox, now: Instant) {
        self.close(out, now);
        self.packer.flush(self.address, out);
    }

    /// When the link next wants to be called.
    pub fn deadline(&self) -> Option<Instant> {
        let path = self.path.deadline().filter(|_| self.probes());
        [self.live.deadline(), path].into_iter().flatten().min()
    }

    /// Time passed. `rare` spares heartbeats on idle links of a large mesh.
    pub fn timeout(&mut self, rare: bool, out: &mut Outbox, now: Instant) -> [Option<News>; 2] {
        self.joiner.expire(out.buffers(), now);
        // Probes before the heartbeat: the first echo then finds the path measured.
        if self.probes()
            && let Some(probes) = self.path.timeout(self.live.rtt(), now)
        {
            for size in probes.sizes {
                self.probe(probes.round, size, out, now);
            }
        }
        let due = self.live.timeout(rare, now);
        if let Some(sequence) = due.beat {
            self.control(&Piece::Beat { sequence, hears: self.live.hears(now) }, out, now);
        }
        [self.news(due.change, now), self.changed(now)]
    }

    /// What the link did, and where it stands.
    pub fn snapshot(&self) -> LinkCounters {
        LinkCounters {
            address: self.address,
            state: self.live.state(),
            suite: self.keys.send.as_ref().map(SendKey::suite),
            rtt: self.live.rtt().unwrap_or_default(),
            mtu: self.path.usable(),
            frames_lost: self.joiner.lost(),
            misses: self.live.misses(),
            shrunk: self.path.shrunk(),
            ..self.counters.clone()
        }
    }

    /// Probing a path whose other end is silent would only find that nothing passes.
    fn probes(&self) -> bool {
        matches!(self.live.state(), State::Up | State::Trying)
    }

    fn probe(&mut self, round: u32, size: u16, out: &mut Outbox, now: Instant) {
        let Some(tag) = self.keys.send.as_ref().map(|key| key.suite().tag_length()) else { return };
        self.close(out, now);
        self.packer.push(&Piece::Probe { round, size }, out);
        self.packer.pad(self.path.payload_of(size).saturating_sub(HEADER + tag));
        // Alone: if the interface refuses it, it must not take frames with it.
        self.finish(out, now);
    }

    /// Bytes of pieces that fit into one datagram; `None` without a key.
    fn limit(&self) -> Option<usize> {
        let key = self.keys.send.as_ref()?;
        Some(self.path.payload() - HEADER - key.suite().tag_length())
    }

    fn close(&mut self, out: &mut Outbox, now: Instant) {
        let Some(key) = self.keys.send.as_mut().filter(|_| self.packer.is_open()) else { return };
        if let Some(length) = self.packer.close(key, self.address, out) {
            self.counters.sent_datagrams += 1;
            self.counters.sent_bytes += length as u64;
            self.path.sent(length, now);
        }
    }

    fn readdress(&mut self, address: SocketAddr, now: Instant) {
        if self.address != address {
            self.address = address;
            self.path.restart(address, now);
        }
    }

    fn news(&mut self, change: Option<Change>, now: Instant) -> Option<News> {
        match change? {
            Change::Up => {
                // After a silence the path may be another one; what failed meanwhile says nothing.
                if self.told.is_some() {
                    self.path.recheck(now);
                }
                self.tell(now);
                Some(News::Up)
            }
            Change::Suspect => Some(News::Suspect),
            Change::Down => {
                self.told = None;
                self.path.restart(self.address, now);
                Some(News::Down)
            }
        }
    }

    /// Whether the path became another one since it was last told of.
    fn changed(&mut self, now: Instant) -> Option<News> {
        let (rtt, mtu, at) = self.told?;
        let current = self.live.rtt().unwrap_or_default();
        let slower =
            current > rtt * 2 + Duration::from_millis(1) || rtt > current * 2 + Duration::from_millis(1);
        let resized = self.path.is_settled() && self.path.usable() != mtu;
        (resized || (slower && now >= at + RTT_NEWS)).then(|| {
            self.tell(now);
            News::Changed
        })
    }

    fn tell(&mut self, now: Instant) {
        self.told = Some((self.live.rtt().unwrap_or_default(), self.path.usable(), now));
    }
}

fn number(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

fn counters(address: SocketAddr) -> LinkCounters {
    LinkCounters {
        address,
        state: State::Waiting,
        suite: None,
        rtt: Duration::ZERO,
        mtu: 0,
        sent_datagrams: 0,
        sent_bytes: 0,
        sent_frames: 0,
        received_datagrams: 0,
        received_bytes: 0,
        received_frames: 0,
        frames_lost: 0,
        misses: 0,
        shrunk: 0,
        roamed: 0,
        keys: 0,
    }
}
