//! Capture by libpcap: one wire-sized frame at a time.
//!
//! Immediate mode, or every frame waits for a timeout. The ring has one slot of snaplen bytes per frame, so snaplen
//! follows the MTU: 4 MiB hold 2,500 frames of 1,500 bytes (with snaplen 65,535 they would hold 64). The ring counts
//! in this process's memory. libpcap's inbound filter does not keep our own injections out; the socket option does.

use super::capture::{Capture, Take, ignore_own};
use crate::switch::{offload::VnetHeader, segment};
use pcap::{Active, Direction};
use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
};

const RING: i32 = 4 << 20;
const BATCH: usize = 64;
/// Ethernet header, two VLAN tags, and some air.
const AROUND: i32 = 32;

/// An open libpcap handle; it captures and injects.
pub struct PcapCapture {
    handle: pcap::Capture<Active>,
    scratch: Vec<u8>,
    reported: u32,
    truncated: u64,
}

impl PcapCapture {
    /// Opens the interface; takes about 12 ms.
    ///
    /// # Errors
    /// What libpcap says.
    pub fn open(interface: &str, mtu: u16) -> io::Result<Self> {
        let handle = pcap::Capture::from_device(interface)
            .map_err(failed)?
            .immediate_mode(true)
            .snaplen(i32::from(mtu) + AROUND)
            .buffer_size(RING)
            .open()
            .and_then(pcap::Capture::setnonblock)
            .map_err(failed)?;
        handle.direction(Direction::In).map_err(failed)?;
        ignore_own(handle.as_fd())?;
        Ok(Self { handle, scratch: Vec::new(), reported: 0, truncated: 0 })
    }
}

impl Capture for PcapCapture {
    fn fd(&self) -> BorrowedFd<'_> {
        self.handle.as_fd()
    }

    fn receive(&mut self, take: Take<'_>) -> io::Result<usize> {
        let truncated = &mut self.truncated;
        let taken = self.handle.dispatch(Some(BATCH), |packet| {
            // Longer than the MTU: somebody switched the offloads of the port on again.
            if packet.header.caplen < packet.header.len {
                *truncated += 1;
            } else {
                take(packet.data, None);
            }
        });
        taken.map_err(failed)
    }

    fn inject(&mut self, frame: &[u8], vnet: Option<VnetHeader>) -> io::Result<()> {
        let Some(vnet) = vnet else { return self.handle.sendpacket(frame).map_err(failed) };
        let (handle, mut sent) = (&mut self.handle, Ok(()));
        let finished = segment::finish(frame, &vnet, &mut self.scratch, &mut |segment| {
            if sent.is_ok() {
                sent = handle.sendpacket(segment).map_err(failed);
            }
        });
        finished.map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
        sent
    }

    fn dropped(&mut self) -> u64 {
        let total = self.handle.stats().map_or(self.reported, |stats| stats.dropped);
        let new = total.wrapping_sub(std::mem::replace(&mut self.reported, total));
        u64::from(new) + std::mem::take(&mut self.truncated)
    }
}

fn failed(error: pcap::Error) -> io::Error {
    match error {
        pcap::Error::ErrnoError(errno) => io::Error::from_raw_os_error(errno.0),
        pcap::Error::TimeoutExpired => io::Error::from(io::ErrorKind::WouldBlock),
        other @ (pcap::Error::MalformedError(_)
        | pcap::Error::InvalidString
        | pcap::Error::PcapError(_)
        | pcap::Error::InvalidLinktype
        | pcap::Error::NoMorePackets
        | pcap::Error::NonNonBlock
        | pcap::Error::InsufficientMemory
        | pcap::Error::InvalidInputString
        | pcap::Error::IoError(_)
        | pcap::Error::BufferOverflow
        | pcap::Error::InvalidRawFd) => io::Error::other(other),
    }
}
