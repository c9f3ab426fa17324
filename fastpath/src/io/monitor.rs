//! Says when it is time to look again.
//!
//! The messages themselves are not read: what changed is found by looking, so a lost message (`ENOBUFS`) is just
//! one more reason to look. There is no queue but the kernel's socket buffer. Links, addresses and forwarding entries
//! are listened to; routes decide nothing in a plan. Of neighbours and forwarding entries a busy host changes
//! thousands in a second, by learning: a filter in the kernel lets only those entries through that do not age, so the
//! rest does not even wake us.

use std::future::poll_fn;
use std::io;
use std::time::Duration;

use netlink_sys::{AsyncSocket, SocketAddr, TokioSocket, protocols::NETLINK_ROUTE};
use rtnetlink::constants::{RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR, RTMGRP_LINK, RTMGRP_NEIGH};
use tokio::time::{Instant, sleep_until};

use super::Fastpath;
use super::sys;
use crate::error::{Error, PASSING};

/// How long news is collected before it is told: one attachment is a dozen messages.
const COLLECT: Duration = Duration::from_millis(100);
/// How many messages are thrown away in one go before somebody else may run.
const BATCH: usize = 4096;

/// The bits in a neighbour's state that say that it does not age (`NUD_NOARP`, `NUD_PERMANENT`).
const LASTING: u16 = 0x40 | 0x80;

/// Accepts all but messages about neighbours, and of those the ones about forwarding entries that do not age. A message
/// has its type at 4; after the header of 16 bytes, a neighbour has its family at 0 and its state at 8. The machine
/// reads numbers as the network orders their octets, netlink as this host does.
fn lasting_entries() -> [libc::sock_filter; 9] {
    const SHORT_AT: u16 = 0x28;
    const BYTE_AT: u16 = 0x30;
    const EQUAL: u16 = 0x15;
    const ANY_OF: u16 = 0x45;
    const RETURN: u16 = 0x06;
    let here = |number: u16| u32::from(u16::from_be_bytes(number.to_ne_bytes()));
    let bridge = libc::AF_BRIDGE.cast_unsigned();
    let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    [
        step(SHORT_AT, 0, 0, 4),
        step(EQUAL, 1, 0, here(libc::RTM_NEWNEIGH)),
        step(EQUAL, 0, 4, here(libc::RTM_DELNEIGH)),
        step(BYTE_AT, 0, 0, 16),
        step(EQUAL, 0, 3, bridge),
        step(SHORT_AT, 0, 0, 24),
        step(ANY_OF, 0, 1, here(LASTING)),
        step(RETURN, 0, 0, u32::MAX),
        step(RETURN, 0, 0, 0),
    ]
}

/// Tells when links, addresses or lasting forwarding entries of the host have changed.
pub struct Monitor {
    socket: TokioSocket,
    buffer: Vec<u8>,
    /// When the news that came in is to be told; kept over a dropped call, so none is lost.
    due: Option<Instant>,
}

impl Fastpath {
    /// Starts listening for changes, in the namespace of the calling thread.
    ///
    /// # Errors
    /// When the kernel gives no netlink socket.
    pub fn monitor() -> Result<Monitor, Error> {
        let socket = TokioSocket::new(NETLINK_ROUTE).map_err(|error| opening_failed(&error))?;
        let mut groups = RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR;
        match sys::filter(&socket, &lasting_entries()) {
            Ok(()) => groups |= RTMGRP_NEIGH,
            Err(error) => tracing::debug!(%error, "forwarding entries are looked at on a timer only"),
        }
        Monitor::on(socket, groups)
    }
}

impl Monitor {
    /// Listens to groups of one netlink protocol.
    pub(super) fn listen(protocol: isize, groups: u32) -> Result<Self, Error> {
        let socket = TokioSocket::new(protocol).map_err(|error| opening_failed(&error))?;
        Self::on(socket, groups)
    }

    fn on(mut socket: TokioSocket, groups: u32) -> Result<Self, Error> {
        socket.socket_mut().bind(&SocketAddr::new(0, groups)).map_err(|error| opening_failed(&error))?;
        Ok(Self { socket, buffer: Vec::with_capacity(8192), due: None })
    }

    /// Returns when something has changed since the last return. May be dropped and called again.
    ///
    /// # Errors
    /// When the socket is broken; then open another and look.
    pub async fn changed(&mut self) -> Result<(), Error> {
        let due = match self.due {
            Some(due) => due,
            None => {
                self.receive().await?;
                *self.due.insert(Instant::now() + COLLECT)
            }
        };
        sleep_until(due).await;
        for _ in 0..BATCH {
            self.buffer.clear();
            // Not through the runtime: its fairness would say "nothing there" after some dozens.
            match self.socket.socket_ref().recv(&mut self.buffer, libc::MSG_DONTWAIT) {
                Ok(_) => {}
                Err(error) if something_is_lost(&error) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(failed(&error)),
            }
        }
        self.due = None;
        Ok(())
    }

    async fn receive(&mut self) -> Result<(), Error> {
        self.buffer.clear();
        match poll_fn(|context| self.socket.poll_recv(context, &mut self.buffer)).await {
            Ok(()) => Ok(()),
            Err(error) if something_is_lost(&error) => Ok(()),
            Err(error) => Err(failed(&error)),
        }
    }
}

/// Whether the socket is as good as before: then there is one more reason to look, and no need of another socket, before
/// which more would go unheard.
fn something_is_lost(error: &io::Error) -> bool {
    error.raw_os_error().is_some_and(|errno| PASSING.contains(&errno))
}

fn failed(error: &io::Error) -> Error {
    Error::kernel("netlink monitor", "read", error)
}

fn opening_failed(error: &io::Error) -> Error {
    Error::kernel("netlink monitor", "open", error)
}
