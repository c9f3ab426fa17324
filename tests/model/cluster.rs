//! Three peers, a range of four addresses and a few messages in flight: every order in which things can happen.
//!
//! ```text
//!   A owns .0, .1          B owns .2, .3         C owns nothing      (or A all of them)
//!   use, release ......... ask, give ........... gossip the ring
//!   claim, deny .......... crash, start ........ an operator removes a peer
//! ```
//!
//! Messages are delivered in any order, late, or never: one that stays in flight is lost. A peer is *fenced* at an address as long as no word of a
//! removal has reached it that took this address away: it cannot know, and whoever removed it vouched for its being
//! gone. Property: of those who are not, no two use one address.

use stateright::{Model, Property};
use weft_router::ipam::ring::Ring;

use super::{
    peer::{News, Peer, PerAddress, SIZE, name, place, range},
    rules::Rule,
};

/// The peers of the model.
pub(crate) const PEERS: usize = 3;

/// How far the checker goes.
#[derive(Clone, Debug)]
pub(crate) struct Cluster {
    /// The rule that is broken, if one is.
    pub(crate) broken: Option<Rule>,
    /// Most messages in flight at once.
    pub(crate) in_flight: usize,
    /// Most addresses in use on one host.
    pub(crate) leases: usize,
    /// How often processes end.
    pub(crate) crashes: u8,
    /// How often an operator removes a peer.
    pub(crate) removals: u8,
    /// Whether peers ask although they have idle addresses.
    pub(crate) greedy: bool,
    /// How many peers divide the range at first.
    pub(crate) owners: usize,
    /// Whether waiting times may pass while word of a change is under way. Two operators who remove one peer are only
    /// safe where they hear each other in time.
    pub(crate) late: bool,
}

/// What one peer says to another.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) enum Message {
    /// Give me space.
    Ask { from: usize },
    /// My container uses this address: let me have it back.
    Claim { from: usize, address: u32 },
    /// It is in use here.
    Deny { address: u32 },
    /// Some or all of a ring.
    News(News),
}

/// A moment.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Moment {
    pub(crate) peers: Vec<Peer>,
    /// Sorted: their order means nothing.
    flight: Vec<(usize, Message)>,
    /// How often each address was taken from an owner that was gone.
    taken: PerAddress,
    crashes: u8,
    removals: u8,
}

/// What can happen.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Action {
    Use(usize),
    Release(usize, u32),
    Ask(usize, usize),
    Claim(usize, u32),
    Gossip(usize, usize),
    Deliver(usize),
    Crash(usize),
    Start(usize),
    Remove(usize, usize),
    /// What was taken over has rested, and the wait for word is over.
    Rested(usize),
}

impl Moment {
    fn send(&mut self, to: usize, message: Message) {
        self.flight.push((to, message));
        self.flight.sort_unstable();
        self.flight.dedup();
    }

    fn live(&self) -> Vec<bool> {
        self.peers.iter().map(|peer| peer.live).collect()
    }

    fn others(&self, peer: usize) -> Vec<usize> {
        (0..PEERS).filter(|other| *other != peer && self.peers[*other].live).collect()
    }

    /// Who uses an address and has heard of every removal that concerns it.
    fn users(&self, address: u32) -> usize {
        let heard_all = |peer: &Peer| peer.heard[place(address)] == self.taken[place(address)];
        let uses = |peer: &&Peer| {
            peer.live && peer.leases.contains_key(&address) && peer.owns(address) && heard_all(peer)
        };
        self.peers.iter().filter(uses).count()
    }

    /// A removal is known of as soon as one peer knows of it.
    fn note_removals(&mut self) {
        for peer in &self.peers {
            for (taken, heard) in self.taken.iter_mut().zip(&peer.heard) {
                *taken = (*taken).max(*heard);
            }
        }
    }

    fn deliver(&mut self, to: usize, message: Message, broken: Option<Rule>) {
        let live = self.live();
        let peer = &mut self.peers[to];
        if !peer.live {
            return;
        }
        match message {
            Message::Ask { from } => {
                if let Some(news) = peer.give(from, broken) {
                    self.send(from, Message::News(news));
                }
            }
            Message::Claim { from, address } => {
                if let Some(news) = peer.give_exactly(address, from, broken) {
                    self.send(from, Message::News(news));
                } else if peer.owns(address) && peer.leases.contains_key(&address) {
                    self.send(from, Message::Deny { address });
                }
            }
            Message::Deny { address } => {
                if !peer.owns(address) {
                    peer.leases.remove(&address);
                }
            }
            Message::News(news) => peer.hear(&news, &live, broken),
        }
    }

    /// A start is an exchange of rings with whoever is there.
    fn start(&mut self, peer: usize) {
        self.peers[peer].start();
        for other in self.others(peer) {
            self.peers[other].meet(peer);
            self.peers[peer].meet(other);
            let (ours, theirs) = (self.peers[peer].whole(), self.peers[other].whole());
            self.send(other, Message::News(ours));
            self.send(peer, Message::News(theirs));
        }
    }
}

