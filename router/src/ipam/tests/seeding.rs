//! The first division, rings that meet, splits.

use std::net::Ipv4Addr;

use super::world::{World, name};
use crate::ipam::{Command, InitMode, IpamError, IpamState, Reply};

const CONSENSUS: InitMode = InitMode::Consensus(None);

#[test]
fn three_peers_divide_the_range_at_the_first_demand_only() {
    let mut world = World::mesh(1, 3, "10.32.0.0/12");
    assert!((0..3).all(|at| world.live(at).cluster.is_none() && world.state(at) == IpamState::Ready));
    let asked = world.now;
    let address = world.get(0, "a").unwrap();
    assert!(world.now - asked < std::time::Duration::from_secs(1));
    assert_ne!(address, Ipv4Addr::new(10, 32, 0, 0));
    world.run(500);
    world.assert_agreement();
    assert!((0..3).all(|at| world.owned(at) > 300_000), "every voter has a share");
    assert_eq!((0..3).map(|at| world.owned(at)).sum::<u64>(), 1 << 20);
}

#[test]
fn without_a_quorum_commands_end_at_their_deadline() {
    let mut world = World::new(6);
    world.launch("10.32.0.0/24", CONSENSUS, 2, 0);
    world.run(100);
    let IpamState::Waiting(reason) = world.state(0) else { panic!("not waiting") };
    assert!(reason.contains("1 of 3"), "{reason}");
    let result = world.get(0, "a");
    assert!(matches!(&result, Err(IpamError::NotYet { reason }) if reason.contains("1 of 3")), "{result:?}");
    let outside = world.claim(0, "b", "192.168.1.1");
    assert_eq!(outside, Ok(Reply::Address(Ipv4Addr::new(192, 168, 1, 1))));
    world.launch("10.32.0.0/24", CONSENSUS, 2, 0);
    world.run(300);
    assert_eq!(world.state(0), IpamState::Ready);
    assert!(world.get(0, "a").is_ok());
}

#[test]
fn the_electorate_does_not_shrink_when_peers_go_away() {
    let mut world = World::new(7);
    for _ in 0..5 {
        world.launch("10.32.0.0/24", CONSENSUS, 0, 0);
    }
    world.run(300);
    world.partition(&[0, 0, 1, 1, 1]);
    world.run(300);
    assert!(matches!(world.state(0), IpamState::Waiting(_)));
    assert!(matches!(world.get(0, "a"), Err(IpamError::NotYet { .. })));
    world.hosts[0].allocator = None;
    world.start(0);
    world.run(300);
    assert!(matches!(world.get(0, "a"), Err(IpamError::NotYet { .. })), "not even by a restart");
    assert!(world.get(4, "b").is_ok());
    world.heal();
    world.run(1_000);
    assert!(world.get(0, "a").is_ok());
    world.assert_agreement();
}

#[test]
fn routers_launched_alone_and_joined_in_any_order_become_one_cluster() {
    for seed in 0..40_usize {
        let mut world = World::new(seed as u64);
        let groups: Vec<usize> = (0..4).collect();
        for group in &groups {
            world.launch("10.32.0.0/16", CONSENSUS, 0, *group);
        }
        world.run(500);
        // Some were primed, some have made rings of their own; at most one is in use.
        for at in 0..4 {
            if (seed >> at) & 1 == 1 {
                assert_eq!(world.ask(at, Command::Prime), Ok(Reply::Done));
            }
        }
        if seed % 3 == 0 {
            world.get(seed % 4, "early").unwrap();
        }
        let mut groups = groups;
        for step in 0..3 {
            let joined = (seed + step) % 3;
            let (from, to) = (groups[(joined + step) % 4], groups[joined]);
            groups.iter_mut().filter(|group| **group == from).for_each(|group| *group = to);
            world.partition(&groups);
            world.run(700);
        }
        world.heal();
        world.run(2_000);
        for at in 0..4 {
            world.get(at, &format!("c{at}")).unwrap();
        }
        world.run(2_000);
        world.assert_agreement();
        assert!((0..4).all(|at| world.state(at) == IpamState::Ready), "seed {seed}");
    }
}

