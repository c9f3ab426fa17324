//! Capture by a packet socket with virtio-net headers: a read or write moves up to 64 KiB.
//!
//! The containers keep their offloads: what leaves the bridge is what their TCP handed down, whole, and the other
//! host's kernel finishes it. The socket is bound only after its options are set, so nothing is ever read without
//! the header, and none of our own injections.

use super::{
    capture::{Capture, Take, ignore_own},
    sys::{self, PacketOption},
};
use crate::{
    sleeve::piece::MAX_FRAME,
    switch::offload::{NEEDS_CHECKSUM, VNET_HEADER, VnetHeader},
};
use nix::sys::{
    socket::{setsockopt, sockopt},
    uio::writev,
};
use std::{
    io::{self, IoSlice},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

const RECEIVE_BUFFER: usize = 16 << 20;
const BATCH: usize = 64;
const VLAN_AT: usize = 12;
const VLAN_TAG: usize = 4;

/// A packet socket on one interface.
pub struct VnetCapture {
    socket: OwnedFd,
    buffer: Box<[u8]>,
    truncated: u64,
}

impl VnetCapture {
    /// Whether this kernel (and these privileges) allow it.
    pub fn is_supported() -> bool {
        socket().is_ok()
    }

    /// Opens the interface with this index.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn open(index: u32) -> io::Result<Self> {
        let socket = socket()?;
        if setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err() {
            setsockopt(&socket, sockopt::RcvBuf, &RECEIVE_BUFFER)?;
        }
        sys::bind_to_interface(&socket, index)?;
        let buffer = vec![0; VNET_HEADER + MAX_FRAME + VLAN_TAG].into();
        Ok(Self { socket, buffer, truncated: 0 })
    }

    /// Reads one frame; `None` when it did not fit.
    fn read(&mut self) -> io::Result<Option<(usize, VnetHeader)>> {
        let room = self.buffer.len() - VLAN_TAG;
        let read = sys::receive(&self.socket, &mut self.buffer[..room])?;
        let Some(header) = self.buffer[..read.length].first_chunk().filter(|_| !read.truncated) else {
            self.truncated += 1;
            return Ok(None);
        };
        let mut vnet = VnetHeader::from_kernel(*header);
        let mut end = read.length;
        if let Some((protocol, tag)) = read.vlan.filter(|_| end >= VNET_HEADER + VLAN_AT) {
            let at = VNET_HEADER + VLAN_AT;
            self.buffer.copy_within(at..end, at + VLAN_TAG);
            self.buffer[at..at + 2].copy_from_slice(&protocol.to_be_bytes());
            self.buffer[at + 2..at + 4].copy_from_slice(&tag.to_be_bytes());
            end += VLAN_TAG;
            if vnet.flags & NEEDS_CHECKSUM != 0 {
                vnet.checksum_start += 4;
            }
            if vnet.segmentation != 0 {
                vnet.header_length += 4;
            }
        }
        Ok(Some((end, vnet)))
    }
}

fn socket() -> io::Result<OwnedFd> {
    let socket = sys::packet_socket()?;
    ignore_own(socket.as_fd())?;
    sys::enable(&socket, PacketOption::VnetHeader)?;
    sys::enable(&socket, PacketOption::AuxiliaryData)?;
    Ok(socket)
}

impl Capture for VnetCapture {
    fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    fn receive(&mut self, take: Take<'_>) -> io::Result<usize> {
        for taken in 0..BATCH {
            match self.read() {
                Ok(Some((end, vnet))) => take(&self.buffer[VNET_HEADER..end], Some(vnet)),
                Ok(None) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(taken),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(BATCH)
    }

    fn inject(&mut self, frame: &[u8], vnet: Option<VnetHeader>) -> io::Result<()> {
        let header = vnet.unwrap_or_default().to_kernel();
        writev(&self.socket, &[IoSlice::new(&header), IoSlice::new(frame)])?;
        Ok(())
    }

    fn dropped(&mut self) -> u64 {
        sys::dropped(&self.socket).unwrap_or_default() + std::mem::take(&mut self.truncated)
    }
}
