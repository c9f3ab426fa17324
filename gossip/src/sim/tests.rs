//! What many meshes do together: come together, relay, fall apart, heal, and keep strangers out.

#![expect(clippy::wildcard_enum_match_arm, reason = "a test looks for one output among all")]

mod frames;

use std::collections::BTreeSet;

use super::*;
use crate::event::{ChannelName, DeliverKind};
use crate::identity::Psk;
use crate::mesh::ConnectionState;
use crate::peer::Incarnation;

const IPAM: ChannelName = ChannelName::new("ipam");
const SECOND: Duration = Duration::from_secs(1);
const MILLISECOND: Duration = Duration::from_millis(1);

#[expect(clippy::disallowed_methods, reason = "an origin for virtual time")]
fn sim(seed: u64) -> Sim {
    Sim::new(seed, Instant::now())
}

fn on_ipam() -> NodeOptions {
    NodeOptions { channels: vec![IPAM], ..NodeOptions::default() }
}

fn alone() -> NodeOptions {
    NodeOptions { discovery: false, ..on_ipam() }
}

fn towards(targets: &[NodeId], options: &NodeOptions) -> NodeOptions {
    NodeOptions { targets: targets.to_vec(), ..options.clone() }
}

/// Every node has a session with every other and knows of all these links.
fn full(sim: &Sim, nodes: &[NodeId]) -> bool {
    nodes.iter().all(|node| {
        let mesh = sim.mesh(*node);
        let neighbours = mesh.peers().filter(|peer| peer.hops == Some(1)).count();
        neighbours == nodes.len() - 1
            && mesh.peers().all(|peer| !peer.reachable || peer.links.len() == nodes.len() - 1)
    })
}

fn reaches(sim: &Sim, from: NodeId, to: NodeId) -> bool {
    sim.mesh(from).routes().hops(sim.name(to)).is_some()
}

fn connected(sim: &Sim, nodes: &[NodeId]) -> bool {
    nodes.iter().all(|from| nodes.iter().all(|to| from == to || reaches(sim, *from, *to)))
}

fn sessions(sim: &Sim, node: NodeId) -> usize {
    sim.mesh(node).connections().filter(|view| view.state == ConnectionState::Established).count()
}

/// Two that called each other at once have two sessions for a moment: that is one neighbour.
fn neighbours(sim: &Sim, node: NodeId) -> usize {
    sim.mesh(node).peers().filter(|peer| peer.hops == Some(1)).count()
}

fn lost(reports: &[(NodeId, Output)]) -> Vec<NodeId> {
    reports
        .iter()
        .filter(|(_, output)| matches!(output, Output::Lost { .. }))
        .map(|(node, _)| *node)
        .collect()
}

fn delivered(reports: &[(NodeId, Output)], wanted: DeliverKind) -> Vec<(NodeId, Vec<u8>)> {
    let bytes = |(node, output): &(NodeId, Output)| match output {
        Output::Deliver { kind, bytes, .. } if *kind == wanted => Some((*node, bytes.clone())),
        _ => None,
    };
    reports.iter().filter_map(bytes).collect()
}

/// A full mesh that grew from one contact point.
fn mesh_of(sim: &mut Sim, count: usize, options: &NodeOptions) -> Vec<NodeId> {
    let nodes: Vec<_> =
        (0..count).map(|node| sim.add(towards(if node == 0 { &[] } else { &[0] }, options))).collect();
    let took = sim.run_until(30 * SECOND, |sim| full(sim, &nodes));
    assert!(took.is_some(), "no full mesh of {count} within 30 s");
    sim.run_for(2 * SECOND);
    nodes
}

#[test]
fn ten_nodes_with_one_contact_point_become_a_full_mesh() {
    let mut sim = sim(1);
    let nodes: Vec<_> =
        (0..10).map(|node| sim.add(towards(if node == 0 { &[] } else { &[0] }, &on_ipam()))).collect();
    let took = sim.run_until(5 * SECOND, |sim| full(sim, &nodes)).expect("a full mesh within 5 s");
    assert!(took < 2 * SECOND, "{took:?}");
    sim.run_for(5 * SECOND);
    for node in &nodes {
        assert_eq!(sessions(&sim, *node), 9, "duplicates are closed");
        assert!(sim.mesh(*node).peers().all(|peer| peer.via.is_none() && peer.reachable));
    }
}

