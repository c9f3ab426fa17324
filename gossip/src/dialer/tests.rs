//! When what is dialled, in virtual time.

use rand::SeedableRng as _;

use super::*;

#[expect(clippy::disallowed_methods, reason = "an origin for virtual time")]
fn origin() -> Instant {
    Instant::now()
}

const SECOND: Duration = Duration::from_secs(1);

fn target() -> Target {
    "host2".parse().unwrap()
}

fn lower() -> PeerName {
    PeerName::from_u64(1)
}

fn higher() -> PeerName {
    PeerName::from_u64(2)
}

fn rng() -> StdRng {
    StdRng::seed_from_u64(5)
}

/// Fails each dial at once and gives the waits between them.
fn waits(dialer: &mut Dialer, count: usize, mut now: Instant) -> Vec<Duration> {
    let mut rng = rng();
    let mut waits = Vec::new();
    for number in 0..count {
        let due = dialer.due(Room::ForAnybody).unwrap();
        waits.push(due.saturating_duration_since(now));
        now = due.max(now);
        let (key, _) = dialer.next_dial(Room::ForAnybody, now).unwrap();
        dialer.started(&key, ConnectionId(number as u64));
        dialer.failed(&key, "refused".into(), &mut rng, now);
    }
    waits
}

#[test]
fn a_target_is_dialled_at_once_and_then_ever_more_seldom_up_to_a_minute() {
    let start = origin();
    let mut dialer = Dialer::new(lower());
    dialer.add_target(target(), start);
    let waits = waits(&mut dialer, 16, start);
    assert_eq!(waits[0], Duration::ZERO);
    assert!(waits[1] >= SECOND.mul_f64(0.75) && waits[1] <= SECOND.mul_f64(1.25));
    assert!(waits.iter().all(|wait| *wait <= 60 * SECOND));
    assert!(waits[15] > 40 * SECOND);
}

#[test]
fn a_peer_that_was_here_today_is_dialled_every_five_seconds_at_least() {
    let start = origin();
    let mut dialer = Dialer::new(lower());
    dialer.add_target(target(), start);
    dialer.started(&Key::Target(target()), ConnectionId(1));
    dialer.connected(&Key::Target(target()), higher(), start);
    assert_eq!(dialer.due(Room::ForAnybody), None, "it rests while the session lives");
    dialer.peer_down(higher(), &mut rng(), start + SECOND);
    assert!(waits(&mut dialer, 16, start + SECOND).iter().all(|wait| *wait <= 5 * SECOND));
}

#[test]
fn adding_a_target_again_dials_it_now() {
    let start = origin();
    let mut dialer = Dialer::new(lower());
    dialer.add_target(target(), start);
    waits(&mut dialer, 12, start);
    let now = start + SECOND;
    dialer.add_target(target(), now);
    assert_eq!(dialer.due(Room::ForAnybody), Some(now));
    assert_eq!(dialer.next_dial(Room::ForAnybody, now), Some((Key::Target(target()), target())));
}

#[test]
fn two_names_of_one_peer_both_rest_while_it_has_a_session() {
    let start = origin();
    let other: Target = "10.0.0.2".parse().unwrap();
    let mut dialer = Dialer::new(lower());
    for (number, target) in [target(), other].into_iter().enumerate() {
        dialer.add_target(target.clone(), start);
        dialer.started(&Key::Target(target.clone()), ConnectionId(number as u64));
        dialer.connected(&Key::Target(target), higher(), start);
    }
    assert_eq!(dialer.due(Room::ForAnybody), None);
    dialer.peer_down(higher(), &mut rng(), start);
    assert!(dialer.due(Room::ForAnybody).is_some());
    dialer.peer_up(higher(), start);
    assert_eq!(dialer.due(Room::ForAnybody), None, "somebody else connected them");
}

#[test]
fn of_two_that_learn_of_each_other_the_lower_name_moves_first() {
    let start = origin();
    let place: SocketAddr = "10.0.0.9:6783".parse().unwrap();
    let mut first = Dialer::new(lower());
    let mut second = Dialer::new(higher());
    first.learn(higher(), &[place], false, &mut rng(), start);
    second.learn(lower(), &[place], false, &mut rng(), start);
    assert!(first.due(Room::ForAnybody).unwrap() <= start + SPREAD);
    assert!(second.due(Room::ForAnybody).unwrap() >= start + COURTESY);
}

