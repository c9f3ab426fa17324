//! The three system calls that need `unsafe`, each wrapped so that nobody else does.

#![expect(unsafe_code, reason = "the crate's one place for it")]

use std::{
    io::{self, IoSliceMut},
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
};

use nix::{
    errno::Errno,
    sys::socket::{ControlMessageOwned, MsgFlags, recvmsg},
};

/// `_IO(0xb7, 3)`: the kind of a namespace, see ioctl_ns(2).
const NS_GET_NSTYPE: libc::Ioctl = 0xb703;

/// Whether a descriptor on nsfs is a network namespace.
pub(crate) fn is_network_namespace(namespace: BorrowedFd<'_>) -> io::Result<bool> {
    // SAFETY: the request takes no argument and returns the namespace's clone flag; the descriptor is open for the call.
    let kind = unsafe { libc::ioctl(namespace.as_raw_fd(), NS_GET_NSTYPE) };
    Ok(Errno::result(kind)? == libc::CLONE_NEWNET)
}

/// Receives one packet with the descriptors that came along.
///
/// # Errors
///
/// Also when the packet is larger than `buffer`. Descriptors that came with a refused packet are closed.
pub fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    // Room for as many as the kernel lets through in one packet (SCM_MAX_FD), so none is ever lost by truncation.
    let mut control = nix::cmsg_space!([RawFd; 253]);
    let mut parts = [IoSliceMut::new(buffer)];
    let message =
        recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::MSG_CMSG_CLOEXEC)?;
    let mut descriptors = Vec::new();
    for item in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(raw) = item {
            // SAFETY: the kernel has just made these descriptors for this process; nobody else knows them.
            descriptors.extend(raw.into_iter().map(|raw| unsafe { OwnedFd::from_raw_fd(raw) }));
        }
    }
    if message.flags.contains(MsgFlags::MSG_TRUNC) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "packet too large"));
    }
    Ok((message.bytes, descriptors))
}
