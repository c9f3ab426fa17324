//! Paths that fail in every way: who notices, how soon, and that both ends agree.

use super::host::Did;
use super::world::{MS, SECOND, World, address, config, name};
use crate::dataplane::Carrier;
use crate::overlay::*;

#[test]
fn a_blocked_port_is_left_within_a_second_and_returned_to_within_fifteen() {
    let mut world = World::pair();
    world.vxlan(0, 1, false);
    let took = world.until(SECOND, |world| world.both(0, 1, Carrier::Sleeve));
    assert!(took >= 300 * MS, "not before the retries: {took:?}");
    world.run(SECOND);
    assert_eq!(world.reason(0, 1).to_string(), "VXLAN does not get through (UDP 6784 blocked?)");
    world.run(30 * SECOND);
    world.vxlan(0, 1, true);
    let took = world.until(15 * SECOND, |world| world.both(0, 1, Carrier::Fastpath));
    assert!(took >= 3 * SECOND, "it must have held for a while: {took:?}");
    for (at, other) in [(0, 1), (1, 0)] {
        assert_eq!(world.hosts[at].overlay.neighbour(name(other)).unwrap().changes(), 4, "up, up, down, up");
    }
}

#[test]
fn a_path_blocked_in_one_direction_is_noticed_by_both_ends_whichever_leads() {
    for (from, to) in [(0, 1), (1, 0)] {
        let mut world = World::pair();
        world.way(from, to).vxlan = false;
        world.until(SECOND, |world| world.both(0, 1, Carrier::Sleeve));
        world.run(5 * SECOND);
        assert_eq!(world.reason(to, from), Reason::BlockedHere { port: 6784 });
        assert_eq!(world.reason(from, to), Reason::BlockedThere { port: 6784 });
        world.run(30 * SECOND);
        assert!(world.both(0, 1, Carrier::Sleeve));
        world.way(from, to).vxlan = true;
        world.until(15 * SECOND, |world| world.both(0, 1, Carrier::Fastpath));
    }
}

#[test]
fn a_path_that_takes_only_small_packets_is_not_used_and_both_ends_say_so() {
    let mut world = World::new(vec![config(0), config(1)]);
    (world.way(0, 1).mtu, world.way(1, 0).mtu) = (1300, 1300);
    world.connect(0, 1);
    world.run(10 * SECOND);
    assert!(world.both(0, 1, Carrier::Sleeve), "{}", world.describe(0, 1));
    assert_eq!(world.reason(0, 1).to_string(), "path takes only 1300 bytes: VXLAN needs 1500");
    world.way(0, 1).mtu = 1500;
    world.run(20 * SECOND);
    assert!(world.both(0, 1, Carrier::Sleeve), "one direction is not enough");
    assert!(matches!(world.reason(0, 1), Reason::PathTooSmall { needs: 1500, .. }));
    world.way(1, 0).mtu = 1500;
    world.until(15 * SECOND, |world| world.both(0, 1, Carrier::Fastpath));
}

#[test]
fn a_path_that_shrinks_under_way_is_left_within_two_minutes() {
    let mut world = World::pair();
    world.way(1, 0).mtu = 1400;
    world.until(120 * SECOND, |world| world.both(0, 1, Carrier::Sleeve));
    assert!(matches!(world.reason(0, 1), Reason::PathTooSmall { .. }));
}

#[test]
fn a_path_that_shrinks_while_it_carries_data_is_left_within_five_seconds_and_the_reason_is_its_size() {
    let mut world = World::pair();
    let hosts = [0, 1].map(address);
    for _ in 0..3 {
        for (at, other) in [(0, 1), (1, 0)] {
            world.with(at, |overlay, now| overlay.handle_traffic(&BTreeSet::from([hosts[other]]), now));
        }
        world.run(5 * SECOND);
    }
    assert_eq!(world.hosts[1].doubted, 0);
    world.way(1, 0).mtu = 1400;
    world.until(3 * SECOND / 2, |world| world.hosts[1].doubted == 1);
    assert!(world.both(0, 1, Carrier::Fastpath), "sleeve measures before it is needed");
    world.until(5 * SECOND, |world| world.both(0, 1, Carrier::Sleeve));
    assert_eq!((world.hosts[0].doubted, world.hosts[1].doubted), (0, 1));
    for _ in 0..30 {
        assert!(matches!(world.reason(0, 1), Reason::PathTooSmall { .. }), "{}", world.reason(0, 1));
        world.run(100 * MS);
    }
}

#[test]
fn one_lost_heartbeat_changes_nothing() {
    let mut world = World::pair();
    world.forget_deeds();
    for _ in 0..20 {
        world.vxlan(0, 1, false);
        world.run(200 * MS);
        world.vxlan(0, 1, true);
        world.run(SECOND);
    }
    assert!(world.hosts.iter().all(|host| host.did.is_empty()), "{:?}", world.hosts[0].did);
}

