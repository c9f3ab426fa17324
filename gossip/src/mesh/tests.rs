//! One mesh driven by hand: its doors, its queues, its timers.

#![expect(clippy::wildcard_enum_match_arm, reason = "a test looks for one output among all")]

use super::*;
use crate::event::DeliverKind;
use crate::identity::{Identity, Psk};

const IPAM: ChannelName = ChannelName::new("ipam");
const SECOND: Duration = Duration::from_secs(1);

#[expect(clippy::disallowed_methods, reason = "an origin for virtual time")]
fn origin() -> Instant {
    Instant::now()
}

fn config(who: u8) -> MeshConfig {
    MeshConfig {
        identity: Identity::from_secret([who; 32]),
        incarnation: Incarnation(1),
        boot: BootId(who.into()),
        nickname: format!("host{who}"),
        site: "default".into(),
        psk: Psk::open(),
        endpoints: Vec::new(),
        listen_port: 6783,
        discovery: false,
        connection_limit: None,
        targets: Vec::new(),
        channels: [IPAM].into(),
    }
}

fn address(host: u8, port: u16) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, host], port))
}

/// Two meshes on one wire: the first dials, the second accepts.
struct Pair {
    meshes: [Mesh; 2],
    connections: [ConnectionId; 2],
    reports: [Vec<Output>; 2],
    /// Bytes that were sent but not carried, per sender.
    stuck: [Vec<u8>; 2],
    carries: [bool; 2],
    closed: bool,
    now: Instant,
}

impl Pair {
    fn new() -> Self {
        let now = origin();
        let target = Target::from(address(2, 6783));
        let mut one = Mesh::new(MeshConfig { targets: vec![target], ..config(1) }, 1, now);
        let mut two = Mesh::new(config(2), 2, now);
        let dial =
            |output| if let Output::Dial { connection, .. } = output { Some(connection) } else { None };
        let connection = std::iter::from_fn(|| one.poll_output()).find_map(dial).expect("dialled at once");
        let accepted = two.accept(address(1, 40_000), Some(address(2, 6783)), now).unwrap();
        let (remote, local) = (address(2, 6783), Some(address(1, 40_000)));
        one.handle_input(Input::Dialed { connection, remote, local }, now);
        let mut pair = Self {
            meshes: [one, two],
            connections: [connection, accepted],
            reports: [Vec::new(), Vec::new()],
            stuck: [Vec::new(), Vec::new()],
            carries: [true, true],
            closed: false,
            now,
        };
        pair.carry();
        pair
    }

    /// Carries bytes both ways until both are silent.
    fn carry(&mut self) {
        let mut moved = true;
        while std::mem::take(&mut moved) {
            for from in 0..2 {
                while let Some(output) = self.meshes[from].poll_output() {
                    match output {
                        Output::Send { bytes, .. } => self.stuck[from].extend_from_slice(&bytes),
                        Output::Close { connection } => self.closed |= connection == self.connections[from],
                        report => self.reports[from].push(report),
                    }
                }
                if self.carries[from] && !self.stuck[from].is_empty() {
                    moved = true;
                    let bytes = std::mem::take(&mut self.stuck[from]);
                    let received = Input::Received { connection: self.connections[1 - from], bytes };
                    self.meshes[1 - from].handle_input(received, self.now);
                    let writable = Input::Writable { connection: self.connections[from], queued: 0 };
                    self.meshes[from].handle_input(writable, self.now);
                }
            }
        }
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
        for mesh in &mut self.meshes {
            mesh.handle_timeout(self.now);
        }
        self.carry();
    }

    fn delivered(&self, at: usize, wanted: DeliverKind) -> Vec<&[u8]> {
        let bytes = |output: &'_ Output| match output {
            Output::Deliver { kind, .. } => *kind == wanted,
            _ => false,
        };
        let deliveries = self.reports[at].iter().filter(|output| bytes(output));
        deliveries
            .map(|output| if let Output::Deliver { bytes, .. } = output { &bytes[..] } else { &[] })
            .collect()
    }
}

#[test]
fn both_ends_report_each_other_with_one_session_number_and_their_underlay_addresses() {
    let pair = Pair::new();
    let established: Vec<_> = pair
        .reports
        .iter()
        .map(|reports| {
            reports.iter().find_map(|output| match output {
                Output::Established { peer, nickname, remote, local, outbound, session } => {
                    Some((*peer, nickname.clone(), *remote, *local, *outbound, *session))
                }
                _ => None,
            })
        })
        .collect();
    let (one, two) = (established[0].clone().unwrap(), established[1].clone().unwrap());
    assert_eq!((one.0, two.0), (pair.meshes[1].name(), pair.meshes[0].name()));
    assert_eq!((one.1.as_str(), two.1.as_str()), ("host2", "host1"));
    assert_eq!((one.2, one.3), (address(2, 6783), Some(address(1, 40_000))));
    assert_eq!((one.4, two.4), (true, false));
    assert_eq!(one.5, two.5);
    let view = pair.meshes[0].connections().next().unwrap();
    assert_eq!((view.address.as_str(), view.target, view.outbound), ("10.0.0.2:6783", true, true));
    assert_eq!(view.session, Some(one.5));
    assert!(view.rtt.is_some());
}

