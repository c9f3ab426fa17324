//! An allocator among peers that say whatever they like.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use weft_gossip::PeerName;
use weft_router::ipam::{
    Allocator, AllocatorConfig, Command, InitMode, Output, PeerKnowledge, RequestId, Snapshot,
};

use super::decoders::parts;

/// Most outputs of one step: more would be an avalanche.
const OUTPUTS: usize = 10_000;

fn name(peer: u8) -> PeerName {
    PeerName::from_u64(u64::from(peer) + 1)
}

fn make(me: u8, disk: Option<Snapshot>, now: Instant) -> Allocator {
    let range = "10.32.0.0/26".parse().expect("a range");
    let config = AllocatorConfig { range, init: InitMode::Consensus(Some(1)), peers_given: 2 };
    Allocator::new(config, name(me), format!("host{me}"), 1, disk, 5, now)
}

struct Half {
    allocator: Allocator,
    now: Instant,
    requests: u64,
    said: Vec<Vec<u8>>,
}

impl Half {
    fn new(me: u8) -> Self {
        let now = super::start();
        let mut half = Self { allocator: make(me, None, now), now, requests: 0, said: Vec::new() };
        half.meet(0b111);
        half
    }

    fn meet(&mut self, reachable: u8) {
        let knowledge = |peer: u8| PeerKnowledge {
            nickname: format!("host{peer}"),
            reachable: reachable & 1 << peer != 0,
            incarnation: 1,
        };
        let peers: BTreeMap<_, _> = (1..4).map(|peer| (name(peer), knowledge(peer - 1))).collect();
        self.allocator.handle_peers(peers, self.now);
        self.drain();
    }

    fn command(&mut self, command: Command) {
        self.requests += 1;
        let deadline = self.now + Duration::from_secs(2);
        self.allocator.handle_command(RequestId(self.requests), command, deadline, self.now);
        self.drain();
    }

    fn wait(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some(due) = self.allocator.poll_timeout().filter(|due| *due <= until) {
            self.now = self.now.max(due);
            self.allocator.handle_timeout(self.now);
            let next = self.allocator.poll_timeout();
            assert!(next.is_none_or(|next| next > self.now), "a timer does not advance");
            self.drain();
        }
        self.now = until;
    }

    fn drain(&mut self) {
        for count in 0.. {
            assert!(count < OUTPUTS, "it never ends");
            match self.allocator.poll_output() {
                Some(Output::Unicast { bytes, .. }) => self.said.push(bytes),
                Some(Output::Publish { delta, state }) => {
                    self.said.extend(delta);
                    self.said.push(state);
                }
                Some(_) => {}
                None => break,
            }
        }
    }

    fn order(&mut self, rest: &[u8]) {
        let [verb, which, ..] = *rest else { return };
        let id = format!("id{}", which % 8);
        let address = Ipv4Addr::from(0x0a20_0000 + u32::from(which));
        self.command(match verb % 6 {
            0 => Command::Allocate { id, within: None },
            1 => Command::Claim { id, address },
            2 => Command::Release { id, address: None },
            3 => Command::RemovePeer { peer: name(which % 4), force: verb & 64 != 0 },
            4 => Command::Prime,
            _ => Command::Leave,
        });
    }
}

/// Gossip, letters, commands, peers that come and go, restarts and time, as the first byte of each part says.
pub(super) fn drive(bytes: &[u8]) {
    let mut half = Half::new(0);
    for part in parts(bytes) {
        let Some((kind, rest)) = part.split_first() else { continue };
        let from = name(1 + (kind >> 6) % 3);
        match kind & 7 {
            0 | 1 => half.allocator.handle_gossip(from, rest, half.now),
            2 | 3 => half.allocator.handle_unicast(from, rest, half.now),
            4 => half.order(rest),
            5 => half.meet(rest.first().copied().unwrap_or(0)),
            6 => {
                half.allocator = make(0, Some(half.allocator.snapshot()), half.now);
                half.meet(0b111);
            }
            _ => half.wait(Duration::from_millis(rest.first().map_or(5, |tens| u64::from(*tens) * 20))),
        }
        half.drain();
        half.check();
    }
    half.wait(Duration::from_secs(20));
    half.check();
}

impl Half {
    fn check(&self) {
        let status = self.allocator.status();
        let owned: u64 = status.owners.iter().map(|(_, count)| count).sum();
        assert!(owned == 0 || owned == 64, "the ring covers {owned} of 64 addresses");
    }
}

/// What allocators really said.
pub(super) fn messages() -> Vec<Vec<u8>> {
    let mut said = said();
    said.dedup_by_key(|bytes| (bytes.first().copied(), bytes.len()));
    said
}

fn said() -> Vec<Vec<u8>> {
    let (mut one, mut two) = (Half::new(0), Half::new(1));
    one.order(&[0, 1]);
    for round in 0..12 {
        for bytes in std::mem::take(&mut one.said) {
            two.allocator.handle_unicast(name(0), &bytes, two.now);
            two.drain();
            two.requests += 1000;
            one.requests += 1;
            if round < 11 {
                keep().lock().expect("one thread").push(bytes);
            }
        }
        for bytes in std::mem::take(&mut two.said) {
            one.allocator.handle_unicast(name(1), &bytes, one.now);
            one.drain();
            keep().lock().expect("one thread").push(bytes);
        }
        two.order(&[round % 2, 40 + round]);
        one.order(&[round % 3, 9 + round]);
        one.wait(Duration::from_millis(700));
        two.wait(Duration::from_millis(700));
    }
    two.order(&[3 | 64, 0]);
    keep().lock().expect("one thread").append(&mut two.said);
    std::mem::take(&mut *keep().lock().expect("one thread"))
}

fn keep() -> &'static std::sync::Mutex<Vec<Vec<u8>>> {
    static KEPT: std::sync::Mutex<Vec<Vec<u8>>> = std::sync::Mutex::new(Vec::new());
    &KEPT
}

pub(super) fn conversations() -> Vec<Vec<u8>> {
    let messages = messages();
    let letters = messages.iter().map(|bytes| [&[2][..], bytes].concat());
    let letters: Vec<Vec<u8>> = letters.flat_map(|letter| [letter, vec![4, 0, 3], vec![7, 30]]).collect();
    let orders = [
        vec![4, 0, 1],
        vec![7, 200],
        vec![4, 1, 9],
        vec![4, 3 | 64, 1],
        vec![6],
        vec![5, 0],
        vec![7, 200],
        vec![4, 2, 1],
        vec![4, 5, 0],
    ];
    vec![super::join(&letters), super::join(&orders), super::join(orders.iter().chain(&letters).take(200))]
}
