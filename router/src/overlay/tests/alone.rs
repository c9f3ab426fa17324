//! One overlay, told things by hand.

use std::net::SocketAddr;
use std::time::Duration;

use super::world::{SECOND, config, name};
use crate::dataplane::{Carrier, Command, Event};
use crate::overlay::*;

fn remote() -> SocketAddr {
    "10.99.0.2:41000".parse().unwrap()
}

#[expect(clippy::disallowed_methods, reason = "virtual time starts somewhere")]
fn sleeve_only(encrypted: bool) -> (Overlay, Instant) {
    let now = Instant::now();
    (Overlay::new(Config { encrypted, fastpath: None, ..config(0) }, &[], now), now)
}

fn drain(overlay: &mut Overlay) -> Vec<Output> {
    std::iter::from_fn(|| overlay.poll_output()).collect()
}

fn up(overlay: &mut Overlay, clear: bool, now: Instant) {
    overlay.handle_established(name(1), "b".into(), remote(), 7, now);
    overlay.handle_told(name(1), Told::Offer(Offer { sleeve: Some(7000), clear }), now);
    let up = Event::LinkUp { peer: name(1), rtt: Duration::from_micros(200), mtu: 1500 };
    overlay.handle_data(&up, now);
}

#[test]
fn an_offer_makes_a_link_to_the_offered_port_of_the_session_s_address() {
    let (mut overlay, now) = sleeve_only(true);
    overlay.handle_established(name(1), "b".into(), remote(), 7, now);
    overlay.handle_told(name(1), Told::Offer(Offer { sleeve: Some(7000), clear: false }), now);
    let added = drain(&mut overlay).into_iter().find_map(|output| {
        let Output::Data(Command::AddLink { session, address, .. }) = output else { return None };
        Some((session, address))
    });
    assert_eq!(added, Some((7, "10.99.0.2:7000".parse().unwrap())));
    let neighbour = overlay.neighbour(name(1)).unwrap();
    assert_eq!(neighbour.carrier(), None);
    assert!(neighbour.reason().to_string().starts_with("no heartbeat answered yet"));
}

#[test]
fn a_link_that_comes_up_is_used_and_the_reason_names_the_secret() {
    let mut config = config(0);
    config.encrypted = true;
    let (_, now) = sleeve_only(true);
    let mut overlay = Overlay::new(config, &[], now);
    up(&mut overlay, false, now);
    let neighbour = overlay.neighbour(name(1)).unwrap();
    assert_eq!((neighbour.carrier(), neighbour.reason()), (Some(Carrier::Sleeve), &Reason::NotTrusted));
    assert_eq!(neighbour.reason().to_string(), "secret set and link not trusted");
}

#[test]
fn a_silent_link_is_left_and_the_session_is_asked() {
    let (mut overlay, now) = sleeve_only(false);
    up(&mut overlay, true, now);
    drain(&mut overlay);
    overlay.handle_data(&Event::LinkDown { peer: name(1) }, now);
    assert!(drain(&mut overlay).iter().any(|output| matches!(output, Output::Verify(p) if *p == name(1))));
    let neighbour = overlay.neighbour(name(1)).unwrap();
    assert_eq!(neighbour.carrier(), None);
    let off = Reason::Neither(Box::new(Reason::Silent), Box::new(Reason::FastpathOffHere));
    assert_eq!(neighbour.reason(), &off);
}

#[test]
fn a_peer_seeded_apart_has_no_carrier_until_the_bar_is_lifted() {
    let (mut overlay, now) = sleeve_only(true);
    up(&mut overlay, false, now);
    overlay.bar(BTreeSet::from([name(1)]), now);
    assert_eq!(overlay.neighbour(name(1)).unwrap().reason(), &Reason::SeededApart);
    assert_eq!(overlay.neighbour(name(1)).unwrap().carrier(), None);
    overlay.bar(BTreeSet::new(), now);
    assert_eq!(overlay.neighbour(name(1)).unwrap().carrier(), Some(Carrier::Sleeve));
}

#[test]
fn keys_of_an_ended_session_go_nowhere() {
    let (mut overlay, now) = sleeve_only(true);
    up(&mut overlay, false, now);
    drain(&mut overlay);
    overlay.handle_told(name(1), Told::Sleeve { session: 6, announcement: vec![1] }, now);
    assert!(drain(&mut overlay).is_empty());
    overlay.handle_told(name(1), Told::Sleeve { session: 7, announcement: vec![1] }, now);
    assert_eq!(drain(&mut overlay).len(), 1);
}

#[test]
fn every_message_survives_its_encoding_and_garbage_does_not_decode() {
    let view = View {
        session: 3,
        serial: 4,
        sleeve: true,
        path: Path::Down { hears: true },
        stand: Stand::Fastpath,
    };
    let denial = Err(Denial::Impossible("no vxlan".into()));
    for told in [
        Told::Offer(Offer { sleeve: Some(6783), clear: true }),
        Told::Fastpath(FastpathOffer { session: 3, port: denial, key: ProbeKey([9; 32]) }),
        Told::View(view),
        Told::Change { session: 3, epoch: 2, say: Say::Propose(Stand::Sleeve) },
    ] {
        assert_eq!(Told::decode(&told.encode()).unwrap(), told);
    }
    assert!(Told::decode(&[0xff; 40]).is_err());
    assert!(Told::decode(&[]).is_err());
}

#[test]
fn no_key_shows_in_what_is_printed() {
    let (mut overlay, now) = sleeve_only(false);
    up(&mut overlay, true, now);
    let key = ProbeKey([0xa5; 32]);
    overlay.handle_told(name(1), Told::Fastpath(FastpathOffer { session: 7, port: Ok(6784), key }), now);
    let shown = format!("{overlay:?} {key:?}");
    assert!(shown.contains("ProbeKey(..)") && !shown.contains("165"), "{shown}");
}

#[test]
fn a_peer_of_an_older_version_stays_on_sleeve_and_no_view_of_another_session_is_heard() {
    let (_, now) = sleeve_only(false);
    let mut overlay = Overlay::new(config(0), &[], now);
    overlay.handle_kernel_ready(Ok(()), now);
    up(&mut overlay, true, now);
    let view = View { session: 6, serial: 1, sleeve: true, path: Path::Proven, stand: Stand::Fastpath };
    overlay.handle_told(name(1), Told::View(view), now);
    for second in 1..60 {
        overlay.handle_timeout(now + second * SECOND);
    }
    let neighbour = overlay.neighbour(name(1)).unwrap();
    assert_eq!((neighbour.carrier(), neighbour.reason()), (Some(Carrier::Sleeve), &Reason::FastpathAwaited));
    assert!(overlay.wish().remotes.is_empty(), "nothing is let in from a peer that offers no fastpath");
}

#[test]
fn words_of_a_peer_are_shown_without_control_characters_and_cut() {
    let (_, now) = sleeve_only(false);
    let mut overlay = Overlay::new(config(0), &[], now);
    overlay.handle_kernel_ready(Ok(()), now);
    up(&mut overlay, true, now);
    let port = Err(Denial::Impossible(format!("\x1b[2J{}", "x".repeat(5000))));
    let told = Told::Fastpath(FastpathOffer { session: 7, port, key: ProbeKey([0; 32]) });
    overlay.handle_told(name(1), told, now);
    let shown = overlay.neighbour(name(1)).unwrap().reason().to_string();
    assert!(shown.starts_with("fastpath is not possible at the peer: [2Jxx") && shown.len() < 300, "{shown}");
}
