//! The laws of merging, and what happens to records that speak of ourselves or cannot be true.

use proptest::prelude::*;

use super::*;
use crate::identity::Identity;
use crate::peer::BootId;

fn key(who: u8) -> [u8; 32] {
    *Identity::from_secret([who; 32]).public()
}

fn name(who: u8) -> PeerName {
    PeerName::of_key(&key(who))
}

fn introduction(who: u8) -> Introduction {
    Introduction {
        name: name(who),
        incarnation: Incarnation(1),
        boot: BootId(7),
        nickname: format!("host{who}"),
        site: "default".into(),
        listen_port: 6783,
        endpoints: Vec::new(),
        channels: Vec::new(),
    }
}

fn topology() -> Topology {
    Topology::new(&introduction(1), key(1))
}

fn record(who: u8, incarnation: u64, version: u64) -> Record {
    Record {
        incarnation: Incarnation(incarnation),
        version,
        ..Topology::new(&introduction(who), key(who)).own().clone()
    }
}

fn said(record: Record, links: &[u8]) -> Said {
    let mut links: Vec<_> = links.iter().map(|link| name(*link)).collect();
    links.sort_unstable();
    Said { entry: Entry::Live(record), links }
}

fn live(who: u8, incarnation: u64, version: u64) -> (PeerName, Said) {
    (name(who), said(record(who, incarnation, version), &[1]))
}

/// All that a topology holds, links included.
fn all(topology: &Topology) -> Vec<(PeerName, Said)> {
    topology.entries.iter().map(|(name, entry)| (*name, topology.said(*name, entry))).collect()
}

#[test]
fn the_higher_incarnation_wins_and_then_the_higher_version() {
    let mut topology = topology();
    for (incarnation, version, expected) in [
        (1, 5, Merge::News),
        (1, 4, Merge::Known),
        (2, 1, Merge::News),
        (1, 9, Merge::Known),
        (2, 1, Merge::Known),
    ] {
        let (name, entry) = live(2, incarnation, version);
        assert_eq!(topology.merge(name, entry), expected, "({incarnation}, {version})");
    }
}

#[test]
fn a_record_whose_name_is_not_the_hash_of_its_key_is_refused() {
    let mut topology = topology();
    let forged = Record { key: key(3), ..record(2, 1, 1) };
    assert_eq!(topology.merge(name(2), said(forged.clone(), &[])), Merge::Refused);
    assert_eq!(topology.merge(name(3), said(forged, &[])), Merge::Refused);
    let endless = Record { version: u64::MAX, ..record(2, 1, 1) };
    assert_eq!(topology.merge(name(2), said(endless, &[])), Merge::Refused);
}

#[test]
fn what_somebody_remembers_of_an_earlier_life_of_ours_is_outdone() {
    let mut topology = topology();
    let (me, old) = live(1, 4, 30);
    let Merge::Ours(stamp) = topology.merge(me, old.clone()) else { panic!("our own record was merged") };
    topology.raise_above(stamp);
    assert_eq!(topology.merge(me, old), Merge::Known);
    assert_eq!((topology.own().incarnation, topology.own().boot), (Incarnation(4), BootId(7)));
}

#[test]
fn a_removed_router_that_lives_comes_back_with_a_higher_incarnation() {
    let (mut here, mut there) = (topology(), Topology::new(&introduction(2), key(2)));
    here.merge(name(2), said(there.own().clone(), &[]));
    let removal = Said::removal(Incarnation(1));
    assert_eq!(here.merge(name(2), removal.clone()), Merge::News);
    assert_eq!(here.merge(name(2), removal), Merge::Known, "removing is idempotent");
    assert!(here.record(name(2)).is_none());
    let (me, relearned) = live(2, 1, 99);
    assert_eq!(here.merge(me, relearned), Merge::Known, "the same incarnation is not taken again");
    let Merge::Ours(stamp) = there.merge(name(2), Said::removal(Incarnation(1))) else { panic!() };
    there.raise_above(stamp);
    assert_eq!(here.merge(name(2), said(there.own().clone(), &[])), Merge::News);
}

#[test]
fn a_change_is_applied_to_its_base_and_asked_about_without_it() {
    let (mut here, mut there) = (topology(), Topology::new(&introduction(2), key(2)));
    here.merge(name(2), said(there.own().clone(), &[]));
    let place = ["10.0.0.2:1".parse().unwrap()];
    let mut say = |links: &[u8], endpoints: &[SocketAddr]| {
        let links = links.iter().map(|link| name(*link)).collect();
        there.publish(&links, &BTreeSet::new(), endpoints, |_| true)
    };
    let first = say(&[1, 3], &[]).unwrap();
    let second = say(&[3], &place).unwrap();
    assert!(say(&[3], &place).is_none());
    assert_eq!(here.merge_change(&second), Merge::Missing);
    assert_eq!(here.merge_change(&first), Merge::News);
    assert_eq!(here.merge_change(&second), Merge::News);
    assert_eq!(here.merge_change(&first), Merge::Known);
    assert_eq!(here.record(name(2)), Some(there.own()));
    assert_eq!(here.links(name(2)).collect::<Vec<_>>(), [name(3)]);
}