#[test]
fn a_path_that_flaps_is_used_less_and_less_often() {
    let mut world = World::pair();
    world.forget_deeds();
    for _ in 0..40 {
        world.vxlan(0, 1, false);
        world.run(2 * SECOND);
        world.vxlan(0, 1, true);
        world.run(5 * SECOND);
    }
    let left = world.hosts[0].did.iter().filter(|did| **did == Did::Default(name(1), false)).count();
    assert!((1..=3).contains(&left), "left {left} times in 280 s");
    world.until(15 * SECOND, |world| world.both(0, 1, Carrier::Fastpath));
}

#[test]
fn fastpath_is_not_left_for_a_sleeve_that_is_dead_too() {
    let mut world = World::pair();
    world.forget_deeds();
    world.sleeve(0, 1, false);
    world.vxlan(0, 1, false);
    world.run(5 * SECOND);
    assert_eq!(world.carrier(0, 1), None);
    assert!(world.remote(0, 1).unwrap().default && world.remote(1, 0).unwrap().default);
    assert!(world.hosts[0].did.is_empty(), "{:?}", world.hosts[0].did);
    assert!(world.hosts[0].verified > 0, "the session is asked");
    world.sleeve(0, 1, true);
    world.until(3 * SECOND, |world| world.both(0, 1, Carrier::Sleeve));
}

#[test]
fn a_sleeve_that_dies_is_left_for_fastpath_at_once() {
    let mut world = World::pair();
    world.vxlan(0, 1, false);
    world.until(SECOND, |world| world.both(0, 1, Carrier::Sleeve));
    world.run(5 * SECOND);
    world.sleeve(0, 1, false);
    world.run(2 * SECOND);
    assert_eq!(world.carrier(0, 1), None);
    world.vxlan(0, 1, true);
    world.until(3 * SECOND, |world| world.both(0, 1, Carrier::Fastpath));
}

#[test]
fn a_hanging_router_loses_nothing_and_is_not_left() {
    let mut world = World::pair();
    world.forget_deeds();
    // Its kernel goes on, its router neither answers probes nor the session, which is closed as silent.
    world.hosts[1].running = false;
    world.run(SECOND);
    world.with(0, |overlay, now| overlay.handle_lost(name(1), now));
    let (lost, doubled) = world.run_pinging(0, 1, 10 * MS, 30 * SECOND);
    assert_eq!((lost, doubled), (0, 0));
    world.hosts[1].running = true;
    // What it was told before comes out of its socket only now: it must not act on it.
    world.told(0, 1, Told::Change { session: 1, epoch: 9, say: Say::Propose(Stand::Sleeve) });
    let (lost, _) = world.run_pinging(0, 1, 10 * MS, SECOND);
    assert_eq!(lost, 0);
    world.disconnect(0, 1);
    world.connect(0, 1);
    let (lost, doubled) = world.run_pinging(0, 1, 10 * MS, 20 * SECOND);
    assert_eq!((lost, doubled), (0, 0));
    assert!(world.both(0, 1, Carrier::Fastpath));
    assert!(!world.hosts[0].did.contains(&Did::Default(name(1), false)), "{:?}", world.hosts[0].did);
}

#[test]
fn lost_messages_are_said_again() {
    for lose_every in 2..7 {
        let mut world = World::pair();
        world.lose_every = lose_every;
        for _ in 0..4 {
            world.vxlan(0, 1, false);
            world.until(60 * SECOND, |world| world.both(0, 1, Carrier::Sleeve));
            world.vxlan(0, 1, true);
            world.until(90 * SECOND, |world| world.both(0, 1, Carrier::Fastpath));
        }
    }
}

#[test]
fn a_session_that_ends_in_the_middle_of_a_change_leaves_nothing_half_done() {
    // A change takes some 6 ms; the session ends after every one of them in turn.
    for cut in 0..24 {
        for returning in [false, true] {
            let mut world = World::pair();
            if returning {
                world.vxlan(0, 1, false);
                world.until(SECOND, |world| world.both(0, 1, Carrier::Sleeve));
                world.run(20 * SECOND);
            }
            world.forget_deeds();
            world.vxlan(0, 1, returning);
            world.until(16 * SECOND, |world| !world.hosts[1].did.is_empty());
            world.run(cut * MS / 2);
            world.disconnect(0, 1);
            world.run(SECOND);
            world.connect(0, 1);
            let carrier = if returning { Carrier::Fastpath } else { Carrier::Sleeve };
            world.until(16 * SECOND, |world| world.both(0, 1, carrier));
        }
    }
}