#[test]
fn one_seed_gives_one_run() {
    let run = |seed| {
        let mut sim = sim(seed);
        mesh_of(&mut sim, 6, &on_ipam());
        sim.kill(2);
        sim.run_for(3 * SECOND);
        (sim.delivered(), sim.delivered_bytes())
    };
    assert_eq!(run(7), run(7));
    assert_ne!(run(7), run(8));
}

#[test]
fn fifty_nodes_come_together_whatever_the_seed() {
    for seed in 0..3 {
        let mut sim = sim(seed);
        let nodes = sim.add_chain(50, &on_ipam());
        let took = sim.run_until(20 * SECOND, |sim| full(sim, &nodes));
        assert!(took.is_some_and(|took| took < 10 * SECOND), "seed {seed}: {took:?}");
    }
}

#[test]
fn in_a_chain_a_unicast_is_relayed_and_a_delta_arrives_once() {
    let mut sim = sim(2);
    let nodes = sim.add_chain(6, &alone());
    sim.run_until(5 * SECOND, |sim| connected(sim, &nodes)).expect("connected");
    sim.run_for(SECOND);
    let last = sim.name(5);
    assert_eq!(sim.mesh(0).routes().hops(last), Some(5));
    assert_eq!(sim.mesh(0).peers().find(|peer| peer.name == last).unwrap().via, Some(sim.name(1)));
    sim.act(0, |mesh, now| mesh.unicast(IPAM, last, b"to the end".to_vec(), now));
    sim.act(2, |mesh, now| mesh.publish(IPAM, Some(b"delta".to_vec()), b"state".to_vec(), now));
    let reports = sim.run_for(SECOND / 10);
    assert_eq!(delivered(&reports, DeliverKind::Unicast), [(5, b"to the end".to_vec())]);
    let got: Vec<_> = delivered(&reports, DeliverKind::Delta).into_iter().map(|(node, _)| node).collect();
    assert_eq!(got.len(), 5, "{got:?}");
    assert_eq!(got.into_iter().collect::<BTreeSet<_>>(), [0, 1, 3, 4, 5].into());
}

#[test]
fn a_state_passes_through_a_node_that_does_not_know_its_channel() {
    let mut sim = sim(3);
    let first = sim.add(alone());
    sim.act(first, |mesh, now| mesh.publish(IPAM, None, b"state".to_vec(), now));
    let relay = sim.add(towards(&[first], &NodeOptions { discovery: false, ..NodeOptions::default() }));
    let second = sim.add(towards(&[relay], &alone()));
    let reports = sim.run_for(SECOND);
    assert!(delivered(&reports, DeliverKind::State).contains(&(second, b"state".to_vec())));
    sim.act(first, |mesh, now| mesh.publish(IPAM, Some(b"delta".to_vec()), b"more".to_vec(), now));
    let reports = sim.run_for(SECOND);
    assert_eq!(delivered(&reports, DeliverKind::Delta), [(second, b"delta".to_vec())]);
}

#[test]
fn a_state_without_a_delta_spreads_by_comparison() {
    let mut sim = sim(4);
    let nodes = mesh_of(&mut sim, 8, &on_ipam());
    sim.act(3, |mesh, now| mesh.publish(IPAM, None, b"news".to_vec(), now));
    // The application of each node takes the state it gets, as an allocator would.
    // Whoever was not drawn by any of the others is compared with in their turn, after ten seconds or so.
    let until = sim.now() + 15 * SECOND;
    let mut knows: BTreeSet<_> = [3].into();
    while let Some((node, output)) = sim.step(until) {
        if let Output::Deliver { kind: DeliverKind::State, bytes, .. } = output {
            knows.insert(node);
            sim.act(node, |mesh, now| mesh.publish(IPAM, None, bytes, now));
        }
    }
    assert_eq!(knows, nodes.into_iter().collect());
}

