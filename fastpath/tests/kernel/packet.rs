//! A raw look at the frames of one interface, and what is in them.

use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, bind, recvfrom, send, setsockopt,
    socket, sockopt,
};
use nix::sys::time::TimeVal;

use crate::world::Namespace;

/// `PACKET_OUTGOING`: what we sent ourselves.
const OUTGOING: u8 = 4;

/// A packet socket on one interface.
pub(crate) struct Tap {
    socket: OwnedFd,
    buffer: Vec<u8>,
}

impl Tap {
    /// Opens one in a namespace; a read waits at most `patience`.
    pub(crate) fn open(namespace: &Namespace, interface: &str, patience: Duration) -> Self {
        namespace.run(|| {
            let all = SockProtocol::EthAll;
            let socket =
                socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, all).expect("packet");
            let address: LinkAddr = getifaddrs()
                .expect("interfaces")
                .filter(|found| found.interface_name == interface)
                .find_map(|found| found.address?.as_link_addr().copied())
                .unwrap_or_else(|| panic!("{interface} does not stand"));
            bind(socket.as_raw_fd(), &address).expect("bind");
            let patience =
                TimeVal::new(patience.as_secs().try_into().expect("short"), patience.subsec_micros().into());
            setsockopt(&socket, sockopt::ReceiveTimeout, &patience).expect("timeout");
            Self { socket, buffer: vec![0; 1 << 17] }
        })
    }

    /// The next frame that came in; None when none came in time.
    pub(crate) fn next(&mut self) -> Option<&[u8]> {
        loop {
            let (length, from) = match recvfrom::<LinkAddr>(self.socket.as_raw_fd(), &mut self.buffer) {
                Ok(read) => read,
                Err(Errno::EAGAIN | Errno::EINTR) => return None,
                Err(errno) => panic!("packet socket: {errno}"),
            };
            if from.is_none_or(|from| from.pkttype() != OUTGOING) {
                return Some(&self.buffer[..length]);
            }
        }
    }

    pub(crate) fn send(&self, frame: &[u8]) -> nix::Result<usize> {
        send(self.socket.as_raw_fd(), frame, MsgFlags::empty())
    }
}

/// Sender and target address of an ARP packet about IPv4, with its sender's MAC.
pub(crate) struct Arp {
    pub(crate) sender_mac: [u8; 6],
    pub(crate) sender: [u8; 4],
    pub(crate) target: [u8; 4],
    pub(crate) reply: bool,
}

pub(crate) fn arp(frame: &[u8]) -> Option<Arp> {
    let body = frame.strip_prefix(frame.get(..12)?)?.strip_prefix(&[0x08, 0x06, 0, 1, 8, 0, 6, 4, 0])?;
    Some(Arp {
        reply: *body.first()? == 2,
        sender_mac: body.get(1..7)?.try_into().ok()?,
        sender: body.get(7..11)?.try_into().ok()?,
        target: body.get(17..21)?.try_into().ok()?,
    })
}

/// An ARP request frame.
pub(crate) fn arp_request(from_mac: [u8; 6], from: [u8; 4], target: [u8; 4]) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend(from_mac);
    frame.extend([0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend(from_mac);
    frame.extend(from);
    frame.extend([0; 6]);
    frame.extend(target);
    frame
}

/// Whether the TCP checksum of an IPv4 frame is right; None when it is not TCP over IPv4.
pub(crate) fn tcp_checksum_is_right(frame: &[u8]) -> Option<bool> {
    let packet = frame.get(14..)?;
    if frame.get(12..14)? != [8, 0] || *packet.get(9)? != 6 {
        return None;
    }
    let header = usize::from(packet[0] & 15) * 4;
    let total = usize::from(u16::from_be_bytes([packet[2], packet[3]]));
    let segment = packet.get(header..total)?;
    let length = u32::try_from(segment.len()).ok()?;
    let words = |bytes: &[u8]| -> u32 {
        bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0))).sum()
    };
    let mut sum = words(packet.get(12..20)?) + 6 + length + words(segment);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    Some(sum == 0xffff)
}
