//! The planner against a model of the kernel.

use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::collection::btree_set;
use proptest::option;
use proptest::prelude::*;

use super::*;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn wish() -> Filter {
    Filter {
        mesh_tcp: BTreeSet::from([6783]),
        mesh_udp: BTreeSet::from([6783, 6784, 6785]),
        sources: BTreeSet::from([ip("192.0.2.2"), ip("2001:db8::2")]),
        ..Filter::new(6784)
    }
}

fn standing(filter: &Filter) -> FilterState {
    FilterState { table: Some(filter.table()), ..FilterState::default() }
}

/// The picture after a change.
fn after(state: &mut FilterState, change: &FilterChange) {
    let mut found = TableState { table: state.table.take(), ..TableState::default() };
    found.after(change);
    *state = found.into();
}

fn lines(changes: &[FilterChange]) -> Vec<String> {
    changes.iter().map(ToString::to_string).collect()
}

#[test]
fn from_nothing_the_whole_filter_is_written_and_to_nothing_it_is_deleted() {
    let nothing = FilterState::default();
    assert_eq!(
        lines(&plan_filter(Some(&wish()), &nothing)),
        ["create the source filter: VXLAN on port 6784 from 2 peers"]
    );
    assert_eq!(lines(&plan_filter(None, &standing(&wish()))), ["delete the source filter"]);
    assert_eq!(plan_filter(None, &nothing), []);
}

#[test]
fn a_peer_that_comes_or_goes_is_an_element_and_nothing_else() {
    let mut changed = wish();
    changed.sources = BTreeSet::from([ip("192.0.2.3"), ip("2001:db8::2")]);
    changed.mesh_tcp.insert(16783);
    assert_eq!(
        lines(&plan_filter(Some(&changed), &standing(&wish()))),
        [
            "source filter: add to mesh_tcp: 16783",
            "source filter: remove from sources4: 192.0.2.2",
            "source filter: add to sources4: 192.0.2.3",
        ]
    );
}

#[test]
fn a_peer_on_trial_is_an_element_too_and_becomes_a_source_in_one_transaction() {
    let mut trial = wish();
    trial.probes = BTreeSet::from([ip("192.0.2.3"), ip("::ffff:192.0.2.4"), ip("2001:db8::3")]);
    assert_eq!(
        lines(&plan_filter(Some(&trial), &standing(&wish()))),
        ["source filter: add to probes4: 192.0.2.3, 192.0.2.4", "source filter: add to probes6: 2001:db8::3",]
    );
    let mut trusted = trial.clone();
    trusted.probes.remove(&ip("192.0.2.3"));
    trusted.sources.insert(ip("192.0.2.3"));
    assert_eq!(
        lines(&plan_filter(Some(&trusted), &standing(&trial))),
        ["source filter: remove from probes4: 192.0.2.3", "source filter: add to sources4: 192.0.2.3"]
    );
    assert_eq!(
        lines(&plan_filter(Some(&trial), &FilterState::default())),
        ["create the source filter: VXLAN on port 6784 from 2 peers, probes from 3 more"]
    );
}

#[test]
fn many_elements_are_still_one_line() {
    let mut changed = wish();
    changed.sources.extend((0..100).map(|last| IpAddr::from([198, 51, 100, last])));
    let lines = lines(&plan_filter(Some(&changed), &standing(&wish())));
    assert_eq!(lines.len(), 1);
    assert!(lines[0].ends_with("198.51.100.7 and 92 more"), "{lines:?}");
}

#[test]
fn what_is_fixed_is_replaced_as_a_whole_and_the_reason_is_said() {
    let why = |change: &dyn Fn(&mut Table)| {
        let mut state = standing(&wish());
        change(state.table.as_mut().unwrap());
        let mut lines = lines(&plan_filter(Some(&wish()), &state));
        assert_eq!(lines.len(), 1, "{lines:?}");
        lines.remove(0)
    };
    let replace = |cause: &str| format!("replace the source filter: {cause}");
    assert_eq!(why(&|table| table.flags = 1), replace("it is dormant"));
    assert_eq!(why(&|table| drop(table.chains.remove("vxlan"))), replace("chain vxlan is missing"));
    assert_eq!(
        why(&|table| drop(table.chains.get_mut("input").unwrap().rules.remove(1))),
        replace("chain input differs")
    );
    assert_eq!(
        why(&|table| table.chains.get_mut("input").unwrap().base.as_mut().unwrap().accepts = false),
        replace("chain input differs")
    );
    let strange = Chain::default();
    assert_eq!(
        why(&|table| drop(table.chains.insert("mine".into(), strange.clone()))),
        replace("chain mine is not ours")
    );
    assert_eq!(
        why(&|table| table.sets.get_mut("sources4").unwrap().flags = 4),
        replace("set sources4 differs")
    );
}

