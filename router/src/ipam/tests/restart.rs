//! What survives a crash, a lost state, another range.

use super::world::{World, name};
use crate::ipam::{Command, Reply};

#[test]
fn a_donor_that_crashes_right_after_its_grant_does_not_give_the_same_again() {
    for seed in 0..10 {
        let mut world = World::mesh(seed, 2, "10.32.0.0/26");
        world.ask(0, Command::Prime).unwrap();
        for at in 0..32 {
            world.get(1, &format!("c{at}")).unwrap();
        }
        world.kill(0);
        world.partition(&[0, 1]);
        world.start(0);
        let mut results = (0..40).map(|at| world.get(0, &format!("d{at}")));
        assert!(results.any(|result| result.is_err()));
        drop(results);
        world.heal();
        world.run(2_000);
        world.assert_agreement();
    }
}

#[test]
fn the_snapshot_survives_the_codec() {
    let mut world = World::mesh(29, 3, "10.32.0.0/26");
    world.get(0, "a").unwrap();
    let snapshot = world.live(0).snapshot();
    let bytes = weft_gossip::codec::encode(&snapshot);
    let again: crate::ipam::Snapshot = weft_gossip::codec::decode::<_, { 1 << 20 }>(&bytes).unwrap();
    assert_eq!(format!("{again:?}"), format!("{snapshot:?}"));
    world.hosts[0].disk = Some(again);
    world.kill(0);
    world.start(0);
    assert_eq!(world.live(0).lookup("a").count(), 1);
}

#[test]
fn a_damaged_ring_on_disk_is_reported_and_learned_anew() {
    let mut world = World::mesh(30, 2, "10.32.0.0/26");
    world.get(0, "a").unwrap();
    world.run(300);
    world.kill(0);
    world.hosts[0].disk.as_mut().unwrap().ring.as_mut().unwrap().segments.pop();
    world.hosts[0].acknowledged.clear();
    world.start(0);
    assert!(world.live(0).status().discarded.unwrap().contains("damaged"));
    world.run(3_000);
    world.assert_agreement();
}

#[test]
fn a_restart_keeps_ring_and_addresses_and_another_range_drops_the_ring() {
    let mut world = World::mesh(19, 2, "10.32.0.0/24");
    let address = world.get(0, "a").unwrap();
    world.claim(0, "a", "192.168.7.7").unwrap();
    world.kill(0);
    world.run(100);
    world.start(0);
    assert_eq!(world.get(0, "a"), Ok(address));
    assert_eq!(world.live(0).lookup("a").count(), 2);
    assert_eq!(world.live(0).status().discarded, None);
    world.run(200);
    assert!(world.get(0, "b").is_ok());
    world.kill(0);
    world.kill(1);
    for at in 0..2 {
        world.hosts[at].config.range = "10.99.0.0/24".parse().unwrap();
        world.start(at);
    }
    world.run(300);
    assert!(world.live(0).status().discarded.unwrap().contains("10.32.0.0/24"));
    assert_eq!(world.get(0, "a").unwrap().octets()[1], 99);
}

#[test]
fn a_lost_state_is_learned_back_and_running_containers_claim_first() {
    let mut world = World::mesh(20, 3, "10.32.0.0/26");
    let used = world.get(0, "a").unwrap();
    world.run(500);
    world.kill(0);
    world.run(100);
    world.hosts[0].disk = None;
    world.hosts[0].acknowledged.clear();
    world.start(0);
    let early = world.allocate(0, "new");
    world.run(500);
    assert_eq!(world.claim(0, "a", &used.to_string()), Ok(Reply::Address(used)));
    assert_ne!(world.outcome(early), Ok(Reply::Address(used)));
    assert!(matches!(world.outcome(early), Ok(Reply::Address(_))));
    world.run(1_000);
    world.assert_agreement();
}

fn relaunch(world: &mut World, hosts: &[usize], range: &str) {
    hosts.iter().for_each(|at| world.kill(*at));
    for at in hosts {
        world.hosts[*at].config.range = range.parse().unwrap();
        world.start(*at);
    }
    world.run(300);
}

