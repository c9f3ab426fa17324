//! Two sessions talking to each other, whole, cut, altered and by strangers.

use proptest::prelude::*;

use super::*;
use crate::codec::Blob;
use crate::hello::RefusalCode;
use crate::peer::{BootId, Incarnation};

fn introduction(secret: u8) -> Introduction {
    Introduction {
        name: Identity::from_secret([secret; 32]).name(),
        incarnation: Incarnation(1),
        boot: BootId(secret.into()),
        nickname: format!("host{secret}"),
        site: "default".into(),
        listen_port: 6783,
        endpoints: vec!["10.0.0.1:6783".parse().unwrap()],
        channels: Vec::new(),
    }
}

fn session(role: Role, secret: u8, psk: Psk) -> Session {
    session_with(role, secret, psk, Hello::OURS)
}

fn session_with(role: Role, secret: u8, psk: Psk, hello: Hello) -> Session {
    let identity = Identity::from_secret([secret; 32]);
    let credentials = Arc::new(Credentials { identity, psk, hello });
    Session::new(role, credentials, introduction(secret), [secret + 100; 32])
}

fn pair() -> (Session, Session) {
    (session(Role::Initiator, 1, Psk::open()), session(Role::Responder, 2, Psk::open()))
}

/// Carries bytes both ways until both are silent; both accept whoever is introduced.
fn settle(one: &mut Session, two: &mut Session) -> (Vec<Event>, Vec<Event>) {
    let (mut left, mut right) = (Vec::new(), Vec::new());
    loop {
        let mut moved = false;
        for turn in 0..2 {
            let (from, to) = if turn == 0 { (&mut *one, &mut *two) } else { (&mut *two, &mut *one) };
            let events = if turn == 0 { &mut right } else { &mut left };
            if let Some(bytes) = from.take_output() {
                moved = true;
                let _ = to.handle_bytes(&bytes);
            }
            while let Some(event) = to.poll_event() {
                if matches!(event, Event::Introduced(_)) {
                    to.accept().unwrap();
                }
                events.push(event);
            }
        }
        if !moved {
            return (left, right);
        }
    }
}

fn established() -> (Session, Session) {
    let (mut one, mut two) = pair();
    settle(&mut one, &mut two);
    (one, two)
}

#[test]
fn two_sessions_introduce_themselves_and_agree_on_the_number() {
    let (mut one, mut two) = pair();
    let (left, right) = settle(&mut one, &mut two);
    assert_eq!(left, [Event::Introduced(introduction(2))]);
    assert_eq!(right, [Event::Introduced(introduction(1))]);
    assert_eq!(one.id(), two.id());
    assert_ne!(one.id(), 0);
}

#[test]
fn a_long_message_is_cut_into_records_and_joined_again() {
    let (mut one, mut two) = established();
    let long = Message::Tell(Blob((0..300_000u32).map(|n| n.to_le_bytes()[0]).collect()));
    assert!(one.send(&long) && one.send(&Message::Ping(1)));
    let (_, right) = settle(&mut one, &mut two);
    assert_eq!(right, [Event::Message(long), Event::Message(Message::Ping(1))]);
}

#[test]
fn another_secret_is_refused_and_both_ends_say_so() {
    let mut one = session(Role::Initiator, 1, Psk::derive("this"));
    let mut two = session(Role::Responder, 2, Psk::open());
    two.handle_bytes(&one.take_output().unwrap()).unwrap();
    for _ in 0..2 {
        one.handle_bytes(&two.take_output().unwrap()).unwrap();
        let answer = two.handle_bytes(&one.take_output().unwrap());
        if answer.is_err() {
            assert_eq!(answer, Err(SessionError::Secret));
        }
    }
    assert_eq!(one.handle_bytes(&two.take_output().unwrap()), Err(SessionError::Secret));
    assert!(one.poll_event().is_none() && two.poll_event().is_none());
}