#[test]
fn a_kernel_that_does_not_answer_holds_nothing_up_and_is_counted() {
    let mut world = World::pair();
    world.hosts[1].kernel_dead = true;
    world.vxlan(0, 1, false);
    world.until(10 * SECOND, |world| {
        world.carrier(0, 1) == Some(Carrier::Sleeve) && world.carrier(1, 0) == Some(Carrier::Sleeve)
    });
    assert!(world.hosts[1].overlay.counters().kernel_late > 0);
    world.vxlan(0, 1, true);
    world.run(60 * SECOND);
    assert_eq!(world.carrier(0, 1), Some(Carrier::Sleeve), "fastpath needs both kernels");
    assert!(!world.remote(0, 1).unwrap().default);
}

#[test]
fn both_ends_that_notice_at_the_same_moment_make_one_change() {
    let mut world = World::pair();
    world.forget_deeds();
    world.vxlan(0, 1, false);
    world.run(5 * SECOND);
    for (at, other) in [(0, 1), (1, 0)] {
        let carriers = world.hosts[at].did.iter().filter(|did| matches!(did, Did::Carrier(..))).count();
        assert_eq!(carriers, 1, "{:?}", world.hosts[at].did);
        assert_eq!(world.hosts[at].overlay.counters().changes_failed, 0);
        assert_eq!(world.carrier(at, other), Some(Carrier::Sleeve));
    }
    // A proposal by the end that does not lead is no proposal.
    let epoch = 99;
    world.told(1, 0, Told::Change { session: 1, epoch, say: Say::Propose(Stand::Fastpath) });
    world.forget_deeds();
    world.run(SECOND);
    assert!(world.hosts[0].did.iter().all(|did| matches!(did, Did::Accept(_, Some(Accept::Probes)))));
}

/// A firewall that lets TCP pass and swallows UDP.
#[test]
fn where_no_udp_passes_and_the_session_lives_fastpath_is_kept_unless_others_lead_there() {
    let mut world = World::pair();
    let serving = |world: &World, at: usize, other: usize| {
        world.hosts[at].overlay.neighbour(name(other)).unwrap().serving()
    };
    let kept = |world: &World| [(0, 1), (1, 0)].map(|(at, other)| serving(world, at, other).is_some());
    world.vxlan(0, 1, false);
    world.sleeve(0, 1, false);
    world.run(30 * SECOND);
    assert_eq!(
        (kept(&world), world.carrier(0, 1)),
        ([true; 2], None),
        "the kernel may still get something through"
    );
    for at in [0, 1] {
        assert_eq!(world.hosts[at].overlay.stranded().count(), 1);
        world.with(at, |overlay, now| overlay.handle_detours(|_| true, now));
    }
    world.until(SECOND, |world| kept(world) == [false; 2]);
    assert!(world.hosts.iter().all(|host| host.overlay.stranded().count() == 0));
    // What is flooded goes another way.
    world.until(2 * SECOND, |world| {
        [(0, 1), (1, 0)].iter().all(|(at, other)| world.remote(*at, *other).is_none_or(|wish| !wish.default))
    });
    world.vxlan(0, 1, true);
    world.sleeve(0, 1, true);
    world.until(15 * SECOND, |world| world.both(0, 1, Carrier::Fastpath));
}

#[test]
fn a_peer_whose_router_is_silent_too_is_not_left_for_a_detour() {
    let mut world = World::pair();
    world.vxlan(0, 1, false);
    world.sleeve(0, 1, false);
    world.disconnect(0, 1);
    world.run(3 * SECOND);
    assert_eq!(world.hosts[0].overlay.stranded().count(), 0);
    world.with(0, |overlay, now| overlay.handle_detours(|_| true, now));
    world.run(3 * SECOND);
    assert!(world.remote(0, 1).is_some_and(|wish| wish.default), "its kernel may go on forwarding");
}

#[test]
fn forged_and_replayed_probes_are_refused_and_counted() {
    let mut world = World::pair();
    let refused = |world: &World| world.hosts[1].overlay.counters().probes_refused;
    let before = refused(&world);
    let mut forged = vec![1];
    forged.extend(name(0).as_u64().to_be_bytes());
    forged.extend([0xff; 80]);
    for bytes in [forged, vec![], vec![1; 9], vec![2; 64], vec![1; 20_000]] {
        world.with(1, |overlay, now| overlay.handle_probe(&bytes, now));
    }
    assert_eq!(refused(&world), before + 5);
    // The next genuine one, twice.
    let bytes = {
        let overlay = &mut world.hosts[0].overlay;
        let mut at = overlay.poll_timeout().unwrap();
        loop {
            overlay.handle_timeout(at);
            let probe = std::iter::from_fn(|| overlay.poll_output())
                .find_map(|output| if let Output::Probe { bytes, .. } = output { Some(bytes) } else { None });
            match probe {
                Some(bytes) => break bytes,
                None => at = overlay.poll_timeout().unwrap(),
            }
        }
    };
    world.with(1, |overlay, now| overlay.handle_probe(&bytes, now));
    assert_eq!(refused(&world), before + 5);
    world.with(1, |overlay, now| overlay.handle_probe(&bytes, now));
    assert_eq!(refused(&world), before + 6);
}
