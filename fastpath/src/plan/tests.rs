//! The planner against a model of the kernel: scenarios by hand, and anything at all by chance.

use std::collections::BTreeMap;

use ipnet::IpNet;
use proptest::prelude::*;

use super::*;
use crate::desired::{ContainerPort, Sleeve};
use crate::mac::MacAddr;
use crate::names::{BridgeName, Mark, Role};
use crate::vxlan::{Destination, Remote, RemoteId, Tunnel, Vxlan};

mod vxlan;

fn wish() -> Desired {
    let mut desired = Desired::new(BridgeName::default(), MacAddr::from_peer(7), 1450);
    desired.sleeve = Some(Sleeve { offloads: false });
    desired
}

fn port(id: &str) -> PortId {
    PortId::new(id, "eth0").unwrap()
}

fn run(actual: &mut Actual, changes: &[Change]) {
    for change in changes {
        actual.after(change);
    }
}

/// Says independently of the planner whether a link is as wanted.
fn satisfied(found: &Link, wanted: &Link) -> bool {
    found.owner == wanted.owner
        && found.mtu == wanted.mtu
        && found.addresses == wanted.addresses
        && found.entries == wanted.entries
        && (!matches!(wanted.kind, Kind::Vxlan(_)) || found.kind == wanted.kind)
        && (wanted.mac.is_none() || wanted.mac == found.mac)
        && (wanted.bridge.is_none() || wanted.bridge == found.bridge)
        && wanted.flags.iter().all(|(flag, on)| found.flags.get(flag) == Some(on))
}

fn lines(changes: &[Change]) -> Vec<String> {
    changes.iter().map(ToString::to_string).collect()
}

#[test]
fn from_nothing_the_bridge_comes_first_and_up_comes_last() {
    let mut desired = wish();
    desired.addresses.insert("10.32.0.1/12".parse::<IpNet>().unwrap());
    let changes = plan(&desired, &Actual::default()).unwrap();
    assert_eq!(
        lines(&changes),
        [
            "create bridge weft with MAC 0e:00:00:00:00:00",
            "weft: set alias weft/weft/bridge",
            "weft: MTU 1500 -> 1450",
            "weft: IPv6 address generation off",
            "weft: IPv6 router advertisements off",
            "weft: add address 10.32.0.1/12",
            "weft: up",
            "create pair weft-io and weft-sl",
            "weft-io: set alias weft/weft/capture",
            "weft-io: MTU 1500 -> 1450",
            "weft-io: IPv6 address generation off",
            "weft-io: IPv6 router advertisements off",
            "weft-io: deafness of the host's IPv4 on",
            "weft-io: up",
            "weft-sl: set alias weft/weft/sleeve",
            "weft-sl: MTU 1500 -> 1450",
            "weft-sl: IPv6 address generation off",
            "weft-sl: transmit offloads off",
            "weft-sl: join bridge weft",
            "weft-sl: isolation on",
            "weft-sl: up",
        ]
    );
}

/// The wish with one container link standing, as it was left by an attachment.
fn standing() -> (Desired, Actual) {
    let mut desired = wish();
    desired.ports.insert(port("c1"), ContainerPort { mtu: 1450, up: true, hairpin: true });
    let mut actual = Actual::default();
    for (name, link) in desired.links() {
        actual.links.insert(name, link);
    }
    (desired, actual)
}

#[test]
fn what_is_right_is_not_touched() {
    let (desired, actual) = standing();
    assert_eq!(plan(&desired, &actual), Ok(vec![]));
    assert!(missing(&desired, &actual).is_empty());
}

#[test]
fn when_the_bridge_is_deleted_its_ports_are_joined_again_and_nothing_else() {
    let (desired, mut actual) = standing();
    actual.after(&Change::Delete { link: "weft".into() });
    let changes = plan(&desired, &actual).unwrap();
    let host_end = desired.bridge.host_end(&port("c1"));
    let on_ports: Vec<String> = lines(&changes)
        .into_iter()
        .filter(|line| !line.contains(" weft ") && !line.starts_with("weft:"))
        .collect();
    assert_eq!(
        on_ports,
        [
            "weft-sl: join bridge weft".to_owned(),
            "weft-sl: isolation on".to_owned(),
            format!("{host_end}: join bridge weft"),
            format!("{host_end}: hairpin on"),
        ]
    );
}

