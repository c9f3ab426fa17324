//! From a neighbour to the bridge, or to the next neighbour: the way of a datagram.

use super::Dataplane;
use crate::{
    sleeve::{
        Refusal,
        join::Joined,
        packet::{HEADER, Header},
        piece::{FrameHead, Piece, Pieces, Route},
        seal::Suite,
    },
    switch::{
        frame::Frame,
        verdict::{DropReason, Verdict},
    },
};
use std::{net::SocketAddr, time::Instant};
use weft_gossip::PeerName;

impl Dataplane {
    /// A datagram arrived. It is opened in place.
    pub fn handle_datagram(&mut self, from: SocketAddr, datagram: &mut [u8], now: Instant) {
        self.now = now;
        self.counters.datagrams += 1;
        match self.open(from, datagram, now) {
            Ok((neighbour, end)) => {
                self.pieces(neighbour, &datagram[HEADER..end], now);
                self.mark(neighbour);
            }
            Err(refusal) => self.counters.refuse(refusal),
        }
    }

    fn open(
        &mut self,
        from: SocketAddr,
        datagram: &mut [u8],
        now: Instant,
    ) -> Result<(PeerName, usize), Refusal> {
        let header = Header::parse(datagram)?;
        if self.encrypted && header.suite == Suite::Clear {
            return Err(Refusal::ClearRefused);
        }
        let neighbour = *self.indices.get(&header.index).ok_or(Refusal::UnknownIndex)?;
        let link = self.links.get_mut(&neighbour).ok_or(Refusal::UnknownIndex)?;
        let (end, news) = link.open(header, datagram, from, now)?;
        if let Some(news) = news {
            self.report(neighbour, news);
        }
        Ok((neighbour, end))
    }

    fn pieces(&mut self, neighbour: PeerName, opened: &[u8], now: Instant) {
        for piece in Pieces::new(opened) {
            match piece {
                Ok(Piece::Frame(head, bytes)) => self.frame(neighbour, head, bytes, now),
                Ok(control) => self.control(neighbour, control, now),
                Err(_) => self.counters.refuse(Refusal::Malformed),
            }
        }
    }

    fn control(&mut self, neighbour: PeerName, piece: Piece<'_>, now: Instant) {
        let Some(link) = self.links.get_mut(&neighbour) else { return };
        let answer = match piece {
            Piece::Beat { sequence, hears } => {
                link.live.beaten(hears);
                Some(Piece::Echo { sequence })
            }
            Piece::Probe { round, size } => Some(Piece::ProbeEcho { round, size }),
            Piece::Echo { sequence } => {
                if let Some(news) = link.echoed(sequence, now) {
                    self.report(neighbour, news);
                }
                None
            }
            Piece::ProbeEcho { round, size } => {
                link.path.answered(round, size, now);
                None
            }
            Piece::Frame(..) => None,
        };
        if let (Some(answer), Some(link)) = (answer, self.links.get_mut(&neighbour)) {
            link.control(&answer, &mut self.outbox, now);
            self.mark(neighbour);
        }
    }

