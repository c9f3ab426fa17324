//! From the bridge to the neighbours: the way of a captured frame.

use super::Dataplane;
use crate::{
    sleeve::piece::{FrameHead, MAX_FRAME, Part, Route},
    switch::{
        frame::Frame,
        offload::VnetHeader,
        verdict::{DropReason, Verdict},
    },
};
use std::{sync::Arc, time::Instant};
use weft_gossip::PeerName;

/// How many links a frame may cross.
pub(super) const HOPS: u8 = 32;

impl Dataplane {
    /// A frame left the bridge on the sleeve port.
    pub fn handle_captured(&mut self, frame: &[u8], vnet: Option<VnetHeader>, now: Instant) {
        self.now = now;
        self.counters.captured.add(frame.len());
        let vnet = vnet.filter(|vnet| !vnet.is_plain());
        if frame.len() > MAX_FRAME {
            return self.counters.drop(DropReason::Oversized);
        }
        let Some(view) = Frame::parse(frame) else { return self.counters.drop(DropReason::Malformed) };
        match self.switch.captured(&view, now) {
            Verdict::Forward(peer) => self.forward(peer, vnet, frame, now),
            Verdict::Flood => self.flood(vnet, frame, now),
            Verdict::Inject => self.counters.drop(DropReason::Local),
            Verdict::Drop(reason) => self.counters.drop(reason),
        }
    }

    fn forward(&mut self, peer: PeerName, vnet: Option<VnetHeader>, frame: &[u8], now: Instant) {
        let Some(next) = self.switch.table().next_hop.get(&peer).copied() else {
            return self.counters.drop(DropReason::NoRoute);
        };
        let route = (next != peer).then_some(Route { source: self.me, destination: peer, hops: HOPS - 1 });
        match self.send(next, FrameHead { route, ..FrameHead::direct(vnet) }, frame, now) {
            Ok(()) => self.counters.forwarded.add(frame.len()),
            Err(reason) => self.counters.drop(reason),
        }
    }

    fn flood(&mut self, vnet: Option<VnetHeader>, frame: &[u8], now: Instant) {
        let route = Route { source: self.me, destination: self.me, hops: HOPS - 1 };
        let head = FrameHead {
            flood: true,
            route: Some(route),
            part: Some(self.numbered(frame)),
            ..FrameHead::direct(vnet)
        };
        self.counters.flooded.add(frame.len());
        self.spread(None, head, frame, now);
    }

    /// The whole frame as its only part, under a number by which it is known again wherever it comes twice.
    fn numbered(&mut self, frame: &[u8]) -> Part {
        self.frame_id = self.frame_id.wrapping_add(1);
        Part::whole(self.frame_id, frame)
    }

    /// Passes a flooded frame on to the next neighbours of its source's tree, but not back to `from`.
    pub(super) fn spread(&mut self, from: Option<PeerName>, head: FrameHead, bytes: &[u8], now: Instant) {
        let Some(route) = head.route else { return };
        let table = Arc::clone(self.switch.table());
        for (next, deliver) in table.flood_hops(route.source).filter(|(next, _)| Some(*next) != from) {
            match self.send(next, FrameHead { deliver, ..head }, bytes, now) {
                Ok(()) if from.is_some() => self.counters.relayed.add(bytes.len()),
                Ok(()) => {}
                Err(reason) => self.counters.drop(reason),
            }
        }
    }

    /// Hands a frame, or a part of one, to a neighbour's link.
    pub(super) fn send(
        &mut self,
        next: PeerName,
        head: FrameHead,
        bytes: &[u8],
        now: Instant,
    ) -> Result<(), DropReason> {
        let link = self.links.get_mut(&next).ok_or(DropReason::NoRoute)?;
        link.carry(head, bytes, &mut self.frame_id, &mut self.outbox, now)?;
        self.mark(next);
        Ok(())
    }
}