#[test]
fn a_killed_node_is_known_to_be_gone_everywhere_at_once() {
    let mut sim = sim(5);
    let nodes = mesh_of(&mut sim, 10, &on_ipam());
    sim.kill(4);
    let rest: Vec<_> = nodes.into_iter().filter(|node| *node != 4).collect();
    let took = sim
        .run_until(SECOND, |sim| rest.iter().all(|node| !reaches(sim, *node, 4)))
        .expect("known within 1 s");
    assert!(took < 100 * MILLISECOND, "{took:?}");
    let gone = sim.mesh(0).peers().find(|peer| peer.name == sim.name(4)).expect("it stays known");
    assert!(!gone.reachable && gone.hops.is_none());
}

#[test]
fn the_end_of_a_chain_is_known_to_be_gone_at_the_other_end() {
    let mut sim = sim(6);
    let nodes = sim.add_chain(8, &alone());
    sim.run_until(5 * SECOND, |sim| connected(sim, &nodes)).expect("connected");
    sim.run_for(2 * SECOND);
    sim.kill(7);
    let took = sim.run_until(SECOND, |sim| !reaches(sim, 0, 7)).expect("known within 1 s");
    assert!(took < 100 * MILLISECOND, "{took:?}");
}

#[test]
fn a_silent_neighbour_is_lost_400_ms_after_it_was_doubted_and_an_honest_one_is_not() {
    let mut sim = sim(7);
    mesh_of(&mut sim, 3, &on_ipam());
    let (one, two) = (sim.name(1), sim.name(2));
    sim.cut(0, 1);
    assert!(sim.run_for(3 * SECOND).iter().all(|(_, output)| !matches!(output, Output::Lost { .. })));
    sim.act(0, |mesh, now| {
        mesh.verify(one, now);
        mesh.verify(two, now);
    });
    let reports = sim.run_for(399 * MILLISECOND);
    assert!(lost(&reports).is_empty());
    let reports = sim.run_for(MILLISECOND);
    let losses = reports.iter().filter_map(|(node, output)| match output {
        Output::Lost { peer, reason } => Some((*node, *peer, reason.as_str())),
        _ => None,
    });
    assert_eq!(losses.collect::<Vec<_>>(), [(0, one, "silent")]);
    assert_eq!(sim.mesh(0).routes().next_hop(one), Some(two), "the third node relays");
}

#[test]
fn without_any_doubt_silence_is_found_out_after_fifteen_seconds() {
    let mut sim = sim(8);
    let nodes = sim.add_chain(2, &alone());
    sim.run_until(SECOND, |sim| connected(sim, &nodes)).expect("connected");
    sim.cut_one_way(0, 1);
    let took = sim.run_until(30 * SECOND, |sim| !reaches(sim, 1, 0)).expect("found out");
    assert!(took <= 16 * SECOND, "{took:?}");
}

#[test]
fn a_partition_goes_on_on_both_sides_and_heals() {
    let mut sim = sim(9);
    let nodes = mesh_of(&mut sim, 9, &on_ipam());
    let (left, right) = nodes.split_at(4);
    sim.partition(&[left, right]);
    sim.run_until(20 * SECOND, |sim| full(sim, left) && full(sim, right)).expect("two meshes");
    assert!(
        left.iter()
            .all(|one| right.iter().all(|two| !reaches(&sim, *one, *two) && !reaches(&sim, *two, *one)))
    );
    sim.run_for(100 * SECOND);
    sim.heal_all();
    let took = sim.run_until(20 * SECOND, |sim| full(sim, &nodes)).expect("one mesh again");
    assert!(took < 7 * SECOND, "{took:?}");
}

#[test]
fn a_short_cut_that_nobody_noticed_loses_nothing() {
    let mut sim = sim(10);
    let nodes = mesh_of(&mut sim, 5, &on_ipam());
    let (left, right) = nodes.split_at(2);
    sim.partition(&[left, right]);
    sim.act(0, |mesh, now| mesh.publish(IPAM, Some(b"delta".to_vec()), b"state".to_vec(), now));
    sim.run_for(SECOND);
    sim.heal_all();
    let reports = sim.run_for(SECOND);
    assert_eq!(delivered(&reports, DeliverKind::Delta).len(), 3);
    assert!(lost(&reports).is_empty());
}

