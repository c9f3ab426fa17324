//! What a user of the mesh would notice.

use super::net::{EVERYONE, Fate, LATENCY, Net, frame, mac, name};
use crate::{
    dataplane::{Carrier, Command, Event, Output},
    sleeve::{keys::KeyLimits, liveness::State, pmtu},
    switch::{offload::VnetHeader, verdict::DropReason},
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

const MILLI: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

fn up(event: &Event) -> bool {
    matches!(event, Event::LinkUp { .. })
}

#[test]
fn frames_of_every_size_cross_a_link_unchanged_in_both_directions() {
    let mut net = Net::mesh(2);
    for length in [22, 60, 590, 1400, 1464, 1514, 9014, 65_549] {
        let there = frame(mac(0), mac(1), length, 1);
        let back = frame(mac(1), mac(0), length, 2);
        net.capture(0, &there);
        net.capture(1, &back);
        net.run(MILLI);
        assert_eq!(net.frames(1).last(), Some(&there), "{length}");
        assert_eq!(net.frames(0).last(), Some(&back), "{length}");
    }
    let counters = net.nodes[0].counters();
    assert_eq!((counters.forwarded.frames, counters.injected.frames), (8, 9));
}

#[test]
fn a_super_frame_crosses_with_its_virtio_header() {
    let mut net = Net::mesh(2);
    let vnet = VnetHeader {
        flags: 1,
        segmentation: 1,
        header_length: 66,
        segment_size: 1448,
        checksum_start: 34,
        checksum_offset: 16,
    };
    let sent = frame(mac(0), mac(1), 65_000, 1);
    net.nodes[0].handle_captured(&sent, Some(vnet), net.now);
    net.drain(0);
    net.run(MILLI);
    assert_eq!(net.injected[1], [(sent, Some(vnet))]);
}

#[test]
fn small_frames_of_one_batch_share_a_datagram() {
    let mut net = Net::mesh(2);
    let frames: Vec<_> = (0..10).map(|mark| frame(mac(0), mac(1), 66, mark)).collect();
    net.capture_all(0, &frames);
    assert_eq!(net.seen.len(), 1);
    net.run(MILLI);
    assert_eq!(net.frames(1), frames);
}

#[test]
fn a_stream_of_frames_slightly_too_large_costs_hardly_more_datagrams_than_frames() {
    let mut net = Net::mesh(2);
    let frames: Vec<_> = (0..40).map(|mark| frame(mac(0), mac(1), 1464, mark)).collect();
    net.capture_all(0, &frames);
    assert!(net.seen.len() <= 43, "{}", net.seen.len());
    net.run(MILLI);
    assert_eq!(net.frames(1), frames);
}

#[test]
fn frames_cross_a_chain_through_relays_whatever_each_hop_takes() {
    for narrow in [1, 2] {
        let mut net = Net::chain(4);
        net.wire = Box::new(move |from, to, bytes| {
            if from.max(to) == narrow && bytes.len() + 28 > 1000 { Fate::Lost } else { Fate::Arrives }
        });
        net.run(SECOND * 70);
        for length in [60, 900, 1464, 30_000] {
            let sent = frame(mac(0), mac(3), length, 5);
            net.capture(0, &sent);
            let back = frame(mac(3), mac(0), length, 6);
            net.capture(3, &back);
            net.run(MILLI * 2);
            assert_eq!(net.frames(3).last(), Some(&sent), "{length}");
            assert_eq!(net.frames(0).last(), Some(&back), "{length}");
        }
        assert!(net.frames(1).is_empty() && net.frames(2).is_empty());
        assert!(net.nodes[1].counters().relayed.frames >= 8);
    }
}

#[test]
fn a_flooded_frame_reaches_everyone_exactly_once() {
    for mut net in [Net::mesh(5), Net::chain(5)] {
        for length in [60, 1464, 20_000] {
            let sent = frame(mac(2), EVERYONE, length, 9);
            net.capture(2, &sent);
            net.run(MILLI * 10);
            for node in [0, 1, 3, 4] {
                assert_eq!(net.frames(node), std::slice::from_ref(&sent), "node {node}");
            }
            assert!(net.frames(2).is_empty());
            net.injected.iter_mut().for_each(Vec::clear);
        }
    }
}

#[test]
fn while_tables_disagree_a_flooded_frame_is_not_multiplied() {
    let mut net = Net::mesh(6);
    // As while a mesh forms: everybody takes everybody else for a child of node 0.
    for node in 1..6 {
        let mut table = net.table(node);
        let others = (1..6).filter(|other| *other != node).map(name);
        table.flood.insert(name(0), others.collect());
        net.command(node, Command::Table(Arc::new(table)));
    }
    let sent = frame(mac(0), EVERYONE, 60, 1);
    net.capture(0, &sent);
    net.run(SECOND);
    for node in 1..6 {
        assert_eq!(net.frames(node), std::slice::from_ref(&sent), "node {node}");
        assert_eq!(net.nodes[node].counters().drops.get(&DropReason::OffTree), Some(&4), "node {node}");
    }
}

/// 1 and 3 both lead from 0 to 2, and 4 is behind 2.
#[test]
fn what_a_relay_gets_by_the_old_tree_and_by_the_new_one_is_delivered_once_there_and_behind_it() {
    let mut net = Net::new(5, true, KeyLimits::default());
    [(0, 1), (0, 3), (1, 2), (2, 3), (2, 4)].into_iter().for_each(|(one, two)| net.connect(one, two));
    net.settle();
    // 3 has heard already that the way to 2 is its own now, 1 not yet that it is none any more, and 3 is far.
    let mut table = net.table(3);
    table.flood.insert(name(0), vec![name(2)]);
    net.command(3, Command::Table(Arc::new(table)));
    net.wire =
        Box::new(|from, to, _| if (from, to) == (3, 2) { Fate::Late(MILLI * 5) } else { Fate::Arrives });
    for (length, repeated) in [(60, 1), (1464, 2), (20_000, 3)] {
        let before = Arc::new(net.table(2));
        net.command(2, Command::Table(before));
        let sent = frame(mac(0), EVERYONE, length, 1);
        net.capture(0, &sent);
        net.run(MILLI * 2);
        let mut after = net.table(2);
        after.upstream.insert(name(0), name(3));
        net.command(2, Command::Table(Arc::new(after)));
        net.run(MILLI * 10);
        for node in [2, 4] {
            assert_eq!(net.frames(node), std::slice::from_ref(&sent), "node {node}, {length}");
            let drops = net.nodes[node].counters().drops;
            assert_eq!(drops.get(&DropReason::Repeated), Some(&repeated), "node {node}, {length}");
        }
        net.injected.iter_mut().for_each(Vec::clear);
    }
}

#[test]
fn a_flooded_frame_that_comes_in_a_circle_is_not_taken_up() {
    let mut net = Net::mesh(4);
    // Wrong on purpose: what comes from 0 goes round and round, and each believes that this is the way.
    for (node, next, before) in [(1, 2, 3), (2, 3, 1), (3, 1, 2)] {
        let mut table = net.table(node);
        table.flood.insert(name(0), vec![name(next)]);
        table.upstream.insert(name(0), name(before));
        net.command(node, Command::Table(Arc::new(table)));
    }
    net.capture(0, &frame(mac(0), EVERYONE, 60, 1));
    net.run(SECOND);
    let delivered: usize = (1..4).map(|node| net.frames(node).len()).sum();
    assert_eq!(delivered, 0);
}

#[test]
fn a_forwarding_loop_ends_at_the_hop_limit() {
    let mut net = Net::mesh(5);
    // Wrong on purpose: what 4 has for 0 goes round and round between the others.
    for (node, next) in [(4, 1), (1, 2), (2, 3), (3, 1)] {
        let mut table = net.table(node);
        table.next_hop.insert(name(0), name(next));
        net.command(node, Command::Table(Arc::new(table)));
    }
    net.capture(4, &frame(mac(4), mac(0), 60, 1));
    net.run(SECOND);
    let counters: Vec<_> = (1..4).map(|node| net.nodes[node].counters()).collect();
    let limit: u64 =
        counters.iter().filter_map(|counters| counters.drops.get(&DropReason::HopLimit).copied()).sum();
    assert_eq!(limit, 1);
    assert_eq!(counters.iter().map(|counters| counters.relayed.frames).sum::<u64>(), 31);
    assert!(net.frames(0).is_empty());
}

#[test]
fn on_fastpath_only_the_tree_beyond_the_neighbour_gets_the_flood() {
    let mut net = Net::chain(3);
    let mut table = net.table(0);
    table.carriers.insert(name(1), Carrier::Fastpath);
    net.command(0, Command::Behind { peer: name(1) });
    net.command(0, Command::Table(Arc::new(table)));
    let sent = frame(mac(0), EVERYONE, 1464, 1);
    net.capture(0, &sent);
    net.run(MILLI);
    assert!(net.frames(1).is_empty(), "the kernel delivers it there");
    assert_eq!(net.frames(2), [sent]);
    net.capture(0, &frame(mac(0), mac(1), 60, 1));
    net.capture(0, &frame(mac(0), mac(2), 60, 1));
    net.run(MILLI);
    assert_eq!((net.frames(1).len(), net.frames(2).len()), (0, 2));
    assert_eq!(net.nodes[0].counters().drops.get(&DropReason::OnFastpath), Some(&1));
}

#[test]
fn no_frame_crosses_between_clusters_that_were_seeded_apart() {
    let mut net = Net::mesh(2);
    for barring in [0, 1] {
        let mut table = net.table(barring);
        table.barred.insert(name(1 - barring));
        net.command(barring, Command::Table(Arc::new(table)));
        for (from, to) in [(0, 1), (1, 0)] {
            net.capture(from, &frame(mac(from), mac(to), 60, 1));
            net.capture(from, &frame(mac(from), EVERYONE, 60, 1));
        }
        net.run(MILLI);
        assert!(net.frames(0).is_empty() && net.frames(1).is_empty());
        let open = net.table(barring);
        net.command(barring, Command::Table(Arc::new(open)));
    }
}

#[test]
fn keys_rotate_under_traffic_without_losing_a_frame() {
    let limits = KeyLimits { age: SECOND * 3, packets: 200 };
    let mut net = Net::new(2, true, limits);
    net.connect(0, 1);
    net.settle();
    let mut sent = Vec::new();
    for mark in 0..3000 {
        sent.push(frame(mac(0), mac(1), 700, mark));
        net.capture(0, &sent[sent.len() - 1]);
        net.run(MILLI * 5);
    }
    assert_eq!(net.frames(1), sent);
    let keys = net.nodes[1].counters().links[&name(0)].keys;
    assert!(keys >= 10, "{keys}");
    assert_eq!(net.nodes[1].counters().refusals, [].into());
}

#[test]
fn a_new_session_and_a_restart_bring_new_keys_and_traffic_goes_on() {
    let mut net = Net::mesh(2);
    let (one, two) = (frame(mac(0), mac(1), 700, 1), frame(mac(0), mac(1), 700, 2));
    net.capture(0, &one);
    net.connect(0, 1);
    net.capture(0, &two);
    net.run(MILLI * 5);
    assert_eq!(
        net.frames(1),
        [one.clone(), two.clone()],
        "nothing is lost when one session replaces another"
    );
    net.restart(1, 77);
    net.run(MILLI * 5);
    net.capture(0, &one);
    net.run(MILLI);
    assert_eq!(net.frames(1).last(), Some(&one));
}

#[test]
fn an_idle_link_that_falls_silent_is_reported_within_1700_ms_and_comes_back() {
    for offset in [0, 130, 470, 810, 990] {
        let mut net = Net::mesh(2);
        net.run(SECOND * 15 + MILLI * offset);
        let silent = Arc::new(AtomicBool::new(true));
        let flag = Arc::clone(&silent);
        net.wire =
            Box::new(move |_, _, _| if flag.load(Ordering::Relaxed) { Fate::Lost } else { Fate::Arrives });
        let began = net.now;
        net.events.iter_mut().for_each(Vec::clear);
        net.run(SECOND * 4);
        for node in [0, 1] {
            let [(suspect, Event::LinkSuspect { .. }), (down, Event::LinkDown { .. })] = net.events[node][..]
            else {
                panic!("{:?}", net.events[node])
            };
            assert!(suspect - began <= MILLI * 1150 && down - began <= MILLI * 1700, "{:?}", down - began);
        }
        silent.store(false, Ordering::Relaxed);
        net.run(SECOND * 2);
        let last = |node: usize| net.events[node].iter().map(|(_, event)| event).find(|event| up(event));
        assert!(last(0).is_some() && last(1).is_some());
        net.capture(0, &frame(mac(0), mac(1), 1464, 1));
        net.run(MILLI);
        assert_eq!(net.frames(1).len(), 1);
        assert_eq!(net.nodes[0].counters().links[&name(1)].mtu, 9000);
    }
}

#[test]
fn a_path_broken_in_one_direction_is_down_at_both_ends() {
    let mut net = Net::mesh(2);
    net.wire = Box::new(|from, _, _| if from == 0 { Fate::Lost } else { Fate::Arrives });
    net.run(SECOND * 6);
    for node in [0, 1] {
        let state = net.nodes[node].counters().links[&name(1 - node)].state;
        assert_eq!(state, State::Down, "node {node}");
    }
}

#[test]
fn a_link_that_never_works_is_reported_down_once() {
    let mut net = Net::new(2, true, KeyLimits::default());
    net.wire = Box::new(|_, _, _| Fate::Lost);
    net.connect(0, 1);
    net.run(SECOND * 20);
    assert!(matches!(net.events[0][..], [(_, Event::LinkDown { .. })]), "{:?}", net.events[0]);
    // Nor does one whose other end never announces a key.
    let mut alone = Net::new(1, true, KeyLimits::default());
    alone.nodes[0]
        .handle_command(Command::AddLink { peer: name(8), session: 1, address: net.addresses[1] }, alone.now);
    let mut downs = Vec::new();
    for _ in 0..40 {
        alone.now += SECOND / 2;
        alone.nodes[0].handle_timeout(alone.now);
        while let Some(output) = alone.nodes[0].poll_output() {
            downs.extend(matches!(output, Output::Event(Event::LinkDown { .. })).then_some(alone.now));
        }
    }
    assert_eq!(downs.len(), 1);
}

#[test]
fn an_mtu_black_hole_is_found_and_frames_still_pass() {
    for limit in [700, 1300] {
        let mut net = Net::mesh(2);
        net.wire = Box::new(move |_, _, bytes| if bytes.len() > limit { Fate::Lost } else { Fate::Arrives });
        // Large frames vanish at first; within five seconds of traffic they pass again.
        for mark in 0..50 {
            net.capture(0, &frame(mac(0), mac(1), 1464, mark));
            net.run(MILLI * 100);
        }
        net.injected[1].clear();
        let sent = frame(mac(0), mac(1), 1464, 99);
        net.capture(0, &sent);
        net.run(SECOND);
        assert_eq!(net.frames(1), [sent], "{limit}");
        let mtu = usize::from(net.nodes[0].counters().links[&name(1)].mtu);
        assert!(mtu <= limit + 28 && mtu + usize::from(pmtu::STEP) >= limit + 28, "{mtu}");
        let changed = |(_, event): &(_, Event)| matches!(event, Event::LinkChanged { mtu: told, .. } if usize::from(*told) == mtu);
        assert!(net.events[0].iter().any(changed), "{:?}", net.events[0]);
    }
}

#[test]
fn a_path_that_is_doubted_is_measured_within_a_second_though_it_carries_nothing() {
    let mut net = Net::mesh(2);
    net.run(SECOND * 5);
    net.wire = Box::new(|_, _, bytes| if bytes.len() > 1200 { Fate::Lost } else { Fate::Arrives });
    net.command(0, Command::Doubt { peer: name(1) });
    net.command(0, Command::Doubt { peer: name(7) });
    net.run(SECOND);
    let mtu = |net: &Net, at: usize| net.nodes[at].counters().links[&name(1 - at)].mtu;
    assert!(mtu(&net, 0) <= 1228, "{}", mtu(&net, 0));
    assert_eq!(mtu(&net, 1), 9000, "the other direction was not doubted");
    let sent = frame(mac(0), mac(1), 1464, 99);
    net.capture(0, &sent);
    net.run(MILLI * 100);
    assert_eq!(net.frames(1), [sent]);
}

#[test]
fn a_link_that_drops_everything_above_700_bytes_from_the_start_works() {
    let mut net = Net::new(2, true, KeyLimits::default());
    net.wire = Box::new(|_, _, bytes| if bytes.len() > 700 { Fate::Lost } else { Fate::Arrives });
    net.connect(0, 1);
    net.settle();
    let sent = frame(mac(0), mac(1), 10_014, 1);
    net.capture(0, &sent);
    net.run(MILLI);
    assert_eq!(net.frames(1), [sent]);
}

#[test]
fn parts_may_overtake_one_another_and_frames_that_lose_one_are_given_up() {
    let mut net = Net::mesh(2);
    let count = AtomicUsize::new(0);
    net.wire = Box::new(move |_, _, _| match count.fetch_add(1, Ordering::Relaxed) % 3 {
        0 => Fate::Late(MILLI * 3),
        1 => Fate::Late(MILLI),
        _ => Fate::Arrives,
    });
    let sent = frame(mac(0), mac(1), 60_000, 1);
    net.capture(0, &sent);
    net.run(MILLI * 5);
    assert_eq!(net.frames(1), [sent]);
    net.injected[1].clear();
    net.wire = Box::new(|_, _, bytes| if bytes.len() > 8000 { Fate::Lost } else { Fate::Arrives });
    net.capture(0, &frame(mac(0), mac(1), 9200, 2));
    net.wire = Box::new(|_, _, _| Fate::Arrives);
    net.run(SECOND * 4);
    assert!(net.frames(1).is_empty());
    assert_eq!(net.nodes[1].counters().links[&name(0)].frames_lost, 1);
}

#[test]
fn a_neighbour_whose_address_changes_is_followed() {
    let mut net = Net::mesh(2);
    net.addresses[1] = "192.0.2.9:40000".parse().unwrap();
    net.capture(1, &frame(mac(1), mac(0), 60, 1));
    net.run(LATENCY * 2);
    let sent = frame(mac(0), mac(1), 60, 2);
    net.capture(0, &sent);
    net.run(LATENCY * 2);
    assert_eq!(net.frames(1), [sent]);
    assert_eq!(net.nodes[0].counters().links[&name(1)].roamed, 1);
    let doubts = |net: &Net| {
        net.events[0].iter().filter(|(_, event)| matches!(event, Event::LinkSuspect { .. })).count()
    };
    assert_eq!(doubts(&net), 1, "its session may lead to where it was");
    net.addresses[1] = "192.0.2.9:40001".parse().unwrap();
    net.capture(1, &frame(mac(1), mac(0), 60, 3));
    net.run(LATENCY * 2);
    assert_eq!(doubts(&net), 1, "one that speaks from everywhere is not doubted with each datagram");
}

#[test]
fn a_change_of_carrier_can_ask_for_proof_and_for_the_addresses_behind_a_peer() {
    let mut net = Net::mesh(2);
    net.run(SECOND * 3 + MILLI * 300);
    net.events[0].clear();
    net.command(0, Command::Prove { peer: name(1) });
    net.run(MILLI * 10);
    assert!(matches!(net.events[0][..], [(_, Event::LinkUp { .. })]), "{:?}", net.events[0]);
    net.events[0].clear();
    net.command(0, Command::Placed { peer: name(1), macs: [mac(9), mac(0)].into() });
    net.command(0, Command::Behind { peer: name(1) });
    let [(_, Event::Behind { peer, macs })] = &net.events[0][..] else { panic!("{:?}", net.events[0]) };
    assert_eq!(*peer, name(1));
    assert!(macs.contains(&mac(9)) && macs.contains(&mac(1)), "{macs:?}");
    net.command(0, Command::Prove { peer: name(7) });
}

#[test]
fn counters_are_reported_when_asked_for() {
    let mut net = Net::mesh(2);
    net.events[0].clear();
    net.command(0, Command::Counters);
    let [(_, Event::Counters(counters))] = &net.events[0][..] else { panic!("{:?}", net.events[0]) };
    assert_eq!(counters.links[&name(1)].state, State::Up);
    assert_eq!(counters.macs, 1);
    net.command(0, Command::Forget { peer: name(1) });
    assert_eq!(net.nodes[0].counters().macs, 0);
    net.command(0, Command::RemoveLink { peer: name(1) });
    net.capture(0, &frame(mac(0), EVERYONE, 60, 1));
    assert_eq!(net.nodes[0].counters().drops.get(&DropReason::NoRoute), Some(&1));
}