#[test]
fn over_which_links_nothing_carries_frames_is_told_as_a_change_and_with_the_record() {
    let (mut here, mut there) = (topology(), Topology::new(&introduction(2), key(2)));
    here.merge(name(2), said(there.own().clone(), &[]));
    let mut say = |links: &[u8], idle: &[u8]| {
        let [links, idle] = [links, idle].map(|peers| peers.iter().map(|peer| name(*peer)).collect());
        there.publish(&links, &idle, &[], |_| true)
    };
    let changes =
        [say(&[1, 3], &[]), say(&[1, 3], &[1]), say(&[1, 3], &[1]), say(&[3], &[1]), say(&[1, 3], &[1])];
    let told = [Some(vec![]), Some(vec![1]), None, Some(vec![]), Some(vec![1])];
    for (change, idle) in changes.into_iter().zip(told) {
        let (Some(change), Some(idle)) = (change, idle) else { continue };
        assert_eq!(here.merge_change(&change), Merge::News);
        let expected: Vec<_> = idle.into_iter().map(|peer| (name(2), name(peer))).collect();
        assert_eq!(here.idle().collect::<Vec<_>>(), expected);
    }
    let mut third = Topology::new(&introduction(3), key(3));
    for (name, said) in there.pack(&[name(2)]).into_iter().flat_map(|records| records.unpack().unwrap()) {
        assert_eq!(third.merge(name, said), Merge::News);
    }
    assert_eq!(third.idle().collect::<Vec<_>>(), [(name(2), name(1))]);
    let unheard_of = Record { idle: vec![name(4)], ..record(4, 1, 1) };
    assert_eq!(here.merge(name(4), said(unheard_of, &[1])), Merge::Refused, "it is linked with no such peer");
}

#[test]
fn the_number_of_known_peers_is_bounded() {
    let mut topology = topology();
    for number in 0..KNOWN_LIMIT as u64 + 50 {
        topology.merge(PeerName::from_u64(number), Said::removal(Incarnation(1)));
    }
    assert_eq!(topology.entries.len(), KNOWN_LIMIT);
    let (name, entry) = live(2, 1, 1);
    assert_eq!(topology.merge(name, entry), Merge::News, "what was removed makes room for what lives");
}

fn entries() -> impl Strategy<Value = Vec<(PeerName, Said)>> {
    let one =
        (2u8..6, 1u64..4, 1u64..4, any::<bool>(), 0u64..2, proptest::collection::btree_set(1u8..6, 0..4));
    let entry = one.prop_map(|(who, incarnation, version, removed, boot, links)| {
        let links: Vec<_> = links.into_iter().collect();
        let record = Record { boot: BootId(boot), ..record(who, incarnation, version) };
        (name(who), if removed { Said::removal(record.incarnation) } else { said(record, &links) })
    });
    proptest::collection::vec(entry, 0..20)
}

fn merged<'a>(entries: impl IntoIterator<Item = &'a (PeerName, Said)>) -> Topology {
    let mut topology = topology();
    for (name, entry) in entries {
        topology.merge(*name, entry.clone());
    }
    topology
}

proptest! {
    #[test]
    fn the_order_of_merging_does_not_matter(entries in entries()) {
        let (forth, back) = (merged(&entries), merged(entries.iter().rev()));
        prop_assert_eq!(all(&forth), all(&back));
        prop_assert_eq!(forth.hash(), back.hash());
    }

    #[test]
    fn merging_twice_is_merging_once(entries in entries()) {
        let (once, twice) = (merged(&entries), merged(entries.iter().chain(&entries)));
        prop_assert_eq!(all(&once), all(&twice));
        prop_assert_eq!(once.hash(), twice.hash());
    }

    #[test]
    fn a_digest_brings_two_topologies_together(left in entries(), right in entries()) {
        let (mut left, mut right) = (merged(&left), merged(&right));
        let missing = right.newer_than(&left.stamps());
        let wanted: Vec<_> =
            right.newer_than(&[]).into_iter().chain(left.newer_than(&right.stamps())).collect();
        for (name, entry) in right.pack(&missing).into_iter().flat_map(|records| records.unpack().unwrap()) {
            left.merge(name, entry);
        }
        for (name, entry) in left.pack(&wanted).into_iter().flat_map(|records| records.unpack().unwrap()) {
            right.merge(name, entry);
        }
        let stamps = |topology: &Topology| topology.stamps();
        prop_assert_eq!(stamps(&left), stamps(&right));
        prop_assert_eq!(left.hash(), right.hash());
    }
}
