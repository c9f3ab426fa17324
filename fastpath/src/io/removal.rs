//! Removes links, and keeps nobody waiting who does not wait for that.
//!
//! The kernel answers only when nothing can refer to the link any more, which takes it some grace periods: about 20 ms,
//! in which it does next to nothing. So a thread waits for the answer, and links that go together share one wait: they
//! are moved into a link group of their own, and the group is removed, two hundred links in the time of two.
//!
//! ```text
//! each: group = doomed  ─►  list: is anything else in it?  ─ no ─►  remove the group
//!                                                          ─ yes ─► one after another
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::join_all;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_REQUEST, NetlinkBuffer, NetlinkMessage, NetlinkPayload, Parseable,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkMessage};
use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_ROUTE;
use rtnetlink::LinkUnspec;
use tokio::sync::oneshot;

use super::kernel::{DEADLINE, Kernel, all, ask};
use crate::error::Error;

/// From how many links on a group is worth its preparation.
const MANY: usize = 2;

/// What doomed groups have in common; the rest is the index of one of the links, which no two removals share.
const DOOMED: u32 = 1 << 31;

/// The most that an answer to a removal needs, in bytes: it repeats the question.
const ANSWER: usize = 4096;

const OPERATION: &str = "remove";

/// A socket of its own, of the namespace in which it was opened, and the number of the last question.
pub(super) struct Removal(Mutex<(Socket, u32)>);

impl Removal {
    pub(super) fn open() -> io::Result<Self> {
        Socket::new(NETLINK_ROUTE).map(|socket| Self(Mutex::new((socket, 0))))
    }

    /// Asks, and returns when it is done. The kernel answers within the call.
    fn ask(&self, which: LinkMessage) -> io::Result<()> {
        let mut turn = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (socket, number) = &mut *turn;
        *number = number.wrapping_add(1);
        let mut question = NetlinkMessage::from(RouteNetlinkMessage::DelLink(which));
        question.header.flags = NLM_F_REQUEST | NLM_F_ACK;
        question.header.sequence_number = *number;
        question.finalize();
        let mut bytes = vec![0; question.buffer_len()];
        question.serialize(&mut bytes);
        socket.send(&bytes, 0)?;
        let broken = |error| io::Error::other(format!("an answer that makes no sense: {error}"));
        loop {
            let mut answer = Vec::with_capacity(ANSWER);
            socket.recv(&mut answer, 0)?;
            let answer = NetlinkBuffer::new_checked(&answer).map_err(broken)?;
            let answer = NetlinkMessage::<RouteNetlinkMessage>::parse(&answer).map_err(broken)?;
            // One to a question before was left there when reading it failed.
            if answer.header.sequence_number == *number {
                if let NetlinkPayload::Error(error) = answer.payload
                    && error.code.is_some()
                {
                    return Err(error.to_io());
                }
                return Ok(());
            }
        }
    }
}

/// Removes one link; that it is gone already is an error (`ENODEV`).
pub(super) async fn one(kernel: &Kernel, name: &str) -> Result<(), Error> {
    remove(kernel, name, LinkUnspec::new_with_name(name).build()).await
}

/// Removes links, by name, with their indices; returns which could not be, and why. One that is gone already is gone.
pub(super) async fn many(kernel: &Kernel, links: &BTreeMap<String, u32>) -> BTreeMap<String, Error> {
    let together = links.len() >= MANY && doom(kernel, links).await;
    let mut failed = BTreeMap::new();
    for (name, index) in links.iter().filter(|_| !together) {
        if let Err(error) = remove(kernel, name, LinkUnspec::new_with_index(*index).build()).await
            && !error.is(&[libc::ENODEV])
        {
            failed.insert(name.clone(), error);
        }
    }
    failed
}

/// Removes them as a group; false: it could not be, or only with others, and nothing was removed.
async fn doom(kernel: &Kernel, links: &BTreeMap<String, u32>) -> bool {
    let Some(group) = links.values().min().map(|index| DOOMED | index) else { return true };
    let regroup = links.iter().map(|(name, index)| async move {
        let message = LinkUnspec::new_with_index(*index).link_group(group).build();
        ask(name, "regroup", kernel.handle.link().change(message).execute()).await
    });
    let moved: Vec<Result<(), Error>> = join_all(regroup).await;
    if moved.iter().any(|moved| matches!(moved, Err(error) if !error.is(&[libc::ENODEV]))) {
        return false;
    }
    if moved.iter().all(Result::is_err) {
        return true;
    }
    let ours: BTreeSet<u32> = links.values().copied().collect();
    let Ok(standing) = all("interfaces", "list", || kernel.handle.link().get().execute()).await else {
        return false;
    };
    let in_it = |link: &&LinkMessage| link.attributes.contains(&LinkAttribute::Group(group));
    if !standing.iter().filter(in_it).all(|link| ours.contains(&link.header.index)) {
        return false;
    }
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::Group(group));
    match remove(kernel, "container links", message).await {
        Ok(()) => true,
        // All were gone when it came to it.
        Err(error) => error.is(&[libc::ENODEV]),
    }
}

async fn remove(kernel: &Kernel, object: &str, which: LinkMessage) -> Result<(), Error> {
    let Some(removal) = kernel.removal.clone() else {
        return Err(Error::refused(object, "links of this namespace are not ours to remove"));
    };
    let (reply, asked) = oneshot::channel();
    // Not by the runtime, which panics where no thread can be had.
    let thread = std::thread::Builder::new().name("weft-remove".to_owned());
    if let Err(error) = thread.spawn(move || reply.send(Arc::as_ref(&removal).ask(which))) {
        let error = io::Error::other(format!("no thread to wait for that: {error}"));
        return Err(Error::kernel(object, OPERATION, &error));
    }
    match tokio::time::timeout(DEADLINE, asked).await {
        Ok(Ok(done)) => done.map_err(|error| Error::kernel(object, OPERATION, &error)),
        Ok(Err(_)) => Err(Error::kernel(object, OPERATION, &io::Error::other("the thread ended early"))),
        Err(_) => {
            let seconds = DEADLINE.as_secs();
            Err(Error::Timeout { object: object.to_owned(), operation: OPERATION, seconds })
        }
    }
}
