//! Sessions that end and routers that start again: what the kernel must keep, and for how long.

use std::time::Duration;

use super::host::Did;
use super::world::{MS, SECOND, World, address, config, name};
use crate::dataplane::Carrier;
use crate::overlay::*;

const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn a_lost_peer_is_held_for_ten_minutes_and_then_given_up() {
    let mut world = World::pair();
    world.disconnect(0, 1);
    world.forget_deeds();
    world.run(10 * MINUTE - SECOND);
    assert!(world.hosts[0].did.is_empty(), "{:?}", world.hosts[0].did);
    assert_eq!(world.hosts[0].overlay.held().collect::<Vec<_>>(), [name(1)]);
    world.run(2 * SECOND);
    assert_eq!(world.remote(0, 1), None);
    assert!(world.hosts[0].did.contains(&Did::Moved(name(1), Stand::Sleeve)));
    assert_eq!(world.hosts[0].overlay.held().count(), 0);
    assert_eq!(world.hosts[0].overlay.poll_timeout(), None, "nothing is left to wait for");
}

#[test]
fn a_lost_peer_on_sleeve_leaves_nothing() {
    let mut world = World::pair();
    world.vxlan(0, 1, false);
    world.run(5 * SECOND);
    world.disconnect(0, 1);
    world.run(SECOND);
    assert_eq!((world.remote(0, 1), world.hosts[0].overlay.held().count()), (None, 0));
}

/// What turned to sleeve while frames were relayed is swept back; nothing else is asked of the kernel.
fn leaves_the_kernel(did: &Did) -> bool {
    matches!(did, Did::Carrier(..) | Did::Moved(_, Stand::Fastpath))
}

#[test]
fn a_session_that_comes_back_goes_on_with_fastpath_without_a_lost_packet() {
    let mut world = World::pair();
    world.disconnect(0, 1);
    world.run(3 * SECOND);
    world.forget_deeds();
    world.connect(0, 1);
    assert_eq!(world.run_pinging(0, 1, 10 * MS, 10 * SECOND), (0, 0));
    assert!(world.both(0, 1, Carrier::Fastpath));
    for host in &world.hosts {
        assert!(host.did.iter().all(leaves_the_kernel), "{:?}", host.did);
    }
}

#[test]
fn removing_a_held_peer_clears_the_kernel_at_once() {
    let mut world = World::pair();
    world.disconnect(0, 1);
    world.with(0, |overlay, now| overlay.remove(name(1), now));
    world.run(10 * MS);
    assert_eq!(world.remote(0, 1), None);
    assert!(world.hosts[0].overlay.remembered().is_empty());
}

#[test]
fn a_held_peer_that_is_reached_through_others_is_given_up_after_a_quarter_of_a_minute() {
    let mut world = World::pair();
    (world.relays, _) = (true, world.disconnect(0, 1));
    world.with(0, |overlay, now| overlay.handle_mesh(|peer| (peer == name(1)).then_some(true), now));
    world.run(10 * SECOND);
    assert!(world.remote(0, 1).is_some());
    world.run(7 * SECOND);
    assert_eq!((world.remote(0, 1), world.remote(1, 0)), (None, None));
    assert_eq!(world.hosts[0].overlay.poll_timeout(), None, "nothing is left to wait for");
}

#[test]
fn a_held_peer_that_does_not_answer_through_others_is_held_on() {
    let mut world = World::pair();
    world.disconnect(0, 1);
    world.with(0, |overlay, now| overlay.handle_mesh(|peer| (peer == name(1)).then_some(true), now));
    world.run(MINUTE);
    assert_eq!(world.remote(0, 1).unwrap().accept, Accept::Frames);
    world.relays = true;
    world.run(3 * SECOND);
    assert_eq!((world.remote(0, 1), world.remote(1, 0)), (None, None));
}

/// From then on the others bring it floods; what its kernel has learned goes on, and so does what comes from there.
#[test]
fn a_held_peer_that_is_reached_through_others_gets_floods_only_by_them_once_all_have_heard() {
    let mut world = World::pair();
    world.disconnect(0, 1);
    let flooded = |world: &World| world.remote(0, 1).map(|remote| (remote.accept, remote.default));
    world.with(0, |overlay, now| overlay.handle_mesh(|peer| (peer == name(1)).then_some(true), now));
    world.run(1900 * MS);
    assert_eq!(flooded(&world), Some((Accept::Frames, true)), "those between have to hear of it first");
    world.run(200 * MS);
    assert_eq!(flooded(&world), Some((Accept::Frames, false)));
    assert_eq!(world.run_pinging(0, 1, 10 * MS, SECOND), (0, 0));
    world.with(0, |overlay, now| overlay.handle_mesh(|peer| (peer == name(1)).then_some(false), now));
    world.run(10 * MS);
    assert_eq!(flooded(&world), Some((Accept::Frames, true)), "nobody brings it anything any more");
    world.with(0, |overlay, now| overlay.handle_mesh(|peer| (peer == name(1)).then_some(true), now));
    world.run(3 * SECOND);
    assert_eq!(flooded(&world), Some((Accept::Frames, false)));
    world.connect(0, 1);
    world.run(10 * MS);
    assert_eq!(flooded(&world), Some((Accept::Frames, true)), "a neighbour again");
}

