//! The underlay between hosts: what each path lets through, how late, how often, how large.

use std::time::Duration;

use rand::RngExt as _;
use rand::rngs::StdRng;

use super::agenda::HostId;

/// The largest IP packet of every host's own interface.
pub(super) const INTERFACE: usize = 1500;

/// The path from one host to another. Counts are of the faults that hold it now.
#[derive(Clone, Copy, Debug)]
pub(super) struct Way {
    /// Nothing gets through.
    pub(super) cut: u32,
    /// No sleeve datagram gets through.
    pub(super) no_sleeve: u32,
    /// No VXLAN packet gets through.
    pub(super) no_vxlan: u32,
    /// Fastest one-way latency, and how much slower a packet may be.
    pub(super) latency: Duration,
    pub(super) jitter: Duration,
    /// Parts in a thousand that are lost, and that come twice.
    pub(super) loss: u32,
    pub(super) twice: u32,
    /// Bytes of the largest IP packet.
    pub(super) mtu: usize,
}

impl Way {
    const OPEN: Self = Self {
        cut: 0,
        no_sleeve: 0,
        no_vxlan: 0,
        latency: Duration::from_micros(100),
        jitter: Duration::from_micros(200),
        loss: 0,
        twice: 0,
        mtu: INTERFACE,
    };

    /// How long the next packet takes.
    pub(super) fn lag(&self, rng: &mut StdRng) -> Duration {
        let most = u64::try_from(self.jitter.as_nanos()).unwrap_or(u64::MAX);
        self.latency + Duration::from_nanos(rng.random_range(0..=most))
    }

    /// When the copies of a datagram of so many bytes (with its IP header) arrive; none when it is lost.
    pub(super) fn datagram(&self, size: usize, rng: &mut StdRng) -> [Option<Duration>; 2] {
        if self.cut > 0 || size > self.mtu || rng.random_ratio(self.loss.min(1000), 1000) {
            return [None, None];
        }
        let twice = rng.random_ratio(self.twice.min(1000), 1000);
        [Some(self.lag(rng)), twice.then(|| self.lag(rng))]
    }

    /// How long a piece of a TCP stream takes: what is lost is sent again.
    pub(super) fn stream(&self, rng: &mut StdRng) -> Duration {
        let mut lag = self.lag(rng);
        for again in 0..4_u32 {
            if !rng.random_ratio(self.loss.min(1000), 1000) {
                break;
            }
            lag += Duration::from_millis(200) * 2_u32.pow(again);
        }
        lag
    }
}

/// All paths.
#[derive(Debug)]
pub(super) struct Network {
    hosts: usize,
    ways: Vec<Way>,
}

impl Network {
    /// Open paths; each pair of hosts is as far apart as chance has it, up to `far`.
    pub(super) fn new(hosts: usize, far: Duration, rng: &mut StdRng) -> Self {
        let mut network = Self { hosts, ways: vec![Way::OPEN; hosts * hosts] };
        let most = u64::try_from(far.as_micros()).unwrap_or(u64::MAX).max(100);
        for one in 0..hosts {
            for two in 0..one {
                let latency = Duration::from_micros(rng.random_range(50..=most));
                network.way(one, two).latency = latency;
                network.way(two, one).latency = latency;
            }
        }
        network
    }

    pub(super) fn hosts(&self) -> usize {
        self.hosts
    }

    pub(super) fn way(&mut self, from: HostId, to: HostId) -> &mut Way {
        &mut self.ways[from * self.hosts + to]
    }

    pub(super) fn look(&self, from: HostId, to: HostId) -> &Way {
        &self.ways[from * self.hosts + to]
    }

    pub(super) fn is_cut(&self, from: HostId, to: HostId) -> bool {
        self.look(from, to).cut > 0
    }

    /// Whether two hosts can talk at all, both ways.
    pub(super) fn is_linked(&self, one: HostId, two: HostId) -> bool {
        !self.is_cut(one, two) && !self.is_cut(two, one)
    }
}
