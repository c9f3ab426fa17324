//! The hot machine: a frame comes in from the bridge and leaves in a datagram, or the other way round.
//!
//! ```text
//!  captured frame ─▶ switch ─▶ link(s): cut, pack, seal ─▶ Transmit      (captured.rs)
//!  datagram ─▶ open ─▶ pieces ─▶ join ─▶ switch ─▶ Inject                (arrived.rs)
//!                         ╰────▶ next hop's link ─▶ Transmit
//! ```
//!
//! One per router, owned by one thread (`io/dataplane.rs`). It owns the [`Switch`] and one [`Link`] per direct
//! neighbour, and shares with the control half nothing but [`Command`]s, [`Event`]s and one immutable
//! [`ForwardingTable`]. A caller hands in a batch of input and then drains [`Dataplane::poll_output`]: datagrams are
//! sealed only then, so the small frames of one batch share them.

mod arrived;
mod captured;
pub mod command;
pub mod counters;
pub mod event;
#[cfg(test)]
mod tests;

pub use crate::switch::table::{Carrier, ForwardingTable};
pub use command::Command;
pub use counters::{Counters, ShellCounters, Tally};
pub use event::Event;

use crate::{
    alarms::Alarms,
    sleeve::{
        Refusal,
        announcement::Announcement,
        keys::{KeyLimits, SendKey},
        link::{Link, News},
        liveness::{RARE_EARLY, State},
        pack::{Batch, Outbox},
        seal::{Key, Suites},
    },
    switch::{Switch, offload::VnetHeader},
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    time::{Duration, Instant},
};
use weft_gossip::PeerName;

/// Above this many neighbours, idle links rest on session news instead of heartbeats every second.
const MANY_LINKS: usize = 50;
/// A link that stays down although its session lives gets a new key this often, in case the keys are the reason.
const HEAL: Duration = Duration::from_secs(30);
/// Of how many peers without a link the newest announcement is remembered.
const REMEMBERED: usize = 4096;

/// What the machine is told when it is made.
#[derive(Debug, Clone)]
pub struct Setup {
    /// This router.
    pub me: PeerName,
    /// Whether there is a secret: then nothing leaves or enters in clear.
    pub encrypted: bool,
    /// Whether the processor has AES in hardware.
    pub hardware_aes: bool,
    /// Where keys come from; must be drawn from the operating system.
    pub seed: [u8; 32],
    /// When keys are replaced.
    pub limits: KeyLimits,
}

/// What the machine wants done.
#[derive(Debug, PartialEq, Eq)]
pub enum Output<'a> {
    /// Send these datagrams.
    Transmit {
        /// Where to.
        to: SocketAddr,
        /// Bytes of each datagram; the last may be shorter.
        segment: usize,
        /// The datagrams, one behind the other.
        bytes: &'a [u8],
    },
    /// Hand this frame to the bridge.
    Inject {
        /// The frame.
        frame: &'a [u8],
        /// What its kernel left undone.
        vnet: Option<VnetHeader>,
    },
    /// Tell the control half.
    Event(Event),
}

/// The data half of one router.
pub struct Dataplane {
    me: PeerName,
    encrypted: bool,
    suites: Suites,
    limits: KeyLimits,
    rng: StdRng,
    boot: u64,
    generation: u64,
    frame_id: u32,
    switch: Switch,
    links: BTreeMap<PeerName, Link>,
    /// When each link wants to be called.
    alarms: Alarms<PeerName>,
    /// Receiver index → whose key it is.
    indices: BTreeMap<u32, PeerName>,
    /// The newest announcement of every peer: boot and generation.
    newest: BTreeMap<PeerName, (u64, u64)>,
    /// Links with datagrams under construction.
    dirty: Vec<PeerName>,
    outbox: Outbox,
    inject: VecDeque<(Vec<u8>, Option<VnetHeader>)>,
    events: VecDeque<Event>,
    /// What `poll_output` lent last.
    lent: Vec<u8>,
    counters: Counters,
    /// The last instant seen: sealing what is left over happens at this time.
    now: Instant,
}

