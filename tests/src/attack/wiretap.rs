//! Real datagrams, read off the wire as they pass, and sent again by somebody who never had the keys.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, recv, sendto, socket,
};

use crate::netns::Netns;
use crate::sniff;
use crate::traffic::Background;

/// Bytes of an IPv4 header without options, and of a UDP header.
const IPV4: usize = 20;
const UDP: usize = 8;

/// One UDP datagram as it was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Datagram {
    /// Who sent it.
    pub from: SocketAddrV4,
    /// Who is to get it.
    pub to: SocketAddrV4,
    /// What it holds.
    pub payload: Vec<u8>,
}

/// Writes down datagrams to one UDP port until finished.
#[derive(Debug)]
pub struct Wiretap(Background<Vec<Datagram>>);

impl Wiretap {
    /// Starts to listen; at most `most` datagrams are kept.
    ///
    /// # Errors
    /// When a packet socket cannot be opened.
    pub fn start(netns: &Netns, port: u16, most: usize) -> Result<Self> {
        let socket = netns.run(sniff::open)?;
        let listen = move |stop: &AtomicBool| -> Result<Vec<Datagram>> {
            let (mut kept, mut buffer) = (Vec::new(), vec![0; 70_000]);
            while !stop.load(Ordering::Relaxed) && kept.len() < most {
                match recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                    Ok(length) => {
                        kept.extend(read(&buffer[..length]).filter(|datagram| datagram.to.port() == port));
                    }
                    Err(Errno::EAGAIN | Errno::EINTR | Errno::ENETDOWN) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            Ok(kept)
        };
        Ok(Self(Background::start(|stop| std::thread::spawn(move || listen(&stop)))))
    }

    /// Stops and returns what was heard; a datagram that passed a bridge stands there twice.
    ///
    /// # Errors
    /// When the socket failed.
    pub fn finish(self) -> Result<Vec<Datagram>> {
        self.0.finish()
    }
}

/// The unfragmented IPv4 UDP datagram in an Ethernet frame.
fn read(frame: &[u8]) -> Option<Datagram> {
    let ip = frame.get(14..).filter(|_| frame[12..14] == [0x08, 0x00])?;
    let whole = u16::from_be_bytes([*ip.get(6)?, *ip.get(7)?]) & 0x3fff == 0;
    let address = |at: usize| Some(Ipv4Addr::from(<[u8; 4]>::try_from(ip.get(at..at + 4)?).ok()?));
    let udp = ip.get(usize::from(ip.first()? & 0x0f) * 4..)?;
    let number = |at: usize| Some(u16::from_be_bytes([*udp.get(at)?, *udp.get(at + 1)?]));
    let payload = udp.get(UDP..usize::from(number(4)?))?;
    (whole && *ip.get(9)? == 17).then_some(Datagram {
        from: SocketAddrV4::new(address(12)?, number(0)?),
        to: SocketAddrV4::new(address(16)?, number(2)?),
        payload: payload.to_vec(),
    })
}

/// Sends datagrams from a namespace with the sources they claim, which need not be its own.
///
/// # Errors
/// When a raw socket cannot be opened or the kernel refuses one.
pub fn forge(from: &Netns, datagrams: &[Datagram]) -> Result<()> {
    from.run(|| {
        let raw = socket(AddressFamily::Inet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Raw)?;
        for datagram in datagrams {
            let packet = packet(datagram)?;
            let to = SockaddrIn::from(SocketAddrV4::new(*datagram.to.ip(), 0));
            sendto(raw.as_raw_fd(), &packet, &to, MsgFlags::empty()).context("cannot forge")?;
        }
        Ok(())
    })
}

/// The IP packet; the kernel fills in its length and checksum, and UDP may do without one (RFC 768).
fn packet(datagram: &Datagram) -> Result<Vec<u8>> {
    let length = u16::try_from(UDP + datagram.payload.len()).context("too long for UDP")?;
    let mut packet = vec![0; IPV4];
    (packet[0], packet[8], packet[9]) = (0x45, 64, 17);
    packet[12..16].copy_from_slice(&datagram.from.ip().octets());
    packet[16..20].copy_from_slice(&datagram.to.ip().octets());
    for word in [datagram.from.port(), datagram.to.port(), length, 0] {
        packet.extend(word.to_be_bytes());
    }
    packet.extend(&datagram.payload);
    Ok(packet)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_forged_reads_as_it_was_meant() {
        let datagram = Datagram {
            from: "10.0.0.1:6783".parse().unwrap(),
            to: "10.0.0.2:6784".parse().unwrap(),
            payload: b"sealed".to_vec(),
        };
        let packet = packet(&datagram).unwrap();
        let frame = [&[0; 12][..], &[0x08, 0x00], &packet].concat();
        assert_eq!(read(&frame), Some(datagram));
        assert_eq!(read(&frame[..frame.len() - 1]), None, "cut");
        assert_eq!(read(b""), None);
    }
}
