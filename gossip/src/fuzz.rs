//! Doors for fuzzers: every decoder of bytes from outside, those behind a session included (feature `sim`).
//!
//! Each function takes any bytes and panics only where something of ours is broken: a decoder that panics, a value
//! that does not read back as itself, a machine that gives up.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::codec;
use crate::event::{ChannelName, ConnectionId, Input, Output};
use crate::hello::{Hello, Introduction};
use crate::identity::{Identity, Psk};
use crate::mesh::{Mesh, MeshConfig};
use crate::peer::{BootId, Incarnation};
use crate::session::{Credentials, Event, Role, Session};
use crate::topology::{Records, Topology};
use crate::wire::{Broadcast, ENVELOPE, Envelope, Message};

const RECORDS_LIMIT: usize = 32 << 20;

/// The clear hello: what is read is written the same.
pub fn hello(bytes: &[u8]) {
    let _ = Hello::may_begin(bytes);
    if let Some(head) = bytes.first_chunk()
        && let Ok(hello) = Hello::decode(head)
    {
        assert_eq!(&hello.encode(), head);
        let _ = Hello::OURS.common(hello);
    }
}

/// One message with its envelope, as it comes out of a sealed record.
pub fn message(bytes: &[u8]) {
    let Some(message) = read(bytes) else { return };
    let again = message.encode().and_then(|bytes| read(&bytes));
    assert_eq!(again.as_ref(), Some(&message));
    if let Message::Introduction(introduction) = message {
        let _ = introduction.plausible();
    }
}

fn read(bytes: &[u8]) -> Option<Message> {
    let envelope = Envelope::read(bytes).filter(|envelope| envelope.readable())?;
    Message::decode(envelope.kind, &bytes[ENVELOPE..]).ok().flatten()
}

/// Packed topology records: unpacked, merged, and packed again.
pub fn topology(bytes: &[u8]) {
    let Ok(records) = codec::decode::<Records, RECORDS_LIMIT>(bytes) else { return };
    let Some(entries) = records.unpack() else { return };
    let identity = Identity::from_secret([7; 32]);
    let mut topology = Topology::new(&introduction(&identity), *identity.public());
    for (name, entry) in entries {
        let _ = topology.merge(name, entry);
    }
    let stamps = topology.stamps();
    let names: Vec<_> = stamps.iter().map(|(name, _)| *name).collect();
    for packed in topology.pack(&names) {
        let bytes = codec::encode(&packed);
        let read = codec::decode::<Records, RECORDS_LIMIT>(&bytes).expect("what we packed is read");
        assert!(read.unpack().is_some(), "what we packed does not unpack");
    }
    let names = names.into_iter().collect();
    let _ = (topology.hash(), topology.newer_than(&stamps), topology.graph(&names, &names));
}

/// Broadcasts on a channel, one after the other, each with two bytes of length before it.
pub fn channel(bytes: &[u8]) {
    let mut seen = crate::channel::Seen::default();
    for part in parts(bytes) {
        let Ok(broadcast) = codec::decode::<Broadcast, RECORDS_LIMIT>(part) else { continue };
        let _ = seen.first_time(broadcast.origin);
        assert!(!seen.first_time(broadcast.origin), "one broadcast was new twice");
        let _ = broadcast.channel.to_string();
    }
}

/// A stranger's bytes at both ends of a session that has not begun.
pub fn session(bytes: &[u8]) {
    let Some((step, rest)) = bytes.split_first() else { return };
    for role in [Role::Initiator, Role::Responder] {
        let mut session = our_session(role, 1);
        for piece in rest.chunks(usize::from(*step).max(1)) {
            if session.handle_bytes(piece).is_err() {
                break;
            }
        }
        while session.poll_event().is_some() {}
        let _ = session.take_output();
    }
}

/// Somebody who knows the secret says whatever it likes: messages, each with two bytes of length before it.
pub fn insider(bytes: &[u8], start: Instant) {
    let mut visit = Visit::new(start);
    for part in parts(bytes) {
        match (read(part), part) {
            (Some(message), _) => visit.say(&message),
            (None, [wait, ..]) => visit.wait(Duration::from_millis(u64::from(*wait) * 20)),
            (None, []) => {}
        }
    }
    visit.wait(Duration::from_secs(40));
}