impl Dataplane {
    /// A data half that knows nobody.
    pub fn new(setup: Setup, now: Instant) -> Self {
        let mut rng = StdRng::from_seed(setup.seed);
        let (boot, frame_id) = (rng.random(), rng.random());
        Self {
            me: setup.me,
            encrypted: setup.encrypted,
            suites: Suites::offered(setup.encrypted, setup.hardware_aes),
            limits: setup.limits,
            rng,
            boot,
            generation: 0,
            frame_id,
            switch: Switch::new(setup.me),
            links: BTreeMap::new(),
            alarms: Alarms::default(),
            indices: BTreeMap::new(),
            newest: BTreeMap::new(),
            dirty: Vec::new(),
            outbox: Outbox::default(),
            inject: VecDeque::new(),
            events: VecDeque::new(),
            lent: Vec::new(),
            counters: Counters::default(),
            now,
        }
    }

    /// Takes an instruction of the control half.
    pub fn handle_command(&mut self, command: Command, now: Instant) {
        self.now = now;
        match command {
            Command::Table(table) => self.switch.set_table(table),
            Command::AddLink { peer, session, address } => self.add_link(peer, session, address, now),
            Command::RemoveLink { peer } => self.remove_link(peer),
            Command::Announced { peer, bytes, .. } => {
                if let Err(refusal) = self.announced(peer, &bytes, now) {
                    self.counters.refuse(refusal);
                }
                self.plan(peer);
            }
            Command::LocalMacs(macs) => self.switch.set_local(macs),
            Command::Forget { peer } => self.switch.forget(peer),
            Command::Prove { peer } => {
                if let Some(link) = self.links.get_mut(&peer) {
                    link.live.prove(now);
                }
                self.plan(peer);
            }
            Command::Doubt { peer } => {
                if let Some(link) = self.links.get_mut(&peer) {
                    link.path.recheck(now);
                }
                self.plan(peer);
            }
            Command::Behind { peer } => {
                let macs = self.switch.hand_over(peer, now);
                self.events.push_back(Event::Behind { peer, macs });
            }
            Command::Placed { peer, macs } => self.switch.place(peer, &macs, now),
            Command::Counters => {
                let counters = Box::new(self.counters());
                self.events.push_back(Event::Counters(counters));
            }
        }
    }

    /// The kernel refused a datagram of `size` bytes of payload as larger than the interface takes.
    pub fn handle_too_large(&mut self, to: SocketAddr, size: usize, now: Instant) {
        for (peer, link) in self.links.iter_mut().filter(|(_, link)| link.address() == to) {
            link.path.refused(size, now);
            self.alarms.set(*peer, link.deadline());
        }
    }

    /// A frame could not be handed to the bridge.
    pub fn handle_inject_failed(&mut self) {
        self.counters.drop(crate::switch::verdict::DropReason::InjectFailed);
    }

