//! Real sockets on the loopback: what the simulator cannot know.

#![expect(clippy::wildcard_enum_match_arm, reason = "a test looks for one output among all")]

use std::net::IpAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

use super::*;
use crate::event::ChannelName;
use crate::identity::{Identity, Psk};
use crate::mesh::{ConnectionState, MeshConfig};
use crate::peer::{BootId, Incarnation, PeerName};

const LIMIT: Duration = Duration::from_secs(20);
const IPAM: ChannelName = ChannelName::new("ipam");

#[expect(clippy::disallowed_methods, reason = "the tests of the shell live in real time")]
fn now() -> Instant {
    Instant::now()
}

/// A mesh with its transport.
struct Router {
    mesh: Mesh,
    transport: Transport,
    reports: Vec<Output>,
}

impl Router {
    async fn start(who: u8, psk: &Psk, targets: &[SocketAddr]) -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap(), who, psk, targets).await
    }

    async fn start_at(listen: SocketAddr, who: u8, psk: &Psk, targets: &[SocketAddr]) -> Self {
        let transport = Transport::bind(listen).await.unwrap();
        let config = MeshConfig {
            identity: Identity::from_secret([who; 32]),
            incarnation: Incarnation(1),
            boot: BootId(who.into()),
            nickname: format!("host{who}"),
            site: "default".into(),
            psk: psk.clone(),
            endpoints: Vec::new(),
            listen_port: transport.local_addr().port(),
            discovery: true,
            connection_limit: None,
            targets: targets.iter().copied().map(Target::from).collect(),
            channels: [IPAM].into(),
        };
        let mesh = Mesh::new(config, u64::from(who), now());
        let mut router = Self { mesh, transport, reports: Vec::new() };
        router.drain();
        router
    }

    fn address(&self) -> SocketAddr {
        self.transport.local_addr()
    }

    fn drain(&mut self) {
        while let Some(output) = self.mesh.poll_output() {
            self.reports.extend(self.transport.execute(output));
        }
    }

    /// Serves one event or timer.
    async fn turn(&mut self) {
        let wait = self.mesh.poll_timeout().map_or(LIMIT, |due| due.saturating_duration_since(now()));
        match timeout(wait, self.transport.next()).await {
            Ok(event) => self.transport.feed(event, &mut self.mesh, now()),
            Err(_) => self.mesh.handle_timeout(now()),
        }
        self.drain();
    }

    fn reaches(&self, peer: PeerName) -> bool {
        self.mesh.routes().hops(peer).is_some()
    }

    fn established(&self) -> usize {
        self.mesh.connections().filter(|view| view.state == ConnectionState::Established).count()
    }
}

/// Serves all routers until something holds.
async fn until(routers: &mut [Router], holds: impl Fn(&[Router]) -> bool) {
    let run = async {
        while !holds(routers) {
            let turns = routers.iter_mut().map(|router| Box::pin(router.turn()));
            any(turns.collect()).await;
        }
    };
    timeout(LIMIT, run).await.expect("it holds within the limit");
}

