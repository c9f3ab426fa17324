//! What people and containers do: attach, detach, talk. Every request is made again until it is answered.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use rand::RngExt as _;
use weft_api::{ApiError, Attach, Request, Response};
use weft_fastpath::MacAddr;
use weft_router::node::CallId;

use super::World;
use super::agenda::{Event, HostId};
use super::bridge::{self, Port};

/// The ethertype that containers talk under: for testing (RFC 9542 and the IEEE's list call it loopback).
const TALK: [u8; 2] = [0x90, 0x00];
/// How long a call for an address may wait.
const TIMEOUT_MS: u64 = 5_000;

/// Something that somebody wants.
#[derive(Debug)]
pub(super) enum Errand {
    /// A new container on a host.
    Create(HostId),
    /// Wire it.
    Attach(usize),
    /// The container ends: its namespace goes first, or its wiring.
    Remove { container: usize, namespace_first: bool },
    /// Undo its wiring.
    Detach(usize),
    /// Its namespace goes.
    Vanish(usize),
    /// Another machine takes a dead one's place.
    Replace(HostId),
    /// Some container talks to some other; goes on while the world does, the more often the more hosts there are.
    Chatter,
    /// Somebody removes a peer that is gone for good.
    Expel { by: HostId, name: String },
}

/// What a call was about.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) container: usize,
    what: What,
}

#[derive(Clone, Copy, Debug)]
enum What {
    Attach,
    Detach,
    Expel,
}

/// One container, from its birth; never forgotten, so its number stays its own.
#[derive(Clone, Debug)]
pub(super) struct Container {
    pub(super) host: HostId,
    pub(super) id: String,
    /// Its namespace is there.
    pub(super) alive: bool,
    /// The address its caller was told.
    pub(super) address: Option<Ipv4Addr>,
}

/// What a frame of a container says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Talk {
    pub(super) number: u64,
    pub(super) from: usize,
    /// Whom it is for; none: everybody.
    pub(super) to: Option<usize>,
    pub(super) question: bool,
}

impl Talk {
    fn frame(self, to: MacAddr, from: MacAddr, size: usize) -> Vec<u8> {
        let everybody = u64::MAX;
        let mut bytes = vec![u8::from(self.question)];
        bytes.extend(self.number.to_be_bytes());
        bytes.extend((self.from as u64).to_be_bytes());
        bytes.extend(self.to.map_or(everybody, |to| to as u64).to_be_bytes());
        bytes.resize(size.max(bytes.len()), 0);
        bridge::frame(to, from, TALK, &bytes)
    }

    /// Reads what [`Talk::frame`] made.
    pub(super) fn read(frame: &[u8]) -> Option<Self> {
        if frame.get(12..14)? != TALK {
            return None;
        }
        let number = |at: usize| Some(u64::from_be_bytes(frame.get(at..at + 8)?.try_into().ok()?));
        let to = number(31)?;
        Some(Self {
            question: *frame.get(14)? == 1,
            number: number(15)?,
            from: usize::try_from(number(23)?).ok()?,
            to: usize::try_from(to).ok().filter(|_| to != u64::MAX),
        })
    }
}

impl World {
    pub(super) fn errand(&mut self, errand: Errand) {
        match errand {
            Errand::Create(host) => {
                let container = self.containers.len();
                let id = format!("c{container}");
                self.containers.push(Container { host, id, alive: true, address: None });
                self.ask(container, What::Attach);
            }
            Errand::Attach(container) => self.ask(container, What::Attach),
            Errand::Detach(container) => self.ask(container, What::Detach),
            Errand::Remove { container, namespace_first } => self.remove(container, namespace_first),
            Errand::Vanish(container) => self.vanish(container),
            Errand::Replace(host) => self.replace(host),
            Errand::Chatter => self.chatter(),
            Errand::Expel { by, name } => self.expel(by, name),
        }
    }

    /// A container ends.
    fn remove(&mut self, container: usize, namespace_first: bool) {
        if !self.containers[container].alive {
            return;
        }
        self.containers[container].alive = false;
        self.note(|| format!("c{container} ends, its namespace first: {namespace_first}"));
        if namespace_first {
            self.vanish(container);
        }
        self.ask(container, What::Detach);
    }

    /// A namespace is gone, and what was promised to it with it.
    pub(super) fn vanish(&mut self, container: usize) {
        let host = self.containers[container].host;
        self.containers[container].alive = false;
        let bridge = self.hosts[host].bridge.clone();
        self.hosts[host].kernel.vanish(&bridge, container);
        self.plan_look(host);
        self.check_addresses(host);
    }

    fn ask(&mut self, container: usize, what: What) {
        let Container { host, id, alive, .. } = self.containers[container].clone();
        let request = match what {
            What::Attach if !alive => return,
            What::Attach => Request::Attach(Attach {
                id: Some(id.clone()),
                addresses: Vec::new(),
                ifname: "eth0".into(),
                default_route: true,
                netns: format!("/run/netns/{id}"),
                netns_inode: container as u64,
                timeout_ms: TIMEOUT_MS,
            }),
            What::Detach => {
                // Whoever asks for that gives the promise up.
                self.containers[container].address = None;
                Request::Detach { id: Some(id), netns: String::new(), netns_inode: None }
            }
            What::Expel => return,
        };
        self.call(host, Asked { container, what }, request);
    }

    fn expel(&mut self, by: HostId, name: String) {
        let asked = Asked { container: usize::MAX, what: What::Expel };
        self.call(by, asked, Request::PeerRemove { name, force: false });
    }