#[test]
fn a_foreign_bridge_of_that_name_is_an_error_and_nothing_is_planned() {
    let mut actual = Actual::default();
    actual.links.insert("weft".into(), Link::new(Kind::Bridge, Owner::Foreign));
    let error = plan(&wish(), &actual).unwrap_err();
    assert_eq!(
        error.to_string(),
        "interface weft exists and is not ours (a bridge); remove it or choose another name"
    );
}

#[test]
fn a_half_made_pair_is_finished_and_a_torn_one_made_anew() {
    let desired = wish();
    let mut actual = Actual::default();
    actual.after(&Change::CreatePair { link: "weft-io".into(), peer: "weft-sl".into() });
    let changes = plan(&desired, &actual).unwrap();
    assert!(
        !changes.iter().any(|change| matches!(change, Change::CreatePair { .. } | Change::Delete { .. }))
    );

    let (desired, mut actual) = standing();
    let capture = actual.links.remove("weft-io").unwrap();
    actual.links.insert("renamed".into(), capture);
    actual.links.get_mut("weft-sl").unwrap().kind = Kind::Veth { peer: Some("renamed".into()) };
    let changes = plan(&desired, &actual).unwrap();
    assert_eq!(lines(&changes)[..2], ["delete weft-sl", "create pair weft-io and weft-sl"]);
}

#[test]
fn a_sleeve_that_is_not_wanted_goes() {
    let (mut desired, actual) = standing();
    desired.sleeve = None;
    assert_eq!(lines(&plan(&desired, &actual).unwrap()), ["delete weft-sl"]);
}

#[test]
fn a_container_link_that_is_gone_is_missing_and_one_of_another_id_is_left_alone() {
    let (mut desired, mut actual) = standing();
    actual.after(&Change::Delete { link: desired.bridge.host_end(&port("c1")) });
    assert_eq!(plan(&desired, &actual), Ok(vec![]));
    assert_eq!(missing(&desired, &actual), BTreeSet::from([port("c1")]));

    desired.ports.insert(port("c2"), ContainerPort { mtu: 1450, up: true, hairpin: true });
    let mark = Mark { bridge: desired.bridge.clone(), role: Role::Container(port("other")) };
    let clash = Link::new(Kind::Veth { peer: None }, Owner::Ours(mark));
    actual.links.insert(desired.bridge.host_end(&port("c2")), clash);
    assert_eq!(plan(&desired, &actual), Ok(vec![]));
    assert_eq!(missing(&desired, &actual), BTreeSet::from([port("c1"), port("c2")]));
}

#[test]
fn a_port_in_conflict_is_taken_down_and_kept_down() {
    let (mut desired, mut actual) = standing();
    desired.ports.insert(port("c1"), ContainerPort { mtu: 1450, up: false, hairpin: true });
    let changes = plan(&desired, &actual).unwrap();
    assert_eq!(lines(&changes), [format!("{}: down", desired.bridge.host_end(&port("c1")))]);
    run(&mut actual, &changes);
    assert_eq!(plan(&desired, &actual), Ok(vec![]));
}

#[test]
fn reset_removes_ports_first_and_leaves_other_routers_alone() {
    let (desired, mut actual) = standing();
    let other = Mark { bridge: "weave".parse().unwrap(), role: Role::Bridge };
    actual.links.insert("weave".into(), Link::new(Kind::Bridge, Owner::Ours(other)));
    actual.links.insert("eth0".into(), Link::new(Kind::Other(String::new()), Owner::Foreign));
    let host_end = desired.bridge.host_end(&port("c1"));
    assert_eq!(
        actual.ours(&desired.bridge),
        [host_end.clone(), "weft-io".into(), "weft-sl".into(), "weft".into()]
    );
    let wanted = desired.links().into_iter().map(|(name, _)| name).filter(|name| *name != host_end).collect();
    assert_eq!(actual.leftovers(&desired.bridge, &wanted), [host_end]);
}

