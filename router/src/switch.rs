//! The learning switch: which peer a frame is for, in one look-up.
//!
//! It knows four things: the forwarding table (from the control half), the MAC addresses of this host's own
//! containers (from the control half), which other address is behind which peer (learned, `mac_table.rs`), and which
//! flooded frames the bridge has had (`flooded.rs`).
//!
//! Who wins when two disagree about an address: our own containers always; otherwise whoever showed it last. A
//! frame captured here from an address learned as remote means that it moved here (our own injections are never
//! captured), so it is forgotten at once.

pub mod flooded;
pub mod frame;
pub mod mac_table;
pub mod offload;
pub mod segment;
pub mod table;
pub mod verdict;

use flooded::Flooded;
use frame::{Frame, is_link_local};
use mac_table::MacTable;
use std::{collections::BTreeSet, sync::Arc, time::Instant};
use table::ForwardingTable;
use verdict::{DropReason, Verdict};
use weft_fastpath::{MacAddr, vxlan::PROBE_ETHERTYPE};
use weft_gossip::PeerName;

/// The switch of one host.
pub struct Switch {
    table: Arc<ForwardingTable>,
    local: BTreeSet<MacAddr>,
    macs: MacTable,
    flooded: Flooded,
}

impl Switch {
    /// A switch that knows nobody.
    pub fn new(me: PeerName) -> Self {
        Self {
            table: Arc::new(ForwardingTable::alone(me)),
            local: BTreeSet::new(),
            macs: MacTable::default(),
            flooded: Flooded::default(),
        }
    }

    /// The table in force.
    pub fn table(&self) -> &Arc<ForwardingTable> {
        &self.table
    }

    /// The learned addresses.
    pub fn macs(&self) -> &MacTable {
        &self.macs
    }

    /// Replaces the forwarding table.
    pub fn set_table(&mut self, table: Arc<ForwardingTable>) {
        self.table = table;
    }

    /// Replaces the set of addresses of this host's containers.
    pub fn set_local(&mut self, local: BTreeSet<MacAddr>) {
        for mac in &local {
            self.macs.forget(*mac);
        }
        self.local = local;
    }

    /// Forgets what was learned from a peer.
    pub fn forget(&mut self, peer: PeerName) {
        self.macs.forget_peer(peer);
    }

    /// Takes over addresses that the kernel had behind a peer: frames for them need not be flooded.
    pub fn place(&mut self, peer: PeerName, macs: &BTreeSet<MacAddr>, now: Instant) {
        for mac in macs.iter().filter(|mac| !mac.is_multicast() && !self.local.contains(mac)) {
            self.macs.learn(*mac, peer, now);
        }
    }

    /// The addresses behind a peer, which the kernel takes over.
    pub fn hand_over(&mut self, peer: PeerName, now: Instant) -> BTreeSet<MacAddr> {
        self.macs.hand_over(peer, now)
    }

    /// Decides about a frame that this host's bridge handed over.
    pub fn captured(&mut self, frame: &Frame, now: Instant) -> Verdict {
        if let Some(reason) = implausible(frame, self.table.me) {
            return Verdict::Drop(reason);
        }
        self.macs.forget(frame.source);
        if frame.destination.is_multicast() {
            return Verdict::Flood;
        }
        if self.local.contains(&frame.destination) {
            return Verdict::Drop(DropReason::Local);
        }
        let Some(peer) = self.macs.find(frame.destination, now) else { return Verdict::Flood };
        if self.table.barred.contains(&peer) {
            return Verdict::Drop(DropReason::Barred);
        }
        match self.table.next_hop.get(&peer) {
            None => Verdict::Drop(DropReason::NoRoute),
            // The kernel knows the way and took it; what was captured is a copy. But a frame that sleeve brought after the
            // change has turned the bridge back to us.
            Some(next) if *next == peer && self.table.is_on_fastpath(peer) => {
                let turned = self.macs.is_fresh(frame.destination);
                if turned { Verdict::Forward(peer) } else { Verdict::Drop(DropReason::OnFastpath) }
            }
            Some(_) => Verdict::Forward(peer),
        }
    }

    /// Decides about a frame of another host that is for this one, and learns from it.
    pub fn arrived(&mut self, source: PeerName, frame: &Frame, now: Instant) -> Verdict {
        let verdict = self.judge(source, frame);
        if verdict == Verdict::Inject {
            self.macs.learn(frame.source, source, now);
        }
        verdict
    }

    /// Decides the same about a flooded frame with this number, which may come by several ways.
    pub fn arrived_flooded(&mut self, source: PeerName, id: u32, frame: &Frame, now: Instant) -> Verdict {
        let repeated = !self.flooded.is_first(source, id);
        if repeated { Verdict::Drop(DropReason::Repeated) } else { self.arrived(source, frame, now) }
    }

    /// Learns from a frame of another host that the kernel delivers here.
    pub fn passed(&mut self, source: PeerName, frame: &Frame, now: Instant) {
        if self.judge(source, frame) == Verdict::Inject {
            self.macs.see(frame.source, source, now);
        }
    }

