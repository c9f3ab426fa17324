//! Frames made by hand, for what no honest socket would send.

use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;

use anyhow::{Context, Result};
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, bind, send, socket,
};

use crate::netns::Netns;

/// Everybody on an Ethernet.
pub const BROADCAST: [u8; 6] = [0xff; 6];
/// An ethertype for experiments (IEEE 802): no host does anything with it.
const EXPERIMENTAL: [u8; 2] = [0x88, 0xb5];
/// The least an Ethernet frame holds, bytes.
const LEAST: usize = 60;

/// A frame that means nothing to anybody but holds `payload`.
pub fn frame(to: [u8; 6], from: [u8; 6], payload: &[u8]) -> Vec<u8> {
    let mut frame = [&to[..], &from, &EXPERIMENTAL, payload].concat();
    frame.resize(frame.len().max(LEAST), 0);
    frame
}

/// The payload of a frame made by [`frame`], which must not end in zeros: those are padding.
pub fn payload(frame: &[u8]) -> Option<&[u8]> {
    let payload = frame.get(14..).filter(|_| frame[12..14] == EXPERIMENTAL)?;
    let length = payload.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    Some(&payload[..length])
}

/// A VXLAN packet (RFC 7348) around a frame.
pub fn vxlan(vni: u32, frame: &[u8]) -> Vec<u8> {
    let [_, high, middle, low] = vni.to_be_bytes();
    [&[0x08, 0, 0, 0, high, middle, low, 0], frame].concat()
}

/// Sends a datagram from an address and port of choice.
///
/// # Errors
/// When the kernel refuses it.
pub fn send_datagram(from: &Netns, source: SocketAddr, to: SocketAddr, payload: &[u8]) -> Result<()> {
    from.run(|| UdpSocket::bind(source)?.send_to(payload, to).map(drop).context("cannot send"))
}

/// Sends a frame as it is by an interface.
///
/// # Errors
/// When there is no such interface or the kernel refuses the frame.
pub fn send_frame(from: &Netns, interface: &str, frame: &[u8]) -> Result<()> {
    from.run(|| {
        let all = SockProtocol::EthAll;
        let raw = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, all)?;
        let address: LinkAddr = getifaddrs()?
            .filter(|found| found.interface_name == interface)
            .find_map(|found| found.address?.as_link_addr().copied())
            .with_context(|| format!("no interface {interface}"))?;
        bind(raw.as_raw_fd(), &address)?;
        send(raw.as_raw_fd(), frame, MsgFlags::empty()).map(drop).context("cannot send the frame")
    })
}

/// Reads `aa:bb:cc:dd:ee:ff`.
///
/// # Errors
/// When it is not that.
pub fn mac(text: &str) -> Result<[u8; 6]> {
    let bytes: Vec<u8> = text
        .split(':')
        .map(|part| u8::from_str_radix(part, 16))
        .collect::<Result<_, _>>()
        .with_context(|| format!("not an Ethernet address: {text}"))?;
    bytes.try_into().ok().with_context(|| format!("not an Ethernet address: {text}"))
}