fn remote(name: u64, address: &str, default: bool) -> (RemoteId, Remote) {
    let mac = MacAddr::vxlan_of(name << 24);
    (RemoteId(name), Remote { address: address.parse().unwrap(), port: 6784, mac, default })
}

const IDS: [&str; 3] = ["c1", "c2", "c3"];

fn any_flags() -> impl Strategy<Value = BTreeMap<Flag, bool>> {
    let flags = [
        Flag::SpanningTree,
        Flag::MulticastSnooping,
        Flag::LinkLocalLearning,
        Flag::AddressGeneration,
        Flag::RouterAdvertisements,
        Flag::Deaf,
        Flag::Offloads,
        Flag::Learning,
        Flag::Flood,
        Flag::Isolated,
        Flag::Hairpin,
        Flag::Up,
    ];
    proptest::collection::btree_map(proptest::sample::select(flags.to_vec()), any::<bool>(), 0..12)
}

fn any_addresses() -> impl Strategy<Value = BTreeSet<IpNet>> {
    let some: Vec<IpNet> =
        ["10.32.0.1/12", "10.32.0.2/12", "fd00::1/64"].iter().map(|text| text.parse().unwrap()).collect();
    proptest::sample::subsequence(some, 0..=3).prop_map(|list| list.into_iter().collect())
}

const HOSTS: [&str; 4] = ["192.0.2.1", "192.0.2.2", "192.0.2.3", "2001:db8::1"];

fn any_vxlan() -> impl Strategy<Value = Vxlan> {
    let remote = (0usize..4, 0u64..3, any::<bool>());
    let remotes = proptest::collection::btree_map(0u64..5, remote, 0..4);
    (6784u16..6786, 7u32..9, any::<bool>(), remotes).prop_map(|(port, vni, bound, remotes)| Vxlan {
        local: bound.then(|| "192.0.2.9".parse().unwrap()),
        remotes: remotes
            .into_iter()
            .map(|(id, (host, mac, default))| (RemoteId(id), self::remote(mac, HOSTS[host], default).1))
            .collect(),
        ..Vxlan::new(port, vni, MacAddr::vxlan_of(9 << 24))
    })
}

fn any_tunnel() -> impl Strategy<Value = Tunnel> {
    (7u32..9, 6784u16..6786, any::<[bool; 4]>(), 63u8..65).prop_map(|(vni, port, [a, b, c, d], ttl)| Tunnel {
        vni,
        port,
        local: a.then(|| "192.0.2.9".parse().unwrap()),
        ttl,
        unfragmented: b,
        learning: c,
        checksum: d,
    })
}

fn any_entries() -> impl Strategy<Value = BTreeSet<Entry>> {
    let entry = (0u64..4, 0usize..5, 6784u16..6786, 0u8..3).prop_map(|(mac, host, port, kind)| {
        let address = HOSTS.get(host).map_or("0.0.0.0", |host| host).parse().unwrap();
        let to = Destination { address, port, vni: (port == 6785).then_some(9), interface: None };
        match kind {
            0 => Entry::Bridge(MacAddr::vxlan_of(mac << 24)),
            1 => Entry::Device(MacAddr::vxlan_of(mac << 24), to),
            _ => Entry::Device(MacAddr::ZERO, to),
        }
    });
    proptest::collection::btree_set(entry, 0..6)
}

prop_compose! {
    fn any_desired()(
        addresses in any_addresses(), mtu in 1280u32..1501, name in 0u64..3,
        sleeve in proptest::option::of(any::<bool>()),
        ports in proptest::collection::btree_map(0usize..3, (1280u32..1501, any::<bool>()), 0..3),
        vxlan in proptest::option::of(any_vxlan()),
    ) -> Desired {
        let mut desired = Desired::new(BridgeName::default(), MacAddr::from_peer(name << 40), mtu);
        desired.addresses = addresses;
        desired.vxlan = vxlan;
        desired.sleeve = sleeve.map(|offloads| Sleeve { offloads });
        for (id, (mtu, up)) in ports {
            desired.ports.insert(port(IDS[id]), ContainerPort { mtu, up, hairpin: true });
        }
        desired
    }
}

