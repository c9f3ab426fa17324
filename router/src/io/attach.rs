//! The attach socket: one packet brings a request and two descriptors, one packet takes the answer back.
//!
//! It stands beside the HTTP socket, because HTTP servers do not hand descriptors out. What comes is checked here:
//! a namespace that is one and not the router's own, and a netlink socket.

use std::{
    io::{self, IoSlice},
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use nix::sys::socket::{MsgFlags, NetlinkAddr, SockType, getsockname, sendmsg};
use tokio::{
    io::Interest,
    net::{UnixListener, UnixStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep, timeout},
};
use weft_api::{
    Answer, ApiError, Descriptors, LARGEST_PACKET, Request, Response, attach_socket, netns, receive,
};

use super::{
    call::{Call, ask},
    notes::Notes,
    socket::{Place, SocketError, claim},
};

/// Connections at once, as many as calls may wait: those that come together share a write of the state. A node that
/// starts two hundred containers waits in the kernel's queue.
const CONNECTIONS: usize = 64;
/// How long a connection may take to send its packet, or to take the answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often notes of the CNI plugin are looked for.
const LOOK: Duration = Duration::from_secs(1);

/// The attach socket, listening.
#[derive(Debug)]
pub struct AttachSocket {
    listener: UnixListener,
    place: Place,
    api: PathBuf,
}

impl AttachSocket {
    /// Takes the path that belongs to the API socket at `api` and listens; needs the runtime.
    ///
    /// # Errors
    ///
    /// `Live` when another router answers there.
    pub fn bind(api: &Path) -> Result<Self, SocketError> {
        let path = attach_socket(api);
        let (listener, place) = claim(&path, SockType::SeqPacket)?;
        let listener =
            UnixListener::from_std(listener).map_err(|reason| SocketError::Refused { path, reason })?;
        Ok(Self { listener, place, api: api.to_owned() })
    }

    /// Serves until the queue's other end is dropped, then finishes the answers under way; the socket's file goes with
    /// it. Whoever ends the router gives this a moment, not for ever.
    pub async fn serve(mut self, calls: mpsc::Sender<Call>) {
        self.place.settle();
        let notes = Notes::of(&self.api);
        notes.honour(&calls).await;
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let room = Arc::new(Semaphore::new(CONNECTIONS));
        let mut connections = JoinSet::new();
        loop {
            while connections.try_join_next().is_some() {}
            let accepted = tokio::select! {
                biased;
                () = calls.closed() => break,
                _ = look.tick() => {
                    notes.honour(&calls).await;
                    continue;
                }
                accepted = accept(&self.listener, &room) => accepted,
            };
            match accepted {
                Ok((stream, room)) => {
                    let calls = calls.clone();
                    connections.spawn(async move {
                        serve_one(&stream, &calls).await;
                        drop(room);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept on the attach socket");
                    // Out of descriptors: trying again at once would only burn the processor.
                    sleep(Duration::from_millis(100)).await;
                }
            }
        }
        connections.join_all().await;
    }
}

/// The next connection, once there is room for it.
async fn accept(
    listener: &UnixListener,
    room: &Arc<Semaphore>,
) -> io::Result<(UnixStream, Option<OwnedSemaphorePermit>)> {
    // `None` only if the semaphore were closed, which nobody does; then the connection is not counted.
    let room = Arc::clone(room).acquire_owned().await.ok();
    Ok((listener.accept().await?.0, room))
}

/// Takes one packet and answers it; who goes away meanwhile takes the call with them.
async fn serve_one(stream: &UnixStream, calls: &mpsc::Sender<Call>) {
    let first = tokio::select! {
        biased;
        () = calls.closed() => return,
        first = timeout(PATIENCE, packet(stream)) => first,
    };
    let result = match first {
        Ok(Ok(Some((body, descriptors)))) => {
            tokio::select! {
                biased;
                () = closed(stream) => return,
                result = attach(&body, descriptors, calls) => result,
            }
        }
        Ok(Err(error)) => Err(ApiError::usage(format!("malformed packet: {error}"))),
        Ok(Ok(None)) | Err(_) => return,
    };
    let _ = timeout(PATIENCE, send(stream, result)).await;
}

/// The packet and what came with it; nothing when the other end has closed.
async fn packet(stream: &UnixStream) -> io::Result<Option<(Vec<u8>, Vec<OwnedFd>)>> {
    let mut buffer = vec![0; LARGEST_PACKET];
    let received = stream.async_io(Interest::READABLE, || receive(stream.as_fd(), &mut buffer)).await?;
    let (length, descriptors) = received;
    buffer.truncate(length);
    Ok((length > 0).then_some((buffer, descriptors)))
}

/// Returns when the other end has closed. It has nothing more to say: a second packet is the end, too.
async fn closed(stream: &UnixStream) {
    let mut buffer = [0];
    let _ = stream.async_io(Interest::READABLE, || receive(stream.as_fd(), &mut buffer)).await;
}

async fn attach(
    body: &[u8],
    descriptors: Vec<OwnedFd>,
    calls: &mpsc::Sender<Call>,
) -> Result<Response, ApiError> {
    let request: Request = serde_json::from_slice(body)
        .map_err(|error| ApiError::usage(format!("malformed request: {error}")))?;
    if !matches!(request, Request::Attach(_) | Request::CniAdd(_)) {
        return Err(ApiError::usage("only attach comes over the attach socket"));
    }
    let descriptors = checked(descriptors)?;
    ask(calls, request, Some(descriptors)).await
}

/// The two descriptors, if they are what they should be.
fn checked(descriptors: Vec<OwnedFd>) -> Result<Descriptors, ApiError> {
    let [netns, netlink] = <[OwnedFd; 2]>::try_from(descriptors).map_err(|descriptors| {
        ApiError::usage(format!("two descriptors come with attach, not {}", descriptors.len()))
    })?;
    let broken =
        |error: io::Error| ApiError::failed(format!("cannot look at the network namespace: {error}"));
    if !netns::is_network_namespace(&netns).map_err(broken)? {
        return Err(ApiError::usage("the first descriptor is no network namespace"));
    }
    if netns::is_own(&netns).map_err(broken)? {
        return Err(ApiError::failed("that is the network namespace of the router itself"));
    }
    if getsockname::<NetlinkAddr>(netlink.as_raw_fd()).is_err() {
        return Err(ApiError::usage("the second descriptor is no netlink socket"));
    }
    Ok(Descriptors { netns, netlink })
}

async fn send(stream: &UnixStream, result: Result<Response, ApiError>) -> io::Result<()> {
    let body = serde_json::to_vec(&Answer::from(result))?;
    stream
        .async_io(Interest::WRITABLE, || {
            let parts = [IoSlice::new(&body)];
            Ok(sendmsg::<()>(stream.as_raw_fd(), &parts, &[], MsgFlags::MSG_NOSIGNAL, None)?)
        })
        .await?;
    Ok(())
}

#[cfg(test)]
mod tests;
