//! Commands: what can be answered at once, and what waits for space, for other owners or for a deadline.

use std::{
    collections::{BTreeSet, VecDeque},
    net::Ipv4Addr,
    time::Instant,
};

use ipnet::Ipv4Net;

use super::{Allocator, donation::Progress};
use crate::ipam::{
    address::Span,
    contract::{Command, Holder, IpamError, Output, Reply, RequestId},
    pending::{PENDING_LIMIT, Pending, Waiting, Wish},
    wire::Goal,
};

/// Longest id that is accepted.
const ID_LIMIT: usize = 1024;

/// What became of a wish.
pub(super) enum Step {
    Done(Result<Reply, IpamError>),
    /// Wait for others to give what is wanted.
    Ask(Goal),
    Wait(Waiting),
}

impl Allocator {
    pub(super) fn command(&mut self, request: RequestId, command: Command, deadline: Instant, now: Instant) {
        let answer = match command {
            Command::Allocate { id, within } => self.accept_allocate(id, within),
            Command::Claim { id, address } => self.accept_claim(id, address),
            Command::Prime => Ok(Wish::Prime),
            Command::Leave => Ok(Wish::Leave),
            Command::Release { id, address } => Err(Ok(self.release(&id, address))),
            Command::Lookup { id } => Err(self.look_up(id)),
            Command::RemovePeer { peer, force } => Err(self.remove_peer(peer, force, now)),
            Command::Cancel { request } => {
                self.pending.retain(|pending| pending.request != request);
                Err(Ok(Reply::Done))
            }
        };
        match answer {
            Err(result) => self.reply(request, result),
            Ok(_) if self.pending.len() >= PENDING_LIMIT => {
                let reason = format!("{PENDING_LIMIT} commands are waiting already");
                self.reply(request, Err(IpamError::Refused(reason)));
            }
            Ok(wish) => {
                let waiting = self.seeding_reason();
                self.pending.push_back(Pending { request, deadline, wish, waiting });
            }
        }
    }

    fn reply(&mut self, request: RequestId, result: Result<Reply, IpamError>) {
        self.emit(Output::Reply { request, result });
    }

    fn accept_allocate(&self, id: String, within: Option<Ipv4Net>) -> Result<Wish, Result<Reply, IpamError>> {
        check_id(&id).map_err(Err)?;
        let range = self.config.range;
        let subnet = within.unwrap_or(range);
        if !range.contains(&subnet) {
            return Err(Err(IpamError::OutOfRange { subnet, range }));
        }
        let within = Span::from(subnet);
        if within.interior().is_none() {
            let reason =
                format!("{subnet} has no address to give out besides its network and broadcast address");
            return Err(Err(IpamError::Refused(reason)));
        }
        Ok(Wish::Allocate { id, within })
    }

    fn accept_claim(&mut self, id: String, address: Ipv4Addr) -> Result<Wish, Result<Reply, IpamError>> {
        check_id(&id).map_err(Err)?;
        if let Some(result) = self.held(&id, address) {
            return Err(result);
        }
        let number = u32::from(address);
        if !self.range.contains(number) {
            self.lease(&id, address);
            return Err(Ok(Reply::Address(address)));
        }
        if number == self.range.first() || number == self.range.last() {
            let reason = format!("{address} is the network or broadcast address of {}", self.config.range);
            return Err(Err(IpamError::Refused(reason)));
        }
        Ok(Wish::Claim { id, address })
    }

    /// The answer if the address is in use here.
    fn held(&self, id: &str, address: Ipv4Addr) -> Option<Result<Reply, IpamError>> {
        let holder = self.leases.holder(address)?;
        if holder == id {
            return Some(Ok(Reply::Address(address)));
        }
        Some(Err(IpamError::Conflict { address, holder: Holder::Id(holder.to_owned()) }))
    }

    fn lease(&mut self, id: &str, address: Ipv4Addr) {
        self.leases.insert(id, address);
        if self.conflicts.get(&address).is_some_and(|(holder, _)| holder == id) {
            self.conflicts.remove(&address);
        }
        let number = u32::from(address);
        self.space.remove(Span::single(number));
        if self.range.contains(number)
            && let Some(cluster) = &mut self.cluster
            && !std::mem::replace(&mut cluster.used, true)
        {
            self.announce_ring();
        }
        self.must_persist = true;
    }

    fn release(&mut self, id: &str, address: Option<Ipv4Addr>) -> Reply {
        let addresses: Vec<Ipv4Addr> =
            self.leases.of(id).filter(|held| address.is_none_or(|wanted| wanted == *held)).collect();
        for address in &addresses {
            self.leases.remove(*address);
            let number = u32::from(*address);
            self.disputed.remove(&number);
            if self.owns(number) && !self.is_settling(Span::single(number)) {
                self.space.insert(Span::single(number));
            }
        }
        let before = self.conflicts.len();
        self.conflicts
            .retain(|held, (holder, _)| holder != id || address.is_some_and(|wanted| wanted != *held));
        if !addresses.is_empty() || self.conflicts.len() != before {
            self.must_persist = true;
        }
        self.refuse_released(id, address);
        Reply::Addresses(addresses)
    }