    /// When the machine next wants [`Dataplane::handle_timeout`]: heartbeats, probes and keys.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.alarms.next()
    }

    /// Time passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.now = now;
        let rare = self.links.len() > MANY_LINKS;
        let (mut news, mut worn) = (Vec::new(), Vec::new());
        let early = if rare { RARE_EARLY } else { Duration::ZERO };
        for peer in self.alarms.due(now + early) {
            let Some(link) = self.links.get_mut(&peer) else { continue };
            if !self.dirty.contains(&peer) {
                self.dirty.push(peer);
            }
            news.extend(
                link.timeout(rare, &mut self.outbox, now).into_iter().flatten().map(|news| (peer, news)),
            );
            self.alarms.set(peer, link.deadline());
            for index in link.keys.expire(now) {
                self.indices.remove(&index);
            }
            let stuck =
                link.live.state() == State::Down && link.keys.born().is_some_and(|born| now >= born + HEAL);
            if stuck || link.keys.is_worn(self.limits, now) {
                worn.push(peer);
            }
        }
        for (peer, news) in news {
            self.report(peer, news);
        }
        for peer in worn {
            self.announce(peer, now);
        }
    }

    /// The next thing to do. Ends a batch of input: what is under construction is sealed.
    pub fn poll_output(&mut self) -> Option<Output<'_>> {
        if !self.dirty.is_empty() {
            self.seal_all();
        }
        let lent = std::mem::take(&mut self.lent);
        self.outbox.recycle(lent);
        if let Some(Batch { to, segment, bytes }) = self.outbox.pop() {
            self.lent = bytes;
            return Some(Output::Transmit { to, segment, bytes: &self.lent });
        }
        if let Some((frame, vnet)) = self.inject.pop_front() {
            self.lent = frame;
            return Some(Output::Inject { frame: &self.lent, vnet });
        }
        self.events.pop_front().map(Output::Event)
    }

    /// Everything counted so far.
    pub fn counters(&self) -> Counters {
        let macs = self.switch.macs();
        Counters {
            macs: macs.len(),
            macs_moved: macs.moved(),
            macs_refused: macs.refused(),
            links: self.links.iter().map(|(peer, link)| (*peer, link.snapshot())).collect(),
            ..self.counters.clone()
        }
    }

    /// The neighbour's link was touched: it may want to be called at another time.
    fn plan(&mut self, neighbour: PeerName) {
        self.alarms.set(neighbour, self.links.get(&neighbour).and_then(Link::deadline));
    }

    /// The neighbour's link has something to seal when this batch of input ends.
    fn mark(&mut self, neighbour: PeerName) {
        if !self.dirty.contains(&neighbour) {
            self.dirty.push(neighbour);
        }
    }

    fn seal_all(&mut self) {
        let Self { dirty, links, alarms, outbox, now, .. } = self;
        for peer in dirty.drain(..) {
            if let Some(link) = links.get_mut(&peer) {
                link.finish(outbox, *now);
                alarms.set(peer, link.deadline());
            }
        }
    }

    fn add_link(&mut self, peer: PeerName, session: u64, address: SocketAddr, now: Instant) {
        if peer == self.me {
            return;
        }
        let fresh = match self.links.get_mut(&peer) {
            Some(link) => link.refresh(session, address, now),
            None => {
                self.links.insert(peer, Link::new(session, address, now));
                true
            }
        };
        if fresh {
            self.announce(peer, now);
        }
        self.plan(peer);
    }

    fn remove_link(&mut self, peer: PeerName) {
        if self.links.remove(&peer).is_some() {
            self.indices.retain(|_, owner| *owner != peer);
            self.dirty.retain(|dirty| *dirty != peer);
            self.plan(peer);
        }
    }

    /// Draws a receive key for the neighbour and has it announced. No key and no generation is ever drawn twice.
    fn announce(&mut self, peer: PeerName, now: Instant) {
        let Some(link) = self.links.get_mut(&peer) else { return };
        let index = loop {
            let index = self.rng.random();
            if !self.indices.contains_key(&index) {
                break index;
            }
        };
        let key: Key = self.rng.random();
        self.generation += 1;
        self.indices.insert(index, peer);
        if let Some(unused) = link.keys.announce(index, &key, self.suites, now) {
            self.indices.remove(&unused);
        }
        link.counters.keys += 1;
        let announcement = Announcement::new(self.boot, self.generation, index, key, self.suites);
        let event = Event::Announce { peer, session: link.session(), bytes: announcement.encode() };
        self.events.push_back(event);
    }

    fn announced(&mut self, peer: PeerName, bytes: &[u8], now: Instant) -> Result<(), Refusal> {
        let read = Announcement::decode(bytes).ok_or(Refusal::AnnouncementMalformed)?;
        let link = self.links.get_mut(&peer).ok_or(Refusal::AnnouncementUnexpected)?;
        let newest = self.newest.get(&peer);
        if newest.is_some_and(|(boot, generation)| *boot == read.boot && read.generation <= *generation) {
            return Err(Refusal::AnnouncementStale);
        }
        let suite = self.suites.common(read.suites).ok_or(Refusal::NoCommonSuite)?;
        if self.newest.len() >= REMEMBERED && newest.is_none() {
            let stranger = self.newest.keys().find(|known| **known != peer).copied();
            stranger.and_then(|stranger| self.newest.remove(&stranger));
        }
        self.newest.insert(peer, (read.boot, read.generation));
        link.install(SendKey::new(read.index, &read.key, suite, self.limits), &mut self.outbox, now);
        Ok(())
    }

    fn report(&mut self, peer: PeerName, news: News) {
        let Some(link) = self.links.get(&peer) else { return };
        let (rtt, mtu) = (link.live.rtt().unwrap_or_default(), link.path.usable());
        self.events.push_back(match news {
            News::Up => Event::LinkUp { peer, rtt, mtu },
            News::Suspect => Event::LinkSuspect { peer },
            News::Down => Event::LinkDown { peer },
            News::Changed => Event::LinkChanged { peer, rtt, mtu },
        });
    }
}
