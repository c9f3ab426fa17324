//! A netfilter netlink socket: questions, lists and transactions, one after another.
//!
//! The kernel does what it is asked within the call that asks, and the answer lies in the socket when that returns.
//! So nothing here waits for the kernel to find time, and nothing is asynchronous; the deadline on reading is only
//! there so that a kernel that breaks this cannot hold us for ever.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, connect, recv, send, setsockopt,
    socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

use super::encode::{ACK, Batch, REQUEST};
use super::number::SUBSYSTEM;
use super::wire::{Attributes, Head, Message, Writer, messages};

/// How long we wait for an answer, in seconds.
const DEADLINE: i64 = 5;
/// More than the kernel puts into one datagram.
const DATAGRAM: usize = 1 << 16;
/// How large a transaction may be: a thousand sources are 40 KiB.
const SEND_BUFFER: usize = 4 << 20;
/// `NLM_F_DUMP` and `NLM_F_DUMP_INTR`.
const DUMP: u16 = 0x300;
const INTERRUPTED: u16 = 0x10;

/// A connection to the netfilter of one namespace.
pub(super) struct Socket {
    descriptor: OwnedFd,
    /// The family that is asked about.
    family: u8,
    /// The number of the next message; held from the question to the end of its answer.
    turn: Mutex<u32>,
}

/// Why a transaction did not happen.
pub(super) struct Refusal {
    /// What was refused.
    pub(super) label: String,
    pub(super) error: io::Error,
}

impl Socket {
    /// Connects to the namespace of the calling thread, to ask about one family.
    pub(super) fn open(family: u8) -> io::Result<Self> {
        let protocol = SockProtocol::NetlinkNetFilter;
        let descriptor = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
        connect(descriptor.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        setsockopt(&descriptor, sockopt::ReceiveTimeout, &TimeVal::seconds(DEADLINE))?;
        // Not permitted in some containers; a large transaction is then refused with its own message.
        let _ = setsockopt(&descriptor, sockopt::SndBufForce, &SEND_BUFFER);
        Ok(Self { descriptor, family, turn: Mutex::new(1) })
    }

    /// Asks for one thing; the attributes of the answer.
    pub(super) fn get(&self, kind: u16, fill: impl FnOnce(&mut Attributes<'_>)) -> io::Result<Vec<u8>> {
        let mut found = None;
        self.ask(kind, ACK, fill, |answer| found = Some(answer.to_vec()))?;
        found.ok_or_else(|| io::Error::other("an answer without content"))
    }

    /// Asks for a list; each gets the attributes of one entry.
    pub(super) fn list(
        &self,
        kind: u16,
        fill: impl FnOnce(&mut Attributes<'_>),
        each: impl FnMut(&[u8]),
    ) -> io::Result<()> {
        self.ask(kind, DUMP, fill, each)
    }

    fn ask(
        &self,
        kind: u16,
        flags: u16,
        fill: impl FnOnce(&mut Attributes<'_>),
        mut each: impl FnMut(&[u8]),
    ) -> io::Result<()> {
        let (kind, flags) = (SUBSYSTEM << 8 | kind, flags | REQUEST);
        let mut writer = Writer::default();
        writer.message(&Head { kind, flags, family: self.family, resource: 0 }, fill);
        let mut turn = self.turn();
        let sequence = *turn;
        *turn = writer.renumber(sequence);
        self.send(writer.bytes())?;
        let mut interrupted = false;
        self.receive(|message| {
            if message.sequence != sequence {
                return None;
            }
            interrupted |= message.flags & INTERRUPTED != 0;
            match end(message) {
                Some(Ok(())) if interrupted => Some(Err(Errno::EINTR.into())),
                None => {
                    each(message.attributes());
                    None
                }
                end => end,
            }
        })
    }

    /// Sends a transaction: all of it happens, or nothing.
    pub(super) fn transact(&self, batch: Batch<'_>) -> Result<(), Refusal> {
        let (mut writer, labels) = batch.into_parts();
        let refused =
            |at: usize, error| Refusal { label: labels.get(at).cloned().unwrap_or_default(), error };
        let mut turn = self.turn();
        let first = *turn;
        *turn = writer.renumber(first);
        self.send(writer.bytes()).map_err(|error| refused(0, error))?;
        // "Begin" and "end" are not acknowledged; the last between them is, when all is done.
        let last = labels.len().saturating_sub(2);
        let mut failed = 0;
        let done = self.receive(|message| {
            let at = usize::try_from(message.sequence.wrapping_sub(first)).ok()?;
            match end(message).filter(|_| at < labels.len())? {
                Ok(()) => (at == last).then_some(Ok(())),
                Err(error) => {
                    failed = at;
                    Some(Err(error))
                }
            }
        });
        done.map_err(|error| refused(failed, error))
    }

    fn turn(&self) -> MutexGuard<'_, u32> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn send(&self, bytes: &[u8]) -> io::Result<()> {
        send(self.descriptor.as_raw_fd(), bytes, MsgFlags::empty())?;
        Ok(())
    }

    /// Reads answers until one ends it. Answers to a question that was given up are left to `judge` to skip.
    fn receive(&self, mut judge: impl FnMut(&Message<'_>) -> Option<io::Result<()>>) -> io::Result<()> {
        let mut buffer = vec![0; DATAGRAM];
        loop {
            let length = match recv(self.descriptor.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Ok(length) => length,
                Err(Errno::EINTR) => continue,
                Err(Errno::EAGAIN) => return Err(Errno::ETIMEDOUT.into()),
                Err(errno) => return Err(errno.into()),
            };
            let datagram = buffer.get(..length).unwrap_or_default();
            if let Some(end) = messages(datagram).find_map(|message| judge(&message)) {
                return end;
            }
        }
    }
}

/// Whether a message ends an answer, and how.
fn end(message: &Message<'_>) -> Option<io::Result<()>> {
    let kind = i32::from(message.kind);
    match message.status() {
        _ if kind != libc::NLMSG_ERROR && kind != libc::NLMSG_DONE => None,
        0 => Some(Ok(())),
        status => Some(Err(io::Error::from_raw_os_error(status.saturating_abs()))),
    }
}
