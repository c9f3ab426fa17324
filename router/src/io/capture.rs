//! How frames leave the bridge and come back to it: one narrow trait, two ways.
//!
//! `vnet` (`vnet.rs`) moves frames of up to 64 KiB with their virtio header; `pcap` (`pcap.rs`) works everywhere, a
//! wire-sized frame at a time. Either can talk to the other: what a pcap host cannot inject as it is gets cut first.

use super::{pcap::PcapCapture, sys, vnet::VnetCapture};
use crate::switch::offload::VnetHeader;
use std::{fmt, io, os::fd::BorrowedFd, str::FromStr};

/// Takes one captured frame.
pub type Take<'a> = &'a mut dyn FnMut(&[u8], Option<VnetHeader>);

/// The open end of the sleeve port.
pub trait Capture: Send {
    /// Readable when frames wait.
    fn fd(&self) -> BorrowedFd<'_>;

    /// Reads what waits, at most a batch; returns how many frames that were.
    ///
    /// # Errors
    /// When the interface is gone; the capture is of no further use then.
    fn receive(&mut self, take: Take<'_>) -> io::Result<usize>;

    /// Sends a frame out of the interface, into the bridge.
    ///
    /// # Errors
    /// When the interface did not take it.
    fn inject(&mut self, frame: &[u8], vnet: Option<VnetHeader>) -> io::Result<()>;

    /// How many frames the kernel dropped since it was last asked.
    fn dropped(&mut self) -> u64;
}

/// What the user asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CaptureMode {
    /// The best that works here.
    #[default]
    Auto,
    /// libpcap.
    Pcap,
    /// Packet sockets with virtio headers.
    Vnet,
}

impl FromStr for CaptureMode {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        match word {
            "auto" => Ok(Self::Auto),
            "pcap" => Ok(Self::Pcap),
            "vnet" => Ok(Self::Vnet),
            other => Err(format!("`{other}` is not a capture mode: auto, pcap or vnet")),
        }
    }
}

/// What is used. With `pcap`, the bridge's end of the sleeve port must have its offloads off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CaptureKind {
    /// libpcap.
    Pcap,
    /// Packet sockets with virtio headers.
    Vnet,
}

impl fmt::Display for CaptureKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pcap => "pcap",
            Self::Vnet => "vnet",
        })
    }
}

impl CaptureMode {
    /// What this host can do of what was asked for; asks the kernel, and no interface.
    pub fn resolve(self) -> CaptureKind {
        match self {
            Self::Pcap => CaptureKind::Pcap,
            Self::Vnet => CaptureKind::Vnet,
            Self::Auto if VnetCapture::is_supported() => CaptureKind::Vnet,
            Self::Auto => CaptureKind::Pcap,
        }
    }
}

impl CaptureKind {
    /// Opens the capture on an interface that carries frames of up to `mtu` bytes of payload.
    ///
    /// # Errors
    /// `NotFound` when there is no such interface; else what the kernel or libpcap says.
    pub fn open(self, interface: &str, mtu: u16) -> io::Result<Box<dyn Capture>> {
        let index = nix::net::if_::if_nametoindex(interface).map_err(|_| missing(interface))?;
        match self {
            Self::Pcap => Ok(Box::new(PcapCapture::open(interface, mtu).map_err(explained)?)),
            Self::Vnet => Ok(Box::new(VnetCapture::open(index).map_err(explained)?)),
        }
    }
}

/// Names the capability that is missing. libpcap has only words for it.
fn explained(error: io::Error) -> io::Error {
    let denied = io::ErrorKind::PermissionDenied;
    if error.kind() == denied || error.to_string().contains("Operation not permitted") {
        return io::Error::new(denied, format!("{error} (CAP_NET_RAW is needed)"));
    }
    error
}

/// The error for an interface that is not there.
fn missing(interface: &str) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("there is no interface {interface}"))
}

/// Both captures must not see what they inject; a kernel that cannot do that cannot be used (Linux before 4.20).
pub(super) fn ignore_own(socket: BorrowedFd<'_>) -> io::Result<()> {
    sys::enable(socket, sys::PacketOption::IgnoreOutgoing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_permission_is_named_whoever_says_it() {
        let words = io::Error::other("libpcap error: socket: Operation not permitted");
        for error in [words, io::Error::from_raw_os_error(libc::EPERM)] {
            assert!(explained(error).to_string().ends_with("(CAP_NET_RAW is needed)"));
        }
        assert_eq!(explained(io::Error::other("no buffers")).to_string(), "no buffers");
    }
}