#[test]
fn another_port_or_destination_is_another_filter() {
    let mut port = wish();
    port.vxlan_port = Some(4789);
    let mut destination = wish();
    destination.destination = Some(ip("192.0.2.1"));
    for changed in [port, destination] {
        let changes = plan_filter(Some(&changed), &standing(&wish()));
        assert!(matches!(changes[..], [FilterChange::Replace { .. }]), "{changes:?}");
    }
    let mut any = wish();
    any.destination = Some(ip("0.0.0.0"));
    assert_eq!(plan_filter(Some(&any), &standing(&wish())), [], "listening on any address is no destination");
}

#[test]
fn a_destination_of_one_family_closes_the_other() {
    let mut four = wish();
    four.destination = Some(ip("192.0.2.1"));
    let rules = four.table().chains["vxlan"].rules.clone();
    let accepting = rules.iter().filter(|rule| rule.expressions.contains(&Expression::Accept));
    assert_eq!(accepting.count(), 2, "peers and probes");
    for closed in ["sources6", "probes6"] {
        assert!(!rules.iter().any(|rule| rule.expressions.contains(&Expression::In(closed.into()))));
    }
}

#[test]
fn a_mapped_source_is_an_ipv4_source_and_the_vxlan_port_is_always_a_mesh_port() {
    let mut filter = wish();
    filter.sources = BTreeSet::from([ip("::ffff:192.0.2.2"), ip("2001:db8::2")]);
    filter.mesh_udp.clear();
    let sets = filter.table().sets;
    assert_eq!(sets["sources4"].elements, BTreeSet::from([Element::Address(ip("192.0.2.2"))]));
    assert_eq!(sets["mesh_udp"].elements, BTreeSet::from([Element::Port(6784)]));
}

fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        any::<u8>().prop_map(|last| IpAddr::V4(Ipv4Addr::new(192, 0, 2, last))),
        any::<u8>().prop_map(|last| IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last.into()))),
    ]
}

prop_compose! {
    fn filters()(
        mesh_tcp in btree_set(6780..6790_u16, 0..4),
        mesh_udp in btree_set(6780..6790_u16, 0..4),
        vxlan_port in option::of(6784..6786_u16),
        sources in btree_set(address(), 0..20),
        probes in btree_set(address(), 0..20),
        destination in option::of(address()),
    ) -> Filter {
        Filter { mesh_tcp, mesh_udp, vxlan_port, sources, probes, destination }
    }
}

/// Something that a stranger did to the table.
fn bend(state: &mut FilterState, how: u8) {
    let Some(table) = &mut state.table else { return };
    match how % 7 {
        0 => table.flags = 1,
        1 => drop(table.chains.pop_first()),
        2 => drop(table.sets.pop_last()),
        3 => table.chains.values_mut().for_each(|chain| chain.rules.reverse()),
        4 => table.sets.values_mut().for_each(|set| drop(set.elements.pop_first())),
        5 => drop(table.chains.insert("foreign".into(), Chain::default())),
        _ => table.sets.values_mut().for_each(|set| set.elements.extend([Element::Port(9)])),
    }
}

proptest! {
    #[test]
    fn a_plan_leads_to_the_wish_and_then_there_is_nothing_to_do(
        before in option::of(filters()),
        wish in option::of(filters()),
        bent in option::of(any::<u8>()),
    ) {
        let mut state = before.as_ref().map(standing).unwrap_or_default();
        if let Some(how) = bent {
            bend(&mut state, how);
        }
        for change in plan_filter(wish.as_ref(), &state) {
            after(&mut state, &change);
        }
        let wanted = wish.as_ref().map(Filter::table);
        prop_assert_eq!(&state.table, &wanted);
        prop_assert_eq!(plan_filter(wish.as_ref(), &state), vec![]);
    }

    #[test]
    fn only_what_differs_is_changed(before in filters(), mut wish in filters()) {
        wish.vxlan_port = before.vxlan_port;
        wish.destination = before.destination;
        let mut state = standing(&before);
        for change in plan_filter(Some(&wish), &state) {
            match &change {
                FilterChange::Add { set, elements, .. } => {
                    let found = &state.table.as_ref().unwrap().sets[set].elements;
                    prop_assert!(found.is_disjoint(elements) && !elements.is_empty());
                }
                FilterChange::Remove { set, elements, .. } => {
                    let found = &state.table.as_ref().unwrap().sets[set].elements;
                    prop_assert!(found.is_superset(elements) && !elements.is_empty());
                }
                FilterChange::Create { .. } | FilterChange::Replace { .. } | FilterChange::Delete { .. } => {
                    prop_assert!(false, "{}", change);
                }
            }
            after(&mut state, &change);
        }
        prop_assert_eq!(state.table, Some(wish.table()));
    }
}
