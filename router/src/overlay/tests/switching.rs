//! Which carrier is chosen, why, and that a change does what it must in the order that loses nothing.

use super::host::Did;
use super::world::{MS, SECOND, World, config, name};
use crate::dataplane::Carrier;
use crate::overlay::*;

#[test]
fn two_open_hosts_are_on_fastpath_within_a_second_and_say_why() {
    let mut world = World::new(vec![config(0), config(1)]);
    world.connect(0, 1);
    world.until(SECOND, |world| world.both(0, 1, Carrier::Fastpath));
    for (at, other) in [(0, 1), (1, 0)] {
        let neighbour = world.hosts[at].overlay.neighbour(name(other)).unwrap();
        assert_eq!(neighbour.reason(), &Reason::Clear);
        assert_eq!(neighbour.mtu(), Some(1500));
        assert!(neighbour.rtt().is_some());
        assert_eq!(world.hosts[at].overlay.remembered().len(), 1);
    }
}

#[test]
fn without_sleeve_fastpath_serves_alone() {
    let bare = |at| Config { sleeve: None, ..config(at) };
    let mut world = World::new(vec![bare(0), config(1)]);
    world.connect(0, 1);
    world.until(SECOND, |world| world.both(0, 1, Carrier::Fastpath));
    world.vxlan(0, 1, false);
    world.run(5 * SECOND);
    assert_eq!(world.carrier(0, 1), None);
    assert!(world.reason(0, 1).to_string().contains("(UDP 6784 blocked?)"), "{}", world.reason(0, 1));
    assert!(world.remote(0, 1).unwrap().default, "left only for a carrier that works");
    world.vxlan(0, 1, true);
    world.until(5 * SECOND, |world| world.both(0, 1, Carrier::Fastpath));
}

#[test]
fn what_keeps_two_hosts_from_fastpath_is_named_at_both_ends() {
    let secret = |at| Config { encrypted: true, ..config(at) };
    let trusting = |at| Config { trusted: vec!["10.99.0.0/16".parse().unwrap()], ..secret(at) };
    let off = |at| Config { fastpath: None, ..config(at) };
    let other = |at| Config { fastpath: Some(4789), ..config(at) };
    let differ = |ours, theirs| Reason::PortsDiffer { ours, theirs };
    for (a, b, reason, there) in [
        (secret(0), secret(1), Reason::NotTrusted, Reason::NotTrusted),
        (trusting(0), secret(1), Reason::NotTrustedThere, Reason::NotTrusted),
        (off(0), config(1), Reason::FastpathOffHere, Reason::FastpathOffThere),
        (other(0), config(1), differ(4789, 6784), differ(6784, 4789)),
    ] {
        let mut world = World::new(vec![a, b]);
        world.connect(0, 1);
        world.run(20 * SECOND);
        assert!(world.both(0, 1, Carrier::Sleeve), "{}", world.describe(0, 1));
        assert_eq!((world.reason(0, 1), world.reason(1, 0)), (reason, there));
        assert!(world.remote(0, 1).is_none(), "nothing is let in that is not wanted");
    }
    let mut world = World::new(vec![trusting(0), trusting(1)]);
    world.connect(0, 1);
    world.until(SECOND, |world| world.both(0, 1, Carrier::Fastpath));
    assert_eq!(world.reason(0, 1), Reason::Trusted);
}

#[test]
fn a_kernel_that_cannot_is_said_to_both_and_one_that_can_again_is_used() {
    let mut world = World::pair();
    world.with(1, |overlay, now| overlay.handle_kernel_ready(Err("port 6784 in use".into()), now));
    world.until(SECOND, |world| world.both(0, 1, Carrier::Sleeve));
    assert_eq!(world.reason(0, 1).to_string(), "fastpath is not possible at the peer: port 6784 in use");
    assert_eq!(world.reason(1, 0).to_string(), "fastpath is not possible here: port 6784 in use");
    world.with(1, |overlay, now| overlay.handle_kernel_ready(Ok(()), now));
    world.until(15 * SECOND, |world| world.both(0, 1, Carrier::Fastpath));
}

/// Where in the list something first happens.
fn position(did: &[Did], what: &Did) -> usize {
    did.iter().position(|one| one == what).unwrap_or_else(|| panic!("no {what:?} in {did:?}"))
}

#[test]
fn leaving_closes_the_filter_then_moves_then_removes_the_default_and_sweeps_again() {
    let mut world = World::pair();
    world.forget_deeds();
    world.vxlan(0, 1, false);
    world.until(SECOND, |world| world.both(0, 1, Carrier::Sleeve));
    world.run(SECOND / 2);
    for (at, other) in [(0, 1), (1, 0)] {
        let (did, peer) = (&world.hosts[at].did, name(other));
        let order = [
            Did::Carrier(peer, Some(Carrier::Sleeve)),
            Did::Accept(peer, Some(Accept::Probes)),
            Did::Moved(peer, Stand::Sleeve),
            Did::Default(peer, false),
        ];
        let places: Vec<usize> = order.iter().map(|what| position(did, what)).collect();
        assert!(places.is_sorted(), "{did:?}");
        let sweeps = did.iter().filter(|one| **one == Did::Moved(peer, Stand::Sleeve)).count();
        assert_eq!(sweeps, 2, "{did:?}");
        assert_eq!(did.last(), Some(&Did::Moved(peer, Stand::Sleeve)), "the sweep comes last: {did:?}");
    }
    world.run(2 * SECOND);
    assert_eq!(world.remote(0, 1).unwrap().accept, Accept::Probes);
}

