//! Frames that prove that VXLAN works, on the very path of the containers' frames.
//!
//! They are sent out of the bridge to the address of the peer's VXLAN device, which both tables know (see
//! `vxlan`), and are received on the bridge: a socket on the VXLAN device would see nothing, because the bridge takes
//! the frame first. They come from the address of our own VXLAN device, never from the bridge's: else a probe would
//! make the peer believe that this host itself is reached by the carrier that is only being tried.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socket};
use tokio::io::unix::AsyncFd;

use super::Fastpath;
use super::sys;
use crate::error::Error;
use crate::mac::MacAddr;
use crate::names::BridgeName;
use crate::vxlan::{PROBE_ETHERTYPE, Underlay};

/// Both addresses and the type.
const HEADER: usize = 14;
/// More than any frame.
const BUFFER: usize = 1 << 16;

/// Sends and receives probes. It is done with when its bridge is gone; then open another.
pub struct ProbeSocket {
    socket: AsyncFd<OwnedFd>,
    own: MacAddr,
    buffer: Vec<u8>,
}

/// A probe that has arrived. Anybody on the network can send one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// The address of the VXLAN device it says it is from.
    pub from: MacAddr,
    /// What it carries.
    pub payload: Vec<u8>,
}

impl Fastpath {
    /// Opens a socket for probes in the namespace of the calling thread, on the running tokio runtime. The bridge
    /// and the VXLAN device must stand: converge first.
    ///
    /// # Errors
    /// Refused when one of them does not stand; otherwise what the kernel said.
    pub fn probe_socket(bridge: &BridgeName) -> Result<ProbeSocket, Error> {
        let device = bridge.vxlan(Underlay::V4);
        let (index, _) = interface(bridge.as_str())?;
        let (_, own) = interface(&device)?;
        let failed = |error: io::Error| Error::kernel("socket for probes", "open", &error);
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Packet, SockType::Raw, flags, None).map_err(|errno| {
            let error = failed(errno.into());
            if errno == Errno::EPERM { error.because("not permitted (CAP_NET_RAW is needed)") } else { error }
        })?;
        sys::bind_packet(socket.as_fd(), index, PROBE_ETHERTYPE).map_err(failed)?;
        Ok(ProbeSocket { socket: sys::watch(socket).map_err(failed)?, own, buffer: vec![0; BUFFER] })
    }
}

/// Index and address of an interface.
fn interface(name: &str) -> Result<(u32, MacAddr), Error> {
    let failed = |errno: nix::Error| Error::kernel("interfaces", "list", &errno.into());
    let link = getifaddrs()
        .map_err(failed)?
        .filter(|found| found.interface_name == name)
        .find_map(|found| found.address?.as_link_addr().copied());
    let found = link.and_then(|link| Some((u32::try_from(link.ifindex()).ok()?, link.addr()?)));
    match found {
        Some((index, octets)) => Ok((index, MacAddr::new(octets))),
        None => Err(Error::refused(format!("interface {name}"), "it does not stand (yet)")),
    }
}

impl ProbeSocket {
    /// Sends a probe to the VXLAN device with this address, without waiting.
    ///
    /// # Errors
    /// What the kernel said; a payload longer than the bridge's MTU is too long.
    pub fn send(&self, to: MacAddr, payload: &[u8]) -> Result<(), Error> {
        let mut frame = Vec::with_capacity(HEADER + payload.len());
        frame.extend(to.octets());
        frame.extend(self.own.octets());
        frame.extend(PROBE_ETHERTYPE.to_be_bytes());
        frame.extend(payload);
        match send(self.socket.as_raw_fd(), &frame, MsgFlags::MSG_DONTWAIT) {
            Ok(_) => Ok(()),
            Err(errno) => Err(Error::kernel(format!("probe to {to}"), "send", &errno.into())),
        }
    }

    /// The next probe for our VXLAN device. May be dropped and called again.
    ///
    /// # Errors
    /// When the bridge went down or is gone.
    pub async fn recv(&mut self) -> Result<Probe, Error> {
        let failed = |error: io::Error| Error::kernel("probe", "receive", &error);
        loop {
            let mut ready = self.socket.readable().await.map_err(failed)?;
            let buffer = &mut self.buffer;
            let read = ready.try_io(|socket| {
                recv(socket.as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT).map_err(io::Error::from)
            });
            let Ok(length) = read else { continue };
            let length = length.map_err(failed)?;
            if let Some(probe) = self.buffer.get(..length).and_then(|frame| self.read(frame)) {
                return Ok(probe);
            }
        }
    }

    fn read(&self, frame: &[u8]) -> Option<Probe> {
        let (to, rest) = frame.split_at_checked(6)?;
        let (from, rest) = rest.split_at_checked(6)?;
        let for_us = MacAddr::from_slice(to)? == self.own;
        for_us.then_some(Probe { from: MacAddr::from_slice(from)?, payload: rest.get(2..)?.to_vec() })
    }
}
