//! The sleeve's UDP sockets: batches out by `UDP_SEGMENT`, batches in by `UDP_GRO`, never fragmented by the kernel.
//!
//! Two sockets when every address is listened on (one per family), else one. A datagram that cannot be sent is
//! dropped and counted, whatever the reason: who needs it repeats it.

use crate::dataplane::ShellCounters;
use nix::sys::socket::{setsockopt, sockopt};
use quinn_udp::{RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use std::{
    io::{self, IoSliceMut},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    os::fd::{AsFd, BorrowedFd},
};

const RECEIVE_BUFFER: usize = 16 << 20;
const SEND_BUFFER: usize = 4 << 20;
/// Datagrams, or runs of datagrams joined by GRO, of one receive call.
const RUNS: usize = 8;
const RUN: usize = 65_536;

/// One socket of one address family.
pub struct Socket {
    socket: UdpSocket,
    state: UdpSocketState,
    ipv4: bool,
}

/// All sockets of the sleeve.
pub struct Sockets {
    sockets: Vec<Socket>,
    buffers: Vec<Box<[u8]>>,
}

/// What became of a send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// It left, or was dropped and counted.
    Done,
    /// The interface does not take datagrams of this size.
    TooLarge,
}

impl Sockets {
    /// Binds to the address, or to both families' unspecified addresses when it is unspecified.
    ///
    /// # Errors
    /// What the kernel says, `AddrInUse` above all. That there is no IPv6 is no error.
    pub fn bind(listen: SocketAddr) -> io::Result<Self> {
        let mut sockets = Vec::new();
        if listen.ip().is_unspecified() {
            let four = Socket::bind(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), listen.port()))?;
            let port = four.socket.local_addr()?.port();
            sockets.push(four);
            match Socket::bind(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port)) {
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Err(error),
                six => sockets.extend(six.ok()),
            }
        } else {
            sockets.push(Socket::bind(listen)?);
        }
        Ok(Self { sockets, buffers: (0..RUNS).map(|_| vec![0; RUN].into()).collect() })
    }

    /// The port that is listened on.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn port(&self) -> io::Result<u16> {
        self.sockets.first().map_or(Ok(0), |socket| socket.socket.local_addr().map(|address| address.port()))
    }

    /// The descriptors to wait on.
    pub fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.sockets.iter().map(|socket| socket.socket.as_fd())
    }

    /// Reads what waits on every socket, at most one call each; true if there may be more.
    pub fn receive(
        &mut self,
        take: &mut dyn FnMut(SocketAddr, &mut [u8]),
        counters: &mut ShellCounters,
    ) -> bool {
        let mut more = false;
        for socket in &self.sockets {
            match socket.receive(&mut self.buffers, take) {
                Ok(runs) => more |= runs == RUNS,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => counters.receive_failed += 1,
            }
        }
        more
    }

    /// Sends datagrams of `segment` bytes each.
    pub fn send(&self, to: SocketAddr, segment: usize, bytes: &[u8], counters: &mut ShellCounters) -> Sent {
        // Port 0 would be answered by EINVAL, which quinn-udp takes for a lack of segmentation.
        let family = |socket: &&Socket| socket.ipv4 == to.is_ipv4() && to.port() != 0;
        let Some(socket) = self.sockets.iter().find(family) else {
            counters.send_failed += 1;
            return Sent::Done;
        };
        let at_once = socket.state.max_gso_segments().max(1) * segment.max(1);
        let mut sent = Sent::Done;
        for run in bytes.chunks(at_once) {
            match socket.send(to, segment, run) {
                Ok(()) => {}
                // The interface cannot segment after all: quinn-udp has noted it, so try one at a time.
                Err(_) if run.len() > segment && socket.state.max_gso_segments() == 1 => {
                    for datagram in run.chunks(segment) {
                        sent = sent.max(settle(socket.send(to, segment, datagram), counters));
                    }
                }
                failed @ Err(_) => sent = sent.max(settle(failed, counters)),
            }
        }
        sent
    }
}

impl Sent {
    fn max(self, other: Self) -> Self {
        if other == Self::TooLarge { other } else { self }
    }
}

fn settle(result: io::Result<()>, counters: &mut ShellCounters) -> Sent {
    let Err(error) = result else { return Sent::Done };
    match error.raw_os_error() {
        Some(libc::EMSGSIZE) => {
            counters.send_too_large += 1;
            return Sent::TooLarge;
        }
        Some(libc::ENOBUFS | libc::EAGAIN) => counters.send_full += 1,
        _ => counters.send_failed += 1,
    }
    Sent::Done
}

impl Socket {
    fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = match address.ip() {
            IpAddr::V4(_) => UdpSocket::bind(address)?,
            IpAddr::V6(_) => bind_ipv6_only(address)?,
        };
        if setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err() {
            setsockopt(&socket, sockopt::RcvBuf, &RECEIVE_BUFFER)?;
        }
        if setsockopt(&socket, sockopt::SndBufForce, &SEND_BUFFER).is_err() {
            setsockopt(&socket, sockopt::SndBuf, &SEND_BUFFER)?;
        }
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        Ok(Self { socket, state, ipv4: address.is_ipv4() })
    }

    fn send(&self, to: SocketAddr, segment: usize, bytes: &[u8]) -> io::Result<()> {
        let segment_size = (bytes.len() > segment).then_some(segment);
        let transmit = Transmit { destination: to, ecn: None, contents: bytes, segment_size, src_ip: None };
        self.state.try_send(UdpSockRef::from(&self.socket), &transmit)
    }

    fn receive(
        &self,
        buffers: &mut [Box<[u8]>],
        take: &mut dyn FnMut(SocketAddr, &mut [u8]),
    ) -> io::Result<usize> {
        let mut metas = [RecvMeta::default(); RUNS];
        let mut rest = buffers.iter_mut();
        let mut slices: [IoSliceMut<'_>; RUNS] =
            std::array::from_fn(|_| IoSliceMut::new(rest.next().map_or(&mut [], |buffer| buffer)));
        let runs = self.state.recv(UdpSockRef::from(&self.socket), &mut slices, &mut metas)?;
        for (meta, buffer) in metas[..runs].iter().zip(buffers) {
            if meta.len == 0 {
                // An empty datagram is one too: whoever refuses it counts it.
                take(meta.addr, &mut []);
            }
            for datagram in buffer[..meta.len].chunks_mut(meta.stride.max(1)) {
                take(meta.addr, datagram);
            }
        }
        Ok(runs)
    }
}

/// Beside the IPv4 socket on the same port there is only room for one that leaves IPv4 alone.
fn bind_ipv6_only(address: SocketAddr) -> io::Result<UdpSocket> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, bind, socket};
    let fd = socket(AddressFamily::Inet6, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&fd, sockopt::Ipv6V6Only, &true)?;
    bind(std::os::fd::AsRawFd::as_raw_fd(&fd), &SockaddrStorage::from(address))?;
    Ok(fd.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_datagram_is_taken_like_any_other() {
        let mut sockets = Sockets::bind(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0)).unwrap();
        let sender = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let to = (Ipv4Addr::LOCALHOST, sockets.port().unwrap());
        for payload in [&b"first"[..], b"", b"last"] {
            sender.send_to(payload, to).unwrap();
        }
        let (mut taken, mut counters) = (Vec::new(), ShellCounters::default());
        while sockets.receive(&mut |_, bytes| taken.push(bytes.to_vec()), &mut counters) {}
        assert_eq!(taken, [&b"first"[..], b"", b"last"]);
        assert_eq!(counters.receive_failed, 0);
    }
}
