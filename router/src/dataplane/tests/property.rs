//! Whatever happens to links, sessions, routers and the wire: no nonce twice (the network asserts it at every send),
//! no frame twice, no frame that nobody sent; and afterwards frames pass again.

use super::net::{EVERYONE, Fate, Net, Wire, frame, mac, name};
use crate::{dataplane::Command, sleeve::keys::KeyLimits};
use proptest::prelude::*;
use std::{collections::BTreeSet, time::Duration};

#[derive(Debug, Clone)]
enum Step {
    Unicast(usize, usize, usize),
    Flood(usize, usize),
    Wait(u64),
    Session(usize, usize),
    Restart(usize),
    RemoveLink(usize, usize),
    Wire(u8),
    Address(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let length = prop_oneof![60_usize..1600, 9000_usize..30_000];
    prop_oneof![
        6 => (0..3_usize, 1..3_usize, length.clone()).prop_map(|(from, hop, length)| Step::Unicast(from, (from + hop) % 3, length)),
        3 => (0..3_usize, length).prop_map(|(from, length)| Step::Flood(from, length)),
        4 => (1..3000_u64).prop_map(Step::Wait),
        1 => (0..3_usize, 1..3_usize).prop_map(|(one, hop)| Step::Session(one, (one + hop) % 3)),
        1 => (0..3_usize).prop_map(Step::Restart),
        1 => (0..3_usize, 1..3_usize).prop_map(|(one, hop)| Step::RemoveLink(one, (one + hop) % 3)),
        1 => (0..5_u8).prop_map(Step::Wire),
        1 => (0..3_usize).prop_map(Step::Address),
    ]
}

/// A wire that loses, delays, repeats or swallows large datagrams, without chance.
fn wire(kind: u8) -> Wire {
    let mut count = 0_u64;
    Box::new(move |_, _, bytes| {
        count += 1;
        match kind {
            1 if count.is_multiple_of(7) => Fate::Lost,
            2 if count.is_multiple_of(3) => Fate::Late(Duration::from_micros(count % 11 * 400)),
            3 if count.is_multiple_of(2) => Fate::Twice,
            4 if bytes.len() > 1100 => Fate::Lost,
            _ => Fate::Arrives,
        }
    })
}

fn apply(net: &mut Net, step: Step, mark: u64, sent: &mut BTreeSet<Vec<u8>>) {
    match step {
        Step::Unicast(from, to, length) => {
            let frame = frame(mac(from), mac(to), length, mark);
            net.capture(from, &frame);
            sent.insert(frame);
        }
        Step::Flood(from, length) => {
            let frame = frame(mac(from), EVERYONE, length, mark);
            net.capture(from, &frame);
            sent.insert(frame);
        }
        Step::Wait(millis) => net.run(Duration::from_millis(millis)),
        Step::Session(one, two) => net.connect(one, two),
        Step::Restart(node) => net.restart(node, 100 + u8::try_from(mark % 100).unwrap()),
        Step::RemoveLink(one, two) => net.command(one, Command::RemoveLink { peer: name(two) }),
        Step::Wire(kind) => net.wire = wire(kind),
        Step::Address(node) => net.addresses[node].set_port(7000 + u16::try_from(mark).unwrap()),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn nothing_repeats_a_nonce_or_a_frame_and_everything_heals(steps in proptest::collection::vec(step(), 1..60)) {
        let mut net = Net::new(3, true, KeyLimits { age: Duration::from_secs(4), packets: 300 });
        for (one, two) in [(0, 1), (1, 2), (0, 2)] {
            net.connect(one, two);
        }
        net.run(Duration::from_secs(1));
        let mut sent = BTreeSet::new();
        for (mark, step) in steps.into_iter().enumerate() {
            apply(&mut net, step, mark as u64 + 1, &mut sent);
        }
        net.wire = wire(0);
        net.run(Duration::from_secs(2));
        for node in 0..3 {
            let frames = net.frames(node);
            let distinct: BTreeSet<_> = frames.iter().cloned().collect();
            prop_assert_eq!(distinct.len(), frames.len(), "a frame came twice");
            prop_assert!(distinct.is_subset(&sent), "a frame came that nobody sent");
        }
        for (one, two) in [(0, 1), (1, 2), (0, 2)] {
            net.connect(one, two);
        }
        net.run(Duration::from_secs(3));
        net.injected.iter_mut().for_each(Vec::clear);
        for node in 0..3 {
            net.capture(node, &frame(mac(node), EVERYONE, 20_000, 1000 + node as u64));
        }
        net.run(Duration::from_secs(1));
        for node in 0..3 {
            prop_assert_eq!(net.injected[node].len(), 2, "traffic did not come back");
        }
    }
}