#[test]
fn a_restarted_node_is_back_with_a_session_to_everyone() {
    for with_memory in [true, false] {
        let mut sim = sim(11);
        let nodes = mesh_of(&mut sim, 6, &on_ipam());
        sim.restart(3, with_memory);
        let took = sim.run_until(20 * SECOND, |sim| full(sim, &nodes)).expect("a full mesh again");
        assert!(took < 3 * SECOND, "memory {with_memory}: {took:?}");
        sim.run_for(5 * SECOND);
        assert!(full(&sim, &nodes));
        assert_eq!(sim.mesh(0).counters().clones, 0, "a quick restart is no clone");
        let incarnation = sim.mesh(3).incarnation();
        assert!(if with_memory { incarnation == Incarnation(2) } else { incarnation >= Incarnation(1) });
    }
}

#[test]
fn a_contact_point_that_restarts_later_is_found_again() {
    let mut sim = sim(12);
    let nodes = [sim.add(alone()), sim.add(towards(&[0], &alone())), sim.add(towards(&[0], &alone()))];
    sim.run_until(SECOND, |sim| connected(sim, &nodes)).expect("connected");
    sim.kill(0);
    sim.run_for(40 * SECOND);
    sim.restart(0, true);
    let took = sim.run_until(20 * SECOND, |sim| connected(sim, &nodes)).expect("found again");
    assert!(took < 6 * SECOND, "{took:?}");
}

#[test]
fn two_that_dial_each_other_at_once_keep_one_session_and_never_lose_each_other() {
    for seed in 0..40 {
        let mut sim = sim(seed);
        let options = |target| towards(&[target], &alone());
        sim.add(options(1));
        sim.add(options(0));
        let reports = sim.run_for(5 * SECOND);
        assert!(lost(&reports).is_empty(), "seed {seed}");
        let kept: Vec<_> = (0..2)
            .map(|node| sim.mesh(node).connections().map(|view| view.session).collect::<Vec<_>>())
            .collect();
        assert_eq!(kept[0].len(), 1, "seed {seed}");
        assert_eq!(kept[0], kept[1], "seed {seed}: both keep the same one");
        for node in 0..2 {
            let last = reports.iter().rev().find_map(|(at, output)| match output {
                Output::Established { session, .. } if *at == node => Some(Some(*session)),
                _ => None,
            });
            assert_eq!(last, Some(kept[0][0]), "seed {seed}: the kept session is the one reported last");
        }
    }
}

#[test]
fn what_is_told_arrives_once_under_the_session_both_report() {
    for seed in 0..20 {
        let mut sim = sim(seed);
        sim.add(towards(&[1], &alone()));
        sim.add(towards(&[0], &alone()));
        // Each tells the other, at every session reported, what that session is.
        let (mut reported, mut heard) = ([0; 2], [Vec::new(), Vec::new()]);
        let until = sim.now() + 5 * SECOND;
        while let Some((node, output)) = sim.step(until) {
            match output {
                Output::Established { peer, session, .. } => {
                    reported[node] = session;
                    sim.act(node, |mesh, now| mesh.tell(peer, session.to_be_bytes().to_vec(), now));
                }
                Output::Told { bytes, .. } => heard[node].push((bytes, reported[node])),
                _ => {}
            }
        }
        for node in 0..2 {
            let (bytes, under) = heard[node].last().expect("told");
            assert_eq!(bytes.as_slice(), reported[node].to_be_bytes(), "seed {seed}");
            assert_eq!(*under, reported[node], "seed {seed}: heard when that session was the reported one");
        }
    }
}

#[test]
fn a_node_that_dials_itself_finds_out_and_says_so() {
    let mut sim = sim(13);
    sim.add(towards(&[0], &alone()));
    sim.run_for(3 * SECOND);
    let view = sim.mesh(0).connections().next().expect("the target is shown");
    assert_eq!(view.state, ConnectionState::Failed);
    assert_eq!(view.error.as_deref(), Some("connected to ourselves"));
    assert_eq!(sim.mesh(0).counters().ourselves, 2, "seen once from each end, and not tried again soon");
}

