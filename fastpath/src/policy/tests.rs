//! The planner against pictures of the kernel.

use std::collections::BTreeSet;

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use super::*;
use crate::mac::MacAddr;

fn lock(last: u8) -> Lock {
    let address = std::net::Ipv4Addr::new(10, 32, 0, last);
    Lock { mac: MacAddr::from_ip(address), addresses: BTreeSet::from([address.into()]) }
}

fn wish() -> Policy {
    Policy {
        masquerade: Some(Masquerade { range: "10.32.0.0/12".parse().unwrap() }),
        locks: BTreeMap::from([("wv01".to_owned(), lock(1))]),
        forward: true,
    }
}

fn lines(desired: &Policy, actual: &PolicyState) -> Vec<String> {
    plan_policy(&BridgeName::default(), desired, actual).iter().map(ToString::to_string).collect()
}

/// What the kernel would show after these changes.
fn run(actual: &mut PolicyState, changes: &[PolicyChange]) {
    for change in changes {
        match change {
            PolicyChange::Table(change) if change.to_string().contains(MASQUERADE) => {
                actual.masquerade.after(change);
            }
            PolicyChange::Table(change) => actual.lock.after(change),
            PolicyChange::Forward(ForwardChange::Insert { backend, accept }) => {
                let ours = &mut actual.forward.get_mut(backend).unwrap().ours;
                let at = Locator::Handle(1000 + ours.len() as u64);
                ours.insert(0, Marked { accept: Some(*accept), at });
            }
            PolicyChange::Forward(ForwardChange::Remove { backend, at }) => {
                let ours = &mut actual.forward.get_mut(backend).unwrap().ours;
                let found = ours.iter().position(|rule| rule.at == *at).expect("it stands");
                ours.remove(found);
            }
        }
    }
}

#[test]
fn from_nothing_all_is_made_and_to_nothing_all_is_removed() {
    let mut actual = PolicyState::default();
    actual.forward.insert(Backend::Legacy, ForwardChain { drops: true, ..ForwardChain::default() });
    assert_eq!(
        lines(&wish(), &actual),
        [
            "create the masquerade: what leaves 10.32.0.0/12",
            "create the port lock: 1 ports",
            "FORWARD chain of iptables-legacy: accept what comes from the bridge",
            "FORWARD chain of iptables-legacy: accept replies to it",
        ]
    );
    let changes = plan_policy(&BridgeName::default(), &wish(), &actual);
    run(&mut actual, &changes);
    assert_eq!(lines(&wish(), &actual), Vec::<String>::new());
    assert_eq!(
        lines(&Policy::default(), &actual),
        [
            "delete the masquerade",
            "delete the port lock",
            "FORWARD chain of iptables-legacy: remove a rule of ours",
            "FORWARD chain of iptables-legacy: remove a rule of ours",
        ]
    );
    assert_eq!(lines(&Policy::default(), &PolicyState::default()), Vec::<String>::new());
}

#[test]
fn a_port_more_is_an_element_in_each_set_and_no_rule() {
    let mut actual = PolicyState::default();
    run(&mut actual, &plan_policy(&BridgeName::default(), &wish(), &PolicyState::default()));
    let mut more = wish();
    more.locks.insert("wv02".to_owned(), lock(2));
    more.locks.insert("a-name-too-long-for-any".to_owned(), lock(3));
    assert_eq!(
        lines(&more, &actual),
        [
            "port lock: add to addresses4: wv02 with 10.32.0.2",
            "port lock: add to macs: wv02 with 0a:58:0a:20:00:02",
            "port lock: add to ports: wv02",
        ]
    );
}

