//! One size of mesh, from random starts to one change that reaches all.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use serde::{Deserialize, Serialize};
use weft_gossip::sim::{NodeId, NodeOptions, Sim};
use weft_gossip::{ChannelName, DeliverKind, Output};

use super::sys;

const IPAM: ChannelName = ChannelName::new("ipam");
const STARTS: Duration = Duration::from_secs(10);
const CHANGES: usize = 20;

/// What was measured. Times are in seconds.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) peers: usize,
    /// Most neighbours of one peer.
    pub(crate) degree: usize,
    /// From the last start until everybody reaches everybody; none: not within a minute.
    pub(crate) converged: Option<f64>,
    /// Bytes that came to a peer until then, in the mean.
    pub(crate) formed: u64,
    /// How long a change took to the last peer: the slowest of twenty.
    pub(crate) slowest: f64,
    /// Peers that a change did not reach, over all changes.
    pub(crate) missed: usize,
    /// How often one change came to a peer, in the mean.
    pub(crate) copies: f64,
    /// Bytes that came to a peer for one change of 100 bytes, above idling.
    pub(crate) change: f64,
    /// Bytes that came to a peer when one peer was killed, above idling.
    pub(crate) loss: f64,
    /// Bytes a second that come to an idle peer.
    pub(crate) idle: f64,
    /// Bytes of memory for each peer, of all that the simulation took.
    pub(crate) memory: usize,
    /// How long it took to simulate.
    pub(crate) took: f64,
}

#[expect(
    clippy::disallowed_methods,
    reason = "an origin for virtual time, and how long the simulation takes"
)]
fn clock() -> Instant {
    Instant::now()
}

/// Runs one size; `degree` bounds the neighbours of a peer.
pub(crate) fn measure(peers: usize, degree: usize, loss: f64) -> Row {
    let (began, before) = (clock(), sys::live());
    let mut sim = Sim::new(7, clock());
    sim.set_loss(loss);
    let (converged, formed) = form(&mut sim, peers, degree);
    let memory = sys::live().saturating_sub(before) / peers;
    sim.set_loss(0.0);
    sim.run_for(Duration::from_secs(5));
    let idle = idle(&mut sim, peers);
    let spread = spread(&mut sim, peers, idle);
    let loss = lose_one(&mut sim, peers, idle);
    Row {
        peers,
        degree,
        converged: converged.map(|time| time.as_secs_f64()),
        formed,
        slowest: spread.slowest.as_secs_f64(),
        missed: spread.missed,
        copies: spread.copies,
        change: spread.bytes,
        loss,
        idle,
        memory,
        took: began.elapsed().as_secs_f64(),
    }
}

/// Starts everybody at a random moment of ten seconds, each with the first as its contact point.
fn form(sim: &mut Sim, peers: usize, degree: usize) -> (Option<Duration>, u64) {
    let mut rng = StdRng::seed_from_u64(11);
    let mut starts: Vec<Duration> = (1..peers).map(|_| STARTS.mul_f64(rng.random())).collect();
    starts.sort_unstable();
    let origin = sim.now();
    let limit = (degree < peers - 1).then_some(degree);
    let options = |targets: &[NodeId]| NodeOptions {
        targets: targets.to_vec(),
        connection_limit: limit,
        channels: vec![IPAM],
        real_curve: false,
        ..NodeOptions::default()
    };
    sim.add(options(&[]));
    for start in starts {
        let wait = (origin + start).saturating_duration_since(sim.now());
        sim.run_for(wait);
        // With few neighbours the first cannot take everybody in: any that runs will do.
        let contact = if limit.is_some() { rng.random_range(0..sim.len()) } else { 0 };
        sim.add(options(&[contact]));
    }
    let last = sim.now();
    while sim.now() < last + Duration::from_secs(60) {
        if whole(sim, peers) {
            return (Some(sim.now() - last), sim.delivered_bytes() / peers as u64);
        }
        sim.run_for(Duration::from_millis(50));
    }
    (None, sim.delivered_bytes() / peers as u64)
}

/// Whether everybody reaches everybody.
fn whole(sim: &Sim, peers: usize) -> bool {
    (0..peers).all(|node| {
        let routes = sim.mesh(node).routes();
        (0..peers).all(|other| other == node || routes.hops(sim.name(other)).is_some())
    })
}

#[expect(clippy::cast_precision_loss, reason = "byte counts far below 2^52")]
fn per_peer(bytes: u64, peers: usize) -> f64 {
    bytes as f64 / peers as f64
}

fn idle(sim: &mut Sim, peers: usize) -> f64 {
    let before = sim.delivered_bytes();
    sim.run_for(Duration::from_secs(30));
    per_peer(sim.delivered_bytes() - before, peers) / 30.0
}

struct Spread {
    slowest: Duration,
    missed: usize,
    copies: f64,
    bytes: f64,
}

/// Twenty changes by random peers, a second apart, on LAN latencies.
fn spread(sim: &mut Sim, peers: usize, idle: f64) -> Spread {
    let mut rng = StdRng::seed_from_u64(13);
    let (mut slowest, mut missed, mut firsts) = (Duration::ZERO, 0, 0);
    let repeated =
        |sim: &Sim| (0..peers).map(|node| sim.mesh(node).counters().broadcasts_repeated).sum::<u64>();
    let (repeats, bytes) = (repeated(sim), sim.delivered_bytes());
    for change in 0..CHANGES {
        let source = rng.random_range(0..peers);
        let mut delta = vec![0; 100];
        delta[0] = u8::try_from(change).unwrap_or(u8::MAX);
        let (sent, until) = (sim.now(), sim.now() + Duration::from_secs(1));
        sim.act(source, |mesh, now| mesh.publish(IPAM, Some(delta.clone()), delta.clone(), now));
        let mut heard: BTreeMap<NodeId, Duration> = BTreeMap::new();
        while let Some((node, output)) = sim.step(until) {
            if let Output::Deliver { kind: DeliverKind::Delta, bytes, .. } = output
                && bytes == delta
            {
                heard.entry(node).or_insert(sim.now() - sent);
            }
        }
        slowest = slowest.max(heard.values().max().copied().unwrap_or_default());
        let all: BTreeSet<NodeId> = (0..peers).filter(|node| *node != source).collect();
        missed += all.iter().filter(|node| !heard.contains_key(node)).count();
        firsts += heard.len();
    }
    let repeats = repeated(sim) - repeats;
    let changes = per_peer(u64::try_from(CHANGES).unwrap_or(1), 1);
    let bytes = (per_peer(sim.delivered_bytes() - bytes, peers) - idle * changes) / changes;
    let copies = 1.0 + per_peer(repeats, firsts.max(1));
    Spread { slowest, missed, copies, bytes }
}

/// What one peer that is killed costs each of the others.
fn lose_one(sim: &mut Sim, peers: usize, idle: f64) -> f64 {
    let before = sim.delivered_bytes();
    sim.kill(peers / 2);
    sim.run_for(Duration::from_secs(2));
    per_peer(sim.delivered_bytes() - before, peers) - idle * 2.0
}