#[test]
fn returning_opens_both_ends_before_either_moves() {
    let mut world = World::pair();
    world.vxlan(0, 1, false);
    world.until(SECOND, |world| world.both(0, 1, Carrier::Sleeve));
    world.run(20 * SECOND);
    world.vxlan(0, 1, true);
    world.forget_deeds();
    // The moment in which the first of the two moves its addresses.
    let moved = |world: &World, at: usize, other: usize| {
        world.hosts[at].did.contains(&Did::Moved(name(other), Stand::Fastpath))
    };
    world.until(15 * SECOND, |world| moved(world, 0, 1) || moved(world, 1, 0));
    for (at, other) in [(0, 1), (1, 0)] {
        let remote = world.remote(at, other).unwrap();
        assert_eq!((remote.accept, remote.default), (Accept::Frames, true));
    }
    world.until(SECOND, |world| world.both(0, 1, Carrier::Fastpath));
    for (at, other) in [(0, 1), (1, 0)] {
        let (did, peer) = (&world.hosts[at].did, name(other));
        let moved = position(did, &Did::Moved(peer, Stand::Fastpath));
        assert!(moved < position(did, &Did::Carrier(peer, Some(Carrier::Fastpath))), "{did:?}");
    }
}

#[test]
fn pings_survive_a_block_and_the_return() {
    let mut world = World::pair();
    assert_eq!(world.run_pinging(0, 1, 10 * MS, 2 * SECOND), (0, 0));
    world.vxlan(0, 1, false);
    let (lost, doubled) = world.run_pinging(0, 1, 10 * MS, 10 * SECOND);
    assert!(lost <= 2 * 100 && doubled == 0, "{lost} lost, {doubled} doubled");
    world.vxlan(0, 1, true);
    let (lost, doubled) = world.run_pinging(0, 1, MS, 15 * SECOND);
    assert!(world.both(0, 1, Carrier::Fastpath));
    assert!(lost <= 2 && doubled == 0, "the way back: {lost} lost of 1000 a second, {doubled} doubled");
    world.with(1, |overlay, now| overlay.handle_kernel_ready(Err("gone".into()), now));
    let (lost, doubled) = world.run_pinging(0, 1, MS, 5 * SECOND);
    assert!(world.both(0, 1, Carrier::Sleeve));
    assert!(lost <= 5 && doubled == 0, "{lost} lost, {doubled} doubled");
}

#[test]
fn three_hosts_each_pair_has_its_own_carrier() {
    let mut world = World::new(vec![config(0), config(1), config(2)]);
    world.vxlan(0, 2, false);
    world.connect(0, 1);
    world.connect(0, 2);
    world.connect(1, 2);
    world.run(10 * SECOND);
    assert!(world.both(0, 1, Carrier::Fastpath) && world.both(1, 2, Carrier::Fastpath));
    assert!(world.both(0, 2, Carrier::Sleeve));
    world.forget_deeds();
    world.vxlan(0, 2, true);
    world.vxlan(1, 2, false);
    world
        .until(15 * SECOND, |world| world.both(0, 2, Carrier::Fastpath) && world.both(1, 2, Carrier::Sleeve));
    let about = |did: &Did| match did {
        Did::Accept(peer, _) | Did::Default(peer, _) | Did::Moved(peer, _) | Did::Carrier(peer, _) => *peer,
    };
    assert!(!world.hosts[0].did.iter().any(|did| about(did) == name(1)), "{:?}", world.hosts[0].did);
    assert!(!world.hosts[1].did.iter().any(|did| about(did) == name(0)), "{:?}", world.hosts[1].did);
}

#[test]
fn a_peer_that_is_barred_or_removed_is_left_at_once() {
    let mut world = World::pair();
    world.with(0, |overlay, now| overlay.bar(BTreeSet::from([name(1)]), now));
    world.run(10 * MS);
    assert_eq!(world.remote(0, 1).unwrap().accept, Accept::Probes);
    assert_eq!((world.carrier(0, 1), world.reason(0, 1)), (None, Reason::SeededApart));
    world.run(2 * SECOND);
    assert_eq!(world.remote(0, 1), None);
    assert!(!world.remote(1, 0).unwrap().default, "the other end follows");
    world.with(0, |overlay, now| overlay.bar(BTreeSet::new(), now));
    world.until(15 * SECOND, |world| world.both(0, 1, Carrier::Fastpath));
    world.with(1, |overlay, now| overlay.remove(name(0), now));
    world.run(3 * SECOND);
    assert_eq!(world.remote(1, 0), None);
    world.disconnect(0, 1);
    assert_eq!(world.hosts[1].overlay.held().count(), 0);
}