#[test]
fn two_clusters_in_use_stay_split_and_both_go_on() {
    let mut world = World::new(8);
    for at in 0..4 {
        world.launch("10.32.0.0/24", CONSENSUS, 1, at / 2);
    }
    world.run(300);
    world.lenient = true; // Each cluster has its own 10.32.0.1.
    let (one, two) = (world.get(0, "a").unwrap(), world.get(2, "b").unwrap());
    world.run(300);
    world.heal();
    world.run(1_000);
    for at in 0..4 {
        let others: Vec<_> = if at < 2 { vec![name(2), name(3)] } else { vec![name(0), name(1)] };
        assert_eq!(world.live(at).split_peers().into_iter().collect::<Vec<_>>(), others);
        assert_eq!(world.state(at), IpamState::Split(others));
        world.get(at, &format!("more{at}")).unwrap();
    }
    assert_eq!((world.get(0, "a"), world.get(2, "b")), (Ok(one), Ok(two)));
    // A newcomer is not split, and the session being up changes nothing.
    let newcomer = world.launch("10.32.0.0/24", CONSENSUS, 1, 0);
    world.run(1_000);
    world.get(newcomer, "new").unwrap();
}

#[test]
fn a_split_ends_when_one_side_has_been_reset() {
    for seed in 0..10 {
        let mut world = World::new(seed);
        for at in 0..4 {
            world.launch("10.32.0.0/24", CONSENSUS, 1, at / 2);
        }
        world.run(300);
        world.lenient = true;
        world.get(0, "a").unwrap();
        world.get(2, "b").unwrap();
        world.heal();
        world.run(1_000);
        for at in 2..4 {
            assert_eq!(world.ask(at, Command::Leave), Ok(Reply::Done));
            world.kill(at);
            world.hosts[at].disk = None;
            world.run(200);
            world.start(at);
            world.run(2_000);
        }
        world.get(2, "c").unwrap();
        world.get(3, "d").unwrap();
        world.run(1_000);
        world.lenient = false;
        world.check();
        world.assert_agreement();
        assert!((0..4).all(|at| world.state(at) == IpamState::Ready));
    }
}

#[test]
fn of_two_unused_rings_the_wider_one_stays() {
    for seed in 0..10 {
        let mut world = World::new(seed);
        for at in 0..4 {
            world.launch("10.32.0.0/24", CONSENSUS, if at == 0 { 0 } else { 2 }, usize::from(at > 0));
        }
        world.run(300);
        assert_eq!(world.ask(0, Command::Prime), Ok(Reply::Done));
        assert_eq!(world.ask(3, Command::Prime), Ok(Reply::Done));
        world.run(500);
        world.heal();
        world.run(2_000);
        world.assert_agreement();
        assert_eq!(world.owned(0), 0, "the ring of the lower name had one owner only");
        world.get(0, "a").unwrap();
    }
}

#[test]
fn an_observer_never_votes_but_can_call_for_an_election() {
    let mut world = World::new(13);
    world.launch("10.32.0.0/24", InitMode::Consensus(Some(2)), 2, 0);
    world.launch("10.32.0.0/24", InitMode::Observer, 2, 0);
    world.run(300);
    assert!(matches!(world.get(1, "a"), Err(IpamError::NotYet { .. })), "an observer is no quorum");
    assert!(matches!(world.get(0, "a"), Err(IpamError::NotYet { .. })));
    world.launch("10.32.0.0/24", InitMode::Consensus(Some(2)), 2, 0);
    world.run(300);
    assert!(world.get(1, "a").is_ok());
    world.run(500);
    world.assert_agreement();
    assert_eq!(world.live(1).status().owners.len(), 3, "two electors, and what the observer was given");
    assert!(world.owned(0) >= 64 && world.owned(2) >= 64 && world.owned(1) >= 64);
}

#[test]
fn an_elector_and_an_observer_need_no_second_elector() {
    let mut world = World::new(14);
    world.launch("10.32.0.0/24", CONSENSUS, 0, 0);
    world.launch("10.32.0.0/24", InitMode::Observer, 0, 0);
    world.run(500);
    assert_eq!((world.state(0), world.state(1)), (IpamState::Ready, IpamState::Ready));
    assert!(world.get(1, "a").is_ok());
    assert!(world.get(0, "b").is_ok());
}

fn seeds(names: &[&str]) -> InitMode {
    InitMode::Seed(names.iter().map(|name| (*name).to_owned()).collect())
}

#[test]
fn seeded_peers_allocate_before_they_have_ever_met() {
    let mut world = World::new(15);
    for at in 0..3 {
        world.launch("10.32.0.0/24", seeds(&["host2", "host0", "host1"]), 2, at);
    }
    world.run(100);
    for at in 0..3 {
        assert_eq!(world.state(at), IpamState::Ready);
        world.get(at, &format!("c{at}")).unwrap();
    }
    world.heal();
    world.run(1_000);
    world.assert_agreement();
    assert!((0..3).all(|at| world.state(at) == IpamState::Ready && world.owned(at) > 70));
}