    fn call(&mut self, host: HostId, asked: Asked, request: Request) {
        let now = self.hosts[host].clock.at(self.now);
        let stopped = self.hosts[host].stopped > self.now;
        let Some(process) = self.hosts[host].process.as_mut().filter(|_| !stopped) else {
            return self.again(asked);
        };
        let call = CallId(process.next_call);
        process.next_call += 1;
        let line = format!("host{host} is asked {asked:?}");
        process.calls.insert(call, asked);
        process.node.handle_call(call, request, now);
        self.note(|| line);
        self.drain_node(host);
    }

    /// Asks once more, after a while.
    fn again(&mut self, asked: Asked) {
        let pause = Duration::from_millis(self.rng.random_range(200..1_500));
        let errand = match asked.what {
            What::Attach => Errand::Attach(asked.container),
            What::Detach => Errand::Detach(asked.container),
            What::Expel => return,
        };
        self.agenda.put(self.now + pause, Event::Errand(errand));
    }

    /// The process died with these calls.
    pub(super) fn workload_lost(&mut self, calls: BTreeMap<CallId, Asked>) {
        calls.into_values().for_each(|asked| self.again(asked));
    }

    pub(super) fn answered(&mut self, host: HostId, call: CallId, result: Result<Response, ApiError>) {
        let asked = self.hosts[host].process.as_mut().and_then(|process| process.calls.remove(&call));
        let Some(asked) = asked else {
            return self.break_off(format!("host{host} answers {call:?} twice"));
        };
        match (asked.what, result) {
            (What::Attach, Ok(Response::Addresses(addresses))) => {
                let address = addresses.first().and_then(|text| text.split('/').next()?.parse().ok());
                self.attached(host, asked.container, address);
            }
            (What::Attach, Ok(other)) => {
                self.break_off(format!("host{host} answers an attachment with {other:?}"));
            }
            // Whoever had it unwired ends it now.
            (What::Detach, Ok(_)) => {
                let at = self.now + Duration::from_millis(self.rng.random_range(0..1_000));
                self.agenda.put(at, Event::Errand(Errand::Vanish(asked.container)));
            }
            (What::Expel, Ok(_)) => {}
            (What::Attach | What::Detach | What::Expel, Err(error)) => {
                self.note(|| format!("host{host} refuses {asked:?}: {}", error.message));
                self.again(asked);
            }
        }
    }

    fn attached(&mut self, host: HostId, container: usize, address: Option<Ipv4Addr>) {
        let Some(address) = address else {
            return self.break_off(format!("host{host} gave no address that can be read"));
        };
        if !self.containers[container].alive {
            return;
        }
        self.containers[container].address = Some(address);
        self.note(|| format!("c{container} on host{host} has {address}"));
        self.check_promise(host, container, address);
        // As a container's stack does when its interface comes up.
        self.say(container, None, 46);
    }

    /// A container says something to another, or to everybody.
    pub(super) fn say(&mut self, from: usize, to: Option<usize>, size: usize) -> Option<u64> {
        let mac = |container: usize| self.containers[container].address.map(MacAddr::from_ip);
        let source = mac(from)?;
        let target = to.map_or(Some(MacAddr::BROADCAST), mac)?;
        self.talks += 1;
        let talk = Talk { number: self.talks, from, to, question: true };
        self.reference.sent(talk, self.now);
        let frame = talk.frame(target, source, size);
        let host = self.containers[from].host;
        self.agenda.put(self.now, Event::Sends { host, container: from, frame });
        Some(self.talks)
    }

    pub(super) fn sends(&mut self, host: HostId, container: usize, frame: &[u8]) {
        if self.hosts[host].kernel.bridge.ports.contains_key(&container) {
            self.bridge_in(host, Port::Container(container), frame);
        }
    }

    /// A frame came out of a container's port.
    pub(super) fn receive(&mut self, host: HostId, container: usize, frame: &[u8]) {
        let Some(mac) = self.hosts[host].kernel.bridge.ports.get(&container).copied() else { return };
        let Some(to) = frame.get(..6).and_then(MacAddr::from_slice) else { return };
        let Some(talk) = Talk::read(frame).filter(|_| to == mac || to == MacAddr::BROADCAST) else { return };
        if talk.from == container {
            return;
        }
        let first = self.received(host, container, talk);
        if first && talk.question && talk.to == Some(container) {
            let Some(from) = frame.get(6..12).and_then(MacAddr::from_slice) else { return };
            let reply = Talk { number: talk.number, from: container, to: Some(talk.from), question: false };
            let frame = reply.frame(from, mac, frame.len() - 14);
            let lag = Duration::from_micros(20);
            self.agenda.put(self.now + lag, Event::Sends { host, container, frame });
        }
    }

    fn chatter(&mut self) {
        let talkers: Vec<usize> = self.speakers().collect();
        if talkers.len() > 1 {
            let from = talkers[self.rng.random_range(0..talkers.len())];
            let to = talkers[self.rng.random_range(0..talkers.len())];
            if from != to {
                let size = if self.rng.random_ratio(1, 8) { 1_450 } else { 60 };
                self.say(from, Some(to), size);
            }
        }
        if self.chatting {
            let hosts = u32::try_from(self.hosts.len()).unwrap_or(u32::MAX);
            let gap = Duration::from_millis(self.rng.random_range(5..80)) / hosts.max(1);
            self.agenda.put(self.now + gap, Event::Errand(Errand::Chatter));
        }
    }

    /// The containers that live and have been told their address.
    pub(super) fn speakers(&self) -> impl Iterator<Item = usize> {
        let speaks = |(_, container): &(usize, &Container)| container.alive && container.address.is_some();
        self.containers.iter().enumerate().filter(speaks).map(|(at, _)| at)
    }
}
