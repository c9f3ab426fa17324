//! After the faults: everybody reaches everybody, all rings are equal, nothing is left over.

use std::time::Duration;

use rand::RngExt as _;
use weft_router::ipam::cluster::Charter;
use weft_router::ipam::ring::Segment;

use super::World;
use super::agenda::HostId;

/// How often it is looked whether all is well again.
const LOOK: Duration = Duration::from_millis(500);
/// Most pairs that are asked; in a larger world they are drawn.
const PAIRS: usize = 600;

/// How a peer believes the range to be divided.
type Division = Option<(Charter, Vec<Segment>)>;

impl World {
    /// Runs until all is well and says how long that took (I9).
    pub(super) fn recover(&mut self, at_most: Duration) -> Result<Duration, String> {
        let began = self.now;
        loop {
            self.run_for(LOOK)?;
            let wrong = match self.wrong() {
                None => self.ask_around(Duration::from_secs(2))?,
                wrong => wrong,
            };
            match wrong {
                None => return Ok(self.now - began),
                Some(wrong) if self.now - began > at_most => {
                    return Err(format!("still not well after {at_most:?}: {wrong} (I9)"));
                }
                Some(_) => {}
            }
        }
    }

    /// The first thing that is not as it should be in the end.
    fn wrong(&self) -> Option<String> {
        self.wrong_but_for(None)
    }

    /// The same, leaving one host out.
    pub(super) fn wrong_but_for(&self, without: Option<HostId>) -> Option<String> {
        let mut counted = self.containers.iter().filter(|container| Some(container.host) != without);
        let waits = counted.find(|container| container.alive && container.address.is_none());
        if let Some(container) = waits {
            return Some(format!("{} on host{} has no address", container.id, container.host));
        }
        let mut rings: Vec<(Division, Vec<usize>)> = Vec::new();
        for (at, host) in self.hosts.iter().enumerate().filter(|(at, _)| Some(*at) != without) {
            let Some(process) = &host.process else { return Some(format!("host{at} does not run")) };
            let state = process.node.state();
            let ring = state.ipam.as_ref().and_then(|snapshot| snapshot.ring());
            let ring = ring.map(|(charter, segments)| (charter, segments.to_vec()));
            match rings.iter_mut().find(|(known, _)| *known == ring) {
                Some((_, hosts)) => hosts.push(at),
                None => rings.push((ring, vec![at])),
            }
        }
        if rings.len() > 1 {
            let groups: Vec<_> = rings.iter().map(|(_, hosts)| hosts).collect();
            return Some(format!("different rings: {groups:?}"));
        }
        self.leftover(without)
    }

    /// I8: a container link that no journal explains, or the other way round.
    fn leftover(&self, without: Option<HostId>) -> Option<String> {
        for (at, host) in self.hosts.iter().enumerate().filter(|(at, _)| Some(*at) != without) {
            let process = host.process.as_ref()?;
            let journal = process.node.state().attachments;
            let known = |port: &weft_fastpath::PortId| {
                journal.iter().any(|entry| entry.key.id == port.id && entry.key.ifname == port.ifname)
            };
            if let Some(stray) = host.kernel.strays(known).next() {
                return Some(format!("{stray} on host{at} belongs to nobody (I8)"));
            }
            let dead = |entry: &&weft_router::node::attachments::Attachment| {
                !self.containers.iter().any(|container| container.alive && container.id == entry.key.id)
            };
            if let Some(entry) = journal.iter().find(dead) {
                return Some(format!("{} on host{at} is gone and still in the journal (I8)", entry.key.id));
            }
            let leased = process.node.state().ipam.map_or(0, |snapshot| snapshot.leases().len());
            if leased != journal.len() {
                return Some(format!("host{at} holds {leased} addresses for {} links (I8)", journal.len()));
            }
        }
        None
    }

    /// Has every container ask every other once; says who got no answer within this time.
    pub(super) fn ask_around(&mut self, patience: Duration) -> Result<Option<String>, String> {
        let speakers: Vec<usize> = self.speakers().collect();
        let pairs = speakers.iter().flat_map(|from| speakers.iter().map(move |to| (*from, *to)));
        let mut pairs: Vec<(usize, usize)> = pairs.filter(|(from, to)| from != to).collect();
        while pairs.len() > PAIRS {
            pairs.swap_remove(self.rng.random_range(0..pairs.len()));
        }
        let mut asked = Vec::new();
        for (from, to) in pairs {
            let size = if self.rng.random_ratio(1, 4) { 1_450 } else { 60 };
            asked.extend(self.say(from, Some(to), size).map(|number| (number, from, to)));
            self.run_for(Duration::from_micros(300))?;
        }
        self.run_for(patience)?;
        let silent = asked.iter().filter(|(number, ..)| !self.reference.is_answered(*number));
        let silent: Vec<(usize, usize)> = silent.map(|(_, from, to)| (*from, *to)).collect();
        let Some((from, to)) = silent.first().copied() else { return Ok(None) };
        Ok(Some(format!(
            "{} of {} questions are not answered, the first from c{from} to c{to}: {}",
            silent.len(),
            asked.len(),
            self.describe(from, to)
        )))
    }

    /// What is known about the way between two containers.
    fn describe(&self, from: usize, to: usize) -> String {
        let ends = [(from, to), (to, from)].map(|(here, there)| {
            let (host, other) = (self.containers[here].host, self.containers[there].host);
            let state = &self.hosts[host];
            let mac = self.containers[there].address.map(weft_fastpath::MacAddr::from_ip).unwrap_or_default();
            let carriers = state.process.as_ref().map(|process| {
                let status = process.node.status(state.clock.at(self.now));
                let name = self.hosts[other].name.to_string();
                let link = status.connections.into_iter().find(|link| link.peer.as_ref() == Some(&name));
                link.map(|link| format!("{:?} {:?} mtu {:?}", link.carrier, link.reason, link.mtu))
            });
            format!(
                "\n  c{here} on host{host}: to host{other} {carriers:?}, {}",
                state.kernel.bridge.describe(mac)
            )
        });
        ends.concat()
    }
}