#[test]
fn an_empty_seat_is_waited_for_and_can_be_removed() {
    let mut world = World::new(16);
    world.launch("10.32.0.0/29", seeds(&["host0", "host9"]), 1, 0);
    let mut last = world.get(0, "c0");
    for at in 1..4 {
        last = world.get(0, &format!("c{at}"));
    }
    assert!(
        matches!(&last, Err(IpamError::TimedOut { waiting_for }) if waiting_for.contains("host9")),
        "{last:?}"
    );
    let seat = *world
        .live(0)
        .status()
        .owners
        .iter()
        .map(|(owner, _)| owner)
        .find(|owner| **owner != name(0))
        .unwrap();
    world.ask(0, Command::RemovePeer { peer: seat, force: false }).unwrap();
    assert!(world.get(0, "c3").is_ok());
}

#[test]
fn different_seed_lists_in_use_are_a_split_and_never_a_crash() {
    let mut world = World::new(17);
    world.launch("10.32.0.0/24", seeds(&["host0", "host1"]), 1, 0);
    world.launch("10.32.0.0/24", seeds(&["host1", "host2"]), 1, 1);
    world.launch("10.32.0.0/24", seeds(&["host0", "host2"]), 1, 2);
    world.lenient = true;
    world.get(0, "a").unwrap();
    world.get(1, "b").unwrap();
    world.heal();
    world.run(2_000);
    assert!(world.live(0).split_peers().contains(&name(1)) && world.live(1).split_peers().contains(&name(0)));
    assert_eq!(world.live(2).split_peers().len(), 1, "the one that was not in use belongs to one of them");
    world.get(2, "c").unwrap();
    world.get(0, "d").unwrap();
    world.get(1, "e").unwrap();
}

#[test]
fn peers_with_another_range_are_reported_and_do_not_count() {
    let mut world = World::new(18);
    world.launch("10.32.0.0/24", CONSENSUS, 0, 0);
    world.launch("10.40.0.0/24", CONSENSUS, 0, 0);
    world.run(500);
    assert!(world.get(0, "a").is_ok() && world.get(1, "b").is_ok());
    let faults = world.live(0).status().faults;
    assert!(faults.len() == 1 && faults[0].1.contains("10.40.0.0/24"), "{faults:?}");
    assert!(world.live(0).split_peers().is_empty());
}

#[test]
fn without_a_seat_a_peer_waits_until_a_seed_has_been_seen() {
    let mut world = World::new(36);
    world.launch("10.32.0.0/24", seeds(&["host1"]), 1, 0);
    world.run(100);
    let reason = "host host1, which seeds the range, has not been seen".to_owned();
    assert_eq!(world.state(0), IpamState::Waiting(reason.clone()));
    assert_eq!(world.ask(0, Command::Prime), Err(IpamError::NotYet { reason: reason.clone() }));
    assert!(world.get(0, "early").unwrap_err().is_transient());
    assert_eq!(world.state(0), IpamState::Waiting(reason), "an empty seat gives nothing");
    world.launch("10.32.0.0/24", seeds(&["host1"]), 1, 0);
    world.run(500);
    assert_eq!((world.state(0), world.state(1)), (IpamState::Ready, IpamState::Ready));
    assert_eq!(world.ask(0, Command::Prime), Ok(Reply::Done));
    assert!(world.get(0, "a").is_ok());
    world.run(500);
    world.assert_agreement();
}

#[test]
fn an_observer_alone_says_that_it_waits_for_a_peer_that_seeds() {
    let mut world = World::new(37);
    world.launch("10.32.0.0/24", InitMode::Observer, 0, 0);
    world.run(100);
    let IpamState::Waiting(reason) = world.state(0) else { panic!("not waiting") };
    assert!(reason.contains("waits for a peer that seeds") && !reason.contains("0 of 0"), "{reason}");
}

#[test]
fn a_reason_names_the_peers_that_do_not_count_because_of_their_range() {
    let mut world = World::new(38);
    world.launch("10.77.0.0/16", CONSENSUS, 1, 0);
    world.launch("10.78.0.0/16", CONSENSUS, 1, 0);
    world.run(500);
    let IpamState::Waiting(reason) = world.state(0) else { panic!("not waiting") };
    let expected = "host1 does not count, it uses the range 10.78.0.0/16, we use 10.77.0.0/16";
    assert!(reason.contains(expected), "{reason}");
    let status = world.live(0).status();
    assert_eq!(status.other_ranges, [(name(1), "10.78.0.0/16".parse().unwrap())]);
    assert_eq!(status.faults, [(name(1), "uses the range 10.78.0.0/16, we use 10.77.0.0/16".to_owned())]);
    world.kill(1);
    world.hosts[1].config.range = "10.77.0.0/16".parse().unwrap();
    world.start(1);
    world.run(500);
    let status = world.live(0).status();
    assert_eq!((status.state, status.other_ranges, status.faults), (IpamState::Ready, vec![], vec![]));
}
