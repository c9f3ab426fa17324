//! The ring under a model checker: every order of a few steps of three peers, and what happens without each rule.
//!
//! The shipped `Ring` and `Space` take every step; `tests/model/` holds the rules the allocator puts around them, so
//! that one can be broken at a time. Breadth first, so a counter-example is a shortest one.
//! `WEFT_DEPTH=9` goes to that depth where nothing may be found (a step more is about five times the states).

#![expect(clippy::print_stdout, reason = "how much was looked at is part of the answer")]

use stateright::{Checker, HasDiscoveries, Model};

#[path = "../model/cluster.rs"]
mod cluster;
#[path = "../model/peer.rs"]
mod peer;
#[path = "../model/rules.rs"]
mod rules;

use cluster::{Cluster, FED, KEPT, ONE_USER, REUSED};
use rules::Rule;

/// One operator; messages lost and late; processes that end and come back with what they had.
const LOSSY: Cluster = Cluster {
    broken: None,
    in_flight: 3,
    leases: 1,
    crashes: 1,
    removals: 1,
    greedy: false,
    owners: 2,
    late: true,
};
/// Two operators who hear each other in time.
const TWO_OPERATORS: Cluster = Cluster { in_flight: 2, removals: 2, late: false, ..LOSSY };

/// Checks to a depth; says how much that was.
fn check(cluster: Cluster, depth: usize, until: HasDiscoveries) -> impl Checker<Cluster> {
    let (label, broken) = (if cluster.late { "lossy" } else { "two operators" }, cluster.broken);
    let builder = cluster.checker().threads(2).target_max_depth(depth).finish_when(until);
    let checker = builder.spawn_bfs().join();
    println!(
        "{label}, broken: {broken:?}: {} states, depth {}",
        checker.unique_state_count(),
        checker.max_depth()
    );
    checker
}

fn holds(cluster: Cluster) {
    let depth = std::env::var("WEFT_DEPTH").ok().and_then(|depth| depth.parse().ok()).unwrap_or(7);
    let checker = check(cluster, depth, HasDiscoveries::AnyFailures);
    for property in [ONE_USER, KEPT] {
        checker.assert_no_discovery(property);
    }
    for property in [FED, REUSED] {
        assert!(checker.discovery(property).is_some(), "{property:?} never came about: the model is idle");
    }
}

fn breaks(cluster: Cluster, rule: Rule, depth: usize) {
    let checker = check(Cluster { broken: Some(rule), ..cluster }, depth, HasDiscoveries::AnyFailures);
    let found = [ONE_USER, KEPT].into_iter().filter_map(|name| Some((name, checker.discovery(name)?)));
    let found: Vec<_> = found.map(|(name, path)| (name, path.into_actions())).collect();
    for (name, actions) in &found {
        println!("without {rule:?} not {name:?}: {actions:?}");
    }
    assert!(!found.is_empty(), "without {rule:?} nothing went wrong: the checker would not see it");
}

#[test]
fn no_address_is_used_twice_whatever_is_lost_late_or_restarted() {
    holds(LOSSY);
}

#[test]
fn two_operators_who_remove_at_once_end_in_one_owner() {
    holds(TWO_OPERATORS);
}

#[test]
fn a_peer_that_gives_what_it_does_not_own_is_found_out() {
    breaks(LOSSY, Rule::OnlyTheOwnerGives, 7);
}

#[test]
fn a_removal_without_a_fence_is_found_out() {
    breaks(Cluster { in_flight: 2, greedy: true, crashes: 0, ..LOSSY }, Rule::Fences, 9);
}

#[test]
fn an_operator_who_does_not_let_it_rest_is_found_out() {
    breaks(TWO_OPERATORS, Rule::Rests, 7);
}

#[test]
fn a_gift_that_was_not_on_disk_is_found_out() {
    breaks(Cluster { removals: 0, ..LOSSY }, Rule::DiskFirst, 10);
}