    fn frame(&mut self, neighbour: PeerName, head: FrameHead, bytes: &[u8], now: Instant) {
        if let Some(link) = self.links.get_mut(&neighbour) {
            link.live.carried(now);
            link.counters.received_frames += 1;
        }
        let source = match head.route {
            None => neighbour,
            Some(route) if route.source == self.me => return self.counters.drop(DropReason::Loop),
            Some(route) if self.is_barred(route) => return self.counters.drop(DropReason::Barred),
            // While peers see different links, their trees together are none: a frame would come round again and
            // be multiplied at each turn. Whoever takes it from one neighbour only passes it on once, and once more when
            // that neighbour is another one now.
            Some(route) if head.flood && !self.is_on_tree(route, neighbour) => {
                return self.counters.drop(DropReason::OffTree);
            }
            Some(route) if head.flood => {
                self.flood_on(neighbour, head, route, bytes, now);
                if !head.deliver {
                    return self.learn(route.source, &head, bytes, now);
                }
                route.source
            }
            Some(route) if route.destination == self.me => route.source,
            Some(route) => return self.relay(neighbour, head, route, bytes, now),
        };
        let Some(part) = head.part.filter(|part| !part.is_whole(bytes)) else {
            return self.deliver(source, head, None, bytes, now);
        };
        let Some(link) = self.links.get_mut(&neighbour) else { return };
        match link.join(source, part, head.vnet, bytes, &mut self.outbox, now) {
            Joined::Waiting => {}
            Joined::Refused => self.counters.refuse(Refusal::PartRefused),
            Joined::Whole(frame, vnet) => {
                self.deliver(source, FrameHead { vnet, ..head }, Some(frame), &[], now);
            }
        }
    }

    /// Hands a whole frame to the bridge: `joined` if it had to be put together, else `bytes`.
    fn deliver(
        &mut self,
        source: PeerName,
        head: FrameHead,
        joined: Option<Vec<u8>>,
        bytes: &[u8],
        now: Instant,
    ) {
        let frame = joined.unwrap_or_else(|| {
            let mut copy = self.outbox.buffer();
            copy.extend_from_slice(bytes);
            copy
        });
        let verdict = Frame::parse(&frame).map(|view| match head.number() {
            Some(id) => self.switch.arrived_flooded(source, id, &view, now),
            None => self.switch.arrived(source, &view, now),
        });
        match verdict.unwrap_or(Verdict::Drop(DropReason::Malformed)) {
            Verdict::Inject => {
                self.counters.injected.add(frame.len());
                self.inject.push_back((frame, head.vnet));
                return;
            }
            Verdict::Drop(reason) => self.counters.drop(reason),
            Verdict::Forward(_) | Verdict::Flood => self.counters.drop(DropReason::Loop),
        }
        self.outbox.recycle(frame);
    }

    /// A flooded frame that the kernel delivers here: only its source address is news.
    fn learn(&mut self, source: PeerName, head: &FrameHead, bytes: &[u8], now: Instant) {
        if head.part.is_none_or(|part| part.offset == 0)
            && let Some(view) = Frame::parse(bytes)
        {
            self.switch.passed(source, &view, now);
        }
    }

    fn flood_on(&mut self, neighbour: PeerName, head: FrameHead, route: Route, bytes: &[u8], now: Instant) {
        match route.hops.checked_sub(1) {
            Some(hops) => {
                let head = FrameHead { route: Some(Route { hops, ..route }), ..head };
                self.spread(Some(neighbour), head, bytes, now);
            }
            None => self.counters.drop(DropReason::HopLimit),
        }
    }

    fn relay(&mut self, neighbour: PeerName, head: FrameHead, route: Route, bytes: &[u8], now: Instant) {
        let next = self.switch.table().next_hop.get(&route.destination).copied();
        let sent = match (next.filter(|next| *next != neighbour), route.hops.checked_sub(1)) {
            (None, _) => Err(DropReason::NoRoute),
            (_, None) => Err(DropReason::HopLimit),
            (Some(next), Some(hops)) => {
                // For the last hop the route is still needed: it is what says whose frame it is.
                let head = FrameHead { route: Some(Route { hops, ..route }), ..head };
                self.send(next, head, bytes, now)
            }
        };
        match sent {
            Ok(()) => self.counters.relayed.add(bytes.len()),
            Err(reason) => self.counters.drop(reason),
        }
    }

    fn is_on_tree(&self, route: Route, neighbour: PeerName) -> bool {
        self.switch.table().upstream.get(&route.source) == Some(&neighbour)
    }

    fn is_barred(&self, route: Route) -> bool {
        let barred = &self.switch.table().barred;
        !barred.is_empty() && (barred.contains(&route.source) || barred.contains(&route.destination))
    }
}