/// Waits for any of them; what the others have begun to wait for is not lost.
async fn any<F: Future + Unpin>(mut futures: Vec<F>) {
    std::future::poll_fn(|context| {
        let ready = |future: &mut F| std::pin::Pin::new(future).poll(context).is_ready();
        if futures.iter_mut().any(ready) { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
}

#[tokio::test(flavor = "current_thread")]
async fn three_routers_on_the_loopback_become_a_mesh_and_talk() {
    let psk = Psk::derive("the secret");
    let first = Router::start(1, &psk, &[]).await;
    let contact = [first.address()];
    let mut routers =
        vec![first, Router::start(2, &psk, &contact).await, Router::start(3, &psk, &contact).await];
    until(&mut routers, |all| all.iter().all(|router| router.established() == 2)).await;
    let (from, to) = (routers[1].mesh.name(), routers[2].mesh.name());
    routers[1].mesh.unicast(IPAM, to, vec![7; 3_000_000], now());
    routers[1].drain();
    until(&mut routers, |all| {
        all[2].reports.iter().any(|output| matches!(output, Output::Deliver { source, bytes, .. } if *source == from && bytes.len() == 3_000_000))
    })
    .await;
    let local = routers[1].reports.iter().find_map(|output| match output {
        Output::Established { local, remote, outbound: true, .. } => {
            local.map(|local| (local.ip(), remote.ip()))
        }
        _ => None,
    });
    let loopback = IpAddr::from([127, 0, 0, 1]);
    assert_eq!(local, Some((loopback, loopback)), "the underlay address of a session is known");
}

#[tokio::test(flavor = "current_thread")]
async fn a_router_that_ends_is_lost_within_a_quarter_of_a_second() {
    let psk = Psk::open();
    let first = Router::start(1, &psk, &[]).await;
    let contact = [first.address()];
    let mut routers =
        vec![first, Router::start(2, &psk, &contact).await, Router::start(3, &psk, &contact).await];
    until(&mut routers, |all| all.iter().all(|router| router.established() == 2)).await;
    let gone = routers.pop().map(|router| router.mesh.name()).unwrap();
    let start = now();
    until(&mut routers, |all| all.iter().all(|router| !router.reaches(gone))).await;
    assert!(start.elapsed() < Duration::from_millis(250), "{:?}", start.elapsed());
}

#[tokio::test(flavor = "current_thread")]
async fn a_far_side_that_does_not_read_neither_blocks_us_nor_fills_the_memory() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut transport = Transport::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let connection = ConnectionId(1);
    transport.execute(Output::Dial { connection, target: Target::from(listener.local_addr().unwrap()) });
    let (_silent, _) = listener.accept().await.unwrap();
    assert!(matches!(transport.next().await, TransportEvent::Input(Input::Dialed { .. })));
    for _ in 0..200 {
        transport.execute(Output::Send { connection, bytes: vec![0; 1 << 20] });
    }
    let closed = async {
        loop {
            if let TransportEvent::Input(Input::Closed { error, .. }) = transport.next().await {
                return error;
            }
        }
    };
    let error = timeout(LIMIT, closed).await.expect("it is closed").expect("with a reason");
    assert!(error.contains("queue"), "{error}");
}

#[tokio::test(flavor = "current_thread")]
async fn what_was_sent_before_a_close_still_arrives() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut transport = Transport::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let connection = ConnectionId(1);
    transport.execute(Output::Dial { connection, target: Target::from(listener.local_addr().unwrap()) });
    let (mut far, _) = listener.accept().await.unwrap();
    assert!(matches!(transport.next().await, TransportEvent::Input(Input::Dialed { .. })));
    transport.execute(Output::Send { connection, bytes: b"the last ".to_vec() });
    transport.execute(Output::Send { connection, bytes: b"words".to_vec() });
    transport.execute(Output::Close { connection });
    let mut words = String::new();
    timeout(LIMIT, far.read_to_string(&mut words)).await.unwrap().unwrap();
    assert_eq!(words, "the last words");
}

#[tokio::test(flavor = "current_thread")]
async fn a_dial_that_leads_nowhere_says_why() {
    let mut transport = Transport::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for (number, target) in
        [Target::from(free), "no-such-host.invalid:1".parse().unwrap()].into_iter().enumerate()
    {
        let connection = ConnectionId(number as u64);
        transport.execute(Output::Dial { connection, target });
        let event = timeout(LIMIT, transport.next()).await.unwrap();
        let TransportEvent::Input(Input::DialFailed { connection: failed, error }) = event else {
            panic!("{event:?}")
        };
        assert!(failed == connection && !error.is_empty());
    }
}

#[tokio::test(flavor = "current_thread")]
async fn strangers_that_stay_silent_or_talk_nonsense_do_not_keep_a_peer_out() {
    let psk = Psk::open();
    // 127.0.0.2 is another source address than that of the strangers.
    let first = Router::start(1, &psk, &[]).await;
    let contact = first.address();
    let mut strangers = Vec::new();
    for number in 0..60 {
        let mut stranger = TcpStream::connect(contact).await.unwrap();
        if number % 3 == 0 {
            stranger.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
        } else if number % 3 == 1 {
            stranger.write_all(b"WEFT").await.unwrap();
        }
        strangers.push(stranger);
    }
    let second = Router::start_at("127.0.0.2:0".parse().unwrap(), 2, &psk, &[contact]).await;
    let mut routers = vec![first, second];
    let start = now();
    until(&mut routers, |all| all.iter().all(|router| router.established() == 1)).await;
    assert!(start.elapsed() < Duration::from_secs(2));
    assert!(routers[0].mesh.counters().half_open_refused > 0);
    let remote = routers[0].reports.iter().find_map(|output| {
        if let Output::Established { remote, .. } = output { Some(remote.ip()) } else { None }
    });
    assert_eq!(remote, Some(IpAddr::from([127, 0, 0, 2])), "a dial leaves from the address we listen on");
}