/// Each end hears in its own time, or not at all yet: what goes by fastpath must not be dropped at the far end.
#[test]
fn both_ends_part_without_a_lost_packet_though_one_has_not_heard_that_others_reach_its_peer() {
    for heard_by in [0, 1] {
        let mut world = World::pair();
        (world.relays, _) = (true, world.disconnect(0, 1));
        let other = name(1 - heard_by);
        world.with(heard_by, |overlay, now| overlay.handle_mesh(|peer| (peer == other).then_some(true), now));
        assert_eq!(world.run_pinging(0, 1, 10 * MS, 20 * SECOND), (0, 0));
        assert_eq!((world.remote(0, 1), world.remote(1, 0)), (None, None));
    }
}

#[test]
fn whoever_has_forgotten_a_peer_lets_it_part() {
    let mut world = World::pair();
    (world.relays, _) = (true, world.kill(1));
    world.start(1, config(1), &[]);
    world.with(0, |overlay, now| overlay.handle_mesh(|peer| (peer == name(1)).then_some(true), now));
    world.run(17 * SECOND);
    assert_eq!(world.remote(0, 1), None);
}

#[test]
fn whoever_has_a_session_does_not_part_for_what_was_said_before_it() {
    let mut world = World::pair();
    world.with(0, |overlay, now| overlay.handle_far(name(1), Far::Part, now));
    world.run(3 * SECOND);
    assert!(world.both(0, 1, Carrier::Fastpath));
}

#[test]
fn a_peer_that_parts_and_comes_back_at_once_is_a_neighbour_like_any_other() {
    let mut world = World::pair();
    (world.relays, _) = (true, world.disconnect(0, 1));
    world.with(0, |overlay, now| overlay.handle_mesh(|peer| (peer == name(1)).then_some(true), now));
    world.run(15 * SECOND + 100 * MS);
    assert_eq!(
        world.remote(0, 1).map(|remote| (remote.accept, remote.default)),
        Some((Accept::Frames, false))
    );
    world.connect(0, 1);
    assert_eq!(world.run_pinging(0, 1, 10 * MS, 20 * SECOND), (0, 0));
    assert!(world.both(0, 1, Carrier::Fastpath));
}

/// Whoever has no room for another neighbour lets a session come about and ends it.
#[test]
fn sessions_that_the_other_end_refuses_do_not_put_off_that_a_held_peer_is_given_up() {
    let mut world = World::pair();
    (world.relays, _) = (true, world.disconnect(0, 1));
    world.with(0, |overlay, now| overlay.handle_mesh(|peer| (peer == name(1)).then_some(true), now));
    for session in 100..103 {
        world.run(4 * SECOND);
        let remote = SocketAddr::new(address(1), 40_000);
        world.with(0, |overlay, now| {
            overlay.handle_established(name(1), "host1".into(), remote, session, now);
            overlay.handle_lost(name(1), now + MS);
        });
        let remote = world.remote(0, 1).unwrap();
        assert_eq!((remote.accept, remote.default), (Accept::Frames, false));
    }
    world.run(2 * SECOND);
    assert!(world.remote(0, 1).is_some());
    world.run(3 * SECOND);
    assert_eq!(world.remote(0, 1), None);
}

#[test]
fn a_host_without_sleeve_goes_on_flooding_to_a_held_peer_because_nobody_else_can() {
    let mut world = World::new(vec![Config { sleeve: None, ..config(0) }, config(1)]);
    world.connect(0, 1);
    world.run(10 * SECOND);
    assert!(world.remote(0, 1).unwrap().default);
    world.disconnect(0, 1);
    world.with(0, |overlay, now| overlay.handle_mesh(|peer| (peer == name(1)).then_some(true), now));
    world.run(10 * SECOND);
    assert!(world.remote(0, 1).unwrap().default);
}

#[test]
fn a_router_killed_and_started_again_with_its_memory_loses_nothing() {
    let mut world = World::pair();
    world.forget_deeds();
    let memory = world.kill(0);
    assert_eq!(world.run_pinging(0, 1, 10 * MS, 10 * SECOND), (0, 0));
    let config = world.hosts[0].config.clone();
    world.start(0, config, &memory);
    assert_eq!(world.run_pinging(0, 1, 10 * MS, SECOND), (0, 0));
    world.connect(0, 1);
    assert_eq!(world.run_pinging(0, 1, 10 * MS, 10 * SECOND), (0, 0));
    assert!(world.both(0, 1, Carrier::Fastpath));
    for host in &world.hosts {
        assert!(host.did.iter().all(leaves_the_kernel), "{:?}", host.did);
    }
}

