//! The system calls that have no safe wrapper: packet sockets. Everything `unsafe` of this crate is here.
use std::{
    io,
    os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd},
};

/// Packet socket options of `linux/if_packet.h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PacketOption {
    /// VLAN tags that the kernel took out of a frame are told beside it.
    AuxiliaryData = 8,
    /// Every frame is preceded by a virtio-net header, in both directions.
    VnetHeader = 15,
    /// Frames that this host sends on the interface are not received.
    IgnoreOutgoing = 23,
}

/// Switches a packet socket's option on.
///
/// # Errors
/// What the kernel says; `ENOPROTOOPT` when it is too old.
pub(super) fn enable(socket: impl AsFd, option: PacketOption) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the pointer and length describe `on`, which outlives the call; the descriptor is borrowed.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_PACKET,
            option as libc::c_int,
            (&raw const on).cast(),
            length_of::<libc::c_int>(),
        )
    };
    check(result.into()).map(drop)
}

/// A packet socket that receives nothing yet.
///
/// # Errors
/// What the kernel says; `EPERM` without `CAP_NET_RAW`.
pub(super) fn packet_socket() -> io::Result<OwnedFd> {
    let kind = libc::SOCK_RAW | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: no pointers; the result is checked.
    let fd = check(unsafe { libc::socket(libc::AF_PACKET, kind, 0) }.into())?;
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: `socket` has just returned this descriptor and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Lets a packet socket receive every frame of one interface.
///
/// # Errors
/// What the kernel says; `ENODEV` when there is no such interface.
pub(super) fn bind_to_interface(socket: impl AsFd, index: u32) -> io::Result<()> {
    let protocol = u16::try_from(libc::ETH_P_ALL).map_err(io::Error::other)?.to_be();
    // SAFETY: an all-zero sockaddr_ll is a valid value of this plain C structure.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = u16::try_from(libc::AF_PACKET).map_err(io::Error::other)?;
    address.sll_protocol = protocol;
    address.sll_ifindex = i32::try_from(index).map_err(io::Error::other)?;
    // SAFETY: the pointer and length describe `address`, which outlives the call.
    let result = unsafe {
        libc::bind(socket.as_fd().as_raw_fd(), (&raw const address).cast(), length_of::<libc::sockaddr_ll>())
    };
    check(result.into()).map(drop)
}

/// A frame read from a packet socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Read {
    /// Bytes in the buffer.
    pub(super) length: usize,
    /// The frame was larger than the buffer.
    pub(super) truncated: bool,
    /// Protocol and control information of the VLAN tag that the kernel took out of it.
    pub(super) vlan: Option<(u16, u16)>,
}

/// Room for one control message that holds `tpacket_auxdata`, aligned as the kernel wants it.
#[repr(C, align(8))]
struct Control([u8; 64]);

/// Reads one frame.
///
/// # Errors
/// What the kernel says; `WouldBlock` when there is none.
pub(super) fn receive(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<Read> {
    let mut control = Control([0; 64]);
    let mut vector = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: an all-zero msghdr is a valid value of this plain C structure.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut vector;
    message.msg_iovlen = 1;
    message.msg_control = control.0.as_mut_ptr().cast();
    message.msg_controllen = control.0.len() as _;
    // SAFETY: `message` points to `vector` and `control`, `vector` to `buffer`; all outlive the call and have the
    // lengths they are given with.
    let length = check(unsafe { libc::recvmsg(socket.as_fd().as_raw_fd(), &raw mut message, 0) } as i64)?;
    let truncated = message.msg_flags & libc::MSG_TRUNC != 0;
    Ok(Read { length: usize::try_from(length).map_err(io::Error::other)?, truncated, vlan: vlan(&message) })
}

fn vlan(message: &libc::msghdr) -> Option<(u16, u16)> {
    // SAFETY: the kernel filled the control buffer and set its length; CMSG_FIRSTHDR checks that a header fits.
    let header = unsafe { libc::CMSG_FIRSTHDR(message).as_ref() }?;
    let needed = size_of::<libc::cmsghdr>() + size_of::<libc::tpacket_auxdata>();
    if header.cmsg_level != libc::SOL_PACKET
        || header.cmsg_type != PacketOption::AuxiliaryData as libc::c_int
        || (header.cmsg_len as usize) < needed
    {
        return None;
    }
    // SAFETY: level and type say that the data is a tpacket_auxdata, the length that all of it is there;
    // read_unaligned asks nothing of its address.
    let data = unsafe { libc::CMSG_DATA(header).cast::<libc::tpacket_auxdata>().read_unaligned() };
    let valid = data.tp_status & libc::TP_STATUS_VLAN_VALID != 0;
    let protocol =
        if data.tp_status & libc::TP_STATUS_VLAN_TPID_VALID != 0 { data.tp_vlan_tpid } else { 0x8100 };
    valid.then_some((protocol, data.tp_vlan_tci))
}

/// How many frames the kernel dropped on a packet socket since the last call.
///
/// # Errors
/// What the kernel says.
pub(super) fn dropped(socket: impl AsFd) -> io::Result<u64> {
    let mut statistics = libc::tpacket_stats { tp_packets: 0, tp_drops: 0 };
    let mut length = length_of::<libc::tpacket_stats>();
    // SAFETY: pointer and length describe `statistics`, and `length` itself outlives the call.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_STATISTICS,
            (&raw mut statistics).cast(),
            &raw mut length,
        )
    };
    check(result.into())?;
    Ok(statistics.tp_drops.into())
}

fn check(result: i64) -> io::Result<i64> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn length_of<T>() -> libc::socklen_t {
    libc::socklen_t::try_from(size_of::<T>()).unwrap_or(libc::socklen_t::MAX)
}