/// What a mesh says to whoever joins it, in its own bytes: the seeds of the corpora.
pub fn overheard(start: Instant) -> Vec<Vec<u8>> {
    let mut visit = Visit::new(start);
    let ipam = ChannelName::new("ipam");
    let (peer, now) = (Identity::from_secret([1; 32]).name(), visit.now);
    visit.mesh.tell(peer, b"told".to_vec(), now);
    visit.mesh.publish(ipam, Some(b"delta".to_vec()), b"state".to_vec(), now);
    visit.mesh.unicast(ipam, peer, b"letter".to_vec(), now);
    visit.mesh.set_idle([peer].into(), now);
    visit.wait(Duration::from_secs(1));
    visit.say(&Message::Digest(Vec::new()));
    visit.say(&Message::Want(vec![visit.mesh.name(), peer]));
    for _ in 0..60 {
        visit.wait(Duration::from_secs(1));
    }
    visit.heard.iter().filter_map(Message::encode).collect()
}

/// Cuts bytes into parts, each with its length before it; the last may be short.
pub fn parts(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut parts = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk() {
        let length = usize::from(u16::from_be_bytes(*length)).min(rest.len());
        let (part, after) = rest.split_at(length);
        parts.push(part);
        bytes = after;
    }
    parts
}

/// A session of ours with a mesh.
struct Visit {
    mesh: Mesh,
    session: Session,
    connection: Option<ConnectionId>,
    now: Instant,
    heard: Vec<Message>,
}

impl Visit {
    fn new(now: Instant) -> Self {
        let mut mesh = Mesh::new(config(), 9, now);
        let remote = SocketAddr::from(([10, 0, 0, 1], 40_000));
        let connection = mesh.accept(remote, None, now);
        let session = our_session(Role::Initiator, 1);
        let mut visit = Self { mesh, session, connection, now, heard: Vec::new() };
        visit.pump();
        visit
    }

    fn say(&mut self, message: &Message) {
        self.session.send(message);
        self.pump();
    }

    fn wait(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some(due) = self.mesh.poll_timeout().filter(|due| *due <= until) {
            self.now = self.now.max(due);
            self.mesh.handle_timeout(self.now);
            let next = self.mesh.poll_timeout();
            assert!(next.is_none_or(|next| next > self.now), "a timer does not advance");
            self.pump();
        }
        self.now = until;
    }

    /// Carries bytes both ways until both are silent.
    fn pump(&mut self) {
        loop {
            let mut idle = true;
            if let (Some(connection), Some(bytes)) = (self.connection, self.session.take_output()) {
                self.mesh.handle_input(Input::Received { connection, bytes }, self.now);
                idle = false;
            }
            while let Some(output) = self.mesh.poll_output() {
                idle = false;
                self.carry_out(output);
            }
            if idle {
                return;
            }
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "reports are for an application, and there is none")]
    fn carry_out(&mut self, output: Output) {
        match output {
            Output::Send { connection, bytes } => {
                let _ = self.session.handle_bytes(&bytes);
                while let Some(event) = self.session.poll_event() {
                    match event {
                        Event::Introduced(_) => {
                            let _ = self.session.accept();
                        }
                        Event::Message(message) => self.heard.push(message),
                        Event::Refused(_) | Event::Unreadable => {}
                    }
                }
                self.mesh.handle_input(Input::Writable { connection, queued: 0 }, self.now);
            }
            Output::Dial { connection, .. } => {
                let error = "nobody there".to_owned();
                self.mesh.handle_input(Input::DialFailed { connection, error }, self.now);
            }
            Output::Close { connection } if Some(connection) == self.connection => self.connection = None,
            _ => {}
        }
    }
}

fn introduction(identity: &Identity) -> Introduction {
    Introduction {
        name: identity.name(),
        incarnation: Incarnation(1),
        boot: BootId(3),
        nickname: "host".into(),
        site: "default".into(),
        listen_port: 6783,
        endpoints: vec![SocketAddr::from(([10, 0, 0, 1], 6783))],
        channels: vec![ChannelName::new("ipam")],
    }
}

fn our_session(role: Role, secret: u8) -> Session {
    let identity = Identity::from_secret([secret; 32]);
    let introduction = introduction(&identity);
    let credentials = Arc::new(Credentials { identity, psk: Psk::open(), hello: Hello::OURS });
    Session::new(role, credentials, introduction, [secret; 32])
}

fn config() -> MeshConfig {
    MeshConfig {
        identity: Identity::from_secret([2; 32]),
        incarnation: Incarnation(1),
        boot: BootId(4),
        nickname: "mesh".into(),
        site: "default".into(),
        psk: Psk::open(),
        endpoints: vec![SocketAddr::from(([10, 0, 0, 2], 6783))],
        listen_port: 6783,
        discovery: true,
        connection_limit: None,
        targets: Vec::new(),
        channels: [ChannelName::new("ipam")].into(),
    }
}