/// What stands in the beginning of one of the wanted names.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Start {
    Absent,
    Foreign,
    Unmarked,
    Ours,
}

prop_compose! {
    fn any_link()(
        start in proptest::sample::select(vec![Start::Absent, Start::Unmarked, Start::Ours, Start::Ours, Start::Foreign]),
        flags in any_flags(), addresses in any_addresses(), mtu in 1280u32..1501, mac in any::<[u8; 6]>(),
        bridge in proptest::option::of(proptest::sample::select(vec!["weft".to_owned(), "lan".to_owned()])),
        tunnel in any_tunnel(), entries in any_entries(),
    ) -> (Start, Link) {
        let mut link = Link::new(Kind::Vxlan(tunnel), Owner::Foreign);
        link.entries = entries;
        link.flags = flags;
        link.addresses = addresses;
        link.mtu = mtu;
        link.mac = Some(MacAddr::new(mac));
        link.bridge = bridge;
        (start, link)
    }
}

/// Any state of the kernel: each name of ours absent, foreign, half made or made and bent.
fn any_actual() -> impl Strategy<Value = Actual> {
    proptest::collection::vec(any_link(), 9).prop_map(|links| {
        let all = Desired {
            ports: IDS
                .iter()
                .map(|id| (port(id), ContainerPort { mtu: 1450, up: true, hairpin: true }))
                .collect(),
            ..wish()
        };
        let mut vxlan = Vxlan::new(6784, 7, MacAddr::vxlan_of(7));
        vxlan.remotes.extend([remote(1, HOSTS[3], true)]);
        let all = Desired { vxlan: Some(vxlan), ..all };
        let mut actual = Actual::default();
        let mut names = all.links();
        names.push(("eth0".to_owned(), Link::new(Kind::Other(String::new()), Owner::Foreign)));
        for ((name, wanted), (start, mut link)) in names.into_iter().zip(links) {
            link.owner = match start {
                Start::Absent => continue,
                Start::Foreign => Owner::Foreign,
                Start::Unmarked => Owner::Unmarked,
                Start::Ours => wanted.owner.clone(),
            };
            if wanted.owner == Owner::Foreign {
                link.owner = Owner::Foreign;
            }
            if !matches!(wanted.kind, Kind::Vxlan(_)) {
                link.kind = wanted.kind.clone();
                link.entries.clear();
            }
            actual.links.insert(name, link);
        }
        mend(&mut actual);
        actual
    })
}

/// What holds in every kernel: both ends of a pair know each other, or the other end is elsewhere; there are no
/// ports of a bridge that is not there; half of our pair is not foreign; no table of a bridge without the bridge, and
/// one destination for an address.
fn mend(actual: &mut Actual) {
    let names: BTreeSet<String> = actual.links.keys().cloned().collect();
    let foreign = |name: &str| actual.links.get(name).is_some_and(|link| link.owner == Owner::Foreign);
    let torn = foreign("weft-sl") || foreign("weft-io");
    for link in actual.links.values_mut() {
        if let Kind::Veth { peer } = &mut link.kind {
            *peer = peer.take().filter(|peer| names.contains(peer) && !torn);
        }
        link.bridge = link.bridge.take().filter(|bridge| names.contains(bridge));
        let mut seen = BTreeSet::new();
        let joined = link.bridge.is_some();
        link.entries.retain(|entry| match entry {
            Entry::Bridge(_) => joined,
            Entry::Device(mac, _) => *mac == MacAddr::ZERO || seen.insert(*mac),
        });
    }
}