#[test]
fn a_cloned_machine_is_refused_by_the_neighbours_of_the_first() {
    let mut sim = sim(14);
    let nodes = mesh_of(&mut sim, 3, &on_ipam());
    let clone = sim.add(NodeOptions { identity: Some(2), ..towards(&[0], &alone()) });
    let reports = sim.run_for(10 * SECOND);
    assert!(full(&sim, &nodes) && lost(&reports).is_empty(), "nobody notices");
    assert_eq!(sessions(&sim, clone), 0);
    let error = sim.mesh(clone).connections().next().and_then(|view| view.error).expect("a reason");
    assert!(error.contains("cloned machine") && error.contains("node2"), "{error}");
    for who in [0, clone] {
        let told =
            |(node, output): &(usize, Output)| *node == who && matches!(output, Output::Refused { .. });
        assert!(reports.iter().any(told), "both ends say so in their logs, node {who} does not");
    }
}

#[test]
fn a_cloned_machine_is_refused_where_the_first_is_known_from_afar() {
    let mut sim = sim(15);
    let nodes = sim.add_chain(4, &alone());
    sim.run_until(5 * SECOND, |sim| connected(sim, &nodes)).expect("connected");
    sim.run_for(SECOND);
    let clone = sim.add(NodeOptions { identity: Some(3), ..towards(&[0], &alone()) });
    let reports = sim.run_for(5 * SECOND);
    assert!(lost(&reports).is_empty() && sessions(&sim, clone) == 0);
    assert!(sim.mesh(0).counters().clones > 0);
    sim.kill(3);
    let took = sim.run_until(10 * SECOND, |sim| sessions(sim, clone) == 1).expect("the first is gone");
    assert!(took < 7 * SECOND);
}

#[test]
fn another_secret_is_refused_with_one_report_a_minute() {
    let mut sim = sim(16);
    let secret = NodeOptions { psk: Psk::derive("the secret"), ..alone() };
    sim.add(secret.clone());
    sim.add(towards(&[0], &secret));
    let stranger = sim.add(towards(&[0], &alone()));
    let reports = sim.run_for(50 * SECOND);
    assert!(reaches(&sim, 0, 1) && !reaches(&sim, 0, stranger));
    let view = sim.mesh(stranger).connections().next().expect("the target is shown");
    assert_eq!(view.error.as_deref(), Some("secret differs or message corrupt"));
    assert_eq!(view.state, ConnectionState::Retrying);
    assert!(sim.mesh(0).counters().secret_mismatches > 5);
    let refused =
        reports.iter().filter(|(node, output)| *node == 0 && matches!(output, Output::Refused { .. }));
    assert_eq!(refused.count(), 1);
}

#[test]
fn a_removed_peer_is_forgotten_everywhere_and_comes_back_with_a_higher_incarnation() {
    let mut sim = sim(17);
    let nodes = mesh_of(&mut sim, 5, &on_ipam());
    let (name, rest) = (sim.name(4), &nodes[..4]);
    sim.kill(4);
    sim.run_for(SECOND);
    sim.act(1, |mesh, now| mesh.remove(name, now));
    sim.act(2, |mesh, now| mesh.remove(name, now));
    sim.act(2, |mesh, now| mesh.remove(name, now));
    let forgotten = |sim: &Sim| {
        rest.iter().all(|node| {
            let mesh = sim.mesh(*node);
            mesh.peers().all(|peer| peer.name != name)
                && mesh.connections().all(|view| view.peer.as_ref().is_none_or(|(peer, _)| *peer != name))
        })
    };
    sim.run_until(SECOND, forgotten).expect("forgotten everywhere, dials and all");
    sim.run_for(30 * SECOND);
    assert!(forgotten(&sim));
    sim.restart(4, false);
    let took = sim.run_until(10 * SECOND, |sim| full(sim, &nodes)).expect("back");
    assert!(took < 3 * SECOND && sim.mesh(4).incarnation() > Incarnation(1));
}

