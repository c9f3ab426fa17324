//! Whatever happens: once it is quiet, both ends use the same best carrier that works.

use proptest::prelude::*;

use super::world::{MS, SECOND, World, config, name};
use crate::dataplane::Carrier;

#[derive(Clone, Debug)]
enum Event {
    Vxlan(usize, usize, bool),
    Sleeve(usize, usize, bool),
    Small(usize, usize, bool),
    Session(usize, usize, bool),
    Restart(usize, bool),
    Ready(usize, bool),
    Bar(usize, usize, bool),
    Lose(u32),
    Wait(u32),
}

fn pair(hosts: usize) -> impl Strategy<Value = (usize, usize)> {
    (0..hosts, 1..hosts).prop_map(move |(a, step)| (a, (a + step) % hosts))
}

fn event(hosts: usize) -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (pair(hosts), any::<bool>()).prop_map(|((a, b), open)| Event::Vxlan(a, b, open)),
        2 => (pair(hosts), any::<bool>()).prop_map(|((a, b), open)| Event::Sleeve(a, b, open)),
        1 => (pair(hosts), any::<bool>()).prop_map(|((a, b), small)| Event::Small(a, b, small)),
        2 => (pair(hosts), any::<bool>()).prop_map(|((a, b), up)| Event::Session(a, b, up)),
        1 => (0..hosts, any::<bool>()).prop_map(|(at, remembers)| Event::Restart(at, remembers)),
        1 => (0..hosts, any::<bool>()).prop_map(|(at, ready)| Event::Ready(at, ready)),
        1 => (pair(hosts), any::<bool>()).prop_map(|((a, b), bar)| Event::Bar(a, b, bar)),
        1 => (0_u32..5).prop_map(Event::Lose),
        6 => (0_u32..4000).prop_map(Event::Wait),
    ]
}

fn happen(world: &mut World, event: &Event) {
    match *event {
        Event::Vxlan(a, b, open) => world.way(a, b).vxlan = open,
        Event::Sleeve(a, b, open) => world.sleeve(a, b, open),
        Event::Small(a, b, small) => world.way(a, b).mtu = if small { 1300 } else { 1500 },
        Event::Session(a, b, true) if !world.is_connected(a, b) => world.connect(a, b),
        Event::Session(a, b, false) => world.disconnect(a, b),
        Event::Session(..) => {}
        Event::Restart(at, remembers) => {
            let (memory, barred) = (world.kill(at), world.hosts[at].overlay.barred().clone());
            world.run(50 * MS);
            let config = world.hosts[at].config.clone();
            world.start(at, config, if remembers { &memory } else { &[] });
            // The allocator's ring is on disk: it says so again.
            world.with(at, |overlay, now| overlay.bar(barred, now));
        }
        Event::Ready(at, ready) => {
            world.hosts[at].ready = ready;
            let ready = if ready { Ok(()) } else { Err("no device".to_owned()) };
            world.with(at, |overlay, now| overlay.handle_kernel_ready(ready, now));
        }
        Event::Bar(a, b, bar) => {
            // Both ends come to know it, in whichever order.
            for (at, other) in [(a, b), (b, a)] {
                let mut barred = world.hosts[at].overlay.barred().clone();
                if bar {
                    barred.insert(name(other))
                } else {
                    barred.remove(&name(other))
                };
                world.with(at, |overlay, now| overlay.bar(barred, now));
            }
        }
        Event::Lose(every) => world.lose_every = if every < 2 { 0 } else { every },
        Event::Wait(time) => world.run(time * MS),
    }
}

/// Quiet: messages arrive, every pair has a session; what the path is like stays.
fn settle(world: &mut World) {
    world.lose_every = 0;
    for a in 0..world.hosts.len() {
        for b in a + 1..world.hosts.len() {
            if !world.is_connected(a, b) {
                world.connect(a, b);
            }
        }
    }
    world.run(90 * SECOND);
}

/// What the pair should use, and whether its stands must be alike: what is dead may be held at one end.
fn best(world: &mut World, a: usize, b: usize) -> (Option<Carrier>, bool) {
    let ways = [*world.way(a, b), *world.way(b, a)];
    let allowed = !world.hosts[a].overlay.barred().contains(&name(b));
    let ready = [a, b].iter().all(|at| world.hosts[*at].ready);
    let sleeve = ways.iter().all(|way| way.sleeve);
    let alive = ready && ways.iter().all(|way| way.vxlan);
    let whole = ways.iter().all(|way| way.mtu >= 1500);
    match allowed {
        false => (None, true),
        true if alive && (whole || !sleeve) => (Some(Carrier::Fastpath), true),
        true if sleeve => (Some(Carrier::Sleeve), true),
        true => (None, !ready),
    }
}

fn check(hosts: usize, events: &[Event]) {
    let mut world = World::new((0..hosts).map(config).collect());
    settle(&mut world);
    for event in events {
        happen(&mut world, event);
    }
    settle(&mut world);
    for a in 0..hosts {
        for b in a + 1..hosts {
            let (best, alike) = best(&mut world, a, b);
            let found = [world.carrier(a, b), world.carrier(b, a)];
            assert_eq!(found, [best; 2], "{a} {b}: {}", world.describe(a, b));
            assert!(!alike || best.is_some() || world.neither_stands(a, b), "{}", world.describe(a, b));
            if let Some(best) = best {
                assert!(world.both(a, b, best), "{best:?}: {}", world.describe(a, b));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn two_hosts_agree_on_the_best_carrier(events in proptest::collection::vec(event(2), 1..25)) {
        check(2, &events);
    }

    #[test]
    fn three_hosts_agree_pair_by_pair(events in proptest::collection::vec(event(3), 1..25)) {
        check(3, &events);
    }
}
