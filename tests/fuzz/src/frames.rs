//! The hot half: datagrams, pieces, parts of frames, captured frames.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use weft_fastpath::MacAddr;
use weft_gossip::PeerName;
use weft_router::dataplane::{Carrier, Command, Dataplane, Event, ForwardingTable, Output, Setup};
use weft_router::sleeve::announcement::Announcement;
use weft_router::sleeve::join::Joiner;
use weft_router::sleeve::keys::KeyLimits;
use weft_router::sleeve::packet::Header;
use weft_router::sleeve::piece::{Piece, Pieces};

use super::decoders::parts;

const ME: PeerName = PeerName::from_u64(1);
const PEER: PeerName = PeerName::from_u64(2);
const FAR: PeerName = PeerName::from_u64(3);

/// A datagram's header, the pieces behind it, frames joined from parts, and an announcement of the same bytes.
pub(super) fn sleeve(bytes: &[u8]) {
    if let Some(read) = Announcement::decode(bytes) {
        assert!(Announcement::decode(&read.encode()) == Some(read), "an announcement reads otherwise");
    }
    if let Ok(header) = Header::parse(bytes) {
        assert!(bytes.starts_with(&header.bytes()));
    }
    let (mut joiner, mut buffers) = (Joiner::default(), Vec::new());
    let mut now = super::start();
    for datagram in parts(bytes) {
        for piece in Pieces::new(datagram).map_while(Result::ok) {
            let mut written = Vec::new();
            piece.write(&mut written);
            assert_eq!(Pieces::new(&written).next(), Some(Ok(piece)), "a piece reads otherwise");
            if let Piece::Frame(head, bytes) = piece
                && let Some(part) = head.part
            {
                let _ = joiner.add(PEER, part, head.vnet, bytes, &mut buffers, now);
            }
        }
        now += Duration::from_millis(100);
        joiner.expire(&mut buffers, now);
    }
}

/// A data half without a secret, so that whatever follows a header gets through to the pieces.
struct Half {
    data: Dataplane,
    index: u32,
    counter: u64,
}

fn address() -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 2], 6783))
}

impl Half {
    fn new() -> Self {
        let limits = KeyLimits::default();
        let setup = Setup { me: ME, encrypted: false, hardware_aes: false, seed: [3; 32], limits };
        let now = super::start();
        let mut half = Self { data: Dataplane::new(setup, now), index: 0, counter: 0 };
        half.data.handle_command(Command::AddLink { peer: PEER, session: 1, address: address() }, now);
        let mut table = ForwardingTable::alone(ME);
        table.next_hop = [(PEER, PEER), (FAR, PEER)].into();
        table.flood = [(ME, vec![PEER]), (PEER, vec![]), (FAR, vec![])].into();
        table.upstream = [(PEER, PEER), (FAR, PEER)].into();
        table.carriers = [(PEER, Carrier::Sleeve)].into();
        half.data.handle_command(Command::Table(Arc::new(table)), now);
        half.data.handle_command(Command::LocalMacs([MacAddr::new([2, 0, 0, 0, 0, 1])].into()), now);
        half.drain();
        half
    }

    fn drain(&mut self) {
        let mut count = 0;
        while let Some(output) = self.data.poll_output() {
            count += 1;
            assert!(count < 10_000, "it never ends");
            if let Output::Event(Event::Announce { bytes, .. }) = output
                && let Some(ours) = Announcement::decode(&bytes)
            {
                self.index = ours.index;
            }
        }
    }
}