#[test]
fn a_router_that_forgot_agrees_with_its_peer_whichever_leads() {
    for forgetful in [0, 1] {
        let mut world = World::pair();
        world.kill(forgetful);
        world.run(SECOND);
        let config = world.hosts[forgetful].config.clone();
        world.start(forgetful, config, &[]);
        world.connect(0, 1);
        let agree = |world: &World| world.both(0, 1, Carrier::Fastpath) || world.both(0, 1, Carrier::Sleeve);
        world.until(SECOND, agree);
        world.until(15 * SECOND, |world| world.both(0, 1, Carrier::Fastpath));
    }
}

#[test]
fn memory_without_a_word_from_the_mesh_is_dropped_after_a_minute() {
    let mut world = World::pair();
    let memory = world.kill(0);
    let config = world.hosts[0].config.clone();
    world.start(0, config, &memory);
    world.run(59 * SECOND);
    assert!(world.remote(0, 1).unwrap().default);
    world.run(2 * SECOND);
    assert_eq!(world.remote(0, 1), None);
}

#[test]
fn memory_of_a_peer_that_the_mesh_knows_is_held_like_any_lost_peer() {
    let mut world = World::pair();
    let memory = world.kill(0);
    let config = world.hosts[0].config.clone();
    world.start(0, config, &memory);
    world.with(0, |overlay, now| overlay.handle_mesh(|peer| (peer == name(1)).then_some(false), now));
    world.run(9 * MINUTE);
    assert!(world.remote(0, 1).unwrap().default);
    world.run(MINUTE + SECOND);
    assert_eq!(world.remote(0, 1), None);
}

#[test]
fn memory_that_the_new_settings_forbid_is_not_taken_over() {
    for change in
        [|config: &mut Config| config.encrypted = true, |config: &mut Config| config.fastpath = None]
    {
        let mut world = World::pair();
        let memory = world.kill(0);
        let mut config = config(0);
        change(&mut config);
        world.start(0, config, &memory);
        assert_eq!(world.remote(0, 1), None);
        world.connect(0, 1);
        world.until(SECOND, |world| world.both(0, 1, Carrier::Sleeve));
    }
}

#[test]
fn two_routers_restarted_together_go_on() {
    let mut world = World::pair();
    let memories = [world.kill(0), world.kill(1)];
    assert_eq!(world.run_pinging(0, 1, 10 * MS, 5 * SECOND), (0, 0));
    for (at, memory) in memories.iter().enumerate() {
        let config = world.hosts[at].config.clone();
        world.start(at, config, memory);
    }
    world.connect(0, 1);
    assert_eq!(world.run_pinging(0, 1, 10 * MS, 20 * SECOND), (0, 0));
    assert!(world.both(0, 1, Carrier::Fastpath));
}

#[test]
fn a_goodbye_before_a_restart_keeps_everything_and_one_for_good_reports_it() {
    let mut world = World::pair();
    world.forget_deeds();
    world.with(1, |overlay, _| overlay.farewell(Goodbye::Restarting));
    world.run(10 * MS);
    world.disconnect(0, 1);
    world.run(MINUTE);
    assert!(world.hosts[0].did.iter().all(|did| matches!(did, Did::Carrier(..))));
    world.connect(0, 1);
    world.run(SECOND);
    let mut overlay = world.hosts.swap_remove(0).overlay;
    overlay.handle_told(name(1), Told::Goodbye(Goodbye::Leaving), world.now);
    let left =
        std::iter::from_fn(|| overlay.poll_output()).any(|o| matches!(o, Output::Left(p) if p == name(1)));
    assert!(left);
}

#[test]
fn a_peer_that_comes_back_with_another_address_is_left_at_the_old_one_first() {
    let mut world = World::pair();
    world.disconnect(0, 1);
    let now = world.now;
    let overlay = &mut world.hosts[0].overlay;
    overlay.handle_established(name(1), "b".into(), "10.99.7.7:40000".parse().unwrap(), 9, now);
    let outputs: Vec<Output> = std::iter::from_fn(|| overlay.poll_output()).collect();
    let moved = outputs.iter().find_map(|output| {
        let Output::MoveMacs { address, to, .. } = output else { return None };
        Some((*address, *to))
    });
    assert_eq!(moved, Some(("10.99.0.2".parse().unwrap(), Stand::Sleeve)));
    assert!(overlay.wish().remotes.is_empty());
}