#[test]
fn leases_survive_a_narrower_range_and_are_claimed_in_the_new_ring() {
    for seed in 0..10 {
        let mut world = World::mesh(seed, 2, "10.32.0.0/24");
        for (at, id, address) in [(0, "a", 40), (0, "far", 200), (1, "b", 41)] {
            world.claim(at, id, &format!("10.32.0.{address}")).unwrap();
        }
        relaunch(&mut world, &[0, 1], "10.32.0.0/25");
        let discarded = world.live(0).status().discarded.unwrap();
        assert!(discarded.contains("10.32.0.0/24") && discarded.contains("10.32.0.0/25"), "{discarded}");
        let requests: Vec<u64> = (0..123).map(|at| world.allocate(at % 2, &format!("c{at}"))).collect();
        for request in requests {
            assert!(world.outcome(request).is_ok(), "seed {seed}");
        }
        world.run(2_000);
        world.assert_agreement();
        assert!(world.hosts.iter().all(|host| host.conflicts.is_empty()), "seed {seed}");
        assert_eq!(world.live(0).lookup("far").count(), 1, "outside the range now, and still its own");
    }
}

#[test]
fn a_range_changed_and_changed_back_gives_no_lease_to_anybody_else() {
    for seed in 0..10 {
        let mut world = World::mesh(seed, 2, "10.32.0.0/26");
        let addresses: Vec<_> = (0..4).map(|at| world.get(at % 2, &format!("old{at}")).unwrap()).collect();
        relaunch(&mut world, &[0, 1], "10.99.0.0/26");
        assert_eq!(world.get(0, "old0").unwrap().octets()[1], 99);
        relaunch(&mut world, &[0, 1], "10.32.0.0/26");
        let requests: Vec<u64> = (0..58).map(|at| world.allocate(at % 2, &format!("c{at}"))).collect();
        for request in requests {
            assert!(world.outcome(request).is_ok(), "seed {seed}");
        }
        assert!(matches!(world.get(0, "one too many"), Err(crate::ipam::IpamError::Exhausted { .. })));
        for (at, address) in addresses.into_iter().enumerate() {
            assert_eq!(world.get(at % 2, &format!("old{at}")), Ok(address), "seed {seed}");
        }
        world.run(1_000);
        world.assert_agreement();
        assert!(world.hosts.iter().all(|host| host.conflicts.is_empty()), "seed {seed}");
    }
}

#[test]
fn coming_back_to_a_range_each_lease_is_claimed_from_its_owner_or_reported() {
    let mut world = World::mesh(33, 3, "10.32.0.0/26");
    let kept = world.get(0, "kept").unwrap();
    let lost = world.get(0, "lost").unwrap();
    world.run(300);
    relaunch(&mut world, &[0], "10.99.0.0/26");
    world.run(300);
    world.lenient = true;
    world.ask(1, Command::RemovePeer { peer: name(0), force: true }).unwrap();
    world.run(1_500);
    assert_eq!(world.claim(2, "thief", &lost.to_string()), Ok(Reply::Address(lost)));
    relaunch(&mut world, &[0], "10.32.0.0/26");
    world.run(3_000);
    assert_eq!(world.hosts[0].conflicts, [("lost".to_owned(), lost)]);
    assert_eq!(world.live(0).status().conflicts, [("lost".to_owned(), lost, name(2))]);
    assert_eq!(world.live(0).lookup("kept").collect::<Vec<_>>(), [kept]);
    world.lenient = false;
    world.assert_agreement();
}

#[test]
fn the_state_of_another_peer_is_not_taken_over_with_its_leases() {
    let mut world = World::mesh(34, 2, "10.32.0.0/26");
    world.get(0, "a").unwrap();
    world.kill(1);
    world.hosts[1].disk = world.hosts[0].disk.clone();
    relaunch(&mut world, &[1], "10.99.0.0/26");
    assert!(world.live(1).status().discarded.unwrap().contains("that of peer"));
    assert_eq!(world.live(1).allocations().count(), 0);
}