    fn judge(&self, source: PeerName, frame: &Frame) -> Verdict {
        if let Some(reason) = implausible(frame, source) {
            return Verdict::Drop(reason);
        }
        if self.table.barred.contains(&source) {
            return Verdict::Drop(DropReason::Barred);
        }
        if source == self.table.me {
            return Verdict::Drop(DropReason::Loop);
        }
        if self.local.contains(&frame.source) {
            return Verdict::Drop(DropReason::SourceIsLocal);
        }
        Verdict::Inject
    }
}

fn implausible(frame: &Frame, host: PeerName) -> Option<DropReason> {
    if frame.source.is_multicast() || frame.source == MacAddr::new([0; 6]) {
        return Some(DropReason::BadSource);
    }
    if is_link_local(frame.destination) {
        return Some(DropReason::LinkLocal);
    }
    // A bridge that does not know the way of its host's probe yet floods it; by sleeve it would prove a path it never
    // took.
    let probe = frame.ethertype == PROBE_ETHERTYPE && frame.source == MacAddr::vxlan_of(host.as_u64());
    probe.then_some(DropReason::VxlanProbe)
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "virtual time starts somewhere")]
mod tests {
    use super::{table::Carrier, *};

    const ME: PeerName = PeerName::from_u64(1);
    const PEER: PeerName = PeerName::from_u64(2);
    const FAR: PeerName = PeerName::from_u64(3);
    const OURS: MacAddr = MacAddr::new([2, 0, 0, 0, 0, 1]);
    const THEIRS: MacAddr = MacAddr::new([2, 0, 0, 0, 0, 2]);
    const BROADCAST: MacAddr = MacAddr::new([255; 6]);

    fn frame(source: MacAddr, destination: MacAddr) -> Frame {
        Frame { destination, source, ethertype: 0x0800, vlan: None }
    }

    /// ME – PEER – FAR in a chain.
    fn switch(carrier: Carrier, barred: &[PeerName]) -> Switch {
        let mut switch = Switch::new(ME);
        let mut table = ForwardingTable::alone(ME);
        table.next_hop = [(PEER, PEER), (FAR, PEER)].into();
        table.flood = [(ME, vec![PEER])].into();
        table.carriers = [(PEER, carrier)].into();
        table.barred = barred.iter().copied().collect();
        switch.set_table(Arc::new(table));
        switch.set_local([OURS].into());
        switch
    }

    #[test]
    fn what_is_known_is_forwarded_and_what_is_not_is_flooded() {
        let (mut switch, now) = (switch(Carrier::Sleeve, &[]), Instant::now());
        assert_eq!(switch.captured(&frame(OURS, THEIRS), now), Verdict::Flood);
        assert_eq!(switch.arrived(PEER, &frame(THEIRS, OURS), now), Verdict::Inject);
        assert_eq!(switch.captured(&frame(OURS, THEIRS), now), Verdict::Forward(PEER));
        assert_eq!(switch.captured(&frame(OURS, BROADCAST), now), Verdict::Flood);
        assert_eq!(switch.captured(&frame(OURS, OURS), now), Verdict::Drop(DropReason::Local));
    }

    #[test]
    fn unicast_for_a_direct_neighbour_on_fastpath_is_a_copy_and_behind_a_relay_it_is_not() {
        let (mut switch, now) = (switch(Carrier::Fastpath, &[]), Instant::now());
        switch.arrived(PEER, &frame(THEIRS, OURS), now);
        switch.hand_over(PEER, now);
        assert_eq!(switch.captured(&frame(OURS, THEIRS), now), Verdict::Drop(DropReason::OnFastpath));
        switch.arrived(FAR, &frame(THEIRS, OURS), now);
        assert_eq!(switch.captured(&frame(OURS, THEIRS), now), Verdict::Forward(FAR));
        let hops: Vec<_> = switch.table().flood_hops(ME).collect();
        assert_eq!(hops, [(PEER, false)], "it passes the frame on and does not deliver it twice");
    }

    /// One end changes before the other, and a frame may have been under way for long.
    #[test]
    fn what_a_late_frame_has_turned_back_to_sleeve_goes_by_sleeve_until_the_kernel_takes_it_over_again() {
        let (mut switch, now) = (switch(Carrier::Sleeve, &[]), Instant::now());
        switch.arrived(PEER, &frame(THEIRS, OURS), now);
        switch.set_table(self::switch(Carrier::Fastpath, &[]).table().clone());
        assert_eq!(switch.hand_over(PEER, now), [THEIRS].into());
        assert_eq!(switch.captured(&frame(OURS, THEIRS), now), Verdict::Drop(DropReason::OnFastpath));
        switch.passed(PEER, &frame(THEIRS, BROADCAST), now);
        assert_eq!(switch.captured(&frame(OURS, THEIRS), now), Verdict::Drop(DropReason::OnFastpath));
        switch.arrived(PEER, &frame(THEIRS, OURS), now);
        assert_eq!(switch.captured(&frame(OURS, THEIRS), now), Verdict::Forward(PEER));
        assert_eq!(switch.hand_over(PEER, now), [THEIRS].into());
        assert_eq!(switch.captured(&frame(OURS, THEIRS), now), Verdict::Drop(DropReason::OnFastpath));
    }

