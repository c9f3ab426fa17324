//! Listening on the wire: every frame that passes through a namespace, looked at for something that should not be there.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

use crate::deadline::now;
use crate::frames;
use crate::netns::Netns;
use crate::traffic::Background;

/// How long to go on after the end for what is still queued, on a wire that is never quiet.
const DRAIN: Duration = Duration::from_secs(2);

/// Reads every frame on every interface of a namespace until finished. A frame that passes a bridge is seen at both
/// of its ports.
#[derive(Debug)]
pub struct Sniffer(Background<Seen>);

/// What has passed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// Frames seen.
    pub frames: u64,
    /// Frames that held the marker in clear.
    pub marked: u64,
    /// Frames per UDP destination port (IPv4, first fragments).
    pub udp: BTreeMap<u16, u64>,
    /// Ethernet source addresses.
    pub sources: BTreeSet<[u8; 6]>,
    /// Frames made by hand ([`crate::frames::frame`]), by their payload.
    pub handmade: BTreeMap<Vec<u8>, u64>,
}

impl Sniffer {
    /// Starts to listen for `marker`.
    ///
    /// # Errors
    /// When a packet socket cannot be opened.
    pub fn start(netns: &Netns, marker: &[u8]) -> Result<Self> {
        let socket = netns.run(open)?;
        let marker = marker.to_vec();
        Ok(Self(Background::start(|stop| std::thread::spawn(move || listen(&socket, &marker, &stop)))))
    }

    /// Stops and tells what has passed.
    ///
    /// # Errors
    /// When the socket failed.
    pub fn finish(self) -> Result<Seen> {
        self.0.finish()
    }
}

/// A packet socket that is bound to no interface hears all of them.
pub(crate) fn open() -> Result<OwnedFd> {
    const BUFFER: usize = 16 << 20;
    let all = SockProtocol::EthAll;
    let fd = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, all)
        .context("no packet socket")?;
    setsockopt(&fd, sockopt::ReceiveTimeout, &TimeVal::milliseconds(50))?;
    // In a user namespace the limit cannot be passed; then the usual buffer must do.
    let _ = setsockopt(&fd, sockopt::RcvBufForce, &BUFFER);
    Ok(fd)
}

fn listen(socket: &OwnedFd, marker: &[u8], stop: &AtomicBool) -> Result<Seen> {
    let mut seen = Seen::default();
    let mut buffer = vec![0; 70_000];
    let mut end = None;
    loop {
        if stop.load(Ordering::Relaxed) && *end.get_or_insert_with(|| now() + DRAIN) <= now() {
            return Ok(seen);
        }
        match recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
            Ok(length) => seen.look(&buffer[..length], marker),
            // Whatever was queued before the end has been read by now.
            Err(Errno::EAGAIN) if end.is_some() => return Ok(seen),
            Err(Errno::EAGAIN | Errno::EINTR | Errno::ENETDOWN) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

impl Seen {
    fn look(&mut self, frame: &[u8], marker: &[u8]) {
        self.frames += 1;
        if !marker.is_empty() && frame.windows(marker.len()).any(|window| window == marker) {
            self.marked += 1;
        }
        if let Some(source) = frame.get(6..12).and_then(|bytes| bytes.try_into().ok()) {
            self.sources.insert(source);
        }
        if let Some(payload) = frames::payload(frame) {
            *self.handmade.entry(payload.to_vec()).or_insert(0) += 1;
        }
        if let Some(port) = udp_destination(frame) {
            *self.udp.entry(port).or_insert(0) += 1;
        }
    }
}

/// The destination port of an IPv4 UDP frame that begins a datagram.
fn udp_destination(frame: &[u8]) -> Option<u16> {
    let ip = frame.get(14..)?;
    let is_udp = frame.get(12..14)? == [0x08, 0x00] && *ip.get(9)? == 17;
    let offset = u16::from_be_bytes([*ip.get(6)?, *ip.get(7)?]) & 0x1fff;
    let header = usize::from(ip.first()? & 0x0f) * 4;
    let port = ip.get(header + 2..header + 4)?;
    (is_udp && offset == 0).then(|| u16::from_be_bytes([port[0], port[1]]))
}
