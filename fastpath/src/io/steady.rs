//! A netlink socket that outlives an error.
//!
//! The library takes any error of a call for the end of its socket: from then on nobody who asks through it gets an
//! answer, and a list that was under way ends early as if it were whole. But a kernel that is short of memory refuses one
//! call and takes the next. So such a call is made again here; when that does not help, the question is lost, as any
//! datagram may be, and whoever asked asks again after the deadline.

use std::io;
use std::task::{Context, Poll, ready};

use bytes::BufMut;
use netlink_sys::{AsyncSocket, Socket, SocketAddr, TokioSocket};

use crate::error::PASSING;

/// How often a call is made that fails.
const ATTEMPTS: usize = 8;

/// A socket on the runtime.
pub(super) struct Steady(TokioSocket);

impl From<TokioSocket> for Steady {
    fn from(socket: TokioSocket) -> Self {
        Self(socket)
    }
}

/// Whether the same call may go well the next time.
fn passes(error: &io::Error) -> bool {
    error.raw_os_error().is_some_and(|errno| PASSING.contains(&errno))
}

/// Makes a call until it does not fail in passing; None when it goes on failing.
fn patiently<T>(mut call: impl FnMut() -> Poll<io::Result<T>>) -> Poll<Option<io::Result<T>>> {
    for _ in 0..ATTEMPTS {
        match ready!(call()) {
            Err(error) if passes(&error) => tracing::debug!(%error, "a netlink call is made again"),
            done => return Poll::Ready(Some(done)),
        }
    }
    Poll::Ready(None)
}

impl AsyncSocket for Steady {
    fn socket_ref(&self) -> &Socket {
        self.0.socket_ref()
    }

    fn socket_mut(&mut self) -> &mut Socket {
        self.0.socket_mut()
    }

    fn new(protocol: isize) -> io::Result<Self> {
        TokioSocket::new(protocol).map(Self)
    }

    fn poll_send(&self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        patiently(|| self.0.poll_send(cx, buf)).map(|sent| sent.unwrap_or(Ok(buf.len())))
    }

    fn poll_send_to(&self, cx: &mut Context<'_>, buf: &[u8], addr: &SocketAddr) -> Poll<io::Result<usize>> {
        patiently(|| self.0.poll_send_to(cx, buf, addr)).map(|sent| sent.unwrap_or(Ok(buf.len())))
    }

    fn poll_recv<B: BufMut>(&self, cx: &mut Context<'_>, buf: &mut B) -> Poll<io::Result<()>> {
        patiently(|| self.0.poll_recv(cx, buf)).map(|read| read.unwrap_or_else(|| Err(overrun())))
    }

    fn poll_recv_from<B: BufMut>(&self, cx: &mut Context<'_>, buf: &mut B) -> Poll<io::Result<SocketAddr>> {
        patiently(|| self.0.poll_recv_from(cx, buf)).map(|read| read.unwrap_or_else(|| Err(overrun())))
    }

    fn poll_recv_from_full(&self, cx: &mut Context<'_>) -> Poll<io::Result<(Vec<u8>, SocketAddr)>> {
        patiently(|| self.0.poll_recv_from_full(cx)).map(|read| read.unwrap_or_else(|| Err(overrun())))
    }
}

/// The one error of receiving that the library takes for what it is: something was lost.
fn overrun() -> io::Error {
    io::Error::from_raw_os_error(libc::ENOBUFS)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes of calls that end in these, one after the other, and how many were made.
    fn made(outcomes: &[i32]) -> (Poll<Option<io::Result<usize>>>, usize) {
        let mut calls = 0;
        let end = patiently(|| {
            let outcome = outcomes.get(calls).copied().unwrap_or_default();
            calls += 1;
            Poll::Ready(if outcome == 0 { Ok(7) } else { Err(io::Error::from_raw_os_error(outcome)) })
        });
        (end, calls)
    }

    #[test]
    fn a_call_that_fails_in_passing_is_made_again() {
        let (end, calls) = made(&[libc::ENOBUFS, libc::EINTR, libc::ENOMEM]);
        assert!(matches!(end, Poll::Ready(Some(Ok(7)))), "{end:?}");
        assert_eq!(calls, 4);
    }

    #[test]
    fn a_call_that_cannot_go_well_is_not_made_again() {
        let (end, calls) = made(&[libc::EBADF]);
        assert!(matches!(end, Poll::Ready(Some(Err(_)))), "{end:?}");
        assert_eq!(calls, 1);
    }

    #[test]
    fn a_call_that_goes_on_failing_is_given_up() {
        let (end, calls) = made(&[libc::ENOBUFS; 100]);
        assert!(matches!(end, Poll::Ready(None)), "{end:?}");
        assert_eq!(calls, ATTEMPTS);
    }

    #[test]
    fn nothing_is_given_up_while_there_is_nothing_to_read() {
        let waiting: Poll<Option<io::Result<()>>> = patiently(|| Poll::Pending);
        assert!(waiting.is_pending());
    }
}
