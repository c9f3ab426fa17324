//! Scenarios of one neighbour's life, without a clock.

use std::net::SocketAddr;

use super::*;

fn peer() -> PeerName {
    "00000000000000b2".parse().unwrap()
}

fn remote() -> SocketAddr {
    "10.99.0.2:41000".parse().unwrap()
}

fn overlay(encrypted: bool) -> Overlay {
    Overlay::new(Config { sleeve: Some(6783), encrypted, trusted: Vec::new() })
}

fn drain(overlay: &mut Overlay) -> Vec<Output> {
    std::iter::from_fn(|| overlay.poll_output()).collect()
}

fn up(overlay: &mut Overlay) {
    overlay.handle_established(peer(), "b".into(), remote(), 7);
    overlay.handle_told(peer(), Told::Offer(Offer { sleeve: Some(7000), clear: !overlay.config.encrypted }));
    overlay.handle_data(&Event::LinkUp { peer: peer(), rtt: Duration::from_micros(200), mtu: 1500 });
}

#[test]
fn an_offer_makes_a_link_to_the_offered_port_of_the_session_s_address() {
    let mut overlay = overlay(true);
    overlay.handle_established(peer(), "b".into(), remote(), 7);
    overlay.handle_told(peer(), Told::Offer(Offer { sleeve: Some(7000), clear: false }));
    let added = drain(&mut overlay).into_iter().find_map(|output| {
        let Output::Data(Command::AddLink { session, address, .. }) = output else { return None };
        Some((session, address))
    });
    assert_eq!(added, Some((7, "10.99.0.2:7000".parse().unwrap())));
    assert_eq!(overlay.neighbour(peer()).unwrap().reason(), &Reason::AwaitingHeartbeat);
}

#[test]
fn a_link_that_comes_up_is_used_and_the_reason_names_the_secret() {
    let mut overlay = overlay(true);
    up(&mut overlay);
    let neighbour = overlay.neighbour(peer()).unwrap();
    assert_eq!((neighbour.carrier(), neighbour.reason()), (Some(Carrier::Sleeve), &Reason::MustEncrypt));
}

#[test]
fn a_silent_link_is_left_and_the_session_is_asked() {
    let mut overlay = overlay(false);
    up(&mut overlay);
    drain(&mut overlay);
    overlay.handle_data(&Event::LinkDown { peer: peer() });
    assert!(drain(&mut overlay).iter().any(|output| matches!(output, Output::Verify(p) if *p == peer())));
    let neighbour = overlay.neighbour(peer()).unwrap();
    assert_eq!((neighbour.carrier(), neighbour.reason()), (None, &Reason::Silent));
}

#[test]
fn a_peer_seeded_apart_has_no_carrier_until_the_bar_is_lifted() {
    let mut overlay = overlay(true);
    up(&mut overlay);
    overlay.bar(BTreeSet::from([peer()]));
    assert_eq!(overlay.neighbour(peer()).unwrap().reason(), &Reason::SeededApart);
    assert_eq!(overlay.neighbour(peer()).unwrap().carrier(), None);
    overlay.bar(BTreeSet::new());
    assert_eq!(overlay.neighbour(peer()).unwrap().carrier(), Some(Carrier::Sleeve));
}

#[test]
fn keys_of_an_ended_session_go_nowhere() {
    let mut overlay = overlay(true);
    up(&mut overlay);
    drain(&mut overlay);
    overlay.handle_told(peer(), Told::Sleeve { session: 6, announcement: vec![1] });
    assert!(drain(&mut overlay).is_empty());
    overlay.handle_told(peer(), Told::Sleeve { session: 7, announcement: vec![1] });
    assert_eq!(drain(&mut overlay).len(), 1);
}

#[test]
fn a_message_survives_its_encoding_and_garbage_does_not_decode() {
    let told = Told::Offer(Offer { sleeve: Some(6783), clear: true });
    assert_eq!(Told::decode(&told.encode()).unwrap(), told);
    assert!(Told::decode(&[0xff; 40]).is_err());
    assert!(Told::decode(&[]).is_err());
}
