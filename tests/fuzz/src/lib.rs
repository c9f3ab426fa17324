//! The bodies of the fuzz targets: any bytes in, and a panic only where something of ours is broken.
//!
//! libFuzzer (nightly, this workspace) and the replay of the corpora (stable, `tests/tests/fuzz_replay.rs`) drive the
//! same functions. Where a target takes several messages, each has two bytes of length before it.

mod allocator;
mod decoders;
mod frames;
mod node;

use std::sync::OnceLock;
use std::time::Instant;

use weft_gossip::fuzz as gossip;

/// One target: its name, its body, and what its corpus grows from.
pub type Target = (&'static str, fn(&[u8]), fn() -> Vec<Vec<u8>>);

/// Every target.
pub const TARGETS: &[Target] = &[
    ("hello", gossip::hello, decoders::hellos),
    ("message", gossip::message, overheard),
    ("topology", gossip::topology, decoders::records),
    ("channel", gossip::channel, decoders::broadcasts),
    ("session", gossip::session, decoders::strangers),
    ("insider", |bytes| gossip::insider(bytes, start()), decoders::conversations),
    ("ipam_wire", decoders::ipam_wire, allocator::messages),
    ("allocator", allocator::drive, allocator::conversations),
    ("told", decoders::told, decoders::tellings),
    ("sleeve", frames::sleeve, frames::datagrams),
    ("dataplane", frames::dataplane, frames::traffic),
    ("request", decoders::request, decoders::requests),
    ("state", decoders::state, decoders::states),
    ("store", decoders::store, decoders::stores),
    ("node", node::drive, node::lives),
];

/// Runs one target.
///
/// # Panics
/// If there is no such target, or something is broken.
pub fn run(name: &str, bytes: &[u8]) {
    let target = TARGETS.iter().find(|(target, ..)| *target == name);
    target.expect("a target of this name").1(bytes);
}

/// What a mesh says to whoever joins it.
fn overheard() -> Vec<Vec<u8>> {
    gossip::overheard(start())
}

/// Virtual time starts somewhere.
#[expect(clippy::disallowed_methods, reason = "an origin for virtual time: only differences count")]
fn start() -> Instant {
    static START: OnceLock<Instant> = OnceLock::new();
    *START.get_or_init(Instant::now)
}

/// Puts a length before each part, as `weft_gossip::fuzz::parts` reads it.
fn join<T: AsRef<[u8]>>(parts: impl IntoIterator<Item = T>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for part in parts {
        let part = part.as_ref();
        bytes.extend(u16::try_from(part.len()).unwrap_or(u16::MAX).to_be_bytes());
        bytes.extend(part);
    }
    bytes
}