impl Cluster {
    fn local(&self, moment: &Moment, at: usize, actions: &mut Vec<Action>) {
        let peer = &moment.peers[at];
        if peer.leases.len() < self.leases && peer.next_address().is_some() {
            actions.push(Action::Use(at));
        }
        for address in peer.leases.keys() {
            actions.push(Action::Release(at, *address));
            if !peer.owns(*address) && moment.flight.len() < self.in_flight {
                actions.push(Action::Claim(at, *address));
            }
        }
        let waits = peer.quiet || !peer.resting.is_empty();
        let in_time = self.late || !moment.flight.iter().any(|(_, what)| matches!(what, Message::News(_)));
        if waits && in_time {
            actions.push(Action::Rested(at));
        }
        if moment.crashes < self.crashes {
            actions.push(Action::Crash(at));
        }
    }

    fn between(&self, moment: &Moment, at: usize, other: usize, actions: &mut Vec<Action>) {
        if moment.flight.len() < self.in_flight && moment.peers[other].live {
            if self.greedy || moment.peers[at].space().lowest_in(range()).is_none() {
                actions.push(Action::Ask(at, other));
            }
            actions.push(Action::Gossip(at, other));
        }
        if moment.removals < self.removals {
            actions.push(Action::Remove(at, other));
        }
    }
}

impl Model for Cluster {
    type State = Moment;
    type Action = Action;

    fn init_states(&self) -> Vec<Moment> {
        let ring = Ring::divided(range(), &(0..self.owners).map(name).collect::<Vec<_>>()).expect("an owner");
        let peers = (0..PEERS).map(|peer| Peer::new(peer, ring.clone())).collect();
        vec![Moment { peers, flight: Vec::new(), taken: [0; SIZE], crashes: 0, removals: 0 }]
    }

    fn actions(&self, moment: &Moment, actions: &mut Vec<Action>) {
        for at in 0..PEERS {
            if !moment.peers[at].live {
                actions.push(Action::Start(at));
                continue;
            }
            self.local(moment, at, actions);
            for other in (0..PEERS).filter(|other| *other != at) {
                self.between(moment, at, other, actions);
            }
        }
        for index in 0..moment.flight.len() {
            actions.push(Action::Deliver(index));
        }
    }

    fn next_state(&self, before: &Moment, action: Action) -> Option<Moment> {
        let mut next = before.clone();
        match action {
            Action::Use(at) => {
                let address = next.peers[at].next_address()?;
                next.peers[at].lease(address);
            }
            Action::Release(at, address) => {
                next.peers[at].leases.remove(&address);
            }
            Action::Ask(at, other) => next.send(other, Message::Ask { from: at }),
            Action::Claim(at, address) => {
                let owner = next.peers[at].ring.owner_of(address);
                let owner = (0..PEERS).find(|peer| Some(name(*peer)) == owner)?;
                next.send(owner, Message::Claim { from: at, address });
            }
            Action::Gossip(at, other) => {
                let news = next.peers[at].whole();
                next.send(other, Message::News(news));
            }
            Action::Deliver(index) => {
                let (to, message) = next.flight.remove(index);
                next.deliver(to, message, self.broken);
            }
            Action::Crash(at) => {
                next.peers[at].crash();
                next.crashes += 1;
            }
            Action::Start(at) => next.start(at),
            Action::Remove(at, other) => {
                let news = next.peers[at].remove(other, self.broken);
                next.removals += 1;
                for hearer in next.others(at) {
                    next.send(hearer, Message::News(news.clone()));
                }
            }
            Action::Rested(at) => {
                next.peers[at].resting.clear();
                next.peers[at].quiet = false;
            }
        }
        next.note_removals();
        // What changes nothing leads nowhere.
        (next != *before).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(ONE_USER, |_, moment: &Moment| {
                (range().first()..=range().last()).all(|address| moment.users(address) <= 1)
            }),
            Property::always(KEPT, |_, moment: &Moment| {
                moment.peers.iter().filter(|peer| peer.live).all(|peer| {
                    let current = |(address, heard): (&u32, &u8)| *heard == moment.taken[place(*address)];
                    let mut leases =
                        peer.leases.iter().filter(|(address, heard)| current((*address, *heard)));
                    leases.all(|(address, _)| peer.owns(*address))
                })
            }),
            Property::sometimes(FED, |_, moment: &Moment| !moment.peers[2].leases.is_empty()),
            Property::sometimes(REUSED, |_, moment: &Moment| {
                moment.peers.iter().any(|peer| {
                    peer.live && peer.leases.iter().any(|(address, heard)| *heard > 0 && peer.owns(*address))
                })
            }),
        ]
    }
}

/// No address is in use by two peers that are not fenced there.
pub(crate) const ONE_USER: &str = "an address has one user";
/// An address in use stays its user's, unless it was taken from a peer that was gone.
pub(crate) const KEPT: &str = "what is in use is kept";
/// A peer that owned nothing gets an address.
pub(crate) const FED: &str = "who asks is given";
/// What a removed peer owned is used again.
pub(crate) const REUSED: &str = "what was taken over is used";
