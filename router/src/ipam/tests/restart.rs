//! What survives a crash, a lost state, another range.

use super::world::World;
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
fn a_restart_keeps_ring_and_addresses_and_another_range_discards_them() {
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
        world.hosts[at].acknowledged.clear();
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
