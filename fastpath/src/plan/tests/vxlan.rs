//! Plans about VXLAN devices and their entries.

use std::collections::BTreeMap;

use super::*;

/// Two peers over IPv4, one of them on sleeve for now.
fn vxlan() -> Desired {
    let mut vxlan = Vxlan::new(6784, 7, MacAddr::vxlan_of(7));
    vxlan.remotes.extend([remote(1, "192.0.2.1", true), remote(2, "192.0.2.2", false)]);
    Desired { vxlan: Some(vxlan), sleeve: None, ..wish() }
}

/// What stands once it is as wanted.
fn vxlan_standing() -> (Desired, Actual) {
    let desired = vxlan();
    let mut actual = Actual::default();
    let changes = plan(&desired, &actual).unwrap();
    run(&mut actual, &changes);
    (desired, actual)
}

#[test]
fn a_vxlan_device_is_an_isolated_port_with_its_entries_before_it_is_up() {
    let changes = plan(&vxlan(), &Actual::default()).unwrap();
    assert_eq!(
        lines(&changes)[6..],
        [
            "create VXLAN device weft-vx with MAC 06:00:00:00:00:00, VNI 7 on UDP port 6784 from any address, TTL 64, \
             DF, learning, no UDP checksums",
            "weft-vx: set alias weft/weft/vxlan",
            "weft-vx: MTU 1500 -> 1450",
            "weft-vx: IPv6 address generation off",
            "weft-vx: join bridge weft",
            "weft-vx: isolation on",
            "weft-vx: add entry 06:00:00:00:00:01 behind this port",
            "weft-vx: add entry 06:00:00:00:00:02 behind this port",
            "weft-vx: add entry flooded frames to 192.0.2.1:6784",
            "weft-vx: add entry 06:00:00:00:00:01 to 192.0.2.1:6784",
            "weft-vx: add entry 06:00:00:00:00:02 to 192.0.2.2:6784",
            "weft-vx: up",
        ]
    );
}

#[test]
fn a_peer_more_or_elsewhere_or_on_another_carrier_is_its_own_entries_and_nothing_else() {
    let (mut desired, mut actual) = vxlan_standing();
    let mut next = |change: &dyn Fn(&mut BTreeMap<RemoteId, Remote>)| {
        change(&mut desired.vxlan.as_mut().unwrap().remotes);
        let changes = plan(&desired, &actual).unwrap();
        run(&mut actual, &changes);
        assert_eq!(plan(&desired, &actual), Ok(vec![]));
        lines(&changes)
    };
    assert_eq!(
        next(&|remotes| remotes.extend([remote(3, "192.0.2.3", true)])),
        [
            "weft-vx: add entry 06:00:00:00:00:03 behind this port",
            "weft-vx: add entry flooded frames to 192.0.2.3:6784",
            "weft-vx: add entry 06:00:00:00:00:03 to 192.0.2.3:6784",
        ]
    );
    assert_eq!(
        next(&|remotes| remotes.extend([remote(3, "192.0.2.9", true)])),
        [
            "weft-vx: remove entry flooded frames to 192.0.2.3:6784",
            "weft-vx: add entry flooded frames to 192.0.2.9:6784",
            "weft-vx: add entry 06:00:00:00:00:03 to 192.0.2.9:6784",
        ]
    );
    assert_eq!(
        next(&|remotes| remotes.extend([remote(3, "192.0.2.9", false)])),
        ["weft-vx: remove entry flooded frames to 192.0.2.9:6784"]
    );
    assert_eq!(next(&|remotes| remotes.retain(|id, _| *id != RemoteId(3))).len(), 2);
}

#[test]
fn what_is_given_at_birth_makes_the_device_anew_and_the_rest_does_not() {
    let (desired, actual) = vxlan_standing();
    let with = |change: &dyn Fn(&mut Vxlan)| {
        let mut desired = desired.clone();
        change(desired.vxlan.as_mut().unwrap());
        lines(&plan(&desired, &actual).unwrap())
    };
    assert_eq!(with(&|vxlan| vxlan.vni = 8)[0], "delete weft-vx");
    let port = with(&|vxlan| vxlan.port = 8472);
    assert_eq!(port[0], "delete weft-vx");
    assert!(port[1].starts_with("create VXLAN device weft-vx"), "{port:?}");
    let local = with(&|vxlan| vxlan.local = Some("192.0.2.9".parse().unwrap()));
    assert_eq!(local.len(), 1, "{local:?}");
    assert!(local[0].contains("from any address") && local[0].contains("from 192.0.2.9"), "{local:?}");
    let nothing = Desired { vxlan: None, ..desired.clone() };
    assert_eq!(lines(&plan(&nothing, &actual).unwrap()), ["delete weft-vx"]);
}

#[test]
fn an_ipv6_peer_brings_a_second_device_and_takes_it_away() {
    let (mut desired, mut actual) = vxlan_standing();
    desired.vxlan.as_mut().unwrap().remotes.extend([remote(3, "2001:db8::3", true)]);
    let changes = plan(&desired, &actual).unwrap();
    assert!(changes.iter().all(|change| change.link() == "weft-v6"));
    run(&mut actual, &changes);
    assert_eq!(plan(&desired, &actual), Ok(vec![]));
    desired.vxlan.as_mut().unwrap().remotes.remove(&RemoteId(3));
    assert_eq!(lines(&plan(&desired, &actual).unwrap()), ["delete weft-v6"]);
}

#[test]
fn peers_with_addresses_or_macs_that_cannot_be_are_left_out() {
    let mut desired = vxlan();
    let vxlan = desired.vxlan.as_mut().unwrap();
    let before = vxlan.entries(Underlay::V4);
    for (name, address) in
        [(3, "0.0.0.0"), (4, "224.0.0.1"), (5, "255.255.255.255"), (6, "fe80::1"), (7, "::")]
    {
        vxlan.remotes.extend([remote(name, address, true)]);
    }
    assert_eq!((vxlan.underlays().len(), vxlan.entries(Underlay::V4)), (1, before.clone()));
    let odd = |mac| Remote { address: "192.0.2.8".parse().unwrap(), port: 6784, mac, default: false };
    for (name, mac) in [(10, vxlan.mac), (11, MacAddr::ZERO), (12, MacAddr::BROADCAST)] {
        vxlan.remotes.insert(RemoteId(name), odd(mac));
    }
    vxlan.remotes.insert(RemoteId(13), odd(MacAddr::vxlan_of(1 << 24)));
    assert_eq!(vxlan.entries(Underlay::V4), before, "the second with a MAC does not have it");
    vxlan.remotes.extend([remote(14, "::ffff:192.0.2.14", false)]);
    assert_eq!(vxlan.entries(Underlay::V4).len(), before.len() + 2, "IPv4 in other clothes");
}

#[test]
fn a_foreign_device_of_that_name_is_an_obstacle_for_vxlan_only() {
    let mut actual = Actual::default();
    actual.links.insert("weft-vx".into(), Link::new(Kind::Other("dummy".into()), Owner::Foreign));
    let desired = Desired { sleeve: Some(Sleeve { offloads: true }), ..vxlan() };
    let changes = plan(&desired, &actual).unwrap();
    assert!(changes.len() > 10 && changes.iter().all(|change| change.link() != "weft-vx"));
    let obstacles = obstacles(&desired, &actual);
    assert_eq!(obstacles.len(), 1);
    assert_eq!(
        obstacles[&Underlay::V4].to_string(),
        "interface weft-vx exists and is not ours (a dummy device); remove it or choose another name"
    );
}
