//! A peer whose way is being tried: its probes come in and its frames do not.
//!
//! ```text
//! c1 -- weft, weft-vx -- u0 (host 1) === underlay === u0 (host 2) -- weft-vx, weft -- c2
//!       filter: probes = { host 2 }
//! ```

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use tokio::time::timeout;
use weft_fastpath::vxlan::Entry;
use weft_fastpath::{BridgeName, Fastpath, Filter, MacAddr, Underlay};

use crate::filter::{converge, filter};
use crate::mesh::{Mesh, address, device, mesh, wants};
use crate::packet::{Tap, arp, arp_request};
use crate::vxlan::containers;
use crate::world::{Namespace, fastpath};

const SOON: Duration = Duration::from_secs(2);
const NEVER: Duration = Duration::from_millis(200);
/// A station that nobody has.
const STATION: [u8; 6] = [2, 0, 0, 0, 0, 5];

/// What host 1 lets in of host 2.
fn admit(mesh: &Mesh, sources: &[IpAddr], probes: &[IpAddr]) {
    let sets = (sources.iter().copied().collect(), probes.iter().copied().collect());
    let filter = Filter { sources: sets.0, probes: sets.1, ..filter() };
    mesh.hosts[0].block_on(|| async { drop(converge(Some(&filter))) });
}

/// Whether a probe of host 2 gets to host 1.
fn probe_arrives(mesh: &Mesh) -> bool {
    let bridge = BridgeName::default();
    mesh.hosts[0].block_on(|| async {
        let mut socket = Fastpath::probe_socket(&bridge).unwrap();
        mesh.hosts[1].block_on(|| async {
            Fastpath::probe_socket(&bridge).unwrap().send(device(1), b"is this way open?").unwrap();
        });
        match timeout(NEVER, socket.recv()).await {
            Ok(probe) => {
                let probe = probe.unwrap();
                assert_eq!((probe.from, &probe.payload[..17]), (device(2), &b"is this way open?"[..]));
                true
            }
            Err(_) => false,
        }
    })
}

/// Whether a frame of a station behind host 2 gets to a container of host 1.
fn frame_arrives(containers: &[Namespace], patience: Duration) -> bool {
    let mut inside = Tap::open(&containers[0], "eth0", patience);
    let sender = Tap::open(&containers[1], "eth0", NEVER);
    let frame = arp_request(STATION, [10, 32, 0, 66], [10, 32, 0, 1]);
    sender.send(&frame).unwrap();
    std::iter::from_fn(|| inside.next().map(|frame| arp(frame).is_some_and(|arp| arp.sender_mac == STATION)))
        .any(|ours| ours)
}

/// What the devices of host 1 have learned, and the entries that were written.
fn tables(mesh: &Mesh) -> (Vec<(MacAddr, IpAddr)>, BTreeSet<Entry>) {
    mesh.hosts[0].block_on(|| async {
        let links = fastpath().observe().await.unwrap().links;
        let entries = ["weft-vx", "weft-v6"].iter().filter_map(|name| links.get(*name));
        let entries = entries.flat_map(|link| link.entries.clone()).collect();
        (fastpath().macs().await.unwrap(), entries)
    })
}

#[test]
fn from_a_peer_on_trial_probes_come_in_and_frames_neither_come_in_nor_are_learned() {
    for underlay in Underlay::ALL {
        let mesh = mesh(2, underlay);
        let peer = address(underlay, 2);
        admit(&mesh, &[], &[]);
        let containers = containers(&mesh);
        let nothing = tables(&mesh);
        assert_eq!(nothing.0, []);
        assert!(!probe_arrives(&mesh), "from a stranger");

        admit(&mesh, &[], &[peer]);
        assert!(probe_arrives(&mesh), "{underlay:?}");
        assert!(!frame_arrives(&containers, NEVER), "{underlay:?}");
        assert_eq!(tables(&mesh), nothing, "a probe teaches nothing new, and a frame did not get in");
        mesh.hosts[0].block_on(|| async {
            assert_eq!(fastpath().plan(&wants(1, underlay, 1..=2)).await.unwrap(), []);
            assert!(fastpath().observe_filter().unwrap().dropped.vxlan.packets >= 2, "counted");
        });

        admit(&mesh, &[peer], &[]);
        assert!(probe_arrives(&mesh), "{underlay:?}");
        assert!(frame_arrives(&containers, SOON), "with the peer on fastpath the same frame comes in");
        assert!(tables(&mesh).0.contains(&(MacAddr::new(STATION), peer)), "and is learned");
    }
}

#[test]
fn tearing_down_takes_the_filter_too_and_says_so() {
    let mesh = mesh(1, Underlay::V4);
    admit(&mesh, &[], &[]);
    mesh.hosts[0].block_on(|| async {
        let plan = fastpath().plan_filter(None).unwrap();
        let lines: Vec<String> = plan.iter().map(ToString::to_string).collect();
        assert_eq!(lines, ["delete the source filter"]);
        let done = fastpath().teardown().await;
        assert_eq!(done.errors, []);
        assert_eq!(done.removed.last().map(String::as_str), Some("nftables table inet weft-weft"));
        assert_eq!(fastpath().plan_filter(None).unwrap(), [], "none is left");
        assert_eq!(fastpath().teardown().await, weft_fastpath::Teardown::default());
    });
}