/// Captured frames, datagrams, announcements and time, as the first byte of each part says.
pub(super) fn dataplane(bytes: &[u8]) {
    let mut half = Half::new();
    let mut now = super::start();
    for part in parts(bytes) {
        let Some((kind, rest)) = part.split_first() else { continue };
        match kind % 6 {
            0 => half.data.handle_captured(rest, None, now),
            1 => {
                let header = [&[0x10][..], &half.index.to_be_bytes(), &half.counter.to_be_bytes()].concat();
                let mut datagram = [&header, rest].concat();
                half.counter += 1;
                half.data.handle_datagram(address(), &mut datagram, now);
            }
            2 => half.data.handle_datagram(address(), &mut rest.to_vec(), now),
            3 => {
                let command = Command::Announced { peer: PEER, session: 1, bytes: rest.to_vec() };
                half.data.handle_command(command, now);
            }
            4 => half.data.handle_too_large(address(), rest.len() * 100, now),
            _ => now += Duration::from_millis(rest.first().map_or(1, |tens| u64::from(*tens) * 10)),
        }
        if half.data.poll_timeout().is_some_and(|due| due <= now) {
            half.data.handle_timeout(now);
        }
        half.drain();
    }
    let _ = half.data.counters();
}

fn frame() -> Vec<u8> {
    [&[2, 0, 0, 0, 0, 9, 2, 0, 0, 0, 0, 1, 8, 0][..], &[0x45; 40]].concat()
}

fn pieces() -> Vec<Vec<u8>> {
    use weft_router::sleeve::piece::{FrameHead, Part, Route};
    let frame = frame();
    let route = Route { source: FAR, destination: ME, hops: 3 };
    let part = |offset| Part { id: 5, total: 54, offset };
    let direct = FrameHead::direct(None);
    let pieces = [
        Piece::Beat { sequence: 1, hears: true },
        Piece::Echo { sequence: 2 },
        Piece::Probe { round: 3, size: 1400 },
        Piece::ProbeEcho { round: 3, size: 1400 },
        Piece::Frame(direct, &frame),
        Piece::Frame(FrameHead { route: Some(route), ..direct }, &frame),
        Piece::Frame(FrameHead { flood: true, deliver: true, route: Some(route), ..direct }, &frame),
        Piece::Frame(FrameHead { part: Some(part(0)), ..direct }, &frame[..30]),
        Piece::Frame(FrameHead { part: Some(part(30)), ..direct }, &frame[30..]),
    ];
    let write = |piece: &Piece<'_>| {
        let mut bytes = Vec::new();
        piece.write(&mut bytes);
        bytes
    };
    pieces.iter().map(write).collect()
}

pub(super) fn datagrams() -> Vec<Vec<u8>> {
    let pieces = pieces();
    let mut datagrams: Vec<Vec<u8>> = pieces.iter().map(|piece| super::join([piece])).collect();
    datagrams.push(super::join([pieces.concat()]));
    datagrams.push(super::join(&pieces));
    datagrams.push(
        Header { suite: weft_router::sleeve::seal::Suite::Clear, index: 7, counter: 9 }.bytes().to_vec(),
    );
    datagrams.push(announcement());
    datagrams
}

fn announcement() -> Vec<u8> {
    let half = |encrypted| {
        let setup =
            Setup { me: PEER, encrypted, hardware_aes: false, seed: [4; 32], limits: KeyLimits::default() };
        let mut data = Dataplane::new(setup, super::start());
        data.handle_command(Command::AddLink { peer: ME, session: 1, address: address() }, super::start());
        let mut announced = Vec::new();
        while let Some(output) = data.poll_output() {
            if let Output::Event(Event::Announce { bytes, .. }) = output {
                announced = bytes;
            }
        }
        announced
    };
    half(false)
}

pub(super) fn traffic() -> Vec<Vec<u8>> {
    let say = |kind: u8, bytes: &[u8]| [&[kind][..], bytes].concat();
    let announced = say(3, &announcement());
    let mut traffic: Vec<Vec<u8>> = pieces()
        .iter()
        .map(|piece| super::join([announced.clone(), say(1, piece), say(5, &[100])]))
        .collect();
    traffic.push(super::join([announced.clone(), say(0, &frame()), say(5, &[200]), say(4, &[0; 15])]));
    traffic.push(super::join(std::iter::once(announced).chain(pieces().iter().map(|piece| say(1, piece)))));
    traffic
}