#[test]
fn a_refusal_arrives_with_its_reason() {
    let (mut one, mut two) = pair();
    let refusal = Refusal { code: RefusalCode::Limit, text: "full".into(), instead: Vec::new() };
    for _ in 0..3 {
        if let Some(bytes) = one.take_output() {
            two.handle_bytes(&bytes).unwrap();
        }
        if two.poll_event().is_some() {
            two.refuse(refusal.clone());
        }
        if let Some(bytes) = two.take_output() {
            one.handle_bytes(&bytes).unwrap();
        }
    }
    assert_eq!(one.poll_event(), Some(Event::Refused(refusal)));
    assert_eq!(two.handle_bytes(b"more"), Ok(()));
    assert!(two.poll_event().is_none());
}

#[test]
fn a_hello_altered_on_the_way_breaks_the_handshake() {
    let mut one = session_with(Role::Initiator, 1, Psk::open(), Hello { features: 1, ..Hello::OURS });
    let mut two = session(Role::Responder, 2, Psk::open());
    let mut hello = one.take_output().unwrap();
    hello[11] = 0; // somebody strips the feature
    two.handle_bytes(&hello).unwrap();
    one.handle_bytes(&two.take_output().unwrap()).unwrap();
    assert_eq!(two.handle_bytes(&one.take_output().unwrap()), Err(SessionError::Secret));
}

#[test]
fn versions_without_a_common_one_part_with_both_ranges_in_the_message() {
    let mut one = session_with(Role::Initiator, 1, Psk::open(), Hello { lowest: 2, highest: 3, features: 0 });
    let mut two = session(Role::Responder, 2, Psk::open());
    let error = two.handle_bytes(&one.take_output().unwrap()).unwrap_err();
    assert_eq!(error.to_string(), "no common version: they speak 2 to 3, we speak 1 to 1");
    let error = one.handle_bytes(&two.take_output().unwrap()).unwrap_err();
    assert_eq!(error.to_string(), "no common version: they speak 1 to 1, we speak 2 to 3");
}

#[test]
fn strangers_are_dropped_at_their_first_bytes() {
    for words in [&b"GET / HTTP/1.1\r\n"[..], &[0x16, 3, 1, 2], &[0; 64]] {
        let (_, mut two) = pair();
        assert_eq!(two.handle_bytes(words), Err(SessionError::Hello(HelloError::Magic)));
        assert!(two.take_output().is_none(), "a stranger hears nothing");
    }
}

#[test]
fn an_unreadable_body_is_skipped_and_the_session_goes_on() {
    let (mut one, mut two) = established();
    let mut out = Vec::new();
    if let State::Open { sealer } = &mut one.state {
        sealer.seal(&[LAST, 1, 10, 0, 0, 0, 1, 255], &mut out); // a broadcast of one byte
        sealer.seal(&[LAST, 1, 222, 0, 0, 0, 1, 255], &mut out); // a kind from the future
        sealer.seal(&[LAST, 9, 3, 0, 0, 0, 1, 5], &mut out); // an envelope from the future
    }
    two.handle_bytes(&out).unwrap();
    assert_eq!(std::iter::from_fn(|| two.poll_event()).filter(|e| *e == Event::Unreadable).count(), 3);
    one.send(&Message::Ping(7));
    assert_eq!(settle(&mut one, &mut two).1, [Event::Message(Message::Ping(7))]);
}

#[test]
fn broken_framing_closes_the_session() {
    for plain in [
        &[LAST, 1, 3, 0, 0, 0, 9, 5][..],
        &[LAST, 1],
        &[MORE, 1, 12, 255, 0, 0, 0],
        &[MORE, 1, 3, 0, 0, 0, 1, 5, 5],
    ] {
        let (mut one, mut two) = established();
        let mut out = Vec::new();
        if let State::Open { sealer } = &mut one.state {
            sealer.seal(plain, &mut out);
        }
        assert!(matches!(two.handle_bytes(&out), Err(SessionError::Framing(_))), "{plain:?}");
    }
}

