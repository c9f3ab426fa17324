//! What happens when: one heap of events, ordered by time and then by the order in which they were put down.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::net::SocketAddr;
use std::time::Duration;

use weft_fastpath::StandingLink;
use weft_gossip::{ConnectionId, Input};
use weft_router::dataplane;
use weft_router::node::KernelReport;

use super::faults::Undo;
use super::kernel::Task;
use super::workload::Errand;

/// A host, by its place in the world.
pub(super) type HostId = usize;

/// One process of a host's router: what was meant for an earlier one is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Life {
    pub(super) host: HostId,
    pub(super) number: u32,
}

/// Something that happens at a time.
#[derive(Debug)]
pub(super) enum Event {
    /// A deadline of the control half has passed.
    WakeNode(Life),
    /// A deadline of the data half has passed.
    WakeData(Life),
    /// The control half commands the data half.
    Command(Life, dataplane::Command),
    /// The data half reports.
    Report(Life, dataplane::Event),
    /// The router's end of a TCP connection has something to say.
    Transport(Life, Input),
    /// A dial on a cut path is tried again.
    Redial { life: Life, connection: ConnectionId, to: HostId, waits: &'static [Duration] },
    /// A dial reaches its host.
    Arrive(u64),
    /// Bytes may be due at one end of a wire.
    Deliver(u64, usize),
    /// The send queue of one end of a wire has drained.
    Writable(u64, usize),
    /// A datagram for a host's sleeve.
    Datagram { to: HostId, from: SocketAddr, bytes: Vec<u8> },
    /// A VXLAN packet for a host's kernel; `again` when the network has doubled it.
    Vxlan { to: HostId, from: HostId, frame: Vec<u8>, again: bool },
    /// A frame that the bridge handed to the capture.
    Captured(Life, Vec<u8>),
    /// A probe that the bridge handed to the router's socket.
    Probe(Life, Vec<u8>),
    /// The write that was begun has ended.
    Saved(Life),
    /// The kernel task has finished what it was at.
    Worked(Life, Task),
    /// The kernel task tells.
    Told(Life, KernelReport),
    /// The kernel task tells which container links stand.
    Links(Life, Vec<StandingLink>),
    /// The kernel task looks at everything: something changed, or nothing did for long.
    Look(Life),
    /// A container sends.
    Sends { host: HostId, container: usize, frame: Vec<u8> },
    /// A host starts its router.
    Start(HostId),
    /// Somebody wants something of the cluster.
    Errand(Errand),
    /// The next fault.
    Strike,
    /// A fault ends.
    Undo(Undo),
}

/// When an event is due, in which order it was put down, and where it lies: small, because a heap moves its entries
/// about. The order of the fields is the order of comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    at: Duration,
    number: u64,
    place: usize,
}

/// Everything that is still to happen.
#[derive(Default)]
pub(super) struct Agenda {
    heap: BinaryHeap<Reverse<Entry>>,
    events: Vec<Option<Event>>,
    /// Places in `events` with nothing in them.
    free: Vec<usize>,
    last: u64,
}

impl Agenda {
    pub(super) fn put(&mut self, at: Duration, event: Event) {
        self.last += 1;
        let place = self.free.pop().unwrap_or(self.events.len());
        match self.events.get_mut(place) {
            Some(slot) => *slot = Some(event),
            None => self.events.push(Some(event)),
        }
        self.heap.push(Reverse(Entry { at, number: self.last, place }));
    }

    /// The next event, if it is due by then.
    pub(super) fn next(&mut self, until: Duration) -> Option<(Duration, Event)> {
        let next = self.heap.peek_mut()?;
        if next.0.at > until {
            return None;
        }
        let Reverse(Entry { at, place, .. }) = PeekMut::pop(next);
        self.free.push(place);
        Some((at, self.events.get_mut(place)?.take()?))
    }

    pub(super) fn len(&self) -> usize {
        self.heap.len()
    }
}