#[test]
fn without_configured_endpoints_a_router_advertises_where_its_sessions_show_it() {
    let mut pair = Pair::new();
    pair.wait(SECOND);
    let peer = pair.meshes[1].peers().next().unwrap();
    assert_eq!(peer.endpoints, [address(1, 6783)]);
}

#[test]
fn fifteen_hundred_slow_callers_from_one_address_keep_nobody_else_out() {
    let now = origin();
    let mut mesh = Mesh::new(config(1), 1, now);
    let accepted = (0..1_500u16).filter_map(|n| mesh.accept(address(9, 1_024 + n), None, now)).count();
    assert_eq!(accepted, link::HALF_OPEN_PER_SOURCE);
    assert!(mesh.accept(address(8, 1_024), None, now).is_some());
    assert_eq!(mesh.counters().half_open_refused, 1_500 - accepted as u64);
    mesh.handle_timeout(now + link::HANDSHAKE_DEADLINE);
    assert!(mesh.accept(address(9, 5_000), None, now).is_some(), "the deadline makes room again");
    assert_eq!(mesh.counters().handshakes_failed, accepted as u64 + 1);
}

#[test]
fn slow_callers_from_many_addresses_push_out_their_own_kind_first() {
    let now = origin();
    let mut mesh = Mesh::new(config(1), 1, now);
    let lone = mesh.accept(address(200, 1), None, now).unwrap();
    for host in 0..100 {
        for port in 0..20 {
            mesh.accept(address(host, 1_024 + port), None, now);
        }
    }
    assert!(mesh.links.len() <= link::HALF_OPEN_LIMIT);
    assert!(mesh.links.contains_key(&lone), "the only one of its source is not pushed out");
}

#[test]
fn an_ipv6_host_cannot_take_more_than_its_share_with_its_many_addresses() {
    let now = origin();
    let mut mesh = Mesh::new(config(1), 1, now);
    let from = |n: u16| SocketAddr::new(std::net::Ipv6Addr::new(0xfd00, 1, 2, 3, n, n, n, n).into(), 1);
    let accepted = (0..100).filter_map(|n| mesh.accept(from(n), None, now)).count();
    assert_eq!(accepted, link::HALF_OPEN_PER_SOURCE);
}

#[test]
fn a_neighbour_that_does_not_read_gets_the_state_and_not_the_deltas_when_it_reads_again() {
    let mut pair = Pair::new();
    pair.carries[0] = false;
    for n in 0..200u8 {
        let now = pair.now;
        pair.meshes[0].publish(IPAM, Some(vec![n; 100_000]), format!("state {n}").into_bytes(), now);
        pair.carry();
    }
    assert!(pair.stuck[0].len() < 2 << 20, "{} bytes queued", pair.stuck[0].len());
    assert!(pair.meshes[0].counters().slow_neighbour_drops > 150);
    pair.carries[0] = true;
    pair.carry();
    assert_eq!(pair.delivered(1, DeliverKind::State), [b"state 199"]);
    assert!(pair.delivered(1, DeliverKind::Delta).len() < 20);
    assert!(!pair.closed);
}

#[test]
fn a_neighbour_that_never_reads_is_given_up_before_the_memory_is_full() {
    let mut pair = Pair::new();
    pair.carries[0] = false;
    let (peer, now) = (pair.meshes[1].name(), pair.now);
    for _ in 0..100 {
        pair.meshes[0].tell(peer, vec![0; 1 << 20], now);
        pair.carry();
    }
    assert!(pair.closed && pair.stuck[0].len() < 30 << 20);
    let lost = pair.reports[0]
        .iter()
        .any(|output| matches!(output, Output::Lost { reason, .. } if reason.contains("does not read")));
    assert!(lost);
}

#[test]
fn what_is_too_long_for_a_message_is_counted_and_harms_nothing() {
    let mut pair = Pair::new();
    let (peer, now) = (pair.meshes[1].name(), pair.now);
    pair.meshes[0].tell(peer, vec![0; 9 << 20], now);
    pair.meshes[0].unicast(IPAM, peer, vec![0; 9 << 20], now);
    pair.meshes[0].publish(IPAM, None, vec![0; 9 << 20], now);
    pair.meshes[0].tell(peer, vec![7; 8_000_000], now);
    pair.carry();
    assert_eq!(pair.meshes[0].counters().oversized, 3);
    let told = pair.reports[1]
        .iter()
        .find_map(|output| if let Output::Told { bytes, .. } = output { Some(bytes.len()) } else { None });
    assert_eq!(told, Some(8_000_000));
    assert!(!pair.closed);
}

