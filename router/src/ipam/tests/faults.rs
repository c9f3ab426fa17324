//! Seeded runs with everything that goes wrong; each failure names its seed.

use rand::RngExt;

use super::world::World;
use crate::ipam::{Command, InitMode, IpamError, IpamState, Reply};

/// Partition 1|2 in a /26 after one side was given space before; both allocate until told to stop; heal.
fn partition_to_exhaustion(seed: u64) {
    let mut world = World::mesh(seed, 3, "10.32.0.0/26");
    world.ask(0, Command::Prime).unwrap();
    world.run(500);
    (world.latency, world.loss, world.doubling) = ((1, 40), 0.05, 0.05);
    let busy = (seed % 3) as usize;
    let before = 30 + (seed % 7) as usize;
    for at in 0..before {
        world.get(busy, &format!("before{at}")).unwrap();
    }
    assert!(world.owned(busy) > 24, "it was given more than its share");
    let alone = (seed / 3 % 3) as usize;
    let groups: Vec<usize> = (0..3).map(|at| usize::from(at == alone)).collect();
    world.partition(&groups);
    // A lost answer may stop one of them for once; space is used up when all are stopped in one round.
    let mut stopped = 0;
    for round in 0..70 {
        let ids = (0..3).map(|host| (host, format!("p{host}.{round}")));
        let requests: Vec<u64> = ids.map(|(host, id)| world.command(host, allocate(id), 3_000)).collect();
        let results = requests.into_iter().map(|request| world.outcome(request));
        stopped = results.filter(|result| matches!(result, Err(error) if error.is_transient())).count();
        if stopped == 3 {
            break;
        }
    }
    assert_eq!(stopped, 3, "seed {seed}: all were told to stop for now, nobody that nothing is left");
    world.heal();
    world.run(10_000);
    world.assert_agreement();
    // A grant that was under way when the link broke has found its owner now: the rest can be had.
    let used: usize = (0..3).map(|at| world.leases(at).len()).sum();
    for at in used..62 {
        assert!(world.get(at % 3, &format!("rest{at}")).is_ok(), "seed {seed}: address {at} of 62");
    }
    let exhausted = world.get(alone, "one too many");
    assert!(matches!(exhausted, Err(IpamError::Exhausted { .. })), "seed {seed}: {exhausted:?}");
}

fn allocate(id: String) -> Command {
    Command::Allocate { id, within: None }
}

#[test]
fn a_hundred_partitions_never_give_an_address_twice() {
    for seed in 0..100 {
        partition_to_exhaustion(seed);
    }
}

/// Allocations, claims and releases while messages are lost, hosts crash and partitions come and go.
fn chaos(seed: u64) {
    let mut world = World::new(seed);
    let count = world.rng.random_range(2..=8);
    for _ in 0..count {
        world.launch("10.32.0.0/25", InitMode::Consensus(None), count - 1, 0);
    }
    world.latency = (1, 150);
    world.loss = world.rng.random_range(0.0..0.3);
    world.doubling = 0.2;
    world.crashes = world.rng.random_range(0.0..0.02);
    for step in 0..120 {
        let at = world.rng.random_range(0..count);
        match world.rng.random_range(0..20) {
            0 => {
                let groups: Vec<usize> = (0..count).map(|_| world.rng.random_range(0..3)).collect();
                world.partition(&groups);
            }
            1..=2 => world.heal(),
            3..=4 => {
                let id = format!("c{}", world.rng.random_range(0..step + 1));
                world.command(at, Command::Release { id, address: None }, 1_000);
            }
            5..=6 => {
                let address = std::net::Ipv4Addr::new(10, 32, 0, world.rng.random_range(1..127));
                world.command(at, Command::Claim { id: format!("c{step}"), address }, 3_000);
            }
            _ => {
                world.command(at, allocate(format!("c{step}")), 3_000);
            }
        }
        let pause = world.rng.random_range(1..400);
        world.run(pause);
    }
    (world.crashes, world.loss) = (0.0, 0.0);
    world.run(3_000);
    world.heal();
    world.run(20_000);
    let seeded = (0..count).any(|at| world.live(at).cluster.is_some());
    assert!(seeded, "seed {seed}: nobody ever got an address");
    world.assert_agreement();
    assert!((0..count).all(|at| world.state(at) == IpamState::Ready), "seed {seed}");
    // Nothing of the range got lost: the last free address can still be had, by anybody.
    let used: usize = (0..count).map(|at| world.leases(at).len()).sum();
    for at in used..126 {
        assert!(world.get(at % count, &format!("rest{at}")).is_ok(), "seed {seed}: address {at} of 126");
    }
    assert!(matches!(world.get(0, "one too many"), Err(IpamError::Exhausted { .. })), "seed {seed}");
}

#[test]
fn chaos_never_gives_an_address_twice_and_heals_to_one_ring() {
    for seed in 0..100 {
        chaos(seed);
    }
}

/// Removals under partition are the one case in which an address may be in use twice, until both have met.
fn removals(seed: u64) {
    let mut world = World::mesh(seed, 5, "10.32.0.0/25");
    world.lenient = true;
    world.latency = (1, 100);
    world.loss = 0.1;
    for at in 0..60 {
        let host = world.rng.random_range(0..5);
        world.command(host, allocate(format!("c{at}")), 3_000);
        world.run(50);
    }
    for round in 0..4 {
        let victim = world.rng.random_range(0..5);
        world.kill(victim);
        world.run(400);
        if round % 2 == 0 {
            let groups: Vec<usize> = (0..5).map(|_| world.rng.random_range(0..2)).collect();
            world.partition(&groups);
            world.run(300);
        }
        for operator in 0..5 {
            if operator != victim && world.rng.random_bool(0.6) {
                let peer = super::world::name(victim);
                world.command(operator, Command::RemovePeer { peer, force: false }, 1_000);
            }
        }
        for at in 0..20 {
            let host = world.rng.random_range(0..5);
            world.command(host, allocate(format!("r{round}.{at}")), 3_000);
        }
        world.run(2_000);
        world.heal();
        if world.hosts[victim].allocator.is_none() {
            world.start(victim);
        }
        world.run(3_000);
    }
    world.loss = 0.0;
    world.run(20_000);
    world.assert_agreement();
    world.lenient = false;
    world.check();
}

#[test]
fn removals_under_partition_end_in_one_owner_and_every_clash_is_reported() {
    for seed in 0..40 {
        removals(seed);
    }
}

#[test]
fn a_simulation_replays_exactly() {
    let run = |seed| {
        let mut world = World::mesh(seed, 4, "10.32.0.0/25");
        (world.loss, world.crashes, world.latency) = (0.2, 0.01, (1, 90));
        for at in 0..60 {
            world.command(at % 4, allocate(format!("c{at}")), 2_000);
            world.run(70);
        }
        let leases: Vec<_> = (0..4).map(|at| world.leases(at)).collect();
        (world.messages, leases)
    };
    assert_eq!(run(7), run(7));
}

#[test]
fn many_commands_at_once_are_all_answered() {
    let mut world = World::mesh(31, 4, "10.32.0.0/23");
    world.latency = (1, 30);
    let requests: Vec<u64> = (0..510).map(|at| world.allocate(at % 2, &format!("c{at}"))).collect();
    for request in requests {
        assert!(matches!(world.outcome(request), Ok(Reply::Address(_))));
    }
    assert!(matches!(world.get(3, "one too many"), Err(IpamError::Exhausted { .. })));
    world.run(1_000);
    world.assert_agreement();
}
