//! A netlink connection to the kernel of one namespace, and the deadline on every question.

use std::future::Future;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{Stream, StreamExt, TryStreamExt};
use netlink_packet_core::{NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::LinkMessage;
use netlink_sys::AsyncSocket as _;
use netlink_sys::protocols::NETLINK_ROUTE;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use rtnetlink::Handle;

use super::removal::Removal;
use super::steady::Steady;
use super::sys;
use crate::error::Error;

/// How long the kernel may take for one answer. It answers at once, unless the routing lock is held for long.
pub(super) const DEADLINE: Duration = Duration::from_secs(5);

/// How often, and after which pause, a list is asked for again while the socket is busy with another.
const PATIENCE: usize = 100;
const PAUSE: Duration = Duration::from_millis(5);

/// A connection to one namespace. Cheap to clone; its task ends when the last clone is dropped.
#[derive(Clone)]
pub(super) struct Kernel {
    /// Where requests go.
    pub(super) handle: Handle,
    /// A socket of the same namespace for ioctls; None inside a container, where we have only netlink.
    socket: Option<Arc<OwnedFd>>,
    /// By which links are removed; None inside a container, where we remove none.
    pub(super) removal: Option<Arc<Removal>>,
}

impl Kernel {
    /// Connects to the namespace of the calling thread.
    pub(super) fn open() -> Result<Self, Error> {
        let failed = |error: io::Error| Error::kernel("netlink socket", "open", &error);
        let (connection, handle, _) = rtnetlink::from_socket(Steady::new(NETLINK_ROUTE).map_err(failed)?);
        let ioctl = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)
            .map_err(|errno| failed(errno.into()))?;
        tokio::spawn(connection);
        let removal = Removal::open().map_err(failed)?;
        Ok(Self { handle, socket: Some(Arc::new(ioctl)), removal: Some(Arc::new(removal)) })
    }

    /// Connects through a netlink socket that somebody else opened.
    pub(super) fn through(netlink: OwnedFd) -> Result<Self, Error> {
        let failed = |error: io::Error| Error::kernel("netlink socket of the container", "use", &error);
        let socket = sys::netlink_socket(netlink).map_err(failed)?;
        let (connection, handle, _) = rtnetlink::from_socket(Steady::from(socket));
        tokio::spawn(connection);
        Ok(Self { handle, socket: None, removal: None })
    }

    /// The socket for ioctls.
    pub(super) fn socket(&self) -> Result<BorrowedFd<'_>, Error> {
        let none = || Error::refused("ioctl", "there is no socket for it in this namespace");
        self.socket.as_deref().map(AsFd::as_fd).ok_or_else(none)
    }

    /// Sends a request for which the library has no words, and returns what comes back. It swallows the
    /// confirmation of a success: an answer that ends without an error is one.
    pub(super) async fn send(
        &self,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<Vec<RouteNetlinkMessage>, rtnetlink::Error> {
        let mut request = NetlinkMessage::from(message);
        request.header.flags = NLM_F_REQUEST | flags;
        let mut answers = self.handle.clone().request(request)?;
        let mut found = Vec::new();
        while let Some(answer) = answers.next().await {
            if let NetlinkPayload::Error(error) = answer.payload {
                return Err(rtnetlink::Error::NetlinkError(error));
            }
            if let NetlinkPayload::InnerMessage(inner) = answer.payload {
                found.push(inner);
            }
        }
        Ok(found)
    }

    /// Asks for one link by its index; None when there is none.
    pub(super) async fn link_at(&self, index: u32) -> Result<Option<LinkMessage>, Error> {
        let request = || self.handle.link().get().match_index(index).execute();
        match all(&format!("interface {index}"), "look up", request).await.map(first) {
            Err(error) if error.is(&[libc::ENODEV]) => Ok(None),
            found => found,
        }
    }

    /// Asks for one link by name; None when there is none.
    pub(super) async fn link(&self, name: &str) -> Result<Option<LinkMessage>, Error> {
        let request = || self.handle.link().get().match_name(name).execute();
        match all(name, "look up", request).await.map(first) {
            Ok(link) => Ok(link),
            Err(error) if error.is(&[libc::ENODEV]) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Waits for an answer, but not for ever.
pub(super) async fn ask<T>(
    object: &str,
    operation: &'static str,
    request: impl Future<Output = Result<T, rtnetlink::Error>>,
) -> Result<T, Error> {
    match tokio::time::timeout(DEADLINE, request).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(Error::kernel(object, operation, &reason(error))),
        Err(_) => Err(Error::Timeout { object: object.to_owned(), operation, seconds: DEADLINE.as_secs() }),
    }
}

/// Asks for a list. A socket has one dump at a time (another caller's, or an abandoned one that the kernel is still
/// sending): a second is told "busy", and asked for again.
pub(super) async fn all<T, S: Stream<Item = Result<T, rtnetlink::Error>>>(
    object: &str,
    operation: &'static str,
    dump: impl Fn() -> S,
) -> Result<Vec<T>, Error> {
    patiently(object, operation, || dump().try_collect()).await
}

/// The same for any kind of question.
pub(super) async fn patiently<T, F: Future<Output = Result<T, rtnetlink::Error>>>(
    object: &str,
    operation: &'static str,
    question: impl Fn() -> F,
) -> Result<T, Error> {
    for _ in 0..PATIENCE {
        match ask(object, operation, question()).await {
            Err(error) if error.is(&[libc::EBUSY]) => tokio::time::sleep(PAUSE).await,
            answer => return answer,
        }
    }
    ask(object, operation, question()).await
}

/// The first of a list.
pub(super) fn first<T>(list: Vec<T>) -> Option<T> {
    list.into_iter().next()
}

/// The error number in what the library returns, or its words.
fn reason(error: rtnetlink::Error) -> io::Error {
    match &error {
        rtnetlink::Error::NetlinkError(message) => message.to_io(),
        rtnetlink::Error::RequestFailed => io::Error::other("the netlink socket is closed"),
        rtnetlink::Error::UnexpectedMessage(_)
        | rtnetlink::Error::NamespaceError(_)
        | rtnetlink::Error::InvalidHardwareAddress(_)
        | rtnetlink::Error::InvalidIp(_)
        | rtnetlink::Error::InvalidAddress(..)
        | rtnetlink::Error::InvalidNla(_) => io::Error::other(error.to_string()),
    }
}