#[test]
fn an_unreadable_message_is_counted_and_the_session_goes_on() {
    let mut pair = Pair::new();
    let (peer, now) = (pair.meshes[1].name(), pair.now);
    let (purpose, channel) = (crate::wire::Purpose::ProbeAnswer, crate::channel::TOPOLOGY);
    pair.meshes[0].route(peer, purpose, channel, b"no boot at all".to_vec());
    pair.meshes[0].tell(peer, b"after".to_vec(), now);
    pair.carry();
    assert_eq!(pair.meshes[1].counters().unreadable, 1);
    assert!(pair.reports[1].iter().any(|output| matches!(output, Output::Told { .. })));
    assert!(!pair.closed);
}

#[test]
fn news_of_closed_connections_is_ignored() {
    let mut pair = Pair::new();
    let (connection, now) = (pair.connections[0], pair.now);
    pair.meshes[0].handle_input(Input::Closed { connection, error: None }, now);
    let lost = std::iter::from_fn(|| pair.meshes[0].poll_output())
        .filter(|output| matches!(output, Output::Lost { .. }));
    assert_eq!(lost.count(), 1);
    for input in [
        Input::Closed { connection, error: None },
        Input::Received { connection, bytes: vec![1, 2, 3] },
        Input::Writable { connection, queued: 5 },
        Input::DialFailed { connection, error: "late".into() },
    ] {
        pair.meshes[0].handle_input(input, now);
        assert!(pair.meshes[0].poll_output().is_none());
    }
    let late = Input::Dialed { connection, remote: address(2, 6783), local: None };
    pair.meshes[0].handle_input(late, now);
    assert!(
        matches!(pair.meshes[0].poll_output(), Some(Output::Close { .. })),
        "a dial given up is closed when it comes"
    );
}

#[test]
fn a_timer_that_was_served_is_not_due_again_at_once() {
    let mut pair = Pair::new();
    for _ in 0..2_000 {
        let due = pair.meshes[0].poll_timeout().unwrap().max(pair.now);
        pair.meshes[0].handle_timeout(due);
        pair.carry();
        let next = pair.meshes[0].poll_timeout();
        assert!(next.is_none_or(|next| next > due), "still due after it was served");
        pair.now = due;
    }
    assert!(pair.now > origin() + 100 * SECOND, "a mesh at rest is not woken all the time");
}

#[test]
fn with_the_connection_limit_reached_the_mesh_rests() {
    let now = origin();
    let targets = (1..5).map(|host| Target::from(address(host, 1))).collect();
    let mut mesh = Mesh::new(MeshConfig { connection_limit: Some(2), targets, ..config(1) }, 1, now);
    let dials = std::iter::from_fn(|| mesh.poll_output())
        .filter(|output| matches!(output, Output::Dial { .. }))
        .count();
    assert_eq!(dials, 2);
    assert!(mesh.poll_timeout().unwrap() > now);
    let resting: Vec<_> = mesh.connections().filter(|view| view.connection.is_none()).collect();
    assert_eq!(resting.len(), 2);
    for view in resting {
        assert_eq!(view.retry_at, None, "no time at which it will be dialled");
        assert_eq!(view.error.as_deref(), Some("the limit of connections is reached"));
    }
}

#[test]
fn a_target_that_is_where_a_known_peer_listens_is_shown_once_and_by_its_name() {
    let mut pair = Pair::new();
    pair.wait(SECOND);
    let (now, peer, place) = (pair.now, pair.meshes[1].name(), address(2, 6783));
    assert_eq!(pair.meshes[0].peers().next().unwrap().endpoints, [place]);
    let (mesh, connection) = (&mut pair.meshes[0], pair.connections[0]);
    mesh.dialer.learn(peer, &[place], false, &mut mesh.rng, now);
    mesh.handle_input(Input::Closed { connection, error: None }, now);
    assert_eq!(mesh.dialer.candidates().count(), 2, "the target, and the peer at what it advertises");
    let views: Vec<_> = mesh.connections().collect();
    assert_eq!(views.len(), 1, "{views:?}");
    assert!(views[0].target && views[0].address == "10.0.0.2:6783");
    assert_eq!(views[0].peer, Some((peer, "host2".to_owned())));
}

#[test]
fn a_dial_that_the_shell_never_answers_is_given_up() {
    let now = origin();
    let mut mesh = Mesh::new(MeshConfig { targets: vec![Target::from(address(2, 1))], ..config(1) }, 1, now);
    mesh.handle_timeout(now + link::DIAL_BACKSTOP);
    let view = mesh.connections().next().unwrap();
    assert_eq!(view.error.as_deref(), Some("the dial was not answered"));
    assert_eq!(view.state, ConnectionState::Retrying);
}

#[test]
fn a_name_longer_than_allowed_is_cut_between_letters() {
    assert_eq!(cut("ü".repeat(200)).len(), 256);
    assert_eq!(cut("a".repeat(200)).len(), 200);
    assert_eq!(cut(format!("a{}", "ü".repeat(200))).len(), 255);
}