    /// Whoever still waits for an address of a released id would get one nobody frees again.
    fn refuse_released(&mut self, id: &str, released: Option<Ipv4Addr>) {
        let concerns = |wish: &Wish| match wish {
            Wish::Allocate { id: waiting, .. } => released.is_none() && waiting == id,
            Wish::Claim { id: waiting, address } => {
                waiting == id && released.is_none_or(|released| released == *address)
            }
            Wish::Prime | Wish::Leave => false,
        };
        let waiting = std::mem::take(&mut self.pending).into_iter();
        let (refused, kept): (VecDeque<_>, VecDeque<_>) = waiting.partition(|one| concerns(&one.wish));
        self.pending = kept;
        for pending in refused {
            let reason = format!("{id:?} was released while this waited");
            self.reply(pending.request, Err(IpamError::Refused(reason)));
        }
    }

    fn look_up(&self, id: String) -> Result<Reply, IpamError> {
        let addresses: Vec<Ipv4Addr> = self.leases.of(&id).collect();
        if addresses.is_empty() { Err(IpamError::NotFound { id }) } else { Ok(Reply::Addresses(addresses)) }
    }

    /// Serves what waits, in order of arrival, and asks others for what is missing.
    pub(super) fn serve(&mut self, now: Instant) {
        let waiting = std::mem::take(&mut self.pending);
        let mut goals: BTreeSet<Goal> = self.disputed.iter().map(|address| Goal::Exactly(*address)).collect();
        let mut wanting: Vec<(Pending, Option<Goal>)> = Vec::new();
        for mut pending in waiting {
            match self.step(&pending.wish) {
                Step::Done(result) => self.reply(pending.request, result),
                Step::Ask(goal) => {
                    goals.insert(goal);
                    wanting.push((pending, Some(goal)));
                }
                Step::Wait(reason) => {
                    pending.waiting = reason;
                    wanting.push((pending, None));
                }
            }
        }
        self.asks.retain(|goal, _| goals.contains(goal));
        for goal in goals {
            match self.pursue(goal, now) {
                Progress::Waiting(reason) => {
                    for (pending, _) in wanting.iter_mut().filter(|(_, wanted)| *wanted == Some(goal)) {
                        pending.waiting = Waiting::Somebody(reason.clone());
                    }
                }
                Progress::Failed(error) => {
                    for (pending, _) in wanting.extract_if(.., |(_, wanted)| *wanted == Some(goal)) {
                        self.reply(pending.request, Err(error.clone()));
                    }
                    self.concede(goal);
                }
            }
        }
        self.pending = wanting.into_iter().map(|(pending, _)| pending).collect();
    }

    /// An address that was in dispute and will not come back.
    fn concede(&mut self, goal: Goal) {
        if let Goal::Exactly(address) = goal
            && self.disputed.contains(&address)
            && let Some(owner) = self.cluster.as_ref().and_then(|cluster| cluster.ring().owner_of(address))
        {
            self.give_up(address, owner);
        }
    }

    fn step(&mut self, wish: &Wish) -> Step {
        if self.left && !matches!(wish, Wish::Leave) {
            return Step::Done(Err(IpamError::Refused("this peer has left the cluster".to_owned())));
        }
        match wish {
            Wish::Allocate { id, within } => self.step_allocate(id, *within),
            Wish::Claim { id, address } => self.step_claim(id, *address),
            Wish::Prime if self.cluster.is_some() && self.unseen_seeds().is_none() => {
                Step::Done(Ok(Reply::Done))
            }
            Wish::Prime => Step::Wait(self.seeding_reason()),
            Wish::Leave => self.step_leave(),
        }
    }

    fn step_allocate(&mut self, id: &str, within: Span) -> Step {
        if let Some(address) = self.leases.of_in(id, within) {
            return Step::Done(Ok(Reply::Address(address)));
        }
        if self.cluster.is_none() {
            return Step::Wait(self.seeding_reason());
        }
        if self.quiet.is_some() {
            return Step::Wait(Waiting::Somebody("word from the other owners first".to_owned()));
        }
        match self.space.lowest_in(within) {
            Some(number) => {
                let address = Ipv4Addr::from(number);
                self.lease(id, address);
                Step::Done(Ok(Reply::Address(address)))
            }
            None => Step::Ask(Goal::Within(within)),
        }
    }

    fn step_claim(&mut self, id: &str, address: Ipv4Addr) -> Step {
        let number = u32::from(address);
        if let Some(result) = self.held(id, address) {
            return Step::Done(result);
        }
        if self.cluster.is_none() {
            return Step::Wait(self.seeding_reason());
        }
        if !self.owns(number) {
            return Step::Ask(Goal::Exactly(number));
        }
        if self.is_settling(Span::single(number)) {
            return Step::Wait(Waiting::Somebody("addresses taken over a moment ago".to_owned()));
        }
        self.lease(id, address);
        Step::Done(Ok(Reply::Address(address)))
    }

    /// Answers what has waited to its deadline.
    pub(super) fn expire(&mut self, now: Instant) {
        let waiting = std::mem::take(&mut self.pending).into_iter();
        let (expired, kept): (VecDeque<_>, VecDeque<_>) =
            waiting.partition(|pending| pending.deadline <= now);
        self.pending = kept;
        for pending in expired {
            self.reply(pending.request, Err(pending.waiting.expired()));
        }
    }
}

fn check_id(id: &str) -> Result<(), IpamError> {
    match id.len() {
        0 => Err(IpamError::Refused("an id must not be empty".to_owned())),
        1..=ID_LIMIT => Ok(()),
        long => Err(IpamError::Refused(format!("an id of {long} bytes; at most {ID_LIMIT} are allowed"))),
    }
}
