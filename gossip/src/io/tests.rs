//! Two transports on loopback: what goes in comes out, in order, and ends are told.

use std::net::SocketAddr;

use super::*;

async fn pair() -> (Transport, Transport, ConnectionId, ConnectionId) {
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let (mut a, mut b) = (Transport::bind(any).await.unwrap(), Transport::bind(any).await.unwrap());
    let (dialled, admitted) = (ConnectionId(1), ConnectionId(7));
    a.execute(Output::Dial { connection: dialled, target: Target::from(b.address().unwrap()) });
    let TransportEvent::Accepted(accepted) = soon(b.next()).await else { panic!("nobody came") };
    b.admit(accepted, Some(admitted));
    let TransportEvent::Input(Input::Dialed { connection, local, .. }) = soon(a.next()).await else {
        panic!("the dial led nowhere")
    };
    assert_eq!((connection, local.is_some()), (dialled, true));
    (a, b, dialled, admitted)
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(10), future).await.expect("nothing happened for 10 s")
}

#[tokio::test]
async fn bytes_arrive_in_order_and_the_end_is_told_once_they_have() {
    let (mut a, mut b, dialled, admitted) = pair().await;
    let sent: Vec<u8> = (0..200_000u32).map(|n| u8::try_from(n % 251).unwrap()).collect();
    for piece in sent.chunks(7_000) {
        a.execute(Output::Send { connection: dialled, bytes: piece.to_vec() });
    }
    a.execute(Output::Close { connection: dialled });
    let mut received = Vec::new();
    loop {
        match soon(b.next()).await {
            TransportEvent::Input(Input::Received { connection, bytes }) => {
                assert_eq!(connection, admitted);
                received.extend(bytes);
            }
            TransportEvent::Input(Input::Closed { connection, .. }) => {
                assert_eq!(connection, admitted);
                break;
            }
            TransportEvent::Input(_) => {}
            TransportEvent::Accepted(_) => panic!("nobody else is there"),
        }
    }
    assert!(received == sent, "{} of {} bytes arrived", received.len(), sent.len());
}

#[tokio::test]
async fn a_queue_that_drains_is_reported() {
    let (mut a, mut b, dialled, _) = pair().await;
    a.execute(Output::Send { connection: dialled, bytes: vec![1; 3_000] });
    let TransportEvent::Input(Input::Writable { connection, queued }) = soon(a.next()).await else {
        panic!("no word of the queue")
    };
    assert_eq!((connection, queued), (dialled, 0));
    soon(a.flush()).await;
    assert!(matches!(soon(b.next()).await, TransportEvent::Input(Input::Received { .. })));
}

#[tokio::test]
async fn a_dial_to_a_closed_port_or_an_unknown_name_fails_with_a_reason() {
    let mut a = Transport::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let closed = Transport::bind("127.0.0.1:0".parse().unwrap()).await.unwrap().address().unwrap();
    for (number, target) in [Target::from(closed), "no-such-host.invalid:1".parse().unwrap()].into_iter().enumerate() {
        a.execute(Output::Dial { connection: ConnectionId(number as u64), target });
        let TransportEvent::Input(Input::DialFailed { error, .. }) = soon(a.next()).await else {
            panic!("the dial did not fail")
        };
        assert!(!error.is_empty());
    }
}

#[tokio::test]
async fn a_connection_that_is_not_admitted_is_closed() {
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let (mut a, mut b) = (Transport::bind(any).await.unwrap(), Transport::bind(any).await.unwrap());
    a.execute(Output::Dial { connection: ConnectionId(1), target: Target::from(b.address().unwrap()) });
    let TransportEvent::Accepted(accepted) = soon(b.next()).await else { panic!("nobody came") };
    assert!(accepted.local().is_some());
    b.admit(accepted, None);
    assert!(matches!(soon(a.next()).await, TransportEvent::Input(Input::Dialed { .. })));
    assert!(matches!(soon(a.next()).await, TransportEvent::Input(Input::Closed { .. })));
}
