//! Peers removed, returning, leaving.

use std::net::Ipv4Addr;

use super::world::{World, name};
use crate::ipam::{Command, IpamError, IpamState, Reply};

fn release(id: &str) -> Command {
    Command::Release { id: id.to_owned(), address: None }
}

fn remove(peer: usize, force: bool) -> Command {
    Command::RemovePeer { peer: name(peer), force }
}

#[test]
fn a_removed_owner_frees_its_space_everywhere_at_once() {
    let mut world = World::mesh(9, 3, "10.32.0.0/26");
    for at in 0..3 {
        world.get(at, &format!("c{at}")).unwrap();
    }
    let refused = world.ask(1, remove(0, false));
    assert!(
        matches!(&refused, Err(IpamError::Refused(reason)) if reason.contains("host0 is reachable")),
        "{refused:?}"
    );
    assert!(matches!(world.ask(1, remove(1, true)), Err(IpamError::Refused(_))));
    assert!(matches!(world.ask(1, remove(77, false)), Err(IpamError::Refused(_))));
    world.kill(0);
    world.lenient = true; // The dead host's address is free again.
    world.run(200);
    let taken = world.ask(1, remove(0, false)).unwrap();
    assert!(matches!(taken, Reply::Removed(addresses) if addresses > 10), "{taken:?}");
    world.run(10);
    assert!(world.live(2).status().owners.iter().all(|(owner, _)| *owner != name(0)));
    assert_eq!(world.hosts[2].removed, [name(0)]);
    let started = world.now;
    for at in 0..60 {
        world.get(1 + at % 2, &format!("d{at}")).unwrap();
    }
    assert!(world.now - started < std::time::Duration::from_secs(5));
    world.assert_agreement();
}

#[test]
fn two_operators_removing_the_same_peer_end_in_one_owner() {
    for seed in 0..20 {
        let mut world = World::mesh(seed, 4, "10.32.0.0/26");
        for at in 0..4 {
            world.get(at, &format!("c{at}")).unwrap();
        }
        world.run(500);
        world.hosts[0].acknowledged.clear();
        world.kill(0);
        world.run(200);
        let one = world.command(1, remove(0, false), 1_000);
        let two = world.command(2, remove(0, false), 1_000);
        world.hosts[0].disk = None;
        // The same moment on both hosts, and demand at once: no address twice even so (checked all along).
        let more: Vec<u64> = (0..50).map(|at| world.allocate(1 + at % 3, &format!("d{at}"))).collect();
        assert!(matches!(world.outcome(one), Ok(Reply::Removed(_))));
        assert!(matches!(world.outcome(two), Ok(Reply::Removed(_))));
        for request in more {
            assert!(world.outcome(request).is_ok());
        }
        world.run(1_000);
        world.assert_agreement();
        assert!(world.live(3).status().owners.iter().all(|(owner, _)| *owner != name(0)));
    }
}

#[test]
fn a_removed_peer_comes_back_owning_nothing_and_claims_or_reports_each_address() {
    let mut world = World::mesh(10, 3, "10.32.0.0/26");
    let kept = world.get(0, "kept").unwrap();
    let lost = world.get(0, "lost").unwrap();
    world.run(300);
    world.kill(0);
    world.run(200);
    world.lenient = true;
    world.ask(1, remove(0, false)).unwrap();
    world.run(1_500);
    let taken = world.claim(2, "thief", &lost.to_string());
    assert_eq!(taken, Ok(Reply::Address(lost)));
    world.start(0);
    world.run(1_000);
    assert_eq!(world.state(0), IpamState::Ready);
    assert_eq!(world.owned(0), 1, "only the address that was still in use");
    assert_eq!(world.hosts[0].conflicts, [("lost".to_owned(), lost)]);
    assert_eq!(world.live(0).lookup("kept").collect::<Vec<_>>(), [kept]);
    assert_eq!(world.live(0).status().conflicts, [("lost".to_owned(), lost, name(2))]);
    world.lenient = false;
    world.assert_agreement();
    assert_ne!(world.get(0, "lost").unwrap(), lost);
    world.ask(0, release("lost")).unwrap();
    assert_eq!(world.live(0).status().conflicts, []);
}

