//! Frames made by hand, for what no honest socket would send.

use std::net::{SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};

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
        send(open(interface)?.as_raw_fd(), frame, MsgFlags::empty())
            .map(drop)
            .context("cannot send the frame")
    })
}

/// A socket by which frames leave an interface of the calling thread's namespace as they are.
pub(crate) fn open(interface: &str) -> Result<OwnedFd> {
    let all = SockProtocol::EthAll;
    let raw = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, all)?;
    let address: LinkAddr = getifaddrs()?
        .filter(|found| found.interface_name == interface)
        .find_map(|found| found.address?.as_link_addr().copied())
        .with_context(|| format!("no interface {interface}"))?;
    bind(raw.as_raw_fd(), &address)?;
    Ok(raw)
}

/// A UDP datagram over IPv4 in a frame, without a UDP checksum, which IPv4 lets be (RFC 768).
pub fn datagram(
    to: [u8; 6],
    from: [u8; 6],
    source: SocketAddrV4,
    target: SocketAddrV4,
    payload: &[u8],
) -> Vec<u8> {
    const IPV4: usize = 20;
    const UDP: usize = 8;
    let length = |header: usize| u16::try_from(header + payload.len()).unwrap_or(u16::MAX).to_be_bytes();
    let mut ip = [0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    ip[2..4].copy_from_slice(&length(IPV4 + UDP));
    ip[12..16].copy_from_slice(&source.ip().octets());
    ip[16..20].copy_from_slice(&target.ip().octets());
    // The checksum of RFC 1071; with no more than ten words two folds are enough.
    let sum: u32 = ip.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    let [_, _, high, low] = (!((sum & 0xffff) + (sum >> 16))).to_be_bytes();
    (ip[10], ip[11]) = (high, low);
    let ports = [source.port().to_be_bytes(), target.port().to_be_bytes(), length(UDP), [0; 2]].concat();
    [&to[..], &from, &[0x08, 0x00], &ip, &ports, payload].concat()
}

/// The Ethernet address of an interface.
///
/// # Errors
/// When there is no such interface.
pub fn mac_of(netns: &Netns, interface: &str) -> Result<[u8; 6]> {
    let shown = netns.ip(&format!("-o link show dev {interface}"))?;
    let word = shown.split_whitespace().skip_while(|word| *word != "link/ether").nth(1);
    mac(word.with_context(|| format!("no Ethernet address: {shown}"))?)
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