#[test]
fn the_endpoints_of_a_peer_are_tried_in_turn() {
    let start = origin();
    let places: Vec<SocketAddr> = vec!["10.0.0.9:1".parse().unwrap(), "10.0.0.9:2".parse().unwrap()];
    let mut dialer = Dialer::new(lower());
    dialer.learn(higher(), &places, false, &mut rng(), start);
    let mut tried = Vec::new();
    for number in 0..3 {
        let now = dialer.due(Room::ForAnybody).unwrap();
        let (key, place) = dialer.next_dial(Room::ForAnybody, now).unwrap();
        tried.push(place.port());
        dialer.started(&key, ConnectionId(number));
        assert_eq!(dialer.next_dial(Room::ForAnybody, now), None, "one attempt at a time");
        dialer.failed(&key, "refused".into(), &mut rng(), now);
    }
    assert_eq!(tried, [1, 2, 1]);
}

#[test]
fn a_long_wait_ends_when_the_peer_is_heard_of_in_a_new_life() {
    let start = origin();
    let place: SocketAddr = "10.0.0.9:6783".parse().unwrap();
    let mut dialer = Dialer::new(lower());
    dialer.learn(higher(), &[place], false, &mut rng(), start);
    waits(&mut dialer, 12, start);
    let now = start + 100 * SECOND;
    assert!(dialer.due(Room::ForAnybody).unwrap() > now + SECOND);
    dialer.learn(higher(), &[place], false, &mut rng(), now);
    assert!(dialer.due(Room::ForAnybody).unwrap() > now + SECOND, "what was known before is no news");
    dialer.learn(higher(), &[place], true, &mut rng(), now);
    assert!(dialer.due(Room::ForAnybody).unwrap() <= now + SPREAD);
}

#[test]
fn only_so_many_dials_are_under_way_at_one_time() {
    let start = origin();
    let mut dialer = Dialer::new(lower());
    for number in 0..100u16 {
        dialer.add_target(format!("host:{}", number + 1).parse().unwrap(), start);
    }
    let mut started = 0;
    while let Some((key, _)) = dialer.next_dial(Room::ForAnybody, start) {
        dialer.started(&key, ConnectionId(started));
        started += 1;
    }
    assert_eq!(started, Window::default().size() as u64);
    assert_eq!(dialer.due(Room::ForAnybody), None);
    dialer.unanswered();
    assert!(dialer.next_dial(Room::ForAnybody, start).is_some(), "where nobody is, nothing is slow");
}

#[test]
fn with_room_for_strangers_alone_only_they_are_dialled() {
    let start = origin();
    let place = |host: u8| SocketAddr::from(([10, 0, 0, host], 6783));
    let mut dialer = Dialer::new(lower());
    dialer.learn(higher(), &[place(2)], false, &mut rng(), start);
    let stranger = PeerName::from_u64(3);
    dialer.rerouted([higher()].into());
    assert_eq!(dialer.due(Room::ForStrangers), None);
    dialer.learn(stranger, &[place(3)], false, &mut rng(), start);
    let due = dialer.due(Room::ForStrangers).unwrap();
    assert_eq!(dialer.next_dial(Room::ForStrangers, due).unwrap().0, Key::Peer(stranger));
    dialer.rerouted([higher(), stranger].into());
    assert_eq!(dialer.due(Room::ForStrangers), None, "a way leads there now");
    dialer.rerouted([stranger].into());
    assert!(dialer.due(Room::ForStrangers).is_some(), "and none there any more");
}

#[test]
fn a_target_that_turned_us_away_is_no_stranger_while_its_peer_is_in_reach() {
    let start = origin();
    let mut dialer = Dialer::new(lower());
    dialer.rerouted([higher()].into());
    dialer.add_target(target(), start);
    let (key, _) = dialer.next_dial(Room::ForStrangers, start).unwrap();
    dialer.started(&key, ConnectionId(1));
    dialer.met(&key, higher());
    dialer.failed(&key, "full".into(), &mut rng(), start);
    assert_eq!(dialer.due(Room::ForStrangers), None);
    assert!(dialer.due(Room::ForAnybody).is_some());
}