#[test]
fn a_removed_peer_that_comes_back_gives_nothing_out_before_it_has_heard_the_others() {
    for seed in 0..10 {
        let mut world = World::mesh(seed, 3, "10.32.0.0/26");
        world.get(0, "a").unwrap();
        world.ask(0, release("a")).unwrap();
        world.run(300);
        world.kill(0);
        world.run(200);
        world.ask(1, remove(0, false)).unwrap();
        for at in 0..61 {
            world.get(1, &format!("c{at}")).unwrap();
        }
        world.start(0);
        // Its own disk says that the lowest addresses are its own and free.
        world.get(0, "eager").unwrap();
        world.run(1_000);
        assert_eq!(world.hosts[0].conflicts, []);
        world.assert_agreement();
    }
}

#[test]
fn a_peer_removed_by_force_while_alive_keeps_the_addresses_in_use() {
    let mut world = World::mesh(11, 3, "10.32.0.0/26");
    let mine: Vec<Ipv4Addr> = (0..5).map(|at| world.get(0, &format!("c{at}")).unwrap()).collect();
    world.run(300);
    world.ask(1, remove(0, true)).unwrap();
    world.run(3_000);
    assert_eq!(world.owned(0), 5, "{:?}", world.live(0).status());
    assert_eq!(world.hosts[0].conflicts, []);
    assert_eq!(world.live(0).allocations().map(|(_, address)| address).collect::<Vec<_>>(), mine);
    world.assert_agreement();
    assert!(world.get(0, "one more").is_ok());
}

#[test]
fn what_a_dead_peer_was_given_meanwhile_is_taken_over_too() {
    let mut world = World::mesh(12, 3, "10.32.0.0/26");
    world.get(1, "a").unwrap();
    world.run(500);
    // host0 and host2 trade while host1 is away; then host0 dies, and host1 removes it without knowing of that.
    world.partition(&[0, 1, 0]);
    for at in 0..25 {
        world.get(0, &format!("c{at}")).unwrap();
    }
    world.run(300);
    world.kill(0);
    world.lenient = true;
    world.run(300);
    world.ask(1, remove(0, false)).unwrap();
    world.heal();
    world.run(3_000);
    assert!((1..3).all(|at| world.live(at).status().owners.iter().all(|(owner, _)| *owner != name(0))));
    world.assert_agreement();
}

#[test]
fn a_peer_that_comes_back_after_its_removal_keeps_what_it_is_given_then() {
    let mut world = World::mesh(32, 3, "10.32.0.0/26");
    world.get(0, "a").unwrap();
    world.run(300);
    world.partition(&[1, 0, 0]);
    world.run(300);
    world.ask(1, remove(0, false)).unwrap();
    world.run(2_000);
    world.heal();
    world.run(2_000);
    world.get(0, "b").unwrap();
    world.get(0, "c").unwrap();
    world.run(1_000);
    let owned = world.owned(0);
    assert!(owned > 2);
    world.partition(&[0, 1, 0]);
    for at in 0..20 {
        world.get(0, &format!("d{at}")).unwrap();
    }
    let given = world.owned(0);
    assert!(given > owned, "more came while the one that removed it was away");
    world.partition(&[0, 1, 1]);
    world.run(2_000);
    world.heal();
    world.run(2_000);
    assert_eq!(world.owned(0), given, "nothing was taken from it again");
    world.assert_agreement();
}

#[test]
fn a_leaving_peer_hands_everything_to_a_live_one() {
    let mut world = World::mesh(23, 3, "10.32.0.0/26");
    world.get(0, "a").unwrap();
    world.run(300);
    world.kill(1);
    world.run(100);
    assert_eq!(world.ask(0, Command::Leave), Ok(Reply::Done));
    assert_eq!(world.owned(0), 0);
    assert!(matches!(world.get(0, "b"), Err(IpamError::Refused(_))));
    assert!(world.owned(2) > 40);
    world.kill(0);
    world.start(1);
    world.run(1_000);
    assert!(world.live(1).status().owners.iter().all(|(owner, _)| *owner != name(0)));
    assert_eq!(world.ask(2, Command::Leave), Ok(Reply::Done));
    assert_eq!(world.owned(1), 64);
    world.kill(2);
    world.run(100);
    let nobody = world.ask(1, Command::Leave);
    assert!(
        matches!(&nobody, Err(IpamError::TimedOut { waiting_for }) if waiting_for.contains("host2")),
        "{nobody:?}"
    );
}

#[test]
fn the_last_peer_may_leave() {
    let mut world = World::mesh(24, 1, "10.32.0.0/26");
    world.get(0, "a").unwrap();
    assert_eq!(world.ask(0, Command::Leave), Ok(Reply::Done));
}