#[test]
fn a_message_that_never_ends_is_cut_off_at_the_limit() {
    let (mut one, mut two) = established();
    let mut chunk = vec![MORE, 1, 12];
    chunk.extend_from_slice(&u32::try_from(MESSAGE_LIMIT - ENVELOPE).unwrap().to_be_bytes());
    chunk.resize(CHUNK, 0);
    for _ in 0..200 {
        let mut out = Vec::new();
        if let State::Open { sealer } = &mut one.state {
            sealer.seal(&chunk, &mut out);
        }
        if two.handle_bytes(&out).is_err() {
            assert!(two.partial.len() <= MESSAGE_LIMIT);
            return;
        }
    }
    panic!("200 records of a never-ending message were taken");
}

#[test]
fn bytes_before_the_decision_wait_up_to_a_bound() {
    let (mut one, mut two) = pair();
    two.handle_bytes(&one.take_output().unwrap()).unwrap();
    one.handle_bytes(&two.take_output().unwrap()).unwrap();
    two.handle_bytes(&one.take_output().unwrap()).unwrap();
    one.handle_bytes(&two.take_output().unwrap()).unwrap();
    two.handle_bytes(&one.take_output().unwrap()).unwrap();
    assert!(matches!(two.poll_event(), Some(Event::Introduced(_))));
    two.handle_bytes(&[0; 1000]).unwrap();
    assert!(two.poll_event().is_none());
    assert!(two.handle_bytes(&vec![0; WAITING_LIMIT]).is_err());
}

/// Runs a whole conversation with every piece of bytes passed through `alter`: two introductions and a message
/// each way. Says how many of the four arrived.
fn conversation(mut alter: impl FnMut(usize, Vec<u8>) -> Vec<Vec<u8>>) -> usize {
    let (mut one, mut two) = pair();
    let (mut count, mut arrived, mut said) = (0, 0, false);
    loop {
        let mut moved = false;
        for turn in 0..2 {
            let (from, to) = if turn == 0 { (&mut one, &mut two) } else { (&mut two, &mut one) };
            let Some(bytes) = from.take_output() else { continue };
            moved = true;
            let length = bytes.len();
            for piece in alter(count, bytes) {
                if to.handle_bytes(&piece).is_err() {
                    return arrived;
                }
                while let Some(event) = to.poll_event() {
                    arrived += 1;
                    if matches!(event, Event::Introduced(_)) && to.accept().is_err() {
                        return arrived;
                    }
                }
            }
            count += length;
        }
        if !moved && !said {
            said = true;
            moved = one.send(&Message::Tell(Blob(vec![1; 100]))) | two.send(&Message::Ping(3));
        }
        if !moved {
            return arrived;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn cut_at_every_boundary_a_conversation_is_the_same(size in 1usize..40) {
        prop_assert_eq!(conversation(|_, bytes| bytes.chunks(size).map(<[u8]>::to_vec).collect()), 4);
    }

    #[test]
    fn a_flipped_bit_anywhere_ends_or_stalls_the_session(at in 0usize..10_000, bit in 0u8..8) {
        let mut length = 0;
        conversation(|count, bytes| {
            length = count + bytes.len();
            vec![bytes]
        });
        let (at, mut flipped) = (at % length, false);
        let arrived = conversation(|count, mut bytes| {
            if let Some(byte) = at.checked_sub(count).and_then(|at| bytes.get_mut(at)) {
                *byte ^= 1 << bit;
                flipped = true;
            }
            vec![bytes]
        });
        // A flipped length may leave an end waiting for bytes that never come: the mesh's deadline takes that.
        prop_assert!(flipped && arrived < 4);
    }

    #[test]
    fn garbage_after_the_hello_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let (mut one, mut two) = pair();
        let hello = one.take_output().unwrap();
        let _ = two.handle_bytes(&hello);
        let _ = two.handle_bytes(&bytes);
        prop_assert!(two.poll_event().is_none());
    }

    #[test]
    fn garbage_in_an_open_session_closes_it(bytes in proptest::collection::vec(any::<u8>(), 64..200)) {
        let (_, mut two) = established();
        let mut record = u16::try_from(bytes.len()).unwrap().to_be_bytes().to_vec();
        record.extend_from_slice(&bytes);
        prop_assert_eq!(two.handle_bytes(&record), Err(SessionError::Corrupt));
    }
}
