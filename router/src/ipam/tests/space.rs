//! Allocating, claiming and giving away.

use std::net::Ipv4Addr;

use super::world::{World, name};
use crate::ipam::{Command, Holder, IpamError, Reply};

fn release(id: &str) -> Command {
    Command::Release { id: id.to_owned(), address: None }
}

#[test]
fn allocation_is_idempotent_and_lowest_first() {
    let mut world = World::mesh(2, 1, "10.32.0.0/24");
    let first = world.get(0, "a").unwrap();
    assert_eq!(first, Ipv4Addr::new(10, 32, 0, 1));
    assert_eq!(world.get(0, "a"), Ok(first));
    assert_eq!(world.get(0, "b"), Ok(Ipv4Addr::new(10, 32, 0, 2)));
    assert_eq!(world.ask(0, release("a")), Ok(Reply::Addresses(vec![first])));
    assert_eq!(world.ask(0, release("a")), Ok(Reply::Addresses(vec![])));
    assert_eq!(world.get(0, "c"), Ok(first));
    let within = Some("10.32.0.128/25".parse().unwrap());
    let other = world.ask(0, Command::Allocate { id: "c".into(), within });
    assert_eq!(other, Ok(Reply::Address(Ipv4Addr::new(10, 32, 0, 129))));
    let both = vec![first, Ipv4Addr::new(10, 32, 0, 129)];
    assert_eq!(world.ask(0, Command::Lookup { id: "c".into() }), Ok(Reply::Addresses(both)));
    let nobody = world.ask(0, Command::Lookup { id: "x".into() });
    assert_eq!(nobody, Err(IpamError::NotFound { id: "x".into() }));
}

#[test]
fn a_subnet_never_gives_out_its_edges_and_ends_exhausted() {
    let mut world = World::mesh(3, 3, "10.32.0.0/24");
    let within = Some("10.32.0.64/29".parse().unwrap());
    let mut given = Vec::new();
    for at in 0..7 {
        let result = world.ask(at % 3, Command::Allocate { id: format!("c{at}"), within });
        match result {
            Ok(Reply::Address(address)) => given.push(address),
            other => assert_eq!(other, Err(IpamError::Exhausted { subnet: "10.32.0.64-10.32.0.71".into() })),
        }
    }
    given.sort_unstable();
    assert_eq!(given, (65..71).map(|last| Ipv4Addr::new(10, 32, 0, last)).collect::<Vec<_>>());
    for bad in ["10.33.0.0/24", "10.0.0.0/8"] {
        let result = world.ask(0, Command::Allocate { id: "x".into(), within: Some(bad.parse().unwrap()) });
        assert!(matches!(result, Err(IpamError::OutOfRange { .. })), "{result:?}");
    }
    let tiny =
        world.ask(0, Command::Allocate { id: "x".into(), within: Some("10.32.0.8/31".parse().unwrap()) });
    assert!(matches!(tiny, Err(IpamError::Refused(_))), "{tiny:?}");
}

#[test]
fn a_peer_that_has_used_up_its_share_is_given_more() {
    let mut world = World::mesh(4, 3, "10.32.0.0/26");
    let given: Vec<_> = (0..62).map(|at| world.get(0, &format!("c{at}")).unwrap()).collect();
    assert_eq!(given.iter().collect::<std::collections::BTreeSet<_>>().len(), 62);
    let exhausted = Err(IpamError::Exhausted { subnet: "10.32.0.0/26".into() });
    assert_eq!(world.get(0, "one too many"), exhausted);
    assert_eq!(world.get(1, "one too many"), exhausted);
    world.ask(0, release("c7")).unwrap();
    assert_eq!(world.get(2, "late"), Ok(given[7]));
    world.run(1_000);
    world.assert_agreement();
}

#[test]
fn a_doubled_wish_is_granted_once() {
    let mut world = World::mesh(28, 2, "10.32.0.0/26");
    world.ask(0, Command::Prime).unwrap();
    world.doubling = 1.0;
    for at in 0..32 {
        world.get(1, &format!("c{at}")).unwrap();
    }
    world.run(2_000);
    assert_eq!((world.owned(0), world.owned(1)), (16, 48));
    world.assert_agreement();
}

#[test]
fn exhausted_is_said_only_when_everybody_could_be_asked() {
    let mut world = World::mesh(5, 3, "10.32.0.0/26");
    world.get(0, "first").unwrap();
    world.run(500);
    world.kill(2);
    world.run(200);
    let mut last = Ok(Ipv4Addr::UNSPECIFIED);
    for at in 0..62 {
        last = world.get(at % 2, &format!("c{at}"));
        if last.is_err() {
            break;
        }
    }
    let Err(IpamError::TimedOut { waiting_for }) = last else { panic!("{last:?}") };
    assert!(waiting_for.contains("host2"), "{waiting_for}");
    assert!(IpamError::TimedOut { waiting_for }.is_transient());
}