#[test]
fn the_connection_limit_holds_and_the_rest_is_relayed() {
    let mut sim = sim(18);
    let limited = NodeOptions { connection_limit: Some(3), ..on_ipam() };
    let nodes = sim.add_chain(8, &limited);
    sim.run_for(30 * SECOND);
    assert!(nodes.iter().all(|node| sessions(&sim, *node) <= 3));
    assert!(connected(&sim, &nodes));
}

fn limited(limit: usize) -> NodeOptions {
    NodeOptions { connection_limit: Some(limit), real_curve: false, ..on_ipam() }
}

/// With a limit others send through the link as soon as they hear of it, and by then it must carry.
#[test]
fn with_a_limit_a_new_link_between_acquaintances_is_told_half_a_second_later() {
    for (options, at_least) in [(limited(8), 450 * MILLISECOND), (on_ipam(), Duration::ZERO)] {
        let mut sim = sim(54);
        sim.add_chain(3, &NodeOptions { discovery: false, ..options });
        sim.run_for(5 * SECOND);
        sim.act(0, |mesh, now| mesh.add_targets(vec![Target::from(Sim::address(2))], now));
        sim.run_until(SECOND, |sim| neighbours(sim, 0) == 2).expect("a session");
        let links =
            |sim: &Sim| sim.mesh(1).peers().find(|peer| peer.name == sim.name(0)).map(|peer| peer.links);
        let told = |sim: &Sim| links(sim).is_some_and(|links| links.contains(&sim.name(2)));
        let took = sim.run_until(2 * SECOND, told).expect("told");
        assert!((at_least..at_least + 200 * MILLISECOND).contains(&took), "{took:?}");
    }
}

#[test]
fn a_newcomer_gets_in_where_everybody_is_at_the_limit() {
    let mut sim = sim(22);
    let mut nodes = mesh_of(&mut sim, 5, &limited(4));
    assert!(nodes.iter().all(|node| neighbours(&sim, *node) == 4), "nobody has room");
    for _ in 0..3 {
        nodes.push(sim.add(towards(&[0], &limited(4))));
        let took = sim.run_until(10 * SECOND, |sim| connected(sim, &nodes)).expect("all in one mesh");
        assert!(took < SECOND, "{took:?}");
        sim.run_for(5 * SECOND);
        assert!(connected(&sim, &nodes) && nodes.iter().all(|node| neighbours(&sim, *node) <= 4));
    }
}

/// The contact point is the only way to either of its neighbours, so it can spare neither.
#[test]
fn a_stranger_at_a_full_contact_point_is_told_of_others_and_gets_in_there() {
    let mut sim = sim(53);
    let contact = sim.add(limited(2));
    let nodes = [(); 2].map(|()| sim.add(towards(&[contact], &limited(2))));
    sim.cut(nodes[0], nodes[1]);
    let all = [contact, nodes[0], nodes[1]];
    sim.run_until(10 * SECOND, |sim| connected(sim, &all)).unwrap();
    let stranger = sim.add(towards(&[contact], &limited(2)));
    let took = sim.run_until(10 * SECOND, |sim| connected(sim, &[contact, nodes[0], nodes[1], stranger]));
    assert!(took.is_some_and(|took| took < 2 * SECOND), "{took:?}");
}

#[test]
fn two_meshes_at_the_limit_become_one_when_they_hear_of_each_other() {
    let mut sim = sim(23);
    let first = mesh_of(&mut sim, 4, &limited(3));
    let second: Vec<_> =
        (0..4).map(|node| sim.add(towards(if node == 0 { &[] } else { &[4] }, &limited(3)))).collect();
    sim.run_until(10 * SECOND, |sim| full(sim, &second)).expect("the second mesh");
    let nodes = [first, second].concat();
    sim.act(1, |mesh, now| mesh.add_targets(vec![Target::from(Sim::address(6))], now));
    sim.run_until(10 * SECOND, |sim| connected(sim, &nodes)).expect("one mesh");
    let groups: [&[NodeId]; 2] = [&[0, 1, 2, 3], &[4, 5, 6, 7]];
    sim.partition(&groups);
    sim.run_until(60 * SECOND, |sim| !connected(sim, &nodes)).expect("two");
    sim.run_for(60 * SECOND);
    sim.heal_all();
    sim.run_until(60 * SECOND, |sim| connected(sim, &nodes)).expect("one mesh again");
    assert!(nodes.iter().all(|node| neighbours(&sim, *node) <= 3));
}

