//! Says when it is time to look again.
//!
//! The messages themselves are not read: what changed is found by looking, so a lost message (`ENOBUFS`) is just
//! one more reason to look. There is no queue but the kernel's socket buffer. Links and addresses are listened to;
//! routes and neighbours decide nothing in a plan, and a busy host changes them a thousand times a second.

use std::future::poll_fn;
use std::io;
use std::time::Duration;

use netlink_sys::{AsyncSocket, SocketAddr, TokioSocket, protocols::NETLINK_ROUTE};
use rtnetlink::constants::{RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR, RTMGRP_LINK};
use tokio::time::{Instant, sleep_until};

use super::Fastpath;
use crate::error::Error;

/// How long news is collected before it is told: one attachment is a dozen messages.
const COLLECT: Duration = Duration::from_millis(100);
/// How many messages are thrown away in one go before somebody else may run.
const BATCH: usize = 4096;

/// Tells when links or addresses of the host have changed.
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
        Monitor::listen(NETLINK_ROUTE, RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR)
    }
}

impl Monitor {
    /// Listens to groups of one netlink protocol.
    pub(super) fn listen(protocol: isize, groups: u32) -> Result<Self, Error> {
        let failed = |error: io::Error| Error::kernel("netlink monitor", "open", &error);
        let mut socket = TokioSocket::new(protocol).map_err(failed)?;
        socket.socket_mut().bind(&SocketAddr::new(0, groups)).map_err(failed)?;
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
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {}
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
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => Ok(()),
            Err(error) => Err(failed(&error)),
        }
    }
}

fn failed(error: &io::Error) -> Error {
    Error::kernel("netlink monitor", "read", error)
}