    #[test]
    fn probes_of_the_vxlan_path_do_not_travel_by_sleeve() {
        let (mut switch, now) = (switch(Carrier::Sleeve, &[]), Instant::now());
        let [ours, theirs] = [ME, PEER].map(|host| MacAddr::vxlan_of(host.as_u64()));
        let probe = |source, destination| Frame { ethertype: PROBE_ETHERTYPE, ..frame(source, destination) };
        assert_eq!(switch.captured(&probe(ours, theirs), now), Verdict::Drop(DropReason::VxlanProbe));
        assert_eq!(switch.arrived(PEER, &probe(theirs, ours), now), Verdict::Drop(DropReason::VxlanProbe));
        assert_eq!(switch.macs().find(theirs, now), None);
        // A container may use that Ethernet type for whatever it likes.
        assert_eq!(switch.captured(&probe(OURS, theirs), now), Verdict::Flood);
        assert_eq!(switch.arrived(PEER, &probe(THEIRS, OURS), now), Verdict::Inject);
    }

    #[test]
    fn no_frame_goes_to_or_comes_from_a_barred_peer() {
        let (mut open, now) = (switch(Carrier::Sleeve, &[]), Instant::now());
        open.arrived(PEER, &frame(THEIRS, OURS), now);
        open.set_table(switch(Carrier::Sleeve, &[PEER]).table().clone());
        assert_eq!(open.captured(&frame(OURS, THEIRS), now), Verdict::Drop(DropReason::Barred));
        assert_eq!(open.arrived(PEER, &frame(THEIRS, OURS), now), Verdict::Drop(DropReason::Barred));
        assert_eq!(open.table().flood_hops(ME).count(), 0);
    }

    #[test]
    fn an_address_that_moves_is_followed_at_once_and_our_own_cannot_be_taken() {
        let (mut switch, now) = (switch(Carrier::Sleeve, &[]), Instant::now());
        switch.arrived(PEER, &frame(THEIRS, OURS), now);
        switch.arrived(FAR, &frame(THEIRS, OURS), now);
        assert_eq!(switch.macs().find(THEIRS, now), Some(FAR));
        assert_eq!(switch.captured(&frame(THEIRS, BROADCAST), now), Verdict::Flood);
        assert_eq!(switch.macs().find(THEIRS, now), None);
        assert_eq!(switch.arrived(PEER, &frame(OURS, THEIRS), now), Verdict::Drop(DropReason::SourceIsLocal));
        switch.arrived(PEER, &frame(THEIRS, OURS), now);
        switch.set_local([OURS, THEIRS].into());
        assert_eq!(switch.macs().find(THEIRS, now), None);
    }

    #[test]
    fn group_sources_are_never_learned_and_link_local_frames_stay() {
        let (mut switch, now) = (switch(Carrier::Sleeve, &[]), Instant::now());
        let stp = MacAddr::new([0x01, 0x80, 0xc2, 0, 0, 0]);
        for source in [BROADCAST, MacAddr::new([1, 0, 0x5e, 0, 0, 1]), MacAddr::new([0; 6])] {
            assert_eq!(switch.arrived(PEER, &frame(source, OURS), now), Verdict::Drop(DropReason::BadSource));
            assert_eq!(switch.captured(&frame(source, OURS), now), Verdict::Drop(DropReason::BadSource));
        }
        assert_eq!(switch.captured(&frame(OURS, stp), now), Verdict::Drop(DropReason::LinkLocal));
        assert!(switch.macs().is_empty());
    }

    #[test]
    fn addresses_the_kernel_hands_over_are_known_at_once_but_never_our_own() {
        let (mut switch, now) = (switch(Carrier::Sleeve, &[]), Instant::now());
        switch.place(PEER, &[THEIRS, OURS, BROADCAST].into(), now);
        assert_eq!(switch.captured(&frame(OURS, THEIRS), now), Verdict::Forward(PEER));
        assert_eq!(switch.captured(&frame(THEIRS, OURS), now), Verdict::Drop(DropReason::Local));
        switch.place(PEER, &[THEIRS].into(), now);
        assert_eq!(switch.macs().behind(PEER, now).collect::<Vec<_>>(), [THEIRS]);
        assert_eq!(switch.macs().behind(FAR, now).count(), 0);
    }

    #[test]
    fn what_came_from_ourselves_is_a_loop() {
        let (mut switch, now) = (switch(Carrier::Sleeve, &[]), Instant::now());
        assert_eq!(switch.arrived(ME, &frame(THEIRS, OURS), now), Verdict::Drop(DropReason::Loop));
    }
}
