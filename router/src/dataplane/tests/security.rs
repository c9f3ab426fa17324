//! What somebody on the wire can do: nothing but make counters rise.

use super::net::{Fate, LATENCY, Net, frame, mac, name};
use crate::{
    dataplane::{Command, Event},
    sleeve::{Refusal, keys::KeyLimits, liveness::State, packet::HEADER, seal::Suite},
};
use std::time::Duration;

const MARKER: &[u8] = b"a marker nobody else may read";
const SECOND: Duration = Duration::from_secs(1);

fn marked(length: usize) -> Vec<u8> {
    let mut marked = frame(mac(0), mac(1), length, 1);
    marked.truncate(length - MARKER.len());
    marked.extend(MARKER);
    marked
}

fn shows(net: &Net) -> bool {
    net.seen.iter().any(|datagram| datagram.windows(MARKER.len()).any(|bytes| bytes == MARKER))
}

fn refused(net: &Net, node: usize, refusal: Refusal) -> u64 {
    net.nodes[node].counters().refusals.get(&refusal).copied().unwrap_or_default()
}

#[test]
fn frames_show_on_the_wire_without_a_secret_and_only_then() {
    for encrypted in [true, false] {
        let mut net = Net::new(3, encrypted, KeyLimits::default());
        (1..3).for_each(|node| net.connect(0, node));
        net.settle();
        net.capture(0, &marked(1400));
        net.run(SECOND);
        assert_eq!(net.frames(1), [marked(1400)]);
        assert_eq!(shows(&net), !encrypted);
        let links = net.nodes[0].counters().links;
        let suites = [1, 2].map(|node| links[&name(node)].suite);
        let expected = if encrypted { [Suite::Aes, Suite::ChaCha] } else { [Suite::Clear; 2] };
        assert_eq!(suites, expected.map(Some));
    }
}

#[test]
fn changed_repeated_short_and_long_datagrams_are_counted_and_never_injected() {
    let mut net = Net::mesh(2);
    net.capture(0, &marked(600));
    let good = net.seen.pop().unwrap();
    net.run(LATENCY * 2);
    net.injected[1].clear();
    let from = net.addresses[0];
    net.datagram(1, from, &good);
    assert_eq!(refused(&net, 1, Refusal::Replayed), 1);
    // One the receiver has not seen yet, so that only its seal protects it.
    net.wire = Box::new(|_, _, _| Fate::Lost);
    net.capture(0, &marked(600));
    let good = net.seen.pop().unwrap();
    for at in 0..good.len() {
        for bit in 0..8 {
            let mut changed = good.clone();
            changed[at] ^= 1 << bit;
            net.datagram(1, from, &changed);
        }
    }
    for length in 0..good.len() {
        net.datagram(1, from, &good[..length]);
    }
    for longer in [1, 100, 60_000] {
        net.datagram(1, from, &[good.clone(), vec![0; longer]].concat());
    }
    assert!(net.frames(1).is_empty());
    let refusals = net.nodes[1].counters().refusals;
    let total: u64 = refusals.values().sum();
    assert_eq!(total, 1 + good.len() as u64 * 9 + 3, "{refusals:?}");
    for refusal in [Refusal::Truncated, Refusal::UnknownKind, Refusal::UnknownIndex, Refusal::Forged] {
        assert!(refusals.contains_key(&refusal), "{refusal:?}");
    }
    net.datagram(1, from, &good);
    assert_eq!(net.frames(1), [marked(600)], "and the datagram itself is still good");
}

#[test]
fn with_a_secret_clear_datagrams_are_refused() {
    let mut net = Net::mesh(2);
    net.capture(0, &marked(600));
    let mut clear = net.seen.pop().unwrap();
    clear[0] = 0x10;
    clear.truncate(HEADER);
    clear.extend([0x50, 0, 60]);
    clear.extend(frame(mac(0), mac(1), 60, 1));
    net.run(LATENCY * 2);
    net.injected[1].clear();
    let from = net.addresses[0];
    net.datagram(1, from, &clear);
    assert!(net.frames(1).is_empty());
    assert_eq!(refused(&net, 1, Refusal::ClearRefused), 1);
}

#[test]
fn a_router_with_a_secret_and_one_without_never_exchange_a_frame() {
    let mut net = Net::new(2, true, KeyLimits::default());
    let open = Net::new(2, false, KeyLimits::default());
    net.nodes[1] = open.nodes.into_iter().nth(1).unwrap();
    net.connect(0, 1);
    net.run(SECOND);
    for (node, refusal) in [(0, Refusal::NoCommonSuite), (1, Refusal::NoCommonSuite)] {
        assert_eq!(refused(&net, node, refusal), 1);
        assert_eq!(net.nodes[node].counters().links[&name(1 - node)].state, State::Waiting);
    }
    net.capture(0, &marked(600));
    net.capture(1, &marked(600));
    assert!(net.seen.is_empty());
}

#[test]
fn an_announcement_that_comes_again_or_late_starts_no_counter_anew() {
    let mut net = Net::new(2, true, KeyLimits { age: SECOND, packets: 1 << 20 });
    net.connect(0, 1);
    net.run(SECOND / 2);
    // Draw the announcements of node 1 by hand, as a control half that repeats itself would deliver them.
    let mut announcements = Vec::new();
    for session in 100..103 {
        let address = net.addresses[0];
        net.nodes[1].handle_command(Command::AddLink { peer: name(0), session, address }, net.now);
        while let Some(output) = net.nodes[1].poll_output() {
            if let crate::dataplane::Output::Event(Event::Announce { bytes, .. }) = output {
                announcements.push(bytes);
            }
        }
    }
    assert_eq!(announcements.len(), 3);
    for round in 0..3 {
        for bytes in &announcements {
            net.command(0, Command::Announced { peer: name(1), session: 102, bytes: bytes.clone() });
            net.capture(0, &marked(600));
        }
        assert_eq!(refused(&net, 0, Refusal::AnnouncementStale), round * 3);
    }
    // Not even after the link was taken down and made again.
    net.command(0, Command::RemoveLink { peer: name(1) });
    let address = net.addresses[1];
    net.command(0, Command::AddLink { peer: name(1), session: 102, address });
    net.command(0, Command::Announced { peer: name(1), session: 102, bytes: announcements[2].clone() });
    assert_eq!(refused(&net, 0, Refusal::AnnouncementStale), 7);
    net.command(0, Command::Announced { peer: name(1), session: 102, bytes: vec![1, 2, 3] });
    net.command(0, Command::Announced { peer: name(7), session: 102, bytes: announcements[2].clone() });
    assert_eq!(refused(&net, 0, Refusal::AnnouncementMalformed), 1);
    assert_eq!(refused(&net, 0, Refusal::AnnouncementUnexpected), 1);
}

#[test]
fn noise_from_strangers_changes_nothing() {
    let mut net = Net::mesh(2);
    let stranger = "203.0.113.5:1".parse().unwrap();
    let mut noise = 1_u64;
    for length in 0..1500 {
        let mut bytes = Vec::with_capacity(length);
        bytes.resize_with(length, || {
            noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            noise.to_be_bytes()[0]
        });
        net.datagram(1, stranger, &bytes);
    }
    assert!(net.frames(1).is_empty());
    assert_eq!(net.nodes[1].counters().refusals.values().sum::<u64>(), 1500);
    assert_eq!(net.nodes[1].counters().links[&name(0)].roamed, 0);
    net.capture(0, &marked(600));
    net.run(LATENCY * 2);
    assert_eq!(net.frames(1), [marked(600)]);
}