#[test]
fn a_mesh_of_many_with_few_neighbours_each_is_no_archipelago() {
    for seed in 0..2 {
        let (mut sim, mut chance) = (sim(200 + seed), StdRng::seed_from_u64(seed));
        let mut nodes = vec![sim.add(limited(5))];
        for _ in 1..30 {
            sim.run_for(chance.random_range(0..100) * MILLISECOND);
            let contact = chance.random_range(0..nodes.len());
            nodes.push(sim.add(towards(&[contact], &limited(5))));
        }
        let took = sim.run_until(20 * SECOND, |sim| connected(sim, &nodes));
        assert!(took.is_some_and(|took| took < 10 * SECOND), "seed {seed}: {took:?}");
        sim.run_for(5 * SECOND);
        assert!(connected(&sim, &nodes) && nodes.iter().all(|node| neighbours(&sim, *node) <= 5));
    }
}

#[test]
fn forgotten_targets_are_dialled_no_more_and_live_sessions_stay() {
    let mut sim = sim(19);
    sim.add(alone());
    sim.add(towards(&[0], &alone()));
    sim.run_for(SECOND);
    let target = Target::from(Sim::address(0));
    sim.act(1, |mesh, now| mesh.forget_targets(vec![target.clone()], now));
    sim.run_for(SECOND);
    assert!(reaches(&sim, 1, 0) && sim.mesh(1).targets().is_empty());
    sim.restart(0, true);
    sim.run_for(10 * SECOND);
    assert!(!reaches(&sim, 1, 0));
    sim.act(1, |mesh, now| mesh.replace_targets(vec![target], now));
    sim.run_until(SECOND, |sim| reaches(sim, 1, 0)).expect("dialled at once");
}

#[test]
fn meshes_launched_alone_become_one_when_a_target_is_added() {
    let mut sim = sim(20);
    let first = mesh_of(&mut sim, 4, &on_ipam());
    let second: Vec<_> =
        (0..4).map(|node| sim.add(towards(if node == 0 { &[] } else { &[4] }, &on_ipam()))).collect();
    sim.run_until(10 * SECOND, |sim| full(sim, &second)).expect("the second mesh");
    let nodes = [first, second].concat();
    sim.act(1, |mesh, now| mesh.add_targets(vec![Target::from(Sim::address(6))], now));
    let took = sim.run_until(10 * SECOND, |sim| full(sim, &nodes)).expect("one mesh");
    assert!(took < 2 * SECOND, "{took:?}");
}

#[test]
fn an_idle_mesh_says_next_to_nothing() {
    let mut sim = sim(21);
    mesh_of(&mut sim, 3, &on_ipam());
    sim.run_for(30 * SECOND);
    let before = sim.delivered();
    sim.run_for(100 * SECOND);
    let each = (sim.delivered() - before) / 3;
    assert!(each < 100, "{each} messages to each of three nodes in 100 idle seconds");
}

#[test]
fn after_random_cuts_kills_and_restarts_everything_comes_together_again() {
    for seed in 0..6 {
        let mut sim = sim(100 + seed);
        let nodes = mesh_of(&mut sim, 8, &on_ipam());
        let mut chance = StdRng::seed_from_u64(seed);
        for _ in 0..40 {
            let (one, two) = (chance.random_range(0..8), chance.random_range(0..8));
            match chance.random_range(0..6) {
                0 | 1 => sim.cut(one, two),
                2 => sim.cut_one_way(one, two),
                3 => sim.heal(one, two),
                4 => sim.kill(one),
                _ => sim.restart(one, chance.random()),
            }
            sim.run_for(chance.random_range(0..3000) * MILLISECOND);
        }
        sim.heal_all();
        for node in &nodes {
            if !sim.is_running(*node) {
                sim.restart(*node, true);
            }
        }
        let took = sim.run_until(60 * SECOND, |sim| full(sim, &nodes));
        assert!(took.is_some_and(|took| took < 20 * SECOND), "seed {seed}: {took:?}");
    }
}