proptest! {
    #[test]
    fn between_two_wishes_that_differ_in_entries_the_plan_is_that_of_a_look(
        before in any_desired(),
        remotes in any_vxlan(),
    ) {
        let mut after = before.clone();
        if let Some(vxlan) = &mut after.vxlan {
            vxlan.remotes = remotes.remotes;
        }
        let mut standing = Actual::default();
        let made = plan(&before, &standing).unwrap();
        run(&mut standing, &made);
        // Container links are made by attaching them.
        let attached = before.ports.iter().map(|(id, port)| (before.bridge.host_end(id), port.link(&before.bridge, id)));
        standing.links.extend(attached);
        let looked = plan(&after, &standing).unwrap();
        match plan_entries(&before, &after) {
            Some(changes) => prop_assert_eq!(changes, looked),
            None => prop_assert_ne!(before.frame(), after.frame(), "a device more or less: {:?}", looked),
        }
    }

    #[test]
    fn a_plan_leads_to_the_wish_and_leaves_the_rest_alone(desired in any_desired(), before in any_actual()) {
        let changes = match plan(&desired, &before) {
            Ok(changes) => changes,
            Err(error) => {
                let wanted = desired.links();
                let clash = wanted.iter().any(|(name, _)| {
                    !name.starts_with("wv") && desired.bridge.underlay_of(name).is_none() && before.links.get(name).is_some_and(|link| link.owner == Owner::Foreign)
                });
                prop_assert!(clash, "no reason for {error}");
                return Ok(());
            }
        };
        let mut after = before.clone();
        run(&mut after, &changes);

        prop_assert_eq!(plan(&desired, &after), Ok(vec![]), "not idempotent");
        let missing = missing(&desired, &before);
        let obstacles = obstacles(&desired, &before);
        for (name, wanted) in desired.links() {
            if desired.bridge.underlay_of(&name).is_some_and(|underlay| obstacles.contains_key(&underlay)) {
                prop_assert_eq!(&before.links[&name].owner, &Owner::Foreign, "no obstacle");
                continue;
            }
            if let Owner::Ours(Mark { role: Role::Container(id), .. }) = &wanted.owner
                && missing.contains(id) {
                    continue;
            }
            prop_assert!(satisfied(&after.links[&name], &wanted), "{name}: {:?}", after.links[&name]);
        }
        for underlay in Underlay::ALL {
            let (name, wanted) = (desired.bridge.vxlan(underlay), desired.vxlan.as_ref());
            let stands = after.links.get(&name).is_some_and(|link| link.owner != Owner::Foreign);
            prop_assert!(!stands || wanted.is_some_and(|vxlan| vxlan.underlays().contains(&underlay)), "{name} stays");
        }
        for (name, link) in before.links.iter().filter(|(_, link)| link.owner == Owner::Foreign) {
            let mut found = after.links.get(name).cloned();
            if let Some(found) = &mut found && link.bridge.as_deref() == Some("weft") {
                found.bridge.clone_from(&link.bridge);
                found.entries.clone_from(&link.entries);
            }
            prop_assert_eq!(found.as_ref(), Some(link), "foreign {} touched", name);
            prop_assert!(changes.iter().all(|change| change.link() != name));
        }
    }

    #[test]
    fn a_plan_has_no_step_that_changes_nothing(desired in any_desired(), before in any_actual()) {
        let mut model = before.clone();
        for change in plan(&desired, &before).unwrap_or_default() {
            let earlier = model.clone();
            model.after(&change);
            prop_assert_ne!(&model, &earlier, "{}", change);
        }
    }

    #[test]
    fn an_inverse_takes_its_change_back(desired in any_desired(), before in any_actual()) {
        let mut model = before.clone();
        for change in plan(&desired, &before).unwrap_or_default() {
            let earlier = model.clone();
            model.after(&change);
            let Some(inverse) = change.inverse() else { continue };
            let known = if let Change::Set { link, flag, .. } = &change {
                earlier.links[link].flags.contains_key(flag)
            } else {
                !matches!(change, Change::Join { .. }) // the flags of the old port are the kernel's to forget
            };
            if known {
                let mut back = model.clone();
                back.after(&inverse);
                prop_assert_eq!(back, earlier, "{}", change);
            }
        }
    }
}