#[test]
fn without_ports_the_lock_is_not_made_but_one_that_stands_stays_until_nothing_is_wanted() {
    let mut actual = PolicyState::default();
    let none = Policy { locks: BTreeMap::new(), ..wish() };
    assert_eq!(lines(&none, &actual).iter().filter(|line| line.contains("port lock")).count(), 0);
    run(&mut actual, &plan_policy(&BridgeName::default(), &wish(), &PolicyState::default()));
    assert_eq!(
        lines(&none, &actual),
        [
            "port lock: remove from addresses4: wv01 with 10.32.0.1",
            "port lock: remove from macs: wv01 with 0a:58:0a:20:00:01",
            "port lock: remove from ports: wv01",
        ]
    );
    let changes = plan_policy(&BridgeName::default(), &none, &actual);
    run(&mut actual, &changes);
    assert_eq!(lines(&none, &actual), Vec::<String>::new());
    assert!(lines(&Policy::default(), &actual).contains(&"delete the port lock".to_owned()));
}

#[test]
fn another_range_or_bridge_is_another_masquerade() {
    let mut actual = PolicyState::default();
    run(&mut actual, &plan_policy(&BridgeName::default(), &wish(), &PolicyState::default()));
    let mut other = wish();
    other.masquerade = Some(Masquerade { range: "10.64.0.0/12".parse().unwrap() });
    assert_eq!(lines(&other, &actual), ["replace the masquerade: chain postrouting differs"]);
    let other: BridgeName = "other".parse().unwrap();
    assert_eq!(plan_policy(&other, &wish(), &actual).len(), 1);
    // The same range, written with an address of it.
    let mut same = wish();
    same.masquerade = Some(Masquerade { range: "10.33.0.1/12".parse().unwrap() });
    assert_eq!(lines(&same, &actual), Vec::<String>::new());
}

#[test]
fn a_chain_that_drops_nothing_gets_nothing_and_one_that_became_so_is_cleared() {
    let chain = |drops, foreign| ForwardChain { drops, foreign, ours: Vec::new() };
    let count = |chain| plan_forward(true, &BTreeMap::from([(Backend::Nftables, chain)])).len();
    assert_eq!([chain(false, 0), chain(true, 0), chain(false, 1)].map(count), [0, 2, 2]);
    let left = |accept| Marked { accept, at: Locator::Handle(7) };
    let open = ForwardChain { ours: vec![left(Some(Accept::FromBridge)), left(None)], ..chain(false, 0) };
    assert_eq!(count(open), 2);
}

prop_compose! {
    fn chains()(found in btree_map(
        any::<bool>().prop_map(|legacy| if legacy { Backend::Legacy } else { Backend::Nftables }),
        (any::<bool>(), 0usize..3, vec(0u8..3, 0..5)),
        0..3,
    )) -> BTreeMap<Backend, ForwardChain> {
        let marked = |(at, which): (usize, u8)| Marked {
            accept: Accept::ALL.get(usize::from(which)).copied(),
            at: Locator::Handle(at as u64),
        };
        let chain = |(drops, foreign, ours): (bool, usize, Vec<u8>)| ForwardChain {
            drops,
            foreign,
            ours: ours.into_iter().enumerate().map(marked).collect(),
        };
        found.into_iter().map(|(backend, found)| (backend, chain(found))).collect()
    }
}

proptest! {
    #[test]
    fn in_every_chain_that_matters_each_rule_ends_up_exactly_once(forward in chains(), wanted in any::<bool>()) {
        let mut actual = PolicyState { forward, ..PolicyState::default() };
        let wish = Policy { forward: wanted, ..Policy::default() };
        let changes = plan_policy(&BridgeName::default(), &wish, &actual);
        run(&mut actual, &changes);
        for chain in actual.forward.values() {
            let mut ours: Vec<Option<Accept>> = chain.ours.iter().map(|rule| rule.accept).collect();
            ours.sort();
            let needed = wanted && (chain.drops || chain.foreign > 0);
            let expected = if needed { Accept::ALL.map(Some).to_vec() } else { vec![] };
            prop_assert_eq!(ours, expected);
        }
        prop_assert_eq!(plan_policy(&BridgeName::default(), &wish, &actual), vec![]);
    }
}