#[test]
fn claims_go_to_the_owner_and_come_to_an_end() {
    let mut world = World::mesh(21, 2, "10.32.0.0/26");
    let mine = world.get(0, "a").unwrap();
    world.run(300);
    let theirs = if mine.octets()[3] < 32 { "10.32.0.40" } else { "10.32.0.20" };
    assert!(world.claim(0, "b", theirs).is_ok());
    assert!(world.claim(0, "b", theirs).is_ok(), "idempotent");
    let taken = world.claim(1, "c", theirs);
    let holder = Holder::Peer { name: name(0), nickname: "host0".into() };
    assert_eq!(taken, Err(IpamError::Conflict { address: theirs.parse().unwrap(), holder }));
    let here = world.claim(0, "c", theirs);
    assert!(
        matches!(&here, Err(IpamError::Conflict { holder: Holder::Id(id), .. }) if id == "b"),
        "{here:?}"
    );
    assert!(matches!(world.claim(0, "e", "10.32.0.0"), Err(IpamError::Refused(_))));
    assert!(matches!(world.claim(0, "e", "10.32.0.63"), Err(IpamError::Refused(_))));
    assert!(world.claim(0, "e", "8.8.8.8").is_ok(), "outside the range it is only written down");
    world.kill(0);
    world.run(100);
    let waits = world.claim(1, "d", &mine.to_string());
    assert!(
        matches!(&waits, Err(IpamError::TimedOut { waiting_for }) if waiting_for.contains("host0")),
        "{waits:?}"
    );
}

#[test]
fn a_claim_succeeds_when_the_owner_returns_in_time() {
    let mut world = World::mesh(22, 2, "10.32.0.0/26");
    let mine = world.get(0, "a").unwrap();
    world.run(300);
    let theirs = Ipv4Addr::from(u32::from(mine) + 3);
    world.kill(0);
    world.run(100);
    let claim = world.command(1, Command::Claim { id: "b".into(), address: theirs }, 10_000);
    world.run(2_000);
    world.start(0);
    assert_eq!(world.outcome(claim), Ok(Reply::Address(theirs)));
}

#[test]
fn a_cancelled_command_gets_no_address_and_no_reply() {
    let mut world = World::mesh(25, 2, "10.32.0.0/26");
    world.partition(&[0, 1]);
    world.run(200);
    let waiting = world.allocate(0, "a");
    world.run(100);
    let request = crate::ipam::RequestId(waiting);
    assert_eq!(world.ask(0, Command::Cancel { request }), Ok(Reply::Done));
    world.heal();
    world.run(12_000);
    assert_eq!(world.replies.get(&waiting), None);
    assert_eq!(world.live(0).allocations().count(), 0);
    let waiting = world.allocate(0, "b");
    assert_eq!(world.ask(0, release("b")), Ok(Reply::Addresses(vec![])));
    assert!(matches!(world.outcome(waiting), Err(IpamError::Refused(_))));
}

#[test]
fn damaged_and_hostile_messages_are_counted_and_change_nothing() {
    let mut world = World::mesh(26, 2, "10.32.0.0/26");
    world.get(0, "a").unwrap();
    world.run(500);
    let before = world.live(0).cluster.as_ref().unwrap().ring().clone();
    let now = world.now;
    let allocator = world.hosts[0].allocator.as_mut().unwrap();
    for kind in 0..=255_u8 {
        for bytes in [vec![], vec![kind], vec![kind; 40], vec![kind, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]] {
            allocator.handle_gossip(name(1), &bytes, now);
            allocator.handle_unicast(name(1), &bytes, now);
        }
    }
    assert_eq!(world.live(0).cluster.as_ref().unwrap().ring(), &before);
    assert_eq!(world.live(0).status().faults.len(), 1);
    world.get(0, "b").unwrap();
}

#[test]
fn an_idle_mesh_says_little() {
    let mut world = World::mesh(27, 8, "10.32.0.0/16");
    for at in 0..8 {
        world.get(at, &format!("c{at}")).unwrap();
    }
    world.run(5_000);
    let before = world.messages;
    world.run(60_000);
    let rate = (world.messages - before) / 8;
    assert!(rate <= 30, "{rate} messages a minute and peer");
    assert!(world.largest < 1_000, "{} bytes", world.largest);
}

#[test]
fn whoever_is_out_of_space_in_a_partition_is_told_which_unreachable_owners_may_have_some() {
    let mut world = World::mesh(35, 4, "10.32.0.0/26");
    world.get(0, "first").unwrap();
    world.run(500);
    world.partition(&[0, 0, 1, 1]);
    world.run(200);
    let mut waits = Vec::new();
    for at in 0..62 {
        let result = world.get(at % 2, &format!("c{at}"));
        if let Err(IpamError::TimedOut { waiting_for }) = result {
            waits.push(waiting_for);
            break;
        }
    }
    for patience in [1, 3, 10, 50, 600, 1_900, 2_001, 2_003, 2_600, 4_002] {
        let command = Command::Allocate { id: format!("p{patience}"), within: None };
        world.run(5_000);
        world.latency = (20, 40);
        let request = world.command(0, command, patience);
        match world.outcome(request) {
            Err(IpamError::TimedOut { waiting_for }) => waits.push(waiting_for),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(waits.len(), 11);
    for text in waits {
        assert!(text.starts_with("host2, host3 (unreachable") || text.starts_with("host3, host2"), "{text}");
        assert!(!text.contains("host0") && !text.contains("host1"), "known to be full: {text}");
    }
}
